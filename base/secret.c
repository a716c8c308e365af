#include "base/secret.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

enum bk_code
bk_secret_init(int *locked, struct bk_err *err)
{
    int made;

    if (CRYPTO_secure_malloc_initialized()) {
        *locked = 1;
        return BK_OK;
    }
    made = CRYPTO_secure_malloc_init(BK_SECRET_ARENA, 32);
    if (made == 0)
        return bk_fail(err, BK_E_NO_ROOM, "no protected memory for secrets");
    *locked = made == 1;
    return BK_OK;
}

enum bk_code
bk_secret_alloc(struct bk_secret *s, size_t len, struct bk_err *err)
{
    if (s->data != NULL || len == 0)
        return bk_fail(err, BK_E_INTERNAL, "secret: not empty, or of no length");
    s->data = OPENSSL_secure_zalloc(len);
    /* outside the arena the secret would be neither locked nor undumpable: refuse rather than fall back */
    if (s->data != NULL && !CRYPTO_secure_allocated(s->data)) {
        OPENSSL_secure_free(s->data);
        s->data = NULL;
    }
    if (s->data == NULL)
        return bk_fail(err, BK_E_NO_ROOM, "no protected memory left for a secret of %zu bytes", len);
    s->len = len;
    return BK_OK;
}

enum bk_code
bk_secret_from(struct bk_secret *s, const void *src, size_t len, struct bk_err *err)
{
    enum bk_code rc = bk_secret_alloc(s, len, err);

    if (rc == BK_OK)
        memcpy(s->data, src, len);
    return rc;
}

enum bk_code
bk_secret_random(struct bk_secret *s, size_t len, struct bk_err *err)
{
    enum bk_code rc = bk_secret_alloc(s, len, err);

    if (rc != BK_OK)
        return rc;
    if (RAND_priv_bytes(s->data, (int)len) != 1) {
        bk_secret_wipe(s);
        return bk_fail(err, BK_E_INTERNAL, "the random number generator failed");
    }
    return BK_OK;
}

void
bk_secret_move(struct bk_secret *dst, struct bk_secret *src)
{
    bk_secret_wipe(dst);
    *dst = *src;
    src->data = NULL;
    src->len = 0;
}

void
bk_secret_wipe(struct bk_secret *s)
{
    if (s->data != NULL)
        OPENSSL_secure_clear_free(s->data, s->len);
    s->data = NULL;
    s->len = 0;
}

int
bk_secret_equal(const struct bk_secret *a, const struct bk_secret *b)
{
    return a->len == b->len && a->data != NULL && b->data != NULL && CRYPTO_memcmp(a->data, b->data, a->len) == 0;
}
