/* Backends by name.  "cuda" is a shared object of its own, so that the daemon starts on a machine
 * without CUDA and the plug-in is installed apart. */
#include <dlfcn.h>
#include <gpulet/backend.h>
#include <stdio.h>

#ifndef GPULET_PLUGIN_DIR
#define GPULET_PLUGIN_DIR "/usr/lib/gpuletd"
#endif
#define CUDA_PLUGIN "gpulet-cuda.so"
#define MAX_GPUS 64 /* looked at to know whether there is one */

static const struct backend *const built_in[] = {&backend_cpu, &backend_sim};

static int plugin_open(const char *path, const struct backend **ret, struct err *err)
{
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!so)
        return err_set(err, -ENOENT, "backend 'cuda': %s", dlerror());
    const struct backend *b = dlsym(so, GPULET_BACKEND_SYMBOL);
    int r = 0;
    if (!b)
        r = err_set(err, -EINVAL, "backend 'cuda': %s has no symbol '%s'", path,
                    GPULET_BACKEND_SYMBOL);
    else if (b->abi != BACKEND_ABI)
        r = err_set(err, -EINVAL, "backend 'cuda': %s speaks ABI %u, this program %u", path, b->abi,
                    BACKEND_ABI);
    if (r < 0)
        (void)dlclose(so);
    else
        *ret = b;
    if (r == 0 && b->late)
        *b->late = &host_late;
    return r;
}

int backend_find(const char *name, const struct backend **ret, struct err *err)
{
    char path[512];

    for (size_t i = 0; i < ARRAY_SIZE(built_in); i++)
        if (STREQ(built_in[i]->name, name)) {
            *ret = built_in[i];
            return 0;
        }
    if (!STREQ(name, "cuda"))
        return err_set(err, -ENOENT, "backend '%s': there are auto, cpu, sim and cuda", name);
    const char *dir = getenv("GPULET_PLUGIN_DIR");
    (void)snprintf(path, sizeof(path), "%s/%s", dir ? dir : GPULET_PLUGIN_DIR, CUDA_PLUGIN);
    return plugin_open(path, ret, err);
}

int backend_choose(const char *name, const struct backend_config *cfg, const struct backend **ret,
                   struct err *no_gpu, struct err *err)
{
    struct device_info info[MAX_GPUS];
    size_t n;

    *no_gpu = (struct err){0};
    if (STREQ(name, "cpu"))
        (void)err_set(no_gpu, -ENODEV, "none is looked for, as device.backend is cpu and not auto");
    if (!STREQ(name, "auto"))
        return backend_find(name, ret, err);
    int r = backend_find("cuda", ret, err);
    if (r == 0)
        r = (*ret)->devices(cfg, info, MAX_GPUS, &n, err);
    if (r != -ENOENT && r != -ENODEV)
        return r;
    *no_gpu = *err;
    *ret = &backend_cpu;
    return 0;
}
