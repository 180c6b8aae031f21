/* gpuletctl fit: interference from measured pairs. */
#include "task.h"
#include <gpulet/problem.h>
#include <math.h>

static const struct {
    const char *name;
    enum interfere_kind kind;
} kinds[] = {
    {"pressure", INTERFERE_PRESSURE},
    {"gpulet", INTERFERE_GPULET},
    {"igniter", INTERFERE_IGNITER},
};

static int kind_find(const char *name, enum interfere_kind *ret, struct err *err)
{
    *ret = kinds[0].kind;
    for (size_t i = 0; name && i < ARRAY_SIZE(kinds); i++)
        if (STREQ(kinds[i].name, name)) {
            *ret = kinds[i].kind;
            return 0;
        }
    return name ? err_set(err, -EINVAL, "--kind '%s' is none of gpulet, igniter, pressure", name)
                : 0;
}

struct fit {
    struct task t;
    struct pairs pairs;
    struct predict_device start, fitted; /* start: the hardware terms that are known */
    double *error;                       /* [n] of the leave-one-out predictions */
    uint32_t n_errors, n_under;
};

/* ---- the table */

static json_t *report_row(const char *name, double n, const struct fit_report *r)
{
    json_t *o = json_object();

    put(o, "pairs", json_string(name));
    put_num(o, "n", n);
    put_num(o, "mean_error", r->mean_error);
    put_num(o, "p95_error", r->p95_error);
    put_num(o, "under_10", r->under_10);
    return o;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Over all folds, each predicted by what the others taught. */
static struct fit_report left_out_report(struct fit *f)
{
    struct fit_report r = {0};

    if (f->n_errors == 0)
        return r;
    qsort(f->error, f->n_errors, sizeof(*f->error), by_size);
    for (uint32_t i = 0; i < f->n_errors; i++)
        r.mean_error += f->error[i] / f->n_errors;
    r.p95_error = f->error[(uint32_t)ceil(0.95 * f->n_errors) - 1];
    r.under_10 = (double)f->n_under / f->n_errors;
    return r;
}

static void fold_errors(struct fit *f, const struct predict_device *d, uint32_t fold)
{
    for (uint32_t i = 0; i < f->pairs.n; i++) {
        const struct fit_pair *pair = &f->pairs.pair[i];
        struct estimate e;
        if (pair->fold != fold || !predict(d, &pair->me, &pair->other, 1, &e))
            continue;
        double error = (e.run_us - pair->run_us) / pair->run_us;
        f->error[f->n_errors++] = fabs(error);
        f->n_under += error < -0.1;
    }
}

static uint32_t fold_size(const struct fit *f, uint32_t fold)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < f->pairs.n; i++)
        n += f->pairs.pair[i].fold == fold;
    return n;
}

static int leave_out(struct fit *f, uint32_t fold, json_t *rows, struct err *err)
{
    struct predict_device d = f->start;
    struct fit_report report;
    int r = fit_interference(&d, f->pairs.pair, f->pairs.n, fold, &f->t.a, err);

    if (r < 0)
        return err_wrap(err, "without %s: ", f->pairs.fold[fold]);
    fit_evaluate(&d, f->pairs.pair, f->pairs.n, fold, &f->t.a, &report);
    (void)json_array_append_new(rows, report_row(f->pairs.fold[fold], fold_size(f, fold), &report));
    fold_errors(f, &d, fold);
    return 0;
}

static int leave_each_out(struct fit *f, json_t *out, struct err *err)
{
    json_t *rows = json_array();
    int r = 0;

    f->error = ARENA_ARRAY(&f->t.a, double, f->pairs.n);
    if (!f->error)
        r = err_set(err, -ENOMEM, "out of memory");
    for (uint32_t fold = 0; r == 0 && fold < f->pairs.n_folds; fold++) {
        progress_set(NULL, (double)fold / f->pairs.n_folds);
        r = leave_out(f, fold, rows, err);
    }
    struct fit_report all = left_out_report(f);
    put(out, "left_out", rows);
    put(out, "left_out_all", report_row("all, each left out", f->n_errors, &all));
    return r;
}

/* ---- the coefficients, as a problem file has them */

static int coefficients(const struct fit *f, json_t **ret, struct err *err)
{
    AUTO(free) char *text = NULL;
    struct plan_type type = f->t.p.type[f->pairs.type];
    struct problem one = {.n_types = 1, .type = &type};

    type.predict = f->fitted;
    int r = problem_print(&one, &text, err);
    if (r < 0)
        return r;
    json_t *o = json_loads(text, 0, NULL);
    json_t *first = json_array_get(json_object_get(o, "types"), 0);
    *ret = json_incref(json_object_get(first, "interference"));
    json_decref(o);
    return *ret ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static int fit_all(struct fit *f, bool leave_one_out, json_t *out, struct err *err)
{
    struct fit_report report;
    json_t *found = NULL;

    f->fitted = f->start;
    int r = fit_interference(&f->fitted, f->pairs.pair, f->pairs.n, UINT32_MAX, &f->t.a, err);
    if (r == 0)
        r = coefficients(f, &found, err);
    if (r < 0)
        return r;
    fit_evaluate(&f->fitted, f->pairs.pair, f->pairs.n, UINT32_MAX, &f->t.a, &report);
    put(out, "type", json_string(f->t.p.type[f->pairs.type].name));
    put(out, "interference", found);
    put(out, "fitted", report_row("all, as fitted", f->pairs.n, &report));
    return leave_one_out ? leave_each_out(f, out, err) : 0;
}

static void print_row(json_t *o)
{
    printf("%-32s %6.0f %8.2f %% %8.2f %% %8.2f %%\n", str(o, "pairs"), num(o, "n"),
           100 * num(o, "mean_error"), 100 * num(o, "p95_error"), 100 * num(o, "under_10"));
}

static int print_fit(json_t *o, struct err *err)
{
    json_t *row;
    size_t i;
    int r = print_json(json_object_get(o, "interference"), err);

    printf("\n%-32s %6s %10s %10s %10s\n", "RUNS BESIDE ANOTHER", "N", "MEAN", "P95", "10% LOW");
    print_row(json_object_get(o, "fitted"));
    json_array_foreach(json_object_get(o, "left_out"), i, row)
    {
        print_row(row);
    }
    if ((row = json_object_get(o, "left_out_all")))
        print_row(row);
    return r;
}

int verb_fit(const struct cli *c, int argc, char **argv, struct err *err)
{
    struct fit f = {0};
    enum interfere_kind kind;

    if (argc != 1)
        return err_set(err, -EINVAL, "fit needs a FILE with types, models and pairs");
    int r = kind_find(c->kind, &kind, err);
    if (r < 0)
        return r;
    r = task_open(argv[0], &f.t, err);
    if (r == 0)
        r = pairs_parse(f.t.text, f.t.bytes, &f.t.p, &f.t.a, &f.pairs, err);
    json_t *out = json_object();
    if (r == 0) {
        f.start = f.t.p.type[f.pairs.type].predict;
        f.start.interference.kind = kind;
        progress_begin("fitting");
        r = fit_all(&f, c->leave_one_out, out, err);
        progress_end();
    }
    if (r < 0) /* whatever is wrong is wrong with the file */
        r = r == -EINVAL ? (void)err_wrap(err, "'%s': ", argv[0]), -EBADMSG : r;
    else
        r = c->json ? print_json(out, err) : print_fit(out, err);
    json_decref(out);
    task_done(&f.t);
    return r;
}
