/* What a lower precision costs: an output of a model in it, against the same one in FP32 for the
 * same input.  Pure. */
#pragma once

#include <gpulet/tensor.h>

enum accuracy_kind {
    ACCURACY_NUMBERS,    /* floats: how far off they are */
    ACCURACY_EQUAL,      /* other types: how many entries are equal */
    ACCURACY_SHAPES,     /* from here on nothing can be said: the shapes differ, */
    ACCURACY_TEXT,       /* it holds strings, */
    ACCURACY_ZERO,       /* all is zero in FP32 and not in the other, */
    ACCURACY_NOT_FINITE, /* nothing is finite in FP32, */
    ACCURACY_OVERFLOW,   /* nothing is in the other that is in FP32 */
    ACCURACY_KINDS
};

/* Where both are finite: */
struct accuracy_output {
    enum accuracy_kind kind;
    double max_error; /* largest difference, over the largest magnitude in FP32 */
    double rms_error; /* of the whole: root of the sum of squares, over that of FP32 */
    double same;      /* EQUAL: the share of entries */
    double same_top;  /* the share of rows with the largest entry at the same place; -1: these are
                         not scores of classes, rank 2 and two columns or more */
    uint64_t n;       /* entries */
    uint64_t n_overflowed; /* that are finite in FP32 and not in the other */
};

#define ACCURACY_SEED 1 /* of the inputs, which are made up */
struct accuracy {
    uint32_t rows;
    bool zeros;                        /* integers had to be zero */
    uint32_t n_out;                    /* 0: not compared */
    const struct accuracy_output *out; /* by output */
    const char *why;                   /* it cannot be compared; "" */
};

/* got against want, which is FP32's; entries that are not finite there are left out. */
void accuracy_of(const struct tensor *want, const struct tensor *got, struct accuracy_output *ret);
/* Of kinds that say nothing: why; else "". */
const char *accuracy_why(enum accuracy_kind kind);
/* The output that a person should hear of first: one that overflows, else the one that is off most;
 * n_out > 0. */
uint32_t accuracy_worst(const struct accuracy *a);
