/* The late part of a run: what only data can tell, on the host.
 *
 * Behind the last launch what it reads is copied to memory of the slot's.  When that has ended, a
 * thread of the partition's runs the late nodes, by the cpu backend's kernels (host_late), and then
 * the run has ended.  Meanwhile the device and the executor are free for other runs.  A run at a
 * time: late nodes of a partition wait for each other.  The thread is there as long as a slot that
 * may need it, so that no run makes one. */
#include "slot.h"

#include <gpulet/clock.h>

struct tail {
    char *memory; /* pinned: what late nodes read, and outputs that are not late */
    void **ptr;   /* by late.in: where that is */
    struct late_slot late;
    struct err why;
    int rc; /* of the last run */
    uint64_t ns;
};

struct tails {
    pthread_t thread;
    unsigned n;         /* slots with a late part; builder */
    struct slot *first; /* under the partition's lock: runs to be ended, oldest first */
    bool quit;          /* the same */
};

/* ---- slots */
static int tail_take(struct slot *s, struct err *err)
{
    const struct exe *x = s->exe;
    struct tail *t = s->tail;

    t->ptr = calloc(x->late.n_in + 1, sizeof(*t->ptr));
    t->late.value = calloc(x->late.bound->graph->n_values, sizeof(*t->late.value));
    if (!t->ptr || !t->late.value || gpu_late->reserve(&x->late, &t->late) < 0)
        return err_set(err, -ENOMEM, "out of memory");
    int r = GPU(host_alloc((void **)&t->memory, MAX(x->staged_bytes, 1), 0), err);
    for (uint32_t i = 0; i < x->late.n_in && r == 0; i++) {
        const struct port *p = &x->late_in[i];
        t->ptr[i] = p->ref.kind == REF_NONE ? x->late.bound->value[x->late.in[i]].data
                                            : t->memory + p->staged;
    }
    return r;
}

int late_open(struct slot *s, struct err *err)
{
    if (!s->exe->late.bound)
        return 0;
    s->tail = calloc(1, sizeof(*s->tail));
    return s->tail ? tail_take(s, err) : err_set(err, -ENOMEM, "out of memory");
}

void late_close(struct slot *s)
{
    struct tail *t = s->tail;

    if (!t)
        return;
    gpu_late->forget(&t->late);
    if (t->memory)
        (void)cu.host_free(t->memory);
    free(t->late.value);
    free(t->ptr);
    free(t);
}

/* ---- a run */
static int fetch(struct slot *s, const struct port *p, CUstream stream, struct err *err)
{
    return p->ref.kind == REF_NONE || p->bytes == 0
               ? 0
               : GPU(copy_out_async(s->tail->memory + p->staged, slot_address(s, &p->ref), p->bytes,
                                    stream),
                     err);
}

int late_fetch(struct slot *s, CUstream stream, struct err *err)
{
    const struct exe *x = s->exe;
    int r = 0;

    for (uint32_t i = 0; i < x->late.n_in && r == 0; i++)
        r = fetch(s, &x->late_in[i], stream, err);
    for (uint32_t i = 0; i < x->n_out && r == 0; i++)
        r = fetch(s, &x->out[i], stream, err);
    return r;
}

void late_run(struct slot *s)
{
    struct tail *t = s->tail;
    uint64_t start = clock_now_ns();

    t->why = (struct err){0};
    t->rc = gpu_late->run(&s->exe->late, &t->late, t->ptr, s->exe->part->dev->run_bytes, &t->why);
    t->ns = clock_now_ns() - start;
}

int late_result(const struct slot *s, uint64_t *ret_ns, const char **ret_why)
{
    const struct tail *t = s->tail;

    *ret_ns += t->ns;
    *ret_why = t->rc < 0 && t->why.code ? t->why.msg : NULL;
    return t->rc;
}

void gpu_outputs(const struct slot *s, struct tensor *ret)
{
    const struct exe *x = s->exe;
    const struct bound *b = x->late.bound;

    for (uint32_t i = 0; i < x->n_out; i++) {
        bool late = is_late_output(x, i);
        ret[i] = late ? s->tail->late.out[i] : b->value[b->graph->out[i]];
        if (!late)
            ret[i].data = s->tail->memory + x->out[i].staged;
    }
}

/* ---- the thread */
static struct slot *next_tail(struct part *p)
{
    (void)pthread_mutex_lock(&p->lock);
    while (!p->tails->first && !p->tails->quit)
        (void)pthread_cond_wait(&p->wake, &p->lock);
    struct slot *s = p->tails->first;
    if (s)
        p->tails->first = s->next;
    (void)pthread_mutex_unlock(&p->lock);
    return s;
}

static void *tails_main(void *arg)
{
    struct part *p = arg;
    struct slot *s;

    while ((s = next_tail(p))) {
        late_run(s);
        (void)pthread_mutex_lock(&p->lock);
        s->next = NULL;
        slot_finished(s);
        (void)pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

static int thread_start(struct part *p, pthread_t *ret)
{
    const struct device *dev = p->dev;

    return dev->thread ? dev->thread(dev->thread_ctx, ret, tails_main, p)
                       : -pthread_create(ret, NULL, tails_main, p);
}

static int tails_make(struct part *p, struct err *err)
{
    struct tails *t = calloc(1, sizeof(*t));

    if (!t)
        return err_set(err, -ENOMEM, "out of memory");
    p->tails = t; /* the thread looks at it */
    int r = thread_start(p, &t->thread);
    if (r == 0)
        return 0;
    p->tails = NULL;
    free(t);
    return err_set(err, r, "no thread for what the host does at the end: %s", strerror(-r));
}

int tails_open(struct slot *s, struct err *err)
{
    struct part *p = s->exe->part;

    if (!s->exe->late.bound)
        return 0;
    int r = p->tails ? 0 : tails_make(p, err);
    if (r < 0)
        return r;
    p->tails->n++;
    s->tailed = true;
    return 0;
}

void tails_add(struct slot *s)
{
    struct slot **at = &s->exe->part->tails->first;

    while (*at)
        at = &(*at)->next;
    *at = s;
}

void tails_close(struct slot *s)
{
    struct part *p = s->exe->part;

    if (!s->tailed || --p->tails->n > 0)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->tails->quit = true;
    (void)pthread_cond_broadcast(&p->wake);
    (void)pthread_mutex_unlock(&p->lock);
    (void)pthread_join(p->tails->thread, NULL);
    free(TAKE(p->tails));
}
