#include "pkcs11/seal.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "pkcs11/rv.h"

void
p11_seal_fill(struct p11_seal *seal)
{
    static const CK_ATTRIBUTE_TYPE never[] = {CKA_TOKEN, CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN,      CKA_VERIFY,
                                              CKA_WRAP,  CKA_UNWRAP,  CKA_DERIVE,  CKA_MODIFIABLE};
    static const CK_ATTRIBUTE_TYPE always[] = {CKA_SENSITIVE, CKA_EXTRACTABLE, CKA_WRAP_WITH_TRUSTED};

    seal->type = CKK_GENERIC_SECRET;
    seal->yes = CK_TRUE;
    seal->no = CK_FALSE;
    seal->count = 0;
    /* no cipher takes a generic secret, should a token let somebody change what it may be used for */
    seal->at[seal->count++] = (CK_ATTRIBUTE){CKA_KEY_TYPE, &seal->type, sizeof seal->type};
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        seal->at[seal->count++] = (CK_ATTRIBUTE){always[i], &seal->yes, sizeof seal->yes};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
        seal->at[seal->count++] = (CK_ATTRIBUTE){never[i], &seal->no, sizeof seal->no};
}

/* One check under way, in a session of its own, whose objects vanish with it. */
struct check {
    struct p11_key *key;
    struct p11_session s;
    uint8_t wrapped[BK_AESKW_LEN];
    CK_OBJECT_HANDLE opened;
    CK_BBOOL yes, no, private;
    CK_OBJECT_CLASS class;
    int broken; /* the token answered something that is neither a yes nor a no */
};

/* 1 if the token said no. A fault that passes must not count as one. */
static int
refused(struct check *c, CK_RV rv)
{
    if (rv != CKR_OK && (p11_rv_is_lost(rv) || p11_rv_is_vague(rv) || rv == CKR_HOST_MEMORY))
        c->broken = 1;
    return rv != CKR_OK;
}

/* Opens it as a sealed object but for one attribute: changed, or left out. */
static CK_RV
open_but(struct check *c, CK_ULONG which, int left_out)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};
    CK_OBJECT_HANDLE object = P11_NO_HANDLE;
    CK_KEY_TYPE cipher = CKK_AES;
    struct p11_seal seal;
    CK_ATTRIBUTE at[P11_SEAL_ATTRIBUTES + 2];
    CK_ULONG count = 0;

    p11_seal_fill(&seal);
    at[count++] = (CK_ATTRIBUTE){CKA_CLASS, &c->class, sizeof c->class};
    at[count++] = (CK_ATTRIBUTE){CKA_PRIVATE, &c->private, sizeof c->private};
    for (CK_ULONG i = 0; i < seal.count; i++) {
        CK_ATTRIBUTE a = seal.at[i];

        if (i == which && left_out)
            continue;
        if (i == which && a.type == CKA_KEY_TYPE)
            a.pValue = &cipher;
        else if (i == which)
            a.pValue = a.pValue == &seal.yes ? &seal.no : &seal.yes;
        at[count++] = a;
    }
    return P11_CALL(&c->s.port, C_UnwrapKey, c->s.handle, &mechanism, c->key->handle, c->wrapped, sizeof c->wrapped, at,
                    count, &object);
}

static CK_RV
set(struct check *c, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, CK_BBOOL value)
{
    CK_ATTRIBUTE a = {type, &value, sizeof value};

    return P11_CALL(&c->s.port, C_SetAttributeValue, c->s.handle, object, &a, 1);
}

static CK_RV
copy_with(struct check *c, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, CK_BBOOL value)
{
    CK_OBJECT_HANDLE copy = P11_NO_HANDLE;
    CK_ATTRIBUTE at[] = {{CKA_TOKEN, &c->no, sizeof c->no}, {type, &value, sizeof value}};

    return P11_CALL(&c->s.port, C_CopyObject, c->s.handle, object, at, 2, &copy);
}

/* A key that this login knows, or could come to know. */
static CK_RV
own_key(struct check *c, CK_BBOOL trusted, CK_OBJECT_HANDLE *out)
{
    CK_KEY_TYPE type = CKK_AES;
    uint8_t value[32];
    CK_ATTRIBUTE at[] = {
        {CKA_CLASS, &c->class, sizeof c->class}, {CKA_KEY_TYPE, &type, sizeof type},
        {CKA_TOKEN, &c->no, sizeof c->no},       {CKA_PRIVATE, &c->private, sizeof c->private},
        {CKA_VALUE, value, sizeof value},        {CKA_WRAP, &c->yes, sizeof c->yes},
        {CKA_TRUSTED, &trusted, sizeof trusted},
    };

    if (RAND_bytes(value, sizeof value) != 1)
        return CKR_HOST_MEMORY;
    return P11_CALL(&c->s.port, C_CreateObject, c->s.handle, at, trusted ? 7 : 6, out);
}

/* Whatever is not bound can be had otherwise, and one way out is enough. */
static int
opens_no_other_way(struct check *c)
{
    struct p11_seal seal;

    p11_seal_fill(&seal);
    for (CK_ULONG i = 0; i < seal.count; i++)
        /* a lasting object would be as sealed, and where nobody is logged in it is refused for another reason */
        if (seal.at[i].type != CKA_TOKEN && (!refused(c, open_but(c, i, 0)) || !refused(c, open_but(c, i, 1))))
            return 0;
    return 1;
}

static int
wraps_under_no_key_of_ours(struct check *c)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};
    CK_OBJECT_HANDLE ours = P11_NO_HANDLE;
    CK_OBJECT_HANDLE trusted = P11_NO_HANDLE;
    uint8_t room[BK_WRAPPED_MAX];
    CK_ULONG len = sizeof room;

    if (!refused(c, own_key(c, CK_TRUE, &trusted)))
        return 0;
    if (own_key(c, CK_FALSE, &ours) != CKR_OK) {
        c->broken = 1; /* then nothing was tried */
        return 0;
    }
    return refused(c, P11_CALL(&c->s.port, C_WrapKey, c->s.handle, &mechanism, ours, c->opened, room, &len)) &&
           refused(c, set(c, ours, CKA_TRUSTED, CK_TRUE));
}

static int
changes_nothing(struct check *c)
{
    CK_OBJECT_HANDLE kek = c->key->handle;

    return refused(c, set(c, c->opened, CKA_WRAP_WITH_TRUSTED, CK_FALSE)) &&
           refused(c, set(c, c->opened, CKA_SENSITIVE, CK_FALSE)) &&
           refused(c, copy_with(c, c->opened, CKA_WRAP_WITH_TRUSTED, CK_FALSE)) &&
           refused(c, copy_with(c, c->opened, CKA_SENSITIVE, CK_FALSE)) &&
           refused(c, set(c, kek, CKA_DECRYPT, CK_TRUE)) && refused(c, set(c, kek, CKA_EXTRACTABLE, CK_TRUE)) &&
           refused(c, copy_with(c, kek, CKA_DECRYPT, CK_TRUE));
}

static int
is_what_was_asked_for(struct check *c)
{
    CK_ULONG type = 0;

    return p11_object_bool(&c->s, c->opened, CKA_SENSITIVE) == 1 &&
           p11_object_bool(&c->s, c->opened, CKA_WRAP_WITH_TRUSTED) == 1 &&
           p11_object_bool(&c->s, c->opened, CKA_DECRYPT) == 0 &&
           p11_object_ulong(&c->s, c->opened, CKA_KEY_TYPE, &type) && type == CKK_GENERIC_SECRET;
}

static int
decrypts_nothing(struct check *c)
{
    CK_BYTE iv[16] = {0};
    CK_MECHANISM mechanisms[] = {{CKM_AES_ECB, NULL, 0}, {CKM_AES_CBC, iv, sizeof iv}, {CKM_AES_KEY_WRAP, NULL, 0}};

    for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++)
        if (!refused(c, P11_CALL(&c->s.port, C_DecryptInit, c->s.handle, &mechanisms[i], c->key->handle)))
            return 0;
    return 1;
}

/* What the key says of itself is the least. */
static int
claims(const struct p11_key *key)
{
    const struct p11_traits *t = &key->traits;

    return t->class == CKO_SECRET_KEY && t->trusted == 1 && t->can_wrap == 1 && t->can_unwrap == 1 &&
           t->can_decrypt == 0 && t->can_encrypt == 0 && t->can_derive == 0;
}

/* The token must do what is allowed before and after it refused the rest, or it refuses because it is broken. */
static enum bk_code
try_all(struct check *c, int *enforces, struct bk_err *err)
{
    CK_OBJECT_HANDLE again = P11_NO_HANDLE;
    uint8_t back[BK_AESKW_LEN];
    int kept;
    enum bk_code rc;

    if ((rc = p11_open_sealed(&c->s, c->key, c->wrapped, &c->opened, err)) != BK_OK)
        return rc == BK_E_UNSUPPORTED ? BK_OK : rc;
    kept = is_what_was_asked_for(c) && opens_no_other_way(c) && wraps_under_no_key_of_ours(c) && changes_nothing(c) &&
           decrypts_nothing(c) && is_what_was_asked_for(c);
    if (!kept || c->broken)
        return BK_OK;
    if ((rc = p11_open_sealed(&c->s, c->key, c->wrapped, &again, err)) != BK_OK)
        return rc;
    if ((rc = p11_wrap_in(&c->s, c->key->handle, again, back, err)) != BK_OK)
        return rc;
    *enforces = CRYPTO_memcmp(back, c->wrapped, sizeof back) == 0;
    return BK_OK;
}

enum bk_code
p11_seal_check(struct p11_key *key, int *enforces, struct bk_err *err)
{
    struct check c = {.key = key, .yes = CK_TRUE, .no = CK_FALSE, .class = CKO_SECRET_KEY, .opened = P11_NO_HANDLE};
    struct bk_secret cek = {0};
    struct bk_wrapped wrapped = {0};
    enum bk_code rc;

    *enforces = 0;
    if (!claims(key))
        return BK_OK;
    c.private = key->traits.is_private == 0 ? CK_FALSE : CK_TRUE;
    if ((rc = bk_secret_random(&cek, BK_CEK_LEN, err)) != BK_OK)
        return rc;
    if ((rc = p11_wrap(&key->base, &cek, &wrapped, err)) != BK_OK)
        goto done;
    memcpy(c.wrapped, wrapped.data, sizeof c.wrapped);
    if ((rc = p11_session_open_own(&c.s, key->token, err)) != BK_OK)
        goto done;
    rc = try_all(&c, enforces, err);
    p11_session_close(&c.s);
done:
    bk_secret_wipe(&cek);
    return rc;
}
