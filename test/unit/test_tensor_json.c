#include "../check.h"
#include <daemon/tensor_json.h>
#include <math.h>

static struct err err;

/* Read text as a tensor of one dimension; the data is static. */
static int64_t memory[1024];
static struct tensor read_as(enum dtype dtype, int64_t n, const char *json, int *rc)
{
    struct tensor t = {.dtype = dtype, .rank = 1, .dims = {n}, .data = memory};
    size_t need = 0;

    err = (struct err){0};
    *rc = tensor_json_need(dtype, n, strlen(json), &need, &err);
    CHECK(need <= sizeof(memory));
    if (*rc == 0)
        *rc = tensor_json_read(json, strlen(json), &t, &err);
    return t;
}

static void refused(enum dtype dtype, int64_t n, const char *json, const char *why)
{
    int rc;

    (void)read_as(dtype, n, json, &rc);
    if (rc >= 0)
        printf("# accepted: %s\n", json);
    CHECK(rc < 0);
    CHECK_HAS(err.msg, why);
}

static float one_float(const char *number)
{
    char json[400];
    int rc;

    (void)snprintf(json, sizeof(json), "[%s]", number);
    (void)read_as(DT_FP32, 1, json, &rc);
    CHECK_EQ(rc, 0);
    return ((float *)memory)[0];
}

static double one_double(const char *number)
{
    char json[400];
    int rc;

    (void)snprintf(json, sizeof(json), "[%s]", number);
    (void)read_as(DT_FP64, 1, json, &rc);
    CHECK_EQ(rc, 0);
    return ((double *)memory)[0];
}

static bool same_float(float a, float b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}
static bool same_double(double a, double b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static void flat_and_nested_arrays_give_the_same_tensor(void)
{
    static const char *const form[] = {"[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]",
                                       "[ [1 , 2,3 ] ,\n[4,5,6]\t]", "[[1,2,3,4,5,6]]"};
    int32_t out[6];

    for (size_t i = 0; i < ARRAY_SIZE(form); i++) {
        struct tensor t = {.dtype = DT_INT32, .rank = 2, .dims = {2, 3}, .data = out};
        memset(out, 0, sizeof(out));
        CHECK_EQ(tensor_json_read(form[i], strlen(form[i]), &t, &err), 0);
        CHECK_EQ(t.bytes, 24);
        for (int32_t k = 0; k < 6; k++)
            CHECK_EQ(out[k], k + 1);
    }
}

static void an_empty_shape_takes_an_empty_array(void)
{
    struct tensor t = {.dtype = DT_FP32, .rank = 2, .dims = {0, 3}, .data = memory};

    CHECK_EQ(tensor_json_read("[]", 2, &t, &err), 0);
    CHECK_EQ(tensor_json_read("[[],[ ]]", 8, &t, &err), 0);
    CHECK_EQ(t.bytes, 0);
}

static void what_is_no_json_is_refused(void)
{
    static const char *const bad[] = {
        "[1,]",  "[,1]",   "[1 2]",   "[1,,2]", "[01]",   "[1.]",    "[.5]",
        "[+1]",  "[-]",    "[1e]",    "[1e+]",  "[0x10]", "[nan]",   "[NaN]",
        "[inf]", "[1][2]", "[1]]",    "[[1]",   "[true]", "[\"1\"]", "[null]",
        "[1}]",  "[--1]",  "[1.5.5]", "[-01]",  "[1_0]",  "[1]x]",   "[Infinity]"};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int rc;
        struct tensor t = {.dtype = DT_FP32, .rank = 1, .dims = {1}, .data = memory};
        rc = tensor_json_read(bad[i], strlen(bad[i]), &t, &err);
        if (rc >= 0)
            printf("# accepted: %s\n", bad[i]);
        CHECK(rc == -EINVAL);
    }
}

static void the_element_count_must_be_the_shapes(void)
{
    refused(DT_INT32, 3, "[1,2]", "fewer than 3");
    refused(DT_INT32, 3, "[1000,2]", "2 elements, but the shape has 3");
    refused(DT_INT32, 1, "[1,2]", "more than 1");
    refused(DT_INT32, 1, "[[1]]", "deeper than the shape's rank, 1");
    refused(DT_FP32, INT64_C(1) << 40, "[1]", "fewer than");
}

static void integers_are_exact_and_within_their_type(void)
{
    struct {
        enum dtype t;
        const char *least, *most, *under, *over;
    } row[] = {
        {DT_INT8, "-128", "127", "-129", "128"},
        {DT_UINT8, "0", "255", "-1", "256"},
        {DT_INT16, "-32768", "32767", "-32769", "32768"},
        {DT_UINT16, "0", "65535", "-1", "65536"},
        {DT_INT32, "-2147483648", "2147483647", "-2147483649", "2147483648"},
        {DT_UINT32, "0", "4294967295", "-1", "4294967296"},
        {DT_INT64, "-9223372036854775808", "9223372036854775807", "-9223372036854775809",
         "9223372036854775808"},
        {DT_UINT64, "0", "18446744073709551615", "-1", "18446744073709551616"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
        char json[80];
        struct text back = {0};
        int rc;

        (void)snprintf(json, sizeof(json), "[%s,%s]", row[i].least, row[i].most);
        struct tensor t = read_as(row[i].t, 2, json, &rc);
        CHECK_EQ(rc, 0);
        CHECK_EQ(tensor_json_print(&t, &back, &err), 0);
        text_add(&back, "", 1);
        CHECK_STR(back.p, json);
        free(back.p);
        (void)snprintf(json, sizeof(json), "[%s]", row[i].under);
        refused(row[i].t, 1, json, "out of range");
        (void)snprintf(json, sizeof(json), "[%s]", row[i].over);
        refused(row[i].t, 1, json, "out of range");
        (void)snprintf(json, sizeof(json), "[%s0000000000000000000000]", row[i].over);
        refused(row[i].t, 1, json, "out of range");
    }
    refused(DT_INT32, 1, "[1.0]", "not an integer");
    refused(DT_INT32, 1, "[1e3]", "not an integer");
}

static void booleans_are_true_or_false(void)
{
    int rc;

    (void)read_as(DT_BOOL, 3, "[true,false, true]", &rc);
    CHECK_EQ(rc, 0);
    CHECK_EQ(((uint8_t *)memory)[0] + 2 * ((uint8_t *)memory)[1] + 4 * ((uint8_t *)memory)[2], 5);
    refused(DT_BOOL, 1, "[1]", "true or false");
    refused(DT_BOOL, 1, "[tru]", "true or false");
    refused(DT_BOOL, 1, "[truefalse]", "','");
}

static void strings_become_lengths_and_bytes(void)
{
    static const char want[] = "\3\0\0\0a\"b\0\0\0\0\6\0\0\0\xc3\xa4\xf0\x9f\x98\x80\1\0\0\0\0";
    int rc;
    struct tensor t =
        read_as(DT_STRING, 4, "[\"a\\\"b\",\"\",\"\\u00e4\\ud83d\\ude00\",\"\\u0000\"]", &rc);

    CHECK_EQ(rc, 0);
    CHECK_EQ(t.bytes, sizeof(want) - 1);
    CHECK(memcmp(memory, want, sizeof(want) - 1) == 0);
    refused(DT_STRING, 1, "[\"\\ud83d\"]", "valid escapes");
    refused(DT_STRING, 1, "[\"\\ude00\"]", "valid escapes");
    refused(DT_STRING, 1, "[\"\\x\"]", "valid escapes");
    refused(DT_STRING, 1, "[\"\xff\"]", "UTF-8");
    refused(DT_STRING, 1, "[\"\xc0\x80\"]", "UTF-8");
    refused(DT_STRING, 1, "[\"\xed\xa0\x80\"]", "UTF-8");
    refused(DT_STRING, 1, "[\"a\nb\"]", "control characters");
    refused(DT_STRING, 1, "[\"abc]", "with an end");
    refused(DT_STRING, 1, "[12345]", "not a string");
}

static void hard_decimals_are_rounded_like_strtod(void)
{
    static const char *const hard[] = {"0",
                                       "-0",
                                       "0.0",
                                       "-0.0e5",
                                       "1",
                                       "0.1",
                                       "0.3",
                                       "1e22",
                                       "1e23",
                                       "9007199254740993",
                                       "9007199254740992.5",
                                       "123456789012345678901234567890",
                                       "1e-323",
                                       "4.9e-324",
                                       "2.4e-324",
                                       "2.2250738585072011e-308",
                                       "2.2250738585072014e-308",
                                       "1.7976931348623157e308",
                                       "0.000000000000000000000000000000000001",
                                       "1.00000005960464477539062500",
                                       "1.000000059604644775390625000001",
                                       "1.0000000596046447753906249999",
                                       "16777217",
                                       "16777217.0000001",
                                       "16777216.9999999",
                                       "33554433",
                                       "0.1e-6",
                                       "1E+2",
                                       "1e-2",
                                       "8.41e21",
                                       "9.0608011534336e15",
                                       "5e-20",
                                       "1.1754943508222875e-38",
                                       "1.4e-45",
                                       "7e-46",
                                       "7.0064923216240853546186479164495e-46",
                                       "7.0064923216240853546186479164496e-46",
                                       "3.4028234663852886e38",
                                       "0.00000000000000000000000000000000000000000000000000001e53",
                                       "10000000000000000000000000000000000000000e-40",
                                       "12345678901234567890",
                                       "0e400"};

    for (size_t i = 0; i < ARRAY_SIZE(hard); i++) {
        double d = strtod(hard[i], NULL);
        if (!same_double(one_double(hard[i]), d))
            printf("# %s\n", hard[i]);
        CHECK(same_double(one_double(hard[i]), d));
        if (isfinite(strtof(hard[i], NULL)))
            CHECK(same_float(one_float(hard[i]), strtof(hard[i], NULL)));
    }
    refused(DT_FP64, 1, "[1e309]", "out of range for FP64");
    refused(DT_FP32, 1, "[3.5e38]", "out of range for FP32");
    refused(DT_FP32, 1, "[-1e999999999999]", "out of range for FP32");
}

static uint64_t seed = 88172645463325252u;
static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Decimals of every length near floats, doubles, and the middles between them. */
static void random_decimals_are_rounded_like_strtod(void)
{
    int wrong = 0;

    for (int i = 0; i < 300000; i++) {
        char number[64];
        uint64_t bits = random_bits();
        int digits = 1 + (int)(random_bits() % 21);
        double v;

        if (i & 1) { /* a float's neighbourhood: a float, the middle to the next, or near it */
            bits = (bits & ~UINT64_C(0x1fffffff)) | (bits & 1 ? 0x10000000 : 0);
            bits = (bits & ~(UINT64_C(0x7ff) << 52)) | (uint64_t)(1023 - 60 + random_bits() % 120)
                                                           << 52;
            bits += random_bits() % 5 - 2;
        } else {
            bits = (bits & ~(UINT64_C(0x7ff) << 52)) | (uint64_t)(1023 - 90 + random_bits() % 180)
                                                           << 52;
        }
        memcpy(&v, &bits, sizeof(v));
        (void)snprintf(number, sizeof(number), i & 2 ? "%.*e" : "%.*g", digits, v);
        wrong += !same_double(one_double(number), strtod(number, NULL));
        wrong += !same_float(one_float(number), strtof(number, NULL));
    }
    CHECK_EQ(wrong, 0);
}

static const char *print_one(struct tensor *t, struct text *text)
{
    text->n = 0;
    CHECK_EQ(tensor_json_print(t, text, &err), 0);
    text_add(text, "", 1);
    return text->p;
}

static void floats_read_back_equal_with_at_most_9_digits(void)
{
    struct text text = {0};
    int wrong = 0, too_long = 0;

    for (int i = 0; i < 300000; i++) {
        uint32_t bits = (uint32_t)random_bits();
        float f, back;
        struct tensor t = {.dtype = DT_FP32, .rank = 1, .dims = {1}, .data = &f};

        memcpy(&f, &bits, sizeof(f));
        if (!isfinite(f))
            continue;
        if (i % 3 == 0)
            f = (float)(bits % 100000) / 1000; /* what models often say */
        const char *s = print_one(&t, &text);
        back = strtof(s + 1, NULL);
        wrong += !same_float(f, back);
        int n = 0;
        for (const char *c = s; *c && *c != 'e'; c++)
            n += *c >= '0' && *c <= '9' && (n || *c != '0');
        too_long += n > 10 && !strstr(s, ".0]"); /* large integers have their own zeros */
    }
    free(text.p);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(too_long, 0);
}

static void doubles_read_back_equal(void)
{
    struct text text = {0};
    int wrong = 0;

    for (int i = 0; i < 200000; i++) {
        uint64_t bits = random_bits();
        double v;
        struct tensor t = {.dtype = DT_FP64, .rank = 1, .dims = {1}, .data = &v};

        if (i % 2)
            bits = (bits & ~(UINT64_C(0x7ff) << 52)) | (uint64_t)(1023 - 40 + random_bits() % 80)
                                                           << 52;
        memcpy(&v, &bits, sizeof(v));
        if (!isfinite(v))
            continue;
        wrong += !same_double(v, strtod(print_one(&t, &text) + 1, NULL));
    }
    free(text.p);
    CHECK_EQ(wrong, 0);
}

static void printed_numbers_look_as_people_write_them(void)
{
    static const struct {
        float f;
        const char *s;
    } row[] = {{0, "[0.0]"},
               {-0.0f, "[-0.0]"},
               {1, "[1.0]"},
               {-2.5f, "[-2.5]"},
               {0.1f, "[0.1]"},
               {1e-3f, "[0.001]"},
               {1e10f, "[10000000000.0]"},
               {1e20f, "[1.0e20]"},
               {1.5e-7f, "[1.5e-7]"},
               {16777216, "[16777216.0]"}};
    struct text text = {0};

    for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
        float f = row[i].f;
        struct tensor t = {.dtype = DT_FP32, .rank = 1, .dims = {1}, .data = &f};
        CHECK_STR(print_one(&t, &text), row[i].s);
    }
    free(text.p);
}

static void nan_infinity_and_foreign_bytes_ask_for_binary(void)
{
    float f[] = {1, INFINITY};
    double d[] = {NAN};
    char s[] = "\1\0\0\0\xff";
    struct text text = {0};

    struct tensor tf = {.dtype = DT_FP32, .rank = 1, .dims = {2}, .bytes = 8, .data = f};
    struct tensor td = {.dtype = DT_FP64, .rank = 1, .dims = {1}, .bytes = 8, .data = d};
    struct tensor ts = {.dtype = DT_STRING, .rank = 1, .dims = {1}, .bytes = 5, .data = s};
    CHECK_EQ(tensor_json_print(&tf, &text, &err), -EDOM);
    CHECK_HAS(err.msg, "element 1 is infinity, which JSON cannot hold: ask for binary data");
    CHECK_EQ(tensor_json_print(&td, &text, &err), -EDOM);
    CHECK_EQ(tensor_json_print(&ts, &text, &err), -EDOM);
    CHECK(!tensor_json_has(DT_FP16) && !tensor_json_has(DT_BF16) && tensor_json_has(DT_STRING));
    free(text.p);
}

int main(void)
{
    RUN(flat_and_nested_arrays_give_the_same_tensor);
    RUN(an_empty_shape_takes_an_empty_array);
    RUN(what_is_no_json_is_refused);
    RUN(the_element_count_must_be_the_shapes);
    RUN(integers_are_exact_and_within_their_type);
    RUN(booleans_are_true_or_false);
    RUN(strings_become_lengths_and_bytes);
    RUN(hard_decimals_are_rounded_like_strtod);
    RUN(random_decimals_are_rounded_like_strtod);
    RUN(floats_read_back_equal_with_at_most_9_digits);
    RUN(doubles_read_back_equal);
    RUN(printed_numbers_look_as_people_write_them);
    RUN(nan_infinity_and_foreign_bytes_ask_for_binary);
    return check_end();
}
