/* Does the engine of ipsec-mb hash rightly in either way, though a processor is given one of them? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef BK_HAVE_IPSEC_MB

/* the source itself: which way is taken is its own affair */
#include "format/engine_ipsec_mb.c"

static void
try_frames(struct state *s, size_t full, size_t n, size_t final)
{
    size_t len = (n - 1) * full + final;
    uint8_t *frames = malloc(len), made[2 * LANES + 1][BK_SHA256_LEN], want[BK_SHA256_LEN];

    assert_non_null(frames);
    for (size_t i = 0; i < len; i++)
        frames[i] = (uint8_t)(i * 2654435761u >> 11);
    memset(made, 0, sizeof made);
    hash(s, frames, full, n, final, made);
    for (size_t i = 0; i < n; i++) {
        bk_sha256(frames + i * full, i + 1 < n ? full : final, want);
        assert_memory_equal(made[i], want, sizeof want);
    }
    free(frames);
}

static void
try_way(int in_lanes)
{
    static const size_t sizes[] = {20, 55, 56, 64, 4116, 32788, LANE_BYTES_MAX, LANE_BYTES_MAX + 1};
    void *state;

    if (fit() == BK_ENGINE_MISSING) {
        print_message("not for this processor\n");
        skip();
    }
    assert_int_equal(state_make(&state, NULL), BK_OK);
    ((struct state *)state)->in_lanes = in_lanes;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t n = 1; n <= 2 * LANES + 1; n++)
            try_frames(state, sizes[i], n, n % 2 == 0 ? sizes[i] : 20 + n % (sizes[i] - 19));
    state_free(state);
}

/* On a processor without AVX-512 the library has fewer lanes, and the same answers. */
static void
test_in_lanes(void **state)
{
    (void)state;
    try_way(1);
}

static void
test_four_at_once(void **state)
{
    (void)state;
    try_way(0);
}

#else

static void
test_in_lanes(void **state)
{
    (void)state;
    skip();
}

static void
test_four_at_once(void **state)
{
    (void)state;
    skip();
}

#endif

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_lanes), cmocka_unit_test(test_four_at_once)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
