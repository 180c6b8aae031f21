/* What takes how long in a model: each of its nodes as a segment of its own, and alone.  A launch
 * by itself takes some microseconds more than in a graph, so that the sum is more than a run. */
#include "bench.h"
#include "eager.h"

#include <stdio.h>

#define OPS_MAX 64

int cut_each(struct graph *g, struct err *err)
{
    g->cut = ARENA_ARRAY(&g->arena, uint32_t, (size_t)g->n_nodes + 1);
    if (!g->cut)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i <= g->n_nodes; i++)
        g->cut[i] = i;
    g->n_segments = g->n_nodes;
    return 0;
}

/* By operator, as JSON and as text. */
struct of_op {
    enum op_id op;
    unsigned n;
    double us;
};

static int by_time(const void *a, const void *b)
{
    double x = ((const struct of_op *)a)->us, y = ((const struct of_op *)b)->us;

    return x > y ? -1 : x < y;
}

static void add(struct of_op *ops, unsigned *n, enum op_id op, double us)
{
    unsigned i = 0;

    while (i < *n && ops[i].op != op)
        i++;
    if (i == OPS_MAX)
        return;
    *n += i == *n;
    ops[i] = (struct of_op){op, ops[i].n + 1, ops[i].us + us};
}

/* Names are the file's: what JSON would not take is left out. */
static void print_name(const char *name)
{
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p >= ' ' && *p != '"' && *p != '\\')
            (void)putchar(*p);
}

int steps_measure(const struct subject *s, const struct graph *g, struct err *err)
{
    const struct exe *x = s->slot->exe;
    struct of_op ops[OPS_MAX] = {{0}};
    unsigned n_ops = 0, n = 0;
    double us = 0, all_us = 0;
    int r = 0;

    printf(", \"steps\": [");
    for (uint32_t i = 0; i < g->n_nodes && r == 0; i++) {
        if (x->first_step[i] == x->first_step[i + 1])
            continue;
        r = subject_us(s, i, i + 1, &us, err);
        printf("%s[\"", n++ ? ", " : "");
        print_name(g->nodes[i].name);
        printf("\", \"%s\", %.2f]", op_name(g->nodes[i].op), us);
        add(ops, &n_ops, g->nodes[i].op, us);
        all_us += us;
    }
    qsort(ops, n_ops, sizeof(*ops), by_time);
    printf("], \"value\": %.2f, \"unit\": \"us\", \"text\": \"%.2f us one by one", all_us, all_us);
    for (unsigned i = 0; i < n_ops; i++)
        printf("%s %u %s %.2f", i ? "," : ":", ops[i].n, op_name(ops[i].op), ops[i].us);
    printf("\"}\n");
    return r;
}
