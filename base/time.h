/* Times and UUIDs, as bytes and text. */
#ifndef BK_BASE_TIME_H
#define BK_BASE_TIME_H

#include <stdint.h>
#include <time.h>

#include "base/err.h"

#define BK_TIME_LEN  15 /* YYYYMMDDHHMMSSZ */
#define BK_UUID_LEN  16
#define BK_UUID_TEXT 37

/* Now, in whole seconds. */
time_t bk_time_now(void);

/* GeneralizedTime in the one form that docs/FORMAT.md allows (X.690 11.7), NUL-terminated. Years 1970 to 9999. */
void bk_time_format(time_t t, char out[BK_TIME_LEN + 1]);

/* Parses exactly that form; refuses impossible dates and leap seconds. */
BK_MUST_USE enum bk_code bk_time_parse(const char *text, size_t len, time_t *out, struct bk_err *err);

/* "2026-11-24T07:00:00Z" for people; out holds 21 bytes. Returns out. */
char *bk_time_text(time_t t, char out[21]);

/* "2027-01-31" or the form of bk_time_text; for options. */
BK_MUST_USE enum bk_code bk_time_from_text(const char *text, time_t *out, struct bk_err *err);

/* A UUID of version 7 (RFC 9562 section 5.7): milliseconds of now, the rest random. */
BK_MUST_USE enum bk_code bk_uuid_v7(uint8_t out[BK_UUID_LEN], struct bk_err *err);

/* 1 if the version is 7 and the variant is that of RFC 9562. */
int bk_uuid_is_v7(const uint8_t id[BK_UUID_LEN]);

/* 8-4-4-4-12 lower-case hex. Returns out. */
char *bk_uuid_text(const uint8_t id[BK_UUID_LEN], char out[BK_UUID_TEXT]);

#endif
