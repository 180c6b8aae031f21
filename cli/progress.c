/* The bar is drawn by a thread of its own: planning is pure code and calls nobody. */
#include "cli.h"
#include <gpulet/clock.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define SHOW_AFTER_US (2 * USEC_PER_SEC)
#define REDRAW_MS 200
#define BAR 30

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stop;
    bool on, stopping; /* stopping under lock */
    const char *what;
    usec_t start_us;
    _Atomic(int) permille; /* < 0: not known */
} bar = {.lock = PTHREAD_MUTEX_INITIALIZER, .stop = PTHREAD_COND_INITIALIZER};

static void draw(usec_t past_us)
{
    int part = atomic_load(&bar.permille), filled = part * BAR / 1000;

    if (part < 0)
        (void)fprintf(stderr, "\r%s: %u s ", bar.what, (unsigned)(past_us / USEC_PER_SEC));
    else
        (void)fprintf(stderr, "\r%s [%.*s%*s] %3d %% ", bar.what, filled,
                      "##############################", BAR - filled, "", part / 10);
    (void)fflush(stderr);
}

static void *bar_main(void *arg)
{
    bool shown = false;

    (void)pthread_mutex_lock(&bar.lock);
    while (!bar.stopping) {
        struct timespec at;
        (void)clock_gettime(CLOCK_REALTIME, &at);
        at.tv_nsec += REDRAW_MS * 1000000L;
        at.tv_sec += at.tv_nsec / 1000000000L;
        at.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&bar.stop, &bar.lock, &at);
        usec_t past_us = clock_now_us() - bar.start_us;
        if (!bar.stopping && past_us >= SHOW_AFTER_US) {
            draw(past_us);
            shown = true;
        }
    }
    (void)pthread_mutex_unlock(&bar.lock);
    if (shown)
        (void)fputs("\r\033[K", stderr);
    return arg;
}

void progress_begin(const char *what)
{
    bar.what = what;
    bar.stopping = false;
    bar.start_us = clock_now_us();
    atomic_store(&bar.permille, -1);
    bar.on = isatty(STDERR_FILENO) && pthread_create(&bar.thread, NULL, bar_main, NULL) == 0;
}

void progress_set(void *unused, double part)
{
    (void)unused;
    atomic_store(&bar.permille, (int)(1000 * (part < 0 ? 0 : part > 1 ? 1 : part)));
}

void progress_end(void)
{
    if (!bar.on)
        return;
    (void)pthread_mutex_lock(&bar.lock);
    bar.stopping = true;
    (void)pthread_cond_signal(&bar.stop);
    (void)pthread_mutex_unlock(&bar.lock);
    (void)pthread_join(bar.thread, NULL);
    bar.on = false;
}
