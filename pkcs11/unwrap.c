/* Opening a wrapped key with the token (docs/TOKENS.md, rules 3 to 7). Returned lengths are never believed. */
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>

#include "base/keywrap.h"
#include "pkcs11/key.h"
#include "pkcs11/rv.h"
#include "pkcs11/seal.h"

/* What a token that overshoots may write without harm: no result is this long. */
#define ROOM BK_WRAPPED_MAX

struct secret_template {
    CK_OBJECT_CLASS class;
    CK_KEY_TYPE type;
    CK_ULONG value_len;
    CK_BBOOL yes;
    CK_BBOOL no;
    CK_ATTRIBUTE at[8];
    CK_ULONG count;
};

/* A session object that holds a key of value_len bytes (0: the length is left to the token). */
static void
template_fill(struct secret_template *t, CK_KEY_TYPE type, CK_ULONG value_len, int sensitive)
{
    t->class = CKO_SECRET_KEY;
    t->type = type;
    t->value_len = value_len;
    t->yes = CK_TRUE;
    t->no = CK_FALSE;
    t->count = 0;
    t->at[t->count++] = (CK_ATTRIBUTE){CKA_CLASS, &t->class, sizeof t->class};
    t->at[t->count++] = (CK_ATTRIBUTE){CKA_KEY_TYPE, &t->type, sizeof t->type};
    t->at[t->count++] = (CK_ATTRIBUTE){CKA_TOKEN, &t->no, sizeof t->no};
    t->at[t->count++] = (CK_ATTRIBUTE){CKA_SENSITIVE, sensitive ? &t->yes : &t->no, sizeof t->no};
    t->at[t->count++] = (CK_ATTRIBUTE){CKA_EXTRACTABLE, &t->yes, sizeof t->yes};
    if (value_len > 0)
        t->at[t->count++] = (CK_ATTRIBUTE){CKA_VALUE_LEN, &t->value_len, sizeof t->value_len};
}

enum bk_code
p11_open_sealed(struct p11_session *s, const struct p11_key *key, const uint8_t wrapped[BK_AESKW_LEN],
                CK_OBJECT_HANDLE *out, struct bk_err *err)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    struct p11_seal seal;
    CK_ATTRIBUTE at[P11_SEAL_ATTRIBUTES + 2];
    CK_ULONG count = 0;

    p11_seal_fill(&seal);
    at[count++] = (CK_ATTRIBUTE){CKA_CLASS, &class, sizeof class};
    memcpy(at + count, seal.at, seal.count * sizeof seal.at[0]);
    count += seal.count;
    if (key->traits.is_private == 0)
        at[count++] = (CK_ATTRIBUTE){CKA_PRIVATE, &seal.no, sizeof seal.no};
    if (P11_CALL(&s->port, C_UnwrapKey, s->handle, &mechanism, key->handle, (CK_BYTE *)(uintptr_t)wrapped, BK_AESKW_LEN,
                 at, count, out) == CKR_OK)
        return BK_OK;
    if (p11_rv_is_parameter(s->port.rv))
        return bk_fail(err, BK_E_UNSUPPORTED, "%s: the token opens no key as a sealed one", s->port.where);
    return p11_call_fail(&s->port, err, "opening a wrapped key");
}

static const struct variant {
    CK_KEY_TYPE type;
    int with_len;
} variants[] = {{CKK_GENERIC_SECRET, 0}, {CKK_GENERIC_SECRET, 1}, {CKK_AES, 0}, {CKK_AES, 1}};

static CK_RV
unwrap_call(struct p11_key *key, CK_OBJECT_HANDLE under, CK_MECHANISM *mechanism, const uint8_t *data, size_t len,
            int sensitive, const struct variant *v, CK_OBJECT_HANDLE *out)
{
    struct p11_session *s = &key->session;
    struct secret_template t;

    template_fill(&t, v->type, v->with_len ? BK_CEK_LEN : 0, sensitive);
    return P11_CALL(&s->port, C_UnwrapKey, s->handle, mechanism, under, (CK_BYTE *)(uintptr_t)data, (CK_ULONG)len, t.at,
                    t.count, out);
}

enum bk_code
p11_unwrap_object(struct p11_key *key, CK_OBJECT_HANDLE under, CK_MECHANISM *mechanism, const uint8_t *data, size_t len,
                  int sensitive, CK_OBJECT_HANDLE *out, struct bk_err *err)
{
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        CK_RV rv = unwrap_call(key, under, mechanism, data, len, sensitive, &variants[i], out);

        if (rv == CKR_OK)
            return BK_OK;
        if (!p11_rv_is_parameter(rv))
            break;
    }
    return p11_call_fail(&key->session.port, err, "opening a wrapped key");
}

int
p11_unwraps_by_template(struct p11_key *key, const uint8_t wrapped[BK_AESKW_LEN], int with_len)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};
    CK_OBJECT_HANDLE object = P11_NO_HANDLE;
    CK_RV rv = CKR_GENERAL_ERROR;

    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        if (variants[i].with_len != with_len)
            continue;
        rv = unwrap_call(key, key->handle, &mechanism, wrapped, BK_AESKW_LEN, 1, &variants[i], &object);
        if (rv == CKR_OK) {
            p11_key_drop_object(key, object);
            return 1;
        }
    }
    return p11_rv_is_parameter(rv) ? 0 : -1;
}

/* Reads the value of a session object into a fresh secret of exactly want bytes. */
static enum bk_code
read_value(struct p11_key *key, CK_OBJECT_HANDLE object, size_t want, struct bk_secret *out, struct bk_err *err)
{
    struct p11_session *s = &key->session;
    struct bk_secret room = {0};
    CK_ATTRIBUTE a = {.type = CKA_VALUE};
    enum bk_code rc = bk_secret_alloc(&room, ROOM, err);

    if (rc != BK_OK)
        return rc;
    a.pValue = room.data;
    a.ulValueLen = ROOM;
    if (P11_CALL(&s->port, C_GetAttributeValue, s->handle, object, &a, 1) != CKR_OK)
        rc = p11_call_fail(&s->port, err, "reading an opened key");
    else if (a.ulValueLen == CK_UNAVAILABLE_INFORMATION)
        rc = bk_fail(err, BK_E_UNSUPPORTED, "%s: the token opens the wrapped key but keeps its value", s->port.where);
    else if (a.ulValueLen > ROOM)
        rc = bk_fail(err, BK_E_TOKEN, "%s: the token tells of a key of %lu bytes", s->port.where,
                     (unsigned long)a.ulValueLen);
    else if (a.ulValueLen != want)
        rc = bk_fail(err, BK_E_VERIFY, "%s: the wrapped key opened to %lu bytes, not %zu", s->port.where,
                     (unsigned long)a.ulValueLen, want);
    else
        rc = bk_secret_from(out, room.data, want, err);
    bk_secret_wipe(&room);
    return rc;
}

static enum bk_code
by_unwrap(struct p11_key *key, CK_MECHANISM *mechanism, const struct bk_wrapped *in, struct bk_secret *cek,
          struct bk_err *err)
{
    CK_OBJECT_HANDLE object = P11_NO_HANDLE;
    enum bk_code rc = p11_unwrap_object(key, key->handle, mechanism, in->data, in->len, 0, &object, err);

    if (rc != BK_OK)
        return rc;
    rc = read_value(key, object, BK_CEK_LEN, cek, err);
    p11_key_drop_object(key, object);
    return rc;
}

/* One call with a buffer of full size and no question for the length, which would use up a context login. room is
 * allocated, and the caller wipes it on failure too. */
static enum bk_code
decrypt(struct p11_key *key, CK_MECHANISM *mechanism, const struct bk_wrapped *in, struct bk_secret *room,
        CK_ULONG *len, struct bk_err *err)
{
    struct p11_session *s = &key->session;
    enum bk_code rc = bk_secret_alloc(room, ROOM, err);

    if (rc != BK_OK)
        return rc;
    *len = ROOM;
    if (P11_CALL(&s->port, C_DecryptInit, s->handle, mechanism, key->handle) != CKR_OK)
        return p11_call_fail(&s->port, err, "opening a wrapped key");
    if ((rc = p11_key_authenticate(key, err)) != BK_OK)
        return rc;
    if (P11_CALL(&s->port, C_Decrypt, s->handle, (CK_BYTE *)(uintptr_t)in->data, (CK_ULONG)in->len, room->data, len) !=
        CKR_OK)
        return p11_call_fail(&s->port, err, "opening a wrapped key");
    return BK_OK;
}

static enum bk_code
by_decrypt(struct p11_key *key, CK_MECHANISM *mechanism, const struct bk_wrapped *in, struct bk_secret *cek,
           struct bk_err *err)
{
    struct p11_session *s = &key->session;
    struct bk_secret room = {0};
    CK_ULONG len = 0;
    enum bk_code rc;

    if ((rc = decrypt(key, mechanism, in, &room, &len, err)) != BK_OK)
        goto done;
    if (len > ROOM)
        rc = bk_fail(err, BK_E_TOKEN, "%s: the token tells of a key of %lu bytes", s->port.where, (unsigned long)len);
    else if (len != BK_CEK_LEN)
        rc = bk_fail(err, BK_E_VERIFY, "%s: the wrapped key opened to %lu bytes, not %d", s->port.where,
                     (unsigned long)len, BK_CEK_LEN);
    else
        rc = bk_secret_from(cek, room.data, BK_CEK_LEN, err);
done:
    bk_secret_wipe(&room);
    return rc;
}

static enum bk_code
unwrap_aes(struct p11_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};
    enum bk_code rc = BK_E_UNSUPPORTED;

    if (in->len != BK_AESKW_LEN)
        return bk_fail(err, BK_E_FORMAT, "a wrapped key of %zu bytes, not %d", in->len, BK_AESKW_LEN);
    if (key->traits.can_unwrap != 0)
        rc = by_unwrap(key, &mechanism, in, cek, err);
    if (rc == BK_E_UNSUPPORTED && key->traits.can_decrypt != 0 &&
        (key->traits.can_unwrap == 0 || p11_key_mechanism(key, CKM_AES_KEY_WRAP, CKF_DECRYPT) == 1))
        rc = by_decrypt(key, &mechanism, in, cek, err);
    return rc;
}

static enum bk_code
unwrap_gcm(struct p11_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    uint8_t nonce[BK_KEK_NONCE];
    struct p11_gcm gcm;

    if (in->len != BK_AESGCM_LEN)
        return bk_fail(err, BK_E_FORMAT, "a wrapped key of %zu bytes, not %d", in->len, BK_AESGCM_LEN);
    if (key->traits.can_decrypt == 0)
        return bk_fail(err, BK_E_UNSUPPORTED, "%s: the key %s may not decrypt (CKA_DECRYPT is false)",
                       key->token->where, key->base.pub.uri);
    memcpy(nonce, in->nonce, sizeof nonce);
    p11_gcm_fill(&gcm, nonce);
    return by_decrypt(key, &gcm.mechanism, in, cek, err);
}

static enum bk_code
unwrap_ccm(struct p11_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    CK_MECHANISM mechanism = {.mechanism = P11_CKM_YUBIHSM_AES_CCM_WRAP};

    if (in->len < BK_CCM_MIN || in->len > BK_CCM_MAX)
        return bk_fail(err, BK_E_FORMAT, "a wrapped key of %zu bytes, not %d to %d", in->len, BK_CCM_MIN, BK_CCM_MAX);
    return by_decrypt(key, &mechanism, in, cek, err);
}

/*
 * The bare operation, and the padding undone here. A token may leave out zeros in front, and shows by that what OAEP
 * hides from it; we put them back.
 */
static enum bk_code
by_raw_rsa(struct p11_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_RSA_X_509};
    struct bk_secret room = {0};
    struct bk_secret padded = {0};
    CK_ULONG len = 0;
    enum bk_code rc;

    if ((rc = decrypt(key, &mechanism, in, &room, &len, err)) != BK_OK)
        goto done;
    if (len > in->len) {
        rc = bk_fail(err, BK_E_TOKEN, "%s: bare RSA gave %lu bytes, and the modulus has %zu", key->token->where,
                     (unsigned long)len, in->len);
        goto done;
    }
    if ((rc = bk_secret_alloc(&padded, in->len, err)) != BK_OK)
        goto done;
    memcpy(padded.data + in->len - len, room.data, len);
    rc = bk_oaep_finish(in->scheme, &padded, cek, err);
done:
    bk_secret_wipe(&padded);
    bk_secret_wipe(&room);
    return rc;
}

static enum bk_code
unwrap_rsa(struct p11_key *key, const struct bk_wrapped *in, int raw, struct bk_secret *cek, struct bk_err *err)
{
    int sha1 = in->scheme == BK_SCHEME_RSA_OAEP_SHA1;
    /* the source must be CKZ_DATA_SPECIFIED even for the empty label */
    CK_RSA_PKCS_OAEP_PARAMS oaep = {.hashAlg = sha1 ? CKM_SHA_1 : CKM_SHA256,
                                    .mgf = sha1 ? CKG_MGF1_SHA1 : CKG_MGF1_SHA256,
                                    .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep};
    enum bk_code rc = BK_E_UNSUPPORTED;

    if (in->len != (key->base.pub.bits + 7) / 8)
        return bk_fail(err, BK_E_FORMAT, "a wrapped key of %zu bytes for an RSA key of %zu bits", in->len,
                       key->base.pub.bits);
    if (key->traits.can_decrypt != 0)
        rc = by_decrypt(key, &mechanism, in, cek, err);
    if (rc == BK_E_UNSUPPORTED && key->traits.can_unwrap != 0 &&
        (key->traits.can_decrypt == 0 || p11_key_mechanism(key, CKM_RSA_PKCS_OAEP, CKF_UNWRAP) == 1))
        rc = by_unwrap(key, &mechanism, in, cek, err);
    if (rc == BK_E_UNSUPPORTED && raw && !sha1 && key->traits.can_decrypt != 0)
        rc = by_raw_rsa(key, in, cek, err);
    return rc;
}

static CK_RV
derive_call(struct p11_key *key, const uint8_t *point, size_t point_len, CK_ULONG value_len, CK_OBJECT_HANDLE *out)
{
    struct p11_session *s = &key->session;
    CK_ECDH1_DERIVE_PARAMS params = {
        .kdf = CKD_NULL, .ulPublicDataLen = (CK_ULONG)point_len, .pPublicData = (CK_BYTE *)(uintptr_t)point};
    CK_MECHANISM mechanism = {CKM_ECDH1_DERIVE, &params, sizeof params};
    struct secret_template t;

    template_fill(&t, CKK_GENERIC_SECRET, value_len, 0);
    return P11_CALL(&s->port, C_DeriveKey, s->handle, &mechanism, key->handle, t.at, t.count, out);
}

/* The raw point first; inside an OCTET STRING only where the token takes offence at the raw one. The secret whole,
 * since tokens cut it at different ends. */
static enum bk_code
derive(struct p11_key *key, const struct bk_wrapped *in, size_t secret_len, CK_OBJECT_HANDLE *out, struct bk_err *err)
{
    uint8_t der[2 + BK_EC_POINT_MAX] = {0x04, (uint8_t)in->ephemeral_len};
    CK_RV rv;

    memcpy(der + 2, in->ephemeral, in->ephemeral_len);
    rv = derive_call(key, in->ephemeral, in->ephemeral_len, (CK_ULONG)secret_len, out);
    if (p11_rv_is_parameter(rv))
        rv = derive_call(key, der, in->ephemeral_len + 2, (CK_ULONG)secret_len, out);
    if (rv == CKR_TEMPLATE_INCONSISTENT || rv == CKR_ATTRIBUTE_TYPE_INVALID)
        rv = derive_call(key, in->ephemeral, in->ephemeral_len, 0, out);
    return rv == CKR_OK ? BK_OK : p11_call_fail(&key->session.port, err, "deriving the shared secret");
}

static enum bk_code
unwrap_ecdh(struct p11_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    size_t secret_len = in->scheme == BK_SCHEME_ECDH_P384 ? 48 : 32;
    struct bk_secret shared = {0};
    CK_OBJECT_HANDLE object = P11_NO_HANDLE;
    enum bk_code rc;

    /* on the host, since not every token checks; a point off the curve would draw the key out bit by bit */
    if ((rc = bk_ec_point_check(in->scheme, in->ephemeral, in->ephemeral_len, err)) != BK_OK)
        return rc;
    if ((rc = derive(key, in, secret_len, &object, err)) != BK_OK)
        return rc;
    rc = read_value(key, object, secret_len, &shared, err);
    p11_key_drop_object(key, object);
    if (rc == BK_OK)
        rc = bk_ecdh_finish(in->scheme, &shared, in, cek, err);
    bk_secret_wipe(&shared);
    return rc;
}

enum bk_code
p11_unwrap_step(struct p11_key *key, const struct bk_wrapped *in, int raw, struct bk_secret *cek, struct bk_err *err)
{
    switch (in->scheme) {
    case BK_SCHEME_AES_KW:
        return unwrap_aes(key, in, cek, err);
    case BK_SCHEME_AES_GCM:
        return unwrap_gcm(key, in, cek, err);
    case BK_SCHEME_YUBIHSM_CCM:
        return unwrap_ccm(key, in, cek, err);
    case BK_SCHEME_RSA_OAEP_SHA256:
    case BK_SCHEME_RSA_OAEP_SHA1:
        return unwrap_rsa(key, in, raw, cek, err);
    case BK_SCHEME_ECDH_P256:
    case BK_SCHEME_ECDH_P384:
        return unwrap_ecdh(key, in, cek, err);
    case BK_SCHEME_NONE:
    default:
        return bk_fail(err, BK_E_INTERNAL, "unwrap: no scheme");
    }
}

static int
scheme_fits(enum bk_key_type type, enum bk_scheme scheme)
{
    switch (scheme) {
    case BK_SCHEME_AES_KW:
    case BK_SCHEME_AES_GCM:
    case BK_SCHEME_YUBIHSM_CCM:
        return type == BK_KEY_AES256;
    case BK_SCHEME_RSA_OAEP_SHA256:
    case BK_SCHEME_RSA_OAEP_SHA1:
        return type == BK_KEY_RSA;
    case BK_SCHEME_ECDH_P256:
        return type == BK_KEY_P256;
    case BK_SCHEME_ECDH_P384:
        return type == BK_KEY_P384;
    case BK_SCHEME_NONE:
    default:
        return 0;
    }
}

struct unwrap_args {
    const struct bk_wrapped *in;
    struct bk_secret *cek;
};

static enum bk_code
step(struct p11_key *key, void *args, struct bk_err *err)
{
    const struct unwrap_args *a = args;

    return p11_unwrap_step(key, a->in, key->owner->options.raw_rsa, a->cek, err);
}

/*
 * Some tokens answer a tampered wrapped key as they answer a broken cable (docs/TOKENS.md, section 1). Whether the key
 * opens something freshly wrapped tells the two apart.
 */
static enum bk_code
explain(struct p11_key *key, const struct bk_wrapped *in, enum bk_code rc, struct bk_err *err)
{
    char name[P11_RV_TEXT];
    const char *rv = p11_rv_name(err->token_rv, name);
    unsigned long token_rv = err->token_rv;
    int opens;

    if (rc != BK_E_TOKEN || !p11_rv_is_vague(token_rv))
        return rc;
    opens = p11_key_opens_fresh(key, in->scheme);
    if (opens == 0)
        return rc;
    if (opens > 0)
        rc = bk_fail(err, BK_E_VERIFY,
                     "%s: the wrapped key is damaged or forged: the token opens others, but not this "
                     "one (%s)",
                     key->token->where, rv);
    else
        rc = bk_fail(err, BK_E_VERIFY, "%s: the wrapped key is damaged or forged, or the token failed twice (%s)",
                     key->token->where, rv);
    err->token_rv = token_rv;
    return rc;
}

/* A device that throttles fails this call and does the next (docs/TOKENS.md, section 2): so what failed is tried again,
 * after a pause that grows, as long as fresh keys open meanwhile. Only what fails every time is damaged. */
enum bk_code
p11_unwrap_run(struct p11_key *key, const struct bk_wrapped *in, p11_key_step run, void *args, const int *opened,
               struct bk_err *err)
{
    static const long pauses_ms[] = {50, 250, 1000};
    enum bk_code rc = p11_key_run(key, run, args, err);

    for (size_t i = 0; i < 3 && rc == BK_E_TOKEN && p11_rv_is_vague(err->token_rv) && !*opened; i++) {
        const struct timespec pause = {.tv_sec = pauses_ms[i] / 1000, .tv_nsec = pauses_ms[i] % 1000 * 1000000};

        if (p11_key_opens_fresh(key, in->scheme) != 1)
            break;
        if (err->token_rv == CKR_FUNCTION_FAILED)
            (void)nanosleep(&pause, NULL);
        else if (i > 0)
            break;
        rc = p11_key_run(key, run, args, err);
    }
    return rc == BK_OK || *opened ? rc : explain(key, in, rc, err);
}

static enum bk_code
fail_sealed(const struct p11_key *key, struct bk_err *err)
{
    unsigned long token_rv = err->token_rv;
    enum bk_code rc = bk_fail(err, BK_E_UNSUPPORTED, "%s: what the key %s opens stays in the token", key->token->where,
                              key->base.pub.uri);

    bk_err_hint(err, "it was made for blind rotation alone; restore with another recipient's key");
    err->token_rv = token_rv;
    return rc;
}

enum bk_code
p11_unwrap(struct bk_key *base, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    struct p11_key *key = p11_key_of(base);
    struct unwrap_args args = {in, cek};
    struct bk_err own = {0};
    const int opened = 0;
    enum bk_code rc;

    if (!scheme_fits(base->pub.type, in->scheme) || in->len > sizeof in->data)
        return bk_fail(err, BK_E_FORMAT, "a wrapped key of scheme %s cannot be for a key of type %s",
                       bk_scheme_name(in->scheme), bk_key_type_name(base->pub.type));
    rc = p11_unwrap_run(key, in, step, &args, &opened, &own);
    if (rc == BK_OK)
        return rc;
    bk_secret_wipe(cek);
    if (rc == BK_E_UNSUPPORTED && key->traits.trusted == 1)
        rc = fail_sealed(key, &own);
    if (rc == BK_E_UNSUPPORTED && in->scheme == BK_SCHEME_RSA_OAEP_SHA256 && !key->owner->options.raw_rsa)
        bk_err_hint(&own, "if the module does not know OAEP with SHA-256, --raw-rsa opens it");
    /* one message for what token and host refuse: see base/oaep.c */
    if (rc == BK_E_VERIFY && key->owner->options.raw_rsa && in->scheme == BK_SCHEME_RSA_OAEP_SHA256)
        rc = bk_fail(&own, BK_E_VERIFY, "%s: the wrapped key is damaged or forged, or for another key",
                     key->token->where);
    if (err != NULL)
        *err = own;
    return rc;
}
