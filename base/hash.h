/* SHA-256 (FIPS 180-4), which cannot fail and allocates nothing, and text forms of digests and identifiers. */
#ifndef BK_BASE_HASH_H
#define BK_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define BK_SHA256_LEN 32

void bk_sha256(const void *data, size_t len, uint8_t out[BK_SHA256_LEN]);

/* SHA-256 over two pieces, one after the other. */
void bk_sha256_2(const void *a, size_t a_len, const void *b, size_t b_len, uint8_t out[BK_SHA256_LEN]);

/* Incremental SHA-256 over pieces: bk_sha256_start, any number of adds, bk_sha256_end. */
struct bk_sha256_ctx {
    uint64_t state[16]; /* room for OpenSSL's SHA256_CTX */
};
void bk_sha256_start(struct bk_sha256_ctx *ctx);
void bk_sha256_add(struct bk_sha256_ctx *ctx, const void *data, size_t len);
void bk_sha256_end(struct bk_sha256_ctx *ctx, uint8_t out[BK_SHA256_LEN]);

/* Lower-case hex with a final NUL; out holds 2 * len + 1 bytes. Returns out. */
char *bk_hex(const uint8_t *data, size_t len, char *out);

/* Hex of either case to exactly out_len bytes; 1 on success. */
int bk_unhex(const char *text, uint8_t *out, size_t out_len);

#endif
