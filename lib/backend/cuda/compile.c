/* A bound graph becomes steps, node by node; an operator that has no row is refused by its name. */
#include "choice.h"
#include "slot.h"
#include <stdio.h>

static lower_fn *const table[OP_END] = {
    [OP_Abs] = lower_unary,
    [OP_Acos] = lower_unary,
    [OP_Acosh] = lower_unary,
    [OP_Add] = lower_binary,
    [OP_And] = lower_binary,
    [OP_ArgMax] = lower_arg,
    [OP_ArgMin] = lower_arg,
    [OP_Asin] = lower_unary,
    [OP_Asinh] = lower_unary,
    [OP_Atan] = lower_unary,
    [OP_Atanh] = lower_unary,
    [OP_Attention] = lower_attention,
    [OP_AveragePool] = lower_pool,
    [OP_BatchNormalization] = lower_batch_norm,
    [OP_BitCast] = lower_alias,
    [OP_BitShift] = lower_bits,
    [OP_BitwiseAnd] = lower_bits,
    [OP_BitwiseNot] = lower_bits,
    [OP_BitwiseOr] = lower_bits,
    [OP_BitwiseXor] = lower_bits,
    [OP_Cast] = lower_cast,
    [OP_CastLike] = lower_cast,
    [OP_Ceil] = lower_unary,
    [OP_Celu] = lower_unary,
    [OP_Clip] = lower_clip,
    [OP_Concat] = lower_concat,
    [OP_ConstantOfShape] = lower_fill,
    [OP_Conv] = lower_conv,
    [OP_ConvInteger] = lower_conv_bytes,
    [OP_ConvTranspose] = lower_deconv,
    [OP_Cos] = lower_unary,
    [OP_Cosh] = lower_unary,
    [OP_CumProd] = lower_cumulate,
    [OP_CumSum] = lower_cumulate,
    [OP_DepthToSpace] = lower_shuffle,
    [OP_DequantizeLinear] = lower_quantize,
    [OP_Div] = lower_binary,
    [OP_Dropout] = lower_alias,
    [OP_DynamicQuantizeLinear] = lower_dynamic_quantize,
    [OP_Einsum] = lower_einsum,
    [OP_Elu] = lower_unary,
    [OP_Equal] = lower_binary,
    [OP_Erf] = lower_unary,
    [OP_Exp] = lower_unary,
    [OP_Expand] = lower_expand,
    [OP_EyeLike] = lower_eye,
    [OP_Flatten] = lower_alias,
    [OP_Floor] = lower_unary,
    [OP_Gather] = lower_gather,
    [OP_GatherElements] = lower_gather_elements,
    [OP_GatherND] = lower_gather_nd,
    [OP_Gelu] = lower_unary,
    [OP_Gemm] = lower_gemm,
    [OP_GlobalAveragePool] = lower_global_pool,
    [OP_GlobalMaxPool] = lower_global_pool,
    [OP_Greater] = lower_binary,
    [OP_GreaterOrEqual] = lower_binary,
    [OP_GridSample] = lower_grid_sample,
    [OP_GroupNormalization] = lower_group_norm,
    [OP_GRU] = lower_rnn,
    [OP_Hardmax] = lower_hardmax,
    [OP_HardSigmoid] = lower_unary,
    [OP_HardSwish] = lower_unary,
    [OP_Identity] = lower_alias,
    [OP_InstanceNormalization] = lower_instance_norm,
    [OP_IsInf] = lower_classify,
    [OP_IsNaN] = lower_classify,
    [OP_LayerNormalization] = lower_layer_norm,
    [OP_LeakyRelu] = lower_unary,
    [OP_Less] = lower_binary,
    [OP_LessOrEqual] = lower_binary,
    [OP_Log] = lower_unary,
    [OP_LogSoftmax] = lower_softmax,
    [OP_LpNormalization] = lower_lp_norm,
    [OP_LRN] = lower_lrn,
    [OP_LSTM] = lower_rnn,
    [OP_MatMul] = lower_matmul,
    [OP_MatMulInteger] = lower_product_bytes,
    [OP_Max] = lower_many,
    [OP_MaxPool] = lower_pool,
    [OP_Mean] = lower_many,
    [OP_MeanVarianceNormalization] = lower_mvn,
    [OP_Min] = lower_many,
    [OP_Mish] = lower_unary,
    [OP_Mod] = lower_binary,
    [OP_Mul] = lower_binary,
    [OP_Neg] = lower_unary,
    [OP_Not] = lower_unary,
    [OP_OneHot] = lower_one_hot,
    [OP_Or] = lower_binary,
    [OP_Pad] = lower_pad,
    [OP_Pow] = lower_binary,
    [OP_PRelu] = lower_binary,
    [OP_QLinearAdd] = lower_add_bytes,
    [OP_QLinearConv] = lower_conv_bytes,
    [OP_QLinearMatMul] = lower_product_bytes,
    [OP_QuantizeLinear] = lower_quantize,
    [OP_Reciprocal] = lower_unary,
    [OP_ReduceL1] = lower_reduce,
    [OP_ReduceL2] = lower_reduce,
    [OP_ReduceLogSum] = lower_reduce,
    [OP_ReduceLogSumExp] = lower_reduce,
    [OP_ReduceMax] = lower_reduce,
    [OP_ReduceMean] = lower_reduce,
    [OP_ReduceMin] = lower_reduce,
    [OP_ReduceProd] = lower_reduce,
    [OP_ReduceSum] = lower_reduce,
    [OP_ReduceSumSquare] = lower_reduce,
    [OP_Relu] = lower_unary,
    [OP_Reshape] = lower_alias,
    [OP_Resize] = lower_resize,
    [OP_ReverseSequence] = lower_reverse_sequence,
    [OP_RMSNormalization] = lower_layer_norm,
    [OP_RNN] = lower_rnn,
    [OP_RoiAlign] = lower_roi_align,
    [OP_RotaryEmbedding] = lower_rotary,
    [OP_Round] = lower_unary,
    [OP_Scatter] = lower_scatter_elements,
    [OP_ScatterElements] = lower_scatter_elements,
    [OP_ScatterND] = lower_scatter_nd,
    [OP_Selu] = lower_unary,
    [OP_Shrink] = lower_unary,
    [OP_Sigmoid] = lower_unary,
    [OP_Sign] = lower_unary,
    [OP_Sin] = lower_unary,
    [OP_Sinh] = lower_unary,
    [OP_Slice] = lower_slice,
    [OP_Softmax] = lower_softmax,
    [OP_Softplus] = lower_unary,
    [OP_Softsign] = lower_unary,
    [OP_SpaceToDepth] = lower_shuffle,
    [OP_Split] = lower_split,
    [OP_Sqrt] = lower_unary,
    [OP_Squeeze] = lower_alias,
    [OP_Sub] = lower_binary,
    [OP_Sum] = lower_many,
    [OP_Swish] = lower_unary,
    [OP_Tan] = lower_unary,
    [OP_Tanh] = lower_unary,
    [OP_TensorScatter] = lower_tensor_scatter,
    [OP_ThresholdedRelu] = lower_unary,
    [OP_Tile] = lower_tile,
    [OP_TopK] = lower_top_k,
    [OP_Transpose] = lower_transpose,
    [OP_Trilu] = lower_trilu,
    [OP_Unsqueeze] = lower_alias,
    [OP_Upsample] = lower_resize,
    [OP_Where] = lower_where,
    [OP_Xor] = lower_binary,
};

static int lower(struct build *b, const struct node *n)
{
    if (!table[n->op])
        return build_fail(b, -ENOTSUP, "not in the cuda backend yet");
    if (b->fused[b->node].pixels)
        return lower_pixels(b, n);
    b->n_fused = 0;
    half_begin(b, n);
    int r = table[n->op](b, n);
    return r < 0 || table[n->op] == lower_alias ? r : lower_posts(b, n);
}

/* What is not dense numbers. */
static int refuse_bytes(struct build *b)
{
    const struct graph *g = b->graph;

    for (uint32_t i = 0; i < g->n_in + g->n_out; i++) {
        uint32_t v = i < g->n_in ? g->in[i] : g->out[i - g->n_in];
        if (g->values[v].dtype == DT_STRING || b->bound->value[v].dtype == DT_STRING)
            return err_set(b->err, -ENOTSUP, "tensor '%s': BYTES are not in the cuda backend yet",
                           g->values[v].name);
    }
    return 0;
}

static void port_init(const struct build *b, uint32_t v, struct port *p)
{
    const struct value *value = &b->graph->values[v];
    bool rows =
        value->rank > 0 && b->graph->batch_sym >= 0 && value->dims[0].sym == b->graph->batch_sym;

    p->bytes = b->bound->value[v].bytes;
    p->row_bytes = rows && b->exe->batch ? p->bytes / b->exe->batch : 0;
}

static int place_inputs(struct build *b)
{
    const struct graph *g = b->graph;
    struct exe *x = b->exe;
    int r = 0;

    x->n_in = g->n_in;
    for (uint32_t i = 0; i < g->n_in && r == 0; i++) {
        port_init(b, g->in[i], &x->in[i]);
        r = build_out(b, g->in[i], &x->in[i].ref);
    }
    return r;
}

/* Outputs are copied from wherever they are, if that is another's place or a constant's, too. */
static int place_outputs(struct build *b)
{
    const struct graph *g = b->graph;
    struct exe *x = b->exe;
    int r = 0;

    x->n_out = g->n_out;
    for (uint32_t i = 0; i < g->n_out && r == 0; i++) {
        port_init(b, g->out[i], &x->out[i]);
        if (is_late_output(x, i))
            continue;
        r = build_in(b, g->out[i], &x->out[i].ref);
        if (r == 0 && x->out[i].ref.kind == REF_BUF)
            x->buf[x->out[i].ref.buf].last = UINT32_MAX;
    }
    return r;
}

/* The host has them behind the late part's, if there is one. */
static void stage_outputs(struct exe *x)
{
    for (uint32_t i = 0; i < x->n_out && x->late.bound; i++)
        if (!is_late_output(x, i)) {
            x->out[i].staged = x->staged_bytes;
            x->staged_bytes += align_up(x->out[i].bytes, 64);
        }
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
        bool none = b->bound->skip[i] || b->bound->late_node[i] || b->fused[i].gone;
        int r = none ? 0 : lower(b, &g->nodes[i]);
        if (r == 0)
            r = part_yield(b->part, b->err);
        if (r < 0)
            return r;
    }
    int r = lower_late(b); /* what is not FP32 yet becomes it in the last segment */
    if (r == 0)
        r = place_outputs(b);
    stage_outputs(x);
    while (s < x->n_segments)
        x->first_step[++s] = x->n_steps;
    return r;
}

static int build_all(struct build *b)
{
    struct exe *x = b->exe;
    struct ref status;
    int r = refuse_bytes(b);

    if (r == 0)
        r = late_check(b);

    b->at = ARENA_ARRAY(&b->scratch, struct ref, b->graph->n_values);
    for (unsigned i = 0; i < ARRAY_SIZE(b->half); i++)
        b->half[i] = ARENA_ARRAY(&b->scratch, struct ref, b->graph->n_values);
    b->fits = ARENA_ARRAY(&b->scratch, enum fit, b->graph->n_values);
    if (r == 0 && (!b->at || !b->half[0] || !b->half[1] || !b->fits))
        r = err_set(b->err, -ENOMEM, "out of memory");
    x->batch = b->graph->batch_sym >= 0 ? (uint32_t)b->bound->key.dim[b->graph->batch_sym] : 1;
    if (r == 0)
        r = build_buf(b, STATUS_BYTES, &status);
    if (r == 0)
        r = place_inputs(b);
    if (r == 0)
        r = half_plan(b);
    if (r == 0)
        r = fuse_plan(b);
    if (r == 0)
        r = lower_all(b);
    if (r < 0)
        return r;
    x->buf[BUF_STATUS].last = UINT32_MAX; /* of the whole run */
    x->slot_bytes = memory_plan(x->buf, x->n_bufs, &b->scratch);
    return 0;
}

void gpu_release(struct exe *x)
{
    if (!x)
        return;
    struct err err;
    bool in = part_begin(x->part, &err) == 0;
    for (uint32_t i = 0; i < x->n_steps; i++)
        if (x->step[i].call)
            x->step[i].call->free(x->step[i].call);
    if (in)
        part_end(x->part);
    for (uint32_t i = 0; i < x->n_weights; i++)
        weights_out(x->part, x->weights[i]);
    arena_done(&x->arena);
    free(x);
}
DEFINE_AUTO(struct exe, gpu_release)

int gpu_compile(struct part *p, const struct compile_args *args, struct exe **ret, struct err *err)
{
    int r = half_check(p, args, err);

    if (r < 0)
        return r;
    AUTO(gpu_release) struct exe *x = calloc(1, sizeof(*x));
    struct err why;
    struct build b = {.bound = args->bound,
                      .graph = args->bound->graph,
                      .exe = x,
                      .err = err,
                      .precision = args->precision,
                      .batch_invariant = args->batch_invariant};
    if (!x)
        return err_set(err, -ENOMEM, "out of memory");
    x->part = p;
    if (part_workshop(p, &b.part, &why) < 0)
        (void)snprintf(x->held_up, sizeof(x->held_up), "runs waited while it was compiled: %.110s",
                       why.msg);
    arena_init(&x->arena);
    arena_init(&b.scratch);
    r = part_begin(b.part, err);
    if (r == 0) {
        r = build_all(&b);
        contest_done(&b);
        part_end(b.part);
        choices_save(p->dev->choices); /* of one that failed, too */
    }
    arena_done(&b.scratch);
    if (r < 0)
        return r;
    *ret = TAKE(x);
    return 0;
}

void gpu_exe_info(const struct exe *x, struct exe_info *ret)
{
    *ret = (struct exe_info){.n_segments = x->n_segments,
                             .slot_bytes = x->slot_bytes + graphs_bytes(x),
                             .weights_bytes = x->weights_bytes,
                             .n_steps = x->n_steps,
                             .n_reorders = x->n_reorders,
                             .n_asked = x->n_asked,
                             .n_plain = x->n_plain,
                             .late_outputs = x->late.bound != NULL,
                             .unraced = x->unraced,
                             .inputs_us = inputs_us(x)};
    if (x->note[0] && x->held_up[0])
        (void)snprintf(ret->note, sizeof(ret->note), "%.78s; %.78s", x->note, x->held_up);
    else
        (void)snprintf(ret->note, sizeof(ret->note), "%s", x->note[0] ? x->note : x->held_up);
}
