/* What the fuzz programs share.  Each defines FUZZ_NAME, includes this and defines one_input().
 *
 * Built by `make fuzz` (-DFUZZ_LIBFUZZER -fsanitize=fuzzer) a program is a libFuzzer target.  As a
 * test program (gcc, no fuzzer) it replays test/fuzz/corpus/FUZZ_NAME: files that once showed a
 * bug, and small ones that reach much; some add input made by a seeded generator. */
#pragma once

#include "../check.h"

static void one_input(const uint8_t *data, size_t n); /* the program's */

#ifdef FUZZ_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    one_input(data, n);
    return 0;
}
#else
#include <dirent.h>
#include <stdio.h>

static uint64_t seed = 1;

static inline uint32_t any(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % below;
}

static void replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    static uint8_t buf[1 << 20];

    if (!f) {
        printf("# %s cannot be read\n", path);
        check_failures++;
        return;
    }
    size_t n = fread(buf, 1, sizeof(buf), f);
    (void)fclose(f);
    uint8_t *exact = malloc(n ? n : 1); /* so that a read behind the end is seen */
    assert(exact);
    memcpy(exact, buf, n);
    one_input(exact, n);
    free(exact);
}

static void every_file_of_the_corpus_is_taken_or_refused(void)
{
    static const char folder[] = "test/fuzz/corpus/" FUZZ_NAME;
    struct dirent **list;
    int n = scandir(folder, &list, NULL, alphasort);
    unsigned n_files = 0;

    for (int i = 0; i < n; i++) {
        char path[400];
        if (list[i]->d_name[0] != '.') {
            (void)snprintf(path, sizeof(path), "%s/%s", folder, list[i]->d_name);
            replay_file(path);
            n_files++;
        }
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    CHECK(n_files > 0);
}
#endif
