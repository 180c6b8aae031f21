/* Channels in another order, without a row-major detour.
 *
 * A shuffle is written as Reshape to groups, Transpose, Reshape back.  Its result is the list of
 * pieces that a Concat before it has left, or the one value, with a pick: which channel of theirs
 * each of its own is.  Half of a picked value, a Slice, is made by one kernel straight from the
 * pieces, in blocks again. */
#include "build.h"

/* The only node behind this one that reads v, if it does `op` with v first; else NULL. */
static const struct node *next_node(const struct build *b, uint32_t v, enum op_id op)
{
    const struct node *only = NULL;

    for (uint32_t i = b->node + 1; i < b->graph->n_nodes; i++) {
        const struct node *n = &b->graph->nodes[i];
        bool reads = false;
        for (uint32_t k = 0; k < n->n_in; k++)
            reads |= n->in[k] == v;
        if (reads && only)
            return NULL;
        if (reads)
            only = n;
    }
    return only && b->value[v].uses == 1 && only->op == op && only->in[0] == v && !only->n_post
               ? only
               : NULL;
}

/* [N, C, ...] as [N, groups, C / groups, ...], which the next node turns and the one after makes
 * [N, C, ...] again; *ret: that one's result. */
static bool is_shuffle(const struct build *b, const struct node *n, int64_t *groups, uint32_t *ret)
{
    const struct tensor *x = build_tensor(b, n->in[0]), *y = build_tensor(b, n->out[0]);
    const struct node *turn = next_node(b, n->out[0], OP_Transpose);
    const struct node *back = turn ? next_node(b, turn->out[0], OP_Reshape) : NULL;
    uint32_t n_perm = 0;
    const int64_t *perm = turn ? node_ints(turn, "perm", &n_perm) : NULL;

    if (!back || x->dtype != DT_FP32 || x->rank < 3 || y->rank != x->rank + 1 ||
        n_perm != y->rank || x->dims[0] != y->dims[0] || x->dims[1] != y->dims[1] * y->dims[2] ||
        x->bytes == 0)
        return false;
    const struct tensor *z = build_tensor(b, back->out[0]);
    for (uint32_t i = 0; i < n_perm; i++)
        if (perm[i] != (i == 1 ? 2 : i == 2 ? 1 : (int64_t)i))
            return false;
    for (uint32_t i = 2; i < x->rank; i++)
        if (x->dims[i] != y->dims[i + 1])
            return false;
    *groups = y->dims[1];
    *ret = back->out[0];
    return z->rank == x->rank && memcmp(z->dims, x->dims, x->rank * sizeof(*x->dims)) == 0;
}

/* The kernel that picks channels is of floats. */
static bool is_blocked(const struct build *b, uint32_t v)
{
    const struct where *w = &b->value[v];

    return w->native.kind != REF_NONE && w->layout->channel_block && w->layout->dtype == DT_FP32;
}

int lower_shuffle(struct build *b, const struct node *n)
{
    struct where *x = &b->value[n->in[0]], *y;
    int64_t groups, channels;
    uint32_t to;

    if (b->value[n->out[0]].n_pieces) /* the last of the three */
        return 0;
    if (n->n_post || !is_blocked(b, x->n_pieces ? x->piece[0] : n->in[0]) ||
        !is_shuffle(b, n, &groups, &to))
        return -ENOTSUP;
    channels = build_tensor(b, n->in[0])->dims[1];
    y = &b->value[to];
    y->n_pieces = x->n_pieces ? x->n_pieces : 1;
    y->piece = x->n_pieces ? x->piece : arena_memdup(&b->scratch, &n->in[0], sizeof(n->in[0]));
    uint32_t *pick = ARENA_ARRAY(&b->scratch, uint32_t, (size_t)channels);
    if (!y->piece || !pick)
        return build_fail(b, -ENOMEM, "out of memory");
    for (int64_t c = 0; c < channels; c++) {
        uint32_t from = (uint32_t)(c % groups * (channels / groups) + c / groups);
        pick[c] = x->pick ? x->pick[from] : from;
    }
    y->pick = pick;
    b->value[n->out[0]].passed = true;
    build_pieces_read(b, y, y->uses);
    return 0;
}

/* Channels [from, from + n) of a value in pieces, blocked; v: what they become. */
int build_picked(struct build *b, const struct where *w, uint32_t from, uint32_t n, uint32_t v)
{
    const struct tensor *y = build_tensor(b, v);
    AUTO(free) int64_t *channels = calloc(w->n_pieces, sizeof(*channels));
    AUTO(free) uint32_t *pick = calloc(n, sizeof(*pick));
    AUTO(free) struct ref *refs = calloc(w->n_pieces + 1, sizeof(*refs));
    struct cpu_pick c = {.batch = y->dims[0],
                         .spatial = 1,
                         .block = b->part->dev->dn.block,
                         .n_pieces = w->n_pieces,
                         .channels = channels,
                         .n = n,
                         .from = pick};
    struct cpu_call call;
    struct layout layout;
    uint32_t buf;

    if (!channels || !pick || !refs)
        return build_fail(b, -ENOMEM, "out of memory");
    if (layout_blocked(&layout, y->rank, y->dims) < 0)
        return build_fail(b, -ENOTSUP, "a rank without blocked channels");
    for (uint32_t i = 2; i < y->rank; i++)
        c.spatial *= y->dims[i];
    for (uint32_t i = 0; i < w->n_pieces; i++) {
        channels[i] = build_tensor(b, w->piece[i])->dims[1];
        refs[i] = b->value[w->piece[i]].native;
    }
    for (uint32_t i = 0; i < n; i++)
        pick[i] = w->pick ? w->pick[from + i] : from + i;
    int r = build_buf(b, layout.bytes, &buf);
    if (r == 0 && cpu_plan_pick(&c, &b->exe->arena, &call) < 0)
        r = build_fail(b, -ENOMEM, "out of memory");
    refs[w->n_pieces] = ref_buf(buf);
    if (r == 0)
        r = build_call(b, &call, w->n_pieces + 1, refs);
    if (r < 0)
        return r;
    b->exe->step[b->exe->n_steps - 1].blocked = true;
    return build_set(b, v, refs[w->n_pieces], &layout);
}

/* The one number of input i, known now. */
static bool one_number(const struct build *b, const struct node *n, uint32_t i, int64_t *ret)
{
    const struct tensor *t = i < n->n_in ? build_tensor(b, n->in[i]) : NULL;

    if (!t || !t->data || t->bytes != dtype_size(t->dtype) ||
        (t->dtype != DT_INT64 && t->dtype != DT_INT32))
        return false;
    *ret = t->dtype == DT_INT64 ? *(const int64_t *)t->data : *(const int32_t *)t->data;
    return true;
}

int lower_picked_slice(struct build *b, const struct node *n)
{
    const struct where *x = &b->value[n->in[0]];
    const struct tensor *from = build_tensor(b, n->in[0]), *y = build_tensor(b, n->out[0]);
    int64_t start, axis, step = 1;

    if (!x->n_pieces || !x->pick || n->n_post || n->n_in < 4 || !one_number(b, n, 1, &start) ||
        !one_number(b, n, 3, &axis) || (n->n_in > 4 && !one_number(b, n, 4, &step)) ||
        (axis != 1 && axis + (int64_t)from->rank != 1) || step != 1 || y->bytes == 0)
        return -ENOTSUP;
    start += start < 0 ? from->dims[1] : 0;
    if (start < 0 || start + y->dims[1] > from->dims[1])
        return -ENOTSUP;
    return build_picked(b, x, (uint32_t)start, (uint32_t)y->dims[1], n->out[0]);
}
