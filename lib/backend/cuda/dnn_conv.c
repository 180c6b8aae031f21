/* Convolutions by cuDNN, with what the passes have fused into them. */
#include "dnn.h"

#if HAS_CUDNN
struct dnn_call {
    struct call call; /* first */
    struct dnn_plan plan;
};

static cudnnDataType_t type_of(enum dtype t)
{
    return t == DT_FP16 ? CUDNN_DATA_HALF : t == DT_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/* Missing dimensions of a window come first; the library wants two or three. */
static void shape_of(const struct conv_args *a, enum dtype type, struct dnn_conv_shape *ret)
{
    const struct gpu_window *w = &a->window;
    bool flat = w->in[0] == 1 && w->out[0] == 1 && w->kernel[0] == 1 && w->pad[0] == 0 &&
                w->pad_end[0] == 0;
    uint32_t n = flat ? 2 : 3, from = 3 - n;
    int64_t each = a->filters * w->out[0] * w->out[1] * w->out[2];

    *ret = (struct dnn_conv_shape){.type = type_of(type),
                                   .spatial = n,
                                   .batch = a->n / each,
                                   .channels = a->channels,
                                   .filters = a->filters,
                                   .groups = a->groups};
    for (uint32_t i = 0; i < n; i++) {
        ret->in[i] = w->in[from + i];
        ret->out[i] = w->out[from + i];
        ret->kernel[i] = w->kernel[from + i];
        ret->stride[i] = w->stride[from + i];
        ret->dilation[i] = w->dilation[from + i];
        ret->pad[i] = w->pad[from + i];
        ret->pad_end[i] = w->pad_end[from + i];
    }
}

/* ---- the call */
static void dnn_free(struct call *call)
{
    struct dnn_call *c = (struct dnn_call *)call;

    dnn_plan_done(&c->plan);
    free(c);
}

static void dnn_free_auto(struct dnn_call **c)
{
    if (*c)
        dnn_free(&(*c)->call);
}

static int pack_fill(cudnnBackendDescriptor_t pack, const struct dnn_args *x, struct err *err)
{
    int64_t uid[UID_VIRTUAL] = {UID_X, UID_W, UID_Y}, n = 3;
    const void *at[UID_VIRTUAL] = {x->x, x->w, x->y};

    if (x->bias) {
        uid[n] = UID_BIAS;
        at[n++] = x->bias;
    }
    if (x->add) {
        uid[n] = UID_ADD;
        at[n++] = x->add;
    }
    int r = DNN(set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, uid), err);
    if (r == 0)
        r = DNN(set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, at), err);
    if (r == 0)
        r = DNN(set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &x->workspace),
                err);
    return r < 0 ? r : DNN(finalize(pack), err);
}

int dnn_pack(const struct dnn_args *x, cudnnBackendDescriptor_t *ret, struct err *err)
{
    cudnnBackendDescriptor_t pack = NULL;
    int r = DNN(desc_create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack), err);

    if (r == 0)
        r = pack_fill(pack, x, err);
    if (r < 0 && pack)
        (void)dnn.desc_destroy(pack);
    if (r == 0)
        *ret = pack;
    return r;
}

static int dnn_open(const struct call *call, const void *args, void **ret_state, struct err *err)
{
    (void)call;
    return dnn_pack(args, ret_state, err);
}

static void dnn_close(void *state)
{
    (void)dnn.desc_destroy(state);
}

static int dnn_run(const struct call *call, struct part *p, CUstream stream, const void *args,
                   void *state, struct err *err)
{
    const struct dnn_call *c = (const struct dnn_call *)call;

    (void)args;
    return DNN(execute(dnn_on(p, stream), c->plan.plan, state), err);
}

/* ---- lowering */
static int emit(struct build *b, struct dnn_call *c, const struct conv_refs *refs, bool has_bias,
                struct ref add)
{
    struct dnn_args args = {0};
    struct ref workspace = {0}, bias = refs->bias;
    size_t filters = (size_t)value_of(b, b->graph->nodes[b->node].out[0])->dims[1];
    int r = 0;

    if (has_bias && bias.kind == REF_NONE)
        r = build_zeros(b, filters * dtype_size(refs->type), &bias);
    if (r == 0 && c->plan.workspace)
        r = build_buf(b, c->plan.workspace, &workspace);
    return r < 0 ? r
                 : CALL_STEP(b, &c->call, args, HOLE(dnn, x, refs->x), HOLE(dnn, w, refs->w),
                             HOLE(dnn, bias, bias), HOLE(dnn, add, add), HOLE(dnn, y, refs->y),
                             HOLE(dnn, workspace, workspace));
}

/* One attempt: with the first n_fused post steps. */
static int attempt(struct build *b, const struct node *n, struct dnn_conv_shape s, uint32_t n_fused,
                   const struct conv_refs *refs, bool *ret_taken)
{
    AUTO(dnn_free) struct dnn_call *c = calloc(1, sizeof(*c));
    struct ref add = {0};
    int r = 0;

    if (!c)
        return err_set(b->err, -ENOMEM, "out of memory");
    for (uint32_t i = 0; i < n_fused && r == 0; i++) {
        s.add |= n->post[i].kind == POST_ADD;
        s.relu |= n->post[i].kind == POST_RELU;
        if (n->post[i].kind == POST_ADD)
            r = build_as(b, n->post[i].value, refs->type, refs->type != DT_FP32, &add);
    }
    if (r < 0)
        return r;
    s.bias = refs->bias.kind != REF_NONE || n_fused > 0; /* the chain without one is another's */
    c->call = (struct call){.node = n,
                            .by_line = true,
                            .open = dnn_open,
                            .close = dnn_close,
                            .run = dnn_run,
                            .free = dnn_free};
    r = dnn_plan_choose(b, &s, &c->plan, ret_taken);
    if (r < 0)
        return build_wrap(b);
    if (!*ret_taken)
        return 0;
    b->n_fused = n_fused;
    r = emit(b, c, refs, s.bias, add);
    if (r == 0)
        (void)TAKE(c); /* the exe's */
    return r;
}

/* Of the post steps: a residual, then Relu. */
static uint32_t fusible(const struct node *n)
{
    uint32_t i = 0;

    if (i < n->n_post && n->post[i].kind == POST_ADD)
        i++;
    if (i < n->n_post && n->post[i].kind == POST_RELU)
        i++;
    return i;
}

int dnn_conv(struct build *b, const struct node *n, const struct conv_args *a,
             const struct conv_refs *refs, bool *ret_taken)
{
    struct dnn_conv_shape s;
    uint32_t n_fused = fusible(n);

    *ret_taken = false;
    if (!b->part->dnn || b->batch_invariant || a->n == 0)
        return 0;
    shape_of(a, refs->type, &s);
    int r = attempt(b, n, s, n_fused, refs, ret_taken);
    return r < 0 || *ret_taken || n_fused == 0 ? r : attempt(b, n, s, 0, refs, ret_taken);
}
#endif
