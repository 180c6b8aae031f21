/* A plan as JSON, and that as tables. */
#include "task.h"
#include <math.h>

static const char *const limit_names[] = {"none", "slo", "rate", "memory", "units"};

static double ms(double us)
{
    return us / 1000;
}

static json_t *report_granules(const struct plan_gpulet *g)
{
    json_t *ranges = json_array();

    for (uint32_t i = 0, n; i < PLAN_MAX_GRANULES; i += n) {
        for (n = 0; i + n < PLAN_MAX_GRANULES && let_has(g, i + n);)
            n++;
        if (n > 0)
            (void)json_array_append_new(ranges, json_pack("[ii]", (int)i, (int)n));
        n += n == 0;
    }
    return ranges;
}

static json_t *report_share(struct task *t, const struct plan *plan, uint32_t k, uint32_t i)
{
    const struct plan_share *s = &plan->gpulet[k].share[i];
    const struct plan_model *m = &t->p.model[s->model];
    struct share_truth truth = {0};
    json_t *o = json_object();

    put(o, "model", json_string(m->name));
    put_num(o, "batch", s->batch);
    put_num(o, "usual", s->usual ? s->usual : s->batch);
    put_num(o, "streams", MAX(s->streams, 1u));
    put_num(o, "rate_rps", s->rate_rps);
    put(o, "slo_ms", m->slo_us ? json_real(ms((double)m->slo_us)) : json_null());
    if (plan_truth(&t->p, plan, k, i, &truth) < 0)
        return o;
    put_num(o, "run_ms", ms(truth.usual.run_us));
    put_num(o, "full_run_ms", ms(truth.full.run_us));
    put_num(o, "latency_ms", ms(truth.latency_us));
    put_num(o, "duty", truth.duty);
    put_num(o, "slowdown", truth.usual.slowdown);
    if (t->p.rules.rule == RULE_QUEUE)
        put_num(o, "late", truth.late);
    put_num(o, "most_rps", truth.most_rps);
    put(o, "holds", json_boolean(truth.holds));
    return o;
}

static json_t *report_gpulets(struct task *t, const struct plan *plan)
{
    json_t *list = json_array();

    progress_begin("predicting");
    for (uint32_t k = 0; k < plan->n_gpulets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        json_t *o = json_object(), *shares = json_array();
        progress_set(NULL, (double)k / plan->n_gpulets);
        put(o, "device", json_string(t->p.device[g->device].name));
        put(o, "granules", report_granules(g));
        put_num(o, "units", g->units);
        for (uint32_t i = 0; i < g->n_shares; i++)
            (void)json_array_append_new(shares, report_share(t, plan, k, i));
        put(o, "shares", shares);
        (void)json_array_append_new(list, o);
    }
    progress_end();
    return list;
}

/* Bytes that the model needs at least on a device of the type, all its own. */
static double least_bytes(const struct plan_type *t, const struct plan_model *m)
{
    return (double)t->let_bytes + (double)t->pool_bytes + (double)m->weights_bytes +
           (double)m->slot_bytes + (double)m->row_bytes;
}

/* What would be needed, for a person. */
static json_t *report_need(const struct problem *p, const struct plan_model *m,
                           const struct plan_verdict *v)
{
    const struct plan_type *t = &p->type[0];
    double most = v->most_rps;

    switch (v->limit) {
    case LIMIT_SLO:
        return v->least_slo_us
                   ? json_sprintf("an SLO of at least %.4g ms", ms((double)v->least_slo_us))
                   : json_string("no SLO would hold on this plan");
    case LIMIT_MEMORY:
        return json_sprintf("%.0f bytes at least on a device, '%s' has %.0f", least_bytes(t, m),
                            t->name, (double)t->mem_bytes);
    default:
        return v->need > 0 ? json_sprintf("%.4g devices more; %.6g of %.6g requests/s are served",
                                          v->need, most, m->rate_rps)
                           : json_sprintf("%.6g of %.6g requests/s are served", most, m->rate_rps);
    }
}

static json_t *report_models(const struct problem *p, const struct plan *plan)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < plan->n_models; i++) {
        const struct plan_model *m = &p->model[i];
        const struct plan_verdict *v = &plan->verdict[i];
        json_t *o = json_object();
        put(o, "model", json_string(m->name));
        put(o, "met", json_boolean(v->limit == LIMIT_NONE));
        put(o, "limit", json_string(limit_names[v->limit]));
        put(o, "slo_ms", m->slo_us ? json_real(ms((double)m->slo_us)) : json_null());
        put_num(o, "rate_rps", m->rate_rps);
        put_num(o, "most_rps", v->most_rps);
        put_num(o, "least_slo_ms", ms((double)v->least_slo_us));
        put_num(o, "need", v->need);
        if (v->limit != LIMIT_NONE)
            put(o, "needed", report_need(p, m, v));
        (void)json_array_append_new(list, o);
    }
    return list;
}

static bool priced(const struct problem *p)
{
    for (uint32_t i = 0; i < p->n_types; i++)
        if (p->type[i].price > 0)
            return true;
    return false;
}

/* What the bound is a bound of: the devices used, or their price where they have one. */
static double cost(const struct task *t, const struct plan *plan)
{
    bool *used = calloc(t->p.n_devices + 1, sizeof(*used));
    double sum = 0;

    for (uint32_t k = 0; used && k < plan->n_gpulets; k++) {
        const struct plan_gpulet *g = &plan->gpulet[k];
        double price = let_type(&t->p, g)->price;
        sum += used[g->device] ? 0 : price > 0 ? price : 1;
        used[g->device] = true;
    }
    free(used);
    return sum;
}

json_t *report_answer(struct task *t, const struct answer *a)
{
    const struct plan *plan = &a->plan;
    json_t *o = json_object();
    double used = cost(t, plan);
    double bound = plan->bound > 0 ? plan->bound : plan_bound(&t->p, &t->a);

    put(o, "policy", json_string(a->policy));
    put(o, "valid", json_boolean(a->valid));
    if (!a->valid)
        put(o, "error", json_string(a->why));
    put_num(o, "devices", t->p.n_devices);
    put_num(o, "devices_used", plan_devices_used(&t->p, plan, &t->a));
    put_num(o, "cost", used);
    put(o, "cost_unit", json_string(priced(&t->p) ? "price an hour" : "devices"));
    put_num(o, "bound", bound);
    put_num(o, "gap", bound > 0 && models_met(plan) == plan->n_models ? used / bound - 1 : NAN);
    put_num(o, "met", models_met(plan));
    put_num(o, "steps", (double)plan->steps);
    put_num(o, "time_ms", a->ms);
    put(o, "gpulets", report_gpulets(t, plan));
    put(o, "models", report_models(&t->p, plan));
    return o;
}

/* ---- tables */

/* "4", "4 of 16": rows of a run at the planned rate, and what a burst may fill it to. */
const char *batch_text(json_t *share, char buf[32])
{
    double usual = num(share, "usual"), most = num(share, "batch");

    if (usual < most)
        (void)snprintf(buf, 32, "%.0f of %.0f", usual, most);
    else
        (void)snprintf(buf, 32, "%.0f", most);
    return buf;
}

static void print_share(json_t *g, json_t *s, bool first)
{
    char slo[32] = "-", run[32], latency[32], batch[32];
    char units[32] = "";

    if (first)
        (void)snprintf(units, sizeof(units), "%.0f", num(g, "units"));
    if (json_is_number(json_object_get(s, "slo_ms")))
        (void)snprintf(slo, sizeof(slo), "%.5g", num(s, "slo_ms"));
    printf("%-14s %6s  %-20s %9s %7.0f %10.6g %9s %9s %8s %6.1f%% %6.2f%s\n",
           first ? str(g, "device") : "", units, str(s, "model"), batch_text(s, batch),
           num(s, "streams"), num(s, "rate_rps"), ms_text(s, "run_ms", run),
           ms_text(s, "latency_ms", latency), slo, 100 * num(s, "duty"), num(s, "slowdown"),
           yes(s, "holds") ? "" : "  does not hold");
}

static void print_gpulets(json_t *list)
{
    json_t *g, *s;
    size_t i, k;

    printf("%-14s %6s  %-20s %9s %7s %10s %9s %9s %8s %7s %6s\n", "DEVICE", "UNITS", "MODEL",
           "BATCH", "STREAMS", "REQUESTS/S", "RUN ms", "LAT. ms", "SLO ms", "DUTY", "SLOWED");
    json_array_foreach(list, i, g)
    {
        json_array_foreach(json_object_get(g, "shares"), k, s)
        {
            print_share(g, s, k == 0);
        }
    }
}

static void print_unmet(json_t *models)
{
    json_t *m;
    size_t i;

    json_array_foreach(models, i, m)
    {
        if (!yes(m, "met"))
            printf("UNMET %s: limit: %s; needed: %s\n", str(m, "model"), str(m, "limit"),
                   str(m, "needed"));
    }
}

void report_print_bound(json_t *o)
{
    printf("policy %s: %.0f of %.0f devices used", str(o, "policy"), num(o, "devices_used"),
           num(o, "devices"));
    if (num(o, "bound") > 0)
        printf("; all that has a rate needs at least %.3f %s", num(o, "bound"),
               str(o, "cost_unit"));
    if (json_is_number(json_object_get(o, "gap")))
        printf(", this takes %.6g (%.1f %% more)", num(o, "cost"), 100 * num(o, "gap"));
}

void report_print(json_t *o)
{
    json_t *models = json_object_get(o, "models");

    print_gpulets(json_object_get(o, "gpulets"));
    putchar('\n');
    report_print_bound(o);
    printf("; %.0f of %zu models met; %.0f steps, %.2f ms\n", num(o, "met"),
           json_array_size(models), num(o, "steps"), num(o, "time_ms"));
    print_unmet(models);
    if (!yes(o, "valid"))
        printf("NOT VALID: %s\n", str(o, "error"));
}
