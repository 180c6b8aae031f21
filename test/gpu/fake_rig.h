/* The plug-in, opened as the daemon opens it, over the fake driver.  Each test runs in a process of
 * its own: what a driver has seen stays with the process. */
#pragma once

#include "fake.h"
#include "test/check.h"

#include <dlfcn.h>
#include <gpulet/backend.h>
#include <sys/wait.h>
#include <unistd.h>

static struct fake_gpu *fake;
static const struct backend *be;
static struct err err;

/* NAME in the folder of this program, or UP folders above it. */
static inline const char *beside(const char *up, const char *name)
{
    static char path[512];
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    assert(n > 0);
    self[n] = 0;
    *strrchr(self, '/') = 0;
    (void)snprintf(path, sizeof(path), "%s/%s%s", self, up, name);
    return path;
}

static inline void open_fake(void)
{
    /* Found again by their sonames, when the plug-in asks for them. */
    void *so = dlopen(beside("", "libcuda.so.1"), RTLD_NOW);

    if (!so || !dlopen(beside("", "libnvidia-ml.so.1"), RTLD_NOW))
        printf("# %s\n", dlerror());
    assert(so);
    if (!dlopen(beside("", "libcublasLt.so.13"), RTLD_NOW) ||
        !dlopen(beside("", "libcudnn.so.9"), RTLD_NOW))
        printf("# %s\n", dlerror());
    fake = ((fake_gpu_fn *)dlsym(so, FAKE_SYMBOL))();
}

static inline void open_plugin(void)
{
    (void)setenv("GPULET_PLUGIN_DIR", beside("../..", ""), 1);
    if (backend_find("cuda", &be, &err) < 0)
        printf("# %s\n", err.msg);
    assert(be);
}

static inline void check_alone(void (*fn)(void), const char *name)
{
    fflush(stdout);
    pid_t child = fork();
    int status = -1;

    if (child == 0) {
        check_run(fn, name);
        exit(check_failures ? 1 : 0);
    }
    (void)waitpid(child, &status, 0);
    if (!WIFEXITED(status))
        printf("not ok - %s: it ended with signal %d\n", name, WTERMSIG(status));
    check_total_failures += status != 0;
}
#define ALONE(fn) check_alone(fn, #fn)

static inline struct granules granules_of(unsigned from, unsigned n)
{
    struct granules s = {{0}};

    for (unsigned i = from; i < from + n; i++)
        granules_add(&s, i);
    return s;
}

static inline void forget_calls(void)
{
    fake->used = fake->traced = 0;
    memset(fake->log, 0, sizeof(fake->log));
    memset(fake->trace, 0, sizeof(fake->trace));
}

/* The call was made, and the last time after `before` was. */
static inline bool called(const char *name)
{
    char line[64];

    (void)snprintf(line, sizeof(line), "%s\n", name);
    return strstr(fake->log, line) != NULL;
}

static inline unsigned count_calls(const char *name)
{
    unsigned n = 0;

    for (const char *p = fake->log; *p; p += strcspn(p, "\n") + 1)
        n += strncmp(p, name, strlen(name)) == 0 && p[strlen(name)] == '\n';
    return n;
}

static inline size_t last_call(const char *name)
{
    char line[64];
    size_t at = 0;

    (void)snprintf(line, sizeof(line), "%s\n", name);
    for (const char *p = fake->log; (p = strstr(p, line)); p++)
        at = (size_t)(p - fake->log) + 1;
    return at;
}

/* Everything is given back, and no rule was broken. */
static inline void check_clean(void)
{
    CHECK_EQ(fake->contexts + fake->green + fake->streams + fake->mappings + fake->registered +
                 fake->primaries + fake->events + fake->allocations + fake->handles +
                 fake->descriptors + fake->graphs,
             0);
    CHECK_STR(fake->rule ? fake->rule : "", "");
}
