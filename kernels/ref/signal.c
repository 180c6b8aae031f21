/* Windows, Fourier transforms and the mel scale: as defined, sum by sum. */
#include "kit.h"
#include <math.h>

/* ---- windows: sums of cosines over one period */
REF_FN(ref_window)
{
    static const double terms[][3] = {
        {0.5, -0.5, 0}, {25.0 / 46, -21.0 / 46, 0}, {0.42, -0.5, 0.08}};
    const double *k = terms[n->op == OP_HannWindow ? 0 : n->op == OP_HammingWindow ? 1 : 2];
    int64_t size = ref_count(out[0]);
    bool periodic = node_int(n, "periodic", 1) != 0;
    double period = (double)(periodic ? size : size - 1);

    (void)in;
    (void)err;
    for (int64_t i = 0; i < size; i++) {
        double at = 2 * M_PI * (double)i / period;
        double v = period == 0 ? 1 : k[0] + k[1] * cos(at) + k[2] * cos(2 * at);
        num_put(out[0], i, num_cast((union num){.f = v}, KIND_FLOAT, ref_kind(out[0]->dtype)));
    }
    return 0;
}

/* ---- transforms: complex numbers are the last dimension, of 1 or 2 */
struct complex_axis {
    const struct tensor *t;
    int64_t from, step, n, parts; /* first element, step to the next and how many there are */
};

static double part_of(const struct complex_axis *x, int64_t i, int64_t part)
{
    return i < x->n && part < x->parts ? num_get(x->t, x->from + i * x->step + part).f : 0;
}

/* Bin k of the transform over `length` elements; what is not there is zero. */
static void bin(const struct complex_axis *x, int64_t length, int64_t k, bool inverse,
                const double *window, double *re, double *im)
{
    *re = *im = 0;
    for (int64_t i = 0; i < MIN(length, x->n); i++) {
        double angle = 2 * M_PI * (double)(i * k % length) / (double)length;
        double c = cos(angle), s = inverse ? sin(angle) : -sin(angle);
        double a = part_of(x, i, 0), b = part_of(x, i, 1), w = window ? window[i] : 1;
        *re += w * (a * c - b * s);
        *im += w * (a * s + b * c);
    }
    if (inverse) {
        *re /= (double)length;
        *im /= (double)length;
    }
}

/* Element k of a real signal of `length` from the half of its spectrum. */
static double from_half(const struct complex_axis *x, int64_t length, int64_t k)
{
    double sum = 0;

    for (int64_t i = 0; i < length; i++) {
        int64_t at = i <= length / 2 ? i : length - i;
        double angle = 2 * M_PI * (double)(i * k % length) / (double)length;
        double im = at == 0 || 2 * at == length ? 0 : part_of(x, at, 1);
        sum += part_of(x, at, 0) * cos(angle) - (i == at ? im : -im) * sin(angle);
    }
    return sum / (double)length;
}

static int dft_check(const struct node *n, const struct tensor *x, const struct tensor *y,
                     uint32_t axis, int64_t length, struct err *err)
{
    bool inverse = node_int(n, "inverse", 0) != 0, one = node_int(n, "onesided", 0) != 0;
    int64_t last = x->rank ? x->dims[x->rank - 1] : 0;
    bool fits = y->rank == x->rank && (last == 1 || last == 2) && axis + 1 < x->rank &&
                length > 0 && y->dims[axis] == (one && !inverse ? length / 2 + 1 : length) &&
                y->dims[x->rank - 1] == (one && inverse ? 1 : 2);

    for (uint32_t d = 0; fits && d + 1 < x->rank; d++)
        fits = d == axis || x->dims[d] == y->dims[d];
    return fits ? 0 : ref_fail(n, err, -EINVAL, "input, output and axis do not go together");
}

REF_FN(ref_dft)
{
    const struct tensor *x = in[0], *y = out[0], *axis_in = n->opset < 20 ? NULL : ref_in(n, in, 2);
    const struct tensor *length_in = ref_in(n, in, 1);
    bool inverse = node_int(n, "inverse", 0) != 0, one = node_int(n, "onesided", 0) != 0;
    int64_t named = n->opset < 20 ? node_int(n, "axis", 1) : -2;
    uint32_t axis;
    int r = 0;

    if (axis_in)
        r = ref_integer(n, axis_in, &named, err);
    if (r < 0 || (r = ref_axis(n, named, x->rank, &axis, err)) < 0 ||
        (r = ref_floats(n, (const struct tensor *[]){x, y}, 2, err)) < 0)
        return r;
    int64_t length = inverse && one ? 2 * (x->dims[axis] - 1) : x->dims[axis];
    if (length_in)
        r = ref_integer(n, length_in, &length, err);
    if (r < 0 || (r = dft_check(n, x, y, axis, length, err)) < 0)
        return r;
    int64_t parts = x->dims[x->rank - 1], inner = ref_span(x, axis + 1, x->rank - 1);
    int64_t outer = ref_span(x, 0, axis), y_parts = y->dims[y->rank - 1], bins = y->dims[axis];
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            struct complex_axis line = {.t = x,
                                        .from = (o * x->dims[axis] * inner + i) * parts,
                                        .step = inner * parts,
                                        .n = x->dims[axis],
                                        .parts = parts};
            for (int64_t k = 0; k < bins; k++) {
                int64_t at = ((o * bins + k) * inner + i) * y_parts;
                double re, im;
                if (one && inverse) {
                    num_put(y, at, (union num){.f = from_half(&line, length, k)});
                    continue;
                }
                bin(&line, length, k, inverse, NULL, &re, &im);
                num_put(y, at, (union num){.f = re});
                num_put(y, at + 1, (union num){.f = im});
            }
        }
    return 0;
}

REF_FN(ref_stft)
{
    const struct tensor *x = in[0], *y = out[0], *window = ref_in(n, in, 2),
                        *length_in = ref_in(n, in, 3);
    int64_t step, length;
    int r = ref_floats(n, (const struct tensor *[]){x, window, y}, 3, err);

    if (r < 0 || (r = ref_integer(n, in[1], &step, err)) < 0)
        return r;
    if (x->rank < 2 || y->rank != 4)
        return ref_fail(n, err, -EINVAL, "signal or output have a wrong rank");
    int64_t signal = x->dims[1], parts = x->rank > 2 ? x->dims[2] : 1;
    length = window ? ref_count(window) : signal;
    if (length_in && (r = ref_integer(n, length_in, &length, err)) < 0)
        return r;
    int64_t frames = y->dims[1], bins = y->dims[2];
    if (step < 1 || length < 1 || length > signal || (window && ref_count(window) != length) ||
        frames != (signal - length) / step + 1 || y->dims[0] != x->dims[0] || y->dims[3] != 2 ||
        parts < 1 || parts > 2)
        return ref_fail(n, err, -EINVAL, "frame_step, frame_length or the window are out of range");
    AUTO(ref_drop) double *w = window ? ref_doubles(window) : NULL;
    if (window && !w)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    for (int64_t f = 0; f < x->dims[0] * frames; f++) {
        struct complex_axis line = {.t = x,
                                    .from = (f / frames * signal + f % frames * step) * parts,
                                    .step = parts,
                                    .n = length,
                                    .parts = parts};
        for (int64_t k = 0; k < bins; k++) {
            double re, im;
            bin(&line, length, k, false, w, &re, &im);
            num_put(y, (f * bins + k) * 2, (union num){.f = re});
            num_put(y, (f * bins + k) * 2 + 1, (union num){.f = im});
        }
    }
    return 0;
}

/* ---- mel scale */
static double mel_of(double hertz)
{
    return 2595 * log10(1 + hertz / 700);
}

static void put_weight(const struct tensor *y, int64_t at, double v)
{
    num_put(y, at, num_cast((union num){.f = v}, KIND_FLOAT, ref_kind(y->dtype)));
}

/* The triangle of one band: rises from lo to mid, falls from mid to hi. */
static void mel_band(const struct tensor *y, int64_t bands, int64_t band, const int64_t edge[3])
{
    if (edge[1] == edge[0])
        put_weight(y, edge[1] * bands + band, 1);
    for (int64_t j = edge[0]; edge[1] > edge[0] && j <= edge[1]; j++)
        put_weight(y, j * bands + band, (double)(j - edge[0]) / (double)(edge[1] - edge[0]));
    for (int64_t j = edge[1]; j < edge[2]; j++)
        put_weight(y, j * bands + band, (double)(edge[2] - j) / (double)(edge[2] - edge[1]));
}

REF_FN(ref_mel_weights)
{
    int64_t bands, dft, rate, bins;
    double lo, hi;

    for (unsigned i = 0; i < 5; i++)
        if (ref_count(in[i]) != 1 || ref_kind(in[i]->dtype) != (i < 3 ? KIND_INT : KIND_FLOAT))
            return ref_fail(n, err, -EINVAL, "an input is not one number of its type");
    bands = num_get(in[0], 0).i;
    dft = num_get(in[1], 0).i;
    rate = num_get(in[2], 0).i;
    lo = num_get(in[3], 0).f;
    hi = num_get(in[4], 0).f;
    bins = dft / 2 + 1;
    if (rate < 1 || bands < 0 || dft < 0 || !(lo >= 0) || !(hi >= lo) || out[0]->rank != 2 ||
        out[0]->dims[0] != bins || out[0]->dims[1] != bands)
        return ref_fail(n, err, -EINVAL, "an input is out of range");
    memset(out[0]->data, 0, out[0]->bytes);
    double low = mel_of(lo), step = (mel_of(hi) - low) / (double)(bands + 2);
    for (int64_t b = 0; b < bands; b++) {
        int64_t edge[3];
        for (int64_t i = 0; i < 3; i++) {
            double hertz = 700 * (pow(10, (low + (double)(b + i) * step) / 2595) - 1);
            double at = floor((double)(dft + 1) * hertz / (double)rate);
            if (!(at >= 0 && at < (double)bins))
                return ref_fail(n, err, -EINVAL, "an edge lies beyond the spectrum");
            edge[i] = (int64_t)at;
        }
        mel_band(out[0], bands, b, edge);
    }
    return 0;
}
