/* OpenSSL's one interface to SHA-256 that needs no memory is marked deprecated; by EVP a digest could fail. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "base/hash.h"

#include <assert.h>
#include <stdalign.h>
#include <string.h>

#include <openssl/sha.h>

static_assert(sizeof(SHA256_CTX) <= sizeof(struct bk_sha256_ctx) && alignof(SHA256_CTX) <= alignof(uint64_t),
              "the state has room for OpenSSL's");

static SHA256_CTX *
openssl_state(struct bk_sha256_ctx *ctx)
{
    return (SHA256_CTX *)(void *)ctx->state;
}

void
bk_sha256_start(struct bk_sha256_ctx *ctx)
{
    (void)SHA256_Init(openssl_state(ctx));
}

void
bk_sha256_add(struct bk_sha256_ctx *ctx, const void *data, size_t len)
{
    (void)SHA256_Update(openssl_state(ctx), data, len);
}

void
bk_sha256_end(struct bk_sha256_ctx *ctx, uint8_t out[BK_SHA256_LEN])
{
    (void)SHA256_Final(out, openssl_state(ctx));
}

void
bk_sha256(const void *data, size_t len, uint8_t out[BK_SHA256_LEN])
{
    bk_sha256_2(data, len, NULL, 0, out);
}

void
bk_sha256_2(const void *a, size_t a_len, const void *b, size_t b_len, uint8_t out[BK_SHA256_LEN])
{
    struct bk_sha256_ctx ctx;

    bk_sha256_start(&ctx);
    bk_sha256_add(&ctx, a, a_len);
    bk_sha256_add(&ctx, b, b_len);
    bk_sha256_end(&ctx, out);
}

char *
bk_hex(const uint8_t *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
    out[2 * len] = '\0';
    return out;
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int
bk_unhex(const char *text, uint8_t *out, size_t out_len)
{
    if (strlen(text) != 2 * out_len)
        return 0;
    for (size_t i = 0; i < out_len; i++) {
        int high = hex_digit(text[2 * i]);
        int low = hex_digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return 0;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return 1;
}
