/* The preamble: what is taken is written back byte for byte. */
#include <stdlib.h>
#include <string.h>

#include "format/preamble.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

#define FIELDS 68 /* bytes 68 to 4063 are zero */

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);

    if (size == BK_PREAMBLE_LEN && fuzz_below(&r, 8) != 0)
        (void)LLVMFuzzerMutate(data + 8, FIELDS - 8, FIELDS - 8);
    else
        size = LLVMFuzzerMutate(data, size, max_size);
    if (fuzz_below(&r, 8) != 0)
        fuzz_repair_preamble(data, size);
    return size;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_preamble p = {0};
    struct bk_err err = {0};
    uint8_t again[BK_PREAMBLE_LEN];
    uint8_t *copy = fuzz_copy(data, size);
    enum bk_code rc = bk_preamble_parse(copy, size, &p, &err);

    fuzz_verdict(rc, &err);
    if (rc == BK_OK) {
        bk_preamble_write(&p, again);
        fuzz_hold(size == sizeof again && memcmp(again, data, size) == 0);
        fuzz_hold(bk_preamble_head_length(&p) == BK_PREAMBLE_LEN + 2ull * p.slot_size);
        fuzz_hold((p.slot_size == 0) == ((p.flags & BK_FLAG_DETACHED) != 0));
        fuzz_hold(p.slot_size <= BK_SLOT_SIZE_MAX && p.slot_size % BK_SLOT_SIZE_UNIT == 0);
        fuzz_hold(p.segment_size >= BK_SEGMENT_SIZE_MIN && p.segment_size <= BK_SEGMENT_SIZE_MAX);
        fuzz_hold((p.segment_size & (p.segment_size - 1)) == 0);
        fuzz_hold(bk_uuid_is_v7(p.archive_id));
        fuzz_accepted();
    }
    free(copy);
    return 0;
}
