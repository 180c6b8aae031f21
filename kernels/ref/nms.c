/* NonMaxSuppression: of boxes that overlap, the one with the best score. */
#include "kit.h"

struct box {
    float y0, x0, y1, x1; /* y0 <= y1, x0 <= x1 */
};

struct candidate {
    float score;
    int64_t at; /* which box */
};

static struct box box_at(const struct tensor *boxes, int64_t at, bool centred)
{
    float v[4];

    for (unsigned i = 0; i < 4; i++)
        v[i] = (float)num_get(boxes, at * 4 + i).f;
    if (centred) /* x, y, width, height */
        return (struct box){v[1] - v[3] / 2, v[0] - v[2] / 2, v[1] + v[3] / 2, v[0] + v[2] / 2};
    return (struct box){MIN(v[0], v[2]), MIN(v[1], v[3]), MAX(v[0], v[2]), MAX(v[1], v[3])};
}

static float area(const struct box *b)
{
    return (b->y1 - b->y0) * (b->x1 - b->x0);
}

static bool overlap(const struct box *a, const struct box *b, float threshold)
{
    float h = MIN(a->y1, b->y1) - MAX(a->y0, b->y0), w = MIN(a->x1, b->x1) - MAX(a->x0, b->x0);
    float both = MAX(h, 0) * MAX(w, 0), all = area(a) + area(b) - both;

    return both > 0 && area(a) > 0 && area(b) > 0 && all > 0 && both / all > threshold;
}

/* The best first; of equals, the one that comes first. */
static int better_first(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

struct suppression {
    const struct tensor *boxes, *scores;
    bool centred;
    int64_t most, n_boxes;
    float iou;
    const float *least;   /* score; NULL: any */
    struct candidate *c;  /* [n_boxes] */
    struct box *selected; /* [most] */
};

static int64_t candidates(const struct suppression *s, int64_t row)
{
    int64_t n = 0;

    for (int64_t i = 0; i < s->n_boxes; i++) {
        float score = (float)num_get(s->scores, row * s->n_boxes + i).f;
        if (score == score && (!s->least || score > *s->least))
            s->c[n++] = (struct candidate){score, i};
    }
    qsort(s->c, (size_t)n, sizeof(*s->c), better_first);
    return n;
}

/* One class of one image: what is selected goes to y from row *rows on. */
static void select_class(const struct suppression *s, int64_t image, int64_t class, int64_t classes,
                         const struct tensor *y, int64_t *rows)
{
    int64_t n = candidates(s, image * classes + class), taken = 0;

    for (int64_t i = 0; i < n && taken < s->most; i++) {
        struct box b = box_at(s->boxes, image * s->n_boxes + s->c[i].at, s->centred);
        bool free_of_others = true;
        for (int64_t k = 0; k < taken && free_of_others; k++)
            free_of_others = !overlap(&b, &s->selected[k], s->iou);
        if (!free_of_others)
            continue;
        s->selected[taken++] = b;
        num_put(y, *rows * 3, (union num){.i = image});
        num_put(y, *rows * 3 + 1, (union num){.i = class});
        num_put(y, *rows * 3 + 2, (union num){.i = s->c[i].at});
        (*rows)++;
    }
}

static float float_or_zero(const struct tensor *t)
{
    return t && ref_count(t) > 0 ? (float)num_get(t, 0).f : 0;
}

static int suppress(const struct node *n, struct suppression *s, struct tensor *y, struct err *err)
{
    int64_t images = s->scores->dims[0], classes = s->scores->dims[1], rows = 0;

    if (y->dtype != DT_INT64 || y->rank != 2 || y->dims[1] != 3 ||
        y->dims[0] < images * classes * s->most)
        return ref_fail(n, err, -EINVAL, "the output has not room for all boxes");
    for (int64_t i = 0; i < images * classes && s->most > 0; i++)
        select_class(s, i / classes, i % classes, classes, y, &rows);
    y->dims[0] = rows;
    y->bytes = (size_t)rows * 3 * sizeof(int64_t);
    return 0;
}

REF_FN(ref_non_max_suppression)
{
    const struct tensor *boxes = in[0], *scores = in[1], *most = ref_in(n, in, 2),
                        *least = ref_in(n, in, 4);
    const struct tensor *const all[] = {boxes, scores};
    float threshold = float_or_zero(least);
    int r = ref_floats(n, all, ARRAY_SIZE(all), err);

    if (r < 0)
        return r;
    if (boxes->rank != 3 || scores->rank != 3 || boxes->dims[2] != 4 ||
        boxes->dims[0] != scores->dims[0] || boxes->dims[1] != scores->dims[2])
        return ref_fail(n, err, -EINVAL, "boxes and scores do not go together");
    struct suppression s = {.boxes = boxes,
                            .scores = scores,
                            .centred = node_int(n, "center_point_box", 0) != 0,
                            .n_boxes = boxes->dims[1],
                            .iou = float_or_zero(ref_in(n, in, 3)),
                            .least = least ? &threshold : NULL};
    s.most = most && ref_count(most) > 0 ? num_get(most, 0).i : 0;
    s.most = MIN(MAX(s.most, 0), s.n_boxes);
    AUTO(ref_drop) struct candidate *c = ref_scratch((size_t)s.n_boxes + 1, sizeof(*c));
    AUTO(ref_drop) struct box *selected = ref_scratch((size_t)s.most + 1, sizeof(*selected));
    if (!c || !selected)
        return ref_fail(n, err, -ENOMEM, "out of memory");
    s.c = c;
    s.selected = selected;
    return suppress(n, &s, out[0], err);
}
