#include "format/tail.h"

#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "format/payload.h"

static const uint8_t magic[8] = {0x42, 0x4b, 0x54, 0x41, 0x49, 0x4c, 0x0d, 0x0a};

#define MANIFEST_WORD 4 /* the u32 before the manifest */

void
bk_tail_write(const struct bk_tail *t, uint8_t out[BK_TAIL_LEN])
{
    memset(out, 0, BK_TAIL_LEN);
    memcpy(out, magic, sizeof magic);
    bk_put_u64(out + 8, t->index_offset);
    bk_put_u32(out + 16, t->manifest_length);
    bk_put_u64(out + 24, t->total_length);
    bk_sha256(out, 32, out + 32);
}

static enum bk_code
incomplete(struct bk_err *err, const char *what)
{
    enum bk_code rc = bk_fail(err, BK_E_INCOMPLETE, "tail: %s: the archive is not complete", what);

    bk_err_hint(err, "the producer died or the copy was cut; take another copy, or an older backup");
    return rc;
}

static enum bk_code
parse_tail(const uint8_t *buf, size_t len, struct bk_tail *t, struct bk_err *err)
{
    struct bk_reader r = bk_reader_over(buf, len);

    if (len < BK_TAIL_LEN || memcmp(buf, magic, sizeof magic) != 0)
        return incomplete(err, "not there");
    /* docs/FORMAT.md, Tail, in field order */
    bk_read_magic(&r, magic, sizeof magic);
    t->index_offset = bk_read_u64(&r, "index offset");
    t->manifest_length = bk_read_u32(&r, "manifest length");
    bk_read_zero(&r, 4, "reserved byte");
    t->total_length = bk_read_u64(&r, "total length");
    bk_read_sha256(&r, "checksum");
    bk_read_end(&r);
    if (r.failed)
        return bk_fail(err, BK_E_FORMAT, "tail: bad %s at byte %zu", r.failed, r.pos);
    if (t->manifest_length == 0 || t->manifest_length > BK_MANIFEST_MAX)
        return bk_fail(err, BK_E_FORMAT, "tail: a manifest of %u bytes, and 1 to %d are allowed", t->manifest_length,
                       BK_MANIFEST_MAX);
    return BK_OK;
}

enum bk_code
bk_tail_parse(const uint8_t *buf, size_t len, struct bk_tail *out, struct bk_err *err)
{
    struct bk_tail t = {0};
    enum bk_code rc = parse_tail(buf, len, &t, err);

    if (rc == BK_OK)
        *out = t;
    else
        bk_err_layer(err, "tail");
    return rc;
}

/* Segments and plaintext from the length of all frames; 1 if some plaintext has frames of just that length. */
static int
count_segments(const struct bk_preamble *p, struct bk_layout *l)
{
    uint64_t frame = (uint64_t)p->segment_size + BK_FRAME_OVERHEAD;
    uint64_t full = l->frames_length / frame;
    uint64_t rest = l->frames_length % frame;

    l->segments = full + (rest > 0);
    l->plaintext_length = full * p->segment_size;
    /* a frame without plaintext stands only in an empty archive */
    if (l->segments == 0 || (rest > 0 && (rest < BK_FRAME_OVERHEAD || (rest == BK_FRAME_OVERHEAD && full > 0))))
        return 0;
    if (rest > 0)
        l->plaintext_length += rest - BK_FRAME_OVERHEAD;
    return l->segments <= BK_SEGMENTS_MAX;
}

static uint64_t
groups_of(uint64_t segments)
{
    return segments / BK_GROUP_SEGMENTS + (segments % BK_GROUP_SEGMENTS > 0);
}

/* The order of the tests keeps every subtraction from going below zero. */
static enum bk_code
find(const struct bk_preamble *p, const struct bk_tail *t, uint64_t file_size, struct bk_layout *l, struct bk_err *err)
{
    uint64_t head = bk_preamble_head_length(p);
    uint64_t end = (uint64_t)MANIFEST_WORD + t->manifest_length + BK_TAIL_LEN;
    uint64_t index_length;

    if (t->total_length > file_size)
        return incomplete(err, "it tells of more bytes than there are");
    if (t->total_length < file_size)
        return bk_fail(err, BK_E_FORMAT, "tail: %llu bytes are there that the archive does not have",
                       (unsigned long long)(file_size - t->total_length));
    if (t->index_offset < head || t->index_offset > file_size || file_size - t->index_offset < end)
        return bk_fail(err, BK_E_FORMAT, "tail: the index at byte %llu does not lie between frames and manifest",
                       (unsigned long long)t->index_offset);
    index_length = file_size - t->index_offset - end;
    l->frames_offset = head;
    l->frames_length = t->index_offset - head;
    l->index_offset = t->index_offset;
    l->manifest_offset = t->index_offset + index_length + MANIFEST_WORD;
    l->manifest_length = t->manifest_length;
    if (!count_segments(p, l))
        return bk_fail(err, BK_E_FORMAT, "tail: no archive has frames of %llu bytes together",
                       (unsigned long long)l->frames_length);
    l->groups = groups_of(l->segments);
    if (index_length != l->groups * BK_SHA256_LEN)
        return bk_fail(err, BK_E_FORMAT, "tail: an index of %llu bytes where %llu segments need %llu",
                       (unsigned long long)index_length, (unsigned long long)l->segments,
                       (unsigned long long)(l->groups * BK_SHA256_LEN));
    return BK_OK;
}

enum bk_code
bk_layout_find(const struct bk_preamble *p, const struct bk_tail *t, uint64_t file_size, struct bk_layout *out,
               struct bk_err *err)
{
    struct bk_layout l = {0};
    enum bk_code rc = find(p, t, file_size, &l, err);

    if (rc == BK_OK)
        *out = l;
    else
        bk_err_layer(err, "tail");
    return rc;
}

void
bk_layout_make(const struct bk_preamble *p, uint64_t plaintext_length, uint32_t manifest_length, struct bk_layout *out)
{
    struct bk_layout l = {.plaintext_length = plaintext_length, .manifest_length = manifest_length};

    l.frames_offset = bk_preamble_head_length(p);
    l.frames_length = bk_frames_length(p->segment_size, plaintext_length);
    l.index_offset = l.frames_offset + l.frames_length;
    l.segments = (l.frames_length - plaintext_length) / BK_FRAME_OVERHEAD;
    l.groups = groups_of(l.segments);
    l.manifest_offset = l.index_offset + l.groups * BK_SHA256_LEN + MANIFEST_WORD;
    *out = l;
}
