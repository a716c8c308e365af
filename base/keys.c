#include "base/keys.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/ec.h"
#include "base/hash.h"

int
bk_key_id_equal(const struct bk_key_id *a, const struct bk_key_id *b)
{
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

char *
bk_key_id_text(const struct bk_key_id *id, char out[BK_KEY_ID_TEXT])
{
    return bk_hex(id->bytes, id->len, out);
}

int
bk_key_id_from_text(const char *text, struct bk_key_id *out)
{
    struct bk_key_id id = {.len = strlen(text) / 2};

    if (id.len < BK_KEY_ID_MIN || id.len > BK_KEY_ID_MAX || !bk_unhex(text, id.bytes, id.len))
        return 0;
    *out = id;
    return 1;
}

static const struct {
    enum bk_scheme scheme;
    const char *name;
} scheme_names[] = {
    {BK_SCHEME_RSA_OAEP_SHA256, "rsa-oaep-sha256"},
    {BK_SCHEME_RSA_OAEP_SHA1, "rsa-oaep-sha1"},
    {BK_SCHEME_ECDH_P256, "ecdh-p256"},
    {BK_SCHEME_ECDH_P384, "ecdh-p384"},
    {BK_SCHEME_AES_KW, "aes-kw"},
    {BK_SCHEME_AES_GCM, "aes-gcm-token"},
    {BK_SCHEME_YUBIHSM_CCM, "yubihsm-ccm"},
};

const char *
bk_scheme_name(enum bk_scheme scheme)
{
    for (size_t i = 0; i < sizeof scheme_names / sizeof *scheme_names; i++)
        if (scheme_names[i].scheme == scheme)
            return scheme_names[i].name;
    return "none";
}

enum bk_scheme
bk_scheme_from_name(const char *name)
{
    for (size_t i = 0; i < sizeof scheme_names / sizeof *scheme_names; i++)
        if (strcmp(scheme_names[i].name, name) == 0)
            return scheme_names[i].scheme;
    return BK_SCHEME_NONE;
}

const char *
bk_key_type_name(enum bk_key_type type)
{
    switch (type) {
    case BK_KEY_RSA:
        return "rsa";
    case BK_KEY_P256:
        return "p256";
    case BK_KEY_P384:
        return "p384";
    case BK_KEY_AES256:
        return "aes256";
    case BK_KEY_UNKNOWN:
        break;
    }
    return "unknown";
}

enum bk_sig_alg
bk_sig_alg_for(enum bk_key_type type)
{
    switch (type) {
    case BK_KEY_RSA:
        return BK_SIG_RSA_PSS_SHA256;
    case BK_KEY_P256:
    case BK_KEY_P384:
        return BK_SIG_ECDSA_SHA256;
    case BK_KEY_AES256:
    case BK_KEY_UNKNOWN:
        break;
    }
    return BK_SIG_NONE;
}

void
bk_public_free(struct bk_public *p)
{
    free(p->spki);
    free(p->uri);
    *p = (struct bk_public){0};
}

enum bk_code
bk_public_copy(struct bk_public *dst, const struct bk_public *src, struct bk_err *err)
{
    struct bk_public p = *src;

    p.spki = NULL;
    p.uri = NULL;
    if (src->spki != NULL) {
        p.spki = malloc(src->spki_len > 0 ? src->spki_len : 1);
        if (p.spki == NULL)
            goto nomem;
        memcpy(p.spki, src->spki, src->spki_len);
    }
    if (src->uri != NULL) {
        p.uri = strdup(src->uri);
        if (p.uri == NULL)
            goto nomem;
    }
    *dst = p;
    return BK_OK;
nomem:
    bk_public_free(&p);
    return bk_fail_nomem(err);
}

void
bk_public_fingerprint(const struct bk_public *p, uint8_t out[32])
{
    bk_sha256(p->spki, p->spki_len, out);
}

/* What a SubjectPublicKeyInfo holds: the subjectPublicKey bits, within the X509_PUBKEY. */
static enum bk_code
spki_bits(X509_PUBKEY *spki, const uint8_t **bits, size_t *len, struct bk_err *err)
{
    const unsigned char *at = NULL;
    int n = 0;

    if (X509_PUBKEY_get0_param(NULL, &at, &n, NULL, spki) != 1 || at == NULL || n <= 0)
        return bk_fail(err, BK_E_FORMAT, "public key: the key bits cannot be read");
    *bits = at;
    *len = (size_t)n;
    return BK_OK;
}

/*
 * RSA of 2048 to 4096 bits, odd modulus, exponent odd, at least 65537, and of no more than the 64 bits that OpenSSL
 * works with beside a modulus of over 3072. That the modulus is no prime is not tested, as SP 800-56B 6.4.2 would: it
 * takes 10 to 20 ms a key, and whoever names such a key as theirs harms only themselves.
 */
static enum bk_code
check_rsa(const EVP_PKEY *key, struct bk_public *p, struct bk_err *err)
{
    BIGNUM *n = NULL;
    BIGNUM *e = NULL;
    int bits = EVP_PKEY_get_bits(key);
    enum bk_code rc = BK_OK;

    if (bits < 2048 || bits > 4096)
        return bk_fail(err, BK_E_POLICY, "public key: RSA of %d bits is refused, 2048 to 4096 are allowed", bits);
    if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &n) != 1 ||
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e) != 1 || !BN_is_odd(n)) {
        rc = bk_fail(err, BK_E_FORMAT, "public key: no RSA modulus and exponent, or an even modulus");
        goto done;
    }
    if (!BN_is_odd(e) || BN_num_bits(e) < 17 || BN_num_bits(e) > 64)
        rc = bk_fail(err, BK_E_POLICY, "public key: the RSA exponent is even, under 65537, or over 64 bits");
done:
    BN_free(n);
    BN_free(e);
    p->type = BK_KEY_RSA;
    p->bits = (size_t)bits;
    p->scheme = BK_SCHEME_RSA_OAEP_SHA256;
    return rc;
}

/* Full validation of the point: SP 800-56A 5.6.2.3.3. */
static enum bk_code
check_point(EVP_PKEY *key, struct bk_err *err)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    int ok = ctx != NULL && EVP_PKEY_public_check(ctx) == 1;

    EVP_PKEY_CTX_free(ctx);
    return ok ? BK_OK : bk_fail(err, BK_E_FORMAT, "public key: the point is not a valid public key");
}

/* P-256 or P-384 with an uncompressed point; *key is built anew from the curve and the point, so that nothing else of a
 * foreign encoding is believed. */
static enum bk_code
check_ec(EVP_PKEY **key, const struct bk_curve *c, const uint8_t *point, size_t len, struct bk_public *p,
         struct bk_err *err)
{
    EVP_PKEY *rebuilt;

    if (c == NULL)
        return bk_fail(err, BK_E_POLICY, "public key: an elliptic curve other than P-256 and P-384 is refused");
    *p = (struct bk_public){.type = c->type, .bits = c->bits, .scheme = c->scheme};
    if (len != c->point || point[0] != 4)
        return bk_fail(err, BK_E_FORMAT, "public key: the point is not in uncompressed form");
    if ((rebuilt = bk_ec_key(c, point, len)) == NULL)
        return bk_fail(err, BK_E_FORMAT, "public key: the point is not on the curve");
    EVP_PKEY_free(*key);
    *key = rebuilt;
    return check_point(rebuilt, err);
}

static const struct bk_curve *
curve_of_key(const EVP_PKEY *key)
{
    char group[32] = "";

    if (EVP_PKEY_get_group_name(key, group, sizeof group, NULL) != 1)
        return NULL;
    if (strcmp(group, "prime256v1") == 0)
        return bk_curve_of(BK_KEY_P256);
    return strcmp(group, "secp384r1") == 0 ? bk_curve_of(BK_KEY_P384) : NULL;
}

/* The DER that bk keeps, and the id over the key's bits: RFC 7093 section 2 method 1. */
static enum bk_code
keep(struct bk_public *p, const uint8_t *der, size_t len, const uint8_t *bits, size_t bits_len, struct bk_err *err)
{
    uint8_t digest[BK_SHA256_LEN];

    if ((p->spki = malloc(len)) == NULL)
        return bk_fail_nomem(err);
    memcpy(p->spki, der, len);
    p->spki_len = len;
    bk_sha256(bits, bits_len, digest);
    memcpy(p->id.bytes, digest, BK_SKI_LEN);
    p->id.len = BK_SKI_LEN;
    return BK_OK;
}

/* Encoded by the crypto library, whatever the encoding was that it came in. */
static enum bk_code
take_spki(EVP_PKEY *key, struct bk_public *p, struct bk_err *err)
{
    X509_PUBKEY *spki = NULL;
    unsigned char *der = NULL;
    const uint8_t *bits = NULL;
    size_t bits_len = 0;
    enum bk_code rc;
    int len = -1;

    if (X509_PUBKEY_set(&spki, key) == 1)
        len = i2d_X509_PUBKEY(spki, &der);
    if (len <= 0)
        rc = bk_fail(err, BK_E_INTERNAL, "public key: cannot be encoded");
    else if ((rc = spki_bits(spki, &bits, &bits_len, err)) == BK_OK)
        rc = keep(p, der, (size_t)len, bits, bits_len, err);
    OPENSSL_free(der);
    X509_PUBKEY_free(spki);
    return rc;
}

/* der is the one encoding of a point: it is what take_spki would give, and needs no decoder. */
static enum bk_code
from_plain_ec(struct bk_public *out, const struct bk_curve *c, const uint8_t *der, size_t len, struct bk_err *err)
{
    const uint8_t *point = der + c->prefix_len;
    struct bk_public p = {0};
    EVP_PKEY *key = NULL;
    enum bk_code rc = check_ec(&key, c, point, c->point, &p, err);

    if (rc == BK_OK)
        rc = keep(&p, der, len, point, c->point, err);
    if (rc == BK_OK)
        *out = p;
    EVP_PKEY_free(key);
    return bk_crypto_end(rc, err);
}

enum bk_code
bk_public_from_spki(struct bk_public *out, const uint8_t *der, size_t len, struct bk_err *err)
{
    const struct bk_curve *curve = bk_curve_of_spki(der, len);
    const unsigned char *at = der;
    X509_PUBKEY *spki;
    EVP_PKEY *key = NULL;
    struct bk_public p = {0};
    const uint8_t *bits = NULL;
    size_t bits_len = 0;
    enum bk_code rc;

    if (curve != NULL)
        return from_plain_ec(out, curve, der, len, err);
    spki = len > 0 && len <= LONG_MAX ? d2i_X509_PUBKEY(NULL, &at, (long)len) : NULL;
    if (spki == NULL || at != der + len || (key = X509_PUBKEY_get(spki)) == NULL) {
        rc = bk_fail(err, BK_E_FORMAT, "public key: not a SubjectPublicKeyInfo of a known type");
        goto done;
    }
    if ((rc = spki_bits(spki, &bits, &bits_len, err)) != BK_OK)
        goto done;
    if (EVP_PKEY_is_a(key, "RSA"))
        rc = check_rsa(key, &p, err);
    else if (EVP_PKEY_is_a(key, "EC"))
        rc = check_ec(&key, curve_of_key(key), bits, bits_len, &p, err);
    else
        rc = bk_fail(err, BK_E_POLICY, "public key: neither RSA nor EC, or an RSA key restricted to PSS");
    if (rc == BK_OK)
        rc = take_spki(key, &p, err);
    if (rc == BK_OK)
        *out = p;
done:
    EVP_PKEY_free(key);
    X509_PUBKEY_free(spki);
    return bk_crypto_end(rc, err);
}

static enum bk_code
cannot(const struct bk_key *key, const char *what, struct bk_err *err)
{
    char id[BK_KEY_ID_TEXT];

    return bk_fail(err, BK_E_UNSUPPORTED, "key %s (%s) cannot %s", bk_key_id_text(&key->pub.id, id),
                   bk_key_type_name(key->pub.type), what);
}

enum bk_code
bk_key_wrap(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    if (key->ops->wrap == NULL)
        return cannot(key, "wrap", err);
    if (cek->len != BK_CEK_LEN)
        return bk_fail(err, BK_E_INTERNAL, "wrap: a content encryption key of %zu bytes", cek->len);
    return key->ops->wrap(key, cek, out, err);
}

enum bk_code
bk_key_unwrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    enum bk_code rc;

    if (key->ops->unwrap == NULL)
        return cannot(key, "unwrap", err);
    rc = key->ops->unwrap(key, in, cek, err);
    /* lengths that tokens return are not believed: docs/TOKENS.md, rule 5 */
    if (rc == BK_OK && cek->len != BK_CEK_LEN)
        rc = bk_fail(err, BK_E_VERIFY, "unwrap: the key opened to %zu bytes, not %d", cek->len, BK_CEK_LEN);
    if (rc != BK_OK)
        bk_secret_wipe(cek);
    return rc;
}

enum bk_code
bk_key_rewrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_key *to, struct bk_wrapped *out,
              struct bk_err *err)
{
    if (key->ops->rewrap == NULL)
        return cannot(key, "rewrap blind", err);
    return key->ops->rewrap(key, in, to, out, err);
}

enum bk_code
bk_key_sign(struct bk_key *key, const uint8_t digest[32], uint8_t *sig, size_t *sig_len, struct bk_err *err)
{
    enum bk_sig_alg alg = bk_sig_alg_for(key->pub.type);

    if (key->ops->sign == NULL || alg == BK_SIG_NONE)
        return cannot(key, "sign", err);
    return key->ops->sign(key, digest, alg, sig, sig_len, err);
}

void
bk_key_close(struct bk_key *key)
{
    if (key != NULL)
        key->ops->close(key);
}
