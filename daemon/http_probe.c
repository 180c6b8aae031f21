#include "http_probe.h"
#include <ctype.h>
#include <stdio.h>
#include <strings.h>

#define LINE_MAX 128 /* of a request line that we know */

/* One header.  False: not in plain form, or it changes what the message is. */
static bool header_plain(const char *line, const char *end, uint32_t *n_hosts, bool *close)
{
    const char *colon = memchr(line, ':', (size_t)(end - line)), *value = colon ? colon + 1 : end;
    size_t name = colon ? (size_t)(colon - line) : 0, n;

    for (size_t i = 0; i < name; i++)
        if (!isalnum((unsigned char)line[i]) && line[i] != '-' && line[i] != '_')
            return false;
    for (const char *c = line; c < end; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
            return false;
    while (value < end && *value == ' ')
        value++;
    while (end > value && end[-1] == ' ')
        end--;
    n = (size_t)(end - value);
#define IS(text) (name == strlen(text) && strncasecmp(line, text, name) == 0)
    if (IS("Content-Length") || IS("Transfer-Encoding") || IS("Expect") || IS("Upgrade"))
        return false;
    *n_hosts += IS("Host");
    if (IS("Connection")) {
        *close = n == 5 && strncasecmp(value, "close", n) == 0;
        return *close || (n == 10 && strncasecmp(value, "keep-alive", n) == 0);
    }
#undef IS
    return name > 0;
}

/* at: behind the request line. */
static enum probe_found headers_find(const char *text, const char *at, size_t bytes,
                                     struct probe_request *ret)
{
    const char *end = memmem(at - 2, bytes - (size_t)(at - 2 - text), "\r\n\r\n", 4), *eol;
    uint32_t n_hosts = 0;

    if (!end) {
        for (const char *c = at; c < text + bytes; c++)
            if (*c == '\n' && c[-1] != '\r') /* some end their lines so */
                return PROBE_NO;
        return bytes < PROBE_BYTES_MAX ? PROBE_MORE : PROBE_NO;
    }
    for (; at < end; at = eol + 2) {
        eol = memmem(at, (size_t)(end + 2 - at), "\r\n", 2);
        if (!header_plain(at, eol, &n_hosts, &ret->close))
            return PROBE_NO;
    }
    ret->bytes = (size_t)(end + 4 - text);
    return n_hosts == 1 ? PROBE_YES : PROBE_NO;
}

enum probe_found probe_find(const struct http_probe *probe, size_t n_probes, const char *text,
                            size_t bytes, struct probe_request *ret)
{
    static const char *const method[] = {"GET", "HEAD"};
    char line[LINE_MAX];

    for (size_t i = 0; i < n_probes * ARRAY_SIZE(method); i++) {
        const struct http_probe *p = &probe[i / ARRAY_SIZE(method)];
        bool head = i % ARRAY_SIZE(method) == 1;
        size_t n =
            (size_t)snprintf(line, sizeof(line), "%s %s HTTP/1.1\r\n", method[head], p->path);

        if (memcmp(text, line, MIN(n, bytes)) != 0)
            continue;
        *ret = (struct probe_request){.probe = p, .head = head};
        return bytes < n ? PROBE_MORE : headers_find(text, text + n, bytes, ret);
    }
    return PROBE_NO;
}
