/* gpuletctl: options, then a verb. */
#include "cli.h"
#include <ctype.h>
#include <curl/curl.h>
#include <getopt.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/gpuletd/admin.sock"
#define DEFAULT_SERVER "http://127.0.0.1:8001"

enum {
    OPT_SLO = 256,
    OPT_RATE,
    OPT_BATCH,
    OPT_PRIORITY,
    OPT_FILE,
    OPT_COUNT,
    OPT_EXAMPLE,
    OPT_UNDO,
    OPT_DOCUMENT
};

/* One table for getopt, --help and gpuletctl(1). */
static const struct {
    const char *name;
    int letter;
    const char *arg;
    const char *help;
} flags[] = {
    {"server", 's', "URL",
     "where the daemon listens: http://HOST:PORT or unix:PATH; default: $GPULETCTL_SERVER, "
     "else " DEFAULT_SOCKET " if it is there, else " DEFAULT_SERVER},
    {"token", 't', "TOKEN",
     "the admin token, for a daemon on another machine; default: $GPULETCTL_TOKEN"},
    {"json", 'j', NULL, "print the daemon's answer as it is"},
    {"slo-ms", OPT_SLO, "MS", "register: latency objective, arrival to reply"},
    {"rate", OPT_RATE, "RPS", "register: expected requests per second"},
    {"max-batch", OPT_BATCH, "N", "register: most rows in one run"},
    {"priority", OPT_PRIORITY, "N", "register: 1 is served first; 0 is the default"},
    {"file", OPT_FILE, "PATH", "register: external data of the model; may be repeated"},
    {"count", OPT_COUNT, "N", "top: stop after so many"},
    {"example", OPT_EXAMPLE, NULL, "infer: print a request instead of sending one"},
    {"undo", OPT_UNDO, NULL, "drain: serve again"},
    {"help", 'h', NULL, "print this text"},
    {"version", 'V', NULL, "print the version"},
};

static void print_help(FILE *to)
{
    (void)fputs("usage: gpuletctl [OPTION]... VERB [ARGUMENT]...\n\n", to);
    for (size_t i = 0; i < n_verbs; i++)
        (void)fprintf(to, "  %s %s\n      %s\n", verbs[i].name, verbs[i].args, verbs[i].help);
    (void)fputc('\n', to);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        char left[64];
        (void)snprintf(left, sizeof(left), "%c%c%s--%s%s%s", flags[i].letter < 256 ? '-' : ' ',
                       flags[i].letter < 256 ? flags[i].letter : ' ',
                       flags[i].letter < 256 ? ", " : "  ", flags[i].name, flags[i].arg ? " " : "",
                       flags[i].arg ? flags[i].arg : "");
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
        if (flags[i].letter < 256)
            printf("Fl %c , ", flags[i].letter);
        printf("Fl Fl %s%s%s", flags[i].name, flags[i].arg ? " Ar " : "",
               flags[i].arg ? flags[i].arg : "");
        print_sentence(flags[i].help);
    }
}

static double positive(const char *name, const char *text)
{
    char *end;
    double v = strtod(text, &end);

    if (end == text || *end || !(v >= 0)) {
        (void)fprintf(stderr, "gpuletctl: --%s = '%s' is not a number of 0 or more\n", name, text);
        exit(2);
    }
    return v;
}

static void set_flag(struct cli *c, int f)
{
    switch (f) {
    case 's':
        c->server = optarg;
        break;
    case 't':
        c->token = optarg;
        break;
    case 'j':
        c->json = true;
        break;
    case OPT_SLO:
        c->slo_ms = positive("slo-ms", optarg);
        break;
    case OPT_RATE:
        c->rate_rps = positive("rate", optarg);
        break;
    case OPT_BATCH:
        c->max_batch = (long)positive("max-batch", optarg);
        break;
    case OPT_PRIORITY:
        c->priority = (long)positive("priority", optarg);
        break;
    case OPT_FILE:
        if (c->n_files < ARRAY_SIZE(c->files)) {
            c->files[c->n_files++] = optarg;
            break;
        }
        (void)fprintf(stderr, "gpuletctl: more than %zu files\n", ARRAY_SIZE(c->files));
        exit(2);
    case OPT_COUNT:
        c->count = (long)positive("count", optarg);
        break;
    case OPT_EXAMPLE:
        c->example = true;
        break;
    case OPT_UNDO:
        c->undo = true;
        break;
    case 'h':
        print_help(stdout);
        exit(0);
    case 'V':
        puts("gpuletctl " GPULETD_VERSION);
        exit(0);
    case OPT_DOCUMENT:
        print_document(optarg);
        exit(0);
    default:
        (void)fputs("gpuletctl --help lists verbs and options\n", stderr);
        exit(2);
    }
}

static void parse_flags(int argc, char **argv, struct cli *c)
{
    struct option longs[ARRAY_SIZE(flags) + 2] = {{0}};
    char shorts[2 * ARRAY_SIZE(flags) + 1] = "";
    int f;

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        longs[i] = (struct option){flags[i].name, flags[i].arg ? 1 : 0, NULL, flags[i].letter};
        if (flags[i].letter < 256)
            (void)sprintf(shorts + strlen(shorts), "%c%s", flags[i].letter,
                          flags[i].arg ? ":" : "");
    }
    longs[ARRAY_SIZE(flags)] = (struct option){"document", 1, NULL, OPT_DOCUMENT};
    while ((f = getopt_long(argc, argv, shorts, longs, NULL)) >= 0)
        set_flag(c, f);
}

int main(int argc, char **argv)
{
    struct cli c = {.server = getenv("GPULETCTL_SERVER"),
                    .token = getenv("GPULETCTL_TOKEN"),
                    .slo_ms = -1,
                    .rate_rps = -1,
                    .max_batch = -1,
                    .priority = -1};
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
            return r == -EINVAL ? 2 : r < 0 ? 1 : 0;
        }
    (void)fprintf(stderr, "gpuletctl: there is no verb '%s'; gpuletctl --help lists them\n",
                  argv[optind]);
    return 2;
}
