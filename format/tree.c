#include "format/tree.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

/* A process without SHA-256 must not go on: base/hash.c. */
static void
must(int ok)
{
    if (ok != 1)
        OPENSSL_die("SHA-256 is not available", __FILE__, __LINE__);
}

static void
digest(struct bk_tree_hash *h, const void *a, size_t a_len, const void *b, size_t b_len, uint8_t out[BK_SHA256_LEN])
{
    if (h->impl == NULL) {
        h->impl = EVP_MD_CTX_new();
        must(h->impl != NULL && EVP_DigestInit_ex2(h->impl, EVP_sha256(), NULL));
    } else {
        must(EVP_DigestInit_ex2(h->impl, NULL, NULL));
    }
    must(EVP_DigestUpdate(h->impl, a, a_len) && EVP_DigestUpdate(h->impl, b, b_len) &&
         EVP_DigestFinal_ex(h->impl, out, NULL));
}

void
bk_tree_hash_leaf(struct bk_tree_hash *h, const uint8_t *frame, size_t len, uint8_t out[BK_SHA256_LEN])
{
    digest(h, frame, len, NULL, 0, out);
}

static void
node(struct bk_tree_hash *h, const uint8_t *left, const uint8_t *right, uint8_t out[BK_SHA256_LEN])
{
    uint8_t prefixed[1 + BK_SHA256_LEN] = {0x01};

    memcpy(prefixed + 1, left, BK_SHA256_LEN);
    digest(h, prefixed, sizeof prefixed, right, BK_SHA256_LEN, out);
}

/*
 * RFC 9162 2.1.2: hashes are pushed from left to right, and two subtrees merge as soon as they are of one size; the
 * sizes on the stack are the binary digits of the count so far. What is left at the end merges from right to left,
 * which splits at the largest power of two below n.
 */
void
bk_tree_hash_root(struct bk_tree_hash *h, const uint8_t *hashes, size_t n, uint8_t out[BK_SHA256_LEN])
{
    uint8_t stack[sizeof(size_t) * 8 + 1][BK_SHA256_LEN];
    size_t depth = 0;

    for (size_t i = 0; i < n; i++) {
        memcpy(stack[depth++], hashes + i * BK_SHA256_LEN, BK_SHA256_LEN);
        for (size_t size = i; size & 1; size >>= 1) {
            depth--;
            node(h, stack[depth - 1], stack[depth], stack[depth - 1]);
        }
    }
    for (; depth > 1; depth--)
        node(h, stack[depth - 2], stack[depth - 1], stack[depth - 2]);
    memcpy(out, stack[0], BK_SHA256_LEN);
}

void
bk_tree_hash_free(struct bk_tree_hash *h)
{
    EVP_MD_CTX_free(h->impl);
    h->impl = NULL;
}

void
bk_tree_leaf(const uint8_t *frame, size_t len, uint8_t out[BK_SHA256_LEN])
{
    bk_sha256(frame, len, out);
}

void
bk_tree_node(const uint8_t left[BK_SHA256_LEN], const uint8_t right[BK_SHA256_LEN], uint8_t out[BK_SHA256_LEN])
{
    struct bk_tree_hash h = {0};

    node(&h, left, right, out);
    bk_tree_hash_free(&h);
}

void
bk_tree_root(const uint8_t *hashes, size_t n, uint8_t out[BK_SHA256_LEN])
{
    struct bk_tree_hash h = {0};

    bk_tree_hash_root(&h, hashes, n, out);
    bk_tree_hash_free(&h);
}
