/* format/der.c and format/algorithms.c: what is DER and what is not, and reading and writing through bk.asn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/time.h"
#include "format/algorithms.h"
#include "format/der.h"

static void
ok(enum bk_code rc, const struct bk_err *err)
{
    if (rc != BK_OK)
        fail_msg("code %d: %s", (int)rc, err->message);
}

/* Hex into a buffer of exactly its length, so that the sanitizer sees every byte too far. */
static uint8_t *
exact(const char *hex, size_t *len)
{
    uint8_t *bytes;

    *len = strlen(hex) / 2;
    bytes = malloc(*len > 0 ? *len : 1);
    assert_non_null(bytes);
    assert_true(*len == 0 || bk_unhex(hex, bytes, *len));
    return bytes;
}

static enum bk_code
walk(const char *hex, struct bk_err *err)
{
    size_t len;
    uint8_t *der = exact(hex, &len);
    enum bk_code rc = bk_der_walk(der, len, "test", err);

    free(der);
    return rc;
}

static void
walk_accepts_der(void **state)
{
    static const char *const good[] = {
        "020100",
        "0201ff",
        "02020080",
        "0202ff7f",
        "0101ff",
        "010100",
        "0500",
        "030100",
        "03020180",
        "0400",
        "0603550403",
        "0a0101",
        "3000",
        "3100",
        "30030101ff",
        "a003020105",
        "8000",
        "0c0161",
        "170d3236303130313030303030305a",
        "30060201008101ff",
    };
    struct bk_err err;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        ok(walk(good[i], &err), &err);
}

static void
walk_refuses_what_is_not_der(void **state)
{
    static const struct {
        const char *hex;
        const char *why;
    } bad[] = {
        {"", "empty"},
        {"02", "cut short"},
        {"0201", "longer than what holds it"},
        {"0282", "cut short"},
        {"04820100", "longer than what holds it"},
        {"30800000", "indefinite length"},
        {"0481017f", "not minimal"},
        {"048200017f", "not minimal"},
        {"0485000000000100", "more than four octets"},
        {"04ff", "more than four octets"},
        {"1f8101020100", "high tag number"},
        {"bf8101020100", "high tag number"},
        {"0200", "INTEGER without content"},
        {"0a00", "INTEGER without content"},
        {"0202007f", "INTEGER that is not minimal"},
        {"0202ff80", "INTEGER that is not minimal"},
        {"0a020001", "INTEGER that is not minimal"},
        {"0100", "BOOLEAN"},
        {"010101", "BOOLEAN"},
        {"01020000", "BOOLEAN"},
        {"0300", "BIT STRING"},
        {"030101", "BIT STRING"},
        {"03020880", "BIT STRING"},
        {"03020181", "BIT STRING"},
        {"050100", "NULL"},
        {"0600", "OBJECT IDENTIFIER"},
        {"060180", "OBJECT IDENTIFIER"},
        {"06025581", "OBJECT IDENTIFIER"},
        {"0603558003", "OBJECT IDENTIFIER"},
        {"0000", "type or form"},
        {"2403040100", "type or form"},
        {"1000", "type or form"},
        {"1100", "type or form"},
        {"2800", "type or form"},
        {"0900", "type or form"},
        {"0201000500", "left over"},
        {"300000", "left over"},
        {"3003020100ff", "left over"},
        {"30020201", "longer than what holds it"},
        {"3003020200", "longer than what holds it"},
        {"a00430020203", "longer than what holds it"},
    };
    struct bk_err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        enum bk_code rc = walk(bad[i].hex, &err);

        if (rc != BK_E_FORMAT || strstr(err.message, bad[i].why) == NULL)
            fail_msg("%s: code %d, %s", bad[i].hex, (int)rc, rc == BK_OK ? "" : err.message);
    }
}

/* depth nested SEQUENCEs, the innermost empty */
static enum bk_code
walk_nested(size_t depth, struct bk_err *err)
{
    uint8_t *der = malloc(2 * depth);
    enum bk_code rc;

    assert_non_null(der);
    for (size_t i = 0; i < depth; i++) {
        der[2 * i] = 0x30;
        der[2 * i + 1] = (uint8_t)(2 * (depth - 1 - i));
    }
    rc = bk_der_walk(der, 2 * depth, "test", err);
    free(der);
    return rc;
}

/* A SEQUENCE of count - 1 NULLs. */
static enum bk_code
walk_many(size_t count, struct bk_err *err)
{
    size_t content = 2 * (count - 1), len = 4 + content;
    uint8_t *der = calloc(1, len);
    enum bk_code rc;

    assert_non_null(der);
    der[0] = 0x30;
    der[1] = 0x82;
    bk_put_u16(der + 2, (uint16_t)content);
    for (size_t i = 4; i < len; i += 2)
        der[i] = 0x05;
    rc = bk_der_walk(der, len, "test", err);
    free(der);
    return rc;
}

static void
walk_is_bounded(void **state)
{
    struct bk_err err;
    uint8_t *large = calloc(1, BK_DER_SIZE_MAX + 1);

    (void)state;
    ok(walk_nested(BK_DER_DEPTH_MAX, &err), &err);
    assert_int_equal(walk_nested(BK_DER_DEPTH_MAX + 1, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "too deep"));
    ok(walk_many(BK_DER_ELEMENTS_MAX, &err), &err);
    assert_int_equal(walk_many(BK_DER_ELEMENTS_MAX + 1, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "more elements than may be"));

    assert_non_null(large);
    memcpy(large, "\x04\x83\x0f\xff\xfb", 5);
    ok(bk_der_walk(large, BK_DER_SIZE_MAX, "test", &err), &err);
    memcpy(large, "\x04\x83\x0f\xff\xfc", 5);
    assert_int_equal(bk_der_walk(large, BK_DER_SIZE_MAX + 1, "test", &err), BK_E_FORMAT);
    free(large);
}

static void
element_length_is_of_the_first(void **state)
{
    struct bk_err err;
    size_t len, n = 0;
    uint8_t *der = exact("300302010005000000", &len);

    (void)state;
    ok(bk_der_element_length(der, len, &n, &err), &err);
    assert_int_equal(n, 5);
    assert_int_equal(bk_der_element_length(der, 4, &n, &err), BK_E_FORMAT);
    assert_int_equal(bk_der_element_length(der, 0, &n, &err), BK_E_FORMAT);
    assert_int_equal(n, 5);
    free(der);
}

/* A manifest with every type that the module uses. */
static asn1_node
new_manifest(void)
{
    const uint8_t zeros[32] = {0};
    uint8_t suite[BK_OWN_OID_LEN];
    struct bk_err err;
    asn1_node n = NULL;

    bk_own_oid(BK_OID_SUITE_1, suite);
    ok(bk_der_new("BkManifest", &n, &err), &err);
    ok(bk_der_put_u64(n, "version", 1, &err), &err);
    ok(bk_der_put_bytes(n, "archiveId", "0123456789abcdef", 16, &err), &err);
    ok(bk_der_put_bytes(n, "preambleDigest", zeros, 32, &err), &err);
    ok(bk_der_put_bytes(n, "envelopeDigest", "", 0, &err), &err);
    ok(bk_der_put_bytes(n, "recordDigest", zeros, 32, &err), &err);
    ok(bk_der_put_bytes(n, "suite", suite, sizeof suite, &err), &err);
    ok(bk_der_put_u64(n, "segmentCount", 0x80, &err), &err);
    ok(bk_der_put_u64(n, "plaintextLength", INT64_MAX, &err), &err);
    ok(bk_der_put_bytes(n, "payloadDigest", zeros, 32, &err), &err);
    ok(bk_der_put_time(n, "createdAt", 1767225600, &err), &err);
    ok(bk_der_put_u64(n, "kind", 2, &err), &err);
    ok(bk_der_put_absent(n, "parent", &err), &err);
    ok(bk_der_put_bytes(n, "sequence", "a=b", 3, &err), &err);
    ok(bk_der_put_absent(n, "retainUntil", &err), &err);
    ok(bk_der_put_bytes(n, "label", "caf\xc3\xa9", 5, &err), &err);
    ok(bk_der_put_absent(n, "policyDigest", &err), &err);
    ok(bk_der_put_absent(n, "producer", &err), &err);
    ok(bk_der_put_bytes(n, "supersedes.archiveId", "fedcba9876543210", 16, &err), &err);
    ok(bk_der_put_bytes(n, "supersedes.manifestDigest", zeros, 32, &err), &err);
    return n;
}

static void
check_manifest(asn1_node n, const struct bk_buf *der)
{
    struct bk_err err;
    uint8_t bytes[32];
    char text[16];
    size_t len = 0, start = 0, end = 0;
    uint64_t v = 0;
    time_t t = 0;

    ok(bk_der_get_u64(n, "segmentCount", &v, &err), &err);
    assert_int_equal(v, 0x80);
    ok(bk_der_get_u64(n, "plaintextLength", &v, &err), &err);
    assert_true(v == INT64_MAX);
    ok(bk_der_get_u64(n, "kind", &v, &err), &err);
    assert_int_equal(v, 2);
    ok(bk_der_get_fixed(n, "archiveId", bytes, 16, &err), &err);
    assert_memory_equal(bytes, "0123456789abcdef", 16);
    assert_int_equal(bk_der_get_fixed(n, "archiveId", bytes, 17, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "archiveId: 16 bytes, not 17"));
    ok(bk_der_get_bytes(n, "envelopeDigest", bytes, sizeof bytes, &len, &err), &err);
    assert_int_equal(len, 0);
    assert_int_equal(bk_der_get_bytes(n, "payloadDigest", bytes, 31, &len, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "payloadDigest: 32 bytes, at most 31"));
    ok(bk_der_get_time(n, "createdAt", &t, &err), &err);
    assert_int_equal(t, 1767225600);
    ok(bk_der_get_text(n, "label", text, 6, &err), &err);
    assert_string_equal(text, "caf\xc3\xa9");
    assert_int_equal(bk_der_get_text(n, "label", text, 5, &err), BK_E_FORMAT);
    assert_true(bk_der_has(n, "label") && bk_der_has(n, "supersedes") && bk_der_has(n, "version"));
    assert_false(bk_der_has(n, "parent") || bk_der_has(n, "retainUntil") || bk_der_has(n, "nothing"));
    assert_int_equal(bk_der_get_time(n, "retainUntil", &t, &err), BK_E_FORMAT);
    assert_string_equal(err.message, "retainUntil: missing");
    ok(bk_der_span(n, "archiveId", der->data, der->len, &start, &end, &err), &err);
    assert_int_equal(end - start, 18);
    assert_memory_equal(der->data + start,
                        "\x04\x10"
                        "0123456789abcdef",
                        18);
}

static void
every_type_goes_round(void **state)
{
    struct bk_err err;
    struct bk_buf der = {0};
    asn1_node made = new_manifest(), n = NULL;

    (void)state;
    ok(bk_buf_append(&der, "before", 6, &err), &err);
    ok(bk_der_encode(made, &der, &err), &err);
    bk_der_free(made);
    assert_memory_equal(der.data, "before", 6);
    memmove(der.data, der.data + 6, der.len -= 6);
    ok(bk_der_decode("BkManifest", der.data, der.len, &n, &err), &err);
    check_manifest(n, &der);
    bk_der_free(n);
    bk_der_free(NULL);
    bk_buf_free(&der);
}

/* Each must be refused, or mean exactly the bytes that it is (bk_der_decode re-encodes): here we ask for no crash. */
static void
every_truncation_and_bit_flip_is_survived(void **state)
{
    struct bk_err err;
    struct bk_buf der = {0};
    asn1_node made = new_manifest(), n = NULL;
    size_t accepted = 0;

    (void)state;
    ok(bk_der_encode(made, &der, &err), &err);
    bk_der_free(made);
    for (size_t len = 0; len < der.len; len++) {
        uint8_t *cut = malloc(len > 0 ? len : 1);

        assert_non_null(cut);
        memcpy(cut, der.data, len);
        assert_int_equal(bk_der_decode("BkManifest", cut, len, &n, &err), BK_E_FORMAT);
        assert_null(n);
        free(cut);
    }
    for (size_t bit = 0; bit < 8 * der.len; bit++) {
        der.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (bk_der_decode("BkManifest", der.data, der.len, &n, &err) == BK_OK) {
            accepted++;
            bk_der_free(n);
            n = NULL;
        }
        der.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    /* the bits of digests and identifiers are free */
    assert_true(accepted >= 8 * (5 * 32));
    bk_buf_free(&der);
}

static enum bk_code
decode_hex(const char *type, const char *hex, asn1_node *n, struct bk_err *err)
{
    size_t len;
    uint8_t *der = exact(hex, &len);
    enum bk_code rc = bk_der_decode(type, der, len, n, err);

    free(der);
    return rc;
}

static void
decode_refuses_what_the_module_does_not_say(void **state)
{
    struct bk_err err;
    asn1_node n = NULL;

    (void)state;
    ok(decode_hex("KeyIds", "3006040161040162", &n, &err), &err);
    bk_der_free(n);
    n = NULL;
    assert_int_equal(decode_hex("KeyIds", "3006040161020101", &n, &err), BK_E_FORMAT);
    assert_int_equal(decode_hex("KeyIds", "3106040161040162", &n, &err), BK_E_FORMAT);
    /* a SET OF out of order decodes, and does not encode the same way */
    assert_int_equal(decode_hex("AttributeValues", "3106020102020101", &n, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "not the DER encoding"));
    ok(decode_hex("AttributeValues", "3106020101020102", &n, &err), &err);
    bk_der_free(n);
    n = NULL;
    /* what stands in an ANY is walked as well */
    assert_int_equal(decode_hex("AttributeValues", "310630040202007f", &n, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "INTEGER that is not minimal"));
    assert_int_equal(decode_hex("NoSuchType", "3000", &n, &err), BK_E_INTERNAL);
    assert_null(n);
}

static void
numbers_have_63_bits(void **state)
{
    static const struct {
        const char *number;
        enum bk_code code;
        uint64_t value;
    } cases[] = {
        {"020100", BK_OK, 0},
        {"02020100", BK_OK, 256},
        {"02087fffffffffffffff", BK_OK, INT64_MAX},
        {"0209008000000000000000", BK_E_FORMAT, 0},
        {"0201ff", BK_E_FORMAT, 0},
    };
    struct bk_err err;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t rest = 15; /* KeyWrap begins with an INTEGER: kekid, keyEncAlg and encryptedKey follow */
        char hex[128];
        asn1_node n = NULL;
        uint64_t v = 0;

        (void)snprintf(hex, sizeof hex, "30%02zx%s%s", strlen(cases[i].number) / 2 + rest, cases[i].number,
                       "3006040461626364"
                       "3003060155"
                       "0400");
        ok(decode_hex("KeyWrap", hex, &n, &err), &err);
        assert_int_equal(bk_der_get_u64(n, "version", &v, &err), cases[i].code);
        assert_true(v == cases[i].value);
        bk_der_free(n);
    }
}

static void
lists_grow_and_are_counted(void **state)
{
    struct bk_err err;
    struct bk_buf der = {0};
    asn1_node n = NULL;
    size_t count = 99;
    char choice[16];

    (void)state;
    ok(bk_der_new("BkHeader", &n, &err), &err);
    ok(bk_der_count(n, "content.recipientInfos", &count, &err), &err);
    assert_int_equal(count, 0);
    ok(bk_der_put_new(n, "content.recipientInfos", &err), &err);
    ok(bk_der_put_bytes(n, "content.recipientInfos.?LAST", "\xa4\x00", 2, &err), &err);
    ok(bk_der_put_new(n, "content.recipientInfos", &err), &err);
    ok(bk_der_put_bytes(n, "content.recipientInfos.?LAST", "\x30\x00", 2, &err), &err);
    ok(bk_der_count(n, "content.recipientInfos", &count, &err), &err);
    assert_int_equal(count, 2);
    ok(bk_der_get_buf(n, "content.recipientInfos.?1", &der, &err), &err);
    assert_int_equal(der.len, 2);
    assert_memory_equal(der.data, "\xa4\x00", 2);
    assert_int_equal(bk_der_count(n, "content.nothing", &count, &err), BK_E_FORMAT);
    /* what is not filled cannot be encoded, and nothing is appended */
    assert_int_equal(bk_der_encode(n, &der, &err), BK_E_INTERNAL);
    assert_int_equal(der.len, 2);
    bk_der_free(n);
    n = NULL;
    ok(bk_der_new("RecipientInfo", &n, &err), &err);
    ok(bk_der_put_text(n, "", "kekri", &err), &err);
    ok(bk_der_get_text(n, "", choice, sizeof choice, &err), &err);
    assert_string_equal(choice, "kekri");
    assert_int_equal(bk_der_put_text(n, "", "other", &err), BK_E_INTERNAL);
    bk_der_free(n);
    bk_buf_free(&der);
}

static void
bit_strings_are_counted_in_bytes(void **state)
{
    struct bk_err err;
    struct bk_buf der = {0};
    asn1_node n = NULL;
    uint8_t bytes[8];
    size_t len = 0;
    const struct bk_encoding alg = bk_alg_ec_public();

    (void)state;
    ok(bk_der_new("OriginatorKey", &n, &err), &err);
    ok(bk_der_put_bytes(n, "algorithm", alg.der, alg.len, &err), &err);
    ok(bk_der_put_bytes(n, "publicKey",
                        "\x04"
                        "abc",
                        4, &err),
       &err);
    ok(bk_der_encode(n, &der, &err), &err);
    bk_der_free(n);
    n = NULL;
    assert_memory_equal(der.data + der.len - 7,
                        "\x03\x05\x00\x04"
                        "abc",
                        7);
    ok(bk_der_decode("OriginatorKey", der.data, der.len, &n, &err), &err);
    ok(bk_der_get_bytes(n, "publicKey", bytes, 4, &len, &err), &err);
    assert_int_equal(len, 4);
    assert_memory_equal(bytes,
                        "\x04"
                        "abc",
                        4);
    assert_int_equal(bk_der_get_bytes(n, "publicKey", bytes, 3, &len, &err), BK_E_FORMAT);
    bk_der_free(n);
    n = NULL;
    der.data[der.len - 5] = 1;
    der.data[der.len - 1] = 'b';
    ok(bk_der_decode("OriginatorKey", der.data, der.len, &n, &err), &err);
    assert_int_equal(bk_der_get_bytes(n, "publicKey", bytes, sizeof bytes, &len, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "whole number of bytes"));
    bk_der_free(n);
    bk_buf_free(&der);
}

static void
text_and_times_are_checked(void **state)
{
    struct bk_err err;
    struct bk_buf der = {0};
    asn1_node n = NULL;
    char text[64];
    time_t t = 0;
    uint8_t *at;

    (void)state;
    n = new_manifest();
    ok(bk_der_encode(n, &der, &err), &err);
    bk_der_free(n);
    n = NULL;
    at = memmem(der.data, der.len, "caf\xc3\xa9", 5);
    assert_non_null(at);
    at[1] = '\n';
    ok(bk_der_decode("BkManifest", der.data, der.len, &n, &err), &err);
    assert_int_equal(bk_der_get_text(n, "label", text, sizeof text, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "label: "));
    bk_der_free(n);
    n = NULL;
    at = memmem(der.data, der.len, "20260101000000Z", 15);
    assert_non_null(at);
    at[4] = '9';
    ok(bk_der_decode("BkManifest", der.data, der.len, &n, &err), &err);
    assert_int_equal(bk_der_get_time(n, "createdAt", &t, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "createdAt: "));
    bk_der_free(n);
    bk_buf_free(&der);
}

/* ---- algorithms ---- */

static void
schemes_have_one_encoding(void **state)
{
    (void)state;
    for (enum bk_scheme s = BK_SCHEME_RSA_OAEP_SHA256; s <= BK_SCHEME_LAST; s++) {
        const struct bk_encoding e = bk_alg_of_scheme(s);
        struct bk_err err;

        if (s == BK_SCHEME_AES_GCM) {
            assert_int_equal(e.len, 0);
            continue;
        }
        ok(bk_der_walk(e.der, e.len, "table", &err), &err);
        assert_int_equal(bk_alg_to_scheme(e.der, e.len), s);
        assert_int_equal(bk_alg_to_scheme(e.der, e.len - 1), BK_SCHEME_NONE);
        assert_false(bk_alg_forbidden(e.der, e.len));
    }
    assert_int_equal(bk_alg_of_scheme(BK_SCHEME_NONE).len, 0);
    for (enum bk_sig_alg a = BK_SIG_ECDSA_SHA256; a <= BK_SIG_RSA_PSS_SHA256; a++) {
        const struct bk_encoding e = bk_alg_of_signature(a);
        struct bk_err err;

        ok(bk_der_walk(e.der, e.len, "table", &err), &err);
        assert_int_equal(bk_alg_to_signature(e.der, e.len), a);
    }
    assert_int_equal(bk_alg_to_signature(bk_alg_sha256().der, bk_alg_sha256().len), BK_SIG_NONE);
}

static void
gcm_has_a_nonce_in_its_encoding(void **state)
{
    static const char *const others[] = {
        "301e060960864801650304012e3011040c000102030405060708090a0b02010f",   /* a tag of 15 bytes */
        "301b060960864801650304012e300e040c000102030405060708090a0b",         /* of 12, the default */
        "301f060960864801650304012e3012040d000102030405060708090a0b0c020110", /* a nonce of 13 */
        "301e060960864801650304012a3011040c000102030405060708090a0b020110",   /* AES-256-CBC */
        "300b060960864801650304012e",
    };
    uint8_t nonce[BK_ALG_GCM_NONCE] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    uint8_t der[BK_ALG_GCM_LEN];
    char hex[2 * BK_ALG_GCM_LEN + 1];
    struct bk_err err;

    (void)state;
    bk_alg_gcm(nonce, der);
    assert_string_equal(bk_hex(der, sizeof der, hex),
                        "301e060960864801650304012e3011040c000102030405060708090a0b020110");
    ok(bk_der_walk(der, sizeof der, "table", &err), &err);
    assert_memory_equal(bk_alg_gcm_nonce(der, sizeof der), nonce, sizeof nonce);
    assert_int_equal(bk_alg_to_scheme(der, sizeof der), BK_SCHEME_AES_GCM);
    assert_false(bk_alg_forbidden(der, sizeof der));
    assert_int_equal(bk_alg_of_scheme(BK_SCHEME_YUBIHSM_CCM).der[24], BK_OID_YUBIHSM_CCM);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        size_t len;
        uint8_t *other = exact(others[i], &len);

        assert_int_equal(bk_alg_to_scheme(other, len), BK_SCHEME_NONE);
        assert_null(bk_alg_gcm_nonce(other, len));
        free(other);
    }
}

static void
some_algorithms_are_never_accepted(void **state)
{
    static const struct {
        const char *hex;
        int forbidden;
    } cases[] = {
        {"300d06092a864886f70d0101010500", 1}, /* PKCS#1 v1.5 */
        {"300b06092a864886f70d010101", 1},     /* the same without NULL */
        {"3081"
         "0d"
         "06092a864886f70d0101010500",
         1}, /* whatever the length octets */
        {"301806092b8105108648"
         "3f0002300b060960864801650304012d",
         1}, /* stdDH with the SHA-1 KDF */
        {"301806092b8105108648"
         "3f0003300b060960864801650304012d",
         1},                                                                     /* cofactor DH with it */
        {"300d060960864801650304012d0500", 1},                                   /* id-aes256-wrap with NULL */
        {"300b06092a864886f70d010107", 1},                                       /* OAEP without parameters */
        {"301e06092a864886f70d0101073011a00f300d06096086480165030402010500", 1}, /* OAEP, SHA-256 with NULL */
        {"301a06092a864886f70d010107300da00b300906052b0e03021a0500", 1},         /* OAEP, SHA-1 written out */
        {"301c06092a864886f70d010107300fa00d300b0609608648016503040202", 0},     /* OAEP, SHA-384: later */
        {"300b0609608648016503040105", 0},                                       /* id-aes128-wrap: unknown */
        {"30190615"
         "6983dfbbb4fdda93aaa1ebaad0c199dbacd9b24f080500",
         1}, /* YubiHSM AES-CCM wrap with NULL */
        {"30170615"
         "6983dfbbb4fdda93aaa1ebaad0c199dbacd9b24f63",
         0}, /* an identifier of the project's own that is not assigned yet */
        {"3000", 0},
        {"", 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len;
        uint8_t *der = exact(cases[i].hex, &len);

        if (bk_alg_forbidden(der, len) != cases[i].forbidden)
            fail_msg("%s: expected %d", cases[i].hex, cases[i].forbidden);
        assert_int_equal(bk_alg_to_scheme(der, len), BK_SCHEME_NONE);
        free(der);
    }
}

static void
own_identifiers(void **state)
{
    uint8_t oid[BK_OWN_OID_LEN];
    char hex[2 * BK_OWN_OID_LEN + 1];
    struct bk_err err;

    (void)state;
    bk_own_oid(BK_OID_MANIFEST, oid);
    assert_string_equal(bk_hex(oid, sizeof oid, hex), "06156983dfbbb4fdda93aaa1ebaad0c199dbacd9b24f01");
    ok(bk_der_walk(oid, sizeof oid, "oid", &err), &err);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walk_accepts_der),
        cmocka_unit_test(walk_refuses_what_is_not_der),
        cmocka_unit_test(walk_is_bounded),
        cmocka_unit_test(element_length_is_of_the_first),
        cmocka_unit_test(every_type_goes_round),
        cmocka_unit_test(every_truncation_and_bit_flip_is_survived),
        cmocka_unit_test(decode_refuses_what_the_module_does_not_say),
        cmocka_unit_test(numbers_have_63_bits),
        cmocka_unit_test(lists_grow_and_are_counted),
        cmocka_unit_test(bit_strings_are_counted_in_bytes),
        cmocka_unit_test(text_and_times_are_checked),
        cmocka_unit_test(schemes_have_one_encoding),
        cmocka_unit_test(gcm_has_a_nonce_in_its_encoding),
        cmocka_unit_test(some_algorithms_are_never_accepted),
        cmocka_unit_test(own_identifiers),
    };

    return cmocka_run_group_tests_name("der", tests, NULL, NULL);
}
