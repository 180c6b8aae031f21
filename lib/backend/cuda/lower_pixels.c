/* All that is done to the bytes of an image, found by fuse_pixels.c, in one step: in FP32, or,
 * where only convolutions and products in 16 bits read it, as they want it. */
#include "exe.h"

#define STORE_BYTES 16 /* of a thread at a time */
#define VECTOR_CHANNELS 3

static int64_t threads(struct pixels_args *a, enum dtype type)
{
    int64_t most = STORE_BYTES / (int64_t)dtype_size(type);

    if (a->turn != GPU_TURN_NONE && (a->channels != VECTOR_CHANNELS || a->inner % most != 0))
        most = 1;
    a->vector = (int32_t)most;
    return a->turn == GPU_TURN_NONE ? (a->count + most - 1) / most : a->count / a->channels / most;
}

int lower_pixels(struct build *b, const struct node *n)
{
    const struct pixels *p = b->fused[b->node].pixels;
    const struct tensor *t = value_of(b, n->out[0]);
    bool last = false;
    enum dtype type = half_alone(b, n->out[0], &last) ? half_type(b) : DT_FP32;
    struct pixels_args a = {.type = (int32_t)type};
    struct ref x, y;

    last = last && pixels_turn(p, t, true, &a);
    if (!last)
        (void)pixels_turn(p, t, false, &a); /* it was found by that */
    a.n = threads(&a, type);
    memcpy(a.scale, p->scale, sizeof(a.scale));
    memcpy(a.shift, p->shift, sizeof(a.shift));
    int r = build_in(b, p->x, &x);
    if (r == 0)
        r = build_out_as(b, n->out[0], type, last, &y);
    return r < 0 ? r : STEP(b, pixels, a, HOLE(pixels, x, x), HOLE(pixels, y, y));
}
