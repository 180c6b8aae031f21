/* BatchNormalization behind Conv or Gemm: y = (x - mean) * s + b with s = scale / sqrt(var + eps)
 * becomes part of the weights (times s by output channel) and of the bias.  One that follows
 * anything else stays. */
#include "pass.h"
#include <math.h>

enum { BN_SCALE = 1, BN_BIAS, BN_MEAN, BN_VAR, BN_END };

struct bn {
    uint32_t node, before;             /* the norm, and the Conv or Gemm in front */
    const struct constant *w, *bias;   /* of `before`; bias may be NULL */
    const struct constant *of[BN_END]; /* by input number */
    float eps;
    int64_t channels, stride; /* weight element i belongs to channel i / stride % channels */
};

static bool is_fp32_vector(const struct constant *c, int64_t n)
{
    return c && c->t.dtype == DT_FP32 && c->t.rank == 1 && c->t.dims[0] == n;
}

/* Where the output channels lie in the weights. */
static bool weights_layout(const struct node *n, struct bn *m)
{
    const struct tensor *w = &m->w->t;

    if (w->dtype != DT_FP32 || w->rank < 2)
        return false;
    if (n->op == OP_Conv) {
        m->channels = w->dims[0];
        m->stride = m->channels ? (int64_t)(w->bytes / sizeof(float)) / m->channels : 0;
        return m->channels > 0;
    }
    bool trans = node_int(n, "transB", 0) != 0;
    m->channels = w->dims[trans ? 0 : 1];
    m->stride = trans ? w->dims[1] : 1;
    return node_float(n, "alpha", 1) == 1 && node_float(n, "beta", 1) == 1;
}

static bool bn_match(const struct pass *p, uint32_t id, struct bn *m)
{
    const struct node *n = &p->g->nodes[id];

    if (n->op != OP_BatchNormalization || n->n_in != BN_END || n->n_out != 1 || n->n_post ||
        node_int(n, "training_mode", 0) || !node_int(n, "spatial", 1))
        return false;
    m->node = id;
    m->before = pass_made_by(p, n->in[0], OP_Conv);
    if (m->before == NODE_NONE)
        m->before = pass_made_by(p, n->in[0], OP_Gemm);
    if (m->before == NODE_NONE || !pass_read_times(p, n->in[0], 1))
        return false;
    const struct node *b = &p->g->nodes[m->before];
    bool has_bias = b->n_in > 2 && b->in[2] != VALUE_NONE;
    m->w = pass_constant(p, b->in[1]);
    m->bias = has_bias ? pass_constant(p, b->in[2]) : NULL;
    m->eps = node_float(n, "epsilon", 1e-5f);
    if (!m->w || !weights_layout(b, m) || (has_bias && !is_fp32_vector(m->bias, m->channels)))
        return false;
    for (int i = BN_SCALE; i < BN_END; i++)
        if (!is_fp32_vector(m->of[i] = pass_constant(p, n->in[i]), m->channels))
            return false;
    return true;
}

static struct hash128 bn_key(const struct bn *m, bool weights)
{
    int64_t head[] = {PASS_VERSION, OP_BatchNormalization, weights, m->channels, m->stride};
    struct hash128 h = hash_bytes(head, sizeof(head));

    h = hash_join(h, hash_bytes(&m->eps, sizeof(m->eps)));
    h = hash_join(h, m->w->hash);
    if (m->bias)
        h = hash_join(h, m->bias->hash);
    for (int i = BN_SCALE; i < BN_END; i++)
        h = hash_join(h, m->of[i]->hash);
    return h;
}

static double bn_factor(const float *const *of, int64_t c, float eps)
{
    return (double)of[BN_SCALE][c] / sqrt((double)of[BN_VAR][c] + (double)eps);
}

static const struct constant *scaled_weights(struct pass *p, const struct bn *m,
                                             const float *const *of)
{
    struct hash128 key = bn_key(m, true);
    const struct constant *c = made_find(p, key);
    struct tensor t = m->w->t;

    if (c)
        return c;
    const struct tensor *w = pass_aligned(p, m->w);
    if (!w || made_new(p, &t) < 0)
        return NULL;
    const float *from = w->data;
    float *to = t.data;
    size_t n = t.bytes / sizeof(*to);
    for (size_t i = 0; i < n; i++)
        to[i] = (float)(from[i] * bn_factor(of, (int64_t)i / m->stride % m->channels, m->eps));
    constant_drop(m->w);
    return made_add(p, key, &t);
}

static const struct constant *moved_bias(struct pass *p, const struct bn *m, const float *const *of)
{
    const struct tensor *old = m->bias ? pass_aligned(p, m->bias) : NULL;
    struct tensor t = m->of[BN_BIAS]->t;

    if ((m->bias && !old) || made_new(p, &t) < 0)
        return NULL;
    float *to = t.data;
    for (int64_t i = 0; i < m->channels; i++) {
        double b = old ? (double)((const float *)old->data)[i] : 0;
        to[i] = (float)((b - (double)of[BN_MEAN][i]) * bn_factor(of, i, m->eps) +
                        (double)of[BN_BIAS][i]);
    }
    return made_add(p, bn_key(m, false), &t);
}

static int bn_fold(struct pass *p, const struct bn *m)
{
    const float *of[BN_END] = {0};
    uint32_t w, b;

    for (int i = BN_SCALE; i < BN_END; i++) {
        const struct tensor *t = pass_aligned(p, m->of[i]);
        if (!t)
            return -ENOMEM;
        of[i] = t->data;
    }
    const struct constant *cw = scaled_weights(p, m, of), *cb = moved_bias(p, m, of);
    const char *name = p->g->values[p->g->nodes[m->before].in[1]].name;
    char *name_w = arena_printf(&p->g->arena, "%s.normed", name);
    char *name_b = arena_printf(&p->g->arena, "%s.normed.bias", name);
    if (!cw || !cb || !name_w || !name_b || made_value(p, name_w, cw, &w) < 0 ||
        made_value(p, name_b, cb, &b) < 0 || pass_set_input(p, m->before, 1, w) < 0 ||
        pass_set_input(p, m->before, 2, b) < 0)
        return -ENOMEM;
    pass_absorb(p, m->before, m->node);
    p->report->folded_norms++;
    return 0;
}

int pass_batchnorm(struct pass *p)
{
    struct bn m;

    for (uint32_t id = 0; id < p->g->n_nodes; id++, pass_next(p))
        if (bn_match(p, id, &m) && bn_fold(p, &m) < 0)
            return -ENOMEM;
    return 0;
}
