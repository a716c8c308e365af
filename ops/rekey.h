/* Rotation in place: the envelope changes, the payload and the manifest do not. docs/FORMAT.md, Slots and KeyRecord. */
#ifndef BK_OPS_REKEY_H
#define BK_OPS_REKEY_H

#include "format/record.h"
#include "ops/keyring.h"
#include "ops/recipients.h"
#include "ops/trust.h"

enum ops_blind { OPS_BLIND_PREFERRED, OPS_BLIND_REQUIRED, OPS_BLIND_OFF };

struct ops_rekey {
    const struct ops_keyring *from; /* what opens the archive now */
    struct ops_recipients *to;      /* takes the place of the key that opened; 0 or 1 */
    struct ops_recipients *add;     /* comes beside; any number */
    const struct bk_key_id *remove; /* leave by name */
    size_t remove_count;
    struct p11 *p11;               /* where the proofs are made; NULL: prover only */
    struct bk_key *const *provers; /* opened keys that may prove new recipients (tests, ceremonies) */
    size_t prover_count;

    const struct bk_signing_key *signers; /* rotators, 1 to 4 */
    size_t signer_count;
    const struct ops_trust *trust;
    enum ops_blind blind;
    int unproven;       /* the old recipient may go although the new one was not seen to open */
    const char *reason; /* or NULL */
    int dry_run;
    int sidecar; /* the new envelope goes to the sidecar; the archive itself is not written */

    const struct bk_log *log;
    const struct bk_cancel *cancel;
};

struct ops_rekey_result {
    uint8_t archive_id[BK_UUID_LEN];
    uint64_t generation; /* afterwards */
    int changed;         /* a new envelope was written */
    int mended;          /* slots that differed or were damaged agree again */
    int old_stays;       /* the old recipient is still there, waiting for a proof */
    enum bk_blindness blindness;
    uint64_t bytes_read;
    uint64_t bytes_written;
};

/*
 * One archive, under an exclusive lock. Every check that a reader makes is made first, and what will be written is
 * checked in memory as a reader would. The slot that was not taken is written and synced first, then the other, then a
 * sidecar if there is one: at every instant the newest envelope is whole somewhere. With sidecar set, or for a detached
 * archive, only the sidecar is replaced. Done twice, the second time changes nothing.
 */
BK_MUST_USE enum bk_code ops_rekey_run(const struct ops_rekey *r, const char *path, struct ops_rekey_result *out,
                                       struct bk_err *err);

#endif
