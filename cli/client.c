/* HTTP by libcurl: over TCP, or over the admin Unix socket. */
#include "cli.h"
#include <curl/curl.h>

#define REPLY_MAX (1u << 30)

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct reply *r = arg;
    size_t more = size * n;

    if (more > REPLY_MAX - r->bytes)
        return 0;
    char *grown = realloc(r->text, r->bytes + more + 1);
    if (!grown)
        return 0;
    memcpy(grown + r->bytes, data, more);
    r->text = grown;
    r->bytes += more;
    r->text[r->bytes] = 0;
    return more;
}

void reply_done(struct reply *r)
{
    json_decref(r->json);
    free(r->text);
    *r = (struct reply){0};
}

const char *client_path(const char *before, const char *name, const char *after)
{
    static char path[1024];
    char *escaped = curl_easy_escape(NULL, name, 0);

    (void)snprintf(path, sizeof(path), "%s%s%s", before, escaped ? escaped : "", after);
    curl_free(escaped);
    return path;
}

static void set_up(CURL *curl, const struct cli *c, const char *method, const char *path,
                   char url[2048])
{
    bool is_unix = strncmp(c->server, "unix:", 5) == 0;

    (void)snprintf(url, 2048, "%s%s", is_unix ? "http://localhost" : c->server, path);
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_PROXY, "");
    if (is_unix)
        (void)curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, c->server + 5);
}

static void set_body(CURL *curl, const char *body, FILE *upload)
{
    if (upload) {
        (void)fseek(upload, 0, SEEK_END);
        (void)curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)ftell(upload));
        (void)fseek(upload, 0, SEEK_SET);
        (void)curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        (void)curl_easy_setopt(curl, CURLOPT_READDATA, upload);
    } else if (body) {
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    }
}

/* What the daemon said went wrong. */
static int reply_error(const struct reply *r, struct err *err)
{
    const char *said = json_string_value(json_object_get(r->json, "error"));

    return said ? err_set(err, -EIO, "%s", said)
                : err_set(err, -EIO, "the daemon answered with status %ld", r->status);
}

int client_call(const struct cli *c, const char *method, const char *path, const char *body,
                FILE *upload, struct reply *ret, struct err *err)
{
    char url[2048], auth[300];
    struct curl_slist *headers = NULL;
    double s = 0;
    CURL *curl = curl_easy_init();

    if (!curl)
        return err_set(err, -ENOMEM, "out of memory");
    *ret = (struct reply){0};
    set_up(curl, c, method, path, url);
    set_body(curl, body, upload);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, ret);
    headers = curl_slist_append(headers, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Expect:");
    if (c->token) {
        (void)snprintf(auth, sizeof(auth), "Authorization: Bearer %s", c->token);
        headers = curl_slist_append(headers, auth);
    }
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    CURLcode code = curl_easy_perform(curl);
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &ret->status);
    (void)curl_easy_getinfo(curl, CURLINFO_TOTAL_TIME, &s);
    ret->ms = s * 1000;
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    if (code != CURLE_OK)
        return err_set(err, -EIO, "%s: %s; is gpuletd running?", c->server,
                       curl_easy_strerror(code));
    ret->json = ret->bytes ? json_loadb(ret->text, ret->bytes, 0, NULL) : NULL;
    return ret->status / 100 == 2 ? 0 : reply_error(ret, err);
}
