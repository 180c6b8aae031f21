/* The HTTP server over real sockets, with routes of this file. */
#include "../check.h"
#include <arpa/inet.h>
#include <daemon/api.h>
#include <fcntl.h>
#include <gpulet/clock.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct http_server *server;
static struct pool *pool;
static uint16_t port;
static _Atomic int gone_calls, cleanups, bodies;

/* ---- routes */
static void get_hello(struct exchange *x)
{
    exchange_reply_static(x, 200, "text/plain", "hello", 5);
}

static void get_name(struct exchange *x)
{
    const char *q = NULL;
    struct err err = {0};
    char text[400];

    if (exchange_query(x, "q", &q, &err) < 0) {
        exchange_reply_err(x, &err, 0);
        return;
    }
    (void)snprintf(text, sizeof(text), "%s|%s|%s", x->arg[0], q ? q : "-",
                   x->peer == PEER_UNIX       ? "unix"
                   : x->peer == PEER_LOOPBACK ? "loopback"
                                              : "remote");
    exchange_reply_text(x, 200, "text/plain", strdup(text), strlen(text));
}

static void put_slab(void *slab)
{
    slab_put(slab);
}

/* Sends the body back from its slab. */
static void post_echo(struct exchange *x)
{
    struct iovec iov[2] = {{(void *)(uintptr_t) "<", 1},
                           {(void *)(uintptr_t)x->body, x->body_bytes}};

    bodies++;
    exchange_reply_iov(x, 200, "application/octet-stream", iov, 2, put_slab, TAKE(x->slab));
}

static void refuse_head(struct exchange *x)
{
    exchange_reply_err(x, &(struct err){-EAGAIN, "full"}, 1500000);
}

static void never(struct exchange *x)
{
    exchange_reply_error(x, 500, "body() after a refusal");
}

static void count_cleanup(void *user)
{
    (void)user;
    cleanups++;
}

/* Waits for a job that another thread finishes after the number of ms in the path; "gone" ones
 * are given up when the client leaves. */
static void *job_thread(void *arg)
{
    struct http_job *j = arg;

    usleep(1000 * (useconds_t)(uintptr_t)j->x->user);
    cq_push(j->job.cq, &j->job.item);
    return NULL;
}

static void job_done(struct exchange *x, struct job *job)
{
    (void)job;
    exchange_reply_static(x, 200, "text/plain", "done", 4);
}

static void get_wait(struct exchange *x)
{
    pthread_t t;

    x->user = (void *)(uintptr_t)atoi(x->arg[0]);
    x->cleanup = count_cleanup;
    struct http_job *j = http_job_new(x, job_done);
    if (pthread_create(&t, NULL, job_thread, j) == 0)
        (void)pthread_detach(t);
}

static bool gone(struct exchange *x)
{
    (void)x;
    gone_calls++;
    return true;
}

static void get_forever(struct exchange *x)
{
    x->cleanup = count_cleanup;
    exchange_suspend(x, gone);
}

static int file = -1;
static void upload_head(struct exchange *x)
{
    struct err err = {0};

    if (exchange_sink_fd(x, file, 1 << 20, &err) < 0)
        exchange_reply_err(x, &err, 0);
}

/* Keeps the server's thread to itself. */
static _Atomic int blocked, release;
static void get_block(struct exchange *x)
{
    blocked++;
    while (!release)
        usleep(1000);
    exchange_reply_static(x, 200, "text/plain", "free", 4);
}

static void get_probe(struct exchange *x)
{
    exchange_reply_static(x, 200, "text/plain", "by the server", 13);
}

static unsigned ask_probe(void *ctx, const char **ret_json)
{
    (void)ctx;
    *ret_json = "{\"by\":\"the door\"}";
    return 200;
}

static const struct http_probe probes[] = {{"/probe", ask_probe}};

static const struct route routes[] = {
    {"GET", "/block", NULL, get_block, 0},       {"GET", "/probe", NULL, get_probe, 0},
    {"GET", "/hello", NULL, get_hello, 0},       {"GET", "/names/{n}", NULL, get_name, 0},
    {"POST", "/echo", NULL, post_echo, 1 << 20}, {"DELETE", "/echo", NULL, get_hello, 0},
    {"POST", "/refuse", refuse_head, never, 0},  {"GET", "/wait/{ms}", NULL, get_wait, 0},
    {"GET", "/forever", NULL, get_forever, 0},   {"PUT", "/upload", upload_head, get_hello, 0},
};

static void no_request(struct cq_item *item)
{
    (void)item;
    abort();
}
static http_item_fn *const items[ITEM_KINDS] = {no_request, http_job_item};

static int listen_tcp(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        abort();
    port = ntohs(a.sin_port);
    return fd;
}

static struct sockaddr_un unix_name = {.sun_family = AF_UNIX, .sun_path = "\0gpulet-test-http"};

static int listen_unix(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(unix_name.sun_path + 1, 60, "gpulet-test-http-%d", (int)getpid());
    if (bind(fd, (struct sockaddr *)&unix_name, sizeof(unix_name)) < 0 || listen(fd, 16) < 0)
        abort();
    return fd;
}

/* ---- a client */
static int dial(void)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        abort();
    return fd;
}

static void say(int fd, const char *text)
{
    size_t n = strlen(text);

    CHECK_EQ(send(fd, text, n, MSG_NOSIGNAL), n);
}

/* What comes within 5 s until `until` occurs `times` times, or the end. */
static const char *hear(int fd, const char *until, int times)
{
    static char buf[1 << 16];
    size_t n = 0;

    buf[0] = '\0';
    while (n < sizeof(buf) - 1) {
        int seen = 0;
        struct pollfd p = {fd, POLLIN, 0};
        for (const char *c = buf; (c = strstr(c, until)); c++)
            seen++;
        if (seen >= times || poll(&p, 1, 5000) <= 0)
            break;
        ssize_t got = recv(fd, buf + n, sizeof(buf) - 1 - n, 0);
        if (got <= 0)
            break;
        n += (size_t)got;
        buf[n] = '\0';
    }
    return buf;
}

static const char *ask(int fd, const char *text, const char *until)
{
    say(fd, text);
    return hear(fd, until, 1);
}

static bool closed(int fd)
{
    char c;
    struct pollfd p = {fd, POLLIN, 0};

    return poll(&p, 1, 5000) > 0 && recv(fd, &c, 1, MSG_DONTWAIT) <= 0;
}

static void wait_for(_Atomic int *counter, int value)
{
    for (int i = 0; i < 500 && *counter < value; i++)
        usleep(10000);
    CHECK_EQ(*counter, value);
}

/* ---- tests */
static void a_connection_serves_many_requests(void)
{
    int fd = dial();

    for (int i = 0; i < 10; i++)
        CHECK_HAS(ask(fd, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n", "hello"), "200 OK");
    close(fd);
}

static void pipelined_requests_are_answered_in_order(void)
{
    int fd = dial();
    const char *got;

    say(fd, "GET /names/a HTTP/1.1\r\nHost: h\r\n\r\nGET /wait/30 HTTP/1.1\r\nHost: h\r\n\r\n"
            "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz"
            "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    got = hear(fd, "hello", 1);
    const char *a = strstr(got, "a|-|"), *b = strstr(got, "done"), *c = strstr(got, "<xyz"),
               *d = strstr(got, "hello");
    CHECK(a && b && c && d && a < b && b < c && c < d);
    close(fd);
}

static void unknown_paths_are_404_and_wrong_methods_405_with_allow(void)
{
    int fd = dial();

    CHECK_HAS(ask(fd, "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n", "}"), "404 Not Found");
    const char *got = ask(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n", "}");
    CHECK_HAS(got, "405 ");
    CHECK_HAS(got, "Allow: POST, DELETE\r\n");
    CHECK_HAS(got, "{\"error\":\"method GET is not allowed here, only POST, DELETE\"}");
    CHECK_HAS(ask(fd, "POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "}"),
              "Allow: GET, HEAD\r\n");
    close(fd);
}

static void head_is_answered_like_get_without_a_body(void)
{
    int fd = dial();
    const char *got = ask(fd, "HEAD /hello HTTP/1.1\r\nHost: h\r\n\r\n", "\r\n\r\n");

    CHECK_HAS(got, "200 OK");
    CHECK_HAS(got, "Content-Length: 5\r\n");
    CHECK_HAS(ask(fd, "GET /names/z HTTP/1.1\r\nHost: h\r\n\r\n", "z|"), "200 OK");
    close(fd);
}

static void names_are_decoded_after_splitting(void)
{
    int fd = dial();

    CHECK_HAS(
        ask(fd, "GET /names/a%20b%C3%A4?q=x%26y%3D1&r=2 HTTP/1.1\r\nHost: h\r\n\r\n", "|loop"),
        "a b\xc3\xa4|x&y=1|loopback");
    CHECK_HAS(ask(fd, "GET /names/a%2Fb HTTP/1.1\r\nHost: h\r\n\r\n", "}"), "400 Bad Request");
    CHECK_HAS(ask(fd, "GET /names/%2e%2e HTTP/1.1\r\nHost: h\r\n\r\n", "}"), "cannot be a name");
    CHECK_HAS(ask(fd, "GET /names/a%00 HTTP/1.1\r\nHost: h\r\n\r\n", "}"), "bad percent escape");
    CHECK_HAS(ask(fd, "GET /names/a%4 HTTP/1.1\r\nHost: h\r\n\r\n", "}"), "bad percent escape");
    CHECK_HAS(ask(fd, "GET /names/ HTTP/1.1\r\nHost: h\r\n\r\n", "}"), "404 Not Found");
    close(fd);
}

static void a_unix_peer_is_known_as_one(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK_EQ(connect(fd, (struct sockaddr *)&unix_name, sizeof(unix_name)), 0);
    CHECK_HAS(ask(fd, "GET /names/u HTTP/1.1\r\nHost: h\r\n\r\n", "unix"), "u|-|unix");
    close(fd);
}

#define PROBE "GET /probe HTTP/1.1\r\nHost: h\r\n\r\n"
#define HELLO "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"

static void a_probe_is_answered_while_the_servers_thread_is_busy(void)
{
    int busy = dial(), kept = dial(), fresh;
    struct pollfd p = {busy, POLLIN, 0};

    CHECK_HAS(ask(kept, PROBE, "door"), "200 OK");
    say(busy, "GET /block HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for(&blocked, 1);
    fresh = dial();
    CHECK_HAS(ask(fresh, PROBE, "door"), "200 OK");
    CHECK_HAS(ask(kept, PROBE, "door"), "200 OK");
    CHECK_EQ(poll(&p, 1, 0), 0);
    release = 1;
    CHECK_HAS(hear(busy, "free", 1), "200 OK");
    close(busy);
    close(kept);
    close(fresh);
}

static void a_connection_is_the_doors_until_its_first_other_request(void)
{
    int fd = dial(), unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    for (int i = 0; i < 5; i++)
        CHECK_HAS(ask(fd, PROBE, "door"), "Content-Type: application/json\r\n");
    CHECK_HAS(ask(fd, HELLO, "hello"), "200 OK");
    CHECK_HAS(ask(fd, PROBE, "by the"), "by the server");
    CHECK_HAS(ask(fd, HELLO, "hello"), "200 OK");
    close(fd);
    CHECK_EQ(connect(unix_fd, (struct sockaddr *)&unix_name, sizeof(unix_name)), 0);
    CHECK_HAS(ask(unix_fd, PROBE, "door"), "200 OK");
    CHECK_HAS(ask(unix_fd, "GET /names/u HTTP/1.1\r\nHost: h\r\n\r\n", "unix"), "u|-|unix");
    close(unix_fd);
}

static void probes_may_be_pipelined_with_anything_in_any_pieces(void)
{
    int fd = dial();
    const char *got, *door, *hello, *server_;

    for (const char *c = PROBE PROBE HELLO PROBE; *c; c++) {
        CHECK_EQ(send(fd, c, 1, MSG_NOSIGNAL), 1);
        if (*c == '\n')
            usleep(1000);
    }
    got = hear(fd, "by the server", 1);
    door = strstr(got, "the door");
    hello = strstr(got, "hello");
    server_ = strstr(got, "by the server");
    CHECK(door && hello && server_ && door < hello && hello < server_);
    close(fd);
    fd = dial();
    for (int i = 0; i < 50; i++) /* more than the door answers at once */
        say(fd, PROBE);
    CHECK_HAS(hear(fd, "200 OK", 50), "door");
    close(fd);
}

static void head_and_close_are_understood_at_the_door(void)
{
    int fd = dial();
    const char *got = ask(fd, "HEAD /probe HTTP/1.1\r\nHost: h\r\n\r\n", "\r\n\r\n");

    CHECK_HAS(got, "Content-Length: 17\r\n");
    CHECK(!strstr(got, "door"));
    got = ask(fd, "GET /probe HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "door");
    CHECK_HAS(got, "Connection: close\r\n");
    CHECK(closed(fd));
    close(fd);
}

static void every_connection_is_counted_until_it_is_closed(void)
{
    const struct http_stats *s = http_server_stats(server);
    int fd[3] = {dial(), dial(), dial()};

    CHECK_HAS(ask(fd[0], PROBE, "door"), "200 OK");
    CHECK_HAS(ask(fd[1], HELLO, "hello"), "200 OK");
    for (int i = 0; i < 500 && s->connections_now != 3; i++)
        usleep(10000);
    CHECK_EQ(s->connections_now, 3);
    for (int i = 0; i < 3; i++)
        close(fd[i]);
    for (int i = 0; i < 500 && s->connections_now; i++)
        usleep(10000);
    CHECK_EQ(s->connections_now, 0);
}

static void chunked_bodies_arrive_whole(void)
{
    int fd = dial();
    char chunk[20000], head[32];
    const char *got;
    size_t n = 0;

    memset(chunk, 'c', sizeof(chunk));
    say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        (void)snprintf(head, sizeof(head), "%zx\r\n", sizeof(chunk));
        say(fd, head);
        CHECK_EQ(send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL), sizeof(chunk));
        say(fd, "\r\n");
    }
    say(fd, "3\r\nend\r\n0\r\n\r\n");
    got = hear(fd, "end", 1);
    for (const char *c = strchr(got, '<'); c && *c; c++)
        n += *c == 'c';
    CHECK_EQ(n, 2 * sizeof(chunk));
    close(fd);
}

static void a_body_over_the_limit_is_413_and_the_connection_lives(void)
{
    int fd = dial();
    size_t n = (1 << 20) + 1;
    char *body = calloc(1, n);

    say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\n");
    for (size_t at = 0; at < n;) {
        ssize_t sent = send(fd, body + at, n - at, MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        at += (size_t)sent;
    }
    const char *got = hear(fd, "}", 1);
    CHECK_HAS(got, "413 ");
    CHECK_HAS(got, "the body has 1048577 bytes, the limit is 1048576");
    CHECK_HAS(ask(fd, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n", "hello"), "200 OK");
    free(body);
    close(fd);
}

static void a_refusal_says_when_to_come_back_and_keeps_the_connection(void)
{
    int fd = dial();
    const char *got =
        ask(fd, "POST /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345", "}");

    CHECK_HAS(got, "503 ");
    CHECK_HAS(got, "Retry-After: 2\r\n");
    CHECK_HAS(got, "{\"error\":\"full\"}");
    CHECK_HAS(ask(fd, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n", "hello"), "200 OK");
    close(fd);
}

static void a_refused_body_too_long_to_drain_is_answered_at_once(void)
{
    int fd = dial();

    CHECK_HAS(
        ask(fd, "POST /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000000\r\n\r\nx", "}"),
        "503 ");
    CHECK(closed(fd));
    close(fd);
}

static void a_client_that_asks_first_is_refused_before_it_sends(void)
{
    int fd = dial();

    CHECK_HAS(ask(fd,
                  "POST /refuse HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                  "Content-Length: 5\r\n\r\n",
                  "}"),
              "503 ");
    close(fd);
    fd = dial();
    CHECK_HAS(ask(fd,
                  "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                  "Content-Length: 5\r\n\r\n",
                  "\r\n\r\n"),
              "100 Continue");
    CHECK_HAS(ask(fd, "abcde", "<abcde"), "200 OK");
    close(fd);
}

static void a_body_that_nobody_wants_is_read_up_to_a_limit(void)
{
    int fd = dial();

    CHECK_HAS(ask(fd, "GET /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "hello"),
              "200 OK");
    CHECK_HAS(ask(fd, "GET /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\nabc", "}"),
              "the body has 9000000 bytes, but none is wanted");
    CHECK(closed(fd));
    close(fd);
}

static void an_upload_goes_to_its_file(void)
{
    char path[] = "/tmp/test_http_XXXXXX", back[6] = {0};
    int fd = dial();

    file = mkstemp(path);
    CHECK(file >= 0 && unlink(path) == 0);
    CHECK_HAS(ask(fd, "PUT /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345", "hello"),
              "200 OK");
    CHECK_EQ(pread(file, back, 5, 0), 5);
    CHECK_STR(back, "12345");
    CHECK_HAS(
        ask(fd, "PUT /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n1", "}"),
        "413 ");
    close(fd);
    close(file);
}

static void a_client_that_vanishes_is_noticed_while_it_waits(void)
{
    int fd = dial(), before = cleanups;

    say(fd, "GET /forever HTTP/1.1\r\nHost: h\r\n\r\n");
    usleep(100000);
    CHECK_EQ(gone_calls, 0);
    close(fd);
    wait_for(&gone_calls, 1);
    wait_for(&cleanups, before + 1);
    CHECK_EQ(http_server_stats(server)->suspended_now, 0);
}

static void a_reply_to_a_client_that_left_is_dropped(void)
{
    int fd = dial(), before = cleanups;

    say(fd, "GET /wait/200 HTTP/1.1\r\nHost: h\r\n\r\n");
    usleep(50000);
    close(fd);
    wait_for(&cleanups, before + 1);
}

static void a_client_that_sends_byte_by_byte_is_served_beside_others(void)
{
    static const char text[] = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nslow";
    int slow = dial(), quick = dial();

    for (const char *c = text; *c; c++) {
        CHECK_EQ(send(slow, c, 1, MSG_NOSIGNAL), 1);
        usleep(2000);
        if (c - text == 40)
            CHECK_HAS(ask(quick, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n", "hello"), "200 OK");
    }
    CHECK_HAS(hear(slow, "<slow", 1), "200 OK");
    close(slow);
    close(quick);
}

static void a_thousand_connections_are_served(void)
{
    static int fd[1000];
    struct rlimit limit;
    int n = 1000, good = 0;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 2200) {
        limit.rlim_cur = MIN(limit.rlim_max, 4096);
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    for (int i = 0; i < n; i++)
        fd[i] = dial();
    for (int round = 0; round < 2; round++) {
        good = 0;
        for (int i = 0; i < n; i++)
            say(fd[i], i % 2 ? "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"
                             : "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
        for (int i = 0; i < n; i++)
            good += strstr(hear(fd[i], "hello", 1), "200 OK") != NULL;
        CHECK_EQ(good, n);
    }
    CHECK(http_server_stats(server)->connections_now >= 1000);
    for (int i = 0; i < n; i++)
        close(fd[i]);
}

/* A server of its own, with one second for a head and room for two connections. */
static void endless_heads_are_cut_off_and_connections_limited(void)
{
    uint16_t main_port = port;
    struct err err = {0};
    struct http_server *small;
    int listen_fd = listen_tcp(), fd[3];
    struct http_config cfg = {.name = "http-small",
                              .listen_fd = &listen_fd,
                              .n_listen = 1,
                              .route = routes,
                              .n_routes = ARRAY_SIZE(routes),
                              .item = items,
                              .connections_max = 2,
                              .idle_s = 1,
                              .pool = pool};

    CHECK_EQ(http_server_start(&cfg, &small, &err), 0);
    for (int i = 0; i < 3; i++)
        fd[i] = dial();
    say(fd[2], "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"); /* waits in the listen queue */
    for (int i = 0; i < 6; i++) { /* a byte every 300 ms would keep an idle timer from firing */
        (void)!send(fd[0], "G", 1, MSG_NOSIGNAL);
        (void)!send(fd[1], "G", 1, MSG_NOSIGNAL);
        usleep(300000);
    }
    CHECK_HAS(hear(fd[2], "hello", 1), "200 OK");
    CHECK(http_server_stats(small)->too_slow >= 1);
    for (int i = 0; i < 3; i++)
        close(fd[i]);
    http_server_stop(small, USEC_PER_SEC);
    http_server_free(small);
    close(listen_fd);
    port = main_port;
}

static void the_loop_comes_round_once_a_second(void)
{
    usleep(1500000);
    CHECK(clock_now_us() - http_server_stats(server)->turn_us < 1200000);
    CHECK(clock_now_us() - http_server_stats(server)->door_us < 1200000);
}

static void draining_closes_connections_after_their_reply(void)
{
    int fd = dial(), probe = dial();

    http_server_drain(server);
    CHECK_HAS(ask(probe, PROBE, "door"), "Connection: close");
    CHECK(closed(probe));
    close(probe);
    CHECK_HAS(ask(fd, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n", "hello"), "Connection: close");
    CHECK(closed(fd));
    close(fd);
}

static void *speak_late(void *fd)
{
    usleep(300000);
    say(*(int *)fd, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    return NULL;
}

static void stopping_answers_what_waits_and_what_was_just_accepted(void)
{
    int fd = dial(), late = dial();
    pthread_t t;

    say(fd, "GET /wait/100 HTTP/1.1\r\nHost: h\r\n\r\n");
    usleep(50000);
    CHECK_EQ(pthread_create(&t, NULL, speak_late, &late), 0);
    http_server_stop(server, 2 * USEC_PER_SEC);
    CHECK_EQ(http_server_stats(server)->connections_now, 0);
    http_server_free(server);
    (void)pthread_join(t, NULL);
    CHECK_HAS(hear(fd, "done", 1), "200 OK");
    CHECK_HAS(hear(late, "hello", 1), "200 OK");
    CHECK_EQ(pool_used_bytes(pool), 0);
    close(fd);
    close(late);
}

int main(void)
{
    struct err err = {0};
    int fd[] = {listen_tcp(), listen_unix()};
    struct http_config cfg = {.name = "http-test",
                              .listen_fd = fd,
                              .n_listen = 2,
                              .route = routes,
                              .n_routes = ARRAY_SIZE(routes),
                              .probe = probes,
                              .n_probes = ARRAY_SIZE(probes),
                              .item = items,
                              .connections_max = 2000};

    if (pool_new((size_t)64 << 20, &pool, &err) < 0)
        return 1;
    cfg.pool = pool;
    if (http_server_start(&cfg, &server, &err) < 0) {
        printf("# %s\n", err.msg);
        return 1;
    }
    close(fd[0]);
    close(fd[1]);
    RUN(a_connection_serves_many_requests);
    RUN(pipelined_requests_are_answered_in_order);
    RUN(unknown_paths_are_404_and_wrong_methods_405_with_allow);
    RUN(head_is_answered_like_get_without_a_body);
    RUN(names_are_decoded_after_splitting);
    RUN(a_unix_peer_is_known_as_one);
    RUN(a_probe_is_answered_while_the_servers_thread_is_busy);
    RUN(a_connection_is_the_doors_until_its_first_other_request);
    RUN(probes_may_be_pipelined_with_anything_in_any_pieces);
    RUN(head_and_close_are_understood_at_the_door);
    RUN(every_connection_is_counted_until_it_is_closed);
    RUN(chunked_bodies_arrive_whole);
    RUN(a_body_over_the_limit_is_413_and_the_connection_lives);
    RUN(a_refusal_says_when_to_come_back_and_keeps_the_connection);
    RUN(a_refused_body_too_long_to_drain_is_answered_at_once);
    RUN(a_client_that_asks_first_is_refused_before_it_sends);
    RUN(a_body_that_nobody_wants_is_read_up_to_a_limit);
    RUN(an_upload_goes_to_its_file);
    RUN(a_client_that_vanishes_is_noticed_while_it_waits);
    RUN(a_reply_to_a_client_that_left_is_dropped);
    RUN(a_client_that_sends_byte_by_byte_is_served_beside_others);
    RUN(a_thousand_connections_are_served);
    RUN(endless_heads_are_cut_off_and_connections_limited);
    RUN(the_loop_comes_round_once_a_second);
    RUN(draining_closes_connections_after_their_reply);
    RUN(stopping_answers_what_waits_and_what_was_just_accepted);
    pool_free(pool);
    return check_end();
}
