/* The rival of bench-http: the least that a libmicrohttpd server with the same loop can do.
 *
 *   bench_bare PORT REPLY_FILE TYPE HEADERS
 *
 * One thread: MHD in external epoll mode, a completion queue behind an eventfd.  One worker: each
 * request's body is received into one buffer, handed over, handed back, and answered with the
 * bytes of REPLY_FILE and the header lines that gpuletd sends. */
#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <microhttpd.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct job {
    struct job *next;
    struct MHD_Connection *con;
    char *body;
    size_t bytes, cap;
    int done;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct job *first, **last;
} work = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, &work.first};
static struct {
    pthread_mutex_t lock;
    struct job *first, **last;
    int fd;
} done = {PTHREAD_MUTEX_INITIALIZER, NULL, &done.first, -1};

static char *reply;
static size_t reply_bytes;
static const char *reply_type, *reply_header_length;

static void *worker(void *arg)
{
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&work.lock);
        while (!work.first)
            pthread_cond_wait(&work.cond, &work.lock);
        struct job *j = work.first;
        work.first = j->next;
        if (!work.first)
            work.last = &work.first;
        pthread_mutex_unlock(&work.lock);

        j->next = NULL;
        pthread_mutex_lock(&done.lock);
        int was_empty = !done.first;
        *done.last = j;
        done.last = &j->next;
        pthread_mutex_unlock(&done.lock);
        uint64_t one = 1;
        if (was_empty && write(done.fd, &one, sizeof(one)) < 0)
            abort();
    }
    return NULL;
}

static void hand_over(struct job *j)
{
    j->next = NULL;
    pthread_mutex_lock(&work.lock);
    *work.last = j;
    work.last = &j->next;
    pthread_mutex_unlock(&work.lock);
    pthread_cond_signal(&work.cond);
}

static enum MHD_Result answer(struct MHD_Connection *con)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(reply_bytes, reply, MHD_RESPMEM_PERSISTENT);

    MHD_add_response_header(r, "Content-Type", reply_type);
    if (reply_header_length[0])
        MHD_add_response_header(r, "Inference-Header-Content-Length", reply_header_length);
    enum MHD_Result ok = MHD_queue_response(con, 200, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *con, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *n, void **ctx)
{
    struct job *j = *ctx;

    (void)cls, (void)url, (void)method, (void)version;
    if (!j) {
        const char *length = MHD_lookup_connection_value(con, MHD_HEADER_KIND, "Content-Length");
        j = calloc(1, sizeof(*j));
        j->con = con;
        j->cap = length ? strtoul(length, NULL, 10) : 65536;
        j->body = malloc(j->cap + 1);
        *ctx = j;
        return MHD_YES;
    }
    if (*n) {
        if (*n > j->cap - j->bytes)
            return MHD_NO;
        memcpy(j->body + j->bytes, data, *n);
        j->bytes += *n;
        *n = 0;
        return MHD_YES;
    }
    if (j->done)
        return answer(con);
    MHD_suspend_connection(con);
    hand_over(j);
    return MHD_YES;
}

static void on_completed(void *cls, struct MHD_Connection *con, void **ctx,
                         enum MHD_RequestTerminationCode why)
{
    struct job *j = *ctx;

    (void)cls, (void)con, (void)why;
    if (j)
        free(j->body);
    free(j);
    *ctx = NULL;
}

static void take_done(void)
{
    uint64_t n;

    if (read(done.fd, &n, sizeof(n)) < 0)
        return;
    pthread_mutex_lock(&done.lock);
    struct job *j = done.first;
    done.first = NULL;
    done.last = &done.first;
    pthread_mutex_unlock(&done.lock);
    for (struct job *next; j; j = next) {
        next = j->next;
        j->done = 1;
        MHD_resume_connection(j->con);
    }
}

static void read_reply(const char *file)
{
    FILE *f = fopen(file, "rb");

    reply = malloc(1 << 20);
    reply_bytes = f ? fread(reply, 1, 1 << 20, f) : 0;
    if (f)
        fclose(f);
}

static int listen_on(int port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4096) < 0) {
        perror("bench_bare: listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: bench_bare PORT REPLY_FILE TYPE HEADER_LENGTH\n");
        return 2;
    }
    read_reply(argv[2]);
    reply_type = argv[3];
    reply_header_length = argv[4];
    /* As gpuletd's slabs: a large body's memory is not given back to the kernel in between. */
    mallopt(M_MMAP_THRESHOLD, 16 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    done.last = &done.first;
    done.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    struct MHD_Daemon *d = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_access, NULL,
        MHD_OPTION_LISTEN_SOCKET, listen_on(atoi(argv[1])), MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, NULL, MHD_OPTION_CONNECTION_LIMIT, 4096u, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)32768, MHD_OPTION_CONNECTION_TIMEOUT, 75u, MHD_OPTION_END);
    pthread_t t;
    if (!d || pthread_create(&t, NULL, worker, NULL) != 0)
        return 1;
    int ep = epoll_create1(EPOLL_CLOEXEC);
    int mhd_fd = MHD_get_daemon_info(d, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    struct epoll_event e1 = {.events = EPOLLIN, .data.fd = mhd_fd};
    struct epoll_event e2 = {.events = EPOLLIN, .data.fd = done.fd};
    epoll_ctl(ep, EPOLL_CTL_ADD, mhd_fd, &e1);
    epoll_ctl(ep, EPOLL_CTL_ADD, done.fd, &e2);
    for (;;) {
        MHD_UNSIGNED_LONG_LONG ms = 1000;
        struct epoll_event ev[8];
        if (MHD_get_timeout(d, &ms) != MHD_YES || ms > 1000)
            ms = 1000;
        int n = epoll_wait(ep, ev, 8, (int)ms);
        for (int i = 0; i < n; i++)
            if (ev[i].data.fd == done.fd)
                take_done();
        MHD_run(d);
    }
}
