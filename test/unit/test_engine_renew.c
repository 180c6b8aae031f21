/* What was compiled while others were served, and may be faster for it, is compiled anew when
 * nothing comes. */
#include "engine_rig.h"

static char *dir;

static void wait_unraced(int n)
{
    for (unsigned ms = 0; ms < WAIT_MS && fake.exes_unraced != n; ms++)
        fake_sleep(1000);
    CHECK_EQ(fake.exes_unraced, n);
}

/* A model whose one exe was compiled in a hurry. */
static struct rig hurried(void)
{
    struct rig r = rig_new(1);

    fake.unraced = true;
    rig_load_ok(&r, "m", 1, dir);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    CHECK(fake.exes_unraced > 0);
    return r;
}

static void in_peace_it_is_compiled_anew(void)
{
    struct rig r = hurried();

    fake.unraced = false;
    wait_unraced(0);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    rig_free(&r);
}

static void until_the_new_one_is_there_the_old_one_serves(void)
{
    struct rig r = hurried();

    fake.compile_us = 2 * USEC_PER_SEC;
    fake.unraced = false;
    for (unsigned ms = 0; ms < WAIT_MS && !fake.compiling; ms++)
        fake_sleep(1000);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    CHECK(fake.compiling);
    fake.compile_us = 0;
    wait_unraced(0);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    rig_free(&r);
}

static void without_memory_for_the_new_one_the_old_one_stays(void)
{
    struct rig r = hurried();

    fake.fail_compiles = INT32_MAX;
    fake_sleep(6 * USEC_PER_SEC); /* two of peace, then tries */
    CHECK(fake.fail_compiles < INT32_MAX);
    CHECK(fake.exes_unraced > 0);
    CHECK_EQ(rig_infer(&r, "m", 1, 4), 0);
    fake.fail_compiles = 0;
    rig_free(&r);
}

int main(void)
{
    dir = fake_model("renew", "Tanh", "x", "batch,4");
    RUN(in_peace_it_is_compiled_anew);
    RUN(until_the_new_one_is_there_the_old_one_serves);
    RUN(without_memory_for_the_new_one_the_old_one_stays);
    free(dir);
    fake_cleanup();
    return check_end();
}
