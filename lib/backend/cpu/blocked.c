/* Our kernels on blocked channels.
 *
 * Unpadded [N, C, spatial] in blocks of k channels is, byte for byte, a row-major tensor
 * [N, C/k, spatial, k]; so element-wise kernels run on it as it is, and broadcasting per channel
 * is broadcasting over the first and the last of those dimensions. *
 * A Concat of channels makes no step: its value is the list of its pieces until somebody wants it
 * as one.  A batch norm reads the pieces; whoever else comes first has them joined. */
#include "build.h"
#include <math.h>

static bool by_element(enum op_id op)
{
    switch (op) {
    case OP_Abs:
    case OP_Add:
    case OP_Ceil:
    case OP_Celu:
    case OP_Clip:
    case OP_Cos:
    case OP_Div:
    case OP_Elu:
    case OP_Erf:
    case OP_Exp:
    case OP_Floor:
    case OP_Gelu:
    case OP_HardSigmoid:
    case OP_HardSwish:
    case OP_LeakyRelu:
    case OP_Log:
    case OP_Max:
    case OP_Mean:
    case OP_Min:
    case OP_Mish:
    case OP_Mul:
    case OP_Neg:
    case OP_Pow:
    case OP_PRelu:
    case OP_Reciprocal:
    case OP_Relu:
    case OP_Round:
    case OP_Selu:
    case OP_Sigmoid:
    case OP_Sign:
    case OP_Sin:
    case OP_Softplus:
    case OP_Softsign:
    case OP_Sqrt:
    case OP_Sub:
    case OP_Sum:
    case OP_Swish:
    case OP_Tanh:
    case OP_ThresholdedRelu:
        return true;
    default:
        return false;
    }
}

/* The blocked form of dims as a row-major shape.  All of rank `rank`, missing ones in front 1. */
static bool block_view(const struct tensor *t, uint32_t rank, int64_t block, struct tensor *ret)
{
    int64_t dims[MAX_RANK] = {0};

    if (t->rank > rank || rank + 1 > MAX_RANK)
        return false;
    for (uint32_t i = 0; i < rank; i++)
        dims[i] = i + t->rank >= rank ? t->dims[i + t->rank - rank] : 1;
    dims[rank] = dims[1] == 1 ? 1 : block;
    if (dims[1] % dims[rank])
        return false;
    dims[1] /= dims[rank];
    return tensor_shape(ret, t->dtype, rank + 1, dims) == 0;
}

/* Row-major memory that is also the blocked form: one channel, or nothing but channels. */
static bool both_forms(const struct tensor *t, uint32_t rank)
{
    for (uint32_t i = 0; i < t->rank; i++)
        if (i + rank - t->rank >= 2 && t->dims[i] != 1)
            return t->rank < rank - 1 || t->dims[t->rank - rank + 1] == 1;
    return true;
}

static int run_blocked(struct build *b, const struct node *n, const struct tensor *const *in,
                       const struct tensor *out, struct ref *refs, const struct layout *layout)
{
    struct cpu_call call;
    const struct cpu_args args = {.node = n, .in = in, .out = &out, .arena = &b->exe->arena};
    uint32_t buf;
    int r = cpu_plan(&args, &call, b->err);

    if (r == 0)
        r = build_buf(b, layout->bytes, &buf);
    if (r < 0)
        return r;
    refs[n->n_in] = ref_buf(buf);
    r = build_call(b, &call, n->n_in + 1, refs);
    if (r < 0)
        return r;
    b->exe->step[b->exe->n_steps - 1].blocked = true;
    return build_set(b, n->out[0], refs[n->n_in], layout);
}

/* What is in blocks of a narrower type, in blocks of FP32: *ret is where it lies so far. */
static int as_floats(struct build *b, uint32_t v, struct ref *ret)
{
    const struct where *w = &b->value[v];
    struct layout floats;

    if (ret->kind != w->native.kind || ret->buf != w->native.buf || w->layout->dtype == DT_FP32)
        return 0;
    if (layout_blocked(&floats, w->layout->rank, w->layout->dims) < 0)
        return build_fail(b, -ENOTSUP, "a rank without blocked channels");
    return build_in(b, v, &floats, ret);
}

/* Of the two operands of a Mul: the one that is all of y, when the other has a number for each of
 * its channels; else -1. */
static int gated_operand(const struct build *b, const struct node *n, const struct tensor *y)
{
    if (n->op != OP_Mul || n->n_in != 2)
        return -1;
    for (int x = 0; x < 2; x++) {
        const struct tensor *of = build_tensor(b, n->in[x]), *gate = build_tensor(b, n->in[1 - x]);
        bool fits = of->rank == y->rank && gate->rank == y->rank && gate->dims[1] == y->dims[1] &&
                    (gate->dims[0] == y->dims[0] || gate->dims[0] == 1);
        for (uint32_t i = 0; i < y->rank && fits; i++)
            fits = of->dims[i] == y->dims[i] && (i < 2 || gate->dims[i] == 1);
        if (fits)
            return x;
    }
    return -1;
}

/* In place where nobody else reads what is gated. */
static int run_gated(struct build *b, const struct node *n, int x, const struct ref *refs,
                     const struct layout *layout)
{
    const struct tensor *y = build_tensor(b, n->out[0]), *gate = build_tensor(b, n->in[1 - x]);
    struct cpu_gate g = {.batch = y->dims[0],
                         .gates = gate->dims[0],
                         .spatial = 1,
                         .block = b->part->dev->dn.block,
                         .channels = y->dims[1]};
    struct ref args[] = {refs[x], refs[1 - x], refs[x]};
    struct cpu_call call;
    uint32_t buf;
    int r = 0;

    for (uint32_t i = 2; i < y->rank; i++)
        g.spatial *= y->dims[i];
    if (!build_dies(b, refs[x]) || n->in[0] == n->in[1]) {
        r = build_buf(b, layout->bytes, &buf);
        args[2] = ref_buf(buf);
    }
    if (r == 0 && cpu_plan_gate(&g, &b->exe->arena, &call) < 0)
        r = build_fail(b, -ENOMEM, "out of memory");
    if (r == 0)
        r = build_call(b, &call, 3, args);
    if (r < 0)
        return r;
    b->exe->step[b->exe->n_steps - 1].blocked = true;
    return build_set(b, n->out[0], args[2], layout);
}

#define MAX_BLOCKED_IN 16

/* -ENOTSUP: not possible, run it row-major. */
int lower_blocked(struct build *b, const struct node *n)
{
    const struct tensor *y = build_tensor(b, n->out[0]);
    struct tensor view[MAX_BLOCKED_IN], out_view;
    const struct tensor *in[MAX_BLOCKED_IN];
    struct ref refs[MAX_BLOCKED_IN + 1];
    struct layout layout;
    uint32_t n_blocked = 0;
    int64_t block = b->part->dev->dn.block;

    if (!by_element(n->op) || n->opset < 7 /* shapes align in another way */ ||
        n->n_in > MAX_BLOCKED_IN || n->n_out != 1 || n->n_post || y->dtype != DT_FP32 ||
        y->rank < 3 || y->dims[1] % block || layout_blocked(&layout, y->rank, y->dims) < 0 ||
        !block_view(y, y->rank, block, &out_view))
        return -ENOTSUP;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct tensor *t = build_tensor(b, n->in[i]);
        in[i] = NULL;
        refs[i] = (struct ref){0};
        if (!t)
            continue;
        int r = build_joined(b, n->in[i]);
        if (r < 0)
            return r;
        const struct where *w = &b->value[n->in[i]];
        bool blocked = w->native.kind != REF_NONE && w->layout->channel_block;
        bool scalar = t->rank == 0;
        if ((!blocked && !both_forms(t, y->rank)) ||
            (!scalar && !block_view(t, y->rank, block, &view[i])))
            return -ENOTSUP;
        if (scalar)
            view[i] = *t;
        view[i].data = t->data;
        in[i] = &view[i];
        refs[i] = blocked ? w->native : w->rows;
        if (refs[i].kind == REF_NONE)
            return -ENOTSUP;
        n_blocked += blocked;
    }
    if (!n_blocked)
        return -ENOTSUP;
    for (uint32_t i = 0; i < n->n_in; i++) {
        int r = in[i] ? as_floats(b, n->in[i], &refs[i]) : 0;
        if (r < 0)
            return r;
    }
    int x = gated_operand(b, n, y);
    return x < 0 ? run_blocked(b, n, in, &out_view, refs, &layout)
                 : run_gated(b, n, x, refs, &layout);
}

/* ---- joining channels */

static const struct where *blocked_piece(const struct build *b, uint32_t v)
{
    const struct where *w = &b->value[v];

    return w->native.kind != REF_NONE && w->layout->channel_block && !layout_padded(w->layout)
               ? w
               : NULL;
}

void build_pieces_read(struct build *b, const struct where *w, int64_t more)
{
    for (uint32_t i = 0; i < w->n_pieces; i++) {
        struct where *at = &b->value[w->piece[i]];
        at->uses += (uint32_t)more;
        b->state[at->native.buf].pending += (uint32_t)more;
        if (at->rows.kind == REF_BUF)
            b->state[at->rows.buf].pending += (uint32_t)more;
    }
}

/* Each image's part is contiguous in both forms, so joining is one copy; unless channels change
 * places, or fill no whole blocks. */
static int join(struct build *b, uint32_t v, const struct node *n)
{
    struct where *w = &b->value[v];
    const struct tensor *y = build_tensor(b, v);
    AUTO(free) const struct tensor **in = calloc(w->n_pieces, sizeof(*in));
    AUTO(free) struct tensor *piece = calloc(w->n_pieces, sizeof(*piece));
    AUTO(free) struct ref *refs = calloc(w->n_pieces + 1, sizeof(*refs));
    struct layout layout;
    struct tensor out = *y;

    if (!in || !piece || !refs)
        return build_fail(b, -ENOMEM, "out of memory");
    if (layout_blocked(&layout, y->rank, y->dims) < 0)
        return build_fail(b, -ENOTSUP, "a rank without blocked channels");
    layout_as(&layout, b->value[w->piece[0]].layout->dtype);
    out.dtype = layout.dtype;
    struct where pieces = *w;
    bool as_they_are = !w->pick;
    for (uint32_t i = 0; i < w->n_pieces; i++) {
        piece[i] = *build_tensor(b, w->piece[i]);
        piece[i].dtype = layout.dtype;
        in[i] = &piece[i];
        refs[i] = b->value[w->piece[i]].native;
        as_they_are &= !layout_padded(b->value[w->piece[i]].layout);
    }
    build_pieces_read(b, w, -(int64_t)w->uses);
    w->n_pieces = 0;
    w->pick = NULL;
    if (!as_they_are)
        return build_picked(b, &pieces, 0, (uint32_t)y->dims[1], v);
    int r = run_blocked(b, n, in, &out, refs, &layout);
    if (r == 0)
        b->exe->step[b->exe->n_steps - 1].call.name = "join";
    return r;
}

int build_joined(struct build *b, uint32_t v)
{
    const struct value *value = &b->graph->values[v];

    return b->value[v].n_pieces ? join(b, v, &b->graph->nodes[value->producer]) : 0;
}

int lower_blocked_concat(struct build *b, const struct node *n)
{
    const struct tensor *y = build_tensor(b, n->out[0]);
    struct where *w = &b->value[n->out[0]];
    struct layout layout;
    int64_t axis = node_int(n, "axis", 0);

    if ((axis != 1 && axis + (int64_t)y->rank != 1) || n->n_post ||
        layout_blocked(&layout, y->rank, y->dims) < 0)
        return -ENOTSUP;
    for (uint32_t i = 0; i < n->n_in; i++) {
        int r = build_joined(b, n->in[i]);
        if (r < 0)
            return r;
        const struct where *at = &b->value[n->in[i]];
        if (at->native.kind == REF_NONE || !at->layout->channel_block)
            return -ENOTSUP;
        /* The kernel that fills up blocks is of floats. */
        enum dtype type = at->layout->dtype;
        if (type != b->value[n->in[0]].layout->dtype ||
            (layout_padded(at->layout) && type != DT_FP32))
            return -ENOTSUP;
    }
    w->piece = arena_memdup(&b->scratch, n->in, n->n_in * sizeof(*n->in));
    if (!w->piece)
        return build_fail(b, -ENOMEM, "out of memory");
    w->n_pieces = n->n_in;
    build_pieces_read(b, w, w->uses); /* when the joined value is */
    return 0;
}

/* ---- batch norms that no convolution took */

static const float *known_floats(const struct build *b, const struct node *n, uint32_t i)
{
    const struct tensor *t = i < n->n_in ? build_tensor(b, n->in[i]) : NULL;

    return t && t->dtype == DT_FP32 ? t->data : NULL;
}

static bool norm_post(const struct node *n, struct cpu_channel *c)
{
    c->low = -INFINITY;
    c->high = INFINITY;
    if (n->n_post > 1)
        return false;
    if (n->n_post && n->post[0].kind == POST_CLIP) {
        c->low = n->post[0].alpha;
        c->high = n->post[0].beta;
    } else if (n->n_post && n->post[0].kind == POST_RELU) {
        c->low = 0;
    }
    return n->n_post == 0 || n->post[0].kind == POST_CLIP || n->post[0].kind == POST_RELU;
}

static int norm_emit(struct build *b, const struct node *n, struct cpu_channel *c, struct ref *refs)
{
    const struct tensor *y = build_tensor(b, n->out[0]);
    struct cpu_call call;
    struct layout layout;
    uint32_t buf;
    int r = layout_blocked(&layout, y->rank, y->dims);

    refs[c->n_pieces] = refs[0];
    if (r == 0 && (c->n_pieces > 1 || !build_dies(b, refs[0]))) {
        r = build_buf(b, layout.bytes, &buf);
        refs[c->n_pieces] = ref_buf(buf);
    }
    if (r == 0 && cpu_plan_channel(c, &b->exe->arena, &call) < 0)
        r = build_fail(b, -ENOMEM, "out of memory");
    if (r == 0)
        r = build_call(b, &call, c->n_pieces + 1, refs);
    if (r < 0)
        return r;
    b->exe->step[b->exe->n_steps - 1].blocked = true;
    return build_set(b, n->out[0], refs[c->n_pieces], &layout);
}

int lower_blocked_norm(struct build *b, const struct node *n)
{
    const struct tensor *x = build_tensor(b, n->in[0]);
    const struct where *w = &b->value[n->in[0]];
    int64_t block = b->part->dev->dn.block;
    uint32_t n_pieces = MAX(w->n_pieces, 1u);
    const uint32_t *piece = w->n_pieces ? w->piece : &n->in[0];
    struct cpu_channel c = {.block = block,
                            .n_pieces = n_pieces,
                            .gain = known_floats(b, n, 1),
                            .bias = known_floats(b, n, 2),
                            .mean = known_floats(b, n, 3),
                            .var = known_floats(b, n, 4),
                            .epsilon = node_float(n, "epsilon", 1e-5f)};

    if (x->dtype != DT_FP32 || n->n_out != 1 || node_int(n, "training_mode", 0) ||
        !node_int(n, "spatial", 1) || !c.gain || !c.bias || !c.mean || !c.var ||
        !norm_post(n, &c) || w->pick)
        return -ENOTSUP;
    AUTO(free) int64_t *blocks = calloc(n_pieces, sizeof(*blocks));
    AUTO(free) struct ref *refs = calloc(n_pieces + 1, sizeof(*refs));
    if (!blocks || !refs)
        return build_fail(b, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n_pieces; i++) {
        const struct where *at = blocked_piece(b, piece[i]);
        if (!at)
            return -ENOTSUP;
        blocks[i] = build_tensor(b, piece[i])->dims[1] / block;
        refs[i] = at->native;
    }
    for (uint32_t i = 0; i < n_pieces; i++) {
        int r = as_floats(b, piece[i], &refs[i]);
        if (r < 0)
            return r;
    }
    c.blocks = blocks;
    c.batch = x->dims[0];
    c.channels = x->dims[1];
    c.spatial = 1;
    for (uint32_t i = 2; i < x->rank; i++)
        c.spatial *= x->dims[i];
    return norm_emit(b, n, &c, refs);
}
