/* cuDNN: finding it, its errors, handles. */
#include "dnn.h"

#if HAS_CUDNN
#include <dlfcn.h>
#include <stdio.h>

#define DETAIL_BYTES 160

struct dnn dnn;

static struct nvlib library = {.name = "cuDNN"};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool fill(void *so)
{
    const char *missing = NULL;

#define CALL(name, declared)                                                                       \
    dnn.name = (__typeof__(dnn.name))dlsym(so, #declared);                                         \
    if (!dnn.name)                                                                                 \
        missing = #declared;
    DNN_CALLS(CALL)
#undef CALL
    if (missing)
        (void)snprintf(library.why, sizeof(library.why), "it lacks %s", missing);
    return !missing;
}

static void open_once(void)
{
    static const char *const sonames[] = {"libcudnn.so.9", NULL};
    void *so = nvlib_dlopen(sonames, &library);

    if (!so || !fill(so) || !nvlib_fits(&library, dnn.cudart_version()))
        return;
    size_t v = dnn.version(); /* 91900 */
    (void)snprintf(library.version, sizeof(library.version), "%zu.%zu.%zu", v / 10000,
                   v / 100 % 100, v % 100);
}

const struct nvlib *dnn_library(void)
{
    (void)pthread_once(&once, open_once);
    return &library;
}

/* ---- statuses: thousands say of what kind */
static int code_of(cudnnStatus_t s)
{
    static const int by_kind[] = {[1] = -ENODEV, [2] = -EINVAL, [3] = -ENOTSUP};
    unsigned kind = (unsigned)s / 1000;

    if (s == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
        s == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)
        return -ENOMEM;
    return kind > 0 && kind < ARRAY_SIZE(by_kind) ? by_kind[kind] : -EIO;
}

bool dnn_refuses(cudnnStatus_t s)
{
    return CUDNN_STATUS_CATEGORY(s) == CUDNN_STATUS_NOT_SUPPORTED;
}

/* Our name of a call, with its arguments behind it, becomes the library's. */
static const char *call_name(const char *ours)
{
    static const struct {
        const char *ours, *name;
    } names[] = {
#define CALL(name, declared) {#name, #declared},
        DNN_CALLS(CALL)
#undef CALL
    };
    size_t n = strcspn(ours, "(");

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strlen(names[i].ours) == n && memcmp(names[i].ours, ours, n) == 0)
            return names[i].name;
    return ours;
}

int dnn_check(cudnnStatus_t s, const char *call, struct err *err)
{
    char detail[DETAIL_BYTES] = "";

    if (s == CUDNN_STATUS_SUCCESS)
        return 0;
    dnn.last_error(detail, sizeof(detail));
    detail[strcspn(detail, "\n")] = 0;
    return err_set(err, code_of(s), "cuDNN: %s: %s (%d)%s%s", call_name(call), dnn.status_name(s),
                   (int)s, detail[0] ? ": " : "", detail);
}

/* ---- handles: one for each stream that its work goes to, which never changes */
cudnnHandle_t dnn_on(const struct part *p, CUstream stream)
{
    for (unsigned i = 0; i < p->levels.n; i++)
        if (p->line[i].stream == stream)
            return p->line[i].dnn;
    assert(stream == p->builders);
    return p->dnn;
}

/* Never on the legacy stream, which waits for every other. */
static int handle_open(struct cudnnContext **ret, CUstream stream, struct err *err)
{
    int r = DNN(create(ret), err);

    return r < 0 ? r : DNN(set_stream(*ret, stream), err);
}

static void handle_close(struct cudnnContext **h)
{
    if (*h)
        (void)dnn.destroy(*h);
    *h = NULL;
}

int dnn_part_open(struct part *p, struct err *err)
{
    if (!dnn_library()->version[0])
        return 0;
    int r = handle_open(&p->dnn, p->builders, err);
    for (unsigned i = 0; i < p->levels.n && r == 0; i++)
        r = handle_open(&p->line[i].dnn, p->line[i].stream, err);
    return r;
}

void dnn_part_close(struct part *p)
{
    for (unsigned i = p->levels.n; i-- > 0;)
        handle_close(&p->line[i].dnn);
    handle_close(&p->dnn);
}
#else
const struct nvlib *dnn_library(void)
{
    static const struct nvlib none = {.name = "cuDNN", .why = "built without its headers"};

    return &none;
}

int dnn_part_open(struct part *p, struct err *err)
{
    (void)p, (void)err;
    return 0;
}

void dnn_part_close(struct part *p)
{
    (void)p;
}

int dnn_conv(struct build *b, const struct node *n, const struct conv_args *a,
             const struct conv_refs *refs, bool *ret_taken)
{
    (void)b, (void)n, (void)a, (void)refs;
    *ret_taken = false;
    return 0;
}
#endif
