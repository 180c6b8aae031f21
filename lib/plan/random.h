/* Random numbers for simulations: xoshiro256++ (Blackman and Vigna, 2019), seeded by splitmix64.
 * Pure: the state is the caller's, equal seeds give equal numbers. */
#pragma once

#include <gpulet/base.h>

struct random {
    uint64_t s[4];
};
void random_seed(struct random *r, uint64_t seed, uint64_t stream);
double random_unit(struct random *r);                /* (0, 1] */
double random_exp(struct random *r);                 /* mean 1 */
double random_normal(struct random *r);              /* mean 0, variance 1 */
double random_gamma(struct random *r, double shape); /* mean 1: scale is 1 / shape */
