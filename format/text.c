/* Text that stands in signed structures: UTF-8 without control characters. docs/FORMAT.md, CMS, bounds. */
#include <string.h>

#include "base/text.h"
#include "format/manifest.h"

int
bk_text_valid(const char *text, size_t len)
{
    const uint8_t *at = (const uint8_t *)text;
    uint32_t point;

    if (len == 0 || len > BK_TEXT_MAX)
        return 0;
    while (len > 0) {
        size_t n = bk_utf8_next(at, len, &point);

        /* category Cc: C0, DEL and C1; they could steer the terminal of whoever reads a listing */
        if (n == 0 || point < 0x20 || (point >= 0x7f && point < 0xa0))
            return 0;
        at += n;
        len -= n;
    }
    return 1;
}
