/* Short words for JSON. */
#include "cli.h"
#include <math.h>

const char *str(json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

double num(json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

bool yes(json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

void put(json_t *o, const char *key, json_t *v)
{
    (void)json_object_set_new(o, key, v);
}

void put_num(json_t *o, const char *key, double v)
{
    bool whole = fabs(v) < 9e15 && v == round(v);

    put(o, key, !isfinite(v) ? json_null() : whole ? json_integer((json_int_t)v) : json_real(v));
}

const char *ms_text(json_t *o, const char *key, char buf[32])
{
    if (!json_is_number(json_object_get(o, key)))
        return "no end";
    (void)snprintf(buf, 32, "%.2f", num(o, key));
    return buf;
}

int print_json(json_t *o, struct err *err)
{
    AUTO(free) char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));

    if (!text)
        return err_set(err, -ENOMEM, "out of memory");
    puts(text);
    return 0;
}
