/* Every operator case on every backend named on the command line (default: cpu), against the
 * reference kernels.
 *
 *     test_ops [-v] [-l] [-k PART-OF-NAME] [-s FILE] [BACKEND...]
 *
 * A case runs with batch 1 and 3 where it has a batch, twice in the same slot (the results are
 * equal to the bit), and once as two requests of one and two rows.  Where a backend runs the
 * reference's own loops that is said: their numbers are for test_onnx_node and test_ref.
 *
 * Convolutions and products run again in bf16 and fp16, on cuda everything else does, too; those of
 * bytes run in int8.
 *
 * -l lists the names, without running anything; -s leaves out those that FILE has as its lines. */
#include "cases.h"
#include "refusals.h"
#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/model.h>
#include <kernels/ref/ref.h>
#include <kernels/cuda/half.h>
#include <math.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define REGION_BYTES ((size_t)256 << 20)
#define GUARD_BYTES 64
#define GUARD 0xa5
#define WAIT_US (60 * USEC_PER_SEC)
#define NAMES_BYTES ((size_t)1 << 20)

/* An open backend with one partition of the whole device and memory that it may read. */
struct bench {
    const struct backend *be;
    struct device *dev;
    struct part *part;
    struct host_region region;
    size_t used; /* of the region */
};

/* One case at one batch. */
struct trial {
    const struct op_case *c;
    enum precision precision;
    struct graph *g;
    struct arena arena;
    struct bound *b;
    struct exe *exe;
    struct slot *slot;
    int64_t batch; /* 0: the case has none */
    uint32_t node;
    struct case_input in[CASE_MAX_IN];
    uint32_t n_in, n_post, n_graph_in;
    struct post post[MAX_POST];
    uint32_t value[CASE_MAX_IN + MAX_POST]; /* of the inputs and the posts' operands */
    uint32_t first;                         /* what the node reads of the first one */
    uint32_t out[CASE_MAX_OUT], n_out;
    struct tensor t[CASE_MAX_IN + MAX_POST]; /* their data */
    struct tensor want[CASE_MAX_OUT], got[2][CASE_MAX_OUT];
    double *sums; /* bf16, fp16: of the magnitudes that each number of the result is a sum of */
};

static const char *only, *skipped; /* the latter: "\nname\nname\n" */
static bool verbose, lists;

/* ---- the graph: inputs, the node, outputs */
static bool has_batch(const struct case_input *in)
{
    for (uint32_t d = 0; d < in->rank; d++)
        if (in->dims[d].sym == 0)
            return true;
    return false;
}

static int shape_at(const struct case_input *in, int64_t batch, struct tensor *t)
{
    int64_t dims[MAX_RANK];

    for (uint32_t d = 0; d < in->rank; d++)
        dims[d] = in->dims[d].sym == 0 ? batch : in->dims[d].scale;
    return tensor_shape(t, in->dtype, in->rank, dims);
}

static uint64_t seed_of(const struct trial *t, uint32_t i)
{
    return hash_bytes(t->c->name, strlen(t->c->name)).lo + i;
}

static bool is_half(enum precision p)
{
    return p == PRECISION_BF16 || p == PRECISION_FP16;
}

static bool is_product(const struct op_case *c)
{
    return c->op == OP_Conv || c->op == OP_Gemm || c->op == OP_MatMul;
}

/* What is no product has operands of 16 bits: what rounding those does to softmax, or to a large
 * number of which a mean is taken, is not the kernel's. */
static void in_half(const struct trial *t, struct tensor *x)
{
    float *data = x->data;

    if (!is_half(t->precision) || is_product(t->c) || x->dtype != DT_FP32)
        return;
    for (size_t k = 0; k < x->bytes / sizeof(float); k++)
        data[k] =
            t->precision == PRECISION_FP16 ? fp16_to(fp16_fit(data[k])) : bf16_to(bf16_of(data[k]));
}

/* Input i as a constant or as an input of the graph; its data comes now or with the run. */
static int add_input(struct trial *t, uint32_t i)
{
    const struct case_input *in = &t->in[i];
    char name[16];
    int r;

    (void)snprintf(name, sizeof(name), "in%u", i);
    if (in->dtype == DT_NONE)
        return 0;
    if (in->constant) {
        if ((r = shape_at(in, 0, &t->t[i])) < 0)
            return r;
        t->t[i].data = arena_alloc(&t->g->arena, t->t[i].bytes + 1);
        if (!t->t[i].data)
            return -ENOMEM;
        case_fill(in, seed_of(t, i), &t->t[i]);
        in_half(t, &t->t[i]);
        return graph_add_const(t->g, name, &t->t[i], CONST_ARENA, &t->value[i]);
    }
    r = graph_add_value(t->g, name, in->dtype, (int32_t)in->rank, in->dims, &t->value[i]);
    if (r == 0)
        t->g->in[t->g->n_in++] = t->value[i];
    return r;
}

/* The operand of post step p has the shape of the node's first output, which is inferred. */
static int add_operand(struct trial *t, uint32_t p, const struct value *like)
{
    char name[16];

    (void)snprintf(name, sizeof(name), "add%u", p);
    int r =
        graph_add_value(t->g, name, like->dtype, like->rank, like->dims, &t->value[t->n_in + p]);
    if (r == 0) {
        t->g->nodes[t->node].post[p].value = t->value[t->n_in + p];
        t->g->in[t->g->n_in++] = t->value[t->n_in + p];
    }
    return r;
}

static int add_node(struct trial *t, struct err *err)
{
    uint32_t in[CASE_MAX_IN];
    char name[16];
    int r = 0;

    memcpy(in, t->value, sizeof(in));
    in[0] = t->first = case_before(t->c, t->g, t->value[0]);

    t->n_out = MAX(1, t->c->n_out);
    for (uint32_t i = 0; i < t->n_out && r == 0; i++) {
        (void)snprintf(name, sizeof(name), "out%u", i);
        r = graph_add_value(t->g, name, DT_NONE, -1, NULL, &t->out[i]);
        t->g->out[t->g->n_out++] = t->out[i];
    }
    if (r == 0)
        r = graph_add_node(t->g, "case", t->c->op, t->n_in, in, t->n_out, t->out, &t->node);
    if (r < 0)
        return err_set(err, r, "building the graph failed");
    case_attrs(t->c, t->g, t->node);
    if ((r = graph_infer(t->g, err)) < 0)
        return r;
    t->n_post = case_posts(t->c, t->post);
    struct node *n = &t->g->nodes[t->node];
    n->n_post = t->n_post;
    memcpy(n->post, t->post, sizeof(n->post));
    for (uint32_t p = 0; p < t->n_post && r == 0; p++)
        if (n->post[p].kind == POST_ADD) {
            struct value like = t->g->values[t->out[0]]; /* the array may move */
            r = add_operand(t, p, &like);
        }
    return r < 0 ? err_set(err, r, "building the graph failed") : 0;
}

static int build(struct trial *t, struct err *err)
{
    struct shape_key key = {.n = 0};
    int r = 0;
    int32_t sym;

    for (uint32_t i = 0; i < ARRAY_SIZE(t->value); i++)
        t->value[i] = VALUE_NONE; /* a post step without operand has none */
    t->g = graph_new(t->c->opset);
    arena_init(&t->arena);
    t->n_in = case_inputs(t->c, t->in);
    if (!t->g)
        return err_set(err, -ENOMEM, "out of memory");
    if (t->batch) {
        r = graph_add_sym(t->g, "batch", &sym);
        t->g->batch_sym = 0;
        key = (struct shape_key){.n = 1, .dim = {t->batch}};
    }
    for (uint32_t i = 0; i < t->n_in && r == 0; i++)
        r = add_input(t, i);
    if (r < 0)
        return err_set(err, r, "building the graph failed");
    if ((r = add_node(t, err)) < 0 || (r = graph_cut(t->g, err)) < 0)
        return r;
    return graph_bind(t->g, &key, &t->arena, &t->b, err);
}

/* ---- data */
static int region_take(struct bench *b, size_t bytes, void **ret)
{
    size_t need = align_up(bytes, 64) + GUARD_BYTES;

    if (need > b->region.bytes - b->used)
        return -ENOMEM;
    *ret = (char *)b->region.base + b->used;
    b->used += need;
    return 0;
}

/* Data of the graph's inputs in the region, and room for two results. */
static int place(struct trial *t, struct bench *bench, struct err *err)
{
    int r = 0;

    bench->used = 0;
    for (uint32_t i = 0; i < t->n_in + t->n_post && r == 0; i++) {
        if (t->value[i] == VALUE_NONE || t->t[i].data)
            continue;
        t->t[i] = t->b->value[t->value[i]];
        r = region_take(bench, t->t[i].bytes, &t->t[i].data);
        if (r == 0 && i < t->n_in)
            case_fill(&t->in[i], seed_of(t, i), &t->t[i]);
        else if (r == 0)
            case_fill_range(&t->t[i], -1, 1, seed_of(t, i));
        if (r == 0)
            in_half(t, &t->t[i]);
    }
    for (uint32_t i = 0; i < t->n_out && r == 0; i++) {
        t->want[i] = t->got[0][i] = t->got[1][i] = t->b->value[t->out[i]];
        t->want[i].data = arena_alloc(&t->arena, t->want[i].bytes + 1);
        for (unsigned k = 0; k < 2 && r == 0; k++)
            r = region_take(bench, t->want[i].bytes, &t->got[k][i].data);
        r = r == 0 && !t->want[i].data ? -ENOMEM : r;
    }
    return r < 0 ? err_set(err, r, "the case is too large for the test's memory") : 0;
}

/* What the output is a sum of: the same node on magnitudes, and its residuals. */
static int magnitudes(struct trial *t, const struct tensor *const *in, struct err *err)
{
    struct tensor all[CASE_MAX_IN], y = t->want[0], *out = &y;
    const struct tensor *abs[CASE_MAX_IN] = {NULL};
    struct node n = t->g->nodes[t->node];
    size_t count = y.bytes / sizeof(float);

    for (uint32_t i = 0; i < t->n_in; i++) {
        if (!in[i])
            continue;
        all[i] = *in[i];
        float *x = all[i].data = arena_memdup(&t->arena, in[i]->data, in[i]->bytes);
        for (size_t k = 0; x && k < in[i]->bytes / sizeof(float); k++)
            x[k] = fabsf(x[k]);
        abs[i] = &all[i];
    }
    n.n_post = 0;
    y.data = arena_alloc(&t->arena, y.bytes + 1);
    t->sums = ARENA_ARRAY(&t->arena, double, count + 1);
    if (!y.data || !t->sums)
        return err_set(err, -ENOMEM, "out of memory");
    int r = ref_run(&n, abs, NULL, &out, err);
    for (size_t k = 0; k < count && r == 0; k++) {
        t->sums[k] = (double)((float *)y.data)[k];
        for (uint32_t p = 0; p < t->n_post; p++)
            if (t->value[t->n_in + p] != VALUE_NONE)
                t->sums[k] += fabs((double)((float *)t->t[t->n_in + p].data)[k]);
    }
    return r;
}

/* What the node reads of the first input.  The backend must not know the values: they are kept
 * apart. */
static int before(struct trial *t, const struct tensor **ret, struct err *err)
{
    const struct graph *g = t->g;
    struct tensor *v = arena_memdup(&t->arena, t->b->value, g->n_values * sizeof(*v));
    int r = v ? 0 : err_set(err, -ENOMEM, "out of memory");

    if (r == 0 && t->value[0] != VALUE_NONE)
        v[t->value[0]] = t->t[0];
    for (uint32_t i = 0; i < t->node && r == 0; i++) {
        const struct node *n = &g->nodes[i];
        const struct tensor *in[] = {&v[n->in[0]], n->n_in > 1 ? &v[n->in[1]] : NULL};
        struct tensor *out = &v[n->out[0]];
        out->data = arena_alloc(&t->arena, out->bytes + 1);
        r = out->data ? ref_run(n, in, NULL, &out, err) : err_set(err, -ENOMEM, "out of memory");
    }
    *ret = t->value[0] == VALUE_NONE || r < 0 ? NULL : &v[t->first];
    return r;
}

static int reference(struct trial *t, struct err *err)
{
    const struct tensor *in[CASE_MAX_IN], *add[MAX_POST];
    struct tensor *out[CASE_MAX_OUT];
    int r;

    for (uint32_t i = 0; i < t->n_in; i++)
        in[i] = t->value[i] == VALUE_NONE ? NULL : &t->t[i];
    for (uint32_t p = 0; p < t->n_post; p++)
        add[p] = t->value[t->n_in + p] == VALUE_NONE ? NULL : &t->t[t->n_in + p];
    for (uint32_t i = 0; i < t->n_out; i++)
        out[i] = &t->want[i];
    if (t->c->before && (r = before(t, &in[0], err)) < 0)
        return r;
    r = ref_run(&t->g->nodes[t->node], in, add, out, err);
    return r < 0 || !is_half(t->precision) || !is_product(t->c) ? r : magnitudes(t, in, err);
}

/* ---- running */
static int wait_for(struct bench *b, ticket want, struct err *err)
{
    usec_t until = clock_now_us() + WAIT_US;
    struct done done;

    while (clock_now_us() < until)
        if (b->be->wait(b->part, until, &done, 1) == 1 && done.ticket == want)
            return done.rc == 0 ? 0 : err_set(err, done.rc, "the run failed");
    return err_set(err, -ETIMEDOUT, "the run did not end");
}

/* Rows [0, split) and the rest as two requests; split 0: one request. */
static int run(struct trial *t, struct bench *b, int64_t split, unsigned k, struct err *err)
{
    const void *in[2][CASE_MAX_IN + MAX_POST];
    void *out[2][CASE_MAX_OUT];
    struct io_part part[2] = {
        {.rows = (uint32_t)(split ? split : MAX(1, t->batch)), .in = in[0], .out = out[0]},
        {.rows = (uint32_t)(t->batch - split), .in = in[1], .out = out[1]}};
    struct io io = {.n_parts = split ? 2 : 1, .part = part};
    struct exe_info info;
    uint32_t at = 0;
    ticket run_id;

    for (uint32_t i = 0; i < t->n_in + t->n_post; i++) {
        if (t->value[i] == VALUE_NONE || (i < t->n_in && t->in[i].constant))
            continue;
        size_t skip = split ? t->t[i].bytes / (size_t)t->batch * (size_t)split : 0;
        bool rows = i >= t->n_in || has_batch(&t->in[i]);
        in[0][at] = t->t[i].data;
        in[1][at++] = (const char *)t->t[i].data + (rows ? skip : 0);
    }
    for (uint32_t i = 0; i < t->n_out; i++) {
        struct tensor *y = &t->got[k][i];
        size_t skip = split ? y->bytes / (size_t)t->batch * (size_t)split : 0;
        memset(y->data, GUARD, align_up(y->bytes, 64) + GUARD_BYTES);
        out[0][i] = y->data;
        out[1][i] = (char *)y->data + skip;
    }
    b->be->exe_info(t->exe, &info);
    int r = b->be->submit(t->slot, 0, 0, info.n_segments, &io, &run_id);
    return r < 0 ? err_set(err, r, "submit() failed") : wait_for(b, run_id, err);
}

/* A number of BF16 has 8 bits: rounding is off by 2^-8 of it at most, half of that in the mean.
 * Both factors of each product and the result are rounded, and the steepest activation (HardSwish)
 * makes 1.5 of an error: less than 5 * 2^-9 of the sum of the magnitudes.  A number of FP16 has 11
 * bits. */
#define BF16_TOL (5.0 / 512)
#define FP16_TOL (5.0 / 4096)

/* What is no sum of products: by the largest magnitude. */
#define MOST_TOL 1e-2

static double off_by_most(const struct tensor *got, const struct tensor *want)
{
    const float *x = got->data, *y = want->data;
    double most = 0, worst = 0;

    if (want->dtype != DT_FP32)
        return case_difference(got, want) / CASE_TOL;
    for (size_t k = 0; k < want->bytes / sizeof(float); k++)
        most = isfinite(y[k]) ? fmax(most, fabs((double)y[k])) : most;
    for (size_t k = 0; k < want->bytes / sizeof(float); k++) {
        double d = x[k] == y[k] || (isnan(x[k]) && isnan(y[k])) ? 0 : fabs((double)(x[k] - y[k]));
        worst = isnan(d) ? (double)INFINITY : fmax(worst, d / (MOST_TOL * most + CASE_TOL));
    }
    return worst;
}

/* How far off, in what the precision allows. */
static double off_by(const struct trial *t, const struct tensor *got, uint32_t i)
{
    const struct tensor *want = &t->want[i];
    double worst = 0, tol = t->precision == PRECISION_FP16 ? FP16_TOL : BF16_TOL;

    if (t->precision == PRECISION_FP32)
        return case_difference(got, want) / (t->c->tol > 0 ? t->c->tol : CASE_TOL);
    if (got->dtype != want->dtype || got->bytes != want->bytes)
        return (double)INFINITY;
    for (size_t k = 0; t->precision == PRECISION_INT8 && k < want->bytes; k++) {
        bool sign = want->dtype == DT_INT8; /* one quantum: the scale is rounded in another order */
        int a = sign ? ((int8_t *)got->data)[k] : ((uint8_t *)got->data)[k];
        int b = sign ? ((int8_t *)want->data)[k] : ((uint8_t *)want->data)[k];
        worst = fmax(worst, abs(a - b));
    }
    if (is_half(t->precision) && !t->sums)
        return off_by_most(got, want);
    for (size_t k = 0; is_half(t->precision) && k < want->bytes / sizeof(float); k++) {
        double a = (double)((float *)got->data)[k], b = (double)((float *)want->data)[k];
        double d = fabs(a - b) / (tol * t->sums[k] + CASE_TOL);
        worst = isnan(d) ? (double)INFINITY : fmax(worst, d);
    }
    return worst;
}

static int compare(const struct trial *t, unsigned k, const char *what, struct err *err)
{
    for (uint32_t i = 0; i < t->n_out; i++) {
        const struct tensor *y = &t->got[k][i];
        double d = off_by(t, y, i);
        if (verbose)
            printf("# %s, batch %lld, output %u: off by %.2g of the limit\n", what,
                   (long long)t->batch, i, d);
        if (!(d <= 1))
            return err_set(err, -ERANGE, "%s, batch %lld, output %u: off by %.3g of the limit",
                           what, (long long)t->batch, i, d);
        for (const uint8_t *g = (const uint8_t *)y->data + y->bytes,
                           *end = (const uint8_t *)y->data + align_up(y->bytes, 64) + GUARD_BYTES;
             g < end; g++)
            if (*g != GUARD)
                return err_set(err, -ERANGE, "%s: output %u was written beyond its end", what, i);
    }
    return 0;
}

static int check_twice(struct trial *t, struct bench *b, struct err *err)
{
    int r = run(t, b, 0, 0, err);

    if (r < 0 || (r = compare(t, 0, "one request", err)) < 0 || (r = run(t, b, 0, 1, err)) < 0)
        return r;
    for (uint32_t i = 0; i < t->n_out; i++)
        if (t->got[0][i].bytes &&
            memcmp(t->got[0][i].data, t->got[1][i].data, t->got[0][i].bytes) != 0)
            return err_set(err, -ERANGE, "output %u of a second run in the same slot differs", i);
    return 0;
}

static int check_joined(struct trial *t, struct bench *b, struct err *err)
{
    int r = t->batch > 1 ? run(t, b, 1, 1, err) : 0;

    return r < 0 || t->batch <= 1 ? r : compare(t, 1, "two requests", err);
}

/* The run ends with an error, and the partition is as good as before. */
static int check_fails(struct trial *t, struct bench *b, struct err *err)
{
    int r = run(t, b, 0, 0, err);

    if (r == 0 || r == -ETIMEDOUT)
        return err_set(err, -ERANGE, "the run ended with %d, not with an error of its own", r);
    return b->be->fault(b->part) == FAULT_NONE ? 0 : err_set(err, -ERANGE, "the partition is lost");
}

static int trial_run(struct trial *t, struct bench *b, struct exe_info *ret, struct err *err)
{
    struct compile_args args = {.model = t->c->name, .precision = t->precision};
    int r = build(t, err);

    if (r == 0 && (r = place(t, b, err)) == 0)
        r = reference(t, err);
    if (t->c->fails ? r != -EINVAL : r < 0) {
        (void)err_wrap(err, "before the backend: ");
        return -EPROTO; /* whatever it was: no refusal by the backend */
    }
    args.bound = t->b;
    if ((r = b->be->compile(b->part, &args, &t->exe, err)) < 0 ||
        (r = b->be->slot_open(t->exe, &t->slot, err)) < 0)
        return r;
    if (t->c->fails)
        return check_fails(t, b, err);
    b->be->exe_info(t->exe, ret);
    r = check_twice(t, b, err);
    return r < 0 ? r : check_joined(t, b, err);
}

static int case_run(const struct op_case *c, enum precision precision, int64_t batch,
                    struct bench *b, struct exe_info *ret, struct err *err)
{
    struct trial t = {.c = c, .batch = batch, .precision = precision};
    int r = trial_run(&t, b, ret, err);

    if (t.slot)
        b->be->slot_close(t.slot);
    if (t.exe)
        b->be->release(t.exe);
    arena_done(&t.arena);
    graph_free(t.g);
    return r;
}

/* ---- cases and backends */
static bool refused(const struct backend *be, const struct op_case *c)
{
    for (size_t i = 0; i < n_refusals; i++)
        if (STREQ(refusals[i].backend, be->name) &&
            (refusals[i].name ? STREQ(refusals[i].name, c->name) : refusals[i].op == c->op))
            return true;
    return false;
}

static const char *remark(const struct backend *be, const struct exe_info *info,
                          enum precision precision)
{
    return info->n_plain && STREQ(be->name, "cuda") ? "plain kernels"
           : info->n_plain                          ? "plain loops: only how they are called"
           : precision != PRECISION_FP32 && info->n_asked == 0 ? "it stays in fp32"
                                                               : NULL;
}

static void label(const struct op_case *c, enum precision p, const struct bench *b, char ret[200])
{
    bool plain = p == PRECISION_FP32;

    (void)snprintf(ret, 200, "%s on %s%s%s", c->name, b->be->name, plain ? "" : " in ",
                   plain ? "" : precision_name(p));
}

/* Named on the command line, or not left out there. */
static bool wanted(const struct op_case *c, const char *name)
{
    char line[202];

    (void)snprintf(line, sizeof(line), "\n%s\n", name);
    return (!only || strstr(c->name, only)) && (!skipped || !strstr(skipped, line));
}

static bool case_check(const struct op_case *c, enum precision precision, const char *name,
                       struct bench *b)
{
    struct case_input in[CASE_MAX_IN];
    uint32_t n_in = case_inputs(c, in);
    bool refuses = refused(b->be, c);
    struct exe_info info = {0};
    bool batches = false;
    struct err err = {0};

    for (uint32_t i = 0; i < n_in; i++)
        batches |= has_batch(&in[i]);
    int r = case_run(c, precision, batches ? 1 : 0, b, &info, &err);
    if (r == 0 && batches)
        r = case_run(c, precision, 3, b, &info, &err);
    bool good = refuses ? r == -ENOTSUP : r == 0;
    const char *what = good && refuses ? "refused: "
                       : r < 0         ? ""
                       : !good         ? "it works now: take it off the refusals"
                                       : remark(b->be, &info, precision);
    printf("%s - %s\n", good ? "ok" : "not ok", name);
    if (what)
        printf("#   %s%s\n", what, r < 0 ? err.msg : "");
    fflush(stdout);
    return good;
}

static int bench_open(struct bench *b, const char *name, struct err *err)
{
    struct backend_config cfg = {0};
    struct device_info info[4];
    struct granules all = {0};
    size_t n;
    uint32_t units;
    int r = backend_find(name, &b->be, err);

    if (r < 0 || (r = b->be->devices(&cfg, info, ARRAY_SIZE(info), &n, err)) < 0 ||
        (r = b->be->dev_open(&cfg, 0, &b->dev, err)) < 0)
        return r;
    b->region =
        (struct host_region){.memfd = memfd_create("test-ops", MFD_CLOEXEC), .bytes = REGION_BYTES};
    if (b->region.memfd < 0 || ftruncate(b->region.memfd, REGION_BYTES) < 0)
        return err_set(err, -errno, "memfd: %s", strerror(errno));
    b->region.base =
        mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, b->region.memfd, 0);
    if (b->region.base == MAP_FAILED)
        return err_set(err, -errno, "mmap: %s", strerror(errno));
    if ((r = b->be->host_open(b->dev, &b->region, err)) < 0)
        return r;
    for (unsigned i = 0; i < info[0].n_granules; i++)
        granules_add(&all, i);
    if ((r = b->be->part_open(b->dev, &all, &b->part, &units, err)) < 0)
        return r;
    b->be->part_enter(b->part);
    return 0;
}

static void bench_close(struct bench *b)
{
    b->be->part_close(b->part);
    b->be->host_close(b->dev, &b->region);
    (void)munmap(b->region.base, b->region.bytes);
    (void)close(b->region.memfd);
    b->be->dev_close(b->dev);
}

/* Which cases run in a precision. */
static bool is_of(const struct op_case *c, enum precision p, const struct backend *be)
{
    bool bytes = c->op == OP_QLinearConv || c->op == OP_QLinearMatMul || c->op == OP_QLinearAdd;
    bool floats = is_product(c) ? c->inputs[0] == 'f' || c->before
                                : STREQ(be->name, "cuda") && !refused(be, c);

    return p == PRECISION_FP32   ? true
           : p == PRECISION_INT8 ? bytes
                                 : floats && strchr(c->inputs, 'f') && !c->fails;
}

/* Of another than FP32 the backend may say that this machine lacks it. */
static bool has_precision(struct bench *b, enum precision p)
{
    static const struct op_case c = {
        .name = "precision", .op = OP_Gemm, .opset = 13, .inputs = "f[2,4] cf[4,4]"};
    struct exe_info info;
    struct err err = {0};

    if (p == PRECISION_FP32 || case_run(&c, p, 0, b, &info, &err) != -ENOTSUP)
        return true;
    if (!lists)
        printf("# not run on %s: %s\n", b->be->name, err.msg);
    return false;
}

/* How many cases failed. */
static unsigned backend_check(const char *name)
{
    struct bench b = {0};
    struct err err = {0};
    unsigned bad = 0;
    char what[200];

    if (bench_open(&b, name, &err) < 0) {
        printf("not ok - backend %s opens\n#   %s\n", name, err.msg);
        return 1;
    }
    for (enum precision p = PRECISION_FP32; p <= PRECISION_FP16; p++)
        for (size_t i = has_precision(&b, p) ? 0 : n_op_cases; i < n_op_cases; i++) {
            label(&op_cases[i], p, &b, what);
            if (!is_of(&op_cases[i], p, b.be) || !wanted(&op_cases[i], what))
                continue;
            if (lists)
                printf("%s\n", what);
            else if (b.be->fault(b.part) == FAULT_NONE) /* else nothing more could be right */
                bad += !case_check(&op_cases[i], p, what, &b);
        }
    bench_close(&b);
    return bad;
}

/* The whole file behind a newline. */
static const char *read_names(const char *path)
{
    char *text = malloc(NAMES_BYTES + 2);
    FILE *f = fopen(path, "r");

    if (!text || !f) {
        perror(path);
        exit(2);
    }
    text[0] = '\n';
    text[1 + fread(text + 1, 1, NAMES_BYTES, f)] = 0;
    (void)fclose(f);
    return text;
}

int main(int argc, char **argv)
{
    unsigned bad = 0;
    int opt;

    while ((opt = getopt(argc, argv, "vlk:s:")) != -1)
        switch (opt) {
        case 'v':
            verbose = true;
            break;
        case 'l':
            lists = true;
            break;
        case 's':
            skipped = read_names(optarg);
            break;
        case 'k':
            only = optarg;
            break;
        default:
            return 2;
        }
    if (optind == argc)
        bad = backend_check("cpu");
    for (int i = optind; i < argc; i++)
        bad += backend_check(argv[i]);
    return bad ? 1 : 0;
}
