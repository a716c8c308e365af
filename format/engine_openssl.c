/* The engine that is always there: AES-256-GCM of OpenSSL's EVP, and its SHA-256, a frame at a time. */
#include "format/engine.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/sha256_x4.h"
#include "format/tree.h"

struct state {
    EVP_CIPHER *gcm;
    EVP_CIPHER_CTX *ctx;
};

static enum bk_engine_fit
fit(void)
{
    return BK_ENGINE_FAST;
}

static void
state_free(void *state)
{
    struct state *s = state;

    if (s == NULL)
        return;
    EVP_CIPHER_CTX_free(s->ctx);
    EVP_CIPHER_free(s->gcm);
    free(s);
}

static enum bk_code
state_make(void **state, struct bk_err *err)
{
    struct state *s = calloc(1, sizeof *s);

    if (s == NULL)
        return bk_fail_nomem(err);
    s->gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    s->ctx = EVP_CIPHER_CTX_new();
    if (s->gcm == NULL || s->ctx == NULL) {
        state_free(s);
        return bk_crypto_end(bk_fail(err, BK_E_INTERNAL, "AES-256-GCM is not available"), err);
    }
    *state = s;
    return BK_OK;
}

static enum bk_code
set_key(void *state, const uint8_t key[BK_PAYLOAD_KEY_LEN], int sealing, struct bk_err *err)
{
    struct state *s = state;

    if (EVP_CipherInit_ex2(s->ctx, s->gcm, key, NULL, sealing, NULL) != 1)
        return bk_crypto_end(bk_fail(err, BK_E_INTERNAL, "AES-256-GCM refused its key"), err);
    return BK_OK;
}

static int
frame_seal(void *state, const uint8_t nonce[BK_NONCE_LEN], const uint8_t *plain, size_t len, uint8_t *frame)
{
    EVP_CIPHER_CTX *ctx = ((struct state *)state)->ctx;
    uint8_t none[BK_FRAME_TAG];
    uint8_t *tag = frame + BK_FRAME_WORD + len;
    int n = 0;

    if (EVP_EncryptInit_ex2(ctx, NULL, NULL, nonce, NULL) != 1 ||
        EVP_EncryptUpdate(ctx, NULL, &n, frame, BK_FRAME_WORD) != 1)
        return 0;
    if (len > 0 && (EVP_EncryptUpdate(ctx, frame + BK_FRAME_WORD, &n, plain, (int)len) != 1 || (size_t)n != len))
        return 0;
    return EVP_EncryptFinal_ex(ctx, none, &n) == 1 && n == 0 &&
           EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, BK_FRAME_TAG, tag) == 1;
}

static int
frame_open(void *state, const uint8_t nonce[BK_NONCE_LEN], const uint8_t *frame, size_t len, uint8_t *plain)
{
    EVP_CIPHER_CTX *ctx = ((struct state *)state)->ctx;
    uint8_t none[BK_FRAME_TAG];
    uint8_t tag[BK_FRAME_TAG];
    int n = 0;

    memcpy(tag, frame + BK_FRAME_WORD + len, sizeof tag);
    if (EVP_DecryptInit_ex2(ctx, NULL, NULL, nonce, NULL) != 1 ||
        EVP_DecryptUpdate(ctx, NULL, &n, frame, BK_FRAME_WORD) != 1)
        return 0;
    if (len > 0 && (EVP_DecryptUpdate(ctx, plain, &n, frame + BK_FRAME_WORD, (int)len) != 1 || (size_t)n != len))
        return 0;
    return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, BK_FRAME_TAG, tag) == 1 &&
           EVP_DecryptFinal_ex(ctx, none, &n) == 1 && n == 0;
}

static void
hash(void *state, const uint8_t *frames, size_t full, size_t n, size_t final, uint8_t (*leaves)[BK_SHA256_LEN])
{
    (void)state;
    bk_tree_leaves(frames, full, n, final, leaves);
}

const struct bk_engine bk_engine_openssl = {
    .name = "openssl",
    .batch = BK_SHA256_X4,
    .fit = fit,
    .make = state_make,
    .free = state_free,
    .set_key = set_key,
    .seal = frame_seal,
    .open = frame_open,
    .hash = hash,
};
