/*
 * What is done on one token, below the choice of the token (choose.c). There are two implementations, of which a
 * program links one: this folder's, by calls of a module that is loaded into this process; and worker/'s, which asks a
 * process that has loaded it. No CK_ type crosses.
 */
#ifndef BK_PKCS11_ON_TOKEN_H
#define BK_PKCS11_ON_TOKEN_H

#include "pkcs11/p11.h"
#include "pkcs11/uri.h"

struct p11_token;

#define P11_TOKENS_MAX 64
#define P11_LABEL_MAX  256 /* the longest label of a key */

/* Tokens that answer to a URI; they live until p11_close. */
struct p11_tokens {
    struct p11_token *at[P11_TOKENS_MAX];
    size_t count;
};

/* Loads modules as needed and fills *out with the tokens that the URI's token part names; none is not an error. With
 * again modules that no session is open with are started anew first: they may not have seen all of their tokens. */
BK_MUST_USE enum bk_code p11_tokens_match(struct p11 *p, const struct p11_uri *uri, int again, struct p11_tokens *out,
                                          struct bk_err *err);
/* For a message: every token of the modules that the URI may mean, and how many of these modules could be used. */
size_t p11_tokens_all(struct p11 *p, const struct p11_uri *uri, struct p11_tokens *out);

/* Fit for people: "bk", "a1b2c3", "token 'bk'". */
const char *p11_token_label(const struct p11_token *t);
const char *p11_token_serial(const struct p11_token *t);
const char *p11_token_where(const struct p11_token *t);
/* A URI that names it alone; the caller frees. */
BK_MUST_USE enum bk_code p11_token_uri(const struct p11_token *t, char **out, struct bk_err *err);

/* 1 if private objects can be seen without giving a PIN now. */
int p11_token_is_open(struct p11_token *t);
/* 1 if a public key or certificate that the URI names can be seen without logging in. */
int p11_token_shows_object(struct p11_token *t, const struct p11_uri *uri);
/* 1 if what the token shows to everybody answers to one of the ids. */
int p11_token_shows_key(struct p11_token *t, const struct bk_key_id *ids, size_t count);

/* p11_key_open on this token. */
BK_MUST_USE enum bk_code p11_token_open_key(struct p11_token *t, const struct p11_uri *uri, enum p11_use use,
                                            struct bk_key **out, struct bk_err *err);
/* p11_key_find on this token, logging in, for any use. *out stays NULL if the key is not there. */
BK_MUST_USE enum bk_code p11_token_find_key(struct p11_token *t, const struct p11_uri *uri, enum p11_use use,
                                            const struct bk_key_id *ids, size_t count, size_t *which,
                                            struct bk_key **out, struct bk_err *err);
/* p11_public on this token. */
BK_MUST_USE enum bk_code p11_token_public(struct p11_token *t, const struct p11_uri *uri, struct bk_public *out,
                                          struct bk_err *err);
/* p11_key_generate on this token. */
BK_MUST_USE enum bk_code p11_token_generate(struct p11_token *t, const struct p11_uri *uri,
                                            const struct p11_generate *what, struct bk_key **out, struct bk_err *err);
/* p11_list on this token. *stopped is 1 if each said so. */
BK_MUST_USE enum bk_code p11_token_list(struct p11_token *t, const struct p11_uri *uri, int log_in,
                                        int (*each)(void *ctx, const struct p11_item *item), void *ctx, int *stopped,
                                        struct bk_err *err);
/* p11_probe on this token. */
BK_MUST_USE enum bk_code p11_token_probe(struct p11_token *t, const struct p11_uri *uri, int lasting,
                                         int (*each)(void *ctx, const struct p11_probe_item *item), void *ctx,
                                         struct bk_err *err);

#endif
