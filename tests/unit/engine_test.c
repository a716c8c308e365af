/* Do the engines of format/engine.h give the same bytes, and is one that does not never used? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/secret.h"
#include "format/engine.h"

/* A key, a nonce and four bytes of associated data, as frames have them; from pyca/cryptography. */
static const uint8_t key[BK_PAYLOAD_KEY_LEN] = {0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65, 0x73, 0x1c, 0x6d, 0x6a, 0x8f,
                                                0x94, 0x67, 0x30, 0x83, 0x08, 0xfe, 0xff, 0xe9, 0x92, 0x86, 0x65,
                                                0x73, 0x1c, 0x6d, 0x6a, 0x8f, 0x94, 0x67, 0x30, 0x83, 0x08};
static const uint8_t nonce[BK_NONCE_LEN] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7};
#define ANSWER_PLAIN "the quick brown fox jumps over the lazy dog"
#define ANSWER                                                                                                         \
    "0000002b614d664f9ddc755707dd9e6bd8b3f25f112e5d68ed748985a46d1663ab96ef564e55afdeda9d1c24965505fd44bed9f42961e7f5" \
    "e1791df52f342d"

static const size_t lengths[] = {0,     1,     15,    16,    17,    31,    32,     33,      47,     48,    49,    63,
                                 64,    65,    127,   128,   129,   255,   256,    257,     511,    512,   513,   767,
                                 768,   769,   1023,  1024,  4095,  4096,  4097,   32767,   32768,  32769, 65407, 65408,
                                 65409, 65515, 65516, 65535, 65536, 65537, 131072, 1048575, 1048576};
#define LENGTHS  (sizeof lengths / sizeof lengths[0])
#define FRAME(n) ((n) + BK_FRAME_OVERHEAD)

/* The engines that run here, each with its state: the reference is the last. */
static struct {
    const struct bk_engine *e;
    void *state;
} here[4];
static size_t count;

static int
make_states(void **state)
{
    (void)state;
    for (size_t i = 0; bk_engines[i] != NULL; i++) {
        if (bk_engines[i]->fit() == BK_ENGINE_MISSING)
            continue;
        here[count].e = bk_engines[i];
        if (bk_engines[i]->make(&here[count].state, NULL) != BK_OK)
            return -1;
        count++;
    }
    return count > 0 ? 0 : -1;
}

static int
free_states(void **state)
{
    (void)state;
    for (size_t i = 0; i < count; i++)
        here[i].e->free(here[i].state);
    return 0;
}

static void
use_key(int sealing)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(here[i].e->set_key(here[i].state, key, sealing, NULL), BK_OK);
}

static uint8_t *
room(size_t len)
{
    uint8_t *at = malloc(len > 0 ? len : 1);

    assert_non_null(at);
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)((i * 7 + 3) % 251);
    return at;
}

static void
test_known_answer(void **state)
{
    size_t len = sizeof ANSWER_PLAIN - 1;
    uint8_t frame[FRAME(sizeof ANSWER_PLAIN - 1)];
    char hex[2 * sizeof frame + 1];

    (void)state;
    use_key(1);
    for (size_t i = 0; i < count; i++) {
        bk_put_u32(frame, (uint32_t)len);
        assert_true(here[i].e->seal(here[i].state, nonce, (const uint8_t *)ANSWER_PLAIN, len, frame));
        assert_string_equal(bk_hex(frame, sizeof frame, hex), ANSWER);
    }
}

static void
test_hash_known_answers(void **state)
{
    uint8_t leaf[1][BK_SHA256_LEN];
    char hex[65];

    (void)state;
    for (size_t i = 0; i < count; i++) {
        here[i].e->hash(here[i].state, (const uint8_t *)"abc", 3, 1, 3, leaf);
        assert_string_equal(bk_hex(leaf[0], 32, hex),
                            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}

/* Every length, sealed by one engine and opened by each, in buffers of exactly the right size. */
static void
test_same_frames(void **state)
{
    (void)state;
    for (size_t l = 0; l < LENGTHS; l++) {
        size_t len = lengths[l];
        uint8_t *plain = room(len), *back = room(len);
        uint8_t *want = room(FRAME(len)), *got = room(FRAME(len));

        use_key(1);
        bk_put_u32(want, (uint32_t)len);
        bk_put_u32(got, (uint32_t)len);
        assert_true(here[count - 1].e->seal(here[count - 1].state, nonce, plain, len, want));
        for (size_t i = 0; i < count; i++) {
            memset(got + 4, 0xaa, len + BK_FRAME_TAG);
            assert_true(here[i].e->seal(here[i].state, nonce, plain, len, got));
            assert_memory_equal(got, want, FRAME(len));
        }
        use_key(0);
        for (size_t i = 0; i < count; i++) {
            memset(back, 0xaa, len);
            assert_true(here[i].e->open(here[i].state, nonce, want, len, back));
            assert_memory_equal(back, plain, len);
        }
        free(plain);
        free(back);
        free(want);
        free(got);
    }
}

static void
test_same_leaves(void **state)
{
    static const size_t sizes[] = {20, 21, 55, 56, 63, 64, 65, 4116, 32788, 65407, 65408, 65409, 65556};
    uint8_t want[33][BK_SHA256_LEN], got[33][BK_SHA256_LEN];

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t n = 1; n <= 33; n++) {
            size_t final = n % 3 == 0 ? sizes[s] : 20 + n % (sizes[s] - 19);
            size_t len = (n - 1) * sizes[s] + final;
            uint8_t *frames = room(len);

            for (size_t i = 0; i < n; i++)
                bk_sha256(frames + i * sizes[s], i + 1 < n ? sizes[s] : final, want[i]);
            for (size_t i = 0; i < count; i++) {
                memset(got, 0, sizeof got);
                here[i].e->hash(here[i].state, frames, sizes[s], n, final, got);
                assert_memory_equal(got, want, n * BK_SHA256_LEN);
            }
            free(frames);
        }
}

static void
test_wrong_frames_are_refused(void **state)
{
    uint8_t plain[100], frame[FRAME(100)];

    (void)state;
    for (size_t i = 0; i < count; i++) {
        use_key(1);
        bk_put_u32(frame, 100);
        memset(plain, 7, sizeof plain);
        assert_true(here[i].e->seal(here[i].state, nonce, plain, 100, frame));
        use_key(0);
        for (size_t bit = 0; bit < sizeof frame * 8; bit++) {
            frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_false(here[i].e->open(here[i].state, nonce, frame, 100, plain));
            frame[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_true(here[i].e->open(here[i].state, nonce, frame, 100, plain));
    }
}

static void
test_all_pass_their_check(void **state)
{
    (void)state;
    for (size_t i = 0; i < count; i++)
        assert_int_equal(bk_engine_check(here[i].e, NULL), BK_OK);
}

/* --- engines that are wrong ------------------------------------------------------------------------------------- */

static int warnings;

static void
count_warning(void *ctx, const char *message)
{
    (void)ctx;
    assert_non_null(strstr(message, "bad"));
    warnings++;
}

static const struct bk_log listener = {.warn = count_warning};

static int
seal_wrongly(void *state, const uint8_t n[BK_NONCE_LEN], const uint8_t *plain, size_t len, uint8_t *frame)
{
    int done = bk_engine_openssl.seal(state, n, plain, len, frame);

    if (len == 17)
        frame[BK_FRAME_WORD] ^= 1;
    return done;
}

static int
seal_not(void *state, const uint8_t n[BK_NONCE_LEN], const uint8_t *plain, size_t len, uint8_t *frame)
{
    return len != 4095 && bk_engine_openssl.seal(state, n, plain, len, frame);
}

static int
open_always(void *state, const uint8_t n[BK_NONCE_LEN], const uint8_t *frame, size_t len, uint8_t *plain)
{
    (void)bk_engine_openssl.open(state, n, frame, len, plain);
    return 1;
}

static int
open_wrongly(void *state, const uint8_t n[BK_NONCE_LEN], const uint8_t *frame, size_t len, uint8_t *plain)
{
    int holds = bk_engine_openssl.open(state, n, frame, len, plain);

    if (len == 769)
        plain[768] ^= 1;
    return holds;
}

static void
hash_wrongly(void *state, const uint8_t *frames, size_t full, size_t n, size_t final, uint8_t (*leaves)[BK_SHA256_LEN])
{
    bk_engine_openssl.hash(state, frames, full, n, final, leaves);
    leaves[n / 2][31] ^= n > 1;
}

static enum bk_code
make_not(void **state, struct bk_err *err)
{
    (void)state;
    return bk_fail_nomem(err);
}

static enum bk_engine_fit
missing(void)
{
    return BK_ENGINE_MISSING;
}

static enum bk_engine_fit
slow(void)
{
    return BK_ENGINE_RUNS;
}

static void
check_falls_back(struct bk_engine *bad)
{
    const struct bk_engine *list[] = {bad, &bk_engine_openssl, NULL};
    const struct bk_engine *got = NULL;
    struct bk_err err = {0};

    warnings = 0;
    assert_int_equal(bk_engine_choose(list, NULL, &listener, &got, &err), BK_OK);
    assert_ptr_equal(got, &bk_engine_openssl);
    assert_int_equal(warnings, 1);
    assert_string_equal(err.message, "");
    got = NULL;
    assert_int_equal(bk_engine_choose(list, "bad", &listener, &got, &err), BK_E_INTERNAL);
    assert_non_null(strstr(err.message, "engine bad"));
    assert_null(got);
    assert_int_equal(warnings, 1);
}

static void
test_wrong_engines_are_not_used(void **state)
{
    struct bk_engine bad = bk_engine_openssl;

    (void)state;
    bad.name = "bad";
    bad.seal = seal_wrongly;
    check_falls_back(&bad);
    bad.seal = seal_not;
    check_falls_back(&bad);
    bad.seal = bk_engine_openssl.seal;
    bad.open = open_always;
    check_falls_back(&bad);
    bad.open = open_wrongly;
    check_falls_back(&bad);
    bad.open = bk_engine_openssl.open;
    bad.hash = hash_wrongly;
    check_falls_back(&bad);
}

static void
test_choice(void **state)
{
    struct bk_engine first = bk_engine_openssl;
    const struct bk_engine *list[] = {&first, &bk_engine_openssl, NULL};
    const struct bk_engine *got = NULL;
    struct bk_err err = {0};

    (void)state;
    first.name = "first";
    assert_int_equal(bk_engine_choose(list, "auto", &listener, &got, &err), BK_OK);
    assert_ptr_equal(got, &first);
    assert_int_equal(bk_engine_choose(list, "openssl", &listener, &got, &err), BK_OK);
    assert_ptr_equal(got, &bk_engine_openssl);
    assert_int_equal(bk_engine_choose(list, "second", &listener, &got, &err), BK_E_USAGE);
    /* not the fastest here: on demand only */
    first.fit = slow;
    assert_int_equal(bk_engine_choose(list, NULL, &listener, &got, &err), BK_OK);
    assert_ptr_equal(got, &bk_engine_openssl);
    assert_int_equal(bk_engine_choose(list, "first", &listener, &got, &err), BK_OK);
    assert_ptr_equal(got, &first);
    first.fit = missing;
    assert_int_equal(bk_engine_choose(list, NULL, &listener, &got, &err), BK_OK);
    assert_ptr_equal(got, &bk_engine_openssl);
    assert_int_equal(bk_engine_choose(list, "first", &listener, &got, &err), BK_E_USAGE);
    /* memory that is short is no reason to go on with another one */
    first.fit = bk_engine_openssl.fit;
    first.make = make_not;
    assert_int_equal(bk_engine_choose(list, NULL, &listener, &got, &err), BK_E_NO_ROOM);
    list[0] = NULL;
    assert_int_equal(bk_engine_choose(list, NULL, &listener, &got, &err), BK_E_INTERNAL);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answer),
        cmocka_unit_test(test_hash_known_answers),
        cmocka_unit_test(test_same_frames),
        cmocka_unit_test(test_same_leaves),
        cmocka_unit_test(test_wrong_frames_are_refused),
        cmocka_unit_test(test_all_pass_their_check),
        cmocka_unit_test(test_wrong_engines_are_not_used),
        cmocka_unit_test(test_choice),
    };
    int locked;

    if (bk_secret_init(&locked, NULL) != BK_OK)
        return 1;
    return cmocka_run_group_tests_name("engine", tests, make_states, free_states);
}
