/* Elements in another place: copies by strides, filling, gathering. */
#include "kit.cuh"

KERNEL(copy)
{
    EACH (i, a.n) {
        int64_t from, to;
        at_two(a.walk, i, &from, &to);
        move(a.y, a.to + to, a.x, a.from + from, a.size);
    }
}

KERNEL(fill)
{
    EACH (i, a.n)
        move(a.y, i, &a.bits, 0, a.size); /* little-endian: the lowest bytes */
}

/* An index out of range would be a fault of the whole process: it is noted, and harmless. */
KERNEL(gather)
{
    EACH (i, a.n) {
        int64_t in = i % a.inner, k = i / a.inner % a.n_index, o = i / a.inner / a.n_index;
        int64_t row = a.index_type == GPU_S32 ? ((const int32_t *)a.index)[k]
                                              : ((const int64_t *)a.index)[k];
        row += row < 0 ? a.axis : 0;
        if (row < 0 || row >= a.axis) {
            *a.bad = 1;
            row = 0;
        }
        move(a.y, i, a.x, (o * a.axis + row) * a.inner + in, a.size);
    }
}
