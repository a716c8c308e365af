#include "format/signed.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/keywrap.h"
#include "format/algorithms.h"
#include "format/der.h"
#include "format/pem.h"
#include "format/tlv.h"

#define SIGNED_DATA_VERSION 3 /* RFC 5652 5.1: the content type is not id-data */
#define SIGNER_INFO_VERSION 3 /* RFC 5652 5.3: sid is a subjectKeyIdentifier */
#define ATTRIBUTES          4
#define PATH_MAX_LEN        96
#define OID_TEXT_MAX        64

#define OID_SIGNED_DATA "1.2.840.113549.1.7.2"
static const uint8_t signed_data_oid[] = {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02};

/* The signed attributes, each once and no other: docs/FORMAT.md, Signatures. */
enum attribute { ATTR_CONTENT_TYPE, ATTR_MESSAGE_DIGEST, ATTR_SIGNING_TIME, ATTR_SIGNING_CERTIFICATE };
static const struct {
    const char *name;
    const char *oid;
    uint8_t der[13];
    size_t der_len;
} attributes[ATTRIBUTES] = {
    [ATTR_CONTENT_TYPE] = {"content-type",
                           "1.2.840.113549.1.9.3",
                           {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03},
                           11},
    [ATTR_MESSAGE_DIGEST] = {"message-digest",
                             "1.2.840.113549.1.9.4",
                             {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04},
                             11},
    [ATTR_SIGNING_TIME] = {"signing-time",
                           "1.2.840.113549.1.9.5",
                           {0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x05},
                           11},
    [ATTR_SIGNING_CERTIFICATE] = {"signing-certificate-v2",
                                  "1.2.840.113549.1.9.16.2.47",
                                  {0x06, 0x0b, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x02, 0x2f},
                                  13},
};

void
bk_signed_free(struct bk_signed *s)
{
    bk_buf_free(&s->content);
    for (size_t i = 0; i < s->signer_count; i++) {
        bk_public_free(&s->signers[i].pub);
        bk_buf_free(&s->signers[i].cert);
    }
    *s = (struct bk_signed){0};
}

static const char *
content_name(enum bk_content type)
{
    return type == BK_CONTENT_MANIFEST     ? "a manifest"
           : type == BK_CONTENT_KEY_RECORD ? "a key record"
                                           : "a token's profile";
}

/* Every failure of this file says what it is about. */
static enum bk_code
finish(enum bk_code rc, struct bk_err *err)
{
    if (rc != BK_OK) {
        bk_err_prefix(err, "signature");
        bk_err_layer(err, "signature");
    }
    return rc;
}

/* ---- parsing ---- */

/* parent followed by what is under it. A path that did not fit would be empty, and so name nothing. */
static const char *
join(char out[PATH_MAX_LEN], const char *parent, const char *rest)
{
    int n = snprintf(out, PATH_MAX_LEN, "%s%s", parent, rest);

    if (n < 0 || n >= PATH_MAX_LEN)
        out[0] = '\0';
    return out;
}

/* The element of that number, from 1, in a SET OF. */
static const char *
nth(char out[PATH_MAX_LEN], const char *set, size_t number)
{
    int n = snprintf(out, PATH_MAX_LEN, "%s.?%zu", set, number);

    if (n < 0 || n >= PATH_MAX_LEN)
        out[0] = '\0';
    return out;
}

/* What is being read; the certificates are matched with the signers that name them. */
struct parse {
    asn1_node node;
    const uint8_t *der;
    size_t len;
    enum bk_content type;
    uint8_t content_oid[BK_OWN_OID_LEN];
    uint8_t content_digest[BK_SHA256_LEN];
    struct bk_tlv certs[BK_SIGNERS_MAX]; /* whole encodings, within der */
    int used[BK_SIGNERS_MAX];
    size_t count;
};

static enum bk_code
get_span(const struct parse *p, const char *path, struct bk_tlv *out, struct bk_err *err)
{
    size_t start = 0;
    size_t end = 0;
    enum bk_code rc = bk_der_span(p->node, path, p->der, p->len, &start, &end, err);

    if (rc == BK_OK)
        *out = (struct bk_tlv){p->der + start, end - start};
    return rc;
}

static int
is_encoding(struct bk_tlv element, const uint8_t *der, size_t len)
{
    return element.len == len && memcmp(element.data, der, len) == 0;
}

/* BK_E_FORMAT with the sentence unless the element at path is exactly these bytes. */
static enum bk_code
expect(const struct parse *p, const char *path, const uint8_t *der, size_t len, const char *sentence,
       struct bk_err *err)
{
    struct bk_tlv element;
    enum bk_code rc = get_span(p, path, &element, err);

    if (rc == BK_OK && !is_encoding(element, der, len))
        rc = bk_fail(err, BK_E_FORMAT, "%s", sentence);
    return rc;
}

static enum bk_code
expect_version(const struct parse *p, const char *path, uint64_t version, struct bk_err *err)
{
    uint64_t v = 0;
    enum bk_code rc = bk_der_get_u64(p->node, path, &v, err);

    if (rc == BK_OK && v != version)
        rc =
            bk_fail(err, BK_E_FORMAT, "%s is %llu, not %llu", path, (unsigned long long)v, (unsigned long long)version);
    return rc;
}

static const char other_digest[] = "digest algorithm other than SHA-256";

static enum bk_code
check_head(const struct parse *p, struct bk_err *err)
{
    struct bk_encoding sha256 = bk_alg_sha256();
    char sentence[64];
    size_t count = 0;
    enum bk_code rc;

    if ((rc = expect(p, "contentType", signed_data_oid, sizeof signed_data_oid, "not a SignedData", err)) != BK_OK)
        return rc;
    if ((rc = expect_version(p, "content.version", SIGNED_DATA_VERSION, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_count(p->node, "content.digestAlgorithms", &count, err)) != BK_OK)
        return rc;
    if (count != 1)
        return bk_fail(err, BK_E_FORMAT, "%zu digest algorithms, not SHA-256 alone", count);
    rc = expect(p, "content.digestAlgorithms.?1", sha256.der, sha256.len, other_digest, err);
    if (rc != BK_OK)
        return rc;
    (void)snprintf(sentence, sizeof sentence, "what is signed is not %s", content_name(p->type));
    return expect(p, "content.encapContent.eContentType", p->content_oid, sizeof p->content_oid, sentence, err);
}

/* docs/FORMAT.md, Signatures: as many certificates as signers; that each is named by a signer is seen later. */
static enum bk_code
load_certificates(struct parse *p, struct bk_err *err)
{
    size_t certs = 0;
    char path[PATH_MAX_LEN];
    enum bk_code rc;

    if ((rc = bk_der_count(p->node, "content.signerInfos", &p->count, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_count(p->node, "content.certificates", &certs, err)) != BK_OK)
        return rc;
    if (p->count < 1 || p->count > BK_SIGNERS_MAX)
        return bk_fail(err, BK_E_FORMAT, "%zu signers, 1 to %d allowed", p->count, BK_SIGNERS_MAX);
    if (certs != p->count)
        return bk_fail(err, BK_E_FORMAT, "%zu certificates for %zu signers", certs, p->count);
    for (size_t i = 0; i < certs && rc == BK_OK; i++)
        rc = get_span(p, nth(path, "content.certificates", i + 1), &p->certs[i], err);
    return rc;
}

/* What the signed attributes of one signer say. */
struct claims {
    int seen[ATTRIBUTES];
    time_t signing_time;
    uint8_t cert_hash[BK_SHA256_LEN];
};

/*
 * SigningCertificateV2 (RFC 5035 section 3) with one ESSCertIDv2: certHash by SHA-256, whose identifier is left out
 * because it is the DEFAULT. An issuerSerial may follow; the hash already names one certificate.
 */
static enum bk_code
read_signing_certificate(struct bk_tlv value, uint8_t hash[BK_SHA256_LEN], struct bk_err *err)
{
    struct bk_tlv signing, certs, id, digest, issuer;
    int ok = bk_tlv_take(&value, BK_TAG_SEQUENCE, &signing) && value.len == 0 &&
             bk_tlv_take(&signing, BK_TAG_SEQUENCE, &certs) && signing.len == 0 &&
             bk_tlv_take(&certs, BK_TAG_SEQUENCE, &id) && certs.len == 0 &&
             bk_tlv_take(&id, BK_TAG_OCTET_STRING, &digest) && digest.len == BK_SHA256_LEN &&
             (id.len == 0 || (bk_tlv_take(&id, BK_TAG_SEQUENCE, &issuer) && id.len == 0));

    if (!ok)
        return bk_fail(err, BK_E_FORMAT, "signing-certificate-v2 is not one SHA-256 hash");
    memcpy(hash, digest.data, BK_SHA256_LEN);
    return BK_OK;
}

static enum bk_code
read_message_digest(const struct parse *p, struct bk_tlv value, struct bk_err *err)
{
    struct bk_tlv digest;

    if (!bk_tlv_take(&value, BK_TAG_OCTET_STRING, &digest) || value.len != 0 || digest.len != BK_SHA256_LEN)
        return bk_fail(err, BK_E_FORMAT, "message-digest is not of SHA-256");
    if (memcmp(digest.data, p->content_digest, BK_SHA256_LEN) != 0)
        return bk_fail(err, BK_E_VERIFY, "message-digest is not that of the content");
    return BK_OK;
}

static enum bk_code
read_claim(const struct parse *p, enum attribute which, struct bk_tlv value, struct claims *c, struct bk_err *err)
{
    enum bk_code rc;

    switch (which) {
    case ATTR_CONTENT_TYPE:
        if (is_encoding(value, p->content_oid, sizeof p->content_oid))
            return BK_OK;
        return bk_fail(err, BK_E_FORMAT, "content-type is not that of the content");
    case ATTR_MESSAGE_DIGEST:
        return read_message_digest(p, value, err);
    case ATTR_SIGNING_TIME:
        if ((rc = bk_tlv_time(value.data, value.len, &c->signing_time, err)) != BK_OK)
            bk_err_prefix(err, "signing-time");
        return rc;
    case ATTR_SIGNING_CERTIFICATE:
        return read_signing_certificate(value, c->cert_hash, err);
    }
    return bk_fail(err, BK_E_INTERNAL, "no such attribute");
}

/* One Attribute: its type is one of the four, not seen before, and it has one value. */
static enum bk_code
read_attribute(const struct parse *p, const char *path, struct claims *c, struct bk_err *err)
{
    char field[PATH_MAX_LEN];
    struct bk_tlv type, value;
    size_t which = 0;
    size_t values = 0;
    enum bk_code rc;

    if ((rc = get_span(p, join(field, path, ".attrType"), &type, err)) != BK_OK)
        return rc;
    while (which < ATTRIBUTES && !is_encoding(type, attributes[which].der, attributes[which].der_len))
        which++;
    if (which == ATTRIBUTES)
        return bk_fail(err, BK_E_FORMAT, "a signed attribute that the profile does not have");
    if ((rc = bk_der_count(p->node, join(field, path, ".attrValues"), &values, err)) != BK_OK)
        return rc;
    if (c->seen[which]++ || values != 1)
        return bk_fail(err, BK_E_FORMAT, "%s stands there twice or has %zu values", attributes[which].name, values);
    if ((rc = get_span(p, join(field, path, ".attrValues.?1"), &value, err)) != BK_OK)
        return rc;
    return read_claim(p, (enum attribute)which, value, c, err);
}

static enum bk_code
read_attributes(const struct parse *p, const char *signer, struct claims *c, struct bk_err *err)
{
    char set[PATH_MAX_LEN];
    char path[PATH_MAX_LEN];
    size_t count = 0;
    enum bk_code rc = bk_der_count(p->node, join(set, signer, ".signedAttrs"), &count, err);

    for (size_t i = 0; i < count && rc == BK_OK; i++)
        rc = read_attribute(p, nth(path, set, i + 1), c, err);
    for (size_t i = 0; i < ATTRIBUTES && rc == BK_OK; i++)
        if (!c->seen[i])
            rc = bk_fail(err, BK_E_FORMAT, "no %s among the signed attributes", attributes[i].name);
    return rc;
}

/* The certificate that the signer names by its hash, and by sid as its subjectKeyIdentifier. No other signer has it. */
static enum bk_code
take_certificate(struct parse *p, const char *signer, const struct claims *c, struct bk_signer *out, struct bk_err *err)
{
    struct bk_cert_info info = {0};
    char path[PATH_MAX_LEN];
    uint8_t hash[BK_SHA256_LEN];
    uint8_t sid[sizeof info.ski];
    size_t sid_len = 0;
    size_t at = 0;
    enum bk_code rc;

    for (; at < p->count; at++) {
        bk_sha256(p->certs[at].data, p->certs[at].len, hash);
        if (!p->used[at] && memcmp(hash, c->cert_hash, sizeof hash) == 0)
            break;
    }
    if (at == p->count)
        return bk_fail(err, BK_E_FORMAT, "the certificate that it names is not there");
    p->used[at] = 1;
    if ((rc = bk_cert_parse(p->certs[at].data, p->certs[at].len, &info, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_get_bytes(p->node, join(path, signer, ".sid"), sid, sizeof sid, &sid_len, err)) != BK_OK)
        goto done;
    if (info.ski_len == 0 || sid_len != info.ski_len || memcmp(sid, info.ski, sid_len) != 0) {
        rc = bk_fail(err, BK_E_FORMAT, "sid is not the subjectKeyIdentifier of its certificate");
        goto done;
    }
    if ((rc = bk_buf_append(&out->cert, p->certs[at].data, p->certs[at].len, err)) != BK_OK)
        goto done;
    out->pub = info.pub;
    info.pub = (struct bk_public){0};
    out->signing_time = c->signing_time;
    out->cert_valid_then = info.not_before <= c->signing_time && c->signing_time <= info.not_after;
done:
    bk_cert_info_free(&info);
    /* a key that this program does not take from anybody is, in an archive, one that the profile does not have */
    if (rc == BK_E_POLICY) {
        rc = BK_E_FORMAT;
        if (err != NULL)
            err->code = rc;
    }
    return rc;
}

/* RFC 5652 5.4: what is signed is the SET OF with its own tag, not the [0] that stands in the SignerInfo. */
static enum bk_code
check_signature(const struct parse *p, const char *signer, const struct bk_signer *s, struct bk_err *err)
{
    static const uint8_t set_tag = BK_TAG_SET;
    char path[PATH_MAX_LEN];
    struct bk_tlv element;
    uint8_t digest[BK_SHA256_LEN];
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t sig_len = 0;
    enum bk_sig_alg alg;
    enum bk_code rc;

    if ((rc = get_span(p, join(path, signer, ".signatureAlgorithm"), &element, err)) != BK_OK)
        return rc;
    alg = bk_alg_to_signature(element.data, element.len);
    if (alg == BK_SIG_NONE || alg != bk_sig_alg_for(s->pub.type))
        return bk_fail(err, BK_E_FORMAT, "signature algorithm that the profile does not have for a key of type %s",
                       bk_key_type_name(s->pub.type));
    if ((rc = get_span(p, join(path, signer, ".signedAttrs"), &element, err)) != BK_OK)
        return rc;
    bk_sha256_2(&set_tag, 1, element.data + 1, element.len - 1, digest);
    if ((rc = bk_der_get_bytes(p->node, join(path, signer, ".signature"), sig, sizeof sig, &sig_len, err)) != BK_OK)
        return rc;
    return bk_public_verify(&s->pub, alg, digest, sig, sig_len, err);
}

static enum bk_code
read_signer(struct parse *p, size_t number, struct bk_signer *out, struct bk_err *err)
{
    struct bk_encoding sha256 = bk_alg_sha256();
    struct claims claims = {0};
    char signer[PATH_MAX_LEN];
    char path[PATH_MAX_LEN];
    enum bk_code rc;

    nth(signer, "content.signerInfos", number);
    if ((rc = expect_version(p, join(path, signer, ".version"), SIGNER_INFO_VERSION, err)) != BK_OK)
        return rc;
    rc = expect(p, join(path, signer, ".digestAlgorithm"), sha256.der, sha256.len, other_digest, err);
    if (rc != BK_OK)
        return rc;
    if ((rc = read_attributes(p, signer, &claims, err)) != BK_OK)
        return rc;
    if ((rc = take_certificate(p, signer, &claims, out, err)) != BK_OK)
        return rc;
    return check_signature(p, signer, out, err);
}

/* A key that signs twice, though under two certificates, would be counted as two people. */
static enum bk_code
read_signers(struct parse *p, struct bk_signed *out, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < p->count && rc == BK_OK; i++) {
        out->signer_count++;
        rc = read_signer(p, i + 1, &out->signers[i], err);
        for (size_t j = 0; j < i && rc == BK_OK; j++)
            if (bk_key_id_equal(&out->signers[i].pub.id, &out->signers[j].pub.id))
                rc = bk_fail(err, BK_E_FORMAT, "the same key signs twice");
        if (rc != BK_OK)
            bk_err_prefix(err, "signer %zu", i + 1);
    }
    return rc;
}

enum bk_code
bk_signed_parse(const uint8_t *der, size_t len, enum bk_content type, struct bk_signed *out, struct bk_err *err)
{
    struct parse p = {.der = der, .len = len, .type = type};
    struct bk_signed s = {0};
    enum bk_code rc;

    bk_own_oid((uint8_t)type, p.content_oid);
    if ((rc = bk_der_decode("BkTrailer", der, len, &p.node, err)) != BK_OK)
        goto done;
    if ((rc = check_head(&p, err)) != BK_OK)
        goto done;
    if ((rc = load_certificates(&p, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_get_buf(p.node, "content.encapContent.eContent", &s.content, err)) != BK_OK)
        goto done;
    bk_sha256(s.content.data, s.content.len, p.content_digest);
    if ((rc = read_signers(&p, &s, err)) != BK_OK)
        goto done;
    *out = s;
    s = (struct bk_signed){0};
done:
    bk_der_free(p.node);
    bk_signed_free(&s);
    return finish(rc, err);
}

/* ---- making ---- */

/* What one signature says, before it is made. */
struct statement {
    uint8_t content_oid[BK_OWN_OID_LEN];
    uint8_t content_digest[BK_SHA256_LEN];
    uint8_t cert_hash[BK_SHA256_LEN];
    time_t signing_time;
};

/* Writes a whole encoding from the table into an Algorithm { OBJECT IDENTIFIER, ANY OPTIONAL }. */
static enum bk_code
put_algorithm(asn1_node node, const char *path, struct bk_encoding alg, struct bk_err *err)
{
    struct bk_tlv in = {alg.der, alg.len};
    struct bk_tlv fields, oid;
    const uint8_t *start;
    char field[PATH_MAX_LEN];
    char text[OID_TEXT_MAX];
    enum bk_code rc;
    int used = 0;

    if (!bk_tlv_take(&in, BK_TAG_SEQUENCE, &fields))
        return bk_fail(err, BK_E_INTERNAL, "%s: not an algorithm", path);
    start = fields.data;
    if (!bk_tlv_take(&fields, BK_TAG_OID, &oid) ||
        asn1_get_object_id_der(start + 1, (int)oid.len + 1, &used, text, sizeof text) != ASN1_SUCCESS)
        return bk_fail(err, BK_E_INTERNAL, "%s: not an algorithm", path);
    if ((rc = bk_der_put_text(node, join(field, path, ".algorithm"), text, err)) != BK_OK)
        return rc;
    join(field, path, ".parameters");
    return fields.len == 0 ? bk_der_put_absent(node, field, err)
                           : bk_der_put_bytes(node, field, fields.data, fields.len, err);
}

static enum bk_code
attribute_value(enum attribute which, const struct statement *st, struct bk_buf *out, struct bk_err *err)
{
    /* SigningCertificateV2 { certs { ESSCertIDv2 { certHash } } }, RFC 5035 section 3 */
    static const uint8_t ess_head[] = {0x30, 0x26, 0x30, 0x24, 0x30, 0x22};
    enum bk_code rc;

    switch (which) {
    case ATTR_CONTENT_TYPE:
        return bk_buf_append(out, st->content_oid, sizeof st->content_oid, err);
    case ATTR_MESSAGE_DIGEST:
        return bk_tlv_put(out, BK_TAG_OCTET_STRING, st->content_digest, sizeof st->content_digest, err);
    case ATTR_SIGNING_TIME:
        return bk_tlv_put_time(out, st->signing_time, err);
    case ATTR_SIGNING_CERTIFICATE:
        if ((rc = bk_buf_append(out, ess_head, sizeof ess_head, err)) != BK_OK)
            return rc;
        return bk_tlv_put(out, BK_TAG_OCTET_STRING, st->cert_hash, sizeof st->cert_hash, err);
    }
    return bk_fail(err, BK_E_INTERNAL, "no such attribute");
}

/* Into the SET OF at set, which is "" when node is Attributes itself. libtasn1 sorts it when it encodes. */
static enum bk_code
put_attributes(asn1_node node, const char *set, const struct statement *st, struct bk_err *err)
{
    char last[PATH_MAX_LEN];
    char path[PATH_MAX_LEN];
    struct bk_buf value = {0};
    enum bk_code rc = BK_OK;

    join(last, set, set[0] == '\0' ? "?LAST" : ".?LAST");
    for (size_t i = 0; i < ATTRIBUTES && rc == BK_OK; i++) {
        value.len = 0;
        if ((rc = attribute_value((enum attribute)i, st, &value, err)) != BK_OK)
            break;
        if ((rc = bk_der_put_new(node, set, err)) != BK_OK)
            break;
        if ((rc = bk_der_put_text(node, join(path, last, ".attrType"), attributes[i].oid, err)) != BK_OK)
            break;
        if ((rc = bk_der_put_new(node, join(path, last, ".attrValues"), err)) != BK_OK)
            break;
        rc = bk_der_put_bytes(node, join(path, last, ".attrValues.?LAST"), value.data, value.len, err);
    }
    bk_buf_free(&value);
    return rc;
}

static enum bk_code
sign_attributes(struct bk_key *key, const struct statement *st, uint8_t *sig, size_t *sig_len, struct bk_err *err)
{
    asn1_node node = NULL;
    struct bk_buf der = {0};
    uint8_t digest[BK_SHA256_LEN];
    enum bk_code rc;

    if ((rc = bk_der_new("Attributes", &node, err)) != BK_OK)
        goto done;
    if ((rc = put_attributes(node, "", st, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_encode(node, &der, err)) != BK_OK)
        goto done;
    bk_sha256(der.data, der.len, digest);
    rc = bk_key_sign(key, digest, sig, sig_len, err);
done:
    bk_der_free(node);
    bk_buf_free(&der);
    return rc;
}

/* The certificate must be of this very key, and have the identifier by which the signer is named. */
static enum bk_code
read_own_certificate(const struct bk_signing_key *k, struct bk_cert_info *info, struct bk_err *err)
{
    char text[BK_KEY_ID_TEXT];
    enum bk_code rc = bk_cert_parse(k->cert, k->cert_len, info, err);

    if (rc != BK_OK)
        return rc;
    if (!bk_key_id_equal(&info->pub.id, &k->key->pub.id))
        return bk_fail(err, BK_E_USAGE, "the certificate given is not of the signing key %s",
                       bk_key_id_text(&k->key->pub.id, text));
    if (info->ski_len == 0)
        return bk_fail(err, BK_E_USAGE, "the certificate of the signing key %s has no subjectKeyIdentifier",
                       bk_key_id_text(&k->key->pub.id, text));
    return BK_OK;
}

#define SIGNER "content.signerInfos.?LAST"

static enum bk_code
put_signer(asn1_node node, const struct bk_signing_key *k, struct statement *st, struct bk_err *err)
{
    struct bk_cert_info info = {0};
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t sig_len = sizeof sig;
    enum bk_code rc;

    if ((rc = read_own_certificate(k, &info, err)) != BK_OK)
        goto done;
    bk_sha256(k->cert, k->cert_len, st->cert_hash);
    if ((rc = sign_attributes(k->key, st, sig, &sig_len, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_put_new(node, "content.certificates", err)) != BK_OK)
        goto done;
    if ((rc = bk_der_put_bytes(node, "content.certificates.?LAST", k->cert, k->cert_len, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_put_new(node, "content.signerInfos", err)) != BK_OK)
        goto done;
    if ((rc = bk_der_put_u64(node, SIGNER ".version", SIGNER_INFO_VERSION, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_put_bytes(node, SIGNER ".sid", info.ski, info.ski_len, err)) != BK_OK)
        goto done;
    if ((rc = put_algorithm(node, SIGNER ".digestAlgorithm", bk_alg_sha256(), err)) != BK_OK)
        goto done;
    if ((rc = put_attributes(node, SIGNER ".signedAttrs", st, err)) != BK_OK)
        goto done;
    rc = put_algorithm(node, SIGNER ".signatureAlgorithm", bk_alg_of_signature(bk_sig_alg_for(info.pub.type)), err);
    if (rc != BK_OK)
        goto done;
    rc = bk_der_put_bytes(node, SIGNER ".signature", sig, sig_len, err);
done:
    bk_cert_info_free(&info);
    return rc;
}

static enum bk_code
put_head(asn1_node node, const struct statement *st, const uint8_t *content, size_t content_len, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = bk_der_put_text(node, "contentType", OID_SIGNED_DATA, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_u64(node, "content.version", SIGNED_DATA_VERSION, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_new(node, "content.digestAlgorithms", err)) != BK_OK)
        return rc;
    if ((rc = put_algorithm(node, "content.digestAlgorithms.?LAST", bk_alg_sha256(), err)) != BK_OK)
        return rc;
    rc = bk_der_put_bytes(node, "content.encapContent.eContentType", st->content_oid, sizeof st->content_oid, err);
    if (rc != BK_OK)
        return rc;
    return bk_der_put_bytes(node, "content.encapContent.eContent", content, content_len, err);
}

static enum bk_code
check_keys(const struct bk_signing_key *keys, size_t key_count, struct bk_err *err)
{
    if (key_count < 1 || key_count > BK_SIGNERS_MAX)
        return bk_fail(err, BK_E_USAGE, "%zu signing keys, 1 to %d allowed", key_count, BK_SIGNERS_MAX);
    for (size_t i = 0; i < key_count; i++)
        for (size_t j = 0; j < i; j++)
            if (bk_key_id_equal(&keys[i].key->pub.id, &keys[j].key->pub.id))
                return bk_fail(err, BK_E_USAGE, "the same signing key is given twice");
    return BK_OK;
}

/* A token that signs wrongly is found out here, while its operator is still there. */
static enum bk_code
check_made(const uint8_t *der, size_t len, enum bk_content type, size_t key_count, struct bk_err *err)
{
    struct bk_signed s = {0};
    enum bk_code rc = bk_signed_parse(der, len, type, &s, err);

    if (rc == BK_OK && s.signer_count != key_count)
        rc = bk_fail(err, BK_E_INTERNAL, "made with %zu signers, not %zu", s.signer_count, key_count);
    if (rc == BK_E_VERIFY) {
        rc = bk_fail(err, BK_E_TOKEN, "what the token signed does not hold under its certificate");
        bk_err_hint(err, "the key on the token and the public key in its certificate do not belong together");
    }
    bk_signed_free(&s);
    return rc;
}

enum bk_code
bk_signed_make(const uint8_t *content, size_t content_len, enum bk_content type, const struct bk_signing_key *keys,
               size_t key_count, time_t signing_time, struct bk_buf *der, struct bk_err *err)
{
    struct statement st = {.signing_time = signing_time};
    asn1_node node = NULL;
    struct bk_buf made = {0};
    enum bk_code rc;

    bk_own_oid((uint8_t)type, st.content_oid);
    bk_sha256(content, content_len, st.content_digest);
    if ((rc = check_keys(keys, key_count, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_new("BkTrailer", &node, err)) != BK_OK)
        goto done;
    if ((rc = put_head(node, &st, content, content_len, err)) != BK_OK)
        goto done;
    for (size_t i = 0; i < key_count; i++)
        if ((rc = put_signer(node, &keys[i], &st, err)) != BK_OK)
            goto done;
    if ((rc = bk_der_encode(node, &made, err)) != BK_OK)
        goto done;
    if ((rc = check_made(made.data, made.len, type, key_count, err)) != BK_OK)
        goto done;
    rc = bk_buf_append(der, made.data, made.len, err);
done:
    bk_der_free(node);
    bk_buf_free(&made);
    return finish(rc, err);
}
