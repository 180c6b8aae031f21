/* The reference kernels against the tests that come with ONNX (Debian: libonnx-testdata): each is
 * a model of a few nodes with inputs and the outputs they must give.
 *
 *     test_onnx_node [-v] [-k PART-OF-NAME] [FOLDER...]
 *
 * A model with an operator or type that we lack is refused and counted; any other error, and any
 * wrong number, fails.  Without the package it says so and passes. */
#include "cases.h"
#include <dirent.h>
#include <fcntl.h>
#include <gpulet/model.h>
#include <kernels/ref/ref.h>
#include <lib/model/onnx.h>
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

static const char *only;
static bool verbose;
static unsigned n_passed, n_refused, n_known, n_failed;

struct model_test {
    char dir[MAX_NAME];
    const char *name;
    struct graph *g;
    struct tensor *value; /* by id */
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
    (void)snprintf(path, sizeof(path), "%s/test_data_set_0/%s_%u.pb", t->dir, kind, i);
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

/* ---- running */
static int check_outputs(struct model_test *t)
{
    struct tensor want;
    char a[96], b[96];

    for (uint32_t i = 0; i < t->g->n_out; i++) {
        const struct tensor *got = &t->value[t->g->out[i]];
        int r = read_tensor(t, "output", i, got->dtype, &want);
        if (r < 0)
            return r;
        /* BF16 was truncated there; we round. */
        double tol = want.dtype == DT_BF16 ? 8e-3 : want.dtype == DT_FP16 ? 2e-3 : 1e-4;
        if (got->dtype != want.dtype || got->rank != want.rank ||
            memcmp(got->dims, want.dims, want.rank * sizeof(want.dims[0])) != 0)
            return err_set(&t->err, -ERANGE, "output %u is %s %s, not %s %s", i,
                           dtype_name(got->dtype), dims_print(got->rank, got->dims, a, sizeof(a)),
                           dtype_name(want.dtype), dims_print(want.rank, want.dims, b, sizeof(b)));
        double d = case_difference(got, &want);
        if (!(d <= tol))
            return err_set(&t->err, -ERANGE, "output %u is off by %.3g", i, d);
    }
    return 0;
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
    t->value = ARENA_ARRAY(&t->g->arena, struct tensor, t->g->n_values + 1);
    if (!t->value)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->g->n_in && r == 0; i++) {
        uint32_t id = t->g->in[i];
        r = read_tensor(t, "input", i, t->g->values[id].dtype, &t->value[id]);
    }
    struct graph_run run = {.graph = t->g, .value = t->value, .arena = &t->g->arena};
    if (r == 0)
        r = graph_run(&run, &t->err);
    return r < 0 ? r : check_outputs(t);
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
    } else {
        n_failed++;
        printf("# %s: %s\n", name, r < 0 ? t.err.msg : "it passes now: take it off the list");
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

int main(int argc, char **argv)
{
    int opt;

    while ((opt = getopt(argc, argv, "vk:")) != -1)
        switch (opt) {
        case 'v':
            verbose = true;
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
    bool few = !only && optind == argc && n_passed < LEAST_PASSED;
    printf(
        "%s - of the ONNX tests %u pass, %u need what we lack, %u differ on purpose, %u fail%s\n",
        n_failed || few ? "not ok" : "ok", n_passed, n_refused, n_known, n_failed,
        few ? " (too few pass)" : "");
    return n_failed || few;
}
