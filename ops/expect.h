/* What the caller expects the archive to be, beyond genuine: --expect, --min-generation, --manifest. */
#ifndef BK_OPS_EXPECT_H
#define BK_OPS_EXPECT_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/err.h"
#include "ops/archive.h"

/* Zero-initialise: nothing is expected, and then freshness is not checked. */
struct ops_expect {
    int has_archive_id;
    uint8_t archive_id[BK_UUID_LEN];
    int has_manifest;
    uint8_t manifest_digest[32];
    int has_signer;
    uint8_t signer[32]; /* SHA-256 of the SubjectPublicKeyInfo */
    int has_created_after;
    time_t created_after;
    const char *label; /* borrowed; NULL: any */
    const char *sequence;
    uint64_t min_generation; /* 0: any */
};

/* Takes one NAME=VALUE: archive, manifest, label, signer, sequence, created-after. BK_E_USAGE otherwise. text is kept.
 */
BK_MUST_USE enum bk_code ops_expect_add(struct ops_expect *e, const char *text, struct bk_err *err);

/* BK_E_UNEXPECTED says what was expected and what is there. */
BK_MUST_USE enum bk_code ops_expect_check(const struct ops_expect *e, const struct ops_archive *a, struct bk_err *err);

/* 1 if something pins which archive, or how new it must be. */
int ops_expect_fresh(const struct ops_expect *e);

#endif
