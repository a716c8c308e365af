/* What an archive says of itself, for people and as JSON. */
#ifndef BK_CMD_VERIFY_SHOW_H
#define BK_CMD_VERIFY_SHOW_H

#include <jansson.h>

#include "ops/archive.h"

/* Lines to standard output. trusted 0: says that nothing was verified. */
void show_archive(const char *name, const struct ops_archive *a, int trusted);

/* The same facts; the caller owns the object. */
json_t *show_json(const struct ops_archive *a);

#endif
