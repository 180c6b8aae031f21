/* The policies there are, by the name that gpuletd.conf uses. */
#include "published.h"

static const struct policy *const policies[] = {
    &policy_gpuletd,      &policy_equal,  &policy_timeshare, &policy_static_equal,
    &policy_static_seven, &policy_greedy, &policy_gpulet,    &policy_gpulet_int,
    &policy_gpulet_full,  &policy_ffd,    &policy_igniter,   &policy_parva,
};

const struct policy *policy_at(uint32_t i)
{
    return i < ARRAY_SIZE(policies) ? policies[i] : NULL;
}

int policy_find(const char *name, const struct policy **ret, struct err *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
        if (STREQ(policies[i]->name, name)) {
            *ret = policies[i];
            return 0;
        }
    return err_set(err, -ENOENT,
                   "there is no policy '%s'; there are: gpuletd, equal, timeshare, static-equal, "
                   "static-seven, greedy, gpulet, gpulet-int, gpulet-full, ffd, igniter, parva",
                   name);
}
