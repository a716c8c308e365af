/* Which of the tokens that answer to a URI is meant. What is then done on it is behind on_token.h. */
#include <stdio.h>
#include <time.h>

#include "pkcs11/choose.h"
#include "pkcs11/left_out.h"

int
p11_token_look_again(int tries)
{
    const struct timespec pause = {.tv_nsec = 10000000L << tries};

    return tries < 5 && nanosleep(&pause, NULL) == 0;
}

enum bk_code
p11_tokens_look(struct p11 *p, const struct p11_uri *uri, struct p11_tokens *out, struct bk_err *err)
{
    enum bk_code rc = p11_tokens_match(p, uri, 0, out, err);

    for (int tries = 0; rc == BK_OK && out->count == 0 && p11_token_look_again(tries); tries++)
        rc = p11_tokens_match(p, uri, 1, out, err);
    return rc;
}

void
p11_tokens_list(const struct p11_tokens *tokens, struct p11_text_list *list)
{
    for (size_t i = 0; i < tokens->count; i++) {
        const char *serial = p11_token_serial(tokens->at[i]);
        char name[80];

        (void)snprintf(name, sizeof name, "'%s' (serial %s)", p11_token_label(tokens->at[i]),
                       serial[0] != '\0' ? serial : "none");
        p11_text_list_add(list, name);
    }
}

enum bk_code
p11_tokens_none(struct p11 *p, const struct p11_uri *uri, struct bk_err *err)
{
    struct p11_tokens all = {0};
    struct p11_text_list list = {0};
    size_t usable = p11_tokens_all(p, uri, &all);
    enum bk_code rc;

    p11_tokens_list(&all, &list);
    if (usable == 0) {
        rc = bk_fail(err, BK_E_TOKEN, "no token matches %s: no PKCS#11 module could be used", uri->text);
        bk_err_hint(err, "give ?module-path=… in the URI, or configure the module for p11-kit (p11-kit list-modules)");
    } else if (all.count == 0) {
        rc = bk_fail(err, BK_E_TOKEN, "no token matches %s: no token is there at all", uri->text);
    } else {
        rc = bk_fail(err, BK_E_TOKEN, "no token matches %s; tokens that are there: %s", uri->text,
                     p11_text_list_end(&list));
    }
    return rc;
}

/* No PIN is spent on several tokens in turn: only what is public decides between them. */
enum bk_code
p11_find_token(struct p11 *p, const struct p11_uri *uri, struct p11_token **out, struct bk_err *err)
{
    struct p11_tokens tokens = {0};
    struct p11_tokens showing = {0};
    struct p11_text_list list = {0};
    enum bk_code rc;

    if ((rc = p11_tokens_look(p, uri, &tokens, err)) != BK_OK)
        return rc;
    if (tokens.count == 0)
        return p11_tokens_none(p, uri, err);
    for (size_t i = 0; tokens.count > 1 && i < tokens.count; i++)
        if (p11_token_shows_object(tokens.at[i], uri))
            showing.at[showing.count++] = tokens.at[i];
    if (tokens.count == 1 || showing.count == 1) {
        *out = tokens.count == 1 ? tokens.at[0] : showing.at[0];
        return BK_OK;
    }
    p11_tokens_list(&tokens, &list);
    return bk_fail(err, BK_E_NO_KEY, "%s matches %zu tokens: %s; name one by token= or serial=", uri->text,
                   tokens.count, p11_text_list_end(&list));
}

enum bk_code
p11_key_open(struct p11 *p, const char *text, enum p11_use use, struct bk_key **out, struct bk_err *err)
{
    struct p11_uri uri = {0};
    struct p11_token *t = NULL;
    enum bk_code rc;

    if ((rc = p11_uri_parse(&uri, text, err)) != BK_OK)
        return rc;
    if ((rc = p11_find_token(p, &uri, &t, err)) == BK_OK)
        rc = p11_token_open_key(t, &uri, use, out, err);
    p11_left_out_explain(p, rc);
    p11_uri_free(&uri);
    return rc;
}

enum bk_code
p11_public(struct p11 *p, const char *text, struct bk_public *out, struct bk_err *err)
{
    struct p11_uri uri = {0};
    struct p11_token *t = NULL;
    enum bk_code rc;

    if ((rc = p11_uri_parse(&uri, text, err)) != BK_OK)
        return rc;
    if ((rc = p11_find_token(p, &uri, &t, err)) == BK_OK)
        rc = p11_token_public(t, &uri, out, err);
    p11_left_out_explain(p, rc);
    p11_uri_free(&uri);
    return rc;
}

/* A search for the key that answers to one of several ids. */
struct quest {
    const struct bk_key_id *ids;
    size_t count;
    size_t which;
    struct bk_key *key;
};

static enum bk_code
not_found(const struct p11_tokens *tokens, const struct p11_tokens *looked, struct bk_err *err)
{
    struct p11_text_list list = {0};
    enum bk_code rc;

    p11_tokens_list(tokens, &list);
    if (looked->count > 0 || tokens->count == 1)
        return bk_fail(err, BK_E_NO_KEY, "no key on these tokens opens it: %s", p11_text_list_end(&list));
    rc = bk_fail(err, BK_E_NO_KEY, "none of these tokens shows a key that opens it: %s", p11_text_list_end(&list));
    bk_err_hint(err, "secret keys are seen only after a login; name the token with -k 'pkcs11:token=...'");
    return rc;
}

/*
 * Tokens that show the key, or need no PIN (any more), in turn; if there are none and only one token is meant at all,
 * that one. A refused PIN or a request to stop ends the search, any other failure only that token.
 */
static enum bk_code
search_tokens(struct p11 *p, const struct p11_tokens *tokens, const struct p11_uri *uri, struct quest *q,
              struct bk_err *err)
{
    struct p11_tokens looked = {0};
    struct bk_err last = {0};
    enum bk_code rc = BK_OK;
    enum bk_code failed = BK_OK;

    for (size_t i = 0; i < tokens->count && q->key == NULL; i++) {
        struct p11_token *t = tokens->at[i];

        if (tokens->count > 1 && !p11_token_is_open(t) && !p11_token_shows_key(t, q->ids, q->count))
            continue;
        looked.at[looked.count++] = t;
        rc = p11_token_find_key(t, uri, P11_USE_UNWRAP, q->ids, q->count, &q->which, &q->key, &last);
        if (rc == BK_OK)
            continue;
        failed = rc;
        if (rc == BK_E_PIN || rc == BK_E_CANCELLED)
            break;
        p11_left_out_add(p, "a token could not be searched: %s", last.message);
    }
    if (q->key != NULL)
        return BK_OK;
    if (failed == BK_OK)
        return not_found(tokens, &looked, err);
    if (err != NULL)
        *err = last;
    return failed;
}

enum bk_code
p11_key_find(struct p11 *p, const char *text, const struct bk_key_id *ids, size_t id_count, size_t *which,
             struct bk_key **out, struct bk_err *err)
{
    struct quest q = {.ids = ids, .count = id_count};
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};
    enum bk_code rc;

    if ((rc = p11_uri_parse(&uri, text, err)) != BK_OK)
        return rc;
    rc = p11_tokens_look(p, &uri, &tokens, err);
    if (rc == BK_OK && tokens.count == 0)
        rc = p11_tokens_none(p, &uri, err);
    if (rc == BK_OK)
        rc = search_tokens(p, &tokens, &uri, &q, err);
    if (rc == BK_OK) {
        *which = q.which;
        *out = q.key;
    }
    p11_uri_free(&uri);
    return rc;
}

/* For what shall be done on one token, whichever objects it shows. */
static enum bk_code
only_token(struct p11 *p, const struct p11_uri *uri, struct p11_token **out, struct bk_err *err)
{
    struct p11_tokens tokens = {0};
    struct p11_text_list list = {0};
    enum bk_code rc;

    if ((rc = p11_tokens_look(p, uri, &tokens, err)) != BK_OK)
        return rc;
    if (tokens.count == 0)
        return p11_tokens_none(p, uri, err);
    p11_tokens_list(&tokens, &list);
    if (tokens.count > 1)
        return bk_fail(err, BK_E_USAGE, "%s matches %zu tokens: %s; name one by token= or serial=", uri->text,
                       tokens.count, p11_text_list_end(&list));
    *out = tokens.at[0];
    return BK_OK;
}

static enum bk_code
check_request(const struct p11_uri *uri, const struct p11_generate *what, struct bk_err *err)
{
    const CK_ATTRIBUTE *label = p11_uri_attribute(uri, CKA_LABEL);

    if (label == NULL || label->ulValueLen == 0 || label->ulValueLen > P11_LABEL_MAX)
        return bk_fail(err, BK_E_USAGE, "%s: object= must give the label of the new key", uri->text);
    if (p11_uri_attribute(uri, CKA_ID) != NULL)
        return bk_fail(err, BK_E_USAGE, "%s: the id of a new key is random; leave id= out", uri->text);
    if (what->signing && what->kind == P11_AES256)
        return bk_fail(err, BK_E_USAGE, "an AES key cannot sign");
    return BK_OK;
}

enum bk_code
p11_key_generate(struct p11 *p, const char *text, const struct p11_generate *what, struct bk_key **out,
                 struct bk_err *err)
{
    struct p11_uri uri = {0};
    struct p11_token *t = NULL;
    enum bk_code rc;

    if ((rc = p11_uri_parse(&uri, text, err)) != BK_OK)
        return rc;
    if ((rc = check_request(&uri, what, err)) == BK_OK)
        rc = only_token(p, &uri, &t, err);
    if (rc == BK_OK)
        rc = p11_token_generate(t, &uri, what, out, err);
    p11_left_out_explain(p, rc);
    p11_uri_free(&uri);
    return rc;
}

enum bk_code
p11_probe(struct p11 *p, const char *text, int lasting, char **token,
          int (*each)(void *ctx, const struct p11_probe_item *item), void *ctx, struct bk_err *err)
{
    struct p11_uri uri = {0};
    struct p11_token *t = NULL;
    enum bk_code rc;

    if ((rc = p11_uri_parse(&uri, text, err)) != BK_OK)
        return rc;
    *token = NULL;
    if ((rc = only_token(p, &uri, &t, err)) == BK_OK)
        rc = p11_token_uri(t, token, err);
    if (rc == BK_OK)
        rc = p11_token_probe(t, &uri, lasting, each, ctx, err);
    p11_left_out_explain(p, rc);
    p11_uri_free(&uri);
    return rc;
}

/* One PIN tried on several tokens is a wrong one on all but one. */
static enum bk_code
refuse_one_pin(const struct p11_uri *uri, const struct p11_tokens *match, struct bk_err *err)
{
    struct p11_text_list names = {0};

    p11_tokens_list(match, &names);
    return bk_fail(err, BK_E_USAGE, "%s has a PIN and matches %zu tokens: %s; name one by token= or serial=", uri->text,
                   match->count, p11_text_list_end(&names));
}

struct listing {
    int (*each)(void *ctx, const struct p11_item *item);
    void *ctx;
    size_t listed;
};

static int
count_item(void *ctx, const struct p11_item *item)
{
    struct listing *l = ctx;

    l->listed++;
    return l->each(l->ctx, item);
}

enum bk_code
p11_list(struct p11 *p, const char *text, int log_in, int (*each)(void *ctx, const struct p11_item *item), void *ctx,
         size_t *tokens, struct bk_err *err)
{
    struct listing l = {.each = each, .ctx = ctx};
    struct p11_uri uri = {0};
    struct p11_tokens match = {0};
    int stopped = 0;
    enum bk_code rc;

    if ((rc = p11_uri_parse(&uri, text, err)) != BK_OK)
        return rc;
    rc = p11_tokens_look(p, &uri, &match, err);
    if (rc == BK_OK && log_in && match.count > 1 && (uri.pin_source != NULL || uri.pin_value.data != NULL))
        rc = refuse_one_pin(&uri, &match, err);
    for (size_t i = 0; rc == BK_OK && !stopped && i < match.count; i++)
        rc = p11_token_list(match.at[i], &uri, log_in, count_item, &l, &stopped, err);
    if (rc == BK_OK)
        *tokens = match.count;
    /* one key that was asked for and is there needs nothing else; a list without what could not be read is not whole */
    if (l.listed == 0 || !p11_uri_names_object(text))
        p11_say_left_out(p);
    p11_uri_free(&uri);
    return rc;
}
