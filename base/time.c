#include "base/time.h"

#include <string.h>

#include <openssl/rand.h>

#include "base/buf.h"
#include "base/hash.h"

#define TIME_MAX 253402300799 /* 9999-12-31T23:59:59Z */

time_t
bk_time_now(void)
{
    return time(NULL);
}

/* The last digits of v, in exactly that many characters. */
static void
put_digits(char *at, int digits, int v)
{
    for (int i = digits - 1; i >= 0; i--) {
        at[i] = (char)('0' + v % 10);
        v /= 10;
    }
}

/* Times outside 1970 to 9999 have no form: they become the nearest one that has. */
static struct tm
broken_down(time_t t)
{
    struct tm tm = {0};

    if (t < 0)
        t = 0;
    if (t > TIME_MAX)
        t = TIME_MAX;
    (void)gmtime_r(&t, &tm);
    return tm;
}

void
bk_time_format(time_t t, char out[BK_TIME_LEN + 1])
{
    struct tm tm = broken_down(t);

    put_digits(out, 4, tm.tm_year + 1900);
    put_digits(out + 4, 2, tm.tm_mon + 1);
    put_digits(out + 6, 2, tm.tm_mday);
    put_digits(out + 8, 2, tm.tm_hour);
    put_digits(out + 10, 2, tm.tm_min);
    put_digits(out + 12, 2, tm.tm_sec);
    memcpy(out + 14, "Z", 2);
}

char *
bk_time_text(time_t t, char out[21])
{
    struct tm tm = broken_down(t);

    memcpy(out, "0000-00-00T00:00:00Z", 21);
    put_digits(out, 4, tm.tm_year + 1900);
    put_digits(out + 5, 2, tm.tm_mon + 1);
    put_digits(out + 8, 2, tm.tm_mday);
    put_digits(out + 11, 2, tm.tm_hour);
    put_digits(out + 14, 2, tm.tm_min);
    put_digits(out + 17, 2, tm.tm_sec);
    return out;
}

/* A number of exactly that many digits, or -1. */
static int
digits(const char *at, int count)
{
    int v = 0;

    for (int i = 0; i < count; i++) {
        if (at[i] < '0' || at[i] > '9')
            return -1;
        v = v * 10 + (at[i] - '0');
    }
    return v;
}

static int
days_in(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && leap ? 29 : days[month - 1];
}

/* YYYYMMDDHHMMSS, 14 characters, to seconds; 1 on success. Second 60 is refused: a leap second has no time_t. */
static int
from_digits(const char *at, time_t *out)
{
    int year = digits(at, 4);
    int month = digits(at + 4, 2);
    int day = digits(at + 6, 2);
    int hour = digits(at + 8, 2);
    int minute = digits(at + 10, 2);
    int second = digits(at + 12, 2);
    struct tm tm = {0};

    if (year < 1970 || month < 1 || month > 12 || day < 1 || day > days_in(year, month))
        return 0;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
        return 0;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    tm.tm_mday = day;
    tm.tm_hour = hour;
    tm.tm_min = minute;
    tm.tm_sec = second;
    *out = timegm(&tm);
    return 1;
}

enum bk_code
bk_time_parse(const char *text, size_t len, time_t *out, struct bk_err *err)
{
    if (len != BK_TIME_LEN || text[BK_TIME_LEN - 1] != 'Z' || !from_digits(text, out))
        return bk_fail(err, BK_E_FORMAT, "a time that is not of the form YYYYMMDDHHMMSSZ, or does not exist");
    return BK_OK;
}

/* 1 if text has the separators of the model where the model has them; digits stand as 0 in it. */
static int
looks_like(const char *text, const char *model)
{
    if (strlen(text) != strlen(model))
        return 0;
    for (size_t i = 0; model[i] != '\0'; i++)
        if (model[i] != '0' && text[i] != model[i])
            return 0;
    return 1;
}

enum bk_code
bk_time_from_text(const char *text, time_t *out, struct bk_err *err)
{
    char compact[] = "00000000000000";
    int whole = looks_like(text, "0000-00-00T00:00:00Z");

    if (whole || looks_like(text, "0000-00-00")) {
        memcpy(compact, text, 4);
        memcpy(compact + 4, text + 5, 2);
        memcpy(compact + 6, text + 8, 2);
        if (whole) {
            memcpy(compact + 8, text + 11, 2);
            memcpy(compact + 10, text + 14, 2);
            memcpy(compact + 12, text + 17, 2);
        }
        if (from_digits(compact, out))
            return BK_OK;
    }
    return bk_fail(err, BK_E_USAGE, "'%.40s' is not a date such as 2027-01-31 or 2027-01-31T07:00:00Z", text);
}

enum bk_code
bk_uuid_v7(uint8_t out[BK_UUID_LEN], struct bk_err *err)
{
    struct timespec now;
    uint8_t id[BK_UUID_LEN];
    uint64_t ms;

    if (clock_gettime(CLOCK_REALTIME, &now) != 0 || now.tv_sec < 0)
        return bk_fail(err, BK_E_INTERNAL, "uuid: the clock cannot be read");
    if (RAND_bytes(id, sizeof id) != 1)
        return bk_fail(err, BK_E_INTERNAL, "uuid: the random number generator failed");
    /* RFC 9562 5.7: 48 bits of milliseconds, version, 12 random bits, variant, 62 random bits */
    ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    bk_put_u16(id, (uint16_t)(ms >> 32));
    bk_put_u32(id + 2, (uint32_t)ms);
    id[6] = (uint8_t)(0x70 | (id[6] & 0x0f));
    id[8] = (uint8_t)(0x80 | (id[8] & 0x3f));
    memcpy(out, id, sizeof id);
    return BK_OK;
}

int
bk_uuid_is_v7(const uint8_t id[BK_UUID_LEN])
{
    return id[6] >> 4 == 7 && id[8] >> 6 == 2;
}

char *
bk_uuid_text(const uint8_t id[BK_UUID_LEN], char out[BK_UUID_TEXT])
{
    static const size_t group_end[] = {4, 6, 8, 10, 16};
    char *at = out;
    size_t from = 0;

    for (size_t g = 0; g < sizeof group_end / sizeof *group_end; g++) {
        if (g > 0)
            *at++ = '-';
        (void)bk_hex(id + from, group_end[g] - from, at);
        at += 2 * (group_end[g] - from);
        from = group_end[g];
    }
    return out;
}
