/*
 * The key envelope: CMS AuthEnvelopedData (RFC 5083) in the closed profile of docs/FORMAT.md, around the key package.
 */
#ifndef BK_FORMAT_ENVELOPE_H
#define BK_FORMAT_ENVELOPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/keys.h"

#define BK_RECIPIENTS_MAX  32
#define BK_GCM_NONCE       12
#define BK_GCM_TAG         16
#define BK_METADATA_MAX    (64 * 1024) /* private metadata: the whole element in DER */
#define BK_KEY_PACKAGE_MAX (65 * 1024)

enum bk_recipient_kind {
    BK_RECIPIENT_KNOWN,   /* wrapped is filled */
    BK_RECIPIENT_UNKNOWN, /* a kind or algorithm of a later version: skipped, shown, kept byte for byte in raw */
};

struct bk_recipient {
    enum bk_recipient_kind kind;
    struct bk_wrapped wrapped; /* of an unknown one only the id, and that of length 0 where it has none */
    struct bk_buf raw;         /* the RecipientInfo's DER as it stood; for BK_RECIPIENT_UNKNOWN */
};

struct bk_envelope {
    struct bk_recipient recipients[BK_RECIPIENTS_MAX];
    size_t recipient_count;
    uint8_t nonce[BK_GCM_NONCE];
    uint8_t mac[BK_GCM_TAG];
    struct bk_buf content; /* the key package's ciphertext */
    uint8_t digest[32];    /* envelopeDigest: SHA-256(authEncryptedContentInfo DER || mac DER) */
};

/* Zero-initialise before use; safe on the empty value. */
void bk_envelope_free(struct bk_envelope *e);

/*
 * Accepts exactly the profile: pre-walk, strict decode, re-encode equal byte for byte, then the semantic checks
 * (versions, whole algorithm encodings, lengths, points on the curve, 1 to 32 recipients, no identifier twice).
 * "unknown" recipients are OtherRecipientInfo of an unknown type and well-formed KEKRecipientInfo, KeyTrans or KeyAgree
 * with an algorithm that is not in the table of version 1 but is not forbidden there (PKCS#1 v1.5 and SHA-1 KDF are
 * refused outright).
 */
BK_MUST_USE enum bk_code bk_envelope_parse(const uint8_t *der, size_t len, struct bk_envelope *out, struct bk_err *err);

/* Encodes and appends to der; recipients stand in DER's SET OF order in the result, and e->recipients is brought into
 * the same order. Fills e->digest. The result is parsed before it is returned; on failure e and der are unchanged. */
BK_MUST_USE enum bk_code bk_envelope_encode(struct bk_envelope *e, struct bk_buf *der, struct bk_err *err);

/* Appends a recipient; BK_E_USAGE when its identifier is there already (also that of an unknown one), BK_E_NO_ROOM
 * after 32. */
BK_MUST_USE enum bk_code bk_envelope_add(struct bk_envelope *e, const struct bk_wrapped *w, struct bk_err *err);

/* Index of the known recipient with that key id, or -1. */
int bk_envelope_find(const struct bk_envelope *e, const struct bk_key_id *id);

/* Removes one; the others keep their order. */
void bk_envelope_remove(struct bk_envelope *e, size_t at);

/* What a recipient is called in lists and messages: the key id in hex, or "unknown". */
char *bk_recipient_text(const struct bk_recipient *r, char out[BK_KEY_ID_TEXT]);

#endif
