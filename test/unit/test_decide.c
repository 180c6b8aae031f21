/* What a request costs until it waits in its gpu-let, counted: names compared, memory taken.  It is
 * the same with a few models and with many. */
#include "test/unit/engine_rig.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define COUNTS 0
#endif
#endif
#ifndef COUNTS
#define COUNTS 1
#endif

#define FEW 3
#define MANY 48

static _Thread_local unsigned n_compared, n_taken;

#if COUNTS /* sanitizers have these for themselves */
extern void *__libc_malloc(size_t bytes), *__libc_calloc(size_t n, size_t bytes),
    *__libc_realloc(void *p, size_t bytes);

int strcmp(const char *a, const char *b)
{
    n_compared++;
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return (unsigned char)*a - (unsigned char)*b;
}

void *malloc(size_t bytes)
{
    n_taken++;
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    n_taken++;
    return __libc_calloc(n, bytes);
}

void *realloc(void *p, size_t bytes)
{
    n_taken++;
    return __libc_realloc(p, bytes);
}
#endif

struct spent {
    unsigned compared, taken;
};

static void name_of(unsigned i, char ret[MODEL_NAME_MAX])
{
    (void)snprintf(ret, MODEL_NAME_MAX, "model-%02u", i);
}

/* Of a request for a model: found, admitted, routed, handed over. */
static struct spent cost_of(struct rig *r, const char *name)
{
    struct request q;
    struct served *s;
    struct err err;
    usec_t retry_us;

    CHECK_EQ(rig_infer(r, name, 1, 4), 0); /* its shape is known from now on */
    CHECK_EQ(rig_fill(r, &q, name, 1, 4, 7), 0);
    n_compared = n_taken = 0;
    CHECK_EQ(served_get(r->e, name, 0, &s, &err), 0);
    CHECK_EQ(engine_admit(r->e, s, clock_now_us() + USEC_PER_SEC, &retry_us, &err), 0);
    CHECK_EQ(engine_submit(r->e, &q), 0);
    struct spent c = {n_compared, n_taken};
    CHECK(rig_next(r, WAIT_MS) == &q.item);
    CHECK(rig_right(&q));
    served_put(s);
    rig_drop(&q);
    return c;
}

/* The most of any of n models. */
static struct spent most_of(const char *dir, unsigned n)
{
    struct rig r = rig_new(2);
    struct spent most = {0};
    char name[MODEL_NAME_MAX];

    for (unsigned i = 0; i < n; i++) {
        name_of(i, name);
        rig_load_ok(&r, name, 1, dir);
    }
    for (unsigned i = 0; i < n; i++) {
        name_of(i, name);
        struct spent c = cost_of(&r, name);
        most.compared = MAX(most.compared, c.compared);
        most.taken = MAX(most.taken, c.taken);
    }
    rig_free(&r);
    return most;
}

static void a_request_costs_the_same_with_few_models_and_with_many(void)
{
    char *dir = fake_model("batch", "Add", "x,x", "batch,4");
    struct spent few = most_of(dir, FEW), many = most_of(dir, MANY);

    printf("# %u models: %u names compared, memory taken %u times; %u models: %u and %u\n", FEW,
           few.compared, few.taken, MANY, many.compared, many.taken);
    CHECK_EQ(many.taken, 0);
    CHECK_EQ(few.taken, 0);
    CHECK_EQ(many.compared, few.compared);
    free(dir);
}

int main(void)
{
    RUN(a_request_costs_the_same_with_few_models_and_with_many);
    fake_cleanup();
    return check_end();
}
