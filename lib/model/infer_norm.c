/* Shape rules of the normalisations that keep their input's shape, and of the losses. */
#include "infer.h"

int infer_group_norm(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t groups = node_int(c->n, "num_groups", 0);
    int rc;

    if (x->rank < 2)
        return err_set(c->err, -EINVAL, "input has rank %u (at least 2)", x->rank);
    if (groups < 1 || groups > INT32_MAX || x->dims[1] % groups != 0)
        return err_set(c->err, -EINVAL, "num_groups is %lld for %lld channels", (long long)groups,
                       (long long)x->dims[1]);
    const int64_t *params = c->n->opset < 21 ? &groups : &x->dims[1];
    if ((rc = infer_shaped(c, 1, 1, params)) < 0 || (rc = infer_shaped(c, 2, 1, params)) < 0)
        return rc;
    return infer_same(c);
}

/* The scale stretches to the input. */
int infer_rms_norm(struct infer *c)
{
    const struct tensor *x = c->in[0], *scale = c->in[1];
    int64_t axis = node_int(c->n, "axis", -1), dims[MAX_RANK];
    uint32_t rank;
    int rc = infer_axis(c, &axis, x->rank);

    if (rc < 0 ||
        (rc = infer_broadcast(c, x->rank, x->dims, scale->rank, scale->dims, &rank, dims)) < 0)
        return rc;
    if (rank != x->rank || memcmp(dims, x->dims, rank * sizeof(*dims)) != 0)
        return err_set(c->err, -EINVAL, "scale is larger than what it scales");
    return infer_out(c, 0, scale->dtype, x->rank, x->dims);
}

int infer_mvn(struct infer *c)
{
    int64_t axes[MAX_RANK] = {0, 2, 3};
    uint32_t n = 3, n_attr;
    const int64_t *list = node_ints(c->n, "axes", &n_attr);

    if (list) {
        if (n_attr > MAX_RANK)
            return err_set(c->err, -EINVAL, "%u axes (at most %d)", n_attr, MAX_RANK);
        memcpy(axes, list, n_attr * sizeof(*axes));
        n = n_attr;
    }
    for (uint32_t i = 0; i < n; i++) {
        int rc = infer_axis(c, &axes[i], c->in[0]->rank);
        if (rc < 0)
            return rc;
    }
    return infer_same(c);
}

int infer_lp_norm(struct infer *c)
{
    int64_t axis = node_int(c->n, "axis", -1), p = node_int(c->n, "p", 2);
    int rc = infer_axis(c, &axis, c->in[0]->rank);

    if (rc == 0 && p != 1 && p != 2)
        return err_set(c->err, -EINVAL, "p is %lld, neither 1 nor 2", (long long)p);
    return rc < 0 ? rc : infer_same(c);
}

/* One number, or one for each target; log_prob has the input's shape. */
int infer_loss(struct infer *c)
{
    const struct tensor *x = c->in[0], *target = c->in[1];
    const char *reduction = node_str(c->n, "reduction", "mean");
    int64_t dims[MAX_RANK];
    bool none = STREQ(reduction, "none");
    int rc;

    if (x->rank < 2)
        return err_set(c->err, -EINVAL, "input has rank %u (at least 2)", x->rank);
    if (!none && !STREQ(reduction, "mean") && !STREQ(reduction, "sum"))
        return err_set(c->err, -EINVAL, "reduction '%.32s'", reduction);
    if (target->dtype != DT_INT64 && target->dtype != DT_INT32)
        return err_set(c->err, -EINVAL, "a target of type %s", dtype_name(target->dtype));
    for (uint32_t d = 0; d + 1 < x->rank; d++)
        dims[d] = x->dims[d ? d + 1 : 0];
    if ((rc = infer_shaped(c, 1, x->rank - 1, dims)) < 0 ||
        (rc = infer_shaped(c, 2, 1, &x->dims[1])) < 0 ||
        (rc = infer_out(c, 0, x->dtype, none ? x->rank - 1 : 0, dims)) < 0)
        return rc;
    return infer_out(c, 1, x->dtype, x->rank, x->dims);
}
