#include "format/payload.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "base/buf.h"
#include "base/hash.h"

#define PRK_LEN   32
#define KEY_LEN   32
#define NONCE_LEN 12

/* HKDF-SHA256, RFC 5869, one of its two halves: exactly as many bytes as out holds. */
static enum bk_code
hkdf(int mode, const struct bk_secret *key, OSSL_PARAM extra, uint8_t *out, size_t out_len, struct bk_err *err)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA256"}, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key->data, key->len),
        extra,
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_HKDF, NULL);
    EVP_KDF_CTX *ctx = kdf == NULL ? NULL : EVP_KDF_CTX_new(kdf);
    int ok = ctx != NULL && EVP_KDF_derive(ctx, out, out_len, params) == 1;

    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return bk_crypto_end(ok ? BK_OK : bk_fail(err, BK_E_INTERNAL, "HKDF-SHA256 failed"), err);
}

/* HKDF-Extract(salt = archiveId, fileKey) */
static enum bk_code
extract(const uint8_t preamble[BK_PREAMBLE_LEN], const struct bk_secret *file_key, struct bk_secret *prk,
        struct bk_err *err)
{
    uint8_t salt[BK_UUID_LEN];
    enum bk_code rc;

    if (file_key->data == NULL || file_key->len != BK_FILE_KEY_LEN)
        return bk_fail(err, BK_E_INTERNAL, "a file key of %zu bytes", file_key->len);
    memcpy(salt, preamble + 20, sizeof salt);
    if ((rc = bk_secret_alloc(prk, PRK_LEN, err)) != BK_OK)
        return rc;
    rc = hkdf(EVP_KDF_HKDF_MODE_EXTRACT_ONLY, file_key,
              OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, sizeof salt), prk->data, prk->len, err);
    if (rc != BK_OK)
        bk_secret_wipe(prk);
    return rc;
}

static enum bk_code
expand(const struct bk_secret *prk, uint8_t *info, size_t info_len, uint8_t *out, size_t out_len, struct bk_err *err)
{
    return hkdf(EVP_KDF_HKDF_MODE_EXPAND_ONLY, prk,
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, info_len), out, out_len, err);
}

enum bk_code
bk_payload_init(struct bk_payload *p, const uint8_t preamble[BK_PREAMBLE_LEN], const struct bk_secret *file_key,
                const uint8_t envelope_digest[32], struct bk_err *err)
{
    struct bk_payload made = {.segment_size = bk_get_u32(preamble + 16)};
    enum bk_code rc;

    if (made.segment_size < BK_SEGMENT_SIZE_MIN || made.segment_size > BK_SEGMENT_SIZE_MAX ||
        (made.segment_size & (made.segment_size - 1)) != 0)
        return bk_fail(err, BK_E_INTERNAL, "payload: segment size %u", made.segment_size);
    if ((rc = extract(preamble, file_key, &made.prk, err)) != BK_OK)
        return rc;
    bk_sha256(preamble, BK_PREAMBLE_BOUND, made.binding);
    memcpy(made.binding + BK_SHA256_LEN, envelope_digest, BK_SHA256_LEN);
    *p = made;
    return BK_OK;
}

void
bk_payload_wipe(struct bk_payload *p)
{
    bk_secret_wipe(&p->prk);
    OPENSSL_cleanse(p, sizeof *p);
}

enum bk_code
bk_key_commit(const uint8_t preamble[BK_PREAMBLE_LEN], const struct bk_secret *file_key, uint8_t out[32],
              struct bk_err *err)
{
    /* "bk1 commit" || 00 || SHA-256(preamble bytes 0 to 35) */
    uint8_t info[11 + BK_SHA256_LEN] = "bk1 commit";
    struct bk_secret prk = {0};
    enum bk_code rc = extract(preamble, file_key, &prk, err);

    bk_sha256(preamble, BK_PREAMBLE_BOUND, info + 11);
    if (rc == BK_OK)
        rc = expand(&prk, info, sizeof info, out, 32, err);
    bk_secret_wipe(&prk);
    return rc;
}

enum bk_code
bk_key_commit_check(const uint8_t preamble[BK_PREAMBLE_LEN], const struct bk_secret *file_key, struct bk_err *err)
{
    uint8_t commit[32];
    enum bk_code rc = bk_key_commit(preamble, file_key, commit, err);

    if (rc == BK_OK && CRYPTO_memcmp(commit, preamble + BK_PREAMBLE_BOUND, sizeof commit) != 0) {
        rc = bk_fail(err, BK_E_VERIFY, "the file key is not the one that the preamble commits to");
        bk_err_layer(err, "key commitment");
    }
    return rc;
}

/* What bk_cipher.impl points to. */
struct cipher {
    EVP_CIPHER *gcm;
    EVP_CIPHER_CTX *ctx;
    uint8_t
        binding[64]; /* of the payload that the key belongs to: a cipher handed on is never used under its old key */
};

void
bk_cipher_free(struct bk_cipher *c)
{
    struct cipher *s = c->impl;

    if (s != NULL) {
        EVP_CIPHER_CTX_free(s->ctx);
        EVP_CIPHER_free(s->gcm);
        free(s);
    }
    *c = (struct bk_cipher){0};
}

static enum bk_code
cipher_make(struct bk_cipher *c, struct bk_err *err)
{
    struct cipher *s = calloc(1, sizeof *s);

    if (s == NULL)
        return bk_fail_nomem(err);
    *c = (struct bk_cipher){.impl = s};
    s->gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    s->ctx = EVP_CIPHER_CTX_new();
    if (s->gcm == NULL || s->ctx == NULL) {
        bk_cipher_free(c);
        return bk_crypto_end(bk_fail(err, BK_E_INTERNAL, "AES-256-GCM is not available"), err);
    }
    return BK_OK;
}

/* The payload key of an epoch into the context: HKDF-Expand(PRK, "bk1 payload" || 00 || binding || u32 epoch, 32). */
static enum bk_code
cipher_set_key(const struct bk_payload *p, struct bk_cipher *c, uint64_t epoch, int sealing, struct bk_err *err)
{
    struct cipher *s = c->impl;
    uint8_t info[12 + 64 + 4] = "bk1 payload";
    struct bk_secret key = {0};
    enum bk_code rc;

    c->keyed = 0;
    memcpy(info + 12, p->binding, sizeof p->binding);
    bk_put_u32(info + 12 + 64, (uint32_t)epoch);
    if ((rc = bk_secret_alloc(&key, KEY_LEN, err)) != BK_OK)
        goto done;
    if ((rc = expand(&p->prk, info, sizeof info, key.data, key.len, err)) != BK_OK)
        goto done;
    if (EVP_CipherInit_ex2(s->ctx, s->gcm, key.data, NULL, sealing, NULL) != 1) {
        rc = bk_crypto_end(bk_fail(err, BK_E_INTERNAL, "AES-256-GCM refused its key"), err);
        goto done;
    }
    memcpy(s->binding, p->binding, sizeof s->binding);
    c->epoch = epoch;
    c->sealing = sealing;
    c->keyed = 1;
done:
    bk_secret_wipe(&key);
    return rc;
}

/* Makes c ready for the group that begins at segment first. An epoch is a whole number of groups. */
static enum bk_code
cipher_ready(const struct bk_payload *p, struct bk_cipher *c, uint64_t first, int sealing, struct bk_err *err)
{
    uint64_t epoch = first * p->segment_size >> BK_EPOCH_SHIFT;
    struct cipher *s;
    enum bk_code rc;

    if (c->impl == NULL && (rc = cipher_make(c, err)) != BK_OK)
        return rc;
    s = c->impl;
    if (c->keyed && c->epoch == epoch && c->sealing == sealing &&
        memcmp(s->binding, p->binding, sizeof s->binding) == 0)
        return BK_OK;
    return cipher_set_key(p, c, epoch, sealing, err);
}

/* docs/FORMAT.md, Frames: four zero bytes and the segment number. */
static void
frame_nonce(uint64_t segment, uint8_t nonce[NONCE_LEN])
{
    bk_put_u32(nonce, 0);
    bk_put_u64(nonce + 4, segment);
}

/* frame: the word is there; ciphertext and tag are written. 1 on success. */
static int
frame_seal(EVP_CIPHER_CTX *ctx, uint64_t segment, const uint8_t *plain, size_t len, uint8_t *frame)
{
    uint8_t nonce[NONCE_LEN];
    uint8_t none[BK_FRAME_TAG];
    uint8_t *tag = frame + BK_FRAME_WORD + len;
    int n = 0;

    frame_nonce(segment, nonce);
    if (EVP_EncryptInit_ex2(ctx, NULL, NULL, nonce, NULL) != 1 ||
        EVP_EncryptUpdate(ctx, NULL, &n, frame, BK_FRAME_WORD) != 1)
        return 0;
    if (len > 0 && (EVP_EncryptUpdate(ctx, frame + BK_FRAME_WORD, &n, plain, (int)len) != 1 || (size_t)n != len))
        return 0;
    return EVP_EncryptFinal_ex(ctx, none, &n) == 1 && n == 0 &&
           EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, BK_FRAME_TAG, tag) == 1;
}

/* 1 if the tag holds; plain is written in either case. */
static int
frame_open(EVP_CIPHER_CTX *ctx, uint64_t segment, const uint8_t *frame, size_t len, uint8_t *plain)
{
    uint8_t nonce[NONCE_LEN];
    uint8_t none[BK_FRAME_TAG];
    uint8_t tag[BK_FRAME_TAG];
    int n = 0;

    frame_nonce(segment, nonce);
    memcpy(tag, frame + BK_FRAME_WORD + len, sizeof tag);
    if (EVP_DecryptInit_ex2(ctx, NULL, NULL, nonce, NULL) != 1 ||
        EVP_DecryptUpdate(ctx, NULL, &n, frame, BK_FRAME_WORD) != 1)
        return 0;
    if (len > 0 && (EVP_DecryptUpdate(ctx, plain, &n, frame + BK_FRAME_WORD, (int)len) != 1 || (size_t)n != len))
        return 0;
    return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, BK_FRAME_TAG, tag) == 1 &&
           EVP_DecryptFinal_ex(ctx, none, &n) == 1 && n == 0;
}

/* The shape of a group: how many segments, and the plaintext length of the final one. */
struct group {
    uint64_t first;
    uint32_t segment_size;
    int last;
    size_t count;
    size_t final_len;
};

static uint32_t
group_word(const struct group *g, size_t i)
{
    if (i + 1 < g->count)
        return g->segment_size;
    return (uint32_t)g->final_len | (g->last ? BK_WORD_LAST : 0);
}

static size_t
group_len(const struct group *g, size_t i)
{
    return i + 1 < g->count ? g->segment_size : g->final_len;
}

static size_t
frame_at(const struct group *g, size_t i)
{
    return i * ((size_t)g->segment_size + BK_FRAME_OVERHEAD);
}

uint64_t
bk_frames_length(uint32_t segment_size, uint64_t plain_len)
{
    uint64_t segments = plain_len / segment_size + (plain_len % segment_size > 0);

    return plain_len + (segments > 0 ? segments : 1) * BK_FRAME_OVERHEAD;
}

/* The group that plain_len bytes make, if any. */
static enum bk_code
group_to_seal(uint32_t segment_size, uint64_t first, int last, size_t plain_len, struct group *g, struct bk_err *err)
{
    size_t whole = (size_t)segment_size * BK_GROUP_SEGMENTS;

    *g = (struct group){.first = first, .segment_size = segment_size, .last = last};
    g->count = plain_len / segment_size + (plain_len % segment_size > 0);
    if (g->count == 0)
        g->count = 1;
    g->final_len = plain_len - (g->count - 1) * segment_size;
    if (first % BK_GROUP_SEGMENTS != 0 || plain_len > whole || (!last && plain_len != whole) ||
        (plain_len == 0 && first > 0))
        return bk_fail(err, BK_E_INTERNAL, "segment %llu: %zu bytes do not make a group", (unsigned long long)first,
                       plain_len);
    if (first > BK_SEGMENTS_MAX || g->count > BK_SEGMENTS_MAX - first) {
        enum bk_code rc =
            bk_fail(err, BK_E_NO_ROOM, "an archive holds at most 2^32 segments of %u bytes", segment_size);
        bk_err_hint(err, "divide the backup, or use larger segments");
        return rc;
    }
    return BK_OK;
}

enum bk_code
bk_group_seal(const struct bk_payload *p, struct bk_cipher *c, uint64_t first, int last, const uint8_t *plain,
              size_t plain_len, uint8_t *frames, size_t *frames_len, uint8_t root[32], struct bk_err *err)
{
    uint8_t leaves[BK_GROUP_SEGMENTS][BK_SHA256_LEN];
    struct group g;
    struct cipher *s;
    enum bk_code rc;

    if ((rc = group_to_seal(p->segment_size, first, last, plain_len, &g, err)) != BK_OK)
        return rc;
    if ((rc = cipher_ready(p, c, first, 1, err)) != BK_OK)
        return rc;
    s = c->impl;
    for (size_t i = 0; i < g.count; i++) {
        uint8_t *frame = frames + frame_at(&g, i);
        size_t len = group_len(&g, i);

        bk_put_u32(frame, group_word(&g, i));
        if (!frame_seal(s->ctx, first + i, plain + i * p->segment_size, len, frame)) {
            c->keyed = 0;
            enum bk_code failed =
                bk_fail(err, BK_E_INTERNAL, "segment %llu: AES-256-GCM failed", (unsigned long long)(first + i));
            return bk_crypto_end(failed, err);
        }
        /* hashed now, while the frame is in the cache */
        bk_tree_leaf(frame, len + BK_FRAME_OVERHEAD, leaves[i]);
    }
    bk_tree_root(leaves[0], g.count, root);
    *frames_len = frame_at(&g, g.count - 1) + g.final_len + BK_FRAME_OVERHEAD;
    return BK_OK;
}

static enum bk_code
bad_group(struct bk_err *err, uint64_t segment, const char *what)
{
    enum bk_code rc = bk_fail(err, BK_E_FORMAT, "segment %llu: %s", (unsigned long long)segment, what);

    bk_err_layer(err, "frames");
    return rc;
}

/* The group that frames_len bytes make, if any; the words are not looked at. */
static enum bk_code
group_to_open(uint32_t segment_size, uint64_t first, int last, size_t frames_len, struct group *g, struct bk_err *err)
{
    size_t full = (size_t)segment_size + BK_FRAME_OVERHEAD;
    size_t rest = frames_len % full;

    *g = (struct group){.first = first, .segment_size = segment_size, .last = last};
    g->count = frames_len / full + (rest > 0);
    if (first % BK_GROUP_SEGMENTS != 0)
        return bk_fail(err, BK_E_INTERNAL, "segment %llu: not the first of a group", (unsigned long long)first);
    if (g->count == 0 || g->count > BK_GROUP_SEGMENTS || (!last && frames_len != BK_GROUP_SEGMENTS * full))
        return bad_group(err, first, "the group that begins here is cut short or too long");
    if (first > BK_SEGMENTS_MAX || g->count > BK_SEGMENTS_MAX - first)
        return bad_group(err, first, "more than 2^32 segments");
    if (rest > 0 && rest < BK_FRAME_OVERHEAD)
        return bad_group(err, first + g->count - 1, "the frame is cut short");
    if (rest == BK_FRAME_OVERHEAD && first + g->count > 1)
        return bad_group(err, first + g->count - 1, "an empty segment in an archive that is not empty");
    g->final_len = rest > 0 ? rest - BK_FRAME_OVERHEAD : segment_size;
    return BK_OK;
}

/* Every segment full and not last, but the final one of the last group: the one word that each frame can have. */
static enum bk_code
check_words(const struct group *g, const uint8_t *frames, struct bk_err *err)
{
    for (size_t i = 0; i < g->count; i++) {
        uint32_t word = bk_get_u32(frames + frame_at(g, i));
        uint32_t right = group_word(g, i);
        const char *what = "the length is not that of the frame";

        if (word == right)
            continue;
        if ((word ^ right) == BK_WORD_LAST)
            what = word & BK_WORD_LAST ? "marked as the last one, and is not" : "the last one, and not marked so";
        return bad_group(err, g->first + i, what);
    }
    return BK_OK;
}

static enum bk_code
read_group(uint32_t segment_size, uint64_t first, int last, const uint8_t *frames, size_t frames_len, struct group *g,
           struct bk_err *err)
{
    enum bk_code rc = group_to_open(segment_size, first, last, frames_len, g, err);

    return rc == BK_OK ? check_words(g, frames, err) : rc;
}

static void
group_root(const struct group *g, const uint8_t *frames, uint8_t root[32])
{
    uint8_t leaves[BK_GROUP_SEGMENTS][BK_SHA256_LEN];

    for (size_t i = 0; i < g->count; i++)
        bk_tree_leaf(frames + frame_at(g, i), group_len(g, i) + BK_FRAME_OVERHEAD, leaves[i]);
    bk_tree_root(leaves[0], g->count, root);
}

enum bk_code
bk_group_root(uint32_t segment_size, uint64_t first, int last, const uint8_t *frames, size_t frames_len,
              uint8_t root[32], struct bk_err *err)
{
    struct group g;
    enum bk_code rc = read_group(segment_size, first, last, frames, frames_len, &g, err);

    if (rc == BK_OK)
        group_root(&g, frames, root);
    return rc;
}

/* Opens every frame, and hashes it while it is in the cache. */
static enum bk_code
open_frames(const struct bk_payload *p, struct bk_cipher *c, const struct group *g, const uint8_t *frames,
            uint8_t *plain, uint8_t root[32], struct bk_err *err)
{
    uint8_t leaves[BK_GROUP_SEGMENTS][BK_SHA256_LEN];
    struct cipher *s = c->impl;

    for (size_t i = 0; i < g->count; i++) {
        const uint8_t *frame = frames + frame_at(g, i);
        size_t len = group_len(g, i);

        if (!frame_open(s->ctx, g->first + i, frame, len, plain + i * p->segment_size)) {
            enum bk_code rc = bk_fail(err, BK_E_VERIFY, "segment %llu: the tag does not hold: damaged or forged",
                                      (unsigned long long)(g->first + i));
            bk_err_layer(err, "frames");
            c->keyed = 0;
            return bk_crypto_end(rc, err);
        }
        bk_tree_leaf(frame, len + BK_FRAME_OVERHEAD, leaves[i]);
    }
    bk_tree_root(leaves[0], g->count, root);
    return BK_OK;
}

enum bk_code
bk_group_open(const struct bk_payload *p, struct bk_cipher *c, uint64_t first, int last, const uint8_t *frames,
              size_t frames_len, uint8_t *plain, size_t *plain_len, uint8_t root[32], struct bk_err *err)
{
    struct group g;
    size_t total;
    enum bk_code rc;

    *plain_len = 0;
    if ((rc = read_group(p->segment_size, first, last, frames, frames_len, &g, err)) != BK_OK)
        return rc;
    if ((rc = cipher_ready(p, c, first, 0, err)) != BK_OK)
        return rc;
    total = (g.count - 1) * p->segment_size + g.final_len;
    rc = open_frames(p, c, &g, frames, plain, root, err);
    if (rc == BK_OK)
        *plain_len = total;
    else
        OPENSSL_cleanse(plain, total);
    return rc;
}
