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

static enum bk_code
by_encrypt(struct p11_key *key, const struct bk_secret *cek, uint8_t out[BK_AESKW_LEN], struct bk_err *err)
{
    struct p11_session *s = &key->session;
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};
    uint8_t room[BK_WRAPPED_MAX] = {0};
    CK_ULONG len = sizeof room;
    enum bk_code rc;

    if (P11_CALL(&s->port, C_EncryptInit, s->handle, &mechanism, key->handle) != CKR_OK)
        return p11_call_fail_own(&s->port, err, "wrapping a key");
    if ((rc = p11_key_authenticate(key, err)) != BK_OK)
        return rc;
    if (P11_CALL(&s->port, C_Encrypt, s->handle, cek->data, (CK_ULONG)cek->len, room, &len) != CKR_OK)
        return p11_call_fail_own(&s->port, err, "wrapping a key");
    return take_wrapped(s, room, len, out, err);
}

struct wrap_args {
    const struct bk_secret *cek;
    uint8_t *out;
};

static enum bk_code
step(struct p11_key *key, void *args, struct bk_err *err)
{
    const struct wrap_args *a = args;
    enum bk_code rc = BK_E_UNSUPPORTED;

    if (key->traits.can_wrap != 0)
        rc = by_wrap(key, a->cek, a->out, err);
    if (rc == BK_E_UNSUPPORTED && key->traits.can_encrypt != 0 &&
        (key->traits.can_wrap == 0 || p11_key_mechanism(key, CKM_AES_KEY_WRAP, CKF_ENCRYPT) == 1))
        rc = by_encrypt(key, a->cek, a->out, err);
    return rc;
}

enum bk_code
p11_wrap(struct bk_key *base, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    struct p11_key *key = p11_key_of(base);
    struct bk_wrapped made = {.scheme = BK_SCHEME_AES_KW, .id = base->pub.id, .len = BK_AESKW_LEN};
    struct wrap_args args = {cek, made.data};
    enum bk_code rc;

    if (key->traits.can_wrap == 0 && key->traits.can_encrypt == 0)
        return bk_fail(err, BK_E_UNSUPPORTED, "%s: the key %s may not wrap (CKA_WRAP is false)", key->token->where,
                       base->pub.uri);
    rc = p11_key_run(key, step, &args, err);
    if (rc == BK_OK)
        *out = made;
    return rc;
}
