#include "format/envelope.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/keywrap.h"
#include "format/algorithms.h"
#include "format/der.h"
#include "format/tlv.h"

/* RFC 5083 section 2.1 and RFC 5652 section 4 */
#define OID_AUTH_ENVELOPED_DATA "1.2.840.113549.1.9.16.1.23"
#define OID_DATA                "1.2.840.113549.1.7.1"

#define RECIPIENT_PATH_MAX 64

_Static_assert(BK_ALG_GCM_NONCE == BK_GCM_NONCE, "the encoding in format/algorithms.c is that of the content");

/* The kinds of RecipientInfo (RFC 5652 section 6.2) that name one key, and where each has the same four things. */
struct shape {
    const char *choice;
    uint64_t version;
    const char *version_path;
    const char *id_path;
    const char *alg_path;
    const char *key_path;
};

static const struct shape KTRI = {"ktri", 2, "ktri.version", "ktri.rid", "ktri.keyEncAlg", "ktri.encryptedKey"};
static const struct shape KARI = {"kari",           3,
                                  "kari.version",   "kari.recipients.?1.rid.subjectKeyIdentifier",
                                  "kari.keyEncAlg", "kari.recipients.?1.encryptedKey"};
static const struct shape KEKRI = {
    "kekri", 4, "kekri.version", "kekri.kekid.keyIdentifier", "kekri.keyEncAlg", "kekri.encryptedKey"};

static const struct shape *
shape_of_scheme(enum bk_scheme scheme)
{
    switch (scheme) {
    case BK_SCHEME_RSA_OAEP_SHA256:
    case BK_SCHEME_RSA_OAEP_SHA1:
        return &KTRI;
    case BK_SCHEME_ECDH_P256:
    case BK_SCHEME_ECDH_P384:
        return &KARI;
    case BK_SCHEME_AES_KW:
    case BK_SCHEME_AES_GCM:
    case BK_SCHEME_YUBIHSM_CCM:
        return &KEKRI;
    case BK_SCHEME_NONE:
        break;
    }
    return NULL;
}

/* How long encryptedKey is (docs/FORMAT.md, section 11). */
struct length {
    size_t least, most;
};

static struct length
length_of_scheme(enum bk_scheme scheme)
{
    if (shape_of_scheme(scheme) == &KTRI)
        return (struct length){256, BK_WRAPPED_MAX}; /* 2048 bits are the least that a recipient may have */
    if (scheme == BK_SCHEME_YUBIHSM_CCM)
        return (struct length){BK_CCM_MIN, BK_CCM_MAX};
    if (scheme == BK_SCHEME_AES_GCM)
        return (struct length){BK_AESGCM_LEN, BK_AESGCM_LEN};
    return (struct length){BK_AESKW_LEN, BK_AESKW_LEN};
}

void
bk_envelope_free(struct bk_envelope *e)
{
    for (size_t i = 0; i < e->recipient_count; i++)
        bk_buf_free(&e->recipients[i].raw);
    bk_buf_free(&e->content);
    *e = (struct bk_envelope){0};
}

/* ---- recipients, read ---- */

static enum bk_code
check_version(asn1_node node, const char *path, uint64_t expected, struct bk_err *err)
{
    uint64_t version = 0;
    enum bk_code rc = bk_der_get_u64(node, path, &version, err);

    if (rc == BK_OK && version != expected)
        rc = bk_fail(err, BK_E_FORMAT, "%s: %" PRIu64 ", not %" PRIu64, path, version, expected);
    return rc;
}

/* AlgorithmIdentifier (RFC 5280 section 4.1.1.2): an identifier, and at most one element of parameters. */
static int
algorithm_well_formed(const struct bk_buf *alg)
{
    struct bk_tlv whole = {alg->data, alg->len}, body, part;

    if (!bk_tlv_take(&whole, BK_TAG_SEQUENCE, &body) || !bk_tlv_take(&body, BK_TAG_OID, &part))
        return 0;
    return body.len == 0 || (bk_tlv_take(&body, body.data[0], &part) && body.len == 0);
}

/* Finds the scheme, and the nonce that is in some; BK_SCHEME_NONE for an algorithm of a later version. */
static enum bk_code
read_scheme(asn1_node node, const struct shape *shape, struct bk_wrapped *w, struct bk_err *err)
{
    struct bk_buf alg = {0};
    enum bk_scheme scheme;
    enum bk_code rc;

    if ((rc = bk_der_get_buf(node, shape->alg_path, &alg, err)) != BK_OK)
        goto done;
    scheme = bk_alg_to_scheme(alg.data, alg.len);
    if (bk_alg_forbidden(alg.data, alg.len))
        rc = bk_fail(err, BK_E_FORMAT, "%s: an algorithm or encoding that is never accepted (PKCS#1 v1.5, SHA-1 KDF)",
                     shape->alg_path);
    else if (!algorithm_well_formed(&alg))
        rc = bk_fail(err, BK_E_FORMAT, "%s: not an algorithm identifier", shape->alg_path);
    else if (scheme != BK_SCHEME_NONE && shape_of_scheme(scheme) != shape)
        rc = bk_fail(err, BK_E_FORMAT, "%s: %s does not belong in this kind of recipient", shape->alg_path,
                     bk_scheme_name(scheme));
    else
        w->scheme = scheme;
    if (rc == BK_OK && scheme == BK_SCHEME_AES_GCM)
        memcpy(w->nonce, bk_alg_gcm_nonce(alg.data, alg.len), sizeof w->nonce);
done:
    bk_buf_free(&alg);
    return rc;
}

/* Where RFC 7093 names the key the length is fixed; a CKA_ID, and what a later version writes, may have others. */
static enum bk_code
read_id(asn1_node node, const struct shape *shape, enum bk_scheme scheme, struct bk_key_id *id, struct bk_err *err)
{
    enum bk_code rc;

    if (scheme != BK_SCHEME_NONE && shape != &KEKRI) {
        id->len = BK_SKI_LEN;
        return bk_der_get_fixed(node, shape->id_path, id->bytes, BK_SKI_LEN, err);
    }
    if ((rc = bk_der_get_bytes(node, shape->id_path, id->bytes, BK_KEY_ID_MAX, &id->len, err)) != BK_OK)
        return rc;
    if (id->len < BK_KEY_ID_MIN)
        return bk_fail(err, BK_E_FORMAT, "%s: a key id of %zu bytes, at least %d expected", shape->id_path, id->len,
                       BK_KEY_ID_MIN);
    return BK_OK;
}

/* RFC 5753 section 7.1: the ephemeral key, without parameters since the recipient's key has them. */
static enum bk_code
read_originator(asn1_node node, struct bk_wrapped *w, struct bk_err *err)
{
    const struct bk_encoding expected = bk_alg_ec_public();
    struct bk_buf alg = {0};
    enum bk_code rc;

    if ((rc = bk_der_get_buf(node, "kari.originator.originatorKey.algorithm", &alg, err)) != BK_OK)
        goto done;
    if (alg.len != expected.len || memcmp(alg.data, expected.der, alg.len) != 0) {
        rc = bk_fail(err, BK_E_FORMAT, "originator key is not of type id-ecPublicKey without parameters");
        goto done;
    }
    rc = bk_der_get_bytes(node, "kari.originator.originatorKey.publicKey", w->ephemeral, sizeof w->ephemeral,
                          &w->ephemeral_len, err);
    if (rc == BK_OK)
        rc = bk_ec_point_check(w->scheme, w->ephemeral, w->ephemeral_len, err);
done:
    bk_buf_free(&alg);
    return rc;
}

static enum bk_code
read_known(asn1_node node, const struct shape *shape, struct bk_wrapped *w, struct bk_err *err)
{
    const struct length length = length_of_scheme(w->scheme);
    enum bk_code rc;

    if (length.least == length.most) {
        w->len = length.least;
        rc = bk_der_get_fixed(node, shape->key_path, w->data, w->len, err);
    } else {
        rc = bk_der_get_bytes(node, shape->key_path, w->data, length.most, &w->len, err);
        if (rc == BK_OK && w->len < length.least)
            rc = bk_fail(err, BK_E_FORMAT, "%s: %zu bytes, at least %zu expected", shape->key_path, w->len,
                         length.least);
    }
    if (rc == BK_OK && shape == &KARI)
        rc = read_originator(node, w, err);
    return rc;
}

/* Of a key that is not known: stock CMS tools, which break-glass relies on, refuse the whole envelope for less. */
static enum bk_code
check_originator_form(asn1_node node, struct bk_err *err)
{
    struct bk_buf alg = {0};
    enum bk_code rc = bk_der_get_buf(node, "kari.originator.originatorKey.algorithm", &alg, err);

    if (rc == BK_OK && !algorithm_well_formed(&alg))
        rc = bk_fail(err, BK_E_FORMAT, "originator key: not an algorithm identifier");
    bk_buf_free(&alg);
    return rc;
}

/* Kept as it stands; its id, where it has one, still must not repeat another's. */
static enum bk_code
keep_unknown(const struct bk_buf *raw, struct bk_recipient *r, struct bk_err *err)
{
    r->kind = BK_RECIPIENT_UNKNOWN;
    return bk_buf_append(&r->raw, raw->data, raw->len, err);
}

static enum bk_code
read_keyed(asn1_node node, const struct shape *shape, const struct bk_buf *raw, struct bk_recipient *r,
           struct bk_err *err)
{
    struct bk_wrapped *w = &r->wrapped;
    size_t agreed = 1;
    enum bk_code rc;

    if ((rc = check_version(node, shape->version_path, shape->version, err)) != BK_OK)
        return rc;
    if (shape == &KARI && (rc = bk_der_count(node, "kari.recipients", &agreed, err)) != BK_OK)
        return rc;
    if (agreed != 1)
        return bk_fail(err, BK_E_FORMAT, "kari.recipients: %zu keys, not one", agreed);
    if ((rc = read_scheme(node, shape, w, err)) != BK_OK)
        return rc;
    if ((rc = read_id(node, shape, w->scheme, &w->id, err)) != BK_OK)
        return rc;
    if (w->scheme != BK_SCHEME_NONE)
        return read_known(node, shape, w, err);
    if (shape == &KARI && (rc = check_originator_form(node, err)) != BK_OK)
        return rc;
    return keep_unknown(raw, r, err);
}

static enum bk_code
read_other(asn1_node node, const struct bk_buf *raw, struct bk_recipient *r, struct bk_err *err)
{
    struct bk_buf type = {0};
    enum bk_code rc = bk_der_get_buf(node, "ori.oriType", &type, err);

    if (rc == BK_OK && type.data[0] != BK_TAG_OID)
        rc = bk_fail(err, BK_E_FORMAT, "ori.oriType: not an object identifier");
    if (rc == BK_OK)
        rc = keep_unknown(raw, r, err);
    bk_buf_free(&type);
    return rc;
}

/* raw has passed the pre-walk. r is zero, and the caller's to free on failure too. */
static enum bk_code
read_recipient(const struct bk_buf *raw, struct bk_recipient *r, struct bk_err *err)
{
    asn1_node node = NULL;
    enum bk_code rc;

    /* the tags of RecipientInfo's alternatives; the others, such as passwords, are no recipients here */
    if (raw->data[0] != 0x30 && raw->data[0] != 0xA1 && raw->data[0] != 0xA2 && raw->data[0] != 0xA4)
        return bk_fail(err, BK_E_FORMAT, "a kind of recipient that is never accepted (tag %02x)", raw->data[0]);
    if ((rc = bk_der_decode("RecipientInfo", raw->data, raw->len, &node, err)) != BK_OK)
        return rc;
    if (raw->data[0] == 0x30)
        rc = read_keyed(node, &KTRI, raw, r, err);
    else if (raw->data[0] == 0xA1)
        rc = read_keyed(node, &KARI, raw, r, err);
    else if (raw->data[0] == 0xA2)
        rc = read_keyed(node, &KEKRI, raw, r, err);
    else
        rc = read_other(node, raw, r, err);
    bk_der_free(node);
    return rc;
}

/* 1 if one of the first count recipients, known or not, has that id. */
static int
id_taken(const struct bk_envelope *e, size_t count, const struct bk_key_id *id)
{
    for (size_t i = 0; i < count; i++)
        if (id->len > 0 && bk_key_id_equal(&e->recipients[i].wrapped.id, id))
            return 1;
    return 0;
}

static enum bk_code
read_next(asn1_node node, struct bk_envelope *e, struct bk_err *err)
{
    char path[RECIPIENT_PATH_MAX], text[BK_KEY_ID_TEXT];
    struct bk_recipient *r = &e->recipients[e->recipient_count];
    struct bk_buf raw = {0};
    enum bk_code rc;

    e->recipient_count++;
    (void)snprintf(path, sizeof path, "content.recipientInfos.?%zu", e->recipient_count);
    if ((rc = bk_der_get_buf(node, path, &raw, err)) != BK_OK)
        goto done;
    if ((rc = read_recipient(&raw, r, err)) != BK_OK)
        goto done;
    if (id_taken(e, e->recipient_count - 1, &r->wrapped.id))
        rc = bk_fail(err, BK_E_FORMAT, "key id %s stands twice", bk_key_id_text(&r->wrapped.id, text));
done:
    if (rc != BK_OK)
        bk_err_prefix(err, "recipient %zu", e->recipient_count);
    bk_buf_free(&raw);
    return rc;
}

static enum bk_code
read_recipients(asn1_node node, struct bk_envelope *e, struct bk_err *err)
{
    size_t count = 0;
    enum bk_code rc = bk_der_count(node, "content.recipientInfos", &count, err);

    if (rc == BK_OK && (count == 0 || count > BK_RECIPIENTS_MAX))
        rc = bk_fail(err, BK_E_FORMAT, "%zu recipients, 1 to %d allowed", count, BK_RECIPIENTS_MAX);
    while (rc == BK_OK && e->recipient_count < count)
        rc = read_next(node, e, err);
    return rc;
}

/* ---- the rest, read ---- */

/* Says what the structure is before a strict decode could only say that it is another one. */
static enum bk_code
check_content_type(const uint8_t *der, size_t len, struct bk_err *err)
{
    static const uint8_t auth_enveloped[] = {0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x10, 0x01, 0x17};
    static const uint8_t enveloped[] = {0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x03};
    struct bk_tlv whole = {der, len}, body, type;

    if (!bk_tlv_take(&whole, BK_TAG_SEQUENCE, &body) || !bk_tlv_take(&body, BK_TAG_OID, &type))
        return bk_fail(err, BK_E_FORMAT, "not a CMS structure");
    if (type.len == sizeof enveloped && memcmp(type.data, enveloped, type.len) == 0)
        return bk_fail(err, BK_E_FORMAT,
                       "CMS EnvelopedData is never accepted, it is not authenticated; only AuthEnvelopedData is");
    if (type.len != sizeof auth_enveloped || memcmp(type.data, auth_enveloped, type.len) != 0)
        return bk_fail(err, BK_E_FORMAT, "content type is not CMS AuthEnvelopedData");
    return BK_OK;
}

static enum bk_code
read_algorithm(asn1_node node, struct bk_envelope *e, struct bk_err *err)
{
    struct bk_buf alg = {0};
    enum bk_code rc = bk_der_get_buf(node, "content.authEncryptedContentInfo.algorithm", &alg, err);

    const uint8_t *nonce = rc == BK_OK ? bk_alg_gcm_nonce(alg.data, alg.len) : NULL;

    if (rc == BK_OK && nonce == NULL)
        rc =
            bk_fail(err, BK_E_FORMAT, "content encryption is not AES-256-GCM with a nonce of 12 and a tag of 16 bytes");
    if (rc == BK_OK)
        memcpy(e->nonce, nonce, BK_GCM_NONCE);
    bk_buf_free(&alg);
    return rc;
}

static enum bk_code
read_content(asn1_node node, struct bk_envelope *e, struct bk_err *err)
{
    char type[64];
    enum bk_code rc;

    if ((rc = bk_der_get_text(node, "content.authEncryptedContentInfo.contentType", type, sizeof type, err)) != BK_OK)
        return rc;
    if (strcmp(type, OID_DATA) != 0)
        return bk_fail(err, BK_E_FORMAT, "encrypted content is not of type id-data");
    if ((rc = read_algorithm(node, e, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_get_buf(node, "content.authEncryptedContentInfo.encryptedContent", &e->content, err)) != BK_OK)
        return rc;
    if (e->content.len == 0 || e->content.len > BK_KEY_PACKAGE_MAX)
        return bk_fail(err, BK_E_FORMAT, "encrypted content of %zu bytes, 1 to %d allowed", e->content.len,
                       BK_KEY_PACKAGE_MAX);
    return bk_der_get_fixed(node, "content.mac", e->mac, BK_GCM_TAG, err);
}

/* docs/FORMAT.md, Keys, envelopeDigest: over the bytes as they stand. */
static enum bk_code
read_digest(asn1_node node, const uint8_t *der, size_t len, struct bk_envelope *e, struct bk_err *err)
{
    size_t info = 0, info_end = 0, mac = 0, mac_end = 0;
    enum bk_code rc;

    if ((rc = bk_der_span(node, "content.authEncryptedContentInfo", der, len, &info, &info_end, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_span(node, "content.mac", der, len, &mac, &mac_end, err)) != BK_OK)
        return rc;
    bk_sha256_2(der + info, info_end - info, der + mac, mac_end - mac, e->digest);
    return BK_OK;
}

/* Fills e, which is zero; the caller frees it on failure. */
static enum bk_code
read_envelope(const uint8_t *der, size_t len, struct bk_envelope *e, struct bk_err *err)
{
    asn1_node node = NULL;
    enum bk_code rc;

    if ((rc = bk_der_walk(der, len, "AuthEnvelopedData", err)) != BK_OK)
        return rc;
    if ((rc = check_content_type(der, len, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_decode("BkHeader", der, len, &node, err)) != BK_OK)
        return rc;
    if ((rc = check_version(node, "content.version", 0, err)) != BK_OK)
        goto done;
    if ((rc = read_recipients(node, e, err)) != BK_OK)
        goto done;
    if ((rc = read_content(node, e, err)) != BK_OK)
        goto done;
    rc = read_digest(node, der, len, e, err);
done:
    bk_der_free(node);
    return rc;
}

enum bk_code
bk_envelope_parse(const uint8_t *der, size_t len, struct bk_envelope *out, struct bk_err *err)
{
    struct bk_envelope e = {0};
    enum bk_code rc = read_envelope(der, len, &e, err);

    if (rc == BK_OK) {
        *out = e;
        return BK_OK;
    }
    bk_err_prefix(err, "envelope");
    bk_err_layer(err, "envelope");
    bk_envelope_free(&e);
    return rc;
}

/* ---- writing ---- */

static enum bk_code
put_originator(asn1_node node, const struct bk_wrapped *w, struct bk_err *err)
{
    const struct bk_encoding alg = bk_alg_ec_public();
    enum bk_code rc;

    if ((rc = bk_der_put_new(node, "kari.recipients", err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_text(node, "kari.originator", "originatorKey", err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_bytes(node, "kari.originator.originatorKey.algorithm", alg.der, alg.len, err)) != BK_OK)
        return rc;
    return bk_der_put_bytes(node, "kari.originator.originatorKey.publicKey", w->ephemeral, w->ephemeral_len, err);
}

static enum bk_code
put_keyed(asn1_node node, const struct shape *shape, const struct bk_wrapped *w, struct bk_err *err)
{
    struct bk_encoding alg = bk_alg_of_scheme(w->scheme);
    uint8_t gcm[BK_ALG_GCM_LEN];
    enum bk_code rc;

    if (w->scheme == BK_SCHEME_AES_GCM) {
        bk_alg_gcm(w->nonce, gcm);
        alg = (struct bk_encoding){gcm, sizeof gcm};
    }
    if ((rc = bk_der_put_text(node, "", shape->choice, err)) != BK_OK)
        return rc;
    if (shape == &KARI && (rc = put_originator(node, w, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_u64(node, shape->version_path, shape->version, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_bytes(node, shape->id_path, w->id.bytes, w->id.len, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_bytes(node, shape->alg_path, alg.der, alg.len, err)) != BK_OK)
        return rc;
    return bk_der_put_bytes(node, shape->key_path, w->data, w->len, err);
}

/* Appends the RecipientInfo's DER. */
static enum bk_code
encode_recipient(const struct bk_recipient *r, struct bk_buf *out, struct bk_err *err)
{
    const struct shape *shape = shape_of_scheme(r->wrapped.scheme);
    asn1_node node = NULL;
    enum bk_code rc;

    if (r->kind == BK_RECIPIENT_UNKNOWN)
        return bk_buf_append(out, r->raw.data, r->raw.len, err);
    if (shape == NULL)
        return bk_fail(err, BK_E_INTERNAL, "recipient without a scheme");
    if ((rc = bk_der_new("RecipientInfo", &node, err)) != BK_OK)
        return rc;
    if ((rc = put_keyed(node, shape, &r->wrapped, err)) == BK_OK)
        rc = bk_der_encode(node, out, err);
    bk_der_free(node);
    return rc;
}

static enum bk_code
put_recipients(asn1_node node, const struct bk_envelope *e, struct bk_err *err)
{
    struct bk_buf raw = {0};
    enum bk_code rc = BK_OK;

    for (size_t i = 0; rc == BK_OK && i < e->recipient_count; i++) {
        raw.len = 0;
        if ((rc = encode_recipient(&e->recipients[i], &raw, err)) != BK_OK)
            break;
        if ((rc = bk_der_put_new(node, "content.recipientInfos", err)) == BK_OK)
            rc = bk_der_put_bytes(node, "content.recipientInfos.?LAST", raw.data, raw.len, err);
    }
    bk_buf_free(&raw);
    return rc;
}

static enum bk_code
put_content(asn1_node node, const struct bk_envelope *e, struct bk_err *err)
{
    uint8_t alg[BK_ALG_GCM_LEN];
    enum bk_code rc;

    bk_alg_gcm(e->nonce, alg);
    if ((rc = bk_der_put_text(node, "content.authEncryptedContentInfo.contentType", OID_DATA, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_bytes(node, "content.authEncryptedContentInfo.algorithm", alg, sizeof alg, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_bytes(node, "content.authEncryptedContentInfo.encryptedContent", e->content.data,
                               e->content.len, err)) != BK_OK)
        return rc;
    return bk_der_put_bytes(node, "content.mac", e->mac, BK_GCM_TAG, err);
}

static enum bk_code
encode_envelope(const struct bk_envelope *e, struct bk_buf *out, struct bk_err *err)
{
    asn1_node node = NULL;
    enum bk_code rc;

    if ((rc = bk_der_new("BkHeader", &node, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_text(node, "contentType", OID_AUTH_ENVELOPED_DATA, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_put_u64(node, "content.version", 0, err)) != BK_OK)
        goto done;
    if ((rc = put_recipients(node, e, err)) != BK_OK)
        goto done;
    if ((rc = put_content(node, e, err)) != BK_OK)
        goto done;
    rc = bk_der_encode(node, out, err);
done:
    bk_der_free(node);
    return rc;
}

/*
 * What was written is read back before anybody gets it: so whatever bk writes, bk reads, and order and digest of e are
 * those of the bytes.
 */
static enum bk_code
read_back(const struct bk_buf *out, struct bk_envelope *again, struct bk_err *err)
{
    enum bk_code rc = read_envelope(out->data, out->len, again, err);

    if (rc != BK_E_FORMAT)
        return rc;
    bk_err_prefix(err, "what was written does not read back");
    if (err != NULL)
        err->code = BK_E_INTERNAL;
    return BK_E_INTERNAL;
}

enum bk_code
bk_envelope_encode(struct bk_envelope *e, struct bk_buf *der, struct bk_err *err)
{
    struct bk_envelope again = {0};
    struct bk_buf out = {0};
    enum bk_code rc;

    if (e->recipient_count == 0 || e->content.len == 0)
        return bk_fail(err, BK_E_INTERNAL, "envelope: cannot be written without a %s",
                       e->content.len == 0 ? "sealed key package" : "recipient");
    if ((rc = encode_envelope(e, &out, err)) != BK_OK)
        goto done;
    if ((rc = read_back(&out, &again, err)) != BK_OK)
        goto done;
    if ((rc = bk_buf_append(der, out.data, out.len, err)) != BK_OK)
        goto done;
    bk_envelope_free(e);
    *e = again;
    again = (struct bk_envelope){0};
done:
    if (rc != BK_OK)
        bk_err_prefix(err, "envelope");
    bk_envelope_free(&again);
    bk_buf_free(&out);
    return rc;
}

/* ---- the list of recipients ---- */

enum bk_code
bk_envelope_add(struct bk_envelope *e, const struct bk_wrapped *w, struct bk_err *err)
{
    char text[BK_KEY_ID_TEXT];

    if (id_taken(e, e->recipient_count, &w->id))
        return bk_fail(err, BK_E_USAGE, "envelope: key id %s is a recipient already", bk_key_id_text(&w->id, text));
    if (e->recipient_count == BK_RECIPIENTS_MAX)
        return bk_fail(err, BK_E_NO_ROOM, "envelope: %d recipients are the most that an archive can have",
                       BK_RECIPIENTS_MAX);
    e->recipients[e->recipient_count++] = (struct bk_recipient){.kind = BK_RECIPIENT_KNOWN, .wrapped = *w};
    return BK_OK;
}

int
bk_envelope_find(const struct bk_envelope *e, const struct bk_key_id *id)
{
    for (size_t i = 0; i < e->recipient_count; i++)
        if (e->recipients[i].kind == BK_RECIPIENT_KNOWN && bk_key_id_equal(&e->recipients[i].wrapped.id, id))
            return (int)i;
    return -1;
}

void
bk_envelope_remove(struct bk_envelope *e, size_t at)
{
    if (at >= e->recipient_count)
        return;
    bk_buf_free(&e->recipients[at].raw);
    memmove(&e->recipients[at], &e->recipients[at + 1], (e->recipient_count - at - 1) * sizeof e->recipients[0]);
    e->recipients[--e->recipient_count] = (struct bk_recipient){0};
}

char *
bk_recipient_text(const struct bk_recipient *r, char out[BK_KEY_ID_TEXT])
{
    if (r->kind == BK_RECIPIENT_KNOWN)
        return bk_key_id_text(&r->wrapped.id, out);
    return memcpy(out, "unknown", sizeof "unknown");
}
