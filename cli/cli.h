/* gpuletctl: a thin client.  Each verb is a function in verbs.c and a row of the table there, from
 * which --help and gpuletctl(1) come. */
#pragma once

#include <gpulet/base.h>
#include <jansson.h>
#include <stdio.h>

struct cli {
    const char *server; /* "http://host:port" or "unix:/path" */
    const char *token;  /* NULL: none */
    bool json;          /* print what the daemon said, as it is */
    /* of single verbs */
    bool example;
    double slo_ms, rate_rps; /* < 0: not given */
    long max_batch, priority, count;
    const char *files[64]; /* external data of register */
    uint32_t n_files;
    bool undo;
};

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
struct verb {
    const char *name, *args, *help;
    int (*run)(const struct cli *c, int argc, char **argv, struct err *err);
};
extern const struct verb verbs[];
extern const size_t n_verbs;

/* ---- example.c: a complete request for a model, from its metadata; malloc'ed */
int example_request(json_t *metadata, char **ret, struct err *err);
