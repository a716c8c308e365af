/* Is every single flipped bit and every cut of an archive refused, with no output left, but for what two slots heal? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/payload.h"
#include "tests/support/ops_fixture.h"

#define PLAIN_LEN 60

/* One small archive, and where its parts are. */
struct victim {
    struct world *w;
    int fd;
    uint64_t size, slot_size, frames, index, manifest, tail;
};

static struct victim
make_victim(struct world *w, size_t len)
{
    struct victim v = {.w = w};
    struct ops_archive a = {0};
    struct store_source *src = NULL;
    uint8_t *data = world_bytes(len);

    world_wrap(w, "a.bk", data, len, NULL);
    free(data);
    assert_int_equal(store_source_open(world_path(w, "a.bk"), NULL, &src, &w->err), BK_OK);
    assert_int_equal(ops_archive_open(&a, src, &w->trust, NULL, &w->err), BK_OK);
    v.slot_size = a.preamble.slot_size;
    v.frames = a.layout.frames_offset;
    v.index = a.layout.index_offset;
    v.manifest = a.layout.manifest_offset - 4;
    v.tail = a.tail.total_length - BK_TAIL_LEN;
    v.size = a.tail.total_length;
    ops_archive_free(&a);
    store_source_close(src);
    v.fd = open(world_path(w, "a.bk"), O_RDWR | O_CLOEXEC);
    assert_true(v.fd >= 0);
    return v;
}

static void
flip(const struct victim *v, uint64_t byte, unsigned bit)
{
    uint8_t b;

    assert_int_equal(pread(v->fd, &b, 1, (off_t)byte), 1);
    b ^= (uint8_t)(1u << bit);
    assert_int_equal(pwrite(v->fd, &b, 1, (off_t)byte), 1);
}

static void
assert_refused(const struct victim *v, uint64_t byte, unsigned bit)
{
    enum bk_code unwrapped = world_unwrap(v->w, "a.bk", W_KEK_P256, "out", NULL);
    enum bk_code verified;

    if (!bk_code_is_verification(unwrapped))
        fail_msg("bit %u of byte %llu: unwrap says %d", bit, (unsigned long long)byte, (int)unwrapped);
    if (v->w->err.message[0] == '\0' || v->w->err.layer == NULL)
        fail_msg("bit %u of byte %llu: refused without saying where", bit, (unsigned long long)byte);
    verified = world_verify(v->w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P256);
    if (!bk_code_is_verification(verified))
        fail_msg("bit %u of byte %llu: verify says %d", bit, (unsigned long long)byte, (int)verified);
}

static void
refuse_every_bit(const struct victim *v, uint64_t from, uint64_t to)
{
    assert_true(from < to);
    for (uint64_t byte = from; byte < to; byte++)
        for (unsigned bit = 0; bit < 8; bit++) {
            flip(v, byte, bit);
            assert_refused(v, byte, bit);
            flip(v, byte, bit);
        }
    assert_int_equal(world_entries(v->w), 1); /* the archive and nothing else */
    assert_int_equal(world_verify(v->w, "a.bk", OPS_LEVEL_DECRYPT, W_KEK_P256), BK_OK);
}

static void
every_bit_of_the_preamble(void **state)
{
    struct victim v = make_victim(*state, PLAIN_LEN);

    refuse_every_bit(&v, 0, BK_PREAMBLE_LEN);
    (void)close(v.fd);
}

static void
every_bit_of_the_frames(void **state)
{
    struct victim v = make_victim(*state, PLAIN_LEN);

    assert_int_equal(v.index - v.frames, PLAIN_LEN + BK_FRAME_OVERHEAD);
    refuse_every_bit(&v, v.frames, v.index);
    (void)close(v.fd);
}

static void
every_bit_of_index_manifest_and_tail(void **state)
{
    struct victim v = make_victim(*state, PLAIN_LEN);

    refuse_every_bit(&v, v.index, v.size);
    (void)close(v.fd);
}

static void
words_and_tags_of_many_segments(void **state)
{
    /* two groups and a bit: the first and last byte of every frame, and one within */
    size_t frame = BK_SEGMENT_SIZE_MIN + BK_FRAME_OVERHEAD;
    struct victim v = make_victim(*state, (size_t)BK_SEGMENT_SIZE_MIN * 70 + 5);

    for (uint64_t at = v.frames; at < v.index; at += frame) {
        uint64_t end = at + frame < v.index ? at + frame : v.index;

        refuse_every_bit(&v, at, at + 1);
        flip(&v, (at + end) / 2, 3);
        assert_refused(&v, (at + end) / 2, 3);
        flip(&v, (at + end) / 2, 3);
        flip(&v, end - 1, 0);
        assert_refused(&v, end - 1, 0);
        flip(&v, end - 1, 0);
    }
    (void)close(v.fd);
}

static void
every_cut(void **state)
{
    struct victim v = make_victim(*state, PLAIN_LEN);

    for (uint64_t len = v.size; len-- > 0;) {
        assert_int_equal(ftruncate(v.fd, (off_t)len), 0);
        if (!bk_code_is_verification(world_verify(v.w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P256)))
            fail_msg("cut to %llu bytes: accepted", (unsigned long long)len);
        if (len % 499 == 0 || len > v.frames)
            assert_true(bk_code_is_verification(world_unwrap(v.w, "a.bk", W_KEK_P256, "out", NULL)));
    }
    assert_int_equal(world_entries(v.w), 1);
    (void)close(v.fd);
}

static void
bytes_added_at_the_end(void **state)
{
    struct victim v = make_victim(*state, PLAIN_LEN);

    for (uint64_t more = 1; more < 200; more += 11) {
        assert_int_equal(ftruncate(v.fd, (off_t)(v.size + more)), 0);
        assert_refused(&v, v.size, 0);
    }
    assert_int_equal(world_entries(v.w), 1);
    (void)close(v.fd);
}

/* A reader looks twice before it calls a slot damaged, so these are samples: header, envelope, record, padding. */
static void
one_damaged_slot_is_named_and_healed_by_the_other(void **state)
{
    static const uint64_t places[] = {0, 9, 18, 25, 40, 64, 200, 500, 700, 20000};
    struct victim v = make_victim(*state, PLAIN_LEN);
    uint8_t *data = world_bytes(PLAIN_LEN);

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        uint64_t slot = i % 2;
        uint64_t byte = BK_PREAMBLE_LEN + slot * v.slot_size + places[i];

        v.w->warnings[0] = '\0';
        flip(&v, byte, (unsigned)i % 8);
        world_assert_opens(v.w, "a.bk", W_KEK_P256, data, PLAIN_LEN);
        assert_non_null(strstr(v.w->warnings, slot == 0 ? "slot A" : "slot B"));
        assert_int_equal(world_verify(v.w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P256), BK_E_FORMAT);
        assert_non_null(strstr(v.w->err.message, slot == 0 ? "slot A" : "slot B"));
        flip(&v, byte, (unsigned)i % 8);
    }
    free(data);
    (void)close(v.fd);
}

static void
two_damaged_slots_are_refused(void **state)
{
    struct victim v = make_victim(*state, PLAIN_LEN);

    flip(&v, BK_PREAMBLE_LEN + 100, 0);
    flip(&v, BK_PREAMBLE_LEN + v.slot_size + 33, 5);
    assert_refused(&v, 0, 0);
    assert_int_equal(world_entries(v.w), 1);
    (void)close(v.fd);
}

static void
groups_exchanged_between_archives(void **state)
{
    struct victim v = make_victim(*state, (size_t)BK_SEGMENT_SIZE_MIN * 40);
    size_t len, other_len;
    uint8_t *a = world_get(v.w, "a.bk", &len), *b;
    uint8_t *data = world_bytes((size_t)BK_SEGMENT_SIZE_MIN * 40);

    world_wrap(v.w, "b.bk", data, (size_t)BK_SEGMENT_SIZE_MIN * 40, NULL);
    b = world_get(v.w, "b.bk", &other_len);
    memcpy(a + v.frames, b + v.frames, v.index - v.frames);
    world_put(v.w, "a.bk", a, len);
    assert_refused(&v, v.frames, 0);
    /* and with its index: the signed root no longer fits */
    memcpy(a + v.index, b + v.index, v.manifest - v.index);
    world_put(v.w, "a.bk", a, len);
    assert_refused(&v, v.index, 0);
    /* and with its manifest and tail: it then belongs to another archive */
    memcpy(a + v.frames, b + v.frames, (len < other_len ? len : other_len) - v.frames);
    world_put(v.w, "a.bk", a, len);
    assert_refused(&v, v.manifest, 0);
    free(a);
    free(b);
    free(data);
    (void)close(v.fd);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, world_clean)
    const struct CMUnitTest tests[] = {
        TEST(every_bit_of_the_preamble),
        TEST(every_bit_of_the_frames),
        TEST(every_bit_of_index_manifest_and_tail),
        TEST(words_and_tags_of_many_segments),
        TEST(every_cut),
        TEST(bytes_added_at_the_end),
        TEST(one_damaged_slot_is_named_and_healed_by_the_other),
        TEST(two_damaged_slots_are_refused),
        TEST(groups_exchanged_between_archives),
    };

    return cmocka_run_group_tests(tests, world_make, world_free);
}
