/* The problem file: one JSON form for devices, models, SLOs, rates and profiles
 * (docs/problem-file.md).  Read into the structs of plan.h, written from them. */
#pragma once

#include <gpulet/plan.h>

#define PROBLEM_VERSION 1

/* Everything is allocated in *a.  -EINVAL names path, value and what was expected. */
int problem_parse(const char *json, size_t bytes, struct arena *a, struct problem *ret,
                  struct err *err);
/* A malloc'ed JSON text; the caller frees it. */
int problem_print(const struct problem *p, char **ret, struct err *err);
