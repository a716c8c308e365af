/* Start-up and end of a program. */
#include "cmd/common/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef BK_PROJECT_VERSION
#error "BK_PROJECT_VERSION comes from CMakeLists.txt"
#endif

/* The one global state: a signal handler can reach nothing else. */
static volatile sig_atomic_t signal_seen;
static volatile sig_atomic_t cancel_fd = -1;

int
cmd_signal_seen(void)
{
    return (int)signal_seen;
}

static void
on_signal(int number)
{
    static const uint64_t one = 1;
    int saved = errno;

    signal_seen = number;
    if (write((int)cancel_fd, &one, sizeof one) < 0) {
        /* an eventfd that is set already cannot take more, and then nothing is lost */
    }
    errno = saved;
}

static enum bk_code
catch_signals(struct cmd *c, struct bk_err *err)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESTART | SA_RESETHAND)};
    struct sigaction old;

    c->cancel.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->cancel.fd < 0)
        return bk_fail_errno(err, errno, "eventfd");
    cancel_fd = c->cancel.fd;
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        /* what nohup or a shell ignores stays ignored; a second signal kills at once */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(numbers[i], &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* a closed pipe and a dead remote token are errors with a message */
    (void)signal(SIGCHLD, SIG_DFL); /* ignored, as some parents leave it, a producer's exit status would be lost */
    (void)signal(SIGXFSZ, SIG_IGN); /* and so is a file that may grow no further */
    return BK_OK;
}

/* A file that we open must never become somebody's standard error. What is written to a closed standard output must
 * fail and not vanish, as it would in a /dev/null that can be written. */
static enum bk_code
open_standard_descriptors(struct bk_err *err)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return bk_fail_errno(err, errno, "standard descriptor %d", fd);
    return BK_OK;
}

static void
on_warn(void *ctx, const char *message)
{
    cmd_warn(ctx, "%s", message);
}

static enum bk_code
open_json(struct cmd *c, struct bk_err *err)
{
    if (!c->common.json)
        return BK_OK;
    c->json = stdout;
    if (c->common.json_path == NULL)
        return BK_OK;
    if ((c->json = fopen(c->common.json_path, "we")) == NULL)
        return bk_fail_errno(err, errno, "--json: %s", c->common.json_path);
    c->json_owned = 1;
    return BK_OK;
}

static enum bk_code
protect_secrets(struct cmd *c, struct bk_err *err)
{
    int locked = 0;
    enum bk_code rc;

#ifndef BK_KEEP_DUMPABLE
    if (prctl(PR_SET_DUMPABLE, 0) != 0)
        return bk_fail_errno(err, errno, "this process cannot be kept from leaving core dumps");
#endif
    if ((rc = bk_secret_init(&locked, err)) == BK_OK && !locked)
        cmd_warn(c,
                 "secrets are wiped but could be swapped out: raise the limit of locked memory (ulimit -l) to %d KiB",
                 BK_SECRET_ARENA / 1024);
    return rc;
}

enum bk_code
cmd_start(struct cmd *c, const char *name, const struct cmd_common *common, const char *help, int *done,
          struct bk_err *err)
{
    enum bk_code rc;

    *c = (struct cmd){.name = name, .common = *common, .cancel = {.fd = -1}};
    (void)pthread_mutex_init(&c->lines, NULL);
    c->log = (struct bk_log){.ctx = c, .warn = on_warn, .progress = cmd_on_progress};
    *done = common->help || common->version;
    if (common->help)
        (void)fputs(help, stdout);
    else if (common->version)
        (void)printf("%s %s\n", name, BK_PROJECT_VERSION);
    if (*done)
        return fflush(stdout) == 0 ? BK_OK : bk_fail_errno(err, errno, "standard output");
    if ((rc = open_standard_descriptors(err)) != BK_OK)
        return rc;
    if ((rc = protect_secrets(c, err)) != BK_OK)
        return rc;
    if ((rc = catch_signals(c, err)) != BK_OK)
        return rc;
    return open_json(c, err);
}

enum bk_code
cmd_p11(struct cmd *c, struct p11 **out, struct bk_err *err)
{
    const struct p11_options options = {.pin = cmd_pin,
                                        .pin_ctx = c,
                                        .log = &c->log,
                                        .raw_rsa = c->common.raw_rsa,
                                        .timeout_s = c->common.token_timeout,
                                        .cancel = &c->cancel};
    enum bk_code rc = c->p11 == NULL ? p11_open(&options, &c->p11, err) : BK_OK;

    *out = c->p11;
    return rc;
}

void
cmd_end(struct cmd *c)
{
    if (c->name == NULL)
        return;
    cmd_progress_end(c);
    p11_close(c->p11);
    c->p11 = NULL;
    if (c->json_owned)
        (void)fclose(c->json);
    c->json = NULL;
    (void)pthread_mutex_destroy(&c->lines);
}
