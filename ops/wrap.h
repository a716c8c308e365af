/* Making an archive: a new data key, the payload sealed, the manifest signed, and the file published when it is whole.
 */
#ifndef BK_OPS_WRAP_H
#define BK_OPS_WRAP_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/err.h"
#include "base/log.h"
#include "format/engine.h"
#include "format/key_package.h"
#include "format/manifest.h"
#include "format/signed.h"
#include "ops/recipients.h"

struct ops_wrap {
    /* where the plaintext comes from: one of them; neither means standard input */
    char *const *command; /* NULL-terminated argv of a producer */
    const char *input;    /* a file's name */

    const char *output;        /* a file's name or "-" */
    const char *manifest_copy; /* where a copy of the signed manifest goes, or NULL */
    int detach;                /* the envelope goes to the sidecar OUT.keys, published first; none in the archive */
    int force;
    int allow_empty;
    size_t workers;
    const struct bk_engine *engine; /* NULL: OpenSSL's */
    int direct;                     /* files are read and written past the system's cache */

    struct ops_recipients *recipients;    /* 1 to 32 */
    const struct bk_signing_key *signers; /* 1 to 4 */
    size_t signer_count;

    /* public, signed; "" or has_ 0 for absent */
    enum bk_kind kind;
    char label[BK_TEXT_MAX + 1];
    char sequence[BK_TEXT_MAX + 1];
    int has_retain_until;
    time_t retain_until;
    int has_parent;
    struct bk_parent parent;

    const struct bk_metadata_item *metadata; /* private, encrypted */
    size_t metadata_count;

    int again; /* the next of several alike: what there is to warn of was said */
    /* For archives that overlap, each in a thread of its own; or NULL. The lock is held while a key works, since a key
     * is for one thread at a time. sealed is called when all of the input was read, sealed and written, if it comes to
     * that: what follows keeps the token and the disk busy, and no core. */
    pthread_mutex_t *keys;
    void (*sealed)(void *ctx);
    void *ctx;
    uint32_t segment_size; /* 0: the default */
    const struct bk_log *log;
    const struct bk_cancel *cancel;
};

struct ops_wrap_result {
    uint8_t archive_id[BK_UUID_LEN];
    uint8_t manifest_digest[32];
    uint64_t plaintext_length;
    uint64_t archive_length;
};

/*
 * Nothing appears under the output's name unless the producer exited 0, the manifest was signed, and the head, index,
 * manifest and tail as written were read back and passed a reader's checks. One signature for each signer.
 */
BK_MUST_USE enum bk_code ops_wrap_run(const struct ops_wrap *w, struct ops_wrap_result *out, struct bk_err *err);

/* The parent of an incremental backup, read from the archive itself; its manifest's signature is checked, its payload
 * is not. */
BK_MUST_USE enum bk_code ops_wrap_parent(const char *path, struct bk_parent *out, struct bk_err *err);

#endif
