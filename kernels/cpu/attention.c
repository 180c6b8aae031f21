/* Attention and RotaryEmbedding in FP32; shapes and windows as in kernels/ref/attention.c.
 *
 * Keys are taken in blocks: the scores of a few queries, their softmax so far and their sum of
 * values stay in the cache, whatever the length.  A query's result does not depend on others. */
#include "dot.h"

#define BLOCK_ROWS 8
#define BLOCK_KEYS 64

/* Element strides of (batch, head, row); the elements of a row are next to each other. */
struct heads {
    int64_t batch, head, row;
};

struct attention {
    int64_t batch, q_heads, kv_heads, rows, total, past, width, v_width;
    struct heads q, k, v, y;
    int64_t mask[4]; /* strides over (batch, head, query, key) */
    int64_t mask_keys;
    int64_t left, right;   /* keys beside a query's position that it sees; OPEN: all */
    const int64_t *nonpad; /* by batch: keys that are no padding; NULL: all */
    uint32_t n_in;
    bool masked, mask_bool, padded, joined;
    float scale, softcap;
    dot_fn *dot;
    float (*weigh)(int64_t n, float top, float *s);
    void (*add)(int64_t n, int64_t keys, const float *p, const float *v, int64_t ldv, float *y);
};

/* ---- a block of scores */

/* s becomes exp(s - top); their sum. */
static inline __attribute__((always_inline)) float weigh_body(int64_t n, float top, float *s)
{
    float sum = 0;

    SIMD_SUM(sum)
    for (int64_t i = 0; i < n; i++) {
        float e = fast_exp(s[i] - top);
        s[i] = e;
        sum += e;
    }
    return sum;
}
CPU_WIDE static float weigh_wide(int64_t n, float top, float *s)
{
    return weigh_body(n, top, s);
}
static float weigh_base(int64_t n, float top, float *s)
{
    return weigh_body(n, top, s);
}

/* y += p v, four values at a time; the rest one by one. */
VECTOR(add_values, (int64_t n, int64_t keys, const float *p, const float *v, int64_t ldv, float *y),
       (n, keys, p, v, ldv, y))
{
    int64_t t = 0;

    for (; t + 4 <= keys; t += 4) {
        const float *v0 = v + t * ldv, *v1 = v0 + ldv, *v2 = v1 + ldv, *v3 = v2 + ldv;
        float p0 = p[t], p1 = p[t + 1], p2 = p[t + 2], p3 = p[t + 3];
        SIMD for (int64_t i = 0; i < n; i++) y[i] +=
            p0 * v0[i] + p1 * v1[i] + p2 * v2[i] + p3 * v3[i];
    }
    for (; t < keys; t++) {
        const float *v0 = v + t * ldv;
        float p0 = p[t];
        SIMD for (int64_t i = 0; i < n; i++) y[i] += p0 * v0[i];
    }
}

#define OPEN INT32_MAX /* no limit */

/* Keys [*from, *to) that query s may see, before the mask. */
static void seen_keys(const struct attention *a, int64_t b, int64_t s, int64_t *from, int64_t *to)
{
    int64_t keys = a->nonpad ? a->nonpad[b] : a->total;
    int64_t at = s + (a->nonpad ? keys - a->rows : a->past);

    *from = MAX(at - a->left, 0);
    *to = MIN(at + a->right + 1, keys);
}

/* Keys [from, from + n) of one query: what is added to its scores. */
static void mask_scores(const struct attention *a, const void *mask, int64_t b, int64_t h,
                        int64_t s, int64_t from, int64_t n, float *score)
{
    int64_t first, seen;

    seen_keys(a, b, s, &first, &seen);
    if (a->masked) {
        int64_t at = b * a->mask[0] + h * a->mask[1] + s * a->mask[2];
        seen = MIN(seen, a->mask_keys);
        for (int64_t t = 0; t < n && from + t < seen; t++) {
            int64_t k = at + (from + t) * a->mask[3];
            if (a->mask_bool)
                score[t] = ((const uint8_t *)mask)[k] ? score[t] : -INFINITY;
            else
                score[t] += ((const float *)mask)[k];
        }
    }
    for (int64_t t = 0; t < MIN(first - from, n); t++)
        score[t] = -INFINITY;
    for (int64_t t = MAX(seen - from, 0); t < n; t++)
        score[t] = -INFINITY;
}

/* One query takes n more keys in: top and sum are those of its scores so far. */
static void take_in(const struct attention *a, int64_t n, float *score, const float *v, float *top,
                    float *sum, float *y)
{
    float most = *top;

    for (int64_t t = 0; t < n; t++)
        most = score[t] > most ? score[t] : most;
    if (most == -INFINITY)
        return; /* nothing may be seen yet */
    if (most > *top) {
        float k = *top == -INFINITY ? 0 : expf(*top - most);
        for (int64_t i = 0; i < a->v_width; i++)
            y[i] *= k;
        *sum *= k;
        *top = most;
    }
    *sum += a->weigh(n, most, score);
    a->add(a->v_width, n, score, v, a->v.row, y);
}

/* Queries [from, from + n) of one head, n at most BLOCK_ROWS. */
static void attend(const struct attention *a, const void *mask, int64_t b, int64_t h, int64_t from,
                   int64_t n, const float *q, const float *k, const float *v, float *y)
{
    float score[BLOCK_ROWS][BLOCK_KEYS], top[BLOCK_ROWS], sum[BLOCK_ROWS];
    int64_t first = 0, keys = a->total, none;

    if (!a->padded) { /* else time would depend on data, and a promise could not be kept */
        seen_keys(a, b, from, &first, &none);
        seen_keys(a, b, from + n - 1, &none, &keys);
    }
    for (int64_t i = 0; i < n; i++) {
        top[i] = -INFINITY;
        sum[i] = 0;
        memset(y + i * a->y.row, 0, (size_t)a->v_width * sizeof(*y));
    }
    for (int64_t t = first / BLOCK_KEYS * BLOCK_KEYS; t < keys; t += BLOCK_KEYS) {
        int64_t some = MIN(BLOCK_KEYS, keys - t);
        dot_rows(a->dot, n, some, a->width, q, a->q.row, k + t * a->k.row, a->k.row, score[0],
                 BLOCK_KEYS);
        for (int64_t i = 0; i < n; i++) {
            for (int64_t j = 0; j < some; j++)
                score[i][j] *= a->scale;
            for (int64_t j = 0; a->softcap > 0 && j < some; j++)
                score[i][j] = a->softcap * fast_tanh(score[i][j] / a->softcap);
            mask_scores(a, mask, b, h, from + i, t, some, score[i]);
            take_in(a, some, score[i], v + t * a->v.row, &top[i], &sum[i], y + i * a->y.row);
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; sum[i] > 0 && j < a->v_width; j++)
            y[i * a->y.row + j] /= sum[i];
}

/* present = past and, behind it, the new ones: rows of n. */
static void join(const struct attention *a, int64_t n, const float *past, const float *now,
                 const struct heads *at, float *to)
{
    for (int64_t b = 0; b < a->batch; b++)
        for (int64_t h = 0; h < a->kv_heads; h++)
            for (int64_t t = 0; t < a->total; t++, to += n) {
                const float *from =
                    t < a->past ? past + ((b * a->kv_heads + h) * a->past + t) * n
                                : now + b * at->batch + h * at->head + (t - a->past) * at->row;
                memcpy(to, from, (size_t)n * sizeof(*to));
            }
}

static bool nonpad_fits(const struct attention *a)
{
    for (int64_t b = 0; b < a->batch; b++)
        if (a->nonpad[b] < 0 || a->nonpad[b] > a->total)
            return false;
    return true;
}

/* What is joined is read from the outputs. */
static int run_attention(const void *params, void *const *ptr)
{
    struct attention a = *(const struct attention *)params;
    const float *k = ptr[1], *v = ptr[2];
    const void *mask = a.masked ? ptr[3] : NULL;

    a.nonpad = a.padded ? ptr[6] : NULL;
    if (a.nonpad && !nonpad_fits(&a))
        return -EINVAL;
    if (a.joined) {
        join(&a, a.width, a.past ? ptr[4] : NULL, k, &a.k, ptr[a.n_in + 1]);
        join(&a, a.v_width, a.past ? ptr[5] : NULL, v, &a.v, ptr[a.n_in + 2]);
        k = ptr[a.n_in + 1];
        v = ptr[a.n_in + 2];
        a.k = (struct heads){a.kv_heads * a.total * a.width, a.total * a.width, a.width};
        a.v = (struct heads){a.kv_heads * a.total * a.v_width, a.total * a.v_width, a.v_width};
    }
    for (int64_t b = 0; b < a.batch; b++)
        for (int64_t h = 0; h < a.q_heads; h++)
            for (int64_t s = 0; s < a.rows; s += BLOCK_ROWS) {
                int64_t hk = h / (a.q_heads / a.kv_heads);
                attend(&a, mask, b, h, s, MIN(BLOCK_ROWS, a.rows - s),
                       (const float *)ptr[0] + b * a.q.batch + h * a.q.head + s * a.q.row,
                       k + b * a.k.batch + hk * a.k.head, v + b * a.v.batch + hk * a.v.head,
                       (float *)ptr[a.n_in] + b * a.y.batch + h * a.y.head + s * a.y.row);
            }
    return 0;
}

/* ---- planning */
struct shape {
    int64_t batch, heads, rows, width;
};

static struct shape heads_of(const struct tensor *t, int64_t heads, struct heads *ret)
{
    struct shape s = {t->dims[0], heads, t->dims[1], t->rank == 3 ? t->dims[2] / heads : 0};

    if (t->rank == 3) {
        *ret = (struct heads){s.rows * t->dims[2], s.width, t->dims[2]};
        return s;
    }
    s = (struct shape){t->dims[0], t->dims[1], t->dims[2], t->dims[3]};
    *ret = (struct heads){s.heads * s.rows * s.width, s.rows * s.width, s.width};
    return s;
}

/* Causal is a window that ends at the query's own position. */
static void plan_window(const struct node *n, struct attention *p)
{
    int64_t left = node_int(n, "left_window_size", -1),
            right = node_int(n, "right_window_size", -1);

    p->left = left < 0 ? OPEN : MIN(left, OPEN);
    p->right = right < 0 ? OPEN : MIN(right, OPEN);
    if (node_int(n, "is_causal", 0))
        p->right = 0;
}

static void plan_mask(const struct tensor *m, struct attention *p)
{
    int64_t own[MAX_RANK];

    p->masked = m != NULL;
    if (!m)
        return;
    p->mask_bool = m->dtype == DT_BOOL;
    p->mask_keys = m->dims[m->rank - 1] == 1 ? p->total : m->dims[m->rank - 1];
    strides_rows(m->rank, m->dims, own);
    for (uint32_t i = 0; i < m->rank; i++)
        p->mask[4 - m->rank + i] = m->dims[i] == 1 ? 0 : own[i];
}

int plan_attention(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;
    const struct tensor *past = arg_in(a, 4);
    int64_t kv = node_int(n, "kv_num_heads", 1);
    struct attention p = {.n_in = n->n_in,
                          .padded = arg_in(a, 6) != NULL,
                          .softcap = node_float(n, "softcap", 0),
                          .dot = PICK(dot_block),
                          .weigh = PICK(weigh),
                          .add = PICK(add_values)};

    for (uint32_t i = 0; i < 3; i++)
        if (a->in[i]->dtype != DT_FP32)
            return plan_type(a, a->in[i]->dtype, err);
    p.joined = arg_out(a, 1) && arg_out(a, 2);
    if (arg_out(a, 3) || (past && !p.joined) || (!p.joined && (arg_out(a, 1) || arg_out(a, 2))))
        return plan_fail(a, -ENOTSUP, "these outputs have no fast kernel", err);
    struct shape q = heads_of(a->in[0], node_int(n, "q_num_heads", 1), &p.q);
    struct shape k = heads_of(a->in[1], kv, &p.k), v = heads_of(a->in[2], kv, &p.v);
    (void)heads_of(a->out[0], q.heads, &p.y);
    p.batch = q.batch;
    p.q_heads = q.heads;
    p.kv_heads = k.heads;
    p.rows = q.rows;
    p.past = past ? past->dims[2] : 0;
    p.total = p.past + k.rows;
    p.width = q.width;
    p.v_width = v.width;
    p.scale = node_float(n, "scale", 1 / sqrtf((float)MAX(q.width, 1)));
    plan_mask(arg_in(a, 3), &p);
    plan_window(n, &p);
    return plan_done(a, run_attention, &p, sizeof(p), ret, err);
}

/* ---- rotary embedding */
struct rotary {
    int64_t batch, heads, rows, width, half, positions;
    struct heads x;
    bool by_id, interleaved;
    uint32_t n_in;
};

static void rotate(const struct rotary *p, const float *x, const float *c, const float *s, float *y)
{
    int64_t n = p->half;

    if (p->interleaved) {
        for (int64_t i = 0; i < n; i++) {
            y[2 * i] = c[i] * x[2 * i] - s[i] * x[2 * i + 1];
            y[2 * i + 1] = s[i] * x[2 * i] + c[i] * x[2 * i + 1];
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            y[i] = c[i] * x[i] - s[i] * x[n + i];
            y[n + i] = s[i] * x[i] + c[i] * x[n + i];
        }
    }
    for (int64_t i = 2 * n; i < p->width; i++)
        y[i] = x[i];
}

static int run_rotary(const void *params, void *const *ptr)
{
    const struct rotary *p = params;
    const int64_t *ids = p->by_id ? ptr[3] : NULL;

    for (int64_t token = 0; token < p->batch * p->rows; token++) {
        int64_t at = ids ? ids[token] : token;
        if (ids && (at < 0 || at >= p->positions))
            return -EINVAL;
        for (int64_t h = 0; h < p->heads; h++) {
            int64_t off = token / p->rows * p->x.batch + h * p->x.head + token % p->rows * p->x.row;
            rotate(p, (const float *)ptr[0] + off, (const float *)ptr[1] + at * p->half,
                   (const float *)ptr[2] + at * p->half, (float *)ptr[p->n_in] + off);
        }
    }
    return 0;
}

int plan_rotary(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;
    struct rotary p = {.n_in = n->n_in,
                       .by_id = arg_in(a, 3) != NULL,
                       .interleaved = node_int(n, "interleaved", 0) != 0,
                       .positions = a->in[1]->dims[0]};

    if (a->in[0]->dtype != DT_FP32)
        return plan_type(a, a->in[0]->dtype, err);
    struct shape s = heads_of(a->in[0], node_int(n, "num_heads", 1), &p.x);
    int64_t dim = node_int(n, "rotary_embedding_dim", 0);
    p.batch = s.batch;
    p.heads = s.heads;
    p.rows = s.rows;
    p.width = s.width;
    p.half = (dim ? dim : s.width) / 2;
    return plan_done(a, run_rotary, &p, sizeof(p), ret, err);
}
