#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>

BK_PRINTF(3, 0)
static void
fill(struct bk_err *err, enum bk_code code, const char *fmt, va_list args)
{
    if (err == NULL)
        return;
    memset(err, 0, sizeof *err);
    err->code = code;
    (void)vsnprintf(err->message, sizeof err->message, fmt, args);
}

enum bk_code
bk_fail(struct bk_err *err, enum bk_code code, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    fill(err, code, fmt, args);
    va_end(args);
    return code;
}

enum bk_code
bk_fail_errno(struct bk_err *err, int os_errno, const char *fmt, ...)
{
    enum bk_code code = BK_E_IO;
    char text[128];
    va_list args;

    if (os_errno == ENOSPC || os_errno == EDQUOT || os_errno == ENOMEM)
        code = BK_E_NO_ROOM;
    va_start(args, fmt);
    fill(err, code, fmt, args);
    va_end(args);
    if (err == NULL)
        return code;
    err->os_errno = os_errno;
    /* the GNU strerror_r returns the text, which may or may not be in the buffer */
    const char *why = strerror_r(os_errno, text, sizeof text);
    size_t used = strlen(err->message);
    (void)snprintf(err->message + used, sizeof err->message - used, ": %s", why);
    return code;
}

enum bk_code
bk_fail_nomem(struct bk_err *err)
{
    return bk_fail(err, BK_E_NO_ROOM, "out of memory");
}

enum bk_code
bk_crypto_end(enum bk_code rc, struct bk_err *err)
{
    unsigned long queued;
    int no_memory = 0;

    while ((queued = ERR_get_error()) != 0)
        no_memory |= ERR_GET_REASON(queued) == ERR_R_MALLOC_FAILURE;
    return rc != BK_OK && no_memory ? bk_fail_nomem(err) : rc;
}

void
bk_err_prefix(struct bk_err *err, const char *fmt, ...)
{
    char prefix[512];
    size_t head, tail;
    va_list args;

    if (err == NULL)
        return;
    va_start(args, fmt);
    (void)vsnprintf(prefix, sizeof prefix - 2, fmt, args);
    va_end(args);
    head = strlen(prefix);
    memcpy(prefix + head, ": ", 2);
    head += 2;
    /* a message that no longer fits loses its end, never its beginning */
    tail = strnlen(err->message, sizeof err->message - 1 - head);
    memmove(err->message + head, err->message, tail);
    memcpy(err->message, prefix, head);
    err->message[head + tail] = '\0';
}

void
bk_err_hint(struct bk_err *err, const char *fmt, ...)
{
    va_list args;

    if (err == NULL)
        return;
    va_start(args, fmt);
    (void)vsnprintf(err->hint, sizeof err->hint, fmt, args);
    va_end(args);
}

void
bk_err_layer(struct bk_err *err, const char *layer)
{
    if (err != NULL && err->layer == NULL)
        err->layer = layer;
}

int
bk_code_is_verification(enum bk_code code)
{
    return code >= BK_E_FORMAT && code <= BK_E_UNEXPECTED;
}
