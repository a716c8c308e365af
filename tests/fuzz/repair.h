/* Puts right what a mutation broke but did not mean to: checksums, digests, signatures. */
#ifndef BK_TESTS_FUZZ_REPAIR_H
#define BK_TESTS_FUZZ_REPAIR_H

#include <stddef.h>
#include <stdint.h>

#include "tests/fuzz/der_mutate.h"

/* The checksum; nothing if len is not that of a preamble. */
void fuzz_repair_preamble(uint8_t *data, size_t len);
/* The checksum over header, envelope and record, if their lengths fit into len. */
void fuzz_repair_slot(uint8_t *data, size_t len);
/* The checksum; nothing if len is not that of a tail. */
void fuzz_repair_tail(uint8_t *data, size_t len);

/*
 * Each SignerInfo of a SignedData: message-digest and certHash are computed anew and the attributes signed by the
 * fuzzers' key, as far as the places for them are of the right length. In place.
 */
void fuzz_repair_signed(uint8_t *data, size_t len);

/* LLVMFuzzerMutate, or half of the time fuzz_der_mutate. */
size_t fuzz_mutate_der_or_bytes(uint8_t *data, size_t size, size_t max_size, struct fuzz_random *r);

#endif
