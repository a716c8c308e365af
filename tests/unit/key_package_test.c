/* format/key_package.c: sealing and opening, byte-compatible with BkKeyPackage in bk.asn; what is refused, and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "base/secret.h"
#include "format/algorithms.h"
#include "format/der.h"
#include "format/key_package.h"
#include "format/manifest.h"

#define PLAIN_MAX (128 * 1024)

static const uint8_t ARCHIVE[BK_UUID_LEN] = {0x01, 0x93, 0x5C, 0x00, 0x11, 0x22, 0x7A, 0xBC, 0x80, 1, 2, 3, 4, 5, 6, 7};

static void
ok(enum bk_code rc, const struct bk_err *err)
{
    if (rc != BK_OK)
        fail_msg("code %d: %s", (int)rc, err->message);
}

/* Fails with that code, and says that; every message names the layer first. */
static void
refused(enum bk_code rc, enum bk_code code, const char *why, const struct bk_err *err)
{
    if (rc != code || strstr(err->message, why) == NULL || strncmp(err->message, "key package: ", 13) != 0)
        fail_msg("code %d: %s; expected %d: %s", (int)rc, rc == BK_OK ? "" : err->message, (int)code, why);
}

/* The content encryption, a second time and by other means than the code under test. */
static size_t
gcm(int sealing, const struct bk_secret *cek, struct bk_envelope *e, const uint8_t *in, size_t len, uint8_t *out)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0, end = 0;

    assert_int_equal(EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, cek->data, e->nonce, sealing), 1);
    if (!sealing)
        assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, BK_GCM_TAG, e->mac), 1);
    assert_int_equal(EVP_CipherUpdate(ctx, out, &n, in, (int)len), 1);
    assert_int_equal(EVP_CipherFinal_ex(ctx, out + n, &end), 1);
    if (sealing)
        assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, BK_GCM_TAG, e->mac), 1);
    EVP_CIPHER_CTX_free(ctx);
    return (size_t)n;
}

static size_t
plaintext_of(const struct bk_secret *cek, struct bk_envelope *e, uint8_t out[PLAIN_MAX])
{
    return gcm(0, cek, e, e->content.data, e->content.len, out);
}

static void
seal_bytes(const struct bk_secret *cek, const uint8_t *plain, size_t len, struct bk_envelope *e)
{
    struct bk_err err;
    uint8_t *at;

    bk_envelope_free(e);
    ok(bk_buf_extend(&e->content, len, &at, &err), &err);
    (void)gcm(1, cek, e, plain, len, at);
}

static void
make_package(struct bk_key_package *k, size_t signers, size_t items)
{
    static const struct bk_metadata_item samples[] = {{"database", "orders"}, {"host", "db-7"}, {"note", ""}};
    struct bk_err err;

    memset(k, 0, sizeof *k);
    memcpy(k->archive_id, ARCHIVE, sizeof ARCHIVE);
    ok(bk_secret_random(&k->file_key, 32, &err), &err);
    for (size_t i = 0; i < signers; i++) {
        memset(k->signers[i].bytes, (int)(0xF0 - i * 0x20), BK_SKI_LEN);
        k->signers[i].len = BK_SKI_LEN;
    }
    k->signer_count = signers;
    if (items > 0)
        k->metadata = calloc(items, sizeof *k->metadata);
    for (size_t i = 0; i < items; i++)
        k->metadata[i] = samples[i % 3];
    k->metadata_count = items;
}

struct fixture {
    struct bk_secret cek;
    struct bk_key_package k, out;
    struct bk_envelope e;
    struct bk_err err;
    uint8_t plain[PLAIN_MAX];
};

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    if (f == NULL || bk_secret_random(&f->cek, BK_CEK_LEN, &f->err) != BK_OK)
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
    bk_key_package_free(&f->out);
    bk_envelope_free(&f->e);
    free(f);
    return 0;
}

static void
goes_round(void **state)
{
    struct fixture *f = *state;
    static const size_t shapes[][2] = {{1, 0}, {1, 3}, {4, 0}, {4, 200}};

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        make_package(&f->k, shapes[i][0], shapes[i][1]);
        ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
        ok(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), &f->err);
        assert_true(bk_secret_equal(&f->k.file_key, &f->out.file_key));
        assert_memory_equal(f->out.archive_id, ARCHIVE, sizeof ARCHIVE);
        assert_int_equal(f->out.signer_count, f->k.signer_count);
        for (size_t s = 0; s < f->k.signer_count; s++) {
            assert_true(bk_key_id_equal(&f->out.signers[s], &f->k.signers[s]));
            assert_true(s == 0 || memcmp(f->out.signers[s - 1].bytes, f->out.signers[s].bytes, BK_SKI_LEN) < 0);
        }
        assert_int_equal(f->out.metadata_count, f->k.metadata_count);
        for (size_t m = 0; m < f->k.metadata_count; m++) {
            assert_string_equal(f->out.metadata[m].key, f->k.metadata[m].key);
            assert_string_equal(f->out.metadata[m].value, f->k.metadata[m].value);
        }
        bk_key_package_free(&f->k);
        bk_key_package_free(&f->out);
    }
}

static void
is_what_the_module_says(void **state)
{
    struct fixture *f = *state;
    uint8_t suite[BK_OWN_OID_LEN], bytes[BK_OWN_OID_LEN + 32];
    asn1_node n = NULL;
    char text[16];
    size_t len = 0;
    uint64_t version = 0;

    make_package(&f->k, 2, 3);
    ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
    len = plaintext_of(&f->cek, &f->e, f->plain);
    ok(bk_der_decode("BkKeyPackage", f->plain, len, &n, &f->err), &f->err);
    ok(bk_der_get_u64(n, "version", &version, &f->err), &f->err);
    assert_int_equal(version, 1);
    bk_own_oid(BK_OID_SUITE_1, suite);
    ok(bk_der_get_fixed(n, "suite", bytes, sizeof suite, &f->err), &f->err);
    assert_memory_equal(bytes, suite, sizeof suite);
    ok(bk_der_get_fixed(n, "fileKey", bytes, 32, &f->err), &f->err);
    assert_memory_equal(bytes, f->k.file_key.data, 32);
    ok(bk_der_get_fixed(n, "signers.?2", bytes, BK_SKI_LEN, &f->err), &f->err);
    assert_int_equal(bytes[0], 0xF0);
    ok(bk_der_get_text(n, "metadata.?2.value", text, sizeof text, &f->err), &f->err);
    assert_string_equal(text, "db-7");
    bk_der_free(n);
}

static void
nonces_are_fresh_and_old_content_goes(void **state)
{
    struct fixture *f = *state;
    uint8_t nonce[BK_GCM_NONCE];

    make_package(&f->k, 1, 0);
    ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
    memcpy(nonce, f->e.nonce, sizeof nonce);
    ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
    assert_memory_not_equal(nonce, f->e.nonce, sizeof nonce);
    ok(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), &f->err);
}

static void
wrong_key_damage_and_other_archive(void **state)
{
    struct fixture *f = *state;
    uint8_t other[BK_UUID_LEN];

    make_package(&f->k, 1, 1);
    ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
    memcpy(other, ARCHIVE, sizeof other);
    other[15] ^= 1;
    refused(bk_key_package_open(&f->e, &f->cek, other, &f->out, &f->err), BK_E_VERIFY, "envelope of another archive",
            &f->err);
    f->e.content.data[5] ^= 1;
    refused(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), BK_E_VERIFY, "does not open", &f->err);
    f->e.content.data[5] ^= 1;
    f->e.mac[15] ^= 0x80;
    refused(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), BK_E_VERIFY, "does not open", &f->err);
    f->e.mac[15] ^= 0x80;
    f->cek.data[31] ^= 1;
    refused(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), BK_E_VERIFY, "does not open", &f->err);
    f->cek.data[31] ^= 1;
    assert_null(f->out.file_key.data);
    ok(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), &f->err);
}

static void
callers_mistakes(void **state)
{
    struct fixture *f = *state;
    struct bk_secret none = {0};

    make_package(&f->k, 2, 0);
    f->k.signers[1] = f->k.signers[0];
    refused(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), BK_E_USAGE, "named twice", &f->err);
    f->k.signer_count = 0;
    refused(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), BK_E_USAGE, "0 signers", &f->err);
    f->k.signer_count = 5;
    refused(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), BK_E_USAGE, "5 signers", &f->err);
    f->k.signer_count = 1;
    f->k.signers[0].len = 19;
    refused(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), BK_E_USAGE, "19 bytes", &f->err);
    f->k.signers[0].len = 20;
    f->k.archive_id[6] = 0x4A;
    refused(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), BK_E_INTERNAL, "version 7", &f->err);
    f->k.archive_id[6] = 0x7A;
    refused(bk_key_package_seal(&f->k, &none, &f->e, &f->err), BK_E_INTERNAL, "32 bytes", &f->err);
    refused(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), BK_E_INTERNAL, "no content", &f->err);
    assert_null(f->e.content.data);
}

/* One item whose DER makes the metadata element exactly total bytes long. */
static char *
long_value(size_t total)
{
    /* [0] and SEQUENCE and the value have headers of 4 bytes, the key "k" takes 3 */
    size_t len = total - 4 - 4 - 3 - 4;
    char *value = malloc(len + 1);

    assert_non_null(value);
    memset(value, 'x', len);
    /* characters of two bytes, at odd places, across the bounds at which text is checked */
    for (size_t i = 1001; i + 2 < len && i < 60000; i += 2)
        memcpy(value + i, "\xc3\xa9", 2);
    value[len] = '\0';
    return value;
}

static void
metadata_of_64_kib_and_no_more(void **state)
{
    struct fixture *f = *state;
    char *value = long_value(BK_METADATA_MAX);

    make_package(&f->k, BK_SIGNERS_MAX, 1);
    f->k.metadata[0] = (struct bk_metadata_item){"k", value};
    ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
    assert_true(f->e.content.len > BK_METADATA_MAX && f->e.content.len <= BK_KEY_PACKAGE_MAX);
    ok(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), &f->err);
    assert_string_equal(f->out.metadata[0].value, value);
    free(value);

    value = long_value(BK_METADATA_MAX + 1);
    f->k.metadata[0].value = value;
    refused(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), BK_E_USAGE, "at most 65536", &f->err);
    free(value);
}

static void
more_elements_than_der_may_have(void **state)
{
    struct fixture *f = *state;
    const size_t most = (BK_DER_ELEMENTS_MAX - 11) / 3;

    make_package(&f->k, BK_SIGNERS_MAX, most + 1);
    for (size_t i = 0; i <= most; i++)
        f->k.metadata[i] = (struct bk_metadata_item){"k", "v"};
    refused(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), BK_E_USAGE, "items of private metadata", &f->err);
    f->k.metadata_count--;
    ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
    ok(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), &f->err);
    assert_int_equal(f->out.metadata_count, most);
}

static void
text_that_is_refused(void **state)
{
    struct fixture *f = *state;
    char long_key[BK_TEXT_MAX + 2];
    memset(long_key, 'k', sizeof long_key - 1);
    long_key[sizeof long_key - 1] = '\0';
    const struct bk_metadata_item bad[] = {
        {"a\nb", "v"}, {"k", "a\tb"}, {"k", "\x7f"}, {"k", "\xc2\x85"},
        {"k", "\xff"}, {"k", "\xc3"}, {"", "v"},     {long_key, "v"},
    };

    make_package(&f->k, 1, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        f->k.metadata[0] = bad[i];
        refused(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), BK_E_USAGE, "item 1 of the private metadata",
                &f->err);
    }
}

/* Opens plain, changed at one place, under a tag that holds. */
static enum bk_code
open_changed(struct fixture *f, size_t len, size_t at, uint8_t value)
{
    uint8_t before = f->plain[at];

    f->plain[at] = value;
    seal_bytes(&f->cek, f->plain, len, &f->e);
    f->plain[at] = before;
    return bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err);
}

static size_t
find(const struct fixture *f, size_t len, const void *what, size_t what_len)
{
    const uint8_t *at = memmem(f->plain, len, what, what_len);

    assert_non_null(at);
    return (size_t)(at - f->plain);
}

static void
content_that_is_no_key_package(void **state)
{
    struct fixture *f = *state;
    size_t len, at;

    make_package(&f->k, 2, 2);
    ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
    len = plaintext_of(&f->cek, &f->e, f->plain);
    at = find(f, len, "\x02\x01\x01\x04\x10", 5);
    refused(open_changed(f, len, at + 2, 2), BK_E_NEWER, "version 2", &f->err);
    refused(open_changed(f, len, at + 2, 0), BK_E_FORMAT, "version", &f->err);
    refused(open_changed(f, len, at + 4, 0x0F), BK_E_FORMAT, "", &f->err);
    at = find(f, len, "\x06\x15", 2);
    refused(open_changed(f, len, at + 22, 0x0A), BK_E_NEWER, "cipher suite", &f->err);
    at = find(f, len, "\x04\x14\xd0", 3);
    refused(open_changed(f, len, at + 2, 0xF1), BK_E_FORMAT, "not sorted", &f->err);
    memset(f->plain + at + 2, 0xF0, BK_SKI_LEN);
    refused(open_changed(f, len, at + 2, 0xF0), BK_E_FORMAT, "stands twice", &f->err);
    memset(f->plain + at + 2, 0xD0, BK_SKI_LEN);
    at = find(f, len, "orders", 6);
    refused(open_changed(f, len, at, '\0'), BK_E_FORMAT, "item 1 of the private metadata", &f->err);
    refused(open_changed(f, len, at + 2, 0x1B), BK_E_FORMAT, "item 1 of the private metadata", &f->err);
    seal_bytes(&f->cek, f->plain, len + 1, &f->e);
    refused(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), BK_E_FORMAT, "left over", &f->err);
}

/* Metadata that is present and empty, signers of none and of five. */
static void
lists_that_are_refused(void **state)
{
    struct fixture *f = *state;
    size_t len, at;

    make_package(&f->k, 1, 0);
    ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
    len = plaintext_of(&f->cek, &f->e, f->plain);
    f->plain[len] = 0xA0;
    f->plain[len + 1] = 0;
    at = 1;
    assert_true(f->plain[1] + 2u == len);
    refused(open_changed(f, len + 2, at, (uint8_t)len), BK_E_FORMAT, "empty", &f->err);
    f->plain[len] = 0x05;
    refused(open_changed(f, len + 2, at, (uint8_t)len), BK_E_FORMAT, "bad private metadata", &f->err);

    len -= 22; /* the only signer, the last element */
    f->plain[1] = (uint8_t)(len - 2);
    refused(open_changed(f, len, len - 1, 0), BK_E_FORMAT, "no signers", &f->err);

    for (size_t i = 0; i < 5; i++) {
        f->plain[len + 22 * i] = 0x04;
        f->plain[len + 22 * i + 1] = 0x14;
        memset(f->plain + len + 22 * i + 2, (int)i, BK_SKI_LEN);
    }
    memmove(f->plain + 3, f->plain + 2, len - 2 + 5 * 22);
    f->plain[1] = 0x81;
    f->plain[2] = (uint8_t)(len - 2 + 5 * 22);
    refused(open_changed(f, len + 1 + 5 * 22, len, 5 * 22), BK_E_FORMAT, "more than 4 signers", &f->err);
}

/* What still opens must mean the very bytes that it was. */
static void
check_canonical(struct fixture *f, const uint8_t *plain, size_t len)
{
    static uint8_t again[PLAIN_MAX];
    enum bk_code rc = bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err);

    if (rc != BK_OK) {
        assert_true(bk_code_is_verification(rc));
        return;
    }
    ok(bk_key_package_seal(&f->out, &f->cek, &f->e, &f->err), &f->err);
    assert_int_equal(plaintext_of(&f->cek, &f->e, again), len);
    assert_memory_equal(again, plain, len);
    bk_key_package_free(&f->out);
}

static void
every_truncation_and_bit_flip(void **state)
{
    struct fixture *f = *state;
    size_t len;

    make_package(&f->k, 2, 2);
    ok(bk_key_package_seal(&f->k, &f->cek, &f->e, &f->err), &f->err);
    len = plaintext_of(&f->cek, &f->e, f->plain);
    for (size_t cut = 1; cut < len; cut++) {
        seal_bytes(&f->cek, f->plain, cut, &f->e);
        assert_int_equal(bk_key_package_open(&f->e, &f->cek, ARCHIVE, &f->out, &f->err), BK_E_FORMAT);
    }
    for (size_t bit = 0; bit < 8 * len; bit++) {
        f->plain[bit / 8] ^= (uint8_t)(1u << bit % 8);
        seal_bytes(&f->cek, f->plain, len, &f->e);
        check_canonical(f, f->plain, len);
        f->plain[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void
free_is_safe_on_nothing(void **state)
{
    struct bk_key_package k = {0};

    (void)state;
    bk_key_package_free(&k);
    bk_key_package_free(&k);
    assert_null(k.metadata);
}

static int
group_setup(void **state)
{
    struct bk_err err;
    int locked;

    (void)state;
    return bk_secret_init(&locked, &err) == BK_OK ? 0 : -1;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(goes_round, setup, teardown),
        cmocka_unit_test_setup_teardown(is_what_the_module_says, setup, teardown),
        cmocka_unit_test_setup_teardown(nonces_are_fresh_and_old_content_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_key_damage_and_other_archive, setup, teardown),
        cmocka_unit_test_setup_teardown(callers_mistakes, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_of_64_kib_and_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(more_elements_than_der_may_have, setup, teardown),
        cmocka_unit_test_setup_teardown(text_that_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(content_that_is_no_key_package, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_that_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(every_truncation_and_bit_flip, setup, teardown),
        cmocka_unit_test(free_is_safe_on_nothing),
    };

    return cmocka_run_group_tests_name("key package", tests, group_setup, NULL);
}
