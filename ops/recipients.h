/* Recipients and signers as the command line names them: PEM files, or keys on tokens. */
#ifndef BK_OPS_RECIPIENTS_H
#define BK_OPS_RECIPIENTS_H

#include "base/buf.h"
#include "base/keys.h"
#include "base/log.h"
#include "format/signed.h"
#include "ops/token_profile.h"
#include "pkcs11/p11.h"

struct ops_recipient {
    struct bk_public pub;
    struct bk_key *key; /* a secret KEK, which wraps on its token; NULL for a public half */
    char *uri;          /* as the caller named it, if it is on a token that was reached; else NULL */
};

/* Zero-initialise. */
struct ops_recipients {
    struct ops_recipient *items;
    size_t count;
    const struct ops_token_profiles *profiles; /* what no recipient's token may fall behind; NULL: none */
};

void ops_recipients_free(struct ops_recipients *r);

/* RECIPIENT: a PKCS#11 URI, or a PEM file in which every certificate and public key is a recipient. The same key twice
 * is refused, and BK_E_POLICY what is weaker than its token's profile. p11 may be NULL if text is no URI. */
BK_MUST_USE enum bk_code ops_recipients_add(struct ops_recipients *r, struct p11 *p11, const char *text,
                                            const struct bk_log *log, struct bk_err *err);

/* A public half at hand; it is copied. */
BK_MUST_USE enum bk_code ops_recipients_add_public(struct ops_recipients *r, const struct bk_public *pub,
                                                   struct bk_err *err);

/* Wraps to one: on the host, or on the token for a secret KEK. */
BK_MUST_USE enum bk_code ops_recipient_wrap(const struct ops_recipient *r, const struct bk_secret *cek,
                                            struct bk_wrapped *out, struct bk_err *err);

/* Who signs: an opened key and its certificate. */
struct ops_signer {
    struct bk_key *key;
    struct bk_buf cert;
};

void ops_signer_close(struct ops_signer *s);

/* cert_path NULL: the certificate is on the token. The certificate must be of this very key. */
BK_MUST_USE enum bk_code ops_signer_open(struct ops_signer *s, struct p11 *p11, const char *uri, const char *cert_path,
                                         struct bk_err *err);

#endif
