/* The file that a sink fills before it has its name: made beside the target, published by one rename, or removed. */
#ifndef BK_STORE_STAGE_H
#define BK_STORE_STAGE_H

#include "base/err.h"
#include "store/fd.h"

struct store_stage {
    int folder;          /* the target's folder, held open: all names below are looked up in it and nowhere else */
    int folder_readable; /* 0: a drop box, which may be written and searched but not opened for fsync */
    int force;
    char *path;   /* as the caller gave it, for messages */
    char *target; /* its last part */
    char *part;   /* the staging name; NULL when there is no such file */
};

/* A stage that owns nothing. */
#define STORE_STAGE_EMPTY ((struct store_stage){.folder = -1})

/* Refuses targets that may not be replaced, and makes the staged file, mode 0600. *g is empty; the caller closes *fd
 * and calls store_stage_end, also on failure. */
BK_MUST_USE enum bk_code store_stage_begin(struct store_stage *g, const char *path, int force, int *fd,
                                           struct bk_err *err);

/*
 * Mode, fsync, rename, fsync of the folder. On failure before the rename nothing has appeared and store_stage_end
 * removes the staged file; if only the folder could not be synced, the file stands whole under its name and the error
 * says so.
 */
BK_MUST_USE enum bk_code store_stage_publish(struct store_stage *g, int fd, const struct store_stop *stop,
                                             struct bk_err *err);

/* Removes the staged file unless it was published, and releases everything. Safe on the empty value and twice. */
void store_stage_end(struct store_stage *g);

#endif
