/*
 * Preloaded into a program by rekey_test.sh: kills it at a chosen moment of its writes in place, as a crash would.
 * BK_KILL_AT=N is the Nth of these moments, from 1: before, in the middle of, and after each pwrite(2); after each
 * fdatasync(2). SIGKILL leaves the program no chance to clean up.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define TORN 100

typedef ssize_t pwrite_function(int fd, const void *buf, size_t len, off_t offset);
typedef int fdatasync_function(int fd);

static long moment;

static int
is_now(void)
{
    const char *wanted = getenv("BK_KILL_AT");

    return wanted != NULL && ++moment == strtol(wanted, NULL, 10);
}

static void
die_if_now(void)
{
    if (is_now())
        (void)raise(SIGKILL);
}

static ssize_t
write_or_die(const char *name, int fd, const void *buf, size_t len, off_t offset)
{
    pwrite_function *next;
    ssize_t n;

    *(void **)&next = dlsym(RTLD_NEXT, name);
    die_if_now();
    if (is_now()) {
        /* within what is used of a slot, not in its padding */
        n = next(fd, buf, len < TORN ? len : TORN, offset);
        (void)raise(SIGKILL);
    }
    n = next(fd, buf, len, offset);
    die_if_now();
    return n;
}

ssize_t
pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    return write_or_die("pwrite", fd, buf, len, offset);
}

ssize_t
pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
    return write_or_die("pwrite64", fd, buf, len, offset);
}

int
fdatasync(int fd)
{
    fdatasync_function *next;
    int rc;

    *(void **)&next = dlsym(RTLD_NEXT, "fdatasync");
    rc = next(fd);
    die_if_now();
    return rc;
}
