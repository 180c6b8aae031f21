/* Opening a model: map, read, infer, pass, prepare, analyse.  The mappings outlive the graph. */
#include "pass.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct model {
    struct mapping file, *ext;
    uint32_t n_ext;
    struct prepared prepared;
    struct graph *graph;
    struct hash128 hash;
    struct model_report report;
};

static int map_file(const char *dir, struct mapping *ret, struct err *err)
{
    AUTO(free) char *path = NULL;
    struct stat st;

    if (asprintf(&path, "%s/%s", dir, MODEL_FILE) < 0) {
        path = NULL;
        return err_set(err, -ENOMEM, "out of memory");
    }
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int r = -errno;
        return err_set(err, r, "%s: %s", MODEL_FILE, strerror(-r));
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0)
        return err_set(err, -EINVAL, "%s: %s", MODEL_FILE,
                       S_ISREG(st.st_mode) ? "is empty" : "is not a regular file");
    void *base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED) {
        int r = -errno;
        return err_set(err, r, "%s: %s", MODEL_FILE, strerror(-r));
    }
    *ret = (struct mapping){base, (size_t)st.st_size, true};
    return 0;
}

static void unmap(struct mapping *m)
{
    if (m->base)
        (void)munmap((void *)m->base, m->bytes);
    *m = (struct mapping){0};
}

void model_free(struct model *m)
{
    if (!m)
        return;
    graph_free(m->graph);
    prepared_done(&m->prepared);
    for (uint32_t i = 0; i < m->n_ext; i++)
        unmap(&m->ext[i]);
    free(m->ext);
    unmap(&m->file);
    free(m);
}

static struct hash128 hash_of(const struct model *m)
{
    uint32_t version = PASS_VERSION;
    struct hash128 h = hash_bytes(&version, sizeof(version));

    h = hash_join(h, hash_pages(m->file.base, m->file.bytes));
    for (uint32_t i = 0; i < m->n_ext; i++)
        h = hash_join(h, hash_pages(m->ext[i].base, m->ext[i].bytes));
    return h;
}

/* The reader's graph to the one that backends compile. */
static int refine(struct model *m, const char *dir, enum precision precision, struct err *err)
{
    struct graph *g = m->graph;

    prepared_open(&m->prepared, dir, m->hash);
    if (prepared_align(&m->prepared, g) < 0)
        return err_set(err, -ENOMEM, "out of memory for aligned constants");
    int r = graph_infer(g, err);
    if (r == 0 && precision == PRECISION_INT8)
        r = graph_quantise_into(g, &m->prepared, &m->report, err);
    if (r == 0)
        r = graph_optimise_into(g, &m->prepared, &m->report, err);
    if (r == 0)
        r = prepared_settle(&m->prepared, g, dir, m->hash, err);
    if (r < 0)
        return r;
    m->report.prepared_bytes = m->prepared.file.bytes;
    graph_analyse_batch(g);
    r = graph_settle_late(g, err);
    return r < 0 ? r : graph_cut(g, err);
}

/* Passes read some constants, and a page comes with its neighbours; from now on only those that a
 * device reads should be resident. */
static void drop_all(const struct model *m)
{
    pages_drop(m->file.base, m->file.bytes);
    pages_drop(m->prepared.file.base, m->prepared.file.bytes);
    for (uint32_t i = 0; i < m->n_ext; i++)
        pages_drop(m->ext[i].base, m->ext[i].bytes);
}

int model_open(const char *dir, const struct model_limits *limits, enum precision precision,
               struct model **ret, struct err *err)
{
    AUTO(model_free) struct model *m = calloc(1, sizeof(*m));

    if (!m)
        return err_set(err, -ENOMEM, "out of memory");
    int r = map_file(dir, &m->file, err);
    if (r == 0)
        r = onnx_read(&m->file, dir, limits, &m->graph, &m->ext, &m->n_ext, err);
    if (r < 0)
        return r;
    m->hash = hash_of(m);
    r = refine(m, dir, precision, err);
    if (r < 0)
        return r;
    drop_all(m);
    *ret = TAKE(m);
    return 0;
}

const struct graph *model_graph(const struct model *m)
{
    return m->graph;
}

struct hash128 model_hash(const struct model *m)
{
    return m->hash;
}

const struct model_report *model_report(const struct model *m)
{
    return &m->report;
}
