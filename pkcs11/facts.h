/* What else a token was seen to do with AES KEKs (enum p11_fact), for a probe. */
#ifndef BK_PKCS11_FACTS_H
#define BK_PKCS11_FACTS_H

#include "pkcs11/key.h"

/* Of a KEK and what was wrapped under it by AES key wrap: templates of C_UnwrapKey, and whether values are kept. */
void p11_facts_of_unwrapping(struct p11_key *key, const struct bk_wrapped *w, int facts[P11_FACTS]);
/* Of a KEK that was made with struct p11_generate's binding: whether that binds. */
void p11_facts_of_binding(struct p11_key *key, int facts[P11_FACTS]);
/* Whether a key with this label and id, whose session has ended, is there still. */
void p11_facts_of_leaving(struct p11_token *t, const struct p11_traits *traits, int facts[P11_FACTS]);

#endif
