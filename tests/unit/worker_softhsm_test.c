/* Keys on SoftHSM 2 through bk-token-worker: what they can do, and what becomes of it when the worker is killed. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/keywrap.h"
#include "format/pem.h"
#include "pkcs11/p11.h"
#include "tests/unit/fake_run.h"
#include "worker/client.h"

#define A "pkcs11:token=bk%20a"
#define B "pkcs11:token=bk%20b"

static char folder[] = "/tmp/bk-worker-hsm-XXXXXX";
static char module_file[512]; /* as p11-kit has it configured */
static char module_copy[64];  /* another file of the same, so that it is another module */

/* -- the tokens -----------------------------------------------------------------------------------------------------
 */

static int
command(char *const argv[])
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(126);
        (void)execvp(argv[0], argv);
        _exit(127);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0 ? 0 : -1;
}

static int
make_token(const char *label, const char *pin)
{
    char *const argv[] = {"softhsm2-util", "--init-token",         "--free",   "--label",  (char *)(uintptr_t)label,
                          "--pin",         (char *)(uintptr_t)pin, "--so-pin", "87654321", NULL};

    return command(argv);
}

struct run {
    struct p11 *p;
    struct p11_options options;
    struct bk_log log;
    const char *pin; /* instead of the right one */
    atomic_int asked;
    char warnings[4096];
};

static enum bk_code
on_pin(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err)
{
    struct run *r = ctx;
    const char *give = strcmp(req->token_label, "bk b") == 0 ? "56789" : "1234";

    r->asked++;
    if (r->pin != NULL)
        give = r->pin;
    return bk_secret_from(pin, give, strlen(give), err);
}

static void
on_warn(void *ctx, const char *message)
{
    struct run *r = ctx;
    size_t used = strlen(r->warnings);

    (void)snprintf(r->warnings + used, sizeof r->warnings - used, "%s\n", message);
}

static void
start(struct run *r)
{
    *r = (struct run){.log = {.ctx = r, .warn = on_warn}};
    r->options =
        (struct p11_options){.pin = on_pin, .pin_ctx = r, .log = &r->log, .worker = BK_TOKEN_WORKER, .timeout_s = 30};
    ok(p11_open(&r->options, &r->p, &err));
}

/* A worker that found a leak of its own, or another defect, ends with a status. */
static void
finish(struct run *r)
{
    p11_close(r->p);
    if (strstr(r->warnings, "ended with status") != NULL)
        fail_msg("%s", r->warnings);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static int
find_module(void)
{
    struct run r;
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};
    char *const argv[] = {"cp", module_file, module_copy, NULL};

    start(&r);
    ok(p11_uri_parse(&uri, A, &err));
    ok(p11_tokens_match(r.p, &uri, 0, &tokens, &err));
    if (tokens.count == 1 && tokens.at[0]->worker->file != NULL)
        (void)snprintf(module_file, sizeof module_file, "%s", tokens.at[0]->worker->file);
    p11_uri_free(&uri);
    finish(&r);
    (void)snprintf(module_copy, sizeof module_copy, "%s/copy.so", folder);
    return module_file[0] != '\0' ? command(argv) : -1;
}

static struct bk_key *
generate(struct run *r, const char *uri, enum p11_key_kind kind, int signing)
{
    const struct p11_generate what = {.kind = kind, .signing = signing};
    struct bk_key *key = NULL;

    ok(p11_key_generate(r->p, uri, &what, &key, &err));
    return key;
}

static int
setup(void **state)
{
    char path[96];
    int locked = 0;
    struct run r;
    FILE *f;

    (void)state;
    if (bk_secret_init(&locked, NULL) != BK_OK || mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/softhsm2.conf", folder);
    if ((f = fopen(path, "w")) == NULL)
        return -1;
    (void)fprintf(f, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", folder);
    if (fclose(f) != 0 || setenv("SOFTHSM2_CONF", path, 1) != 0)
        return -1;
    if (make_token("bk a", "1234") != 0 || make_token("bk b", "56789") != 0 || find_module() != 0)
        return -1;
    start(&r);
    bk_key_close(generate(&r, A ";object=aes", P11_AES256, 0));
    bk_key_close(generate(&r, A ";object=aes-2", P11_AES256, 0));
    bk_key_close(generate(&r, A ";object=p256", P11_P256, 0));
    bk_key_close(generate(&r, A ";object=sign", P11_P256, 1));
    bk_key_close(generate(&r, A ";object=rsa", P11_RSA3072, 0));
    bk_key_close(generate(&r, B ";object=aes-b", P11_AES256, 0));
    finish(&r);
    return r.asked == 2 ? 0 : -1;
}

static int
teardown(void **state)
{
    char *const argv[] = {"rm", "-rf", folder, NULL};

    (void)state;
    return command(argv);
}

/* -- what keys do ---------------------------------------------------------------------------------------------------
 */

static struct bk_key *
open_key(struct run *r, const char *uri, enum p11_use use)
{
    struct bk_key *key = NULL;

    ok(p11_key_open(r->p, uri, use, &key, &err));
    return key;
}

/* In any thread: NULL, or what failed. */
static const char *
try_kek(struct bk_key *key)
{
    static _Thread_local struct bk_err err;
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w = {0};
    const char *failed = NULL;

    if (bk_secret_random(&cek, BK_CEK_LEN, &err) != BK_OK ||
        (key->pub.spki == NULL ? bk_key_wrap(key, &cek, &w, &err) : bk_public_wrap(&key->pub, &cek, &w, &err)) !=
            BK_OK ||
        bk_key_unwrap(key, &w, &opened, &err) != BK_OK)
        failed = err.message;
    else if (!bk_secret_equal(&cek, &opened))
        failed = "another data key";
    bk_secret_wipe(&opened);
    if (failed == NULL) {
        w.data[w.len / 2] ^= 1;
        if (bk_key_unwrap(key, &w, &opened, NULL) != BK_E_VERIFY || opened.data != NULL)
            failed = "damage was not refused";
    }
    bk_secret_wipe(&cek);
    return failed;
}

static const char *
try_signer(struct bk_key *key)
{
    static _Thread_local struct bk_err err;
    const uint8_t digest[32] = {1, 2, 3};
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;

    if (bk_key_sign(key, digest, sig, &len, &err) != BK_OK ||
        bk_public_verify(&key->pub, bk_sig_alg_for(key->pub.type), digest, sig, len, &err) != BK_OK)
        return err.message;
    return NULL;
}

static void
works(const char *failed)
{
    if (failed != NULL)
        fail_msg("%s", failed);
}

static void
keys_of_every_kind(void **state)
{
    static const enum p11_key_kind kinds[] = {P11_RSA3072, P11_P384, P11_P256, P11_AES256};
    struct run r;
    char uri[64];
    char hint[256];

    (void)state;
    start(&r);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        for (int signing = 0; signing < 2; signing++) {
            struct bk_key *key;
            struct bk_public pub = {0};
            size_t small = 8;

            if (signing && kinds[i] == P11_AES256)
                continue;
            (void)snprintf(uri, sizeof uri, "%s;object=kind-%zu-%d", A, i, signing);
            key = generate(&r, uri, kinds[i], signing);
            works(signing ? try_signer(key) : try_kek(key));
            if (signing)
                assert_int_equal(bk_key_sign(key, (uint8_t[32]){0}, (uint8_t[8]){0}, &small, NULL), BK_E_INTERNAL);
            else
                assert_int_equal(bk_key_sign(key, (uint8_t[32]){0}, (uint8_t[8]){0}, &small, NULL), BK_E_UNSUPPORTED);
            (void)snprintf(hint, sizeof hint, "%s", key->pub.uri);
            bk_key_close(key);
            key = open_key(&r, hint, signing ? P11_USE_SIGN : P11_USE_UNWRAP);
            assert_string_equal(key->pub.uri, hint);
            works(signing ? try_signer(key) : try_kek(key));
            if (!signing) {
                ok(p11_public(r.p, hint, &pub, &err));
                assert_true(bk_key_id_equal(&pub.id, &key->pub.id) && pub.scheme == key->pub.scheme);
                bk_public_free(&pub);
            }
            ok(p11_key_destroy(key, &err));
            bk_key_close(key);
            refuses(BK_E_NO_KEY, "no key matches", p11_key_open(r.p, hint, P11_USE_UNWRAP, &key, &err));
        }
    assert_int_equal(r.asked, 1);
    /* SoftHSM opens OAEP with SHA-1 only, and that is heard from the worker */
    assert_non_null(strstr(r.warnings, "SHA-1"));
    finish(&r);
}

static void
moves_a_data_key_blindly(void **state)
{
    struct run r;
    struct bk_key *from, *to, *ec, *other;
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w = {0};
    struct bk_wrapped moved = {0};
    char uri[700];

    (void)state;
    start(&r);
    from = open_key(&r, A ";object=aes", P11_USE_UNWRAP);
    to = open_key(&r, A ";object=aes-2", P11_USE_WRAP);
    ec = open_key(&r, A ";object=p256", P11_USE_UNWRAP);
    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    ok(bk_key_wrap(from, &cek, &w, &err));
    ok(bk_key_rewrap(from, &w, to, &moved, &err));
    assert_true(bk_key_id_equal(&moved.id, &to->pub.id));
    ok(bk_key_unwrap(to, &moved, &opened, &err));
    assert_true(bk_secret_equal(&cek, &opened));
    bk_secret_wipe(&opened);
    w.data[5] ^= 4;
    refuses(BK_E_VERIFY, "damaged or forged", bk_key_rewrap(from, &w, to, &moved, &err));
    w.data[5] ^= 4;
    refuses(BK_E_UNSUPPORTED, "AES", bk_key_rewrap(from, &w, ec, &moved, &err));

    /* not from token to token, nor to the same token in another worker */
    other = open_key(&r, B ";object=aes-b", P11_USE_UNWRAP);
    refuses(BK_E_UNSUPPORTED, "both keys on one token", bk_key_rewrap(from, &w, other, &moved, &err));
    bk_key_close(other);
    (void)snprintf(uri, sizeof uri, "%s;object=aes-2?module-path=%s", A, module_copy);
    other = open_key(&r, uri, P11_USE_UNWRAP);
    works(try_kek(other));
    refuses(BK_E_UNSUPPORTED, "both keys on one token", bk_key_rewrap(from, &w, other, &moved, &err));
    bk_key_close(other);
    assert_int_equal(r.asked, 3);
    bk_secret_wipe(&cek);
    bk_key_close(from);
    bk_key_close(to);
    bk_key_close(ec);
    finish(&r);
}

static void
certificates(void **state)
{
    struct run r;
    struct bk_key *key;
    struct bk_buf der = {0};
    struct bk_buf got = {0};

    (void)state;
    start(&r);
    key = generate(&r, A ";object=certified", P11_P384, 1);
    refuses(BK_E_NO_KEY, "no certificate", p11_certificate(key, &got, &err));
    ok(bk_cert_self_sign(key, "bk test", 1700000000, 4000000000, &der, &err));
    ok(p11_certificate_store(key, der.data, der.len, &err));
    ok(p11_certificate(key, &got, &err));
    assert_int_equal(got.len, der.len);
    assert_memory_equal(got.data, der.data, der.len);
    refuses(BK_E_FORMAT, "not an X.509", p11_certificate_store(key, der.data, der.len - 1, &err));
    ok(p11_key_destroy(key, &err));
    bk_key_close(key);
    bk_buf_free(&der);
    bk_buf_free(&got);
    finish(&r);
}

static int
count_item(void *ctx, const struct p11_item *item)
{
    int *counts = ctx;

    assert_int_equal(strncmp(item->uri, A, strlen("pkcs11:")), 0);
    assert_string_equal(item->token_label, "bk a");
    counts[0]++;
    return counts[0] == counts[1];
}

static int
count_probe(void *ctx, const struct p11_probe_item *item)
{
    int *counts = ctx;

    assert_true(item->works || item->why != NULL);
    counts[0]++;
    return counts[0] == counts[1];
}

static void
lists_and_probes(void **state)
{
    struct run r;
    int counts[2] = {0, -1};
    size_t tokens = 0;
    char *token = NULL;

    (void)state;
    start(&r);
    ok(p11_list(r.p, A, 0, count_item, counts, &tokens, &err));
    assert_int_equal(counts[0], 3); /* public halves */
    assert_int_equal(r.asked, 0);
    counts[0] = 0;
    ok(p11_list(r.p, A, 1, count_item, counts, &tokens, &err));
    assert_int_equal(counts[0], 8);
    counts[0] = 0;
    counts[1] = 3;
    ok(p11_list(r.p, A, 1, count_item, counts, &tokens, &err));
    assert_int_equal(counts[0], 3);
    counts[0] = 0;
    counts[1] = 1;
    ok(p11_probe(r.p, A, 0, &token, count_probe, counts, &err));
    assert_non_null(token);
    assert_true(p11_uri_same_token(token, "pkcs11:token=bk%20a") == 0); /* it has a serial number too */
    assert_non_null(strstr(token, "token=bk%20a"));
    free(token);
    assert_int_equal(counts[0], 1);
    assert_int_equal(tokens, 1);
    finish(&r);
}

static void
finds_and_holds(void **state)
{
    struct run r;
    struct bk_key *aes = NULL, *key = NULL, *signer;
    struct bk_key_id ids[2] = {{{9, 9, 9, 9}, 4}};
    struct bk_public none = {.id = {{9, 9, 9, 9}, 4}};
    size_t which = 7;
    int holds = -1;

    (void)state;
    start(&r);
    aes = open_key(&r, A ";object=aes", P11_USE_UNWRAP);
    ids[1] = aes->pub.id;
    ok(p11_key_find(r.p, A, ids, 2, &which, &key, &err));
    assert_int_equal(which, 1);
    works(try_kek(key));
    bk_key_close(key);
    key = NULL;
    refuses(BK_E_NO_KEY, "no key on these tokens", p11_key_find(r.p, A, ids, 1, &which, &key, &err));
    assert_null(key);
    signer = open_key(&r, A ";object=sign", P11_USE_SIGN);
    ok(p11_same_login_holds(signer, &aes->pub.id, 1, &holds, &err));
    assert_int_equal(holds, 1);
    ok(p11_same_login_holds(signer, &none.id, 1, &holds, &err));
    assert_int_equal(holds, 0);
    assert_int_equal(r.asked, 1);
    bk_key_close(signer);
    bk_key_close(aes);
    finish(&r);
}

static void
a_wrong_pin_is_tried_once(void **state)
{
    struct run r;
    struct bk_key *key = NULL;

    (void)state;
    start(&r);
    r.pin = "9999";
    refuses(BK_E_PIN, "token 'bk a': the PIN was refused and is not tried again: C_Login: CKR_PIN_INCORRECT",
            p11_key_open(r.p, A ";object=aes", P11_USE_UNWRAP, &key, &err));
    r.pin = NULL;
    refuses(BK_E_PIN, "not tried again", p11_key_open(r.p, A ";object=aes", P11_USE_UNWRAP, &key, &err));
    assert_int_equal(r.asked, 1);
    finish(&r);
}

/* -- killed ---------------------------------------------------------------------------------------------------------
 */

/* Kills every child; how many there were that had not died yet. */
static int
kill_workers(void)
{
    DIR *proc = opendir("/proc");
    const struct dirent *e;
    int count = 0;

    if (proc == NULL)
        return 0;
    while ((e = readdir(proc)) != NULL) {
        char path[300];
        char line[512] = "";
        char status = 0;
        int parent = 0;
        FILE *f;

        (void)snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
        if (e->d_name[0] < '1' || e->d_name[0] > '9' || (f = fopen(path, "r")) == NULL)
            continue;
        if (fgets(line, sizeof line, f) != NULL && strrchr(line, ')') != NULL &&
            sscanf(strrchr(line, ')') + 1, " %c %d", &status, &parent) == 2 && parent == getpid() && status != 'Z')
            count += kill((pid_t)strtol(e->d_name, NULL, 10), SIGKILL) == 0;
        (void)fclose(f);
    }
    (void)closedir(proc);
    return count;
}

static void
keys_are_found_again(void **state)
{
    struct run r;
    struct bk_key *aes, *aes2, *ec, *signer;
    struct bk_secret cek = {0};
    struct bk_wrapped w = {0};
    struct bk_wrapped moved = {0};
    struct bk_buf der = {0};
    int holds = 0;

    (void)state;
    start(&r);
    aes = open_key(&r, A ";object=aes", P11_USE_UNWRAP);
    aes2 = open_key(&r, A ";object=aes-2", P11_USE_WRAP);
    ec = open_key(&r, A ";object=p256", P11_USE_UNWRAP);
    signer = open_key(&r, A ";object=sign", P11_USE_SIGN);
    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    assert_true(kill_workers() > 0);
    ok(bk_key_wrap(aes, &cek, &w, &err));
    assert_int_equal(r.asked, 2);
    works(try_kek(ec));
    works(try_signer(signer));
    assert_int_equal(r.asked, 2);
    assert_true(kill_workers() > 0);
    ok(bk_key_rewrap(aes, &w, aes2, &moved, &err));
    assert_true(kill_workers() > 0);
    works(try_kek(aes2));
    ok(bk_key_rewrap(aes, &w, aes2, &moved, &err)); /* one of the two is known to the new one */
    assert_true(kill_workers() > 0);
    works(try_signer(signer));
    ok(p11_same_login_holds(signer, &ec->pub.id, 1, &holds, &err));
    assert_int_equal(holds, 1);
    refuses(BK_E_NO_KEY, "no certificate", p11_certificate(signer, &der, &err));
    assert_int_equal(r.asked, 5);
    /* and what is closed after a death needs nobody */
    assert_true(kill_workers() > 0);
    bk_key_close(aes);
    bk_key_close(aes2);
    bk_key_close(ec);
    bk_key_close(signer);
    bk_secret_wipe(&cek);
    assert_int_equal(r.asked, 5);
    finish(&r);
}

/* What was started beforehand is used, or ends with the run. */
static void
is_prepared_without_waiting(void **state)
{
    char by_path[700], key_by_path[720];
    const char *const uris[] = {A, by_path};
    const char *const keys[] = {A ";object=sign", key_by_path};

    (void)state;
    (void)snprintf(by_path, sizeof by_path, "%s?module-path=%s", A, module_file);
    (void)snprintf(key_by_path, sizeof key_by_path, "%s;object=sign?module-path=%s", A, module_file);
    for (size_t i = 0; i < 2; i++) {
        struct run r;
        struct bk_key *key;

        start(&r);
        p11_prepare(r.p, "nonsense");
        assert_int_equal(kill_workers(), 0);
        p11_prepare(r.p, uris[i]);
        p11_prepare(r.p, uris[i]);
        finish(&r);

        start(&r);
        p11_prepare(r.p, uris[i]);
        key = open_key(&r, keys[i], P11_USE_SIGN);
        works(try_signer(key));
        p11_prepare(r.p, uris[i]);
        bk_key_close(key);
        finish(&r);
    }
}

/* Two keys in two threads, while the worker is killed again and again. */
struct worker_thread {
    struct bk_key *key;
    atomic_int rounds;
    atomic_int *end;
    int signs;
};

static void *
work(void *arg)
{
    struct worker_thread *t = arg;
    const char *failed = NULL;

    while (failed == NULL && !atomic_load(t->end)) {
        failed = t->signs ? try_signer(t->key) : try_kek(t->key);
        t->rounds++;
    }
    return failed == NULL ? NULL : strdup(failed); /* it may be this thread's */
}

static int
has_worked_on(struct worker_thread *t)
{
    int from[2] = {t[0].rounds, t[1].rounds};

    for (int i = 0; i < 2000; i++) {
        if (t[0].rounds >= from[0] + 3 && t[1].rounds >= from[1] + 3)
            return 1;
        fake_nap(5);
    }
    return 0;
}

static void
work_in_two_threads(struct run *r, const char *first, const char *second, int kills)
{
    atomic_int end_of_it = 0;
    struct worker_thread t[2] = {{.key = open_key(r, first, P11_USE_UNWRAP), .end = &end_of_it},
                                 {.key = open_key(r, second, P11_USE_SIGN), .end = &end_of_it, .signs = 1}};
    pthread_t threads[2];
    int worked;

    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &t[i]), 0);
    worked = has_worked_on(t);
    for (int i = 0; worked && i < kills; i++) {
        (void)kill_workers();
        worked = has_worked_on(t);
    }
    end_of_it = 1;
    for (int i = 0; i < 2; i++) {
        void *failed = NULL;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        works(failed);
        bk_key_close(t[i].key);
    }
    assert_true(worked);
}

static void
threads_work_side_by_side(void **state)
{
    struct run r;
    char uri[700];

    (void)state;
    start(&r);
    work_in_two_threads(&r, A ";object=aes", A ";object=sign", 0);
    assert_int_equal(r.asked, 1);
    /* in two workers, of two modules */
    (void)snprintf(uri, sizeof uri, "%s;object=sign?module-path=%s", A, module_copy);
    work_in_two_threads(&r, A ";object=p256", uri, 0);
    assert_int_equal(r.asked, 2);
    finish(&r);
}

static void
killed_in_the_midst_of_it(void **state)
{
    struct run r;

    (void)state;
    start(&r);
    work_in_two_threads(&r, A ";object=aes", A ";object=sign", 4);
    assert_int_equal(r.asked, 5); /* once for each worker */
    finish(&r);
}

static void
a_refused_pin_does_not_come_again(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    char uri[700];

    (void)state;
    start(&r);
    (void)snprintf(uri, sizeof uri, "%s;object=aes?module-path=%s", A, module_file);
    r.pin = "9999";
    refuses(BK_E_PIN, "the PIN was refused", p11_key_open(r.p, uri, P11_USE_UNWRAP, &key, &err));
    assert_int_equal(kill_workers(), 1);
    r.pin = NULL;
    refuses(BK_E_TOKEN, "signal 9", p11_key_open(r.p, uri, P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_TOKEN, "signal 9", p11_key_open(r.p, uri, P11_USE_UNWRAP, &key, &err));
    (void)snprintf(uri, sizeof uri, "%s;object=aes?pin-value=1234&module-path=%s", A, module_file);
    refuses(BK_E_TOKEN, "signal 9", p11_key_open(r.p, uri, P11_USE_UNWRAP, &key, &err));
    assert_int_equal(r.asked, 1);
    finish(&r);
}

/* Nothing was under way, so nothing may have been done: what must not be repeated is not refused. */
static void
a_worker_that_died_idle_costs_nothing(void **state)
{
    struct run r;
    int counts[2] = {0, -1};
    size_t tokens = 0;

    (void)state;
    start(&r);
    ok(p11_list(r.p, A, 1, count_item, counts, &tokens, &err));
    for (int i = 0; i < 2; i++) {
        char uri[64];

        (void)snprintf(uri, sizeof uri, "%s;object=idle-%d", A, i);
        assert_true(kill_workers() > 0);
        fake_nap(20);
        if (i == 0) {
            bk_key_close(generate(&r, uri, P11_AES256, 0));
        } else {
            counts[0] = 0;
            ok(p11_list(r.p, A, 1, count_item, counts, &tokens, &err));
            assert_int_equal(counts[0], 9);
        }
    }
    finish(&r);
}

/* Opens the RSA key, and has the worker wrapped to: its number with the worker, which is new, is the first. */
static void
send_unwrap(struct process *p, struct connection *c, const struct bk_public *pub)
{
    struct wire_out o = {0};
    struct bk_wrapped w = {0};
    struct bk_secret cek = {0};

    ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
    ok(bk_public_wrap(pub, &cek, &w, &err));
    wire_begin(&o, WIRE_UNWRAP);
    wire_put_u32(&o, 0);
    wire_put_wrapped(&o, &w);
    ok(process_send(p, c, &o, NULL, &err));
    bk_secret_wipe(&cek);
    bk_buf_free(&o.body);
}

static void
send_close(struct process *p, struct connection *c)
{
    struct wire_out o = {0};

    wire_begin(&o, WIRE_CLOSE);
    wire_put_u32(&o, 0);
    ok(process_send(p, c, &o, NULL, &err));
    bk_buf_free(&o.body);
}

static enum bk_code
answer_of(struct process *p, struct connection *c, int *secret)
{
    struct wire_in in = {0};
    enum bk_code rc;

    ok(process_receive(p, c, &in, &err));
    rc = (enum bk_code)wire_get_u32(&in);
    *secret = in.secret.len == BK_CEK_LEN;
    wire_in_free(&in);
    return rc;
}

/* As a program does whose request was broken off: the key is closed over another connection while the first one's call
 * is still under way. */
static void
a_key_at_work_is_closed_after_it(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct run r;
        struct connection *working = NULL, *closing = NULL;
        struct process *p;
        struct bk_key *key;
        struct bk_wrapped w = {0};
        struct bk_secret cek = {0};
        int secret = 0;

        start(&r);
        key = open_key(&r, A ";object=rsa", P11_USE_UNWRAP);
        p = r.p->workers->process;
        ok(process_connect(p, &working, &err));
        ok(process_connect(p, &closing, &err));
        send_unwrap(p, working, &key->pub);
        fake_nap(1); /* it has come to the module's RSA, which takes longer */
        send_close(p, closing);
        assert_int_equal(answer_of(p, closing, &secret), BK_OK);
        assert_int_equal(answer_of(p, working, &secret), BK_OK);
        assert_true(secret);
        process_release(p, working, 1);
        process_release(p, closing, 1);
        refuses(BK_E_FORMAT, "number of a key", bk_key_unwrap(key, &w, &cek, &err));
        bk_key_close(key);
        finish(&r);
    }
}

static void *
keep_killing(void *arg)
{
    atomic_int *end_of_it = arg;

    while (!atomic_load(end_of_it)) {
        (void)kill_workers();
        fake_nap(1);
    }
    return NULL;
}

static void
three_deaths_in_a_row_are_enough(void **state)
{
    struct run r;
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};
    atomic_int end_of_it = 0;
    pthread_t killer;
    struct bk_err got = {0};
    char text[700];

    (void)state;
    start(&r);
    (void)snprintf(text, sizeof text, "%s?module-path=%s", A, module_file);
    ok(p11_uri_parse(&uri, text, &err));
    ok(p11_tokens_match(r.p, &uri, 0, &tokens, &err));
    assert_int_equal(pthread_create(&killer, NULL, keep_killing, &end_of_it), 0);
    for (int i = 0; i < 100 && strstr(got.message, "given up after 3 failures") == NULL; i++)
        (void)!p11_tokens_match(r.p, &uri, 0, &tokens, &got);
    end_of_it = 1;
    assert_int_equal(pthread_join(killer, NULL), 0);
    refuses(BK_E_TOKEN, "given up after 3 failures: module '", p11_tokens_match(r.p, &uri, 0, &tokens, &err));
    refuses(BK_E_TOKEN, "signal 9, Killed", p11_tokens_match(r.p, &uri, 0, &tokens, &err));
    p11_uri_free(&uri);
    finish(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_and_probes),
        cmocka_unit_test(keys_of_every_kind),
        cmocka_unit_test(moves_a_data_key_blindly),
        cmocka_unit_test(certificates),
        cmocka_unit_test(finds_and_holds),
        cmocka_unit_test(a_wrong_pin_is_tried_once),
        cmocka_unit_test(keys_are_found_again),
        cmocka_unit_test(is_prepared_without_waiting),
        cmocka_unit_test(threads_work_side_by_side),
        cmocka_unit_test(killed_in_the_midst_of_it),
        cmocka_unit_test(a_worker_that_died_idle_costs_nothing),
        cmocka_unit_test(a_key_at_work_is_closed_after_it),
        cmocka_unit_test(a_refused_pin_does_not_come_again),
        cmocka_unit_test(three_deaths_in_a_row_are_enough),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
