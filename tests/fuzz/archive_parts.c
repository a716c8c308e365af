#include "tests/fuzz/archive_parts.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "format/key_package.h"
#include "format/payload.h"
#include "format/signed.h"
#include "format/slot.h"
#include "format/tree.h"
#include "tests/fuzz/fuzz.h"

#define SLOT_SIZE BK_SLOT_SIZE_UNIT
#define SEGMENT   BK_SEGMENT_SIZE_MIN
#define CREATED   1800000000 /* 2027-01-15 */

void
fuzz_parts_free(struct fuzz_parts *p)
{
    bk_buf_free(&p->sidecar);
    bk_buf_free(&p->slots[0]);
    bk_buf_free(&p->slots[1]);
    bk_buf_free(&p->frames);
    bk_buf_free(&p->index);
    bk_buf_free(&p->manifest);
    *p = (struct fuzz_parts){0};
}

static void
append(struct bk_buf *b, const void *data, size_t len)
{
    struct bk_err err;

    if (len > 0)
        fuzz_must(bk_buf_append(b, data, len, &err), &err);
}

static void
replace(struct bk_buf *b, const void *data, size_t len)
{
    b->len = 0;
    append(b, data, len);
}

/* ---- apart and together ---- */

static int
take(struct bk_buf *out, const uint8_t **at, size_t *left, uint64_t len)
{
    if (len > *left)
        return 0;
    replace(out, *at, (size_t)len);
    *at += len;
    *left -= (size_t)len;
    return 1;
}

int
fuzz_parts_split(struct fuzz_parts *p, const uint8_t *data, size_t size)
{
    struct bk_buf word = {0};
    uint64_t sidecar, slot_size, index_offset, manifest_length;
    int ok;

    if (size < 4)
        return 0;
    sidecar = bk_get_u32(data);
    data += 4;
    size -= 4;
    if (!take(&p->sidecar, &data, &size, sidecar) || size < BK_PREAMBLE_LEN + BK_TAIL_LEN)
        return 0;
    memcpy(p->preamble, data, BK_PREAMBLE_LEN);
    memcpy(p->tail, data + size - BK_TAIL_LEN, BK_TAIL_LEN);
    slot_size = bk_get_u32(data + 12);
    index_offset = bk_get_u64(p->tail + 8);
    manifest_length = bk_get_u32(p->tail + 16);
    data += BK_PREAMBLE_LEN;
    size -= BK_PREAMBLE_LEN + BK_TAIL_LEN;
    ok = take(&p->slots[0], &data, &size, slot_size) && take(&p->slots[1], &data, &size, slot_size) &&
         index_offset >= BK_PREAMBLE_LEN + 2 * slot_size &&
         take(&p->frames, &data, &size, index_offset - BK_PREAMBLE_LEN - 2 * slot_size) &&
         size >= manifest_length + 4 && take(&p->index, &data, &size, size - manifest_length - 4) &&
         take(&word, &data, &size, 4) && take(&p->manifest, &data, &size, size);
    bk_buf_free(&word);
    return ok;
}

size_t
fuzz_parts_join(const struct fuzz_parts *p, uint8_t *out, size_t max_size)
{
    struct bk_buf all = {0};
    uint8_t word[4];
    size_t len;

    bk_put_u32(word, (uint32_t)p->sidecar.len);
    append(&all, word, 4);
    append(&all, p->sidecar.data, p->sidecar.len);
    append(&all, p->preamble, BK_PREAMBLE_LEN);
    append(&all, p->slots[0].data, p->slots[0].len);
    append(&all, p->slots[1].data, p->slots[1].len);
    append(&all, p->frames.data, p->frames.len);
    append(&all, p->index.data, p->index.len);
    bk_put_u32(word, (uint32_t)p->manifest.len);
    append(&all, word, 4);
    append(&all, p->manifest.data, p->manifest.len);
    append(&all, p->tail, BK_TAIL_LEN);
    len = all.len <= max_size ? all.len : 0;
    memcpy(out, all.data, len);
    bk_buf_free(&all);
    return len;
}

/* ---- slots ---- */

int
fuzz_slot_get(const struct bk_buf *slot, int padded, struct bk_buf *envelope, struct bk_buf *record)
{
    struct bk_slot s;
    struct bk_err err;
    enum bk_code rc;

    if (slot->len == 0)
        return 0;
    rc = padded ? bk_slot_parse(slot->data, slot->len, &s, &err)
                : bk_slot_parse_sidecar(slot->data, slot->len, &s, &err);
    if (rc != BK_OK)
        return 0;
    replace(envelope, s.envelope, s.envelope_len);
    replace(record, s.record, s.record_len);
    return 1;
}

int
fuzz_slot_put(struct bk_buf *slot, int padded, const struct bk_buf *envelope, const struct bk_buf *record)
{
    struct bk_slot s = {.generation = slot->len < BK_SLOT_HEADER ? 1 : bk_get_u64(slot->data + 8),
                        .envelope = envelope->data,
                        .envelope_len = envelope->len,
                        .record = record->data,
                        .record_len = record->len};
    struct bk_buf made = {0};
    struct bk_err err;
    uint8_t *room = calloc(1, slot->len + 1);
    enum bk_code rc;

    fuzz_hold(room != NULL);
    if (s.generation == 0 || s.envelope_len == 0 || s.record_len == 0) {
        free(room);
        return 0;
    }
    rc = padded ? bk_slot_write(&s, room, slot->len, &err) : bk_slot_write_sidecar(&s, &made, &err);
    if (rc == BK_OK)
        replace(slot, padded ? room : made.data, padded ? slot->len : made.len);
    bk_buf_free(&made);
    free(room);
    return rc == BK_OK;
}

void
fuzz_sign(struct bk_buf *out, const struct bk_buf *content, enum bk_content type)
{
    struct bk_err err;

    out->len = 0;
    fuzz_must(bk_signed_make(content->data == NULL ? (const uint8_t *)"" : content->data, content->len, type,
                             fuzz_signer(), 1, CREATED, out, &err),
              &err);
}

void
fuzz_record_follow(const struct bk_buf *envelope, struct bk_buf *record, const uint8_t manifest_digest[32])
{
    struct bk_signed s = {0};
    struct bk_record r = {0};
    struct bk_buf der = {0};
    struct bk_err err;
    int is_signed = bk_signed_parse(record->data, record->len, BK_CONTENT_KEY_RECORD, &s, &err) == BK_OK;
    const struct bk_buf *inner = is_signed ? &s.content : record;

    if (bk_record_parse(inner->data, inner->len, &r, &err) == BK_OK) {
        bk_sha256(envelope->data, envelope->len, r.envelope_hash);
        if (r.generation > 1 && manifest_digest != NULL)
            memcpy(r.manifest_digest, manifest_digest, sizeof r.manifest_digest);
        fuzz_must(bk_record_encode(&r, &der, &err), &err);
        if (is_signed)
            fuzz_sign(record, &der, BK_CONTENT_KEY_RECORD);
        else
            replace(record, der.data, der.len);
    }
    bk_buf_free(&der);
    bk_record_free(&r);
    bk_signed_free(&s);
}

/* ---- frames, index, manifest, tail ---- */

void
fuzz_index_follow(struct fuzz_parts *p)
{
    uint32_t segment = bk_get_u32(p->preamble + 16);
    size_t group = ((size_t)segment + BK_FRAME_OVERHEAD) * BK_GROUP_SEGMENTS;
    struct bk_cipher hasher = {0};
    uint8_t root[32];
    struct bk_err err;

    if (segment < BK_SEGMENT_SIZE_MIN || segment > BK_SEGMENT_SIZE_MAX)
        return;
    p->index.len = 0;
    for (size_t at = 0; at < p->frames.len; at += group) {
        size_t len = p->frames.len - at < group ? p->frames.len - at : group;

        if (bk_group_root(&hasher, segment, at / group * BK_GROUP_SEGMENTS, at + len == p->frames.len,
                          p->frames.data + at, len, root, &err) != BK_OK)
            memset(root, 0, sizeof root);
        append(&p->index, root, sizeof root);
    }
    bk_cipher_free(&hasher);
}

static void
manifest_of_envelope(struct bk_manifest *m, const struct bk_buf *envelope, const struct bk_buf *record)
{
    struct bk_envelope e = {0};
    struct bk_record r = {0};
    struct bk_err err;

    if (bk_envelope_parse(envelope->data, envelope->len, &e, &err) == BK_OK)
        memcpy(m->envelope_digest, e.digest, sizeof m->envelope_digest);
    if (bk_record_parse(record->data, record->len, &r, &err) == BK_OK)
        bk_sha256(record->data, record->len, m->record_digest);
    bk_record_free(&r);
    bk_envelope_free(&e);
}

static void
manifest_of_frames(struct bk_manifest *m, const struct fuzz_parts *p)
{
    struct bk_preamble preamble = {0};
    struct bk_tail t = {.manifest_length = 1};
    struct bk_layout l = {0};
    struct bk_err err;

    if (bk_preamble_parse(p->preamble, BK_PREAMBLE_LEN, &preamble, &err) != BK_OK)
        return;
    memcpy(m->archive_id, preamble.archive_id, sizeof m->archive_id);
    t.index_offset = bk_preamble_head_length(&preamble) + p->frames.len;
    t.total_length = t.index_offset + p->index.len + 4 + 1 + BK_TAIL_LEN;
    if (bk_layout_find(&preamble, &t, t.total_length, &l, &err) != BK_OK)
        return;
    m->segment_count = l.segments;
    m->plaintext_length = l.plaintext_length;
}

void
fuzz_manifest_follow(struct fuzz_parts *p)
{
    struct bk_signed s = {0};
    struct bk_manifest m = {0};
    struct bk_buf der = {0}, envelope = {0}, record = {0};
    struct bk_err err;

    if (bk_signed_parse(p->manifest.data, p->manifest.len, BK_CONTENT_MANIFEST, &s, &err) != BK_OK ||
        bk_manifest_parse(s.content.data, s.content.len, &m, &err) != BK_OK)
        goto done;
    if (fuzz_slot_get(&p->slots[0], 1, &envelope, &record) || fuzz_slot_get(&p->slots[1], 1, &envelope, &record) ||
        fuzz_slot_get(&p->sidecar, 0, &envelope, &record))
        manifest_of_envelope(&m, &envelope, &record);
    manifest_of_frames(&m, p);
    bk_sha256(p->preamble, BK_PREAMBLE_LEN, m.preamble_digest);
    if (p->index.len >= 32)
        bk_tree_root(p->index.data, p->index.len / 32, m.payload_digest);
    if (bk_manifest_encode(&m, &der, &err) == BK_OK)
        fuzz_sign(&p->manifest, &der, BK_CONTENT_MANIFEST);
done:
    bk_buf_free(&envelope);
    bk_buf_free(&record);
    bk_buf_free(&der);
    bk_signed_free(&s);
}

void
fuzz_tail_follow(struct fuzz_parts *p)
{
    struct bk_tail t = {.manifest_length = (uint32_t)p->manifest.len};

    t.index_offset = BK_PREAMBLE_LEN + p->slots[0].len + p->slots[1].len + p->frames.len;
    t.total_length = t.index_offset + p->index.len + 4 + p->manifest.len + BK_TAIL_LEN;
    bk_tail_write(&t, p->tail);
}

/* ---- a new one ---- */

static struct bk_secret
secret(const uint8_t bytes[32])
{
    struct bk_secret s = {0};
    struct bk_err err;

    fuzz_must(bk_secret_from(&s, bytes, 32, &err), &err);
    return s;
}

static void
make_envelope(const struct fuzz_plan *plan, struct bk_envelope *e, struct bk_buf *der)
{
    struct bk_secret cek = secret(FUZZ_CEK);
    struct bk_key_package k = {.file_key = secret(FUZZ_FILE_KEY), .signer_count = 1};
    struct bk_wrapped w = {0};
    struct bk_err err;

    memcpy(k.archive_id, FUZZ_ARCHIVE_ID, sizeof k.archive_id);
    k.signers[0] = fuzz_signer()->key->pub.id;
    if (plan->words) {
        k.metadata = calloc(1, sizeof *k.metadata);
        fuzz_hold(k.metadata != NULL);
        *k.metadata = (struct bk_metadata_item){"database", "orders"};
        k.metadata_count = 1;
    }
    fuzz_must(bk_key_package_seal(&k, &cek, e, &err), &err);
    fuzz_must(bk_key_wrap(fuzz_kek(), &cek, &w, &err), &err);
    fuzz_must(bk_envelope_add(e, &w, &err), &err);
    fuzz_must(bk_envelope_encode(e, der, &err), &err);
    bk_secret_wipe(&cek);
    bk_key_package_free(&k);
}

static void
make_preamble(struct fuzz_parts *p, const struct fuzz_plan *plan)
{
    struct bk_preamble preamble = {.flags = plan->detached ? BK_FLAG_DETACHED : 0,
                                   .slot_size = plan->detached ? 0 : SLOT_SIZE,
                                   .segment_size = SEGMENT};
    struct bk_secret file_key = secret(FUZZ_FILE_KEY);
    struct bk_err err;

    memcpy(preamble.archive_id, FUZZ_ARCHIVE_ID, sizeof preamble.archive_id);
    bk_preamble_write(&preamble, p->preamble);
    fuzz_must(bk_key_commit(p->preamble, &file_key, preamble.key_commit, &err), &err);
    bk_preamble_write(&preamble, p->preamble);
    bk_secret_wipe(&file_key);
}

static void
make_frames(struct fuzz_parts *p, const struct fuzz_plan *plan, const struct bk_envelope *e)
{
    struct bk_secret file_key = secret(FUZZ_FILE_KEY);
    struct bk_payload keys = {0};
    struct bk_cipher cipher = {0};
    uint8_t *plain = calloc(1, plan->plain_len + 1), root[32], *at;
    size_t group = (size_t)SEGMENT * BK_GROUP_SEGMENTS, done = 0, len, room;
    struct bk_err err;

    fuzz_hold(plain != NULL);
    fuzz_must(bk_payload_init(&keys, p->preamble, &file_key, e->digest, &err), &err);
    do {
        size_t n = plan->plain_len - done < group ? plan->plain_len - done : group;

        room = (size_t)bk_frames_length(SEGMENT, n);
        fuzz_must(bk_buf_extend(&p->frames, room, &at, &err), &err);
        fuzz_must(bk_group_seal(&keys, &cipher, done / SEGMENT, done + n == plan->plain_len, plain + done, n, at, &len,
                                root, &err),
                  &err);
        fuzz_hold(len == room);
        done += n;
    } while (done < plan->plain_len);
    fuzz_index_follow(p);
    bk_cipher_free(&cipher);
    bk_payload_wipe(&keys);
    bk_secret_wipe(&file_key);
    free(plain);
}

static void
make_first_record(const struct bk_buf *envelope, struct bk_record *r, struct bk_buf *der)
{
    struct bk_err err;

    r->generation = 1;
    r->created_at = CREATED;
    memcpy(r->archive_id, FUZZ_ARCHIVE_ID, sizeof r->archive_id);
    bk_sha256(envelope->data, envelope->len, r->envelope_hash);
    fuzz_must(bk_record_add_hint(r, &fuzz_kek()->pub.id, "pkcs11:token=fuzz;object=kek", &err), &err);
    fuzz_must(bk_record_encode(r, der, &err), &err);
}

static void
make_manifest(const struct fuzz_plan *plan, const struct bk_buf *first_record, struct bk_buf *der)
{
    struct bk_manifest m = {.created_at = CREATED, .kind = (enum bk_kind)plan->kind, .segment_count = 1};
    struct bk_err err;

    memcpy(m.archive_id, FUZZ_ARCHIVE_ID, sizeof m.archive_id);
    bk_sha256(first_record->data, first_record->len, m.record_digest);
    if (plan->kind == BK_KIND_WAL)
        strcpy(m.sequence, "system=7 timeline=1 segment=000000010000000000000001");
    if (plan->words) {
        strcpy(m.label, "orders");
        strcpy(m.producer, "pg_dump");
        m.has_retain_until = m.has_parent = 1;
        m.retain_until = CREATED + 86400;
        memcpy(m.parent.archive_id, FUZZ_ARCHIVE_ID, sizeof m.parent.archive_id);
        m.parent.archive_id[15] ^= 1;
    }
    fuzz_must(bk_manifest_encode(&m, der, &err), &err);
}

/* The record of generation 2 in the place of the first. */
static void
make_second_record(const struct fuzz_parts *p, const struct bk_record *first, const struct bk_envelope *e,
                   const struct bk_buf *envelope, struct bk_buf *record)
{
    struct bk_signed s = {0};
    struct bk_record next = {0};
    struct bk_buf der = {0};
    uint8_t first_digest[32], manifest_digest[32];
    struct bk_err err;

    fuzz_must(bk_signed_parse(p->manifest.data, p->manifest.len, BK_CONTENT_MANIFEST, &s, &err), &err);
    bk_sha256(s.content.data, s.content.len, manifest_digest);
    bk_sha256(record->data, record->len, first_digest);
    fuzz_must(bk_record_next(first, first_digest, e, manifest_digest, &next, &err), &err);
    next.created_at = CREATED;
    bk_sha256(envelope->data, envelope->len, next.envelope_hash);
    next.proven[0] = fuzz_kek()->pub.id;
    next.proven_count = 1;
    strcpy(next.reason, "age");
    fuzz_must(bk_record_encode(&next, &der, &err), &err);
    fuzz_sign(record, &der, BK_CONTENT_KEY_RECORD);
    bk_buf_free(&der);
    bk_record_free(&next);
    bk_signed_free(&s);
}

static void
put_slots(struct fuzz_parts *p, const struct fuzz_plan *plan, uint64_t generation, const struct bk_buf *envelope,
          const struct bk_buf *record)
{
    static const uint8_t zeros[SLOT_SIZE];

    if (plan->detached) {
        replace(&p->sidecar, zeros, BK_SLOT_HEADER);
        bk_put_u64(p->sidecar.data + 8, generation);
        fuzz_hold(fuzz_slot_put(&p->sidecar, 0, envelope, record));
        return;
    }
    for (int i = 0; i < 2; i++) {
        replace(&p->slots[i], zeros, sizeof zeros);
        bk_put_u64(p->slots[i].data + 8, generation);
        fuzz_hold(fuzz_slot_put(&p->slots[i], 1, envelope, record));
    }
}

void
fuzz_parts_make(struct fuzz_parts *p, const struct fuzz_plan *plan)
{
    struct bk_envelope e = {0};
    struct bk_record first = {0};
    struct bk_buf envelope = {0}, record = {0}, manifest = {0};

    make_preamble(p, plan);
    make_envelope(plan, &e, &envelope);
    make_frames(p, plan, &e);
    make_first_record(&envelope, &first, &record);
    make_manifest(plan, &record, &manifest);
    fuzz_sign(&p->manifest, &manifest, BK_CONTENT_MANIFEST);
    put_slots(p, plan, 1, &envelope, &record);
    fuzz_manifest_follow(p);
    if (plan->generation > 1) {
        make_second_record(p, &first, &e, &envelope, &record);
        put_slots(p, plan, 2, &envelope, &record);
    }
    fuzz_tail_follow(p);
    bk_buf_free(&envelope);
    bk_buf_free(&record);
    bk_buf_free(&manifest);
    bk_record_free(&first);
    bk_envelope_free(&e);
}
