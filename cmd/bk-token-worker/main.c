/*
 * bk-token-worker: started by the other programs, one for each PKCS#11 module, so that a vendor's code is in no process
 * that reads archives or moves plaintext. It speaks worker/wire.h over the descriptors that it inherits.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/secret.h"
#include "worker/serve.h"

#define NAME "bk-token-worker"

/* What it was not started with, it cannot go on without. */
static int
is_our_start(int argc, char **argv)
{
    int type = 0;
    socklen_t len = sizeof type;

    return (argc == 3 || (argc == 4 && strcmp(argv[3], WORKER_RAW_RSA) == 0)) && strtoul(argv[1], NULL, 10) > 0 &&
           getsockopt(WATCH_CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET;
}

static int
say_what_it_is(void)
{
    (void)fprintf(stderr, NAME ": error: this program is started by bk-wrap and the others, not by hand\n");
    return 2;
}

/* An interrupt typed at the terminal is the program's to hear: it lets calls end, and then closes the socket. */
static void
ignore_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXFSZ};
    sigset_t none;

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        (void)signal(numbers[i], SIG_IGN);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void
trace(const char *call, const char *result, uint64_t ns)
{
    (void)fprintf(stderr, NAME ": %s: %s, %llu us\n", call, result, (unsigned long long)(ns / 1000));
}

static int
fail(const struct bk_err *err)
{
    (void)fprintf(stderr, NAME ": error: %s\n", err->message);
    return 8;
}

int
main(int argc, char **argv)
{
    const struct rlimit no_core = {0, 0};
    struct serve_options options = {.control_fd = WATCH_CONTROL_FD};
    struct bk_err err = {0};
    int locked = 0;

    if (!is_our_start(argc, argv))
        return say_what_it_is();
    ignore_signals();
    (void)setrlimit(RLIMIT_CORE, &no_core);
#ifndef BK_KEEP_DUMPABLE
    (void)prctl(PR_SET_DUMPABLE, 0);
#endif
    /* p11-kit can be configured to show some modules to some programs only */
    program_invocation_short_name = argv[2];
    options.timeout_s = (unsigned)strtoul(argv[1], NULL, 10);
    options.raw_rsa = argc == 4;
    options.watch = mmap(NULL, sizeof(struct watch), PROT_READ | PROT_WRITE, MAP_SHARED, WATCH_MEMORY_FD, 0);
    if (options.watch == MAP_FAILED)
        return say_what_it_is();
    (void)close(WATCH_MEMORY_FD);
    if (getenv("BK_TOKEN_TRACE") != NULL)
        options.trace = trace;
    if (bk_secret_init(&locked, &err) != BK_OK)
        return fail(&err);
    if (serve(&options, &err) != BK_OK) {
        /* threads may be in the module still: nothing that runs at an ordinary exit may meet them */
        (void)fail(&err);
        _exit(8);
    }
#ifndef BK_KEEP_DUMPABLE
    /* logged out and finalized: what libraries would still do at an exit only makes the program wait */
    _exit(0);
#endif
    return 0;
}
