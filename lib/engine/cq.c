/* Completion queues: a list under a mutex and an eventfd.
 *
 * The eventfd is written inside the lock, once per non-empty transition.  That is deliberate: as
 * soon as the consumer has an item it may decide that it was the last and free the queue, so a
 * producer must be done with the queue when the item becomes visible.  The write never blocks
 * (the counter is at most 1). */
#include <gpulet/request.h>

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct cq {
    int fd;
    pthread_mutex_t lock;
    struct cq_item *head, *tail; /* under lock */
};

int cq_new(struct cq **ret)
{
    struct cq *q = calloc(1, sizeof(*q));

    if (!q)
        return -ENOMEM;
    q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->fd < 0) {
        int r = -errno;
        free(q);
        return r;
    }
    (void)pthread_mutex_init(&q->lock, NULL);
    *ret = q;
    return 0;
}

void cq_free(struct cq *q)
{
    if (!q)
        return;
    (void)pthread_mutex_lock(&q->lock); /* the last producer has left */
    assert(!q->head);
    (void)pthread_mutex_unlock(&q->lock);
    (void)pthread_mutex_destroy(&q->lock);
    (void)close(q->fd);
    free(q);
}

int cq_fd(const struct cq *q)
{
    return q->fd;
}

void cq_push(struct cq *q, struct cq_item *item)
{
    item->next = NULL;
    (void)pthread_mutex_lock(&q->lock);
    if (q->head) {
        q->tail->next = item;
    } else {
        q->head = item;
        (void)eventfd_write(q->fd, 1);
    }
    q->tail = item;
    (void)pthread_mutex_unlock(&q->lock);
}

struct cq_item *cq_take(struct cq *q)
{
    eventfd_t n;

    (void)pthread_mutex_lock(&q->lock);
    struct cq_item *first = q->head;
    q->head = q->tail = NULL;
    if (first)
        (void)eventfd_read(q->fd, &n);
    (void)pthread_mutex_unlock(&q->lock);
    return first;
}

void request_init(struct request *r)
{
    memset(r, 0, offsetof(struct request, in));
}

void request_done(struct request *r)
{
    slab_put(r->in_slab);
    slab_put(r->out_slab);
    request_init(r);
}
