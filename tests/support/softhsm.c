#include "tests/support/softhsm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/keywrap.h"

static char folder[] = "/tmp/bk-p11-test-XXXXXX";
static char module_file[512];

static void
on_warn(void *ctx, const char *message)
{
    struct softhsm_run *r = ctx;

    r->warnings++;
    (void)snprintf(r->warning, sizeof r->warning, "%s", message);
}

static enum bk_code
on_pin(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err)
{
    struct softhsm_run *r = ctx;
    int b = strcmp(req->token_label, "bk b") == 0;
    const char *right = b ? SOFTHSM_PIN_B : SOFTHSM_PIN_A;
    const char *give = r->pin != NULL ? r->pin : right;

    assert_true(strlen(req->token_serial) > 0);
    if (req->security_officer)
        return bk_secret_from(pin, SOFTHSM_SO_PIN, strlen(SOFTHSM_SO_PIN), err);
    r->asked++;
    r->asked_b += b;
    if (give[0] == '\0')
        return bk_fail(err, BK_E_PIN, "no PIN for %s", req->token_label);
    return bk_secret_from(pin, give, strlen(give), err);
}

static CK_RV
before_call(void *ctx, const char *call)
{
    struct softhsm_run *r = ctx;

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
    struct softhsm_run *r = ctx;

    if (rv != CKR_OK)
        return;
    r->sessions += (strcmp(call, "C_OpenSession") == 0) - (strcmp(call, "C_CloseSession") == 0);
    r->objects += (strcmp(call, "C_UnwrapKey") == 0) + (strcmp(call, "C_DeriveKey") == 0) +
                  (strcmp(call, "C_CreateObject") == 0) - (strcmp(call, "C_DestroyObject") == 0);
    r->logins += strcmp(call, "C_Login") == 0;
}

void
softhsm_start(struct softhsm_run *r)
{
    struct bk_err err = {0};

    *r = (struct softhsm_run){0};
    r->log = (struct bk_log){.ctx = r, .warn = on_warn};
    r->options = (struct p11_options){.pin = on_pin, .pin_ctx = r, .log = &r->log};
    assert_int_equal(p11_open(&r->options, &r->p, &err), BK_OK);
    r->p->hook = (struct p11_hook){.ctx = r, .before = before_call, .after = after_call};
}

void
softhsm_end(struct softhsm_run *r)
{
    p11_close(r->p);
    assert_int_equal(r->sessions, 0);
    assert_int_equal(r->objects, 0);
}

static int
util(const char *label, const char *pin)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(126);
        execlp("softhsm2-util", "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin",
               SOFTHSM_SO_PIN, (char *)NULL);
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
    struct softhsm_run r;
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};
    int found;

    softhsm_start(&r);
    found = p11_uri_parse(&uri, "pkcs11:token=bk%20a", NULL) == BK_OK &&
            p11_tokens_look(r.p, &uri, &tokens, NULL) == BK_OK && tokens.count == 1 &&
            tokens.at[0]->module->file != NULL;
    if (found)
        (void)snprintf(module_file, sizeof module_file, "%s", tokens.at[0]->module->file);
    p11_uri_free(&uri);
    softhsm_end(&r);
    return found;
}

const char *
softhsm_module(void)
{
    return module_file;
}

int
softhsm_setup(void **state)
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
    if (util("bk a", SOFTHSM_PIN_A) != 0 || util("bk b", SOFTHSM_PIN_B) != 0)
        return -1;
    return find_module() ? 0 : -1;
}

int
softhsm_teardown(void **state)
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

void
softhsm_generate(struct softhsm_run *r, const char *uri, enum p11_key_kind kind, int signing, struct bk_key **key)
{
    struct p11_generate what = {.kind = kind, .signing = signing};

    ok(p11_key_generate(r->p, uri, &what, key, &err));
}

void
softhsm_make(const char *uri, enum p11_key_kind kind, int signing)
{
    struct softhsm_run r;
    struct bk_key *key = NULL;

    softhsm_start(&r);
    softhsm_generate(&r, uri, kind, signing, &key);
    bk_key_close(key);
    softhsm_end(&r);
}

void
softhsm_wrap(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out)
{
    if (key->pub.spki == NULL)
        ok(bk_key_wrap(key, cek, out, &err));
    else
        ok(bk_public_wrap(&key->pub, cek, out, &err));
}

void
softhsm_use_kek(struct bk_key *key)
{
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w = {0};
    struct bk_wrapped bad;

    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    softhsm_wrap(key, &cek, &w);
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

void
softhsm_use_signer(struct bk_key *key)
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

int
softhsm_collect(void *ctx, const struct p11_item *item)
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
