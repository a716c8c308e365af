/* Starting a program with chosen descriptors and signals. */
#ifndef BK_BASE_SPAWN_H
#define BK_BASE_SPAWN_H

#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

/* A descriptor of ours and the number that it has in the child. */
struct bk_spawn_fd {
    int ours;
    int theirs;
};

/*
 * Starts argv[0], or file in its place unless NULL, looked up in PATH. The child gets the descriptors of fds, in that
 * order, so that no ours may be the theirs of an earlier one; of the standard ones those that fds does not name, as
 * they are; and no other, also none of those that libraries may have opened without O_CLOEXEC. The signals of blocked
 * are blocked in it; SIGPIPE and SIGXFSZ have their default effect; what else was ignored when bk started (nohup) stays
 * so. Returns 0 and *pid, or an errno.
 */
int bk_spawn(const char *file, char *const argv[], const struct bk_spawn_fd *fds, size_t count, const sigset_t *blocked,
             pid_t *pid);

/* waitpid(2) that no signal interrupts. */
pid_t bk_reap(pid_t pid, int *status, int flags);

#endif
