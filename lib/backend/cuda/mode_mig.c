/* partition-mode = mig: the device is a MIG instance, which an administrator has made.
 *
 * A process sees one, and nothing here makes or changes any.  Inside it models take turns, as on a
 * shared device; from other instances it is kept apart by the hardware. */
#include "gpu.h"
#include "nvml.h"
#include <stdio.h>

#define UUID_TEXT sizeof("MIG-00000000-0000-0000-0000-000000000000")

static int uuid_of(CUdevice d, char ret[UUID_TEXT], struct err *err)
{
    CUuuid id;
    int r = GPU(device_uuid(&id, d), err);
    const uint8_t *b = (const uint8_t *)id.bytes;

    if (r < 0)
        return r;
    (void)snprintf(ret, UUID_TEXT,
                   "MIG-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                   b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
                   b[14], b[15]);
    return 0;
}

static int mig_probe(CUdevice d, struct device_info *ret, struct err *err)
{
    char uuid[UUID_TEXT], list[120];
    int r = uuid_of(d, uuid, err);
    size_t n;

    if (r < 0)
        return r;
    if (!nvml_is_mig(uuid)) {
        nvml_mig_list(list, sizeof(list));
        return err_set(err, -ENOTSUP,
                       "the device is not a MIG instance; to name in CUDA_VISIBLE_DEVICES: %s",
                       list[0] ? list : "none");
    }
    r = mode_shared.probe(d, ret, err);
    if (r < 0)
        return r;
    n = strlen(ret->why);
    (void)snprintf(ret->why + n, sizeof(ret->why) - n, "; instance %s", uuid);
    return 0;
}

const struct mode mode_mig = {.name = "mig",
                              .mode = MODE_MIG,
                              .probe = mig_probe,
                              .open = shared_open,
                              .close = whole_close,
                              .part_open = shared_part_open,
                              .part_close = streams_close};
