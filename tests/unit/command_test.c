/* Producers and consumers: statuses, signals, what the child inherits, and that a killed consumer sees no end of input.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store/command.h"
#include "store/guard.h"
#include "tests/support/store_fixture.h"

/* A script run by sh, with the test's folder as $1. */
struct script {
    const char *argv[6];
};

static char *const *
script(struct script *s, const char *text)
{
    *s = (struct script){.argv = {"sh", "-c", text, "script", fx_folder, NULL}};
    return (char *const *)(const void *)s->argv;
}

/* Runs a producer to its end; its output and result. */
static enum bk_code
produce(const char *text, char *out, size_t room, struct bk_err *err)
{
    struct store_command *c = NULL;
    struct store_source *source = NULL;
    struct script s;
    size_t got = 0;

    assert_int_equal(store_command_produce(script(&s, text), NULL, &c, &source, err), BK_OK);
    assert_int_equal(store_source_read(source, (uint8_t *)out, room - 1, &got, err), BK_OK);
    out[got] = '\0';
    store_source_close(source);
    return store_command_finish(c, err);
}

static void
test_producer(void **state)
{
    struct bk_err err = {0};
    char out[64];

    (void)state;
    assert_int_equal(produce("printf '%s' data", out, sizeof out, &err), BK_OK);
    assert_string_equal(out, "data");
    /* output alone is not success */
    assert_int_equal(produce("printf '%s' half; exit 3", out, sizeof out, &err), BK_E_COMMAND);
    assert_string_equal(out, "half");
    assert_string_equal(err.message, "sh: exited with status 3");
    assert_int_equal(produce("kill -9 $$", out, sizeof out, &err), BK_E_COMMAND);
    assert_string_equal(err.message, "sh: killed by signal 9 (Killed)");
    /* it closes its output long before it fails */
    assert_int_equal(produce("printf x; exec >&-; sleep 0.2; exit 1", out, sizeof out, &err), BK_E_COMMAND);
}

static void
test_cannot_start(void **state)
{
    char *const missing[] = {(char *)(uintptr_t) "/no/such/pg_dump", NULL};
    char *const empty[] = {NULL};
    struct store_command *c = NULL;
    struct store_source *source = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    char data[PATH_MAX];
    char *const data_file[] = {data, NULL};

    (void)state;
    assert_int_equal(store_command_produce(missing, NULL, &c, &source, &err), BK_E_COMMAND);
    assert_string_equal(err.message, "pg_dump: cannot start: No such file or directory");
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(err.code, BK_E_COMMAND);
    assert_int_equal(store_command_consume(missing, NULL, &c, &sink, &err), BK_E_COMMAND);
    assert_int_equal(store_command_consume(empty, NULL, &c, &sink, &err), BK_E_USAGE);
    fx_put(fx_at("data"), "x");
    (void)snprintf(data, sizeof data, "%s", fx_at("data"));
    assert_int_equal(store_command_produce(data_file, NULL, &c, &source, &err), BK_E_COMMAND);
    assert_int_equal(err.os_errno, EACCES);
    store_command_kill(NULL);
    assert_null(c);
    assert_null(source);
    assert_null(sink);
}

static void
test_consumer(void **state)
{
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;

    (void)state;
    assert_int_equal(store_command_consume(script(&s, "cat >\"$1/got\""), NULL, &c, &sink, &err), BK_OK);
    assert_string_equal(store_command_name(c), "sh");
    assert_false(store_sink_staged(sink));
    fx_write_text(sink, "all of it");
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    assert_int_equal(store_command_finish(c, &err), BK_OK);
    fx_assert_holds(fx_at("got"), "all of it");
    assert_int_equal(store_command_consume(script(&s, "cat >/dev/null; exit 4"), NULL, &c, &sink, &err), BK_OK);
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    assert_int_equal(store_command_finish(c, &err), BK_E_COMMAND);
    assert_string_equal(err.message, "sh: exited with status 4");
}

static void
test_consumer_that_ends_early(void **state)
{
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;
    uint8_t *big = calloc(1, 4 * FX_MIB);

    (void)state;
    assert_int_equal(store_command_consume(script(&s, "head -c 10 >/dev/null"), NULL, &c, &sink, &err), BK_OK);
    assert_int_equal(store_sink_write(sink, big, 4 * FX_MIB, &err), BK_E_IO);
    assert_int_equal(err.os_errno, EPIPE);
    store_sink_discard(sink);
    assert_int_equal(store_command_finish(c, &err), BK_OK);
    free(big);
}

/* Starts a consumer, waits for its sign of life, kills it, closes the pipe, and looks a while for what must not be. */
static void
assert_killed_unfinished(const char *text)
{
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;

    assert_int_equal(store_command_consume(script(&s, text), NULL, &c, &sink, &err), BK_OK);
    fx_write_text(sink, "some");
    for (int i = 0; i < 500 && access(fx_at("started"), F_OK) != 0; i++)
        fx_sleep_ms(10);
    assert_int_equal(access(fx_at("started"), F_OK), 0);
    fx_sleep_ms(50);
    store_command_kill(c);
    store_sink_discard(sink);
    fx_sleep_ms(150);
    assert_int_equal(access(fx_at("committed"), F_OK), -1);
    assert_int_equal(unlink(fx_at("started")), 0);
}

static void
test_kill_before_the_end_of_input(void **state)
{
    (void)state;
    assert_killed_unfinished("touch \"$1/started\"; cat >/dev/null; touch \"$1/committed\"");
    /* what it has started must not commit either: neither when its parent dies nor when what it reads from does */
    assert_killed_unfinished("exec 3<&0; (cat >/dev/null; touch \"$1/committed\") <&3 & touch \"$1/started\"; wait");
    assert_killed_unfinished("touch \"$1/started\"; cat | (cat >/dev/null; touch \"$1/committed\")");
    assert_killed_unfinished(
        "touch \"$1/started\"; cat | sh -c 'cat | (cat >/dev/null; touch \"$0/committed\")' \"$1\"");
    assert_killed_unfinished("trap '' TERM INT; touch \"$1/started\"; cat >/dev/null; touch \"$1/committed\"");
}

static void
test_end_of_input_is_seen_when_published(void **state)
{
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;

    /* the counterpart: without the kill the same script does commit */
    (void)state;
    assert_int_equal(
        store_command_consume(script(&s, "cat | (cat >/dev/null; touch \"$1/committed\")"), NULL, &c, &sink, &err),
        BK_OK);
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    assert_int_equal(store_command_finish(c, &err), BK_OK);
    assert_int_equal(access(fx_at("committed"), F_OK), 0);
}

static void
test_kill_producer(void **state)
{
    struct store_command *c = NULL;
    struct store_source *source = NULL;
    struct bk_err err = {0};
    struct script s;
    uint64_t began = fx_now_ms();
    uint8_t b;
    size_t got = 0;

    (void)state;
    assert_int_equal(store_command_produce(script(&s, "printf x; sleep 100; exit 0"), NULL, &c, &source, &err), BK_OK);
    assert_int_equal(store_source_read(source, &b, 1, &got, &err), BK_OK);
    store_command_kill(c);
    assert_int_equal(store_source_read(source, &b, 1, &got, &err), BK_OK);
    assert_int_equal(got, 0); /* the sleep is gone, too: nobody holds the pipe */
    store_source_close(source);
    assert_in_range(fx_now_ms() - began, 0, 30000);
}

static void
test_stop_while_waiting_for_the_end(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(0, EFD_CLOEXEC)};
    struct fx_later l = {.fd = cancel.fd};
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;

    (void)state;
    assert_int_equal(store_command_consume(script(&s, "cat >/dev/null; sleep 100"), &cancel, &c, &sink, &err), BK_OK);
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    fx_start(&l, fx_set_event);
    assert_int_equal(store_command_finish(c, &err), BK_E_CANCELLED);
    fx_join(&l);
    (void)close(cancel.fd);
}

static void
test_stop_while_the_consumer_does_not_read(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(0, EFD_CLOEXEC)};
    struct fx_later l = {.fd = cancel.fd};
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;
    uint8_t *big = calloc(1, 4 * FX_MIB);

    (void)state;
    assert_int_equal(store_command_consume(script(&s, "sleep 100"), &cancel, &c, &sink, &err), BK_OK);
    fx_start(&l, fx_set_event);
    assert_int_equal(store_sink_write(sink, big, 4 * FX_MIB, &err), BK_E_CANCELLED);
    fx_join(&l);
    store_command_kill(c);
    store_sink_discard(sink);
    (void)close(cancel.fd);
    free(big);
}

static void
test_no_descriptor_is_inherited(void **state)
{
    int leaky = open("/dev/null", O_RDONLY); /* as a library would, without O_CLOEXEC */
    struct store_command *c = NULL;
    struct store_sink *sink = NULL;
    struct bk_err err = {0};
    struct script s;
    char out[256];

    (void)state;
    assert_true(leaky > 2);
    /* ls opens the folder itself, as 3 */
    assert_int_equal(produce("exec ls /proc/self/fd", out, sizeof out, &err), BK_OK);
    assert_string_equal(out, "0\n1\n2\n3\n");
    assert_int_equal(store_command_consume(script(&s, "exec ls /proc/self/fd >\"$1/fds\""), NULL, &c, &sink, &err),
                     BK_OK);
    assert_int_equal(store_sink_publish(sink, &err), BK_OK);
    assert_int_equal(store_command_finish(c, &err), BK_OK);
    fx_assert_holds(fx_at("fds"), "0\n1\n2\n3\n");
    (void)close(leaky);
}

/* A line of /proc/self/status of a child, as a number. */
static unsigned long
child_signals(const char *line)
{
    struct bk_err err = {0};
    char text[128];
    char out[64];

    (void)snprintf(text, sizeof text, "exec sed -n 's/^%s:[[:space:]]*//p' /proc/self/status", line);
    assert_int_equal(produce(text, out, sizeof out, &err), BK_OK);
    return strtoul(out, NULL, 16);
}

static void
test_signals_of_the_child(void **state)
{
    unsigned long bit = 1UL << (SIGPIPE - 1) | 1UL << (SIGXFSZ - 1);
    sigset_t all, old;

    (void)state;
    assert_int_equal(sigfillset(&all), 0);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &all, &old), 0);
    assert_int_equal(child_signals("SigBlk"), 0);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
    assert_int_equal(child_signals("SigIgn") & bit, 0);
    /* what was ignored for us (nohup) stays ignored for it */
    assert_ptr_not_equal(signal(SIGHUP, SIG_IGN), SIG_ERR);
    assert_int_not_equal(child_signals("SigIgn") & 1UL << (SIGHUP - 1), 0);
    assert_ptr_not_equal(signal(SIGHUP, SIG_DFL), SIG_ERR);
}

static void
test_process_group(void **state)
{
    struct bk_err err = {0};
    char out[64], want[64];

    (void)state;
    assert_int_equal(produce("exec cut -d' ' -f5 /proc/self/stat", out, sizeof out, &err), BK_OK);
    (void)snprintf(want, sizeof want, "%d\n", (int)getpgrp());
    assert_string_equal(out, want);
}

static int
finish_without_status(void)
{
    struct bk_err err = {0};
    char out[8];

    (void)signal(SIGCHLD, SIG_IGN);
    return produce("exit 0", out, sizeof out, &err) != BK_E_COMMAND || strstr(err.message, "is lost") == NULL;
}

static void
test_lost_status_is_no_success(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(finish_without_status), 0);
}

static int
kernel_without_pidfd(void)
{
    struct bk_err err = {0};
    char out[8];

    if (!fx_deny(SYS_pidfd_open, ENOSYS))
        return FX_SKIP;
    if (produce("printf x; exec >&-; sleep 0.2; exit 5", out, sizeof out, &err) != BK_E_COMMAND)
        return 1;
    if (strstr(err.message, "status 5") == NULL)
        return 2;
    assert_killed_unfinished("touch \"$1/started\"; cat >/dev/null; touch \"$1/committed\"");
    return 0;
}

static void
test_kernel_without_process_descriptors(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(kernel_without_pidfd), 0);
}

static int
may_not_kill(void)
{
    struct store_command *c = NULL;
    struct store_source *source = NULL;
    struct bk_err err = {0};
    struct script s;

    /* as if the producer had become another user: it is not waited for, and ends when its reader has gone */
    if (store_command_produce(script(&s, "cat /dev/zero"), NULL, &c, &source, &err) != BK_OK ||
        !fx_deny(SYS_kill, EPERM))
        return FX_SKIP;
    store_command_kill(c);
    store_source_close(source);
    return 0;
}

static void
test_producer_that_may_not_be_killed(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(may_not_kill), 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_producer, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_cannot_start, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_consumer, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_consumer_that_ends_early, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_kill_before_the_end_of_input, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_end_of_input_is_seen_when_published, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_kill_producer, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_stop_while_waiting_for_the_end, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_stop_while_the_consumer_does_not_read, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_no_descriptor_is_inherited, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_signals_of_the_child, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_process_group, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_lost_status_is_no_success, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_kernel_without_process_descriptors, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_producer_that_may_not_be_killed, fx_make_folder, fx_remove_folder),
    };

    (void)argc;
    if (store_guard_called(argv))
        return store_guard_main(argv);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests_name("command", tests, NULL, NULL);
}
