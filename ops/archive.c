#include "ops/archive.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "format/payload.h"
#include "format/tree.h"
#include "ops/sidecar.h"

/* Tail and manifest come with one read of this length, so that what a rekey reads does not depend on the archive. */
#define TAIL_READ (64 * 1024)

#define REREAD_DELAY_US 200000

void
ops_archive_free(struct ops_archive *a)
{
    free(a->head);
    free(a->index);
    bk_signed_free(&a->manifest_signed);
    bk_signed_free(&a->record_signed);
    bk_buf_free(&a->manifest_der);
    bk_buf_free(&a->sidecar);
    bk_envelope_free(&a->envelope);
    bk_record_free(&a->record);
    *a = (struct ops_archive){0};
}

/* The layer as docs/CLI.md names it to scripts, in place of the finer word of whoever refused. */
static enum bk_code
at_layer(enum bk_code rc, struct bk_err *err, const char *layer)
{
    if (rc != BK_OK && err != NULL)
        err->layer = layer;
    return rc;
}

/* A stream is read once and in order; a file by range, so that it can be read again. */
static enum bk_code
read_head_bytes(struct ops_archive *a, uint64_t offset, uint8_t *buf, size_t len, struct bk_err *err)
{
    size_t got;
    enum bk_code rc;

    if (store_source_seekable(a->src))
        return store_source_read_at(a->src, offset, buf, len, err);
    if ((rc = store_source_read(a->src, buf, len, &got, err)) != BK_OK)
        return rc;
    if (got < len)
        return bk_fail(err, BK_E_INCOMPLETE, "the archive ends after %llu bytes, within its head",
                       (unsigned long long)(offset + got));
    return BK_OK;
}

/* Shorter than a preamble: something else altogether, or an archive's beginning. */
static enum bk_code
refuse_short_file(struct ops_archive *a, size_t size, struct bk_err *err)
{
    const struct bk_preamble any = {0};
    uint8_t expected[BK_PREAMBLE_LEN];
    enum bk_code rc;

    if (size == 0)
        return bk_fail(err, BK_E_INCOMPLETE, "the file is empty");
    bk_preamble_write(&any, expected);
    if ((rc = read_head_bytes(a, 0, a->head, size, err)) != BK_OK)
        return rc;
    /* the magic, which is the same in all of them (FORMAT.md, Preamble) */
    if (memcmp(a->head, expected, size < 8 ? size : 8) != 0)
        return bk_fail(err, BK_E_FORMAT, "preamble: no magic: this is not a bk archive, or its beginning is damaged");
    return bk_fail(err, BK_E_INCOMPLETE, "the file ends after %zu bytes, within its preamble: the copy was cut", size);
}

static enum bk_code
read_preamble(struct ops_archive *a, struct bk_err *err)
{
    uint64_t size;
    enum bk_code rc;

    if ((a->head = malloc(BK_PREAMBLE_LEN)) == NULL)
        return bk_fail_nomem(err);
    a->head_len = BK_PREAMBLE_LEN;
    if (store_source_seekable(a->src)) {
        if ((rc = store_source_size(a->src, &size, err)) != BK_OK)
            return rc;
        if (size < BK_PREAMBLE_LEN)
            return refuse_short_file(a, (size_t)size, err);
    }
    if ((rc = read_head_bytes(a, 0, a->head, BK_PREAMBLE_LEN, err)) != BK_OK)
        return rc;
    return bk_preamble_parse(a->head, BK_PREAMBLE_LEN, &a->preamble, err);
}

static enum bk_code
parse_slots(struct ops_archive *a, struct bk_err *err)
{
    const uint8_t *first = a->head + BK_PREAMBLE_LEN;

    a->slots = (struct bk_slots){0}; /* of an earlier look nothing is left */
    return bk_slots_parse(first, first + a->preamble.slot_size, a->preamble.slot_size, &a->slots, err);
}

static int
slots_in_doubt(const struct ops_archive *a, enum bk_code rc)
{
    return rc != BK_OK || a->slots.state[0] != BK_SLOT_VALID || a->slots.state[1] != BK_SLOT_VALID;
}

static enum bk_code
read_slots(struct ops_archive *a, struct bk_err *err)
{
    size_t slots_len = 2 * (size_t)a->preamble.slot_size;
    uint8_t *head;
    enum bk_code rc;

    if ((head = realloc(a->head, BK_PREAMBLE_LEN + slots_len)) == NULL)
        return bk_fail_nomem(err);
    a->head = head;
    a->head_len = BK_PREAMBLE_LEN + slots_len;
    if ((rc = read_head_bytes(a, BK_PREAMBLE_LEN, a->head + BK_PREAMBLE_LEN, slots_len, err)) != BK_OK)
        return rc;
    rc = parse_slots(a, err);
    if (!slots_in_doubt(a, rc) || !store_source_seekable(a->src))
        return rc;
    /* FORMAT.md, Slots: a rekey may just be passing, so look once more before calling it damage */
    usleep(REREAD_DELAY_US);
    if ((rc = read_head_bytes(a, BK_PREAMBLE_LEN, a->head + BK_PREAMBLE_LEN, slots_len, err)) != BK_OK)
        return rc;
    return parse_slots(a, err);
}

static enum bk_code
read_sidecar(struct ops_archive *a, struct bk_err *err)
{
    int present = a->sidecar_given && a->sidecar.len > 0;
    enum bk_code rc;

    if (!a->sidecar_given && store_source_seekable(a->src)) {
        rc = ops_sidecar_read(store_source_name(a->src), &a->sidecar, &present, err);
        if (rc != BK_OK)
            return rc;
    }
    if (!present)
        return BK_OK;
    rc = bk_slot_parse_sidecar(a->sidecar.data, a->sidecar.len, &a->sidecar_slot, &a->sidecar_damage);
    a->sidecar_state = rc == BK_OK ? OPS_SIDECAR_VALID : OPS_SIDECAR_DAMAGED;
    return BK_OK;
}

static int
is_detached(const struct ops_archive *a)
{
    return (a->preamble.flags & BK_FLAG_DETACHED) != 0;
}

static enum bk_code
take_sidecar(struct ops_archive *a, struct bk_err *err)
{
    enum bk_code rc;

    if (a->sidecar_state == OPS_SIDECAR_VALID) {
        a->taken = OPS_TAKEN_SIDECAR;
        a->slot = a->sidecar_slot;
        return BK_OK;
    }
    if (a->sidecar_state == OPS_SIDECAR_DAMAGED)
        return bk_fail(err, BK_E_FORMAT, "sidecar: %s", a->sidecar_damage.message);
    rc = bk_fail(err, BK_E_INCOMPLETE, "its key envelope is detached, and the sidecar with it is not there");
    bk_err_hint(err, "put it beside the archive, as %s%s", store_source_name(a->src), OPS_SIDECAR_SUFFIX);
    return rc;
}

static int
same_slot(const struct bk_slot *a, const struct bk_slot *b)
{
    return a->envelope_len == b->envelope_len && a->record_len == b->record_len &&
           memcmp(a->envelope, b->envelope, a->envelope_len) == 0 && memcmp(a->record, b->record, a->record_len) == 0;
}

/* FORMAT.md, Slots: the valid one of the highest generation, wherever it is; two of one generation must be the same. */
static enum bk_code
take_highest(struct ops_archive *a, struct bk_err *err)
{
    a->taken = a->slots.taken == 0 ? OPS_TAKEN_A : OPS_TAKEN_B;
    a->slot = a->slots.slot[a->slots.taken];
    if (a->sidecar_state != OPS_SIDECAR_VALID || a->sidecar_slot.generation < a->slot.generation)
        return BK_OK;
    if (a->sidecar_slot.generation > a->slot.generation)
        return take_sidecar(a, err);
    if (same_slot(&a->slot, &a->sidecar_slot))
        return BK_OK;
    return bk_fail(err, BK_E_FORMAT, "%s and the sidecar are both whole, of generation %llu, and differ",
                   ops_taken_name(a->taken), (unsigned long long)a->slot.generation);
}

static enum bk_code
read_envelopes(struct ops_archive *a, struct bk_err *err)
{
    enum bk_code rc, slots_rc = BK_OK;
    struct bk_err slots_err = {0};
    int none_whole;

    if (!is_detached(a))
        slots_rc = read_slots(a, err);
    none_whole = a->slots.state[0] == BK_SLOT_DAMAGED && a->slots.state[1] == BK_SLOT_DAMAGED;
    if (slots_rc != BK_OK && !none_whole)
        return slots_rc;
    if (slots_rc != BK_OK)
        slots_err = *err;
    if ((rc = read_sidecar(a, err)) != BK_OK)
        return rc;
    if (slots_rc != BK_OK && a->sidecar_state != OPS_SIDECAR_VALID) {
        *err = slots_err;
        return slots_rc;
    }
    return is_detached(a) || none_whole ? take_sidecar(a, err) : take_highest(a, err);
}

const char *
ops_taken_name(enum ops_taken taken)
{
    return taken == OPS_TAKEN_A ? "slot A" : taken == OPS_TAKEN_B ? "slot B" : "sidecar";
}

enum bk_code
ops_archive_read_head(struct ops_archive *a, struct store_source *src, const struct bk_log *log, struct bk_err *err)
{
    enum bk_code rc;

    a->src = src;
    a->log = log;
    if ((rc = read_preamble(a, err)) != BK_OK)
        return at_layer(rc, err, "preamble");
    return at_layer(read_envelopes(a, err), err, "slots");
}

static enum bk_code
copy_manifest(struct ops_archive *a, const uint8_t *block, size_t block_len, uint64_t block_offset, struct bk_err *err)
{
    uint32_t len = a->layout.manifest_length;
    uint64_t at = a->layout.manifest_offset - 4;
    uint8_t prefix[4];
    uint8_t *der;
    enum bk_code rc;

    bk_buf_free(&a->manifest_der);
    if ((rc = bk_buf_extend(&a->manifest_der, len, &der, err)) != BK_OK)
        return rc;
    if (at >= block_offset) {
        const uint8_t *from = block + (at - block_offset);

        if (len + 4 + BK_TAIL_LEN > block_len - (at - block_offset))
            return bk_fail(err, BK_E_INTERNAL, "manifest: bad block arithmetic");
        memcpy(prefix, from, 4);
        memcpy(der, from + 4, len);
    } else {
        if ((rc = store_source_read_at(a->src, at, prefix, 4, err)) != BK_OK)
            return rc;
        if ((rc = store_source_read_at(a->src, at + 4, der, len, err)) != BK_OK)
            return rc;
    }
    if (bk_get_u32(prefix) != len)
        return bk_fail(err, BK_E_FORMAT, "manifest: its length (%u) and the tail's (%u) differ", bk_get_u32(prefix),
                       len);
    return BK_OK;
}

static enum bk_code
parse_manifest(struct ops_archive *a, struct bk_err *err)
{
    enum bk_code rc;

    bk_signed_free(&a->manifest_signed);
    rc = bk_signed_parse(a->manifest_der.data, a->manifest_der.len, BK_CONTENT_MANIFEST, &a->manifest_signed, err);
    if (rc == BK_OK)
        rc = bk_manifest_parse(a->manifest_signed.content.data, a->manifest_signed.content.len, &a->manifest, err);
    if (rc != BK_OK) {
        bk_err_prefix(err, "manifest");
        return at_layer(rc, err, "manifest");
    }
    bk_sha256(a->manifest_signed.content.data, a->manifest_signed.content.len, a->manifest_digest);
    return BK_OK;
}

enum bk_code
ops_archive_take_manifest(struct ops_archive *a, const uint8_t *der, size_t len, struct bk_err *err)
{
    enum bk_code rc;

    bk_buf_free(&a->manifest_der);
    if ((rc = bk_buf_append(&a->manifest_der, der, len, err)) != BK_OK)
        return rc;
    return parse_manifest(a, err);
}

static enum bk_code
read_tail_block(struct ops_archive *a, uint8_t *block, struct bk_err *err)
{
    uint64_t size;
    size_t len;
    enum bk_code rc;

    if ((rc = store_source_size(a->src, &size, err)) != BK_OK)
        return at_layer(rc, err, "file");
    len = size < TAIL_READ ? (size_t)size : TAIL_READ;
    if (len < BK_TAIL_LEN)
        return at_layer(bk_fail(err, BK_E_INCOMPLETE, "tail: the file is shorter than a tail"), err, "tail");
    if ((rc = store_source_read_at(a->src, size - len, block, len, err)) != BK_OK)
        return at_layer(rc, err, "file");
    rc = bk_tail_parse(block + len - BK_TAIL_LEN, BK_TAIL_LEN, &a->tail, err);
    if (rc == BK_OK)
        rc = bk_layout_find(&a->preamble, &a->tail, size, &a->layout, err);
    if (rc != BK_OK)
        return at_layer(rc, err, "tail");
    return at_layer(copy_manifest(a, block, len, size - len, err), err, "manifest");
}

enum bk_code
ops_archive_read_tail(struct ops_archive *a, struct bk_err *err)
{
    uint8_t *block = malloc(TAIL_READ);
    enum bk_code rc;

    if (block == NULL)
        return bk_fail_nomem(err);
    rc = read_tail_block(a, block, err);
    free(block);
    return rc == BK_OK ? parse_manifest(a, err) : rc;
}

static enum bk_code
require(int holds, struct bk_err *err, const char *what)
{
    return holds ? BK_OK : bk_fail(err, BK_E_VERIFY, "%s", what);
}

static enum bk_code
manifest_matches_preamble(const struct ops_archive *a, struct bk_err *err)
{
    uint8_t digest[32];
    enum bk_code rc;

    rc = require(memcmp(a->manifest.archive_id, a->preamble.archive_id, BK_UUID_LEN) == 0, err,
                 "manifest: it belongs to another archive");
    if (rc != BK_OK)
        return rc;
    bk_sha256(a->head, BK_PREAMBLE_LEN, digest);
    return require(memcmp(a->manifest.preamble_digest, digest, 32) == 0, err,
                   "manifest: the preamble is not the one that was signed");
}

enum bk_code
ops_archive_require_trust(const struct ops_archive *a, const struct ops_trust *trust, struct bk_err *err)
{
    char text[OPS_FINGERPRINT_TEXT];
    enum bk_code rc;

    if (trust->count > 0)
        return BK_OK;
    rc = bk_fail(err, BK_E_USAGE, "whom to trust was not said, so the signature proves nothing");
    bk_err_layer(err, "trust");
    if (a->manifest_signed.signer_count == 0)
        bk_err_hint(err, "give -t; bk-verify --show FILE names the signer of an archive that is a file");
    else
        bk_err_hint(err, "signed by %s: compare with your runbook, then -t %s",
                    ops_fingerprint_text(&a->manifest_signed.signers[0].pub, text), text);
    return rc;
}

enum bk_code
ops_archive_check_manifest(struct ops_archive *a, const struct ops_trust *trust, struct bk_err *err)
{
    enum bk_code rc;

    if (trust != NULL) {
        if ((rc = ops_archive_require_trust(a, trust, err)) != BK_OK)
            return rc;
        rc = ops_trust_check(trust, OPS_ROLE_BACKUP, &a->manifest_signed, "manifest", err);
        if (rc != BK_OK)
            return at_layer(rc, err, "trust");
    }
    return at_layer(manifest_matches_preamble(a, err), err, "manifest");
}

enum bk_code
ops_archive_check_layout(const struct ops_archive *a, struct bk_err *err)
{
    int same =
        a->layout.segments == a->manifest.segment_count && a->layout.plaintext_length == a->manifest.plaintext_length;

    return at_layer(require(same, err, "manifest: the payload is not as long as was signed"), err, "manifest");
}

static enum bk_code
parse_record(struct ops_archive *a, const struct bk_slot *slot, struct bk_err *err)
{
    const uint8_t *der = slot->record;
    size_t len = slot->record_len;
    enum bk_code rc;

    if (slot->generation > 1) {
        rc = bk_signed_parse(der, len, BK_CONTENT_KEY_RECORD, &a->record_signed, err);
        if (rc != BK_OK)
            return rc;
        der = a->record_signed.content.data;
        len = a->record_signed.content.len;
    }
    if ((rc = bk_record_parse(der, len, &a->record, err)) != BK_OK)
        return rc;
    bk_sha256(der, len, a->record_digest);
    return BK_OK;
}

enum bk_code
ops_archive_read_keys(struct ops_archive *a, struct bk_err *err)
{
    const struct bk_slot *slot = &a->slot;
    const char *layer = "envelope";
    enum bk_code rc;

    bk_envelope_free(&a->envelope);
    bk_record_free(&a->record);
    bk_signed_free(&a->record_signed);
    rc = bk_envelope_parse(slot->envelope, slot->envelope_len, &a->envelope, err);
    if (rc == BK_OK) {
        layer = "record";
        rc = parse_record(a, slot, err);
    }
    if (rc != BK_OK)
        bk_err_prefix(err, "%s", ops_taken_name(a->taken));
    return at_layer(rc, err, layer);
}

enum bk_code
ops_archive_check_keys(const struct ops_archive *a, const struct ops_trust *trust, struct bk_err *err)
{
    const struct bk_slot *slot = &a->slot;
    uint8_t envelope_hash[32];
    enum bk_code rc;

    rc = require(memcmp(a->envelope.digest, a->manifest.envelope_digest, 32) == 0, err,
                 "envelope: it is not the one that was signed with this archive");
    if (rc != BK_OK)
        return at_layer(rc, err, "envelope");
    bk_sha256(slot->envelope, slot->envelope_len, envelope_hash);
    rc = bk_record_check(&a->record, a->record_digest, slot->generation, envelope_hash, &a->envelope, &a->manifest,
                         a->manifest_digest, err);
    if (rc != BK_OK)
        return at_layer(rc, err, "record");
    if (slot->generation == 1 || trust == NULL)
        return BK_OK; /* generation 1 is vouched for by the manifest's recordDigest */
    rc = ops_trust_check(trust, OPS_ROLE_ROTATE | OPS_ROLE_OFFICER, &a->record_signed, "record", err);
    return at_layer(rc, err, "trust");
}

static enum bk_code
check_index(const struct ops_archive *a, struct bk_err *err)
{
    uint8_t root[32];

    bk_tree_root(a->index, (size_t)a->layout.groups, root);
    return require(memcmp(root, a->manifest.payload_digest, 32) == 0, err,
                   "index: it does not add up to the payload digest that was signed");
}

enum bk_code
ops_archive_read_index(struct ops_archive *a, struct bk_err *err)
{
    size_t len = (size_t)a->layout.groups * 32;
    enum bk_code rc;

    if (a->layout.groups > SIZE_MAX / 32)
        return at_layer(bk_fail_nomem(err), err, "index");
    free(a->index);
    if ((a->index = malloc(len)) == NULL)
        return bk_fail_nomem(err);
    if ((rc = store_source_read_at(a->src, a->layout.index_offset, a->index, len, err)) != BK_OK)
        return at_layer(rc, err, "file");
    return at_layer(check_index(a, err), err, "index");
}

/* What an older envelope in the file still opens is worth a word: it stands in what anybody can copy. */
static void
warn_of_stale_slots(const struct ops_archive *a)
{
    const char *name = store_source_name(a->src);

    if (a->slots.differ)
        bk_warn(a->log, "%s: its slots differ: a rekey was interrupted; run it again to finish it", name);
    if (is_detached(a) || a->sidecar_state != OPS_SIDECAR_VALID)
        return;
    if (a->taken == OPS_TAKEN_SIDECAR && a->slots.slot[a->slots.taken].generation > 0)
        bk_warn(a->log,
                "%s: the envelope inside is of generation %llu, older than the sidecar's: the keys that it was "
                "for still open the archive",
                name, (unsigned long long)a->slots.slot[a->slots.taken].generation);
    if (a->taken != OPS_TAKEN_SIDECAR && a->sidecar_slot.generation < a->slot.generation)
        bk_warn(a->log,
                "%s: its sidecar is of generation %llu, older than the envelope inside: the keys that it was for "
                "still open the archive",
                name, (unsigned long long)a->sidecar_slot.generation);
}

static void
warn_of_damage(const struct ops_archive *a)
{
    const char *name = store_source_name(a->src);

    for (int i = 0; i < 2; i++)
        if (a->slots.state[i] != BK_SLOT_VALID)
            bk_warn(a->log, "%s: slot %c is damaged (%s); opened by the %s, and bk-rekey mends it", name, 'A' + i,
                    a->slots.damage[i].message, ops_taken_name(a->taken));
    if (a->sidecar_state == OPS_SIDECAR_DAMAGED)
        bk_warn(a->log, "%s: its sidecar is damaged (%s); opened by %s, and bk-rekey mends it", name,
                a->sidecar_damage.message, ops_taken_name(a->taken));
}

static void
warn_of_certificates(const struct ops_archive *a, const struct bk_signed *s, const char *what)
{
    for (size_t i = 0; i < s->signer_count; i++)
        if (!s->signers[i].cert_valid_then)
            bk_warn(a->log, "%s: the certificate of who signed its %s was not valid then", store_source_name(a->src),
                    what);
}

void
ops_archive_warn(const struct ops_archive *a)
{
    warn_of_damage(a);
    warn_of_stale_slots(a);
    warn_of_certificates(a, &a->manifest_signed, "manifest");
    warn_of_certificates(a, &a->record_signed, "key record");
}

static enum bk_code
require_file(struct store_source *src, struct bk_err *err)
{
    if (store_source_seekable(src))
        return BK_OK;
    return at_layer(bk_fail(err, BK_E_USAGE, "%s: a stream, and this needs a file that can be read from any place",
                            store_source_name(src)),
                    err, "file");
}

enum bk_code
ops_archive_open(struct ops_archive *a, struct store_source *src, const struct ops_trust *trust,
                 const struct bk_log *log, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = require_file(src, err)) != BK_OK)
        return rc;
    if ((rc = ops_archive_read_head(a, src, log, err)) != BK_OK)
        return rc;
    if ((rc = ops_archive_read_tail(a, err)) != BK_OK)
        return rc;
    if ((rc = ops_archive_check_manifest(a, trust, err)) != BK_OK)
        return rc;
    if ((rc = ops_archive_check_layout(a, err)) != BK_OK)
        return rc;
    if ((rc = ops_archive_read_keys(a, err)) != BK_OK)
        return rc;
    if ((rc = ops_archive_check_keys(a, trust, err)) != BK_OK)
        return rc;
    ops_archive_warn(a);
    return BK_OK;
}

enum bk_code
ops_archive_check_package(const struct ops_archive *a, const struct bk_key_package *k, struct bk_err *err)
{
    size_t found = 0;
    enum bk_code rc;

    /* FORMAT.md, Keys: without this a signer who holds no KEK could sign a victim's ciphertext as its own */
    for (size_t i = 0; i < k->signer_count; i++)
        for (size_t j = 0; j < a->manifest_signed.signer_count; j++)
            found += (size_t)bk_key_id_equal(&k->signers[i], &a->manifest_signed.signers[j].pub.id);
    rc = require(found == k->signer_count && found == a->manifest_signed.signer_count, err,
                 "key package: the manifest is not signed by those who made this archive: somebody signed a stolen "
                 "ciphertext as their own");
    if (rc != BK_OK)
        return at_layer(rc, err, "signers");
    return at_layer(bk_key_commit_check(a->head, &k->file_key, err), err, "commitment");
}
