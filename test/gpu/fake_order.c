/* Who may touch what when.
 *
 * The fake does everything when it is asked to, so a wait that is missing would change no result.
 * Each stream counts what is put on it and knows how much of every other stream is behind it: what
 * an event brought, which is recorded on one and waited for on another.  What was put on a stream
 * is remembered with the memory that it touches until the host has seen its end; if something on
 * another stream touches the same, one of them writing, and does not have it behind it, a rule is
 * broken. */
#include "fake_inside.h"

#include <stdlib.h>
#include <string.h>

struct touch {
    int stream;
    uint64_t turn;
    const char *from, *to;
    bool writes;
};
struct memory {
    const char *from, *to;
};

static struct order behind[ORDER_STREAMS]; /* by stream; its own: how much was put on it */
static bool taken[ORDER_STREAMS];
static struct touch *touched;
static struct memory *memory;
static size_t n_touched, cap_touched, n_memory, cap_memory;

static void *room(void *array, size_t n, size_t *cap, size_t each)
{
    if (n < *cap)
        return array;
    *cap = *cap ? 2 * *cap : 64;
    void *more = realloc(array, *cap * each);
    if (!more)
        abort();
    return more;
}

int order_stream_new(void)
{
    for (int i = 0; i < ORDER_STREAMS; i++)
        if (!taken[i]) {
            taken[i] = true;
            return i;
        }
    return -1;
}

/* Its turns go on with the next stream that gets the place. */
void order_stream_end(int stream)
{
    struct order all = {{0}};

    if (stream < 0)
        return;
    taken[stream] = false;
    all.upto[stream] = UINT64_MAX;
    order_done(&all);
}

static void touch(int stream, const char *from, const char *to, bool writes)
{
    for (size_t i = 0; i < n_touched; i++) {
        const struct touch *t = &touched[i];
        if (t->from < to && from < t->to && (writes || t->writes) &&
            behind[stream].upto[t->stream] < t->turn)
            fake_broken("what two streams touch is ordered");
    }
    touched = room(touched, n_touched, &cap_touched, sizeof(*touched));
    touched[n_touched++] = (struct touch){stream, behind[stream].upto[stream], from, to, writes};
}

void order_touch(int stream, const void *at, size_t bytes, bool writes)
{
    if (stream < 0)
        return;
    behind[stream].upto[stream]++;
    touch(stream, at, (const char *)at + bytes, writes);
}

void order_kernel(int stream, const void *args, size_t bytes)
{
    const char *at;

    if (stream < 0)
        return;
    behind[stream].upto[stream]++;
    for (size_t i = 0; i < n_memory; i++)
        for (size_t k = 0; k + sizeof(at) <= bytes; k += sizeof(at)) {
            memcpy(&at, (const char *)args + k, sizeof(at));
            if (at >= memory[i].from && at < memory[i].to) {
                touch(stream, memory[i].from, memory[i].to, true);
                break;
            }
        }
}

void order_memory(const void *at, size_t bytes)
{
    memory = room(memory, n_memory, &cap_memory, sizeof(*memory));
    memory[n_memory++] = (struct memory){at, (const char *)at + bytes};
}

/* Freed under what still touches it. */
void order_memory_end(const void *at)
{
    size_t i = 0;

    while (i < n_memory && memory[i].from != at)
        i++;
    if (i == n_memory)
        return;
    for (size_t k = 0; k < n_touched; k++)
        if (touched[k].from < memory[i].to && memory[i].from < touched[k].to)
            fake_broken("memory is freed when nothing touches it any more");
    memory[i] = memory[--n_memory];
}

void order_now(int stream, struct order *ret)
{
    if (stream >= 0)
        *ret = behind[stream];
    else
        memset(ret, 0, sizeof(*ret));
}

void order_after(int stream, const struct order *o)
{
    for (int i = 0; i < ORDER_STREAMS && stream >= 0; i++)
        if (i != stream && behind[stream].upto[i] < o->upto[i])
            behind[stream].upto[i] = o->upto[i];
}

void order_done(const struct order *o)
{
    size_t n = 0;

    for (size_t i = 0; i < n_touched; i++)
        if (touched[i].turn > o->upto[touched[i].stream])
            touched[n++] = touched[i];
    n_touched = n;
}
