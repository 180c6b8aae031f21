/* gpuletctl profile FILE: where the time of a model goes on the cpu backend, in this process. */
#include "cli.h"
#include <fcntl.h>
#include <gpulet/model.h>
#include <gpulet/steps.h>
#include <libgen.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUNS 15

struct profile {
    enum precision precision;
    struct mapping file, *ext;
    uint32_t n_ext;
    struct graph *graph;
    struct arena arena;
    struct bound *bound;
    struct device *dev;
    struct part *part;
    struct exe *exe;
    struct slot *slot;
    struct exe_info info;
    struct step_info *step;
};

static void profile_done(struct profile *p)
{
    free(p->step);
    if (p->slot)
        backend_cpu.slot_close(p->slot);
    if (p->exe)
        backend_cpu.release(p->exe);
    if (p->part)
        backend_cpu.part_close(p->part);
    if (p->dev)
        backend_cpu.dev_close(p->dev);
    arena_done(&p->arena);
    graph_free(p->graph);
    for (uint32_t i = 0; i < p->n_ext; i++)
        (void)munmap((void *)(uintptr_t)p->ext[i].base, p->ext[i].bytes);
    free(p->ext);
    if (p->file.base)
        (void)munmap((void *)(uintptr_t)p->file.base, p->file.bytes);
}

static int map(const char *path, struct mapping *ret, struct err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *base = MAP_FAILED;

    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
        base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int code = errno ? -errno : -EIO;
    if (fd >= 0)
        (void)close(fd);
    if (base == MAP_FAILED)
        return err_set(err, code, "%s: %s", path,
                       fd < 0 ? strerror(-code) : "not a file with something in it");
    *ret = (struct mapping){base, (size_t)st.st_size, true};
    return 0;
}

static int read_model(struct profile *p, const char *path, struct err *err)
{
    AUTO(free) char *copy = strdup(path);
    struct model_report report = {0};

    if (!copy)
        return err_set(err, -ENOMEM, "out of memory");
    int r = map(path, &p->file, err);
    if (r == 0)
        r = onnx_read(&p->file, dirname(copy), NULL, &p->graph, &p->ext, &p->n_ext, err);
    if (r == 0)
        r = graph_infer(p->graph, err);
    if (r == 0 && p->precision == PRECISION_INT8)
        r = graph_quantise(p->graph, &report, err);
    if (r == 0)
        r = graph_optimise(p->graph, &report, err);
    if (r < 0)
        return r;
    graph_analyse_batch(p->graph);
    return graph_cut(p->graph, err);
}

static int bind(struct profile *p, const struct cli *c, struct err *err)
{
    const struct graph *g = p->graph;
    struct shape_key key = {.n = g->n_syms};

    for (uint32_t i = 0; i < g->n_syms; i++)
        key.dim[i] = (int32_t)i == g->batch_sym ? c->batch : c->dim;
    return graph_bind(g, &key, &p->arena, &p->bound, err);
}

static int open_exe(struct profile *p, const char *path, struct err *err)
{
    const struct backend_config cfg = {0};
    const struct compile_args args = {.model = path, .bound = p->bound, .precision = p->precision};
    struct granules set = {{0}};
    uint32_t units;
    int r = backend_cpu.dev_open(&cfg, 0, &p->dev, err);

    granules_add(&set, 0);
    if (r == 0)
        r = backend_cpu.part_open(p->dev, &set, &p->part, &units, err);
    if (r == 0)
        r = backend_cpu.compile(p->part, &args, &p->exe, err);
    if (r == 0)
        r = backend_cpu.slot_open(p->exe, &p->slot, err);
    if (r < 0)
        return r;
    backend_cpu.exe_info(p->exe, &p->info);
    p->step = calloc(MAX(p->info.n_steps, 1u), sizeof(*p->step));
    if (!p->step)
        return err_set(err, -ENOMEM, "out of memory");
    backend_cpu.part_enter(p->part);
    return cpu_steps(p->slot, RUNS, p->step, err);
}

static double total_us(const struct profile *p)
{
    double sum = 0;

    for (uint32_t i = 0; i < p->info.n_steps; i++)
        sum += (double)p->step[i].median_ns / 1e3;
    return sum;
}

static json_t *report_step(const struct profile *p, const struct step_info *s, double total)
{
    const struct node *n = &p->graph->nodes[s->node];
    json_t *o = json_object();

    put(o, "node", json_string(n->name));
    put(o, "operator", json_string(s->reorder ? "reorder" : op_name(n->op)));
    put(o, "implementation", json_string(s->impl));
    put(o, "in", json_string(s->in));
    put(o, "out", json_string(s->out));
    put_num(o, "us", (double)s->median_ns / 1e3);
    put_num(o, "share", total > 0 ? (double)s->median_ns / 1e3 / total : 0);
    return o;
}

static json_t *report(const struct profile *p, const struct cli *c)
{
    json_t *o = json_object(), *steps = json_array();
    double total = total_us(p);

    put_num(o, "batch", (double)c->batch);
    put(o, "precision", json_string(precision_name(p->precision)));
    if (p->precision != PRECISION_FP32)
        put_num(o, "precision_nodes", p->info.n_asked);
    put_num(o, "us", total);
    put_num(o, "steps", p->info.n_steps);
    put_num(o, "reorders", p->info.n_reorders);
    put_num(o, "weights_bytes", (double)p->info.weights_bytes);
    put_num(o, "activations_bytes", (double)p->info.slot_bytes);
    for (uint32_t i = 0; i < p->info.n_steps; i++)
        (void)json_array_append_new(steps, report_step(p, &p->step[i], total));
    if (c->by_step)
        put(o, "by_step", steps);
    else
        json_decref(steps);
    return o;
}

static void print_report(json_t *o)
{
    json_t *s;
    size_t i;

    if (json_object_get(o, "by_step"))
        printf("%10s %6s  %-18s %-26s %-8s %-8s %s\n", "us", "share", "OPERATOR", "IMPLEMENTATION",
               "IN", "OUT", "NODE");
    json_array_foreach(json_object_get(o, "by_step"), i, s)
    {
        printf("%10.1f %5.1f%%  %-18s %-26s %-8s %-8s %s\n", num(s, "us"), 100 * num(s, "share"),
               str(s, "operator"), str(s, "implementation"), str(s, "in"), str(s, "out"),
               str(s, "node"));
    }
    printf("%.1f us in %.0f steps, %.0f of them reorders; weights %.1f MiB, activations %.1f MiB\n",
           num(o, "us"), num(o, "steps"), num(o, "reorders"), num(o, "weights_bytes") / (1 << 20),
           num(o, "activations_bytes") / (1 << 20));
    if (json_object_get(o, "precision_nodes"))
        printf("%.0f nodes in %s\n", num(o, "precision_nodes"), str(o, "precision"));
}

int verb_profile(const struct cli *c, int argc, char **argv, struct err *err)
{
    struct profile p = {0};

    if (argc != 1)
        return err_set(err, -EINVAL, "profile needs an ONNX FILE");
    int r = cli_precision(c, &p.precision, err);
    if (r < 0)
        return r;
    arena_init(&p.arena);
    r = read_model(&p, argv[0], err);
    if (r == 0)
        r = bind(&p, c, err);
    if (r == 0)
        r = open_exe(&p, argv[0], err);
    if (r == 0) {
        json_t *o = report(&p, c);
        if (c->json)
            r = print_json(o, err);
        else
            print_report(o);
        json_decref(o);
    }
    profile_done(&p);
    return r == -EINVAL ? err_set(err, -EBADMSG, "%s", err->msg) : r;
}
