#include "base/pipeline.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define NEVER        UINT64_MAX
#define BUFFER_ALIGN 4096

enum slot_state { SLOT_FREE, SLOT_READ, SLOT_WORKED };

struct slot {
    struct bk_job job;
    enum slot_state state;
};

/*
 * Job n lives in slot n modulo slot_count: jobs are freed in the order in which they were read. A slot belongs to one
 * stage at a time, and changes hands under the lock; no stage works with the lock held.
 */
struct run {
    const struct bk_pipeline *p;
    struct slot *slots;
    size_t slot_count;
    size_t worker_count;
    pthread_mutex_t lock;
    pthread_cond_t freed;  /* a slot for the reader */
    pthread_cond_t filled; /* a job for the workers, or the reader is done */
    pthread_cond_t worked; /* a job for the writer, or a failure, or the reader is done */
    uint64_t next_read;    /* jobs that were read */
    uint64_t next_work;    /* jobs that a worker has taken */
    int reader_done;
    uint64_t failed_at; /* the lowest job that failed, or NEVER */
    enum bk_code code;
    struct bk_err err;
};

struct worker {
    struct run *run;
    size_t index;
    pthread_t thread;
};

/*
 * Records a failure of job n unless an earlier job has failed already; with the lock held. Returns 1 if the reader may
 * be blocked and nobody has told it yet: the caller then interrupts it, without the lock.
 */
static int
record(struct run *r, uint64_t n, enum bk_code code, const struct bk_err *err)
{
    int first = r->failed_at == NEVER;

    if (n < r->failed_at) {
        r->failed_at = n;
        r->code = code;
        r->err = *err;
    }
    pthread_cond_broadcast(&r->freed);
    pthread_cond_broadcast(&r->filled);
    pthread_cond_broadcast(&r->worked);
    return first && !r->reader_done && r->p->interrupt != NULL;
}

/* Waits for a free slot for job n; NULL when there was a failure. With the lock held. */
static struct bk_job *
await_free(struct run *r, uint64_t n)
{
    struct slot *s = &r->slots[n % r->slot_count];

    while (s->state != SLOT_FREE && r->failed_at == NEVER)
        pthread_cond_wait(&r->freed, &r->lock);
    if (r->failed_at != NEVER)
        return NULL;
    s->job.number = n;
    s->job.in_len = 0;
    s->job.out_len = 0;
    s->job.last = 0;
    memset(s->job.digest, 0, sizeof s->job.digest);
    return &s->job;
}

static void *
reader_main(void *arg)
{
    struct run *r = arg;
    struct bk_err err = {0};
    struct bk_job *job;
    int last = 0;

    pthread_mutex_lock(&r->lock);
    while (!last && (job = await_free(r, r->next_read)) != NULL) {
        pthread_mutex_unlock(&r->lock);
        enum bk_code rc = r->p->read(r->p->ctx, job, &err);
        pthread_mutex_lock(&r->lock);
        if (rc != BK_OK) {
            (void)record(r, job->number, rc, &err);
            break;
        }
        last = job->last;
        r->slots[r->next_read % r->slot_count].state = SLOT_READ;
        r->next_read++;
        pthread_cond_signal(&r->filled);
    }
    r->reader_done = 1;
    pthread_cond_broadcast(&r->filled);
    pthread_cond_broadcast(&r->worked);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/*
 * The next job to work on, or NULL when there will be none. With the lock held. After a failure the jobs before it are
 * still worked on, so that of several damaged jobs the first is reported however the threads were scheduled.
 */
static struct slot *
take_work(struct run *r)
{
    while (r->next_work == r->next_read && !r->reader_done)
        pthread_cond_wait(&r->filled, &r->lock);
    if (r->next_work == r->next_read || r->next_work > r->failed_at)
        return NULL;
    return &r->slots[r->next_work++ % r->slot_count];
}

static void *
worker_main(void *arg)
{
    struct worker *w = arg;
    struct run *r = w->run;
    struct bk_err err = {0};
    struct slot *s;

    pthread_mutex_lock(&r->lock);
    while ((s = take_work(r)) != NULL) {
        int interrupt = 0;

        pthread_mutex_unlock(&r->lock);
        enum bk_code rc = r->p->work(r->p->ctx, w->index, &s->job, &err);
        pthread_mutex_lock(&r->lock);
        s->state = SLOT_WORKED;
        if (rc != BK_OK)
            interrupt = record(r, s->job.number, rc, &err);
        pthread_cond_signal(&r->worked);
        if (interrupt) {
            pthread_mutex_unlock(&r->lock);
            r->p->interrupt(r->p->ctx);
            pthread_mutex_lock(&r->lock);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* Waits until job n can be written; NULL after a failure. With the lock held. */
static struct slot *
await_worked(struct run *r, uint64_t n)
{
    struct slot *s = &r->slots[n % r->slot_count];

    while (s->state != SLOT_WORKED && r->failed_at == NEVER)
        pthread_cond_wait(&r->worked, &r->lock);
    return r->failed_at == NEVER ? s : NULL;
}

static void
write_all(struct run *r)
{
    struct bk_err err = {0};
    struct slot *s;
    int interrupt = 0;
    int last = 0;

    pthread_mutex_lock(&r->lock);
    for (uint64_t n = 0; !last && (s = await_worked(r, n)) != NULL; n++) {
        pthread_mutex_unlock(&r->lock);
        enum bk_code rc = r->p->write(r->p->ctx, &s->job, &err);
        pthread_mutex_lock(&r->lock);
        last = s->job.last;
        if (rc != BK_OK) {
            interrupt = record(r, n, rc, &err);
            break;
        }
        s->state = SLOT_FREE;
        pthread_cond_signal(&r->freed);
    }
    pthread_mutex_unlock(&r->lock);
    if (interrupt)
        r->p->interrupt(r->p->ctx);
}

/* Releases the workers when there is no reader to do it. */
static void
abandon(struct run *r)
{
    pthread_mutex_lock(&r->lock);
    r->reader_done = 1;
    pthread_cond_broadcast(&r->filled);
    pthread_mutex_unlock(&r->lock);
}

/* Starts the workers, at least one and at most as many as were asked for; returns how many there are. */
static size_t
start_workers(struct run *r, struct worker *workers, int *why)
{
    size_t n = 0;

    for (; n < r->worker_count; n++) {
        workers[n] = (struct worker){.run = r, .index = n};
        *why = pthread_create(&workers[n].thread, NULL, worker_main, &workers[n]);
        if (*why != 0)
            break;
    }
    return n;
}

static enum bk_code
run_threads(struct run *r, struct worker *workers, struct bk_err *err)
{
    pthread_t reader;
    sigset_t all;
    sigset_t before;
    int why = 0;
    size_t count;
    enum bk_code rc = BK_OK;

    /* no thread started here takes a signal: handlers run where the program expects them */
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    count = start_workers(r, workers, &why);
    if (count > 0)
        why = pthread_create(&reader, NULL, reader_main, r);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (count == 0 || why != 0) {
        rc = bk_fail_errno(err, why, "cannot start a thread");
        abandon(r);
    } else {
        write_all(r);
        (void)pthread_join(reader, NULL);
    }
    for (size_t i = 0; i < count; i++)
        (void)pthread_join(workers[i].thread, NULL);
    if (rc == BK_OK && r->failed_at != NEVER) {
        if (err != NULL)
            *err = r->err;
        rc = r->code;
    }
    return rc;
}

static enum bk_code
make_buffer(uint8_t **out, size_t size, struct bk_err *err)
{
    void *at = NULL;

    if (size == 0)
        return BK_OK;
    if (posix_memalign(&at, BUFFER_ALIGN, size) != 0)
        return bk_fail_nomem(err);
    *out = at;
    return BK_OK;
}

static enum bk_code
make_slots(struct run *r, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; rc == BK_OK && i < r->slot_count; i++) {
        rc = make_buffer(&r->slots[i].job.in, r->p->in_size, err);
        if (rc == BK_OK)
            rc = make_buffer(&r->slots[i].job.out, r->p->out_size, err);
    }
    return rc;
}

static void
wipe_slots(struct run *r)
{
    for (size_t i = 0; r->slots != NULL && i < r->slot_count; i++) {
        struct bk_job *job = &r->slots[i].job;

        if (job->in != NULL)
            OPENSSL_cleanse(job->in, r->p->in_size);
        if (job->out != NULL)
            OPENSSL_cleanse(job->out, r->p->out_size);
        free(job->in);
        free(job->out);
    }
    free(r->slots);
}

size_t
bk_pipeline_workers(const struct bk_pipeline *p)
{
    size_t job = p->in_size + p->out_size;
    size_t affordable = BK_PIPELINE_MEMORY / (job == 0 ? 1 : job);
    size_t count = affordable < 4 ? 1 : (affordable - 2) / 2;

    if (count > p->workers)
        count = p->workers;
    if (p->jobs > 0 && count > p->jobs)
        count = (size_t)p->jobs;
    return count;
}

/* One job in work and one waiting for each worker, one with the reader, one with the writer: with groups of 1 MiB their
 * buffers are 4 MiB a worker and 4 MiB more. */
static size_t
slots_for(const struct bk_pipeline *p, size_t workers)
{
    size_t count = workers * 2 + 2;

    return p->jobs > 0 && count > p->jobs ? (size_t)p->jobs : count;
}

enum bk_code
bk_pipeline_run(const struct bk_pipeline *p, struct bk_err *err)
{
    struct run r = {.p = p, .failed_at = NEVER};
    struct worker *workers = NULL;
    enum bk_code rc;

    if (p->workers == 0 || p->workers > SIZE_MAX / 4)
        return bk_fail(err, BK_E_INTERNAL, "pipeline: %zu workers", p->workers);
    r.worker_count = bk_pipeline_workers(p);
    r.slot_count = slots_for(p, r.worker_count);
    (void)pthread_mutex_init(&r.lock, NULL);
    (void)pthread_cond_init(&r.freed, NULL);
    (void)pthread_cond_init(&r.filled, NULL);
    (void)pthread_cond_init(&r.worked, NULL);
    r.slots = calloc(r.slot_count, sizeof *r.slots);
    workers = calloc(r.worker_count, sizeof *workers);
    if (r.slots == NULL || workers == NULL) {
        rc = bk_fail_nomem(err);
        goto done;
    }
    if ((rc = make_slots(&r, err)) != BK_OK)
        goto done;
    rc = run_threads(&r, workers, err);
done:
    wipe_slots(&r);
    free(workers);
    (void)pthread_cond_destroy(&r.worked);
    (void)pthread_cond_destroy(&r.filled);
    (void)pthread_cond_destroy(&r.freed);
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
