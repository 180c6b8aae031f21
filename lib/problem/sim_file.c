/* The key `sim` of a problem file: what a simulated device needs besides. */
#include "problem_priv.h"

#include <gpulet/sim.h>

static const char *const fault_words[] = {"stall", "fail", "hang", "lost", "gone", "exit", NULL};

static const struct field fault_fields[] = {
    FIELD(struct sim_fault, FIELD_WORD, kind, .word = fault_words, REQUIRED),
    FIELD(struct sim_fault, FIELD_NAME, model),
    FIELD(struct sim_fault, FIELD_BYTES, run, RANGE(1, MAX_REAL)),
    FIELD(struct sim_fault, FIELD_NAME, device),
    FIELD(struct sim_fault, FIELD_U32, granule, RANGE(0, PLAN_MAX_GRANULES - 1)),
    FIELD_AS(struct sim_fault, FIELD_MS, "after_ms", after_us, RANGE(0, MAX_MS)),
    FIELD_AS(struct sim_fault, FIELD_MS, "stall_ms", stall_us, RANGE(0, MAX_MS)),
    FIELD_END,
};

static const struct field sim_fields[] = {
    FIELD_AS(struct sim_spec, FIELD_MS, "ahead_ms", ahead_us, RANGE(0, MAX_MS)),
    FIELD_AS(struct sim_spec, FIELD_MS, "launch_ms", launch_us, RANGE(0, MAX_MS)),
    FIELD(struct sim_spec, FIELD_REAL, flops_per_s, RANGE(1, 1e18)),
    FIELD(struct sim_spec, FIELD_REAL, bytes_per_s, RANGE(1, 1e18)),
    FIELD_CODE("echo"),
    FIELD_CODE("faults"),
    FIELD_END,
};

static int fault_read(struct reader *r, const json_t *v, struct sim_fault *ret)
{
    struct sim_fault f = {.run = 1};
    int rc = read_fields(r, v, fault_fields, &f);

    if (rc < 0)
        return rc;
    if (!f.model && !f.device)
        return wrong(r, v, "either `model` or `device` in it, or both");
    if (!f.model && f.kind == SIM_STALL)
        return wrong(r, v, "`model` in it, its kind being stall");
    *ret = f;
    return 0;
}

static int faults_read(struct reader *r, const json_t *v, struct sim_spec *s)
{
    const json_t *list = NULL;
    int rc = read_list(r, v, "faults", 0, SIM_MAX_FAULTS, &list);
    size_t n = json_array_size(list), was = into(r, "faults");
    struct sim_fault *f = rc == 0 ? ARENA_ARRAY(r->a, struct sim_fault, n) : NULL;

    if (rc == 0 && !f)
        rc = no_memory(r);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t list_at = into_at(r, i);
        rc = fault_read(r, json_array_get(list, i), &f[i]);
        back(r, list_at);
    }
    back(r, was);
    s->n_faults = (uint32_t)n;
    s->fault = f;
    return rc;
}

static int echo_read(struct reader *r, const json_t *v, struct sim_spec *s)
{
    const json_t *list = NULL;
    int rc = read_list(r, v, "echo", 0, PROBLEM_MAX_MODELS, &list);
    size_t n = json_array_size(list), was = into(r, "echo");
    const char **name = rc == 0 ? ARENA_ARRAY(r->a, const char *, n) : NULL;

    if (rc == 0 && !name)
        rc = no_memory(r);
    for (size_t i = 0; i < n && rc == 0; i++) {
        size_t list_at = into_at(r, i);
        rc = read_name(r, json_array_get(list, i), &name[i]);
        back(r, list_at);
    }
    back(r, was);
    s->n_echo = (uint32_t)n;
    s->echo = name;
    return rc;
}

static bool device_there(const struct problem *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_devices; i++)
        if (STREQ(p->device[i].name, name))
            return true;
    return false;
}

static int spec_read(struct reader *r, const json_t *v, const struct problem *p, struct sim_spec *s)
{
    int rc;

    if ((rc = read_fields(r, v, sim_fields, s)) < 0 || (rc = echo_read(r, v, s)) < 0 ||
        (rc = faults_read(r, v, s)) < 0)
        return rc;
    for (uint32_t i = 0; i < s->n_faults; i++)
        if (s->fault[i].device && !device_there(p, s->fault[i].device)) {
            (void)into(r, "faults");
            (void)into_at(r, i);
            return wrong(r, json_array_get(json_object_get(v, "faults"), i),
                         "a `device` of the file in it");
        }
    return 0;
}

int sim_parse(const char *json, size_t bytes, const struct problem *p, struct arena *a,
              struct sim_spec *ret, struct err *err)
{
    struct reader r = {.a = a, .err = err};
    struct sim_spec s = {.launch_us = 20, .flops_per_s = 1e12, .bytes_per_s = 1e11};
    AUTO_JSON json_t *top = NULL;
    int rc = file_load(&r, json, bytes, &top);
    const json_t *v = rc == 0 ? json_object_get(top, "sim") : NULL;

    if (v) {
        (void)into(&r, "sim");
        rc = spec_read(&r, v, p, &s);
    }
    if (rc == 0)
        *ret = s;
    return rc;
}

int sim_fault_parse(const char *json, size_t bytes, struct arena *a, struct sim_fault *ret,
                    struct err *err)
{
    struct reader r = {.a = a, .err = err};
    json_error_t e;
    AUTO_JSON json_t *v = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &e);

    if (!v)
        return err_set(err, -EINVAL, "line %d, column %d: %s", e.line, e.column, e.text);
    return fault_read(&r, v, ret);
}
