/* Values, buffers, steps and arguments while an exe is made. */
#include "exe.h"

#define STEPS_MAX 1000000u
#define BLOCKS_PER_SM 8
#define THREADS_LEAST 64 /* of a block */

int build_fail(struct build *b, int code, const char *what)
{
    const struct node *n = &b->graph->nodes[b->node];

    return err_set(b->err, code, "node '%s' (%s): %s", n->name, op_name(n->op), what);
}

int build_wrap(struct build *b)
{
    const struct node *n = &b->graph->nodes[b->node];

    return err_wrap(b->err, "node '%s' (%s): ", n->name, op_name(n->op));
}

int build_no_type(struct build *b, enum dtype t)
{
    const struct node *n = &b->graph->nodes[b->node];

    return err_set(b->err, -ENOTSUP, "node '%s' (%s): type %s is not in the cuda backend yet",
                   n->name, op_name(n->op), dtype_name(t));
}

static int no_memory(struct build *b)
{
    return err_set(b->err, -ENOMEM, "out of memory");
}

/* Room for one more, by doubling in the exe's arena. */
static void *more(struct build *b, void *array, uint32_t n, uint32_t *cap, size_t each)
{
    if (n < *cap)
        return array;
    uint32_t to = n ? n * 2 : 32;
    void *grown = n < STEPS_MAX ? arena_array(&b->exe->arena, to, each) : NULL;
    if (grown && n)
        memcpy(grown, array, n * each);
    if (grown)
        *cap = to;
    return grown;
}

int build_buf(struct build *b, size_t bytes, struct ref *ret)
{
    struct exe *x = b->exe;
    struct buffer *buf = more(b, x->buf, x->n_bufs, &b->cap_bufs, sizeof(*buf));

    if (!buf || bytes > SIZE_MAX - STATUS_BYTES)
        return no_memory(b);
    x->buf = buf;
    /* Whole multiples of what the widest access wants. */
    buf[x->n_bufs] = (struct buffer){
        .bytes = align_up(MAX(bytes, 1), 256), .first = x->n_steps, .last = x->n_steps};
    *ret = (struct ref){.kind = REF_BUF, .buf = x->n_bufs++};
    return 0;
}

/* Where the next constant of the exe goes. */
static struct weights **weights_next(struct build *b)
{
    struct exe *x = b->exe;
    struct weights **w = more(b, x->weights, x->n_weights, &b->cap_weights, sizeof(*w));

    if (w)
        x->weights = w;
    return w ? &w[x->n_weights] : NULL;
}

static void weights_took(struct exe *x, size_t bytes, struct ref *ret)
{
    x->weights_bytes += bytes;
    *ret = (struct ref){.kind = REF_CONST, .at = weights_at(x->weights[x->n_weights++])};
}

int build_upload(struct build *b, const void *data, size_t bytes, struct hash128 hash,
                 struct ref *ret)
{
    struct weights **w = weights_next(b);
    int r = w ? weights_in(b->part, data, bytes, hash, w, b->err) : no_memory(b);

    if (r == 0)
        weights_took(b->exe, bytes, ret);
    return r;
}

bool build_has(struct build *b, size_t bytes, struct hash128 hash, struct ref *ret)
{
    struct weights **w = weights_next(b);

    if (!w || !(*w = weights_have(b->part, bytes, hash)))
        return false;
    weights_took(b->exe, bytes, ret);
    return true;
}

int build_const(struct build *b, const void *data, size_t bytes, struct ref *ret)
{
    return build_upload(b, data, bytes, hash_bytes(data, bytes), ret);
}

int build_zeros(struct build *b, size_t bytes, struct ref *ret)
{
    void *zeros = arena_alloc(&b->scratch, bytes);

    if (!zeros)
        return no_memory(b);
    memset(zeros, 0, bytes);
    return build_const(b, zeros, bytes, ret);
}

int build_in(struct build *b, uint32_t v, struct ref *ret)
{
    const struct constant *c = b->graph->values[v].constant;
    const struct tensor *t = &b->bound->value[v];
    int r = 0;

    if (t->dtype == DT_STRING)
        return build_no_type(b, t->dtype);
    if (b->at[v].kind == REF_NONE && c)
        r = build_upload(b, c->t.data, c->t.bytes, c->hash, &b->at[v]);
    else if (b->at[v].kind == REF_NONE && t->data)
        r = build_upload(b, t->data, t->bytes, hash_bytes(t->data, t->bytes), &b->at[v]);
    else if (b->at[v].kind == REF_NONE)
        r = half_back(b, v, &b->at[v]);
    assert(r < 0 || b->at[v].kind != REF_NONE);
    *ret = b->at[v];
    return r;
}

int build_optional(struct build *b, const struct node *n, uint32_t i, struct ref *ret)
{
    *ret = (struct ref){0};
    return i < n->n_in && n->in[i] != VALUE_NONE ? build_in(b, n->in[i], ret) : 0;
}

int build_inputs(struct build *b, const struct node *n, uint32_t count, struct ref *ret)
{
    int r = 0;

    for (uint32_t i = 0; i < count && r == 0; i++)
        r = build_optional(b, n, i, &ret[i]);
    return r;
}

int build_out(struct build *b, uint32_t v, struct ref *ret)
{
    int r = build_buf(b, b->bound->value[v].bytes, ret);

    if (r == 0)
        b->at[v] = *ret;
    return r;
}

static int add_step(struct build *b, struct step is, const void *args, const struct hole *holes)
{
    struct exe *x = b->exe;
    struct step *step = more(b, x->step, x->n_steps, &b->cap_steps, sizeof(*step));

    if (!step)
        return no_memory(b);
    x->step = step;
    is.args = arena_memdup(&x->arena, args, is.bytes);
    is.hole = arena_memdup(&x->arena, holes, is.n_holes * sizeof(*holes));
    if (!is.args || !is.hole)
        return no_memory(b);
    for (uint32_t i = 0; i < is.n_holes; i++)
        if (holes[i].ref.kind == REF_BUF)
            x->buf[holes[i].ref.buf].last = x->n_steps;
    step[x->n_steps++] = is;
    x->args_bytes += align_up(is.bytes, 16);
    return 0;
}

int build_blocks(struct build *b, enum gpu_kernel k, const void *args, size_t bytes, int64_t blocks,
                 unsigned threads, uint32_t n_holes, const struct hole *holes)
{
    struct step step = {.kernel = k,
                        .threads = threads,
                        .blocks = (unsigned)MIN(blocks, b->part->units * BLOCKS_PER_SM),
                        .bytes = (uint32_t)bytes,
                        .n_holes = n_holes};

    return blocks == 0 ? 0 : add_step(b, step, args, holes);
}

int build_step(struct build *b, enum gpu_kernel k, const void *args, size_t bytes, int64_t n,
               uint32_t n_holes, const struct hole *holes)
{
    unsigned threads = GPU_THREADS;

    while (threads > THREADS_LEAST && n < (int64_t)threads * b->part->units)
        threads /= 2; /* little work is for all SMs, too */
    return build_blocks(b, k, args, bytes, n / threads + (n % threads != 0), threads, n_holes,
                        holes);
}

int build_rows(struct build *b, enum gpu_kernel warp, enum gpu_kernel block, const void *args,
               size_t bytes, int64_t n, int64_t count, uint32_t n_holes, const struct hole *holes)
{
    if (count <= ROW_WARP)
        return build_step(b, warp, args, bytes, n * 32, n_holes, holes);
    return build_blocks(b, block, args, bytes, n, GPU_THREADS, n_holes, holes);
}

int build_call(struct build *b, struct call *c, const void *args, size_t bytes, uint32_t n_holes,
               const struct hole *holes)
{
    struct step step = {.call = c, .bytes = (uint32_t)bytes, .n_holes = n_holes};

    return add_step(b, step, args, holes);
}

/* ---- shapes */
int64_t count_of(const struct tensor *t)
{
    return span(t, 0, t->rank);
}

int32_t vector_of(int64_t n)
{
    return n % 8 == 0 ? 8 : n % 4 == 0 ? 4 : n % 2 == 0 ? 2 : 1;
}

int64_t span(const struct tensor *t, uint32_t from, uint32_t to)
{
    int64_t n = 1;

    for (uint32_t i = from; i < to; i++)
        n *= t->dims[i];
    return n;
}

void strides_of(const struct tensor *t, int64_t ret[MAX_RANK])
{
    int64_t n = 1;

    for (uint32_t i = t->rank; i-- > 0; n *= t->dims[i])
        ret[i] = n;
}

void broadcast(const struct tensor *t, const int64_t own[MAX_RANK], const struct tensor *y,
               int64_t ret[MAX_RANK])
{
    assert(t->rank <= y->rank);
    for (uint32_t i = 0; i < y->rank; i++) {
        bool has = i + t->rank >= y->rank;
        uint32_t k = has ? i + t->rank - y->rank : 0;
        ret[i] = has && t->dims[k] != 1 ? own[k] : 0;
    }
}

void strides_broadcast(const struct tensor *t, const struct tensor *y, int64_t ret[MAX_RANK])
{
    int64_t own[MAX_RANK];

    strides_of(t, own);
    broadcast(t, own, y, ret);
}

static bool mergeable(const struct gpu_walk *w, int64_t (*stride)[MAX_RANK], uint32_t n_operands,
                      uint32_t inner, int64_t dim)
{
    for (uint32_t k = 0; k < n_operands; k++)
        if (w->stride[k][w->rank - 1] != stride[k][inner] * dim)
            return false;
    return true;
}

void walk_make(struct gpu_walk *w, uint32_t rank, const int64_t *dims, uint32_t n_operands,
               int64_t (*stride)[MAX_RANK])
{
    *w = (struct gpu_walk){0};
    for (uint32_t i = 0; i < rank; i++) {
        if (dims[i] == 1)
            continue;
        if (w->rank > 0 && mergeable(w, stride, n_operands, i, dims[i]))
            w->dims[w->rank - 1] *= dims[i];
        else
            w->dims[w->rank++] = dims[i];
        for (uint32_t k = 0; k < n_operands; k++)
            w->stride[k][w->rank - 1] = stride[k][i];
    }
}

/* ---- arguments */
int build_ints(struct build *b, const struct node *n, uint32_t i, const char *attr,
               int64_t ret[MAX_RANK * 2], uint32_t *ret_n)
{
    const struct tensor *t = in_of(b, n, i);
    uint32_t have;
    const int64_t *ints = node_ints(n, attr, &have);

    *ret_n = 0;
    if (t && !t->data)
        return build_fail(b, -ENOTSUP, "an argument that is computed while the model runs");
    if (t && t->dtype != DT_INT32 && t->dtype != DT_INT64)
        return build_no_type(b, t->dtype);
    int64_t count = t ? count_of(t) : ints ? have : 0;
    if (count > MAX_RANK * 2)
        return build_fail(b, -EINVAL, "more numbers than dimensions");
    for (int64_t k = 0; k < count; k++)
        ret[k] = !t                     ? ints[k]
                 : t->dtype == DT_INT32 ? ((const int32_t *)t->data)[k]
                                        : ((const int64_t *)t->data)[k];
    *ret_n = (uint32_t)count;
    return 0;
}

int build_axis(struct build *b, int64_t axis, uint32_t limit, uint32_t *ret)
{
    int64_t at = axis < 0 ? axis + (int64_t)limit : axis;

    if (at < 0 || at >= (int64_t)limit)
        return build_fail(b, -EINVAL, "an axis is out of range");
    *ret = (uint32_t)at;
    return 0;
}

bool is_f32(const struct tensor *t)
{
    return !t || t->dtype == DT_FP32;
}
