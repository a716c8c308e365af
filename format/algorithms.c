#include "format/algorithms.h"

#include <string.h>

#define ENCODING(bytes) ((struct bk_encoding){.der = (bytes), .len = sizeof(bytes)})

/* Whole encodings as docs/FORMAT.md lists them, and as OpenSSL writes them. */
static const uint8_t OAEP_SHA256[] = {0x30, 0x38, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01,
                                      0x07, 0x30, 0x2B, 0xA0, 0x0D, 0x30, 0x0B, 0x06, 0x09, 0x60, 0x86, 0x48,
                                      0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0xA1, 0x1A, 0x30, 0x18, 0x06, 0x09,
                                      0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x08, 0x30, 0x0B, 0x06,
                                      0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01};
static const uint8_t OAEP_SHA1[] = {0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86,
                                    0xF7, 0x0D, 0x01, 0x01, 0x07, 0x30, 0x00};
static const uint8_t ECDH_SHA256KDF[] = {0x30, 0x15, 0x06, 0x06, 0x2B, 0x81, 0x04, 0x01, 0x0B, 0x01, 0x30, 0x0B,
                                         0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2D};
static const uint8_t ECDH_SHA384KDF[] = {0x30, 0x15, 0x06, 0x06, 0x2B, 0x81, 0x04, 0x01, 0x0B, 0x02, 0x30, 0x0B,
                                         0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2D};
static const uint8_t AES256_WRAP[] = {0x30, 0x0B, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2D};
/* the project's own identifier 08, without parameters */
static const uint8_t YUBIHSM_CCM[] = {0x30, 0x17, 0x06, 0x15, 0x69, 0x83, 0xDF, 0xBB, 0xB4, 0xFD, 0xDA, 0x93, 0xAA,
                                      0xA1, 0xEB, 0xAA, 0xD0, 0xC1, 0x99, 0xDB, 0xAC, 0xD9, 0xB2, 0x4F, 0x08};
static const uint8_t PSS_SHA256[] = {0x30, 0x41, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0A, 0x30,
                                     0x34, 0xA0, 0x0F, 0x30, 0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
                                     0x02, 0x01, 0x05, 0x00, 0xA1, 0x1C, 0x30, 0x1A, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86,
                                     0xF7, 0x0D, 0x01, 0x01, 0x08, 0x30, 0x0D, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65,
                                     0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0xA2, 0x03, 0x02, 0x01, 0x20};
static const uint8_t ECDSA_SHA256[] = {0x30, 0x0A, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02};
static const uint8_t SHA256[] = {0x30, 0x0B, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01};
static const uint8_t EC_PUBLIC[] = {0x30, 0x09, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01};

/* AlgorithmIdentifier of AES-256-GCM: before the nonce, and after it, the length of the tag. */
static const uint8_t GCM_HEAD[] = {
    0x30, 0x1E, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2E, 0x30, 0x11, 0x04, BK_ALG_GCM_NONCE};
static const uint8_t GCM_TAIL[] = {0x02, 0x01, 16};

_Static_assert(BK_ALG_GCM_LEN == sizeof GCM_HEAD + BK_ALG_GCM_NONCE + sizeof GCM_TAIL, "the whole encoding");
_Static_assert(BK_ALG_GCM_NONCE == BK_KEK_NONCE, "one nonce for both uses");

/* OBJECT IDENTIFIERs, whole, for what is recognised in order to be refused. */
static const uint8_t OID_RSA[] = {0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01};
static const uint8_t OID_STD_SHA1KDF[] = {0x06, 0x09, 0x2B, 0x81, 0x05, 0x10, 0x86, 0x48, 0x3F, 0x00, 0x02};
static const uint8_t OID_COFACTOR_SHA1KDF[] = {0x06, 0x09, 0x2B, 0x81, 0x05, 0x10, 0x86, 0x48, 0x3F, 0x00, 0x03};
static const uint8_t OID_MQV_SHA1KDF[] = {0x06, 0x09, 0x2B, 0x81, 0x05, 0x10, 0x86, 0x48, 0x3F, 0x00, 0x10};
static const uint8_t OID_OAEP[] = {0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x07};
static const uint8_t OID_ECDH_SHA256KDF[] = {0x06, 0x06, 0x2B, 0x81, 0x04, 0x01, 0x0B, 0x01};
static const uint8_t OID_ECDH_SHA384KDF[] = {0x06, 0x06, 0x2B, 0x81, 0x04, 0x01, 0x0B, 0x02};
static const uint8_t OID_AES256_WRAP[] = {0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2D};
static const uint8_t OID_SHA1[] = {0x06, 0x05, 0x2B, 0x0E, 0x03, 0x02, 0x1A};
static const uint8_t OID_SHA256[] = {0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01};

static int
equal(struct bk_encoding e, const uint8_t *der, size_t len)
{
    return e.len > 0 && e.len == len && memcmp(e.der, der, len) == 0;
}

static int
starts_with(struct bk_encoding e, const uint8_t *der, size_t len)
{
    return e.len <= len && memcmp(e.der, der, e.len) == 0;
}

struct bk_encoding
bk_alg_of_scheme(enum bk_scheme scheme)
{
    switch (scheme) {
    case BK_SCHEME_RSA_OAEP_SHA256:
        return ENCODING(OAEP_SHA256);
    case BK_SCHEME_RSA_OAEP_SHA1:
        return ENCODING(OAEP_SHA1);
    case BK_SCHEME_ECDH_P256:
        return ENCODING(ECDH_SHA256KDF);
    case BK_SCHEME_ECDH_P384:
        return ENCODING(ECDH_SHA384KDF);
    case BK_SCHEME_AES_KW:
        return ENCODING(AES256_WRAP);
    case BK_SCHEME_YUBIHSM_CCM:
        return ENCODING(YUBIHSM_CCM);
    case BK_SCHEME_AES_GCM:
    case BK_SCHEME_NONE:
        break;
    }
    return (struct bk_encoding){0};
}

enum bk_scheme
bk_alg_to_scheme(const uint8_t *der, size_t len)
{
    for (enum bk_scheme s = BK_SCHEME_RSA_OAEP_SHA256; s <= BK_SCHEME_LAST; s++)
        if (equal(bk_alg_of_scheme(s), der, len))
            return s;
    return bk_alg_gcm_nonce(der, len) != NULL ? BK_SCHEME_AES_GCM : BK_SCHEME_NONE;
}

void
bk_alg_gcm(const uint8_t nonce[BK_ALG_GCM_NONCE], uint8_t out[BK_ALG_GCM_LEN])
{
    memcpy(out, GCM_HEAD, sizeof GCM_HEAD);
    memcpy(out + sizeof GCM_HEAD, nonce, BK_ALG_GCM_NONCE);
    memcpy(out + sizeof GCM_HEAD + BK_ALG_GCM_NONCE, GCM_TAIL, sizeof GCM_TAIL);
}

const uint8_t *
bk_alg_gcm_nonce(const uint8_t *der, size_t len)
{
    if (len != BK_ALG_GCM_LEN || memcmp(der, GCM_HEAD, sizeof GCM_HEAD) != 0 ||
        memcmp(der + len - sizeof GCM_TAIL, GCM_TAIL, sizeof GCM_TAIL) != 0)
        return NULL;
    return der + sizeof GCM_HEAD;
}

/*
 * 1 if the parameters of RSAES-OAEP name SHA-1 (also by leaving the hash out) or SHA-256: then they are another
 * encoding of what the table has, such as RFC 4055's forms with NULL. Other hashes may come in a later version.
 */
static int
oaep_hash_in_table(const uint8_t *params, size_t len)
{
    const size_t hash_at = 6; /* 30 len, [0] A0 len, 30 len */

    if (len < hash_at || params[0] != 0x30 || params[2] != 0xA0 || params[4] != 0x30)
        return 1;
    return starts_with(ENCODING(OID_SHA1), params + hash_at, len - hash_at) ||
           starts_with(ENCODING(OID_SHA256), params + hash_at, len - hash_at);
}

/* 1 if the key wrap that ECDH names is AES-256's, or none at all: another encoding of what the table has. */
static int
ecdh_wrap_in_table(const uint8_t *params, size_t len)
{
    const size_t oid_at = 2; /* 30 len */

    if (len < oid_at || params[0] != 0x30)
        return 1;
    return starts_with(ENCODING(OID_AES256_WRAP), params + oid_at, len - oid_at);
}

int
bk_alg_forbidden(const uint8_t *der, size_t len)
{
    const struct bk_encoding never[] = {ENCODING(OID_RSA), ENCODING(OID_STD_SHA1KDF), ENCODING(OID_COFACTOR_SHA1KDF),
                                        ENCODING(OID_MQV_SHA1KDF)};
    size_t header = len < 2 || der[1] < 0x80 ? 2 : 2 + (der[1] & 0x7Fu);
    const uint8_t *oid = len < header ? der : der + header;
    size_t rest = len < header ? 0 : len - header;

    if (bk_alg_to_scheme(der, len) != BK_SCHEME_NONE || rest == 0)
        return 0;
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        if (starts_with(never[i], oid, rest))
            return 1;
    if (starts_with(ENCODING(OID_OAEP), oid, rest))
        return oaep_hash_in_table(oid + sizeof OID_OAEP, rest - sizeof OID_OAEP);
    if (starts_with(ENCODING(OID_ECDH_SHA256KDF), oid, rest) || starts_with(ENCODING(OID_ECDH_SHA384KDF), oid, rest))
        return ecdh_wrap_in_table(oid + sizeof OID_ECDH_SHA256KDF, rest - sizeof OID_ECDH_SHA256KDF);
    return starts_with(ENCODING(OID_AES256_WRAP), oid, rest) ||
           starts_with((struct bk_encoding){YUBIHSM_CCM + 2, sizeof YUBIHSM_CCM - 2}, oid, rest);
}

struct bk_encoding
bk_alg_of_signature(enum bk_sig_alg alg)
{
    switch (alg) {
    case BK_SIG_ECDSA_SHA256:
        return ENCODING(ECDSA_SHA256);
    case BK_SIG_RSA_PSS_SHA256:
        return ENCODING(PSS_SHA256);
    case BK_SIG_NONE:
        break;
    }
    return (struct bk_encoding){0};
}

enum bk_sig_alg
bk_alg_to_signature(const uint8_t *der, size_t len)
{
    if (equal(ENCODING(ECDSA_SHA256), der, len))
        return BK_SIG_ECDSA_SHA256;
    if (equal(ENCODING(PSS_SHA256), der, len))
        return BK_SIG_RSA_PSS_SHA256;
    return BK_SIG_NONE;
}

struct bk_encoding
bk_alg_sha256(void)
{
    return ENCODING(SHA256);
}

struct bk_encoding
bk_alg_ec_public(void)
{
    return ENCODING(EC_PUBLIC);
}

struct bk_encoding
bk_alg_aes256_wrap(void)
{
    return ENCODING(AES256_WRAP);
}

void
bk_own_oid(uint8_t last, uint8_t out[BK_OWN_OID_LEN])
{
    static const uint8_t arc[BK_OWN_OID_LEN - 1] = {0x06, 0x15, 0x69, 0x83, 0xDF, 0xBB, 0xB4, 0xFD, 0xDA, 0x93, 0xAA,
                                                    0xA1, 0xEB, 0xAA, 0xD0, 0xC1, 0x99, 0xDB, 0xAC, 0xD9, 0xB2, 0x4F};

    memcpy(out, arc, sizeof arc);
    out[BK_OWN_OID_LEN - 1] = last;
}
