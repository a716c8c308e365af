#include "tests/support/mutate.h"

#include <stdlib.h>
#include <string.h>

static uint8_t *
exact_copy(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len); /* of no byte at all: one that must not be touched */

    if (copy == NULL)
        abort();
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}

size_t
mutate_truncations(const uint8_t *data, size_t len, mutate_parser parse, void *ctx)
{
    size_t accepted = 0;

    for (size_t n = 0; n < len; n++) {
        uint8_t *copy = exact_copy(data, n);

        accepted += parse(copy, n, ctx) == BK_OK;
        free(copy);
    }
    return accepted;
}

size_t
mutate_flips(const uint8_t *data, size_t len, mutate_parser parse, void *ctx)
{
    size_t accepted = 0;

    for (size_t byte = 0; byte < len; byte++)
        for (unsigned bit = 0; bit < 8; bit++) {
            uint8_t *copy = exact_copy(data, len);

            copy[byte] ^= (uint8_t)(1u << bit);
            accepted += parse(copy, len, ctx) == BK_OK;
            free(copy);
        }
    return accepted;
}
