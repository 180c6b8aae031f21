/* Memory planning: lives that overlap get disjoint places, and room is reused. */
#include "../check.h"
#include <gpulet/model.h>

static size_t plan(struct buffer *b, uint32_t n)
{
    struct arena a;

    arena_init(&a);
    size_t total = memory_plan(b, n, &a);
    arena_done(&a);
    return total;
}

static void a_chain_needs_two_buffers(void)
{
    struct buffer b[] = {{.bytes = 128, .first = 0, .last = 1},
                         {.bytes = 128, .first = 1, .last = 2},
                         {.bytes = 128, .first = 2, .last = 3},
                         {.bytes = 128, .first = 3, .last = 4}};

    CHECK_EQ(plan(b, 4), 256);
    CHECK(b[0].offset != b[1].offset);
    CHECK_EQ(b[0].offset, b[2].offset);
    CHECK_EQ(b[1].offset, b[3].offset);
}

static void the_smallest_gap_that_fits_is_taken(void)
{
    /* After step 0 there are holes of 256 at 1024 and of 128 at 1792; the last wants 64. */
    struct buffer b[] = {{.bytes = 1024, .first = 0, .last = 9},
                         {.bytes = 256, .first = 0, .last = 0},
                         {.bytes = 512, .first = 0, .last = 9},
                         {.bytes = 64, .first = 1, .last = 9}};

    CHECK_EQ(plan(b, 4), 1792);
    CHECK_EQ(b[0].offset, 0);
    CHECK_EQ(b[2].offset, 1024);
    CHECK_EQ(b[1].offset, 1536);
    CHECK_EQ(b[3].offset, 1536); /* where the dead one was */
}

static void nothing_and_empty_buffers_need_nothing(void)
{
    struct buffer b[] = {{.bytes = 0, .first = 0, .last = 5}, {.bytes = 0, .first = 0, .last = 5}};

    CHECK_EQ(plan(NULL, 0), 0);
    CHECK_EQ(plan(b, 2), 0);
}

static void a_full_scratch_arena_gives_a_plan_without_reuse(void)
{
    struct buffer b[] = {{.bytes = 100, .first = 0, .last = 0},
                         {.bytes = 1, .first = 1, .last = 1}};
    char room[8];
    struct arena a;

    arena_init_fixed(&a, room, sizeof(room));
    CHECK_EQ(memory_plan(b, 2, &a), 192);
    CHECK_EQ(b[1].offset, 128);
}

static uint64_t seed;
static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

static bool clash(const struct buffer *a, const struct buffer *b)
{
    return a->first <= b->last && b->first <= a->last && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

static void check_random(uint32_t n)
{
    static struct buffer b[200], again[200];
    size_t sum = 0, end = 0, clashes = 0, crooked = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t first = rnd(60);
        b[i] = (struct buffer){
            .bytes = rnd(3) ? rnd(5000) : 0, .first = first, .last = first + rnd(12)};
        sum += align_up(b[i].bytes, 64);
        again[i] = b[i];
    }
    size_t total = plan(b, n);
    for (uint32_t i = 0; i < n; i++) {
        end = MAX(end, b[i].offset + b[i].bytes);
        crooked += b[i].offset % 64 != 0;
        for (uint32_t j = 0; j < i; j++)
            clashes += clash(&b[i], &b[j]);
    }
    CHECK_EQ(clashes, 0);
    CHECK_EQ(crooked, 0);
    CHECK(end <= total && total <= sum);
    CHECK_EQ(plan(again, n), total);
    CHECK_EQ(memcmp(b, again, n * sizeof(*b)), 0);
}

static void random_lives_never_clash_and_plans_repeat(void)
{
    for (seed = 1; seed < 300; seed++) {
        uint64_t keep = seed;
        check_random(1 + rnd(200));
        seed = keep;
    }
}

static void lives_in_layers_come_close_to_the_peak(void)
{
    struct buffer b[64];
    size_t peak = 0;

    for (uint32_t i = 0; i < 64; i++) /* like a residual network: two short lives, one longer */
        b[i] = (struct buffer){.bytes = 4096u << (i % 3), .first = i, .last = i + 1 + i % 3};
    for (uint32_t s = 0; s < 70; s++) {
        size_t live = 0;
        for (uint32_t i = 0; i < 64; i++)
            live += b[i].first <= s && s <= b[i].last ? b[i].bytes : 0;
        peak = MAX(peak, live);
    }
    CHECK(plan(b, 64) <= peak + peak / 4);
}

int main(void)
{
    RUN(a_chain_needs_two_buffers);
    RUN(the_smallest_gap_that_fits_is_taken);
    RUN(nothing_and_empty_buffers_need_nothing);
    RUN(a_full_scratch_arena_gives_a_plan_without_reuse);
    RUN(random_lives_never_clash_and_plans_repeat);
    RUN(lives_in_layers_come_close_to_the_peak);
    return check_end();
}
