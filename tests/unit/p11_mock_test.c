/*
 * What tokens do that no test machine has: states of the PIN, keypads, lengths that lie, templates that must be so and
 * not otherwise. A function list of our own stands in for the module; no module is loaded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/keywrap.h"
#include "pkcs11/key.h"
#include "pkcs11/module.h"

/* The token that is played, and what was asked of it. Tests only: C_* functions take no context. */
static struct mock {
    CK_FLAGS flags;
    CK_RV login_rv;
    CK_RV open_rw_rv;
    int busy; /* so often there is no session to be had */
    CK_STATE state;
    int logins, opened, closed, read_write, objects;
    CK_USER_TYPE user;
    uint8_t pin[16];
    CK_ULONG pin_len;
    int pin_null;

    CK_FLAGS mechanism_flags;
    CK_RV unwrap_rv;
    int needs_len; /* C_UnwrapKey wants CKA_VALUE_LEN */
    int needs_aes; /* and CKK_AES */
    int needs_der; /* C_DeriveKey wants the point inside an OCTET STRING */
    int ignores_sensitive;
    int sensitive; /* of the object there is */
    CK_ULONG lie;  /* added to every length that is returned */
    int bad_signature;
    uint8_t value[64]; /* of the object there is */
    CK_ULONG value_len;
    EVP_PKEY *ec;
} mock;

static const uint8_t kek_bytes[32] = {42};

static CK_RV
m_open(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *out)
{
    (void)slot;
    (void)app;
    assert_true(notify == NULL && (flags & CKF_SERIAL_SESSION) != 0);
    if (mock.busy > 0 && mock.busy-- > 0)
        return CKR_SESSION_COUNT;
    if ((flags & CKF_RW_SESSION) != 0 && mock.open_rw_rv != CKR_OK)
        return mock.open_rw_rv;
    mock.opened++;
    mock.read_write = (flags & CKF_RW_SESSION) != 0;
    *out = 0; /* a valid handle */
    return CKR_OK;
}

static CK_RV
m_close(CK_SESSION_HANDLE s)
{
    (void)s;
    mock.closed++;
    return CKR_OK;
}

static CK_RV
m_session_info(CK_SESSION_HANDLE s, CK_SESSION_INFO *info)
{
    (void)s;
    *info = (CK_SESSION_INFO){.state = mock.state};
    return CKR_OK;
}

static CK_RV
m_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    (void)slot;
    memset(info, ' ', sizeof *info);
    info->flags = mock.flags;
    return CKR_OK;
}

static CK_RV
m_login(CK_SESSION_HANDLE s, CK_USER_TYPE user, unsigned char *pin, CK_ULONG len)
{
    (void)s;
    mock.logins++;
    mock.user = user;
    mock.pin_null = pin == NULL;
    mock.pin_len = len;
    if (pin != NULL && len <= sizeof mock.pin)
        memcpy(mock.pin, pin, len);
    if (mock.login_rv == CKR_OK && user == CKU_USER)
        mock.state = CKS_RW_USER_FUNCTIONS;
    return mock.login_rv;
}

static CK_RV
m_logout(CK_SESSION_HANDLE s)
{
    (void)s;
    return CKR_OK;
}

static CK_RV
m_mechanism_info(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    (void)slot;
    (void)type;
    *info = (CK_MECHANISM_INFO){.flags = mock.mechanism_flags};
    return CKR_OK;
}

static const CK_ATTRIBUTE *
in_template(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type)
{
    for (CK_ULONG i = 0; i < n; i++)
        if (t[i].type == type)
            return &t[i];
    return NULL;
}

/* Makes the one object there can be out of bytes, as the template says. */
static CK_RV
make_object(const CK_ATTRIBUTE *t, CK_ULONG n, const void *bytes, CK_ULONG len, CK_OBJECT_HANDLE *out)
{
    const CK_ATTRIBUTE *sensitive = in_template(t, n, CKA_SENSITIVE);

    assert_non_null(sensitive);
    assert_false(*(CK_BBOOL *)in_template(t, n, CKA_TOKEN)->pValue);
    memcpy(mock.value, bytes, len);
    mock.value_len = len;
    mock.sensitive = *(CK_BBOOL *)sensitive->pValue && !mock.ignores_sensitive;
    *out = (CK_OBJECT_HANDLE)mock.objects++; /* 0 is a valid handle */
    return CKR_OK;
}

static CK_RV
m_unwrap(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, unsigned char *wrapped, CK_ULONG len,
         CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *out)
{
    struct bk_secret kek = {0};
    struct bk_secret cek = {0};
    CK_RV rv = CKR_WRAPPED_KEY_INVALID;

    (void)s;
    (void)under;
    assert_int_equal(m->mechanism, CKM_AES_KEY_WRAP);
    assert_int_equal(len, BK_AESKW_LEN);
    if (mock.unwrap_rv != CKR_OK)
        return mock.unwrap_rv;
    if (mock.needs_len && in_template(t, n, CKA_VALUE_LEN) == NULL)
        return CKR_TEMPLATE_INCOMPLETE;
    if (mock.needs_aes && *(CK_KEY_TYPE *)in_template(t, n, CKA_KEY_TYPE)->pValue != CKK_AES)
        return CKR_ATTRIBUTE_VALUE_INVALID;
    assert_int_equal(bk_secret_from(&kek, kek_bytes, sizeof kek_bytes, NULL), BK_OK);
    if (bk_aeskw_unwrap(&kek, wrapped, &cek, NULL) == BK_OK)
        rv = make_object(t, n, cek.data, cek.len, out);
    bk_secret_wipe(&kek);
    bk_secret_wipe(&cek);
    return rv;
}

static CK_RV
m_wrap(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE object, unsigned char *out,
       CK_ULONG *len)
{
    struct bk_secret kek = {0};
    struct bk_secret cek = {0};

    (void)s;
    (void)m;
    (void)under;
    (void)object;
    assert_int_equal(bk_secret_from(&kek, kek_bytes, sizeof kek_bytes, NULL), BK_OK);
    assert_int_equal(bk_secret_from(&cek, mock.value, mock.value_len, NULL), BK_OK);
    assert_int_equal(bk_aeskw_wrap(&kek, &cek, out, NULL), BK_OK);
    *len = BK_AESKW_LEN + mock.lie;
    bk_secret_wipe(&kek);
    bk_secret_wipe(&cek);
    return CKR_OK;
}

static CK_RV
m_create(CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *out)
{
    const CK_ATTRIBUTE *value = in_template(t, n, CKA_VALUE);

    (void)s;
    return make_object(t, n, value->pValue, value->ulValueLen, out);
}

static CK_RV
m_destroy(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object)
{
    (void)s;
    (void)object;
    mock.objects--;
    return CKR_OK;
}

static CK_RV
m_attribute(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *t, CK_ULONG n)
{
    CK_BBOOL sensitive = mock.sensitive ? CK_TRUE : CK_FALSE;

    (void)s;
    (void)object;
    assert_int_equal(n, 1);
    if (t->type == CKA_SENSITIVE) {
        memcpy(t->pValue, &sensitive, sizeof sensitive);
        t->ulValueLen = sizeof sensitive;
        return CKR_OK;
    }
    if (t->type != CKA_VALUE)
        return CKR_ATTRIBUTE_TYPE_INVALID;
    if (mock.sensitive) {
        t->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return CKR_ATTRIBUTE_SENSITIVE;
    }
    assert_true(t->ulValueLen >= mock.value_len);
    memcpy(t->pValue, mock.value, mock.value_len);
    t->ulValueLen = mock.value_len + mock.lie;
    return CKR_OK;
}

static CK_RV
m_init(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
    (void)s;
    (void)m;
    (void)key;
    return CKR_OK;
}

static CK_RV
m_decrypt(CK_SESSION_HANDLE s, unsigned char *in, CK_ULONG in_len, unsigned char *out, CK_ULONG *out_len)
{
    struct bk_secret kek = {0};
    struct bk_secret cek = {0};
    CK_RV rv = CKR_ENCRYPTED_DATA_INVALID;

    (void)s;
    assert_int_equal(in_len, BK_AESKW_LEN);
    assert_true(*out_len >= in_len);
    assert_int_equal(bk_secret_from(&kek, kek_bytes, sizeof kek_bytes, NULL), BK_OK);
    if (bk_aeskw_unwrap(&kek, in, &cek, NULL) == BK_OK) {
        memcpy(out, cek.data, cek.len);
        *out_len = cek.len + mock.lie;
        rv = CKR_OK;
    }
    bk_secret_wipe(&kek);
    bk_secret_wipe(&cek);
    return rv;
}

static EVP_PKEY *
peer_of(const uint8_t *point, size_t len)
{
    EVP_PKEY *peer = EVP_PKEY_new();

    assert_int_equal(EVP_PKEY_copy_parameters(peer, mock.ec), 1);
    assert_int_equal(EVP_PKEY_set1_encoded_public_key(peer, point, len), 1);
    return peer;
}

static CK_RV
m_derive(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *out)
{
    const CK_ECDH1_DERIVE_PARAMS *params = m->pParameter;
    const uint8_t *point = params->pPublicData;
    CK_ULONG len = params->ulPublicDataLen;
    uint8_t secret[64];
    size_t secret_len = sizeof secret;
    EVP_PKEY_CTX *ctx;
    EVP_PKEY *peer;

    (void)s;
    (void)key;
    assert_int_equal(params->kdf, CKD_NULL);
    assert_int_equal(*(CK_ULONG *)in_template(t, n, CKA_VALUE_LEN)->pValue, 32);
    if (mock.needs_der) {
        if (len != 67)
            return CKR_MECHANISM_PARAM_INVALID;
        point += 2;
        len -= 2;
    }
    peer = peer_of(point, len);
    ctx = EVP_PKEY_CTX_new(mock.ec, NULL);
    assert_int_equal(EVP_PKEY_derive_init(ctx), 1);
    assert_int_equal(EVP_PKEY_derive_set_peer(ctx, peer), 1);
    assert_int_equal(EVP_PKEY_derive(ctx, secret, &secret_len), 1);
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(peer);
    return make_object(t, n, secret, secret_len, out);
}

static CK_RV
m_sign(CK_SESSION_HANDLE s, unsigned char *data, CK_ULONG data_len, unsigned char *out, CK_ULONG *out_len)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(mock.ec, NULL);
    uint8_t der[128];
    const uint8_t *at = der;
    size_t len = sizeof der;
    ECDSA_SIG *sig;

    (void)s;
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_sign(ctx, der, &len, data, data_len), 1);
    sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, 32), 32);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + 32, 32), 32);
    out[5] ^= (uint8_t)mock.bad_signature;
    *out_len = 64 + mock.lie;
    ECDSA_SIG_free(sig);
    EVP_PKEY_CTX_free(ctx);
    return CKR_OK;
}

static CK_FUNCTION_LIST functions = {
    .C_OpenSession = m_open,
    .C_CloseSession = m_close,
    .C_GetSessionInfo = m_session_info,
    .C_GetTokenInfo = m_token_info,
    .C_GetMechanismInfo = m_mechanism_info,
    .C_Login = m_login,
    .C_Logout = m_logout,
    .C_UnwrapKey = m_unwrap,
    .C_WrapKey = m_wrap,
    .C_CreateObject = m_create,
    .C_DestroyObject = m_destroy,
    .C_GetAttributeValue = m_attribute,
    .C_DecryptInit = m_init,
    .C_Decrypt = m_decrypt,
    .C_DeriveKey = m_derive,
    .C_SignInit = m_init,
    .C_Sign = m_sign,
};

/* -- logging in -----------------------------------------------------------------------------------------------------
 */

struct bench {
    struct p11 *p;
    struct p11_options options;
    struct p11_module module;
    struct p11_token *token;
    struct p11_pin_request seen;
    int asked;
    const char *pin;
};

static enum bk_code
on_pin(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err)
{
    struct bench *b = ctx;

    b->seen = *req;
    b->asked++;
    return b->pin == NULL ? BK_OK : bk_secret_from(pin, b->pin, strlen(b->pin), err);
}

static void
bench_start(struct bench *b, CK_FLAGS flags)
{
    mock = (struct mock){.flags = flags | CKF_TOKEN_INITIALIZED, .state = CKS_RW_PUBLIC_SESSION};
    *b = (struct bench){.pin = "1234"};
    b->options = (struct p11_options){.pin = on_pin, .pin_ctx = b};
    b->module = (struct p11_module){.port = {.list = &functions, .where = "module 'mock'"}, .usable = 1};
    assert_int_equal(p11_open(&b->options, &b->p, NULL), BK_OK);
    b->token = calloc(1, sizeof *b->token);
    assert_non_null(b->token);
    *b->token = (struct p11_token){.owner = b->p, .module = &b->module, .label = "mock", .serial = "1"};
    memcpy(b->token->where, "token 'mock'", 13);
    assert_int_equal(m_token_info(0, &b->token->info), CKR_OK);
    b->p->tokens = b->token;
}

static void
bench_end(struct bench *b)
{
    p11_close(b->p);
    assert_int_equal(mock.opened, mock.closed);
    assert_int_equal(mock.objects, 0);
    EVP_PKEY_free(mock.ec);
    mock.ec = NULL;
}

static int
setup(void **state)
{
    int locked = 0;

    (void)state;
    return bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

static void
tells_the_state_of_the_pin(void **state)
{
    static const struct {
        CK_FLAGS flags;
        int low, final;
    } cases[] = {{0, 0, 0},
                 {CKF_USER_PIN_COUNT_LOW, 1, 0},
                 {CKF_USER_PIN_FINAL_TRY, 0, 1},
                 {CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY, 1, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench b;

        bench_start(&b, CKF_LOGIN_REQUIRED | cases[i].flags);
        assert_int_equal(p11_token_login(b.token, NULL, NULL), BK_OK);
        assert_int_equal(p11_token_login(b.token, NULL, NULL), BK_OK);
        assert_int_equal(b.seen.count_low, cases[i].low);
        assert_int_equal(b.seen.final_try, cases[i].final);
        assert_string_equal(b.seen.token_label, "mock");
        assert_int_equal(b.asked, 1);
        assert_int_equal(mock.logins, 1);
        assert_int_equal(mock.pin_len, 4);
        assert_memory_equal(mock.pin, "1234", 4);
        bench_end(&b);
    }
}

static void
does_not_try_a_locked_pin(void **state)
{
    struct bench b;
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, CKF_LOGIN_REQUIRED | CKF_USER_PIN_LOCKED);
    assert_int_equal(p11_token_login(b.token, NULL, &err), BK_E_PIN);
    assert_non_null(strstr(err.message, "locked"));
    assert_int_equal(b.asked, 0);
    assert_int_equal(mock.logins, 0);
    bench_end(&b);

    /* some say it only when it is too late */
    bench_start(&b, CKF_LOGIN_REQUIRED);
    mock.login_rv = CKR_PIN_LOCKED;
    assert_int_equal(p11_token_login(b.token, NULL, &err), BK_E_PIN);
    assert_non_null(strstr(err.message, "the PIN is locked"));
    assert_int_equal(p11_token_login(b.token, NULL, &err), BK_E_PIN);
    assert_int_equal(mock.logins, 1);
    assert_null(b.token->pin.data);
    bench_end(&b);
}

static void
does_not_risk_the_final_try_on_a_stored_pin(void **state)
{
    struct bench b;
    struct p11_uri uri = {0};
    struct bk_err err = {0};

    (void)state;
    assert_int_equal(p11_uri_parse(&uri, "pkcs11:token=mock?pin-value=4321&pin-source=file:/x", &err), BK_OK);
    bench_start(&b, CKF_LOGIN_REQUIRED | CKF_USER_PIN_FINAL_TRY);
    assert_int_equal(p11_token_login(b.token, &uri, &err), BK_E_PIN);
    assert_null(strstr(err.message, "4321"));
    assert_int_equal(mock.logins, 0);
    bench_end(&b);

    bench_start(&b, CKF_LOGIN_REQUIRED);
    assert_int_equal(p11_token_login(b.token, &uri, &err), BK_OK);
    assert_memory_equal(mock.pin, "4321", 4);
    assert_int_equal(b.asked, 0);
    bench_end(&b);
    p11_uri_free(&uri);
}

static void
needs_no_pin_where_there_is_none(void **state)
{
    struct bench b;
    struct bk_err err = {0};

    (void)state;
    /* a keypad: NULL, and no question */
    bench_start(&b, CKF_LOGIN_REQUIRED | CKF_PROTECTED_AUTHENTICATION_PATH);
    assert_int_equal(p11_token_login(b.token, NULL, NULL), BK_OK);
    assert_int_equal(mock.logins, 1);
    assert_true(mock.pin_null);
    assert_int_equal(mock.pin_len, 0);
    assert_int_equal(b.asked, 0);
    bench_end(&b);

    bench_start(&b, 0);
    assert_int_equal(p11_token_login(b.token, NULL, NULL), BK_OK);
    assert_int_equal(mock.logins, 0);
    bench_end(&b);

    /* the process is logged in already: seen beforehand, or told by the token */
    bench_start(&b, CKF_LOGIN_REQUIRED);
    mock.state = CKS_RO_USER_FUNCTIONS;
    assert_int_equal(p11_token_login(b.token, NULL, NULL), BK_OK);
    assert_int_equal(b.asked, 0);
    bench_end(&b);
    bench_start(&b, CKF_LOGIN_REQUIRED);
    mock.login_rv = CKR_USER_ALREADY_LOGGED_IN;
    assert_int_equal(p11_token_login(b.token, NULL, NULL), BK_OK);
    bench_end(&b);

    /* an empty PIN would count as a wrong one */
    bench_start(&b, CKF_LOGIN_REQUIRED);
    b.pin = NULL;
    assert_int_equal(p11_token_login(b.token, NULL, &err), BK_E_PIN);
    assert_non_null(strstr(err.message, "empty"));
    assert_int_equal(mock.logins, 0);
    bench_end(&b);
}

static void
opens_the_session_that_it_gets(void **state)
{
    struct bench b;
    struct p11_session s = {0};
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, 0);
    assert_int_equal(p11_session_open(&s, b.token, NULL), BK_OK);
    assert_true(mock.read_write);
    p11_session_close(&s);
    p11_session_close(&s);
    mock.open_rw_rv = CKR_TOKEN_WRITE_PROTECTED;
    assert_int_equal(p11_session_open(&s, b.token, NULL), BK_OK);
    assert_false(mock.read_write);
    p11_session_close(&s);
    mock.open_rw_rv = CKR_SESSION_EXISTS;
    assert_int_equal(p11_session_open(&s, b.token, &err), BK_E_TOKEN);
    assert_int_equal(err.token_rv, CKR_SESSION_EXISTS);
    assert_non_null(strstr(err.message, "token 'mock': opening a session: C_OpenSession: CKR_SESSION_EXISTS"));
    bench_end(&b);
}

static void
waits_for_a_session_that_others_have(void **state)
{
    struct bench b;
    struct p11_session s = {0};

    (void)state;
    bench_start(&b, 0);
    mock.busy = 3;
    assert_int_equal(p11_session_open(&s, b.token, NULL), BK_OK);
    assert_int_equal(mock.busy, 0);
    assert_int_equal(mock.opened, 1);
    p11_session_close(&s);
    bench_end(&b);
}

/* One session for a login and for the work, since a device may have few; a second one only for a second user. */
static void
works_with_the_session_that_keeps_the_login(void **state)
{
    struct bench b;
    struct p11_session s = {0};
    struct p11_session second = {0};
    CK_SESSION_INFO info = {0};

    (void)state;
    bench_start(&b, CKF_LOGIN_REQUIRED);
    assert_int_equal(p11_token_login(b.token, NULL, NULL), BK_OK);
    assert_int_equal(p11_session_open(&s, b.token, NULL), BK_OK);
    assert_int_equal(mock.opened, 1);
    assert_int_equal(p11_session_open(&second, b.token, NULL), BK_OK);
    assert_int_equal(mock.opened, 2);
    p11_session_close(&second);
    assert_int_equal(mock.closed, 1);
    p11_session_close(&s);
    assert_int_equal(mock.closed, 1);

    /* after a failed call it is not used again, and the next one is there before it goes */
    assert_int_equal(p11_session_open(&s, b.token, NULL), BK_OK);
    assert_true(p11_call_admit(&s.port, "C_Sign"));
    assert_int_equal(p11_call_done(&s.port, CKR_OPERATION_ACTIVE), CKR_OPERATION_ACTIVE);
    p11_session_close(&s);
    assert_int_equal(mock.opened, 3);
    assert_int_equal(mock.closed, 2);
    assert_int_equal(P11_CALL(&b.module.port, C_GetSessionInfo, b.token->session, &info), CKR_OK);
    assert_int_equal(mock.logins, 1);
    bench_end(&b);
}

/* -- keys -----------------------------------------------------------------------------------------------------------
 */

/* A key as p11_key_make would make it; search is not played here. */
static struct bk_key *
key_on(struct bench *b, const struct p11_key *like, enum p11_use use)
{
    struct p11_key *key = NULL;
    struct p11_session s = {0};

    assert_int_equal(p11_session_open(&s, b->token, NULL), BK_OK);
    assert_int_equal(p11_key_make(&s, 0, &like->traits, use, &key, NULL), BK_OK);
    return &key->base;
}

static struct bk_key *
aes_on(struct bench *b)
{
    struct p11_key like = {.traits = {.class = CKO_SECRET_KEY,
                                      .type = BK_KEY_AES256,
                                      .id = {1, 2, 3, 4},
                                      .id_len = 4,
                                      .can_wrap = 1,
                                      .can_unwrap = 1,
                                      .can_decrypt = -1,
                                      .can_encrypt = -1}};

    return key_on(b, &like, P11_USE_UNWRAP);
}

static void
wrap_on_host(struct bk_secret *cek, struct bk_wrapped *w)
{
    struct bk_secret kek = {0};

    *w = (struct bk_wrapped){.scheme = BK_SCHEME_AES_KW, .len = BK_AESKW_LEN};
    assert_int_equal(bk_secret_random(cek, BK_CEK_LEN, NULL), BK_OK);
    assert_int_equal(bk_secret_from(&kek, kek_bytes, sizeof kek_bytes, NULL), BK_OK);
    assert_int_equal(bk_aeskw_wrap(&kek, cek, w->data, NULL), BK_OK);
    bk_secret_wipe(&kek);
}

/* One unwrap on a token of the given oddities. */
static void
unwrap_on(void (*odd)(void), enum bk_code want)
{
    struct bench b;
    struct bk_key *key;
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped w;

    bench_start(&b, 0);
    key = aes_on(&b);
    odd();
    wrap_on_host(&cek, &w);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), want);
    assert_true(want != BK_OK || bk_secret_equal(&cek, &opened));
    assert_true(want == BK_OK || opened.data == NULL);
    bk_secret_wipe(&cek);
    bk_secret_wipe(&opened);
    bk_key_close(key);
    bench_end(&b);
}

static void
odd_none(void)
{
}

static void
odd_len(void)
{
    mock.needs_len = 1;
}

static void
odd_aes_and_len(void)
{
    mock.needs_len = mock.needs_aes = 1;
}

static void
odd_decrypt_only(void)
{
    mock.unwrap_rv = CKR_FUNCTION_NOT_SUPPORTED;
    mock.mechanism_flags = CKF_DECRYPT;
}

static void
odd_nothing(void)
{
    mock.unwrap_rv = CKR_MECHANISM_INVALID;
}

static void
odd_lie(void)
{
    mock.lie = 100000;
}

static void
odd_lie_decrypt(void)
{
    odd_decrypt_only();
    mock.lie = 1;
}

static void
odd_invalid(void)
{
    mock.unwrap_rv = CKR_WRAPPED_KEY_INVALID;
}

static void
opens_wrapped_keys_on_odd_tokens(void **state)
{
    (void)state;
    unwrap_on(odd_none, BK_OK);
    unwrap_on(odd_len, BK_OK);
    unwrap_on(odd_aes_and_len, BK_OK);
    unwrap_on(odd_decrypt_only, BK_OK);
    unwrap_on(odd_nothing, BK_E_UNSUPPORTED);
    unwrap_on(odd_lie, BK_E_TOKEN);
    unwrap_on(odd_lie_decrypt, BK_E_VERIFY);
    unwrap_on(odd_invalid, BK_E_VERIFY);
}

static void
wraps_and_distrusts_lengths(void **state)
{
    struct bench b;
    struct bk_key *key;
    struct bk_secret cek = {0};
    struct bk_wrapped want;
    struct bk_wrapped w = {0};

    (void)state;
    bench_start(&b, 0);
    key = aes_on(&b);
    wrap_on_host(&cek, &want);
    assert_int_equal(bk_key_wrap(key, &cek, &w, NULL), BK_OK);
    assert_memory_equal(w.data, want.data, BK_AESKW_LEN);
    w = (struct bk_wrapped){0};
    mock.lie = 8; /* as PKCS#7 padding inside of AES key wrap would */
    assert_int_equal(bk_key_wrap(key, &cek, &w, NULL), BK_E_UNSUPPORTED);
    assert_int_equal(w.len, 0);
    bk_secret_wipe(&cek);
    bk_key_close(key);
    bench_end(&b);
}

static void
is_blind_only_where_the_token_is(void **state)
{
    struct bench b;
    struct bk_key *key;
    struct bk_key *to;
    struct bk_secret cek = {0};
    struct bk_wrapped w;
    struct bk_wrapped out = {0};
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, 0);
    key = aes_on(&b);
    to = aes_on(&b);
    wrap_on_host(&cek, &w);
    assert_int_equal(bk_key_rewrap(key, &w, to, &out, NULL), BK_OK);
    assert_memory_equal(out.data, w.data, BK_AESKW_LEN);
    out = (struct bk_wrapped){0};
    mock.ignores_sensitive = 1;
    assert_int_equal(bk_key_rewrap(key, &w, to, &out, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "blind"));
    assert_int_equal(out.len, 0);
    bk_secret_wipe(&cek);
    bk_key_close(key);
    bk_key_close(to);
    bench_end(&b);
}

/* An EC key of ours behind the mock; its public half is put in place as the token would tell it. */
static struct bk_key *
ec_on(struct bench *b, enum p11_use use)
{
    struct p11_key *key;
    struct p11_key like = {.traits = {.class = CKO_SECRET_KEY, .type = BK_KEY_AES256, .id_len = 4}};
    uint8_t *spki = NULL;
    int len;

    mock.ec = EVP_EC_gen("P-256");
    len = i2d_PUBKEY(mock.ec, &spki);
    assert_true(len > 0);
    key = p11_key_of(key_on(b, &like, use));
    key->traits.class = CKO_PRIVATE_KEY;
    key->traits.type = BK_KEY_P256;
    bk_public_free(&key->base.pub);
    assert_int_equal(bk_public_from_spki(&key->base.pub, spki, (size_t)len, NULL), BK_OK);
    OPENSSL_free(spki);
    return &key->base;
}

static void
derives_from_either_form_of_point(void **state)
{
    (void)state;
    for (int der = 0; der < 2; der++) {
        struct bench b;
        struct bk_key *key;
        struct bk_secret cek = {0};
        struct bk_secret opened = {0};
        struct bk_wrapped w = {0};

        bench_start(&b, 0);
        key = ec_on(&b, P11_USE_UNWRAP);
        mock.needs_der = der;
        assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
        assert_int_equal(bk_public_wrap(&key->pub, &cek, &w, NULL), BK_OK);
        assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_OK);
        assert_true(bk_secret_equal(&cek, &opened));
        bk_secret_wipe(&opened);
        mock.lie = (CK_ULONG)-1; /* a secret cut short */
        assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_E_VERIFY);
        assert_null(opened.data);
        bk_secret_wipe(&cek);
        bk_key_close(key);
        bench_end(&b);
    }
}

static void
lets_no_bad_signature_out(void **state)
{
    struct bench b;
    struct bk_key *key;
    uint8_t digest[32] = {5};
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, 0);
    key = ec_on(&b, P11_USE_SIGN);
    assert_int_equal(bk_key_sign(key, digest, sig, &len, NULL), BK_OK);
    assert_int_equal(bk_public_verify(&key->pub, BK_SIG_ECDSA_SHA256, digest, sig, len, NULL), BK_OK);
    len = sizeof sig;
    mock.bad_signature = 1;
    assert_int_equal(bk_key_sign(key, digest, sig, &len, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "does not hold"));
    assert_int_equal(len, sizeof sig);
    bk_key_close(key);
    bench_end(&b);

    bench_start(&b, 0);
    key = ec_on(&b, P11_USE_SIGN);
    mock.lie = 1;
    assert_int_equal(bk_key_sign(key, digest, sig, &len, &err), BK_E_TOKEN);
    assert_non_null(strstr(err.message, "65 bytes"));
    bk_key_close(key);
    bench_end(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_the_state_of_the_pin),
        cmocka_unit_test(does_not_try_a_locked_pin),
        cmocka_unit_test(does_not_risk_the_final_try_on_a_stored_pin),
        cmocka_unit_test(needs_no_pin_where_there_is_none),
        cmocka_unit_test(opens_the_session_that_it_gets),
        cmocka_unit_test(waits_for_a_session_that_others_have),
        cmocka_unit_test(works_with_the_session_that_keeps_the_login),
        cmocka_unit_test(opens_wrapped_keys_on_odd_tokens),
        cmocka_unit_test(wraps_and_distrusts_lengths),
        cmocka_unit_test(is_blind_only_where_the_token_is),
        cmocka_unit_test(derives_from_either_form_of_point),
        cmocka_unit_test(lets_no_bad_signature_out),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
