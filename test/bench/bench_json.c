/* JSON tensors against jansson on the same bytes: MB of text a second, median of 7 interleaved
 * runs.  Reading: our scanner with full validation into tensor memory, against json_loadb() and a
 * loop over its values.  Printing: ours against json_dumps() of an array made before. */
#include <daemon/tensor_json.h>
#include <gpulet/clock.h>
#include <jansson.h>
#include <stdio.h>

#define N 100000
#define RUNS 7

static uint64_t seed = 88172645463325252u;
static double uniform(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(seed >> 11) / 9007199254740992.0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v)
{
    qsort(v, RUNS, sizeof(*v), by_value);
    return v[RUNS / 2];
}

static void must(bool ok)
{
    if (!ok) {
        fprintf(stderr, "a run failed\n");
        exit(1);
    }
}

static double ours_read_ns(const struct text *json, struct tensor *t)
{
    uint64_t t0 = clock_now_ns();

    must(tensor_json_read(json->p, json->n, t, NULL) == 0);
    return (double)(clock_now_ns() - t0);
}

static double jansson_read_ns(const struct text *json, struct tensor *t)
{
    uint64_t t0 = clock_now_ns();
    json_t *a = json_loadb(json->p, json->n, 0, NULL), *v;
    size_t i;

    must(a != NULL);
    json_array_foreach(a, i, v)
    {
        if (t->dtype == DT_FP32)
            ((float *)t->data)[i] = (float)json_number_value(v);
        else if (t->dtype == DT_FP64)
            ((double *)t->data)[i] = json_number_value(v);
        else
            ((int64_t *)t->data)[i] = json_integer_value(v);
    }
    json_decref(a);
    return (double)(clock_now_ns() - t0);
}

static double ours_print_ns(const struct tensor *t, size_t *bytes)
{
    struct text text = {0};
    uint64_t t0 = clock_now_ns();

    must(tensor_json_print(t, &text, NULL) == 0);
    *bytes = text.n;
    free(text.p);
    return (double)(clock_now_ns() - t0);
}

static double jansson_print_ns(json_t *a, size_t *bytes)
{
    uint64_t t0 = clock_now_ns();
    char *text = json_dumps(a, JSON_COMPACT);

    must(text != NULL);
    *bytes = strlen(text);
    free(text);
    return (double)(clock_now_ns() - t0);
}

static void bench(const char *what, const struct text *json, enum dtype dtype)
{
    struct tensor t = {.dtype = dtype, .rank = 1, .dims = {N}, .data = calloc(N, 8)};
    double read[2][RUNS], print[2][RUNS], mb = (double)json->n / 1e6;
    json_t *a = json_loadb(json->p, json->n, 0, NULL);
    size_t out[2];

    must(t.data && a);
    for (int i = 0; i < RUNS; i++) {
        read[0][i] = ours_read_ns(json, &t);
        read[1][i] = jansson_read_ns(json, &t);
        print[0][i] = ours_print_ns(&t, &out[0]);
        print[1][i] = jansson_print_ns(a, &out[1]);
    }
    double r[2] = {mb / (median(read[0]) / 1e9), mb / (median(read[1]) / 1e9)};
    double p[2] = {N / median(print[0]) * 1e3, N / median(print[1]) * 1e3};
    printf("%-28s read %7.1f MB/s, jansson %6.1f, ratio %5.1f; "
           "print %6.1f M/s, jansson %5.1f, ratio %5.1f\n",
           what, r[0], r[1], r[0] / r[1], p[0], p[1], p[0] / p[1]);
    json_decref(a);
    free(t.data);
}

static void add_real(struct text *json, int precision, bool single)
{
    double v = uniform() * 2 - 1;

    text_printf(json, "%.*g", precision, single ? (double)(float)v : v);
}

static void bench_values(const char *what, int precision, enum dtype dtype)
{
    struct text json = {0};

    text_puts(&json, "[");
    for (int i = 0; i < N; i++) {
        if (i)
            text_puts(&json, ",");
        if (dtype == DT_INT64)
            text_printf(&json, "%lld", (long long)(uniform() * 256));
        else
            add_real(&json, precision, dtype == DT_FP32);
    }
    text_puts(&json, "]");
    must(!json.failed);
    bench(what, &json, dtype);
    free(json.p);
}

int main(void)
{
    bench_values("FP32, 17 digits (Python)", 17, DT_FP32);
    bench_values("FP32, 9 digits", 9, DT_FP32);
    bench_values("FP32, 4 digits", 4, DT_FP32);
    bench_values("FP64, 17 digits", 17, DT_FP64);
    bench_values("INT64, up to 3 digits", 0, DT_INT64);
    return 0;
}
