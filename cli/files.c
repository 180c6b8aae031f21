/* Whole files in and out. */
#include "cli.h"

static int read_all(FILE *f, const char *name, size_t max_bytes, char **ret, size_t *ret_bytes,
                    struct err *err)
{
    AUTO(free) char *text = NULL;
    size_t n = 0, cap = 0, got;

    do {
        if (n + 65536 > cap) {
            cap = cap ? cap * 2 : 1u << 20;
            char *grown = realloc(text, cap + 1);
            if (!grown)
                return err_set(err, -ENOMEM, "'%s': out of memory", name);
            text = grown;
        }
        got = fread(text + n, 1, cap - n, f);
        n += got;
        if (n > max_bytes)
            return err_set(err, -EFBIG, "'%s' is larger than %zu bytes", name, max_bytes);
    } while (got > 0);
    if (ferror(f))
        return err_set(err, -EIO, "'%s': %s", name, strerror(errno));
    text[n] = 0;
    *ret = TAKE(text);
    *ret_bytes = n;
    return 0;
}

int file_read(const char *path, size_t max_bytes, char **ret, size_t *ret_bytes, struct err *err)
{
    bool is_stdin = STREQ(path, "-");
    FILE *f = is_stdin ? stdin : fopen(path, "re");

    if (!f) /* not its errno: -EINVAL would say that the command line is wrong */
        return err_set(err, -EIO, "'%s': %s", path, strerror(errno));
    int r = read_all(f, is_stdin ? "standard input" : path, max_bytes, ret, ret_bytes, err);
    if (!is_stdin)
        (void)fclose(f);
    return r;
}

int file_write(const char *path, const char *text, struct err *err)
{
    FILE *f = fopen(path, "we");
    bool ok = f && fputs(text, f) >= 0;

    if (f && fclose(f) != 0)
        ok = false;
    return ok ? 0 : err_set(err, -EIO, "'%s': %s", path, strerror(errno));
}
