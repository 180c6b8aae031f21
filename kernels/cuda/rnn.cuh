/* Recurrent layers, a launch for each step. */
#include "kit.cuh"

DEVICE float act(const gpu_acts &a, int i, float x)
{
    float alpha = a.alpha[i], beta = a.beta[i];

    if (a.clip > 0)
        x = fmaxf(-a.clip, fminf(a.clip, x));
    switch (a.act[i]) {
    case GPU_ACT_affine: return alpha * x + beta;
    case GPU_ACT_elu: return x >= 0 ? x : alpha * expm1f(x);
    case GPU_ACT_hard_sigmoid: return fmaxf(0, fminf(1, alpha * x + beta));
    case GPU_ACT_leaky_relu: return x >= 0 ? x : alpha * x;
    case GPU_ACT_relu: return x > 0 ? x : 0;
    case GPU_ACT_scaled_tanh: return alpha * tanhf(beta * x);
    case GPU_ACT_sigmoid: return 1 / (1 + expf(-x));
    case GPU_ACT_softplus: return x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x));
    case GPU_ACT_softsign: return x / (1 + fabsf(x));
    case GPU_ACT_tanh: return tanhf(x);
    default: return x > alpha ? x : 0;
    }
}

/* Which number of the state a thread has. */
struct rnn_place {
    int64_t dir, row, j, i; /* i: all of it */
    int gates;
};

/* Gate g of what comes in: w x + bias. */
DEVICE float rnn_input(const rnn_args &a, const rnn_place &p, const float *x, int g)
{
    int64_t line = (p.dir * p.gates + g) * a.hidden + p.j;
    const float *w = a.w + line * a.input;
    float sum = a.bias ? a.bias[(p.dir * 2 * p.gates + g) * a.hidden + p.j] : 0;

    for (int64_t k = 0; k < a.input; k++)
        sum += w[k] * x[k];
    return sum;
}

/* Gate g of the state: r h + its bias. */
DEVICE float rnn_state(const rnn_args &a, const rnn_place &p, const float *h, int g)
{
    int64_t line = (p.dir * p.gates + g) * a.hidden + p.j;
    const float *r = a.r + line * a.hidden;
    float sum = a.bias ? a.bias[(p.dir * 2 * p.gates + p.gates + g) * a.hidden + p.j] : 0;

    for (int64_t k = 0; k < a.hidden; k++)
        sum += r[k] * h[k];
    return sum;
}

DEVICE float gru(const rnn_args &a, const rnn_place &p, const float *x, const float *h, float was)
{
    int first = (int)p.dir * 2;

    if (a.kind == GPU_RNN_gru_second) { /* h is reset already */
        float z = a.gate[p.i], v = rnn_input(a, p, x, 2) + rnn_state(a, p, h, 2);
        return (1 - z) * act(a.acts, first + 1, v) + z * was;
    }
    float z = act(a.acts, first, rnn_input(a, p, x, 0) + rnn_state(a, p, h, 0));
    float reset = act(a.acts, first, rnn_input(a, p, x, 1) + rnn_state(a, p, h, 1));
    if (a.kind == GPU_RNN_gru_first) {
        a.gate[p.i] = z;
        a.gate[a.n + p.i] = reset * was;
        return was;
    }
    float v = rnn_input(a, p, x, 2) + reset * rnn_state(a, p, h, 2);
    return (1 - z) * act(a.acts, first + 1, v) + z * was;
}

/* Gates i, o, f, c. */
DEVICE float lstm(const rnn_args &a, const rnn_place &p, const float *x, const float *h)
{
    const float *peep = a.peep ? a.peep + p.dir * 3 * a.hidden + p.j : nullptr;
    int first = (int)p.dir * 3;
    float was = a.cell[p.i], gate[4];

    for (int g = 0; g < 4; g++)
        gate[g] = rnn_input(a, p, x, g) + rnn_state(a, p, h, g);
    float in = act(a.acts, first, gate[0] + (peep ? peep[0] * was : 0));
    float forget = act(a.acts, first, gate[2] + (peep ? peep[2 * a.hidden] * was : 0));
    float now = (a.input_forget ? 1 - in : forget) * was + in * act(a.acts, first + 1, gate[3]);
    float out = act(a.acts, first, gate[1] + (peep ? peep[a.hidden] * now : 0));
    a.cell[p.i] = now;
    return out * act(a.acts, first + 2, now);
}

/* The row's state before the step; of GRU's second round, what reset has left of it. */
DEVICE const float *rnn_before(const rnn_args &a, const rnn_place &p)
{
    const float *from = a.kind == GPU_RNN_gru_second ? a.gate + a.n : a.was;

    return from + (p.dir * a.batch + p.row) * a.hidden;
}

KERNEL(rnn)
{
    EACH (i, a.n) {
        rnn_place p = {i / a.hidden / a.batch, i / a.hidden % a.batch, i % a.hidden, i,
                       a.kind == GPU_RNN_rnn ? 1 : a.kind == GPU_RNN_lstm ? 4 : 3};
        int64_t len = a.lens ? a.lens[p.row] : a.steps;
        if (len < 0 || len > a.steps) {
            *a.bad = 1;
            len = 0;
        }
        bool back = p.dir == 1 || a.reverse, in = a.step < len;
        int64_t t = back && in ? len - 1 - a.step : a.step;
        const float *x = a.x + (a.batch_first ? p.row * a.steps + t : t * a.batch + p.row) * a.input;
        float was = a.was[i], now = was;
        if (in && a.kind == GPU_RNN_rnn)
            now = act(a.acts, (int)p.dir, rnn_input(a, p, x, 0) + rnn_state(a, p, rnn_before(a, p), 0));
        else if (in && a.kind == GPU_RNN_lstm)
            now = lstm(a, p, x, rnn_before(a, p));
        else if (in)
            now = gru(a, p, x, rnn_before(a, p), was);
        if (a.kind == GPU_RNN_gru_first)
            continue;
        a.is[i] = now;
        int64_t state = (a.batch_first ? p.row * a.dirs + p.dir : p.dir * a.batch + p.row) * a.hidden;
        if (a.ret_h)
            a.ret_h[state + p.j] = now;
        if (a.ret_c)
            a.ret_c[state + p.j] = a.cell[i];
        if (a.y)
            a.y[(a.batch_first ? (p.row * a.steps + t) * a.dirs + p.dir
                               : (t * a.dirs + p.dir) * a.batch + p.row) *
                    a.hidden +
                p.j] = in ? now : 0;
    }
}

/* The states before the first step, (dirs, batch, hidden): what is given, or zeros. */
KERNEL(rnn_first)
{
    EACH (i, a.n) {
        int64_t dir = i / a.hidden / a.batch, row = i / a.hidden % a.batch;
        int64_t at = (a.batch_first ? row * a.dirs + dir : dir * a.batch + row) * a.hidden;
        a.h[i] = a.first_h ? a.first_h[at + i % a.hidden] : 0;
        if (a.cell)
            a.cell[i] = a.first_c ? a.first_c[at + i % a.hidden] : 0;
    }
}
