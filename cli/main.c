/* gpuletctl: options, then a verb. */
#include "cli.h"
#include <ctype.h>
#include <curl/curl.h>
#include <getopt.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/gpuletd/admin.sock"
#define DEFAULT_SERVER "http://127.0.0.1:8001"
#define NUMBER_MAX 1e15
#define CODE_DOCUMENT 256
#define CODE_FIRST 257

enum flag_kind { FLAG_TEXT, FLAG_NUMBER, FLAG_WHOLE, FLAG_YES, FLAG_LIST, FLAG_ACTION };
#define AT(field) offsetof(struct cli, field)

/* One table for getopt, --help and gpuletctl(1). */
static const struct flag {
    const char *name;
    char letter; /* 0: only the long form */
    const char *arg;
    const char *help;
    enum flag_kind kind;
    size_t at; /* in struct cli */
} flags[] = {
    {"server", 's', "URL",
     "where the daemon listens: http://HOST:PORT or unix:PATH; default: $GPULETCTL_SERVER, "
     "else " DEFAULT_SOCKET " if it is there, else " DEFAULT_SERVER,
     FLAG_TEXT, AT(server)},
    {"token", 't', "TOKEN",
     "the admin token, for a daemon on another machine; default: $GPULETCTL_TOKEN", FLAG_TEXT,
     AT(token)},
    {"json", 'j', NULL, "print JSON: the daemon's answer as it is, or the whole result", FLAG_YES,
     AT(json)},
    {"slo-ms", 0, "MS",
     "register: latency objective, arrival to reply; bench: of models without one of their own",
     FLAG_NUMBER, AT(slo_ms)},
    {"rate", 0, "RPS", "register: expected requests per second", FLAG_NUMBER, AT(rate_rps)},
    {"max-batch", 0, "N", "register: most rows in one run", FLAG_WHOLE, AT(max_batch)},
    {"priority", 0, "N", "register: 1 is served first; 0 is the default", FLAG_WHOLE, AT(priority)},
    {"batch-invariant", 0, NULL,
     "register: the bits of a row do not depend on how many rows share its run", FLAG_YES,
     AT(batch_invariant)},
    {"best-effort", 0, NULL,
     "register: promised nothing, served where models with an SLO leave time", FLAG_YES,
     AT(best_effort)},
    {"precision", 0, "P",
     "register, profile: fp32 (the default), fp16, bf16, or int8 for models with QuantizeLinear "
     "nodes",
     FLAG_TEXT, AT(precision)},
    {"file", 0, "PATH", "register: external data of the model; may be repeated", FLAG_LIST,
     AT(files)},
    {"count", 0, "N", "top: stop after so many", FLAG_WHOLE, AT(count)},
    {"example", 0, NULL, "infer: print a request instead of sending one", FLAG_YES, AT(example)},
    {"undo", 0, NULL, "drain: serve again", FLAG_YES, AT(undo)},
    {"policy", 0, "NAME",
     "plan, explain, simulate: who plans, default gpuletd; 'all' compares (plan) or draws "
     "(simulate --sweep) every policy",
     FLAG_TEXT, AT(policy)},
    {"plan", 0, "PLANFILE",
     "explain, simulate, plan --check: this plan, as plan --out writes it, instead of making one",
     FLAG_TEXT, AT(plan)},
    {"was", 0, "PLANFILE", "plan: what runs now, to be changed as little as possible", FLAG_TEXT,
     AT(was)},
    {"out", 0, "PLANFILE", "plan: write the plan there", FLAG_TEXT, AT(out)},
    {"check", 0, NULL,
     "plan: verify the plan of --plan, else the one in the problem file, instead of making one; "
     "bench: ask with 16 different inputs, and count as wrong what is not answered as it is to the "
     "same input alone",
     FLAG_YES, AT(check)},
    {"svg", 0, "PATH",
     "plan: draw the devices with their gpu-lets; simulate: the in-time curve of --sweep; bench: "
     "that of --search",
     FLAG_TEXT, AT(svg)},
    {"seed", 0, "N", "simulate, bench: of the arrivals, default 1", FLAG_WHOLE, AT(seed)},
    {"duration", 0, "S",
     "simulate, bench: seconds of arrivals; default: 60 (bench 10), with a trace that names models "
     "its length",
     FLAG_NUMBER, AT(duration_s)},
    {"rate-scale", 0, "X",
     "simulate, bench: multiply all rates; bench --search: where the search begins", FLAG_NUMBER,
     AT(rate_scale)},
    {"arrivals", 0, "KIND",
     "simulate, bench: paced, poisson, gamma:CV, onoff:ON_S:OFF_S or diurnal:PERIOD_S:SWING; "
     "default: "
     "as the problem file says (bench: poisson)",
     FLAG_TEXT, AT(arrivals)},
    {"trace", 0, "CSV",
     "simulate, bench: arrivals as measured; a column model or func_name says whose, else every "
     "model's "
     "requests come in this rhythm at its own mean rate",
     FLAG_TEXT, AT(trace)},
    {"sweep", 0, "FROM:TO:STEPS", "simulate: at so many loads, in multiples of the planned rates",
     FLAG_TEXT, AT(sweep)},
    {"fail", 0, "DEVICE@SECOND", "simulate: the device is lost then; may be repeated", FLAG_LIST,
     AT(fails)},
    {"step", 0, "FACTOR@SECOND",
     "simulate, bench: all rates are from then on FACTOR times those at the start; may be repeated",
     FLAG_LIST, AT(steps)},
    {"kind", 0, "KIND", "fit: gpulet, igniter or pressure (the default)", FLAG_TEXT, AT(kind)},
    {"leave-one-out", 0, NULL,
     "fit: also predict each pair of models by what is fitted to all the others", FLAG_YES,
     AT(leave_one_out)},
    {"steps", 0, NULL, "profile: every step, with what does it, layouts and time", FLAG_YES,
     AT(by_step)},
    {"batch", 0, "N", "profile: rows, default 1", FLAG_WHOLE, AT(batch)},
    {"dim", 0, "N", "profile: free dimensions other than the batch, default 16", FLAG_WHOLE,
     AT(dim)},
    {"to", 0, "URL",
     "bench: the v2 server to load, http://HOST:PORT; default http://127.0.0.1:8000", FLAG_TEXT,
     AT(to)},
    {"warmup", 0, "S", "bench: seconds at the beginning that are not counted, default 1",
     FLAG_NUMBER, AT(warmup_s)},
    {"in-flight", 0, "N", "bench: most requests at once, default 1000; what would be more is lost",
     FLAG_WHOLE, AT(in_flight)},
    {"awake", 0, "US",
     "bench: be awake for so many microseconds before a request is due, up to 1000, default 0: "
     "where "
     "timers are late, and a core is to be spent on it",
     FLAG_WHOLE, AT(awake_us)},
    {"log", 0, "CSV",
     "bench: a line for each request: when it was due in seconds since 1970, what came of it, "
     "after how many ms",
     FLAG_TEXT, AT(log)},
    {"search", 0, NULL,
     "bench: search for the largest load at which 99 % of each model's requests are in time",
     FLAG_YES, AT(search)},
    {"help", 'h', NULL, "print this text", FLAG_ACTION, 0},
    {"version", 'V', NULL, "print the version", FLAG_ACTION, 0},
};

static void print_help(FILE *to)
{
    (void)fputs("usage: gpuletctl [OPTION]... VERB [ARGUMENT]...\n\n", to);
    for (size_t i = 0; i < n_verbs; i++)
        (void)fprintf(to, "  %s %s\n      %s\n", verbs[i].name, verbs[i].args, verbs[i].help);
    (void)fputc('\n', to);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        char left[64];
        (void)snprintf(left, sizeof(left), "%c%c%s--%s%s%s", flags[i].letter ? '-' : ' ',
                       flags[i].letter ? flags[i].letter : ' ', flags[i].letter ? ", " : "  ",
                       flags[i].name, flags[i].arg ? " " : "", flags[i].arg ? flags[i].arg : "");
        (void)fprintf(to, "  %-22s %s\n", left, flags[i].help);
    }
}

/* "[--slo-ms MS]" as mdoc: " Oo Fl Fl slo-ms Ar MS Oc". */
static void print_args(const char *args)
{
    while (*args) {
        size_t n = strcspn(args, " ");
        bool opens = args[0] == '[', closes = n > 0 && args[n - 1] == ']';
        const char *word = args + opens;
        int len = (int)(n - opens - closes);
        if (opens)
            printf(" Oo");
        if (len > 2 && strncmp(word, "--", 2) == 0)
            printf(" Fl Fl %.*s", len - 2, word + 2);
        else if (word[0] == '-')
            printf(" Fl");
        else
            printf(word[0] == '|' ? " %.*s" : " Ar %.*s", len, word);
        if (closes)
            printf(" Oc");
        args += n;
        args += strspn(args, " ");
    }
}

static void print_sentence(const char *help)
{
    printf("\n%c%s.\n", toupper((unsigned char)help[0]), help + 1);
}

/* For gpuletctl(1). */
static void print_document(const char *what)
{
    if (STREQ(what, "verbs")) {
        for (size_t i = 0; i < n_verbs; i++) {
            printf(".It Cm %s", verbs[i].name);
            print_args(verbs[i].args);
            print_sentence(verbs[i].help);
        }
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        printf(".It ");
        if (flags[i].letter)
            printf("Fl %c , ", flags[i].letter);
        printf("Fl Fl %s%s%s", flags[i].name, flags[i].arg ? " Ar " : "",
               flags[i].arg ? flags[i].arg : "");
        print_sentence(flags[i].help);
    }
}

static double number(const struct flag *f, const char *text)
{
    bool whole = f->kind == FLAG_WHOLE;
    char *end;
    double v = strtod(text, &end);

    if (end != text && !*end && v >= 0 && v <= NUMBER_MAX && (!whole || v == (double)(long)v))
        return v;
    (void)fprintf(stderr, "gpuletctl: --%s = '%s' is not a %snumber from 0 to %g\n", f->name, text,
                  whole ? "whole " : "", NUMBER_MAX);
    exit(2);
}

static void add_to_list(const struct flag *f, struct list *l, const char *text)
{
    if (l->n == ARRAY_SIZE(l->at)) {
        (void)fprintf(stderr, "gpuletctl: --%s is given more than %zu times\n", f->name,
                      ARRAY_SIZE(l->at));
        exit(2);
    }
    l->at[l->n++] = text;
}

static void set_flag(struct cli *c, const struct flag *f)
{
    void *field = (char *)c + f->at;

    switch (f->kind) {
    case FLAG_TEXT:
        *(const char **)field = optarg;
        break;
    case FLAG_NUMBER:
        *(double *)field = number(f, optarg);
        break;
    case FLAG_WHOLE:
        *(long *)field = (long)number(f, optarg);
        break;
    case FLAG_YES:
        *(bool *)field = true;
        break;
    case FLAG_LIST:
        add_to_list(f, field, optarg);
        break;
    case FLAG_ACTION:
        if (f->letter == 'h')
            print_help(stdout);
        else
            puts("gpuletctl " GPULETD_VERSION);
        exit(0);
    }
}

/* What getopt calls row i. */
static int flag_code(size_t i)
{
    return flags[i].letter ? flags[i].letter : (int)(CODE_FIRST + i);
}

static void parse_flags(int argc, char **argv, struct cli *c)
{
    struct option longs[ARRAY_SIZE(flags) + 2] = {{0}};
    char shorts[2 * ARRAY_SIZE(flags) + 1] = "";
    int code;

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        longs[i] = (struct option){flags[i].name, flags[i].arg ? 1 : 0, NULL, flag_code(i)};
        if (flags[i].letter)
            (void)sprintf(shorts + strlen(shorts), "%c%s", flags[i].letter,
                          flags[i].arg ? ":" : "");
    }
    longs[ARRAY_SIZE(flags)] = (struct option){"document", 1, NULL, CODE_DOCUMENT};
    while ((code = getopt_long(argc, argv, shorts, longs, NULL)) >= 0) {
        size_t i = 0;
        if (code == CODE_DOCUMENT) {
            print_document(optarg);
            exit(0);
        }
        while (i < ARRAY_SIZE(flags) && flag_code(i) != code)
            i++;
        if (i == ARRAY_SIZE(flags)) {
            (void)fputs("gpuletctl --help lists verbs and options\n", stderr);
            exit(2);
        }
        set_flag(c, &flags[i]);
    }
}

int main(int argc, char **argv)
{
    struct cli c = {.server = getenv("GPULETCTL_SERVER"),
                    .token = getenv("GPULETCTL_TOKEN"),
                    .slo_ms = -1,
                    .rate_rps = -1,
                    .duration_s = -1,
                    .rate_scale = -1,
                    .warmup_s = -1,
                    .in_flight = -1,
                    .awake_us = -1,
                    .max_batch = -1,
                    .priority = -1,
                    .seed = -1,
                    .batch = 1,
                    .dim = 16};
    struct err err = {0};

    parse_flags(argc, argv, &c);
    if (!c.server)
        c.server =
            access(DEFAULT_SOCKET, R_OK | W_OK) == 0 ? "unix:" DEFAULT_SOCKET : DEFAULT_SERVER;
    if (optind == argc) {
        print_help(stderr);
        return 2;
    }
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    for (size_t i = 0; i < n_verbs; i++)
        if (STREQ(verbs[i].name, argv[optind])) {
            int r = verbs[i].run(&c, argc - optind - 1, argv + optind + 1, &err);
            if (r < 0)
                (void)fprintf(stderr, "gpuletctl: %s\n", err.msg[0] ? err.msg : strerror(-r));
            return r == -EINVAL ? 2 : r < 0 ? 1 : r;
        }
    (void)fprintf(stderr, "gpuletctl: there is no verb '%s'; gpuletctl --help lists them\n",
                  argv[optind]);
    return 2;
}
