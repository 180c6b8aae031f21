/* NVML, read only: nothing here changes a device's settings.  The declarations are our own, as
 * the toolkit's header may be absent.  Main thread. */
#pragma once

#include <gpulet/base.h>

#define NVML_TEXT 96

/* The driver's version, such as "580.65.06", for what runs depend on; "" if NVML cannot tell. */
void nvml_driver_version(char ret[NVML_TEXT]);
/* Is the device with this UUID ("MIG-…") a MIG device? */
bool nvml_is_mig(const char *uuid);
/* The MIG devices of this machine as "MIG-…, MIG-…", cut to the room there is; "" if none. */
void nvml_mig_list(char *ret, size_t size);
