/* What ops/ tells the program while it works. The program decides what a person sees; nothing below cmd/ prints. */
#ifndef BK_BASE_LOG_H
#define BK_BASE_LOG_H

#include <stdint.h>

#include "base/err.h"

struct bk_log {
    void *ctx;
    /* Something that the operator should know though the work goes on. NULL: nobody listens. */
    void (*warn)(void *ctx, const char *message);
    /* done of total bytes (total 0: unknown). Called from one thread, at most once a group. NULL: nobody listens. */
    void (*progress)(void *ctx, uint64_t done, uint64_t total);
};

/* log may be NULL. */
void bk_warn(const struct bk_log *log, const char *fmt, ...) BK_PRINTF(2, 3);
void bk_progress(const struct bk_log *log, uint64_t done, uint64_t total);

/*
 * A request to stop, made from a signal handler by writing to an eventfd and heard by every blocking read and write in
 * store/. fd is -1 when there is nobody to cancel. It stays readable once set.
 */
struct bk_cancel {
    int fd;
};

/* 1 if a stop was asked for. */
int bk_cancelled(const struct bk_cancel *c);

#endif
