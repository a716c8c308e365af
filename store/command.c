#include "store/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/family.h"
#include "store/fd.h"
#include "store/guard.h"
#include "base/spawn.h"

/* How often the child is looked at where the kernel has no process file descriptors (before Linux 5.3). */
#define WAIT_RETRY_MS 50

struct store_command {
    pid_t pid;
    int pidfd; /* readable when the child has ended, or -1 */
    int consumer;
    struct store_guard guard; /* of a consumer */
    struct store_stop stop;
    char *name;
};

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
    c->guard = STORE_GUARD_NONE;
    c->stop = (struct store_stop){.cancel = cancel, .interrupt = -1};
    slash = strrchr(argv[0], '/');
    if ((c->name = strdup(slash == NULL ? argv[0] : slash + 1)) == NULL) {
        command_free(c);
        return bk_fail_nomem(err);
    }
    *out = c;
    return BK_OK;
}

/* From here on c knows its child, so that it can be killed. */
static void
started(struct store_command *c, pid_t pid)
{
    c->pid = pid;
    c->pidfd = pidfd_open(pid, 0);
}

/* Starts the command with its standard output as *ours; the caller closes that, also on failure. */
static enum bk_code
start_producer(struct store_command *c, char *const argv[], int *ours, struct bk_err *err)
{
    int ends[2], rc;
    sigset_t none;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return bk_fail_errno(err, errno, "%s: cannot make a pipe for it", c->name);
    *ours = ends[0];
    (void)sigemptyset(&none);
    rc = bk_spawn(NULL, argv, &(struct bk_spawn_fd){ends[1], STDOUT_FILENO}, 1, &none, &pid);
    /* from here on only the child holds its end, so that we see it go */
    (void)close(ends[1]);
    if (rc != 0)
        return store_command_failed(c->name, rc, "cannot start", err);
    started(c, pid);
    return BK_OK;
}

/* The same with its standard input, of which its guard holds a copy. */
static enum bk_code
start_consumer(struct store_command *c, char *const argv[], int *ours, struct bk_err *err)
{
    enum bk_code rc;
    int ends[2];
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return bk_fail_errno(err, errno, "%s: cannot make a pipe for it", c->name);
    *ours = ends[1];
    rc = store_guard_start(&c->guard, argv, ends[0], ends[1], &c->stop, c->name, &pid, err);
    (void)close(ends[0]);
    if (pid > 0)
        started(c, pid);
    return rc;
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
    if ((rc = start_producer(c, argv, &fd, err)) != BK_OK)
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

    /* nobody else writes to this description, so nobody is surprised by it not blocking */
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
    if ((rc = start_consumer(c, argv, &fd, err)) != BK_OK)
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

static enum bk_code
wait_for_end(const struct store_command *c, int *status, struct bk_err *err)
{
    for (;;) {
        int got = (int)bk_reap(c->pid, status, WNOHANG);
        enum bk_code rc;

        if (got > 0)
            return BK_OK;
        /* SIGCHLD was ignored when we were started, so the kernel threw the status away: never taken for success */
        if (got < 0)
            return store_command_failed(c->name, errno, "its exit status is lost", err);
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
    enum bk_code rc;

    store_guard_end(&c->guard); /* and with it a consumer's input */
    rc = wait_for_end(c, &status, err);
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
    if (c->pid > 0 && (store_family_kill(c->pid, -1) == 0 || c->consumer))
        (void)bk_reap(c->pid, &status, 0);
    store_guard_end(&c->guard); /* not before: it holds the pipe open as well */
    command_free(c);
}

const char *
store_command_name(const struct store_command *c)
{
    return c->name;
}
