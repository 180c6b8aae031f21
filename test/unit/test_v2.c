/* Requests of the v2 protocol as bytes in, a struct request or a message out.  No engine: the
 * served model is made by hand. */
#include "../check.h"
#include <daemon/v2_infer.h>
#include <math.h>

static struct served_stats stats;
static const struct io_desc in_two[] = {{"x", DT_FP32, 2, {-1, 3}}, {"s", DT_STRING, 2, {-1, 1}}};
static const struct io_desc out_two[] = {{"y", DT_FP32, 2, {-1, 2}}, {"h", DT_FP16, 1, {-1}}};
static const struct io_desc in_one[] = {{"x", DT_INT32, 2, {-1, -1}}};
static struct served two = {.spec = {.name = "two", .version = 3},
                            .n_in = 2,
                            .n_out = 2,
                            .in = in_two,
                            .out = out_two,
                            .batches = true,
                            .max_batch = 4,
                            .stats = &stats};
static struct served one = {.spec = {.name = "one", .version = 1},
                            .n_in = 1,
                            .n_out = 1,
                            .in = in_one,
                            .out = out_two,
                            .batches = true,
                            .max_batch = 4,
                            .stats = &stats};

static struct pool *pool;
static struct err err;

/* Parse body (in a slab, placed as the server does) for m. */
static struct infer *parse(struct served *m, const char *body, size_t n, int64_t header, int *rc)
{
    struct infer *f = calloc(1, sizeof(*f));
    size_t pad = header > 0 ? (64 - (size_t)header % 64) % 64 : 0;

    err = (struct err){0};
    CHECK_EQ(slab_new(pool, pad + n + 1, &f->body), 0);
    memcpy((char *)f->body->data + pad, body, n);
    f->r.served = m;
    f->header_bytes = header;
    *rc = v2_infer_parse(f, pool, (char *)f->body->data + pad, n, &err);
    return f;
}

static void drop(struct infer *f)
{
    slab_put(f->body);
    json_decref(f->head);
    request_done(&f->r);
    free(f);
    CHECK_EQ(pool_used_bytes(pool), 0);
}

static void refused_with(struct served *m, const char *json, const char *why)
{
    int rc;
    struct infer *f = parse(m, json, strlen(json), HEADER_NONE, &rc);

    CHECK(rc < 0);
    if (rc >= 0)
        printf("# accepted: %s\n", json);
    CHECK_HAS(err.msg, why);
    drop(f);
}

#define S_INPUT "{\"name\":\"s\",\"shape\":[1,1],\"datatype\":\"BYTES\",\"data\":[\"a\"]}"
#define OUT_Y ",\"outputs\":[{\"name\":\"y\"}]"
#define WITH_X(x) "{\"inputs\":[" x "," S_INPUT "]" OUT_Y "}"
#define X_INPUT(rest) "{\"name\":\"x\",\"datatype\":\"FP32\"," rest "}"

static void a_json_request_fills_the_tensors(void)
{
    static const char json[] =
        "{\"id\":\"7\",\"inputs\":[{\"data\":[[1,2,3],[4,5,6.5]],\"name\":\"x\",\"shape\":[2,3],"
        "\"datatype\":\"FP32\"},{\"name\":\"s\",\"shape\":[2,1],\"datatype\":\"BYTES\","
        "\"data\":[\"]\",\"\\\"[{\"]}]" OUT_Y
        ",\"parameters\":{\"timeout\":5000,\"priority\":2,\"other\":1.5}}";
    int rc;
    struct infer *f = parse(&two, json, sizeof(json) - 1, HEADER_NONE, &rc);

    CHECK_EQ(rc, 0);
    CHECK_STR(err.msg, "");
    CHECK_EQ(f->r.rows, 2);
    CHECK_EQ(f->r.in[0].bytes, 24);
    CHECK(f->r.in[0].data && ((float *)f->r.in[0].data)[5] == 6.5f);
    CHECK_EQ(f->r.in[1].bytes, 12);
    CHECK(memcmp(f->r.in[1].data, "\1\0\0\0]\3\0\0\0\"[{", 12) == 0);
    CHECK_EQ(f->timeout_us, 5000);
    CHECK_EQ(f->r.priority, 2);
    CHECK_EQ(f->n_wanted, 1);
    CHECK(!f->wanted[0].binary);
    drop(f);
}

static void an_empty_body_is_no_json_and_nothing_is_kept_of_it(void)
{
    int rc;
    struct infer *f = parse(&one, "", 0, HEADER_NONE, &rc);

    CHECK_EQ(rc, -EINVAL);
    CHECK_HAS(err.msg, "JSON");
    drop(f);
}

static void small_json_inputs_lie_behind_the_body_in_its_slab(void)
{
    static const char json[] = WITH_X(X_INPUT("\"shape\":[1,3],\"data\":[1,2,3]"));
    int rc;
    struct infer *f = parse(&two, json, sizeof(json) - 1, HEADER_NONE, &rc);
    const char *end = (char *)f->r.in_slab->data + sizeof(json) - 1;

    CHECK_EQ(rc, 0);
    CHECK(!f->body); /* one slab, not two */
    CHECK_EQ(pool_used_bytes(pool), f->r.in_slab->bytes);
    CHECK((char *)f->r.in[0].data >= end && (uintptr_t)f->r.in[0].data % 64 == 0);
    CHECK(memcmp(f->r.in_slab->data, json, sizeof(json) - 1) == 0); /* untouched */
    drop(f);
}

static void inputs_that_do_not_fit_behind_the_body_get_a_slab(void)
{
    char json[2048];
    int at = snprintf(json, sizeof(json),
                      "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT32\","
                      "\"shape\":[1,400],\"data\":[1");
    int rc;

    for (int i = 1; i < 400; i++)
        at += snprintf(json + at, sizeof(json) - (size_t)at, ",%d", i % 10);
    at += snprintf(json + at, sizeof(json) - (size_t)at, "]}]" OUT_Y "}");
    struct infer *f = parse(&one, json, (size_t)at, HEADER_NONE, &rc);

    CHECK_EQ(rc, 0);
    CHECK(f->body && f->r.in_slab && f->body != f->r.in_slab);
    CHECK(f->r.in[0].data == f->r.in_slab->data && ((int32_t *)f->r.in[0].data)[399] == 9);
    drop(f);
}

static void a_head_that_comes_again_is_not_parsed_again(void)
{
    static const char *const json[] = {
        "{\"id\":\"a\",\"inputs\":[{\"name\":\"x\",\"data\":[1]}]}",
        "{\"id\":\"a\",\"inputs\":[{\"name\":\"x\",\"data\":[2,3]}]}",
        "{\"id\":\"b\",\"inputs\":[{\"name\":\"x\",\"data\":[1]}]}"};
    static struct v2_turn turn;
    struct json_cut cut[3];

    for (int i = 0; i < 3; i++) {
        CHECK_EQ(json_cut(json[i], strlen(json[i]), &turn.heads, &cut[i], &err), 0);
        CHECK_EQ(cut[i].data[0].n, i == 1 ? 5 : 3); /* its own data */
    }
    CHECK(cut[0].head == cut[1].head);
    CHECK(cut[0].head != cut[2].head);
    CHECK_STR(json_string_value(json_object_get(cut[2].head, "id")), "b");
    CHECK(json_cut("{\"id\":}", 7, &turn.heads, &cut[0], &err) < 0);
    json_decref(cut[1].head);
    json_decref(cut[1].head); /* cut[0]'s */
    json_decref(cut[2].head);
    v2_turn_done(&turn);
}

/* A binary request: s first (5 bytes), so that x behind it is unaligned. */
static struct infer *parse_binary(const char *extra, int *rc)
{
    static const float x[3] = {1, 2, 3};
    char body[1024];
    int n = snprintf(body, sizeof(body),
                     "{\"inputs\":[{\"name\":\"s\",\"shape\":[1,1],\"datatype\":\"BYTES\","
                     "\"parameters\":{\"binary_data_size\":5}},{\"name\":\"x\",\"shape\":[1,3],"
                     "\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":12}}],"
                     "\"parameters\":{\"binary_data_output\":true}%s}",
                     extra);

    memcpy(body + n, "\1\0\0\0z", 5);
    memcpy(body + n + 5, x, sizeof(x));
    return parse(&two, body, (size_t)n + 17, n, rc);
}

static void binary_tensors_stay_in_the_body_unless_unaligned(void)
{
    int rc;
    struct infer *f = parse_binary("", &rc);

    CHECK_EQ(rc, 0);
    CHECK_STR(err.msg, "");
    CHECK(!f->body && f->r.in_slab); /* there is room for the copy behind the body */
    CHECK((char *)f->r.in[1].data > (char *)f->r.in_slab->data);
    CHECK((char *)f->r.in[0].data > (char *)f->r.in[1].data + 5 + 12);
    CHECK_EQ((uintptr_t)f->r.in[0].data % 64, 0);
    CHECK(((float *)f->r.in[0].data)[2] == 3);
    CHECK_EQ(f->n_wanted, 2);
    CHECK(f->wanted[0].binary && f->wanted[1].binary);
    drop(f);
}

static void an_aligned_binary_request_is_not_copied(void)
{
    static const char head[] =
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[2,2],\"datatype\":\"INT32\","
        "\"parameters\":{\"binary_data_size\":16}}]}";
    char body[sizeof(head) + 15];
    const int32_t x[4] = {1, 2, 3, -4};
    int rc;

    memcpy(body, head, sizeof(head) - 1);
    memcpy(body + sizeof(head) - 1, x, 16);
    struct infer *f = parse(&one, body, sizeof(body), sizeof(head) - 1, &rc);
    CHECK_EQ(rc, 0);
    CHECK(!f->body && f->r.in_slab);
    CHECK_EQ((uintptr_t)f->r.in[0].data % 64, 0);
    CHECK_EQ(((int32_t *)f->r.in[0].data)[3], -4);
    drop(f);
}

static void a_raw_body_gets_its_free_dimension_from_its_length(void)
{
    int32_t x[6] = {0, 0, 0, 0, 0, 9};
    int rc;
    struct infer *f = parse(&one, (char *)x, sizeof(x), 0, &rc);

    CHECK_EQ(rc, 0);
    CHECK_EQ(f->r.rows, 1);
    CHECK_EQ(f->r.in[0].dims[0], 1);
    CHECK_EQ(f->r.in[0].dims[1], 6);
    CHECK(f->n_wanted == 1 && f->wanted[0].binary);
    drop(f);
    f = parse(&one, (char *)x, 7, 0, &rc);
    CHECK_EQ(rc, -EINVAL);
    CHECK_HAS(err.msg, "a raw body of 7 bytes");
    drop(f);
    f = parse(&two, (char *)x, 7, 0, &rc);
    CHECK_HAS(err.msg, "has 2 inputs");
    drop(f);
}

static void every_mistake_is_named_with_its_value_and_limit(void)
{
    static const struct {
        const char *json, *why;
    } bad[] = {
        {"", "not JSON"},
        {"[]", "not a JSON object"},
        {"{\"inputs\":[}", "not JSON: byte 12"},
        {"{\"inputs\":3}", "inputs is missing or no array"},
        {"{\"inputs\":[]}", "input 'x' is missing"},
        {"{\"inputs\":[1]}", "no object with a name"},
        {"{\"inputs\":[],\"inputs\":[]}", "duplicate"},
        {WITH_X("{\"name\":\"q\"}"), "input 'q': the model 'two' has no such input"},
        {WITH_X("{\"name\":\"x\"}"), "input 'x': datatype is missing"},
        {WITH_X("{\"name\":\"x\",\"datatype\":\"FP64\"}"),
         "datatype FP64, but the model takes FP32"},
        {WITH_X(X_INPUT("\"data\":[1]")), "input 'x': shape is missing"},
        {WITH_X(X_INPUT("\"shape\":[1,-3]")), "dimension 1 is no integer >= 0"},
        {WITH_X(X_INPUT("\"shape\":[1,2,3,4,5,6,7,8,9]")), "rank 9, the limit is 8"},
        {WITH_X(X_INPUT("\"shape\":[1,4]")), "shape [1,4], but the model takes [-1,3]"},
        {WITH_X(X_INPUT("\"shape\":[3]")), "shape [3], but the model takes [-1,3]"},
        {WITH_X(X_INPUT("\"shape\":[5,3]")), "a batch of 5, but the model takes 1 to 4"},
        {WITH_X(X_INPUT("\"shape\":[0,3]")), "a batch of 0, but the model takes 1 to 4"},
        {WITH_X(X_INPUT("\"shape\":[2,3],\"data\":[1,2,3,4,5,6]")), "another input has 2"},
        {WITH_X(X_INPUT("\"shape\":[1,3]")), "neither data nor binary_data_size"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"data\":[1,2]")), "fewer than 3"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"data\":[1,2,3,4]")), "more than 3"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"data\":[1,2,\"3\"]")),
         "element 2: '\"3\"' is not a number"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"data\":[[[1,2,3]]]")),
         "deeper than the shape's rank, 2"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"data\":123456789")), "not an array"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"data\":null")), "fewer than 3"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"data\":[1,2,3],\"data\":[1,2,3]")), "duplicate"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"d\\u0061ta\":[1,2,3]")), "written with escapes"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"parameters\":{\"binary_data_size\":12}")),
         "without Inference-Header-Content-Length"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"data\":[],\"parameters\":{\"binary_data_size\":12}")),
         "both data and binary_data_size"},
        {WITH_X(X_INPUT("\"shape\":[1,3],\"parameters\":{\"shared_memory_region\":\"r\"}")),
         "shared memory is not supported"},
        {"{\"inputs\":[" S_INPUT "," S_INPUT "]}", "input 's': given twice"},
        {"{\"inputs\":[" S_INPUT "]}", "input 'x' is missing"},
        {"{\"inputs\":[" S_INPUT "," S_INPUT "," S_INPUT "]}",
         "3 inputs, but the model 'two' has 2"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        refused_with(&two, bad[i].json, bad[i].why);
}

#define GOOD "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,1],\"datatype\":\"INT32\",\"data\":[1]}]"

static void outputs_and_parameters_are_checked(void)
{
    refused_with(&one, GOOD ",\"outputs\":[{\"name\":\"q\"}]}",
                 "output 'q': the model 'one' has no");
    refused_with(&one, GOOD ",\"outputs\":[{\"name\":\"y\"},{\"name\":\"y\"}]}", "asked for twice");
    refused_with(&one, GOOD ",\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":1}}]}",
                 "binary_data is no boolean");
    refused_with(&one,
                 GOOD ",\"outputs\":[{\"name\":\"y\",\"parameters\":{\"classification\":2}}]}",
                 "classification is not supported");
    refused_with(&one, GOOD ",\"parameters\":{\"triton_x\":1}}", "reserved");
    refused_with(&one, GOOD ",\"parameters\":{\"x\":[]}}", "'x': not a string, number or boolean");
    refused_with(&one, GOOD ",\"parameters\":{\"timeout\":-1}}", "'timeout' is no number");
    refused_with(&one, GOOD ",\"parameters\":{\"timeout\":99999999999999999999}}", "not JSON");
    refused_with(&one, GOOD ",\"id\":7}", "id is no string");
    refused_with(&two, WITH_X(X_INPUT("\"shape\":[1,3],\"data\":[1,2,3]")) "x", "not JSON");
    refused_with(&two, "{\"inputs\":[" X_INPUT("\"shape\":[1,3],\"data\":[1,2,3]") "," S_INPUT "]}",
                 "output 'h': FP16 has no JSON form");
}

static void binary_sizes_must_fit_the_body(void)
{
    static const char head[] =
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,1],\"datatype\":\"INT32\","
        "\"parameters\":{\"binary_data_size\":4}}]}";
    char body[sizeof(head) + 8] = {0};
    size_t n = sizeof(head) - 1;
    int rc;

    memcpy(body, head, n);
    drop(parse(&one, body, n + 4, (int64_t)n, &rc));
    CHECK_EQ(rc, 0);
    drop(parse(&one, body, n + 3, (int64_t)n, &rc));
    CHECK_HAS(err.msg, "4 bytes of binary data, but 3 are left in the body");
    drop(parse(&one, body, n + 6, (int64_t)n, &rc));
    CHECK_HAS(err.msg, "2 bytes of the body belong to no input");
    drop(parse(&one, body, n + 4, (int64_t)n + 5, &rc));
    CHECK_HAS(err.msg, "but the body has");
}

static void deep_nesting_and_large_heads_are_refused(void)
{
    size_t n = (size_t)2 << 20;
    char *json = malloc(n + 1);

    memset(json, '[', 2000);
    json[2000] = '\0';
    memcpy(json, "{\"a\":", 5);
    refused_with(&one, json, "nested deeper than 100 levels");
    memset(json, ' ', n);
    json[n] = '\0';
    memcpy(json, "{", 1);
    refused_with(&one, json, "the limit is 1048576");
    free(json);
}

static void the_reply_names_model_version_id_and_outputs(void)
{
    static const char json[] = GOOD ",\"id\":\"a\\\"b\"}";
    float y[2] = {0.5f, 3};
    struct text text = {0};
    int rc;
    struct infer *f = parse(&one, json, sizeof(json) - 1, HEADER_NONE, &rc);

    CHECK_EQ(rc, 0);
    f->r.out[0] =
        (struct tensor){.dtype = DT_FP32, .rank = 2, .dims = {1, 2}, .bytes = 8, .data = y};
    CHECK_EQ(v2_reply_json(f, &text, &err), 0);
    text_add(&text, "", 1);
    CHECK_STR(text.p,
              "{\"id\":\"a\\\"b\",\"model_name\":\"one\",\"model_version\":\"1\",\"outputs\":"
              "[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[0.5,3.0]}]}");
    text.n = 0;
    f->wanted[0].binary = true;
    CHECK_EQ(v2_reply_json(f, &text, &err), 0);
    text_add(&text, "", 1);
    CHECK_HAS(text.p, "\"shape\":[1,2],\"parameters\":{\"binary_data_size\":8}}]}");
    y[1] = NAN;
    f->wanted[0].binary = false;
    CHECK_EQ(v2_reply_json(f, &text, &err), -EDOM);
    CHECK_HAS(err.msg, "output 'y': element 1 is NaN, which JSON cannot hold: ask for binary data");
    free(text.p);
    drop(f);
}

static void bodies_inflate_within_their_limit(void)
{
    char text[100000], *small;
    const char *body;
    size_t n, inflated;
    struct slab *slab;

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + i % 7);
    for (enum encoding e = ENCODING_GZIP; e <= ENCODING_DEFLATE; e++) {
        CHECK_EQ(text_deflate(e, text, sizeof(text), &small, &n), 0);
        CHECK(n < 2000);
        CHECK_EQ(body_inflate(pool, e, small, n, sizeof(text), 5, &slab, &body, &inflated, &err),
                 0);
        CHECK(inflated == sizeof(text) && memcmp(body, text, inflated) == 0);
        CHECK_EQ((uintptr_t)(body + 5) % 64, 0);
        slab_put(slab);
        CHECK_EQ(
            body_inflate(pool, e, small, n, sizeof(text) - 1, 0, &slab, &body, &inflated, &err),
            -EFBIG);
        CHECK_EQ(
            body_inflate(pool, e, small, n - 1, sizeof(text), 0, &slab, &body, &inflated, &err),
            -EINVAL);
        CHECK_HAS(err.msg, "ends too early");
        small[n - 3] ^= 1; /* the trailer's checksum or length */
        CHECK_EQ(body_inflate(pool, e, small, n, sizeof(text), 0, &slab, &body, &inflated, &err),
                 -EINVAL);
        free(small);
        CHECK_EQ(pool_used_bytes(pool), 0);
    }
}

static void accept_encoding_honours_q_values(void)
{
    CHECK_EQ(encoding_accepted(NULL), ENCODING_IDENTITY);
    CHECK_EQ(encoding_accepted("gzip, deflate"), ENCODING_GZIP);
    CHECK_EQ(encoding_accepted("gzip;q=0.2, deflate;q=0.9"), ENCODING_DEFLATE);
    CHECK_EQ(encoding_accepted("gzip;q=0, br"), ENCODING_IDENTITY);
    CHECK_EQ(encoding_accepted(" DEFLATE "), ENCODING_DEFLATE);
}

int main(void)
{
    if (pool_new((size_t)64 << 20, &pool, &err) < 0)
        return 1;
    RUN(a_json_request_fills_the_tensors);
    RUN(an_empty_body_is_no_json_and_nothing_is_kept_of_it);
    RUN(small_json_inputs_lie_behind_the_body_in_its_slab);
    RUN(inputs_that_do_not_fit_behind_the_body_get_a_slab);
    RUN(a_head_that_comes_again_is_not_parsed_again);
    RUN(binary_tensors_stay_in_the_body_unless_unaligned);
    RUN(an_aligned_binary_request_is_not_copied);
    RUN(a_raw_body_gets_its_free_dimension_from_its_length);
    RUN(every_mistake_is_named_with_its_value_and_limit);
    RUN(outputs_and_parameters_are_checked);
    RUN(binary_sizes_must_fit_the_body);
    RUN(deep_nesting_and_large_heads_are_refused);
    RUN(the_reply_names_model_version_id_and_outputs);
    RUN(bodies_inflate_within_their_limit);
    RUN(accept_encoding_honours_q_values);
    pool_free(pool);
    return check_end();
}
