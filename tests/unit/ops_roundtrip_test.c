/* Does what is wrapped come back, whatever its length, and only to those whom it was wrapped for? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "format/payload.h"
#include "store/guard.h"
#include "tests/support/ops_fixture.h"

#define SEGMENT ((size_t)BK_SEGMENT_SIZE_MIN)
#define GROUP   (SEGMENT * BK_GROUP_SEGMENTS)

static void
every_length_comes_back(void **state)
{
    static const size_t lengths[] = {
        0,         1,         SEGMENT - 1,         SEGMENT,       SEGMENT + 1, GROUP - 1, GROUP,
        GROUP + 1, 2 * GROUP, 3 * GROUP + SEGMENT, 7 * GROUP + 13};
    struct world *w = *state;

    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t *data = world_bytes(lengths[i]);

        world_wrap(w, "a.bk", data, lengths[i], NULL);
        assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_SIGNATURE, W_KEK_P256), BK_OK);
        assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P256), BK_OK);
        assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_DECRYPT, W_KEK_P256), BK_OK);
        world_assert_opens(w, "a.bk", W_KEK_P256, data, lengths[i]);
        free(data);
        (void)world_clean(state);
    }
}

static void
empty_input_is_refused_unless_allowed(void **state)
{
    struct world *w = *state;
    struct ops_wrap req = {0};
    struct ops_wrap_result result;

    assert_int_equal(world_try_wrap(w, &req, "a.bk", "", 0, &result), BK_E_IO);
    assert_non_null(strstr(w->err.hint, "--allow-empty"));
    assert_int_equal(world_entries(w), 0);
}

static void
every_recipient_opens_alone(void **state)
{
    struct world *w = *state;
    struct ops_recipients r = {0};

    world_recipients(w, &r, W_KEK_P256, W_KEK_P384, W_KEK_RSA, W_KEK_AES, -1);
    world_wrap(w, "a.bk", "orders", 6, &r);
    for (int kek = W_KEK_P256; kek <= W_KEK_AES; kek++)
        world_assert_opens(w, "a.bk", kek, "orders", 6);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_AES_2, "out", NULL), BK_E_NO_KEY);
    assert_false(world_exists(w, "out"));
    world_recipients_free(&r);
}

static void
one_signature_and_no_private_key_to_wrap(void **state)
{
    struct world *w = *state;
    unsigned signed_before = fake_key_operations(w->signer[W_BACKUP]);
    unsigned opened_before = fake_key_operations(w->kek[W_KEK_P256]);

    world_wrap(w, "a.bk", "orders", 6, NULL);
    assert_int_equal(fake_key_operations(w->signer[W_BACKUP]) - signed_before, 1);
    assert_int_equal(fake_key_operations(w->kek[W_KEK_P256]) - opened_before, 0);
    world_assert_opens(w, "a.bk", W_KEK_P256, "orders", 6);
    assert_int_equal(fake_key_operations(w->kek[W_KEK_P256]) - opened_before, 1);
}

static void
a_failing_signer_leaves_nothing(void **state)
{
    struct world *w = *state;
    struct ops_wrap req = {0};
    struct ops_wrap_result result;

    fake_key_fail_at(w->signer[W_BACKUP], 1, BK_E_TOKEN);
    assert_int_equal(world_try_wrap(w, &req, "a.bk", "orders", 6, &result), BK_E_TOKEN);
    assert_int_equal(world_entries(w), 0);
}

static enum bk_code
unwrap_range(struct world *w, uint64_t offset, uint64_t length)
{
    const struct ops_unwrap req = {.has_range = 1, .offset = offset, .length = length, .force = 1};

    return world_unwrap(w, "a.bk", W_KEK_P256, "range", &req);
}

static void
ranges_are_those_bytes(void **state)
{
    struct world *w = *state;
    size_t len = 3 * GROUP + 100, got;
    uint8_t *data = world_bytes(len);
    const struct {
        uint64_t offset, length;
    } ranges[] = {{0, 1},          {0, len},           {GROUP - 1, 2},         {GROUP, GROUP},  {len - 1, 1},
                  {3 * GROUP, 50}, {5, 2 * GROUP + 9}, {SEGMENT, SEGMENT + 1}, {17, UINT64_MAX}};

    world_wrap(w, "a.bk", data, len, NULL);
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        size_t expected = ranges[i].length == UINT64_MAX ? len - ranges[i].offset : ranges[i].length;
        uint8_t *plain;

        assert_int_equal(unwrap_range(w, ranges[i].offset, ranges[i].length), BK_OK);
        plain = world_get(w, "range", &got);
        assert_int_equal(got, expected);
        assert_memory_equal(plain, data + ranges[i].offset, expected);
        free(plain);
    }
    assert_int_equal(unlink(world_path(w, "range")), 0);
    assert_int_equal(unwrap_range(w, len, 1), BK_E_USAGE);
    assert_int_equal(unwrap_range(w, len + 1, UINT64_MAX), BK_E_USAGE);
    assert_int_equal(unwrap_range(w, 1, len), BK_E_USAGE);
    assert_false(world_exists(w, "range"));
    free(data);
}

static void
private_notes_come_back(void **state)
{
    struct world *w = *state;
    const struct bk_metadata_item notes[] = {{"database", "orders"}, {"host", "db-1"}, {"empty", ""}};
    struct ops_wrap req = {.metadata = notes, .metadata_count = 3};
    const struct ops_unwrap meta = {.meta_only = 1};
    struct ops_wrap_result result;
    size_t len;
    uint8_t *archive, *text;

    assert_int_equal(world_try_wrap(w, &req, "a.bk", "x", 1, &result), BK_OK);
    archive = world_get(w, "a.bk", &len);
    assert_null(memmem(archive, len, "orders", 6));
    free(archive);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "meta", &meta), BK_OK);
    text = world_get(w, "meta", &len);
    assert_int_equal(len, strlen("database=orders\nhost=db-1\nempty=\n"));
    assert_memory_equal(text, "database=orders\nhost=db-1\nempty=\n", len);
    free(text);
}

static void
a_stream_is_restored_into_a_file(void **state)
{
    static const size_t lengths[] = {1, SEGMENT, GROUP - 1, GROUP, GROUP + 1, 5 * GROUP + 7};
    struct world *w = *state;

    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t *data = world_bytes(lengths[i]), *plain;
        size_t got;

        world_wrap(w, "a.bk", data, lengths[i], NULL);
        assert_int_equal(world_unwrap_stream(w, "a.bk", NULL, world_path(w, "out")), BK_OK);
        plain = world_get(w, "out", &got);
        assert_int_equal(got, lengths[i]);
        assert_memory_equal(plain, data, got);
        free(plain);
        free(data);
        (void)world_clean(state);
    }
}

static void
a_cut_or_longer_stream_is_refused(void **state)
{
    struct world *w = *state;
    size_t len;
    uint8_t *data = world_bytes(GROUP + 5), *archive;

    world_wrap(w, "a.bk", data, GROUP + 5, NULL);
    archive = world_get(w, "a.bk", &len);
    for (size_t cut = 1; cut < len; cut += 997) {
        world_put(w, "cut.bk", archive, len - cut);
        assert_true(bk_code_is_verification(world_unwrap_stream(w, "cut.bk", NULL, world_path(w, "out"))));
        assert_false(world_exists(w, "out"));
    }
    archive[len] = 0; /* world_get leaves room for one more */
    world_put(w, "long.bk", archive, len + 1);
    assert_true(bk_code_is_verification(world_unwrap_stream(w, "long.bk", NULL, world_path(w, "out"))));
    assert_false(world_exists(w, "out"));
    free(archive);
    free(data);
}

static void
a_stream_does_not_leave_unverified(void **state)
{
    struct world *w = *state;
    struct ops_wrap req = {.manifest_copy = NULL};
    struct ops_wrap_result result;
    char kept[PATH_MAX];
    char *const consumer[] = {(char *)"cat", NULL};
    struct ops_unwrap to_command = {.command = consumer};

    (void)snprintf(kept, sizeof kept, "%s", world_path(w, "a.manifest"));
    req.manifest_copy = kept;
    assert_int_equal(world_try_wrap(w, &req, "a.bk", "", 0, &result), BK_E_IO);
    req.allow_empty = 1;
    req.recipients = NULL;
    req.signers = NULL;
    req.input = NULL;
    assert_int_equal(world_try_wrap(w, &req, "a.bk", "", 0, &result), BK_OK);
    assert_int_equal(world_unwrap_stream(w, "a.bk", &to_command, NULL), BK_E_USAGE);
    to_command.manifest_path = kept;
    assert_int_equal(world_unwrap_stream(w, "a.bk", &to_command, NULL), BK_OK);
    to_command.manifest_path = NULL;
    to_command.allow_unverified = 1;
    assert_int_equal(world_unwrap_stream(w, "a.bk", &to_command, NULL), BK_OK);
}

/* Published last, the copy would replace the archive that it is of, or stand where a sidecar does. */
static void
a_manifests_copy_has_a_name_of_its_own(void **state)
{
    static const char *const taken[] = {"a.bk", "a.bk.keys"};
    struct world *w = *state;

    for (size_t i = 0; i < 2; i++) {
        char copy[PATH_MAX];
        struct ops_wrap req = {.manifest_copy = copy, .force = 1};
        struct ops_wrap_result result;

        (void)snprintf(copy, sizeof copy, "%s", world_path(w, taken[i]));
        assert_int_equal(world_try_wrap(w, &req, "a.bk", "x", 1, &result), BK_E_USAGE);
        assert_int_equal(world_entries(w), 0);
    }
}

static void
another_archives_manifest_is_not_this_ones(void **state)
{
    struct world *w = *state;
    struct ops_wrap req = {0};
    struct ops_wrap_result result;
    char kept[PATH_MAX];
    struct ops_unwrap with_kept = {0};

    (void)snprintf(kept, sizeof kept, "%s", world_path(w, "b.manifest"));
    req.manifest_copy = kept;
    world_wrap(w, "a.bk", "one", 3, NULL);
    assert_int_equal(world_try_wrap(w, &req, "b.bk", "two", 3, &result), BK_OK);
    with_kept.manifest_path = kept;
    assert_true(bk_code_is_verification(world_unwrap(w, "a.bk", W_KEK_P256, "out", &with_kept)));
    assert_false(world_exists(w, "out"));
    assert_int_equal(world_unwrap(w, "b.bk", W_KEK_P256, "out", &with_kept), BK_OK);
}

static enum bk_code
expect_one(struct world *w, const char *text)
{
    struct ops_expect expect = {0};
    const struct ops_unwrap req = {.expect = &expect, .force = 1};

    assert_int_equal(ops_expect_add(&expect, text, &w->err), BK_OK);
    return world_unwrap(w, "a.bk", W_KEK_P256, "out", &req);
}

static void
only_the_expected_archive_is_restored(void **state)
{
    struct world *w = *state;
    struct ops_wrap req = {.label = "nightly", .sequence = "run=7"};
    struct ops_wrap_result result;
    char id[BK_UUID_TEXT], digest[65], text[160], fingerprint[OPS_FINGERPRINT_TEXT];

    assert_int_equal(world_try_wrap(w, &req, "a.bk", "x", 1, &result), BK_OK);
    (void)snprintf(text, sizeof text, "archive=%s", bk_uuid_text(result.archive_id, id));
    assert_int_equal(expect_one(w, text), BK_OK);
    text[10] = text[10] == '0' ? '1' : '0';
    assert_int_equal(expect_one(w, text), BK_E_UNEXPECTED);
    (void)snprintf(text, sizeof text, "manifest=%s", bk_hex(result.manifest_digest, 32, digest));
    assert_int_equal(expect_one(w, text), BK_OK);
    text[20] = text[20] == '0' ? '1' : '0';
    assert_int_equal(expect_one(w, text), BK_E_UNEXPECTED);
    assert_int_equal(expect_one(w, "label=nightly"), BK_OK);
    assert_int_equal(expect_one(w, "label=weekly"), BK_E_UNEXPECTED);
    assert_int_equal(expect_one(w, "sequence=run=7"), BK_OK);
    assert_int_equal(expect_one(w, "sequence=run=8"), BK_E_UNEXPECTED);
    assert_int_equal(expect_one(w, "created-after=2020-01-01"), BK_OK);
    assert_int_equal(expect_one(w, "created-after=2999-01-01"), BK_E_UNEXPECTED);
    (void)snprintf(text, sizeof text, "signer=%s", ops_fingerprint_text(&w->signer[W_BACKUP]->pub, fingerprint));
    assert_int_equal(expect_one(w, text), BK_OK);
}

static void
who_is_not_trusted_is_not_believed(void **state)
{
    struct world *w = *state;
    struct bk_signing_key signing = {w->signer[W_STRANGER], w->cert[W_STRANGER].data, w->cert[W_STRANGER].len};
    struct ops_trust nobody = {0};
    struct ops_unwrap untrusting = {.trust = &nobody};
    struct ops_wrap req = {.signers = &signing, .signer_count = 1};
    struct ops_wrap_result result;

    assert_int_equal(world_try_wrap(w, &req, "a.bk", "x", 1, &result), BK_OK);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_UNTRUSTED);
    assert_non_null(strstr(w->err.hint, "sha256:"));
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", &untrusting), BK_E_USAGE);
    /* a rotator signs no manifests */
    signing = (struct bk_signing_key){w->signer[W_ROTATOR], w->cert[W_ROTATOR].data, w->cert[W_ROTATOR].len};
    req = (struct ops_wrap){.signers = &signing, .signer_count = 1};
    assert_int_equal(world_try_wrap(w, &req, "b.bk", "x", 1, &result), BK_OK);
    assert_int_equal(world_unwrap(w, "b.bk", W_KEK_P256, "out", NULL), BK_E_UNTRUSTED);
    assert_false(world_exists(w, "out"));
}

static void
two_signers_must_both_be_trusted(void **state)
{
    struct world *w = *state;
    struct bk_signing_key two[] = {
        {w->signer[W_BACKUP], w->cert[W_BACKUP].data, w->cert[W_BACKUP].len},
        {w->signer[W_OTHER_BACKUP], w->cert[W_OTHER_BACKUP].data, w->cert[W_OTHER_BACKUP].len}};
    struct ops_wrap req = {.signers = two, .signer_count = 2};
    struct ops_wrap_result result;

    assert_int_equal(world_try_wrap(w, &req, "a.bk", "x", 1, &result), BK_OK);
    world_assert_opens(w, "a.bk", W_KEK_P256, "x", 1);
    two[1] = (struct bk_signing_key){w->signer[W_STRANGER], w->cert[W_STRANGER].data, w->cert[W_STRANGER].len};
    req = (struct ops_wrap){.signers = two, .signer_count = 2};
    assert_int_equal(world_try_wrap(w, &req, "b.bk", "x", 1, &result), BK_OK);
    assert_int_equal(world_unwrap(w, "b.bk", W_KEK_P256, "out", NULL), BK_E_UNTRUSTED);
}

static void
a_producer_that_fails_leaves_nothing(void **state)
{
    struct world *w = *state;
    char *const fails[] = {(char *)"sh", (char *)"-c", (char *)"seq 1 100000; exit 3", NULL};
    char *const killed[] = {(char *)"sh", (char *)"-c", (char *)"seq 1 100; kill -9 $$", NULL};
    char *const silent[] = {(char *)"sh", (char *)"-c", (char *)"exit 1", NULL};
    char *const absent[] = {(char *)"/nonexistent/pg_dump", NULL};
    char *const *const producers[] = {fails, killed, silent, absent};
    struct ops_wrap_result result;

    for (size_t i = 0; i < 4; i++) {
        struct ops_wrap req = {.command = producers[i]};

        assert_int_equal(world_try_wrap(w, &req, "a.bk", "", 0, &result), BK_E_COMMAND);
        assert_int_equal(world_entries(w), 0);
    }
}

int
main(int argc, char **argv)
{
#define TEST(f) cmocka_unit_test_setup(f, world_clean)
    const struct CMUnitTest tests[] = {
        TEST(every_length_comes_back),
        TEST(empty_input_is_refused_unless_allowed),
        TEST(every_recipient_opens_alone),
        TEST(one_signature_and_no_private_key_to_wrap),
        TEST(a_failing_signer_leaves_nothing),
        TEST(ranges_are_those_bytes),
        TEST(private_notes_come_back),
        TEST(a_stream_is_restored_into_a_file),
        TEST(a_cut_or_longer_stream_is_refused),
        TEST(a_stream_does_not_leave_unverified),
        TEST(a_manifests_copy_has_a_name_of_its_own),
        TEST(another_archives_manifest_is_not_this_ones),
        TEST(only_the_expected_archive_is_restored),
        TEST(who_is_not_trusted_is_not_believed),
        TEST(two_signers_must_both_be_trusted),
        TEST(a_producer_that_fails_leaves_nothing),
    };

    (void)argc;
    if (store_guard_called(argv))
        return store_guard_main(argv); /* this program plays bk-unwrap, and so its guard */
    return cmocka_run_group_tests(tests, world_make, world_free);
}
