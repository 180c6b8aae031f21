/* Cast between all number types.  A float becomes an integer by truncation; what does not fit
 * wraps, as does a wide integer in a narrow type; NaN becomes 0.  BitCast keeps the bytes. */
#include "kit.h"

REF_FN(ref_cast)
{
    enum kind from = ref_kind(in[0]->dtype), to = ref_kind(out[0]->dtype);
    int64_t count = ref_count(out[0]);

    if (in[0]->dtype == DT_STRING || out[0]->dtype == DT_STRING)
        return ref_cast_text(n, in, out, err);
    if (from == KIND_NONE || to == KIND_NONE)
        return ref_no_type(n, from == KIND_NONE ? in[0]->dtype : out[0]->dtype, err);
    if (ref_count(in[0]) != count)
        return ref_fail(n, err, -EINVAL, "input and output differ in size");
    for (int64_t i = 0; i < count; i++)
        num_put(out[0], i, num_cast(num_get(in[0], i), from, to));
    return 0;
}

REF_FN(ref_bit_cast)
{
    if (in[0]->dtype == DT_STRING || in[0]->bytes != out[0]->bytes)
        return ref_fail(n, err, -EINVAL, "input and output differ in size");
    ref_copy(out[0]->data, in[0]->data, out[0]->bytes);
    return 0;
}
