#include "../../daemon/numbers.h"
#include "../check.h"

static void refused(const char *name, const char *value, int code, const char *why)
{
    struct numbers n = {0};
    struct err err = {0};

    CHECK_EQ(numbers_set(&n, name, value, &err), code);
    CHECK_HAS(err.msg, why);
    CHECK_EQ(n.set, 0);
}

static void a_number_is_kept_in_its_unit_and_marked_as_set(void)
{
    struct numbers n = {0};

    CHECK_EQ(numbers_set(&n, "slo_ms", "2.5", NULL), 0);
    CHECK_EQ(numbers_set(&n, "max_batch", "8", NULL), 0);
    CHECK_EQ(n.slo_us, 2500);
    CHECK_EQ(n.max_batch, 8);
    CHECK_EQ(n.set, SET_SLO | SET_BATCH);
}

static void a_bad_number_is_refused_with_name_value_and_limit(void)
{
    refused("slo_ms", "-1", -EINVAL, "slo_ms = '-1' is not a number from 0 to 3.6e+06");
    refused("slo_ms", "nan", -EINVAL, "slo_ms = 'nan'");
    refused("rate_rps", "1e10", -EINVAL, "rate_rps = '1e10'");
    refused("max_batch", "1.5", -EINVAL, "max_batch = '1.5' is not a whole number from 0 to 1024");
    refused("max_batch", "", -EINVAL, "max_batch = ''");
    refused("priority", "7x", -EINVAL, "priority = '7x'");
    refused("precision", "int4", -ENOTSUP, "precision 'int4'");
    refused("colour", "red", -ENOENT, "there is no parameter 'colour'");
}

static void merging_changes_only_what_was_set(void)
{
    struct numbers a = {.slo_us = 1, .rate_rps = 2, .set = SET_SLO | SET_RATE}, b = {0};

    CHECK_EQ(numbers_set(&b, "slo_ms", "9", NULL), 0);
    numbers_merge(&a, &b);
    CHECK_EQ(a.slo_us, 9000);
    CHECK(a.rate_rps == 2);
}

static void a_model_name_never_leaves_its_folder(void)
{
    static const char *const bad[] = {"", ".", "..", ".a", "a/b", "a b", "stats", "a\n"};
    char longest[200];

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        CHECK_EQ(store_name_check(bad[i], NULL), -EINVAL);
    memset(longest, 'a', sizeof(longest));
    longest[128] = 0;
    CHECK_EQ(store_name_check(longest, NULL), 0);
    longest[128] = 'a';
    longest[129] = 0;
    CHECK_EQ(store_name_check(longest, NULL), -EINVAL);
    CHECK_EQ(store_name_check("ResNet-50_v1.5", NULL), 0);
}

int main(void)
{
    RUN(a_number_is_kept_in_its_unit_and_marked_as_set);
    RUN(a_bad_number_is_refused_with_name_value_and_limit);
    RUN(merging_changes_only_what_was_set);
    RUN(a_model_name_never_leaves_its_folder);
    return check_end();
}
