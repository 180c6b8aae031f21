/* The oneDNN calls whose form differs between API v2 (this file) and v3.
 *
 * Every primitive is asked for with the scratchpad in user mode, so that nothing is allocated
 * when it runs, and implementations named "ref" are passed over: the library offers them
 * silently and they are a thousand times slower. */
#include "dnnl.h"
#include <stdio.h>

#if DNNL_VERSION_MAJOR != 2
#error "oneDNN API v2 is needed; for v3 write a second file beside this one"
#endif

#define PRIMITIVE_CACHE 4096

/* From libgomp, which oneDNN uses whatever compiles us.  <omp.h> is the compiler's own, and
 * Debian's clang comes without one. */
void omp_set_num_threads(int n);
int omp_get_thread_num(void);
int omp_get_num_threads(void);
/* What gcc makes of a parallel region. */
void GOMP_parallel(void (*fn)(void *data), void *data, unsigned n_threads, unsigned flags);

static void dims_copy(dnnl_dims_t to, uint32_t rank, const int64_t *dims)
{
    memset(to, 0, sizeof(dnnl_dims_t));
    for (uint32_t i = 0; i < rank; i++)
        to[i] = dims[i];
}

static int layout_finish(struct layout *l, enum layout_kind kind, uint32_t rank,
                         const int64_t *dims, dnnl_status_t made)
{
    if (made != dnnl_success)
        return -EINVAL;
    l->kind = kind;
    l->dtype = DT_FP32;
    l->rank = rank;
    for (uint32_t i = 0; i < rank; i++)
        l->dims[i] = dims[i];
    l->bytes = l->md.format_kind == dnnl_format_kind_any ? 0 : dnnl_memory_desc_get_size(&l->md);
    return 0;
}

int layout_strided(struct layout *ret, uint32_t rank, const int64_t *dims, const int64_t *strides)
{
    dnnl_dims_t d, s;

    if (rank > MAX_RANK)
        return -EINVAL;
    *ret = (struct layout){0};
    dims_copy(d, rank, dims);
    dims_copy(s, rank, strides);
    for (uint32_t i = 0; i < rank; i++)
        ret->strides[i] = strides[i];
    return layout_finish(ret, LAYOUT_STRIDED, rank, dims,
                         dnnl_memory_desc_init_by_strides(&ret->md, (int)rank, d, dnnl_f32, s));
}

int layout_rows(struct layout *ret, uint32_t rank, const int64_t *dims)
{
    int64_t strides[MAX_RANK], n = 1;

    if (rank > MAX_RANK)
        return -EINVAL;
    for (uint32_t i = rank; i-- > 0;) {
        strides[i] = n;
        n *= MAX(dims[i], 1);
    }
    return layout_strided(ret, rank, dims, strides);
}

static const dnnl_data_type_t data_types[DT_END] = {[DT_FP32] = dnnl_f32,
                                                    [DT_BF16] = dnnl_bf16,
                                                    [DT_INT32] = dnnl_s32,
                                                    [DT_INT8] = dnnl_s8,
                                                    [DT_UINT8] = dnnl_u8};

static enum dtype dtype_of_md(const dnnl_memory_desc_t *md)
{
    for (unsigned t = 0; t < DT_END; t++)
        if (data_types[t] && data_types[t] == md->data_type)
            return (enum dtype)t;
    return DT_NONE;
}

void layout_as(struct layout *l, enum dtype t)
{
    assert(data_types[t]);
    l->dtype = t;
    l->md.data_type = data_types[t];
    l->bytes = l->md.format_kind == dnnl_format_kind_any ? 0 : dnnl_memory_desc_get_size(&l->md);
}

static bool has_isa(dnnl_cpu_isa_t isa)
{
    return (dnnl_get_effective_cpu_isa() & isa) == isa;
}

static bool wide_vectors(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core);
}

int layout_blocked(struct layout *ret, uint32_t rank, const int64_t *dims)
{
    static const dnnl_format_tag_t tags[3][2] = {
        {dnnl_nCw8c, dnnl_nCw16c}, {dnnl_nChw8c, dnnl_nChw16c}, {dnnl_nCdhw8c, dnnl_nCdhw16c}};
    bool wide = wide_vectors();
    dnnl_dims_t d;

    if (rank < 3 || rank > 5)
        return -EINVAL;
    *ret = (struct layout){.channel_block = wide ? 16 : 8};
    dims_copy(d, rank, dims);
    return layout_finish(
        ret, LAYOUT_NATIVE, rank, dims,
        dnnl_memory_desc_init_by_tag(&ret->md, (int)rank, d, dnnl_f32, tags[rank - 3][wide]));
}

int layout_any(struct layout *ret, uint32_t rank, const int64_t *dims)
{
    dnnl_dims_t d;

    if (rank > MAX_RANK)
        return -EINVAL;
    *ret = (struct layout){0};
    dims_copy(d, rank, dims);
    return layout_finish(
        ret, LAYOUT_NATIVE, rank, dims,
        dnnl_memory_desc_init_by_tag(&ret->md, (int)rank, d, dnnl_f32, dnnl_format_tag_any));
}

bool layout_same(const struct layout *a, const struct layout *b)
{
    return dnnl_memory_desc_equal(&a->md, &b->md);
}

bool layout_padded(const struct layout *l)
{
    for (uint32_t i = 0; i < l->rank; i++)
        if (l->md.padded_dims[i] != l->md.dims[i])
            return true;
    return false;
}

bool layout_is_rows(const struct layout *l)
{
    struct layout rows;

    if (layout_padded(l) || layout_rows(&rows, l->rank, l->dims) < 0)
        return false;
    layout_as(&rows, l->dtype);
    if (layout_same(l, &rows))
        return true;
    if (l->kind == LAYOUT_STRIDED) { /* strides of dimensions of 1 do not matter */
        for (uint32_t i = 0; i < l->rank; i++)
            if (l->dims[i] != 1 && l->strides[i] != rows.strides[i])
                return false;
        return true;
    }
    if (!l->channel_block)
        return false;
    for (uint32_t i = 2; i < l->rank; i++)
        if (l->dims[i] != 1)
            return false;
    return true;
}

uint64_t layout_number(const struct layout *from, const struct layout *to)
{
    return hash_join(hash_bytes(&from->md, sizeof(from->md)), hash_bytes(&to->md, sizeof(to->md)))
        .lo;
}

void layout_of_md(struct layout *ret, const dnnl_memory_desc_t *md)
{
    struct layout blocked;

    *ret = (struct layout){
        .kind = LAYOUT_NATIVE, .dtype = dtype_of_md(md), .rank = (uint32_t)md->ndims, .md = *md};
    for (uint32_t i = 0; i < ret->rank; i++)
        ret->dims[i] = md->dims[i];
    ret->bytes = dnnl_memory_desc_get_size(md);
    if (md->format_kind != dnnl_blocked)
        return;
    if (md->format_desc.blocking.inner_nblks == 0) {
        ret->kind = LAYOUT_STRIDED;
        for (uint32_t i = 0; i < ret->rank; i++)
            ret->strides[i] = md->format_desc.blocking.strides[i];
    } else if (layout_blocked(&blocked, ret->rank, ret->dims) == 0) {
        layout_as(&blocked, ret->dtype);
        if (layout_same(&blocked, ret))
            ret->channel_block = blocked.channel_block;
    }
}

/* n from `at` on; *data moves to where they begin. */
static int slice(const struct layout *l, uint32_t dim, int64_t at, int64_t n,
                 dnnl_memory_desc_t *ret, const char **data)
{
    dnnl_dims_t dims, offsets = {0};

    dims_copy(dims, l->rank, l->dims);
    dims[dim] = n;
    offsets[dim] = at;
    if (dnnl_memory_desc_init_submemory(ret, &l->md, dims, offsets) != dnnl_success)
        return -ENOTSUP;
    *data += (size_t)ret->offset0 * dtype_size(l->dtype);
    ret->offset0 = 0; /* so that all slices are the same primitive */
    return 0;
}

int layout_rows_of(struct layout *ret, const struct layout *all, int64_t n)
{
    dnnl_memory_desc_t md;
    const char *data = NULL;

    if (slice(all, 0, 0, n, &md, &data) < 0)
        return -EINVAL;
    layout_of_md(ret, &md);
    return 0;
}

int dn_open(struct dn *ret, struct err *err)
{
    struct dn d = {.block = wide_vectors() ? 16 : 8,
                   .winograd = true,
                   .bf16 = has_isa(dnnl_cpu_isa_avx512_core_bf16),
                   .vnni = has_isa(dnnl_cpu_isa_avx512_core_vnni)};

    if (dnnl_engine_create(&d.engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&d.stream, d.engine, dnnl_stream_default_flags) != dnnl_success) {
        dn_close(&d);
        return err_set(err, -ENODEV, "oneDNN gives no CPU engine");
    }
    (void)dnnl_set_primitive_cache_capacity(PRIMITIVE_CACHE);
    *ret = d;
    return 0;
}

void dn_close(struct dn *d)
{
    if (d->stream)
        (void)dnnl_stream_destroy(d->stream);
    if (d->engine)
        (void)dnnl_engine_destroy(d->engine);
    *d = (struct dn){0};
}

void dn_forget(void)
{
    (void)dnnl_set_primitive_cache_capacity(0);
    (void)dnnl_set_primitive_cache_capacity(PRIMITIVE_CACHE);
}

void dn_threads(unsigned n)
{
    omp_set_num_threads((int)n);
}

struct team {
    unsigned n;
    void (*fn)(void *ctx, unsigned i);
    void *ctx;
};

/* The team may turn out smaller than asked for. */
static void team_member(void *arg)
{
    const struct team *t = arg;

    for (unsigned i = (unsigned)omp_get_thread_num(); i < t->n;
         i += (unsigned)omp_get_num_threads())
        t->fn(t->ctx, i);
}

void dn_team(unsigned n, void (*fn)(void *ctx, unsigned i), void *ctx)
{
    struct team t = {n, fn, ctx};

    GOMP_parallel(team_member, &t, n, 0);
}

void prim_done(struct prim *p)
{
    if (p->p)
        (void)dnnl_primitive_destroy(p->p);
    p->p = NULL;
}

int dn_eltwise(enum dn_fn fn)
{
    static const dnnl_alg_kind_t alg[] = {
        [DN_RELU] = dnnl_eltwise_relu,        [DN_CLIP] = dnnl_eltwise_clip,
        [DN_GELU] = dnnl_eltwise_gelu_erf,    [DN_TANH] = dnnl_eltwise_tanh,
        [DN_SIGMOID] = dnnl_eltwise_logistic, [DN_HARDSWISH] = dnnl_eltwise_hardswish,
        [DN_SILU] = dnnl_eltwise_swish,       [DN_GELU_TANH] = dnnl_eltwise_gelu_tanh,
        [DN_LINEAR] = dnnl_eltwise_linear,
    };
    return (int)alg[fn];
}

static dnnl_status_t posts_append(dnnl_post_ops_t ops, const struct dn_post *p)
{
    switch (p->kind) {
    case DN_ELTWISE:
        return dnnl_post_ops_append_eltwise(ops, 1, (dnnl_alg_kind_t)p->alg, p->alpha, p->beta);
    case DN_SUM:
        return dnnl_post_ops_append_sum(ops, 1);
    case DN_ADD:
        return dnnl_post_ops_append_binary(ops, dnnl_binary_add, &p->operand->md);
    }
    return dnnl_invalid_arguments;
}

/* Of convolutions and of products of two matrices: channels are dimension 1 of the result. */
static dnnl_status_t attr_scale(dnnl_primitive_attr_t attr, const struct dn_scaling *s)
{
    int mask = s->n > 1 ? 1 << 1 : 0;
    dnnl_status_t r = dnnl_primitive_attr_set_output_scales(attr, s->n, mask, s->scale);

    if (r == dnnl_success && s->src_zero)
        r = dnnl_primitive_attr_set_zero_points(attr, DNNL_ARG_SRC, 1, 0, &s->src_zero);
    if (r == dnnl_success && s->dst_zero)
        r = dnnl_primitive_attr_set_zero_points(attr, DNNL_ARG_DST, 1, 0, &s->dst_zero);
    return r;
}

static int attr_make(const struct dn_post *post, uint32_t n, const struct dn_scaling *scaling,
                     dnnl_primitive_attr_t *ret)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t s = dnnl_primitive_attr_create(ret);

    if (s != dnnl_success)
        return -ENOMEM;
    s = dnnl_primitive_attr_set_scratchpad_mode(*ret, dnnl_scratchpad_mode_user);
    if (s == dnnl_success && scaling)
        s = attr_scale(*ret, scaling);
    if (s == dnnl_success)
        s = dnnl_post_ops_create(&ops);
    for (uint32_t i = 0; i < n && s == dnnl_success; i++)
        s = posts_append(ops, &post[i]);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_post_ops(*ret, ops);
    if (ops)
        (void)dnnl_post_ops_destroy(ops);
    if (s == dnnl_success)
        return 0;
    (void)dnnl_primitive_attr_destroy(*ret);
    return -ENOTSUP;
}

static int prim_from(const_dnnl_primitive_desc_t pd, const char *impl, struct prim *ret)
{
    struct prim p = {0};

    layout_of_md(&p.src, dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0));
    layout_of_md(&p.dst, dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0));
    const dnnl_memory_desc_t *w = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    if (w)
        layout_of_md(&p.weights, w);
    const dnnl_memory_desc_t *s = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    if (s) {
        p.scratch = *s;
        p.scratch_bytes = dnnl_memory_desc_get_size(s);
    }
    (void)snprintf(p.impl, sizeof(p.impl), "%s", impl);
    if (dnnl_primitive_create(&p.p, pd) != dnnl_success)
        return -ENOMEM;
    *ret = p;
    return 0;
}

static const char *impl_name(const_dnnl_primitive_desc_t pd)
{
    const char *name = NULL;

    (void)dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    return name ? name : "?";
}

/* want NULL: any. */
static bool impl_ok(const char *impl, const char *want)
{
    return strncmp(impl, "ref", 3) != 0 && (!want || strstr(impl, want));
}

/* The first implementation that is not a reference loop, and has `want` in its name. */
static int prim_make(struct dn *d, const_dnnl_op_desc_t op, const struct dn_post *post,
                     uint32_t n_post, const struct dn_scaling *scaling, const char *want,
                     struct prim *ret)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_iterator_t it = NULL;
    int r = attr_make(post, n_post, scaling, &attr);

    if (r < 0)
        return r;
    r = -ENOTSUP;
    dnnl_status_t s = dnnl_primitive_desc_iterator_create(&it, op, attr, d->engine, NULL);
    while (s == dnnl_success && r < 0) {
        dnnl_primitive_desc_t pd = dnnl_primitive_desc_iterator_fetch(it);
        const char *impl = pd ? impl_name(pd) : "ref";
        if (impl_ok(impl, want))
            r = prim_from(pd, impl, ret);
        if (pd)
            (void)dnnl_primitive_desc_destroy(pd);
        s = dnnl_primitive_desc_iterator_next(it);
    }
    if (it)
        (void)dnnl_primitive_desc_iterator_destroy(it);
    (void)dnnl_primitive_attr_destroy(attr);
    return r;
}

int dn_conv(struct dn *d, const struct dn_conv *c, struct prim *ret)
{
    static const char *const impl[] = {
        [DN_DIRECT] = NULL, [DN_WINO_2X3] = "wino_2x3", [DN_WINO_4X3] = "wino_4x3"};
    dnnl_convolution_desc_t op;
    dnnl_dims_t stride, dilate, lo, hi, bias_dims = {c->bias_dim};
    dnnl_memory_desc_t bias;

    dims_copy(stride, c->spatial, c->stride);
    dims_copy(lo, c->spatial, c->pad_lo);
    dims_copy(hi, c->spatial, c->pad_hi);
    for (uint32_t i = 0; i < c->spatial; i++)
        dilate[i] = c->dilate[i] - 1;
    if (dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, c->scaling ? dnnl_s32 : dnnl_f32,
                                     dnnl_a) != dnnl_success ||
        dnnl_dilated_convolution_forward_desc_init(
            &op, dnnl_forward_inference,
            c->alg == DN_DIRECT ? dnnl_convolution_direct : dnnl_convolution_winograd, &c->src.md,
            &c->weights.md, c->bias ? &bias : NULL, &c->dst.md, stride, dilate, lo,
            hi) != dnnl_success)
        return -ENOTSUP;
    return prim_make(d, &op, c->post, c->n_post, c->scaling, impl[c->alg], ret);
}

int dn_deconv(struct dn *d, const struct dn_conv *c, struct prim *ret)
{
    dnnl_deconvolution_desc_t op;
    dnnl_dims_t stride, dilate, lo, hi, bias_dims = {c->bias_dim};
    dnnl_memory_desc_t bias;

    dims_copy(stride, c->spatial, c->stride);
    dims_copy(lo, c->spatial, c->pad_lo);
    dims_copy(hi, c->spatial, c->pad_hi);
    for (uint32_t i = 0; i < c->spatial; i++)
        dilate[i] = c->dilate[i] - 1;
    if (dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, dnnl_f32, dnnl_a) != dnnl_success ||
        dnnl_dilated_deconvolution_forward_desc_init(
            &op, dnnl_forward_inference, dnnl_deconvolution_direct, &c->src.md, &c->weights.md,
            c->bias ? &bias : NULL, &c->dst.md, stride, dilate, lo, hi) != dnnl_success)
        return -ENOTSUP;
    return prim_make(d, &op, NULL, 0, NULL, NULL, ret);
}

int dn_pool(struct dn *d, const struct dn_pool *p, struct prim *ret)
{
    dnnl_pooling_v2_desc_t op;
    dnnl_dims_t kernel, stride, dilate, lo, hi;
    struct layout dst;
    dnnl_alg_kind_t alg = p->max          ? dnnl_pooling_max
                          : p->count_pads ? dnnl_pooling_avg_include_padding
                                          : dnnl_pooling_avg_exclude_padding;

    dims_copy(kernel, p->spatial, p->kernel);
    dims_copy(stride, p->spatial, p->stride);
    dims_copy(lo, p->spatial, p->pad_lo);
    dims_copy(hi, p->spatial, p->pad_hi);
    for (uint32_t i = 0; i < p->spatial; i++)
        dilate[i] = p->dilate[i] - 1;
    if (layout_any(&dst, p->spatial + 2, p->dst_dims) < 0)
        return -ENOTSUP;
    layout_as(&dst, p->src.dtype);
    if (dnnl_pooling_v2_forward_desc_init(&op, dnnl_forward_inference, alg, &p->src.md, &dst.md,
                                          stride, kernel, dilate, lo, hi) != dnnl_success)
        return -ENOTSUP;
    return prim_make(d, &op, NULL, 0, NULL, NULL, ret);
}

int dn_matmul(struct dn *d, const struct dn_matmul *m, struct prim *ret)
{
    dnnl_matmul_desc_t op;

    if (dnnl_matmul_desc_init(&op, &m->src.md, &m->weights.md, m->bias ? &m->bias->md : NULL,
                              &m->dst.md) != dnnl_success)
        return -ENOTSUP;
    return prim_make(d, &op, m->post, m->n_post, m->scaling, NULL, ret);
}

static int reorder(struct dn *d, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
                   struct prim *ret)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    int r = attr_make(NULL, 0, NULL, &attr);

    if (r < 0)
        return r;
    r = -ENOTSUP;
    if (dnnl_reorder_primitive_desc_create(&pd, from, d->engine, to, d->engine, attr) ==
        dnnl_success) {
        r = prim_from(pd, impl_name(pd), ret);
        ret->reorder = true;
        (void)dnnl_primitive_desc_destroy(pd);
    }
    (void)dnnl_primitive_attr_destroy(attr);
    return r;
}

int dn_reorder(struct dn *d, const struct layout *from, const struct layout *to, struct prim *ret)
{
    return reorder(d, &from->md, &to->md, ret);
}

static int pack(struct dn *d, const dnnl_memory_desc_t *from, const void *src,
                const dnnl_memory_desc_t *to, void *dst)
{
    struct prim p = {0};
    dnnl_memory_t m[3] = {NULL};
    int r = reorder(d, from, to, &p);

    if (r < 0)
        return r;
    AUTO(free) void *scratch = malloc(p.scratch_bytes ? p.scratch_bytes : 1);
    r = scratch && dnnl_memory_create(&m[0], from, d->engine, (void *)src) == dnnl_success &&
                dnnl_memory_create(&m[1], to, d->engine, dst) == dnnl_success &&
                dnnl_memory_create(&m[2], &p.scratch, d->engine, scratch) == dnnl_success
            ? 0
            : -ENOMEM;
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_FROM, m[0]}, {DNNL_ARG_TO, m[1]}, {DNNL_ARG_SCRATCHPAD, m[2]}};
    if (r == 0 && (dnnl_primitive_execute(p.p, d->stream, 3, args) != dnnl_success ||
                   dnnl_stream_wait(d->stream) != dnnl_success))
        r = -EIO;
    for (size_t i = 0; i < ARRAY_SIZE(m); i++)
        if (m[i])
            (void)dnnl_memory_destroy(m[i]);
    prim_done(&p);
    return r;
}

/* Slices of the source that lie one behind the other, and end where blocks of the target do. */
struct slices {
    uint32_t dim;
    int64_t n;        /* of that dimension in a slice */
    size_t row_bytes; /* of the source for each of them */
};

static struct slices slices_of(const struct layout *from, const struct layout *to)
{
    struct slices s = {0};
    int64_t block = 1;

    for (uint32_t i = 1; i < from->rank; i++)
        if (from->dims[s.dim] == 1 ||
            (from->dims[i] > 1 && from->strides[i] > from->strides[s.dim]))
            s.dim = i;
    s.n = from->dims[s.dim];
    if (from->kind != LAYOUT_STRIDED || to->md.format_kind != dnnl_blocked ||
        to->md.extra.flags != dnnl_memory_extra_flag_none)
        return s;
    s.row_bytes = (size_t)from->strides[s.dim] * dtype_size(from->dtype);
    const dnnl_blocking_desc_t *b = &to->md.format_desc.blocking;
    for (int i = 0; i < b->inner_nblks; i++)
        block *= b->inner_idxs[i] == s.dim ? b->inner_blks[i] : 1;
    int64_t fit = (int64_t)(PAGES_AT_ONCE / s.row_bytes) / block * block;
    s.n = MIN(MAX(fit, block), s.n);
    return s;
}

int dn_pack(struct dn *d, const struct layout *from, const void *src, const struct layout *to,
            void *dst, void (*done)(const void *data, size_t bytes))
{
    struct slices s = slices_of(from, to);
    int r = 0;

    if (s.n == from->dims[s.dim]) {
        r = pack(d, &from->md, src, &to->md, dst);
        if (r == 0 && done)
            done(src, from->bytes);
        return r;
    }
    for (int64_t at = 0; at < from->dims[s.dim] && r == 0; at += s.n) {
        int64_t n = MIN(s.n, from->dims[s.dim] - at);
        const char *in = src, *out = dst;
        dnnl_memory_desc_t part, place;
        r = slice(from, s.dim, at, n, &part, &in);
        if (r == 0)
            r = slice(to, s.dim, at, n, &place, &out);
        if (r == 0)
            r = pack(d, &part, in, &place, (char *)out);
        if (r == 0 && done)
            done(in, (size_t)n * s.row_bytes);
    }
    return r;
}
