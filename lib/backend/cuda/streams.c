/* The streams of a partition.
 *
 * A run is on one of its level: how urgent it is, which the device heeds where runs share its SMs.
 * Levels are the priorities that the driver offers; a partition that has its SMs for itself has one
 * level.  The first levels are of runs that somebody gave a priority, the last but one is of all
 * others, the last of best effort.
 *
 * Inputs have one stream for all levels, as none of them waits for anything but the link.  Results
 * wait for their run, so those of an urgent one must not be behind those of another: they have a
 * stream in each level.  The inputs' is of the first level, because filling up a batch is a kernel,
 * too.  What the builder does is of the last. */
#include "gpu.h"

/* Streams of a level and a handle of cuDNN: more than they were seen to take (adr/0024). */
#define LEVEL_BYTES ((size_t)16 << 20)

int levels_ask(CUcontext ctx, struct levels *ret, struct err *err)
{
    int least = 0, greatest = 0, r = GPU(ctx_set_current(ctx), err);

    if (r == 0)
        r = GPU(priority_range(&least, &greatest), err);
    (void)cu.ctx_set_current(NULL);
    if (r < 0)
        return r;
    unsigned n = greatest < least ? (unsigned)(least - greatest) + 1 : 1;
    *ret = (struct levels){.n = MIN(n, LEVELS_MAX), .least = least};
    return 0;
}

size_t levels_bytes(unsigned n)
{
    return n * LEVEL_BYTES;
}

static int open_one(struct part *p, unsigned level, CUstream *ret, struct err *err)
{
    int priority = p->levels.least - (int)(p->levels.n - 1 - level);

    return p->green ? GPU(green_stream_create(ret, p->green, CU_STREAM_NON_BLOCKING, priority), err)
                    : GPU(stream_create(ret, CU_STREAM_NON_BLOCKING, priority), err);
}

int streams_open(struct part *p, struct err *err)
{
    int r = part_begin(p, err);

    if (r < 0)
        return r;
    for (unsigned i = 0; i < p->levels.n && r == 0; i++) {
        r = open_one(p, i, &p->line[i].stream, err);
        if (r == 0)
            r = open_one(p, i, &p->line[i].out, err);
    }
    if (r == 0)
        r = open_one(p, 0, &p->in, err);
    if (r == 0)
        r = open_one(p, p->levels.n - 1, &p->builders, err);
    part_end(p);
    return r;
}

static void close_one(CUstream s)
{
    if (s)
        (void)cu.stream_destroy(s);
}

void streams_close(struct part *p)
{
    close_one(p->builders);
    close_one(p->in);
    for (unsigned i = p->levels.n; i-- > 0;) {
        close_one(p->line[i].out);
        close_one(p->line[i].stream);
    }
}

static unsigned level_of(unsigned n, const struct io *io)
{
    if (n == 1)
        return 0;
    if (io && io->best_effort)
        return n - 1;
    if (!io || io->priority <= 0 || n == 2)
        return n - 2;
    return MIN((unsigned)io->priority - 1, n - 3);
}

struct line *line_of(struct part *p, const struct io *io)
{
    return &p->line[level_of(p->levels.n, io)];
}

void line_settle(struct part *p, const struct line *line)
{
    (void)cu.stream_wait(p->in);
    (void)cu.stream_wait(line->stream);
    (void)cu.stream_wait(line->out);
}

static int look_at(CUstream s, struct err *err)
{
    CUresult r = cu.stream_query(s);

    return r == CUDA_ERROR_NOT_READY ? 0 : gpu_check(r, "stream_query", err);
}

int streams_look(struct part *p, struct err *err)
{
    int r = look_at(p->in, err);

    for (unsigned i = 0; i < p->levels.n && r == 0; i++) {
        r = look_at(p->line[i].stream, err);
        if (r == 0)
            r = look_at(p->line[i].out, err);
    }
    return r;
}
