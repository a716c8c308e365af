/* Modules that p11-kit has configured but that cannot be used are reported, and do not keep others from being used. */
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

static char folder[] = "/tmp/bk-p11-module-XXXXXX";
static char module_config[64];

static void
on_warn(void *ctx, const char *message)
{
    char *last = ctx;

    (void)snprintf(last, 1024, "%s", message);
}

static int
setup(void **state)
{
    FILE *f;
    int locked = 0;

    (void)state;
    if (bk_secret_init(&locked, NULL) != BK_OK || mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(module_config, sizeof module_config, "%s/broken.module", folder);
    f = fopen(module_config, "w");
    if (f == NULL)
        return -1;
    (void)fputs("module: /no/such/broken-module.so\n", f);
    if (fclose(f) != 0)
        return -1;
    p11_kit_override_system_files("/no/such/pkcs11.conf", NULL, folder, "/no/such", "/no/such");
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    return unlink(module_config) == 0 && rmdir(folder) == 0 ? 0 : -1;
}

static void
a_broken_module_is_reported(void **state)
{
    char last[1024] = "";
    struct bk_log log = {.ctx = last, .warn = on_warn};
    struct p11_options options = {.log = &log};
    struct bk_err err = {0};
    struct bk_key *key = NULL;
    struct p11 *p = NULL;

    (void)state;
    assert_int_equal(p11_open(&options, &p, &err), BK_OK);
    assert_int_equal(p11_key_open(p, "pkcs11:token=any;object=x?pin-value=SECRET7", P11_USE_SIGN, &key, &err),
                     BK_E_TOKEN);
    assert_non_null(strstr(last, "broken-module.so"));
    assert_non_null(strstr(err.message, "no PKCS#11 module could be used"));
    assert_non_null(strstr(err.hint, "module-path"));
    assert_null(strstr(err.message, "SECRET7"));
    /* it is said once a run */
    last[0] = '\0';
    assert_int_equal(p11_key_open(p, "pkcs11:token=any;object=x", P11_USE_SIGN, &key, &err), BK_E_TOKEN);
    assert_string_equal(last, "");
    p11_close(p);
}

static CK_RV
refuse_start(void *ctx, const char *call)
{
    (void)ctx;
    return strcmp(call, "C_Initialize") == 0 ? CKR_DEVICE_ERROR : CKR_OK;
}

/* p11-kit's own trust module stands in for one that loads and does not start: it is there wherever p11-kit is. */
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
        cmocka_unit_test(a_broken_module_is_reported),
        cmocka_unit_test(a_module_that_does_not_start_is_an_error_if_named),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
