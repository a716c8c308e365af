/* Growing byte buffers, and a reader over bytes that remembers its first failure. Neither is for secrets. */
#ifndef BK_BASE_BUF_H
#define BK_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Zero-initialise; free with bk_buf_free, which is safe on the empty value. */
struct bk_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
};

void bk_buf_free(struct bk_buf *b);
BK_MUST_USE enum bk_code bk_buf_append(struct bk_buf *b, const void *data, size_t len, struct bk_err *err);
/* Makes room for len more bytes and returns where they go through *at; the length grows by len. */
BK_MUST_USE enum bk_code bk_buf_extend(struct bk_buf *b, size_t len, uint8_t **at, struct bk_err *err);

/* Big-endian stores and loads; the caller owns enough bytes. */
void bk_put_u16(uint8_t *at, uint16_t v);
void bk_put_u32(uint8_t *at, uint32_t v);
void bk_put_u64(uint8_t *at, uint64_t v);
uint16_t bk_get_u16(const uint8_t *at);
uint32_t bk_get_u32(const uint8_t *at);
uint64_t bk_get_u64(const uint8_t *at);

struct bk_reader {
    const uint8_t *data;
    size_t len;
    size_t pos;
    const char *failed; /* the name of the first field that could not be read, or NULL; pos then stays at it */
};

struct bk_reader bk_reader_over(const void *data, size_t len);
/* len bytes in place, or NULL once the reader has failed. */
const uint8_t *bk_read_bytes(struct bk_reader *r, size_t len, const char *name);
uint16_t bk_read_u16(struct bk_reader *r, const char *name);
uint32_t bk_read_u32(struct bk_reader *r, const char *name);
uint64_t bk_read_u64(struct bk_reader *r, const char *name);
/* Fails unless the next len bytes are the expected ones; name is "magic". */
void bk_read_magic(struct bk_reader *r, const void *magic, size_t len);
void bk_read_zero(struct bk_reader *r, size_t len, const char *name);
/* Fails unless the next 32 bytes are SHA-256 of data[0 .. pos). */
void bk_read_sha256(struct bk_reader *r, const char *name);
/* Fails if bytes are left over. */
void bk_read_end(struct bk_reader *r);

#endif
