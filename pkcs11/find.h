/* The one object that a URI or a key id means. */
#ifndef BK_PKCS11_FIND_H
#define BK_PKCS11_FIND_H

#include "pkcs11/key.h"
#include "pkcs11/uri.h"

/* The token that the URI means, for making or opening one key: BK_E_TOKEN for none, BK_E_NO_KEY for several. */
BK_MUST_USE enum bk_code p11_find_token(struct p11 *p, const struct p11_uri *uri, struct p11_token **out,
                                        struct bk_err *err);

/* Logs in and opens the one key on that token that the URI means for this use. */
BK_MUST_USE enum bk_code p11_find_key(struct p11 *p, struct p11_token *t, const struct p11_uri *uri, enum p11_use use,
                                      struct p11_key **out, struct bk_err *err);

#endif
