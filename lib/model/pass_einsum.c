/* An Einsum that is a product of matrices as it stands becomes a MatMul: "bij,bjk->bik", with any
 * labels in front, or none in the second operand.  One that needs its operands turned stays. */
#include "pass.h"
#include <gpulet/einsum.h>

static bool same_dim(const struct value *a, int32_t i, const struct value *b, int32_t k)
{
    return a->dims[i].sym == b->dims[k].sym && a->dims[i].scale == b->dims[k].scale &&
           a->dims[i].sym != SYM_VARIES;
}

static bool is_product(const struct graph *g, const struct node *n)
{
    struct tensor t[2];
    const struct tensor *in[2] = {&t[0], &t[1]};
    struct einsum e;

    if (n->n_in != 2 || n->n_post)
        return false;
    for (uint32_t i = 0; i < 2; i++) {
        const struct value *v = &g->values[n->in[i]];
        if (v->rank < 2)
            return false;
        t[i] = (struct tensor){.dtype = v->dtype, .rank = (uint32_t)v->rank};
        for (uint32_t d = 0; d < t[i].rank; d++)
            t[i].dims[d] = 2; /* labels do not depend on sizes */
    }
    uint32_t rank = t[0].rank, lead = rank - t[1].rank;
    if (t[1].rank > rank || einsum_read(n, in, &e, NULL) < 0 || e.n_out != rank ||
        e.n_labels != rank + 1)
        return false;
    for (uint32_t d = 0; d < rank; d++) {
        uint32_t b = d + 2 == rank ? rank : d; /* the summed label is the last one */
        if (e.label[0][d] != (d + 1 == rank ? rank : d) || (d >= lead && e.label[1][d - lead] != b))
            return false;
    }
    const struct value *a = &g->values[n->in[0]], *b = &g->values[n->in[1]];
    return same_dim(a, a->rank - 1, b, b->rank - 2);
}

int pass_einsum(struct pass *p)
{
    for (uint32_t id = 0; id < p->g->n_nodes; id++) {
        const struct node *n = &p->g->nodes[id];
        if (n->op == OP_Einsum && n->in[0] != VALUE_NONE && n->n_in > 1 && n->in[1] != VALUE_NONE &&
            is_product(p->g, n) && pass_become(p, id, OP_MatMul, 2, n->in) < 0)
            return -ENOMEM;
    }
    return 0;
}
