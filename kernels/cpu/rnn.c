/* RNN, GRU and LSTM in FP32 with their usual activations; shapes as in kernels/ref/rnn.c.
 *
 * The inputs of all steps are multiplied at once (T*N rows by W), the state step by step.  Rows
 * of the batch never meet: each is the same whatever stands beside it. */
#include "dot.h"

typedef void gate_fn(int64_t n, const float *x, const float *r, float *h, float *c, const float *p);
struct rnn {
    enum op_id op;
    int64_t steps, batch, input, hidden, dirs, rows; /* rows: gates x hidden */
    uint32_t n_in, n_out;
    bool batch_first, reverse, linear_before_reset;
    bool has[8]; /* inputs */
    dot_fn *dot;
    gate_fn *gates;
    void (*reset)(int64_t n, const float *x, const float *r, const float *h, float *ret);
};

/* ---- one row's gates; x and r are products with W and R, with their biases */
VECTOR(rnn_tanh, (int64_t n, const float *x, const float *r, float *h, float *c, const float *p),
       (n, x, r, h, c, p))
{
    (void)c, (void)p;
    SIMD for (int64_t i = 0; i < n; i++) h[i] = fast_tanh(x[i] + r[i]);
}

VECTOR(rnn_relu, (int64_t n, const float *x, const float *r, float *h, float *c, const float *p),
       (n, x, r, h, c, p))
{
    (void)c, (void)p;
    SIMD for (int64_t i = 0; i < n; i++) h[i] = x[i] + r[i] > 0 ? x[i] + r[i] : 0;
}

/* r[2n...] is multiplied by the reset gate after the product. */
VECTOR(gru_after, (int64_t n, const float *x, const float *r, float *h, float *c, const float *p),
       (n, x, r, h, c, p))
{
    (void)c, (void)p;
    SIMD for (int64_t i = 0; i < n; i++)
    {
        float z = fast_sigmoid(x[i] + r[i]), reset = fast_sigmoid(x[n + i] + r[n + i]);
        float new = fast_tanh(x[2 * n + i] + reset * r[2 * n + i]);
        h[i] = (1 - z) * new + z *h[i];
    }
}

/* r[2n...] is the product of the state that gru_reset() has made smaller. */
VECTOR(gru_before, (int64_t n, const float *x, const float *r, float *h, float *c, const float *p),
       (n, x, r, h, c, p))
{
    (void)c, (void)p;
    SIMD for (int64_t i = 0; i < n; i++)
    {
        float z = fast_sigmoid(x[i] + r[i]), new = fast_tanh(x[2 * n + i] + r[2 * n + i]);
        h[i] = (1 - z) * new + z *h[i];
    }
}

VECTOR(gru_reset, (int64_t n, const float *x, const float *r, const float *h, float *ret),
       (n, x, r, h, ret))
{
    SIMD for (int64_t i = 0; i < n; i++) ret[i] = fast_sigmoid(x[n + i] + r[n + i]) * h[i];
}

/* Gates i, o, f, c; peepholes of i, o, f. */
VECTOR(lstm_plain, (int64_t n, const float *x, const float *r, float *h, float *c, const float *p),
       (n, x, r, h, c, p))
{
    (void)p;
    SIMD for (int64_t i = 0; i < n; i++)
    {
        float in = fast_sigmoid(x[i] + r[i]), out = fast_sigmoid(x[n + i] + r[n + i]);
        float forget = fast_sigmoid(x[2 * n + i] + r[2 * n + i]);
        c[i] = forget * c[i] + in * fast_tanh(x[3 * n + i] + r[3 * n + i]);
        h[i] = out * fast_tanh(c[i]);
    }
}

VECTOR(lstm_peephole,
       (int64_t n, const float *x, const float *r, float *h, float *c, const float *p),
       (n, x, r, h, c, p))
{
    SIMD for (int64_t i = 0; i < n; i++)
    {
        float in = fast_sigmoid(x[i] + r[i] + p[i] * c[i]);
        float forget = fast_sigmoid(x[2 * n + i] + r[2 * n + i] + p[2 * n + i] * c[i]);
        c[i] = forget * c[i] + in * fast_tanh(x[3 * n + i] + r[3 * n + i]);
        float out = fast_sigmoid(x[n + i] + r[n + i] + p[n + i] * c[i]);
        h[i] = out * fast_tanh(c[i]);
    }
}

/* ---- a run */
struct memory {
    float *x, *r, *h, *c, *reset; /* (T*N, rows), (N, rows), (N, H) three times */
};

static const float *input_of(const struct rnn *q, void *const *ptr, uint32_t i)
{
    return q->has[i] ? ptr[i] : NULL;
}

static float *output_of(const struct rnn *q, void *const *ptr, uint32_t i)
{
    return i < q->n_out ? ptr[q->n_in + i] : NULL;
}

static void add_bias(int64_t m, int64_t n, const float *bias, float *y)
{
    for (int64_t i = 0; bias && i < m; i++)
        for (int64_t j = 0; j < n; j++)
            y[i * n + j] += bias[j];
}

static int64_t at_state(const struct rnn *q, int64_t dir, int64_t row)
{
    return (q->batch_first ? row * q->dirs + dir : dir * q->batch + row) * q->hidden;
}

static void state_in(const struct rnn *q, const float *from, int64_t dir, float *to)
{
    for (int64_t row = 0; row < q->batch; row++)
        for (int64_t i = 0; i < q->hidden; i++)
            to[row * q->hidden + i] = from ? from[at_state(q, dir, row) + i] : 0;
}

static void state_out(const struct rnn *q, const float *from, int64_t dir, float *to)
{
    for (int64_t row = 0; to && row < q->batch; row++)
        memcpy(to + at_state(q, dir, row), from + row * q->hidden, (size_t)q->hidden * sizeof(*to));
}

static int64_t at_step(const struct rnn *q, int64_t t, int64_t row)
{
    return q->batch_first ? row * q->steps + t : t * q->batch + row;
}

static float *y_at(const struct rnn *q, float *y, int64_t t, int64_t dir, int64_t row)
{
    int64_t at = q->batch_first ? (row * q->steps + t) * q->dirs + dir
                                : (t * q->dirs + dir) * q->batch + row;

    return y + at * q->hidden;
}

static void step(const struct rnn *q, void *const *ptr, const struct memory *m, int64_t dir,
                 int64_t s)
{
    const int32_t *lens = q->has[4] ? ptr[4] : NULL;
    const float *p = input_of(q, ptr, 7);
    int64_t H = q->hidden;
    bool back = dir == 1 || q->reverse;
    float *y = output_of(q, ptr, 0);

    for (int64_t row = 0; row < q->batch; row++) {
        int64_t len = lens ? lens[row] : q->steps, t = back && s < len ? len - 1 - s : s;
        float *h = m->h + row * H;
        if (s < len)
            q->gates(H, m->x + at_step(q, t, row) * q->rows, m->r + row * q->rows, h,
                     m->c + row * H, p ? p + dir * 3 * H : NULL);
        if (y && s < len)
            memcpy(y_at(q, y, t, dir, row), h, (size_t)H * sizeof(*h));
        else if (y)
            memset(y_at(q, y, t, dir, row), 0, (size_t)H * sizeof(*h));
    }
}

/* GRU: the candidate's product is of the state that the reset gate lets through. */
static void reset_state(const struct rnn *q, void *const *ptr, const struct memory *m,
                        const float *r, const float *bias, int64_t dir, int64_t s)
{
    const int32_t *lens = q->has[4] ? ptr[4] : NULL;
    int64_t H = q->hidden;
    bool back = dir == 1 || q->reverse;

    for (int64_t row = 0; row < q->batch; row++) {
        int64_t len = lens ? lens[row] : q->steps, t = back && s < len ? len - 1 - s : s;
        q->reset(H, m->x + at_step(q, t, row) * q->rows, m->r + row * q->rows, m->h + row * H,
                 m->reset + row * H);
    }
    dot_rows(q->dot, q->batch, H, H, m->reset, H, r + 2 * H * H, H, m->r + 2 * H, q->rows);
    for (int64_t row = 0; bias && row < q->batch; row++)
        for (int64_t i = 0; i < H; i++)
            m->r[row * q->rows + 2 * H + i] += bias[2 * H + i];
}

static void run_direction(const struct rnn *q, void *const *ptr, const struct memory *m,
                          int64_t dir)
{
    int64_t H = q->hidden, all = q->steps * q->batch;
    const float *w = (const float *)ptr[1] + dir * q->rows * q->input;
    const float *r = (const float *)ptr[2] + dir * q->rows * H;
    const float *bias = input_of(q, ptr, 3);
    const float *wb = bias ? bias + dir * 2 * q->rows : NULL, *rb = bias ? wb + q->rows : NULL;
    bool before = q->op == OP_GRU && !q->linear_before_reset;
    int64_t rows = before ? 2 * H : q->rows;

    state_in(q, input_of(q, ptr, 5), dir, m->h);
    state_in(q, input_of(q, ptr, 6), dir, m->c);
    dot_rows(q->dot, all, q->rows, q->input, ptr[0], q->input, w, q->input, m->x, q->rows);
    add_bias(all, q->rows, wb, m->x);
    for (int64_t s = 0; s < q->steps; s++) {
        dot_rows(q->dot, q->batch, rows, H, m->h, H, r, H, m->r, q->rows);
        for (int64_t row = 0; rb && row < q->batch; row++)
            for (int64_t i = 0; i < rows; i++)
                m->r[row * q->rows + i] += rb[i];
        if (before)
            reset_state(q, ptr, m, r, rb, dir, s);
        step(q, ptr, m, dir, s);
    }
    state_out(q, m->h, dir, output_of(q, ptr, 1));
    state_out(q, m->c, dir, output_of(q, ptr, 2));
}

static int run_rnn(const void *params, void *const *ptr)
{
    const struct rnn *q = params;
    const int32_t *lens = q->has[4] ? ptr[4] : NULL;
    size_t states = (size_t)(q->batch * q->hidden), rows = (size_t)(q->batch * q->rows);

    for (int64_t row = 0; lens && row < q->batch; row++)
        if (lens[row] < 0 || lens[row] > q->steps)
            return -EINVAL;
    size_t n = (size_t)q->steps * rows + rows + 3 * states;
    AUTO(free) float *work = malloc(n * sizeof(*work) + 1);
    if (!work)
        return -ENOMEM;
    struct memory m = {.x = work, .r = work + (size_t)q->steps * rows};
    m.h = m.r + rows;
    m.c = m.h + states;
    m.reset = m.c + states;
    for (int64_t dir = 0; dir < q->dirs; dir++)
        run_direction(q, ptr, &m, dir);
    return 0;
}

/* ---- planning */
static bool acts_are(const struct cpu_args *a, int64_t dirs, uint32_t each,
                     const char *const want[])
{
    const struct attr *names = node_attr(a->node, "activations");

    if (!names)
        return true;
    for (uint32_t i = 0; i < names->n; i++)
        if (names->type != ATTR_STRINGS || !STREQ(names->strs[i].s, want[i % each]))
            return false;
    return names->n == dirs * each;
}

static gate_fn *gates_of(const struct cpu_args *a, const struct rnn *q)
{
    static const char *const tanh_only[] = {"Tanh"}, *const relu_only[] = {"Relu"},
                             *const usual[] = {"Sigmoid", "Tanh", "Tanh"};
    bool named = node_attr(a->node, "activations") != NULL;

    if (q->op == OP_RNN && acts_are(a, q->dirs, 1, tanh_only))
        return PICK(rnn_tanh);
    if (q->op == OP_RNN && named && acts_are(a, q->dirs, 1, relu_only))
        return PICK(rnn_relu);
    if (q->op == OP_GRU && acts_are(a, q->dirs, 2, usual))
        return q->linear_before_reset ? PICK(gru_after) : PICK(gru_before);
    if (q->op == OP_LSTM && acts_are(a, q->dirs, 3, usual))
        return q->has[7] ? PICK(lstm_peephole) : PICK(lstm_plain);
    return NULL;
}

int plan_rnn(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;
    const char *direction = node_str(n, "direction", "forward");
    bool first = node_int(n, "layout", 0) != 0;
    const struct tensor *x = a->in[0], *r = a->in[2];

    if (x->dtype != DT_FP32)
        return plan_type(a, x->dtype, err);
    if (node_float(n, "clip", 0) > 0 || node_int(n, "input_forget", 0))
        return plan_fail(a, -ENOTSUP, "clip and input_forget have no fast kernel", err);
    struct rnn q = {.op = n->op,
                    .steps = x->dims[first ? 1 : 0],
                    .batch = x->dims[first ? 0 : 1],
                    .input = x->dims[2],
                    .hidden = r->dims[2],
                    .dirs = r->dims[0],
                    .rows = r->dims[1],
                    .n_in = n->n_in,
                    .n_out = n->n_out,
                    .batch_first = first,
                    .reverse = STREQ(direction, "reverse"),
                    .linear_before_reset = node_int(n, "linear_before_reset", 0) != 0,
                    .dot = PICK(dot_block),
                    .reset = PICK(gru_reset)};
    for (uint32_t i = 0; i < ARRAY_SIZE(q.has); i++)
        q.has[i] = arg_in(a, i) != NULL;
    q.gates = gates_of(a, &q);
    if (!q.gates)
        return plan_fail(a, -ENOTSUP, "these activations have no fast kernel", err);
    return plan_done(a, run_rnn, &q, sizeof(q), ret, err);
}
