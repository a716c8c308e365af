/* Secret keys in tokens that do not do AES key wrap: AES-GCM with nonces of the token's own, and YubiHSM 2's AES-CCM.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/mock_token.h"

static enum bk_scheme
recipient_scheme(struct bench *b)
{
    struct bk_public pub = {0};
    struct bk_err err = {0};
    enum bk_scheme scheme;

    if (p11_token_public(b->token, &b->uri, &pub, &err) != BK_OK)
        fail_msg("%s", err.message);
    scheme = pub.scheme;
    assert_null(pub.spki);
    bk_public_free(&pub);
    return scheme;
}

static int
setup(void **state)
{
    int locked = 0;

    (void)state;
    return bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

/* -- AES-GCM --------------------------------------------------------------------------------------------------------
 */

static void
no_damage_opens(struct bk_key *key, const struct bk_wrapped *right)
{
    struct bk_secret opened = {0};

    for (size_t bit = 0; bit < 8 * (BK_KEK_NONCE + BK_AESGCM_LEN); bit++) {
        struct bk_wrapped w = *right;
        uint8_t *at = bit / 8 < BK_KEK_NONCE ? &w.nonce[bit / 8] : &w.data[bit / 8 - BK_KEK_NONCE];

        *at ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_E_VERIFY);
        assert_null(opened.data);
    }
}

static void
gcm_goes_round(void **state)
{
    static const enum nonces good[] = {DRAWS, DRAWS_EARLY};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bench b;
        struct bk_key *wrapping, *opening;
        struct bk_secret cek = {0}, opened = {0};
        struct bk_wrapped w = {0}, again = {0};

        bench_start(&b, good[i]);
        put_key(CKK_AES, 1, 1, 0);
        assert_int_equal(recipient_scheme(&b), BK_SCHEME_AES_GCM);
        wrapping = open_key(&b, P11_USE_WRAP);
        assert_int_equal(wrapping->pub.scheme, BK_SCHEME_AES_GCM);
        opening = open_key(&b, P11_USE_UNWRAP);
        assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
        assert_int_equal(bk_key_wrap(wrapping, &cek, &w, NULL), BK_OK);
        assert_int_equal(bk_key_wrap(wrapping, &cek, &again, NULL), BK_OK);
        assert_int_equal(w.scheme, BK_SCHEME_AES_GCM);
        assert_int_equal(w.len, BK_AESGCM_LEN);
        assert_memory_equal(w.id.bytes, "key id", 6);
        assert_memory_equal(again.nonce, mock.drawn, BK_KEK_NONCE);
        assert_memory_not_equal(w.nonce, again.nonce, BK_KEK_NONCE);
        assert_int_equal(bk_key_unwrap(opening, &w, &opened, NULL), BK_OK);
        assert_true(bk_secret_equal(&cek, &opened));
        bk_secret_wipe(&opened);
        no_damage_opens(opening, &w);
        assert_int_equal(bk_public_wrap(&wrapping->pub, &cek, &again, NULL), BK_E_UNSUPPORTED);
        assert_int_equal(bk_key_rewrap(opening, &w, wrapping, &again, NULL), BK_E_UNSUPPORTED);
        w.len--;
        assert_int_equal(bk_key_unwrap(opening, &w, &opened, NULL), BK_E_FORMAT);
        bk_secret_wipe(&cek);
        bk_key_close(wrapping);
        bk_key_close(opening);
        bench_end(&b);
    }
}

static void
gcm_needs_a_token_that_draws(void **state)
{
    static const struct {
        enum nonces nonces;
        const char *why;
    } bad[] = {
        {LEAVES_ZERO, "does not draw the nonce"},
        {REPEATS, "draws one nonce of AES-GCM twice"},
        {DRAWS_UNASKED, "takes a nonce of AES-GCM from whoever encrypts"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct bench b;
        struct bk_public pub = {0};
        struct bk_key *key = NULL;
        struct bk_err err = {0};

        bench_start(&b, bad[i].nonces);
        put_key(CKK_AES, 1, 1, 0);
        assert_int_equal(p11_token_public(b.token, &b.uri, &pub, &err), BK_E_UNSUPPORTED);
        assert_non_null(strstr(err.message, "CKR_MECHANISM_INVALID"));
        assert_non_null(strstr(err.hint, bad[i].why));
        assert_int_equal(p11_token_open_key(b.token, &b.uri, P11_USE_WRAP, &key, &err), BK_E_UNSUPPORTED);
        assert_null(key);
        bench_end(&b);
    }
}

/* What was proven once may stop being so. */
static void
gcm_is_watched_at_every_wrap(void **state)
{
    struct bench b;
    struct bk_key *key;
    struct bk_secret cek = {0};
    struct bk_wrapped w = {0};
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, DRAWS);
    put_key(CKK_AES, 1, 1, 0);
    key = open_key(&b, P11_USE_WRAP);
    assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
    mock.nonces = REPEATS; /* the one of the trial, too */
    assert_int_equal(bk_key_wrap(key, &cek, &w, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "twice"));
    mock.nonces = LEAVES_ZERO;
    assert_int_equal(bk_key_wrap(key, &cek, &w, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "does not draw"));
    mock.nonces = DRAWS;
    mock.short_by = 4; /* a tag of 12 bytes */
    assert_int_equal(bk_key_wrap(key, &cek, &w, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "44 bytes, not 48"));
    assert_int_equal(w.len, 0);
    bk_secret_wipe(&cek);
    bk_key_close(key);
    bench_end(&b);
}

static void
key_wrap_comes_before_gcm(void **state)
{
    struct bench b;
    struct bk_key *key;

    (void)state;
    bench_start(&b, DRAWS);
    put_key(CKK_AES, 1, 1, 1);
    mock.key_wrap = 1;
    assert_int_equal(recipient_scheme(&b), BK_SCHEME_AES_KW);
    key = open_key(&b, P11_USE_WRAP);
    assert_int_equal(key->pub.scheme, BK_SCHEME_AES_KW);
    bk_key_close(key);
    /* allowed by the key, and not done by the token */
    mock.key_wrap = 0;
    assert_int_equal(recipient_scheme(&b), BK_SCHEME_AES_GCM);
    bench_end(&b);
}

/* A backup host whose login may only encrypt. */
static void
gcm_serves_who_may_only_encrypt(void **state)
{
    struct bench b;
    struct bk_key *key;
    struct bk_secret cek = {0}, opened = {0};
    struct bk_wrapped w = {0};

    (void)state;
    bench_start(&b, DRAWS);
    put_key(CKK_AES, 1, 0, 0);
    assert_int_equal(recipient_scheme(&b), BK_SCHEME_AES_GCM);
    key = open_key(&b, P11_USE_WRAP);
    assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
    assert_int_equal(bk_key_wrap(key, &cek, &w, NULL), BK_OK);
    assert_int_equal(w.scheme, BK_SCHEME_AES_GCM);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_E_UNSUPPORTED);
    bk_key_close(key);
    mock.decrypts = CK_TRUE;
    key = open_key(&b, P11_USE_UNWRAP);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_OK);
    assert_true(bk_secret_equal(&cek, &opened));
    bk_secret_wipe(&cek);
    bk_secret_wipe(&opened);
    bk_key_close(key);
    bench_end(&b);
}

/* -- YubiHSM 2 ------------------------------------------------------------------------------------------------------
 */

static void
ccm_goes_round(void **state)
{
    struct bench b;
    struct bk_key *wrapping, *opening;
    struct bk_secret cek = {0}, opened = {0};
    struct bk_wrapped w = {0}, bad;
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, DRAWS);
    put_key(P11_CKK_YUBIHSM_AES256_CCM_WRAP, 1, 1, 1);
    assert_int_equal(recipient_scheme(&b), BK_SCHEME_YUBIHSM_CCM);
    wrapping = open_key(&b, P11_USE_WRAP);
    assert_int_equal(wrapping->pub.scheme, BK_SCHEME_YUBIHSM_CCM);
    assert_int_equal(wrapping->pub.type, BK_KEY_AES256);
    opening = open_key(&b, P11_USE_UNWRAP);
    assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
    assert_int_equal(bk_key_wrap(wrapping, &cek, &w, NULL), BK_OK);
    assert_int_equal(w.scheme, BK_SCHEME_YUBIHSM_CCM);
    assert_int_equal(w.len, 61);
    assert_int_equal(bk_key_unwrap(opening, &w, &opened, NULL), BK_OK);
    assert_true(bk_secret_equal(&cek, &opened));
    bk_secret_wipe(&opened);
    for (size_t at = MOCK_CCM_NONCE; at < w.len; at += 7) {
        bad = w;
        bad.data[at] ^= 1;
        assert_int_equal(bk_key_unwrap(opening, &bad, &opened, &err), BK_E_VERIFY);
        assert_non_null(strstr(err.message, "the token opens others"));
        assert_null(opened.data);
    }
    bad = w;
    bad.len = BK_CCM_MIN - 1;
    assert_int_equal(bk_key_unwrap(opening, &bad, &opened, NULL), BK_E_FORMAT);
    assert_int_equal(bk_key_rewrap(opening, &w, wrapping, &bad, NULL), BK_E_UNSUPPORTED);
    assert_int_equal(bk_public_wrap(&wrapping->pub, &cek, &bad, NULL), BK_E_UNSUPPORTED);
    mock.short_by = 61 - BK_CCM_MIN + 1;
    assert_int_equal(bk_key_wrap(wrapping, &cek, &bad, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "44 bytes, not 45 to 128"));
    bk_secret_wipe(&cek);
    bk_key_close(wrapping);
    bk_key_close(opening);
    bench_end(&b);
}

/* -- making keys ----------------------------------------------------------------------------------------------------
 */

static void
makes_a_key_for_gcm_where_nothing_else_works(void **state)
{
    const struct p11_generate what = {.kind = P11_AES256};
    struct bench b;
    struct bk_key *key = NULL;
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, DRAWS);
    assert_int_equal(p11_token_generate(b.token, &b.uri, &what, &key, &err), BK_OK);
    assert_int_equal(key->pub.scheme, BK_SCHEME_AES_GCM);
    assert_int_equal(mock.generated, 2);
    assert_int_equal(mock.destroyed, 1);
    assert_true(mock.encrypts && mock.decrypts && !mock.wraps && !mock.unwraps);
    assert_non_null(strstr(b.warning, "cannot rotate blind"));
    assert_non_null(strstr(b.warning, "CKR_MECHANISM_INVALID"));
    bk_key_close(key);
    bench_end(&b);

    bench_start(&b, LEAVES_ZERO);
    key = NULL;
    assert_int_equal(p11_token_generate(b.token, &b.uri, &what, &key, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "CKR_MECHANISM_INVALID"));
    assert_null(key);
    assert_false(mock.exists);
    assert_string_equal(b.warning, "");
    bench_end(&b);

    bench_start(&b, DRAWS);
    mock.key_wrap = 1;
    assert_int_equal(p11_token_generate(b.token, &b.uri, &what, &key, &err), BK_OK);
    assert_int_equal(key->pub.scheme, BK_SCHEME_AES_KW);
    assert_true(!mock.encrypts && !mock.decrypts && mock.wraps && mock.unwraps);
    assert_int_equal(mock.generated, 1);
    assert_string_equal(b.warning, "");
    bk_key_close(key);
    bench_end(&b);
}

static int
keep_aes(void *ctx, const struct p11_probe_item *item)
{
    if (item->kind == P11_AES256)
        *(struct p11_probe_item *)ctx = *item;
    return 0;
}

static void
probe_names_gcm(void **state)
{
    static const enum nonces bad[] = {LEAVES_ZERO, REPEATS, DRAWS_UNASKED};

    (void)state;
    for (int lasting = 0; lasting < 2; lasting++) {
        struct bench b;
        struct p11_probe_item aes = {0};

        bench_start(&b, DRAWS);
        assert_int_equal(p11_token_probe(b.token, &b.uri, lasting, keep_aes, &aes, NULL), BK_OK);
        assert_true(aes.works);
        assert_int_equal(aes.scheme, BK_SCHEME_AES_GCM);
        assert_false(aes.blind);
        assert_int_equal(aes.refuses_damage, lasting ? -1 : 1);
        assert_true(!lasting || !mock.exists);
        bench_end(&b);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            bench_start(&b, bad[i]);
            assert_int_equal(p11_token_probe(b.token, &b.uri, lasting, keep_aes, &aes, NULL), BK_OK);
            assert_false(aes.works);
            bench_end(&b);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gcm_goes_round),
        cmocka_unit_test(gcm_needs_a_token_that_draws),
        cmocka_unit_test(gcm_is_watched_at_every_wrap),
        cmocka_unit_test(key_wrap_comes_before_gcm),
        cmocka_unit_test(gcm_serves_who_may_only_encrypt),
        cmocka_unit_test(ccm_goes_round),
        cmocka_unit_test(makes_a_key_for_gcm_where_nothing_else_works),
        cmocka_unit_test(probe_names_gcm),
    };

    return cmocka_run_group_tests_name("p11_schemes", tests, setup, NULL);
}
