/* Arguments of the kernels of test/gpu/facts.cu. */
#pragma once

#include <stdint.h>

/* Each block marks its SM in seen[], if that is given, after so many clocks. */
struct place_args {
    uint32_t *seen;
    int64_t clocks;
    uint32_t n_sms; /* seen[] has so many */
};
/* y = x, 16 bytes a thread and step. */
struct haul_args {
    const void *x;
    void *y;
    int64_t n; /* of 16 bytes */
};
