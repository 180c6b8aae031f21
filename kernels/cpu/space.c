/* DepthToSpace and SpaceToDepth are transposes of six dimensions. */
#include "kit.h"

static int plan_as_transpose(const struct cpu_args *a, const int64_t dims[6], const int64_t perm[6],
                             struct cpu_call *ret, struct err *err)
{
    struct attr attr = {.name = "perm", .type = ATTR_INTS, .n = 6, .ints = perm};
    struct node n = *a->node;
    struct tensor x = *a->in[0], y = *a->out[0];
    const struct tensor *in = &x, *out = &y;
    struct cpu_args six = {.node = &n, .in = &in, .out = &out, .arena = a->arena};

    x.rank = y.rank = n.n_attr = 0;
    for (uint32_t i = 0; i < 6; i++) {
        x.dims[x.rank++] = dims[i];
        y.dims[y.rank++] = dims[perm[i]];
    }
    n.attr = &attr;
    n.n_attr = 1;
    return plan_transpose(&six, ret, err);
}

/* A channel is [b, b, C], or [C, b, b] in mode CRD; the result is [N, C, H, b, W, b]. */
int plan_depth_to_space(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const int64_t *d = a->in[0]->dims, b = node_int(a->node, "blocksize", 1), c = d[1] / (b * b);

    if (STREQ(node_str(a->node, "mode", "DCR"), "CRD"))
        return plan_as_transpose(a, (const int64_t[]){d[0], c, b, b, d[2], d[3]},
                                 (const int64_t[]){0, 1, 4, 2, 5, 3}, ret, err);
    return plan_as_transpose(a, (const int64_t[]){d[0], b, b, c, d[2], d[3]},
                             (const int64_t[]){0, 3, 4, 1, 5, 2}, ret, err);
}

int plan_space_to_depth(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const int64_t *d = a->in[0]->dims, b = node_int(a->node, "blocksize", 1);

    return plan_as_transpose(a, (const int64_t[]){d[0], d[1], d[2] / b, b, d[3] / b, b},
                             (const int64_t[]){0, 3, 5, 1, 2, 4}, ret, err);
}
