/* What the driver's codes mean for us.  The codes that kill the process's hold on the device are
 * remembered: no call works after one of them, whichever partition it came from. */
#include "gpu.h"
#include <stdatomic.h>

static const struct {
    int cuda;
    int code; /* ours */
    bool sticky;
    const char *text;
} table[] = {
    {CUDA_ERROR_INVALID_VALUE, -EINVAL, false, "a value is out of range"},
    {CUDA_ERROR_OUT_OF_MEMORY, -ENOMEM, false, "the device has no memory left"},
    {CUDA_ERROR_NOT_INITIALIZED, -ENODEV, false, "the driver is not initialised"},
    {CUDA_ERROR_STUB_LIBRARY, -ENODEV, false,
     "this is a toolkit's stub library: there is no driver"},
    {35 /* cudaErrorInsufficientDriver */, -ENODEV, false, "the driver is older than the toolkit"},
    {CUDA_ERROR_DEVICE_UNAVAILABLE, -EBUSY, false,
     "the device is in exclusive mode, or another process has it"},
    {CUDA_ERROR_NO_DEVICE, -ENODEV, false, "the driver sees no device"},
    {CUDA_ERROR_INVALID_DEVICE, -ENODEV, false, "there is no such device"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, -ENOTSUP, false,
     "the plug-in was not built for this architecture (CUDA_ARCHS)"},
    {CUDA_ERROR_ECC_UNCORRECTABLE, -EIO, true, "the device's memory is broken"},
    {CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY, -ENOTSUP, false,
     "not a client of MPS: contexts with a cap of SMs cannot be had"},
    {226 /* CUDA_ERROR_CONTAINED, not in older headers */, -EIO, true,
     "an error was contained; the process has to restart"},
    {CUDA_ERROR_SYSTEM_NOT_READY, -ENODEV, false, "the system's fabric is not ready"},
    {CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, -ENODEV, false,
     "the driver's library and its kernel module differ"},
    {CUDA_ERROR_MPS_CONNECTION_FAILED, -ENOTSUP, false,
     "the control daemon of MPS is there but cannot be used"},
    {CUDA_ERROR_MPS_RPC_FAILURE, -EIO, true, "the server of MPS is lost"},
    {CUDA_ERROR_MPS_SERVER_NOT_READY, -EAGAIN, false,
     "the server of MPS is starting, recovering, or another user's"},
    {CUDA_ERROR_MPS_MAX_CLIENTS_REACHED, -ENOSPC, false, "MPS has no room for another client"},
    {CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED, -ENOSPC, false,
     "MPS has no connection for another context"},
    {CUDA_ERROR_MPS_CLIENT_TERMINATED, -EIO, true, "an operator has terminated this client of MPS"},
    {CUDA_ERROR_CDP_NOT_SUPPORTED, -ENOTSUP, false, "a kernel starts kernels, which MPS refuses"},
    {CUDA_ERROR_INVALID_RESOURCE_TYPE, -ENOTSUP, false, "the device cannot be split in this way"},
    {CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION, -EINVAL, false,
     "so many SMs in a group cannot be had"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, -EIO, true, "a kernel used an address that is not its own"},
    {CUDA_ERROR_LAUNCH_TIMEOUT, -EIO, true, "a kernel took longer than the system allows"},
    {CUDA_ERROR_ASSERT, -EIO, true, "an assertion in a kernel failed"},
    {CUDA_ERROR_HARDWARE_STACK_ERROR, -EIO, true, "a kernel's stack is broken"},
    {CUDA_ERROR_ILLEGAL_INSTRUCTION, -EIO, true, "a kernel met an illegal instruction"},
    {CUDA_ERROR_MISALIGNED_ADDRESS, -EIO, true, "a kernel used a misaligned address"},
    {CUDA_ERROR_INVALID_ADDRESS_SPACE, -EIO, true, "a kernel used the wrong address space"},
    {CUDA_ERROR_INVALID_PC, -EIO, true, "a kernel jumped nowhere"},
    {CUDA_ERROR_LAUNCH_FAILED, -EIO, true, "a kernel failed"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, -ENOTSUP, false, "this cannot be captured"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, -ENOTSUP, false, "the capture was spoilt"},
};

static atomic_int first_sticky; /* a CUresult, 0: none */

/* Our name of a call, with or without arguments behind it, becomes the driver's. */
static const char *call_name(const char *ours)
{
    static const struct {
        const char *ours, *name;
    } names[] = {{"ctx_create_capped", "cuCtxCreate"},
                 {"green_stream_create", "cuGreenCtxStreamCreate"},
                 {"event_elapsed", "cuEventElapsedTime"},
#define CALL(name, call, since) {#name, #call},
                 DRIVER_CALLS(CALL, CALL)
#undef CALL
    };
    size_t n = strcspn(ours, "(");

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strlen(names[i].ours) == n && memcmp(names[i].ours, ours, n) == 0)
            return names[i].name;
    return ours;
}

int gpu_check(CUresult r, const char *call, struct err *err)
{
    const char *name = NULL;
    size_t i = 0;

    if (r == CUDA_SUCCESS)
        return 0;
    if (cu.error_name)
        (void)cu.error_name(r, &name);
    while (i < ARRAY_SIZE(table) && table[i].cuda != (int)r)
        i++;
    call = call_name(call);
    if (i == ARRAY_SIZE(table))
        return err_set(err, -EIO, "%s: %s (%d)", call, name ? name : "error", (int)r);
    if (table[i].sticky)
        (void)atomic_compare_exchange_strong(&first_sticky, &(int){0}, (int)r);
    return err_set(err, table[i].code, "%s: %s (%d): %s", call, name ? name : "error", (int)r,
                   table[i].text);
}

bool gpu_is_lost(void)
{
    return atomic_load(&first_sticky) != 0;
}
