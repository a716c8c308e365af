/* An archive that is being changed, in place or by a sidecar beside it: opened under an exclusive lock. */
#ifndef BK_STORE_EDIT_H
#define BK_STORE_EDIT_H

#include "store/source.h"

struct store_edit;

enum store_edit_mode {
    STORE_EDIT_IN_PLACE, /* for reading and writing */
    STORE_EDIT_BESIDE,   /* for reading only: what changes is a file beside it, which this lock protects as well */
};

/*
 * Opens and locks (flock(2): the one lock that a file opened for reading can hold exclusively too, so that both modes
 * exclude each other); waits at most wait_seconds for another holder, then BK_E_IO says that another program is
 * changing it. What was locked is checked to be what the name means then.
 */
BK_MUST_USE enum bk_code store_edit_open(const char *path, enum store_edit_mode mode, unsigned wait_seconds,
                                         const struct bk_cancel *cancel, struct store_edit **out, struct bk_err *err);

/* The locked file as a source. It lives as long as the edit. */
struct store_source *store_edit_source(struct store_edit *e);

/* In place only. Writes a range (which lies within the file: an edit never changes its length, else BK_E_INTERNAL) and
 * syncs it to the disk. Deaf to a stop: half a change is worse than the short wait, and the caller asks between its
 * writes. */
BK_MUST_USE enum bk_code store_edit_write_at(struct store_edit *e, uint64_t offset, const uint8_t *buf, size_t len,
                                             struct bk_err *err);

/* BK_E_IO unless the name that was opened still means the locked file: a copy that was renamed over it meanwhile has
 * not seen the change. For the end of an edit. */
BK_MUST_USE enum bk_code store_edit_check_name(const struct store_edit *e, struct bk_err *err);

uint64_t store_edit_bytes_written(const struct store_edit *e);

/* Unlocks and closes. NULL does nothing. */
void store_edit_close(struct store_edit *e);

#endif
