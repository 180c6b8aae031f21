/* What priorities of streams do, and from which size on a copy is worth a stream of its own:
 * APART_BYTES of lib/backend/cuda/copy.c. */
#include "facts.h"
#include "facts_driver.h"

#include <stdio.h>

#define TRIES 20
#define ROW 32 /* runs without a wait of the host's between them */
#define WAVES 8
#define BLOCKS_PER_SM 8
#define RUN_CLOCKS 100000 /* some 50 us */
#define KIB 1024
#define BYTES_MAX ((size_t)4096 * KIB)

static const size_t sizes[] = {16 * KIB,  64 * KIB,   128 * KIB, 256 * KIB,
                               512 * KIB, 1024 * KIB, BYTES_MAX};

/* ---- priorities */
/* A kernel that is asked for behind one that fills all SMs for a while. */
static int beside(const struct let *l, const struct code *c, CUstream stream, const char *what,
                  struct err *err)
{
    struct place_args slow = {.clocks = RUN_CLOCKS}, quick = {0};
    double us[TRIES];
    int r = 0;

    for (unsigned i = 0; i < TRIES && r == 0; i++) {
        r = code_run(c->place, l->sms * BLOCKS_PER_SM * WAVES, &slow, l->stream, err);
        uint64_t start = clock_now_ns();
        if (r == 0)
            r = code_run(c->place, 1, &quick, stream, err);
        if (r == 0)
            r = GPU(stream_wait(stream), err);
        us[i] = us_since(start);
        if (r == 0)
            r = GPU(stream_wait(l->stream), err);
    }
    if (r == 0)
        fact_values(what, "us", us, TRIES);
    return r;
}

static int priorities(const struct let *l, const struct code *c, struct err *err)
{
    static const char *const names[] = {"a kernel beside a long one, on a stream of its priority",
                                        "a kernel beside a long one, on a stream before it"};
    int least = 0, greatest = 0, r = GPU(priority_range(&least, &greatest), err);

    if (r == 0)
        fact("priorities of streams", "%d to %d", greatest, least);
    for (unsigned i = 0; i < 2 && r == 0; i++) {
        CUstream s = NULL;
        r = GPU(stream_create(&s, CU_STREAM_NON_BLOCKING, i ? greatest : least), err);
        if (r == 0)
            r = beside(l, c, s, names[i], err);
        if (s)
            (void)cu.stream_destroy(s);
    }
    return r;
}

/* ---- copies: two slots, and a kernel that stands for a run */
struct slots {
    CUstream in;
    CUevent there[2], over[2];
    CUdeviceptr at[2];
    void *pinned;
};

static int slots_open(struct slots *s, struct err *err)
{
    int r = GPU(stream_create(&s->in, CU_STREAM_NON_BLOCKING, 0), err);

    for (unsigned i = 0; i < 2; i++) {
        if (r == 0)
            r = GPU(event_create(&s->there[i], CU_EVENT_DEFAULT), err);
        if (r == 0)
            r = GPU(event_create(&s->over[i], CU_EVENT_DEFAULT), err);
        if (r == 0)
            r = GPU(mem_alloc(&s->at[i], BYTES_MAX), err);
    }
    return r < 0 ? r : GPU(host_alloc(&s->pinned, BYTES_MAX, CU_MEMHOSTALLOC_PORTABLE), err);
}

static void slots_close(struct slots *s)
{
    if (s->pinned)
        (void)cu.host_free(s->pinned);
    for (unsigned i = 2; i-- > 0;) {
        if (s->at[i])
            (void)cu.mem_free(s->at[i]);
        if (s->over[i])
            (void)cu.event_destroy(s->over[i]);
        if (s->there[i])
            (void)cu.event_destroy(s->there[i]);
    }
    if (s->in)
        (void)cu.stream_destroy(s->in);
}

/* The i-th run.  Where a host waits for a slot to be free, the stream of copies does here. */
static int turn(const struct slots *s, const struct let *l, const struct code *c, size_t bytes,
                bool apart, unsigned i, struct err *err)
{
    struct place_args run = {.clocks = RUN_CLOCKS};
    unsigned k = i % 2;
    CUstream in = apart ? s->in : l->stream;
    int r = apart && i >= 2 ? GPU(stream_wait_event(in, s->over[k], 0), err) : 0;

    if (r == 0)
        r = GPU(copy_in_async(s->at[k], s->pinned, bytes, in), err);
    if (r == 0 && apart)
        r = GPU(event_record(s->there[k], in), err);
    if (r == 0 && apart)
        r = GPU(stream_wait_event(l->stream, s->there[k], 0), err);
    if (r == 0)
        r = code_run(c->place, l->sms, &run, l->stream, err);
    return r == 0 && apart ? GPU(event_record(s->over[k], l->stream), err) : r;
}

/* Microseconds of one run among n; sorted, the median in the middle. */
static int copies(const struct slots *s, const struct let *l, const struct code *c, size_t bytes,
                  bool apart, unsigned n, double us[TRIES], struct err *err)
{
    char what[96];
    int r = 0;

    for (unsigned i = 0; i < TRIES && r == 0; i++) {
        uint64_t start = clock_now_ns();
        for (unsigned k = 0; k < n && r == 0; k++)
            r = turn(s, l, c, bytes, apart, k, err);
        if (r == 0)
            r = GPU(stream_wait(l->stream), err);
        us[i] = us_since(start) / n;
    }
    (void)snprintf(what, sizeof(what), "a run and its copy of %zu KiB, %s, %s", bytes / KIB,
                   n > 1 ? "among others" : "alone", apart ? "on two streams" : "on one stream");
    if (r == 0)
        fact_values(what, "us", us, TRIES);
    return r;
}

static int apart_from(const struct slots *s, const struct let *l, const struct code *c,
                      struct err *err)
{
    double us[2][TRIES];
    size_t least = 0;
    int r = 0;

    for (size_t i = ARRAY_SIZE(sizes); i-- > 0 && r == 0;) {
        for (unsigned apart = 0; apart < 2 && r == 0; apart++)
            r = copies(s, l, c, sizes[i], apart, 1, us[apart], err);
        for (unsigned apart = 0; apart < 2 && r == 0; apart++)
            r = copies(s, l, c, sizes[i], apart, ROW, us[apart], err);
        if (r == 0 && us[1][TRIES / 2] < us[0][TRIES / 2])
            least = sizes[i];
    }
    if (r == 0 && least)
        fact("the smallest copy that is worth another stream", "%zu KiB", least / KIB);
    else if (r == 0)
        fact("the smallest copy that is worth another stream", "none up to %zu KiB",
             BYTES_MAX / KIB);
    return r;
}

int facts_streams(struct err *err)
{
    struct slots s = {0};
    struct let whole = {0};
    struct code c = {0};
    int r = let_open(&whole, NULL, err);

    if (r == 0)
        r = code_open(&c, err);
    if (r == 0)
        r = priorities(&whole, &c, err);
    if (r == 0)
        r = slots_open(&s, err);
    if (r == 0)
        r = apart_from(&s, &whole, &c, err);
    slots_close(&s);
    let_close(&whole);
    code_close(&c);
    return r;
}
