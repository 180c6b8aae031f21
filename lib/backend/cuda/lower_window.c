/* Convolution and pooling. */
#include "nvlib.h"

static void auto_pad(struct gpu_window *w, const char *mode)
{
    for (unsigned i = 0; i < 3; i++) {
        int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1;
        int64_t total = (w->out[i] - 1) * w->stride[i] + reach - w->in[i];
        if (STREQ(mode, "VALID") || total < 0)
            total = 0;
        w->pad[i] = STREQ(mode, "SAME_LOWER") ? total - total / 2 : total / 2;
        w->pad_end[i] = total - w->pad[i];
    }
}

/* Numbers of an attribute to the end of a three, the rest keeps its default. */
static int spatial(struct build *b, const struct node *n, const char *name, uint32_t d,
                   uint32_t part, uint32_t parts, int64_t *ret)
{
    uint32_t have;
    const int64_t *ints = node_ints(n, name, &have);

    if (!ints)
        return 0;
    if (have != d * parts)
        return build_fail(b, -EINVAL, "an attribute has not one number for each dimension");
    memcpy(ret + 3 - d, ints + d * part, d * sizeof(*ret));
    return 0;
}

int window_of(struct build *b, const struct node *n, const struct tensor *x, const struct tensor *y,
              const int64_t *kernel, struct gpu_window *w)
{
    const char *mode = node_str(n, "auto_pad", "NOTSET");
    uint32_t d = x->rank < 2 ? 0 : x->rank - 2;
    int r;

    if (d < 1 || d > 3 || y->rank != x->rank)
        return build_fail(b, -ENOTSUP, "an input that has not 3 to 5 dimensions");
    *w = (struct gpu_window){0};
    for (uint32_t i = 0; i < 3; i++) {
        bool has = i + d >= 3;
        uint32_t at = has ? i + d - 3 : 0;
        w->in[i] = has ? x->dims[2 + at] : 1;
        w->out[i] = has ? y->dims[2 + at] : 1;
        w->kernel[i] = has ? kernel[at] : 1;
        w->stride[i] = w->dilation[i] = 1;
    }
    if ((r = spatial(b, n, "strides", d, 0, 1, w->stride)) < 0 ||
        (r = spatial(b, n, "dilations", d, 0, 1, w->dilation)) < 0)
        return r;
    if (!STREQ(mode, "NOTSET")) {
        auto_pad(w, mode);
        return 0;
    }
    r = spatial(b, n, "pads", d, 0, 2, w->pad);
    return r < 0 ? r : spatial(b, n, "pads", d, 1, 2, w->pad_end);
}

static int conv_by_library(struct build *b, const struct node *n, const struct conv_args *a,
                           struct conv_refs *ref, bool *ret_taken)
{
    uint32_t bias = n->n_in > 2 ? n->in[2] : VALUE_NONE;
    bool last = ref->type != DT_FP32;
    int r = build_as(b, n->in[0], ref->type, last, &ref->x);

    if (r == 0)
        r = build_as(b, n->in[1], ref->type, last, &ref->w);
    if (r == 0)
        r = build_as(b, bias, ref->type, last, &ref->bias);
    if (r == 0)
        r = build_out_as(b, n->out[0], ref->type, last, &ref->y);
    return r < 0 ? r : dnn_conv(b, n, a, ref, ret_taken);
}

/* In 16 bits: by our own kernel where that should be faster, else by the library. */
static int conv_half(struct build *b, const struct node *n, const struct conv_args *a,
                     struct conv_refs *ref, bool *ret_taken)
{
    *ret_taken = depthwise_is(b, n, a);
    int r =
        *ret_taken ? lower_depthwise(b, n, a, ref->type) : conv_by_library(b, n, a, ref, ret_taken);

    b->exe->n_asked += *ret_taken;
    if (!*ret_taken)
        half_forget(b, n->out[0]);
    return r;
}

int lower_conv(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *f = in_of(b, n, 1), *y = value_of(b, n->out[0]);
    struct conv_args a = {.n = count_of(y),
                          .channels = x->dims[1],
                          .filters = f->dims[0],
                          .groups = node_int(n, "group", 1)};
    struct conv_refs ref = {.type = half_for(b, n)};
    bool taken = false;

    if (!is_f32(x) || !is_f32(f) || !is_f32(in_of(b, n, 2)))
        return build_no_type(b, x->dtype);
    int r = window_of(b, n, x, y, f->dims + 2, &a.window);
    if (r == 0 && (a.groups < 1 || a.channels % a.groups || a.filters % a.groups ||
                   f->rank != x->rank || f->dims[1] != a.channels / a.groups))
        r = build_fail(b, -EINVAL, "channels, filters and groups do not go together");
    if (r == 0 && ref.type != DT_FP32) {
        r = conv_half(b, n, &a, &ref, &taken);
        ref.type = DT_FP32;
    }
    if (r == 0 && !taken)
        r = conv_by_library(b, n, &a, &ref, &taken);
    if (r < 0 || taken)
        return r;
    b->exe->n_plain += a.n > 0;
    return STEP(b, conv, a, HOLE(conv, x, ref.x), HOLE(conv, w, ref.w), HOLE(conv, bias, ref.bias),
                HOLE(conv, y, ref.y));
}

static int pool_step(struct build *b, const struct node *n, struct pool_args a)
{
    const struct tensor *x = in_of(b, n, 0);
    struct ref rx, ry;
    int r = data_in(b, n->in[0], &rx);

    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    a.type = (int32_t)data_type(b, x);
    a.last = b->last ? x->dims[1] : 1;
    a.vector = a.type == DT_FP32 ? 1 : vector_of(a.last);
    a.n /= a.vector;
    return r < 0 ? r : STEP(b, pool, a, HOLE(pool, x, rx), HOLE(pool, y, ry));
}

int lower_pool(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    struct pool_args a = {.n = count_of(y),
                          .mean = n->op == OP_AveragePool,
                          .count_pad = node_int(n, "count_include_pad", 0) != 0};
    int64_t kernel[3] = {1, 1, 1};
    uint32_t have;
    const int64_t *k = node_ints(n, "kernel_shape", &have);

    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    if (n->n_out > 1 && n->out[1] != VALUE_NONE)
        return build_fail(b, -ENOTSUP, "Indices are not in the cuda backend yet");
    if (!k || have > 3 || have + 2 != x->rank)
        return build_fail(b, -EINVAL, "kernel_shape has not one number for each dimension");
    memcpy(kernel, k, have * sizeof(*k));
    int r = window_of(b, n, x, y, kernel, &a.window);
    return r < 0 ? r : pool_step(b, n, a);
}

/* With channels last: one result is of many places, which a warp shares. */
static int pool_all_step(struct build *b, const struct node *n, int64_t places, bool mean)
{
    const struct tensor *x = in_of(b, n, 0);
    struct pool_all_args a = {.places = places,
                              .channels = x->dims[1],
                              .mean = mean,
                              .type = (int32_t)b->store,
                              .vector = vector_of(x->dims[1])};
    struct ref rx, ry = {0};
    int r = data_in(b, n->in[0], &rx);

    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    a.n = x->dims[0] * ((a.channels / a.vector + 1) / 2);
    const struct hole holes[] = {HOLE(pool_all, x, rx), HOLE(pool_all, y, ry)};
    return r < 0
               ? r
               : build_step(b, KERNEL_pool_all, &a, sizeof(a), a.n * 32, ARRAY_SIZE(holes), holes);
}

int lower_global_pool(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    struct pool_args a = {.n = count_of(y), .mean = n->op == OP_GlobalAveragePool};
    int64_t each = span(x, 2, x->rank);

    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    if (b->last && each > 0 && a.n > 0)
        return pool_all_step(b, n, each, a.mean);
    a.window = (struct gpu_window){.in = {1, 1, each},
                                   .out = {1, 1, 1},
                                   .kernel = {1, 1, each},
                                   .stride = {1, 1, 1},
                                   .dilation = {1, 1, 1}};
    return pool_step(b, n, a);
}
