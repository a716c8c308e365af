/* Does each way of base/sha256_x4.c give OpenSSL's answers, and is one that does not never used? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* the source itself: of its two ways the program takes one, and both are to be tried */
#include "base/sha256_x4.c"

#if defined(__x86_64__)

/* FIPS 180-4's examples, of NIST's "SHA256.pdf" and "SHA2_Additional.pdf" */
static const struct {
    const char *message;
    const uint8_t digest[BK_SHA256_LEN];
} known[] = {
    {"", {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
          0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55}},
    {"abc", {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
             0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad}},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     {0x24, 0x8d, 0x6a, 0x61, 0xd2, 0x06, 0x38, 0xb8, 0xe5, 0xc0, 0x26, 0x93, 0x0c, 0x3e, 0x60, 0x39,
      0xa3, 0x3c, 0xe4, 0x59, 0x64, 0xff, 0x21, 0x67, 0xf6, 0xec, 0xed, 0xd4, 0x19, 0xdb, 0x06, 0xc1}},
};

static compress_fn *ways[2];
static size_t way_count;

static int
find_ways(void **state)
{
    (void)state;
    if (!bk_sha256_x4_runs())
        return 0;
    ways[way_count++] = compress_sse;
    if (__builtin_cpu_supports("avx512vl"))
        ways[way_count++] = compress_evex;
    return 0;
}

static void
need_a_way(void)
{
    if (way_count == 0) {
        print_message("this processor has no SHA instructions\n");
        skip();
    }
}

static void
test_known_answers(void **state)
{
    uint8_t made[LANES][BK_SHA256_LEN];
    uint8_t *const digests[LANES] = {made[0], made[1], made[2], made[3]};

    (void)state;
    need_a_way();
    for (size_t way = 0; way < way_count; way++)
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
            const uint8_t *message = (const uint8_t *)known[k].message;
            const uint8_t *const messages[LANES] = {message, message, message, message};

            memset(made, 0, sizeof made);
            digest_with(ways[way], messages, strlen(known[k].message), digests);
            for (size_t i = 0; i < LANES; i++)
                assert_memory_equal(made[i], known[k].digest, BK_SHA256_LEN);
        }
}

/* Each message in memory of just its size, so that a byte read beside it is seen by the sanitizer. */
static void
try_length(compress_fn *way, size_t len)
{
    uint8_t *bytes[LANES], made[LANES][BK_SHA256_LEN], want[BK_SHA256_LEN];
    uint8_t *const digests[LANES] = {made[0], made[1], made[2], made[3]};
    uint32_t random = (uint32_t)len * 2654435761u + 1;

    for (size_t i = 0; i < LANES; i++) {
        assert_non_null(bytes[i] = malloc(len == 0 ? 1 : len));
        for (size_t b = 0; b < len; b++)
            bytes[i][b] = (uint8_t)((random = random * 1664525u + 1013904223u) >> 24);
    }
    digest_with(way, (const uint8_t *const *)bytes, len, digests);
    for (size_t i = 0; i < LANES; i++) {
        bk_sha256(bytes[i], len, want);
        assert_memory_equal(made[i], want, sizeof want);
        free(bytes[i]);
    }
}

static void
test_all_lengths(void **state)
{
    static const size_t long_ones[] = {4116, 32788, 65556, (1 << 20) + 20};

    (void)state;
    need_a_way();
    for (size_t way = 0; way < way_count; way++) {
        for (size_t len = 0; len <= 400; len++)
            try_length(ways[way], len);
        for (size_t i = 0; i < sizeof long_ones / sizeof long_ones[0]; i++)
            try_length(ways[way], long_ones[i]);
    }
}

/* Addresses that no vector instruction would choose. */
static void
test_any_alignment(void **state)
{
    uint8_t bytes[512 + 64], made[LANES][BK_SHA256_LEN], want[BK_SHA256_LEN];
    uint8_t *const digests[LANES] = {made[0], made[1], made[2], made[3]};

    (void)state;
    need_a_way();
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + i / 256);
    for (size_t at = 0; at < 61; at++) {
        const uint8_t *const messages[LANES] = {bytes + at, bytes + at + 1, bytes + at + 3, bytes + at};

        for (size_t way = 0; way < way_count; way++) {
            digest_with(ways[way], messages, 512, digests);
            for (size_t i = 0; i < LANES; i++) {
                bk_sha256(messages[i], 512, want);
                assert_memory_equal(made[i], want, sizeof want);
            }
        }
    }
}

static compress_fn *spoilt;
static size_t spoilt_lane;

static void
spoil(struct lane lanes[LANES], const uint8_t *const messages[LANES], size_t blocks)
{
    spoilt(lanes, messages, blocks);
    ((uint8_t *)&lanes[spoilt_lane])[5] ^= 1;
}

static void
test_a_wrong_way_is_seen(void **state)
{
    (void)state;
    need_a_way();
    for (size_t way = 0; way < way_count; way++) {
        assert_true(right(ways[way]));
        spoilt = ways[way];
        for (spoilt_lane = 0; spoilt_lane < LANES; spoilt_lane++)
            assert_false(right(spoil));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_all_lengths),
        cmocka_unit_test(test_any_alignment),
        cmocka_unit_test(test_a_wrong_way_is_seen),
    };

    return cmocka_run_group_tests(tests, find_ways, NULL);
}

#else

static void
test_nobody_has_it(void **state)
{
    (void)state;
    assert_false(bk_sha256_x4_runs());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nobody_has_it)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
