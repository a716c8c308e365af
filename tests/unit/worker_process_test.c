/* Token workers that crash, hang, and answer nonsense: what a program does then. The worker is fake_worker.c. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/fake_run.h"
#include "worker/process.h"
#include "worker/watch.h"

/* -- one process ----------------------------------------------------------------------------------------------------
 */

static struct process *
start(unsigned timeout_s, const struct bk_cancel *cancel)
{
    const struct process_options options = {.program = BK_FAKE_WORKER, .timeout_s = timeout_s, .cancel = cancel};
    struct process *p = NULL;

    ok(process_start(&options, &p, &err));
    return p;
}

/* Its status, as of waitpid(2). */
static int
finish(struct process *p)
{
    int status = -1;

    process_end(p, &status);
    return status;
}

/* One request without arguments, to the first message that comes. */
static enum bk_code
request(struct process *p, enum wire_type type, struct bk_err *err)
{
    struct connection *c = NULL;
    struct wire_out o = {0};
    struct wire_in in = {0};
    enum bk_code rc;

    if ((rc = process_connect(p, &c, err)) != BK_OK)
        return rc;
    wire_begin(&o, type);
    if ((rc = process_send(p, c, &o, NULL, err)) == BK_OK)
        rc = process_receive(p, c, &in, err);
    if (rc == BK_OK)
        assert_int_equal(in.type, WIRE_DONE);
    process_release(p, c, rc == BK_OK);
    bk_buf_free(&o.body);
    wire_in_free(&in);
    return rc;
}

static void
an_honest_one(void **state)
{
    struct process *p = start(5, NULL);

    (void)state;
    for (int i = 0; i < 3; i++)
        ok(request(p, WIRE_UNWRAP, &err));
    assert_false(process_is_gone(p));
    assert_int_equal(finish(p), 0);
    process_end(NULL, NULL);
}

static void
no_program(void **state)
{
    struct process_options options = {.program = "/no/such/worker", .timeout_s = 1};
    struct process *p = NULL;

    (void)state;
    refuses(BK_E_IO, "starting /no/such/worker", process_start(&options, &p, &err));
    assert_null(p);
    /* beside this program is another one */
    options.program = NULL;
    if (access(BK_TOKEN_WORKER, X_OK) == 0 && process_start(&options, &p, &(struct bk_err){0}) == BK_OK)
        (void)finish(p);
}

/* Dies as the rule says in the midst of a request; everybody hears of it, and of later requests nothing comes. */
static void
one_death(const char *how, const char *message, int login)
{
    struct process *p = start(5, NULL);
    char rules[32];

    (void)snprintf(rules, sizeof rules, "*/%d=%s", WIRE_WRAP, how);
    finish(p);
    fake_act(rules);
    p = start(5, NULL);
    ok(request(p, WIRE_UNWRAP, &err));
    refuses(BK_E_TOKEN, message, request(p, WIRE_WRAP, &err));
    assert_true(process_is_gone(p));
    assert_int_equal(process_died_in_login(p), login);
    refuses(BK_E_TOKEN, "the module", request(p, WIRE_UNWRAP, &err));
    (void)finish(p);
}

static void
crashes_are_told(void **state)
{
    (void)state;
    one_death("segv", "the module crashed in C_Sign: signal 11, Segmentation fault", 0);
    /* the name of a call is the worker's word, and may hold anything */
    one_death("abrt", "the module crashed in C??: signal 6, Aborted", 0);
    one_death("exit3", "the module ended its process in C??, with status 3", 0);
    one_death("deadsecret", "the module ended its process, with status 3", 0);
}

static void
a_worker_that_ends_at_once(void **state)
{
    struct process *p;

    (void)state;
    fake_act("*/0=exit3");
    p = start(5, NULL);
    refuses(BK_E_TOKEN, "the module ended its process, with status 3", request(p, WIRE_UNWRAP, &err));
    assert_true(process_is_gone(p));
    (void)finish(p);
    /* and nobody asked */
    p = start(5, NULL);
    fake_nap(100);
    assert_int_equal(WEXITSTATUS(finish(p)), 3);
}

static void
nonsense_is_told(void **state)
{
    static const struct {
        const char *how, *message;
    } cases[] = {
        {"garbage", "a message of 3 bytes"}, {"toolong", "is too long"}, {"nosecret", "a secret did not come"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char rules[32];
        struct process *p;

        (void)snprintf(rules, sizeof rules, "*/%d=%s", WIRE_WRAP, cases[i].how);
        fake_act(rules);
        fake_speed = 10;
        p = start(5, NULL);
        refuses(BK_E_TOKEN, "the module's process was ended: ", request(p, WIRE_WRAP, &err));
        refuses(BK_E_TOKEN, cases[i].message, request(p, WIRE_WRAP, &err));
        assert_true(process_is_gone(p));
        (void)finish(p);
    }
}

/* Longer than a tick, shorter than what is taken for an answer of nonsense. */
static void
a_late_secret_is_no_nonsense(void **state)
{
    struct process *p;
    char rules[32];

    (void)state;
    (void)snprintf(rules, sizeof rules, "*/%d=latesecret", WIRE_UNWRAP);
    fake_act(rules);
    p = start(5, NULL);
    ok(request(p, WIRE_UNWRAP, &err));
    assert_int_equal(finish(p), 0);
}

static void
a_call_that_hangs_is_ended(void **state)
{
    struct process *p;
    long began, took;

    (void)state;
    fake_act("*/*=hang");
    p = start(1, NULL);
    began = fake_now();
    refuses(BK_E_TOKEN, "C_Sign did not return in time, so that the module's process was ended",
            request(p, WIRE_SIGN, &err));
    took = fake_now() - began;
    assert_in_range(took, 900, 20000);
    assert_true(process_is_gone(p));
    assert_false(process_died_in_login(p));
    (void)finish(p);
}

/* 1.6 seconds of calls, each of which is short. */
static void
calls_that_come_back_are_waited_for(void **state)
{
    struct process *p;

    (void)state;
    fake_act("*/*=manycalls");
    p = start(1, NULL);
    ok(request(p, WIRE_SIGN, &err));
    assert_int_equal(finish(p), 0);
}

static void
a_worker_that_does_nothing_is_ended(void **state)
{
    struct process *p;

    (void)state;
    fake_act("*/*=still");
    fake_speed = 200;
    p = start(1, NULL);
    refuses(BK_E_TOKEN, "the module's process did not return in time", request(p, WIRE_SIGN, &err));
    (void)finish(p);
    /* nor does one that does not even hear of the request */
    fake_act("*/0=deaf");
    p = start(1, NULL);
    refuses(BK_E_TOKEN, "the module's process did not return in time", request(p, WIRE_SIGN, &err));
    (void)finish(p);
}

/* While somebody thinks about a PIN, nothing is wrong with a worker that does nothing. */
static void *
release_pause(void *arg)
{
    fake_nap(900);
    process_pause(arg, 0);
    return NULL;
}

static void
a_worker_that_waits_for_a_pin_is_not_ended(void **state)
{
    struct process *p;
    pthread_t thread;
    long began;

    (void)state;
    fake_act("*/*=still");
    fake_speed = 200;
    p = start(1, NULL);
    process_pause(p, 1);
    assert_int_equal(pthread_create(&thread, NULL, release_pause, p), 0);
    began = fake_now();
    refuses(BK_E_TOKEN, "did not return in time", request(p, WIRE_SIGN, &err));
    assert_true(fake_now() - began > 900);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)finish(p);
}

static void
a_request_to_stop_ends_a_call(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(1, EFD_CLOEXEC)};
    struct process *p;
    long began, took;

    (void)state;
    fake_act("*/*=hang");
    p = start(60, &cancel);
    began = fake_now();
    refuses(BK_E_CANCELLED, "stopped while a call of the token was under way", request(p, WIRE_SIGN, &err));
    took = fake_now() - began;
    assert_in_range(took, 2500, 20000);
    assert_true(process_is_gone(p));
    (void)finish(p);
    /* what comes back soon is heard */
    fake_act("*/*=slow");
    p = start(60, &cancel);
    ok(request(p, WIRE_SIGN, &err));
    assert_int_equal(finish(p), 0);
    (void)close(cancel.fd);
}

/* Everybody who uses a worker that was ended for a request to stop hears of that, and not of a crash. */
struct waiter {
    struct process *p;
    enum bk_code rc;
    struct bk_err err;
};

static void *
request_sign(void *arg)
{
    struct waiter *w = arg;

    w->rc = request(w->p, WIRE_SIGN, &w->err);
    return NULL;
}

static void
all_threads_hear_why(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(1, EFD_CLOEXEC)};
    struct waiter waiters[4];
    pthread_t threads[4];

    (void)state;
    fake_speed = 10;
    fake_act("*/*=hang");
    waiters[0].p = start(60, &cancel);
    for (int i = 0; i < 4; i++) {
        waiters[i] = (struct waiter){.p = waiters[0].p};
        assert_int_equal(pthread_create(&threads[i], NULL, request_sign, &waiters[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 4; i++)
        if (waiters[i].rc != BK_E_CANCELLED)
            fail_msg("%s", waiters[i].err.message);
    (void)finish(waiters[0].p);
    (void)close(cancel.fd);
}

static void
a_worker_that_does_not_end_is_killed(void **state)
{
    struct process *p;
    long began, took;
    int status;

    (void)state;
    fake_act("*/0=noend");
    p = start(1, NULL);
    ok(request(p, WIRE_SIGN, &err));
    fake_speed = 4;
    began = fake_now();
    status = finish(p);
    took = fake_now() - began;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_in_range(took, 700, 20000); /* a fourth of the limit of a call, and of two seconds */
}

static void
a_request_to_stop_is_heard_at_the_end(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(1, EFD_CLOEXEC)};
    struct process *p;
    long began;

    (void)state;
    fake_act("*/0=noend");
    p = start(600, &cancel);
    ok(request(p, WIRE_SIGN, &err));
    fake_speed = 4;
    began = fake_now();
    assert_true(WIFSIGNALED(finish(p)));
    assert_in_range(fake_now() - began, 600, 30000);
    (void)close(cancel.fd);
}

/* A socket that was closed by a worker which lives: as good as dead, and it is seen to that. */
static void
a_worker_that_hangs_up_is_ended(void **state)
{
    struct process *p;

    (void)state;
    fake_act("*/*=hangup");
    fake_speed = 10;
    p = start(1, NULL);
    assert_int_equal(request(p, WIRE_SIGN, &(struct bk_err){0}), BK_E_TOKEN);
    assert_true(process_is_gone(p));
    (void)finish(p);
}

/* The memory that is shared to watch by is the program's, too: it cannot be taken away. */
static void
the_watch_cannot_be_cut(void **state)
{
    struct process *p;

    (void)state;
    fake_act("*/0=truncate */*=segv");
    p = start(5, NULL);
    refuses(BK_E_TOKEN, "the module crashed in C_Sign", request(p, WIRE_SIGN, &err));
    assert_int_equal(fake_logged("1 truncate was refused"), 1);
    (void)finish(p);
}

/* -- stopped and continued ------------------------------------------------------------------------------------------
 */

static void
a_program_that_was_stopped(void **state)
{
    int status = -1;
    pid_t child;

    (void)state;
    fake_act("*/*=slow");
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct process_options options = {.program = BK_FAKE_WORKER, .timeout_s = 2};
        struct process *p = NULL;
        struct bk_err err = {0};
        int rc = 1;

        /* as at a terminal: Ctrl-Z stops the program and its worker */
        if (setpgid(0, 0) == 0 && process_start(&options, &p, &err) == BK_OK)
            rc = request(p, WIRE_SIGN, &err) == BK_OK ? 0 : 2;
        process_end(p, &status);
        _exit(rc);
    }
    (void)setpgid(child, child);
    fake_nap(400);
    assert_int_equal(kill(-child, SIGSTOP), 0);
    fake_nap(2500);
    assert_int_equal(kill(-child, SIGCONT), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* -- many threads ---------------------------------------------------------------------------------------------------
 */

static pthread_barrier_t together;

static void *
one_of_many(void *arg)
{
    struct process *p = arg;
    struct connection *c = NULL;
    struct wire_out o = {0};
    struct wire_in in = {0};
    struct bk_err err = {0};
    enum bk_code rc = process_connect(p, &c, &err);

    (void)pthread_barrier_wait(&together); /* all have one */
    (void)pthread_barrier_wait(&together); /* another was refused */
    if (rc != BK_OK)
        return "no connection";
    wire_begin(&o, WIRE_UNWRAP);
    if (process_send(p, c, &o, NULL, &err) != BK_OK || process_receive(p, c, &in, &err) != BK_OK ||
        in.secret.len != BK_CEK_LEN)
        rc = BK_E_TOKEN;
    process_release(p, c, rc == BK_OK);
    bk_buf_free(&o.body);
    wire_in_free(&in);
    return rc == BK_OK ? NULL : "no answer";
}

static void
sixty_four_threads_and_no_more(void **state)
{
    struct process *p = start(30, NULL);
    pthread_t threads[WATCH_SLOTS];
    struct connection *c = NULL;

    (void)state;
    assert_int_equal(pthread_barrier_init(&together, NULL, WATCH_SLOTS + 1), 0);
    for (int i = 0; i < WATCH_SLOTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, one_of_many, p), 0);
    (void)pthread_barrier_wait(&together);
    refuses(BK_E_INTERNAL, "more than 64 threads", process_connect(p, &c, &err));
    (void)pthread_barrier_wait(&together);
    for (int i = 0; i < WATCH_SLOTS; i++) {
        void *failed = NULL;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        if (failed != NULL)
            fail_msg("%s", (const char *)failed);
    }
    assert_int_equal(pthread_barrier_destroy(&together), 0);
    /* and then there are connections to be had again */
    ok(request(p, WIRE_UNWRAP, &err));
    assert_int_equal(finish(p), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_begin, fake_end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_honest_one),
        TEST(no_program),
        TEST(crashes_are_told),
        TEST(a_worker_that_ends_at_once),
        TEST(nonsense_is_told),
        TEST(a_late_secret_is_no_nonsense),
        TEST(a_call_that_hangs_is_ended),
        TEST(calls_that_come_back_are_waited_for),
        TEST(a_worker_that_does_nothing_is_ended),
        TEST(a_worker_that_waits_for_a_pin_is_not_ended),
        TEST(a_request_to_stop_ends_a_call),
        TEST(all_threads_hear_why),
        TEST(a_worker_that_does_not_end_is_killed),
        TEST(a_request_to_stop_is_heard_at_the_end),
        TEST(a_worker_that_hangs_up_is_ended),
        TEST(the_watch_cannot_be_cut),
        TEST(a_program_that_was_stopped),
        TEST(sixty_four_threads_and_no_more),
    };

    return cmocka_run_group_tests(tests, fake_init, NULL);
}
