/*
 * A module that lies: success without output, numbers that cannot be, one handle for two objects, another token in the
 * slot, names that would command a terminal. A function list of our own stands in for it; no module is loaded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "ops/keyring.h"
#include "pkcs11/choose.h"
#include "pkcs11/key.h"
#include "pkcs11/left_out.h"
#include "pkcs11/rv.h"

#define ID "\1\2\3\4"

/* What is played, and what was asked of it. Tests only: C_* functions take no context. */
static struct mock {
    CK_TOKEN_INFO info;
    CK_RV login_rv;
    CK_RV wrap_rv;
    CK_RV sign_rv;
    CK_ULONG slots, found;
    CK_OBJECT_HANDLE unwrapped; /* the handle that C_UnwrapKey gives; P11_NO_HANDLE: it writes none */
    int writes;                 /* C_WrapKey writes what it says */
    int logins, sessions, destroyed, destroyed_zero;
} mock;

static CK_RV
m_open(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *out)
{
    (void)slot, (void)flags, (void)app, (void)notify;
    *out = (CK_SESSION_HANDLE)++mock.sessions;
    return CKR_OK;
}

static CK_RV
m_close(CK_SESSION_HANDLE s)
{
    (void)s;
    mock.sessions--;
    return CKR_OK;
}

static CK_RV
m_session_info(CK_SESSION_HANDLE s, CK_SESSION_INFO *info)
{
    (void)s;
    info->state = CKS_RW_PUBLIC_SESSION;
    return CKR_OK;
}

static CK_RV
m_slot_list(unsigned char present, CK_SLOT_ID *slots, CK_ULONG *count)
{
    (void)present, (void)slots;
    *count = mock.slots;
    return CKR_OK;
}

static CK_RV
m_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    (void)slot;
    *info = mock.info;
    return CKR_OK;
}

static CK_RV
m_login(CK_SESSION_HANDLE s, CK_USER_TYPE user, unsigned char *pin, CK_ULONG len)
{
    (void)s, (void)user, (void)pin, (void)len;
    mock.logins++;
    return mock.login_rv;
}

static CK_RV
m_logout(CK_SESSION_HANDLE s)
{
    (void)s;
    return CKR_OK;
}

/* Success, the length that was offered, and not a byte. */
static CK_RV
m_attribute(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *t, CK_ULONG n)
{
    (void)s, (void)t, (void)n;
    return object == P11_NO_HANDLE ? CKR_OBJECT_HANDLE_INVALID : CKR_OK;
}

/* As a token that keeps an opened key to itself. */
static CK_RV
m_attribute_sensitive(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *t, CK_ULONG n)
{
    (void)s, (void)object, (void)n;
    if (t->type == CKA_VALUE)
        return CKR_ATTRIBUTE_SENSITIVE;
    memset(t->pValue, 1, t->ulValueLen);
    return CKR_OK;
}

static CK_RV
m_find_init(CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n)
{
    (void)s, (void)t, (void)n;
    return CKR_OK;
}

static CK_RV
m_find(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *out, CK_ULONG room, CK_ULONG *found)
{
    (void)s, (void)out, (void)room;
    *found = mock.found;
    return CKR_OK;
}

static CK_RV
m_find_final(CK_SESSION_HANDLE s)
{
    (void)s;
    return CKR_OK;
}

static CK_RV
m_create(CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *out)
{
    (void)s, (void)t, (void)n;
    *out = 7;
    return CKR_OK;
}

static CK_RV
m_destroy(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object)
{
    (void)s;
    mock.destroyed++;
    mock.destroyed_zero += object == 0;
    return CKR_OK;
}

static CK_RV
m_wrap(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE object, unsigned char *out,
       CK_ULONG *len)
{
    (void)s, (void)m, (void)under, (void)object;
    *len = BK_AESKW_LEN;
    if (mock.writes)
        memset(out, 0x5a, BK_AESKW_LEN);
    return mock.wrap_rv;
}

static CK_RV
m_unwrap(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, unsigned char *wrapped, CK_ULONG len,
         CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *out)
{
    (void)s, (void)m, (void)under, (void)wrapped, (void)len, (void)t, (void)n;
    if (mock.unwrapped != P11_NO_HANDLE)
        *out = mock.unwrapped;
    return CKR_OK;
}

static CK_RV
m_init(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
    (void)s, (void)m, (void)key;
    return CKR_OK;
}

static CK_RV
m_sign(CK_SESSION_HANDLE s, unsigned char *data, CK_ULONG data_len, unsigned char *out, CK_ULONG *out_len)
{
    (void)s, (void)data, (void)data_len, (void)out, (void)out_len;
    return mock.sign_rv;
}

static CK_RV
m_mechanism_info(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    (void)slot, (void)type, (void)info;
    return CKR_MECHANISM_INVALID;
}

static CK_FUNCTION_LIST functions = {
    .C_OpenSession = m_open,
    .C_CloseSession = m_close,
    .C_GetSessionInfo = m_session_info,
    .C_GetSlotList = m_slot_list,
    .C_GetTokenInfo = m_token_info,
    .C_GetMechanismInfo = m_mechanism_info,
    .C_Login = m_login,
    .C_Logout = m_logout,
    .C_GetAttributeValue = m_attribute,
    .C_FindObjectsInit = m_find_init,
    .C_FindObjects = m_find,
    .C_FindObjectsFinal = m_find_final,
    .C_CreateObject = m_create,
    .C_DestroyObject = m_destroy,
    .C_WrapKey = m_wrap,
    .C_UnwrapKey = m_unwrap,
    .C_SignInit = m_init,
    .C_Sign = m_sign,
};

struct bench {
    struct p11 *p;
    struct p11_options options;
    struct bk_log log;
    struct p11_module module;
    struct p11_token *token;
    int asked, warnings;
    char warning[1024];
};

static void
on_warn(void *ctx, const char *message)
{
    struct bench *b = ctx;

    b->warnings++;
    (void)snprintf(b->warning, sizeof b->warning, "%s", message);
}

static enum bk_code
on_pin(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err)
{
    struct bench *b = ctx;

    (void)req;
    b->asked++;
    return bk_secret_from(pin, "1234", 4, err);
}

static void
bench_start(struct bench *b, CK_FLAGS flags)
{
    mock = (struct mock){.unwrapped = 5, .writes = 1};
    memset(&mock.info, ' ', sizeof mock.info);
    memcpy(mock.info.label, "mock", 4);
    memcpy(mock.info.serialNumber, "1", 1);
    mock.info.flags = flags | CKF_TOKEN_INITIALIZED;
    functions.C_GetAttributeValue = m_attribute;
    *b = (struct bench){.log = {.warn = on_warn}};
    b->log.ctx = b;
    b->options = (struct p11_options){.pin = on_pin, .pin_ctx = b, .log = &b->log};
    assert_int_equal(p11_open(&b->options, &b->p, NULL), BK_OK);
    b->module = (struct p11_module){.port = {.list = &functions, .hook = &b->p->hook, .where = "module 'mock'"},
                                    .name = (char *)"mock",
                                    .usable = 1};
    b->token = calloc(1, sizeof *b->token);
    assert_non_null(b->token);
    *b->token = (struct p11_token){.owner = b->p,
                                   .module = &b->module,
                                   .info = mock.info,
                                   .label = "mock",
                                   .serial = "1",
                                   .where = "token 'mock'"};
    b->p->tokens = b->token;
}

static void
bench_end(struct bench *b)
{
    p11_close(b->p);
    assert_int_equal(mock.sessions, 0);
}

static int
setup(void **state)
{
    int locked = 0;

    (void)state;
    return bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

/* -- logging in -----------------------------------------------------------------------------------------------------
 */

static void
another_token_does_not_get_the_pin(void **state)
{
    struct bench b;
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, CKF_LOGIN_REQUIRED);
    mock.info.serialNumber[0] = '2';
    assert_int_equal(p11_token_login(b.token, NULL, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "another token is in its slot"));
    assert_int_equal(b.asked, 0);
    assert_int_equal(mock.logins, 0);
    bench_end(&b);
}

static void
a_keypad_is_announced(void **state)
{
    struct bench b;

    (void)state;
    bench_start(&b, CKF_LOGIN_REQUIRED | CKF_PROTECTED_AUTHENTICATION_PATH);
    assert_int_equal(p11_token_login(b.token, NULL, NULL), BK_OK);
    assert_string_equal(b.warning, "token 'mock': waits for its PIN at its own keypad");
    bench_end(&b);
}

static void
a_failed_login_leaves_no_pin(void **state)
{
    static const struct {
        CK_RV rv;
        enum bk_code code;
        int advised;
    } cases[] = {{CKR_PIN_INCORRECT, BK_E_PIN, 1},
                 {CKR_PIN_LOCKED, BK_E_PIN, 0},
                 {CKR_GENERAL_ERROR, BK_E_TOKEN, 0},
                 {CKR_DEVICE_ERROR, BK_E_TOKEN, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench b;
        struct bk_err err = {0};

        bench_start(&b, CKF_LOGIN_REQUIRED);
        mock.login_rv = cases[i].rv;
        assert_int_equal(p11_token_login(b.token, NULL, &err), cases[i].code);
        assert_null(b.token->pin.data);
        assert_int_equal(strstr(err.hint, "before anything starts this again") != NULL, cases[i].advised);
        assert_int_equal(p11_token_login(b.token, NULL, &err), cases[i].code);
        assert_int_equal(mock.logins, 1);
        bench_end(&b);
    }
}

/* -- numbers and outputs --------------------------------------------------------------------------------------------
 */

static void
an_attribute_that_is_not_written_is_blank(void **state)
{
    struct bench b;
    struct p11_session s = {0};
    uint8_t out[64];
    static const uint8_t blank[sizeof out];
    size_t len = 0;

    (void)state;
    bench_start(&b, 0);
    assert_int_equal(p11_session_open(&s, b.token, NULL), BK_OK);
    memset(out, 0xaa, sizeof out);
    assert_int_equal(p11_object_bytes(&s, 1, CKA_LABEL, out, sizeof out, &len), 1);
    assert_memory_equal(out, blank, sizeof out);
    p11_session_close(&s);
    bench_end(&b);
}

static void
numbers_that_cannot_be_are_told(void **state)
{
    struct bench b;
    struct p11_session s = {0};
    struct p11_handles found = {0};
    struct p11_uri uri = {0};
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, 0);
    assert_int_equal(p11_session_open(&s, b.token, NULL), BK_OK);
    mock.found = 1000;
    assert_int_equal(p11_object_find(&s, CKO_PRIVATE_KEY, NULL, NULL, &found, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "C_FindObjects gives 1000 objects"));
    assert_null(strstr(err.message, "CKR_OK"));
    p11_session_close(&s);

    /* a configured module with such a slot list is left out, and told about when it may matter */
    assert_int_equal(p11_uri_parse(&uri, "pkcs11:", NULL), BK_OK);
    mock.slots = (CK_ULONG)-1;
    b.p->configured_loaded = 1;
    b.p->modules = &b.module;
    assert_int_equal(p11_tokens_none(b.p, &uri, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "no token is there at all"));
    assert_int_equal(b.warnings, 0);
    p11_left_out_explain(b.p, BK_E_PIN);
    assert_int_equal(b.warnings, 0);
    p11_left_out_explain(b.p, BK_E_TOKEN);
    assert_int_equal(b.warnings, 1);
    assert_non_null(strstr(b.warning, "C_GetSlotList gives a number of slots that cannot be"));
    b.p->modules = NULL;
    p11_uri_free(&uri);
    bench_end(&b);
}

static struct bk_key *
aes_on(struct bench *b)
{
    const struct p11_traits t = {
        .class = CKO_SECRET_KEY, .type = BK_KEY_AES256, .id = ID, .id_len = 4, .can_wrap = 1, .can_unwrap = 1};
    struct p11_key *key = NULL;
    struct p11_session s = {0};

    assert_int_equal(p11_session_open(&s, b->token, NULL), BK_OK);
    assert_int_equal(p11_key_make(&s, 3, &t, P11_USE_UNWRAP, &key, NULL), BK_OK);
    return &key->base;
}

static void
success_without_output_is_none(void **state)
{
    struct bench b;
    struct bk_key *key;
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped in = {.scheme = BK_SCHEME_AES_KW, .len = BK_AESKW_LEN};
    struct bk_wrapped out = {0};
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, 0);
    key = aes_on(&b);
    assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
    assert_int_equal(bk_key_wrap(key, &cek, &out, NULL), BK_OK);
    out = (struct bk_wrapped){0};
    mock.writes = 0;
    assert_int_equal(bk_key_wrap(key, &cek, &out, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "C_WrapKey reports success and wrote nothing"));
    assert_int_equal(out.len, 0);

    /* without a handle nothing is read, and above all not the object 0 destroyed */
    mock.unwrapped = P11_NO_HANDLE;
    assert_int_not_equal(bk_key_unwrap(key, &in, &opened, &err), BK_OK);
    assert_null(opened.data);
    assert_int_equal(mock.destroyed_zero, 0);
    bk_secret_wipe(&cek);
    bk_key_close(key);
    bench_end(&b);
}

static void
one_handle_for_two_keys_proves_nothing(void **state)
{
    struct bench b;
    struct bk_key *key, *to;
    struct bk_wrapped in = {.scheme = BK_SCHEME_AES_KW, .len = BK_AESKW_LEN};
    struct bk_wrapped out = {0};
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, 0);
    functions.C_GetAttributeValue = m_attribute_sensitive;
    key = aes_on(&b);
    to = aes_on(&b);
    memset(in.data, 0x5a, BK_AESKW_LEN); /* what C_WrapKey always writes, so that the comparison would be content */
    assert_int_equal(bk_key_rewrap(key, &in, to, &out, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "one handle"));
    assert_int_equal(out.len, 0);
    bk_key_close(key);
    bk_key_close(to);
    bench_end(&b);
}

/* "Data invalid" of what we made ourselves is no damage of an archive: exit status 1 would call somebody a forger. */
static void
making_something_never_fails_as_a_verification(void **state)
{
    static const CK_RV blames[] = {CKR_DATA_INVALID, CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID,
                                   CKR_WRAPPED_KEY_INVALID, CKR_SIGNATURE_INVALID};

    (void)state;
    for (size_t i = 0; i < sizeof blames / sizeof blames[0]; i++) {
        struct bench b;
        struct bk_key *key;
        struct bk_secret cek = {0};
        struct bk_wrapped out = {0};
        struct bk_err err = {0};
        char name[P11_RV_TEXT];

        bench_start(&b, 0);
        key = aes_on(&b);
        mock.wrap_rv = blames[i];
        assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
        assert_int_equal(bk_key_wrap(key, &cek, &out, &err), BK_E_UNSUPPORTED);
        assert_non_null(strstr(err.message, p11_rv_name(blames[i], name)));
        bk_secret_wipe(&cek);
        bk_key_close(key);
        bench_end(&b);
    }
}

static void
signing_never_fails_as_a_verification(void **state)
{
    const struct p11_traits t = {.class = CKO_SECRET_KEY, .type = BK_KEY_AES256, .id = ID, .id_len = 4};
    struct bench b;
    struct p11_key *key = NULL;
    struct p11_session s = {0};
    uint8_t digest[32] = {1}, sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, 0);
    assert_int_equal(p11_session_open(&s, b.token, NULL), BK_OK);
    assert_int_equal(p11_key_make(&s, 3, &t, P11_USE_SIGN, &key, NULL), BK_OK);
    key->base.pub.type = BK_KEY_P384;
    mock.sign_rv = CKR_DATA_LEN_RANGE; /* as tokens do that want a digest as long as the curve */
    assert_int_equal(bk_key_sign(&key->base, digest, sig, &len, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "signing: C_Sign: CKR_DATA_LEN_RANGE"));
    bk_key_close(&key->base);
    bench_end(&b);
}

/* -- names ----------------------------------------------------------------------------------------------------------
 */

static void
names_are_made_plain(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain text", "plain text"},
        {"a\033[31mb\r\nc\177", "a?[31mb??c?"},
        {"\302\233c1", "?c1"},
        {"\303\274ber \342\202\254", "\303\274ber \342\202\254"},
        {"Latin \374ber", "Latin ?ber"},
        {"cut \342\202", "cut ??"},
        {"overlong \300\200", "overlong ??"},
        {"surrogate \355\240\200", "surrogate ???"},
        {"rtl \342\200\256 line \342\200\250", "rtl ? line ?"},
    };
    char out[64];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(bk_text_plain(out, sizeof out, cases[i].in, strlen(cases[i].in)), cases[i].out);
        p11_text_field(out, sizeof out, cases[i].in, strlen(cases[i].in));
        assert_string_equal(out, cases[i].out);
    }
    /* cut between characters, and never beyond the room */
    assert_string_equal(bk_text_plain(out, 5, "ab\342\202\254", 5), "ab");
    assert_string_equal(bk_text_plain(out, 6, "ab\342\202\254", 5), "ab\342\202\254");
    assert_string_equal(bk_text_plain(out, 1, "ab", 2), "");
}

/* Found through p11_tokens_none, which makes a token of all that a module shows. */
static void
a_token_without_a_label_is_named_by_its_serial(void **state)
{
    struct bench b;
    struct p11_uri uri = {0};
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, 0);
    memset(mock.info.label, ' ', sizeof mock.info.label);
    memcpy(mock.info.serialNumber, "77\033", 3);
    mock.slots = 1;
    b.p->configured_loaded = 1;
    b.p->modules = &b.module;
    assert_int_equal(p11_uri_parse(&uri, "pkcs11:token=x", NULL), BK_OK);
    assert_int_equal(p11_tokens_none(b.p, &uri, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "'' (serial 77?)"));
    assert_string_equal(b.p->tokens->where, "token without a label (serial 77?)");
    b.p->modules = NULL;
    p11_uri_free(&uri);
    bench_end(&b);
}

/* -- advice of others -----------------------------------------------------------------------------------------------
 */

/* Hints stand in archives, whose makers may know attributes that we do not: no reason to refuse the archive. */
static void
a_hint_that_is_not_understood_is_passed_over(void **state)
{
    struct bk_hint hints[] = {{.id = {{1, 2, 3, 4}, 4}, .uri = "pkcs11:token=x;no-such-attribute=1"}};
    struct bench b;
    struct bk_err err = {0};
    struct bk_key *key = NULL;
    int owned = 0;
    size_t at = 0;

    (void)state;
    bench_start(&b, 0);
    b.p->configured_loaded = 1;
    const struct ops_keyring ring = {.p11 = b.p};
    struct ops_archive *archive = calloc(1, sizeof *archive);

    assert_non_null(archive);
    archive->envelope.recipients[0].kind = BK_RECIPIENT_KNOWN;
    archive->envelope.recipients[0].wrapped.id = hints[0].id;
    archive->envelope.recipient_count = 1;
    archive->record.hints = hints;
    archive->record.hint_count = 1;
    assert_int_equal(ops_keyring_find(&ring, archive, &key, &owned, &at, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "no token matches pkcs11:"));
    assert_non_null(strstr(err.hint, "01020304"));
    free(archive);
    bench_end(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_token_does_not_get_the_pin),
        cmocka_unit_test(a_keypad_is_announced),
        cmocka_unit_test(a_failed_login_leaves_no_pin),
        cmocka_unit_test(an_attribute_that_is_not_written_is_blank),
        cmocka_unit_test(numbers_that_cannot_be_are_told),
        cmocka_unit_test(success_without_output_is_none),
        cmocka_unit_test(one_handle_for_two_keys_proves_nothing),
        cmocka_unit_test(making_something_never_fails_as_a_verification),
        cmocka_unit_test(signing_never_fails_as_a_verification),
        cmocka_unit_test(names_are_made_plain),
        cmocka_unit_test(a_token_without_a_label_is_named_by_its_serial),
        cmocka_unit_test(a_hint_that_is_not_understood_is_passed_over),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
