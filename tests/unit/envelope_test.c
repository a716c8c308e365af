/* format/envelope.c: the closed profile, in both directions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/hash.h"
#include "base/keywrap.h"
#include "base/secret.h"
#include "format/algorithms.h"
#include "format/der.h"
#include "format/envelope.h"
#include "format/key_package.h"

static const uint8_t ARCHIVE[BK_UUID_LEN] = {0x01, 0x93, 0x5C, 0x00, 0x11, 0x22, 0x7A, 0xBC, 0x80, 1, 2, 3, 4, 5, 6, 7};
static const uint8_t SECRET_ID[] = {0xC0, 0xFF, 0xEE, 0x01};

/* EnvelopedData that holds nothing; a KEKRecipientInfo whose algorithm is of the project's own and not assigned; an
 * OtherRecipientInfo of type 2.5.5.5 */
static const char ENVELOPED[] = "301206092a864886f70d010703a0053003020100";
static const char KEKRI_LATER[] = "a231020104300604040a0b0c0d"
                                  "3017061569"
                                  "83dfbbb4fdda93aaa1ebaad0c199dbacd9b24f63"
                                  "040b0102030405060708090a0b";
static const char ORI_UNKNOWN[] = "a4090603550505020200ff";
/* KeyAgreeRecipientInfo with an X25519 originator (RFC 8418), which version 1 does not know; the SHA-1 KDF at its place
 */
static const char KARI_HEAD[] = "a1819c020103a02ca12a300506032b656e032100"
                                "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";
static const char KARI_X25519_ALG[] = "301a060b2a864886f70d0109100313300b060960864801650304012d";
static const char KARI_SHA1_ALG[] = "301806092b81051086483f0002300b060960864801650304012d";
static const char KARI_KEYS[] = "3044"
                                "3042"
                                "a016"
                                "0414"
                                "aa0102030405060708090a0b0c0d0e0f10111213"
                                "0428"
                                "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627";
static const char AES256_WRAP[] = "300b060960864801650304012d";
static const char CCM[] = "3017061569"
                          "83dfbbb4fdda93aaa1ebaad0c199dbacd9b24f08";
static const char GCM[] = "301e060960864801650304012e3011040c000102030405060708090a0b020110";
static const char CBC[] = "301d060960864801650304012a041000000000000000000000000000000000";

/* One software key of each kind that stock OpenSSL opens with; made once. */
struct keys {
    EVP_PKEY *rsa, *p256, *p384;
    struct bk_secret aes;
};

struct fixture {
    struct keys *keys;
    struct bk_secret cek;
    struct bk_key_package k;
    struct bk_envelope e, again;
    struct bk_buf der;
    struct bk_err err;
};

static void
ok(enum bk_code rc, const struct bk_err *err)
{
    if (rc != BK_OK)
        fail_msg("code %d: %s", (int)rc, err->message);
}

static void
append_hex(struct bk_buf *b, const char *hex)
{
    struct bk_err err;
    uint8_t *at;

    ok(bk_buf_extend(b, strlen(hex) / 2, &at, &err), &err);
    assert_true(bk_unhex(hex, at, strlen(hex) / 2));
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    if (f == NULL || bk_secret_random(&f->cek, BK_CEK_LEN, &f->err) != BK_OK)
        return -1;
    f->keys = *state;
    if (bk_secret_random(&f->k.file_key, 32, &f->err) != BK_OK)
        return -1;
    memcpy(f->k.archive_id, ARCHIVE, sizeof ARCHIVE);
    f->k.signers[0].len = BK_SKI_LEN;
    f->k.signer_count = 1;
    if (bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err) != BK_OK)
        return -1;
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    bk_secret_wipe(&f->cek);
    bk_key_package_free(&f->k);
    bk_envelope_free(&f->e);
    bk_envelope_free(&f->again);
    bk_buf_free(&f->der);
    *state = f->keys;
    free(f);
    return 0;
}

/* ---- recipients ---- */

static void
add_public(struct fixture *f, EVP_PKEY *key, enum bk_scheme scheme)
{
    struct bk_public pub = {0};
    struct bk_wrapped w = {0};
    uint8_t *spki = NULL;
    int len = i2d_PUBKEY(key, &spki);

    assert_true(len > 0);
    ok(bk_public_from_spki(&pub, spki, (size_t)len, &f->err), &f->err);
    pub.scheme = scheme;
    ok(bk_public_wrap(&pub, &f->cek, &w, &f->err), &f->err);
    ok(bk_envelope_add(&f->e, &w, &f->err), &f->err);
    bk_public_free(&pub);
    OPENSSL_free(spki);
}

static struct bk_wrapped
aes_wrapped(struct fixture *f, const uint8_t *id, size_t id_len)
{
    struct bk_wrapped w = {.scheme = BK_SCHEME_AES_KW, .id.len = id_len, .len = BK_AESKW_LEN};

    memcpy(w.id.bytes, id, id_len);
    ok(bk_aeskw_wrap(&f->keys->aes, &f->cek, w.data, &f->err), &f->err);
    return w;
}

static void
add_aes(struct fixture *f, const uint8_t *id, size_t id_len)
{
    struct bk_wrapped w = aes_wrapped(f, id, id_len);

    ok(bk_envelope_add(&f->e, &w, &f->err), &f->err);
}

/* RecipientInfo for secret keys or RSA, with any algorithm; hex for alg. */
static void
recipient(const char *choice, uint64_t version, const uint8_t *id, size_t id_len, const char *alg, size_t key_len,
          struct bk_buf *out)
{
    char path[64];
    struct bk_err err;
    struct bk_buf alg_der = {0};
    asn1_node n = NULL;
    uint8_t key[600] = {0x5A};
    const int secret = strcmp(choice, "kekri") == 0;

    append_hex(&alg_der, alg);
    ok(bk_der_new("RecipientInfo", &n, &err), &err);
    ok(bk_der_put_text(n, "", choice, &err), &err);
    (void)snprintf(path, sizeof path, "%s.version", choice);
    ok(bk_der_put_u64(n, path, version, &err), &err);
    ok(bk_der_put_bytes(n, secret ? "kekri.kekid.keyIdentifier" : "ktri.rid", id, id_len, &err), &err);
    (void)snprintf(path, sizeof path, "%s.keyEncAlg", choice);
    ok(bk_der_put_bytes(n, path, alg_der.data, alg_der.len, &err), &err);
    (void)snprintf(path, sizeof path, "%s.encryptedKey", choice);
    ok(bk_der_put_bytes(n, path, key, key_len, &err), &err);
    ok(bk_der_encode(n, out, &err), &err);
    bk_der_free(n);
    bk_buf_free(&alg_der);
}

/* KeyAgreeRecipientInfo with the X25519 originator, for so many keys. */
static void
agreement_of(const char *alg, size_t keys, struct bk_buf *out)
{
    const char *one = KARI_KEYS + 4; /* without the tag and length of what holds it */
    size_t keys_len = keys * strlen(one) / 2;
    uint8_t head[3] = {0x30, (uint8_t)keys_len};
    struct bk_err err = {0};

    if (keys_len >= 0x80) {
        head[1] = 0x81;
        head[2] = (uint8_t)keys_len;
    }
    append_hex(out, KARI_HEAD);
    append_hex(out, alg);
    ok(bk_buf_append(out, head, keys_len < 0x80 ? 2 : 3, &err), &err);
    for (size_t i = 0; i < keys; i++) {
        append_hex(out, one);
        out->data[out->len - 43] ^= (uint8_t)i; /* the id's last byte: no key twice */
    }
    out->data[2] = (uint8_t)(out->len - 3);
}

static void
agreement(const char *alg, struct bk_buf *out)
{
    agreement_of(alg, 1, out);
}

/* ---- whole envelopes, put together without the code under test ---- */

struct parts {
    uint64_t version;
    const struct bk_buf *recipients;
    size_t count;
    const char *content_type;
    const char *algorithm; /* hex; NULL for the right one */
    size_t content_len;
    size_t mac_len;
};

static const struct parts RIGHT = {.content_type = "1.2.840.113549.1.7.1", .content_len = 100, .mac_len = 16};

static void
assemble(const struct parts *p, struct bk_buf *out)
{
    struct bk_err err;
    struct bk_buf alg = {0};
    uint8_t *zeros = calloc(1, BK_KEY_PACKAGE_MAX + 1);
    asn1_node n = NULL;

    assert_non_null(zeros);
    append_hex(&alg, p->algorithm != NULL ? p->algorithm : GCM);
    ok(bk_der_new("BkHeader", &n, &err), &err);
    ok(bk_der_put_text(n, "contentType", "1.2.840.113549.1.9.16.1.23", &err), &err);
    ok(bk_der_put_u64(n, "content.version", p->version, &err), &err);
    for (size_t i = 0; i < p->count; i++) {
        ok(bk_der_put_new(n, "content.recipientInfos", &err), &err);
        ok(bk_der_put_bytes(n, "content.recipientInfos.?LAST", p->recipients[i].data, p->recipients[i].len, &err),
           &err);
    }
    ok(bk_der_put_text(n, "content.authEncryptedContentInfo.contentType", p->content_type, &err), &err);
    ok(bk_der_put_bytes(n, "content.authEncryptedContentInfo.algorithm", alg.data, alg.len, &err), &err);
    ok(bk_der_put_bytes(n, "content.authEncryptedContentInfo.encryptedContent", zeros, p->content_len, &err), &err);
    ok(bk_der_put_bytes(n, "content.mac", zeros, p->mac_len, &err), &err);
    out->len = 0;
    ok(bk_der_encode(n, out, &err), &err);
    bk_der_free(n);
    bk_buf_free(&alg);
    free(zeros);
}

/* Parses a copy of exactly that size. */
static enum bk_code
parse_exact(const uint8_t *der, size_t len, struct bk_envelope *out, struct bk_err *err)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    enum bk_code rc;

    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, der, len);
    rc = bk_envelope_parse(copy, len, out, err);
    free(copy);
    return rc;
}

static void
refused(struct fixture *f, const struct bk_buf *der, const char *why)
{
    enum bk_code rc = parse_exact(der->data, der->len, &f->again, &f->err);

    if (rc != BK_E_FORMAT || strstr(f->err.message, why) == NULL || strncmp(f->err.message, "envelope: ", 10) != 0)
        fail_msg("code %d: %s; expected: %s", (int)rc, rc == BK_OK ? "" : f->err.message, why);
    assert_int_equal(f->again.recipient_count, 0);
}

/* An envelope with this one recipient, otherwise right. */
static void
refused_recipient(struct fixture *f, const struct bk_buf *raw, const char *why)
{
    struct parts p = RIGHT;

    p.recipients = raw;
    p.count = 1;
    assemble(&p, &f->der);
    refused(f, &f->der, why);
}

static void
accepted_as_unknown(struct fixture *f, const struct bk_buf *raw)
{
    struct parts p = RIGHT;
    struct bk_buf out = {0};

    p.recipients = raw;
    p.count = 1;
    assemble(&p, &f->der);
    ok(parse_exact(f->der.data, f->der.len, &f->again, &f->err), &f->err);
    assert_int_equal(f->again.recipients[0].kind, BK_RECIPIENT_UNKNOWN);
    assert_int_equal(f->again.recipients[0].raw.len, raw->len);
    assert_memory_equal(f->again.recipients[0].raw.data, raw->data, raw->len);
    ok(bk_envelope_encode(&f->again, &out, &f->err), &f->err);
    assert_int_equal(out.len, f->der.len);
    assert_memory_equal(out.data, f->der.data, out.len);
    bk_buf_free(&out);
    bk_envelope_free(&f->again);
}

/* ---- round trips ---- */

/* As a token would have wrapped it: the format does not look into it. */
static void
add_token_only(struct fixture *f, enum bk_scheme scheme, size_t len)
{
    struct bk_wrapped w = {.scheme = scheme, .id = {.bytes = {'t', 'o', 'k', (uint8_t)scheme}, .len = 4}, .len = len};

    memset(w.data, 0xA5, len);
    if (scheme == BK_SCHEME_AES_GCM)
        memcpy(w.nonce, "from a token", sizeof w.nonce);
    ok(bk_envelope_add(&f->e, &w, &f->err), &f->err);
}

static void
add_all(struct fixture *f)
{
    add_public(f, f->keys->rsa, BK_SCHEME_RSA_OAEP_SHA256);
    add_public(f, f->keys->p256, BK_SCHEME_ECDH_P256);
    add_public(f, f->keys->p384, BK_SCHEME_ECDH_P384);
    add_aes(f, SECRET_ID, sizeof SECRET_ID);
    add_token_only(f, BK_SCHEME_AES_GCM, BK_AESGCM_LEN);
    add_token_only(f, BK_SCHEME_YUBIHSM_CCM, 61);
}

static void
same_recipients(const struct bk_envelope *a, const struct bk_envelope *b)
{
    assert_int_equal(a->recipient_count, b->recipient_count);
    for (size_t i = 0; i < a->recipient_count; i++) {
        const struct bk_wrapped *x = &a->recipients[i].wrapped, *y = &b->recipients[i].wrapped;

        assert_int_equal(a->recipients[i].kind, b->recipients[i].kind);
        assert_int_equal(x->scheme, y->scheme);
        assert_true(bk_key_id_equal(&x->id, &y->id));
        assert_int_equal(x->len, y->len);
        assert_memory_equal(x->data, y->data, x->len);
        assert_int_equal(x->ephemeral_len, y->ephemeral_len);
        assert_memory_equal(x->ephemeral, y->ephemeral, sizeof x->ephemeral);
        assert_memory_equal(x->nonce, y->nonce, sizeof x->nonce);
    }
}

/* The digest over its definition, by finding the two elements in the bytes. */
static void
check_digest(struct fixture *f)
{
    uint8_t expected[32];
    struct bk_buf info = {0};
    char hex[2 * BK_GCM_NONCE + 1];
    const uint8_t *at;
    size_t len = 0;

    append_hex(&info, "06092a864886f70d010701301e060960864801650304012e3011040c");
    append_hex(&info, bk_hex(f->e.nonce, BK_GCM_NONCE, hex));
    at = memmem(f->der.data, f->der.len, info.data, info.len);
    assert_non_null(at);
    at -= at[-2] == 0x81 ? 3 : at[-3] == 0x82 ? 4 : 2;
    assert_int_equal(*at, 0x30);
    ok(bk_der_element_length(at, (size_t)(f->der.data + f->der.len - at), &len, &f->err), &f->err);
    assert_memory_equal(at + len, "\x04\x10", 2);
    bk_sha256(at, (size_t)(f->der.data + f->der.len - at), expected);
    assert_ptr_equal(at + len + 18, f->der.data + f->der.len);
    assert_memory_equal(f->e.digest, expected, 32);
    bk_buf_free(&info);
}

static void
goes_round(void **state)
{
    struct fixture *f = *state;
    struct bk_key_package out = {0};
    struct bk_buf twice = {0};

    add_all(f);
    ok(bk_buf_append(&f->der, "x", 1, &f->err), &f->err);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
    memmove(f->der.data, f->der.data + 1, --f->der.len);
    check_digest(f);
    ok(parse_exact(f->der.data, f->der.len, &f->again, &f->err), &f->err);
    same_recipients(&f->e, &f->again);
    assert_memory_equal(f->e.digest, f->again.digest, 32);
    ok(bk_key_package_open(&f->again, &f->cek, ARCHIVE, &out, &f->err), &f->err);
    assert_true(bk_secret_equal(&out.file_key, &f->k.file_key));
    bk_key_package_free(&out);
    ok(bk_envelope_encode(&f->again, &twice, &f->err), &f->err);
    assert_int_equal(twice.len, f->der.len);
    assert_memory_equal(twice.data, f->der.data, twice.len);
    bk_buf_free(&twice);
}

static void
rotation_leaves_the_digest_alone(void **state)
{
    struct fixture *f = *state;
    uint8_t digest[32];
    struct bk_key_id id = {.len = sizeof SECRET_ID};

    memcpy(id.bytes, SECRET_ID, sizeof SECRET_ID);
    add_all(f);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
    memcpy(digest, f->e.digest, 32);
    assert_true(bk_envelope_find(&f->e, &id) >= 0);
    bk_envelope_remove(&f->e, (size_t)bk_envelope_find(&f->e, &id));
    assert_int_equal(bk_envelope_find(&f->e, &id), -1);
    assert_int_equal(f->e.recipient_count, 5);
    add_aes(f, (const uint8_t *)"successor", 9);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
    assert_memory_equal(f->e.digest, digest, 32);
    bk_envelope_remove(&f->e, 99);
    assert_int_equal(f->e.recipient_count, 6);
}

static void
sha1_oaep_is_kept_apart(void **state)
{
    struct fixture *f = *state;

    add_public(f, f->keys->rsa, BK_SCHEME_RSA_OAEP_SHA1);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
    ok(parse_exact(f->der.data, f->der.len, &f->again, &f->err), &f->err);
    assert_int_equal(f->again.recipients[0].wrapped.scheme, BK_SCHEME_RSA_OAEP_SHA1);
}

/* ---- damage ---- */

static void
check_flipped(struct fixture *f, const struct bk_buf *der)
{
    struct bk_buf out = {0};
    enum bk_code rc = parse_exact(der->data, der->len, &f->again, &f->err);

    if (rc != BK_OK) {
        assert_int_equal(rc, BK_E_FORMAT);
        return;
    }
    ok(bk_envelope_encode(&f->again, &out, &f->err), &f->err);
    assert_int_equal(out.len, der->len);
    assert_memory_equal(out.data, der->data, out.len);
    bk_buf_free(&out);
    bk_envelope_free(&f->again);
}

static void
flip_every_bit(struct fixture *f)
{
    for (size_t bit = 0; bit < 8 * f->der.len; bit++) {
        f->der.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        check_flipped(f, &f->der);
        f->der.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void
every_truncation_and_bit_flip(void **state)
{
    struct fixture *f = *state;
    struct bk_buf raw[3] = {0};
    struct parts p = RIGHT;

    add_public(f, f->keys->p256, BK_SCHEME_ECDH_P256);
    add_aes(f, SECRET_ID, sizeof SECRET_ID);
    add_token_only(f, BK_SCHEME_AES_GCM, BK_AESGCM_LEN);
    add_token_only(f, BK_SCHEME_YUBIHSM_CCM, BK_CCM_MAX);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
    for (size_t len = 0; len < f->der.len; len++)
        assert_int_equal(parse_exact(f->der.data, len, &f->again, &f->err), BK_E_FORMAT);
    flip_every_bit(f);

    append_hex(&raw[0], KEKRI_LATER);
    append_hex(&raw[1], ORI_UNKNOWN);
    agreement(KARI_X25519_ALG, &raw[2]);
    p.recipients = raw;
    p.count = 3;
    p.content_len = 16;
    assemble(&p, &f->der);
    flip_every_bit(f);
    for (size_t i = 0; i < 3; i++)
        bk_buf_free(&raw[i]);
}

static void
trailing_bytes_are_refused(void **state)
{
    struct fixture *f = *state;

    add_all(f);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
    ok(bk_buf_append(&f->der, "", 1, &f->err), &f->err);
    refused(f, &f->der, "left over");
}

/* ---- what is outside the profile ---- */

static void
other_structures(void **state)
{
    struct fixture *f = *state;
    struct parts p = RIGHT;
    struct bk_buf raw = {0};

    append_hex(&f->der, ENVELOPED);
    refused(f, &f->der, "EnvelopedData is never accepted");
    f->der.data[12] = 0x02;
    refused(f, &f->der, "content type is not CMS AuthEnvelopedData");
    f->der.len = 0;
    append_hex(&f->der, "020100");
    refused(f, &f->der, "not a CMS structure");

    recipient("kekri", 4, SECRET_ID, 4, AES256_WRAP, 40, &raw);
    p.recipients = &raw;
    p.count = 1;
    assemble(&p, &f->der);
    ok(parse_exact(f->der.data, f->der.len, &f->again, &f->err), &f->err);
    bk_envelope_free(&f->again);
    p.algorithm = CBC;
    assemble(&p, &f->der);
    refused(f, &f->der, "content encryption is not AES-256-GCM");
    /* a tag of 12 bytes, which is the default and may not be written; then written as 15 */
    p.algorithm = "301b060960864801650304012e300e040c000102030405060708090a0b";
    assemble(&p, &f->der);
    refused(f, &f->der, "content encryption is not AES-256-GCM");
    p.algorithm = "301e060960864801650304012e3011040c000102030405060708090a0b02010f";
    assemble(&p, &f->der);
    refused(f, &f->der, "content encryption is not AES-256-GCM");
    bk_buf_free(&raw);
}

static void
bad_values(void **state)
{
    struct fixture *f = *state;
    struct bk_buf raw = {0};
    struct parts p;

    recipient("kekri", 4, SECRET_ID, 4, AES256_WRAP, 40, &raw);
    p = RIGHT, p.recipients = &raw, p.count = 1, p.version = 1;
    assemble(&p, &f->der);
    refused(f, &f->der, "version: 1, not 0");
    p = RIGHT, p.recipients = &raw, p.count = 1, p.mac_len = 12;
    assemble(&p, &f->der);
    refused(f, &f->der, "mac: 12 bytes, not 16");
    p = RIGHT, p.recipients = &raw, p.count = 1, p.content_len = 0;
    assemble(&p, &f->der);
    refused(f, &f->der, "encrypted content of 0 bytes");
    p = RIGHT, p.recipients = &raw, p.count = 1, p.content_len = BK_KEY_PACKAGE_MAX + 1;
    assemble(&p, &f->der);
    refused(f, &f->der, "encrypted content of 66561 bytes");
    p = RIGHT, p.recipients = &raw, p.count = 1, p.content_type = "1.2.840.113549.1.7.2";
    assemble(&p, &f->der);
    refused(f, &f->der, "not of type id-data");
    p = RIGHT, p.count = 0;
    assemble(&p, &f->der);
    refused(f, &f->der, "0 recipients");
    bk_buf_free(&raw);
}

static void
bad_recipients(void **state)
{
    static const struct {
        const char *choice;
        uint64_t version;
        size_t id_len;
        const char *alg;
        size_t key_len;
        const char *why;
    } bad[] = {
        {"ktri", 2, 20, "300d06092a864886f70d0101010500", 256, "PKCS#1 v1.5"},
        {"ktri", 0, 20, "300d06092a864886f70d0101073000", 256, "version: 0, not 2"},
        {"ktri", 2, 19, "300d06092a864886f70d0101073000", 256, "19 bytes, not 20"},
        {"ktri", 2, 20, "300d06092a864886f70d0101073000", 255, "at least 256"},
        {"ktri", 2, 20, "300d06092a864886f70d0101073000", 513, "at most 512"},
        {"ktri", 2, 20, "300b06092a864886f70d010107", 256, "never accepted"},
        {"ktri", 2, 20, AES256_WRAP, 256, "does not belong"},
        {"kekri", 4, 4, "300d06092a864886f70d0101073000", 40, "does not belong"},
        {"kekri", 4, 4, "300d060960864801650304012d0500", 40, "never accepted"},
        {"kekri", 5, 4, AES256_WRAP, 40, "version: 5, not 4"},
        {"kekri", 4, 3, AES256_WRAP, 40, "at least 4"},
        {"kekri", 4, 33, AES256_WRAP, 40, "at most 32"},
        {"kekri", 4, 4, AES256_WRAP, 48, "48 bytes, not 40"},
        {"kekri", 4, 4, GCM, 47, "47 bytes, not 48"},
        {"kekri", 4, 4, GCM, 49, "49 bytes, not 48"},
        {"kekri", 4, 3, GCM, 48, "at least 4"},
        {"kekri", 4, 4, CCM, 44, "44 bytes, at least 45"},
        {"kekri", 4, 4, CCM, 129, "at most 128"},
        {"ktri", 2, 20, CCM, 256, "yubihsm-ccm does not belong"},
        {"kekri", 4, 4,
         "3019061569"
         "83dfbbb4fdda93aaa1ebaad0c199dbacd9b24f08"
         "0500",
         45, "never accepted"},
        {"kekri", 3, 4, GCM, 48, "version: 3, not 4"},
        {"ktri", 2, 20, GCM, 256, "aes-gcm-token does not belong"},
        {"kekri", 4, 4, "3003020101", 40, "not an algorithm identifier"},
        {"kekri", 4, 4, "0500", 40, "not an algorithm identifier"},
        {"kekri", 4, 4, "3009060355040305000500", 40, "not an algorithm identifier"},
    };
    struct fixture *f = *state;
    const uint8_t id[64] = {1};
    struct bk_buf raw = {0};
    uint8_t *at;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        raw.len = 0;
        recipient(bad[i].choice, bad[i].version, id, bad[i].id_len, bad[i].alg, bad[i].key_len, &raw);
        refused_recipient(f, &raw, bad[i].why);
    }
    raw.len = 0;
    append_hex(&raw, "a3080201003003020101");
    refused_recipient(f, &raw, "a kind of recipient that is never accepted (tag a3)");
    raw.len = 0;
    agreement(KARI_SHA1_ALG, &raw);
    refused_recipient(f, &raw, "SHA-1 KDF");
    raw.len = 0;
    agreement(KARI_X25519_ALG, &raw);
    at = memmem(raw.data, raw.len, "\x06\x03\x2b\x65\x6e", 5); /* id-X25519, of the originator */
    assert_non_null(at);
    at[0] = 0x02;
    refused_recipient(f, &raw, "originator key: not an algorithm identifier");
    raw.len = 0;
    append_hex(&raw, "a406020101020102");
    refused_recipient(f, &raw, "ori.oriType: not an object identifier");
    bk_buf_free(&raw);
}

/* Changes an ECDH recipient in the bytes, the point first. */
static void
bad_agreement(void **state)
{
    struct fixture *f = *state;
    uint8_t *at;

    add_public(f, f->keys->p256, BK_SCHEME_ECDH_P256);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
    at = memmem(f->der.data, f->der.len, f->e.recipients[0].wrapped.ephemeral, 65);
    assert_non_null(at);
    at[64] ^= 1;
    refused(f, &f->der, "not an uncompressed point on the curve");
    at[64] ^= 1;
    at[0] = 2;
    refused(f, &f->der, "not an uncompressed point on the curve");
    at[0] = 4;
    at = memmem(f->der.data, f->der.len, "\x2b\x81\x04\x01\x0b\x01", 6);
    assert_non_null(at);
    at[5] = 2; /* sha384kdf goes with P-384 */
    refused(f, &f->der, "not an uncompressed point on the curve of ecdh-p384");
    at[5] = 1;
    at = memmem(f->der.data, f->der.len, "\x2a\x86\x48\xce\x3d\x02\x01", 7);
    assert_non_null(at);
    at[6] = 2;
    refused(f, &f->der, "not of type id-ecPublicKey");
    at[6] = 1;
    ok(parse_exact(f->der.data, f->der.len, &f->again, &f->err), &f->err);
}

/* A second key would be one that no list names. */
static void
an_agreement_is_with_one_key(void **state)
{
    struct fixture *f = *state;
    struct bk_buf raw = {0};

    agreement_of(KARI_X25519_ALG, 2, &raw);
    refused_recipient(f, &raw, "2 keys, not one");
    bk_buf_free(&raw);
}

static void
later_versions_are_kept(void **state)
{
    static const struct {
        const char *choice;
        uint64_t version;
        const char *alg;
        size_t key_len;
    } later[] = {
        {"kekri", 4, "300b0609608648016503040105", 24},
        {"kekri", 4, "301e060960864801650304012e3011040c000102030405060708090a0b02010f", 47},
        {"ktri", 2, "301c06092a864886f70d010107300fa00d300b0609608648016503040202", 600},
    };
    struct fixture *f = *state;
    const uint8_t id[20] = {1};
    struct bk_buf raw = {0};
    char text[BK_KEY_ID_TEXT];
    struct bk_recipient r = {.kind = BK_RECIPIENT_UNKNOWN};

    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        raw.len = 0;
        recipient(later[i].choice, later[i].version, id, sizeof id, later[i].alg, later[i].key_len, &raw);
        accepted_as_unknown(f, &raw);
    }
    raw.len = 0;
    agreement(KARI_X25519_ALG, &raw);
    accepted_as_unknown(f, &raw);
    raw.len = 0;
    append_hex(&raw, KEKRI_LATER);
    accepted_as_unknown(f, &raw);
    raw.len = 0;
    append_hex(&raw, ORI_UNKNOWN);
    accepted_as_unknown(f, &raw);
    bk_buf_free(&raw);
    assert_string_equal(bk_recipient_text(&r, text), "unknown");
}

static void
unknown_recipients_survive_a_rotation(void **state)
{
    struct fixture *f = *state;
    struct bk_buf raw[3] = {0};
    struct parts p = RIGHT;
    struct bk_wrapped w = aes_wrapped(f, SECRET_ID, 4);
    const struct bk_key_id ccm = {.bytes = {0x0A, 0x0B, 0x0C, 0x0D}, .len = 4};

    append_hex(&raw[0], KEKRI_LATER);
    append_hex(&raw[1], ORI_UNKNOWN);
    recipient("kekri", 4, (const uint8_t *)"old key", 7, AES256_WRAP, 40, &raw[2]);
    p.recipients = raw;
    p.count = 3;
    assemble(&p, &f->der);
    ok(parse_exact(f->der.data, f->der.len, &f->again, &f->err), &f->err);
    assert_int_equal(bk_envelope_find(&f->again, &ccm), -1);
    w.id = ccm;
    assert_int_equal(bk_envelope_add(&f->again, &w, &f->err), BK_E_USAGE);
    w = aes_wrapped(f, SECRET_ID, 4);
    ok(bk_envelope_add(&f->again, &w, &f->err), &f->err);
    f->der.len = 0;
    ok(bk_envelope_encode(&f->again, &f->der, &f->err), &f->err);
    assert_int_equal(f->again.recipient_count, 4);
    assert_non_null(memmem(f->der.data, f->der.len, raw[0].data, raw[0].len));
    assert_non_null(memmem(f->der.data, f->der.len, raw[1].data, raw[1].len));
    for (size_t i = 0; i < 3; i++)
        bk_buf_free(&raw[i]);
}

/* ---- identifiers and numbers of recipients ---- */

static void
an_identifier_stands_once(void **state)
{
    struct fixture *f = *state;
    struct bk_wrapped w = aes_wrapped(f, SECRET_ID, sizeof SECRET_ID);
    struct bk_buf raw[2] = {0};
    struct parts p = RIGHT;

    ok(bk_envelope_add(&f->e, &w, &f->err), &f->err);
    assert_int_equal(bk_envelope_add(&f->e, &w, &f->err), BK_E_USAGE);
    assert_non_null(strstr(f->err.message, "c0ffee01"));
    assert_int_equal(f->e.recipient_count, 1);

    /* also across kinds, and with an algorithm that is not known */
    recipient("kekri", 4, SECRET_ID, 4, AES256_WRAP, 40, &raw[0]);
    recipient("kekri", 4, SECRET_ID, 4, "300b0609608648016503040105", 24, &raw[1]);
    p.recipients = raw;
    p.count = 2;
    assemble(&p, &f->der);
    refused(f, &f->der, "key id c0ffee01 stands twice");
    bk_buf_free(&raw[0]);
    bk_buf_free(&raw[1]);
}

static void
thirty_two_recipients_and_no_more(void **state)
{
    struct fixture *f = *state;
    struct bk_wrapped w = aes_wrapped(f, (const uint8_t *)"one too many", 12);
    struct bk_buf raw[BK_RECIPIENTS_MAX + 1] = {0};
    struct parts p = RIGHT;
    uint8_t id[4] = {9, 9, 9, 0};

    for (uint8_t i = 0; i < BK_RECIPIENTS_MAX; i++) {
        id[3] = (uint8_t)(BK_RECIPIENTS_MAX - i);
        add_aes(f, id, sizeof id);
    }
    assert_int_equal(bk_envelope_add(&f->e, &w, &f->err), BK_E_NO_ROOM);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
    ok(parse_exact(f->der.data, f->der.len, &f->again, &f->err), &f->err);
    same_recipients(&f->e, &f->again);
    /* the order of a SET OF */
    assert_int_equal(f->e.recipients[0].wrapped.id.bytes[3], 1);
    assert_int_equal(f->e.recipients[31].wrapped.id.bytes[3], 32);
    bk_envelope_free(&f->again);

    for (uint8_t i = 0; i <= BK_RECIPIENTS_MAX; i++) {
        id[3] = i;
        recipient("kekri", 4, id, sizeof id, AES256_WRAP, 40, &raw[i]);
    }
    p.recipients = raw;
    p.count = BK_RECIPIENTS_MAX;
    assemble(&p, &f->der);
    ok(parse_exact(f->der.data, f->der.len, &f->again, &f->err), &f->err);
    bk_envelope_free(&f->again);
    p.count++;
    assemble(&p, &f->der);
    refused(f, &f->der, "33 recipients");
    for (size_t i = 0; i <= BK_RECIPIENTS_MAX; i++)
        bk_buf_free(&raw[i]);
}

static void
a_set_out_of_order_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t *first, *second;

    add_aes(f, (const uint8_t *)"AAAA", 4);
    add_aes(f, (const uint8_t *)"BBBB", 4);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
    first = memmem(f->der.data, f->der.len, "AAAA", 4);
    second = memmem(f->der.data, f->der.len, "BBBB", 4);
    assert_true(first != NULL && second != NULL && first < second);
    memcpy(first, "BBBB", 4);
    memcpy(second, "AAAA", 4);
    refused(f, &f->der, "not the DER encoding");
}

static void
what_cannot_be_written(void **state)
{
    struct fixture *f = *state;
    struct bk_wrapped w = aes_wrapped(f, SECRET_ID, 4);
    struct bk_envelope empty = {0};

    assert_int_equal(bk_envelope_encode(&f->e, &f->der, &f->err), BK_E_INTERNAL);
    assert_int_equal(bk_envelope_encode(&empty, &f->der, &f->err), BK_E_INTERNAL);
    w.len = 41;
    ok(bk_envelope_add(&f->e, &w, &f->err), &f->err);
    assert_int_equal(bk_envelope_encode(&f->e, &f->der, &f->err), BK_E_INTERNAL);
    assert_int_equal(f->err.code, BK_E_INTERNAL);
    assert_non_null(strstr(f->err.message, "envelope: what was written does not read back: "));
    assert_int_equal(f->der.len, 0);
    f->e.recipients[0].wrapped.scheme = BK_SCHEME_NONE;
    assert_int_equal(bk_envelope_encode(&f->e, &f->der, &f->err), BK_E_INTERNAL);
    assert_int_equal(f->e.recipient_count, 1);
    bk_envelope_free(&empty);
}

static int
group_setup(void **state)
{
    static struct keys keys;
    struct bk_err err;
    int locked;

    if (bk_secret_init(&locked, &err) != BK_OK || bk_secret_random(&keys.aes, 32, &err) != BK_OK)
        return -1;
    keys.rsa = EVP_RSA_gen(2048);
    keys.p256 = EVP_EC_gen("P-256");
    keys.p384 = EVP_EC_gen("P-384");
    *state = &keys;
    return keys.rsa != NULL && keys.p256 != NULL && keys.p384 != NULL ? 0 : -1;
}

static int
group_teardown(void **state)
{
    struct keys *keys = *state;

    EVP_PKEY_free(keys->rsa);
    EVP_PKEY_free(keys->p256);
    EVP_PKEY_free(keys->p384);
    bk_secret_wipe(&keys->aes);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(goes_round, setup, teardown),
        cmocka_unit_test_setup_teardown(rotation_leaves_the_digest_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(sha1_oaep_is_kept_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(every_truncation_and_bit_flip, setup, teardown),
        cmocka_unit_test_setup_teardown(trailing_bytes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(other_structures, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_values, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_recipients, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_agreement, setup, teardown),
        cmocka_unit_test_setup_teardown(an_agreement_is_with_one_key, setup, teardown),
        cmocka_unit_test_setup_teardown(later_versions_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_recipients_survive_a_rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(an_identifier_stands_once, setup, teardown),
        cmocka_unit_test_setup_teardown(thirty_two_recipients_and_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(a_set_out_of_order_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_written, setup, teardown),
    };

    return cmocka_run_group_tests_name("envelope", tests, group_setup, group_teardown);
}
