/*
 * What tokens were seen to do when they were probed, kept so that nothing falls behind it without a word: a scheme that
 * has become weaker, a rotation that was blind and no longer is (docs/TOKENS.md, section 3).
 */
#ifndef BK_OPS_TOKEN_PROFILE_H
#define BK_OPS_TOKEN_PROFILE_H

#include "pkcs11/p11.h"

/* More kinds of keys than a probe tries. */
#define OPS_TOKEN_KINDS 16

struct ops_token_profile {
    char *file;                                   /* for messages */
    char *token;                                  /* the token's URI */
    char *probed;                                 /* when, as text */
    struct p11_probe_item kinds[OPS_TOKEN_KINDS]; /* why is NULL */
    size_t count;
};
void ops_token_profile_free(struct ops_token_profile *p);

/* Zero-initialise. */
struct ops_token_profiles {
    struct ops_token_profile *items;
    size_t count;
};
void ops_token_profiles_free(struct ops_token_profiles *p);
/* Takes *one over, also on failure. BK_E_USAGE if its token has a profile already. */
BK_MUST_USE enum bk_code ops_token_profiles_add(struct ops_token_profiles *p, struct ops_token_profile *one,
                                                struct bk_err *err);

/* BK_E_POLICY if a KEK whose URI names a token with a profile would be wrapped to by a weaker scheme than was proven
 * there. profiles may be NULL. */
BK_MUST_USE enum bk_code ops_token_profiles_check(const struct ops_token_profiles *profiles,
                                                  const struct bk_public *kek, struct bk_err *err);
/* The profile that says that AES keys on the token of both KEKs rotate blind, or NULL. */
const struct ops_token_profile *ops_token_profiles_blind(const struct ops_token_profiles *profiles,
                                                         const struct bk_public *from, const struct bk_public *to);

/* For people: "unwraps without CKA_VALUE_LEN". */
const char *ops_token_fact_text(enum p11_fact fact);

/* What now lacks of then, or does more weakly, as a sentence in out; 0 if nothing. */
int ops_token_profile_lost(const struct p11_probe_item *then, const struct p11_probe_item *now, char *out, size_t room);

#endif
