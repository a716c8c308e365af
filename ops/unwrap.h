/* Restoring: an archive checked in the order of docs/FORMAT.md, opened, and its plaintext handed on. */
#ifndef BK_OPS_UNWRAP_H
#define BK_OPS_UNWRAP_H

#include "format/engine.h"
#include "ops/expect.h"
#include "ops/keyring.h"
#include "ops/trust.h"

struct ops_unwrap {
    const char *archive;  /* a file's name, or "-" */
    const char *output;   /* a file's name or "-"; ignored with a command */
    char *const *command; /* NULL-terminated argv of a consumer, or NULL */
    int force;
    size_t workers;
    const struct bk_engine *engine; /* NULL: OpenSSL's */
    int direct;                     /* files are read and written past the system's cache */

    const struct ops_keyring *ring;
    const struct ops_trust *trust;
    const struct ops_expect *expect;
    const char *manifest_path; /* a kept copy of the signed manifest, or NULL */
    int allow_unverified;      /* plaintext of a stream may leave before its manifest is seen */

    int has_range; /* of a file only */
    uint64_t offset;
    uint64_t length; /* UINT64_MAX: to the end */
    int meta_only;   /* private metadata, "key=value" a line, in place of the plaintext */

    const struct bk_log *log;
    const struct bk_cancel *cancel;
};

struct ops_unwrap_result {
    uint8_t archive_id[BK_UUID_LEN]; /* zero until known */
    uint64_t generation;
    uint64_t plaintext_length; /* bytes handed on */
    struct bk_key_id opened_by;
};

/*
 * A file appears under the output's name only when the whole archive (or range) was verified. A command is killed
 * before it sees the end of its input if anything fails. Standard output gets nothing that was not checked against the
 * signed index, but may have got part of the plaintext when a later group fails.
 */
BK_MUST_USE enum bk_code ops_unwrap_run(const struct ops_unwrap *u, struct ops_unwrap_result *out, struct bk_err *err);

#endif
