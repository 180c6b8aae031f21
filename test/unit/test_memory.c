/* How much memory a model takes while it is opened and compiled: what a child process had at its
 * peak above what it started with.  Pages of files count, too. */
#include "../check.h"
#include "onnx_write.h"
#include <gpulet/backend.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/test-memory-XXXXXX", model_path[128], prepared_path[128];

#define SIDE 2048
#define WEIGHT_BYTES (SIDE * SIDE * sizeof(float)) /* 16 MiB */
#define N_WEIGHTS 4
/* Large ones: of a file that was just written the kernel maps 2 MiB around each byte that is read,
 * here those in front of the weights. */
#define MODEL_BYTES (N_WEIGHTS * WEIGHT_BYTES)

struct about {
    int shift;  /* bytes in front of the weights, which may make them lie crooked */
    bool norms; /* a BatchNormalization behind each product: its weights are made anew */
    bool whole; /* the weights are those of one product */
};

static void put_model(struct ow *graph)
{
    struct ow model = ow_model(graph, 13);
    FILE *f = fopen(model_path, "wb");

    assert(f && fwrite(model.p, 1, model.n, f) == model.n && fclose(f) == 0);
    ow_done(&model);
    (void)unlink(prepared_path);
}

static void add_product(struct ow *graph, const struct about *a, const float *w, int i)
{
    char in[16] = "x", gemm[16], norm[16], weights[16], name[16], list[64];

    if (i > 0)
        (void)snprintf(in, sizeof(in), "%s%d", a->norms ? "z" : "y", i - 1);
    (void)snprintf(gemm, sizeof(gemm), "y%d", i);
    (void)snprintf(norm, sizeof(norm), "z%d", i);
    (void)snprintf(weights, sizeof(weights), "w%d", i);
    (void)snprintf(name, sizeof(name), "gemm%.*s", i == 0 ? a->shift : 0, "+++");
    ow_init(graph, weights, DT_FP32, a->whole ? "2048,8192" : "2048,2048", w,
            a->whole ? MODEL_BYTES : WEIGHT_BYTES);
    (void)snprintf(list, sizeof(list), "%s,%s", in, weights);
    ow_plain(graph, "Gemm", name, list, gemm);
    (void)snprintf(list, sizeof(list), "%s,v,v,v,v", gemm);
    if (a->norms)
        ow_plain(graph, "BatchNormalization", norm, list, norm);
}

static void write_model(struct about a)
{
    float *w = calloc(MODEL_BYTES, 1), v[SIDE];
    int n = a.whole ? 1 : N_WEIGHTS;
    struct ow graph = {0};
    char out[16];

    assert(w);
    for (int i = 0; i < SIDE; i++)
        v[i] = 0.5f + (float)i / SIDE;
    ow_init(&graph, "v", DT_FP32, "2048", v, sizeof(v));
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < SIDE * SIDE; k++)
            w[k] = (float)(k % 1001 + i);
        add_product(&graph, &a, w, i);
    }
    (void)snprintf(out, sizeof(out), "%s%d", a.norms ? "z" : "y", n - 1);
    ow_input(&graph, "x", DT_FP32, "batch,2048");
    ow_output(&graph, out);
    put_model(&graph);
    free(w);
}

static size_t status_bytes(const char *which)
{
    char line[256];
    size_t kib = 0;
    FILE *f = fopen("/proc/self/status", "re");

    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, which, strlen(which)) == 0)
            kib = strtoul(line + strlen(which), NULL, 10);
    if (f)
        (void)fclose(f);
    return kib * 1024;
}

static struct model *open_model(void)
{
    struct model *m = NULL;
    struct err err = {0};

    if (model_open(dir, NULL, PRECISION_FP32, &m, &err) < 0)
        printf("# %s\n", err.msg);
    return m;
}

static bool opened(void)
{
    return open_model() != NULL;
}

static bool compiled(void)
{
    struct model *m = open_model();
    struct shape_key key = {.n = 1, .dim = {1}};
    struct backend_config cfg = {0};
    struct compile_args args = {.model = dir};
    struct granules core = {{1}};
    struct bound *b = NULL;
    struct device *dev = NULL;
    struct part *part = NULL;
    struct exe *exe = NULL;
    struct arena arena;
    struct err err = {0};
    uint32_t units;

    arena_init(&arena);
    if (!m || graph_bind(model_graph(m), &key, &arena, &b, &err) < 0 ||
        backend_cpu.dev_open(&cfg, 0, &dev, &err) < 0 ||
        backend_cpu.part_open(dev, &core, &part, &units, &err) < 0)
        return false;
    args.bound = b;
    return backend_cpu.compile(part, &args, &exe, &err) == 0;
}

/* Sanitizers take memory of their own: then it is only seen that all goes well. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool counted = false;
#else
static const bool counted = true;
#endif

static bool takes_less(size_t bytes, bool (*work)(void))
{
    int report[2];
    size_t peak = SIZE_MAX;

    assert(pipe(report) == 0);
    pid_t child = fork();
    if (child == 0) {
        size_t idle = status_bytes("VmRSS:");
        if (work())
            peak = status_bytes("VmHWM:") - idle;
        _exit(write(report[1], &peak, sizeof(peak)) != sizeof(peak));
    }
    (void)close(report[1]);
    CHECK_EQ(read(report[0], &peak, sizeof(peak)), sizeof(peak));
    (void)close(report[0]);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    return peak < bytes || (!counted && peak < SIZE_MAX);
}

static void a_model_is_opened_without_being_in_memory(void)
{
    for (int shift = 0; shift < 2; shift++) {
        write_model((struct about){.shift = shift});
        CHECK(takes_less(MODEL_BYTES / 2, opened)); /* copies what lies crooked */
        CHECK(takes_less(MODEL_BYTES / 2, opened));
    }
}

static void what_passes_make_is_in_memory_once(void)
{
    for (int shift = 0; shift < 2; shift++) {
        write_model((struct about){.shift = shift, .norms = true});
        CHECK(takes_less(MODEL_BYTES * 3 / 2, opened));
        CHECK(takes_less(MODEL_BYTES / 2, opened));
    }
}

/* As an earlier tree may leave it: sound, but the last constant is not in its table. */
static void forget_last_constant(void)
{
    enum { HEAD = 64, N = 12, CHECK_AT = 48, ENTRY = 120 };
    FILE *f = fopen(prepared_path, "r+b");
    static char bytes[HEAD + 16 * ENTRY];
    uint32_t n;

    assert(f && fread(bytes, 1, sizeof(bytes), f) == sizeof(bytes));
    memcpy(&n, bytes + N, sizeof(n));
    CHECK(n > 1 && n <= 16);
    n--;
    memcpy(bytes + N, &n, sizeof(n));
    struct hash128 check =
        hash_join(hash_bytes(bytes, CHECK_AT), hash_bytes(bytes + HEAD, n * ENTRY));
    memcpy(bytes + CHECK_AT, &check, sizeof(check));
    rewind(f);
    assert(fwrite(bytes, 1, HEAD, f) == HEAD && fclose(f) == 0);
}

static void an_incomplete_prepared_file_is_copied_without_being_in_memory(void)
{
    write_model((struct about){.shift = 1});
    CHECK(takes_less(MODEL_BYTES / 2, opened));
    forget_last_constant();
    CHECK(takes_less(MODEL_BYTES / 2, opened));
}

static void a_constant_is_packed_without_being_in_memory_twice(void)
{
    write_model((struct about){.whole = true});
    CHECK(takes_less(MODEL_BYTES * 3 / 2, compiled));
}

int main(void)
{
    assert(mkdtemp(dir));
    (void)snprintf(model_path, sizeof(model_path), "%s/%s", dir, MODEL_FILE);
    (void)snprintf(prepared_path, sizeof(prepared_path), "%s/%s", dir, PREPARED_FILE);
    RUN(a_model_is_opened_without_being_in_memory);
    RUN(what_passes_make_is_in_memory_once);
    RUN(an_incomplete_prepared_file_is_copied_without_being_in_memory);
    RUN(a_constant_is_packed_without_being_in_memory_twice);
    (void)unlink(model_path);
    (void)unlink(prepared_path);
    (void)rmdir(dir);
    return check_end();
}
