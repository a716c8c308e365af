/*
 * Two logins on one SoftHSM token: the security officer makes KEKs for blind rotation, and an operator, who knows the
 * user's PIN, rotates with them and tries to read by everything that PKCS#11 has. And KEKs that only look sealed, each
 * with one thing missing, of which bk must not claim that the token enforces anything.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pkcs11/seal.h"
#include "pkcs11/token.h"
#include "tests/support/softhsm.h"

#define OLD "pkcs11:token=bk%20a;object=rotate-old"
#define NEW "pkcs11:token=bk%20a;object=rotate-new"

/* Objects of a check's own session go with it, and are not destroyed one by one. */
static void
end(struct softhsm_run *r)
{
    p11_close(r->p);
    assert_int_equal(r->sessions, 0);
}

static void
make_sealed(const char *uri)
{
    const struct p11_generate what = {.kind = P11_AES256, .sealed = 1};
    struct softhsm_run r;
    struct bk_key *key = NULL;

    softhsm_start(&r);
    ok(p11_key_generate(r.p, uri, &what, &key, &err));
    assert_true(key->pub.sealed);
    assert_int_equal(key->pub.scheme, BK_SCHEME_AES_KW);
    bk_key_close(key);
    end(&r);
}

static int
setup(void **state)
{
    int locked = 0;

    if (bk_secret_init(&locked, NULL) != BK_OK || softhsm_setup(state) != 0)
        return -1;
    make_sealed(OLD);
    make_sealed(NEW);
    return 0;
}

/* An operator at work: logged in as the user, with both keys open and a data key wrapped under the old one. */
struct operator
{
    struct softhsm_run r;
    struct bk_key *old, *new;
    struct bk_secret cek;
    struct bk_wrapped wrapped;
    struct p11_session s; /* his own, for calls of his own */
    CK_MECHANISM kw;
};

static void operator_start(struct operator* o)
{
    struct p11_key *key;

    memset(o, 0, sizeof *o);
    softhsm_start(&o->r);
    ok(p11_key_open(o->r.p, OLD, P11_USE_UNWRAP, &o->old, &err));
    ok(p11_key_open(o->r.p, NEW, P11_USE_UNWRAP, &o->new, &err));
    ok(bk_secret_random(&o->cek, BK_CEK_LEN, &err));
    ok(bk_key_wrap(o->old, &o->cek, &o->wrapped, &err));
    key = p11_key_of(o->old);
    ok(p11_session_open_own(&o->s, key->token, &err));
    o->kw = (CK_MECHANISM){.mechanism = CKM_AES_KEY_WRAP};
}

static void operator_end(struct operator* o)
{
    p11_session_close(&o->s);
    bk_key_close(o->old);
    bk_key_close(o->new);
    bk_secret_wipe(&o->cek);
    end(&o->r);
}

static CK_OBJECT_HANDLE
handle_of(struct bk_key *key)
{
    return p11_key_of(key)->handle;
}

#define CALL(o, fn, ...) P11_CALL(&(o)->s.port, fn, (o)->s.handle, __VA_ARGS__)

static void
rotates_and_the_token_enforces(void **state)
{
    struct operator o;
    struct bk_wrapped moved = {0};
    struct bk_wrapped back = {0};
    struct bk_secret cek = {0};

    (void)state;
    operator_start(&o);
    ok(bk_key_rewrap(o.old, &o.wrapped, o.new, &moved, &err));
    assert_true(o.old->enforces && o.new->enforces);
    ok(bk_key_rewrap(o.new, &moved, o.old, &back, &err));
    assert_memory_equal(back.data, o.wrapped.data, BK_AESKW_LEN);
    refuses(BK_E_UNSUPPORTED, "stays in the token", bk_key_unwrap(o.old, &o.wrapped, &cek, &err));
    refuses(BK_E_UNSUPPORTED, "stays in the token", bk_key_unwrap(o.new, &moved, &cek, &err));
    assert_null(cek.data);
    moved.data[7] ^= 1;
    refuses(BK_E_VERIFY, "damaged or forged", bk_key_rewrap(o.new, &moved, o.old, &back, &err));
    operator_end(&o);
}

/* Every way of opening it that gives more than a sealed object; all that do not open count, whatever they say. */
static void
opens_it_in_no_readable_way(void **state)
{
    static const CK_ATTRIBUTE_TYPE uses[] = {CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP, CKA_DERIVE, CKA_SIGN};
    struct operator o;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE types[] = {CKK_GENERIC_SECRET, CKK_AES, CKK_DES3, CKK_SHA256_HMAC};
    CK_BBOOL both[] = {CK_FALSE, CK_TRUE};

    (void)state;
    operator_start(&o);
    for (size_t type = 0; type < 4; type++)
        for (size_t bits = 0; bits < 16; bits++)
            for (size_t use = 0; use < 6; use++) {
                CK_OBJECT_HANDLE object = P11_NO_HANDLE;
                CK_ATTRIBUTE at[] = {
                    {CKA_CLASS, &class, sizeof class},
                    {CKA_KEY_TYPE, &types[type], sizeof types[type]},
                    {CKA_TOKEN, &both[bits & 1], 1},
                    {CKA_SENSITIVE, &both[bits >> 1 & 1], 1},
                    {CKA_EXTRACTABLE, &both[bits >> 2 & 1], 1},
                    {CKA_PRIVATE, &both[bits >> 3 & 1], 1},
                    {uses[use], &both[1], 1},
                };

                assert_int_not_equal(
                    CALL(&o, C_UnwrapKey, &o.kw, handle_of(o.old), o.wrapped.data, BK_AESKW_LEN, at, 7, &object),
                    CKR_OK);
            }
    operator_end(&o);
}

static CK_OBJECT_HANDLE open_sealed(struct operator* o)
{
    CK_OBJECT_HANDLE object = P11_NO_HANDLE;

    ok(p11_open_sealed(&o->s, p11_key_of(o->old), o->wrapped.data, &object, &err));
    return object;
}

static void
reads_and_changes_nothing(void **state)
{
    static const struct {
        CK_ATTRIBUTE_TYPE type;
        CK_BBOOL value;
    } changes[] = {{CKA_SENSITIVE, CK_FALSE}, {CKA_WRAP_WITH_TRUSTED, CK_FALSE},
                   {CKA_DECRYPT, CK_TRUE},    {CKA_ENCRYPT, CK_TRUE},
                   {CKA_DERIVE, CK_TRUE},     {CKA_WRAP, CK_TRUE},
                   {CKA_MODIFIABLE, CK_TRUE}, {CKA_TRUSTED, CK_TRUE},
                   {CKA_EXTRACTABLE, CK_TRUE}};
    struct operator o;
    CK_OBJECT_HANDLE objects[3];
    uint8_t value[64];
    CK_ATTRIBUTE read = {CKA_VALUE, value, sizeof value};

    (void)state;
    operator_start(&o);
    objects[0] = handle_of(o.old);
    objects[1] = handle_of(o.new);
    objects[2] = open_sealed(&o);
    for (size_t i = 0; i < 3; i++) {
        assert_int_not_equal(CALL(&o, C_GetAttributeValue, objects[i], &read, 1), CKR_OK);
        for (size_t c = 0; c < sizeof changes / sizeof changes[0]; c++) {
            CK_ATTRIBUTE a = {changes[c].type, (void *)(uintptr_t)&changes[c].value, 1};
            CK_OBJECT_HANDLE copy = P11_NO_HANDLE;

            /* what is extractable already may be said to be so again */
            if (i == 2 && a.type == CKA_EXTRACTABLE)
                continue;
            assert_int_not_equal(CALL(&o, C_SetAttributeValue, objects[i], &a, 1), CKR_OK);
            assert_int_not_equal(CALL(&o, C_CopyObject, objects[i], &a, 1, &copy), CKR_OK);
        }
    }
    operator_end(&o);
}

static CK_OBJECT_HANDLE
make_own(struct operator* o, CK_BBOOL private, CK_BBOOL wraps)
{
    static uint8_t value[32] = {1, 2, 3};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_OBJECT_HANDLE object = P11_NO_HANDLE;
    CK_ATTRIBUTE at[] = {{CKA_CLASS, &class, sizeof class},
                         {CKA_KEY_TYPE, &type, sizeof type},
                         {CKA_TOKEN, &no, 1},
                         {CKA_PRIVATE, &private, 1},
                         {CKA_VALUE, value, sizeof value},
                         {CKA_WRAP, &wraps, 1},
                         {CKA_UNWRAP, &yes, 1},
                         {CKA_DECRYPT, &yes, 1},
                         {CKA_EXTRACTABLE, &yes, 1}};

    assert_int_equal(CALL(o, C_CreateObject, at, sizeof at / sizeof at[0], &object), CKR_OK);
    return object;
}

/* Out under a key that he knows, under a public key whose private half he has, or under the KEK itself to be opened by
 * something else. */
static void
carries_it_out_under_no_key_of_his_own(void **state)
{
    static const CK_MECHANISM_TYPE mechanisms[] = {CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD};
    struct operator o;
    CK_OBJECT_HANDLE cek, own, rsa = P11_NO_HANDLE, rsa_private = P11_NO_HANDLE;
    CK_MECHANISM pair = {.mechanism = CKM_RSA_PKCS_KEY_PAIR_GEN};
    CK_MECHANISM pkcs = {.mechanism = CKM_RSA_PKCS};
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ULONG bits = 2048;
    CK_BYTE exponent[] = {1, 0, 1};
    CK_ATTRIBUTE public[] = {{CKA_TOKEN, &no, 1},
                             {CKA_MODULUS_BITS, &bits, sizeof bits},
                             {CKA_PUBLIC_EXPONENT, exponent, 3},
                             {CKA_WRAP, &yes, 1}};
    CK_ATTRIBUTE private[] = {{CKA_TOKEN, &no, 1}, {CKA_DECRYPT, &yes, 1}};
    CK_ATTRIBUTE trust = {CKA_TRUSTED, &yes, 1};
    uint8_t out[512];
    CK_ULONG len;

    (void)state;
    operator_start(&o);
    cek = open_sealed(&o);
    own = make_own(&o, CK_TRUE, CK_TRUE);
    assert_int_not_equal(CALL(&o, C_SetAttributeValue, own, &trust, 1), CKR_OK);
    for (size_t i = 0; i < 2; i++) {
        CK_MECHANISM m = {.mechanism = mechanisms[i]};

        len = sizeof out;
        assert_int_not_equal(CALL(&o, C_WrapKey, &m, own, cek, out, &len), CKR_OK);
    }
    assert_int_equal(CALL(&o, C_GenerateKeyPair, &pair, public, 4, private, 2, &rsa, &rsa_private), CKR_OK);
    len = sizeof out;
    assert_int_not_equal(CALL(&o, C_WrapKey, &pkcs, rsa, cek, out, &len), CKR_OK);
    assert_int_not_equal(CALL(&o, C_SetAttributeValue, rsa, &trust, 1), CKR_OK);
    operator_end(&o);
}

/* As a key for ciphers and derivations, the opened one and the KEKs. */
static void
uses_it_for_nothing_else(void **state)
{
    static const CK_MECHANISM_TYPE ciphers[] = {CKM_AES_ECB, CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD};
    struct operator o;
    CK_OBJECT_HANDLE objects[3];
    CK_BYTE iv[16] = {0};
    CK_BYTE nonce[12] = {0};
    CK_GCM_PARAMS gcm = {.pIv = nonce, .ulIvLen = 12, .ulIvBits = 96, .ulTagBits = 128};
    CK_BYTE block[16] = {0};
    CK_KEY_DERIVATION_STRING_DATA data = {block, sizeof block};
    CK_MECHANISM more[] = {{CKM_AES_CBC, iv, sizeof iv}, {CKM_AES_CTR, NULL, 0}, {CKM_AES_GCM, &gcm, sizeof gcm}};
    CK_MECHANISM derive = {CKM_AES_ECB_ENCRYPT_DATA, &data, sizeof data};

    (void)state;
    operator_start(&o);
    objects[0] = open_sealed(&o);
    objects[1] = handle_of(o.old);
    objects[2] = handle_of(o.new);
    for (size_t i = 0; i < 3; i++) {
        CK_OBJECT_HANDLE derived = P11_NO_HANDLE;

        for (size_t c = 0; c < 3; c++) {
            CK_MECHANISM m = {.mechanism = ciphers[c]};

            assert_int_not_equal(CALL(&o, C_DecryptInit, &m, objects[i]), CKR_OK);
            assert_int_not_equal(CALL(&o, C_EncryptInit, &m, objects[i]), CKR_OK);
            assert_int_not_equal(CALL(&o, C_DecryptInit, &more[c], objects[i]), CKR_OK);
            assert_int_not_equal(CALL(&o, C_EncryptInit, &more[c], objects[i]), CKR_OK);
        }
        assert_int_not_equal(CALL(&o, C_DeriveKey, &derive, objects[i], NULL, 0, &derived), CKR_OK);
    }
    operator_end(&o);
}

/* Made by the security officer with one thing other than it should be. */
struct flaw {
    const char *label;
    CK_ATTRIBUTE_TYPE changed; /* of the KEK */
    CK_BBOOL value;
    CK_ATTRIBUTE_TYPE missing; /* of what it opens; 0: nothing is */
    int no_template;
};

static void
make_flawed(struct softhsm_run *r, const struct flaw *flaw)
{
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};
    struct p11_session s = {0};
    struct p11_seal seal;
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_GEN};
    CK_OBJECT_HANDLE object = P11_NO_HANDLE;
    CK_ULONG len = 32;
    CK_ULONG count = 0;
    uint8_t id[16] = {0};
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ATTRIBUTE at[20];
    static const struct {
        CK_ATTRIBUTE_TYPE type;
        CK_BBOOL value;
    } flags[] = {{CKA_TOKEN, CK_TRUE},        {CKA_PRIVATE, CK_FALSE},   {CKA_SENSITIVE, CK_TRUE},
                 {CKA_EXTRACTABLE, CK_FALSE}, {CKA_TRUSTED, CK_TRUE},    {CKA_WRAP, CK_TRUE},
                 {CKA_UNWRAP, CK_TRUE},       {CKA_ENCRYPT, CK_FALSE},   {CKA_DECRYPT, CK_FALSE},
                 {CKA_DERIVE, CK_FALSE},      {CKA_MODIFIABLE, CK_FALSE}};

    memcpy(id, flaw->label, strlen(flaw->label));
    p11_seal_fill(&seal);
    for (CK_ULONG i = 0; i < seal.count; i++)
        if (flaw->missing != 0 && seal.at[i].type == flaw->missing)
            seal.at[i--] = seal.at[--seal.count];
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        CK_BBOOL value = flags[i].type == flaw->changed ? flaw->value : flags[i].value;

        at[count++] = (CK_ATTRIBUTE){flags[i].type, value ? &yes : &no, 1};
    }
    at[count++] = (CK_ATTRIBUTE){CKA_VALUE_LEN, &len, sizeof len};
    at[count++] = (CK_ATTRIBUTE){CKA_LABEL, (void *)(uintptr_t)flaw->label, strlen(flaw->label)};
    at[count++] = (CK_ATTRIBUTE){CKA_ID, id, sizeof id};
    if (!flaw->no_template)
        at[count++] = (CK_ATTRIBUTE){CKA_UNWRAP_TEMPLATE, seal.at, seal.count * sizeof seal.at[0]};
    ok(p11_uri_parse(&uri, "pkcs11:token=bk%20a", &err));
    ok(p11_tokens_look(r->p, &uri, &tokens, &err));
    assert_int_equal(tokens.count, 1);
    ok(p11_token_login_officer(tokens.at[0], NULL, &err));
    ok(p11_session_open(&s, tokens.at[0], &err));
    assert_int_equal(P11_CALL(&s.port, C_GenerateKey, s.handle, &mechanism, at, count, &object), CKR_OK);
    p11_session_close(&s);
    p11_uri_free(&uri);
}

static void
claims_nothing_of_what_only_looks_sealed(void **state)
{
    static const struct flaw flaws[] = {
        {.label = "flaw-decrypts", .changed = CKA_DECRYPT, .value = CK_TRUE},
        {.label = "flaw-encrypts", .changed = CKA_ENCRYPT, .value = CK_TRUE},
        {.label = "flaw-derives", .changed = CKA_DERIVE, .value = CK_TRUE},
        {.label = "flaw-untrusted", .changed = CKA_TRUSTED, .value = CK_FALSE},
        {.label = "flaw-modifiable", .changed = CKA_MODIFIABLE, .value = CK_TRUE},
        {.label = "flaw-no-template", .no_template = 1},
        {.label = "flaw-not-bound", .missing = CKA_WRAP_WITH_TRUSTED},
        {.label = "flaw-readable", .missing = CKA_SENSITIVE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof flaws / sizeof flaws[0]; i++) {
        struct softhsm_run r;
        struct bk_key *key = NULL;
        char uri[128];
        int enforces = 1;

        softhsm_start(&r);
        make_flawed(&r, &flaws[i]);
        softhsm_end(&r);
        softhsm_start(&r);
        (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20a;object=%s", flaws[i].label);
        ok(p11_key_open(r.p, uri, P11_USE_UNWRAP, &key, &err));
        ok(p11_seal_check(p11_key_of(key), &enforces, &err));
        if (enforces)
            fail_msg("%s is taken for sealed", flaws[i].label);
        bk_key_close(key);
        end(&r);
    }
}

/* A refusal that is a fault of the token, at any call of the check, makes no claim. */
static void
claims_nothing_while_the_token_fails(void **state)
{
    static const CK_RV faults[] = {CKR_GENERAL_ERROR, CKR_DEVICE_ERROR, CKR_SESSION_HANDLE_INVALID, CKR_HOST_MEMORY};

    (void)state;
    for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++)
        for (unsigned n = 1;; n++) {
            struct softhsm_run r;
            struct bk_key *key = NULL;
            int enforces = 0;
            unsigned calls;

            softhsm_start(&r);
            ok(p11_key_open(r.p, OLD, P11_USE_UNWRAP, &key, &err));
            calls = r.calls;
            r.fail_at = calls + n;
            r.fail_rv = faults[f];
            if (p11_seal_check(p11_key_of(key), &enforces, NULL) == BK_OK && enforces && r.calls >= r.fail_at) {
                /* it met the fault and could try that call again: then the claim is founded on an answer */
                assert_true(r.calls > r.fail_at);
            }
            calls = r.calls - calls;
            r.fail_at = 0;
            bk_key_close(key);
            end(&r);
            if (calls < n)
                break;
        }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotates_and_the_token_enforces),
        cmocka_unit_test(opens_it_in_no_readable_way),
        cmocka_unit_test(reads_and_changes_nothing),
        cmocka_unit_test(carries_it_out_under_no_key_of_his_own),
        cmocka_unit_test(uses_it_for_nothing_else),
        cmocka_unit_test(claims_nothing_of_what_only_looks_sealed),
        cmocka_unit_test(claims_nothing_while_the_token_fails),
    };

    return cmocka_run_group_tests(tests, setup, softhsm_teardown);
}
