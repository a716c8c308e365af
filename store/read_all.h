/* Small files whole: certificates, manifests, trust files. */
#ifndef BK_STORE_READ_ALL_H
#define BK_STORE_READ_ALL_H

#include "base/buf.h"
#include "base/err.h"

/* Reads a file (or a pipe, or "-") of at most max bytes into the empty *out; a NUL is appended beyond len. Over max is
 * BK_E_IO. On failure *out stays empty. */
BK_MUST_USE enum bk_code store_read_all(const char *path, size_t max, struct bk_buf *out, struct bk_err *err);

#endif
