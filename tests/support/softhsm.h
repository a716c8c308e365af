/*
 * SoftHSM 2 (Debian: softhsm2) for tests: two tokens, "bk a" and "bk b", in a temporary folder; a run that counts what
 * is asked and called and can make calls fail; and what every key must be able to do. Tests only.
 */
#ifndef BK_TESTS_SOFTHSM_H
#define BK_TESTS_SOFTHSM_H

#include <string.h>

#include "pkcs11/find.h"
#include "pkcs11/p11.h"

#define SOFTHSM_PIN_A  "1234"
#define SOFTHSM_PIN_B  "56789"
#define SOFTHSM_SO_PIN "87654321"

/* One run of a program: a p11 with a callback that gives the PIN of the token, counting calls of all kinds. */
struct softhsm_run {
    struct p11 *p;
    struct p11_options options;
    struct bk_log log;
    const char *pin; /* instead of the right one; "" for none at all */
    int asked;
    int asked_b;
    int warnings;
    char warning[1024]; /* the last one */
    /* of the hook */
    unsigned calls;
    unsigned fail_at;
    const char *fail_call; /* every call of that name */
    CK_RV fail_rv;
    int sessions;
    int objects;
    int logins;
};

/* For a group of tests: makes the tokens and removes them. The module is the one that p11-kit has configured. */
int softhsm_setup(void **state);
int softhsm_teardown(void **state);
/* The module's file, to be named by module-path. */
const char *softhsm_module(void);

void softhsm_start(struct softhsm_run *r);
/* Every test ends with it: all sessions closed, all session objects gone. */
void softhsm_end(struct softhsm_run *r);

/* Makes a key, open or not. */
void softhsm_generate(struct softhsm_run *r, const char *uri, enum p11_key_kind kind, int signing, struct bk_key **key);
void softhsm_make(const char *uri, enum p11_key_kind kind, int signing);
void softhsm_wrap(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out);
/* Wraps, opens, and meets every kind of damage. */
void softhsm_use_kek(struct bk_key *key);
/* Signs, and refuses what a signing key must not do. */
void softhsm_use_signer(struct bk_key *key);

/* For p11_list: one line an object, appended to ctx, a char[4096]. */
int softhsm_collect(void *ctx, const struct p11_item *item);

/* The call names err, which is declared here, so that its message can be shown. Both need cmocka.h. */
#define ok(call)                                                                                                       \
    do {                                                                                                               \
        struct bk_err err = {0};                                                                                       \
        if ((call) != BK_OK)                                                                                           \
            fail_msg("%s: %s", #call, err.message);                                                                    \
    } while (0)

#define refuses(code_, says, call)                                                                                     \
    do {                                                                                                               \
        struct bk_err err = {0};                                                                                       \
        assert_int_equal((call), code_);                                                                               \
        assert_int_equal(err.code, code_);                                                                             \
        if (strstr(err.message, says) == NULL)                                                                         \
            fail_msg("%s: %s", #call, err.message);                                                                    \
    } while (0)

#endif
