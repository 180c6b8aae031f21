/* SVG by hand: every text goes through put_text(), every number through %g. */
#include "svg.h"

#define LETTER 6.2 /* width of a letter of the smallest class, px */

static const char style[] =
    "text{font:11px system-ui,sans-serif;fill:#222}"
    ".title{font-size:15px;font-weight:600}.axis{font-size:12px}.in{fill:#111}"
    ".page{fill:#fff}.free{fill:#f1f1f1;stroke:#999}.let{fill:#dcdcdc;stroke:#444}"
    ".run{stroke:#444;stroke-width:.5}.grid{stroke:#ddd}.edge{stroke:#555}"
    ".curve{fill:none;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e6e6}.in{fill:#111}.page{fill:#181818}"
    ".free{fill:#262626;stroke:#777}.let{fill:#454545;stroke:#bbb}.run{stroke:#bbb}"
    ".grid{stroke:#3a3a3a}.edge{stroke:#aaa}}";

static void put_text(FILE *f, const char *text)
{
    for (const char *c = text; *c; c++)
        switch (*c) {
        case '&':
            (void)fputs("&amp;", f);
            break;
        case '<':
            (void)fputs("&lt;", f);
            break;
        case '>':
            (void)fputs("&gt;", f);
            break;
        case '"':
            (void)fputs("&quot;", f);
            break;
        default: /* XML has no control characters */
            (void)fputc((unsigned char)*c < ' ' ? '?' : *c, f);
        }
}

int svg_open(const char *path, double width, double height, const char *title, struct svg *ret,
             struct err *err)
{
    FILE *f = fopen(path, "we");

    if (!f)
        return err_set(err, -EIO, "'%s': %s", path, strerror(errno));
    *ret = (struct svg){.f = f, .path = path};
    (void)fprintf(f,
                  "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" "
                  "viewBox=\"0 0 %g %g\" role=\"img\">\n<title>",
                  width, height, width, height);
    put_text(f, title);
    (void)fprintf(f, "</title>\n<style>%s</style>\n", style);
    svg_rect(ret, 0, 0, width, height, "page", -1, NULL);
    svg_text(ret, 16, 24, "title", "start", title);
    return 0;
}

int svg_close(struct svg *s, struct err *err)
{
    bool bad = fputs("</svg>\n", s->f) < 0 || ferror(s->f);

    bad |= fclose(s->f) != 0;
    return bad ? err_set(err, -EIO, "'%s': %s", s->path, strerror(errno)) : 0;
}

void svg_rect(struct svg *s, double x, double y, double w, double h, const char *class, int hue,
              const char *tip)
{
    (void)fprintf(s->f, "<rect class=\"%s\" x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%.6g\"",
                  class, x, y, w, h);
    if (hue >= 0)
        (void)fprintf(s->f, " style=\"fill:hsl(%d,65%%,72%%)\"", hue);
    if (!tip) {
        (void)fputs("/>\n", s->f);
        return;
    }
    (void)fputs("><title>", s->f);
    put_text(s->f, tip);
    (void)fputs("</title></rect>\n", s->f);
}

void svg_line(struct svg *s, double x1, double y1, double x2, double y2, const char *class)
{
    (void)fprintf(s->f, "<line class=\"%s\" x1=\"%.6g\" y1=\"%.6g\" x2=\"%.6g\" y2=\"%.6g\"/>\n",
                  class, x1, y1, x2, y2);
}

void svg_text(struct svg *s, double x, double y, const char *class, const char *anchor,
              const char *text)
{
    (void)fprintf(s->f, "<text class=\"%s\" x=\"%.6g\" y=\"%.6g\" text-anchor=\"%s\">", class, x, y,
                  anchor);
    put_text(s->f, text);
    (void)fputs("</text>\n", s->f);
}

void svg_text_within(struct svg *s, double x, double y, double w, const char *class,
                     const char *text)
{
    size_t fit = w > 0 ? (size_t)(w / LETTER) : 0, letters = 0, bytes = 0;
    char cut[256];

    while (text[bytes] && bytes < sizeof(cut) - 8) {
        letters += ((unsigned char)text[bytes] & 0xc0) != 0x80; /* UTF-8: not a letter's rest */
        if (letters > fit)
            break;
        bytes++;
    }
    if (fit < 2)
        return;
    (void)snprintf(cut, sizeof(cut), "%.*s", (int)bytes, text);
    svg_text(s, x, y, class, "start", cut);
}

void svg_text_up(struct svg *s, double x, double y, const char *class, const char *text)
{
    (void)fprintf(s->f,
                  "<text class=\"%s\" x=\"%.6g\" y=\"%.6g\" text-anchor=\"middle\" "
                  "transform=\"rotate(-90 %.6g %.6g)\">",
                  class, x, y, x, y);
    put_text(s->f, text);
    (void)fputs("</text>\n", s->f);
}

void svg_curve(struct svg *s, const double *x, const double *y, uint32_t n, int hue,
               const char *tip)
{
    (void)fprintf(s->f, "<polyline class=\"curve\" style=\"stroke:hsl(%d,70%%,50%%)\" points=\"",
                  hue);
    for (uint32_t i = 0; i < n; i++)
        (void)fprintf(s->f, "%s%.6g,%.6g", i ? " " : "", x[i], y[i]);
    (void)fputs("\"><title>", s->f);
    put_text(s->f, tip);
    (void)fputs("</title></polyline>\n", s->f);
    for (uint32_t i = 0; i < n; i++)
        (void)fprintf(s->f,
                      "<circle cx=\"%.6g\" cy=\"%.6g\" r=\"2.5\" "
                      "style=\"fill:hsl(%d,70%%,50%%)\"/>\n",
                      x[i], y[i], hue);
}
