#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned long accepted;

_Noreturn void
fuzz_broken(const char *property, const char *file, int line)
{
    (void)fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, property);
    abort();
}

void
fuzz_must(enum bk_code rc, const struct bk_err *err)
{
    if (rc == BK_OK)
        return;
    (void)fprintf(stderr, "code %d: %s\n", (int)rc, err->message);
    abort();
}

/* C0, DEL, and C1 in UTF-8 (C2 80 to C2 9F): what could command a terminal. */
static int
has_control(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++)
        if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0))
            return 1;
    return 0;
}

void
fuzz_answer(enum bk_code rc, const struct bk_err *err)
{
    if (rc == BK_OK)
        return;
    fuzz_hold(err->code == rc);
    fuzz_hold(err->message[0] != '\0');
    fuzz_hold(!has_control(err->message));
    fuzz_hold(!has_control(err->hint));
    if (rc == BK_E_INTERNAL)
        (void)fprintf(stderr, "%s\n", err->message);
    fuzz_hold(rc != BK_E_INTERNAL);
}

void
fuzz_verdict(enum bk_code rc, const struct bk_err *err)
{
    fuzz_answer(rc, err);
    if (rc != BK_OK && !bk_code_is_verification(rc))
        (void)fprintf(stderr, "code %d: %s\n", (int)rc, err->message);
    fuzz_hold(rc == BK_OK || bk_code_is_verification(rc));
}

void
fuzz_same_answer(const struct bk_err *a, const struct bk_err *b)
{
    fuzz_hold(a->code == b->code);
    fuzz_hold(strcmp(a->message, b->message) == 0);
    fuzz_hold(strcmp(a->hint, b->hint) == 0);
}

static void
report(void)
{
    (void)fprintf(stderr, "accepted: %lu\n", accepted);
}

void
fuzz_accepted(void)
{
    accepted++;
}

uint8_t *
fuzz_copy(const void *data, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);

    fuzz_hold(copy != NULL);
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}

char *
fuzz_text(const uint8_t *data, size_t len)
{
    char *text = malloc(len + 1);

    fuzz_hold(text != NULL);
    if (len > 0)
        memcpy(text, data, len);
    text[len] = '\0';
    return text;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return atexit(report);
}

/*
 * Secrets live in OpenSSL's secure heap, of which the address sanitizer sees nothing: one element read too far is in
 * the neighbour's. The linker (--wrap) sends bk's calls here, to ordinary blocks of exactly the size asked for.
 */
int __wrap_CRYPTO_secure_malloc_initialized(void);
void *__wrap_CRYPTO_secure_zalloc(size_t num, const char *file, int line);
int __wrap_CRYPTO_secure_allocated(const void *ptr);
void __wrap_CRYPTO_secure_free(void *ptr, const char *file, int line);
void __wrap_CRYPTO_secure_clear_free(void *ptr, size_t num, const char *file, int line);
int __wrap_usleep(useconds_t useconds);

int
__wrap_CRYPTO_secure_malloc_initialized(void)
{
    return 1;
}

void *
__wrap_CRYPTO_secure_zalloc(size_t num, const char *file, int line)
{
    (void)file;
    (void)line;
    return calloc(1, num);
}

int
__wrap_CRYPTO_secure_allocated(const void *ptr)
{
    return ptr != NULL;
}

void
__wrap_CRYPTO_secure_free(void *ptr, const char *file, int line)
{
    (void)file;
    (void)line;
    free(ptr);
}

void
__wrap_CRYPTO_secure_clear_free(void *ptr, size_t num, const char *file, int line)
{
    (void)num;
    __wrap_CRYPTO_secure_free(ptr, file, line);
}

/* An archive with a damaged slot is read again after a moment; here nobody rekeys it meanwhile. */
int
__wrap_usleep(useconds_t useconds)
{
    (void)useconds;
    return 0;
}
