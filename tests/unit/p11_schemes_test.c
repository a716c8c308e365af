/*
 * Schemes that no module on a test machine has: a token of our own, a function list, that does them with OpenSSL. It
 * holds one key, and one object of a session beside it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/keywrap.h"
#include "pkcs11/generate.h"
#include "pkcs11/module.h"
#include "pkcs11/on_token.h"

#define KEY    3 /* handles */
#define OBJECT 4

enum nonces {
    DRAWS,        /* refuses a nonce that is not zero */
    DRAWS_EARLY,  /* the same, in C_EncryptInit, and overwrites whatever came in */
    LEAVES_ZERO,  /* takes the caller's, whatever it is */
    REPEATS,      /* one for ever */
    DRAWS_UNASKED /* only if it is zero; else takes the caller's */
};

static struct mock {
    int exists, token, generated, destroyed;
    CK_KEY_TYPE type;
    CK_BBOOL encrypts, decrypts, wraps, unwraps;
    uint8_t id[32], label[32];
    size_t id_len, label_len;

    enum nonces nonces;
    int key_wrap; /* AES key wrap works */
    int short_by; /* so much less than is right comes out of C_Encrypt */
    CK_MECHANISM_TYPE doing;
    CK_MECHANISM mechanism; /* of RSA; what it points to must live as long as the operation */
    uint8_t *nonce;         /* where the caller wants it */
    uint8_t drawn[BK_KEK_NONCE];
    int sessions, searching;
    uint8_t value[64]; /* of the object */
    size_t value_len;

    EVP_PKEY *rsa;  /* then the key is this */
    int sha256;     /* the module knows RSA-OAEP with it */
    int needs_len;  /* C_UnwrapKey wants CKA_VALUE_LEN */
    int cuts_zeros; /* bare RSA's result has none in front */
    CK_RV raw_rv;   /* what bare RSA answers */
    int raw_calls;
} mock;

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

/* As the device has it, the nonce of 13 bytes comes first; only the length of it is true to AES-CCM here. */
#define CCM_NONCE 13

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
    assert_true(*out_len >= in_len + CCM_NONCE + 16);
    mock.doing = 0;
    if (doing != CKM_AES_GCM) {
        assert_int_equal(RAND_bytes(out, CCM_NONCE), 1);
        seal(out, in, in_len, out + CCM_NONCE);
        *out_len = CCM_NONCE + in_len + 16 - (CK_ULONG)mock.short_by;
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
    assert_true(in_len > CCM_NONCE + 16 && *out_len >= in_len);
    mock.doing = 0;
    in += ccm ? CCM_NONCE : 0;
    in_len -= ccm ? CCM_NONCE : 0;
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

struct bench {
    struct p11 *p;
    struct bk_log log;
    struct p11_module module;
    struct p11_token *token;
    struct p11_uri uri;
    char warning[512];
};

static void
on_warning(void *ctx, const char *text)
{
    struct bench *b = ctx;

    (void)snprintf(b->warning, sizeof b->warning, "%s", text);
}

static void
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

static void
bench_end(struct bench *b)
{
    p11_uri_free(&b->uri);
    p11_close(b->p);
    EVP_PKEY_free(mock.rsa);
    assert_int_equal(mock.sessions, 0);
    assert_int_equal(mock.value_len, 0);
}

/* A key that was on the token before. */
static void
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

static struct bk_key *
open_key(struct bench *b, enum p11_use use)
{
    struct bk_key *key = NULL;
    struct bk_err err = {0};

    if (p11_token_open_key(b->token, &b->uri, use, &key, &err) != BK_OK)
        fail_msg("%s", err.message);
    return key;
}

static enum bk_scheme
recipient_scheme(struct bench *b)
{
    struct bk_public pub = {0};
    struct bk_err err = {0};
    enum bk_scheme scheme;

    if (p11_token_public(b->token, &b->uri, &pub, &err) != BK_OK)
        fail_msg("%s", err.message);
    scheme = pub.scheme;
    assert_null(pub.spki);
    bk_public_free(&pub);
    return scheme;
}

/* One RSA key for all tests, since making it takes a while. */
static EVP_PKEY *the_rsa;

static int
setup(void **state)
{
    int locked = 0;

    (void)state;
    the_rsa = EVP_RSA_gen(2048);
    return the_rsa != NULL && bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    EVP_PKEY_free(the_rsa);
    return 0;
}

/* -- AES-GCM --------------------------------------------------------------------------------------------------------
 */

static void
no_damage_opens(struct bk_key *key, const struct bk_wrapped *right)
{
    struct bk_secret opened = {0};

    for (size_t bit = 0; bit < 8 * (BK_KEK_NONCE + BK_AESGCM_LEN); bit++) {
        struct bk_wrapped w = *right;
        uint8_t *at = bit / 8 < BK_KEK_NONCE ? &w.nonce[bit / 8] : &w.data[bit / 8 - BK_KEK_NONCE];

        *at ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_E_VERIFY);
        assert_null(opened.data);
    }
}

static void
gcm_goes_round(void **state)
{
    static const enum nonces good[] = {DRAWS, DRAWS_EARLY};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct bench b;
        struct bk_key *wrapping, *opening;
        struct bk_secret cek = {0}, opened = {0};
        struct bk_wrapped w = {0}, again = {0};

        bench_start(&b, good[i]);
        put_key(CKK_AES, 1, 1, 0);
        assert_int_equal(recipient_scheme(&b), BK_SCHEME_AES_GCM);
        wrapping = open_key(&b, P11_USE_WRAP);
        assert_int_equal(wrapping->pub.scheme, BK_SCHEME_AES_GCM);
        opening = open_key(&b, P11_USE_UNWRAP);
        assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
        assert_int_equal(bk_key_wrap(wrapping, &cek, &w, NULL), BK_OK);
        assert_int_equal(bk_key_wrap(wrapping, &cek, &again, NULL), BK_OK);
        assert_int_equal(w.scheme, BK_SCHEME_AES_GCM);
        assert_int_equal(w.len, BK_AESGCM_LEN);
        assert_memory_equal(w.id.bytes, "key id", 6);
        assert_memory_equal(again.nonce, mock.drawn, BK_KEK_NONCE);
        assert_memory_not_equal(w.nonce, again.nonce, BK_KEK_NONCE);
        assert_int_equal(bk_key_unwrap(opening, &w, &opened, NULL), BK_OK);
        assert_true(bk_secret_equal(&cek, &opened));
        bk_secret_wipe(&opened);
        no_damage_opens(opening, &w);
        assert_int_equal(bk_public_wrap(&wrapping->pub, &cek, &again, NULL), BK_E_UNSUPPORTED);
        assert_int_equal(bk_key_rewrap(opening, &w, wrapping, &again, NULL), BK_E_UNSUPPORTED);
        w.len--;
        assert_int_equal(bk_key_unwrap(opening, &w, &opened, NULL), BK_E_FORMAT);
        bk_secret_wipe(&cek);
        bk_key_close(wrapping);
        bk_key_close(opening);
        bench_end(&b);
    }
}

static void
gcm_needs_a_token_that_draws(void **state)
{
    static const struct {
        enum nonces nonces;
        const char *why;
    } bad[] = {
        {LEAVES_ZERO, "does not draw the nonce"},
        {REPEATS, "draws one nonce of AES-GCM twice"},
        {DRAWS_UNASKED, "takes a nonce of AES-GCM from whoever encrypts"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct bench b;
        struct bk_public pub = {0};
        struct bk_key *key = NULL;
        struct bk_err err = {0};

        bench_start(&b, bad[i].nonces);
        put_key(CKK_AES, 1, 1, 0);
        assert_int_equal(p11_token_public(b.token, &b.uri, &pub, &err), BK_E_UNSUPPORTED);
        assert_non_null(strstr(err.message, "CKR_MECHANISM_INVALID"));
        assert_non_null(strstr(err.hint, bad[i].why));
        assert_int_equal(p11_token_open_key(b.token, &b.uri, P11_USE_WRAP, &key, &err), BK_E_UNSUPPORTED);
        assert_null(key);
        bench_end(&b);
    }
}

/* What was proven once may stop being so. */
static void
gcm_is_watched_at_every_wrap(void **state)
{
    struct bench b;
    struct bk_key *key;
    struct bk_secret cek = {0};
    struct bk_wrapped w = {0};
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, DRAWS);
    put_key(CKK_AES, 1, 1, 0);
    key = open_key(&b, P11_USE_WRAP);
    assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
    mock.nonces = REPEATS; /* the one of the trial, too */
    assert_int_equal(bk_key_wrap(key, &cek, &w, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "twice"));
    mock.nonces = LEAVES_ZERO;
    assert_int_equal(bk_key_wrap(key, &cek, &w, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "does not draw"));
    mock.nonces = DRAWS;
    mock.short_by = 4; /* a tag of 12 bytes */
    assert_int_equal(bk_key_wrap(key, &cek, &w, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "44 bytes, not 48"));
    assert_int_equal(w.len, 0);
    bk_secret_wipe(&cek);
    bk_key_close(key);
    bench_end(&b);
}

static void
key_wrap_comes_before_gcm(void **state)
{
    struct bench b;
    struct bk_key *key;

    (void)state;
    bench_start(&b, DRAWS);
    put_key(CKK_AES, 1, 1, 1);
    mock.key_wrap = 1;
    assert_int_equal(recipient_scheme(&b), BK_SCHEME_AES_KW);
    key = open_key(&b, P11_USE_WRAP);
    assert_int_equal(key->pub.scheme, BK_SCHEME_AES_KW);
    bk_key_close(key);
    /* allowed by the key, and not done by the token */
    mock.key_wrap = 0;
    assert_int_equal(recipient_scheme(&b), BK_SCHEME_AES_GCM);
    bench_end(&b);
}

/* A backup host whose login may only encrypt. */
static void
gcm_serves_who_may_only_encrypt(void **state)
{
    struct bench b;
    struct bk_key *key;
    struct bk_secret cek = {0}, opened = {0};
    struct bk_wrapped w = {0};

    (void)state;
    bench_start(&b, DRAWS);
    put_key(CKK_AES, 1, 0, 0);
    assert_int_equal(recipient_scheme(&b), BK_SCHEME_AES_GCM);
    key = open_key(&b, P11_USE_WRAP);
    assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
    assert_int_equal(bk_key_wrap(key, &cek, &w, NULL), BK_OK);
    assert_int_equal(w.scheme, BK_SCHEME_AES_GCM);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_E_UNSUPPORTED);
    bk_key_close(key);
    mock.decrypts = CK_TRUE;
    key = open_key(&b, P11_USE_UNWRAP);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_OK);
    assert_true(bk_secret_equal(&cek, &opened));
    bk_secret_wipe(&cek);
    bk_secret_wipe(&opened);
    bk_key_close(key);
    bench_end(&b);
}

/* -- YubiHSM 2 ------------------------------------------------------------------------------------------------------
 */

static void
ccm_goes_round(void **state)
{
    struct bench b;
    struct bk_key *wrapping, *opening;
    struct bk_secret cek = {0}, opened = {0};
    struct bk_wrapped w = {0}, bad;
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, DRAWS);
    put_key(P11_CKK_YUBIHSM_AES256_CCM_WRAP, 1, 1, 1);
    assert_int_equal(recipient_scheme(&b), BK_SCHEME_YUBIHSM_CCM);
    wrapping = open_key(&b, P11_USE_WRAP);
    assert_int_equal(wrapping->pub.scheme, BK_SCHEME_YUBIHSM_CCM);
    assert_int_equal(wrapping->pub.type, BK_KEY_AES256);
    opening = open_key(&b, P11_USE_UNWRAP);
    assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, NULL), BK_OK);
    assert_int_equal(bk_key_wrap(wrapping, &cek, &w, NULL), BK_OK);
    assert_int_equal(w.scheme, BK_SCHEME_YUBIHSM_CCM);
    assert_int_equal(w.len, 61);
    assert_int_equal(bk_key_unwrap(opening, &w, &opened, NULL), BK_OK);
    assert_true(bk_secret_equal(&cek, &opened));
    bk_secret_wipe(&opened);
    for (size_t at = CCM_NONCE; at < w.len; at += 7) {
        bad = w;
        bad.data[at] ^= 1;
        assert_int_equal(bk_key_unwrap(opening, &bad, &opened, &err), BK_E_VERIFY);
        assert_non_null(strstr(err.message, "the token opens others"));
        assert_null(opened.data);
    }
    bad = w;
    bad.len = BK_CCM_MIN - 1;
    assert_int_equal(bk_key_unwrap(opening, &bad, &opened, NULL), BK_E_FORMAT);
    assert_int_equal(bk_key_rewrap(opening, &w, wrapping, &bad, NULL), BK_E_UNSUPPORTED);
    assert_int_equal(bk_public_wrap(&wrapping->pub, &cek, &bad, NULL), BK_E_UNSUPPORTED);
    mock.short_by = 61 - BK_CCM_MIN + 1;
    assert_int_equal(bk_key_wrap(wrapping, &cek, &bad, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "44 bytes, not 45 to 128"));
    bk_secret_wipe(&cek);
    bk_key_close(wrapping);
    bk_key_close(opening);
    bench_end(&b);
}

/* -- RSA ------------------------------------------------------------------------------------------------------------
 */

static void
rsa_start(struct bench *b, int decrypts, int unwraps, int raw_rsa)
{
    bench_start(b, DRAWS);
    put_key(CKK_RSA, 0, decrypts, 0);
    mock.unwraps = unwraps != 0;
    mock.rsa = the_rsa;
    assert_int_equal(EVP_PKEY_up_ref(the_rsa), 1);
    b->p->options.raw_rsa = raw_rsa;
}

/* A key as p11_key_find gives it: not tried. */
static struct bk_key *
find_key(struct bench *b)
{
    struct bk_public pub = {0};
    struct bk_key *key = NULL;
    uint8_t *spki = NULL;
    size_t which = 0;
    int len = i2d_PUBKEY(the_rsa, &spki);

    assert_int_equal(bk_public_from_spki(&pub, spki, (size_t)len, NULL), BK_OK);
    assert_int_equal(p11_token_find_key(b->token, &b->uri, P11_USE_UNWRAP, &pub.id, 1, &which, &key, NULL), BK_OK);
    assert_non_null(key);
    bk_public_free(&pub);
    OPENSSL_free(spki);
    return key;
}

static void
wrap_for(struct bk_key *key, enum bk_scheme scheme, struct bk_secret *cek, struct bk_wrapped *w)
{
    key->pub.scheme = scheme;
    assert_int_equal(bk_secret_random(cek, BK_CEK_LEN, NULL), BK_OK);
    assert_int_equal(bk_public_wrap(&key->pub, cek, w, NULL), BK_OK);
}

/* Keys with CKA_UNWRAP and without CKA_DECRYPT: a session object that may be read. */
static void
rsa_opens_by_unwrapping(void **state)
{
    (void)state;
    for (int needs_len = 0; needs_len < 2; needs_len++) {
        struct bench b;
        struct bk_key *key;
        struct bk_secret cek = {0}, opened = {0};
        struct bk_wrapped w = {0};

        rsa_start(&b, 0, 1, 0);
        mock.sha256 = 1;
        mock.needs_len = needs_len;
        assert_int_equal(p11_token_open_key(b.token, &b.uri, P11_USE_UNWRAP, &key, NULL), BK_OK);
        assert_int_equal(key->pub.scheme, BK_SCHEME_RSA_OAEP_SHA256);
        for (enum bk_scheme s = BK_SCHEME_RSA_OAEP_SHA256; s <= BK_SCHEME_RSA_OAEP_SHA1; s++) {
            wrap_for(key, s, &cek, &w);
            assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_OK);
            assert_true(bk_secret_equal(&cek, &opened));
            bk_secret_wipe(&opened);
            w.data[100] ^= 1;
            assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_E_VERIFY);
            assert_null(opened.data);
            bk_secret_wipe(&cek);
        }
        assert_int_equal(mock.raw_calls, 0);
        bk_key_close(key);
        bench_end(&b);
    }
}

static void
one_message(struct bk_key *key, const struct bk_wrapped *w)
{
    struct bk_secret opened = {0};
    struct bk_err err = {0};

    assert_int_equal(bk_key_unwrap(key, w, &opened, &err), BK_E_VERIFY);
    assert_string_equal(err.message, "token 'mock': the wrapped key is damaged or forged, or for another key");
    assert_null(opened.data);
}

static void
raw_rsa_opens_what_the_module_does_not_know(void **state)
{
    (void)state;
    for (int cuts = 0; cuts < 2; cuts++) {
        struct bench b;
        struct bk_key *key;
        struct bk_secret cek = {0}, opened = {0};
        struct bk_wrapped w = {0};

        rsa_start(&b, 1, 0, 1);
        mock.cuts_zeros = cuts;
        key = find_key(&b);
        wrap_for(key, BK_SCHEME_RSA_OAEP_SHA256, &cek, &w);
        assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_OK);
        assert_true(bk_secret_equal(&cek, &opened));
        assert_int_equal(mock.raw_calls, 1);
        bk_secret_wipe(&opened);
        for (size_t i = 0; i < w.len; i += 31) {
            w.data[i] ^= 0x10;
            one_message(key, &w);
            w.data[i] ^= 0x10;
        }
        memset(w.data, 0xFF, w.len); /* not below the modulus: it is the token that refuses */
        one_message(key, &w);
        memset(w.data, 0, w.len); /* opens to zeros */
        one_message(key, &w);
        bk_secret_wipe(&cek);
        bk_key_close(key);
        bench_end(&b);
    }
}

static void
raw_rsa_is_for_nothing_else(void **state)
{
    struct bench b;
    struct bk_key *key;
    struct bk_secret cek = {0}, opened = {0};
    struct bk_wrapped w = {0};
    struct bk_err err = {0};

    (void)state;
    /* not asked for */
    rsa_start(&b, 1, 0, 0);
    key = find_key(&b);
    wrap_for(key, BK_SCHEME_RSA_OAEP_SHA256, &cek, &w);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "CKR_ARGUMENTS_BAD"));
    assert_int_equal(mock.raw_calls, 0);
    bk_key_close(key);
    bench_end(&b);

    /* the module knows the hash: damage is no reason */
    rsa_start(&b, 1, 0, 1);
    mock.sha256 = 1;
    key = find_key(&b);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, NULL), BK_OK);
    bk_secret_wipe(&opened);
    w.data[9] ^= 1;
    one_message(key, &w);
    w.data[9] ^= 1;
    assert_int_equal(mock.raw_calls, 0);
    bk_key_close(key);
    bench_end(&b);

    /* a key is not proven by it, since what is wrapped to it must open without */
    rsa_start(&b, 1, 0, 1);
    key = open_key(&b, P11_USE_UNWRAP);
    assert_int_equal(key->pub.scheme, BK_SCHEME_RSA_OAEP_SHA1);
    assert_int_equal(mock.raw_calls, 0);
    bk_key_close(key);
    bench_end(&b);

    /* the module does not do it */
    rsa_start(&b, 1, 0, 1);
    mock.raw_rv = CKR_MECHANISM_INVALID;
    key = find_key(&b);
    assert_int_equal(bk_key_unwrap(key, &w, &opened, &err), BK_E_UNSUPPORTED);
    assert_null(opened.data);
    bk_secret_wipe(&cek);
    bk_key_close(key);
    bench_end(&b);
}

/* -- making keys ----------------------------------------------------------------------------------------------------
 */

static void
makes_a_key_for_gcm_where_nothing_else_works(void **state)
{
    const struct p11_generate what = {.kind = P11_AES256};
    struct bench b;
    struct bk_key *key = NULL;
    struct bk_err err = {0};

    (void)state;
    bench_start(&b, DRAWS);
    assert_int_equal(p11_token_generate(b.token, &b.uri, &what, &key, &err), BK_OK);
    assert_int_equal(key->pub.scheme, BK_SCHEME_AES_GCM);
    assert_int_equal(mock.generated, 2);
    assert_int_equal(mock.destroyed, 1);
    assert_true(mock.encrypts && mock.decrypts && !mock.wraps && !mock.unwraps);
    assert_non_null(strstr(b.warning, "cannot rotate blind"));
    assert_non_null(strstr(b.warning, "CKR_MECHANISM_INVALID"));
    bk_key_close(key);
    bench_end(&b);

    bench_start(&b, LEAVES_ZERO);
    key = NULL;
    assert_int_equal(p11_token_generate(b.token, &b.uri, &what, &key, &err), BK_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "CKR_MECHANISM_INVALID"));
    assert_null(key);
    assert_false(mock.exists);
    assert_string_equal(b.warning, "");
    bench_end(&b);

    bench_start(&b, DRAWS);
    mock.key_wrap = 1;
    assert_int_equal(p11_token_generate(b.token, &b.uri, &what, &key, &err), BK_OK);
    assert_int_equal(key->pub.scheme, BK_SCHEME_AES_KW);
    assert_true(!mock.encrypts && !mock.decrypts && mock.wraps && mock.unwraps);
    assert_int_equal(mock.generated, 1);
    assert_string_equal(b.warning, "");
    bk_key_close(key);
    bench_end(&b);
}

static int
keep_aes(void *ctx, const struct p11_probe_item *item)
{
    if (item->kind == P11_AES256)
        *(struct p11_probe_item *)ctx = *item;
    return 0;
}

static void
probe_names_gcm(void **state)
{
    static const enum nonces bad[] = {LEAVES_ZERO, REPEATS, DRAWS_UNASKED};

    (void)state;
    for (int lasting = 0; lasting < 2; lasting++) {
        struct bench b;
        struct p11_probe_item aes = {0};

        bench_start(&b, DRAWS);
        assert_int_equal(p11_token_probe(b.token, &b.uri, lasting, keep_aes, &aes, NULL), BK_OK);
        assert_true(aes.works);
        assert_int_equal(aes.scheme, BK_SCHEME_AES_GCM);
        assert_false(aes.blind);
        assert_int_equal(aes.refuses_damage, lasting ? -1 : 1);
        assert_true(!lasting || !mock.exists);
        bench_end(&b);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            bench_start(&b, bad[i]);
            assert_int_equal(p11_token_probe(b.token, &b.uri, lasting, keep_aes, &aes, NULL), BK_OK);
            assert_false(aes.works);
            bench_end(&b);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gcm_goes_round),
        cmocka_unit_test(gcm_needs_a_token_that_draws),
        cmocka_unit_test(gcm_is_watched_at_every_wrap),
        cmocka_unit_test(key_wrap_comes_before_gcm),
        cmocka_unit_test(gcm_serves_who_may_only_encrypt),
        cmocka_unit_test(ccm_goes_round),
        cmocka_unit_test(rsa_opens_by_unwrapping),
        cmocka_unit_test(raw_rsa_opens_what_the_module_does_not_know),
        cmocka_unit_test(raw_rsa_is_for_nothing_else),
        cmocka_unit_test(makes_a_key_for_gcm_where_nothing_else_works),
        cmocka_unit_test(probe_names_gcm),
    };

    return cmocka_run_group_tests_name("p11_schemes", tests, setup, teardown);
}
