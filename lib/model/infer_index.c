/* Shape rules of operators that read or write by index, sort, or keep some elements.
 *
 * Where the size of a result depends on data, the rule asks for the data, so that nobody relies on
 * that shape before the model runs.  Unique's size is the largest possible one, and its kernel
 * makes it smaller. */
#include "infer.h"

static int index_type(struct infer *c, uint32_t i)
{
    enum dtype t = c->in[i]->dtype;

    if (t != DT_INT64 && t != DT_INT32)
        return err_set(c->err, -EINVAL, "indices of type %s", dtype_name(t));
    return 0;
}

static int same_rank(struct infer *c, uint32_t a, uint32_t b)
{
    if (c->in[a]->rank != c->in[b]->rank)
        return err_set(c->err, -EINVAL, "inputs %u and %u have ranks %u and %u", a, b,
                       c->in[a]->rank, c->in[b]->rank);
    return 0;
}

static int needs_data(struct infer *c, uint32_t i)
{
    int64_t n;

    if (tensor_count(c->in[i], &n) == 0 && n > 0 && !c->in[i]->data)
        return infer_unknown(c, i == 0 ? "input" : "condition");
    return 0;
}

static int64_t count_of(const struct tensor *t)
{
    int64_t n = 0;

    (void)tensor_count(t, &n); /* fits: it is the shape of a value */
    return n;
}

/* ---- by index */

int infer_gather_elements(struct infer *c)
{
    int64_t axis = node_int(c->n, "axis", 0);
    int rc = infer_axis(c, &axis, c->in[0]->rank);

    if (rc < 0 || (rc = index_type(c, 1)) < 0 || (rc = same_rank(c, 0, 1)) < 0)
        return rc;
    for (uint32_t d = 0; d < c->in[0]->rank; d++)
        if (d != axis && c->in[1]->dims[d] > c->in[0]->dims[d])
            return err_set(c->err, -EINVAL, "dimension %u of the indices is %lld (at most %lld)", d,
                           (long long)c->in[1]->dims[d], (long long)c->in[0]->dims[d]);
    return infer_out(c, 0, c->in[0]->dtype, c->in[1]->rank, c->in[1]->dims);
}

/* The first dimensions of x and indices that GatherND takes as a batch, and how many dimensions an
 * index names. */
static int nd_names(struct infer *c, int64_t batch, int64_t *ret)
{
    const struct tensor *x = c->in[0], *at = c->in[1];
    int rc = index_type(c, 1);

    if (rc < 0)
        return rc;
    if (x->rank < 1 || at->rank < 1)
        return err_set(c->err, -EINVAL, "data and indices of rank %u and %u (at least 1)", x->rank,
                       at->rank);
    if (batch < 0 || batch >= (int64_t)MIN(x->rank, at->rank))
        return err_set(c->err, -EINVAL, "batch_dims is %lld (below %u)", (long long)batch,
                       MIN(x->rank, at->rank));
    for (uint32_t d = 0; d < batch; d++)
        if (x->dims[d] != at->dims[d])
            return err_set(c->err, -EINVAL, "dimension %u is %lld in the data, %lld in the indices",
                           d, (long long)x->dims[d], (long long)at->dims[d]);
    *ret = at->dims[at->rank - 1];
    if (*ret < 1 || batch + *ret > x->rank)
        return err_set(c->err, -EINVAL, "indices of %lld numbers for data of rank %u",
                       (long long)*ret, x->rank);
    return 0;
}

int infer_gather_nd(struct infer *c)
{
    const struct tensor *x = c->in[0], *at = c->in[1];
    int64_t batch = node_int(c->n, "batch_dims", 0), named, dims[2 * MAX_RANK];
    uint32_t rank = 0;
    int rc = nd_names(c, batch, &named);

    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i + 1 < at->rank; i++)
        dims[rank++] = at->dims[i];
    for (uint32_t i = (uint32_t)(batch + named); i < x->rank; i++)
        dims[rank++] = x->dims[i];
    return infer_out(c, 0, x->dtype, rank, dims);
}

int infer_scatter_elements(struct infer *c)
{
    int64_t axis = node_int(c->n, "axis", 0);
    int rc = infer_axis(c, &axis, c->in[0]->rank);

    if (rc < 0 || (rc = index_type(c, 1)) < 0 || (rc = same_rank(c, 0, 1)) < 0 ||
        (rc = same_rank(c, 0, 2)) < 0)
        return rc;
    for (uint32_t d = 0; d < c->in[0]->rank; d++) {
        long long have = c->in[0]->dims[d], n = c->in[1]->dims[d], m = c->in[2]->dims[d];
        if (n != m || (d != axis && n > have))
            return err_set(c->err, -EINVAL,
                           "dimension %u is %lld in the data, %lld in the indices, %lld in the "
                           "updates",
                           d, have, n, m);
    }
    return infer_same(c);
}

int infer_scatter_nd(struct infer *c)
{
    const struct tensor *x = c->in[0], *at = c->in[1], *up = c->in[2];
    int64_t named;
    int rc = nd_names(c, 0, &named);

    if (rc < 0)
        return rc;
    uint32_t head = at->rank - 1, tail = x->rank - (uint32_t)named;
    bool fits = up->rank == head + tail;
    for (uint32_t d = 0; fits && d < up->rank; d++)
        fits = up->dims[d] == (d < head ? at->dims[d] : x->dims[d - head + (uint32_t)named]);
    if (!fits)
        return err_set(c->err, -EINVAL, "the updates have not the shape that the indices name");
    return infer_same(c);
}

/* Keys or values of new tokens go into a cache at a position of each row's own. */
int infer_tensor_scatter(struct infer *c)
{
    const struct tensor *past = c->in[0], *up = c->in[1], *at = infer_in(c, 2);
    int64_t axis = node_int(c->n, "axis", -2);
    int rc = infer_axis(c, &axis, past->rank);

    if (rc < 0 || (rc = same_rank(c, 0, 1)) < 0)
        return rc;
    if (axis == 0)
        return err_set(c->err, -EINVAL, "axis 0 is the batch");
    for (uint32_t d = 0; d < past->rank; d++)
        if (d == axis ? up->dims[d] > past->dims[d] : up->dims[d] != past->dims[d])
            return err_set(c->err, -EINVAL, "dimension %u of the update is %lld, of the cache %lld",
                           d, (long long)up->dims[d], (long long)past->dims[d]);
    if (at && (at->dtype != DT_INT64 || at->rank != 1 || at->dims[0] != past->dims[0]))
        return err_set(c->err, -EINVAL, "write_indices must be one INT64 for each row");
    return infer_same(c);
}

/* One number of any type from an input that says a size. */
static int size_in(struct infer *c, uint32_t i, const char *what, int64_t *ret)
{
    const struct tensor *t = c->in[i];
    double d = 0;
    float f;
    int rc = needs_data(c, i);

    if (rc < 0)
        return rc;
    if (t->rank > 1 || count_of(t) != 1)
        return err_set(c->err, -EINVAL, "its %s is not one number", what);
    switch (t->dtype) {
    case DT_FP32:
        memcpy(&f, t->data, sizeof(f));
        d = (double)f;
        break;
    case DT_FP64:
        memcpy(&d, t->data, sizeof(d));
        break;
    case DT_INT64:
        memcpy(ret, t->data, sizeof(*ret));
        return 0;
    case DT_INT32:
        *ret = *(const int32_t *)t->data;
        return 0;
    case DT_INT16:
        *ret = *(const int16_t *)t->data;
        return 0;
    case DT_UINT8:
        *ret = *(const uint8_t *)t->data;
        return 0;
    case DT_INT8:
        *ret = *(const int8_t *)t->data;
        return 0;
    case DT_UINT16:
        *ret = *(const uint16_t *)t->data;
        return 0;
    case DT_UINT32:
        *ret = *(const uint32_t *)t->data;
        return 0;
    default:
        return err_set(c->err, -ENOTSUP, "its %s of type %s is not supported", what,
                       dtype_name(t->dtype));
    }
    if (!(d >= 0 && d <= (double)MAX_DIM))
        return err_set(c->err, -EINVAL, "its %s is %g", what, d);
    *ret = (int64_t)d;
    return 0;
}

int infer_one_hot(struct infer *c)
{
    const struct tensor *at = c->in[0], *values = c->in[2];
    int64_t axis = node_int(c->n, "axis", -1), depth, dims[MAX_RANK + 1];
    int rc = infer_axis(c, &axis, at->rank + 1);

    if (rc < 0 || (rc = size_in(c, 1, "depth", &depth)) < 0)
        return rc;
    if (values->rank != 1 || values->dims[0] != 2 || depth < 0)
        return err_set(c->err, -EINVAL, "%s",
                       depth < 0 ? "a depth below 0" : "values must be two numbers");
    for (uint32_t i = 0, from = 0; i <= at->rank; i++)
        dims[i] = i == axis ? depth : at->dims[from++];
    return infer_out(c, 0, values->dtype, at->rank + 1, dims);
}

static int type_attr(struct infer *c, enum dtype absent, enum dtype *ret)
{
    int64_t t = node_int(c->n, "dtype", absent);

    if (t <= 0 || t >= DT_END || dtype_size((enum dtype)t) == 0)
        return err_set(c->err, -ENOTSUP, "type %lld is not supported", (long long)t);
    *ret = (enum dtype)t;
    return 0;
}

int infer_eye_like(struct infer *c)
{
    const struct tensor *x = c->in[0];
    enum dtype dtype = DT_NONE;
    int rc = type_attr(c, x->dtype, &dtype);

    if (rc == 0 && x->rank != 2)
        return err_set(c->err, -EINVAL, "its input has rank %u, not 2", x->rank);
    return rc < 0 ? rc : infer_out(c, 0, dtype, 2, x->dims);
}

/* ---- a size that depends on data: the largest */

int infer_compress(struct infer *c)
{
    const struct tensor *x = c->in[0], *keep = c->in[1];
    int64_t axis = node_int(c->n, "axis", 0), dims[MAX_RANK];
    bool flat = !node_attr(c->n, "axis");
    int rc = flat ? 0 : infer_axis(c, &axis, x->rank);

    if (rc < 0 || (rc = needs_data(c, 1)) < 0)
        return rc;
    if (keep->dtype != DT_BOOL || keep->rank != 1)
        return err_set(c->err, -EINVAL, "its condition must be a list of BOOL");
    memcpy(dims, x->dims, sizeof(dims));
    int64_t limit = MIN(flat ? count_of(x) : dims[axis], keep->dims[0]), kept = 0;
    for (int64_t i = 0; i < limit; i++)
        kept += ((const uint8_t *)keep->data)[i] != 0;
    dims[flat ? 0 : axis] = kept;
    return infer_out(c, 0, x->dtype, flat ? 1 : x->rank, dims);
}

/* Elements that are not 0; of floats without looking at the sign. */
static int64_t non_zeros(const struct tensor *t)
{
    static const uint8_t zero[8];
    size_t size = dtype_size(t->dtype);
    bool is_float =
        t->dtype == DT_FP32 || t->dtype == DT_FP64 || t->dtype == DT_FP16 || t->dtype == DT_BF16;
    int64_t n = count_of(t), found = 0;

    for (int64_t i = 0; i < n; i++) {
        uint8_t v[8];
        memcpy(v, (const char *)t->data + (size_t)i * size, size);
        v[size - 1] &= is_float ? 0x7f : 0xff;
        found += memcmp(v, zero, size) != 0;
    }
    return found;
}

/* Strings that have a letter; the kernel refuses a tensor that is broken. */
static int64_t non_empty(const struct tensor *t)
{
    int64_t found = 0;
    struct str s;

    for (size_t at = 0; tensor_text(t, &at, &s) == 0;)
        found += s.n > 0;
    return found;
}

int infer_non_zero(struct infer *c)
{
    int rc = needs_data(c, 0);

    if (rc < 0)
        return rc;
    int64_t found = c->in[0]->dtype == DT_STRING ? non_empty(c->in[0]) : non_zeros(c->in[0]);
    return infer_out(c, 0, DT_INT64, 2, (const int64_t[]){c->in[0]->rank, found});
}

int infer_unique(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axis = node_int(c->n, "axis", 0), all = count_of(x);
    bool flat = !node_attr(c->n, "axis");
    int rc = flat ? 0 : infer_axis(c, &axis, x->rank);

    if (rc < 0 || (rc = needs_data(c, 0)) < 0)
        return rc;
    const int64_t n = flat ? all : x->dims[axis];
    rc = flat ? infer_out(c, 0, x->dtype, 1, &n) : infer_out(c, 0, x->dtype, x->rank, x->dims);
    for (uint32_t i = 1; rc == 0 && i < 4; i++)
        rc = infer_out(c, i, DT_INT64, 1, &n);
    return rc;
}

/* ---- along an axis */

int infer_top_k(struct infer *c)
{
    const struct tensor *x = c->in[0];
    int64_t axis = node_int(c->n, "axis", -1), k = node_int(c->n, "k", -1), dims[MAX_RANK];
    int rc = infer_axis(c, &axis, x->rank);

    if (rc == 0 && c->n->opset >= 10) {
        if (!infer_in(c, 1))
            return err_set(c->err, -EINVAL, "input 1 is missing");
        rc = size_in(c, 1, "k", &k);
    }
    if (rc < 0)
        return rc;
    if (k < 0 || k > x->dims[axis])
        return err_set(c->err, -EINVAL, "the first %lld of %lld", (long long)k,
                       (long long)x->dims[axis]);
    memcpy(dims, x->dims, sizeof(dims));
    dims[axis] = k;
    rc = infer_out(c, 0, x->dtype, x->rank, dims);
    return rc < 0 ? rc : infer_out(c, 1, DT_INT64, x->rank, dims);
}

int infer_cum_sum(struct infer *c)
{
    const struct tensor *axis = c->in[1];
    int64_t at;

    if ((axis->dtype != DT_INT64 && axis->dtype != DT_INT32) || axis->rank > 1 ||
        count_of(axis) != 1)
        return err_set(c->err, -EINVAL, "its axis is not one integer");
    if (axis->data) {
        int rc = size_in(c, 1, "axis", &at);
        if (rc < 0 || (rc = infer_axis(c, &at, c->in[0]->rank)) < 0)
            return rc;
    }
    return infer_same(c);
}
