/* Many benches are set up at the same time, and measure one after the other.
 *
 * Who starts them holds a lock on the file that GATE names until all are set up or have ended.  One
 * that is set up appends its name to GATE.ready, and has the lock from its first measurement until
 * it ends.  bench_torch.py does the same. */
#include "bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

static int say_ready(const char *gate, const char *who, struct err *err)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s.ready", gate);
    FILE *f = fopen(path, "ae");
    if (!f)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    (void)fprintf(f, "%s\n", who);
    return fclose(f) == 0 ? 0 : err_set(err, -EIO, "%s: cannot be written", path);
}

int gate_enter(const char *who, struct err *err)
{
    const char *gate = getenv("GATE");
    int r = gate ? say_ready(gate, who, err) : 0;

    if (!gate || r < 0)
        return r;
    int fd = open(gate, O_RDONLY | O_CLOEXEC); /* until the process ends */
    while (fd >= 0 && (r = flock(fd, LOCK_EX)) < 0 && errno == EINTR)
        ;
    return fd < 0 || r < 0 ? err_set(err, -errno, "%s: %s", gate, strerror(errno)) : 0;
}
