/* Every truncation and every flipped bit of an input, each in a buffer of exactly its size, so that the address
 * sanitizer sees the first byte that a parser reads too far. Tests only. */
#ifndef BK_TESTS_MUTATE_H
#define BK_TESTS_MUTATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef enum bk_code (*mutate_parser)(const uint8_t *data, size_t len, void *ctx);

/* How many of them parse answers with BK_OK. */
size_t mutate_truncations(const uint8_t *data, size_t len, mutate_parser parse, void *ctx);
size_t mutate_flips(const uint8_t *data, size_t len, mutate_parser parse, void *ctx);

#endif
