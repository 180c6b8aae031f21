/* The two drawings.
 *
 * A plan: each device is a strip, its granules from left to right; a gpu-let is a box over its
 * granules, and from top to bottom it is one cycle of time: who runs in it and for how much. */
#include "svg.h"
#include "task.h"
#include <math.h>

#define LEFT 150.0
#define TOP 74.0
#define WIDE 760.0
#define STRIP 84.0
#define GAP 14.0
#define MAX_STRIPS 256 /* a drawing of more helps nobody */

/* Hues that lie far apart, whatever number of models there is. */
static int hue_of(uint32_t i)
{
    return (int)(((uint64_t)i * 137508 / 1000 + 210) % 360); /* the golden angle, 137.508 */
}

/* ---- a plan */

struct canvas {
    struct svg svg;
    const struct task *t;
    const struct plan *plan;
};

struct box {
    double x, y, w, h;
};

static void draw_share(struct canvas *c, uint32_t k, uint32_t i, const struct share_truth *truth,
                       struct box b)
{
    const struct plan_share *s = &c->plan->gpulet[k].share[i];
    const char *model = c->t->p.model[s->model].name;
    char label[256], tip[512];

    (void)snprintf(label, sizeof(label), "%s, batch %u", model, s->usual ? s->usual : s->batch);
    (void)snprintf(tip, sizeof(tip),
                   "%s: batch %u of at most %u, %.6g requests/s, a run %.2f ms, busy %.1f %%",
                   model, s->usual ? s->usual : s->batch, s->batch, s->rate_rps,
                   truth->usual.run_us / 1000, 100 * truth->duty);
    svg_rect(&c->svg, b.x, b.y, b.w, b.h, "run", hue_of(s->model), tip);
    if (b.h >= 10)
        svg_text_within(&c->svg, b.x + 3, b.y + fmin(b.h / 2 + 4, 12), b.w - 4, "in", label);
}

/* The shares of a gpu-let over one run of its granules, in the order of time. */
static void draw_let(struct canvas *c, uint32_t k, struct box b)
{
    const struct plan_gpulet *g = &c->plan->gpulet[k];
    double sum = 0, y = b.y;
    char tip[64];

    (void)snprintf(tip, sizeof(tip), "%u units", g->units);
    svg_rect(&c->svg, b.x, b.y, b.w, b.h, "let", -1, tip);
    for (int pass = 0; pass < 2; pass++) /* first how much there is, then to scale */
        for (uint32_t i = 0; i < g->n_shares; i++) {
            struct share_truth truth = {0};
            (void)plan_truth(&c->t->p, c->plan, k, i, &truth);
            if (pass == 0) {
                sum += truth.duty;
                continue;
            }
            double h = b.h * truth.duty / fmax(sum, 1);
            draw_share(c, k, i, &truth, (struct box){b.x, y, b.w, h});
            y += h;
        }
}

static void draw_let_runs(struct canvas *c, uint32_t k, double y)
{
    const struct plan_gpulet *g = &c->plan->gpulet[k];
    uint32_t all = let_type(&c->t->p, g)->n_granules;

    for (uint32_t i = 0, n; i < all; i += n + 1) {
        for (n = 0; i + n < all && let_has(g, i + n);)
            n++;
        if (n > 0)
            draw_let(c, k, (struct box){LEFT + WIDE * i / all, y, WIDE * n / all, STRIP});
    }
}

/* A scale under a strip; its numbers are few enough to be read. */
static void draw_units(struct canvas *c, const struct plan_type *type, double y)
{
    uint32_t step = 1;
    char text[64];

    while (type->n_granules / step > 10)
        step *= 2;
    for (uint32_t i = 0; i <= type->n_granules; i += step) {
        double x = LEFT + WIDE * i / type->n_granules;
        svg_line(&c->svg, x, y, x, y + 4, "edge");
        (void)snprintf(text, sizeof(text), "%u", i * type->granule_units);
        svg_text(&c->svg, x, y + 16, "axis", "middle", text);
    }
    (void)snprintf(text, sizeof(text), "units, in granules of %u", type->granule_units);
    svg_text(&c->svg, LEFT + WIDE / 2, y + 34, "axis", "middle", text);
}

static bool type_ends(const struct problem *p, const uint32_t *strip, uint32_t n, uint32_t i)
{
    return i + 1 == n || p->device[strip[i]].type != p->device[strip[i + 1]].type;
}

/* The devices that have a gpu-let, at most MAX_STRIPS. */
static uint32_t strips_find(const struct task *t, const struct plan *plan, uint32_t *ret,
                            uint32_t *ret_used)
{
    bool *used = calloc(t->p.n_devices + 1, sizeof(*used));
    uint32_t n = 0;

    *ret_used = 0;
    for (uint32_t k = 0; used && k < plan->n_gpulets; k++)
        used[plan->gpulet[k].device] = true;
    for (uint32_t d = 0; used && d < t->p.n_devices; d++) {
        *ret_used += used[d];
        if (used[d] && n < MAX_STRIPS)
            ret[n++] = d;
    }
    free(used);
    return n;
}

static void draw_strip(struct canvas *c, uint32_t device, double y)
{
    const struct plan_type *type = &c->t->p.type[c->t->p.device[device].type];

    svg_text(&c->svg, LEFT - 30, y + STRIP / 2, "axis", "end", c->t->p.device[device].name);
    svg_text(&c->svg, LEFT - 30, y + STRIP / 2 + 15, "", "end", type->name);
    svg_text(&c->svg, LEFT - 4, y + 8, "", "end", "0");
    svg_text(&c->svg, LEFT - 4, y + STRIP, "", "end", "100");
    svg_rect(&c->svg, LEFT, y, WIDE, STRIP, "free", -1, "free");
    for (uint32_t k = 0; k < c->plan->n_gpulets; k++)
        if (c->plan->gpulet[k].device == device)
            draw_let_runs(c, k, y);
}

int draw_plan(const struct task *t, const struct plan *plan, const char *path, struct err *err)
{
    struct canvas c = {.t = t, .plan = plan};
    uint32_t strip[MAX_STRIPS], used, n = strips_find(t, plan, strip, &used), scales = 0;
    char title[96];

    for (uint32_t i = 0; i < n; i++)
        scales += type_ends(&t->p, strip, n, i);
    (void)snprintf(title, sizeof(title), "%u gpu-lets on %u devices%s", plan->n_gpulets, used,
                   used > n ? " (the first 256 are drawn)" : "");
    int r = svg_open(path, LEFT + WIDE + 30, TOP + n * (STRIP + GAP) + scales * 40 + 10, title,
                     &c.svg, err);
    if (r < 0)
        return r;
    svg_text(&c.svg, 16, 46, "axis", "start",
             "across: the units of a device; down: one cycle of time in a gpu-let, in % "
             "(grey: idle)");
    double y = TOP;
    for (uint32_t i = 0; i < n; i++, y += STRIP + GAP) {
        draw_strip(&c, strip[i], y);
        if (type_ends(&t->p, strip, n, i)) {
            draw_units(&c, &t->p.type[t->p.device[strip[i]].type], y + STRIP);
            y += 40;
        }
    }
    return svg_close(&c.svg, err);
}

/* ---- curves over load */

#define PLOT_H 340.0
#define PLOT_LEFT 70.0
#define PLOT_TOP 50.0
#define LEGEND 200.0

struct range {
    double from, to;
};

/* The lower end is a round part below the worst, so that what happens near 100 % is seen. */
static struct range share_range(const struct curve *c, uint32_t n)
{
    double least = 1;

    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < c[k].n; i++)
            least = fmin(least, c[k].y[i]);
    return (struct range){least > 0.95 ? 0.95 : fmax(0, floor(least * 10) / 10), 1};
}

static struct range load_range(const struct curve *c, uint32_t n)
{
    struct range r = {INFINITY, -INFINITY};

    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < c[k].n; i++)
            r = (struct range){fmin(r.from, c[k].x[i]), fmax(r.to, c[k].x[i])};
    return r.to > r.from ? r : (struct range){0, fmax(2 * r.to, 1)};
}

static double at(struct range r, double v, double from, double to)
{
    return from + (to - from) * (v - r.from) / (r.to - r.from);
}

static void draw_axes(struct svg *s, struct range x, struct range y)
{
    double bottom = PLOT_TOP + PLOT_H, right = PLOT_LEFT + WIDE;
    char text[32];

    for (int i = 0; i <= 5; i++) {
        double v = y.from + (y.to - y.from) * i / 5, py = at(y, v, bottom, PLOT_TOP);
        svg_line(s, PLOT_LEFT, py, right, py, "grid");
        (void)snprintf(text, sizeof(text), "%.4g", 100 * v);
        svg_text(s, PLOT_LEFT - 6, py + 4, "axis", "end", text);
        v = x.from + (x.to - x.from) * i / 5;
        double px = at(x, v, PLOT_LEFT, right);
        svg_line(s, px, bottom, px, bottom + 5, "edge");
        (void)snprintf(text, sizeof(text), "%.3g", v);
        svg_text(s, px, bottom + 18, "axis", "middle", text);
    }
    svg_line(s, PLOT_LEFT, bottom, right, bottom, "edge");
    svg_line(s, PLOT_LEFT, PLOT_TOP, PLOT_LEFT, bottom, "edge");
    svg_text(s, PLOT_LEFT + WIDE / 2, bottom + 38, "axis", "middle",
             "load (multiples of the planned rates)");
    svg_text_up(s, 22, PLOT_TOP + PLOT_H / 2, "axis", "answered in time (% of requests)");
}

static int draw_curve(struct svg *s, const struct curve *c, uint32_t k, struct range x,
                      struct range y)
{
    double *px = calloc(2 * (size_t)c->n + 1, sizeof(*px)), *py = px + c->n;
    double row = PLOT_TOP + 10 + 20.0 * k;

    if (!px)
        return -ENOMEM;
    for (uint32_t i = 0; i < c->n; i++) {
        px[i] = at(x, c->x[i], PLOT_LEFT, PLOT_LEFT + WIDE);
        py[i] = at(y, c->y[i], PLOT_TOP + PLOT_H, PLOT_TOP);
    }
    svg_curve(s, px, py, c->n, hue_of(k), c->name);
    free(px);
    const double lx[] = {PLOT_LEFT + WIDE + 16, PLOT_LEFT + WIDE + 36}, ly[] = {row, row};
    svg_curve(s, lx, ly, 2, hue_of(k), c->name);
    svg_text_within(s, lx[1] + 6, row + 4, LEGEND - 46, "axis", c->name);
    return 0;
}

int draw_curves(const char *title, const struct curve *c, uint32_t n, const char *path,
                struct err *err)
{
    struct range x = load_range(c, n), y = share_range(c, n);
    struct svg s;
    int r = svg_open(path, PLOT_LEFT + WIDE + LEGEND, PLOT_TOP + fmax(PLOT_H, 20.0 * n) + 54, title,
                     &s, err);

    if (r < 0)
        return r;
    draw_axes(&s, x, y);
    for (uint32_t k = 0; k < n && r == 0; k++)
        r = draw_curve(&s, &c[k], k, x, y);
    int closed = svg_close(&s, err);
    return r < 0 ? err_set(err, r, "'%s': out of memory", path) : closed;
}
