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

struct raw_function { /* a FunctionProto */
    struct pb msg, name, domain, overload;
    uint32_t n_fields;
    uint32_t next; /* of the same name, or NODE_NONE */
};

struct reader {
    struct mapping file;
    const char *dir; /* NULL: external data is refused */
    struct graph *g; /* of the model: tensors go to its arena */
    struct raw_function *fn;
    uint32_t n_fn;
    struct names fn_names; /* to the first function of that name */
    uint32_t depth;        /* bodies and calls around what is being read */
    uint32_t n_nodes;      /* so far, in all graphs */
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
    struct pb name, op_name, domain, overload;
    enum op_id op;
    const struct raw_function *fn; /* NULL: an operator */
    uint32_t index;                /* in its graph, for messages */
    uint32_t n_in, n_out, n_attr;
    uint8_t state; /* 0 waiting, 1 its producers are being visited, 2 in the graph */
};

/* A call of a function, while its nodes are read: where its attributes are. */
struct call {
    struct reading *caller;
    struct pb node, fn;
};

/* One graph, or the nodes of one function, while it is read. */
struct reading {
    struct reader *r;
    struct graph *g; /* what the nodes go to: for a function, the caller's */
    /* A body: the graph around it, and what it reads of it. */
    struct reading *outer;
    uint32_t *inner_ids, *outer_ids; /* [n_captured], values of g and of outer->g */
    uint32_t n_captured, cap_captured;
    const struct call *call; /* NULL outside functions */
    struct names names;      /* a function's omitted input: VALUE_NONE */
    struct pb graph;         /* the message; nodes are its fields node_field */
    uint32_t node_field;
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
/* Find the value of that name, here or in the graphs around; 1, or 0 when there is none. */
int onnx_resolve(struct reading *s, struct pb name, uint32_t *ret);
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
/* onnx_body.c.  A GraphProto as a body; *ret_outer are the values of s->g that it captures. */
int onnx_read_body(struct reading *s, struct pb msg, struct body *ret);
/* The functions of the model, and the one that a node calls; NULL: none. */
int onnx_read_functions(struct reader *r, struct pb model);
const struct raw_function *onnx_function(const struct reader *r, const struct raw_node *n);
/* The nodes of the function in place of the node that calls it. */
int onnx_inline(struct reading *s, const struct raw_node *n);
/* Default domain: "" or "ai.onnx". */
bool onnx_is_default_domain(struct pb domain);
int onnx_read_opset(struct reader *r, struct pb msg, int64_t *opset);
int onnx_check_opset(struct reader *r, int64_t opset);
void onnx_reading_done(struct reading *s); /* all but r and the graph of the model */
/* Nodes that were read, against the limit. */
int onnx_count_nodes(struct reading *s, uint32_t n);
/* The whole message s->graph, and the nodes alone. */
int onnx_read_graph(struct reading *s);
int onnx_read_nodes(struct reading *s);
/* onnx_attr.c: an attribute into node `node` of the graph; a Constant node as a constant `out`. */
int onnx_read_attr(struct reading *s, struct pb msg, uint32_t node);
int onnx_read_constant(struct reading *s, const struct raw_node *n, struct pb out);
