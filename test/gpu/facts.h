/* What test/gpu/facts prints, and its parts. */
#pragma once

#include <gpulet/base.h>

/* What the facts that follow are about: in front of their names. */
void facts_about(const char *what);
/* A line of JSON: { "case", "ok", "text" }. */
void fact(const char *what, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Is it as it has to be? */
void fact_check(bool ok, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The median of n values, with "value" and "unit", too; sorts them. */
void fact_values(const char *what, const char *unit, double *value, unsigned n);
/* The last of them, for a part that could not go on; returns 1 where that is a failure, and 0 where
 * it is a fact, too: -ENOTSUP. */
int fact_end(int r, const struct err *err);

/* Through the driver alone, on device 0.  Each leaves nothing behind. */
int facts_green(struct err *err);
int facts_graphs(struct err *err);
int facts_links(struct err *err);
int facts_streams(struct err *err);
int facts_mps(struct err *err);
