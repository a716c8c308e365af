#include "store/edit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/fd.h"

/* How often a lock that somebody else holds is tried again; a blocking flock could not hear a stop. */
#define LOCK_RETRY_MS 50

struct store_edit {
    enum store_edit_mode mode;
    int fd;
    struct store_stop stop;
    struct store_source *source;
    _Atomic uint64_t written;
    char *path;
};

static uint64_t
now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int
is_refusal(int os_errno)
{
    return os_errno == EACCES || os_errno == EPERM || os_errno == EROFS;
}

static enum bk_code
open_for_change(struct store_edit *e, struct bk_err *err)
{
    struct stat st;
    enum bk_code rc;

    /* asked first: opening a device can already do something */
    if (stat(e->path, &st) != 0)
        return bk_fail_errno(err, errno, "%s: cannot open for changing", e->path);
    if (S_ISREG(st.st_mode)) {
        if ((rc = store_fd_open(e->path, e->mode == STORE_EDIT_IN_PLACE ? O_RDWR : O_RDONLY, &e->stop, &e->fd, err)) ==
                BK_OK &&
            fstat(e->fd, &st) != 0)
            rc = bk_fail_errno(err, errno, "%s: cannot open for changing", e->path);
        if (rc != BK_OK && err != NULL && is_refusal(err->os_errno))
            bk_err_hint(err, "changing an archive in place needs leave to write it; bk-rekey --sidecar does not");
        if (rc != BK_OK)
            return rc;
    }
    if (!S_ISREG(st.st_mode))
        return bk_fail(err, BK_E_IO, "%s: cannot be changed in place, since it is not an ordinary file", e->path);
    return BK_OK;
}

static enum bk_code
busy(const struct store_edit *e, unsigned wait_seconds, struct bk_err *err)
{
    enum bk_code rc =
        bk_fail(err, BK_E_IO, "%s: another program is changing it, waited %u s for its lock", e->path, wait_seconds);

    bk_err_hint(err, "lslocks shows who holds the lock");
    if (err != NULL)
        err->os_errno = EAGAIN;
    return rc;
}

static enum bk_code
lock(const struct store_edit *e, unsigned wait_seconds, uint64_t deadline, struct bk_err *err)
{
    for (;;) {
        enum bk_code rc;

        /* held by the open file description: threads exclude each other, and no other close(2) drops it */
        if (flock(e->fd, LOCK_EX | LOCK_NB) == 0)
            return BK_OK;
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            return bk_fail_errno(err, errno, "%s: cannot lock", e->path);
        if (now_ms() >= deadline)
            return busy(e, wait_seconds, err);
        if ((rc = store_stop_pause(&e->stop, LOCK_RETRY_MS, e->path, err)) != BK_OK)
            return rc;
    }
}

/* *same: whether the name still means the file that is locked; somebody may have renamed another over it meanwhile. */
static enum bk_code
check_name(const struct store_edit *e, int *same, struct bk_err *err)
{
    struct stat ours, named;

    if (fstat(e->fd, &ours) != 0 || stat(e->path, &named) != 0)
        return bk_fail_errno(err, errno, "%s: is no longer there", e->path);
    *same = ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
    return BK_OK;
}

static enum bk_code
open_locked(struct store_edit *e, unsigned wait_seconds, struct bk_err *err)
{
    uint64_t deadline = now_ms() + (uint64_t)wait_seconds * 1000;
    int replacements = 0;

    for (;;) {
        enum bk_code rc;
        int same = 0;

        if ((rc = open_for_change(e, err)) != BK_OK)
            return rc;
        if ((rc = lock(e, wait_seconds, deadline, err)) != BK_OK)
            return rc;
        if ((rc = check_name(e, &same, err)) != BK_OK || same)
            return rc;
        /* the first few come from a program that was just finishing; it is not expected to go on for ever */
        if (++replacements > 8 && now_ms() >= deadline)
            return bk_fail(err, BK_E_IO, "%s: is replaced by another file again and again", e->path);
        store_fd_close(&e->fd);
    }
}

static enum bk_code
make_source(struct store_edit *e, struct bk_err *err)
{
    int fd = fcntl(e->fd, F_DUPFD_CLOEXEC, 3);

    if (fd < 0)
        return bk_fail_errno(err, errno, "%s: cannot open for reading", e->path);
    return store_source_from_fd(fd, e->path, e->stop.cancel, &e->source, err);
}

enum bk_code
store_edit_open(const char *path, enum store_edit_mode mode, unsigned wait_seconds, const struct bk_cancel *cancel,
                struct store_edit **out, struct bk_err *err)
{
    struct store_edit *e = calloc(1, sizeof *e);
    enum bk_code rc;

    if (e == NULL)
        return bk_fail_nomem(err);
    e->mode = mode;
    e->fd = -1;
    e->stop = (struct store_stop){.cancel = cancel, .interrupt = -1};
    if ((e->path = strdup(path)) == NULL) {
        rc = bk_fail_nomem(err);
        goto done;
    }
    if ((rc = open_locked(e, wait_seconds, err)) != BK_OK)
        goto done;
    if ((rc = make_source(e, err)) != BK_OK)
        goto done;
    *out = e;
    e = NULL;
done:
    store_edit_close(e);
    return rc;
}

struct store_source *
store_edit_source(struct store_edit *e)
{
    return e->source;
}

enum bk_code
store_edit_write_at(struct store_edit *e, uint64_t offset, const uint8_t *buf, size_t len, struct bk_err *err)
{
    enum bk_code rc;
    uint64_t size = 0;

    if (e->mode != STORE_EDIT_IN_PLACE)
        return bk_fail(err, BK_E_INTERNAL, "%s: is open for reading only", e->path);
    if ((rc = store_source_size(e->source, &size, err)) != BK_OK)
        return rc;
    if (offset > size || len > size - offset)
        return bk_fail(err, BK_E_INTERNAL, "%s: an edit of %zu bytes at byte %" PRIu64 " of %" PRIu64, e->path, len,
                       offset, size);
    if ((rc = store_fd_write_at(e->fd, e->path, offset, buf, len, err)) != BK_OK)
        return rc;
    /* a failed sync is final: the kernel may have dropped the pages, and a second sync would wrongly succeed */
    if (fdatasync(e->fd) != 0)
        return bk_fail_errno(err, errno, "%s: the change at byte %" PRIu64 " may not be on the disk", e->path, offset);
    atomic_fetch_add_explicit(&e->written, len, memory_order_relaxed);
    return BK_OK;
}

enum bk_code
store_edit_check_name(const struct store_edit *e, struct bk_err *err)
{
    int same = 0;
    enum bk_code rc = check_name(e, &same, err);

    if (rc == BK_OK && !same)
        rc = bk_fail(err, BK_E_IO, "%s: was replaced by another file while it was being changed", e->path);
    if (rc != BK_OK)
        bk_err_hint(err, "the change went to the file that had this name before; change the one that has it now");
    return rc;
}

uint64_t
store_edit_bytes_written(const struct store_edit *e)
{
    return e->written;
}

void
store_edit_close(struct store_edit *e)
{
    if (e == NULL)
        return;
    store_source_close(e->source);
    store_fd_close(&e->fd);
    free(e->path);
    free(e);
}
