/* What the device does at best, measured in the run that is compared with it. */
#include "bench.h"
#include "facts_driver.h"

#include <math.h>
#include <string.h>

#define COPY_BYTES ((size_t)256 << 20)
#define COPIES 10
#define PRODUCTS 8

/* ---- products: y = y W + b, again and again.  Their input is zero, so b is what makes numbers of
 * it, and W keeps them of the same size. */
#define SOME 65537 /* numbers, and then the same again: no row of W is another one's */

static void fill(float *x, size_t n, float most)
{
    for (size_t i = 0; i < MIN(n, (size_t)SOME); i++)
        x[i] = most * ((float)((uint32_t)(i + 1) * 2654435761u >> 8) / 8388608.f - 1);
    for (size_t i = SOME; i < n; i += SOME)
        memcpy(x + i, x, MIN(n - i, (size_t)SOME) * sizeof(*x));
}

static int constant(struct graph *g, uint32_t rank, const int64_t *dims, float most, uint32_t *ret)
{
    struct tensor t = {0};
    int r = tensor_shape(&t, DT_FP32, rank, dims);

    if (r < 0 || !(t.data = arena_alloc(&g->arena, t.bytes)))
        return -ENOMEM;
    fill(t.data, t.bytes / sizeof(float), most);
    return graph_add_const(g, rank == 2 ? "W" : "b", &t, CONST_ARENA, ret);
}

static int build(struct graph *g, int64_t side)
{
    struct dim d[] = {{side, SYM_CONST}, {side, SYM_CONST}};
    int64_t dims[] = {side, side};
    uint32_t in[3], y, node;
    int r = graph_add_value(g, "x", DT_FP32, 2, d, &in[0]);

    if (r == 0)
        r = constant(g, 2, dims, sqrtf(3.f / (float)side), &in[1]);
    if (r == 0)
        r = constant(g, 1, dims, 1, &in[2]);
    if (r < 0)
        return r;
    g->in[g->n_in++] = in[0];
    for (unsigned i = 0; i < PRODUCTS && r == 0; i++, in[0] = y) {
        r = graph_add_value(g, "y", DT_NONE, -1, NULL, &y);
        if (r == 0)
            r = graph_add_node(g, "product", OP_MatMul, 3, in, 1, &y, &node);
    }
    g->out[g->n_out++] = in[0];
    return r;
}

static int products_time(struct device *dev, unsigned n_granules, const struct bound *b,
                         enum precision precision, double *ret, struct err *err)
{
    struct compile_args args = {.model = "products", .bound = b, .precision = precision};
    struct subject s;
    struct work w;
    double us = 0;
    int r = graph_work(b, precision, NULL, &w, err);

    if (r < 0)
        return r;
    r = subject_open(dev, n_granules, &args, &s, err);
    if (r == 0)
        r = subject_us(&s, 0, s.info.n_segments, &us, err);
    subject_close(&s);
    *ret = w.matrix_flops / MAX(us, 1e-3) * 1e6;
    return r;
}

static int products(struct device *dev, unsigned n_granules, enum precision precision,
                    unsigned side, double *ret, struct err *err)
{
    AUTO(graph_free) struct graph *g = graph_new(17);
    struct shape_key none = {0};
    struct arena a;
    struct bound *b;

    if (!g || build(g, side) < 0)
        return err_set(err, -ENOMEM, "out of memory for products of %u x %u", side, side);
    arena_init(&a);
    int r = graph_ready(g, err);
    if (r == 0)
        r = graph_bind(g, &none, &a, &b, err);
    if (r == 0)
        r = products_time(dev, n_granules, b, precision, ret, err);
    arena_done(&a);
    return r;
}

/* ---- copies, through the driver alone */
static int copies_time(CUdeviceptr from, CUdeviceptr to, CUevent *ev, CUstream stream, double *ret,
                       struct err *err)
{
    double ms[COPIES];
    float one = 0;
    int r = MORE(copy_within(to, from, COPY_BYTES, stream), err); /* once unmeasured */

    for (unsigned i = 0; i < COPIES && r == 0; i++) {
        r = GPU(event_record(ev[0], stream), err);
        if (r == 0)
            r = MORE(copy_within(to, from, COPY_BYTES, stream), err);
        if (r == 0)
            r = GPU(event_record(ev[1], stream), err);
        if (r == 0)
            r = GPU(stream_wait(stream), err);
        if (r == 0)
            r = GPU(event_elapsed(&one, ev[0], ev[1]), err);
        ms[i] = (double)one;
    }
    if (r < 0)
        return r;
    sort_values(ms, COPIES);
    *ret = 2 * (double)COPY_BYTES / MAX(ms[COPIES / 2], 1e-3) * 1e3;
    return 0;
}

static int copies(double *ret, struct err *err)
{
    CUdeviceptr from = 0, to = 0;
    CUevent ev[2] = {NULL, NULL};
    struct let whole = {0};
    int r = let_open(&whole, NULL, err);

    if (r == 0)
        r = GPU(mem_alloc(&from, COPY_BYTES), err);
    if (r == 0)
        r = GPU(mem_alloc(&to, COPY_BYTES), err);
    for (unsigned i = 0; i < 2 && r == 0; i++)
        r = GPU(event_create(&ev[i], CU_EVENT_DEFAULT), err);
    if (r == 0)
        r = copies_time(from, to, ev, whole.stream, ret, err);
    for (unsigned i = 0; i < 2; i++)
        if (ev[i])
            (void)cu.event_destroy(ev[i]);
    if (to)
        (void)cu.mem_free(to);
    if (from)
        (void)cu.mem_free(from);
    let_close(&whole);
    return r;
}

int rates_measure(struct device *dev, unsigned n_granules, enum precision precision, unsigned side,
                  struct rates *ret, struct err *err)
{
    int r = products(dev, n_granules, precision, side, &ret->matrix_flops_per_s, err);

    if (r == 0 && (r = facts_driver_open(err)) == 0) {
        r = copies(&ret->bytes_per_s, err);
        facts_driver_close();
    }
    return r < 0 ? err_wrap(err, "rates: ") : 0;
}
