/* The tail, and the layout that it gives with a preamble and a size of the file. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "format/payload.h"
#include "format/tail.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

/* slotSize / 4096, log2 of segmentSize, size of the file, plaintext length, tail */
#define HEAD (1 + 1 + 8 + 8)

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);

    size = LLVMFuzzerMutate(data, size, max_size);
    if (size == HEAD + BK_TAIL_LEN) {
        if (fuzz_below(&r, 2) == 0)
            memcpy(data + HEAD + 24, data + 2, 8); /* the total is the size */
        if (fuzz_below(&r, 8) != 0)
            fuzz_repair_tail(data + HEAD, BK_TAIL_LEN);
    }
    return size;
}

/* docs/FORMAT.md section 7, computed in another way than format/tail.c does. */
static void
check_layout(const struct bk_preamble *p, const struct bk_tail *t, uint64_t file_size, const struct bk_layout *l)
{
    unsigned __int128 total =
        (unsigned __int128)l->index_offset + (unsigned __int128)32 * l->groups + 4 + t->manifest_length + BK_TAIL_LEN;
    struct bk_layout made = {0};

    fuzz_hold(total == file_size && t->total_length == file_size);
    fuzz_hold(l->frames_offset == BK_PREAMBLE_LEN + 2ull * p->slot_size);
    fuzz_hold(l->frames_offset + l->frames_length == l->index_offset && l->index_offset == t->index_offset);
    fuzz_hold(l->manifest_offset + l->manifest_length + BK_TAIL_LEN == file_size);
    fuzz_hold(l->segments >= 1 && l->segments <= BK_SEGMENTS_MAX && l->groups == (l->segments + 31) / 32);
    fuzz_hold(l->frames_length == l->plaintext_length + 20 * l->segments);
    fuzz_hold(l->plaintext_length == 0 ? l->segments == 1
                                       : (l->plaintext_length - 1) / p->segment_size + 1 == l->segments);
    bk_layout_make(p, l->plaintext_length, l->manifest_length, &made);
    fuzz_hold(memcmp(&made, l, sizeof made) == 0);
}

/* The layout that a writer makes is the one that a reader finds. */
static void
make_and_find(const struct bk_preamble *p, uint64_t plain, uint32_t manifest_length)
{
    struct bk_layout made = {0}, found = {0};
    struct bk_tail t = {.manifest_length = manifest_length};
    struct bk_err err = {0};

    bk_layout_make(p, plain, manifest_length, &made);
    t.index_offset = made.index_offset;
    t.total_length = made.manifest_offset + manifest_length + BK_TAIL_LEN;
    fuzz_must(bk_layout_find(p, &t, t.total_length, &found, &err), &err);
    fuzz_hold(memcmp(&made, &found, sizeof made) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_preamble p = {0};
    struct bk_tail t = {0};
    struct bk_layout l = {0};
    struct bk_err err = {0};
    uint8_t again[BK_TAIL_LEN];
    uint64_t file_size, plain;
    uint8_t *copy;
    enum bk_code rc;

    if (size < HEAD)
        return 0;
    p.slot_size = data[0] * (uint32_t)BK_SLOT_SIZE_UNIT;
    p.segment_size = 1u << (12 + data[1] % 9);
    file_size = bk_get_u64(data + 2);
    plain = bk_get_u64(data + 10) % (BK_SEGMENTS_MAX * p.segment_size + 1);
    copy = fuzz_copy(data + HEAD, size - HEAD);
    rc = bk_tail_parse(copy, size - HEAD, &t, &err);
    fuzz_verdict(rc, &err);
    if (rc == BK_OK) {
        bk_tail_write(&t, again);
        fuzz_hold(size - HEAD == sizeof again && memcmp(again, copy, sizeof again) == 0);
        make_and_find(&p, plain, t.manifest_length);
        fuzz_verdict(rc = bk_layout_find(&p, &t, file_size, &l, &err), &err);
        if (rc == BK_OK) {
            check_layout(&p, &t, file_size, &l);
            fuzz_accepted();
        }
    }
    free(copy);
    return 0;
}
