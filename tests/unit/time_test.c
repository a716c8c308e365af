/* Do times and UUIDs meet base/time.h? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/time.h"

struct moment {
    const char *text;
    time_t t;
};

/* seconds as `date -u -d TEXT +%s` says */
static const struct moment moments[] = {
    {"19700101000000Z", 0},          {"20000229120000Z", 951825600},  {"20001231235959Z", 978307199},
    {"20240229000000Z", 1709164800}, {"20240301000000Z", 1709251200}, {"20261124070000Z", 1795503600},
    {"20380119031408Z", 2147483648}, {"21000301000000Z", 4107542400}, {"99991231235959Z", 253402300799},
};

static void
test_format_and_parse(void **state)
{
    char text[BK_TIME_LEN + 1];
    time_t t;

    (void)state;
    for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
        bk_time_format(moments[i].t, text);
        assert_string_equal(text, moments[i].text);
        t = -1;
        assert_int_equal(bk_time_parse(moments[i].text, BK_TIME_LEN, &t, NULL), BK_OK);
        assert_int_equal(t, moments[i].t);
    }
}

static void
test_every_day_of_four_centuries(void **state)
{
    char text[BK_TIME_LEN + 1];
    time_t t;

    (void)state;
    for (time_t day = 0; day < 400 * 365.25; day++) {
        bk_time_format(day * 86400 + day % 86400, text);
        assert_int_equal(bk_time_parse(text, BK_TIME_LEN, &t, NULL), BK_OK);
        assert_int_equal(t, day * 86400 + day % 86400);
    }
}

static void
test_parse_refuses(void **state)
{
    static const char *const bad[] = {
        "20230229000000Z", "21000229000000Z", "20260431000000Z", "20261300000000Z", "20260001000000Z",
        "20260100000000Z", "20260132000000Z", "20260101240000Z", "20260101006000Z", "20260630235960Z",
        "19691231235959Z", "00000101000000Z", "2026010100000Z ", "20260101000000z", "20260101000000+",
        "-0260101000000Z", "2026 101000000Z", "20260101+10000Z", "202601010000001",
    };
    struct bk_err err = {0};
    time_t t = 42;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (struct bk_err){0};
        if (bk_time_parse(bad[i], BK_TIME_LEN, &t, &err) == BK_OK)
            fail_msg("%s was accepted", bad[i]);
        assert_int_equal(err.code, BK_E_FORMAT);
    }
    assert_int_equal(bk_time_parse("20260101000000Z", 14, &t, NULL), BK_E_FORMAT);
    assert_int_equal(bk_time_parse("20260101000000Z0", 16, &t, NULL), BK_E_FORMAT);
    assert_int_equal(bk_time_parse("20260101000000.1Z", 17, &t, NULL), BK_E_FORMAT);
    assert_int_equal(bk_time_parse("", 0, &t, NULL), BK_E_FORMAT);
    assert_int_equal(t, 42);
}

/* in exact-size buffers without a final NUL: nothing may be read beyond them */
static void
test_parse_reads_no_further(void **state)
{
    (void)state;
    for (size_t len = 0; len <= BK_TIME_LEN; len++) {
        char *text = malloc(len > 0 ? len : 1);
        time_t t;

        assert_non_null(text);
        memcpy(text, "20260101000000Z", len);
        assert_int_equal(bk_time_parse(text, len, &t, NULL), len == BK_TIME_LEN ? BK_OK : BK_E_FORMAT);
        free(text);
    }
}

static void
test_times_out_of_range_are_brought_into_it(void **state)
{
    char text[21];

    (void)state;
    assert_string_equal(bk_time_text(-1, text), "1970-01-01T00:00:00Z");
    assert_string_equal(bk_time_text(253402300800, text), "9999-12-31T23:59:59Z");
}

static void
test_text(void **state)
{
    static const char *const bad[] = {
        "",
        "2027",
        "2027-1-31",
        "2027-01-32",
        "2027-02-29",
        "2027/01/31",
        "20270131",
        "2027-01-31T",
        "2027-01-31 07:00:00Z",
        "2027-01-31T07:00:00",
        "2027-01-31T07:00:60Z",
        "2027-01-31T24:00:00Z",
        " 2027-01-31",
        "1969-12-31",
        "2027-01-310",
    };
    char text[21];
    time_t t = 42;

    (void)state;
    assert_string_equal(bk_time_text(1795503600, text), "2026-11-24T07:00:00Z");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (bk_time_from_text(bad[i], &t, NULL) != BK_E_USAGE)
            fail_msg("'%s' was accepted", bad[i]);
    assert_int_equal(t, 42);
    assert_int_equal(bk_time_from_text("2026-11-24T07:00:00Z", &t, NULL), BK_OK);
    assert_int_equal(t, 1795503600);
    assert_int_equal(bk_time_from_text("2024-02-29", &t, NULL), BK_OK);
    assert_int_equal(t, 1709164800);
}

static void
test_uuid_v7(void **state)
{
    uint8_t a[BK_UUID_LEN];
    uint8_t b[BK_UUID_LEN];
    struct timespec before;
    struct timespec after;
    uint64_t ms = 0;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        ms = 0;
        (void)clock_gettime(CLOCK_REALTIME, &before);
        assert_int_equal(bk_uuid_v7(a, NULL), BK_OK);
        (void)clock_gettime(CLOCK_REALTIME, &after);
        assert_true(bk_uuid_is_v7(a));
        for (size_t j = 0; j < 6; j++)
            ms = ms << 8 | a[j];
        assert_in_range(ms, (uint64_t)before.tv_sec * 1000 + (uint64_t)before.tv_nsec / 1000000,
                        (uint64_t)after.tv_sec * 1000 + (uint64_t)after.tv_nsec / 1000000);
    }
    assert_int_equal(bk_uuid_v7(b, NULL), BK_OK);
    assert_memory_not_equal(a + 8, b + 8, 8);
}

static void
test_uuid_text_and_version(void **state)
{
    /* the example of RFC 9562 A.6 */
    static const uint8_t example[BK_UUID_LEN] = {0x01, 0x7f, 0x22, 0xe2, 0x79, 0xb0, 0x7c, 0xc3,
                                                 0x98, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};
    uint8_t id[BK_UUID_LEN];
    char text[BK_UUID_TEXT];

    (void)state;
    assert_string_equal(bk_uuid_text(example, text), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    assert_true(bk_uuid_is_v7(example));
    for (unsigned bit = 0; bit < 8; bit++) {
        memcpy(id, example, sizeof id);
        id[6] ^= (uint8_t)(1u << bit);
        assert_int_equal(bk_uuid_is_v7(id), bit < 4);
        memcpy(id, example, sizeof id);
        id[8] ^= (uint8_t)(1u << bit);
        assert_int_equal(bk_uuid_is_v7(id), bit < 6);
    }
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format_and_parse),
        cmocka_unit_test(test_every_day_of_four_centuries),
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_parse_reads_no_further),
        cmocka_unit_test(test_times_out_of_range_are_brought_into_it),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_uuid_v7),
        cmocka_unit_test(test_uuid_text_and_version),
    };

    return cmocka_run_group_tests_name("time", tests, NULL, NULL);
}
