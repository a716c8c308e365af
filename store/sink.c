#include "store/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "store/fd.h"
#include "store/stage.h"

/* So many bytes are between one word to the system and the next. */
#define WINDOW ((uint64_t)16 * 1024 * 1024)

struct store_sink {
    int fd;
    int direct; /* a second description of a staged file, past the cache; -1: none */
    int drop;   /* what was written is dropped from the cache, and direct is not used (any more) */
    int staged;
    int polled;   /* not a regular file: it can block for long */
    int socket;   /* written by send(2), which can be told not to block and not to raise SIGPIPE */
    int durable;  /* a stream into a file or a disk: synced at the end */
    int broken;   /* a write failed; what stands there must not be taken for whole */
    size_t chunk; /* the most that one write may take without blocking after poll said that there is room */
    struct store_stop stop;
    _Atomic uint64_t pos;
    uint64_t room;    /* what a staged file was given room for */
    uint64_t started; /* its bytes that the system was told to write to the disk */
    char *name;
    struct store_stage stage;
};

/*
 * A pipe in blocking mode blocks in write(2) until everything fits, deaf to a stop, although poll saw room. Setting
 * O_NONBLOCK would set it for everybody who shares the description (a shell, a sibling), so a description of our own is
 * opened through proc(5). Where that is refused, writes of PIPE_BUF bytes always fit once poll says so (pipe(7)).
 */
static void
make_nonblocking(struct store_sink *s)
{
    char path[32];
    int flags = fcntl(s->fd, F_GETFL);
    int own;

    if (flags >= 0 && (flags & O_NONBLOCK))
        return;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", s->fd);
    own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (own < 0) {
        s->chunk = PIPE_BUF;
        return;
    }
    (void)close(s->fd);
    s->fd = own;
}

static enum bk_code
inspect(struct store_sink *s, struct bk_err *err)
{
    struct stat st;

    if (fstat(s->fd, &st) != 0 || fcntl(s->fd, F_SETFD, FD_CLOEXEC) != 0)
        return bk_fail_errno(err, errno, "%s: cannot write", s->name);
    s->polled = !S_ISREG(st.st_mode);
    s->socket = S_ISSOCK(st.st_mode);
    s->durable = S_ISREG(st.st_mode) || S_ISBLK(st.st_mode);
    if (S_ISFIFO(st.st_mode))
        store_fd_enlarge_pipe(s->fd);
    if (S_ISFIFO(st.st_mode) || isatty(s->fd))
        make_nonblocking(s);
    return BK_OK;
}

static enum bk_code
sink_new(const char *name, const struct bk_cancel *cancel, struct store_sink **out, struct bk_err *err)
{
    struct store_sink *s = calloc(1, sizeof *s);

    if (s == NULL)
        return bk_fail_nomem(err);
    s->fd = s->direct = -1;
    s->chunk = STORE_IO_MAX;
    s->stop = (struct store_stop){.cancel = cancel, .interrupt = -1};
    s->stage = STORE_STAGE_EMPTY;
    if ((s->name = strdup(name)) == NULL) {
        free(s);
        return bk_fail_nomem(err);
    }
    *out = s;
    return BK_OK;
}

static void
sink_free(struct store_sink *s)
{
    store_fd_close(&s->fd);
    store_fd_close(&s->direct);
    store_stage_end(&s->stage);
    free(s->name);
    free(s);
}

enum bk_code
store_sink_from_fd(int fd, const char *name, const struct bk_cancel *cancel, struct store_sink **out,
                   struct bk_err *err)
{
    struct store_sink *s = NULL;
    enum bk_code rc = sink_new(name, cancel, &s, err);

    if (rc != BK_OK) {
        store_fd_close(&fd);
        return rc;
    }
    s->fd = fd;
    if ((rc = inspect(s, err)) != BK_OK) {
        sink_free(s);
        return rc;
    }
    *out = s;
    return BK_OK;
}

static enum bk_code
open_standard_output(const struct bk_cancel *cancel, struct store_sink **out, struct bk_err *err)
{
    int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);

    if (fd < 0)
        return bk_fail_errno(err, errno, "standard output: cannot write");
    return store_sink_from_fd(fd, "standard output", cancel, out, err);
}

/* A device or FIFO that stood under the name; checked again, since an ordinary file must never be written in place. */
static enum bk_code
open_direct(const char *path, const struct bk_cancel *cancel, struct store_sink **out, struct bk_err *err)
{
    const struct store_stop stop = {.cancel = cancel, .interrupt = -1};
    struct stat st;
    enum bk_code rc;
    int fd = -1;

    if ((rc = store_fd_open(path, O_WRONLY, &stop, &fd, err)) != BK_OK)
        return rc;
    if (fstat(fd, &st) != 0 || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
        store_fd_close(&fd);
        return bk_fail(err, BK_E_IO, "%s: changed while it was opened", path);
    }
    return store_sink_from_fd(fd, path, cancel, out, err);
}

static enum bk_code
open_staged(const char *path, int force, const struct bk_cancel *cancel, struct store_sink **out, struct bk_err *err)
{
    struct store_sink *s = NULL;
    enum bk_code rc = sink_new(path, cancel, &s, err);

    if (rc != BK_OK)
        return rc;
    s->staged = 1;
    if ((rc = store_stage_begin(&s->stage, path, force, &s->fd, err)) != BK_OK) {
        sink_free(s);
        return rc;
    }
    *out = s;
    return BK_OK;
}

enum bk_code
store_sink_open(const char *path, int force, const struct bk_cancel *cancel, struct store_sink **out,
                struct bk_err *err)
{
    struct stat st;
    enum bk_code rc;

    if (strcmp(path, "-") == 0)
        return open_standard_output(cancel, out, err);
    if (stat(path, &st) != 0)
        return open_staged(path, force, cancel, out, err);
    if (S_ISBLK(st.st_mode) && !force) {
        rc = bk_fail(err, BK_E_USAGE, "%s: is a block device, and what it holds would be overwritten", path);
        bk_err_hint(err, "overwrite it with --force");
        return rc;
    }
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) || S_ISFIFO(st.st_mode))
        return open_direct(path, cancel, out, err);
    return open_staged(path, force, cancel, out, err);
}

/* As many bytes from here on as may be written directly, or 0. */
static size_t
whole_blocks(const struct store_sink *s, const uint8_t *buf, size_t len)
{
    return s->direct >= 0 && !s->drop && store_fd_aligned(s->pos, buf) ? len / STORE_BLOCK * STORE_BLOCK : 0;
}

/* By position: a source over the same description must not move us, nor we it. Up to the next block through the cache,
 * then whole blocks past it. */
static ssize_t
write_staged(struct store_sink *s, const uint8_t *buf, size_t len)
{
    size_t whole = whole_blocks(s, buf, len);
    size_t to_block = STORE_BLOCK - s->pos % STORE_BLOCK;

    if (whole > 0) {
        ssize_t n = pwrite(s->direct, buf, whole, (off_t)s->pos);

        if (n >= 0 || errno != EINVAL)
            return n;
        s->drop = 1; /* a file system that changed its mind */
    } else if (s->direct >= 0 && len > to_block && store_fd_aligned(s->pos + to_block, buf + to_block)) {
        len = to_block;
    }
    return pwrite(s->fd, buf, len, (off_t)s->pos);
}

/*
 * The system would begin to write to the disk late, and publishing would wait for all of it; so it is told to go on
 * with what is there. To drop it from the cache it must be on the disk: that of two windows ago is waited for.
 */
static void
write_behind(struct store_sink *s)
{
    uint64_t at = s->started;

    if (!s->staged || s->pos - at < WINDOW)
        return;
    (void)sync_file_range(s->fd, (off_t)at, (off_t)(s->pos - at), SYNC_FILE_RANGE_WRITE);
    if (s->drop && at >= WINDOW) {
        (void)sync_file_range(s->fd, 0, (off_t)at,
                              SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
        (void)posix_fadvise(s->fd, 0, (off_t)at, POSIX_FADV_DONTNEED);
    }
    s->started = s->pos;
}

static ssize_t
write_once(struct store_sink *s, const uint8_t *buf, size_t len)
{
    if (s->staged)
        return write_staged(s, buf, len);
    if (s->socket)
        return send(s->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return write(s->fd, buf, len);
}

/* At least one byte; len is not 0. */
static enum bk_code
write_some(struct store_sink *s, const uint8_t *buf, size_t len, size_t *put, struct bk_err *err)
{
    for (;;) {
        enum bk_code rc = s->polled ? store_fd_wait(s->fd, POLLOUT, &s->stop, s->name, err)
                                    : store_stop_check(&s->stop, s->name, err);
        ssize_t n;

        if (rc != BK_OK)
            return rc;
        n = write_once(s, buf, len < s->chunk ? len : s->chunk);
        if (n > 0) {
            *put = (size_t)n;
            return BK_OK;
        }
        if (n == 0 || (errno != EINTR && errno != EAGAIN))
            return bk_fail_errno(err, n == 0 ? EIO : errno, "%s: cannot write at byte %" PRIu64, s->name,
                                 (uint64_t)s->pos);
    }
}

enum bk_code
store_sink_write(struct store_sink *s, const uint8_t *buf, size_t len, struct bk_err *err)
{
    while (len > 0) {
        size_t n = 0;
        enum bk_code rc = write_some(s, buf, len, &n, err);

        if (rc != BK_OK) {
            s->broken = 1;
            return rc;
        }
        buf += n;
        len -= n;
        atomic_fetch_add_explicit(&s->pos, n, memory_order_relaxed);
    }
    write_behind(s);
    return BK_OK;
}

/* Where files are in memory, to make room is the slower half of writing, and all but one thread would wait for it:
 * there it is only asked whether there is room. 0, or errno. */
static int
make_room(struct store_sink *s, uint64_t total)
{
    struct statfs fs;

    if (fstatfs(s->fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC)
        return fs.f_blocks > 0 && (total - 1) / (uint64_t)fs.f_bsize >= fs.f_bavail ? ENOSPC : 0;
    if (fallocate(s->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)total) != 0)
        return errno;
    s->room = total;
    return 0;
}

enum bk_code
store_sink_expect(struct store_sink *s, uint64_t total, struct bk_err *err)
{
    int why;

    if (!s->staged || total == 0 || total > INT64_MAX)
        return BK_OK;
    why = make_room(s, total);
    if (why == ENOSPC || why == EDQUOT || why == EFBIG)
        return bk_fail_errno(err, why, "%s: cannot have the %" PRIu64 " bytes that it needs", s->name, total);
    return BK_OK;
}

void
store_sink_direct(struct store_sink *s)
{
    if (!s->staged || s->direct >= 0)
        return;
    s->direct = store_fd_direct(s->fd, O_WRONLY);
    s->drop = s->direct < 0;
}

size_t
store_sink_skew(const struct store_sink *s, uint64_t offset)
{
    return s->direct >= 0 ? offset % STORE_BLOCK : 0;
}

/* Whether [offset, offset + len) was written to a staged file. */
static enum bk_code
check_range(const struct store_sink *s, uint64_t offset, size_t len, struct bk_err *err)
{
    if (!s->staged)
        return bk_fail(err, BK_E_INTERNAL, "%s: a stream has no ranges", s->name);
    if (offset > s->pos || len > s->pos - offset)
        return bk_fail(err, BK_E_INTERNAL, "%s: a range at byte %" PRIu64 " that was not written yet", s->name, offset);
    return BK_OK;
}

enum bk_code
store_sink_write_at(struct store_sink *s, uint64_t offset, const uint8_t *buf, size_t len, struct bk_err *err)
{
    enum bk_code rc = check_range(s, offset, len, err);

    if (rc != BK_OK)
        return rc;
    if ((rc = store_fd_write_at(s->fd, s->name, offset, buf, len, err)) != BK_OK)
        s->broken = 1;
    return rc;
}

enum bk_code
store_sink_read_at(struct store_sink *s, uint64_t offset, uint8_t *buf, size_t len, struct bk_err *err)
{
    enum bk_code rc = check_range(s, offset, len, err);

    return rc != BK_OK ? rc : store_fd_read_at(s->fd, s->name, offset, buf, len, err);
}

int
store_sink_staged(const struct store_sink *s)
{
    return s->staged;
}

enum bk_code
store_sink_as_source(struct store_sink *s, struct store_source **out, struct bk_err *err)
{
    int fd;

    if (!s->staged)
        return bk_fail(err, BK_E_INTERNAL, "%s: a stream cannot be read back", s->name);
    fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return bk_fail_errno(err, errno, "%s: cannot read back", s->name);
    return store_source_from_fd(fd, s->name, s->stop.cancel, out, err);
}

/* All but the closing. */
static enum bk_code
complete(struct store_sink *s, struct bk_err *err)
{
    if (s->broken)
        return bk_fail(err, BK_E_INTERNAL, "%s: not published, since a write to it failed", s->name);
    /* of what it was given room for, what it did not need */
    if (s->staged && s->room > s->pos && ftruncate(s->fd, (off_t)s->pos) != 0)
        return bk_fail_errno(err, errno, "%s: cannot be made as long as it is", s->name);
    if (s->staged)
        return store_stage_publish(&s->stage, s->fd, &s->stop, err);
    if (s->durable && fsync(s->fd) != 0)
        return bk_fail_errno(err, errno, "%s: cannot be written to the disk", s->name);
    return BK_OK;
}

enum bk_code
store_sink_publish(struct store_sink *s, struct bk_err *err)
{
    enum bk_code rc = complete(s, err);
    int fd = s->fd;

    s->fd = -1;
    if (close(fd) != 0 && errno != EINTR && rc == BK_OK)
        rc = bk_fail_errno(err, errno, "%s: cannot close", s->name);
    sink_free(s);
    return rc;
}

void
store_sink_discard(struct store_sink *s)
{
    if (s != NULL)
        sink_free(s);
}

uint64_t
store_sink_bytes_written(const struct store_sink *s)
{
    return s->pos;
}
