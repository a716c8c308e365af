#include "base/text.h"

#include <string.h>

size_t
bk_utf8_next(const uint8_t *text, size_t len, uint32_t *point)
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

/* C0, DEL, C1; LINE and PARAGRAPH SEPARATOR; the embeddings, overrides and isolates of Unicode Annex 9. */
static int
steers(uint32_t p)
{
    return p < 0x20 || (p >= 0x7f && p <= 0x9f) || (p >= 0x2028 && p <= 0x202e) || (p >= 0x2066 && p <= 0x2069);
}

char *
bk_text_plain(char *out, size_t room, const void *text, size_t len)
{
    const uint8_t *in = text;
    size_t used = 0;

    for (size_t i = 0; i < len;) {
        uint32_t point = 0;
        size_t n = bk_utf8_next(in + i, len - i, &point);
        int plain = n > 0 && !steers(point);
        size_t put = plain ? n : 1;

        if (used + put >= room)
            break;
        if (plain)
            memcpy(out + used, in + i, n);
        else
            out[used] = '?';
        used += put;
        i += n > 0 ? n : 1;
    }
    out[used] = '\0';
    return out;
}
