/* Models in 16 bits on the fakes, and what that costs: what tests of precisions share. */
#pragma once

#include "run_rig.h"

#define IN (ROWS * 3 * 25)

static float given[IN];

static inline void open_gpu(void)
{
    open_device("green");
    start(17);
    for (unsigned i = 0; i < IN; i++)
        given[i] = (float)(i * 7 % 11) / 11;
}

static inline uint32_t conv(const char *name, uint32_t in, uint32_t w, uint32_t post)
{
    uint32_t y = named(name, OP_Conv, "pads=1,1,1,1", 3, in, w, weights("4"));

    if (post) {
        struct node *n = &g->nodes[g->n_nodes - 1];
        n->post[n->n_post++] = (struct post){.kind = post};
    }
    return y;
}

static inline int compile_in(enum precision p, struct exe **ret)
{
    struct compile_args args = {.model = "test", .bound = bound, .precision = p};

    return be->compile(part, &args, ret, &err);
}

/* Compiles and runs; the largest error by the largest magnitude of what FP32 gives. */
static inline double error_in(enum precision p, size_t n_out, struct exe_info *ret)
{
    float *y[2] = {calloc(n_out, sizeof(float)), calloc(n_out, sizeof(float))};
    double worst = 0, most = 0;

    for (unsigned k = 0; k < 2; k++) {
        const void *in[] = {given};
        void *out[] = {y[k]};
        struct io_part whole = {.rows = ROWS, .in = in, .out = out};
        struct exe *made = NULL;
        struct slot *s = NULL;
        CHECK_EQ(compile_in(k ? p : PRECISION_FP32, &made), 0);
        CHECK_EQ(be->slot_open(made, &s, &err), 0);
        CHECK_EQ(done_of(s, part, 0, 1, &(struct io){.n_parts = 1, .part = &whole}).rc, 0);
        be->exe_info(made, ret);
        be->slot_close(s);
        be->release(made);
    }
    for (size_t i = 0; i < n_out; i++) {
        double d = fabs((double)(y[1][i] - y[0][i]));
        worst = isnan(d) ? (double)INFINITY : fmax(worst, d);
        most = fmax(most, fabs((double)y[0][i]));
    }
    free(y[0]);
    free(y[1]);
    return worst / most;
}

static inline void close_gpu(void)
{
    CHECK_EQ(compile_in(PRECISION_FP32, &exe), 0);
    CHECK_EQ(be->slot_open(exe, &slot, &err), 0);
    close_model();
}
