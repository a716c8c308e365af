/* Does format/signed.c meet its header, and does a second implementation agree? docs/FORMAT.md, CMS, Signatures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/hash.h"
#include "base/time.h"
#include "format/algorithms.h"
#include "format/pem.h"
#include "format/signed.h"
#include "format/tlv.h"
#include "tests/support/fake_key.h"
#include "tests/support/mutate.h"

static const uint8_t content[] = "what is signed is only bytes here";
#define CONTENT_LEN (sizeof content - 1)

/* Keys with certificates, made once: RSA keys take their time. */
enum { P256, P384, RSA3072, P256_B, KEYS };
struct identity {
    struct bk_key *key;
    struct bk_buf cert;
};
static struct identity ids[KEYS];

static void
must(enum bk_code rc, const struct bk_err *err)
{
    if (rc != BK_OK)
        fail_msg("%d: %s", rc, err->message);
}

static int
set_up(void **state)
{
    static const enum bk_key_type types[KEYS] = {BK_KEY_P256, BK_KEY_P384, BK_KEY_RSA, BK_KEY_P256};
    time_t now = bk_time_now();
    struct bk_err err = {0};
    int locked;

    (void)state;
    must(bk_secret_init(&locked, &err), &err);
    for (size_t i = 0; i < KEYS; i++) {
        must(fake_key_new(types[i], 1, &ids[i].key, &err), &err);
        must(bk_cert_self_sign(ids[i].key, "backup signer", now - 3600, now + 3600, &ids[i].cert, &err), &err);
    }
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < KEYS; i++) {
        bk_key_close(ids[i].key);
        bk_buf_free(&ids[i].cert);
    }
    return 0;
}

static struct bk_signing_key
signing(size_t which)
{
    return (struct bk_signing_key){ids[which].key, ids[which].cert.data, ids[which].cert.len};
}

static struct bk_buf
make(const struct bk_signing_key *keys, size_t count, time_t when)
{
    struct bk_buf der = {0};
    struct bk_err err = {0};

    must(bk_signed_make(content, CONTENT_LEN, BK_CONTENT_MANIFEST, keys, count, when, &der, &err), &err);
    return der;
}

/* ---- what bk makes ---- */

static void
round_trip(const struct bk_signing_key *keys, size_t count)
{
    time_t now = bk_time_now();
    unsigned before = fake_key_operations(keys[0].key);
    struct bk_buf der = make(keys, count, now);
    struct bk_signed s = {0};
    struct bk_err err = {0};
    size_t found = 0;

    assert_int_equal(fake_key_operations(keys[0].key), before + 1);
    must(bk_signed_parse(der.data, der.len, BK_CONTENT_MANIFEST, &s, &err), &err);
    assert_int_equal(s.content.len, CONTENT_LEN);
    assert_memory_equal(s.content.data, content, CONTENT_LEN);
    assert_int_equal(s.signer_count, count);
    for (size_t i = 0; i < s.signer_count; i++)
        for (size_t j = 0; j < count; j++)
            if (bk_key_id_equal(&s.signers[i].pub.id, &keys[j].key->pub.id)) {
                assert_int_equal(s.signers[i].cert.len, keys[j].cert_len);
                assert_memory_equal(s.signers[i].cert.data, keys[j].cert, keys[j].cert_len);
                assert_int_equal(s.signers[i].signing_time, now);
                assert_int_equal(s.signers[i].cert_valid_then, 1);
                found++;
            }
    assert_int_equal(found, count);
    bk_signed_free(&s);
    /* the type of content is signed, too */
    assert_int_equal(bk_signed_parse(der.data, der.len, BK_CONTENT_KEY_RECORD, &s, &err), BK_E_FORMAT);
    assert_string_equal(err.message, "signature: what is signed is not a key record");
    bk_buf_free(&der);
}

static void
round_trips(void **state)
{
    struct bk_signing_key all[KEYS];

    (void)state;
    for (size_t i = 0; i < KEYS; i++) {
        all[i] = signing(i);
        round_trip(&all[i], 1);
    }
    for (size_t n = 2; n <= KEYS; n++)
        round_trip(all, n);
}

static void
times_of_both_kinds(void **state)
{
    static const time_t times[] = {0, 1764000000, 2524607999, 2524608000, 253402300799};
    struct bk_signing_key key = signing(P256);

    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        struct bk_buf der = make(&key, 1, times[i]);
        struct bk_signed s = {0};
        struct bk_err err = {0};
        /* RFC 5652 11.3: UTCTime to the end of 2049 */
        const char *form = times[i] < 2524608000 ? "\x31\x0f\x17\x0d" : "\x31\x11\x18\x0f";

        assert_non_null(memmem(der.data, der.len, form, 4));
        must(bk_signed_parse(der.data, der.len, BK_CONTENT_MANIFEST, &s, &err), &err);
        assert_int_equal(s.signers[0].signing_time, times[i]);
        assert_int_equal(s.signers[0].cert_valid_then, 0);
        bk_signed_free(&s);
        bk_buf_free(&der);
    }
}

/* ---- a second implementation: openssl cms ---- */

static void
write_file(const char *folder, const char *name, const void *data, size_t len)
{
    char path[512];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void
write_trusted(const char *folder, const struct bk_signing_key *keys, size_t count)
{
    struct bk_buf pem = {0};
    struct bk_err err = {0};

    for (size_t i = 0; i < count; i++) {
        struct bk_buf cert = {0};

        must(bk_buf_append(&cert, keys[i].cert, keys[i].cert_len, &err), &err);
        must(bk_pem_write(&keys[i].key->pub, &cert, "trusted", &pem, &err), &err);
        bk_buf_free(&cert);
    }
    write_file(folder, "trusted.pem", pem.data, pem.len);
    bk_buf_free(&pem);
}

static int
openssl_verifies(const char *folder)
{
    char command[2048];

    (void)snprintf(command, sizeof command,
                   "cd '%s' && openssl cms -verify -cades -binary -inform DER -in signed.der -CAfile trusted.pem "
                   "-purpose any -out content 2>log && printf '%%s' '%s' | cmp -s - content",
                   folder, (const char *)content);
    return system(command) == 0;
}

static void
openssl_agrees(void **state)
{
    static const struct {
        size_t count;
        size_t which[2];
    } cases[] = {{1, {P256}}, {1, {P384}}, {1, {RSA3072}}, {2, {P256, RSA3072}}, {2, {P384, P256_B}}};
    const char *temporary = getenv("TMPDIR");
    char folder[256];
    char command[300];

    (void)state;
    (void)snprintf(folder, sizeof folder, "%s/bk-signed-XXXXXX", temporary != NULL ? temporary : "/tmp");
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bk_signing_key keys[2];
        struct bk_buf der;

        for (size_t j = 0; j < cases[i].count; j++)
            keys[j] = signing(cases[i].which[j]);
        der = make(keys, cases[i].count, bk_time_now());
        write_file(folder, "signed.der", der.data, der.len);
        write_trusted(folder, keys, cases[i].count);
        assert_true(openssl_verifies(folder));
        /* and it refuses what was tampered with, so that the line above means something */
        der.data[der.len - 1] ^= 1;
        write_file(folder, "signed.der", der.data, der.len);
        assert_false(openssl_verifies(folder));
        bk_buf_free(&der);
    }
    (void)snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* ---- what callers get wrong, and tokens ---- */

static void
make_refused(const struct bk_signing_key *keys, size_t count, enum bk_code code, const char *part)
{
    struct bk_buf der = {0};
    struct bk_err err = {0};

    assert_int_equal(bk_signed_make(content, CONTENT_LEN, BK_CONTENT_MANIFEST, keys, count, 0, &der, &err), code);
    if (strstr(err.message, part) == NULL || strncmp(err.message, "signature: ", 11) != 0)
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_int_equal(der.len, 0);
    bk_buf_free(&der);
}

/* A token whose key is not the one that its public half says. */
static enum bk_code
sign_with_another(struct bk_key *key, const uint8_t digest[32], enum bk_sig_alg alg, uint8_t *sig, size_t *len,
                  struct bk_err *err)
{
    (void)key;
    return ids[P256_B].key->ops->sign(ids[P256_B].key, digest, alg, sig, len, err);
}

static void
making_is_checked(void **state)
{
    const struct bk_key_ops wrong_ops = {.sign = sign_with_another};
    struct bk_key wrong = {.ops = &wrong_ops, .pub = ids[P256].key->pub};
    struct bk_signing_key keys[5] = {signing(P256), signing(P256_B), signing(P384), signing(RSA3072), signing(P256)};
    struct bk_buf der = {0};

    (void)state;
    make_refused(keys, 0, BK_E_USAGE, "0 signing keys");
    make_refused(keys, 5, BK_E_USAGE, "5 signing keys");
    make_refused((struct bk_signing_key[]){keys[0], keys[4]}, 2, BK_E_USAGE, "given twice");
    keys[0].cert = keys[1].cert;
    keys[0].cert_len = keys[1].cert_len;
    make_refused(keys, 1, BK_E_USAGE, "not of the signing key");
    keys[0] = signing(P256);
    keys[0].key = &wrong;
    make_refused(keys, 1, BK_E_TOKEN, "does not hold");
    fake_key_fail_at(ids[P256].key, 1, BK_E_PIN);
    keys[0] = signing(P256);
    make_refused(keys, 1, BK_E_PIN, "as the test asked");
    /* what stood in the buffer stays */
    assert_int_equal(bk_buf_append(&der, "abc", 3, NULL), BK_OK);
    assert_int_equal(bk_signed_make(content, CONTENT_LEN, BK_CONTENT_KEY_RECORD, keys, 1, bk_time_now(), &der, NULL),
                     BK_OK);
    assert_memory_equal(der.data, "abc\x30", 4);
    bk_buf_free(&der);
}

/* ---- what others could make: signatures that hold, in structures outside the profile ---- */

/* One way to depart from the profile at a time; all zero is inside it. */
struct forgery {
    const char *sha256_head; /* another digestAlgorithm in SignerInfo, DER */
    size_t sha256_head_len;
    const char *set_digest; /* another element in digestAlgorithms */
    size_t set_digest_len;
    const char *signature_algorithm;
    size_t signature_algorithm_len;
    const char *extra_attribute; /* DER of one more */
    size_t extra_attribute_len;
    int leave_out; /* attribute 1 to 4 */
    int twice;     /* attribute 1 to 4 */
    int two_values;
    int unsorted;
    int wrong_type;
    int wrong_digest;
    int generalized;    /* signing-time as GeneralizedTime before 2050 */
    int ess_hash_named; /* hashAlgorithm SHA-256 written out */
    int ess_serial;     /* issuerSerial there */
    int ess_two;        /* two ESSCertIDv2 */
    int ess_other;      /* of another certificate */
    int sid_other;
    int no_content;
    int no_certificates;
    int extra_certificate;
    int version; /* of SignedData */
    int signer_version;
    int outer_type; /* id-data */
    int crls;       /* [1] beside the certificates */
    int unsigned_attrs;
    int signer_twice; /* the same signer again, with another time */
};

static void
add(struct bk_buf *b, const void *data, size_t len)
{
    assert_int_equal(bk_buf_append(b, data, len, NULL), BK_OK);
}

static void
tlv(struct bk_buf *b, uint8_t tag, const void *data, size_t len)
{
    assert_int_equal(bk_tlv_put(b, tag, data, len, NULL), BK_OK);
}

/* Wraps what is in b. */
static void
enclose(struct bk_buf *b, uint8_t tag)
{
    struct bk_buf outer = {0};

    tlv(&outer, tag, b->data, b->len);
    bk_buf_free(b);
    *b = outer;
}

static int
by_bytes(const void *a, const void *b)
{
    const struct bk_buf *x = a;
    const struct bk_buf *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int order = memcmp(x->data, y->data, n);

    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* The elements in DER's order, or in the reverse, as contents of a SET OF; frees them. */
static void
set_of(struct bk_buf *out, struct bk_buf *items, size_t count, int reverse)
{
    qsort(items, count, sizeof *items, by_bytes);
    for (size_t i = 0; i < count; i++) {
        struct bk_buf *item = &items[reverse ? count - 1 - i : i];

        add(out, item->data, item->len);
        bk_buf_free(item);
    }
}

static struct bk_buf
attribute(const char *oid, size_t oid_len, const struct bk_buf *value, int values)
{
    struct bk_buf a = {0};
    struct bk_buf set = {0};

    for (int i = 0; i < values; i++)
        add(&set, value->data, value->len);
    enclose(&set, BK_TAG_SET);
    tlv(&a, BK_TAG_OID, oid, oid_len);
    add(&a, set.data, set.len);
    enclose(&a, BK_TAG_SEQUENCE);
    bk_buf_free(&set);
    return a;
}

static void
ess_value(const struct forgery *f, const struct bk_buf *cert, struct bk_buf *out)
{
    struct bk_encoding sha256 = bk_alg_sha256();
    uint8_t hash[32];

    bk_sha256(cert->data, cert->len, hash);
    if (f->ess_other)
        hash[0] ^= 1;
    if (f->ess_hash_named)
        add(out, sha256.der, sha256.len);
    tlv(out, BK_TAG_OCTET_STRING, hash, sizeof hash);
    if (f->ess_serial) {
        static const uint8_t issuer_serial[] = {0x30, 0x09, 0x30, 0x04, 0xa4, 0x02, 0x30, 0x00, 0x02, 0x01, 0x05};

        add(out, issuer_serial, sizeof issuer_serial);
    }
    enclose(out, BK_TAG_SEQUENCE);
    if (f->ess_two) {
        struct bk_buf one = *out;

        *out = (struct bk_buf){0};
        add(out, one.data, one.len);
        add(out, one.data, one.len);
        bk_buf_free(&one);
    }
    enclose(out, BK_TAG_SEQUENCE);
    enclose(out, BK_TAG_SEQUENCE);
}

/* The contents of the SET OF signed attributes. */
static void
forge_attributes(const struct forgery *f, const struct bk_buf *cert, time_t when, struct bk_buf *out)
{
    static const char oids[4][11] = {"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03", "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04",
                                     "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05",
                                     "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x2f"};
    struct bk_buf values[4] = {0};
    struct bk_buf items[6];
    size_t count = 0;
    uint8_t oid[BK_OWN_OID_LEN];
    uint8_t digest[32];
    char text[BK_TIME_LEN + 1];

    bk_own_oid(f->wrong_type ? BK_OID_KEY_RECORD : BK_OID_MANIFEST, oid);
    add(&values[0], oid, sizeof oid);
    bk_sha256(content, f->wrong_digest ? 1 : CONTENT_LEN, digest);
    tlv(&values[1], BK_TAG_OCTET_STRING, digest, sizeof digest);
    bk_time_format(when, text);
    tlv(&values[2], f->generalized ? BK_TAG_GENERALIZED_TIME : BK_TAG_UTC_TIME, text + (f->generalized ? 0 : 2),
        f->generalized ? 15 : 13);
    ess_value(f, cert, &values[3]);
    for (int i = 0; i < 4; i++) {
        if (f->leave_out != i + 1)
            items[count++] = attribute(oids[i], i == 3 ? 11 : 9, &values[i], f->two_values == i + 1 ? 2 : 1);
        if (f->twice == i + 1)
            items[count++] = attribute(oids[i], i == 3 ? 11 : 9, &values[i], 1);
        bk_buf_free(&values[i]);
    }
    if (f->extra_attribute != NULL) {
        items[count] = (struct bk_buf){0};
        add(&items[count++], f->extra_attribute, f->extra_attribute_len);
    }
    set_of(out, items, count, f->unsorted);
}

static struct bk_buf
forge_signer(const struct forgery *f, const struct identity *id, time_t when)
{
    struct bk_encoding sha256 = bk_alg_sha256();
    struct bk_encoding alg = bk_alg_of_signature(bk_sig_alg_for(id->key->pub.type));
    struct bk_buf attrs = {0};
    struct bk_buf set = {0};
    struct bk_buf s = {0};
    uint8_t version = (uint8_t)(3 + f->signer_version);
    uint8_t sid[BK_SKI_LEN];
    uint8_t digest[32];
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t sig_len = sizeof sig;
    struct bk_err err = {0};

    forge_attributes(f, &id->cert, when, &attrs);
    tlv(&set, BK_TAG_SET, attrs.data, attrs.len);
    bk_sha256(set.data, set.len, digest);
    must(bk_key_sign(id->key, digest, sig, &sig_len, &err), &err);
    tlv(&s, BK_TAG_INTEGER, &version, 1);
    memcpy(sid, id->key->pub.id.bytes, sizeof sid);
    sid[0] ^= (uint8_t)f->sid_other;
    tlv(&s, 0x80, sid, sizeof sid);
    add(&s, f->sha256_head != NULL ? (const void *)f->sha256_head : sha256.der,
        f->sha256_head != NULL ? f->sha256_head_len : sha256.len);
    tlv(&s, 0xa0, attrs.data, attrs.len);
    add(&s, f->signature_algorithm != NULL ? (const void *)f->signature_algorithm : alg.der,
        f->signature_algorithm != NULL ? f->signature_algorithm_len : alg.len);
    tlv(&s, BK_TAG_OCTET_STRING, sig, sig_len);
    if (f->unsigned_attrs)
        add(&s, "\xa1\x0e\x30\x0c\x06\x03\x2a\x03\x04\x31\x05\x04\x03\x61\x62\x63", 16);
    enclose(&s, BK_TAG_SEQUENCE);
    bk_buf_free(&attrs);
    bk_buf_free(&set);
    return s;
}

/* Certificates and SignerInfos, as they stand in SignedData. */
static void
forge_signers(const struct forgery *f, const struct identity *signers, size_t count, struct bk_buf *out)
{
    struct bk_buf certs[6] = {0};
    struct bk_buf infos[6] = {0};
    struct bk_buf set = {0};
    size_t n = 0;
    time_t now = bk_time_now();

    for (size_t i = 0; i < count; i++) {
        add(&certs[i], signers[i].cert.data, signers[i].cert.len);
        infos[n++] = forge_signer(f, &signers[i], now);
    }
    if (f->signer_twice)
        infos[n++] = forge_signer(f, &signers[0], now + 1);
    if (f->extra_certificate)
        add(&certs[count], ids[RSA3072].cert.data, ids[RSA3072].cert.len);
    set_of(&set, certs, count + (size_t)f->extra_certificate, 0);
    if (!f->no_certificates)
        tlv(out, 0xa0, set.data, set.len);
    if (f->crls)
        add(out, "\xa1\x02\x30\x00", 4);
    set.len = 0;
    set_of(&set, infos, n, 0);
    tlv(out, BK_TAG_SET, set.data, set.len);
    bk_buf_free(&set);
}

static struct bk_buf
forge(const struct forgery *f, const struct identity *signers, size_t count)
{
    struct bk_encoding sha256 = bk_alg_sha256();
    struct bk_buf sd = {0};
    struct bk_buf part = {0};
    struct bk_buf out = {0};
    uint8_t version = (uint8_t)(3 + f->version);
    uint8_t oid[BK_OWN_OID_LEN];

    tlv(&sd, BK_TAG_INTEGER, &version, 1);
    add(&part, f->set_digest != NULL ? (const void *)f->set_digest : sha256.der,
        f->set_digest != NULL ? f->set_digest_len : sha256.len);
    tlv(&sd, BK_TAG_SET, part.data, part.len);
    part.len = 0;
    tlv(&part, BK_TAG_OCTET_STRING, content, CONTENT_LEN);
    enclose(&part, 0xa0);
    bk_own_oid(BK_OID_MANIFEST, oid);
    add(&out, oid, sizeof oid);
    if (!f->no_content)
        add(&out, part.data, part.len);
    enclose(&out, BK_TAG_SEQUENCE);
    add(&sd, out.data, out.len);
    out.len = 0;
    forge_signers(f, signers, count, &sd);
    enclose(&sd, BK_TAG_SEQUENCE);
    enclose(&sd, 0xa0);
    add(&out,
        f->outer_type ? "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01" : "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02",
        11);
    add(&out, sd.data, sd.len);
    enclose(&out, BK_TAG_SEQUENCE);
    bk_buf_free(&part);
    bk_buf_free(&sd);
    return out;
}

static void
parse_refused(const struct bk_buf *der, enum bk_code code, const char *part)
{
    struct bk_signed s = {0};
    struct bk_err err = {0};

    assert_int_equal(bk_signed_parse(der->data, der->len, BK_CONTENT_MANIFEST, &s, &err), code);
    assert_string_equal(err.layer != NULL ? err.layer : "",
                        strstr(err.message, "certificate:") ? "certificate" : "signature");
    if (strstr(err.message, part) == NULL || strncmp(err.message, "signature: ", 11) != 0)
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_null(s.content.data);
    assert_int_equal(s.signer_count, 0);
}

static void
forgery_accepted(struct forgery f, size_t which)
{
    struct bk_buf der = forge(&f, &ids[which], 1);
    struct bk_signed s = {0};
    struct bk_err err = {0};

    must(bk_signed_parse(der.data, der.len, BK_CONTENT_MANIFEST, &s, &err), &err);
    bk_signed_free(&s);
    bk_buf_free(&der);
}

static void
forgery_refused(struct forgery f, enum bk_code code, const char *part)
{
    struct bk_buf der = forge(&f, &ids[P256], 1);

    parse_refused(&der, code, part);
    bk_buf_free(&der);
}

/* The forger's tools make what is inside the profile, so each refusal below is for its one departure. */
static void
forger_is_honest(void **state)
{
    (void)state;
    for (size_t i = 0; i < KEYS; i++)
        forgery_accepted((struct forgery){0}, i);
    forgery_accepted((struct forgery){.ess_serial = 1}, P256);
}

static void
attributes_are_closed(void **state)
{
    static const char smime[] =
        "\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0f\x31\x0d\x30\x0b\x06\x09\x60\x86\x48"
        "\x01\x65\x03\x04\x01\x2a";

    (void)state;
    forgery_refused((struct forgery){.unsorted = 1}, BK_E_FORMAT, "not the DER encoding");
    forgery_refused((struct forgery){.extra_attribute = smime, .extra_attribute_len = sizeof smime - 1}, BK_E_FORMAT,
                    "attribute that the profile does not have");
    for (int i = 1; i <= 4; i++) {
        forgery_refused((struct forgery){.leave_out = i}, BK_E_FORMAT, "among the signed attributes");
        forgery_refused((struct forgery){.twice = i}, BK_E_FORMAT, "stands there twice");
        forgery_refused((struct forgery){.two_values = i}, BK_E_FORMAT, "has 2 values");
    }
    forgery_refused((struct forgery){.wrong_type = 1}, BK_E_FORMAT, "content-type is not that of the content");
    forgery_refused((struct forgery){.wrong_digest = 1}, BK_E_VERIFY, "message-digest is not that of the content");
    forgery_refused((struct forgery){.generalized = 1}, BK_E_FORMAT, "signing-time");
    forgery_refused((struct forgery){.ess_hash_named = 1}, BK_E_FORMAT, "signing-certificate-v2");
    forgery_refused((struct forgery){.ess_two = 1}, BK_E_FORMAT, "signing-certificate-v2");
    forgery_refused((struct forgery){.ess_other = 1}, BK_E_FORMAT, "certificate that it names is not there");
    forgery_refused((struct forgery){.unsigned_attrs = 1}, BK_E_FORMAT, "other structure");
}

static void
structure_is_closed(void **state)
{
    (void)state;
    forgery_refused((struct forgery){.outer_type = 1}, BK_E_FORMAT, "not a SignedData");
    forgery_refused((struct forgery){.version = -2}, BK_E_FORMAT, "version is 1");
    forgery_refused((struct forgery){.version = 1}, BK_E_FORMAT, "version is 4");
    forgery_refused((struct forgery){.signer_version = -2}, BK_E_FORMAT, "version is 1");
    forgery_refused((struct forgery){.no_content = 1}, BK_E_FORMAT, "other structure");
    forgery_refused((struct forgery){.no_certificates = 1}, BK_E_FORMAT, "other structure");
    forgery_refused((struct forgery){.crls = 1}, BK_E_FORMAT, "other structure");
    forgery_refused((struct forgery){.extra_certificate = 1}, BK_E_FORMAT, "2 certificates for 1 signers");
    forgery_refused((struct forgery){.sid_other = 1}, BK_E_FORMAT, "sid is not");
    forgery_refused((struct forgery){.signer_twice = 1}, BK_E_FORMAT, "1 certificates for 2 signers");
    forgery_refused((struct forgery){.signer_twice = 1, .extra_certificate = 1}, BK_E_FORMAT,
                    "certificate that it names is not there");
}

static void
algorithms_are_closed(void **state)
{
    static const char sha1[] = "\x30\x07\x06\x05\x2b\x0e\x03\x02\x1a";
    static const char sha256_null[] = "\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00";
    static const char ecdsa_sha1[] = "\x30\x09\x06\x07\x2a\x86\x48\xce\x3d\x04\x01";
    static const char ecdsa_sha384[] = "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
    static const char rsa_sha256[] = "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
    struct bk_encoding pss = bk_alg_of_signature(BK_SIG_RSA_PSS_SHA256);
    struct forgery f = {.signature_algorithm = rsa_sha256, .signature_algorithm_len = sizeof rsa_sha256 - 1};
    struct bk_buf der = forge(&f, &ids[RSA3072], 1);

    (void)state;
    parse_refused(&der, BK_E_FORMAT, "signature algorithm"); /* PKCS#1 v1.5 */
    bk_buf_free(&der);
    forgery_refused((struct forgery){.sha256_head = sha1, .sha256_head_len = sizeof sha1 - 1}, BK_E_FORMAT,
                    "digest algorithm other");
    forgery_refused((struct forgery){.set_digest = sha1, .set_digest_len = sizeof sha1 - 1}, BK_E_FORMAT,
                    "digest algorithm other");
    forgery_refused((struct forgery){.sha256_head = sha256_null, .sha256_head_len = sizeof sha256_null - 1},
                    BK_E_FORMAT, "digest algorithm other");
    forgery_refused(
        (struct forgery){.signature_algorithm = ecdsa_sha1, .signature_algorithm_len = sizeof ecdsa_sha1 - 1},
        BK_E_FORMAT, "signature algorithm");
    forgery_refused(
        (struct forgery){.signature_algorithm = ecdsa_sha384, .signature_algorithm_len = sizeof ecdsa_sha384 - 1},
        BK_E_FORMAT, "signature algorithm");
    forgery_refused((struct forgery){.signature_algorithm = (const char *)pss.der, .signature_algorithm_len = pss.len},
                    BK_E_FORMAT, "signature algorithm");
}

/* ---- keys and certificates outside the profile ---- */

/* A certificate of that key by OpenSSL, self-signed; ski NULL: without the extension. */
static struct bk_buf
foreign_cert(EVP_PKEY *key, const EVP_MD *md, const uint8_t *ski)
{
    X509 *x = X509_new();
    struct bk_buf der = {0};
    uint8_t *out = NULL;
    int len;

    assert_int_equal(X509_set_version(x, X509_VERSION_3), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(x), 7), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x), 0));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x), 1000));
    assert_int_equal(X509_set_pubkey(x, key), 1);
    if (ski != NULL) {
        ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();

        assert_int_equal(ASN1_OCTET_STRING_set(value, ski, BK_SKI_LEN), 1);
        assert_int_equal(X509_add1_ext_i2d(x, NID_subject_key_identifier, value, 0, X509V3_ADD_DEFAULT), 1);
        ASN1_OCTET_STRING_free(value);
    }
    assert_true(X509_sign(x, key, md) > 0);
    len = i2d_X509(x, &out);
    assert_true(len > 0);
    add(&der, out, (size_t)len);
    OPENSSL_free(out);
    X509_free(x);
    return der;
}

static EVP_PKEY *ed25519;

/* As a token with an Ed25519 key would sign what it is handed. */
static enum bk_code
sign_ed25519(struct bk_key *key, const uint8_t digest[32], enum bk_sig_alg alg, uint8_t *sig, size_t *len,
             struct bk_err *err)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    (void)key;
    (void)alg;
    (void)err;
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, NULL, NULL, ed25519), 1);
    assert_int_equal(EVP_DigestSign(ctx, sig, len, digest, 32), 1);
    EVP_MD_CTX_free(ctx);
    return BK_OK;
}

static void
ed25519_is_refused(void **state)
{
    static const char alg[] = "\x30\x05\x06\x03\x2b\x65\x70";
    const struct bk_key_ops ops = {.sign = sign_ed25519};
    struct bk_key key = {.ops = &ops, .pub = ids[P256].key->pub}; /* a type that bk_key_sign lets through */
    struct forgery f = {.signature_algorithm = alg, .signature_algorithm_len = sizeof alg - 1};
    struct identity id = {.key = &key};
    struct bk_buf der;

    (void)state;
    ed25519 = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    id.cert = foreign_cert(ed25519, NULL, key.pub.id.bytes);
    der = forge(&f, &id, 1);
    parse_refused(&der, BK_E_FORMAT, "neither RSA nor EC");
    bk_buf_free(&der);
    bk_buf_free(&id.cert);
    EVP_PKEY_free(ed25519);
}

static void
same_key_under_two_certificates(void **state)
{
    struct bk_err err = {0};
    struct identity two[2] = {ids[P256], {.key = ids[P256].key}};
    struct bk_buf der;

    (void)state;
    must(bk_cert_self_sign(ids[P256].key, "the same again", 1, 2000000000, &two[1].cert, &err), &err);
    der = forge(&(struct forgery){0}, two, 2);
    parse_refused(&der, BK_E_FORMAT, "the same key signs twice");
    bk_buf_free(&der);
    bk_buf_free(&two[1].cert);
}

static void
five_signers(void **state)
{
    struct identity five[5] = {ids[0], ids[1], ids[2], ids[3]};
    struct bk_err err = {0};
    struct bk_buf der;

    (void)state;
    must(fake_key_new(BK_KEY_P384, 1, &five[4].key, &err), &err);
    must(bk_cert_self_sign(five[4].key, "one too many", 1, 2000000000, &five[4].cert, &err), &err);
    der = forge(&(struct forgery){0}, five, 5);
    parse_refused(&der, BK_E_FORMAT, "5 signers");
    bk_buf_free(&der);
    der = forge(&(struct forgery){0}, five, 0);
    parse_refused(&der, BK_E_FORMAT, "0 signers");
    bk_buf_free(&der);
    bk_buf_free(&five[4].cert);
    bk_key_close(five[4].key);
}

/* ---- damage ---- */

static enum bk_code
try_parse(const uint8_t *data, size_t len, void *ctx)
{
    struct bk_signed s = {0};
    struct bk_err err = {0};
    enum bk_code rc = bk_signed_parse(data, len, BK_CONTENT_MANIFEST, &s, &err);

    (void)ctx;
    bk_signed_free(&s);
    if (rc != BK_OK && rc != BK_E_FORMAT && rc != BK_E_VERIFY)
        fail_msg("%d: %s", rc, err.message);
    return rc;
}

static void
no_mutation_passes(void **state)
{
    struct bk_signing_key keys[2] = {signing(P256), signing(P384)};
    struct bk_buf der = make(keys, 1, bk_time_now());

    (void)state;
    assert_int_equal(mutate_truncations(der.data, der.len, try_parse, NULL), 0);
    assert_int_equal(mutate_flips(der.data, der.len, try_parse, NULL), 0);
    assert_int_equal(bk_buf_append(&der, "", 1, NULL), BK_OK);
    parse_refused(&der, BK_E_FORMAT, "left over");
    bk_buf_free(&der);
    der = make(keys, 2, bk_time_now());
    assert_int_equal(mutate_truncations(der.data, der.len, try_parse, NULL), 0);
    bk_buf_free(&der);
}

/* RSA structures are long: one flip in each byte, another bit each time. */
static void
no_flip_passes_rsa(void **state)
{
    struct bk_signing_key key = signing(RSA3072);
    struct bk_buf der = make(&key, 1, bk_time_now());

    (void)state;
    for (size_t i = 0; i < der.len; i++) {
        der.data[i] ^= (uint8_t)(1u << i % 8);
        assert_int_not_equal(try_parse(der.data, der.len, NULL), BK_OK);
        der.data[i] ^= (uint8_t)(1u << i % 8);
    }
    assert_int_equal(try_parse(der.data, der.len, NULL), BK_OK);
    bk_buf_free(&der);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),         cmocka_unit_test(times_of_both_kinds),
        cmocka_unit_test(openssl_agrees),      cmocka_unit_test(making_is_checked),
        cmocka_unit_test(forger_is_honest),    cmocka_unit_test(attributes_are_closed),
        cmocka_unit_test(structure_is_closed), cmocka_unit_test(algorithms_are_closed),
        cmocka_unit_test(ed25519_is_refused),  cmocka_unit_test(same_key_under_two_certificates),
        cmocka_unit_test(five_signers),        cmocka_unit_test(no_mutation_passes),
        cmocka_unit_test(no_flip_passes_rsa),
    };

    return cmocka_run_group_tests_name("signed", tests, set_up, tear_down);
}
