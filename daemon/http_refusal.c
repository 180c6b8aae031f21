/* libmicrohttpd answers broken framing before any code of ours sees it, in HTML, and has no hook
 * for that.  But it queues those answers through its public MHD_queue_response(), and calls that
 * like any other program would: by name.  This file defines the name, so that the call comes here.
 * Our replies go to the library's own function directly.
 *
 * docs/adr/0007 says why; test/http/test_framing.py fails where this has no effect. */
#include "http_refusal.h"
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>

typedef enum MHD_Result queue_fn(struct MHD_Connection *con, unsigned status,
                                 struct MHD_Response *reply);

static _Atomic(http_refused_fn *) refused;

/* By status; %u is the bytes that a head may have.  The library tells us no more. */
static const struct {
    unsigned status;
    const char *text;
} sentences[] = {
    {MHD_HTTP_BAD_REQUEST, "the request is not HTTP: its request line, a header, its "
                           "Content-Length or the size of a chunk is malformed"},
    {MHD_HTTP_CONTENT_TOO_LARGE, "the length of the body, or of a chunk of it, is beyond 64 bits"},
    {MHD_HTTP_URI_TOO_LONG, "the request line is too long: a head may have some %u bytes"},
    {MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE,
     "the headers are too long: a head may have some %u bytes"},
    {MHD_HTTP_HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here"},
};

void http_refusal_text(unsigned status, uint32_t head_bytes, char *ret, size_t size)
{
    const char *text = "the request cannot be served";
    char *at;

    for (size_t i = 0; i < ARRAY_SIZE(sentences); i++)
        if (sentences[i].status == status)
            text = sentences[i].text;
    at = strstr(text, "%u");
    if (at)
        (void)snprintf(ret, size, "{\"error\":\"%.*s%u%s\"}", (int)(at - text), text, head_bytes,
                       at + 2);
    else
        (void)snprintf(ret, size, "{\"error\":\"%s\"}", text);
}

static queue_fn *library_queue(void)
{
    static _Atomic(queue_fn *) found;
    queue_fn *fn = atomic_load_explicit(&found, memory_order_relaxed);

    if (!fn) {
        fn = (queue_fn *)dlsym(RTLD_NEXT, "MHD_queue_response");
        atomic_store_explicit(&found, fn, memory_order_relaxed);
    }
    return fn;
}

int http_refusals_take(http_refused_fn *fn, struct err *err)
{
    if (!library_queue())
        return err_set(err, -ENOTSUP, "libmicrohttpd is not a shared library");
    refused = fn;
    return 0;
}

enum MHD_Result http_reply_queue(struct MHD_Connection *con, unsigned status,
                                 struct MHD_Response *reply)
{
    return library_queue()(con, status, reply);
}

/* Called by the library; and by a program that is linked with this file but takes no refusals (a
 * bench). */
__attribute__((visibility("default"))) enum MHD_Result
MHD_queue_response(struct MHD_Connection *con, unsigned status, struct MHD_Response *reply)
{
    http_refused_fn *fn = atomic_load_explicit(&refused, memory_order_relaxed);

    if (fn)
        fn(con, status & ~(unsigned)MHD_ICY_FLAG);
    return http_reply_queue(con, status, reply);
}
