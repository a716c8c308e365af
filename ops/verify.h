/* Verifying an archive in place: keyless down to every byte of the payload, or with a key down to every tag. */
#ifndef BK_OPS_VERIFY_H
#define BK_OPS_VERIFY_H

#include "format/engine.h"
#include "ops/expect.h"
#include "ops/keyring.h"
#include "ops/trust.h"

enum ops_level {
    OPS_LEVEL_SIGNATURE, /* head, manifest, lineage, roles, index: says who made it and that it is complete */
    OPS_LEVEL_INTEGRITY, /* and every byte of the payload against the signed index */
    OPS_LEVEL_DECRYPT,   /* and that a key opens it, and every tag holds */
};

struct ops_verify {
    const char *archive; /* a file's name */
    enum ops_level level;
    const struct ops_trust *trust; /* NULL: for showing only, nobody's signature is asked for */
    const struct ops_keyring *ring;
    const struct ops_expect *expect;
    const char *manifest_path; /* a kept copy to compare with, or NULL */
    size_t workers;
    const struct bk_engine *engine; /* NULL: OpenSSL's */
    int direct;                     /* files are read and written past the system's cache */
    const struct bk_log *log;
    const struct bk_cancel *cancel;
};

/* All that can go wrong, in the order of docs/FORMAT.md; a damaged slot comes last, since the archive still opens.
 * *a is left filled as far as it was read, for showing; the caller closes *src after freeing *a. */
BK_MUST_USE enum bk_code ops_verify_run(const struct ops_verify *v, struct ops_archive *a, struct store_source **src,
                                        struct bk_err *err);

#endif
