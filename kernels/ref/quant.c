/* Quantised operators.  Sums are exact integers; what is scaled is scaled in single precision, as
 * the operators' scales are, and rounded to the nearest, ties to even. */
#include "kit.h"
#include <math.h>

/* v rounded, shifted by the zero point, and held within the type. */
static void put_quantised(const struct tensor *t, int64_t at, float v, int64_t zero)
{
    bool sign = t->dtype == DT_INT8 || t->dtype == DT_INT16;
    double lo = sign ? -ldexp(1, (int)dtype_size(t->dtype) * 8 - 1) : 0;
    double hi = ldexp(1, (int)dtype_size(t->dtype) * 8 - sign) - 1;
    double r = nearbyint((double)v) + (double)zero;

    r = r >= lo ? MIN(r, hi) : lo; /* NaN: the least */
    num_put(t, at, num_cast((union num){.f = r}, KIND_FLOAT, sign ? KIND_INT : KIND_UINT));
}

static float float_at(const struct tensor *t, int64_t at)
{
    return (float)num_cast(num_get(t, at), ref_kind(t->dtype), KIND_FLOAT).f;
}

/* An integer of any of the quantised types; 0 for an omitted zero point. */
static int64_t int_at(const struct tensor *t, int64_t at)
{
    return t ? num_get(t, at).i : 0; /* as wide as int64: signed and unsigned look the same */
}

/* ---- which scale belongs to an element: one for all, for each position of an axis, or for each
 * block of them */
struct scales {
    int64_t axis, inner; /* elements of the axis, and behind it */
    int64_t block, blocks;
    bool one, blocked;
};

static int scales_init(const struct node *n, const struct tensor *x, const struct tensor *scale,
                       const struct tensor *zero, struct scales *s, struct err *err)
{
    uint32_t axis;
    int64_t count = ref_count(scale);

    *s = (struct scales){.one = count == 1 && scale->rank <= 1,
                         .block = node_int(n, "block_size", 0)};
    if (zero && ref_count(zero) != count)
        return ref_fail(n, err, -EINVAL, "scale and zero point differ in number");
    if (s->one)
        return 0;
    int r = ref_axis(n, node_int(n, "axis", 1), x->rank, &axis, err);
    if (r < 0)
        return r;
    s->axis = x->dims[axis];
    s->inner = ref_span(x, axis + 1, x->rank);
    s->blocked = s->block > 0;
    s->blocks = s->blocked ? (s->axis + s->block - 1) / s->block : 0;
    int64_t want = s->blocked ? ref_span(x, 0, axis) * s->blocks * s->inner : s->axis;
    return count == want ? 0 : ref_fail(n, err, -EINVAL, "scale and input do not go together");
}

static int64_t scale_of(const struct scales *s, int64_t at)
{
    if (s->one)
        return 0;
    int64_t d = at / s->inner % s->axis, i = at % s->inner;
    return s->blocked ? (at / s->inner / s->axis * s->blocks + d / s->block) * s->inner + i : d;
}

REF_FN(ref_quantize)
{
    const struct tensor *x = in[0], *scale = in[1], *zero = ref_in(n, in, 2), *y = out[0];
    struct scales s;
    int r = scales_init(n, x, scale, zero, &s, err);

    for (int64_t i = 0; i < ref_count(y) && r == 0; i++) {
        int64_t k = scale_of(&s, i);
        put_quantised(y, i, float_at(x, i) / float_at(scale, k), int_at(zero, k));
    }
    return r;
}

REF_FN(ref_dequantize)
{
    const struct tensor *x = in[0], *scale = in[1], *zero = ref_in(n, in, 2), *y = out[0];
    struct scales s;
    int r = scales_init(n, x, scale, zero, &s, err);

    for (int64_t i = 0; i < ref_count(y) && r == 0; i++) {
        int64_t k = scale_of(&s, i);
        float v = (float)(int_at(x, i) - int_at(zero, k)) * float_at(scale, k);
        num_put(y, i, (union num){.f = (double)v});
    }
    return r;
}

/* The range is that of the data and zero, so that zero is exact. */
REF_FN(ref_dynamic_quantize)
{
    const struct tensor *x = in[0], *y = out[0], *y_scale = ref_out(n, out, 1),
                        *y_zero = ref_out(n, out, 2);
    float lo = 0, hi = 0;

    (void)err;
    for (int64_t i = 0; i < ref_count(x); i++) {
        lo = fminf(lo, float_at(x, i));
        hi = fmaxf(hi, float_at(x, i));
    }
    float scale = hi == lo ? 1 : (hi - lo) / 255;
    float zero = nearbyintf(fminf(fmaxf(-lo / scale, 0), 255));
    for (int64_t i = 0; i < ref_count(y); i++)
        put_quantised(y, i, float_at(x, i) / scale, (int64_t)zero);
    if (y_scale)
        num_put(y_scale, 0, (union num){.f = (double)scale});
    if (y_zero)
        num_put(y_zero, 0, (union num){.u = (uint64_t)zero});
    return 0;
}

/* ---- convolutions of bytes */

struct conv {
    struct window w;
    int64_t groups, c_in, c_out; /* channels of one group */
    const struct tensor *x, *k, *x_zero, *k_zero;
    bool many; /* a zero point for each channel of the result */
};

static int64_t conv_at(const struct conv *c, int64_t image, int64_t channel,
                       const int64_t o[WINDOW_DIMS])
{
    int64_t n_x = window_count(c->w.in), n_k = window_count(c->w.kernel), sum = 0;
    int64_t first = (image * c->groups + channel / c->c_out) * c->c_in, at[WINDOW_DIMS];
    int64_t xz = int_at(c->x_zero, 0), kz = int_at(c->k_zero, c->many ? channel : 0);

    for (int64_t i = 0; i < n_k; i++) {
        window_split(i, c->w.kernel, at);
        int64_t from = window_read(&c->w, o, at, NULL); /* padding is x_zero_point: nothing */
        for (int64_t ch = 0; from >= 0 && ch < c->c_in; ch++)
            sum += (int_at(c->x, (first + ch) * n_x + from) - xz) *
                   (int_at(c->k, (channel * c->c_in + ch) * n_k + i) - kz);
    }
    return sum;
}

static int conv_init(struct conv *c, const struct node *n, const struct tensor *y, struct err *err)
{
    const struct tensor *x = c->x, *k = c->k;

    c->groups = node_int(n, "group", 1);
    if (x->rank < 3 || k->rank != x->rank || y->rank != x->rank || c->groups < 1 ||
        c->groups > INT32_MAX || x->dims[1] != k->dims[1] * c->groups ||
        k->dims[0] % c->groups != 0 || y->dims[0] != x->dims[0] || y->dims[1] != k->dims[0])
        return ref_fail(n, err, -EINVAL, "channels of input, weights and groups disagree");
    c->many = c->k_zero && ref_count(c->k_zero) > 1;
    if ((c->x_zero && ref_count(c->x_zero) != 1) || (c->many && ref_count(c->k_zero) != k->dims[0]))
        return ref_fail(n, err, -EINVAL, "zero points do not fit");
    c->c_in = k->dims[1];
    c->c_out = k->dims[0] / c->groups;
    return window_init(&c->w, n, x, y, &k->dims[2], err);
}

REF_FN(ref_conv_integer)
{
    const struct tensor *y = out[0];
    struct conv c = {
        .x = in[0], .k = in[1], .x_zero = ref_in(n, in, 2), .k_zero = ref_in(n, in, 3)};
    int r = conv_init(&c, n, y, err);
    int64_t n_y = r < 0 ? 0 : window_count(c.w.out), o[WINDOW_DIMS];

    for (int64_t i = 0; n_y > 0 && i < ref_count(y); i++) {
        int64_t plane = i / n_y;
        window_split(i % n_y, c.w.out, o);
        num_put(y, i, (union num){.i = conv_at(&c, plane / y->dims[1], plane % y->dims[1], o)});
    }
    return r;
}

/* Inputs: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias. */
REF_FN(ref_qlinear_conv)
{
    const struct tensor *y = out[0], *bias = ref_in(n, in, 8);
    struct conv c = {.x = in[0], .k = in[3], .x_zero = in[2], .k_zero = in[5]};
    int r = conv_init(&c, n, y, err);

    if (r < 0)
        return r;
    bool many = ref_count(in[4]) > 1;
    if (ref_count(in[1]) != 1 || ref_count(in[6]) != 1 || ref_count(in[7]) != 1 ||
        (many && ref_count(in[4]) != y->dims[1]) || (bias && ref_count(bias) != y->dims[1]))
        return ref_fail(n, err, -EINVAL, "scales do not fit");
    int64_t n_y = window_count(c.w.out), o[WINDOW_DIMS];
    for (int64_t i = 0; n_y > 0 && i < ref_count(y); i++) {
        int64_t plane = i / n_y, channel = plane % y->dims[1];
        window_split(i % n_y, c.w.out, o);
        int64_t sum = conv_at(&c, plane / y->dims[1], channel, o) + int_at(bias, channel);
        float scale = float_at(in[1], 0) * float_at(in[4], many ? channel : 0) / float_at(in[6], 0);
        put_quantised(y, i, (float)sum * scale, int_at(in[7], 0));
    }
    return 0;
}

/* ---- products of bytes */

/* The scale or zero point that belongs to a row (or column) of matrix m: t holds one number, one
 * for each, or one for each of every matrix. */
static int64_t line_of(const struct tensor *t, int64_t m, int64_t line, int64_t lines)
{
    int64_t n = t ? ref_count(t) : 1;

    return n == 1 ? 0 : n == lines ? line : m * lines + line;
}

static int64_t product_at(const struct product *p, const struct tensor *a, const struct tensor *az,
                          const struct tensor *b, const struct tensor *bz, int64_t i, int64_t j)
{
    int64_t ma = p->w.off[0], mb = p->w.off[1], sum = 0;
    int64_t za = int_at(az, line_of(az, ma, i, p->rows));
    int64_t zb = int_at(bz, line_of(bz, mb, j, p->cols));

    for (int64_t k = 0; k < p->inner; k++)
        sum += (int_at(a, (ma * p->rows + i) * p->inner + k) - za) *
               (int_at(b, (mb * p->inner + k) * p->cols + j) - zb);
    return sum;
}

/* t has one number, one for each line, or one for each line of each matrix. */
static bool lines_fit(const struct tensor *t, const struct tensor *of, int64_t lines)
{
    int64_t n = t ? ref_count(t) : 1;

    return n == 1 || n == lines || n == lines * ref_span(of, 0, of->rank > 2 ? of->rank - 2 : 0);
}

REF_FN(ref_matmul_integer)
{
    const struct tensor *a = in[0], *b = in[1], *az = ref_in(n, in, 2), *bz = ref_in(n, in, 3),
                        *y = out[0];
    struct product p;
    int64_t at = 0;

    if (product_init(&p, a, b, y) < 0 || !lines_fit(az, a, p.rows) || !lines_fit(bz, b, p.cols))
        return ref_fail(n, err, -EINVAL, "the matrices do not go together");
    for (int64_t m = 0; m < p.w.n; m++, walk_next(&p.w))
        for (int64_t i = 0; i < p.rows; i++)
            for (int64_t j = 0; j < p.cols; j++)
                num_put(y, at++, (union num){.i = product_at(&p, a, az, b, bz, i, j)});
    return 0;
}

/* Inputs: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero, bias. */
REF_FN(ref_qlinear_matmul)
{
    const struct tensor *a = in[0], *b = in[3], *y = out[0], *bias = ref_in(n, in, 8);
    struct product p;
    int64_t at = 0;

    if (product_init(&p, a, b, y) < 0 || !lines_fit(in[1], a, p.rows) ||
        !lines_fit(in[2], a, p.rows) || !lines_fit(in[4], b, p.cols) ||
        !lines_fit(in[5], b, p.cols) || !lines_fit(in[6], y, p.rows) ||
        !lines_fit(in[7], y, p.rows) || (bias && ref_count(bias) != p.cols))
        return ref_fail(n, err, -EINVAL, "the matrices do not go together");
    for (int64_t m = 0; m < p.w.n; m++, walk_next(&p.w))
        for (int64_t i = 0; i < p.rows; i++)
            for (int64_t j = 0; j < p.cols; j++) {
                float sa = float_at(in[1], line_of(in[1], p.w.off[0], i, p.rows));
                float sb = float_at(in[4], line_of(in[4], p.w.off[1], j, p.cols));
                float sy = float_at(in[6], line_of(in[6], m, i, p.rows));
                int64_t zero = int_at(in[7], line_of(in[7], m, i, p.rows));
                int64_t sum = product_at(&p, a, in[2], b, in[5], i, j) + int_at(bias, j);
                put_quantised(y, at++, (float)sum * (sa * sb / sy), zero);
            }
    return 0;
}

/* ---- sums of bytes */

/* Inputs: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero. */
REF_FN(ref_qlinear_add)
{
    const struct tensor *y = out[0];
    struct walk w;

    walk_init(&w, y);
    if (walk_broadcast(&w, 0, in[0]) < 0 || walk_broadcast(&w, 1, in[3]) < 0)
        return ref_fail(n, err, -EINVAL, "the shapes do not go together");
    for (int64_t i = 0; i < w.n; i++, walk_next(&w)) {
        float a = (float)(int_at(in[0], w.off[0]) - int_at(in[2], 0)) * float_at(in[1], 0);
        float b = (float)(int_at(in[3], w.off[1]) - int_at(in[5], 0)) * float_at(in[4], 0);
        put_quantised(y, i, (a + b) / float_at(in[6], 0), int_at(in[7], 0));
    }
    return 0;
}
