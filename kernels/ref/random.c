/* Random numbers that are the same in every run: from the attribute `seed` where there is one, else
 * from the node's name.  splitmix64 counted up, one stream a node. */
#include "kit.h"
#include <math.h>

static uint64_t seed_of(const struct node *n)
{
    const struct attr *a = node_attr(n, "seed");
    uint32_t bits;

    if (!a || a->type != ATTR_FLOAT)
        return hash_bytes(n->name, strlen(n->name)).lo;
    memcpy(&bits, &a->f, sizeof(bits));
    return bits;
}

static uint64_t next_bits(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* In [0, 1). */
static double next_uniform(uint64_t *state)
{
    return (double)(next_bits(state) >> 11) * 0x1p-53;
}

/* Box and Muller; 1 - u is never 0. */
static double next_normal(uint64_t *state)
{
    double radius = sqrt(-2 * log(1 - next_uniform(state)));

    return radius * cos(2 * M_PI * next_uniform(state));
}

REF_FN(ref_random)
{
    bool normal = n->op == OP_RandomNormal || n->op == OP_RandomNormalLike;
    double base = (double)(normal ? node_float(n, "mean", 0) : node_float(n, "low", 0));
    double span = (double)(normal ? node_float(n, "scale", 1) : node_float(n, "high", 1));
    uint64_t state = seed_of(n);

    (void)in;
    if (ref_kind(out[0]->dtype) != KIND_FLOAT)
        return ref_no_type(n, out[0]->dtype, err);
    for (int64_t i = 0; i < ref_count(out[0]); i++) {
        double v = normal ? base + span * next_normal(&state)
                          : base + (span - base) * next_uniform(&state);
        num_put(out[0], i, (union num){.f = v});
    }
    return 0;
}

REF_FN(ref_bernoulli)
{
    enum kind to = ref_kind(out[0]->dtype);
    uint64_t state = seed_of(n);
    int r = ref_floats(n, in, 1, err);

    if (r < 0)
        return r;
    if (to == KIND_NONE || ref_count(in[0]) != ref_count(out[0]))
        return ref_fail(n, err, -EINVAL, "input and output do not go together");
    for (int64_t i = 0; i < ref_count(out[0]); i++) {
        double p = num_get(in[0], i).f;
        if (!(p >= 0 && p <= 1))
            return err_set(err, -EINVAL, "node '%s' (Bernoulli): a probability of %g", n->name, p);
        bool hit = next_uniform(&state) < p;
        num_put(out[0], i, num_cast((union num){.u = hit}, KIND_UINT, to));
    }
    return 0;
}

/* Logarithms of weights, not normalised: the largest becomes 0 first. */
static int64_t pick(const struct tensor *x, int64_t from, int64_t classes, double at)
{
    double top = -(double)INFINITY, sum = 0;

    for (int64_t c = 0; c < classes; c++)
        top = fmax(top, num_get(x, from + c).f);
    for (int64_t c = 0; c < classes; c++)
        sum += exp(num_get(x, from + c).f - top);
    at *= sum;
    for (int64_t c = 0; c < classes; c++) {
        at -= exp(num_get(x, from + c).f - top);
        if (at < 0)
            return c;
    }
    return classes - 1;
}

REF_FN(ref_multinomial)
{
    uint64_t state = seed_of(n);
    int r = ref_floats(n, in, 1, err);

    if (r < 0)
        return r;
    if (in[0]->rank != 2 || in[0]->dims[1] < 1 || out[0]->rank != 2 ||
        out[0]->dims[0] != in[0]->dims[0] || ref_kind(out[0]->dtype) != KIND_INT)
        return ref_fail(n, err, -EINVAL, "input and output do not go together");
    int64_t classes = in[0]->dims[1], samples = out[0]->dims[1];
    for (int64_t i = 0; i < in[0]->dims[0] * samples; i++) {
        int64_t c = pick(in[0], i / samples * classes, classes, next_uniform(&state));
        num_put(out[0], i, (union num){.i = c});
    }
    return 0;
}
