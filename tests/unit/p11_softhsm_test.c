/* The token layer on a real module, SoftHSM 2: keys of all kinds, lists, refusals, PINs, finding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/softhsm.h"

/* -- keys of all kinds ----------------------------------------------------------------------------------------------
 */

static void
one_kek(enum p11_key_kind kind, const char *label, enum bk_key_type type, enum bk_scheme scheme)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct bk_key *again = NULL;
    struct bk_public pub = {0};
    char uri[128];
    char opened_uri[256];
    struct bk_key_id id;

    softhsm_start(&r);
    (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20a;object=%s", label);
    softhsm_generate(&r, uri, kind, 0, &key);
    assert_int_equal(r.asked, 1);
    assert_int_equal(key->pub.type, type);
    assert_int_equal(key->pub.scheme, scheme);
    assert_int_equal(key->pub.id.len, type == BK_KEY_AES256 ? 16 : BK_SKI_LEN);
    softhsm_use_kek(key);
    id = key->pub.id;
    (void)snprintf(opened_uri, sizeof opened_uri, "%s", key->pub.uri);
    bk_key_close(key);

    /* the hint alone leads back to it, and no second PIN is asked for */
    ok(p11_key_open(r.p, opened_uri, P11_USE_UNWRAP, &again, &err));
    assert_true(bk_key_id_equal(&again->pub.id, &id));
    assert_int_equal(again->pub.scheme, scheme);
    softhsm_use_kek(again);
    ok(p11_public(r.p, opened_uri, &pub, &err));
    assert_true(bk_key_id_equal(&pub.id, &id));
    assert_int_equal(pub.scheme, scheme);
    assert_string_equal(pub.uri, opened_uri);
    assert_true((pub.spki == NULL) == (type == BK_KEY_AES256));
    bk_public_free(&pub);
    bk_key_close(again);
    assert_int_equal(r.asked, 1);
    softhsm_end(&r);
}

static void
rsa_kek(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w = {0};

    (void)state;
    one_kek(P11_RSA3072, "rsa", BK_KEY_RSA, BK_SCHEME_RSA_OAEP_SHA1);

    /* this module knows OAEP with SHA-1 only (docs/TOKENS.md): proven, and not silently */
    softhsm_start(&r);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    assert_int_equal(key->pub.bits, 3072);
    assert_non_null(strstr(r.warning, "SHA-1"));
    key->pub.scheme = BK_SCHEME_RSA_OAEP_SHA256;
    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    softhsm_wrap(key, &cek, &w);
    refuses(BK_E_UNSUPPORTED, "CKR_ARGUMENTS_BAD", bk_key_unwrap(key, &w, &opened, &err));
    bk_secret_wipe(&cek);
    bk_key_close(key);
    softhsm_end(&r);
}

/* What this module refuses by OAEP with SHA-256 it opens by bare RSA, if that is asked for. */
static void
raw_rsa(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w = {0};

    (void)state;
    softhsm_make("pkcs11:token=bk%20a;object=raw", P11_RSA3072, 0);
    softhsm_start(&r);
    r.p->options.raw_rsa = 1;
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=raw", P11_USE_UNWRAP, &key, &err));
    assert_int_equal(key->pub.scheme, BK_SCHEME_RSA_OAEP_SHA1);
    key->pub.scheme = BK_SCHEME_RSA_OAEP_SHA256;
    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    softhsm_wrap(key, &cek, &w);
    ok(bk_key_unwrap(key, &w, &opened, &err));
    assert_true(bk_secret_equal(&cek, &opened));
    bk_secret_wipe(&opened);
    for (size_t i = 0; i < 24; i++) {
        static const char message[] = "token 'bk a': the wrapped key is damaged or forged, or for another key";
        struct bk_wrapped bad = w;
        struct bk_err why = {0};

        /* then one that is not below the modulus, which the token refuses, and one that opens to zeros */
        if (i < 22)
            bad.data[i * 17] ^= (uint8_t)(1u << i % 8);
        else
            memset(bad.data, i == 22 ? 0xFF : 0, bad.len);
        assert_int_equal(bk_key_unwrap(key, &bad, &opened, &why), BK_E_VERIFY);
        assert_string_equal(why.message, message);
        assert_null(opened.data);
    }
    bk_secret_wipe(&cek);
    bk_key_close(key);
    softhsm_end(&r);
}

static void
rsa4096_kek(void **state)
{
    (void)state;
    one_kek(P11_RSA4096, "rsa4096", BK_KEY_RSA, BK_SCHEME_RSA_OAEP_SHA1);
}

static void
p256_kek(void **state)
{
    (void)state;
    one_kek(P11_P256, "p256", BK_KEY_P256, BK_SCHEME_ECDH_P256);
}

static void
p384_kek(void **state)
{
    (void)state;
    one_kek(P11_P384, "p384", BK_KEY_P384, BK_SCHEME_ECDH_P384);
}

static void
aes_kek(void **state)
{
    (void)state;
    one_kek(P11_AES256, "aes", BK_KEY_AES256, BK_SCHEME_AES_KW);
}

static void
signers(void **state)
{
    static const struct {
        enum p11_key_kind kind;
        const char *uri;
    } keys[] = {{P11_RSA3072, "pkcs11:token=bk%20a;object=sign-rsa"},
                {P11_P256, "pkcs11:token=bk%20a;object=sign-p256"},
                {P11_P384, "pkcs11:token=bk%20a;object=sign-p384"}};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct softhsm_run r;
        struct bk_key *key = NULL;

        softhsm_start(&r);
        softhsm_generate(&r, keys[i].uri, keys[i].kind, 1, &key);
        assert_int_equal(key->pub.scheme, BK_SCHEME_NONE);
        softhsm_use_signer(key);
        bk_key_close(key);
        ok(p11_key_open(r.p, keys[i].uri, P11_USE_SIGN, &key, &err));
        softhsm_use_signer(key);
        bk_key_close(key);
        /* it signs and does nothing else */
        refuses(BK_E_NO_KEY, "may not", p11_key_open(r.p, keys[i].uri, P11_USE_UNWRAP, &key, &err));
        softhsm_end(&r);
    }
}

static void
lists_what_is_there(void **state)
{
    struct softhsm_run r;
    char text[4096] = "";
    size_t tokens = 0;

    (void)state;
    softhsm_start(&r);
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=aes", 1, softhsm_collect, text, &tokens, &err));
    assert_string_equal(text, "secret key|aes|aes256|10110|01100\n");
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=p256", 1, softhsm_collect, text, &tokens, &err));
    assert_string_equal(text, "private key|p256|p256|10110|00-110\npublic key|p256|p256|-1-1-1-10|-1-101-1\n");
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=sign-rsa;type=private", 1, softhsm_collect, text, &tokens, &err));
    assert_string_equal(text, "private key|sign-rsa|rsa|10110|00-101\n");
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=nothing", 1, softhsm_collect, text, &tokens, &err));
    assert_int_equal(tokens, 0);
    softhsm_end(&r);

    /* without a login only what is public, and no PIN */
    softhsm_start(&r);
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=rsa", 0, softhsm_collect, text, &tokens, &err));
    assert_string_equal(text, "public key|rsa|rsa|-1-1-1-10|-1-110-1\n");
    assert_int_equal(tokens, 1);
    assert_int_equal(r.asked, 0);
    softhsm_end(&r);

    /* one PIN is not tried on two tokens, of which one at least has another */
    softhsm_start(&r);
    refuses(BK_E_USAGE, "has a PIN and matches 2 tokens: 'bk ",
            p11_list(r.p, "pkcs11:manufacturer=SoftHSM%20project?pin-value=" SOFTHSM_PIN_A, 1, softhsm_collect, text,
                     &tokens, &err));
    assert_int_equal(r.logins, 0);
    softhsm_end(&r);
}

/* -- what is refused ------------------------------------------------------------------------------------------------
 */

static void
names_what_is_missing(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct p11_generate aes = {.kind = P11_AES256};

    (void)state;
    softhsm_start(&r);
    refuses(
        BK_E_TOKEN, "there is no PKCS#11 module at /no/such/module.so",
        p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa?module-path=/no/such/module.so", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_TOKEN, "cannot be loaded",
            p11_key_open(r.p, "pkcs11:token=bk%20a?module-path=/dev/null", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_TOKEN, "'bk b'", p11_key_open(r.p, "pkcs11:token=bk%20c;object=x", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_TOKEN, "no token matches",
            p11_key_open(r.p, "pkcs11:token=bk%20a?module-name=opensc", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_NO_KEY, "no key matches pkcs11:token=bk%20a;object=none",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=none", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_NO_KEY, "no key matches",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_WRAP, &key, &err));
    /* several keys, several tokens */
    refuses(BK_E_NO_KEY, "'p256' (id ", p11_key_open(r.p, "pkcs11:token=bk%20a", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_NO_KEY, "matches 2 tokens",
            p11_key_open(r.p, "pkcs11:manufacturer=SoftHSM%20project;object=none", P11_USE_UNWRAP, &key, &err));
    /* making keys */
    refuses(BK_E_USAGE, "is there already", p11_key_generate(r.p, "pkcs11:token=bk%20a;object=rsa", &aes, &key, &err));
    refuses(BK_E_USAGE, "object= must", p11_key_generate(r.p, "pkcs11:token=bk%20a", &aes, &key, &err));
    refuses(BK_E_USAGE, "random", p11_key_generate(r.p, "pkcs11:token=bk%20a;object=x;id=%01", &aes, &key, &err));
    refuses(BK_E_USAGE, "2 tokens",
            p11_key_generate(r.p, "pkcs11:manufacturer=SoftHSM%20project;object=x", &aes, &key, &err));
    aes.signing = 1;
    refuses(BK_E_USAGE, "cannot sign", p11_key_generate(r.p, "pkcs11:token=bk%20a;object=x", &aes, &key, &err));
    assert_null(key);
    softhsm_end(&r);
}

static void
a_wrong_pin_is_tried_once(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    size_t tokens = 0;
    size_t which = 0;
    struct bk_key_id id = {{1, 2, 3, 4}, 4};

    (void)state;
    softhsm_start(&r);
    r.pin = "9999";
    refuses(BK_E_PIN, "token 'bk a': the PIN was refused and is not tried again: C_Login: CKR_PIN_INCORRECT",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    r.pin = NULL;
    refuses(BK_E_PIN, "not tried again",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=p256", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_PIN, "not tried again", p11_key_find(r.p, "pkcs11:token=bk%20a", &id, 1, &which, &key, &err));
    refuses(BK_E_PIN, "not tried again",
            p11_list(r.p, "pkcs11:token=bk%20a", 1, softhsm_collect, (char[4096]){0}, &tokens, &err));
    assert_int_equal(r.asked, 1);
    assert_int_equal(r.logins, 0);
    softhsm_end(&r);

    /* where there is none, that is asked once, too */
    softhsm_start(&r);
    r.pin = "";
    refuses(BK_E_PIN, "no PIN for bk a",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_PIN, "no PIN is to be had",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    assert_int_equal(r.asked, 1);
    softhsm_end(&r);

    /* a module that answers a wrong PIN with a general error does not get it twice either */
    softhsm_start(&r);
    r.fail_call = "C_Login";
    r.fail_rv = CKR_GENERAL_ERROR;
    refuses(BK_E_TOKEN, "logging in failed",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    r.fail_call = NULL;
    refuses(BK_E_TOKEN, "not tried again",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    assert_int_equal(r.asked, 1);
    softhsm_end(&r);
}

static void
a_pin_in_the_uri_is_used_and_not_shown(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    char uri[700];
    struct bk_err shown = {0};

    (void)state;
    softhsm_start(&r);
    (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20b;object=x?pin-value=SECRET7&module-path=%s", softhsm_module());
    assert_int_equal(p11_key_open(r.p, uri, P11_USE_SIGN, &key, &shown), BK_E_PIN);
    assert_null(strstr(shown.message, "SECRET7"));
    softhsm_end(&r);

    /* by path, while the same module is configured as well */
    softhsm_start(&r);
    (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20a;object=p256?pin-value=" SOFTHSM_PIN_A "&module-path=%s",
                   softhsm_module());
    ok(p11_key_open(r.p, uri, P11_USE_UNWRAP, &key, &err));
    softhsm_use_kek(key);
    assert_null(strstr(key->pub.uri, SOFTHSM_PIN_A));
    assert_null(strchr(key->pub.uri, '?'));
    bk_key_close(key);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=p384", P11_USE_UNWRAP, &key, &err));
    softhsm_use_kek(key);
    bk_key_close(key);
    /* the second was logged in already, through the first */
    assert_int_equal(r.asked, 0);
    softhsm_end(&r);
}

/* -- two tokens, and finding by id ----------------------------------------------------------------------------------
 */

static void
ids_of(struct softhsm_run *r, const char *uri, struct bk_key_id *id)
{
    struct bk_public pub = {0};

    ok(p11_public(r->p, uri, &pub, &err));
    *id = pub.id;
    bk_public_free(&pub);
}

static void
finds_by_id_without_asking_the_wrong_token(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct bk_key_id ids[3];
    struct bk_key_id aes;
    struct bk_key_id unknown = {{9, 9, 9, 9}, 4};
    size_t which = 9;

    (void)state;
    softhsm_make("pkcs11:token=bk%20b;object=on-b", P11_P256, 0);
    softhsm_start(&r);
    ids_of(&r, "pkcs11:token=bk%20b;object=on-b", &ids[2]);
    ids_of(&r, "pkcs11:token=bk%20a;object=rsa", &ids[1]);
    ids_of(&r, "pkcs11:token=bk%20a;object=aes", &aes);
    softhsm_end(&r);
    ids[0] = unknown;

    /* a token that does not show the key is not asked for its PIN */
    softhsm_start(&r);
    ok(p11_key_find(r.p, "pkcs11:", &ids[2], 1, &which, &key, &err));
    assert_int_equal(which, 0);
    assert_int_equal(r.asked, 1);
    assert_int_equal(r.asked_b, 1);
    softhsm_use_kek(key);
    bk_key_close(key);
    /* two tokens in one process; the index is that of the id */
    ok(p11_key_find(r.p, "pkcs11:token=bk%20a", ids, 3, &which, &key, &err));
    assert_int_equal(which, 1);
    assert_int_equal(r.asked, 2);
    key->pub.scheme = BK_SCHEME_RSA_OAEP_SHA1; /* not probed when found: the wrapped key says its scheme */
    softhsm_use_kek(key);
    bk_key_close(key);
    softhsm_end(&r);

    /* a secret key is not seen before a login: not blindly, but on the token that is named */
    softhsm_start(&r);
    key = NULL;
    refuses(BK_E_NO_KEY, "none of these tokens shows",
            p11_key_find(r.p, "pkcs11:manufacturer=SoftHSM%20project", &aes, 1, &which, &key, &err));
    assert_int_equal(r.asked, 0);
    ok(p11_key_find(r.p, "pkcs11:token=bk%20a", &aes, 1, &which, &key, &err));
    softhsm_use_kek(key);
    bk_key_close(key);
    assert_int_equal(r.asked, 1);
    key = NULL;
    refuses(BK_E_NO_KEY, "no key on these tokens opens it: 'bk a'",
            p11_key_find(r.p, "pkcs11:token=bk%20a", &unknown, 1, &which, &key, &err));
    /* the object part of the URI narrows */
    refuses(BK_E_NO_KEY, "no key on these tokens",
            p11_key_find(r.p, "pkcs11:token=bk%20a;object=p256", &aes, 1, &which, &key, &err));
    refuses(BK_E_TOKEN, "no token matches", p11_key_find(r.p, "pkcs11:token=x", &aes, 1, &which, &key, &err));
    softhsm_end(&r);
}

/* All that are asked for at once; the signing key's own half is on its token as well. */
static void
knows_what_the_same_login_holds(void **state)
{
    static const char *const uris[] = {"pkcs11:token=bk%20a;object=rsa", "pkcs11:token=bk%20b;object=on-b",
                                       "pkcs11:token=bk%20a;object=aes", "pkcs11:token=bk%20a;object=p256",
                                       "pkcs11:token=bk%20a;object=p384"};
    static const int wanted[] = {1, 0, 1, 1, 1};
    const size_t count = sizeof wanted / sizeof wanted[0];
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct bk_key_id ids[P11_SAME_LOGIN_MAX + 1] = {0};
    int holds[P11_SAME_LOGIN_MAX + 1];

    (void)state;
    softhsm_start(&r);
    for (size_t i = 0; i < count; i++) {
        struct bk_public pub = {0};

        ok(p11_public(r.p, uris[i], &pub, &err));
        ids[i] = pub.id;
        bk_public_free(&pub);
    }
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=sign-p256", P11_USE_SIGN, &key, &err));
    memset(holds, -1, sizeof holds);
    ok(p11_same_login_holds(key, ids, count, holds, &err));
    assert_memory_equal(holds, wanted, sizeof wanted);
    ok(p11_same_login_holds(key, &ids[1], 1, holds, &err));
    assert_int_equal(holds[0], 0);
    ok(p11_same_login_holds(key, &key->pub.id, 1, holds, &err));
    assert_int_equal(holds[0], 1);
    refuses(BK_E_INTERNAL, "too many", p11_same_login_holds(key, ids, P11_SAME_LOGIN_MAX + 1, holds, &err));
    bk_key_close(key);
    softhsm_end(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rsa_kek),
        cmocka_unit_test(raw_rsa),
        cmocka_unit_test(rsa4096_kek),
        cmocka_unit_test(p256_kek),
        cmocka_unit_test(p384_kek),
        cmocka_unit_test(aes_kek),
        cmocka_unit_test(signers),
        cmocka_unit_test(lists_what_is_there),
        cmocka_unit_test(names_what_is_missing),
        cmocka_unit_test(a_wrong_pin_is_tried_once),
        cmocka_unit_test(a_pin_in_the_uri_is_used_and_not_shown),
        cmocka_unit_test(finds_by_id_without_asking_the_wrong_token),
        cmocka_unit_test(knows_what_the_same_login_holds),
    };

    return cmocka_run_group_tests(tests, softhsm_setup, softhsm_teardown);
}
