/* A closed-loop load: N keep-alive connections, each sends the same request again as soon as it
 * has the whole reply.
 *
 *   bench_load PORT CONNECTIONS SECONDS REQUEST_FILE [SERVER_PID]
 *
 * REQUEST_FILE holds one whole HTTP request.  The first fifth of the time is warm-up.  Prints one
 * JSON line: requests/s, latency p50 and p99, CPU microseconds of the server per request, and the
 * replies that were not 200. */
#include <arpa/inet.h>
#include <errno.h>
#include <gpulet/clock.h>
#include <gpulet/hist.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct con {
    int fd;
    size_t sent;
    usec_t start_us;
    char head[1024]; /* of the reply, until its end is seen */
    size_t n_head;
    long body_left; /* -1: still in the head */
};

static char *request;
static size_t request_bytes;
static struct hist hist;
static uint64_t n_replies, n_bad;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int connect_to(int port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        die("bench_load: connect");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static void send_more(int ep, struct con *c)
{
    while (c->sent < request_bytes) {
        ssize_t n =
            send(c->fd, request + c->sent, request_bytes - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            die("bench_load: send");
        c->sent += (size_t)n;
    }
    struct epoll_event e = {.events = EPOLLIN | (c->sent < request_bytes ? EPOLLOUT : 0),
                            .data.ptr = c};
    if (request_bytes > 65536)
        (void)epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

static void begin(int ep, struct con *c)
{
    c->sent = 0;
    c->n_head = 0;
    c->body_left = -1;
    c->start_us = clock_now_us();
    send_more(ep, c);
}

/* Bytes of body that follow the head, or -1 while the head is not complete. */
static long head_done(struct con *c, size_t *ret_head)
{
    c->head[c->n_head] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return -1;
    *ret_head = (size_t)(end + 4 - c->head);
    char *length = strcasestr(c->head, "\r\nContent-Length:");
    if (!length || length > end)
        die("bench_load: a reply without Content-Length");
    return atol(length + 17);
}

/* True when the reply is complete. */
static bool receive(struct con *c)
{
    static char sink[1 << 16];

    for (;;) {
        bool in_head = c->body_left < 0;
        char *to = in_head ? c->head + c->n_head : sink;
        size_t room = in_head ? sizeof(c->head) - 1 - c->n_head : sizeof(sink);
        ssize_t n = recv(c->fd, to, in_head ? room : MIN(room, (size_t)c->body_left), MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n <= 0) {
            (void)fprintf(stderr, "bench_load: the server closed a connection\n");
            exit(1);
        }
        if (in_head) {
            size_t head = 0;
            c->n_head += (size_t)n;
            long body = head_done(c, &head);
            if (body < 0)
                continue;
            c->body_left = body - (long)(c->n_head - head);
        } else {
            c->body_left -= n;
        }
        if (c->body_left <= 0)
            return true;
    }
}

/* User and system time of a process, in microseconds. */
static double cpu_us(const char *pid)
{
    char path[64];
    unsigned long user = 0, sys = 0;

    (void)snprintf(path, sizeof(path), "/proc/%s/stat", pid ? pid : "self");
    FILE *f = fopen(path, "re");
    if (!f || fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                     &sys) != 2)
        user = sys = 0;
    if (f)
        (void)fclose(f);
    return (double)(user + sys) * 1e6 / (double)sysconf(_SC_CLK_TCK);
}

static void read_request(const char *file)
{
    FILE *f = fopen(file, "re");

    if (!f)
        die(file);
    (void)fseek(f, 0, SEEK_END);
    request_bytes = (size_t)ftell(f);
    (void)fseek(f, 0, SEEK_SET);
    request = malloc(request_bytes + 1);
    if (!request || fread(request, 1, request_bytes, f) != request_bytes)
        die(file);
    (void)fclose(f);
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        (void)fprintf(stderr,
                      "usage: bench_load PORT CONNECTIONS SECONDS REQUEST_FILE [SERVER_PID]\n");
        return 2;
    }
    int n = atoi(argv[2]), ep = epoll_create1(EPOLL_CLOEXEC);
    double seconds = atof(argv[3]);
    const char *pid = argc > 5 ? argv[5] : NULL;
    struct con *con = calloc((size_t)n, sizeof(*con));

    read_request(argv[4]);
    for (int i = 0; con && i < n; i++) {
        con[i].fd = connect_to(atoi(argv[1]));
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &con[i]};
        (void)epoll_ctl(ep, EPOLL_CTL_ADD, con[i].fd, &e);
        begin(ep, &con[i]);
    }
    usec_t start_us = clock_now_us(), from_us = start_us + (usec_t)(seconds * 2e5);
    usec_t to_us = start_us + (usec_t)(seconds * 1e6), now_us = start_us;
    double cpu_from = 0;
    bool warm = false;
    while (now_us < to_us) {
        struct epoll_event ev[256];
        int k = epoll_wait(ep, ev, 256, 1000);
        now_us = clock_now_us();
        if (!warm && now_us >= from_us) {
            warm = true;
            cpu_from = cpu_us(pid);
            from_us = now_us;
        }
        for (int i = 0; i < k; i++) {
            struct con *c = ev[i].data.ptr;
            if (ev[i].events & EPOLLOUT)
                send_more(ep, c);
            if (!(ev[i].events & EPOLLIN) || !receive(c))
                continue;
            if (warm) {
                hist_add(&hist, clock_now_us() - c->start_us);
                n_replies++;
                n_bad += strncmp(c->head, "HTTP/1.1 200", 12) != 0;
            }
            begin(ep, c);
        }
    }
    double s = (double)(now_us - from_us) / 1e6, cpu = cpu_us(pid) - cpu_from;
    printf("{\"connections\": %d, \"rps\": %.1f, \"p50_us\": %llu, \"p99_us\": %llu, \"cpu_us\": "
           "%.2f, \"bad\": %llu}\n",
           n, (double)n_replies / s, (unsigned long long)hist_quantile(&hist, 0.5),
           (unsigned long long)hist_quantile(&hist, 0.99), n_replies ? cpu / (double)n_replies : 0,
           (unsigned long long)n_bad);
    return 0;
}
