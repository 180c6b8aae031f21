/* POST /v1/faults: something goes wrong on a simulated device, so that what happens then can be
 * tried. */
#include "daemon.h"
#include <gpulet/sim.h>

static bool is_simulated(struct exchange *x)
{
    AUTO(engine_view_free) struct engine_view *v = NULL;
    struct err err = {0};

    if (engine_view(gpuletd_of(x)->engine, &v, &err) < 0) {
        exchange_reply_err(x, &err, USEC_PER_SEC);
        return false;
    }
    if (v->n_devices > 0 && v->device[0].mode == MODE_SIM)
        return true;
    exchange_reply_error(x, 404, "faults are for the sim backend only");
    return false;
}

void faults_post(struct exchange *x)
{
    struct sim_fault f;
    struct err err = {0};
    struct arena a;

    if (!is_simulated(x))
        return;
    arena_init(&a);
    if (sim_fault_parse(x->body, x->body_bytes, &a, &f, &err) < 0 || sim_inject(&f, &err) < 0)
        exchange_reply_err(x, &err, USEC_PER_SEC);
    else
        api_reply_json(x, 200, json_object());
    arena_done(&a);
}
