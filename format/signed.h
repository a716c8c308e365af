/*
 * CMS SignedData (RFC 5652) in the closed profile of docs/FORMAT.md: manifests, key records from generation 2 on, and
 * profiles of tokens.
 * Trust is not decided here: bk_signed_parse proves that each signature holds under the certificate that came with it;
 * whose certificate that is, is the caller's question.
 */
#ifndef BK_FORMAT_SIGNED_H
#define BK_FORMAT_SIGNED_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/keys.h"
#include "format/key_package.h"

/* What is signed: the last byte of the project's object identifier. */
enum bk_content { BK_CONTENT_MANIFEST = 1, BK_CONTENT_KEY_RECORD = 2, BK_CONTENT_TOKEN_PROFILE = 10 };

struct bk_signer {
    struct bk_public pub; /* of the certificate; pub.id is RFC 7093 method 1, whatever the certificate's SKI says */
    struct bk_buf cert;   /* X.509, DER */
    time_t signing_time;
    int cert_valid_then; /* the certificate's validity covers signing_time: reported, not enforced */
};

struct bk_signed {
    struct bk_buf content; /* the inner DER */
    struct bk_signer signers[BK_SIGNERS_MAX];
    size_t signer_count; /* 1 to 4, no key twice */
};

void bk_signed_free(struct bk_signed *s);

/*
 * Accepts exactly the profile and checks every signature. BK_E_FORMAT for structure, BK_E_VERIFY for a message-digest
 * attribute or signature that does not hold.
 */
BK_MUST_USE enum bk_code bk_signed_parse(const uint8_t *der, size_t len, enum bk_content type, struct bk_signed *out,
                                         struct bk_err *err);

struct bk_signing_key {
    struct bk_key *key;
    const uint8_t *cert; /* X.509, DER, with a subjectKeyIdentifier extension, of this very key */
    size_t cert_len;
};

/* Signs content with 1 to 4 keys; one bk_key_sign each. The result is checked with bk_signed_parse before it is
 * returned, so a token that signs wrongly is caught here (BK_E_TOKEN). */
BK_MUST_USE enum bk_code bk_signed_make(const uint8_t *content, size_t content_len, enum bk_content type,
                                        const struct bk_signing_key *keys, size_t key_count, time_t signing_time,
                                        struct bk_buf *der, struct bk_err *err);

#endif
