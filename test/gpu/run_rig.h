/* A model in a partition, on the fake driver: what tests of runs share. */
#pragma once

#include "../graph_build.h"

#include "fake_rig.h"

#include <dirent.h>

#define ROWS 3

static struct backend_config device_cfg; /* but for the mode; what a test sets before */
static struct device *dev;
static struct part *part;
static struct arena arena;
static struct bound *bound;
static struct exe *exe;
static struct slot *slot;

static inline struct part *cut(unsigned from)
{
    struct granules set = granules_of(from, 1);
    struct part *p = NULL;
    uint32_t units;

    CHECK_EQ(be->part_open(dev, &set, &p, &units, &err), 0);
    return p;
}

static inline void open_device(const char *mode)
{
    struct backend_config cfg = device_cfg;
    struct device_info info[2];
    size_t n;

    open_fake();
    open_plugin();
    fake->mps = STREQ(mode, "mps");
    (void)snprintf(cfg.partition_mode, sizeof(cfg.partition_mode), "%s", mode);
    CHECK_EQ(be->devices(&cfg, info, ARRAY_SIZE(info), &n, &err), 0);
    CHECK_EQ(be->dev_open(&cfg, 0, &dev, &err), 0);
    part = cut(0);
}

static inline void bind_graph(void)
{
    struct shape_key key = {.n = g->n_syms, .dim = {ROWS}};

    g->batch_sym = g->n_syms ? 0 : -1;
    CHECK_EQ(graph_infer(g, &err), 0);
    arena_init(&arena);
    CHECK_EQ(graph_bind(g, &key, &arena, &bound, &err), 0);
}

static inline struct exe *compiled(struct part *p)
{
    struct compile_args args = {.model = "test", .bound = bound};
    struct exe *made = NULL;

    if (be->compile(p, &args, &made, &err) < 0)
        printf("# %s\n", err.msg);
    assert(made);
    return made;
}

static inline int compile(bool batch_invariant, struct exe **ret)
{
    struct compile_args args = {
        .model = "test", .bound = bound, .batch_invariant = batch_invariant};

    return be->compile(part, &args, ret, &err);
}

static inline uint32_t plain_steps(const struct exe *of)
{
    struct exe_info info;

    be->exe_info(of, &info);
    return info.n_plain;
}

static inline void fail(const char *call, int code)
{
    fake->fail_call = call;
    fake->fail_code = code;
    fake->fail_times = 1;
    fake->fail_after = 0;
}

static inline void close_model(void)
{
    be->slot_close(slot);
    be->release(exe);
    arena_done(&arena);
    graph_free(g);
    be->part_close(part);
    be->dev_close(dev);
    check_clean();
}

static inline struct done done_of(struct slot *s, struct part *p, unsigned from, unsigned to,
                                  const struct io *io)
{
    struct done done = {.rc = 1};
    ticket t = 0;

    CHECK_EQ(be->submit(s, 0, from, to, io, &t), 0);
    CHECK_EQ(be->wait(p, USEC_NEVER, &done, 1), 1);
    CHECK_EQ(done.ticket, t);
    return done;
}

/* What a run may call.  All else makes something, loads it, or asks how. */
static inline bool runs(const char *call, size_t n)
{
    static const char *const all[] = {
        "cuCtxSetCurrent",     "cuEventRecord",    "cuEventElapsedTime",
        "cuStreamWaitEvent",   "cuStreamQuery",    "cuMemcpyHtoDAsync",
        "cuMemcpyDtoHAsync",   "cuMemsetD8Async",  "cuGraphLaunch",
        "cuLaunchKernel",      "cuLaunchHostFunc", "cublasLtMatmulDescSetAttribute",
        "cudnnBackendExecute", "cublasLtMatmul",
    };

    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (strlen(all[i]) == n && memcmp(all[i], call, n) == 0)
            return true;
    return false;
}

/* Since the calls were forgotten there were runs, and nothing was made. */
static inline void check_only_runs(void)
{
    CHECK(called("cuLaunchHostFunc"));
    for (const char *p = fake->log; *p; p += strcspn(p, "\n") + 1) {
        int n = (int)strcspn(p, "\n");
        if (!runs(p, (size_t)n))
            printf("# %.*s\n", n, p);
        CHECK(runs(p, (size_t)n));
    }
}

/* Of this process. */
static inline unsigned threads(void)
{
    DIR *d = opendir("/proc/self/task");
    unsigned n = 0;

    assert(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    (void)closedir(d);
    return n;
}
