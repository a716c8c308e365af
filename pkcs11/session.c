#include "pkcs11/session.h"

static enum bk_code
open_handle(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE *out, struct bk_err *err)
{
    CK_FLAGS flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;

    if ((t->info.flags & CKF_WRITE_PROTECTED) == 0) {
        /* read-write first: some tokens refuse read-only sessions altogether */
        if (P11_CALL(port, C_OpenSession, t->slot, flags, NULL, NULL, out) == CKR_OK)
            return BK_OK;
        if (port->rv != CKR_TOKEN_WRITE_PROTECTED && port->rv != CKR_SESSION_READ_ONLY)
            return p11_call_fail_as(port, BK_E_TOKEN, err, "opening a session");
    }
    if (P11_CALL(port, C_OpenSession, t->slot, CKF_SERIAL_SESSION, NULL, NULL, out) == CKR_OK)
        return BK_OK;
    return p11_call_fail_as(port, BK_E_TOKEN, err, "opening a session");
}

enum bk_code
p11_session_handle(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE *out, struct bk_err *err)
{
    enum bk_code rc = open_handle(t, port, out, err);

    if (rc == BK_OK)
        atomic_fetch_add(&t->module->sessions, 1);
    return rc;
}

void
p11_session_handle_close(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE session)
{
    (void)P11_CALL(port, C_CloseSession, session);
    atomic_fetch_sub(&t->module->sessions, 1);
}

enum bk_code
p11_session_open(struct p11_session *s, struct p11_token *t, struct bk_err *err)
{
    struct p11_session made = {
        .token = t,
        .port = {.list = t->module->port.list, .hook = &t->owner->hook, .where = t->where},
    };
    enum bk_code rc = p11_session_handle(t, &made.port, &made.handle, err);

    if (rc != BK_OK)
        return rc;
    made.open = 1;
    *s = made;
    return BK_OK;
}

void
p11_session_close(struct p11_session *s)
{
    if (s->open)
        p11_session_handle_close(s->token, &s->port, s->handle);
    s->open = 0;
}
