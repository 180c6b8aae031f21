/* What the fuzz drivers share: the entry for libFuzzer (-DFUZZ_LIBFUZZER -fsanitize=fuzzer), else
 * a seeded generator for a test program of its own. */
#pragma once

#include "../check.h"

static void one_input(const uint8_t *data, size_t n); /* the driver's */

#ifdef FUZZ_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    one_input(data, n);
    return 0;
}
#else

static uint64_t seed = 1;

static uint32_t any(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % below;
}
#endif
