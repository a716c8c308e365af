/* One module's worker: requests to it, its deaths, and how often it may live again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "pkcs11/text.h"
#include "worker/client.h"

/* More warnings than that about one request have no end. */
#define TEXTS_MAX 1000
/* How long one call of a module may take unless the program says otherwise. */
#define TIMEOUT_S 60

void
request_free(struct request *r)
{
    bk_buf_free(&r->out.body);
    wire_in_free(&r->in);
}

void
request_begin(struct request *r, enum wire_type type)
{
    wire_begin(&r->out, type);
    wire_put_u32(&r->out, 0);
}

void
request_set_number(struct request *r, size_t nth, uint32_t number)
{
    /* behind type and length of the secret */
    if (!r->out.failed)
        bk_put_u32(r->out.body.data + 4 + 4 * nth, number);
}

/* --- one request to one process ----------------------------------------------------------------------------------- */

/* What an exchange is between. */
struct line {
    struct p11 *p11;
    struct process *process;
    struct connection *connection;
};

static enum bk_code
reply(const struct line *l, enum wire_type type, const struct bk_secret *secret, const struct bk_err *failed,
      struct bk_err *err)
{
    struct wire_out o = {0};
    enum bk_code rc;

    wire_begin(&o, type);
    if (failed != NULL)
        wire_put_error(&o, failed);
    rc = process_send(l->process, l->connection, &o, secret, err);
    bk_buf_free(&o.body);
    return rc;
}

/* What is asked for must be the PIN of the token that the request is about, from where its URI says, and only once:
 * somebody will type it, believing what stands there, or a program may be run for it. */
static enum bk_code
check_pin_request(const struct request *r, const struct p11_pin_request *req, struct bk_err *err)
{
    struct p11_token *t = r->token;
    int again;

    if (t == NULL || strcmp(req->token_label, t->label) != 0 || strcmp(req->token_serial, t->serial) != 0 ||
        req->security_officer != r->officer)
        return bk_fail(err, BK_E_FORMAT, "it asked for a PIN that is not its own");
    if (req->pin_source != NULL && (r->pin_source == NULL || strcmp(req->pin_source, r->pin_source) != 0))
        return bk_fail(err, BK_E_FORMAT, "it asked for a PIN from another source than was named");
    pthread_mutex_lock(&t->lock);
    again = t->asked == r->life;
    t->asked = r->life;
    pthread_mutex_unlock(&t->lock);
    return again ? bk_fail(err, BK_E_FORMAT, "it asked for its PIN again") : BK_OK;
}

/* The PIN passes through here and is not kept. */
static enum bk_code
answer_pin(const struct line *l, struct request *r, struct bk_err *err)
{
    struct wire_in *in = &r->in;
    const struct p11_options *options = &l->p11->options;
    struct p11_pin_request req = {0};
    struct bk_secret pin = {0};
    struct bk_err own = {0};
    enum bk_code rc;

    wire_get_pin_request(in, &req);
    if ((rc = wire_end(in, err)) != BK_OK || (rc = check_pin_request(r, &req, err)) != BK_OK)
        return rc;
    process_pause(l->process, 1);
    rc = options->pin == NULL ? bk_fail(&own, BK_E_PIN, "token '%s': no PIN is to be had", req.token_label)
                              : options->pin(options->pin_ctx, &req, &pin, &own);
    process_pause(l->process, 0);
    if (rc == BK_OK && pin.len > WIRE_SECRET_MAX)
        rc = bk_fail(&own, BK_E_PIN, "token '%s': a PIN of %zu bytes was not tried", req.token_label, pin.len);
    if (rc == BK_OK)
        rc = reply(l, WIRE_PIN_IS, &pin, NULL, err);
    else
        rc = reply(l, WIRE_PIN_FAILED, NULL, &own, err);
    bk_secret_wipe(&pin);
    return rc;
}

static enum bk_code
answer_item(const struct line *l, struct request *r, struct bk_err *err)
{
    struct p11_item item = {0};
    enum bk_code rc;

    wire_get_item(&r->in, &item);
    if ((rc = wire_end(&r->in, err)) == BK_OK)
        r->stopped = r->item == NULL || r->item(r->ctx, &item) != 0;
    bk_public_free(&item.pub);
    return rc != BK_OK ? rc : reply(l, r->stopped ? WIRE_STOP : WIRE_GO_ON, NULL, NULL, err);
}

static enum bk_code
answer_probe_item(const struct line *l, struct request *r, struct bk_err *err)
{
    struct p11_probe_item item = {0};
    enum bk_code rc;

    wire_get_probe_item(&r->in, &item);
    if ((rc = wire_end(&r->in, err)) == BK_OK)
        r->stopped = r->probe_item == NULL || r->probe_item(r->ctx, &item) != 0;
    return rc != BK_OK ? rc : reply(l, r->stopped ? WIRE_STOP : WIRE_GO_ON, NULL, NULL, err);
}

/* A PIN on its way to the next worker. */
static enum bk_code
answer_accepted(const struct line *l, struct request *r, struct bk_err *err)
{
    const char *uri = wire_get_some_text(&r->in);
    enum bk_code rc = wire_end(&r->in, err);

    if (rc == BK_OK && r->accepted == NULL)
        rc = bk_fail(err, BK_E_FORMAT, "it sent a PIN that nobody asked for");
    if (rc == BK_OK)
        rc = r->accepted(r->ctx, uri, &r->in.secret, err);
    return rc != BK_OK ? rc : reply(l, WIRE_GO_ON, NULL, NULL, err);
}

static enum bk_code
hear_text(const struct line *l, struct request *r, struct bk_err *err)
{
    struct wire_in *in = &r->in;
    const char *text = wire_get_some_text(in);
    enum bk_code rc = wire_end(in, err);

    if (rc == BK_OK && ++r->texts > TEXTS_MAX)
        rc = bk_fail(err, BK_E_FORMAT, "it warns without end");
    if (rc == BK_OK && in->type == WIRE_WARN)
        bk_warn(l->p11->options.log, "%s", text);
    else if (rc == BK_OK)
        p11_left_out_add(l->p11, "%s", text);
    return rc;
}

/* *done is 1 at the result. BK_E_FORMAT: not what was agreed on. */
static enum bk_code
hear(const struct line *l, struct request *r, int *done, struct bk_err *err)
{
    switch (r->in.type) {
    case WIRE_WARN:
    case WIRE_LEFT_OUT:
        return hear_text(l, r, err);
    case WIRE_PIN:
        return answer_pin(l, r, err);
    case WIRE_ITEM:
        return answer_item(l, r, err);
    case WIRE_PROBE_ITEM:
        return answer_probe_item(l, r, err);
    case WIRE_ACCEPTED:
        return answer_accepted(l, r, err);
    case WIRE_DONE:
        *done = 1;
        return BK_OK;
    default:
        return bk_fail(err, BK_E_FORMAT, "it sent a message of type %d", (int)r->in.type);
    }
}

/* The whole talk about one request, on a connection that is ours. */
static enum bk_code
talk(const struct line *l, struct request *r, struct bk_err *err)
{
    struct bk_err own = {0};
    int done = 0;
    enum bk_code rc = process_send(l->process, l->connection, &r->out, r->secret, err);

    while (rc == BK_OK && !done) {
        if ((rc = process_receive(l->process, l->connection, &r->in, err)) != BK_OK)
            return rc;
        rc = hear(l, r, &done, &own);
        if (rc == BK_E_FORMAT)
            rc = process_distrust(l->process, &own, err);
        else if (rc != BK_OK && err != NULL)
            *err = own;
    }
    return rc;
}

/* The error that a result is, and its flags. */
static enum bk_code
result(struct process *process, struct request *r, uint32_t *flags, struct bk_err *err)
{
    struct bk_err told = {0};
    struct bk_err why = {0};
    struct wire_in *in = &r->in;

    if (in->body.len - in->body.pos >= 4 && bk_get_u32(in->body.data + in->body.pos) == BK_OK) {
        (void)wire_get_u32(in);
        r->answered = 1;
        return BK_OK;
    }
    wire_get_error(in, &told);
    *flags = wire_get_u32(in);
    if (wire_end(in, &why) != BK_OK)
        return process_distrust(process, &why, err);
    r->answered = 1;
    if (err != NULL)
        *err = told;
    return told.code;
}

static enum bk_code
exchange(struct p11 *p, struct process *process, struct request *r, uint32_t *flags, struct bk_err *err)
{
    struct line l = {.p11 = p, .process = process};
    enum bk_code rc;

    r->answered = 0;
    if ((rc = process_connect(process, &l.connection, err)) != BK_OK)
        return rc;
    rc = talk(&l, r, err);
    process_release(process, l.connection, rc == BK_OK);
    return rc != BK_OK ? rc : result(process, r, flags, err);
}

/* --- its life ----------------------------------------------------------------------------------------------------- */

static enum bk_code
start_process(struct p11 *p, struct process **out, struct bk_err *err)
{
    const struct process_options options = {
        .program = p->options.worker,
        .timeout_s = p->options.timeout_s == 0 ? TIMEOUT_S : p->options.timeout_s,
        .raw_rsa = p->options.raw_rsa,
        .cancel = p->options.cancel,
    };

    return process_start(&options, out, err);
}

static void
end_process(struct p11 *p, const char *where, struct process *process)
{
    int status = 0;
    int was_gone = process != NULL && process_is_gone(process);

    process_end(process, &status);
    /* a module that crashes when all is done, as some do, did no harm; ours never ends like that */
    if (!was_gone && WIFEXITED(status) && WEXITSTATUS(status) != 0)
        bk_warn(p->options.log, "%s: its process ended with status %d", where, WEXITSTATUS(status));
}

enum bk_code
worker_add(struct p11 *p, const char *name, const char *file, struct worker **out, struct bk_err *err)
{
    struct worker *w = calloc(1, sizeof *w);
    char shown[128];

    if (w == NULL || (w->name = strdup(name)) == NULL || (file != NULL && (w->file = strdup(file)) == NULL)) {
        if (w != NULL)
            free(w->name);
        free(w);
        return bk_fail_nomem(err);
    }
    p11_text_field(shown, sizeof shown, name, strlen(name));
    (void)snprintf(w->where, sizeof w->where, "module '%s'", shown);
    w->owner = p;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->unused, NULL);
    w->next = p->workers;
    p->workers = w;
    *out = w;
    return BK_OK;
}

void
worker_free(struct worker *w)
{
    end_process(w->owner, w->where, w->process);
    (void)pthread_mutex_destroy(&w->lock);
    (void)pthread_cond_destroy(&w->unused);
    free(w->name);
    free(w->file);
    free(w);
}

static enum bk_code
give_up(struct worker *w, const struct bk_err *last)
{
    w->given_up = 1;
    w->why = *last;
    return last->code;
}

/* The first request of every process but the one that was asked for names. Under the lock of w. */
static enum bk_code
choose_module(struct worker *w, struct bk_err *err)
{
    struct request r = {0};
    enum bk_code rc;
    uint32_t flags = 0;

    wire_begin(&r.out, WIRE_ONLY);
    wire_put_text(&r.out, w->name);
    wire_put_text(&r.out, w->by_file ? w->file : NULL);
    rc = exchange(w->owner, w->process, &r, &flags, err);
    request_free(&r);
    return rc;
}

/* Under the lock of w. A process that was started without waiting has its first request still to come. */
static enum bk_code
have_process(struct worker *w, struct bk_err *err)
{
    enum bk_code rc;

    while (w->process != NULL && process_is_gone(w->process) && w->users > 0)
        pthread_cond_wait(&w->unused, &w->lock);
    if (w->process != NULL && process_is_gone(w->process)) {
        end_process(w->owner, w->where, w->process);
        w->process = NULL;
    }
    if (w->given_up) {
        if (err != NULL)
            *err = w->why;
        return w->why.code;
    }
    if (w->process != NULL)
        return BK_OK;
    if ((rc = start_process(w->owner, &w->process, err)) != BK_OK)
        return rc;
    w->life++;
    w->chosen = 0;
    return BK_OK;
}

/* After a death: a module that dies again and again, or may have spent a try of a PIN, is not started any more. */
static void
note_death(struct worker *w, struct bk_err *why)
{
    w->deaths += w->noted != w->life;
    w->noted = w->life;
    bk_err_prefix(why, "%s", w->where);
    if (process_died_in_login(w->process)) {
        bk_err_hint(why,
                    "a login was refused, or was under way and may have counted as a wrong PIN: it is not tried again");
        (void)give_up(w, why);
    } else if (w->deaths >= WORKER_DEATHS_MAX) {
        (void)give_up(w, why);
        bk_err_prefix(&w->why, "given up after %u failures", w->deaths);
    } else if (w->login_failed) {
        (void)give_up(w, why);
    }
}

/* Under the lock of w. */
static enum bk_code
have_module(struct worker *w, struct bk_err *err)
{
    enum bk_code rc = have_process(w, err);

    if (rc != BK_OK || w->chosen)
        return rc;
    if ((rc = choose_module(w, err)) == BK_OK)
        w->chosen = 1;
    else if (process_is_gone(w->process))
        note_death(w, err);
    return rc;
}

enum bk_code
worker_start(struct worker *w, struct bk_err *err)
{
    enum bk_code rc;

    pthread_mutex_lock(&w->lock);
    rc = have_process(w, err);
    pthread_mutex_unlock(&w->lock);
    return rc;
}

static void
used(struct worker *w, struct request *r, enum bk_code rc, uint32_t flags, struct bk_err *why)
{
    pthread_mutex_lock(&w->lock);
    w->login_failed |= (flags & WIRE_LOGIN_FAILED) != 0;
    if (rc != BK_OK && !r->answered && process_is_gone(w->process)) {
        r->fate = REQUEST_DIED;
        if (rc == BK_E_CANCELLED)
            (void)give_up(w, why);
        else
            note_death(w, why);
    } else if (rc != BK_OK && (flags & WIRE_LOST) != 0) {
        r->fate = REQUEST_LOST;
    } else if (rc != BK_OK && !r->upkeep) {
        w->deaths = 0; /* of a good result the end must be good, too */
    }
    if (--w->users == 0)
        pthread_cond_broadcast(&w->unused);
    pthread_mutex_unlock(&w->lock);
}

/* 1 if the request may go to the process that there is. Under the lock of w. */
static int
is_meant(const struct worker *w, const struct request *r)
{
    return r->life == 0 || (r->life == w->life && w->process != NULL && !process_is_gone(w->process));
}

enum bk_code
worker_request(struct worker *w, struct request *r, struct bk_err *err)
{
    struct bk_err own = {0};
    uint32_t flags = 0;
    enum bk_code rc;

    r->fate = REQUEST_ANSWERED;
    pthread_mutex_lock(&w->lock);
    while (w->renewing)
        pthread_cond_wait(&w->unused, &w->lock);
    /* what must not be repeated is better not sent to a process that died since it was asked last */
    if (r->once && w->process != NULL && !process_is_gone(w->process) && process_look(w->process)) {
        (void)!bk_fail(&own, BK_E_TOKEN, "its process died while nothing was asked of it");
        note_death(w, &own);
    }
    if (!is_meant(w, r)) {
        pthread_mutex_unlock(&w->lock);
        r->fate = REQUEST_STALE;
        return bk_fail(err, BK_E_TOKEN, "%s: its process is another one now", w->where);
    }
    rc = have_module(w, &own);
    if (rc == BK_OK) {
        w->users++;
        r->life = w->life;
    }
    pthread_mutex_unlock(&w->lock);
    if (rc == BK_OK) {
        rc = r->out.failed ? bk_fail_nomem(&own) : exchange(w->owner, w->process, r, &flags, &own);
        used(w, r, rc, flags, &own);
    }
    if (rc != BK_OK && err != NULL)
        *err = own;
    return rc;
}

enum bk_code
worker_result_end(struct worker *w, struct request *r, struct bk_err *err)
{
    struct bk_err why = {0};
    enum bk_code rc = wire_end(&r->in, &why);

    pthread_mutex_lock(&w->lock);
    if (rc == BK_OK && !r->upkeep && r->life == w->life)
        w->deaths = 0;
    if (rc == BK_E_FORMAT && w->process != NULL && r->life == w->life) {
        rc = process_distrust(w->process, &why, &why);
        note_death(w, &why);
    } else if (rc == BK_E_FORMAT) {
        rc = bk_fail(&why, BK_E_TOKEN, "%s: its process answered nonsense, and has ended", w->where);
    }
    pthread_mutex_unlock(&w->lock);
    if (rc != BK_OK && err != NULL)
        *err = why;
    return rc;
}

/* --- a new process in place of one that lives --------------------------------------------------------------------- */

struct kept_pin {
    char uri[P11_URI_MAX + 1];
    struct bk_secret pin;
};

struct kept_pins {
    struct kept_pin *at;
    size_t count;
};

static enum bk_code
keep_pin(void *ctx, const char *uri, struct bk_secret *pin, struct bk_err *err)
{
    struct kept_pins *kept = ctx;
    struct kept_pin *grown;

    if (strlen(uri) > P11_URI_MAX || kept->count == P11_TOKENS_MAX)
        return bk_fail(err, BK_E_FORMAT, "it sent more PINs than there are tokens");
    if ((grown = reallocarray(kept->at, kept->count + 1, sizeof *grown)) == NULL)
        return bk_fail_nomem(err);
    kept->at = grown;
    grown += kept->count++;
    *grown = (struct kept_pin){0};
    (void)snprintf(grown->uri, sizeof grown->uri, "%s", uri);
    bk_secret_move(&grown->pin, pin);
    return BK_OK;
}

/* What it does not hand over is asked for again. */
static void
take_pins(struct worker *w, struct kept_pins *kept)
{
    struct request r = {.accepted = keep_pin, .ctx = kept};
    uint32_t flags = 0;

    wire_begin(&r.out, WIRE_HAND_OVER);
    if (!process_is_gone(w->process))
        (void)!exchange(w->owner, w->process, &r, &flags, NULL);
    request_free(&r);
}

static void
give_pins(struct worker *w, struct kept_pins *kept)
{
    for (size_t i = 0; i < kept->count; i++) {
        struct request r = {.secret = &kept->at[i].pin};
        uint32_t flags = 0;

        wire_begin(&r.out, WIRE_TAKE_OVER);
        wire_put_text(&r.out, kept->at[i].uri);
        wire_put_text(&r.out, NULL);
        if (w->process != NULL && !process_is_gone(w->process))
            (void)!exchange(w->owner, w->process, &r, &flags, NULL);
        request_free(&r);
        bk_secret_wipe(&kept->at[i].pin);
    }
    free(kept->at);
}

/* Under the lock of w, which nobody uses. */
static void
replace_process(struct worker *w)
{
    struct kept_pins kept = {0};
    struct bk_err why = {0}; /* a module that is given up keeps it */

    take_pins(w, &kept);
    end_process(w->owner, w->where, w->process);
    w->process = NULL;
    w->deaths++;
    if (have_module(w, &why) != BK_OK) {
        /* the next request meets the same, and says so */
    }
    give_pins(w, &kept);
}

int
worker_renew(struct worker *w, const struct request *r)
{
    int may;

    if (r->once || r->fate == REQUEST_ANSWERED)
        return 0;
    pthread_mutex_lock(&w->lock);
    if (r->fate == REQUEST_LOST && r->life == w->life && !w->renewing) {
        may = !w->given_up && !w->login_failed && w->deaths + 1 < WORKER_DEATHS_MAX;
        w->renewing = may;
        while (may && w->users > 0)
            pthread_cond_wait(&w->unused, &w->lock);
        if (may && w->process != NULL)
            replace_process(w);
        w->renewing = 0;
        pthread_cond_broadcast(&w->unused);
    }
    may = !w->given_up && (r->fate != REQUEST_LOST || r->life != w->life);
    pthread_mutex_unlock(&w->lock);
    return may;
}

int
worker_may_go_on(struct worker *w, const struct request *r, enum bk_code rc, unsigned *failures)
{
    if (r->fate == REQUEST_STALE)
        return 1;
    return rc == BK_E_TOKEN && (*failures)++ == 0 && worker_renew(w, r);
}

/* --- the configured modules --------------------------------------------------------------------------------------- */

static int
is_known(const struct p11 *p, const char *name)
{
    for (const struct worker *w = p->workers; w != NULL; w = w->next)
        if (!w->is_path && strcmp(w->name, name) == 0)
            return 1;
    return 0;
}

/* Reads the list; with p those that are not known yet become workers, of which *first is the first. */
static enum bk_code
read_named(struct wire_in *in, struct p11 *p, struct worker **first, struct bk_err *err)
{
    uint32_t count = wire_get_below(in, 4096);

    for (uint32_t i = 0; i < count && in->body.failed == NULL; i++) {
        const char *name = wire_get_some_text(in);
        const char *file = wire_get_text(in);
        int plain = wire_get_flag(in);
        struct worker *w = NULL;
        enum bk_code rc;

        if (p == NULL || in->body.failed != NULL || is_known(p, name))
            continue;
        if ((rc = worker_add(p, name, file, &w, err)) != BK_OK)
            return rc;
        w->by_file = plain && file != NULL;
        if (*first == NULL)
            *first = w;
    }
    return BK_OK;
}

/* None is added of a list that is not whole. */
static enum bk_code
add_named(struct p11 *p, struct request *r, struct worker **first, struct bk_err *err)
{
    struct bk_reader begin = r->in.body;
    struct bk_err why = {0};

    (void)!read_named(&r->in, NULL, first, err);
    if (wire_end(&r->in, &why) != BK_OK)
        return bk_fail(err, BK_E_TOKEN, "the process that looks for PKCS#11 modules: %s", why.message);
    r->in.body = begin;
    return read_named(&r->in, p, first, err);
}

enum bk_code
workers_look(struct p11 *p, struct bk_err *err)
{
    struct request r = {0};
    struct process *process = NULL;
    struct worker *first = NULL;
    uint32_t flags = 0;
    enum bk_code rc;

    if (p->looked)
        return BK_OK;
    if ((rc = start_process(p, &process, err)) != BK_OK)
        return rc;
    wire_begin(&r.out, WIRE_MODULES);
    rc = exchange(p, process, &r, &flags, err);
    if (rc == BK_E_TOKEN) {
        bk_err_prefix(err, "loading the modules that p11-kit has configured");
        bk_err_hint(err,
                    "one that crashes when it is loaded is in the way of all: name the token's own by module-path=, "
                    "or take that one out of p11-kit's configuration");
    }
    if (rc == BK_OK)
        rc = add_named(p, &r, &first, err);
    p->looked = rc == BK_OK;
    if (rc == BK_OK && first != NULL) {
        /* this one has them all loaded, and drops the others */
        first->process = process;
        first->life = 1;
        first->by_file = 0;
    } else {
        end_process(p, "p11-kit's modules", process);
    }
    request_free(&r);
    return rc;
}
