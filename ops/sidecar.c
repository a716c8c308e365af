#include "ops/sidecar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/name.h"
#include "store/source.h"

enum bk_code
ops_sidecar_path(const char *archive, char **out, struct bk_err *err)
{
    size_t len = strlen(archive);

    if ((*out = malloc(len + sizeof OPS_SIDECAR_SUFFIX)) == NULL)
        return bk_fail_nomem(err);
    memcpy(*out, archive, len);
    memcpy(*out + len, OPS_SIDECAR_SUFFIX, sizeof OPS_SIDECAR_SUFFIX);
    return BK_OK;
}

/* Who can write the archive's folder can put anything there: a FIFO would keep a reader waiting for ever. */
static enum bk_code
read_ordinary(const char *path, struct bk_buf *out, struct bk_err *err)
{
    struct store_source *src = NULL;
    uint64_t size = 0;
    uint8_t *at = NULL;
    enum bk_code rc = store_source_open(path, NULL, &src, err);

    if ((rc != BK_OK && err->os_errno == EISDIR) || (rc == BK_OK && !store_source_seekable(src)))
        rc = bk_fail(err, BK_E_FORMAT, "%s: not an ordinary file, as a sidecar is", path);
    if (rc == BK_OK)
        rc = store_source_size(src, &size, err);
    if (rc == BK_OK && size > OPS_SIDECAR_MAX)
        rc = bk_fail(err, BK_E_FORMAT, "%s: a sidecar of %llu bytes, at most %d allowed", path,
                     (unsigned long long)size, OPS_SIDECAR_MAX);
    if (rc == BK_OK)
        rc = bk_buf_extend(out, (size_t)size, &at, err);
    if (rc == BK_OK)
        rc = store_source_read_at(src, 0, at, (size_t)size, err);
    if (rc != BK_OK)
        bk_buf_free(out);
    store_source_close(src);
    return rc;
}

enum bk_code
ops_sidecar_read(const char *archive, struct bk_buf *out, int *present, struct bk_err *err)
{
    char *path = NULL;
    enum bk_code rc = ops_sidecar_path(archive, &path, err);

    *present = 0;
    if (rc != BK_OK)
        return rc;
    rc = read_ordinary(path, out, err);
    *present = rc == BK_OK;
    if (rc != BK_OK && (err->os_errno == ENOENT || err->os_errno == ENOTDIR || err->os_errno == ENAMETOOLONG))
        rc = BK_OK; /* what has no such name has no sidecar */
    free(path);
    return rc;
}

enum bk_code
ops_sidecar_replace(const char *archive, const struct bk_buf *bytes, const struct bk_cancel *cancel, struct bk_err *err)
{
    struct store_sink *sink = NULL;
    char *path = NULL;
    enum bk_code rc;

    if ((rc = ops_sidecar_path(archive, &path, err)) != BK_OK)
        goto done;
    if ((rc = store_sink_open(path, 1, cancel, &sink, err)) != BK_OK)
        goto done;
    if ((rc = store_sink_write(sink, bytes->data, bytes->len, err)) != BK_OK)
        goto done;
    rc = store_sink_publish(sink, err);
    sink = NULL;
done:
    store_sink_discard(sink);
    free(path);
    return rc;
}

static enum bk_code
refuse_existing_archive(const char *archive, struct bk_err *err)
{
    int there = 0;
    enum bk_code rc = store_name_exists(archive, &there, err);

    if (rc != BK_OK || !there)
        return rc;
    rc = bk_fail(err, BK_E_USAGE,
                 "%s: exists already, and an archive and its sidecar cannot be replaced at one instant", archive);
    bk_err_hint(err, "give the new one another name, and remove the old one afterwards");
    return rc;
}

static enum bk_code
refuse_stray_sidecar(const char *path, struct bk_err *err)
{
    int there = 0;
    enum bk_code rc = store_name_exists(path, &there, err);

    if (rc != BK_OK || !there)
        return rc;
    rc = bk_fail(err, BK_E_USAGE, "%s: is there, and readers would take it for the new archive's sidecar", path);
    bk_err_hint(err, "give the archive another name, or remove that file if its own archive is gone");
    return rc;
}

enum bk_code
ops_sidecar_prepare(const char *archive, int detached, int force, const struct bk_cancel *cancel,
                    struct store_sink **out, struct bk_err *err)
{
    char *path = NULL;
    enum bk_code rc;

    if (strcmp(archive, "-") == 0)
        return detached ? bk_fail(err, BK_E_USAGE, "a detached envelope needs a name beside it, and - has none")
                        : BK_OK;
    if ((rc = ops_sidecar_path(archive, &path, err)) != BK_OK)
        return rc;
    if (!detached) {
        rc = refuse_stray_sidecar(path, err);
        free(path);
        return rc;
    }
    if ((rc = refuse_existing_archive(archive, err)) == BK_OK)
        rc = store_sink_open(path, force, cancel, out, err);
    free(path);
    return rc;
}
