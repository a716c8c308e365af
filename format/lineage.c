/* The lineage of an envelope: how one key record follows from another. docs/FORMAT.md, KeyRecord. */
#include <stdlib.h>
#include <string.h>

#include "format/record.h"

static int
same(const uint8_t a[32], const uint8_t b[32])
{
    return memcmp(a, b, 32) == 0;
}

/* 1 if the envelope has a recipient of that id. One of a later version cannot be read, only searched for the id. */
static int
is_recipient(const struct bk_envelope *e, const struct bk_key_id *id)
{
    if (bk_envelope_find(e, id) >= 0)
        return 1;
    for (size_t i = 0; i < e->recipient_count; i++) {
        const struct bk_recipient *r = &e->recipients[i];

        if (r->kind == BK_RECIPIENT_UNKNOWN && r->raw.len > 0 &&
            memmem(r->raw.data, r->raw.len, id->bytes, id->len) != NULL)
            return 1;
    }
    return 0;
}

static enum bk_code
check_names(const struct bk_record *r, const struct bk_envelope *e, struct bk_err *err)
{
    char text[BK_KEY_ID_TEXT];

    for (size_t i = 0; i < r->hint_count; i++)
        if (!is_recipient(e, &r->hints[i].id))
            return bk_fail(err, BK_E_VERIFY, "hint for key %s, which is no recipient of the envelope",
                           bk_key_id_text(&r->hints[i].id, text));
    for (size_t i = 0; i < r->proven_count; i++)
        if (!is_recipient(e, &r->proven[i]))
            return bk_fail(err, BK_E_VERIFY, "key %s is called proven and is no recipient of the envelope",
                           bk_key_id_text(&r->proven[i], text));
    return BK_OK;
}

/* Generation 1 hangs on the manifest's signature; each later one names the first, the one before, and the manifest. */
static enum bk_code
check_anchor(const struct bk_record *r, const uint8_t record_digest[32], const struct bk_manifest *manifest,
             const uint8_t manifest_digest[32], struct bk_err *err)
{
    if (r->generation == 1 && !same(record_digest, manifest->record_digest))
        return bk_fail(err, BK_E_VERIFY, "not the first record that the manifest names");
    if (r->generation == 1)
        return BK_OK;
    if (!same(r->history[0].record_digest, manifest->record_digest))
        return bk_fail(err, BK_E_VERIFY, "history does not begin with the record that the manifest names");
    if (!same(r->history[r->history_count - 1].record_digest, r->previous))
        return bk_fail(err, BK_E_VERIFY, "history does not end with the record that previous names");
    if (!same(r->manifest_digest, manifest_digest))
        return bk_fail(err, BK_E_VERIFY, "made for another manifest than this archive's");
    return BK_OK;
}

static enum bk_code
check(const struct bk_record *r, const uint8_t record_digest[32], uint64_t slot_generation,
      const uint8_t envelope_hash[32], const struct bk_envelope *envelope, const struct bk_manifest *manifest,
      const uint8_t manifest_digest[32], struct bk_err *err)
{
    enum bk_code rc;

    if (memcmp(r->archive_id, manifest->archive_id, BK_UUID_LEN) != 0)
        return bk_fail(err, BK_E_VERIFY, "made for another archive than the manifest's");
    if (r->generation != slot_generation)
        return bk_fail(err, BK_E_VERIFY, "of generation %llu in a slot of generation %llu",
                       (unsigned long long)r->generation, (unsigned long long)slot_generation);
    if (r->generation < 1 || r->history_count != r->generation - 1)
        return bk_fail(err, BK_E_VERIFY, "of generation %llu with a history of %zu", (unsigned long long)r->generation,
                       r->history_count);
    if (!same(r->envelope_hash, envelope_hash))
        return bk_fail(err, BK_E_VERIFY, "envelopeHash is not that of the envelope beside it");
    if ((rc = check_anchor(r, record_digest, manifest, manifest_digest, err)) != BK_OK)
        return rc;
    return check_names(r, envelope, err);
}

enum bk_code
bk_record_check(const struct bk_record *r, const uint8_t record_digest[32], uint64_t slot_generation,
                const uint8_t envelope_hash[32], const struct bk_envelope *envelope, const struct bk_manifest *manifest,
                const uint8_t manifest_digest[32], struct bk_err *err)
{
    enum bk_code rc = check(r, record_digest, slot_generation, envelope_hash, envelope, manifest, manifest_digest, err);

    if (rc != BK_OK) {
        bk_err_prefix(err, "record");
        bk_err_layer(err, "record");
    }
    return rc;
}

static enum bk_code
past_new(struct bk_past *p, const uint8_t digest[32], const struct bk_key_id *ids, size_t count, struct bk_err *err)
{
    memcpy(p->record_digest, digest, sizeof p->record_digest);
    if (count == 0)
        return BK_OK;
    p->key_ids = calloc(count, sizeof *p->key_ids);
    if (p->key_ids == NULL)
        return bk_fail_nomem(err);
    memcpy(p->key_ids, ids, count * sizeof *ids);
    p->key_id_count = count;
    return BK_OK;
}

/* What the old generation leaves behind: its digest and its recipients, in the order of the envelope. A recipient of a
 * later version has no id that this program could read, and a history must name every KEK: so it may not rekey. */
static enum bk_code
past_of(struct bk_past *p, const uint8_t old_digest[32], const struct bk_envelope *e, struct bk_err *err)
{
    struct bk_key_id ids[BK_RECIPIENTS_MAX];

    for (size_t i = 0; i < e->recipient_count; i++) {
        if (e->recipients[i].kind != BK_RECIPIENT_KNOWN)
            return bk_fail(err, BK_E_NEWER, "a recipient is of a kind that this program cannot name in the history");
        ids[i] = e->recipients[i].wrapped.id;
    }
    return past_new(p, old_digest, ids, e->recipient_count, err);
}

enum bk_code
bk_record_next(const struct bk_record *old, const uint8_t old_digest[32], const struct bk_envelope *old_envelope,
               const uint8_t manifest_digest[32], struct bk_record *out, struct bk_err *err)
{
    struct bk_record r = {.generation = old->generation + 1};
    enum bk_code rc = BK_OK;

    if (old->history_count >= BK_HISTORY_MAX) {
        rc = bk_fail(err, BK_E_NO_ROOM, "a history of %zu rotations is full", old->history_count);
        bk_err_hint(err, "re-encrypt the archive: a new one begins with an empty history");
        goto done;
    }
    memcpy(r.archive_id, old->archive_id, sizeof r.archive_id);
    memcpy(r.previous, old_digest, sizeof r.previous);
    memcpy(r.manifest_digest, manifest_digest, sizeof r.manifest_digest);
    r.history = calloc(old->history_count + 1, sizeof *r.history);
    if (r.history == NULL) {
        rc = bk_fail_nomem(err);
        goto done;
    }
    r.history_count = old->history_count + 1;
    for (size_t i = 0; i < old->history_count && rc == BK_OK; i++) {
        const struct bk_past *p = &old->history[i];

        rc = past_new(&r.history[i], p->record_digest, p->key_ids, p->key_id_count, err);
    }
    if (rc == BK_OK)
        rc = past_of(&r.history[old->history_count], old_digest, old_envelope, err);
    if (rc != BK_OK)
        goto done;
    *out = r;
    r = (struct bk_record){0};
done:
    bk_record_free(&r);
    if (rc != BK_OK) {
        bk_err_prefix(err, "record");
        bk_err_layer(err, "record");
    }
    return rc;
}
