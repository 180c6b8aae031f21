/* NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss.
 *
 *   X (N, C, d...)  target (N, d...) INT32 or INT64  weight (C)
 *   loss (N, d...), or one number when reduced; log_prob as X. */
#include "kit.h"
#include <math.h>

struct loss {
    const struct node *n;
    const struct tensor *x, *target, *weight, *log_prob;
    int64_t classes, each; /* each: d... */
    bool softmax;          /* x is not yet a logarithm of probabilities */
    bool ignores;
    int64_t ignored;
    double sum, weights;
};

/* The logarithm of class c's probability at the element that `at` (of N x d) points to. */
static double log_of(const struct loss *l, int64_t at, int64_t c)
{
    int64_t from = at / l->each * l->classes * l->each + at % l->each;
    double top = -(double)INFINITY, sum = 0;

    if (!l->softmax)
        return num_get(l->x, from + c * l->each).f;
    for (int64_t k = 0; k < l->classes; k++)
        top = fmax(top, num_get(l->x, from + k * l->each).f);
    for (int64_t k = 0; k < l->classes; k++)
        sum += exp(num_get(l->x, from + k * l->each).f - top);
    return num_get(l->x, from + c * l->each).f - top - log(sum);
}

static int loss_at(struct loss *l, int64_t at, double *ret, struct err *err)
{
    int64_t c = num_get(l->target, at).i;

    *ret = 0;
    if (l->ignores && c == l->ignored)
        return 0;
    if (c < 0 || c >= l->classes)
        return err_set(err, -EINVAL, "node '%s' (%s): target %lld of %lld classes", l->n->name,
                       op_name(l->n->op), (long long)c, (long long)l->classes);
    double w = l->weight ? num_get(l->weight, c).f : 1;
    *ret = -w * log_of(l, at, c);
    l->sum += *ret;
    l->weights += w;
    return 0;
}

static void put_log_prob(const struct loss *l)
{
    for (int64_t at = 0; l->log_prob && at < ref_count(l->target); at++)
        for (int64_t c = 0; c < l->classes; c++)
            num_put(l->log_prob, at / l->each * l->classes * l->each + c * l->each + at % l->each,
                    (union num){.f = log_of(l, at, c)});
}

static int loss_read(struct loss *l, const struct tensor *y, struct err *err)
{
    const struct node *n = l->n;
    const struct tensor *all[] = {l->x, l->weight, y, l->log_prob};
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0)
        return r;
    if (l->target->dtype != DT_INT64 && l->target->dtype != DT_INT32)
        return ref_no_type(n, l->target->dtype, err);
    if (l->x->rank < 2 || l->target->rank != l->x->rank - 1 || l->target->dims[0] != l->x->dims[0])
        return ref_fail(n, err, -EINVAL, "input and target do not go together");
    for (uint32_t d = 2; d < l->x->rank; d++)
        if (l->target->dims[d - 1] != l->x->dims[d])
            return ref_fail(n, err, -EINVAL, "input and target do not go together");
    l->classes = l->x->dims[1];
    l->each = ref_span(l->x, 2, l->x->rank);
    l->ignores = node_attr(n, "ignore_index") != NULL;
    l->ignored = node_int(n, "ignore_index", 0);
    if (l->log_prob && ref_count(l->log_prob) != ref_count(l->x))
        return ref_fail(n, err, -EINVAL, "input and log_prob differ in size");
    return ref_shaped(n, l->weight, 1, &l->classes, err);
}

static int loss_run(struct loss *l, const struct tensor *y, struct err *err)
{
    const char *reduction = node_str(l->n, "reduction", "mean");
    bool none = STREQ(reduction, "none"), mean = STREQ(reduction, "mean");
    int64_t count = ref_count(l->target);
    double v;
    int r = loss_read(l, y, err);

    if (r < 0)
        return r;
    if (ref_count(y) != (none ? count : 1))
        return ref_fail(l->n, err, -EINVAL, "the output's shape is not that of the reduction");
    for (int64_t at = 0; at < count; at++) {
        if ((r = loss_at(l, at, &v, err)) < 0)
            return r;
        if (none)
            num_put(y, at, (union num){.f = v});
    }
    if (!none)
        num_put(y, 0, (union num){.f = mean ? l->sum / l->weights : l->sum});
    put_log_prob(l);
    return 0;
}

REF_FN(ref_nll_loss)
{
    struct loss l = {.n = n, .x = in[0], .target = in[1], .weight = ref_in(n, in, 2)};

    return loss_run(&l, out[0], err);
}

REF_FN(ref_softmax_loss)
{
    struct loss l = {.n = n,
                     .x = in[0],
                     .target = in[1],
                     .weight = ref_in(n, in, 2),
                     .log_prob = ref_out(n, out, 1),
                     .softmax = true};

    return loss_run(&l, out[0], err);
}
