#include "format/slot.h"

#include <string.h>

#include "base/hash.h"
#include "format/preamble.h"

#define CHECKSUM_AT 32 /* the checksum covers the bytes before it, the envelope and the record */

static const uint8_t magic[8] = {0x42, 0x4b, 0x53, 0x4c, 0x4f, 0x54, 0x00, 0x01};

size_t
bk_slot_length(const struct bk_slot *s)
{
    return BK_SLOT_HEADER + s->envelope_len + s->record_len;
}

static void
slot_checksum(const uint8_t *header, const uint8_t *envelope, size_t envelope_len, const uint8_t *record,
              size_t record_len, uint8_t out[BK_SHA256_LEN])
{
    struct bk_sha256_ctx ctx;

    bk_sha256_start(&ctx);
    bk_sha256_add(&ctx, header, CHECKSUM_AT);
    bk_sha256_add(&ctx, envelope, envelope_len);
    bk_sha256_add(&ctx, record, record_len);
    bk_sha256_end(&ctx, out);
}

/* Generation and lengths that a slot can have at all. */
static enum bk_code
check_contents(const struct bk_slot *s, struct bk_err *err)
{
    if (s->generation == 0 || s->envelope_len == 0 || s->record_len == 0)
        return bk_fail(err, BK_E_INTERNAL, "slot: generation 0, no envelope or no record");
    return BK_OK;
}

/* 1 if header, envelope and record fit into room bytes; no sum can overflow. */
static int
fits(size_t envelope_len, size_t record_len, size_t room)
{
    return room >= BK_SLOT_HEADER && envelope_len <= room - BK_SLOT_HEADER &&
           record_len <= room - BK_SLOT_HEADER - envelope_len;
}

static void
write_slot(const struct bk_slot *s, uint8_t *out)
{
    memset(out, 0, BK_SLOT_HEADER);
    memcpy(out, magic, sizeof magic);
    bk_put_u64(out + 8, s->generation);
    bk_put_u32(out + 16, (uint32_t)s->envelope_len);
    bk_put_u32(out + 20, (uint32_t)s->record_len);
    memcpy(out + BK_SLOT_HEADER, s->envelope, s->envelope_len);
    memcpy(out + BK_SLOT_HEADER + s->envelope_len, s->record, s->record_len);
    slot_checksum(out, s->envelope, s->envelope_len, s->record, s->record_len, out + CHECKSUM_AT);
}

enum bk_code
bk_slot_write(const struct bk_slot *s, uint8_t *out, size_t slot_size, struct bk_err *err)
{
    enum bk_code rc = check_contents(s, err);

    if (rc != BK_OK)
        return rc;
    if (!fits(s->envelope_len, s->record_len, slot_size) || slot_size > BK_SLOT_SIZE_MAX) {
        rc = bk_fail(err, BK_E_NO_ROOM, "slot: envelope and record of %zu bytes do not fit into slots of %zu bytes",
                     bk_slot_length(s), slot_size);
        bk_err_hint(err, "rekey into a sidecar with --sidecar, or restore the archive and wrap it anew");
        bk_err_layer(err, "slot");
        return rc;
    }
    write_slot(s, out);
    memset(out + bk_slot_length(s), 0, slot_size - bk_slot_length(s));
    return BK_OK;
}

enum bk_code
bk_slot_write_sidecar(const struct bk_slot *s, struct bk_buf *out, struct bk_err *err)
{
    uint8_t *at = NULL;
    enum bk_code rc = check_contents(s, err);

    if (rc != BK_OK)
        return rc;
    if (!fits(s->envelope_len, s->record_len, BK_SLOT_SIZE_MAX)) {
        rc = bk_fail(err, BK_E_NO_ROOM, "sidecar: envelope and record are over %d bytes", BK_SLOT_SIZE_MAX);
        bk_err_hint(err, "restore the archive and wrap it anew: a new one begins with an empty history");
        bk_err_layer(err, "sidecar");
        return rc;
    }
    if ((rc = bk_buf_extend(out, bk_slot_length(s), &at, err)) == BK_OK)
        write_slot(s, at);
    return rc;
}

/* Header, envelope, record; whatever follows is left in the reader. */
static enum bk_code
parse_contents(struct bk_reader *r, const char *what, struct bk_slot *s, struct bk_err *err)
{
    uint8_t digest[BK_SHA256_LEN];
    const uint8_t *stored;

    /* docs/FORMAT.md, Slots, in field order */
    bk_read_magic(r, magic, sizeof magic);
    s->generation = bk_read_u64(r, "generation");
    s->envelope_len = bk_read_u32(r, "envelope length");
    s->record_len = bk_read_u32(r, "record length");
    bk_read_zero(r, 8, "reserved byte");
    stored = bk_read_bytes(r, sizeof digest, "checksum");
    s->envelope = bk_read_bytes(r, s->envelope_len, "envelope length");
    s->record = bk_read_bytes(r, s->record_len, "record length");
    if (r->failed || stored == NULL)
        return bk_fail(err, BK_E_FORMAT, "%s: bad %s at byte %zu", what, r->failed, r->pos);
    if (s->generation == 0 || s->envelope_len == 0 || s->record_len == 0)
        return bk_fail(err, BK_E_FORMAT, "%s: generation 0, no envelope or no record", what);
    slot_checksum(r->data, s->envelope, s->envelope_len, s->record, s->record_len, digest);
    if (memcmp(digest, stored, sizeof digest) != 0)
        return bk_fail(err, BK_E_FORMAT, "%s: the checksum does not hold", what);
    return BK_OK;
}

static enum bk_code
finish(struct bk_reader *r, const char *what, enum bk_code rc, const struct bk_slot *s, struct bk_slot *out,
       struct bk_err *err)
{
    if (rc == BK_OK && r->failed)
        rc = bk_fail(err, BK_E_FORMAT, "%s: bad %s at byte %zu", what, r->failed, r->pos);
    if (rc == BK_OK)
        *out = *s;
    else
        bk_err_layer(err, what);
    return rc;
}

enum bk_code
bk_slot_parse(const uint8_t *buf, size_t len, struct bk_slot *out, struct bk_err *err)
{
    struct bk_reader r = bk_reader_over(buf, len);
    struct bk_slot s = {0};
    enum bk_code rc = parse_contents(&r, "slot", &s, err);

    if (rc == BK_OK)
        bk_read_zero(&r, r.len - r.pos, "padding byte");
    return finish(&r, "slot", rc, &s, out, err);
}

enum bk_code
bk_slot_parse_sidecar(const uint8_t *buf, size_t len, struct bk_slot *out, struct bk_err *err)
{
    struct bk_reader r = bk_reader_over(buf, len);
    struct bk_slot s = {0};
    enum bk_code rc;

    if (len > BK_SLOT_SIZE_MAX)
        rc = bk_fail(err, BK_E_FORMAT, "sidecar: %zu bytes, and at most %d are allowed", len, BK_SLOT_SIZE_MAX);
    else
        rc = parse_contents(&r, "sidecar", &s, err);
    if (rc == BK_OK)
        bk_read_end(&r);
    return finish(&r, "sidecar", rc, &s, out, err);
}

uint32_t
bk_slot_size_for(size_t envelope_len, size_t record_len)
{
    size_t size;

    if (!fits(envelope_len, record_len, BK_SLOT_SIZE_MAX / 2))
        return 0;
    size = 2 * (BK_SLOT_HEADER + envelope_len + record_len);
    if (size < BK_SLOT_SIZE_DEFAULT)
        return BK_SLOT_SIZE_DEFAULT;
    return (uint32_t)((size + BK_SLOT_SIZE_UNIT - 1) / BK_SLOT_SIZE_UNIT * BK_SLOT_SIZE_UNIT);
}

enum bk_code
bk_slots_parse(const uint8_t *a, const uint8_t *b, size_t slot_size, struct bk_slots *out, struct bk_err *err)
{
    struct bk_slots s = {0};
    const uint8_t *from[2] = {a, b};

    for (int i = 0; i < 2; i++)
        if (bk_slot_parse(from[i], slot_size, &s.slot[i], &s.damage[i]) != BK_OK)
            s.state[i] = BK_SLOT_DAMAGED;
    if (s.state[0] == BK_SLOT_DAMAGED && s.state[1] == BK_SLOT_DAMAGED) {
        *out = s; /* a sidecar may still hold the envelope, and then both are named */
        enum bk_code rc =
            bk_fail(err, BK_E_FORMAT, "neither slot is whole: A: %s; B: %s", s.damage[0].message, s.damage[1].message);
        bk_err_layer(err, "slot");
        return rc;
    }
    if (s.state[0] == BK_SLOT_VALID && s.state[1] == BK_SLOT_VALID) {
        s.differ = s.slot[0].generation != s.slot[1].generation;
        s.taken = s.slot[1].generation > s.slot[0].generation;
        if (!s.differ && memcmp(a, b, slot_size) != 0) {
            enum bk_code rc = bk_fail(err, BK_E_FORMAT, "slots A and B are both whole, of generation %llu, and differ",
                                      (unsigned long long)s.slot[0].generation);
            bk_err_layer(err, "slot");
            return rc;
        }
    } else {
        s.taken = s.state[0] == BK_SLOT_DAMAGED;
    }
    *out = s;
    return BK_OK;
}
