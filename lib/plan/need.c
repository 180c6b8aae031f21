/* How much memory planning takes at most. */
#include "make_priv.h"
#include "published.h"

/* Gpu-lets that the devices can hold, and shares in them: what a planner may make is limited by
 * granules, by max_lets, and by the pieces that rates are cut into. */
static size_t lets_most(const struct problem *p)
{
    size_t n = 0;

    for (uint32_t d = 0; d < p->n_devices; d++) {
        uint32_t granules = type_of(p, d)->n_granules;
        n += p->rules.max_lets ? MIN(p->rules.max_lets, granules) : granules;
    }
    return n + 64;
}

size_t plan_need(const struct problem *p)
{
    size_t lets = lets_most(p), models = p->n_models, devices = p->n_devices;
    size_t shares = lets + 4 * models + 64, larger = MAX(models, devices) + 1;
    size_t plan = lets * (sizeof(struct plan_gpulet) + 16) +
                  shares * (sizeof(struct plan_share) + 16) + models * sizeof(struct plan_verdict);
    size_t state = 4 * lets * sizeof(struct let) + 4 * shares * sizeof(struct plan_share) +
                   4 * (lets + devices + UNDO_MOST) * sizeof(struct undo) +
                   devices * sizeof(struct dev);
    size_t tables = models * (p->n_types * SIZES_MAX * sizeof(struct cell) + sizeof(struct want) +
                              56 + sizeof(struct judged) + 16) +
                    larger * 64 +
                    p->n_types * (sizeof(struct kind) + (PLAN_MAX_GRANULES + 1) * 4 +
                                  SIZES_MAX * sizeof(struct line) + 8) +
                    LINE_ROWS * sizeof(struct line);
    size_t ours = PLANS_MAX * plan + state + tables + 8192 + SOLO_SLOTS * sizeof(struct solo_slot) +
                  (p->rules.rule == RULE_QUEUE ? 2 * PLANS_MAX * plan + QUEUE_SCRATCH +
                                                     LOAD_SLOTS * sizeof(struct load_slot)
                                               : 0);

    size_t chosen = p->n_devices == 1 ? REHEARSE_NEED + CHOICE_NEED : 0;

    return MAX(ours + chosen + equal_need(p), pub_need(p));
}
