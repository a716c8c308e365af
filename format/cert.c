/* X.509 certificates (RFC 5280): read with OpenSSL; made by hand, because the key that signs is on a token. */
#include <limits.h>
#include <string.h>

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/objects.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/hash.h"
#include "format/algorithms.h"
#include "format/der.h"
#include "format/manifest.h"
#include "format/pem.h"
#include "format/tlv.h"

#define SERIAL_LEN      16
#define COMMON_NAME_MAX 64           /* characters: RFC 5280 appendix A, ub-common-name */
#define TIME_MAX        253402300799 /* 9999-12-31T23:59:59Z */

void
bk_cert_info_free(struct bk_cert_info *c)
{
    bk_public_free(&c->pub);
    *c = (struct bk_cert_info){0};
}

/* Every failure of this file says what it is about. */
static enum bk_code
finish(enum bk_code rc, struct bk_err *err)
{
    rc = bk_crypto_end(rc, err);
    if (rc != BK_OK) {
        bk_err_prefix(err, "certificate");
        bk_err_layer(err, "certificate");
    }
    return rc;
}

/* ---- reading ---- */

static X509 *
decode(const uint8_t *der, size_t len)
{
    const unsigned char *at = der;
    X509 *x = len > LONG_MAX ? NULL : d2i_X509(NULL, &at, (long)len);

    if (x != NULL && at != der + len) {
        X509_free(x);
        return NULL;
    }
    return x;
}

static enum bk_code
read_time(const ASN1_TIME *from, const char *name, time_t *out, struct bk_err *err)
{
    struct tm tm = {0};

    if (from == NULL || ASN1_TIME_to_tm(from, &tm) != 1)
        return bk_fail(err, BK_E_FORMAT, "%s is not a time", name);
    *out = timegm(&tm);
    return BK_OK;
}

static enum bk_code
read_public(X509 *x, struct bk_public *out, struct bk_err *err)
{
    unsigned char *spki = NULL;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki);
    enum bk_code rc;

    if (len > 0)
        rc = bk_public_from_spki(out, spki, (size_t)len, err);
    else
        rc = bk_fail(err, BK_E_FORMAT, "no public key");
    OPENSSL_free(spki);
    return rc;
}

/* RFC 5280 4.2.1.2; a certificate may have none, but not two and not one that is not an OCTET STRING. */
static enum bk_code
read_ski(X509 *x, struct bk_cert_info *c, struct bk_err *err)
{
    int found = -1;
    ASN1_OCTET_STRING *ski = X509_get_ext_d2i(x, NID_subject_key_identifier, &found, NULL);
    enum bk_code rc = BK_OK;

    if (ski != NULL && ASN1_STRING_length(ski) > 0 && (size_t)ASN1_STRING_length(ski) <= sizeof c->ski) {
        c->ski_len = (size_t)ASN1_STRING_length(ski);
        memcpy(c->ski, ASN1_STRING_get0_data(ski), c->ski_len);
    } else if (ski != NULL || found != -1) {
        rc = bk_fail(err, BK_E_FORMAT, "subjectKeyIdentifier is not one of 1 to %zu bytes", sizeof c->ski);
    }
    ASN1_OCTET_STRING_free(ski);
    return rc;
}

/* For people: RFC 2253 form, control characters and what is not ASCII escaped, cut to the room there is. */
static enum bk_code
read_subject(X509 *x, char *out, size_t room, struct bk_err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    long len;
    enum bk_code rc = BK_OK;

    if (bio == NULL)
        return bk_fail_nomem(err);
    if (X509_NAME_print_ex(bio, X509_get_subject_name(x), 0, XN_FLAG_RFC2253) < 0) {
        rc = bk_fail(err, BK_E_FORMAT, "the subject is not a name");
    } else {
        len = BIO_get_mem_data(bio, &text);
        if (len > (long)room - 1)
            len = (long)room - 1;
        if (len > 0)
            memcpy(out, text, (size_t)len);
        out[len < 0 ? 0 : len] = '\0';
    }
    BIO_free(bio);
    return rc;
}

static enum bk_code
parse(const uint8_t *der, size_t len, struct bk_cert_info *c, struct bk_err *err)
{
    X509 *x = NULL;
    enum bk_code rc;

    if ((rc = bk_der_walk(der, len, "X.509", err)) != BK_OK)
        return rc;
    if ((x = decode(der, len)) == NULL)
        return bk_fail(err, BK_E_FORMAT, "not an X.509 certificate");
    if ((rc = read_public(x, &c->pub, err)) != BK_OK)
        goto done;
    if ((rc = read_time(X509_get0_notBefore(x), "notBefore", &c->not_before, err)) != BK_OK)
        goto done;
    if ((rc = read_time(X509_get0_notAfter(x), "notAfter", &c->not_after, err)) != BK_OK)
        goto done;
    if ((rc = read_ski(x, c, err)) != BK_OK)
        goto done;
    rc = read_subject(x, c->subject, sizeof c->subject, err);
done:
    X509_free(x);
    return rc;
}

enum bk_code
bk_cert_parse(const uint8_t *der, size_t len, struct bk_cert_info *out, struct bk_err *err)
{
    struct bk_cert_info c = {0};
    enum bk_code rc = parse(der, len, &c, err);

    if (rc == BK_OK)
        *out = c;
    else
        bk_cert_info_free(&c);
    return finish(rc, err);
}

/* ---- making ---- */

/* RFC 5280 4.1.2.2: positive, unique; 128 random bits, for which a leading zero byte keeps the sign away. */
static enum bk_code
put_serial(struct bk_buf *out, struct bk_err *err)
{
    uint8_t serial[1 + SERIAL_LEN] = {0};
    size_t skip = 0;

    if (RAND_bytes(serial + 1, SERIAL_LEN) != 1)
        return bk_fail(err, BK_E_INTERNAL, "the random number generator failed");
    while (skip < SERIAL_LEN && serial[skip] == 0 && serial[skip + 1] < 0x80)
        skip++;
    if (skip == SERIAL_LEN && serial[SERIAL_LEN] == 0)
        return bk_fail(err, BK_E_INTERNAL, "the random number generator failed");
    return bk_tlv_put(out, BK_TAG_INTEGER, serial + skip, sizeof serial - skip, err);
}

/* Wraps what inner holds into a new element, and keeps that in inner. */
static enum bk_code
enclose(struct bk_buf *inner, uint8_t tag, struct bk_err *err)
{
    struct bk_buf outer = {0};
    enum bk_code rc = bk_tlv_put(&outer, tag, inner->data, inner->len, err);

    if (rc != BK_OK) {
        bk_buf_free(&outer);
        return rc;
    }
    bk_buf_free(inner);
    *inner = outer;
    return BK_OK;
}

/* Name { RDN { { id-at-commonName, UTF8String } } } */
static enum bk_code
make_name(const char *name, struct bk_buf *out, struct bk_err *err)
{
    static const uint8_t common_name[] = {0x06, 0x03, 0x55, 0x04, 0x03};
    enum bk_code rc;

    if ((rc = bk_buf_append(out, common_name, sizeof common_name, err)) != BK_OK)
        return rc;
    if ((rc = bk_tlv_put(out, BK_TAG_UTF8, name, strlen(name), err)) != BK_OK)
        return rc;
    if ((rc = enclose(out, BK_TAG_SEQUENCE, err)) != BK_OK)
        return rc;
    if ((rc = enclose(out, BK_TAG_SET, err)) != BK_OK)
        return rc;
    return enclose(out, BK_TAG_SEQUENCE, err);
}

static enum bk_code
put_validity(struct bk_buf *out, time_t not_before, time_t not_after, struct bk_err *err)
{
    struct bk_buf times = {0};
    enum bk_code rc;

    if ((rc = bk_tlv_put_time(&times, not_before, err)) != BK_OK)
        goto done;
    if ((rc = bk_tlv_put_time(&times, not_after, err)) != BK_OK)
        goto done;
    rc = bk_tlv_put(out, BK_TAG_SEQUENCE, times.data, times.len, err);
done:
    bk_buf_free(&times);
    return rc;
}

/*
 * [3] { subjectKeyIdentifier, authorityKeyIdentifier, critical basicConstraints { }, critical keyUsage
 * { digitalSignature } }. RFC 5280 4.2.1.1 lets a self-signed certificate go without authorityKeyIdentifier; with it,
 * OpenSSL tells two certificates of one name apart.
 */
static enum bk_code
put_extensions(struct bk_buf *out, const struct bk_public *pub, struct bk_err *err)
{
    static const uint8_t ski_head[] = {0xa3, 0x60, 0x30, 0x5e, 0x30, 0x1d, 0x06, 0x03,
                                       0x55, 0x1d, 0x0e, 0x04, 0x16, 0x04, 0x14};
    static const uint8_t aki_head[] = {0x30, 0x1f, 0x06, 0x03, 0x55, 0x1d, 0x23, 0x04, 0x18, 0x30, 0x16, 0x80, 0x14};
    static const uint8_t rest[] = {0x30, 0x0c, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff,
                                   0x04, 0x02, 0x30, 0x00, 0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d,
                                   0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x07, 0x80};
    enum bk_code rc;

    if (pub->id.len != BK_SKI_LEN)
        return bk_fail(err, BK_E_INTERNAL, "key id of %zu bytes", pub->id.len);
    if ((rc = bk_buf_append(out, ski_head, sizeof ski_head, err)) != BK_OK)
        return rc;
    if ((rc = bk_buf_append(out, pub->id.bytes, BK_SKI_LEN, err)) != BK_OK)
        return rc;
    if ((rc = bk_buf_append(out, aki_head, sizeof aki_head, err)) != BK_OK)
        return rc;
    if ((rc = bk_buf_append(out, pub->id.bytes, BK_SKI_LEN, err)) != BK_OK)
        return rc;
    return bk_buf_append(out, rest, sizeof rest, err);
}

/* TBSCertificate, RFC 5280 4.1.2, in field order. */
static enum bk_code
make_tbs(const struct bk_public *pub, const char *name, time_t not_before, time_t not_after, struct bk_encoding alg,
         struct bk_buf *out, struct bk_err *err)
{
    static const uint8_t version_3[] = {0xa0, 0x03, 0x02, 0x01, 0x02};
    struct bk_buf subject = {0};
    enum bk_code rc;

    if ((rc = make_name(name, &subject, err)) != BK_OK)
        goto done;
    if ((rc = bk_buf_append(out, version_3, sizeof version_3, err)) != BK_OK)
        goto done;
    if ((rc = put_serial(out, err)) != BK_OK)
        goto done;
    if ((rc = bk_buf_append(out, alg.der, alg.len, err)) != BK_OK)
        goto done;
    if ((rc = bk_buf_append(out, subject.data, subject.len, err)) != BK_OK) /* issuer */
        goto done;
    if ((rc = put_validity(out, not_before, not_after, err)) != BK_OK)
        goto done;
    if ((rc = bk_buf_append(out, subject.data, subject.len, err)) != BK_OK)
        goto done;
    if ((rc = bk_buf_append(out, pub->spki, pub->spki_len, err)) != BK_OK)
        goto done;
    if ((rc = put_extensions(out, pub, err)) != BK_OK)
        goto done;
    rc = enclose(out, BK_TAG_SEQUENCE, err);
done:
    bk_buf_free(&subject);
    return rc;
}

/* Appends signatureAlgorithm and signatureValue to the TBSCertificate in cert, and encloses all. */
static enum bk_code
sign_tbs(struct bk_key *key, struct bk_encoding alg, struct bk_buf *cert, struct bk_err *err)
{
    uint8_t digest[BK_SHA256_LEN];
    uint8_t bits[1 + BK_SIGNATURE_MAX] = {0}; /* the first byte counts unused bits: none */
    size_t sig_len = BK_SIGNATURE_MAX;
    enum bk_code rc;

    bk_sha256(cert->data, cert->len, digest);
    if ((rc = bk_key_sign(key, digest, bits + 1, &sig_len, err)) != BK_OK)
        return rc;
    if ((rc = bk_buf_append(cert, alg.der, alg.len, err)) != BK_OK)
        return rc;
    if ((rc = bk_tlv_put(cert, BK_TAG_BIT_STRING, bits, 1 + sig_len, err)) != BK_OK)
        return rc;
    return enclose(cert, BK_TAG_SEQUENCE, err);
}

/* Reads the new certificate with other code than what wrote it, and verifies its signature. */
static enum bk_code
check_made(const struct bk_buf *der, const struct bk_public *pub, struct bk_err *err)
{
    struct bk_cert_info info = {0};
    X509 *x = NULL;
    enum bk_code rc = parse(der->data, der->len, &info, err);

    if (rc != BK_OK)
        goto done;
    if (!bk_key_id_equal(&info.pub.id, &pub->id) || info.ski_len != pub->id.len ||
        memcmp(info.ski, pub->id.bytes, info.ski_len) != 0) {
        rc = bk_fail(err, BK_E_INTERNAL, "made for another key");
        goto done;
    }
    x = decode(der->data, der->len);
    if (x == NULL || X509_verify(x, X509_get0_pubkey(x)) != 1)
        rc = bk_fail(err, BK_E_TOKEN, "what the token signed does not hold under its own public key");
done:
    X509_free(x);
    bk_cert_info_free(&info);
    return rc;
}

static enum bk_code
check_wishes(const char *name, time_t not_before, time_t not_after, struct bk_err *err)
{
    size_t characters = 0;

    for (const char *c = name; *c != '\0'; c++)
        characters += ((unsigned char)*c & 0xc0) != 0x80;
    if (!bk_text_valid(name, strlen(name)) || characters > COMMON_NAME_MAX)
        return bk_fail(err, BK_E_USAGE, "the name is not UTF-8 of 1 to %d characters without control characters",
                       COMMON_NAME_MAX);
    if (not_before < 0 || not_after > TIME_MAX || not_after <= not_before)
        return bk_fail(err, BK_E_USAGE, "the time of validity is empty or outside the years 1970 to 9999");
    return BK_OK;
}

enum bk_code
bk_cert_self_sign(struct bk_key *key, const char *name, time_t not_before, time_t not_after, struct bk_buf *der,
                  struct bk_err *err)
{
    struct bk_encoding alg = bk_alg_of_signature(bk_sig_alg_for(key->pub.type));
    struct bk_buf cert = {0};
    enum bk_code rc;

    if (alg.der == NULL || key->pub.spki == NULL) {
        rc = bk_fail(err, BK_E_UNSUPPORTED, "a key of type %s cannot sign one", bk_key_type_name(key->pub.type));
        goto done;
    }
    if ((rc = check_wishes(name, not_before, not_after, err)) != BK_OK)
        goto done;
    if ((rc = make_tbs(&key->pub, name, not_before, not_after, alg, &cert, err)) != BK_OK)
        goto done;
    if ((rc = sign_tbs(key, alg, &cert, err)) != BK_OK)
        goto done;
    if ((rc = check_made(&cert, &key->pub, err)) != BK_OK)
        goto done;
    rc = bk_buf_append(der, cert.data, cert.len, err);
done:
    bk_buf_free(&cert);
    return finish(rc, err);
}
