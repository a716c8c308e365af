/* Do preamble, slots, tail and layout meet format/preamble.h, slot.h and tail.h? Every parser meets every truncation
 * and every bit flip in buffers of exactly the right size. Constants were computed with another implementation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "format/payload.h"
#include "format/preamble.h"
#include "format/slot.h"
#include "format/tail.h"

#define SLOT_SIZE 4096

static uint8_t *
exact_copy(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);

    assert_non_null(copy);
    memcpy(copy, data, len);
    return copy;
}

static void
example_preamble(struct bk_preamble *p)
{
    *p = (struct bk_preamble){.slot_size = 32768, .segment_size = 4096};
    assert_true(bk_unhex("0190a3b4c5d67e8f9a0b1c2d3e4f5061", p->archive_id, 16));
    assert_true(bk_unhex("676d4069f6d407f56cb609628e893beb8801c4043833227ea8734d421c3f9099", p->key_commit, 32));
}

/* Makes the checksum right again, so that what stands before it is judged on its own. */
static void
repair_preamble(uint8_t *buf)
{
    bk_sha256(buf, 4064, buf + 4064);
}

static void
test_preamble_bytes(void **state)
{
    struct bk_preamble p;
    struct bk_preamble back = {0};
    uint8_t buf[BK_PREAMBLE_LEN];
    uint8_t digest[32];
    char hex[65];

    (void)state;
    example_preamble(&p);
    memset(buf, 0xaa, sizeof buf);
    bk_preamble_write(&p, buf);
    bk_sha256(buf, sizeof buf, digest);
    assert_string_equal(bk_hex(digest, 32, hex), "fc67032c6ed3c17dc3cea5c23b70cc7bbf6f3cc99b821bc705ec04ddd5de6f50");
    assert_int_equal(bk_preamble_parse(buf, sizeof buf, &back, NULL), BK_OK);
    assert_int_equal(back.flags, 0);
    assert_int_equal(back.slot_size, 32768);
    assert_int_equal(back.segment_size, 4096);
    assert_memory_equal(back.archive_id, p.archive_id, 16);
    assert_memory_equal(back.key_commit, p.key_commit, 32);
    assert_true(bk_preamble_head_length(&p) == 4096 + 65536);
    p.flags = BK_FLAG_DETACHED;
    p.slot_size = 0;
    bk_preamble_write(&p, buf);
    assert_int_equal(bk_preamble_parse(buf, sizeof buf, &back, NULL), BK_OK);
    assert_int_equal(back.flags, BK_FLAG_DETACHED);
    assert_true(bk_preamble_head_length(&back) == 4096);
}

static void
test_preamble_flips_and_truncations(void **state)
{
    struct bk_preamble p;
    struct bk_preamble out;
    struct bk_preamble untouched;
    uint8_t buf[BK_PREAMBLE_LEN + 1] = {0};

    (void)state;
    example_preamble(&p);
    bk_preamble_write(&p, buf);
    memset(&out, 0x55, sizeof out);
    untouched = out;
    for (size_t bit = 0; bit < BK_PREAMBLE_LEN * 8; bit++) {
        struct bk_err err = {0};

        buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (bk_preamble_parse(buf, BK_PREAMBLE_LEN, &out, &err) == BK_OK)
            fail_msg("bit %zu", bit);
        assert_string_equal(err.layer, "preamble");
        assert_true(bk_code_is_verification(err.code));
        buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < BK_PREAMBLE_LEN; len++) {
        uint8_t *copy = exact_copy(buf, len);

        assert_int_equal(bk_preamble_parse(copy, len, &out, NULL), BK_E_INCOMPLETE);
        free(copy);
    }
    assert_int_equal(bk_preamble_parse(buf, BK_PREAMBLE_LEN + 1, &out, NULL), BK_E_FORMAT);
    assert_memory_equal(&out, &untouched, sizeof out);
}

static void
test_preamble_names_what_is_newer(void **state)
{
    struct bk_preamble p;
    struct bk_preamble out;
    struct bk_err err = {0};
    uint8_t buf[BK_PREAMBLE_LEN];

    (void)state;
    example_preamble(&p);
    bk_preamble_write(&p, buf);
    /* before the checksum is looked at, which then does not hold */
    buf[9] = 2;
    assert_int_equal(bk_preamble_parse(buf, sizeof buf, &out, &err), BK_E_NEWER);
    assert_non_null(strstr(err.message, "version 2"));
    buf[9] = 0;
    assert_int_equal(bk_preamble_parse(buf, sizeof buf, &out, NULL), BK_E_FORMAT);
    buf[9] = 1;
    buf[11] = 2;
    assert_int_equal(bk_preamble_parse(buf, sizeof buf, &out, &err), BK_E_NEWER);
    assert_non_null(strstr(err.message, "0x0002"));
    buf[11] = 0;
    buf[0] ^= 1;
    buf[9] = 2;
    assert_int_equal(bk_preamble_parse(buf, sizeof buf, &out, NULL), BK_E_FORMAT);
}

static void
check_field(size_t at, uint32_t value, enum bk_code want)
{
    struct bk_preamble p;
    struct bk_preamble out;
    uint8_t buf[BK_PREAMBLE_LEN];

    example_preamble(&p);
    bk_preamble_write(&p, buf);
    bk_put_u32(buf + at, value);
    repair_preamble(buf);
    if (bk_preamble_parse(buf, sizeof buf, &out, NULL) != want)
        fail_msg("value %u at %zu", value, at);
}

static void
test_preamble_fields_behind_a_good_checksum(void **state)
{
    static const uint32_t slot_bad[] = {0, 1, 4095, 4097, 1024 * 1024 + 4096, 0x80000000u, 0xfffff000u};
    static const uint32_t slot_good[] = {4096, 8192, 32768, 1024 * 1024};
    static const uint32_t segment_bad[] = {0, 1, 2048, 4095, 12288, 2 * 1024 * 1024, 0x80000000u};
    struct bk_preamble p;
    struct bk_preamble out;
    uint8_t buf[BK_PREAMBLE_LEN];

    (void)state;
    for (size_t i = 0; i < sizeof slot_bad / sizeof *slot_bad; i++)
        check_field(12, slot_bad[i], BK_E_FORMAT);
    for (size_t i = 0; i < sizeof slot_good / sizeof *slot_good; i++)
        check_field(12, slot_good[i], BK_OK);
    for (size_t i = 0; i < sizeof segment_bad / sizeof *segment_bad; i++)
        check_field(16, segment_bad[i], BK_E_FORMAT);
    for (uint32_t size = BK_SEGMENT_SIZE_MIN; size <= BK_SEGMENT_SIZE_MAX; size *= 2)
        check_field(16, size, BK_OK);
    /* detached, and yet with slots */
    example_preamble(&p);
    p.flags = BK_FLAG_DETACHED;
    bk_preamble_write(&p, buf);
    assert_int_equal(bk_preamble_parse(buf, sizeof buf, &out, NULL), BK_E_FORMAT);
    /* not a UUID of version 7, or of another variant */
    example_preamble(&p);
    p.archive_id[6] = 0x4e;
    bk_preamble_write(&p, buf);
    assert_int_equal(bk_preamble_parse(buf, sizeof buf, &out, NULL), BK_E_FORMAT);
    example_preamble(&p);
    p.archive_id[8] = 0xda;
    bk_preamble_write(&p, buf);
    assert_int_equal(bk_preamble_parse(buf, sizeof buf, &out, NULL), BK_E_FORMAT);
    /* every reserved byte */
    example_preamble(&p);
    bk_preamble_write(&p, buf);
    for (size_t at = 68; at < 4064; at++) {
        buf[at] = 1;
        repair_preamble(buf);
        assert_int_equal(bk_preamble_parse(buf, sizeof buf, &out, NULL), BK_E_FORMAT);
        buf[at] = 0;
    }
}

static const uint8_t envelope[] = {0x30, 0x03, 0x02, 0x01, 0x07};
static const uint8_t record[] = {0x30, 0x00};

static struct bk_slot
example_slot(uint64_t generation)
{
    return (struct bk_slot){.generation = generation,
                            .envelope = envelope,
                            .envelope_len = sizeof envelope,
                            .record = record,
                            .record_len = sizeof record};
}

static void
repair_slot(uint8_t *buf, size_t contents)
{
    bk_sha256_2(buf, 32, buf + BK_SLOT_HEADER, contents, buf + 32);
}

static void
test_slot_bytes(void **state)
{
    struct bk_slot s = example_slot(5);
    struct bk_slot back;
    struct bk_buf sidecar = {0};
    uint8_t want[71];
    uint8_t buf[SLOT_SIZE];

    (void)state;
    assert_true(
        bk_unhex("424b534c4f5400010000000000000005000000050000000200000000000000001c51512a8db796b42bb873e8ed0d60c1"
                 "76f4401802c876078e47b8151846694130030201073000",
                 want, sizeof want));
    memset(buf, 0xaa, sizeof buf);
    assert_int_equal(bk_slot_write(&s, buf, sizeof buf, NULL), BK_OK);
    assert_int_equal(bk_slot_length(&s), sizeof want);
    assert_memory_equal(buf, want, sizeof want);
    for (size_t i = sizeof want; i < sizeof buf; i++)
        assert_int_equal(buf[i], 0);
    assert_int_equal(bk_slot_parse(buf, sizeof buf, &back, NULL), BK_OK);
    assert_int_equal(back.generation, 5);
    assert_ptr_equal(back.envelope, buf + 64);
    assert_int_equal(back.envelope_len, sizeof envelope);
    assert_ptr_equal(back.record, buf + 64 + sizeof envelope);
    assert_int_equal(back.record_len, sizeof record);
    assert_int_equal(bk_slot_write_sidecar(&s, &sidecar, NULL), BK_OK);
    assert_int_equal(sidecar.len, sizeof want);
    assert_memory_equal(sidecar.data, want, sizeof want);
    bk_buf_free(&sidecar);
}

static void
test_slot_flips_and_truncations(void **state)
{
    struct bk_slot s = example_slot(1);
    struct bk_slot out = {.generation = 99};
    uint8_t *buf = malloc(SLOT_SIZE);

    (void)state;
    assert_non_null(buf);
    assert_int_equal(bk_slot_write(&s, buf, SLOT_SIZE, NULL), BK_OK);
    for (size_t bit = 0; bit < (size_t)SLOT_SIZE * 8; bit++) {
        struct bk_err err = {0};

        buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (bk_slot_parse(buf, SLOT_SIZE, &out, &err) != BK_E_FORMAT)
            fail_msg("bit %zu", bit);
        assert_string_equal(err.layer, "slot");
        buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < SLOT_SIZE; len++) {
        uint8_t *copy = exact_copy(buf, len);
        /* a slot is as long as its padding: cuts within that are the caller's to see, by slotSize */
        enum bk_code want = len < bk_slot_length(&s) ? BK_E_FORMAT : BK_OK;

        assert_int_equal(bk_slot_parse(copy, len, &out, NULL), want);
        free(copy);
    }
    free(buf);
}

static void
test_sidecar_flips_and_truncations(void **state)
{
    struct bk_slot s = example_slot(3);
    struct bk_slot out;
    struct bk_buf b = {0};
    uint8_t *copy;

    (void)state;
    assert_int_equal(bk_slot_write_sidecar(&s, &b, NULL), BK_OK);
    copy = exact_copy(b.data, b.len);
    assert_int_equal(bk_slot_parse_sidecar(copy, b.len, &out, NULL), BK_OK);
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(bk_slot_parse_sidecar(copy, b.len, &out, NULL), BK_E_FORMAT);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(copy);
    for (size_t len = 0; len < b.len; len++) {
        copy = exact_copy(b.data, len);
        assert_int_equal(bk_slot_parse_sidecar(copy, len, &out, NULL), BK_E_FORMAT);
        free(copy);
    }
    /* padding belongs to slots only */
    assert_int_equal(bk_buf_append(&b, "", 1, NULL), BK_OK);
    assert_int_equal(bk_slot_parse_sidecar(b.data, b.len, &out, NULL), BK_E_FORMAT);
    bk_buf_free(&b);
}

/* Hostile lengths behind a checksum that holds as far as it can. */
static void
test_slot_lengths(void **state)
{
    static const uint32_t lengths[][2] = {
        {0xffffffff, 1},
        {1, 0xffffffff},
        {0xffffffff, 0xffffffff},
        {0x80000000, 0x80000000},
        {SLOT_SIZE - 64, 1},
        {SLOT_SIZE - 63, 1},
        {1, SLOT_SIZE - 64},
        {0, 7},
        {7, 0},
        {0, 0},
    };
    struct bk_slot s = example_slot(1);
    struct bk_slot out;
    uint8_t *buf = malloc(SLOT_SIZE);

    (void)state;
    assert_non_null(buf);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        assert_int_equal(bk_slot_write(&s, buf, SLOT_SIZE, NULL), BK_OK);
        bk_put_u32(buf + 16, lengths[i][0]);
        bk_put_u32(buf + 20, lengths[i][1]);
        repair_slot(buf, (size_t)lengths[i][0] + lengths[i][1] <= 7 ? lengths[i][0] + lengths[i][1] : 7);
        assert_int_equal(bk_slot_parse(buf, SLOT_SIZE, &out, NULL), BK_E_FORMAT);
    }
    assert_int_equal(bk_slot_write(&s, buf, SLOT_SIZE, NULL), BK_OK);
    bk_put_u64(buf + 8, 0);
    repair_slot(buf, 7);
    assert_int_equal(bk_slot_parse(buf, SLOT_SIZE, &out, NULL), BK_E_FORMAT);
    /* reserved bytes are covered by the checksum and must be zero all the same */
    for (size_t at = 24; at < 32; at++) {
        assert_int_equal(bk_slot_write(&s, buf, SLOT_SIZE, NULL), BK_OK);
        buf[at] = 1;
        repair_slot(buf, 7);
        assert_int_equal(bk_slot_parse(buf, SLOT_SIZE, &out, NULL), BK_E_FORMAT);
    }
    free(buf);
}

static void
test_slot_room(void **state)
{
    uint8_t *big = calloc(1, BK_SLOT_SIZE_MAX);
    uint8_t *buf = malloc(SLOT_SIZE);
    struct bk_slot s = {
        .generation = 1, .envelope = big, .envelope_len = SLOT_SIZE - 64 - 2, .record = record, .record_len = 2};
    struct bk_slot back;
    struct bk_buf sidecar = {0};
    struct bk_err err = {0};

    (void)state;
    assert_non_null(big);
    assert_non_null(buf);
    assert_int_equal(bk_slot_write(&s, buf, SLOT_SIZE, NULL), BK_OK);
    assert_int_equal(bk_slot_parse(buf, SLOT_SIZE, &back, NULL), BK_OK);
    s.envelope_len++;
    assert_int_equal(bk_slot_write(&s, buf, SLOT_SIZE, &err), BK_E_NO_ROOM);
    assert_non_null(strstr(err.hint, "--sidecar"));
    assert_non_null(strstr(err.hint, "wrap it anew"));
    assert_null(strstr(err.hint, "--reencrypt")); /* which no program has */
    s.envelope_len = SIZE_MAX;
    assert_int_equal(bk_slot_write(&s, buf, SLOT_SIZE, NULL), BK_E_NO_ROOM);
    s.envelope_len = SIZE_MAX - 65;
    assert_int_equal(bk_slot_write(&s, buf, SLOT_SIZE, NULL), BK_E_NO_ROOM);
    s.envelope_len = 1;
    assert_int_equal(bk_slot_write(&s, buf, 63, NULL), BK_E_NO_ROOM);
    s.envelope_len = BK_SLOT_SIZE_MAX - 64 - 2;
    assert_int_equal(bk_slot_write_sidecar(&s, &sidecar, NULL), BK_OK);
    assert_int_equal(bk_slot_parse_sidecar(sidecar.data, sidecar.len, &back, NULL), BK_OK);
    assert_int_equal(bk_slot_parse_sidecar(sidecar.data, BK_SLOT_SIZE_MAX + 1, &back, NULL), BK_E_FORMAT);
    bk_buf_free(&sidecar);
    s.envelope_len++;
    assert_int_equal(bk_slot_write_sidecar(&s, &sidecar, &err), BK_E_NO_ROOM);
    assert_int_equal(sidecar.len, 0);
    s.envelope_len = 0;
    assert_int_equal(bk_slot_write(&s, buf, SLOT_SIZE, NULL), BK_E_INTERNAL);
    assert_int_equal(bk_slot_write_sidecar(&s, &sidecar, NULL), BK_E_INTERNAL);
    free(buf);
    free(big);
}

static void
test_slot_size_for(void **state)
{
    (void)state;
    assert_int_equal(bk_slot_size_for(1, 1), BK_SLOT_SIZE_DEFAULT);
    assert_int_equal(bk_slot_size_for(16000, 384 - 64), BK_SLOT_SIZE_DEFAULT);
    assert_int_equal(bk_slot_size_for(16000, 384 - 63), BK_SLOT_SIZE_DEFAULT + 4096);
    assert_int_equal(bk_slot_size_for(512 * 1024 - 64, 0), BK_SLOT_SIZE_MAX);
    assert_int_equal(bk_slot_size_for(512 * 1024 - 64, 1), 0);
    assert_int_equal(bk_slot_size_for(SIZE_MAX, 1), 0);
    assert_int_equal(bk_slot_size_for(1, SIZE_MAX), 0);
    assert_int_equal(bk_slot_size_for(SIZE_MAX, SIZE_MAX), 0);
    for (size_t len = 1; len < 520000; len += 997) {
        uint32_t size = bk_slot_size_for(len, 100);

        assert_int_equal(size % BK_SLOT_SIZE_UNIT, 0);
        assert_true(size >= 2 * (len + 164) && size <= BK_SLOT_SIZE_MAX);
    }
}

static void
write_pair(uint8_t *a, uint64_t generation_a, uint8_t *b, uint64_t generation_b)
{
    struct bk_slot s = example_slot(generation_a);

    assert_int_equal(bk_slot_write(&s, a, SLOT_SIZE, NULL), BK_OK);
    s.generation = generation_b;
    assert_int_equal(bk_slot_write(&s, b, SLOT_SIZE, NULL), BK_OK);
}

static void
check_slots(const uint8_t *a, const uint8_t *b, int taken, int differ, uint64_t generation)
{
    struct bk_slots s;
    struct bk_err err = {0};

    if (bk_slots_parse(a, b, SLOT_SIZE, &s, &err) != BK_OK)
        fail_msg("%s", err.message);
    assert_int_equal(s.taken, taken);
    assert_int_equal(s.differ, differ);
    assert_int_equal(s.state[taken], BK_SLOT_VALID);
    assert_true(s.slot[taken].generation == generation);
}

static void
test_two_slots(void **state)
{
    uint8_t a[SLOT_SIZE];
    uint8_t b[SLOT_SIZE];
    struct bk_slots s;
    struct bk_err err = {0};
    struct bk_slot other = example_slot(4);

    (void)state;
    write_pair(a, 4, b, 4);
    check_slots(a, b, 0, 0, 4);
    write_pair(a, 4, b, 5);
    check_slots(a, b, 1, 1, 5);
    write_pair(a, UINT64_MAX, b, 5);
    check_slots(a, b, 0, 1, UINT64_MAX);
    /* one of them torn: the whole one is taken, also when it is the older one */
    write_pair(a, 4, b, 5);
    b[70] ^= 1;
    check_slots(a, b, 0, 0, 4);
    assert_int_equal(bk_slots_parse(a, b, SLOT_SIZE, &s, NULL), BK_OK);
    assert_int_equal(s.state[1], BK_SLOT_DAMAGED);
    assert_non_null(strstr(s.damage[1].message, "checksum"));
    write_pair(a, 5, b, 5);
    memset(a, 0, 512);
    check_slots(a, b, 1, 0, 5);
    /* neither */
    b[SLOT_SIZE - 1] = 1;
    assert_int_equal(bk_slots_parse(a, b, SLOT_SIZE, &s, &err), BK_E_FORMAT);
    assert_string_equal(err.layer, "slot");
    /* of one generation, and not the same */
    write_pair(a, 4, b, 4);
    other.record_len = 1;
    assert_int_equal(bk_slot_write(&other, b, SLOT_SIZE, NULL), BK_OK);
    assert_int_equal(bk_slots_parse(a, b, SLOT_SIZE, &s, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "differ"));
}

/* A rekey writes the slot that it did not take, then the other: cut anywhere, one is whole. */
static void
test_a_cut_at_any_sector_leaves_one_slot(void **state)
{
    uint8_t slots[2][SLOT_SIZE];
    uint8_t next[SLOT_SIZE];
    uint8_t fresh[SLOT_SIZE];
    struct bk_slots s;

    (void)state;
    for (int first = 0; first < 2; first++)
        for (size_t cut = 0; cut <= 2 * SLOT_SIZE; cut += 512) {
            size_t one = cut < SLOT_SIZE ? cut : SLOT_SIZE;
            size_t two = cut - one;

            write_pair(slots[0], 1, next, 2);
            memcpy(slots[1], slots[0], SLOT_SIZE);
            memcpy(fresh, next, SLOT_SIZE);
            memcpy(slots[first], fresh, one);
            memcpy(slots[!first], fresh, two);
            assert_int_equal(bk_slots_parse(slots[0], slots[1], SLOT_SIZE, &s, NULL), BK_OK);
            assert_in_range(s.slot[s.taken].generation, 1, 2);
        }
}

static void
test_tail_bytes(void **state)
{
    struct bk_tail t = {
        .index_offset = 0x0102030405060708, .manifest_length = 1000, .total_length = 0x0102030405061000};
    struct bk_tail back;
    uint8_t want[BK_TAIL_LEN];
    uint8_t buf[BK_TAIL_LEN];

    (void)state;
    assert_true(bk_unhex("424b5441494c0d0a0102030405060708000003e8000000000102030405061000"
                         "6d5a4f474128157d09d8f290a9e0b47bdfc603f2a6a24db250f46b77f9d23eef",
                         want, sizeof want));
    bk_tail_write(&t, buf);
    assert_memory_equal(buf, want, sizeof want);
    assert_int_equal(bk_tail_parse(buf, sizeof buf, &back, NULL), BK_OK);
    assert_true(back.index_offset == t.index_offset && back.total_length == t.total_length);
    assert_int_equal(back.manifest_length, 1000);
}

static void
test_tail_flips_and_truncations(void **state)
{
    struct bk_tail t = {.index_offset = 70000, .manifest_length = 1000, .total_length = 72000};
    struct bk_tail out = {.manifest_length = 7};
    uint8_t buf[BK_TAIL_LEN + 1] = {0};

    (void)state;
    bk_tail_write(&t, buf);
    for (size_t bit = 0; bit < BK_TAIL_LEN * 8; bit++) {
        struct bk_err err = {0};

        buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(bk_tail_parse(buf, BK_TAIL_LEN, &out, &err), bit < 64 ? BK_E_INCOMPLETE : BK_E_FORMAT);
        assert_string_equal(err.layer, "tail");
        buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < BK_TAIL_LEN; len++) {
        uint8_t *copy = exact_copy(buf, len);

        assert_int_equal(bk_tail_parse(copy, len, &out, NULL), BK_E_INCOMPLETE);
        free(copy);
    }
    assert_int_equal(bk_tail_parse(buf, BK_TAIL_LEN + 1, &out, NULL), BK_E_FORMAT);
    assert_int_equal(out.manifest_length, 7);
    t.manifest_length = 0;
    bk_tail_write(&t, buf);
    assert_int_equal(bk_tail_parse(buf, BK_TAIL_LEN, &out, NULL), BK_E_FORMAT);
    t.manifest_length = BK_MANIFEST_MAX + 1;
    bk_tail_write(&t, buf);
    assert_int_equal(bk_tail_parse(buf, BK_TAIL_LEN, &out, NULL), BK_E_FORMAT);
    t.manifest_length = 1000;
    bk_tail_write(&t, buf);
    buf[20] = 1;
    bk_sha256(buf, 32, buf + 32);
    assert_int_equal(bk_tail_parse(buf, BK_TAIL_LEN, &out, NULL), BK_E_FORMAT);
}

static struct bk_tail
tail_of(const struct bk_layout *l)
{
    return (struct bk_tail){.index_offset = l->index_offset,
                            .manifest_length = l->manifest_length,
                            .total_length = l->manifest_offset + l->manifest_length + BK_TAIL_LEN};
}

static void
check_layout(const struct bk_preamble *p, uint64_t plain, uint64_t segments)
{
    struct bk_layout made;
    struct bk_layout found;
    struct bk_err err = {0};
    struct bk_tail t;

    bk_layout_make(p, plain, 777, &made);
    t = tail_of(&made);
    if (bk_layout_find(p, &t, t.total_length, &found, &err) != BK_OK)
        fail_msg("%llu: %s", (unsigned long long)plain, err.message);
    assert_true(found.plaintext_length == plain);
    assert_true(found.segments == segments);
    assert_true(found.groups == (segments + 31) / 32);
    assert_true(found.frames_offset == bk_preamble_head_length(p));
    assert_true(found.frames_length == plain + segments * 20);
    assert_true(found.index_offset + 32 * found.groups + 4 == found.manifest_offset);
    assert_true(made.frames_offset == found.frames_offset && made.frames_length == found.frames_length);
    assert_true(made.index_offset == found.index_offset && made.groups == found.groups);
    assert_true(made.segments == found.segments && made.plaintext_length == found.plaintext_length);
    assert_true(made.manifest_offset == found.manifest_offset && made.manifest_length == found.manifest_length);
}

static void
test_layouts_of_lengths_at_every_edge(void **state)
{
    struct bk_preamble p;

    (void)state;
    example_preamble(&p);
    for (uint32_t size = BK_SEGMENT_SIZE_MIN; size <= BK_SEGMENT_SIZE_MAX; size *= 2) {
        uint64_t group = 32ull * size;

        p.segment_size = size;
        check_layout(&p, 0, 1);
        check_layout(&p, 1, 1);
        check_layout(&p, size - 1, 1);
        check_layout(&p, size, 1);
        check_layout(&p, (uint64_t)size + 1, 2);
        check_layout(&p, group - 1, 32);
        check_layout(&p, group, 32);
        check_layout(&p, group + 1, 33);
        check_layout(&p, 1000 * group + 5, 32001);
        check_layout(&p, BK_SEGMENTS_MAX * size, BK_SEGMENTS_MAX);
    }
}

static enum bk_code
find_code(const struct bk_preamble *p, uint64_t index, uint32_t manifest, uint64_t total, uint64_t size)
{
    struct bk_tail t = {.index_offset = index, .manifest_length = manifest, .total_length = total};
    struct bk_layout out;
    struct bk_err err = {0};
    enum bk_code rc = bk_layout_find(p, &t, size, &out, &err);

    if (rc != BK_OK)
        assert_string_equal(err.layer, "tail");
    return rc;
}

/* Whatever frames length is claimed: a layout is found exactly when some plaintext has it, and the index is as long as
 * that wants. */
static void
test_every_length_of_a_small_archive(void **state)
{
    struct bk_preamble p;
    uint64_t head;

    (void)state;
    example_preamble(&p);
    head = bk_preamble_head_length(&p);
    for (uint64_t frames = 0; frames < 3 * 4116 + 100; frames++) {
        uint64_t rest = frames % 4116;
        int right = frames == 20 || (frames > 0 && (rest == 0 || rest > 20));
        uint64_t total = head + frames + 32 + 4 + 777 + 64;

        assert_int_equal(find_code(&p, head + frames, 777, total, total), right ? BK_OK : BK_E_FORMAT);
    }
}

static void
test_layout_refuses_what_does_not_agree(void **state)
{
    struct bk_preamble p;
    struct bk_layout l;
    struct bk_tail t;

    (void)state;
    example_preamble(&p);
    bk_layout_make(&p, 33 * 4096, 777, &l);
    t = tail_of(&l);
    assert_int_equal(find_code(&p, t.index_offset, 777, t.total_length, t.total_length), BK_OK);
    for (uint64_t d = 1; d < 200; d++) {
        /* the file shorter or longer than the tail says; tail and file together shorter or longer than the parts */
        assert_int_equal(find_code(&p, t.index_offset, 777, t.total_length, t.total_length - d), BK_E_INCOMPLETE);
        assert_int_equal(find_code(&p, t.index_offset, 777, t.total_length, t.total_length + d), BK_E_FORMAT);
        assert_int_equal(find_code(&p, t.index_offset, 777, t.total_length - d, t.total_length - d), BK_E_FORMAT);
        assert_int_equal(find_code(&p, t.index_offset, 777, t.total_length + d, t.total_length + d), BK_E_FORMAT);
        assert_int_equal(find_code(&p, t.index_offset, 777 + (uint32_t)d, t.total_length, t.total_length), BK_E_FORMAT);
        assert_int_equal(find_code(&p, t.index_offset - d, 777, t.total_length, t.total_length), BK_E_FORMAT);
        assert_int_equal(find_code(&p, t.index_offset + d, 777, t.total_length, t.total_length), BK_E_FORMAT);
    }
}

static void
test_layout_survives_hostile_numbers(void **state)
{
    static const uint64_t values[] = {0,
                                      1,
                                      63,
                                      64,
                                      4096,
                                      69632,
                                      69652,
                                      69700,
                                      1ull << 32,
                                      1ull << 52,
                                      1ull << 63,
                                      UINT64_MAX - 69632,
                                      UINT64_MAX - 64,
                                      UINT64_MAX - 1,
                                      UINT64_MAX};
    static const uint32_t manifests[] = {0, 1, 1024 * 1024, 0xffffffff};
    struct bk_preamble p;
    uint64_t frames;

    (void)state;
    example_preamble(&p);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        for (size_t t = 0; t < sizeof values / sizeof *values; t++)
            for (size_t m = 0; m < sizeof manifests / sizeof *manifests; m++)
                for (size_t f = 0; f < sizeof values / sizeof *values; f++)
                    assert_int_not_equal(find_code(&p, values[i], manifests[m], values[t], values[f]), BK_OK);
    /* one segment more than there can be, and the index that it would need */
    frames = (BK_SEGMENTS_MAX + 1) * 4116;
    frames += 69632;
    assert_int_equal(
        find_code(&p, frames, 1, frames + ((1ull << 27) + 1) * 32 + 69, frames + ((1ull << 27) + 1) * 32 + 69),
        BK_E_FORMAT);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preamble_bytes),
        cmocka_unit_test(test_preamble_flips_and_truncations),
        cmocka_unit_test(test_preamble_names_what_is_newer),
        cmocka_unit_test(test_preamble_fields_behind_a_good_checksum),
        cmocka_unit_test(test_slot_bytes),
        cmocka_unit_test(test_slot_flips_and_truncations),
        cmocka_unit_test(test_sidecar_flips_and_truncations),
        cmocka_unit_test(test_slot_lengths),
        cmocka_unit_test(test_slot_room),
        cmocka_unit_test(test_slot_size_for),
        cmocka_unit_test(test_two_slots),
        cmocka_unit_test(test_a_cut_at_any_sector_leaves_one_slot),
        cmocka_unit_test(test_tail_bytes),
        cmocka_unit_test(test_tail_flips_and_truncations),
        cmocka_unit_test(test_layouts_of_lengths_at_every_edge),
        cmocka_unit_test(test_every_length_of_a_small_archive),
        cmocka_unit_test(test_layout_refuses_what_does_not_agree),
        cmocka_unit_test(test_layout_survives_hostile_numbers),
    };

    return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
