/*
 * Keys that the token keeps to itself: what a sealed KEK opens is sensitive, cannot be used, and leaves the token only
 * wrapped under keys that the security officer trusts (PKCS#11 2.40 sections 4.9 and 5.13, CKA_UNWRAP_TEMPLATE,
 * CKA_WRAP_WITH_TRUSTED, CKA_TRUSTED). Who may rotate with it may not read with it, if the token enforces that; and
 * whether it does is tried, since attributes are claims.
 */
#ifndef BK_PKCS11_SEAL_H
#define BK_PKCS11_SEAL_H

#include "pkcs11/key.h"

#define P11_SEAL_ATTRIBUTES 14

/* What a sealed key is opened as: to be the CKA_UNWRAP_TEMPLATE of a KEK, and to be asked for in C_UnwrapKey. */
struct p11_seal {
    CK_KEY_TYPE type;
    CK_BBOOL yes, no;
    CK_ATTRIBUTE at[P11_SEAL_ATTRIBUTES];
    CK_ULONG count;
};

/* The attributes point into *seal. */
void p11_seal_fill(struct p11_seal *seal);

/*
 * Tries with keys of a session what this login could do to read what the KEK opens: open it otherwise, change it or the
 * KEK, copy either, wrap it under a key of its own, have such a key trusted. *enforces is 1 if the token refused it all
 * and still did what it should. An error is one of the token itself.
 */
BK_MUST_USE enum bk_code p11_seal_check(struct p11_key *key, int *enforces, struct bk_err *err);

#endif
