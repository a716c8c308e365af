#include "base/spawn.h"

#include <errno.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

static int
set_descriptors(posix_spawn_file_actions_t *actions, const struct bk_spawn_fd *fds, size_t count)
{
    int last = STDERR_FILENO;
    int rc;

    for (size_t i = 0; i < count; i++) {
        if ((rc = posix_spawn_file_actions_adddup2(actions, fds[i].ours, fds[i].theirs)) != 0)
            return rc;
        if (fds[i].theirs > last)
            last = fds[i].theirs;
    }
    return posix_spawn_file_actions_addclosefrom_np(actions, last + 1);
}

/*
 * exec(2) resets handlers but keeps what is blocked or ignored: a child that ignored SIGPIPE as bk does would not end
 * with its reader.
 *
 * No process group of its own: from a background group it could not read the terminal (pg_dump asking for a password),
 * and an interrupt typed there is meant for both.
 */
static int
set_signals(posix_spawnattr_t *attr, const sigset_t *blocked)
{
    sigset_t ours;
    int rc;

    (void)sigemptyset(&ours);
    (void)sigaddset(&ours, SIGPIPE);
    (void)sigaddset(&ours, SIGXFSZ);
    if ((rc = posix_spawnattr_setsigmask(attr, blocked)) != 0)
        return rc;
    if ((rc = posix_spawnattr_setsigdefault(attr, &ours)) != 0)
        return rc;
    return posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

int
bk_spawn(const char *file, char *const argv[], const struct bk_spawn_fd *fds, size_t count, const sigset_t *blocked,
         pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int rc;

    if ((rc = posix_spawn_file_actions_init(&actions)) != 0)
        return rc;
    if ((rc = posix_spawnattr_init(&attr)) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return rc;
    }
    if ((rc = set_descriptors(&actions, fds, count)) == 0 && (rc = set_signals(&attr, blocked)) == 0)
        rc = posix_spawnp(pid, file == NULL ? argv[0] : file, &actions, &attr, argv, environ);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&actions);
    return rc;
}

pid_t
bk_reap(pid_t pid, int *status, int flags)
{
    pid_t got;

    while ((got = waitpid(pid, status, flags)) < 0 && errno == EINTR)
        ;
    return got;
}
