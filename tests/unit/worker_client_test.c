/* The token layer by workers that misbehave (fake_worker.c): what is started anew and repeated, what never is, and that
 * what a worker says is not believed. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "pkcs11/p11.h"
#include "tests/unit/fake_run.h"
#include "worker/client.h"

#define TOKEN    "pkcs11:token=fake%20token"
#define KEY      TOKEN ";object=key"
#define BY_PATH  "?module-path=/fake.so"
#define ALL_DIED "given up after 3 failures: "

/* Of wire.h's requests, as FAKE_WORKER's rules have them. */
enum { MODULES = 1, ONLY, MATCH, OPEN_KEY = 7, FIND_KEY, PUBLIC, GENERATE, LIST, WRAP = 13, UNWRAP, REWRAP };

struct run {
    struct p11 *p;
    struct bk_log log;
    struct bk_cancel cancel;
    const char *pin; /* NULL: there is none */
    int asked;
    int warnings;
    char warning[1024];
    char source[64];
};

static enum bk_code
on_pin(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err)
{
    struct run *r = ctx;

    r->asked++;
    (void)snprintf(r->source, sizeof r->source, "%s", req->pin_source == NULL ? "none" : req->pin_source);
    if (r->pin == NULL)
        return bk_fail(err, BK_E_PIN, "there is no PIN");
    return bk_secret_from(pin, r->pin, strlen(r->pin), err);
}

static void
on_warn(void *ctx, const char *message)
{
    struct run *r = ctx;

    r->warnings++;
    (void)snprintf(r->warning, sizeof r->warning, "%s", message);
}

static void
start(struct run *r, const char *rules)
{
    struct p11_options options = {.pin = on_pin, .worker = BK_FAKE_WORKER, .timeout_s = 1};

    fake_act(rules);
    *r = (struct run){.log = {.ctx = r, .warn = on_warn}, .cancel = {.fd = -1}, .pin = "1234"};
    options.pin_ctx = r;
    options.log = &r->log;
    options.cancel = &r->cancel;
    r->cancel.fd = eventfd(0, EFD_CLOEXEC);
    ok(p11_open(&options, &r->p, &err));
}

static void
finish(struct run *r)
{
    p11_close(r->p);
    (void)close(r->cancel.fd);
}

static struct bk_key *
open_key(struct run *r)
{
    struct bk_key *key = NULL;

    ok(p11_key_open(r->p, KEY, P11_USE_UNWRAP, &key, &err));
    return key;
}

static enum bk_code
unwrap(struct bk_key *key, struct bk_err *err)
{
    const struct bk_wrapped w = {.scheme = BK_SCHEME_AES_KW, .id = {{1, 2, 3, 4}, 4}, .len = BK_AESKW_LEN};
    struct bk_secret cek = {0};
    enum bk_code rc = bk_key_unwrap(key, &w, &cek, err);

    assert_int_equal(cek.len, rc == BK_OK ? BK_CEK_LEN : 0);
    bk_secret_wipe(&cek);
    return rc;
}

/* -- started anew ---------------------------------------------------------------------------------------------------
 */

static void
a_request_that_killed_it_is_made_once_more(void **state)
{
    static const char *const hows[] = {"segv", "abrt", "exit3", "garbage", "type", "request", "toolong"};

    (void)state;
    for (size_t i = 0; i < sizeof hows / sizeof hows[0]; i++) {
        struct run r;
        struct bk_key *key;
        char rules[64];
        int before = fake_lives();

        (void)snprintf(rules, sizeof rules, "%d/%d=%s", before + 1, UNWRAP, hows[i]);
        start(&r, rules);
        key = open_key(&r);
        ok(unwrap(key, &err));
        ok(unwrap(key, &err));
        assert_int_equal(fake_lives(), before + 2);
        bk_key_close(key);
        finish(&r);
    }
}

static void
it_is_not_made_for_ever(void **state)
{
    struct run r;
    struct bk_key *key;
    struct bk_err got = {0};

    (void)state;
    start(&r, "*/14=segv");
    key = open_key(&r);
    refuses(BK_E_TOKEN, "module 'fake': the module crashed in C_Sign: signal 11", unwrap(key, &err));
    assert_int_equal(fake_lives(), 2);
    /* the third death ends it for this run */
    assert_int_equal(unwrap(key, &got), BK_E_TOKEN);
    assert_int_equal(fake_lives(), 3);
    refuses(BK_E_TOKEN, ALL_DIED "module 'fake': the module crashed", unwrap(key, &err));
    assert_int_equal(fake_lives(), 3);
    bk_key_close(key);
    finish(&r);
}

static void
success_forgives_deaths(void **state)
{
    struct run r;
    struct bk_key *key;

    (void)state;
    start(&r, "1/14=segv 2/13=segv 3/14=segv 4/13=segv");
    key = open_key(&r);
    for (int i = 0; i < 2; i++) {
        struct bk_secret cek = {0};
        struct bk_wrapped w = {0};

        ok(unwrap(key, &err));
        ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
        ok(bk_key_wrap(key, &cek, &w, &err));
        assert_memory_equal(w.data, cek.data, BK_CEK_LEN);
        bk_secret_wipe(&cek);
    }
    assert_int_equal(fake_lives(), 5);
    bk_key_close(key);
    finish(&r);
}

/* One death is one, however many threads it takes the answer from. */
static void *
unwrap_in_thread(void *arg)
{
    struct bk_err err = {0};

    return unwrap(arg, &err) == BK_OK ? NULL : strdup(err.message);
}

static void
one_death_counts_once(void **state)
{
    struct run r;
    struct bk_key *keys[6];
    pthread_t threads[6];

    (void)state;
    /* all of them wait in a call when it is killed for the one that does not come back */
    start(&r, "1/14=hang");
    for (int i = 0; i < 6; i++)
        keys[i] = open_key(&r);
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, unwrap_in_thread, keys[i]), 0);
    for (int i = 0; i < 6; i++) {
        void *failed = NULL;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        if (failed != NULL)
            fail_msg("%s", (const char *)failed);
    }
    assert_int_equal(fake_lives(), 2);
    for (int i = 0; i < 6; i++)
        bk_key_close(keys[i]);
    finish(&r);
}

struct opener {
    struct run *r;
    int number;
};

/* Each from a module of its own and from one that all have, with deaths in between. */
static void *
open_and_use(void *arg)
{
    struct bk_err err = {0};
    const struct opener *o = arg;
    enum bk_code rc = BK_OK;
    char uris[2][128];

    (void)snprintf(uris[0], sizeof uris[0], "%s?pin-value=1234&module-path=/fake-%d.so", KEY, o->number);
    (void)snprintf(uris[1], sizeof uris[1], "%s?pin-value=1234", KEY);
    for (int i = 0; rc == BK_OK && i < 4; i++) {
        struct bk_key *key = NULL;

        if ((rc = p11_key_open(o->r->p, uris[i % 2], P11_USE_UNWRAP, &key, &err)) == BK_OK)
            rc = unwrap(key, &err);
        bk_key_close(key);
    }
    return rc == BK_OK ? NULL : strdup(err.message);
}

static void
threads_open_keys_side_by_side(void **state)
{
    struct run r;
    struct opener openers[4];
    pthread_t threads[4];

    (void)state;
    assert_int_equal(setenv("FAKE_PIN", "1234", 1), 0);
    /* whose worker the first is differs; with a second death the same one could meet both */
    start(&r, "1/14=segv");
    for (int i = 0; i < 4; i++) {
        openers[i] = (struct opener){&r, i};
        assert_int_equal(pthread_create(&threads[i], NULL, open_and_use, &openers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed = NULL;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        if (failed != NULL)
            fail_msg("%s", (const char *)failed);
    }
    assert_int_equal(r.asked, 0);
    finish(&r);
}

static void
what_may_have_been_done_is_not_repeated(void **state)
{
    struct run r;
    struct p11_generate what = {.kind = P11_AES256};
    struct bk_key *key = NULL;
    struct bk_err err = {0};

    (void)state;
    start(&r, "1/10=segv");
    assert_int_equal(p11_key_generate(r.p, KEY, &what, &key, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "the module crashed"));
    assert_non_null(strstr(err.hint, "may have been made"));
    assert_int_equal(fake_logged("1 10"), 1);
    assert_int_equal(fake_logged("2 10"), 0);
    finish(&r);
}

static void
a_key_that_is_another_one_now_is_not_used(void **state)
{
    struct run r;
    struct bk_key *key;

    (void)state;
    start(&r, "1/14=segv */8=otherkey");
    key = open_key(&r);
    refuses(BK_E_NO_KEY, "is not there any more", unwrap(key, &err));
    bk_key_close(key);
    finish(&r);
}

/* A module that crashes when it is looked at is left out, with the reason; one that is named by path is an error. */
static void
a_module_that_never_works(void **state)
{
    struct run r;
    struct bk_key *key = NULL;

    (void)state;
    start(&r, "*/3=segv");
    refuses(BK_E_TOKEN, "no PKCS#11 module could be used", p11_key_open(r.p, KEY, P11_USE_UNWRAP, &key, &err));
    assert_non_null(strstr(r.warning, "left out"));
    assert_non_null(strstr(r.warning, "crashed"));
    finish(&r);

    start(&r, "*/3=segv");
    refuses(BK_E_TOKEN, "module '/fake.so': the module crashed in C_Sign",
            p11_key_open(r.p, KEY BY_PATH, P11_USE_UNWRAP, &key, &err));
    finish(&r);

    start(&r, "*/0=exit3");
    refuses(BK_E_TOKEN, "loading the modules that p11-kit has configured: the module ended its process",
            p11_key_open(r.p, KEY, P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_TOKEN, "module '/fake.so': the module ended its process",
            p11_key_open(r.p, KEY BY_PATH, P11_USE_UNWRAP, &key, &err));
    finish(&r);
    assert_null(key);
}

/* -- PINs -----------------------------------------------------------------------------------------------------------
 */

static void
want_pin(void)
{
    assert_int_equal(setenv("FAKE_PIN", "1234", 1), 0);
}

static void
a_pin_is_asked_again_only_after_a_login(void **state)
{
    struct run r;
    struct bk_key *key;

    (void)state;
    want_pin();
    start(&r, "1/14=segv");
    key = open_key(&r);
    assert_int_equal(r.asked, 1);
    ok(unwrap(key, &err));
    assert_int_equal(r.asked, 2);
    assert_int_equal(fake_logged(" login 1234"), 2);
    bk_key_close(key);
    finish(&r);
}

static void
a_refused_pin_is_never_given_again(void **state)
{
    struct run r;
    struct bk_key *key = NULL;

    (void)state;
    want_pin();
    start(&r, "1/14=segv");
    r.pin = "9999";
    refuses(BK_E_PIN, "the PIN was refused", p11_key_open(r.p, KEY BY_PATH, P11_USE_UNWRAP, &key, &err));
    assert_int_equal(fake_logged(" login 9999"), 1);
    finish(&r);

    /* not by a worker that dies of its answer, nor by one that dies later */
    start(&r, "*/7=aftersegv");
    r.pin = "9999";
    refuses(BK_E_TOKEN, "the module crashed in C_CloseSession",
            p11_key_open(r.p, KEY BY_PATH, P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_TOKEN, "the module crashed in C_CloseSession",
            p11_key_open(r.p, KEY BY_PATH, P11_USE_UNWRAP, &key, &err));
    assert_int_equal(r.asked, 1);
    assert_int_equal(fake_logged(" login 9999"), 2);
    finish(&r);

    start(&r, "*/9=segv");
    r.pin = "9999";
    refuses(BK_E_PIN, "the PIN was refused", p11_key_open(r.p, KEY BY_PATH, P11_USE_UNWRAP, &key, &err));
    refuses(BK_E_TOKEN, "the module crashed", p11_public(r.p, KEY BY_PATH, &(struct bk_public){0}, &err));
    refuses(BK_E_TOKEN, "the module crashed", p11_key_open(r.p, KEY BY_PATH, P11_USE_UNWRAP, &key, &err));
    assert_int_equal(r.asked, 1);
    finish(&r);
}

static void
a_login_that_was_under_way_is_not_made_again(void **state)
{
    static const char *const hows[] = {"*/7=loginsegv", "*/7=loginhang"};

    (void)state;
    want_pin();
    fake_speed = 4;
    for (size_t i = 0; i < 2; i++) {
        struct run r;
        struct bk_key *key = NULL;
        struct bk_err err = {0};

        start(&r, hows[i]);
        assert_int_equal(p11_key_open(r.p, KEY, P11_USE_UNWRAP, &key, &err), BK_E_TOKEN);
        assert_non_null(strstr(err.message, "C_Login"));
        assert_non_null(strstr(err.hint, "not tried again"));
        assert_int_equal(p11_key_open(r.p, KEY, P11_USE_UNWRAP, &key, &err), BK_E_TOKEN);
        assert_int_equal(p11_key_open(r.p, KEY "?pin-value=1234", P11_USE_UNWRAP, &key, &err), BK_E_TOKEN);
        assert_int_equal(r.asked, 1);
        assert_int_equal(fake_logged(" login 1234"), (int)i + 1);
        finish(&r);
    }
}

/* A death that another thread's request brings about in the midst of a login counts for it, too. */
static void *
open_in_thread(void *arg)
{
    struct run *r = arg;
    struct bk_key *key = NULL;
    struct bk_err err = {0};
    enum bk_code rc = p11_key_open(r->p, KEY, P11_USE_UNWRAP, &key, &err);

    bk_key_close(key);
    return rc == BK_E_TOKEN ? NULL : "it was opened";
}

static void
a_login_that_others_interrupt_is_not_made_again(void **state)
{
    struct run r;
    pthread_t thread;
    void *failed = NULL;
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};

    (void)state;
    want_pin();
    start(&r, "*/7=loginhang */4=garbage */5=garbage");
    ok(p11_uri_parse(&uri, KEY, &err));
    ok(p11_tokens_match(r.p, &uri, 0, &tokens, &err));
    assert_int_equal(tokens.count, 1);
    assert_int_equal(pthread_create(&thread, NULL, open_in_thread, &r), 0);
    for (int i = 0; i < 500 && fake_logged(" login 1234") == 0; i++)
        fake_nap(10);
    assert_int_equal(p11_token_is_open(tokens.at[0]), 0); /* nonsense: it is ended */
    assert_int_equal(pthread_join(thread, &failed), 0);
    if (failed != NULL)
        fail_msg("%s", (const char *)failed);
    assert_int_equal(fake_logged(" login 1234"), 1);
    assert_int_equal(r.asked, 1);
    p11_uri_free(&uri);
    finish(&r);
}

/* The PIN that comes again is the one that opened it: one in a later URI was never looked at. */
static void
the_pin_that_was_right_comes_again(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    struct bk_key *other = NULL;

    (void)state;
    want_pin();
    start(&r, "1/14=segv");
    ok(p11_key_open(r.p, KEY "?pin-value=1234", P11_USE_UNWRAP, &key, &err));
    ok(p11_key_open(r.p, KEY "?pin-value=9999", P11_USE_UNWRAP, &other, &err));
    ok(unwrap(key, &err));
    ok(unwrap(other, &err));
    assert_int_equal(r.asked, 0);
    assert_int_equal(fake_logged(" login 9999"), 0);
    assert_int_equal(fake_logged(" login 1234"), 2);
    bk_key_close(key);
    bk_key_close(other);
    finish(&r);
}

/* Of a security officer the PIN is asked for where one makes a key, and it is no user's after that. */
static void
an_officers_pin_is_no_users(void **state)
{
    const struct p11_generate sealed = {.kind = P11_AES256, .sealed = 1};
    const struct p11_generate plain = {.kind = P11_AES256};
    struct run r;
    struct bk_key *key = NULL;

    (void)state;
    want_pin();
    start(&r, "1/14=segv");
    ok(p11_key_generate(r.p, KEY "?pin-value=1234", &sealed, &key, &err));
    assert_int_equal(r.asked, 0);
    ok(unwrap(key, &err));
    assert_int_equal(r.asked, 1);
    bk_key_close(key);
    finish(&r);

    start(&r, "*/10=pinso");
    refuses(BK_E_PIN, "by a trick", p11_key_generate(r.p, KEY, &sealed, &key, &err));
    assert_int_equal(r.asked, 1);
    refuses(BK_E_TOKEN, "a PIN that is not its own", p11_key_generate(r.p, KEY, &plain, &key, &err));
    assert_int_equal(r.asked, 1);
    finish(&r);
}

/* A worker gets its token's PIN, from where the request's URI says, once. */
static void
a_pin_is_not_got_by_a_trick(void **state)
{
    static const struct {
        const char *rules, *message;
    } cases[] = {{"*/7=pinother", "a PIN that is not its own"}, {"*/7=pinserial", "a PIN that is not its own"},
                 {"*/7=pinso", "a PIN that is not its own"},    {"*/7=pinsource", "from another source"},
                 {"*/7=pintwice", "asked for its PIN again"},   {"*/3=pinplain", "a PIN that is not its own"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct run r;
        struct bk_key *key = NULL;

        start(&r, cases[i].rules);
        refuses(BK_E_TOKEN, cases[i].message, p11_key_open(r.p, KEY BY_PATH, P11_USE_UNWRAP, &key, &err));
        /* twice: in each of two lives, since nobody knows whether it was used */
        assert_in_range(r.asked, 0, strstr(cases[i].rules, "twice") != NULL ? 2 : 0);
        assert_int_equal(fake_logged(" login of an odd kind"), 0);
        finish(&r);
    }
}

/* -- what is not believed -------------------------------------------------------------------------------------------
 */

static void
results_that_are_nonsense(void **state)
{
    static const char *const hows[] = {"half", "more", "less"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct run r;
        struct bk_key *key;
        char rules[32];
        int before = fake_lives();

        (void)snprintf(rules, sizeof rules, "*/13=%s", hows[i]);
        start(&r, rules);
        key = open_key(&r);
        for (int times = 0; times < 3; times++) {
            struct bk_secret cek = {0};
            struct bk_wrapped w = {0};
            struct bk_err got = {0};

            ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
            assert_int_equal(bk_key_wrap(key, &cek, &w, &got), BK_E_TOKEN);
            if (strstr(got.message, "module 'fake': ") == NULL ||
                strstr(got.message, "is not what was agreed on") == NULL)
                fail_msg("%s", got.message);
            assert_int_equal(w.len, 0);
            bk_secret_wipe(&cek);
        }
        refuses(BK_E_TOKEN, ALL_DIED, unwrap(key, &err));
        assert_in_range(fake_lives() - before, 2, 3);
        bk_key_close(key);
        finish(&r);
    }
}

static void
a_public_half_is_checked(void **state)
{
    static const char *const hows[] = {"forged", "bare"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct run r;
        struct bk_public pub = {0};
        struct bk_key *key = NULL;
        struct bk_key_id id = {{1, 2, 3, 4}, 4};
        size_t which = 7;
        char rules[64];

        (void)snprintf(rules, sizeof rules, "*/7=%s */8=%s */9=%s */10=%s", hows[i], hows[i], hows[i], hows[i]);
        start(&r, rules);
        refuses(BK_E_TOKEN, "the public half of pkcs11:", p11_public(r.p, KEY, &pub, &err));
        assert_null(pub.uri);
        refuses(BK_E_TOKEN, "the public half of pkcs11:", p11_key_open(r.p, KEY, P11_USE_UNWRAP, &key, &err));
        refuses(BK_E_TOKEN, "the public half of pkcs11:", p11_key_find(r.p, TOKEN, &id, 1, &which, &key, &err));
        assert_null(key);
        assert_int_equal(which, 7);
        finish(&r);
    }
}

static void
a_key_that_was_not_looked_for(void **state)
{
    struct run r;
    struct bk_key *key = NULL;
    struct bk_key_id id = {{1, 2, 3, 5}, 4};
    size_t which = 7;

    (void)state;
    start(&r, "");
    refuses(BK_E_TOKEN, "another key was found", p11_key_find(r.p, TOKEN, &id, 1, &which, &key, &err));
    assert_null(key);
    finish(&r);
}

static void
a_wrapped_key_is_looked_at(void **state)
{
    static const char *const hows[] = {"otherid", "otherscheme", "otherlen"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct bk_wrapped in = {.scheme = BK_SCHEME_AES_KW, .id = {{1, 2, 3, 4}, 4}, .len = BK_AESKW_LEN};
        struct run r;
        struct bk_key *key;
        struct bk_secret cek = {0};
        struct bk_wrapped w = {0};
        char rules[64];

        (void)snprintf(rules, sizeof rules, "*/13=%s */15=%s", hows[i], hows[i]);
        start(&r, rules);
        key = open_key(&r);
        ok(bk_secret_random(&cek, BK_CEK_LEN, &err));
        refuses(BK_E_TOKEN, "not a data key wrapped to", bk_key_wrap(key, &cek, &w, &err));
        refuses(BK_E_TOKEN, "not a data key wrapped to", bk_key_rewrap(key, &in, key, &w, &err));
        assert_int_equal(w.len, 0);
        bk_secret_wipe(&cek);
        bk_key_close(key);
        finish(&r);
    }
}

static void
a_data_key_of_another_length(void **state)
{
    struct run r;
    struct bk_key *key;

    (void)state;
    start(&r, "*/14=shortcek");
    key = open_key(&r);
    refuses(BK_E_TOKEN, "a data key of 31 bytes", unwrap(key, &err));
    bk_key_close(key);
    finish(&r);
}

static int
count_items(void *ctx, const struct p11_item *item)
{
    int *count = ctx;

    assert_null(strchr(item->label, '\033'));
    assert_null(strchr(item->label, '\n'));
    assert_true(item->made == NULL || strchr(item->made, '\033') == NULL);
    return ++*count == 100000;
}

/* What steers a terminal is not in what is shown. */
static void
texts_are_made_plain(void **state)
{
    struct run r;
    struct p11_uri uri = {0};
    struct p11_tokens all = {0};
    struct bk_key *key = NULL;
    size_t tokens = 0;
    int count = 0;

    (void)state;
    start(&r, "*/3=steering */11=steering */7=tokenerror");
    ok(p11_list(r.p, TOKEN, 1, count_items, &count, &tokens, &err));
    assert_int_equal(count, 1);
    refuses(BK_E_TOKEN, "an ordinary error", p11_key_open(r.p, KEY, P11_USE_UNWRAP, &key, &err));
    finish(&r);
    start(&r, "*/3=steering");
    ok(p11_uri_parse(&uri, TOKEN BY_PATH, &err));
    ok(p11_tokens_match(r.p, &uri, 0, &all, &err));
    assert_int_equal(all.count, 1);
    assert_string_equal(p11_token_label(all.at[0]), "fake?[2Jtoken");
    p11_uri_free(&uri);
    finish(&r);
}

/* -- without an end --------------------------------------------------------------------------------------------------
 */

static void *
stop_soon(void *arg)
{
    struct run *r = arg;
    const uint64_t one = 1;

    fake_nap(200);
    return write(r->cancel.fd, &one, sizeof one) == sizeof one ? NULL : arg;
}

static void
warnings_without_end(void **state)
{
    struct run r;
    struct bk_key *key = NULL;

    (void)state;
    start(&r, "*/7=warns");
    refuses(BK_E_TOKEN, "it warns without end", p11_key_open(r.p, KEY, P11_USE_UNWRAP, &key, &err));
    assert_in_range(r.warnings, 1000, 2000);
    finish(&r);
}

/* It is told on and on; whoever wants to end that can. */
static void
a_list_without_end(void **state)
{
    struct run r;
    pthread_t thread;
    size_t tokens = 0;
    int count = 0;
    long began;

    (void)state;
    fake_speed = 5;
    start(&r, "*/11=items");
    assert_int_equal(pthread_create(&thread, NULL, stop_soon, &r), 0);
    began = fake_now();
    refuses(BK_E_CANCELLED, "stopped", p11_list(r.p, TOKEN, 1, count_items, &count, &tokens, &err));
    assert_in_range(fake_now() - began, 500, 30000);
    assert_int_equal(pthread_join(thread, NULL), 0);
    finish(&r);

    /* by a worker that does not hear the answers */
    count = 0;
    start(&r, "*/11=deafitems");
    refuses(BK_E_TOKEN, "it does not read what it is sent",
            p11_list(r.p, TOKEN, 1, count_items, &count, &tokens, &err));
    finish(&r);
}

static void
a_stop_is_a_stop_for_the_rest_of_the_run(void **state)
{
    struct run r;
    const uint64_t one = 1;
    struct bk_key *key;

    (void)state;
    fake_speed = 5;
    start(&r, "*/14=slowwarns");
    key = open_key(&r);
    assert_int_equal(write(r.cancel.fd, &one, sizeof one), sizeof one);
    refuses(BK_E_CANCELLED, "stopped", unwrap(key, &err));
    refuses(BK_E_CANCELLED, "stopped", unwrap(key, &err));
    assert_int_equal(fake_lives(), 1);
    bk_key_close(key);
    finish(&r);
}

static void
an_end_with_a_status_is_told(void **state)
{
    struct run r;

    (void)state;
    start(&r, "*/0=end8");
    bk_key_close(open_key(&r));
    p11_close(r.p);
    assert_non_null(strstr(r.warning, "module 'fake': its process ended with status 8"));
    (void)close(r.cancel.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_begin, fake_end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_request_that_killed_it_is_made_once_more),
        TEST(it_is_not_made_for_ever),
        TEST(success_forgives_deaths),
        TEST(one_death_counts_once),
        TEST(threads_open_keys_side_by_side),
        TEST(what_may_have_been_done_is_not_repeated),
        TEST(a_key_that_is_another_one_now_is_not_used),
        TEST(a_module_that_never_works),
        TEST(a_pin_is_asked_again_only_after_a_login),
        TEST(a_refused_pin_is_never_given_again),
        TEST(a_login_that_was_under_way_is_not_made_again),
        TEST(a_login_that_others_interrupt_is_not_made_again),
        TEST(the_pin_that_was_right_comes_again),
        TEST(an_officers_pin_is_no_users),
        TEST(a_pin_is_not_got_by_a_trick),
        TEST(results_that_are_nonsense),
        TEST(a_public_half_is_checked),
        TEST(a_key_that_was_not_looked_for),
        TEST(a_wrapped_key_is_looked_at),
        TEST(a_data_key_of_another_length),
        TEST(texts_are_made_plain),
        TEST(warnings_without_end),
        TEST(a_list_without_end),
        TEST(a_stop_is_a_stop_for_the_rest_of_the_run),
        TEST(an_end_with_a_status_is_told),
    };

    return cmocka_run_group_tests(tests, fake_init, NULL);
}
