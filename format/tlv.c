#include "format/tlv.h"

#include <string.h>

#include "base/time.h"
#include "format/der.h"

#define UTC_TIME_LEN 13 /* YYMMDDHHMMSSZ */

/* The length octets (X.690 8.1.3) at in->data[1]: *header is the bytes before the contents. */
static int
read_length(const struct bk_tlv *in, size_t *header, size_t *len)
{
    size_t octets;

    if (in->len < 2)
        return 0;
    *header = 2;
    *len = in->data[1];
    if (*len < 0x80)
        return 1;
    octets = *len & 0x7f;
    if (octets < 1 || octets > 4 || in->len < 2 + octets)
        return 0;
    *len = 0;
    for (size_t i = 0; i < octets; i++)
        *len = *len << 8 | in->data[2 + i];
    *header += octets;
    return 1;
}

int
bk_tlv_take(struct bk_tlv *in, uint8_t tag, struct bk_tlv *contents)
{
    size_t header;
    size_t len;

    if (!read_length(in, &header, &len) || in->data[0] != tag || len > in->len - header)
        return 0;
    *contents = (struct bk_tlv){in->data + header, len};
    in->data += header + len;
    in->len -= header + len;
    return 1;
}

enum bk_code
bk_tlv_put(struct bk_buf *out, uint8_t tag, const void *contents, size_t len, struct bk_err *err)
{
    uint8_t head[6] = {tag};
    size_t octets = len < 0x80 ? 0 : len <= 0xff ? 1 : len <= 0xffff ? 2 : len <= 0xffffff ? 3 : 4;
    enum bk_code rc;

    if (len > UINT32_MAX)
        return bk_fail(err, BK_E_INTERNAL, "element of %zu bytes", len);
    head[1] = (uint8_t)(octets == 0 ? len : 0x80 | octets);
    for (size_t i = 0; i < octets; i++)
        head[2 + i] = (uint8_t)(len >> 8 * (octets - 1 - i));
    if ((rc = bk_buf_append(out, head, 2 + octets, err)) != BK_OK)
        return rc;
    return bk_buf_append(out, contents, len, err);
}

enum bk_code
bk_tlv_put_time(struct bk_buf *out, time_t t, struct bk_err *err)
{
    char text[BK_TIME_LEN + 1];

    bk_time_format(t, text);
    /* both forms end alike; UTCTime leaves the century out */
    if (memcmp(text, "2050", 4) < 0)
        return bk_tlv_put(out, BK_TAG_UTC_TIME, text + 2, UTC_TIME_LEN, err);
    return bk_tlv_put(out, BK_TAG_GENERALIZED_TIME, text, BK_TIME_LEN, err);
}

enum bk_code
bk_tlv_time(const uint8_t *der, size_t len, time_t *out, struct bk_err *err)
{
    struct bk_tlv in = {der, len};
    struct bk_tlv value;
    char text[BK_TIME_LEN];

    if (bk_tlv_take(&in, BK_TAG_UTC_TIME, &value) && in.len == 0 && value.len == UTC_TIME_LEN) {
        /* RFC 5280 4.1.2.5.1: YY of 50 and more is the last century */
        memcpy(text, value.data[0] >= '5' ? "19" : "20", 2);
        memcpy(text + 2, value.data, UTC_TIME_LEN);
        return bk_time_parse(text, sizeof text, out, err);
    }
    in = (struct bk_tlv){der, len};
    if (bk_tlv_take(&in, BK_TAG_GENERALIZED_TIME, &value) && in.len == 0 && value.len == BK_TIME_LEN &&
        memcmp(value.data, "2050", 4) >= 0)
        return bk_time_parse((const char *)value.data, value.len, out, err);
    return bk_fail(err, BK_E_FORMAT, "not a time in the form of RFC 5652 section 11.3");
}

enum bk_code
bk_tlv_version(const uint8_t *der, size_t len, uint8_t known, const char *what, struct bk_err *err)
{
    struct bk_tlv in = {der, len};
    struct bk_tlv fields;
    struct bk_tlv version;
    enum bk_code rc = bk_der_walk(der, len, what, err);

    if (rc != BK_OK)
        return rc;
    if (!bk_tlv_take(&in, BK_TAG_SEQUENCE, &fields) || !bk_tlv_take(&fields, BK_TAG_INTEGER, &version))
        return bk_fail(err, BK_E_FORMAT, "does not begin with a version");
    if (version.len == 1 && version.data[0] >= 1 && version.data[0] <= known)
        return BK_OK;
    if (version.len == 1 && version.data[0] > known && version.data[0] < 0x80)
        return bk_fail(err, BK_E_NEWER, "version %u is newer than this program, which knows %u", version.data[0],
                       known);
    return bk_fail(err, BK_E_FORMAT, "impossible version");
}
