/* Random numbers: the same on every machine and in every release. */
#include "random.h"

#include <math.h>

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Streams are far apart: each starts from its own mixed state. */
void random_seed(struct random *r, uint64_t seed, uint64_t stream)
{
    uint64_t x = seed;

    x = splitmix(&x) ^ (stream + 1) * UINT64_C(0xd1342543de82ef95);
    for (int i = 0; i < 4; i++)
        r->s[i] = splitmix(&x);
}

static uint64_t rotate(uint64_t x, unsigned k)
{
    return x << k | x >> (64 - k);
}

static uint64_t random_next(struct random *r)
{
    uint64_t *s = r->s, ret = rotate(s[0] + s[3], 23) + s[0], t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return ret;
}

double random_unit(struct random *r)
{
    return (double)((random_next(r) >> 11) + 1) * 0x1p-53;
}

double random_exp(struct random *r)
{
    return -log(random_unit(r));
}

/* Polar method of Marsaglia; the second value is not kept, so that a stream has no memory. */
double random_normal(struct random *r)
{
    double x, y, q;

    do {
        x = 2 * random_unit(r) - 1;
        y = 2 * random_unit(r) - 1;
        q = x * x + y * y;
    } while (q >= 1 || q == 0);
    return x * sqrt(-2 * log(q) / q);
}

/* Marsaglia and Tsang, "A simple method for generating gamma variables" (2000), for shapes of at
 * least 1; below, a variable of shape + 1 times a power of a uniform one. */
double random_gamma(struct random *r, double shape)
{
    double boost = shape < 1 ? pow(random_unit(r), 1 / shape) : 1;
    double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3, c = 1 / sqrt(9 * d);

    for (;;) {
        double x = random_normal(r), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        if (log(random_unit(r)) < 0.5 * x * x + d - d * v + d * log(v))
            return boost * d * v / shape;
    }
}
