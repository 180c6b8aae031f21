/* Attention in one kernel, built for the host, against a plain sum in FP32: every width, rows and
 * keys that fill no tile, strides, masks.  What becomes of it in a network is for test_fused. */
#include "fake_rig.h"

#include <kernels/cuda/args.h>
#include <kernels/cuda/half.h>
#include <math.h>

typedef void kernel_fn(const void *args, unsigned blocks, unsigned threads);

#define MOST 400000
static uint16_t q[MOST], k[MOST], v[MOST], y[MOST], mask[MOST];
static uint8_t shown[MOST];

static float number(int type, uint16_t x)
{
    return type == GPU_F16 ? fp16_to(x) : bf16_to(x);
}

/* About zero, a few units large; the same each time. */
static void fill(int type, uint16_t *x, size_t n, uint32_t seed, float size)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t r = ((uint32_t)i * 2654435761u ^ seed * 40503u) * 2246822519u;
        float f = ((float)(r >> 8) / 8388608.f - 1) * size;
        x[i] = type == GPU_F16 ? fp16_of(f) : bf16_of(f);
    }
}

static kernel_fn *kernel(int64_t width)
{
    static void *so;

    if (!so)
        so = dlopen(beside("", "libkernels.so"), RTLD_NOW);
    assert(so);
    kernel_fn *f = (kernel_fn *)dlsym(so, width > 64 ? "gpulet_attend128" : "gpulet_attend64");
    assert(f);
    return f;
}

static bool hides(const struct attend_args *a, int64_t of_mask, int64_t row, int64_t key)
{
    if (a->causal)
        return key > row + a->keys - a->rows;
    return a->mask && a->mask_type == GPU_BOOL &&
           (shown[of_mask + row * a->mask_stride[2] + key * a->mask_stride[3]] != 0) != a->shows;
}

/* One row, into want. */
static void plain(const struct attend_args *a, int64_t b, int64_t h, int64_t row, float *want)
{
    const uint16_t *qr = q + a->from_q + b * a->of_q.batch + h * a->of_q.head + row * a->of_q.row;
    int64_t of_mask = b * a->mask_stride[0] + h * a->mask_stride[1];
    float *w = calloc((size_t)a->keys, sizeof(*w)), top = -INFINITY, sum = 0;

    for (int64_t t = 0; t < a->keys; t++) {
        const uint16_t *kr = k + a->from_k + b * a->of_k.batch + h * a->of_k.head + t * a->of_k.row;
        for (int64_t j = 0; j < a->width; j++)
            w[t] += number(a->type, qr[j]) * number(a->type, kr[j]);
        w[t] *= a->scale;
        if (a->mask && a->mask_type != GPU_BOOL)
            w[t] +=
                number(a->type, mask[of_mask + row * a->mask_stride[2] + t * a->mask_stride[3]]);
        w[t] = hides(a, of_mask, row, t) ? a->other : w[t];
        top = fmaxf(top, w[t]);
    }
    for (int64_t t = 0; t < a->keys; t++)
        sum += w[t] = expf(w[t] - top);
    for (int64_t j = 0; j < a->width; j++) {
        want[j] = 0;
        for (int64_t t = 0; t < a->keys; t++)
            want[j] +=
                w[t] / sum *
                number(a->type,
                       v[a->from_v + b * a->of_v.batch + h * a->of_v.head + t * a->of_v.row + j]);
    }
    free(w);
}

/* (sample, row, head, width) or (sample, head, row, width). */
static struct gpu_heads heads_of(const struct attend_args *a, int64_t rows, bool apart)
{
    return (struct gpu_heads){.batch = a->heads * rows * a->width,
                              .head = apart ? rows * a->width : a->width,
                              .row = apart ? a->width : a->heads * a->width};
}

/* Runs it with fewer blocks than tasks; nothing beside y is touched. */
static void check_attend(struct attend_args a, int64_t batch)
{
    int64_t n = batch * a.heads * a.rows * a.width;
    double worst = 0, most = 0;
    float want[128];

    a.q = q;
    a.k = k;
    a.v = v;
    a.y = y;
    a.n = batch * a.heads * ((a.rows + ATTEND_EACH - 1) / ATTEND_EACH);
    fill(a.type, q, MOST, 1, 2);
    fill(a.type, k, MOST, 2, 2);
    fill(a.type, v, MOST, 3, 1);
    memset(y, 0x7e, sizeof(y));
    kernel(a.width)(&a, a.n > 2 ? 2 : 1, ATTEND_THREADS);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < a.heads; h++)
            for (int64_t row = 0; row < a.rows; row++) {
                plain(&a, b, h, row, want);
                for (int64_t j = 0; j < a.width; j++) {
                    float got = number(
                        a.type, y[b * a.of_y.batch + h * a.of_y.head + row * a.of_y.row + j]);
                    double d = fabs((double)(got - want[j]));
                    worst = isnan(d) ? (double)INFINITY : fmax(worst, d);
                    most = fmax(most, fabs((double)want[j]));
                }
            }
    CHECK(most > 0.05);
    CHECK(worst < (a.type == GPU_F16 ? 2e-3 : 2e-2));
    CHECK(n < MOST && y[n] == 0x7e7e);
}

static struct attend_args args(int64_t heads, int64_t rows, int64_t keys, int64_t width)
{
    struct attend_args a = {.heads = heads,
                            .rows = rows,
                            .keys = keys,
                            .width = width,
                            .scale = 1 / sqrtf((float)width),
                            .type = GPU_F16};

    a.of_q = heads_of(&a, rows, false);
    a.of_k = heads_of(&a, keys, false);
    a.of_v = heads_of(&a, keys, false);
    a.of_y = heads_of(&a, rows, false);
    return a;
}

static void every_width_that_8_divides_is_done(void)
{
    for (int64_t width = 8; width <= 128; width += 8)
        check_attend(args(2, 20, 24, width), 1);
}

static void rows_and_keys_need_not_fill_a_tile(void)
{
    static const int64_t counts[] = {1, 15, 17, 63, 64, 65, 130};

    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        check_attend(args(1, counts[i], 70, 16), 1);
        check_attend(args(1, 9, counts[i], 16), 1);
    }
}

static void warps_of_a_block_may_have_no_rows(void)
{
    for (int64_t rows = 64; rows <= 128; rows += 16)
        check_attend(args(3, rows, 100, 64), 2);
}

static void heads_may_lie_apart_or_beside_each_other(void)
{
    struct attend_args a = args(3, 33, 40, 32);

    a.of_k = heads_of(&a, 40, true);
    a.of_y = heads_of(&a, 33, true);
    check_attend(a, 2);
    /* Queries, keys and values as one product gives them. */
    a.of_q = (struct gpu_heads){.batch = 40 * 288, .head = 32, .row = 288};
    a.of_k = a.of_v = a.of_q;
    a.from_k = 96;
    a.from_v = 192;
    check_attend(a, 2);
}

static void it_is_the_same_in_bf16(void)
{
    struct attend_args a = args(2, 50, 90, 80);

    a.type = GPU_BF16;
    check_attend(a, 2);
}

static void a_mask_is_added_for_each_key_row_or_head(void)
{
    struct attend_args a = args(2, 37, 70, 24);

    a.mask = mask;
    a.mask_type = GPU_F16;
    fill(GPU_F16, mask, MOST, 4, 3);
    a.mask_stride[3] = 1;
    check_attend(a, 2);
    a.mask_stride[0] = 70;
    check_attend(a, 2);
    a.mask_stride[2] = 70;
    a.mask_stride[1] = 37 * 70;
    a.mask_stride[0] = 2 * 37 * 70;
    check_attend(a, 2);
}

/* The largest that FP16 has, for whole tiles, too: nothing of what is hidden is seen. */
static void what_a_mask_hides_has_no_weight(void)
{
    struct attend_args a = args(1, 20, 200, 16);

    a.mask = mask;
    a.mask_type = GPU_F16;
    a.mask_stride[3] = 1;
    for (size_t i = 0; i < 200; i++)
        mask[i] = i < 70 || i % 3 == 0 ? fp16_fit(-1e9f) : 0;
    check_attend(a, 1);
    for (size_t i = 0; i < 200; i++)
        mask[i] = i < 70 || i % 3 == 0 ? fp16_of(-INFINITY) : 0;
    check_attend(a, 1);
}

static void a_mask_may_choose_between_a_score_and_a_number(void)
{
    struct attend_args a = args(2, 37, 70, 24);

    for (size_t i = 0; i < MOST; i++)
        shown[i] = i % 5 != 0 && i % 7 != 1;
    a.mask = shown;
    a.mask_type = GPU_BOOL;
    a.mask_stride[2] = 70;
    a.mask_stride[3] = 1;
    a.shows = 1;
    a.other = -3;
    check_attend(a, 2);
    a.shows = 0;
    a.other = -60000;
    check_attend(a, 2);
}

static void a_row_sees_nothing_behind_it_where_that_is_asked_for(void)
{
    struct attend_args a = args(2, 150, 150, 16);

    a.causal = 1;
    a.other = -60000;
    check_attend(a, 1);
    a = args(2, 30, 150, 16); /* the last 30 of 150 */
    a.causal = 1;
    a.other = -60000;
    check_attend(a, 1);
}

int main(void)
{
    RUN(every_width_that_8_divides_is_done);
    RUN(rows_and_keys_need_not_fill_a_tile);
    RUN(warps_of_a_block_may_have_no_rows);
    RUN(heads_may_lie_apart_or_beside_each_other);
    RUN(it_is_the_same_in_bf16);
    RUN(a_mask_is_added_for_each_key_row_or_head);
    RUN(what_a_mask_hides_has_no_weight);
    RUN(a_mask_may_choose_between_a_score_and_a_number);
    RUN(a_row_sees_nothing_behind_it_where_that_is_asked_for);
    return check_end();
}
