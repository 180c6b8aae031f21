/* gpuletctl plan FILE */
#include "task.h"
#include <gpulet/problem.h>

static int write_plan(const struct task *t, const struct plan *plan, const char *path,
                      struct err *err)
{
    AUTO(free) char *text = NULL;
    int r = plan_print(&t->p, plan, &text, err);

    return r < 0 ? r : file_write(path, text, err);
}

/* What was asked for, of a plan that may be run. */
static int give(struct task *t, const struct cli *c, const struct answer *a, struct err *err)
{
    json_t *report = report_answer(t, a);
    int r = 0;

    if (c->json)
        r = print_json(report, err);
    else
        report_print(report);
    json_decref(report);
    if (r == 0 && c->svg)
        r = draw_plan(t, &a->plan, c->svg, err);
    if (r < 0)
        return r;
    if (!a->valid)
        return err_set(err, -EBADMSG, "policy %s: the plan does not pass plan_check: %s", a->policy,
                       a->why);
    if (c->out)
        r = write_plan(t, &a->plan, c->out, err);
    return r < 0 ? r : models_met(&a->plan) < t->p.n_models ? STATUS_UNMET : 0;
}

static int plan_one(struct task *t, const struct cli *c, struct err *err)
{
    const struct policy *policy;
    struct plan was;
    struct answer a;
    int r = task_policy(c, &policy, err);

    if (r == 0 && c->was)
        r = task_read_plan(t, c->was, &was, err);
    if (r == 0)
        r = task_plan(t, policy, c->was ? &was : NULL, &a, err);
    return r < 0 ? r : give(t, c, &a, err);
}

static int plan_verify(struct task *t, const struct cli *c, struct err *err)
{
    struct cli with = *c;
    struct answer a;

    with.plan = c->plan ? c->plan : t->path;
    int r = task_answer(t, &with, &a, err);
    return r < 0 ? r : give(t, c, &a, err);
}

/* ---- --policy all */

static json_t *compare_one(struct task *t, const struct policy *policy, const struct plan *was)
{
    json_t *o = json_object();
    struct answer a;
    struct err err = {0};

    put(o, "policy", json_string(policy->name));
    if (task_plan(t, policy, was, &a, &err) < 0) {
        put(o, "error", json_string(err.msg));
        return o;
    }
    put_num(o, "devices_used", plan_devices_used(&t->p, &a.plan, &t->a));
    put_num(o, "met", models_met(&a.plan));
    put_num(o, "gpulets", a.plan.n_gpulets);
    put(o, "valid", json_boolean(a.valid));
    if (!a.valid)
        put(o, "error", json_string(a.why));
    put_num(o, "steps", (double)a.plan.steps);
    put_num(o, "time_ms", a.ms);
    return o;
}

static void print_comparison(const struct task *t, json_t *all)
{
    json_t *o;
    size_t i;

    printf("%-14s %8s %12s %8s %6s %12s %10s\n", "POLICY", "DEVICES", "MODELS MET", "GPU-LETS",
           "VALID", "STEPS", "TIME ms");
    json_array_foreach(json_object_get(all, "policies"), i, o)
    {
        if (!json_object_get(o, "met")) {
            printf("%-14s %s\n", str(o, "policy"), str(o, "error"));
            continue;
        }
        printf("%-14s %8.0f %5.0f of %3u %8.0f %6s %12.0f %10.2f\n", str(o, "policy"),
               num(o, "devices_used"), num(o, "met"), t->p.n_models, num(o, "gpulets"),
               yes(o, "valid") ? "yes" : "NO", num(o, "steps"), num(o, "time_ms"));
        if (str(o, "error")[0])
            printf("%-14s %s\n", "", str(o, "error"));
    }
    printf("bound %.3f devices\n", num(all, "bound"));
}

static int plan_compare(struct task *t, const struct cli *c, struct err *err)
{
    json_t *all = json_object(), *list = json_array();
    const struct policy *policy;
    struct plan was;
    int r = c->was ? task_read_plan(t, c->was, &was, err) : 0;

    for (uint32_t i = 0; r == 0 && (policy = policy_at(i)); i++)
        (void)json_array_append_new(list, compare_one(t, policy, c->was ? &was : NULL));
    put_num(all, "devices", t->p.n_devices);
    put_num(all, "models", t->p.n_models);
    put_num(all, "bound", plan_bound(&t->p, &t->a));
    put(all, "policies", list);
    if (r == 0 && c->json)
        r = print_json(all, err);
    else if (r == 0)
        print_comparison(t, all);
    json_decref(all);
    return r;
}

int plan_file(const struct cli *c, int argc, char **argv, struct err *err)
{
    bool all = c->policy && STREQ(c->policy, "all");
    struct task t;

    if (argc == 0)
        return err_set(err, -EINVAL, "plan: its options go with a problem FILE");
    if (argc > 1)
        return err_set(err, -EINVAL, "unexpected argument '%s'", argv[1]);
    if (all && (c->check || c->out || c->svg))
        return err_set(err, -EINVAL,
                       "--policy all makes many plans: --check, --out and --svg "
                       "are for one");
    if (c->plan && !c->check)
        return err_set(err, -EINVAL, "plan: --plan goes with --check; --was is the running plan");
    int r = task_open(argv[0], &t, err);
    if (r == 0)
        r = all        ? plan_compare(&t, c, err)
            : c->check ? plan_verify(&t, c, err)
                       : plan_one(&t, c, err);
    task_done(&t);
    return r;
}
