/* The slab pool, and the completion queue. */
#include "test/check.h"

#include <gpulet/request.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

static struct pool *pool_of(size_t bytes)
{
    struct pool *p = NULL;
    struct err err;

    CHECK_EQ(pool_new(bytes, &p, &err), 0);
    return p;
}

static size_t resident(struct pool *p)
{
    int fd;
    void *base;
    size_t bytes;
    struct stat st;

    (void)pool_region(p, &fd, &base, &bytes);
    CHECK_EQ(fstat(fd, &st), 0);
    return (size_t)st.st_blocks * 512;
}

static void slabs_lie_in_the_region_aligned_and_apart(void)
{
    struct pool *p = pool_of(MIB);
    struct slab *s[100];
    int fd;
    void *base;
    size_t bytes;

    (void)pool_region(p, &fd, &base, &bytes);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(slab_new(p, 1 + i * 37, &s[i]), 0);
        CHECK(s[i]->bytes >= 1 + i * 37);
        CHECK_EQ((uintptr_t)s[i]->data % 64, 0);
        CHECK((char *)s[i]->data == (char *)base + s[i]->offset);
        CHECK(s[i]->offset + s[i]->bytes <= bytes);
        memset(s[i]->data, (int)i, s[i]->bytes);
    }
    for (unsigned i = 0; i < 100; i++) {
        const unsigned char *d = s[i]->data;
        for (size_t k = 0; k < s[i]->bytes; k++)
            if (d[k] != i) {
                CHECK(!"a slab keeps its bytes");
                break;
            }
        slab_put(s[i]);
    }
    CHECK_EQ(pool_used_bytes(p), 0);
    pool_free(p);
}

static void everything_that_was_promised_can_be_had(void)
{
    struct pool *p = pool_of(64 * KIB);
    struct slab *s[65];

    for (unsigned i = 0; i < 64; i++)
        CHECK_EQ(slab_new(p, KIB, &s[i]), 0);
    CHECK_EQ(pool_used_bytes(p), 64 * KIB);
    CHECK_EQ(slab_new(p, 1, &s[64]), -ENOMEM);
    for (unsigned i = 0; i < 64; i++)
        slab_put(s[i]);
    CHECK_EQ(slab_new(p, 64 * KIB, &s[0]), 0); /* the pieces have grown together again */
    CHECK_EQ(slab_new(p, 1, &s[1]), -ENOMEM);
    slab_put(s[0]);
    CHECK_EQ(slab_new(p, 64 * KIB + 1, &s[0]), -ENOMEM);
    CHECK_EQ(slab_new(p, SIZE_MAX, &s[0]), -ENOMEM);
    pool_free(p);
}

static void odd_sizes_cost_what_they_are_and_not_a_power_of_two(void)
{
    struct pool *p = pool_of(4 * 600 * KIB);
    struct slab *s[4];

    for (unsigned i = 0; i < 4; i++) /* four blocks of 1 MiB, were they counted so */
        CHECK_EQ(slab_new(p, 600 * KIB, &s[i]), 0);
    for (unsigned i = 0; i < 4; i++)
        slab_put(s[i]);
    CHECK_EQ(pool_used_bytes(p), 0);
    pool_free(p);
}

static void a_slab_lives_until_its_last_reference(void)
{
    struct pool *p = pool_of(MIB);
    struct slab *s;

    CHECK_EQ(slab_new(p, 100, &s), 0);
    CHECK(slab_get(s) == s);
    slab_put(s);
    CHECK_EQ(pool_used_bytes(p), KIB);
    slab_put(s);
    CHECK_EQ(pool_used_bytes(p), 0);
    slab_put(NULL);
    pool_free(p);
}

static void large_pieces_go_back_to_the_kernel(void)
{
    struct pool *p = pool_of(256 * MIB);
    struct slab *s[4];

    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(slab_new(p, 32 * MIB, &s[i]), 0);
        memset(s[i]->data, 1, s[i]->bytes);
    }
    CHECK(resident(p) >= 128 * MIB);
    for (unsigned i = 0; i < 4; i++)
        slab_put(s[i]);
    CHECK(resident(p) <= 8 * MIB);
    pool_free(p);
}

static void many_small_pieces_go_back_too(void)
{
    enum { N = 4096 };
    static struct slab *s[N];
    struct pool *p = pool_of(64 * MIB);

    for (unsigned i = 0; i < N; i++) {
        CHECK_EQ(slab_new(p, 16 * KIB, &s[i]), 0);
        memset(s[i]->data, 1, s[i]->bytes);
    }
    CHECK(resident(p) >= 64 * MIB);
    for (unsigned i = 0; i < N; i++)
        slab_put(s[i]);
    CHECK(resident(p) <= 16 * MIB);
    pool_free(p);
}

static void a_window_that_a_device_holds_is_used_first_and_stays(void)
{
    struct pool *p = pool_of(256 * MIB);
    struct slab *s[4], *room;
    struct stat st;
    size_t bytes;
    void *base;
    int fd;

    (void)pool_region(p, &fd, &base, &bytes);
    CHECK_EQ(pool_window_bytes(p), 256 * MIB);
    pool_hold(p);
    for (unsigned turn = 0; turn < 3; turn++) {
        for (unsigned i = 0; i < 4; i++) {
            CHECK_EQ(slab_new(p, 33 * MIB, &s[i]), 0);
            CHECK(s[i]->offset < 256 * MIB);
            memset(s[i]->data, 1, s[i]->bytes);
        }
        CHECK_EQ(slab_new_room(p, MIB, 64 * MIB, &room), 0);
        CHECK(room->offset >= 256 * MIB); /* no input */
        slab_put(room);
        for (unsigned i = 0; i < 4; i++)
            slab_put(s[i]);
    }
    CHECK(fstat(fd, &st) == 0 && (size_t)st.st_blocks * 512 >= 4 * 33 * MIB);
    CHECK_EQ(((char *)base)[33 * MIB - 1], 1); /* these very pages */
    pool_free(p);
}

static void what_a_window_has_no_room_for_lies_behind_it_and_goes_back(void)
{
    struct pool *p = pool_of(100 * MIB);
    size_t window = pool_window_bytes(p), held;
    struct slab *s[30];
    bool behind = false;

    CHECK_EQ(window, 64 * MIB);
    pool_hold(p);
    for (unsigned i = 0; i < 30; i++) { /* of blocks of 4 MiB */
        CHECK_EQ(slab_new(p, 3 * MIB, &s[i]), 0);
        CHECK(s[i]->offset >= window || s[i]->offset + s[i]->bytes <= window);
        behind |= s[i]->offset >= window;
        memset(s[i]->data, 1, s[i]->bytes);
    }
    CHECK(behind);
    for (unsigned i = 0; i < 30; i++)
        slab_put(s[i]);
    held = resident(p);
    CHECK(held >= 16 * 3 * MIB && held <= (16 * 3 + 8) * MIB);
    CHECK_EQ(slab_new(p, 100 * MIB, &s[0]), 0); /* the pieces have grown together again */
    CHECK(s[0]->offset >= window);
    slab_put(s[0]);
    pool_free(p);
}

static void a_slab_with_room_grows_where_it_is(void)
{
    struct pool *p = pool_of(64 * MIB);
    struct slab *s, *small;

    CHECK_EQ(slab_new_room(p, 100 * KIB, 48 * MIB, &s), 0);
    CHECK_EQ(pool_used_bytes(p), 100 * KIB); /* room is address space only */
    CHECK_EQ(slab_new(p, KIB, &small), 0);   /* not in its way */
    memset(s->data, 7, s->bytes);
    const unsigned char *was = s->data;
    for (size_t bytes = MIB; bytes <= 48 * MIB; bytes += MIB) {
        CHECK_EQ(slab_grow(s, bytes), 0);
        CHECK_EQ(s->bytes, bytes);
        CHECK_EQ(pool_used_bytes(p), bytes + KIB);
        memset((char *)s->data + bytes - KIB, 7, KIB);
    }
    CHECK(s->data == was && was[0] == 7 && was[100 * KIB - 1] == 7 && was[48 * MIB - 1] == 7);
    CHECK_EQ(slab_grow(s, 10 * MIB), 0); /* it does not shrink */
    CHECK_EQ(s->bytes, 48 * MIB);
    slab_put(s);
    CHECK_EQ(pool_used_bytes(p), KIB);
    slab_put(small);
    CHECK_EQ(slab_new(p, 64 * MIB, &s), 0);
    slab_put(s);
    pool_free(p);
}

static void a_slab_grows_as_far_as_its_block_and_the_pool(void)
{
    struct pool *p = pool_of(8 * MIB);
    struct slab *s, *other;

    CHECK_EQ(slab_new(p, 3 * KIB, &s), 0); /* a block of 4 */
    CHECK_EQ(slab_grow(s, 4 * KIB), 0);
    CHECK_EQ(slab_grow(s, 4 * KIB + 1), -ENOSPC);
    CHECK_EQ(s->bytes, 4 * KIB);
    slab_put(s);
    CHECK_EQ(slab_new_room(p, MIB, 8 * MIB, &s), 0);
    CHECK_EQ(slab_new(p, 4 * MIB, &other), 0);
    CHECK_EQ(slab_grow(s, 4 * MIB), 0);
    CHECK_EQ(slab_grow(s, 4 * MIB + 1), -ENOMEM);
    CHECK_EQ(s->bytes, 4 * MIB);
    CHECK_EQ(pool_used_bytes(p), 8 * MIB);
    slab_put(other);
    CHECK_EQ(slab_grow(s, 8 * MIB), 0);
    slab_put(s);
    CHECK_EQ(pool_used_bytes(p), 0);
    pool_free(p);
}

static void slabs_with_room_leave_the_others_theirs(void)
{
    struct pool *p = pool_of(16 * MIB);
    struct slab *s[16], *rest[16];
    unsigned n = 0;

    while (n < 16 && slab_new_room(p, KIB, 8 * MIB, &s[n]) == 0)
        n++;
    CHECK_EQ(n, 4); /* half of an address space of 64 MiB */
    for (unsigned i = 0; i < 15; i++)
        CHECK_EQ(slab_new(p, MIB, &rest[i]), 0);
    for (unsigned i = 0; i < 15; i++)
        slab_put(rest[i]);
    slab_put(s[0]);
    CHECK_EQ(slab_new_room(p, KIB, 8 * MIB, &s[0]), 0);
    for (unsigned i = 0; i < n; i++)
        slab_put(s[i]);
    CHECK_EQ(pool_used_bytes(p), 0);
    pool_free(p);
}

static void a_pool_without_sense_is_refused(void)
{
    struct pool *p;
    struct err err;

    CHECK_EQ(pool_new(0, &p, &err), -EINVAL);
    CHECK_HAS(err.msg, "0 bytes");
    CHECK_EQ(pool_new(SIZE_MAX, &p, &err), -EINVAL);
}

/* ---- completion queue */
static bool readable(struct cq *q)
{
    struct pollfd pfd = {.fd = cq_fd(q), .events = POLLIN};

    return poll(&pfd, 1, 0) == 1;
}

static void a_queue_gives_back_in_order_and_its_fd_says_when(void)
{
    struct cq_item item[3] = {{.kind = 0}, {.kind = 1}, {.kind = 2}};
    struct cq *q;

    CHECK_EQ(cq_new(&q), 0);
    CHECK(!readable(q));
    CHECK(!cq_take(q));
    for (unsigned i = 0; i < 3; i++)
        cq_push(q, &item[i]);
    CHECK(readable(q));
    struct cq_item *it = cq_take(q);
    CHECK(!readable(q));
    for (int i = 0; i < 3; i++, it = it->next)
        CHECK_EQ(it->kind, i);
    CHECK(!it);
    cq_push(q, &item[0]);
    CHECK(readable(q));
    CHECK(cq_take(q) == &item[0]);
    cq_free(q);
}

enum { PER_THREAD = 2000 };
struct producer {
    pthread_t thread;
    struct cq *q;
    struct cq_item item[PER_THREAD];
};

static void *produce(void *arg)
{
    struct producer *p = arg;

    for (unsigned i = 0; i < PER_THREAD; i++)
        cq_push(p->q, &p->item[i]);
    return NULL;
}

static void a_sleeping_consumer_misses_no_item_of_many_producers(void)
{
    static struct producer p[4];
    struct cq *q;
    unsigned n = 0;

    CHECK_EQ(cq_new(&q), 0);
    for (unsigned i = 0; i < 4; i++) {
        p[i].q = q;
        CHECK_EQ(pthread_create(&p[i].thread, NULL, produce, &p[i]), 0);
    }
    while (n < 4 * PER_THREAD) {
        struct pollfd pfd = {.fd = cq_fd(q), .events = POLLIN};
        if (poll(&pfd, 1, 5000) != 1)
            break;
        for (struct cq_item *it = cq_take(q); it; it = it->next)
            n++;
    }
    CHECK_EQ(n, 4 * PER_THREAD);
    for (unsigned i = 0; i < 4; i++)
        (void)pthread_join(p[i].thread, NULL);
    cq_free(q);
}

int main(void)
{
    RUN(slabs_lie_in_the_region_aligned_and_apart);
    RUN(everything_that_was_promised_can_be_had);
    RUN(odd_sizes_cost_what_they_are_and_not_a_power_of_two);
    RUN(a_slab_lives_until_its_last_reference);
    RUN(large_pieces_go_back_to_the_kernel);
    RUN(many_small_pieces_go_back_too);
    RUN(a_window_that_a_device_holds_is_used_first_and_stays);
    RUN(what_a_window_has_no_room_for_lies_behind_it_and_goes_back);
    RUN(a_slab_with_room_grows_where_it_is);
    RUN(a_slab_grows_as_far_as_its_block_and_the_pool);
    RUN(slabs_with_room_leave_the_others_theirs);
    RUN(a_pool_without_sense_is_refused);
    RUN(a_queue_gives_back_in_order_and_its_fd_says_when);
    RUN(a_sleeping_consumer_misses_no_item_of_many_producers);
    return check_end();
}
