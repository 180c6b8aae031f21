/* A convolution as cuDNN's operation graph, and plans for it.
 *
 * The chain is conv -> + add -> + bias -> relu, in this order: it is the one that the library has
 * ready-made kernels for.  What lies between its operations is virtual, FP32.  The library proposes
 * configurations of engines, best first; offered are the first that compute in FP32, give the same
 * bits each time and need no compiler at run time, and whose plan can be made. */
#include "dnn.h"

#if HAS_CUDNN
#define CONFIGS_MAX 64
#define RANK_MAX (DNN_SPATIAL_MAX + 2)
#define ALIGN 16
#define WORKSPACE_MAX ((int64_t)256 << 20)
#define KNOBS_MAX 32
#define LOOKED_AT                                                                                  \
    24 /* of the configurations, once there is an offer: those further down are slow */

/* What is being made.  After the first failure nothing more is done. */
struct maker {
    const struct dnn_request *q;
    cudnnDataType_t type; /* of what is not virtual */
    struct dnn_offers *offers;
    int r;
    bool refused;         /* the library has nothing for it */
    cudnnStatus_t unmade; /* why the last plan could not be made */
    struct err *err;
};

static bool failed(struct maker *m, cudnnStatus_t s, const char *call)
{
    if (s == CUDNN_STATUS_SUCCESS)
        return false;
    m->refused = dnn_refuses(s);
    m->r = dnn_check(s, call, m->err);
    return true;
}

/* Destroyed with the plans. */
static cudnnBackendDescriptor_t make(struct maker *m, cudnnBackendDescriptorType_t type)
{
    struct dnn_plan *of = &m->offers->of;
    cudnnBackendDescriptor_t d = NULL;

    assert(of->n + 1 < ARRAY_SIZE(of->part)); /* and a configuration */
    if (m->r == 0 && !failed(m, dnn.desc_create(type, &d), "desc_create"))
        of->part[of->n++] = d;
    return d;
}

static void put(struct maker *m, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t n, const void *from)
{
    if (m->r == 0)
        (void)failed(m, dnn.set(d, name, type, n, from), "set");
}

static void put_desc(struct maker *m, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                     cudnnBackendDescriptor_t value)
{
    put(m, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static cudnnBackendDescriptor_t finish(struct maker *m, cudnnBackendDescriptor_t d)
{
    if (m->r == 0)
        (void)failed(m, dnn.finalize(d), "finalize");
    return d;
}

/* ---- tensors */

/* Dimensions are always named in the order N, C, H, W; strides say how they lie. */
static void pack(uint32_t rank, const int64_t *dims, bool last, int64_t *ret)
{
    int64_t n = last ? dims[1] : 1;

    ret[1] = 1;
    for (uint32_t i = rank - 1; i > (last ? 1 : 0); n *= dims[i--])
        ret[i] = n;
    ret[0] = n;
}
static cudnnBackendDescriptor_t tensor(struct maker *m, int64_t uid, uint32_t rank,
                                       const int64_t *dims)
{
    int64_t stride[RANK_MAX], align = ALIGN;
    bool is_virtual = uid >= UID_VIRTUAL, last = m->type != CUDNN_DATA_FLOAT;
    cudnnDataType_t type = is_virtual ? CUDNN_DATA_FLOAT : m->type;
    cudnnBackendDescriptor_t d = make(m, CUDNN_BACKEND_TENSOR_DESCRIPTOR);

    pack(rank, dims, last, stride);
    put(m, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    put(m, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, rank, dims);
    put(m, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, rank, stride);
    put(m, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    put(m, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    put(m, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    return finish(m, d);
}

/* Dimensions of x, of w and of y, by their first two. */
static cudnnBackendDescriptor_t tensor_of(struct maker *m, int64_t uid,
                                          const struct dnn_conv_shape *s, int64_t first,
                                          int64_t second, const int64_t *spatial)
{
    int64_t dims[RANK_MAX] = {first, second};

    memcpy(dims + 2, spatial, s->spatial * sizeof(*dims));
    return tensor(m, uid, s->spatial + 2, dims);
}

/* ---- operations */
static cudnnBackendDescriptor_t convolution(struct maker *m, const struct dnn_conv_shape *s)
{
    cudnnBackendDescriptor_t d = make(m, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    int64_t n = s->spatial;

    put(m, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    put(m, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    put(m, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &n);
    put(m, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, n, s->pad);
    put(m, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, n, s->pad_end);
    put(m, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, n, s->dilation);
    put(m, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, n, s->stride);
    return finish(m, d);
}

static cudnnBackendDescriptor_t op_conv(struct maker *m, const struct dnn_conv_shape *s,
                                        cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w,
                                        cudnnBackendDescriptor_t y)
{
    cudnnBackendDescriptor_t conv = convolution(m, s);
    cudnnBackendDescriptor_t d = make(m, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    float one = 1, zero = 0;

    put_desc(m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv);
    put_desc(m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    put_desc(m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    put_desc(m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    put(m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    put(m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    return finish(m, d);
}

/* y = mode(x, b); b NULL: of one operand. */
static cudnnBackendDescriptor_t op_pointwise(struct maker *m, cudnnPointwiseMode_t mode,
                                             cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t b,
                                             cudnnBackendDescriptor_t y)
{
    cudnnBackendDescriptor_t how = make(m, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;

    put(m, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    put(m, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
    finish(m, how);
    cudnnBackendDescriptor_t d = make(m, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    put_desc(m, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    put_desc(m, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b)
        put_desc(m, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    put_desc(m, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    return finish(m, d);
}

/* The chain: each operation's result is virtual, the last one's is y. */
static cudnnBackendDescriptor_t graph(struct maker *m, const struct dnn_conv_shape *s)
{
    struct {
        bool is;
        cudnnPointwiseMode_t mode;
        cudnnBackendDescriptor_t b;
    } step[] = {{s->add, CUDNN_POINTWISE_ADD, NULL},
                {s->bias, CUDNN_POINTWISE_ADD, NULL},
                {s->relu, CUDNN_POINTWISE_RELU_FWD, NULL}};
    int64_t ones[DNN_SPATIAL_MAX] = {1, 1, 1};
    cudnnBackendDescriptor_t op[1 + ARRAY_SIZE(step)], last, next;
    unsigned left = (unsigned)s->add + s->bias + s->relu;
    int64_t n = 0, uid = UID_VIRTUAL;

#define RESULT() tensor_of(m, left ? uid++ : UID_Y, s, s->batch, s->filters, s->out)
    if (s->add)
        step[0].b = tensor_of(m, UID_ADD, s, s->batch, s->filters, s->out);
    if (s->bias)
        step[1].b = tensor_of(m, UID_BIAS, s, 1, s->filters, ones);
    last = RESULT();
    op[n++] = op_conv(m, s, tensor_of(m, UID_X, s, s->batch, s->channels, s->in),
                      tensor_of(m, UID_W, s, s->filters, s->channels / s->groups, s->kernel), last);
    for (size_t i = 0; i < ARRAY_SIZE(step); i++) {
        if (!step[i].is)
            continue;
        left--;
        next = RESULT();
        op[n++] = op_pointwise(m, step[i].mode, last, step[i].b, next);
        last = next;
    }
#undef RESULT
    cudnnBackendDescriptor_t d = make(m, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    put(m, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, op);
    if (!m->q->device) /* before 9.8 it is needed */
        put(m, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &m->q->handle);
    return finish(m, d);
}

/* ---- what the library proposes */

/* Is none of these notes on the engine? */
static bool lacks_notes(struct maker *m, cudnnBackendDescriptor_t engine,
                        cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                        uint32_t unwanted)
{
    int32_t note[32]; /* an enum */
    int64_t n = 0;

    if (failed(m, dnn.get(engine, name, type, ARRAY_SIZE(note), &n, note), "get"))
        return false;
    for (int64_t i = 0; i < n; i++)
        if (note[i] >= 0 && note[i] < 32 && unwanted >> note[i] & 1)
            return false;
    return true;
}

/* FP32 on tensor cores is TF32; sums by atomics differ from run to run; a compiler at run time
 * takes a second for each shape.  All sum in FP32. */
static bool acceptable(struct maker *m, cudnnBackendDescriptor_t config)
{
    const uint32_t numeric = (m->type == CUDNN_DATA_FLOAT) << CUDNN_NUMERICAL_NOTE_TENSOR_CORE |
                             1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS |
                             1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION |
                             1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC |
                             1u << CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13;
    static const uint32_t behaviour = 1u << CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    cudnnBackendDescriptor_t engine = NULL;
    int64_t n = 0;
    bool good = false;

    if (failed(m, dnn.desc_create(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine), "desc_create"))
        return false;
    if (!failed(m,
                dnn.get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                        &engine),
                "get"))
        good = lacks_notes(m, engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                           numeric) &&
               lacks_notes(m, engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                           behaviour);
    (void)dnn.desc_destroy(engine);
    return good;
}

/* One number of what the library says; what it does not say makes no difference. */
static int64_t number_of(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type)
{
    int64_t n = 0, is = 0;
    int32_t code = 0; /* an enum */
    void *to = type == CUDNN_TYPE_INT64 ? (void *)&is : &code;

    if (dnn.get(d, name, type, 1, &n, to) != CUDNN_STATUS_SUCCESS || n != 1)
        return -1;
    return type == CUDNN_TYPE_INT64 ? is : code;
}

static int64_t engine_of(cudnnBackendDescriptor_t config)
{
    cudnnBackendDescriptor_t engine = NULL;
    int64_t n = 0, is = -1;

    if (dnn.desc_create(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS)
        return -1;
    if (dnn.get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                &engine) == CUDNN_STATUS_SUCCESS)
        is = number_of(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64);
    (void)dnn.desc_destroy(engine);
    return is;
}

/* Engine and knobs. */
static struct hash128 name_of(cudnnBackendDescriptor_t config)
{
    cudnnBackendDescriptor_t knob[KNOBS_MAX] = {NULL};
    int64_t is[1 + 2 * KNOBS_MAX] = {engine_of(config)}, n_knobs = 0, n = 0;

    while (n < KNOBS_MAX &&
           dnn.desc_create(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[n]) == CUDNN_STATUS_SUCCESS)
        n++;
    if (n == 0 || dnn.get(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                          n, &n_knobs, knob) != CUDNN_STATUS_SUCCESS)
        n_knobs = 0;
    n_knobs = MIN(n_knobs, n);
    for (int64_t i = 0; i < n_knobs; i++) {
        is[1 + 2 * i] = number_of(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE);
        is[2 + 2 * i] = number_of(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64);
    }
    for (int64_t i = 0; i < n; i++)
        (void)dnn.desc_destroy(knob[i]);
    return hash_bytes(is, (size_t)(1 + 2 * n_knobs) * sizeof(*is));
}

/* True: it is an offer now.  A plan that cannot be made is no error while there are others. */
static bool plan_of(struct maker *m, cudnnBackendDescriptor_t config)
{
    struct dnn_offer *o = &m->offers->offer[m->offers->n];
    cudnnBackendDescriptor_t d = NULL;
    int64_t n = 0, bytes = 0;

    if (failed(m, dnn.desc_create(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &d), "desc_create"))
        return false;
    put_desc(m, d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (m->q->device)
        put_desc(m, d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, m->q->device);
    else
        put(m, d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &m->q->handle);
    m->unmade = m->r == 0 ? dnn.finalize(d) : m->unmade;
    bool good = m->r == 0 && m->unmade == CUDNN_STATUS_SUCCESS &&
                !failed(m,
                        dnn.get(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                &n, &bytes),
                        "get") &&
                bytes >= 0 && bytes <= WORKSPACE_MAX;
    if (!good) {
        (void)dnn.desc_destroy(d);
        return false;
    }
    *o = (struct dnn_offer){.plan = d, .config = config, .workspace = (size_t)bytes};
    m->offers->n++;
    return true;
}

static void configs_free(cudnnBackendDescriptor_t *config, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (config[i])
            (void)dnn.desc_destroy(config[i]);
}

/* Asked for how many first, then for them: the second answer has only those that would run. */
static int64_t configs_get(struct maker *m, cudnnBackendDescriptor_t heuristic,
                           cudnnBackendDescriptor_t *ret)
{
    int64_t most = 0, n = 0;

    if (failed(m,
               dnn.get(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                       &most, NULL),
               "get"))
        return 0;
    most = MIN(most, CONFIGS_MAX);
    for (int64_t i = 0; i < most && m->r == 0; i++)
        (void)failed(m, dnn.desc_create(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &ret[i]),
                     "desc_create");
    if (most == 0 || m->r < 0 ||
        failed(m,
               dnn.get(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                       most, &n, ret),
               "get"))
        return 0;
    return MIN(n, most);
}

/* Configuration i becomes an offer, if it is one that is wanted. */
static void consider(struct maker *m, cudnnBackendDescriptor_t *config, int32_t mode, int32_t i)
{
    const struct dnn_way *only = m->q->only;
    struct dnn_way way = {.mode = mode, .index = i};

    if ((only && only->index != i) || !acceptable(m, config[i]))
        return;
    way.name = name_of(config[i]);
    if ((only && !hash_eq(only->name, way.name)) || !plan_of(m, config[i]))
        return;
    m->offers->offer[m->offers->n - 1].way = way;
    config[i] = NULL; /* the offer's */
}

static void plans_by(struct maker *m, cudnnBackendDescriptor_t ops, cudnnBackendHeurMode_t mode)
{
    cudnnBackendDescriptor_t config[CONFIGS_MAX] = {NULL};
    cudnnBackendDescriptor_t h = make(m, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    const struct dnn_offers *o = m->offers;

    put_desc(m, h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, ops);
    put(m, h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (m->q->device)
        put_desc(m, h, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, m->q->device);
    finish(m, h);
    int64_t n = m->r == 0 ? configs_get(m, h, config) : 0;
    for (int64_t i = 0; i < n && m->r == 0 && o->n < m->q->most; i++) {
        if (i >= LOOKED_AT && o->n > 0)
            break;
        consider(m, config, (int32_t)mode, (int32_t)i);
        if (m->q->part && m->r == 0 && (m->r = part_yield(m->q->part, m->err)) < 0)
            m->refused = false;
    }
    configs_free(config, CONFIGS_MAX);
}

/* ---- all of it */
void dnn_plan_done(struct dnn_plan *p)
{
    if (p->plan)
        (void)dnn.desc_destroy(p->plan);
    while (p->n > 0)
        (void)dnn.desc_destroy(p->part[--p->n]);
    *p = (struct dnn_plan){0};
}

static void offer_done(struct dnn_offer *o)
{
    if (o->plan)
        (void)dnn.desc_destroy(o->plan);
    if (o->config)
        (void)dnn.desc_destroy(o->config);
    *o = (struct dnn_offer){0};
}

void dnn_offers_done(struct dnn_offers *o)
{
    while (o->n > 0)
        offer_done(&o->offer[--o->n]);
    dnn_plan_done(&o->of);
}

void dnn_offers_take(struct dnn_offers *o, unsigned i, struct dnn_plan *ret)
{
    struct dnn_offer *taken = &o->offer[i];

    assert(i < o->n);
    *ret = o->of;
    ret->plan = TAKE(taken->plan);
    ret->workspace = taken->workspace;
    ret->part[ret->n++] = TAKE(taken->config); /* lives as long as its plan */
    o->of = (struct dnn_plan){0};
    dnn_offers_done(o);
}

int dnn_offers_make(const struct dnn_request *q, struct dnn_offers *ret, struct err *err)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    struct maker m = {.q = q, .type = q->shape->type, .offers = ret, .err = err};

    assert(q->most > 0 && q->most <= DNN_OFFERS_MAX);
    *ret = (struct dnn_offers){0};
    cudnnBackendDescriptor_t ops = graph(&m, q->shape);
    for (size_t i = 0; i < ARRAY_SIZE(modes) && m.r == 0 && ret->n == 0; i++) {
        if (q->only && q->only->mode != (int32_t)modes[i])
            continue;
        plans_by(&m, ops, modes[i]);
        if (m.refused) /* of this mode */
            m.r = 0;
    }
    if (ret->n == 0 && m.r == 0 && m.unmade != CUDNN_STATUS_SUCCESS)
        (void)failed(&m, m.unmade, "finalize");
    if (m.r < 0 || ret->n == 0)
        dnn_offers_done(ret);
    return m.r < 0 && !m.refused ? m.r : 0;
}
#endif
