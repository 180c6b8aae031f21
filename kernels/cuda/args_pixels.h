/* Arguments of what makes numbers of an image's bytes (pixels.cuh). */
#pragma once

#define PIXEL_CHANNELS 4 /* at most */

enum gpu_turn {
    GPU_TURN_NONE,  /* x and y lie the same way */
    GPU_TURN_SPLIT, /* x has channels last, y has planes */
    GPU_TURN_JOIN,  /* x has planes, y has channels last */
};

/* y = x * scale[c] + shift[c] for each of `count` bytes, c its channel; y is F32, F16 or BF16.  A
 * plane is `inner` pixels of a channel; those of all channels lie behind each other, again and
 * again. Not turned: number e has channel e / inner % channels, inner 1 where channels lie last; a
 * thread has `vector` neighbours, 16 bytes of y, and the last one what is left. Turned: a thread
 * has the channels of `vector` pixels, which divides inner and is as above where there are 3
 * channels, or is 1.  n: threads. */
struct pixels_args {
    const uint8_t *x;
    void *y;
    int64_t n; /* less than 2^31, as is count */
    int32_t count, channels, inner, turn, vector, type;
    float scale[PIXEL_CHANNELS], shift[PIXEL_CHANNELS];
};
