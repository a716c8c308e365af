/* Sessions: one for each key that is open, used by one thread at a time. */
#ifndef BK_PKCS11_SESSION_H
#define BK_PKCS11_SESSION_H

#include "pkcs11/token.h"

struct p11_session {
    struct p11_token *token;
    struct p11_port port;
    CK_SESSION_HANDLE handle;
    int open;
    unsigned epoch; /* of the token, when it was lent or opened */
    int lent;       /* it is the one that keeps the token logged in */
};

/*
 * A serial session, read-write where the token lets us: the one that keeps the token logged in unless somebody has
 * that, else a new one. Where all sessions of the device are in use it waits for half a minute. The caller closes.
 */
BK_MUST_USE enum bk_code p11_session_open(struct p11_session *s, struct p11_token *t, struct bk_err *err);
/* A new one, whose objects vanish when it is closed. */
BK_MUST_USE enum bk_code p11_session_open_own(struct p11_session *s, struct p11_token *t, struct bk_err *err);
/* A session that was lent goes back, if no call on it has failed; all others are closed. Safe on the zeroed value and
 * twice. */
void p11_session_close(struct p11_session *s);

/* The bare handle, for the session that keeps a token logged in. */
BK_MUST_USE enum bk_code p11_session_handle(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE *out,
                                            struct bk_err *err);
void p11_session_handle_close(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE session);

#endif
