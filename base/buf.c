#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

void
bk_buf_free(struct bk_buf *b)
{
    free(b->data);
    *b = (struct bk_buf){0};
}

enum bk_code
bk_buf_extend(struct bk_buf *b, size_t len, uint8_t **at, struct bk_err *err)
{
    if (len > SIZE_MAX / 4 || b->len > SIZE_MAX / 4)
        return bk_fail_nomem(err);
    /* also for no bytes at all: nothing is added to a null pointer, here and by whoever reads the buffer */
    if (b->data == NULL || b->len + len > b->cap) {
        size_t cap = (b->len + len) * 2 < 256 ? 256 : (b->len + len) * 2;
        uint8_t *data = realloc(b->data, cap);

        if (data == NULL)
            return bk_fail_nomem(err);
        b->data = data;
        b->cap = cap;
    }
    *at = b->data + b->len;
    b->len += len;
    return BK_OK;
}

enum bk_code
bk_buf_append(struct bk_buf *b, const void *data, size_t len, struct bk_err *err)
{
    uint8_t *at = NULL;
    enum bk_code rc = bk_buf_extend(b, len, &at, err);

    if (rc == BK_OK && len > 0)
        memcpy(at, data, len);
    return rc;
}

void
bk_put_u16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

void
bk_put_u32(uint8_t *at, uint32_t v)
{
    bk_put_u16(at, (uint16_t)(v >> 16));
    bk_put_u16(at + 2, (uint16_t)v);
}

void
bk_put_u64(uint8_t *at, uint64_t v)
{
    bk_put_u32(at, (uint32_t)(v >> 32));
    bk_put_u32(at + 4, (uint32_t)v);
}

uint16_t
bk_get_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

uint32_t
bk_get_u32(const uint8_t *at)
{
    return (uint32_t)bk_get_u16(at) << 16 | bk_get_u16(at + 2);
}

uint64_t
bk_get_u64(const uint8_t *at)
{
    return (uint64_t)bk_get_u32(at) << 32 | bk_get_u32(at + 4);
}

struct bk_reader
bk_reader_over(const void *data, size_t len)
{
    return (struct bk_reader){.data = data, .len = len};
}

static void
reader_fail(struct bk_reader *r, size_t at, const char *name)
{
    if (r->failed != NULL)
        return;
    r->failed = name;
    r->pos = at;
}

const uint8_t *
bk_read_bytes(struct bk_reader *r, size_t len, const char *name)
{
    const uint8_t *at = r->data + r->pos;

    if (r->failed != NULL)
        return NULL;
    if (len > r->len - r->pos) {
        reader_fail(r, r->pos, name);
        return NULL;
    }
    r->pos += len;
    return at;
}

uint16_t
bk_read_u16(struct bk_reader *r, const char *name)
{
    const uint8_t *at = bk_read_bytes(r, 2, name);

    return at == NULL ? 0 : bk_get_u16(at);
}

uint32_t
bk_read_u32(struct bk_reader *r, const char *name)
{
    const uint8_t *at = bk_read_bytes(r, 4, name);

    return at == NULL ? 0 : bk_get_u32(at);
}

uint64_t
bk_read_u64(struct bk_reader *r, const char *name)
{
    const uint8_t *at = bk_read_bytes(r, 8, name);

    return at == NULL ? 0 : bk_get_u64(at);
}

void
bk_read_magic(struct bk_reader *r, const void *magic, size_t len)
{
    size_t start = r->pos;
    const uint8_t *at = bk_read_bytes(r, len, "magic");

    if (at != NULL && memcmp(at, magic, len) != 0)
        reader_fail(r, start, "magic");
}

void
bk_read_zero(struct bk_reader *r, size_t len, const char *name)
{
    size_t start = r->pos;
    const uint8_t *at = bk_read_bytes(r, len, name);

    for (size_t i = 0; at != NULL && i < len; i++)
        if (at[i] != 0) {
            reader_fail(r, start + i, name);
            return;
        }
}

void
bk_read_sha256(struct bk_reader *r, const char *name)
{
    size_t start = r->pos;
    uint8_t digest[BK_SHA256_LEN];
    const uint8_t *at = bk_read_bytes(r, sizeof digest, name);

    if (at == NULL)
        return;
    bk_sha256(r->data, start, digest);
    if (memcmp(at, digest, sizeof digest) != 0)
        reader_fail(r, start, name);
}

void
bk_read_end(struct bk_reader *r)
{
    if (r->failed == NULL && r->pos != r->len)
        reader_fail(r, r->pos, "end: bytes are left over");
}
