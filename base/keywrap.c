#include "base/keywrap.h"

#include <limits.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/ec.h"

#define WRAP_SCRATCH 64 /* EVP asks for the input's length and a block of 16 bytes */

/* What an elliptic-curve scheme is made of. */
struct curve {
    const char *group;
    const char *kdf_digest;
    size_t field; /* bytes of a coordinate, and of the shared secret */
};

static const struct curve *
curve_of(enum bk_scheme scheme)
{
    static const struct curve p256 = {"P-256", "SHA256", 32};
    static const struct curve p384 = {"P-384", "SHA384", 48};

    if (scheme == BK_SCHEME_ECDH_P256)
        return &p256;
    return scheme == BK_SCHEME_ECDH_P384 ? &p384 : NULL;
}

static size_t
point_length(const struct curve *c)
{
    return 1 + 2 * c->field;
}

/* A call of the crypto library that only fails when something is broken; its reason goes into the message. */
static enum bk_code
crypto_fail(struct bk_err *err, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    enum bk_code rc = bk_fail(err, BK_E_INTERNAL, "%s failed: %s", what, reason != NULL ? reason : "no reason given");

    return bk_crypto_end(rc, err);
}

static EVP_PKEY *
public_pkey(const struct bk_public *p)
{
    const unsigned char *at = p->spki;
    const struct bk_curve *c = p->spki == NULL ? NULL : bk_curve_of_spki(p->spki, p->spki_len);

    if (c != NULL)
        return bk_ec_key(c, p->spki + c->prefix_len, c->point);
    return p->spki == NULL || p->spki_len > LONG_MAX ? NULL : d2i_PUBKEY(NULL, &at, (long)p->spki_len);
}

/* One pass of AES-256 key wrap, RFC 3394, with the default initial value; out has WRAP_SCRATCH bytes of room. */
static int
aeskw(const struct bk_secret *kek, const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len, int wrap)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-WRAP", NULL);
    int n = 0;
    int ok = 0;

    if (ctx == NULL || cipher == NULL)
        goto done;
    EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    ok = EVP_CipherInit_ex2(ctx, cipher, kek->data, NULL, wrap, NULL) == 1 &&
         EVP_CipherUpdate(ctx, out, &n, in, (int)in_len) == 1 && (size_t)n == out_len;
done:
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
    return ok;
}

enum bk_code
bk_aeskw_wrap(const struct bk_secret *kek, const struct bk_secret *cek, uint8_t out[BK_AESKW_LEN], struct bk_err *err)
{
    uint8_t scratch[WRAP_SCRATCH];

    if (kek->len != 32 || cek->len != BK_CEK_LEN)
        return bk_fail(err, BK_E_INTERNAL, "AES key wrap: a key of %zu bytes under one of %zu", cek->len, kek->len);
    if (!aeskw(kek, cek->data, cek->len, scratch, BK_AESKW_LEN, 1))
        return crypto_fail(err, "AES key wrap");
    memcpy(out, scratch, BK_AESKW_LEN);
    return BK_OK;
}

enum bk_code
bk_aeskw_unwrap(const struct bk_secret *kek, const uint8_t in[BK_AESKW_LEN], struct bk_secret *cek, struct bk_err *err)
{
    struct bk_secret scratch = {0};
    enum bk_code rc;

    if (kek->len != 32)
        return bk_fail(err, BK_E_INTERNAL, "AES key unwrap: a key of %zu bytes", kek->len);
    if ((rc = bk_secret_alloc(&scratch, WRAP_SCRATCH, err)) != BK_OK)
        return rc;
    if (aeskw(kek, in, BK_AESKW_LEN, scratch.data, BK_CEK_LEN, 0))
        rc = bk_secret_from(cek, scratch.data, BK_CEK_LEN, err);
    else
        rc = bk_fail(err, BK_E_VERIFY, "AES key unwrap: the wrapped key does not open under this key");
    bk_secret_wipe(&scratch);
    return bk_crypto_end(rc, err);
}

/*
 * The key that wraps the CEK: X9.63 KDF over the shared secret. RFC 5753 7.2: the info is the DER of ECC-CMS-SharedInfo
 * { keyInfo id-aes256-wrap without parameters, no entityUInfo, suppPubInfo [2] = bits of the key, 256 }.
 */
static enum bk_code
x963_kek(const struct curve *c, const struct bk_secret *shared, struct bk_secret *kek, struct bk_err *err)
{
    static const uint8_t shared_info[] = {0x30, 0x15, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
                                          0x04, 0x01, 0x2d, 0xa2, 0x06, 0x04, 0x04, 0x00, 0x00, 0x01, 0x00};
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)(uintptr_t)c->kdf_digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, shared->data, shared->len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)shared_info, sizeof shared_info),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_X963KDF, NULL);
    EVP_KDF_CTX *ctx = kdf == NULL ? NULL : EVP_KDF_CTX_new(kdf);
    enum bk_code rc = bk_secret_alloc(kek, 32, err);

    if (rc == BK_OK && (ctx == NULL || EVP_KDF_derive(ctx, kek->data, kek->len, params) != 1))
        rc = crypto_fail(err, "X9.63 key derivation");
    if (rc != BK_OK)
        bk_secret_wipe(kek);
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return rc;
}

enum bk_code
bk_ecdh_finish(enum bk_scheme scheme, const struct bk_secret *shared, const struct bk_wrapped *in,
               struct bk_secret *cek, struct bk_err *err)
{
    const struct curve *c = curve_of(scheme);
    struct bk_secret kek = {0};
    enum bk_code rc;

    if (c == NULL || shared->data == NULL || shared->len != c->field)
        return bk_fail(err, BK_E_INTERNAL, "%s: a shared secret of %zu bytes", bk_scheme_name(scheme), shared->len);
    if (in->scheme != scheme || in->len != BK_AESKW_LEN)
        return bk_fail(err, BK_E_FORMAT, "%s: the wrapped key is of scheme %s and has %zu bytes",
                       bk_scheme_name(scheme), bk_scheme_name(in->scheme), in->len);
    if ((rc = x963_kek(c, shared, &kek, err)) != BK_OK)
        goto done;
    rc = bk_aeskw_unwrap(&kek, in->data, cek, err);
done:
    bk_secret_wipe(&kek);
    return rc;
}

static int
set_oaep(EVP_PKEY_CTX *ctx, const EVP_MD *md)
{
    return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) == 1 && EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) == 1;
}

/* RSAES-OAEP, RFC 8017 7.1, with the same digest in MGF1 and the empty label. */
static enum bk_code
wrap_rsa(EVP_PKEY *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    const EVP_MD *md = out->scheme == BK_SCHEME_RSA_OAEP_SHA1 ? EVP_sha1() : EVP_sha256();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    size_t size = (size_t)EVP_PKEY_get_size(key);
    enum bk_code rc = BK_OK;

    out->len = sizeof out->data;
    if (size > out->len)
        rc = bk_fail(err, BK_E_INTERNAL, "RSA-OAEP: a modulus of %zu bytes", size);
    else if (ctx == NULL || EVP_PKEY_encrypt_init(ctx) != 1 || !set_oaep(ctx, md) ||
             EVP_PKEY_encrypt(ctx, out->data, &out->len, cek->data, cek->len) != 1 || out->len != size)
        rc = crypto_fail(err, "RSA-OAEP encryption");
    EVP_PKEY_CTX_free(ctx);
    return rc;
}

/* An ephemeral key whose point no token can take for DER, and the point. */
static enum bk_code
draw_ephemeral(const struct curve *c, EVP_PKEY **key, struct bk_wrapped *out, struct bk_err *err)
{
    /* one draw in 256 is refused: 64 in a row is a broken generator */
    for (int i = 0; i < 64; i++) {
        EVP_PKEY *k = EVP_EC_gen(c->group);

        if (k == NULL ||
            EVP_PKEY_get_octet_string_param(k, OSSL_PKEY_PARAM_PUB_KEY, out->ephemeral, sizeof out->ephemeral,
                                            &out->ephemeral_len) != 1 ||
            out->ephemeral_len != point_length(c) || out->ephemeral[0] != 4) {
            EVP_PKEY_free(k);
            return crypto_fail(err, "making an ephemeral key");
        }
        if (out->ephemeral[1] != out->ephemeral_len - 2) {
            *key = k;
            return BK_OK;
        }
        EVP_PKEY_free(k);
    }
    return bk_fail(err, BK_E_INTERNAL, "the random number generator failed");
}

static enum bk_code
derive_shared(EVP_PKEY *own, EVP_PKEY *peer, size_t field, struct bk_secret *shared, struct bk_err *err)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
    size_t len = field;
    enum bk_code rc = bk_secret_alloc(shared, field, err);

    /* the third argument has the peer's point validated */
    if (rc == BK_OK &&
        (ctx == NULL || EVP_PKEY_derive_init(ctx) != 1 || EVP_PKEY_derive_set_peer_ex(ctx, peer, 1) != 1 ||
         EVP_PKEY_derive(ctx, shared->data, &len) != 1 || len != field))
        rc = crypto_fail(err, "key agreement");
    EVP_PKEY_CTX_free(ctx);
    return rc;
}

static enum bk_code
wrap_ec(EVP_PKEY *to, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    const struct curve *c = curve_of(out->scheme);
    EVP_PKEY *ephemeral = NULL;
    struct bk_secret shared = {0};
    struct bk_secret kek = {0};
    enum bk_code rc;

    if (c == NULL)
        return bk_fail(err, BK_E_INTERNAL, "no curve for %s", bk_scheme_name(out->scheme));
    if ((rc = draw_ephemeral(c, &ephemeral, out, err)) != BK_OK)
        goto done;
    if ((rc = derive_shared(ephemeral, to, c->field, &shared, err)) != BK_OK)
        goto done;
    if ((rc = x963_kek(c, &shared, &kek, err)) != BK_OK)
        goto done;
    if ((rc = bk_aeskw_wrap(&kek, cek, out->data, err)) != BK_OK)
        goto done;
    out->len = BK_AESKW_LEN;
done:
    bk_secret_wipe(&kek);
    bk_secret_wipe(&shared);
    EVP_PKEY_free(ephemeral);
    return rc;
}

/* 1 if the scheme is one for public halves of that type. */
static int
scheme_fits(const struct bk_public *p)
{
    switch (p->scheme) {
    case BK_SCHEME_RSA_OAEP_SHA256:
    case BK_SCHEME_RSA_OAEP_SHA1:
        return p->type == BK_KEY_RSA;
    case BK_SCHEME_ECDH_P256:
        return p->type == BK_KEY_P256;
    case BK_SCHEME_ECDH_P384:
        return p->type == BK_KEY_P384;
    case BK_SCHEME_AES_KW:
    case BK_SCHEME_AES_GCM:
    case BK_SCHEME_YUBIHSM_CCM:
    case BK_SCHEME_NONE:
        break;
    }
    return 0;
}

enum bk_code
bk_public_wrap(const struct bk_public *to, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    struct bk_wrapped w = {.scheme = to->scheme, .id = to->id};
    EVP_PKEY *key = NULL;
    enum bk_code rc;

    if (cek->len != BK_CEK_LEN)
        return bk_fail(err, BK_E_INTERNAL, "wrap: a content encryption key of %zu bytes", cek->len);
    if (to->spki == NULL || !scheme_fits(to))
        return bk_fail(err, BK_E_UNSUPPORTED, "wrap: a public key of type %s cannot be wrapped to with %s",
                       bk_key_type_name(to->type), bk_scheme_name(to->scheme));
    if ((key = public_pkey(to)) == NULL)
        return crypto_fail(err, "reading the recipient's public key");
    rc = to->type == BK_KEY_RSA ? wrap_rsa(key, cek, &w, err) : wrap_ec(key, cek, &w, err);
    if (rc == BK_OK)
        *out = w;
    else
        bk_err_prefix(err, "wrap: %s", bk_scheme_name(to->scheme));
    EVP_PKEY_free(key);
    return rc;
}

static enum bk_code
not_on_curve(enum bk_scheme scheme, struct bk_err *err)
{
    return bk_fail(err, BK_E_FORMAT, "the ephemeral key is not an uncompressed point on the curve of %s",
                   bk_scheme_name(scheme));
}

enum bk_code
bk_ec_point_check(enum bk_scheme scheme, const uint8_t *point, size_t len, struct bk_err *err)
{
    const struct curve *c = curve_of(scheme);
    EVP_PKEY_CTX *make = NULL;
    EVP_PKEY_CTX *check = NULL;
    EVP_PKEY *key = NULL;
    int ok;

    if (c == NULL || len != point_length(c) || point[0] != 4)
        return not_on_curve(scheme, err);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)c->group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)point, len),
        OSSL_PARAM_construct_end(),
    };
    make = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    ok = make != NULL && EVP_PKEY_fromdata_init(make) == 1 &&
         EVP_PKEY_fromdata(make, &key, EVP_PKEY_PUBLIC_KEY, params) == 1 &&
         (check = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL)) != NULL && EVP_PKEY_public_check(check) == 1;
    EVP_PKEY_CTX_free(check);
    EVP_PKEY_CTX_free(make);
    EVP_PKEY_free(key);
    return bk_crypto_end(ok ? BK_OK : not_on_curve(scheme, err), err);
}

/* 1 if sig is the one DER encoding of its ECDSA-Sig-Value (RFC 3279 2.2.3); other encodings would be a second signature
 * over the same content. */
static int
ecdsa_is_der(const uint8_t *sig, size_t len)
{
    const unsigned char *at = sig;
    ECDSA_SIG *parsed = len > 0 && len <= BK_SIGNATURE_MAX ? d2i_ECDSA_SIG(NULL, &at, (long)len) : NULL;
    unsigned char *again = NULL;
    int n = parsed == NULL ? -1 : i2d_ECDSA_SIG(parsed, &again);
    int ok = n > 0 && (size_t)n == len && memcmp(again, sig, len) == 0;

    OPENSSL_free(again);
    ECDSA_SIG_free(parsed);
    return ok;
}

/* RFC 4055 3.1: MGF1-SHA-256 and a salt of exactly 32 bytes. */
static int
set_pss(EVP_PKEY_CTX *ctx)
{
    return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha256()) == 1 && EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, 32) == 1;
}

static int
verify_digest(EVP_PKEY *key, enum bk_sig_alg alg, const uint8_t digest[32], const uint8_t *sig, size_t sig_len)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    int ok = ctx != NULL && EVP_PKEY_verify_init(ctx) == 1;

    if (ok && alg == BK_SIG_RSA_PSS_SHA256)
        ok = sig_len == (size_t)EVP_PKEY_get_size(key) && set_pss(ctx);
    else if (ok)
        ok = ecdsa_is_der(sig, sig_len);
    ok = ok && EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) == 1 &&
         EVP_PKEY_verify(ctx, sig, sig_len, digest, 32) == 1;
    EVP_PKEY_CTX_free(ctx);
    return ok;
}

enum bk_code
bk_public_verify(const struct bk_public *p, enum bk_sig_alg alg, const uint8_t digest[32], const uint8_t *sig,
                 size_t sig_len, struct bk_err *err)
{
    EVP_PKEY *key;
    int ok;

    if (alg == BK_SIG_NONE || alg != bk_sig_alg_for(p->type))
        return bk_fail(err, BK_E_VERIFY, "the signature's algorithm is not that of a key of type %s",
                       bk_key_type_name(p->type));
    if ((key = public_pkey(p)) == NULL)
        return crypto_fail(err, "reading the signer's public key");
    ok = verify_digest(key, alg, digest, sig, sig_len);
    EVP_PKEY_free(key);
    return bk_crypto_end(ok ? BK_OK : bk_fail(err, BK_E_VERIFY, "the signature does not hold"), err);
}
