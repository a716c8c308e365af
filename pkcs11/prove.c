/* Trying a key with its token before anything depends on it (docs/TOKENS.md, sections 1 and 3). */
#include <string.h>

#include <openssl/rand.h>

#include "base/keywrap.h"
#include "pkcs11/seal.h"

static enum bk_code
wrap_fresh(struct p11_key *key, enum bk_scheme scheme, const struct bk_secret *cek, struct bk_wrapped *out,
           struct bk_err *err)
{
    struct bk_public to = key->base.pub; /* borrowed: only the scheme differs */

    if (key->traits.class == CKO_SECRET_KEY)
        return p11_wrap_by(key, scheme, cek, out, err);
    to.scheme = scheme;
    return bk_public_wrap(&to, cek, out, err);
}

struct trial {
    struct bk_wrapped wrapped;
    int raw;
    struct bk_secret opened;
};

static enum bk_code
step(struct p11_key *key, void *args, struct bk_err *err)
{
    struct trial *t = args;

    return p11_unwrap_step(key, &t->wrapped, t->raw, &t->opened, err);
}

/* 1 for a secret key whose login may only wrap: it cannot open what it wraps. */
static int
only_wraps(const struct p11_key *key)
{
    const struct p11_traits *t = &key->traits;

    return t->class == CKO_SECRET_KEY && t->can_unwrap == 0 && t->can_decrypt == 0;
}

/* BK_OK if 32 fresh random bytes come back, as far as the key may open; *wrapped says how far it got. */
static enum bk_code
try_opening(struct p11_key *key, enum bk_scheme scheme, int raw, int *wrapped, struct bk_err *err)
{
    struct bk_secret cek = {0};
    struct trial t = {.raw = raw};
    enum bk_code rc;

    *wrapped = 0;
    if ((rc = bk_secret_random(&cek, BK_CEK_LEN, err)) != BK_OK)
        goto done;
    if ((rc = wrap_fresh(key, scheme, &cek, &t.wrapped, err)) != BK_OK)
        goto done;
    *wrapped = 1;
    if (only_wraps(key))
        goto done;
    if ((rc = p11_key_run(key, step, &t, err)) != BK_OK)
        goto done;
    if (!bk_secret_equal(&cek, &t.opened))
        rc = bk_fail(err, BK_E_TOKEN, "%s: the key does not open what its public half wraps", key->token->where);
done:
    bk_secret_wipe(&cek);
    bk_secret_wipe(&t.opened);
    return rc;
}

/* Never by bare RSA: what is wrapped to this key must open on a host that was not told of that. */
static enum bk_code
try_scheme(struct p11_key *key, enum bk_scheme scheme, int *wrapped, struct bk_err *err)
{
    return try_opening(key, scheme, 0, wrapped, err);
}

int
p11_key_opens_fresh(struct p11_key *key, enum bk_scheme scheme)
{
    int wrapped = 0;
    int enforces = 0;

    if (try_opening(key, scheme, key->owner->options.raw_rsa, &wrapped, NULL) == BK_OK)
        return 1;
    if (key->traits.trusted == 1 && p11_seal_check(key, &enforces, NULL) == BK_OK && enforces)
        return 1;
    return wrapped ? 0 : -1;
}

/* Tokens answer an unknown hash with many codes, so what counts is that SHA-1 passes and SHA-256, tried once more after
 * it, still does not: a fault that passes must not weaken the scheme. */
static int
only_sha1(struct p11_key *key)
{
    int wrapped = 0;

    return try_scheme(key, BK_SCHEME_RSA_OAEP_SHA1, &wrapped, NULL) == BK_OK &&
           try_scheme(key, BK_SCHEME_RSA_OAEP_SHA256, &wrapped, NULL) != BK_OK && wrapped;
}

static enum bk_code
prove_rsa(struct p11_key *key, struct bk_err *err)
{
    int wrapped = 0;
    struct bk_err first = {0};
    enum bk_code rc = try_scheme(key, BK_SCHEME_RSA_OAEP_SHA256, &wrapped, &first);

    if (rc != BK_OK && wrapped && rc != BK_E_PIN && only_sha1(key)) {
        key->base.pub.scheme = BK_SCHEME_RSA_OAEP_SHA1;
        bk_warn(key->owner->options.log, "%s: %s opens RSA-OAEP only with SHA-1, not with SHA-256", key->token->where,
                key->base.pub.uri);
        return BK_OK;
    }
    if (rc != BK_OK) /* once more: the first failure may have been one that passes */
        rc = try_scheme(key, BK_SCHEME_RSA_OAEP_SHA256, &wrapped, &first);
    if (rc == BK_OK) {
        key->base.pub.scheme = BK_SCHEME_RSA_OAEP_SHA256;
        return rc;
    }
    bk_err_prefix(&first, "the trial of %s failed", key->base.pub.uri);
    if (err != NULL)
        *err = first;
    return rc;
}

/* AES-GCM with nonces that the token draws: twice, so that one drawn twice is seen, and not with a nonce of ours. */
static enum bk_code
try_gcm(struct p11_key *key, struct bk_err *err)
{
    int wrapped = 0;
    enum bk_code rc;

    if ((rc = try_scheme(key, BK_SCHEME_AES_GCM, &wrapped, err)) != BK_OK)
        return rc;
    if ((rc = try_scheme(key, BK_SCHEME_AES_GCM, &wrapped, err)) != BK_OK)
        return rc;
    return p11_gcm_check_own_nonce(key, err);
}

/* AES key wrap wherever it works; AES-GCM counts only if key wrap, tried once more after it, still does not. */
static enum bk_code
prove_secret(struct p11_key *key, struct bk_err *err)
{
    int wrapped = 0;
    struct bk_err first = {0};
    struct bk_err gcm = {0};
    enum bk_code rc;

    if (key->base.pub.scheme == BK_SCHEME_YUBIHSM_CCM) /* its wrap keys do nothing else */
        return try_scheme(key, BK_SCHEME_YUBIHSM_CCM, &wrapped, err);
    key->base.pub.scheme = BK_SCHEME_AES_KW;
    if ((rc = try_scheme(key, BK_SCHEME_AES_KW, &wrapped, &first)) == BK_OK)
        return rc;
    if (rc != BK_E_PIN && key->traits.can_encrypt != 0 && (only_wraps(key) || key->traits.can_decrypt != 0)) {
        if (try_gcm(key, &gcm) == BK_OK && try_scheme(key, BK_SCHEME_AES_KW, &wrapped, NULL) != BK_OK) {
            key->base.pub.scheme = BK_SCHEME_AES_GCM;
            return BK_OK;
        }
        if (gcm.code == BK_OK)
            return BK_OK;
        bk_err_hint(&first, "AES-GCM in the token: %s", gcm.message);
    }
    if (err != NULL)
        *err = first;
    return rc;
}

static enum bk_code
prove_signing(struct p11_key *key, struct bk_err *err)
{
    uint8_t digest[32];
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;

    if (RAND_bytes(digest, sizeof digest) != 1)
        return bk_fail(err, BK_E_INTERNAL, "the random number generator failed");
    /* p11_sign checks what it made */
    return p11_sign(&key->base, digest, bk_sig_alg_for(key->base.pub.type), sig, &len, err);
}

/* A trusted KEK may be sealed: then it opens nothing for us, and the token itself must show that it opens anything. */
static enum bk_code
prove_sealed(struct p11_key *key, struct bk_err *err)
{
    int enforces = 0;
    enum bk_code rc = p11_seal_check(key, &enforces, err);

    if (rc != BK_OK)
        return rc;
    if (!enforces)
        return prove_secret(key, err);
    key->base.enforces = 1;
    key->base.pub.sealed = 1;
    key->seal_checked = 1;
    return BK_OK;
}

enum bk_code
p11_key_prove(struct p11_key *key, int signing, struct bk_err *err)
{
    int wrapped = 0;
    enum bk_code rc;

    if (!signing && key->base.pub.type == BK_KEY_RSA)
        return prove_rsa(key, err);
    if (signing)
        rc = prove_signing(key, err);
    else if (key->traits.trusted == 1)
        rc = prove_sealed(key, err);
    else if (key->traits.class == CKO_SECRET_KEY)
        rc = prove_secret(key, err);
    else
        rc = try_scheme(key, key->base.pub.scheme, &wrapped, err);
    if (rc != BK_OK)
        bk_err_prefix(err, "the trial of %s failed", key->base.pub.uri);
    return rc;
}
