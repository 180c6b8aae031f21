/* What a run answers: computed from each row's own input bytes, so that a reply given to the wrong
 * client fails a test.  Every element of an output is seeded with the CRC of the row; models that
 * echo repeat the row's bytes. */
#include "device.h"

#include <zlib.h>

static uint64_t mix(uint64_t x) /* splitmix64's finaliser: every bit of x reaches every bit */
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Element k of a row whose CRC is seed: floats are k-th multiples of 1/65536 in [0, 1). */
static void put_element(enum dtype t, void *at, uint64_t seed, size_t k)
{
    uint64_t u = mix(seed + k * UINT64_C(0x9e3779b97f4a7c15)) >> 48;
    float f = (float)u / 65536.0f;
    double d = f;

    switch (t) {
    case DT_FP32:
        memcpy(at, &f, sizeof(f));
        break;
    case DT_FP64:
        memcpy(at, &d, sizeof(d));
        break;
    case DT_BOOL:
        *(uint8_t *)at = u & 1;
        break;
    case DT_FP16:
    case DT_BF16:
        u &= 0x3bff; /* a finite number below one */
        memcpy(at, &u, 2);
        break;
    default: /* integers of any size: 0..127 */
        u &= 0x7f;
        memcpy(at, &u, dtype_size(t));
        break;
    }
}

/* One row of one request: its input bytes are in[i] + row * bytes-per-row. */
static void answer_row(const struct exe *x, const struct io_part *p, uint32_t row)
{
    const struct graph *g = x->bound->graph;
    uint32_t n = x->n_batch;
    uint64_t crc = crc32(0, NULL, 0);

    if (x->model && x->model->echo) {
        size_t in = x->bound->value[g->in[0]].bytes / n;
        const char *from = (const char *)p->in[0] + in * row;
        for (uint32_t j = 0; j < g->n_out; j++) {
            size_t out = x->bound->value[g->out[j]].bytes / n;
            for (size_t at = 0; in && at < out; at += in)
                memcpy((char *)p->out[j] + out * row + at, from, MIN(in, out - at));
        }
        return;
    }
    for (uint32_t i = 0; i < g->n_in; i++) {
        size_t bytes = x->bound->value[g->in[i]].bytes / n;
        crc = crc32_z(crc, (const Bytef *)p->in[i] + bytes * row, bytes);
    }
    for (uint32_t j = 0; j < g->n_out; j++) {
        const struct tensor *t = &x->bound->value[g->out[j]];
        size_t bytes = t->bytes / n, each = dtype_size(t->dtype);
        for (size_t k = 0; k < bytes / each; k++)
            put_element(t->dtype, (char *)p->out[j] + bytes * row + k * each, crc + j, k);
    }
}

void answer(const struct exe *x, const struct io *io)
{
    for (uint32_t i = 0; i < io->n_parts; i++)
        for (uint32_t row = 0; row < io->part[i].rows; row++)
            answer_row(x, &io->part[i], row);
}
