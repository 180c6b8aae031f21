/* Printing: two spaces a level, lists of numbers on one line, fields at their default left out. */
#include "problem_priv.h"
#include <math.h>

int writer_open(struct writer *w, struct err *err)
{
    *w = (struct writer){.first = true};
    w->f = open_memstream(&w->text, &w->bytes);
    return w->f ? 0 : err_set(err, -ENOMEM, "out of memory");
}

int writer_close(struct writer *w, char **ret, struct err *err)
{
    (void)fputc('\n', w->f);
    bool bad = ferror(w->f) != 0;
    if (fclose(w->f) != 0 || bad) {
        free(w->text);
        return err_set(err, -ENOMEM, "out of memory");
    }
    *ret = w->text;
    return 0;
}

void put_text(struct writer *w, const char *s)
{
    (void)fputc('"', w->f);
    for (; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            (void)fprintf(w->f, "\\u%04x", (unsigned char)*s);
        else
            (void)fprintf(w->f, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    (void)fputc('"', w->f);
}

void put_real(struct writer *w, double x)
{
    char s[40];

    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(s, sizeof(s), "%.*g", digits, x);
        if (strtod(s, NULL) == x)
            break;
    }
    (void)fputs(s, w->f);
}

static void put_next(struct writer *w)
{
    (void)fprintf(w->f, "%s%s%*s", w->first ? "" : ",", w->depth ? "\n" : "", (int)w->depth * 2,
                  "");
    w->first = false;
}

void put_key(struct writer *w, const char *key)
{
    put_next(w);
    if (!key)
        return;
    put_text(w, key);
    (void)fputs(": ", w->f);
}

void put_open(struct writer *w, const char *key, char bracket)
{
    put_key(w, key);
    (void)fputc(bracket, w->f);
    w->depth++;
    w->first = true;
}

void put_close(struct writer *w, char bracket)
{
    w->depth--;
    if (!w->first)
        (void)fprintf(w->f, "\n%*s", (int)w->depth * 2, "");
    (void)fputc(bracket, w->f);
    w->first = false;
}

/* Zero is the default of every field. */
static bool at_default(const struct field *f, const void *at)
{
    static const char zero[8];

    switch (f->kind) {
    case FIELD_NAME:
        return false;
    case FIELD_WORD:
    case FIELD_U32:
    case FIELD_I32:
        return memcmp(at, zero, 4) == 0;
    case FIELD_REAL:
        return *(const double *)at == 0; /* -0, too */
    case FIELD_BYTES:
    case FIELD_MS:
    case FIELD_KEY:
        return memcmp(at, zero, 8) == 0;
    case FIELD_BOOL:
        return !*(const bool *)at;
    case FIELD_NOT:
        return *(const bool *)at;
    case FIELD_OTHER:
        break;
    }
    return true;
}

static void put_value(struct writer *w, const struct field *f, const void *at)
{
    switch (f->kind) {
    case FIELD_NAME:
        put_text(w, *(const char *const *)at);
        break;
    case FIELD_WORD:
        put_text(w, f->word[*(const uint32_t *)at]);
        break;
    case FIELD_U32:
        (void)fprintf(w->f, "%u", *(const uint32_t *)at);
        break;
    case FIELD_I32:
        (void)fprintf(w->f, "%d", *(const int32_t *)at);
        break;
    case FIELD_REAL:
        put_real(w, *(const double *)at);
        break;
    case FIELD_BYTES:
        (void)fprintf(w->f, "%llu", (unsigned long long)*(const uint64_t *)at);
        break;
    case FIELD_MS:
        put_real(w, (double)*(const usec_t *)at / 1000);
        break;
    case FIELD_KEY:
        (void)fprintf(w->f, "\"%016llx\"", (unsigned long long)*(const uint64_t *)at);
        break;
    case FIELD_BOOL:
    case FIELD_NOT:
        (void)fputs("true", w->f);
        break;
    case FIELD_OTHER:
        break;
    }
}

void put_fields(struct writer *w, const struct field *f, const void *base)
{
    for (; f->key; f++) {
        const void *at = (const char *)base + f->at;
        if (f->kind == FIELD_OTHER || (at_default(f, at) && !f->required))
            continue;
        put_key(w, f->key);
        put_value(w, f, at);
    }
}

void put_u32_list(struct writer *w, const char *key, const uint32_t *x, uint32_t n)
{
    if (n == 0)
        return;
    put_key(w, key);
    for (uint32_t i = 0; i < n; i++)
        (void)fprintf(w->f, "%s%u", i ? ", " : "[", x[i]);
    (void)fputc(']', w->f);
}

void put_real_list(struct writer *w, const char *key, const double *x, uint32_t n)
{
    put_key(w, key);
    (void)fputc('[', w->f);
    for (uint32_t i = 0; i < n; i++) {
        (void)fputs(i ? ", " : "", w->f);
        put_real(w, x[i]);
    }
    (void)fputc(']', w->f);
}
