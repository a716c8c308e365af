/*
 * Tokens, through p11-kit (PKCS#11 2.40, RFC 7512 URIs): find, log in, wrap, unwrap, sign, generate. The public face of
 * this folder: no CK_ type crosses it, and it never sees an archive or a file.
 */
#ifndef BK_PKCS11_P11_H
#define BK_PKCS11_P11_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/keys.h"
#include "base/log.h"
#include "base/secret.h"

/* What is asked when a token wants a PIN. */
struct p11_pin_request {
    const char *token_label;
    const char *token_serial;
    const char *pin_source; /* the URI's pin-source, or NULL */
    int count_low;          /* the token says that a wrong PIN was given lately */
    int final_try;          /* the next wrong PIN locks it */
    int security_officer;   /* the PIN of the token's security officer is wanted, not the user's */
};

/*
 * Fills *pin (empty at entry) or fails: BK_E_PIN when there is no PIN to be had, BK_E_USAGE for a bad source. Called at
 * most once for a token in a run, by any thread that uses p11, and must not call p11 itself; again only for a worker
 * that took the place of one that had accepted it and died. p11 (its worker) keeps the PIN until p11_close, for
 * sessions that die meanwhile and keys that want it before each use, and then wipes it. With final_try only a person at
 * a terminal may answer.
 */
typedef enum bk_code (*p11_pin_fn)(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin,
                                   struct bk_err *err);

struct p11_options {
    p11_pin_fn pin;
    void *pin_ctx;
    const struct bk_log *log;
    /* 1: what is wrapped by RSA-OAEP with SHA-256 is opened by bare RSA, and the padding undone on the host, where the
     * module does not know that hash. Keys are not proven by it. */
    int raw_rsa;
    /* Of a worker process (worker/client.h); without meaning where the module is in this process. */
    const char *worker;             /* its file; NULL: bk-token-worker beside this program, or in ../libexec/bk */
    unsigned timeout_s;             /* how long one call of a module may take; 0: 60 s */
    const struct bk_cancel *cancel; /* a request to stop, which ends a call that does not come back; NULL: none */
};

/* The modules and sessions of one run. Modules load when first needed: those that p11-kit knows (but for its stores of
 * trusted certificates), or the URI's own. Threads may share it; a key is for one thread at a time. */
struct p11;
BK_MUST_USE enum bk_code p11_open(const struct p11_options *options, struct p11 **out, struct bk_err *err);
/* Starts what the first call with this URI will need, without waiting for it; if that fails, the call meets the same.
 */
void p11_prepare(struct p11 *p, const char *uri);
/* Logs out, closes sessions, finalizes and unloads modules; before OpenSSL's clean-up. NULL does nothing. */
void p11_close(struct p11 *p);

/*
 * Warns, once a run, of configured modules and of tokens that could not be used: for whoever did not find a token or a
 * key. p11_key_open, p11_public and p11_key_generate do so themselves when they fail for that, p11_list unless it was
 * asked for an object that is there; p11_key_find does not, since its caller may look elsewhere. NULL does nothing.
 */
void p11_say_left_out(struct p11 *p);

/* BK_OK if text is a PKCS#11 URI that bk understands; BK_E_USAGE says what is wrong (no "pkcs11:", unknown attribute,
 * slot-id=, a byte that must be percent-encoded), never with a PIN in it. */
BK_MUST_USE enum bk_code p11_uri_check(const char *uri, struct bk_err *err);
/* 1 if the text begins with "pkcs11:", so that it is meant to be one. */
int p11_is_uri(const char *text);
/* 1 if the URI names an object (object=, id= or type=), 0 if only a token. */
int p11_uri_names_object(const char *uri);
/* 1 if both are URIs of one token, by its label and serial number, whatever object they name. */
int p11_uri_same_token(const char *a, const char *b);
/* 1 if it carries a pin-value. */
int p11_uri_has_pin_value(const char *uri);

enum p11_use {
    P11_USE_UNWRAP, /* a private or secret KEK */
    P11_USE_WRAP,   /* a secret KEK that can wrap */
    P11_USE_SIGN,
};

/*
 * Opens the one key that the URI names, logged in: BK_E_NO_KEY for none or several (all are listed), BK_E_TOKEN for
 * module or token, BK_E_PIN for the PIN. The caller closes with bk_key_close before p11_close. key->pub.scheme of a KEK
 * is the strongest that this token proved able to open (RSA: OAEP-SHA-256, else SHA-1, by a trial on the token; a
 * secret key to wrap with: AES key wrap, else AES-GCM with nonces that the token draws).
 */
BK_MUST_USE enum bk_code p11_key_open(struct p11 *p, const char *uri, enum p11_use use, struct bk_key **out,
                                      struct bk_err *err);

/*
 * On the tokens that the URI allows (object attributes narrow further), the key that answers to one of the given ids,
 * for unwrapping. *which is the index of the id. BK_E_NO_KEY lists the tokens that were looked at. No PIN is asked of a
 * token that does not show the key to everybody, unless it is the only one that the URI allows. The scheme of an RSA
 * key is not tried here: what was wrapped says its own.
 */
BK_MUST_USE enum bk_code p11_key_find(struct p11 *p, const char *uri, const struct bk_key_id *ids, size_t id_count,
                                      size_t *which, struct bk_key **out, struct bk_err *err);

/* A recipient named by URI: its public half with the scheme to use and a hint URI. Logs in, since the scheme is probed
 * with the private half. For a secret KEK spki is NULL: wrap with p11_key_open(P11_USE_WRAP). */
BK_MUST_USE enum bk_code p11_public(struct p11 *p, const char *uri, struct bk_public *out, struct bk_err *err);

/* The certificate on the token for an opened signing key; BK_E_NO_KEY when there is none. */
BK_MUST_USE enum bk_code p11_certificate(struct bk_key *key, struct bk_buf *der, struct bk_err *err);

/* holds[i] is 1 if the token that key is logged in to also holds the private or secret half of the recipient ids[i], 0
 * if not. At most P11_SAME_LOGIN_MAX ids. */
#define P11_SAME_LOGIN_MAX 32
BK_MUST_USE enum bk_code p11_same_login_holds(struct bk_key *key, const struct bk_key_id *ids, size_t count, int *holds,
                                              struct bk_err *err);

enum p11_key_kind { P11_RSA3072, P11_RSA4096, P11_P256, P11_P384, P11_AES256 };

struct p11_generate {
    enum p11_key_kind kind;
    int signing;       /* 1: for signing; 0: a KEK */
    int sealed;        /* 1: an AES KEK for blind rotation, made by the security officer (pkcs11/seal.h) */
    int passing;       /* 1: a key that the token forgets with its session, for a trial; not proven */
    int binding;       /* 1: a passing AES KEK with a CKA_UNWRAP_TEMPLATE: what it opens shall be sensitive */
    const char *owner; /* NULL or text; recorded by the caller */
};

/*
 * Makes a key on the one token that the URI names, object= being its label (required, and not there yet): TOKEN,
 * PRIVATE, SENSITIVE, not EXTRACTABLE, not MODIFIABLE where the token allows, a UUID of version 7 for CKA_ID; read
 * back, and its one purpose proven (a wrap opened again, a signature checked). A key that fails its proof is destroyed.
 * An RSA KEK that opens only OAEP-SHA-1 is kept, its scheme says so, and log is warned. So it is with an AES key where
 * AES key wrap does not work and AES-GCM does. A sealed KEK is not PRIVATE,
 * since the security officer, whose PIN is asked for, sees no private objects; it is TRUSTED, what it opens never
 * leaves the token but under keys that are, and BK_E_UNSUPPORTED if the token was not seen to enforce that.
 */
BK_MUST_USE enum bk_code p11_key_generate(struct p11 *p, const char *uri, const struct p11_generate *what,
                                          struct bk_key **out, struct bk_err *err);

/* Stores a certificate beside the key (same CKA_ID and label), unless that very one is there. It must be for this key.
 */
BK_MUST_USE enum bk_code p11_certificate_store(struct bk_key *key, const uint8_t *der, size_t len, struct bk_err *err);

/* Removes a key pair that was just generated, with its certificate: all objects of its label and id. For a caller whose
 * next step failed; key stays to be closed. BK_E_UNSUPPORTED for a key without a label and an id of its own. */
BK_MUST_USE enum bk_code p11_key_destroy(struct bk_key *key, struct bk_err *err);

/* Of a token that has AES KEKs: what else it was seen to do. */
enum p11_fact {
    P11_FACT_UNWRAPS_WITHOUT_LENGTH, /* C_UnwrapKey, its template without CKA_VALUE_LEN */
    P11_FACT_UNWRAPS_WITH_LENGTH,    /* and with it */
    P11_FACT_KEEPS_VALUES,           /* CKA_VALUE of what was opened as sensitive is refused */
    P11_FACT_FORGETS,                /* an object of a session is gone with it, and was never one of the token's */
    P11_FACT_TEMPLATE_BINDS,         /* a KEK's CKA_UNWRAP_TEMPLATE holds against what C_UnwrapKey is asked for */
    P11_FACT_DRAWS_NONCE,            /* of AES-GCM; 0: it takes the caller's */
    P11_FACTS
};

/* What a token can do with one kind of key, as it was seen to do it. */
struct p11_probe_item {
    enum p11_key_kind kind;
    int signing;           /* 1: as a signing key; 0: as a KEK */
    int works;             /* it was made, not extractable, and did what it is for */
    enum bk_scheme scheme; /* a KEK that works: the strongest that opens */
    int refuses_damage; /* 1: a wrapped key or signature with a bit turned over was refused; a KEK or key that works */
    int blind;          /* AES: a data key went from one to another without the host's seeing it */
    int facts[P11_FACTS]; /* AES: 1, 0, or -1 where it could not be tried */
    const char *why;      /* why it does not work; NULL if it does */
};

/*
 * Tries every kind of key that bk can use on the one token that the URI names (its object attributes do not
 * count; *token becomes the URI of the token alone, and is the caller's to free), by making one, using it as the
 * programs would, and damaging what it wrapped. The keys are objects of a session, and leave nothing; with lasting they
 * are made on the token and removed again, for tokens that make no others. each returns nonzero to stop. BK_OK also
 * when nothing works; an error is one of the token itself.
 */
BK_MUST_USE enum bk_code p11_probe(struct p11 *p, const char *uri, int lasting, char **token,
                                   int (*each)(void *ctx, const struct p11_probe_item *item), void *ctx,
                                   struct bk_err *err);

/* One object as a list shows it. Attributes are the module's claims; -1 is "not available". */
struct p11_item {
    const char *token_label, *token_serial, *token_model, *module_name;
    const char *class_name; /* "private key", "public key", "secret key", "certificate" */
    const char *label;
    const char *id_hex; /* CKA_ID */
    const char *uri;
    const char *made;     /* "2026-11-24", by CKA_START_DATE or by a CKA_ID that is a UUID of version 7; or NULL */
    struct bk_public pub; /* type BK_KEY_UNKNOWN where it cannot be told; scheme not probed */
    int sensitive, extractable, always_sensitive, never_extractable, local, modifiable;
    int can_decrypt, can_unwrap, can_wrap, can_derive, can_sign, always_authenticate;
};

/* Calls each for every key and certificate that the URI allows; logs in to those tokens if log_in (else public objects
 * only). each returns nonzero to stop. *tokens is how many tokens matched. BK_E_USAGE for a URI with a PIN that several
 * tokens answer to, since it is right for one of them at most. */
BK_MUST_USE enum bk_code p11_list(struct p11 *p, const char *uri, int log_in,
                                  int (*each)(void *ctx, const struct p11_item *item), void *ctx, size_t *tokens,
                                  struct bk_err *err);

#endif
