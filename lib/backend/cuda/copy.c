/* Rows of requests to the device, and results back.
 *
 * Where another run is under way on the run's stream, copies that take longer than it takes two
 * streams to meet are on streams of their own: inputs travel while the other one computes, and
 * results while the next one does.  All others are on the run's stream, in front of it and behind.
 * They are never in a captured graph: addresses of requests change. */
#include "slot.h"

/* The least that an H200 was asked about, and it was worth it: behind runs of 50 us another 54.3 us
 * instead of 62.6, of 256 KiB 54.4 instead of 66.8 (adr/0024). */
#define APART_BYTES ((size_t)16 << 10)
#define LINK_BYTES_PER_US 55000 /* of an H200's (adr/0024) */

static size_t bytes_of(const struct port *port, const struct io_part *part)
{
    return port->row_bytes ? part->rows * port->row_bytes : port->bytes;
}

/* Without a batch dimension an input is the same for all: the first request's. */
static uint32_t parts_in(const struct port *in, const struct io *io)
{
    return in->row_bytes ? io->n_parts : 1;
}

/* Rows beyond those of the requests are zero: an index there must not point outside. */
static int copy_in(struct slot *s, const struct port *in, uint32_t i, const struct io *io,
                   CUstream stream, struct err *err)
{
    CUdeviceptr to = slot_address(s, &in->ref);
    size_t at = 0;
    int r = 0;

    for (uint32_t k = 0; io && k < parts_in(in, io) && r == 0; k++) {
        size_t n = bytes_of(in, &io->part[k]);
        if (n)
            r = GPU(copy_in_async(to + at, io->part[k].in[i], n, stream), err);
        at += n;
    }
    if (r == 0 && at < in->bytes)
        r = GPU(zero_async(to + at, 0, in->bytes - at, stream), err);
    return r;
}

static int copy_out(struct slot *s, const struct port *out, uint32_t i, const struct io *io,
                    CUstream stream, struct err *err)
{
    CUdeviceptr from = slot_address(s, &out->ref);
    int r = 0;

    for (uint32_t k = 0; k < io->n_parts && r == 0; k++) {
        size_t n = bytes_of(out, &io->part[k]);
        if (n)
            r = GPU(copy_out_async(io->part[k].out[i], from, n, stream), err);
        from += out->row_bytes ? n : 0;
    }
    return r;
}

int inputs_copy(struct slot *s, const struct io *io, CUstream stream, struct err *err)
{
    const struct exe *x = s->exe;
    int r = 0;

    for (uint32_t i = 0; i < x->n_in && r == 0; i++)
        r = copy_in(s, &x->in[i], i, io, stream, err);
    return r;
}

int outputs_copy(struct slot *s, const struct io *io, CUstream stream, struct err *err)
{
    const struct exe *x = s->exe;
    int r = 0;

    if (s->tail)
        return late_fetch(s, stream, err);
    for (uint32_t i = 0; io && i < x->n_out && r == 0; i++)
        r = copy_out(s, &x->out[i], i, io, stream, err);
    return r;
}

usec_t inputs_us(const struct exe *x)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < x->n_in; i++)
        bytes += x->in[i].bytes;
    return bytes >= APART_BYTES ? bytes / LINK_BYTES_PER_US : 0;
}

bool is_behind(const struct slot *s)
{
    return s->follows || s->line->n_out > 0;
}

static bool worth(const struct slot *s, size_t bytes)
{
    /* In this order: what is no request's, which has no bytes, may be the builder's. */
    return bytes >= APART_BYTES && is_behind(s);
}

bool inputs_apart(const struct slot *s, const struct io *io)
{
    const struct exe *x = s->exe;
    size_t bytes = 0;

    for (uint32_t i = 0; io && i < x->n_in; i++)
        for (uint32_t k = 0; k < parts_in(&x->in[i], io); k++)
            bytes += bytes_of(&x->in[i], &io->part[k]);
    return worth(s, bytes);
}

static bool outputs_apart(const struct slot *s, const struct io *io)
{
    const struct exe *x = s->exe;
    size_t bytes = 0;

    for (uint32_t i = 0; io && i < x->n_out; i++)
        for (uint32_t k = 0; k < io->n_parts; k++)
            bytes += bytes_of(&x->out[i], &io->part[k]);
    return worth(s, bytes);
}

/* The slot is nobody's: nothing has to be waited for in front of its inputs. */
int inputs_ahead(struct slot *s, const struct io *io, struct err *err)
{
    CUstream in = s->exe->part->in;
    int r = GPU(event_record(s->event[EVENT_IN], in), err);

    if (r == 0)
        r = inputs_copy(s, io, in, err);
    if (r == 0)
        r = GPU(event_record(s->event[EVENT_THERE], in), err);
    return r < 0 ? r : GPU(stream_wait_event(s->line->stream, s->event[EVENT_THERE], 0), err);
}

int outputs_behind(struct slot *s, const struct io *io, CUstream *ret, struct err *err)
{
    struct line *line = s->line;
    int r = 0;

    *ret = line->stream;
    if (outputs_apart(s, io)) {
        *ret = line->out;
        r = GPU(event_record(s->event[EVENT_COMPUTED], line->stream), err);
        if (r == 0)
            r = GPU(stream_wait_event(line->out, s->event[EVENT_COMPUTED], 0), err);
    }
    return r < 0 ? r : outputs_copy(s, io, *ret, err);
}
