/* The server on libmicrohttpd (MHD): its connections and its loop.
 *
 * One thread a server, with an MHD daemon in external epoll mode; the thread waits on its own
 * epoll set, which holds the daemon's epoll descriptor, the completion queue, and every
 * connection's socket (edge-triggered, for EPOLLRDHUP alone: while a connection is suspended MHD
 * does not watch it, so a client that vanishes would go unseen).  No other thread calls MHD.
 * Connections come from the door (http_door.c) through the completion queue.
 *
 * Closing a connection from outside MHD is done with shutdown(): MHD then reads an end of file. */
#include "http_door.h"
#include "http_priv.h"
#include <arpa/inet.h>
#include <gpulet/clock.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTION_BYTES 32768
#define DRAIN_BYTES (UINT64_C(8) << 20)
#define IDLE_S 75
#define TURN_MS 1000    /* the loop comes round at least that often */
#define STOP_TURN_MS 20 /* while stopping */
#define BODY_GRACE_US (30 * USEC_PER_SEC)
#define BODY_MIN_BYTES_PER_S 1024 /* after the grace: slower senders are cut off */
#define EVENTS_MAX 64

/* ---- connections */
static enum peer_kind address_kind(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)a;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127 ? PEER_LOOPBACK : PEER_REMOTE;
    }
    if (a->sa_family == AF_INET6) {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
        bool local =
            IN6_IS_ADDR_LOOPBACK(in6) || (IN6_IS_ADDR_V4MAPPED(in6) && in6->s6_addr[12] == 127);
        return local ? PEER_LOOPBACK : PEER_REMOTE;
    }
    return PEER_REMOTE;
}

static void peer_identify(struct peer *p)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);
    struct ucred cred;

    p->kind = PEER_REMOTE;
    p->uid = (uid_t)-1;
    if (getsockname(p->fd, (struct sockaddr *)&a, &len) == 0 && a.ss_family == AF_UNIX) {
        len = sizeof(cred);
        if (getsockopt(p->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
            p->kind = PEER_UNIX;
            p->uid = cred.uid;
        }
        return;
    }
    len = sizeof(a);
    if (getpeername(p->fd, (struct sockaddr *)&a, &len) == 0)
        p->kind = address_kind((struct sockaddr *)&a);
}

static struct peer *peer_open(struct http_server *s, int fd, _Atomic uint32_t *held)
{
    struct peer *p = calloc(1, sizeof(*p));
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = p};

    if (!p)
        return NULL;
    *p = (struct peer){
        .source = SOURCE_PEER, .server = s, .fd = fd, .held = held, .since_us = clock_now_us()};
    peer_identify(p);
    (void)epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    p->next = s->peers;
    if (p->next)
        p->next->prev = p;
    s->peers = p;
    return p;
}

static void peer_close(struct peer *p)
{
    if (p->next)
        p->next->prev = p->prev;
    if (p->prev)
        p->prev->next = p->next;
    else
        p->server->peers = p->next;
    (void)epoll_ctl(p->server->epoll_fd, EPOLL_CTL_DEL, p->fd, NULL);
    free(p);
}

static void on_connection(void *cls, struct MHD_Connection *con, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_server *s = cls;
    struct peer *p = *context;

    (void)con;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        struct caller *c = s->arriving;
        p = *context = peer_open(s, c->fd, c->held);
        if (p)
            s->arriving = NULL; /* counted until it is closed */
    } else if (p) {
        door_left(&s->stats, p->held);
        if (p->lingers)
            door_linger(s->door, p->fd);
        peer_close(p);
        *context = NULL;
    }
}

/* From the door. */
static void caller_take(struct http_server *s, struct caller *c)
{
    const struct sockaddr_storage unused = {.ss_family = AF_UNSPEC};

    s->arriving = c;
    (void)MHD_add_connection(s->mhd, c->fd, (const struct sockaddr *)&unused, sizeof(unused));
    if (s->arriving) /* no memory: MHD has closed it */
        door_left(&s->stats, c->held);
    s->arriving = NULL;
    free(c);
}

/* MHD 0.9.75 takes a short read for "no more now".  If the end of file came in the same event as
 * the last bytes, it never looks again, and the connection stays until it is idle for too long.
 * This has no effect on the wire but makes another event. */
static void peer_nudge(struct peer *p)
{
    (void)shutdown(p->fd, SHUT_RD);
}

/* The client has closed its side.  One that does so while its request waits for an item is taken
 * as gone; one that did so before (it may still read) gets its answer. */
static void peer_hung_up(struct peer *p)
{
    struct live *l = p->live;

    if (!p->hung_up)
        peer_nudge(p);
    p->hung_up = true;
    if (!l || !l->suspended || l->gone_called)
        return;
    l->gone_called = true;
    COUNT(p->server->stats.vanished, 1);
    if (l->gone && l->gone(&l->x)) {
        l->aborted = true;
        http_resume(l);
    }
}

/* Does it send so slowly that it only holds a connection? */
static bool peer_too_slow(const struct peer *p, usec_t now_us)
{
    const struct live *l = p->live;
    usec_t took_us;

    if (!l)
        return now_us - p->since_us > p->server->cfg.idle_s * USEC_PER_SEC;
    if (l->whole || l->status)
        return false;
    took_us = now_us - l->x.arrival_us;
    return took_us > BODY_GRACE_US &&
           l->x.body_bytes < (took_us - BODY_GRACE_US) / USEC_PER_SEC * BODY_MIN_BYTES_PER_S;
}

static void peers_sweep(struct http_server *s, usec_t now_us)
{
    if (now_us - s->swept_us < USEC_PER_SEC)
        return;
    s->swept_us = now_us;
    for (struct peer *p = s->peers; p; p = p->next) {
        if (p->hung_up && !(p->live && p->live->suspended))
            peer_nudge(
                p); /* again: the event may have come before the last of the bytes was read */
        if (p->cut || !peer_too_slow(p, now_us))
            continue;
        COUNT(s->stats.too_slow, 1);
        if (p->live)
            http_refuse_raw(p, 408, "{\"error\":\"the body comes too slowly\"}");
        p->cut = true;
        (void)shutdown(p->fd, SHUT_RDWR);
    }
}

/* ---- the loop */
static int wait_ms(const struct http_server *s)
{
    MHD_UNSIGNED_LONG_LONG ms, least = s->stopping ? STOP_TURN_MS : TURN_MS;

    return (int)(MHD_get_timeout(s->mhd, &ms) == MHD_YES ? MIN(least, ms) : least);
}

static void items_take(struct http_server *s)
{
    for (struct cq_item *i = cq_take(s->cq), *next; i; i = next) {
        next = i->next; /* the item may be gone after this */
        if (i->kind == ITEM_CALLER) {
            caller_take(s, (struct caller *)(void *)i);
            continue;
        }
        assert(i->kind >= 0 && i->kind < ITEM_KINDS);
        s->cfg.item[i->kind](i);
    }
}

static void turn(struct http_server *s)
{
    struct epoll_event ev[EVENTS_MAX];
    int n = epoll_wait(s->epoll_fd, ev, EVENTS_MAX, wait_ms(s));

    atomic_store_explicit(&s->stats.turn_us, clock_now_us(), memory_order_relaxed);
    /* Peers die only inside MHD_run(), so every pointer in ev is good until then. */
    for (int i = 0; i < n; i++) {
        if (*(enum source *)ev[i].data.ptr == SOURCE_PEER)
            peer_hung_up(ev[i].data.ptr);
        else if (*(enum source *)ev[i].data.ptr == SOURCE_QUEUE)
            items_take(s);
    }
    if (s->stopping) { /* look first: what came from the door before it ended is in the queue */
        uint64_t count;
        bool ended = door_ended(s->door);
        (void)!read(s->stop_fd, &count, sizeof(count)); /* no longer readable: the loop may sleep */
        items_take(s);
        s->door_ended = ended;
    }
    peers_sweep(s, clock_now_us()); /* later than any peer's time */
    (void)MHD_run(s->mhd);
    if (s->cfg.turned)
        s->cfg.turned(s->cfg.turn);
}

/* A request that is on its way or lies unread: closing the connection now would reset it, though
 * its client did nothing wrong. */
static bool peer_awaited(const struct peer *p, usec_t now_us)
{
    int unread = 0;

    if (p->live || p->cut)
        return p->live != NULL;
    if (!p->used && now_us < p->since_us + FIRST_GRACE_US)
        return true;
    return ioctl(p->fd, FIONREAD, &unread) == 0 && unread > 0;
}

static bool may_end(struct http_server *s)
{
    usec_t now_us = clock_now_us();

    if (!s->stopping || atomic_load(&s->stats.suspended_now))
        return false;
    if (now_us >= s->stop_by_us)
        return true;
    if (!s->door_ended)
        return false;
    for (struct peer *p = s->peers; p; p = p->next)
        if (peer_awaited(p, now_us))
            return false;
    return s->n_live == 0;
}

static void *server_main(void *arg)
{
    struct http_server *s = arg;

    (void)pthread_setname_np(pthread_self(), s->cfg.name);
    while (!may_end(s))
        turn(s);
    return NULL;
}

/* ---- start and stop */
static size_t url_as_sent(void *cls, struct MHD_Connection *con, char *text)
{
    (void)cls, (void)con;
    return strlen(text); /* decoded after splitting: route.c */
}

static int watch(struct http_server *s, int fd, enum source *source)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = source};

    return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int mhd_open(struct http_server *s, struct err *err)
{
    const union MHD_DaemonInfo *info;

    s->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME,
                              0, NULL, NULL, http_on_access, s, MHD_OPTION_NOTIFY_COMPLETED,
                              http_on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
                              MHD_OPTION_UNESCAPE_CALLBACK, url_as_sent, NULL,
                              MHD_OPTION_CONNECTION_LIMIT, s->cfg.connections_max * s->cfg.n_listen,
                              MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)s->cfg.connection_bytes,
                              MHD_OPTION_CONNECTION_TIMEOUT, s->cfg.idle_s, MHD_OPTION_END);
    if (!s->mhd)
        return err_set(err, -EIO, "the HTTP server of %s does not start", s->cfg.name);
    info = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (watch(s, info ? info->epoll_fd : -1, &s->mhd_source) < 0)
        return err_set(err, -EIO, "epoll: %s", strerror(errno));
    return 0;
}

/* Its threads have ended, or never began. */
static void server_close(struct http_server *s)
{
    door_stop(s->door, 1);
    door_wait(s->door);
    if (s->mhd)
        MHD_stop_daemon(s->mhd);
    for (struct cq_item *i = s->cq ? cq_take(s->cq) : NULL, *next; i; i = next) {
        next = i->next; /* came too late */
        assert(i->kind == ITEM_CALLER);
        struct caller *c = (struct caller *)(void *)i;
        door_left(&s->stats, c->held);
        (void)close(c->fd);
        free(c);
    }
    door_free(s->door);
    cq_free(s->cq);
    if (s->epoll_fd >= 0)
        (void)close(s->epoll_fd);
    if (s->stop_fd >= 0)
        (void)close(s->stop_fd);
}

static void server_free(struct http_server *s)
{
    if (s)
        server_close(s);
    free(s);
}
DEFINE_AUTO(struct http_server, server_free)

static int server_open(struct http_server *s, struct err *err)
{
    struct door_config door = {.http = &s->cfg, .stats = &s->stats, .draining = &s->draining};

    s->mhd_source = SOURCE_MHD;
    s->queue_source = SOURCE_QUEUE;
    s->stop_source = SOURCE_STOP;
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->epoll_fd < 0 || s->stop_fd < 0 || cq_new(&s->cq) < 0)
        return err_set(err, -ENOMEM, "%s: no descriptor for the event loop", s->cfg.name);
    if (watch(s, cq_fd(s->cq), &s->queue_source) < 0 || watch(s, s->stop_fd, &s->stop_source) < 0)
        return err_set(err, -EIO, "epoll: %s", strerror(errno));
    if (mhd_open(s, err) < 0)
        return err->code;
    door.to = s->cq;
    return door_open(&door, &s->door, err);
}

/* Signals are main's: an http thread takes none, SIGPIPE included. */
static int thread_start(struct http_server *s)
{
    sigset_t all, was;
    int rc;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &was);
    rc = pthread_create(&s->thread, NULL, server_main, s);
    (void)pthread_sigmask(SIG_SETMASK, &was, NULL);
    return -rc;
}

int http_server_start(const struct http_config *cfg, struct http_server **ret, struct err *err)
{
    AUTO(server_free) struct http_server *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(err, -ENOMEM, "out of memory");
    assert(cfg->n_listen >= 1 && cfg->n_listen <= HTTP_LISTEN_MAX && cfg->connections_max);
    s->cfg = *cfg;
    s->cfg.connection_bytes = cfg->connection_bytes ? cfg->connection_bytes : CONNECTION_BYTES;
    s->cfg.drain_bytes = cfg->drain_bytes ? cfg->drain_bytes : DRAIN_BYTES;
    s->cfg.idle_s = cfg->idle_s ? cfg->idle_s : IDLE_S;
    s->epoll_fd = s->stop_fd = -1;
    if (http_refusals_take(http_on_refused, err) < 0 || server_open(s, err) < 0)
        return err->code;
    s->cfg.listen_fd = NULL; /* borrowed for the call only */
    s->stats.turn_us = clock_now_us();
    if (thread_start(s) < 0)
        return err_set(err, -EAGAIN, "%s: no thread", s->cfg.name);
    *ret = TAKE(s);
    return 0;
}

const struct http_stats *http_server_stats(const struct http_server *s)
{
    return &s->stats;
}

struct cq *http_server_cq(struct http_server *s)
{
    return s->cq;
}

void http_server_drain(struct http_server *s)
{
    s->draining = true;
}

void http_server_stop(struct http_server *s, usec_t linger_us)
{
    uint64_t one = 1;

    if (!s)
        return;
    s->draining = true;
    s->stop_by_us = clock_now_us() + linger_us;
    s->stopping = true;
    door_stop(s->door, s->stop_by_us);
    (void)!write(s->stop_fd, &one, sizeof(one));
    (void)pthread_join(s->thread, NULL);
    server_close(s);
}

void http_server_free(struct http_server *s)
{
    free(s);
}
