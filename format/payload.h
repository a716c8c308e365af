/*
 * The payload: keys derived from the file key, and groups of frames sealed, opened and hashed. docs/FORMAT.md, Keys and
 * Frames. One bk_payload serves all threads; each thread has a bk_cipher of its own.
 */
#ifndef BK_FORMAT_PAYLOAD_H
#define BK_FORMAT_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "format/engine.h"
#include "format/preamble.h"
#include "format/tree.h"

#define BK_FILE_KEY_LEN 32
#define BK_SEGMENTS_MAX (1ull << 32)
#define BK_WORD_LAST    0x80000000u
#define BK_EPOCH_SHIFT  40 /* a new payload key each TiB */

struct bk_payload {
    uint32_t segment_size;
    struct bk_secret prk;
    uint8_t binding[64]; /* SHA-256(preamble bytes 0 to 35) || envelopeDigest */
};

/* preamble is the stored 4096 bytes (its first 36 are used). The caller wipes with bk_payload_wipe. */
BK_MUST_USE enum bk_code bk_payload_init(struct bk_payload *p, const uint8_t preamble[BK_PREAMBLE_LEN],
                                         const struct bk_secret *file_key, const uint8_t envelope_digest[32],
                                         struct bk_err *err);
void bk_payload_wipe(struct bk_payload *p);

/* keyCommit, over bytes 0 to 35 of the preamble, which must already stand in it. */
BK_MUST_USE enum bk_code bk_key_commit(const uint8_t preamble[BK_PREAMBLE_LEN], const struct bk_secret *file_key,
                                       uint8_t out[32], struct bk_err *err);

/* BK_E_VERIFY unless the preamble's keyCommit is that of the file key; constant time. */
BK_MUST_USE enum bk_code bk_key_commit_check(const uint8_t preamble[BK_PREAMBLE_LEN], const struct bk_secret *file_key,
                                             struct bk_err *err);

/* One thread's engine, keyed for the epoch that it last worked in. Zero-initialise all but engine. It may be handed to
 * another bk_payload, and is then keyed anew: the binding says whose key it has. */
struct bk_cipher {
    const struct bk_engine *engine; /* NULL: OpenSSL's. Checked by the caller (bk_engine_choose) */
    void *state;
    uint64_t epoch;
    uint8_t binding[64];
    int keyed;
    int sealing;
};

/* Leaves an empty one, of the same engine. */
void bk_cipher_free(struct bk_cipher *c);

/* Bytes of the frames that hold plain_len bytes: all full segments but perhaps the last, and one empty frame for 0. */
uint64_t bk_frames_length(uint32_t segment_size, uint64_t plain_len);

/*
 * Seals up to 32 segments. first is the number of the first one; last says that this group ends the archive. plain_len
 * is a whole group unless last. frames has bk_frames_length() bytes of room, apart from plain. root gets the group's
 * subtree root. BK_E_NO_ROOM beyond BK_SEGMENTS_MAX.
 */
BK_MUST_USE enum bk_code bk_group_seal(const struct bk_payload *p, struct bk_cipher *c, uint64_t first, int last,
                                       const uint8_t *plain, size_t plain_len, uint8_t *frames, size_t *frames_len,
                                       uint8_t root[32], struct bk_err *err);

/*
 * Checks the words (every segment full and not last, but the final one of the last group) and returns the subtree root;
 * keyless. BK_E_FORMAT names the segment.
 */
BK_MUST_USE enum bk_code bk_group_root(struct bk_cipher *c, uint32_t segment_size, uint64_t first, int last,
                                       const uint8_t *frames, size_t frames_len, uint8_t root[32], struct bk_err *err);

/* The same checks, then opens every frame into plain; BK_E_VERIFY names the segment, and plain is then wiped. */
BK_MUST_USE enum bk_code bk_group_open(const struct bk_payload *p, struct bk_cipher *c, uint64_t first, int last,
                                       const uint8_t *frames, size_t frames_len, uint8_t *plain, size_t *plain_len,
                                       uint8_t root[32], struct bk_err *err);

#endif
