/* prepared.bin: constants that the passes made, or that the file holds unaligned.
 *
 * A constant is found by a key made of what it was computed from (operator, attributes, hashes of
 * the inputs), so that opening a model again re-runs the passes on the graph alone and takes the
 * heavy data from the mapping.  What is missing is computed, and the file written anew. */
#pragma once

#include <gpulet/model.h>

#define SMALL_CONST_BYTES 4096 /* up to here: copied or computed anew, kept in the arena */

struct prepared_entry;
struct made {
    const struct constant *c;
    struct hash128 key;
};

struct prepared {
    struct mapping file; /* base NULL: none */
    const struct prepared_entry *entry;
    uint32_t n, next;     /* entries; where the next search begins */
    struct arena *data;   /* results too large for the graph's arena, until they are written */
    struct arena scratch; /* what `data` points at in model_open() */
    struct arena aligned; /* copies for the node that a pass is at */
    struct made *made;
    uint32_t n_made, cap_made;
};

/* Map DIR/prepared.bin if it is there, whole, and of this model and pass version. */
void prepared_open(struct prepared *p, const char *dir, struct hash128 model);
void prepared_done(struct prepared *p);
/* The constant of that key, allocated in a; NULL when there is none. */
const struct constant *prepared_find(struct prepared *p, struct hash128 key, struct arena *a);
/* Remember the key of a constant that was just made. */
int prepared_note(struct prepared *p, const struct constant *c, struct hash128 key);
/* Key of a constant that is only moved. */
struct hash128 prepared_copy_key(const struct constant *c);
/* Write what the graph needs and the file lacks, map it, and point the constants there. */
int prepared_settle(struct prepared *p, struct graph *g, const char *dir, struct hash128 model,
                    struct err *err);
/* Copy small or bind-time constants that are not aligned to their element size. */
int prepared_align(struct prepared *p, struct graph *g);

/* ---- prepared_temp.c: a new file in the folder, open for writing, that only this call has; it is
 * locked until it is closed.  What crashes left is removed.  -errno. */
#define PREPARED_TEMP_NAME 64
int prepared_temp(int folder, char ret_name[PREPARED_TEMP_NAME]);

bool constant_is_aligned(const struct constant *c);
