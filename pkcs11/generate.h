/* Making keys in a token, for this folder. */
#ifndef BK_PKCS11_GENERATE_H
#define BK_PKCS11_GENERATE_H

#include "pkcs11/key.h"

/* p11_key_generate on a token that is logged in. A key that is passing needs its own session, which it has. */
BK_MUST_USE enum bk_code p11_generate_on(struct p11_token *t, const CK_ATTRIBUTE *label,
                                         const struct p11_generate *what, struct p11_key **out, struct bk_err *err);

#endif
