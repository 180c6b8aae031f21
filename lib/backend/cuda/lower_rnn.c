/* Recurrent layers: a launch for each step, GRU's usual form two. */
#include "exe.h"
#include <strings.h>

static const struct {
    const char *name;
    enum gpu_act act;
    float alpha, beta; /* unless given */
    bool has_alpha, has_beta;
} acts[] = {
    {"Affine", GPU_ACT_affine, 1, 0, true, true},
    {"Elu", GPU_ACT_elu, 1, 0, true, false},
    {"HardSigmoid", GPU_ACT_hard_sigmoid, 0.2f, 0.5f, true, true},
    {"LeakyRelu", GPU_ACT_leaky_relu, 0.01f, 0, true, false},
    {"Relu", GPU_ACT_relu, 0, 0, false, false},
    {"ScaledTanh", GPU_ACT_scaled_tanh, 1, 1, true, true},
    {"Sigmoid", GPU_ACT_sigmoid, 0, 0, false, false},
    {"Softplus", GPU_ACT_softplus, 0, 0, false, false},
    {"Softsign", GPU_ACT_softsign, 0, 0, false, false},
    {"Tanh", GPU_ACT_tanh, 0, 0, false, false},
    {"ThresholdedRelu", GPU_ACT_thresholded_relu, 1, 0, true, false},
};

static const struct {
    enum op_id op;
    uint32_t gates, n_acts;
    const char *defaults[3];
} kinds[] = {{OP_RNN, 1, 1, {"Tanh"}},
             {OP_GRU, 3, 2, {"Sigmoid", "Tanh"}},
             {OP_LSTM, 4, 3, {"Sigmoid", "Tanh", "Tanh"}}};

/* Values in activation_alpha and _beta are taken in turn by the activations that use one. */
static int acts_read(struct build *b, const struct node *n, uint32_t dirs, unsigned kind,
                     struct gpu_acts *ret)
{
    uint32_t n_names, n_alpha, n_beta, at_alpha = 0, at_beta = 0, each = kinds[kind].n_acts;
    const struct attr_text *names = node_strs(n, "activations", &n_names);
    const float *alpha = node_floats(n, "activation_alpha", &n_alpha),
                *beta = node_floats(n, "activation_beta", &n_beta);

    *ret = (struct gpu_acts){.clip = node_float(n, "clip", 0)};
    if (names && n_names != dirs * each)
        return build_fail(b, -EINVAL, "activations are not named once for each use");
    for (uint32_t i = 0; i < dirs * each; i++) {
        const char *name = names ? names[i].s : kinds[kind].defaults[i % each];
        size_t k = 0;
        while (k < ARRAY_SIZE(acts) && strcasecmp(acts[k].name, name) != 0)
            k++;
        if (k == ARRAY_SIZE(acts))
            return build_fail(b, -ENOTSUP, "an activation is not known");
        ret->act[i] = (int32_t)acts[k].act;
        ret->alpha[i] = acts[k].has_alpha && at_alpha < n_alpha ? alpha[at_alpha++] : acts[k].alpha;
        ret->beta[i] = acts[k].has_beta && at_beta < n_beta ? beta[at_beta++] : acts[k].beta;
    }
    return 0;
}

static bool shaped(const struct tensor *t, int64_t d0, int64_t d1, int64_t d2)
{
    return !t || (t->rank == 3 && t->dims[0] == d0 && t->dims[1] == d1 && t->dims[2] == d2);
}

static bool lined(const struct tensor *t, int64_t d0, int64_t d1)
{
    return !t || (t->rank == 2 && t->dims[0] == d0 && t->dims[1] == d1);
}

static int rnn_check(struct build *b, const struct node *n, const struct rnn_args *a,
                     uint32_t gates)
{
    const struct tensor *lens = in_of(b, n, 4);
    int64_t D = a->dirs, N = a->batch, H = a->hidden, rows = gates * H;
    int64_t first = a->batch_first ? N : D, second = a->batch_first ? D : N;

    for (uint32_t i = 0; i < 8; i++)
        if (i != 4 && !is_f32(in_of(b, n, i)))
            return build_no_type(b, in_of(b, n, i)->dtype);
    if (lens && lens->dtype != DT_INT32)
        return build_no_type(b, lens->dtype);
    if (!shaped(in_of(b, n, 1), D, rows, a->input) || !shaped(in_of(b, n, 2), D, rows, H) ||
        !lined(in_of(b, n, 3), D, 2 * rows) || (lens && count_of(lens) != N) ||
        !shaped(in_of(b, n, 5), first, second, H) || !shaped(in_of(b, n, 6), first, second, H) ||
        !lined(in_of(b, n, 7), D, 3 * H))
        return build_fail(b, -EINVAL, "the inputs do not go together");
    return a->steps > 0 ? 0 : build_fail(b, -ENOTSUP, "a sequence of no steps");
}

/* Where everything is: inputs by number, what lies between steps, outputs. */
struct rnn_refs {
    struct ref in[8], state[2], cell, gate, out[3], status;
};

static int rnn_place(struct build *b, const struct node *n, size_t bytes, struct rnn_refs *ret)
{
    *ret = (struct rnn_refs){.status = {.kind = REF_BUF, .buf = BUF_STATUS}};
    int r = build_inputs(b, n, n->op == OP_LSTM ? 8 : 6, ret->in);
    for (unsigned i = 0; i < 2 && r == 0; i++)
        r = build_buf(b, bytes, &ret->state[i]);
    if (r == 0 && n->op == OP_LSTM)
        r = build_buf(b, bytes, &ret->cell);
    if (r == 0 && n->op == OP_GRU)
        r = build_buf(b, 2 * bytes, &ret->gate);
    for (uint32_t i = 0; i < n->n_out && i < 3 && r == 0; i++)
        if (n->out[i] != VALUE_NONE)
            r = build_out(b, n->out[i], &ret->out[i]);
    return r;
}

static int rnn_step(struct build *b, struct rnn_args a, const struct rnn_refs *q)
{
    const struct ref none = {0};
    bool last = a.step == a.steps - 1;

    return STEP(b, rnn, a, HOLE(rnn, x, q->in[0]), HOLE(rnn, w, q->in[1]), HOLE(rnn, r, q->in[2]),
                HOLE(rnn, bias, q->in[3]), HOLE(rnn, lens, q->in[4]), HOLE(rnn, peep, q->in[7]),
                HOLE(rnn, was, q->state[a.step % 2]), HOLE(rnn, is, q->state[(a.step + 1) % 2]),
                HOLE(rnn, cell, q->cell), HOLE(rnn, gate, q->gate), HOLE(rnn, y, q->out[0]),
                HOLE(rnn, ret_h, last ? q->out[1] : none),
                HOLE(rnn, ret_c, last ? q->out[2] : none), HOLE(rnn, bad, q->status));
}

static int rnn_steps(struct build *b, struct rnn_args a, const struct rnn_refs *q)
{
    struct rnn_first_args first = {.n = a.n,
                                   .batch = a.batch,
                                   .hidden = a.hidden,
                                   .dirs = a.dirs,
                                   .batch_first = a.batch_first};
    int r = STEP(b, rnn_first, first, HOLE(rnn_first, first_h, q->in[5]),
                 HOLE(rnn_first, first_c, q->in[6]), HOLE(rnn_first, h, q->state[0]),
                 HOLE(rnn_first, cell, q->cell));

    for (a.step = 0; a.step < a.steps && r == 0; a.step++) {
        bool two = a.kind == GPU_RNN_gru_first;
        r = rnn_step(b, a, q);
        if (r == 0 && two) {
            struct rnn_args second = a;
            second.kind = GPU_RNN_gru_second;
            r = rnn_step(b, second, q);
        }
    }
    return r;
}

int lower_rnn(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *w = in_of(b, n, 1), *rec = in_of(b, n, 2);
    const char *direction = node_str(n, "direction", "forward");
    struct rnn_refs refs;
    unsigned kind = 0;

    while (kinds[kind].op != n->op)
        kind++;
    if (x->rank != 3 || w->rank != 3 || rec->rank != 3)
        return build_fail(b, -EINVAL, "X, W and R must have three dimensions");
    bool first = node_int(n, "layout", 0) != 0;
    struct rnn_args a = {.steps = x->dims[first ? 1 : 0],
                         .batch = x->dims[first ? 0 : 1],
                         .input = x->dims[2],
                         .hidden = rec->dims[2],
                         .dirs = STREQ(direction, "bidirectional") ? 2 : 1,
                         .kind = n->op == OP_RNN                         ? GPU_RNN_rnn
                                 : n->op == OP_LSTM                      ? GPU_RNN_lstm
                                 : node_int(n, "linear_before_reset", 0) ? GPU_RNN_gru
                                                                         : GPU_RNN_gru_first,
                         .reverse = STREQ(direction, "reverse"),
                         .batch_first = first,
                         .input_forget = node_int(n, "input_forget", 0) != 0};
    a.n = a.dirs * a.batch * a.hidden;
    int r = rnn_check(b, n, &a, kinds[kind].gates);
    if (r == 0)
        r = acts_read(b, n, (uint32_t)a.dirs, kind, &a.acts);
    if (r == 0)
        r = rnn_place(b, n, (size_t)a.n * sizeof(float), &refs);
    return r < 0 ? r : rnn_steps(b, a, &refs);
}
