/* Arguments of Einsum, Attention and RotaryEmbedding (attention.cuh). */
#pragma once

/* y[i] = sum over n_inner of the products of up to three operands, by the outer and then the inner walk. */
struct einsum_args {
    const float *x[3];
    float *y;
    int64_t n, n_inner;
    int32_t n_in;
    struct gpu_walk outer, inner;
};

/* Where row r of head h of sample b begins: b * batch + h * head + r * row. */
struct gpu_heads {
    int64_t batch, head, row;
};

/* One of n = batch * heads * rows queries each, with `total` keys of which `past` come from past_k, past_v.
 * Head h looks at head h / group of the keys.  scores (n, total) is scratch.  The mask, of F32 or BOOL, is
 * read at the four strides; behind mask_keys nothing is seen.  nonpad (batch) S64 or NULL: how many
 * keys are no padding; one out of range sets *bad.  qk: NULL, or scores (n, total) in form qk_mode. */
struct attention_args {
    const float *q, *k, *v, *past_k, *past_v;
    const void *mask;
    const int64_t *nonpad;
    float *y, *scores, *qk;
    int32_t *bad;
    int64_t n, heads, rows, total, past, group, width, v_width, mask_keys, left, right;
    int64_t mask_stride[4];
    struct gpu_heads of_q, of_k, of_v, of_past_k, of_past_v, of_y;
    float scale, softcap;
    int32_t causal, mask_type, qk_mode;
};

/* Pairs of a head's first 2 * half numbers turned by an angle: n = samples * heads * rows * half.  cos, sin
 * (positions, half) by ids (batch, rows) S64, or (batch, rows, half) where that is NULL. */
struct rotary_args {
    const float *x, *cos, *sin;
    const int64_t *ids;
    float *y;
    int32_t *bad;
    int64_t n, heads, rows, half, positions;
    struct gpu_heads of;
    int32_t interleaved;
};
