#include "pkcs11/public.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>

#include "base/ec.h"
#include "pkcs11/uri.h"

#define RSA_MAX                                                                                                        \
    1024 /* bytes that a modulus may have here; what is too large for bk is refused by bk_public_from_spki */
#define POINT_MAX 160

static enum bk_code
absent(const struct p11_session *s, struct bk_err *err)
{
    return bk_fail(err, BK_E_NO_KEY, "%s: no public key object, certificate or modulus tells the public half",
                   s->port.where);
}

static enum bk_code
from_rsa(const uint8_t *n, size_t n_len, const uint8_t *e, size_t e_len, struct bk_public *out, struct bk_err *err)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    BIGNUM *bn_n = BN_bin2bn(n, (int)n_len, NULL);
    BIGNUM *bn_e = BN_bin2bn(e, (int)e_len, NULL);
    OSSL_PARAM *params = NULL;
    EVP_PKEY *key = NULL;
    uint8_t *der = NULL;
    int len = 0;
    enum bk_code rc = BK_OK;

    if (build == NULL || ctx == NULL || bn_n == NULL || bn_e == NULL ||
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, bn_n) != 1 ||
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, bn_e) != 1 ||
        (params = OSSL_PARAM_BLD_to_param(build)) == NULL) {
        rc = bk_fail_nomem(err);
        goto done;
    }
    if (EVP_PKEY_fromdata_init(ctx) != 1 || EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1 ||
        (len = i2d_PUBKEY(key, &der)) <= 0) {
        rc = bk_fail(err, BK_E_NO_KEY, "the token's RSA modulus and exponent are no public key");
        goto done;
    }
    rc = bk_public_from_spki(out, der, (size_t)len, err);
done:
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    OSSL_PARAM_free(params);
    BN_free(bn_e);
    BN_free(bn_n);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_BLD_free(build);
    return bk_crypto_end(rc, err);
}

/* The point raw, or inside an OCTET STRING, as the standard says and half of the tokens do not: told apart by length.
 */
static enum bk_code
from_point(enum bk_key_type type, const uint8_t *point, size_t len, struct bk_public *out, struct bk_err *err)
{
    const struct bk_curve *c = bk_curve_of(type);
    const size_t raw = c->point;
    uint8_t der[BK_EC_PREFIX_MAX + 97];

    if (len == raw + 2 && point[0] == 0x04 && point[1] == raw) {
        point += 2;
        len -= 2;
    }
    if (len != raw || point[0] != 0x04)
        return bk_fail(err, BK_E_NO_KEY, "CKA_EC_POINT of %zu bytes is no uncompressed point", len);
    memcpy(der, c->prefix, c->prefix_len);
    memcpy(der + c->prefix_len, point, raw);
    return bk_public_from_spki(out, der, c->prefix_len + raw, err);
}

enum bk_code
p11_public_from_object(struct p11_session *s, CK_OBJECT_HANDLE object, const struct p11_traits *t,
                       struct bk_public *out, struct bk_err *err)
{
    static const uint8_t f4[] = {1, 0, 1};
    uint8_t n[RSA_MAX];
    uint8_t e[64];
    uint8_t point[POINT_MAX];
    size_t n_len = 0;
    size_t e_len = 0;
    size_t len = 0;

    if (t->type == BK_KEY_RSA && p11_object_bytes(s, object, CKA_MODULUS, n, sizeof n, &n_len)) {
        /* a private key need not tell its exponent; a wrong guess here fails the trial of the key */
        if (!p11_object_bytes(s, object, CKA_PUBLIC_EXPONENT, e, sizeof e, &e_len) || e_len == 0)
            return from_rsa(n, n_len, f4, sizeof f4, out, err);
        return from_rsa(n, n_len, e, e_len, out, err);
    }
    if ((t->type == BK_KEY_P256 || t->type == BK_KEY_P384) &&
        p11_object_bytes(s, object, CKA_EC_POINT, point, sizeof point, &len))
        return from_point(t->type, point, len, out, err);
    return absent(s, err);
}

/* CKA_PUBLIC_KEY_INFO of a private key (PKCS#11 2.40 section 4.9); few tokens have it. */
static enum bk_code
from_key_info(struct p11_session *s, CK_OBJECT_HANDLE object, struct bk_public *out, struct bk_err *err)
{
    uint8_t der[RSA_MAX];
    size_t len = 0;

    if (!p11_object_bytes(s, object, CKA_PUBLIC_KEY_INFO, der, sizeof der, &len) || len == 0)
        return absent(s, err);
    return bk_public_from_spki(out, der, len, err);
}

enum bk_code
p11_public_from_x509(const uint8_t *der, size_t len, struct bk_public *out, struct bk_err *err)
{
    const uint8_t *at = der;
    uint8_t *spki = NULL;
    X509 *cert = d2i_X509(NULL, &at, (long)len);
    int spki_len;
    enum bk_code rc;

    if (cert == NULL || at != der + len) {
        X509_free(cert);
        return bk_crypto_end(bk_fail(err, BK_E_FORMAT, "not an X.509 certificate in DER"), err);
    }
    spki_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &spki);
    if (spki_len <= 0)
        rc = bk_fail_nomem(err);
    else
        rc = bk_public_from_spki(out, spki, (size_t)spki_len, err);
    OPENSSL_free(spki);
    X509_free(cert);
    return rc;
}

enum bk_code
p11_public_from_certificate(struct p11_session *s, CK_OBJECT_HANDLE object, struct bk_public *out, struct bk_buf *der,
                            struct bk_err *err)
{
    uint8_t *value = malloc(P11_CERTIFICATE_MAX);
    size_t len = 0;
    enum bk_code rc;

    if (value == NULL)
        return bk_fail_nomem(err);
    if (!p11_object_bytes(s, object, CKA_VALUE, value, P11_CERTIFICATE_MAX, &len) || len == 0)
        rc = bk_fail(err, BK_E_NO_KEY, "%s: a certificate without a value", s->port.where);
    else
        rc = p11_public_from_x509(value, len, out, err);
    if (rc == BK_OK && der != NULL && (rc = bk_buf_append(der, value, len, err)) != BK_OK)
        bk_public_free(out);
    free(value);
    return rc;
}

/* What the private key itself says must agree: its type, and its modulus if it tells one. */
static int
agrees(struct p11_session *s, CK_OBJECT_HANDLE object, const struct p11_traits *t, const struct bk_public *pub)
{
    uint8_t n[RSA_MAX];
    size_t len = 0;
    size_t skip = 0;

    if (pub->type != t->type)
        return 0;
    if (t->type != BK_KEY_RSA || !p11_object_bytes(s, object, CKA_MODULUS, n, sizeof n, &len))
        return 1;
    while (skip < len && n[skip] == 0)
        skip++;
    return skip < len && memmem(pub->spki, pub->spki_len, n + skip, len - skip) != NULL;
}

/* Public key objects, then certificates, of the same CKA_ID. */
static enum bk_code
from_beside(struct p11_session *s, CK_OBJECT_HANDLE object, const struct p11_traits *t, CK_OBJECT_CLASS class,
            struct bk_public *out, struct bk_err *err)
{
    CK_ATTRIBUTE id = p11_traits_id(t);
    struct p11_handles found = {0};
    struct bk_err last = {0};
    enum bk_code rc = absent(s, &last);
    enum bk_code search = p11_object_find(s, class, NULL, &id, &found, err);

    if (search != BK_OK)
        return search;
    for (size_t i = 0; i < found.count && rc != BK_OK; i++) {
        struct p11_traits other = {0};
        struct bk_public pub = {0};

        rc = p11_traits_read(s, found.at[i], class, &other, &last);
        if (rc == BK_OK)
            rc = class == CKO_CERTIFICATE ? p11_public_from_certificate(s, found.at[i], &pub, NULL, &last)
                                          : p11_public_from_object(s, found.at[i], &other, &pub, &last);
        if (rc == BK_OK && !agrees(s, object, t, &pub))
            rc = absent(s, &last);
        if (rc == BK_OK)
            *out = pub;
        else
            bk_public_free(&pub);
    }
    p11_handles_free(&found);
    if (rc != BK_OK && err != NULL)
        *err = last;
    return rc;
}

static enum bk_code
secret_half(const struct p11_session *s, const struct p11_traits *t, struct bk_public *out, struct bk_err *err)
{
    if (t->id_len < BK_KEY_ID_MIN || t->id_len > BK_KEY_ID_MAX)
        return bk_fail(err, BK_E_POLICY, "%s: a secret key with a CKA_ID of %zu bytes; %d to %d are needed",
                       s->port.where, t->id_len, BK_KEY_ID_MIN, BK_KEY_ID_MAX);
    out->type = BK_KEY_AES256;
    out->bits = 256;
    out->scheme = t->key_type == P11_CKK_YUBIHSM_AES256_CCM_WRAP ? BK_SCHEME_YUBIHSM_CCM : BK_SCHEME_AES_KW;
    memcpy(out->id.bytes, t->id, t->id_len);
    out->id.len = t->id_len;
    return BK_OK;
}

enum bk_code
p11_public_half(struct p11_session *s, CK_OBJECT_HANDLE object, const struct p11_traits *t, struct bk_public *out,
                struct bk_err *err)
{
    static const CK_OBJECT_CLASS beside[] = {CKO_PUBLIC_KEY, CKO_CERTIFICATE};
    enum bk_code rc = BK_E_NO_KEY;

    if (t->class == CKO_SECRET_KEY)
        return secret_half(s, t, out, err);
    /* a candidate that is damaged (BK_E_FORMAT) is no reason not to look at the next */
    for (size_t i = 0; i < 2 && t->id_len > 0 && (rc == BK_E_NO_KEY || rc == BK_E_FORMAT); i++)
        rc = from_beside(s, object, t, beside[i], out, err);
    if (rc == BK_E_NO_KEY || rc == BK_E_FORMAT)
        rc = from_key_info(s, object, out, err);
    if (rc == BK_E_NO_KEY || rc == BK_E_FORMAT)
        rc = p11_public_from_object(s, object, t, out, err);
    return rc;
}

enum bk_code
p11_public_set_uri(struct bk_public *out, const struct p11_token *token, const struct p11_traits *t, struct bk_err *err)
{
    CK_ATTRIBUTE label = p11_traits_label(t);
    CK_ATTRIBUTE id = p11_traits_id(t);
    char *uri = NULL;
    enum bk_code rc = p11_uri_hint(&token->info, &label, &id, &uri, err);

    if (rc != BK_OK)
        return rc;
    free(out->uri);
    out->uri = uri;
    return BK_OK;
}
