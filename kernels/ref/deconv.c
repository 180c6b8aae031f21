/* Windows run backwards: ConvTranspose, Col2Im and MaxUnpool add what they have into the result.
 * Here the result is what the window slides over: w.in are its dimensions. */
#include "kit.h"

static int no_memory(const struct node *n, struct err *err)
{
    return ref_fail(n, err, -ENOMEM, "out of memory");
}

static void put_all(const struct tensor *y, const double *v)
{
    for (int64_t i = 0; i < ref_count(y); i++)
        num_put(y, i, (union num){.f = v[i]});
}

/* ---- ConvTranspose */

/* With output_shape the padding is whatever makes the result that large. */
static int transpose_pads(const struct node *n, struct window *w, struct err *err)
{
    bool upper = STREQ(node_str(n, "auto_pad", "NOTSET"), "SAME_UPPER");
    uint32_t n_more;
    const int64_t *more = node_ints(n, "output_padding", &n_more);

    if (!node_attr(n, "output_shape"))
        return 0;
    if (more && n_more != w->n_dims)
        return ref_fail(n, err, -EINVAL, "output_padding does not fit");
    for (unsigned i = 0; i < WINDOW_DIMS; i++) {
        int at = (int)i - (int)(WINDOW_DIMS - w->n_dims);
        int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1;
        int64_t total = (w->out[i] - 1) * w->stride[i] + reach - w->in[i];
        total = MAX(total + (more && at >= 0 ? more[at] : 0), 0);
        w->pad_begin[i] = upper ? total / 2 : total - total / 2;
    }
    return 0;
}

struct transpose {
    struct window w;
    int64_t groups, c_in, c_out; /* channels of one group */
    const double *x, *k;
    double *y;
};

/* Spread the input position `from` of one image and group. */
static void transpose_spread(const struct transpose *t, int64_t image_group, int64_t group,
                             int64_t from)
{
    int64_t n_x = window_count(t->w.out), n_y = window_count(t->w.in),
            n_k = window_count(t->w.kernel), at[WINDOW_DIMS], k[WINDOW_DIMS];

    window_split(from, t->w.out, at);
    for (int64_t i = 0; i < n_k; i++) {
        window_split(i, t->w.kernel, k);
        int64_t to = window_read(&t->w, at, k, NULL);
        for (int64_t o = 0; to >= 0 && o < t->c_out; o++)
            for (int64_t c = 0; c < t->c_in; c++)
                t->y[(image_group * t->c_out + o) * n_y + to] +=
                    t->x[(image_group * t->c_in + c) * n_x + from] *
                    t->k[((group * t->c_in + c) * t->c_out + o) * n_k + i];
    }
}

static int transpose_check(const struct node *n, const struct tensor *const *in,
                           const struct tensor *y, int64_t groups, struct err *err)
{
    const struct tensor *x = in[0], *k = in[1], *b = ref_in(n, in, 2);
    const struct tensor *const all[] = {x, k, b, y};
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0)
        return r;
    if (x->rank < 3 || k->rank != x->rank || y->rank != x->rank || groups < 1 ||
        groups > INT32_MAX || x->dims[1] != k->dims[0] || x->dims[1] % groups != 0 ||
        y->dims[0] != x->dims[0] || y->dims[1] != k->dims[1] * groups ||
        (b && ref_count(b) != y->dims[1]))
        return ref_fail(n, err, -EINVAL, "channels of input, weights, bias and groups disagree");
    return 0;
}

REF_FN(ref_conv_transpose)
{
    const struct tensor *x = in[0], *b = ref_in(n, in, 2), *y = out[0];
    struct transpose t = {.groups = node_int(n, "group", 1)};
    int r = transpose_check(n, in, y, t.groups, err);

    if (r < 0 || (r = window_init(&t.w, n, y, x, &in[1]->dims[2], err)) < 0 ||
        (r = transpose_pads(n, &t.w, err)) < 0)
        return r;
    AUTO(ref_drop) double *vx = ref_doubles(x), *vk = ref_doubles(in[1]);
    AUTO(ref_drop) double *vy = ref_scratch((size_t)ref_count(y) + 1, sizeof(*vy));
    if (!vx || !vk || !vy)
        return no_memory(n, err);
    t.x = vx, t.k = vk, t.y = vy;
    t.c_in = x->dims[1] / t.groups;
    t.c_out = in[1]->dims[1];
    int64_t n_y = window_count(t.w.in);
    for (int64_t i = 0; b && n_y > 0 && i < ref_count(y); i++)
        vy[i] = num_get(b, i / n_y % y->dims[1]).f;
    for (int64_t i = 0; i < x->dims[0] * t.groups; i++)
        for (int64_t from = 0; from < window_count(t.w.out); from++)
            transpose_spread(&t, i, i % t.groups, from);
    put_all(y, vy);
    return 0;
}

/* ---- Col2Im: x [N, C * block, blocks] */

REF_FN(ref_col2im)
{
    const struct tensor *x = in[0], *y = out[0];
    int64_t kernel[MAX_RANK], k[WINDOW_DIMS], at[WINDOW_DIMS];
    struct tensor blocks = {.rank = y->rank}; /* how many along each dimension */
    struct window w;
    uint32_t n_kernel;
    bool given;
    int r = ref_ints(n, in, 2, "", kernel, MAX_RANK, &n_kernel, &given, err);

    if (r < 0 || (r = ref_floats(n, in, 1, err)) < 0)
        return r;
    if (y->rank < 3 || n_kernel != y->rank - 2 || x->rank != 3)
        return ref_fail(n, err, -EINVAL, "block_shape, input and output do not go together");
    if ((r = window_init(&w, n, y, &blocks, kernel, err)) < 0)
        return r;
    for (unsigned i = 0; i < WINDOW_DIMS; i++) {
        int64_t room = w.in[i] + w.pad_begin[i] + w.pad_end[i] - (w.kernel[i] - 1) * w.dilation[i];
        w.out[i] = room < 1 ? 0 : (room - 1) / w.stride[i] + 1;
    }
    int64_t n_k = window_count(w.kernel), n_b = window_count(w.out), n_y = window_count(w.in);
    if (x->dims[0] != y->dims[0] || x->dims[1] != y->dims[1] * n_k || x->dims[2] != n_b)
        return ref_fail(n, err, -EINVAL, "block_shape, input and output do not go together");
    AUTO(ref_drop) double *v = ref_scratch((size_t)ref_count(y) + 1, sizeof(*v));
    if (!v)
        return no_memory(n, err);
    for (int64_t i = 0; i < ref_count(x); i++) {
        int64_t plane = i / n_b / n_k;
        window_split(i / n_b % n_k, w.kernel, k);
        window_split(i % n_b, w.out, at);
        int64_t to = window_read(&w, at, k, NULL);
        if (to >= 0)
            v[plane * n_y + to] += num_get(x, i).f;
    }
    put_all(y, v);
    return 0;
}

/* ---- MaxUnpool: indices count the elements of the tensor that MaxPool saw, as the attributes
 * give its shape; a larger output_shape leaves room behind. */

static int unpool_dims(const struct node *n, const struct tensor *x, int64_t ret[MAX_RANK],
                       struct err *err)
{
    uint32_t d = x->rank - 2, n_kernel, n_stride, n_pad;
    const int64_t *kernel = node_ints(n, "kernel_shape", &n_kernel);
    const int64_t *stride = node_ints(n, "strides", &n_stride);
    const int64_t *pad = node_ints(n, "pads", &n_pad);

    if (n_kernel != d || (stride && n_stride != d) || (pad && n_pad != 2 * d))
        return ref_fail(n, err, -EINVAL, "kernel_shape, strides or pads do not fit");
    memcpy(ret, x->dims, 2 * sizeof(*ret));
    for (uint32_t i = 0; i < d; i++)
        ret[2 + i] = MAX(x->dims[2 + i] - 1, 0) * (stride ? stride[i] : 1) + kernel[i] -
                     (pad ? pad[i] + pad[d + i] : 0);
    return 0;
}

REF_FN(ref_max_unpool)
{
    const struct tensor *x = in[0], *index = in[1], *y = out[0];
    int64_t dims[MAX_RANK], total = 1, stride[MAX_RANK];
    size_t each = dtype_size(x->dtype);
    int r;

    if (x->rank < 3 || y->rank != x->rank || y->dtype != x->dtype || index->dtype != DT_INT64 ||
        ref_count(index) != ref_count(x))
        return ref_fail(n, err, -EINVAL, "input, indices and output do not go together");
    if ((r = unpool_dims(n, x, dims, err)) < 0)
        return r;
    for (uint32_t i = 0; i < x->rank; i++)
        if (dims[i] < 0 || __builtin_mul_overflow(total, dims[i], &total))
            return ref_fail(n, err, -EINVAL, "the unpooled shape is out of range");
    dense_strides(y, stride);
    if (y->bytes)
        memset(y->data, 0, y->bytes);
    for (int64_t i = 0; i < ref_count(x); i++) {
        int64_t at = num_get(index, i).i, to = 0;
        if (at < 0 || at >= total)
            return err_set(err, -EINVAL, "node '%s' (%s): index %lld of %lld elements", n->name,
                           op_name(n->op), (long long)at, (long long)total);
        for (uint32_t d = x->rank; d-- > 0; at /= dims[d]) {
            if (at % dims[d] >= y->dims[d])
                return ref_fail(n, err, -EINVAL, "an index outside of output_shape");
            to += at % dims[d] * stride[d];
        }
        ref_copy((char *)y->data + (size_t)to * each, (char *)x->data + (size_t)i * each, each);
    }
    return 0;
}
