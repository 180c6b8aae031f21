/* Refusals by libmicrohttpd itself: what is not HTTP never reaches a handler. */
#pragma once

#include <gpulet/base.h>
#include <microhttpd.h>

/* Called when the library has decided to refuse a request, before it says so. */
typedef void http_refused_fn(struct MHD_Connection *con, unsigned status);

/* From now on fn is called.  -ENOTSUP: it cannot be, because the library is no shared one. */
int http_refusals_take(http_refused_fn *fn, struct err *err);
/* The error for it, as JSON; head_bytes is what the head of a request may have. */
void http_refusal_text(unsigned status, uint32_t head_bytes, char *ret, size_t size);
/* Our own replies: MHD_queue_response() of the library. */
enum MHD_Result http_reply_queue(struct MHD_Connection *con, unsigned status,
                                 struct MHD_Response *reply);
