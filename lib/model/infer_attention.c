/* Shape rules of Attention and RotaryEmbedding; kernels/ref/attention.c names the shapes. */
#include "infer.h"

struct heads {
    int64_t batch, heads, rows, width;
    bool flat;
};

static int heads_read(struct infer *c, uint32_t i, const char *attr, struct heads *ret)
{
    const struct tensor *t = c->in[i];
    int64_t heads = node_int(c->n, attr, 0);
    char buf[80];

    if (t->rank != 3 && t->rank != 4)
        return err_set(c->err, -EINVAL, "input %u has rank %u, not 3 or 4", i, t->rank);
    if (t->rank == 4) {
        *ret = (struct heads){t->dims[0], t->dims[1], t->dims[2], t->dims[3], false};
        return 0;
    }
    if (heads < 1 || heads > INT32_MAX || t->dims[2] % heads != 0)
        return err_set(c->err, -EINVAL, "%s is %lld for an input of shape %s", attr,
                       (long long)heads, dims_print(t->rank, t->dims, buf, sizeof(buf)));
    *ret = (struct heads){t->dims[0], heads, t->dims[1], t->dims[2] / heads, true};
    return 0;
}

/* The mask stretches to the scores; its last dimension may also be shorter. */
static int mask_check(struct infer *c, const int64_t scores[4])
{
    const struct tensor *m = infer_in(c, 3);
    char pm[80], ps[80];
    bool fits = !m || (m->rank >= 1 && m->rank <= 4);

    for (uint32_t i = 0; m && fits && i < m->rank; i++) {
        uint32_t d = 4 - m->rank + i;
        fits = m->dims[i] == 1 || m->dims[i] == scores[d] || (d == 3 && m->dims[i] < scores[d]);
    }
    if (!fits)
        return err_set(c->err, -EINVAL, "a mask of shape %s for scores of shape %s",
                       dims_print(m->rank, m->dims, pm, sizeof(pm)),
                       dims_print(4, scores, ps, sizeof(ps)));
    if (m && m->dtype != DT_BOOL && m->dtype != c->in[0]->dtype)
        return err_set(c->err, -ENOTSUP, "a mask of type %s is not supported",
                       dtype_name(m->dtype));
    return 0;
}

/* Of opset 25: keys to either side of a query; of 24: how many keys of a sample are no padding. */
static int windows_check(struct infer *c, int64_t batch)
{
    static const char *const windows[] = {"left_window_size", "right_window_size"};
    const struct tensor *nonpad = infer_in(c, 6);

    for (size_t i = 0; i < ARRAY_SIZE(windows); i++)
        if (node_int(c->n, windows[i], -1) < -1)
            return err_set(c->err, -EINVAL, "%s is %lld (-1: none)", windows[i],
                           (long long)node_int(c->n, windows[i], -1));
    if (nonpad && nonpad->dtype != DT_INT64)
        return err_set(c->err, -EINVAL, "nonpad_kv_seqlen of type %s, not INT64",
                       dtype_name(nonpad->dtype));
    if (nonpad && infer_in(c, 4))
        return err_set(c->err, -EINVAL, "nonpad_kv_seqlen and past_key are both given");
    return infer_shaped(c, 6, 1, &batch);
}

int infer_attention(struct infer *c)
{
    const struct tensor *past_k = infer_in(c, 4), *past_v = infer_in(c, 5);
    struct heads q = {0}, k = {0}, v = {0};
    int64_t mode = node_int(c->n, "qk_matmul_output_mode", 0);
    int rc;

    if ((rc = heads_read(c, 0, "q_num_heads", &q)) < 0 ||
        (rc = heads_read(c, 1, "kv_num_heads", &k)) < 0 ||
        (rc = heads_read(c, 2, "kv_num_heads", &v)) < 0)
        return rc;
    if (q.flat != k.flat || q.flat != v.flat || k.heads < 1 || q.heads % k.heads != 0 ||
        q.width != k.width || k.heads != v.heads || k.rows != v.rows || q.batch != k.batch ||
        q.batch != v.batch)
        return err_set(c->err, -EINVAL,
                       "%lld heads of %lld, %lld of %lld and %lld of %lld do not go together",
                       (long long)q.heads, (long long)q.width, (long long)k.heads,
                       (long long)k.width, (long long)v.heads, (long long)v.width);
    if (!past_k != !past_v || (past_k && past_k->rank != 4))
        return err_set(c->err, -EINVAL, "past_key and past_value must both be given, of rank 4");
    int64_t past = past_k ? past_k->dims[2] : 0, total = past + k.rows;
    if ((rc = infer_shaped(c, 4, 4, (int64_t[]){q.batch, k.heads, past, k.width})) < 0 ||
        (rc = infer_shaped(c, 5, 4, (int64_t[]){q.batch, k.heads, past, v.width})) < 0)
        return rc;
    if ((rc = windows_check(c, q.batch)) < 0)
        return rc;
    if (mode < 0 || mode > 3)
        return err_set(c->err, -EINVAL, "qk_matmul_output_mode %lld (0 to 3)", (long long)mode);
    const int64_t scores[] = {q.batch, q.heads, q.rows, total};
    const int64_t flat[] = {q.batch, q.rows, q.heads * v.width};
    const int64_t deep[] = {q.batch, q.heads, q.rows, v.width};
    const int64_t keys[] = {q.batch, k.heads, total, k.width};
    const int64_t values[] = {q.batch, k.heads, total, v.width};
    if ((rc = mask_check(c, scores)) < 0 ||
        (rc = infer_out(c, 0, c->in[0]->dtype, q.flat ? 3 : 4, q.flat ? flat : deep)) < 0 ||
        (rc = infer_out(c, 1, c->in[1]->dtype, 4, keys)) < 0 ||
        (rc = infer_out(c, 2, c->in[2]->dtype, 4, values)) < 0)
        return rc;
    return infer_out(c, 3, c->in[0]->dtype, 4, scores);
}

int infer_rotary_embedding(struct infer *c)
{
    const struct tensor *ids = infer_in(c, 3);
    int64_t dim = node_int(c->n, "rotary_embedding_dim", 0);
    struct heads h = {0};
    int rc = heads_read(c, 0, "num_heads", &h);

    if (rc < 0)
        return rc;
    dim = dim ? dim : h.width;
    if (dim < 0 || dim > h.width || dim % 2 != 0)
        return err_set(c->err, -EINVAL, "rotary_embedding_dim of %lld for heads of %lld",
                       (long long)dim, (long long)h.width);
    const int64_t flat[] = {c->in[1]->rank ? c->in[1]->dims[0] : 0, dim / 2};
    const int64_t deep[] = {h.batch, h.rows, dim / 2};
    for (uint32_t i = 1; i < 3; i++)
        if ((rc = infer_shaped(c, i, ids ? 2 : 3, ids ? flat : deep)) < 0)
            return rc;
    if (ids && ids->dtype != DT_INT64)
        return err_set(c->err, -EINVAL, "position_ids of type %s, not INT64",
                       dtype_name(ids->dtype));
    return (rc = infer_shaped(c, 3, 2, deep)) < 0 ? rc : infer_same(c);
}
