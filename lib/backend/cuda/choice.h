/* Which of the ways that a library offers for one thing is taken: the fastest, measured.
 *
 *   choice.c   what was measured: in memory, and in a file for the next process
 *   contest.c  measuring
 *
 * A way is the library's: some bytes that name it.  The key is a hash of all that describes the
 * thing, the partition's SMs among it. */
#pragma once

#include "exe.h"

#define CHOICE_BYTES 64

/* ---- choice.c: of all devices alike in this process; NULL is good for all of these, and
 * empty: nothing is measured then */
struct choices;
/* identity: of device, driver and libraries.  The file lies in `algorithms` in folder; NULL: there
 * is none.  NULL if there is no memory.  Builder, as are choices_put() and choices_save(). */
struct choices *choices_get(const char *folder, const char *identity);
void choices_put(struct choices *c);
bool choices_find(struct choices *c, struct hash128 key, void *ret, size_t bytes);
/* In place of what was there. */
void choices_add(struct choices *c, struct hash128 key, const void *way, size_t bytes);
/* To the file, if something is new. */
void choices_save(struct choices *c);

/* ---- contest.c; builder, the partition's context is current */
#define WAYS_MAX 8
struct ways {
    unsigned n; /* at most WAYS_MAX, the library's favourite first */
    /* Once way i, on the stream. */
    int (*run)(void *arg, unsigned i, CUstream stream, struct err *err);
    void *arg;
};
/* Before whatever belongs to measuring.  False: this exe's time is over, or nobody keeps what it
 * gives. */
bool contest_begin(struct build *b);
void contest_end(struct build *b);
/* Device memory for operands and results, all of it with some numbers in it; 0: there is none. */
CUdeviceptr contest_memory(struct build *b, size_t bytes);
/* *ret: the fastest.  *ret_known: it is, else there was no time to try all.  A way that fails is
 * not taken; an error is one of the partition or of the process. */
int contest(struct build *b, const struct ways *w, unsigned *ret, bool *ret_known);
/* What measuring has taken is given back. */
void contest_done(struct build *b);
