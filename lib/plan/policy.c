/* The policies there are, by the name that gpuletd.conf uses. */
#include "published.h"

static const struct policy *const policies[] = {
    &policy_ours,         &policy_equal,       &policy_timeshare, &policy_static_equal,
    &policy_static_seven, &policy_greedy,      &policy_gpulet,    &policy_gpulet_int,
    &policy_gpulet_full,  &policy_ffd,         &policy_igniter,   &policy_parva,
    &policy_fifo,         &policy_round_robin, &policy_max_delay, &policy_edf,
    &policy_deferred,     &policy_all_at_once,
};

const char *const plan_order_words[] = {"turns", "waiting", "deadline", "deferred", NULL};

const struct policy *policy_at(uint32_t i)
{
    return i < ARRAY_SIZE(policies) ? policies[i] : NULL;
}

int policy_find(const char *name, const struct policy **ret, struct err *err)
{
    char names[200] = "";
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        if (STREQ(policies[i]->name, name)) {
            *ret = policies[i];
            return 0;
        }
        for (const char *c = i ? ", " : ""; *c && n + 1 < sizeof(names); c++)
            names[n++] = *c;
        for (const char *c = policies[i]->name; *c && n + 1 < sizeof(names); c++)
            names[n++] = *c;
    }
    return err_set(err, -ENOENT, "there is no policy '%s'; there are: %s", name, names);
}
