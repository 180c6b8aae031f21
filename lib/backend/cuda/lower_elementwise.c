/* One number in, one out. */
#include "exe.h"
#include <float.h>

static const struct unary_row {
    enum op_id op;
    enum gpu_unary gpu;
    float alpha, beta; /* where the attributes are absent */
    bool ints;         /* of INT32 and INT64 too */
} unaries[] = {
    {OP_Abs, GPU_U_abs, 0, 0, true},
    {OP_Neg, GPU_U_neg, 0, 0, true},
    {OP_Ceil, GPU_U_ceil, 0, 0, false},
    {OP_Floor, GPU_U_floor, 0, 0, false},
    {OP_Round, GPU_U_round, 0, 0, false},
    {OP_Sqrt, GPU_U_sqrt, 0, 0, false},
    {OP_Exp, GPU_U_exp, 0, 0, false},
    {OP_Log, GPU_U_log, 0, 0, false},
    {OP_Sin, GPU_U_sin, 0, 0, false},
    {OP_Cos, GPU_U_cos, 0, 0, false},
    {OP_Tanh, GPU_U_tanh, 0, 0, false},
    {OP_Erf, GPU_U_erf, 0, 0, false},
    {OP_Sigmoid, GPU_U_sigmoid, 0, 0, false},
    {OP_Relu, GPU_U_relu, 0, 0, true},
    {OP_LeakyRelu, GPU_U_leaky_relu, 0.01f, 0, false},
    {OP_Elu, GPU_U_elu, 1, 0, false},
    {OP_HardSigmoid, GPU_U_hard_sigmoid, 0.2f, 0.5f, false},
    {OP_HardSwish, GPU_U_hard_swish, 0, 0, false},
    {OP_Softplus, GPU_U_softplus, 0, 0, false},
    {OP_Reciprocal, GPU_U_reciprocal, 0, 0, false},
    {OP_Sign, GPU_U_sign, 0, 0, true},
    {OP_Gelu, GPU_U_gelu, 0, 0, false},
    {OP_Not, GPU_U_not, 0, 0, false},
    {OP_Selu, GPU_U_selu, 1.67326319f, 1.05070102f, false},
    {OP_Celu, GPU_U_celu, 1, 0, false},
    {OP_Softsign, GPU_U_softsign, 0, 0, false},
    {OP_Mish, GPU_U_mish, 0, 0, false},
    {OP_ThresholdedRelu, GPU_U_thresholded, 1, 0, false},
    {OP_Shrink, GPU_U_shrink, 0, 0.5f, false},
    {OP_Swish, GPU_U_swish, 1, 0, false},
    {OP_Tan, GPU_U_tan, 0, 0, false},
    {OP_Sinh, GPU_U_sinh, 0, 0, false},
    {OP_Cosh, GPU_U_cosh, 0, 0, false},
    {OP_Asin, GPU_U_asin, 0, 0, false},
    {OP_Acos, GPU_U_acos, 0, 0, false},
    {OP_Atan, GPU_U_atan, 0, 0, false},
    {OP_Asinh, GPU_U_asinh, 0, 0, false},
    {OP_Acosh, GPU_U_acosh, 0, 0, false},
    {OP_Atanh, GPU_U_atanh, 0, 0, false},
};

static bool unary_has(const struct unary_row *row, enum dtype t)
{
    if (row->op == OP_Not)
        return t == DT_BOOL;
    return t == DT_FP32 || (row->ints && (t == DT_INT32 || t == DT_INT64));
}

/* What its second number is called. */
static const char *second_name(enum op_id op)
{
    return op == OP_Selu ? "gamma" : op == OP_Shrink ? "lambd" : "beta";
}

static int unary_step(struct build *b, struct unary_args a, struct ref x, struct ref y)
{
    return STEP(b, unary, a, HOLE(unary, x, x), HOLE(unary, y, y));
}

int lower_unary(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    const struct unary_row *row = unaries;
    struct ref rx, ry;

    while (row->op != n->op)
        row++;
    if (!unary_has(row, x->dtype))
        return build_no_type(b, x->dtype);
    struct unary_args a = {.n = count_of(x),
                           .op = row->gpu,
                           .type = (int32_t)data_type(b, x),
                           .alpha =
                               node_float(n, n->op == OP_Shrink ? "bias" : "alpha", row->alpha),
                           .beta = node_float(n, second_name(n->op), row->beta)};
    if (n->op == OP_Selu && n->opset < 6) { /* rounded in the operator's first version */
        a.alpha = node_float(n, "alpha", 1.6732f);
        a.beta = node_float(n, "gamma", 1.0507f);
    }
    if (n->op == OP_Gelu && STREQ(node_str(n, "approximate", "none"), "tanh"))
        a.op = GPU_U_gelu_tanh;
    int r = data_in(b, n->in[0], &rx);
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    return r < 0 ? r : unary_step(b, a, rx, ry);
}

/* A bound that is absent, or known before the run. */
static int clip_bound(struct build *b, const struct node *n, uint32_t i, const char *attr,
                      float absent, float *ret)
{
    const struct tensor *t = in_of(b, n, i);

    *ret = n->opset < 11 ? node_float(n, attr, absent) : absent;
    if (!t || n->opset < 11)
        return 0;
    if (!t->data)
        return build_fail(b, -ENOTSUP, "a bound that is computed while the model runs");
    memcpy(ret, t->data, sizeof(*ret));
    return 0;
}

int lower_clip(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0);
    struct unary_args a = {.n = count_of(x), .op = GPU_U_clip, .type = (int32_t)data_type(b, x)};
    struct ref rx, ry;

    if (!is_f32(x))
        return build_no_type(b, x->dtype);
    int r = clip_bound(b, n, 1, "min", -FLT_MAX, &a.alpha);
    if (r == 0)
        r = clip_bound(b, n, 2, "max", FLT_MAX, &a.beta);
    if (r == 0)
        r = data_in(b, n->in[0], &rx);
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    return r < 0 ? r : unary_step(b, a, rx, ry);
}

/* ---- two operands */
static const struct binary_row {
    enum op_id op;
    enum gpu_binary gpu;
} binaries[] = {
    {OP_Add, GPU_B_add},         {OP_Sub, GPU_B_sub},
    {OP_Mul, GPU_B_mul},         {OP_Div, GPU_B_div},
    {OP_Pow, GPU_B_pow},         {OP_Min, GPU_B_min},
    {OP_Max, GPU_B_max},         {OP_Sum, GPU_B_add},
    {OP_Mean, GPU_B_add},        {OP_PRelu, GPU_B_prelu},
    {OP_Mod, GPU_B_mod},         {OP_Equal, GPU_B_equal},
    {OP_Less, GPU_B_less},       {OP_LessOrEqual, GPU_B_less_equal},
    {OP_Greater, GPU_B_greater}, {OP_GreaterOrEqual, GPU_B_greater_equal},
    {OP_And, GPU_B_and},         {OP_Or, GPU_B_or},
    {OP_Xor, GPU_B_xor},
};

static bool binary_has(int32_t op, enum dtype t)
{
    if (op == GPU_B_and || op == GPU_B_or || op == GPU_B_xor)
        return t == DT_BOOL;
    return t == DT_FP32 || t == DT_INT32 || t == DT_INT64 || (op == GPU_B_equal && t == DT_BOOL);
}

static int32_t binary_op(const struct node *n)
{
    const struct binary_row *row = binaries;

    while (row->op != n->op)
        row++;
    return n->op == OP_Mod && node_int(n, "fmod", 0) ? GPU_B_fmod : row->gpu;
}

static int binary_step(struct build *b, int32_t op, const struct tensor *ta, struct ref ra,
                       const struct tensor *tb, struct ref rb, const struct tensor *ty,
                       struct ref ry)
{
    struct binary_args a = {.n = count_of(ty), .op = op, .type = (int32_t)data_type(b, ta)};
    int64_t stride[2][MAX_RANK];

    if (ta->dtype != tb->dtype)
        return build_fail(b, -ENOTSUP, "operands of two types are not in the cuda backend yet");
    if (!binary_has(op, ta->dtype))
        return build_no_type(b, ta->dtype);
    data_broadcast(b, ta, ty, stride[0]);
    data_broadcast(b, tb, ty, stride[1]);
    data_walk(b, &a.walk, ty->rank, ty->dims, 2, stride);
    return STEP(b, binary, a, HOLE(binary, a, ra), HOLE(binary, b, rb), HOLE(binary, y, ry));
}

int lower_binary(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    struct tensor second = node_second(n, x, in_of(b, n, 1));
    struct ref ra, rb, ry;
    int r = data_in(b, n->in[0], &ra);

    if (r == 0)
        r = data_in(b, n->in[1], &rb);
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    return r < 0 ? r : binary_step(b, binary_op(n), x, ra, &second, rb, y, ry);
}

/* Any number of operands, the results so far in place. */
int lower_many(struct build *b, const struct node *n)
{
    const struct tensor *y = value_of(b, n->out[0]), *acc = in_of(b, n, 0);
    struct ref ry, ra, rb;

    if (n->n_in == 1)
        return lower_alias(b, n);
    int r = data_in(b, n->in[0], &ra);
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    for (uint32_t i = 1; i < n->n_in && r == 0; i++) {
        r = data_in(b, n->in[i], &rb);
        if (r == 0)
            r = binary_step(b, binary_op(n), acc, ra, in_of(b, n, i), rb, y, ry);
        acc = y;
        ra = ry;
    }
    if (r < 0 || n->op != OP_Mean)
        return r;
    if (!is_f32(y))
        return build_no_type(b, y->dtype);
    return unary_step(b,
                      (struct unary_args){.n = count_of(y),
                                          .op = GPU_U_scale,
                                          .type = (int32_t)data_type(b, y),
                                          .alpha = 1 / (float)n->n_in},
                      ry, ry);
}

/* ---- where, cast */
int lower_where(struct build *b, const struct node *n)
{
    const struct tensor *y = value_of(b, n->out[0]);
    struct where_args a = {.n = count_of(y), .size = (int32_t)dtype_size(data_type(b, y))};
    int64_t stride[3][MAX_RANK];
    struct ref ref[3], ry;
    int r = a.size ? 0 : build_no_type(b, y->dtype);

    for (uint32_t i = 0; i < 3 && r == 0; i++) {
        data_broadcast(b, in_of(b, n, i), y, stride[i]);
        r = data_in(b, n->in[i], &ref[i]);
    }
    if (r == 0)
        r = data_out(b, n->out[0], &ry);
    if (r < 0)
        return r;
    data_walk(b, &a.walk, y->rank, y->dims, 3, stride);
    return STEP(b, where, a, HOLE(where, c, ref[0]), HOLE(where, a, ref[1]), HOLE(where, b, ref[2]),
                HOLE(where, y, ry));
}

static bool cast_has(enum dtype t)
{
    return t == DT_FP32 || t == DT_UINT8 || t == DT_INT8 || t == DT_INT32 || t == DT_INT64 ||
           t == DT_BOOL;
}

int lower_cast(struct build *b, const struct node *n)
{
    const struct tensor *x = in_of(b, n, 0), *y = value_of(b, n->out[0]);
    struct cast_args a = {.n = count_of(x), .from = (int32_t)x->dtype, .to = (int32_t)y->dtype};
    struct ref rx, ry;

    if (x->dtype == y->dtype)
        return lower_alias(b, n);
    if (!cast_has(x->dtype) || !cast_has(y->dtype))
        return build_no_type(b, cast_has(x->dtype) ? y->dtype : x->dtype);
    int r = build_in(b, n->in[0], &rx);
    if (r == 0)
        r = build_out(b, n->out[0], &ry);
    return r < 0 ? r : STEP(b, cast, a, HOLE(cast, x, rx), HOLE(cast, y, ry));
}

/* ---- post steps */
static const enum gpu_unary posts[] = {
    [POST_RELU] = GPU_U_relu,       [POST_CLIP] = GPU_U_clip,
    [POST_GELU] = GPU_U_gelu,       [POST_TANH] = GPU_U_tanh,
    [POST_SIGMOID] = GPU_U_sigmoid, [POST_HARDSWISH] = GPU_U_hard_swish,
    [POST_SILU] = GPU_U_silu,       [POST_GELU_TANH] = GPU_U_gelu_tanh,
};

enum gpu_unary post_unary(const struct post *p)
{
    return posts[p->kind];
}

bool post_is_short(const struct post *p)
{
    return p->kind == POST_RELU || p->kind == POST_CLIP || p->kind == POST_SIGMOID ||
           p->kind == POST_HARDSWISH || p->kind == POST_SILU;
}

/* One post step on what is at ry, as b->store and b->last say. */
static int post_step(struct build *b, const struct tensor *y, const struct post *p, struct ref ry)
{
    struct unary_args a = {.n = count_of(y),
                           .op = posts[p->kind],
                           .type = (int32_t)data_type(b, y),
                           .alpha = p->alpha,
                           .beta = p->beta};
    struct ref add;

    if (p->kind != POST_ADD)
        return unary_step(b, a, ry, ry);
    int r = data_in(b, p->value, &add); /* the same shape: as the result's */
    return r < 0 ? r : binary_step(b, GPU_B_add, y, ry, y, add, y, ry);
}

int lower_posts(struct build *b, const struct node *n)
{
    const struct tensor *y = value_of(b, n->out[0]);
    struct ref ry;

    if (b->n_fused == n->n_post)
        return 0;
    if (!is_f32(y))
        return build_no_type(b, y->dtype);
    half_stay(b, n->out[0]);
    int r = data_in(b, n->out[0], &ry);
    if (b->store == DT_FP32)
        half_forget(b, n->out[0]); /* it is another number from here on */
    for (uint32_t i = b->n_fused; i < n->n_post && r == 0; i++)
        r = post_step(b, y, &n->post[i], ry);
    return r;
}
