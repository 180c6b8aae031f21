/* Functions of one number that are computed as doubles, with up to two attributes. */
#include "kit.h"
#include <math.h>

typedef double (*function_fn)(double x, double a, double b);

#define FUNCTION(name, expr)                                                                       \
    static double name(double x, double a, double b)                                               \
    {                                                                                              \
        (void)a, (void)b;                                                                          \
        return expr;                                                                               \
    }
FUNCTION(do_acos, acos(x))
FUNCTION(do_acosh, acosh(x))
FUNCTION(do_asin, asin(x))
FUNCTION(do_asinh, asinh(x))
FUNCTION(do_atan, atan(x))
FUNCTION(do_atanh, atanh(x))
FUNCTION(do_celu, x < 0 ? a * expm1(x / a) : x)
FUNCTION(do_cosh, cosh(x))
FUNCTION(do_is_inf, isinf(x) && (x < 0 ? a != 0 : b != 0))
FUNCTION(do_mish, x *tanh(x > 0 ? x + log1p(exp(-x)) : log1p(exp(x))))
FUNCTION(do_selu, b *(x > 0 ? x : a * expm1(x)))
FUNCTION(do_shrink, x<-b ? x + a : x> b ? x - a : isnan(x) ? x : 0)
FUNCTION(do_sinh, sinh(x))
FUNCTION(do_softsign, x / (1 + fabs(x)))
FUNCTION(do_swish, x / (1 + exp(-a * x)))
FUNCTION(do_tan, tan(x))
FUNCTION(do_thresholded_relu, x > a || isnan(x) ? x : 0)

static const struct function {
    enum op_id op;
    function_fn fn;
    const char *a, *b; /* names of the attributes */
    float a_absent, b_absent;
} functions[] = {
    {OP_Acos, do_acos, NULL, NULL, 0, 0},
    {OP_Acosh, do_acosh, NULL, NULL, 0, 0},
    {OP_Asin, do_asin, NULL, NULL, 0, 0},
    {OP_Asinh, do_asinh, NULL, NULL, 0, 0},
    {OP_Atan, do_atan, NULL, NULL, 0, 0},
    {OP_Atanh, do_atanh, NULL, NULL, 0, 0},
    {OP_Celu, do_celu, "alpha", NULL, 1, 0},
    {OP_Cosh, do_cosh, NULL, NULL, 0, 0},
    {OP_IsInf, do_is_inf, "detect_negative", "detect_positive", 1, 1},
    {OP_Mish, do_mish, NULL, NULL, 0, 0},
    {OP_Selu, do_selu, "alpha", "gamma", 1.67326319217681884765625f, 1.05070102214813232421875f},
    {OP_Shrink, do_shrink, "bias", "lambd", 0, 0.5f},
    {OP_Sinh, do_sinh, NULL, NULL, 0, 0},
    {OP_Softsign, do_softsign, NULL, NULL, 0, 0},
    {OP_Swish, do_swish, "alpha", NULL, 1, 0},
    {OP_Tan, do_tan, NULL, NULL, 0, 0},
    {OP_ThresholdedRelu, do_thresholded_relu, "alpha", NULL, 1, 0},
};

/* Before opset 6 Selu's constants had four digits. */
static double attribute(const struct node *n, const char *name, float absent)
{
    const struct attr *a = name ? node_attr(n, name) : NULL;

    if (a && a->type == ATTR_INT)
        return (double)a->i;
    if (!a && n->op == OP_Selu && n->opset < 6)
        return STREQ(name, "alpha") ? (double)1.6732f : (double)1.0507f;
    return name ? (double)node_float(n, name, absent) : 0;
}

REF_FN(ref_function)
{
    const struct function *row = functions;
    enum kind from = ref_kind(in[0]->dtype), to = ref_kind(out[0]->dtype);
    int64_t count = ref_count(out[0]);

    while (row->op != n->op)
        row++;
    if (from == KIND_BOOL || (from != KIND_FLOAT && n->op != OP_Shrink))
        return ref_no_type(n, in[0]->dtype, err);
    if (ref_count(in[0]) != count)
        return ref_fail(n, err, -EINVAL, "input and output differ in size");
    double a = attribute(n, row->a, row->a_absent), b = attribute(n, row->b, row->b_absent);
    for (int64_t i = 0; i < count; i++) {
        double x = num_cast(num_get(in[0], i), from, KIND_FLOAT).f;
        num_put(out[0], i, num_cast((union num){.f = row->fn(x, a, b)}, KIND_FLOAT, to));
    }
    return 0;
}
