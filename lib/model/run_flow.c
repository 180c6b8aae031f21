/* If, Loop and Scan: nodes that run graphs of their own.
 *
 * A branch runs in the arena of the run around it.  A body that is run again and again has an
 * arena of its own, emptied after each time; the values it carries from one time to the next are
 * copied out of it, and what it gives to be joined is appended to a pile.  So memory does not
 * grow with the number of times, but for the piles.  Everything counts against the limit of the
 * run's arena, and the times against a budget of the whole run.
 *
 * Strings go through If and Loop; Scan, which cuts tensors into parts, refuses them. */
#include "run.h"

/* ---- a body, once */

static const struct body *body_of(const struct flow *f, const char *name)
{
    const struct attr *a = node_attr(f->n, name);

    if (a && a->type == ATTR_GRAPH)
        return a->body;
    (void)err_set(f->err, -EINVAL, "attribute '%s' is missing or no graph", name);
    return NULL;
}

static int body_check(const struct flow *f, const struct body *b, uint32_t n_in, uint32_t n_out)
{
    if (b->g->n_in == n_in && b->g->n_out == n_out)
        return 0;
    return err_set(f->err, -EINVAL, "its body has %u inputs and %u outputs, not %u and %u",
                   b->g->n_in, b->g->n_out, n_in, n_out);
}

/* in: what the body declares.  Results may lie in memory of in[], of captured values, or in a. */
static int body_run(const struct flow *f, const struct body *b, const struct tensor *in,
                    struct arena *a, struct tensor *ret)
{
    const struct graph *g = b->g;
    struct graph_run r = *f->r;

    r.graph = g;
    r.only = NULL;
    r.arena = a;
    r.value = run_alloc(a, g->n_values * sizeof(*r.value), f->err);
    if (!r.value)
        return -ENOMEM;
    for (uint32_t i = 0; i < g->n_in; i++)
        r.value[g->in[i]] = in[i];
    for (uint32_t i = 0; i < b->n_captured; i++)
        r.value[b->inner[i]] = *f->in[b->outer[i]];
    int rc = graph_run(&r, f->err);
    for (uint32_t i = 0; rc == 0 && i < g->n_out; i++)
        ret[i] = r.value[g->out[i]];
    return rc;
}

static int read_flag(const struct flow *f, const struct tensor *t, const char *what, bool *ret)
{
    if (!t || t->dtype != DT_BOOL || t->bytes != 1)
        return err_set(f->err, -EINVAL, "its %s is not one BOOL", what);
    *ret = *(const uint8_t *)t->data != 0;
    return 0;
}

static int run_if(struct flow *f)
{
    struct tensor result[MAX_IO];
    bool yes = false;
    int rc = read_flag(f, f->n->n_own ? f->in[0] : NULL, "condition", &yes);
    const struct body *b = rc < 0 ? NULL : body_of(f, yes ? "then_branch" : "else_branch");

    if (!b)
        return f->err->code;
    if ((rc = body_check(f, b, 0, f->n->n_out)) < 0 ||
        (rc = body_run(f, b, NULL, f->r->arena, result)) < 0)
        return rc;
    memcpy(f->out, result, f->n->n_out * sizeof(*f->out));
    return 0;
}

/* ---- results of many times, joined along an axis that is new */

struct pile {
    struct tensor each; /* type and shape of one result; dtype DT_NONE: none yet */
    char *data;         /* the cache's */
    struct arena_cache *cache;
    size_t bytes, cap;
    int64_t n;
};

/* left: bytes that the run may still take. */
static int pile_room(struct pile *p, size_t bytes, size_t left, struct err *err)
{
    if (bytes <= p->cap - p->bytes)
        return 0;
    size_t more = bytes - (p->cap - p->bytes);
    if (more > left)
        return err_set(err, -ENOMEM, "its joined results need %zu bytes, %zu of the run's are left",
                       more, left);
    size_t cap = p->cap + MIN(MAX(more, p->cap + 64), left);
    char *grown = arena_cache_get(p->cache, cap);
    if (!grown)
        return err_set(err, -ENOMEM, "out of memory for %zu bytes", cap);
    if (p->bytes)
        memcpy(grown, p->data, p->bytes);
    arena_cache_put(p->cache, p->data);
    p->data = grown;
    p->cap = cap;
    return 0;
}

static int pile_add(struct pile *p, const struct tensor *t, size_t left, struct err *err)
{
    if (p->each.dtype == DT_NONE)
        p->each = *t;
    if ((t->dtype != p->each.dtype || t->rank != p->each.rank ||
         memcmp(t->dims, p->each.dims, t->rank * sizeof(t->dims[0])) != 0)) {
        char a[80], b[80];
        return err_set(err, -EINVAL, "a result of shape %s of %s after one of %s of %s",
                       dims_print(t->rank, t->dims, a, sizeof(a)), dtype_name(t->dtype),
                       dims_print(p->each.rank, p->each.dims, b, sizeof(b)),
                       dtype_name(p->each.dtype));
    }
    int rc = pile_room(p, t->bytes, left, err);
    if (rc < 0)
        return rc;
    if (t->bytes)
        memcpy(p->data + p->bytes, t->data, t->bytes);
    p->bytes += t->bytes;
    p->n++;
    return 0;
}

/* Zeros behind it, until there are n. */
static int pile_fill(struct pile *p, int64_t n, size_t left, struct err *err)
{
    size_t bytes;

    if (__builtin_mul_overflow((size_t)(n - p->n), p->each.bytes, &bytes))
        bytes = SIZE_MAX;
    int rc = pile_room(p, bytes, left, err);
    if (rc < 0)
        return rc;
    if (bytes)
        memset(p->data + p->bytes, 0, bytes);
    p->bytes += bytes;
    p->n = n;
    return 0;
}

/* Nothing came: the shape of one is what the body declares, 0 where it does not say. */
static int pile_declare(struct pile *p, const struct value *v, struct err *err)
{
    int64_t dims[MAX_RANK] = {0};

    if (v->dtype == DT_NONE || v->rank < 0)
        return err_set(err, -EINVAL,
                       "it ran no time, and result '%.64s' of its body declares no type and shape",
                       v->name);
    for (int32_t i = 0; i < v->rank; i++)
        dims[i] = v->dims[i].sym == SYM_CONST ? v->dims[i].scale : 0;
    if (tensor_shape(&p->each, v->dtype, (uint32_t)v->rank, dims) < 0)
        return err_set(err, -EINVAL, "result '%.64s' of its body is too large", v->name);
    return 0;
}

/* The n results as one tensor whose dimension `axis` counts them, the last one first if `back`. */
static int pile_give(struct pile *p, int64_t axis, bool back, struct arena *a, struct tensor *ret,
                     struct err *err)
{
    int64_t dims[MAX_RANK];
    size_t outer = 1, n = (size_t)p->n;
    uint32_t rank = p->each.rank + 1;

    if (rank > MAX_RANK || axis < -(int64_t)rank || axis >= rank)
        return err_set(err, -EINVAL, "axis %lld of a result of rank %u (at most %d)",
                       (long long)axis, rank, MAX_RANK);
    axis = axis < 0 ? axis + rank : axis;
    if (p->each.dtype == DT_STRING && (axis != 0 || back))
        return err_set(err, -ENOTSUP, "strings are joined in order along axis 0 only");
    for (uint32_t i = 0, from = 0; i < rank; i++)
        dims[i] = i == axis ? p->n : p->each.dims[from++];
    if (tensor_shape(ret, p->each.dtype, rank, dims) < 0)
        return err_set(err, -EINVAL, "its joined results are too large");
    ret->bytes = p->bytes;
    if (!(ret->data = run_alloc(a, p->bytes, err)))
        return -ENOMEM;
    if (p->bytes == 0)
        return 0;
    if (p->each.dtype == DT_STRING) {
        memcpy(ret->data, p->data, p->bytes);
        return 0;
    }
    for (uint32_t i = 0; i < axis; i++) /* of bytes that are there: no overflow */
        outer *= (size_t)dims[i];
    size_t block = p->each.bytes / outer;
    for (size_t i = 0; i < n; i++)
        for (size_t o = 0; o < outer; o++)
            memcpy((char *)ret->data + (o * n + (back ? n - 1 - i : i)) * block,
                   p->data + i * p->each.bytes + o * block, block);
    return 0;
}

/* ---- a body, many times */

struct times {
    const struct flow *f;
    const struct body *body;
    uint32_t n_first;         /* results before the carried ones: Loop has its condition there */
    uint32_t n_state, n_pile; /* carried values; results that are joined */
    struct tensor *state;     /* in keep, or the caller's before the first time */
    struct pile *pile;
    struct arena keep;
    const struct times *around; /* Scan over a batch: the rows so far */
};

static void times_init(struct times *t)
{
    struct arena_cache *cache = t->f->r->arena->cache;

    arena_init(&t->keep);
    t->keep.cache = cache;
    for (uint32_t i = 0; i < t->n_pile; i++)
        t->pile[i].cache = cache;
}

static void times_done(struct times *t)
{
    for (uint32_t i = 0; t->pile && i < t->n_pile; i++)
        arena_cache_put(t->pile[i].cache, t->pile[i].data);
    arena_done(&t->keep);
}

/* What the run may still take; SIZE_MAX without a limit. */
static size_t bytes_left(const struct times *t)
{
    const struct arena *a = t->f->r->arena;
    size_t held = a->total_bytes;

    for (const struct times *s = t; s; s = s->around) {
        held += s->keep.total_bytes;
        for (uint32_t i = 0; i < s->n_pile; i++)
            held += s->pile[i].cap;
    }
    if (a->limit_bytes == 0)
        return SIZE_MAX;
    return a->limit_bytes - MIN(held, a->limit_bytes);
}

static void side_arena(struct arena *a, const struct times *t)
{
    arena_init(a);
    a->cache = t->f->r->arena->cache;
    if (t->f->r->arena->limit_bytes)
        a->limit_bytes = MAX(bytes_left(t), (size_t)1); /* 0 would be no limit */
}

/* Copy what is carried out of the body's arena, and out of the old keep. */
static int keep_state(struct times *t, const struct tensor *from)
{
    struct arena next;

    side_arena(&next, t);
    for (uint32_t i = 0; i < t->n_state; i++) {
        struct tensor s = from[i];
        if (!(s.data = run_alloc(&next, s.bytes, t->f->err))) {
            arena_done(&next);
            return -ENOMEM;
        }
        if (s.bytes)
            memcpy(s.data, from[i].data, s.bytes);
        t->state[i] = s;
    }
    arena_done(&t->keep);
    t->keep = next;
    return 0;
}

static int spend_one(const struct flow *f)
{
    if (*f->r->iterations_left == 0)
        return err_set(f->err, -EINVAL, "more than %llu iterations in one run",
                       (unsigned long long)f->r->graph->limits.loop_iterations);
    --*f->r->iterations_left;
    return 0;
}

/* One time.  in: all that the body declares; work: its arena.  *ret_flag from the first result. */
static int once(struct times *t, const struct tensor *in, struct arena *work, bool *ret_flag)
{
    struct tensor result[MAX_IO];
    int rc = spend_one(t->f);

    if (rc == 0)
        rc = body_run(t->f, t->body, in, work, result);
    if (rc == 0 && t->n_first)
        rc = read_flag(t->f, &result[0], "body's condition", ret_flag);
    for (uint32_t i = 0; rc == 0 && i < t->n_pile; i++)
        rc = pile_add(&t->pile[i], &result[t->n_first + t->n_state + i], bytes_left(t), t->f->err);
    return rc < 0 ? rc : keep_state(t, result + t->n_first);
}

/* Pile i as result k of the node. */
static int give_pile(struct times *t, uint32_t i, int64_t axis, bool back, struct arena *a,
                     struct tensor *ret)
{
    const struct graph *g = t->body->g;
    int rc = 0;

    if (t->pile[i].each.dtype == DT_NONE)
        rc = pile_declare(&t->pile[i], &g->values[g->out[t->n_first + t->n_state + i]], t->f->err);
    return rc < 0 ? rc : pile_give(&t->pile[i], axis, back, a, ret, t->f->err);
}

static int give_state(const struct times *t, struct arena *a, struct tensor *ret)
{
    for (uint32_t i = 0; i < t->n_state; i++) {
        ret[i] = t->state[i];
        if (!(ret[i].data = run_alloc(a, ret[i].bytes, t->f->err)))
            return -ENOMEM;
        if (ret[i].bytes)
            memcpy(ret[i].data, t->state[i].data, ret[i].bytes);
    }
    return 0;
}

/* The node's inputs from `from` on as tensors; none may be omitted. */
static int gather_inputs(const struct flow *f, uint32_t from, uint32_t n, struct tensor *ret)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!f->in[from + i])
            return err_set(f->err, -EINVAL, "input %u is missing", from + i);
        ret[i] = *f->in[from + i];
    }
    return 0;
}

/* ---- Loop: while the condition holds, at most as often as the count says */

struct loop_head {
    int64_t count;
    bool go;
};

static int loop_head(const struct flow *f, struct loop_head *h)
{
    const struct tensor *count = f->n->n_own > 0 ? f->in[0] : NULL;
    const struct tensor *flag = f->n->n_own > 1 ? f->in[1] : NULL;

    *h = (struct loop_head){INT64_MAX, true};
    if (count && (count->dtype != DT_INT64 || count->bytes != sizeof(h->count)))
        return err_set(f->err, -EINVAL, "its trip count is not one INT64");
    if (count)
        memcpy(&h->count, count->data, sizeof(h->count));
    return flag ? read_flag(f, flag, "condition", &h->go) : 0;
}

static int loop_times(struct times *t, struct loop_head *h)
{
    struct tensor in[MAX_IO];
    int64_t i;
    uint8_t flag;
    int rc = 0;

    in[0] = (struct tensor){.dtype = DT_INT64, .bytes = sizeof(i), .data = &i};
    in[1] = (struct tensor){.dtype = DT_BOOL, .bytes = 1, .data = &flag};
    for (i = 0; rc == 0 && h->go && i < h->count; i++) {
        struct arena work;
        flag = h->go;
        memcpy(in + 2, t->state, t->n_state * sizeof(*in));
        side_arena(&work, t);
        rc = once(t, in, &work, &h->go);
        arena_done(&work);
    }
    return rc;
}

static int run_loop(struct flow *f)
{
    struct tensor state[MAX_IO];
    struct pile pile[MAX_IO] = {0};
    struct times t = {.f = f, .body = body_of(f, "body"), .n_first = 1};
    struct loop_head h;
    int rc;

    if (!t.body)
        return f->err->code;
    t.n_state = f->n->n_own > 2 ? f->n->n_own - 2 : 0;
    t.n_pile = f->n->n_out - MIN(t.n_state, f->n->n_out);
    if (t.n_state > f->n->n_out)
        return err_set(f->err, -EINVAL, "%u carried values, but %u outputs", t.n_state,
                       f->n->n_out);
    if ((rc = body_check(f, t.body, 2 + t.n_state, 1 + t.n_state + t.n_pile)) < 0 ||
        (rc = gather_inputs(f, 2, t.n_state, state)) < 0 || (rc = loop_head(f, &h)) < 0)
        return rc;
    t.state = state;
    t.pile = pile;
    times_init(&t);
    rc = loop_times(&t, &h);
    if (rc == 0)
        rc = give_state(&t, f->r->arena, f->out);
    for (uint32_t i = 0; rc == 0 && i < t.n_pile; i++)
        rc = give_pile(&t, i, 0, false, f->r->arena, &f->out[t.n_state + i]);
    times_done(&t);
    return rc;
}

/* ---- Scan: once for each part of the sequences */

struct sequence {
    struct tensor t;
    int64_t axis;
    bool back;
};

/* Number `i` of the attribute, or `absent`. */
static int64_t listed(const struct node *n, const char *name, uint32_t i, int64_t absent)
{
    uint32_t len;
    const int64_t *list = node_ints(n, name, &len);

    return i < len ? list[i] : absent;
}

static int sequence_axis(const struct flow *f, struct sequence *q)
{
    if (q->t.dtype == DT_STRING)
        return err_set(f->err, -ENOTSUP, "sequences of strings are not supported");
    if (q->axis < -(int64_t)q->t.rank || q->axis >= (int64_t)q->t.rank)
        return err_set(f->err, -EINVAL, "axis %lld of a sequence of rank %u", (long long)q->axis,
                       q->t.rank);
    q->axis = q->axis < 0 ? q->axis + q->t.rank : q->axis;
    return 0;
}

/* Part i of a sequence, without its axis, copied. */
static int sequence_part(const struct sequence *q, int64_t i, struct arena *a, struct tensor *ret,
                         struct err *err)
{
    size_t n = (size_t)q->t.dims[q->axis], at = q->back ? n - 1 - (size_t)i : (size_t)i, outer = 1;
    int64_t dims[MAX_RANK];
    uint32_t rank = 0;

    for (uint32_t d = 0; d < q->t.rank; d++)
        if (d != q->axis)
            dims[rank++] = q->t.dims[d];
    (void)tensor_shape(ret, q->t.dtype, rank, dims);
    if (!(ret->data = run_alloc(a, ret->bytes, err)))
        return -ENOMEM;
    if (ret->bytes == 0)
        return 0;
    for (int64_t d = 0; d < q->axis; d++) /* of bytes that are there: no overflow */
        outer *= (size_t)q->t.dims[d];
    size_t block = ret->bytes / outer;
    for (size_t o = 0; o < outer; o++)
        memcpy((char *)ret->data + o * block, (const char *)q->t.data + (o * n + at) * block,
               block);
    return 0;
}

static int scan_times(struct times *t, const struct sequence *q, uint32_t n_seq, int64_t n)
{
    struct tensor in[MAX_IO];
    int rc = 0;

    for (int64_t i = 0; rc == 0 && i < n; i++) {
        struct arena work;
        memcpy(in, t->state, t->n_state * sizeof(*in));
        side_arena(&work, t);
        for (uint32_t k = 0; rc == 0 && k < n_seq; k++)
            rc = sequence_part(&q[k], i, &work, &in[t->n_state + k], t->f->err);
        if (rc == 0)
            rc = once(t, in, &work, NULL);
        arena_done(&work);
    }
    return rc;
}

struct scan {
    uint32_t first; /* input of the node where the carried values begin */
    uint32_t n_state, n_seq, n_out;
    const struct body *body;
    struct tensor state[MAX_IO];
    struct sequence seq[MAX_IO];
};

static int scan_read(const struct flow *f, struct scan *s)
{
    const struct node *n = f->n;
    int64_t n_seq = node_int(n, "num_scan_inputs", 0);
    int rc;

    s->first = n->opset < 9 ? 1 : 0; /* before: the lengths of the sequences */
    if (n_seq < 1 || n_seq > MAX_IO || s->first + n_seq > n->n_own)
        return err_set(f->err, -EINVAL, "num_scan_inputs is %lld, of %u inputs", (long long)n_seq,
                       n->n_own);
    s->n_seq = (uint32_t)n_seq;
    s->n_state = n->n_own - s->first - s->n_seq;
    s->n_out = n->n_out - MIN(s->n_state, n->n_out);
    if (s->n_state > n->n_out)
        return err_set(f->err, -EINVAL, "%u carried values, but %u outputs", s->n_state, n->n_out);
    if (!(s->body = body_of(f, "body")))
        return f->err->code;
    if ((rc = body_check(f, s->body, s->n_state + s->n_seq, s->n_state + s->n_out)) < 0 ||
        (rc = gather_inputs(f, s->first, s->n_state, s->state)) < 0)
        return rc;
    for (uint32_t k = 0; rc == 0 && k < s->n_seq; k++) {
        struct sequence *q = &s->seq[k];
        rc = gather_inputs(f, s->first + s->n_state + k, 1, &q->t);
        q->axis = n->opset < 9 ? 1 : listed(n, "scan_input_axes", k, 0);
        q->back = listed(n, n->opset < 9 ? "directions" : "scan_input_directions", k, 0) != 0;
        if (rc == 0)
            rc = sequence_axis(f, q);
        if (rc == 0 && q->t.dims[q->axis] != s->seq[0].t.dims[s->seq[0].axis])
            return err_set(f->err, -EINVAL, "sequences of %lld and of %lld parts",
                           (long long)s->seq[0].t.dims[s->seq[0].axis],
                           (long long)q->t.dims[q->axis]);
    }
    return rc;
}

static int scan_all(struct flow *f, struct scan *s)
{
    struct pile pile[MAX_IO] = {0};
    struct times t = {.f = f,
                      .body = s->body,
                      .n_state = s->n_state,
                      .n_pile = s->n_out,
                      .state = s->state,
                      .pile = pile};

    times_init(&t);
    int rc = scan_times(&t, s->seq, s->n_seq, s->seq[0].t.dims[s->seq[0].axis]);
    if (rc == 0)
        rc = give_state(&t, f->r->arena, f->out);
    for (uint32_t i = 0; rc == 0 && i < t.n_pile; i++)
        rc = give_pile(&t, i, listed(f->n, "scan_output_axes", i, 0),
                       listed(f->n, "scan_output_directions", i, 0) != 0, f->r->arena,
                       &f->out[t.n_state + i]);
    times_done(&t);
    return rc;
}

/* ---- Scan of opset 8: the same for each row of a batch, the first dimension of everything */

/* Row b, as a view. */
static int batch_row(const struct flow *f, const struct tensor *t, int64_t b, int64_t n_rows,
                     struct tensor *ret)
{
    if (t->rank < 1 || t->dims[0] != n_rows || t->dtype == DT_STRING)
        return err_set(f->err, -EINVAL, "an input has no dimension for the batch of %lld",
                       (long long)n_rows);
    (void)tensor_shape(ret, t->dtype, t->rank - 1, t->dims + 1);
    ret->data = (char *)t->data + (size_t)b * ret->bytes;
    return 0;
}

static int batch_length(const struct flow *f, int64_t b, int64_t n_rows, int64_t max, int64_t *ret)
{
    const struct tensor *t = f->in[0];

    *ret = max;
    if (!t)
        return 0;
    if (t->dtype != DT_INT64 || t->bytes != (size_t)n_rows * sizeof(*ret))
        return err_set(f->err, -EINVAL, "its sequence_lens is not one INT64 for each row");
    memcpy(ret, (const char *)t->data + (size_t)b * sizeof(*ret), sizeof(*ret));
    if (*ret < 0 || *ret > max)
        return err_set(f->err, -EINVAL, "a sequence of length %lld (0 to %lld)", (long long)*ret,
                       (long long)max);
    return 0;
}

/* Row b of all results, appended to rows[]. */
static int scan_row(struct flow *f, const struct scan *s, int64_t b, struct times *rows)
{
    struct tensor state[MAX_IO], joined;
    struct pile pile[MAX_IO] = {0};
    struct sequence seq[MAX_IO];
    struct times t = {.f = f,
                      .body = s->body,
                      .n_state = s->n_state,
                      .n_pile = s->n_out,
                      .state = state,
                      .pile = pile,
                      .around = rows};
    int64_t n_rows = s->seq[0].t.dims[0], max = s->seq[0].t.dims[1], n = 0;
    struct arena work;
    int rc = spend_one(f);

    if (rc == 0)
        rc = batch_length(f, b, n_rows, max, &n);

    for (uint32_t i = 0; rc == 0 && i < s->n_state; i++)
        rc = batch_row(f, &s->state[i], b, n_rows, &state[i]);
    for (uint32_t i = 0; rc == 0 && i < s->n_seq; i++) {
        seq[i] = s->seq[i];
        seq[i].axis = 0;
        rc = batch_row(f, &s->seq[i].t, b, n_rows, &seq[i].t);
    }
    times_init(&t);
    side_arena(&work, &t);
    if (rc == 0)
        rc = scan_times(&t, seq, s->n_seq, n);
    for (uint32_t i = 0; rc == 0 && i < s->n_state; i++)
        rc = pile_add(&rows->pile[i], &state[i], bytes_left(&t), f->err);
    for (uint32_t i = 0; rc == 0 && i < s->n_out; i++) {
        if (pile[i].n > 0)
            rc = pile_fill(&pile[i], max, bytes_left(&t), f->err);
        if (rc == 0)
            rc = give_pile(&t, i, 0, false, &work, &joined);
        if (rc == 0)
            rc = pile_add(&rows->pile[s->n_state + i], &joined, bytes_left(&t), f->err);
    }
    times_done(&t);
    arena_done(&work);
    return rc;
}

static int scan_batch(struct flow *f, struct scan *s)
{
    struct pile pile[2 * MAX_IO] = {0};
    struct times rows = {.f = f, .body = s->body, .n_pile = s->n_state + s->n_out, .pile = pile};
    int64_t n_rows = s->seq[0].t.dims[0];
    int rc = 0;

    times_init(&rows);
    for (int64_t b = 0; rc == 0 && b < n_rows; b++)
        rc = scan_row(f, s, b, &rows);
    if (rc == 0 && n_rows == 0)
        rc = err_set(f->err, -ENOTSUP, "a batch of no rows is not supported");
    for (uint32_t i = 0; rc == 0 && i < rows.n_pile; i++)
        rc = pile_give(&pile[i], 0, false, f->r->arena, &f->out[i], f->err);
    times_done(&rows);
    return rc;
}

static int run_scan(struct flow *f)
{
    struct scan *s = run_alloc(f->r->arena, sizeof(*s), f->err);
    int rc = s ? scan_read(f, s) : -ENOMEM;

    if (rc < 0)
        return rc;
    return f->n->opset < 9 ? scan_batch(f, s) : scan_all(f, s);
}

flow_fn *flow_find(enum op_id op)
{
    switch (op) {
    case OP_If:
        return run_if;
    case OP_Loop:
        return run_loop;
    case OP_Scan:
        return run_scan;
    default:
        return NULL;
    }
}
