/* The reference's plain loops as a kernel: for operators of which no speed is claimed, and for
 * element types and attributes that the fast kernels lack.  Such calls say so (cpu_call.plain), and
 * whoever plans them counts them. */
#include "kit.h"
#include <kernels/ref/ref.h>

#define FEW 16 /* arguments whose tensors lie on the stack */

struct plain {
    struct node node;       /* without its post steps: those are calls of their own */
    const struct tensor *t; /* inputs, then outputs; DT_NONE: omitted */
};

static int run(const struct plain *p, struct tensor *t, const struct tensor **at, void *const *ptr,
               struct err *err)
{
    const struct node *n = &p->node;
    uint32_t all = n->n_in + n->n_out;

    for (uint32_t i = 0; i < all; i++) {
        t[i] = p->t[i];
        t[i].data = ptr[i];
        at[i] = t[i].dtype == DT_NONE ? NULL : &t[i];
    }
    return ref_run(n, at, NULL, (struct tensor *const *)(at + n->n_in), err);
}

static int run_plain_err(const void *params, void *const *ptr, struct err *err)
{
    const struct plain *p = params;
    uint32_t all = p->node.n_in + p->node.n_out;
    struct tensor few[FEW];
    const struct tensor *few_at[FEW];

    if (all <= FEW)
        return run(p, few, few_at, ptr, err);
    AUTO(free) struct tensor *many = calloc(all, sizeof(*many));
    AUTO(free) const struct tensor **at = calloc(all, sizeof(*at));
    return many && at ? run(p, many, at, ptr, err) : err_set(err, -ENOMEM, "out of memory");
}

static int run_plain(const void *params, void *const *ptr)
{
    return run_plain_err(params, ptr, NULL);
}

static int no_memory(struct err *err)
{
    return err_set(err, -ENOMEM, "out of memory");
}

int plan_plain(const struct cpu_args *a, struct cpu_call *ret, struct err *err)
{
    const struct node *n = a->node;
    struct plain p = {.node = *n};
    struct tensor *t = ARENA_ARRAY(a->arena, struct tensor, n->n_in + n->n_out);

    if (!ref_find(n->op))
        return plan_fail(a, -ENOTSUP, "not supported by the cpu backend", err);
    if (!t)
        return no_memory(err);
    for (uint32_t i = 0; i < n->n_in; i++)
        if (a->in[i])
            t[i] = *a->in[i];
    for (uint32_t i = 0; i < n->n_out; i++)
        if (a->out[i])
            t[n->n_in + i] = *a->out[i];
    p.node.n_post = 0;
    p.t = t;
    ret->plain = run_plain_err;
    return plan_done(a, run_plain, &p, sizeof(p), ret, err);
}

/* ---- one post step in place */

struct plain_post {
    struct node node; /* nothing but the step, and a name for messages */
    struct tensor y;
};

static int run_plain_post_err(const void *params, void *const *ptr, struct err *err)
{
    const struct plain_post *p = params;
    struct tensor y = p->y, operand = p->y;
    const struct tensor *add = &operand;

    y.data = ptr[0];
    operand.data = ptr[1];
    return ref_post(&p->node, &add, &y, err);
}

static int run_plain_post(const void *params, void *const *ptr)
{
    return run_plain_post_err(params, ptr, NULL);
}

int plan_plain_post(const struct post *step, const struct tensor *y, struct arena *arena,
                    struct cpu_call *ret)
{
    struct plain_post p = {.node = {.name = "", .n_post = 1, .post = {*step}}, .y = *y};

    *ret = (struct cpu_call){.run = run_plain_post, .plain = run_plain_post_err};
    ret->params = arena_memdup(arena, &p, sizeof(p));
    return ret->params ? 0 : -ENOMEM;
}
