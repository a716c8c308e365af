#include "store/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/family.h"
#include "store/fd.h"

/* How often the child is looked at where the kernel has no process file descriptors (before Linux 5.3). */
#define WAIT_RETRY_MS 50

struct store_command {
    pid_t pid;
    int pidfd; /* readable when the child has ended, or -1 */
    int consumer;
    struct store_stop stop;
    char *name;
};

/* The child gets our end of the pipe as one of its standard descriptors, the other standard ones as they are, and none
 * of those that libraries may have opened without O_CLOEXEC. */
static int
set_descriptors(posix_spawn_file_actions_t *actions, int pipe_fd, int standard_fd)
{
    int rc = posix_spawn_file_actions_adddup2(actions, pipe_fd, standard_fd);

    return rc != 0 ? rc : posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1);
}

/*
 * exec(2) resets handlers but keeps what is blocked or ignored: a child that ignored SIGPIPE as bk does would not end
 * with its reader. Signals that were ignored when bk started (nohup) stay so.
 *
 * No process group of its own: from a background group it could not read the terminal (pg_dump asking for a password),
 * and an interrupt typed there is meant for both.
 */
static int
set_signals(posix_spawnattr_t *attr)
{
    sigset_t none, ours;
    int rc;

    (void)sigemptyset(&none);
    (void)sigemptyset(&ours);
    (void)sigaddset(&ours, SIGPIPE);
    (void)sigaddset(&ours, SIGXFSZ);
    if ((rc = posix_spawnattr_setsigmask(attr, &none)) != 0)
        return rc;
    if ((rc = posix_spawnattr_setsigdefault(attr, &ours)) != 0)
        return rc;
    return posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

/* 0 or an errno. */
static int
spawn(char *const argv[], int pipe_fd, int standard_fd, pid_t *pid)
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
    if ((rc = set_descriptors(&actions, pipe_fd, standard_fd)) == 0 && (rc = set_signals(&attr)) == 0)
        rc = posix_spawnp(pid, argv[0], &actions, &attr, argv, environ);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&actions);
    return rc;
}

static void
command_free(struct store_command *c)
{
    if (c == NULL)
        return;
    store_fd_close(&c->pidfd);
    free(c->name);
    free(c);
}

static enum bk_code
command_new(char *const argv[], const struct bk_cancel *cancel, int consumer, struct store_command **out,
            struct bk_err *err)
{
    struct store_command *c;
    const char *slash;

    if (argv[0] == NULL || argv[0][0] == '\0')
        return bk_fail(err, BK_E_USAGE, "no command to start");
    if ((c = calloc(1, sizeof *c)) == NULL)
        return bk_fail_nomem(err);
    c->pid = -1;
    c->pidfd = -1;
    c->consumer = consumer;
    c->stop = (struct store_stop){.cancel = cancel, .interrupt = -1};
    slash = strrchr(argv[0], '/');
    if ((c->name = strdup(slash == NULL ? argv[0] : slash + 1)) == NULL) {
        command_free(c);
        return bk_fail_nomem(err);
    }
    *out = c;
    return BK_OK;
}

/* A failed system call that is the command's failure, not one of input or output. */
static enum bk_code
command_failed(const struct store_command *c, int os_errno, const char *what, struct bk_err *err)
{
    enum bk_code rc = bk_fail_errno(err, os_errno, "%s: %s", c->name, what);

    if (rc == BK_E_IO)
        rc = BK_E_COMMAND;
    if (err != NULL)
        err->code = rc;
    return rc;
}

/* Starts the command with a pipe, of which *ours is the end that stays here; the caller closes it, also on failure. */
static enum bk_code
start(struct store_command *c, char *const argv[], int *ours, struct bk_err *err)
{
    int ends[2];
    int theirs, rc;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return bk_fail_errno(err, errno, "%s: cannot make a pipe for it", c->name);
    *ours = ends[c->consumer];
    theirs = ends[!c->consumer];
    rc = spawn(argv, theirs, c->consumer ? STDIN_FILENO : STDOUT_FILENO, &c->pid);
    /* from here on only the child holds its end, so that we see it go */
    (void)close(theirs);
    if (rc != 0) {
        c->pid = -1;
        return command_failed(c, rc, "cannot start", err);
    }
    c->pidfd = pidfd_open(c->pid, 0);
    return BK_OK;
}

enum bk_code
store_command_produce(char *const argv[], const struct bk_cancel *cancel, struct store_command **out,
                      struct store_source **source, struct bk_err *err)
{
    struct store_command *c = NULL;
    enum bk_code rc;
    int fd = -1;

    if ((rc = command_new(argv, cancel, 0, &c, err)) != BK_OK)
        return rc;
    if ((rc = start(c, argv, &fd, err)) != BK_OK)
        goto done;
    rc = store_source_from_fd(fd, c->name, cancel, source, err);
    fd = -1;
    if (rc != BK_OK)
        goto done;
    *out = c;
    c = NULL;
done:
    store_command_kill(c);
    store_fd_close(&fd);
    return rc;
}

/* A sink over a duplicate, so that the pipe is still open when a failure has to kill the command first. */
static enum bk_code
consumer_sink(const struct store_command *c, int fd, struct store_sink **out, struct bk_err *err)
{
    int copy;

    /* this description is ours alone: nobody else is surprised by it not blocking */
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || (copy = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0)
        return bk_fail_errno(err, errno, "%s: cannot prepare its pipe", c->name);
    return store_sink_from_fd(copy, c->name, c->stop.cancel, out, err);
}

enum bk_code
store_command_consume(char *const argv[], const struct bk_cancel *cancel, struct store_command **out,
                      struct store_sink **sink, struct bk_err *err)
{
    struct store_command *c = NULL;
    enum bk_code rc;
    int fd = -1;

    if ((rc = command_new(argv, cancel, 1, &c, err)) != BK_OK)
        return rc;
    if ((rc = start(c, argv, &fd, err)) != BK_OK)
        goto done;
    if ((rc = consumer_sink(c, fd, sink, err)) != BK_OK)
        goto done;
    *out = c;
    c = NULL;
done:
    store_command_kill(c);
    store_fd_close(&fd);
    return rc;
}

static int
reap(pid_t pid, int *status, int flags)
{
    pid_t got;

    while ((got = waitpid(pid, status, flags)) < 0 && errno == EINTR)
        ;
    return (int)got;
}

static enum bk_code
wait_for_end(const struct store_command *c, int *status, struct bk_err *err)
{
    for (;;) {
        int got = reap(c->pid, status, WNOHANG);
        enum bk_code rc;

        if (got > 0)
            return BK_OK;
        /* SIGCHLD was ignored when we were started, so the kernel threw the status away: never taken for success */
        if (got < 0)
            return command_failed(c, errno, "its exit status is lost", err);
        rc = c->pidfd >= 0 ? store_fd_wait(c->pidfd, POLLIN, &c->stop, c->name, err)
                           : store_stop_pause(&c->stop, WAIT_RETRY_MS, c->name, err);
        if (rc != BK_OK)
            return rc;
    }
}

static enum bk_code
judge(const struct store_command *c, int status, struct bk_err *err)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return BK_OK;
    if (WIFEXITED(status))
        return bk_fail(err, BK_E_COMMAND, "%s: exited with status %d", c->name, WEXITSTATUS(status));
    const char *text = sigdescr_np(WTERMSIG(status));

    return bk_fail(err, BK_E_COMMAND, "%s: killed by signal %d (%s)", c->name, WTERMSIG(status),
                   text == NULL ? "unknown" : text);
}

enum bk_code
store_command_finish(struct store_command *c, struct bk_err *err)
{
    int status = 0;
    enum bk_code rc = wait_for_end(c, &status, err);

    if (rc == BK_E_CANCELLED) {
        store_command_kill(c);
        return rc;
    }
    if (rc == BK_OK)
        rc = judge(c, status, err);
    command_free(c);
    return rc;
}

void
store_command_kill(struct store_command *c)
{
    int status;

    if (c == NULL)
        return;
    /*
     * A command that this user may not kill (sudo) can only end by itself. A consumer is waited for all the same: as
     * long as the pipe stays open, it cannot take what it got for whole. A producer is not: it ends when its reader
     * closes, which comes after this.
     */
    if (c->pid > 0 && (store_family_kill(c->pid) == 0 || c->consumer))
        (void)reap(c->pid, &status, 0);
    command_free(c);
}

const char *
store_command_name(const struct store_command *c)
{
    return c->name;
}
