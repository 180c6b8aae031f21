/* What the real cuDNN says to our operation graphs, where it is installed: it plans for a device
 * that is described to it, without one.  Nothing is computed. */
#include "test/check.h"

#include <lib/backend/cuda/dnn.h>

static struct err err;

/* As the library writes it, of an A100, an RTX 4090 and an H100. */
#define DEVICE(version, sms, shared, most)                                                         \
    "{\"cudaDeviceId\":0,\"deviceName\":\"test\",\"deviceVer\":" version                           \
    ",\"driverVer\":13000,\"isTccDriver\":0,\"l2CacheSize\":62914560,\"maxBlockSize\":[1024,1024," \
    "64],\"maxCtasPerSM\":32,\"maxGridSize\":[2147483647,65535,65535],\"maxRegistersPerSM\":"      \
    "65536,"                                                                                       \
    "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":" shared                   \
    ",\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":" most                                       \
    ",\"memClockRateKHz\":2619000,\"multiProcessorCount\":" sms                                    \
    ",\"pciDeviceId\":0,\"regsPerBlock\":65536,\"reservedSharedMemoryPerBlock\":1024,"             \
    "\"smClockRateKHz\":1980000,\"supportCoopLaunch\":1,\"totalGlobalMem\":85899345920,"           \
    "\"warpSize\":32}"

static const struct {
    const char *name, *json;
} devices[] = {{"sm_80", DEVICE("800", "108", "166912", "2048")},
               {"sm_89", DEVICE("890", "128", "101376", "1536")},
               {"sm_90", DEVICE("900", "132", "232448", "2048")}};

/* Layers of networks that people serve. */
static const struct layer {
    const char *name;
    int64_t channels, filters, groups, in, kernel, stride, pad;
    bool bias, add, relu;
} layers[] = {
    {"ResNet stem", 3, 64, 1, 224, 7, 2, 3, true, false, true},
    {"3x3 with Relu", 64, 64, 1, 56, 3, 1, 1, true, false, true},
    {"1x1 with a residual and Relu", 64, 256, 1, 56, 1, 1, 0, true, true, true},
    {"1x1 stride 2", 256, 512, 1, 56, 1, 2, 0, true, false, false},
    {"3x3 without bias", 32, 48, 1, 28, 3, 1, 1, false, false, false},
    {"3x3 of 32 groups", 128, 128, 32, 56, 3, 1, 1, true, false, true},
    {"depthwise 3x3", 96, 96, 96, 56, 3, 1, 1, true, false, true},
    {"1 to 16 channels", 1, 16, 1, 8, 3, 1, 1, true, false, true},
};

static struct dnn_conv_shape shape_of(const struct layer *l, int64_t batch)
{
    struct dnn_conv_shape s = {.type = CUDNN_DATA_FLOAT,
                               .spatial = 2,
                               .batch = batch,
                               .channels = l->channels,
                               .filters = l->filters,
                               .groups = l->groups,
                               .bias = l->bias,
                               .add = l->add,
                               .relu = l->relu};

    for (uint32_t i = 0; i < 2; i++) {
        s.in[i] = l->in;
        s.kernel[i] = l->kernel;
        s.stride[i] = l->stride;
        s.dilation[i] = 1;
        s.pad[i] = s.pad_end[i] = l->pad;
        s.out[i] = (l->in + 2 * l->pad - l->kernel) / l->stride + 1;
    }
    return s;
}

static cudnnBackendDescriptor_t device_of(const char *json)
{
    cudnnBackendDescriptor_t d = NULL;

    CHECK_EQ(DNN(desc_create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d), &err), 0);
    CHECK_EQ(DNN(set(d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                     (int64_t)strlen(json), json),
                 &err),
             0);
    if (DNN(finalize(d), &err) < 0)
        printf("# %s\n", err.msg);
    return d;
}

static int offers_of(cudnnBackendDescriptor_t device, const struct dnn_conv_shape *s,
                     const struct dnn_way *only, struct dnn_offers *ret)
{
    struct dnn_request q = {
        .device = device, .shape = s, .only = only, .most = only ? 1 : DNN_OFFERS_MAX};

    return dnn_offers_make(&q, ret, &err);
}

/* By what is kept of it, and not by what is kept of another; no two have one name. */
static void check_found_again(cudnnBackendDescriptor_t device, const struct dnn_conv_shape *s,
                              const struct dnn_offers *all, unsigned w)
{
    const struct dnn_offer *is = &all->offer[w];
    struct dnn_way way = is->way;
    struct dnn_offers o;

    CHECK_EQ(offers_of(device, s, &way, &o), 0);
    CHECK_EQ(o.n, 1);
    CHECK_EQ(o.offer[0].workspace, is->workspace);
    dnn_offers_done(&o);
    way.name.lo ^= 1;
    CHECK_EQ(offers_of(device, s, &way, &o), 0);
    CHECK_EQ(o.n, 0);
    dnn_offers_done(&o);
    for (unsigned i = 0; i < w; i++)
        CHECK(!hash_eq(all->offer[i].way.name, is->way.name));
}

/* Shapes that the library may have nothing for: then it says so, and that is no error. */
static void an_unusual_layer_has_a_plan_or_none(void)
{
    struct layer l = layers[1];
    struct dnn_conv_shape shape[] = {shape_of(&l, 1), shape_of(&l, 1), shape_of(&l, 1),
                                     shape_of(&l, 1), shape_of(&l, 3)};
    static const char *const names[] = {"pads on one side", "one dimension", "three dimensions",
                                        "dilated, strides 1 and 3", "5 to 7 channels"};

    shape[0].pad_end[0] = 2;
    shape[0].out[0]++;
    shape[1].in[0] = shape[1].out[0] = shape[1].kernel[0] = 1;
    shape[1].pad[0] = shape[1].pad_end[0] = 0;
    shape[2].spatial = 3;
    shape[2].in[2] = shape[2].out[2] = 6;
    shape[2].kernel[2] = 3;
    shape[2].pad[2] = shape[2].pad_end[2] = shape[2].stride[2] = shape[2].dilation[2] = 1;
    shape[3].dilation[0] = shape[3].pad[0] = shape[3].pad_end[0] = 3;
    shape[3].stride[1] = 3;
    shape[3].out[1] = 19;
    shape[4].channels = 5;
    shape[4].filters = 7;
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        cudnnBackendDescriptor_t device = device_of(devices[i].json);
        for (size_t k = 0; k < ARRAY_SIZE(shape); k++) {
            struct dnn_offers o;
            err.msg[0] = 0;
            CHECK_EQ(offers_of(device, &shape[k], NULL, &o), 0);
            printf("# %s, %s: %u plans%s\n", devices[i].name, names[k], o.n, o.n ? "" : err.msg);
            dnn_offers_done(&o);
        }
        (void)dnn.desc_destroy(device);
    }
}

static void every_layer_has_a_plan(cudnnDataType_t type)
{
    for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
        cudnnBackendDescriptor_t device = device_of(devices[i].json);
        for (size_t k = 0; k < ARRAY_SIZE(layers); k++) {
            struct dnn_conv_shape s = shape_of(&layers[k], 4);
            s.type = type;
            struct dnn_offers o;
            err.msg[0] = 0;
            int r = offers_of(device, &s, NULL, &o);
            printf("# %s, %s: %u plans, %zu bytes of workspace %s\n", devices[i].name,
                   layers[k].name, o.n, o.offer[0].workspace, err.msg);
            CHECK_EQ(r, 0);
            CHECK(o.n > 0);
            for (unsigned w = 0; r == 0 && w < o.n; w++)
                check_found_again(device, &s, &o, w);
            dnn_offers_done(&o);
        }
        (void)dnn.desc_destroy(device);
    }
}

static void every_layer_has_a_plan_in_fp32(void)
{
    every_layer_has_a_plan(CUDNN_DATA_FLOAT);
}
static void every_layer_has_a_plan_in_fp16(void)
{
    every_layer_has_a_plan(CUDNN_DATA_HALF);
}
static void every_layer_has_a_plan_in_bf16(void)
{
    every_layer_has_a_plan(CUDNN_DATA_BFLOAT16);
}

int main(void)
{
    cu.version = 13990;                                        /* there is no driver to ask */
    if (!dnn_library()->version[0] || dnn.version() < 91100) { /* plans for described devices */
        printf("# skipped: %s\n",
               dnn_library()->version[0] ? "cuDNN before 9.11" : dnn_library()->why);
        return 0;
    }
    RUN(every_layer_has_a_plan_in_fp32);
    RUN(every_layer_has_a_plan_in_fp16);
    RUN(every_layer_has_a_plan_in_bf16);
    RUN(an_unusual_layer_has_a_plan_or_none);
    return check_end();
}
