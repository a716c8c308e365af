/* The token that a URI means. */
#ifndef BK_PKCS11_CHOOSE_H
#define BK_PKCS11_CHOOSE_H

#include "pkcs11/on_token.h"
#include "pkcs11/text.h"

/* The token that the URI means, for opening one key: BK_E_TOKEN for none, BK_E_NO_KEY for several. */
BK_MUST_USE enum bk_code p11_find_token(struct p11 *p, const struct p11_uri *uri, struct p11_token **out,
                                        struct bk_err *err);
/* The error for a URI that no token answers to; names those that are there. */
BK_MUST_USE enum bk_code p11_tokens_none(struct p11 *p, const struct p11_uri *uri, struct bk_err *err);
/* "'bk' (serial 1234)", for lists in messages. */
void p11_tokens_list(const struct p11_tokens *tokens, struct p11_text_list *list);

#endif
