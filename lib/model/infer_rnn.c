/* Shape rule of RNN, GRU and LSTM; kernels/ref/rnn.c says which input has which shape. */
#include "infer.h"

struct rnn {
    int64_t steps, batch, input, hidden, dirs, rows; /* rows: gates x hidden */
    bool batch_first;
};

static int rnn_read(struct infer *c, struct rnn *q)
{
    const struct tensor *x = c->in[0], *w = c->in[1], *r = c->in[2];
    const char *direction = node_str(c->n, "direction", "forward");
    int64_t layout = node_int(c->n, "layout", 0);
    int64_t gates = c->n->op == OP_RNN ? 1 : c->n->op == OP_GRU ? 3 : 4;

    if (x->rank != 3 || w->rank != 3 || r->rank != 3)
        return err_set(c->err, -EINVAL, "X, W and R of rank %u, %u and %u, not 3", x->rank, w->rank,
                       r->rank);
    if (!STREQ(direction, "forward") && !STREQ(direction, "reverse") &&
        !STREQ(direction, "bidirectional"))
        return err_set(c->err, -EINVAL, "direction '%.32s'", direction);
    if (layout != 0 && layout != 1)
        return err_set(c->err, -EINVAL, "layout %lld", (long long)layout);
    q->batch_first = layout == 1;
    q->steps = x->dims[layout];
    q->batch = x->dims[1 - layout];
    q->input = x->dims[2];
    q->hidden = r->dims[2];
    q->dirs = STREQ(direction, "bidirectional") ? 2 : 1;
    q->rows = gates * q->hidden;
    int64_t named = node_int(c->n, "hidden_size", q->hidden);
    if (named != q->hidden)
        return err_set(c->err, -EINVAL, "hidden_size is %lld, but R has %lld", (long long)named,
                       (long long)q->hidden);
    return 0;
}

int infer_rnn(struct infer *c)
{
    struct rnn q = {0};
    const struct tensor *lens = infer_in(c, 4);
    int rc = rnn_read(c, &q);

    if (rc < 0)
        return rc;
    bool first = q.batch_first;
    const int64_t state[] = {first ? q.batch : q.dirs, first ? q.dirs : q.batch, q.hidden};
    if ((rc = infer_shaped(c, 1, 3, (int64_t[]){q.dirs, q.rows, q.input})) < 0 ||
        (rc = infer_shaped(c, 2, 3, (int64_t[]){q.dirs, q.rows, q.hidden})) < 0 ||
        (rc = infer_shaped(c, 3, 2, (int64_t[]){q.dirs, 2 * q.rows})) < 0 ||
        (rc = infer_shaped(c, 4, 1, (int64_t[]){q.batch})) < 0 ||
        (rc = infer_shaped(c, 5, 3, state)) < 0 || (rc = infer_shaped(c, 6, 3, state)) < 0 ||
        (rc = infer_shaped(c, 7, 2, (int64_t[]){q.dirs, 3 * q.hidden})) < 0)
        return rc;
    if (lens && lens->dtype != DT_INT32)
        return err_set(c->err, -EINVAL, "sequence_lens of type %s, not INT32",
                       dtype_name(lens->dtype));
    const int64_t y[2][4] = {{q.steps, q.dirs, q.batch, q.hidden},
                             {q.batch, q.steps, q.dirs, q.hidden}};
    rc = infer_out(c, 0, c->in[0]->dtype, 4, y[first]);
    for (uint32_t i = 1; rc == 0 && i < c->n->n_out; i++)
        rc = infer_out(c, i, c->in[0]->dtype, 3, state);
    return rc;
}
