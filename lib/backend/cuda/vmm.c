/* Memory by cuMemCreate and cuMemMap: access is granted to a device, not to a context. */
#include "gpu.h"

static CUmemAllocationProp prop_of(CUdevice d)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = d}};
}

int vmm_open(CUdevice d, size_t bytes, struct vmm *ret, struct err *err)
{
    CUmemAllocationProp prop = prop_of(d);
    CUmemAccessDesc access = {.location = prop.location,
                              .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    struct vmm v = {0};
    size_t page = 0;
    int r = GPU(mem_granularity(&page, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM), err);

    if (r < 0)
        return r;
    if (bytes > SIZE_MAX - page)
        return err_set(err, -ENOMEM, "%zu bytes are more than any device has", bytes);
    size_t size = (MAX(bytes, 1) + page - 1) / page * page;
    r = GPU(mem_create(&v.handle, size, &prop, 0), err);
    if (r < 0)
        return r;
    r = GPU(mem_reserve(&v.at, size, 0, 0, 0), err);
    if (r < 0) {
        (void)cu.mem_release(v.handle);
        return r;
    }
    r = GPU(mem_map(v.at, size, 0, v.handle, 0), err);
    v.bytes = r == 0 ? size : 0; /* of the mapping */
    if (r == 0)
        r = GPU(mem_access(v.at, size, &access, 1), err);
    if (r < 0) {
        if (v.bytes)
            (void)cu.mem_unmap(v.at, size);
        (void)cu.mem_unreserve(v.at, size);
        (void)cu.mem_release(v.handle);
        return r;
    }
    *ret = v;
    return 0;
}

void vmm_close(struct vmm *v)
{
    if (!v->bytes)
        return;
    (void)cu.mem_unmap(v->at, v->bytes);
    (void)cu.mem_unreserve(v->at, v->bytes);
    (void)cu.mem_release(v->handle);
    *v = (struct vmm){0};
}
