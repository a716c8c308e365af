/*
 * Where bytes come from: a file (by range, by many threads) or a stream (a pipe, standard input, a producer's output).
 * Archives and plaintext alike: store/ knows no keys and no formats.
 */
#ifndef BK_STORE_SOURCE_H
#define BK_STORE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

struct store_source;

/* Opens a file for reading, or standard input for "-" (which is not closed with the source; if it is a file that was
 * read in part already, it is a stream). A name that is not there is BK_E_IO with os_errno ENOENT. *cancel, which may
 * be NULL, outlives the source, here and below. */
BK_MUST_USE enum bk_code store_source_open(const char *path, const struct bk_cancel *cancel, struct store_source **out,
                                           struct bk_err *err);

/* Takes over a file descriptor, and closes it also on failure; name is for messages. */
BK_MUST_USE enum bk_code store_source_from_fd(int fd, const char *name, const struct bk_cancel *cancel,
                                              struct store_source **out, struct bk_err *err);

/* NULL does nothing. */
void store_source_close(struct store_source *s);

const char *store_source_name(const struct store_source *s);

/* 1 if it is a regular file, read by range. */
int store_source_seekable(const struct store_source *s);

/* Bytes in a seekable source, now. */
BK_MUST_USE enum bk_code store_source_size(struct store_source *s, uint64_t *out, struct bk_err *err);

/* The next bytes of a stream (or of a file, from its own position): fills buf, short only at the end. */
BK_MUST_USE enum bk_code store_source_read(struct store_source *s, uint8_t *buf, size_t len, size_t *got,
                                           struct bk_err *err);

/* What is there now, at most len bytes; waits for the first one, and *got is 0 at the end only. For what is dealt with
 * while its writer goes on writing. */
BK_MUST_USE enum bk_code store_source_read_some(struct store_source *s, uint8_t *buf, size_t len, size_t *got,
                                                struct bk_err *err);

/* A range of a seekable source; thread-safe. BK_E_INCOMPLETE when the file ends before it. */
BK_MUST_USE enum bk_code store_source_read_at(struct store_source *s, uint64_t offset, uint8_t *buf, size_t len,
                                              struct bk_err *err);

/*
 * The same into a page-aligned buffer with STORE_SLACK more room: *at says where in it the bytes begin, so that a
 * direct read can take whole blocks.
 */
#define STORE_SLACK ((size_t)2 * 4096)
BK_MUST_USE enum bk_code store_source_read_around(struct store_source *s, uint64_t offset, uint8_t *buf, size_t *at,
                                                  size_t len, struct bk_err *err);

/* *ended: nothing follows what store_source_read has given. Waits for that, as reading does. */
BK_MUST_USE enum bk_code store_source_ended(struct store_source *s, int *ended, struct bk_err *err);

/* Makes a blocked store_source_read return BK_E_CANCELLED, from another thread; it stays so. Ranges do not block, and
 * can still be read. */
void store_source_interrupt(struct store_source *s);

/* Bytes read so far, however they were read. */
uint64_t store_source_bytes_read(const struct store_source *s);

/* A hint to the system to read ahead in order. Best effort. */
void store_source_sequential(struct store_source *s);

/* What is read of a file from now on does not stay in the system's cache: by direct reads (of store_source_read those
 * into aligned memory), else by dropping behind. Best effort; streams have no such cache. */
void store_source_direct(struct store_source *s);

#endif
