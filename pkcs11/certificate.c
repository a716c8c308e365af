/* The certificate beside a signing key. */
#include <string.h>

#include <openssl/x509.h>

#include "pkcs11/key.h"
#include "pkcs11/public.h"

/* 1 if a begins to be valid later than b, so that of several renewals the newest is taken. b empty: 1. */
static int
is_newer(const struct bk_buf *a, const struct bk_buf *b)
{
    const uint8_t *at = a->data;
    const uint8_t *bt = b->data;
    X509 *x = d2i_X509(NULL, &at, (long)a->len);
    X509 *y = b->len == 0 ? NULL : d2i_X509(NULL, &bt, (long)b->len);
    int newer = y == NULL || (x != NULL && ASN1_TIME_compare(X509_get0_notBefore(x), X509_get0_notBefore(y)) > 0);

    X509_free(x);
    X509_free(y);
    return newer;
}

/* Of the certificates with that id (NULL: of all), the newest for the key; *best stays empty if there is none. */
static enum bk_code
look(struct p11_key *key, const CK_ATTRIBUTE *id, struct bk_buf *best, struct bk_err *err)
{
    struct p11_handles found = {0};
    enum bk_code rc = p11_object_find(&key->session, CKO_CERTIFICATE, NULL, id, &found, err);

    for (size_t i = 0; rc == BK_OK && i < found.count; i++) {
        struct bk_public pub = {0};
        struct bk_buf der = {0};

        enum bk_code known = p11_public_from_certificate(&key->session, found.at[i], &pub, &der, err);

        /* whatever is no certificate of a key that bk knows is not ours */
        if (known == BK_E_NO_ROOM)
            rc = known;
        if (known == BK_OK && bk_key_id_equal(&pub.id, &key->base.pub.id) && is_newer(&der, best)) {
            struct bk_buf old = *best;

            *best = der;
            der = old;
        }
        bk_buf_free(&der);
        bk_public_free(&pub);
    }
    if (rc == BK_OK)
        rc = p11_object_check(&key->session, err);
    p11_handles_free(&found);
    return rc;
}

static enum bk_code
read_step(struct p11_key *key, void *args, struct bk_err *err)
{
    struct bk_buf *best = args;
    CK_ATTRIBUTE id = p11_traits_id(&key->traits);
    enum bk_code rc = BK_OK;

    bk_buf_free(best);
    if (key->traits.id_len > 0)
        rc = look(key, &id, best, err);
    if (rc == BK_OK && best->len == 0)
        rc = look(key, NULL, best, err);
    return rc;
}

enum bk_code
p11_certificate(struct bk_key *base, struct bk_buf *der, struct bk_err *err)
{
    struct p11_key *key = p11_key_of(base);
    struct bk_buf best = {0};
    enum bk_code rc;

    if (key == NULL || base->pub.spki == NULL)
        return bk_fail(err, BK_E_NO_KEY, "a key without public half has no certificate");
    rc = p11_key_run(key, read_step, &best, err);
    if (rc == BK_OK && best.len == 0)
        rc = bk_fail(err, BK_E_NO_KEY, "%s: no certificate for the key %s", key->token->where, base->pub.uri);
    if (rc == BK_OK)
        rc = bk_buf_append(der, best.data, best.len, err);
    bk_buf_free(&best);
    return rc;
}

/* The DER forms that PKCS#11 wants beside the value (2.40 section 4.6.3). */
struct names {
    uint8_t *subject, *issuer, *serial;
    int subject_len, issuer_len, serial_len;
};

static void
names_free(struct names *n)
{
    OPENSSL_free(n->subject);
    OPENSSL_free(n->issuer);
    OPENSSL_free(n->serial);
}

static enum bk_code
names_of(const uint8_t *der, size_t len, struct names *n, struct bk_err *err)
{
    const uint8_t *at = der;
    X509 *x = d2i_X509(NULL, &at, (long)len);
    enum bk_code rc = BK_OK;

    if (x == NULL)
        return bk_fail(err, BK_E_FORMAT, "not an X.509 certificate in DER");
    n->subject_len = i2d_X509_NAME(X509_get_subject_name(x), &n->subject);
    n->issuer_len = i2d_X509_NAME(X509_get_issuer_name(x), &n->issuer);
    n->serial_len = i2d_ASN1_INTEGER(X509_get_serialNumber(x), &n->serial);
    if (n->subject_len <= 0 || n->issuer_len <= 0 || n->serial_len <= 0)
        rc = bk_fail_nomem(err);
    X509_free(x);
    return rc;
}

struct store_args {
    const uint8_t *der;
    size_t len;
    const struct names *names;
};

static enum bk_code
store_step(struct p11_key *key, void *args, struct bk_err *err)
{
    const struct store_args *a = args;
    struct p11_session *s = &key->session;
    CK_OBJECT_CLASS class = CKO_CERTIFICATE;
    CK_CERTIFICATE_TYPE type = CKC_X_509;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_OBJECT_HANDLE object = 0;
    CK_ATTRIBUTE template[] = {
        {CKA_CLASS, &class, sizeof class},
        {CKA_CERTIFICATE_TYPE, &type, sizeof type},
        {CKA_TOKEN, &yes, sizeof yes},
        {CKA_PRIVATE, &no, sizeof no},
        p11_traits_label(&key->traits),
        p11_traits_id(&key->traits),
        {CKA_SUBJECT, a->names->subject, (CK_ULONG)a->names->subject_len},
        {CKA_ISSUER, a->names->issuer, (CK_ULONG)a->names->issuer_len},
        {CKA_SERIAL_NUMBER, a->names->serial, (CK_ULONG)a->names->serial_len},
        {CKA_VALUE, (void *)(uintptr_t)a->der, (CK_ULONG)a->len},
    };
    struct bk_buf there = {0};
    enum bk_code rc = read_step(key, &there, err);

    /* stored already, perhaps by the try before this one: once is enough */
    if (rc == BK_OK && !(there.len == a->len && memcmp(there.data, a->der, a->len) == 0) &&
        P11_CALL(&s->port, C_CreateObject, s->handle, template, sizeof template / sizeof template[0], &object) !=
            CKR_OK)
        rc = p11_call_fail(&s->port, err, "storing the certificate");
    bk_buf_free(&there);
    return rc;
}

enum bk_code
p11_certificate_store(struct bk_key *base, const uint8_t *der, size_t len, struct bk_err *err)
{
    struct p11_key *key = p11_key_of(base);
    struct bk_public pub = {0};
    struct names names = {0};
    struct store_args args = {der, len, &names};
    enum bk_code rc;

    if (key == NULL || len > P11_CERTIFICATE_MAX)
        return bk_fail(err, BK_E_INTERNAL, "certificate: no key on a token, or %zu bytes", len);
    if ((rc = p11_public_from_x509(der, len, &pub, err)) != BK_OK)
        return rc;
    if (!bk_key_id_equal(&pub.id, &base->pub.id))
        rc = bk_fail(err, BK_E_INTERNAL, "the certificate is not for the key %s", base->pub.uri);
    if (rc == BK_OK)
        rc = names_of(der, len, &names, err);
    if (rc == BK_OK)
        rc = p11_key_run(key, store_step, &args, err);
    names_free(&names);
    bk_public_free(&pub);
    return rc;
}
