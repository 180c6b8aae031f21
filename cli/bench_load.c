/* An open-loop load: libcurl's event interface on an epoll loop with one timer.
 *
 * Each request has a moment at which it is due.  It is sent then, on a connection of its own if all
 * others are waiting for answers, and its latency counts from that moment, not from when the
 * generator got round to it; how late it was is the lag. */
#include "bench.h"
#include <curl/curl.h>
#include <gpulet/clock.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS 64

struct call { /* one request under way, or a free handle of its model */
    CURL *curl;
    struct curl_slist *headers;
    struct bench_model *model;
    usec_t due_us;
    uint32_t input; /* which of the model's */
    size_t got;     /* bytes of the answer so far */
    bool counted, differs;
    struct call *next; /* while free */
};

struct loop {
    struct bench_load *b;
    CURLM *multi;
    int epoll, timer;
    usec_t start_us, curl_us; /* curl_us: when libcurl wants to be called; USEC_NEVER: not */
    double epoch_s;           /* wall clock where start_us is */
    uint32_t flying;
    struct call **idle; /* [n_models] */
    struct call **all;
    uint32_t n_all, room;
};

/* ---- what libcurl asks of a loop */

static int on_socket(CURL *curl, curl_socket_t fd, int what, void *arg, void *known)
{
    struct loop *l = arg;
    struct epoll_event e = {.data.fd = fd};

    (void)curl;
    if (what == CURL_POLL_REMOVE)
        return epoll_ctl(l->epoll, EPOLL_CTL_DEL, fd, NULL) < 0 && errno != ENOENT &&
               errno != EBADF;
    e.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
    (void)known;
    if (epoll_ctl(l->epoll, EPOLL_CTL_MOD, fd, &e) == 0)
        return 0;
    return epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &e) < 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    struct loop *l = arg;

    (void)multi;
    l->curl_us = ms < 0 ? USEC_NEVER : clock_now_us() + (usec_t)ms * 1000;
    return 0;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct call *c = arg;
    const char *want = c->model->answer[c->input];

    n *= size;
    if (want && !c->differs)
        c->differs =
            c->got + n > c->model->answer_bytes[c->input] || memcmp(want + c->got, data, n) != 0;
    c->got += n;
    return n;
}

/* ---- requests */

static struct call *call_new(struct loop *l, struct bench_model *m)
{
    char head[96];
    struct call *c = calloc(1, sizeof(*c));

    if (l->n_all == l->room) {
        uint32_t room = l->room ? l->room * 2 : 64;
        struct call **more = realloc(l->all, room * sizeof(struct call *));
        if (!more) {
            free(c);
            return NULL;
        }
        l->all = more;
        l->room = room;
    }
    if (!c || !(c->curl = curl_easy_init())) {
        free(c);
        return NULL;
    }
    l->all[l->n_all++] = c;
    c->model = m;
    (void)snprintf(head, sizeof(head), "Inference-Header-Content-Length: %zu", m->head_bytes);
    c->headers = curl_slist_append(NULL, "Expect:");
    c->headers =
        curl_slist_append(c->headers, m->head_bytes ? "Content-Type: application/octet-stream"
                                                    : "Content-Type: application/json");
    if (m->head_bytes)
        c->headers = curl_slist_append(c->headers, head);
    (void)curl_easy_setopt(c->curl, CURLOPT_URL, m->url);
    (void)curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    (void)curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)m->body_bytes);
    (void)curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
    (void)curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(c->curl, CURLOPT_TCP_NODELAY, 1L);
    (void)curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS, (long)(l->b->timeout_us / 1000));
    (void)curl_easy_setopt(c->curl, CURLOPT_PRIVATE, c);
    return c;
}

static void call_aim(struct call *c, uint32_t input)
{
    c->input = input;
    c->got = 0;
    c->differs = false;
    (void)curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, c->model->body[input]);
}

static void log_one(const struct loop *l, const struct bench_model *m, usec_t due_us,
                    const char *what, usec_t took_us)
{
    if (l->b->log)
        (void)fprintf(l->b->log, "%.6f,%s,%s,%.3f\n",
                      l->epoch_s + (double)(due_us - l->start_us) / 1e6, m->name, what,
                      (double)took_us / 1000);
}

static void count_lost(struct loop *l, struct bench_model *m, usec_t due_us, const char *why)
{
    m->lost++;
    if (!m->why[0])
        (void)snprintf(m->why, sizeof(m->why), "%s", why);
    log_one(l, m, due_us, "lost", 0);
}

static int send_one(struct loop *l, struct bench_model *m, usec_t now_us)
{
    struct bench_load *b = l->b;
    uint32_t at = (uint32_t)(m - b->model);
    usec_t due_us = l->start_us + m->at_us[m->next];
    bool counted = m->at_us[m->next++] >= b->warmup_us;
    struct call *c = l->idle[at];

    m->offered += counted;
    if (counted)
        hist_add(&b->lag, now_us - due_us);
    if (l->flying == b->flying_most) {
        if (counted)
            count_lost(l, m, due_us, "more requests at once than --in-flight allows");
        return 0;
    }
    if (c)
        l->idle[at] = c->next;
    else if (!(c = call_new(l, m)))
        return -ENOMEM;
    c->due_us = due_us;
    c->counted = counted;
    call_aim(c, (uint32_t)(m->next % m->n_bodies));
    if (curl_multi_add_handle(l->multi, c->curl) != CURLM_OK)
        return -ENOMEM;
    l->flying++;
    b->flying_peak = MAX(b->flying_peak, l->flying);
    return 0;
}

static void count_answer(struct loop *l, const struct call *c, long status)
{
    struct bench_model *m = c->model;
    usec_t took_us = clock_now_us() - c->due_us;
    bool late = m->slo_us && took_us > m->slo_us;

    if (status == 200 &&
        (c->differs || (m->answer[c->input] && c->got != m->answer_bytes[c->input]))) {
        m->wrong++;
        log_one(l, m, c->due_us, "wrong", took_us);
    } else if (status == 200) {
        hist_add(&m->latency, took_us);
        *(late ? &m->late : &m->in_time) += 1;
        log_one(l, m, c->due_us, late ? "late" : "in time", took_us);
    } else if (status == 503 || status == 429) {
        m->refused++;
        log_one(l, m, c->due_us, "refused", took_us);
    } else {
        m->failed++;
        if (!m->why[0])
            (void)snprintf(m->why, sizeof(m->why), "status %ld", status);
        log_one(l, m, c->due_us, "failed", took_us);
    }
}

static void collect(struct loop *l)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(l->multi, &left))) {
        struct call *c = NULL;
        CURL *curl = msg->easy_handle;
        CURLcode code = msg->data.result;
        long status = 0;
        (void)curl_easy_getinfo(curl, CURLINFO_PRIVATE, (char **)&c);
        (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        if (c->counted && code != CURLE_OK)
            count_lost(l, c->model, c->due_us, curl_easy_strerror(code));
        else if (c->counted)
            count_answer(l, c, status);
        (void)curl_multi_remove_handle(l->multi, curl);
        l->flying--;
        struct call **idle = &l->idle[c->model - l->b->model];
        c->next = *idle;
        *idle = c;
    }
}

/* ---- the loop */

static usec_t due_next(const struct loop *l)
{
    usec_t least_us = USEC_NEVER;

    for (uint32_t i = 0; i < l->b->n_models; i++) {
        const struct bench_model *m = &l->b->model[i];
        if (m->next < m->n_at)
            least_us = MIN(least_us, l->start_us + m->at_us[m->next]);
    }
    return least_us;
}

static int send_due(struct loop *l)
{
    bool sent = false;

    for (uint32_t i = 0; i < l->b->n_models; i++) {
        struct bench_model *m = &l->b->model[i];
        for (usec_t now_us = clock_now_us();
             m->next < m->n_at && l->start_us + m->at_us[m->next] <= now_us;
             now_us = clock_now_us()) {
            if (send_one(l, m, now_us) < 0)
                return -ENOMEM;
            sent = true;
        }
    }
    int running;
    if (sent) /* out now, not at libcurl's next turn */
        (void)curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    return 0;
}

static void timer_set(const struct loop *l, usec_t at_us)
{
    struct itimerspec t = {{0, 0}, {0, 1}};
    usec_t now_us = clock_now_us();

    if (at_us > now_us) {
        t.it_value.tv_sec = (time_t)((at_us - now_us) / USEC_PER_SEC);
        t.it_value.tv_nsec = (long)((at_us - now_us) % USEC_PER_SEC * 1000);
    }
    (void)timerfd_settime(l->timer, 0, &t, NULL);
}

static int turn(struct loop *l)
{
    struct epoll_event e[EVENTS];
    usec_t due_us = due_next(l);
    uint64_t ticks;
    int running;

    timer_set(l, MIN(due_us - MIN(due_us, l->b->awake_us), l->curl_us));
    int n = epoll_wait(l->epoll, e, EVENTS, 1000);
    for (int i = 0; i < n; i++) {
        int what = (e[i].events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
                   (e[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                   (e[i].events & EPOLLERR ? CURL_CSELECT_ERR : 0);
        if (e[i].data.fd == l->timer)
            (void)(read(l->timer, &ticks, sizeof(ticks)) < 0);
        else
            (void)curl_multi_socket_action(l->multi, e[i].data.fd, what, &running);
        if (clock_now_us() < due_us)
            continue;
        if (send_due(l) < 0) /* not after the others' uploads, which may be large */
            return -ENOMEM;
        due_us = due_next(l);
    }
    if (l->curl_us <= clock_now_us()) {
        l->curl_us = USEC_NEVER;
        (void)curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    collect(l);
    return send_due(l);
}

static int loop_open(struct loop *l, struct bench_load *b)
{
    struct epoll_event e = {.events = EPOLLIN};

    *l = (struct loop){.b = b, .epoll = -1, .timer = -1, .curl_us = USEC_NEVER};
    l->multi = curl_multi_init();
    l->idle = calloc(b->n_models, sizeof(struct call *));
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->timer = e.data.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (!l->multi || !l->idle || l->epoll < 0 || l->timer < 0 ||
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->timer, &e) < 0)
        return -ENOMEM;
    (void)curl_multi_setopt(l->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    (void)curl_multi_setopt(l->multi, CURLMOPT_SOCKETDATA, l);
    (void)curl_multi_setopt(l->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    (void)curl_multi_setopt(l->multi, CURLMOPT_TIMERDATA, l);
    (void)curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, (long)b->flying_most);
    return 0;
}

static void loop_close(struct loop *l)
{
    for (uint32_t i = 0; i < l->n_all; i++) {
        (void)curl_multi_remove_handle(l->multi, l->all[i]->curl);
        curl_easy_cleanup(l->all[i]->curl);
        curl_slist_free_all(l->all[i]->headers);
        free(l->all[i]);
    }
    (void)curl_multi_cleanup(l->multi);
    free(l->all);
    free(l->idle);
    if (l->epoll >= 0)
        (void)close(l->epoll);
    if (l->timer >= 0)
        (void)close(l->timer);
}

static void forget(struct bench_load *b)
{
    memset(&b->lag, 0, sizeof(b->lag));
    b->flying_peak = 0;
    for (uint32_t i = 0; i < b->n_models; i++) {
        struct bench_model *m = &b->model[i];
        m->next = 0;
        m->offered = m->in_time = m->late = m->refused = m->failed = m->wrong = m->lost = 0;
        memset(&m->latency, 0, sizeof(m->latency));
        m->why[0] = 0;
    }
}

static double wall_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int bench_load(struct bench_load *b, struct err *err)
{
    struct loop l;
    int r = loop_open(&l, b);

    forget(b);
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* timers on the microsecond */
    l.start_us = clock_now_us();
    l.epoch_s = wall_s();
    while (r == 0 && (l.flying > 0 || due_next(&l) != USEC_NEVER))
        r = turn(&l);
    loop_close(&l);
    return r < 0 ? err_set(err, r, "out of memory, or of descriptors") : 0;
}

/* ---- what each input is answered */

static size_t on_alone(char *data, size_t size, size_t n, void *arg)
{
    return fwrite(data, size, n, arg);
}

static int ask_alone(struct call *c, uint32_t input, struct err *err)
{
    struct bench_model *m = c->model;
    FILE *to = open_memstream(&m->answer[input], &m->answer_bytes[input]);
    long status = 0;

    if (!to)
        return err_set(err, -ENOMEM, "out of memory");
    call_aim(c, input);
    (void)curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_alone);
    (void)curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, to);
    CURLcode code = curl_easy_perform(c->curl);
    (void)curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    (void)fclose(to);
    if (code != CURLE_OK)
        return err_set(err, -EIO, "model '%s': %s", m->name, curl_easy_strerror(code));
    return status == 200 ? 0
                         : err_set(err, -EIO, "model '%s': asked alone it answers with status %ld",
                                   m->name, status);
}

int bench_alone(struct bench_load *b, struct err *err)
{
    struct loop l;
    int r = loop_open(&l, b);

    for (uint32_t i = 0; r == 0 && i < b->n_models; i++) {
        struct call *c = call_new(&l, &b->model[i]);
        if (!c)
            r = err_set(err, -ENOMEM, "out of memory");
        for (uint32_t k = 0; r == 0 && k < b->model[i].n_bodies; k++)
            r = ask_alone(c, k, err);
    }
    loop_close(&l);
    return r;
}
