/* Shape rules of detection: pooling over regions, suppression of boxes. */
#include "infer.h"
#include <stdio.h>

static int regions_fit(struct infer *c, const struct tensor *x, const struct tensor *rois,
                       int64_t columns)
{
    char px[80], pr[80];

    if (x->rank == 4 && rois->rank == 2 && rois->dims[1] == columns)
        return 0;
    return err_set(c->err, -EINVAL, "input %s and regions %s; needed are 4 dimensions and [n,%lld]",
                   dims_print(x->rank, x->dims, px, sizeof(px)),
                   dims_print(rois->rank, rois->dims, pr, sizeof(pr)), (long long)columns);
}

int infer_max_roi_pool(struct infer *c)
{
    const struct tensor *x = c->in[0], *rois = c->in[1];
    int64_t dims[4];
    int rc = regions_fit(c, x, rois, 5);

    if (rc < 0)
        return rc;
    if (!node_attr(c->n, "pooled_shape"))
        return err_set(c->err, -EINVAL, "pooled_shape is missing");
    if ((rc = infer_window_list(c, "pooled_shape", 2, 1, 1, dims + 2)) < 0)
        return rc;
    dims[0] = rois->dims[0];
    dims[1] = x->dims[1];
    return infer_out(c, 0, x->dtype, 4, dims);
}

int infer_roi_align(struct infer *c)
{
    const struct tensor *x = c->in[0], *rois = c->in[1], *image = c->in[2];
    int64_t dims[4];
    int rc = regions_fit(c, x, rois, 4);

    if (rc < 0)
        return rc;
    if (image->dtype != DT_INT64 || image->rank != 1 || image->dims[0] != rois->dims[0])
        return err_set(c->err, -EINVAL, "batch_indices must be INT64, one for each region");
    dims[0] = rois->dims[0];
    dims[1] = x->dims[1];
    dims[2] = node_int(c->n, "output_height", 1);
    dims[3] = node_int(c->n, "output_width", 1);
    if (dims[2] < 1 || dims[3] < 1)
        return err_set(c->err, -EINVAL, "an output of %lld by %lld", (long long)dims[2],
                       (long long)dims[3]);
    return infer_out(c, 0, x->dtype, 4, dims);
}

static bool one_of(const struct tensor *t, enum dtype dtype)
{
    return t->dtype == dtype && (t->rank == 0 || (t->rank == 1 && t->dims[0] == 1));
}

/* As many boxes as there can be: the kernel says how many there are. */
int infer_non_max_suppression(struct infer *c)
{
    const struct tensor *boxes = c->in[0], *scores = c->in[1], *most = infer_in(c, 2);
    int64_t n = 0, dims[2] = {0, 3};
    char pb[80], ps[80];

    if (boxes->rank != 3 || scores->rank != 3 || scores->dtype != DT_FP32 || boxes->dims[2] != 4 ||
        boxes->dims[0] != scores->dims[0] || boxes->dims[1] != scores->dims[2])
        return err_set(c->err, -EINVAL, "boxes %s and scores %s do not go together",
                       dims_print(boxes->rank, boxes->dims, pb, sizeof(pb)),
                       dims_print(scores->rank, scores->dims, ps, sizeof(ps)));
    for (uint32_t i = 2; i < c->n->n_in; i++)
        if (c->in[i] && !one_of(c->in[i], i == 2 ? DT_INT64 : DT_FP32))
            return err_set(c->err, -EINVAL, "input %u must be one number", i);
    for (uint32_t i = 0; i < c->n->n_in; i++)
        if (c->in[i] && !c->in[i]->data)
            return infer_unknown(c, i == 0 ? "boxes" : i == 1 ? "scores" : "limit");
    if (most)
        memcpy(&n, most->data, sizeof(n));
    n = MIN(MAX(n, 0), boxes->dims[1]);
    if (__builtin_mul_overflow(n, scores->dims[0], &dims[0]) ||
        __builtin_mul_overflow(dims[0], scores->dims[1], &dims[0]))
        return err_set(c->err, -EINVAL, "too many boxes");
    return infer_out(c, 0, DT_INT64, 2, dims);
}
