/* What stands between the bytes of an image and the first layer of a network that was exported with
 * its preprocessing: a Cast; Sub, Add, Mul and Div with numbers that are known, one for all or one
 * for each channel; a Transpose; what only renames.  In any order.
 *
 * All of it is x * scale[channel] + shift[channel] in another layout, which one kernel does.  Both
 * are computed in FP64 and rounded once.  Whether that says what the nodes say in FP32 is tried for
 * all 256 bytes: where it does not, they stay.
 *
 * Dimensions of 1 are left out.  What is left of a value's are those of the bytes in some order. */
#include "fuse.h"

#include <math.h>

#define BYTES 256
#define OFF_MOST 1e-6f /* of the largest number: some roundings */

struct walk {
    struct pixels is;
    bool is_cast;
    uint32_t n_steps; /* that the nodes would be */
    double scale[PIXEL_CHANNELS], shift[PIXEL_CHANNELS];
    float y[PIXEL_CHANNELS][BYTES]; /* what the nodes make of each byte */
};

/* ---- layouts */

/* What lies as `order` says differs from the bytes by the place of `channel` only, which is last in
 * one of them; or not at all. */
static bool turn_by(const struct pixels *p, const uint32_t *order, uint32_t channel,
                    struct pixels_args *ret)
{
    uint32_t rest = 0, to = 0;
    int64_t inner = 1;

    for (uint32_t i = 0; i < p->rank; i++) {
        if (order[i] == channel) {
            to = i;
            continue;
        }
        rest += rest == channel;
        if (order[i] != rest++)
            return false;
    }
    if (channel != to && MAX(channel, to) != p->rank - 1)
        return false;
    for (uint32_t i = MIN(channel, to); i < p->rank; i++)
        inner *= order[i] == channel ? 1 : p->dims[order[i]];
    ret->channels = (int32_t)p->dims[channel];
    ret->inner = (int32_t)inner;
    ret->turn = channel == to ? GPU_TURN_NONE : channel > to ? GPU_TURN_SPLIT : GPU_TURN_JOIN;
    return true;
}

static bool turn_none(const struct pixels *p, const uint32_t *order, struct pixels_args *ret)
{
    for (uint32_t i = 0; i < p->rank; i++)
        if (order[i] != i)
            return false;
    ret->channels = 1;
    ret->inner = ret->count;
    ret->turn = GPU_TURN_NONE;
    return true;
}

static bool turn(const struct pixels *p, const uint32_t *order, struct pixels_args *ret)
{
    if (p->channel != CHANNEL_NONE)
        return turn_by(p, order, p->channel, ret);
    if (turn_none(p, order, ret))
        return true;
    for (uint32_t i = 0; i < p->rank; i++)
        if (p->dims[i] <= PIXEL_CHANNELS && turn_by(p, order, i, ret))
            return true;
    return false;
}

bool pixels_turn(const struct pixels *p, const struct tensor *y, bool last, struct pixels_args *ret)
{
    uint32_t order[MAX_RANK], n = 0, at = 0, held = CHANNEL_NONE;

    for (uint32_t i = 0; i < y->rank; i++) {
        if (y->dims[i] == 1)
            continue;
        if (last && i == 1)
            held = p->order[at++];
        else
            order[n++] = p->order[at++];
    }
    if (held != CHANNEL_NONE)
        order[n] = held;
    ret->count = (int32_t)count_of(y);
    return turn(p, order, ret);
}

/* ---- from node to node */

/* The dimensions of t are those of the value at hand. */
static bool keeps_order(const struct walk *w, const struct tensor *t)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->rank; i++)
        if (t->dims[i] != 1 && (n == w->is.rank || t->dims[i] != w->is.dims[w->is.order[n++]]))
            return false;
    return n == w->is.rank;
}

static bool take_transpose(struct walk *w, const struct node *n, const struct tensor *x)
{
    uint32_t have, before[MAX_RANK], at[MAX_RANK], k = 0;
    const int64_t *perm = node_ints(n, "perm", &have);

    memcpy(before, w->is.order, sizeof(before));
    for (uint32_t i = 0; i < x->rank; i++) {
        at[i] = k;
        k += x->dims[i] != 1;
    }
    k = 0;
    for (uint32_t i = 0; i < x->rank; i++) {
        uint32_t from = have == x->rank ? (uint32_t)perm[i] : x->rank - 1 - i;
        if (x->dims[from] != 1)
            w->is.order[k++] = before[at[from]];
    }
    return true;
}

/* Operand t of a node that gives y: one number, or one for each channel, the same ones as so far.
 */
static bool numbers_of(struct walk *w, const struct tensor *t, const struct tensor *y,
                       float ret[PIXEL_CHANNELS])
{
    int64_t n = count_of(t);
    uint32_t channel = CHANNEL_NONE, k = 0;

    if (!t->data || !is_f32(t) || n < 1 || n > PIXEL_CHANNELS)
        return false;
    for (uint32_t i = 0; i < y->rank; i++) {
        if (i + t->rank >= y->rank && t->dims[i + t->rank - y->rank] == n && n > 1)
            channel = w->is.order[k];
        k += y->dims[i] != 1;
    }
    if (n > 1 && (channel == CHANNEL_NONE || w->is.dims[channel] != n ||
                  (w->is.channel != CHANNEL_NONE && w->is.channel != channel)))
        return false; /* as 2 * 2 numbers, too */
    w->is.channel = n > 1 ? channel : w->is.channel;
    for (int64_t c = 0; c < PIXEL_CHANNELS; c++)
        memcpy(&ret[c], (const char *)t->data + (size_t)MIN(c, n - 1) * sizeof(*ret), sizeof(*ret));
    return true;
}

/* turned: the number is the first operand. */
static float result(enum op_id op, bool turned, float x, float k)
{
    switch (op) {
    case OP_Add:
        return x + k;
    case OP_Mul:
        return x * k;
    case OP_Div:
        return x / k;
    default:
        return turned ? k - x : x - k;
    }
}

/* y becomes y * by + plus. */
static void affine(enum op_id op, bool turned, double k, double *ret_by, double *ret_plus)
{
    *ret_by = op == OP_Mul ? k : op == OP_Div ? 1 / k : op == OP_Sub && turned ? -1 : 1;
    *ret_plus = op == OP_Add || (op == OP_Sub && turned) ? k : op == OP_Sub ? -k : 0;
}

static void apply(struct walk *w, enum op_id op, bool turned, const float k[PIXEL_CHANNELS])
{
    for (uint32_t c = 0; c < PIXEL_CHANNELS; c++) {
        double by, plus;
        affine(op, turned, (double)k[c], &by, &plus);
        w->scale[c] *= by;
        w->shift[c] = w->shift[c] * by + plus;
        for (uint32_t i = 0; i < BYTES; i++)
            w->y[c][i] = result(op, turned, w->y[c][i], k[c]);
    }
}

static bool take_numbers(const struct build *b, struct walk *w, const struct node *n, uint32_t v)
{
    bool turned = n->in[1] == v;
    float k[PIXEL_CHANNELS];

    if (!w->is_cast || node_int(n, "broadcast", 0) || (turned && n->op == OP_Div) ||
        !keeps_order(w, value_of(b, n->out[0])) ||
        !numbers_of(w, in_of(b, n, turned ? 0 : 1), value_of(b, n->out[0]), k))
        return false;
    apply(w, n->op, turned, k);
    return true;
}

/* Node id, which reads v. */
static bool take(const struct build *b, struct walk *w, uint32_t id, uint32_t v)
{
    const struct node *n = &b->graph->nodes[id];

    if (b->bound->skip[id] || b->bound->late_node[id] || n->n_post > 0)
        return false;
    switch (n->op) {
    case OP_Reshape:
    case OP_Unsqueeze:
    case OP_Squeeze:
    case OP_Flatten:
        return n->in[0] == v && keeps_order(w, value_of(b, n->out[0]));
    case OP_Cast:
        w->n_steps++;
        w->is_cast = true;
        return value_of(b, v)->dtype == DT_UINT8 && is_f32(value_of(b, n->out[0]));
    case OP_Transpose:
        w->n_steps++;
        return take_transpose(w, n, value_of(b, v));
    case OP_Add:
    case OP_Sub:
    case OP_Mul:
    case OP_Div:
        w->n_steps++;
        return take_numbers(b, w, n, v);
    default:
        return false;
    }
}

/* ---- from the first to the last */

static bool moves_only(enum op_id op)
{
    return op == OP_Transpose || op == OP_Reshape || op == OP_Unsqueeze || op == OP_Squeeze ||
           op == OP_Flatten;
}

/* Where the way begins that the Cast is on: what is in front of it has one reader. */
static uint32_t first_of(const struct build *b, const struct readers *r, uint32_t cast)
{
    const struct graph *g = b->graph;
    uint32_t id = cast, v = g->nodes[cast].in[0];

    while (r[v].n == 1 && g->values[v].producer != NODE_NONE &&
           moves_only(g->nodes[g->values[v].producer].op) &&
           !b->bound->late_node[g->values[v].producer]) {
        id = g->values[v].producer;
        v = g->nodes[id].in[0];
    }
    return id;
}

static void begin(const struct build *b, struct walk *w, uint32_t v)
{
    const struct tensor *x = value_of(b, v);

    *w = (struct walk){.is = {.x = v, .channel = CHANNEL_NONE}};
    for (uint32_t i = 0; i < x->rank; i++)
        if (x->dims[i] != 1)
            w->is.dims[w->is.rank++] = x->dims[i];
    for (uint32_t i = 0; i < MAX_RANK; i++)
        w->is.order[i] = i;
    for (uint32_t c = 0; c < PIXEL_CHANNELS; c++) {
        w->scale[c] = 1;
        for (uint32_t i = 0; i < BYTES; i++)
            w->y[c][i] = (float)i;
    }
}

/* Rounds what has been found; is it what the nodes say? */
static bool agrees(struct walk *w)
{
    int64_t n = w->is.channel == CHANNEL_NONE ? 1 : w->is.dims[w->is.channel];
    float most = 0, off = 0;

    for (uint32_t c = 0; c < PIXEL_CHANNELS; c++) {
        w->is.scale[c] = (float)w->scale[c];
        w->is.shift[c] = (float)w->shift[c];
    }
    for (int64_t c = 0; c < n; c++)
        for (uint32_t i = 0; i < BYTES; i++) {
            float d = fabsf(fmaf((float)i, w->is.scale[c], w->is.shift[c]) - w->y[c][i]);
            off = isnan(d) ? INFINITY : fmaxf(off, d);
            most = fmaxf(most, fabsf(w->y[c][i]));
        }
    return isfinite(most) && off <= OFF_MOST * most;
}

/* v, where the walk is, can be the kernel's result, and a launch is saved by it. */
static bool ends(const struct build *b, struct walk *w, uint32_t v)
{
    struct pixels_args a;
    bool last;

    return w->is_cast && pixels_turn(&w->is, value_of(b, v), false, &a) && agrees(w) &&
           (w->n_steps > 1 || half_alone(b, v, &last));
}

int fuse_pixels(struct build *b, const struct readers *r, uint32_t cast)
{
    const struct graph *g = b->graph;
    uint32_t first = first_of(b, r, cast), v = g->nodes[first].in[0], end = NODE_NONE;
    const struct tensor *x = value_of(b, v);
    struct pixels found;
    struct walk w;

    if (x->dtype != DT_UINT8 || x->data || count_of(x) < 1 || count_of(x) >= INT32_MAX)
        return 0;
    begin(b, &w, v);
    for (uint32_t id = first; id < g->n_nodes && take(b, &w, id, v);) {
        v = g->nodes[id].out[0];
        if (ends(b, &w, v)) {
            end = id;
            found = w.is;
        }
        id = r[v].n == 1 ? r[v].first : g->n_nodes;
    }
    if (end == NODE_NONE)
        return 0;
    for (uint32_t id = first; id != end; id = r[g->nodes[id].out[0]].first)
        fuse_take(b, &b->fused[end], id);
    b->fused[end].pixels = arena_memdup(&b->scratch, &found, sizeof(found));
    return b->fused[end].pixels ? 0 : err_set(b->err, -ENOMEM, "out of memory");
}
