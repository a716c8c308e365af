/* What a token can do, found out by doing it: mechanism lists are wrong in both directions. */
#include <stdio.h>
#include <string.h>

#include <openssl/rand.h>

#include "base/hash.h"
#include "base/keywrap.h"
#include "pkcs11/facts.h"
#include "pkcs11/generate.h"

/* Labels of keys for a trial: nobody else's, and told apart from real ones if they have to be looked for. */
#define LABEL_PREFIX "bk-probe-"

struct probe {
    struct p11_token *token;
    int lasting;
    int binding; /* keys are made with a CKA_UNWRAP_TEMPLATE */
};

static enum bk_code
make(const struct probe *pr, const struct p11_probe_item *item, struct bk_key **out, struct bk_err *err)
{
    const struct p11_generate what = {
        .kind = item->kind, .signing = item->signing, .passing = !pr->lasting, .binding = pr->binding};
    int encrypts = item->kind == P11_AES256 && item->scheme == BK_SCHEME_AES_GCM;
    char label[sizeof LABEL_PREFIX + 16] = LABEL_PREFIX;
    uint8_t random[8];
    struct p11_key *key = NULL;
    CK_ATTRIBUTE attribute = {CKA_LABEL, label, sizeof label - 1};
    enum bk_code rc;

    if (RAND_bytes(random, sizeof random) != 1)
        return bk_fail(err, BK_E_INTERNAL, "the random number generator failed");
    (void)bk_hex(random, sizeof random, label + sizeof LABEL_PREFIX - 1);
    rc = pr->lasting ? p11_generate_best(pr->token, &attribute, &what, &key, err)
                     : p11_generate_on(pr->token, &attribute, &what, encrypts, &key, err);
    if (rc == BK_OK)
        *out = &key->base;
    return rc;
}

static void
end(const struct probe *pr, struct bk_key *key)
{
    struct bk_err why = {0};

    if (key != NULL && pr->lasting && p11_key_destroy(key, &why) != BK_OK)
        bk_warn(pr->token->owner->options.log, "a key of this trial, %s, is left on the token: %s", key->pub.uri,
                why.message);
    bk_key_close(key);
}

static enum bk_code
wrap_to(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    return key->pub.spki != NULL ? bk_public_wrap(&key->pub, cek, out, err) : bk_key_wrap(key, cek, out, err);
}

/* What was wrapped under one key, exchanged blindly, and opened under the other. */
static int
exchanges_blindly(const struct probe *pr, const struct p11_probe_item *item, struct bk_key *key,
                  const struct bk_wrapped *wrapped, const struct bk_secret *cek)
{
    struct bk_key *other = NULL;
    struct bk_wrapped moved = {0};
    struct bk_secret opened = {0};
    int blind = make(pr, item, &other, NULL) == BK_OK && bk_key_rewrap(key, wrapped, other, &moved, NULL) == BK_OK &&
                bk_key_unwrap(other, &moved, &opened, NULL) == BK_OK && bk_secret_equal(&opened, cek);

    bk_secret_wipe(&opened);
    end(pr, other);
    return blind;
}

static enum bk_code
use_signing(struct bk_key *key, struct bk_err *err)
{
    const uint8_t digest[BK_SHA256_LEN] = {1};
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;
    enum bk_code rc = bk_key_sign(key, digest, sig, &len, err);

    if (rc == BK_OK)
        rc = bk_public_verify(&key->pub, bk_sig_alg_for(key->pub.type), digest, sig, len, err);
    return rc;
}

static enum bk_code
use_kek(const struct probe *pr, struct bk_key *key, struct p11_probe_item *item, struct bk_err *err)
{
    struct bk_secret cek = {0};
    struct bk_secret opened = {0};
    struct bk_wrapped wrapped = {0};
    enum bk_code rc;

    if ((rc = bk_secret_random(&cek, BK_CEK_LEN, err)) != BK_OK)
        goto done;
    if ((rc = wrap_to(key, &cek, &wrapped, err)) != BK_OK)
        goto done;
    if ((rc = bk_key_unwrap(key, &wrapped, &opened, err)) != BK_OK)
        goto done;
    if (!bk_secret_equal(&opened, &cek)) {
        rc = bk_fail(err, BK_E_TOKEN, "the key opens something else than was wrapped");
        goto done;
    }
    /* a second time, since what is passing is not proven, and one nonce drawn twice shows only then */
    if (key->pub.scheme == BK_SCHEME_AES_GCM && (rc = wrap_to(key, &cek, &wrapped, err)) != BK_OK)
        goto done;
    item->blind = key->pub.scheme == BK_SCHEME_AES_KW && exchanges_blindly(pr, item, key, &wrapped, &cek);
    /* last, since a refusal can cost the session, and with it a passing key; a lasting one could become impossible to
     * remove: tpm2-pkcs11 1.9 keeps a key busy whose decryption failed */
    if (pr->lasting)
        goto done;
    wrapped.data[wrapped.len / 2] ^= 1;
    bk_secret_wipe(&opened);
    item->refuses_damage = bk_key_unwrap(key, &wrapped, &opened, NULL) != BK_OK;
done:
    bk_secret_wipe(&opened);
    bk_secret_wipe(&cek);
    return rc;
}

/* With a key of its own, since a refusal can cost a passing one. scheme NONE: the one that the key was made with. */
static enum bk_code
try_scheme(const struct probe *pr, struct p11_probe_item *item, enum bk_scheme scheme, struct bk_err *why)
{
    struct bk_key *key = NULL;
    enum bk_code rc = make(pr, item, &key, why);

    if (rc == BK_OK && scheme != BK_SCHEME_NONE)
        key->pub.scheme = scheme;
    if (rc == BK_OK)
        rc = item->signing ? use_signing(key, why) : use_kek(pr, key, item, why);
    if (rc == BK_OK && !item->signing)
        item->scheme = key->pub.scheme;
    end(pr, key);
    return rc;
}

/* After SHA-256 failed: SHA-1 counts if it works and SHA-256, tried once more, does not; else why that does not is
 * told. */
static enum bk_code
try_sha1(const struct probe *pr, struct p11_probe_item *item, struct bk_err *why)
{
    struct p11_probe_item weak = *item;
    enum bk_code rc = try_scheme(pr, &weak, BK_SCHEME_RSA_OAEP_SHA1, NULL);

    if (try_scheme(pr, item, BK_SCHEME_NONE, why) == BK_OK)
        return BK_OK;
    if (rc != BK_OK)
        return why->code;
    *item = weak;
    return BK_OK;
}

/* With a key of its own, since the refusal that is hoped for can cost it. */
static enum bk_code
check_own_nonce(const struct probe *pr, const struct p11_probe_item *item)
{
    struct bk_key *key = NULL;
    enum bk_code rc = make(pr, item, &key, NULL);

    if (rc == BK_OK)
        rc = p11_gcm_check_own_nonce(p11_key_of(key), NULL);
    end(pr, key);
    return rc;
}

/* After AES key wrap failed: AES-GCM counts if it works, with nonces that differ, and key wrap, tried once more, does
 * not. */
static enum bk_code
try_gcm(const struct probe *pr, struct p11_probe_item *item, struct bk_err *why)
{
    struct p11_probe_item other = *item;
    enum bk_code rc;

    other.scheme = BK_SCHEME_AES_GCM;
    rc = try_scheme(pr, &other, BK_SCHEME_AES_GCM, NULL);
    if (rc == BK_OK)
        rc = check_own_nonce(pr, &other);
    if (try_scheme(pr, item, BK_SCHEME_NONE, why) == BK_OK)
        return BK_OK;
    if (rc != BK_OK)
        return why->code;
    *item = other;
    return BK_OK;
}

/* What was wrapped under a fresh KEK; then that the KEK is gone with its session. */
static void
find_unwrapping(const struct probe *pr, struct p11_probe_item *item)
{
    struct bk_key *key = NULL;
    struct bk_secret cek = {0};
    struct bk_wrapped w = {0};
    struct p11_traits traits = {0};

    if (make(pr, item, &key, NULL) != BK_OK)
        return;
    traits = p11_key_of(key)->traits;
    if (bk_secret_random(&cek, BK_CEK_LEN, NULL) == BK_OK && bk_key_wrap(key, &cek, &w, NULL) == BK_OK)
        p11_facts_of_unwrapping(p11_key_of(key), &w, item->facts);
    bk_secret_wipe(&cek);
    end(pr, key);
    if (!pr->lasting)
        p11_facts_of_leaving(pr->token, &traits, item->facts);
}

static void
find_binding(const struct probe *pr, struct p11_probe_item *item)
{
    const struct probe with_template = {.token = pr->token, .binding = 1};
    struct bk_key *key = NULL;
    enum bk_code rc = make(&with_template, item, &key, NULL);

    if (rc == BK_OK)
        p11_facts_of_binding(p11_key_of(key), item->facts);
    else if (rc == BK_E_UNSUPPORTED)
        item->facts[P11_FACT_TEMPLATE_BINDS] = 0;
    end(&with_template, key);
}

static void
find_nonce(const struct probe *pr, struct p11_probe_item *item)
{
    struct p11_probe_item gcm = {.kind = P11_AES256, .scheme = BK_SCHEME_AES_GCM};
    struct bk_key *key = NULL;

    if (make(pr, &gcm, &key, NULL) == BK_OK)
        item->facts[P11_FACT_DRAWS_NONCE] = p11_gcm_draws_nonce(p11_key_of(key));
    end(pr, key);
}

/* Beside what bk needs to know: each with a key of its own, since a refusal can cost the session. */
static void
find_facts(const struct probe *pr, struct p11_probe_item *item)
{
    if (item->kind != P11_AES256)
        return;
    if (item->works && item->scheme == BK_SCHEME_AES_KW) {
        find_unwrapping(pr, item);
        if (!pr->lasting)
            find_binding(pr, item);
    }
    if (!pr->lasting)
        find_nonce(pr, item);
}

/* The token itself must be there; what it will not do with a kind of key is the answer and no error. */
static enum bk_code
try_kind(const struct probe *pr, struct p11_probe_item *item, struct bk_err *why)
{
    enum bk_code rc = try_scheme(pr, item, BK_SCHEME_NONE, why);

    /* a lasting key was proven when it was made, by the same rule */
    if (rc != BK_OK && rc != BK_E_PIN && item->kind == P11_RSA3072 && !item->signing && !pr->lasting)
        rc = try_sha1(pr, item, why);
    else if (rc != BK_OK && rc != BK_E_PIN && item->kind == P11_AES256 && !pr->lasting)
        rc = try_gcm(pr, item, why);
    item->works = rc == BK_OK;
    item->why = rc == BK_OK ? NULL : why->message;
    return rc == BK_E_PIN || rc == BK_E_CANCELLED || rc == BK_E_NO_ROOM ? rc : BK_OK;
}

static enum bk_code
check_still_there(const struct probe *pr, struct bk_err *err)
{
    struct p11_session s = {0};
    enum bk_code rc = p11_session_open(&s, pr->token, err);

    p11_session_close(&s);
    return rc;
}

enum bk_code
p11_token_probe(struct p11_token *t, const struct p11_uri *uri, int lasting,
                int (*each)(void *ctx, const struct p11_probe_item *item), void *ctx, struct bk_err *err)
{
    static const struct p11_probe_item kinds[] = {
        {.kind = P11_AES256},
        {.kind = P11_P256},
        {.kind = P11_P384},
        {.kind = P11_RSA3072},
        {.kind = P11_P256, .signing = 1},
        {.kind = P11_P384, .signing = 1},
        {.kind = P11_RSA3072, .signing = 1},
    };
    const struct probe pr = {.token = t, .lasting = lasting};
    enum bk_code rc = p11_token_login(t, uri, err);

    for (size_t i = 0; rc == BK_OK && i < sizeof kinds / sizeof kinds[0]; i++) {
        struct p11_probe_item item = kinds[i];
        struct bk_err why = {0};

        item.refuses_damage = -1;
        for (size_t f = 0; f < P11_FACTS; f++)
            item.facts[f] = -1;
        if ((rc = try_kind(&pr, &item, &why)) != BK_OK) {
            if (err != NULL)
                *err = why;
            break;
        }
        find_facts(&pr, &item);
        if ((rc = check_still_there(&pr, err)) == BK_OK && each(ctx, &item) != 0)
            break;
    }
    return rc;
}
