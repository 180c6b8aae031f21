/* Quantised operators. */
#include "exe.h"

#define PARTS 1024 /* of a tensor whose range is looked for */

static bool is_byte(const struct tensor *t)
{
    return t && (t->dtype == DT_UINT8 || t->dtype == DT_INT8);
}

/* ---- QuantizeLinear, DequantizeLinear */
static int scales_of(struct build *b, const struct node *n, struct gpu_scales *ret)
{
    const struct tensor *x = in_of(b, n, 0), *scale = in_of(b, n, 1), *zero = in_of(b, n, 2);
    int64_t count = count_of(scale);
    uint32_t axis;

    *ret = (struct gpu_scales){.one = count == 1 && scale->rank <= 1,
                               .block = MAX(node_int(n, "block_size", 0), 0)};
    if (zero && count_of(zero) != count)
        return build_fail(b, -EINVAL, "scale and zero point differ in number");
    if (ret->one)
        return 0;
    int r = build_axis(b, node_int(n, "axis", 1), x->rank, &axis);
    if (r < 0)
        return r;
    ret->axis = x->dims[axis];
    ret->inner = span(x, axis + 1, x->rank);
    ret->blocks = ret->block ? (ret->axis + ret->block - 1) / ret->block : 0;
    int64_t want = ret->block ? span(x, 0, axis) * ret->blocks * ret->inner : ret->axis;
    return count == want ? 0 : build_fail(b, -EINVAL, "scale and input do not go together");
}

static bool quantised(enum dtype t)
{
    return t == DT_UINT8 || t == DT_INT8 || t == DT_UINT16 || t == DT_INT16;
}

int lower_quantize(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *scale = in_of(b, n, 1), *zero = in_of(b, n, 2),
                        *y = value_of(b, n->out[0]);
    bool back = n->op == OP_DequantizeLinear;
    struct quantize_args a = {
        .n = count_of(y), .x_type = (int32_t)x->dtype, .y_type = (int32_t)y->dtype, .back = back};
    struct ref in[3], ry;
    int r = scales_of(b, n, &a.scales);

    if (r < 0)
        return r;
    if (!is_f32(scale))
        return build_no_type(b, scale->dtype);
    if (back ? !quantised(x->dtype) && x->dtype != DT_INT32
             : x->dtype != DT_FP32 && x->dtype != DT_INT32)
        return build_no_type(b, x->dtype);
    if (back ? y->dtype != DT_FP32 : !quantised(y->dtype))
        return build_no_type(b, y->dtype);
    if (zero && zero->dtype != (back ? x : y)->dtype)
        return build_no_type(b, zero->dtype);
    r = build_inputs(b, n, 3, in);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r
                 : STEP(b, quantize, a, HOLE(quantize, x, in[0]), HOLE(quantize, scale, in[1]),
                        HOLE(quantize, zero, in[2]), HOLE(quantize, y, ry));
}

/* An output, or, where nobody wants it, a place for it. */
static int out_or_buf(struct build *b, const struct node *n, uint32_t i, size_t bytes,
                      struct ref *ret)
{
    bool has = i < n->n_out && n->out[i] != VALUE_NONE;

    return has ? build_out(b, n->out[i], ret) : build_buf(b, bytes, ret);
}

/* The range in two rounds, then as QuantizeLinear. */
int lower_dynamic_quantize(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    struct range_args first = {.count = count_of(x)}, second = {.n = 1};
    struct quantize_args a = {
        .n = first.count, .x_type = GPU_F32, .y_type = GPU_U8, .scales.one = true};
    struct ref rx, ends, ry, scale, zero;

    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    first.n = second.count = MIN(MAX(first.count, 1), PARTS);
    int r = build_in(b, n->in[0], &rx);
    if (r == 0)
        r = build_buf(b, 2 * PARTS * sizeof(float), &ends);
    if (r == 0)
        r = out_or_buf(b, n, 0, (size_t)first.count, &ry);
    if (r == 0)
        r = out_or_buf(b, n, 1, sizeof(float), &scale);
    if (r == 0)
        r = out_or_buf(b, n, 2, 1, &zero);
    if (r == 0)
        r = STEP(b, range, first, HOLE(range, x, rx), HOLE(range, ends, ends));
    if (r == 0)
        r = STEP(b, range, second, HOLE(range, ends, ends), HOLE(range, scale, scale),
                 HOLE(range, zero, zero));
    return r < 0 ? r
                 : STEP(b, quantize, a, HOLE(quantize, x, rx), HOLE(quantize, scale, scale),
                        HOLE(quantize, zero, zero), HOLE(quantize, y, ry));
}

/* ---- sums of bytes */

/* Which input is what. */
struct places {
    int a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero, bias; /* -1: there is none */
};
static const struct places with_scales = {0, 1, 2, 3, 4, 5, 6, 7, 8};
static const struct places integers = {0, -1, 2, 1, -1, 3, -1, -1, -1};
#define N_PLACES 9

static const struct tensor *placed(const struct build *b, const struct node *n, int i)
{
    return i < 0 ? NULL : in_of(b, n, (uint32_t)i);
}

static int sum_types(struct build *b, const struct node *n, const struct places *p,
                     struct gpu_byte_sum *ret)
{
    const struct tensor *x = placed(b, n, p->a), *w = placed(b, n, p->b),
                        *y = value_of(b, n->out[0]), *bias = placed(b, n, p->bias);
    const struct tensor *const zeros[] = {placed(b, n, p->a_zero), placed(b, n, p->b_zero),
                                          placed(b, n, p->y_zero)},
                               *const of[] = {x, w, y};
    const int scales[] = {p->a_scale, p->b_scale, p->y_scale};

    if (!is_byte(x) || !is_byte(w))
        return build_no_type(b, is_byte(x) ? w->dtype : x->dtype);
    if (p->a_scale < 0 ? y->dtype != DT_INT32 : !is_byte(y))
        return build_no_type(b, y->dtype);
    for (unsigned i = 0; i < 3; i++) {
        if (zeros[i] && zeros[i]->dtype != of[i]->dtype)
            return build_no_type(b, zeros[i]->dtype);
        if (scales[i] >= 0 && !is_f32(placed(b, n, scales[i])))
            return build_no_type(b, placed(b, n, scales[i])->dtype);
    }
    if (bias && bias->dtype != DT_INT32)
        return build_no_type(b, bias->dtype);
    ret->a_type = (int32_t)x->dtype;
    ret->b_type = (int32_t)w->dtype;
    ret->y_type = (int32_t)y->dtype;
    return 0;
}

/* The holes of a sum that lies at the front of the arguments. */
static int sum_holes(struct build *b, const struct node *n, const struct places *p,
                     struct hole ret[N_PLACES + 1])
{
    const struct {
        int in;
        size_t offset;
    } at[N_PLACES] = {{p->a, offsetof(struct gpu_byte_sum, a)},
                      {p->b, offsetof(struct gpu_byte_sum, b)},
                      {p->a_zero, offsetof(struct gpu_byte_sum, a_zero)},
                      {p->b_zero, offsetof(struct gpu_byte_sum, b_zero)},
                      {p->y_zero, offsetof(struct gpu_byte_sum, y_zero)},
                      {p->a_scale, offsetof(struct gpu_byte_sum, a_scale)},
                      {p->b_scale, offsetof(struct gpu_byte_sum, b_scale)},
                      {p->y_scale, offsetof(struct gpu_byte_sum, y_scale)},
                      {p->bias, offsetof(struct gpu_byte_sum, bias)}};
    int r = 0;

    for (unsigned i = 0; i < N_PLACES && r == 0; i++) {
        ret[i] = (struct hole){.offset = at[i].offset};
        if (at[i].in >= 0)
            r = build_optional(b, n, (uint32_t)at[i].in, &ret[i].ref);
    }
    ret[N_PLACES].offset = offsetof(struct gpu_byte_sum, y);
    return r < 0 ? r : build_out(b, n->out[0], &ret[N_PLACES].ref);
}
static_assert(offsetof(struct conv_bytes_args, of) == 0, "holes count from the sum");
static_assert(offsetof(struct product_bytes_args, of) == 0, "holes count from the sum");
static_assert(offsetof(struct add_bytes_args, of) == 0, "holes count from the sum");

static int64_t numbers(const struct build *b, const struct node *n, int i)
{
    const struct tensor *t = placed(b, n, i);

    return t ? count_of(t) : 1;
}

int lower_conv_bytes(struct build *b, const struct node *n)
{
    const struct places *p = n->op == OP_ConvInteger ? &integers : &with_scales;
    const struct tensor *x = placed(b, n, p->a), *w = placed(b, n, p->b),
                        *y = value_of(b, n->out[0]);
    struct conv_bytes_args a = {.n = count_of(y),
                                .channels = x->dims[1],
                                .filters = w->dims[0],
                                .groups = node_int(n, "group", 1),
                                .n_b_zero = numbers(b, n, p->b_zero),
                                .n_b_scale = numbers(b, n, p->b_scale)};
    struct hole hole[N_PLACES + 1];
    int r = sum_types(b, n, p, &a.of);

    if (r == 0)
        r = window_of(b, n, x, y, w->dims + 2, &a.window);
    if (r == 0 && (a.groups < 1 || a.channels % a.groups || a.filters % a.groups ||
                   w->rank != x->rank || w->dims[1] != a.channels / a.groups))
        r = build_fail(b, -EINVAL, "channels, filters and groups do not go together");
    if (r == 0 && (numbers(b, n, p->a_zero) != 1 || numbers(b, n, p->a_scale) != 1 ||
                   numbers(b, n, p->y_scale) != 1 || numbers(b, n, p->y_zero) != 1 ||
                   (a.n_b_zero != 1 && a.n_b_zero != a.filters) ||
                   (a.n_b_scale != 1 && a.n_b_scale != a.filters) ||
                   (placed(b, n, p->bias) && numbers(b, n, p->bias) != a.filters)))
        r = build_fail(b, -EINVAL, "scales or zero points do not fit");
    if (r == 0)
        r = sum_holes(b, n, p, hole);
    return r < 0 ? r : build_step(b, KERNEL_conv_bytes, &a, sizeof(a), a.n, ARRAY_SIZE(hole), hole);
}

/* A vector is a matrix of one row, or of one column. */
static struct tensor matrix_of(const struct tensor *t, bool column)
{
    struct tensor m = *t;

    if (t->rank == 1) {
        m.rank = 2;
        m.dims[0] = column ? t->dims[0] : 1;
        m.dims[1] = column ? 1 : t->dims[0];
    }
    return m;
}

/* How the stacks of matrices are broadcast against each other, counted in matrices. */
static void count_matrices(struct tensor x, struct tensor w, struct gpu_walk *ret)
{
    struct tensor y = {0};
    int64_t stride[2][MAX_RANK];

    x.rank -= 2;
    w.rank -= 2;
    y.rank = MAX(x.rank, w.rank);
    for (uint32_t i = 0; i < y.rank; i++) {
        int64_t dx = i + x.rank >= y.rank ? x.dims[i + x.rank - y.rank] : 1;
        int64_t dw = i + w.rank >= y.rank ? w.dims[i + w.rank - y.rank] : 1;
        y.dims[i] = dx == 1 ? dw : dx;
    }
    strides_broadcast(&x, &y, stride[0]);
    strides_broadcast(&w, &y, stride[1]);
    walk_make(ret, y.rank, y.dims, 2, stride);
}

static bool lines_fit(int64_t n, const struct tensor *of, int64_t lines)
{
    return n == 1 || n == lines || n == lines * span(of, 0, of->rank > 2 ? of->rank - 2 : 0);
}

int lower_product_bytes(struct build *b, const struct node *n)
{
    const struct places *p = n->op == OP_MatMulInteger ? &integers : &with_scales;
    const struct tensor *x = placed(b, n, p->a), *w = placed(b, n, p->b),
                        *y = value_of(b, n->out[0]);
    struct tensor mx = matrix_of(x, false), mw = matrix_of(w, true);
    struct product_bytes_args a = {.n = count_of(y),
                                   .rows = mx.dims[mx.rank - 2],
                                   .cols = mw.dims[mw.rank - 1],
                                   .inner = mx.dims[mx.rank - 1],
                                   .n_a_zero = numbers(b, n, p->a_zero),
                                   .n_b_zero = numbers(b, n, p->b_zero),
                                   .n_a_scale = numbers(b, n, p->a_scale),
                                   .n_b_scale = numbers(b, n, p->b_scale),
                                   .n_y_zero = numbers(b, n, p->y_zero),
                                   .n_y_scale = numbers(b, n, p->y_scale)};
    struct hole hole[N_PLACES + 1];
    int r = sum_types(b, n, p, &a.of);

    if (r == 0 && (mw.dims[mw.rank - 2] != a.inner || !lines_fit(a.n_a_zero, x, a.rows) ||
                   !lines_fit(a.n_a_scale, x, a.rows) || !lines_fit(a.n_b_zero, w, a.cols) ||
                   !lines_fit(a.n_b_scale, w, a.cols) || !lines_fit(a.n_y_zero, y, a.rows) ||
                   !lines_fit(a.n_y_scale, y, a.rows) ||
                   (placed(b, n, p->bias) && numbers(b, n, p->bias) != a.cols)))
        r = build_fail(b, -EINVAL, "the matrices, scales and zero points do not go together");
    count_matrices(mx, mw, &a.walk);
    if (r == 0)
        r = sum_holes(b, n, p, hole);
    return r < 0 ? r
                 : build_step(b, KERNEL_product_bytes, &a, sizeof(a), a.n, ARRAY_SIZE(hole), hole);
}

int lower_add_bytes(struct build *b, const struct node *n)
{
    const struct tensor *y = value_of(b, n->out[0]);
    struct add_bytes_args a = {.n = count_of(y)};
    int64_t stride[2][MAX_RANK];
    struct hole hole[N_PLACES + 1];
    int r = sum_types(b, n, &with_scales, &a.of);

    for (int i = 1; i < 8 && r == 0; i++)
        if (i != 3 && numbers(b, n, i) != 1)
            r = build_fail(b, -EINVAL, "more than one scale or zero point");
    if (r < 0)
        return r;
    strides_broadcast(in_of(b, n, 0), y, stride[0]);
    strides_broadcast(in_of(b, n, 3), y, stride[1]);
    walk_make(&a.walk, y->rank, y->dims, 2, stride);
    r = sum_holes(b, n, &with_scales, hole);
    return r < 0 ? r : build_step(b, KERNEL_add_bytes, &a, sizeof(a), a.n, ARRAY_SIZE(hole), hole);
}
