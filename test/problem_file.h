/* Reads a problem of test/data/plan. */
#pragma once

#include <gpulet/problem.h>
#include <stdio.h>
#include <stdlib.h>

static inline struct problem problem_file(struct arena *a, const char *name)
{
    struct problem p = {0};
    struct err e = {0};
    char path[256];
    char *text = malloc(1 << 20);

    (void)snprintf(path, sizeof(path), "test/data/plan/%s.json", name);
    FILE *f = fopen(path, "rb");
    size_t n = f && text ? fread(text, 1, 1 << 20, f) : 0;
    if (problem_parse(text, n, a, &p, &e) < 0) {
        printf("# %s: %s\n", path, e.msg);
        exit(1);
    }
    (void)fclose(f);
    free(text);
    return p;
}
