/* Logging in: one PIN, asked for once, tried once (docs/TOKENS.md, rule 8). */
#include <string.h>

#include "pkcs11/rv.h"
#include "pkcs11/session.h"
#include "pkcs11/token.h"

static enum bk_code
failed_before(const struct p11_token *t, struct bk_err *err)
{
    return bk_fail(err, t->failed, "%s: %s earlier in this run and is not tried again", t->where,
                   t->failed == BK_E_PIN ? "the PIN was refused" : "logging in failed");
}

/* What a token says of the PIN that is wanted, for the user's and the officer's. */
enum pin_state { COUNT_LOW, FINAL_TRY, LOCKED };

static int
pin_is(const struct p11_token *t, CK_FLAGS flags, enum pin_state state)
{
    static const CK_FLAGS of_user[] = {CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED};
    static const CK_FLAGS of_officer[] = {CKF_SO_PIN_COUNT_LOW, CKF_SO_PIN_FINAL_TRY, CKF_SO_PIN_LOCKED};

    return (flags & (t->officer ? of_officer : of_user)[state]) != 0;
}

static enum bk_code
ask(struct p11_token *t, const struct p11_uri *uri, CK_FLAGS flags, struct bk_err *err)
{
    const struct p11_options *o = &t->owner->options;
    struct p11_pin_request request = {
        .token_label = t->label,
        .token_serial = t->serial,
        .pin_source = uri == NULL ? NULL : uri->pin_source,
        .count_low = pin_is(t, flags, COUNT_LOW),
        .final_try = pin_is(t, flags, FINAL_TRY),
        .security_officer = t->officer,
    };
    enum bk_code rc;

    if (t->pin_asked || o->pin == NULL)
        return bk_fail(err, BK_E_PIN, "%s: no PIN is to be had", t->where);
    t->pin_asked = 1;
    rc = o->pin(o->pin_ctx, &request, &t->pin, err);
    if (rc == BK_OK && (t->pin.data == NULL || t->pin.len == 0))
        /* an empty PIN may count as a wrong try */
        rc = bk_fail(err, BK_E_PIN, "%s: the PIN is empty, so it was not tried", t->where);
    if (rc != BK_OK)
        bk_secret_wipe(&t->pin);
    return rc;
}

/* Fills t->pin, from the URI if it carries one. */
static enum bk_code
get_pin(struct p11_token *t, const struct p11_uri *uri, CK_FLAGS flags, struct bk_err *err)
{
    enum bk_code rc;

    if (t->pin.data != NULL)
        return BK_OK;
    if (uri == NULL || uri->pin_value.data == NULL)
        return ask(t, uri, flags, err);
    if (pin_is(t, flags, FINAL_TRY)) {
        rc = bk_fail(err, BK_E_PIN, "%s: one more wrong PIN locks the token, so the PIN in the URI was not tried",
                     t->where);
        bk_err_hint(err, "leave pin-value out of the URI and type the PIN at a terminal");
        return rc;
    }
    return bk_secret_from(&t->pin, uri->pin_value.data, uri->pin_value.len, err);
}

/* Whoever restarts this by itself spends the tries that are left. */
static void
hint_refused(struct bk_err *err)
{
    bk_err_hint(err, "each wrong PIN brings the token nearer to locking: check the PIN and where it comes from before "
                     "anything starts this again");
}

static enum bk_code
login_refused(struct p11_token *t, const struct p11_port *port, struct bk_err *err)
{
    enum bk_code rc;

    t->failed = BK_E_PIN;
    switch (port->rv) {
    case CKR_PIN_LOCKED:
        return p11_call_fail_as(port, BK_E_PIN, err, "the PIN is locked");
    case CKR_PIN_EXPIRED:
        return p11_call_fail_as(port, BK_E_PIN, err, "the PIN has expired and must be changed");
    case CKR_USER_PIN_NOT_INITIALIZED:
        return p11_call_fail_as(port, BK_E_PIN, err, "no user PIN was ever set on this token");
    default:
        rc = p11_call_fail_as(port, BK_E_PIN, err, "the PIN was refused and is not tried again");
        hint_refused(err);
        return rc;
    }
}

static CK_RV
login_at_keypad(struct p11_port *port, CK_SESSION_HANDLE session, CK_USER_TYPE user)
{
    if (!p11_call_admit(port, P11_KEYPAD_LOGIN))
        return port->rv;
    return p11_call_done(port, port->list->C_Login(session, user, NULL, 0));
}

/* One C_Login with the PIN that is there, or with none where the token has its own keypad. */
static enum bk_code
login_call(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE session, CK_USER_TYPE user, struct bk_err *err)
{
    CK_RV rv = t->pin.data == NULL ? login_at_keypad(port, session, user)
                                   : P11_CALL(port, C_Login, session, user, t->pin.data, (CK_ULONG)t->pin.len);

    /* somebody in this process was first: the token did not look at our PIN, and need not */
    if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN)
        return BK_OK;
    bk_secret_wipe(&t->pin);
    if (p11_rv_code(rv) == BK_E_PIN)
        return login_refused(t, port, err);
    /* it may have counted as a wrong PIN all the same: some tokens have only one code for everything */
    t->failed = BK_E_TOKEN;
    return p11_call_fail_as(port, BK_E_TOKEN, err, "logging in failed and is not tried again");
}

/* 1 if t->session is there and logged in; a session that died is let go. One that is lent is its user's, who finds out
 * himself. */
static int
session_alive(struct p11_token *t, struct p11_port *port)
{
    CK_SESSION_INFO info = {0};

    if (!t->session_open)
        return 0;
    if (t->session_lent)
        return t->logged_in;
    if (P11_CALL(port, C_GetSessionInfo, t->session, &info) != CKR_OK) {
        p11_session_handle_close(t, port, t->session);
        t->session_open = 0;
        t->logged_in = 0;
        return 0;
    }
    if (t->officer)
        return info.state == CKS_RW_SO_FUNCTIONS;
    return info.state == CKS_RO_USER_FUNCTIONS || info.state == CKS_RW_USER_FUNCTIONS;
}

/* The state of the PIN now. A token that seems to be another one, or to have lost its PIN, is looked at again. */
static enum bk_code
read_state(struct p11_token *t, struct p11_port *port, CK_TOKEN_INFO *info, struct bk_err *err)
{
    CK_FLAGS had_pin = t->info.flags & CKF_USER_PIN_INITIALIZED;

    for (int tries = 0;; tries++) {
        CK_RV rv;

        memset(info, 0, sizeof *info);
        rv = P11_CALL(port, C_GetTokenInfo, t->slot, info);
        if (rv == CKR_OK && p11_token_is_same(t, info) && (info->flags & had_pin) == had_pin)
            return BK_OK;
        if ((rv == CKR_OK || p11_rv_is_vague(rv)) && p11_token_look_again(tries))
            continue;
        if (rv != CKR_OK)
            return p11_call_fail_as(port, BK_E_TOKEN, err, "reading the state of the PIN");
        if (!p11_token_is_same(t, info))
            return bk_fail(err, BK_E_TOKEN, "%s: another token is in its slot now, so no PIN was tried", t->where);
        return BK_OK;
    }
}

/* Reads the state of the PIN anew, and readies one unless the token has its own keypad. */
static enum bk_code
prepare_pin(struct p11_token *t, struct p11_port *port, const struct p11_uri *uri, struct bk_err *err)
{
    CK_TOKEN_INFO info = {0};
    enum bk_code rc;

    if ((rc = read_state(t, port, &info, err)) != BK_OK)
        return rc;
    if (pin_is(t, info.flags, LOCKED))
        return bk_fail(err, BK_E_PIN, "%s: the token says that its PIN is locked, so none was tried", t->where);
    if ((info.flags & CKF_PROTECTED_AUTHENTICATION_PATH) == 0)
        return get_pin(t, uri, info.flags, err);
    /* the token waits for a person, who would otherwise see a program that hangs */
    bk_warn(t->owner->options.log, "%s: waits for its PIN at its own keypad", t->where);
    return BK_OK;
}

static enum bk_code
login_fresh(struct p11_token *t, struct p11_port *port, const struct p11_uri *uri, struct bk_err *err)
{
    enum bk_code rc;

    if (t->failed != BK_OK)
        return failed_before(t, err);
    if ((rc = prepare_pin(t, port, uri, err)) != BK_OK)
        return rc;
    return login_call(t, port, t->session, t->officer ? CKU_SO : CKU_USER, err);
}

int
p11_token_is_open(struct p11_token *t)
{
    int open;

    pthread_mutex_lock(&t->owner->lock);
    open = t->logged_in || (t->info.flags & CKF_LOGIN_REQUIRED) == 0;
    pthread_mutex_unlock(&t->owner->lock);
    return open;
}

static enum bk_code
login_locked(struct p11_token *t, struct p11_port *port, const struct p11_uri *uri, struct bk_err *err)
{
    enum bk_code rc;

    if ((t->info.flags & CKF_LOGIN_REQUIRED) == 0)
        return BK_OK;
    if (session_alive(t, port)) {
        t->logged_in = 1;
        return BK_OK;
    }
    if (!t->session_open) {
        if ((rc = p11_session_handle(t, port, &t->session, err)) != BK_OK)
            return rc;
        t->epoch++;
        t->session_open = 1;
    }
    /* a new session of a logged-in application is logged in from the start */
    if (!session_alive(t, port) && (rc = login_fresh(t, port, uri, err)) != BK_OK)
        return rc;
    t->logged_in = 1;
    return BK_OK;
}

enum bk_code
p11_token_login(struct p11_token *t, const struct p11_uri *uri, struct bk_err *err)
{
    struct p11_port port = {.list = t->module->port.list, .hook = &t->owner->hook, .where = t->where};
    enum bk_code rc;

    pthread_mutex_lock(&t->owner->lock);
    rc = login_locked(t, &port, uri, err);
    pthread_mutex_unlock(&t->owner->lock);
    return rc;
}

enum bk_code
p11_token_login_officer(struct p11_token *t, const struct p11_uri *uri, struct bk_err *err)
{
    int taken;

    pthread_mutex_lock(&t->owner->lock);
    taken = t->logged_in && !t->officer;
    t->officer |= !taken;
    pthread_mutex_unlock(&t->owner->lock);
    if (taken)
        return bk_fail(err, BK_E_INTERNAL, "%s: a user is logged in, so that the security officer cannot be", t->where);
    return p11_token_login(t, uri, err);
}

enum bk_code
p11_token_logout(struct p11_token *t, struct bk_err *err)
{
    struct p11_port port = {.list = t->module->port.list, .hook = &t->owner->hook, .where = t->where};
    enum bk_code rc = BK_OK;

    pthread_mutex_lock(&t->owner->lock);
    if (t->logged_in && P11_CALL(&port, C_Logout, t->session) != CKR_OK)
        rc = p11_call_fail_as(&port, BK_E_TOKEN, err, "logging out");
    t->logged_in = 0;
    pthread_mutex_unlock(&t->owner->lock);
    return rc;
}

enum bk_code
p11_token_context_login(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE session, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    pthread_mutex_lock(&t->owner->lock);
    if (t->failed != BK_OK)
        rc = failed_before(t, err);
    else if (t->pin.data == NULL)
        rc = prepare_pin(t, port, NULL, err);
    if (rc == BK_OK)
        rc = login_call(t, port, session, CKU_CONTEXT_SPECIFIC, err);
    pthread_mutex_unlock(&t->owner->lock);
    return rc;
}
