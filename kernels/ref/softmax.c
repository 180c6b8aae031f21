/* Softmax and LogSoftmax: over one axis since opset 13, over all from `axis` on before. */
#include "kit.h"
#include <math.h>

/* n elements from `from`, `step` apart. */
static void softmax_row(const struct tensor *x, const struct tensor *y, int64_t from, int64_t n,
                        int64_t step, bool log_of)
{
    double top = -(double)INFINITY, sum = 0;

    for (int64_t i = 0; i < n; i++)
        top = fmax(top, num_get(x, from + i * step).f);
    for (int64_t i = 0; i < n; i++)
        sum += exp(num_get(x, from + i * step).f - top);
    for (int64_t i = 0; i < n; i++) {
        double v = num_get(x, from + i * step).f - top;
        num_put(y, from + i * step, (union num){.f = log_of ? v - log(sum) : exp(v) / sum});
    }
}

REF_FN(ref_softmax)
{
    const struct tensor *x = in[0];
    bool one_axis = n->opset >= 13;
    uint32_t axis, rank = x->rank;
    int64_t given = node_int(n, "axis", one_axis ? -1 : 1);
    /* An axis that cuts the shape in two may lie at its end, but -1 is the last one. */
    int r = ref_axis(n, given, rank + (!one_axis && given >= 0), &axis, err);

    if (r < 0 || (r = ref_floats(n, in, 1, err)) < 0)
        return r;
    if (out[0]->dtype != x->dtype || ref_count(out[0]) != ref_count(x))
        return ref_fail(n, err, -EINVAL, "input and output differ in type or size");
    int64_t count = one_axis ? x->dims[axis] : ref_span(x, axis, rank);
    int64_t step = one_axis ? ref_span(x, axis + 1, rank) : 1;
    int64_t outer = ref_span(x, 0, axis);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < step; i++)
            softmax_row(x, out[0], o * count * step + i, count, step, n->op == OP_LogSoftmax);
    return 0;
}
