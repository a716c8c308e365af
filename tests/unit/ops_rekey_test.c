/* Does a rotation change who can open an archive and nothing else, never lose it, and believe only who may rotate? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "tests/support/ops_fixture.h"

#define DATA     "every order since 1994"
#define DATA_LEN (sizeof DATA - 1)
#define SLOT     ((size_t)BK_SLOT_SIZE_DEFAULT)
#define FRAMES   (BK_PREAMBLE_LEN + 2 * SLOT)

static void
wrap_for(struct world *w, int kek)
{
    struct ops_recipients r = {0};

    world_recipients(w, &r, kek, -1);
    world_wrap(w, "a.bk", DATA, DATA_LEN, &r);
    world_recipients_free(&r);
}

static void
assert_only(struct world *w, int opens, int fails)
{
    world_assert_opens(w, "a.bk", opens, DATA, DATA_LEN);
    assert_int_equal(world_unwrap(w, "a.bk", fails, "out", NULL), BK_E_NO_KEY);
    assert_false(world_exists(w, "out"));
}

static void
only_the_slots_change(void **state)
{
    static const struct {
        int from, to;
    } pairs[] = {{W_KEK_P256, W_KEK_P384}, {W_KEK_P384, W_KEK_RSA},  {W_KEK_RSA, W_KEK_P256},
                 {W_KEK_P256, W_KEK_AES},  {W_KEK_AES, W_KEK_AES_2}, {W_KEK_AES, W_KEK_RSA}};
    struct world *w = *state;

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct ops_rekey_result result;
        size_t len, len_after;
        uint8_t *before, *after;

        wrap_for(w, pairs[i].from);
        before = world_get(w, "a.bk", &len);
        assert_int_equal(world_rekey(w, "a.bk", pairs[i].from, pairs[i].to, 1, NULL, &result), BK_OK);
        after = world_get(w, "a.bk", &len_after);
        assert_true(result.changed && !result.old_stays && result.generation == 2);
        assert_int_equal(len, len_after);
        assert_memory_equal(before, after, BK_PREAMBLE_LEN);
        assert_memory_not_equal(before + BK_PREAMBLE_LEN, after + BK_PREAMBLE_LEN, SLOT);
        assert_memory_equal(after + BK_PREAMBLE_LEN, after + BK_PREAMBLE_LEN + SLOT, SLOT);
        assert_memory_equal(before + FRAMES, after + FRAMES, len - FRAMES);
        assert_only(w, pairs[i].to, pairs[i].from);
        assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, pairs[i].to), BK_OK);
        free(before);
        free(after);
        (void)world_clean(state);
    }
}

static void
done_twice_changes_nothing(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;
    size_t len, len_after;
    uint8_t *before, *after;

    wrap_for(w, W_KEK_P256);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    before = world_get(w, "a.bk", &len);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_true(!result.changed && !result.mended && result.generation == 2 && result.bytes_written == 0);
    after = world_get(w, "a.bk", &len_after);
    assert_int_equal(len, len_after);
    assert_memory_equal(before, after, len);
    free(before);
    free(after);
}

static void
the_old_key_stays_until_the_new_one_is_proven(void **state)
{
    struct world *w = *state;
    const struct ops_rekey unproven = {.unproven = 1};
    struct ops_rekey_result result;

    wrap_for(w, W_KEK_P256);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 0, NULL, &result), BK_OK);
    assert_true(result.changed && result.old_stays);
    assert_non_null(strstr(w->warnings, "the old one stays"));
    world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
    world_assert_opens(w, "a.bk", W_KEK_P384, DATA, DATA_LEN);
    /* again without proof: still both, and nothing new to say */
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 0, NULL, &result), BK_OK);
    assert_true(!result.changed && result.old_stays);
    /* with the new key at hand the old one goes */
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_true(result.changed && !result.old_stays && result.generation == 3);
    assert_only(w, W_KEK_P384, W_KEK_P256);
    /* or on somebody's word */
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P384, W_KEK_P256, 0, &unproven, &result), BK_OK);
    assert_true(result.changed && !result.old_stays);
    assert_only(w, W_KEK_P256, W_KEK_P384);
}

/* With a wrong --from the second run cannot finish, and must not look as if it had. */
static void
an_unfinished_exchange_is_told(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;

    wrap_for(w, W_KEK_P256);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 0, NULL, &result), BK_OK);
    w->warnings[0] = '\0';
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_RSA, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_true(!result.changed);
    assert_non_null(strstr(w->warnings, "the old key may still be one"));
    world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
    /* what is finished is not doubted */
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    w->warnings[0] = '\0';
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_true(!result.changed && w->warnings[0] == '\0');
}

static void
a_new_key_that_does_not_open_changes_nothing(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;
    size_t len;
    uint8_t *before, *after;

    wrap_for(w, W_KEK_P256);
    before = world_get(w, "a.bk", &len);
    fake_key_fail_at(w->kek[W_KEK_P384], 1, BK_E_VERIFY);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_E_VERIFY);
    assert_non_null(strstr(w->err.message, "does not open the archive"));
    after = world_get(w, "a.bk", &len);
    assert_memory_equal(before, after, len);
    free(before);
    free(after);
}

static void
blind_where_both_keys_are_aes(void **state)
{
    struct world *w = *state;
    const struct ops_rekey required = {.blind = OPS_BLIND_REQUIRED}, off = {.blind = OPS_BLIND_OFF};
    struct ops_rekey_result result;

    wrap_for(w, W_KEK_AES);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_AES, W_KEK_AES_2, 0, &required, &result), BK_OK);
    assert_int_equal(result.blindness, BK_BLIND_HOST_BLIND);
    assert_only(w, W_KEK_AES_2, W_KEK_AES);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_AES_2, W_KEK_AES, 1, &off, &result), BK_OK);
    assert_int_equal(result.blindness, BK_BLIND_HOST);
    assert_only(w, W_KEK_AES, W_KEK_AES_2);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_AES, W_KEK_P256, 1, &required, &result), BK_E_POLICY);
    assert_only(w, W_KEK_AES, W_KEK_P256);
}

/* The fake keys' token was seen to rotate blind. What becomes of that is told, and an exchange that cannot be blind for
 * what was asked for goes on. */
static void
what_was_blind_is_not_seen_silently(void **state)
{
    struct world *w = *state;
    char file[] = "kept.json", token[] = "pkcs11:token=fake", probed[] = "2026-11-24T07:00:00Z";
    struct ops_token_profile kept = {
        .file = file,
        .token = token,
        .probed = probed,
        .kinds = {{.kind = P11_AES256, .works = 1, .scheme = BK_SCHEME_AES_KW, .blind = 1}},
        .count = 1};
    const struct ops_token_profiles profiles = {&kept, 1};
    const struct ops_rekey off = {.blind = OPS_BLIND_OFF};
    struct ops_recipients added = {0};
    struct ops_rekey_result result;

    wrap_for(w, W_KEK_AES);
    w->profiles = &profiles;
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_AES, W_KEK_AES_2, 1, NULL, &result), BK_OK);
    assert_int_equal(result.blindness, BK_BLIND_HOST_BLIND);
    fake_key_forbid_blind(w->kek[W_KEK_AES]);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_AES_2, W_KEK_AES, 1, NULL, &result), BK_E_POLICY);
    assert_non_null(strstr(w->err.message, "rotated blind when it was probed (kept.json, 2026-11-24T07:00:00Z)"));
    assert_only(w, W_KEK_AES_2, W_KEK_AES);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_AES_2, W_KEK_P256, 1, NULL, &result), BK_OK);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_AES_2, 1, NULL, &result), BK_OK);
    world_recipients(w, &added, W_KEK_P384, -1);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_AES_2, W_KEK_AES, 1, &(struct ops_rekey){.add = &added}, &result),
                     BK_OK);
    world_recipients_free(&added);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_AES, W_KEK_AES_2, 1, &off, &result), BK_OK);
    kept.kinds[0].blind = 0;
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_AES_2, W_KEK_AES, 1, NULL, &result), BK_OK);
    assert_int_equal(result.blindness, BK_BLIND_HOST);
    w->profiles = NULL;
}

static void
added_and_removed(void **state)
{
    struct world *w = *state;
    struct ops_recipients more = {0};
    struct ops_rekey add = {.add = &more};
    struct ops_rekey drop_p256 = {.remove = &w->kek[W_KEK_P256]->pub.id, .remove_count = 1};
    struct ops_rekey drop_p384 = {.remove = &w->kek[W_KEK_P384]->pub.id, .remove_count = 1};
    struct ops_rekey_result result;

    wrap_for(w, W_KEK_P256);
    world_recipients(w, &more, W_KEK_P384, W_KEK_RSA, -1);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, -1, 0, &add, &result), BK_OK);
    world_recipients_free(&more);
    assert_non_null(strstr(w->warnings, "granted reading"));
    for (int kek = W_KEK_P256; kek <= W_KEK_RSA; kek++)
        world_assert_opens(w, "a.bk", kek, DATA, DATA_LEN);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, -1, 0, &drop_p384, &result), BK_OK);
    assert_only(w, W_KEK_P256, W_KEK_P384);
    /* whoever opens it now may not be the one who leaves, unless somebody else was seen to open it */
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, -1, 0, &drop_p256, &result), BK_E_POLICY);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_RSA, -1, 0, &drop_p256, &result), BK_OK);
    assert_only(w, W_KEK_RSA, W_KEK_P256);
}

static void
only_a_trusted_rotator_may(void **state)
{
    static const int signers[] = {W_STRANGER, W_BACKUP, W_OTHER_BACKUP};
    struct world *w = *state;
    struct ops_rekey_result result;
    size_t len;
    uint8_t *before, *after;

    wrap_for(w, W_KEK_P256);
    before = world_get(w, "a.bk", &len);
    for (size_t i = 0; i < 3; i++) {
        const struct bk_signing_key signing = {w->signer[signers[i]], w->cert[signers[i]].data,
                                               w->cert[signers[i]].len};
        const struct ops_rekey req = {.signers = &signing, .signer_count = 1};

        assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, &req, &result), BK_E_UNTRUSTED);
    }
    after = world_get(w, "a.bk", &len);
    assert_memory_equal(before, after, len);
    free(before);
    free(after);
}

/* The rotator's own trust lets it through; those who do not share it refuse what it made. */
static void
a_record_by_an_untrusted_key_is_refused(void **state)
{
    struct world *w = *state;
    const struct bk_signing_key signing = {w->signer[W_STRANGER], w->cert[W_STRANGER].data, w->cert[W_STRANGER].len};
    struct ops_trust own = {0};
    const struct ops_rekey req = {.signers = &signing, .signer_count = 1, .trust = &own};
    struct ops_rekey_result result;

    assert_int_equal(ops_trust_add_public(&own, OPS_ROLE_BACKUP, &w->signer[W_BACKUP]->pub, &w->err), BK_OK);
    assert_int_equal(ops_trust_add_public(&own, OPS_ROLE_ROTATE, &w->signer[W_STRANGER]->pub, &w->err), BK_OK);
    wrap_for(w, W_KEK_P256);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, &req, &result), BK_OK);
    ops_trust_free(&own);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P384), BK_E_UNTRUSTED);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P384, "out", NULL), BK_E_UNTRUSTED);
    assert_non_null(strstr(w->err.message, "record"));
    assert_false(world_exists(w, "out"));
}

static void
a_dry_run_writes_nothing(void **state)
{
    struct world *w = *state;
    const struct ops_rekey dry = {.dry_run = 1};
    struct ops_rekey_result result;
    size_t len;
    uint8_t *before, *after;

    wrap_for(w, W_KEK_P256);
    before = world_get(w, "a.bk", &len);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, &dry, &result), BK_OK);
    assert_true(result.changed && result.bytes_written == 0);
    after = world_get(w, "a.bk", &len);
    assert_memory_equal(before, after, len);
    free(before);
    free(after);
}

/* Slot B new, slot A old, as a rekey leaves it that was killed between its two writes; and the other way round. */
static void
an_interrupted_rekey_is_finished(void **state)
{
    struct world *w = *state;

    for (int torn = 0; torn < 2; torn++) {
        struct ops_rekey_result result;
        size_t len;
        uint8_t *old, *new;

        wrap_for(w, W_KEK_P256);
        old = world_get(w, "a.bk", &len);
        assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
        new = world_get(w, "a.bk", &len);
        memcpy(new + BK_PREAMBLE_LEN + (size_t)torn *SLOT, old + BK_PREAMBLE_LEN, SLOT);
        world_put(w, "a.bk", new, len);
        assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P384), BK_OK);
        assert_non_null(strstr(w->warnings, "interrupted"));
        world_assert_opens(w, "a.bk", W_KEK_P384, DATA, DATA_LEN);
        assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
        assert_true(!result.changed && result.mended);
        free(new);
        new = world_get(w, "a.bk", &len);
        assert_memory_equal(new + BK_PREAMBLE_LEN, new + BK_PREAMBLE_LEN + SLOT, SLOT);
        assert_only(w, W_KEK_P384, W_KEK_P256);
        free(old);
        free(new);
        (void)world_clean(state);
    }
}

static void
a_damaged_slot_is_mended_by_a_rekey(void **state)
{
    struct world *w = *state;

    for (int slot = 0; slot < 2; slot++) {
        struct ops_rekey_result result;
        size_t len;
        uint8_t *bytes;

        wrap_for(w, W_KEK_P256);
        bytes = world_get(w, "a.bk", &len);
        memset(bytes + BK_PREAMBLE_LEN + (size_t)slot * SLOT, 0xee, SLOT);
        world_put(w, "a.bk", bytes, len);
        free(bytes);
        assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_SIGNATURE, W_KEK_P256), BK_E_FORMAT);
        assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
        assert_true(result.changed && result.mended);
        assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_SIGNATURE, W_KEK_P384), BK_OK);
        assert_only(w, W_KEK_P384, W_KEK_P256);
        (void)world_clean(state);
    }
}

static void
rolled_back_to_an_older_genuine_envelope(void **state)
{
    struct world *w = *state;
    struct ops_expect newer = {.min_generation = 2};
    const struct ops_unwrap req = {.expect = &newer};
    struct ops_rekey_result result;
    size_t len;
    uint8_t *old;

    wrap_for(w, W_KEK_P256);
    old = world_get(w, "a.bk", &len);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    world_put(w, "a.bk", old, len);
    free(old);
    /* an archive alone cannot show it, and says so */
    world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
    assert_non_null(strstr(w->warnings, "freshness not checked"));
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", &req), BK_E_UNEXPECTED);
    assert_false(world_exists(w, "out"));
}

static void
an_envelope_from_another_archive_is_refused(void **state)
{
    struct world *w = *state;
    size_t len, len_b;
    uint8_t *a, *b;
    struct ops_rekey_result result;

    wrap_for(w, W_KEK_P256);
    a = world_get(w, "a.bk", &len);
    assert_int_equal(unlink(world_path(w, "a.bk")), 0);
    wrap_for(w, W_KEK_P384);
    b = world_get(w, "a.bk", &len_b);
    memcpy(a + BK_PREAMBLE_LEN, b + BK_PREAMBLE_LEN, 2 * SLOT);
    world_put(w, "a.bk", a, len);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_SIGNATURE, W_KEK_P384), BK_E_VERIFY);
    assert_non_null(strstr(w->err.message, "not the one that was signed with this archive"));
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P384, "out", NULL), BK_E_VERIFY);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P384, W_KEK_RSA, 1, NULL, &result), BK_E_VERIFY);
    assert_false(world_exists(w, "out"));
    free(a);
    free(b);
}

/* Another backup signer, trusted as such, strips the manifest from a victim's archive and signs it as its own. */
static void
steal(struct world *w)
{
    const struct bk_signing_key thief = {w->signer[W_OTHER_BACKUP], w->cert[W_OTHER_BACKUP].data,
                                         w->cert[W_OTHER_BACKUP].len};
    struct ops_archive a = {0};
    struct store_source *src = NULL;
    struct bk_buf der = {0};
    struct bk_tail tail;
    size_t len, keep;
    uint8_t *bytes, *forged;

    assert_int_equal(store_source_open(world_path(w, "a.bk"), NULL, &src, &w->err), BK_OK);
    assert_int_equal(ops_archive_open(&a, src, &w->trust, NULL, &w->err), BK_OK);
    assert_int_equal(bk_signed_make(a.manifest_signed.content.data, a.manifest_signed.content.len, BK_CONTENT_MANIFEST,
                                    &thief, 1, bk_time_now(), &der, &w->err),
                     BK_OK);
    bytes = world_get(w, "a.bk", &len);
    keep = (size_t)a.layout.manifest_offset;
    forged = malloc(keep + der.len + BK_TAIL_LEN);
    assert_non_null(forged);
    memcpy(forged, bytes, keep);
    bk_put_u32(forged + keep - 4, (uint32_t)der.len);
    memcpy(forged + keep, der.data, der.len);
    tail = a.tail;
    tail.manifest_length = (uint32_t)der.len;
    tail.total_length = keep + der.len + BK_TAIL_LEN;
    bk_tail_write(&tail, forged + keep + der.len);
    world_put(w, "a.bk", forged, (size_t)tail.total_length);
    free(forged);
    free(bytes);
    bk_buf_free(&der);
    ops_archive_free(&a);
    store_source_close(src);
}

static void
a_stolen_ciphertext_is_not_opened_in_the_thiefs_name(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;
    size_t len;
    uint8_t *before, *after;

    wrap_for(w, W_KEK_P256);
    steal(w);
    /* public keys alone cannot tell: the thief is trusted, and what it signed is true */
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P256), BK_OK);
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_DECRYPT, W_KEK_P256), BK_E_VERIFY);
    assert_int_equal(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), BK_E_VERIFY);
    assert_non_null(strstr(w->err.message, "stolen"));
    assert_false(world_exists(w, "out"));
    before = world_get(w, "a.bk", &len);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_E_VERIFY);
    after = world_get(w, "a.bk", &len);
    assert_memory_equal(before, after, len);
    free(before);
    free(after);
}

static void
the_history_names_every_key(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;
    struct ops_archive a = {0};
    struct store_source *src = NULL;

    wrap_for(w, W_KEK_P256);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_OK);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P384, W_KEK_RSA, 1, NULL, &result), BK_OK);
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_RSA, W_KEK_P256, 1, NULL, &result), BK_OK);
    assert_int_equal(store_source_open(world_path(w, "a.bk"), NULL, &src, &w->err), BK_OK);
    assert_int_equal(ops_archive_open(&a, src, &w->trust, NULL, &w->err), BK_OK);
    assert_int_equal(a.record.generation, 4);
    assert_int_equal(a.record.history_count, 3);
    assert_true(bk_key_id_equal(&a.record.history[0].key_ids[0], &w->kek[W_KEK_P256]->pub.id));
    assert_true(bk_key_id_equal(&a.record.history[1].key_ids[0], &w->kek[W_KEK_P384]->pub.id));
    assert_true(bk_key_id_equal(&a.record.history[2].key_ids[0], &w->kek[W_KEK_RSA]->pub.id));
    assert_int_equal(a.record.proven_count, 1);
    ops_archive_free(&a);
    store_source_close(src);
}

static void
a_full_slot_changes_nothing(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;
    enum bk_code rc = BK_OK;
    size_t rotations = 0, len, len_after;
    uint8_t *before = NULL, *after;

    wrap_for(w, W_KEK_P256);
    while (rc == BK_OK) {
        int from = rotations % 2 == 0 ? W_KEK_P256 : W_KEK_P384;

        free(before);
        before = world_get(w, "a.bk", &len);
        rc = world_rekey(w, "a.bk", from, from == W_KEK_P256 ? W_KEK_P384 : W_KEK_P256, 1, NULL, &result);
        rotations += rc == BK_OK;
        assert_true(rotations < 2000);
    }
    assert_int_equal(rc, BK_E_NO_ROOM);
    assert_true(w->err.hint[0] != '\0');
    assert_true(rotations > 200); /* FORMAT.md: about 290 with three recipients */
    after = world_get(w, "a.bk", &len_after);
    assert_memory_equal(before, after, len);
    world_assert_opens(w, "a.bk", rotations % 2 == 0 ? W_KEK_P256 : W_KEK_P384, DATA, DATA_LEN);
    print_message("rotations until the slot was full: %zu\n", rotations);
    free(before);
    free(after);
}

static void
reads_do_not_depend_on_the_payload(void **state)
{
    struct world *w = *state;
    static const size_t lengths[] = {100 * 1024, 3 * 1024 * 1024};
    struct ops_rekey_result result[2];

    for (size_t i = 0; i < 2; i++) {
        uint8_t *data = world_bytes(lengths[i]);

        world_wrap(w, "a.bk", data, lengths[i], NULL);
        assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result[i]), BK_OK);
        free(data);
        (void)world_clean(state);
    }
    assert_int_equal(result[0].bytes_read, result[1].bytes_read);
    assert_int_equal(result[0].bytes_written, result[1].bytes_written);
    assert_int_equal(result[0].bytes_written, 2 * SLOT);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, world_clean)
    const struct CMUnitTest tests[] = {
        TEST(only_the_slots_change),
        TEST(done_twice_changes_nothing),
        TEST(the_old_key_stays_until_the_new_one_is_proven),
        TEST(an_unfinished_exchange_is_told),
        TEST(a_new_key_that_does_not_open_changes_nothing),
        TEST(blind_where_both_keys_are_aes),
        TEST(added_and_removed),
        TEST(only_a_trusted_rotator_may),
        TEST(a_record_by_an_untrusted_key_is_refused),
        TEST(a_dry_run_writes_nothing),
        TEST(an_interrupted_rekey_is_finished),
        TEST(a_damaged_slot_is_mended_by_a_rekey),
        TEST(rolled_back_to_an_older_genuine_envelope),
        TEST(an_envelope_from_another_archive_is_refused),
        TEST(a_stolen_ciphertext_is_not_opened_in_the_thiefs_name),
        TEST(the_history_names_every_key),
        TEST(a_full_slot_changes_nothing),
        TEST(reads_do_not_depend_on_the_payload),
        TEST(what_was_blind_is_not_seen_silently), /* last: one key is never blind again */
    };

    return cmocka_run_group_tests(tests, world_make, world_free);
}
