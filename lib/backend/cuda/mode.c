/* Which mode a device is cut by.
 *
 * auto takes the first of the table that can be had.  Why the better ones cannot is worth knowing
 * and goes behind the reason of the one that is. */
#include "gpu.h"
#include <stdio.h>

/* What a MIG device is, is not ours to choose; the others in the order of what they keep apart. */
static const struct mode *const modes[] = {&mode_mig, &mode_mps, &mode_green, &mode_shared};

int gpu_attribute(CUdevice d, CUdevice_attribute a, int *ret, struct err *err)
{
    return GPU(device_attribute(ret, a, d), err);
}

static int take(const struct mode *m, CUdevice d, const struct mode **ret_mode,
                struct device_info *ret, struct err *err)
{
    int r = m->probe(d, ret, err);

    if (r == 0) {
        ret->mode = m->mode;
        *ret_mode = m;
    }
    return r;
}

static int choose_first(CUdevice d, const struct mode **ret_mode, struct device_info *ret,
                        struct err *err)
{
    char why_not[sizeof(ret->why)] = "";
    size_t used = 0;

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        struct err e = {0};
        int r = take(modes[i], d, ret_mode, ret, &e);
        if (r == 0) {
            used = strlen(ret->why);
            (void)snprintf(ret->why + used, sizeof(ret->why) - used, "%s", why_not);
            return 0;
        }
        if (modes[i]->mode == MODE_MIG) /* nobody expects one */
            continue;
        used += (size_t)snprintf(why_not + used, sizeof(why_not) - used, "; not %s: %s",
                                 modes[i]->name, e.msg);
        used = MIN(used, sizeof(why_not) - 1);
    }
    return err_set(err, -ENODEV, "no mode can be had%s", why_not);
}

int mode_choose(const char *name, CUdevice d, const struct mode **ret_mode, struct device_info *ret,
                struct err *err)
{
    if (!name[0] || STREQ(name, "auto"))
        return choose_first(d, ret_mode, ret, err);
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        if (STREQ(modes[i]->name, name)) {
            int r = take(modes[i], d, ret_mode, ret, err);
            return r < 0 ? err_wrap(err, "partition-mode '%s': ", name) : 0;
        }
    return err_set(err, -EINVAL, "partition-mode '%s': there are auto, mps, green, mig and shared",
                   name);
}
