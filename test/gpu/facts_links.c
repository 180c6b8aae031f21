/* What goes between host and device in a second, by the ways there are. */
#include "facts.h"
#include "facts_driver.h"

#include <stdio.h>

#define BYTES ((size_t)64 << 20)
#define TRIES 10
#define BLOCKS_PER_SM 8

struct ends {
    void *pageable, *pinned;
    CUdeviceptr mapped, device, other;
};

static int ends_open(struct ends *e, struct err *err)
{
    *e = (struct ends){.pageable = malloc(BYTES)};
    int r = e->pageable ? 0 : err_set(err, -ENOMEM, "out of memory");

    if (r == 0) {
        memset(e->pageable, 1, BYTES);
        r = GPU(host_alloc(&e->pinned, BYTES, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP),
                err);
    }
    if (r == 0)
        r = MORE(host_pointer(&e->mapped, e->pinned, 0), err);
    if (r == 0)
        r = GPU(mem_alloc(&e->device, BYTES), err);
    return r < 0 ? r : GPU(mem_alloc(&e->other, BYTES), err);
}

static void ends_close(struct ends *e)
{
    if (e->other)
        (void)cu.mem_free(e->other);
    if (e->device)
        (void)cu.mem_free(e->device);
    if (e->pinned)
        (void)cu.host_free(e->pinned);
    free(e->pageable);
}

enum way { TO_PAGEABLE, FROM_PAGEABLE, TO_PINNED, FROM_PINNED, WITHIN, READ, WRITE, N_WAYS };
static const char *const names[] = {
    "copy to the device, pageable memory",
    "copy from the device, pageable memory",
    "copy to the device, pinned memory",
    "copy from the device, pinned memory",
    "copy within the device",
    "a kernel reads the host's memory",
    "a kernel writes the host's memory",
};

static int go(enum way way, const struct ends *e, const struct let *l, const struct code *c,
              struct err *err)
{
    struct haul_args read = {.x = (void *)e->mapped, .y = (void *)e->device, .n = BYTES / 16};
    struct haul_args write = {.x = (void *)e->device, .y = (void *)e->mapped, .n = BYTES / 16};

    switch (way) {
    case TO_PAGEABLE:
        return GPU(copy_in_async(e->device, e->pageable, BYTES, l->stream), err);
    case FROM_PAGEABLE:
        return GPU(copy_out_async(e->pageable, e->device, BYTES, l->stream), err);
    case TO_PINNED:
        return GPU(copy_in_async(e->device, e->pinned, BYTES, l->stream), err);
    case FROM_PINNED:
        return GPU(copy_out_async(e->pinned, e->device, BYTES, l->stream), err);
    case WITHIN:
        return MORE(copy_within(e->other, e->device, BYTES, l->stream), err);
    default:
        return code_run(c->haul, l->sms * BLOCKS_PER_SM, way == READ ? &read : &write, l->stream,
                        err);
    }
}

static int one(enum way way, const struct ends *e, const struct let *l, const struct code *c,
               CUevent *ev, struct err *err)
{
    double rate[TRIES];
    float ms = 0;
    int r = go(way, e, l, c, err); /* once unmeasured */

    for (unsigned i = 0; i < TRIES && r == 0; i++) {
        r = GPU(event_record(ev[0], l->stream), err);
        if (r == 0)
            r = go(way, e, l, c, err);
        if (r == 0)
            r = GPU(event_record(ev[1], l->stream), err);
        if (r == 0)
            r = GPU(stream_wait(l->stream), err);
        if (r == 0)
            r = GPU(event_elapsed(&ms, ev[0], ev[1]), err);
        rate[i] = ms > 0 ? (double)BYTES / 1e6 / (double)ms : 0;
    }
    if (r == 0)
        fact_values(names[way], "GB/s", rate, TRIES);
    return r;
}

int facts_links(struct err *err)
{
    CUevent ev[2] = {NULL, NULL};
    struct let whole = {0};
    struct code c = {0};
    struct ends e;
    int r = ends_open(&e, err);

    if (r == 0)
        r = let_open(&whole, NULL, err);
    if (r == 0)
        r = code_open(&c, err);
    for (unsigned i = 0; i < 2 && r == 0; i++)
        r = GPU(event_create(&ev[i], CU_EVENT_DEFAULT), err);
    for (enum way way = 0; way < N_WAYS && r == 0; way++)
        r = one(way, &e, &whole, &c, ev, err);
    for (unsigned i = 0; i < 2; i++)
        if (ev[i])
            (void)cu.event_destroy(ev[i]);
    let_close(&whole);
    code_close(&c);
    ends_close(&e);
    return r;
}
