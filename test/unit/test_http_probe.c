/* What the door takes for a probe, and what it leaves to libmicrohttpd. */
#include "../check.h"
#include <daemon/http_probe.h>

static unsigned ask(void *ctx, const char **ret_json)
{
    (void)ctx;
    *ret_json = "{}";
    return 200;
}

static const struct http_probe probes[] = {{"/v2/health/live", ask}, {"/v2/health/ready", ask}};
static struct probe_request found;

/* From memory that ends with the text, so that ASan sees a byte too many. */
static enum probe_found find(const char *text, size_t n)
{
    char *copy = malloc(MAX(n, 1u));
    enum probe_found r;

    memcpy(copy, text, n);
    r = probe_find(probes, ARRAY_SIZE(probes), copy, n, &found);
    free(copy);
    return r;
}

#define LIVE "GET /v2/health/live HTTP/1.1\r\n"
static const char *const good[] = {
    LIVE "Host: x\r\n\r\n",
    "GET /v2/health/ready HTTP/1.1\r\nHost:x\r\n\r\n",
    "HEAD /v2/health/ready HTTP/1.1\r\nhost: [::1]:8000 \r\n\r\n",
    LIVE "Host: x\r\nUser-Agent: kube-probe/1.27\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    LIVE "Accept-Encoding: gzip, deflate\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    LIVE "Host:\r\nX-Empty:\r\n\r\n",
};

static void plain_probes_are_found(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        CHECK_EQ(find(good[i], strlen(good[i])), PROBE_YES);
        CHECK_EQ(found.bytes, strlen(good[i]));
        CHECK_STR(found.probe->path,
                  strstr(good[i], "live") ? "/v2/health/live" : "/v2/health/ready");
        CHECK_EQ(found.head, good[i][0] == 'H');
        CHECK_EQ(found.close, strstr(good[i], "close") != NULL);
    }
}

static void every_beginning_of_a_probe_may_become_one(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        for (size_t n = 0; n < strlen(good[i]); n++)
            CHECK_EQ(find(good[i], n), PROBE_MORE);
}

static void what_follows_a_probe_is_not_part_of_it(void)
{
    static const char two[] = LIVE "Host: x\r\n\r\nGET /v2/health/ready HTTP/1.1\nno";

    CHECK_EQ(find(two, strlen(two)), PROBE_YES);
    CHECK_EQ(found.bytes, strstr(two, "GET /v2/health/r") - two);
}

static void whatever_is_odd_is_left_alone(void)
{
    static const char *const odd[] = {
        "POST /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/health/live HTTP/1.0\r\nHost: x\r\n\r\n",
        "GET /v2/health/live?x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/health/lives HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET  /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v2/health/live HTTP/1.1\nHost: x\n\n",
        "get /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        LIVE "\r\n",
        LIVE "Host: x\r\nHost: x\r\n\r\n",
        LIVE "Host: x\n\n",
        LIVE "Host: x\r\nX: a\nContent-Length: 5\r\n\r\n",
        LIVE "Host: x\r\nContent-Length: 0\r\n\r\n",
        LIVE "Host: x\r\ncontent-length: 5\r\n\r\nGET /",
        LIVE "Host: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        LIVE "Host: x\r\nExpect: 100-continue\r\n\r\n",
        LIVE "Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        LIVE "Host: x\r\nConnection: close, x\r\n\r\n",
        LIVE "Host: x\r\n folded: yes\r\n\r\n",
        LIVE "Host: x\r\nContent-Length : 5\r\n\r\n",
        LIVE "Host: x\r\nno colon\r\n\r\n",
        LIVE "Host: x\r\n: no name\r\n\r\n",
        LIVE "Host: x\r\nX: \x01\r\n\r\n",
        LIVE "Host: x\r\nX: \xff\r\n\r\n",
        LIVE "Host: x\rX: y\r\n\r\n",
        "\r\n" LIVE "Host: x\r\n\r\n",
        "\x16\x03\x01",
        "x",
    };

    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        enum probe_found f = find(odd[i], strlen(odd[i]));
        if (f != PROBE_NO)
            printf("# %s\n", odd[i]);
        CHECK_EQ(f, PROBE_NO);
    }
}

static void long_heads_are_left_alone(void)
{
    char text[PROBE_BYTES_MAX];
    int n = snprintf(text, sizeof(text), LIVE "Host: x\r\nX: ");

    memset(text + n, 'y', sizeof(text) - (size_t)n);
    CHECK_EQ(find(text, sizeof(text) - 1), PROBE_MORE);
    CHECK_EQ(find(text, sizeof(text)), PROBE_NO);
}

/* Of random changes only those that leave a plain probe are taken for one. */
static void changed_probes_are_either_plain_or_left_alone(void)
{
    uint64_t seed = 7;

    for (int round = 0; round < 200000; round++) {
        char text[256];
        const char *from = good[(size_t)round % ARRAY_SIZE(good)];
        size_t n = strlen(from);

        memcpy(text, from, n);
        for (int k = 0; k < 2; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            text[(seed >> 33) % n] = "\r\n: \tAz0-\0\xff"[(seed >> 20) % 11];
        }
        if (find(text, n) == PROBE_YES) {
            CHECK(found.bytes <= n && memcmp(text + found.bytes - 4, "\r\n\r\n", 4) == 0);
            CHECK(!memmem(text, found.bytes, "\xff", 1) && !memchr(text, '\0', found.bytes));
        }
    }
}

int main(void)
{
    RUN(plain_probes_are_found);
    RUN(every_beginning_of_a_probe_may_become_one);
    RUN(what_follows_a_probe_is_not_part_of_it);
    RUN(whatever_is_odd_is_left_alone);
    RUN(long_heads_are_left_alone);
    RUN(changed_probes_are_either_plain_or_left_alone);
    return check_end();
}
