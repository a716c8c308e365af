/*
 * What an engine does alone, with no input and no output: the limit of what the programs can reach. Each thread seals,
 * opens or hashes a group of 32 segments of its own, again and again; the rate counts bytes of plaintext (of root:
 * bytes of frames). Beside it stands the rate for each second of processor time, which on a machine that has other work
 * to do says more.
 *
 *     engine_bench [--json] [ENGINE [THREADS [SECONDS]]]     all engines, one thread and all cores, 1 second each
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/pipeline.h"
#include "base/secret.h"
#include "format/payload.h"

#define SEGMENT BK_SEGMENT_SIZE_DEFAULT
#define GROUP   ((size_t)SEGMENT * BK_GROUP_SEGMENTS)
#define FRAMES  (((size_t)SEGMENT + BK_FRAME_OVERHEAD) * BK_GROUP_SEGMENTS)

enum work { SEAL, OPEN, ROOT };
static const char *const work_names[] = {"seal", "open", "root"};

struct run {
    const struct bk_engine *engine;
    enum work work;
    double seconds;
    const struct bk_payload *keys;
    pthread_barrier_t start;
    atomic_uint_least64_t bytes;
};

static double
now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double
processor_time(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void
must(enum bk_code rc, const struct bk_err *err)
{
    if (rc == BK_OK)
        return;
    (void)fprintf(stderr, "engine_bench: %s\n", err->message);
    exit(1);
}

static void *
room(size_t len)
{
    void *at = NULL;

    if (posix_memalign(&at, 4096, len) != 0)
        exit(1);
    memset(at, 0x5a, len);
    return at;
}

static void *
thread_main(void *arg)
{
    struct run *r = arg;
    struct bk_cipher c = {.engine = r->engine};
    struct bk_err err = {0};
    uint8_t *plain = room(GROUP), *frames = room(FRAMES), root[32];
    size_t plain_len = GROUP, len = 0;
    uint64_t done = 0;
    double end;

    must(bk_group_seal(r->keys, &c, 0, 0, plain, GROUP, frames, &len, root, &err), &err);
    (void)pthread_barrier_wait(&r->start);
    for (end = now() + r->seconds; now() < end;) {
        if (r->work == SEAL)
            must(bk_group_seal(r->keys, &c, 0, 0, plain, GROUP, frames, &len, root, &err), &err);
        else if (r->work == OPEN)
            must(bk_group_open(r->keys, &c, 0, 0, frames, len, plain, &plain_len, root, &err), &err);
        else
            must(bk_group_root(&c, SEGMENT, 0, 0, frames, len, root, &err), &err);
        done += r->work == ROOT ? len : GROUP;
    }
    atomic_fetch_add(&r->bytes, done);
    bk_cipher_free(&c);
    free(plain);
    free(frames);
    return NULL;
}

/* Returns GB/s of all threads together; *by_processor is per second of one processor. */
static double
measure(const struct bk_engine *engine, enum work work, size_t threads, double seconds, const struct bk_payload *keys,
        double *by_processor)
{
    struct run r = {.engine = engine, .work = work, .seconds = seconds, .keys = keys};
    pthread_t *t = calloc(threads, sizeof *t);
    double start, spent, took;

    if (t == NULL || pthread_barrier_init(&r.start, NULL, (unsigned)threads + 1) != 0)
        exit(1);
    for (size_t i = 0; i < threads; i++)
        if (pthread_create(&t[i], NULL, thread_main, &r) != 0)
            exit(1);
    (void)pthread_barrier_wait(&r.start);
    start = now();
    spent = processor_time();
    for (size_t i = 0; i < threads; i++)
        (void)pthread_join(t[i], NULL);
    took = now() - start;
    *by_processor = (double)r.bytes / (processor_time() - spent) / 1e9;
    free(t);
    (void)pthread_barrier_destroy(&r.start);
    return (double)r.bytes / took / 1e9;
}

static void
tell(int json, const struct bk_engine *engine, size_t threads, double seconds, const struct bk_payload *keys)
{
    for (int w = SEAL; w <= ROOT; w++) {
        double by_processor;
        double rate = measure(engine, (enum work)w, threads, seconds, keys, &by_processor);

        (void)printf(json ? "{\"engine\": \"%s\", \"work\": \"%s\", \"threads\": %zu, \"gigabytesPerSecond\": %.3f, "
                            "\"gigabytesPerProcessorSecond\": %.3f}\n"
                          : "%-10s %-6s %3zu threads %8.3f GB/s %8.3f GB for a processor second\n",
                     engine->name, work_names[w], threads, rate, by_processor);
        (void)fflush(stdout);
    }
}

static void
make_keys(struct bk_payload *keys)
{
    struct bk_preamble p = {.slot_size = 32768, .segment_size = SEGMENT};
    uint8_t preamble[BK_PREAMBLE_LEN], digest[32] = {0};
    struct bk_secret file_key = {0};
    struct bk_err err = {0};
    int locked;

    must(bk_secret_init(&locked, &err), &err);
    bk_preamble_write(&p, preamble);
    must(bk_secret_random(&file_key, BK_FILE_KEY_LEN, &err), &err);
    must(bk_payload_init(keys, preamble, &file_key, digest, &err), &err);
    bk_secret_wipe(&file_key);
}

int
main(int argc, char **argv)
{
    int json = argc > 1 && strcmp(argv[1], "--json") == 0;
    const char *name = argc > 1 + json ? argv[1 + json] : NULL;
    size_t threads = argc > 2 + json ? strtoul(argv[2 + json], NULL, 10) : 0;
    double seconds = argc > 3 + json ? strtod(argv[3 + json], NULL) : 1;
    struct bk_payload keys = {0};
    struct bk_err err = {0};

    make_keys(&keys);
    for (size_t i = 0; bk_engines[i] != NULL; i++) {
        if ((name != NULL && strcmp(name, bk_engines[i]->name) != 0) || bk_engines[i]->fit() == BK_ENGINE_MISSING)
            continue;
        must(bk_engine_check(bk_engines[i], &err), &err);
        if (threads > 0) {
            tell(json, bk_engines[i], threads, seconds, &keys);
            continue;
        }
        tell(json, bk_engines[i], 1, seconds, &keys);
        if (bk_cores() > 1)
            tell(json, bk_engines[i], bk_cores(), seconds, &keys);
    }
    bk_payload_wipe(&keys);
    return 0;
}
