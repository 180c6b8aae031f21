/* Pages of mapped files. */
#include <gpulet/base.h>
#include <sys/mman.h>
#include <unistd.h>

void pages_drop(const void *data, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = align_up((uintptr_t)data, page);
    uintptr_t to = ((uintptr_t)data + bytes) & ~(page - 1);

    if (from < to)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}
