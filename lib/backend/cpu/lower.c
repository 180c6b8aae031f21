/* Nodes that become oneDNN primitives.
 *
 * Convolutions keep channels in blocks from the first to the last pooling: the library's own
 * choice (`any`) mixes layouts with reorders between.  Layouts are therefore tried in an order
 * of ours, and what only the library's reference loops could do is refused by dnnl.c. */
#include "lower.h"

static const struct tensor *in_tensor(const struct build *b, const struct node *n, uint32_t i)
{
    return i < n->n_in ? build_tensor(b, n->in[i]) : NULL;
}

static bool all_fp32(const struct build *b, const struct node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != VALUE_NONE && build_tensor(b, n->in[i])->dtype != DT_FP32)
            return false;
    return true;
}

static bool empty(const struct tensor *t)
{
    return t->bytes == 0;
}

/* ---- post steps */

static const struct {
    bool eltwise;
    enum dn_fn fn;
} post_fn[] = {
    [POST_ADD] = {false, 0},
    [POST_RELU] = {true, DN_RELU},
    [POST_CLIP] = {true, DN_CLIP},
    [POST_GELU] = {true, DN_GELU},
    [POST_TANH] = {true, DN_TANH},
    [POST_SIGMOID] = {true, DN_SIGMOID},
    [POST_HARDSWISH] = {true, DN_HARDSWISH},
    [POST_SILU] = {true, DN_SILU},
    [POST_GELU_TANH] = {true, DN_GELU_TANH},
};

/* A primitive's fused steps, and the arguments that they bring. */
struct fused {
    uint32_t n;
    uint32_t taken; /* of the node's post steps, how many from the first */
    struct dn_post post[DN_MAX_POST];
    struct layout operand[DN_MAX_POST];
    struct ref ref[DN_MAX_POST];
    struct ref dst; /* of the residual that is summed into, or REF_NONE */
};

static void fuse_eltwise(struct fused *f, enum dn_fn fn, float alpha, float beta)
{
    f->post[f->n++] =
        (struct dn_post){.kind = DN_ELTWISE, .alg = dn_eltwise(fn), .alpha = alpha, .beta = beta};
}

static void fuse_operand(struct fused *f, struct ref ref, const struct layout *layout)
{
    f->operand[f->n] = *layout;
    f->ref[f->n] = ref;
    f->post[f->n] = (struct dn_post){.kind = DN_ADD};
    f->n++;
}

/* A residual: written over where it lies in the result's layout and nobody else reads it, else
 * read beside. */
static int fuse_add(struct build *b, struct fused *f, uint32_t v, const struct layout *dst)
{
    struct ref ref;
    int r = build_in(b, v, dst, &ref);

    if (r < 0)
        return r;
    if (f->n == 0 && build_dies(b, ref)) { /* kernels read what they sum into at the start */
        f->dst = ref;
        f->post[f->n++] = (struct dn_post){.kind = DN_SUM};
    } else {
        fuse_operand(f, ref, dst);
    }
    return 0;
}

/* All of them; or, for products, up to an addition behind something else, which oneDNN 2.6
 * (gemm:jit) gets wrong. */
static int fuse_posts(struct build *b, struct fused *f, const struct node *n,
                      const struct layout *dst, bool add_anywhere)
{
    for (uint32_t i = 0; i < n->n_post; i++) {
        const struct post *p = &n->post[i];
        int r = 0;
        if (post_fn[p->kind].eltwise)
            fuse_eltwise(f, post_fn[p->kind].fn, p->kind == POST_SILU ? 1 : p->alpha, p->beta);
        else if (f->n == 0 || add_anywhere)
            r = fuse_add(b, f, p->value, dst);
        else
            return 0;
        if (r < 0)
            return r;
        f->taken++;
    }
    return 0;
}

/* The descriptors point into the struct itself, so that it can be copied until here. */
static void fused_point(const struct fused *f, struct dn_post *post)
{
    for (uint32_t i = 0; i < f->n; i++) {
        post[i] = f->post[i];
        post[i].operand = &f->operand[i];
    }
}

static uint32_t fused_args(const struct fused *f, struct arg *args)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < f->n; i++)
        if (f->post[i].kind == DN_ADD)
            args[n++] = (struct arg){DNNL_ARG_ATTR_MULTIPLE_POST_OP((int)i) | DNNL_ARG_SRC_1,
                                     f->ref[i], &f->operand[i].md};
    return n;
}

static int fused_dst(struct build *b, const struct fused *f, size_t bytes, struct ref *ret)
{
    uint32_t buf;

    *ret = f->dst;
    if (f->dst.kind != REF_NONE)
        return 0;
    int r = build_buf(b, bytes, &buf);
    *ret = ref_buf(buf);
    return r;
}

/* ---- windows: what convolution and pooling have in common */

static void ints_or(const struct node *n, const char *name, uint32_t count, int64_t absent,
                    int64_t *ret)
{
    uint32_t have;
    const int64_t *v = node_ints(n, name, &have);

    for (uint32_t i = 0; i < count; i++)
        ret[i] = i < have ? v[i] : absent;
}

int window_of(const struct node *n, const struct tensor *x, const struct tensor *y,
              const int64_t *kernel, struct window *w)
{
    const char *automatic = node_str(n, "auto_pad", "NOTSET");
    int64_t pads[6];

    if (x->rank < 3 || x->rank > 5)
        return -ENOTSUP;
    w->spatial = x->rank - 2;
    ints_or(n, "strides", w->spatial, 1, w->stride);
    ints_or(n, "dilations", w->spatial, 1, w->dilate);
    ints_or(n, "pads", 2 * w->spatial, 0, pads);
    bool given = STREQ(automatic, "NOTSET");
    for (uint32_t i = 0; i < w->spatial; i++) {
        int64_t reach = (kernel[i] - 1) * w->dilate[i] + 1;
        int64_t need = (y->dims[2 + i] - 1) * w->stride[i] + reach - x->dims[2 + i];
        int64_t half = MAX(need, 0) / 2;
        w->kernel[i] = kernel[i];
        if (given)
            w->lo[i] = pads[i];
        else if (STREQ(automatic, "VALID"))
            w->lo[i] = 0;
        else
            w->lo[i] = STREQ(automatic, "SAME_LOWER") ? MAX(need, 0) - half : half;
        /* ceil_mode can need more than is given; floor can leave some unread */
        w->hi[i] = MAX(need - w->lo[i], given ? pads[w->spatial + i] : 0);
    }
    return 0;
}

/* ---- convolution */

struct conv_shape {
    const struct tensor *x, *w, *y;
    int64_t groups, in_per, out_per;
    bool depthwise;
    enum dtype src, weights, dst; /* in which it is computed */
    uint32_t weights_rank;
    int64_t weights_dims[MAX_RANK];
};

static void conv_shape(const struct build *b, const struct node *n, struct conv_shape *s)
{
    *s = (struct conv_shape){.x = in_tensor(b, n, 0),
                             .w = in_tensor(b, n, 1),
                             .y = build_tensor(b, n->out[0]),
                             .groups = node_int(n, "group", 1),
                             .src = DT_FP32,
                             .weights = DT_FP32,
                             .dst = DT_FP32};
    s->in_per = s->w->dims[1];
    s->out_per = s->w->dims[0] / s->groups;
    s->depthwise = s->groups > 1 && s->in_per == 1 && s->out_per == 1;
    if (s->groups > 1)
        s->weights_dims[s->weights_rank++] = s->groups;
    s->weights_dims[s->weights_rank++] = s->out_per;
    s->weights_dims[s->weights_rank++] = s->in_per;
    for (uint32_t i = 2; i < s->w->rank; i++)
        s->weights_dims[s->weights_rank++] = s->w->dims[i];
}

enum form { FORM_END, FORM_ROWS, FORM_BLOCKED, FORM_ANY };
struct forms {
    enum form src, dst;
};
static const struct forms forms_first[] = {{FORM_ROWS, FORM_BLOCKED},
                                           {FORM_BLOCKED, FORM_BLOCKED},
                                           {FORM_ANY, FORM_ANY},
                                           {FORM_ROWS, FORM_ROWS},
                                           {FORM_END, FORM_END}};
static const struct forms forms_inner[] = {{FORM_BLOCKED, FORM_BLOCKED},
                                           {FORM_ANY, FORM_ANY},
                                           {FORM_ROWS, FORM_ROWS},
                                           {FORM_END, FORM_END}};
/* Groups narrower than a block: blocked would be the library's reference loops. */
static const struct forms forms_grouped[] = {
    {FORM_ANY, FORM_ANY}, {FORM_ROWS, FORM_ROWS}, {FORM_END, FORM_END}};

static const struct forms *conv_forms(const struct build *b, const struct conv_shape *s)
{
    int64_t block = b->part->dev->dn.block;

    if (s->groups == 1)
        return s->in_per <= 4 ? forms_first : forms_inner;
    if (s->depthwise || (s->in_per % block == 0 && s->out_per % block == 0))
        return forms_inner;
    return forms_grouped;
}

static int form_layout(enum form f, const struct tensor *t, enum dtype dtype, struct layout *ret)
{
    typedef int layout_fn(struct layout * ret, uint32_t rank, const int64_t *dims);
    static layout_fn *const make[] = {
        [FORM_ROWS] = layout_rows, [FORM_BLOCKED] = layout_blocked, [FORM_ANY] = layout_any};

    if (f == FORM_END || make[f](ret, t->rank, t->dims) < 0)
        return -ENOTSUP;
    layout_as(ret, dtype);
    return 0;
}

#define WINO_TILES_MIN                                                                             \
    32 /* of 4x4 results: fewer do not pay for reading weights 4 times as large */

/* Winograd pays for 3x3 at stride 1 wherever its weights, 4 times as large, are read for enough
 * results; for fewer its form with weights 1.8 times as large, which the library offers only
 * there.  Measured on AVX-512 with weights that are not in the cache: 0.33 to 0.8 of the direct
 * form's time in the first case, 0.5 to 0.65 in the second.  Few input channels at many pixels do
 * not pay for the transformation.  Elsewhere asking for either form fails and costs nothing. */
static enum dn_conv_alg conv_alg(const struct build *b, const struct conv_shape *s,
                                 const struct window *w)
{
    if (!b->part->dev->dn.winograd || s->src != DT_FP32 || s->groups != 1 || w->spatial != 2 ||
        s->in_per < 16 || s->out_per < 32)
        return DN_DIRECT;
    for (int i = 0; i < 2; i++)
        if (w->kernel[i] != 3 || w->stride[i] != 1 || w->dilate[i] != 1)
            return DN_DIRECT;
    int64_t tiles = s->y->dims[0] * ((s->y->dims[2] + 3) / 4) * ((s->y->dims[3] + 3) / 4);
    if (s->in_per < 48 && tiles > 1000)
        return DN_DIRECT;
    return tiles >= WINO_TILES_MIN ? DN_WINO_4X3 : DN_WINO_2X3;
}

static int conv_try(struct build *b, struct dn_conv *c, enum dn_conv_alg alg, struct prim *ret)
{
    c->alg = alg;
    if (alg != DN_DIRECT && dn_conv(&b->part->dev->dn, c, ret) == 0)
        return 0;
    c->alg = DN_DIRECT;
    return dn_conv(&b->part->dev->dn, c, ret);
}

/* One pair of layouts; first with the post steps inside, then, in FP32, with them behind. */
static int conv_form(struct build *b, const struct node *n, const struct conv_shape *s,
                     struct dn_conv *c, const struct forms *form, enum dn_conv_alg alg,
                     struct fused *f, struct prim *ret)
{
    *f = (struct fused){0};
    if (form_layout(form->src, s->x, s->src, &c->src) < 0 ||
        form_layout(form->dst, s->y, s->dst, &c->dst) < 0)
        return -ENOTSUP;
    c->n_post = 0;
    if (form->dst == FORM_ANY && n->n_post > 0) { /* what would it be? */
        if (conv_try(b, c, alg, ret) < 0)
            return -ENOTSUP;
        c->src = ret->src;
        c->dst = ret->dst;
        prim_done(ret);
    }
    if (n->n_post > 0) {
        int r = fuse_posts(b, f, n, &c->dst, true);
        if (r < 0)
            return r;
        fused_point(f, c->post);
        c->n_post = f->n;
        if (conv_try(b, c, alg, ret) == 0)
            return 0;
        if (s->dst != DT_FP32)
            return -ENOTSUP;
    }
    *f = (struct fused){0};
    c->n_post = 0;
    return conv_try(b, c, alg, ret);
}

static int conv_weights(struct build *b, const struct node *n, const struct conv_shape *s,
                        const struct prim *p, struct ref *ret)
{
    struct layout is;

    if (layout_rows(&is, s->weights_rank, s->weights_dims) < 0)
        return build_fail(b, -ENOTSUP, "weights of this rank");
    if (b->graph->values[n->in[1]].constant)
        return build_const(b, n->in[1], &is, &p->weights, ret);
    if (s->groups > 1 && !layout_same(&is, &p->weights))
        return build_fail(b, -ENOTSUP, "grouped convolution with weights that are not constant");
    return build_in(b, n->in[1], &p->weights, ret);
}

static int conv_emit(struct build *b, const struct node *n, const struct conv_shape *s,
                     const struct dn_conv *c, const struct fused *f, struct prim *p)
{
    struct arg args[DN_MAX_POST + 4];
    struct ref src, weights, dst, bias = {0};
    uint32_t k = fused_args(f, args);
    int64_t bias_dims[] = {c->bias_dim};
    struct layout bias_layout;

    int r = build_in(b, n->in[0], &p->src, &src);
    if (r == 0)
        r = conv_weights(b, n, s, p, &weights);
    if (r == 0 && c->bias)
        r = build_rows(b, n->in[2], &bias);
    if (r == 0)
        r = fused_dst(b, f, p->dst.bytes, &dst);
    if (r < 0) {
        prim_done(p);
        return r;
    }
    args[k++] = (struct arg){DNNL_ARG_SRC, src, &p->src.md};
    args[k++] = (struct arg){DNNL_ARG_WEIGHTS, weights, &p->weights.md};
    args[k++] = (struct arg){DNNL_ARG_DST, dst, &p->dst.md};
    if (c->bias && layout_rows(&bias_layout, 1, bias_dims) == 0)
        args[k++] = (struct arg){DNNL_ARG_BIAS, bias, &bias_layout.md};
    struct layout dst_layout = p->dst;
    r = build_conv(b, c, p, k, args);
    return r < 0 ? r : build_set(b, n->out[0], dst, &dst_layout);
}

/* Post steps that the primitive did not take. */
static int posts_behind(struct build *b, const struct node *n, uint32_t from)
{
    struct ref rows;
    int r = from < n->n_post ? build_rows(b, n->out[0], &rows) : 0;

    if (r < 0 || from == n->n_post)
        return r;
    b->value[n->out[0]].native.kind = REF_NONE; /* from here on it lacks them */
    return build_posts(b, n, from, rows);
}

/* The first pair of layouts that the library has more than reference loops for. */
static int conv_make(struct build *b, const struct node *n, const struct conv_shape *s,
                     const struct window *w, struct dn_conv *c, struct fused *f, struct prim *ret)
{
    enum dn_conv_alg alg = conv_alg(b, s, w);
    int r = -ENOTSUP;

    if (layout_any(&c->weights, s->weights_rank, s->weights_dims) < 0)
        return -ENOTSUP;
    layout_as(&c->weights, s->weights);
    for (const struct forms *form = conv_forms(b, s); form->src != FORM_END && r < 0; form++)
        r = conv_form(b, n, s, c, form, alg, f, ret);
    return r;
}

static int conv_half(struct build *b, const struct node *n, const struct conv_shape *s,
                     const struct window *w, struct dn_conv *c, struct fused *f, struct prim *ret)
{
    struct conv_shape half = *s;

    half.src = half.weights = DT_BF16;
    half.dst = half_wanted(b, n->out[0]) ? DT_BF16 : DT_FP32;
    int r = conv_make(b, n, &half, w, c, f, ret);
    b->exe->n_asked += r == 0;
    return r;
}

int lower_conv(struct build *b, const struct node *n)
{
    struct conv_shape s;
    struct window w;
    struct fused f;
    struct prim p;

    conv_shape(b, n, &s);
    if (!all_fp32(b, n) || empty(s.x) || empty(s.y) || empty(s.w))
        return -ENOTSUP;
    if (window_of(n, s.x, s.y, s.w->dims + 2, &w) < 0)
        return -ENOTSUP;
    struct dn_conv c = {.spatial = w.spatial, .bias_dim = s.w->dims[0]};
    c.bias = in_tensor(b, n, 2) != NULL;
    memcpy(c.stride, w.stride, sizeof(c.stride));
    memcpy(c.dilate, w.dilate, sizeof(c.dilate));
    memcpy(c.pad_lo, w.lo, sizeof(c.pad_lo));
    memcpy(c.pad_hi, w.hi, sizeof(c.pad_hi));
    int r = half_node(b, n) ? conv_half(b, n, &s, &w, &c, &f, &p) : -ENOTSUP;
    if (r < 0)
        r = conv_make(b, n, &s, &w, &c, &f, &p);
    if (r < 0)
        return build_fail(b, r, "no implementation but the library's reference loops");
    r = conv_emit(b, n, &s, &c, &f, &p);
    return r < 0 ? r : posts_behind(b, n, f.taken);
}

/* ---- pooling */

/* The library pads by numbers; what ONNX means by ceil_mode it can only do where the pads that
 * result are not counted. */
static bool pool_fits(const struct node *n, const struct window *w, bool max, bool count_pads)
{
    int64_t pads[6];

    ints_or(n, "pads", 2 * w->spatial, 0, pads);
    for (uint32_t i = 0; i < w->spatial; i++) {
        if (w->lo[i] >= w->kernel[i] || w->hi[i] >= w->kernel[i] || w->lo[i] < 0)
            return false;
        if (count_pads && w->hi[i] > pads[w->spatial + i])
            return false;
        if (!max && w->dilate[i] != 1)
            return false;
    }
    return true;
}

/* Is the value where the library pools well: channels in blocks, or bytes with channels last? */
static bool pools_there(const struct tensor *x, const struct where *w)
{
    return w->native.kind != REF_NONE &&
           (x->dtype == DT_FP32 ? w->layout->channel_block != 0
                                : w->layout->kind == LAYOUT_STRIDED &&
                                      (x->dtype == DT_INT8 || x->dtype == DT_UINT8));
}

int lower_pool(struct build *b, const struct node *n)
{
    const struct tensor *x = in_tensor(b, n, 0), *y = build_tensor(b, n->out[0]);
    const struct where *in = &b->value[n->in[0]];
    bool global = n->op == OP_GlobalAveragePool || n->op == OP_GlobalMaxPool;
    bool max = n->op == OP_MaxPool || n->op == OP_GlobalMaxPool;
    bool count = node_int(n, "count_include_pad", 0) != 0;
    uint32_t n_kernel;
    const int64_t *kernel = global ? x->dims + 2 : node_ints(n, "kernel_shape", &n_kernel);
    struct window w = {0};
    struct prim p;
    int joined = build_joined(b, n->in[0]);

    if (joined < 0)
        return joined;
    /* Row-major pooling is ours: the library's is no faster there, and would not block it. */
    if (empty(x) || empty(y) || !pools_there(x, in) || (n->n_out > 1 && n->out[1] != VALUE_NONE) ||
        !kernel || window_of(n, x, y, kernel, &w) < 0 || !pool_fits(n, &w, max, count))
        return -ENOTSUP;
    struct dn_pool d = {.max = max, .count_pads = count, .spatial = w.spatial, .src = *in->layout};
    memcpy(d.dst_dims, y->dims, sizeof(d.dst_dims));
    memcpy(d.kernel, w.kernel, sizeof(d.kernel));
    memcpy(d.stride, w.stride, sizeof(d.stride));
    memcpy(d.dilate, w.dilate, sizeof(d.dilate));
    memcpy(d.pad_lo, w.lo, sizeof(d.pad_lo));
    memcpy(d.pad_hi, w.hi, sizeof(d.pad_hi));
    if (dn_pool(&b->part->dev->dn, &d, &p) < 0)
        return -ENOTSUP;
    uint32_t buf;
    struct ref src = in->native;
    struct layout dst = p.dst;
    int r = build_buf(b, p.dst.bytes, &buf);
    if (r < 0) {
        prim_done(&p);
        return r;
    }
    const struct arg args[] = {{DNNL_ARG_SRC, src, &p.src.md},
                               {DNNL_ARG_DST, ref_buf(buf), &p.dst.md}};
    r = build_prim(b, &p, 2, args);
    if (r == 0)
        r = build_set(b, n->out[0], ref_buf(buf), &dst);
    return r < 0 ? r : posts_behind(b, n, 0);
}

/* ---- products */

struct product {
    const struct tensor *a, *w, *y;
    uint32_t rank; /* 2 when all can be seen as one matrix */
    struct layout src, weights, dst;
    struct ref src_ref, weights_ref;
    float alpha, beta;
    uint32_t addend; /* value: bias, or Gemm's C */
    struct layout addend_layout;
    struct ref addend_ref;
    bool bias; /* the addend fits the library's bias */
};

/* dims and strides of operand v seen with `rank` dimensions; vec: where a vector's 1 goes. */
struct view {
    int64_t dims[MAX_RANK], strides[MAX_RANK];
};

static void view_rows(uint32_t rank, struct view *v)
{
    int64_t n = 1;

    for (uint32_t i = rank; i-- > 0;) {
        v->strides[i] = n;
        n *= v->dims[i];
    }
}

static void view_operand(const struct where *w, const struct tensor *t, uint32_t rank,
                         bool row_vector, bool strided, struct view *v)
{
    uint32_t lead = t->rank >= 2 ? rank - t->rank : rank - 2;

    for (uint32_t i = 0; i < rank; i++)
        v->dims[i] = 1;
    if (t->rank == 1)
        v->dims[row_vector ? rank - 1 : rank - 2] = t->dims[0];
    else
        memcpy(v->dims + lead, t->dims, t->rank * sizeof(t->dims[0]));
    view_rows(rank, v);
    if (strided && w->native.kind != REF_NONE)
        for (uint32_t i = 0; i < t->rank; i++)
            v->strides[lead + i] = w->layout->strides[i];
}

static void view_swap(struct view *v)
{
    int64_t d = v->dims[0], s = v->strides[0];

    v->dims[0] = v->dims[1];
    v->strides[0] = v->strides[1];
    v->dims[1] = d;
    v->strides[1] = s;
}

/* [.., M, K] x [K, N] is one product of [.. * M, K]. */
static void view_flatten(struct view *v, uint32_t rank)
{
    int64_t m = 1;

    for (uint32_t i = 0; i + 1 < rank; i++)
        m *= v->dims[i];
    v->dims[1] = v->dims[rank - 1];
    v->dims[0] = m;
    view_rows(2, v);
}

/* A transposition that was never done is read through its strides. */
static bool is_strided(const struct build *b, uint32_t v)
{
    const struct where *w = &b->value[v];

    return w->native.kind != REF_NONE && w->layout->kind == LAYOUT_STRIDED &&
           w->layout->dtype == DT_FP32 && w->rows.kind == REF_NONE;
}

static int operand_ref(struct build *b, uint32_t v, bool strided, struct ref *ret)
{
    if (strided && is_strided(b, v)) {
        *ret = b->value[v].native;
        return 0;
    }
    return build_rows(b, v, ret);
}

static int product_views(struct build *b, const struct node *n, bool strided, struct product *p)
{
    bool gemm = n->op == OP_Gemm;
    bool one = p->w->rank <= 2;
    uint32_t rank = MAX(MAX(p->a->rank, p->w->rank), 2);
    struct view a, w, y;
    bool a_strided = strided && is_strided(b, n->in[0]) && (!one || p->a->rank == 2);
    bool w_strided = strided && is_strided(b, n->in[1]);

    if (rank > DN_MAX_RANK)
        return -ENOTSUP;
    view_operand(&b->value[n->in[0]], p->a, rank, true, a_strided, &a);
    view_operand(&b->value[n->in[1]], p->w, one ? 2 : rank, false, w_strided, &w);
    if (one && rank > 2)
        view_flatten(&a, rank);
    if (gemm && node_int(n, "transA", 0))
        view_swap(&a);
    if (gemm && node_int(n, "transB", 0))
        view_swap(&w);
    p->rank = one ? 2 : rank;
    for (uint32_t i = 0; i < p->rank; i++)
        y.dims[i] = MAX(a.dims[i], w.dims[i]);
    y.dims[p->rank - 2] = a.dims[p->rank - 2];
    y.dims[p->rank - 1] = w.dims[p->rank - 1];
    view_rows(p->rank, &y);
    if (layout_strided(&p->src, p->rank, a.dims, a.strides) < 0 ||
        layout_strided(&p->weights, p->rank, w.dims, w.strides) < 0 ||
        layout_strided(&p->dst, p->rank, y.dims, y.strides) < 0)
        return -ENOTSUP;
    int r = operand_ref(b, n->in[0], a_strided, &p->src_ref);
    return r < 0 || b->graph->values[n->in[1]].constant
               ? r
               : operand_ref(b, n->in[1], w_strided, &p->weights_ref);
}

/* Gemm's C, or the third operand that the passes give MatMul: seen with the result's rank. */
static int product_addend(const struct build *b, const struct node *n, struct product *p)
{
    const struct tensor *c = in_tensor(b, n, 2);
    int64_t dims[MAX_RANK];

    p->addend = VALUE_NONE;
    if (!c || p->beta == 0)
        return 0;
    if (c->rank > p->rank)
        return -ENOTSUP;
    for (uint32_t i = 0; i < p->rank; i++)
        dims[i] = i + c->rank >= p->rank ? c->dims[i + c->rank - p->rank] : 1;
    p->addend = n->in[2];
    p->bias = dims[p->rank - 1] == p->dst.dims[p->rank - 1];
    for (uint32_t i = 0; i + 1 < p->rank; i++)
        p->bias &= dims[i] == 1;
    return layout_rows(&p->addend_layout, p->rank, dims);
}

/* alpha*AB + beta*C as alpha * (AB + C'), where C' is C * beta/alpha, scaled now. */
static int addend_scaled(struct build *b, const struct product *p, struct ref *ret)
{
    const struct tensor *c = build_tensor(b, p->addend);
    const float *from = c->data;
    size_t n = c->bytes / sizeof(float);

    if (p->alpha == p->beta)
        return build_rows(b, p->addend, ret);
    if (!from)
        return -ENOTSUP; /* rare: our own kernel */
    float *to = ARENA_ARRAY(&b->exe->arena, float, n);
    if (!to)
        return build_fail(b, -ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        to[i] = from[i] * (p->beta / p->alpha);
    *ret = ref_const(to);
    return 0;
}

static int product_posts(struct build *b, const struct node *n, struct product *p, struct fused *f)
{
    int r = p->addend == VALUE_NONE ? 0 : addend_scaled(b, p, &p->addend_ref);

    if (r < 0)
        return r;
    if (p->addend != VALUE_NONE && !p->bias)
        fuse_operand(f, p->addend_ref, &p->addend_layout);
    if (p->alpha != 1)
        fuse_eltwise(f, DN_LINEAR, p->alpha, 0);
    return fuse_posts(b, f, n, &p->dst, false);
}

/* Rows of a matrix as pixels of an image, columns as channels that lie together. */
static int as_pixels(const struct layout *m, struct layout *ret)
{
    int64_t rows = m->dims[0], cols = m->dims[1];
    int64_t dims[] = {1, cols, 1, rows};
    int64_t strides[] = {rows * m->strides[0], m->strides[1], rows * m->strides[0], m->strides[0]};

    if (layout_strided(ret, 4, dims, strides) < 0)
        return -EINVAL;
    layout_as(ret, m->dtype);
    return 0;
}

/* With constant weights a product is a 1x1 convolution.  With AVX2 that is the only form for
 * which the library packs weights: against gemm:jit 1.1 times as fast at 128 rows, 3 at 8. */
static int product_as_conv(struct build *b, struct product *p, struct fused *f, struct prim *ret)
{
    struct dn_conv c = {.spatial = 2,
                        .stride = {1, 1},
                        .dilate = {1, 1},
                        .bias = p->bias,
                        .bias_dim = p->dst.dims[1],
                        .n_post = f->n};
    int64_t dims[] = {p->weights.dims[1], p->weights.dims[0], 1, 1};
    int64_t strides[] = {p->weights.strides[1], p->weights.strides[0], 1, 1};
    struct fused g = *f;
    struct layout from;

    if (p->src.strides[1] != 1 || as_pixels(&p->src, &c.src) < 0 ||
        as_pixels(&p->dst, &c.dst) < 0 || layout_any(&c.weights, 4, dims) < 0 ||
        layout_strided(&from, 4, dims, strides) < 0)
        return -ENOTSUP;
    layout_as(&c.weights, p->src.dtype);
    for (uint32_t i = 0; i < g.n; i++)
        if (g.post[i].kind == DN_ADD && as_pixels(&f->operand[i], &g.operand[i]) < 0)
            return -ENOTSUP;
    fused_point(&g, c.post);
    if (dn_conv(&b->part->dev->dn, &c, ret) < 0)
        return -ENOTSUP;
    if (strncmp(ret->impl, "jit", 3) != 0) {
        prim_done(ret);
        return -ENOTSUP;
    }
    p->weights = from;
    *f = g;
    return p->bias ? layout_rows(&p->addend_layout, 1, &c.bias_dim) : 0;
}

static int product_make(struct build *b, const struct node *n, struct product *p, struct fused *f,
                        struct prim *ret)
{
    struct dn *dn = &b->part->dev->dn;
    struct dn_matmul m = {.src = p->src, .weights = p->weights, .dst = p->dst, .n_post = f->n};

    fused_point(f, m.post);
    if (p->bias)
        m.bias = &p->addend_layout;
    if (b->graph->values[n->in[1]].constant && p->rank == 2) {
        if (layout_any(&m.weights, 2, p->weights.dims) < 0)
            return -ENOTSUP;
        layout_as(&m.weights, p->src.dtype);
        if (dn_matmul(dn, &m, ret) == 0) {
            if (strncmp(ret->impl, "brg", 3) == 0)
                return 0;
            prim_done(ret);
        }
        if (product_as_conv(b, p, f, ret) == 0)
            return 0;
        if (p->src.dtype == DT_FP32)
            m.weights = p->weights;
    }
    return dn_matmul(dn, &m, ret);
}

static int product_emit(struct build *b, const struct node *n, struct product *p,
                        const struct fused *f, struct prim *prim)
{
    struct arg args[DN_MAX_POST + 4];
    uint32_t k = fused_args(f, args);
    struct ref dst;
    int r = 0;

    if (b->graph->values[n->in[1]].constant)
        r = build_const(b, n->in[1], &p->weights, &prim->weights, &p->weights_ref);
    if (r == 0)
        r = fused_dst(b, f, p->dst.bytes, &dst);
    if (r < 0) {
        prim_done(prim);
        return r;
    }
    args[k++] = (struct arg){DNNL_ARG_SRC, p->src_ref, &prim->src.md};
    args[k++] = (struct arg){DNNL_ARG_WEIGHTS, p->weights_ref, &prim->weights.md};
    args[k++] = (struct arg){DNNL_ARG_DST, dst, &prim->dst.md};
    if (p->bias)
        args[k++] = (struct arg){DNNL_ARG_BIAS, p->addend_ref, &p->addend_layout.md};
    r = build_prim(b, prim, k, args);
    if (r == 0)
        r = build_set(b, n->out[0], dst, &p->dst);
    return r < 0 ? r : posts_behind(b, n, f->taken);
}

static bool adds(const struct node *n)
{
    for (uint32_t i = 0; i < n->n_post; i++)
        if (n->post[i].kind == POST_ADD)
            return true;
    return false;
}

/* [.. * M, K] x [K, N] in BF16.  A sum with a residual is left in FP32, as the residual is. */
static int product_half(struct build *b, const struct node *n, struct product *p)
{
    bool swap = n->op == OP_Gemm && node_int(n, "transB", 0);
    struct view a = {.dims = {1, p->a->dims[p->a->rank - 1]}}, w = {.dims = {0}};
    struct fused f = {0};
    struct prim prim;

    for (uint32_t i = 0; i + 1 < p->a->rank; i++)
        a.dims[0] *= p->a->dims[i];
    memcpy(w.dims, p->w->dims, 2 * sizeof(w.dims[0]));
    view_rows(2, &w);
    if (swap)
        view_swap(&w);
    int64_t y[] = {a.dims[0], w.dims[1]};
    p->rank = 2;
    if (layout_rows(&p->src, 2, a.dims) < 0 ||
        layout_strided(&p->weights, 2, w.dims, w.strides) < 0 || layout_rows(&p->dst, 2, y) < 0)
        return -ENOTSUP;
    layout_as(&p->src, DT_BF16);
    if (half_wanted(b, n->out[0]) && !adds(n))
        layout_as(&p->dst, DT_BF16);
    int r = product_addend(b, n, p);
    if (r == 0)
        r = product_posts(b, n, p, &f);
    if (r == 0)
        r = product_make(b, n, p, &f, &prim);
    if (r < 0)
        return r;
    r = build_in(b, n->in[0], &p->src, &p->src_ref);
    if (r < 0) {
        prim_done(&prim);
        return r;
    }
    b->exe->n_asked++;
    return product_emit(b, n, p, &f, &prim);
}

int lower_product(struct build *b, const struct node *n)
{
    struct product p = {.a = in_tensor(b, n, 0),
                        .w = in_tensor(b, n, 1),
                        .y = build_tensor(b, n->out[0]),
                        .alpha = n->op == OP_Gemm ? node_float(n, "alpha", 1) : 1,
                        .beta = n->op == OP_Gemm ? node_float(n, "beta", 1) : 1};
    struct prim prim;
    int r = -ENOTSUP;

    if (!all_fp32(b, n) || empty(p.a) || empty(p.w) || p.alpha == 0)
        return -ENOTSUP;
    if (half_node(b, n))
        r = product_half(b, n, &p);
    if (r != -ENOTSUP || b->err->code)
        return r;
    for (int strided = 1; strided >= 0; strided--) {
        struct fused f = {0};
        r = product_views(b, n, strided, &p);
        if (r == 0)
            r = product_addend(b, n, &p);
        if (r == 0)
            r = product_posts(b, n, &p, &f);
        if (r < 0)
            return r;
        if (product_make(b, n, &p, &f, &prim) == 0)
            return product_emit(b, n, &p, &f, &prim);
        bool lazy = is_strided(b, n->in[0]) || is_strided(b, n->in[1]);
        if (!lazy)
            break;
        r = build_rows(b, n->in[0], &p.src_ref);
        if (r == 0)
            r = build_rows(b, n->in[1], &p.weights_ref);
        if (r < 0)
            return r;
    }
    return -ENOTSUP;
}
