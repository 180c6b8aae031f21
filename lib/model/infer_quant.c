/* Shape rules of quantised operators: scales and zero points fit what they scale. */
#include "infer.h"
#include <stdio.h>

static bool is_float(enum dtype t)
{
    return t == DT_FP32 || t == DT_FP16 || t == DT_BF16;
}

static bool is_byte(enum dtype t)
{
    return t == DT_INT8 || t == DT_UINT8;
}

static bool is_quantised(enum dtype t)
{
    return is_byte(t) || t == DT_INT16 || t == DT_UINT16;
}

static int bad_type(struct infer *c, const char *what, enum dtype t)
{
    return err_set(c->err, -EINVAL, "its %s cannot be of type %s", what, dtype_name(t));
}

static bool one_number(const struct tensor *t)
{
    return t->rank == 0 || (t->rank == 1 && t->dims[0] == 1);
}

/* ---- QuantizeLinear, DequantizeLinear: one scale, one for each position of the axis, or one for
 * each block of block_size positions */

static bool blocks_fit(const struct tensor *x, const struct tensor *scale, int64_t axis,
                       int64_t block)
{
    for (uint32_t i = 0; i < x->rank; i++) {
        int64_t want = i == axis ? (x->dims[i] + block - 1) / block : x->dims[i];
        if (scale->dims[i] != want)
            return false;
    }
    return true;
}

static int scale_fits(struct infer *c, const struct tensor *x, const struct tensor *scale)
{
    int64_t axis = node_int(c->n, "axis", 1), block = node_int(c->n, "block_size", 0);
    char px[80], ps[80];
    bool fits;
    int rc;

    if (one_number(scale))
        return 0;
    if ((rc = infer_axis(c, &axis, x->rank)) < 0)
        return rc;
    if (block < 0 || block > MAX_DIM)
        return err_set(c->err, -EINVAL, "block_size %lld (0 to 2^40)", (long long)block);
    if (block == 0)
        fits = scale->rank == 1 && scale->dims[0] == x->dims[axis];
    else
        fits = scale->rank == x->rank && blocks_fit(x, scale, axis, block);
    if (fits)
        return 0;
    return err_set(c->err, -EINVAL,
                   "a scale of shape %s for an input of %s (axis %lld, block_size %lld)",
                   dims_print(scale->rank, scale->dims, ps, sizeof(ps)),
                   dims_print(x->rank, x->dims, px, sizeof(px)), (long long)axis, (long long)block);
}

static int zero_fits(struct infer *c, const struct tensor *scale, const struct tensor *zero)
{
    if (!zero || (one_number(scale) && one_number(zero)) ||
        (zero->rank == scale->rank &&
         memcmp(zero->dims, scale->dims, scale->rank * sizeof(*scale->dims)) == 0))
        return 0;
    return err_set(c->err, -EINVAL, "scale and zero point have different shapes");
}

int infer_quantize(struct infer *c)
{
    const struct tensor *x = c->in[0], *scale = c->in[1], *zero = infer_in(c, 2);
    int64_t to = node_int(c->n, "output_dtype", 0);
    int rc;

    if (to == 0)
        to = zero ? zero->dtype : DT_UINT8;
    if (zero && zero->dtype != to)
        return err_set(c->err, -EINVAL, "output_dtype %lld, but a zero point of type %s",
                       (long long)to, dtype_name(zero->dtype));
    if (to < 0 || to >= DT_END || !is_quantised((enum dtype)to))
        return err_set(c->err, -ENOTSUP, "quantised type %lld", (long long)to);
    if (!is_float(scale->dtype) && scale->dtype != DT_INT32)
        return bad_type(c, "scale", scale->dtype);
    if ((rc = scale_fits(c, x, scale)) < 0 || (rc = zero_fits(c, scale, zero)) < 0)
        return rc;
    return infer_out(c, 0, (enum dtype)to, x->rank, x->dims);
}

int infer_dequantize(struct infer *c)
{
    const struct tensor *x = c->in[0], *scale = c->in[1], *zero = infer_in(c, 2);
    int64_t to = node_int(c->n, "output_dtype", 0);
    int rc;

    if (to == 0)
        to = scale->dtype;
    if (!is_float(scale->dtype))
        return bad_type(c, "scale", scale->dtype);
    if (to < 0 || to >= DT_END || !is_float((enum dtype)to))
        return err_set(c->err, -ENOTSUP, "output_dtype %lld", (long long)to);
    if (zero && zero->dtype != x->dtype)
        return bad_type(c, "zero point", zero->dtype);
    if ((rc = scale_fits(c, x, scale)) < 0 || (rc = zero_fits(c, scale, zero)) < 0)
        return rc;
    return infer_out(c, 0, (enum dtype)to, x->rank, x->dims);
}

int infer_dynamic_quantize(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int rc = infer_out(c, 0, DT_UINT8, x->rank, x->dims);

    if (rc == 0)
        rc = infer_out(c, 1, DT_FP32, 0, NULL);
    return rc < 0 ? rc : infer_out(c, 2, DT_UINT8, 0, NULL);
}

/* ---- products and convolutions of bytes */

/* Input i: a scale (floats) or a zero point (of type zero), one number or as the caller says. */
static int check_one(struct infer *c, uint32_t i, const char *what, enum dtype zero, int64_t list)
{
    const struct tensor *t = infer_in(c, i);
    char buf[80];

    if (!t)
        return 0;
    if (zero == DT_NONE ? !is_float(t->dtype) : t->dtype != zero)
        return bad_type(c, what, t->dtype);
    if (one_number(t) || (t->rank == 1 && t->dims[0] == list))
        return 0;
    return err_set(c->err, -EINVAL, "a %s of shape %s", what,
                   dims_print(t->rank, t->dims, buf, sizeof(buf)));
}

int infer_conv_integer(struct infer *c)
{
    const struct tensor *x = c->in[0], *k = c->in[1];
    int64_t dims[MAX_RANK];
    int rc;

    if (!is_byte(k->dtype))
        return bad_type(c, "weights", k->dtype);
    if ((rc = infer_conv_dims(c, x, k, NULL, dims)) < 0 ||
        (rc = check_one(c, 2, "x_zero_point", x->dtype, 1)) < 0 ||
        (rc = check_one(c, 3, "w_zero_point", k->dtype, k->dims[0])) < 0)
        return rc;
    return infer_out(c, 0, DT_INT32, x->rank, dims);
}

int infer_qlinear_conv(struct infer *c)
{
    const struct tensor *x = c->in[0], *k = c->in[3], *bias = infer_in(c, 8);
    enum dtype to = c->in[7]->dtype;
    int64_t dims[MAX_RANK];
    int rc;

    if (!is_byte(k->dtype) || !is_byte(to))
        return bad_type(c, !is_byte(to) ? "y_zero_point" : "weights", !is_byte(to) ? to : k->dtype);
    if (bias && bias->dtype != DT_INT32)
        return bad_type(c, "bias", bias->dtype);
    if ((rc = infer_conv_dims(c, x, k, bias, dims)) < 0 ||
        (rc = check_one(c, 1, "x_scale", DT_NONE, 1)) < 0 ||
        (rc = check_one(c, 2, "x_zero_point", x->dtype, 1)) < 0 ||
        (rc = check_one(c, 4, "w_scale", DT_NONE, k->dims[0])) < 0 ||
        (rc = check_one(c, 5, "w_zero_point", k->dtype, k->dims[0])) < 0 ||
        (rc = check_one(c, 6, "y_scale", DT_NONE, 1)) < 0 ||
        (rc = check_one(c, 7, "y_zero_point", to, 1)) < 0)
        return rc;
    return infer_out(c, 0, to, x->rank, dims);
}

/* A scale or zero point of matrix t: one number, one for each row (or column), or the same in a
 * tensor of t's rank, 1 where t has columns (or rows). */
static int check_matrix(struct infer *c, uint32_t i, const char *what, enum dtype zero,
                        uint32_t rank, const int64_t *dims, bool by_column)
{
    const struct tensor *t = infer_in(c, i);
    uint32_t gone = by_column ? 2 : 1; /* counted from the last */
    bool fits = t && t->rank == rank && rank >= 2;
    int rc = 0;

    for (uint32_t k = 0; fits && k < rank; k++)
        fits = t->dims[k] == (k == rank - gone ? 1 : dims[k]);
    if (!fits)
        rc = check_one(c, i, what, zero, rank < 2 ? 1 : dims[rank - (by_column ? 1 : 2)]);
    else if (zero == DT_NONE ? !is_float(t->dtype) : t->dtype != zero)
        rc = bad_type(c, what, t->dtype);
    return rc;
}

int infer_matmul_integer(struct infer *c)
{
    const struct tensor *a = c->in[0], *b = c->in[1];
    int64_t dims[MAX_RANK + 2];
    uint32_t rank;
    int rc;

    if (!is_byte(b->dtype))
        return bad_type(c, "second operand", b->dtype);
    if ((rc = infer_product_dims(c, a, b, &rank, dims)) < 0 ||
        (rc = check_matrix(c, 2, "a_zero_point", a->dtype, a->rank, a->dims, false)) < 0 ||
        (rc = check_matrix(c, 3, "b_zero_point", b->dtype, b->rank, b->dims, true)) < 0)
        return rc;
    return infer_out(c, 0, DT_INT32, rank, dims);
}

int infer_qlinear_matmul(struct infer *c)
{
    const struct tensor *a = c->in[0], *b = c->in[3], *bias = infer_in(c, 8);
    enum dtype to = c->in[7]->dtype;
    int64_t dims[MAX_RANK + 2];
    uint32_t rank;
    int rc;

    if (!is_byte(b->dtype) || !is_byte(to))
        return bad_type(c, !is_byte(to) ? "y_zero_point" : "second operand",
                        !is_byte(to) ? to : b->dtype);
    if ((rc = infer_product_dims(c, a, b, &rank, dims)) < 0 ||
        (rc = check_matrix(c, 1, "a_scale", DT_NONE, a->rank, a->dims, false)) < 0 ||
        (rc = check_matrix(c, 2, "a_zero_point", a->dtype, a->rank, a->dims, false)) < 0 ||
        (rc = check_matrix(c, 4, "b_scale", DT_NONE, b->rank, b->dims, true)) < 0 ||
        (rc = check_matrix(c, 5, "b_zero_point", b->dtype, b->rank, b->dims, true)) < 0 ||
        (rc = infer_out(c, 0, to, rank, dims)) < 0 ||
        (rc = check_matrix(c, 6, "y_scale", DT_NONE, rank, dims, false)) < 0)
        return rc;
    if ((rc = check_matrix(c, 7, "y_zero_point", to, rank, dims, false)) < 0 || !bias)
        return rc;
    if (bias->dtype != DT_INT32 || rank == 0)
        return bad_type(c, "bias", bias->dtype);
    return infer_shaped(c, 8, 1, &dims[rank - 1]);
}

int infer_qlinear_add(struct infer *c)
{
    const struct tensor *a = c->in[0], *b = c->in[3];
    enum dtype to = c->in[7]->dtype;
    int64_t dims[MAX_RANK];
    uint32_t rank;
    int rc;

    if (!is_byte(b->dtype) || !is_byte(to))
        return bad_type(c, !is_byte(to) ? "y_zero_point" : "second operand",
                        !is_byte(to) ? to : b->dtype);
    if ((rc = check_one(c, 1, "a_scale", DT_NONE, 1)) < 0 ||
        (rc = check_one(c, 2, "a_zero_point", a->dtype, 1)) < 0 ||
        (rc = check_one(c, 4, "b_scale", DT_NONE, 1)) < 0 ||
        (rc = check_one(c, 5, "b_zero_point", b->dtype, 1)) < 0 ||
        (rc = check_one(c, 6, "y_scale", DT_NONE, 1)) < 0 ||
        (rc = check_one(c, 7, "y_zero_point", to, 1)) < 0 ||
        (rc = infer_broadcast(c, a->rank, a->dims, b->rank, b->dims, &rank, dims)) < 0)
        return rc;
    return infer_out(c, 0, to, rank, dims);
}
