#include "tests/support/fake_key.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/keywrap.h"

#define FAKE_ID_LEN 16

struct fake_key {
    struct bk_key base; /* first, so that a struct bk_key * is one of these */
    EVP_PKEY *pkey;
    struct bk_secret aes;
    unsigned operations;
    unsigned fail_in; /* 0: never */
    enum bk_code fail_code;
    int no_blind;
};

static struct fake_key *
fake_of(struct bk_key *key)
{
    return (struct fake_key *)key;
}

/* Counts one operation, and fails it if it is the one that the test asked for. */
static enum bk_code
begin(struct fake_key *k, const char *what, struct bk_err *err)
{
    k->operations++;
    if (k->fail_in == 0 || --k->fail_in > 0)
        return BK_OK;
    return bk_fail(err, k->fail_code, "fake key: %s fails as the test asked", what);
}

static enum bk_code
aes_wrap(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    struct fake_key *k = fake_of(key);
    struct bk_wrapped w = {.scheme = BK_SCHEME_AES_KW, .id = key->pub.id, .len = BK_AESKW_LEN};
    enum bk_code rc;

    if ((rc = begin(k, "wrap", err)) != BK_OK)
        return rc;
    if ((rc = bk_aeskw_wrap(&k->aes, cek, w.data, err)) == BK_OK)
        *out = w;
    return rc;
}

static enum bk_code
aes_open(struct fake_key *k, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    if (in->scheme != BK_SCHEME_AES_KW || in->len != BK_AESKW_LEN)
        return bk_fail(err, BK_E_UNSUPPORTED, "fake key: an AES key opens only %d bytes of aes-kw", BK_AESKW_LEN);
    return bk_aeskw_unwrap(&k->aes, in->data, cek, err);
}

static enum bk_code
aes_unwrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    enum bk_code rc = begin(fake_of(key), "unwrap", err);

    return rc == BK_OK ? aes_open(fake_of(key), in, cek, err) : rc;
}

static enum bk_code
aes_rewrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_key *to, struct bk_wrapped *out,
           struct bk_err *err)
{
    struct bk_wrapped w = {.scheme = BK_SCHEME_AES_KW, .id = to->pub.id, .len = BK_AESKW_LEN};
    struct bk_secret cek = {0};
    struct bk_secret again = {0};
    enum bk_code rc;

    /* only a key with this very function is a fake AES key too */
    if (fake_of(key)->no_blind || to->ops->rewrap != aes_rewrap || fake_of(to)->no_blind)
        return bk_fail(err, BK_E_UNSUPPORTED, "fake key: this pair of keys cannot rewrap blind");
    if ((rc = begin(fake_of(key), "rewrap", err)) != BK_OK)
        goto done;
    if ((rc = aes_open(fake_of(key), in, &cek, err)) != BK_OK)
        goto done;
    if ((rc = bk_aeskw_wrap(&fake_of(to)->aes, &cek, w.data, err)) != BK_OK)
        goto done;
    if ((rc = aes_open(fake_of(to), &w, &again, err)) != BK_OK)
        goto done;
    if (!bk_secret_equal(&cek, &again))
        rc = bk_fail(err, BK_E_INTERNAL, "fake key: the new wrap opens to another key");
    else
        *out = w;
done:
    bk_secret_wipe(&cek);
    bk_secret_wipe(&again);
    return rc;
}

/* RSAES-OAEP with the hash of the scheme for both digest and MGF1, and an empty label. */
static enum bk_code
rsa_open(struct fake_key *k, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    const EVP_MD *md = in->scheme == BK_SCHEME_RSA_OAEP_SHA1 ? EVP_sha1() : EVP_sha256();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(k->pkey, NULL);
    uint8_t plain[BK_WRAPPED_MAX];
    size_t len = sizeof plain;
    enum bk_code rc;

    if (ctx == NULL || EVP_PKEY_decrypt_init(ctx) != 1 ||
        EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) != 1 || EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md) != 1 ||
        EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) != 1)
        rc = bk_fail(err, BK_E_INTERNAL, "fake key: cannot set up OAEP");
    else if (EVP_PKEY_decrypt(ctx, plain, &len, in->data, in->len) != 1 || len != BK_CEK_LEN)
        rc = bk_fail(err, BK_E_VERIFY, "fake key: the wrapped key does not open");
    else
        rc = bk_secret_from(cek, plain, len, err);
    OPENSSL_cleanse(plain, sizeof plain);
    EVP_PKEY_CTX_free(ctx);
    return rc;
}

/* The originator's point as a key on this key's curve, or NULL. */
static EVP_PKEY *
peer_of(const struct fake_key *k, const struct bk_wrapped *in)
{
    EVP_PKEY *peer = EVP_PKEY_new();

    if (peer == NULL || EVP_PKEY_copy_parameters(peer, k->pkey) != 1 ||
        EVP_PKEY_set1_encoded_public_key(peer, in->ephemeral, in->ephemeral_len) != 1) {
        EVP_PKEY_free(peer);
        return NULL;
    }
    return peer;
}

static enum bk_code
ec_open(struct fake_key *k, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    size_t len = k->base.pub.type == BK_KEY_P256 ? 32 : 48;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(k->pkey, NULL);
    EVP_PKEY *peer = peer_of(k, in);
    struct bk_secret shared = {0};
    enum bk_code rc;

    if (peer == NULL) {
        rc = bk_fail(err, BK_E_VERIFY, "fake key: the originator's point is not on the curve");
        goto done;
    }
    if ((rc = bk_secret_alloc(&shared, len, err)) != BK_OK)
        goto done;
    if (ctx == NULL || EVP_PKEY_derive_init(ctx) != 1 || EVP_PKEY_derive_set_peer(ctx, peer) != 1 ||
        EVP_PKEY_derive(ctx, shared.data, &len) != 1 || len != shared.len) {
        rc = bk_fail(err, BK_E_INTERNAL, "fake key: cannot derive the shared secret");
        goto done;
    }
    rc = bk_ecdh_finish(in->scheme, &shared, in, cek, err);
done:
    bk_secret_wipe(&shared);
    EVP_PKEY_free(peer);
    EVP_PKEY_CTX_free(ctx);
    return rc;
}

static enum bk_code
pair_unwrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    struct fake_key *k = fake_of(key);
    enum bk_key_type type = key->pub.type;
    enum bk_code rc;

    if ((rc = begin(k, "unwrap", err)) != BK_OK)
        return rc;
    if (type == BK_KEY_RSA && (in->scheme == BK_SCHEME_RSA_OAEP_SHA256 || in->scheme == BK_SCHEME_RSA_OAEP_SHA1))
        return rsa_open(k, in, cek, err);
    if ((type == BK_KEY_P256 && in->scheme == BK_SCHEME_ECDH_P256) ||
        (type == BK_KEY_P384 && in->scheme == BK_SCHEME_ECDH_P384))
        return ec_open(k, in, cek, err);
    return bk_fail(err, BK_E_UNSUPPORTED, "fake key: a %s key does not open %s", bk_key_type_name(type),
                   bk_scheme_name(in->scheme));
}

static int
set_pss(EVP_PKEY_CTX *ctx)
{
    return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, 32) == 1 && EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha256()) == 1;
}

static enum bk_code
pair_sign(struct bk_key *key, const uint8_t digest[32], enum bk_sig_alg alg, uint8_t *sig, size_t *sig_len,
          struct bk_err *err)
{
    struct fake_key *k = fake_of(key);
    EVP_PKEY_CTX *ctx = NULL;
    enum bk_code rc;

    if ((rc = begin(k, "sign", err)) != BK_OK)
        return rc;
    if (alg != bk_sig_alg_for(key->pub.type))
        return bk_fail(err, BK_E_UNSUPPORTED, "fake key: this key does not make that kind of signature");
    ctx = EVP_PKEY_CTX_new(k->pkey, NULL);
    if (ctx == NULL || EVP_PKEY_sign_init(ctx) != 1 || EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) != 1 ||
        (alg == BK_SIG_RSA_PSS_SHA256 && !set_pss(ctx)) || EVP_PKEY_sign(ctx, sig, sig_len, digest, 32) != 1)
        rc = bk_fail(err, BK_E_TOKEN, "fake key: cannot sign");
    EVP_PKEY_CTX_free(ctx);
    return rc;
}

static void
release(struct bk_key *key)
{
    struct fake_key *k = fake_of(key);

    EVP_PKEY_free(k->pkey);
    bk_secret_wipe(&k->aes);
    bk_public_free(&k->base.pub);
    free(k);
}

static const struct bk_key_ops aes_ops = {
    .wrap = aes_wrap, .unwrap = aes_unwrap, .rewrap = aes_rewrap, .close = release};
static const struct bk_key_ops pair_kek_ops = {.unwrap = pair_unwrap, .close = release};
static const struct bk_key_ops pair_sign_ops = {.sign = pair_sign, .close = release};

static enum bk_code
make_aes(struct fake_key *k, struct bk_err *err)
{
    struct bk_public *pub = &k->base.pub;

    pub->type = BK_KEY_AES256;
    pub->bits = 256;
    pub->scheme = BK_SCHEME_AES_KW;
    pub->id.len = FAKE_ID_LEN;
    if (RAND_bytes(pub->id.bytes, FAKE_ID_LEN) != 1)
        return bk_fail(err, BK_E_INTERNAL, "fake key: no random bytes");
    return bk_secret_random(&k->aes, 32, err);
}

static enum bk_code
publish_pair(struct fake_key *k, struct bk_err *err)
{
    uint8_t *spki = NULL;
    int len = 0;
    enum bk_code rc;

    if (k->pkey != NULL)
        len = i2d_PUBKEY(k->pkey, &spki);
    if (len > 0)
        rc = bk_public_from_spki(&k->base.pub, spki, (size_t)len, err);
    else
        rc = bk_fail(err, BK_E_INTERNAL, "fake key: cannot make a key pair");
    OPENSSL_free(spki);
    return rc;
}

static enum bk_code
make_pair(struct fake_key *k, enum bk_key_type type, struct bk_err *err)
{
    k->pkey = type == BK_KEY_RSA ? EVP_RSA_gen(3072) : EVP_EC_gen(type == BK_KEY_P256 ? "P-256" : "P-384");
    return publish_pair(k, err);
}

/* "pkcs11:token=fake;object=KEYID", so that records have hints to carry. */
static enum bk_code
name_key(struct fake_key *k, struct bk_err *err)
{
    char text[BK_KEY_ID_TEXT];

    if (asprintf(&k->base.pub.uri, "pkcs11:token=fake;object=%s", bk_key_id_text(&k->base.pub.id, text)) >= 0)
        return BK_OK;
    k->base.pub.uri = NULL;
    return bk_fail_nomem(err);
}

enum bk_code
fake_key_new(enum bk_key_type type, int signing, struct bk_key **out, struct bk_err *err)
{
    struct fake_key *k = calloc(1, sizeof *k);
    enum bk_code rc;

    if (k == NULL)
        return bk_fail_nomem(err);
    if (type == BK_KEY_AES256 && !signing)
        rc = make_aes(k, err);
    else if (type == BK_KEY_RSA || type == BK_KEY_P256 || type == BK_KEY_P384)
        rc = make_pair(k, type, err);
    else
        rc = bk_fail(err, BK_E_UNSUPPORTED, "fake key: no such kind of key");
    if (rc == BK_OK)
        rc = name_key(k, err);
    if (rc != BK_OK) {
        release(&k->base);
        return rc;
    }
    if (signing)
        k->base.pub.scheme = BK_SCHEME_NONE;
    k->base.ops = type == BK_KEY_AES256 ? &aes_ops : signing ? &pair_sign_ops : &pair_kek_ops;
    *out = &k->base;
    return BK_OK;
}

static enum bk_code
finish_kek(struct fake_key *k, enum bk_code rc, struct bk_key **out, struct bk_err *err)
{
    if (rc == BK_OK)
        rc = name_key(k, err);
    if (rc != BK_OK) {
        release(&k->base);
        return rc;
    }
    k->base.ops = k->base.pub.type == BK_KEY_AES256 ? &aes_ops : &pair_kek_ops;
    *out = &k->base;
    return BK_OK;
}

enum bk_code
fake_key_load(const char *path, struct bk_key **out, struct bk_err *err)
{
    struct fake_key *k = calloc(1, sizeof *k);
    FILE *f = fopen(path, "re");
    enum bk_code rc;

    if (f == NULL || k == NULL) {
        rc = bk_fail_errno(err, errno, "%s", path);
        goto done;
    }
    k->pkey = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    rc = finish_kek(k, publish_pair(k, err), out, err);
    k = NULL;
done:
    if (f != NULL)
        (void)fclose(f);
    free(k);
    return rc;
}

enum bk_code
fake_key_from_aes(const uint8_t key[32], const struct bk_key_id *id, struct bk_key **out, struct bk_err *err)
{
    struct fake_key *k = calloc(1, sizeof *k);

    if (k == NULL)
        return bk_fail_nomem(err);
    k->base.pub = (struct bk_public){.type = BK_KEY_AES256, .bits = 256, .scheme = BK_SCHEME_AES_KW, .id = *id};
    return finish_kek(k, bk_secret_from(&k->aes, key, 32, err), out, err);
}

void
fake_key_fail_at(struct bk_key *key, unsigned nth, enum bk_code code)
{
    struct fake_key *k = fake_of(key);

    k->fail_in = nth;
    k->fail_code = code;
}

unsigned
fake_key_operations(const struct bk_key *key)
{
    return ((const struct fake_key *)key)->operations;
}

void
fake_key_forbid_blind(struct bk_key *key)
{
    fake_of(key)->no_blind = 1;
}
