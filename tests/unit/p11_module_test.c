/*
 * Modules that p11-kit has configured but that cannot be used: they keep no other from being used, are told about when
 * something was not found and in lists, and are no news in a run that found what it wanted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#define P11_KIT_FUTURE_UNSTABLE_API 1 /* p11_kit_override_system_files */
#include <p11-kit/p11-kit.h>

#include "pkcs11/state.h"
#include "tests/support/softhsm.h"

static char folder[] = "/tmp/bk-p11-module-XXXXXX";
static const char *const configs[] = {"missing.module", "unstarted.module", "softhsm.module"};

static void
config_path(const char *name, char out[128])
{
    (void)snprintf(out, 128, "%s/%s", folder, name);
}

static int
write_config(const char *name, const char *module, const char *more)
{
    char path[128];
    FILE *f;

    config_path(name, path);
    f = fopen(path, "w");
    if (f == NULL)
        return 0;
    (void)fprintf(f, "module: %s\n%s", module, more);
    return fclose(f) == 0;
}

static int
setup(void **state)
{
    if (softhsm_setup(state) != 0 || mkdtemp(folder) == NULL)
        return -1;
    p11_kit_override_system_files("/no/such/pkcs11.conf", NULL, folder, "/no/such", "/no/such");
    return 0;
}

static int
remove_configs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        char path[128];

        config_path(configs[i], path);
        (void)unlink(path);
    }
    return 0;
}

static int
teardown(void **state)
{
    return rmdir(folder) == 0 && softhsm_teardown(state) == 0 ? 0 : -1;
}

/* Warnings of a run, one after the other. */
struct heard {
    int count;
    char text[4096];
};

static void
on_warn(void *ctx, const char *message)
{
    struct heard *h = ctx;
    size_t used = strlen(h->text);

    h->count++;
    (void)snprintf(h->text + used, sizeof h->text - used, "%s\n", message);
}

static void
start(struct softhsm_run *r, struct heard *h)
{
    *h = (struct heard){0};
    softhsm_start(r);
    r->log = (struct bk_log){.ctx = h, .warn = on_warn};
}

static void
a_broken_module_is_reported(void **state)
{
    struct softhsm_run r;
    struct heard h;
    struct bk_err err = {0};
    struct bk_key *key = NULL;

    (void)state;
    assert_true(write_config("missing.module", "/no/such/broken-module.so", ""));
    start(&r, &h);
    assert_int_equal(p11_key_open(r.p, "pkcs11:token=any;object=x?pin-value=SECRET7", P11_USE_SIGN, &key, &err),
                     BK_E_TOKEN);
    assert_non_null(strstr(h.text, "broken-module.so"));
    assert_non_null(strstr(err.message, "no PKCS#11 module could be used"));
    assert_non_null(strstr(err.hint, "module-path"));
    assert_null(strstr(err.message, "SECRET7"));
    /* it is said once a run */
    assert_int_equal(h.count, 1);
    assert_int_equal(p11_key_open(r.p, "pkcs11:token=any;object=x", P11_USE_SIGN, &key, &err), BK_E_TOKEN);
    assert_int_equal(h.count, 1);
    softhsm_end(&r);
}

/* p11-kit's own trust module, without the words that make it a store of trust, stands in for one that loads and does
 * not start: it is there wherever p11-kit is. Its priority makes it the first to be started. */
static void
configure_three(void)
{
    assert_true(write_config("missing.module", "/no/such/broken-module.so", ""));
    assert_true(write_config("unstarted.module", "p11-kit-trust.so", "priority: 9\n"));
    assert_true(write_config("softhsm.module", softhsm_module(), ""));
}

struct first_start {
    int starts;
};

static CK_RV
refuse_first_start(void *ctx, const char *call)
{
    struct first_start *f = ctx;

    return strcmp(call, "C_Initialize") == 0 && f->starts++ == 0 ? CKR_DEVICE_ERROR : CKR_OK;
}

static void
says_both(struct heard *h)
{
    assert_int_equal(h->count, 2);
    assert_non_null(strstr(h->text, "broken-module.so"));
    assert_non_null(strstr(h->text, "module 'unstarted' is configured but does not start: C_Initialize: "
                                    "CKR_DEVICE_ERROR"));
}

static void
start_with_three(struct softhsm_run *r, struct heard *h, struct first_start *f)
{
    *f = (struct first_start){0};
    start(r, h);
    r->p->hook = (struct p11_hook){.ctx = f, .before = refuse_first_start};
}

static void
what_was_found_needs_no_other_module(void **state)
{
    struct softhsm_run r;
    struct heard h;
    struct first_start f;
    struct bk_key *key = NULL;
    struct bk_public pub = {0};
    size_t which = 0;
    struct bk_key_id id;

    (void)state;
    configure_three();
    start_with_three(&r, &h, &f);
    softhsm_generate(&r, "pkcs11:token=bk%20a;object=found", P11_P256, 0, &key);
    id = key->pub.id;
    bk_key_close(key);
    ok(p11_key_open(r.p, "pkcs11:token=bk%20a;object=found", P11_USE_UNWRAP, &key, &err));
    bk_key_close(key);
    ok(p11_public(r.p, "pkcs11:token=bk%20a;object=found", &pub, &err));
    bk_public_free(&pub);
    ok(p11_key_find(r.p, "pkcs11:", &id, 1, &which, &key, &err));
    bk_key_close(key);
    assert_int_equal(f.starts, 2);
    if (h.count != 0)
        fail_msg("%s", h.text);
    softhsm_end(&r);
}

static void
what_was_not_found_may_be_behind_them(void **state)
{
    static const char *const wanted[] = {"pkcs11:token=bk%20a;object=lost", "pkcs11:token=lost;object=lost"};
    struct softhsm_run r;
    struct heard h;
    struct first_start f;
    struct bk_key *key = NULL;
    struct bk_public pub = {0};

    (void)state;
    configure_three();
    for (size_t i = 0; i < 2; i++) {
        start_with_three(&r, &h, &f);
        assert_int_not_equal(p11_key_open(r.p, wanted[i], P11_USE_SIGN, &key, NULL), BK_OK);
        says_both(&h);
        softhsm_end(&r);

        start_with_three(&r, &h, &f);
        assert_int_not_equal(p11_public(r.p, wanted[i], &pub, NULL), BK_OK);
        says_both(&h);
        softhsm_end(&r);
    }
    start_with_three(&r, &h, &f);
    assert_int_equal(
        p11_key_generate(r.p, "pkcs11:token=lost;object=x", &(struct p11_generate){.kind = P11_P256}, &key, NULL),
        BK_E_TOKEN);
    says_both(&h);
    softhsm_end(&r);
}

/* Whoever searches by id may go on elsewhere, and says when that has come to an end. */
static void
a_search_by_id_leaves_it_to_its_caller(void **state)
{
    const struct bk_key_id id = {.bytes = {1, 2, 3, 4}, .len = 4};
    struct softhsm_run r;
    struct heard h;
    struct first_start f;
    struct bk_key *key = NULL;
    size_t which = 0;

    (void)state;
    configure_three();
    start_with_three(&r, &h, &f);
    assert_int_equal(p11_key_find(r.p, "pkcs11:token=bk%20a", &id, 1, &which, &key, NULL), BK_E_NO_KEY);
    assert_int_equal(p11_key_find(r.p, "pkcs11:token=lost", &id, 1, &which, &key, NULL), BK_E_TOKEN);
    assert_int_equal(h.count, 0);
    p11_say_left_out(r.p);
    says_both(&h);
    p11_say_left_out(r.p);
    says_both(&h);
    p11_say_left_out(NULL);
    softhsm_end(&r);
}

static void
a_list_tells_what_is_not_in_it(void **state)
{
    struct softhsm_run r;
    struct heard h;
    struct first_start f;
    char text[4096] = "";
    size_t tokens = 0;

    (void)state;
    configure_three();
    start_with_three(&r, &h, &f);
    ok(p11_list(r.p, "pkcs11:", 0, softhsm_collect, text, &tokens, &err));
    assert_int_equal(tokens, 2);
    says_both(&h);
    softhsm_end(&r);

    start_with_three(&r, &h, &f);
    ok(p11_list(r.p, "pkcs11:object=not-there", 0, softhsm_collect, text, &tokens, &err));
    says_both(&h);
    softhsm_end(&r);

    start_with_three(&r, &h, &f);
    ok(p11_list(r.p, "pkcs11:object=found", 0, softhsm_collect, text, &tokens, &err));
    assert_int_equal(h.count, 0);
    softhsm_end(&r);
}

static CK_RV
refuse_start(void *ctx, const char *call)
{
    (void)ctx;
    return strcmp(call, "C_Initialize") == 0 ? CKR_DEVICE_ERROR : CKR_OK;
}

static void
a_module_that_does_not_start_is_an_error_if_named(void **state)
{
    struct p11_options options = {0};
    struct bk_err err = {0};
    struct bk_key *key = NULL;
    struct p11 *p = NULL;
    const char *uri = "pkcs11:token=any?module-path=p11-kit-trust.so";

    (void)state;
    assert_int_equal(p11_open(&options, &p, &err), BK_OK);
    p->hook.before = refuse_start;
    assert_int_equal(p11_key_open(p, uri, P11_USE_SIGN, &key, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "the module does not start: C_Initialize: CKR_DEVICE_ERROR"));
    assert_int_equal(p11_key_open(p, uri, P11_USE_SIGN, &key, &err), BK_E_TOKEN);
    p11_close(p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_broken_module_is_reported, remove_configs),
        cmocka_unit_test_teardown(what_was_found_needs_no_other_module, remove_configs),
        cmocka_unit_test_teardown(what_was_not_found_may_be_behind_them, remove_configs),
        cmocka_unit_test_teardown(a_search_by_id_leaves_it_to_its_caller, remove_configs),
        cmocka_unit_test_teardown(a_list_tells_what_is_not_in_it, remove_configs),
        cmocka_unit_test_teardown(a_module_that_does_not_start_is_an_error_if_named, remove_configs),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
