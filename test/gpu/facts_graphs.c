/* What launching takes, one by one and as graphs, and where a graph's kernels run. */
#include "facts.h"
#include "facts_driver.h"

#include <stdio.h>

#define TRIES 50
#define NODES_MAX 1000
#define SMS_MAX 1024

static const unsigned lengths[] = {1, 10, 100, NODES_MAX};

/* A chain of n kernels that belong to the let's context. */
static int chain_open(const struct let *l, CUkernel k, struct place_args *a, unsigned blocks,
                      unsigned n, CUgraphExec *ret, struct err *err)
{
    void *args[] = {a};
    CUDA_KERNEL_NODE_PARAMS p = {.gridDimX = blocks,
                                 .gridDimY = 1,
                                 .gridDimZ = 1,
                                 .blockDimX = GPU_THREADS,
                                 .blockDimY = 1,
                                 .blockDimZ = 1,
                                 .kernelParams = args,
                                 .kern = k,
                                 .ctx = l->ctx};
    CUgraphNode node = NULL, before;
    CUgraph g = NULL;
    int r = MORE(graph_create(&g, 0), err);

    for (unsigned i = 0; i < n && r == 0; i++) {
        before = node;
        r = MORE(graph_kernel(&node, g, &before, i > 0, &p), err);
    }
    if (r == 0)
        r = MORE(graph_kernel_is(node, &p), err);
    if (r == 0 && p.ctx != l->ctx)
        r = err_set(err, -EIO, "a kernel node has another context than it was given");
    if (r == 0)
        r = MORE(graph_open(ret, g, 0), err);
    if (g)
        (void)more.graph_destroy(g);
    return r;
}

/* Median times of the call or calls, and until they have ended. */
static int launching(const struct let *l, CUkernel k, CUgraphExec graph, unsigned n,
                     struct err *err)
{
    struct place_args nothing = {0};
    double host[TRIES], whole[TRIES];
    char what[64];
    int r = 0;

    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t start = clock_now_ns();
        for (unsigned j = 0; j < (graph ? 1 : n) && r == 0; j++)
            r = graph ? MORE(graph_launch(graph, l->stream), err)
                      : code_run(k, 1, &nothing, l->stream, err);
        host[i] = us_since(start);
        if (r == 0)
            r = GPU(stream_wait(l->stream), err);
        if (r < 0)
            return r;
        whole[i] = us_since(start);
    }
    (void)snprintf(what, sizeof(what), "%u kernels %s: the host's part", n,
                   graph ? "as a graph" : "one by one");
    fact_values(what, "us", host, TRIES);
    (void)snprintf(what, sizeof(what), "%u kernels %s: until they end", n,
                   graph ? "as a graph" : "one by one");
    fact_values(what, "us", whole, TRIES);
    return 0;
}

static int length(const struct let *l, const struct code *c, unsigned n, struct err *err)
{
    struct place_args nothing = {0};
    CUgraphExec graph = NULL;
    size_t before, after, total;
    char what[64];
    int r = MORE(mem_info(&before, &total), err);
    uint64_t start = clock_now_ns();

    if (r == 0)
        r = chain_open(l, c->place, &nothing, 1, n, &graph, err);
    if (r == 0)
        r = MORE(graph_upload(graph, l->stream), err);
    if (r == 0)
        r = GPU(stream_wait(l->stream), err);
    double us = us_since(start);
    if (r == 0)
        r = MORE(mem_info(&after, &total), err);
    if (r == 0) {
        (void)snprintf(what, sizeof(what), "a graph of %u kernels: to make and upload", n);
        fact_values(what, "us", &us, 1);
        us = ((double)before - (double)after) / 1024;
        (void)snprintf(what, sizeof(what), "a graph of %u kernels: memory", n);
        fact_values(what, "KiB", &us, 1);
        r = launching(l, c->place, NULL, n, err);
    }
    if (r == 0)
        r = launching(l, c->place, graph, n, err);
    if (graph)
        (void)more.graph_close(graph);
    return r;
}

/* The time until the host is told of an end, in the ways there are. */
static void CUDA_CB told(void *at)
{
    __atomic_store_n((uint64_t *)at, clock_now_ns(), __ATOMIC_RELEASE);
}
static int telling(const struct let *l, const struct code *c, struct err *err)
{
    static const char *const ways[] = {"by asking all the time", "by a wait that sleeps",
                                       "by a call on the host"};
    struct place_args nothing = {0};
    double us[TRIES];
    CUevent e = NULL;
    int r = GPU(event_create(&e, CU_EVENT_BLOCKING_SYNC), err);

    for (unsigned way = 0; way < ARRAY_SIZE(ways) && r == 0; way++) {
        for (unsigned i = 0; i < TRIES && r == 0; i++) {
            uint64_t start = clock_now_ns(), end = 0;
            r = code_run(c->place, 1, &nothing, l->stream, err);
            if (r == 0)
                r = GPU(event_record(e, l->stream), err);
            if (r == 0 && way == 2)
                r = GPU(launch_host(l->stream, told, &end), err);
            CUresult asked = CUDA_ERROR_NOT_READY;
            while (r == 0 && way == 0 && asked == CUDA_ERROR_NOT_READY)
                asked = more.event_ask(e);
            if (r == 0 && way == 0)
                r = gpu_check(asked, "cuEventQuery", err);
            else if (r == 0 && way == 1)
                r = MORE(event_wait(e), err);
            else if (r == 0)
                r = GPU(stream_wait(l->stream), err); /* of the call, too: it has been made */
            end = way == 2 ? __atomic_load_n(&end, __ATOMIC_ACQUIRE) : clock_now_ns();
            us[i] = (double)(end - start) / 1e3;
        }
        char what[64];
        (void)snprintf(what, sizeof(what), "one kernel, and being told %s", ways[way]);
        if (r == 0)
            fact_values(what, "us", us, TRIES);
    }
    if (e)
        (void)cu.event_destroy(e);
    return r;
}

/* A graph of the first let's, launched on the second one's stream: where does it run? */
static int keeping(const struct let *two, const struct code *c, struct err *err)
{
    static uint32_t seen[SMS_MAX], own[SMS_MAX];
    struct place_args a = {.clocks = 100000, .n_sms = SMS_MAX};
    unsigned inside = 0, outside = 0;
    CUgraphExec graph = NULL;
    CUdeviceptr at = 0;
    int r = GPU(ctx_set_current(two[0].ctx), err);

    if (r == 0)
        r = GPU(mem_alloc(&at, sizeof(seen)), err);
    a.seen = (uint32_t *)at;
    if (r == 0)
        r = GPU(zero_async(at, 0, sizeof(seen), two[0].stream), err);
    if (r == 0)
        r = code_run(c->place, two[0].sms * 8, &a, two[0].stream, err);
    if (r == 0)
        r = GPU(copy_out_async(own, at, sizeof(own), two[0].stream), err);
    if (r == 0)
        r = GPU(zero_async(at, 0, sizeof(seen), two[0].stream), err);
    if (r == 0)
        r = GPU(stream_wait(two[0].stream), err);
    if (r == 0)
        r = chain_open(&two[0], c->place, &a, two[0].sms * 8, 1, &graph, err);
    if (r == 0)
        r = GPU(ctx_set_current(two[1].ctx), err);
    if (r == 0)
        r = MORE(graph_launch(graph, two[1].stream), err);
    if (r == 0)
        r = GPU(copy_out_async(seen, at, sizeof(seen), two[1].stream), err);
    if (r == 0)
        r = GPU(stream_wait(two[1].stream), err);
    for (unsigned i = 0; i < SMS_MAX && r == 0; i++) {
        inside += seen[i] && own[i];
        outside += seen[i] && !own[i];
    }
    if (r == 0)
        fact_check(outside == 0 && inside > 0,
                   "a graph keeps its partition on another partition's stream",
                   "%u of its SMs, %u others", inside, outside);
    if (graph)
        (void)more.graph_close(graph);
    if (at)
        (void)cu.mem_free(at);
    return r;
}

int facts_graphs(struct err *err)
{
    CUdevResource group[SMS_MAX / 2], rest;
    unsigned n = ARRAY_SIZE(group);
    struct let whole = {0}, two[2] = {{0}};
    struct code c = {0};
    int r = code_open(&c, err);

    if (r == 0)
        r = let_open(&whole, NULL, err);
    if (r == 0)
        r = telling(&whole, &c, err);
    for (size_t i = 0; i < ARRAY_SIZE(lengths) && r == 0; i++)
        r = length(&whole, &c, lengths[i], err);
    if (r == 0)
        r = groups_open(group, &n, 0, &rest, err);
    for (unsigned i = 0; i < 2 && r == 0 && n >= 2; i++)
        r = let_open(&two[i], &group[i], err);
    if (r == 0 && n >= 2)
        r = keeping(two, &c, err);
    for (unsigned i = 2; i-- > 0;)
        let_close(&two[i]);
    let_close(&whole);
    code_close(&c);
    return r;
}
