/* Depthwise convolutions in 16 bits, channels last, by our own kernels: cuDNN has no tensor cores
 * for them, and a result reads a few numbers only, so that what counts is how they are read. */
#include "nvlib.h"

bool depthwise_is(const struct build *b, const struct node *n, const struct conv_args *a)
{
    const struct gpu_window *w = &a->window;
    bool flat = w->in[0] == 1 && w->out[0] == 1 && w->kernel[0] == 1 && w->pad[0] == 0;

    return b->graph->values[n->in[1]].constant && a->groups > 1 && a->groups == a->channels &&
           a->groups == a->filters && flat && a->n > 0 && a->n < INT32_MAX &&
           count_of(in_of(b, n, 0)) < INT32_MAX && count_of(in_of(b, n, 1)) < INT32_MAX;
}

static enum gpu_kernel kernel_of(const struct depthwise_args *a)
{
    bool near = a->vector == 8 && a->stride_w <= 2 && a->dilation_w == 1;

    return near && a->kernel_w == 3   ? KERNEL_depthwise3
           : near && a->kernel_w == 5 ? KERNEL_depthwise5
                                      : KERNEL_depthwise;
}

static struct depthwise_args args_of(const struct conv_args *a, enum dtype type)
{
    const struct gpu_window *w = &a->window;
    struct depthwise_args d = {.channels = (int32_t)a->channels,
                               .in_h = (int32_t)w->in[1],
                               .in_w = (int32_t)w->in[2],
                               .out_h = (int32_t)w->out[1],
                               .out_w = (int32_t)w->out[2],
                               .kernel_h = (int32_t)w->kernel[1],
                               .kernel_w = (int32_t)w->kernel[2],
                               .stride_h = (int32_t)w->stride[1],
                               .stride_w = (int32_t)w->stride[2],
                               .dilation_h = (int32_t)w->dilation[1],
                               .dilation_w = (int32_t)w->dilation[2],
                               .pad_h = (int32_t)w->pad[1],
                               .pad_w = (int32_t)w->pad[2],
                               .vector = vector_of(a->channels),
                               .type = (int32_t)type,
                               .act = -1};
    int64_t strips = (w->out[2] + DEPTHWISE_STRIP - 1) / DEPTHWISE_STRIP;

    d.n = a->n / w->out[2] * strips / d.vector; /* a->n: results of all channels */
    return d;
}

int lower_depthwise(struct build *b, const struct node *n, const struct conv_args *a,
                    enum dtype type)
{
    struct depthwise_args d = args_of(a, type);
    struct ref x, w, bias, y;
    int r = build_as(b, n->in[0], type, true, &x);

    if (r == 0)
        r = build_filters(b, n->in[1], &w);
    if (r == 0)
        r = build_optional(b, n, 2, &bias);
    if (r == 0)
        r = build_out_as(b, n->out[0], type, true, &y);
    if (r < 0)
        return r;
    if (n->n_post > 0 && post_is_short(&n->post[0])) {
        d.act = (int32_t)post_unary(&n->post[0]);
        d.alpha = n->post[0].alpha;
        d.beta = n->post[0].beta;
        b->n_fused = 1;
    }
    const struct hole holes[] = {HOLE(depthwise, x, x), HOLE(depthwise, w, w),
                                 HOLE(depthwise, bias, bias), HOLE(depthwise, y, y)};
    return build_step(b, kernel_of(&d), &d, sizeof(d), d.n, ARRAY_SIZE(holes), holes);
}
