/* Attention, as exporters write it, in 16 bits:
 *
 *     p = Softmax(MatMul(q, k') * factor, masked);  y = MatMul(p, v)
 *
 * over (batch, heads, rows, width).  The mask is added, or a Where with a number.  Transposes of q,
 * k' and v, and of y behind it, are strides of the one kernel, and so are parts of a Split, and of
 * products of one value (fuse_sides.c); factors of q and k' are its factor. Found from the last
 * product. */
#include "fuse.h"

#define WIDTH_MOST 128

/* ---- an operand */

/* Dimension i of the result is dimension ret[i] of the operand. */
static bool permutation(const struct node *n, uint32_t rank, uint32_t ret[MAX_RANK])
{
    uint32_t have;
    const int64_t *perm = node_ints(n, "perm", &have);

    if (perm && have != rank)
        return false;
    for (uint32_t i = 0; i < rank; i++) {
        int64_t at = perm ? perm[i] : (int64_t)(rank - 1 - i);
        if (at < 0 || at >= (int64_t)rank)
            return false;
        ret[i] = (uint32_t)at;
    }
    return true;
}

/* Heads (batch, rows, heads, width) of a part of what a Split along the last of three dimensions
 * has: where the part lies in it. */
static bool part_of(const struct build *b, const struct readers *r, struct view *w, int64_t own[4])
{
    uint32_t reshape, split;
    const struct node *n = r[w->v].n == 1 ? fuse_maker(b, w->v, &reshape) : NULL;
    const struct tensor *y = value_of(b, w->v);

    if (!n || n->op != OP_Reshape || r[n->in[0]].n != 1 || y->rank != 4)
        return false;
    uint32_t part = n->in[0];
    const struct tensor *t = value_of(b, part);
    n = fuse_maker(b, part, &split);
    if (!n || n->op != OP_Split || t->rank != 3 || t->dims[0] != y->dims[0] ||
        t->dims[1] != y->dims[1] || (node_int(n, "axis", 0) != 2 && node_int(n, "axis", 0) != -1))
        return false;
    for (uint32_t i = 0; n->out[i] != part; i++)
        w->from += value_of(b, n->out[i])->dims[2];
    w->v = n->in[0];
    w->split = split;
    w->gone[w->n_gone++] = reshape;
    int64_t row = value_of(b, w->v)->dims[2];
    memcpy(own, ((const int64_t[]){t->dims[1] * row, row, y->dims[3], 1}), 4 * sizeof(*own));
    return true;
}

/* Transposes and factors, and where parts is true what part_of() says. */
static void view_of(const struct build *b, const struct readers *r, uint32_t v, bool parts,
                    struct view *ret)
{
    uint32_t rank = value_of(b, v)->rank, perm[MAX_RANK], id, x;
    int64_t own[MAX_RANK];
    float scale;

    *ret = (struct view){.v = v, .split = NODE_NONE, .scale = 1};
    for (uint32_t i = 0; i < rank; i++)
        ret->at[i] = i;
    for (const struct node *n;
         ret->n_gone < VIEW_MOST && r[ret->v].n == 1 && (n = fuse_maker(b, ret->v, &id));) {
        if (n->op == OP_Transpose && permutation(n, rank, perm)) {
            for (uint32_t i = 0; i < rank; i++)
                ret->at[i] = perm[ret->at[i]];
            ret->v = n->in[0];
        } else if (fuse_is_scaled(b, n, &x, &scale)) {
            ret->v = x;
            ret->scale *= scale;
        } else
            break;
        ret->gone[ret->n_gone++] = id;
    }
    if (!parts || !part_of(b, r, ret, own))
        strides_of(value_of(b, ret->v), own);
    for (uint32_t i = 0; i < rank; i++)
        ret->stride[i] = own[ret->at[i]];
}

bool fuse_heads(const struct view *w, uint32_t row, uint32_t inner, struct gpu_heads *ret)
{
    *ret = (struct gpu_heads){.batch = w->stride[0], .head = w->stride[1], .row = w->stride[row]};
    return w->stride[inner] == 1 && ret->batch % 8 == 0 && ret->head % 8 == 0 &&
           ret->row % 8 == 0 && w->from % 8 == 0;
}

/* ---- what is found on the way */
struct found {
    struct attend *at;
    struct view q, k, v;
    uint32_t split;           /* whose three parts they are, or NODE_NONE */
    uint32_t n_gone, gone[4]; /* softmax, Where, a factor, the first product */
};

/* Keys that a row sees are those before it and its own: all of the mask says so. */
static bool is_causal(const struct tensor *t, bool shows)
{
    if (!t->data || t->rank < 2 || span(t, 0, t->rank - 2) != 1)
        return false;
    int64_t rows = t->dims[t->rank - 2], keys = t->dims[t->rank - 1];
    const uint8_t *x = t->data;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < keys; k++)
            if (((x[i * keys + k] != 0) == shows) != (k <= i + keys - rows))
                return false;
    return keys >= rows;
}

/* A Where of scores and a number; without effect where that is far above what hides. */
static bool choice(const struct build *b, const struct node *n, struct attend *at, uint32_t *ret_x)
{
    const struct tensor *c = value_of(b, n->in[0]);

    if (c->dtype != DT_BOOL)
        return false;
    for (uint32_t i = 1; i < 3; i++) {
        const struct tensor *t = value_of(b, n->in[i]);
        if (!t->data || t->dtype != DT_FP32 || count_of(t) != 1)
            continue;
        at->args.other = *(const float *)t->data;
        at->args.shows = i == 2;
        at->args.causal = at->args.other <= -10000 && is_causal(c, i == 2) &&
                          c->dims[c->rank - 1] == at->args.keys &&
                          c->dims[c->rank - 2] == at->args.rows;
        at->mask = at->args.causal ? VALUE_NONE : n->in[0];
        *ret_x = n->in[3 - i];
        return value_of(b, *ret_x)->rank == 4;
    }
    return false;
}

static void mask_strides(const struct build *b, const struct tensor *y, struct attend *at)
{
    int64_t stride[MAX_RANK];

    if (at->mask == VALUE_NONE)
        return;
    strides_broadcast(value_of(b, at->mask), y, stride);
    memcpy(at->args.mask_stride, stride, sizeof(at->args.mask_stride));
}

/* From the result of softmax to the product in front of it. */
static const struct node *find_scores(const struct build *b, const struct readers *r, uint32_t p,
                                      struct found *f)
{
    uint32_t id, x;
    float scale;
    const struct node *n = fuse_maker(b, p, &id);

    if (!n || n->op != OP_Softmax || r[p].n != 1 || value_of(b, p)->rank != 4)
        return NULL;
    int64_t axis = node_int(n, "axis", n->opset >= 13 ? -1 : 1);
    if (axis != -1 && axis != 3)
        return NULL;
    const struct fused *s = &b->fused[id];
    f->gone[f->n_gone++] = id;
    f->at->mask = s->add;
    f->at->args.scale = s->scale;
    x = s->x;
    n = fuse_maker(b, x, &id);
    if (n && n->op == OP_Where && r[x].n == 1 && s->n == 0 && choice(b, n, f->at, &x)) {
        f->gone[f->n_gone++] = id;
        n = fuse_maker(b, x, &id);
    }
    if (n && r[x].n == 1 && s->scale == 1 && fuse_is_scaled(b, n, &x, &scale)) {
        f->gone[f->n_gone++] = id;
        f->at->args.scale = scale;
        n = fuse_maker(b, x, &id);
    }
    if (!n || n->op != OP_MatMul || n->n_in != 2 || n->n_post > 0 || r[x].n != 1)
        return NULL;
    f->gone[f->n_gone++] = id;
    return n;
}

static bool has_dims(const struct tensor *t, const int64_t dims[4])
{
    return t->rank == 4 && memcmp(t->dims, dims, 4 * sizeof(*dims)) == 0;
}

/* A Split is left out where nobody else wants anything of it. */
static void views(const struct build *b, const struct readers *r, const struct node *scores,
                  const struct node *last, bool parts, struct found *f)
{
    view_of(b, r, scores->in[0], parts, &f->q);
    view_of(b, r, scores->in[1], parts, &f->k);
    view_of(b, r, last->in[1], parts, &f->v);
    uint32_t s = f->q.split;
    bool all =
        s != NODE_NONE && f->k.split == s && f->v.split == s && b->graph->nodes[s].n_out == 3;
    f->split = all ? s : NODE_NONE;
}

static bool operands_fit(const struct build *b, const struct readers *r, const struct node *scores,
                         const struct node *last, struct found *f)
{
    const struct tensor *q = value_of(b, scores->in[0]), *k = value_of(b, scores->in[1]),
                        *v = value_of(b, last->in[1]);
    struct attend_args *a = &f->at->args;

    const int64_t of_q[] = {f->at->batch, a->heads, a->rows, a->width},
                  of_k[] = {f->at->batch, a->heads, a->width, a->keys},
                  of_v[] = {f->at->batch, a->heads, a->keys, a->width};
    if (!has_dims(q, of_q) || !has_dims(k, of_k) || !has_dims(v, of_v) || a->width % 8 != 0 ||
        a->width > WIDTH_MOST || count_of(q) == 0 || count_of(k) == 0)
        return false;
    views(b, r, scores, last, true, f);
    if (f->split == NODE_NONE)
        views(b, r, scores, last, false, f);
    a->scale *= f->q.scale * f->k.scale;
    f->at->q = f->q.v;
    f->at->k = f->k.v;
    f->at->v = f->v.v;
    a->from_q = f->q.from;
    a->from_k = f->k.from;
    a->from_v = f->v.from;
    return f->v.scale == 1 && fuse_heads(&f->q, 2, 3, &a->of_q) &&
           fuse_heads(&f->k, 3, 2, &a->of_k) && fuse_heads(&f->v, 2, 3, &a->of_v) &&
           half_fits(b, f->q.v) && half_fits(b, f->k.v) && half_fits(b, f->v.v);
}

/* Where the result goes: as it is, or through the Transpose that alone reads it. */
static uint32_t place_result(const struct build *b, const struct readers *r, uint32_t y,
                             struct attend *at)
{
    const struct tensor *t = value_of(b, y);
    uint32_t id = r[y].first, perm[MAX_RANK];
    const struct node *n = r[y].n == 1 && id < b->graph->n_nodes ? &b->graph->nodes[id] : NULL;
    struct view w = {.v = y};
    int64_t own[MAX_RANK];

    at->y = y;
    strides_of(t, w.stride);
    (void)fuse_heads(&w, 2, 3, &at->args.of_y);
    if (!n || n->op != OP_Transpose || b->bound->late_node[id] || !permutation(n, 4, perm))
        return NODE_NONE;
    strides_of(value_of(b, n->out[0]), own);
    for (uint32_t i = 0; i < 4; i++)
        w.stride[perm[i]] = own[i];
    if (w.stride[3] != 1)
        return NODE_NONE;
    (void)fuse_heads(&w, 2, 3, &at->args.of_y);
    at->y = n->out[0];
    return id;
}

static void take_view(struct build *b, struct fused *into, const struct view *w)
{
    for (uint32_t i = 0; i < w->n_gone; i++)
        fuse_take(b, into, w->gone[i]);
}

int fuse_attention(struct build *b, const struct readers *r, uint32_t id)
{
    const struct node *n = &b->graph->nodes[id];
    const struct tensor *y = value_of(b, n->out[0]);
    struct fused *into = &b->fused[id];

    if (half_type(b) == DT_FP32 || n->n_in != 2 || n->n_post > 0 || y->rank != 4 || !is_f32(y))
        return 0;
    const struct tensor *p = value_of(b, n->in[0]);
    struct attend at = {.batch = y->dims[0], .mask = VALUE_NONE};
    struct found f = {.at = &at};
    at.args = (struct attend_args){
        .heads = y->dims[1], .rows = y->dims[2], .keys = p->dims[p->rank - 1], .width = y->dims[3]};
    const struct node *scores = find_scores(b, r, n->in[0], &f);
    if (!scores || !operands_fit(b, r, scores, n, &f))
        return 0;
    mask_strides(b, p, &at);
    uint32_t behind = place_result(b, r, n->out[0], &at);
    if (!half_wanted(b, at.y))
        return 0; /* it stays in FP32 */
    into->attend = arena_memdup(&b->scratch, &at, sizeof(at));
    if (!into->attend)
        return err_set(b->err, -ENOMEM, "out of memory");
    into->n += b->fused[f.gone[0]].n; /* what softmax had taken */
    for (uint32_t i = 0; i < f.n_gone; i++)
        fuse_take(b, into, f.gone[i]);
    take_view(b, into, &f.q);
    take_view(b, into, &f.k);
    take_view(b, into, &f.v);
    if (f.split != NODE_NONE)
        fuse_take(b, into, f.split);
    if (behind != NODE_NONE)
        fuse_take(b, into, behind);
    const struct view *const of[] = {&f.q, &f.k, &f.v};
    return f.split == NODE_NONE ? fuse_sides(b, r, of, into->attend) : 0;
}
