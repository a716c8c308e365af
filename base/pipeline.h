/*
 * read -> work -> ordered write, of many jobs at once. A thread takes a job through all three, so that its bytes stay
 * in one core's cache; reads and writes happen one at a time, in turn, so that sources and sinks need no locks. Memory
 * is bounded by the number of threads: each has one job's buffers, made once and used again, and nobody reads ahead of
 * what is being written by more than that.
 */
#ifndef BK_BASE_PIPELINE_H
#define BK_BASE_PIPELINE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* What the buffers of all jobs may take together. An archive chooses its segments, a reader its memory: with segments
 * of 1 MiB, whose jobs have 64 MiB, there are no more than 14 workers. */
#define BK_PIPELINE_MEMORY ((size_t)1 << 30)

/* One waits for input and one for output while the workers work. */
#define BK_PIPELINE_SPARE 2

/* One group on its way. in and out are page-aligned, of the sizes that the pipeline was made with. */
struct bk_job {
    uint64_t number; /* 0, 1, 2 ... in the order of reading and of writing */
    uint8_t *in;
    size_t in_at; /* where in the buffer its bytes begin; 0 unless read says otherwise */
    size_t in_len;
    uint8_t *out;
    size_t out_at; /* the same for work */
    size_t out_len;
    uint8_t digest[32]; /* for the worker to leave something small for the writer */
    int last;           /* set by read on the final job */
};

struct bk_pipeline {
    void *ctx;
    size_t workers; /* at least 1: so many jobs are worked on at once */
    size_t in_size; /* room of a job's input and output; out_size 0: no output buffer */
    size_t out_size;
    uint64_t jobs; /* how many there will be, if that is known: no more threads and buffers are made; else 0 */
    /* By many threads at once, in no order: for input that has ranges. jobs is then exact. */
    int read_apart;
    /* Fills job->in, in_len and last. One at a time and in the order of number, unless read_apart. */
    enum bk_code (*read)(void *ctx, struct bk_job *job, struct bk_err *err);
    /* worker is 0 to workers - 1, so that each may keep its own cipher contexts. Called by many threads. */
    enum bk_code (*work)(void *ctx, size_t worker, struct bk_job *job, struct bk_err *err);
    /* Called in the order of number, one at a time, by any of the threads. */
    enum bk_code (*write)(void *ctx, struct bk_job *job, struct bk_err *err);
    /* Makes a blocked read return early once another stage has failed. Called at most once, by another thread than the
     * reader's, perhaps just before read is entered: the request must last. NULL if read never blocks for long. */
    void (*interrupt)(void *ctx);
};

/*
 * Runs until the job marked last has been written, or a stage fails: then no further job is read or written, all
 * threads are joined, buffers are wiped (they held plaintext), and the failure that came first in the order of jobs is
 * returned: jobs before a failed one are still worked on (never written) to know that. The threads that it starts take
 * no signals. Fewer workers than asked for are used when the system refuses more threads, when there are fewer jobs, or
 * when their buffers would take more than BK_PIPELINE_MEMORY, but at least one.
 */
BK_MUST_USE enum bk_code bk_pipeline_run(const struct bk_pipeline *p, struct bk_err *err);

/* How many workers a run starts if the system lets it: no more than asked for, than there are jobs, or than memory is
 * meant for, and at least one. */
size_t bk_pipeline_workers(const struct bk_pipeline *p);

/* The cores that this process may use (sched_getaffinity), at least 1. */
size_t bk_cores(void);

#endif
