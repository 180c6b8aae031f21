/* Inputs made up from a seed: the same everywhere, as no function of the C library's is in them.
 *
 * Floats are as those of a normalised image or of an activation: bell-shaped, mean 0, deviation 1,
 * none beyond 3.5.  Bytes are any (pixels).  Other integers are 0 or 1 (masks, segments) unless
 * they choose rows of a constant table, straight or through what only moves them: any row then. */
#include <gpulet/model.h>

/* splitmix64: https://prng.di.unimi.it/splitmix64.c */
static uint64_t mixed(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* The sum of four numbers in [0, 1) has mean 2 and variance 1/3. */
static double bell(uint64_t x)
{
    double sum = 0;

    for (unsigned i = 0; i < 4; i++)
        sum += (double)(x >> 16 * i & 0xffff) / 65536;
    return (sum - 2) * 1.7320508075688772;
}

/* Of 16 bits, `mantissa` of them so called: of either sign, 0.25 to 2. */
static uint16_t short_float(uint64_t x, unsigned mantissa, unsigned exponent_of_1)
{
    unsigned exponent = exponent_of_1 - 2 + (unsigned)(x >> 32) % 3;

    return (uint16_t)((x & 0x8000) | exponent << mantissa | (x >> 16 & ((1u << mantissa) - 1)));
}

static void float_put(enum dtype t, uint64_t x, void *to)
{
    double d = bell(x);
    float f = (float)d;
    uint16_t h = t == DT_FP16 ? short_float(x, 10, 15) : short_float(x, 7, 127);

    if (t == DT_FP64)
        memcpy(to, &d, sizeof(d));
    else if (t == DT_FP32)
        memcpy(to, &f, sizeof(f));
    else
        memcpy(to, &h, sizeof(h));
}

static bool moves_only(enum op_id op)
{
    return op == OP_Cast || op == OP_Identity || op == OP_Reshape || op == OP_Flatten ||
           op == OP_Squeeze || op == OP_Unsqueeze || op == OP_Transpose;
}

static bool is_among(const bool *set, const struct node *n, uint32_t i)
{
    return i < n->n_in && n->in[i] != VALUE_NONE && set[n->in[i]];
}

/* The smallest table that the input chooses from; 0: it chooses from none that is constant. */
static uint64_t table_rows(const struct bound *b, uint32_t input, bool *same)
{
    const struct graph *g = b->graph;
    uint64_t least = 0;

    memset(same, 0, g->n_values * sizeof(*same));
    same[input] = true;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        if (moves_only(n->op) && is_among(same, n, 0) && n->out[0] != VALUE_NONE)
            same[n->out[0]] = true;
        if (n->op != OP_Gather || !is_among(same, n, 1) || !g->values[n->in[0]].constant)
            continue;
        const struct tensor *t = &g->values[n->in[0]].constant->t;
        int64_t axis = node_int(n, "axis", 0);
        axis += axis < 0 ? t->rank : 0;
        if (axis >= 0 && axis < t->rank && t->dims[axis] > 0)
            least = least ? MIN(least, (uint64_t)t->dims[axis]) : (uint64_t)t->dims[axis];
    }
    return least;
}

/* How many values an input of integers has. */
static uint64_t values_of(const struct bound *b, uint32_t input, bool *same)
{
    enum dtype t = b->value[input].dtype;
    uint64_t rows = table_rows(b, input, same);

    if (rows)
        return MIN(rows, t == DT_INT8 ? 128 : t == DT_UINT8 ? 256 : UINT64_MAX);
    return t == DT_INT8 || t == DT_UINT8 ? 256 : 2;
}

int inputs_make_up(const struct bound *b, uint64_t seed, bool zeros, struct arena *scratch,
                   void *const *to)
{
    const struct graph *g = b->graph;
    bool *same = ARENA_ARRAY(scratch, bool, g->n_values + 1);

    if (!same)
        return -ENOMEM;
    for (uint32_t i = 0; i < g->n_in; i++) {
        const struct tensor *t = &b->value[g->in[i]];
        size_t size = dtype_size(t->dtype);
        bool is_float = t->dtype == DT_FP32 || t->dtype == DT_FP64 || t->dtype == DT_FP16 ||
                        t->dtype == DT_BF16;
        uint64_t n = is_float ? 0 : zeros ? 1 : values_of(b, g->in[i], same);
        if (!size)
            return -ENOTSUP;
        for (size_t k = 0; k < t->bytes / size; k++) {
            uint64_t x = mixed(mixed(mixed(seed) + i) + k), v = n ? (x >> 8) % n : 0;
            if (is_float)
                float_put(t->dtype, x, (char *)to[i] + k * size);
            else
                memcpy((char *)to[i] + k * size, &v, size);
        }
    }
    return 0;
}
