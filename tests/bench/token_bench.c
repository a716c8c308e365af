/*
 * What operations on a token cost. Built twice, with the module in this process and in a worker's;
 * tests/bench/worker.sh runs both in turn and compares. Prints one line for each operation: its name, the count, and
 * the median and the least time in nanoseconds.
 *
 *     token_bench URI-OF-SIGNER URI-OF-AES-KEK URI-OF-RSA-KEK ROUNDS
 *
 * Or how many signatures a second so many threads get, each with a session of its own (tests/bench/sessions.sh):
 *
 *     token_bench rate URI-OF-SIGNER THREADS SIGNATURES-OF-EACH
 */
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/keywrap.h"
#include "pkcs11/p11.h"

#define ROUNDS_MAX 20000

static uint64_t times[ROUNDS_MAX];

static uint64_t
now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int
by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void
tell(const char *name, size_t count)
{
    qsort(times, count, sizeof times[0], by_value);
    (void)printf("%s %zu %llu %llu\n", name, count, (unsigned long long)times[count / 2], (unsigned long long)times[0]);
}

static void
must(enum bk_code rc, const struct bk_err *err)
{
    if (rc == BK_OK)
        return;
    (void)fprintf(stderr, "token_bench: %s\n", err->message);
    exit(1);
}

/* From nothing to an open key, and to nothing again: the module's start, a login, a search. */
static int
run_once(const struct p11_options *options, const char *uri)
{
    struct bk_err err = {0};
    struct p11 *p = NULL;
    struct bk_key *key = NULL;

    must(p11_open(options, &p, &err), &err);
    must(p11_key_open(p, uri, P11_USE_SIGN, &key, &err), &err);
    bk_key_close(key);
    p11_close(p);
    return 0;
}

/* As whole processes, since that is what a program's start is. */
static void
bench_start(const char *uri, size_t rounds)
{
    char *argv[] = {(char *)"token_bench", (char *)(uintptr_t)uri, NULL};

    for (size_t i = 0; i < rounds; i++) {
        uint64_t start = now();
        pid_t pid;
        int status = 0;

        if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) != pid ||
            status != 0)
            exit(1);
        times[i] = now() - start;
    }
    tell("start-to-end", rounds);
}

static void
bench_sign(struct p11 *p, const char *uri, size_t rounds)
{
    struct bk_key *key = NULL;
    struct bk_err err = {0};
    const uint8_t digest[32] = {7};

    must(p11_key_open(p, uri, P11_USE_SIGN, &key, &err), &err);
    for (size_t i = 0; i < rounds; i++) {
        uint8_t sig[BK_SIGNATURE_MAX];
        size_t len = sizeof sig;
        uint64_t start = now();

        must(bk_key_sign(key, digest, sig, &len, &err), &err);
        times[i] = now() - start;
    }
    bk_key_close(key);
    tell("sign-p256", rounds);
}

static void
bench_unwrap(struct p11 *p, const char *name, const char *uri, size_t rounds)
{
    struct bk_key *key = NULL;
    struct bk_err err = {0};
    struct bk_secret cek = {0};
    struct bk_wrapped wrapped = {0};

    must(p11_key_open(p, uri, P11_USE_UNWRAP, &key, &err), &err);
    must(bk_secret_random(&cek, BK_CEK_LEN, &err), &err);
    must(key->pub.spki != NULL ? bk_public_wrap(&key->pub, &cek, &wrapped, &err)
                               : bk_key_wrap(key, &cek, &wrapped, &err),
         &err);
    for (size_t i = 0; i < rounds; i++) {
        struct bk_secret opened = {0};
        uint64_t start = now();

        must(bk_key_unwrap(key, &wrapped, &opened, &err), &err);
        times[i] = now() - start;
        bk_secret_wipe(&opened);
    }
    bk_secret_wipe(&cek);
    bk_key_close(key);
    tell(name, rounds);
}

#define THREADS_MAX 64

struct signing_thread {
    pthread_t thread;
    struct bk_key *key;
    pthread_barrier_t *start;
    size_t count;
};

static void *
sign_often(void *arg)
{
    struct signing_thread *t = arg;
    const uint8_t digest[32] = {7};
    struct bk_err err = {0};

    (void)pthread_barrier_wait(t->start);
    for (size_t i = 0; i < t->count; i++) {
        uint8_t sig[BK_SIGNATURE_MAX];
        size_t len = sizeof sig;

        must(bk_key_sign(t->key, digest, sig, &len, &err), &err);
    }
    return NULL;
}

static int
bench_rate(const struct p11_options *options, const char *uri, size_t threads, size_t count)
{
    static struct signing_thread t[THREADS_MAX];
    pthread_barrier_t start;
    struct bk_err err = {0};
    struct p11 *p = NULL;
    uint64_t began;

    if (threads < 1 || threads > THREADS_MAX || count < 1 ||
        pthread_barrier_init(&start, NULL, (unsigned)threads + 1) != 0)
        return 2;
    must(p11_open(options, &p, &err), &err);
    for (size_t i = 0; i < threads; i++) {
        t[i] = (struct signing_thread){.start = &start, .count = count};
        must(p11_key_open(p, uri, P11_USE_SIGN, &t[i].key, &err), &err);
    }
    for (size_t i = 0; i < threads; i++)
        if (pthread_create(&t[i].thread, NULL, sign_often, &t[i]) != 0)
            return 1;
    (void)pthread_barrier_wait(&start);
    began = now();
    for (size_t i = 0; i < threads; i++)
        (void)pthread_join(t[i].thread, NULL);
    (void)printf("rate %zu %.1f\n", threads, (double)(threads * count) * 1e9 / (double)(now() - began));
    for (size_t i = 0; i < threads; i++)
        bk_key_close(t[i].key);
    p11_close(p);
    (void)pthread_barrier_destroy(&start);
    return 0;
}

int
main(int argc, char **argv)
{
    const struct p11_options options = {.worker = getenv("BK_WORKER")};
    size_t rounds = argc == 5 ? strtoul(argv[4], NULL, 10) : 0;
    struct bk_err err = {0};
    struct p11 *p = NULL;
    int locked = 0;

    must(bk_secret_init(&locked, &err), &err);
    if (argc == 2)
        return run_once(&options, argv[1]);
    if (argc == 5 && strcmp(argv[1], "rate") == 0)
        return bench_rate(&options, argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
    if (rounds < 10 || rounds > ROUNDS_MAX) {
        (void)fprintf(stderr, "usage: token_bench SIGNER AES-KEK RSA-KEK ROUNDS\n");
        return 2;
    }
    bench_start(argv[1], rounds / 10);
    must(p11_open(&options, &p, &err), &err);
    bench_sign(p, argv[1], rounds);
    bench_unwrap(p, "unwrap-aes", argv[2], rounds);
    bench_unwrap(p, "decrypt-rsa3072", argv[3], rounds / 10);
    p11_close(p);
    return 0;
}
