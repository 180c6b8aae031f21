/* Tensors as JSON arrays: read straight into tensor memory, and printed from it.
 *
 * Numbers are read as exactly as strtof(), strtod() and strtoull() would (correctly rounded;
 * 64-bit integers never pass through a double) and printed so that they read back equal: FP32
 * with at most 9 significant digits, FP64 with at most 17.  Pure: no allocation but the text. */
#pragma once

#include <gpulet/tensor.h>

/* Bytes of tensor memory that `count` elements need when their JSON text has json_bytes: exact
 * but for DT_STRING, where it is a bound.  -EINVAL if the text is too short to hold that many;
 * -EOVERFLOW. */
int tensor_json_need(enum dtype dtype, int64_t count, size_t json_bytes, size_t *ret,
                     struct err *err);

/* Read a JSON array, flat or nested to at most t's rank, into t->data (room: tensor_json_need()).
 * t has dtype, rank and dims; bytes is set.  The text is the array and nothing else: it begins
 * with '[' and ends with ']'.  -EINVAL names the element, the value and what was expected. */
int tensor_json_read(const char *json, size_t json_bytes, struct tensor *t, struct err *err);

/* A growing text. */
struct text {
    char *p;
    size_t n, cap;
    bool failed; /* out of memory: nothing more is added */
};
void text_add(struct text *t, const char *s, size_t n);
void text_puts(struct text *t, const char *s);
void text_printf(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with quotes and escapes; -EILSEQ when it is no UTF-8. */
int text_string(struct text *t, const char *s, size_t n);

/* Add a flat JSON array of t's elements.  -EDOM: a NaN or an infinity, or a string that is no
 * UTF-8, which JSON cannot hold: err names the element; -ENOMEM. */
int tensor_json_print(const struct tensor *t, struct text *out, struct err *err);
/* Does the type have a JSON form?  (16-bit floats do not.) */
bool tensor_json_has(enum dtype dtype);
