/* Do keys, frames and digest tree meet format/payload.h and format/tree.h? Constants were computed with another
 * implementation (pyca/cryptography and hashlib) from archive id, file key 00 .. 1f and envelope digest 80 .. 9f. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/hash.h"
#include "format/payload.h"

#define COMMIT "676d4069f6d407f56cb609628e893beb8801c4043833227ea8734d421c3f9099"

/* All tests run with each engine that this processor can run. */
static const struct bk_engine *engine;

struct fixture {
    uint8_t preamble[BK_PREAMBLE_LEN];
    uint8_t envelope_digest[32];
    struct bk_secret file_key;
    struct bk_payload payload;
    struct bk_cipher cipher;
};

static void
fixture_make(struct fixture *f, uint32_t segment_size)
{
    struct bk_preamble p = {.slot_size = 32768, .segment_size = segment_size};

    memset(f, 0, sizeof *f);
    f->cipher.engine = engine;
    assert_true(bk_unhex("0190a3b4c5d67e8f9a0b1c2d3e4f5061", p.archive_id, 16));
    assert_true(bk_unhex(COMMIT, p.key_commit, 32));
    bk_preamble_write(&p, f->preamble);
    assert_int_equal(bk_secret_alloc(&f->file_key, 32, NULL), BK_OK);
    for (size_t i = 0; i < 32; i++) {
        f->file_key.data[i] = (uint8_t)i;
        f->envelope_digest[i] = (uint8_t)(0x80 + i);
    }
    assert_int_equal(bk_payload_init(&f->payload, f->preamble, &f->file_key, f->envelope_digest, NULL), BK_OK);
}

static void
fixture_free(struct fixture *f)
{
    bk_cipher_free(&f->cipher);
    bk_cipher_free(&f->cipher);
    bk_payload_wipe(&f->payload);
    assert_null(f->payload.prk.data);
    bk_secret_wipe(&f->file_key);
}

static uint8_t *
pattern(size_t len)
{
    uint8_t *data = malloc(len > 0 ? len : 1);

    assert_non_null(data);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)((i * 7 + 3) % 251);
    return data;
}

/* RFC 9162 2.1.1, as it is written there. */
static void
recursive_root(const uint8_t *hashes, size_t n, uint8_t out[32])
{
    uint8_t both[64];
    size_t k = 1;

    if (n == 1) {
        memcpy(out, hashes, 32);
        return;
    }
    while (k * 2 < n)
        k *= 2;
    recursive_root(hashes, k, both);
    recursive_root(hashes + k * 32, n - k, both + 32);
    bk_sha256_2("\1", 1, both, 64, out);
}

static void
test_tree_roots(void **state)
{
    uint8_t want[32];
    uint8_t got[32];

    (void)state;
    for (size_t n = 1; n <= 70; n++) {
        uint8_t *hashes = pattern(n * 32);
        uint8_t *before = pattern(n * 32);

        recursive_root(hashes, n, want);
        bk_tree_root(hashes, n, got);
        assert_memory_equal(got, want, 32);
        assert_memory_equal(hashes, before, n * 32);
        free(hashes);
        free(before);
    }
}

/* The root over the index of groups is the root over all leaves: 32 is a power of two. */
static void
test_tree_of_groups_is_the_tree_of_leaves(void **state)
{
    uint8_t *leaves = pattern(300 * 32);

    (void)state;
    for (size_t n = 1; n <= 300; n++) {
        uint8_t index[10 * 32];
        uint8_t whole[32];
        uint8_t grouped[32];
        size_t groups = (n + 31) / 32;

        for (size_t g = 0; g < groups; g++)
            bk_tree_root(leaves + g * 32 * 32, g + 1 < groups ? 32 : n - g * 32, index + g * 32);
        bk_tree_root(index, groups, grouped);
        bk_tree_root(leaves, n, whole);
        assert_memory_equal(whole, grouped, 32);
    }
    free(leaves);
}

static void
test_tree_hashes(void **state)
{
    uint8_t a[32];
    uint8_t b[32];
    uint8_t want[65] = {1};

    (void)state;
    bk_tree_leaf((const uint8_t *)"abc", 3, a);
    bk_sha256("abc", 3, b);
    assert_memory_equal(a, b, 32);
    memset(want + 1, 0x11, 32);
    memset(want + 33, 0x22, 32);
    bk_sha256(want, 65, b);
    bk_tree_node(want + 1, want + 33, a);
    assert_memory_equal(a, b, 32);
}

static void
test_key_commitment(void **state)
{
    struct fixture f;
    struct bk_secret half = {0};
    struct bk_err err = {0};
    uint8_t commit[32];
    char hex[65];

    (void)state;
    fixture_make(&f, 4096);
    assert_int_equal(bk_key_commit(f.preamble, &f.file_key, commit, NULL), BK_OK);
    assert_string_equal(bk_hex(commit, 32, hex), COMMIT);
    assert_int_equal(bk_key_commit_check(f.preamble, &f.file_key, NULL), BK_OK);
    /* it commits to the file key, to every bound byte, and stands in the preamble itself */
    for (size_t bit = 0; bit < (BK_PREAMBLE_BOUND + 32) * 8; bit++) {
        f.preamble[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(bk_key_commit_check(f.preamble, &f.file_key, &err), BK_E_VERIFY);
        f.preamble[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_string_equal(err.layer, "key commitment");
    for (size_t bit = 0; bit < 256; bit++) {
        f.file_key.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(bk_key_commit_check(f.preamble, &f.file_key, NULL), BK_E_VERIFY);
        f.file_key.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(bk_secret_alloc(&half, 16, NULL), BK_OK);
    assert_int_equal(bk_key_commit(f.preamble, &half, commit, NULL), BK_E_INTERNAL);
    bk_secret_wipe(&half);
    fixture_free(&f);
}

static void
test_payload_init_refuses(void **state)
{
    static const uint32_t sizes[] = {0, 4095, 5000, 2048, 2 * 1024 * 1024};
    struct fixture f;
    struct bk_payload p = {0};
    struct bk_secret none = {0};

    (void)state;
    fixture_make(&f, 4096);
    assert_int_equal(bk_payload_init(&p, f.preamble, &none, f.envelope_digest, NULL), BK_E_INTERNAL);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bk_put_u32(f.preamble + 16, sizes[i]);
        assert_int_equal(bk_payload_init(&p, f.preamble, &f.file_key, f.envelope_digest, NULL), BK_E_INTERNAL);
    }
    assert_null(p.prk.data);
    fixture_free(&f);
}

static void
check_frame(struct fixture *f, uint64_t first, const char *plain, const char *want)
{
    uint8_t frame[64];
    uint8_t bytes[64];
    uint8_t root[32];
    uint8_t leaf[32];
    size_t plain_len = strlen(plain);
    size_t len = 0;

    assert_int_equal(
        bk_group_seal(&f->payload, &f->cipher, first, 1, (const uint8_t *)plain, plain_len, frame, &len, root, NULL),
        BK_OK);
    assert_int_equal(len, plain_len + 20);
    assert_true(bk_unhex(want, bytes, len));
    assert_memory_equal(frame, bytes, len);
    bk_sha256(frame, len, leaf);
    assert_memory_equal(root, leaf, 32);
}

/* Epochs out of order on one cipher: each frame must come from the key of its own epoch. */
static void
test_frames_of_another_implementation(void **state)
{
    struct fixture f;

    (void)state;
    fixture_make(&f, 4096);
    check_frame(&f, 0, "hello", "800000051ecf1d0b3b31c789724ecf016916bb590a482681d5");
    check_frame(&f, 1ull << 28, "hello", "80000005e68683124713b4181767a68814b4ae2bbe66ce8883");
    check_frame(&f, 3ull << 28, "0123456789", "8000000ab829720b3531b33c6854c35f2e4ce552891ec30267aaebb2b59e");
    check_frame(&f, 0, "", "80000000ba993585a92bed0aff35fffb64bbc3e2");
    fixture_free(&f);
}

static void
check_group_digests(size_t plain_len, int last, const char *want_frames, const char *want_root)
{
    struct fixture f;
    uint8_t *plain = pattern(plain_len);
    uint8_t *frames;
    uint8_t root[32];
    uint8_t digest[32];
    char hex[65];
    size_t len = 0;

    fixture_make(&f, 4096);
    frames = malloc(bk_frames_length(4096, plain_len));
    assert_non_null(frames);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, 0, last, plain, plain_len, frames, &len, root, NULL), BK_OK);
    assert_int_equal(len, bk_frames_length(4096, plain_len));
    bk_sha256(frames, len, digest);
    assert_string_equal(bk_hex(digest, 32, hex), want_frames);
    assert_string_equal(bk_hex(root, 32, hex), want_root);
    free(frames);
    free(plain);
    fixture_free(&f);
}

static void
test_groups_of_another_implementation(void **state)
{
    (void)state;
    check_group_digests(3 * 4096 + 100, 1, "0eca0560563e5507b108d30c018c83477a7b310d57f847bae51d903e8fabee13",
                        "5377a3ff0da783e30bcc65270c309cfad41be3626784703e1f155c9fb18a2d3f");
    check_group_digests(32 * 4096, 0, "aedf6cd1e02ceb4d3ef198aab1e194bbab8a617068d87b530aa8ccac95c71702",
                        "a0d3f5ec2ff0e3f5604873497de20d8089020221d531575d678bdcd9d209293a");
}

/* One group there and back, in buffers of exactly the right size. */
static void
round_trip(struct fixture *f, uint64_t first, int last, const uint8_t *data, size_t len)
{
    size_t frames_len = (size_t)bk_frames_length(f->payload.segment_size, len);
    uint8_t *plain = malloc(len > 0 ? len : 1);
    uint8_t *frames = malloc(frames_len);
    uint8_t *back = malloc(len > 0 ? len : 1);
    uint8_t roots[3][32];
    size_t n = 0;

    assert_non_null(plain);
    assert_non_null(frames);
    assert_non_null(back);
    memcpy(plain, data, len);
    assert_int_equal(bk_group_seal(&f->payload, &f->cipher, first, last, plain, len, frames, &n, roots[0], NULL),
                     BK_OK);
    assert_int_equal(n, frames_len);
    assert_int_equal(bk_group_root(&f->cipher, f->payload.segment_size, first, last, frames, n, roots[1], NULL), BK_OK);
    assert_memory_equal(roots[0], roots[1], 32);
    assert_int_equal(bk_group_open(&f->payload, &f->cipher, first, last, frames, frames_len, back, &n, roots[2], NULL),
                     BK_OK);
    assert_int_equal(n, len);
    assert_memory_equal(back, plain, len);
    assert_memory_equal(roots[0], roots[2], 32);
    free(plain);
    free(frames);
    free(back);
}

static void
check_archive(uint32_t segment_size, size_t total)
{
    size_t group = (size_t)segment_size * BK_GROUP_SEGMENTS;
    uint8_t *data = pattern(total);
    struct fixture f;
    size_t at = 0;
    uint64_t first = 0;

    fixture_make(&f, segment_size);
    while (total - at > group) {
        round_trip(&f, first, 0, data + at, group);
        at += group;
        first += BK_GROUP_SEGMENTS;
    }
    round_trip(&f, first, 1, data + at, total - at);
    fixture_free(&f);
    free(data);
}

static void
test_sizes_at_every_edge(void **state)
{
    /* 64 KiB: longer than the lanes of ipsec-mb take */
    static const uint32_t segment_sizes[] = {4096, 32768, 65536};

    (void)state;
    for (size_t i = 0; i < sizeof segment_sizes / sizeof *segment_sizes; i++) {
        size_t s = segment_sizes[i];

        check_archive(segment_sizes[i], 0);
        check_archive(segment_sizes[i], 1);
        check_archive(segment_sizes[i], 15);
        check_archive(segment_sizes[i], 16);
        check_archive(segment_sizes[i], 17);
        check_archive(segment_sizes[i], s - 1);
        check_archive(segment_sizes[i], s);
        check_archive(segment_sizes[i], s + 1);
        /* around the lanes of an engine */
        check_archive(segment_sizes[i], 7 * s);
        check_archive(segment_sizes[i], 8 * s - 1);
        check_archive(segment_sizes[i], 16 * s + 1);
        check_archive(segment_sizes[i], 24 * s + 100);
        check_archive(segment_sizes[i], 32 * s - 1);
        check_archive(segment_sizes[i], 32 * s);
        check_archive(segment_sizes[i], 32 * s + 1);
        check_archive(segment_sizes[i], 64 * s);
    }
}

static void
test_frames_length(void **state)
{
    (void)state;
    assert_true(bk_frames_length(4096, 0) == 20);
    assert_true(bk_frames_length(4096, 1) == 21);
    assert_true(bk_frames_length(4096, 4096) == 4116);
    assert_true(bk_frames_length(4096, 4097) == 4097 + 40);
    assert_true(bk_frames_length(4096, BK_SEGMENTS_MAX * 4096) == BK_SEGMENTS_MAX * 4116);
}

static void
test_seal_refuses_what_is_no_group(void **state)
{
    struct fixture f;
    uint8_t *plain = pattern(33 * 4096);
    uint8_t *frames = malloc(33 * 4116);
    uint8_t root[32];
    struct bk_err err = {0};
    size_t n = 7;

    (void)state;
    assert_non_null(frames);
    fixture_make(&f, 4096);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, 0, 0, plain, 32 * 4096 - 1, frames, &n, root, NULL),
                     BK_E_INTERNAL);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, 0, 1, plain, 32 * 4096 + 1, frames, &n, root, NULL),
                     BK_E_INTERNAL);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, 0, 0, plain, 0, frames, &n, root, NULL), BK_E_INTERNAL);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, 32, 1, plain, 0, frames, &n, root, NULL), BK_E_INTERNAL);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, 1, 1, plain, 1, frames, &n, root, NULL), BK_E_INTERNAL);
    /* the last group that there can be, and the first that there cannot */
    assert_int_equal(n, 7);
    round_trip(&f, BK_SEGMENTS_MAX - 32, 1, plain, 32 * 4096);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, BK_SEGMENTS_MAX, 1, plain, 1, frames, &n, root, &err),
                     BK_E_NO_ROOM);
    assert_true(strlen(err.hint) > 0);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, UINT64_MAX - 31, 1, plain, 1, frames, &n, root, NULL),
                     BK_E_NO_ROOM);
    free(frames);
    free(plain);
    fixture_free(&f);
}

/* A group of two segments, sealed, for the tests that damage it. */
#define SMALL_PLAIN  (4096 + 30)
#define SMALL_FRAMES (4116 + 50)

static void
seal_small(struct fixture *f, uint8_t *frames, uint8_t root[32])
{
    uint8_t *plain = pattern(SMALL_PLAIN);
    size_t n = 0;

    fixture_make(f, 4096);
    assert_int_equal(bk_group_seal(&f->payload, &f->cipher, 0, 1, plain, SMALL_PLAIN, frames, &n, root, NULL), BK_OK);
    assert_int_equal(n, SMALL_FRAMES);
    free(plain);
}

static void
test_every_bit_flip_is_refused(void **state)
{
    struct fixture f;
    uint8_t *frames = malloc(SMALL_FRAMES);
    uint8_t *plain = malloc(SMALL_PLAIN);
    uint8_t root[32];
    uint8_t got[32];
    size_t n;

    (void)state;
    assert_non_null(frames);
    assert_non_null(plain);
    seal_small(&f, frames, root);
    for (size_t bit = 0; bit < (size_t)SMALL_FRAMES * 8; bit++) {
        size_t in_frame = bit / 8 % 4116;
        struct bk_err err = {0};

        frames[bit / 8] ^= (uint8_t)(1u << bit % 8);
        n = 1;
        if (bk_group_open(&f.payload, &f.cipher, 0, 1, frames, SMALL_FRAMES, plain, &n, got, &err) !=
            (in_frame < 4 ? BK_E_FORMAT : BK_E_VERIFY))
            fail_msg("bit %zu", bit);
        assert_int_equal(n, 0);
        assert_non_null(strstr(err.message, bit / 8 < 4116 ? "segment 0" : "segment 1"));
        assert_string_equal(err.layer, "frames");
        if (bk_group_root(&f.cipher, 4096, 0, 1, frames, SMALL_FRAMES, got, NULL) == BK_OK)
            assert_memory_not_equal(got, root, 32);
        else
            assert_true(in_frame < 4);
        frames[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(bk_group_open(&f.payload, &f.cipher, 0, 1, frames, SMALL_FRAMES, plain, &n, got, NULL), BK_OK);
    free(frames);
    free(plain);
    fixture_free(&f);
}

static void
test_every_truncation_is_refused(void **state)
{
    struct fixture f;
    uint8_t frames[SMALL_FRAMES];
    uint8_t plain[SMALL_PLAIN];
    uint8_t root[32];
    size_t n;

    (void)state;
    seal_small(&f, frames, root);
    for (size_t len = 0; len < SMALL_FRAMES; len++) {
        uint8_t *copy = malloc(len > 0 ? len : 1);

        assert_non_null(copy);
        memcpy(copy, frames, len);
        assert_int_equal(bk_group_open(&f.payload, &f.cipher, 0, 1, copy, len, plain, &n, root, NULL), BK_E_FORMAT);
        assert_int_equal(bk_group_root(&f.cipher, 4096, 0, 1, copy, len, root, NULL), BK_E_FORMAT);
        free(copy);
    }
    fixture_free(&f);
}

static void
test_failure_leaves_no_plaintext(void **state)
{
    static const uint8_t zero[SMALL_PLAIN] = {0};
    struct fixture f;
    uint8_t frames[SMALL_FRAMES];
    uint8_t plain[SMALL_PLAIN];
    uint8_t before[SMALL_PLAIN];
    uint8_t root[32];
    size_t n;

    (void)state;
    seal_small(&f, frames, root);
    /* a wrong tag at the very end: what was opened before it is wiped */
    frames[SMALL_FRAMES - 1] ^= 1;
    memset(plain, 0xaa, sizeof plain);
    assert_int_equal(bk_group_open(&f.payload, &f.cipher, 0, 1, frames, SMALL_FRAMES, plain, &n, root, NULL),
                     BK_E_VERIFY);
    assert_memory_equal(plain, zero, sizeof plain);
    frames[SMALL_FRAMES - 1] ^= 1;
    /* a wrong word at the very end: nothing was opened at all, because all words are checked first */
    frames[4116] ^= 0x80;
    memset(plain, 0xaa, sizeof plain);
    memset(before, 0xaa, sizeof before);
    assert_int_equal(bk_group_open(&f.payload, &f.cipher, 0, 1, frames, SMALL_FRAMES, plain, &n, root, NULL),
                     BK_E_FORMAT);
    assert_memory_equal(plain, before, sizeof plain);
    fixture_free(&f);
}

static enum bk_code
open_at(struct fixture *f, uint64_t first, int last, const uint8_t *frames, size_t len)
{
    static uint8_t plain[33 * 4096];
    uint8_t root[32];
    size_t n = 0;
    enum bk_code rc = bk_group_open(&f->payload, &f->cipher, first, last, frames, len, plain, &n, root, NULL);
    enum bk_code keyless = bk_group_root(&f->cipher, 4096, first, last, frames, len, root, NULL);

    /* without keys the same shapes are refused, and only those */
    assert_int_equal(keyless, rc == BK_E_VERIFY ? BK_OK : rc);
    return rc;
}

static void
test_frames_in_the_wrong_place(void **state)
{
    struct fixture f;
    uint8_t *plain = pattern(32 * 4096);
    uint8_t *frames = malloc(33 * 4116);
    uint8_t *swapped = malloc(32 * 4116);
    uint8_t root[32];
    size_t n = 0;

    (void)state;
    assert_non_null(frames);
    assert_non_null(swapped);
    fixture_make(&f, 4096);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, 32, 0, plain, 32 * 4096, frames, &n, root, NULL), BK_OK);
    assert_int_equal(open_at(&f, 32, 0, frames, n), BK_OK);
    assert_int_equal(open_at(&f, 0, 0, frames, n), BK_E_VERIFY);
    assert_int_equal(open_at(&f, 64, 0, frames, n), BK_E_VERIFY);
    assert_int_equal(open_at(&f, 32, 1, frames, n), BK_E_FORMAT);
    assert_int_equal(open_at(&f, 32, 0, frames, n - 4116), BK_E_FORMAT);
    assert_int_equal(open_at(&f, 33, 0, frames, n), BK_E_INTERNAL);
    assert_int_equal(open_at(&f, BK_SEGMENTS_MAX, 0, frames, n), BK_E_FORMAT);
    memcpy(frames + n, frames, 4116);
    assert_int_equal(open_at(&f, 32, 0, frames, n + 4116), BK_E_FORMAT);
    assert_int_equal(open_at(&f, 32, 1, frames, n + 4116), BK_E_FORMAT);
    memcpy(swapped, frames, n);
    memcpy(swapped, frames + 4116, 4116);
    memcpy(swapped + 4116, frames, 4116);
    assert_int_equal(open_at(&f, 32, 0, swapped, n), BK_E_VERIFY);
    free(swapped);
    free(frames);
    free(plain);
    fixture_free(&f);
}

/* Frames whose words agree with their lengths, and which the format forbids all the same. */
static void
test_empty_and_marked_segments(void **state)
{
    struct fixture f;
    uint8_t frames[3 * 4116];
    uint8_t root[32];
    size_t n = 0;

    (void)state;
    fixture_make(&f, 4096);
    memset(frames, 0, sizeof frames);
    /* an empty last segment behind a full one, or behind a group */
    bk_put_u32(frames, 4096);
    bk_put_u32(frames + 4116, BK_WORD_LAST);
    assert_int_equal(open_at(&f, 0, 1, frames, 4116 + 20), BK_E_FORMAT);
    bk_put_u32(frames, BK_WORD_LAST);
    assert_int_equal(open_at(&f, 32, 1, frames, 20), BK_E_FORMAT);
    /* the same in an empty archive has the right shape */
    assert_int_equal(open_at(&f, 0, 1, frames, 20), BK_E_VERIFY);
    /* last twice, and a length that is not that of the frame */
    bk_put_u32(frames, BK_WORD_LAST | 4096);
    bk_put_u32(frames + 4116, BK_WORD_LAST | 4096);
    assert_int_equal(open_at(&f, 0, 1, frames, 2 * 4116), BK_E_FORMAT);
    bk_put_u32(frames, BK_WORD_LAST | 4095);
    assert_int_equal(open_at(&f, 0, 1, frames, 4116), BK_E_FORMAT);
    bk_put_u32(frames, 4096);
    assert_int_equal(open_at(&f, 0, 1, frames, 4116), BK_E_FORMAT);
    assert_int_equal(bk_group_root(&f.cipher, 4096, 0, 1, frames, 0, root, NULL), BK_E_FORMAT);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, 0, 1, frames, 0, frames + 100, &n, root, NULL), BK_OK);
    assert_int_equal(n, 20);
    fixture_free(&f);
}

/* One thread's cipher may be handed another archive: it must not go on under the first one's key. */
static void
test_cipher_follows_the_payload(void **state)
{
    struct fixture f;
    struct bk_payload other = {0};
    struct bk_cipher fresh = {.engine = engine};
    uint8_t a[64];
    uint8_t b[64];
    uint8_t c[64];
    uint8_t root[32];
    size_t n = 0;

    (void)state;
    fixture_make(&f, 4096);
    f.envelope_digest[0] ^= 1;
    assert_int_equal(bk_payload_init(&other, f.preamble, &f.file_key, f.envelope_digest, NULL), BK_OK);
    assert_int_equal(bk_group_seal(&f.payload, &f.cipher, 0, 1, (const uint8_t *)"hello", 5, a, &n, root, NULL), BK_OK);
    assert_int_equal(bk_group_seal(&other, &f.cipher, 0, 1, (const uint8_t *)"hello", 5, b, &n, root, NULL), BK_OK);
    assert_int_equal(bk_group_seal(&other, &fresh, 0, 1, (const uint8_t *)"hello", 5, c, &n, root, NULL), BK_OK);
    assert_memory_not_equal(a, b, n);
    assert_memory_equal(b, c, n);
    assert_int_equal(open_at(&f, 0, 1, b, n), BK_E_VERIFY);
    assert_int_equal(open_at(&f, 0, 1, a, n), BK_OK);
    bk_cipher_free(&fresh);
    bk_payload_wipe(&other);
    fixture_free(&f);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree_roots),
        cmocka_unit_test(test_tree_of_groups_is_the_tree_of_leaves),
        cmocka_unit_test(test_tree_hashes),
        cmocka_unit_test(test_key_commitment),
        cmocka_unit_test(test_payload_init_refuses),
        cmocka_unit_test(test_frames_of_another_implementation),
        cmocka_unit_test(test_groups_of_another_implementation),
        cmocka_unit_test(test_sizes_at_every_edge),
        cmocka_unit_test(test_frames_length),
        cmocka_unit_test(test_seal_refuses_what_is_no_group),
        cmocka_unit_test(test_every_bit_flip_is_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_failure_leaves_no_plaintext),
        cmocka_unit_test(test_frames_in_the_wrong_place),
        cmocka_unit_test(test_empty_and_marked_segments),
        cmocka_unit_test(test_cipher_follows_the_payload),
    };
    int locked;
    int failed = 0;

    if (bk_secret_init(&locked, NULL) != BK_OK)
        return 1;
    for (size_t i = 0; bk_engines[i] != NULL; i++) {
        engine = bk_engines[i];
        if (engine->fit() != BK_ENGINE_MISSING)
            failed += cmocka_run_group_tests_name(engine->name, tests, NULL, NULL);
    }
    return failed;
}
