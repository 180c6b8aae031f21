/* iGniter's published V100 measurements (test/data/README) as profiles and pairs.
 * Run from the repository's root.  Ends the program when the files are not as they should be. */
#pragma once

#include <gpulet/predict.h>
#include <stdio.h>

#define V100_MODELS 4
#define V100_BATCHES 32
#define V100_SHARES 7
#define V100_PAIRS 1500 /* 750 settings, either model's latency */
#define V100_FOLDS 6    /* pairs of models */
#define V100_LINK_BPS 1e10

static const uint32_t v100_share[V100_SHARES] = {10, 20, 40, 50, 60, 80, 100};

struct v100 {
    char name[V100_MODELS][16];
    uint32_t batch[V100_BATCHES];
    usec_t run_us[V100_MODELS][V100_SHARES][V100_BATCHES];
    double l2[V100_MODELS][V100_SHARES][V100_BATCHES];
    double dram[V100_MODELS][V100_SHARES][V100_BATCHES];
    double watts[V100_MODELS][V100_SHARES][V100_BATCHES];
    struct igniter_curve curve[V100_MODELS];
    struct profile table[V100_MODELS],
        curved[V100_MODELS];          /* the same models, measured and fitted */
    struct fit_pair pair[V100_PAIRS]; /* of tables */
    char fold_name[V100_FOLDS][40];
    struct predict_device device; /* units are per cent; the power terms are iGniter's */
};

#define V100_COLUMNS 16
struct v100_line {
    char text[512];
    char *at[V100_COLUMNS];
    uint32_t n;
};

static void v100_must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "V100 data: %s\n", what);
        exit(1);
    }
}

static bool v100_next(FILE *f, struct v100_line *l)
{
    if (!fgets(l->text, sizeof(l->text), f))
        return false;
    l->text[strcspn(l->text, "\r\n")] = 0;
    l->n = 0;
    for (char *c = l->text; c && l->n < V100_COLUMNS; l->n++) {
        l->at[l->n] = c;
        if ((c = strchr(c, ',')))
            *c++ = 0;
    }
    return true;
}

static FILE *v100_open(const char *path, struct v100_line *head)
{
    FILE *f = fopen(path, "r");

    v100_must(f && v100_next(f, head), path);
    return f;
}

static double v100_number(const struct v100_line *l, uint32_t i, double empty)
{
    v100_must(i < l->n, "too few columns");
    return l->at[i][0] ? strtod(l->at[i], NULL) : empty;
}

static uint32_t v100_model(const struct v100 *v, const char *name)
{
    uint32_t i = 0;

    while (i < V100_MODELS && strcmp(v->name[i], name) != 0)
        i++;
    v100_must(i < V100_MODELS, name);
    return i;
}

static uint32_t v100_share_index(double pct)
{
    uint32_t i = 0;

    while (i < V100_SHARES && v100_share[i] != (uint32_t)pct)
        i++;
    v100_must(i < V100_SHARES, "a share that is not in the table");
    return i;
}

static void v100_read_models(struct v100 *v)
{
    struct v100_line l;
    FILE *f = v100_open("test/data/plan/v100_models.csv", &l);

    for (uint32_t i = 0; v100_next(f, &l); i++) {
        v100_must(i < V100_MODELS && l.n == 15 && strlen(l.at[0]) < sizeof(v->name[i]), "models");
        strcpy(v->name[i], l.at[0]);
        double x[15];
        for (uint32_t k = 1; k < 15; k++)
            x[k] = v100_number(&l, k, 0);
        v->curve[i] = (struct igniter_curve){.k = {x[10], x[11], x[12], x[13], x[14]},
                                             .kernels = x[1],
                                             .sched_ms = x[2],
                                             .in_bytes = x[3],
                                             .out_bytes = x[4],
                                             .watts_per_rps = x[5],
                                             .watts_base = x[6],
                                             .l2_per_rps = x[7],
                                             .l2_base = x[8],
                                             .cache_per_pct = x[9]};
    }
    fclose(f);
}

/* The table's latency has the copies in it; a profile's run has not. */
static void v100_read_solo(struct v100 *v)
{
    struct v100_line l;
    FILE *f = v100_open("test/data/plan/v100_solo.csv", &l);

    while (v100_next(f, &l)) {
        uint32_t m = v100_model(v, l.at[0]), b = (uint32_t)v100_number(&l, 1, 0);
        uint32_t s = v100_share_index(v100_number(&l, 2, 0));
        v100_must(b >= 1 && b <= V100_BATCHES, "batch");
        double copies_us = 1e6 * b * (v->curve[m].in_bytes + v->curve[m].out_bytes) / V100_LINK_BPS;
        v->run_us[m][s][b - 1] = (usec_t)(1000 * v100_number(&l, 3, 0) - copies_us + 0.5);
        v->l2[m][s][b - 1] = v100_number(&l, 4, -100) / 100;
        v->dram[m][s][b - 1] = v100_number(&l, 5, -100) / 100;
        v->watts[m][s][b - 1] = v100_number(&l, 6, -1);
    }
    fclose(f);
}

static void v100_profiles(struct v100 *v)
{
    for (uint32_t b = 0; b < V100_BATCHES; b++)
        v->batch[b] = b + 1;
    for (uint32_t m = 0; m < V100_MODELS; m++) {
        v->table[m] = (struct profile){.n_batch = V100_BATCHES,
                                       .n_units = V100_SHARES,
                                       .batch = v->batch,
                                       .units = v100_share,
                                       .run_us = v->run_us[m][0],
                                       .l2 = v->l2[m][0],
                                       .dram = v->dram[m][0],
                                       .watts = v->watts[m][0],
                                       .kernels = v->curve[m].kernels,
                                       .in_bytes = v->curve[m].in_bytes,
                                       .out_bytes = v->curve[m].out_bytes,
                                       .measured = true};
        v->curved[m] = (struct profile){.curve = &v->curve[m]};
    }
}

/* Folds are pairs of models in the order of the file. */
static uint32_t v100_fold(struct v100 *v, const char *one, const char *two)
{
    char name[40];
    uint32_t i = 0;

    (void)snprintf(name, sizeof(name), "%s %s", one, two);
    while (i < V100_FOLDS && v->fold_name[i][0] && strcmp(v->fold_name[i], name) != 0)
        i++;
    v100_must(i < V100_FOLDS, "too many pairs of models");
    strcpy(v->fold_name[i], name);
    return i;
}

static void v100_read_pairs(struct v100 *v)
{
    struct v100_line l;
    FILE *f = v100_open("test/data/plan/v100_pairs.csv", &l);
    uint32_t n = 0;

    while (v100_next(f, &l)) {
        struct load one[2];
        uint32_t fold = v100_fold(v, l.at[0], l.at[1]);
        for (uint32_t k = 0; k < 2; k++)
            one[k] = (struct load){.profile = &v->table[v100_model(v, l.at[k])],
                                   .batch = (uint32_t)v100_number(&l, 2 + k, 0),
                                   .units = (uint32_t)v100_number(&l, 4 + k, 0),
                                   .duty = 1};
        v100_must(n + 2 <= V100_PAIRS, "too many pairs");
        for (uint32_t k = 0; k < 2; k++)
            v->pair[n++] = (struct fit_pair){.me = one[k],
                                             .other = one[1 - k],
                                             .run_us = 1000 * v100_number(&l, 6 + k, 0),
                                             .fold = fold};
    }
    v100_must(n == V100_PAIRS, "too few pairs");
    fclose(f);
}

static inline void v100_load(struct v100 *v)
{
    memset(v, 0, sizeof(*v));
    v->device = (struct predict_device){
        .units = 100,
        .link_bps = V100_LINK_BPS,
        .interference = {.max_mhz = 1530,
                         .max_watts = 300,
                         .idle_watts = 53.5,
                         .mhz_per_watt = -1.025413623,
                         .sched_ms = 0.004750653473,
                         .sched_base_ms = -0.009022425731},
    };
    v100_read_models(v);
    v100_read_solo(v);
    v100_profiles(v);
    v100_read_pairs(v);
}
