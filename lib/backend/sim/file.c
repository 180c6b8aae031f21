/* Devices of a problem file, as this backend keeps them. */
#include "device.h"

#include <stdio.h>
#include <zlib.h>

static int file_text(const char *path, struct arena *a, char **ret, size_t *ret_bytes,
                     struct err *err)
{
    FILE *f = fopen(path, "re");
    long bytes = -1;

    if (!f)
        return err_set(err, -errno, "%s", strerror(errno));
    if (fseek(f, 0, SEEK_END) == 0)
        bytes = ftell(f);
    rewind(f);
    char *text =
        bytes >= 0 && bytes <= PROBLEM_MAX_BYTES ? arena_alloc(a, (size_t)bytes + 1) : NULL;
    *ret_bytes = text ? fread(text, 1, (size_t)bytes, f) : 0;
    (void)fclose(f);
    if (!text)
        return err_set(err, -EFBIG, "no file of at most %u bytes", PROBLEM_MAX_BYTES);
    *ret = text;
    return 0;
}

int device_read(const struct backend_config *cfg, struct arena *a, struct problem *p,
                struct sim_spec *s, char mark[SIM_MARK], struct err *err)
{
    struct err own = {0};
    char *text = NULL;
    size_t bytes = 0;

    if (!cfg->sim_file[0])
        return err_set(err, -ENODEV, "the sim backend needs sim-file = in section [device]");
    int r = file_text(cfg->sim_file, a, &text, &bytes, &own);
    if (r == 0)
        r = problem_parse(text, bytes, a, p, &own);
    if (r == 0)
        r = sim_parse(text, bytes, p, a, s, &own);
    if (r == 0 && p->n_devices == 0)
        r = err_set(&own, -ENODEV, "there is nothing in `devices`");
    if (r == 0)
        (void)snprintf(mark, SIM_MARK, "file %08lx", crc32(0, (const Bytef *)text, (uInt)bytes));
    return r < 0 ? err_set(err, r, "'%s': %s", cfg->sim_file, own.msg) : 0;
}

static int info_fill(struct device_info *info, const struct plan_device *d,
                     const struct plan_type *t, const struct sim_spec *s, struct err *err)
{
    if (t->n_sizes || t->n_places)
        return err_set(err, -ENOTSUP,
                       "device '%s': `sizes` and `places` are not supported by the sim backend",
                       d->name);
    char mark[SIM_MARK];

    memcpy(mark, info->library, sizeof(mark));
    *info = (struct device_info){.units = t->predict.units,
                                 .granule_units = t->granule_units,
                                 .n_granules = t->n_granules,
                                 .max_granules = t->max_granules,
                                 .mem_bytes = t->mem_bytes,
                                 .let_bytes = t->let_bytes,
                                 .link_bytes_per_s = t->predict.link_bps,
                                 .mem_bytes_per_s =
                                     t->predict.dram_bps > 0 ? t->predict.dram_bps : s->bytes_per_s,
                                 .flops_per_s = s->flops_per_s,
                                 .mode = MODE_SIM,
                                 .weights_shared = true,
                                 .in_turn = t->in_turn,
                                 .ahead_us = s->ahead_us};
    memcpy(info->library, mark, sizeof(mark));
    (void)snprintf(info->name, sizeof(info->name), "%.63s", d->name);
    (void)snprintf(info->kind, sizeof(info->kind), "simulated %.50s", t->name);
    (void)snprintf(info->why, sizeof(info->why), "described by a file");
    return 0;
}

static bool echoes(const struct sim_spec *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_echo; i++)
        if (STREQ(s->echo[i], name))
            return true;
    return false;
}

/* The models of the file, and those that only echo. */
static int models_fill(struct device *dev, const struct problem *p, uint32_t type)
{
    dev->model = ARENA_ARRAY(&dev->arena, struct sim_model, (size_t)p->n_models + dev->spec.n_echo);
    if (!dev->model)
        return -ENOMEM;
    for (uint32_t i = 0; i < p->n_models; i++)
        dev->model[dev->n_models++] =
            (struct sim_model){.name = p->model[i].name,
                               .profile = &p->model[i].profile[type],
                               .echo = echoes(&dev->spec, p->model[i].name)};
    for (uint32_t i = 0; i < dev->spec.n_echo; i++)
        dev->model[dev->n_models++] = (struct sim_model){.name = dev->spec.echo[i], .echo = true};
    return 0;
}

int device_fill(struct device *dev, const struct problem *p, unsigned index, struct err *err)
{
    const struct plan_device *d = &p->device[index];
    const struct plan_type *t = &p->type[d->type];
    int r = info_fill(&dev->info, d, t, &dev->spec, err);

    if (r < 0)
        return r;
    dev->predict = t->predict;
    return models_fill(dev, p, d->type) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
}
