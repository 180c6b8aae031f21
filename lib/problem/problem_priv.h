/* What the readers and printers of lib/problem share: fields as tables, a path for errors, and a
 * writer.  One table row says how a field is read, checked and printed. */
#pragma once

#include <gpulet/problem.h>
#include <jansson.h>
#include <stdio.h>

/* ---- fields */

enum field_kind {
    FIELD_NAME,  /* const char * */
    FIELD_WORD,  /* an enum; `word` has its names in order, NULL at the end */
    FIELD_REAL,  /* double */
    FIELD_U32,   /* uint32_t */
    FIELD_I32,   /* int32_t */
    FIELD_BYTES, /* uint64_t */
    FIELD_MS,    /* usec_t; milliseconds in the file */
    FIELD_KEY,   /* uint64_t; 16 hexadecimal digits in the file */
    FIELD_BOOL,  /* bool */
    FIELD_NOT,   /* bool that the file says the other way round */
    FIELD_OTHER, /* read and printed by code of its own */
};

struct field {
    const char *key;
    enum field_kind kind;
    size_t at;
    double min, max;
    bool required;
    const char *const *word;
};

#define FIELD(s, k, m, ...)                                                                        \
    {                                                                                              \
        .key = #m, .kind = k, .at = offsetof(s, m), __VA_ARGS__                                    \
    }
#define FIELD_AS(s, k, name, m, ...)                                                               \
    {                                                                                              \
        .key = name, .kind = k, .at = offsetof(s, m), __VA_ARGS__                                  \
    }
#define FIELD_CODE(name, ...)                                                                      \
    {                                                                                              \
        .key = name, .kind = FIELD_OTHER, __VA_ARGS__                                              \
    }
#define RANGE(lo, hi) .min = (lo), .max = (hi)
#define REQUIRED .required = true
#define FIELD_END                                                                                  \
    {                                                                                              \
        .key = NULL                                                                                \
    }

/* Limits that several tables use. */
#define MAX_MS 3600000.0
#define MAX_RATE 1e9
#define MAX_BYTES 1e15
#define MAX_REAL 1e15
#define MAX_BATCH 1024
#define MAX_UNITS 65536
#define MAX_STREAMS 64

extern const struct field type_fields[], hardware_fields[], model_fields[], profile_fields[],
    curve_fields[], rules_fields[], plan_fields[], gpulet_fields[], share_fields[],
    verdict_fields[];

/* ---- reading */

struct reader {
    struct arena *a;
    struct err *err;
    size_t len;
    char path[512];
};

/* The whole text; -EINVAL with line and column when it is not JSON, or not an object of version
 * PROBLEM_VERSION with the keys that files may have. */
int file_load(struct reader *r, const char *json, size_t bytes, json_t **ret);

/* Go into a key or an index; what they return is given to back(). */
size_t into(struct reader *r, const char *key);
size_t into_at(struct reader *r, size_t i);
void back(struct reader *r, size_t was);

/* Sets the error: path, value, and what was expected instead.  Returns -EINVAL. */
int wrong(struct reader *r, const json_t *value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int no_memory(struct reader *r);

/* All fields of the table that the object has, into *base; unknown and missing keys. */
int read_fields(struct reader *r, const json_t *object, const struct field *f, void *base);
/* obj[key] as a list of min..max elements; absent (min 0 only): *ret is NULL. */
int read_list(struct reader *r, const json_t *object, const char *key, size_t min, size_t max,
              const json_t **ret);
int read_real(struct reader *r, const json_t *v, double min, double max, double *ret);
int read_u32(struct reader *r, const json_t *v, uint32_t min, uint32_t max, uint32_t *ret);
int read_name(struct reader *r, const json_t *v, const char **ret);
/* obj[key], a list of exactly n numbers. */
int read_reals(struct reader *r, const json_t *object, const char *key, double min, double max,
               size_t n, double *ret);
/* obj[key], a list of positive, ascending integers. */
int read_ascending(struct reader *r, const json_t *object, const char *key, uint32_t max_n,
                   uint32_t max, uint32_t *ret_n, const uint32_t **ret);
/* A name -> index map that refuses a second use; the value is where it was read. */
int names_add(struct reader *r, json_t *names, const char *name, uint32_t index, const json_t *v);
int names_find(struct reader *r, const json_t *names, const json_t *v, const char *what,
               uint32_t *ret);

/* obj[key], a list of [first, number] of granules; absent: none. */
int read_places(struct reader *r, const json_t *object, const char *key, size_t max,
                uint32_t n_granules, uint32_t *ret_n, const struct plan_place **ret);
int read_profile(struct reader *r, const json_t *v, struct profile *ret);

static inline void json_auto(json_t **j)
{
    json_decref(*j);
}
#define AUTO_JSON __attribute__((cleanup(json_auto)))

/* ---- printing */

struct writer {
    FILE *f;
    char *text;
    size_t bytes;
    unsigned depth;
    bool first; /* nothing yet in the innermost object or list */
};

int writer_open(struct writer *w, struct err *err);
int writer_close(struct writer *w, char **ret, struct err *err);

void put_open(struct writer *w, const char *key, char bracket); /* key NULL: an element */
void put_close(struct writer *w, char bracket);
void put_key(struct writer *w, const char *key); /* what follows prints the value */
void put_text(struct writer *w, const char *s);
void put_real(struct writer *w, double x); /* the shortest digits that read back the same */
void put_fields(struct writer *w, const struct field *f, const void *base);
void put_u32_list(struct writer *w, const char *key, const uint32_t *x, uint32_t n);
void put_real_list(struct writer *w, const char *key, const double *x, uint32_t n);
void put_places(struct writer *w, const char *key, const struct plan_place *p, uint32_t n);
void put_profile(struct writer *w, const struct profile *p);
/* -EINVAL when it names devices or models that p does not have. */
int plan_in_range(const struct problem *p, const struct plan *plan, struct err *err);
void put_measured(struct writer *w, const struct measured *m);
void put_plan(struct writer *w, const struct problem *p, const struct plan *plan);
