/* Finding devices and choosing how they are cut, on the fake driver. */
#include "fake_rig.h"

static struct device_info info[4];
static size_t n;

static int list(const char *mode)
{
    struct backend_config cfg = {0};

    (void)snprintf(cfg.partition_mode, sizeof(cfg.partition_mode), "%s", mode);
    err = (struct err){0};
    return be->devices(&cfg, info, ARRAY_SIZE(info), &n, &err);
}

static void start(void)
{
    open_fake();
    open_plugin();
}

static void without_a_driver_the_plug_in_says_so(void)
{
    if (dlopen("libcuda.so.1", RTLD_NOW)) /* this machine has one */
        return;
    open_plugin();
    CHECK_EQ(list("auto"), -ENODEV);
    CHECK_HAS(err.msg, "backend 'cuda': no driver: libcuda.so.1");
}

static void a_driver_without_a_device_says_so(void)
{
    start();
    fake->gpus = 0;
    CHECK_EQ(list("auto"), -ENODEV);
    CHECK_HAS(err.msg, "backend 'cuda': cuInit: CUDA_ERROR_NO_DEVICE (100)");
}

static void a_driver_that_is_too_old_is_refused_by_what_it_lacks(void)
{
    start();
    fake->version = 11080;
    CHECK_EQ(list("auto"), -ENODEV);
    CHECK_HAS(err.msg, "the driver lacks cuLibraryGetKernel, CUDA 12.0 has it");
}

static void a_plug_in_with_another_abi_is_refused_with_both_numbers(void)
{
    char ours[16], theirs[16];

    (void)setenv("GPULET_PLUGIN_DIR", beside("", "wrong"), 1);
    CHECK_EQ(backend_find("cuda", &be, &err), -EINVAL);
    (void)snprintf(ours, sizeof(ours), "program %d", BACKEND_ABI);
    (void)snprintf(theirs, sizeof(theirs), "ABI %d", BACKEND_ABI + 1000);
    CHECK_HAS(err.msg, ours);
    CHECK_HAS(err.msg, theirs);
}

static void each_gpu_is_a_device(void)
{
    start();
    fake->gpus = 2;
    CHECK_EQ(list(""), 0);
    CHECK_EQ(n, 2);
    CHECK_STR(info[0].name, "gpu0");
    CHECK_STR(info[1].name, "gpu1");
    CHECK_STR(info[1].kind, "fake GPU");
    CHECK_HAS(info[1].library,
              "CUDA 13.0, driver 580.65.06"); /* and the libraries: test_libraries */
    CHECK(info[1].mem_bytes > 0);
}

static void auto_takes_green_contexts_and_says_why_not_mps(void)
{
    start();
    CHECK_EQ(list("auto"), 0);
    CHECK_EQ(info[0].mode, MODE_GREEN);
    CHECK_EQ(info[0].n_granules, 16); /* 132 SMs: 16 groups of 8, and 4 */
    CHECK_EQ(info[0].granule_units, 8);
    CHECK_EQ(info[0].units, 128);
    CHECK(info[0].weights_shared);
    CHECK(info[0].in_turn); /* one stream */
    CHECK_HAS(info[0].why, "16 groups of 8 SMs, 4 more with the last");
    CHECK_HAS(info[0].why, "not mps: this process is not a client of MPS");
}

static void groups_are_of_the_size_that_the_architecture_has(void)
{
    start();
    fake->major = 8;
    fake->sms = 108;
    CHECK_EQ(list("green"), 0);
    CHECK_EQ(info[0].granule_units, 4);
    CHECK_EQ(info[0].n_granules, 27);
    fake->major = 7;
    fake->sms = 80;
    CHECK_EQ(list("green"), 0);
    CHECK_EQ(info[0].granule_units, 2);
    CHECK_EQ(info[0].n_granules, 40);
}

static void how_many_groups_there_are_is_asked_not_computed(void)
{
    start();
    fake->groups_lost = 2;
    CHECK_EQ(list("green"), 0);
    CHECK_EQ(info[0].n_granules, 14);
    CHECK_HAS(info[0].why, "20 more with the last");
    CHECK_EQ(fake->splits[0], 0); /* nothing was split for it */
}

static void a_client_of_mps_gets_capped_contexts(void)
{
    start();
    fake->mps = 1;
    CHECK_EQ(list("auto"), 0);
    CHECK_EQ(info[0].mode, MODE_MPS);
    CHECK_EQ(info[0].granule_units, 2); /* a cap of 1 came out as 2 */
    CHECK_EQ(info[0].n_granules, 66);
    CHECK_EQ(info[0].max_lets, fake->version >= 13010 ? 28 : 22); /* twice that, and 4: contexts */
    CHECK(info[0].weights_shared);
    CHECK_HAS(info[0].why, "weights are shared");
    check_clean(); /* the probe's contexts and memory are gone */
}

static void contexts_that_do_not_see_each_others_memory_have_their_own_weights(void)
{
    start();
    fake->mps = fake->vmm_private = 1;
    CHECK_EQ(list("mps"), 0);
    CHECK(!info[0].weights_shared);
    CHECK_HAS(info[0].why, "each context has its own weights");
    check_clean();
}

static void auto_falls_through_to_shared_and_says_why(void)
{
    start();
    fake->version = 12040; /* Debian 13: green contexts, but no streams in them */
    CHECK_EQ(list("auto"), 0);
    CHECK_EQ(info[0].mode, MODE_SHARED);
    CHECK_EQ(info[0].n_granules, 1);
    CHECK_EQ(info[0].granule_units, 132);
    CHECK_HAS(info[0].why, "not green: the driver is of CUDA 12.4, 12.5 is needed");
}

static void green_is_refused_by_name_where_the_driver_is_too_old(void)
{
    start();
    fake->version = 12040;
    CHECK_EQ(list("green"), -ENOTSUP);
    CHECK_HAS(err.msg, "partition-mode 'green': the driver is of CUDA 12.4, 12.5 is needed");
}

static void a_mode_that_is_named_never_degrades(void)
{
    start();
    CHECK_EQ(list("mps"), -ENOTSUP);
    CHECK_HAS(err.msg, "partition-mode 'mps': this process is not a client of MPS");
    CHECK_EQ(list("shared"), 0);
    CHECK_EQ(list("halves"), -EINVAL);
    CHECK_HAS(err.msg, "'halves': there are auto, mps, green, mig and shared");
}

static void a_mig_instance_is_a_whole_device(void)
{
    start();
    fake->mig = 1;
    CHECK_EQ(list("auto"), 0);
    CHECK_EQ(info[0].mode, MODE_MIG);
    CHECK_EQ(info[0].n_granules, 1);
    CHECK_HAS(info[0].why, "instance MIG-00000000-");
}

static void mode_mig_names_the_instances_that_could_be_chosen(void)
{
    start();
    CHECK_EQ(list("mig"), -ENOTSUP);
    CHECK_HAS(err.msg, "CUDA_VISIBLE_DEVICES: none");
    fake->mig_elsewhere = 1;
    CHECK_EQ(list("mig"), -ENOTSUP);
    CHECK_HAS(err.msg, "CUDA_VISIBLE_DEVICES: MIG-11111111-2222-3333-4444-555555555555");
}

/* By hand: 16 MiB for the streams of a level, 4 for a green context, 36 for one of MPS; each
 * has a place to compile in.  3.65 MiB
 * (3738 KiB) for each of 132 SMs three times, for the two of the device's own context, and four
 * idle contexts beside that. */
static void each_mode_says_what_an_open_gpu_let_takes(void)
{
    const uint64_t mib = 1 << 20, sm = 3738 << 10;

    start();
    CHECK_EQ(list("green"), 0);
    uint64_t all = info[0].mem_bytes;
    CHECK_EQ(info[0].let_bytes, 40 * mib);
    CHECK_EQ(list("shared"), 0);
    CHECK_EQ(info[0].let_bytes, 7 * 16 * mib);
    CHECK_EQ(info[0].mem_bytes, all);
    fake->mps = 1;
    CHECK_EQ(list("mps"), 0);
    CHECK_EQ(info[0].let_bytes, 68 * mib);
    CHECK_EQ(all - info[0].mem_bytes, 5 * 36 * mib + (3 * 132 + 2) * sm);
    fake->mig = 1;
    CHECK_EQ(list("mig"), 0);
    CHECK_EQ(info[0].let_bytes, 7 * 16 * mib);
}

static void a_server_of_mps_that_is_starting_is_waited_for(void)
{
    start();
    fake->fail_call = "cuInit";
    fake->fail_code = 807;
    fake->fail_times = -1;
    CHECK_EQ(list("auto"), -ENODEV);
    CHECK_HAS(err.msg, "(807): the server of MPS is starting, recovering, or another user's");
    fake->fail_times = 2;
    CHECK_EQ(list("auto"), 0);
}

static void what_is_listed_again_changes_nothing(void)
{
    start();
    CHECK_EQ(list("auto"), 0);
    size_t init = last_call("cuInit");
    CHECK_EQ(list("auto"), 0); /* as a reload does, while devices serve */
    CHECK_EQ(last_call("cuInit"), init);
}

/* ---- backend = auto */
static const struct backend *chosen;
static struct err no_gpu;

static int choose(const char *mode)
{
    struct backend_config cfg = {0};

    (void)snprintf(cfg.partition_mode, sizeof(cfg.partition_mode), "%s", mode);
    no_gpu = err = (struct err){0};
    return backend_choose("auto", &cfg, &chosen, &no_gpu, &err);
}

static void backend_auto_takes_a_gpu_where_there_is_one(void)
{
    start();
    CHECK_EQ(choose("auto"), 0);
    CHECK(chosen == be);
    CHECK_EQ(no_gpu.code, 0);
}

static void backend_auto_takes_the_cpu_and_says_why(void)
{
    start();
    fake->gpus = 0;
    CHECK_EQ(choose("auto"), 0);
    CHECK(chosen == &backend_cpu);
    CHECK_HAS(no_gpu.msg, "CUDA_ERROR_NO_DEVICE");
    (void)setenv("GPULET_PLUGIN_DIR", "/nonexistent", 1);
    CHECK_EQ(choose("auto"), 0);
    CHECK(chosen == &backend_cpu);
    CHECK_HAS(no_gpu.msg, "/nonexistent/gpulet-cuda.so");
}

static void backend_auto_hides_no_mode_that_was_named(void)
{
    start();
    CHECK_EQ(choose("mps"), -ENOTSUP);
    CHECK_HAS(err.msg, "not a client of MPS");
}

/* As the process may have contexts by then. */
static void nvml_is_opened_once_and_stays(void)
{
    struct backend_config cfg = {0};
    struct device *dev;

    start();
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(list("auto"), 0);
        CHECK_EQ(be->dev_open(&cfg, 0, &dev, &err), 0);
        CHECK_EQ(list("auto"), 0);
        CHECK_EQ(fake->nvml_inits, 1);
        CHECK_EQ(fake->nvml_ends, 0);
        be->dev_close(dev);
    }
}

/* The probe of each makes one, but for green. */
static void nvml_is_opened_before_there_is_a_context_in_every_mode(void)
{
    static const char *const modes[] = {"mps", "green", "shared", "auto"};

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        pid_t child = fork();
        int status = -1;
        if (child == 0) {
            start();
            fake->mps = 1;
            CHECK_EQ(list(modes[i]), 0);
            CHECK_EQ(fake->nvml_inits, 1);
            CHECK(fake->contexts_ever > 0 || STREQ(modes[i], "green"));
            check_clean();
            _exit(check_failures > 0);
        }
        (void)waitpid(child, &status, 0);
        CHECK_EQ(status, 0);
    }
}

int main(void)
{
    ALONE(without_a_driver_the_plug_in_says_so);
    ALONE(a_driver_without_a_device_says_so);
    ALONE(a_driver_that_is_too_old_is_refused_by_what_it_lacks);
    ALONE(a_plug_in_with_another_abi_is_refused_with_both_numbers);
    ALONE(each_gpu_is_a_device);
    ALONE(auto_takes_green_contexts_and_says_why_not_mps);
    ALONE(groups_are_of_the_size_that_the_architecture_has);
    ALONE(how_many_groups_there_are_is_asked_not_computed);
    ALONE(a_client_of_mps_gets_capped_contexts);
    ALONE(contexts_that_do_not_see_each_others_memory_have_their_own_weights);
    ALONE(auto_falls_through_to_shared_and_says_why);
    ALONE(green_is_refused_by_name_where_the_driver_is_too_old);
    ALONE(a_mode_that_is_named_never_degrades);
    ALONE(a_mig_instance_is_a_whole_device);
    ALONE(mode_mig_names_the_instances_that_could_be_chosen);
    ALONE(each_mode_says_what_an_open_gpu_let_takes);
    ALONE(a_server_of_mps_that_is_starting_is_waited_for);
    ALONE(what_is_listed_again_changes_nothing);
    ALONE(nvml_is_opened_once_and_stays);
    ALONE(nvml_is_opened_before_there_is_a_context_in_every_mode);
    ALONE(backend_auto_takes_a_gpu_where_there_is_one);
    ALONE(backend_auto_takes_the_cpu_and_says_why);
    ALONE(backend_auto_hides_no_mode_that_was_named);
    return check_end();
}
