/* A problem file, the plans made for it, and what people ask of them. */
#pragma once

#include "cli.h"
#include <gpulet/policy.h>

struct task {
    const char *path;
    char *text;
    size_t bytes;
    struct arena a; /* of the problem and of all plans */
    struct problem p;
};

/* Errors of the file's content are -EBADMSG, so that -EINVAL stays the command line's. */
int task_open(const char *path, struct task *ret, struct err *err);
/* What the daemon plans for: GET /v1/problem, which has the running plan, too. */
int task_fetch(const struct cli *c, struct task *ret, struct err *err);
void task_done(struct task *t);

struct answer {
    const char *policy; /* "file FILE" for a plan that was read */
    struct plan plan;
    bool valid;
    char why[240]; /* it is not */
    double ms;     /* that planning took */
};
/* Plan by a policy, beside a running plan or NULL, and check what came out. */
int task_plan(struct task *t, const struct policy *policy, const struct plan *was,
              struct answer *ret, struct err *err);
/* The plan in a file. */
int task_read_plan(struct task *t, const char *path, struct plan *ret, struct err *err);
/* The plan of --plan, checked; else the one that --policy or the default policy makes. */
int task_answer(struct task *t, const struct cli *c, struct answer *ret, struct err *err);
/* The plan that is in the problem's own file, checked. */
int task_own_plan(struct task *t, struct answer *ret, struct err *err);
/* The policy of --policy, default "gpuletd". */
int task_policy(const struct cli *c, const struct policy **ret, struct err *err);

/* ---- what is asked of a plan */
const struct plan_type *let_type(const struct problem *p, const struct plan_gpulet *g);
uint32_t let_granules(const struct plan_gpulet *g);
bool let_has(const struct plan_gpulet *g, uint32_t granule);
uint32_t models_met(const struct plan *plan);

/* ---- report.c: {"policy", "valid", …, "gpulets": […], "models": […]} */
json_t *report_answer(struct task *t, const struct answer *a);
void report_print(json_t *report);
const char *batch_text(json_t *share, char buf[32]);
void report_print_bound(json_t *report); /* "policy X: 5 of 20 devices used; no plan does …" */

/* ---- draw.c */
int draw_plan(const struct task *t, const struct plan *plan, const char *path, struct err *err);
struct curve {
    const char *name;
    uint32_t n;
    const double *x, *y; /* y 0..1 */
};
int draw_curves(const char *title, const struct curve *c, uint32_t n, const char *path,
                struct err *err);
