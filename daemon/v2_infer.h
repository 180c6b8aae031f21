/* An inference from its body to its reply.  v2_json.c cuts the data out of the JSON part,
 * v2_parse.c checks and fills the request, v2_infer.c gives it to the engine, v2_reply.c answers.
 * Internal to these files and their tests. */
#pragma once

#include "compress.h"
#include "tensor_json.h"
#include "v2.h"

#define HEAD_BYTES_MAX (1u << 20) /* of the JSON part without the tensors' data */
#define JSON_DEPTH_MAX 100
#define HEADER_NONE (-1) /* no Inference-Header-Content-Length */

/* ---- v2_json.c: the request object, and where the data of its inputs lies in the text */
struct json_range {
    const char *p; /* NULL: this input has no "data" */
    size_t n;
};
struct json_cut {
    json_t *head; /* the object; "data" of inputs is null in it */
    struct json_range data[MAX_IO];
};
/* -EINVAL says where (in bytes of the text) it is not JSON.  Member names that occur twice are
 * refused, as is a "data" whose name is written with escapes.  heads may be NULL; ret->head may be
 * shared with other requests of the thread: it is only read. */
int json_cut(const char *json, size_t n, struct head_cache *heads, struct json_cut *ret,
             struct err *err);

/* ---- v2_parse.c */
struct wanted {
    uint32_t out; /* of the model's outputs */
    bool binary;
};
struct infer {
    struct request r; /* first: its item is what comes back */
    struct exchange *x;
    struct v2 *v2;
    struct head_cache *heads; /* NULL: none */
    json_t *head;             /* of the request; NULL when raw */
    struct slab *body;        /* where the binary inputs lie, if in_slab is another one */
    int64_t header_bytes;
    enum encoding encoding; /* of the body */
    usec_t timeout_us;      /* asked for by the client; 0: not */
    uint32_t n_wanted;
    struct wanted wanted[MAX_IO]; /* n_wanted are set */
};
/* Fill f->r (rows, in, in_slab, priority) and what is wanted from a body that lies in f->body (or,
 * in tests, anywhere).  Uses f->r.served and f->header_bytes; new memory comes from pool. */
int v2_infer_parse(struct infer *f, struct pool *pool, const char *body, size_t bytes,
                   struct err *err);

/* ---- v2_infer.c */
/* NULL: no memory.  Not calloc: of its 12 KB, nearly all tensors, a request uses little. */
struct infer *infer_new(void);
void infer_free(struct infer *f); /* NULL is fine */
DEFINE_AUTO(struct infer, infer_free)

void v2_infer_head(struct exchange *x);
void v2_infer_body(struct exchange *x);

/* ---- v2_reply.c */
/* Answer f->x with f->r's outputs, which it takes. */
void v2_reply(struct infer *f);
/* The JSON part of the reply: all of it, without binary tensors. */
int v2_reply_json(const struct infer *f, struct text *ret, struct err *err);

/* ---- v2.c */
/* A served model by the exchange's first two arguments; answers x itself when there is none. */
int v2_served(struct exchange *x, struct served **ret);
