/*
 * The interface of key operations. pkcs11/ implements it with keys on a token, tests with keys in memory; format/ and
 * ops/ are handed it. No PKCS#11 type crosses it, so the token code can be replaced, faked, or run elsewhere.
 */
#ifndef BK_BASE_KEYS_H
#define BK_BASE_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"

#define BK_CEK_LEN       32
#define BK_KEY_ID_MIN    4
#define BK_KEY_ID_MAX    32
#define BK_SKI_LEN       20  /* RFC 7093 section 2 method 1: leftmost 160 bits of SHA-256 */
#define BK_WRAPPED_MAX   512 /* RSA-4096; 40 bytes for the schemes that end in AES key wrap */
#define BK_AESKW_LEN     40  /* RFC 3394 of a 32-byte key */
#define BK_KEK_NONCE     12  /* AES-GCM in the token: the nonce */
#define BK_AESGCM_LEN    48  /* and 32 bytes of ciphertext with the tag of 16 */
#define BK_CCM_MIN       45  /* YubiHSM: 32 bytes of ciphertext and a nonce of 13 are the least */
#define BK_CCM_MAX       128
#define BK_EC_POINT_MAX  97 /* uncompressed P-384 */
#define BK_SIGNATURE_MAX 512

/* A key's name in an archive: RFC 7093 method 1 over the public key (20 bytes), or a secret key's CKA_ID. */
struct bk_key_id {
    uint8_t bytes[BK_KEY_ID_MAX];
    size_t len;
};

int bk_key_id_equal(const struct bk_key_id *a, const struct bk_key_id *b);
/* Lower-case hex; out holds 2 * BK_KEY_ID_MAX + 1 bytes. Returns out. */
#define BK_KEY_ID_TEXT (2 * BK_KEY_ID_MAX + 1)
char *bk_key_id_text(const struct bk_key_id *id, char out[BK_KEY_ID_TEXT]);
/* From hex; 1 on success. */
int bk_key_id_from_text(const char *text, struct bk_key_id *out);

/* How a CEK is wrapped to a recipient; docs/FORMAT.md, "CMS, a closed profile". */
enum bk_scheme {
    BK_SCHEME_NONE = 0, /* a signing key, or not known yet */
    BK_SCHEME_RSA_OAEP_SHA256,
    BK_SCHEME_RSA_OAEP_SHA1, /* only where the token cannot do better; never chosen silently */
    BK_SCHEME_ECDH_P256,     /* dhSinglePass-stdDH-sha256kdf, id-aes256-wrap */
    BK_SCHEME_ECDH_P384,     /* dhSinglePass-stdDH-sha384kdf, id-aes256-wrap */
    BK_SCHEME_AES_KW,        /* id-aes256-wrap, RFC 3394 */
    BK_SCHEME_AES_GCM,       /* id-aes256-GCM in a token that draws the nonce itself; no host can wrap so */
    BK_SCHEME_YUBIHSM_CCM,   /* what a wrap key of a YubiHSM 2 makes of 32 bytes; in the token */

    BK_SCHEME_LAST = BK_SCHEME_YUBIHSM_CCM,
};

/* "rsa-oaep-sha256", "rsa-oaep-sha1", "ecdh-p256", "ecdh-p384", "aes-kw", "aes-gcm-token", "yubihsm-ccm"; "none"
 * otherwise. */
const char *bk_scheme_name(enum bk_scheme scheme);
/* BK_SCHEME_NONE if the name is none of these. */
enum bk_scheme bk_scheme_from_name(const char *name);

enum bk_key_type {
    BK_KEY_UNKNOWN = 0,
    BK_KEY_RSA, /* 2048 to 4096 bits; bk makes 3072 and 4096 */
    BK_KEY_P256,
    BK_KEY_P384,
    BK_KEY_AES256,
};

/* "rsa", "p256", "p384", "aes256", "unknown". */
const char *bk_key_type_name(enum bk_key_type type);

enum bk_sig_alg {
    BK_SIG_NONE = 0,
    BK_SIG_ECDSA_SHA256,   /* P-256 or P-384, SHA-256; signature is the DER ECDSA-Sig-Value (RFC 3279) */
    BK_SIG_RSA_PSS_SHA256, /* MGF1-SHA-256, salt of 32 bytes (RFC 4055) */
};

/* What is known of a key without its secret part. */
struct bk_public {
    enum bk_key_type type;
    size_t bits;           /* modulus bits of an RSA key, else 256 or 384 */
    enum bk_scheme scheme; /* how to wrap to it; NONE for a key that only signs */
    struct bk_key_id id;
    int sealed;    /* 1: a secret KEK that was seen to give a host nothing of what it opens; only for blind rotation */
    uint8_t *spki; /* SubjectPublicKeyInfo, DER; NULL for a secret key */
    size_t spki_len;
    char *uri; /* RFC 7512 URI of token, serial, object, for the hints of a record; NULL if on no token */
};

void bk_public_free(struct bk_public *p);
BK_MUST_USE enum bk_code bk_public_copy(struct bk_public *dst, const struct bk_public *src, struct bk_err *err);

/*
 * Fills type, bits, id and spki from a DER SubjectPublicKeyInfo; refuses other types, RSA outside 2048 to 4096 bits or
 * with an exponent of less than 65537, of over 64 bits or even, compressed points and points off the curve (SP 800-56A
 * 5.6.2.3.3). scheme becomes the default for the type (OAEP-SHA-256 or ECDH). EC keys are re-encoded with a named curve
 * and an uncompressed point, over which the id is computed. BK_E_FORMAT for what is malformed, BK_E_POLICY for a
 * well-formed key of a type or size that bk does not take.
 */
BK_MUST_USE enum bk_code bk_public_from_spki(struct bk_public *out, const uint8_t *der, size_t len, struct bk_err *err);

/* SHA-256 over the SubjectPublicKeyInfo: the fingerprint that people pin. p has an spki. */
void bk_public_fingerprint(const struct bk_public *p, uint8_t out[32]);

/* A CEK as one recipient holds it. */
struct bk_wrapped {
    enum bk_scheme scheme;
    struct bk_key_id id;                /* of the KEK that opens it */
    uint8_t ephemeral[BK_EC_POINT_MAX]; /* ECDH: the originator's uncompressed point */
    size_t ephemeral_len;               /* 65, 97, or 0 */
    uint8_t nonce[BK_KEK_NONCE];        /* AES-GCM: what the token drew; else zeros */
    uint8_t data[BK_WRAPPED_MAX];
    size_t len;
};

struct bk_key;

/* One key on one token, logged in. Every function names the token call that failed. Any member may be NULL where the
 * key cannot do it; use the bk_key_* functions below, which then answer BK_E_UNSUPPORTED. */
struct bk_key_ops {
    /* Wraps cek to this key; for secret KEKs, since public halves need no token (bk_public_wrap). */
    enum bk_code (*wrap)(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err);
    /* Opens one wrapped CEK; always 32 bytes. BK_E_VERIFY when the token says that it does not open. */
    enum bk_code (*unwrap)(struct bk_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err);
    /*
     * Blind: in is opened by key into a sensitive session object that never leaves the token, wrapped under to, opened
     * again by to, and seen to be the same CEK, before *out is filled. BK_E_UNSUPPORTED when this pair of keys cannot
     * do that (not one token, not both AES, no wrap permission, a token that would not make the object sensitive).
     * Fills enforces of both keys.
     */
    enum bk_code (*rewrap)(struct bk_key *key, const struct bk_wrapped *in, struct bk_key *to, struct bk_wrapped *out,
                           struct bk_err *err);
    /* Signs a SHA-256 digest. *sig_len is the room at entry. */
    enum bk_code (*sign)(struct bk_key *key, const uint8_t digest[32], enum bk_sig_alg alg, uint8_t *sig,
                         size_t *sig_len, struct bk_err *err);
    void (*close)(struct bk_key *key);
};

/* Implementations embed this as their first member. */
struct bk_key {
    const struct bk_key_ops *ops;
    struct bk_public pub; /* owned by the key */
    int enforces;         /* 1: a rewrap saw the token keep what this key opens from the very login that used it */
};

BK_MUST_USE enum bk_code bk_key_wrap(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out,
                                     struct bk_err *err);
BK_MUST_USE enum bk_code bk_key_unwrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_secret *cek,
                                       struct bk_err *err);
BK_MUST_USE enum bk_code bk_key_rewrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_key *to,
                                       struct bk_wrapped *out, struct bk_err *err);
BK_MUST_USE enum bk_code bk_key_sign(struct bk_key *key, const uint8_t digest[32], uint8_t *sig, size_t *sig_len,
                                     struct bk_err *err);
/* NULL does nothing. */
void bk_key_close(struct bk_key *key);

/* The signature algorithm that bk uses with a key of this type, or NONE. */
enum bk_sig_alg bk_sig_alg_for(enum bk_key_type type);

#endif
