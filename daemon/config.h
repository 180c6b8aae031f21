/* Configuration: /etc/gpuletd/gpuletd.conf and its drop-ins (INI, as systemd's).
 *
 * One table in config.c is the parser, `gpuletd -t`, --dump-config, etc/gpuletd.conf and the list
 * of options in gpuletd.conf(5).  config.c is the only file that knows inih. */
#pragma once

#include <gpulet/base.h>
#include <stdio.h>

#define CONFIG_FILE "/etc/gpuletd/gpuletd.conf"
#define CONFIG_STRING_MAX 256

enum repository_api { REPOSITORY_LOCAL, REPOSITORY_TOKEN, REPOSITORY_OFF };

struct config {
    struct {
        char listen[CONFIG_STRING_MAX]; /* addresses, separated by spaces; "" for none */
        uint64_t connections;
        uint64_t body_bytes;
        uint64_t idle_s;
        uint64_t repository_api; /* enum repository_api */
        uint64_t metrics;        /* also on this port */
    } http;
    struct {
        char listen[CONFIG_STRING_MAX];
        char socket[CONFIG_STRING_MAX];     /* Unix socket; "" for none */
        char token_file[CONFIG_STRING_MAX]; /* "" for none */
    } admin;
    struct {
        char directory[CONFIG_STRING_MAX];
    } state;
    struct {
        char backend[CONFIG_STRING_MAX];
        char partition_mode[CONFIG_STRING_MAX];
        char cpu_units[CONFIG_STRING_MAX];
        char sim_file[CONFIG_STRING_MAX];
    } device;
    struct {
        char policy[CONFIG_STRING_MAX];
    } plan;
    struct {
        uint64_t model_bytes;
        uint64_t model_nodes;
        uint64_t model_nesting;
        uint64_t tensor_elements;
        uint64_t tensor_bytes;
        uint64_t late_bytes;
        uint64_t run_bytes;
        uint64_t loop_iterations;
        uint64_t host_bytes;
        uint64_t drain_bytes;
        uint64_t queue;
        uint64_t batch;
        uint64_t timeout_ms;
        uint64_t stall_ms;
    } limits;
};

/* Defaults, then the file, then FILE.d/ *.conf in the order of their names.  A default file that
 * does not exist is fine; `must_exist` says that this one was asked for.
 * -EINVAL: file, line, option, value and what was expected; -ENOENT, -EACCES. */
int config_load(const char *file, bool must_exist, struct config *ret, struct err *err);
void config_defaults(struct config *ret);
/* Every option with its value, as a configuration file. */
void config_dump(const struct config *c, FILE *to);
/* The same with what each option means: `comments` as etc/gpuletd.conf, else as mdoc for the man
 * page. */
void config_document(FILE *to, bool comments);
/* Name of the first option that differs and cannot change while running ("http.listen"), NULL
 * when there is none. */
const char *config_needs_restart(const struct config *was, const struct config *now);
