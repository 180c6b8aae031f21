/* Arguments of the recurrent kernels (rnn.cuh). */
#pragma once

/* Activations, alpha and beta by place. */
enum gpu_act {
    GPU_ACT_affine,
    GPU_ACT_elu,
    GPU_ACT_hard_sigmoid,
    GPU_ACT_leaky_relu,
    GPU_ACT_relu,
    GPU_ACT_scaled_tanh,
    GPU_ACT_sigmoid,
    GPU_ACT_softplus,
    GPU_ACT_softsign,
    GPU_ACT_tanh,
    GPU_ACT_thresholded_relu
};
#define GPU_ACTS_MAX 6 /* three for each direction */
struct gpu_acts {
    int32_t act[GPU_ACTS_MAX];
    float alpha[GPU_ACTS_MAX], beta[GPU_ACTS_MAX];
    float clip; /* 0: none */
};

/* One step of RNN, GRU or LSTM in all directions: a thread for each of n = dirs * batch * hidden numbers of
 * the state.
 *
 *   x (steps, batch, input)   w (dirs, gates * hidden, input)   r (dirs, gates * hidden, hidden)
 *   bias (dirs, 2 * gates * hidden) or NULL   peep (dirs, 3 * hidden) or NULL   lens (batch) S32 or NULL
 *   y (steps, dirs, batch, hidden) or NULL; ret_h, ret_c (dirs, batch, hidden) or NULL
 * Batch first: x (batch, steps, ..), y (batch, steps, dirs, ..), states (batch, dirs, ..).
 *
 * was, is (dirs, batch, hidden): the state of the step before, and of this one; cell: of LSTM, in place.
 * GRU that resets before its product takes two rounds: the first leaves z and reset * was in `gate`
 * (2, dirs, batch, hidden).  Beyond a row's length y is zero and the state stays. */
enum gpu_rnn { GPU_RNN_rnn, GPU_RNN_gru, GPU_RNN_gru_first, GPU_RNN_gru_second, GPU_RNN_lstm };
struct rnn_args {
    const float *x, *w, *r, *bias, *peep, *was;
    const int32_t *lens;
    float *is, *cell, *gate, *y, *ret_h, *ret_c;
    int32_t *bad;
    int64_t n, steps, step, batch, input, hidden, dirs;
    int32_t kind, reverse, batch_first, input_forget;
    struct gpu_acts acts;
};

/* h and cell (dirs, batch, hidden) before the first step; cell may be NULL. */
struct rnn_first_args {
    const float *first_h, *first_c; /* as states are, or NULL: zeros */
    float *h, *cell;
    int64_t n, batch, hidden, dirs;
    int32_t batch_first;
};
