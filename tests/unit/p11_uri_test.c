/* PKCS#11 URIs: what is understood, what is refused, and that no PIN gets into a message. No token is needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pkcs11/p11.h"
#include "pkcs11/rv.h"
#include "pkcs11/text.h"
#include "pkcs11/uri.h"

static int
setup(void **state)
{
    int locked = 0;

    (void)state;
    return bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

static void
accepts_what_rfc_7512_has(void **state)
{
    static const char *const good[] = {
        "pkcs11:",
        "PKCS11:token=bk",
        "pkcs11:token=My%20Token;serial=0123;manufacturer=x;model=y",
        "pkcs11:object=kek;type=private",
        "pkcs11:type=secret-key;id=%00%01",
        "pkcs11:object-type=cert",
        "pkcs11:library-manufacturer=a;library-description=b;library-version=2.6",
        "pkcs11:slot-description=a;slot-manufacturer=b",
        "pkcs11:token=bk;object=%C3%A4?pin-source=file:/etc/pin&module-name=softhsm2",
        "pkcs11:token=bk?module-path=/usr/lib/x.so&pin-value=12%2034",
        "pkcs11:token=bk?pin-source=|command",
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct bk_err err = {0};

        if (p11_uri_check(good[i], &err) != BK_OK)
            fail_msg("%s: %s", good[i], err.message);
    }
}

/* p11-kit alone would take each of these, and for most would then match every token. */
static void
refuses_what_p11_kit_drops(void **state)
{
    static const struct {
        const char *uri;
        const char *says;
    } bad[] = {
        {"", "does not begin"},
        {"token=bk", "does not begin"},
        {"pkcs11", "does not begin"},
        {"pkcs11:tokn=bk", "unknown attribute 'tokn'"},
        {"pkcs11:token", "unknown attribute 'token'"},
        {"pkcs11:token=bk;x-vendor=1", "unknown attribute 'x-vendor'"},
        {"pkcs11:token=a;token=b", "token= is given twice"},
        {"pkcs11:object=a;object=b", "object= is given twice"},
        {"pkcs11:slot-id=3", "slot-id= is refused"},
        {"pkcs11:token=a;;object=b", "an attribute is empty"},
        {"pkcs11:;token=a", "an attribute is empty"},
        {"pkcs11:token=a;", "an attribute is empty"},
        {"pkcs11:token=a;?pin-value=1", "an attribute is empty"},
        {"pkcs11:token=a?pin-source=file:x&&module-name=b", "an attribute is empty"},
        {"pkcs11:token=My Token", "byte 16 must be percent-encoded"},
        {"pkcs11:token=\033[2J", "byte 14 must be percent-encoded"},
        {"pkcs11:token=b\303\244", "must be percent-encoded"},
        {"pkcs11:token=a%", "two hex digits"},
        {"pkcs11:token=a%zz", "two hex digits"},
        {"pkcs11:type=nonsense", "no token can have"},
        {"pkcs11:token=0123456789012345678901234567890123", "no token can have"},
        {"pkcs11:token=a&pin-source=file:x", "pin-source= stands after a '?'"},
        {"pkcs11:token=a?pin-vale=1", "attribute 1 after the '?'"},
        {"pkcs11:token=a?module-path=/x&pin", "attribute 2 after the '?'"},
        {"pkcs11:token=a?pin-source=a&pin-source=b", "pin-source= is given twice"},
        {"pkcs11:token=a?pin-value=", "pin-value= is empty"},
        {"pkcs11:token=a?pin-value=12%0034", "a zero byte"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct bk_err err = {0};

        assert_int_equal(p11_uri_check(bad[i].uri, &err), BK_E_USAGE);
        if (strstr(err.message, bad[i].says) == NULL)
            fail_msg("%s: %s", bad[i].uri, err.message);
    }
}

static void
bounds_the_length(void **state)
{
    char uri[P11_URI_MAX + 32];
    struct bk_err err = {0};

    (void)state;
    memset(uri, 'a', sizeof uri);
    memcpy(uri, "pkcs11:object=", 14);
    uri[P11_URI_MAX] = '\0';
    assert_int_equal(p11_uri_check(uri, &err), BK_OK);
    uri[P11_URI_MAX] = 'a';
    uri[P11_URI_MAX + 1] = '\0';
    assert_int_equal(p11_uri_check(uri, &err), BK_E_USAGE);
}

static void
never_shows_a_pin(void **state)
{
    static const char *const uris[] = {
        "pkcs11:tokn=a?pin-value=SECRET7",
        "pkcs11:token=a?pin-value:SECRET7",
        "pkcs11:token=a?SECRET7",
        "pkcs11:token=%?pin-value=SECRET7",
        "pkcs11:type=x?pin-value=SECRET7",
        "pkcs11:token=a?pin-value=SECRET7&pin-value=SECRET7",
        "pkcs11:token=a?pin-value=SECRET7%00x",
        "pkcs11:token=a;pin-value=SECRET7",
        "pkcs11:token=a?pin-value=SECRET7%",
        "pkcs11:token=a?x=1&pin-value=SECRET7",
        "pkcs11:token=a;object=b&pin-value=SECRET7",
        "pkcs11:token=apin-value=SECRET7",
    };

    (void)state;
    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        struct bk_err err = {0};

        assert_int_equal(p11_uri_check(uris[i], &err), BK_E_USAGE);
        assert_null(strstr(err.message, "SECRET7"));
        assert_null(strstr(err.hint, "SECRET7"));
    }
}

static void
takes_the_query_apart(void **state)
{
    struct p11_uri uri = {0};
    struct bk_err err = {0};

    (void)state;
    assert_int_equal(
        p11_uri_parse(&uri, "pkcs11:token=bk;object=k?module-path=/m.so&pin-value=1%2F2&pin-source=file:/p", &err),
        BK_OK);
    assert_string_equal(uri.text, "pkcs11:token=bk;object=k");
    assert_string_equal(uri.module_path, "/m.so");
    assert_string_equal(uri.pin_source, "file:/p");
    assert_null(uri.module_name);
    assert_int_equal(uri.pin_value.len, 3);
    assert_memory_equal(uri.pin_value.data, "1/2", 3);
    /* the PIN is no longer in p11-kit's memory */
    assert_null(p11_kit_uri_get_pin_value(uri.kit));
    p11_uri_free(&uri);
    p11_uri_free(&uri);
}

static void
answers_about_uris(void **state)
{
    (void)state;
    assert_true(p11_is_uri("pkcs11:token=a"));
    assert_false(p11_is_uri("kek.pem"));
    assert_true(p11_uri_names_object("pkcs11:token=a;object=b"));
    assert_true(p11_uri_names_object("pkcs11:id=%01"));
    assert_true(p11_uri_names_object("pkcs11:token=a;type=private?pin-source=x"));
    assert_false(p11_uri_names_object("pkcs11:token=a"));
    assert_false(p11_uri_names_object("pkcs11:token=a?module-path=object=b;object=c"));
    assert_false(p11_uri_names_object("kek.pem"));
    assert_true(p11_uri_has_pin_value("pkcs11:token=a?module-path=/x&pin-value=1"));
    assert_false(p11_uri_has_pin_value("pkcs11:token=pin-value=1"));
    assert_false(p11_uri_has_pin_value("pkcs11:token=a?pin-source=pin-value=1"));
}

/* What a hint says is found again by the URI that it is. */
static void
hints_survive_any_label(void **state)
{
    CK_TOKEN_INFO token;
    char label_bytes[] = "a;b=c?d%e \001\303\244";
    CK_BYTE id_bytes[] = {0, 1, 0xff};
    CK_ATTRIBUTE label = {CKA_LABEL, label_bytes, sizeof label_bytes - 1};
    CK_ATTRIBUTE id = {CKA_ID, id_bytes, sizeof id_bytes};
    CK_ATTRIBUTE none = {CKA_LABEL, label_bytes, 0};
    struct p11_uri uri = {0};
    struct bk_err err = {0};
    char *text = NULL;

    (void)state;
    memset(&token, ' ', sizeof token);
    memcpy(token.label, "my; token", 9);
    memcpy(token.serialNumber, "42", 2);
    assert_int_equal(p11_uri_hint(&token, &label, &id, &text, &err), BK_OK);
    assert_null(strchr(text, '?'));
    assert_int_equal(p11_uri_parse(&uri, text, &err), BK_OK);
    assert_int_equal(p11_kit_uri_match_token_info(uri.kit, &token), 1);
    assert_non_null(p11_uri_attribute(&uri, CKA_LABEL));
    assert_int_equal(p11_uri_attribute(&uri, CKA_LABEL)->ulValueLen, label.ulValueLen);
    assert_memory_equal(p11_uri_attribute(&uri, CKA_LABEL)->pValue, label_bytes, label.ulValueLen);
    assert_null(p11_uri_attribute(&uri, CKA_ID));
    p11_uri_free(&uri);
    free(text);

    assert_int_equal(p11_uri_hint(&token, &none, &id, &text, &err), BK_OK);
    assert_int_equal(p11_uri_parse(&uri, text, &err), BK_OK);
    assert_non_null(p11_uri_attribute(&uri, CKA_ID));
    assert_memory_equal(p11_uri_attribute(&uri, CKA_ID)->pValue, id_bytes, sizeof id_bytes);
    p11_uri_free(&uri);
    free(text);
}

static void
text_is_safe_to_print(void **state)
{
    char out[16];
    struct p11_text_list list = {0};

    (void)state;
    p11_text_field(out, sizeof out, "bk token   \0\0", 13);
    assert_string_equal(out, "bk token");
    p11_text_field(out, sizeof out, "a\033b\177c\302\233d", 8);
    assert_string_equal(out, "a?b?c?d");
    p11_text_field(out, 4, "abcdef", 6);
    assert_string_equal(out, "abc");
    p11_text_field(out, sizeof out, "", 0);
    assert_string_equal(out, "");

    assert_string_equal(p11_text_list_end(&list), "none");
    for (int i = 0; i < 100; i++)
        p11_text_list_add(&list, "'a token' (serial 0123456789)");
    assert_non_null(strstr(p11_text_list_end(&list), " and "));
    assert_true(strlen(p11_text_list_end(&list)) < sizeof list.text);
    assert_int_equal(list.count, 100);
}

static void
return_values_have_classes(void **state)
{
    char buf[P11_RV_TEXT];

    (void)state;
    assert_string_equal(p11_rv_name(CKR_PIN_INCORRECT, buf), "CKR_PIN_INCORRECT");
    assert_string_equal(p11_rv_name(0x80000001UL, buf), "CK_RV 0x80000001");
    assert_int_equal(p11_rv_code(CKR_PIN_LOCKED), BK_E_PIN);
    assert_int_equal(p11_rv_code(CKR_WRAPPED_KEY_INVALID), BK_E_VERIFY);
    assert_int_equal(p11_rv_code(CKR_ENCRYPTED_DATA_LEN_RANGE), BK_E_VERIFY);
    assert_int_equal(p11_rv_code(CKR_MECHANISM_INVALID), BK_E_UNSUPPORTED);
    assert_int_equal(p11_rv_code(CKR_KEY_FUNCTION_NOT_PERMITTED), BK_E_UNSUPPORTED);
    assert_int_equal(p11_rv_code(CKR_HOST_MEMORY), BK_E_NO_ROOM);
    assert_int_equal(p11_rv_code(CKR_DEVICE_ERROR), BK_E_TOKEN);
    assert_int_equal(p11_rv_code(0x80000001UL), BK_E_TOKEN);
    assert_true(p11_rv_is_lost(CKR_SESSION_HANDLE_INVALID));
    assert_false(p11_rv_is_lost(CKR_PIN_INCORRECT));
    assert_true(p11_rv_is_vague(CKR_DEVICE_ERROR));
    assert_false(p11_rv_is_vague(CKR_PIN_INCORRECT));
    assert_false(p11_rv_is_parameter(CKR_OK));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_what_rfc_7512_has),  cmocka_unit_test(refuses_what_p11_kit_drops),
        cmocka_unit_test(bounds_the_length),          cmocka_unit_test(never_shows_a_pin),
        cmocka_unit_test(takes_the_query_apart),      cmocka_unit_test(answers_about_uris),
        cmocka_unit_test(hints_survive_any_label),    cmocka_unit_test(text_is_safe_to_print),
        cmocka_unit_test(return_values_have_classes),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
