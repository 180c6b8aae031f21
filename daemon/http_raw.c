#include "http_raw.h"
#include <microhttpd.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

bool http_raw_send(int fd, const struct raw_reply *r)
{
    char head[300], date[40];
    size_t bytes = strlen(r->json);
    time_t now = time(NULL);
    struct tm tm;

    (void)strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    int n = snprintf(head, sizeof(head),
                     "HTTP/1.1 %u %s\r\nDate: %s\r\n%s%sContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n",
                     r->status, MHD_get_reason_phrase_for(r->status), date,
                     r->close ? "Connection: close\r\n" : "",
                     r->status == 503 ? "Retry-After: 1\r\n" : "", bytes);
    struct iovec iov[2] = {{head, (size_t)n}, {(void *)(uintptr_t)r->json, bytes}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = r->bodiless ? 1 : 2};

    return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) ==
           (ssize_t)(iov[0].iov_len + (r->bodiless ? 0 : bytes));
}
