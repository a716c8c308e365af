/*
 * The token layer on a real module: SoftHSM 2 (Debian: softhsm2), with two tokens of its own in a temporary folder. The
 * module is found among those that p11-kit has configured.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/hash.h"
#include "base/keywrap.h"
#include "pkcs11/find.h"
#include "pkcs11/p11.h"
#include "pkcs11/rv.h"

#define PIN_A "1234"
#define PIN_B "56789"

/* One run of a program: a p11 with a callback that gives the PIN of the token, counting calls of all kinds. */
struct run {
    struct p11 *p;
    struct p11_options options;
    struct bk_log log;
    const char *pin; /* instead of the right one; "" for none at all */
    int asked;
    int asked_b;
    int warnings;
    char warning[1024]; /* the last one */
    /* of the hook */
    unsigned calls;
    unsigned fail_at;
    const char *fail_call; /* every call of that name */
    CK_RV fail_rv;
    int sessions;
    int objects;
    int logins;
};

static char folder[] = "/tmp/bk-p11-test-XXXXXX";
static char module_file[512];

static void
on_warn(void *ctx, const char *message)
{
    struct run *r = ctx;

    r->warnings++;
    (void)snprintf(r->warning, sizeof r->warning, "%s", message);
}

static enum bk_code
on_pin(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err)
{
    struct run *r = ctx;
    int b = strcmp(req->token_label, "bk b") == 0;
    const char *right = b ? PIN_B : PIN_A;
    const char *give = r->pin != NULL ? r->pin : right;

    assert_true(strlen(req->token_serial) > 0);
    assert_false(req->security_officer);
    r->asked++;
    r->asked_b += b;
    if (give[0] == '\0')
        return bk_fail(err, BK_E_PIN, "no PIN for %s", req->token_label);
    return bk_secret_from(pin, give, strlen(give), err);
}

static CK_RV
before_call(void *ctx, const char *call)
{
    struct run *r = ctx;

    /* what cleans up is not made to fail: then a count of what is left would mean nothing */
    if (strcmp(call, "C_CloseSession") == 0 || strcmp(call, "C_DestroyObject") == 0 || strcmp(call, "C_Logout") == 0 ||
        strcmp(call, "C_Finalize") == 0)
        return CKR_OK;
    r->calls++;
    if (r->fail_call != NULL && strcmp(call, r->fail_call) == 0)
        return r->fail_rv;
    return r->calls == r->fail_at ? r->fail_rv : CKR_OK;
}

static void
after_call(void *ctx, const char *call, CK_RV rv)
{
    struct run *r = ctx;

    if (rv != CKR_OK)
        return;
    r->sessions += (strcmp(call, "C_OpenSession") == 0) - (strcmp(call, "C_CloseSession") == 0);
    r->objects += (strcmp(call, "C_UnwrapKey") == 0) + (strcmp(call, "C_DeriveKey") == 0) +
                  (strcmp(call, "C_CreateObject") == 0) - (strcmp(call, "C_DestroyObject") == 0);
    r->logins += strcmp(call, "C_Login") == 0;
}

static void
run_start(struct run *r)
{
    struct bk_err err = {0};

    *r = (struct run){0};
    r->log = (struct bk_log){.ctx = r, .warn = on_warn};
    r->options = (struct p11_options){.pin = on_pin, .pin_ctx = r, .log = &r->log};
    assert_int_equal(p11_open(&r->options, &r->p, &err), BK_OK);
    r->p->hook = (struct p11_hook){.ctx = r, .before = before_call, .after = after_call};
}

/* Every test ends with it: all sessions closed, all session objects gone. */
static void
run_end(struct run *r)
{
    p11_close(r->p);
    assert_int_equal(r->sessions, 0);
    assert_int_equal(r->objects, 0);
}

#define ok(call)                                                                                                       \
    do {                                                                                                               \
        struct bk_err err = {0};                                                                                       \
        if ((call) != BK_OK)                                                                                           \
            fail_msg("%s: %s", #call, err.message);                                                                    \
    } while (0)

#define refuses(code_, says, call)                                                                                     \
    do {                                                                                                               \
        struct bk_err err = {0};                                                                                       \
        assert_int_equal((call), code_);                                                                               \
        assert_int_equal(err.code, code_);                                                                             \
        if (strstr(err.message, says) == NULL)                                                                         \
            fail_msg("%s: %s", #call, err.message);                                                                    \
    } while (0)

static int
util(const char *label, const char *pin)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(126);
        execlp("softhsm2-util", "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin",
               "87654321", (char *)NULL);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The file of the configured module, to be named by module-path. */
static int
find_module(void)
{
    struct run r;
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};
    int found;

    run_start(&r);
    found = p11_uri_parse(&uri, "pkcs11:token=bk%20a", NULL) == BK_OK &&
            p11_tokens_match(r.p, &uri, &tokens, NULL) == BK_OK && tokens.count == 1 &&
            tokens.at[0]->module->file != NULL;
    if (found)
        (void)snprintf(module_file, sizeof module_file, "%s", tokens.at[0]->module->file);
    p11_uri_free(&uri);
    run_end(&r);
    return found;
}

static int
setup(void **state)
{
    char path[256];
    int locked = 0;
    FILE *f;

    (void)state;
    if (bk_secret_init(&locked, NULL) != BK_OK || mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/softhsm2.conf", folder);
    f = fopen(path, "w");
    if (f == NULL)
        return -1;
    (void)fprintf(f, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", folder);
    if (fclose(f) != 0 || setenv("SOFTHSM2_CONF", path, 1) != 0)
        return -1;
    if (util("bk a", PIN_A) != 0 || util("bk b", PIN_B) != 0)
        return -1;
    return find_module() ? 0 : -1;
}

static int
teardown(void **state)
{
    int status = -1;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        execlp("rm", "rm", "-rf", folder, (char *)NULL);
        _exit(127);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0 ? 0 : -1;
}

static void
generate(struct run *r, const char *uri, enum p11_key_kind kind, int signing, struct bk_key **key)
{
    struct p11_generate what = {.kind = kind, .signing = signing};

    ok(p11_key_generate(r->p, uri, &what, key, &err));
}

/* Made once, read by many tests. */
static void
generate_and_close(const char *uri, enum p11_key_kind kind, int signing)
{
    struct run r;
    struct bk_key *key = NULL;

    run_start(&r);
    generate(&r, uri, kind, signing, &key);
    bk_key_close(key);
    run_end(&r);
}

static void
wrap_any(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out)
{
    if (key->pub.spki == NULL)
        ok(bk_key_wrap(key, cek, out, &err));
    else
        ok(bk_public_wrap(&key->pub, cek, out, &err));
}

/* Wraps, opens, and meets every kind of damage. */
static void
exercise_kek(struct bk_key *key)
{
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w = {0};
    struct bk_wrapped bad;

    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    wrap_any(key, &cek, &w);
    assert_true(bk_key_id_equal(&w.id, &key->pub.id));
    ok(bk_key_unwrap(key, &w, &opened, &err));
    assert_true(bk_secret_equal(&cek, &opened));
    bk_secret_wipe(&opened);

    bad = w;
    bad.data[w.len / 2] ^= 1;
    assert_int_equal(bk_key_unwrap(key, &bad, &opened, NULL), BK_E_VERIFY);
    assert_null(opened.data);
    bad = w;
    bad.len--;
    assert_true(bk_code_is_verification(bk_key_unwrap(key, &bad, &opened, NULL)));
    if (w.ephemeral_len > 0) {
        bad = w;
        bad.ephemeral[40] ^= 1; /* off the curve */
        assert_int_equal(bk_key_unwrap(key, &bad, &opened, NULL), BK_E_FORMAT);
        bad = w;
        bad.ephemeral_len -= 1;
        assert_int_equal(bk_key_unwrap(key, &bad, &opened, NULL), BK_E_FORMAT);
    }
    bad = w;
    bad.scheme = w.scheme == BK_SCHEME_AES_KW ? BK_SCHEME_ECDH_P256 : BK_SCHEME_AES_KW;
    assert_int_equal(bk_key_unwrap(key, &bad, &opened, NULL), BK_E_FORMAT);

    /* and after all these failures it still works */
    ok(bk_key_unwrap(key, &w, &opened, &err));
    assert_true(bk_secret_equal(&cek, &opened));
    bk_secret_wipe(&opened);
    bk_secret_wipe(&cek);
}

static void
exercise_signer(struct bk_key *key)
{
    uint8_t digest[32] = {1, 2, 3};
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;
    size_t small = 8;

    ok(bk_key_sign(key, digest, sig, &len, &err));
    ok(bk_public_verify(&key->pub, bk_sig_alg_for(key->pub.type), digest, sig, len, &err));
    digest[0] ^= 1;
    assert_int_equal(bk_public_verify(&key->pub, bk_sig_alg_for(key->pub.type), digest, sig, len, NULL), BK_E_VERIFY);
    assert_int_equal(bk_key_sign(key, digest, sig, &small, NULL), BK_E_INTERNAL);
    assert_int_equal(bk_key_unwrap(key, &(struct bk_wrapped){0}, &(struct bk_secret){0}, NULL), BK_E_UNSUPPORTED);
}

/* -- keys of all kinds ----------------------------------------------------------------------------------------------
 */

static void
one_kek(enum p11_key_kind kind, const char *label, enum bk_key_type type, enum bk_scheme scheme)
{
    struct run r;
    struct bk_key *key = NULL;
    struct bk_key *again = NULL;
    struct bk_public pub = {0};
    char uri[128];
    char opened_uri[256];
    struct bk_key_id id;

    run_start(&r);
    (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20a;object=%s", label);
    generate(&r, uri, kind, 0, &key);
    assert_int_equal(r.asked, 1);
    assert_int_equal(key->pub.type, type);
    assert_int_equal(key->pub.scheme, scheme);
    assert_int_equal(key->pub.id.len, type == BK_KEY_AES256 ? 16 : BK_SKI_LEN);
    exercise_kek(key);
    id = key->pub.id;
    (void)snprintf(opened_uri, sizeof opened_uri, "%s", key->pub.uri);
    bk_key_close(key);

    /* the hint alone leads back to it, and no second PIN is asked for */
    ok(p11_key_open(r.p, opened_uri, P11_USE_UNWRAP, &again, &err));
    assert_true(bk_key_id_equal(&again->pub.id, &id));
    assert_int_equal(again->pub.scheme, scheme);
    exercise_kek(again);
    ok(p11_public(r.p, opened_uri, &pub, &err));
    assert_true(bk_key_id_equal(&pub.id, &id));
    assert_int_equal(pub.scheme, scheme);
    assert_string_equal(pub.uri, opened_uri);
    assert_true((pub.spki == NULL) == (type == BK_KEY_AES256));
    bk_public_free(&pub);
    bk_key_close(again);
    assert_int_equal(r.asked, 1);
    run_end(&r);
}

static void
rsa_kek(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w = {0};

    (void)state;
    one_kek(P11_RSA3072, "rsa", BK_KEY_RSA, BK_SCHEME_RSA_OAEP_SHA1);

    /* this module knows OAEP with SHA-1 only (docs/TOKENS.md): proven, and not silently */
    run_start(&r);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    assert_int_equal(key->pub.bits, 3072);
    assert_non_null(strstr(r.warning, "SHA-1"));
    key->pub.scheme = BK_SCHEME_RSA_OAEP_SHA256;
    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    wrap_any(key, &cek, &w);
    refuses(BK_E_UNSUPPORTED, "CKR_ARGUMENTS_BAD", bk_key_unwrap(key, &w, &opened, &err));
    bk_secret_wipe(&cek);
    bk_key_close(key);
    run_end(&r);
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
        struct run r;
        struct bk_key *key = NULL;

        run_start(&r);
        generate(&r, keys[i].uri, keys[i].kind, 1, &key);
        assert_int_equal(key->pub.scheme, BK_SCHEME_NONE);
        exercise_signer(key);
        bk_key_close(key);
        ok(p11_key_open(r.p, keys[i].uri, P11_USE_SIGN, &key, &err));
        exercise_signer(key);
        bk_key_close(key);
        /* it signs and does nothing else */
        refuses(BK_E_NO_KEY, "may not", p11_key_open(r.p, keys[i].uri, P11_USE_UNWRAP, &key, &err));
        run_end(&r);
    }
}

static int
collect(void *ctx, const struct p11_item *item)
{
    char *out = ctx;
    size_t used = strlen(out);

    (void)snprintf(out + used, 4096 - used, "%s|%s|%s|%d%d%d%d%d|%d%d%d%d%d\n", item->class_name, item->label,
                   bk_key_type_name(item->pub.type), item->sensitive, item->extractable, item->always_sensitive,
                   item->never_extractable, item->modifiable, item->can_decrypt, item->can_unwrap, item->can_wrap,
                   item->can_derive, item->can_sign);
    assert_true(strncmp(item->uri, "pkcs11:", 7) == 0);
    return 0;
}

static void
lists_what_is_there(void **state)
{
    struct run r;
    char text[4096] = "";
    size_t tokens = 0;

    (void)state;
    run_start(&r);
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=aes", 1, collect, text, &tokens, &err));
    assert_string_equal(text, "secret key|aes|aes256|10110|01100\n");
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=p256", 1, collect, text, &tokens, &err));
    assert_string_equal(text, "private key|p256|p256|10110|00010\npublic key|p256|p256|-1-1-1-10|-1-101-1\n");
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=sign-rsa;type=private", 1, collect, text, &tokens, &err));
    assert_string_equal(text, "private key|sign-rsa|rsa|10110|00001\n");
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=nothing", 1, collect, text, &tokens, &err));
    assert_int_equal(tokens, 0);
    run_end(&r);

    /* without a login only what is public, and no PIN */
    run_start(&r);
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=rsa", 0, collect, text, &tokens, &err));
    assert_string_equal(text, "public key|rsa|rsa|-1-1-1-10|-1-110-1\n");
    assert_int_equal(tokens, 1);
    assert_int_equal(r.asked, 0);
    run_end(&r);
}

/* -- what is refused ------------------------------------------------------------------------------------------------
 */

static void
names_what_is_missing(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    struct p11_generate aes = {.kind = P11_AES256};

    (void)state;
    run_start(&r);
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
    run_end(&r);
}

static void
a_wrong_pin_is_tried_once(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    size_t tokens = 0;
    size_t which = 0;
    struct bk_key_id id = {{1, 2, 3, 4}, 4};

    (void)state;
    run_start(&r);
    r.pin = "9999";
    refuses(BK_E_PIN, "token 'bk a': the PIN was refused and is not tried again: C_Login: CKR_PIN_INCORRECT",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    r.pin = NULL;
    refuses(BK_E_PIN, "not tried again",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=p256", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_PIN, "not tried again", p11_key_find(r.p, "pkcs11:token=bk%20a", &id, 1, &which, &key, &err));
    refuses(BK_E_PIN, "not tried again",
            p11_list(r.p, "pkcs11:token=bk%20a", 1, collect, (char[4096]){0}, &tokens, &err));
    assert_int_equal(r.asked, 1);
    assert_int_equal(r.logins, 0);
    run_end(&r);

    /* where there is none, that is asked once, too */
    run_start(&r);
    r.pin = "";
    refuses(BK_E_PIN, "no PIN for bk a",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_PIN, "no PIN is to be had",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    assert_int_equal(r.asked, 1);
    run_end(&r);

    /* a module that answers a wrong PIN with a general error does not get it twice either */
    run_start(&r);
    r.fail_call = "C_Login";
    r.fail_rv = CKR_GENERAL_ERROR;
    refuses(BK_E_TOKEN, "logging in failed",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    r.fail_call = NULL;
    refuses(BK_E_TOKEN, "not tried again",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=rsa", P11_USE_UNWRAP, &key, &err));
    assert_int_equal(r.asked, 1);
    run_end(&r);
}

static void
a_pin_in_the_uri_is_used_and_not_shown(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    char uri[700];
    struct bk_err shown = {0};

    (void)state;
    run_start(&r);
    (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20b;object=x?pin-value=SECRET7&module-path=%s", module_file);
    assert_int_equal(p11_key_open(r.p, uri, P11_USE_SIGN, &key, &shown), BK_E_PIN);
    assert_null(strstr(shown.message, "SECRET7"));
    run_end(&r);

    /* by path, while the same module is configured as well */
    run_start(&r);
    (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20a;object=p256?pin-value=" PIN_A "&module-path=%s", module_file);
    ok(p11_key_open(r.p, uri, P11_USE_UNWRAP, &key, &err));
    exercise_kek(key);
    assert_null(strstr(key->pub.uri, PIN_A));
    assert_null(strchr(key->pub.uri, '?'));
    bk_key_close(key);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=p384", P11_USE_UNWRAP, &key, &err));
    exercise_kek(key);
    bk_key_close(key);
    /* the second was logged in already, through the first */
    assert_int_equal(r.asked, 0);
    run_end(&r);
}

/* -- two tokens, and finding by id ----------------------------------------------------------------------------------
 */

static void
ids_of(struct run *r, const char *uri, struct bk_key_id *id)
{
    struct bk_public pub = {0};

    ok(p11_public(r->p, uri, &pub, &err));
    *id = pub.id;
    bk_public_free(&pub);
}

static void
finds_by_id_without_asking_the_wrong_token(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    struct bk_key_id ids[3];
    struct bk_key_id aes;
    struct bk_key_id unknown = {{9, 9, 9, 9}, 4};
    size_t which = 9;

    (void)state;
    generate_and_close("pkcs11:token=bk%20b;object=on-b", P11_P256, 0);
    run_start(&r);
    ids_of(&r, "pkcs11:token=bk%20b;object=on-b", &ids[2]);
    ids_of(&r, "pkcs11:token=bk%20a;object=rsa", &ids[1]);
    ids_of(&r, "pkcs11:token=bk%20a;object=aes", &aes);
    run_end(&r);
    ids[0] = unknown;

    /* a token that does not show the key is not asked for its PIN */
    run_start(&r);
    ok(p11_key_find(r.p, "pkcs11:", &ids[2], 1, &which, &key, &err));
    assert_int_equal(which, 0);
    assert_int_equal(r.asked, 1);
    assert_int_equal(r.asked_b, 1);
    exercise_kek(key);
    bk_key_close(key);
    /* two tokens in one process; the index is that of the id */
    ok(p11_key_find(r.p, "pkcs11:token=bk%20a", ids, 3, &which, &key, &err));
    assert_int_equal(which, 1);
    assert_int_equal(r.asked, 2);
    key->pub.scheme = BK_SCHEME_RSA_OAEP_SHA1; /* not probed when found: the wrapped key says its scheme */
    exercise_kek(key);
    bk_key_close(key);
    run_end(&r);

    /* a secret key is not seen before a login: not blindly, but on the token that is named */
    run_start(&r);
    key = NULL;
    refuses(BK_E_NO_KEY, "none of these tokens shows",
            p11_key_find(r.p, "pkcs11:manufacturer=SoftHSM%20project", &aes, 1, &which, &key, &err));
    assert_int_equal(r.asked, 0);
    ok(p11_key_find(r.p, "pkcs11:token=bk%20a", &aes, 1, &which, &key, &err));
    exercise_kek(key);
    bk_key_close(key);
    assert_int_equal(r.asked, 1);
    key = NULL;
    refuses(BK_E_NO_KEY, "no key on these tokens opens it: 'bk a'",
            p11_key_find(r.p, "pkcs11:token=bk%20a", &unknown, 1, &which, &key, &err));
    /* the object part of the URI narrows */
    refuses(BK_E_NO_KEY, "no key on these tokens",
            p11_key_find(r.p, "pkcs11:token=bk%20a;object=p256", &aes, 1, &which, &key, &err));
    refuses(BK_E_TOKEN, "no token matches", p11_key_find(r.p, "pkcs11:token=x", &aes, 1, &which, &key, &err));
    run_end(&r);
}

static void
knows_what_the_same_login_holds(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    struct bk_public rsa = {0};
    struct bk_public aes = {0};
    struct bk_public other = {0};
    int holds = -1;

    (void)state;
    run_start(&r);
    ok(p11_public(r.p, "pkcs11:token=bk%20a;object=rsa", &rsa, &err));
    ok(p11_public(r.p, "pkcs11:token=bk%20a;object=aes", &aes, &err));
    ok(p11_public(r.p, "pkcs11:token=bk%20b;object=on-b", &other, &err));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=sign-p256", P11_USE_SIGN, &key, &err));
    ok(p11_same_login_holds(key, &rsa, &holds, &err));
    assert_int_equal(holds, 1);
    ok(p11_same_login_holds(key, &aes, &holds, &err));
    assert_int_equal(holds, 1);
    ok(p11_same_login_holds(key, &other, &holds, &err));
    assert_int_equal(holds, 0);
    bk_key_close(key);
    bk_public_free(&rsa);
    bk_public_free(&aes);
    bk_public_free(&other);
    run_end(&r);
}

/* -- blind rewrap ---------------------------------------------------------------------------------------------------
 */

/* An object made without our own code, to have the odd ones that owners have. */
static void
make_raw(struct run *r, const char *uri_text, CK_ATTRIBUTE *template, CK_ULONG count)
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
make_raw_aes(struct run *r, const char *label, uint8_t id_byte, int can_wrap)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL wrap = can_wrap ? CK_TRUE : CK_FALSE;
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
                               {CKA_UNWRAP, &yes, sizeof yes}};

    make_raw(r, "pkcs11:token=bk%20a", template, sizeof template / sizeof template[0]);
}

static void
rewraps_blind_and_proves_it(void **state)
{
    struct run r;
    struct bk_key *old = NULL;
    struct bk_key *new = NULL;
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w = {0};
    struct bk_wrapped moved = {0};
    struct bk_wrapped bad;

    (void)state;
    generate_and_close("pkcs11:token=bk%20a;object=aes-2", P11_AES256, 0);
    run_start(&r);
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
    run_end(&r);
}

static void
does_not_rewrap_what_it_cannot_prove(void **state)
{
    struct run r;
    struct bk_key *old = NULL;
    struct bk_key *new = NULL;
    struct bk_key *ec = NULL;
    struct bk_secret cek = {0};
    struct bk_secret kek = {0};
    struct bk_wrapped w = {.scheme = BK_SCHEME_AES_KW, .len = BK_AESKW_LEN};
    struct bk_wrapped out = {0};
    uint8_t value[32] = {0x51, 1, 2, 3};

    (void)state;
    generate_and_close("pkcs11:token=bk%20b;object=aes-b", P11_AES256, 0);
    run_start(&r);
    make_raw_aes(&r, "no-wrap", 0x51, 0);
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
    run_end(&r);
}

/* -- odd objects ----------------------------------------------------------------------------------------------------
 */

static void
two_keys_of_one_label(void **state)
{
    struct run r;
    struct bk_key *key = NULL;

    (void)state;
    run_start(&r);
    make_raw_aes(&r, "twin", 0x61, 1);
    make_raw_aes(&r, "twin", 0x62, 1);
    refuses(BK_E_NO_KEY, "2 keys match pkcs11:token=bk%20a;object=twin: 'twin' (id 6",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=twin", P11_USE_UNWRAP, &key, &err));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=twin;id=%62%00%00%07", P11_USE_UNWRAP, &key, &err));
    exercise_kek(key);
    bk_key_close(key);
    run_end(&r);
}

static void
destroy_public_half(struct run *r, const struct p11_key *key)
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
    struct run r;
    struct bk_key *key = NULL;
    struct bk_key *other = NULL;
    struct bk_buf first = {0};
    struct bk_buf newer = {0};
    struct bk_buf got = {0};
    char text[4096] = "";
    size_t tokens = 0;

    (void)state;
    run_start(&r);
    generate(&r, "pkcs11:token=bk%20a;object=certified", P11_P384, 1, &key);
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
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=certified;type=cert", 0, collect, text, &tokens, &err));
    assert_non_null(strstr(text, "certificate|certified|p384|"));

    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=sign-p384", P11_USE_SIGN, &other, &err));
    refuses(BK_E_INTERNAL, "not for the key", p11_certificate_store(other, first.data, first.len, &err));
    refuses(BK_E_FORMAT, "not an X.509", p11_certificate_store(key, first.data, first.len - 1, &err));
    bk_key_close(other);

    /* the certificate alone tells the public half; and all of it goes together */
    destroy_public_half(&r, p11_key_of(key));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=certified", P11_USE_SIGN, &other, &err));
    exercise_signer(other);
    assert_true(bk_key_id_equal(&other->pub.id, &key->pub.id));
    bk_key_close(other);
    ok(p11_key_destroy(key, &err));
    r.objects += 3;
    bk_key_close(key);
    refuses(BK_E_NO_KEY, "no key matches",
            p11_key_open(r.p, "pkcs11:token=bk%20a;object=certified", P11_USE_SIGN, &other, &err));
    text[0] = '\0';
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=certified", 1, collect, text, &tokens, &err));
    assert_string_equal(text, "");
    bk_buf_free(&first);
    bk_buf_free(&newer);
    bk_buf_free(&got);
    run_end(&r);
}

static void
private_keys_without_public_half(void **state)
{
    struct run r;
    struct bk_key *rsa = NULL;
    struct bk_key *ec = NULL;
    struct bk_key *found = NULL;
    size_t which = 9;

    (void)state;
    run_start(&r);
    generate(&r, "pkcs11:token=bk%20b;object=lone-rsa", P11_RSA3072, 0, &rsa);
    generate(&r, "pkcs11:token=bk%20b;object=lone-ec", P11_P256, 0, &ec);
    destroy_public_half(&r, p11_key_of(rsa));
    destroy_public_half(&r, p11_key_of(ec));
    /* an RSA private key tells its modulus */
    ok(p11_key_open(r.p, "pkcs11:token=bk%20b;object=lone-rsa", P11_USE_UNWRAP, &found, &err));
    exercise_kek(found);
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
    run_end(&r);
}

/* A private key that wants its PIN before each use. */
static void
always_authenticate(void **state)
{
    struct run r;
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
    run_start(&r);
    make_raw(&r, "pkcs11:token=bk%20a", private, sizeof private / sizeof private[0]);
    make_raw(&r, "pkcs11:token=bk%20a", public, sizeof public / sizeof public[0]);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=each-time", P11_USE_SIGN, &key, &err));
    assert_int_equal(p11_key_of(key)->traits.always_authenticate, 1);
    r.logins = 0;
    exercise_signer(key);
    /* two signatures were made: two context logins, and no further question */
    assert_int_equal(r.logins, 2);
    assert_int_equal(r.asked, 1);
    bk_key_close(key);
    BN_clear_free(d);
    EVP_PKEY_free(pair);
    run_end(&r);
}

/* -- faults ---------------------------------------------------------------------------------------------------------
 */

/* Every session of the module dies, with its login, as when a token was pulled or a server forgot us. */
static void
outlives_a_lost_session(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    struct bk_key *signer = NULL;
    struct p11_key *inner;

    (void)state;
    run_start(&r);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=p256", P11_USE_UNWRAP, &key, &err));
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=sign-p256", P11_USE_SIGN, &signer, &err));
    inner = p11_key_of(key);
    assert_int_equal(P11_CALL(&inner->session.port, C_CloseAllSessions, inner->token->slot), CKR_OK);
    r.sessions = 0;
    exercise_kek(key);
    exercise_signer(signer);
    assert_int_equal(r.asked, 1);
    bk_key_close(key);
    bk_key_close(signer);
    run_end(&r);
}

/* A key that is not the same any more is not used. */
static void
notices_a_key_that_is_gone(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    struct bk_key *same = NULL;
    uint8_t digest[32] = {0};
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;

    (void)state;
    run_start(&r);
    generate(&r, "pkcs11:token=bk%20a;object=goes", P11_P256, 1, &key);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=goes", P11_USE_SIGN, &same, &err));
    ok(p11_key_destroy(same, &err));
    r.objects += 2;
    bk_key_close(same);
    refuses(BK_E_NO_KEY, "not there any more", bk_key_sign(key, digest, sig, &len, &err));
    bk_key_close(key);
    run_end(&r);
}

static void
a_key_that_fails_its_trial_is_removed(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    struct p11_generate what = {.kind = P11_P256, .signing = 1};
    char text[4096] = "";
    size_t tokens = 0;

    (void)state;
    run_start(&r);
    r.fail_call = "C_Sign";
    r.fail_rv = CKR_FUNCTION_FAILED;
    refuses(BK_E_TOKEN, "the trial of", p11_key_generate(r.p, "pkcs11:token=bk%20a;object=bad", &what, &key, &err));
    assert_null(key);
    r.objects += 2; /* the pair, which was made by no call that is counted */
    r.fail_call = NULL;
    ok(p11_list(r.p, "pkcs11:token=bk%20a;object=bad", 1, collect, text, &tokens, &err));
    assert_string_equal(text, "");
    run_end(&r);
}

enum { SCENARIOS = 5 };

/* Opens and uses a key in one of several ways; any failure is fine, as long as nothing is left behind. */
static enum bk_code
scenario(struct run *r, int which, const struct bk_wrapped *in, const struct bk_key_id *id)
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
    enum bk_code rc;

    if (which == 2)
        rc = p11_key_open(r->p, "pkcs11:token=bk%20a;object=sign-p256", P11_USE_SIGN, &key, &err);
    else
        rc = p11_key_find(r->p, "pkcs11:token=bk%20a", id, 1, &at, &key, &err);
    if (rc == BK_OK && (which == 0 || which == 1))
        rc = bk_key_unwrap(key, in, &opened, &err);
    if (rc == BK_OK && which == 2)
        rc = bk_key_sign(key, digest, sig, &len, &err);
    if (which == 3 && rc == BK_OK)
        rc = p11_key_open(r->p, "pkcs11:token=bk%20a;object=aes-2", P11_USE_WRAP, &to, &err);
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
        struct run r;
        struct bk_secret cek = {0};
        struct bk_wrapped w = {0};
        struct bk_key_id id = {{0}, 0};
        unsigned most;

        run_start(&r);
        if (keys[which] != NULL) {
            struct bk_key *key = NULL;
            char uri[64];

            (void)snprintf(uri, sizeof uri, "pkcs11:token=bk%%20a;object=%s", keys[which]);
            ok(p11_key_open(r.p, uri, P11_USE_UNWRAP, &key, &err));
            ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
            wrap_any(key, &cek, &w);
            id = key->pub.id;
            bk_secret_wipe(&cek);
            bk_key_close(key);
        }
        run_end(&r);
        run_start(&r);
        assert_int_equal(scenario(&r, which, &w, &id), BK_OK);
        most = r.calls;
        run_end(&r);
        for (unsigned n = 1; n <= most; n++) {
            run_start(&r);
            r.fail_at = n;
            r.fail_rv = faults[n % (sizeof faults / sizeof faults[0])];
            (void)!scenario(&r, which, &w, &id);
            assert_true(r.asked <= 1);
            run_end(&r);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rsa_kek),
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
        cmocka_unit_test(rewraps_blind_and_proves_it),
        cmocka_unit_test(does_not_rewrap_what_it_cannot_prove),
        cmocka_unit_test(two_keys_of_one_label),
        cmocka_unit_test(keeps_certificates_with_keys),
        cmocka_unit_test(private_keys_without_public_half),
        cmocka_unit_test(always_authenticate),
        cmocka_unit_test(outlives_a_lost_session),
        cmocka_unit_test(notices_a_key_that_is_gone),
        cmocka_unit_test(a_key_that_fails_its_trial_is_removed),
        cmocka_unit_test(every_failing_call_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
