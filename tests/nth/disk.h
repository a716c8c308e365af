/*
 * A disk that may lose power: plays back what was recorded (tests/nth/nth.h) and builds, one after the other, the
 * states in which a file system could be found afterwards.
 *
 * What is assumed, and no more: a write that was not synced may have reached the disk in any of its 512-byte sectors
 * and not in others, in any order; a sector is written whole or not; names change in the order of the calls, but not
 * necessarily before their folder was synced, and not in step with the contents; what was synced stays.
 */
#ifndef BK_TESTS_NTH_DISK_H
#define BK_TESTS_NTH_DISK_H

#include <stddef.h>

#include "tests/nth/nth.h"

#define DISK_SECTOR 512

struct disk;

/* The folder's files as they are now, before anything is recorded. */
struct disk *disk_snapshot(const char *folder);
void disk_free(struct disk *d);

/* Puts the folder back as it was at the snapshot. */
void disk_restore(const struct disk *d);

/*
 * Builds every state in the folder and calls check: after each event, with nothing, everything, or only names or only
 * contents of what was not synced; with each of stride sectors' beginnings and ends of the last write; and with random
 * choices of sectors and names. Returns the number of states.
 */
size_t disk_crash_everywhere(const struct disk *d, const struct nth_trace *trace, size_t stride, size_t random,
                             void (*check)(void *ctx, const char *state), void *ctx);

#endif
