#include "pkcs11/object.h"

#include <stdlib.h>
#include <string.h>

#include "pkcs11/rv.h"

/* secp256r1 and secp384r1 as namedCurve (RFC 5480 section 2.1.1.1) */
static const uint8_t oid_p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
static const uint8_t oid_p384[] = {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22};

const struct p11_class p11_classes[P11_CLASSES] = {{CKO_PRIVATE_KEY, "private key"},
                                                   {CKO_PUBLIC_KEY, "public key"},
                                                   {CKO_SECRET_KEY, "secret key"},
                                                   {CKO_CERTIFICATE, "certificate"}};

/* What tokens answer when they have read the question; everything else may be a moment's weakness. */
static int
is_answer(CK_RV rv)
{
    return rv == CKR_OK || rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE ||
           rv == CKR_BUFFER_TOO_SMALL || rv == CKR_OBJECT_HANDLE_INVALID;
}

CK_RV
p11_object_get(struct p11_session *s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, void *out, size_t room,
               size_t *len)
{
    CK_RV rv = CKR_OK;

    for (int tries = 0; tries < 2; tries++) {
        CK_ATTRIBUTE a = {.type = type, .pValue = out, .ulValueLen = (CK_ULONG)room};

        /* a module may claim a length and write nothing */
        memset(out, 0, room);
        rv = P11_CALL(&s->port, C_GetAttributeValue, s->handle, object, &a, 1);
        *len = a.ulValueLen;
        if (is_answer(rv))
            break;
    }
    return rv;
}

int
p11_object_bytes(struct p11_session *s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, void *out, size_t room,
                 size_t *len)
{
    size_t got = 0;

    if (p11_object_get(s, object, type, out, room, &got) != CKR_OK || got == CK_UNAVAILABLE_INFORMATION || got > room)
        return 0;
    *len = got;
    return 1;
}

int
p11_object_ulong(struct p11_session *s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, CK_ULONG *out)
{
    CK_ULONG value = 0;
    size_t len = 0;

    if (!p11_object_bytes(s, object, type, &value, sizeof value, &len) || len != sizeof value)
        return 0;
    *out = value;
    return 1;
}

int
p11_object_bool(struct p11_session *s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type)
{
    CK_BBOOL value = CK_FALSE;
    size_t len = 0;

    if (!p11_object_bytes(s, object, type, &value, sizeof value, &len) || len != sizeof value)
        return -1;
    return value != CK_FALSE;
}

enum bk_code
p11_object_tells_value(struct p11_session *s, CK_OBJECT_HANDLE object, int *tells, struct bk_err *err)
{
    struct bk_secret room = {0};
    size_t len = 0;
    enum bk_code rc = bk_secret_alloc(&room, BK_WRAPPED_MAX, err);

    if (rc == BK_OK)
        *tells = p11_object_get(s, object, CKA_VALUE, room.data, BK_WRAPPED_MAX, &len) == CKR_OK &&
                 len != CK_UNAVAILABLE_INFORMATION;
    bk_secret_wipe(&room);
    return rc;
}

enum bk_code
p11_object_check(struct p11_session *s, struct bk_err *err)
{
    CK_SESSION_INFO info = {0};

    if (P11_CALL(&s->port, C_GetSessionInfo, s->handle, &info) != CKR_OK)
        return p11_call_fail_as(&s->port, BK_E_TOKEN, err, "reading attributes");
    return BK_OK;
}

void
p11_handles_free(struct p11_handles *h)
{
    free(h->at);
    *h = (struct p11_handles){0};
}

static int
same_bytes(struct p11_session *s, CK_OBJECT_HANDLE object, const CK_ATTRIBUTE *wanted)
{
    uint8_t value[P11_ATTRIBUTE_MAX];
    size_t len = 0;

    if (wanted == NULL)
        return 1;
    return p11_object_bytes(s, object, wanted->type, value, sizeof value, &len) && len == wanted->ulValueLen &&
           memcmp(value, wanted->pValue, len) == 0;
}

/* Keeps those that are what was asked for. */
static void
recheck(struct p11_session *s, CK_OBJECT_CLASS class, const CK_ATTRIBUTE *label, const CK_ATTRIBUTE *id,
        struct p11_handles *h)
{
    size_t kept = 0;

    for (size_t i = 0; i < h->count; i++) {
        CK_OBJECT_CLASS found = 0;

        if (p11_object_ulong(s, h->at[i], CKA_CLASS, &found) && found == class && same_bytes(s, h->at[i], label) &&
            same_bytes(s, h->at[i], id))
            h->at[kept++] = h->at[i];
    }
    h->count = kept;
}

static enum bk_code
collect(struct p11_session *s, struct p11_handles *h, struct bk_err *err)
{
    for (;;) {
        const CK_ULONG room = 64;
        CK_ULONG found = 0;
        CK_OBJECT_HANDLE *more;

        if (h->count + room > P11_FIND_MAX)
            return bk_fail(err, BK_E_TOKEN, "%s: more than %d objects; name one by object= or id=", s->port.where,
                           P11_FIND_MAX);
        more = realloc(h->at, (h->count + room) * sizeof *more);
        if (more == NULL)
            return bk_fail_nomem(err);
        h->at = more;
        if (P11_CALL(&s->port, C_FindObjects, s->handle, h->at + h->count, room, &found) != CKR_OK)
            return p11_call_fail_as(&s->port, BK_E_TOKEN, err, "finding objects");
        if (found > room)
            return bk_fail(err, BK_E_TOKEN, "%s: C_FindObjects gives %lu objects where %lu were asked for",
                           s->port.where, (unsigned long)found, (unsigned long)room);
        if (found == 0)
            return BK_OK;
        h->count += found;
    }
}

enum bk_code
p11_object_find(struct p11_session *s, CK_OBJECT_CLASS class, const CK_ATTRIBUTE *label, const CK_ATTRIBUTE *id,
                struct p11_handles *out, struct bk_err *err)
{
    CK_ATTRIBUTE template[3] = {{CKA_CLASS, &class, sizeof class}};
    CK_ULONG n = 1;
    struct p11_handles found = {0};
    enum bk_code rc;

    if (label != NULL)
        template[n++] = *label;
    if (id != NULL)
        template[n++] = *id;
    if (P11_CALL(&s->port, C_FindObjectsInit, s->handle, template, n) != CKR_OK)
        return p11_call_fail_as(&s->port, BK_E_TOKEN, err, "finding objects");
    rc = collect(s, &found, err);
    if (P11_CALL(&s->port, C_FindObjectsFinal, s->handle) != CKR_OK && rc == BK_OK)
        rc = p11_call_fail_as(&s->port, BK_E_TOKEN, err, "finding objects");
    if (rc == BK_OK) {
        recheck(s, class, label, id, &found);
        rc = p11_object_check(s, err);
    }
    if (rc == BK_OK)
        *out = found;
    else
        p11_handles_free(&found);
    return rc;
}

enum bk_key_type
p11_curve(const uint8_t *params, size_t len)
{
    if (len == sizeof oid_p256 && memcmp(params, oid_p256, len) == 0)
        return BK_KEY_P256;
    if (len == sizeof oid_p384 && memcmp(params, oid_p384, len) == 0)
        return BK_KEY_P384;
    return BK_KEY_UNKNOWN;
}

CK_ATTRIBUTE
p11_curve_params(enum bk_key_type type)
{
    const uint8_t *oid = type == BK_KEY_P384 ? oid_p384 : oid_p256;
    CK_ULONG len = type == BK_KEY_P384 ? sizeof oid_p384 : sizeof oid_p256;

    /* PKCS#11 has no const; templates are only read */
    return (CK_ATTRIBUTE){CKA_EC_PARAMS, (void *)(uintptr_t)oid, len};
}

static void
read_type(struct p11_session *s, CK_OBJECT_HANDLE object, struct p11_traits *t)
{
    uint8_t params[64];
    uint8_t modulus[1024];
    CK_ULONG bytes = 0;
    size_t len = 0;

    if (t->key_type == CKK_EC && p11_object_bytes(s, object, CKA_EC_PARAMS, params, sizeof params, &len)) {
        t->type = p11_curve(params, len);
        t->bits = t->type == BK_KEY_P256 ? 256 : t->type == BK_KEY_P384 ? 384 : 0;
    } else if (t->key_type == CKK_RSA) {
        t->type = BK_KEY_RSA;
        if (p11_object_bytes(s, object, CKA_MODULUS, modulus, sizeof modulus, &len))
            t->bits = len * 8;
    } else if (t->key_type == P11_CKK_YUBIHSM_AES256_CCM_WRAP ||
               (t->key_type == CKK_AES && p11_object_ulong(s, object, CKA_VALUE_LEN, &bytes) && bytes == 32)) {
        t->type = BK_KEY_AES256;
        t->bits = 256;
    }
}

enum bk_code
p11_traits_read(struct p11_session *s, CK_OBJECT_HANDLE object, CK_OBJECT_CLASS class, struct p11_traits *out,
                struct bk_err *err)
{
    struct p11_traits t = {.class = class, .key_type = CK_UNAVAILABLE_INFORMATION};

    if (!p11_object_bytes(s, object, CKA_ID, t.id, sizeof t.id, &t.id_len))
        t.id_len = 0;
    if (!p11_object_bytes(s, object, CKA_LABEL, t.label, sizeof t.label, &t.label_len))
        t.label_len = 0;
    if (class != CKO_CERTIFICATE) {
        (void)p11_object_ulong(s, object, CKA_KEY_TYPE, &t.key_type);
        read_type(s, object, &t);
        t.can_encrypt = p11_object_bool(s, object, CKA_ENCRYPT);
        t.can_decrypt = p11_object_bool(s, object, CKA_DECRYPT);
        t.can_wrap = p11_object_bool(s, object, CKA_WRAP);
        t.can_unwrap = p11_object_bool(s, object, CKA_UNWRAP);
        t.can_derive = p11_object_bool(s, object, CKA_DERIVE);
        t.can_sign = p11_object_bool(s, object, CKA_SIGN);
        t.always_authenticate = p11_object_bool(s, object, CKA_ALWAYS_AUTHENTICATE);
        t.is_private = p11_object_bool(s, object, CKA_PRIVATE);
        t.trusted = class == CKO_SECRET_KEY ? p11_object_bool(s, object, CKA_TRUSTED) : -1;
    }
    *out = t;
    return p11_object_check(s, err);
}

CK_ATTRIBUTE
p11_traits_id(const struct p11_traits *t)
{
    return (CK_ATTRIBUTE){CKA_ID, (void *)(uintptr_t)t->id, (CK_ULONG)t->id_len};
}

CK_ATTRIBUTE
p11_traits_label(const struct p11_traits *t)
{
    return (CK_ATTRIBUTE){CKA_LABEL, (void *)(uintptr_t)t->label, (CK_ULONG)t->label_len};
}
