#include "ops/rekey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "ops/rekey_prove.h"
#include "ops/sidecar.h"
#include "store/edit.h"

#define LOCK_WAIT_SECONDS 30

struct rekeying {
    const struct ops_rekey *req;
    struct store_edit *edit;  /* NULL in a dry run */
    struct store_source *src; /* the edit's, or our own in a dry run */
    struct ops_archive archive;

    struct bk_key *from;
    int from_owned;
    struct bk_key_id from_id;
    int from_found; /* the key that opens is a recipient of this archive */

    struct bk_secret cek; /* stays empty in a blind rekey */
    struct bk_envelope next;
    struct bk_key_id proven[BK_RECIPIENTS_MAX];
    size_t proven_count;
    enum bk_blindness blindness;
    int changed;
    int old_stays;
    int beside;      /* only the sidecar is written */
    uint64_t peeked; /* bytes read before the lock was held */
    uint64_t sidecar_written;
    uint8_t *slot;         /* what both slots will hold; NULL when only the sidecar is written */
    struct bk_buf sidecar; /* what the sidecar will hold; empty when there is none */
};

/* A detached archive is never written itself, so it need not be writable. What is no archive is found out later. */
static enum bk_code
is_detached(struct rekeying *r, const char *path, struct bk_err *err)
{
    struct bk_preamble preamble;
    struct bk_err ignored = {0};
    uint8_t bytes[BK_PREAMBLE_LEN];
    size_t got = 0;
    enum bk_code rc;

    if ((rc = store_source_open(path, r->req->cancel, &r->src, err)) != BK_OK)
        return rc;
    rc = store_source_read(r->src, bytes, sizeof bytes, &got, err);
    r->peeked = got;
    if (rc == BK_OK && bk_preamble_parse(bytes, got, &preamble, &ignored) == BK_OK)
        r->beside = (preamble.flags & BK_FLAG_DETACHED) != 0;
    return rc;
}

static enum bk_code
open_source(struct rekeying *r, const char *path, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = is_detached(r, path, err)) != BK_OK)
        return rc;
    r->beside |= r->req->sidecar;
    if (r->req->dry_run)
        return BK_OK;
    store_source_close(r->src);
    r->src = NULL;
    rc = store_edit_open(path, r->beside ? STORE_EDIT_BESIDE : STORE_EDIT_IN_PLACE, LOCK_WAIT_SECONDS, r->req->cancel,
                         &r->edit, err);
    if (rc == BK_OK)
        r->src = store_edit_source(r->edit);
    return rc;
}

static enum bk_code
open_archive(struct rekeying *r, const char *path, struct bk_err *err)
{
    enum bk_code rc = open_source(r, path, err);

    if (rc != BK_OK) {
        bk_err_layer(err, "file");
        return rc;
    }
    return ops_archive_open(&r->archive, r->src, r->req->trust, r->req->log, err);
}

static const struct ops_recipient *
successor(const struct rekeying *r)
{
    return r->req->to != NULL && r->req->to->count > 0 ? &r->req->to->items[0] : NULL;
}

static int
is_recipient(const struct rekeying *r, const struct bk_key_id *id)
{
    return bk_envelope_find(&r->archive.envelope, id) >= 0;
}

/* An earlier run may have left the old key where it was: then a key that is not found is no sign that all is done. */
static void
warn_if_unfinished(const struct rekeying *r, const struct bk_key_id *to)
{
    const struct bk_record *record = &r->archive.record;
    char id[BK_KEY_ID_TEXT];

    for (size_t i = 0; i < record->proven_count; i++)
        if (bk_key_id_equal(&record->proven[i], to))
            return;
    if (record->proven_count > 0 && !r->req->unproven)
        bk_warn(r->req->log,
                "%s: nothing is done: --from opens nothing here; %s is a recipient already, but was not "
                "seen to open the archive when others were: the old key may still be one too",
                store_source_name(r->src), bk_key_id_text(to, id));
}

/* A key that opens nothing here is no error if its successor is in place already: the work was done before. */
static enum bk_code
find_from(struct rekeying *r, struct bk_err *err)
{
    const struct ops_recipient *to = successor(r);
    size_t at = 0;
    enum bk_code rc = ops_keyring_find(r->req->from, &r->archive, &r->from, &r->from_owned, &at, err);

    if (rc == BK_E_NO_KEY && to != NULL && is_recipient(r, &to->pub.id)) {
        warn_if_unfinished(r, &to->pub.id);
        return BK_OK;
    }
    if (rc != BK_OK) {
        bk_err_layer(err, "key");
        return rc;
    }
    r->from_found = 1;
    r->from_id = r->archive.envelope.recipients[at].wrapped.id;
    if (to != NULL && bk_key_id_equal(&to->pub.id, &r->from_id))
        return bk_fail(err, BK_E_USAGE, "--to is the very key that opens the archive now");
    return BK_OK;
}

static void
add_proven(struct rekeying *r, const struct bk_key_id *id)
{
    for (size_t i = 0; i < r->proven_count; i++)
        if (bk_key_id_equal(&r->proven[i], id))
            return;
    if (r->proven_count < BK_RECIPIENTS_MAX)
        r->proven[r->proven_count++] = *id;
}

/* FORMAT.md: before anything is wrapped the key package is checked, else rekey would unwrap transplanted keys. */
static enum bk_code
open_cek(struct rekeying *r, struct bk_err *err)
{
    const struct ops_keyring ring = {.keys = &r->from, .key_count = 1};
    struct bk_key_package package = {0};
    struct bk_key_id opened_by;
    enum bk_code rc;

    if (r->cek.data != NULL)
        return BK_OK;
    rc = ops_keyring_open(&ring, &r->archive, &r->cek, &package, &opened_by, err);
    bk_key_package_free(&package);
    return rc;
}

static enum bk_code
put_recipient(struct rekeying *r, const struct bk_wrapped *wrapped, struct bk_err *err)
{
    if (bk_envelope_find(&r->next, &wrapped->id) >= 0)
        return BK_OK;
    r->changed = 1;
    return bk_envelope_add(&r->next, wrapped, err);
}

/* The wrapped key that a recipient has or gets, and whether it was seen to open the archive. */
static enum bk_code
wrap_for(struct rekeying *r, const struct ops_recipient *recipient, struct bk_wrapped *wrapped, int *proven,
         struct bk_err *err)
{
    int at = bk_envelope_find(&r->next, &recipient->pub.id);
    const struct ops_prover prover = {.p11 = r->req->p11, .keys = r->req->provers, .key_count = r->req->prover_count};
    enum bk_code rc = open_cek(r, err);

    if (rc != BK_OK)
        return rc;
    if (at >= 0)
        *wrapped = r->next.recipients[at].wrapped;
    else if ((rc = ops_recipient_wrap(recipient, &r->cek, wrapped, err)) != BK_OK)
        return rc;
    if ((rc = ops_prove(&prover, recipient, wrapped, &r->cek, proven, err)) == BK_OK && *proven)
        add_proven(r, &recipient->pub.id);
    return rc;
}

static void
drop(struct rekeying *r, const struct bk_key_id *id)
{
    int at = bk_envelope_find(&r->next, id);

    if (at < 0)
        return;
    bk_envelope_remove(&r->next, (size_t)at);
    r->changed = 1;
}

/* The old key goes first: an archive that has the most recipients has no room for one more. */
static enum bk_code
put_in_its_place(struct rekeying *r, const struct bk_wrapped *wrapped, struct bk_err *err)
{
    drop(r, &r->from_id);
    return put_recipient(r, wrapped, err);
}

/* AES to AES on one token: the data key never leaves it. *done 0: this pair of keys cannot. */
static enum bk_code
replace_blind(struct rekeying *r, const struct ops_recipient *to, int *done, struct bk_err *err)
{
    int at = bk_envelope_find(&r->next, &to->pub.id);
    int from_at = bk_envelope_find(&r->next, &r->from_id);
    struct bk_wrapped wrapped = {0};
    enum bk_code rc = BK_E_UNSUPPORTED;

    *done = 0;
    if (to->key != NULL)
        rc = bk_key_rewrap(r->from, &r->next.recipients[from_at].wrapped, to->key, &wrapped, err);
    if (rc == BK_E_UNSUPPORTED)
        return BK_OK;
    if (rc != BK_OK)
        return rc;
    /* AES key wrap is deterministic: what an earlier pass left must be the same again */
    if (at >= 0 && r->next.recipients[at].wrapped.scheme == wrapped.scheme &&
        memcmp(r->next.recipients[at].wrapped.data, wrapped.data, BK_AESKW_LEN) != 0)
        return bk_fail(err, BK_E_VERIFY, "the wrapped key that %s holds is not this archive's", "the new recipient");
    *done = 1;
    r->blindness = r->from->enforces && to->key->enforces ? BK_BLIND_TOKEN_ENFORCED : BK_BLIND_HOST_BLIND;
    add_proven(r, &to->pub.id);
    return put_in_its_place(r, &wrapped, err);
}

static enum bk_code
refuse_sighted(struct bk_err *err)
{
    enum bk_code rc = bk_fail(err, BK_E_POLICY,
                              "this cannot be done without the data key passing through this host, "
                              "and --blind required forbids that");

    bk_err_hint(err, "only --to can be blind, between two AES keys on one token, both allowed to wrap and unwrap");
    return rc;
}

/* Where the token was seen to rotate blind, an exchange that is not has to be asked for. */
static enum bk_code
refuse_silent_sight(const struct ops_token_profile *p, const struct ops_recipient *to, struct bk_err *err)
{
    enum bk_code rc = bk_fail(err, BK_E_POLICY,
                              "%s: its token rotated blind when it was probed (%s, %s), and cannot between these keys",
                              to->pub.uri, p->file, p->probed);

    bk_err_hint(err, "both keys must be allowed to wrap and unwrap; --blind off lets the data key pass through this "
                     "host");
    return rc;
}

/* *done 0: it is to be exchanged in the sight of this host. */
static enum bk_code
replace_unseen(struct rekeying *r, const struct ops_recipient *to, int *done, struct bk_err *err)
{
    int possible = r->req->blind != OPS_BLIND_OFF && r->req->add->count == 0 && r->req->remove_count == 0;
    const struct ops_token_profile *promise;
    enum bk_code rc = possible ? replace_blind(r, to, done, err) : BK_OK;

    if (rc != BK_OK || *done)
        return rc;
    if (r->req->blind == OPS_BLIND_REQUIRED)
        return refuse_sighted(err);
    promise = ops_token_profiles_blind(r->req->to->profiles, &r->from->pub, &to->pub);
    return possible && promise != NULL ? refuse_silent_sight(promise, to, err) : BK_OK;
}

static enum bk_code
replace(struct rekeying *r, const struct ops_recipient *to, struct bk_err *err)
{
    struct bk_wrapped wrapped = {0};
    char id[BK_KEY_ID_TEXT];
    int done = 0, proven = 0;
    enum bk_code rc = replace_unseen(r, to, &done, err);

    if (rc != BK_OK || done)
        return rc;
    if ((rc = wrap_for(r, to, &wrapped, &proven, err)) != BK_OK)
        return rc;
    if (proven || r->req->unproven)
        return put_in_its_place(r, &wrapped, err);
    if ((rc = put_recipient(r, &wrapped, err)) != BK_OK)
        return rc;
    r->old_stays = 1;
    add_proven(r, &r->from_id);
    bk_warn(r->req->log,
            "%s: the new recipient %s was not seen to open the archive, so the old one stays; run this "
            "again where the new key's token is, with its URI as --to",
            store_source_name(r->src), bk_key_id_text(&to->pub.id, id));
    return BK_OK;
}

/* Before --to, for a key that gives nothing to a host: what is there beside the two must be able to. */
static enum bk_code
check_restorable(const struct rekeying *r, const struct ops_recipient *to, struct bk_err *err)
{
    enum bk_code rc;

    for (size_t i = 0; i < r->next.recipient_count; i++) {
        const struct bk_key_id *id = &r->next.recipients[i].wrapped.id;

        if (!bk_key_id_equal(id, &r->from_id) && !bk_key_id_equal(id, &to->pub.id))
            return BK_OK;
    }
    rc = bk_fail(
        err, BK_E_POLICY,
        "nobody could restore this any more: what the new key, one for rotation alone, opens stays in its token");
    bk_err_hint(err, "first grant another key the reading of it: bk-rekey --add");
    return rc;
}

static enum bk_code
add_all(struct rekeying *r, struct bk_err *err)
{
    char id[BK_KEY_ID_TEXT];
    enum bk_code rc = BK_OK;

    if (r->req->add->count > 0 && r->req->blind == OPS_BLIND_REQUIRED)
        return refuse_sighted(err);
    for (size_t i = 0; i < r->req->add->count && rc == BK_OK; i++) {
        const struct ops_recipient *recipient = &r->req->add->items[i];
        struct bk_wrapped wrapped = {0};
        int proven;

        if ((rc = wrap_for(r, recipient, &wrapped, &proven, err)) == BK_OK)
            rc = put_recipient(r, &wrapped, err);
        if (rc == BK_OK && !is_recipient(r, &recipient->pub.id))
            bk_warn(r->req->log, "%s: %s is granted reading of this archive", store_source_name(r->src),
                    bk_key_id_text(&recipient->pub.id, id));
    }
    return rc;
}

/* Somebody who was seen to open the archive must be left. */
static enum bk_code
remove_named(struct rekeying *r, struct bk_err *err)
{
    size_t seen = 0;

    if (r->req->remove_count == 0)
        return BK_OK;
    if (r->req->blind == OPS_BLIND_REQUIRED)
        return refuse_sighted(err);
    if (open_cek(r, err) != BK_OK)
        return err->code;
    add_proven(r, &r->from_id);
    for (size_t i = 0; i < r->req->remove_count; i++) {
        if (is_recipient(r, &r->req->remove[i]))
            drop(r, &r->req->remove[i]);
        else
            bk_warn(r->req->log, "%s: a key to be removed is no recipient of it", store_source_name(r->src));
    }
    for (size_t i = 0; i < r->proven_count; i++)
        seen += bk_envelope_find(&r->next, &r->proven[i]) >= 0;
    if (seen > 0 || r->req->unproven)
        return BK_OK;
    return bk_fail(err, BK_E_POLICY, "after this removal nobody is left who was seen to open the archive");
}

static void
keep_proven_recipients(struct rekeying *r)
{
    size_t kept = 0;

    for (size_t i = 0; i < r->proven_count; i++)
        if (bk_envelope_find(&r->next, &r->proven[i]) >= 0)
            r->proven[kept++] = r->proven[i];
    r->proven_count = kept;
}

static enum bk_code
plan(struct rekeying *r, struct bk_err *err)
{
    const struct bk_slot *slot = &r->archive.slot;
    const struct ops_recipient *to = successor(r);
    enum bk_code rc;

    if ((rc = find_from(r, err)) != BK_OK || !r->from_found)
        return rc;
    if ((rc = bk_envelope_parse(slot->envelope, slot->envelope_len, &r->next, err)) != BK_OK)
        return rc;
    if ((rc = add_all(r, err)) != BK_OK)
        return rc;
    if (to != NULL && to->pub.sealed && (rc = check_restorable(r, to, err)) != BK_OK)
        return rc;
    if (to != NULL && (rc = replace(r, to, err)) != BK_OK)
        return rc;
    if ((rc = remove_named(r, err)) != BK_OK)
        return rc;
    if (r->next.recipient_count == 0)
        return bk_fail(err, BK_E_POLICY, "no recipient would be left");
    keep_proven_recipients(r);
    return BK_OK;
}

static const char *
hint_for(const struct rekeying *r, const struct bk_key_id *id)
{
    const struct ops_recipients *lists[] = {r->req->to, r->req->add};
    const char *hint = bk_record_hint(&r->archive.record, id);

    for (size_t i = 0; i < 2 && hint == NULL; i++)
        for (size_t j = 0; lists[i] != NULL && j < lists[i]->count; j++)
            if (bk_key_id_equal(&lists[i]->items[j].pub.id, id))
                hint = lists[i]->items[j].pub.uri;
    return hint;
}

static enum bk_code
make_record(struct rekeying *r, const struct bk_buf *envelope, struct bk_buf *der, struct bk_err *err)
{
    const struct ops_archive *a = &r->archive;
    struct bk_record record = {0};
    enum bk_code rc = bk_record_next(&a->record, a->record_digest, &a->envelope, a->manifest_digest, &record, err);

    if (rc != BK_OK)
        goto done;
    bk_sha256(envelope->data, envelope->len, record.envelope_hash);
    record.created_at = bk_time_now();
    record.blindness = r->blindness;
    memcpy(record.proven, r->proven, r->proven_count * sizeof r->proven[0]);
    record.proven_count = r->proven_count;
    if (r->req->reason != NULL)
        (void)snprintf(record.reason, sizeof record.reason, "%s", r->req->reason);
    for (size_t i = 0; i < r->next.recipient_count && rc == BK_OK; i++)
        if (r->next.recipients[i].kind == BK_RECIPIENT_KNOWN) {
            const struct bk_key_id *id = &r->next.recipients[i].wrapped.id;

            rc = bk_record_add_hint(&record, id, hint_for(r, id), err);
        }
    if (rc == BK_OK)
        rc = bk_record_encode(&record, der, err);
done:
    bk_record_free(&record);
    return rc;
}

/* What is about to be written, as a reader will check it. */
static enum bk_code
check_next(const struct rekeying *r, struct bk_err *err)
{
    const struct ops_archive *a = &r->archive;
    struct ops_archive next = {.src = a->src, .preamble = a->preamble, .manifest = a->manifest};
    enum bk_code rc = BK_OK;

    memcpy(next.manifest_digest, a->manifest_digest, 32);
    if (r->slot != NULL)
        rc = bk_slot_parse(r->slot, a->preamble.slot_size, &next.slot, err);
    if (rc == BK_OK && r->sidecar.len > 0)
        rc = bk_slot_parse_sidecar(r->sidecar.data, r->sidecar.len, &next.slot, err);
    if (rc == BK_OK)
        rc = ops_archive_read_keys(&next, err);
    if (rc == BK_OK)
        rc = ops_archive_check_keys(&next, r->req->trust, err);
    if (rc != BK_OK)
        bk_err_prefix(err, "nothing was changed: readers would refuse the new envelope");
    ops_archive_free(&next);
    return rc;
}

/* The bytes that the places will hold which this rekey writes: both slots, and a sidecar that is there or wanted. */
static enum bk_code
lay_out(struct rekeying *r, const struct bk_slot *slot, struct bk_err *err)
{
    const struct ops_archive *a = &r->archive;
    enum bk_code rc;

    if (r->beside || a->sidecar_state != OPS_SIDECAR_ABSENT)
        if ((rc = bk_slot_write_sidecar(slot, &r->sidecar, err)) != BK_OK)
            return rc;
    if (r->beside)
        return BK_OK;
    if ((r->slot = malloc(a->preamble.slot_size)) == NULL)
        return bk_fail_nomem(err);
    return bk_slot_write(slot, r->slot, a->preamble.slot_size, err);
}

static enum bk_code
make_slot(struct rekeying *r, struct bk_err *err)
{
    struct bk_buf envelope = {0}, record = {0}, signed_record = {0};
    struct bk_slot slot = {.generation = r->archive.record.generation + 1};
    enum bk_code rc;

    if ((rc = bk_envelope_encode(&r->next, &envelope, err)) != BK_OK)
        goto done;
    if ((rc = make_record(r, &envelope, &record, err)) != BK_OK)
        goto done;
    rc = bk_signed_make(record.data, record.len, BK_CONTENT_KEY_RECORD, r->req->signers, r->req->signer_count,
                        bk_time_now(), &signed_record, err);
    if (rc != BK_OK)
        goto done;
    slot.envelope = envelope.data;
    slot.envelope_len = envelope.len;
    slot.record = signed_record.data;
    slot.record_len = signed_record.len;
    if ((rc = lay_out(r, &slot, err)) == BK_OK)
        rc = check_next(r, err);
done:
    bk_buf_free(&envelope);
    bk_buf_free(&record);
    bk_buf_free(&signed_record);
    return rc;
}

static enum bk_code
write_slot(struct rekeying *r, int which, struct bk_err *err)
{
    size_t len = r->archive.preamble.slot_size;
    uint64_t offset = BK_PREAMBLE_LEN + (uint64_t)which * len;
    enum bk_code rc = store_edit_write_at(r->edit, offset, r->slot, len, err);

    if (rc != BK_OK)
        bk_err_prefix(err, "writing slot %c (another envelope is whole; run bk-rekey again)", 'A' + which);
    return rc;
}

static enum bk_code
read_back(struct rekeying *r, struct bk_err *err)
{
    size_t len = r->archive.preamble.slot_size;
    uint8_t *stored = malloc(2 * len);
    enum bk_code rc;

    if (stored == NULL)
        return bk_fail_nomem(err);
    rc = store_source_read_at(r->src, BK_PREAMBLE_LEN, stored, 2 * len, err);
    if (rc == BK_OK && (memcmp(stored, r->slot, len) != 0 || memcmp(stored + len, r->slot, len) != 0))
        rc = bk_fail(err, BK_E_IO, "the slots read back are not what was written");
    free(stored);
    return rc;
}

/* FORMAT.md, Slots: first the slot that was not taken, so that at every instant one whole envelope is in the file. */
static enum bk_code
write_both_slots(struct rekeying *r, struct bk_err *err)
{
    int taken = r->archive.slots.taken;
    enum bk_code rc;

    if ((rc = write_slot(r, 1 - taken, err)) != BK_OK)
        return rc;
    if ((rc = write_slot(r, taken, err)) != BK_OK)
        return rc;
    return read_back(r, err);
}

static enum bk_code
write_all(struct rekeying *r, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    if (r->slot != NULL)
        rc = write_both_slots(r, err);
    if (rc == BK_OK && r->sidecar.len > 0) {
        rc = ops_sidecar_replace(store_source_name(r->src), &r->sidecar, r->req->cancel, err);
        if (rc == BK_OK)
            r->sidecar_written = r->sidecar.len;
        else
            bk_err_prefix(err, "replacing the sidecar (another envelope is whole; run bk-rekey again)");
    }
    return rc == BK_OK ? store_edit_check_name(r->edit, err) : rc;
}

/* Whether every place that this rekey writes holds the envelope that counts. */
static int
places_agree(const struct rekeying *r)
{
    const struct ops_archive *a = &r->archive;
    const struct bk_slots *s = &a->slots;
    int sidecar_stale = a->sidecar_state == OPS_SIDECAR_DAMAGED ||
                        (a->sidecar_state == OPS_SIDECAR_VALID && a->sidecar_slot.generation != a->slot.generation);

    if (r->beside)
        return a->sidecar_state == OPS_SIDECAR_ABSENT || !sidecar_stale;
    return !sidecar_stale && !s->differ && s->state[0] == BK_SLOT_VALID && s->state[1] == BK_SLOT_VALID &&
           s->slot[s->taken].generation == a->slot.generation;
}

/* Nothing to change, but an interrupted rekey or damage is mended by copying the envelope that counts. */
static enum bk_code
mend(struct rekeying *r, struct ops_rekey_result *out, struct bk_err *err)
{
    enum bk_code rc;

    if (places_agree(r))
        return BK_OK;
    if ((rc = lay_out(r, &r->archive.slot, err)) != BK_OK)
        return rc;
    out->mended = 1;
    return r->req->dry_run ? BK_OK : write_all(r, err);
}

static enum bk_code
apply(struct rekeying *r, struct ops_rekey_result *out, struct bk_err *err)
{
    enum bk_code rc;

    if (!r->changed)
        return mend(r, out, err);
    if ((rc = make_slot(r, err)) != BK_OK)
        return rc;
    out->mended = !places_agree(r);
    if (!r->req->dry_run && (rc = write_all(r, err)) != BK_OK)
        return rc;
    out->changed = 1;
    out->generation++;
    out->blindness = r->blindness;
    return BK_OK;
}

static void
rekeying_release(struct rekeying *r)
{
    bk_secret_wipe(&r->cek);
    if (r->from_owned)
        bk_key_close(r->from);
    bk_envelope_free(&r->next);
    free(r->slot);
    bk_buf_free(&r->sidecar);
    ops_archive_free(&r->archive);
    if (r->edit == NULL)
        store_source_close(r->src);
    store_edit_close(r->edit);
}

enum bk_code
ops_rekey_run(const struct ops_rekey *req, const char *path, struct ops_rekey_result *out, struct bk_err *err)
{
    struct rekeying r = {.req = req};
    enum bk_code rc;

    *out = (struct ops_rekey_result){0};
    if ((rc = open_archive(&r, path, err)) != BK_OK)
        goto done;
    memcpy(out->archive_id, r.archive.preamble.archive_id, BK_UUID_LEN);
    out->generation = r.archive.record.generation;
    if ((rc = plan(&r, err)) != BK_OK)
        goto done;
    rc = apply(&r, out, err);
    out->old_stays = r.old_stays;
    out->bytes_read = store_source_bytes_read(r.src) + (r.edit == NULL ? 0 : r.peeked) + r.archive.sidecar.len;
    out->bytes_written = r.sidecar_written + (r.edit == NULL ? 0 : store_edit_bytes_written(r.edit));
done:
    rekeying_release(&r);
    return rc;
}
