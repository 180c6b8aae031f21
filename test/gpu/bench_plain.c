/* A model as its file has it: without the passes that fold and fuse, to see what these are worth.
 */
#include "bench.h"

#include <fcntl.h>
#include <gpulet/model.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map(const char *folder, struct mapping *ret, struct err *err)
{
    char path[4096];
    struct stat st;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, MODEL_FILE);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *base = fd < 0 || fstat(fd, &st) < 0
                     ? MAP_FAILED
                     : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int r = base == MAP_FAILED ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;

    if (fd >= 0)
        (void)close(fd);
    if (r == 0)
        *ret = (struct mapping){base, (size_t)st.st_size, true};
    return r;
}

int plain_open(const char *folder, struct plain *ret, struct err *err)
{
    int r = map(folder, &ret->file, err);

    if (r == 0)
        r = onnx_read(&ret->file, folder, NULL, &ret->graph, &ret->ext, &ret->n_ext, err);
    return r < 0 ? r : graph_ready(ret->graph, err);
}

void plain_close(struct plain *p)
{
    graph_free(p->graph);
    for (uint32_t i = 0; i < p->n_ext; i++)
        (void)munmap((void *)(uintptr_t)p->ext[i].base, p->ext[i].bytes);
    free(p->ext);
    if (p->file.base)
        (void)munmap((void *)(uintptr_t)p->file.base, p->file.bytes);
    *p = (struct plain){0};
}
