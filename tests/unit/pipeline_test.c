/* Does base/pipeline.h hold whatever fails, at whatever job, with whatever number of workers? Failures of threads and
 * of memory come from this program's own pthread_create and posix_memalign, which stand before the library's. */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/crypto.h>

#include "base/buf.h"
#include "base/pipeline.h"

#define IN_SIZE  4096
#define OUT_SIZE 8192
#define JOBS     20
#define NEVER    UINT64_MAX
#define BUFFERS  64

/* What the functions below, which stand before the library's, do and see; -1: nothing fails. */
static atomic_int thread_fails_in = -1;
static atomic_int memory_fails_in = -1;
static struct {
    void *at;
    size_t size;
    int wiped;
} buffers[BUFFERS];
static size_t buffer_count;

static void *
next_symbol(const char *name)
{
    void *at = dlsym(RTLD_NEXT, name);

    if (at == NULL)
        abort();
    return at;
}

int
pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    void *at = next_symbol("pthread_create");

    memcpy(&real, &at, sizeof real);
    if (thread_fails_in >= 0 && thread_fails_in-- == 0)
        return EAGAIN;
    return real(thread, attr, start, arg);
}

int
posix_memalign(void **out, size_t align, size_t size)
{
    int (*real)(void **, size_t, size_t);
    void *at = next_symbol("posix_memalign");
    int rc;

    memcpy(&real, &at, sizeof real);
    if (memory_fails_in >= 0 && memory_fails_in-- == 0)
        return ENOMEM;
    rc = real(out, align, size);
    if (rc == 0 && buffer_count < BUFFERS) {
        buffers[buffer_count].at = *out;
        buffers[buffer_count].size = size;
        buffers[buffer_count++].wiped = 0;
    }
    return rc;
}

void
OPENSSL_cleanse(void *data, size_t len)
{
    volatile unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        p[i] = 0;
    for (size_t i = 0; i < buffer_count; i++)
        if (buffers[i].at == data && buffers[i].size == len)
            buffers[i].wiped = 1;
}

static void
forget_buffers(void)
{
    buffer_count = 0;
}

/* The buffers of all jobs were one block, which was wiped as a whole. */
static void
check_buffers_wiped(size_t bytes)
{
    assert_int_equal(buffer_count, 1);
    assert_int_equal(buffers[0].size, bytes);
    assert_true(buffers[0].wiped);
    forget_buffers();
}

/* Assertions belong to the test's own thread: what others see wrong is counted. */
struct world {
    size_t workers;
    uint64_t jobs;
    uint64_t read_fails; /* job numbers, or NEVER */
    uint64_t work_fails[2];
    uint64_t write_fails;
    uint64_t read_blocks; /* this read waits for the interrupt */
    uint64_t read_slow;   /* this read takes a while by itself */
    int work_slow;        /* even jobs take longer than odd ones */
    int write_slow;
    int write_waits; /* the one that fails does so while that read blocks */
    int wake;
    atomic_int blocked; /* that read was entered */
    atomic_int wrong;
    atomic_int interrupts;
    atomic_int failed; /* a stage has failed */
    atomic_int busy[8];
    atomic_uint_least64_t read_count;
    atomic_uint_least64_t write_count;
    atomic_int reading;
    atomic_int writing;
};

static void
world_make(struct world *w, size_t workers)
{
    *w = (struct world){.workers = workers,
                        .jobs = JOBS,
                        .read_fails = NEVER,
                        .write_fails = NEVER,
                        .read_blocks = NEVER,
                        .read_slow = NEVER};
    w->work_fails[0] = NEVER;
    w->work_fails[1] = NEVER;
    w->wake = eventfd(0, EFD_CLOEXEC);
    assert_true(w->wake >= 0);
}

static void
expect(struct world *w, int truth)
{
    if (!truth)
        w->wrong++;
}

static enum bk_code
world_read(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct world *w = ctx;
    struct pollfd p = {.fd = w->wake, .events = POLLIN};

    expect(w, w->reading++ == 0);
    expect(w, job->number == w->read_count);
    expect(w, job->in_len == 0 && job->out_len == 0 && job->in_at == 0 && job->out_at == 0 && job->last == 0);
    expect(w, (uintptr_t)job->in % 4096 == 0 && (uintptr_t)job->out % 4096 == 0);
    /* memory is bounded: the reader is never further ahead than there are jobs */
    expect(w, job->number - w->write_count < w->workers + 2);
    if (job->number == w->read_slow)
        (void)usleep(30000);
    if (job->number == w->read_blocks) {
        w->blocked = 1;
        expect(w, poll(&p, 1, 20000) == 1);
        w->reading--;
        return bk_fail(err, BK_E_CANCELLED, "read was interrupted");
    }
    w->reading--;
    if (job->number == w->read_fails) {
        w->failed = 1;
        return bk_fail(err, BK_E_IO, "read %llu", (unsigned long long)job->number);
    }
    bk_put_u64(job->in, job->number * 3);
    job->in_len = 8;
    job->last = job->number + 1 == w->jobs;
    w->read_count++;
    return BK_OK;
}

static enum bk_code
world_work(void *ctx, size_t worker, struct bk_job *job, struct bk_err *err)
{
    struct world *w = ctx;

    expect(w, worker < w->workers && w->busy[worker]++ == 0);
    expect(w, job->in_len == 8 && bk_get_u64(job->in) == job->number * 3);
    if (w->work_slow && job->number % 2 == 0)
        (void)usleep(1000);
    bk_put_u64(job->out, bk_get_u64(job->in) + 1);
    job->out_len = 8;
    job->digest[0] = (uint8_t)job->number;
    w->busy[worker]--;
    if (job->number == w->work_fails[0] || job->number == w->work_fails[1]) {
        w->failed = 1;
        return bk_fail(err, BK_E_VERIFY, "work %llu", (unsigned long long)job->number);
    }
    return BK_OK;
}

static enum bk_code
world_write(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct world *w = ctx;

    expect(w, w->writing++ == 0);
    expect(w, job->number == w->write_count);
    expect(w, job->out_len == 8 && bk_get_u64(job->out) == job->number * 3 + 1);
    expect(w, job->digest[0] == (uint8_t)job->number);
    expect(w, job->last == (job->number + 1 == w->jobs));
    expect(w, job->number != w->work_fails[0] && job->number != w->work_fails[1]);
    if (w->write_slow)
        (void)usleep(500);
    w->writing--;
    if (job->number == w->write_fails) {
        for (int i = 0; w->write_waits && !w->blocked && i < 20000; i++)
            (void)usleep(1000);
        w->failed = 1;
        return bk_fail(err, BK_E_NO_ROOM, "write %llu", (unsigned long long)job->number);
    }
    w->write_count++;
    return BK_OK;
}

static void
world_interrupt(void *ctx)
{
    struct world *w = ctx;
    uint64_t one = 1;

    w->interrupts++;
    expect(w, w->failed);
    expect(w, write(w->wake, &one, sizeof one) == (ssize_t)sizeof one);
}

/* Runs it; everything but the result is checked here. */
static enum bk_code
world_run(struct world *w, struct bk_err *err)
{
    struct bk_pipeline p = {.ctx = w,
                            .workers = w->workers,
                            .in_size = IN_SIZE,
                            .out_size = OUT_SIZE,
                            .read = world_read,
                            .work = world_work,
                            .write = world_write,
                            .interrupt = world_interrupt};
    enum bk_code rc;

    forget_buffers();
    rc = bk_pipeline_run(&p, err);
    assert_int_equal(w->wrong, 0);
    assert_true(w->interrupts <= 1);
    check_buffers_wiped((w->workers + 2) * (IN_SIZE + OUT_SIZE));
    if (rc == BK_OK)
        assert_true(w->write_count == w->jobs && w->interrupts == 0);
    (void)close(w->wake);
    return rc;
}

static void
test_all_jobs_in_order(void **state)
{
    (void)state;
    for (size_t workers = 1; workers <= 8; workers++)
        for (uint64_t jobs = 1; jobs < 70; jobs += jobs < 22 ? 1 : 16) {
            struct world w;

            world_make(&w, workers);
            w.jobs = jobs;
            w.work_slow = jobs > 50;
            w.write_slow = jobs == 21;
            assert_int_equal(world_run(&w, NULL), BK_OK);
        }
}

static void
check_failure(struct world *w, enum bk_code code, const char *stage, uint64_t at)
{
    struct bk_err err = {0};
    char text[40];

    (void)snprintf(text, sizeof text, "%s %llu", stage, (unsigned long long)at);
    assert_int_equal(world_run(w, &err), code);
    assert_string_equal(err.message, text);
    assert_int_equal(err.code, code);
    /* nothing at or behind the failure was written */
    assert_true(w->write_count <= at);
}

static void
test_every_stage_fails_at_every_job(void **state)
{
    struct world w;

    (void)state;
    for (size_t workers = 1; workers <= 4; workers++)
        for (uint64_t at = 0; at < JOBS; at++)
            for (int slow = 0; slow < 2; slow++) {
                world_make(&w, workers);
                w.read_fails = at;
                w.work_slow = slow;
                check_failure(&w, BK_E_IO, "read", at);
                assert_int_equal(w.interrupts, 0);
                world_make(&w, workers);
                w.work_fails[0] = at;
                w.work_slow = slow;
                w.write_slow = slow;
                check_failure(&w, BK_E_VERIFY, "work", at);
                world_make(&w, workers);
                w.write_fails = at;
                w.work_slow = slow;
                check_failure(&w, BK_E_NO_ROOM, "write", at);
                assert_true(w.write_count == at);
            }
}

/* Of several, the failure of the lowest job is reported, whichever happened first. */
static void
test_the_first_in_order_wins(void **state)
{
    struct world w;

    (void)state;
    for (size_t workers = 1; workers <= 4; workers++)
        for (uint64_t at = 0; at + 2 < JOBS; at++) {
            world_make(&w, workers);
            w.work_slow = 1; /* so that of an even and an odd job the odd one fails first */
            w.work_fails[0] = at;
            w.work_fails[1] = at + 1;
            check_failure(&w, BK_E_VERIFY, "work", at);
            world_make(&w, workers);
            w.work_slow = 1;
            w.work_fails[0] = at;
            w.read_fails = at + 1;
            check_failure(&w, BK_E_VERIFY, "work", at);
            world_make(&w, workers);
            w.read_fails = at;
            w.work_fails[0] = at; /* never read, so it cannot fail */
            check_failure(&w, BK_E_IO, "read", at);
        }
}

static void
test_a_blocked_reader_is_interrupted(void **state)
{
    struct world w;

    (void)state;
    for (size_t workers = 1; workers <= 4; workers++)
        for (uint64_t blocks = 1; blocks < 8; blocks++)
            for (uint64_t at = 0; at < blocks; at++) {
                world_make(&w, workers);
                w.read_blocks = blocks;
                w.work_fails[0] = at;
                check_failure(&w, BK_E_VERIFY, "work", at);
                world_make(&w, workers);
                w.read_blocks = blocks;
                w.write_fails = at;
                /* so many jobs are on their way at once; with more between the two, that read is not come to */
                w.write_waits = blocks < at + workers + 2;
                check_failure(&w, BK_E_NO_ROOM, "write", at);
                assert_int_equal(w.blocked, w.write_waits);
                /* else it may have met a read that returns by itself */
                if (w.write_waits)
                    assert_int_equal(w.interrupts, 1);
            }
}

static void
test_no_interrupt_is_needed_for_a_reader_that_returns(void **state)
{
    struct world w;
    struct bk_pipeline p = {.ctx = &w,
                            .workers = 3,
                            .in_size = IN_SIZE,
                            .out_size = OUT_SIZE,
                            .read = world_read,
                            .work = world_work,
                            .write = world_write};

    (void)state;
    world_make(&w, 3);
    w.read_slow = 4;
    w.work_fails[0] = 2;
    assert_int_equal(bk_pipeline_run(&p, NULL), BK_E_VERIFY);
    assert_int_equal(w.wrong, 0);
    (void)close(w.wake);
}

/* One thread is enough for everything. */
static void
test_threads_that_cannot_be_made(void **state)
{
    struct bk_err err = {0};
    struct world w;

    (void)state;
    for (int fails = 0; fails <= 5; fails++) {
        world_make(&w, 4);
        thread_fails_in = fails;
        if (fails == 0) {
            assert_int_equal(world_run(&w, &err), BK_E_IO);
            assert_int_equal(err.os_errno, EAGAIN);
            assert_true(w.write_count == 0);
        } else {
            assert_int_equal(world_run(&w, NULL), BK_OK);
        }
        thread_fails_in = -1;
    }
}

static void
test_memory_that_cannot_be_had(void **state)
{
    struct world w;
    struct bk_pipeline p = {.ctx = &w,
                            .workers = 2,
                            .in_size = IN_SIZE,
                            .out_size = OUT_SIZE,
                            .read = world_read,
                            .work = world_work,
                            .write = world_write};

    (void)state;
    world_make(&w, 2);
    forget_buffers();
    memory_fails_in = 0;
    assert_int_equal(bk_pipeline_run(&p, NULL), BK_E_NO_ROOM);
    assert_int_equal(memory_fails_in, -1);
    assert_true(w.read_count == 0);
    assert_int_equal(buffer_count, 0);
    (void)close(w.wake);
}

static enum bk_code
plain_write(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct world *w = ctx;

    (void)err;
    expect(w, bk_get_u64(job->in) == job->number * 3);
    w->write_count++;
    return BK_OK;
}

/* Sizes that are no whole pages: each buffer begins at one, and lies in no other. */
static enum bk_code
far_work(void *ctx, size_t worker, struct bk_job *job, struct bk_err *err)
{
    (void)worker;
    (void)err;
    expect(ctx, (uintptr_t)job->in % 4096 == 0 && (uintptr_t)job->out % 4096 == 0);
    memset(job->in + 8, (int)job->number, IN_SIZE + 1 - 8);
    memset(job->out, (int)job->number, OUT_SIZE + 1);
    sched_yield();
    for (size_t i = 0; i <= OUT_SIZE; i++)
        expect(ctx, job->out[i] == (uint8_t)job->number && (i < 8 || i > IN_SIZE || job->in[i] == job->out[i]));
    return BK_OK;
}

static void
test_buffers_lie_apart(void **state)
{
    struct world w;
    struct bk_pipeline p = {.ctx = &w,
                            .workers = 4,
                            .in_size = IN_SIZE + 1,
                            .out_size = OUT_SIZE + 1,
                            .read = world_read,
                            .work = far_work,
                            .write = plain_write};

    (void)state;
    world_make(&w, 4);
    forget_buffers();
    assert_int_equal(bk_pipeline_run(&p, NULL), BK_OK);
    assert_int_equal(w.wrong, 0);
    check_buffers_wiped((size_t)6 * (2 * IN_SIZE + OUT_SIZE + 4096));
    (void)close(w.wake);
}

static enum bk_code
plain_work(void *ctx, size_t worker, struct bk_job *job, struct bk_err *err)
{
    (void)worker;
    (void)err;
    expect(ctx, job->out == NULL);
    return BK_OK;
}

static void
test_without_output_buffers(void **state)
{
    struct world w;
    struct bk_pipeline p = {
        .ctx = &w, .workers = 2, .in_size = IN_SIZE, .read = world_read, .work = plain_work, .write = plain_write};

    (void)state;
    world_make(&w, 2);
    forget_buffers();
    assert_int_equal(bk_pipeline_run(&p, NULL), BK_OK);
    assert_int_equal(w.wrong, 0);
    assert_true(w.write_count == JOBS);
    check_buffers_wiped((size_t)4 * IN_SIZE);
    p.workers = 0;
    assert_int_equal(bk_pipeline_run(&p, NULL), BK_E_INTERNAL);
    (void)close(w.wake);
}

/* A reader's memory does not depend on what segments an archive was made with. */
static void
test_workers_are_as_many_as_memory_is_meant_for(void **state)
{
    const size_t mib = 1024 * 1024;
    struct bk_pipeline p = {.workers = 256};

    (void)state;
    assert_int_equal(bk_pipeline_workers(&p), 256);
    for (size_t job = mib; job <= 128 * mib; job *= 2) {
        size_t workers;

        p.in_size = p.out_size = job / 2;
        workers = bk_pipeline_workers(&p);
        assert_true(workers >= 1 && (workers + 2) * job <= BK_PIPELINE_MEMORY);
        assert_true(job > 2 * mib || workers > 200);
    }
    p.in_size = BK_PIPELINE_MEMORY;
    assert_int_equal(bk_pipeline_workers(&p), 1);
}

static void
test_no_more_buffers_than_jobs(void **state)
{
    struct world w;
    struct bk_pipeline p = {
        .ctx = &w, .workers = 4, .in_size = IN_SIZE, .read = world_read, .work = plain_work, .write = plain_write};

    (void)state;
    for (uint64_t jobs = 1; jobs <= 12; jobs++)
        /* a reader that finds more or fewer jobs than was thought is served as well */
        for (uint64_t thought = jobs > 1 ? jobs - 1 : 1; thought <= jobs + 1; thought++) {
            world_make(&w, 4);
            w.jobs = jobs;
            p.jobs = thought;
            forget_buffers();
            assert_int_equal(bk_pipeline_run(&p, NULL), BK_OK);
            assert_int_equal(w.wrong, 0);
            assert_true(w.write_count == jobs);
            check_buffers_wiped((thought < 6 ? (size_t)thought : 6) * IN_SIZE);
            (void)close(w.wake);
        }
}

/* Of input that has ranges, everybody reads. */
static enum bk_code
apart_read(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct world *w = ctx;

    expect(w, job->number < w->jobs);
    if (w->work_slow && job->number % 2 == 0)
        (void)usleep(1000);
    if (job->number == w->read_fails)
        return bk_fail(err, BK_E_IO, "read %llu", (unsigned long long)job->number);
    bk_put_u64(job->in, job->number * 3);
    job->in_len = 8;
    job->last = job->number + 1 == w->jobs;
    w->read_count++;
    return BK_OK;
}

static void
test_reading_apart(void **state)
{
    (void)state;
    for (size_t workers = 1; workers <= 4; workers++)
        for (uint64_t at = 0; at <= JOBS + 1; at++) {
            struct world w;
            struct bk_err err = {0};
            struct bk_pipeline p = {.ctx = &w,
                                    .workers = workers,
                                    .in_size = IN_SIZE,
                                    .out_size = OUT_SIZE,
                                    .jobs = JOBS,
                                    .read_apart = 1,
                                    .read = apart_read,
                                    .work = world_work,
                                    .write = world_write};

            world_make(&w, workers);
            w.work_slow = 1;
            w.read_fails = at;
            w.work_fails[0] = at + 1;
            if (at < JOBS) {
                assert_int_equal(bk_pipeline_run(&p, &err), BK_E_IO);
                assert_true(w.write_count <= at);
            } else {
                assert_int_equal(bk_pipeline_run(&p, &err), BK_OK);
                assert_true(w.read_count == JOBS && w.write_count == JOBS);
            }
            assert_int_equal(w.wrong, 0);
            p.jobs = 0;
            assert_int_equal(bk_pipeline_run(&p, &err), BK_E_INTERNAL);
            (void)close(w.wake);
        }
}

static void
test_cores(void **state)
{
    (void)state;
    assert_in_range(bk_cores(), 1, 1 << 20);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_jobs_in_order),
        cmocka_unit_test(test_every_stage_fails_at_every_job),
        cmocka_unit_test(test_the_first_in_order_wins),
        cmocka_unit_test(test_a_blocked_reader_is_interrupted),
        cmocka_unit_test(test_no_interrupt_is_needed_for_a_reader_that_returns),
        cmocka_unit_test(test_threads_that_cannot_be_made),
        cmocka_unit_test(test_memory_that_cannot_be_had),
        cmocka_unit_test(test_buffers_lie_apart),
        cmocka_unit_test(test_without_output_buffers),
        cmocka_unit_test(test_workers_are_as_many_as_memory_is_meant_for),
        cmocka_unit_test(test_no_more_buffers_than_jobs),
        cmocka_unit_test(test_reading_apart),
        cmocka_unit_test(test_cores),
    };

    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
