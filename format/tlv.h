/*
 * Single DER elements, for the few small structures that are not in bk.asn: attribute values, X.509 pieces. Input has
 * passed bk_der_walk, so lengths are minimal and definite. Inside format/ only.
 */
#ifndef BK_FORMAT_TLV_H
#define BK_FORMAT_TLV_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/err.h"

enum {
    BK_TAG_INTEGER = 0x02,
    BK_TAG_BIT_STRING = 0x03,
    BK_TAG_OCTET_STRING = 0x04,
    BK_TAG_OID = 0x06,
    BK_TAG_UTF8 = 0x0c,
    BK_TAG_UTC_TIME = 0x17,
    BK_TAG_GENERALIZED_TIME = 0x18,
    BK_TAG_SEQUENCE = 0x30,
    BK_TAG_SET = 0x31,
};

/* Bytes that have not been read yet, and the contents of an element. */
struct bk_tlv {
    const uint8_t *data;
    size_t len;
};

/* Takes the element with that tag off the front of in and points *contents at its value; 0 if it is not there. */
int bk_tlv_take(struct bk_tlv *in, uint8_t tag, struct bk_tlv *contents);

/* Appends tag, length and contents. */
BK_MUST_USE enum bk_code bk_tlv_put(struct bk_buf *out, uint8_t tag, const void *contents, size_t len,
                                    struct bk_err *err);

/* Time as RFC 5652 section 11.3 and RFC 5280 section 4.1.2.5 write it: UTCTime to the end of 2049, GeneralizedTime
 * later, whole seconds, Z. */
BK_MUST_USE enum bk_code bk_tlv_put_time(struct bk_buf *out, time_t t, struct bk_err *err);
/* Exactly that form, and nothing after it. */
BK_MUST_USE enum bk_code bk_tlv_time(const uint8_t *der, size_t len, time_t *out, struct bk_err *err);

/* The pre-walk, and then the version that a SEQUENCE begins with: BK_E_NEWER if it is over known, so that a newer
 * structure is named as such before its unknown fields are refused. what names the structure. */
BK_MUST_USE enum bk_code bk_tlv_version(const uint8_t *der, size_t len, uint8_t known, const char *what,
                                        struct bk_err *err);

#endif
