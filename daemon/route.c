/* Paths: split first, decode after; then compared with each row of the table.  A table has some
 * forty rows and a path few segments: the first segment that differs ends a row. */
#include "route.h"
#include <stdio.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int percent_decode(char *text)
{
    char *to = text;

    for (const char *c = text; *c; c++) {
        if (*c != '%') {
            *to++ = *c;
            continue;
        }
        int hi = hex(c[1]), lo = hi < 0 ? -1 : hex(c[2]);
        if (lo < 0 || hi * 16 + lo == 0)
            return -EINVAL;
        *to++ = (char)(hi * 16 + lo);
        c += 2;
    }
    *to = '\0';
    return 0;
}

static int segment_check(char *seg, struct err *err)
{
    if (percent_decode(seg) < 0)
        return err_set(err, -EINVAL, "path: '%.100s' has a bad percent escape", seg);
    if (strchr(seg, '/') || STREQ(seg, ".") || STREQ(seg, ".."))
        return err_set(err, -EINVAL, "path: '%.100s' cannot be a name", seg);
    return 0;
}

int path_split(char *text, struct path *ret, struct err *err)
{
    *ret = (struct path){0};
    if (*text != '/')
        return err_set(err, -EINVAL, "path: '%.100s' does not begin with '/'", text);
    if (!text[1])
        return 0; /* "/" has no segments */

    for (char *next = text; next;) {
        char *seg = next + 1;

        next = strchr(seg, '/');
        if (next)
            *next = '\0';
        if (ret->n == PATH_SEGMENTS_MAX)
            return err_set(err, -EINVAL, "path: more than %d segments", PATH_SEGMENTS_MAX);
        if (segment_check(seg, err) < 0)
            return err->code;
        ret->seg[ret->n++] = seg;
    }
    return 0;
}

/* One row's pattern against the path. */
static bool row_matches(const char *pattern, const struct path *p, const char *arg[ROUTE_ARGS_MAX])
{
    uint32_t n = 0, n_arg = 0;

    for (const char *at = pattern; *at && at[1]; n++) {
        const char *seg = at + 1;
        size_t len = strcspn(seg, "/");

        if (n == p->n)
            return false;
        if (*seg == '{') {
            assert(n_arg < ROUTE_ARGS_MAX);
            if (!*p->seg[n])
                return false;
            arg[n_arg++] = p->seg[n];
        } else if (strlen(p->seg[n]) != len || memcmp(seg, p->seg[n], len) != 0) {
            return false;
        }
        at = seg + len;
    }
    return n == p->n;
}

static void allow_add(char *allow, size_t size, const char *method)
{
    size_t used = strlen(allow);

    if (strstr(allow, method)) /* no method's name is part of another's */
        return;
    (void)snprintf(allow + used, size - used, "%s%s%s", used ? ", " : "", method,
                   STREQ(method, "GET") ? ", HEAD" : "");
}

enum route_found route_find(const struct route *table, size_t n, const char *method,
                            const struct path *p, const struct route **ret,
                            const char *ret_arg[ROUTE_ARGS_MAX], char *ret_allow, size_t allow_size)
{
    enum route_found found = ROUTE_NO_PATH;
    const char *wanted = STREQ(method, "HEAD") ? "GET" : method;

    *ret_allow = '\0';
    for (size_t i = 0; i < n; i++) {
        const char *arg[ROUTE_ARGS_MAX] = {0};

        if (!row_matches(table[i].pattern, p, arg))
            continue;
        if (STREQ(table[i].method, wanted)) {
            *ret = &table[i];
            memcpy(ret_arg, arg, sizeof(arg));
            return ROUTE_YES;
        }
        allow_add(ret_allow, allow_size, table[i].method);
        found = ROUTE_NO_METHOD;
    }
    return found;
}
