/* RSA keys that may unwrap and not decrypt, and bare RSA for modules that do not know the hash of OAEP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/x509.h>

#include "tests/support/mock_token.h"

/* One RSA key for all tests, since making it takes a while. */
static EVP_PKEY *the_rsa;

static int
setup(void **state)
{
    int locked = 0;

    (void)state;
    the_rsa = EVP_RSA_gen(2048);
    return the_rsa != NULL && bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    EVP_PKEY_free(the_rsa);
    return 0;
}

static void
rsa_start(struct bench *b, int decrypts, int unwraps, int raw_rsa)
{
    bench_start(b, DRAWS);
    put_key(CKK_RSA, 0, decrypts, 0);
    mock.unwraps = unwraps != 0;
    mock.rsa = the_rsa;
    assert_int_equal(EVP_PKEY_up_ref(the_rsa), 1);
    b->p->options.raw_rsa = raw_rsa;
}

/* A key as p11_key_find gives it: not tried. */
static struct bk_key *
find_key(struct bench *b)
{
    struct bk_public pub = {0};
    struct bk_key *key = NULL;
    uint8_t *spki = NULL;
    size_t which = 0;
    int len = i2d_PUBKEY(the_rsa, &spki);

    assert_int_equal(bk_public_from_spki(&pub, spki, (size_t)len, NULL), BK_OK);
    assert_int_equal(p11_token_find_key(b->token, &b->uri, P11_USE_UNWRAP, &pub.id, 1, &which, &key, NULL), BK_OK);
    assert_non_null(key);
    bk_public_free(&pub);
    OPENSSL_free(spki);
    return key;
}

static void
wrap_for(struct bk_key *key, enum bk_scheme scheme, struct bk_secret *cek, struct bk_wrapped *w)
{
    key->pub.scheme = scheme;
    assert_int_equal(bk_secret_random(cek, BK_CEK_LEN, NULL), BK_OK);
    assert_int_equal(bk_public_wrap(&key->pub, cek, w, NULL), BK_OK);
}

/* Keys with CKA_UNWRAP and without CKA_DECRYPT: a session object that may be read. */
static void
rsa_opens_by_unwrapping(void **state)
{
    (void)state;
    for (int needs_len = 0; needs_len < 2; needs_len++) {
        struct bench b;
        struct bk_key *key;
        struct bk_secret cek = {0}, opened = {0};
        struct bk_wrapped w = {0};

        rsa_start(&b, 0, 1, 0);
        mock.sha256 = 1;
        mock.needs_len = needs_len;
        assert_int_equal(p11_token_open_key(b.token, &b.uri, P11_USE_UNWRAP, &key, NULL), BK_OK);
        assert_int_equal(key->pub.scheme, BK_SCHEME_RSA_OAEP_SHA256);
        for (enum bk_scheme s = BK_SCHEME_RSA_OAEP_SHA256; s <= BK_SCHEME_RSA_OAEP_SHA1; s++) {
            wrap_for(key, s, &cek, &w);
            assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_OK);
            assert_true(bk_secret_equal(&cek, &opened));
            bk_secret_wipe(&opened);
            w.data[100] ^= 1;
            assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_E_VERIFY);
            assert_null(opened.data);
            bk_secret_wipe(&cek);
        }
        assert_int_equal(mock.raw_calls, 0);
        bk_key_close(key);
        bench_end(&b);
    }
}

static void
one_message(struct bk_key *key, const struct bk_wrapped *w)
{
    struct bk_secret opened = {0};
    struct bk_err err = {0};

    assert_int_equal(bk_key_unwrap(key, w, &opened, &err), BK_E_VERIFY);
    assert_string_equal(err.message, "token 'mock': the wrapped key is damaged or forged, or for another key");
    assert_null(opened.data);
}

static void
raw_rsa_opens_what_the_module_does_not_know(void **state)
{
    (void)state;
    for (int cuts = 0; cuts < 2; cuts++) {
        struct bench b;
        struct bk_key *key;
        struct bk_secret cek = {0}, opened = {0};
        struct bk_wrapped w = {0};

        rsa_start(&b, 1, 0, 1);
        mock.cuts_zeros = cuts;
        key = find_key(&b);
        wrap_for(key, BK_SCHEME_RSA_OAEP_SHA256, &cek, &w);
        assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_OK);
        assert_true(bk_secret_equal(&cek, &opened));
        assert_int_equal(mock.raw_calls, 1);
        bk_secret_wipe(&opened);
        for (size_t i = 0; i < w.len; i += 31) {
            w.data[i] ^= 0x10;
            one_message(key, &w);
            w.data[i] ^= 0x10;
        }
        memset(w.data, 0xFF, w.len); /* not below the modulus: it is the token that refuses */
        one_message(key, &w);
        memset(w.data, 0, w.len); /* opens to zeros */
        one_message(key, &w);
        bk_secret_wipe(&cek);
        bk_key_close(key);
        bench_end(&b);
    }
}

static void
raw_rsa_is_for_nothing_else(void **state)
{
    struct bench b;
    struct bk_key *key;
    struct bk_secret cek = {0}, opened = {0};
    struct bk_wrapped w = {0};
    struct bk_err err = {0};

    (void)state;
    /* not asked for */
    rsa_start(&b, 1, 0, 0);
    key = find_key(&b);
    wrap_for(key, BK_SCHEME_RSA_OAEP_SHA256, &cek, &w);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "CKR_ARGUMENTS_BAD"));
    assert_int_equal(mock.raw_calls, 0);
    bk_key_close(key);
    bench_end(&b);

    /* the module knows the hash: damage is no reason */
    rsa_start(&b, 1, 0, 1);
    mock.sha256 = 1;
    key = find_key(&b);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_OK);
    bk_secret_wipe(&opened);
    w.data[9] ^= 1;
    one_message(key, &w);
    w.data[9] ^= 1;
    assert_int_equal(mock.raw_calls, 0);
    bk_key_close(key);
    bench_end(&b);

    /* a key is not proven by it, since what is wrapped to it must open without */
    rsa_start(&b, 1, 0, 1);
    key = open_key(&b, P11_USE_UNWRAP);
    assert_int_equal(key->pub.scheme, BK_SCHEME_RSA_OAEP_SHA1);
    assert_int_equal(mock.raw_calls, 0);
    bk_key_close(key);
    bench_end(&b);

    /* the module does not do it */
    rsa_start(&b, 1, 0, 1);
    mock.raw_rv = CKR_MECHANISM_INVALID;
    key = find_key(&b);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, &err), BK_E_UNSUPPORTED);
    assert_null(opened.data);
    bk_secret_wipe(&cek);
    bk_key_close(key);
    bench_end(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rsa_opens_by_unwrapping),
        cmocka_unit_test(raw_rsa_opens_what_the_module_does_not_know),
        cmocka_unit_test(raw_rsa_is_for_nothing_else),
    };

    return cmocka_run_group_tests_name("p11_rsa", tests, setup, teardown);
}
