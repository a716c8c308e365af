/* What could not be used (a module that does not start, a token that cannot be read), kept until it may matter. */
#ifndef BK_PKCS11_LEFT_OUT_H
#define BK_PKCS11_LEFT_OUT_H

#include "pkcs11/state.h"

/* More than this many are not told apart: a broken machine, and one of them is enough to begin with. */
#define P11_LEFT_OUT_MAX 16

/* Remembers one sentence, once; p11_say_left_out tells it. Under the lock. Without memory it is forgotten. */
void p11_left_out_add(struct p11 *p, const char *fmt, ...) BK_PRINTF(2, 3);

/* p11_say_left_out if rc is that of a search that found no token or no key. */
void p11_left_out_explain(struct p11 *p, enum bk_code rc);

void p11_left_out_free(struct p11 *p);

#endif
