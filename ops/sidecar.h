/* The sidecar: the key envelope kept beside an archive, ARCHIVE.keys. docs/FORMAT.md, Slots. */
#ifndef BK_OPS_SIDECAR_H
#define BK_OPS_SIDECAR_H

#include "base/buf.h"
#include "base/err.h"
#include "store/sink.h"

#define OPS_SIDECAR_SUFFIX ".keys"
#define OPS_SIDECAR_MAX    (1024 * 1024)

/* "ARCHIVE.keys"; the caller frees. */
BK_MUST_USE enum bk_code ops_sidecar_path(const char *archive, char **out, struct bk_err *err);

/* The bytes of the sidecar beside an archive; *present 0 and *out empty when there is none. BK_E_FORMAT for what is
 * there and is no ordinary file, or larger than OPS_SIDECAR_MAX. */
BK_MUST_USE enum bk_code ops_sidecar_read(const char *archive, struct bk_buf *out, int *present, struct bk_err *err);

/* Puts a new sidecar in the place of whatever is there, whole or not at all, synced. */
BK_MUST_USE enum bk_code ops_sidecar_replace(const char *archive, const struct bk_buf *bytes,
                                             const struct bk_cancel *cancel, struct bk_err *err);

/*
 * For a new archive. detached: opens the sidecar's staging file, and refuses if an archive is there already, since two
 * files cannot be replaced at one instant and the old archive would lose its envelope. Else refuses if a sidecar is
 * there, which readers would take for the new archive's.
 */
BK_MUST_USE enum bk_code ops_sidecar_prepare(const char *archive, int detached, int force,
                                             const struct bk_cancel *cancel, struct store_sink **out,
                                             struct bk_err *err);

#endif
