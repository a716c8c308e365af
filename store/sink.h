/*
 * Where bytes go. A file appears under its name whole, or not at all: it is staged beside the target, synced, renamed,
 * and the folder synced. Standard output and pipes have no such second chance, and callers verify first.
 */
#ifndef BK_STORE_SINK_H
#define BK_STORE_SINK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "store/source.h"

struct store_sink;

/*
 * "-" is standard output. A file's staging name is ".NAME.XXXXXX.part" in the same folder, mode 0600 until published
 * (then 0666 less the umask); only a program that was killed outright leaves one behind. Without force, an existing
 * target is refused now and again at publishing (renameat2 RENAME_NOREPLACE, or link where the file system lacks it):
 * BK_E_USAGE with os_errno EEXIST. With force, a symbolic link is itself replaced, never what it leads to. Devices and
 * FIFOs that exist are written to directly, a block device only with force. *cancel, which may be NULL, outlives the
 * sink, here and below.
 */
BK_MUST_USE enum bk_code store_sink_open(const char *path, int force, const struct bk_cancel *cancel,
                                         struct store_sink **out, struct bk_err *err);

/* Takes over a file descriptor that is written as a stream, and closes it also on failure; name is for messages. */
BK_MUST_USE enum bk_code store_sink_from_fd(int fd, const char *name, const struct bk_cancel *cancel,
                                            struct store_sink **out, struct bk_err *err);

/* All of it, or an error, after which the sink can only be discarded: short writes and EINTR are gone on with; EPIPE is
 * BK_E_IO with os_errno EPIPE (the program ignores SIGPIPE). */
BK_MUST_USE enum bk_code store_sink_write(struct store_sink *s, const uint8_t *buf, size_t len, struct bk_err *err);

/*
 * So many bytes will be written to a staged file: room is made for them now, where the file system can. BK_E_NO_ROOM if
 * there is none; more or fewer may be written all the same.
 */
BK_MUST_USE enum bk_code store_sink_expect(struct store_sink *s, uint64_t total, struct bk_err *err);

/*
 * What is written to a staged file from now on does not stay in the system's cache: whole blocks are written directly
 * where their address and their place in the file are the same modulo STORE_BLOCK, as with data at
 * store_sink_skew() in an aligned buffer; else they are dropped behind. Best effort; does nothing to a stream.
 */
void store_sink_direct(struct store_sink *s);

/* Where in an aligned buffer bytes should begin that are written at that place of a staged file; 0 for a stream. */
size_t store_sink_skew(const struct store_sink *s, uint64_t offset);

/* Writes again over earlier bytes of a staged file; a range beyond them is BK_E_INTERNAL, as is one of a stream. */
BK_MUST_USE enum bk_code store_sink_write_at(struct store_sink *s, uint64_t offset, const uint8_t *buf, size_t len,
                                             struct bk_err *err);

/* Reads back from a staged file. */
BK_MUST_USE enum bk_code store_sink_read_at(struct store_sink *s, uint64_t offset, uint8_t *buf, size_t len,
                                            struct bk_err *err);

int store_sink_staged(const struct store_sink *s);

/* A staged file as a source, for verifying before it is published; it shares the descriptor and is closed first. */
BK_MUST_USE enum bk_code store_sink_as_source(struct store_sink *s, struct store_source **out, struct bk_err *err);

/* Syncs, renames, syncs the folder; for a stream: syncs what is a file. Closes in any case; the pointer is gone. If
 * publishing fails the staged file is removed, unless only the folder could not be synced: the message then says that
 * the file is in place. */
BK_MUST_USE enum bk_code store_sink_publish(struct store_sink *s, struct bk_err *err);

/* Removes the staged file and closes; a consumer at the other end of a pipe takes that for the end of its input, so it
 * is killed before (store_command_kill). NULL does nothing. */
void store_sink_discard(struct store_sink *s);

/* Bytes that store_sink_write has taken; not those written again. */
uint64_t store_sink_bytes_written(const struct store_sink *s);

#endif
