#include "base/log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>

void
bk_warn(const struct bk_log *log, const char *fmt, ...)
{
    char message[1024];
    va_list args;

    if (log == NULL || log->warn == NULL)
        return;
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    log->warn(log->ctx, message);
}

void
bk_progress(const struct bk_log *log, uint64_t done, uint64_t total)
{
    if (log != NULL && log->progress != NULL)
        log->progress(log->ctx, done, total);
}

int
bk_cancelled(const struct bk_cancel *c)
{
    struct pollfd p = {.fd = c == NULL ? -1 : c->fd, .events = POLLIN};

    return p.fd >= 0 && poll(&p, 1, 0) == 1;
}
