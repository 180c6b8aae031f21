/* The driver, reached through one table that is filled by dlopen: the plug-in opens on a machine
 * without a driver and can then say why there is no device.
 *
 * A row: our name, that of the call, and the CUDA version that introduced the form which cuda.h
 * declares.  CALL_IS_OF, a row, asks the toolkit whether that is so: a name of cuda.h may stand for
 * another call's (cuGraphInstantiate), and a call by a wrong form is an end by a signal at best.
 * MAY: absent from older drivers, then NULL. */
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <gpulet/base.h>

/* What headers before 13.0 lack, or declare in another form. */
typedef CUresult CUDAAPI green_stream_fn(CUstream *, CUgreenCtx, unsigned flags, int priority);
typedef CUresult CUDAAPI capped_ctx_fn(CUcontext *, CUexecAffinityParam *, int n, unsigned flags,
                                       CUdevice);
typedef CUresult CUDAAPI elapsed_fn(float *ret_ms, CUevent, CUevent);

#define CALL_IS_OF(name, call, since)                                                              \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&call), PFN_##call##_v##since),         \
                   #call " is not of " #since);

/* clang-format off */
#define DRIVER_CALLS(NEED, MAY) \
    NEED(init, cuInit, 2000) \
    NEED(driver_version, cuDriverGetVersion, 2020) \
    NEED(error_name, cuGetErrorName, 6000) \
    NEED(device_count, cuDeviceGetCount, 2000) \
    NEED(device_get, cuDeviceGet, 2000) \
    NEED(device_name, cuDeviceGetName, 2000) \
    NEED(device_uuid, cuDeviceGetUuid, 11040) \
    NEED(device_attribute, cuDeviceGetAttribute, 2000) \
    NEED(device_memory, cuDeviceTotalMem, 3020) \
    NEED(primary_retain, cuDevicePrimaryCtxRetain, 7000) \
    NEED(primary_release, cuDevicePrimaryCtxRelease, 11000) \
    NEED(ctx_set_current, cuCtxSetCurrent, 4000) \
    NEED(ctx_destroy, cuCtxDestroy, 4000) \
    NEED(priority_range, cuCtxGetStreamPriorityRange, 5050) \
    NEED(stream_create, cuStreamCreateWithPriority, 5050) \
    NEED(stream_destroy, cuStreamDestroy, 4000) \
    NEED(mem_granularity, cuMemGetAllocationGranularity, 10020) \
    NEED(mem_reserve, cuMemAddressReserve, 10020) \
    NEED(mem_unreserve, cuMemAddressFree, 10020) \
    NEED(mem_create, cuMemCreate, 10020) \
    NEED(mem_release, cuMemRelease, 10020) \
    NEED(mem_map, cuMemMap, 10020) \
    NEED(mem_unmap, cuMemUnmap, 10020) \
    NEED(mem_access, cuMemSetAccess, 10020) \
    NEED(copy_in, cuMemcpyHtoD, 3020) \
    NEED(copy_out, cuMemcpyDtoH, 3020) \
    NEED(mem_alloc, cuMemAlloc, 3020) \
    NEED(mem_free, cuMemFree, 3020) \
    NEED(host_alloc, cuMemHostAlloc, 2020) \
    NEED(host_free, cuMemFreeHost, 2000) \
    NEED(copy_in_async, cuMemcpyHtoDAsync, 3020) \
    NEED(copy_out_async, cuMemcpyDtoHAsync, 3020) \
    NEED(zero_async, cuMemsetD8Async, 3020) \
    NEED(stream_query, cuStreamQuery, 2000) \
    NEED(stream_wait, cuStreamSynchronize, 2000) \
    NEED(stream_wait_event, cuStreamWaitEvent, 3020) \
    NEED(event_create, cuEventCreate, 2000) \
    NEED(event_destroy, cuEventDestroy, 4000) \
    NEED(event_record, cuEventRecord, 2000) \
    NEED(capture_begin, cuStreamBeginCapture, 10010) \
    NEED(capture_end, cuStreamEndCapture, 10000) \
    NEED(graph_make, cuGraphInstantiateWithFlags, 11040) \
    NEED(graph_upload, cuGraphUpload, 11010) \
    NEED(graph_launch, cuGraphLaunch, 10000) \
    NEED(graph_destroy, cuGraphDestroy, 10000) \
    NEED(graph_exec_destroy, cuGraphExecDestroy, 10000) \
    NEED(library_load, cuLibraryLoadData, 12000) \
    NEED(library_unload, cuLibraryUnload, 12000) \
    NEED(library_kernel, cuLibraryGetKernel, 12000) \
    NEED(launch, cuLaunchKernel, 4000) \
    NEED(launch_host, cuLaunchHostFunc, 10000) \
    NEED(host_register, cuMemHostRegister, 6050) \
    NEED(host_unregister, cuMemHostUnregister, 4000) \
    MAY(affinity_support, cuDeviceGetExecAffinitySupport, 11040) \
    MAY(ctx_affinity, cuCtxGetExecAffinity, 11040) \
    MAY(device_resource, cuDeviceGetDevResource, 12040) \
    MAY(sm_split, cuDevSmResourceSplitByCount, 12040) \
    MAY(resource_desc, cuDevResourceGenerateDesc, 12040) \
    MAY(green_create, cuGreenCtxCreate, 12040) \
    MAY(green_destroy, cuGreenCtxDestroy, 12040) \
    MAY(green_resource, cuGreenCtxGetDevResource, 12040) \
    MAY(green_ctx, cuCtxFromGreenCtx, 12040)
/* clang-format on */

struct driver {
#define CALL(name, call, since) __typeof__(&call) name;
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
