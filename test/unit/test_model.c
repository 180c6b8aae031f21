/* Opening a model in its folder: what prepared.bin holds, when it is trusted and when it is
 * written again, and what a failure leaves behind. */
#include "../graph_build.h"
#include "onnx_write.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], model_path[128], prepared_path[128], temp_path[128];

static void put_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");

    assert(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

/* Conv (64 filters of 8x3x3) and BatchNormalization; a MatMul with 80 kB of
 * weights.  `seed` changes the first weights, `shift` moves all of them by that many bytes. */
static void write_shifted(int seed, int shift)
{
    char name[16];

    static float w[64 * 8 * 9], v[64], m[64 * 320];
    struct ow graph = {0};

    for (size_t i = 0; i < ARRAY_SIZE(w); i++)
        w[i] = (float)((int)(i * 37) % 101 - 50 + seed) / 500.f;
    for (size_t i = 0; i < ARRAY_SIZE(v); i++)
        v[i] = 0.5f + (float)i / 64.f;
    for (size_t i = 0; i < ARRAY_SIZE(m); i++)
        m[i] = (float)((int)(i * 11) % 51 - 25) / 250.f;
    ow_plain(&graph, "Conv", "conv", "x,w", "y");
    ow_plain(&graph, "BatchNormalization", "norm", "y,v,v,v,v", "z");
    ow_plain(&graph, "GlobalAveragePool", "pool", "z", "p");
    ow_plain(&graph, "Flatten", "flat", "p", "f");
    (void)snprintf(name, sizeof(name), "product%.*s", shift, "+++");
    ow_plain(&graph, "MatMul", name, "f,m", "out");
    ow_input(&graph, "x", DT_FP32, "batch,8,5,5");
    ow_init(&graph, "w", DT_FP32, "64,8,3,3", w, sizeof(w));
    ow_init(&graph, "v", DT_FP32, "64", v, sizeof(v));
    ow_init(&graph, "m", DT_FP32, "64,320", m, sizeof(m));
    ow_output(&graph, "out");
    struct ow model = ow_model(&graph, 13);
    put_file(model_path, model.p, model.n);
    ow_done(&model);
}

static void write_model(int seed)
{
    write_shifted(seed, 0);
}

static struct model *open_model(void)
{
    struct model *m = NULL;
    struct err err = {0};

    if (model_open(dir, NULL, PRECISION_FP32, &m, &err) < 0) {
        printf("# %s\n", err.msg);
        check_failures++;
    }
    return m;
}

static const struct constant *weights_of(const struct model *m, enum op_id id)
{
    const struct graph *graph = model_graph(m);

    for (uint32_t i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i].op == id)
            return graph->values[graph->nodes[i].in[1]].constant;
    return NULL;
}

static ino_t inode(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? st.st_ino : 0;
}

static double checksum(const struct model *m)
{
    const struct graph *graph = model_graph(m);
    struct shape_key key = {.n = graph->n_syms, .dim = {2}};
    struct arena a;
    double sum = 0;

    arena_init(&a);
    struct bound *b = run_graph(graph, &key, 2, 0, &a);
    for (int i = 0; b && i < 640; i++)
        sum += (double)((float *)b->value[graph->out[0]].data)[i] * (i + 1);
    arena_done(&a);
    return sum;
}

static void all_constants_are_aligned(void)
{
    write_model(0);
    struct model *m = open_model();
    const struct graph *graph = model_graph(m);
    size_t crooked = 0, n = 0;

    for (uint32_t i = 0; i < graph->n_nodes; i++)
        for (uint32_t k = 0; k < graph->nodes[i].n_in; k++) {
            const struct constant *c = graph->values[graph->nodes[i].in[k]].constant;
            n += c != NULL;
            crooked += c && (uintptr_t)c->t.data % dtype_size(c->t.dtype) != 0;
        }
    CHECK_EQ(n, 3);
    CHECK_EQ(crooked, 0);
    CHECK_EQ(model_report(m)->folded_norms, 1);
    CHECK_EQ(model_report(m)->nodes_left, 4);
    CHECK_STR(graph->why_single, "");
    CHECK_EQ(graph->n_segments, 1);
    model_free(m);
}

static void weights_that_lie_crooked_in_the_file_are_copied(void)
{
    int in_place = 0;
    double sum = 0;

    for (int shift = 0; shift < 4; shift++) {
        write_shifted(0, shift);
        struct model *m = open_model();
        in_place += weights_of(m, OP_MatMul)->source == CONST_FILE;
        CHECK_EQ((uintptr_t)weights_of(m, OP_MatMul)->t.data % sizeof(float), 0);
        CHECK(shift == 0 || checksum(m) == sum);
        sum = checksum(m);
        model_free(m);
    }
    CHECK_EQ(in_place, 1); /* one of four places in a row is a multiple of four */
}

static void what_passes_made_lies_in_the_prepared_file(void)
{
    write_model(0);
    struct model *m = open_model();
    const struct constant *c = weights_of(m, OP_Conv);

    CHECK_EQ(c->source, CONST_PREPARED);
    CHECK_EQ((uintptr_t)c->t.data % PREPARED_ALIGN, 0);
    CHECK_EQ(c->t.bytes, 64 * 8 * 9 * 4);
    CHECK(model_report(m)->prepared_bytes >= c->t.bytes);
    struct constant again = *c;
    constant_seal(&again); /* the content is what the hash says */
    CHECK(hash_eq(again.hash, c->hash));
    CHECK_EQ(inode(temp_path), 0);
    model_free(m);
}

static void a_second_opening_uses_the_file_as_it_is(void)
{
    write_model(0);
    (void)unlink(prepared_path);
    struct model *m = open_model();
    struct hash128 hash = model_hash(m), made = weights_of(m, OP_Conv)->hash;
    double sum = checksum(m);
    ino_t file = inode(prepared_path);
    int fd = open(prepared_path, O_RDONLY); /* keeps the inode number taken */
    model_free(m);
    m = open_model();
    CHECK(file != 0);
    CHECK_EQ(inode(prepared_path), file);
    CHECK(hash_eq(model_hash(m), hash));
    CHECK(hash_eq(weights_of(m, OP_Conv)->hash, made));
    CHECK_EQ(weights_of(m, OP_Conv)->source, CONST_PREPARED);
    CHECK(checksum(m) == sum && sum != 0);
    model_free(m);
    (void)close(fd);
}

/* One byte of the file changed, or the file cut: it is written anew and the results are right. */
static void damage(off_t at, off_t cut)
{
    write_model(0);
    struct model *m = open_model();
    double sum = checksum(m);
    model_free(m);
    int fd = open(prepared_path, O_RDWR);
    char byte = 0;
    CHECK(pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, at) == 1);
    if (cut)
        CHECK_EQ(ftruncate(fd, cut), 0);
    ino_t damaged = inode(prepared_path);
    m = open_model();
    CHECK(m && inode(prepared_path) != damaged); /* fd keeps the old number taken */
    CHECK(m && checksum(m) == sum);
    model_free(m);
    (void)close(fd);
}
static void a_damaged_file_is_made_again(void)
{
    damage(0, 0);    /* magic */
    damage(8, 0);    /* pass version */
    damage(17, 0);   /* model hash */
    damage(90, 0);   /* table */
    damage(150, 0);  /* table */
    damage(0, 1);    /* next to nothing left */
    damage(0, 4096); /* data missing */
}

static void another_model_does_not_get_old_weights(void)
{
    write_model(0);
    struct model *m = open_model();
    struct hash128 hash = model_hash(m);
    double sum = checksum(m);
    model_free(m);
    write_model(1);
    m = open_model();
    CHECK(!hash_eq(model_hash(m), hash));
    CHECK(checksum(m) != sum);
    model_free(m);
}

static void a_full_disk_leaves_no_temp_file(void)
{
    struct rlimit old, small = {.rlim_cur = 20000, .rlim_max = RLIM_INFINITY};
    struct model *m = NULL;
    struct err err = {0};

    write_model(0);
    (void)unlink(prepared_path);
    (void)signal(SIGXFSZ, SIG_IGN);
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    CHECK_EQ(model_open(dir, NULL, PRECISION_FP32, &m, &err),
             -EFBIG); /* as near to -ENOSPC as a test gets */
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
    CHECK_HAS(err.msg, "prepared.bin");
    CHECK(m == NULL);
    CHECK_EQ(inode(temp_path), 0);
    CHECK_EQ(inode(prepared_path), 0);
    m = open_model(); /* and works once there is room */
    model_free(m);
}

static void a_temp_file_from_a_crash_is_no_obstacle(void)
{
    write_model(0);
    (void)unlink(prepared_path);
    put_file(temp_path, "half", 4);
    model_free(open_model());
    CHECK(inode(prepared_path) != 0);
    CHECK_EQ(inode(temp_path), 0);
}

/* Its name begins as a temp file's does. */
static unsigned temp_files(void)
{
    DIR *d = opendir(dir);
    unsigned n = 0;

    assert(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strncmp(e->d_name, PREPARED_FILE ".", strlen(PREPARED_FILE ".")) == 0;
    (void)closedir(d);
    return n;
}

/* One that is being written is locked: here by another process than that which opens the model. */
static void a_temp_file_that_somebody_writes_is_left_alone(void)
{
    write_model(0);
    (void)unlink(prepared_path);
    put_file(temp_path, "half", 4);
    int fd = open(temp_path, O_RDWR);
    CHECK_EQ(flock(fd, LOCK_EX), 0);
    model_free(open_model());
    CHECK(inode(prepared_path) != 0);
    CHECK_EQ(temp_files(), 1);
    (void)close(fd);
    (void)unlink(prepared_path);
    model_free(open_model());
    CHECK_EQ(temp_files(), 0);
}

#define WRITERS 4
#define TIMES 25

static bool prepares(double want)
{
    struct model *m = NULL;
    struct err err = {0};
    bool good = model_open(dir, NULL, PRECISION_FP32, &m, &err) == 0 && checksum(m) == want;

    if (!good)
        printf("# %s\n", err.msg);
    model_free(m);
    fflush(stdout);
    return good;
}

/* All of them begin when the pipe is closed. */
static void prepare_at_once(double want)
{
    pid_t child[WRITERS];
    int gate[2], status = -1;
    char c;

    assert(pipe(gate) == 0);
    fflush(stdout);
    for (unsigned i = 0; i < WRITERS; i++)
        if ((child[i] = fork()) == 0) {
            (void)close(gate[1]);
            (void)!read(gate[0], &c, 1);
            _exit(!prepares(want));
        }
    (void)close(gate[0]);
    (void)close(gate[1]);
    for (unsigned i = 0; i < WRITERS; i++) {
        (void)waitpid(child[i], &status, 0);
        CHECK_EQ(status, 0);
    }
}

static void processes_that_prepare_one_folder_at_a_time_do_not_disturb_each_other(void)
{
    write_model(0);
    struct model *m = open_model();
    double want = checksum(m);
    model_free(m);
    for (unsigned i = 0; i < TIMES; i++) {
        (void)unlink(prepared_path);
        prepare_at_once(want);
        CHECK(inode(prepared_path) != 0);
        CHECK_EQ(temp_files(), 0);
    }
}

static void dropped_pages_come_back(void)
{
    write_model(0);
    struct model *m = open_model();
    double sum = checksum(m);

    constant_drop(weights_of(m, OP_Conv));
    constant_drop(weights_of(m, OP_MatMul));
    CHECK(checksum(m) == sum);
    model_free(m);
}

static void what_is_no_model_says_so(void)
{
    struct model *m = NULL;
    struct err err = {0};

    (void)unlink(model_path);
    CHECK_EQ(model_open(dir, NULL, PRECISION_FP32, &m, &err), -ENOENT);
    CHECK_HAS(err.msg, "model.onnx");
    put_file(model_path, "", 0);
    CHECK_EQ(model_open(dir, NULL, PRECISION_FP32, &m, &err), -EINVAL);
    CHECK_HAS(err.msg, "is empty");
    put_file(model_path, "no protobuf at all", 18);
    CHECK_EQ(model_open(dir, NULL, PRECISION_FP32, &m, &err), -EINVAL);
    model_free(NULL);
}

int main(void)
{
    (void)snprintf(dir, sizeof(dir), "/tmp/test-model-XXXXXX");
    assert(mkdtemp(dir));
    (void)snprintf(model_path, sizeof(model_path), "%s/%s", dir, MODEL_FILE);
    (void)snprintf(prepared_path, sizeof(prepared_path), "%s/%s", dir, PREPARED_FILE);
    (void)snprintf(temp_path, sizeof(temp_path), "%s/%s.tmp", dir, PREPARED_FILE);
    RUN(all_constants_are_aligned);
    RUN(weights_that_lie_crooked_in_the_file_are_copied);
    RUN(what_passes_made_lies_in_the_prepared_file);
    RUN(a_second_opening_uses_the_file_as_it_is);
    RUN(a_damaged_file_is_made_again);
    RUN(another_model_does_not_get_old_weights);
    RUN(a_full_disk_leaves_no_temp_file);
    RUN(a_temp_file_from_a_crash_is_no_obstacle);
    RUN(a_temp_file_that_somebody_writes_is_left_alone);
    RUN(processes_that_prepare_one_folder_at_a_time_do_not_disturb_each_other);
    RUN(dropped_pages_come_back);
    RUN(what_is_no_model_says_so);
    (void)unlink(model_path);
    (void)unlink(prepared_path);
    (void)unlink(temp_path);
    (void)rmdir(dir);
    graph_free(g);
    return check_end();
}
