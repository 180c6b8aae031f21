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
/* For a device that is described (DEVICEPROP), or for the handle where that is NULL.  *ret_found:
 * there is one that sums in FP32 and needs no compiler. */
int dnn_plan_make(cudnnHandle_t h, cudnnBackendDescriptor_t device, const struct dnn_conv_shape *s,
                  struct dnn_plan *ret, bool *ret_found, struct err *err);
void dnn_plan_done(struct dnn_plan *p);
#else
#define HAS_CUDNN 0
#endif
