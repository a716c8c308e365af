/* The guard of a consumer: when the process that restores dies, however that comes, the consumer dies with it and never
 * takes what it got for all of it; and in all other cases nobody notices that there was a guard.
 *
 * This process adopts what its children leave behind (PR_SET_CHILD_SUBREAPER), so that "everybody is gone, and nobody
 * is left as a zombie" is something to be waited for: waitpid(2) has no child any more. What is not there by then will
 * never be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/command.h"
#include "store/guard.h"
#include "tests/support/store_fixture.h"

#define ROUNDS  50
#define WAIT_MS 30000

#define COMMITS     "touch \"$1/started\"; cat >/dev/null; touch \"$1/committed\""
#define MUCH        ((size_t)3 * FX_MIB)
#define FEW         ((size_t)100)
#define PLAYER_FAIL 9

struct script {
    const char *argv[6];
};

static char *const *
script(struct script *s, const char *text)
{
    *s = (struct script){.argv = {"sh", "-c", text, "script", fx_folder, NULL}};
    return (char *const *)(const void *)s->argv;
}

static int
there(const char *name)
{
    return access(fx_at(name), F_OK) == 0;
}

static void
wait_for(const char *name)
{
    uint64_t end = fx_now_ms() + WAIT_MS;

    while (!there(name) && fx_now_ms() < end)
        fx_sleep_ms(2);
    assert_true(there(name));
}

/* Waits until this process has no child and no orphan to look after; 0 if that takes too long. */
static int
nobody_left(void)
{
    uint64_t end = fx_now_ms() + WAIT_MS;
    pid_t got;

    for (;;) {
        while ((got = waitpid(-1, NULL, WNOHANG)) > 0)
            ;
        if (got < 0)
            return errno == ECHILD;
        if (fx_now_ms() > end)
            return 0;
        fx_sleep_ms(1);
    }
}

/* The text of /proc/PID/NAME; "" if it cannot be read. */
static const char *
proc_text(pid_t pid, const char *name)
{
    static char text[4096];
    char path[64];
    ssize_t n = -1;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0) {
        n = read(fd, text, sizeof text - 1);
        (void)close(fd);
    }
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

/* The one guard that parent has, 0 if there is none. */
static pid_t
guard_of(pid_t parent)
{
    DIR *proc = opendir("/proc");
    const struct dirent *d;
    pid_t found = 0;

    assert_non_null(proc);
    while ((d = readdir(proc)) != NULL) {
        pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);
        const char *stat = pid > 0 ? strchr(proc_text(pid, "stat"), '(') : NULL;
        int of;

        if (stat == NULL || sscanf(stat, "(" STORE_GUARD_NAME ") %*c %d", &of) != 1 || of != parent)
            continue;
        assert_int_equal(found, 0);
        found = pid;
    }
    (void)closedir(proc);
    return found;
}

static size_t
open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t n = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n - 3;
}

/* What the child that plays bk does besides restoring. */
struct play {
    const char *text; /* of the consumer */
    size_t bytes;
    int (*before)(void);
    void (*after)(void);
};

static int
write_some(struct store_sink *sink, size_t bytes, struct bk_err *err)
{
    uint8_t *data = calloc(1, bytes);
    enum bk_code rc = data == NULL ? BK_E_NO_ROOM : store_sink_write(sink, data, bytes, err);

    free(data);
    return rc == BK_OK;
}

/* A restore that came half way: the consumer runs, something was written, and then it goes no further. */
static void
play_bk(const struct play *p)
{
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;

    if (p->before != NULL && !p->before())
        _exit(FX_SKIP);
    if (store_command_consume(script(&s, p->text), NULL, &c, &sink, &err) != BK_OK || !write_some(sink, p->bytes, &err))
        _exit(PLAYER_FAIL);
    fx_put(fx_at("written"), "");
    for (int i = 0; p->after != NULL && i < WAIT_MS && !there("started"); i++)
        fx_sleep_ms(1);
    if (p->after != NULL)
        p->after();
    for (;;)
        (void)pause();
}

static pid_t
start_play(const struct play *p)
{
    pid_t pid = fork();

    if (pid == 0)
        play_bk(p);
    assert_true(pid > 0);
    return pid;
}

/* As start_play, and half way has been reached. */
static pid_t
half_way(const struct play *p)
{
    pid_t pid = start_play(p);

    wait_for("written");
    wait_for("started");
    return pid;
}

static void
forget(void)
{
    (void)unlink(fx_at("started"));
    (void)unlink(fx_at("written"));
    (void)unlink(fx_at("committed"));
}

/* All are dead, and the consumer has seen no end of its input. */
static void
assert_died_unfinished(void)
{
    assert_true(nobody_left());
    assert_false(there("committed"));
    forget();
}

static const char *const consumers[] = {
    COMMITS,
    /* what it has started, reading from it or beside it */
    "touch \"$1/started\"; cat | (cat >/dev/null; touch \"$1/committed\")",
    "exec 3<&0; (cat >/dev/null; touch \"$1/committed\") <&3 & touch \"$1/started\"; wait",
    /* that is not impressed by signals */
    "trap '' TERM INT HUP; " COMMITS,
};

static void
test_killed_half_way(void **state)
{
    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        const struct play p = {.text = consumers[i % 4], .bytes = i % 8 < 4 ? FEW : MUCH};
        pid_t pid = half_way(&p);

        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_died_unfinished();
    }
}

/* The moments are spread over a whole start, from before there is a guard to after the first bytes. */
static void
test_killed_at_any_moment(void **state)
{
    const struct play p = {.text = "cat >/dev/null; touch \"$1/committed\"", .bytes = FEW};
    uint64_t began = fx_now_ms();
    long whole;
    pid_t pid = start_play(&p);

    (void)state;
    wait_for("written");
    whole = (long)(fx_now_ms() - began) + 5;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_died_unfinished();
    for (long i = 0; i < ROUNDS; i++) {
        long us = i * whole * 1000 / ROUNDS;

        pid = start_play(&p);
        (void)nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_died_unfinished();
    }
}

static void
end_well(void)
{
    _exit(0);
}

static void
crash(void)
{
    (void)signal(SIGSEGV, SIG_DFL); /* a sanitizer's handler would only report it */
    (void)raise(SIGSEGV);
}

static void
quit(void)
{
    (void)raise(SIGQUIT);
}

static void
test_other_ways_to_die(void **state)
{
    static void (*const ways[])(void) = {end_well, crash, quit, abort};

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        const struct play p = {.text = COMMITS, .bytes = FEW, .after = ways[i]};

        (void)half_way(&p);
        assert_died_unfinished();
    }
}

/* The counterpart: it is the guard that does it. */
static void
test_without_the_guard_it_commits(void **state)
{
    const struct play p = {.text = COMMITS, .bytes = FEW};
    pid_t pid = half_way(&p);
    pid_t guard = guard_of(pid);

    (void)state;
    assert_true(guard > 0);
    assert_int_equal(kill(guard, SIGKILL), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_true(nobody_left());
    assert_true(there("committed"));
}

static int
own_process_group(void)
{
    return setpgid(0, 0) == 0;
}

static void
test_whole_process_group_is_killed(void **state)
{
    const struct play p = {
        /* the consumer alone is out of reach of that signal */
        .text = "exec setsid sh -c 'touch \"$0/started\"; cat >/dev/null; touch \"$0/committed\"' \"$1\"",
        .bytes = FEW,
        .before = own_process_group,
    };
    pid_t pid = half_way(&p);

    (void)state;
    assert_int_equal(kill(-pid, SIGKILL), 0);
    assert_died_unfinished();
}

static int
no_signals_to_others(void)
{
    return fx_deny(SYS_pidfd_send_signal, EPERM);
}

static void
test_consumer_that_may_not_be_killed(void **state)
{
    const struct play p = {
        /* one process, with no other that reads */
        .text = "echo $$ >\"$1/id\"; touch \"$1/started\"; while read -r x; do :; done; touch \"$1/committed\"",
        .bytes = FEW,
        .before = no_signals_to_others,
    };
    pid_t pid = half_way(&p);
    pid_t guard = guard_of(pid);
    int consumer = 0;
    FILE *f = fopen(fx_at("id"), "r");

    (void)state;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &consumer), 1);
    (void)fclose(f);
    assert_true(guard > 0 && consumer > 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    fx_sleep_ms(200);
    /* neither of them has ended, since the guard keeps the input open */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), 0);
    assert_int_equal(guard_of(getpid()), guard);
    assert_false(there("committed"));
    assert_int_equal(kill(consumer, SIGKILL), 0);
    assert_died_unfinished();
}

static void
consume(const char *text, struct store_command **c, struct store_sink **sink)
{
    struct bk_err err = {0};
    struct script s;

    assert_int_equal(store_command_consume(script(&s, text), NULL, c, sink, &err), BK_OK);
}

static void
assert_finishes(struct store_command *c)
{
    struct bk_err err = {0};

    assert_int_equal(store_command_finish(c, &err), BK_OK);
    /* neither a guard nor its remains */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void
test_normal_end(void **state)
{
    size_t descriptors = open_descriptors();
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};

    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        consume("cat >\"$1/got\"; touch \"$1/committed\"", &c, &sink);
        fx_write_text(sink, "all of it");
        assert_int_equal(store_sink_publish(sink, &err), BK_OK);
        assert_finishes(c);
        fx_assert_holds(fx_at("got"), "all of it");
        assert_true(there("committed"));
        forget();
        assert_int_equal(open_descriptors(), descriptors);
    }
}

static void
test_kill(void **state)
{
    size_t descriptors = open_descriptors();
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;

    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        consume(consumers[i % 4], &c, &sink);
        fx_write_text(sink, "some");
        wait_for("started");
        store_command_kill(c);
        store_sink_discard(sink);
        assert_died_unfinished();
        assert_int_equal(open_descriptors(), descriptors);
    }
}

/* One that is in the middle of starting others: none of them may be overlooked. */
static void
test_kill_while_it_forks(void **state)
{
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;

    (void)state;
    for (int i = 0; i < ROUNDS / 2; i++) {
        consume(
            "exec 3<&0; touch \"$1/started\"; n=0; while [ $n -lt 60 ]; do (read -r x <&3; touch \"$1/committed\") & "
            "n=$((n + 1)); done; wait",
            &c, &sink);
        wait_for("started");
        store_command_kill(c);
        store_sink_discard(sink);
        assert_died_unfinished();
    }
}

static void
test_input_ends_with_finish_alone(void **state)
{
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};

    (void)state;
    consume(COMMITS, &c, &sink);
    wait_for("started");
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    fx_sleep_ms(100);
    assert_false(there("committed"));
    assert_finishes(c);
    assert_true(there("committed"));
    forget();
    /* so that there is a way back also after the sink is closed */
    consume(COMMITS, &c, &sink);
    wait_for("started");
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    store_command_kill(c);
    assert_died_unfinished();
}

static void
signal_guard(int number)
{
    pid_t guard = guard_of(getpid());

    assert_true(guard > 0);
    assert_int_equal(kill(guard, number), 0);
}

/* Somebody kills or stops the guard alone: the restore goes on, and a failed one still kills its consumer. */
static void
test_guard_is_killed_or_stopped(void **state)
{
    static const int signals[] = {SIGKILL, SIGSTOP};
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        consume(COMMITS, &c, &sink);
        wait_for("started");
        signal_guard(signals[i]);
        assert_true(write_some(sink, MUCH, &err));
        assert_int_equal(store_sink_publish(sink, &err), BK_OK);
        assert_finishes(c);
        assert_true(there("committed"));
        forget();
        consume(COMMITS, &c, &sink);
        wait_for("started");
        signal_guard(signals[i]);
        store_command_kill(c);
        store_sink_discard(sink);
        assert_died_unfinished();
    }
}

static void
test_guard_survives_signals(void **state)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE, SIGUSR1, SIGALRM};
    const struct play p = {.text = COMMITS, .bytes = FEW};
    pid_t pid = half_way(&p);
    pid_t guard = guard_of(pid);

    (void)state;
    assert_true(guard > 0);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        assert_int_equal(kill(guard, signals[i]), 0);
    fx_sleep_ms(50);
    assert_int_equal(guard_of(pid), guard);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_died_unfinished();
}

static int
descriptor_kind(pid_t pid, int fd, char *text, size_t room)
{
    char path[64];
    ssize_t n;

    (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    n = readlink(path, text, room - 1);
    text[n < 0 ? 0 : n] = '\0';
    return n > 0;
}

/* The three that it needs, and no other. */
static void
assert_descriptors(pid_t pid)
{
    char text[128];
    int fds = 0, pidfds = 0;

    for (int fd = 0; fd < 100; fd++)
        if (descriptor_kind(pid, fd, text, sizeof text)) {
            fds++;
            pidfds += strcmp(text, "anon_inode:[pidfd]") == 0;
        }
    assert_int_equal(fds, 3);
    assert_int_equal(pidfds, 1);
    assert_true(descriptor_kind(pid, STORE_GUARD_CONTROL, text, sizeof text));
    assert_int_equal(strncmp(text, "socket:", 7), 0);
    assert_true(descriptor_kind(pid, STORE_GUARD_HELD, text, sizeof text));
    assert_int_equal(strncmp(text, "pipe:", 5), 0);
}

static void
test_what_the_guard_has(void **state)
{
    int leaky = open("/dev/null", O_RDONLY); /* as a library would, without O_CLOEXEC */
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    pid_t guard;

    (void)state;
    assert_true(leaky > 2);
    consume(COMMITS, &c, &sink);
    guard = guard_of(getpid());
    assert_true(guard > 0);
    assert_descriptors(guard);
    assert_int_equal(getsid(guard), guard);
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    assert_finishes(c);
    (void)close(leaky);
}

/* What the consumer is started with does not show that somebody else did it. */
static void
test_what_the_consumer_has(void **state)
{
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    sigset_t all, old;
    unsigned long blocked, ignored;
    char want[128];
    int parent;
    FILE *f;

    (void)state;
    assert_int_equal(sigfillset(&all), 0);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &all, &old), 0);
    assert_ptr_not_equal(signal(SIGHUP, SIG_IGN), SIG_ERR);
    consume("exec sed -n 's/^\\(PPid\\|SigBlk\\|SigIgn\\):[[:space:]]*//p' /proc/self/status >\"$1/got\"", &c, &sink);
    assert_ptr_not_equal(signal(SIGHUP, SIG_DFL), SIG_ERR);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    assert_finishes(c);
    f = fopen(fx_at("got"), "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d %lx %lx", &parent, &blocked, &ignored), 3);
    (void)fclose(f);
    assert_int_equal(parent, getpid());
    assert_int_equal(blocked, 0);
    /* what was ignored for us (nohup), and not SIGPIPE and SIGXFSZ; the C library has some above for itself */
    assert_int_equal(ignored & ((1UL << 31) - 1), 1UL << (SIGHUP - 1));
    consume("exec cut -d' ' -f5,6 /proc/self/stat >\"$1/got\"", &c, &sink);
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    assert_finishes(c);
    (void)snprintf(want, sizeof want, "%d %d\n", (int)getpgrp(), (int)getsid(0));
    fx_assert_holds(fx_at("got"), want);
}

/* The command as it is found in PATH, or the reason why not. */
static void
assert_found(const char *name, int os_errno)
{
    char *const argv[] = {(char *)(uintptr_t)name, NULL};
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    enum bk_code rc = store_command_consume(argv, NULL, &c, &sink, &err);

    assert_int_equal(rc, os_errno == 0 ? BK_OK : BK_E_COMMAND);
    assert_int_equal(err.os_errno, os_errno);
    if (rc == BK_OK) {
        assert_int_equal(store_sink_publish(sink, &err), BK_OK);
        assert_finishes(c);
    }
    assert_true(nobody_left());
}

static void
test_command_is_looked_up(void **state)
{
    char path[PATH_MAX * 2];
    char *old = strdup(getenv("PATH"));

    (void)state;
    assert_non_null(old);
    fx_put(fx_at("mine"), "#!/bin/sh\ncat >/dev/null\n");
    fx_put(fx_at("plain"), "cat >/dev/null\n");
    fx_put(fx_at("unfit"), "#!/bin/sh\n");
    assert_int_equal(chmod(fx_at("mine"), 0755), 0);
    assert_int_equal(chmod(fx_at("plain"), 0755), 0);
    (void)snprintf(path, sizeof path, "/no/such/folder:/etc/passwd:%s:%s", fx_folder, old);
    assert_int_equal(setenv("PATH", path, 1), 0);
    assert_found("mine", 0);
    assert_found("true", 0);
    assert_found("unfit", EACCES);
    assert_found("no-such-command", ENOENT);
    assert_found(fx_at("mine"), 0);
    assert_found(fx_at("none"), ENOENT);
    assert_found("plain", ENOEXEC); /* no shell */
    assert_int_equal(unsetenv("PATH"), 0);
    assert_found("true", 0);
    assert_found("mine", ENOENT);
    assert_int_equal(setenv("PATH", old, 1), 0);
    free(old);
}

static void
test_stop_while_it_starts(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(1, EFD_CLOEXEC)};
    size_t descriptors = open_descriptors();
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;

    (void)state;
    for (int i = 0; i < ROUNDS / 2; i++) {
        assert_int_equal(store_command_consume(script(&s, COMMITS), &cancel, &c, &sink, &err), BK_E_CANCELLED);
        assert_null(c);
        assert_null(sink);
        assert_died_unfinished();
        assert_int_equal(open_descriptors(), descriptors);
    }
    (void)close(cancel.fd);
}

/* There is still a child to be waited for. */
#define REMAINS 4

/* In a process where the call fails: refused with that code and in these words, and nothing is left of the attempt. */
static int
refuses(enum bk_code code, int os_errno, const char *words)
{
    size_t descriptors = open_descriptors();
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;

    if (store_command_consume(script(&s, COMMITS), NULL, &c, &sink, &err) != code || err.code != code)
        return 1;
    if (c != NULL || sink != NULL || err.os_errno != os_errno || strstr(err.message, words) == NULL)
        return 2;
    if (open_descriptors() != descriptors)
        return 3;
    return waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD ? 0 : REMAINS;
}

static int
no_program_can_be_started(void)
{
    return fx_deny(SYS_execve, EACCES) ? refuses(BK_E_COMMAND, EACCES, "guard of its input cannot be") : FX_SKIP;
}

static int
no_socket(void)
{
    return fx_deny(SYS_socketpair, EMFILE) ? refuses(BK_E_COMMAND, EMFILE, "guard of its input has no socket")
                                           : FX_SKIP;
}

static int
no_process_for_the_consumer(void)
{
    return fx_deny(SYS_clone, EAGAIN) ? refuses(BK_E_COMMAND, EAGAIN, "sh: cannot start") : FX_SKIP;
}

/* Then nobody knows who the consumer would have been; he ends by himself, without having become the command. */
static int
guard_cannot_report(void)
{
    int rc = fx_deny(SYS_sendto, EPERM) ? refuses(BK_E_COMMAND, 0, "guard of its input ended at once") : FX_SKIP;

    return rc == REMAINS && nobody_left() ? 0 : rc;
}

/* Else it would start itself, and that again itself. */
static int
program_that_is_no_guard(void)
{
    static char name[] = STORE_GUARD_NAME;

    program_invocation_name = name;
    return refuses(BK_E_INTERNAL, 0, "does not know how to be a guard");
}

static void
test_guard_cannot_be_started(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(no_program_can_be_started), 0);
    assert_int_equal(fx_in_child(no_socket), 0);
    assert_int_equal(fx_in_child(no_process_for_the_consumer), 0);
    assert_int_equal(fx_in_child(guard_cannot_report), 0);
    assert_int_equal(fx_in_child(program_that_is_no_guard), 0);
    assert_died_unfinished();
    assert_false(there("started"));
}

static int
guard_by_hand(void)
{
    struct script s = {.argv = {STORE_GUARD_NAME, "touch", fx_at("committed"), NULL}};

    if (close_range(3, ~0U, 0) != 0)
        return FX_SKIP;
    (void)execv("/proc/self/exe", (char *const *)(const void *)s.argv);
    return 1;
}

static void
test_name_used_by_hand(void **state)
{
    int status = fx_in_child(guard_by_hand);

    (void)state;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 127);
    assert_died_unfinished();
}

static int
adopt_orphans(void **state)
{
    (void)state;
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, fx_make_folder, fx_remove_folder)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_killed_half_way),
        IN_FOLDER(test_killed_at_any_moment),
        IN_FOLDER(test_other_ways_to_die),
        IN_FOLDER(test_without_the_guard_it_commits),
        IN_FOLDER(test_whole_process_group_is_killed),
        IN_FOLDER(test_consumer_that_may_not_be_killed),
        IN_FOLDER(test_normal_end),
        IN_FOLDER(test_kill),
        IN_FOLDER(test_kill_while_it_forks),
        IN_FOLDER(test_input_ends_with_finish_alone),
        IN_FOLDER(test_guard_is_killed_or_stopped),
        IN_FOLDER(test_guard_survives_signals),
        IN_FOLDER(test_what_the_guard_has),
        IN_FOLDER(test_what_the_consumer_has),
        IN_FOLDER(test_command_is_looked_up),
        IN_FOLDER(test_stop_while_it_starts),
        IN_FOLDER(test_guard_cannot_be_started),
        IN_FOLDER(test_name_used_by_hand),
    };

    (void)argc;
    if (store_guard_called(argv))
        return store_guard_main(argv);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests_name("guard", tests, adopt_orphans, NULL);
}
