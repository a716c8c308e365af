/* Do format/pem.c and format/cert.c meet their header? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/hash.h"
#include "base/time.h"
#include "format/pem.h"
#include "tests/support/fake_key.h"
#include "tests/support/mutate.h"

enum { KEY_P256, KEY_P384, KEY_RSA, KEYS };
static struct bk_key *keys[KEYS];

static void
must(enum bk_code rc, const struct bk_err *err)
{
    if (rc != BK_OK)
        fail_msg("%d: %s", rc, err->message);
}

static int
set_up(void **state)
{
    static const enum bk_key_type types[KEYS] = {BK_KEY_P256, BK_KEY_P384, BK_KEY_RSA};
    struct bk_err err = {0};
    int locked;

    (void)state;
    must(bk_secret_init(&locked, &err), &err);
    for (size_t i = 0; i < KEYS; i++)
        must(fake_key_new(types[i], 1, &keys[i], &err), &err);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < KEYS; i++)
        bk_key_close(keys[i]);
    return 0;
}

static struct bk_buf
cert_of(struct bk_key *key, const char *name)
{
    struct bk_buf der = {0};
    struct bk_err err = {0};

    must(bk_cert_self_sign(key, name, 1764000000, 2600000000, &der, &err), &err);
    return der;
}

/* ---- certificates ---- */

static int
extension_is(X509 *x, int nid, int critical, const char *der, size_t len)
{
    int at = X509_get_ext_by_NID(x, nid, -1);
    X509_EXTENSION *e = at < 0 ? NULL : X509_get_ext(x, at);
    const ASN1_OCTET_STRING *value = e == NULL ? NULL : X509_EXTENSION_get_data(e);

    return value != NULL && X509_EXTENSION_get_critical(e) == critical && ASN1_STRING_length(value) == (int)len &&
           memcmp(ASN1_STRING_get0_data(value), der, len) == 0;
}

static void
self_signed(void **state)
{
    (void)state;
    for (size_t i = 0; i < KEYS; i++) {
        struct bk_buf der = cert_of(keys[i], "K\xc3\xb6niglich, backup + \"1\"");
        struct bk_cert_info info = {0};
        struct bk_err err = {0};
        const unsigned char *at = der.data;
        X509 *x;
        BIGNUM *serial;

        must(bk_cert_parse(der.data, der.len, &info, &err), &err);
        assert_true(bk_key_id_equal(&info.pub.id, &keys[i]->pub.id));
        assert_int_equal(info.pub.spki_len, keys[i]->pub.spki_len);
        assert_memory_equal(info.pub.spki, keys[i]->pub.spki, info.pub.spki_len);
        assert_string_equal(info.subject, "CN=K\\C3\\B6niglich\\, backup \\+ \\\"1\\\"");
        assert_int_equal(info.not_before, 1764000000);
        assert_int_equal(info.not_after, 2600000000); /* 2052: GeneralizedTime */
        assert_int_equal(info.ski_len, BK_SKI_LEN);
        assert_memory_equal(info.ski, keys[i]->pub.id.bytes, BK_SKI_LEN);

        x = d2i_X509(NULL, &at, (long)der.len);
        assert_non_null(x);
        assert_int_equal(X509_get_version(x), X509_VERSION_3);
        assert_int_equal(X509_verify(x, X509_get0_pubkey(x)), 1);
        assert_int_equal(X509_check_purpose(x, -1, 0), 1);
        assert_int_equal(X509_self_signed(x, 1), 1);
        assert_int_equal(X509_get_ext_count(x), 4);
        assert_true(extension_is(x, NID_basic_constraints, 1, "\x30\x00", 2));
        assert_true(extension_is(x, NID_key_usage, 1, "\x03\x02\x07\x80", 4));
        serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL);
        assert_false(BN_is_negative(serial));
        assert_in_range(BN_num_bits(serial), 65, 128);
        BN_free(serial);
        X509_free(x);
        bk_cert_info_free(&info);
        bk_cert_info_free(&info);
        bk_buf_free(&der);
    }
}

static void
serials_differ(void **state)
{
    struct bk_buf a = cert_of(keys[KEY_P256], "a");
    struct bk_buf b = cert_of(keys[KEY_P256], "a");

    (void)state;
    /* SEQUENCE, SEQUENCE, version: the serial follows within the first 32 bytes */
    assert_memory_not_equal(a.data, b.data, 32);
    bk_buf_free(&a);
    bk_buf_free(&b);
}

static enum bk_code
sign_wrongly(struct bk_key *key, const uint8_t digest[32], enum bk_sig_alg alg, uint8_t *sig, size_t *len,
             struct bk_err *err)
{
    uint8_t other[32];

    (void)key;
    memcpy(other, digest, sizeof other);
    other[0] ^= 1;
    return keys[KEY_P256]->ops->sign(keys[KEY_P256], other, alg, sig, len, err);
}

static void
sign_refused(struct bk_key *key, const char *name, time_t from, time_t to, enum bk_code code, const char *part)
{
    struct bk_buf der = {0};
    struct bk_err err = {0};

    assert_int_equal(bk_cert_self_sign(key, name, from, to, &der, &err), code);
    if (strstr(err.message, part) == NULL || strncmp(err.message, "certificate: ", 13) != 0)
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_int_equal(der.len, 0);
    bk_buf_free(&der);
}

static void
self_signing_is_checked(void **state)
{
    static const char longest[] = "1234567890123456789012345678901234567890123456789012345678901234";
    const struct bk_key_ops wrong_ops = {.sign = sign_wrongly};
    struct bk_key wrong = {.ops = &wrong_ops, .pub = keys[KEY_P256]->pub};
    struct bk_buf der = cert_of(keys[KEY_P256], longest);
    struct bk_key *aes = NULL;
    struct bk_err err = {0};
    char name[sizeof longest + 1];

    (void)state;
    bk_buf_free(&der);
    must(fake_key_new(BK_KEY_AES256, 0, &aes, &err), &err);
    (void)snprintf(name, sizeof name, "%s5", longest);
    sign_refused(keys[KEY_P256], name, 1, 2, BK_E_USAGE, "name");
    sign_refused(keys[KEY_P256], "", 1, 2, BK_E_USAGE, "name");
    sign_refused(keys[KEY_P256], "a\nb", 1, 2, BK_E_USAGE, "name");
    sign_refused(keys[KEY_P256], "a", 2, 2, BK_E_USAGE, "validity");
    sign_refused(keys[KEY_P256], "a", -1, 2, BK_E_USAGE, "validity");
    sign_refused(keys[KEY_P256], "a", 1, 253402300800, BK_E_USAGE, "validity");
    sign_refused(&wrong, "a", 1, 2, BK_E_TOKEN, "does not hold");
    sign_refused(aes, "a", 1, 2, BK_E_UNSUPPORTED, "aes256");
    fake_key_fail_at(keys[KEY_P256], 1, BK_E_PIN);
    sign_refused(keys[KEY_P256], "a", 1, 2, BK_E_PIN, "as the test asked");
    bk_key_close(aes);
}

static enum bk_code
try_cert(const uint8_t *data, size_t len, void *ctx)
{
    struct bk_cert_info info = {0};
    struct bk_err err = {0};
    enum bk_code rc = bk_cert_parse(data, len, &info, &err);

    (void)ctx;
    bk_cert_info_free(&info);
    return rc;
}

static void
no_mutated_certificate_crashes(void **state)
{
    struct bk_buf der = cert_of(keys[KEY_P256], "mutated");
    struct bk_err err = {0};

    (void)state;
    assert_int_equal(mutate_truncations(der.data, der.len, try_cert, NULL), 0);
    /* names, serials and signatures may be others: a certificate is judged by who names its hash */
    assert_in_range(mutate_flips(der.data, der.len, try_cert, NULL), 1, 8 * der.len - 500);
    must(bk_buf_append(&der, "", 1, &err), &err);
    assert_int_equal(try_cert(der.data, der.len, NULL), BK_E_FORMAT);
    bk_buf_free(&der);
}

/* ---- PEM ---- */

static struct bk_buf
text_of(const char *text)
{
    struct bk_buf b = {0};

    assert_int_equal(bk_buf_append(&b, text, strlen(text), NULL), BK_OK);
    return b;
}

static void
append(struct bk_buf *b, const char *text)
{
    assert_int_equal(bk_buf_append(b, text, strlen(text), NULL), BK_OK);
}

/* Parses a copy of exactly its size. */
static enum bk_code
parse(const struct bk_buf *text, struct bk_pem *out, struct bk_err *err)
{
    char *copy = malloc(text->len);
    enum bk_code rc;

    if (text->len > 0)
        memcpy(copy, text->data, text->len);
    rc = bk_pem_parse(copy, text->len, out, err);
    free(copy);
    return rc;
}

static void
write_key(struct bk_buf *out, size_t which, enum bk_scheme scheme, const char *uri, int with_cert)
{
    struct bk_public pub = keys[which]->pub;
    struct bk_buf cert = {0};
    struct bk_err err = {0};
    char buffer[128];

    pub.scheme = scheme;
    pub.uri = NULL;
    if (uri != NULL) {
        (void)snprintf(buffer, sizeof buffer, "%s", uri);
        pub.uri = buffer;
    }
    if (with_cert)
        cert = cert_of(keys[which], "in a file");
    must(bk_pem_write(&pub, with_cert ? &cert : NULL, "first line\n\nbk-uri: third line", out, &err), &err);
    bk_buf_free(&cert);
}

static void
round_trip(void **state)
{
    static const char above[] = "# bk-uri: third line\nbk-scheme: rsa-oaep-sha1\nbk-uri: pkcs11:token=a;object=b\n"
                                "-----BEGIN PUBLIC KEY-----\n";
    struct bk_buf text = {0};
    struct bk_pem p = {0};
    struct bk_err err = {0};

    (void)state;
    write_key(&text, KEY_RSA, BK_SCHEME_RSA_OAEP_SHA1, "pkcs11:token=a;object=b", 0);
    assert_non_null(memmem(text.data, text.len, above, sizeof above - 1));
    write_key(&text, KEY_P384, BK_SCHEME_NONE, NULL, 0);
    write_key(&text, KEY_P256, BK_SCHEME_ECDH_P256, NULL, 1);
    write_key(&text, KEY_RSA, BK_SCHEME_RSA_OAEP_SHA256, "pkcs11:token=c", 1);
    must(parse(&text, &p, &err), &err);
    assert_int_equal(p.count, 4);
    assert_int_equal(p.keys[0].pub.scheme, BK_SCHEME_RSA_OAEP_SHA1);
    assert_string_equal(p.keys[0].pub.uri, "pkcs11:token=a;object=b");
    assert_int_equal(p.keys[0].cert.len, 0);
    assert_true(bk_key_id_equal(&p.keys[0].pub.id, &keys[KEY_RSA]->pub.id));
    /* attributes are of the block below them alone; without any, the scheme is the type's */
    assert_int_equal(p.keys[1].pub.scheme, BK_SCHEME_ECDH_P384);
    assert_null(p.keys[1].pub.uri);
    assert_int_equal(p.keys[2].pub.scheme, BK_SCHEME_ECDH_P256);
    assert_null(p.keys[2].pub.uri);
    assert_true(p.keys[2].cert.len > 0);
    assert_true(bk_key_id_equal(&p.keys[2].pub.id, &keys[KEY_P256]->pub.id));
    assert_int_equal(p.keys[3].pub.scheme, BK_SCHEME_RSA_OAEP_SHA256);
    assert_string_equal(p.keys[3].pub.uri, "pkcs11:token=c");
    bk_pem_free(&p);
    bk_pem_free(&p);
    bk_buf_free(&text);
}

static void
other_text_and_line_ends(void **state)
{
    struct bk_buf block = {0};
    struct bk_buf text = text_of("Subject: someone\r\n  bk-nothing: indented\r\n\r\nbk-scheme:   ecdh-p256  \r\n");
    struct bk_pem p = {0};
    struct bk_err err = {0};

    (void)state;
    write_key(&block, KEY_P256, BK_SCHEME_NONE, NULL, 0);
    for (size_t i = 0; i < block.len; i++) {
        if (block.data[i] == '\n')
            append(&text, "\r");
        must(bk_buf_append(&text, block.data + i, 1, &err), &err);
    }
    append(&text, "text after it");
    must(parse(&text, &p, &err), &err);
    assert_int_equal(p.count, 1);
    assert_int_equal(p.keys[0].pub.scheme, BK_SCHEME_ECDH_P256);
    bk_pem_free(&p);
    bk_buf_free(&text);
    bk_buf_free(&block);
}

/* Text above and below a good P-256 block. */
static void
refused_around(const char *above, const char *below, enum bk_code code, const char *part)
{
    struct bk_buf text = text_of(above);
    struct bk_pem p = {0};
    struct bk_err err = {0};

    write_key(&text, KEY_P256, BK_SCHEME_NONE, NULL, 0);
    append(&text, below);
    assert_int_equal(parse(&text, &p, &err), code);
    assert_int_equal(err.code, code);
    if (strstr(err.message, part) == NULL || strncmp(err.message, "PEM: ", 5) != 0)
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_null(p.keys);
    bk_buf_free(&text);
}

static void
attributes_are_checked(void **state)
{
    (void)state;
    refused_around("bk-color: blue\n", "", BK_E_USAGE, "line 1: an attribute that this program does not know");
    refused_around("bk-Scheme: ecdh-p256\n", "", BK_E_USAGE, "does not know");
    refused_around("\nbk-scheme\n", "", BK_E_USAGE, "line 2: not of the form");
    refused_around("bk-scheme:\n", "", BK_E_USAGE, "not of the form");
    refused_around("bk-scheme: rot13\n", "", BK_E_USAGE, "no scheme of that name");
    refused_around("bk-scheme: none\n", "", BK_E_USAGE, "no scheme of that name");
    refused_around("bk-scheme: rsa-oaep-sha256\n", "", BK_E_USAGE, "rsa-oaep-sha256 does not fit the p256 key");
    refused_around("bk-scheme: rsa-oaep-sha1\n", "", BK_E_USAGE, "does not fit");
    refused_around("bk-scheme: ecdh-p384\n", "", BK_E_USAGE, "does not fit");
    refused_around("bk-scheme: aes-kw\n", "", BK_E_USAGE, "does not fit");
    refused_around("bk-scheme: ecdh-p256\nbk-scheme: ecdh-p256\n", "", BK_E_USAGE, "line 2: bk-scheme for the second");
    refused_around("bk-uri: pkcs11:\nbk-uri: pkcs11:\n", "", BK_E_USAGE, "line 2: bk-uri for the second");
    refused_around("bk-uri: file:x\n", "", BK_E_USAGE, "not a pkcs11: URI");
    refused_around("bk-uri: pkcs11:token=a?pin-value=1234\n", "", BK_E_USAGE, "not a pkcs11: URI");
    refused_around("", "bk-uri: pkcs11:\n", BK_E_USAGE, "no block below");
}

static void
blocks_are_checked(void **state)
{
    (void)state;
    refused_around("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "", BK_E_USAGE,
                   "line 1: CERTIFICATE REQUEST is neither");
    refused_around("-----BEGIN TRUSTED CERTIFICATE-----\n", "", BK_E_USAGE, "neither");
    refused_around("-----END CERTIFICATE-----\n", "", BK_E_USAGE, "does not begin a block");
    refused_around("-----BEGIN CERTIFICATE----\n", "", BK_E_USAGE, "does not begin a block");
    refused_around("-----BEGIN -----\n", "", BK_E_USAGE, "does not begin a block");
    refused_around("-----\n", "", BK_E_USAGE, "does not begin a block");
    refused_around("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END CERTIFICATE-----\n", "", BK_E_USAGE,
                   "cannot be decoded");
    refused_around("-----BEGIN PUBLIC KEY-----\nAAAA\n", "", BK_E_USAGE, "cannot be decoded");
    refused_around("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "", BK_E_USAGE,
                   "not a SubjectPublicKeyInfo");
    refused_around("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", BK_E_USAGE, "certificate:");
    refused_around("", "-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n", BK_E_USAGE, "cannot be decoded");
    /* an empty file, and one without a block */
    for (size_t i = 0; i < 2; i++) {
        struct bk_buf text = text_of(i == 0 ? "" : "nothing of interest\n");
        struct bk_pem p = {0};
        struct bk_err err = {0};

        assert_int_equal(parse(&text, &p, &err), BK_E_USAGE);
        assert_non_null(strstr(err.message, "no certificate and no public key"));
        bk_buf_free(&text);
    }
}

static void
private_keys_are_refused(void **state)
{
    static const char *const kinds[] = {"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY",
                                        "OPENSSH PRIVATE KEY"};
    struct bk_pem p = {0};
    struct bk_err err = {0};
    struct bk_buf text = {0};
    char block[128];

    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        (void)snprintf(block, sizeof block, "-----BEGIN %s-----\nAAAA\n-----END %s-----\n", kinds[i], kinds[i]);
        refused_around(block, "", BK_E_USAGE, "line 1: a private key");
        /* found before anything else is complained of, wherever it stands */
        refused_around("bk-color: blue\n", block, BK_E_USAGE, "a private key");
    }
    append(&text, "x\n  -----BEGIN PRIVATE KEY-----");
    assert_int_equal(parse(&text, &p, &err), BK_E_USAGE);
    assert_non_null(strstr(err.message, "line 2: a private key"));
    assert_non_null(strstr(err.hint, "remove that file from here"));
    bk_buf_free(&text);
}

/* What bk does not take as a key from anybody. */
static void
weak_keys_are_refused(void **state)
{
    struct bk_pem p = {0};
    struct bk_err err = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        EVP_PKEY *key = i == 0 ? EVP_RSA_gen(1024) : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
        BIO *bio = BIO_new(BIO_s_mem());
        char *at = NULL;
        long len;

        assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
        len = BIO_get_mem_data(bio, &at);
        assert_int_equal(bk_pem_parse(at, (size_t)len, &p, &err), BK_E_POLICY);
        assert_non_null(strstr(err.message, "PEM: line 1: public key"));
        BIO_free(bio);
        EVP_PKEY_free(key);
    }
}

static void
writing_is_checked(void **state)
{
    struct bk_buf out = text_of("kept");
    struct bk_buf cert = cert_of(keys[KEY_P256], "of another");
    struct bk_public pub = keys[KEY_P384]->pub;
    struct bk_public secret = {.type = BK_KEY_AES256};
    char uri[] = "pkcs11:token=a?pin-value=1";
    struct bk_err err = {0};

    (void)state;
    assert_int_equal(bk_pem_write(&secret, NULL, NULL, &out, &err), BK_E_UNSUPPORTED);
    assert_int_equal(bk_pem_write(&pub, &cert, NULL, &out, &err), BK_E_USAGE);
    assert_non_null(strstr(err.message, "not of this key"));
    assert_int_equal(bk_pem_write(&pub, NULL, "\x1b[2J", &out, &err), BK_E_USAGE);
    pub.uri = uri;
    assert_int_equal(bk_pem_write(&pub, NULL, "comment", &out, &err), BK_E_INTERNAL);
    assert_int_equal(out.len, 4);
    assert_memory_equal(out.data, "kept", 4);
    bk_buf_free(&cert);
    bk_buf_free(&out);
}

static enum bk_code
try_pem(const uint8_t *data, size_t len, void *ctx)
{
    struct bk_pem p = {0};
    struct bk_err err = {0};
    enum bk_code rc = bk_pem_parse((const char *)data, len, &p, &err);

    (void)ctx;
    bk_pem_free(&p);
    return rc;
}

static void
no_mutation_crashes(void **state)
{
    struct bk_buf text = {0};

    (void)state;
    write_key(&text, KEY_P256, BK_SCHEME_ECDH_P256, "pkcs11:token=a", 0);
    /* without the last line end it is still whole */
    assert_int_equal(mutate_truncations(text.data, text.len, try_pem, NULL), 1);
    (void)mutate_flips(text.data, text.len, try_pem, NULL);
    bk_buf_free(&text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(self_signed),
        cmocka_unit_test(serials_differ),
        cmocka_unit_test(self_signing_is_checked),
        cmocka_unit_test(no_mutated_certificate_crashes),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(other_text_and_line_ends),
        cmocka_unit_test(attributes_are_checked),
        cmocka_unit_test(blocks_are_checked),
        cmocka_unit_test(private_keys_are_refused),
        cmocka_unit_test(weak_keys_are_refused),
        cmocka_unit_test(writing_is_checked),
        cmocka_unit_test(no_mutation_crashes),
    };

    return cmocka_run_group_tests_name("pem", tests, set_up, tear_down);
}
