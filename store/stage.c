#include "store/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define RANDOM_CHARS 6
#define PART_SUFFIX  ".part"
/* ".", NAME, ".", six random characters, ".part" */
#define PART_EXTRA (1 + 1 + RANDOM_CHARS + sizeof PART_SUFFIX - 1)
/* Six characters of 32 kinds: more tries than this mean that something else is wrong. */
#define NAME_TRIES 100

static enum bk_code
refuse_existing(const struct store_stage *g, struct bk_err *err)
{
    enum bk_code rc = bk_fail(err, BK_E_USAGE, "%s: exists already", g->path);

    bk_err_hint(err, "choose another name, or replace it with --force");
    if (err != NULL)
        err->os_errno = EEXIST;
    return rc;
}

/* Splits the path and opens the folder. */
static enum bk_code
open_folder(struct store_stage *g, struct bk_err *err)
{
    char *slash = strrchr(g->path, '/');
    const char *name = slash == NULL ? g->path : slash + 1;
    char *folder = NULL;
    enum bk_code rc = BK_OK;

    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return bk_fail(err, BK_E_USAGE, "%s: names a folder, not a file", g->path);
    if (slash == NULL)
        folder = strdup(".");
    else
        folder = strndup(g->path, slash == g->path ? 1 : (size_t)(slash - g->path));
    g->target = strdup(name);
    if (folder == NULL || g->target == NULL) {
        rc = bk_fail_nomem(err);
        goto done;
    }
    g->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g->folder_readable = g->folder >= 0;
    if (g->folder < 0 && errno == EACCES)
        g->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (g->folder < 0)
        rc = bk_fail_errno(err, errno, "%s: cannot open its folder %s", g->path, folder);
done:
    free(folder);
    return rc;
}

/* True if the link leads to what our standard output is: --force -o /dev/stdout must not replace a system's link. */
static int
leads_to_standard_output(const struct store_stage *g)
{
    struct stat st, out;

    return fstatat(g->folder, g->target, &st, 0) == 0 && fstat(STDOUT_FILENO, &out) == 0 && st.st_dev == out.st_dev &&
           st.st_ino == out.st_ino;
}

/* What stands under the name now. A symbolic link is not followed: it counts as existing, and --force replaces the link
 * itself, as rename(2) does, so that nobody who can make links steers the output to another place. */
static enum bk_code
check_target(const struct store_stage *g, struct bk_err *err)
{
    struct stat st;
    enum bk_code rc;

    if (fstatat(g->folder, g->target, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? BK_OK : bk_fail_errno(err, errno, "%s: cannot be created", g->path);
    if (S_ISDIR(st.st_mode))
        return bk_fail(err, BK_E_USAGE, "%s: is a folder", g->path);
    if (S_ISSOCK(st.st_mode))
        return bk_fail(err, BK_E_USAGE, "%s: is a socket", g->path);
    if (S_ISLNK(st.st_mode) && leads_to_standard_output(g)) {
        rc = bk_fail(err, BK_E_USAGE, "%s: is a link to the standard output", g->path);
        bk_err_hint(err, "standard output is named -");
        return rc;
    }
    return g->force ? BK_OK : refuse_existing(g, err);
}

/* The bytes of the target's name that fit into the staging name; whole UTF-8 characters, which some file systems ask
 * for. */
static size_t
part_stem(const struct store_stage *g)
{
    long limit = fpathconf(g->folder, _PC_NAME_MAX);
    size_t max = limit > (long)PART_EXTRA ? (size_t)limit : NAME_MAX;
    size_t len = strlen(g->target);

    if (len <= max - PART_EXTRA)
        return len;
    len = max - PART_EXTRA;
    while (len > 0 && ((unsigned char)g->target[len] & 0xC0) == 0x80)
        len--;
    return len;
}

static int
random_chars(char out[RANDOM_CHARS])
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
    unsigned char r[RANDOM_CHARS];

    if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r)
        return 0;
    for (size_t i = 0; i < RANDOM_CHARS; i++)
        out[i] = alphabet[r[i] % 32];
    return 1;
}

static enum bk_code
create_part(struct store_stage *g, int *fd, struct bk_err *err)
{
    size_t stem = part_stem(g);
    size_t room = stem + PART_EXTRA + 1;
    char *part = malloc(room);
    enum bk_code rc = BK_OK;

    if (part == NULL)
        return bk_fail_nomem(err);
    (void)snprintf(part, room, ".%.*s.%*s" PART_SUFFIX, (int)stem, g->target, RANDOM_CHARS, "");
    for (int tries = 0; *fd < 0 && tries < NAME_TRIES; tries++) {
        if (!random_chars(part + 1 + stem + 1))
            break;
        /* O_EXCL: never a file or a link that somebody put there; read as well, to verify before publishing */
        *fd = openat(g->folder, part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (*fd < 0 && errno != EEXIST && errno != EINTR)
            break;
    }
    if (*fd < 0) {
        rc = bk_fail_errno(err, errno, "%s: cannot create a file in its folder", g->path);
        goto done;
    }
    g->part = part;
    part = NULL;
done:
    free(part);
    return rc;
}

enum bk_code
store_stage_begin(struct store_stage *g, const char *path, int force, int *fd, struct bk_err *err)
{
    enum bk_code rc;

    g->force = force;
    if ((g->path = strdup(path)) == NULL)
        return bk_fail_nomem(err);
    if ((rc = open_folder(g, err)) != BK_OK)
        return rc;
    if ((rc = check_target(g, err)) != BK_OK)
        return rc;
    return create_part(g, fd, err);
}

/*
 * 0666 less the umask. umask(2) can only be read by setting it, for all threads; so it is read from proc(5), "Umask"
 * (Linux 4.7). Where there is no /proc the file stays private to its owner, which errs on the safe side.
 */
static mode_t
published_mode(void)
{
    char text[512]; /* "Umask" is the second line, after a name of at most 64 bytes */
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    const char *at;
    unsigned mask;

    store_fd_close(&fd);
    if (n <= 0)
        return 0600;
    text[n] = '\0';
    at = strstr(text, "\nUmask:");
    if (at == NULL || sscanf(at, "\nUmask: %o", &mask) != 1)
        return 0600;
    return (mode_t)(0666 & ~mask);
}

/* close(2) reports what a network or FUSE file system could not store, and that must be known before the rename; so a
 * duplicate is closed here, which flushes as the last one would. */
static int
flush_as_close(int fd)
{
    int again = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    return again >= 0 && close(again) == 0;
}

/* Everything that can fail while nothing has appeared yet. */
static enum bk_code
settle(const struct store_stage *g, int fd, struct bk_err *err)
{
    struct stat ours, named;

    if (fstat(fd, &ours) != 0 || fstatat(g->folder, g->part, &named, AT_SYMLINK_NOFOLLOW) != 0)
        return bk_fail_errno(err, errno, "%s: the staged file %s is gone", g->path, g->part);
    if (ours.st_dev != named.st_dev || ours.st_ino != named.st_ino)
        return bk_fail(err, BK_E_IO, "%s: somebody replaced the staged file %s", g->path, g->part);
    /* file systems without modes refuse this, and have no mode to get wrong */
    if (fchmod(fd, published_mode()) != 0 && errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
        return bk_fail_errno(err, errno, "%s: cannot set its mode", g->path);
    if (fsync(fd) != 0 || !flush_as_close(fd))
        return bk_fail_errno(err, errno, "%s: cannot be written to the disk", g->path);
    return BK_OK;
}

/* For file systems without RENAME_NOREPLACE (NFS, for one): link(2) never replaces. */
static enum bk_code
link_into_place(struct store_stage *g, struct bk_err *err)
{
    enum bk_code rc;

    if (linkat(g->folder, g->part, g->folder, g->target, 0) != 0) {
        if (errno == EEXIST)
            return refuse_existing(g, err);
        rc = bk_fail_errno(err, errno, "%s: this file system cannot make a name without replacing one", g->path);
        bk_err_hint(err, "use --force, with names that are never used twice");
        return rc;
    }
    if (unlinkat(g->folder, g->part, 0) != 0)
        return bk_fail_errno(err, errno, "%s: is in place, but its second name %s remains", g->path, g->part);
    return BK_OK;
}

static enum bk_code
move_into_place(struct store_stage *g, struct bk_err *err)
{
    unsigned flags = g->force ? 0 : RENAME_NOREPLACE;

    if (renameat2(g->folder, g->part, g->folder, g->target, flags) == 0)
        return BK_OK;
    if (!g->force && errno == EEXIST)
        return refuse_existing(g, err);
    if (!g->force && (errno == EINVAL || errno == ENOSYS))
        return link_into_place(g, err);
    return bk_fail_errno(err, errno, "%s: cannot be moved into place", g->path);
}

/* EINVAL: the file system knows no sync of a folder, so there is nothing to wait for. */
static enum bk_code
sync_folder(const struct store_stage *g, int fd, struct bk_err *err)
{
    int failed = g->folder_readable ? fsync(g->folder) : syncfs(fd);

    if (failed && errno != EINVAL)
        return bk_fail_errno(err, errno, "%s: is in place, but its folder could not be synced, a crash may lose it",
                             g->path);
    return BK_OK;
}

enum bk_code
store_stage_publish(struct store_stage *g, int fd, const struct store_stop *stop, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = settle(g, fd, err)) != BK_OK)
        return rc;
    if ((rc = store_stop_check(stop, g->path, err)) != BK_OK)
        return rc;
    if ((rc = move_into_place(g, err)) != BK_OK)
        return rc;
    free(g->part);
    g->part = NULL;
    return sync_folder(g, fd, err);
}

void
store_stage_end(struct store_stage *g)
{
    if (g->part != NULL)
        (void)unlinkat(g->folder, g->part, 0);
    store_fd_close(&g->folder);
    free(g->path);
    free(g->target);
    free(g->part);
    *g = STORE_STAGE_EMPTY;
}
