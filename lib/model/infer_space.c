/* Shape rules of operators that rearrange space and time, and of Einsum. */
#include "infer.h"
#include <gpulet/einsum.h>

/* Channels become blocks of pixels, or the other way round: [N, C, H, W]. */
static int block_size(struct infer *c, int64_t *ret)
{
    *ret = node_int(c->n, "blocksize", 0);
    if (c->in[0]->rank != 4)
        return err_set(c->err, -EINVAL, "its input has rank %u, not 4", c->in[0]->rank);
    if (*ret < 1 || *ret > INT32_MAX)
        return err_set(c->err, -EINVAL, "blocksize is %lld", (long long)*ret);
    return 0;
}

int infer_depth_to_space(struct infer *c)
{
    const int64_t *d = c->in[0]->dims;
    int64_t b;
    int rc = block_size(c, &b);

    if (rc < 0)
        return rc;
    if (d[1] % (b * b) != 0)
        return err_set(c->err, -EINVAL, "%lld channels in blocks of %lld by %lld", (long long)d[1],
                       (long long)b, (long long)b);
    if (d[2] > MAX_DIM / b || d[3] > MAX_DIM / b)
        return err_set(c->err, -EINVAL, "blocksize %lld is too large", (long long)b);
    return infer_out(c, 0, c->in[0]->dtype, 4,
                     (const int64_t[]){d[0], d[1] / (b * b), d[2] * b, d[3] * b});
}

int infer_space_to_depth(struct infer *c)
{
    const int64_t *d = c->in[0]->dims;
    int64_t b;
    int rc = block_size(c, &b);

    if (rc < 0)
        return rc;
    if (d[2] % b != 0 || d[3] % b != 0)
        return err_set(c->err, -EINVAL, "%lld by %lld pixels in blocks of %lld", (long long)d[2],
                       (long long)d[3], (long long)b);
    if (d[1] > MAX_DIM / b / b)
        return err_set(c->err, -EINVAL, "blocksize %lld is too large", (long long)b);
    return infer_out(c, 0, c->in[0]->dtype, 4,
                     (const int64_t[]){d[0], d[1] * b * b, d[2] / b, d[3] / b});
}

int infer_reverse_sequence(struct infer *c)
{
    const struct tensor *x = c->in[0], *len = c->in[1];
    int64_t batch = node_int(c->n, "batch_axis", 1), time = node_int(c->n, "time_axis", 0);

    if (x->rank < 2 || (batch != 0 && batch != 1) || time != 1 - batch)
        return err_set(c->err, -EINVAL, "batch_axis %lld and time_axis %lld of rank %u",
                       (long long)batch, (long long)time, x->rank);
    if (len->dtype != DT_INT64 || len->rank != 1 || len->dims[0] != x->dims[batch])
        return err_set(c->err, -EINVAL, "sequence_lens must be one INT64 for each row");
    return infer_same(c);
}

int infer_det(struct infer *c)
{
    const struct tensor *x = c->in[0];

    if (x->rank < 2 || x->dims[x->rank - 1] != x->dims[x->rank - 2])
        return err_set(c->err, -EINVAL, "needs square matrices");
    return infer_out(c, 0, x->dtype, x->rank - 2, x->dims);
}

int infer_einsum(struct infer *c)
{
    struct einsum e;
    int rc = einsum_read(c->n, c->in, &e, c->err);
    int64_t dims[MAX_RANK];

    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < e.n_out; i++)
        dims[i] = e.size[i];
    return infer_out(c, 0, c->in[0]->dtype, e.n_out, dims);
}
