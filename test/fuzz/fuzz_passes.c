/* Hostile models through the passes: what could be bound before can be bound after, and the
 * outputs have the types and shapes that they had. */
#include "model_limits.h"

#define FUZZ_NAME "passes"

static const int64_t numbers[] = {3, 8, 1};

struct before {
    bool bound;
    struct tensor out[MAX_IO]; /* dtype DT_NONE: late */
};

static void look(const struct graph *g, int64_t number, struct before *ret)
{
    struct shape_key key = fuzz_key(g, number);
    struct bound *b;
    struct arena a;

    memset(ret, 0, sizeof(*ret));
    arena_init(&a);
    ret->bound = graph_bind(g, &key, &a, &b, NULL) == 0;
    for (uint32_t i = 0; ret->bound && i < g->n_out; i++)
        ret->out[i] = b->value[g->out[i]];
    arena_done(&a);
}

static void compare(const struct before *s, const struct before *t, uint32_t n_out)
{
    assert(!s->bound || t->bound);
    for (uint32_t i = 0; s->bound && i < n_out; i++) {
        const struct tensor *x = &s->out[i], *y = &t->out[i];
        if (x->dtype == DT_NONE) /* a branch that was chosen makes late outputs known */
            continue;
        assert(x->dtype == y->dtype && x->rank == y->rank);
        assert(memcmp(x->dims, y->dims, x->rank * sizeof(x->dims[0])) == 0);
    }
}

static void through_passes(const uint8_t *data, size_t n, bool quantise)
{
    AUTO(graph_free) struct graph *g = fuzz_read(data, n);
    struct before before[ARRAY_SIZE(numbers)], after;
    struct model_report report = {0};
    struct err e = {0};

    if (!g || graph_infer(g, &e) < 0)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        look(g, numbers[i], &before[i]);
    int rc = quantise ? graph_quantise(g, &report, &e) : 0;
    if (rc == 0)
        rc = graph_optimise(g, &report, &e);
    assert(rc == 0 || e.msg[0]);
    for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(numbers); i++) {
        look(g, numbers[i], &after);
        compare(&before[i], &after, g->n_out);
    }
}

static void one_input(const uint8_t *data, size_t n)
{
    through_passes(data, n, false);
    through_passes(data, n, true);
}

#include "fuzz.h"

#ifndef FUZZ_LIBFUZZER
int main(void)
{
    RUN(every_file_of_the_corpus_is_taken_or_refused);
    return check_end();
}
#endif
