/* Moving a CEK from one secret KEK to another without its ever being outside of the token. */
#include <string.h>

#include <openssl/crypto.h>

#include "pkcs11/seal.h"

struct rewrap_args {
    const struct bk_wrapped *in;
    struct p11_key *to;
    uint8_t out[BK_AESKW_LEN];
    int opened; /* the old KEK opened it, so a failure after that is not the fault of what came in */
};

/* Sealed if the token can, since that is what a sealed KEK insists on and what keeps most; else sensitive. */
static enum bk_code
open_blind(struct p11_key *key, const struct p11_key *under, const uint8_t wrapped[BK_AESKW_LEN], CK_OBJECT_HANDLE *out,
           struct bk_err *err)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};

    if (under->traits.trusted == 1) {
        enum bk_code rc = p11_open_sealed(&key->session, under, wrapped, out, err);

        if (rc != BK_E_UNSUPPORTED)
            return rc;
    }
    return p11_unwrap_object(key, under->handle, &mechanism, wrapped, BK_AESKW_LEN, 1, out, err);
}

/* Read back, and tried: some tokens ignore SENSITIVE in the template. */
static enum bk_code
check_sensitive(struct p11_key *key, CK_OBJECT_HANDLE object, struct bk_err *err)
{
    struct p11_session *s = &key->session;
    int tells = 1;
    enum bk_code rc = p11_object_tells_value(s, object, &tells, err);

    if (rc == BK_OK && (tells || p11_object_bool(s, object, CKA_SENSITIVE) != 1))
        rc = bk_fail(err, BK_E_UNSUPPORTED,
                     "%s: the token does not keep an opened key to itself, so a rewrap would not "
                     "be blind",
                     s->port.where);
    return rc;
}

/*
 * first: what the old KEK opens; second: what the new one opens of what was wrapped under it. RFC 3394 is
 * deterministic, so the second, wrapped under the old KEK, must give the bytes that came in: then both are the same
 * key.
 */
static enum bk_code
step(struct p11_key *key, void *args, struct bk_err *err)
{
    struct rewrap_args *a = args;
    CK_OBJECT_HANDLE first = P11_NO_HANDLE;
    CK_OBJECT_HANDLE second = P11_NO_HANDLE;
    int have_first = 0; /* every number is a valid handle */
    int have_second = 0;
    uint8_t back[BK_AESKW_LEN];
    enum bk_code rc;

    if ((rc = p11_key_known(a->to, err)) != BK_OK)
        return rc;
    if ((rc = open_blind(key, key, a->in->data, &first, err)) != BK_OK)
        goto done;
    have_first = 1;
    a->opened = 1;
    if ((rc = check_sensitive(key, first, err)) != BK_OK)
        goto done;
    if ((rc = p11_wrap_object(key, a->to->handle, first, a->out, err)) != BK_OK)
        goto done;
    if ((rc = open_blind(key, a->to, a->out, &second, err)) != BK_OK)
        goto done;
    if (second == first) {
        /* then it would not be what the new KEK opens, and the comparison below would prove nothing */
        rc = bk_fail(err, BK_E_TOKEN, "%s: two opened keys have one handle", key->token->where);
        goto done;
    }
    have_second = 1;
    if ((rc = check_sensitive(key, second, err)) != BK_OK)
        goto done;
    if ((rc = p11_wrap_object(key, key->handle, second, back, err)) != BK_OK)
        goto done;
    if (CRYPTO_memcmp(back, a->in->data, BK_AESKW_LEN) != 0)
        rc = bk_fail(err, BK_E_VERIFY, "%s: the rewrapped key does not open to the same key", key->token->where);
done:
    if (have_second)
        p11_key_drop_object(key, second);
    if (have_first)
        p11_key_drop_object(key, first);
    if (rc != BK_OK) { /* what cost us our session may have cost the other key its handle */
        p11_session_close(&a->to->session);
        a->to->parked = 0;
    }
    return rc;
}

static enum bk_code
check_pair(const struct p11_key *key, const struct p11_key *to, const struct bk_wrapped *in, struct bk_err *err)
{
    if (to == NULL || to->token != key->token)
        return bk_fail(err, BK_E_UNSUPPORTED, "blind rewrap: the two keys are not on one token");
    if (key->traits.class != CKO_SECRET_KEY || to->traits.class != CKO_SECRET_KEY || in->scheme != BK_SCHEME_AES_KW ||
        to->base.pub.scheme != BK_SCHEME_AES_KW)
        return bk_fail(err, BK_E_UNSUPPORTED, "blind rewrap: not both keys are AES keys that wrap by AES key wrap");
    if (key->traits.can_wrap == 0 || key->traits.can_unwrap == 0)
        return bk_fail(err, BK_E_UNSUPPORTED,
                       "blind rewrap: the old key %s may not both wrap and unwrap, so the result "
                       "could not be proven",
                       key->base.pub.uri);
    if (to->traits.can_wrap == 0 || to->traits.can_unwrap == 0)
        return bk_fail(err, BK_E_UNSUPPORTED, "blind rewrap: the new key %s may not both wrap and unwrap",
                       to->base.pub.uri);
    if (in->len != BK_AESKW_LEN)
        return bk_fail(err, BK_E_FORMAT, "a wrapped key of %zu bytes, not %d", in->len, BK_AESKW_LEN);
    return BK_OK;
}

/* Once for each key: its attributes do not change while it is used. */
static enum bk_code
check_enforced(struct p11_key *key, struct p11_key *to, struct bk_err *err)
{
    struct p11_key *both[] = {key, to};
    enum bk_code rc = BK_OK;

    for (size_t i = 0; rc == BK_OK && i < 2; i++)
        if (!both[i]->seal_checked && (rc = p11_seal_check(both[i], &both[i]->base.enforces, err)) == BK_OK)
            both[i]->seal_checked = 1;
    return rc;
}

enum bk_code
p11_rewrap(struct bk_key *base, const struct bk_wrapped *in, struct bk_key *to, struct bk_wrapped *out,
           struct bk_err *err)
{
    struct p11_key *key = p11_key_of(base);
    struct rewrap_args args = {.in = in, .to = p11_key_of(to)};
    struct bk_wrapped made = {.scheme = BK_SCHEME_AES_KW, .id = to->pub.id, .len = BK_AESKW_LEN};
    struct bk_err own = {0};
    enum bk_code rc;

    if ((rc = check_pair(key, args.to, in, err)) != BK_OK)
        return rc;
    rc = p11_unwrap_run(key, in, step, &args, &args.opened, &own);
    if (rc == BK_OK)
        rc = check_enforced(key, args.to, &own);
    if (rc == BK_OK) {
        memcpy(made.data, args.out, BK_AESKW_LEN);
        *out = made;
    } else if (err != NULL) {
        *err = own;
    }
    return rc;
}
