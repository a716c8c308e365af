#include "store/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/fd.h"

struct store_source {
    int fd;
    int regular;     /* read by pread from pos: a descriptor that others share is never moved under them */
    int seekable;    /* regular, and byte 0 of it is byte 0 of what we were given */
    int ended;       /* a terminal would go on after its end of input */
    int direct;      /* a second description, past the cache; -1: none */
    atomic_int drop; /* what was read is dropped from the cache, and direct is not used (any more) */
    int has_ahead;
    uint8_t ahead; /* of a stream: read already, to know whether it goes on */
    struct store_stop stop;
    uint64_t pos;
    _Atomic uint64_t bytes_read; /* read_at is called by many threads */
    char *name;
};

/* What kind of descriptor it is; s->fd and s->name are set. */
static enum bk_code
source_inspect(struct store_source *s, struct bk_err *err)
{
    struct stat st;
    off_t at;

    if (fstat(s->fd, &st) != 0)
        return bk_fail_errno(err, errno, "%s: cannot read", s->name);
    if (S_ISDIR(st.st_mode))
        return bk_fail_errno(err, EISDIR, "%s: cannot read", s->name);
    if (S_ISFIFO(st.st_mode))
        store_fd_enlarge_pipe(s->fd);
    if (!S_ISREG(st.st_mode))
        return BK_OK;
    s->regular = s->seekable = 1;
    at = lseek(s->fd, 0, SEEK_CUR);
    s->pos = at > 0 ? (uint64_t)at : 0;
    return BK_OK;
}

enum bk_code
store_source_from_fd(int fd, const char *name, const struct bk_cancel *cancel, struct store_source **out,
                     struct bk_err *err)
{
    struct store_source *s = calloc(1, sizeof *s);
    enum bk_code rc;

    if (s == NULL) {
        store_fd_close(&fd);
        return bk_fail_nomem(err);
    }
    s->fd = fd;
    s->direct = -1;
    s->stop = (struct store_stop){.cancel = cancel, .interrupt = -1};
    if ((s->name = strdup(name)) == NULL) {
        rc = bk_fail_nomem(err);
        goto done;
    }
    if ((rc = source_inspect(s, err)) != BK_OK)
        goto done;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || (s->stop.interrupt = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
        rc = bk_fail_errno(err, errno, "%s: cannot prepare for reading", name);
        goto done;
    }
    *out = s;
    s = NULL;
done:
    store_source_close(s);
    return rc;
}

static enum bk_code
open_standard_input(const struct bk_cancel *cancel, struct store_source **out, struct bk_err *err)
{
    int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    struct store_source *s = NULL;
    enum bk_code rc;

    if (fd < 0)
        return bk_fail_errno(err, errno, "standard input: cannot read");
    if ((rc = store_source_from_fd(fd, "standard input", cancel, &s, err)) != BK_OK)
        return rc;
    /* somebody read the beginning of this file already: what is left is a stream, not a file with ranges from 0 */
    if (s->pos != 0)
        s->seekable = 0;
    *out = s;
    return BK_OK;
}

enum bk_code
store_source_open(const char *path, const struct bk_cancel *cancel, struct store_source **out, struct bk_err *err)
{
    const struct store_stop stop = {.cancel = cancel, .interrupt = -1};
    enum bk_code rc;
    int fd = -1;

    if (strcmp(path, "-") == 0)
        return open_standard_input(cancel, out, err);
    if ((rc = store_fd_open(path, O_RDONLY, &stop, &fd, err)) != BK_OK)
        return rc;
    return store_source_from_fd(fd, path, cancel, out, err);
}

void
store_source_close(struct store_source *s)
{
    if (s == NULL)
        return;
    store_fd_close(&s->fd);
    store_fd_close(&s->direct);
    store_fd_close(&s->stop.interrupt);
    free(s->name);
    free(s);
}

const char *
store_source_name(const struct store_source *s)
{
    return s->name;
}

int
store_source_seekable(const struct store_source *s)
{
    return s->seekable;
}

enum bk_code
store_source_size(struct store_source *s, uint64_t *out, struct bk_err *err)
{
    struct stat st;

    if (!s->seekable)
        return bk_fail(err, BK_E_INTERNAL, "%s: a stream has no size", s->name);
    if (fstat(s->fd, &st) != 0)
        return bk_fail_errno(err, errno, "%s: cannot find its size", s->name);
    *out = (uint64_t)st.st_size;
    return BK_OK;
}

/* A direct read that is refused (a file system that changed its mind) is made again through the cache, and so are all
 * that follow. Many threads may find that out at once; none closes the description under another. */
static ssize_t
read_file(struct store_source *s, uint8_t *buf, size_t len, uint64_t offset)
{
    ssize_t n = -1;

    if (s->direct >= 0 && !s->drop && len % STORE_BLOCK == 0 && store_fd_aligned(offset, buf)) {
        n = pread(s->direct, buf, len, (off_t)offset);
        if (n >= 0 || errno != EINVAL)
            return n;
        s->drop = 1;
    }
    n = pread(s->fd, buf, len, (off_t)offset);
    if (n > 0 && s->drop)
        (void)posix_fadvise(s->fd, (off_t)offset, n, POSIX_FADV_DONTNEED);
    return n;
}

/* One read that is not empty unless the source has ended; len is not 0. */
static enum bk_code
read_some(struct store_source *s, uint8_t *buf, size_t len, size_t *got, struct bk_err *err)
{
    for (;;) {
        enum bk_code rc;
        ssize_t n;

        /*
         * Streams are read only when poll says that there is something, so that this never blocks where a stop would
         * not be heard. The description stays in blocking mode: it may be shared with the program that started us.
         */
        rc = s->regular ? store_stop_check(&s->stop, s->name, err)
                        : store_fd_wait(s->fd, POLLIN, &s->stop, s->name, err);
        if (rc != BK_OK)
            return rc;
        n = s->regular ? read_file(s, buf, len, s->pos) : read(s->fd, buf, len);
        if (n >= 0) {
            *got = (size_t)n;
            return BK_OK;
        }
        if (errno != EINTR && errno != EAGAIN)
            return bk_fail_errno(err, errno, "%s: cannot read at byte %" PRIu64, s->name, s->pos);
    }
}

enum bk_code
store_source_read_some(struct store_source *s, uint8_t *buf, size_t len, size_t *got, struct bk_err *err)
{
    size_t n = 0;
    enum bk_code rc = BK_OK;

    *got = 0;
    if (len == 0 || s->ended)
        return BK_OK;
    if ((rc = read_some(s, buf, len < STORE_IO_MAX ? len : STORE_IO_MAX, &n, err)) != BK_OK)
        return rc;
    s->ended = n == 0;
    s->pos += n;
    atomic_fetch_add_explicit(&s->bytes_read, n, memory_order_relaxed);
    *got = n;
    return BK_OK;
}

enum bk_code
store_source_read(struct store_source *s, uint8_t *buf, size_t len, size_t *got, struct bk_err *err)
{
    size_t filled = 0;

    *got = 0;
    if (s->has_ahead && len > 0) {
        buf[filled++] = s->ahead;
        s->has_ahead = 0;
    }
    while (filled < len && !s->ended) {
        size_t n = 0;
        enum bk_code rc = store_source_read_some(s, buf + filled, len - filled, &n, err);

        if (rc != BK_OK)
            return rc;
        filled += n;
    }
    *got = filled;
    return BK_OK;
}

enum bk_code
store_source_read_at(struct store_source *s, uint64_t offset, uint8_t *buf, size_t len, struct bk_err *err)
{
    const struct store_stop cancel_only = {.cancel = s->stop.cancel, .interrupt = -1};
    enum bk_code rc;

    if (!s->seekable)
        return bk_fail(err, BK_E_INTERNAL, "%s: a stream has no ranges", s->name);
    if ((rc = store_stop_check(&cancel_only, s->name, err)) != BK_OK)
        return rc;
    if ((rc = store_fd_read_at(s->fd, s->name, offset, buf, len, err)) != BK_OK)
        return rc;
    atomic_fetch_add_explicit(&s->bytes_read, len, memory_order_relaxed);
    return BK_OK;
}

/* The whole blocks around the range; the file may end within the last of them. */
static enum bk_code
read_blocks(struct store_source *s, uint64_t first, uint8_t *buf, size_t len, struct bk_err *err)
{
    size_t room = (len + STORE_BLOCK - 1) / STORE_BLOCK * STORE_BLOCK;
    size_t filled = 0;

    while (filled < len) {
        ssize_t n = read_file(s, buf + filled, room - filled, first + filled);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return bk_fail_errno(err, errno, "%s: cannot read at byte %" PRIu64, s->name, first + filled);
        if (n == 0)
            return bk_fail(err, BK_E_INCOMPLETE, "%s: ends before byte %" PRIu64 ", %zu bytes are missing", s->name,
                           first + filled, len - filled);
        filled += (size_t)n;
    }
    return BK_OK;
}

enum bk_code
store_source_read_around(struct store_source *s, uint64_t offset, uint8_t *buf, size_t *at, size_t len,
                         struct bk_err *err)
{
    const struct store_stop cancel_only = {.cancel = s->stop.cancel, .interrupt = -1};
    enum bk_code rc;

    *at = 0;
    if ((s->direct < 0 && !s->drop) || !s->seekable || offset > INT64_MAX / 2)
        return store_source_read_at(s, offset, buf, len, err);
    if ((rc = store_stop_check(&cancel_only, s->name, err)) != BK_OK)
        return rc;
    *at = offset % STORE_BLOCK;
    rc = read_blocks(s, offset - *at, buf, *at + len, err);
    if (rc == BK_OK)
        atomic_fetch_add_explicit(&s->bytes_read, len, memory_order_relaxed);
    return rc;
}

/* A file that is longer than what was read goes on; of one that is not, the kernel's word is taken, since some files
 * (those of proc(5)) have no length. */
static int
file_goes_on(const struct store_source *s)
{
    struct stat st;

    return fstat(s->fd, &st) == 0 && (uint64_t)st.st_size > s->pos;
}

enum bk_code
store_source_ended(struct store_source *s, int *ended, struct bk_err *err)
{
    uint8_t next = 0;
    size_t got = 0;
    enum bk_code rc = BK_OK;

    *ended = 0;
    if (s->has_ahead || (s->regular && file_goes_on(s)))
        return BK_OK;
    if ((rc = store_source_read(s, &next, 1, &got, err)) != BK_OK)
        return rc;
    s->has_ahead = got == 1;
    s->ahead = next;
    *ended = got == 0;
    return BK_OK;
}

void
store_source_interrupt(struct store_source *s)
{
    /* it can only fail when the counter is full, and then the descriptor is readable already */
    (void)eventfd_write(s->stop.interrupt, 1);
}

uint64_t
store_source_bytes_read(const struct store_source *s)
{
    return atomic_load_explicit(&s->bytes_read, memory_order_relaxed);
}

void
store_source_sequential(struct store_source *s)
{
    if (s->regular)
        (void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

void
store_source_direct(struct store_source *s)
{
    if (!s->regular || s->direct >= 0)
        return;
    s->direct = store_fd_direct(s->fd, O_RDONLY);
    s->drop = s->direct < 0;
}
