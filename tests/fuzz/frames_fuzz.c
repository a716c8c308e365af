/*
 * Groups of frames: bytes from elsewhere get the same answer with and without a key; what was sealed opens, and not
 * once it has been changed.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "format/payload.h"
#include "tests/fuzz/fuzz.h"

#define SEGMENT BK_SEGMENT_SIZE_MIN
#define HEAD    8 /* flags, number of the group (2), damage: where (2), how (1), two bytes to spare */

static struct bk_payload payload;
static struct bk_cipher cipher;

/* Once: keys that are the same in every run. */
static void
start(void)
{
    static const uint8_t envelope_digest[32] = {1};
    struct bk_preamble p = {.slot_size = 4096, .segment_size = SEGMENT};
    struct bk_secret file_key = {0};
    uint8_t preamble[BK_PREAMBLE_LEN];
    struct bk_err err;

    if (payload.prk.data != NULL)
        return;
    memcpy(p.archive_id, FUZZ_ARCHIVE_ID, sizeof p.archive_id);
    bk_preamble_write(&p, preamble);
    fuzz_must(bk_secret_from(&file_key, FUZZ_FILE_KEY, sizeof FUZZ_FILE_KEY, &err), &err);
    fuzz_must(bk_payload_init(&payload, preamble, &file_key, envelope_digest, &err), &err);
    bk_secret_wipe(&file_key);
}

/* The root, from leaves and nodes of the tree alone. */
static void
check_root(const uint8_t *frames, size_t len, const uint8_t root[32])
{
    uint8_t leaves[BK_GROUP_SEGMENTS * 32], again[32];
    size_t n = 0;

    for (size_t at = 0; at < len; n++) {
        size_t frame = (bk_get_u32(frames + at) & ~BK_WORD_LAST) + BK_FRAME_OVERHEAD;

        fuzz_hold(n < BK_GROUP_SEGMENTS && frame <= len - at);
        bk_tree_leaf(frames + at, frame, leaves + 32 * n);
        at += frame;
    }
    bk_tree_root(leaves, n, again);
    fuzz_hold(memcmp(root, again, 32) == 0);
}

static void
foreign_frames(uint64_t first, int last, const uint8_t *data, size_t size)
{
    uint8_t *frames = fuzz_copy(data, size), *plain = fuzz_copy(data, size);
    uint8_t root[32], root_again[32];
    size_t plain_len = 0;
    struct bk_err err = {0}, err_again = {0};
    enum bk_code rc = bk_group_root(&cipher, SEGMENT, first, last, frames, size, root, &err), rc_again;

    fuzz_verdict(rc, &err);
    rc_again = bk_group_open(&payload, &cipher, first, last, frames, size, plain, &plain_len, root_again, &err_again);
    fuzz_verdict(rc_again, &err_again);
    if (rc == BK_OK) {
        check_root(frames, size, root);
        fuzz_hold(rc_again == BK_OK || rc_again == BK_E_VERIFY);
    } else {
        fuzz_same_answer(&err, &err_again);
    }
    free(frames);
    free(plain);
}

static void
own_frames(uint64_t first, const uint8_t *head, const uint8_t *data, size_t size)
{
    size_t len = 0, plain_len = 0, damage;
    uint8_t *plain = fuzz_copy(data, size), *frames, *opened = fuzz_copy(data, size);
    uint8_t root[32], root_again[32];
    struct bk_err err = {0};

    frames = calloc(1, (size_t)bk_frames_length(SEGMENT, size));
    fuzz_hold(frames != NULL);
    fuzz_must(bk_group_seal(&payload, &cipher, first, 1, plain, size, frames, &len, root, &err), &err);
    fuzz_hold(len == bk_frames_length(SEGMENT, size));
    check_root(frames, len, root);
    fuzz_must(bk_group_open(&payload, &cipher, first, 1, frames, len, opened, &plain_len, root_again, &err), &err);
    fuzz_hold(plain_len == size && (size == 0 || memcmp(opened, data, size) == 0) && memcmp(root, root_again, 32) == 0);
    fuzz_accepted();
    damage = bk_get_u16(head + 3) % len;
    frames[damage] ^= head[5] == 0 ? 1 : head[5];
    fuzz_verdict(bk_group_open(&payload, &cipher, first, 1, frames, len, opened, &plain_len, root_again, &err), &err);
    fuzz_hold(err.code != BK_OK);
    frames[damage] ^= head[5] == 0 ? 1 : head[5];
    /* at another place of the archive, or not as its end */
    fuzz_verdict(bk_group_open(&payload, &cipher, first + 32, 1, frames, len, opened, &plain_len, root_again, &err),
                 &err);
    fuzz_hold(err.code == (size > 0 ? BK_E_VERIFY : BK_E_FORMAT));
    fuzz_verdict(bk_group_open(&payload, &cipher, first, 0, frames, len, opened, &plain_len, root_again, &err), &err);
    fuzz_hold(err.code == BK_E_FORMAT);
    free(plain);
    free(frames);
    free(opened);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t first;

    if (size < HEAD)
        return 0;
    start();
    first = (uint64_t)bk_get_u16(data + 1) * BK_GROUP_SEGMENTS;
    if ((data[0] & 2) != 0)
        first += BK_SEGMENTS_MAX / 2; /* another epoch */
    foreign_frames(first, data[0] & 1, data + HEAD, size - HEAD);
    /* an empty segment is all of an empty archive, and nowhere else */
    if (size - HEAD <= (size_t)SEGMENT * BK_GROUP_SEGMENTS && (size > HEAD || first == 0))
        own_frames(first, data, data + HEAD, size - HEAD);
    return 0;
}
