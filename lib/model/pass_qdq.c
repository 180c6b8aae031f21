/* precision = int8: what a file says with DequantizeLinear, an operator on numbers and
 * QuantizeLinear becomes an operator on bytes.
 *
 *   Conv                                        QLinearConv
 *   MatMul, Gemm by constant weights            QLinearMatMul, with a bias
 *   Add                                         QLinearAdd
 *   MaxPool, Reshape, Flatten, Transpose,
 *   Squeeze, Unsqueeze between equal scales     the same, on bytes
 *
 * A Relu or Clip between operator and QuantizeLinear goes where the range of the bytes says as
 * much: after Relu the least byte is zero.  Everything else stays as its nodes say.  Runs before
 * constants are folded, while weights are still bytes. */
#include "pass.h"
#include <float.h>
#include <math.h>

struct scaled { /* a tensor of bytes with its scale; value ids */
    uint32_t x, scale, zero;
    bool many; /* a scale for each position of `axis` */
    int64_t axis;
};

static bool is_byte(enum dtype t)
{
    return t == DT_INT8 || t == DT_UINT8;
}

static int64_t elems(const struct constant *c)
{
    int64_t n;

    return c && tensor_count(&c->t, &n) == 0 ? n : 0;
}

/* The zero point 0 that the file leaves out. */
static uint32_t zero_of(struct pass *p, enum dtype t)
{
    static int64_t zero;
    struct tensor one = {.data = &zero};
    uint32_t v;

    (void)tensor_shape(&one, t, 0, NULL);
    one.data = arena_memdup(&p->g->arena, &zero, sizeof(zero));
    const char *name = one.data ? arena_printf(&p->g->arena, "zero.%u", p->g->n_values) : NULL;
    return name && graph_add_const(p->g, name, &one, CONST_ARENA, &v) == 0 ? v : VALUE_NONE;
}

/* Scale and zero point of node n, which quantises or dequantises to or from type t. */
static bool scale_of(struct pass *p, const struct node *n, enum dtype t, struct scaled *ret)
{
    const struct constant *scale = pass_constant(p, n->in[1]);
    bool given = n->n_in > 2 && n->in[2] != VALUE_NONE;

    if (!scale || scale->t.dtype != DT_FP32 || scale->t.rank > 1 || node_int(n, "block_size", 0))
        return false;
    ret->scale = n->in[1];
    ret->many = elems(scale) != 1;
    ret->axis = node_int(n, "axis", 1);
    ret->zero = given ? n->in[2] : ret->many ? VALUE_NONE : zero_of(p, t);
    const struct constant *zero = pass_constant(p, ret->zero);
    return zero ? zero->t.dtype == t && elems(zero) == elems(scale) : false;
}

/* The value is what a DequantizeLinear makes of bytes. */
static bool is_scaled(struct pass *p, uint32_t v, struct scaled *ret)
{
    uint32_t id = pass_made_by(p, v, OP_DequantizeLinear);

    if (id == NODE_NONE || p->g->values[v].dtype != DT_FP32)
        return false;
    const struct node *n = &p->g->nodes[id];
    ret->x = n->in[0];
    enum dtype t = p->g->values[ret->x].dtype;
    return is_byte(t) && scale_of(p, n, t, ret);
}

static bool is_one(struct pass *p, uint32_t v, struct scaled *ret)
{
    return is_scaled(p, v, ret) && !ret->many;
}

/* ---- numbers of constants */

static float float_at(const struct pass *p, uint32_t v, int64_t i)
{
    float f;

    memcpy(&f, (const char *)pass_constant(p, v)->t.data + i * (int64_t)sizeof(f), sizeof(f));
    return f;
}

static int32_t zero_at(const struct pass *p, uint32_t v)
{
    const struct tensor *t = &pass_constant(p, v)->t;

    return t->dtype == DT_INT8 ? *(const int8_t *)t->data : *(const uint8_t *)t->data;
}

/* ---- QuantizeLinear behind a value, with what may stand between */

/* Is the activation nothing that the range of bytes does not do? */
static bool is_range(const struct pass *p, const struct node *n, const struct scaled *y, bool sign)
{
    double lo = n->op == OP_Relu ? 0 : -FLT_MAX, hi = FLT_MAX;
    double least = sign ? INT8_MIN : 0, most = sign ? INT8_MAX : UINT8_MAX;
    double scale = (double)float_at(p, y->scale, 0), zero = zero_at(p, y->zero);

    if (n->op == OP_Clip) {
        if (n->n_in < 2 || (n->in[1] != VALUE_NONE && !pass_number(p, n->in[1], &lo)) ||
            (n->n_in > 2 && n->in[2] != VALUE_NONE && !pass_number(p, n->in[2], &hi)))
            return false;
    } else if (n->op != OP_Relu) {
        return false;
    }
    return nearbyint(lo / scale) + zero <= least && nearbyint(hi / scale) + zero >= most;
}

/* What quantises the value, and nothing else reads it: the node, or NODE_NONE.  An activation
 * that it makes superfluous is *ret_act. */
static uint32_t quantiser(struct pass *p, uint32_t v, struct scaled *ret, uint32_t *ret_act)
{
    uint32_t id = pass_sole_reader(p, v), act = NODE_NONE;

    if (id != NODE_NONE && (p->g->nodes[id].op == OP_Relu || p->g->nodes[id].op == OP_Clip) &&
        p->g->nodes[id].in[0] == v) {
        act = id;
        id = pass_sole_reader(p, p->g->nodes[act].out[0]);
    }
    uint32_t from = act == NODE_NONE ? v : p->g->nodes[act].out[0];
    const struct node *q = id == NODE_NONE ? NULL : &p->g->nodes[id];
    if (!q || q->op != OP_QuantizeLinear || q->in[0] != from)
        return NODE_NONE;
    enum dtype t = p->g->values[q->out[0]].dtype;
    if (!is_byte(t) || !scale_of(p, q, t, ret) || ret->many || !(float_at(p, ret->scale, 0) > 0) ||
        (act != NODE_NONE && !is_range(p, &p->g->nodes[act], ret, t == DT_INT8)))
        return NODE_NONE;
    *ret_act = act;
    return id;
}

/* Node id makes what the quantiser made. */
static void absorb(struct pass *p, uint32_t id, uint32_t act, uint32_t q)
{
    if (act != NODE_NONE)
        p->g->nodes[act].op = OP_NONE;
    pass_absorb(p, id, q);
}

static int become(struct pass *p, uint32_t id, enum op_id op, const struct scaled *x,
                  const struct scaled *w, const struct scaled *y, uint32_t bias)
{
    const uint32_t in[] = {x->x,    x->scale, x->zero, w->x, w->scale,
                           w->zero, y->scale, y->zero, bias};
    struct node *n = &p->g->nodes[id];
    struct attr *attr = n->attr;
    uint32_t n_attr = n->n_attr, n_in = ARRAY_SIZE(in) - (bias == VALUE_NONE);

    if (pass_become(p, id, op, n_in, in) < 0)
        return -ENOMEM;
    n->opset = MAX(n->opset, 10u);
    if (op == OP_QLinearConv) { /* its attributes are those of Conv */
        n->attr = attr;
        n->n_attr = n_attr;
    }
    p->report->quantised++;
    return 0;
}

/* ---- bias: INT32 in units of x_scale * w_scale */

static double bias_at(const struct pass *p, const struct node *dq, uint32_t v, int64_t i)
{
    int32_t q;

    if (!dq)
        return (double)float_at(p, v, i);
    memcpy(&q, (const char *)pass_constant(p, dq->in[0])->t.data + i * (int64_t)sizeof(q),
           sizeof(q));
    bool many = elems(pass_constant(p, dq->in[1])) != 1;
    return (double)q * (double)float_at(p, dq->in[1], many ? i : 0);
}

/* No zero point, or one that is 0 in all its bytes. */
static bool zero_is_none(const struct pass *p, const struct node *dq)
{
    const struct constant *zero = dq->n_in > 2 ? pass_constant(p, dq->in[2]) : NULL;

    for (size_t i = 0; zero && i < zero->t.bytes; i++)
        if (((const char *)zero->t.data)[i])
            return false;
    return zero || dq->n_in < 3 || dq->in[2] == VALUE_NONE;
}

/* The node that dequantises the bias, or NULL when it is FP32; *ret_ok: it is a constant of n. */
static const struct node *bias_source(const struct pass *p, uint32_t v, int64_t n, bool *ret_ok)
{
    uint32_t id = pass_made_by(p, v, OP_DequantizeLinear);
    const struct node *dq = id == NODE_NONE ? NULL : &p->g->nodes[id];
    const struct constant *c = pass_constant(p, dq ? dq->in[0] : v);
    const struct constant *scale = dq ? pass_constant(p, dq->in[1]) : NULL;

    *ret_ok = c && c->t.rank == 1 && elems(c) == n && (!dq || zero_is_none(p, dq)) &&
              c->t.dtype == (dq ? DT_INT32 : DT_FP32) &&
              (!dq || (scale && scale->t.dtype == DT_FP32 &&
                       (elems(scale) == 1 || (elems(scale) == n && scale->t.rank == 1))));
    return dq;
}

/* *ret: the bias as a value, VALUE_NONE where there is none.  0: it is none that fits; 1: it is. */
static int take_bias(struct pass *p, uint32_t v, int64_t n, const struct scaled *x,
                     const struct scaled *w, uint32_t *ret)
{
    struct tensor t = {0};
    bool ok;

    *ret = VALUE_NONE;
    if (v == VALUE_NONE)
        return 1;
    const struct node *dq = bias_source(p, v, n, &ok);
    if (!ok)
        return 0;
    if (tensor_shape(&t, DT_INT32, 1, &n) < 0 || !(t.data = arena_alloc(&p->g->arena, t.bytes)))
        return -ENOMEM;
    for (int64_t i = 0; i < n; i++) {
        double unit =
            (double)float_at(p, x->scale, 0) * (double)float_at(p, w->scale, w->many ? i : 0);
        double q = bias_at(p, dq, v, i) / unit;
        if (!(fabs(q) < 1 << 30))
            return 0;
        ((int32_t *)t.data)[i] = (int32_t)nearbyint(q);
    }
    const char *name = arena_printf(&p->g->arena, "%s.bias", p->g->values[v].name);
    return !name || graph_add_const(p->g, name, &t, CONST_ARENA, ret) < 0 ? -ENOMEM : 1;
}

/* ---- the operators.  0, or -ENOMEM */

static bool is_weights(struct pass *p, uint32_t v, struct scaled *ret)
{
    return is_scaled(p, v, ret) && pass_constant(p, ret->x);
}

static uint32_t input_of(const struct node *n, uint32_t i)
{
    return i < n->n_in ? n->in[i] : VALUE_NONE;
}

static int take_conv(struct pass *p, uint32_t id)
{
    struct node *n = &p->g->nodes[id];
    struct scaled x, w, y;
    uint32_t act, bias;

    if (!is_one(p, n->in[0], &x) || !is_weights(p, n->in[1], &w) || (w.many && w.axis != 0))
        return 0;
    uint32_t q = quantiser(p, n->out[0], &y, &act);
    if (q == NODE_NONE)
        return 0;
    int r = take_bias(p, input_of(n, 2), pass_constant(p, w.x)->t.dims[0], &x, &w, &bias);
    if (r <= 0)
        return r;
    absorb(p, id, act, q);
    return become(p, id, OP_QLinearConv, &x, &w, &y, bias);
}

/* [N, K] to [K, N]. */
static int transpose(struct pass *p, uint32_t v, uint32_t *ret)
{
    const struct constant *c = pass_constant(p, v);
    struct hash128 key = hash_join(c->hash, hash_bytes("transposed", 10));
    int64_t rows = c->t.dims[0], cols = c->t.dims[1], dims[] = {cols, rows};
    const struct constant *made = made_find(p, key);
    struct tensor t = {0};

    if (!made) {
        const char *from = c->t.data;
        if (tensor_shape(&t, c->t.dtype, 2, dims) < 0 || made_new(p, &t) < 0)
            return -ENOMEM;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++)
                ((char *)t.data)[j * rows + i] = from[i * cols + j];
        made = made_add(p, key, &t);
    }
    const char *name = arena_printf(&p->g->arena, "%s.transposed", p->g->values[v].name);
    return made && name ? made_value(p, name, made, ret) : -ENOMEM;
}

static int take_product(struct pass *p, uint32_t id)
{
    struct node *n = &p->g->nodes[id];
    bool gemm = n->op == OP_Gemm, swap = gemm && node_int(n, "transB", 0);
    struct scaled x, w, y;
    uint32_t act, bias;

    if (gemm && (node_int(n, "transA", 0) || node_float(n, "alpha", 1) != 1 ||
                 (input_of(n, 2) != VALUE_NONE && node_float(n, "beta", 1) != 1)))
        return 0;
    if (!is_one(p, n->in[0], &x) || !is_weights(p, n->in[1], &w) ||
        pass_constant(p, w.x)->t.rank != 2)
        return 0;
    const struct tensor *t = &pass_constant(p, w.x)->t;
    int64_t columns = swap ? 0 : 1;
    if (w.many && w.axis != columns && w.axis != columns - 2)
        return 0;
    uint32_t q = quantiser(p, n->out[0], &y, &act);
    if (q == NODE_NONE)
        return 0;
    int r = take_bias(p, input_of(n, 2), t->dims[columns], &x, &w, &bias);
    if (r <= 0 || (swap && (r = transpose(p, w.x, &w.x)) < 0))
        return r;
    absorb(p, id, act, q);
    return become(p, id, OP_QLinearMatMul, &x, &w, &y, bias);
}

static int take_add(struct pass *p, uint32_t id)
{
    struct node *n = &p->g->nodes[id];
    struct scaled a, b, y;
    uint32_t act;

    if (node_attr(n, "axis") || !is_one(p, n->in[0], &a) || !is_one(p, n->in[1], &b))
        return 0;
    uint32_t q = quantiser(p, n->out[0], &y, &act);
    if (q == NODE_NONE)
        return 0;
    absorb(p, id, act, q);
    return become(p, id, OP_QLinearAdd, &a, &b, &y, VALUE_NONE);
}

static bool same_bytes(const struct pass *p, uint32_t a, uint32_t b)
{
    const struct tensor *s = &pass_constant(p, a)->t, *t = &pass_constant(p, b)->t;

    return s->dtype == t->dtype && s->bytes == t->bytes && memcmp(s->data, t->data, s->bytes) == 0;
}

/* What only moves or chooses elements. */
static int take_move(struct pass *p, uint32_t id)
{
    struct node *n = &p->g->nodes[id];
    struct scaled x, y;
    uint32_t act;

    if ((n->n_out > 1 && n->out[1] != VALUE_NONE) || !is_one(p, n->in[0], &x))
        return 0;
    uint32_t q = quantiser(p, n->out[0], &y, &act);
    if (q == NODE_NONE || act != NODE_NONE || !same_bytes(p, x.scale, y.scale) ||
        !same_bytes(p, x.zero, y.zero))
        return 0;
    if (n->op == OP_MaxPool)
        n->opset = MAX(n->opset, 12u); /* the first with bytes; nothing else changed */
    absorb(p, id, act, q);
    n->in[0] = x.x;
    return 0;
}

static int take(struct pass *p, uint32_t id)
{
    const struct node *n = &p->g->nodes[id];

    if (n->n_post || n->n_out == 0 || n->out[0] == VALUE_NONE)
        return 0;
    switch (n->op) {
    case OP_Conv:
        return take_conv(p, id);
    case OP_Gemm:
    case OP_MatMul:
        return take_product(p, id);
    case OP_Add:
        return take_add(p, id);
    case OP_MaxPool:
    case OP_Reshape:
    case OP_Flatten:
    case OP_Transpose:
    case OP_Squeeze:
    case OP_Unsqueeze:
        return take_move(p, id);
    default:
        return 0;
    }
}

static bool is_quantised(const struct graph *g)
{
    for (uint32_t i = 0; i < g->n_nodes; i++)
        switch (g->nodes[i].op) {
        case OP_DequantizeLinear:
        case OP_QLinearConv:
        case OP_QLinearMatMul:
        case OP_QuantizeLinear:
            return true;
        default:
            break;
        }
    return false;
}

int graph_quantise_into(struct graph *g, struct prepared *prepared, struct model_report *report,
                        struct err *err)
{
    struct pass p = {.g = g, .prepared = prepared, .report = report, .err = err};
    int r = 0;

    if (!is_quantised(g))
        return err_set(err, -ENOTSUP,
                       "precision 'int8': the model has no QuantizeLinear or DequantizeLinear; it "
                       "must have been quantised before");
    r = pass_count(&p);
    for (uint32_t id = 0; id < g->n_nodes && r == 0; id++)
        r = take(&p, id);
    return r < 0 ? err_set(err, r, "out of memory while quantising %u nodes", g->n_nodes) : 0;
}

int graph_quantise(struct graph *g, struct model_report *report, struct err *err)
{
    struct prepared none = {.data = &g->arena};

    arena_init(&none.scratch);
    int r = graph_quantise_into(g, &none, report, err);
    prepared_done(&none);
    return r;
}
