/* Does format/manifest.c meet its header? docs/FORMAT.md, Manifest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/algorithms.h"
#include "format/manifest.h"
#include "tests/support/mutate.h"

static const uint8_t own_id[BK_UUID_LEN] = {0x01, 0x8f, 0x11, 0x22, 0x33, 0x44, 0x7a, 0xbc,
                                            0x8d, 0xef, 1,    2,    3,    4,    5,    6};
static const uint8_t other_id[BK_UUID_LEN] = {0x01, 0x8f, 0x11, 0x22, 0x33, 0x44, 0x7a, 0xbc,
                                              0x8d, 0xef, 9,    9,    9,    9,    9,    9};

static struct bk_manifest
plain(void)
{
    struct bk_manifest m = {.segment_count = 3, .plaintext_length = 2 * 32768 + 5, .created_at = 1764000000};

    memcpy(m.archive_id, own_id, sizeof own_id);
    memset(m.preamble_digest, 0xa1, 32);
    memset(m.envelope_digest, 0xa2, 32);
    memset(m.record_digest, 0xa3, 32);
    memset(m.payload_digest, 0xa4, 32);
    return m;
}

static struct bk_manifest
full(void)
{
    struct bk_manifest m = plain();

    m.kind = BK_KIND_WAL;
    m.has_parent = m.has_supersedes = m.has_retain_until = m.has_policy_digest = 1;
    memcpy(m.parent.archive_id, other_id, sizeof other_id);
    memset(m.parent.manifest_digest, 0xb1, 32);
    memcpy(m.supersedes.archive_id, other_id, sizeof other_id);
    memset(m.supersedes.manifest_digest, 0xb2, 32);
    m.retain_until = m.created_at + 86400;
    memset(m.policy_digest, 0xb3, 32);
    strcpy(m.sequence, "system=71 timeline=1 segment=000000010000000000000005");
    strcpy(m.label, "orders, n\xc3\xa4"
                    "chtlich");
    strcpy(m.producer, "pg_receivewal");
    return m;
}

static struct bk_buf
encoded(const struct bk_manifest *m)
{
    struct bk_buf der = {0};
    struct bk_err err = {0};

    if (bk_manifest_encode(m, &der, &err) != BK_OK)
        fail_msg("%s", err.message);
    return der;
}

static void
assert_parent(int has, const struct bk_parent *a, int expected, const struct bk_parent *b)
{
    assert_int_equal(has, expected);
    assert_memory_equal(a->archive_id, b->archive_id, sizeof a->archive_id);
    assert_memory_equal(a->manifest_digest, b->manifest_digest, sizeof a->manifest_digest);
}

static void
assert_same(const struct bk_manifest *a, const struct bk_manifest *b)
{
    assert_memory_equal(a->archive_id, b->archive_id, sizeof a->archive_id);
    assert_memory_equal(a->preamble_digest, b->preamble_digest, 32);
    assert_memory_equal(a->envelope_digest, b->envelope_digest, 32);
    assert_memory_equal(a->record_digest, b->record_digest, 32);
    assert_memory_equal(a->payload_digest, b->payload_digest, 32);
    assert_int_equal(a->segment_count, b->segment_count);
    assert_int_equal(a->plaintext_length, b->plaintext_length);
    assert_int_equal(a->created_at, b->created_at);
    assert_int_equal(a->kind, b->kind);
    assert_parent(a->has_parent, &a->parent, b->has_parent, &b->parent);
    assert_parent(a->has_supersedes, &a->supersedes, b->has_supersedes, &b->supersedes);
    assert_int_equal(a->has_retain_until, b->has_retain_until);
    assert_int_equal(a->retain_until, b->retain_until);
    assert_int_equal(a->has_policy_digest, b->has_policy_digest);
    assert_memory_equal(a->policy_digest, b->policy_digest, 32);
    assert_string_equal(a->sequence, b->sequence);
    assert_string_equal(a->label, b->label);
    assert_string_equal(a->producer, b->producer);
}

static void
assert_round_trip(const struct bk_manifest *m)
{
    struct bk_buf der = encoded(m);
    struct bk_buf again;
    struct bk_manifest back;
    struct bk_err err = {0};

    if (bk_manifest_parse(der.data, der.len, &back, &err) != BK_OK)
        fail_msg("%s", err.message);
    assert_same(&back, m);
    again = encoded(&back);
    assert_int_equal(again.len, der.len);
    assert_memory_equal(again.data, der.data, der.len);
    bk_buf_free(&again);
    bk_buf_free(&der);
}

static void
round_trips(void **state)
{
    struct bk_manifest m = plain();

    (void)state;
    assert_round_trip(&m);
    m = full();
    assert_round_trip(&m);
    for (int kind = BK_KIND_FULL; kind <= BK_KIND_OTHER; kind++) {
        m.kind = (enum bk_kind)kind;
        assert_round_trip(&m);
    }
    memset(m.label, 'x', BK_TEXT_MAX);
    m.label[BK_TEXT_MAX] = '\0';
    assert_round_trip(&m);
}

static void
refused(const struct bk_manifest *m, enum bk_code code, const char *part)
{
    struct bk_buf der = {0};
    struct bk_err err = {0};

    assert_int_equal(bk_manifest_encode(m, &der, &err), code);
    assert_int_equal(err.code, code);
    assert_string_equal(err.layer, "manifest");
    assert_int_equal(strncmp(err.message, "manifest: ", 10), 0);
    if (strstr(err.message, part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_int_equal(der.len, 0);
    bk_buf_free(&der);
}

static void
facts_are_checked(void **state)
{
    struct bk_manifest m = plain();

    (void)state;
    m.archive_id[6] = 0x4a;
    refused(&m, BK_E_INTERNAL, "archiveId");
    m = plain();
    m.segment_count = 0;
    refused(&m, BK_E_INTERNAL, "segmentCount");
    m.segment_count = (1ull << 32) + 1;
    refused(&m, BK_E_INTERNAL, "segmentCount");
    m = plain();
    m.plaintext_length = 3ull * 1024 * 1024 + 1;
    refused(&m, BK_E_INTERNAL, "plaintextLength");
    m.plaintext_length = 2 * 4096;
    refused(&m, BK_E_INTERNAL, "plaintextLength");
    m.plaintext_length = 2 * 4096 + 1;
    assert_round_trip(&m);
    m.segment_count = 1;
    m.plaintext_length = 0;
    assert_round_trip(&m);
    m.created_at = -1;
    refused(&m, BK_E_INTERNAL, "createdAt");
    m.created_at = 253402300800;
    refused(&m, BK_E_INTERNAL, "createdAt");
    m = plain();
    m.kind = (enum bk_kind)5;
    refused(&m, BK_E_INTERNAL, "kind");
}

static void
words_are_checked(void **state)
{
    struct bk_manifest m = full();

    (void)state;
    memcpy(m.parent.archive_id, own_id, sizeof own_id);
    refused(&m, BK_E_USAGE, "parent names the archive itself");
    m = full();
    memcpy(m.supersedes.archive_id, own_id, sizeof own_id);
    refused(&m, BK_E_USAGE, "supersedes names the archive itself");
    m = full();
    memset(m.supersedes.archive_id, 0, sizeof own_id);
    refused(&m, BK_E_USAGE, "supersedes: archiveId");
    m = full();
    m.retain_until = m.created_at - 1;
    refused(&m, BK_E_USAGE, "retainUntil");
    m = full();
    strcpy(m.label, "two\nlines");
    refused(&m, BK_E_USAGE, "label");
    m = full();
    strcpy(m.producer, "\x1b[2J");
    refused(&m, BK_E_USAGE, "producer");
    m = full();
    memset(m.label, 'x', sizeof m.label);
    refused(&m, BK_E_USAGE, "label");
}

static void
sequences_are_checked(void **state)
{
    static const char *const good[] = {"a=1", "system=7 timeline=1 start=0/1 stop=0/2", "x==", "aa=1 a=2", "a=1 aa=2"};
    static const char *const bad[] = {" a=1",       "a=1 ",  "a=1  b=2", "a",          "a=", "=1",
                                      "A=1",        "a1=1",  "a=1 a=2",  "a=1\tb=2",   " ",  "a=\xc3\xa4",
                                      "a=1 b= c=3", "a=1 b", "a= b=1",   "a=1 b=2 a=3"};
    static const char *const wal[] = {"",
                                      "system=1 timeline=2",
                                      "system=1 segment=2",
                                      "timeline=1 segment=2",
                                      "xsystem=1 timeline=2 segment=3",
                                      "system=1 timeline=2 segments=3"};
    struct bk_manifest m = plain();

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        memset(m.sequence, 0, sizeof m.sequence);
        strcpy(m.sequence, good[i]);
        assert_round_trip(&m);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        strcpy(m.sequence, bad[i]);
        refused(&m, BK_E_USAGE, "sequence");
    }
    m.kind = BK_KIND_WAL;
    for (size_t i = 0; i < sizeof wal / sizeof wal[0]; i++) {
        strcpy(m.sequence, wal[i]);
        refused(&m, BK_E_USAGE, "kind wal needs");
    }
}

/* The first place of needle in the DER, where it must be. */
static uint8_t *
place_of(struct bk_buf *der, const void *needle, size_t len)
{
    uint8_t *at = memmem(der->data, der->len, needle, len);

    assert_non_null(at);
    return at;
}

static void
parse_refused(const struct bk_buf *der, enum bk_code code, const char *part)
{
    struct bk_manifest m;
    struct bk_err err = {0};

    memset(&m, 0x5a, sizeof m);
    assert_int_equal(bk_manifest_parse(der->data, der->len, &m, &err), code);
    if (strstr(err.message, part) == NULL || strncmp(err.message, "manifest: ", 10) != 0)
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    for (size_t i = 0; i < sizeof m; i++)
        assert_int_equal(((const uint8_t *)&m)[i], 0x5a);
}

static void
parsing_checks_the_same(void **state)
{
    struct bk_manifest m = full();
    struct bk_buf der = encoded(&m);

    (void)state;
    memcpy(place_of(&der, other_id, BK_UUID_LEN), own_id, BK_UUID_LEN);
    parse_refused(&der, BK_E_FORMAT, "parent names the archive itself");
    bk_buf_free(&der);
    der = encoded(&m);
    memcpy(place_of(&der, "timeline=1", 10), "segment=11", 10);
    parse_refused(&der, BK_E_FORMAT, "sequence");
    bk_buf_free(&der);
    der = encoded(&m);
    memcpy(place_of(&der, "pg_receivewal", 13),
           "pg_receive\x7f"
           "al",
           13);
    parse_refused(&der, BK_E_FORMAT, "producer");
    bk_buf_free(&der);
    der = encoded(&m);
    memcpy(place_of(&der, "\x02\x01\x03\x02\x03", 5), "\x02\x01\x00\x02\x03", 5);
    parse_refused(&der, BK_E_FORMAT, "segmentCount");
    bk_buf_free(&der);
    der = encoded(&m);
    memcpy(place_of(&der, "\x0a\x01\x02", 3), "\x0a\x01\x05", 3);
    parse_refused(&der, BK_E_FORMAT, "kind 5");
    bk_buf_free(&der);
}

static void
newer_is_named(void **state)
{
    struct bk_manifest m = full();
    struct bk_buf der = encoded(&m);
    uint8_t suite[BK_OWN_OID_LEN];

    (void)state;
    bk_own_oid(BK_OID_SUITE_1, suite);
    place_of(&der, suite, sizeof suite)[sizeof suite - 1] = 0x3f;
    parse_refused(&der, BK_E_NEWER, "suite 06156983dfbbb4fdda93aaa1ebaad0c199dbacd9b24f3f");
    bk_buf_free(&der);
    der = encoded(&m);
    place_of(&der, "\x02\x01\x01\x04\x10", 5)[2] = 2;
    parse_refused(&der, BK_E_NEWER, "version 2 ");
    /* named although what follows is nothing that this version knows */
    der.len = 5;
    memcpy(der.data, "\x30\x03\x02\x01\x07", 5);
    parse_refused(&der, BK_E_NEWER, "version 7 ");
    der.data[4] = 0;
    parse_refused(&der, BK_E_FORMAT, "impossible version");
    bk_buf_free(&der);
}

static void
numbers_are_bounded(void **state)
{
    struct bk_manifest m = plain();
    struct bk_buf der;
    static const uint8_t big[] = {0x02, 0x09, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0};

    (void)state;
    m.segment_count = 1ull << 32;
    m.plaintext_length = 1ull << 52;
    assert_round_trip(&m);
    /* a plaintext length of 2^63: the old element is 1 + 1 + 7 bytes */
    der = encoded(&m);
    uint8_t *at = place_of(&der, "\x02\x07\x10\x00\x00\x00\x00\x00\x00", 9);
    size_t before = (size_t)(at - der.data);
    struct bk_buf longer = {0};
    assert_int_equal(bk_buf_append(&longer, der.data, before, NULL), BK_OK);
    assert_int_equal(bk_buf_append(&longer, big, sizeof big, NULL), BK_OK);
    assert_int_equal(bk_buf_append(&longer, at + 9, der.len - before - 9, NULL), BK_OK);
    assert_int_equal(longer.data[1], 0x81);
    longer.data[2] = (uint8_t)(longer.len - 3);
    parse_refused(&longer, BK_E_FORMAT, "plaintextLength");
    bk_buf_free(&longer);
    bk_buf_free(&der);
}

static enum bk_code
try_parse(const uint8_t *data, size_t len, void *ctx)
{
    struct bk_manifest m;
    struct bk_err err = {0};
    struct bk_buf again = {0};
    enum bk_code rc = bk_manifest_parse(data, len, &m, &err);

    (void)ctx;
    if (rc != BK_OK)
        return rc;
    /* whatever is accepted is the one encoding of what it says */
    assert_int_equal(bk_manifest_encode(&m, &again, &err), BK_OK);
    assert_int_equal(again.len, len);
    assert_memory_equal(again.data, data, len);
    bk_buf_free(&again);
    return BK_OK;
}

static void
no_mutation_crashes(void **state)
{
    struct bk_manifest m = full();
    struct bk_buf der = encoded(&m);

    (void)state;
    assert_int_equal(mutate_truncations(der.data, der.len, try_parse, NULL), 0);
    /* digests, numbers and letters may be others; structure may not */
    assert_in_range(mutate_flips(der.data, der.len, try_parse, NULL), 1, 8 * der.len - 400);
    bk_buf_free(&der);
}

static void
names(void **state)
{
    enum bk_kind kind = BK_KIND_OTHER;

    (void)state;
    for (int i = BK_KIND_FULL; i <= BK_KIND_OTHER; i++) {
        assert_int_equal(bk_kind_from_name(bk_kind_name((enum bk_kind)i), &kind), 1);
        assert_int_equal(kind, i);
    }
    assert_int_equal(bk_kind_from_name("Full", &kind), 0);
    assert_string_equal(bk_kind_name((enum bk_kind)77), "unknown");
}

static void
text(void **state)
{
    static const char *const good[] = {"a", "\xc2\xa0", "\xe2\x82\xac", "\xf0\x9f\x97\x9d", "\xf4\x8f\xbf\xbf", "~ "};
    static const char *const bad[] = {"\n",
                                      "\x7f",
                                      "\xc2\x80",
                                      "\xc2\x9f",
                                      "\xc0\x80",
                                      "\xe0\x80\xaf",
                                      "\xed\xa0\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\x80",
                                      "a\xc3",
                                      "\xe2\x82",
                                      "\xf8\x88\x80\x80\x80",
                                      "\xff"};
    char longest[BK_TEXT_MAX + 1];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(bk_text_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(bk_text_valid(bad[i], strlen(bad[i])));
    assert_false(bk_text_valid("", 0));
    assert_false(bk_text_valid("a\0b", 3));
    memset(longest, 'x', sizeof longest);
    assert_true(bk_text_valid(longest, BK_TEXT_MAX));
    assert_false(bk_text_valid(longest, BK_TEXT_MAX + 1));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(facts_are_checked),
        cmocka_unit_test(words_are_checked),
        cmocka_unit_test(sequences_are_checked),
        cmocka_unit_test(newer_is_named),
        cmocka_unit_test(parsing_checks_the_same),
        cmocka_unit_test(numbers_are_bounded),
        cmocka_unit_test(no_mutation_crashes),
        cmocka_unit_test(names),
        cmocka_unit_test(text),
    };

    return cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
}
