/* The preamble: the first 4096 bytes of an archive. docs/FORMAT.md, Preamble. Pure functions on bytes. */
#ifndef BK_FORMAT_PREAMBLE_H
#define BK_FORMAT_PREAMBLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/time.h"

#define BK_PREAMBLE_LEN         4096
#define BK_VERSION              1
#define BK_FLAG_DETACHED        1u
#define BK_SLOT_SIZE_DEFAULT    32768
#define BK_SLOT_SIZE_UNIT       4096
#define BK_SLOT_SIZE_MAX        (1024 * 1024)
#define BK_SEGMENT_SIZE_DEFAULT 32768
#define BK_SEGMENT_SIZE_MIN     4096
#define BK_SEGMENT_SIZE_MAX     (1024 * 1024)
#define BK_PREAMBLE_BOUND       36 /* bytes 0 to 35 are bound into the payload keys and the commitment */

struct bk_preamble {
    uint16_t flags;
    uint32_t slot_size;    /* 0 exactly when BK_FLAG_DETACHED is set */
    uint32_t segment_size; /* plaintext bytes in a segment */
    uint8_t archive_id[BK_UUID_LEN];
    uint8_t key_commit[32];
};

/* Writes all 4096 bytes, checksum included. */
void bk_preamble_write(const struct bk_preamble *p, uint8_t out[BK_PREAMBLE_LEN]);

/*
 * Checks in this order: length (BK_E_INCOMPLETE when short), magic, version (BK_E_NEWER names it), flags (BK_E_NEWER),
 * checksum, then every field, the UUID's version and the zero bytes. *out is untouched unless all hold.
 */
BK_MUST_USE enum bk_code bk_preamble_parse(const uint8_t *buf, size_t len, struct bk_preamble *out, struct bk_err *err);

/* Where the frames begin: 4096 + 2 * slot_size. */
uint64_t bk_preamble_head_length(const struct bk_preamble *p);

#endif
