/* The verbs. */
#include "cli.h"
#include <gpulet/clock.h>
#include <unistd.h>

#define BODY_MAX (256u << 20)

/* With --json: what the daemon said, and true. */
static bool as_json(const struct cli *c, const struct reply *r)
{
    if (c->json)
        puts(r->text ? r->text : "{}");
    return c->json;
}

static int no_args(int argc, char **argv, struct err *err)
{
    return argc > 0 ? err_set(err, -EINVAL, "unexpected argument '%s'", argv[0]) : 0;
}

/* ---- printing */

static void print_granules(json_t *set)
{
    size_t n = json_array_size(set);
    json_int_t first = n ? json_integer_value(json_array_get(set, 0)) : 0;
    json_int_t last = n ? json_integer_value(json_array_get(set, n - 1)) : 0;

    if (n > 1 && last - first == (json_int_t)n - 1)
        printf("%lld-%lld", (long long)first, (long long)last);
    else
        for (size_t i = 0; i < n; i++)
            printf("%s%lld", i ? "," : "", (long long)json_integer_value(json_array_get(set, i)));
}

static void print_gpulets(json_t *list)
{
    json_t *g, *m;
    size_t i, k;

    printf("%-8s %-8s %-6s %-9s %-9s %6s  %s\n", "GPU-LET", "DEVICE", "UNITS", "STATE", "GRANULES",
           "BUSY", "MODELS (batch, run)");
    json_array_foreach(list, i, g)
    {
        printf("%-8d %-8s %-6d %-9s ", (int)num(g, "id"), str(g, "device"), (int)num(g, "units"),
               str(g, "state"));
        print_granules(json_object_get(g, "granules"));
        printf("%*s %5.1f%% ", 8, "", 100 * num(g, "busy"));
        json_array_foreach(json_object_get(g, "models"), k, m)
        {
            printf("%s%s (%d, %.2f ms)", k ? ", " : " ", str(m, "model"), (int)num(m, "batch"),
                   num(m, "run_ms"));
        }
        printf("%s\n", k ? "" : " -");
    }
}

/* The same model and version in an earlier answer; NULL: it was not there. */
static json_t *model_was(json_t *was, json_t *m)
{
    json_t *w;
    size_t i;

    json_array_foreach(was, i, w)
    {
        if (STREQ(str(w, "name"), str(m, "name")) && num(w, "version") == num(m, "version"))
            return w;
    }
    return NULL;
}

/* Of all requests since the earlier answer (w NULL: the load), how many were answered in time. */
static const char *in_time_text(json_t *m, json_t *w, char buf[16])
{
    static const char *const all[] = {"success", "failed", "rejected"};
    double n = 0, in_time = num(m, "in_time") - (w ? num(w, "in_time") : 0);

    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        n += num(m, all[i]) - (w ? num(w, all[i]) : 0);
    if (n > 0)
        (void)snprintf(buf, 16, "%.2f%%", 100 * in_time / n);
    else
        (void)snprintf(buf, 16, "-");
    return buf;
}

/* What a model's precision costs, by the output that is off most. */
static void print_accuracy(json_t *m)
{
    json_t *a = json_object_get(m, "accuracy"), *o, *worst = NULL;
    size_t i;

    if (str(a, "why")[0])
        printf("%-24s %s cannot be compared with fp32: %s\n", "", str(m, "precision"),
               str(a, "why"));
    json_array_foreach(json_object_get(a, "outputs"), i, o)
    {
        if (num(o, "overflowed") > 0)
            printf("%-24s output '%s': %.0f of %.0f entries are not finite in %s\n", "",
                   str(o, "name"), num(o, "overflowed"), num(o, "entries"), str(m, "precision"));
        if (!worst || num(o, "max_error") > num(worst, "max_error"))
            worst = o;
    }
    if (worst && json_object_get(worst, "max_error"))
        printf("%-24s %s: output '%s' is off by %.2g of its largest magnitude at most\n", "",
               str(m, "precision"), str(worst, "name"), num(worst, "max_error"));
}

static void print_models(json_t *list, json_t *was)
{
    json_t *m;
    size_t i;

    printf("%-24s %-7s %-11s %-18s %-6s %8s %10s %8s %6s %7s\n", "MODEL", "VERSION", "STATE", "SLO",
           "BATCH", "IN TIME", "ANSWERED", "REFUSED", "LATE", "WAITING");
    json_array_foreach(list, i, m)
    {
        char slo[64] = "-", in_time[16];
        bool best_effort = json_is_true(json_object_get(m, "best_effort"));
        if (best_effort)
            (void)snprintf(slo, sizeof(slo), "best effort");
        else if (STREQ(str(m, "slo"), "unmet"))
            (void)snprintf(slo, sizeof(slo), "%g ms UNMET", num(m, "slo_ms"));
        else if (num(m, "slo_ms") > 0)
            (void)snprintf(slo, sizeof(slo), "%g ms %s", num(m, "slo_ms"), str(m, "slo"));
        printf("%-24s %-7d %-11s %-18s %-6d %8s %10.0f %8.0f %6.0f %7d\n", str(m, "name"),
               (int)num(m, "version"), str(m, "state"), slo, (int)num(m, "max_batch"),
               in_time_text(m, model_was(was, m), in_time), num(m, "success"), num(m, "rejected"),
               num(m, "late"), (int)num(m, "queued"));
        if (str(m, "reason")[0])
            printf("%-24s %s\n", "", str(m, "reason"));
        if (STREQ(str(m, "slo"), "unmet"))
            printf("%-24s limit: %s; the smallest SLO that would hold is %.2f ms\n", "",
                   str(m, "limit"), num(m, "least_slo_ms"));
        if (best_effort && str(m, "limit")[0])
            printf("%-24s no gpu-let has time or memory for a run of it (limit: %s)\n", "",
                   str(m, "limit"));
        print_accuracy(m);
    }
}

/* ---- verbs */

static int verb_models(const struct cli *c, int argc, char **argv, struct err *err)
{
    struct reply r = {0};
    int rc = no_args(argc, argv, err);

    if (rc == 0)
        rc = client_call(c, "GET", "/v1/models", NULL, NULL, &r, err);
    if (rc == 0 && !as_json(c, &r))
        print_models(json_object_get(r.json, "models"), NULL);
    reply_done(&r);
    return rc;
}

static int verb_plan(const struct cli *c, int argc, char **argv, struct err *err)
{
    struct reply r = {0};

    if (argc > 0 || c->policy || c->plan || c->was || c->out || c->svg || c->check)
        return plan_file(c, argc, argv, err);
    int rc = client_call(c, "GET", "/v1/plan", NULL, NULL, &r, err);

    if (rc == 0 && !as_json(c, &r)) {
        printf("epoch %.0f, policy %s%s\n", num(r.json, "epoch"), str(r.json, "policy"),
               yes(r.json, "pinned") ? ", pinned by hand" : "");
        if (str(r.json, "error")[0])
            printf("the last plan failed: %s\n", str(r.json, "error"));
        print_gpulets(json_object_get(r.json, "gpulets"));
    }
    reply_done(&r);
    return rc;
}

static void print_devices(json_t *list)
{
    json_t *d;
    size_t i;

    json_array_foreach(list, i, d)
    {
        printf("%s: %s, %d units in granules of %d, %s\n  %s\n", str(d, "name"), str(d, "kind"),
               (int)num(d, "units"), (int)num(d, "granule_units"), str(d, "mode"), str(d, "why"));
    }
}

/* One answer of several: {"devices": …, "plan": …, "models": …} */
static int fetch_status(const struct cli *c, json_t *all, struct err *err)
{
    static const char *const parts[] = {"devices", "plan", "models"};
    char path[32];

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        struct reply r = {0};
        (void)snprintf(path, sizeof(path), "/v1/%s", parts[i]);
        int rc = client_call(c, "GET", path, NULL, NULL, &r, err);
        if (rc == 0)
            (void)json_object_set(all, parts[i], r.json);
        reply_done(&r);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static json_t *status_models(json_t *all)
{
    return json_object_get(json_object_get(all, "models"), "models");
}

/* was: the status before, or NULL. */
static void print_status(json_t *all, json_t *was)
{
    json_t *plan = json_object_get(all, "plan");

    json_t *devices = json_object_get(all, "devices");
    print_devices(json_object_get(devices, "devices"));
    if (str(devices, "no_gpu")[0])
        printf("no GPU: %s\n", str(devices, "no_gpu"));
    if (str(plan, "error")[0])
        printf("the last plan failed: %s\n", str(plan, "error"));
    putchar('\n');
    print_gpulets(json_object_get(plan, "gpulets"));
    putchar('\n');
    print_models(status_models(all), status_models(was));
}

static int verb_status(const struct cli *c, int argc, char **argv, struct err *err)
{
    json_t *all = json_object();
    int rc = no_args(argc, argv, err);

    if (rc == 0)
        rc = fetch_status(c, all, err);
    if (rc == 0 && c->json) {
        char *text = json_dumps(all, JSON_INDENT(2));
        puts(text ? text : "");
        free(text);
    } else if (rc == 0) {
        print_status(all, NULL);
    }
    json_decref(all);
    return rc;
}

static int verb_top(const struct cli *c, int argc, char **argv, struct err *err)
{
    int rc = no_args(argc, argv, err);
    json_t *was = NULL;

    for (long i = 0; rc == 0 && (c->count <= 0 || i < c->count); i++) {
        json_t *all = json_object();
        rc = fetch_status(c, all, err);
        if (rc == 0) {
            if (isatty(STDOUT_FILENO))
                fputs("\033[H\033[2J", stdout);
            print_status(all, was);
            (void)fflush(stdout);
        }
        json_decref(was);
        was = all;
        if (rc == 0 && i + 1 != c->count)
            (void)sleep(1);
    }
    json_decref(was);
    return rc;
}

static int upload(const struct cli *c, const char *path, const char *file, struct reply *r,
                  struct err *err)
{
    FILE *f = fopen(file, "re");

    if (!f)
        return err_set(err, -errno, "'%s': %s", file, strerror(errno));
    int rc = client_call(c, "PUT", path, NULL, f, r, err);
    (void)fclose(f);
    return rc;
}

int cli_precision(const struct cli *c, enum precision *ret, struct err *err)
{
    *ret = PRECISION_FP32;
    if (!c->precision || precision_of(c->precision, ret) == 0)
        return 0;
    return err_set(err, -EINVAL, "--precision '%s' is not fp32, fp16, bf16 or int8", c->precision);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static void add_number(char *query, size_t size, const char *name, double v)
{
    size_t n = strlen(query);

    if (v >= 0)
        (void)snprintf(query + n, size - n, "%c%s=%.15g", n ? '&' : '?', name, v);
}

static int verb_register(const struct cli *c, int argc, char **argv, struct err *err)
{
    char query[256] = "", after[300];
    enum precision precision;
    struct reply r = {0};

    if (argc != 2)
        return err_set(err, -EINVAL, "register needs a NAME and a FILE");
    int rc = cli_precision(c, &precision, err);
    for (uint32_t i = 0; i < c->files.n && rc == 0; i++) {
        char *name = strdup(client_path("/files/", base_name(c->files.at[i]), ""));
        rc = name ? upload(c, client_path("/v1/models/", argv[0], name), c->files.at[i], &r, err)
                  : -ENOMEM;
        free(name);
        reply_done(&r);
    }
    add_number(query, sizeof(query), "slo_ms", c->slo_ms);
    add_number(query, sizeof(query), "rate_rps", c->rate_rps);
    add_number(query, sizeof(query), "max_batch", (double)c->max_batch);
    add_number(query, sizeof(query), "priority", (double)c->priority);
    add_number(query, sizeof(query), "batch_invariant", c->batch_invariant ? 1 : -1);
    add_number(query, sizeof(query), "best_effort", c->best_effort ? 1 : -1);
    if (c->precision)
        (void)snprintf(query + strlen(query), sizeof(query) - strlen(query), "%cprecision=%s",
                       query[0] ? '&' : '?', precision_name(precision));
    (void)snprintf(after, sizeof(after), "%s", query);
    if (rc == 0)
        rc = upload(c, client_path("/v1/models/", argv[0], after), argv[1], &r, err);
    if (rc == 0 && !as_json(c, &r)) {
        json_t *list = json_array();
        (void)json_array_append(list, r.json);
        print_models(list, NULL);
        json_decref(list);
    }
    reply_done(&r);
    return rc;
}

static int infer_example(const struct cli *c, const char *model, struct err *err)
{
    struct reply r = {0};
    char *text = NULL;
    int rc = client_call(c, "GET", client_path("/v2/models/", model, ""), NULL, NULL, &r, err);

    if (rc == 0)
        rc = example_request(r.json, &text, err);
    if (rc == 0)
        puts(text);
    free(text);
    reply_done(&r);
    return rc;
}

static void print_outputs(const struct reply *r)
{
    json_t *o, *d;
    size_t i, k;

    json_array_foreach(json_object_get(r->json, "outputs"), i, o)
    {
        char *shape = json_dumps(json_object_get(o, "shape"), JSON_COMPACT);
        json_t *data = json_object_get(o, "data");
        printf("%s %s%s:", str(o, "name"), str(o, "datatype"), shape ? shape : "");
        free(shape);
        json_array_foreach(data, k, d)
        {
            char *v = k < 16 ? json_dumps(d, JSON_ENCODE_ANY | JSON_REAL_PRECISION(7)) : NULL;
            if (v)
                printf(" %s", v);
            free(v);
        }
        printf("%s\n", json_array_size(data) > 16 ? " …" : "");
    }
    printf("%.2f ms\n", r->ms);
}

static int verb_infer(const struct cli *c, int argc, char **argv, struct err *err)
{
    struct reply r = {0};
    char *body = NULL;
    size_t bytes;

    if (argc < 1 || argc > 2 || (c->example && argc != 1))
        return err_set(err, -EINVAL,
                       "infer needs a MODEL, and a FILE or '-' unless --example is given");
    if (c->example)
        return infer_example(c, argv[0], err);
    int rc = file_read(argc == 2 ? argv[1] : "-", BODY_MAX, &body, &bytes, err);
    if (rc == 0)
        rc = client_call(c, "POST", client_path("/v2/models/", argv[0], "/infer"), body, NULL, &r,
                         err);
    if (rc == 0 && !as_json(c, &r))
        print_outputs(&r);
    free(body);
    reply_done(&r);
    return rc;
}

static int verb_drain(const struct cli *c, int argc, char **argv, struct err *err)
{
    struct reply r = {0};
    int rc = no_args(argc, argv, err);

    if (rc == 0)
        rc = client_call(c, c->undo ? "DELETE" : "POST", "/v1/drain", c->undo ? NULL : "{}", NULL,
                         &r, err);
    if (rc == 0 && !as_json(c, &r))
        printf("%s, %.0f requests under way\n", yes(r.json, "draining") ? "draining" : "serving",
               num(r.json, "pending"));
    reply_done(&r);
    return rc;
}

const struct verb verbs[] = {
    {"status", "", "devices, gpu-lets and models", verb_status},
    {"models", "", "the models, their state and their SLO", verb_models},
    {"plan",
     "[FILE] [--policy NAME] [--was PLANFILE] [--check] [--plan PLANFILE] [--out PLANFILE] "
     "[--svg PATH]",
     "the plan that is running; with a problem file: plan it, without a daemon", verb_plan},
    {"explain", "[FILE] [MODEL] [--policy NAME] [--plan PLANFILE]",
     "why each gpu-let of a plan has its size, who disturbs whom, how far it is from the bound; "
     "without a file, of the plan that is running",
     verb_explain},
    {"simulate",
     "FILE [--policy NAME] [--plan PLANFILE] [--seed N] [--duration S] [--rate-scale X] "
     "[--arrivals KIND] [--trace CSV] [--sweep FROM:TO:STEPS] [--svg PATH] "
     "[--fail DEVICE@SECOND] [--step FACTOR@SECOND]",
     "a plan under load in virtual time: who is answered in time", verb_simulate},
    {"fit", "FILE [--kind KIND] [--leave-one-out]",
     "interference of a type of device from measured pairs, as a problem file takes it", verb_fit},
    {"profile", "FILE [--steps] [--batch N] [--dim N] [--precision P]",
     "where the time of an ONNX file goes on one core of this machine, without a daemon",
     verb_profile},
    {"top", "[--count N]", "status, once a second; IN TIME is of the requests since the last look",
     verb_top},
    {"register",
     "NAME FILE [--slo-ms MS] [--rate RPS] [--max-batch N] [--priority N] [--best-effort] "
     "[--precision P] [--file PATH]",
     "serve an ONNX file under a name; --file sends external data first", verb_register},
    {"infer", "MODEL [FILE | -] | --example MODEL",
     "send a request; --example prints a complete one for this model", verb_infer},
    {"bench",
     "MODEL=RPS [MODEL=RPS@SLO_MS] [--to URL] [--slo-ms MS] [--arrivals KIND] "
     "[--trace CSV] [--duration S] [--warmup S] [--rate-scale X] [--step FACTOR@SECOND] [--seed N] "
     "[--in-flight N] [--awake US] [--check] [--log CSV] [--search] [--svg PATH]",
     "load on a v2 server, sent when it is due whatever has been answered: who is answered in time",
     verb_bench},
    {"drain", "[--undo]", "answer no new requests; --undo serves again", verb_drain},
};
const size_t n_verbs = ARRAY_SIZE(verbs);
