#include "format/payload.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "base/buf.h"
#include "base/hash.h"

#define PRK_LEN 32

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

void
bk_cipher_free(struct bk_cipher *c)
{
    const struct bk_engine *engine = c->engine;

    if (c->state != NULL)
        engine->free(c->state);
    *c = (struct bk_cipher){.engine = engine};
}

static enum bk_code
cipher_make(struct bk_cipher *c, struct bk_err *err)
{
    if (c->engine == NULL)
        c->engine = &bk_engine_openssl;
    return c->state == NULL ? c->engine->make(&c->state, err) : BK_OK;
}

/* The payload key of an epoch into the engine: HKDF-Expand(PRK, "bk1 payload" || 00 || binding || u32 epoch, 32). */
static enum bk_code
cipher_set_key(const struct bk_payload *p, struct bk_cipher *c, uint64_t epoch, int sealing, struct bk_err *err)
{
    uint8_t info[12 + 64 + 4] = "bk1 payload";
    struct bk_secret key = {0};
    enum bk_code rc;

    c->keyed = 0;
    memcpy(info + 12, p->binding, sizeof p->binding);
    bk_put_u32(info + 12 + 64, (uint32_t)epoch);
    if ((rc = bk_secret_alloc(&key, BK_PAYLOAD_KEY_LEN, err)) != BK_OK)
        goto done;
    if ((rc = expand(&p->prk, info, sizeof info, key.data, key.len, err)) != BK_OK)
        goto done;
    if ((rc = c->engine->set_key(c->state, key.data, sealing, err)) != BK_OK)
        goto done;
    memcpy(c->binding, p->binding, sizeof c->binding);
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
    enum bk_code rc;

    if ((rc = cipher_make(c, err)) != BK_OK)
        return rc;
    if (c->keyed && c->epoch == epoch && c->sealing == sealing &&
        memcmp(c->binding, p->binding, sizeof c->binding) == 0)
        return BK_OK;
    return cipher_set_key(p, c, epoch, sealing, err);
}

/* docs/FORMAT.md, Frames: four zero bytes and the segment number. */
static void
frame_nonce(uint64_t segment, uint8_t nonce[BK_NONCE_LEN])
{
    bk_put_u32(nonce, 0);
    bk_put_u64(nonce + 4, segment);
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

/* Bytes of the frames from number i on, n of them, when they are hashed: the final one may be shorter. */
static size_t
final_frame(const struct group *g, size_t i, size_t n)
{
    return group_len(g, i + n - 1) + BK_FRAME_OVERHEAD;
}

/* Frames number i on, n of them, which the engine hashes together. */
static void
hash_frames(struct bk_cipher *c, const struct group *g, const uint8_t *frames, size_t i, size_t n,
            uint8_t leaves[BK_GROUP_SEGMENTS][BK_SHA256_LEN])
{
    c->engine->hash(c->state, frames + frame_at(g, i), frame_at(g, 1), n, final_frame(g, i, n), leaves + i);
}

/* As many frames from number i on as the engine takes at a time. */
static size_t
batch_from(const struct bk_cipher *c, const struct group *g, size_t i)
{
    return g->count - i < c->engine->batch ? g->count - i : c->engine->batch;
}

static int
seal_frame(const struct bk_cipher *c, const struct group *g, size_t i, const uint8_t *plain, uint8_t *frames)
{
    uint8_t nonce[BK_NONCE_LEN];
    uint8_t *frame = frames + frame_at(g, i);

    frame_nonce(g->first + i, nonce);
    bk_put_u32(frame, group_word(g, i));
    return c->engine->seal(c->state, nonce, plain + i * g->segment_size, group_len(g, i), frame);
}

enum bk_code
bk_group_seal(const struct bk_payload *p, struct bk_cipher *c, uint64_t first, int last, const uint8_t *plain,
              size_t plain_len, uint8_t *frames, size_t *frames_len, uint8_t root[32], struct bk_err *err)
{
    uint8_t leaves[BK_GROUP_SEGMENTS][BK_SHA256_LEN];
    struct group g;
    enum bk_code rc;

    if ((rc = group_to_seal(p->segment_size, first, last, plain_len, &g, err)) != BK_OK)
        return rc;
    if ((rc = cipher_ready(p, c, first, 1, err)) != BK_OK)
        return rc;
    for (size_t i = 0, n = 0; i < g.count; i += n) {
        n = batch_from(c, &g, i);
        for (size_t k = i; k < i + n; k++)
            if (!seal_frame(c, &g, k, plain, frames)) {
                c->keyed = 0;
                rc = bk_fail(err, BK_E_INTERNAL, "segment %llu: AES-256-GCM failed", (unsigned long long)(first + k));
                return bk_crypto_end(rc, err);
            }
        /* hashed now, while they are in the cache */
        hash_frames(c, &g, frames, i, n, leaves);
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

enum bk_code
bk_group_root(struct bk_cipher *c, uint32_t segment_size, uint64_t first, int last, const uint8_t *frames,
              size_t frames_len, uint8_t root[32], struct bk_err *err)
{
    uint8_t leaves[BK_GROUP_SEGMENTS][BK_SHA256_LEN];
    struct group g;
    enum bk_code rc;

    if ((rc = read_group(segment_size, first, last, frames, frames_len, &g, err)) != BK_OK)
        return rc;
    if ((rc = cipher_make(c, err)) != BK_OK)
        return rc;
    hash_frames(c, &g, frames, 0, g.count, leaves);
    bk_tree_root(leaves[0], g.count, root);
    return BK_OK;
}

static int
open_frame(const struct bk_cipher *c, const struct group *g, size_t i, const uint8_t *frames, uint8_t *plain)
{
    uint8_t nonce[BK_NONCE_LEN];

    frame_nonce(g->first + i, nonce);
    return c->engine->open(c->state, nonce, frames + frame_at(g, i), group_len(g, i), plain + i * g->segment_size);
}

/* Opens every frame, and hashes it while it is in the cache. */
static enum bk_code
open_frames(struct bk_cipher *c, const struct group *g, const uint8_t *frames, uint8_t *plain, uint8_t root[32],
            struct bk_err *err)
{
    uint8_t leaves[BK_GROUP_SEGMENTS][BK_SHA256_LEN];

    for (size_t i = 0, n = 0; i < g->count; i += n) {
        n = batch_from(c, g, i);
        for (size_t k = i; k < i + n; k++)
            if (!open_frame(c, g, k, frames, plain)) {
                enum bk_code rc = bk_fail(err, BK_E_VERIFY, "segment %llu: the tag does not hold: damaged or forged",
                                          (unsigned long long)(g->first + k));
                bk_err_layer(err, "frames");
                c->keyed = 0;
                return bk_crypto_end(rc, err);
            }
        hash_frames(c, g, frames, i, n, leaves);
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
    rc = open_frames(c, &g, frames, plain, root, err);
    if (rc == BK_OK)
        *plain_len = total;
    else
        OPENSSL_cleanse(plain, total);
    return rc;
}
