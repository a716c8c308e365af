/*
 * Preloaded into bk-wrap by batch_test.sh: an archive NAME waits before it gets its name as long as the folder BK_HOLD
 * has a file NAME, and says by a file NAME.held that it does. So tests see what else is made meanwhile.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef int renameat2_function(int from, const char *old, int to, const char *name, unsigned flags);

static void
say_held(const char *path)
{
    char held[PATH_MAX + 8];
    int fd;

    (void)snprintf(held, sizeof held, "%s.held", path);
    if ((fd = open(held, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) >= 0)
        (void)close(fd);
}

int
renameat2(int from, const char *old, int to, const char *name, unsigned flags)
{
    const char *folder = getenv("BK_HOLD");
    char path[PATH_MAX];
    renameat2_function *next;

    (void)snprintf(path, sizeof path, "%s/%s", folder == NULL ? "/" : folder, name);
    if (folder != NULL && access(path, F_OK) == 0)
        say_held(path);
    while (folder != NULL && access(path, F_OK) == 0)
        (void)usleep(5000);
    *(void **)&next = dlsym(RTLD_NEXT, "renameat2");
    return next(from, old, to, name, flags);
}
