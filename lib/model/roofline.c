/* What cannot be avoided: node_cost() ranks nodes, this bounds a run. */
#include <gpulet/roofline.h>

#include "infer.h"

#include <stdlib.h>

/* Results that are the first input's bytes, or say only its shape. */
static bool moves_nothing(enum op_id op)
{
    switch (op) {
    case OP_BitCast:
    case OP_Dropout:
    case OP_Flatten:
    case OP_Identity:
    case OP_Reshape:
    case OP_Shape:
    case OP_Size:
    case OP_Squeeze:
    case OP_Unsqueeze:
        return true;
    default:
        return false;
    }
}

static double value_bytes(const struct tensor *t, enum precision precision)
{
    bool half = precision == PRECISION_FP16 || precision == PRECISION_BF16;

    return (double)t->bytes / (half && t->dtype == DT_FP32 ? 2 : 1);
}

/* An input of a node.  read: by value, whether a node has read it. */
static void count_input(const struct bound *b, enum precision precision, uint32_t v, bool *read,
                        struct work *w)
{
    const struct tensor *t = &b->value[v];
    bool known = t->data != NULL;

    if (!known)
        w->moved_bytes += value_bytes(t, precision);
    else if (!read[v])
        w->weight_bytes += value_bytes(t, precision);
    read[v] |= known;
}

/* Of what a Gather reads from, it needs the rows that it gives. */
static void count_gather(const struct bound *b, enum precision precision, const struct node *n,
                         bool *read, struct work *w)
{
    double rows = value_bytes(&b->value[n->out[0]], precision);

    *(b->value[n->in[0]].data ? &w->weight_bytes : &w->moved_bytes) += rows;
    w->moved_bytes += rows;
    count_input(b, precision, n->in[1], read, w);
}

static void count_bytes(const struct bound *b, enum precision precision, const struct node *n,
                        bool *read, struct work *w)
{
    if (moves_nothing(n->op))
        return;
    if (n->op == OP_Gather) {
        count_gather(b, precision, n, read, w);
        return;
    }
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != VALUE_NONE)
            count_input(b, precision, n->in[i], read, w);
    for (uint32_t i = 0; i < n->n_post; i++)
        if (n->post[i].kind == POST_ADD)
            count_input(b, precision, n->post[i].value, read, w);
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i] != VALUE_NONE)
            w->moved_bytes += value_bytes(&b->value[n->out[i]], precision);
}

static struct work node_work(const struct bound *b, enum precision precision, uint32_t id,
                             bool *read)
{
    const struct node *n = &b->graph->nodes[id];
    const struct tensor *in[COST_INPUTS], *out = cost_tensors(b, n, in);
    struct work w = {0};

    if (b->skip[id] || b->late_node[id])
        return w;
    w.matrix_flops = node_matrix_flops(n, in, out);
    w.other_flops = node_cost(b, id).flops - w.matrix_flops;
    count_bytes(b, precision, n, read, &w);
    return w;
}

int graph_work(const struct bound *b, enum precision precision, struct work *node, struct work *ret,
               struct err *err)
{
    bool *read = calloc(b->graph->n_values + 1, sizeof(*read));
    struct work sum = {0};

    if (!read)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < b->graph->n_nodes; i++) {
        struct work w = node_work(b, precision, i, read);
        sum.matrix_flops += w.matrix_flops;
        sum.other_flops += w.other_flops;
        sum.weight_bytes += w.weight_bytes;
        sum.moved_bytes += w.moved_bytes;
        if (node)
            node[i] = w;
    }
    free(read);
    *ret = sum;
    return 0;
}

double graph_border_bytes(const struct bound *b, enum precision precision)
{
    double bytes = 0;

    for (uint32_t i = 0; i < b->graph->n_in; i++)
        bytes += value_bytes(&b->value[b->graph->in[i]], precision);
    for (uint32_t i = 0; i < b->graph->n_out; i++)
        bytes += value_bytes(&b->value[b->graph->out[i]], precision);
    return bytes;
}

double work_floor_us(const struct work *w, const struct rates *r)
{
    double compute_s = w->matrix_flops / r->matrix_flops_per_s;
    double memory_s = (w->weight_bytes + w->moved_bytes) / r->bytes_per_s;

    return MAX(compute_s, memory_s) * 1e6;
}

double nodes_floor_us(const struct work *node, uint32_t n, const struct rates *r)
{
    double us = 0;

    for (uint32_t i = 0; i < n; i++)
        us += work_floor_us(&node[i], r);
    return us;
}
