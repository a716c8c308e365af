#include "pkcs11/key.h"

#include <stdlib.h>
#include <string.h>

#include "pkcs11/public.h"
#include "pkcs11/rv.h"

static void
key_close(struct bk_key *base)
{
    struct p11_key *key = p11_key_of(base);

    p11_session_close(&key->session);
    bk_public_free(&key->base.pub);
    free(key);
}

/* One table for each use, so that a key opened for one thing cannot do another by mistake. */
static const struct bk_key_ops ops_asymmetric = {.unwrap = p11_unwrap, .close = key_close};
static const struct bk_key_ops ops_secret = {
    .wrap = p11_wrap, .unwrap = p11_unwrap, .rewrap = p11_rewrap, .close = key_close};
static const struct bk_key_ops ops_sign = {.sign = p11_sign, .close = key_close};

struct p11_key *
p11_key_of(struct bk_key *key)
{
    if (key->ops != &ops_asymmetric && key->ops != &ops_secret && key->ops != &ops_sign)
        return NULL;
    return (struct p11_key *)(void *)key; /* base is the first member */
}

const char *
p11_key_unfit(const struct p11_traits *t, enum p11_use use)
{
    int asymmetric = t->type == BK_KEY_RSA || t->type == BK_KEY_P256 || t->type == BK_KEY_P384;

    if (!asymmetric && t->type != BK_KEY_AES256)
        return "is neither RSA, P-256, P-384 nor AES-256";
    if (use == P11_USE_SIGN) {
        if (!asymmetric)
            return "is a secret key and cannot sign";
        return t->can_sign == 0 ? "may not sign (CKA_SIGN is false)" : NULL;
    }
    if (use == P11_USE_WRAP) {
        if (asymmetric)
            return "is no secret key; wrap to its public half";
        return t->can_wrap == 0 && t->can_encrypt == 0 ? "may not wrap (CKA_WRAP is false)" : NULL;
    }
    if (t->type == BK_KEY_P256 || t->type == BK_KEY_P384)
        return t->can_derive == 0 ? "may not derive (CKA_DERIVE is false)" : NULL;
    return t->can_unwrap == 0 && t->can_decrypt == 0 ? "may not unwrap (CKA_UNWRAP and CKA_DECRYPT are false)" : NULL;
}

enum bk_code
p11_key_make(struct p11_session *s, CK_OBJECT_HANDLE object, const struct p11_traits *t, enum p11_use use,
             struct p11_key **out, struct bk_err *err)
{
    struct p11_key *key = calloc(1, sizeof *key);
    enum bk_code rc;

    if (key == NULL) {
        p11_session_close(s);
        return bk_fail_nomem(err);
    }
    key->base.ops = use == P11_USE_SIGN ? &ops_sign : t->class == CKO_SECRET_KEY ? &ops_secret : &ops_asymmetric;
    key->owner = s->token->owner;
    key->token = s->token;
    key->session = *s;
    *s = (struct p11_session){0};
    key->handle = object;
    key->traits = *t;
    rc = p11_public_half(&key->session, object, t, &key->base.pub, err);
    if (rc == BK_OK)
        rc = p11_public_set_uri(&key->base.pub, key->token, t, err);
    if (rc == BK_OK && use == P11_USE_SIGN)
        key->base.pub.scheme = BK_SCHEME_NONE;
    if (rc == BK_OK)
        *out = key;
    else
        key_close(&key->base);
    return rc;
}

/* 1 if object is the key that was opened: its public half, or for a secret key its CKA_ID, which the search compared.
 */
static int
is_same(struct p11_key *key, CK_OBJECT_HANDLE object)
{
    struct p11_traits t = {0};
    struct bk_public pub = {0};
    int same = p11_traits_read(&key->session, object, key->traits.class, &t, NULL) == BK_OK &&
               t.type == key->traits.type && p11_public_half(&key->session, object, &t, &pub, NULL) == BK_OK &&
               bk_key_id_equal(&pub.id, &key->base.pub.id);

    bk_public_free(&pub);
    return same;
}

static enum bk_code
find_again(struct p11_key *key, struct bk_err *err)
{
    CK_ATTRIBUTE label = p11_traits_label(&key->traits);
    CK_ATTRIBUTE id = p11_traits_id(&key->traits);
    struct p11_handles found = {0};
    size_t same = 0;
    enum bk_code rc = p11_object_find(&key->session, key->traits.class, &label, &id, &found, err);

    if (rc != BK_OK)
        return rc;
    for (size_t i = 0; i < found.count; i++)
        if (is_same(key, found.at[i])) {
            key->handle = found.at[i];
            same++;
        }
    p11_handles_free(&found);
    if (same == 0)
        return bk_fail(err, BK_E_NO_KEY, "%s: the key %s is not there any more", key->token->where, key->base.pub.uri);
    if (same > 1 && key->traits.class == CKO_SECRET_KEY)
        return bk_fail(err, BK_E_NO_KEY, "%s: a second secret key of the id of %s has appeared", key->token->where,
                       key->base.pub.uri);
    return BK_OK;
}

void
p11_key_park(struct p11_key *key)
{
    if (!key->session.open || !key->session.lent || key->session.port.spoiled)
        return;
    key->epoch = key->session.epoch;
    key->parked = 1;
    p11_session_close(&key->session);
}

/* Handles are the application's, not the session's (PKCS#11 2.40 section 2.6.7), but for session objects, and those who
 * made any do not park. */
static enum bk_code
unpark(struct p11_key *key, struct bk_err *err)
{
    enum bk_code rc;

    key->parked = 0;
    if ((rc = p11_session_open(&key->session, key->token, err)) != BK_OK)
        return rc;
    if (key->session.epoch == key->epoch)
        return BK_OK;
    p11_session_close(&key->session);
    return BK_E_NO_KEY;
}

enum bk_code
p11_key_known(struct p11_key *key, struct bk_err *err)
{
    struct p11_token *t = key->token;
    int holds;

    pthread_mutex_lock(&t->owner->lock);
    holds = key->parked && key->epoch == t->epoch && t->session_open;
    pthread_mutex_unlock(&t->owner->lock);
    return holds ? BK_OK : p11_key_ready(key, err);
}

enum bk_code
p11_key_ready(struct p11_key *key, struct bk_err *err)
{
    enum bk_code rc;

    if (key->session.open)
        return BK_OK;
    if (key->parked && (rc = unpark(key, err)) != BK_E_NO_KEY)
        return rc;
    if ((rc = p11_token_login(key->token, NULL, err)) != BK_OK)
        return rc;
    if ((rc = p11_session_open(&key->session, key->token, err)) != BK_OK)
        return rc;
    if ((rc = find_again(key, err)) != BK_OK)
        p11_session_close(&key->session);
    return rc;
}

enum bk_code
p11_key_run(struct p11_key *key, p11_key_step step, void *args, struct bk_err *err)
{
    struct bk_err first = {0};
    enum bk_code rc = p11_key_ready(key, &first);

    if (rc == BK_OK)
        rc = step(key, args, &first);
    if (rc == BK_OK) {
        p11_key_park(key);
        return rc;
    }
    p11_session_close(&key->session);
    if (p11_rv_is_lost(first.token_rv) || (p11_rv_is_vague(first.token_rv) && rc == BK_E_TOKEN)) {
        rc = p11_key_ready(key, &first);
        if (rc == BK_OK)
            rc = step(key, args, &first);
        if (rc != BK_OK)
            p11_session_close(&key->session);
        else
            p11_key_park(key);
    }
    if (rc != BK_OK && err != NULL)
        *err = first;
    return rc;
}

enum bk_code
p11_key_authenticate(struct p11_key *key, struct bk_err *err)
{
    if (key->traits.always_authenticate != 1)
        return BK_OK;
    return p11_token_context_login(key->token, &key->session.port, key->session.handle, err);
}

int
p11_key_mechanism(struct p11_key *key, CK_MECHANISM_TYPE mechanism, CK_FLAGS flag)
{
    CK_MECHANISM_INFO info = {0};
    CK_RV rv = P11_CALL(&key->session.port, C_GetMechanismInfo, key->token->slot, mechanism, &info);

    if (rv == CKR_MECHANISM_INVALID)
        return 0;
    return rv != CKR_OK ? -1 : (info.flags & flag) != 0;
}

void
p11_key_drop_object(struct p11_key *key, CK_OBJECT_HANDLE object)
{
    struct p11_session *s = &key->session;

    if (s->open && P11_CALL(&s->port, C_DestroyObject, s->handle, object) != CKR_OK)
        p11_session_close(s);
}
