/* A bound graph becomes steps over buffers.
 *
 * Each node is lowered in turn: as an alias when it only renames memory, as oneDNN primitives
 * (lower.c), or as one of our kernels.  Then every graph output gets a row-major buffer of its
 * own, and the arena is planned from the buffers' lives. */
#include "build.h"
#include <stdio.h>

#define MAX_NODE_REFS 4096 /* inputs and outputs of one node */

/* ---- aliases */

static int alias(struct build *b, const struct node *n)
{
    struct ref rows;
    int r = build_rows(b, n->in[0], &rows);

    if (r == 0)
        build_set_rows(b, n->out[0], rows);
    return r;
}

/* Does the transposition leave the order of the elements as it is? */
static void permutation(const struct node *n, uint32_t rank, uint32_t *perm)
{
    uint32_t have;
    const int64_t *p = node_ints(n, "perm", &have);

    for (uint32_t i = 0; i < rank; i++)
        perm[i] = have == rank ? (uint32_t)p[i] : rank - 1 - i;
}

static bool order_kept(const struct tensor *x, const uint32_t *perm)
{
    int64_t last = -1;

    for (uint32_t i = 0; i < x->rank; i++)
        if (x->dims[perm[i]] != 1) {
            if ((int64_t)perm[i] < last)
                return false;
            last = perm[i];
        }
    return true;
}

static bool feeds_product(const struct build *b, uint32_t v)
{
    for (uint32_t i = b->node + 1; i < b->graph->n_nodes; i++) {
        const struct node *n = &b->graph->nodes[i];
        if (n->op == OP_MatMul && ((n->in[0] == v) || (n->in[1] == v)))
            return true;
    }
    return false;
}

/* Before a product a transposition is only another way to read: strides. */
static int lower_transpose(struct build *b, const struct node *n)
{
    const struct tensor *x = build_tensor(b, n->in[0]), *y = build_tensor(b, n->out[0]);
    uint32_t perm[MAX_RANK];
    int64_t strides[MAX_RANK];
    struct layout is, view;
    struct ref rows;

    permutation(n, x->rank, perm);
    if (order_kept(x, perm))
        return alias(b, n);
    if (x->dtype != DT_FP32 || x->rank > DN_MAX_RANK || x->bytes == 0 ||
        !feeds_product(b, n->out[0]))
        return -ENOTSUP;
    int r = build_rows(b, n->in[0], &rows);
    if (r < 0 || layout_rows(&is, x->rank, x->dims) < 0)
        return r < 0 ? r : -ENOTSUP;
    for (uint32_t i = 0; i < x->rank; i++)
        strides[i] = is.strides[perm[i]];
    if (layout_strided(&view, y->rank, y->dims, strides) < 0)
        return -ENOTSUP;
    return build_set(b, n->out[0], rows, &view);
}

static bool is_alias(const struct build *b, const struct node *n)
{
    const struct tensor *x = n->n_in ? build_tensor(b, n->in[0]) : NULL;

    switch (n->op) {
    case OP_Reshape:
    case OP_Flatten:
    case OP_Squeeze:
    case OP_Unsqueeze:
    case OP_Identity:
    case OP_BitCast:
        return true;
    case OP_Dropout:
        return n->n_out < 2 || n->out[1] == VALUE_NONE;
    case OP_Cast:
        return x->dtype == build_tensor(b, n->out[0])->dtype;
    case OP_Expand:
        return x->bytes == build_tensor(b, n->out[0])->bytes;
    default:
        return false;
    }
}

/* ---- our own kernels, row-major */

int build_posts(struct build *b, const struct node *n, uint32_t from, struct ref rows)
{
    const struct tensor *y = build_tensor(b, n->out[0]);

    for (uint32_t i = from; i < n->n_post; i++) {
        const struct post *p = &n->post[i];
        struct ref refs[2] = {rows, {0}};
        struct cpu_call call;
        int r = p->kind == POST_ADD ? build_rows(b, p->value, &refs[1]) : 0;
        if (r == 0)
            r = cpu_plan_post(p, y, &b->exe->arena, &call);
        if (r == 0)
            r = build_call(b, &call, 2, refs);
        if (r < 0)
            return r == -ENOTSUP ? build_fail(b, r, "a post step is not supported") : r;
    }
    return 0;
}

static int lower_rows(struct build *b, const struct node *n)
{
    uint32_t all = n->n_in + n->n_out;
    AUTO(free) const struct tensor **t = calloc(MAX(all, 1), sizeof(*t));
    AUTO(free) struct ref *refs = calloc(MAX(all, 1), sizeof(*refs));
    struct cpu_call call;
    int r = 0;

    if (!t || !refs)
        return build_fail(b, -ENOMEM, "out of memory");
    if (all > MAX_NODE_REFS)
        return build_fail(b, -E2BIG, "over the limit of 4096 inputs and outputs");
    for (uint32_t i = 0; i < all; i++) {
        uint32_t v = i < n->n_in ? n->in[i] : n->out[i - n->n_in];
        t[i] = build_tensor(b, v);
        if (t[i] && i < n->n_in)
            r = build_rows(b, v, &refs[i]);
        if (r < 0)
            return r;
    }
    const struct cpu_args args = {.node = n, .in = t, .out = t + n->n_in, .arena = &b->exe->arena};
    r = cpu_plan(&args, &call, b->err);
    for (uint32_t i = n->n_in; i < all && r == 0; i++)
        if (t[i])
            r = build_out(b, n->out[i - n->n_in], &refs[i]);
    if (r == 0)
        r = build_call(b, &call, all, refs);
    return r < 0 || !n->n_post ? r : build_posts(b, n, 0, refs[n->n_in]);
}

static int lower(struct build *b, const struct node *n)
{
    int r = -ENOTSUP;

    b->err->code = 0;
    switch (n->op) {
    case OP_Conv:
        r = lower_conv(b, n);
        break;
    case OP_ConvTranspose:
        r = lower_deconv(b, n);
        break;
    case OP_MatMul:
    case OP_Gemm:
        r = lower_product(b, n);
        break;
    case OP_MaxPool:
    case OP_AveragePool:
    case OP_GlobalAveragePool:
    case OP_GlobalMaxPool:
        r = lower_pool(b, n);
        break;
    case OP_QLinearConv:
    case OP_QLinearMatMul:
        r = lower_bytes(b, n);
        break;
    case OP_QLinearAdd:
        r = lower_bytes_add(b, n);
        break;
    case OP_Transpose:
        r = b->value[n->in[0]].passed ? 0 : lower_transpose(b, n);
        break;
    case OP_Reshape:
        r = lower_shuffle(b, n);
        if (r == -ENOTSUP && b->err->code == 0)
            r = alias(b, n);
        break;
    case OP_Slice:
        r = lower_picked_slice(b, n);
        break;
    case OP_Concat:
        r = lower_blocked_concat(b, n);
        break;
    case OP_BatchNormalization:
        r = lower_blocked_norm(b, n);
        break;
    default:
        r = is_alias(b, n) && n->n_post == 0 ? alias(b, n) : lower_blocked(b, n);
        break;
    }
    /* Without a message: not theirs.  With one: a refusal. */
    return r == -ENOTSUP && b->err->code == 0 ? lower_rows(b, n) : r;
}

/* ---- the whole graph */

static bool known(const struct build *b, uint32_t v)
{
    return b->graph->values[v].constant || b->bound->value[v].data;
}

static void count_uses(struct build *b)
{
    const struct graph *g = b->graph;

    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        if (b->bound->skip[i])
            continue;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != VALUE_NONE)
                b->value[n->in[k]].uses++;
        for (uint32_t k = 0; k < n->n_post; k++)
            if (n->post[k].kind == POST_ADD)
                b->value[n->post[k].value].uses++;
    }
    for (uint32_t i = 0; i < g->n_out; i++)
        b->value[g->out[i]].uses++;
}

static void place_known(struct build *b)
{
    for (uint32_t v = 0; v < b->graph->n_values; v++)
        if (known(b, v)) {
            const struct constant *c = b->graph->values[v].constant;
            b->value[v].rows = ref_const(c ? c->t.data : b->bound->value[v].data);
        }
}

static size_t strings_none(const struct tensor *t)
{
    int64_t n = 0;

    (void)tensor_count(t, &n);
    return (size_t)n * sizeof(uint32_t);
}

static void port_init(const struct build *b, uint32_t v, struct port *p)
{
    const struct value *value = &b->graph->values[v];
    bool rows =
        value->rank > 0 && b->graph->batch_sym >= 0 && value->dims[0].sym == b->graph->batch_sym;

    *p = (struct port){.buf = BUF_NONE, .bytes = b->bound->value[v].bytes};
    if (b->bound->value[v].dtype == DT_STRING) /* room for empty ones: a probe's */
        p->bytes = strings_none(&b->bound->value[v]);
    p->row_bytes = rows && b->exe->batch ? p->bytes / b->exe->batch : 0;
}

static int place_inputs(struct build *b)
{
    const struct graph *g = b->graph;
    struct exe *x = b->exe;

    x->n_in = g->n_in;
    for (uint32_t i = 0; i < g->n_in; i++) {
        port_init(b, g->in[i], &x->in[i]);
        int r = build_buf(b, x->in[i].bytes, &x->in[i].buf);
        if (r < 0)
            return r;
        b->state[x->in[i].buf].frozen = true;
        x->buf[x->in[i].buf].first = 0;
        build_set_rows(b, g->in[i], ref_buf(x->in[i].buf));
    }
    return 0;
}

/* A constant, an input or another output cannot be an output's memory: copied. */
static int own_output(struct build *b, uint32_t v, struct ref *at)
{
    size_t bytes = b->bound->value[v].bytes;
    struct cpu_call call;
    uint32_t buf;

    if (at->kind == REF_BUF && !b->state[at->buf].frozen && !b->state[at->buf].output)
        return 0;
    int r = build_buf(b, bytes, &buf);
    struct ref refs[2] = {*at, ref_buf(buf)};
    if (r == 0 && cpu_plan_copy(bytes, &b->exe->arena, &call) < 0)
        r = build_fail(b, -ENOMEM, "out of memory");
    if (r == 0)
        r = build_call(b, &call, 2, refs);
    *at = refs[1];
    return r;
}

static int place_outputs(struct build *b)
{
    const struct graph *g = b->graph;
    struct exe *x = b->exe;

    x->n_out = g->n_out;
    for (uint32_t i = 0; i < g->n_out; i++) {
        struct ref at;
        port_init(b, g->out[i], &x->out[i]);
        if (b->bound->late_value[g->out[i]])
            continue;
        int r = build_rows(b, g->out[i], &at);
        if (r == 0)
            r = own_output(b, g->out[i], &at);
        if (r < 0)
            return r;
        b->state[at.buf].output = true;
        x->out[i].buf = at.buf;
    }
    return 0;
}

static bool on_bytes(enum op_id op)
{
    return op == OP_QLinearConv || op == OP_QLinearMatMul || op == OP_QLinearAdd;
}

static int lower_all(struct build *b)
{
    const struct graph *g = b->graph;
    struct exe *x = b->exe;
    uint32_t s = 0;

    x->n_segments = g->cut && g->n_segments ? g->n_segments : 1;
    x->first_step = ARENA_ARRAY(&x->arena, uint32_t, x->n_segments + 1);
    if (!x->first_step)
        return err_set(b->err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        while (s + 1 < x->n_segments && g->cut[s + 1] <= i)
            x->first_step[++s] = x->n_steps;
        b->node = i;
        if (b->bound->skip[i] || b->bound->late_node[i])
            continue;
        int r = lower(b, &g->nodes[i]);
        if (r < 0)
            return r;
        x->n_asked += b->precision == PRECISION_INT8 && on_bytes(g->nodes[i].op);
        build_node_done(b);
    }
    while (s + 1 < x->n_segments)
        x->first_step[++s] = x->n_steps;
    int r = b->bound->n_late || x->late_outputs ? lower_late(b) : 0;
    if (r == 0)
        r = place_outputs(b);
    x->first_step[x->n_segments] = x->n_steps;
    return r;
}

static int plan_arena(struct build *b)
{
    struct exe *x = b->exe;
    uint32_t last = x->n_steps ? x->n_steps - 1 : 0;

    for (uint32_t i = 0; i < x->n_out; i++)
        if (x->out[i].buf != BUF_NONE)
            x->buf[x->out[i].buf].last = last;
    for (uint32_t i = 0; i < x->n_bufs; i++)
        if (x->buf[i].first == UINT32_MAX) /* nobody touches it */
            x->buf[i].first = x->buf[i].last = 0;
    x->slot_bytes = memory_plan(x->buf, x->n_bufs, &b->scratch);
    struct buffer *keep = arena_memdup(&x->arena, x->buf, x->n_bufs * sizeof(*keep));
    if (!keep)
        return err_set(b->err, -ENOMEM, "out of memory");
    x->buf = keep;
    return 0;
}

static int build_all(struct build *b)
{
    const struct graph *g = b->graph;

    b->value = ARENA_ARRAY(&b->scratch, struct where, g->n_values);
    if (!b->value)
        return err_set(b->err, -ENOMEM, "out of memory");
    b->exe->batch = g->batch_sym >= 0 ? (uint32_t)b->bound->key.dim[g->batch_sym] : 1;
    for (uint32_t i = 0; i < g->n_out; i++)
        b->exe->late_outputs |= b->bound->late_value[g->out[i]];
    count_uses(b);
    place_known(b);
    int r = place_inputs(b);
    if (r == 0)
        r = lower_all(b);
    return r < 0 ? r : plan_arena(b);
}

/* Whatever was read while the model was opened comes back as it is needed: of an embedding, the
 * rows that are asked for. */
static void drop_constants(const struct graph *g)
{
    for (uint32_t v = 0; v < g->n_values; v++)
        if (g->values[v].constant)
            constant_drop(g->values[v].constant);
}

void cpu_release(struct exe *x)
{
    if (!x)
        return;
    for (uint32_t i = 0; i < x->n_steps; i++)
        if (x->step[i].is_prim)
            prim_done(&x->step[i].prim);
    for (uint32_t i = 0; i < x->n_weights; i++)
        weights_put(x->part->dev, x->weights[i]);
    cpu_release(x->group);
    arena_done(&x->arena);
    free(x);
}
DEFINE_AUTO(struct exe, cpu_release)

static struct exe *exe_new(struct part *p, unsigned n_threads)
{
    struct exe *x = calloc(1, sizeof(*x));

    if (x) {
        x->part = p;
        x->n_threads = n_threads;
        arena_init(&x->arena);
    }
    return x;
}

int cpu_compile(struct part *p, const struct compile_args *args, struct exe **ret, struct err *err)
{
    uint32_t rows = groups_rows(args, p->n_threads);

    if (args->precision == PRECISION_FP16)
        return err_set(err, -ENOTSUP, "precision 'fp16': the cpu backend has fp32, bf16 and int8");
    if (args->precision == PRECISION_BF16 && !p->dev->dn.bf16)
        return err_set(err, -ENOTSUP,
                       "precision 'bf16': this CPU has neither AVX512_BF16 nor AMX_BF16");
    if (!rows)
        return compile_for(p, args, p->n_threads, ret, err);
    AUTO(cpu_release) struct exe *x = exe_new(p, p->n_threads);
    if (!x)
        return err_set(err, -ENOMEM, "out of memory");
    int r = groups_compile(x, args, rows, err);
    if (r == 0)
        *ret = TAKE(x);
    return r;
}

int compile_for(struct part *p, const struct compile_args *args, unsigned n_threads,
                struct exe **ret, struct err *err)
{
    struct err none;
    AUTO(cpu_release) struct exe *x = exe_new(p, n_threads);
    struct build b = {.part = p,
                      .model = args->model,
                      .precision = args->precision,
                      .bound = args->bound,
                      .graph = args->bound->graph,
                      .exe = x,
                      .err = err ? err : &none};

    if (!x)
        return err_set(err, -ENOMEM, "out of memory");
    arena_init(&b.scratch);
    dn_threads(n_threads); /* primitives are made for this many */
    int r = build_all(&b);
    arena_done(&b.scratch);
    if (r < 0)
        return r;
    drop_constants(b.graph);
    *ret = TAKE(x);
    return 0;
}

void cpu_exe_info(const struct exe *x, struct exe_info *ret)
{
    uint32_t n_plain = 0;

    if (x->group) {
        cpu_exe_info(x->group, ret);
        ret->n_segments = x->n_segments;
        ret->slot_bytes = x->slot_bytes;
        return;
    }
    for (uint32_t i = 0; i < x->n_steps; i++)
        n_plain += !x->step[i].is_prim && x->step[i].call.plain;
    *ret = (struct exe_info){.n_segments = x->n_segments,
                             .slot_bytes = x->slot_bytes,
                             .weights_bytes = x->weights_bytes,
                             .n_steps = x->n_steps,
                             .n_plain = n_plain,
                             .n_asked = x->n_asked,
                             .n_reorders = x->n_reorders,
                             .late_outputs = x->late_outputs};
}
