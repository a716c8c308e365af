/* Names in a folder: whether a file is there, and taking it away again. */
#ifndef BK_STORE_NAME_H
#define BK_STORE_NAME_H

#include "base/err.h"

/* *out is 1 if something is there under that name, also a broken link. */
BK_MUST_USE enum bk_code store_name_exists(const char *path, int *out, struct bk_err *err);

/* Removes a file; one that is not there is no error. */
BK_MUST_USE enum bk_code store_name_remove(const char *path, struct bk_err *err);

#endif
