/* The tournament of what is due next.  Setting a time replays the matches on the way to the root,
 * and stops where neither the old nor the new time of the source matters. */
#include "replay_priv.h"

int agenda_init(struct agenda *g, uint32_t n_sources, struct arena *a)
{
    g->n_leaves = 2;
    while (g->n_leaves < n_sources)
        g->n_leaves *= 2;
    g->at_us = ARENA_ARRAY(a, usec_t, g->n_leaves);
    g->winner = ARENA_ARRAY(a, uint32_t, (size_t)g->n_leaves * 2);
    if (!g->at_us || !g->winner)
        return -ENOMEM;
    for (uint32_t i = 0; i < g->n_leaves; i++) {
        g->at_us[i] = USEC_NEVER;
        g->winner[g->n_leaves + i] = i;
    }
    for (uint32_t i = g->n_leaves - 1; i > 0; i--)
        g->winner[i] = g->winner[2 * i];
    return 0;
}

void agenda_set(struct agenda *g, uint32_t source, usec_t at_us)
{
    uint32_t *w = g->winner;

    if (g->at_us[source] == at_us)
        return;
    g->at_us[source] = at_us;
    for (uint32_t i = (g->n_leaves + source) / 2; i > 0; i /= 2) {
        uint32_t left = w[2 * i], right = w[2 * i + 1], was = w[i];
        w[i] = g->at_us[left] <= g->at_us[right] ? left : right;
        if (was != source && w[i] != source)
            return;
    }
}
