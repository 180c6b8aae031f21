#include "../../daemon/config.h"
#include "../check.h"
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/gpuletd-test-config-XXXXXX";

static const char *put(const char *name, const char *text)
{
    static char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    (void)fputs(text, f);
    (void)fclose(f);
    return path;
}

static void refused(const char *text, const char *why)
{
    struct config c;
    struct err err = {0};

    CHECK_EQ(config_load(put("bad.conf", text), true, &c, &err), -EINVAL);
    CHECK_HAS(err.msg, why);
}

static void an_empty_file_gives_the_defaults(void)
{
    struct config c, d;

    config_defaults(&d);
    CHECK_EQ(config_load(put("empty.conf", "# nothing\n"), true, &c, NULL), 0);
    CHECK_EQ(memcmp(&c, &d, sizeof(c)), 0);
    CHECK_STR(c.http.listen, "127.0.0.1:8000");
    CHECK_EQ(c.limits.model_bytes, INT64_C(8) << 30);
}

static void values_are_read_by_section(void)
{
    struct config c;

    CHECK_EQ(config_load(put("a.conf", "[http]\nlisten = 1.2.3.4:5\nrepository-api = off\n"
                                       "[limits]\nmodel-bytes = 10M\nqueue=7\n"),
                         true, &c, NULL),
             0);
    CHECK_STR(c.http.listen, "1.2.3.4:5");
    CHECK_EQ(c.http.repository_api, REPOSITORY_OFF);
    CHECK_EQ(c.limits.model_bytes, 10 << 20);
    CHECK_EQ(c.limits.queue, 7);
}

static void drop_ins_win_in_the_order_of_their_names(void)
{
    struct config c;
    char path[300], file[300];

    (void)snprintf(file, sizeof(file), "%s", put("main.conf", "[limits]\nqueue = 1\n"));
    (void)snprintf(path, sizeof(path), "%s/main.conf.d", dir);
    CHECK_EQ(mkdir(path, 0700), 0);
    (void)put("main.conf.d/20-b.conf", "[limits]\nqueue = 3\n");
    (void)put("main.conf.d/10-a.conf", "[limits]\nqueue = 2\nbatch = 4\n");
    (void)put("main.conf.d/ignored.txt", "nonsense\n");
    CHECK_EQ(config_load(file, true, &c, NULL), 0);
    CHECK_EQ(c.limits.queue, 3);
    CHECK_EQ(c.limits.batch, 4);
}

static void a_bad_line_is_named_with_its_file_option_and_limit(void)
{
    refused("[limits]\nqueue = 0\n", "bad.conf: line 2: queue = '0' is not a number from 1 to");
    refused("[limits]\nqueue = ten\n", "line 2");
    refused("[limits]\nqueue = 18446744073709551616\n", "line 2");
    refused("[limits]\nmodel-bytes = 99999999T\n", "line 2");
    refused("[http]\nrepository-api = maybe\n", "not one of local|token|off");
    refused("[http]\nlisten\n", "line 2");
    refused("[http]\n\nport = 1\n", "line 3: there is no option 'port' in section [http]");
    char text[300] = "[http]\nlisten = ";
    memset(text + strlen(text), '1', 250);
    refused(text, "line 2 has 259 bytes, the limit is 198");
    refused("[web]\na = 1\n", "there is no section [web]");
}

static void a_file_that_was_asked_for_must_exist(void)
{
    struct config c;
    struct err err = {0};

    CHECK_EQ(config_load("/nonexistent/x.conf", false, &c, &err), 0);
    CHECK_EQ(config_load("/nonexistent/x.conf", true, &c, &err), -ENOENT);
    CHECK_HAS(err.msg, "/nonexistent/x.conf");
}

static void a_dump_reads_back_equal(void)
{
    struct config c, d;
    char path[300];

    CHECK_EQ(config_load(put("c.conf", "[limits]\nmodel-bytes = 3000000\n[http]\nmetrics = yes\n"),
                         true, &c, NULL),
             0);
    (void)snprintf(path, sizeof(path), "%s/dump.conf", dir);
    FILE *f = fopen(path, "w");
    config_dump(&c, f);
    (void)fclose(f);
    CHECK_EQ(config_load(path, true, &d, NULL), 0);
    CHECK_EQ(memcmp(&c, &d, sizeof(c)), 0);
}

static void a_reload_knows_what_needs_a_restart(void)
{
    struct config a, b;

    config_defaults(&a);
    config_defaults(&b);
    b.limits.timeout_ms = 1;
    CHECK(!config_needs_restart(&a, &b));
    b.limits.queue = 1;
    CHECK_STR(config_needs_restart(&a, &b), "limits.queue");
}

int main(void)
{
    CHECK(mkdtemp(dir) != NULL);
    RUN(an_empty_file_gives_the_defaults);
    RUN(values_are_read_by_section);
    RUN(drop_ins_win_in_the_order_of_their_names);
    RUN(a_bad_line_is_named_with_its_file_option_and_limit);
    RUN(a_file_that_was_asked_for_must_exist);
    RUN(a_dump_reads_back_equal);
    RUN(a_reload_knows_what_needs_a_restart);
    char cmd[300];
    (void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
    return system(cmd) != 0 || check_end();
}
