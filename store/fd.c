#include "store/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* How often an open of a FIFO for writing looks for a reader; the kernel has no call that waits for both. */
#define FIFO_RETRY_MS 50

/* 1 if a stop was asked for, 0 if fd is ready or the time is over. */
static int
poll_stop(int fd, short events, const struct store_stop *stop, int milliseconds)
{
    struct pollfd p[3] = {
        {.fd = stop->cancel == NULL ? -1 : stop->cancel->fd, .events = POLLIN},
        {.fd = stop->interrupt, .events = POLLIN},
        {.fd = fd, .events = events},
    };

    /* a signal is no reason to return: its handler has made the cancel descriptor readable if it is to stop us */
    while (poll(p, 3, milliseconds) < 0)
        if (errno != EINTR)
            return 0;
    return p[0].revents != 0 || p[1].revents != 0;
}

static enum bk_code
stopped(const char *name, struct bk_err *err)
{
    return bk_fail(err, BK_E_CANCELLED, "%s: stopped before the end", name);
}

enum bk_code
store_stop_check(const struct store_stop *stop, const char *name, struct bk_err *err)
{
    return poll_stop(-1, 0, stop, 0) ? stopped(name, err) : BK_OK;
}

enum bk_code
store_stop_pause(const struct store_stop *stop, int milliseconds, const char *name, struct bk_err *err)
{
    return poll_stop(-1, 0, stop, milliseconds) ? stopped(name, err) : BK_OK;
}

enum bk_code
store_fd_wait(int fd, short events, const struct store_stop *stop, const char *name, struct bk_err *err)
{
    return poll_stop(fd, events, stop, -1) ? stopped(name, err) : BK_OK;
}

enum bk_code
store_fd_open(const char *path, int flags, const struct store_stop *stop, int *out, struct bk_err *err)
{
    struct stat st;
    enum bk_code rc;
    int fifo = stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
    int writing = (flags & O_ACCMODE) == O_WRONLY;
    int fd;

    /* not for other kinds: a tape drive, for one, takes O_NONBLOCK as leave to open without a tape */
    flags |= O_CLOEXEC | O_NOCTTY | (fifo ? O_NONBLOCK : 0);
    while ((fd = open(path, flags)) < 0) {
        if (errno == EINTR)
            continue;
        if (!(errno == ENXIO && fifo && writing))
            return bk_fail_errno(err, errno, "%s: cannot open for %s", path,
                                 (flags & O_ACCMODE) == O_RDONLY ? "reading" : "writing");
        if ((rc = store_stop_pause(stop, FIFO_RETRY_MS, path, err)) != BK_OK)
            return rc;
    }
    *out = fd;
    return BK_OK;
}

enum bk_code
store_fd_read_at(int fd, const char *name, uint64_t offset, uint8_t *buf, size_t len, struct bk_err *err)
{
    /* offsets come from archives that may be damaged: none may turn negative */
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return bk_fail(err, BK_E_INCOMPLETE, "%s: ends before byte %" PRIu64, name, offset);
    while (len > 0) {
        ssize_t n = pread(fd, buf, len < STORE_IO_MAX ? len : STORE_IO_MAX, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return bk_fail_errno(err, errno, "%s: cannot read at byte %" PRIu64, name, offset);
        if (n == 0)
            return bk_fail(err, BK_E_INCOMPLETE, "%s: ends before byte %" PRIu64 ", %zu bytes are missing", name,
                           offset, len);
        buf += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return BK_OK;
}

enum bk_code
store_fd_write_at(int fd, const char *name, uint64_t offset, const uint8_t *buf, size_t len, struct bk_err *err)
{
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return bk_fail(err, BK_E_INTERNAL, "%s: no file has a byte %" PRIu64, name, offset);
    while (len > 0) {
        ssize_t n = pwrite(fd, buf, len < STORE_IO_MAX ? len : STORE_IO_MAX, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return bk_fail_errno(err, n < 0 ? errno : EIO, "%s: cannot write at byte %" PRIu64, name, offset);
        buf += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return BK_OK;
}

int
store_fd_direct(int fd, int flags)
{
    char path[32];

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, flags | O_DIRECT | O_CLOEXEC | O_NOCTTY);
}

int
store_fd_aligned(uint64_t offset, const uint8_t *buf)
{
    return offset % STORE_BLOCK == 0 && (uintptr_t)buf % STORE_BLOCK == 0;
}

void
store_fd_enlarge_pipe(int fd)
{
    int size = fcntl(fd, F_GETPIPE_SZ);

    if (size >= 0 && size < (int)STORE_IO_MAX)
        (void)fcntl(fd, F_SETPIPE_SZ, (int)STORE_IO_MAX);
}

void
store_fd_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

enum bk_code
store_command_failed(const char *name, int os_errno, const char *what, struct bk_err *err)
{
    enum bk_code rc = bk_fail_errno(err, os_errno, "%s: %s", name, what);

    if (rc == BK_E_IO)
        rc = BK_E_COMMAND;
    if (err != NULL)
        err->code = rc;
    return rc;
}
