/*
 * The engine of intel-ipsec-mb: AES-256-GCM with wide AES instructions, and, where that is faster, SHA-256 of many
 * frames at once, one in each lane of a vector register. Built where the library is (cmake/ipsec_mb.cmake).
 */
#define NO_COMPAT_IMB_API_053 /* the old names collide with OpenSSL's */
#include "format/engine.h"

#include <assert.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>

#include "base/secret.h"
#include "base/sha256_x4.h"
#include "format/tree.h"

/* 16 lanes of 32 bits make a register of AVX-512, and take as long for fewer. */
#define LANES     16
#define LANES_MIN 15
/* The library counts the bytes of a lane in 16 bits, padding included. */
#define LANE_BYTES_MAX ((1u << 16) - 128)

/* A manager has function pointers and the lanes of frames being hashed: nothing secret. What is secret is the
 * library's to read and write, but in our protected memory. What it leaves on the stack and in registers it wipes
 * itself (IMB_FEATURE_SAFE_DATA, asked for in fit). */
struct state {
    IMB_MGR *mgr;             /* the best for this processor */
    int in_lanes;             /* whether it hashes */
    struct bk_secret key;     /* struct gcm_key_data: round keys and powers of the hash key */
    struct bk_secret context; /* struct gcm_context_data */
};

static void
init_best(IMB_MGR *m)
{
    init_mb_mgr_auto(m, NULL);
}

static IMB_MGR *
manager_make(void (*init)(IMB_MGR *))
{
    IMB_MGR *m = alloc_mb_mgr(0);

    if (m == NULL)
        return NULL;
    init(m);
    /* the library's own self-test, where it has one; bk_engine_check comes on top of it */
    if (imb_get_errno(m) != 0 ||
        ((m->features & IMB_FEATURE_SELF_TEST) != 0 && (m->features & IMB_FEATURE_SELF_TEST_PASS) == 0)) {
        free_mb_mgr(m);
        return NULL;
    }
    return m;
}

static enum bk_engine_fit
fit(void)
{
    IMB_MGR *m = alloc_mb_mgr(0);
    uint64_t has = m == NULL ? 0 : m->features;
    const uint64_t least = IMB_CPUFLAGS_SSE | IMB_FEATURE_SAFE_DATA;

    if (m != NULL)
        free_mb_mgr(m);
    if ((has & least) != least)
        return BK_ENGINE_MISSING;
    return (has & IMB_FEATURE_AVX512_SKX) == IMB_FEATURE_AVX512_SKX ? BK_ENGINE_FAST : BK_ENGINE_RUNS;
}

static void
state_free(void *state)
{
    struct state *s = state;

    if (s == NULL)
        return;
    bk_secret_wipe(&s->key);
    bk_secret_wipe(&s->context);
    if (s->mgr != NULL)
        free_mb_mgr(s->mgr);
    free(s);
}

/* Where AMD's processors have AVX-512, their SHA instructions on four frames at once are faster than it in 16 lanes
 * (Zen 4: 4.6 and 3.6 GB/s); Intel's do one every other cycle, half as many. Whoever has none is better off with lanes.
 */
static int
better_in_lanes(const IMB_MGR *m)
{
    if ((m->features & IMB_FEATURE_AVX512_SKX) != IMB_FEATURE_AVX512_SKX)
        return 0;
    return !bk_sha256_x4_runs() || !__builtin_cpu_is("amd");
}

static enum bk_code
state_make(void **state, struct bk_err *err)
{
    struct state *s = calloc(1, sizeof *s);

    if (s == NULL)
        return bk_fail_nomem(err);
    if ((s->mgr = manager_make(init_best)) == NULL) {
        state_free(s);
        return bk_fail(err, BK_E_INTERNAL, "ipsec-mb does not start");
    }
    s->in_lanes = better_in_lanes(s->mgr);
    *state = s;
    return BK_OK;
}

/* Keyless hashing needs no protected memory, so it is made with the first key. */
static enum bk_code
make_protected(struct state *s, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    if (s->key.data == NULL)
        rc = bk_secret_alloc(&s->key, sizeof(struct gcm_key_data), err);
    if (rc == BK_OK && s->context.data == NULL)
        rc = bk_secret_alloc(&s->context, sizeof(struct gcm_context_data), err);
    /* OpenSSL's arena hands out powers of two at multiples of themselves; the library loads what must be aligned */
    if (rc == BK_OK && (uintptr_t)s->key.data % alignof(struct gcm_key_data) != 0)
        rc = bk_fail(err, BK_E_INTERNAL, "ipsec-mb: protected memory is not aligned");
    return rc;
}

static struct gcm_key_data *
gcm_key(const struct state *s)
{
    return (struct gcm_key_data *)(void *)s->key.data;
}

static struct gcm_context_data *
gcm_context(const struct state *s)
{
    return (struct gcm_context_data *)(void *)s->context.data;
}

static enum bk_code
set_key(void *state, const uint8_t key[BK_PAYLOAD_KEY_LEN], int sealing, struct bk_err *err)
{
    struct state *s = state;
    enum bk_code rc = make_protected(s, err);

    (void)sealing;
    if (rc == BK_OK)
        IMB_AES256_GCM_PRE(s->mgr, key, gcm_key(s));
    return rc;
}

static int
frame_seal(void *state, const uint8_t nonce[BK_NONCE_LEN], const uint8_t *plain, size_t len, uint8_t *frame)
{
    struct state *s = state;
    uint8_t *out = frame + BK_FRAME_WORD;

    /* no call with a null pointer, which the library refuses, and says so only here */
    IMB_AES256_GCM_ENC(s->mgr, gcm_key(s), gcm_context(s), out, len > 0 ? plain : frame, len, nonce, frame,
                       BK_FRAME_WORD, out + len, BK_FRAME_TAG);
    return imb_get_errno(s->mgr) == 0;
}

static int
frame_open(void *state, const uint8_t nonce[BK_NONCE_LEN], const uint8_t *frame, size_t len, uint8_t *plain)
{
    struct state *s = state;
    const uint8_t *in = frame + BK_FRAME_WORD;
    uint8_t tag[BK_FRAME_TAG] = {0};
    uint8_t nothing[1];
    int holds;

    IMB_AES256_GCM_DEC(s->mgr, gcm_key(s), gcm_context(s), len > 0 ? plain : nothing, in, len, nonce, frame,
                       BK_FRAME_WORD, tag, BK_FRAME_TAG);
    holds = imb_get_errno(s->mgr) == 0 && CRYPTO_memcmp(tag, in + len, sizeof tag) == 0;
    /* of a forged frame this is the right tag, which nobody is to learn */
    OPENSSL_cleanse(tag, sizeof tag);
    return holds;
}

/* How many frames were hashed: n, unless the library refused one. */
static size_t
hash_in_lanes(IMB_MGR *m, const uint8_t *frames, size_t full, size_t n, size_t final, uint8_t (*leaves)[BK_SHA256_LEN])
{
    size_t done = 0;
    IMB_JOB *job;

    for (size_t i = 0; i < n; i++) {
        job = IMB_GET_NEXT_JOB(m);

        memset(job, 0, sizeof *job);
        job->cipher_mode = IMB_CIPHER_NULL;
        job->cipher_direction = IMB_DIR_ENCRYPT;
        job->chain_order = IMB_ORDER_HASH_CIPHER;
        job->hash_alg = IMB_AUTH_SHA_256;
        job->src = frames + i * full;
        job->msg_len_to_hash_in_bytes = i + 1 < n ? full : final;
        job->auth_tag_output = leaves[i];
        job->auth_tag_output_len_in_bytes = BK_SHA256_LEN;
        if ((job = IMB_SUBMIT_JOB(m)) != NULL)
            done += job->status == IMB_STATUS_COMPLETED;
    }
    while ((job = IMB_FLUSH_JOB(m)) != NULL)
        done += job->status == IMB_STATUS_COMPLETED;
    return done;
}

static void
hash(void *state, const uint8_t *frames, size_t full, size_t n, size_t final, uint8_t (*leaves)[BK_SHA256_LEN])
{
    struct state *s = state;
    size_t at = 0;

    while (s->in_lanes && full <= LANE_BYTES_MAX && n - at >= LANES_MIN) {
        size_t count = n - at < LANES ? n - at : LANES;
        size_t end = at + count < n ? full : final;

        if (hash_in_lanes(s->mgr, frames + at * full, full, count, end, leaves + at) != count)
            break;
        at += count;
    }
    if (at < n)
        bk_tree_leaves(frames + at * full, full, n - at, final, leaves + at);
}

const struct bk_engine bk_engine_ipsec_mb = {
    .name = "ipsec-mb",
    .batch = LANES,
    .fit = fit,
    .make = state_make,
    .free = state_free,
    .set_key = set_key,
    .seal = frame_seal,
    .open = frame_open,
    .hash = hash,
};
