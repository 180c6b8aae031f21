/* libcudnn.so.9 on the host: a convolution and what is chained to it, as the operation graph says.
 * See fake.h.
 *
 * Of the engines that it proposes only the last computes as FP32 should, and can be had, in several
 * ways: a knob of it says which. */
#include "fake_lib.h"

#include <cudnn_graph.h>
#include <stdio.h>

#define VERSION 91900
#define ATTRS_MAX 16
#define ATTR_BYTES 512
#define RANK_MAX 5
#define OPS_MAX 4
#define TENSORS_MAX 8

enum engine { TF32, ATOMIC, COMPILED, UNMADE, GOOD, ENGINES };

struct attr {
    int name, type;
    int64_t n;
    size_t bytes;
    _Alignas(8) char data[ATTR_BYTES];
};
struct desc {
    cudnnBackendDescriptorType_t type;
    bool final;
    int n_attrs;
    struct attr attr[ATTRS_MAX];
    enum engine engine; /* of an engine, a configuration, a plan */
    int way;            /* of a configuration, a plan, a choice of a knob */
    struct desc *graph; /* of a configuration */
    int64_t workspace;  /* of a plan */
};

#define ENTER(name)                                                                                \
    do {                                                                                           \
        int s_ = driver()->enter(name);                                                            \
        if (s_)                                                                                    \
            return (cudnnStatus_t)s_;                                                              \
    } while (0)

EXPORTED size_t cudnnGetVersion(void)
{
    return VERSION;
}

EXPORTED size_t cudnnGetCudartVersion(void)
{
    return (size_t)driver()->gpu->library_cuda;
}

EXPORTED const char *cudnnGetErrorString(cudnnStatus_t s)
{
    switch ((int)s) {
    case CUDNN_STATUS_NOT_INITIALIZED:
        return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM:
        return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_NOT_SUPPORTED:
        return "CUDNN_STATUS_NOT_SUPPORTED";
    default:
        return "CUDNN_STATUS";
    }
}

EXPORTED void cudnnGetLastErrorString(char *ret, size_t bytes)
{
    (void)snprintf(ret, bytes, "as the test wants\nand another line");
}

EXPORTED cudnnStatus_t cudnnCreate(cudnnHandle_t *ret)
{
    ENTER("cudnnCreate");
    *ret = (cudnnHandle_t)handle_new();
    return *ret ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_INITIALIZED;
}

EXPORTED cudnnStatus_t cudnnDestroy(cudnnHandle_t h)
{
    ENTER("cudnnDestroy");
    handle_free((struct fake_handle *)h);
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t stream)
{
    ENTER("cudnnSetStream");
    ((struct fake_handle *)h)->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- descriptors: what was set, as bytes */
static size_t size_of(int type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
        return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4;
    }
}

/* A wrong one is an error whatever the bytes are. */
static int type_of(int name)
{
    switch (name) {
    case CUDNN_ATTR_CONVOLUTION_COMP_TYPE:
    case CUDNN_ATTR_POINTWISE_MATH_PREC:
    case CUDNN_ATTR_TENSOR_DATA_TYPE:
        return CUDNN_TYPE_DATA_TYPE;
    case CUDNN_ATTR_CONVOLUTION_CONV_MODE:
        return CUDNN_TYPE_CONVOLUTION_MODE;
    case CUDNN_ATTR_POINTWISE_MODE:
        return CUDNN_TYPE_POINTWISE_MODE;
    case CUDNN_ATTR_ENGINEHEUR_MODE:
        return CUDNN_TYPE_HEUR_MODE;
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA:
        return CUDNN_TYPE_FLOAT;
    case CUDNN_ATTR_TENSOR_IS_VIRTUAL:
        return CUDNN_TYPE_BOOLEAN;
    case CUDNN_ATTR_EXECUTION_PLAN_HANDLE:
    case CUDNN_ATTR_OPERATIONGRAPH_HANDLE:
        return CUDNN_TYPE_HANDLE;
    case CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS:
    case CUDNN_ATTR_VARIANT_PACK_WORKSPACE:
        return CUDNN_TYPE_VOID_PTR;
    case CUDNN_ATTR_CONVOLUTION_DILATIONS:
    case CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES:
    case CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS:
    case CUDNN_ATTR_CONVOLUTION_POST_PADDINGS:
    case CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS:
    case CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT:
    case CUDNN_ATTR_TENSOR_DIMENSIONS:
    case CUDNN_ATTR_TENSOR_STRIDES:
    case CUDNN_ATTR_TENSOR_UNIQUE_ID:
    case CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS:
        return CUDNN_TYPE_INT64;
    default:
        return CUDNN_TYPE_BACKEND_DESCRIPTOR;
    }
}

EXPORTED cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                                    cudnnBackendDescriptor_t *ret)
{
    ENTER("cudnnBackendCreateDescriptor");
    struct desc *d = descriptor_new(sizeof(*d));
    if (!d)
        return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    d->type = type;
    *ret = d;
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    descriptor_free(d);
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t desc,
                                                cudnnBackendAttributeName_t name,
                                                cudnnBackendAttributeType_t type, int64_t n,
                                                const void *from)
{
    struct desc *d = desc;
    size_t bytes = (size_t)n * size_of((int)type);

    ENTER("cudnnBackendSetAttribute");
    if (d->final)
        driver()->broken("a descriptor is set before it is final");
    if ((int)type != type_of((int)name) || n < 1 || bytes > ATTR_BYTES || d->n_attrs == ATTRS_MAX)
        return CUDNN_STATUS_BAD_PARAM;
    struct attr *a = &d->attr[d->n_attrs++];
    a->name = (int)name;
    a->type = (int)type;
    a->n = n;
    a->bytes = bytes;
    memcpy(a->data, from, bytes);
    return CUDNN_STATUS_SUCCESS;
}

static const struct attr *attr_of(const struct desc *d, int name)
{
    static const struct attr none;

    for (int i = 0; i < d->n_attrs; i++)
        if (d->attr[i].name == name)
            return &d->attr[i];
    return &none;
}

/* Element i, or 0. */
static int64_t int_of(const struct desc *d, int name, int64_t i)
{
    const struct attr *a = attr_of(d, name);

    return i < a->n ? ((const int64_t *)(const void *)a->data)[i] : 0;
}

static int enum_of(const struct desc *d, int name)
{
    const struct attr *a = attr_of(d, name);

    return a->n ? *(const int *)(const void *)a->data : -1;
}

static struct desc *desc_of(const struct desc *d, int name, int64_t i)
{
    const struct attr *a = attr_of(d, name);

    return i < a->n ? ((struct desc *const *)(const void *)a->data)[i] : NULL;
}

/* ---- what a graph computes */
struct tensor {
    int64_t uid, rank, dims[RANK_MAX], stride[RANK_MAX];
    enum fake_type type;
    bool is_virtual;
    void *at;
};
struct step { /* behind the convolution */
    bool relu;
    struct tensor b;
};
struct job {
    struct tensor x, w, y;
    int64_t spatial, pad[3], stride[3], dilation[3];
    int n_steps;
    struct step step[OPS_MAX];
    void *workspace;
    int64_t workspace_bytes;
    int way;
};

static bool tensor_read(const struct desc *d, struct tensor *ret)
{
    int type = d ? enum_of(d, CUDNN_ATTR_TENSOR_DATA_TYPE) : -1;

    if (!d || !d->final || d->type != CUDNN_BACKEND_TENSOR_DESCRIPTOR ||
        (type != CUDNN_DATA_FLOAT && type != CUDNN_DATA_HALF && type != CUDNN_DATA_BFLOAT16))
        return false;
    *ret = (struct tensor){.uid = int_of(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0),
                           .rank = attr_of(d, CUDNN_ATTR_TENSOR_DIMENSIONS)->n,
                           .type = type == CUDNN_DATA_HALF       ? FAKE_F16
                                   : type == CUDNN_DATA_BFLOAT16 ? FAKE_BF16
                                                                 : FAKE_F32,
                           .is_virtual = attr_of(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL)->data[0]};
    if (ret->rank < 4 || ret->rank > RANK_MAX ||
        attr_of(d, CUDNN_ATTR_TENSOR_STRIDES)->n != ret->rank ||
        int_of(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 0) % 4)
        return false;
    for (int64_t i = 0; i < ret->rank; i++) {
        ret->dims[i] = int_of(d, CUDNN_ATTR_TENSOR_DIMENSIONS, i);
        ret->stride[i] = int_of(d, CUDNN_ATTR_TENSOR_STRIDES, i);
    }
    return true;
}

static bool conv_read(const struct desc *op, struct job *ret)
{
    const struct desc *conv = desc_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, 0);

    if (!conv || op->type != CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ||
        !tensor_read(desc_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, 0), &ret->x) ||
        !tensor_read(desc_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, 0), &ret->w) ||
        !tensor_read(desc_of(op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, 0), &ret->y) ||
        enum_of(conv, CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION)
        return false;
    ret->spatial = int_of(conv, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 0);
    if (ret->spatial + 2 != ret->x.rank || ret->x.dims[1] % ret->w.dims[1] ||
        ret->w.dims[0] != ret->y.dims[1])
        return false;
    for (int64_t i = 0; i < ret->spatial; i++) {
        ret->pad[i] = int_of(conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i);
        ret->stride[i] = int_of(conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, i);
        ret->dilation[i] = int_of(conv, CUDNN_ATTR_CONVOLUTION_DILATIONS, i);
        int64_t reach = (ret->w.dims[2 + i] - 1) * ret->dilation[i] + 1;
        int64_t room = ret->x.dims[2 + i] + ret->pad[i] +
                       int_of(conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, i) - reach;
        if (room < 0 || ret->y.dims[2 + i] != room / ret->stride[i] + 1)
            return false;
    }
    return true;
}

/* Each operation reads what the one before has made. */
static bool step_read(const struct desc *op, struct job *j)
{
    const struct desc *how = desc_of(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 0);
    struct step *s = &j->step[j->n_steps];
    struct tensor x, y;
    int mode = how ? enum_of(how, CUDNN_ATTR_POINTWISE_MODE) : -1;

    if (!tensor_read(desc_of(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, 0), &x) ||
        !tensor_read(desc_of(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, 0), &y) ||
        x.uid != j->y.uid || !x.is_virtual || x.type != FAKE_F32 ||
        (mode != CUDNN_POINTWISE_ADD && mode != CUDNN_POINTWISE_RELU_FWD))
        return false;
    s->relu = mode == CUDNN_POINTWISE_RELU_FWD;
    if (!s->relu && !tensor_read(desc_of(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, 0), &s->b))
        return false;
    j->y = y;
    j->n_steps++;
    return true;
}

static bool graph_read(const struct desc *g, struct job *ret)
{
    int64_t n = attr_of(g, CUDNN_ATTR_OPERATIONGRAPH_OPS)->n;

    *ret = (struct job){.n_steps = 0};
    if (n < 1 || n > OPS_MAX || !conv_read(desc_of(g, CUDNN_ATTR_OPERATIONGRAPH_OPS, 0), ret))
        return false;
    for (int64_t i = 1; i < n; i++)
        if (!step_read(desc_of(g, CUDNN_ATTR_OPERATIONGRAPH_OPS, i), ret))
            return false;
    for (int i = 0; i < ret->n_steps; i++)
        if (!ret->step[i].relu && ret->step[i].b.type != ret->y.type)
            return false; /* the real one would have to compile it */
    return !ret->y.is_virtual && ret->x.type == ret->y.type && ret->w.type == ret->y.type;
}

/* ---- heuristics, plans */
EXPORTED cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t desc)
{
    struct desc *d = desc;
    struct job j;

    ENTER("cudnnBackendFinalize");
    if (d->final)
        driver()->broken("a descriptor becomes final once");
    if (d->type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR && !graph_read(d, &j))
        return CUDNN_STATUS_BAD_PARAM;
    if (d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
        const struct desc *config = desc_of(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
        struct fake_handle *h = (void *)desc_of(d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, 0);
        handle_enter(h);
        handle_leave(h);
        d->engine = config->engine;
        d->way = config->way;
        d->workspace = driver()->gpu->library_workspace;
        if (d->engine == UNMADE)
            return CUDNN_STATUS_NOT_SUPPORTED;
    }
    d->final = true;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t give(int64_t have, const void *from, size_t each, int64_t n, int64_t *ret_n,
                          void *to)
{
    *ret_n = have;
    if (n > 0)
        memcpy(to, from, (size_t)(have < n ? have : n) * each);
    return CUDNN_STATUS_SUCCESS;
}

/* One more is announced than there are, as the real one does. */
static cudnnStatus_t results(const struct desc *heuristic, int64_t n, int64_t *ret_n, void *to)
{
    const struct desc *g = desc_of(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, 0);
    int refuses = driver()->gpu->library_refuses, offers = driver()->gpu->library_offers;
    bool chain = attr_of(g, CUDNN_ATTR_OPERATIONGRAPH_OPS)->n > 2;
    bool fallback = enum_of(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE) == CUDNN_HEUR_MODE_FALLBACK;
    int64_t have = refuses == 1 || (refuses == 2 && chain) ? 0 : fallback ? 1 : GOOD + offers;

    *ret_n = have;
    if (n == 0)
        *ret_n = have + 1;
    for (int64_t i = 0; i < have && i < n; i++) {
        struct desc *config = ((struct desc **)to)[i];
        config->engine = fallback || i > GOOD ? GOOD : (enum engine)i;
        config->way = config->engine == GOOD && !fallback
                          ? (int)(i - GOOD + driver()->gpu->ways_turned) % offers
                          : FAKE_WAYS_MAX - 1;
        config->graph = desc_of(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, 0);
        config->final = true;
    }
    return CUDNN_STATUS_SUCCESS;
}

EXPORTED cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const desc,
                                                cudnnBackendAttributeName_t name,
                                                cudnnBackendAttributeType_t type, int64_t n,
                                                int64_t *ret_n, void *to)
{
    static const int32_t notes[ENGINES] = {[TF32] = CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
                                           [ATOMIC] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC};
    static const int32_t compiled = CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    static const int32_t knob = CUDNN_KNOB_TYPE_TILE_SIZE;
    const struct desc *d = desc;
    int64_t is;

    (void)type;
    ENTER("cudnnBackendGetAttribute");
    if (!d->final)
        return CUDNN_STATUS_BAD_PARAM;
    switch ((int)name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        return results(d, n, ret_n, to);
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        (*(struct desc **)to)->engine = d->engine;
        (*(struct desc **)to)->final = true;
        *ret_n = 1;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        is = d->engine;
        return give(1, &is, sizeof(is), n, ret_n, to);
    case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES:
        (*(struct desc **)to)->way = d->way;
        (*(struct desc **)to)->final = true;
        *ret_n = 1;
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE:
        return give(1, &knob, sizeof(knob), n, ret_n, to);
    case CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE:
        is = d->way;
        return give(1, &is, sizeof(is), n, ret_n, to);
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        return give(d->engine == TF32 || d->engine == ATOMIC, &notes[d->engine], sizeof(*notes), n,
                    ret_n, to);
    case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE:
        return give(d->engine == COMPILED, &compiled, sizeof(compiled), n, ret_n, to);
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        return give(1, &d->workspace, sizeof(d->workspace), n, ret_n, to);
    default:
        return CUDNN_STATUS_BAD_PARAM;
    }
}

/* ---- execution */
static float conv_at(const struct job *j, const int64_t *o)
{
    int64_t each = j->w.dims[1], groups = j->x.dims[1] / each;
    int64_t first = o[1] / (j->w.dims[0] / groups) * each;
    int64_t k[3], kd[3] = {1, 1, 1};
    float sum = 0;

    for (int64_t i = 0; i < j->spatial; i++)
        kd[i] = j->w.dims[2 + i];
    for (int64_t c = 0; c < each; c++)
        for (k[0] = 0; k[0] < kd[0]; k[0]++)
            for (k[1] = 0; k[1] < kd[1]; k[1]++)
                for (k[2] = 0; k[2] < kd[2]; k[2]++) {
                    int64_t x = o[0] * j->x.stride[0] + (first + c) * j->x.stride[1];
                    int64_t w = o[1] * j->w.stride[0] + c * j->w.stride[1];
                    bool in = true;
                    for (int64_t i = 0; i < j->spatial; i++) {
                        int64_t p = o[2 + i] * j->stride[i] + k[i] * j->dilation[i] - j->pad[i];
                        in = in && p >= 0 && p < j->x.dims[2 + i];
                        x += p * j->x.stride[2 + i];
                        w += k[i] * j->w.stride[2 + i];
                    }
                    sum += in ? fake_load(j->x.at, j->x.type, x) * fake_load(j->w.at, j->w.type, w)
                              : 0;
                }
    return sum;
}

static int64_t offset(const struct tensor *t, const int64_t *o)
{
    int64_t at = 0;

    for (int64_t i = 0; i < t->rank; i++)
        at += t->dims[i] == 1 ? 0 : o[i] * t->stride[i];
    return at;
}

static void job_run(const void *data)
{
    const struct job *j = data;
    int64_t n = 1;

    way_run(j->way);
    scribble(j->workspace, (size_t)j->workspace_bytes);
    for (int64_t i = 0; i < j->y.rank; i++)
        n *= j->y.dims[i];
    for (int64_t e = 0; e < n; e++) {
        int64_t o[RANK_MAX], left = e;
        for (int64_t i = j->y.rank - 1; i >= 0; i--) {
            o[i] = left % j->y.dims[i];
            left /= j->y.dims[i];
        }
        float v = conv_at(j, o);
        for (int i = 0; i < j->n_steps; i++) {
            const struct step *s = &j->step[i];
            v = s->relu ? (v > 0 ? v : 0) : v + fake_load(s->b.at, s->b.type, offset(&s->b, o));
        }
        fake_store(j->y.at, j->y.type, offset(&j->y, o), v);
    }
}

/* A tensor that crosses the graph's border has an address, as aligned as was said. */
static void place(const struct desc *pack, struct tensor *t)
{
    const struct attr *ids = attr_of(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);

    for (int64_t i = 0; i < ids->n; i++)
        if (int_of(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i) == t->uid)
            t->at = desc_of(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    if (t->is_virtual != !t->at || (uintptr_t)t->at % 16)
        driver()->broken("what is not virtual has an address, and aligned");
}

EXPORTED cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                           cudnnBackendDescriptor_t variant)
{
    struct fake_handle *h = (struct fake_handle *)handle;
    const struct desc *d = plan, *pack = variant;
    struct job j;

    ENTER("cudnnBackendExecute");
    const struct desc *config = desc_of(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
    if (!d->final || !pack->final || !graph_read(config->graph, &j))
        return CUDNN_STATUS_BAD_PARAM;
    if (d->engine != GOOD && !(d->engine == TF32 && j.x.type != FAKE_F32))
        driver()->broken("FP32 is computed in FP32, alike each time and without a compiler");
    place(pack, &j.x);
    place(pack, &j.w);
    place(pack, &j.y);
    for (int i = 0; i < j.n_steps; i++)
        if (!j.step[i].relu)
            place(pack, &j.step[i].b);
    j.workspace = desc_of(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, 0);
    j.workspace_bytes = d->workspace;
    if (!j.workspace)
        driver()->broken("a plan has the workspace that it asked for");
    if (!h->stream)
        driver()->broken("a handle has a stream");
    j.way = d->way;
    if (way_fails(j.way))
        return CUDNN_STATUS_EXECUTION_FAILED;
    handle_work(h);
    int r = driver()->run(h->stream, job_run, &j, sizeof(j));
    handle_leave(h);
    return r == 0 ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH;
}
