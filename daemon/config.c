/* The table of options, and what is made of it. */
#include "config.h"
#include <dirent.h>
#include <ini.h>
#include <inttypes.h>
#include <limits.h>

enum kind { KIND_STRING, KIND_COUNT, KIND_BYTES, KIND_CHOICE };

struct option {
    const char *section, *name;
    enum kind kind;
    size_t at;         /* in struct config */
    const char *value; /* the default, as one writes it */
    uint64_t least, most;
    const char *choices; /* KIND_CHOICE: separated by '|'; the value is the index */
    bool live;           /* takes effect on reload */
    const char *help;
};

#define AT(field) offsetof(struct config, field)
static const struct option options[] = {
    {"http", "listen", KIND_STRING, AT(http.listen), "127.0.0.1:8000", 0, 0, NULL, false,
     "Addresses of the inference port, separated by spaces: HOST:PORT or [IPV6]:PORT.  Ignored "
     "when systemd hands over a socket named \"http\"."},
    {"http", "connections", KIND_COUNT, AT(http.connections), "4096", 1, 65536, NULL, false,
     "Connections open at a time; more wait in the listen queue."},
    {"http", "body-bytes", KIND_BYTES, AT(http.body_bytes), "64M", 1024, UINT64_C(1) << 32, NULL,
     true, "Largest body of a request, as sent and after decompression."},
    {"http", "idle-seconds", KIND_COUNT, AT(http.idle_s), "75", 1, 86400, NULL, false,
     "A connection on which nothing arrives for so long is closed."},
    {"http", "repository-api", KIND_CHOICE, AT(http.repository_api), "local", 0, 0,
     "local|token|off", true,
     "Who may load and unload models on the inference port: peers on this machine, holders of the "
     "admin token, or nobody."},
    {"http", "metrics", KIND_CHOICE, AT(http.metrics), "no", 0, 0, "no|yes", true,
     "Whether GET /metrics is answered on the inference port too."},
    {"admin", "listen", KIND_STRING, AT(admin.listen), "127.0.0.1:8001", 0, 0, NULL, false,
     "Addresses of the admin port.  Ignored when systemd hands over a socket named \"admin\"."},
    {"admin", "socket", KIND_STRING, AT(admin.socket), "/run/gpuletd/admin.sock", 0, 0, NULL, false,
     "Path of the admin Unix socket.  Ignored when systemd hands over a socket named \"unix\"; "
     "empty for none."},
    {"admin", "token-file", KIND_STRING, AT(admin.token_file), "", 0, 0, NULL, true,
     "File whose first line is the token that peers from other machines must send as "
     "\"Authorization: Bearer TOKEN\".  Without one they are refused."},
    {"state", "directory", KIND_STRING, AT(state.directory), "/var/lib/gpuletd", 0, 0, NULL, false,
     "Where models, profiles and what was measured of a GPU's libraries are kept."},
    {"device", "backend", KIND_STRING, AT(device.backend), "cpu", 0, 0, NULL, false,
     "What runs the models: cpu, sim, cuda where the plug-in is installed, or auto: cuda where "
     "there "
     "is a GPU, else cpu.  Nothing of cuda has been validated on a GPU yet."},
    {"device", "partition-mode", KIND_STRING, AT(device.partition_mode), "auto", 0, 0, NULL, false,
     "How a GPU is cut: auto, mps, green, mig or shared.  A mode that is named and cannot be had "
     "is an error."},
    {"device", "cpu-units", KIND_STRING, AT(device.cpu_units), "auto", 0, 0, NULL, false,
     "Cores that gpu-lets may use: auto, or a list such as 1-3,6."},
    {"device", "sim-file", KIND_STRING, AT(device.sim_file), "", 0, 0, NULL, false,
     "The problem file that describes the devices of the sim backend."},
    {"plan", "policy", KIND_STRING, AT(plan.policy), "gpuletd", 0, 0, NULL, false,
     "Which policy plans, admits, routes and batches: gpuletd, or to compare: equal, timeshare, "
     "static-equal, static-seven, greedy, gpulet, gpulet-int, gpulet-full, ffd, igniter, parva, "
     "fifo, round-robin, max-delay, edf, deferred, all-at-once."},
    {"limits", "model-bytes", KIND_BYTES, AT(limits.model_bytes), "8G", 1024, UINT64_C(1) << 44,
     NULL, true, "Largest model, its external data included."},
    {"limits", "model-nodes", KIND_COUNT, AT(limits.model_nodes), "200000", 1, 200000, NULL, false,
     "Nodes of a model, with those of nested graphs, and of functions as often as they are "
     "called."},
    {"limits", "model-nesting", KIND_COUNT, AT(limits.model_nesting), "16", 1, 64, NULL, false,
     "How deep graphs in If, Loop and Scan, and calls of functions, may lie in each other."},
    {"limits", "tensor-elements", KIND_COUNT, AT(limits.tensor_elements), "4294967296", 1,
     UINT64_C(1) << 40, NULL, false, "Elements of one tensor in a model."},
    {"limits", "tensor-bytes", KIND_BYTES, AT(limits.tensor_bytes), "4G", 1024, UINT64_C(1) << 44,
     NULL, false, "Size of one tensor in a model."},
    {"limits", "late-bytes", KIND_BYTES, AT(limits.late_bytes), "1G", 1 << 20, UINT64_C(1) << 44,
     NULL, false,
     "Memory that one run may take for what is not known before it: results whose shapes depend on "
     "data, strings, nested graphs.  Beyond it the request is refused with 503."},
    {"limits", "run-bytes", KIND_BYTES, AT(limits.run_bytes), "16G", 1 << 20, UINT64_C(1) << 44,
     NULL, false,
     "Tensors that one run of a model needs at a time.  A model or request that would need more is "
     "refused before anything is allocated; what is known only in the run fails there."},
    {"limits", "loop-iterations", KIND_COUNT, AT(limits.loop_iterations), "1000000", 1, 1000000000,
     NULL, false, "Iterations of all loops in one run of a model."},
    {"limits", "host-bytes", KIND_BYTES, AT(limits.host_bytes), "1G", 1 << 20, UINT64_C(1) << 44,
     NULL, false,
     "Memory for requests and replies, all together; beyond it requests are refused with 503."},
    {"limits", "refuse-drain-bytes", KIND_BYTES, AT(limits.drain_bytes), "8M", 0, UINT64_C(1) << 40,
     NULL, false,
     "The body of a refused request is read and thrown away up to this size, so that the client "
     "sees the answer; beyond it the connection is closed."},
    {"limits", "queue", KIND_COUNT, AT(limits.queue), "1024", 1, 1000000, NULL, false,
     "Requests that may wait for one model, unless the model says otherwise."},
    {"limits", "batch", KIND_COUNT, AT(limits.batch), "8", 1, 1024, NULL, false,
     "Rows in one run of a model that batches, unless the model says otherwise."},
    {"limits", "timeout-ms", KIND_COUNT, AT(limits.timeout_ms), "30000", 1, 3600000, NULL, true,
     "Deadline of a request whose model has no SLO and that names none itself."},
    {"limits", "stall-ms", KIND_COUNT, AT(limits.stall_ms), "5000", 100, 3600000, NULL, false,
     "A device call that takes longer is a stall: the watchdog is no longer fed."},
};

/* Index of a word in "a|b|c", -1 when it is not there. */
static int choice_find(const char *choices, const char *word)
{
    size_t len = strlen(word);

    for (int i = 0; choices; i++) {
        const char *end = strchrnul(choices, '|');
        if ((size_t)(end - choices) == len && memcmp(choices, word, len) == 0)
            return i;
        choices = *end ? end + 1 : NULL;
    }
    return -1;
}

static const char *choice_name(const char *choices, uint64_t index, int *ret_len)
{
    for (; index > 0; index--)
        choices = strchrnul(choices, '|') + 1;
    *ret_len = (int)(strchrnul(choices, '|') - choices);
    return choices;
}

/* "64M" -> 67108864; also a plain number. */
static bool parse_number(const char *text, bool suffix, uint64_t *ret)
{
    static const char units[] = "KMGT";
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    uint64_t n = strtoull(text, &end, 10);
    if (errno)
        return false;
    const char *u = suffix && *end ? strchr(units, *end) : NULL;
    if (u) {
        end++;
        if (__builtin_mul_overflow(n, UINT64_C(1) << (10 * (u - units + 1)), &n))
            return false;
    }
    *ret = n;
    return *end == 0;
}

static void print_bytes(uint64_t n, FILE *to)
{
    static const char units[] = {0, 'K', 'M', 'G', 'T'};
    unsigned u = 0;

    while (n && n % 1024 == 0 && u + 1 < sizeof(units)) {
        n /= 1024;
        u++;
    }
    (void)fprintf(to, "%" PRIu64, n);
    if (units[u])
        (void)fputc(units[u], to);
}

static int option_set(struct config *c, const struct option *o, const char *value, struct err *err)
{
    void *at = (char *)c + o->at;
    uint64_t n = 0;

    if (o->kind == KIND_STRING) {
        if (strlen(value) >= CONFIG_STRING_MAX)
            return err_set(err, -EINVAL, "%s = has %zu bytes, the limit is %d", o->name,
                           strlen(value), CONFIG_STRING_MAX - 1);
        memcpy(at, value, strlen(value) + 1);
        return 0;
    }
    if (o->kind == KIND_CHOICE) {
        int i = choice_find(o->choices, value);
        if (i < 0)
            return err_set(err, -EINVAL, "%s = '%s' is not one of %s", o->name, value, o->choices);
        n = (uint64_t)i;
    } else if (!parse_number(value, o->kind == KIND_BYTES, &n) || n < o->least || n > o->most) {
        return err_set(err, -EINVAL, "%s = '%s' is not a number from %" PRIu64 " to %" PRIu64,
                       o->name, value, o->least, o->most);
    }
    memcpy(at, &n, sizeof(n));
    return 0;
}

void config_defaults(struct config *ret)
{
    memset(ret, 0, sizeof(*ret));
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        int r = option_set(ret, &options[i], options[i].value, NULL);
        assert(r == 0);
        (void)r;
    }
}

struct parse {
    struct config *config;
    struct err *err;
};

static bool section_exists(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        if (STREQ(options[i].section, name))
            return true;
    return false;
}

/* inih's callback: nonzero is success. */
static int on_option(void *arg, const char *section, const char *name, const char *value)
{
    struct parse *p = arg;

    if (p->err->code)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        if (STREQ(options[i].section, section) && STREQ(options[i].name, name))
            return option_set(p->config, &options[i], value ? value : "", p->err) == 0;
    if (!section_exists(section))
        (void)err_set(p->err, -EINVAL, "there is no section [%s]", section);
    else
        (void)err_set(p->err, -EINVAL, "there is no option '%s' in section [%s]", name, section);
    return 0;
}

#define LINE_MAX_BYTES 198 /* inih's buffer: it would cut a longer line in two */

static int lines_check(FILE *f, const char *file, struct err *err)
{
    AUTO(free) char *line = NULL;
    size_t cap = 0;
    ssize_t n;

    for (int at = 1; (n = getline(&line, &cap, f)) >= 0; at++)
        if (n > LINE_MAX_BYTES)
            return err_set(err, -EINVAL, "%s: line %d has %zd bytes, the limit is %d", file, at, n,
                           LINE_MAX_BYTES);
    rewind(f);
    return 0;
}

static int load_file(const char *file, struct config *c, struct err *err)
{
    struct err own = {0};
    struct parse p = {.config = c, .err = &own};
    FILE *f = fopen(file, "re");

    if (!f)
        return err_set(err, -errno, "%s: %s", file, strerror(errno));
    int r = lines_check(f, file, err);
    if (r < 0) {
        (void)fclose(f);
        return r;
    }
    int line = ini_parse_file(f, on_option, &p);
    (void)fclose(f);
    if (line > 0)
        return err_set(err, -EINVAL, "%s: line %d: %s", file, line,
                       own.code ? own.msg : "this is neither a [section] nor an option = value");
    if (line < 0)
        return err_set(err, -EIO, "%s: cannot be read", file);
    return 0;
}

static int is_conf(const struct dirent *d)
{
    size_t n = strlen(d->d_name);

    return n > 5 && STREQ(d->d_name + n - 5, ".conf") && d->d_name[0] != '.';
}

static int load_drop_ins(const char *file, struct config *c, struct err *err)
{
    char dir[PATH_MAX], path[2 * PATH_MAX];
    struct dirent **names = NULL;
    int r = 0;

    (void)snprintf(dir, sizeof(dir), "%s.d", file);
    int n = scandir(dir, &names, is_conf, alphasort);
    for (int i = 0; i < n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
        if (r == 0)
            r = load_file(path, c, err);
        free(names[i]);
    }
    free(names);
    return r;
}

int config_load(const char *file, bool must_exist, struct config *ret, struct err *err)
{
    struct config c;
    struct err own = {0};

    config_defaults(&c);
    int r = load_file(file, &c, &own);
    if (r == -ENOENT && !must_exist)
        r = 0;
    if (r == 0)
        r = load_drop_ins(file, &c, &own);
    if (r < 0)
        return err_set(err, r, "%s", own.msg);
    *ret = c;
    return 0;
}

static void print_value(const struct config *c, const struct option *o, FILE *to)
{
    const void *at = (const char *)c + o->at;
    uint64_t n = 0;
    int len;

    if (o->kind == KIND_STRING) {
        (void)fputs(at, to);
        return;
    }
    memcpy(&n, at, sizeof(n));
    if (o->kind == KIND_BYTES) {
        print_bytes(n, to);
    } else if (o->kind == KIND_CHOICE) {
        const char *name = choice_name(o->choices, n, &len);
        (void)fprintf(to, "%.*s", len, name);
    } else {
        (void)fprintf(to, "%" PRIu64, n);
    }
}

static bool begins_section(size_t i)
{
    return i == 0 || !STREQ(options[i].section, options[i - 1].section);
}

void config_dump(const struct config *c, FILE *to)
{
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (begins_section(i))
            (void)fprintf(to, "%s[%s]\n", i ? "\n" : "", options[i].section);
        (void)fprintf(to, "%s = ", options[i].name);
        print_value(c, &options[i], to);
        (void)fputc('\n', to);
    }
}

/* Text in lines of at most 98 columns, each after a prefix. */
static void print_wrapped(const char *prefix, const char *text, FILE *to)
{
    size_t room = 98 - strlen(prefix);

    while (*text) {
        size_t n = strlen(text);
        if (n > room)
            for (n = room; n > 0 && text[n] != ' '; n--)
                ;
        size_t shown = n;
        while (shown > 0 && text[shown - 1] == ' ')
            shown--;
        (void)fprintf(to, "%s%.*s\n", prefix, (int)shown, text);
        text += n;
        text += strspn(text, " ");
    }
}

/* The help, the values that are allowed, and when a change takes effect; malloc'ed. */
static char *option_text(const struct option *o)
{
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);

    if (!to)
        return NULL;
    (void)fputs(o->help, to);
    if (o->kind == KIND_CHOICE)
        (void)fprintf(to, "  One of %s.", o->choices);
    if (o->kind == KIND_COUNT)
        (void)fprintf(to, "  From %" PRIu64 " to %" PRIu64 ".", o->least, o->most);
    if (o->kind == KIND_BYTES) {
        (void)fputs("  From ", to);
        print_bytes(o->least, to);
        (void)fputs(" to ", to);
        print_bytes(o->most, to);
        (void)fputs(" bytes.", to);
    }
    (void)fputs(o->live ? "  A reload is enough." : "  Needs a restart.", to);
    (void)fclose(to);
    return text;
}

/* mdoc wants every sentence on a line of its own. */
static void print_sentences(const char *text, FILE *to)
{
    for (const char *end; (end = strstr(text, ".  ")); text = end + 3)
        (void)fprintf(to, "%.*s.\n", (int)(end - text), text);
    (void)fprintf(to, "%s\n", text);
}

void config_document(FILE *to, bool comments)
{
    if (comments)
        (void)fputs("# Every option of gpuletd at its default; see gpuletd.conf(5).\n", to);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        const struct option *o = &options[i];
        AUTO(free) char *text = option_text(o);
        if (begins_section(i) && comments)
            (void)fprintf(to, "\n[%s]\n", o->section);
        else if (begins_section(i))
            (void)fprintf(to, "%s.Ss [%s]\n.Bl -tag -width Ds\n", i ? ".El\n" : "", o->section);
        if (comments) {
            print_wrapped("# ", text ? text : o->help, to);
            (void)fprintf(to, "%s =%s%s\n", o->name, o->value[0] ? " " : "", o->value);
        } else {
            (void)fprintf(to, ".It Cm %s No =%s%s\n", o->name, o->value[0] ? " Ar " : "", o->value);
            print_sentences(text ? text : o->help, to);
        }
    }
    if (!comments)
        (void)fputs(".El\n", to);
}

const char *config_needs_restart(const struct config *was, const struct config *now)
{
    static _Thread_local char name[64];

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        const struct option *o = &options[i];
        const char *a = (const char *)was + o->at, *b = (const char *)now + o->at;
        bool same = o->kind == KIND_STRING ? STREQ(a, b) : memcmp(a, b, sizeof(uint64_t)) == 0;
        if (o->live || same)
            continue;
        (void)snprintf(name, sizeof(name), "%s.%s", o->section, o->name);
        return name;
    }
    return NULL;
}
