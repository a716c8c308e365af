/* The digest tree over the frames: RFC 9162 section 2.1.1 with this format's two hashes. docs/FORMAT.md, Digest tree.
 */
#ifndef BK_FORMAT_TREE_H
#define BK_FORMAT_TREE_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

#define BK_GROUP_SEGMENTS 32

/* SHA-256 of a whole frame as stored. */
void bk_tree_leaf(const uint8_t *frame, size_t len, uint8_t out[BK_SHA256_LEN]);

/* The same of n frames (at least 1), one after the other: each is full bytes long, and the final one final bytes. */
void bk_tree_leaves(const uint8_t *frames, size_t full, size_t n, size_t final, uint8_t (*leaves)[BK_SHA256_LEN]);

/* SHA-256(01 || left || right). */
void bk_tree_node(const uint8_t left[BK_SHA256_LEN], const uint8_t right[BK_SHA256_LEN], uint8_t out[BK_SHA256_LEN]);

/* The root over n hashes (at least 1), 32 bytes each, one after the other; iterative, in constant memory, input
 * unchanged. */
void bk_tree_root(const uint8_t *hashes, size_t n, uint8_t out[BK_SHA256_LEN]);

#endif
