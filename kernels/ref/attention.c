/* Attention of opsets 23 to 25 and RotaryEmbedding.
 *
 *   Q (B, Hq, S, E)  K (B, Hk, T, E)  V (B, Hk, T, F)  past_key (B, Hk, P, E)  past_value (.., F)
 *   Y (B, Hq, S, F)  present_key (B, Hk, P+T, E)  present_value (.., F)  qk (B, Hq, S, P+T)
 * Q, K, V and Y may instead be (B, S, Hq*E) and so on, with the heads in attributes.  Head h of Q
 * looks at head h / (Hq / Hk) of K.  A query that may see nothing gives a row of zeros.
 *
 * Query s stands at position s + offset among the keys: behind the past ones, or, where
 * nonpad_kv_seqlen (B) says how many keys of a sample are no padding, at the end of these.  Causal
 * and windows count from there. */
#include "kit.h"
#include <math.h>

/* ---- a tensor of heads, in either form */
struct heads {
    const struct tensor *t; /* NULL: none */
    int64_t heads, rows, width;
    bool flat; /* three dimensions */
};

static int heads_read(const struct node *n, const struct tensor *t, int64_t heads,
                      struct heads *ret, struct err *err)
{
    *ret = (struct heads){.t = t, .heads = heads, .flat = t && t->rank == 3};
    if (!t)
        return 0;
    if (t->rank != 3 && t->rank != 4)
        return ref_fail(n, err, -EINVAL, "an input has neither three nor four dimensions");
    if (t->rank == 4)
        ret->heads = t->dims[1];
    if (ret->heads < 1 || (ret->flat && t->dims[2] % ret->heads != 0))
        return ref_fail(n, err, -EINVAL, "the number of heads does not divide the hidden size");
    ret->rows = t->dims[ret->flat ? 1 : 2];
    ret->width = ret->flat ? t->dims[2] / ret->heads : t->dims[3];
    return 0;
}

static int64_t heads_at(const struct heads *h, int64_t batch, int64_t head, int64_t row)
{
    return (h->flat ? (batch * h->rows + row) * h->heads + head
                    : (batch * h->heads + head) * h->rows + row) *
           h->width;
}

static double heads_get(const struct heads *h, int64_t batch, int64_t head, int64_t row, int64_t i)
{
    return num_get(h->t, heads_at(h, batch, head, row) + i).f;
}

/* ---- attention */
struct attention {
    const struct node *n;
    struct heads q, k, v, past_k, past_v, y;
    const struct tensor *mask, *qk, *nonpad;
    int64_t batch, total; /* keys: past and new */
    int64_t mask_stride[4], mask_keys;
    double scale, softcap;
    bool causal;
    int64_t left, right; /* keys beside a query's position that it sees; -1: all */
    int64_t qk_mode;
};

static int mask_read(struct attention *a, struct err *err)
{
    const int64_t want[] = {a->batch, a->q.heads, a->q.rows, a->total};
    const struct tensor *m = a->mask;
    int64_t stride[MAX_RANK];

    if (!m)
        return 0;
    if (m->rank < 1 || m->rank > 4 || (m->dtype != DT_BOOL && ref_kind(m->dtype) != KIND_FLOAT))
        return ref_fail(a->n, err, -EINVAL, "the mask has a wrong rank or type");
    dense_strides(m, stride);
    a->mask_keys = m->dims[m->rank - 1] == 1 ? a->total : m->dims[m->rank - 1];
    for (uint32_t i = 0; i < m->rank; i++) {
        uint32_t d = 4 - m->rank + i;
        bool fits = m->dims[i] == 1 || m->dims[i] == want[d] || (d == 3 && m->dims[i] < want[d]);
        if (!fits)
            return ref_fail(a->n, err, -EINVAL, "the mask does not fit queries and keys");
        a->mask_stride[d] = m->dims[i] == 1 ? 0 : stride[i];
    }
    return 0;
}

static bool in_window(const struct attention *a, int64_t b, int64_t s, int64_t t)
{
    int64_t keys = a->nonpad ? num_get(a->nonpad, b).i : a->total;
    int64_t offset = a->nonpad ? keys - a->q.rows : a->past_k.t ? a->past_k.rows : 0;
    int64_t ahead = t - (s + offset);

    return t < keys && !(a->causal && ahead > 0) && !(a->right >= 0 && ahead > a->right) &&
           !(a->left >= 0 && -ahead > a->left);
}

/* What is added to the score of query s and key t; keys behind a short mask are not seen. */
static double bias_of(const struct attention *a, int64_t b, int64_t h, int64_t s, int64_t t)
{
    if (!in_window(a, b, s, t))
        return -(double)INFINITY;
    if (!a->mask)
        return 0;
    if (t >= a->mask_keys)
        return -(double)INFINITY;
    union num m = num_get(a->mask, b * a->mask_stride[0] + h * a->mask_stride[1] +
                                       s * a->mask_stride[2] + t * a->mask_stride[3]);
    if (a->mask->dtype == DT_BOOL)
        return m.u ? 0 : -(double)INFINITY;
    return m.f;
}

/* Element i of key or value t of the past and the new ones behind it. */
static double joined(const struct heads *past, const struct heads *now, int64_t b, int64_t h,
                     int64_t t, int64_t i)
{
    int64_t n_past = past->t ? past->rows : 0;

    return t < n_past ? heads_get(past, b, h, t, i) : heads_get(now, b, h, t - n_past, i);
}

static void put_qk(const struct attention *a, int64_t row, const double *v, int64_t mode)
{
    if (!a->qk || a->qk_mode != mode)
        return;
    for (int64_t t = 0; t < a->total; t++)
        num_put(a->qk, row * a->total + t, (union num){.f = v[t]});
}

/* w becomes the softmax of w + bias; zeros where no bias is above -infinity. */
static void weigh(const struct attention *a, double *w, const double *bias)
{
    double top = -(double)INFINITY, sum = 0;
    bool any = false;

    for (int64_t t = 0; t < a->total; t++) {
        any |= bias[t] > -(double)INFINITY;
        top = fmax(top, w[t]);
    }
    for (int64_t t = 0; t < a->total; t++) {
        w[t] = any ? exp(w[t] - top) : 0;
        sum += w[t];
    }
    for (int64_t t = 0; t < a->total && any; t++)
        w[t] /= sum;
}

static void attend(const struct attention *a, int64_t b, int64_t h, int64_t s, double *w,
                   double *bias)
{
    int64_t row = (b * a->q.heads + h) * a->q.rows + s, hk = h / (a->q.heads / a->k.heads);

    for (int64_t t = 0; t < a->total; t++) {
        w[t] = 0;
        for (int64_t i = 0; i < a->q.width; i++)
            w[t] += heads_get(&a->q, b, h, s, i) * joined(&a->past_k, &a->k, b, hk, t, i);
        w[t] *= a->scale;
        bias[t] = bias_of(a, b, h, s, t);
    }
    put_qk(a, row, w, 0);
    for (int64_t t = 0; t < a->total && a->softcap > 0; t++)
        w[t] = a->softcap * tanh(w[t] / a->softcap);
    put_qk(a, row, w, 1);
    for (int64_t t = 0; t < a->total; t++)
        w[t] += bias[t];
    put_qk(a, row, w, 2);
    weigh(a, w, bias);
    put_qk(a, row, w, 3);
    for (int64_t i = 0; i < a->v.width; i++) {
        double sum = 0;
        for (int64_t t = 0; t < a->total; t++)
            sum += w[t] * joined(&a->past_v, &a->v, b, hk, t, i);
        num_put(a->y.t, heads_at(&a->y, b, h, s) + i, (union num){.f = sum});
    }
}

static void put_present(const struct attention *a, const struct heads *past,
                        const struct heads *now, const struct tensor *to)
{
    int64_t at = 0;

    for (int64_t b = 0; to && b < a->batch; b++)
        for (int64_t h = 0; h < now->heads; h++)
            for (int64_t t = 0; t < a->total; t++)
                for (int64_t i = 0; i < now->width; i++)
                    num_put(to, at++, (union num){.f = joined(past, now, b, h, t, i)});
}

static int nonpad_read(const struct attention *a, struct err *err)
{
    const struct tensor *t = a->nonpad;
    int r = ref_shaped(a->n, t, 1, &a->batch, err);

    if (r < 0 || !t)
        return r;
    if (t->dtype != DT_INT64 || a->past_k.t)
        return ref_fail(a->n, err, -EINVAL, "nonpad_kv_seqlen is not INT64, or beside past keys");
    for (int64_t b = 0; b < a->batch; b++)
        if (num_get(t, b).i < 0 || num_get(t, b).i > a->total)
            return err_set(err, -EINVAL, "node '%s' (%s): nonpad_kv_seqlen has %lld (0 to %lld)",
                           a->n->name, op_name(a->n->op), (long long)num_get(t, b).i,
                           (long long)a->total);
    return 0;
}

static int attention_read(struct attention *a, const struct tensor *const *in,
                          struct tensor *const *out, struct err *err)
{
    const struct node *n = a->n;
    int64_t hq = node_int(n, "q_num_heads", 0), hk = node_int(n, "kv_num_heads", 0);
    int r;

    if ((r = heads_read(n, in[0], hq, &a->q, err)) < 0 ||
        (r = heads_read(n, in[1], hk, &a->k, err)) < 0 ||
        (r = heads_read(n, in[2], hk, &a->v, err)) < 0 ||
        (r = heads_read(n, ref_in(n, in, 4), hk, &a->past_k, err)) < 0 ||
        (r = heads_read(n, ref_in(n, in, 5), hk, &a->past_v, err)) < 0 ||
        (r = heads_read(n, out[0], a->q.heads, &a->y, err)) < 0)
        return r;
    a->batch = in[0]->dims[0];
    a->mask = ref_in(n, in, 3);
    a->qk = ref_out(n, out, 3);
    a->total = a->k.rows + (a->past_k.t ? a->past_k.rows : 0);
    a->scale = (double)node_float(n, "scale", (float)(1 / sqrt((double)MAX(a->q.width, 1))));
    a->softcap = (double)node_float(n, "softcap", 0);
    a->causal = node_int(n, "is_causal", 0) != 0;
    a->left = node_int(n, "left_window_size", -1);
    a->right = node_int(n, "right_window_size", -1);
    a->qk_mode = node_int(n, "qk_matmul_output_mode", 0);
    a->nonpad = ref_in(n, in, 6);
    int64_t B = a->batch, H = a->k.heads;
    if (a->q.heads % H != 0 || a->k.width != a->q.width || a->v.rows != a->k.rows ||
        a->v.heads != H || !a->past_k.t != !a->past_v.t)
        return ref_fail(n, err, -EINVAL, "queries, keys and values do not go together");
    int64_t F = a->v.width, P = a->past_k.rows;
    if ((r = ref_shaped(n, a->past_k.t, 4, (int64_t[]){B, H, P, a->k.width}, err)) < 0 ||
        (r = ref_shaped(n, a->past_v.t, 4, (int64_t[]){B, H, P, F}, err)) < 0 ||
        (r = ref_shaped(n, ref_out(n, out, 1), 4, (int64_t[]){B, H, a->total, a->k.width}, err)) <
            0 ||
        (r = ref_shaped(n, ref_out(n, out, 2), 4, (int64_t[]){B, H, a->total, F}, err)) < 0 ||
        (r = ref_shaped(n, a->qk, 4, (int64_t[]){B, a->q.heads, a->q.rows, a->total}, err)) < 0)
        return r;
    if (in[1]->dims[0] != B || in[2]->dims[0] != B || out[0]->dims[0] != B ||
        a->y.rows != a->q.rows || a->y.width != F || a->y.heads != a->q.heads)
        return ref_fail(n, err, -EINVAL, "the inputs and the output do not go together");
    return (r = nonpad_read(a, err)) < 0 ? r : mask_read(a, err);
}

REF_FN(ref_attention)
{
    struct attention a = {.n = n};
    const struct tensor *all[] = {in[0], in[1], in[2], ref_in(n, in, 4), ref_in(n, in, 5), out[0]};
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0 || (r = attention_read(&a, in, out, err)) < 0)
        return r;
    AUTO(ref_drop) double *w = ref_scratch(2 * (size_t)a.total + 1, sizeof(*w));
    if (!w)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    for (int64_t b = 0; b < a.batch; b++)
        for (int64_t h = 0; h < a.q.heads; h++)
            for (int64_t s = 0; s < a.q.rows; s++)
                attend(&a, b, h, s, w, w + a.total);
    put_present(&a, &a.past_k, &a.k, ref_out(n, out, 1));
    put_present(&a, &a.past_v, &a.v, ref_out(n, out, 2));
    return 0;
}

/* ---- rotary embedding
 * cos, sin (max position, R/2) with position_ids (B, S), or (B, S, R/2) without. */
static int cache_row(const struct node *n, const struct tensor *const *in, int64_t token,
                     int64_t *ret, struct err *err)
{
    const struct tensor *ids = ref_in(n, in, 3);

    *ret = token;
    if (!ids)
        return 0;
    *ret = num_get(ids, token).i;
    if (*ret >= 0 && *ret < in[1]->dims[0])
        return 0;
    return err_set(err, -EINVAL, "node '%s' (%s): position %lld of %lld", n->name, op_name(n->op),
                   (long long)*ret, (long long)in[1]->dims[0]);
}

static void rotate(const struct tensor *const *in, const struct tensor *y, int64_t at, int64_t row,
                   int64_t half, bool interleaved)
{
    for (int64_t i = 0; i < half; i++) {
        int64_t one = interleaved ? at + 2 * i : at + i, two = interleaved ? one + 1 : one + half;
        double c = num_get(in[1], row * half + i).f, s = num_get(in[2], row * half + i).f;
        double a = num_get(in[0], one).f, b = num_get(in[0], two).f;
        num_put(y, one, (union num){.f = c * a - s * b});
        num_put(y, two, (union num){.f = s * a + c * b});
    }
}

REF_FN(ref_rotary_embedding)
{
    const struct tensor *x = in[0], *ids = ref_in(n, in, 3);
    bool interleaved = node_int(n, "interleaved", 0) != 0;
    struct heads h;
    int64_t row;
    int r = ref_floats(n, in, 3, err);

    if (r < 0 || (r = heads_read(n, x, node_int(n, "num_heads", 0), &h, err)) < 0)
        return r;
    int64_t dim = node_int(n, "rotary_embedding_dim", 0), B = x->dims[0], S = h.rows;
    dim = dim ? dim : h.width;
    if (dim < 0 || dim > h.width || dim % 2 != 0)
        return ref_fail(n, err, -EINVAL, "rotary_embedding_dim is odd or larger than a head");
    const int64_t flat[] = {in[1]->dims[0], dim / 2}, deep[] = {B, S, dim / 2};
    for (unsigned i = 1; i < 3; i++)
        if ((r = ref_shaped(n, in[i], ids ? 2 : 3, ids ? flat : deep, err)) < 0)
            return r;
    if ((r = ref_shaped(n, ids, 2, deep, err)) < 0)
        return r;
    if (out[0]->dtype != x->dtype || out[0]->bytes != x->bytes || (ids && ids->dtype != DT_INT64))
        return ref_fail(n, err, -EINVAL, "input, output and position_ids do not go together");
    ref_copy(out[0]->data, x->data, x->bytes); /* what lies beyond dim stays */
    for (int64_t token = 0; token < B * S; token++) {
        if ((r = cache_row(n, in, token, &row, err)) < 0)
            return r;
        for (int64_t k = 0; k < h.heads; k++)
            rotate(in, out[0], heads_at(&h, token / S, k, token % S), row, dim / 2, interleaved);
    }
    return 0;
}
