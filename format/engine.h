/*
 * Who seals, opens and hashes frames: an engine. All of them give the same bytes, and none is used before it has given
 * those that are known (bk_engine_check). An engine's state belongs to one thread.
 */
#ifndef BK_FORMAT_ENGINE_H
#define BK_FORMAT_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"

#define BK_FRAME_WORD      4
#define BK_FRAME_TAG       16
#define BK_FRAME_OVERHEAD  (BK_FRAME_WORD + BK_FRAME_TAG)
#define BK_PAYLOAD_KEY_LEN 32
#define BK_NONCE_LEN       12

enum bk_engine_fit {
    BK_ENGINE_MISSING, /* this processor cannot run it */
    BK_ENGINE_RUNS,
    BK_ENGINE_FAST, /* and it is faster here than those behind it in the list */
};

struct bk_engine {
    const char *name;
    size_t batch; /* so many frames are sealed or opened, then hashed together: few enough to stay in the cache */
    enum bk_engine_fit (*fit)(void);

    /* A thread's state, in *state; free takes NULL, and wipes what was secret. */
    enum bk_code (*make)(void **state, struct bk_err *err);
    void (*free)(void *state);

    /* The key of the frames that follow, which are all sealed or all opened. The caller wipes its own copy. */
    enum bk_code (*set_key)(void *state, const uint8_t key[BK_PAYLOAD_KEY_LEN], int sealing, struct bk_err *err);

    /* frame: the word is there; ciphertext and tag are written. plain has len bytes. 1 on success. */
    int (*seal)(void *state, const uint8_t nonce[BK_NONCE_LEN], const uint8_t *plain, size_t len, uint8_t *frame);

    /* 1 if the tag holds; plain is written in either case, and the caller wipes it if not. */
    int (*open)(void *state, const uint8_t nonce[BK_NONCE_LEN], const uint8_t *frame, size_t len, uint8_t *plain);

    /* SHA-256 of n frames (at least 1), one after the other: each is full bytes long, and the final one final bytes.
     * Needs no key. */
    void (*hash)(void *state, const uint8_t *frames, size_t full, size_t n, size_t final,
                 uint8_t (*leaves)[BK_SHA256_LEN]);
};

extern const struct bk_engine bk_engine_openssl;
#ifdef BK_HAVE_IPSEC_MB
extern const struct bk_engine bk_engine_ipsec_mb;
#endif

/* The engines of this build, the fastest first; ends with NULL. The last one runs everywhere. */
extern const struct bk_engine *const bk_engines[];

/* Known answers: seals, hashes and opens frames of many lengths, and wants wrong ones refused. BK_E_INTERNAL. */
BK_MUST_USE enum bk_code bk_engine_check(const struct bk_engine *e, struct bk_err *err);

/*
 * The engine of that name from the list, checked: BK_E_USAGE if there is none, or none for this processor. For NULL or
 * "auto" the first fast one that passes its check; of one that does not, log is warned. log may be NULL.
 */
BK_MUST_USE enum bk_code bk_engine_choose(const struct bk_engine *const *list, const char *name,
                                          const struct bk_log *log, const struct bk_engine **out, struct bk_err *err);

#endif
