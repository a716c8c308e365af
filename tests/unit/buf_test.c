/* Do buffers, readers, digests, secrets and errors meet their headers in base/? */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/secret.h"

static void
test_buf_grows(void **state)
{
    struct bk_buf b = {0};
    uint8_t *at = NULL;
    uint8_t byte;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        byte = (uint8_t)(i * 7);
        assert_int_equal(bk_buf_append(&b, &byte, 1, NULL), BK_OK);
    }
    assert_int_equal(b.len, 5000);
    for (unsigned i = 0; i < 5000; i++)
        assert_int_equal(b.data[i], (uint8_t)(i * 7));
    assert_int_equal(bk_buf_append(&b, NULL, 0, NULL), BK_OK);
    assert_int_equal(bk_buf_extend(&b, 3, &at, NULL), BK_OK);
    assert_ptr_equal(at, b.data + 5000);
    assert_int_equal(b.len, 5003);
    assert_true(b.cap >= b.len);
    assert_int_equal(bk_buf_extend(&b, SIZE_MAX, &at, NULL), BK_E_NO_ROOM);
    assert_int_equal(bk_buf_extend(&b, SIZE_MAX / 2, &at, NULL), BK_E_NO_ROOM);
    assert_int_equal(b.len, 5003);
    bk_buf_free(&b);
    assert_null(b.data);
    bk_buf_free(&b);
    assert_int_equal(bk_buf_append(&b, NULL, 0, NULL), BK_OK);
    assert_non_null(b.data);
    assert_int_equal(b.len, 0);
    bk_buf_free(&b);
}

static void
test_big_endian(void **state)
{
    static const uint8_t want[14] = {0xfe, 0xdc, 0x89, 0xab, 0xcd, 0xef, 0xf1,
                                     0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    uint8_t out[14];

    (void)state;
    bk_put_u16(out, 0xfedc);
    bk_put_u32(out + 2, 0x89abcdef);
    bk_put_u64(out + 6, 0xf123456789abcdefull);
    assert_memory_equal(out, want, sizeof want);
    assert_int_equal(bk_get_u16(out), 0xfedc);
    assert_int_equal(bk_get_u32(out + 2), 0x89abcdef);
    assert_true(bk_get_u64(out + 6) == 0xf123456789abcdefull);
}

static void
test_reader_remembers_its_first_failure(void **state)
{
    static const uint8_t data[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct bk_reader r = bk_reader_over(data, sizeof data);

    (void)state;
    assert_int_equal(bk_read_u16(&r, "a"), 0x0102);
    assert_int_equal(bk_read_u32(&r, "b"), 0x03040506);
    assert_int_equal(bk_read_u32(&r, "c"), 0);
    assert_string_equal(r.failed, "c");
    assert_int_equal(r.pos, 6);
    assert_int_equal(bk_read_u16(&r, "d"), 0);
    assert_null(bk_read_bytes(&r, 1, "e"));
    bk_read_end(&r);
    assert_string_equal(r.failed, "c");

    r = bk_reader_over(data, sizeof data);
    assert_true(bk_read_u64(&r, "a") == 0x0102030405060708ull);
    bk_read_end(&r);
    assert_non_null(r.failed);
    r = bk_reader_over(data, sizeof data);
    assert_null(bk_read_bytes(&r, SIZE_MAX, "huge"));
    r = bk_reader_over(data, 0);
    bk_read_end(&r);
    assert_null(r.failed);
    assert_int_equal(bk_read_u64(&r, "none"), 0);
    assert_string_equal(r.failed, "none");
}

static void
test_reader_checks(void **state)
{
    uint8_t data[40] = "magic";
    struct bk_reader r;

    (void)state;
    bk_sha256(data, 8, data + 8);
    r = bk_reader_over(data, sizeof data);
    bk_read_magic(&r, "magic", 5);
    bk_read_zero(&r, 3, "zero");
    bk_read_sha256(&r, "sum");
    bk_read_end(&r);
    assert_null(r.failed);

    r = bk_reader_over(data, sizeof data);
    bk_read_magic(&r, "Magic", 5);
    assert_string_equal(r.failed, "magic");
    assert_int_equal(r.pos, 0);

    data[6] = 1;
    r = bk_reader_over(data, sizeof data);
    bk_read_magic(&r, "magic", 5);
    bk_read_zero(&r, 3, "zero");
    assert_string_equal(r.failed, "zero");
    assert_int_equal(r.pos, 6);

    r = bk_reader_over(data, sizeof data);
    (void)bk_read_bytes(&r, 8, "all");
    bk_read_sha256(&r, "sum");
    assert_string_equal(r.failed, "sum");
    r = bk_reader_over(data, 39);
    (void)bk_read_bytes(&r, 8, "all");
    bk_read_sha256(&r, "sum");
    assert_string_equal(r.failed, "sum");
}

static void
test_sha256(void **state)
{
    uint8_t a[BK_SHA256_LEN];
    uint8_t b[BK_SHA256_LEN];
    char hex[65];
    struct bk_sha256_ctx ctx;

    (void)state;
    /* FIPS 180-4 examples: one block, the empty message, two blocks */
    bk_sha256("abc", 3, a);
    assert_string_equal(bk_hex(a, 32, hex), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    bk_sha256("", 0, a);
    assert_string_equal(bk_hex(a, 32, hex), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    bk_sha256_2("abcdbcdecdefdefgefghfghi", 24, "ghijhijkijkljklmklmnlmnomnopnopq", 32, a);
    assert_string_equal(bk_hex(a, 32, hex), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    bk_sha256_start(&ctx);
    bk_sha256_add(&ctx, "a", 1);
    bk_sha256_add(&ctx, "", 0);
    bk_sha256_add(&ctx, "bc", 2);
    bk_sha256_end(&ctx, b);
    bk_sha256("abc", 3, a);
    assert_memory_equal(a, b, 32);
}

static void
test_hex(void **state)
{
    uint8_t bytes[4] = {0};
    char text[9];

    (void)state;
    assert_true(bk_unhex("00fF1a2B", bytes, 4));
    assert_string_equal(bk_hex(bytes, 4, text), "00ff1a2b");
    assert_string_equal(bk_hex(bytes, 0, text), "");
    assert_false(bk_unhex("00ff1a2", bytes, 4));
    assert_false(bk_unhex("00ff1a2b3", bytes, 4));
    assert_false(bk_unhex("00ff1a2b3c", bytes, 4));
    assert_false(bk_unhex("00ff1a2g", bytes, 4));
    assert_false(bk_unhex("00ff1a:b", bytes, 4));
    assert_false(bk_unhex("00ff1a`b", bytes, 4));
    assert_false(bk_unhex("00ff1a b", bytes, 4));
}

static void
test_secrets(void **state)
{
    struct bk_secret a = {0};
    struct bk_secret b = {0};
    struct bk_secret c = {0};
    uint8_t *was;

    (void)state;
    bk_secret_wipe(&a);
    assert_false(bk_secret_equal(&a, &b));
    assert_int_equal(bk_secret_alloc(&a, 0, NULL), BK_E_INTERNAL);
    assert_int_equal(bk_secret_alloc(&a, 32, NULL), BK_OK);
    for (size_t i = 0; i < 32; i++)
        assert_int_equal(a.data[i], 0);
    assert_int_equal(bk_secret_alloc(&a, 32, NULL), BK_E_INTERNAL);
    assert_int_equal(bk_secret_random(&b, 32, NULL), BK_OK);
    assert_false(bk_secret_equal(&a, &b));
    assert_int_equal(bk_secret_from(&c, b.data, 32, NULL), BK_OK);
    assert_true(bk_secret_equal(&b, &c));
    c.data[31] ^= 1;
    assert_false(bk_secret_equal(&b, &c));
    was = b.data;
    bk_secret_move(&a, &b);
    assert_ptr_equal(a.data, was);
    assert_null(b.data);
    assert_int_equal(b.len, 0);
    bk_secret_wipe(&a);
    bk_secret_wipe(&a);
    assert_null(a.data);
    bk_secret_wipe(&c);
    /* more than the arena has: refused, never taken from ordinary memory */
    assert_int_equal(bk_secret_alloc(&a, BK_SECRET_ARENA, NULL), BK_E_NO_ROOM);
    assert_null(a.data);
}

static void
test_errors(void **state)
{
    struct bk_err err = {.hint = "old", .layer = "old", .os_errno = 1};

    (void)state;
    assert_int_equal(bk_fail(&err, BK_E_FORMAT, "bad %s", "byte"), BK_E_FORMAT);
    assert_string_equal(err.message, "bad byte");
    assert_string_equal(err.hint, "");
    assert_null(err.layer);
    assert_int_equal(err.os_errno, 0);
    bk_err_prefix(&err, "slot %c", 'A');
    assert_string_equal(err.message, "slot A: bad byte");
    bk_err_hint(&err, "try %d", 1);
    assert_string_equal(err.hint, "try 1");
    bk_err_layer(&err, "slot");
    bk_err_layer(&err, "archive");
    assert_string_equal(err.layer, "slot");

    assert_int_equal(bk_fail_errno(&err, ENOENT, "open x"), BK_E_IO);
    assert_string_equal(err.message, "open x: No such file or directory");
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(bk_fail_errno(&err, ENOSPC, "write"), BK_E_NO_ROOM);
    assert_int_equal(bk_fail_errno(&err, EDQUOT, "write"), BK_E_NO_ROOM);
    assert_int_equal(bk_fail_errno(&err, ENOMEM, "write"), BK_E_NO_ROOM);
    assert_int_equal(bk_fail_nomem(&err), BK_E_NO_ROOM);
    assert_int_equal(bk_fail(NULL, BK_E_IO, "nobody listens"), BK_E_IO);
    assert_int_equal(bk_fail_errno(NULL, EIO, "nobody listens"), BK_E_IO);
    bk_err_prefix(NULL, "x");
    bk_err_hint(NULL, "x");
    bk_err_layer(NULL, "x");
}

static void
test_long_errors_are_cut_and_terminated(void **state)
{
    struct bk_err err = {0};
    char text[3000];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(bk_fail(&err, BK_E_IO, "%s", text), BK_E_IO);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    bk_err_prefix(&err, "first");
    assert_int_equal(strncmp(err.message, "first: xxx", 10), 0);
    bk_err_prefix(&err, "%s", text);
    assert_true(strlen(err.message) < sizeof err.message);
    assert_int_equal(bk_fail_errno(&err, EIO, "%s", text), BK_E_IO);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    bk_err_hint(&err, "%s", text);
    assert_int_equal(strlen(err.hint), sizeof err.hint - 1);
}

static void
test_verification_codes(void **state)
{
    (void)state;
    assert_true(bk_code_is_verification(BK_E_FORMAT));
    assert_true(bk_code_is_verification(BK_E_INCOMPLETE));
    assert_true(bk_code_is_verification(BK_E_NEWER));
    assert_true(bk_code_is_verification(BK_E_UNTRUSTED));
    assert_true(bk_code_is_verification(BK_E_UNEXPECTED));
    assert_false(bk_code_is_verification(BK_OK));
    assert_false(bk_code_is_verification(BK_E_USAGE));
    assert_false(bk_code_is_verification(BK_E_PIN));
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_grows),
        cmocka_unit_test(test_big_endian),
        cmocka_unit_test(test_reader_remembers_its_first_failure),
        cmocka_unit_test(test_reader_checks),
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_long_errors_are_cut_and_terminated),
        cmocka_unit_test(test_verification_codes),
    };
    int locked;

    if (bk_secret_init(&locked, NULL) != BK_OK)
        return 1;
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
