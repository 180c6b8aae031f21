/* The end of a model that only a run can tell: boxes by NonMaxSuppression, what NonZero finds,
 * bodies.
 *
 * The host runs it (late.c).  Here it is decided what of the device's it needs, and refused what no
 * host should do: whatever is heavy belongs on the device, where shapes must be known. */
#include "exe.h"

static const enum op_id heavy[] = {
    OP_Attention,     OP_Conv,        OP_ConvInteger,   OP_ConvTranspose, OP_DeformConv,
    OP_Einsum,        OP_Gemm,        OP_GRU,           OP_LSTM,          OP_MatMul,
    OP_MatMulInteger, OP_QLinearConv, OP_QLinearMatMul, OP_RNN,
};

static bool is_heavy(enum op_id op)
{
    for (size_t i = 0; i < ARRAY_SIZE(heavy); i++)
        if (heavy[i] == op)
            return true;
    return false;
}

static int check_node(struct build *b, const struct node *n)
{
    return !is_heavy(n->op)
               ? 0
               : err_set(
                     b->err, -ENOTSUP,
                     "node '%s' (%s): behind what depends on data it would run on the host: not "
                     "in the cuda backend",
                     n->name, op_name(n->op));
}

static int check_bodies(struct build *b, const struct graph *g)
{
    int r = 0;

    for (const struct graph *in = g->nested; in && r == 0; in = in->next) {
        for (uint32_t i = 0; i < in->n_nodes && r == 0; i++)
            r = check_node(b, &in->nodes[i]);
        if (r == 0)
            r = check_bodies(b, in);
    }
    return r;
}

/* Nothing that is late, if no output is. */
static bool any_late(const struct build *b)
{
    bool any = false;

    for (uint32_t i = 0; i < b->graph->n_out; i++)
        any |= b->bound->late_value[b->graph->out[i]];
    return any;
}

int late_check(struct build *b)
{
    const struct graph *g = b->graph;
    int r = any_late(b) ? check_bodies(b, g) : 0;

    for (uint32_t i = 0; i < g->n_nodes && r == 0 && any_late(b); i++)
        if (b->bound->late_node[i] && !b->bound->skip[i])
            r = check_node(b, &g->nodes[i]);
    return r;
}

/* Where a value is that the host reads, to the end of the run. */
static int need(struct build *b, uint32_t v, struct port *p)
{
    struct exe *x = b->exe;

    *p = (struct port){.bytes = value_of(b, v)->bytes, .staged = x->staged_bytes};
    if (value_of(b, v)->data)
        return 0;
    int r = build_in(b, v, &p->ref);
    if (r == 0 && p->ref.kind == REF_BUF)
        x->buf[p->ref.buf].last = UINT32_MAX;
    x->staged_bytes += align_up(p->bytes, 64);
    return r;
}

int lower_late(struct build *b)
{
    struct exe *x = b->exe;

    if (!any_late(b))
        return 0;
    int r = gpu_late->plan(b->bound, &x->arena, &x->late, b->err);
    if (r < 0)
        return r;
    x->late_in = ARENA_ARRAY(&x->arena, struct port, x->late.n_in + 1);
    if (!x->late_in)
        return err_set(b->err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < x->late.n_in && r == 0; i++)
        r = need(b, x->late.in[i], &x->late_in[i]);
    return r;
}
