/* What the files of the ONNX reader share; nobody else includes it. */
#pragma once

#include "infer.h"
#include "names.h"
#include "pb.h"
#include <gpulet/model.h>

#define MAX_EXT_FILES 256
#define SMALL_COPY_BYTES 4096 /* misaligned data up to here is copied */
/* Constants that cannot stay in the file, in all. */
#define MAX_CONVERTED_BYTES (UINT64_C(1) << 30)

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

struct raw_node {        /* a NodeProto that waits for its producers */
    struct pb msg, left; /* left: fields not yet looked at by waits_for() */
    struct pb name, op_name, domain;
    enum op_id op;
    uint32_t index; /* in the file, for messages */
    uint32_t n_in, n_out, n_attr;
    uint8_t state; /* 0 waiting, 1 its producers are being visited, 2 in the graph */
};

struct reading {
    struct reader r;
    struct names names;
    struct pb graph;
    uint64_t ir;
    int64_t opset;
    struct raw_node *nodes;
    uint32_t n_nodes;
    uint32_t *maker; /* value id -> raw node, NODE_NONE for the others */
    size_t cap_maker;
};

/* The message for what the builder of graphs refused; returns rc or what it stands for. */
int onnx_no_memory(struct reader *r, int rc);
/* "initializer 'w'" into buf; returns buf. */
const char *onnx_what(const char *kind, struct pb name, char *buf, size_t size);
#define WHAT_PRINT (NAME_PRINT + 32)
/* A name of the file as a C string in the arena; NULL with a message when it holds a NUL. */
const char *onnx_name(struct reading *s, struct pb name, const char *kind);
/* Make the name known.  `maker` is the raw node that computes the value, or NODE_NONE. */
int onnx_value_name(struct reading *s, struct pb name, const char *kind, uint32_t id,
                    uint32_t maker);
int onnx_add_const(struct reading *s, struct pb name, const char *kind,
                   const struct read_tensor *t);

/* The bytes of field `num` in a message: the last one counts; *found says whether there is one. */
int onnx_sub(struct reading *s, struct pb msg, uint32_t num, struct pb *ret, bool *found);
/* onnx_input.c: one ValueInfoProto of the graph's inputs. */
int onnx_read_input(struct reading *s, struct pb msg);
/* What a ValueInfoProto says about the type and shape of a value, as far as we can use it. */
int onnx_declare(struct reading *s, struct pb msg, uint32_t value);
/* onnx_attr.c: an attribute into node `node` of the graph; a Constant node as a constant `out`. */
int onnx_read_attr(struct reading *s, struct pb msg, uint32_t node);
int onnx_read_constant(struct reading *s, const struct raw_node *n, struct pb out);
