/*
 * Secrets: memory that is locked, left out of core dumps, and wiped on release. PINs, data keys and everything derived
 * from them live here and nowhere else. It is OpenSSL's secure heap (CRYPTO_secure_malloc_init, OpenSSL 3.0), one arena
 * for the process, with guard pages around it.
 */
#ifndef BK_BASE_SECRET_H
#define BK_BASE_SECRET_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* The arena, a power of two: enough for every key of a run (of 256 workers' ciphers some 300 KiB), one key package of
 * the largest size with its copy, and the PINs. */
#define BK_SECRET_ARENA (1024 * 1024)

struct bk_secret {
    uint8_t *data; /* NULL when empty */
    size_t len;
};

/*
 * Makes the arena; once, before any thread and any other call here. *locked says whether the system let us lock it
 * (RLIMIT_MEMLOCK): if not, secrets are still wiped and undumpable but could be swapped, and the program says so.
 */
BK_MUST_USE enum bk_code bk_secret_init(int *locked, struct bk_err *err);

/* Zeroed room for len bytes (at least 1). *s must be empty. The caller wipes. */
BK_MUST_USE enum bk_code bk_secret_alloc(struct bk_secret *s, size_t len, struct bk_err *err);

/* A copy of len bytes. *s must be empty. The caller wipes s, and src if it was secret too. */
BK_MUST_USE enum bk_code bk_secret_from(struct bk_secret *s, const void *src, size_t len, struct bk_err *err);

/* len fresh random bytes from the host's CSPRNG (RAND_priv_bytes). *s must be empty. */
BK_MUST_USE enum bk_code bk_secret_random(struct bk_secret *s, size_t len, struct bk_err *err);

/* Hands *src over to the empty *dst and empties *src. */
void bk_secret_move(struct bk_secret *dst, struct bk_secret *src);

/* Wipes and releases; safe on the empty value and twice. */
void bk_secret_wipe(struct bk_secret *s);

/* 1 if both hold the same bytes; the time taken depends on the lengths alone. */
int bk_secret_equal(const struct bk_secret *a, const struct bk_secret *b);

#endif
