/* Recurrent layers: RNN, GRU, LSTM.
 *
 *   X (T, N, I)       W (D, G*H, I)   R (D, G*H, H)   B (D, 2*G*H): of W, then of R
 *   lens (N) INT32    h0, c0 (D, N, H)                P (D, 3*H): peepholes of i, o, f
 *   Y (T, D, N, H)    Y_h, Y_c (D, N, H)
 * With layout = 1 the batch N comes first everywhere.  G gates: RNN 1, GRU z r h, LSTM i o f c.
 * Steps beyond a row's length are zero in Y and leave its state alone. */
#include "kit.h"
#include <math.h>
#include <strings.h>

#define MAX_GATES 4
#define MAX_ACTS 3

/* ---- activations */
struct act {
    double (*fn)(double x, double alpha, double beta);
    double alpha, beta;
};

static double act_affine(double x, double alpha, double beta)
{
    return alpha * x + beta;
}
static double act_elu(double x, double alpha, double beta)
{
    (void)beta;
    return x >= 0 ? x : alpha * expm1(x);
}
static double act_hard_sigmoid(double x, double alpha, double beta)
{
    return fmax(0, fmin(1, alpha * x + beta));
}
static double act_leaky_relu(double x, double alpha, double beta)
{
    (void)beta;
    return x >= 0 ? x : alpha * x;
}
static double act_relu(double x, double alpha, double beta)
{
    (void)alpha, (void)beta;
    return x > 0 ? x : 0;
}
static double act_scaled_tanh(double x, double alpha, double beta)
{
    return alpha * tanh(beta * x);
}
static double act_sigmoid(double x, double alpha, double beta)
{
    (void)alpha, (void)beta;
    return 1 / (1 + exp(-x));
}
static double act_softplus(double x, double alpha, double beta)
{
    (void)alpha, (void)beta;
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}
static double act_softsign(double x, double alpha, double beta)
{
    (void)alpha, (void)beta;
    return x / (1 + fabs(x));
}
static double act_tanh(double x, double alpha, double beta)
{
    (void)alpha, (void)beta;
    return tanh(x);
}
static double act_thresholded_relu(double x, double alpha, double beta)
{
    (void)beta;
    return x > alpha ? x : 0;
}

static const struct {
    const char *name;
    double (*fn)(double, double, double);
    double alpha, beta; /* unless given */
    bool has_alpha, has_beta;
} acts[] = {
    {"Affine", act_affine, 1, 0, true, true},
    {"Elu", act_elu, 1, 0, true, false},
    {"HardSigmoid", act_hard_sigmoid, 0.2, 0.5, true, true},
    {"LeakyRelu", act_leaky_relu, 0.01, 0, true, false},
    {"Relu", act_relu, 0, 0, false, false},
    {"ScaledTanh", act_scaled_tanh, 1, 1, true, true},
    {"Sigmoid", act_sigmoid, 0, 0, false, false},
    {"Softplus", act_softplus, 0, 0, false, false},
    {"Softsign", act_softsign, 0, 0, false, false},
    {"Tanh", act_tanh, 0, 0, false, false},
    {"ThresholdedRelu", act_thresholded_relu, 1, 0, true, false},
};

/* Values in activation_alpha and _beta are taken in turn by the activations that use one. */
static double next_float(const struct attr *a, uint32_t *at, bool uses, double absent)
{
    if (!uses || !a || a->type != ATTR_FLOATS || *at >= a->n)
        return absent;
    return (double)a->floats[(*at)++];
}

static int acts_read(const struct node *n, uint32_t dirs, uint32_t each,
                     const char *const defaults[], struct act *ret, struct err *err)
{
    const struct attr *names = node_attr(n, "activations"),
                      *alpha = node_attr(n, "activation_alpha"),
                      *beta = node_attr(n, "activation_beta");
    uint32_t at_alpha = 0, at_beta = 0;

    if (names && (names->type != ATTR_STRINGS || names->n != dirs * each))
        return err_set(err, -EINVAL, "node '%s' (%s): activations must name %u functions", n->name,
                       op_name(n->op), dirs * each);
    for (uint32_t i = 0; i < dirs * each; i++) {
        const char *name = names ? names->strs[i].s : defaults[i % each];
        size_t k = 0;
        while (k < ARRAY_SIZE(acts) && strcasecmp(acts[k].name, name) != 0)
            k++;
        if (k == ARRAY_SIZE(acts))
            return err_set(err, -ENOTSUP, "node '%s' (%s): activation '%.32s' is not known",
                           n->name, op_name(n->op), name);
        ret[i] =
            (struct act){.fn = acts[k].fn,
                         .alpha = next_float(alpha, &at_alpha, acts[k].has_alpha, acts[k].alpha),
                         .beta = next_float(beta, &at_beta, acts[k].has_beta, acts[k].beta)};
    }
    return 0;
}

/* ---- one row in one direction */
struct rnn {
    const struct node *n;
    int64_t steps, batch, input, hidden;
    uint32_t dirs, gates, n_acts;
    bool batch_first, input_forget, linear_before_reset;
    double clip; /* 0: none */
    struct act act[2 * MAX_ACTS];
    double *w, *r, *b, *p;       /* all of W, R, B, P; b and p may be NULL */
    double *h, *c, *x, *wx, *rh; /* [H] state, [I] one step, [G*H] products */
};

/* y = M v + b over `rows` rows of M. */
static void product(int64_t rows, int64_t cols, const double *m, const double *v, const double *b,
                    double *y)
{
    for (int64_t i = 0; i < rows; i++) {
        y[i] = b ? b[i] : 0;
        for (int64_t k = 0; k < cols; k++)
            y[i] += m[i * cols + k] * v[k];
    }
}

static double apply(const struct rnn *q, const struct act *a, double x)
{
    if (q->clip > 0)
        x = fmax(-q->clip, fmin(q->clip, x));
    return a->fn(x, a->alpha, a->beta);
}

static void step_rnn(struct rnn *q, const struct act *act)
{
    for (int64_t i = 0; i < q->hidden; i++)
        q->h[i] = apply(q, &act[0], q->wx[i] + q->rh[i]);
}

static void step_gru(struct rnn *q, const struct act *act, const double *r, const double *rb)
{
    int64_t H = q->hidden;
    double *z = q->wx, *reset = q->wx + H, *new = q->wx + 2 * H, *rh = q->rh + 2 * H;

    for (int64_t i = 0; i < H; i++) {
        z[i] = apply(q, &act[0], z[i] + q->rh[i]);
        reset[i] = apply(q, &act[0], reset[i] + q->rh[H + i]);
    }
    if (q->linear_before_reset) {
        for (int64_t i = 0; i < H; i++)
            rh[i] *= reset[i];
    } else {
        for (int64_t i = 0; i < H; i++)
            q->c[i] = reset[i] * q->h[i];
        product(H, H, r + 2 * H * H, q->c, rb ? rb + 2 * H : NULL, rh);
    }
    for (int64_t i = 0; i < H; i++)
        q->h[i] = (1 - z[i]) * apply(q, &act[1], new[i] + rh[i]) + z[i] * q->h[i];
}

static void step_lstm(struct rnn *q, const struct act *act, const double *p)
{
    int64_t H = q->hidden;

    for (int64_t i = 0; i < H; i++) {
        const double *x = q->wx + i, *r = q->rh + i; /* gates i, o, f, c are H apart */
        double was = q->c[i];
        double in = apply(q, &act[0], x[0] + r[0] + (p ? p[i] * was : 0));
        double forget = apply(q, &act[0], x[2 * H] + r[2 * H] + (p ? p[2 * H + i] * was : 0));
        double cell = apply(q, &act[1], x[3 * H] + r[3 * H]);
        q->c[i] = (q->input_forget ? 1 - in : forget) * was + in * cell;
        double out = apply(q, &act[0], x[H] + r[H] + (p ? p[H + i] * q->c[i] : 0));
        q->h[i] = out * apply(q, &act[2], q->c[i]);
    }
}

static void step(struct rnn *q, uint32_t dir)
{
    int64_t H = q->hidden, rows = q->gates * H;
    const double *b = q->b ? q->b + dir * 2 * rows : NULL, *rb = b ? b + rows : NULL;
    const double *r = q->r + dir * rows * H;
    const struct act *act = q->act + dir * q->n_acts;

    product(rows, q->input, q->w + dir * rows * q->input, q->x, b, q->wx);
    product(rows, H, r, q->h, rb, q->rh);
    if (q->n->op == OP_RNN)
        step_rnn(q, act);
    else if (q->n->op == OP_GRU)
        step_gru(q, act, r, rb);
    else
        step_lstm(q, act, q->p ? q->p + dir * 3 * H : NULL);
}

/* ---- where things lie, in elements */
static int64_t at_x(const struct rnn *q, int64_t t, int64_t row)
{
    return (q->batch_first ? row * q->steps + t : t * q->batch + row) * q->input;
}
static int64_t at_y(const struct rnn *q, int64_t t, uint32_t dir, int64_t row)
{
    return (q->batch_first ? (row * q->steps + t) * q->dirs + dir
                           : (t * q->dirs + dir) * q->batch + row) *
           q->hidden;
}
static int64_t at_state(const struct rnn *q, uint32_t dir, int64_t row)
{
    return (q->batch_first ? row * q->dirs + dir : dir * q->batch + row) * q->hidden;
}

static void load(const struct tensor *t, int64_t at, int64_t n, double *ret)
{
    for (int64_t i = 0; i < n; i++)
        ret[i] = t ? num_get(t, at + i).f : 0;
}
static void store(const struct tensor *t, int64_t at, int64_t n, const double *v)
{
    for (int64_t i = 0; t && i < n; i++)
        num_put(t, at + i, (union num){.f = v ? v[i] : 0});
}

static void run_row(struct rnn *q, const struct tensor *const *in, struct tensor *const *out,
                    uint32_t dir, int64_t row, int64_t len)
{
    const struct tensor *y = ref_out(q->n, out, 0);
    const char *direction = node_str(q->n, "direction", "forward");
    bool back = dir == 1 || STREQ(direction, "reverse");

    load(ref_in(q->n, in, 5), at_state(q, dir, row), q->hidden, q->h);
    load(q->n->op == OP_LSTM ? ref_in(q->n, in, 6) : NULL, at_state(q, dir, row), q->hidden, q->c);
    for (int64_t i = 0; i < q->steps; i++) {
        int64_t t = back && i < len ? len - 1 - i : i;
        if (i < len) {
            load(in[0], at_x(q, t, row), q->input, q->x);
            step(q, dir);
        }
        store(y, at_y(q, t, dir, row), q->hidden, i < len ? q->h : NULL);
    }
    store(ref_out(q->n, out, 1), at_state(q, dir, row), q->hidden, q->h);
    if (q->n->op == OP_LSTM)
        store(ref_out(q->n, out, 2), at_state(q, dir, row), q->hidden, q->c);
}

/* ---- arguments */
static const struct {
    uint32_t gates, n_acts;
    const char *defaults[MAX_ACTS];
} kinds[] = {{1, 1, {"Tanh"}}, {3, 2, {"Sigmoid", "Tanh"}}, {4, 3, {"Sigmoid", "Tanh", "Tanh"}}};

static int check_shapes(const struct rnn *q, const struct tensor *const *in,
                        struct tensor *const *out, struct err *err)
{
    int64_t D = q->dirs, N = q->batch, H = q->hidden, rows = q->gates * H;
    bool first = q->batch_first;
    const struct tensor *y = ref_out(q->n, out, 0);
    int r;

    if ((r = ref_shaped(q->n, in[1], 3, (int64_t[]){D, rows, q->input}, err)) < 0 ||
        (r = ref_shaped(q->n, in[2], 3, (int64_t[]){D, rows, H}, err)) < 0 ||
        (r = ref_shaped(q->n, ref_in(q->n, in, 3), 2, (int64_t[]){D, 2 * rows}, err)) < 0 ||
        (r = ref_shaped(q->n, ref_in(q->n, in, 4), 1, (int64_t[]){N}, err)) < 0 ||
        (r = ref_shaped(q->n, ref_in(q->n, in, 7), 2, (int64_t[]){D, 3 * H}, err)) < 0)
        return r;
    const int64_t state[] = {first ? N : D, first ? D : N, H};
    const struct tensor *const states[] = {ref_in(q->n, in, 5), ref_in(q->n, in, 6),
                                           ref_out(q->n, out, 1), ref_out(q->n, out, 2)};
    for (size_t i = 0; i < ARRAY_SIZE(states); i++)
        if ((r = ref_shaped(q->n, states[i], 3, state, err)) < 0)
            return r;
    return ref_shaped(q->n, y, 4,
                      first ? (int64_t[]){N, q->steps, D, H} : (int64_t[]){q->steps, D, N, H}, err);
}

static int rnn_read(struct rnn *q, const struct tensor *const *in, struct tensor *const *out,
                    struct err *err)
{
    const struct node *n = q->n;
    unsigned kind = n->op == OP_RNN ? 0 : n->op == OP_GRU ? 1 : 2;
    const struct tensor *all[] = {in[0],
                                  in[1],
                                  in[2],
                                  ref_in(n, in, 3),
                                  ref_in(n, in, 5),
                                  ref_in(n, in, 6),
                                  ref_in(n, in, 7),
                                  ref_out(n, out, 0),
                                  ref_out(n, out, 1),
                                  ref_out(n, out, 2)};
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0)
        return r;
    q->batch_first = node_int(n, "layout", 0) != 0;
    if (in[0]->rank != 3 || in[1]->rank != 3 || in[2]->rank != 3)
        return ref_fail(n, err, -EINVAL, "X, W and R must have three dimensions");
    q->steps = in[0]->dims[q->batch_first ? 1 : 0];
    q->batch = in[0]->dims[q->batch_first ? 0 : 1];
    q->input = in[0]->dims[2];
    q->hidden = in[2]->dims[2];
    q->dirs = STREQ(node_str(n, "direction", "forward"), "bidirectional") ? 2 : 1;
    q->gates = kinds[kind].gates;
    q->n_acts = kinds[kind].n_acts;
    q->input_forget = node_int(n, "input_forget", 0) != 0;
    q->linear_before_reset = node_int(n, "linear_before_reset", 0) != 0;
    q->clip = (double)node_float(n, "clip", 0);
    if ((r = check_shapes(q, in, out, err)) < 0)
        return r;
    return acts_read(n, q->dirs, q->n_acts, kinds[kind].defaults, q->act, err);
}

static int row_length(const struct rnn *q, const struct tensor *lens, int64_t row, int64_t *ret,
                      struct err *err)
{
    *ret = q->steps;
    if (!lens)
        return 0;
    if (lens->dtype != DT_INT32)
        return ref_no_type(q->n, lens->dtype, err);
    *ret = num_get(lens, row).i;
    if (*ret >= 0 && *ret <= q->steps)
        return 0;
    return err_set(err, -EINVAL, "node '%s' (%s): sequence_lens has %lld at %lld (0 to %lld)",
                   q->n->name, op_name(q->n->op), (long long)*ret, (long long)row,
                   (long long)q->steps);
}

static int run_all(struct rnn *q, const struct tensor *const *in, struct tensor *const *out,
                   struct err *err)
{
    for (int64_t row = 0; row < q->batch; row++) {
        int64_t len;
        int r = row_length(q, ref_in(q->n, in, 4), row, &len, err);
        if (r < 0)
            return r;
        for (uint32_t dir = 0; dir < q->dirs; dir++)
            run_row(q, in, out, dir, row, len);
    }
    return 0;
}

REF_FN(ref_rnn)
{
    struct rnn q = {.n = n};
    const struct tensor *b = ref_in(n, in, 3), *p = ref_in(n, in, 7);
    int r = rnn_read(&q, in, out, err);

    if (r < 0)
        return r;
    size_t rows = (size_t)(MAX_GATES * q.hidden + 1);
    AUTO(ref_drop) double *w = ref_doubles(in[1]), *rec = ref_doubles(in[2]);
    AUTO(ref_drop) double *bias = b ? ref_doubles(b) : NULL, *peep = p ? ref_doubles(p) : NULL;
    AUTO(ref_drop) double *work = ref_scratch(4 * rows + (size_t)q.input, sizeof(*work));
    if (!w || !rec || !work || (b && !bias) || (p && !peep))
        return ref_fail(n, err, -ENOMEM, "out of memory");
    q.w = w;
    q.r = rec;
    q.b = bias;
    q.p = peep;
    q.wx = work;
    q.rh = work + rows;
    q.h = work + 2 * rows;
    q.c = work + 3 * rows;
    q.x = work + 4 * rows;
    return run_all(&q, in, out, err);
}
