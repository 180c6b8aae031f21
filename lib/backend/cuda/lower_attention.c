/* Einsum, Attention, RotaryEmbedding. */
#include "exe.h"
#include <gpulet/einsum.h>
#include <math.h>

int lower_einsum(struct build *b, const struct node *n)
{
    int64_t dims[2][MAX_RANK], stride[2][3][MAX_RANK];
    uint32_t rank[2] = {0, 0};
    const struct tensor *in[EINSUM_MAX_IN];
    struct einsum_args a = {.n = 1, .n_inner = 1, .n_in = (int32_t)n->n_in};
    struct ref at[3], ry;
    struct einsum e;

    if (n->n_in > 3)
        return build_fail(b, -ENOTSUP, "more than three operands are not in the cuda backend");
    for (uint32_t i = 0; i < n->n_in; i++) {
        in[i] = in_of(b, n, i);
        if (!is_f32(in[i]))
            return build_no_type(b, in[i]->dtype);
    }
    int r = einsum_read(n, in, &e, b->err);
    if (r < 0)
        return err_wrap(b->err, "node '%s' (Einsum): ", n->name);
    for (uint32_t l = 0; l < e.n_labels; l++) {
        unsigned inner = l >= e.n_out;
        if (rank[inner] == MAX_RANK)
            return build_fail(b, -ENOTSUP, "more than 8 labels of a kind");
        dims[inner][rank[inner]] = e.size[l];
        for (uint32_t i = 0; i < n->n_in; i++)
            stride[inner][i][rank[inner]] = einsum_stride(&e, i, in[i], l);
        rank[inner]++;
        *(inner ? &a.n_inner : &a.n) *= e.size[l];
    }
    walk_make(&a.outer, rank[0], dims[0], n->n_in, stride[0]);
    walk_make(&a.inner, rank[1], dims[1], n->n_in, stride[1]);
    r = build_inputs(b, n, 3, at);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, einsum, a, HOLE(einsum, x[0], at[0]), HOLE(einsum, x[1], at[1]),
                        HOLE(einsum, x[2], at[2]), HOLE(einsum, y, ry));
}

/* ---- a tensor of heads: (batch, heads, rows, width), or (batch, rows, heads * width) */
struct heads {
    int64_t heads, rows, width;
    struct gpu_heads of;
};

static int heads_read(struct build *b, const struct tensor *t, int64_t heads, struct heads *ret)
{
    *ret = (struct heads){.heads = heads};
    if (!t)
        return 0;
    if (!is_f32(t))
        return build_no_type(b, t->dtype);
    if (t->rank != 3 && t->rank != 4)
        return build_fail(b, -EINVAL, "an input has neither three nor four dimensions");
    bool flat = t->rank == 3;
    ret->heads = flat ? heads : t->dims[1];
    if (ret->heads < 1 || (flat && t->dims[2] % ret->heads != 0))
        return build_fail(b, -EINVAL, "the number of heads does not divide the hidden size");
    ret->rows = t->dims[flat ? 1 : 2];
    ret->width = flat ? t->dims[2] / ret->heads : t->dims[3];
    ret->of = (struct gpu_heads){.batch = ret->heads * ret->rows * ret->width,
                                 .head = flat ? ret->width : ret->rows * ret->width,
                                 .row = flat ? ret->heads * ret->width : ret->width};
    return 0;
}

/* ---- Attention */
static int mask_read(struct build *b, const struct tensor *m, int64_t batch,
                     struct attention_args *a)
{
    const int64_t want[] = {batch, a->heads, a->rows, a->total};
    int64_t stride[MAX_RANK];

    if (!m)
        return 0;
    if (m->dtype != DT_BOOL && m->dtype != DT_FP32)
        return build_no_type(b, m->dtype);
    if (m->rank < 1 || m->rank > 4)
        return build_fail(b, -EINVAL, "the mask has a wrong rank");
    strides_of(m, stride);
    a->mask_type = (int32_t)m->dtype;
    a->mask_keys = m->dims[m->rank - 1] == 1 ? a->total : m->dims[m->rank - 1];
    for (uint32_t i = 0; i < m->rank; i++) {
        uint32_t d = 4 - m->rank + i;
        if (m->dims[i] != 1 && m->dims[i] != want[d] && !(d == 3 && m->dims[i] < want[d]))
            return build_fail(b, -EINVAL, "the mask does not fit queries and keys");
        a->mask_stride[d] = m->dims[i] == 1 ? 0 : stride[i];
    }
    return 0;
}

struct attention {
    struct heads q, k, v, past_k, past_v, y;
    int64_t batch;
    struct attention_args a;
};

static int attention_read(struct build *b, const struct node *n, struct attention *q)
{
    int64_t hq = node_int(n, "q_num_heads", 0), hk = node_int(n, "kv_num_heads", 0);
    const struct tensor *y = value_of(b, n->out[0]), *nonpad = in_of(b, n, 6);
    int r;

    *q = (struct attention){.batch = in_of(b, n, 0)->dims[0]};
    if ((r = heads_read(b, in_of(b, n, 0), hq, &q->q)) < 0 ||
        (r = heads_read(b, in_of(b, n, 1), hk, &q->k)) < 0 ||
        (r = heads_read(b, in_of(b, n, 2), hk, &q->v)) < 0 ||
        (r = heads_read(b, in_of(b, n, 4), hk, &q->past_k)) < 0 ||
        (r = heads_read(b, in_of(b, n, 5), hk, &q->past_v)) < 0 ||
        (r = heads_read(b, y, q->q.heads, &q->y)) < 0)
        return r;
    bool past = in_of(b, n, 4);
    if (q->q.heads % q->k.heads || q->k.width != q->q.width || q->v.rows != q->k.rows ||
        q->v.heads != q->k.heads || past != !!in_of(b, n, 5) ||
        in_of(b, n, 1)->dims[0] != q->batch || in_of(b, n, 2)->dims[0] != q->batch ||
        y->dims[0] != q->batch || q->y.rows != q->q.rows || q->y.width != q->v.width ||
        q->y.heads != q->q.heads ||
        (past && (in_of(b, n, 4)->dims[0] != q->batch || q->past_k.heads != q->k.heads ||
                  q->past_k.width != q->k.width || in_of(b, n, 5)->dims[0] != q->batch ||
                  q->past_v.rows != q->past_k.rows || q->past_v.heads != q->k.heads ||
                  q->past_v.width != q->v.width)))
        return build_fail(b, -EINVAL, "queries, keys and values do not go together");
    if (nonpad && (nonpad->dtype != DT_INT64 || past || count_of(nonpad) != q->batch))
        return build_fail(b, -EINVAL, "nonpad_kv_seqlen is not INT64, or does not fit");
    q->a = (struct attention_args){
        .n = q->batch * q->q.heads * q->q.rows,
        .heads = q->q.heads,
        .rows = q->q.rows,
        .total = q->k.rows + q->past_k.rows,
        .past = q->past_k.rows,
        .group = q->q.heads / q->k.heads,
        .width = q->q.width,
        .v_width = q->v.width,
        .left = node_int(n, "left_window_size", -1),
        .right = node_int(n, "right_window_size", -1),
        .of_q = q->q.of,
        .of_k = q->k.of,
        .of_v = q->v.of,
        .of_past_k = q->past_k.of,
        .of_past_v = q->past_v.of,
        .of_y = q->y.of,
        .scale = node_float(n, "scale", (float)(1 / sqrt((double)MAX(q->q.width, 1)))),
        .softcap = node_float(n, "softcap", 0),
        .causal = node_int(n, "is_causal", 0) != 0,
        .qk_mode = (int32_t)node_int(n, "qk_matmul_output_mode", 0)};
    return mask_read(b, in_of(b, n, 3), q->batch, &q->a);
}

/* Rows `first` on of a present tensor (batch, heads, total, width) from one of heads. */
static int present_part(struct build *b, const struct attention *q, const struct heads *h,
                        struct ref x, struct ref y, int64_t first)
{
    const int64_t dims[4] = {q->batch, h->heads, h->rows, h->width};
    int64_t each = q->a.total * h->width, stride[2][MAX_RANK];
    struct copy_args a = {.n = q->batch * h->heads * h->rows * h->width,
                          .to = first * h->width,
                          .size = sizeof(float)};

    memcpy(stride[0], ((const int64_t[]){h->of.batch, h->of.head, h->of.row, 1}), 4 * sizeof(each));
    memcpy(stride[1], ((const int64_t[]){h->heads * each, each, h->width, 1}), 4 * sizeof(each));
    walk_make(&a.walk, 4, dims, 2, stride);
    return STEP(b, copy, a, HOLE(copy, x, x), HOLE(copy, y, y));
}

static int present(struct build *b, const struct node *n, const struct attention *q,
                   const struct ref *in)
{
    struct ref y;
    int r = 0;

    for (uint32_t i = 0; i < 2 && r == 0; i++) { /* keys, values */
        if (i + 1 >= n->n_out || n->out[i + 1] == VALUE_NONE)
            continue;
        r = build_out(b, n->out[i + 1], &y);
        if (r == 0 && q->a.past > 0)
            r = present_part(b, q, i ? &q->past_v : &q->past_k, in[4 + i], y, 0);
        if (r == 0)
            r = present_part(b, q, i ? &q->v : &q->k, in[1 + i], y, q->a.past);
    }
    return r;
}

int lower_attention(struct build *b, const struct node *n)
{
    struct attention q;
    struct ref in[7], y, scores, qk = {0}, status = {.kind = REF_BUF, .buf = BUF_STATUS};
    int r = attention_read(b, n, &q);

    if (r < 0)
        return r;
    r = build_inputs(b, n, 7, in);
    if (r == 0)
        r = build_buf(b, (size_t)(q.a.n * q.a.total) * sizeof(float), &scores);
    if (r == 0)
        r = build_out(b, n->out[0], &y);
    if (r == 0 && n->n_out > 3 && n->out[3] != VALUE_NONE)
        r = build_out(b, n->out[3], &qk);
    if (r == 0)
        r = STEP(
            b, attention, q.a, HOLE(attention, q, in[0]), HOLE(attention, k, in[1]),
            HOLE(attention, v, in[2]), HOLE(attention, mask, in[3]), HOLE(attention, past_k, in[4]),
            HOLE(attention, past_v, in[5]), HOLE(attention, nonpad, in[6]), HOLE(attention, y, y),
            HOLE(attention, scores, scores), HOLE(attention, qk, qk), HOLE(attention, bad, status));
    return r < 0 ? r : present(b, n, &q, in);
}

/* ---- RotaryEmbedding */
int lower_rotary(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *c = in_of(b, n, 1), *s = in_of(b, n, 2),
                        *ids = in_of(b, n, 3);
    struct ref in[4], y, status = {.kind = REF_BUF, .buf = BUF_STATUS};
    struct heads h;
    int r = heads_read(b, x, node_int(n, "num_heads", 0), &h);

    if (r < 0)
        return r;
    if (!is_f32(c) || !is_f32(s) || (ids && ids->dtype != DT_INT64))
        return build_no_type(b, !is_f32(c) ? c->dtype : !is_f32(s) ? s->dtype : ids->dtype);
    int64_t dim = node_int(n, "rotary_embedding_dim", 0), tokens = x->dims[0] * h.rows;
    dim = dim ? dim : h.width;
    if (dim < 0 || dim > h.width || dim % 2 != 0)
        return build_fail(b, -EINVAL, "rotary_embedding_dim is odd or larger than a head");
    struct rotary_args a = {.n = x->dims[0] * h.heads * h.rows * (dim / 2),
                            .heads = h.heads,
                            .rows = h.rows,
                            .half = dim / 2,
                            .positions = ids ? c->dims[0] : tokens,
                            .of = h.of,
                            .interleaved = node_int(n, "interleaved", 0) != 0};
    if (count_of(c) != a.positions * a.half || count_of(s) != count_of(c) ||
        (ids && count_of(ids) != tokens))
        return build_fail(b, -EINVAL, "input, tables and position_ids do not go together");
    struct copy_args whole = {.n = count_of(x), .size = sizeof(float)};
    int64_t dims[1] = {whole.n}, stride[2][MAX_RANK] = {{1}, {1}};
    walk_make(&whole.walk, 1, dims, 2, stride);
    r = build_inputs(b, n, 4, in);
    if (r == 0)
        r = build_out(b, n->out[0], &y);
    if (r == 0 && dim < h.width) /* what lies beyond stays */
        r = STEP(b, copy, whole, HOLE(copy, x, in[0]), HOLE(copy, y, y));
    return r < 0 ? r
                 : STEP(b, rotary, a, HOLE(rotary, x, in[0]), HOLE(rotary, cos, in[1]),
                        HOLE(rotary, sin, in[2]), HOLE(rotary, ids, in[3]), HOLE(rotary, y, y),
                        HOLE(rotary, bad, status));
}
