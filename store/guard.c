/* The side of the process that restores; guard_main.c is the guard's own. */
#include "store/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/spawn.h"

/* Our own program, also if its file was replaced or removed since. */
#define OURSELVES "/proc/self/exe"

/* The guard's arguments: its name, then the command's. NULL without memory; the caller frees the array alone. */
static char **
guard_argv(char *const argv[])
{
    static char name[] = STORE_GUARD_NAME;
    size_t count = 0;
    char **all;

    while (argv[count] != NULL)
        count++;
    if ((all = calloc(count + 2, sizeof *all)) == NULL)
        return NULL;
    all[0] = name;
    memcpy(all + 1, argv, count * sizeof *all);
    return all;
}

/* All signals are blocked from the first instant on: what ends us from the terminal must not end the guard. 0 or an
 * errno. */
static int
spawn_guard(struct store_guard *g, char *const argv[], int input, int held, int control)
{
    struct bk_spawn_fd fds[] = {
        {-1, STDIN_FILENO},
        {-1, STORE_GUARD_CONTROL},
        {-1, STORE_GUARD_HELD},
    };
    const int ours[] = {input, control, held};
    sigset_t all;
    int rc = 0;

    (void)sigfillset(&all);
    /* moved out of the way of the numbers that they will have */
    for (size_t i = 0; i < 3 && rc == 0; i++)
        if ((fds[i].ours = fcntl(ours[i], F_DUPFD_CLOEXEC, STORE_GUARD_HELD + 1)) < 0)
            rc = errno;
    if (rc == 0)
        rc = bk_spawn(OURSELVES, argv, fds, 3, &all, &g->pid);
    if (rc != 0)
        g->pid = -1;
    for (size_t i = 0; i < 3; i++)
        store_fd_close(&fds[i].ours);
    return rc;
}

/* 1 for a report, 0 when none will come any more. */
static int
next_report(const struct store_guard *g, struct store_guard_report *out)
{
    ssize_t n;

    while ((n = recv(g->control, out, sizeof *out, 0)) < 0 && errno == EINTR)
        ;
    return n == (ssize_t)sizeof *out;
}

static enum bk_code
await_result(const struct store_guard *g, const struct store_stop *stop, const char *name, pid_t *consumer,
             struct bk_err *err)
{
    struct store_guard_report r;
    enum bk_code rc;

    for (;;) {
        if ((rc = store_fd_wait(g->control, POLLIN, stop, name, err)) != BK_OK)
            return rc;
        if (!next_report(g, &r))
            return bk_fail(err, BK_E_COMMAND, "%s: not started, since the guard of its input ended at once", name);
        if (r.kind == STORE_GUARD_RESULT)
            return r.value == 0 ? BK_OK : store_command_failed(name, r.value, "cannot start", err);
        *consumer = r.value;
    }
}

/* The consumer says who it is before it becomes the command, so that after its end of the socket and the guard's are
 * gone nobody can be there that we do not know. */
static void
abandon(struct store_guard *g, pid_t *consumer)
{
    struct store_guard_report r;

    if (g->pid > 0) {
        (void)kill(g->pid, SIGKILL);
        while (next_report(g, &r))
            if (r.kind == STORE_GUARD_CONSUMER)
                *consumer = r.value;
    }
    store_guard_end(g);
}

enum bk_code
store_guard_start(struct store_guard *g, char *const argv[], int input, int held, const struct store_stop *stop,
                  const char *name, pid_t *consumer, struct bk_err *err)
{
    int ends[2] = {-1, -1};
    char **all = NULL;
    enum bk_code rc;
    int os_errno;

    *g = STORE_GUARD_NONE;
    *consumer = 0;
    if (store_guard_called((char *const[]){program_invocation_name, NULL}))
        return bk_fail(err, BK_E_INTERNAL, "%s: not started, since this program does not know how to be a guard", name);
    if ((all = guard_argv(argv)) == NULL)
        return bk_fail_nomem(err);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        rc = store_command_failed(name, errno, "not started, since the guard of its input has no socket", err);
        goto done;
    }
    g->control = ends[0];
    os_errno = spawn_guard(g, all, input, held, ends[1]);
    store_fd_close(&ends[1]); /* from here on only they hold it, so that we see them go */
    if (os_errno != 0) {
        rc = store_command_failed(name, os_errno, "not started, since the guard of its input cannot be", err);
        bk_err_hint(err, "the guard is this program itself, found through " OURSELVES);
        goto done;
    }
    rc = await_result(g, stop, name, consumer, err);
done:
    store_fd_close(&ends[1]);
    if (rc != BK_OK)
        abandon(g, consumer);
    free(all);
    return rc;
}

void
store_guard_end(struct store_guard *g)
{
    int status;

    if (g->pid > 0) {
        /* not asked but killed: that cannot fail, also if somebody has stopped it, and it has nothing to finish */
        (void)kill(g->pid, SIGKILL);
        (void)bk_reap(g->pid, &status, 0);
    }
    g->pid = -1;
    store_fd_close(&g->control);
}
