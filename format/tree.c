#include "format/tree.h"

#include <string.h>

#include "base/sha256_x4.h"

void
bk_tree_leaf(const uint8_t *frame, size_t len, uint8_t out[BK_SHA256_LEN])
{
    bk_sha256(frame, len, out);
}

/* 2 to 4 frames of one length. A lane without a frame of its own takes the last one once more: for 2 that is still
 * faster than in turn. */
static void
leaves_at_once(const uint8_t *frames, size_t len, size_t n, uint8_t (*leaves)[BK_SHA256_LEN])
{
    const uint8_t *messages[BK_SHA256_X4];
    uint8_t *digests[BK_SHA256_X4];

    for (size_t i = 0; i < BK_SHA256_X4; i++) {
        size_t frame = i < n ? i : n - 1;

        messages[i] = frames + frame * len;
        digests[i] = leaves[frame];
    }
    bk_sha256_x4(messages, len, digests);
}

void
bk_tree_leaves(const uint8_t *frames, size_t full, size_t n, size_t final, uint8_t (*leaves)[BK_SHA256_LEN])
{
    size_t alike = !bk_sha256_x4_runs() ? 0 : final == full ? n : n - 1;
    size_t at = 0;

    for (size_t left; (left = alike - at) > 1; at += left) {
        left = left < BK_SHA256_X4 ? left : BK_SHA256_X4;
        leaves_at_once(frames + at * full, full, left, leaves + at);
    }
    for (; at < n; at++)
        bk_tree_leaf(frames + at * full, at + 1 < n ? full : final, leaves[at]);
}

void
bk_tree_node(const uint8_t left[BK_SHA256_LEN], const uint8_t right[BK_SHA256_LEN], uint8_t out[BK_SHA256_LEN])
{
    uint8_t prefixed[1 + BK_SHA256_LEN] = {0x01};

    memcpy(prefixed + 1, left, BK_SHA256_LEN);
    bk_sha256_2(prefixed, sizeof prefixed, right, BK_SHA256_LEN, out);
}

/*
 * RFC 9162 2.1.2: hashes are pushed from left to right, and two subtrees merge as soon as they are of one size; the
 * sizes on the stack are the binary digits of the count so far. What is left at the end merges from right to left,
 * which splits at the largest power of two below n.
 */
void
bk_tree_root(const uint8_t *hashes, size_t n, uint8_t out[BK_SHA256_LEN])
{
    uint8_t stack[sizeof(size_t) * 8 + 1][BK_SHA256_LEN];
    size_t depth = 0;

    for (size_t i = 0; i < n; i++) {
        memcpy(stack[depth++], hashes + i * BK_SHA256_LEN, BK_SHA256_LEN);
        for (size_t size = i; size & 1; size >>= 1) {
            depth--;
            bk_tree_node(stack[depth - 1], stack[depth], stack[depth - 1]);
        }
    }
    for (; depth > 1; depth--)
        bk_tree_node(stack[depth - 2], stack[depth - 1], stack[depth - 2]);
    memcpy(out, stack[0], BK_SHA256_LEN);
}
