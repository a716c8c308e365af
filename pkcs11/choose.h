/* The token that a URI means. */
#ifndef BK_PKCS11_CHOOSE_H
#define BK_PKCS11_CHOOSE_H

#include "pkcs11/on_token.h"
#include "pkcs11/text.h"

/* p11_tokens_match, and again for a while as long as there is none. */
BK_MUST_USE enum bk_code p11_tokens_look(struct p11 *p, const struct p11_uri *uri, struct p11_tokens *out,
                                         struct bk_err *err);
/*
 * Waits before something is looked at again, longer each time: 1 for the tries from 0 on, together a third of a second,
 * then 0. SoftHSM shows a broken token, or none, to whoever looks while another process logs in.
 */
int p11_token_look_again(int tries);
/* The token that the URI means, for opening one key: BK_E_TOKEN for none, BK_E_NO_KEY for several. */
BK_MUST_USE enum bk_code p11_find_token(struct p11 *p, const struct p11_uri *uri, struct p11_token **out,
                                        struct bk_err *err);
/* The error for a URI that no token answers to; names those that are there. */
BK_MUST_USE enum bk_code p11_tokens_none(struct p11 *p, const struct p11_uri *uri, struct bk_err *err);
/* "'bk' (serial 1234)", for lists in messages. */
void p11_tokens_list(const struct p11_tokens *tokens, struct p11_text_list *list);

#endif
