/* Batch rules: one row an operator (batch.h says what a rule answers).  A rule must be right for
 * every number of rows: op(rows 1 and 2 joined) is op(row 1) and op(row 2) joined.
 *
 * Operands that are ROWS_NONE are the same for every row; those that are ROWS_SHAPE are refused
 * unless a rule says otherwise. */
#include "batch.h"
#include <gpulet/einsum.h>
#include "pass.h"

static uint32_t in_rank(const struct batch *b, uint32_t i)
{
    return batch_in(b, i)->rank;
}

static uint32_t out_rank(const struct batch *b)
{
    return batch_out_at(b, 0, 0)->rank;
}

/* An axis attribute, counted from the front; rank when it is out of range. */
static uint32_t axis_of(const struct batch *b, int64_t absent, uint32_t rank)
{
    int64_t axis = node_int(b->node, "axis", absent);

    if (axis < 0)
        axis += rank;
    return axis < 0 || axis > rank ? rank : (uint32_t)axis;
}

static void set_all(const struct batch *b, struct rows *ret, struct rows r)
{
    for (uint32_t i = 0; i < b->node->n_out; i++)
        ret[i] = r;
}

/* NULL when inputs from..n-1 are all ROWS_NONE. */
static const char *others_none(const struct batch *b, uint32_t from)
{
    for (uint32_t i = from; i < b->node->n_in; i++)
        if (batch_rows(b, i).kind != ROWS_NONE)
            return "has a parameter that depends on the batch";
    return NULL;
}

/* The first input carries rows, the others are the same for all. */
static const char *rows_in_first(const struct batch *b)
{
    if (batch_rows(b, 0).kind != ROWS_ON)
        return "takes its data from shape arithmetic or its parameters from the batch";
    return others_none(b, 1);
}

/* Elementwise with broadcasting: all rows must lie on the same axis of the result. */
static const char *rule_elementwise(struct batch *b, struct rows *ret)
{
    struct rows r = {0};
    uint32_t rank = out_rank(b);

    for (uint32_t i = 0; i < b->node->n_in; i++) {
        struct rows in = batch_rows(b, i);
        if (in.kind == ROWS_NONE)
            continue;
        if (in.kind == ROWS_SHAPE)
            return "computes with a number that depends on the batch";
        in.axis += rank - (i == 1 ? node_second(b->node, batch_in(b, 0), batch_in(b, 1)).rank
                                  : in_rank(b, i));
        if (r.kind == ROWS_ON && (r.axis != in.axis || r.k != in.k))
            return "joins two operands whose batch lies on different axes";
        r = in;
    }
    set_all(b, ret, r);
    return NULL;
}

/* Axis 0 is the batch axis by the operator's definition: Conv, pools, InstanceNormalization. */
static const char *rule_axis0(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0);
    const char *why = rows_in_first(b);

    if (why)
        return why;
    if (r.axis != 0)
        return "works across the batch: it is not the first axis";
    set_all(b, ret, r);
    return NULL;
}

static const char *rule_batchnorm(struct batch *b, struct rows *ret)
{
    if (node_int(b->node, "training_mode", 0))
        return "normalises over the batch (training_mode)";
    return rule_axis0(b, ret);
}

static const char *rule_dropout(struct batch *b, struct rows *ret)
{
    const struct tensor *mode = batch_in(b, 2);
    const char *why = rows_in_first(b);

    if (!why && mode && (!mode->data || *(const uint8_t *)mode->data))
        why = "is random (training_mode)";
    set_all(b, ret, batch_rows(b, 0));
    return why;
}

/* One operand with rows and one without: where the rows lie in the result; rank when they are
 * summed over. */
static uint32_t matmul_axis(const struct batch *b, uint32_t i, uint32_t axis)
{
    uint32_t rank = in_rank(b, i), other = in_rank(b, 1 - i), out = out_rank(b);
    uint32_t contracted = i == 0 ? rank - 1 : (rank >= 2 ? rank - 2 : 0);

    if (axis == contracted)
        return out;
    if (other == 1) /* the contracted axis is missing in the result */
        return axis > contracted ? axis - 1 : axis;
    return out - rank + axis; /* aligned from the right, and the last two stay in place */
}

static const char *rule_matmul(struct batch *b, struct rows *ret)
{
    struct rows r[2] = {batch_rows(b, 0), batch_rows(b, 1)}, out = {0};

    if (others_none(b, 2) || r[0].kind == ROWS_SHAPE || r[1].kind == ROWS_SHAPE)
        return "computes with a number that depends on the batch";
    for (uint32_t i = 0; i < 2; i++) {
        if (r[i].kind == ROWS_NONE)
            continue;
        bool in_matrix = r[i].axis + 2 >= in_rank(b, i);
        if (in_matrix && r[1 - i].kind == ROWS_ON)
            return "multiplies rows of the batch with each other";
        uint32_t axis = matmul_axis(b, i, r[i].axis);
        if (axis >= out_rank(b))
            return "sums over the batch";
        if (out.kind == ROWS_ON && (out.axis != axis || out.k != r[i].k))
            return "joins two operands whose batch lies on different axes";
        out = (struct rows){ROWS_ON, axis, r[i].k};
    }
    set_all(b, ret, out);
    return NULL;
}

static const char *rule_gemm(struct batch *b, struct rows *ret)
{
    struct rows a = batch_rows(b, 0), c = batch_rows(b, 2);

    if (a.kind != ROWS_ON || batch_rows(b, 1).kind != ROWS_NONE)
        return "has a second operand that depends on the batch";
    if (a.axis != (node_int(b->node, "transA", 0) ? 1 : 0))
        return "sums over the batch";
    if (c.kind == ROWS_SHAPE ||
        (c.kind == ROWS_ON && (in_rank(b, 2) != 2 || c.axis != 0 || c.k != a.k)))
        return "adds an operand whose batch lies on another axis";
    ret[0] = (struct rows){ROWS_ON, 0, a.k};
    return NULL;
}

static const char *rule_softmax(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);
    bool one_axis = b->node->opset >= 13; /* before: all axes from `axis` on together */
    struct rows r = batch_rows(b, 0);

    if (why)
        return why;
    uint32_t axis = axis_of(b, one_axis ? -1 : 1, in_rank(b, 0));
    if (one_axis ? r.axis == axis : r.axis >= axis)
        return "normalises over the batch";
    set_all(b, ret, r);
    return NULL;
}

static const char *rule_layernorm(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);

    if (!why && batch_rows(b, 0).axis >= axis_of(b, -1, in_rank(b, 0)))
        why = "normalises over the batch";
    set_all(b, ret, batch_rows(b, 0));
    return why;
}

/* Rows after the axes of `gone` are taken out. */
static struct rows rows_without(struct rows r, const bool gone[MAX_RANK])
{
    uint32_t before = 0;

    for (uint32_t i = 0; i < r.axis; i++)
        before += gone[i];
    r.axis -= before;
    return r;
}

static const char *reduce_over(struct batch *b, const bool axes[MAX_RANK], struct rows *ret)
{
    struct rows r = batch_rows(b, 0);

    if (axes[r.axis])
        return "reduces over the batch";
    ret[0] = node_int(b->node, "keepdims", 1) ? r : rows_without(r, axes);
    return NULL;
}

static const char *rule_reduce(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);
    bool axes[MAX_RANK];

    if (why)
        return why;
    if (axes_read(b->node, batch_in(b, 1), in_rank(b, 0), axes) < 0)
        return "has axes that are not known";
    return reduce_over(b, axes, ret);
}

static const char *rule_arg(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);
    bool axes[MAX_RANK] = {0};

    if (why)
        return why;
    uint32_t axis = axis_of(b, 0, in_rank(b, 0));
    if (axis >= in_rank(b, 0))
        return "has an axis out of range";
    axes[axis] = true;
    return reduce_over(b, axes, ret);
}

static const char *rule_transpose(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);
    struct rows r = batch_rows(b, 0);
    uint32_t n, rank = in_rank(b, 0);
    const int64_t *perm = node_ints(b->node, "perm", &n);

    for (uint32_t i = 0; i < rank && !why; i++)
        if ((perm && i < n ? perm[i] : rank - 1 - i) == r.axis)
            ret[0] = (struct rows){ROWS_ON, i, r.k};
    return why;
}

static const char *rule_concat(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0);

    for (uint32_t i = 0; i < b->node->n_in; i++) {
        struct rows in = batch_rows(b, i);
        if (in.kind != ROWS_ON || in.axis != r.axis || in.k != r.k)
            return "joins rows with something that is not of the same row";
    }
    if (r.axis == axis_of(b, 1, in_rank(b, 0)))
        return "joins along the batch";
    ret[0] = r;
    return NULL;
}

static const char *rule_split(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);

    if (!why && batch_rows(b, 0).axis == axis_of(b, 0, in_rank(b, 0)))
        why = "splits along the batch";
    set_all(b, ret, batch_rows(b, 0));
    return why;
}

/* Number i of a vector that is an input known at bind time, or else an attribute. */
static bool number_at(const struct batch *b, uint32_t binding, uint32_t input, const char *attr,
                      uint32_t i, int64_t *ret)
{
    const struct tensor *t = batch_in_at(b, binding, input);
    uint32_t n;
    const int64_t *ints = node_ints(b->node, attr, &n);

    if (t && (!t->data || i >= t->bytes / MAX(dtype_size(t->dtype), 1u)))
        return false;
    if (t && t->dtype == DT_INT64)
        *ret = ((const int64_t *)t->data)[i];
    else if (t && t->dtype == DT_INT32)
        *ret = ((const int32_t *)t->data)[i];
    else if (!t && ints && i < n)
        *ret = ints[i];
    else
        return false;
    return true;
}

static bool same_in_all(const struct batch *b, uint32_t input, const char *attr, uint32_t i,
                        int64_t *ret)
{
    if (!number_at(b, 0, input, attr, i, ret))
        return false;
    for (uint32_t at = 1; at < N_BINDINGS; at++) {
        int64_t x;
        if (!number_at(b, at, input, attr, i, &x) || x != *ret)
            return false;
    }
    return true;
}

/* Along the batch a Slice must keep everything, in order; elsewhere its bounds must not depend on
 * the batch.  (That the batch axis keeps its length is checked against the bound shapes.) */
static const char *rule_slice(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0);
    const struct tensor *starts = batch_in(b, 1);
    uint32_t n;
    int64_t axis, step, x;

    if (r.kind != ROWS_ON)
        return "cuts shape arithmetic, or by a number that depends on the batch";
    (void)node_ints(b->node, "starts", &n);
    if (starts)
        n = starts->rank ? (uint32_t)starts->dims[0] : 1;
    bool axes = batch_in(b, 3) || node_attr(b->node, "axes");
    for (uint32_t i = 0; i < n; i++) {
        axis = i;
        step = 1;
        if ((axes && !same_in_all(b, 3, "axes", i, &axis)) ||
            (batch_in(b, 4) && !same_in_all(b, 4, "steps", i, &step)))
            return "has axes or steps that are not known";
        axis += axis < 0 ? in_rank(b, 0) : 0;
        if (axis == r.axis && step != 1)
            return "takes some rows of the batch";
        if (axis != r.axis &&
            (!same_in_all(b, 1, "starts", i, &x) || !same_in_all(b, 2, "ends", i, &x)))
            return "cuts by a number that depends on the batch";
    }
    for (uint32_t at = 0; at < N_BINDINGS; at++)
        if (batch_out_at(b, at, 0)->dims[r.axis] != batch_in_at(b, at, 0)->dims[r.axis])
            return "takes some rows of the batch";
    ret[0] = r;
    return NULL;
}

static const char *rule_gather(struct batch *b, struct rows *ret)
{
    struct rows data = batch_rows(b, 0), idx = batch_rows(b, 1);
    uint32_t axis = axis_of(b, 0, in_rank(b, 0));

    if (data.kind == ROWS_SHAPE || idx.kind == ROWS_SHAPE)
        return "looks up shape arithmetic or with an index that depends on the batch size";
    if (data.kind == ROWS_ON && idx.kind == ROWS_ON)
        return "looks up one row's index in another row's data";
    if (data.kind == ROWS_ON && data.axis == axis)
        return "picks rows of the batch";
    if (idx.kind == ROWS_ON)
        idx.axis += axis;
    else if (data.axis > axis)
        data.axis += in_rank(b, 1) - 1;
    ret[0] = idx.kind == ROWS_ON ? idx : data;
    return NULL;
}

static const char *rule_pad(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0);
    const char *why = rows_in_first(b);
    const struct tensor *axes = batch_in(b, 3);
    const char *name = node_attr(b->node, "paddings") ? "paddings" : "pads";
    uint32_t n = why ? 0 : axes ? (axes->rank ? (uint32_t)axes->dims[0] : 1) : in_rank(b, 0);

    for (uint32_t i = 0; i < n; i++) {
        int64_t axis = i, before, after;
        if ((axes && !same_in_all(b, 3, "axes", i, &axis)) ||
            !same_in_all(b, 1, name, i, &before) || !same_in_all(b, 1, name, n + i, &after))
            return "has pads that are not known";
        axis += axis < 0 ? in_rank(b, 0) : 0;
        if (axis == r.axis && (before || after))
            return "pads the batch";
    }
    ret[0] = r;
    return why;
}

/* The one axis of the result that grows with the batch; ROWS_NONE when none does.  What is no
 * true multiple is seen when the shapes are checked. */
static struct rows growing(const struct batch *b)
{
    const struct tensor *two = batch_out_at(b, 0, 0), *one = batch_out_at(b, 1, 0);

    for (uint32_t d = 0; d < two->rank && d < one->rank; d++)
        if (two->dims[d] != one->dims[d])
            return (struct rows){ROWS_ON, d, one->dims[d]};
    return (struct rows){0};
}

/* Rows come in from the data, or the same content is repeated for every row. */
static const char *rule_tile(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0);
    int64_t times;

    if (r.kind == ROWS_SHAPE || b->node->opset < 6)
        return "repeats shape arithmetic, or in the form before opset 6";
    for (uint32_t i = 0; i < in_rank(b, 0) && r.kind == ROWS_ON; i++)
        if (!same_in_all(b, 1, "", i, &times) || (i == r.axis && times != 1))
            return "repeats the batch";
    ret[0] = r.kind == ROWS_ON ? r : growing(b);
    return NULL;
}

static const char *rule_expand(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0);

    if (r.kind == ROWS_SHAPE)
        return "repeats shape arithmetic";
    r.axis += out_rank(b) - in_rank(b, 0);
    ret[0] = r.kind == ROWS_ON ? r : growing(b);
    return NULL;
}

static const char *rule_constant_of_shape(struct batch *b, struct rows *ret)
{
    ret[0] = growing(b);
    return NULL;
}

static int64_t product(const struct tensor *t, uint32_t n)
{
    int64_t p = 1;

    for (uint32_t i = 0; i < n; i++)
        p *= t->dims[i];
    return p;
}

/* Reshape and its kin keep the order of elements.  Rows stay together when as many elements lie
 * in front of the batch axis before as after: then a row is the same run of elements. */
static const char *rule_reshape(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0), out = growing(b);

    if (r.kind != ROWS_ON)
        return "reshapes something that depends on the batch in another way";
    for (uint32_t at = 0; at < N_BINDINGS; at++) {
        int64_t n;
        const struct tensor *in = batch_in_at(b, at, 0), *res = batch_out_at(b, at, 0);
        if (tensor_count(in, &n) < 0 || n == 0 || out.kind != ROWS_ON || out.axis >= res->rank ||
            product(in, r.axis) != product(res, out.axis))
            return "mixes rows of the batch";
    }
    ret[0] = out;
    return NULL;
}

static const char *rule_trilu(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);

    if (!why && batch_rows(b, 0).axis + 2 >= in_rank(b, 0))
        why = "cuts a triangle out of the batch";
    ret[0] = batch_rows(b, 0);
    return why;
}

/* Only the type of the second operand counts. */
static const char *rule_cast_like(struct batch *b, struct rows *ret)
{
    ret[0] = batch_rows(b, 0);
    return ret[0].kind == ROWS_SHAPE ? "computes with a number that depends on the batch" : NULL;
}

static const char *rule_cum_sum(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);
    int64_t axis;

    ret[0] = batch_rows(b, 0);
    if (why)
        return why;
    if (!same_in_all(b, 1, "", 0, &axis))
        return "has an axis that is not known";
    axis += axis < 0 ? in_rank(b, 0) : 0;
    return axis == ret[0].axis ? "cumulates over the batch" : NULL;
}

static const char *rule_top_k(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);

    if (!why && batch_rows(b, 0).axis == axis_of(b, -1, in_rank(b, 0)))
        why = "sorts the batch";
    set_all(b, ret, batch_rows(b, 0));
    return why;
}

/* All of the first n inputs carry the same rows on the same axis. */
static bool rows_in_all(const struct batch *b, uint32_t n)
{
    struct rows r = batch_rows(b, 0);

    for (uint32_t i = 0; i < n; i++) {
        struct rows in = batch_rows(b, i);
        if (in.kind != ROWS_ON || in.axis != r.axis || in.k != r.k)
            return false;
    }
    return true;
}

/* An index names positions along the axis; along all others it reads what lies beside it. */
static const char *rule_gather_elements(struct batch *b, struct rows *ret)
{
    struct rows data = batch_rows(b, 0), at = batch_rows(b, 1);
    uint32_t axis = axis_of(b, 0, in_rank(b, 0));
    bool beside = rows_in_all(b, 2) && at.axis != axis;
    bool table = data.kind == ROWS_NONE && at.kind == ROWS_ON && at.axis == axis;

    ret[0] = at;
    return beside || table ? NULL : "picks from other rows of the batch";
}

static const char *rule_scatter_elements(struct batch *b, struct rows *ret)
{
    ret[0] = batch_rows(b, 0);
    if (!rows_in_all(b, 3) || ret[0].axis == axis_of(b, 0, in_rank(b, 0)))
        return "writes into other rows of the batch";
    return NULL;
}

static const char *rule_gather_nd(struct batch *b, struct rows *ret)
{
    struct rows data = batch_rows(b, 0), at = batch_rows(b, 1);
    uint32_t batch_dims = (uint32_t)node_int(b->node, "batch_dims", 0);
    bool beside = rows_in_all(b, 2) && at.axis < batch_dims;
    bool table = data.kind == ROWS_NONE && at.kind == ROWS_ON && at.axis >= batch_dims &&
                 at.axis + 1 < in_rank(b, 1);

    ret[0] = at;
    return beside || table ? NULL : "picks from other rows of the batch";
}

static const char *rule_tensor_scatter(struct batch *b, struct rows *ret)
{
    ret[0] = batch_rows(b, 0);
    if (!rows_in_all(b, b->node->n_in) || ret[0].axis != 0)
        return "writes into other rows of the batch";
    return NULL;
}

static const char *rule_one_hot(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);
    struct rows r = batch_rows(b, 0);

    r.axis += r.axis >= axis_of(b, -1, in_rank(b, 0) + 1);
    ret[0] = r;
    return why;
}

static const char *rule_reverse_sequence(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0), len = batch_rows(b, 1);
    bool one_each =
        r.axis == node_int(b->node, "batch_axis", 1) && len.kind == ROWS_ON && len.k == r.k;
    bool inside = r.axis >= 2 && len.kind == ROWS_NONE;

    ret[0] = r;
    return r.kind == ROWS_ON && (one_each || inside) ? NULL : "reverses the batch";
}

static const char *rule_det(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);

    if (!why && batch_rows(b, 0).axis + 2 >= in_rank(b, 0))
        why = "works across the batch";
    ret[0] = batch_rows(b, 0);
    return why;
}

/* Where label l is in input i, counted; *ret its last place. */
static uint32_t label_places(const struct batch *b, const struct einsum *e, uint32_t i, uint32_t l,
                             uint32_t *ret)
{
    uint32_t n = 0;

    for (uint32_t d = 0; d < in_rank(b, i); d++)
        if (e->label[i][d] == l) {
            *ret = d;
            n++;
        }
    return n;
}

/* The batch is one label: all inputs that have it carry rows there, and it is in the result. */
static const char *rule_einsum(struct batch *b, struct rows *ret)
{
    const struct tensor *in[EINSUM_MAX_IN] = {NULL};
    struct rows r = {0};
    uint32_t label = UINT32_MAX, at;
    struct einsum e;

    for (uint32_t i = 0; i < b->node->n_in && i < EINSUM_MAX_IN; i++)
        in[i] = batch_in(b, i);
    if (einsum_read(b->node, in, &e, NULL) < 0)
        return "has an equation that cannot be read";
    for (uint32_t i = 0; i < e.n_in; i++) {
        struct rows one = batch_rows(b, i);
        if (one.kind == ROWS_SHAPE)
            return "computes with a number that depends on the batch";
        if (one.kind == ROWS_NONE)
            continue;
        if (r.kind == ROWS_ON && (e.label[i][one.axis] != label || one.k != r.k))
            return "multiplies rows of the batch with each other";
        label = e.label[i][one.axis];
        r = one;
    }
    if (label >= e.n_out)
        return "sums over the batch";
    for (uint32_t i = 0; i < e.n_in; i++) {
        uint32_t n = label_places(b, &e, i, label, &at);
        if (n > 1 || (n == 1 && batch_rows(b, i).kind != ROWS_ON))
            return "joins rows with something that is not of the same row";
    }
    ret[0] = (struct rows){ROWS_ON, label, r.k};
    return NULL;
}

/* By element; scales belong to another axis than the batch, or their number would not fit. */
static const char *rule_first(struct batch *b, struct rows *ret)
{
    set_all(b, ret, batch_rows(b, 0));
    return rows_in_first(b);
}

/* As axis0, but every input that `rows` has a bit for brings rows of its own. */
static const char *all_axis0(struct batch *b, uint32_t with_rows, struct rows *ret)
{
    struct rows first = batch_rows(b, 0);

    for (uint32_t i = 0; i < b->node->n_in; i++) {
        struct rows r = batch_rows(b, i);
        bool wanted = with_rows >> i & 1 && batch_in(b, i);
        if (r.kind != (wanted ? ROWS_ON : ROWS_NONE))
            return "has an input that depends on the batch in another way";
        if (wanted && (r.axis != 0 || r.k != first.k))
            return "works across the batch: it is not the first axis";
    }
    set_all(b, ret, first);
    return NULL;
}

static const char *rule_deform_conv(struct batch *b, struct rows *ret)
{
    return all_axis0(b, 1 | 1 << 2 | 1 << 4, ret); /* input, offset, mask */
}

static const char *rule_grid_sample(struct batch *b, struct rows *ret)
{
    return all_axis0(b, 3, ret);
}

/* Products of bytes: rows in the first operand alone. */
static const char *rule_qproduct(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0);
    const char *why = rows_in_first(b);
    uint32_t other = b->node->op == OP_QLinearMatMul ? 3 : 1;

    if (why)
        return why;
    if (r.axis + 1 == in_rank(b, 0))
        return "sums over the batch";
    if (in_rank(b, other) > 1)
        r.axis += out_rank(b) - in_rank(b, 0);
    set_all(b, ret, r);
    return NULL;
}

/* Whatever else the shape of the result is made from: along the batch it is that of the input,
 * elsewhere it does not depend on the batch. */
static const char *rows_kept(struct batch *b, struct rows *ret)
{
    struct rows r = batch_rows(b, 0);

    if (r.kind != ROWS_ON)
        return "takes its data from shape arithmetic";
    for (uint32_t i = 1; i < b->node->n_in; i++)
        if (batch_rows(b, i).kind == ROWS_ON)
            return "has a parameter that depends on the batch";
    for (uint32_t at = 0; at < N_BINDINGS; at++) {
        const struct tensor *in = batch_in_at(b, at, 0), *out = batch_out_at(b, at, 0);
        for (uint32_t d = 0; d < out->rank; d++)
            if (out->dims[d] != (d == r.axis ? in->dims[d] : batch_out_at(b, 0, 0)->dims[d]))
                return "changes the number of rows, or more with it";
    }
    set_all(b, ret, r);
    return NULL;
}

/* The scale along the batch must be one, not only lead to as many rows. */
static const char *rule_resize(struct batch *b, struct rows *ret)
{
    bool old = b->node->op == OP_Upsample || b->node->opset < 11;
    const struct tensor *scales = batch_in(b, old ? 1 : 2);
    const struct attr *attr = node_attr(b->node, "scales");
    const char *why = rows_kept(b, ret);
    float one = 1;

    if (why)
        return why;
    if (node_attr(b->node, "axes") ||
        STREQ(node_str(b->node, "coordinate_transformation_mode", ""), "tf_crop_and_resize") ||
        !STREQ(node_str(b->node, "keep_aspect_ratio_policy", "stretch"), "stretch"))
        return "may resize the batch";
    if (scales && scales->data && scales->bytes > ret[0].axis * sizeof(one))
        memcpy(&one, (const char *)scales->data + ret[0].axis * sizeof(one), sizeof(one));
    else if (attr && attr->type == ATTR_FLOATS && attr->n > ret[0].axis)
        one = attr->floats[ret[0].axis];
    if (one < 1 || one > 1 || (scales && batch_rows(b, old ? 1 : 2).kind != ROWS_NONE))
        return "resizes the batch";
    return NULL;
}

/* theta brings rows; of the size only the number of rows may depend on the batch. */
static const char *rule_affine_grid(struct batch *b, struct rows *ret)
{
    const char *why = rows_kept(b, ret);

    return why || ret[0].axis == 0 ? why : "works across the batch: it is not the first axis";
}

/* Time lies on one axis, rows on another; states and lengths belong to their rows. */
static const char *rule_rnn(struct batch *b, struct rows *ret)
{
    bool first = node_int(b->node, "layout", 0) != 0;
    uint32_t axis[] = {first ? 0 : 1, 0, 0, 0, 0, first ? 0 : 1, first ? 0 : 1, 0};
    struct rows r = batch_rows(b, 0);

    if (r.kind != ROWS_ON || r.axis != axis[0])
        return "works across the batch: it is not the axis of rows";
    for (uint32_t i = 1; i < b->node->n_in && i < ARRAY_SIZE(axis); i++) {
        bool of_rows = i == 4 || i == 5 || i == 6;
        struct rows in = batch_rows(b, i);
        if (!batch_in(b, i))
            continue;
        if (!of_rows ? in.kind != ROWS_NONE
                     : in.kind != ROWS_ON || in.axis != axis[i] || in.k != r.k)
            return "has a parameter that depends on the batch, or a state that does not";
    }
    for (uint32_t i = 0; i < b->node->n_out; i++)
        ret[i] = (struct rows){ROWS_ON, i == 0 ? (first ? 0 : 2) : (first ? 0 : 1), r.k};
    return NULL;
}

/* Inputs that are not `fixed` (a bit for each) have their rows on axis 0, as all results. */
static const char *rows_in_front(struct batch *b, uint32_t fixed, struct rows *ret)
{
    struct rows r = batch_rows(b, 0);

    if (r.kind != ROWS_ON || r.axis != 0)
        return "works across the batch: it is not the first axis";
    for (uint32_t i = 1; i < b->node->n_in; i++) {
        struct rows in = batch_rows(b, i);
        if (!batch_in(b, i))
            continue;
        if (fixed & 1u << i ? in.kind != ROWS_NONE
                            : in.kind != ROWS_ON || in.axis != 0 || in.k != r.k)
            return "has a parameter that depends on the batch, or an operand that does not";
    }
    set_all(b, ret, r);
    return NULL;
}

/* The mask is the same for all rows, or has four dimensions and rows on the first. */
static const char *rule_attention(struct batch *b, struct rows *ret)
{
    bool same = !batch_in(b, 3) || batch_rows(b, 3).kind == ROWS_NONE;

    if (!same && in_rank(b, 3) != 4)
        return "has a mask whose first axis is not the batch";
    return rows_in_front(b, same ? 1u << 3 : 0, ret);
}

/* By position the tables are the same for all rows; without, they are of the rows. */
static const char *rule_rotary(struct batch *b, struct rows *ret)
{
    return rows_in_front(b, batch_in(b, 3) ? 6 : 0, ret);
}

static const char *rule_loss(struct batch *b, struct rows *ret)
{
    if (!STREQ(node_str(b->node, "reduction", "mean"), "none"))
        return "reduces over the batch";
    return rows_in_front(b, 4, ret);
}

static const char *rule_lp_norm(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);

    if (!why && batch_rows(b, 0).axis == axis_of(b, -1, in_rank(b, 0)))
        why = "normalises over the batch";
    set_all(b, ret, batch_rows(b, 0));
    return why;
}

static const char *rule_mvn(struct batch *b, struct rows *ret)
{
    static const int64_t usual[] = {0, 2, 3};
    const char *why = rows_in_first(b);
    uint32_t n;
    const int64_t *axes = node_ints(b->node, "axes", &n);

    if (!axes) {
        axes = usual;
        n = ARRAY_SIZE(usual);
    }
    for (uint32_t i = 0; i < n && !why; i++)
        if (axes[i] + (axes[i] < 0 ? in_rank(b, 0) : 0) == batch_rows(b, 0).axis)
            why = "normalises over the batch";
    set_all(b, ret, batch_rows(b, 0));
    return why;
}

/* Neither along the transform nor between the parts of a complex number. */
static const char *rule_dft(struct batch *b, struct rows *ret)
{
    const char *why = rows_in_first(b);
    struct rows r = batch_rows(b, 0);
    int64_t axis = b->node->opset < 20 ? node_int(b->node, "axis", 1) : -2;

    if (!why && batch_in(b, 2) && !same_in_all(b, 2, "", 0, &axis))
        why = "has an axis that is not known";
    axis += axis < 0 ? in_rank(b, 0) : 0;
    if (!why && (r.axis == axis || r.axis + 1 == in_rank(b, 0)))
        why = "transforms along the batch";
    ret[0] = r;
    return why;
}

/* clang-format off */
static const batch_rule rules[OP_END] = {
#define R(op, rule) [OP_##op] = rule,
#define E(op) R(op, rule_elementwise)
    E(Abs) E(Add) E(And) E(Cast) E(Ceil) E(Clip) E(Cos) E(Div) E(Elu) E(Equal) E(Erf) E(Exp)
    E(Floor) E(Gelu) E(Greater) E(GreaterOrEqual) E(HardSigmoid) E(HardSwish) E(Identity) E(IsNaN)
    E(LeakyRelu) E(Less) E(LessOrEqual) E(Log) E(Max) E(Min) E(Mod) E(Mul) E(Neg) E(Not) E(Or)
    E(Pow) E(PRelu) E(Reciprocal) E(Relu) E(Round) E(Sigmoid) E(Sign) E(Sin) E(Softplus) E(Sqrt)
    E(Sub) E(Sum) E(Tanh) E(Where) E(Xor)
    R(AveragePool, rule_axis0) R(Conv, rule_axis0) R(GlobalAveragePool, rule_axis0)
    R(GlobalMaxPool, rule_axis0) R(InstanceNormalization, rule_axis0) R(LRN, rule_axis0)
    R(MaxPool, rule_axis0) R(BatchNormalization, rule_batchnorm) R(Dropout, rule_dropout)
    R(MatMul, rule_matmul) R(Gemm, rule_gemm)
    R(Softmax, rule_softmax) R(LogSoftmax, rule_softmax) R(LayerNormalization, rule_layernorm)
    R(ReduceMax, rule_reduce) R(ReduceMean, rule_reduce) R(ReduceMin, rule_reduce)
    R(ReduceProd, rule_reduce) R(ReduceSum, rule_reduce) R(ReduceSumSquare, rule_reduce)
    R(ReduceL2, rule_reduce) R(ArgMax, rule_arg) R(ArgMin, rule_arg)
    R(Transpose, rule_transpose) R(Concat, rule_concat) R(Split, rule_split)
    R(Slice, rule_slice) R(Gather, rule_gather) R(Pad, rule_pad) R(Tile, rule_tile)
    R(Expand, rule_expand) R(ConstantOfShape, rule_constant_of_shape)
    R(Reshape, rule_reshape) R(Flatten, rule_reshape) R(Squeeze, rule_reshape)
    R(Unsqueeze, rule_reshape) R(Trilu, rule_trilu)
    E(Acos) E(Acosh) E(Asin) E(Asinh) E(Atan) E(Atanh) E(BitCast) E(BitShift) E(BitwiseAnd) E(BitwiseNot)
    E(BitwiseOr) E(BitwiseXor) E(Celu) E(Cosh) E(IsInf) E(Mean) E(Mish) E(Selu) E(Shrink) E(Sinh)
    E(Softsign) E(Swish) E(Tan) E(ThresholdedRelu)
    R(CastLike, rule_cast_like) R(CumProd, rule_cum_sum) R(CumSum, rule_cum_sum) R(DepthToSpace, rule_axis0)
    R(Det, rule_det) R(Einsum, rule_einsum) R(GatherElements, rule_gather_elements)
    R(GatherND, rule_gather_nd) R(Hardmax, rule_softmax) R(OneHot, rule_one_hot)
    R(ReduceL1, rule_reduce) R(ReduceLogSum, rule_reduce) R(ReduceLogSumExp, rule_reduce)
    R(ReverseSequence, rule_reverse_sequence) R(Scatter, rule_scatter_elements)
    R(ScatterElements, rule_scatter_elements) R(SpaceToDepth, rule_axis0)
    R(TensorScatter, rule_tensor_scatter) R(TopK, rule_top_k)
    R(AffineGrid, rule_affine_grid) R(CenterCropPad, rows_kept) R(Col2Im, rule_axis0)
    R(ConvInteger, rule_axis0) R(ConvTranspose, rule_axis0) R(DeformConv, rule_deform_conv)
    R(DequantizeLinear, rule_first) R(GlobalLpPool, rule_axis0) R(GridSample, rule_grid_sample)
    R(LpPool, rule_axis0) R(MatMulInteger, rule_qproduct) R(QLinearConv, rule_axis0)
    E(QLinearAdd) R(QLinearMatMul, rule_qproduct) R(QuantizeLinear, rule_first) R(Resize, rule_resize)
    R(Upsample, rule_resize)
    R(RNN, rule_rnn) R(GRU, rule_rnn) R(LSTM, rule_rnn) R(Attention, rule_attention)
    R(RotaryEmbedding, rule_rotary) R(GroupNormalization, rule_axis0)
    R(RMSNormalization, rule_layernorm) R(LpNormalization, rule_lp_norm)
    R(MeanVarianceNormalization, rule_mvn) R(NegativeLogLikelihoodLoss, rule_loss)
    R(SoftmaxCrossEntropyLoss, rule_loss) R(DFT, rule_dft) R(STFT, rule_axis0)
#undef E
#undef R
};
/* clang-format on */

batch_rule batch_rule_of(enum op_id op)
{
    return (unsigned)op < OP_END ? rules[op] : NULL;
}
