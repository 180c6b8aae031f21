/* gpuletd: start, watch, reload, drain, stop.
 *
 * The main thread runs an sd-event loop with signals and a tick of a second.  It never plans and
 * never blocks.  The tick feeds systemd's watchdog only while everything makes progress: no
 * executor or builder step inside a device call beyond its bound, and every http loop has come
 * round.  SIGTERM drains: readiness answers 503 at once, everything accepted is answered, then
 * the process ends with status 0.  SIGHUP reads the configuration again and keeps the old one if
 * the new one is bad. */
#include "daemon.h"
#include "listen.h"
#include "log.h"
#include "store.h"
#include <ctype.h>
#include <getopt.h>
#include <gpulet/clock.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#define TICK_US (USEC_PER_SEC / 2)
#define LOOP_BOUND_US (5 * USEC_PER_SEC)  /* an http loop that has not come round is stuck */
#define FAST_TICK_US (10 * USEC_PER_MSEC) /* while starting or draining */
/* The inference port is not read before the models of the state are loaded, so that what waits
 * on an activated socket finds them; but no longer than this. */
#define RESTORE_WAIT_US (10 * USEC_PER_SEC)

/* ---- command line: one table for getopt, --help and gpuletd(8) */
static const struct {
    const char *name;
    int letter;
    const char *arg;
    const char *help;
} flags[] = {
    {"config", 'c', "FILE", "read this configuration file instead of " CONFIG_FILE},
    {"test", 't', NULL, "check the configuration, print the first error, and exit"},
    {"dump-config", 'd', NULL, "print every option with its value, and exit"},
    {"help", 'h', NULL, "print this text, and exit"},
    {"version", 'V', NULL, "print the version, and exit"},
};
/* Not for people: `make` fills etc/gpuletd.conf and the man pages with these. */
#define FLAG_DOCUMENT 1000

enum action { ACTION_RUN, ACTION_TEST, ACTION_DUMP };

struct loop {
    struct gpuletd *d;
    const char *file;
    bool file_named;
    struct config config;
    sd_event *event;
    uint64_t events_seen;
    int exit_status;
    bool stopping, stuck;
    usec_t start_us;
    char profiles[sizeof(((struct config *)0)->state.directory) + 16]; /* a folder */
    struct listeners data_listen, admin_listen;
};

static void print_help(FILE *to)
{
    (void)fputs("usage: gpuletd [OPTION]...\n\nServes ONNX models from gpu-lets.\n\n", to);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        char left[64];
        (void)snprintf(left, sizeof(left), "-%c, --%s%s%s", flags[i].letter, flags[i].name,
                       flags[i].arg ? " " : "", flags[i].arg ? flags[i].arg : "");
        (void)fprintf(to, "  %-22s %s\n", left, flags[i].help);
    }
}

static void print_document(const char *what)
{
    if (STREQ(what, "flags"))
        for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
            printf(".It Fl %c , Fl Fl %s%s%s\n%c%s.\n", flags[i].letter, flags[i].name,
                   flags[i].arg ? " Ar " : "", flags[i].arg ? flags[i].arg : "",
                   toupper((unsigned char)flags[i].help[0]), flags[i].help + 1);
    else
        config_document(stdout, STREQ(what, "conf"));
}

static enum action parse_flags(int argc, char **argv, struct loop *l)
{
    struct option longs[ARRAY_SIZE(flags) + 2] = {{0}};
    char shorts[2 * ARRAY_SIZE(flags) + 1] = "";
    enum action action = ACTION_RUN;
    int c;

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        longs[i] = (struct option){flags[i].name, flags[i].arg ? 1 : 0, NULL, flags[i].letter};
        (void)sprintf(shorts + strlen(shorts), "%c%s", flags[i].letter, flags[i].arg ? ":" : "");
    }
    longs[ARRAY_SIZE(flags)] = (struct option){"document", 1, NULL, FLAG_DOCUMENT};
    while ((c = getopt_long(argc, argv, shorts, longs, NULL)) >= 0) {
        switch (c) {
        case 'c':
            l->file = optarg;
            l->file_named = true;
            break;
        case 't':
            action = ACTION_TEST;
            break;
        case 'd':
            action = ACTION_DUMP;
            break;
        case 'h':
            print_help(stdout);
            exit(0);
        case 'V':
            puts("gpuletd " GPULETD_VERSION);
            exit(0);
        case FLAG_DOCUMENT:
            print_document(optarg);
            exit(0);
        default:
            print_help(stderr);
            exit(EXIT_CONFIG);
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "gpuletd: unexpected argument '%s'\n", argv[optind]);
        exit(EXIT_CONFIG);
    }
    return action;
}

/* ---- configuration in force */

static int read_token(const char *file, char ret[ADMIN_TOKEN_MAX], struct err *err)
{
    ret[0] = 0;
    if (!file[0])
        return 0;
    FILE *f = fopen(file, "re");
    if (!f)
        return err_set(err, -errno, "admin.token-file '%s': %s", file, strerror(errno));
    if (!fgets(ret, ADMIN_TOKEN_MAX, f))
        ret[0] = 0;
    (void)fclose(f);
    ret[strcspn(ret, "\r\n")] = 0;
    return ret[0] ? 0
                  : err_set(err, -EINVAL, "admin.token-file '%s': its first line is empty", file);
}

static int apply_live(struct gpuletd *d, const struct config *c, struct err *err)
{
    char token[ADMIN_TOKEN_MAX];
    int r = read_token(c->admin.token_file, token, err);

    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&d->token_lock);
    memcpy(d->token, token, sizeof(token));
    (void)pthread_mutex_unlock(&d->token_lock);
    d->model_bytes = c->limits.model_bytes;
    d->repository_api = (int)c->http.repository_api;
    d->metrics = c->http.metrics;
    d->v2.timeout_us = c->limits.timeout_ms * USEC_PER_MSEC;
    d->v2.body_max = c->http.body_bytes;
    return 0;
}

static int backend_of(const struct config *c, struct engine_config *ret, struct err *no_gpu,
                      struct err *err)
{
    (void)snprintf(ret->device.partition_mode, sizeof(ret->device.partition_mode), "%s",
                   c->device.partition_mode);
    (void)snprintf(ret->device.cpu_units, sizeof(ret->device.cpu_units), "%s", c->device.cpu_units);
    (void)snprintf(ret->device.sim_file, sizeof(ret->device.sim_file), "%s", c->device.sim_file);
    int r = backend_choose(c->device.backend, &ret->device, &ret->backend, no_gpu, err);
    if (r == 0)
        r = policy_find(c->plan.policy, &ret->policy, err);
    ret->host_bytes = c->limits.host_bytes;
    ret->device.run_bytes = c->limits.late_bytes;
    ret->model_limits = (struct model_limits){.nodes = (uint32_t)c->limits.model_nodes,
                                              .nesting = (uint32_t)c->limits.model_nesting,
                                              .tensor_elems = c->limits.tensor_elements,
                                              .tensor_bytes = c->limits.tensor_bytes,
                                              .live_bytes = c->limits.run_bytes,
                                              .loop_iterations = c->limits.loop_iterations};
    ret->queue_max = (uint32_t)c->limits.queue;
    ret->max_batch = (uint32_t)c->limits.batch;
    ret->timeout_us = c->limits.timeout_ms * USEC_PER_MSEC;
    ret->step_bound_us = c->limits.stall_ms * USEC_PER_MSEC;
    return r;
}

/* Everything `gpuletd -t` checks: what can be known without opening the state folder. */
static int config_check(const struct config *c, struct err *err)
{
    struct engine_config e = {0};
    struct device_info info[MAX_DEVICES];
    char token[ADMIN_TOKEN_MAX];
    struct err no_gpu;
    size_t n;
    int r = backend_of(c, &e, &no_gpu, err);

    if (r == 0)
        r = e.backend->devices(&e.device, info, ARRAY_SIZE(info), &n, err);
    if (r == 0)
        r = read_token(c->admin.token_file, token, err);
    return r;
}

/* ---- the loop */

static void log_events(struct loop *l)
{
    struct view_event *ev;
    struct arena a;
    uint32_t n;

    arena_init(&a);
    if (engine_events(l->d->engine, l->events_seen, &a, &ev, &n, &l->events_seen) == 0)
        for (uint32_t i = 0; i < n; i++) {
            log_line(ev[i].level,
                     &(struct log_fields){
                         .event = ev[i].what,
                         .model = ev[i].model,
                         .version = ev[i].version,
                         .gpulet = ev[i].gpulet == PLAN_NONE ? -1 : (int32_t)ev[i].gpulet},
                     "%s", ev[i].msg);
            if (STREQ(ev[i].what, "profile") && l->d->store)
                store_profile(l->d->store, ev[i].model);
        }
    arena_done(&a);
}

static int loop_stuck(const struct http_server *s, const char *name, struct err *err)
{
    const struct http_stats *t = s ? http_server_stats(s) : NULL;
    usec_t turn_us = t ? MIN(t->turn_us, t->door_us) : 0, now_us = clock_now_us();

    if (!s || turn_us + LOOP_BOUND_US > now_us)
        return 0;
    return err_set(err, -ETIMEDOUT, "the %s loop has not come round for %" PRIu64 " ms", name,
                   (now_us - turn_us) / USEC_PER_MSEC);
}

static void feed_watchdog(struct loop *l)
{
    struct err err = {0};
    int r = engine_health(l->d->engine, &err);

    if (r == 0)
        r = loop_stuck(l->d->data, "inference port's", &err);
    if (r == 0)
        r = loop_stuck(l->d->admin, "admin port's", &err);
    if (r == -ENODEV) {
        LOG(LOG_CRIT, "fault", "%s; leaving to be restarted", err.msg);
        log_events(l);
        _exit(EXIT_DEVICE_LOST); /* the device's state is unknown: nothing may be unwound */
    }
    if (r == 0)
        (void)sd_notify(0, "WATCHDOG=1");
    else if (!l->stuck)
        LOG(LOG_ERR, "stall", "%s; the watchdog is not fed", err.msg);
    l->stuck = r < 0;
}

static bool drained(struct loop *l)
{
    return engine_pending(l->d->engine) == 0 &&
           (!l->d->data || http_server_stats(l->d->data)->suspended_now == 0);
}

static int start_server(struct gpuletd *d, const struct config *c, const char *name,
                        const struct listeners *l, const struct route *own, size_t n_own,
                        struct v2_turn *turn, struct http_server **ret, struct err *err);

/* Begin to read the inference port. */
static int open_data(struct loop *l)
{
    struct http_server *data;
    struct err err = {0};
    int r = start_server(l->d, &l->config, "http-data", &l->data_listen, data_routes, n_data_routes,
                         &l->d->data_turn, &data, &err);

    if (r < 0) {
        LOG(LOG_ERR, "start", "%s", err.msg);
        return sd_event_exit(l->event, r);
    }
    l->d->data = data;
    LOG(LOG_INFO, "start", "gpuletd " GPULETD_VERSION " is serving");
    return sd_notify(0, "READY=1\nSTATUS=Serving");
}

static int on_tick(sd_event_source *s, uint64_t usec, void *arg)
{
    struct loop *l = arg;
    int r = 0;

    engine_tell_refusals(l->d->engine);
    log_events(l);
    feed_watchdog(l);
    if (l->stopping && drained(l))
        return sd_event_exit(l->event, 0);
    if (!l->d->data && !l->stopping &&
        (l->d->restored || clock_now_us() > l->start_us + RESTORE_WAIT_US))
        r = open_data(l);
    bool fast = l->stopping || !l->d->data;
    (void)sd_event_source_set_time(s, usec + (fast ? FAST_TICK_US : TICK_US));
    return r < 0 ? r : sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static int on_engine_event(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
    uint64_t n;

    (void)s, (void)revents;
    if (read(fd, &n, sizeof(n)) < 0)
        return 0;
    log_events(arg);
    return 0;
}

static int on_stop(sd_event_source *s, const struct signalfd_siginfo *si, void *arg)
{
    struct loop *l = arg;

    (void)s;
    if (l->stopping)
        return 0;
    l->stopping = true;
    l->d->draining = true;
    if (l->d->data)
        http_server_drain(l->d->data);
    LOG(LOG_INFO, "stop", "%s: draining, %" PRIu64 " requests under way",
        si->ssi_signo == SIGINT ? "SIGINT" : "SIGTERM", engine_pending(l->d->engine));
    (void)sd_notifyf(0, "STOPPING=1\nSTATUS=Draining, %" PRIu64 " requests under way",
                     engine_pending(l->d->engine));
    return 0;
}

static int on_reload(sd_event_source *s, const struct signalfd_siginfo *si, void *arg)
{
    struct loop *l = arg;
    struct config now;
    struct err err = {0};

    (void)s, (void)si;
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now_us());
    int r = config_load(l->file, l->file_named, &now, &err);
    if (r == 0)
        r = config_check(&now, &err);
    if (r == 0)
        r = apply_live(l->d, &now, &err);
    if (r < 0) {
        LOG(LOG_ERR, "reload", "the old configuration stays in force: %s", err.msg);
        (void)sd_notify(0, "READY=1\nSTATUS=Reload failed, the old configuration stays in force");
        return 0;
    }
    const char *late = config_needs_restart(&l->config, &now);
    if (late)
        LOG(LOG_WARNING, "reload", "configuration reloaded; %s changes at the next restart", late);
    else
        LOG(LOG_INFO, "reload", "configuration reloaded");
    /* What needs a restart is still as it was: compare the next reload with that. */
    if (!late)
        l->config = now;
    (void)sd_notify(0, "READY=1\nSTATUS=Serving");
    return 0;
}

static int run_loop(struct loop *l)
{
    sd_event_source *tick = NULL;
    uint64_t now_us;
    int r = sd_event_default(&l->event);

    if (r < 0)
        return r;
    (void)sd_event_now(l->event, CLOCK_MONOTONIC, &now_us);
    if ((r = sd_event_add_signal(l->event, NULL, SIGTERM, on_stop, l)) < 0 ||
        (r = sd_event_add_signal(l->event, NULL, SIGINT, on_stop, l)) < 0 ||
        (r = sd_event_add_signal(l->event, NULL, SIGHUP, on_reload, l)) < 0 ||
        (r = sd_event_add_io(l->event, NULL, engine_events_fd(l->d->engine), EPOLLIN,
                             on_engine_event, l)) < 0 ||
        (r = sd_event_add_time(l->event, &tick, CLOCK_MONOTONIC, now_us, 0, on_tick, l)) < 0)
        return r;
    l->start_us = now_us;
    r = sd_event_loop(l->event);
    (void)sd_event_source_unref(tick);
    (void)sd_event_unref(l->event);
    return r;
}

/* ---- start and stop */

static struct route *tables[2]; /* one a port; freed when the servers have stopped */
static size_t n_tables;

/* A port's own rows and the protocol's. */
static struct route *with_v2(const struct route *own, size_t n_own)
{
    struct route *all = calloc(n_own + n_v2_routes, sizeof(*all));

    assert(n_tables < ARRAY_SIZE(tables));
    if (all) {
        tables[n_tables++] = all;
        memcpy(all, own, n_own * sizeof(*all));
        memcpy(all + n_own, v2_routes, n_v2_routes * sizeof(*all));
    }
    return all;
}

static int start_server(struct gpuletd *d, const struct config *c, const char *name,
                        const struct listeners *l, const struct route *own, size_t n_own,
                        struct v2_turn *turn, struct http_server **ret, struct err *err)
{
    const struct route *routes = with_v2(own, n_own);
    struct http_config h = {.name = name,
                            .listen_fd = l->fd,
                            .n_listen = l->n,
                            .route = routes,
                            .n_routes = n_own + n_v2_routes,
                            .probe = v2_probes,
                            .n_probes = n_v2_probes,
                            .item = api_items,
                            .pool = engine_pool(d->engine),
                            .ctx = d,
                            .turned = v2_turned,
                            .turn = turn,
                            .connections_max = (uint32_t)c->http.connections,
                            .drain_bytes = c->limits.drain_bytes,
                            .idle_s = (uint32_t)c->http.idle_s};

    turn->engine = d->engine;
    if (!l->n)
        return err_set(err, -EINVAL, "%s: there is no address to listen on", name);
    return routes ? http_server_start(&h, ret, err) : err_set(err, -ENOMEM, "out of memory");
}

static int open_sockets(struct loop *l, struct err *err)
{
    const struct config *c = &l->config;
    int r = listen_open("http", c->http.listen, &l->data_listen, err);

    if (r == 0)
        r = listen_open("admin", c->admin.listen, &l->admin_listen, err);
    if (r == 0)
        r = listen_unix(c->admin.socket, &l->admin_listen, err);
    return r;
}

/* What serves, and what it has to do without. */
static void log_devices(struct engine *e)
{
    AUTO(engine_view_free) struct engine_view *v = NULL;
    struct err err;

    if (engine_view(e, &v, &err) < 0)
        return;
    for (uint32_t i = 0; i < v->n_devices; i++) {
        const struct device_info *d = &v->device[i];
        LOG(LOG_INFO, "start", "device %s: %s; %s%s%s", d->name, d->kind, d->library,
            d->library[0] && d->why[0] ? "; " : "", d->why);
    }
}

static int start(struct loop *l, struct err *err)
{
    struct gpuletd *d = l->d;
    struct http_server *admin = NULL;
    struct engine_config e = {0};
    int r = backend_of(&l->config, &e, &d->no_gpu, err);

    if (d->no_gpu.code)
        LOG(LOG_INFO, "start", "no GPU: %s", d->no_gpu.msg);
    (void)snprintf(l->profiles, sizeof(l->profiles), "%s/profiles", l->config.state.directory);
    e.profiles = l->profiles;
    e.device.folder = l->config.state.directory;
    (void)pthread_mutex_init(&d->token_lock, NULL);
    if (r == 0)
        r = apply_live(d, &l->config, err);
    if (r == 0)
        r = open_sockets(l, err);
    if (r == 0)
        r = engine_new(&e, &d->engine, err);
    if (r == 0)
        log_devices(d->engine);
    if (r == 0)
        r = store_open(d, l->config.state.directory, &d->store, err);
    if (r < 0)
        return r;
    d->v2.engine = d->engine;
    d->v2.repository = &store_repository;
    d->v2.store = d->store;
    d->v2.draining = &d->draining;
    r = start_server(d, &l->config, "http-admin", &l->admin_listen, admin_routes, n_admin_routes,
                     &d->admin_turn, &admin, err);
    d->admin = admin;
    if (r == 0)
        store_restore(d->store);
    return r;
}

static void stop(struct loop *l)
{
    struct gpuletd *d = l->d;

    if (d->data)
        http_server_stop(d->data, DRAIN_LINGER_US);
    if (d->store)
        store_close(d->store);
    if (d->admin)
        http_server_stop(d->admin, DRAIN_LINGER_US);
    http_server_free(d->data); /* not before: the admin port reads its stats */
    http_server_free(d->admin);
    while (n_tables > 0)
        free(tables[--n_tables]);
    v2_turn_done(&d->data_turn);
    v2_turn_done(&d->admin_turn);
    if (d->store)
        store_free(d->store);
    if (d->engine)
        engine_free(d->engine);
    listen_close(&l->data_listen);
    listen_close(&l->admin_listen);
    (void)pthread_mutex_destroy(&d->token_lock);
}

static void raise_file_limit(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l);
    }
}

/* Signals are taken by the main thread's loop alone; the mask is inherited by every thread. */
static void block_signals(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    static struct gpuletd d;
    struct loop l = {.d = &d, .file = CONFIG_FILE};
    struct err err = {0};
    enum action action = parse_flags(argc, argv, &l);
    int r = config_load(l.file, l.file_named, &l.config, &err);

    if (r == 0 && action == ACTION_DUMP) {
        config_dump(&l.config, stdout);
        return 0;
    }
    if (r == 0 && action == ACTION_TEST)
        r = config_check(&l.config, &err);
    if (r < 0 || action == ACTION_TEST) {
        if (r < 0)
            (void)fprintf(stderr, "gpuletd: %s\n", err.msg);
        return r < 0 ? EXIT_CONFIG : 0;
    }
    /* Few heaps: with one for each thread that ever met another in malloc(), memory would grow by
     * chance as models come and go. */
    (void)mallopt(M_ARENA_MAX, 2);
    block_signals();
    raise_file_limit();
    r = start(&l, &err);
    if (r == 0)
        r = run_loop(&l);
    else
        LOG(LOG_ERR, "start", "%s", err.msg);
    stop(&l);
    return r < 0 ? 1 : 0;
}
