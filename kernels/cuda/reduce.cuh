/* Many numbers become one: a thread for each result. */
#include "kit.cuh"

#define INFINITE __builtin_huge_valf()

DEVICE float reduce_start(int op)
{
    return op == GPU_R_max || op == GPU_R_log_sum_exp ? -INFINITE
           : op == GPU_R_min                          ? INFINITE
           : op == GPU_R_prod                         ? 1
                                                      : 0;
}

DEVICE float reduce_step(int op, float acc, float x)
{
    switch (op) {
    case GPU_R_max:
    case GPU_R_log_sum_exp: /* its first round */
        return x > acc || x != x ? x : acc;
    case GPU_R_min: return x < acc || x != x ? x : acc;
    case GPU_R_prod: return acc * x;
    case GPU_R_l1: return acc + fabsf(x);
    case GPU_R_l2:
    case GPU_R_sum_square: return acc + x * x;
    default: return acc + x;
    }
}

DEVICE float reduce_end(int op, float acc, int64_t n)
{
    switch (op) {
    case GPU_R_mean: return acc / (float)n;
    case GPU_R_l2: return sqrtf(acc);
    case GPU_R_log_sum: return logf(acc);
    default: return acc;
    }
}

template <typename T> DEVICE float reduce_float(const reduce_args &a, int64_t from)
{
    const T *x = (const T *)a.x + from;
    float acc = reduce_start(a.op);

    for (int64_t k = 0; k < a.n_inner; k++)
        acc = reduce_step(a.op, acc, number(x[at(a.inner, 0, k)]));
    if (a.op != GPU_R_log_sum_exp)
        return reduce_end(a.op, acc, a.n_inner);
    float top = acc == INFINITE || acc == -INFINITE ? 0 : acc, sum = 0;
    for (int64_t k = 0; k < a.n_inner; k++)
        sum += expf(number(x[at(a.inner, 0, k)]) - top);
    return top + logf(sum);
}

template <typename T> DEVICE T reduce_int(const reduce_args &a, int64_t from)
{
    const T *x = (const T *)a.x + from;
    T acc = a.op == GPU_R_prod ? 1 : a.op == GPU_R_sum ? 0 : x[0];

    for (int64_t k = 0; k < a.n_inner; k++) {
        T v = x[at(a.inner, 0, k)];
        acc = a.op == GPU_R_sum    ? acc + v
              : a.op == GPU_R_prod ? acc * v
              : a.op == GPU_R_max  ? (v > acc ? v : acc)
                                   : (v < acc ? v : acc);
    }
    return acc;
}

KERNEL(reduce)
{
    EACH (i, a.n) {
        int64_t from = at(a.outer, 0, i);
        if (is_float(a.type))
            put_as(a.type, a.y, i, BY_TYPE(a.type, reduce_float, a, from));
        else if (a.type == GPU_S32)
            ((int32_t *)a.y)[i] = reduce_int<int32_t>(a, from);
        else
            ((int64_t *)a.y)[i] = reduce_int<int64_t>(a, from);
    }
}

KERNEL(arg_reduce)
{
    EACH (i, a.n) {
        const float *x = (const float *)a.x + i / a.step * a.step * a.count + i % a.step;
        int64_t best = 0;
        for (int64_t k = 1; k < a.count; k++) {
            float v = x[k * a.step], b = x[best * a.step];
            if ((a.smallest ? v < b : v > b) || (a.last && v == b))
                best = k;
        }
        ((int64_t *)a.y)[i] = best;
    }
}

template <typename T> DEVICE void softmax_row(const softmax_args &a, int64_t i)
{
    int64_t from = i / a.step * a.step * a.count + i % a.step;
    const T *x = (const T *)a.x + from;
    T *y = (T *)a.y + from;
    float top = -INFINITE, sum = 0;

    for (int64_t k = 0; k < a.count; k++)
        top = fmaxf(top, number(x[k * a.step]));
    for (int64_t k = 0; k < a.count; k++)
        sum += expf(number(x[k * a.step]) - top);
    float log_sum = logf(sum);
    for (int64_t k = 0; k < a.count; k++) {
        float v = number(x[k * a.step]) - top;
        put(y + k * a.step, a.log_of ? v - log_sum : expf(v) / sum);
    }
}

KERNEL(softmax)
{
    EACH (i, a.n)
        BY_TYPE(a.type, softmax_row, a, i);
}
