/* Tokens: those that a URI names, and logging in to them. */
#ifndef BK_PKCS11_TOKEN_H
#define BK_PKCS11_TOKEN_H

#include "pkcs11/choose.h"
#include "pkcs11/module.h"

struct p11_token {
    struct p11_token *next;
    struct p11 *owner;
    struct p11_module *module;
    CK_SLOT_ID slot;
    CK_TOKEN_INFO info; /* as first seen; flags are read again before a PIN is asked for */
    char label[33];     /* these are for people: control characters replaced */
    char serial[17];
    char model[17];
    char where[64];   /* "token 'bk'" */
    int session_open; /* one session stays open, since a token forgets the login with its last session */
    CK_SESSION_HANDLE session;
    unsigned epoch;   /* changes with the session: handles of objects hold as long as it does not */
    int session_lent; /* somebody works with it: a device may have no more than a few for all its users */
    int logged_in;
    int officer;          /* who logs in is the security officer */
    int pin_asked;        /* the callback is asked once in a run, whatever came of it */
    enum bk_code failed;  /* how a login failed in this run, BK_OK if none did: a login is never tried again */
    struct bk_secret pin; /* kept while the run lasts: for a session that dies under a long stream, and for keys that
                             want the PIN before each use */
};

void p11_tokens_free(struct p11 *p);
/* 1 if some token did not take its PIN in this run, so that no other run may try the same one by itself. */
int p11_login_failed(struct p11 *p);

/*
 * Logs in unless that is done or not needed. uri may be NULL: then its PIN or pin-source are not known. BK_E_PIN when
 * there is no PIN or it was refused, now or earlier in the run.
 */
BK_MUST_USE enum bk_code p11_token_login(struct p11_token *t, const struct p11_uri *uri, struct bk_err *err);
/* The same as the security officer, on a token that nobody has logged in to in this run. */
BK_MUST_USE enum bk_code p11_token_login_officer(struct p11_token *t, const struct p11_uri *uri, struct bk_err *err);
/* Logs out; the next login is with the same PIN. */
BK_MUST_USE enum bk_code p11_token_logout(struct p11_token *t, struct bk_err *err);
/* 1 if the token that was found is still in its slot: another one must not get its PIN. */
int p11_token_is_same(const struct p11_token *t, const CK_TOKEN_INFO *now);
/* For keys with CKA_ALWAYS_AUTHENTICATE: between Init and the operation, on the session that port belongs to. */
BK_MUST_USE enum bk_code p11_token_context_login(struct p11_token *t, struct p11_port *port, CK_SESSION_HANDLE session,
                                                 struct bk_err *err);

#endif
