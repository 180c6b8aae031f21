/* What the files that lower nodes to primitives share. */
#pragma once

#include "build.h"

/* A window that slides over an image: convolution and pooling. */
struct window {
    uint32_t spatial;
    int64_t kernel[3], stride[3], dilate[3], lo[3], hi[3];
};
/* -ENOTSUP: not one, two or three spatial dimensions. */
int window_of(const struct node *n, const struct tensor *x, const struct tensor *y,
              const int64_t *kernel, struct window *w);
