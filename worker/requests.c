/* What a request of wire.h means in terms of pkcs11/. Arguments are read to their end before anything is done. */
#include <stdlib.h>
#include <string.h>

#include "base/keywrap.h"
#include "pkcs11/key.h"
#include "pkcs11/module.h"
#include "pkcs11/token.h"
#include "worker/serving.h"

/* Recipients of one archive (docs/FORMAT.md): more ids are not looked for at once. */
#define IDS_MAX 4096

/* --- tokens and keys by number -------------------------------------------------------------------------------------
 */

static enum bk_code
token_number(struct server *server, struct p11_token *t, uint32_t *number, struct bk_err *err)
{
    struct p11_token **grown;
    size_t i = 0;

    while (i < server->token_count && server->tokens[i] != t)
        i++;
    *number = (uint32_t)i;
    if (i < server->token_count)
        return BK_OK;
    if ((grown = reallocarray(server->tokens, i + 1, sizeof(struct p11_token *))) == NULL)
        return bk_fail_nomem(err);
    server->tokens = grown;
    server->tokens[server->token_count++] = t;
    return BK_OK;
}

static struct p11_token *
token_of(struct serving *s)
{
    uint32_t number = wire_get_u32(&s->in);
    struct p11_token *t = NULL;

    pthread_mutex_lock(&s->server->lock);
    if (number < s->server->token_count)
        t = s->server->tokens[number];
    pthread_mutex_unlock(&s->server->lock);
    if (t == NULL)
        s->in.body.failed = "number of a token";
    return t;
}

/* The key by its number, held until the request is done. */
static struct bk_key *
key_of(struct serving *s)
{
    struct server *server = s->server;
    uint32_t number = wire_get_u32(&s->in);
    struct served_key *kept = NULL;

    pthread_mutex_lock(&server->lock);
    if (number < server->key_count && s->held_count < SERVING_KEYS)
        kept = server->keys[number];
    if (kept != NULL) {
        kept->holders++;
        s->held[s->held_count++] = kept;
    }
    pthread_mutex_unlock(&server->lock);
    if (kept == NULL)
        s->in.body.failed = "number of a key";
    return kept == NULL ? NULL : kept->key;
}

static void
let_go(struct server *server, struct served_key *kept)
{
    unsigned left;

    pthread_mutex_lock(&server->lock);
    left = --kept->holders;
    pthread_mutex_unlock(&server->lock);
    if (left > 0)
        return;
    bk_key_close(kept->key);
    free(kept);
}

static void
let_go_of_all(struct serving *s)
{
    while (s->held_count > 0)
        let_go(s->server, s->held[--s->held_count]);
}

/* Gives it the first free number; 0 if there is no memory for one. */
static int
number_key(struct server *server, struct served_key *kept, uint32_t *number)
{
    struct served_key **grown;
    size_t i = 0;

    while (i < server->key_count && server->keys[i] != NULL)
        i++;
    if (i == server->key_count) {
        if ((grown = reallocarray(server->keys, i + 1, sizeof(struct served_key *))) == NULL)
            return 0;
        server->keys = grown;
        server->key_count++;
    }
    server->keys[i] = kept;
    *number = (uint32_t)i;
    return 1;
}

static enum bk_code
keep_key(struct server *server, struct bk_key *key, uint32_t *number, struct bk_err *err)
{
    struct served_key *kept = calloc(1, sizeof *kept);
    int numbered;

    if (kept == NULL)
        return bk_fail_nomem(err);
    *kept = (struct served_key){key, 1};
    pthread_mutex_lock(&server->lock);
    numbered = number_key(server, kept, number);
    pthread_mutex_unlock(&server->lock);
    if (numbered)
        return BK_OK;
    free(kept);
    return bk_fail_nomem(err);
}

/* Takes the key over. */
static enum bk_code
put_key(struct serving *s, struct bk_key *key, struct bk_err *err)
{
    uint32_t number = 0;
    enum bk_code rc = keep_key(s->server, key, &number, err);

    if (rc != BK_OK) {
        bk_key_close(key);
        return rc;
    }
    wire_put_u32(&s->out, number);
    wire_put_u32(&s->out, key->ops->sign != NULL);
    wire_put_u32(&s->out, key->ops->wrap != NULL);
    wire_put_public(&s->out, &key->pub);
    return BK_OK;
}

void
server_end(struct server *server)
{
    for (size_t i = 0; i < server->key_count; i++)
        if (server->keys[i] != NULL)
            let_go(server, server->keys[i]);
    free(server->keys);
    free(server->tokens);
    p11_close(server->p11);
}

/* --- modules and tokens --------------------------------------------------------------------------------------------
 */

struct names {
    struct wire_out list;
    uint32_t count;
};

static void
add_name(void *ctx, const struct p11_configured *module)
{
    struct names *n = ctx;

    wire_put_text(&n->list, module->name);
    wire_put_text(&n->list, module->file);
    wire_put_u32(&n->list, module->plain != 0);
    n->count++;
}

static enum bk_code
modules(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct names n = {0};
    enum bk_code rc = wire_end(&s->in, err);

    (void)secret;
    if (rc == BK_OK)
        rc = p11_modules_configured(s->server->p11, add_name, &n, err);
    if (rc == BK_OK && n.list.failed)
        rc = bk_fail_nomem(err);
    wire_put_u32(&s->out, n.count);
    if (rc == BK_OK)
        rc = bk_buf_append(&s->out.body, n.list.body.data, n.list.body.len, err);
    bk_buf_free(&n.list.body);
    return rc;
}

static enum bk_code
only(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    const char *name = wire_get_some_text(&s->in);
    const char *file = wire_get_text(&s->in);
    enum bk_code rc = wire_end(&s->in, err);

    (void)secret;
    return rc != BK_OK ? rc : p11_module_only(s->server->p11, name, file, err);
}

static enum bk_code
put_token(struct serving *s, struct p11_token *t, struct bk_err *err)
{
    uint32_t number = 0;
    char *uri = NULL;
    enum bk_code rc;

    pthread_mutex_lock(&s->server->lock);
    rc = token_number(s->server, t, &number, err);
    pthread_mutex_unlock(&s->server->lock);
    if (rc == BK_OK)
        rc = p11_uri_hint(&t->info, NULL, NULL, &uri, err);
    wire_put_u32(&s->out, number);
    wire_put_text(&s->out, p11_token_label(t));
    wire_put_text(&s->out, p11_token_serial(t));
    wire_put_text(&s->out, p11_token_where(t));
    wire_put_text(&s->out, uri);
    free(uri);
    return rc;
}

static enum bk_code
match(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    enum wire_match how = (enum wire_match)wire_get_below(&s->in, WIRE_MATCH_ALL + 1);
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};
    size_t usable = 1;
    int there = 0;
    enum bk_code rc = wire_get_uri(&s->in, &uri, &there, err);

    (void)secret;
    if (rc == BK_OK)
        rc = wire_end(&s->in, err);
    if (rc == BK_OK && how == WIRE_MATCH_ALL)
        usable = p11_tokens_all(s->server->p11, &uri, &tokens);
    else if (rc == BK_OK)
        rc = p11_tokens_match(s->server->p11, &uri, how == WIRE_MATCH_AGAIN, &tokens, err);
    wire_put_u32(&s->out, usable != 0);
    wire_put_u32(&s->out, (uint32_t)tokens.count);
    for (size_t i = 0; rc == BK_OK && i < tokens.count; i++)
        rc = put_token(s, tokens.at[i], err);
    p11_uri_free(&uri);
    return rc;
}

/* --- from one worker to the next -----------------------------------------------------------------------------------
 */

static enum bk_code
give_away(struct serving *s, struct p11_token *t, struct bk_err *err)
{
    char *uri = NULL;
    enum bk_code rc = p11_uri_hint(&t->info, NULL, NULL, &uri, err);

    if (rc != BK_OK)
        return rc;
    wire_begin(&s->event, WIRE_ACCEPTED);
    wire_put_text(&s->event, uri);
    free(uri);
    return serving_ask(s, &t->pin, err);
}

static enum bk_code
hand_over(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    enum bk_code rc = wire_end(&s->in, err);

    (void)secret;
    for (struct p11_token *t = s->server->p11->tokens; rc == BK_OK && t != NULL; t = t->next)
        if (t->pin.data != NULL && t->failed == BK_OK && !t->officer)
            rc = give_away(s, t, err);
    return rc;
}

static enum bk_code
take_over(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};
    struct bk_secret pin = {0};
    int there = 0;
    enum bk_code rc;

    (void)secret;
    bk_secret_move(&pin, &s->in.secret); /* of a URI it would be the pin-value */
    rc = wire_get_uri(&s->in, &uri, &there, err);
    if (rc == BK_OK)
        rc = wire_end(&s->in, err);
    if (rc == BK_OK && there)
        rc = p11_tokens_match(s->server->p11, &uri, 0, &tokens, err);
    /* of a token that is not there, or not to be told from another, the PIN is of no use */
    if (rc == BK_OK && tokens.count == 1 && tokens.at[0]->pin.data == NULL)
        bk_secret_move(&tokens.at[0]->pin, &pin);
    bk_secret_wipe(&pin);
    p11_uri_free(&uri);
    return rc;
}

static enum bk_code
is_open(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct p11_token *t = token_of(s);
    enum bk_code rc = wire_end(&s->in, err);

    (void)secret;
    if (rc == BK_OK)
        wire_put_u32(&s->out, p11_token_is_open(t) != 0);
    return rc;
}

/* What most requests begin with. */
struct target {
    struct p11_token *token;
    struct p11_uri uri;
    const struct p11_uri *uri_or_null;
};

static enum bk_code
get_target(struct serving *s, struct target *t, struct bk_err *err)
{
    int there = 0;
    enum bk_code rc;

    t->token = token_of(s);
    rc = wire_get_uri(&s->in, &t->uri, &there, err);
    t->uri_or_null = there ? &t->uri : NULL;
    return rc;
}

/* The same where a URI must be there. */
static enum bk_code
get_named(struct serving *s, struct target *t, struct bk_err *err)
{
    enum bk_code rc = get_target(s, t, err);

    if (rc == BK_OK && t->uri_or_null == NULL)
        rc = bk_fail(err, BK_E_INTERNAL, "a request came without its URI");
    return rc;
}

static enum bk_code
shows_object(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct target t = {0};
    enum bk_code rc = get_named(s, &t, err);

    (void)secret;
    if (rc == BK_OK)
        rc = wire_end(&s->in, err);
    if (rc == BK_OK)
        wire_put_u32(&s->out, p11_token_shows_object(t.token, &t.uri) != 0);
    p11_uri_free(&t.uri);
    return rc;
}

static enum bk_code
shows_key(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct p11_token *t = token_of(s);
    struct bk_key_id *ids = calloc(IDS_MAX, sizeof *ids);
    size_t count = ids == NULL ? 0 : wire_get_ids(&s->in, ids, IDS_MAX);
    enum bk_code rc = ids == NULL ? bk_fail_nomem(err) : wire_end(&s->in, err);

    (void)secret;
    if (rc == BK_OK)
        wire_put_u32(&s->out, p11_token_shows_key(t, ids, count) != 0);
    free(ids);
    return rc;
}

/* --- finding and making keys ---------------------------------------------------------------------------------------
 */

static enum bk_code
open_key(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct target t = {0};
    struct bk_key *key = NULL;
    enum bk_code rc = get_named(s, &t, err);
    enum p11_use use = (enum p11_use)wire_get_below(&s->in, P11_USE_SIGN + 1);

    (void)secret;
    if (rc == BK_OK)
        rc = wire_end(&s->in, err);
    if (rc == BK_OK)
        rc = p11_token_open_key(t.token, &t.uri, use, &key, err);
    if (rc == BK_OK)
        rc = put_key(s, key, err);
    p11_uri_free(&t.uri);
    return rc;
}

static enum bk_code
find_key(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct target t = {0};
    struct bk_key_id *ids = calloc(IDS_MAX, sizeof *ids);
    struct bk_key *key = NULL;
    size_t which = 0;
    enum bk_code rc = ids == NULL ? bk_fail_nomem(err) : get_target(s, &t, err);
    enum p11_use use = (enum p11_use)wire_get_below(&s->in, P11_USE_SIGN + 1);
    size_t count = ids == NULL ? 0 : wire_get_ids(&s->in, ids, IDS_MAX);

    (void)secret;
    if (rc == BK_OK)
        rc = wire_end(&s->in, err);
    if (rc == BK_OK)
        rc = p11_token_find_key(t.token, t.uri_or_null, use, ids, count, &which, &key, err);
    wire_put_u32(&s->out, key != NULL);
    wire_put_u32(&s->out, (uint32_t)which);
    if (rc == BK_OK && key != NULL)
        rc = put_key(s, key, err);
    p11_uri_free(&t.uri);
    free(ids);
    return rc;
}

static enum bk_code public(struct serving *s, struct bk_secret *secret, struct bk_err *err) {
    struct target t = {0}; struct bk_public pub = {0}; enum bk_code rc = get_named(s, &t, err);

    (void)secret;
    if (rc == BK_OK) rc = wire_end(&s->in, err);
    if (rc == BK_OK) rc = p11_token_public(t.token, &t.uri, &pub, err);
    if (rc == BK_OK) wire_put_public(&s->out, &pub);
    bk_public_free(&pub);
    p11_uri_free(&t.uri);
    return rc;
}

static enum bk_code
generate(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct target t = {0};
    struct p11_generate what = {0};
    struct bk_key *key = NULL;
    enum bk_code rc = get_named(s, &t, err);

    (void)secret;
    what.kind = (enum p11_key_kind)wire_get_below(&s->in, P11_AES256 + 1);
    what.signing = wire_get_flag(&s->in);
    what.passing = wire_get_flag(&s->in);
    what.sealed = wire_get_flag(&s->in);
    if (rc == BK_OK)
        rc = wire_end(&s->in, err);
    if (rc == BK_OK)
        rc = p11_token_generate(t.token, &t.uri, &what, &key, err);
    if (rc == BK_OK)
        rc = put_key(s, key, err);
    p11_uri_free(&t.uri);
    return rc;
}

/* --- lists ---------------------------------------------------------------------------------------------------------
 */

/* Sends s->event; 1 if the program wants no more, or could not be told. */
static int
offer(struct serving *s)
{
    return serving_ask(s, NULL, &s->unsaid) != BK_OK || s->answer.type != WIRE_GO_ON;
}

/* A list that is not whole is no list. */
static enum bk_code
all_said(const struct serving *s, struct bk_err *err)
{
    if (s->unsaid.code != BK_OK && err != NULL)
        *err = s->unsaid;
    return s->unsaid.code;
}

static int
each_item(void *ctx, const struct p11_item *item)
{
    struct serving *s = ctx;

    wire_begin(&s->event, WIRE_ITEM);
    wire_put_item(&s->event, item);
    return offer(s);
}

static int
each_probe_item(void *ctx, const struct p11_probe_item *item)
{
    struct serving *s = ctx;

    wire_begin(&s->event, WIRE_PROBE_ITEM);
    wire_put_probe_item(&s->event, item);
    return offer(s);
}

static enum bk_code
list(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct target t = {0};
    int stopped = 0;
    enum bk_code rc = get_named(s, &t, err);
    int log_in = wire_get_flag(&s->in);

    (void)secret;
    if (rc == BK_OK)
        rc = wire_end(&s->in, err);
    if (rc == BK_OK)
        rc = p11_token_list(t.token, &t.uri, log_in, each_item, s, &stopped, err);
    if (rc == BK_OK)
        rc = all_said(s, err);
    wire_put_u32(&s->out, stopped != 0);
    p11_uri_free(&t.uri);
    return rc;
}

static enum bk_code
probe(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct target t = {0};
    enum bk_code rc = get_named(s, &t, err);
    int lasting = wire_get_flag(&s->in);

    (void)secret;
    if (rc == BK_OK)
        rc = wire_end(&s->in, err);
    if (rc == BK_OK)
        rc = p11_token_probe(t.token, &t.uri, lasting, each_probe_item, s, err);
    if (rc == BK_OK)
        rc = all_said(s, err);
    p11_uri_free(&t.uri);
    return rc;
}

/* --- a key's work --------------------------------------------------------------------------------------------------
 */

static enum bk_code
wrap(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct bk_key *key = key_of(s);
    struct bk_wrapped out = {0};
    enum bk_code rc = wire_end(&s->in, err);

    (void)secret;
    if (rc == BK_OK)
        rc = bk_key_wrap(key, &s->in.secret, &out, err);
    if (rc == BK_OK)
        wire_put_wrapped(&s->out, &out);
    return rc;
}

static enum bk_code
unwrap(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct bk_key *key = key_of(s);
    struct bk_wrapped in = {0};
    enum bk_code rc;

    wire_get_wrapped(&s->in, &in);
    rc = wire_end(&s->in, err);
    return rc != BK_OK ? rc : bk_key_unwrap(key, &in, secret, err);
}

static enum bk_code
rewrap(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct bk_key *key = key_of(s);
    struct bk_key *to = key_of(s);
    struct bk_wrapped in = {0};
    struct bk_wrapped out = {0};
    enum bk_code rc;

    (void)secret;
    wire_get_wrapped(&s->in, &in);
    if ((rc = wire_end(&s->in, err)) == BK_OK)
        rc = bk_key_rewrap(key, &in, to, &out, err);
    if (rc != BK_OK)
        return rc;
    wire_put_wrapped(&s->out, &out);
    wire_put_u32(&s->out, key->enforces != 0);
    wire_put_u32(&s->out, to->enforces != 0);
    return BK_OK;
}

static enum bk_code
sign(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct bk_key *key = key_of(s);
    size_t digest_len = 0;
    const uint8_t *digest = wire_get_bytes(&s->in, &digest_len);
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t sig_len = sizeof sig;
    enum bk_code rc = wire_end(&s->in, err);

    (void)secret;
    if (rc == BK_OK && digest_len != 32)
        rc = bk_fail(err, BK_E_INTERNAL, "a digest of %zu bytes", digest_len);
    if (rc == BK_OK)
        rc = bk_key_sign(key, digest, sig, &sig_len, err);
    if (rc == BK_OK)
        wire_put_bytes(&s->out, sig, sig_len);
    return rc;
}

static enum bk_code
close_key(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct server *server = s->server;
    struct served_key *numbered = NULL;
    enum bk_code rc;

    (void)secret;
    (void)key_of(s);
    if ((rc = wire_end(&s->in, err)) != BK_OK)
        return rc;
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < server->key_count; i++)
        if (server->keys[i] == s->held[0]) {
            numbered = server->keys[i];
            server->keys[i] = NULL;
        }
    pthread_mutex_unlock(&server->lock);
    if (numbered != NULL)
        let_go(server, numbered);
    return BK_OK;
}

static enum bk_code
certificate(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct bk_key *key = key_of(s);
    struct bk_buf der = {0};
    enum bk_code rc = wire_end(&s->in, err);

    (void)secret;
    if (rc == BK_OK)
        rc = p11_certificate(key, &der, err);
    if (rc == BK_OK)
        wire_put_bytes(&s->out, der.data, der.len);
    bk_buf_free(&der);
    return rc;
}

static enum bk_code
same_login(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct bk_key *key = key_of(s);
    struct bk_key_id ids[P11_SAME_LOGIN_MAX];
    int holds[P11_SAME_LOGIN_MAX] = {0};
    size_t count = wire_get_ids(&s->in, ids, P11_SAME_LOGIN_MAX);
    enum bk_code rc;

    (void)secret;
    if ((rc = wire_end(&s->in, err)) == BK_OK)
        rc = p11_same_login_holds(key, ids, count, holds, err);
    for (size_t i = 0; i < count; i++)
        wire_put_u32(&s->out, holds[i] != 0);
    return rc;
}

static enum bk_code
store_certificate(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct bk_key *key = key_of(s);
    size_t len = 0;
    const uint8_t *der = wire_get_bytes(&s->in, &len);
    enum bk_code rc = wire_end(&s->in, err);

    (void)secret;
    return rc != BK_OK ? rc : p11_certificate_store(key, der, len, err);
}

static enum bk_code
destroy(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    struct bk_key *key = key_of(s);
    enum bk_code rc = wire_end(&s->in, err);

    (void)secret;
    return rc != BK_OK ? rc : p11_key_destroy(key, err);
}

enum bk_code
serving_request(struct serving *s, struct bk_secret *secret, struct bk_err *err)
{
    static enum bk_code (*const requests[WIRE_REQUESTS])(struct serving *, struct bk_secret *, struct bk_err *) = {
        [WIRE_MODULES] = modules,
        [WIRE_ONLY] = only,
        [WIRE_MATCH] = match,
        [WIRE_IS_OPEN] = is_open,
        [WIRE_SHOWS_OBJECT] = shows_object,
        [WIRE_SHOWS_KEY] = shows_key,
        [WIRE_OPEN_KEY] = open_key,
        [WIRE_FIND_KEY] = find_key,
        [WIRE_PUBLIC] = public,
        [WIRE_GENERATE] = generate,
        [WIRE_LIST] = list,
        [WIRE_PROBE] = probe,
        [WIRE_WRAP] = wrap,
        [WIRE_UNWRAP] = unwrap,
        [WIRE_REWRAP] = rewrap,
        [WIRE_SIGN] = sign,
        [WIRE_CLOSE] = close_key,
        [WIRE_CERTIFICATE] = certificate,
        [WIRE_SAME_LOGIN] = same_login,
        [WIRE_STORE_CERTIFICATE] = store_certificate,
        [WIRE_DESTROY] = destroy,
        [WIRE_HAND_OVER] = hand_over,
        [WIRE_TAKE_OVER] = take_over,
    };
    unsigned type = s->in.type;
    enum bk_code rc;

    if (type >= WIRE_REQUESTS || requests[type] == NULL)
        return bk_fail(err, BK_E_INTERNAL, "there is no request %u", type);
    rc = requests[type](s, secret, err);
    let_go_of_all(s);
    return rc;
}
