/* Element-wise kernels of two or more tensors, broadcast.  Dimensions that all operands walk
 * alike are merged first, so the inner loop is long and its operands' strides are 0 or 1. */
#include "kit.h"

typedef void (*binary_fn)(int64_t n, const void *a, int64_t sa, const void *b, int64_t sb, void *y);

/* A row as short as the channels of an image, where these lie last, is read as one of several such
 * rows behind each other: a loop of three is mostly what is around it. */
#define ROW_SHORT 16
#define ROW_LONG 256

struct binary {
    struct walk walk; /* operand 0: result, 1: a, 2: b */
    binary_fn f;
    size_t size_in[2], size_out;
    int64_t times;     /* so often the row of operand `again` is repeated; 0: it is not */
    uint32_t again, n; /* n: what is in it */
};

#define PAIR(name, T, R, expr)                                                                     \
    VECTOR(name, (int64_t n, const void *a_, int64_t sa, const void *b_, int64_t sb, void *y_),    \
           (n, a_, sa, b_, sb, y_))                                                                \
    {                                                                                              \
        const T *as = a_, *bs = b_;                                                                \
        R *y = y_;                                                                                 \
        if (sa == 1 && sb == 1) {                                                                  \
            SIMD for (int64_t i = 0; i < n; i++)                                                   \
            {                                                                                      \
                T a = as[i], b = bs[i];                                                            \
                y[i] = (R)(expr);                                                                  \
            }                                                                                      \
        } else if (sa == 1 && sb == 0) {                                                           \
            T b = bs[0];                                                                           \
            SIMD for (int64_t i = 0; i < n; i++)                                                   \
            {                                                                                      \
                T a = as[i];                                                                       \
                y[i] = (R)(expr);                                                                  \
            }                                                                                      \
        } else {                                                                                   \
            for (int64_t i = 0; i < n; i++) {                                                      \
                T a = as[i * sa], b = bs[i * sb];                                                  \
                y[i] = (R)(expr);                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

static inline double floor_mod(double a, double b)
{
    double m = fmod(a, b);

    return m != 0 && (m < 0) != (b < 0) ? m + b : m;
}

#define NUMBER_LOOPS(D, T, U)                                                                      \
    PAIR(add_##D, T, T, (U)a + (U)b)                                                               \
    PAIR(sub_##D, T, T, (U)a - (U)b)                                                               \
    PAIR(mul_##D, T, T, (U)a *(U)b)                                                                \
    PAIR(max_##D, T, T, a != a || a > b ? a : b)                                                   \
    PAIR(min_##D, T, T, a != a || a < b ? a : b)                                                   \
    PAIR(prelu_##D, T, T, a < (T)0 ? (U)a * (U)b : (U)a)                                           \
    PAIR(equal_##D, T, uint8_t, a == b)                                                            \
    PAIR(greater_##D, T, uint8_t, a > b)                                                           \
    PAIR(less_##D, T, uint8_t, a < b)                                                              \
    PAIR(ge_##D, T, uint8_t, a >= b)                                                               \
    PAIR(le_##D, T, uint8_t, a <= b)
/* No trap for division by zero: 0; and the one quotient that overflows wraps. */
#define INT_LOOPS(D, T, U)                                                                         \
    PAIR(div_##D, T, T, b == 0 ? 0 : b == (T)-1 && (T)-1 < 1 ? (T)((U)0 - (U)a) : a / b)           \
    PAIR(mod_##D, T, T,                                                                            \
         b == 0 || (b == (T)-1 && (T)-1 < 1)                                                       \
             ? 0                                                                                   \
             : (a % b != 0 && ((a % b) < (T)1) != (b < (T)1) ? a % b + b : a % b))                 \
    PAIR(fmod_##D, T, T, b == 0 || (b == (T)-1 && (T)-1 < 1) ? 0 : a % b)                          \
    PAIR(bit_and_##D, T, T, a &b)                                                                  \
    PAIR(bit_or_##D, T, T, a | b)                                                                  \
    PAIR(bit_xor_##D, T, T, a ^ b)                                                                 \
    PAIR(left_##D, T, T, (uint64_t)b < 8 * sizeof(T) ? (U)a << (U)b : 0)                           \
    PAIR(right_##D, T, T, (uint64_t)b < 8 * sizeof(T) ? (U)a >> (U)b : 0)                          \
    PAIR(pow_##D, T, T, pow((double)a, (double)b))
CPU_NUMBERS(NUMBER_LOOPS)
CPU_INTS(INT_LOOPS)
PAIR(div_DT_FP32, float, float, a / b)
PAIR(div_DT_FP64, double, double, a / b)
PAIR(pow_DT_FP32, float, float, powf(a, b))
PAIR(pow_DT_FP64, double, double, pow(a, b))
PAIR(mod_DT_FP32, float, float, floor_mod((double)a, (double)b))
PAIR(mod_DT_FP64, double, double, floor_mod(a, b))
PAIR(fmod_DT_FP32, float, float, fmodf(a, b))
PAIR(fmod_DT_FP64, double, double, fmod(a, b))
PAIR(and8, uint8_t, uint8_t, a &&b)
PAIR(or8, uint8_t, uint8_t, a || b)
PAIR(xor8, uint8_t, uint8_t, !a != !b)
PAIR(equal8, uint8_t, uint8_t, !a == !b)
PAIR(square, float, float, b == 2 ? a * a : powf(a, b))

#define FN(f, D)                                                                                   \
    {                                                                                              \
        f##_##D##_base, f##_##D##_wide                                                             \
    }
#define NUMBER_ROWS(D, T, U)                                                                       \
    {OP_Add, D, FN(add, D)}, {OP_Sum, D, FN(add, D)}, {OP_Sub, D, FN(sub, D)},                     \
        {OP_Mul, D, FN(mul, D)}, {OP_Max, D, FN(max, D)}, {OP_Min, D, FN(min, D)},                 \
        {OP_PRelu, D, FN(prelu, D)}, {OP_Equal, D, FN(equal, D)}, {OP_Greater, D, FN(greater, D)}, \
        {OP_Less, D, FN(less, D)}, {OP_GreaterOrEqual, D, FN(ge, D)},                              \
        {OP_LessOrEqual, D, FN(le, D)}, {OP_Div, D, FN(div, D)}, {OP_Mod, D, FN(mod, D)},          \
        {OP_Pow, D, FN(pow, D)},
#define INT_ROWS(D, T, U)                                                                          \
    {OP_BitwiseAnd, D, FN(bit_and, D)}, {OP_BitwiseOr, D, FN(bit_or, D)},                          \
        {OP_BitwiseXor, D, FN(bit_xor, D)}, {OP_BitShift, D, FN(left, D)},
static const struct {
    enum op_id op;
    enum dtype type;
    binary_fn f[2];
} rows[] = {
    CPU_NUMBERS(NUMBER_ROWS) CPU_INTS(INT_ROWS){OP_And, DT_BOOL, {and8_base, and8_wide}},
    {OP_Or, DT_BOOL, {or8_base, or8_wide}},
    {OP_Xor, DT_BOOL, {xor8_base, xor8_wide}},
    {OP_Equal, DT_BOOL, {equal8_base, equal8_wide}},
    {OP_Mean, DT_FP32, FN(add, DT_FP32)},
    {OP_Mean, DT_FP64, FN(add, DT_FP64)},
};
#define RIGHT_ROWS(D, T, U) [D] = FN(right, D),
static const binary_fn rights[DT_END][2] = {CPU_INTS(RIGHT_ROWS)};
#define FMOD_ROWS(D, T, U) [D] = FN(fmod, D),
static const binary_fn fmods[DT_END][2] = {CPU_NUMBERS(FMOD_ROWS)};

static void run_walk(const struct binary *p, const void *a, const void *b, void *y)
{
    const struct walk *w = &p->walk;
    uint32_t in = w->rank - 1;

    WALK_ROWS(w, off, {
        p->f(w->dims[in], (const char *)a + (size_t)off[1] * p->size_in[0], w->stride[1][in],
             (const char *)b + (size_t)off[2] * p->size_in[1], w->stride[2][in],
             (char *)y + (size_t)off[0] * p->size_out);
    });
}

static int binary_piece(const void *params, void *const *ptr, uint32_t part, uint32_t n_parts)
{
    struct binary p = *(const struct binary *)params;
    _Alignas(64) char row[ROW_LONG * sizeof(double)];
    const char *in[2];
    int64_t from;

    walk_cut(&p.walk, part, n_parts, &from);
    for (uint32_t i = 0; i < 2; i++)
        in[i] = (const char *)ptr[i] + from * p.walk.stride[i + 1][0] * (int64_t)p.size_in[i];
    size_t bytes = p.n * p.size_in[p.again];
    for (int64_t i = 0; i < p.times; i++)
        memcpy(row + (size_t)i * bytes, in[p.again], bytes);
    if (p.times)
        in[p.again] = row;
    run_walk(&p, in[0], in[1], (char *)ptr[2] + from * p.walk.stride[0][0] * (int64_t)p.size_out);
    return 0;
}
PIECES(binary)

static void binary_init(struct binary *p, const struct tensor *a, const struct tensor *b,
                        const struct tensor *y)
{
    int64_t stride[OPERANDS_MAX][MAX_RANK];

    strides_rows(y->rank, y->dims, stride[0]);
    strides_broadcast(a, y, stride[1]);
    strides_broadcast(b, y, stride[2]);
    walk_make(&p->walk, y->rank, y->dims, 3, (const int64_t(*)[MAX_RANK])stride);
    p->size_in[0] = dtype_size(a->dtype);
    p->size_in[1] = dtype_size(b->dtype);
    p->size_out = dtype_size(y->dtype);
}

/* Longer rows, where one operand has one short one for all of the other's. */
static void binary_repeat(struct binary *p)
{
    struct walk *w = &p->walk;
    int64_t n = w->dims[w->rank - 1], times = 0;

    if (w->rank != 2 || n < 1 || n > ROW_SHORT || w->stride[1][1] != 1 || w->stride[2][1] != 1)
        return;
    for (int64_t i = 2; i * n <= ROW_LONG; i++)
        times = w->dims[0] % i == 0 ? i : times;
    for (uint32_t i = 0; i < 2 && times; i++)
        if (w->stride[i + 1][0] == 0 && w->stride[2 - i][0] == n && w->stride[0][0] == n) {
            p->times = times;
            p->again = i;
            p->n = (uint32_t)n;
            w->dims[0] /= times;
            w->dims[1] *= times;
            w->stride[0][0] = w->stride[2 - i][0] = w->dims[1];
            return;
        }
}

/* ---- Sum, Max, Min and Mean of any number: the result gathers them one by one */

struct many {
    uint32_t n;
    struct binary *step; /* n - 1; or one that copies */
    size_t bytes;
    enum dtype mean; /* DT_NONE: none */
};

VECTOR(divide32, (int64_t n, float by, float *y), (n, by, y))
{
    SIMD for (int64_t i = 0; i < n; i++) y[i] /= by;
}

static void divide(const struct many *m, void *y)
{
    if (m->mean == DT_FP32)
        PICK(divide32)((int64_t)(m->bytes / sizeof(float)), (float)m->n, y);
    for (size_t i = 0; m->mean == DT_FP64 && i < m->bytes / sizeof(double); i++)
        ((double *)y)[i] /= m->n;
}

static int run_many(const void *params, void *const *ptr)
{
    const struct many *m = params;
    void *y = ptr[m->n];

    if (m->n == 1 && m->bytes)
        memcpy(y, ptr[0], m->bytes);
    for (uint32_t i = 1; i < m->n; i++)
        run_walk(&m->step[i - 1], i == 1 ? ptr[0] : y, ptr[i], y);
    divide(m, y);
    return 0;
}

static int plan_many(const struct cpu_args *a, binary_fn f, struct cpu_call *ret, struct err *err)
{
    struct many m = {.n = a->node->n_in, .bytes = a->out[0]->bytes};

    m.mean = a->node->op == OP_Mean ? a->out[0]->dtype : DT_NONE;
    m.step = ARENA_ARRAY(a->arena, struct binary, m.n);
    if (!m.step)
        return err_set(err, -ENOMEM, "out of memory");
    for (uint32_t i = 1; i < m.n; i++) {
        m.step[i - 1].f = f;
        binary_init(&m.step[i - 1], i == 1 ? a->in[0] : a->out[0], a->in[i], a->out[0]);
    }
    return plan_done(a, run_many, &m, sizeof(m), ret, err);
}

/* ---- powers of one type by another: rare, so slow and simple */

struct mixed_pow {
    struct walk walk;
    enum dtype base, power;
};

#define AS_DOUBLE(D, T, U)                                                                         \
    case D:                                                                                        \
        return (double)((const T *)p)[i];
static double number_at(enum dtype t, const void *p, int64_t i)
{
    switch (t) {
        CPU_NUMBERS(AS_DOUBLE)
    default:
        return 0;
    }
}

#define FROM_DOUBLE(D, T, U)                                                                       \
    case D:                                                                                        \
        ((T *)p)[i] = (T)v;                                                                        \
        break;
static void number_put(enum dtype t, void *p, int64_t i, double v)
{
    switch (t) {
        CPU_NUMBERS(FROM_DOUBLE)
    default:
        break;
    }
}

static int run_mixed_pow(const void *params, void *const *ptr)
{
    const struct mixed_pow *p = params;
    uint32_t in = p->walk.rank - 1;

    WALK_ROWS(&p->walk, off, {
        for (int64_t i = 0; i < p->walk.dims[in]; i++)
            number_put(p->base, ptr[2], off[0] + i * p->walk.stride[0][in],
                       pow(number_at(p->base, ptr[0], off[1] + i * p->walk.stride[1][in]),
                           number_at(p->power, ptr[1], off[2] + i * p->walk.stride[2][in])));
    });
    return 0;
}

static int plan_mixed_pow(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    struct binary shape;
    struct mixed_pow p = {.base = a->in[0]->dtype, .power = a->in[1]->dtype};

    struct tensor second = node_second(a->node, a->in[0], a->in[1]);
    binary_init(&shape, a->in[0], &second, a->out[0]);
    p.walk = shape.walk;
    return plan_done(a, run_mixed_pow, &p, sizeof(p), ret, err);
}

int plan_binary(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;
    struct binary p = {.f = NULL};
    enum dtype type = a->in[0]->dtype;
    bool wide = cpu_is_wide(), known = false;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        known |= n->op == OP_Pow && rows[i].op == n->op && rows[i].type == type;
        if (rows[i].op == n->op && rows[i].type == type)
            p.f = rows[i].f[wide];
    }
    if (!p.f)
        return plan_type(a, type, err);
    if (n->op == OP_Sum || n->op == OP_Max || n->op == OP_Min || n->op == OP_Mean)
        return plan_many(a, p.f, ret, err);
    if (known && a->in[1]->dtype != type)
        return plan_mixed_pow(a, ret, err);
    if (n->op == OP_Mod && node_int(n, "fmod", 0))
        p.f = fmods[type][wide];
    if (n->op == OP_BitShift && STREQ(node_str(n, "direction", ""), "RIGHT"))
        p.f = rights[type][wide];
    if (n->op == OP_Pow && type == DT_FP32 && count_of(a->in[1]) == 1)
        p.f = PICK(square);
    struct tensor second = node_second(n, a->in[0], a->in[1]);
    binary_init(&p, a->in[0], &second, a->out[0]);
    binary_repeat(&p);
    return PLAN_PIECES(a, binary, &p, ret, err);
}

/* ---- Where */

struct where {
    struct walk walk; /* result, condition, x, y */
    size_t size;
};

/* A mask over a tensor, one number elsewhere: with strides that are known the loop vectorises. */
#define WHERE_CASE(size_, T)                                                                       \
    case size_:                                                                                    \
        if (sc == 1 && sa == 1 && sb == 0) {                                                       \
            T other = ((const T *)b)[off[3]];                                                      \
            SIMD for (int64_t i = 0; i < n; i++)                                                   \
            {                                                                                      \
                T x = ((const T *)a)[off[2] + i];                                                  \
                ((T *)y)[off[0] + i] = ((const uint8_t *)c)[off[1] + i] ? x : other;               \
            }                                                                                      \
        } else {                                                                                   \
            for (int64_t i = 0; i < n; i++)                                                        \
                ((T *)y)[off[0] + i] = ((const uint8_t *)c)[off[1] + i * sc]                       \
                                           ? ((const T *)a)[off[2] + i * sa]                       \
                                           : ((const T *)b)[off[3] + i * sb];                      \
        }                                                                                          \
        break;

static void where_row(const struct where *p, const int64_t *off, const void *c, const void *a,
                      const void *b, void *y)
{
    const struct walk *w = &p->walk;
    uint32_t in = w->rank - 1;
    int64_t n = w->dims[in], sc = w->stride[1][in], sa = w->stride[2][in], sb = w->stride[3][in];

    switch (p->size) {
        WHERE_CASE(1, uint8_t)
        WHERE_CASE(2, uint16_t)
        WHERE_CASE(4, uint32_t)
        WHERE_CASE(8, uint64_t)
    default:
        break;
    }
}

static int run_where(const void *params, void *const *ptr)
{
    const struct where *p = params;

    WALK_ROWS(&p->walk, off, { where_row(p, off, ptr[0], ptr[1], ptr[2], ptr[3]); });
    return 0;
}

int plan_where(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct tensor *y = a->out[0];
    struct where p = {.size = dtype_size(y->dtype)};
    int64_t stride[OPERANDS_MAX][MAX_RANK];

    if (!p.size)
        return plan_type(a, y->dtype, err);
    strides_rows(y->rank, y->dims, stride[0]);
    for (uint32_t i = 0; i < 3; i++)
        strides_broadcast(a->in[i], y, stride[i + 1]);
    walk_make(&p.walk, y->rank, y->dims, 4, (const int64_t(*)[MAX_RANK])stride);
    return plan_done(a, run_where, &p, sizeof(p), ret, err);
}
