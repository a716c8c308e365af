/* Text that stands in signed structures: UTF-8 without control characters. docs/FORMAT.md, CMS, bounds. */
#include <string.h>

#include "format/manifest.h"

/* Bytes of the UTF-8 character at the start of text (RFC 3629), its code point in *point; 0 if it is not one. */
static size_t
utf8_next(const uint8_t *text, size_t len, uint32_t *point)
{
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = text[0];
    size_t n = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
    uint32_t p;

    if (n == 0 || n > len)
        return 0;
    p = n == 1 ? first : first & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if (text[i] >> 6 != 2)
            return 0;
        p = p << 6 | (text[i] & 0x3fu);
    }
    /* overlong forms, surrogates and what is beyond Unicode are not UTF-8 */
    if (p < smallest[n] || (p >= 0xd800 && p <= 0xdfff) || p > 0x10ffff)
        return 0;
    *point = p;
    return n;
}

int
bk_text_valid(const char *text, size_t len)
{
    const uint8_t *at = (const uint8_t *)text;
    uint32_t point;

    if (len == 0 || len > BK_TEXT_MAX)
        return 0;
    while (len > 0) {
        size_t n = utf8_next(at, len, &point);

        /* category Cc: C0, DEL and C1; they could steer the terminal of whoever reads a listing */
        if (n == 0 || point < 0x20 || (point >= 0x7f && point < 0xa0))
            return 0;
        at += n;
        len -= n;
    }
    return 1;
}
