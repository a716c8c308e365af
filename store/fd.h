/* File descriptors, below source, sink, edit and command: waiting that can be stopped, and transfers that are whole. */
#ifndef BK_STORE_FD_H
#define BK_STORE_FD_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

/* The most that one read or write asks for: a request to stop is heard at least that often. */
#define STORE_IO_MAX ((size_t)1024 * 1024)

/* Who can stop a blocking call. Either may be absent. */
struct store_stop {
    const struct bk_cancel *cancel; /* the whole program, or NULL; outlives the user */
    int interrupt;                  /* an eventfd for this one source, or -1 */
};

/* BK_E_CANCELLED if a stop was asked for. Never blocks; one poll(2), so cheap enough for every call of many KiB. */
BK_MUST_USE enum bk_code store_stop_check(const struct store_stop *stop, const char *name, struct bk_err *err);

/* The same, after waiting for it for at most so many milliseconds. */
BK_MUST_USE enum bk_code store_stop_pause(const struct store_stop *stop, int milliseconds, const char *name,
                                          struct bk_err *err);

/* Waits until fd is ready for events (POLLIN, POLLOUT), at its end, or broken; the next call on it finds out which. */
BK_MUST_USE enum bk_code store_fd_wait(int fd, short events, const struct store_stop *stop, const char *name,
                                       struct bk_err *err);

/*
 * open(2) with O_CLOEXEC and O_NOCTTY, never creating. A FIFO is opened without blocking in the kernel, where no stop
 * could reach it: for writing this waits here for a reader; for reading, store_fd_wait waits for the first writer.
 */
BK_MUST_USE enum bk_code store_fd_open(const char *path, int flags, const struct store_stop *stop, int *out,
                                       struct bk_err *err);

/* A range of a regular file, whole; BK_E_INCOMPLETE when the file ends before it. Moves no file position. */
BK_MUST_USE enum bk_code store_fd_read_at(int fd, const char *name, uint64_t offset, uint8_t *buf, size_t len,
                                          struct bk_err *err);
BK_MUST_USE enum bk_code store_fd_write_at(int fd, const char *name, uint64_t offset, const uint8_t *buf, size_t len,
                                           struct bk_err *err);

/* What direct I/O asks offsets, lengths and addresses to be multiples of; a page, so that no block is both written
 * directly and cached. */
#define STORE_BLOCK 4096

/* A second description of the same open file, which goes past the system's cache (O_DIRECT); -1 where that is refused.
 * flags is O_RDONLY or O_WRONLY. */
int store_fd_direct(int fd, int flags);

/* 1 if a transfer at that offset may be direct as far as it goes. */
int store_fd_aligned(uint64_t offset, const uint8_t *buf);

/* Gives a pipe room for 1 MiB, so that both ends switch less often. Best effort: unprivileged users have a quota. */
void store_fd_enlarge_pipe(int fd);

/* Closes and sets to -1; does nothing for -1. For descriptors whose errors no longer matter. */
void store_fd_close(int *fd);

/* For a failed system call that is the command's failure and not one of input or output: BK_E_COMMAND, or BK_E_NO_ROOM
 * where memory was short. */
BK_MUST_USE enum bk_code store_command_failed(const char *name, int os_errno, const char *what, struct bk_err *err);

#endif
