/* Products and convolutions of bytes: MatMulInteger, QLinearMatMul, ConvInteger, QLinearConv.
 *
 * Bytes become 16-bit numbers with the zero point taken off, weights when the model is compiled,
 * the rest a few rows at a time; so sums are exact, where the byte instructions of AVX2, which the
 * library uses, saturate.  Weights that are no constant are left to the plain loops. */
#include "kit.h"

#define ROWS 4          /* of the result at a time */
#define COLS 64         /* and columns */
#define CHUNK 1024      /* of the inner dimension */
#define MAX_INNER 32768 /* times 255 * 255 fits int32 */
#define SPATIAL 3

/* What comes behind the sums. */
struct scaling {
    bool on;                        /* else the sums are the result */
    uint32_t x, w, y, y_zero, bias; /* which inputs; bias: 0 for none */
    bool many;                      /* w has one for each column */
    enum dtype type;
};

struct qproduct {
    int64_t rows, inner, cols;
    const int16_t *w;      /* [cols][inner] */
    uint32_t n_in, x_zero; /* x_zero: which input, 0 for none */
    bool x_signed;
    struct scaling s;
    void (*dot)(int64_t n, const int16_t *a, const int16_t *b, int32_t *sums);

    /* convolutions: rows are pixels, cols the channels of a group */
    bool conv;
    int64_t images, groups, c_in;
    int64_t in[SPATIAL], out[SPATIAL], kernel[SPATIAL], stride[SPATIAL], dilate[SPATIAL],
        pad[SPATIAL];
};

/* sums[i] += row i of a [ROWS][CHUNK] times b, of n numbers. */
VECTOR(dot_rows, (int64_t n, const int16_t *a, const int16_t *b, int32_t *sums), (n, a, b, sums))
{
    for (int i = 0; i < ROWS; i++) {
        const int16_t *row = a + i * CHUNK;
        int32_t sum = 0;
        SIMD_SUM(sum)
        for (int64_t k = 0; k < n; k++)
            sum += (int32_t)row[k] * (int32_t)b[k];
        sums[i * COLS] += sum;
    }
}

static int16_t byte_at(const void *x, bool is_signed, int64_t at)
{
    return is_signed ? ((const int8_t *)x)[at] : ((const uint8_t *)x)[at];
}

static int16_t x_zero_of(const struct qproduct *p, void *const *ptr)
{
    return p->x_zero ? byte_at(ptr[p->x_zero], p->x_signed, 0) : 0;
}

/* n numbers of row `row` of a matrix, from number k on. */
static void load_row(const struct qproduct *p, const void *x, int16_t zero, int64_t row, int64_t k,
                     int64_t n, int16_t *ret)
{
    const uint8_t *u = (const uint8_t *)x + row * p->inner + k;
    const int8_t *s = (const int8_t *)u;

    if (p->x_signed)
        for (int64_t i = 0; i < n; i++)
            ret[i] = (int16_t)(s[i] - zero);
    else
        for (int64_t i = 0; i < n; i++)
            ret[i] = (int16_t)(u[i] - zero);
}

/* The same of a pixel's window, which starts with channel k / taps. */
static void load_window(const struct qproduct *p, const void *x, int16_t zero, int64_t row,
                        int64_t k, int64_t n, int16_t *ret)
{
    int64_t taps = p->kernel[0] * p->kernel[1] * p->kernel[2];
    int64_t each = p->in[0] * p->in[1] * p->in[2];
    int64_t z = row / p->out[2] / p->out[1] * p->stride[0] - p->pad[0];
    int64_t y = row / p->out[2] % p->out[1] * p->stride[1] - p->pad[1];
    int64_t w = row % p->out[2] * p->stride[2] - p->pad[2];

    for (int64_t c = k / taps; c < (k + n) / taps; c++)
        for (int64_t i = 0; i < p->kernel[0]; i++)
            for (int64_t j = 0; j < p->kernel[1]; j++)
                for (int64_t l = 0; l < p->kernel[2]; l++) {
                    int64_t a = z + i * p->dilate[0], b = y + j * p->dilate[1],
                            d = w + l * p->dilate[2];
                    bool inside =
                        a >= 0 && a < p->in[0] && b >= 0 && b < p->in[1] && d >= 0 && d < p->in[2];
                    *ret++ = inside
                                 ? (int16_t)(byte_at(x, p->x_signed,
                                                     c * each + (a * p->in[1] + b) * p->in[2] + d) -
                                             zero)
                                 : 0; /* padding is worth the zero point */
                }
}

/* How many numbers at a time: for convolutions, whole channels. */
static int64_t chunk_of(const struct qproduct *p)
{
    int64_t taps = p->conv ? p->kernel[0] * p->kernel[1] * p->kernel[2] : 1;

    return CHUNK / taps * taps;
}

/* Sums of rows [row, row + n_rows) and columns [col, col + n_cols). */
static void sum_block(const struct qproduct *p, const void *x, int16_t zero, const int16_t *w,
                      int64_t row, int64_t n_rows, int64_t n_cols, int32_t sums[ROWS * COLS])
{
    int16_t a[ROWS * CHUNK];

    memset(sums, 0, ROWS * COLS * sizeof(*sums));
    for (int64_t k = 0; k < p->inner; k += chunk_of(p)) {
        int64_t n = MIN(chunk_of(p), p->inner - k);
        for (int64_t i = 0; i < n_rows; i++)
            (p->conv ? load_window : load_row)(p, x, zero, row + i, k, n, a + i * CHUNK);
        for (int64_t i = n_rows; i < ROWS; i++)
            memset(a + i * CHUNK, 0, (size_t)n * sizeof(*a));
        for (int64_t j = 0; j < n_cols; j++)
            p->dot(n, a, w + j * p->inner + k, sums + j);
    }
}

static void put_byte(void *y, int64_t at, enum dtype type, float v, int32_t zero)
{
    float lo = type == DT_INT8 ? -128 : 0, hi = type == DT_INT8 ? 127 : 255;
    float r = rintf(v) + (float)zero;

    r = r >= lo ? MIN(r, hi) : lo;
    if (type == DT_INT8)
        ((int8_t *)y)[at] = (int8_t)r;
    else
        ((uint8_t *)y)[at] = (uint8_t)r;
}

/* A sum becomes result `at`; column counts all channels. */
static void put_sum(const struct qproduct *p, void *const *ptr, int64_t at, int64_t column,
                    int32_t sum)
{
    const struct scaling *s = &p->s;

    if (!s->on) {
        ((int32_t *)ptr[p->n_in])[at] = sum;
        return;
    }
    int64_t all = (int64_t)sum + (s->bias ? ((const int32_t *)ptr[s->bias])[column] : 0);
    float scale = *(const float *)ptr[s->x] * ((const float *)ptr[s->w])[s->many ? column : 0] /
                  *(const float *)ptr[s->y];
    put_byte(ptr[p->n_in], at, s->type, (float)all * scale,
             byte_at(ptr[s->y_zero], s->type == DT_INT8, 0));
}

static int run_product(const void *params, void *const *ptr)
{
    const struct qproduct *p = params;
    int16_t zero = x_zero_of(p, ptr);
    int32_t sums[ROWS * COLS];

    for (int64_t row = 0; row < p->rows; row += ROWS)
        for (int64_t col = 0; col < p->cols; col += COLS) {
            int64_t n_rows = MIN(ROWS, p->rows - row), n_cols = MIN(COLS, p->cols - col);
            sum_block(p, ptr[0], zero, p->w + col * p->inner, row, n_rows, n_cols, sums);
            for (int64_t i = 0; i < n_rows; i++)
                for (int64_t j = 0; j < n_cols; j++)
                    put_sum(p, ptr, (row + i) * p->cols + col + j, col + j, sums[i * COLS + j]);
        }
    return 0;
}

/* One image and group: pixels are rows, but results of a channel lie together. */
static void conv_plane(const struct qproduct *p, void *const *ptr, int64_t image, int64_t group)
{
    int64_t each = p->in[0] * p->in[1] * p->in[2];
    const char *x = (const char *)ptr[0] + (image * p->groups + group) * p->c_in * each;
    int16_t zero = x_zero_of(p, ptr);
    int32_t sums[ROWS * COLS];

    for (int64_t row = 0; row < p->rows; row += ROWS)
        for (int64_t col = 0; col < p->cols; col += COLS) {
            int64_t n_rows = MIN(ROWS, p->rows - row), n_cols = MIN(COLS, p->cols - col);
            int64_t channel = group * p->cols + col;
            sum_block(p, x, zero, p->w + channel * p->inner, row, n_rows, n_cols, sums);
            for (int64_t j = 0; j < n_cols; j++)
                for (int64_t i = 0; i < n_rows; i++)
                    put_sum(p, ptr, (image * p->groups * p->cols + channel + j) * p->rows + row + i,
                            channel + j, sums[i * COLS + j]);
        }
}

static int run_conv(const void *params, void *const *ptr)
{
    const struct qproduct *p = params;

    for (int64_t i = 0; i < p->images; i++)
        for (int64_t g = 0; g < p->groups; g++)
            conv_plane(p, ptr, i, g);
    return 0;
}

/* ---- planning */

/* Weights without their zero points: [columns][inner].  Element (k, j) lies at k * down + j * on.
 */
static const int16_t *pack(const struct cpu_args *a, const struct tensor *w,
                           const struct tensor *zero, int64_t cols, int64_t inner, int64_t down,
                           int64_t on)
{
    bool is_signed = w->dtype == DT_INT8, many = zero && count_of(zero) > 1;
    int16_t *ret = ARENA_ARRAY(a->arena, int16_t, MAX(cols * inner, 1));

    for (int64_t j = 0; ret && j < cols; j++) {
        int16_t z = zero ? byte_at(zero->data, is_signed, many ? j : 0) : 0;
        for (int64_t k = 0; k < inner; k++)
            ret[j * inner + k] = (int16_t)(byte_at(w->data, is_signed, k * down + j * on) - z);
    }
    return ret;
}

static bool one_number(const struct tensor *t)
{
    return !t || count_of(t) == 1;
}

/* Scales of x and of the result are one number each, of weights one or one for each column. */
static bool scaling_init(const struct cpu_args *a, int64_t cols, struct scaling *s)
{
    const struct tensor *w = a->in[4];

    *s = (struct scaling){.on = true,
                          .x = 1,
                          .w = 4,
                          .y = 6,
                          .y_zero = 7,
                          .bias = arg_in(a, 8) ? 8 : 0,
                          .many = count_of(w) > 1,
                          .type = a->out[0]->dtype};
    return one_number(a->in[1]) && one_number(a->in[6]) && one_number(a->in[7]) &&
           a->in[1]->dtype == DT_FP32 && w->dtype == DT_FP32 && a->in[6]->dtype == DT_FP32 &&
           w->rank <= 1 && (count_of(w) == 1 || count_of(w) == cols);
}

/* Which inputs are weights and zero points: 1 2 3 of the Integer operators, 3 2 5 of the others.
 * Without data: they are no constants. */
struct operands {
    const struct tensor *w, *x_zero, *w_zero;
};

static bool operands_of(const struct cpu_args *a, bool linear, int64_t cols, struct operands *o)
{
    *o = (struct operands){arg_in(a, linear ? 3 : 1), arg_in(a, 2), arg_in(a, linear ? 5 : 3)};
    return o->w->data && one_number(o->x_zero) &&
           (!o->w_zero || (o->w_zero->data && o->w_zero->rank <= 1 &&
                           (count_of(o->w_zero) == 1 || count_of(o->w_zero) == cols)));
}

int plan_qproduct(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    bool linear = a->node->op == OP_QLinearMatMul;
    const struct tensor *x = a->in[0], *w = a->in[linear ? 3 : 1];
    struct qproduct p = {
        .x_signed = x->dtype == DT_INT8, .n_in = a->node->n_in, .dot = PICK(dot_rows)};
    struct operands o;

    if (x->rank < 1 || w->rank != 2)
        return plan_fail(a, -ENOTSUP, "operands that plain loops do", err);
    p.inner = w->dims[0];
    p.cols = w->dims[1];
    p.rows = span(x, 0, x->rank - 1);
    if (!operands_of(a, linear, p.cols, &o) || p.inner > MAX_INNER ||
        (linear && !scaling_init(a, p.cols, &p.s)))
        return plan_fail(a, -ENOTSUP, "operands that plain loops do", err);
    p.x_zero = o.x_zero ? 2 : 0;
    p.w = pack(a, w, o.w_zero, p.cols, p.inner, p.cols, 1);
    if (!p.w)
        return err_set(err, -ENOMEM, "out of memory");
    return plan_done(a, run_product, &p, sizeof(p), ret, err);
}

/* Numbers of an attribute behind leading ones. */
static void spread(const struct node *n, const char *name, uint32_t count, int64_t absent,
                   int64_t *ret)
{
    uint32_t have;
    const int64_t *v = node_ints(n, name, &have);

    for (uint32_t i = 0; i < SPATIAL; i++)
        ret[i] = absent;
    for (uint32_t i = 0; i < count && i < have; i++)
        ret[SPATIAL - count + i] = v[i];
}

static void conv_window(const struct cpu_args *a, const struct tensor *w, struct qproduct *p)
{
    const struct tensor *x = a->in[0], *y = a->out[0];
    const char *automatic = node_str(a->node, "auto_pad", "NOTSET");
    uint32_t count = x->rank - 2;

    spread(a->node, "strides", count, 1, p->stride);
    spread(a->node, "dilations", count, 1, p->dilate);
    spread(a->node, "pads", count, 0, p->pad);
    for (uint32_t i = 0; i < SPATIAL; i++) {
        bool there = i + count >= SPATIAL;
        p->in[i] = there ? x->dims[i + x->rank - SPATIAL] : 1;
        p->out[i] = there ? y->dims[i + x->rank - SPATIAL] : 1;
        p->kernel[i] = there ? w->dims[i + x->rank - SPATIAL] : 1;
        int64_t need = (p->out[i] - 1) * p->stride[i] + (p->kernel[i] - 1) * p->dilate[i] + 1;
        int64_t pad = MAX(need - p->in[i], 0);
        if (STREQ(automatic, "VALID"))
            p->pad[i] = 0;
        else if (!STREQ(automatic, "NOTSET"))
            p->pad[i] = STREQ(automatic, "SAME_LOWER") ? pad - pad / 2 : pad / 2;
    }
}

int plan_qconv(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    bool linear = a->node->op == OP_QLinearConv;
    const struct tensor *x = a->in[0], *w = a->in[linear ? 3 : 1];
    int64_t channels = w->dims[0], taps = span(w, 2, w->rank);
    struct qproduct p = {.conv = true,
                         .x_signed = x->dtype == DT_INT8,
                         .n_in = a->node->n_in,
                         .images = x->dims[0],
                         .groups = node_int(a->node, "group", 1),
                         .c_in = w->dims[1],
                         .inner = w->dims[1] * taps,
                         .dot = PICK(dot_rows)};
    struct operands o;

    if (x->rank > 2 + SPATIAL || taps > CHUNK || p.inner > MAX_INNER ||
        !operands_of(a, linear, channels, &o) || (linear && !scaling_init(a, channels, &p.s)))
        return plan_fail(a, -ENOTSUP, "a form that plain loops do", err);
    conv_window(a, w, &p);
    p.cols = channels / p.groups;
    p.rows = p.out[0] * p.out[1] * p.out[2];
    p.x_zero = o.x_zero ? 2 : 0;
    p.w = pack(a, w, o.w_zero, channels, p.inner, 1, p.inner);
    if (!p.w)
        return err_set(err, -ENOMEM, "out of memory");
    return plan_done(a, run_conv, &p, sizeof(p), ret, err);
}
