/* Models on one backend against the cpu backend: the largest difference of each output, relative
 * to its largest magnitude.
 *
 *     compare [-p PRECISION] BACKEND BATCH MODEL-FOLDER...
 *
 * The cpu backend computes in fp32, the other one in fp32 or the precision that is named.
 *
 * A folder holds model.onnx; all free dimensions but the batch are 1.  Inputs are made up: floats
 * in [-1, 1), integers 0 or 1.  Outputs whose shapes only data can tell have the same ones.  Prints
 * "ok - " or "not ok - " a model, and what was found. */
#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/model.h>
#include <math.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define REGION_BYTES ((size_t)1 << 30)

static enum precision precision; /* of the backend that is compared */

/* A number in bf16 has 8 bits, one in fp16 has 11: it is rounded by 2^3 times as much. */
static double tolerance(void)
{
    const double fp16 = 1e-2;

    return precision == PRECISION_FP32 ? 1e-4 : precision == PRECISION_FP16 ? fp16 : 8 * fp16;
}

struct side {
    const struct backend *be;
    struct device *dev;
    struct part *part;
    void *out[MAX_IO];
    struct tensor got[MAX_IO]; /* the same, with their shapes */
};

static struct host_region region;
static size_t used, n_found;
static char found[4096];       /* of one model: what to say behind its verdict */
static struct exe_info counts; /* of what was run last */

static void *take(size_t bytes)
{
    void *p = (char *)region.base + used;

    used += align_up(bytes, 256);
    if (used > region.bytes) {
        printf("# more than %zu bytes of inputs and outputs\n", region.bytes);
        exit(1);
    }
    return p;
}

static int side_open(struct side *s, const char *name, struct err *err)
{
    struct backend_config cfg = {0};
    struct device_info info[8];
    struct granules set = {{0}};
    uint32_t units;
    size_t n;
    int r = backend_find(name, &s->be, err);

    if (r < 0 || (r = s->be->devices(&cfg, info, ARRAY_SIZE(info), &n, err)) < 0 ||
        (r = s->be->dev_open(&cfg, 0, &s->dev, err)) < 0 ||
        (r = s->be->host_open(s->dev, &region, err)) < 0)
        return r;
    for (unsigned i = 0; i < (info[0].max_granules ? 1 : info[0].n_granules); i++)
        granules_add(&set, i);
    return s->be->part_open(s->dev, &set, &s->part, &units, err);
}

/* Of shapes that the run has found: copied, as they go with the slot. */
static void keep_late(struct side *s, const struct slot *slot, uint32_t n_out)
{
    s->be->outputs(slot, s->got);
    for (uint32_t i = 0; i < n_out; i++) {
        void *own = take(s->got[i].bytes);
        memcpy(own, s->got[i].data, s->got[i].bytes);
        s->got[i].data = own;
    }
}

static void keep(struct side *s, const struct bound *b)
{
    for (uint32_t i = 0; i < b->graph->n_out; i++) {
        s->got[i] = b->value[b->graph->out[i]];
        s->got[i].data = s->out[i];
    }
}

static void made_up(const struct tensor *t, void *to, uint32_t seed)
{
    size_t size = dtype_size(t->dtype);

    for (size_t i = 0; size && i < t->bytes / size; i++) {
        uint32_t x = (uint32_t)(i + 1) * 2654435761u + seed * 40503u;
        if (t->dtype == DT_FP32)
            ((float *)to)[i] = (float)(x >> 8) / 8388608.f - 1;
        else if (t->dtype == DT_UINT8) /* of an image */
            ((uint8_t *)to)[i] = (uint8_t)(x >> 16);
        else
            ((char *)to)[i * size] = (char)(x >> 16 & 1); /* the rest is zero */
    }
}

static int run(struct side *s, const struct bound *b, const char *model, uint32_t rows,
               const void *const *in, struct err *err)
{
    bool is_cpu = STREQ(s->be->name, "cpu");
    struct compile_args args = {
        .model = model, .bound = b, .precision = is_cpu ? PRECISION_FP32 : precision};
    struct io_part part = {.rows = rows, .in = in, .out = s->out};
    struct io io = {.n_parts = 1, .part = &part};
    struct exe_info info;
    struct done done = {.rc = -EIO};
    struct exe *x = NULL;
    struct slot *slot = NULL;
    ticket t;
    int r = s->be->compile(s->part, &args, &x, err);

    if (r == 0)
        r = s->be->slot_open(x, &slot, err);
    if (r == 0) {
        s->be->exe_info(x, &info);
        counts = info;
        r = s->be->submit(slot, 0, 0, info.n_segments, &io, &t);
        while (r == 0 && s->be->wait(s->part, USEC_NEVER, &done, 1) == 0)
            ;
        r = r < 0         ? err_set(err, r, "submit() failed")
            : done.rc < 0 ? err_set(err, done.rc, "the run failed")
                          : 0;
    }
    if (r == 0 && info.late_outputs)
        keep_late(s, slot, b->graph->n_out);
    else if (r == 0)
        keep(s, b);
    if (slot)
        s->be->slot_close(slot);
    if (x)
        s->be->release(x);
    return r < 0 ? err_wrap(err, "%s: ", s->be->name) : 0;
}

/* Largest difference relative to the largest magnitude, *ret_top; other types and shapes: 0 or
 * infinity. */
static double difference(const struct tensor *a, const struct tensor *b, double *ret_top)
{
    double worst = 0, top = 0;

    *ret_top = 1;
    if (a->dtype != b->dtype || a->rank != b->rank ||
        memcmp(a->dims, b->dims, a->rank * sizeof(*a->dims)) != 0)
        return (double)INFINITY;
    if (a->dtype != DT_FP32)
        return memcmp(a->data, b->data, a->bytes) == 0 ? 0 : (double)INFINITY;
    for (size_t i = 0; i < a->bytes / sizeof(float); i++) {
        double x = (double)((const float *)a->data)[i], y = (double)((const float *)b->data)[i];
        double d = fabs(x - y);
        worst = isnan(d) ? (double)INFINITY : fmax(worst, d);
        top = fmax(top, fabs(y));
    }
    *ret_top = top;
    return worst > 0 ? worst / top : 0;
}

static int compare(struct side *side, const struct graph *g, const char *name, int64_t batch,
                   struct err *err)
{
    struct shape_key key = {.n = g->n_syms};
    const void *in[MAX_IO];
    struct arena a;
    struct bound *b;

    for (uint32_t i = 0; i < g->n_syms; i++)
        key.dim[i] = (int32_t)i == g->batch_sym ? batch : 1;
    arena_init(&a);
    int r = graph_bind(g, &key, &a, &b, err);
    for (uint32_t i = 0; i < g->n_in && r == 0; i++) {
        const struct tensor *t = &b->value[g->in[i]];
        void *to = take(t->bytes);
        memset(to, 0, t->bytes);
        made_up(t, to, i);
        in[i] = to;
    }
    for (unsigned s = 0; s < 2 && r == 0; s++) {
        for (uint32_t i = 0; i < g->n_out; i++)
            side[s].out[i] = take(b->value[g->out[i]].bytes);
        r = run(&side[s], b, name, (uint32_t)batch, in, err);
    }
    for (uint32_t i = 0; i < g->n_out && r == 0; i++) {
        const char *out = g->values[g->out[i]].name;
        double top, d = difference(&side[1].got[i], &side[0].got[i], &top);
        n_found += (size_t)snprintf(found + n_found, sizeof(found) - n_found,
                                    "#   output '%.40s': off by %.2g of %.3g\n", out, d, top);
        n_found = MIN(n_found, sizeof(found) - 1);
        if (!(top > 0 && top < INFINITY))
            r = err_set(err, -ERANGE, "output '%s' is nothing to compare: the largest is %g", out,
                        top);
        else if (!(d <= tolerance()))
            r = err_set(err, -ERANGE, "output '%s' differs by %.3g, the limit is %.1g", out, d,
                        tolerance());
    }
    if (precision != PRECISION_FP32 && n_found < sizeof(found))
        n_found +=
            (size_t)snprintf(found + n_found, sizeof(found) - n_found,
                             "#   %u steps, %u nodes in %s, %u conversions\n", counts.n_steps,
                             counts.n_asked, precision_name(precision), counts.n_reorders);
    n_found = MIN(n_found, sizeof(found) - 1);
    arena_done(&a);
    used = 0;
    return r;
}

int main(int argc, char **argv)
{
    struct side side[2];
    struct err err = {0};
    unsigned bad = 0;

    if (argc > 3 && STREQ(argv[1], "-p")) {
        if (precision_of(argv[2], &precision) < 0)
            return 2;
        argv += 2;
        argc -= 2;
    }
    if (argc < 4 || atoi(argv[2]) < 1)
        return 2;
    region = (struct host_region){.memfd = -1, .bytes = REGION_BYTES};
    region.base =
        mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (region.base == MAP_FAILED || side_open(&side[0], "cpu", &err) < 0 ||
        side_open(&side[1], argv[1], &err) < 0) {
        printf("not ok - backend %s opens: %s\n", argv[1], err.msg);
        return 1;
    }
    for (int i = 3; i < argc; i++) {
        struct model *m = NULL;
        usec_t start = clock_now_us();
        int r = model_open(argv[i], NULL, PRECISION_FP32, &m, &err);
        if (r == 0)
            r = compare(side, model_graph(m), argv[i], atoi(argv[2]), &err);
        printf("%s - %s on %s, batch %s%s%s\n%s#   %.1f s\n", r < 0 ? "not ok" : "ok", argv[i],
               argv[1], argv[2], precision == PRECISION_FP32 ? "" : ", ",
               precision == PRECISION_FP32 ? "" : precision_name(precision), found,
               (double)(clock_now_us() - start) / 1e6);
        if (r < 0)
            printf("#   %s\n", err.msg);
        fflush(stdout);
        found[n_found = 0] = 0;
        model_free(m);
        bad += r < 0;
    }
    for (unsigned s = 2; s-- > 0;) {
        side[s].be->part_close(side[s].part);
        side[s].be->host_close(side[s].dev, &region);
        side[s].be->dev_close(side[s].dev);
    }
    return bad ? 1 : 0;
}
