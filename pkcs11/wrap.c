/* Wrapping a CEK under a secret KEK in the token. */
#include <string.h>

#include "pkcs11/key.h"

/* room was all zeros before the call: no wrapped key looks like that, but one that nobody wrote does. */
static enum bk_code
take_wrapped(const struct p11_session *s, const uint8_t room[BK_WRAPPED_MAX], CK_ULONG len, uint8_t out[BK_AESKW_LEN],
             struct bk_err *err)
{
    static const uint8_t nothing[BK_AESKW_LEN];

    if (len != BK_AESKW_LEN)
        return bk_fail(err, BK_E_UNSUPPORTED, "%s: AES key wrap gave %lu bytes, not %d: this is not RFC 3394",
                       s->port.where, (unsigned long)len, BK_AESKW_LEN);
    if (memcmp(room, nothing, sizeof nothing) == 0)
        return bk_fail(err, BK_E_TOKEN, "%s: %s reports success and wrote nothing", s->port.where, s->port.call);
    memcpy(out, room, BK_AESKW_LEN);
    return BK_OK;
}

enum bk_code
p11_wrap_in(struct p11_session *s, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE object, uint8_t out[BK_AESKW_LEN],
            struct bk_err *err)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};
    uint8_t room[BK_WRAPPED_MAX] = {0};
    CK_ULONG len = sizeof room;

    if (P11_CALL(&s->port, C_WrapKey, s->handle, &mechanism, under, object, room, &len) != CKR_OK)
        return p11_call_fail_own(&s->port, err, "wrapping a key");
    return take_wrapped(s, room, len, out, err);
}

enum bk_code
p11_wrap_object(struct p11_key *key, CK_OBJECT_HANDLE under, CK_OBJECT_HANDLE object, uint8_t out[BK_AESKW_LEN],
                struct bk_err *err)
{
    return p11_wrap_in(&key->session, under, object, out, err);
}

static enum bk_code
create_object(struct p11_key *key, CK_KEY_TYPE type, const struct bk_secret *cek, CK_OBJECT_HANDLE *out)
{
    struct p11_session *s = &key->session;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ATTRIBUTE template[] = {
        {CKA_CLASS, &class, sizeof class},   {CKA_KEY_TYPE, &type, sizeof type},
        {CKA_TOKEN, &no, sizeof no},         {CKA_SENSITIVE, &no, sizeof no},
        {CKA_EXTRACTABLE, &yes, sizeof yes}, {CKA_VALUE, cek->data, (CK_ULONG)cek->len},
        {CKA_PRIVATE, &no, sizeof no},
    };
    /* beside a key that is seen without a login, it must be possible without one; else the token's default is right */
    CK_ULONG count = sizeof template / sizeof template[0] - (key->traits.is_private != 0);

    return P11_CALL(&s->port, C_CreateObject, s->handle, template, count, out) == CKR_OK ? BK_OK : BK_E_UNSUPPORTED;
}

static enum bk_code
by_wrap(struct p11_key *key, const struct bk_secret *cek, uint8_t out[BK_AESKW_LEN], struct bk_err *err)
{
    CK_OBJECT_HANDLE object = P11_NO_HANDLE;
    enum bk_code rc = create_object(key, CKK_GENERIC_SECRET, cek, &object);

    if (rc != BK_OK)
        rc = create_object(key, CKK_AES, cek, &object);
    if (rc != BK_OK)
        return p11_call_fail_own(&key->session.port, err, "making a session key to wrap");
    rc = p11_wrap_object(key, key->handle, object, out, err);
    p11_key_drop_object(key, object);
    return rc;
}

/* What a mechanism of C_Encrypt makes of the CEK. room has BK_WRAPPED_MAX zeros; the mechanism outlives the call. */
static enum bk_code
encrypt(struct p11_key *key, CK_MECHANISM *mechanism, const struct bk_secret *cek, uint8_t *room, CK_ULONG *len,
        struct bk_err *err)
{
    struct p11_session *s = &key->session;
    enum bk_code rc;

    *len = BK_WRAPPED_MAX;
    if (P11_CALL(&s->port, C_EncryptInit, s->handle, mechanism, key->handle) != CKR_OK)
        return p11_call_fail_own(&s->port, err, "wrapping a key");
    if ((rc = p11_key_authenticate(key, err)) != BK_OK)
        return rc;
    if (P11_CALL(&s->port, C_Encrypt, s->handle, cek->data, (CK_ULONG)cek->len, room, len) != CKR_OK)
        return p11_call_fail_own(&s->port, err, "wrapping a key");
    return BK_OK;
}

static enum bk_code
by_encrypt(struct p11_key *key, const struct bk_secret *cek, uint8_t out[BK_AESKW_LEN], struct bk_err *err)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};
    uint8_t room[BK_WRAPPED_MAX] = {0};
    CK_ULONG len = 0;
    enum bk_code rc = encrypt(key, &mechanism, cek, room, &len, err);

    return rc == BK_OK ? take_wrapped(&key->session, room, len, out, err) : rc;
}

static enum bk_code
wrap_kw(struct p11_key *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    enum bk_code rc = BK_E_UNSUPPORTED;

    if (key->traits.can_wrap == 0 && key->traits.can_encrypt == 0)
        return bk_fail(err, BK_E_UNSUPPORTED, "%s: the key %s may not wrap (CKA_WRAP is false)", key->token->where,
                       key->base.pub.uri);
    if (key->traits.can_wrap != 0)
        rc = by_wrap(key, cek, out->data, err);
    if (rc == BK_E_UNSUPPORTED && key->traits.can_encrypt != 0 &&
        (key->traits.can_wrap == 0 || p11_key_mechanism(key, CKM_AES_KEY_WRAP, CKF_ENCRYPT) == 1))
        rc = by_encrypt(key, cek, out->data, err);
    out->len = BK_AESKW_LEN;
    return rc;
}

void
p11_gcm_fill(struct p11_gcm *gcm, uint8_t nonce[BK_KEK_NONCE])
{
    memset(gcm, 0, sizeof *gcm);
    gcm->params.pIv = nonce;
    gcm->params.ulIvLen = BK_KEK_NONCE;
    gcm->params.ulIvBits = 8 * BK_KEK_NONCE;
    gcm->params.ulTagBits = 8 * (BK_AESGCM_LEN - BK_CEK_LEN);
    gcm->mechanism = (CK_MECHANISM){CKM_AES_GCM, &gcm->params, sizeof gcm->params};
}

/*
 * The nonce must be the token's: with the caller's, GCM is a decryption oracle for anybody who may only encrypt, since
 * the same nonce gives the same key stream. A token that left the zeros took them for the caller's.
 */
static enum bk_code
take_gcm(struct p11_key *key, const struct p11_gcm *gcm, const uint8_t room[BK_WRAPPED_MAX], CK_ULONG len,
         struct bk_wrapped *out, struct bk_err *err)
{
    static const uint8_t zeros[BK_AESGCM_LEN];
    const char *where = key->token->where;

    if (len != BK_AESGCM_LEN)
        return bk_fail(err, BK_E_UNSUPPORTED, "%s: AES-GCM gave %lu bytes, not %d", where, (unsigned long)len,
                       BK_AESGCM_LEN);
    if (memcmp(room, zeros, BK_AESGCM_LEN) == 0)
        return bk_fail(err, BK_E_TOKEN, "%s: C_Encrypt reports success and wrote nothing", where);
    if (gcm->params.ulIvLen != BK_KEK_NONCE || memcmp(out->nonce, zeros, BK_KEK_NONCE) == 0)
        return bk_fail(err, BK_E_UNSUPPORTED,
                       "%s: the token does not draw the nonce of AES-GCM itself, so whoever may encrypt could decrypt",
                       where);
    if (memcmp(out->nonce, key->nonce, BK_KEK_NONCE) == 0)
        return bk_fail(err, BK_E_UNSUPPORTED, "%s: the token draws one nonce of AES-GCM twice", where);
    memcpy(key->nonce, out->nonce, BK_KEK_NONCE);
    memcpy(out->data, room, BK_AESGCM_LEN);
    out->len = BK_AESGCM_LEN;
    return BK_OK;
}

static enum bk_code
wrap_gcm(struct p11_key *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    struct p11_gcm gcm;
    uint8_t room[BK_WRAPPED_MAX] = {0};
    CK_ULONG len = 0;
    enum bk_code rc;

    if (key->traits.can_encrypt == 0)
        return bk_fail(err, BK_E_UNSUPPORTED, "%s: the key %s may not encrypt (CKA_ENCRYPT is false)",
                       key->token->where, key->base.pub.uri);
    memset(out->nonce, 0, sizeof out->nonce); /* also when the step is repeated */
    p11_gcm_fill(&gcm, out->nonce);
    if ((rc = encrypt(key, &gcm.mechanism, cek, room, &len, err)) != BK_OK)
        return rc;
    return take_gcm(key, &gcm, room, len, out, err);
}

/* The nonce is the device's, and somewhere in what it returns, which is kept as it is. */
static enum bk_code
wrap_ccm(struct p11_key *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    static const uint8_t zeros[BK_CCM_MIN];
    CK_MECHANISM mechanism = {.mechanism = P11_CKM_YUBIHSM_AES_CCM_WRAP};
    uint8_t room[BK_WRAPPED_MAX] = {0};
    CK_ULONG len = 0;
    enum bk_code rc;

    if ((rc = encrypt(key, &mechanism, cek, room, &len, err)) != BK_OK)
        return rc;
    if (len < BK_CCM_MIN || len > BK_CCM_MAX)
        return bk_fail(err, BK_E_UNSUPPORTED, "%s: AES-CCM wrap gave %lu bytes, not %d to %d", key->token->where,
                       (unsigned long)len, BK_CCM_MIN, BK_CCM_MAX);
    if (memcmp(room, zeros, sizeof zeros) == 0)
        return bk_fail(err, BK_E_TOKEN, "%s: C_Encrypt reports success and wrote nothing", key->token->where);
    memcpy(out->data, room, len);
    out->len = len;
    return BK_OK;
}

enum bk_code
p11_wrap_step(struct p11_key *key, enum bk_scheme scheme, const struct bk_secret *cek, struct bk_wrapped *out,
              struct bk_err *err)
{
    switch (scheme) {
    case BK_SCHEME_AES_KW:
        return wrap_kw(key, cek, out, err);
    case BK_SCHEME_AES_GCM:
        return wrap_gcm(key, cek, out, err);
    case BK_SCHEME_YUBIHSM_CCM:
        return wrap_ccm(key, cek, out, err);
    case BK_SCHEME_RSA_OAEP_SHA256:
    case BK_SCHEME_RSA_OAEP_SHA1:
    case BK_SCHEME_ECDH_P256:
    case BK_SCHEME_ECDH_P384:
    case BK_SCHEME_NONE:
        break;
    }
    return bk_fail(err, BK_E_INTERNAL, "wrap: %s is no scheme of secret keys", bk_scheme_name(scheme));
}

struct wrap_args {
    enum bk_scheme scheme;
    const struct bk_secret *cek;
    struct bk_wrapped *out;
};

static enum bk_code
step(struct p11_key *key, void *args, struct bk_err *err)
{
    const struct wrap_args *a = args;

    return p11_wrap_step(key, a->scheme, a->cek, a->out, err);
}

enum bk_code
p11_wrap_by(struct p11_key *key, enum bk_scheme scheme, const struct bk_secret *cek, struct bk_wrapped *out,
            struct bk_err *err)
{
    struct bk_wrapped made = {.scheme = scheme, .id = key->base.pub.id};
    struct wrap_args args = {scheme, cek, &made};
    enum bk_code rc = p11_key_run(key, step, &args, err);

    if (rc == BK_OK)
        *out = made;
    return rc;
}

enum bk_code
p11_wrap(struct bk_key *base, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    return p11_wrap_by(p11_key_of(base), base->pub.scheme, cek, out, err);
}

/* Encrypts with a nonce of ours, which must be refused or replaced. Nothing of it is kept. */
static enum bk_code
foreign_nonce_step(struct p11_key *key, void *args, struct bk_err *err)
{
    static const uint8_t ours[BK_KEK_NONCE] = "our own one";
    const struct bk_secret *cek = args;
    uint8_t nonce[BK_KEK_NONCE];
    uint8_t room[BK_WRAPPED_MAX] = {0};
    struct p11_gcm gcm;
    CK_ULONG len = 0;
    enum bk_code rc;

    memcpy(nonce, ours, sizeof nonce);
    p11_gcm_fill(&gcm, nonce);
    if ((rc = encrypt(key, &gcm.mechanism, cek, room, &len, err)) != BK_OK)
        return rc;
    return memcmp(nonce, ours, sizeof nonce) == 0 ? BK_E_POLICY : BK_OK;
}

/* What becomes of a fresh *cek, which the caller wipes: BK_E_POLICY if it was encrypted with our nonce. */
static enum bk_code
try_foreign_nonce(struct p11_key *key, struct bk_secret *cek, struct bk_err *err)
{
    enum bk_code rc = bk_secret_random(cek, BK_CEK_LEN, err);

    return rc == BK_OK ? p11_key_run(key, foreign_nonce_step, cek, NULL) : rc;
}

int
p11_gcm_draws_nonce(struct p11_key *key)
{
    struct bk_secret cek = {0};
    struct bk_wrapped out = {0};
    int draws = -1;
    enum bk_code rc = try_foreign_nonce(key, &cek, NULL);

    if (rc == BK_E_POLICY)
        draws = 0;
    /* replaced, or only ours was refused */
    else if (rc == BK_OK || (cek.data != NULL && p11_wrap_by(key, BK_SCHEME_AES_GCM, &cek, &out, NULL) == BK_OK))
        draws = 1;
    bk_secret_wipe(&cek);
    return draws;
}

enum bk_code
p11_gcm_check_own_nonce(struct p11_key *key, struct bk_err *err)
{
    struct bk_secret cek = {0};
    enum bk_code rc = try_foreign_nonce(key, &cek, err);
    int tried = cek.data != NULL;

    bk_secret_wipe(&cek);
    if (!tried)
        return rc;
    if (rc != BK_E_POLICY)
        return BK_OK; /* refused, by whatever code, or replaced */
    return bk_fail(err, BK_E_UNSUPPORTED,
                   "%s: the token takes a nonce of AES-GCM from whoever encrypts, who could so decrypt",
                   key->token->where);
}
