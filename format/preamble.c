#include "format/preamble.h"

#include <string.h>

#include "base/buf.h"
#include "base/hash.h"

#define CHECKSUM_AT (BK_PREAMBLE_LEN - BK_SHA256_LEN)
#define COMMIT_AT   36
#define ZERO_AT     68

static const uint8_t magic[8] = {0x89, 0x42, 0x4b, 0x41, 0x0d, 0x0a, 0x1a, 0x0a};

void
bk_preamble_write(const struct bk_preamble *p, uint8_t out[BK_PREAMBLE_LEN])
{
    memset(out, 0, BK_PREAMBLE_LEN);
    memcpy(out, magic, sizeof magic);
    bk_put_u16(out + 8, BK_VERSION);
    bk_put_u16(out + 10, p->flags);
    bk_put_u32(out + 12, p->slot_size);
    bk_put_u32(out + 16, p->segment_size);
    memcpy(out + 20, p->archive_id, BK_UUID_LEN);
    memcpy(out + COMMIT_AT, p->key_commit, sizeof p->key_commit);
    bk_sha256(out, CHECKSUM_AT, out + CHECKSUM_AT);
}

/* Length, magic, version and flags: what decides whether the rest is for this version to judge. */
static enum bk_code
check_version(struct bk_reader *r, uint16_t *flags, struct bk_err *err)
{
    uint16_t version;

    if (r->len < BK_PREAMBLE_LEN)
        return bk_fail(err, BK_E_INCOMPLETE, "preamble: %zu bytes where %d belong", r->len, BK_PREAMBLE_LEN);
    if (r->len > BK_PREAMBLE_LEN)
        return bk_fail(err, BK_E_FORMAT, "preamble: %zu bytes where %d belong", r->len, BK_PREAMBLE_LEN);
    bk_read_magic(r, magic, sizeof magic);
    if (r->failed)
        return bk_fail(err, BK_E_FORMAT, "preamble: no magic: this is not a bk archive, or its beginning is damaged");
    version = bk_read_u16(r, "version");
    if (version > BK_VERSION)
        return bk_fail(err, BK_E_NEWER, "preamble: version %u, and this program reads version %d", version, BK_VERSION);
    if (version != BK_VERSION)
        return bk_fail(err, BK_E_FORMAT, "preamble: version %u does not exist", version);
    *flags = bk_read_u16(r, "flags");
    if ((*flags & ~BK_FLAG_DETACHED) != 0)
        return bk_fail(err, BK_E_NEWER, "preamble: flags 0x%04x are not known to version %d", *flags, BK_VERSION);
    return BK_OK;
}

static enum bk_code
check_sizes(const struct bk_preamble *p, struct bk_err *err)
{
    int detached = (p->flags & BK_FLAG_DETACHED) != 0;

    if (detached != (p->slot_size == 0) || p->slot_size % BK_SLOT_SIZE_UNIT != 0 || p->slot_size > BK_SLOT_SIZE_MAX)
        return bk_fail(err, BK_E_FORMAT, "preamble: slot size %u is not allowed with the envelope %s", p->slot_size,
                       detached ? "detached" : "inside");
    if (p->segment_size < BK_SEGMENT_SIZE_MIN || p->segment_size > BK_SEGMENT_SIZE_MAX ||
        (p->segment_size & (p->segment_size - 1)) != 0)
        return bk_fail(err, BK_E_FORMAT, "preamble: segment size %u is not a power of two from %d to %d",
                       p->segment_size, BK_SEGMENT_SIZE_MIN, BK_SEGMENT_SIZE_MAX);
    if (!bk_uuid_is_v7(p->archive_id))
        return bk_fail(err, BK_E_FORMAT, "preamble: the archive id is not a UUID of version 7");
    return BK_OK;
}

static enum bk_code
parse(const uint8_t *buf, size_t len, struct bk_preamble *p, struct bk_err *err)
{
    struct bk_reader r = bk_reader_over(buf, len);
    struct bk_reader sum = bk_reader_over(buf, len);
    const uint8_t *id;
    const uint8_t *commit;
    enum bk_code rc = check_version(&r, &p->flags, err);

    if (rc != BK_OK)
        return rc;
    sum.pos = CHECKSUM_AT;
    bk_read_sha256(&sum, "checksum");
    if (sum.failed)
        return bk_fail(err, BK_E_FORMAT, "preamble: the checksum does not hold");
    /* docs/FORMAT.md, Preamble, in field order */
    p->slot_size = bk_read_u32(&r, "slot size");
    p->segment_size = bk_read_u32(&r, "segment size");
    id = bk_read_bytes(&r, BK_UUID_LEN, "archive id");
    commit = bk_read_bytes(&r, sizeof p->key_commit, "key commitment");
    bk_read_zero(&r, CHECKSUM_AT - ZERO_AT, "reserved byte");
    if (r.failed || id == NULL || commit == NULL)
        return bk_fail(err, BK_E_FORMAT, "preamble: bad %s at byte %zu", r.failed, r.pos);
    memcpy(p->archive_id, id, BK_UUID_LEN);
    memcpy(p->key_commit, commit, sizeof p->key_commit);
    return check_sizes(p, err);
}

enum bk_code
bk_preamble_parse(const uint8_t *buf, size_t len, struct bk_preamble *out, struct bk_err *err)
{
    struct bk_preamble p = {0};
    enum bk_code rc = parse(buf, len, &p, err);

    if (rc == BK_OK)
        *out = p;
    else
        bk_err_layer(err, "preamble");
    return rc;
}

uint64_t
bk_preamble_head_length(const struct bk_preamble *p)
{
    return BK_PREAMBLE_LEN + 2 * (uint64_t)p->slot_size;
}
