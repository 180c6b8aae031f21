/* Errors: one line for a person, with context put in front as it travels up. */
#include <gpulet/base.h>
#include <stdarg.h>
#include <stdio.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    for (char *c = e->msg; *c; c++) /* one line, whatever a foreign name held */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    e->code = code;
    return code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    if (!e)
        return 0;
    char inner[sizeof(e->msg)];
    memcpy(inner, e->msg, sizeof(inner));

    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof(e->msg))
        (void)snprintf(e->msg + n, sizeof(e->msg) - (size_t)n, "%s", inner);
    return e->code;
}
