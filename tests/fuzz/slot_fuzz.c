/* Slots, the pair of them, and the sidecar. The input is one slot, or two of equal size. */
#include <stdlib.h>
#include <string.h>

#include "format/preamble.h"
#include "format/slot.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);
    size_t half = size / 2;

    switch (fuzz_below(&r, 4)) {
    case 0: /* two of the same */
        if (2 * size <= max_size) {
            memcpy(data + size, data, size);
            size *= 2;
            half = size / 2;
        }
        break;
    case 1:
        if (size >= BK_SLOT_HEADER)
            (void)LLVMFuzzerMutate(data + 8, 24, 24);
        break;
    default:
        size = LLVMFuzzerMutate(data, size, max_size);
        half = size / 2;
    }
    if (fuzz_below(&r, 8) == 0)
        return size;
    if (fuzz_below(&r, 2) == 0) {
        fuzz_repair_slot(data, size);
    } else {
        fuzz_repair_slot(data, half);
        fuzz_repair_slot(data + half, size - half);
    }
    return size;
}

static void
parse_one(const uint8_t *data, size_t size)
{
    struct bk_slot s = {0};
    struct bk_err err = {0};
    uint8_t *copy = fuzz_copy(data, size), *again = fuzz_copy(data, size);
    enum bk_code rc = bk_slot_parse(copy, size, &s, &err);

    fuzz_verdict(rc, &err);
    if (rc == BK_OK && size <= BK_SLOT_SIZE_MAX) {
        fuzz_must(bk_slot_write(&s, again, size, &err), &err);
        fuzz_hold(memcmp(again, data, size) == 0);
        fuzz_hold(s.generation > 0 && s.envelope_len > 0 && s.record_len > 0 && bk_slot_length(&s) <= size);
        fuzz_accepted();
    }
    free(again);
    free(copy);
}

static void
parse_sidecar(const uint8_t *data, size_t size)
{
    struct bk_slot s = {0};
    struct bk_err err = {0};
    struct bk_buf again = {0};
    uint8_t *copy = fuzz_copy(data, size);
    enum bk_code rc = bk_slot_parse_sidecar(copy, size, &s, &err);

    fuzz_verdict(rc, &err);
    if (rc == BK_OK) {
        fuzz_must(bk_slot_write_sidecar(&s, &again, &err), &err);
        fuzz_hold(again.len == size && memcmp(again.data, data, size) == 0);
        fuzz_accepted();
    }
    bk_buf_free(&again);
    free(copy);
}

static void
parse_two(const uint8_t *data, size_t size)
{
    struct bk_slots s = {0};
    struct bk_err err = {0};
    uint8_t *a = fuzz_copy(data, size / 2), *b = fuzz_copy(data + size / 2, size / 2);
    enum bk_code rc = bk_slots_parse(a, b, size / 2, &s, &err);

    fuzz_verdict(rc, &err);
    if (rc == BK_OK) {
        const struct bk_slot *taken = &s.slot[s.taken], *other = &s.slot[1 - s.taken];

        fuzz_hold(s.state[s.taken] == BK_SLOT_VALID);
        if (s.state[1 - s.taken] == BK_SLOT_VALID) {
            fuzz_hold(taken->generation >= other->generation);
            fuzz_hold(s.differ == (taken->generation != other->generation));
            fuzz_hold(s.differ || memcmp(a, b, size / 2) == 0);
        } else {
            fuzz_hold(!s.differ && s.damage[1 - s.taken].code != BK_OK);
        }
        fuzz_accepted();
    }
    free(a);
    free(b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse_one(data, size);
    parse_sidecar(data, size);
    parse_two(data, size);
    return 0;
}
