/* Between the elements: Resize by tables, GridSample, RoiAlign; and ConvTranspose. */
#include "kit.cuh"

KERNEL(taps)
{
    EACH (i, a.n) {
        int64_t in = i % a.inner, p = i / a.inner % a.n_out, o = i / a.inner / a.n_out;
        const int64_t *index = a.index + p * a.taps;
        int64_t from = o * a.n_in * a.inner + in;
        if (index[0] < 0) {
            move(a.y, i, &a.beyond, 0, a.size);
        } else if (!a.weight) {
            move(a.y, i, a.x, from + index[0] * a.inner, a.size);
        } else {
            float sum = 0;
            for (int64_t t = 0; t < a.taps; t++)
                sum += a.weight[p * a.taps + t] * ((const float *)a.x)[from + index[t] * a.inner];
            ((float *)a.y)[i] = sum;
        }
    }
}

/* ---- GridSample */
#define FAR 1099511627776.f /* coordinates end there */

DEVICE float reflected(float x, float low, float high)
{
    float range = high - low, beyond = x < low ? low - x : x - high;

    if (x >= low && x <= high)
        return x;
    if (range <= 0)
        return low;
    float times = floorf(beyond / range), rest = beyond - times * range;
    bool even = fmodf(times, 2) == 0;
    return (x < low) == even ? low + rest : high - rest;
}

DEVICE float cubic(float d)
{
    const float a = -0.75f;

    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
}

/* Up to four positions of an axis, -1 for zero, and their weights. */
struct axis_taps {
    int n;
    int64_t at[4];
    float weight[4];
};

DEVICE axis_taps taps_of(const grid_sample_args &a, float v, int64_t n)
{
    float low = a.corners ? 0 : -0.5f, high = a.corners ? (float)(n - 1) : (float)n - 0.5f;
    float x = a.corners ? (v + 1) / 2 * (float)(n - 1) : ((v + 1) * (float)n - 1) / 2;
    axis_taps t;

    x = x != x ? -1 : x < -FAR ? -FAR : x > FAR ? FAR : x;
    if (a.mode == GPU_SAMPLE_nearest)
        x = rintf(x);
    if ((x < low || x > high) && a.around == GPU_AROUND_border)
        x = x < low ? 0 : (float)(n - 1);
    else if ((x < low || x > high) && a.around == GPU_AROUND_reflection)
        x = reflected(x, low, high);
    t.n = a.mode == GPU_SAMPLE_nearest ? 1 : a.mode == GPU_SAMPLE_linear ? 2 : 4;
    for (int i = 0; i < t.n; i++) {
        float at = t.n == 1 ? truncf(x) : floorf(x) + (float)(i - (t.n == 4));
        t.weight[i] = t.n == 1 ? 1 : t.n == 2 ? 1 - fabsf(x - at) : cubic(fabsf(x - at));
        if (a.around == GPU_AROUND_border)
            at = fmaxf(0, fminf(at, (float)(n - 1)));
        else if (a.around == GPU_AROUND_reflection)
            at = truncf(reflected(at, low, high));
        t.at[i] = at >= 0 && at < (float)n ? (int64_t)at : -1;
    }
    return t;
}

DEVICE float sample_row(const float *x, const axis_taps &t)
{
    float sum = 0;

    for (int i = 0; i < t.n; i++)
        if (t.at[i] >= 0)
            sum += t.weight[i] * x[t.at[i]];
    return sum;
}

DEVICE float sample_plane(const float *x, int64_t width, const axis_taps &h, const axis_taps &w)
{
    float sum = 0;

    for (int i = 0; i < h.n; i++)
        if (h.at[i] >= 0)
            sum += h.weight[i] * sample_row(x + h.at[i] * width, w);
    return sum;
}

KERNEL(grid_sample)
{
    EACH (i, a.n) {
        int64_t plane = i / a.places, image = plane / a.channels;
        const float *g = a.grid + (image * a.places + i % a.places) * a.d;
        const float *x = a.x + plane * a.in[0] * a.in[1] * a.in[2];
        axis_taps w = taps_of(a, g[0], a.in[2]), h = taps_of(a, g[1], a.in[1]);
        if (a.d == 2) {
            a.y[i] = sample_plane(x, a.in[2], h, w);
            continue;
        }
        axis_taps deep = taps_of(a, g[2], a.in[0]);
        float sum = 0;
        for (int k = 0; k < deep.n; k++)
            if (deep.at[k] >= 0)
                sum += deep.weight[k] *
                       sample_plane(x + deep.at[k] * a.in[1] * a.in[2], a.in[2], h, w);
        a.y[i] = sum;
    }
}

/* ---- RoiAlign */
#define REACH 4 /* a region may be so many times as large as the image */

/* Of a region, along one axis. */
struct roi_line {
    float from, bin;
    int64_t samples;
};

DEVICE bool roi_line_of(const roi_align_args &a, int axis, float begin, float end, roi_line *ret)
{
    float offset = a.half_pixel ? 0.5f : 0, from = begin * a.scale - offset;
    float size = end * a.scale - offset - from, most = REACH * (float)(a.in[axis] + 1);

    if (!(fabsf(from) <= most) || !(fabsf(size) <= most))
        return false;
    if (!a.half_pixel)
        size = fmaxf(size, 1);
    ret->from = from;
    ret->bin = size / (float)a.out[axis];
    ret->samples = a.ratio ? a.ratio : (int64_t)fmaxf(ceilf(ret->bin), 0);
    return true;
}

/* The two neighbours of a point; false: too far out, it counts as zero. */
DEVICE bool roi_pair(const roi_line &l, int64_t bin, int64_t sample, int64_t n, axis_taps *ret)
{
    float x = l.from + (float)bin * l.bin + ((float)sample + 0.5f) * l.bin / (float)l.samples;

    if (x < -1 || x > (float)n || n == 0)
        return false;
    x = fminf(fmaxf(x, 0), (float)(n - 1));
    ret->at[0] = (int64_t)x;
    ret->at[1] = ret->at[0] + 1 < n ? ret->at[0] + 1 : n - 1;
    ret->weight[1] = x - (float)ret->at[0];
    ret->weight[0] = 1 - ret->weight[1];
    return true;
}

DEVICE float roi_point(const roi_align_args &a, const float *x, const axis_taps &h, const axis_taps &w)
{
    float v = 0;

    for (int i = 0; i < 4; i++) {
        float one = h.weight[i / 2] * w.weight[i % 2] * x[h.at[i / 2] * a.in[1] + w.at[i % 2]];
        v = !a.largest ? v + one : i == 0 || one > v ? one : v;
    }
    return v;
}

KERNEL(roi_align)
{
    EACH (i, a.n) {
        int64_t bw = i % a.out[1], bh = i / a.out[1] % a.out[0], plane = i / a.out[1] / a.out[0];
        int64_t region = plane / a.channels, image = a.of[region];
        const float *r = a.regions + region * 4;
        roi_line h, w;
        if (image < 0 || image >= a.images || !roi_line_of(a, 0, r[1], r[3], &h) ||
            !roi_line_of(a, 1, r[0], r[2], &w)) {
            *a.bad = 1;
            a.y[i] = 0;
            continue;
        }
        const float *x = a.x + (image * a.channels + plane % a.channels) * a.in[0] * a.in[1];
        float acc = 0;
        for (int64_t p = 0; p < h.samples; p++)
            for (int64_t q = 0; q < w.samples; q++) {
                axis_taps th, tw;
                bool there = roi_pair(h, bh, p, a.in[0], &th) && roi_pair(w, bw, q, a.in[1], &tw);
                float v = there ? roi_point(a, x, th, tw) : 0;
                acc = !a.largest ? acc + v : (p == 0 && q == 0) || v > acc ? v : acc;
            }
        int64_t count = h.samples * w.samples;
        a.y[i] = a.largest ? acc : acc / (float)(count > 0 ? count : 1);
    }
}

/* ---- ConvTranspose */

/* Which position of x brings something to p by position k of the window; -1: none. */
DEVICE int64_t window_source(const gpu_window &w, const int64_t p[3], const int64_t k[3])
{
    int64_t off = 0;

    for (int d = 0; d < 3; d++) {
        int64_t x = p[d] + w.pad[d] - k[d] * w.dilation[d];
        if (x < 0 || x % w.stride[d] != 0 || x / w.stride[d] >= w.out[d])
            return -1;
        off = off * w.out[d] + x / w.stride[d];
    }
    return off;
}

KERNEL(deconv)
{
    const gpu_window &w = a.window;
    int64_t each = a.channels / a.groups, each_out = a.filters / a.groups;
    int64_t n_x = w.out[0] * w.out[1] * w.out[2], n_y = w.in[0] * w.in[1] * w.in[2];
    int64_t n_k = w.kernel[0] * w.kernel[1] * w.kernel[2];

    EACH (i, a.n) {
        int64_t rest = i % n_y, p[3], at = 0;
        int64_t filter = i / n_y % a.filters, image = i / n_y / a.filters, group = filter / each_out;
        for (int d = 2; d >= 0; d--) {
            p[d] = rest % w.in[d];
            rest /= w.in[d];
        }
        float sum = 0;
        EACH_PLACE (w, k) {
            int64_t from = window_source(w, p, k);
            for (int64_t c = group * each; from >= 0 && c < (group + 1) * each; c++)
                sum += a.x[(image * a.channels + c) * n_x + from] *
                       a.w[(c * each_out + filter % each_out) * n_k + at];
            at++;
        }
        a.y[i] = sum + (a.bias ? a.bias[filter] : 0);
    }
}
