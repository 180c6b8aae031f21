/* A convolution some rows of its batch at a time.
 *
 * Winograd's forms hold all pixels transformed, 4.5 times the input and the result together: for
 * a batch of large images that is more than all weights and activations.  Then the batch is done
 * in equal parts, each a step with a primitive of its own, which use the same memory in turn. */
#include "lower.h"

/* A part is so much work that reading the weights once more is little beside it. */
#define PART_SCRATCH_BYTES (100u << 20)

static bool reads_beside(const struct dn_conv *c)
{
    for (uint32_t i = 0; i < c->n_post; i++)
        if (c->post[i].kind == DN_ADD)
            return true;
    return false;
}

static int make_part(struct build *b, const struct dn_conv *c, const struct prim *whole,
                     int64_t rows, struct prim *ret)
{
    struct dn_conv part = *c;

    part.weights = whole->weights; /* they are packed once */
    if (layout_rows_of(&part.src, &whole->src, rows) < 0 ||
        layout_rows_of(&part.dst, &whole->dst, rows) < 0)
        return -ENOTSUP;
    return dn_conv(&b->part->dev->dn, &part, ret);
}

/* The most rows that divide the batch and need no more than the bound; the whole batch where none
 * do with less. */
static int64_t rows_of_part(struct build *b, const struct dn_conv *c, const struct prim *whole)
{
    int64_t batch = whole->src.dims[0], best = batch;
    size_t bytes = whole->scratch_bytes;

    if (c->alg == DN_DIRECT || reads_beside(c))
        return batch;
    for (int64_t rows = batch / 2; rows > 0 && bytes > PART_SCRATCH_BYTES; rows--) {
        struct prim p;
        if (batch % rows != 0 || make_part(b, c, whole, rows, &p) < 0)
            continue;
        if (p.scratch_bytes < bytes) {
            bytes = p.scratch_bytes;
            best = rows;
        }
        prim_done(&p);
    }
    return best;
}

static void move_to(struct arg *a, const struct layout *part, int64_t i)
{
    a->ref.offset = (size_t)i * part->bytes;
    a->md = &part->md;
}

int build_conv(struct build *b, const struct dn_conv *c, struct prim *p, uint32_t n,
               struct arg *args)
{
    int64_t batch = p->src.dims[0], rows = rows_of_part(b, c, p);
    int r = 0;

    if (rows == batch)
        return build_prim(b, p, n, args);
    for (int64_t i = 0; i < batch / rows && r == 0; i++) {
        struct prim part;
        if (make_part(b, c, p, rows, &part) < 0)
            r = build_fail(b, -ENOTSUP, "no implementation for a part of the batch");
        for (uint32_t k = 0; k < n && r == 0; k++)
            if (args[k].name == DNNL_ARG_SRC)
                move_to(&args[k], &part.src, i);
            else if (args[k].name == DNNL_ARG_DST)
                move_to(&args[k], &part.dst, i);
        if (r == 0)
            r = build_prim(b, &part, n, args);
    }
    prim_done(p);
    return r;
}
