/*
 * The one place that every C_* call goes through: it remembers the name of the call and its CK_RV, words the error, and
 * lets a hook trace calls or make one fail. Internal to pkcs11/.
 */
#ifndef BK_PKCS11_CALL_H
#define BK_PKCS11_CALL_H

#include <p11-kit/pkcs11.h>

#include "base/err.h"

/* What may watch the calls of a run. before answers CKR_OK to let a call through, or the value it shall fail with. */
struct p11_hook {
    void *ctx;
    CK_RV (*before)(void *ctx, const char *call);
    void (*after)(void *ctx, const char *call, CK_RV rv);
};

/* One thread's way into one module. where is words for messages, as in "token 'bk'", and outlives the port. */
struct p11_port {
    CK_FUNCTION_LIST *list;
    const struct p11_hook *hook;
    const char *where;
    const char *call; /* the last call, and what came of it */
    CK_RV rv;
    int spoiled; /* a call has failed that may have left something behind: an operation, a lock, half a state */
};

int p11_call_admit(struct p11_port *port, const char *call);
CK_RV p11_call_done(struct p11_port *port, CK_RV rv);

/* P11_CALL(&session->port, C_Login, handle, ...) is the call's CK_RV. port is evaluated more than once. */
#define P11_CALL(port, fn, ...)                                                                                        \
    (p11_call_admit((port), #fn) ? p11_call_done((port), (port)->list->fn(__VA_ARGS__)) : (port)->rv)

/* The error for the last call on port: code by the class of its CK_RV, "where: doing: C_Call: CKR_NAME". */
BK_MUST_USE enum bk_code p11_call_fail(const struct p11_port *port, struct bk_err *err, const char *fmt, ...)
    BK_PRINTF(3, 4);
/* The same with the code chosen by the caller, who knows more than the CK_RV says. */
BK_MUST_USE enum bk_code p11_call_fail_as(const struct p11_port *port, enum bk_code code, struct bk_err *err,
                                          const char *fmt, ...) BK_PRINTF(4, 5);

/* The same for a call that was given nothing but what we made: what would blame data that came in (BK_E_VERIFY) is
 * BK_E_UNSUPPORTED. */
BK_MUST_USE enum bk_code p11_call_fail_own(const struct p11_port *port, struct bk_err *err, const char *doing);

/* The name under which a hook hears of a login that waits for a person at the token's own keypad. */
#define P11_KEYPAD_LOGIN "C_Login at the keypad"

/* What a handle is before a module has written it: one that answers CKR_OK and writes none must not make us use, or
 * destroy, the object 0. */
#define P11_NO_HANDLE CK_UNAVAILABLE_INFORMATION

#endif
