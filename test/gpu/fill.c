/* Weights for a model that came without them (test/models/export.py --bare).
 *
 *     fill FOLDER...
 *
 * FOLDER/model.fill has a line for each tensor: where it begins in bytes, how many floats, and the
 * ends of an even distribution.  FOLDER/model.weights is written anew, the same on every machine.
 */
#include <errno.h>
#include <gpulet/base.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 65536

/* SplitMix64: a number of 24 bits, scaled. */
static float number(uint64_t tensor, uint64_t i, double low, double high)
{
    uint64_t z = tensor * 0xd1342543de82ef95u + (i + 1) * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (float)(low + (high - low) * (double)(z >> 40) / 16777216.0);
}

static int fill_one(FILE *to, uint64_t tensor, uint64_t at, uint64_t n, double low, double high)
{
    static float some[CHUNK];

    if (fseeko(to, (off_t)at, SEEK_SET) < 0)
        return -errno;
    for (uint64_t i = 0; i < n; i += CHUNK) {
        size_t count = (size_t)MIN(n - i, (uint64_t)CHUNK);
        for (size_t k = 0; k < count; k++)
            some[k] = number(tensor, i + k, low, high);
        if (fwrite(some, sizeof(float), count, to) != count)
            return -errno;
    }
    return 0;
}

static int fill_all(FILE *from, FILE *to)
{
    unsigned long long at, n;
    double low, high;
    uint64_t tensor = 0;
    int got, r = 0;

    while (r == 0 && (got = fscanf(from, "%llu %llu %lf %lf", &at, &n, &low, &high)) == 4)
        r = fill_one(to, tensor++, at, n, low, high);
    return r < 0 ? r : got == EOF && tensor > 0 ? 0 : -EINVAL;
}

static int fill_folder(const char *folder)
{
    char path[2][4096];

    (void)snprintf(path[0], sizeof(path[0]), "%s/model.fill", folder);
    (void)snprintf(path[1], sizeof(path[1]), "%s/model.weights", folder);
    FILE *from = fopen(path[0], "r"), *to = from ? fopen(path[1], "w") : NULL;
    int r = to ? fill_all(from, to) : -errno;
    if (to && fclose(to) != 0 && r == 0)
        r = -errno;
    if (from)
        (void)fclose(from);
    if (r < 0)
        (void)fprintf(stderr, "fill: %s: %s\n", folder, strerror(-r));
    return r;
}

int main(int argc, char **argv)
{
    int r = argc > 1 ? 0 : -EINVAL;

    for (int i = 1; i < argc && r == 0; i++)
        r = fill_folder(argv[i]);
    return r < 0;
}
