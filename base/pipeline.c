#include "base/pipeline.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define NEVER     UINT64_MAX
#define PAGE      4096
#define HUGE_PAGE ((size_t)2 << 20)

/*
 * Job n belongs to one thread from its reading to its writing. At any time the jobs from next_write to next_read are on
 * their way, each with a thread of its own, so that n modulo the number of threads says whose it is. No stage works
 * with the lock held.
 */
struct run {
    const struct bk_pipeline *p;
    struct thread *threads;
    size_t thread_count;
    uint8_t *buffers; /* of the threads' jobs */
    size_t buffers_size;
    size_t worker_count;
    pthread_mutex_t lock;
    pthread_cond_t may_read; /* nobody reads, or there is nothing more to read */
    pthread_cond_t may_work; /* a worker's number is free */
    size_t *idle;            /* the workers' numbers that are free, idle_count of them */
    size_t idle_count;
    uint64_t next_read;
    uint64_t next_write;
    int reading;        /* somebody is, in turn */
    int ended;          /* the last job was read, or a read failed */
    uint64_t failed_at; /* the lowest job that failed, or NEVER */
    enum bk_code code;
    struct bk_err err;
};

struct thread {
    struct run *run;
    pthread_t id;
    struct bk_job job;
    pthread_cond_t may_write; /* of the one job on its way whose number, modulo the threads, is this thread's place */
};

static void
wake_all(struct run *r)
{
    pthread_cond_broadcast(&r->may_read);
    pthread_cond_broadcast(&r->may_work);
    for (size_t i = 0; i < r->thread_count; i++)
        pthread_cond_signal(&r->threads[i].may_write);
}

/* Records a failure of job n unless an earlier job has failed already, and frees a reader that may be blocked. With the
 * lock held, which is let go meanwhile. */
static void
record(struct run *r, uint64_t n, enum bk_code code, const struct bk_err *err)
{
    int first = r->failed_at == NEVER;

    if (n < r->failed_at) {
        r->failed_at = n;
        r->code = code;
        r->err = *err;
    }
    wake_all(r);
    if (!first || !r->reading || r->p->interrupt == NULL)
        return;
    pthread_mutex_unlock(&r->lock);
    r->p->interrupt(r->p->ctx);
    pthread_mutex_lock(&r->lock);
}

/* Gives the thread's job the next number; 0 if there is nothing more to read. With the lock held. */
static int
take_number(struct run *r, struct bk_job *job)
{
    while (r->reading && !r->ended && r->failed_at == NEVER)
        pthread_cond_wait(&r->may_read, &r->lock);
    if (r->ended || r->failed_at != NEVER)
        return 0;
    job->number = r->next_read++;
    job->in_at = job->in_len = 0;
    job->out_at = job->out_len = 0;
    job->last = 0;
    memset(job->digest, 0, sizeof job->digest);
    if (r->p->read_apart)
        r->ended = r->next_read == r->p->jobs;
    else
        r->reading = 1;
    return 1;
}

/* 1 if the job was read. With the lock held, but not while reading. */
static int
read_job(struct run *r, struct bk_job *job)
{
    struct bk_err err = {0};
    enum bk_code rc;

    pthread_mutex_unlock(&r->lock);
    rc = r->p->read(r->p->ctx, job, &err);
    pthread_mutex_lock(&r->lock);
    if (!r->p->read_apart) {
        r->reading = 0;
        r->ended = rc != BK_OK || job->last;
        if (r->ended)
            pthread_cond_broadcast(&r->may_read);
        else
            pthread_cond_signal(&r->may_read);
    }
    if (rc != BK_OK)
        record(r, job->number, rc, &err);
    return rc == BK_OK;
}

/*
 * 1 if the job was worked on and may be written. After a failure the jobs before it are still worked on, so that of
 * several damaged jobs the first is reported however the threads were scheduled. With the lock held, but not while
 * working.
 */
static int
work_job(struct run *r, struct bk_job *job)
{
    struct bk_err err = {0};
    enum bk_code rc;
    size_t worker;

    while (r->idle_count == 0 && job->number < r->failed_at)
        pthread_cond_wait(&r->may_work, &r->lock);
    if (job->number > r->failed_at)
        return 0;
    worker = r->idle[--r->idle_count];
    pthread_mutex_unlock(&r->lock);
    rc = r->p->work(r->p->ctx, worker, job, &err);
    pthread_mutex_lock(&r->lock);
    r->idle[r->idle_count++] = worker;
    pthread_cond_signal(&r->may_work);
    if (rc != BK_OK)
        record(r, job->number, rc, &err);
    return rc == BK_OK;
}

/* 1 if the job was written. With the lock held, but not while writing. */
static int
write_job(struct run *r, struct bk_job *job)
{
    struct bk_err err = {0};
    uint64_t n = job->number;
    enum bk_code rc;

    while (r->next_write != n && r->failed_at == NEVER)
        pthread_cond_wait(&r->threads[n % r->thread_count].may_write, &r->lock);
    if (r->failed_at != NEVER)
        return 0;
    pthread_mutex_unlock(&r->lock);
    rc = r->p->write(r->p->ctx, job, &err);
    pthread_mutex_lock(&r->lock);
    if (rc != BK_OK) {
        record(r, n, rc, &err);
        return 0;
    }
    r->next_write++;
    pthread_cond_signal(&r->threads[r->next_write % r->thread_count].may_write);
    return 1;
}

static void *
thread_main(void *arg)
{
    struct thread *t = arg;
    struct run *r = t->run;

    pthread_mutex_lock(&r->lock);
    while (take_number(r, &t->job) && read_job(r, &t->job) && work_job(r, &t->job) && write_job(r, &t->job)) {
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* Starts the threads, at least one and at most as many as there are buffers for; returns how many there are. They wait
 * for the lock, which the caller holds. */
static size_t
start_threads(struct run *r, int *why)
{
    size_t n = 0;

    for (; n < r->thread_count; n++) {
        *why = pthread_create(&r->threads[n].id, NULL, thread_main, &r->threads[n]);
        if (*why != 0)
            break;
    }
    return n;
}

static enum bk_code
run_threads(struct run *r, struct bk_err *err)
{
    sigset_t all;
    sigset_t before;
    int why = 0;
    size_t count;

    /* no thread started here takes a signal: handlers run where the program expects them */
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    count = start_threads(r, &why);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (count == 0)
        return bk_fail_errno(err, why, "cannot start a thread");
    for (size_t i = 0; i < count; i++)
        (void)pthread_join(r->threads[i].id, NULL);
    if (r->failed_at == NEVER)
        return BK_OK;
    if (err != NULL)
        *err = r->err;
    return r->code;
}

static size_t
whole_pages(size_t size)
{
    return (size + PAGE - 1) / PAGE * PAGE;
}

/*
 * The buffers of all jobs, one after the other. In pages of 2 MiB, where the system has them for who asks, 8 MiB are
 * there after 4 page faults in place of 2048, and copies into them miss the translation buffer less.
 */
static enum bk_code
make_buffers(struct run *r, struct bk_err *err)
{
    size_t in = whole_pages(r->p->in_size), out = whole_pages(r->p->out_size);
    void *at = NULL;

    r->buffers_size = r->thread_count * (in + out);
    if (r->buffers_size == 0)
        return BK_OK;
    if (posix_memalign(&at, HUGE_PAGE, r->buffers_size) != 0)
        return bk_fail_nomem(err);
    (void)madvise(at, r->buffers_size, MADV_HUGEPAGE);
    r->buffers = at;
    for (size_t i = 0; i < r->thread_count; i++) {
        r->threads[i].job.in = r->buffers + i * (in + out);
        r->threads[i].job.out = out == 0 ? NULL : r->threads[i].job.in + in;
    }
    return BK_OK;
}

size_t
bk_pipeline_workers(const struct bk_pipeline *p)
{
    size_t job = p->in_size + p->out_size;
    size_t affordable = BK_PIPELINE_MEMORY / (job == 0 ? 1 : job);
    size_t count = affordable < 1 + BK_PIPELINE_SPARE ? 1 : affordable - BK_PIPELINE_SPARE;

    if (count > p->workers)
        count = p->workers;
    if (p->jobs > 0 && count > p->jobs)
        count = (size_t)p->jobs;
    return count;
}

/* With groups of 1 MiB the buffers of a thread are 2 MiB. */
static size_t
threads_for(const struct bk_pipeline *p, size_t workers)
{
    size_t count = workers + BK_PIPELINE_SPARE;

    return p->jobs > 0 && count > p->jobs ? (size_t)p->jobs : count;
}

/* All that the threads share. On failure the caller releases as well. */
static enum bk_code
run_make(struct run *r, struct bk_err *err)
{
    r->worker_count = bk_pipeline_workers(r->p);
    r->thread_count = threads_for(r->p, r->worker_count);
    r->threads = calloc(r->thread_count, sizeof *r->threads);
    r->idle = calloc(r->thread_count, sizeof *r->idle);
    if (r->threads == NULL || r->idle == NULL)
        return bk_fail_nomem(err);
    for (size_t i = 0; i < r->thread_count; i++) {
        r->threads[i].run = r;
        (void)pthread_cond_init(&r->threads[i].may_write, NULL);
    }
    for (size_t i = 0; i < r->worker_count; i++)
        r->idle[i] = r->worker_count - 1 - i;
    r->idle_count = r->worker_count;
    return make_buffers(r, err);
}

static void
run_release(struct run *r)
{
    if (r->buffers != NULL)
        OPENSSL_cleanse(r->buffers, r->buffers_size);
    free(r->buffers);
    for (size_t i = 0; r->threads != NULL && r->idle != NULL && i < r->thread_count; i++)
        (void)pthread_cond_destroy(&r->threads[i].may_write);
    free(r->threads);
    free(r->idle);
}

enum bk_code
bk_pipeline_run(const struct bk_pipeline *p, struct bk_err *err)
{
    struct run r = {.p = p, .failed_at = NEVER};
    enum bk_code rc;

    if (p->workers == 0 || p->workers > SIZE_MAX / 4 || (p->read_apart && p->jobs == 0))
        return bk_fail(err, BK_E_INTERNAL, "pipeline: %zu workers", p->workers);
    (void)pthread_mutex_init(&r.lock, NULL);
    (void)pthread_cond_init(&r.may_read, NULL);
    (void)pthread_cond_init(&r.may_work, NULL);
    if ((rc = run_make(&r, err)) == BK_OK)
        rc = run_threads(&r, err);
    run_release(&r);
    (void)pthread_cond_destroy(&r.may_work);
    (void)pthread_cond_destroy(&r.may_read);
    (void)pthread_mutex_destroy(&r.lock);
    return rc;
}

size_t
bk_cores(void)
{
    cpu_set_t set;
    long online;
    int allowed;

    if (sched_getaffinity(0, sizeof set, &set) == 0 && (allowed = CPU_COUNT(&set)) > 0)
        return (size_t)allowed;
    /* more cores than cpu_set_t has bits */
    online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (size_t)online : 1;
}
