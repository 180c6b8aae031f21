/* gpuletctl: a thin client of the daemon, and the planner without one.  Each verb is a function
 * and a row of the table in verbs.c, each option a row of the table in main.c; --help and
 * gpuletctl(1) come from both. */
#pragma once

#include <gpulet/tensor.h>
#include <jansson.h>
#include <stdio.h>

struct list { /* an option that may be repeated */
    uint32_t n;
    const char *at[64];
};

struct cli {
    const char *server; /* "http://host:port" or "unix:/path" */
    const char *token;  /* NULL: none */
    bool json;          /* print JSON: what the daemon said, or the whole result */
    /* of single verbs; numbers < 0 and texts NULL: not given */
    bool example, undo, check, leave_one_out, search, by_step, batch_invariant, best_effort;
    double slo_ms, rate_rps, duration_s, rate_scale, warmup_s;
    long max_batch, priority, count, seed, in_flight, awake_us, batch, dim;
    struct list files; /* external data of register */
    struct list fails, steps;
    const char *policy, *plan, *was, *out, *svg, *arrivals, *trace, *sweep, *kind, *to, *precision,
        *log;
};

/* What a verb returns besides 0 and negative errno (-EINVAL: the command line is wrong). */
#define STATUS_UNMET 3 /* the exit status: done, but the plan does not meet everything */

/* What --precision says; not given: fp32. */
int cli_precision(const struct cli *c, enum precision *ret, struct err *err);

/* ---- client.c */
struct reply {
    long status;
    char *text; /* NUL-terminated; freed by reply_done() */
    size_t bytes;
    json_t *json; /* NULL when the body is none */
    double ms;
};
/* body NULL: none; upload: a file sent as the body with PUT.  0, or -EIO: the server cannot be
 * reached, or it answered with an error, whose message is in err. */
int client_call(const struct cli *c, const char *method, const char *path, const char *body,
                FILE *upload, struct reply *ret, struct err *err);
void reply_done(struct reply *r);
/* "/v2/models/" and the name, escaped, and what follows; static buffer. */
const char *client_path(const char *before, const char *name, const char *after);

/* ---- verbs.c */
typedef int verb_fn(const struct cli *c, int argc, char **argv, struct err *err);
struct verb {
    const char *name, *args, *help;
    verb_fn *run;
};
extern const struct verb verbs[];
extern const size_t n_verbs;

/* ---- plan.c, explain.c, simulate.c, fit.c, profile.c: what needs no daemon */
verb_fn plan_file, verb_explain, verb_simulate, verb_fit, verb_profile;

/* ---- example.c: a complete request for a model, from its metadata; malloc'ed */
int example_request(json_t *metadata, char **ret, struct err *err);
/* What it puts for a dimension: 1 for a free first one, a usual number for other free ones. */
int64_t example_dim(int64_t dim, size_t axis);

/* ---- bench.c: load on a server */
verb_fn verb_bench;

/* ---- files.c.  Messages name the file.  Path "-": standard input. */
int file_read(const char *path, size_t max_bytes, char **ret, size_t *ret_bytes, struct err *err);
int file_write(const char *path, const char *text, struct err *err);

/* ---- json.c: results are made as JSON first and tables are printed from that, so that --json
 * leaves nothing out.  Members that are not there read as "" and 0. */
const char *str(json_t *o, const char *key);
double num(json_t *o, const char *key);
bool yes(json_t *o, const char *key);
void put(json_t *o, const char *key, json_t *v);    /* takes v; does nothing where v is NULL */
void put_num(json_t *o, const char *key, double v); /* null where there is no such number */
const char *ms_text(json_t *o, const char *key, char buf[32]); /* "12.34", "no end" where null */
int print_json(json_t *o, struct err *err);

/* ---- progress.c: a bar on the terminal's stderr for what takes longer than two seconds.  One at
 * a time; progress_end() wipes it. */
void progress_begin(const char *what);
void progress_set(void *unused, double part); /* 0..1 of it is done; never called: not known */
void progress_end(void);
