/*
 * An archive that is being read: its parts in the order in which docs/FORMAT.md ("Order of checks") has them checked.
 * Each step below is one of those checks, and a later step is only called when the earlier ones passed.
 */
#ifndef BK_OPS_ARCHIVE_H
#define BK_OPS_ARCHIVE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "format/envelope.h"
#include "format/key_package.h"
#include "format/manifest.h"
#include "format/preamble.h"
#include "format/record.h"
#include "format/signed.h"
#include "format/slot.h"
#include "format/tail.h"
#include "ops/trust.h"
#include "store/source.h"

enum ops_sidecar_state { OPS_SIDECAR_ABSENT, OPS_SIDECAR_VALID, OPS_SIDECAR_DAMAGED };

/* Where the envelope was found that counts. */
enum ops_taken { OPS_TAKEN_A, OPS_TAKEN_B, OPS_TAKEN_SIDECAR };
/* "slot A", "slot B", "sidecar". */
const char *ops_taken_name(enum ops_taken taken);

/* Zero-initialise; release with ops_archive_free. The source is borrowed. */
struct ops_archive {
    struct store_source *src;
    const struct bk_log *log;
    int sidecar_given; /* set by the caller: the sidecar is what the caller put there, not what lies beside the file */

    uint8_t *head; /* preamble and both slots, as stored */
    size_t head_len;
    struct bk_preamble preamble;
    struct bk_slots slots; /* of an archive whose envelope is not detached */
    enum ops_sidecar_state sidecar_state;
    struct bk_buf sidecar; /* as stored */
    struct bk_slot sidecar_slot;
    struct bk_err sidecar_damage;
    enum ops_taken taken;
    struct bk_slot slot; /* the one that was taken: the valid one of the highest generation */

    struct bk_tail tail;
    struct bk_layout layout;
    struct bk_signed manifest_signed;
    struct bk_buf manifest_der; /* the SignedData as stored */
    struct bk_manifest manifest;
    uint8_t manifest_digest[32];

    struct bk_envelope envelope;
    struct bk_record record;
    struct bk_signed record_signed; /* from generation 2 on */
    uint8_t record_digest[32];

    uint8_t *index; /* 32 bytes a group */
};

void ops_archive_free(struct ops_archive *a);

/* Preamble, slots and sidecar, from a file's start or the beginning of a stream (which has no sidecar). A damaged slot
 * is no error here as long as another one is whole: see a->slots and a->sidecar_state. */
BK_MUST_USE enum bk_code ops_archive_read_head(struct ops_archive *a, struct store_source *src,
                                               const struct bk_log *log, struct bk_err *err);

/* Tail, layout and manifest of a file. One read of constant length unless the manifest is very long. */
BK_MUST_USE enum bk_code ops_archive_read_tail(struct ops_archive *a, struct bk_err *err);

/* Takes a manifest from elsewhere (a kept copy, the end of a stream); der is copied. */
BK_MUST_USE enum bk_code ops_archive_take_manifest(struct ops_archive *a, const uint8_t *der, size_t len,
                                                   struct bk_err *err);

/* Signatures against trust, and what the manifest says of preamble and envelope. trust NULL: nobody is asked, for
 * showing only. */
BK_MUST_USE enum bk_code ops_archive_check_manifest(struct ops_archive *a, const struct ops_trust *trust,
                                                    struct bk_err *err);

/* What the manifest says of lengths against the layout. */
BK_MUST_USE enum bk_code ops_archive_check_layout(const struct ops_archive *a, struct bk_err *err);

/* Envelope and record of the slot that was taken; parsing only. */
BK_MUST_USE enum bk_code ops_archive_read_keys(struct ops_archive *a, struct bk_err *err);

/* Lineage and roles: the record belongs to this envelope and manifest, and from generation 2 on a trusted rotator or
 * officer signed it. */
BK_MUST_USE enum bk_code ops_archive_check_keys(const struct ops_archive *a, const struct ops_trust *trust,
                                                struct bk_err *err);

/* The index of a file, against the manifest's payload digest. */
BK_MUST_USE enum bk_code ops_archive_read_index(struct ops_archive *a, struct bk_err *err);

/* What a reader should hear of an archive that is in order: damaged or stale envelopes, and certificates that were not
 * valid at signing-time. */
void ops_archive_warn(const struct ops_archive *a);

/* All of the above but the index, in order, for a file; a stream is BK_E_USAGE. */
BK_MUST_USE enum bk_code ops_archive_open(struct ops_archive *a, struct store_source *src,
                                          const struct ops_trust *trust, const struct bk_log *log, struct bk_err *err);

/* The key package against everything that is signed: its signers are exactly the manifest's, and the preamble's
 * commitment is that of the file key. */
BK_MUST_USE enum bk_code ops_archive_check_package(const struct ops_archive *a, const struct bk_key_package *k,
                                                   struct bk_err *err);

/* Fails unless trust has an entry; the hint prints who signed the archive. */
BK_MUST_USE enum bk_code ops_archive_require_trust(const struct ops_archive *a, const struct ops_trust *trust,
                                                   struct bk_err *err);

#endif
