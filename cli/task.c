/* Reading problems and plans, and planning. */
#include "task.h"
#include <gpulet/clock.h>
#include <gpulet/problem.h>

#define DEFAULT_POLICY "gpuletd"

/* "'FILE': what is wrong" */
static int in_file(const char *path, int r, struct err *err)
{
    (void)err_wrap(err, "'%s': ", path);
    return err->code = r == -EINVAL ? -EBADMSG : r;
}

static void check(struct task *t, const struct plan *was, struct answer *a)
{
    struct err err = {0};

    a->valid = plan_check(&t->p, was, &a->plan, &err) == 0;
    (void)snprintf(a->why, sizeof(a->why), "%s", err.msg);
}

static int task_parse(struct task *t, struct err *err)
{
    int r = problem_parse(t->text, t->bytes, &t->a, &t->p, err);

    return r < 0 ? in_file(t->path, r, err) : 0;
}

int task_open(const char *path, struct task *ret, struct err *err)
{
    *ret = (struct task){.path = path};
    arena_init(&ret->a);
    int r = file_read(path, PROBLEM_MAX_BYTES, &ret->text, &ret->bytes, err);
    return r < 0 ? r : task_parse(ret, err);
}

int task_fetch(const struct cli *c, struct task *ret, struct err *err)
{
    struct reply reply = {0};

    *ret = (struct task){.path = "/v1/problem"};
    arena_init(&ret->a);
    int r = client_call(c, "GET", "/v1/problem", NULL, NULL, &reply, err);
    if (r == 0) {
        ret->text = TAKE(reply.text);
        ret->bytes = strlen(ret->text);
    }
    reply_done(&reply);
    return r < 0 ? r : task_parse(ret, err);
}

int task_own_plan(struct task *t, struct answer *ret, struct err *err)
{
    *ret = (struct answer){.policy = "the running plan"};
    int r = plan_parse(t->text, t->bytes, &t->p, &t->a, &ret->plan, err);

    if (r < 0)
        return in_file(t->path, r, err);
    check(t, NULL, ret);
    return 0;
}

void task_done(struct task *t)
{
    arena_done(&t->a);
    free(t->text);
    t->text = NULL;
}

int task_plan(struct task *t, const struct policy *policy, const struct plan *was,
              struct answer *ret, struct err *err)
{
    *ret = (struct answer){.policy = policy->name};
    if (t->p.n_devices == 0)
        return err_set(err, -EBADMSG, "'%s': it has no devices to plan for", t->path);
    progress_begin(policy->name);
    usec_t start_us = clock_now_us();
    int r = policy_plan(policy, &t->p, was, &t->a, &ret->plan, err);
    ret->ms = (double)(clock_now_us() - start_us) / 1000;
    progress_end();
    if (r < 0)
        return in_file(t->path, r, err);
    check(t, was, ret);
    return 0;
}

int task_read_plan(struct task *t, const char *path, struct plan *ret, struct err *err)
{
    AUTO(free) char *text = NULL;
    size_t bytes = 0;
    int r = file_read(path, PROBLEM_MAX_BYTES, &text, &bytes, err);

    if (r < 0)
        return r;
    r = plan_parse(text, bytes, &t->p, &t->a, ret, err);
    return r < 0 ? in_file(path, r, err) : 0;
}

int task_policy(const struct cli *c, const struct policy **ret, struct err *err)
{
    return policy_find(c->policy ? c->policy : DEFAULT_POLICY, ret, err);
}

int task_answer(struct task *t, const struct cli *c, struct answer *ret, struct err *err)
{
    const struct policy *policy;
    int r;

    if (!c->plan) {
        r = task_policy(c, &policy, err);
        return r < 0 ? r : task_plan(t, policy, NULL, ret, err);
    }
    *ret = (struct answer){.policy = arena_printf(&t->a, "file %s", c->plan)};
    r = task_read_plan(t, c->plan, &ret->plan, err);
    if (r == 0)
        check(t, NULL, ret);
    return r;
}

const struct plan_type *let_type(const struct problem *p, const struct plan_gpulet *g)
{
    return &p->type[p->device[g->device].type];
}

bool let_has(const struct plan_gpulet *g, uint32_t granule)
{
    return g->set.bits[granule / 64] >> (granule % 64) & 1;
}

uint32_t let_granules(const struct plan_gpulet *g)
{
    uint32_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(g->set.bits); i++)
        n += (uint32_t)__builtin_popcountll(g->set.bits[i]);
    return n;
}

uint32_t models_met(const struct plan *plan)
{
    uint32_t n = 0;

    for (uint32_t m = 0; m < plan->n_models; m++)
        n += plan->verdict[m].limit == LIMIT_NONE;
    return n;
}
