/* Refusals and drops as events: a single one is no news, what a second brought of them is.  They
 * are counted where they happen; here the counters are read, and what they have grown by is told.
 */
#include "engine_priv.h"

#include <stdio.h>

#define TELL_EVERY_US USEC_PER_SEC
#define TELL_MODELS 16 /* in one call: the others have their turn in the next */

struct news {
    char model[MODEL_NAME_MAX + 1];
    uint64_t refused[N_REFUSALS], late;
};

/* Since it was told last; under e->lock. */
static bool grown(struct entry *n, usec_t now_us, struct news *ret)
{
    const struct served_stats *s = n->served ? n->served->stats : NULL;
    struct told *t = &n->told;
    uint64_t all = 0;

    if (!s || t->at_us + TELL_EVERY_US > now_us)
        return false;
    if (t->of != s) /* another version, which counts for itself */
        *t = (struct told){.of = s};
    for (unsigned i = 0; i < N_REFUSALS; i++) {
        uint64_t is = atomic_load_explicit(&s->refused[i], memory_order_relaxed);
        all += ret->refused[i] = is - t->refused[i];
        t->refused[i] = is;
    }
    uint64_t late = atomic_load_explicit(&s->late, memory_order_relaxed);
    all += ret->late = late - t->late;
    t->late = late;
    if (all == 0)
        return false;
    t->at_us = now_us;
    (void)snprintf(ret->model, sizeof(ret->model), "%s", n->spec.name);
    return true;
}

static void tell(struct engine *e, const struct news *n)
{
    static const char *const why[N_REFUSALS + 1] = {
        "refused as its queue is full",
        "refused as they could not be in time",
        "refused as others wait and more is asked for than planned",
        "refused as their device is lost",
        "refused as they cannot be run",
        "dropped as they got late"};
    char text[200] = "";

    for (unsigned i = 0; i <= N_REFUSALS; i++) {
        uint64_t k = i < N_REFUSALS ? n->refused[i] : n->late;
        size_t at = strlen(text);
        if (k)
            (void)snprintf(text + at, sizeof(text) - at, "%s%llu %s", at ? ", " : "",
                           (unsigned long long)k, why[i]);
    }
    event(e, 4, "refuse", n->model, PLAN_NONE, "requests: %s", text);
}

void engine_tell_refusals(struct engine *e)
{
    struct news news[TELL_MODELS];
    usec_t now_us = clock_now_us();
    uint32_t n = 0;

    (void)pthread_mutex_lock(&e->lock);
    for (struct entry *it = e->entries; it && n < TELL_MODELS; it = it->next)
        n += grown(it, now_us, &news[n]);
    (void)pthread_mutex_unlock(&e->lock);
    for (uint32_t i = 0; i < n; i++)
        tell(e, &news[i]);
}
