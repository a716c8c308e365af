/* The token layer on SoftHSM 2, continued: blind rewrap, certificates, odd objects, threads, and calls that fail. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "pkcs11/choose.h"
#include "base/keywrap.h"
#include "tests/support/softhsm.h"

/* Made once, used by many tests. */
static void
makes_the_keys_for_the_rest(void **state)
{
    (void)state;
    softhsm_make("pkcs11:token=bk%20a;object=aes", P11_AES256, 0);
    softhsm_make("pkcs11:token=bk%20a;object=aes-2", P11_AES256, 0);
    softhsm_make("pkcs11:token=bk%20b;object=aes-b", P11_AES256, 0);
    softhsm_make("pkcs11:token=bk%20a;object=p256", P11_P256, 0);
    softhsm_make("pkcs11:token=bk%20b;object=on-b", P11_P256, 0);
    softhsm_make("pkcs11:token=bk%20a;object=sign-p256", P11_P256, 1);
    softhsm_make("pkcs11:token=bk%20a;object=sign-p384", P11_P384, 1);
}

/* -- blind rewrap ---------------------------------------------------------------------------------------------------
 */

/* An object made without our own code, to have the odd ones that owners have. */
static void
make_raw(struct softhsm_run *r, const char *uri_text, CK_ATTRIBUTE *template, CK_ULONG count)
{
    struct p11_uri uri = {0};
    struct p11_token *t = NULL;
    struct p11_session s = {0};
    CK_OBJECT_HANDLE object = 0;

    ok(p11_uri_parse(&uri, uri_text, &err));
    ok(p11_find_token(r->p, &uri, &t, &err));
    ok(p11_token_login(t, &uri, &err));
    ok(p11_session_open(&s, t, &err));
    assert_int_equal(P11_CALL(&s.port, C_CreateObject, s.handle, template, count, &object), CKR_OK);
    r->objects--; /* a token object, meant to stay */
    p11_session_close(&s);
    p11_uri_free(&uri);
}

static void
make_raw_aes(struct softhsm_run *r, const char *label, uint8_t id_byte, int can_wrap, int can_unwrap)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL wrap = can_wrap ? CK_TRUE : CK_FALSE;
    CK_BBOOL unwrap = can_unwrap ? CK_TRUE : CK_FALSE;
    uint8_t value[32] = {id_byte, 1, 2, 3};
    uint8_t id[4] = {id_byte, 0, 0, 7};
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class},
                               {CKA_KEY_TYPE, &type, sizeof type},
                               {CKA_TOKEN, &yes, sizeof yes},
                               {CKA_PRIVATE, &yes, sizeof yes},
                               {CKA_LABEL, (void *)(uintptr_t)label, strlen(label)},
                               {CKA_ID, id, sizeof id},
                               {CKA_VALUE, value, sizeof value},
                               {CKA_WRAP, &wrap, sizeof wrap},
                               {CKA_ENCRYPT, &wrap, sizeof wrap},
                               {CKA_UNWRAP, &unwrap, sizeof unwrap},
                               {CKA_DECRYPT, &unwrap, sizeof unwrap}};

    make_raw(r, "pkcs11:token=bk%20a", template, sizeof template / sizeof template[0]);
}

static void
rewraps_blind_and_proves_it(void **state)
{
    struct softhsm_run r;
    struct bk_key *old = NULL;
    struct bk_key *new = NULL;
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w = {0};
    struct bk_wrapped moved = {0};
    struct bk_wrapped bad;

    (void)state;
    softhsm_start(&r);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=aes", P11_USE_UNWRAP, &old, &err));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=aes-2", P11_USE_WRAP, &new, &err));
    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    ok(bk_key_wrap(old, &cek, &w, &err));
    ok(bk_key_rewrap(old, &w, new, &moved, &err));
    assert_true(bk_key_id_equal(&moved.id, &new->pub.id));
    assert_int_equal(moved.scheme, BK_SCHEME_AES_KW);
    assert_int_equal(moved.len, BK_AESKW_LEN);
    ok(bk_key_unwrap(new, &moved, &opened, &err));
    assert_true(bk_secret_equal(&cek, &opened));
    bk_secret_wipe(&opened);

    bad = w;
    bad.data[3] ^= 0x80;
    moved = (struct bk_wrapped){0};
    refuses(BK_E_VERIFY, "damaged or forged", bk_key_rewrap(old, &bad, new, &moved, &err));
    assert_int_equal(moved.len, 0);
    ok(bk_key_rewrap(old, &w, new, &moved, &err));
    bk_key_close(old);
    bk_key_close(new);
    bk_secret_wipe(&cek);
    softhsm_end(&r);
}

static void
does_not_rewrap_what_it_cannot_prove(void **state)
{
    struct softhsm_run r;
    struct bk_key *old = NULL;
    struct bk_key *new = NULL;
    struct bk_key *ec = NULL;
    struct bk_secret cek = {0};
    struct bk_secret kek = {0};
    struct bk_wrapped w = {.scheme = BK_SCHEME_AES_KW, .len = BK_AESKW_LEN};
    struct bk_wrapped out = {0};
    uint8_t value[32] = {0x51, 1, 2, 3};

    (void)state;
    softhsm_start(&r);
    make_raw_aes(&r, "no-wrap", 0x51, 0, 1);
    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    ok(bk_secret_from(&kek, value, sizeof value, &err));
    ok(bk_aeskw_wrap(&kek, &cek, w.data, &err));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=no-wrap", P11_USE_UNWRAP, &old, &err));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=aes-2", P11_USE_UNWRAP, &new, &err));
    refuses(BK_E_UNSUPPORTED, "old key", bk_key_rewrap(old, &w, new, &out, &err));
    refuses(BK_E_UNSUPPORTED, "new key", bk_key_rewrap(new, &w, old, &out, &err));
    refuses(BK_E_UNSUPPORTED, "may not wrap", bk_key_wrap(old, &cek, &out, &err));
    refuses(BK_E_NO_KEY, "may not wrap",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=no-wrap", P11_USE_WRAP, &ec, &err));
    bk_key_close(new);

    ok(p11_key_open(r.p, "pkcs11:token=bk%20b;object=aes-b", P11_USE_UNWRAP, &new, &err));
    refuses(BK_E_UNSUPPORTED, "not on one token", bk_key_rewrap(old, &w, new, &out, &err));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=p256", P11_USE_UNWRAP, &ec, &err));
    refuses(BK_E_UNSUPPORTED, "AES", bk_key_rewrap(old, &w, ec, &out, &err));
    assert_int_equal(out.len, 0);
    bk_key_close(old);
    bk_key_close(new);
    bk_key_close(ec);
    bk_secret_wipe(&cek);
    bk_secret_wipe(&kek);
    softhsm_end(&r);
}

/* -- odd objects ----------------------------------------------------------------------------------------------------
 */

static void
two_keys_of_one_label(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;

    (void)state;
    softhsm_start(&r);
    make_raw_aes(&r, "twin", 0x61, 1, 1);
    make_raw_aes(&r, "twin", 0x62, 1, 1);
    refuses(BK_E_NO_KEY, "2 keys match pkcs11:token=bk%20a;object=twin: 'twin' (id 6",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=twin", P11_USE_UNWRAP, &key, &err));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=twin;id=%62%00%00%07", P11_USE_UNWRAP, &key, &err));
    softhsm_use_kek(key);
    bk_key_close(key);
    softhsm_end(&r);
}

/* A host that writes backups and cannot read them may have a secret KEK, too. */
static void
a_key_that_may_only_wrap(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct bk_public pub = {0};
    struct bk_secret cek = {0};
    struct bk_wrapped w = {0};

    (void)state;
    softhsm_start(&r);
    make_raw_aes(&r, "wrap-only", 0x55, 1, 0);
    refuses(BK_E_NO_KEY, "may not unwrap",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=wrap-only", P11_USE_UNWRAP, &key, &err));
    ok(p11_public(r.p, "pkcs11:token=bk%20a;object=wrap-only", &pub, &err));
    assert_int_equal(pub.type, BK_KEY_AES256);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=wrap-only", P11_USE_WRAP, &key, &err));
    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    ok(bk_key_wrap(key, &cek, &w, &err));
    assert_true(bk_key_id_equal(&w.id, &pub.id));
    bk_secret_wipe(&cek);
    bk_public_free(&pub);
    bk_key_close(key);
    softhsm_end(&r);
}

/* A token that wraps and does not open again is found out before a backup is made for it. */
static void
a_secret_recipient_is_tried(void **state)
{
    struct softhsm_run r;
    struct bk_public pub = {0};

    (void)state;
    softhsm_start(&r);
    r.fail_call = "C_UnwrapKey";
    r.fail_rv = CKR_DEVICE_ERROR;
    refuses(BK_E_TOKEN, "the trial of pkcs11:", p11_public(r.p, "pkcs11:token=bk%20a;object=aes", &pub, &err));
    assert_null(pub.uri);
    r.fail_call = NULL;
    ok(p11_public(r.p, "pkcs11:token=bk%20a;object=aes", &pub, &err));
    bk_public_free(&pub);
    softhsm_end(&r);
}

/* Refuses the first so many templates, as a token does that will have fewer attributes. */
struct picky {
    int refusals;
};

static CK_RV
refuse_templates(void *ctx, const char *call)
{
    struct picky *p = ctx;

    return strcmp(call, "C_GenerateKey") == 0 && p->refusals-- > 0 ? CKR_TEMPLATE_INCONSISTENT : CKR_OK;
}

/* SoftHSM lets a secret key decrypt unless told otherwise. */
static void
a_key_that_may_do_more_is_warned_of(void **state)
{
    for (int refusals = 0; refusals < 3; refusals++) {
        struct softhsm_run r;
        struct picky picky = {refusals};
        struct bk_key *key = NULL;
        char uri[64];

        (void)state;
        softhsm_start(&r);
        r.p->hook = (struct p11_hook){.ctx = &picky, .before = refuse_templates};
        (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20a;object=picky-%d", refusals);
        softhsm_generate(&r, uri, P11_AES256, 0, &key);
        assert_int_equal(r.warnings, refusals); /* 1: it can be modified; 2: and it may decrypt */
        assert_int_equal(strstr(r.warning, "may also decrypt") != NULL, refusals == 2);
        bk_key_close(key);
        softhsm_end(&r);
    }
}

static void
destroy_public_half(struct softhsm_run *r, const struct p11_key *key)
{
    struct p11_session s = {0};
    struct p11_handles found = {0};
    CK_ATTRIBUTE id = p11_traits_id(&key->traits);

    ok(p11_session_open(&s, key->token, &err));
    ok(p11_object_find(&s, CKO_PUBLIC_KEY, NULL, &id, &found, &err));
    assert_int_equal(found.count, 1);
    assert_int_equal(P11_CALL(&s.port, C_DestroyObject, s.handle, found.at[0]), CKR_OK);
    r->objects++;
    p11_handles_free(&found);
    p11_session_close(&s);
}

/* A certificate over the public half, signed by nobody that matters; serial tells two of them apart. */
static void
make_certificate(const struct bk_public *pub, long serial, struct bk_buf *der)
{
    const uint8_t *at = pub->spki;
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)pub->spki_len);
    EVP_PKEY *issuer = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    uint8_t *out = NULL;
    int len;

    assert_true(key != NULL && issuer != NULL && x != NULL);
    assert_int_equal(X509_set_version(x, 2), 1);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
    X509_gmtime_adj(X509_getm_notBefore(x), serial);
    X509_gmtime_adj(X509_getm_notAfter(x), 100000);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const uint8_t *)"bk test", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_set_pubkey(x, key);
    assert_true(X509_sign(x, issuer, EVP_sha256()) > 0);
    len = i2d_X509(x, &out);
    assert_true(len > 0);
    ok(bk_buf_append(der, out, (size_t)len, &err));
    OPENSSL_free(out);
    X509_free(x);
    EVP_PKEY_free(issuer);
    EVP_PKEY_free(key);
}

static void
keeps_certificates_with_keys(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct bk_key *other = NULL;
    struct bk_buf first = {0};
    struct bk_buf newer = {0};
    struct bk_buf got = {0};
    char text[4096] = "";
    size_t tokens = 0;

    (void)state;
    softhsm_start(&r);
    softhsm_generate(&r, "pkcs11:token=bk%20a;object=certified", P11_P384, 1, &key);
    refuses(BK_E_NO_KEY, "no certificate", p11_certificate(key, &got, &err));
    make_certificate(&key->pub, 1, &first);
    make_certificate(&key->pub, 5000, &newer);
    ok(p11_certificate_store(key, first.data, first.len, &err));
    ok(p11_certificate_store(key, first.data, first.len, &err)); /* once is enough */
    ok(p11_certificate(key, &got, &err));
    assert_int_equal(got.len, first.len);
    assert_memory_equal(got.data, first.data, first.len);
    bk_buf_free(&got);
    r.objects--;

    ok(p11_certificate_store(key, newer.data, newer.len, &err));
    r.objects--;
    ok(p11_certificate(key, &got, &err));
    assert_int_equal(got.len, newer.len);
    assert_memory_equal(got.data, newer.data, newer.len);
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=certified;type=cert", 0, softhsm_collect, text, &tokens, &err));
    assert_non_null(strstr(text, "certificate|certified|p384|"));

    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=sign-p384", P11_USE_SIGN, &other, &err));
    refuses(BK_E_INTERNAL, "not for the key", p11_certificate_store(other, first.data, first.len, &err));
    refuses(BK_E_FORMAT, "not an X.509", p11_certificate_store(key, first.data, first.len - 1, &err));
    bk_key_close(other);

    /* the certificate alone tells the public half; and all of it goes together */
    destroy_public_half(&r, p11_key_of(key));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=certified", P11_USE_SIGN, &other, &err));
    softhsm_use_signer(other);
    assert_true(bk_key_id_equal(&other->pub.id, &key->pub.id));
    bk_key_close(other);
    ok(p11_key_destroy(key, &err));
    r.objects += 3;
    bk_key_close(key);
    refuses(BK_E_NO_KEY, "no key matches",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=certified", P11_USE_SIGN, &other, &err));
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=certified", 1, softhsm_collect, text, &tokens, &err));
    assert_string_equal(text, "");
    bk_buf_free(&first);
    bk_buf_free(&newer);
    bk_buf_free(&got);
    softhsm_end(&r);
}

static void
private_keys_without_public_half(void **state)
{
    struct softhsm_run r;
    struct bk_key *rsa = NULL;
    struct bk_key *ec = NULL;
    struct bk_key *found = NULL;
    size_t which = 9;

    (void)state;
    softhsm_start(&r);
    softhsm_generate(&r, "pkcs11:token=bk%20b;object=lone-rsa", P11_RSA3072, 0, &rsa);
    softhsm_generate(&r, "pkcs11:token=bk%20b;object=lone-ec", P11_P256, 0, &ec);
    destroy_public_half(&r, p11_key_of(rsa));
    destroy_public_half(&r, p11_key_of(ec));
    /* an RSA private key tells its modulus */
    ok(p11_key_open(r.p, "pkcs11:token=bk%20b;object=lone-rsa", P11_USE_UNWRAP, &found, &err));
    softhsm_use_kek(found);
    bk_key_close(found);
    ok(p11_key_find(r.p, "pkcs11:token=bk%20b", &rsa->pub.id, 1, &which, &found, &err));
    assert_int_equal(which, 0);
    bk_key_close(found);
    found = NULL;
    /* an EC private key tells nothing of its point */
    refuses(BK_E_NO_KEY, "public half",
            p11_key_open(r.p, "pkcs11:token=bk%20b;object=lone-ec", P11_USE_UNWRAP, &found, &err));
    assert_null(found);
    bk_key_close(rsa);
    bk_key_close(ec);
    softhsm_end(&r);
}

/* A private key that wants its PIN before each use. */
static void
always_authenticate(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_OBJECT_CLASS public_class = CKO_PUBLIC_KEY;
    CK_KEY_TYPE type = CKK_EC;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    char label[] = "each-time";
    uint8_t id[4] = {0x71, 2, 3, 4};
    uint8_t secret[32];
    uint8_t point[67] = {0x04, 65};
    size_t len = 0;
    BIGNUM *d = NULL;
    CK_ATTRIBUTE params = p11_curve_params(BK_KEY_P256);
    CK_ATTRIBUTE private[] = {{CKA_CLASS, &class, sizeof class},
                              {CKA_KEY_TYPE, &type, sizeof type},
                              {CKA_TOKEN, &yes, sizeof yes},
                              {CKA_PRIVATE, &yes, sizeof yes},
                              {CKA_LABEL, label, 9},
                              {CKA_ID, id, sizeof id},
                              {CKA_SIGN, &yes, sizeof yes},
                              {CKA_DERIVE, &no, sizeof no},
                              {CKA_VALUE, secret, sizeof secret},
                              {CKA_ALWAYS_AUTHENTICATE, &yes, sizeof yes},
                              params};
    CK_ATTRIBUTE public[] = {{CKA_CLASS, &public_class, sizeof public_class},
                             {CKA_KEY_TYPE, &type, sizeof type},
                             {CKA_TOKEN, &yes, sizeof yes},
                             {CKA_LABEL, label, 9},
                             {CKA_ID, id, sizeof id},
                             {CKA_EC_POINT, point, sizeof point},
                             params};

    (void)state;
    assert_int_equal(EVP_PKEY_get_bn_param(pair, "priv", &d), 1);
    assert_int_equal(BN_bn2binpad(d, secret, 32), 32);
    assert_int_equal(EVP_PKEY_get_octet_string_param(pair, "encoded-pub-key", point + 2, 65, &len), 1);
    assert_int_equal(len, 65);
    softhsm_start(&r);
    make_raw(&r, "pkcs11:token=bk%20a", private, sizeof private / sizeof private[0]);
    make_raw(&r, "pkcs11:token=bk%20a", public, sizeof public / sizeof public[0]);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=each-time", P11_USE_SIGN, &key, &err));
    assert_int_equal(p11_key_of(key)->traits.always_authenticate, 1);
    r.logins = 0;
    softhsm_use_signer(key);
    /* two signatures were made: two context logins, and no further question */
    assert_int_equal(r.logins, 2);
    assert_int_equal(r.asked, 1);
    bk_key_close(key);
    BN_clear_free(d);
    EVP_PKEY_free(pair);
    softhsm_end(&r);
}

/* -- faults ---------------------------------------------------------------------------------------------------------
 */

/* Every session of the module dies, with its login, as when a token was pulled or a server forgot us. */
static void
outlives_a_lost_session(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct bk_key *signer = NULL;
    struct p11_key *inner;

    (void)state;
    softhsm_start(&r);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=p256", P11_USE_UNWRAP, &key, &err));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=sign-p256", P11_USE_SIGN, &signer, &err));
    inner = p11_key_of(key);
    assert_int_equal(P11_CALL(&inner->session.port, C_CloseAllSessions, inner->token->slot), CKR_OK);
    r.sessions = 0;
    softhsm_use_kek(key);
    softhsm_use_signer(signer);
    assert_int_equal(r.asked, 1);
    bk_key_close(key);
    bk_key_close(signer);
    softhsm_end(&r);
}

/* A key that is not the same any more is not used. */
static void
notices_a_key_that_is_gone(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct bk_key *same = NULL;
    uint8_t digest[32] = {0};
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;

    (void)state;
    softhsm_start(&r);
    softhsm_generate(&r, "pkcs11:token=bk%20a;object=goes", P11_P256, 1, &key);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=goes", P11_USE_SIGN, &same, &err));
    ok(p11_key_destroy(same, &err));
    r.objects += 2;
    bk_key_close(same);
    refuses(BK_E_NO_KEY, "not there any more", bk_key_sign(key, digest, sig, &len, &err));
    bk_key_close(key);
    softhsm_end(&r);
}

static void
a_key_that_fails_its_trial_is_removed(void **state)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;
    struct p11_generate what = {.kind = P11_P256, .signing = 1};
    char text[4096] = "";
    size_t tokens = 0;

    (void)state;
    softhsm_start(&r);
    r.fail_call = "C_Sign";
    r.fail_rv = CKR_FUNCTION_FAILED;
    refuses(BK_E_TOKEN, "the trial of", p11_key_generate(r.p, "pkcs11:token=bk%20a;object=bad", &what, &key, &err));
    assert_null(key);
    r.objects += 2; /* the pair, which was made by no call that is counted */
    r.fail_call = NULL;
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=bad", 1, softhsm_collect, text, &tokens, &err));
    assert_string_equal(text, "");
    softhsm_end(&r);
}

struct worker {
    struct softhsm_run *run;
    const char *uri;
    int fine;
};

/* Without assertions, which would jump out of the thread. */
static void *
work(void *arg)
{
    struct worker *w = arg;
    struct bk_key *key = NULL;
    struct bk_secret cek = {0};
    struct bk_wrapped wrapped = {0};
    int fine = p11_key_open(w->run->p, w->uri, P11_USE_UNWRAP, &key, NULL) == BK_OK &&
               bk_secret_random(&cek, BK_CEK_LEN, NULL) == BK_OK &&
               (key->pub.spki == NULL ? bk_key_wrap(key, &cek, &wrapped, NULL)
                                      : bk_public_wrap(&key->pub, &cek, &wrapped, NULL)) == BK_OK;

    for (int i = 0; fine && i < 50; i++) {
        struct bk_secret opened = {0};

        fine = bk_key_unwrap(key, &wrapped, &opened, NULL) == BK_OK && bk_secret_equal(&cek, &opened);
        bk_secret_wipe(&opened);
    }
    bk_secret_wipe(&cek);
    bk_key_close(key);
    w->fine = fine;
    return NULL;
}

/* One login, several threads with a key each. */
static void
threads_share_a_login(void **state)
{
    static const char *const uris[] = {"pkcs11:token=bk%20a;object=aes", "pkcs11:token=bk%20a;object=p256",
                                       "pkcs11:token=bk%20b;object=on-b", "pkcs11:token=bk%20a;object=aes"};
    struct softhsm_run r;
    struct worker workers[4];
    pthread_t threads[4];

    (void)state;
    softhsm_start(&r);
    r.p->hook = (struct p11_hook){0}; /* its counters are for one thread */
    for (size_t i = 0; i < 4; i++) {
        workers[i] = (struct worker){.run = &r, .uri = uris[i]};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (size_t i = 0; i < 4; i++)
        assert_true(workers[i].fine);
    assert_int_equal(r.asked, 2);
    softhsm_end(&r);
}

enum { SCENARIOS = 5 };

/* Opens and uses a key in one of several ways; any failure is fine, as long as nothing is left behind. */
static enum bk_code
scenario(struct softhsm_run *r, int which, const struct bk_wrapped *in, const struct bk_key_id *id)
{
    struct bk_key *key = NULL;
    struct bk_key *to = NULL;
    struct bk_secret opened = {0};
    struct bk_wrapped out = {0};
    struct bk_err err = {0};
    uint8_t digest[32] = {7};
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;
    size_t at = 0;
    char uri[5][700]; /* by module-path: only that one module is loaded, which saves most of the time */
    static const char *const objects[5] = {"aes", "p256", "sign-p256", "aes", "aes-2"};
    enum bk_code rc;

    for (size_t i = 0; i < 5; i++)
        (void)snprintf(uri[i], sizeof uri[i], "pkcs11:token=bk%%20a;object=%s?module-path=%s", objects[i],
                       softhsm_module());
    if (which == 2)
        rc = p11_key_open(r->p, uri[2], P11_USE_SIGN, &key, &err);
    else if (which == 1)
        rc = p11_key_find(r->p, uri[1], id, 1, &at, &key, &err);
    else
        rc = p11_key_open(r->p, uri[0], P11_USE_UNWRAP, &key, &err);
    if (rc == BK_OK && (which == 0 || which == 1))
        rc = bk_key_unwrap(key, in, &opened, &err);
    if (rc == BK_OK && which == 2)
        rc = bk_key_sign(key, digest, sig, &len, &err);
    if (which == 3 && rc == BK_OK)
        rc = p11_key_open(r->p, uri[4], P11_USE_WRAP, &to, &err);
    if (rc == BK_OK && which == 3)
        rc = bk_key_rewrap(key, in, to, &out, &err);
    if (rc == BK_OK && which == 4)
        rc = bk_key_wrap(key, &(struct bk_secret){(uint8_t *)(uintptr_t)in->data, 32}, &out, &err);
    if (rc != BK_OK) {
        assert_null(opened.data);
        assert_int_equal(out.len, 0);
        assert_int_equal(err.code, rc);
        assert_true(strlen(err.message) > 0);
    }
    bk_secret_wipe(&opened);
    bk_key_close(key);
    bk_key_close(to);
    return rc;
}

static void
every_failing_call_leaves_nothing(void **state)
{
    static const CK_RV faults[] = {CKR_DEVICE_ERROR, CKR_SESSION_HANDLE_INVALID, CKR_GENERAL_ERROR, CKR_HOST_MEMORY,
                                   CKR_FUNCTION_NOT_SUPPORTED};
    static const char *const keys[SCENARIOS] = {"aes", "p256", NULL, "aes", "aes"};

    (void)state;
    for (int which = 0; which < SCENARIOS; which++) {
        struct softhsm_run r;
        struct bk_secret cek = {0};
        struct bk_wrapped w = {0};
        struct bk_key_id id = {{0}, 0};
        unsigned most;

        softhsm_start(&r);
        if (keys[which] != NULL) {
            struct bk_key *key = NULL;
            char uri[64];

            (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20a;object=%s", keys[which]);
            ok(p11_key_open(r.p, uri, P11_USE_UNWRAP, &key, &err));
            ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
            softhsm_wrap(key, &cek, &w);
            id = key->pub.id;
            bk_secret_wipe(&cek);
            bk_key_close(key);
        }
        softhsm_end(&r);
        softhsm_start(&r);
        assert_int_equal(scenario(&r, which, &w, &id), BK_OK);
        most = r.calls;
        softhsm_end(&r);
        for (unsigned n = 1; n <= most; n++) {
            softhsm_start(&r);
            r.fail_at = n;
            r.fail_rv = faults[n % (sizeof faults / sizeof faults[0])];
            (void)!scenario(&r, which, &w, &id);
            assert_true(r.asked <= 1);
            softhsm_end(&r);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(makes_the_keys_for_the_rest),
        cmocka_unit_test(rewraps_blind_and_proves_it),
        cmocka_unit_test(does_not_rewrap_what_it_cannot_prove),
        cmocka_unit_test(two_keys_of_one_label),
        cmocka_unit_test(a_key_that_may_only_wrap),
        cmocka_unit_test(a_secret_recipient_is_tried),
        cmocka_unit_test(a_key_that_may_do_more_is_warned_of),
        cmocka_unit_test(keeps_certificates_with_keys),
        cmocka_unit_test(private_keys_without_public_half),
        cmocka_unit_test(always_authenticate),
        cmocka_unit_test(outlives_a_lost_session),
        cmocka_unit_test(notices_a_key_that_is_gone),
        cmocka_unit_test(a_key_that_fails_its_trial_is_removed),
        cmocka_unit_test(threads_share_a_login),
        cmocka_unit_test(every_failing_call_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, softhsm_setup, softhsm_teardown);
}
