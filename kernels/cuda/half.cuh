/* Between FP32 and 16 bits, and from one layout to another on the way. */
#include "kit.cuh"

KERNEL(half)
{
    EACH (i, a.n) {
        int64_t from, to;
        at_two(a.walk, i, &from, &to);
        put_as(a.to, a.y, to, number_as(a.from, a.x, from));
    }
}
