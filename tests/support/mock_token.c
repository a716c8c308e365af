#include "tests/support/mock_token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>

#define KEY    3 /* handles */
#define OBJECT 4

struct mock mock;

static const uint8_t kek_bytes[32] = {42};

static CK_RV
m_open(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE *out)
{
    (void)slot;
    (void)flags;
    (void)app;
    (void)notify;
    mock.sessions++;
    *out = 1;
    return CKR_OK;
}

static CK_RV
m_close(CK_SESSION_HANDLE s)
{
    (void)s;
    mock.sessions--;
    mock.doing = 0;
    return CKR_OK;
}

static CK_RV
m_session_info(CK_SESSION_HANDLE s, CK_SESSION_INFO *info)
{
    (void)s;
    *info = (CK_SESSION_INFO){.state = CKS_RW_USER_FUNCTIONS};
    return CKR_OK;
}

static CK_RV
m_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    (void)slot;
    memset(info, ' ', sizeof *info);
    info->flags = CKF_TOKEN_INITIALIZED;
    return CKR_OK;
}

static CK_RV
m_mechanism_info(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    (void)slot;
    (void)type;
    *info = (CK_MECHANISM_INFO){0};
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

static CK_BBOOL
wanted(const CK_ATTRIBUTE *t, CK_ULONG n, CK_ATTRIBUTE_TYPE type)
{
    const CK_ATTRIBUTE *a = in_template(t, n, type);

    return a != NULL && *(CK_BBOOL *)a->pValue;
}

static CK_RV
m_generate(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *out)
{
    const CK_ATTRIBUTE *id = in_template(t, n, CKA_ID);
    const CK_ATTRIBUTE *label = in_template(t, n, CKA_LABEL);

    (void)s;
    assert_int_equal(m->mechanism, CKM_AES_KEY_GEN);
    mock.exists = 1;
    mock.generated++;
    mock.type = CKK_AES;
    mock.token = wanted(t, n, CKA_TOKEN);
    mock.encrypts = wanted(t, n, CKA_ENCRYPT);
    mock.decrypts = wanted(t, n, CKA_DECRYPT);
    mock.wraps = wanted(t, n, CKA_WRAP);
    mock.unwraps = wanted(t, n, CKA_UNWRAP);
    memcpy(mock.id, id->pValue, mock.id_len = id->ulValueLen);
    memcpy(mock.label, label->pValue, mock.label_len = label->ulValueLen);
    *out = KEY;
    return CKR_OK;
}

static CK_RV
m_generate_pair(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_ATTRIBUTE *a, CK_ULONG an, CK_ATTRIBUTE *b, CK_ULONG bn,
                CK_OBJECT_HANDLE *pub, CK_OBJECT_HANDLE *priv)
{
    (void)s;
    (void)m;
    (void)a;
    (void)an;
    (void)b;
    (void)bn;
    (void)pub;
    (void)priv;
    return CKR_MECHANISM_INVALID;
}

static CK_RV
m_destroy(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object)
{
    (void)s;
    if (object == KEY) {
        assert_true(mock.exists);
        mock.exists = 0;
        mock.destroyed++;
    } else {
        assert_true(mock.value_len > 0);
        mock.value_len = 0;
    }
    return CKR_OK;
}

static CK_OBJECT_CLASS
key_class(void)
{
    return mock.rsa != NULL ? CKO_PRIVATE_KEY : CKO_SECRET_KEY;
}

static CK_RV
m_find_init(CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n)
{
    const CK_ATTRIBUTE *label = in_template(t, n, CKA_LABEL);

    (void)s;
    mock.searching = mock.exists && *(CK_OBJECT_CLASS *)in_template(t, n, CKA_CLASS)->pValue == key_class() &&
                     (label == NULL ||
                      (label->ulValueLen == mock.label_len && memcmp(label->pValue, mock.label, mock.label_len) == 0));
    return CKR_OK;
}

static CK_RV
m_find(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *out, CK_ULONG room, CK_ULONG *found)
{
    (void)s;
    assert_true(room > 0);
    *out = KEY;
    *found = mock.searching ? 1 : 0;
    mock.searching = 0;
    return CKR_OK;
}

static CK_RV
m_find_final(CK_SESSION_HANDLE s)
{
    (void)s;
    return CKR_OK;
}

static CK_RV
give(CK_ATTRIBUTE *t, const void *value, size_t len)
{
    if (t->ulValueLen < len) {
        t->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return CKR_BUFFER_TOO_SMALL;
    }
    memcpy(t->pValue, value, len);
    t->ulValueLen = (CK_ULONG)len;
    return CKR_OK;
}

static CK_RV
give_number(CK_ATTRIBUTE *t, const char *name)
{
    uint8_t bytes[BK_WRAPPED_MAX];
    BIGNUM *n = NULL;
    int len;

    if (mock.rsa == NULL)
        return CKR_ATTRIBUTE_TYPE_INVALID;
    assert_int_equal(EVP_PKEY_get_bn_param(mock.rsa, name, &n), 1);
    len = BN_bn2bin(n, bytes);
    BN_free(n);
    return give(t, bytes, (size_t)len);
}

static CK_RV
m_attribute(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *t, CK_ULONG n)
{
    const CK_BBOOL yes = CK_TRUE, no = CK_FALSE, token = mock.token ? CK_TRUE : CK_FALSE;
    const CK_OBJECT_CLASS class = key_class();
    const CK_ULONG bytes = 32;

    (void)s;
    assert_int_equal(n, 1);
    if (object == OBJECT)
        return t->type == CKA_VALUE ? give(t, mock.value, mock.value_len) : CKR_ATTRIBUTE_TYPE_INVALID;
    switch (t->type) {
    case CKA_CLASS:
        return give(t, &class, sizeof class);
    case CKA_KEY_TYPE:
        return give(t, &mock.type, sizeof mock.type);
    case CKA_VALUE_LEN:
        return mock.type == CKK_AES ? give(t, &bytes, sizeof bytes) : CKR_ATTRIBUTE_TYPE_INVALID;
    case CKA_MODULUS:
        return give_number(t, OSSL_PKEY_PARAM_RSA_N);
    case CKA_PUBLIC_EXPONENT:
        return give_number(t, OSSL_PKEY_PARAM_RSA_E);
    case CKA_ID:
        return give(t, mock.id, mock.id_len);
    case CKA_LABEL:
        return give(t, mock.label, mock.label_len);
    case CKA_ENCRYPT:
        return give(t, &mock.encrypts, 1);
    case CKA_DECRYPT:
        return give(t, &mock.decrypts, 1);
    case CKA_WRAP:
        return give(t, &mock.wraps, 1);
    case CKA_UNWRAP:
        return give(t, &mock.unwraps, 1);
    case CKA_TOKEN:
        return give(t, &token, 1);
    case CKA_SENSITIVE:
    case CKA_PRIVATE:
        return give(t, &yes, 1);
    case CKA_EXTRACTABLE:
    case CKA_MODIFIABLE:
        return give(t, &no, 1);
    default:
        return CKR_ATTRIBUTE_TYPE_INVALID;
    }
}

static CK_RV
m_create(CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *out)
{
    const CK_ATTRIBUTE *value = in_template(t, n, CKA_VALUE);

    (void)s;
    memcpy(mock.value, value->pValue, mock.value_len = value->ulValueLen);
    *out = OBJECT;
    return CKR_OK;
}

/* AES key wrap of the object's value, in either direction. */
static CK_RV
key_wrap(int wrap, uint8_t wrapped[BK_AESKW_LEN])
{
    struct bk_secret kek = {0};
    struct bk_secret cek = {0};
    enum bk_code rc;

    assert_int_equal(bk_secret_from(&kek, kek_bytes, sizeof kek_bytes, NULL), BK_OK);
    if (wrap) {
        assert_int_equal(bk_secret_from(&cek, mock.value, mock.value_len, NULL), BK_OK);
        rc = bk_aeskw_wrap(&kek, &cek, wrapped, NULL);
    } else if ((rc = bk_aeskw_unwrap(&kek, wrapped, &cek, NULL)) == BK_OK) {
        memcpy(mock.value, cek.data, mock.value_len = cek.len);
    }
    bk_secret_wipe(&kek);
    bk_secret_wipe(&cek);
    return rc == BK_OK ? CKR_OK : CKR_WRAPPED_KEY_INVALID;
}

static CK_RV
m_wrap(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE object, unsigned char *out,
       CK_ULONG *len)
{
    (void)s;
    assert_int_equal(under, KEY);
    assert_int_equal(object, OBJECT);
    if (m->mechanism != CKM_AES_KEY_WRAP || !mock.key_wrap)
        return CKR_MECHANISM_INVALID;
    *len = BK_AESKW_LEN;
    return mock.wraps ? key_wrap(1, out) : CKR_KEY_FUNCTION_NOT_PERMITTED;
}

/* RSA with the padding of the mechanism. */
static CK_RV
rsa(const CK_MECHANISM *m, const uint8_t *in, CK_ULONG in_len, uint8_t *out, size_t *len)
{
    const CK_RSA_PKCS_OAEP_PARAMS *oaep = m->pParameter;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, mock.rsa, NULL);
    int bare = m->mechanism == CKM_RSA_X_509;
    const EVP_MD *md = bare || oaep->hashAlg == CKM_SHA_1 ? EVP_sha1() : EVP_sha256();
    int ok = EVP_PKEY_decrypt_init(ctx) == 1 &&
             EVP_PKEY_CTX_set_rsa_padding(ctx, bare ? RSA_NO_PADDING : RSA_PKCS1_OAEP_PADDING) == 1 &&
             (bare || EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) == 1) && EVP_PKEY_decrypt(ctx, out, len, in, in_len) == 1;

    EVP_PKEY_CTX_free(ctx);
    return ok ? CKR_OK : CKR_GENERAL_ERROR; /* as SoftHSM has it */
}

/* What the module says to the mechanism before it sees any data. */
static CK_RV
begin_rsa(const CK_MECHANISM *m)
{
    const CK_RSA_PKCS_OAEP_PARAMS *oaep = m->pParameter;

    if (m->mechanism == CKM_RSA_X_509) {
        mock.raw_calls++;
        return mock.raw_rv;
    }
    if (m->mechanism != CKM_RSA_PKCS_OAEP)
        return CKR_MECHANISM_INVALID;
    assert_int_equal(oaep->source, CKZ_DATA_SPECIFIED);
    return oaep->hashAlg == CKM_SHA256 && !mock.sha256 ? CKR_ARGUMENTS_BAD : CKR_OK;
}

static CK_RV
unwrap_by_rsa(const CK_MECHANISM *m, const uint8_t *wrapped, CK_ULONG len, const CK_ATTRIBUTE *t, CK_ULONG n)
{
    uint8_t room[BK_WRAPPED_MAX];
    size_t opened = sizeof room;
    CK_RV rv = mock.unwraps ? begin_rsa(m) : CKR_KEY_FUNCTION_NOT_PERMITTED;

    if (rv != CKR_OK)
        return rv;
    if (mock.needs_len && in_template(t, n, CKA_VALUE_LEN) == NULL)
        return CKR_TEMPLATE_INCOMPLETE;
    assert_true(wanted(t, n, CKA_EXTRACTABLE) && !wanted(t, n, CKA_SENSITIVE) && !wanted(t, n, CKA_TOKEN));
    if ((rv = rsa(m, wrapped, len, room, &opened)) == CKR_OK)
        memcpy(mock.value, room, mock.value_len = opened);
    return rv;
}

static CK_RV
m_unwrap(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE under, unsigned char *wrapped, CK_ULONG len,
         CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *out)
{
    (void)s;
    assert_int_equal(under, KEY);
    *out = OBJECT;
    if (mock.rsa != NULL)
        return unwrap_by_rsa(m, wrapped, len, t, n);
    if (m->mechanism != CKM_AES_KEY_WRAP || !mock.key_wrap)
        return CKR_MECHANISM_INVALID;
    assert_int_equal(len, BK_AESKW_LEN);
    return mock.unwraps ? key_wrap(0, wrapped) : CKR_KEY_FUNCTION_NOT_PERMITTED;
}

static int
is_zero(const uint8_t nonce[BK_KEK_NONCE])
{
    static const uint8_t zeros[BK_KEK_NONCE];

    return memcmp(nonce, zeros, BK_KEK_NONCE) == 0;
}

static void
draw(void)
{
    if (mock.nonces != REPEATS || is_zero(mock.drawn))
        assert_int_equal(RAND_bytes(mock.drawn, BK_KEK_NONCE), 1);
}

static CK_RV
begin(const CK_MECHANISM *m)
{
    const CK_GCM_PARAMS *gcm = m->pParameter;

    if (m->mechanism == P11_CKM_YUBIHSM_AES_CCM_WRAP && mock.type == P11_CKK_YUBIHSM_AES256_CCM_WRAP) {
        assert_int_equal(m->ulParameterLen, 0);
        mock.doing = m->mechanism;
        return CKR_OK;
    }
    if (m->mechanism != CKM_AES_GCM || mock.type != CKK_AES)
        return CKR_MECHANISM_INVALID;
    assert_int_equal(m->ulParameterLen, sizeof *gcm);
    if (gcm->ulIvLen != 12 || gcm->ulIvBits != 96 || gcm->ulTagBits != 128 || gcm->pAAD != NULL || gcm->ulAADLen != 0)
        return CKR_MECHANISM_PARAM_INVALID;
    mock.nonce = gcm->pIv;
    mock.doing = CKM_AES_GCM;
    return CKR_OK;
}

static CK_RV
m_encrypt_init(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
    CK_RV rv;

    (void)s;
    assert_int_equal(key, KEY);
    if (mock.doing != 0)
        return CKR_OPERATION_ACTIVE;
    if (!mock.encrypts)
        return CKR_KEY_FUNCTION_NOT_PERMITTED;
    if ((rv = begin(m)) != CKR_OK)
        return rv;
    if (mock.doing != CKM_AES_GCM)
        return CKR_OK;
    if (mock.nonces == DRAWS && !is_zero(mock.nonce)) {
        mock.doing = 0;
        return CKR_MECHANISM_PARAM_INVALID;
    }
    if (mock.nonces == DRAWS_EARLY) {
        draw();
        memcpy(mock.nonce, mock.drawn, BK_KEK_NONCE);
    }
    return CKR_OK;
}

static CK_RV
m_decrypt_init(CK_SESSION_HANDLE s, CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
    (void)s;
    assert_int_equal(key, KEY);
    if (mock.doing != 0)
        return CKR_OPERATION_ACTIVE;
    if (!mock.decrypts)
        return CKR_KEY_FUNCTION_NOT_PERMITTED;
    if (mock.rsa == NULL)
        return begin(m);
    mock.mechanism = *m;
    return begin_rsa(m);
}

static void
seal(const uint8_t *nonce, const uint8_t *in, CK_ULONG in_len, uint8_t *out)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0, end = 0;

    assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, kek_bytes, nonce), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, out, &n, in, (int)in_len), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, out + n, &end), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, out + n), 1);
    EVP_CIPHER_CTX_free(ctx);
}

static CK_RV
m_encrypt(CK_SESSION_HANDLE s, unsigned char *in, CK_ULONG in_len, unsigned char *out, CK_ULONG *out_len)
{
    CK_MECHANISM_TYPE doing = mock.doing;

    (void)s;
    assert_int_not_equal(doing, 0);
    assert_true(*out_len >= in_len + MOCK_CCM_NONCE + 16);
    mock.doing = 0;
    if (doing != CKM_AES_GCM) {
        assert_int_equal(RAND_bytes(out, MOCK_CCM_NONCE), 1);
        seal(out, in, in_len, out + MOCK_CCM_NONCE);
        *out_len = MOCK_CCM_NONCE + in_len + 16 - (CK_ULONG)mock.short_by;
        return CKR_OK;
    }
    if (mock.nonces == DRAWS || mock.nonces == REPEATS || (mock.nonces == DRAWS_UNASKED && is_zero(mock.nonce))) {
        draw();
        memcpy(mock.nonce, mock.drawn, BK_KEK_NONCE);
    }
    seal(mock.nonce, in, in_len, out);
    *out_len = in_len + 16 - (CK_ULONG)mock.short_by;
    return CKR_OK;
}

static CK_RV
decrypt_by_rsa(const uint8_t *in, CK_ULONG in_len, uint8_t *out, CK_ULONG *out_len)
{
    size_t len = *out_len, zeros = 0;
    CK_RV rv = rsa(&mock.mechanism, in, in_len, out, &len);

    while (rv == CKR_OK && mock.cuts_zeros && mock.mechanism.mechanism == CKM_RSA_X_509 && zeros < len &&
           out[zeros] == 0)
        zeros++;
    if (rv == CKR_OK)
        memmove(out, out + zeros, len - zeros);
    *out_len = (CK_ULONG)(len - zeros);
    return rv;
}

static CK_RV
m_decrypt(CK_SESSION_HANDLE s, unsigned char *in, CK_ULONG in_len, unsigned char *out, CK_ULONG *out_len)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int ccm = mock.doing == P11_CKM_YUBIHSM_AES_CCM_WRAP;
    const uint8_t *nonce = ccm ? in : mock.nonce;
    int n = 0, end = 0, ok;

    (void)s;
    if (mock.rsa != NULL) {
        EVP_CIPHER_CTX_free(ctx);
        return decrypt_by_rsa(in, in_len, out, out_len);
    }
    assert_int_not_equal(mock.doing, 0);
    assert_true(in_len > MOCK_CCM_NONCE + 16 && *out_len >= in_len);
    mock.doing = 0;
    in += ccm ? MOCK_CCM_NONCE : 0;
    in_len -= ccm ? MOCK_CCM_NONCE : 0;
    ok = EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, kek_bytes, nonce) == 1 &&
         EVP_DecryptUpdate(ctx, out, &n, in, (int)in_len - 16) == 1 &&
         EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, in + in_len - 16) == 1 &&
         EVP_DecryptFinal_ex(ctx, out + n, &end) == 1;
    EVP_CIPHER_CTX_free(ctx);
    *out_len = (CK_ULONG)n;
    if (ok)
        return CKR_OK;
    return ccm ? CKR_DEVICE_ERROR : CKR_ENCRYPTED_DATA_INVALID; /* as a YubiHSM's module does */
}

static CK_FUNCTION_LIST functions = {
    .C_OpenSession = m_open,
    .C_CloseSession = m_close,
    .C_GetSessionInfo = m_session_info,
    .C_GetTokenInfo = m_token_info,
    .C_GetMechanismInfo = m_mechanism_info,
    .C_GenerateKey = m_generate,
    .C_GenerateKeyPair = m_generate_pair,
    .C_CreateObject = m_create,
    .C_DestroyObject = m_destroy,
    .C_FindObjectsInit = m_find_init,
    .C_FindObjects = m_find,
    .C_FindObjectsFinal = m_find_final,
    .C_GetAttributeValue = m_attribute,
    .C_WrapKey = m_wrap,
    .C_UnwrapKey = m_unwrap,
    .C_EncryptInit = m_encrypt_init,
    .C_Encrypt = m_encrypt,
    .C_DecryptInit = m_decrypt_init,
    .C_Decrypt = m_decrypt,
};

/* -- a run ----------------------------------------------------------------------------------------------------------
 */

static void
on_warning(void *ctx, const char *text)
{
    struct bench *b = ctx;

    (void)snprintf(b->warning, sizeof b->warning, "%s", text);
}

void
bench_start(struct bench *b, enum nonces nonces)
{
    mock = (struct mock){.nonces = nonces};
    *b = (struct bench){.log = {.warn = on_warning, .ctx = b}};
    b->module = (struct p11_module){.port = {.list = &functions, .where = "module 'mock'"}, .usable = 1};
    assert_int_equal(p11_open(&(struct p11_options){.log = &b->log}, &b->p, NULL), BK_OK);
    b->token = calloc(1, sizeof *b->token);
    assert_non_null(b->token);
    *b->token = (struct p11_token){.owner = b->p, .module = &b->module, .label = "mock", .serial = "1"};
    memcpy(b->token->where, "token 'mock'", 13);
    assert_int_equal(m_token_info(0, &b->token->info), CKR_OK);
    b->p->tokens = b->token;
    assert_int_equal(p11_uri_parse(&b->uri, "pkcs11:token=mock;object=kek", NULL), BK_OK);
}

void
bench_end(struct bench *b)
{
    p11_uri_free(&b->uri);
    p11_close(b->p);
    EVP_PKEY_free(mock.rsa);
    assert_int_equal(mock.sessions, 0);
    assert_int_equal(mock.value_len, 0);
}

void
put_key(CK_KEY_TYPE type, int encrypts, int decrypts, int wraps)
{
    mock.exists = mock.token = 1;
    mock.type = type;
    mock.encrypts = encrypts != 0;
    mock.decrypts = decrypts != 0;
    mock.wraps = mock.unwraps = wraps != 0;
    memcpy(mock.id, "key id", mock.id_len = 6);
    memcpy(mock.label, "kek", mock.label_len = 3);
}

struct bk_key *
open_key(struct bench *b, enum p11_use use)
{
    struct bk_key *key = NULL;
    struct bk_err err = {0};

    if (p11_token_open_key(b->token, &b->uri, use, &key, &err) != BK_OK)
        fail_msg("%s", err.message);
    return key;
}
