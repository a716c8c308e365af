/*
 * An archive in its parts, so that one can be changed and the others follow: lengths, checksums, digests, signatures.
 * The input of archive_fuzz.c is u32 length of a sidecar, the sidecar, and the archive.
 */
#ifndef BK_TESTS_FUZZ_ARCHIVE_PARTS_H
#define BK_TESTS_FUZZ_ARCHIVE_PARTS_H

#include "base/buf.h"
#include "format/envelope.h"
#include "format/manifest.h"
#include "format/preamble.h"
#include "format/record.h"
#include "format/signed.h"
#include "format/tail.h"

struct fuzz_parts {
    struct bk_buf sidecar;
    uint8_t preamble[BK_PREAMBLE_LEN];
    struct bk_buf slots[2]; /* as stored; empty if the envelope is detached */
    struct bk_buf frames;
    struct bk_buf index;
    struct bk_buf manifest; /* the SignedData */
    uint8_t tail[BK_TAIL_LEN];
};

/* Zero-initialise. */
void fuzz_parts_free(struct fuzz_parts *p);
/* 1 if data has all parts, by the lengths that it tells. */
int fuzz_parts_split(struct fuzz_parts *p, const uint8_t *data, size_t size);
/* The size, or 0 if it is over max_size. */
size_t fuzz_parts_join(const struct fuzz_parts *p, uint8_t *out, size_t max_size);

/* What an archive of the fuzzers holds. */
struct fuzz_plan {
    size_t plain_len;
    unsigned generation; /* 1 or 2 */
    int detached;
    int kind;  /* enum bk_kind */
    int words; /* label, producer, retain-until, parent, metadata */
};
/* For the fuzzers' KEK and by their signing key; segments of 4 KiB. */
void fuzz_parts_make(struct fuzz_parts *p, const struct fuzz_plan *plan);

/* ---- what follows when a part has changed; each does nothing where the part does not parse ---- */

/* Envelope and record of a slot or sidecar; NULL of either leaves it as it is. Returns 0 if there is no room. */
int fuzz_slot_put(struct bk_buf *slot, int padded, const struct bk_buf *envelope, const struct bk_buf *record);
/* Copies of what a slot or sidecar holds; 0 if it is not whole. */
int fuzz_slot_get(const struct bk_buf *slot, int padded, struct bk_buf *envelope, struct bk_buf *record);
/* The record's envelopeHash, and from generation 2 on its signature. */
void fuzz_record_follow(const struct bk_buf *envelope, struct bk_buf *record, const uint8_t manifest_digest[32]);
/* The index, from the frames. */
void fuzz_index_follow(struct fuzz_parts *p);
/* All that the manifest says of the other parts, signed anew. */
void fuzz_manifest_follow(struct fuzz_parts *p);
/* Offsets and lengths of the tail, and its checksum. */
void fuzz_tail_follow(struct fuzz_parts *p);
/* The inner DER of a SignedData in its place, signed by the fuzzers' key. */
void fuzz_sign(struct bk_buf *out, const struct bk_buf *content, enum bk_content type);

#endif
