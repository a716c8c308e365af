/* The one object that a URI or a key id means. */
#ifndef BK_PKCS11_FIND_H
#define BK_PKCS11_FIND_H

#include "pkcs11/key.h"
#include "pkcs11/uri.h"

/* Logs in and opens the one key on that token that the URI means for this use. */
BK_MUST_USE enum bk_code p11_find_key(struct p11_token *t, const struct p11_uri *uri, enum p11_use use,
                                      struct p11_key **out, struct bk_err *err);

#endif
