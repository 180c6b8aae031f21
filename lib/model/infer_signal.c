/* Shape rules of windows, transforms and random numbers. */
#include "infer.h"

/* A result's type as an attribute says; `absent` when it does not. */
static int type_attr(struct infer *c, const char *name, int64_t absent, enum dtype *ret)
{
    int64_t t = node_int(c->n, name, absent);

    if (t <= 0 || t >= DT_END || dtype_size((enum dtype)t) == 0)
        return err_set(c->err, -ENOTSUP, "%s %lld", name, (long long)t);
    *ret = (enum dtype)t;
    return 0;
}

/* The one number of input i, which must be known. */
static int one_int(struct infer *c, uint32_t i, const char *what, int64_t *ret)
{
    int64_t list[2];
    uint32_t n;
    int rc = infer_ints(c, i, what, list, ARRAY_SIZE(list), &n);

    if (rc == 0 && n != 1)
        return err_set(c->err, -EINVAL, "its %s has %u numbers, not one", what, n);
    *ret = list[0];
    return rc;
}

int infer_window(struct infer *c)
{
    enum dtype dtype;
    int64_t size;
    int rc;

    if ((rc = type_attr(c, "output_datatype", DT_FP32, &dtype)) < 0 ||
        (rc = one_int(c, 0, "size", &size)) < 0)
        return rc;
    if (dtype == DT_BOOL)
        return err_set(c->err, -EINVAL, "output_datatype is no number");
    return infer_out(c, 0, dtype, 1, &size);
}

int infer_dft(struct infer *c)
{
    const struct tensor *x = c->in[0];
    bool inverse = node_int(c->n, "inverse", 0) != 0, one = node_int(c->n, "onesided", 0) != 0;
    int64_t axis = c->n->opset < 20 ? node_int(c->n, "axis", 1) : -2, dims[MAX_RANK], length;
    int rc = 0;

    if (c->n->opset >= 20 && infer_in(c, 2))
        rc = one_int(c, 2, "axis", &axis);
    if (rc < 0 || (rc = infer_axis(c, &axis, x->rank)) < 0)
        return rc;
    int64_t parts = x->dims[x->rank - 1];
    if (axis == x->rank - 1 || (parts != 1 && parts != 2))
        return err_set(c->err, -EINVAL, "the last dimension is no complex number, or the axis");
    if (one && parts != (inverse ? 2 : 1))
        return err_set(c->err, -EINVAL, "onesided of %s numbers", inverse ? "real" : "complex");
    length = inverse && one ? 2 * (x->dims[axis] - 1) : x->dims[axis];
    if (infer_in(c, 1) && (rc = one_int(c, 1, "dft_length", &length)) < 0)
        return rc;
    if (length < 1 || length > INT32_MAX)
        return err_set(c->err, -EINVAL, "a transform over %lld elements", (long long)length);
    memcpy(dims, x->dims, sizeof(dims));
    dims[axis] = one && !inverse ? length / 2 + 1 : length;
    dims[x->rank - 1] = one && inverse ? 1 : 2;
    return infer_out(c, 0, x->dtype, x->rank, dims);
}

int infer_stft(struct infer *c)
{
    const struct tensor *x = c->in[0], *window = infer_in(c, 2);
    int64_t step, length;
    int rc = one_int(c, 1, "frame_step", &step);

    if (rc < 0)
        return rc;
    if (x->rank < 2 || x->rank > 3 || (x->rank == 3 && x->dims[2] != 1 && x->dims[2] != 2))
        return err_set(c->err, -EINVAL, "the signal is not [batch, length, 1 or 2]");
    bool complex = x->rank == 3 && x->dims[2] == 2;
    bool one = node_int(c->n, "onesided", 1) != 0;
    if (window && window->rank != 1)
        return err_set(c->err, -EINVAL, "a window of rank %u", window->rank);
    length = window ? window->dims[0] : x->dims[1];
    if (infer_in(c, 3) && (rc = one_int(c, 3, "frame_length", &length)) < 0)
        return rc;
    if (one && complex)
        return err_set(c->err, -EINVAL, "onesided of complex numbers");
    if (step < 1 || length < 1 || length > x->dims[1] || length > INT32_MAX ||
        (window && window->dims[0] != length))
        return err_set(c->err, -EINVAL,
                       "frames of %lld by %lld, a window of %lld, a signal of %lld",
                       (long long)length, (long long)step,
                       (long long)(window ? window->dims[0] : length), (long long)x->dims[1]);
    const int64_t dims[] = {x->dims[0], (x->dims[1] - length) / step + 1,
                            one ? length / 2 + 1 : length, 2};
    return infer_out(c, 0, x->dtype, 4, dims);
}

int infer_mel_weights(struct infer *c)
{
    enum dtype dtype;
    int64_t bands, dft;
    int rc;

    if ((rc = type_attr(c, "output_datatype", DT_FP32, &dtype)) < 0 ||
        (rc = one_int(c, 0, "num_mel_bins", &bands)) < 0 ||
        (rc = one_int(c, 1, "dft_length", &dft)) < 0)
        return rc;
    if (bands < 0 || dft < 0 || dft > INT32_MAX || dtype == DT_BOOL)
        return err_set(c->err, -EINVAL, "%lld bands of a transform over %lld", (long long)bands,
                       (long long)dft);
    return infer_out(c, 0, dtype, 2, (int64_t[]){dft / 2 + 1, bands});
}

/* ---- random numbers */

int infer_random(struct infer *c)
{
    enum dtype dtype;
    uint32_t n;
    const int64_t *shape = node_ints(c->n, "shape", &n);
    int rc = type_attr(c, "dtype", DT_FP32, &dtype);

    if (rc == 0 && !node_attr(c->n, "shape"))
        return err_set(c->err, -EINVAL, "shape is missing");
    return rc < 0 ? rc : infer_out(c, 0, dtype, n, shape);
}

/* RandomNormalLike, RandomUniformLike, Bernoulli. */
int infer_random_like(struct infer *c)
{
    const struct tensor *x = c->in[0];
    enum dtype dtype;
    int rc = type_attr(c, "dtype", x->dtype, &dtype);

    return rc < 0 ? rc : infer_out(c, 0, dtype, x->rank, x->dims);
}

int infer_multinomial(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t samples = node_int(c->n, "sample_size", 1);
    enum dtype dtype;
    int rc = type_attr(c, "dtype", DT_INT32, &dtype);

    if (rc < 0)
        return rc;
    if (x->rank != 2 || x->dims[1] < 1 || (dtype != DT_INT32 && dtype != DT_INT64))
        return err_set(c->err, -EINVAL, "an input of rank %u, a result of type %s", x->rank,
                       dtype_name(dtype));
    return infer_out(c, 0, dtype, 2, (int64_t[]){x->dims[0], samples});
}
