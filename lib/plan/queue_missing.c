/* Until the queueing model is merged. */
#include <gpulet/queue.h>

__attribute__((weak)) int queue_predict(const struct queue_share *share, uint32_t n,
                                        struct arena *a, struct queue_result *ret, struct err *err)
{
    (void)share, (void)n, (void)a, (void)ret;
    return err_set(err, -ENOTSUP, "queue_predict is not there yet");
}
