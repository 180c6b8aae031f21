/* Graphs, captured or built by hand; and calls that only tools make: mapped host memory, asking
 * events. */
#include "fake.h"
#include "fake_inside.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CUgraphNode_st {
    CUDA_KERNEL_NODE_PARAMS is;
    void (*fn)(const void *args); /* captured: this is done; NULL: the kernel */
    void *args;
    size_t bytes; /* of args */
    CUgraphNode next;
};
struct CUgraph_st {
    CUcontext ctx; /* that it was captured in, or NULL */
    CUgraphNode first, last;
};
/* Its own copy of the nodes: the graph may be destroyed. */
struct CUgraphExec_st {
    struct CUgraph_st g;
    bool uploaded;
};

/* The driver knows how large a kernel's arguments are; the host's kernels say it beside themselves.
 */
unsigned fake_args_bytes(CUkernel k)
{
    char name[128];
    Dl_info of;
    void *so;

    if (!dladdr((void *)k, &of) || !of.dli_sname || !(so = dlopen(of.dli_fname, RTLD_NOW)))
        return 0;
    (void)snprintf(name, sizeof(name), "%s_args_bytes", of.dli_sname);
    const unsigned *bytes = dlsym(so, name);
    unsigned n = bytes ? *bytes : 0;
    (void)dlclose(so);
    return n;
}

static CUgraphNode node_add(CUgraph g, const struct CUgraphNode_st *like, const void *args)
{
    CUgraphNode n = calloc(1, sizeof(*n));

    if (!n || like->bytes == 0 || !(n->args = malloc(like->bytes))) {
        free(n);
        return NULL;
    }
    n->is = like->is;
    n->fn = like->fn;
    n->bytes = like->bytes;
    memcpy(n->args, args, n->bytes);
    if (g->last)
        g->last->next = n;
    else
        g->first = n;
    return g->last = n;
}

static void nodes_free(CUgraph g)
{
    for (CUgraphNode n = g->first, next; n; n = next) {
        next = n->next;
        free(n->args);
        free(n);
    }
}

CUgraph fake_graph_new(CUcontext ctx)
{
    CUgraph g = calloc(1, sizeof(*g));

    if (g)
        g->ctx = ctx;
    return g;
}

void fake_graph_add(CUgraph g, void (*fn)(const void *), const void *data, size_t bytes)
{
    struct CUgraphNode_st n = {.fn = fn, .bytes = bytes};

    if (!node_add(g, &n, data))
        abort();
}

void fake_graph_free(CUgraph g)
{
    nodes_free(g);
    free(g);
}

static CUresult f_graph_create(CUgraph *ret, unsigned flags)
{
    CUresult r = fake_enter("cuGraphCreate");

    (void)flags;
    if (r == CUDA_SUCCESS && !(*ret = calloc(1, sizeof(**ret))))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    return fake_leave(r);
}

static CUresult f_graph_destroy(CUgraph g)
{
    CUresult r = fake_enter("cuGraphDestroy");

    nodes_free(g);
    free(g);
    return fake_leave(r);
}

/* A chain: each node behind the last. */
static CUresult f_graph_kernel(CUgraphNode *ret, CUgraph g, const CUgraphNode *before, size_t n,
                               const CUDA_KERNEL_NODE_PARAMS *p)
{
    CUresult r = fake_enter("cuGraphAddKernelNode");

    if (r == CUDA_SUCCESS && (p->func || !p->kern || !p->ctx || n != (g->last != NULL) ||
                              (n == 1 && before[0] != g->last)))
        r = CUDA_ERROR_INVALID_VALUE;
    struct CUgraphNode_st like = {.is = *p, .bytes = p->kern ? fake_args_bytes(p->kern) : 0};
    if (r == CUDA_SUCCESS && !(*ret = node_add(g, &like, p->kernelParams[0])))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    return fake_leave(r);
}

static CUresult f_graph_kernel_is(CUgraphNode n, CUDA_KERNEL_NODE_PARAMS *ret)
{
    CUresult r = fake_enter("cuGraphKernelNodeGetParams");

    *ret = n->is;
    return fake_leave(r);
}

static CUresult f_graph_open(CUgraphExec *ret, CUgraph g, unsigned long long flags)
{
    CUresult r = fake_enter("cuGraphInstantiateWithFlags");

    (void)flags;
    if (r == CUDA_SUCCESS && fake_unsafe())
        r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (r == CUDA_SUCCESS && !(*ret = calloc(1, sizeof(**ret))))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    for (CUgraphNode n = g->first; n && r == CUDA_SUCCESS; n = n->next)
        if (!node_add(&(*ret)->g, n, n->args))
            r = CUDA_ERROR_OUT_OF_MEMORY;
    if (r == CUDA_SUCCESS) {
        (*ret)->g.ctx = g->ctx;
        fake_hold_graphs(g->ctx, 1);
    }
    return fake_leave(r);
}

static CUresult f_graph_close(CUgraphExec x)
{
    CUresult r = fake_enter("cuGraphExecDestroy");

    fake_hold_graphs(x->g.ctx, -1);
    nodes_free(&x->g);
    free(x);
    return fake_leave(r);
}

static CUresult f_graph_upload(CUgraphExec x, CUstream s)
{
    CUresult r = fake_enter("cuGraphUpload");

    x->uploaded |= r == CUDA_SUCCESS;
    return fake_leave(r == CUDA_SUCCESS ? fake_on(s) : r);
}

/* A node runs in the context that it was made for, whatever the stream. */
static CUresult f_graph_launch(CUgraphExec x, CUstream s)
{
    CUresult r = fake_enter("cuGraphLaunch");

    fake_trace("cuGraphLaunch", s);
    if (r == CUDA_SUCCESS)
        r = fake_on(s);
    if (r == CUDA_SUCCESS && x->g.ctx && x->g.ctx != fake_context(s))
        fake_broken("a captured graph is launched in its own context");
    if (r == CUDA_SUCCESS && !x->uploaded)
        fake_broken("a graph is uploaded before it is launched first");
    for (CUgraphNode n = x->g.first; n && r == CUDA_SUCCESS; n = n->next) {
        fake_does(s, n->args, n->bytes);
        if (n->fn)
            n->fn(n->args);
        else
            r = fake_run((CUfunction)n->is.kern, n->is.ctx, n->is.gridDimX, n->is.blockDimX,
                         n->args);
    }
    return fake_leave(r);
}

static CUresult f_mem_info(size_t *ret_free, size_t *ret_total)
{
    CUresult r = fake_enter("cuMemGetInfo");

    *ret_free = *ret_total = (size_t)8 << 30;
    return fake_leave(r);
}

static CUresult f_host_pointer(CUdeviceptr *ret, void *p, unsigned flags)
{
    CUresult r = fake_enter("cuMemHostGetDevicePointer");

    (void)flags;
    *ret = (CUdeviceptr)p;
    return fake_leave(r);
}

static CUresult f_copy_within(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s)
{
    CUresult r = fake_enter("cuMemcpyDtoDAsync");

    if (r == CUDA_SUCCESS && (r = fake_on(s)) == CUDA_SUCCESS)
        memcpy((void *)to, (const void *)from, bytes);
    return fake_leave(r);
}

static CUresult f_event_wait(CUevent e)
{
    (void)e;
    return fake_leave(fake_enter("cuEventSynchronize"));
}

static CUresult f_event_ask(CUevent e)
{
    (void)e;
    return fake_leave(fake_enter("cuEventQuery"));
}

void *fake_more(const char *name, int version)
{
    static const struct {
        const char *name;
        int since;
        void *fn;
    } calls[] = {
        {"cuGraphCreate", 10000, f_graph_create},
        {"cuGraphDestroy", 10000, f_graph_destroy},
        {"cuGraphAddKernelNode", 12000, f_graph_kernel},
        {"cuGraphKernelNodeGetParams", 12000, f_graph_kernel_is},
        {"cuGraphInstantiateWithFlags", 11040, f_graph_open},
        {"cuGraphExecDestroy", 10000, f_graph_close},
        {"cuGraphUpload", 11010, f_graph_upload},
        {"cuGraphLaunch", 10000, f_graph_launch},
        {"cuMemGetInfo", 3020, f_mem_info},
        {"cuMemHostGetDevicePointer", 3020, f_host_pointer},
        {"cuMemcpyDtoDAsync", 3020, f_copy_within},
        {"cuEventSynchronize", 2000, f_event_wait},
        {"cuEventQuery", 2000, f_event_ask},
    };

    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
        if (strcmp(calls[i].name, name) == 0 && calls[i].since <= version)
            return calls[i].fn;
    return NULL;
}
