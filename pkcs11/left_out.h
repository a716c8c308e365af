/* What could not be used (a module that does not start, a token that cannot be read), kept until it may matter. */
#ifndef BK_PKCS11_LEFT_OUT_H
#define BK_PKCS11_LEFT_OUT_H

#include <pthread.h>

#include "pkcs11/p11.h"

/* More than this many are not told apart: a broken machine, and one of them is enough to begin with. */
#define P11_LEFT_OUT_MAX 16

struct p11_left_out_item;

struct p11_left_out {
    pthread_mutex_t lock;
    const struct bk_log *log;
    struct p11_left_out_item *first;
};

/* The one that belongs to a run; whoever implements on_token.h has it. */
struct p11_left_out *p11_left_out_of(struct p11 *p);

BK_MUST_USE enum bk_code p11_left_out_init(struct p11_left_out *l, const struct bk_log *log, struct bk_err *err);
void p11_left_out_free(struct p11_left_out *l);

/* Remembers one sentence, once; p11_say_left_out tells it. Without memory it is forgotten. */
void p11_left_out_add(struct p11 *p, const char *fmt, ...) BK_PRINTF(2, 3);

/* p11_say_left_out if rc is that of a search that found no token or no key. */
void p11_left_out_explain(struct p11 *p, enum bk_code rc);

/* Gives each sentence that was not told yet to say, as told. */
void p11_left_out_take(struct p11_left_out *l, void (*say)(void *ctx, const char *text), void *ctx);

#endif
