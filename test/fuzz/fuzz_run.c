/* Hostile models, run: whatever was read is bound to a few shapes and run node by node on made-up
 * inputs, bodies and all, within its memory. */
#include "model_limits.h"

#define FUZZ_NAME "run"

/* Zeros and small numbers; strings are empty. */
static void fill(struct tensor *t, struct arena *a)
{
    int64_t n = 0;

    if (t->dtype == DT_STRING && tensor_count(t, &n) == 0)
        t->bytes = (size_t)n * sizeof(uint32_t);
    t->data = arena_alloc(a, t->bytes);
    assert(t->data);
    for (size_t i = 0; t->dtype != DT_STRING && i < t->bytes; i += 8)
        ((uint8_t *)t->data)[i] = (uint8_t)(i / 8 % 3); /* little-endian: 0, 1, 2 in 64 bits */
}

static void run(const struct graph *g, const struct bound *b)
{
    struct arena a;
    struct err e = {0};
    struct graph_run r = {.graph = g, .arena = &a, .run = fuzz_kernel};

    arena_init(&a);
    r.value = ARENA_ARRAY(&a, struct tensor, g->n_values);
    assert(r.value);
    for (uint32_t i = 0; i < g->n_in; i++) {
        r.value[g->in[i]] = b->value[g->in[i]];
        fill(&r.value[g->in[i]], &a);
    }
    a.limit_bytes = a.total_bytes + FUZZ_RUN_BYTES;
    int rc = graph_run(&r, &e);
    assert(rc == 0 || e.msg[0]);
    assert(a.total_bytes <= a.limit_bytes);
    for (uint32_t i = 0; rc == 0 && i < g->n_out; i++) {
        const struct tensor *t = &r.value[g->out[i]], *s = &b->value[g->out[i]];
        assert(t->dtype && t->data);
        if (!b->late_value[g->out[i]]) /* what was bound is what comes */
            assert(t->dtype == s->dtype && t->rank == s->rank && t->bytes == s->bytes);
    }
    arena_done(&a);
}

static void bind_and_run(const struct graph *g, int64_t number)
{
    struct shape_key key = fuzz_key(g, number);
    struct err e = {0};
    struct bound *b;
    struct arena a;

    arena_init(&a);
    int rc = graph_bind(g, &key, &a, &b, &e);
    if (rc == 0)
        run(g, b);
    else
        assert(e.msg[0]);
    arena_done(&a);
}

static void one_input(const uint8_t *data, size_t n)
{
    AUTO(graph_free) struct graph *g = fuzz_read(data, n);

    for (int64_t number = 0; g && number < 3; number++)
        bind_and_run(g, number);
}

#include "fuzz.h"

#ifndef FUZZ_LIBFUZZER
int main(void)
{
    RUN(every_file_of_the_corpus_is_taken_or_refused);
    return check_end();
}
#endif
