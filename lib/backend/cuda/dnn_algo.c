/* Which plan does a convolution: the fastest of the first that the library offers, by what they
 * take on the SMs of the partition (choice.h).  What is kept of a plan is where it stands in the
 * library's proposals, and its name there. */
#include "dnn.h"

#if HAS_CUDNN
#include "choice.h"

#define TENSOR_ALIGN 256

struct runs {
    struct part *part;
    const struct dnn_offers *offers;
    cudnnBackendDescriptor_t pack;
};

static struct hash128 key_of(const struct dnn_conv_shape *s, uint32_t sms)
{
    int64_t is[9 + 7 * DNN_SPATIAL_MAX] = {
        'c',       s->type,     s->spatial,
        s->batch,  s->channels, s->filters,
        s->groups, sms,         s->bias | s->add << 1 | s->relu << 2};
    const int64_t *of[] = {s->in, s->out, s->kernel, s->stride, s->dilation, s->pad, s->pad_end};

    for (size_t i = 0; i < ARRAY_SIZE(of); i++)
        memcpy(is + 9 + i * DNN_SPATIAL_MAX, of[i], DNN_SPATIAL_MAX * sizeof(*is));
    return hash_bytes(is, sizeof(is));
}

/* ---- measuring */
static int run(void *arg, unsigned i, CUstream stream, struct err *err)
{
    const struct runs *x = arg;

    return DNN(execute(dnn_on(x->part, stream), x->offers->offer[i].plan, x->pack), err);
}

static size_t bytes_of(const struct dnn_conv_shape *s, int64_t first, int64_t second,
                       const int64_t *spatial)
{
    size_t n = (size_t)(first * second);

    for (uint32_t i = 0; i < s->spatial; i++)
        n *= (size_t)spatial[i];
    return align_up(n * (s->type == CUDNN_DATA_FLOAT ? 4 : 2), TENSOR_ALIGN);
}

/* As a slot would have it, in memory that nobody reads. */
static bool place(struct build *b, const struct dnn_conv_shape *s, const struct dnn_offers *o,
                  struct dnn_args *ret)
{
    static const int64_t ones[DNN_SPATIAL_MAX] = {1, 1, 1};
    size_t y = bytes_of(s, s->batch, s->filters, s->out), workspace = 0;
    void *at[6];
    size_t all = 0;

    for (unsigned i = 0; i < o->n; i++)
        workspace = MAX(workspace, o->offer[i].workspace);
    const size_t bytes[ARRAY_SIZE(at)] = {
        bytes_of(s, s->batch, s->channels, s->in),
        bytes_of(s, s->filters, s->channels / s->groups, s->kernel),
        s->bias ? bytes_of(s, 1, s->filters, ones) : 0,
        s->add ? y : 0,
        y,
        workspace};
    for (size_t i = 0; i < ARRAY_SIZE(at); i++)
        all += bytes[i];
    CUdeviceptr from = contest_memory(b, all);
    for (size_t i = 0; i < ARRAY_SIZE(at); from += bytes[i++])
        at[i] = bytes[i] ? (void *)from : NULL;
    *ret = (struct dnn_args){at[0], at[1], at[2], at[3], at[4], at[5]};
    return at[0] != NULL;
}

static int measure(struct build *b, const struct dnn_conv_shape *s, const struct dnn_offers *o,
                   unsigned *ret, bool *ret_known)
{
    struct runs x = {.part = b->part, .offers = o};
    struct ways ways = {.n = o->n, .run = run, .arg = &x};
    struct dnn_args args;
    struct err none;

    if (!place(b, s, o, &args) || dnn_pack(&args, &x.pack, &none) < 0)
        return 0;
    int r = contest(b, &ways, ret, ret_known);
    (void)dnn.desc_destroy(x.pack);
    return r;
}

/* ---- choosing */
static void offers_done_auto(struct dnn_offers *o)
{
    dnn_offers_done(o);
}

/* One is no contest, and no time is left for more. */
static int by_contest(struct build *b, const struct dnn_conv_shape *s, struct hash128 key,
                      struct dnn_plan *ret, bool *ret_found)
{
    __attribute__((cleanup(offers_done_auto))) struct dnn_offers o = {0};
    unsigned best = 0;
    bool known = false, in_time = contest_begin(b);
    struct dnn_request q = {
        .handle = b->part->dnn, .part = b->part, .shape = s, .most = in_time ? DNN_OFFERS_MAX : 1};
    int r = dnn_offers_make(&q, &o, b->err);

    if (r == 0 && o.n > 1)
        r = measure(b, s, &o, &best, &known);
    contest_end(b);
    *ret_found = r == 0 && o.n > 0;
    if (!*ret_found)
        return r;
    if (known)
        choices_add(b->part->dev->choices, key, &o.offer[best].way, sizeof(o.offer[best].way));
    dnn_offers_take(&o, best, ret);
    return 0;
}

int dnn_plan_choose(struct build *b, const struct dnn_conv_shape *s, struct dnn_plan *ret,
                    bool *ret_found)
{
    struct hash128 key = key_of(s, b->part->units);
    struct dnn_way known;
    struct dnn_offers o = {0};
    struct dnn_request q = {
        .handle = b->part->dnn, .part = b->part, .shape = s, .only = &known, .most = 1};

    _Static_assert(sizeof(known) <= CHOICE_BYTES, "a way is kept by value");
    if (!choices_find(b->part->dev->choices, key, &known, sizeof(known)))
        return by_contest(b, s, key, ret, ret_found);
    int r = dnn_offers_make(&q, &o, b->err);
    if (r < 0)
        return r;
    if (o.n == 0) /* the list is another one */
        return by_contest(b, s, key, ret, ret_found);
    dnn_offers_take(&o, 0, ret);
    *ret_found = true;
    return 0;
}
#endif
