/* Differences of outputs: one pass for errors, one for the rows' largest entries. */
#include <gpulet/accuracy.h>
#include <math.h>

#define ERROR_MOST 1e15 /* as good as any number beyond it */

static double fp16_at(uint16_t h)
{
    int exp = h >> 10 & 31, m = h & 0x3ff;
    double x = exp == 31 ? (m ? (double)NAN : (double)INFINITY)
               : exp     ? ldexp(1024 + m, exp - 25)
                         : ldexp(m, -24);

    return h & 0x8000 ? -x : x;
}

static double bf16_at(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float x;

    memcpy(&x, &bits, sizeof(x));
    return (double)x;
}

static bool is_float(enum dtype t)
{
    return t == DT_FP32 || t == DT_FP64 || t == DT_FP16 || t == DT_BF16;
}

static double number_at(const struct tensor *t, size_t i)
{
    switch (t->dtype) {
    case DT_FP64:
        return ((const double *)t->data)[i];
    case DT_FP16:
        return fp16_at(((const uint16_t *)t->data)[i]);
    case DT_BF16:
        return bf16_at(((const uint16_t *)t->data)[i]);
    default:
        return (double)((const float *)t->data)[i];
    }
}

static bool shapes_equal(const struct tensor *a, const struct tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes &&
           memcmp(a->dims, b->dims, a->rank * sizeof(*a->dims)) == 0;
}

/* Squares of what is relative to the largest: those of FP64 might not be finite. */
static void compare_numbers(const struct tensor *want, const struct tensor *got,
                            struct accuracy_output *ret)
{
    double top = 0, off = 0, squares = 0, off_squares = 0;
    uint64_t n_finite = 0;

    for (size_t i = 0; i < ret->n; i++) {
        double w = number_at(want, i), g = number_at(got, i);
        if (!isfinite(w))
            continue;
        n_finite++;
        ret->n_overflowed += !isfinite(g);
        top = isfinite(g) ? fmax(top, fabs(w)) : top;
        off = isfinite(g) ? fmax(off, fabs(g - w)) : off;
    }
    for (size_t i = 0; i < ret->n && top > 0; i++) {
        double w = number_at(want, i), g = number_at(got, i);
        if (!isfinite(w) || !isfinite(g))
            continue;
        squares += w / top * (w / top);
        off_squares += (g - w) / top * ((g - w) / top);
    }
    ret->kind = ret->n > 0 && n_finite == 0                     ? ACCURACY_NOT_FINITE
                : n_finite > 0 && ret->n_overflowed == n_finite ? ACCURACY_OVERFLOW
                : top == 0 && off > 0                           ? ACCURACY_ZERO
                                                                : ACCURACY_NUMBERS;
    if (top > 0) {
        ret->max_error = fmin(off / top, ERROR_MOST);
        ret->rms_error = fmin(sqrt(off_squares / squares), ERROR_MOST);
    }
}

/* The first of the largest; n: one of them is not finite, which says nothing. */
static size_t top_of(const struct tensor *t, size_t row, size_t n)
{
    size_t top = 0;

    for (size_t i = 0; i < n; i++) {
        double x = number_at(t, row * n + i);
        if (!isfinite(x))
            return n;
        if (x > number_at(t, row * n + top))
            top = i;
    }
    return top;
}

static void compare_tops(const struct tensor *want, const struct tensor *got,
                         struct accuracy_output *ret)
{
    size_t n = (size_t)want->dims[1], rows = (size_t)want->dims[0], same = 0, sound = 0;

    for (size_t r = 0; r < rows; r++) {
        size_t top = top_of(want, r, n);
        sound += top < n;
        same += top < n && top_of(got, r, n) == top;
    }
    if (sound > 0)
        ret->same_top = (double)same / (double)sound;
}

static void compare_entries(const struct tensor *want, const struct tensor *got,
                            struct accuracy_output *ret)
{
    size_t size = dtype_size(want->dtype), same = 0;

    ret->kind = ACCURACY_EQUAL;
    for (size_t i = 0; i < ret->n; i++)
        same += memcmp((const char *)want->data + i * size, (const char *)got->data + i * size,
                       size) == 0;
    ret->same = ret->n > 0 ? (double)same / (double)ret->n : 1;
}

void accuracy_of(const struct tensor *want, const struct tensor *got, struct accuracy_output *ret)
{
    size_t size = dtype_size(want->dtype);

    *ret = (struct accuracy_output){.same_top = -1, .n = size ? want->bytes / size : 0};
    if (!size && want->dtype == got->dtype)
        ret->kind = ACCURACY_TEXT;
    else if (!size || !shapes_equal(want, got))
        ret->kind = ACCURACY_SHAPES;
    else if (!is_float(want->dtype))
        compare_entries(want, got, ret);
    else
        compare_numbers(want, got, ret);
    if (ret->kind != ACCURACY_SHAPES && is_float(want->dtype) && want->rank == 2 &&
        want->dims[1] > 1)
        compare_tops(want, got, ret);
}

const char *accuracy_why(enum accuracy_kind kind)
{
    static const char *const why[ACCURACY_KINDS] = {
        [ACCURACY_SHAPES] = "a run decides its shape, and decided another one",
        [ACCURACY_TEXT] = "strings are not compared",
        [ACCURACY_ZERO] = "it is zero throughout in fp32",
        [ACCURACY_NOT_FINITE] = "it is not finite in fp32 either",
        [ACCURACY_OVERFLOW] = "nothing of it is finite that is in fp32",
    };

    return (unsigned)kind < ACCURACY_KINDS && why[kind] ? why[kind] : "";
}

uint32_t accuracy_worst(const struct accuracy *a)
{
    uint32_t worst = 0;

    for (uint32_t i = 1; i < a->n_out; i++) {
        const struct accuracy_output *x = &a->out[i], *w = &a->out[worst];
        bool over = x->n_overflowed > 0, was_over = w->n_overflowed > 0;
        if (over != was_over ? over
                             : x->max_error > w->max_error ||
                                   (x->max_error == w->max_error && x->same < w->same))
            worst = i;
    }
    return worst;
}
