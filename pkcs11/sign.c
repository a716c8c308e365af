/* Signing a SHA-256 digest in the token; every signature is checked on the host before it leaves. */
#include <string.h>

#include <openssl/bn.h>
#include <openssl/ecdsa.h>

#include "base/keywrap.h"
#include "pkcs11/key.h"

struct sign_args {
    const uint8_t *digest;
    enum bk_sig_alg alg;
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len;
};

static enum bk_code
sign_call(struct p11_key *key, CK_MECHANISM *mechanism, const uint8_t digest[32], uint8_t *out, size_t want,
          struct bk_err *err)
{
    struct p11_session *s = &key->session;
    uint8_t room[2 * BK_SIGNATURE_MAX] = {0};
    CK_ULONG len = sizeof room;
    enum bk_code rc;

    if (P11_CALL(&s->port, C_SignInit, s->handle, mechanism, key->handle) != CKR_OK)
        return p11_call_fail_own(&s->port, err, "signing");
    if ((rc = p11_key_authenticate(key, err)) != BK_OK)
        return rc;
    if (P11_CALL(&s->port, C_Sign, s->handle, (CK_BYTE *)(uintptr_t)digest, 32, room, &len) != CKR_OK)
        return p11_call_fail_own(&s->port, err, "signing");
    if (len != want || want > BK_SIGNATURE_MAX)
        return bk_fail(err, BK_E_TOKEN, "%s: a signature of %lu bytes, not %zu", s->port.where, (unsigned long)len,
                       want);
    memcpy(out, room, want);
    return BK_OK;
}

/* r || s, each as long as the order (PKCS#11 2.40 section 2.3.1), to the DER ECDSA-Sig-Value of RFC 3279. */
static enum bk_code
ecdsa_to_der(const uint8_t *raw, size_t half, struct sign_args *a, struct bk_err *err)
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, (int)half, NULL);
    BIGNUM *s = BN_bin2bn(raw + half, (int)half, NULL);
    uint8_t *at = a->sig;
    int len;

    if (sig == NULL || r == NULL || s == NULL || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        ECDSA_SIG_free(sig);
        return bk_fail_nomem(err);
    }
    /* at most 104 bytes for P-384, so that the room is asked for only to be sure */
    len = i2d_ECDSA_SIG(sig, NULL);
    if (len > 0 && (size_t)len <= sizeof a->sig)
        len = i2d_ECDSA_SIG(sig, &at);
    ECDSA_SIG_free(sig);
    if (len <= 0 || (size_t)len > sizeof a->sig)
        return bk_fail_nomem(err);
    a->len = (size_t)len;
    return BK_OK;
}

static enum bk_code
sign_ecdsa(struct p11_key *key, struct sign_args *a, struct bk_err *err)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_ECDSA};
    size_t half = key->base.pub.type == BK_KEY_P384 ? 48 : 32;
    uint8_t raw[96];
    enum bk_code rc = sign_call(key, &mechanism, a->digest, raw, 2 * half, err);

    return rc != BK_OK ? rc : ecdsa_to_der(raw, half, a, err);
}

static enum bk_code
sign_pss(struct p11_key *key, struct sign_args *a, struct bk_err *err)
{
    CK_RSA_PKCS_PSS_PARAMS pss = {.hashAlg = CKM_SHA256, .mgf = CKG_MGF1_SHA256, .sLen = 32};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_PSS, &pss, sizeof pss};

    a->len = (key->base.pub.bits + 7) / 8;
    return sign_call(key, &mechanism, a->digest, a->sig, a->len, err);
}

/* A faulty signature can betray an RSA or ECDSA key, and would be found only at restore: it does not leave here. */
static enum bk_code
step(struct p11_key *key, void *args, struct bk_err *err)
{
    struct sign_args *a = args;
    enum bk_code rc = a->alg == BK_SIG_ECDSA_SHA256 ? sign_ecdsa(key, a, err) : sign_pss(key, a, err);

    if (rc != BK_OK)
        return rc;
    rc = bk_public_verify(&key->base.pub, a->alg, a->digest, a->sig, a->len, err);
    if (rc == BK_E_VERIFY)
        rc = bk_fail(err, BK_E_TOKEN, "%s: the signature that the token made does not hold under the key's public half",
                     key->token->where);
    return rc;
}

enum bk_code
p11_sign(struct bk_key *base, const uint8_t digest[32], enum bk_sig_alg alg, uint8_t *sig, size_t *sig_len,
         struct bk_err *err)
{
    struct sign_args args = {.digest = digest, .alg = alg};
    enum bk_code rc;

    if (alg == BK_SIG_NONE || alg != bk_sig_alg_for(base->pub.type))
        return bk_fail(err, BK_E_UNSUPPORTED, "sign: not the algorithm for a key of type %s",
                       bk_key_type_name(base->pub.type));
    if ((rc = p11_key_run(p11_key_of(base), step, &args, err)) != BK_OK)
        return rc;
    if (args.len > *sig_len)
        return bk_fail(err, BK_E_INTERNAL, "sign: room for %zu bytes, %zu are needed", *sig_len, args.len);
    memcpy(sig, args.sig, args.len);
    *sig_len = args.len;
    return BK_OK;
}
