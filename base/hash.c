#include "base/hash.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

/* EVP_Digest with a fetched SHA-256 cannot fail on memory that is there; a process without SHA-256 must not go on. */
static void
must(int ok)
{
    if (ok != 1)
        OPENSSL_die("SHA-256 is not available", __FILE__, __LINE__);
}

void
bk_sha256(const void *data, size_t len, uint8_t out[BK_SHA256_LEN])
{
    must(SHA256(data, len, out) != NULL);
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

void
bk_sha256_start(struct bk_sha256_ctx *ctx)
{
    ctx->impl = EVP_MD_CTX_new();
    must(ctx->impl != NULL && EVP_DigestInit_ex(ctx->impl, EVP_sha256(), NULL) == 1);
}

void
bk_sha256_add(struct bk_sha256_ctx *ctx, const void *data, size_t len)
{
    must(EVP_DigestUpdate(ctx->impl, data, len));
}

void
bk_sha256_end(struct bk_sha256_ctx *ctx, uint8_t out[BK_SHA256_LEN])
{
    must(EVP_DigestFinal_ex(ctx->impl, out, NULL));
    EVP_MD_CTX_free(ctx->impl);
    ctx->impl = NULL;
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
