/* pkcs11/p11.h's run, and pkcs11/on_token.h, by requests to workers. */
#include "worker/client.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum bk_code
p11_open(const struct p11_options *options, struct p11 **out, struct bk_err *err)
{
    struct p11 *p = calloc(1, sizeof *p);

    if (p == NULL || p11_left_out_init(&p->left_out, options->log, err) != BK_OK) {
        free(p);
        return bk_fail_nomem(err);
    }
    (void)pthread_mutex_init(&p->lock, NULL);
    p->options = *options;
    *out = p;
    return BK_OK;
}

struct p11_left_out *
p11_left_out_of(struct p11 *p)
{
    return &p->left_out;
}

static void
token_free(struct p11_token *t)
{
    if (t == NULL)
        return;
    free(t->label);
    free(t->serial);
    free(t->where);
    free(t->uri);
    p11_uri_free(&t->login);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}

/* Whoever comes first waits for what was begun beforehand. */
static void
await_preparer(struct p11 *p)
{
    int preparing;

    pthread_mutex_lock(&p->lock);
    preparing = p->preparing;
    p->preparing = 0;
    pthread_mutex_unlock(&p->lock);
    if (!preparing)
        return;
    (void)pthread_join(p->preparer, NULL);
    p11_uri_free(&p->wanted);
}

void
p11_close(struct p11 *p)
{
    if (p == NULL)
        return;
    while (p->tokens != NULL) {
        struct p11_token *t = p->tokens;

        p->tokens = t->next;
        token_free(t);
    }
    await_preparer(p);
    while (p->workers != NULL) {
        struct worker *w = p->workers;

        p->workers = w->next;
        worker_free(w);
    }
    p11_left_out_free(&p->left_out);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

const char *
p11_token_label(const struct p11_token *t)
{
    return t->label;
}

const char *
p11_token_serial(const struct p11_token *t)
{
    return t->serial;
}

const char *
p11_token_where(const struct p11_token *t)
{
    return t->where;
}

enum bk_code
p11_token_uri(const struct p11_token *t, char **out, struct bk_err *err)
{
    return (*out = strdup(t->uri)) == NULL ? bk_fail_nomem(err) : BK_OK;
}

/* --- which tokens there are --------------------------------------------------------------------------------------- */

/* A token as a worker tells of it; texts are in the message. */
struct told {
    uint32_t number;
    const char *label, *serial, *where, *uri;
};

static void
get_told(struct wire_in *in, struct told *told)
{
    told->number = wire_get_u32(in);
    told->label = wire_get_shown(in);
    told->serial = wire_get_shown(in);
    told->where = wire_get_shown(in);
    told->uri = wire_get_some_text(in);
}

static int
is_told(const struct p11_token *t, const struct worker *w, unsigned life, const struct told *told)
{
    if (t->worker != w || strcmp(t->uri, told->uri) != 0)
        return 0;
    return t->life != life || t->number == told->number;
}

static struct p11_token *
token_new(struct p11 *p, struct worker *w, const struct told *told)
{
    struct p11_token *t = calloc(1, sizeof *t);

    if (t == NULL)
        return NULL;
    (void)pthread_mutex_init(&t->lock, NULL);
    t->worker = w;
    t->label = strdup(told->label);
    t->serial = strdup(told->serial);
    t->where = strdup(told->where);
    t->uri = strdup(told->uri);
    if (t->label == NULL || t->serial == NULL || t->where == NULL || t->uri == NULL) {
        token_free(t);
        return NULL;
    }
    t->next = p->tokens;
    p->tokens = t;
    return t;
}

/* The token that is told of, known from before or new. */
static struct p11_token *
token_get(struct p11 *p, struct worker *w, unsigned life, const struct told *told)
{
    struct p11_token *t;

    pthread_mutex_lock(&p->lock);
    for (t = p->tokens; t != NULL; t = t->next) {
        int same;

        pthread_mutex_lock(&t->lock);
        same = is_told(t, w, life, told);
        pthread_mutex_unlock(&t->lock);
        if (same)
            break;
    }
    if (t == NULL)
        t = token_new(p, w, told);
    if (t != NULL) {
        pthread_mutex_lock(&t->lock);
        t->life = life;
        t->number = told->number;
        pthread_mutex_unlock(&t->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return t;
}

static void
begin_match(struct request *r, const struct p11_uri *uri, enum wire_match how)
{
    r->upkeep = 1;
    wire_begin(&r->out, WIRE_MATCH);
    wire_put_u32(&r->out, (uint32_t)how);
    wire_put_uri(&r->out, uri);
}

/* Sends WIRE_MATCH; the result is read up to the tokens. */
static enum bk_code
ask_for_tokens(struct worker *w, const struct p11_uri *uri, enum wire_match how, struct request *r, size_t *usable,
               uint32_t *count, struct bk_err *err)
{
    enum bk_code rc;

    begin_match(r, uri, how);
    rc = worker_request(w, r, err);
    if (rc == BK_E_TOKEN && worker_renew(w, r)) {
        r->life = 0;
        rc = worker_request(w, r, err);
    }
    if (rc != BK_OK)
        return rc;
    *usable += (size_t)wire_get_flag(&r->in);
    *count = wire_get_below(&r->in, P11_TOKENS_MAX + 1);
    return BK_OK;
}

static enum bk_code
match_worker(struct p11 *p, struct worker *w, const struct p11_uri *uri, enum wire_match how, struct p11_tokens *out,
             size_t *usable, struct bk_err *err)
{
    struct request r = {0};
    uint32_t count = 0;
    enum bk_code rc = ask_for_tokens(w, uri, how, &r, usable, &count, err);

    for (uint32_t i = 0; rc == BK_OK && i < count; i++) {
        struct told told;
        struct p11_token *t;

        get_told(&r.in, &told);
        if (r.in.body.failed != NULL)
            break;
        if ((t = token_get(p, w, r.life, &told)) == NULL)
            rc = bk_fail_nomem(err);
        else if (out->count == P11_TOKENS_MAX)
            rc = bk_fail(err, BK_E_TOKEN, "more than %d tokens match; name one by token= and serial=", P11_TOKENS_MAX);
        else
            out->at[out->count++] = t;
    }
    if (rc == BK_OK)
        rc = worker_result_end(w, &r, err);
    request_free(&r);
    return rc;
}

static int
worker_is_meant(const struct worker *w, const struct p11_uri *uri)
{
    if (uri->module_path != NULL)
        return w->is_path && strcmp(w->name, uri->module_path) == 0;
    return !w->is_path && p11_uri_names_module(uri, w->name, w->file);
}

/* A path may be named that has no worker yet. */
static enum bk_code
have_workers(struct p11 *p, const struct p11_uri *uri, struct bk_err *err)
{
    struct worker *w = p->workers;
    enum bk_code rc;

    if (uri->module_path == NULL)
        return workers_look(p, err);
    while (w != NULL && !worker_is_meant(w, uri))
        w = w->next;
    if (w != NULL)
        return BK_OK;
    if ((rc = worker_add(p, uri->module_path, uri->module_path, &w, err)) != BK_OK)
        return rc;
    w->by_file = 1;
    w->is_path = 1;
    return BK_OK;
}

/* All start before one is asked, so that they load their modules side by side. *first: the list as it is now; other
 * threads put theirs before it. */
static enum bk_code
start_workers(struct p11 *p, const struct p11_uri *uri, struct worker **first, struct bk_err *err)
{
    enum bk_code rc;

    pthread_mutex_lock(&p->lock);
    rc = have_workers(p, uri, err);
    for (struct worker *w = p->workers; rc == BK_OK && w != NULL; w = w->next)
        if (worker_is_meant(w, uri))
            (void)!worker_start(w, NULL); /* its first request says why not */
    *first = p->workers;
    pthread_mutex_unlock(&p->lock);
    return rc;
}

/* What a first look at the tokens will ask, so that it finds the modules loaded and initialized. */
static void *
preparer_main(void *arg)
{
    struct p11 *p = arg;
    struct worker *first = NULL;

    if (start_workers(p, &p->wanted, &first, NULL) != BK_OK)
        return NULL;
    for (struct worker *w = first; w != NULL; w = w->next) {
        struct request r = {0};

        if (!worker_is_meant(w, &p->wanted))
            continue;
        begin_match(&r, &p->wanted, WIRE_MATCH_ONCE);
        (void)!worker_request(w, &r, NULL);
        request_free(&r);
    }
    return NULL;
}

void
p11_prepare(struct p11 *p, const char *text)
{
    sigset_t all, before;

    await_preparer(p);
    if (p11_uri_parse(&p->wanted, text, NULL) != BK_OK)
        return;
    /* handlers run where the program expects them */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    p->preparing = pthread_create(&p->preparer, NULL, preparer_main, p) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!p->preparing)
        p11_uri_free(&p->wanted);
}

/* A configured module that is broken is left out; one that is named by its path is an error. */
static enum bk_code
match(struct p11 *p, const struct p11_uri *uri, enum wire_match how, struct p11_tokens *out, size_t *usable,
      struct bk_err *err)
{
    struct bk_err own = {0};
    struct worker *first = NULL;
    enum bk_code rc;

    await_preparer(p);
    if ((rc = start_workers(p, uri, &first, err)) != BK_OK)
        return rc;
    out->count = 0;
    for (struct worker *w = first; rc == BK_OK && w != NULL; w = w->next) {
        if (!worker_is_meant(w, uri))
            continue;
        rc = match_worker(p, w, uri, how, out, usable, &own);
        if (rc == BK_E_TOKEN && !w->is_path) {
            p11_left_out_add(p, "a configured PKCS#11 module was left out: %s", own.message);
            rc = BK_OK;
        }
    }
    if (rc != BK_OK && err != NULL)
        *err = own;
    return rc;
}

enum bk_code
p11_tokens_match(struct p11 *p, const struct p11_uri *uri, int again, struct p11_tokens *out, struct bk_err *err)
{
    size_t usable = 0;

    return match(p, uri, again ? WIRE_MATCH_AGAIN : WIRE_MATCH_ONCE, out, &usable, err);
}

size_t
p11_tokens_all(struct p11 *p, const struct p11_uri *uri, struct p11_tokens *out)
{
    size_t usable = 0;

    /* for a message: what cannot be listed is left out of it */
    (void)!match(p, uri, WIRE_MATCH_ALL, out, &usable, NULL);
    return usable;
}

/* --- requests about one token ------------------------------------------------------------------------------------- */

/* The number that the token has with the worker's present process, which is started if need be. */
static enum bk_code
look_up_again(struct p11_token *t, struct bk_err *err)
{
    const struct bk_secret none = {0};
    struct p11_uri uri = {0};
    struct p11_tokens tokens = {0};
    size_t usable = 0;
    enum bk_code rc;

    if ((rc = p11_uri_make(&uri, t->uri, NULL, &none, err)) != BK_OK)
        return rc;
    rc = match_worker(t->worker->owner, t->worker, &uri, WIRE_MATCH_ONCE, &tokens, &usable, err);
    p11_uri_free(&uri);
    if (rc == BK_OK && (tokens.count != 1 || tokens.at[0] != t))
        rc = bk_fail(err, BK_E_TOKEN, "%s: it is not there any more since its module was started anew", t->where);
    return rc;
}

enum bk_code
token_request(struct p11_token *t, struct request *r, struct bk_err *err)
{
    enum bk_code rc = BK_E_INTERNAL;
    unsigned failures = 0;

    r->token = t;
    for (int tries = 0; tries < 4; tries++) {
        pthread_mutex_lock(&t->lock);
        r->life = t->life;
        request_set_number(r, 0, t->number);
        pthread_mutex_unlock(&t->lock);
        rc = worker_request(t->worker, r, err);
        if (rc == BK_OK || !worker_may_go_on(t->worker, r, rc, &failures))
            return rc;
        if ((rc = look_up_again(t, err)) != BK_OK)
            return rc;
    }
    return rc;
}

/* Only what the PIN needs: with this URI any key of the token may be looked for. That of a later URI was not looked at
 * by a token that was logged in to, and may be wrong. */
enum bk_code
token_note_login(struct p11_token *t, const struct p11_uri *uri, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    pthread_mutex_lock(&t->lock);
    if (t->login.kit == NULL && uri != NULL)
        rc = p11_uri_make(&t->login, t->uri, uri->pin_source, &uri->pin_value, err);
    pthread_mutex_unlock(&t->lock);
    return rc;
}

/* Begins a request about a token with a URI, whose PIN goes with it. */
static void
begin_with_uri(struct request *r, enum wire_type type, const struct p11_uri *uri)
{
    request_begin(r, type);
    wire_put_uri(&r->out, uri);
    r->secret = uri == NULL ? NULL : &uri->pin_value;
    r->pin_source = uri == NULL ? NULL : uri->pin_source;
}

/* For questions whose answer is yes or no, and no if there is none. */
static int
ask(struct p11_token *t, struct request *r)
{
    int yes = 0;

    r->upkeep = 1;
    if (token_request(t, r, NULL) == BK_OK) {
        yes = wire_get_flag(&r->in);
        if (worker_result_end(t->worker, r, NULL) != BK_OK)
            yes = 0;
    }
    request_free(r);
    return yes;
}

int
p11_token_is_open(struct p11_token *t)
{
    struct request r = {0};

    request_begin(&r, WIRE_IS_OPEN);
    return ask(t, &r);
}

int
p11_token_shows_object(struct p11_token *t, const struct p11_uri *uri)
{
    struct request r = {0};

    begin_with_uri(&r, WIRE_SHOWS_OBJECT, uri);
    return ask(t, &r);
}

int
p11_token_shows_key(struct p11_token *t, const struct bk_key_id *ids, size_t count)
{
    struct request r = {0};

    request_begin(&r, WIRE_SHOWS_KEY);
    wire_put_ids(&r.out, ids, count);
    return ask(t, &r);
}

enum bk_code
p11_token_open_key(struct p11_token *t, const struct p11_uri *uri, enum p11_use use, struct bk_key **out,
                   struct bk_err *err)
{
    struct request r = {0};
    enum bk_code rc;

    begin_with_uri(&r, WIRE_OPEN_KEY, uri);
    wire_put_u32(&r.out, (uint32_t)use);
    if ((rc = token_request(t, &r, err)) == BK_OK)
        rc = token_note_login(t, uri, err);
    if (rc == BK_OK)
        rc = remote_key_take(t, use, &r, out, err);
    request_free(&r);
    return rc;
}

enum bk_code
p11_token_find_key(struct p11_token *t, const struct p11_uri *uri, enum p11_use use, const struct bk_key_id *ids,
                   size_t count, size_t *which, struct bk_key **out, struct bk_err *err)
{
    struct request r = {0};
    struct bk_key *key = NULL;
    size_t index = 0;
    int found = 0;
    enum bk_code rc;

    begin_with_uri(&r, WIRE_FIND_KEY, uri);
    wire_put_u32(&r.out, (uint32_t)use);
    wire_put_ids(&r.out, ids, count);
    if ((rc = token_request(t, &r, err)) == BK_OK)
        rc = token_note_login(t, uri, err);
    if (rc == BK_OK) {
        found = wire_get_flag(&r.in);
        index = wire_get_below(&r.in, found ? (uint32_t)count : UINT32_MAX);
        rc = found ? remote_key_take(t, use, &r, &key, err) : worker_result_end(t->worker, &r, err);
    }
    if (rc == BK_OK && found && !bk_key_id_equal(&key->pub.id, &ids[index])) {
        rc = bk_fail(err, BK_E_TOKEN, "%s: another key was found than was looked for", t->where);
        bk_key_close(key);
    }
    if (rc == BK_OK && found) {
        *which = index;
        *out = key;
    }
    request_free(&r);
    return rc;
}

enum bk_code
p11_token_public(struct p11_token *t, const struct p11_uri *uri, struct bk_public *out, struct bk_err *err)
{
    struct request r = {0};
    struct bk_public pub = {0};
    enum bk_code rc;

    begin_with_uri(&r, WIRE_PUBLIC, uri);
    if ((rc = token_request(t, &r, err)) == BK_OK)
        rc = token_note_login(t, uri, err);
    if (rc == BK_OK) {
        wire_get_public(&r.in, &pub);
        rc = worker_result_end(t->worker, &r, err);
    }
    if (rc == BK_OK)
        rc = remote_public_check(t, &pub, err);
    if (rc == BK_OK)
        *out = pub;
    else
        bk_public_free(&pub);
    request_free(&r);
    return rc;
}

enum bk_code
p11_token_generate(struct p11_token *t, const struct p11_uri *uri, const struct p11_generate *what, struct bk_key **out,
                   struct bk_err *err)
{
    struct request r = {.once = 1, .officer = what->sealed};
    enum bk_code rc;

    begin_with_uri(&r, WIRE_GENERATE, uri);
    wire_put_u32(&r.out, (uint32_t)what->kind);
    wire_put_u32(&r.out, what->signing != 0);
    wire_put_u32(&r.out, what->passing != 0);
    wire_put_u32(&r.out, what->sealed != 0);
    rc = token_request(t, &r, err);
    if (rc != BK_OK && r.fate == REQUEST_DIED)
        bk_err_hint(err, "the key may have been made: look with bk-key list, and remove it before you try again");
    /* the officer's PIN is no user's, and would be tried as that by the next worker */
    if (rc == BK_OK && !what->sealed)
        rc = token_note_login(t, uri, err);
    if (rc == BK_OK)
        rc = remote_key_take(t, what->signing ? P11_USE_SIGN : P11_USE_UNWRAP, &r, out, err);
    request_free(&r);
    return rc;
}

enum bk_code
p11_token_list(struct p11_token *t, const struct p11_uri *uri, int log_in,
               int (*each)(void *ctx, const struct p11_item *item), void *ctx, int *stopped, struct bk_err *err)
{
    struct request r = {.once = 1, .item = each, .ctx = ctx};
    int told = 0;
    enum bk_code rc;

    begin_with_uri(&r, WIRE_LIST, uri);
    wire_put_u32(&r.out, log_in != 0);
    if ((rc = token_request(t, &r, err)) == BK_OK) {
        told = wire_get_flag(&r.in);
        rc = worker_result_end(t->worker, &r, err);
    }
    *stopped = told || r.stopped;
    request_free(&r);
    return rc;
}

enum bk_code
p11_token_probe(struct p11_token *t, const struct p11_uri *uri, int lasting,
                int (*each)(void *ctx, const struct p11_probe_item *item), void *ctx, struct bk_err *err)
{
    struct request r = {.once = 1, .probe_item = each, .ctx = ctx};
    enum bk_code rc;

    begin_with_uri(&r, WIRE_PROBE, uri);
    wire_put_u32(&r.out, lasting != 0);
    if ((rc = token_request(t, &r, err)) == BK_OK)
        rc = worker_result_end(t->worker, &r, err);
    request_free(&r);
    return rc;
}
