/* Making keys in a token, for this folder. */
#ifndef BK_PKCS11_GENERATE_H
#define BK_PKCS11_GENERATE_H

#include "pkcs11/key.h"

/* A key on a token that is logged in, in one way: with encrypts an AES key that encrypts and decrypts, for AES-GCM, in
 * place of one that wraps. A key that is passing needs its own session, which it has. */
BK_MUST_USE enum bk_code p11_generate_on(struct p11_token *t, const CK_ATTRIBUTE *label,
                                         const struct p11_generate *what, int encrypts, struct p11_key **out,
                                         struct bk_err *err);
/* p11_key_generate on a token that is logged in: an AES key for key wrap, or where that does not work for AES-GCM. */
BK_MUST_USE enum bk_code p11_generate_best(struct p11_token *t, const CK_ATTRIBUTE *label,
                                           const struct p11_generate *what, struct p11_key **out, struct bk_err *err);

#endif
