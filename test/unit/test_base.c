#include "../check.h"
#include <gpulet/arena.h>
#include <gpulet/hist.h>
#include <gpulet/tensor.h>

static void wrapping_an_error_puts_context_in_front(void)
{
    struct err e = {0};

    CHECK_EQ(err_set(&e, -EINVAL, "rank %d", 9), -EINVAL);
    CHECK_EQ(err_wrap(&e, "node '%s': ", "a"), -EINVAL);
    CHECK_STR(e.msg, "node 'a': rank 9");
}

static void an_error_message_stays_on_one_line(void)
{
    struct err e = {0};

    (void)err_set(&e, -EINVAL, "name '%s'", "a\nb");
    CHECK_STR(e.msg, "name 'a?b'");
}

static void a_growing_arena_gives_zeroed_memory_of_any_size(void)
{
    struct arena a;

    arena_init(&a);
    for (size_t n = 1; n < 10000000; n *= 7) {
        unsigned char *p = arena_alloc(&a, n);
        CHECK(p && p[0] == 0 && p[n - 1] == 0);
        memset(p, 0xff, n);
    }
    CHECK(!arena_array(&a, SIZE_MAX / 2, 3));
    arena_done(&a);
}

static void an_arena_finds_what_one_before_it_gave_back(void)
{
    struct arena_cache c = {.limit_bytes = 1 << 20};
    void *first[3], *again;
    struct arena a;

    for (unsigned i = 0; i < 3; i++) {
        arena_init(&a);
        a.cache = &c;
        first[0] = arena_alloc(&a, 3000); /* of 4096 bytes; then 8192 */
        again = arena_alloc(&a, 3000);
        CHECK(i == 0 || (first[0] == first[1] && again == first[2]));
        CHECK(memcmp(again, (char[3000]){0}, 3000) == 0);
        memset(again, 7, 3000);
        first[1] = first[0];
        first[2] = again;
        arena_done(&a);
        CHECK_EQ(c.bytes, 4096 + 8192);
    }
    again = arena_cache_get(&c, 5000);
    CHECK(again == first[2]);
    CHECK_EQ(c.bytes, 4096);
    arena_cache_put(&c, again);
    arena_cache_done(&c);
    CHECK_EQ(c.bytes, 0);
}

static void a_cache_keeps_the_last_up_to_its_limit(void)
{
    struct arena_cache c = {.limit_bytes = 3 * 4096};
    void *p[4];

    for (unsigned i = 0; i < 4; i++)
        p[i] = arena_cache_get(&c, 4096);
    for (unsigned i = 0; i < 4; i++)
        arena_cache_put(&c, p[i]);
    CHECK_EQ(c.bytes, 3 * 4096); /* the first one has gone */
    arena_cache_put(&c, arena_cache_get(&c, 4 * 4096));
    CHECK_EQ(c.bytes, 3 * 4096); /* more than all of it */
    for (unsigned i = 4; i-- > 1;)
        CHECK(arena_cache_get(&c, 1) == p[i]);
    CHECK_EQ(c.bytes, 0);
    for (unsigned i = 1; i < 4; i++)
        arena_cache_put(NULL, p[i]);
}

static void a_fixed_arena_ends_at_its_buffer(void)
{
    char buf[256];
    struct arena a;

    arena_init_fixed(&a, buf, sizeof(buf));
    CHECK(arena_alloc(&a, 100));
    CHECK(!arena_alloc(&a, 200));
    CHECK(arena_alloc(&a, 16));
}

static void a_growing_arena_refuses_what_goes_beyond_its_limit(void)
{
    struct arena a;

    arena_init(&a);
    a.limit_bytes = 4096;
    CHECK(arena_alloc(&a, 4000));
    CHECK(!arena_alloc(&a, 200));
    CHECK(arena_alloc(&a, 96));
    CHECK(!arena_alloc(&a, 1));
    arena_done(&a);
}

static void a_quantile_is_right_within_a_32nd(void)
{
    static struct hist h;

    for (usec_t us = 1; us <= 100000; us++)
        hist_add(&h, us);
    usec_t p99 = hist_quantile(&h, 0.99);
    CHECK(p99 >= 99000 && p99 <= 99000 + 99000 / 32 + 1);
    CHECK_EQ(hist_quantile(&h, 1.0), 100000);
    CHECK_EQ(h.count, 100000);
}

static void merged_histograms_count_as_one(void)
{
    static struct hist a, b;

    hist_add(&a, 10);
    hist_add(&b, 30);
    hist_merge(&a, &b);
    CHECK_EQ(a.count, 2);
    CHECK_EQ(a.sum_us, 40);
    CHECK_EQ(hist_quantile(&a, 0.5), 10);
}

static void a_shape_whose_bytes_overflow_is_refused(void)
{
    struct tensor t = {0};
    const int64_t giant[] = {INT64_C(1) << 40, INT64_C(1) << 40};
    const int64_t hidden[] = {INT64_C(1) << 40, 0, INT64_C(1) << 40};
    const int64_t good[] = {2, 3};

    CHECK_EQ(tensor_shape(&t, DT_FP32, 2, giant), -EOVERFLOW);
    CHECK_EQ(tensor_shape(&t, DT_FP32, 3, hidden), -EOVERFLOW);
    CHECK_EQ(tensor_shape(&t, DT_FP32, 2, good), 0);
    CHECK_EQ(t.bytes, 24);
}

static void every_type_is_found_by_its_wire_name(void)
{
    for (unsigned t = 1; t < DT_END; t++)
        if (dtype_name(t)[0] != '?')
            CHECK_EQ(dtype_of(dtype_name(t), strlen(dtype_name(t))), t);
    CHECK_EQ(dtype_of("FP33", 4), DT_NONE);
}

int main(void)
{
    RUN(wrapping_an_error_puts_context_in_front);
    RUN(an_error_message_stays_on_one_line);
    RUN(a_growing_arena_gives_zeroed_memory_of_any_size);
    RUN(an_arena_finds_what_one_before_it_gave_back);
    RUN(a_cache_keeps_the_last_up_to_its_limit);
    RUN(a_fixed_arena_ends_at_its_buffer);
    RUN(a_growing_arena_refuses_what_goes_beyond_its_limit);
    RUN(a_quantile_is_right_within_a_32nd);
    RUN(merged_histograms_count_as_one);
    RUN(a_shape_whose_bytes_overflow_is_refused);
    RUN(every_type_is_found_by_its_wire_name);
    return check_end();
}
