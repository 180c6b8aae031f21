/* cuDNN's table: its backend API.  A row: our name, the declaration in cudnn_graph.h. */
#pragma once

#include "nvlib.h"

#if __has_include(<cudnn_graph.h>)
#include <cudnn_graph.h>
#define HAS_CUDNN 1

/* clang-format off */
#define DNN_CALLS(CALL) \
    CALL(create, cudnnCreate) \
    CALL(destroy, cudnnDestroy) \
    CALL(set_stream, cudnnSetStream) \
    CALL(version, cudnnGetVersion) \
    CALL(cudart_version, cudnnGetCudartVersion) \
    CALL(status_name, cudnnGetErrorString) \
    CALL(last_error, cudnnGetLastErrorString) \
    CALL(desc_create, cudnnBackendCreateDescriptor) \
    CALL(desc_destroy, cudnnBackendDestroyDescriptor) \
    CALL(set, cudnnBackendSetAttribute) \
    CALL(get, cudnnBackendGetAttribute) \
    CALL(finalize, cudnnBackendFinalize) \
    CALL(execute, cudnnBackendExecute)
/* clang-format on */

struct dnn {
#define CALL(name, declared) __typeof__(&declared) name;
    DNN_CALLS(CALL)
#undef CALL
};
extern struct dnn dnn;

/* 0, or our code for it, and err names library, call, status and what the library says. */
int dnn_check(cudnnStatus_t s, const char *call, struct err *err);
#define DNN(call, err) dnn_check(dnn.call, #call, err)
/* The handle whose work goes to this stream of the partition. */
cudnnHandle_t dnn_on(const struct part *p, CUstream stream);
/* It has nothing for what was asked: our own kernel does it. */
bool dnn_refuses(cudnnStatus_t s);

/* ---- dnn_plan.c: what the library is asked for, and what it offers */
#define DNN_SPATIAL_MAX 3

/* y = relu(conv(x, w) + add + bias), computed in FP32; packed, in FP32 NCHW, else channels last;
 * what is not there is left out. */
struct dnn_conv_shape {
    cudnnDataType_t type; /* FLOAT, HALF, BFLOAT16 */
    uint32_t spatial;     /* 2 or 3 */
    int64_t batch, channels, filters, groups;
    int64_t in[DNN_SPATIAL_MAX], out[DNN_SPATIAL_MAX], kernel[DNN_SPATIAL_MAX];
    int64_t stride[DNN_SPATIAL_MAX], dilation[DNN_SPATIAL_MAX];
    int64_t pad[DNN_SPATIAL_MAX], pad_end[DNN_SPATIAL_MAX];
    bool bias, add, relu;
};
enum dnn_uid { UID_X = 1, UID_W, UID_BIAS, UID_ADD, UID_Y, UID_VIRTUAL };

struct dnn_plan {
    cudnnBackendDescriptor_t plan;
    size_t workspace;
    uint32_t n; /* of what it is made of, which lives as long as it does */
    cudnnBackendDescriptor_t part[64];
};
/* A configuration of an engine, told from others of another list: where it stands in the library's
 * proposals, and a hash of engine and knobs. */
struct dnn_way {
    int32_t mode, index;
    struct hash128 name;
};
#define DNN_OFFERS_MAX 6 /* each is a plan, which takes a millisecond to make */
struct dnn_offer {
    cudnnBackendDescriptor_t plan, config;
    size_t workspace;
    struct dnn_way way;
};
struct dnn_offers {
    unsigned n; /* the library's favourite first; 0: it has none */
    struct dnn_offer offer[DNN_OFFERS_MAX];
    struct dnn_plan of; /* what they are all made of */
};
struct dnn_request {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t device; /* that is described (DEVICEPROP); NULL: the handle's */
    struct part *part;               /* is let in between two plans; NULL: nobody */
    const struct dnn_conv_shape *shape;
    const struct dnn_way *only; /* or NULL: any */
    unsigned most;              /* offers */
};
/* Those that sum in FP32 and need no compiler, and whose plan can be made. */
int dnn_offers_make(const struct dnn_request *q, struct dnn_offers *ret, struct err *err);
/* Offer i becomes *ret; the others are gone. */
void dnn_offers_take(struct dnn_offers *o, unsigned i, struct dnn_plan *ret);
void dnn_offers_done(struct dnn_offers *o);
void dnn_plan_done(struct dnn_plan *p);

/* ---- dnn_conv.c */
struct dnn_args {
    const void *x, *w, *bias, *add; /* bias, add: NULL where there is none */
    void *y, *workspace;
};
/* Which tensor lies where. */
int dnn_pack(const struct dnn_args *x, cudnnBackendDescriptor_t *ret, struct err *err);

/* ---- dnn_algo.c: the plan that is the fastest on the partition's SMs (choice.h) */
int dnn_plan_choose(struct build *b, const struct dnn_conv_shape *s, struct dnn_plan *ret,
                    bool *ret_found);
#else
#define HAS_CUDNN 0
#endif
