/* What the files of the ONNX reader share; nobody else includes it. */
#pragma once

#include "infer.h"
#include "pb.h"
#include <gpulet/model.h>

#define MAX_EXT_FILES 256
#define SMALL_COPY_BYTES 4096 /* misaligned data up to here is copied */
#define MAX_CONVERTED_BYTES                                                                        \
    (UINT64_C(1) << 30) /* constants that cannot stay in the file, in all                          \
                         */

struct ext_file {
    char *name; /* in the graph's arena */
    struct mapping map;
};

struct reader {
    struct mapping file;
    const char *dir; /* NULL: external data is refused */
    struct graph *g;
    struct ext_file ext[MAX_EXT_FILES];
    uint32_t n_ext;
    uint64_t converted_bytes;
    struct err *err; /* never NULL */
};

/* A TensorProto as a tensor and the place of its data; `what` names it in messages. */
struct read_tensor {
    struct tensor t;
    enum const_source source;
    struct pb name;
};
int onnx_tensor(struct reader *r, struct pb msg, const char *what, struct read_tensor *ret);
/* Map the external file `name` inside r->dir, once; *ret is its mapping. */
int onnx_ext(struct reader *r, struct pb name, const char *what, struct mapping *ret);
/* A name of the file as a C string in buf for messages, cut to its size. */
const char *pb_print(struct pb s, char *buf, size_t size);
#define NAME_PRINT 64

/* The message for bytes that are no protocol buffer. */
int onnx_broken(struct reader *r, const char *what);
