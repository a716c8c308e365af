/* Slots and the sidecar: the key envelope with its record, twice in the head or once beside it; docs/FORMAT.md. */
#ifndef BK_FORMAT_SLOT_H
#define BK_FORMAT_SLOT_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define BK_SLOT_HEADER 64

struct bk_slot {
    uint64_t generation;     /* from 1 */
    const uint8_t *envelope; /* DER, into the buffer that was parsed, or the caller's */
    size_t envelope_len;
    const uint8_t *record; /* DER: bare KeyRecord in generation 1, SignedData later */
    size_t record_len;
};

/* Bytes without padding: header, envelope, record. */
size_t bk_slot_length(const struct bk_slot *s);

/* Writes slot_size bytes, zero padding included. BK_E_NO_ROOM with the hint of docs/CLI.md when it does not fit. */
BK_MUST_USE enum bk_code bk_slot_write(const struct bk_slot *s, uint8_t *out, size_t slot_size, struct bk_err *err);

/* The sidecar's form: no padding, at most 1 MiB. */
BK_MUST_USE enum bk_code bk_slot_write_sidecar(const struct bk_slot *s, struct bk_buf *out, struct bk_err *err);

/* len is slot_size; magic, generation (from 1), lengths (from 1), reserved bytes, padding and checksum must hold. */
BK_MUST_USE enum bk_code bk_slot_parse(const uint8_t *buf, size_t len, struct bk_slot *out, struct bk_err *err);

/* The same for a sidecar: nothing follows the record. */
BK_MUST_USE enum bk_code bk_slot_parse_sidecar(const uint8_t *buf, size_t len, struct bk_slot *out, struct bk_err *err);

/* Slot size for a first envelope and record: at least twice their length and never under the default, a multiple of
 * 4096. 0 when over 1 MiB. */
uint32_t bk_slot_size_for(size_t envelope_len, size_t record_len);

enum bk_slot_state { BK_SLOT_VALID, BK_SLOT_DAMAGED };

/* The two slots of a head and the one to take. */
struct bk_slots {
    enum bk_slot_state state[2];
    struct bk_slot slot[2];  /* where state is valid */
    struct bk_err damage[2]; /* where it is not */
    int taken;               /* 0 for A, 1 for B: the valid slot of the highest generation; A when both agree */
    int differ;              /* both valid and of different generations: a rekey was interrupted */
};

/*
 * Parses both. BK_E_FORMAT when neither is valid (readers read again once: a rekey may be passing; *out then says why),
 * or when two valid slots of one generation differ (*out is then untouched).
 */
BK_MUST_USE enum bk_code bk_slots_parse(const uint8_t *a, const uint8_t *b, size_t slot_size, struct bk_slots *out,
                                        struct bk_err *err);

#endif
