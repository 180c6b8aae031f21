/* A small SVG writer: enough for a diagram that a browser shows in light and in dark. */
#pragma once

#include "cli.h"

struct svg {
    FILE *f;
    const char *path;
};

/* Open tags, style, title (escaped, like every text).  svg_close() says what went wrong since. */
int svg_open(const char *path, double width, double height, const char *title, struct svg *ret,
             struct err *err);
int svg_close(struct svg *s, struct err *err);

/* class: of the style in svg.c; hue: 0..359, < 0: the class's own colour; tip: shown under the
 * pointer, NULL: none. */
void svg_rect(struct svg *s, double x, double y, double w, double h, const char *class, int hue,
              const char *tip);
void svg_line(struct svg *s, double x1, double y1, double x2, double y2, const char *class);
/* anchor: start, middle, end */
void svg_text(struct svg *s, double x, double y, const char *class, const char *anchor,
              const char *text);
/* Cut so that it fits; nothing at all where not even two letters do. */
void svg_text_within(struct svg *s, double x, double y, double w, const char *class,
                     const char *text);
void svg_text_up(struct svg *s, double x, double y, const char *class, const char *text);
void svg_curve(struct svg *s, const double *x, const double *y, uint32_t n, int hue,
               const char *tip);
