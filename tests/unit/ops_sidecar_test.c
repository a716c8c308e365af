/* Is an envelope beside its archive as safe as one inside, and does the newest one always count? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ops/sidecar.h"
#include "tests/support/ops_fixture.h"

#define DATA     "every order since 1994"
#define DATA_LEN (sizeof DATA - 1)
#define SLOT     ((size_t)BK_SLOT_SIZE_DEFAULT)

static enum bk_code
wrap_detached(struct world *w, const char *name, int force)
{
    struct ops_wrap req = {.detach = 1, .force = force};
    struct ops_wrap_result result;

    return world_try_wrap(w, &req, name, DATA, DATA_LEN, &result);
}

static enum bk_code
wrap_inside(struct world *w, const char *name, int force)
{
    struct ops_wrap req = {.force = force};
    struct ops_wrap_result result;

    return world_try_wrap(w, &req, name, DATA, DATA_LEN, &result);
}

static enum bk_code
rekey_beside(struct world *w, const char *name, int from, int to, struct ops_rekey_result *result)
{
    const struct ops_rekey req = {.sidecar = 1};

    return world_rekey(w, name, from, to, 1, &req, result);
}

static void
flip_in(struct world *w, const char *name, size_t at)
{
    size_t len;
    uint8_t *bytes = world_get(w, name, &len);

    assert_true(at < len);
    bytes[at] ^= 4;
    world_put(w, name, bytes, len);
    free(bytes);
}

static void
copy(struct world *w, const char *from, const char *to)
{
    size_t len;
    uint8_t *bytes = world_get(w, from, &len);

    world_put(w, to, bytes, len);
    free(bytes);
}

static int
same(struct world *w, const char *a, const char *b)
{
    size_t a_len, b_len;
    uint8_t *x = world_get(w, a, &a_len), *y = world_get(w, b, &b_len);
    int equal = a_len == b_len && memcmp(x, y, a_len) == 0;

    free(x);
    free(y);
    return equal;
}

static void
a_detached_archive_comes_back(void **state)
{
    struct world *w = *state;

    assert_int_equal(wrap_detached(w, "a.bk", 0), BK_OK);
    assert_true(world_exists(w, "a.bk.keys"));
    assert_int_equal(world_entries(w), 2);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_DECRYPT, W_KEK_P256), BK_OK);
    world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
}

static void
without_its_sidecar_it_is_incomplete(void **state)
{
    struct world *w = *state;

    assert_int_equal(wrap_detached(w, "a.bk", 0), BK_OK);
    assert_int_equal(unlink(world_path(w, "a.bk.keys")), 0);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_SIGNATURE, W_KEK_P256), BK_E_INCOMPLETE);
    assert_non_null(strstr(w->err.hint, "a.bk.keys"));
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_INCOMPLETE);
    assert_false(world_exists(w, "out"));
}

static void
every_bit_of_a_sidecar_counts(void **state)
{
    struct world *w = *state;
    size_t len;

    assert_int_equal(wrap_detached(w, "a.bk", 0), BK_OK);
    free(world_get(w, "a.bk.keys", &len));
    for (size_t at = 0; at < len; at += 7) {
        flip_in(w, "a.bk.keys", at);
        assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_SIGNATURE, W_KEK_P256), BK_E_FORMAT);
        assert_non_null(strstr(w->err.message, "sidecar"));
        flip_in(w, "a.bk.keys", at);
    }
    world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
}

static void
another_archives_sidecar_is_refused(void **state)
{
    struct world *w = *state;

    assert_int_equal(wrap_detached(w, "a.bk", 0), BK_OK);
    assert_int_equal(wrap_detached(w, "b.bk", 0), BK_OK);
    copy(w, "b.bk.keys", "a.bk.keys");
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_SIGNATURE, W_KEK_P256), BK_E_VERIFY);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_VERIFY);
    /* and so is a newer one beside an archive that has its own inside: no falling back */
    struct ops_rekey_result result;
    assert_int_equal(wrap_inside(w, "c.bk", 0), BK_OK);
    assert_int_equal(world_rekey(w, "b.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    copy(w, "b.bk.keys", "c.bk.keys");
    assert_int_equal(world_unwrap(w, "c.bk", W_KEK_P256, "out", NULL), BK_E_VERIFY);
    assert_false(world_exists(w, "out"));
}

static void
nothing_is_replaced_that_could_be_lost(void **state)
{
    struct world *w = *state;

    assert_int_equal(wrap_detached(w, "a.bk", 0), BK_OK);
    /* two files cannot be replaced at one instant */
    assert_int_equal(wrap_detached(w, "a.bk", 1), BK_E_USAGE);
    /* a stray sidecar would be taken for the new archive's */
    assert_int_equal(unlink(world_path(w, "a.bk")), 0);
    assert_int_equal(wrap_inside(w, "a.bk", 0), BK_E_USAGE);
    assert_int_equal(wrap_detached(w, "a.bk", 0), BK_E_USAGE);
    assert_int_equal(world_entries(w), 1);
    /* a sidecar without its archive is all that --force may replace */
    assert_int_equal(wrap_detached(w, "a.bk", 1), BK_OK);
    world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
}

static void
rotating_a_detached_archive_leaves_it_alone(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;

    assert_int_equal(wrap_detached(w, "a.bk", 0), BK_OK);
    copy(w, "a.bk", "before");
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_true(result.changed && result.generation == 2);
    assert_true(same(w, "a.bk", "before"));
    world_assert_opens(w, "a.bk", W_KEK_P384, DATA, DATA_LEN);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_NO_KEY);
    copy(w, "a.bk.keys", "keys");
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_true(!result.changed && !result.mended);
    assert_true(same(w, "a.bk.keys", "keys"));
    assert_int_equal(world_entries(w), 4);
}

static void
a_sidecar_beside_an_envelope_inside(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;

    assert_int_equal(wrap_inside(w, "a.bk", 0), BK_OK);
    copy(w, "a.bk", "before");
    assert_int_equal(rekey_beside(w, "a.bk", W_KEK_P256, W_KEK_P384, &result), BK_OK);
    assert_true(same(w, "a.bk", "before"));
    world_assert_opens(w, "a.bk", W_KEK_P384, DATA, DATA_LEN);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_NO_KEY);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P384), BK_OK);
    assert_non_null(strstr(w->warnings, "older than the sidecar's"));
    /* the next rotation in place brings all three to one envelope, and the old key opens nothing any more */
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P384, W_KEK_RSA, 1, NULL, &result), BK_OK);
    assert_true(result.changed && result.mended && result.generation == 3);
    w->warnings[0] = '\0';
    world_assert_opens(w, "a.bk", W_KEK_RSA, DATA, DATA_LEN);
    assert_null(strstr(w->warnings, "older"));
    assert_int_equal(unlink(world_path(w, "a.bk.keys")), 0);
    world_assert_opens(w, "a.bk", W_KEK_RSA, DATA, DATA_LEN);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_NO_KEY);
}

static void
a_rotation_beside_is_brought_in_by_running_it_again(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;

    assert_int_equal(wrap_inside(w, "a.bk", 0), BK_OK);
    assert_int_equal(rekey_beside(w, "a.bk", W_KEK_P256, W_KEK_P384, &result), BK_OK);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_true(!result.changed && result.mended && result.generation == 2);
    assert_int_equal(unlink(world_path(w, "a.bk.keys")), 0);
    world_assert_opens(w, "a.bk", W_KEK_P384, DATA, DATA_LEN);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_NO_KEY);
}

static void
a_sidecar_heals_damage_inside_and_the_other_way_round(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;

    assert_int_equal(wrap_inside(w, "a.bk", 0), BK_OK);
    assert_int_equal(rekey_beside(w, "a.bk", W_KEK_P256, W_KEK_P384, &result), BK_OK);
    flip_in(w, "a.bk", BK_PREAMBLE_LEN + 100);
    flip_in(w, "a.bk", BK_PREAMBLE_LEN + SLOT + 100);
    world_assert_opens(w, "a.bk", W_KEK_P384, DATA, DATA_LEN);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P384), BK_E_FORMAT);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_true(result.mended);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P384), BK_OK);
    flip_in(w, "a.bk.keys", 100);
    world_assert_opens(w, "a.bk", W_KEK_P384, DATA, DATA_LEN);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P384), BK_E_FORMAT);
    assert_non_null(strstr(w->err.message, "sidecar"));
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_true(!result.changed && result.mended);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P384), BK_OK);
}

static void
one_generation_in_two_wordings_is_refused(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;

    assert_int_equal(wrap_inside(w, "a.bk", 0), BK_OK);
    copy(w, "a.bk", "b.bk");
    assert_int_equal(rekey_beside(w, "a.bk", W_KEK_P256, W_KEK_P384, &result), BK_OK);
    assert_int_equal(world_rekey(w, "b.bk", W_KEK_P256, W_KEK_RSA, 1, NULL, &result), BK_OK);
    copy(w, "a.bk.keys", "b.bk.keys");
    assert_int_equal(world_unwrap(w, "b.bk", W_KEK_RSA, "out", NULL), BK_E_FORMAT);
    assert_non_null(strstr(w->err.message, "differ"));
    assert_int_equal(world_rekey(w, "b.bk", W_KEK_RSA, W_KEK_P256, 1, NULL, &result), BK_E_FORMAT);
}

static void
a_failed_output_leaves_no_sidecar(void **state)
{
    struct world *w = *state;

    fake_key_fail_at(w->signer[W_BACKUP], 1, BK_E_TOKEN);
    assert_int_equal(wrap_detached(w, "a.bk", 0), BK_E_TOKEN);
    assert_int_equal(world_entries(w), 0);
}

/* Whoever can write the folder can put anything beside an archive: it is refused, and nobody waits for it. */
static void
what_is_no_sidecar_is_refused(void **state)
{
    struct world *w = *state;
    char path[PATH_MAX];
    uint8_t *large = calloc(1, OPS_SIDECAR_MAX + 1);

    assert_non_null(large);
    assert_int_equal(wrap_inside(w, "a.bk", 0), BK_OK);
    (void)snprintf(path, sizeof path, "%s", world_path(w, "a.bk" OPS_SIDECAR_SUFFIX));
    assert_int_equal(mkfifo(path, 0600), 0);
    (void)alarm(60); /* a reader that waits for a writer ends the test */
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_FORMAT);
    (void)alarm(0);
    assert_string_equal(w->err.layer, "slots");
    assert_non_null(strstr(w->err.message, "not an ordinary file"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_FORMAT);
    assert_non_null(strstr(w->err.message, "not an ordinary file"));
    assert_int_equal(rmdir(path), 0);
    world_put(w, "a.bk" OPS_SIDECAR_SUFFIX, large, OPS_SIDECAR_MAX + 1);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_FORMAT);
    assert_non_null(strstr(w->err.message, "1048577 bytes"));
    assert_false(world_exists(w, "out"));
    free(large);
}

/* A stream has no sidecar, and what is damaged in it is not called absent. */
static void
a_damaged_stream_is_not_called_detached(void **state)
{
    struct world *w = *state;
    size_t len;
    uint8_t *bytes;

    assert_int_equal(wrap_inside(w, "a.bk", 0), BK_OK);
    bytes = world_get(w, "a.bk", &len);
    bytes[BK_PREAMBLE_LEN] ^= 1;
    bytes[BK_PREAMBLE_LEN + SLOT] ^= 1;
    world_put(w, "a.bk", bytes, len);
    free(bytes);
    assert_int_equal(world_unwrap_stream(w, "a.bk", NULL, world_path(w, "out")), BK_E_FORMAT);
    assert_string_equal(w->err.layer, "slots");
    assert_non_null(strstr(w->err.message, "neither slot is whole"));
    assert_false(world_exists(w, "out"));
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, world_clean)
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_sidecar_is_refused),
        TEST(a_damaged_stream_is_not_called_detached),
        TEST(a_detached_archive_comes_back),
        TEST(without_its_sidecar_it_is_incomplete),
        TEST(every_bit_of_a_sidecar_counts),
        TEST(another_archives_sidecar_is_refused),
        TEST(nothing_is_replaced_that_could_be_lost),
        TEST(rotating_a_detached_archive_leaves_it_alone),
        TEST(a_sidecar_beside_an_envelope_inside),
        TEST(a_rotation_beside_is_brought_in_by_running_it_again),
        TEST(a_sidecar_heals_damage_inside_and_the_other_way_round),
        TEST(one_generation_in_two_wordings_is_refused),
        TEST(a_failed_output_leaves_no_sidecar),
    };

    return cmocka_run_group_tests(tests, world_make, world_free);
}
