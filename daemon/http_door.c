/* Everything waits edge-triggered for its next bytes, which are looked at (MSG_PEEK) and taken only
 * if they are a probe.  So what is handed over is as its client sent it, and a client that sends
 * byte by byte, or nothing, costs no other thread anything. */
#include "http_door.h"
#include "http_raw.h"
#include <fcntl.h>
#include <gpulet/clock.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 64
#define ACCEPT_MAX 64 /* in a turn */
#define PROBES_MAX 16 /* pipelined: a client that sends more at once goes to the server */
#define TURN_MS 1000
#define PAUSE_MS 20 /* a turn while a listener is full, or the door is closing */
#define LINGER_US USEC_PER_SEC
#define LINGER_BYTES (UINT64_C(64) << 20)
#define LINGERING_MAX 256

#define container_of(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))
#define COUNT(field, n) atomic_fetch_add_explicit(&(field), (n), memory_order_relaxed)

struct door_listener {
    enum door_source source;
    int fd;
    bool paused;
    _Atomic uint32_t n_held; /* connections accepted here, wherever they are now */
};

struct door {
    struct http_config http;
    struct http_stats *stats;
    struct cq *to, *in; /* in: callers that only linger */
    const _Atomic bool *draining;
    int epoll_fd;
    enum door_source in_source;
    struct door_listener listener[HTTP_LISTEN_MAX];
    struct caller *callers;
    _Atomic uint32_t n_lingering;
    usec_t swept_us;
    _Atomic usec_t stop_by_us; /* 0: open */
    _Atomic bool ended;
    bool started;
    pthread_t thread;
};

void door_left(struct http_stats *stats, _Atomic uint32_t *held)
{
    COUNT(*held, -1);
    COUNT(stats->connections_now, -1);
}

/* ---- callers */
static int watch(struct door *d, int op, int fd, uint32_t events, void *source)
{
    struct epoll_event ev = {.events = events, .data.ptr = source};

    return epoll_ctl(d->epoll_fd, op, fd, &ev);
}

static void caller_link(struct door *d, struct caller *c)
{
    c->source = DOOR_CALLER;
    c->prev = NULL;
    c->next = d->callers;
    if (c->next)
        c->next->prev = c;
    d->callers = c;
}

static void caller_unlink(struct door *d, struct caller *c)
{
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        d->callers = c->next;
    (void)epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
}

static void caller_free(struct door *d, struct caller *c)
{
    (void)close(c->fd);
    if (c->held)
        door_left(d->stats, c->held);
    else
        COUNT(d->n_lingering, -1);
    free(c);
}

static void caller_close(struct door *d, struct caller *c)
{
    caller_unlink(d, c);
    caller_free(d, c);
}

static void caller_hand_over(struct door *d, struct caller *c)
{
    caller_unlink(d, c);
    cq_push(d->to, &c->item);
}

/* No more is said to it, and what it says is thrown away, a piece a turn, for a while. */
static void caller_leave(struct door *d, struct caller *c)
{
    (void)shutdown(c->fd, SHUT_WR);
    c->leave_us = clock_now_us() + LINGER_US;
    (void)watch(d, EPOLL_CTL_MOD, c->fd, EPOLLIN, &c->source);
}

static void caller_drain(struct door *d, struct caller *c)
{
    char piece[65536];
    ssize_t n = recv(c->fd, piece, sizeof(piece), MSG_DONTWAIT);

    c->thrown_bytes += n > 0 ? (uint64_t)n : 0;
    if (n == 0 || (n < 0 && errno != EAGAIN) || c->thrown_bytes > LINGER_BYTES)
        caller_close(d, c);
}

/* A first line that cannot be one: libmicrohttpd would close without a word. */
static bool not_http(const char *text, size_t bytes)
{
    const char *end = memchr(text, '\n', bytes);

    return (unsigned char)text[0] < '\n' || text[0] == 0x16 || text[0] == ' ' ||
           (end && end > text + 1 && !memchr(text, ' ', (size_t)(end - text)));
}

static void reply(struct door *d, struct caller *c, const struct raw_reply *r)
{
    bool sent = http_raw_send(c->fd, r);

    if (sent)
        COUNT(d->stats->status[MIN(r->status, 599u)], 1);
    if (r->close || !sent)
        caller_leave(d, c);
}

static void probe_answer(struct door *d, struct caller *c, const struct probe_request *p)
{
    struct raw_reply r = {.bodiless = p->head};
    char head[PROBE_BYTES_MAX];

    (void)!recv(c->fd, head, p->bytes, MSG_DONTWAIT); /* it is there: it was looked at */
    r.status = p->probe->ask(d->http.ctx, &r.json);
    r.close = p->close || atomic_load_explicit(d->draining, memory_order_relaxed);
    COUNT(d->stats->requests, 1);
    COUNT(d->stats->reply_bytes, strlen(r.json));
    c->used = true;
    c->since_us = clock_now_us();
    reply(d, c, &r);
}

/* Something came, or its client has closed its side. */
static void caller_turn(struct door *d, struct caller *c, bool hung_up)
{
    static const char nonsense[] = "{\"error\":\"this is not HTTP: a request begins with a line "
                                   "of method, path and version (TLS is not spoken here)\"}";
    char text[PROBE_BYTES_MAX];
    struct probe_request p;
    enum probe_found found = PROBE_YES;

    if (c->leave_us) {
        caller_drain(d, c);
        return;
    }
    for (int i = 0; i < PROBES_MAX && !c->leave_us && found == PROBE_YES; i++) {
        ssize_t n = recv(c->fd, text, sizeof(text), MSG_PEEK | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            caller_close(d, c);
            return;
        }
        found = probe_find(d->http.probe, d->http.n_probes, text, (size_t)n, &p);
        if (found == PROBE_NO && not_http(text, (size_t)n))
            reply(d, c, &(struct raw_reply){400, nonsense, false, true});
        else if (found == PROBE_YES)
            probe_answer(d, c, &p);
    }
    if (!c->leave_us && (found != PROBE_MORE || hung_up))
        caller_hand_over(d, c);
}

/* ---- accepting */
static void listener_pause(struct door *d, struct door_listener *l, bool pause)
{
    l->paused = pause;
    (void)watch(d, EPOLL_CTL_MOD, l->fd, pause ? 0 : EPOLLIN, l);
}

static struct caller *caller_new(struct door *d, int fd, _Atomic uint32_t *held)
{
    struct caller *c = fd >= 0 ? calloc(1, sizeof(*c)) : NULL;
    int on = 1;

    if (!c) {
        if (fd >= 0)
            (void)close(fd);
        return NULL;
    }
    *c = (struct caller){.fd = fd, .held = held, .since_us = clock_now_us()};
    c->item.kind = ITEM_CALLER;
    if (held) {
        COUNT(*held, 1);
        COUNT(d->stats->connections, 1);
        COUNT(d->stats->connections_now, 1);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* no TCP: no effect */
    } else {
        COUNT(d->n_lingering, 1);
    }
    return c;
}

static void caller_welcome(struct door *d, struct caller *c)
{
    caller_link(d, c);
    if (watch(d, EPOLL_CTL_ADD, c->fd, EPOLLIN | (c->leave_us ? 0 : EPOLLRDHUP | EPOLLET),
              &c->source) < 0)
        caller_close(d, c);
    else
        caller_turn(d, c, false);
}

static void listener_accept(struct door *d, struct door_listener *l)
{
    for (int i = 0; i < ACCEPT_MAX; i++) {
        if (l->n_held >= d->http.connections_max) {
            listener_pause(d, l, true);
            return;
        }
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
            continue;
        if (fd < 0) {
            if (errno != EAGAIN) /* no descriptors, no memory: in a while */
                listener_pause(d, l, true);
            return;
        }
        struct caller *c = caller_new(d, fd, &l->n_held);
        if (c)
            caller_welcome(d, c);
    }
}

void door_linger(struct door *d, int fd)
{
    struct caller *c;

    if (!d || d->n_lingering >= LINGERING_MAX)
        return;
    c = caller_new(d, fcntl(fd, F_DUPFD_CLOEXEC, 0), NULL);
    if (!c)
        return;
    c->leave_us = c->since_us + LINGER_US;
    cq_push(d->in, &c->item);
}

static void lingerers_take(struct door *d)
{
    for (struct cq_item *i = cq_take(d->in), *next; i; i = next) {
        next = i->next;
        caller_welcome(d, (struct caller *)(void *)i);
    }
}

/* ---- the loop */
/* While closing: a request that is on its way or lies unread. */
static bool caller_awaited(const struct caller *c, usec_t now_us)
{
    int unread = 0;

    if (c->leave_us || (!c->used && now_us < c->since_us + FIRST_GRACE_US))
        return true;
    return ioctl(c->fd, FIONREAD, &unread) == 0 && unread > 0;
}

static void callers_sweep(struct door *d, usec_t now_us)
{
    usec_t idle_us = d->http.idle_s * USEC_PER_SEC;

    if (!d->stop_by_us && now_us - d->swept_us < USEC_PER_SEC)
        return;
    d->swept_us = now_us;
    for (struct caller *c = d->callers, *next; c; c = next) {
        bool idle = !c->leave_us && now_us - c->since_us > idle_us;

        next = c->next;
        if (idle)
            COUNT(d->stats->too_slow, 1);
        if (idle || (c->leave_us && now_us > c->leave_us) ||
            (d->stop_by_us && !caller_awaited(c, now_us)))
            caller_close(d, c);
    }
}

static int wait_ms(const struct door *d)
{
    bool paused = d->stop_by_us != 0;

    for (uint32_t i = 0; i < d->http.n_listen; i++)
        paused |= d->listener[i].paused;
    return paused ? PAUSE_MS : TURN_MS;
}

static void turn(struct door *d)
{
    struct epoll_event ev[EVENTS_MAX];
    int n = epoll_wait(d->epoll_fd, ev, EVENTS_MAX, wait_ms(d));

    atomic_store_explicit(&d->stats->door_us, clock_now_us(), memory_order_relaxed);
    /* A caller is closed at its own event alone, so every pointer in ev is good. */
    for (int i = 0; i < n; i++) {
        enum door_source *s = ev[i].data.ptr;
        if (*s == DOOR_LISTENER)
            listener_accept(d, container_of(s, struct door_listener, source));
        else if (*s == DOOR_CALLER)
            caller_turn(d, container_of(s, struct caller, source),
                        (ev[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
        else
            lingerers_take(d);
    }
    callers_sweep(d, clock_now_us()); /* later than any caller's time */
    for (uint32_t i = 0; i < d->http.n_listen; i++)
        if (d->listener[i].paused && d->listener[i].fd >= 0 &&
            d->listener[i].n_held < d->http.connections_max)
            listener_pause(d, &d->listener[i], false);
}

static void listeners_close(struct door *d)
{
    for (uint32_t i = 0; i < d->http.n_listen; i++) {
        if (d->listener[i].fd >= 0) {
            (void)epoll_ctl(d->epoll_fd, EPOLL_CTL_DEL, d->listener[i].fd, NULL);
            (void)close(d->listener[i].fd);
        }
        d->listener[i].fd = -1;
    }
}

static void *door_main(void *arg)
{
    struct door *d = arg;
    char name[16];

    (void)snprintf(name, sizeof(name), "%.10s-door", d->http.name);
    (void)pthread_setname_np(pthread_self(), name);
    while (!d->stop_by_us)
        turn(d);
    listeners_close(d);
    while (d->callers && clock_now_us() < d->stop_by_us)
        turn(d);
    d->ended = true;
    return NULL;
}

/* ---- opening and closing */
static int listener_open(struct door *d, uint32_t i, int listen_fd)
{
    struct door_listener *l = &d->listener[i];

    l->source = DOOR_LISTENER;
    l->fd = fcntl(listen_fd, F_DUPFD_CLOEXEC, 0);
    if (l->fd < 0)
        return -errno;
    (void)fcntl(l->fd, F_SETFL, fcntl(l->fd, F_GETFL) | O_NONBLOCK);
    return watch(d, EPOLL_CTL_ADD, l->fd, EPOLLIN, l) < 0 ? -errno : 0;
}

static int door_setup(struct door *d, struct err *err)
{
    int r = 0;

    d->in_source = DOOR_QUEUE;
    d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (d->epoll_fd < 0 || cq_new(&d->in) < 0 ||
        watch(d, EPOLL_CTL_ADD, cq_fd(d->in), EPOLLIN | EPOLLET, &d->in_source) < 0)
        return err_set(err, -ENOMEM, "%s: no descriptor for the event loop", d->http.name);
    for (uint32_t i = 0; i < d->http.n_listen && r == 0; i++)
        r = listener_open(d, i, d->http.listen_fd[i]);
    d->http.listen_fd = NULL; /* borrowed for the call only */
    return r < 0 ? err_set(err, r, "listening socket: %s", strerror(-r)) : 0;
}
DEFINE_AUTO(struct door, door_free)

/* Signals are main's, SIGPIPE included. */
static int thread_start(struct door *d)
{
    sigset_t all, was;
    int rc;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &was);
    rc = pthread_create(&d->thread, NULL, door_main, d);
    (void)pthread_sigmask(SIG_SETMASK, &was, NULL);
    d->started = rc == 0;
    return -rc;
}

int door_open(const struct door_config *cfg, struct door **ret, struct err *err)
{
    AUTO(door_free) struct door *d = calloc(1, sizeof(*d));

    if (!d)
        return err_set(err, -ENOMEM, "out of memory");
    d->http = *cfg->http;
    d->stats = cfg->stats;
    d->to = cfg->to;
    d->draining = cfg->draining;
    d->epoll_fd = -1;
    for (uint32_t i = 0; i < HTTP_LISTEN_MAX; i++)
        d->listener[i].fd = -1;
    d->stats->door_us = clock_now_us();
    if (door_setup(d, err) < 0)
        return err->code;
    if (thread_start(d) < 0)
        return err_set(err, -EAGAIN, "%s: no thread", d->http.name);
    *ret = TAKE(d);
    return 0;
}

void door_stop(struct door *d, usec_t by_us)
{
    if (!d || !d->started)
        return;
    d->stop_by_us = MAX(by_us, 1u);
    (void)eventfd_write(cq_fd(d->in), 1); /* wakes it */
}

bool door_ended(const struct door *d)
{
    return d->ended;
}

void door_wait(struct door *d)
{
    if (d && d->started)
        (void)pthread_join(d->thread, NULL);
    if (d)
        d->started = false;
}

void door_free(struct door *d)
{
    if (!d)
        return;
    door_stop(d, 1);
    door_wait(d);
    for (struct cq_item *i = d->in ? cq_take(d->in) : NULL, *next; i; i = next) {
        next = i->next;
        caller_free(d, (struct caller *)(void *)i);
    }
    while (d->callers)
        caller_close(d, d->callers);
    listeners_close(d);
    cq_free(d->in);
    if (d->epoll_fd >= 0)
        (void)close(d->epoll_fd);
    free(d);
}
