/* The tests that come with ONNX (Debian: libonnx-testdata): each is a model of a few nodes with
 * inputs and the outputs they must give.
 *
 *     test_onnx_node [-v] [-b BACKEND] [-k PART-OF-NAME] [FOLDER...]
 *
 * Without a backend the file's graph is run node by node on the reference kernels; with one it is
 * opened, bound, compiled and run as a server would, from a copy of its folder.  A model with an
 * operator or type that we lack is refused and counted; any other error, and any wrong number,
 * fails.  -v says for each test how it went.  Without the package it says so and passes. */
#include "cases.h"
#include <dirent.h>
#include <fcntl.h>
#include <gpulet/backend.h>
#include <gpulet/clock.h>
#include <gpulet/model.h>
#include <kernels/ref/kit.h>
#include <lib/model/onnx.h>
#include <math.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA "/usr/share/libonnx-testdata/data"
#define LEAST_PASSED 870 /* of the package as it is; fewer means that something broke */
#define MAX_NAME 300

static const char *const folders[] = {DATA "/node", DATA "/simple", DATA "/pytorch-operator",
                                      DATA "/pytorch-converted"};

/* Tests that fail with another error than "not supported", on purpose. */
#define RANDOM "random numbers; no generator is prescribed"
#define TRAINING "a training operator; the model imports no opset of the default domain"
static const struct {
    const char *name, *why;
} known[] = {
    {"test_adagrad", TRAINING},
    {"test_adagrad_multiple", TRAINING},
    {"test_adam", TRAINING},
    {"test_adam_multiple", TRAINING},
    {"test_momentum", TRAINING},
    {"test_momentum_multiple", TRAINING},
    {"test_nesterov_momentum", TRAINING},
    {"test_bernoulli", RANDOM},
    {"test_bernoulli_double", RANDOM},
    {"test_bernoulli_double_expanded", RANDOM},
    {"test_bernoulli_expanded", RANDOM},
    {"test_bernoulli_seed", RANDOM},
    {"test_bernoulli_seed_expanded", RANDOM},
    {NULL, NULL}, /* ends the list */
};

/* What ONNX's own runner allows; of BF16 two units in the last place. */
#define RTOL 1e-3
#define ATOL 1e-7
#define RTOL_BF16 0x1p-6
#define WAIT_US (60 * USEC_PER_SEC)

static const char *only;
static bool verbose;
static unsigned n_passed, n_refused, n_known, n_failed;

static const struct backend *be; /* NULL: the reference kernels */
static struct device *dev;
static struct part *part;
static char scratch[] = "/tmp/gpulet-test-onnx-XXXXXX"; /* where a model is opened */

struct model_test {
    char dir[MAX_NAME];
    const char *name;
    unsigned set; /* of test data */
    struct graph *g;
    struct tensor *value;     /* by id */
    struct tensor in[MAX_IO]; /* by input */
    struct tensor out[MAX_IO];
    struct err err;
};

/* ---- files; mappings live until the program ends */
static int map_file(const char *path, struct mapping *ret, struct err *err)
{
    struct stat st;
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(err, -ENOENT, "%s: %s", path, strerror(errno));
    ret->bytes = (size_t)st.st_size;
    ret->base = st.st_size ? mmap(NULL, ret->bytes, PROT_READ, MAP_PRIVATE, fd, 0) : "";
    return ret->base == MAP_FAILED ? err_set(err, -ENOMEM, "%s: %s", path, strerror(errno)) : 0;
}

/* "input_0.pb": a tensor as a message of its own.  BF16 is written as UINT16 there. */
static int read_tensor(struct model_test *t, const char *kind, uint32_t i, enum dtype dtype,
                       struct tensor *ret)
{
    char path[MAX_NAME + 64];
    struct read_tensor one;
    struct reader *r = ARENA_NEW(&t->g->arena, struct reader);

    if (!r)
        return -ENOMEM;
    r->g = t->g;
    r->err = &t->err;
    (void)snprintf(path, sizeof(path), "%s/test_data_set_%u/%s_%u.pb", t->dir, t->set, kind, i);
    int rc = map_file(path, &r->file, &t->err);
    if (rc == 0)
        rc = onnx_tensor(r, pb_of(r->file.base, r->file.bytes), path, &one);
    if (rc < 0)
        return rc;
    *ret = one.t;
    if (dtype == DT_BF16 && ret->dtype == DT_UINT16)
        ret->dtype = dtype;
    return 0;
}

/* In some tests the data of an input of which only the type is read (CastLike's second) has another
 * shape than the model declares: a server would refuse it.  They get zeros as declared. */
static int suit_input(struct model_test *t, const struct value *v, struct tensor *in)
{
    int64_t dims[MAX_RANK];
    bool same = v->rank == (int32_t)in->rank && v->dtype == in->dtype;

    for (int32_t d = 0; d < v->rank; d++) {
        if (v->dims[d].sym != SYM_CONST)
            return 0;
        dims[d] = v->dims[d].scale;
        same = same && dims[d] == in->dims[d];
    }
    if (same || v->rank < 0 || tensor_shape(in, v->dtype, (uint32_t)v->rank, dims) < 0)
        return 0;
    in->data = arena_alloc(&t->g->arena, in->bytes);
    return in->data ? 0 : -ENOMEM;
}

static int read_inputs(struct model_test *t, const struct graph *g)
{
    int r = 0;

    for (uint32_t i = 0; i < g->n_in && r == 0; i++) {
        const struct value *v = &g->values[g->in[i]];
        r = read_tensor(t, "input", i, v->dtype, &t->in[i]);
        if (r == 0)
            r = suit_input(t, v, &t->in[i]);
    }
    return r;
}

/* ---- comparing */
static double number(const struct tensor *t, int64_t i)
{
    return num_cast(num_get(t, i), ref_kind(t->dtype), KIND_FLOAT).f;
}

static bool is_close(double got, double want, double rtol)
{
    if (isnan(want) || isinf(want))
        return isnan(want) ? isnan(got) : got == want;
    return fabs(got - want) <= ATOL + rtol * fabs(want);
}

static int compare(struct model_test *t, uint32_t i, const struct tensor *got,
                   const struct tensor *want)
{
    double rtol = want->dtype == DT_BF16 ? RTOL_BF16 : RTOL;
    char a[96], b[96];

    if (got->dtype != want->dtype || got->rank != want->rank ||
        memcmp(got->dims, want->dims, want->rank * sizeof(want->dims[0])) != 0)
        return err_set(&t->err, -ERANGE, "output %u is %s %s, not %s %s", i, dtype_name(got->dtype),
                       dims_print(got->rank, got->dims, a, sizeof(a)), dtype_name(want->dtype),
                       dims_print(want->rank, want->dims, b, sizeof(b)));
    if (want->dtype == DT_STRING) {
        bool same = got->bytes == want->bytes &&
                    (!want->bytes || memcmp(got->data, want->data, want->bytes) == 0);
        return same ? 0 : err_set(&t->err, -ERANGE, "output %u holds other strings", i);
    }
    for (int64_t k = 0; k < ref_count(want); k++)
        if (!is_close(number(got, k), number(want, k), rtol))
            return err_set(&t->err, -ERANGE, "output %u, element %lld is %g, not %g", i,
                           (long long)k, number(got, k), number(want, k));
    return 0;
}

static int check_outputs(struct model_test *t, const struct graph *g)
{
    struct tensor want;
    int r = 0;

    for (uint32_t i = 0; i < g->n_out && r == 0; i++) {
        r = read_tensor(t, "output", i, t->out[i].dtype, &want);
        if (r == 0)
            r = compare(t, i, &t->out[i], &want);
    }
    return r;
}

/* ---- on the reference kernels */
static int run_reference(struct model_test *t)
{
    struct graph *g = t->g;
    struct graph_run run = {.graph = g, .arena = &g->arena};

    run.value = t->value = ARENA_ARRAY(&g->arena, struct tensor, g->n_values + 1);
    if (!t->value)
        return -ENOMEM;
    for (uint32_t i = 0; i < g->n_in; i++)
        t->value[g->in[i]] = t->in[i];
    int r = graph_run(&run, &t->err);
    for (uint32_t i = 0; i < g->n_out && r == 0; i++) {
        const struct constant *c = g->values[g->out[i]].constant;
        t->out[i] = c ? c->t : t->value[g->out[i]];
    }
    return r;
}

/* ---- on a backend, as a server does it */
static int copy_file(const char *from, const char *to, struct err *err)
{
    struct mapping m;
    int r = map_file(from, &m, err);
    FILE *f = r == 0 ? fopen(to, "w") : NULL;

    if (r < 0)
        return r;
    bool ok = f && fwrite(m.base, 1, m.bytes, f) == m.bytes;
    ok = f && fclose(f) == 0 && ok;
    return ok ? 0 : err_set(err, -EIO, "%s cannot be written", to);
}

/* A folder of its own, as model_open() writes into it. */
static int open_copy(struct model_test *t, struct model **ret)
{
    char from[MAX_NAME + 64], to[MAX_NAME + 64], prepared[MAX_NAME + 64];

    (void)snprintf(from, sizeof(from), "%s/model.onnx", t->dir);
    (void)snprintf(to, sizeof(to), "%s/model.onnx", scratch);
    (void)snprintf(prepared, sizeof(prepared), "%s/" PREPARED_FILE, scratch);
    (void)unlink(prepared);
    int r = copy_file(from, to, &t->err);
    return r < 0 ? r : model_open(scratch, NULL, PRECISION_FP32, ret, &t->err);
}

/* The numbers of the free dimensions, from the inputs' shapes. */
static int key_of(struct model_test *t, const struct graph *g, struct shape_key *ret)
{
    *ret = (struct shape_key){.n = g->n_syms};
    for (uint32_t i = 0; i < g->n_in; i++) {
        const struct value *v = &g->values[g->in[i]];
        if (v->rank != (int32_t)t->in[i].rank || v->dtype != t->in[i].dtype)
            return err_set(&t->err, -EINVAL, "input %u has another rank or type than the model", i);
        for (int32_t d = 0; d < v->rank; d++) {
            if (v->dims[d].sym >= 0)
                ret->dim[v->dims[d].sym] = t->in[i].dims[d];
            else if (v->dims[d].scale != t->in[i].dims[d])
                return err_set(&t->err, -EINVAL, "input %u has another shape than the model", i);
        }
    }
    return 0;
}

static int wait_for(struct model_test *t, ticket want)
{
    usec_t until = clock_now_us() + WAIT_US;
    struct done done;

    while (clock_now_us() < until)
        if (be->wait(part, until, &done, 1) == 1 && done.ticket == want)
            return done.rc == 0 ? 0 : err_set(&t->err, done.rc, "the run failed");
    return err_set(&t->err, -ETIMEDOUT, "the run did not end");
}

static int run_slot(struct model_test *t, const struct bound *b, struct exe *x, struct slot *s)
{
    const struct graph *g = b->graph;
    const void *in[MAX_IO];
    void *out[MAX_IO];
    struct io_part rows = {.rows = 1, .in = in, .out = out};
    struct io io = {.n_parts = 1, .part = &rows};
    struct exe_info info;
    ticket id;

    be->exe_info(x, &info);
    for (uint32_t i = 0; i < g->n_in; i++)
        in[i] = t->in[i].data;
    if (g->batch_sym >= 0)
        rows.rows = (uint32_t)b->key.dim[g->batch_sym];
    for (uint32_t i = 0; i < g->n_out && !info.late_outputs; i++) {
        t->out[i] = b->value[g->out[i]];
        t->out[i].data = out[i] = arena_alloc(&t->g->arena, t->out[i].bytes + 64);
        if (!out[i])
            return -ENOMEM;
    }
    int r = be->submit(s, 0, 0, info.n_segments, &io, &id);
    r = r < 0 ? err_set(&t->err, r, "the run was not taken") : wait_for(t, id);
    if (r == 0 && info.late_outputs)
        be->outputs(s, t->out);
    return r < 0 ? r : check_outputs(t, g);
}

static int run_bound(struct model_test *t, const struct bound *b)
{
    struct compile_args args = {.model = t->name, .bound = b};
    struct exe *x = NULL;
    struct slot *s = NULL;
    uint64_t ns;
    int r = be->compile(part, &args, &x, &t->err);

    if (r < 0)
        return r;
    r = be->slot_open(x, &s, &t->err);
    struct exe_info info;
    be->exe_info(x, &info);
    if (r == 0)
        r = be->probe(s, 0, info.n_segments, 1, &ns, &t->err);
    if (r == 0)
        r = run_slot(t, b, x, s);
    if (s)
        be->slot_close(s);
    be->release(x);
    return r;
}

static int run_backend(struct model_test *t)
{
    AUTO(model_free) struct model *m = NULL;
    struct shape_key key;
    struct bound *b;
    struct arena a;
    int r = open_copy(t, &m);

    if (r < 0 || (r = read_inputs(t, model_graph(m))) < 0 ||
        (r = key_of(t, model_graph(m), &key)) < 0)
        return r;
    arena_init(&a);
    r = graph_bind(model_graph(m), &key, &a, &b, &t->err);
    if (r == 0)
        r = run_bound(t, b);
    arena_done(&a);
    return r;
}

static int run_set(struct model_test *t)
{
    if (be)
        return run_backend(t);
    int r = read_inputs(t, t->g);
    if (r == 0)
        r = run_reference(t);
    return r < 0 ? r : check_outputs(t, t->g);
}

static int run_model(struct model_test *t)
{
    char path[MAX_NAME + 64];
    struct mapping file, *ext;
    uint32_t n_ext;
    int r;

    (void)snprintf(path, sizeof(path), "%s/model.onnx", t->dir);
    if ((r = map_file(path, &file, &t->err)) < 0 ||
        (r = onnx_read(&file, t->dir, NULL, &t->g, &ext, &n_ext, &t->err)) < 0)
        return r;
    do {
        r = run_set(t);
        (void)snprintf(path, sizeof(path), "%s/test_data_set_%u", t->dir, ++t->set);
    } while (r == 0 && access(path, F_OK) == 0);
    return r;
}

static const char *known_reason(const char *name)
{
    for (size_t i = 0; known[i].name; i++)
        if (STREQ(known[i].name, name))
            return known[i].why;
    return NULL;
}

static void test_one(const char *folder, const char *name)
{
    struct model_test t = {.name = name};
    const char *why = known_reason(name);

    (void)snprintf(t.dir, sizeof(t.dir), "%s/%s", folder, name);
    int r = run_model(&t);
    if (r == 0 && !why) {
        n_passed++;
        if (verbose)
            printf("# passed: %s\n", name);
    } else if (r == -ENOTSUP) {
        n_refused++;
        if (verbose)
            printf("# refused: %s: %s\n", name, t.err.msg);
    } else if (r < 0 && why) {
        n_known++;
        if (verbose)
            printf("# refused: %s: %s\n", name, why);
    } else {
        n_failed++;
        printf("# failed: %s: %s\n", name,
               r < 0 ? t.err.msg : "it passes now: take it off the list");
    }
    graph_free(t.g);
}

static void test_folder(const char *folder)
{
    struct dirent **list;
    int n = scandir(folder, &list, NULL, alphasort);

    for (int i = 0; i < n; i++) {
        if (list[i]->d_name[0] != '.' && (!only || strstr(list[i]->d_name, only)))
            test_one(folder, list[i]->d_name);
        free(list[i]);
    }
    if (n >= 0)
        free(list);
}

static void backend_open(const char *name)
{
    struct backend_config cfg = {0};
    struct device_info info[4];
    struct granules all = {0};
    struct err err = {0};
    uint32_t units;
    size_t n;

    if (backend_find(name, &be, &err) < 0 || be->devices(&cfg, info, 4, &n, &err) < 0 ||
        be->dev_open(&cfg, 0, &dev, &err) < 0) {
        printf("not ok - backend %s opens: %s\n", name, err.msg);
        exit(1);
    }
    granules_add(&all, 0);
    if (be->part_open(dev, &all, &part, &units, &err) < 0 || !mkdtemp(scratch)) {
        printf("not ok - backend %s has a partition: %s\n", name, err.msg);
        exit(1);
    }
    be->part_enter(part);
}

static void backend_close(void)
{
    static const char *const files[] = {MODEL_FILE, PREPARED_FILE};
    char path[sizeof(scratch) + 64];

    be->part_close(part);
    be->dev_close(dev);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", scratch, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(scratch);
}

int main(int argc, char **argv)
{
    int opt;

    while ((opt = getopt(argc, argv, "vb:k:")) != -1)
        switch (opt) {
        case 'v':
            verbose = true;
            break;
        case 'b':
            backend_open(optarg);
            break;
        case 'k':
            only = optarg;
            break;
        default:
            return 2;
        }
    if (optind == argc && access(folders[0], R_OK) < 0) {
        printf("ok - the ONNX tests are skipped: the package libonnx-testdata is not installed\n");
        return 0;
    }
    for (int i = optind; i < argc; i++)
        test_folder(argv[i]);
    for (size_t i = 0; optind == argc && i < ARRAY_SIZE(folders); i++)
        test_folder(folders[i]);
    if (be)
        backend_close();
    bool few = !only && optind == argc && n_passed < LEAST_PASSED;
    printf(
        "%s - of the ONNX tests %u pass, %u need what we lack, %u differ on purpose, %u fail%s\n",
        n_failed || few ? "not ok" : "ok", n_passed, n_refused, n_known, n_failed,
        few ? " (too few pass)" : "");
    return n_failed || few;
}
