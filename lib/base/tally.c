/* Tallies: see tally.h.  The bounds are few and the same for all, so that what different versions,
 * models and machines counted can be added up. */
#include <gpulet/tally.h>

const uint64_t tally_us[TALLY_BOUNDS] = {20,     50,     100,     250,     500,      1000,
                                         2500,   5000,   10000,   25000,   50000,    100000,
                                         250000, 500000, 1000000, 2500000, 10000000, 60000000};
const uint64_t tally_permille[TALLY_BOUNDS] = {250,  500,  700,  800,  900,  950,
                                               980,  990,  1000, 1010, 1020, 1050,
                                               1100, 1200, 1500, 2000, 4000, 16000};

void tally_add(struct tally *t, const uint64_t bound[TALLY_BOUNDS], uint64_t value)
{
    unsigned i = 0;

    while (i < TALLY_BOUNDS && value > bound[i])
        i++;
    atomic_fetch_add_explicit(&t->n[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->sum, value, memory_order_relaxed);
}

void tally_copy(const struct tally *from, struct tally *ret)
{
    for (unsigned i = 0; i <= TALLY_BOUNDS; i++)
        ret->n[i] = atomic_load_explicit(&from->n[i], memory_order_relaxed);
    ret->sum = atomic_load_explicit(&from->sum, memory_order_relaxed);
}

uint64_t tally_count(const struct tally *t)
{
    uint64_t n = 0;

    for (unsigned i = 0; i <= TALLY_BOUNDS; i++)
        n += atomic_load_explicit(&t->n[i], memory_order_relaxed);
    return n;
}
