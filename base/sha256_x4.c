#include "base/sha256_x4.h"

#include <string.h>

#include "base/buf.h"
#include "base/hash.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <pthread.h>

#define LANES BK_SHA256_X4
#define BLOCK 64
/* of 4 rounds each */
#define STEPS 16

/* The second is the same code, which with 32 registers in place of 16 keeps nothing in memory: an eighth faster. */
#define SHA_NI      __attribute__((target("sha,sse4.1")))
#define SHA_NI_EVEX __attribute__((target("sha,avx512vl")))
#define INLINE      __attribute__((always_inline)) inline

/* FIPS 180-4, 4.2.2 */
static const uint32_t round_constants[STEPS][4] __attribute__((aligned(16))) = {
    {0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5}, {0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5},
    {0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3}, {0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174},
    {0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc}, {0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da},
    {0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7}, {0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967},
    {0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13}, {0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85},
    {0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3}, {0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070},
    {0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5}, {0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3},
    {0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208}, {0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2},
};

/* A message's state as the instructions want it: the letters of FIPS 180-4, the highest word first. */
struct lane {
    __m128i abef, cdgh;
};

/* Four rounds of one message. w is a ring of 16 words of its schedule, of which the step uses 4 and makes 4. */
SHA_NI static INLINE void
four_rounds(size_t step, struct lane *l, __m128i w[4], const uint8_t *block)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i *now = &w[step % 4], *next = &w[(step + 1) % 4], *before = &w[(step + 3) % 4];
    __m128i wk;

    if (step < 4)
        *now = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)block + step), big_endian);
    wk = _mm_add_epi32(*now, _mm_load_si128((const __m128i *)(const void *)round_constants[step]));
    l->cdgh = _mm_sha256rnds2_epu32(l->cdgh, l->abef, wk);
    if (step >= 3 && step < STEPS - 1)
        *next = _mm_sha256msg2_epu32(_mm_add_epi32(*next, _mm_alignr_epi8(*now, *before, 4)), *now);
    l->abef = _mm_sha256rnds2_epu32(l->abef, l->cdgh, _mm_shuffle_epi32(wk, 0x0e));
    if (step >= 1 && step < STEPS - 3)
        *before = _mm_sha256msg1_epu32(*before, *now);
}

SHA_NI static INLINE void
compress(struct lane lanes[LANES], const uint8_t *const messages[LANES], size_t blocks)
{
    struct lane l[LANES] = {lanes[0], lanes[1], lanes[2], lanes[3]};

    for (size_t at = 0; at < blocks * BLOCK; at += BLOCK) {
        const struct lane was[LANES] = {l[0], l[1], l[2], l[3]};
        __m128i w[LANES][4];

#pragma GCC unroll 16
        for (size_t step = 0; step < STEPS; step++)
#pragma GCC unroll 4
            for (size_t i = 0; i < LANES; i++)
                four_rounds(step, &l[i], w[i], messages[i] + at);
#pragma GCC unroll 4
        for (size_t i = 0; i < LANES; i++) {
            l[i].abef = _mm_add_epi32(l[i].abef, was[i].abef);
            l[i].cdgh = _mm_add_epi32(l[i].cdgh, was[i].cdgh);
        }
    }
    memcpy(lanes, l, sizeof l);
}

typedef void compress_fn(struct lane lanes[LANES], const uint8_t *const messages[LANES], size_t blocks);

SHA_NI static void
compress_sse(struct lane lanes[LANES], const uint8_t *const messages[LANES], size_t blocks)
{
    compress(lanes, messages, blocks);
}

SHA_NI_EVEX static void
compress_evex(struct lane lanes[LANES], const uint8_t *const messages[LANES], size_t blocks)
{
    compress(lanes, messages, blocks);
}

/* FIPS 180-4, 5.3.3 */
static void
lane_start(struct lane *l)
{
    static const uint32_t initial[8] = {
        /* f, e, b, a */ 0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667,
        /* h, g, d, c */ 0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372};

    memcpy(l, initial, sizeof initial);
}

static void
lane_end(const struct lane *l, uint8_t digest[BK_SHA256_LEN])
{
    static const uint8_t word_of[8] = {3, 2, 7, 6, 1, 0, 5, 4};
    uint32_t words[8];

    memcpy(words, l, sizeof words);
    for (size_t i = 0; i < 8; i++)
        bk_put_u32(digest + 4 * i, words[word_of[i]]);
}

/* FIPS 180-4, 5.1.1: what is left of a message, a bit, zeros, and the number of its bits. Returns the blocks. */
static size_t
pad(const uint8_t *message, size_t len, uint8_t end[2 * BLOCK])
{
    size_t left = len % BLOCK;
    size_t blocks = left < BLOCK - 8 ? 1 : 2;

    memset(end, 0, 2 * BLOCK);
    memcpy(end, message + len - left, left);
    end[left] = 0x80;
    bk_put_u64(end + blocks * BLOCK - 8, (uint64_t)len * 8);
    return blocks;
}

static void
digest_with(compress_fn *fn, const uint8_t *const messages[LANES], size_t len, uint8_t *const digests[LANES])
{
    struct lane lanes[LANES];
    uint8_t ends[LANES][2 * BLOCK];
    const uint8_t *const end_at[LANES] = {ends[0], ends[1], ends[2], ends[3]};
    size_t end_blocks = 0;

    for (size_t i = 0; i < LANES; i++) {
        lane_start(&lanes[i]);
        end_blocks = pad(messages[i], len, ends[i]);
    }
    fn(lanes, messages, len / BLOCK);
    fn(lanes, end_at, end_blocks);
    for (size_t i = 0; i < LANES; i++)
        lane_end(&lanes[i], digests[i]);
}

/* Messages of different bytes, which end within a block, and with their length in a block of its own. */
static int
right(compress_fn *fn)
{
    static const size_t lengths[] = {BLOCK + 20, 2 * BLOCK - 1};
    uint8_t bytes[4 * BLOCK], made[LANES][BK_SHA256_LEN], known[BK_SHA256_LEN];
    const uint8_t *const messages[LANES] = {bytes, bytes + 11, bytes + 22, bytes + 33};
    uint8_t *const digests[LANES] = {made[0], made[1], made[2], made[3]};

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 151 + 7);
    for (size_t n = 0; n < sizeof lengths / sizeof lengths[0]; n++) {
        digest_with(fn, messages, lengths[n], digests);
        for (size_t i = 0; i < LANES; i++) {
            bk_sha256(messages[i], lengths[n], known);
            if (memcmp(known, made[i], sizeof known) != 0)
                return 0;
        }
    }
    return 1;
}

static pthread_once_t chosen_once = PTHREAD_ONCE_INIT;
static compress_fn *chosen;

static void
choose(void)
{
    unsigned a, b = 0, c, d;

    /* compilers do not all know SHA by name in __builtin_cpu_supports */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & bit_SHA) == 0 || !__builtin_cpu_supports("sse4.1"))
        return;
    chosen = __builtin_cpu_supports("avx512vl") ? compress_evex : compress_sse;
    if (!right(chosen))
        chosen = NULL;
}

int
bk_sha256_x4_runs(void)
{
    return pthread_once(&chosen_once, choose) == 0 && chosen != NULL;
}

void
bk_sha256_x4(const uint8_t *const messages[BK_SHA256_X4], size_t len, uint8_t *const digests[BK_SHA256_X4])
{
    digest_with(chosen, messages, len, digests);
}

#else

int
bk_sha256_x4_runs(void)
{
    return 0;
}

void
bk_sha256_x4(const uint8_t *const messages[BK_SHA256_X4], size_t len, uint8_t *const digests[BK_SHA256_X4])
{
    for (size_t i = 0; i < BK_SHA256_X4; i++)
        bk_sha256(messages[i], len, digests[i]);
}

#endif
