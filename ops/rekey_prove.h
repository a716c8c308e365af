/* The proof that a new recipient opens the archive, before an old one leaves it. */
#ifndef BK_OPS_REKEY_PROVE_H
#define BK_OPS_REKEY_PROVE_H

#include "ops/recipients.h"

struct ops_prover {
    struct p11 *p11;            /* NULL: keys only */
    struct bk_key *const *keys; /* opened already */
    size_t key_count;
};

/*
 * Opens wrapped with the recipient's own key, if that is within reach: among the opened keys, the secret KEK that
 * wrapped it, or on the token that its URI names. *proven is 0 when the key is not there to be asked, 1 when it gave
 * the same CEK; a key that is there and gives anything else is BK_E_VERIFY.
 */
BK_MUST_USE enum bk_code ops_prove(const struct ops_prover *prover, const struct ops_recipient *recipient,
                                   const struct bk_wrapped *wrapped, const struct bk_secret *cek, int *proven,
                                   struct bk_err *err);

#endif
