/*
 * A small world for tests of ops/: a folder, signers and KEKs in memory, trust, and archives made and opened with them.
 * No token. Every function fails the running test when the world itself breaks.
 */
#ifndef BK_TESTS_OPS_FIXTURE_H
#define BK_TESTS_OPS_FIXTURE_H

#include <limits.h>

#include "ops/rekey.h"
#include "ops/unwrap.h"
#include "ops/verify.h"
#include "ops/wrap.h"
#include "tests/support/fake_key.h"

enum { W_KEK_P256, W_KEK_P384, W_KEK_RSA, W_KEK_AES, W_KEK_AES_2, W_KEKS };
enum { W_BACKUP, W_OTHER_BACKUP, W_ROTATOR, W_STRANGER, W_SIGNERS };

struct world {
    char folder[PATH_MAX];
    struct bk_key *kek[W_KEKS];
    struct bk_key *signer[W_SIGNERS];
    struct bk_buf cert[W_SIGNERS];
    struct ops_trust trust; /* both backup signers as backup, the rotator as rotate; the stranger not at all */
    char warnings[16384];
    const struct ops_token_profiles *profiles; /* for world_rekey's successor; NULL: none */
    struct bk_log log;                         /* collects warnings */
    struct bk_err err;                         /* of the last call */
    void (*around)(int begins); /* called right before and after each call of ops/, for tests that let calls fail */
};

/* A group's setup and teardown: keys take their time, so they are made once. *state is the world. */
int world_make(void **state);
int world_free(void **state);
/* A test's setup: an empty folder and no warnings. */
int world_clean(void **state);

/* A path in the folder; the last eight stay valid. */
const char *world_path(struct world *w, const char *name);
int world_exists(struct world *w, const char *name);
/* Names in the folder, so that nothing may be left behind. */
size_t world_entries(struct world *w);
void world_put(struct world *w, const char *name, const void *data, size_t len);
/* malloc'ed. */
uint8_t *world_get(struct world *w, const char *name, size_t *len);

/* Bytes that look random and are the same in every run; malloc'ed, at least one byte of room. */
uint8_t *world_bytes(size_t len);

/* A recipient list over keys of the world, by the numbers that follow, ended by -1. Freed by world_recipients_free,
 * which leaves the keys open. */
void world_recipients(struct world *w, struct ops_recipients *r, ...);
void world_recipients_free(struct ops_recipients *r);

/* Wraps len bytes into name for one KEK, with segments of 4 KiB and signed by W_BACKUP; r NULL: W_KEK_P256. */
void world_wrap(struct world *w, const char *name, const void *data, size_t len, struct ops_recipients *r);
/* The same with what is set in *req; fills only what is empty there. Returns its result. */
enum bk_code world_try_wrap(struct world *w, struct ops_wrap *req, const char *name, const void *data, size_t len,
                            struct ops_wrap_result *out);

/* Unwraps name with one KEK into out; *req may hold more (NULL: nothing). */
enum bk_code world_unwrap(struct world *w, const char *name, int kek, const char *out, const struct ops_unwrap *req);
/* The archive as a stream: from a pipe, so that nothing can be read twice. Opened with W_KEK_P256; out is a path, or
 * NULL for what *more says. */
enum bk_code world_unwrap_stream(struct world *w, const char *name, const struct ops_unwrap *more, const char *out);
/* Asserts that it opens with that KEK and holds these bytes. */
void world_assert_opens(struct world *w, const char *name, int kek, const void *data, size_t len);
enum bk_code world_verify(struct world *w, const char *name, enum ops_level level, int kek);

/* Rekeys name from one KEK to another, which proves itself if prove is set; *req may hold more (NULL: nothing). */
enum bk_code world_rekey(struct world *w, const char *name, int from, int to, int prove, const struct ops_rekey *req,
                         struct ops_rekey_result *out);

#endif
