/* Log lines: to the journal with fields when it is there, else to stderr.
 *
 * Fields: GPULETD_EVENT (what happened: "start", "load", "plan", "swap", "fault", …),
 * GPULETD_MODEL, GPULETD_VERSION, GPULETD_GPULET, beside PRIORITY and MESSAGE.  Any thread. */
#pragma once

#include <gpulet/base.h>
#include <syslog.h>

struct log_fields {
    const char *event; /* NULL or "": left out, as are the others */
    const char *model;
    uint32_t version; /* 0: left out */
    int32_t gpulet;   /* < 0: left out */
};

void log_line(int level, const struct log_fields *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#define LOG(level, what, ...)                                                                      \
    log_line((level), &(struct log_fields){.event = (what), .gpulet = -1}, __VA_ARGS__)
