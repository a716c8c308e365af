#include "format/engine.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/buf.h"

const struct bk_engine *const bk_engines[] = {
#ifdef BK_HAVE_IPSEC_MB
    &bk_engine_ipsec_mb,
#endif
    &bk_engine_openssl,
    NULL,
};

/* The group of the check: enough frames for all lanes of an engine, some lanes and a single one; the last is short. */
#define CHECK_PLAIN  4096
#define CHECK_FULL   (CHECK_PLAIN + BK_FRAME_OVERHEAD)
#define CHECK_FRAMES 33
#define CHECK_FINAL  17

/* Lengths that end within a block, at its end, and around the strides that vector code takes. */
static const size_t check_lengths[] = {0, 1, 15, 16, 17, 255, 256, 257, 767, 768, 769, 1024, 4095, 4096};
#define CHECK_LENGTHS (sizeof check_lengths / sizeof check_lengths[0])

/* SHA-256 over all that the check makes, from another implementation (tests/vectors/engine.py). */
static const char check_answer[] = "45dccc3631ba0d41ff13d7cab2813181bbe1aa9529387c687cc0c20723639a4c";

struct check {
    const struct bk_engine *e;
    void *state;
    uint8_t *plain;  /* CHECK_FRAMES of CHECK_PLAIN bytes */
    uint8_t *frames; /* CHECK_FRAMES of CHECK_FULL bytes */
    uint8_t *back;   /* CHECK_PLAIN bytes */
    struct bk_sha256_ctx made;
};

static void
check_nonce(uint64_t segment, uint8_t nonce[BK_NONCE_LEN])
{
    bk_put_u32(nonce, 0);
    bk_put_u64(nonce + 4, segment);
}

static size_t
check_len(size_t i)
{
    return i + 1 < CHECK_FRAMES ? CHECK_PLAIN : CHECK_FINAL;
}

static int
seal_one(const struct check *k, uint64_t segment, size_t len, uint8_t *frame, const uint8_t *plain)
{
    uint8_t nonce[BK_NONCE_LEN];

    check_nonce(segment, nonce);
    bk_put_u32(frame, (uint32_t)len);
    return k->e->seal(k->state, nonce, plain, len, frame);
}

/* 1 if all frames could be sealed: a group, whose frames are hashed together, and frames of the lengths above. */
static int
seal_all(struct check *k)
{
    uint8_t leaves[CHECK_FRAMES][BK_SHA256_LEN];

    for (size_t i = 0; i < CHECK_FRAMES; i++)
        if (!seal_one(k, i, check_len(i), k->frames + i * CHECK_FULL, k->plain + i * CHECK_PLAIN))
            return 0;
    k->e->hash(k->state, k->frames, CHECK_FULL, CHECK_FRAMES, CHECK_FINAL + BK_FRAME_OVERHEAD, leaves);
    bk_sha256_add(&k->made, k->frames, (CHECK_FRAMES - 1) * CHECK_FULL + CHECK_FINAL + BK_FRAME_OVERHEAD);
    bk_sha256_add(&k->made, leaves, sizeof leaves);
    for (size_t i = 0; i < CHECK_LENGTHS; i++) {
        if (!seal_one(k, CHECK_FRAMES + i, check_lengths[i], k->frames, k->plain))
            return 0;
        k->e->hash(k->state, k->frames, CHECK_FULL, 1, check_lengths[i] + BK_FRAME_OVERHEAD, leaves);
        bk_sha256_add(&k->made, k->frames, check_lengths[i] + BK_FRAME_OVERHEAD);
        bk_sha256_add(&k->made, leaves[0], BK_SHA256_LEN);
    }
    return 1;
}

/* 1 if the frame of length i opens, and does not with a bit wrong at its beginning, its end, or in its middle. */
static int
opens_as_it_should(const struct check *k, size_t i)
{
    size_t len = check_lengths[i];
    size_t wrong[] = {0, BK_FRAME_WORD + len / 2, len + BK_FRAME_OVERHEAD - 1};
    uint8_t nonce[BK_NONCE_LEN];

    check_nonce(CHECK_FRAMES + i, nonce);
    bk_put_u32(k->frames, (uint32_t)len);
    if (!k->e->open(k->state, nonce, k->frames, len, k->back) || memcmp(k->back, k->plain, len) != 0)
        return 0;
    for (size_t w = 0; w < sizeof wrong / sizeof wrong[0]; w++) {
        k->frames[wrong[w]] ^= 1;
        if (k->e->open(k->state, nonce, k->frames, len, k->back))
            return 0;
        k->frames[wrong[w]] ^= 1;
    }
    return 1;
}

static enum bk_code
run_check(struct check *k, struct bk_err *err)
{
    uint8_t key[BK_PAYLOAD_KEY_LEN];
    uint8_t digest[BK_SHA256_LEN];
    char hex[2 * BK_SHA256_LEN + 1];
    enum bk_code rc;

    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)i;
    for (size_t i = 0; i < CHECK_FRAMES * CHECK_PLAIN; i++)
        k->plain[i] = (uint8_t)((i * 7 + 3) % 251);
    bk_sha256_start(&k->made);
    if ((rc = k->e->set_key(k->state, key, 1, err)) != BK_OK)
        return rc;
    if (!seal_all(k))
        return bk_fail(err, BK_E_INTERNAL, "it does not seal");
    bk_sha256_end(&k->made, digest);
    if (strcmp(bk_hex(digest, sizeof digest, hex), check_answer) != 0)
        return bk_fail(err, BK_E_INTERNAL, "known answers: it gives others");
    for (size_t i = 0; i < CHECK_LENGTHS; i++) {
        if ((rc = k->e->set_key(k->state, key, 1, err)) != BK_OK)
            return rc;
        if (!seal_one(k, CHECK_FRAMES + i, check_lengths[i], k->frames, k->plain))
            return bk_fail(err, BK_E_INTERNAL, "it does not seal");
        if ((rc = k->e->set_key(k->state, key, 0, err)) != BK_OK)
            return rc;
        if (!opens_as_it_should(k, i))
            return bk_fail(err, BK_E_INTERNAL, "known answers: it opens wrong frames, or does not open right ones");
    }
    return BK_OK;
}

enum bk_code
bk_engine_check(const struct bk_engine *e, struct bk_err *err)
{
    struct check k = {.e = e};
    enum bk_code rc;

    k.plain = malloc(CHECK_FRAMES * CHECK_PLAIN);
    k.frames = malloc(CHECK_FRAMES * CHECK_FULL);
    k.back = malloc(CHECK_PLAIN);
    if (k.plain == NULL || k.frames == NULL || k.back == NULL) {
        rc = bk_fail_nomem(err);
        goto done;
    }
    if ((rc = e->make(&k.state, err)) == BK_OK)
        rc = run_check(&k, err);
    /* an engine that refuses a frame may leave OpenSSL's word about it */
    rc = bk_crypto_end(rc, err);
done:
    e->free(k.state);
    free(k.plain);
    free(k.frames);
    free(k.back);
    if (rc != BK_OK)
        bk_err_prefix(err, "engine %s", e->name);
    return rc;
}

static enum bk_code
choose_fast(const struct bk_engine *const *list, const struct bk_log *log, const struct bk_engine **out,
            struct bk_err *err)
{
    struct bk_err why = {0};
    enum bk_code rc = bk_fail(&why, BK_E_INTERNAL, "no engine runs on this processor");

    for (; *list != NULL; list++) {
        if ((*list)->fit() != BK_ENGINE_FAST)
            continue;
        if ((rc = bk_engine_check(*list, &why)) == BK_OK) {
            *out = *list;
            return BK_OK;
        }
        /* memory that is short says nothing about an engine */
        if (rc != BK_E_INTERNAL)
            break;
        if (list[1] != NULL)
            bk_warn(log, "%s; going on without it", why.message);
    }
    if (err != NULL)
        *err = why;
    return rc;
}

enum bk_code
bk_engine_choose(const struct bk_engine *const *list, const char *name, const struct bk_log *log,
                 const struct bk_engine **out, struct bk_err *err)
{
    enum bk_code rc;

    if (name == NULL || strcmp(name, "auto") == 0)
        return choose_fast(list, log, out, err);
    while (*list != NULL && strcmp((*list)->name, name) != 0)
        list++;
    if (*list == NULL)
        return bk_fail(err, BK_E_USAGE, "engine \"%s\": this build has none of that name", name);
    if ((*list)->fit() == BK_ENGINE_MISSING)
        return bk_fail(err, BK_E_USAGE, "engine %s: not for this processor", name);
    if ((rc = bk_engine_check(*list, err)) == BK_OK)
        *out = *list;
    return rc;
}
