/* Infer bodies from hostile clients: good requests, broken at random (seed and count as arguments),
 * parsed in a slab that ends where the body ends.  Whatever is accepted must hold what its shape
 * promises; whatever is refused must say why and leave no memory behind.
 *
 * Built by `make fuzz` it is a libFuzzer target, whose input is a byte that says which model, two
 * that say where the binary data begins (0xffff: there is none), and the body. */
#include <daemon/v2_infer.h>
#define FUZZ_NAME "v2"
#include "fuzz.h"

static struct served_stats stats;
static const struct io_desc in[] = {{"x", DT_FP32, 2, {-1, 3}}, {"s", DT_STRING, 2, {-1, 1}}};
static const struct io_desc in_raw[] = {{"x", DT_INT16, 2, {-1, -1}}};
static const struct io_desc out[] = {{"y", DT_FP32, 2, {-1, 2}}};
static struct served model = {.spec = {.name = "m", .version = 1},
                              .n_in = 2,
                              .n_out = 1,
                              .in = in,
                              .out = out,
                              .batches = true,
                              .max_batch = 8,
                              .stats = &stats};
static struct served raw = {.spec = {.name = "r", .version = 1},
                            .n_in = 1,
                            .n_out = 1,
                            .in = in_raw,
                            .out = out,
                            .max_batch = 1,
                            .stats = &stats};

/* Touch every byte an accepted request promises. */
static uint64_t sum_inputs(const struct infer *f)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < f->r.served->n_in; i++) {
        const struct tensor *t = &f->r.in[i];
        int64_t count;
        CHECK_EQ(tensor_count(t, &count), 0);
        if (t->dtype != DT_STRING)
            CHECK_EQ(t->bytes, (size_t)count * dtype_size(t->dtype));
        for (size_t k = 0; k < t->bytes; k++)
            sum += ((unsigned char *)t->data)[k];
    }
    return sum;
}

static struct pool *pool;
static uint64_t accepted, refused, sum;

static void one_body(const char *body, size_t n, int64_t header, struct served *m)
{
    struct infer f = {.header_bytes = header};
    char *exact = malloc(MAX(n, 1)); /* the sanitizer sees one byte too far */
    struct err err = {0};
    int rc;

    memcpy(exact, body, n);
    f.r.served = m;
    rc = v2_infer_parse(&f, pool, exact, n, &err);
    if (rc == 0) {
        sum += sum_inputs(&f);
        CHECK(f.r.rows >= 1 && f.r.rows <= m->max_batch);
        accepted++;
    } else {
        CHECK(err.code == rc && err.msg[0]);
        refused++;
    }
    json_decref(f.head);
    request_done(&f.r);
    free(exact);
}

#define HEAD_BYTES 3

static void one_input(const uint8_t *data, size_t n)
{
    struct err err = {0};
    uint32_t header = n < HEAD_BYTES ? 0 : data[1] | (uint32_t)data[2] << 8;

    if (n < HEAD_BYTES)
        return;
    if (!pool)
        assert(pool_new((size_t)64 << 20, &pool, &err) == 0);
    one_body((const char *)data + HEAD_BYTES, n - HEAD_BYTES,
             header == UINT16_MAX ? HEADER_NONE : (int64_t)header, data[0] & 1 ? &raw : &model);
    assert(check_failures == 0 && pool_used_bytes(pool) == 0);
}

#ifndef FUZZ_LIBFUZZER

static const char *const seeds[] = {
    "{\"id\":\"7\",\"inputs\":[{\"data\":[[1,2.5e-3,-3],[4,5,6.5]],\"name\":\"x\",\"shape\":[2,3],"
    "\"datatype\":\"FP32\"},{\"name\":\"s\",\"shape\":[2,1],\"datatype\":\"BYTES\","
    "\"data\":[\"]\\u00e4\",\"\\\"[{\\ud83d\\ude00\"]}],\"outputs\":[{\"name\":\"y\"}],"
    "\"parameters\":{\"timeout\":5000,\"priority\":2,\"other\":1.5}}",
    "{\"inputs\":[{\"name\":\"s\",\"shape\":[1,1],\"datatype\":\"BYTES\",\"parameters\":"
    "{\"binary_data_size\":5}},{\"name\":\"x\",\"shape\":[1,3],\"datatype\":\"FP32\","
    "\"parameters\":"
    "{\"binary_data_size\":12}}],\"parameters\":{\"binary_data_output\":true}}\1zzzzabcdefghijkl",
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,4],\"datatype\":\"INT16\",\"data\":[1,-2,3,4]}]}",
};

/* One change: a byte, a token, a piece removed or doubled. */
static size_t mutate(char *body, size_t n, size_t room)
{
    static const char *const token[] = {
        "[",    "]",  "{",     "}",   "\"", ",", ":",    "null",
        "1e99", "-1", "[[[[[", "\\u", "\\", "0", "data", "9223372036854775807",
        "true", " "};
    size_t at = n ? any((uint32_t)n) : 0;

    switch (any(5)) {
    case 0:
        if (n)
            body[at] = (char)any(256);
        return n;
    case 1:
        if (n)
            body[at] ^= (char)(1u << any(8));
        return n;
    case 2: { /* remove */
        size_t want = 1 + any(20), k = MIN(want, n - at);
        memmove(body + at, body + at + k, n - at - k);
        return n - k;
    }
    case 3: { /* insert a token */
        const char *t = token[any(ARRAY_SIZE(token))];
        size_t k = strlen(t);
        if (n + k > room)
            return n;
        memmove(body + at + k, body + at, n - at);
        memcpy(body + at, t, k);
        return n + k;
    }
    default: { /* double */
        size_t want = 1 + any(60), k = MIN(want, n - at);
        if (n + k > room)
            return n;
        memmove(body + at + k, body + at, n - at);
        return n + k;
    }
    }
}

static long rounds = 60000;

static void broken_requests_are_refused_or_hold_what_they_promise(void)
{
    for (long i = 0; i < rounds; i++) {
        char body[2048];
        size_t which = any(ARRAY_SIZE(seeds)), n = strlen(seeds[which]);
        const char *brace = strrchr(seeds[which], '}');
        int64_t header = any(3) ? HEADER_NONE : (int64_t)(brace - seeds[which] + 1);

        memcpy(body, seeds[which], n);
        if (which == 1 && header != HEADER_NONE)
            memcpy(body + header, "\1\0\0\0", 4);
        for (uint32_t k = any(4); k > 0; k--)
            n = mutate(body, n, sizeof(body));
        if (any(20) == 0)
            header = any((uint32_t)n + 20);
        one_body(body, n, header, which == 2 ? &raw : &model);
    }
    CHECK_EQ(pool_used_bytes(pool), 0);
    CHECK(accepted > (uint64_t)rounds / 20 && refused > (uint64_t)rounds / 20);
}

int main(int argc, char **argv)
{
    struct err err = {0};

    seed = argc > 1 ? strtoull(argv[1], NULL, 10) | 1 : 88172645463325252u;
    rounds = argc > 2 ? strtol(argv[2], NULL, 10) : rounds;
    if (pool_new((size_t)64 << 20, &pool, &err) < 0)
        return 1;
    RUN(every_file_of_the_corpus_is_taken_or_refused);
    RUN(broken_requests_are_refused_or_hold_what_they_promise);
    printf("# %llu accepted, %llu refused, sum %llu\n", (unsigned long long)accepted,
           (unsigned long long)refused, (unsigned long long)sum);
    pool_free(pool);
    return check_end();
}
#endif
