#include "store/read_all.h"

#include <stdint.h>

#include "store/source.h"

/* One step; small files take one, and a file that grows while we read is still bounded by max. */
#define STEP ((size_t)64 * 1024)

static enum bk_code
read_bounded(struct store_source *s, size_t max, struct bk_buf *b, struct bk_err *err)
{
    size_t got;

    do {
        /* one byte over max tells a file that is too large from one that just fits */
        size_t left = max - b->len + 1;
        size_t step = left < STEP ? left : STEP;
        size_t before = b->len;
        uint8_t *at = NULL;
        enum bk_code rc = bk_buf_extend(b, step, &at, err);

        if (rc != BK_OK)
            return rc;
        if ((rc = store_source_read(s, at, step, &got, err)) != BK_OK)
            return rc;
        b->len = before + got;
        if (b->len > max)
            return bk_fail(err, BK_E_IO, "%s: is larger than %zu bytes", store_source_name(s), max);
        if (got < step)
            return BK_OK;
    } while (1);
}

enum bk_code
store_read_all(const char *path, size_t max, struct bk_buf *out, struct bk_err *err)
{
    struct store_source *s = NULL;
    struct bk_buf b = {0};
    enum bk_code rc;

    if (max >= SIZE_MAX / 4)
        return bk_fail(err, BK_E_INTERNAL, "%s: no bound for its size", path);
    if ((rc = store_source_open(path, NULL, &s, err)) != BK_OK)
        goto done;
    if ((rc = read_bounded(s, max, &b, err)) != BK_OK)
        goto done;
    if ((rc = bk_buf_append(&b, "", 1, err)) != BK_OK)
        goto done;
    b.len--;
    *out = b;
    b = (struct bk_buf){0};
done:
    bk_buf_free(&b);
    store_source_close(s);
    return rc;
}
