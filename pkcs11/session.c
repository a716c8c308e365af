#include "pkcs11/session.h"

#include <time.h>

#include <openssl/rand.h>

/* A device's sessions are its users' common good: who finds none free waits, longer each time, and not in step with the
 * others. */
#define WAIT_FIRST_MS 20
#define WAIT_MOST_MS  1000
#define WAIT_ALL_MS   30000

static CK_RV
open_once(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE *out)
{
    CK_FLAGS flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;

    if ((t->info.flags & CKF_WRITE_PROTECTED) == 0) {
        /* read-write first: some tokens refuse read-only sessions altogether */
        CK_RV rv = P11_CALL(port, C_OpenSession, t->slot, flags, NULL, NULL, out);

        if (rv != CKR_TOKEN_WRITE_PROTECTED && rv != CKR_SESSION_READ_ONLY)
            return rv;
    }
    return P11_CALL(port, C_OpenSession, t->slot, CKF_SERIAL_SESSION, NULL, NULL, out);
}

/* Waits between half of ms and ms. */
static void
wait_about(unsigned ms)
{
    struct timespec pause = {0};
    uint8_t part = 128;

    (void)RAND_bytes(&part, 1);
    ms = ms / 2 + ms * part / 512;
    pause.tv_sec = ms / 1000;
    pause.tv_nsec = (long)(ms % 1000) * 1000000L;
    (void)nanosleep(&pause, NULL);
}

enum bk_code
p11_session_handle(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE *out, struct bk_err *err)
{
    unsigned waited = 0;
    unsigned ms = WAIT_FIRST_MS;
    enum bk_code rc;

    while (open_once(t, port, out) == CKR_SESSION_COUNT && waited < WAIT_ALL_MS) {
        wait_about(ms);
        waited += ms;
        ms = ms * 2 < WAIT_MOST_MS ? ms * 2 : WAIT_MOST_MS;
    }
    if (port->rv == CKR_OK) {
        atomic_fetch_add(&t->module->sessions, 1);
        return BK_OK;
    }
    rc = p11_call_fail_as(port, BK_E_TOKEN, err, "opening a session");
    if (port->rv == CKR_SESSION_COUNT)
        bk_err_hint(err,
                    "all sessions of the device are in use; run fewer programs at once, or look for one that hangs");
    return rc;
}

void
p11_session_handle_close(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE session)
{
    (void)P11_CALL(port, C_CloseSession, session);
    atomic_fetch_sub(&t->module->sessions, 1);
}

static struct p11_session
session_of(struct p11_token *t)
{
    return (struct p11_session){
        .token = t,
        .port = {.list = t->module->port.list, .hook = &t->owner->hook, .where = t->where},
    };
}

enum bk_code
p11_session_open_own(struct p11_session *s, struct p11_token *t, struct bk_err *err)
{
    struct p11_session made = session_of(t);
    enum bk_code rc = p11_session_handle(t, &made.port, &made.handle, err);

    if (rc != BK_OK)
        return rc;
    made.port.spoiled = 0;
    made.open = 1;
    pthread_mutex_lock(&t->owner->lock);
    made.epoch = t->epoch;
    pthread_mutex_unlock(&t->owner->lock);
    *s = made;
    return BK_OK;
}

/* 1 if the token's own session was free. */
static int
borrow(struct p11_session *s, struct p11_token *t)
{
    struct p11_session lent = session_of(t);

    pthread_mutex_lock(&t->owner->lock);
    if (t->session_open && !t->session_lent) {
        lent.handle = t->session;
        lent.epoch = t->epoch;
        lent.open = 1;
        lent.lent = 1;
        t->session_lent = 1;
    }
    pthread_mutex_unlock(&t->owner->lock);
    if (lent.open)
        *s = lent;
    return lent.open;
}

enum bk_code
p11_session_open(struct p11_session *s, struct p11_token *t, struct bk_err *err)
{
    return borrow(s, t) ? BK_OK : p11_session_open_own(s, t, err);
}

/* The new one first, since a token forgets the login with its last session. Under the lock. */
static void
replace(struct p11_token *t, struct p11_port *port)
{
    CK_SESSION_HANDLE fresh = 0;
    int opened = open_once(t, port, &fresh) == CKR_OK;

    if (opened)
        atomic_fetch_add(&t->module->sessions, 1);
    p11_session_handle_close(t, port, t->session);
    t->session = fresh;
    t->epoch++;
    t->session_open = opened;
    t->logged_in &= opened;
}

void
p11_session_close(struct p11_session *s)
{
    struct p11_token *t = s->token;

    if (s->open && s->lent) {
        pthread_mutex_lock(&t->owner->lock);
        if (s->port.spoiled)
            replace(t, &s->port);
        t->session_lent = 0;
        pthread_mutex_unlock(&t->owner->lock);
    } else if (s->open) {
        p11_session_handle_close(t, &s->port, s->handle);
    }
    s->open = 0;
}
