/* One line, two ways out.  Where stderr is the journal's, the journal is spoken to directly, with
 * fields; otherwise a person or a test reads stderr. */
#include "log.h"
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#define FIELDS_MAX 6
#define FIELD_MAX 400
#define MESSAGE_MAX (FIELD_MAX - sizeof("MESSAGE="))

struct fields {
    char text[FIELDS_MAX][FIELD_MAX];
    struct iovec iov[FIELDS_MAX];
    int n;
};

static void add(struct fields *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct fields *f, const char *fmt, ...)
{
    va_list ap;

    assert(f->n < FIELDS_MAX);
    va_start(ap, fmt);
    int n = vsnprintf(f->text[f->n], sizeof(f->text[0]), fmt, ap);
    va_end(ap);
    f->iov[f->n].iov_base = f->text[f->n];
    f->iov[f->n].iov_len = (size_t)MIN(MAX(n, 0), (int)sizeof(f->text[0]) - 1);
    f->n++;
}

static void to_journal(int level, const struct log_fields *f, const char *msg)
{
    struct fields out = {.n = 0};

    add(&out, "PRIORITY=%d", level);
    add(&out, "MESSAGE=%s", msg);
    if (f->event && *f->event)
        add(&out, "GPULETD_EVENT=%s", f->event);
    if (f->model && *f->model)
        add(&out, "GPULETD_MODEL=%s", f->model);
    if (f->version)
        add(&out, "GPULETD_VERSION=%u", f->version);
    if (f->gpulet >= 0)
        add(&out, "GPULETD_GPULET=%d", f->gpulet);
    (void)sd_journal_sendv(out.iov, out.n);
}

/* JOURNAL_STREAM is inherited by whatever a service starts, so that the variable alone says
 * nothing: it names the device and inode that stderr must be. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

/* What the line is about, for a person; the event says the rest. */
static int subject(const struct log_fields *f, char *ret, size_t max)
{
    if (f->model && *f->model)
        return snprintf(ret, max, "%s: ", f->model);
    return f->gpulet >= 0 ? snprintf(ret, max, "gpu-let %d: ", f->gpulet) : 0;
}

void log_line(int level, const struct log_fields *f, const char *fmt, ...)
{
    char msg[MESSAGE_MAX];
    int n = subject(f, msg, sizeof(msg) / 2);
    va_list ap;

    n = MIN(n, (int)sizeof(msg) / 2 - 1);
    va_start(ap, fmt);
    (void)vsnprintf(msg + n, sizeof(msg) - (size_t)n, fmt, ap);
    va_end(ap);
    if (stderr_is_journal())
        to_journal(level, f, msg);
    else
        (void)fprintf(stderr, "gpuletd: %s%s\n",
                      level <= LOG_ERR       ? "error: "
                      : level == LOG_WARNING ? "warning: "
                                             : "",
                      msg);
}
