/* The guard's own side; guard.c is that of the process that started it. One thread, no secrets, all signals blocked. */
#include "store/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "store/family.h"

/* The shell's own for a command that cannot be started; nobody sees it, the errno is what is reported. */
#define STATUS_NOT_STARTED 127

/* Room for become_consumer and the path that it builds. */
#define CHILD_STACK ((size_t)64 * 1024)

/* What the consumer is to become, and where it writes the errno if it cannot. */
struct launch {
    char *const *argv;
    int failed;
};

struct consumer {
    pid_t pid;
    int pidfd; /* -1 where the kernel has none (before Linux 5.2) */
};

int
store_guard_called(char *const argv[])
{
    return argv[0] != NULL && strcmp(argv[0], STORE_GUARD_NAME) == 0;
}

/* 0 when the process that started us is gone. */
static int
report(int kind, int value)
{
    struct store_guard_report r = {.kind = kind, .value = value};

    return send(STORE_GUARD_CONTROL, &r, sizeof r, MSG_NOSIGNAL) == (ssize_t)sizeof r;
}

/* execvp(3), but what is no program is not given to a shell: docs/CLI.md. Returns an errno. */
static int
exec_command(char *const argv[])
{
    const char *dir = getenv("PATH");
    char path[PATH_MAX];
    int denied = 0;

    if (strchr(argv[0], '/') != NULL) {
        (void)execv(argv[0], argv);
        return errno;
    }
    for (dir = dir == NULL ? "/bin:/usr/bin" : dir;; dir++) {
        size_t len = strcspn(dir, ":");
        int n = snprintf(path, sizeof path, "%.*s%s%s", (int)len, dir, len == 0 ? "" : "/", argv[0]);

        if (n > 0 && (size_t)n < sizeof path) {
            (void)execv(path, argv);
            /* one that may not be read does not hide one that may be, further on */
            if (errno == EACCES)
                denied = 1;
            else if (errno != ENOENT && errno != ENOTDIR)
                return errno;
        }
        dir += len;
        if (*dir == '\0')
            return denied ? EACCES : ENOENT;
    }
}

static int
become_consumer(void *arg)
{
    const struct launch *l = arg;
    sigset_t none;
    int os_errno;

    /* without anybody to hear it, nobody will write to the pipe either */
    if (!report(STORE_GUARD_CONSUMER, (int)getpid()))
        _exit(STATUS_NOT_STARTED);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    os_errno = exec_command(l->argv);
    if (write(l->failed, &os_errno, sizeof os_errno) < 0) {
        /* then the guard is gone, and with it the report of a success */
    }
    _exit(STATUS_NOT_STARTED);
}

/* 0 or an errno, after the new process has become the command or failed to. */
static int
launch(char *const argv[], struct consumer *c)
{
    _Alignas(16) char stack[CHILD_STACK];
    struct launch l = {.argv = argv};
    int failed[2];
    int os_errno = 0;

    if (pipe2(failed, O_CLOEXEC) != 0)
        return errno;
    l.failed = failed[1];
    /* as fork(2), with memory of its own: the stack is only where its copy begins */
    c->pid = clone(become_consumer, stack + sizeof stack, CLONE_PARENT | CLONE_PIDFD | SIGCHLD, &l, &c->pidfd);
    if (c->pid < 0)
        os_errno = errno;
    (void)close(failed[1]);
    if (c->pid > 0 && read(failed[0], &os_errno, sizeof os_errno) != (ssize_t)sizeof os_errno)
        os_errno = 0; /* closed by exec(2) */
    (void)close(failed[0]);
    return os_errno;
}

/* Away from the terminal's and the shell's process groups, whose signals are meant for the others; and nothing held
 * open but the socket and the pipe, above all not the consumer's end of it. */
static void
settle(void)
{
    (void)prctl(PR_SET_NAME, STORE_GUARD_NAME);
    (void)setsid();
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        (void)close(fd);
}

/* Until the process that started us is gone; its end of the socket is in no other process. */
static void
watch(void)
{
    char nothing;

    while (recv(STORE_GUARD_CONTROL, &nothing, 1, 0) < 0 && errno == EINTR)
        ;
}

/* Until nobody reads from the pipe: poll(2), POLLERR on a writing end. */
static void
outlast_readers(void)
{
    struct pollfd p = {.fd = STORE_GUARD_HELD};

    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
}

int
store_guard_main(char *const argv[])
{
    struct consumer c = {.pid = -1, .pidfd = -1};
    int os_errno;

    /* fails if somebody has called us by this name without being bk */
    if (argv[1] == NULL || fcntl(STORE_GUARD_CONTROL, F_SETFD, FD_CLOEXEC) != 0 ||
        fcntl(STORE_GUARD_HELD, F_SETFD, FD_CLOEXEC) != 0)
        return STATUS_NOT_STARTED;
    os_errno = launch(argv + 1, &c);
    settle();
    if (report(STORE_GUARD_RESULT, os_errno) && os_errno == 0)
        watch();
    if (os_errno == 0 && store_family_kill(c.pid, c.pidfd) != 0)
        outlast_readers();
    return 0;
}
