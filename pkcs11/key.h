/* A key on a token behind the interface of base/keys.h. */
#ifndef BK_PKCS11_KEY_H
#define BK_PKCS11_KEY_H

#include "pkcs11/object.h"

struct p11_key {
    struct bk_key base;
    struct p11 *owner;
    struct p11_token *token;
    struct p11_session session; /* the key's own; closed after every error, opened again before the next use */
    CK_OBJECT_HANDLE handle;
    struct p11_traits traits;
    int parked; /* it has no session now, but handle holds as long as epoch is the token's */
    unsigned epoch;
    int seal_checked;            /* base.enforces holds */
    uint8_t nonce[BK_KEK_NONCE]; /* the last that the token drew for this key */
};

/* CKM_AES_GCM as both directions use it; what it points to lives as long as the operation. */
struct p11_gcm {
    CK_GCM_PARAMS params;
    CK_MECHANISM mechanism;
};
void p11_gcm_fill(struct p11_gcm *gcm, uint8_t nonce[BK_KEK_NONCE]);

/* NULL if bk_key is not of this folder. */
struct p11_key *p11_key_of(struct bk_key *key);

/* Why an object cannot serve the use, for a message; NULL if it can as far as it tells. */
const char *p11_key_unfit(const struct p11_traits *t, enum p11_use use);

/*
 * Makes the key from an object that was found in *s; takes *s over (also on failure). The public half is read, RSA and
 * EC schemes are the defaults of the type and not tried yet.
 */
BK_MUST_USE enum bk_code p11_key_make(struct p11_session *s, CK_OBJECT_HANDLE object, const struct p11_traits *t,
                                      enum p11_use use, struct p11_key **out, struct bk_err *err);

/* Gives the session back if it is the token's own, so that one serves all keys of a program that uses them in turn. */
void p11_key_park(struct p11_key *key);
/* The handle holds, whether or not the key has a session: for a second key in a call of the first one's session. */
BK_MUST_USE enum bk_code p11_key_known(struct p11_key *key, struct bk_err *err);

/* A session that works and the handle in it. After a session was lost: a new one, logged in again with the PIN that was
 * accepted before, the object found again and its public half compared. */
BK_MUST_USE enum bk_code p11_key_ready(struct p11_key *key, struct bk_err *err);

typedef enum bk_code (*p11_key_step)(struct p11_key *key, void *args, struct bk_err *err);
/*
 * Runs one step with the key ready. Any failure closes the session, since tokens leave operations behind; when session
 * or token may have been lost, or the token's answer is vague, the step is repeated once.
 */
BK_MUST_USE enum bk_code p11_key_run(struct p11_key *key, p11_key_step step, void *args, struct bk_err *err);

/* The context login of keys that want the PIN before each use; between Init and the operation. */
BK_MUST_USE enum bk_code p11_key_authenticate(struct p11_key *key, struct bk_err *err);
/* 1 if the token offers the mechanism for that (CKF_DECRYPT ...), 0 if not, -1 if it does not tell. */
int p11_key_mechanism(struct p11_key *key, CK_MECHANISM_TYPE mechanism, CK_FLAGS flag);

/* The operations, one file each. */
enum bk_code p11_wrap(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err);
enum bk_code p11_unwrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err);
enum bk_code p11_rewrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_key *to, struct bk_wrapped *out,
                        struct bk_err *err);
enum bk_code p11_sign(struct bk_key *key, const uint8_t digest[32], enum bk_sig_alg alg, uint8_t *sig, size_t *sig_len,
                      struct bk_err *err);

/* Tries the key with the token: a KEK opens what its public half wraps, a signing key signs what its public half
 * verifies. RSA and secret keys: finds the strongest scheme and sets pub.scheme. A secret key that may only wrap is
 * tried as far as that. */
BK_MUST_USE enum bk_code p11_key_prove(struct p11_key *key, int signing, struct bk_err *err);

/* 1 if a freshly wrapped key opens under this key by that scheme, as p11_unwrap would open it; 0 if not, -1 if it could
 * not be tried. */
int p11_key_opens_fresh(struct p11_key *key, enum bk_scheme scheme);

/* The way a token opens a wrapped key to plain bytes; unwrap.c. raw: by bare RSA too. */
BK_MUST_USE enum bk_code p11_unwrap_step(struct p11_key *key, const struct bk_wrapped *in, int raw,
                                         struct bk_secret *cek, struct bk_err *err);
/*
 * p11_key_run of a step that opens in; err is not NULL. Where a token answers a tampered wrapped key as it answers a
 * broken cable, or a queue that is full, the step is tried again while freshly wrapped keys open; one that never opens
 * is BK_E_VERIFY. *opened says whether the step has opened it, so that what failed is something else.
 */
BK_MUST_USE enum bk_code p11_unwrap_run(struct p11_key *key, const struct bk_wrapped *in, p11_key_step run, void *args,
                                        const int *opened, struct bk_err *err);
/* C_UnwrapKey into a session object; tries templates in turn (docs/TOKENS.md, rule 5). sensitive as asked for. */
BK_MUST_USE enum bk_code p11_unwrap_object(struct p11_key *key, CK_OBJECT_HANDLE under, CK_MECHANISM *mechanism,
                                           const uint8_t *data, size_t len, int sensitive, CK_OBJECT_HANDLE *out,
                                           struct bk_err *err);
/* C_UnwrapKey of AES key wrap by templates with CKA_VALUE_LEN, or without: 1 if one of them is taken, 0 if all are
 * refused, -1 for any other answer. Leaves no object. */
int p11_unwraps_by_template(struct p11_key *key, const uint8_t wrapped[BK_AESKW_LEN], int with_len);
/* The same into an object of *s that is sealed as seal.h says. */
BK_MUST_USE enum bk_code p11_open_sealed(struct p11_session *s, const struct p11_key *key,
                                         const uint8_t wrapped[BK_AESKW_LEN], CK_OBJECT_HANDLE *out,
                                         struct bk_err *err);
/* C_WrapKey in a session; exactly 40 bytes come back (RFC 3394 of 32). */
BK_MUST_USE enum bk_code p11_wrap_in(struct p11_session *s, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE object,
                                     uint8_t out[BK_AESKW_LEN], struct bk_err *err);
/* Wraps cek to a secret KEK by that scheme; one attempt, with the key ready. wrap.c. */
BK_MUST_USE enum bk_code p11_wrap_step(struct p11_key *key, enum bk_scheme scheme, const struct bk_secret *cek,
                                       struct bk_wrapped *out, struct bk_err *err);
/* The same by p11_key_run. */
BK_MUST_USE enum bk_code p11_wrap_by(struct p11_key *key, enum bk_scheme scheme, const struct bk_secret *cek,
                                     struct bk_wrapped *out, struct bk_err *err);
/* BK_OK if the token does not take a nonce for AES-GCM from its caller, as nothing that draws its own may. */
BK_MUST_USE enum bk_code p11_gcm_check_own_nonce(struct p11_key *key, struct bk_err *err);
/* 1 if the token draws the nonce of AES-GCM, 0 if it takes the caller's, -1 if it does no AES-GCM with this key. */
int p11_gcm_draws_nonce(struct p11_key *key);
/* p11_wrap_in in the session of the key. */
BK_MUST_USE enum bk_code p11_wrap_object(struct p11_key *key, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE object,
                                         uint8_t out[BK_AESKW_LEN], struct bk_err *err);
/* Destroys a session object; if the token will not, closes the session, which does. */
void p11_key_drop_object(struct p11_key *key, CK_OBJECT_HANDLE object);

#endif
