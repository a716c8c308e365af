/*
 * The list of a batch: which input becomes which archive. docs/CLI.md, bk-wrap --batch. Read as it comes, so that a
 * program can feed it line by line.
 */
#ifndef BK_CMD_WRAP_LIST_H
#define BK_CMD_WRAP_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "store/source.h"

/* Two names of PATH_MAX, a sequence, and what separates them. */
#define WRAP_LIST_ROOM 16384

struct wrap_list {
    struct store_source *src;
    int null;          /* three fields, each ended by a NUL, in place of lines */
    uint64_t records;  /* that were read, empty lines too: the number of the last one */
    int out_of_step;   /* what follows cannot be told apart: nothing more is read */
    size_t start, end; /* of what is in room and was not read yet */
    uint8_t room[WRAP_LIST_ROOM];
};

/* One archive to make. The texts hold until the next one is read. */
struct wrap_item {
    const char *input; /* NULL: the list has ended */
    const char *output;
    const char *sequence; /* NULL: none */
};

/* path "-" is standard input. A list that is not there is BK_E_USAGE. Zero-initialise; wrap_list_close also after a
 * failure. */
BK_MUST_USE enum bk_code wrap_list_open(struct wrap_list *l, const char *path, int null, const struct bk_cancel *cancel,
                                        struct bk_err *err);
void wrap_list_close(struct wrap_list *l);

/* The next one, once its end is there; waits for it. BK_E_USAGE: this record is not one, and the next can be read
 * unless out_of_step. */
BK_MUST_USE enum bk_code wrap_list_next(struct wrap_list *l, struct wrap_item *item, struct bk_err *err);

/* Ends the waiting of wrap_list_next, now and from now on. By another thread than the one that reads. */
void wrap_list_interrupt(struct wrap_list *l);

/* How many records of a list in a file come after so many; 0 and no count if it is no file or cannot be read (again).
 */
int wrap_list_rest(const char *path, int null, uint64_t after, uint64_t *count);

#endif
