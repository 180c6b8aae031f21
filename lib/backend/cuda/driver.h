/* The driver, reached through one table that is filled by dlopen: the plug-in opens on a machine
 * without a driver and can then say why there is no device.
 *
 * A row: our name, the declaration in cuda.h, the name to look up, and the CUDA version that
 * introduced the form which that declaration has.  MAY: absent from older drivers, then NULL. */
#pragma once

#include <cuda.h>
#include <gpulet/base.h>

/* What headers before 13.0 lack, or declare in another form. */
typedef CUresult CUDAAPI green_stream_fn(CUstream *, CUgreenCtx, unsigned flags, int priority);
typedef CUresult CUDAAPI capped_ctx_fn(CUcontext *, CUexecAffinityParam *, int n, unsigned flags,
                                       CUdevice);
typedef CUresult CUDAAPI elapsed_fn(float *ret_ms, CUevent, CUevent);

/* clang-format off */
#define DRIVER_CALLS(NEED, MAY) \
    NEED(init, cuInit, "cuInit", 2000) \
    NEED(driver_version, cuDriverGetVersion, "cuDriverGetVersion", 2020) \
    NEED(error_name, cuGetErrorName, "cuGetErrorName", 6000) \
    NEED(device_count, cuDeviceGetCount, "cuDeviceGetCount", 2000) \
    NEED(device_get, cuDeviceGet, "cuDeviceGet", 2000) \
    NEED(device_name, cuDeviceGetName, "cuDeviceGetName", 2000) \
    NEED(device_uuid, cuDeviceGetUuid, "cuDeviceGetUuid", 11040) \
    NEED(device_attribute, cuDeviceGetAttribute, "cuDeviceGetAttribute", 2000) \
    NEED(device_memory, cuDeviceTotalMem, "cuDeviceTotalMem", 3020) \
    NEED(primary_retain, cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", 7000) \
    NEED(primary_release, cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease", 11000) \
    NEED(ctx_set_current, cuCtxSetCurrent, "cuCtxSetCurrent", 4000) \
    NEED(ctx_destroy, cuCtxDestroy, "cuCtxDestroy", 4000) \
    NEED(priority_range, cuCtxGetStreamPriorityRange, "cuCtxGetStreamPriorityRange", 5050) \
    NEED(stream_create, cuStreamCreateWithPriority, "cuStreamCreateWithPriority", 5050) \
    NEED(stream_destroy, cuStreamDestroy, "cuStreamDestroy", 4000) \
    NEED(mem_granularity, cuMemGetAllocationGranularity, "cuMemGetAllocationGranularity", 10020) \
    NEED(mem_reserve, cuMemAddressReserve, "cuMemAddressReserve", 10020) \
    NEED(mem_unreserve, cuMemAddressFree, "cuMemAddressFree", 10020) \
    NEED(mem_create, cuMemCreate, "cuMemCreate", 10020) \
    NEED(mem_release, cuMemRelease, "cuMemRelease", 10020) \
    NEED(mem_map, cuMemMap, "cuMemMap", 10020) \
    NEED(mem_unmap, cuMemUnmap, "cuMemUnmap", 10020) \
    NEED(mem_access, cuMemSetAccess, "cuMemSetAccess", 10020) \
    NEED(copy_in, cuMemcpyHtoD, "cuMemcpyHtoD", 3020) \
    NEED(copy_out, cuMemcpyDtoH, "cuMemcpyDtoH", 3020) \
    NEED(mem_alloc, cuMemAlloc, "cuMemAlloc", 3020) \
    NEED(mem_free, cuMemFree, "cuMemFree", 3020) \
    NEED(host_alloc, cuMemHostAlloc, "cuMemHostAlloc", 2020) \
    NEED(host_free, cuMemFreeHost, "cuMemFreeHost", 2000) \
    NEED(copy_in_async, cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync", 3020) \
    NEED(copy_out_async, cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync", 3020) \
    NEED(zero_async, cuMemsetD8Async, "cuMemsetD8Async", 3020) \
    NEED(stream_query, cuStreamQuery, "cuStreamQuery", 2000) \
    NEED(stream_wait, cuStreamSynchronize, "cuStreamSynchronize", 2000) \
    NEED(stream_wait_event, cuStreamWaitEvent, "cuStreamWaitEvent", 3020) \
    NEED(event_create, cuEventCreate, "cuEventCreate", 2000) \
    NEED(event_destroy, cuEventDestroy, "cuEventDestroy", 4000) \
    NEED(event_record, cuEventRecord, "cuEventRecord", 2000) \
    NEED(capture_begin, cuStreamBeginCapture, "cuStreamBeginCapture", 10010) \
    NEED(capture_end, cuStreamEndCapture, "cuStreamEndCapture", 10000) \
    NEED(graph_make, cuGraphInstantiateWithFlags, "cuGraphInstantiate", 12000) \
    NEED(graph_upload, cuGraphUpload, "cuGraphUpload", 11010) \
    NEED(graph_launch, cuGraphLaunch, "cuGraphLaunch", 10000) \
    NEED(graph_destroy, cuGraphDestroy, "cuGraphDestroy", 10000) \
    NEED(graph_exec_destroy, cuGraphExecDestroy, "cuGraphExecDestroy", 10000) \
    NEED(library_load, cuLibraryLoadData, "cuLibraryLoadData", 12000) \
    NEED(library_unload, cuLibraryUnload, "cuLibraryUnload", 12000) \
    NEED(library_kernel, cuLibraryGetKernel, "cuLibraryGetKernel", 12000) \
    NEED(launch, cuLaunchKernel, "cuLaunchKernel", 4000) \
    NEED(launch_host, cuLaunchHostFunc, "cuLaunchHostFunc", 10000) \
    NEED(host_register, cuMemHostRegister, "cuMemHostRegister", 6050) \
    NEED(host_unregister, cuMemHostUnregister, "cuMemHostUnregister", 4000) \
    MAY(affinity_support, cuDeviceGetExecAffinitySupport, "cuDeviceGetExecAffinitySupport", 11040) \
    MAY(ctx_affinity, cuCtxGetExecAffinity, "cuCtxGetExecAffinity", 11040) \
    MAY(device_resource, cuDeviceGetDevResource, "cuDeviceGetDevResource", 12040) \
    MAY(sm_split, cuDevSmResourceSplitByCount, "cuDevSmResourceSplitByCount", 12040) \
    MAY(resource_desc, cuDevResourceGenerateDesc, "cuDevResourceGenerateDesc", 12040) \
    MAY(green_create, cuGreenCtxCreate, "cuGreenCtxCreate", 12040) \
    MAY(green_destroy, cuGreenCtxDestroy, "cuGreenCtxDestroy", 12040) \
    MAY(green_resource, cuGreenCtxGetDevResource, "cuGreenCtxGetDevResource", 12040) \
    MAY(green_ctx, cuCtxFromGreenCtx, "cuCtxFromGreenCtx", 12040)
/* clang-format on */

struct driver {
#define CALL(name, declared, text, since) __typeof__(&declared) name;
    DRIVER_CALLS(CALL, CALL)
#undef CALL
    capped_ctx_fn *ctx_create_capped;     /* 11.4, may be NULL */
    green_stream_fn *green_stream_create; /* 12.5, may be NULL */
    elapsed_fn *event_elapsed;
    int version; /* 13000: CUDA 13.0 */
};

/* The one of this process.  Written by driver_open() before any device is open; then read by any
 * thread. */
extern struct driver cu;

/* Main thread.  Opens libcuda.so.1, fills the table and calls cuInit; once that has worked it does
 * nothing, as a reload asks for the devices while they serve.  -ENODEV: err says why there are
 * none. */
int driver_open(struct err *err);
