/* Second thoughts: a plan that was made at once, and does not hold for everybody, is thought over.
 *
 * The builder plans in some 50 ms, as requests are late until there is a plan.  A second after such
 * a plan came into force, a thread of its own makes another from the same problem with all the
 * effort there is.  It reads nothing but an epoch to be, with its own copy of the problem and of
 * the running plan.  It runs only when nobody else wants the core (SCHED_IDLE) and therefore takes
 * no lock, not even to say that it has ended: whoever holds one must be able to give it back.  The
 * builder looks now and then.  Where the plan is clearly better the epoch goes through the steps of
 * any change (change.c).
 *
 * A problem is thought over once.  Any other change ends the thought: it makes another problem.
 * Builder, but for the thread itself. */
#include "engine_priv.h"

#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define SETTLED_US USEC_PER_SEC /* after a change another often follows */
#define LEISURE_NICE 19

struct thought {
    struct engine *e;
    pthread_t thread;
    _Atomic bool given_up;
    struct epoch *epoch; /* to be; its number is that of the epoch thought about */
    struct plan was;
    int rc; /* once it has ended */
};

static bool given_up(void *of)
{
    const struct thought *t = of;

    return atomic_load_explicit(&t->given_up, memory_order_relaxed);
}

static void *leisure_main(void *arg)
{
    struct thought *t = arg;
    const struct sched_param none = {0};
    struct plan_leisure l = {.is_over = given_up, .of = t};
    struct err err;

    (void)pthread_setname_np(pthread_self(), "leisure");
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), LEISURE_NICE);
    (void)sched_setscheduler(0, SCHED_IDLE, &none);
    t->epoch->problem.rules.leisure = &l;
    t->rc = epoch_think(t->e, t->epoch, &t->was, &err);
    t->epoch->problem.rules.leisure = NULL;
    return NULL;
}

static void thought_free(struct engine *e, struct thought *t)
{
    if (t)
        epoch_free(e, t->epoch);
    free(t);
}

static bool all_hold(const struct epoch *ep)
{
    for (uint32_t i = 0; i < ep->n_routes; i++)
        if (ep->plan.verdict[i].limit != LIMIT_NONE && !ep->problem.model[i].best_effort)
            return false;
    return true;
}

/* ---- beginning */
static int thought_fill(struct thought *t, const struct epoch *now, struct err *err)
{
    struct epoch *ep = t->epoch = epoch_new();
    uint32_t *was_of;

    if (!ep)
        return -ENOMEM;
    ep->number = now->number;
    ep->n_devices = now->n_devices;
    memcpy(ep->device, now->device, sizeof(ep->device));
    if (problem_copy(&ep->arena, &now->problem, &ep->problem) < 0)
        return -ENOMEM;
    return epoch_was(ep, now, false, &t->was, &was_of, err);
}

static void thought_begin(struct engine *e)
{
    struct thought *t = calloc(1, sizeof(*t));
    struct err err;

    if (!t)
        return; /* the plan in force serves, only less well */
    t->e = e;
    if (thought_fill(t, e->epoch, &err) == 0 &&
        pthread_create(&t->thread, NULL, leisure_main, t) == 0)
        e->thought = t;
    else
        thought_free(e, t);
}

static bool should_think(const struct engine *e)
{
    return e->cfg.policy->leisure && !e->pin && e->epoch->band && !e->epoch->thought_over &&
           clock_now_us() >= e->epoch->since_us + SETTLED_US && !all_hold(e->epoch);
}

/* ---- its end */
static void thought_end(struct engine *e)
{
    struct thought *t = TAKE(e->thought);

    if (atomic_load(&t->given_up))
        e->epoch->thought_over = false; /* the change may have failed */
    else if (t->rc == 0)
        change_think(e, TAKE(t->epoch));
    thought_free(e, t);
}

bool step_leisure(struct engine *e)
{
    if (e->thought && pthread_tryjoin_np(e->thought->thread, NULL) == 0) {
        thought_end(e);
        return true;
    }
    if (!e->thought && should_think(e)) {
        e->epoch->thought_over = true;
        thought_begin(e);
    }
    return false;
}

void leisure_give_up(struct engine *e)
{
    if (e->thought)
        atomic_store(&e->thought->given_up, true);
}

void leisure_stop(struct engine *e)
{
    leisure_give_up(e);
    if (e->thought) {
        (void)pthread_join(e->thought->thread, NULL);
        thought_end(e);
    }
}
