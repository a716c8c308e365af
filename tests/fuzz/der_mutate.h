/* Mutations that keep DER well formed around the place that they change, so that they get past the pre-walk. */
#ifndef BK_TESTS_FUZZ_DER_MUTATE_H
#define BK_TESTS_FUZZ_DER_MUTATE_H

#include <stddef.h>
#include <stdint.h>

/* A small generator of numbers, so that one seed always gives the same mutation. */
struct fuzz_random {
    uint64_t state;
};
struct fuzz_random fuzz_random_from(unsigned seed);
/* 0 to below - 1. */
size_t fuzz_below(struct fuzz_random *r, size_t below);

/*
 * Changes one element of the structure (or of one that an OCTET STRING or BIT STRING in it holds): left out, doubled,
 * replaced by another, of another tag, with other contents. Lengths around it are written anew, and a SET is brought
 * into order. In place; the new size, or 0 if the result has no room or data has no element.
 */
size_t fuzz_der_mutate(uint8_t *data, size_t size, size_t max_size, struct fuzz_random *r);

#endif
