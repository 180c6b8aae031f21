/* QLinearConv, QLinearMatMul and QLinearAdd for precision = int8: the library's primitives on
 * bytes, channels last through whole chains.
 *
 * With VNNI their sums are exact and one rounding ends each, as in the reference.  Without, or with
 * weights that are unsigned or have zero points, our own kernels do the node (kernels/cpu). */
#include "lower.h"

#define MAX_INNER 32768 /* products of bytes; with a bias below 2^30 their sum fits INT32 */

struct scaling {
    float *scale; /* x_scale * w_scale / y_scale */
    struct dn_scaling dn;
};

static const struct tensor *known(const struct build *b, const struct node *n, uint32_t i)
{
    const struct tensor *t = build_tensor(b, n->in[i]);

    return t && t->data ? t : NULL;
}

static int64_t count(const struct tensor *t)
{
    int64_t n = 0;

    (void)tensor_count(t, &n);
    return n;
}

static int32_t zero_of(const struct tensor *t)
{
    return t->dtype == DT_INT8 ? *(const int8_t *)t->data : *(const uint8_t *)t->data;
}

static bool all_zero(const struct tensor *t)
{
    for (size_t i = 0; i < t->bytes; i++)
        if (((const char *)t->data)[i])
            return false;
    return true;
}

/* A constant of one number, or of as many as there are channels. */
static bool is_scale(const struct tensor *t, int64_t channels)
{
    return t && t->dtype == DT_FP32 && (count(t) == 1 || count(t) == channels);
}

static int scaling_read(struct build *b, const struct node *n, int64_t channels, struct scaling *s)
{
    const struct tensor *x = known(b, n, 1), *w = known(b, n, 4), *y = known(b, n, 6);
    const struct tensor *xz = known(b, n, 2), *wz = known(b, n, 5), *yz = known(b, n, 7);

    if (!is_scale(x, 1) || !is_scale(w, channels) || !is_scale(y, 1) || !xz || !wz || !yz ||
        count(xz) != 1 || count(yz) != 1 || wz->dtype != DT_INT8 || !all_zero(wz))
        return -ENOTSUP;
    s->dn = (struct dn_scaling){
        .n = (uint32_t)count(w), .src_zero = zero_of(xz), .dst_zero = zero_of(yz)};
    s->scale = ARENA_ARRAY(&b->scratch, float, s->dn.n);
    if (!s->scale)
        return build_fail(b, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < s->dn.n; i++)
        s->scale[i] =
            *(const float *)x->data * ((const float *)w->data)[i] / *(const float *)y->data;
    s->dn.scale = s->scale;
    return 0;
}

static bool takes_bytes(const struct build *b, const struct node *n)
{
    return b->precision == PRECISION_INT8 && b->part->dev->dn.vnni && n->n_post == 0 &&
           b->graph->values[n->in[3]].constant && build_tensor(b, n->in[0])->bytes &&
           build_tensor(b, n->out[0])->bytes;
}

/* Source, weights and bias are given to the primitive, the result is placed.  Takes p. */
static int emit(struct build *b, const struct node *n, struct prim *p, const struct layout *weights)
{
    struct layout dst = p->dst, bias_layout;
    struct ref src, w, bias = {0};
    struct arg args[4];
    uint32_t k = 0, buf;
    bool biased = n->n_in > 8 && n->in[8] != VALUE_NONE;
    int r = build_in(b, n->in[0], &p->src, &src);

    if (r == 0)
        r = build_const(b, n->in[3], weights, &p->weights, &w);
    if (r == 0 && biased)
        r = build_rows(b, n->in[8], &bias);
    if (r == 0)
        r = build_buf(b, dst.bytes, &buf);
    if (r < 0) {
        prim_done(p);
        return r;
    }
    args[k++] = (struct arg){DNNL_ARG_SRC, src, &p->src.md};
    args[k++] = (struct arg){DNNL_ARG_WEIGHTS, w, &p->weights.md};
    args[k++] = (struct arg){DNNL_ARG_DST, ref_buf(buf), &dst.md};
    if (biased && layout_rows(&bias_layout, 1, build_tensor(b, n->in[8])->dims) == 0) {
        layout_as(&bias_layout, DT_INT32);
        args[k++] = (struct arg){DNNL_ARG_BIAS, bias, &bias_layout.md};
    }
    r = build_prim(b, p, k, args);
    return r < 0 ? r : build_set(b, n->out[0], ref_buf(buf), &dst);
}

/* [N, C, spatial] with channels last. */
static int channels_last(const struct tensor *t, struct layout *ret)
{
    int64_t strides[MAX_RANK], n = t->dims[1];

    strides[1] = 1;
    for (uint32_t i = t->rank; i-- > 0;)
        if (i != 1) {
            strides[i] = n;
            n *= t->dims[i];
        }
    if (layout_strided(ret, t->rank, t->dims, strides) < 0)
        return -ENOTSUP;
    layout_as(ret, t->dtype);
    return 0;
}

/* [O, I, spatial], or [G, O / G, I, spatial], as the model has them and as the library likes. */
static int weights_layouts(const struct tensor *w, int64_t groups, struct layout *is,
                           struct layout *any)
{
    int64_t dims[MAX_RANK];
    uint32_t rank = 0;

    if (w->rank + 1 > MAX_RANK)
        return -ENOTSUP;
    if (groups > 1)
        dims[rank++] = groups;
    dims[rank++] = w->dims[0] / groups;
    for (uint32_t i = 1; i < w->rank; i++)
        dims[rank++] = w->dims[i];
    if (layout_rows(is, rank, dims) < 0 || layout_any(any, rank, dims) < 0)
        return -ENOTSUP;
    layout_as(is, DT_INT8);
    layout_as(any, DT_INT8);
    return 0;
}

static int lower_conv_bytes(struct build *b, const struct node *n)
{
    const struct tensor *x = build_tensor(b, n->in[0]), *w = build_tensor(b, n->in[3]);
    const struct tensor *y = build_tensor(b, n->out[0]);
    int64_t groups = node_int(n, "group", 1);
    struct layout is;
    struct scaling s;
    struct window win;
    struct prim p;

    if (w->dtype != DT_INT8 || count(w) / w->dims[0] > MAX_INNER ||
        window_of(n, x, y, w->dims + 2, &win) < 0)
        return -ENOTSUP;
    int r = scaling_read(b, n, w->dims[0], &s);
    struct dn_conv c = {.spatial = win.spatial,
                        .bias = n->n_in > 8 && n->in[8] != VALUE_NONE,
                        .bias_dim = w->dims[0],
                        .scaling = &s.dn};
    memcpy(c.stride, win.stride, sizeof(c.stride));
    memcpy(c.dilate, win.dilate, sizeof(c.dilate));
    memcpy(c.pad_lo, win.lo, sizeof(c.pad_lo));
    memcpy(c.pad_hi, win.hi, sizeof(c.pad_hi));
    if (r == 0)
        r = weights_layouts(w, groups, &is, &c.weights);
    if (r == 0 && (r = channels_last(x, &c.src)) == 0)
        r = channels_last(y, &c.dst);
    if (r == 0)
        r = dn_conv(&b->part->dev->dn, &c, &p);
    return r < 0 ? r : emit(b, n, &p, &is);
}

/* [.. * M, K] x [K, N]. */
static int lower_product_bytes(struct build *b, const struct node *n)
{
    const struct tensor *x = build_tensor(b, n->in[0]), *w = build_tensor(b, n->in[3]);
    struct layout is, bias;
    struct scaling s;
    struct prim p;

    if (w->dtype != DT_INT8 || w->rank != 2 || x->rank < 2 || w->dims[0] > MAX_INNER)
        return -ENOTSUP;
    int64_t k = w->dims[0], cols = w->dims[1], rows = count(x) / k;
    int64_t src[] = {rows, k}, dst[] = {rows, cols}, biases[] = {1, cols};
    struct dn_matmul m = {.scaling = &s.dn};
    int r = scaling_read(b, n, cols, &s);
    if (r < 0)
        return r;
    if (layout_rows(&m.src, 2, src) < 0 || layout_rows(&m.dst, 2, dst) < 0 ||
        layout_rows(&is, 2, w->dims) < 0 || layout_any(&m.weights, 2, w->dims) < 0 ||
        layout_rows(&bias, 2, biases) < 0)
        return -ENOTSUP;
    layout_as(&m.src, x->dtype);
    layout_as(&m.dst, build_tensor(b, n->out[0])->dtype);
    layout_as(&is, DT_INT8);
    layout_as(&m.weights, DT_INT8);
    layout_as(&bias, DT_INT32);
    if (n->n_in > 8 && n->in[8] != VALUE_NONE)
        m.bias = &bias;
    r = dn_matmul(&b->part->dev->dn, &m, &p);
    return r < 0 ? r : emit(b, n, &p, &is);
}

int lower_bytes(struct build *b, const struct node *n)
{
    if (!takes_bytes(b, n))
        return -ENOTSUP;
    return n->op == OP_QLinearConv ? lower_conv_bytes(b, n) : lower_product_bytes(b, n);
}

/* ---- QLinearAdd: our kernel, on whatever order the operands lie in */

static bool dims_equal(const struct tensor *a, const struct tensor *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, a->rank * sizeof(*a->dims)) == 0;
}

static const struct layout *order_of(const struct build *b, uint32_t v)
{
    const struct where *w = &b->value[v];

    return w->native.kind != REF_NONE && w->layout->kind == LAYOUT_STRIDED ? w->layout : NULL;
}

int lower_bytes_add(struct build *b, const struct node *n)
{
    enum { A = 0, B = 3, N_IN = 8 };
    const struct tensor *y = build_tensor(b, n->out[0]), *in[N_IN];
    const struct layout *order =
        order_of(b, n->in[A]) ? order_of(b, n->in[A]) : order_of(b, n->in[B]);
    struct tensor flat[3] = {*build_tensor(b, n->in[A]), *build_tensor(b, n->in[B]), *y};
    int64_t bytes = (int64_t)y->bytes;
    struct ref refs[N_IN + 1];
    struct cpu_call call;
    uint32_t buf;
    int r = 0;

    if (!order || n->n_post || !dims_equal(&flat[0], y) || !dims_equal(&flat[1], y))
        return -ENOTSUP;
    struct layout like = *order, dst = *order;
    for (uint32_t i = 0; i < N_IN && r == 0; i++) {
        in[i] = build_tensor(b, n->in[i]);
        layout_as(&like, in[i]->dtype == DT_INT8 ? DT_INT8 : DT_UINT8);
        r = i == A || i == B ? build_in(b, n->in[i], &like, &refs[i])
                             : build_rows(b, n->in[i], &refs[i]);
    }
    layout_as(&dst, y->dtype);
    if (r == 0)
        r = build_buf(b, y->bytes, &buf);
    if (r < 0)
        return r;
    for (int i = 0; i < 3; i++)
        (void)tensor_shape(&flat[i], flat[i].dtype, 1, &bytes);
    in[A] = &flat[0];
    in[B] = &flat[1];
    const struct tensor *out = &flat[2];
    const struct cpu_args args = {.node = n, .in = in, .out = &out, .arena = &b->exe->arena};
    r = cpu_plan(&args, &call, b->err);
    refs[N_IN] = ref_buf(buf);
    if (r == 0)
        r = build_call(b, &call, N_IN + 1, refs);
    return r < 0 ? r : build_set(b, n->out[0], refs[N_IN], &dst);
}
