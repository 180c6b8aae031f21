/* A request that works as it is: names, types and shapes from the model's metadata, one row,
 * 64 for other free dimensions, and the same harmless value everywhere. */
#include "cli.h"
#include <gpulet/tensor.h>

#define FREE_DIM 64
#define MAX_VALUES (64u << 20)

static const char *value_of(enum dtype t)
{
    switch (t) {
    case DT_FP32:
    case DT_FP64:
        return "0.5";
    case DT_BOOL:
        return "true";
    case DT_STRING:
        return "\"text\"";
    default:
        return "1"; /* a token, a mask, a type: 1 is valid in each */
    }
}

int64_t example_dim(int64_t dim, size_t axis)
{
    return dim >= 0 ? dim : axis == 0 ? 1 : FREE_DIM;
}

static int print_input(json_t *in, FILE *to, struct err *err)
{
    const char *name = json_string_value(json_object_get(in, "name"));
    const char *type = json_string_value(json_object_get(in, "datatype"));
    json_t *shape = json_object_get(in, "shape"), *d;
    enum dtype t = type ? dtype_of(type, strlen(type)) : DT_NONE;
    char *quoted = json_dumps(json_object_get(in, "name"), JSON_ENCODE_ANY);
    uint64_t n = 1;
    size_t i;

    if (!name || !quoted || t == DT_NONE || t == DT_FP16 || t == DT_BF16) {
        free(quoted);
        return err_set(err, -ENOTSUP, "input '%s' is %s, which JSON cannot carry",
                       name ? name : "?", type ? type : "?");
    }
    (void)fprintf(to, "{\"name\":%s,\"datatype\":\"%s\",\"shape\":[", quoted, type);
    free(quoted);
    json_array_foreach(shape, i, d)
    {
        json_int_t v = example_dim(json_integer_value(d), i);
        (void)fprintf(to, "%s%lld", i ? "," : "", (long long)v);
        if (__builtin_mul_overflow(n, (uint64_t)v, &n) || n > MAX_VALUES)
            return err_set(err, -EFBIG, "input '%s' has more than %u values", name, MAX_VALUES);
    }
    (void)fputs("],\"data\":[", to);
    for (uint64_t k = 0; k < n; k++)
        (void)fprintf(to, "%s%s", k ? "," : "", value_of(t));
    (void)fputs("]}", to);
    return 0;
}

int example_request(json_t *metadata, char **ret, struct err *err)
{
    char *text = NULL;
    size_t bytes = 0, i;
    FILE *to = open_memstream(&text, &bytes);
    json_t *in;
    int r = 0;

    if (!to)
        return err_set(err, -ENOMEM, "out of memory");
    (void)fputs("{\"inputs\":[", to);
    json_array_foreach(json_object_get(metadata, "inputs"), i, in)
    {
        if (i)
            (void)fputc(',', to);
        if (r == 0)
            r = print_input(in, to, err);
    }
    (void)fputs("]}", to);
    (void)fclose(to);
    if (r < 0)
        free(text);
    else
        *ret = text;
    return r;
}
