#include "worker/serve.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pkcs11/left_out.h"
#include "pkcs11/rv.h"
#include "pkcs11/token.h"
#include "worker/serving.h"

/* How long the next request is waited for before the thread goes to sleep. */
#define LINGER_US 50
/* How long a connection's last call may take once the program has gone. */
#define PATIENCE_S 10
/* Somebody walks to the token and types. */
#define KEYPAD_S 300

/*
 * A module's calls and questions come by callbacks that know their struct p11 and not the thread's connection; one
 * thread serves one connection, so it is the thread's.
 */
static _Thread_local struct serving *current;
/* When the call under way began, for a trace. */
static _Thread_local uint64_t started_ns;

/* --- callbacks of pkcs11/ ----------------------------------------------------------------------------------------- */

static unsigned
limit_ms(const struct server *server, const char *call)
{
    unsigned limit = server->options->timeout_s * 1000;

    if (strcmp(call, "C_GenerateKeyPair") == 0 || strcmp(call, "C_GenerateKey") == 0)
        return limit * 10;
    if (strcmp(call, P11_KEYPAD_LOGIN) == 0)
        return limit > KEYPAD_S * 1000 ? limit : KEYPAD_S * 1000;
    return limit;
}

static void
note_call(struct watch_slot *slot, const char *call, unsigned limit)
{
    (void)snprintf(slot->call, sizeof slot->call, "%s", call);
    atomic_store(&slot->limit_ms, limit);
    atomic_fetch_add(&slot->step, 1);
}

static uint64_t
now_ns(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static CK_RV
before_call(void *ctx, const char *call)
{
    const struct server *server = ctx;

    if (current != NULL)
        note_call(current->slot, call, limit_ms(server, call));
    if (server->options->trace != NULL)
        started_ns = now_ns();
    return CKR_OK;
}

static void
after_call(void *ctx, const char *call, CK_RV rv)
{
    const struct server *server = ctx;
    char text[P11_RV_TEXT];

    /* before anything else can happen, and the module crash: whoever starts the next worker must know */
    if (strncmp(call, "C_Login", 7) == 0 && rv != CKR_OK && rv != CKR_USER_ALREADY_LOGGED_IN)
        atomic_store(&server->options->watch->login_failed, 1);
    if (current != NULL)
        note_call(current->slot, "", 0);
    if (server->options->trace != NULL)
        server->options->trace(call, p11_rv_name(rv, text), now_ns() - started_ns);
}

static void
send_text(enum wire_type type, const char *text)
{
    struct wire_out *o = &current->event;

    wire_begin(o, type);
    wire_put_text(o, text);
    /* if nobody is there any more, the request's own answer meets that too */
    (void)!wire_send(current->fd, o, NULL, NULL);
}

static void
on_warn(void *ctx, const char *message)
{
    (void)ctx;
    if (current != NULL)
        send_text(WIRE_WARN, message);
}

static void
say_left_out(void *ctx, const char *text)
{
    (void)ctx;
    send_text(WIRE_LEFT_OUT, text);
}

enum bk_code
serving_ask(struct serving *s, const struct bk_secret *secret, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = wire_send(s->fd, &s->event, secret, err)) != BK_OK)
        return rc;
    while ((rc = wire_receive(s->fd, &s->answer, err)) == BK_E_CANCELLED)
        ;
    return rc;
}

static enum bk_code
on_pin(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err)
{
    struct serving *s = current;
    enum bk_code rc;

    (void)ctx;
    wire_begin(&s->event, WIRE_PIN);
    wire_put_pin_request(&s->event, req);
    if ((rc = serving_ask(s, NULL, err)) != BK_OK)
        return rc;
    if (s->answer.type == WIRE_PIN_IS) {
        bk_secret_move(pin, &s->answer.secret);
        return BK_OK;
    }
    if (s->answer.type == WIRE_PIN_FAILED) {
        struct bk_err own = {0};

        wire_get_error(&s->answer, &own);
        if (err != NULL)
            *err = own;
        return own.code;
    }
    return bk_fail(err, BK_E_INTERNAL, "a question for a PIN got no answer");
}

/* --- one connection ----------------------------------------------------------------------------------------------- */

static uint32_t
flags_of(const struct serving *s, enum bk_code rc, const struct bk_err *err)
{
    uint32_t flags = p11_login_failed(s->server->p11) ? WIRE_LOGIN_FAILED : 0;

    if (rc == BK_E_TOKEN && (p11_rv_is_lost(err->token_rv) || p11_rv_is_vague(err->token_rv)))
        flags |= WIRE_LOST;
    return flags;
}

static void
answer(struct serving *s, enum bk_code rc, const struct bk_secret *secret, const struct bk_err *err)
{
    if (rc != BK_OK) {
        wire_begin(&s->out, WIRE_DONE);
        wire_put_error(&s->out, err);
        wire_put_u32(&s->out, flags_of(s, rc, err));
        secret = NULL;
    }
    /* a program that gets no answer must not wait for one */
    if (wire_send(s->fd, &s->out, secret, NULL) != BK_OK)
        (void)shutdown(s->fd, SHUT_RDWR);
}

static void
serve_request(struct serving *s)
{
    struct bk_secret secret = {0};
    struct bk_err err = {0};
    enum bk_code rc;

    s->unsaid = (struct bk_err){0};
    wire_begin(&s->out, WIRE_DONE);
    wire_put_u32(&s->out, BK_OK);
    rc = serving_request(s, &secret, &err);
    if (rc == BK_OK && s->out.failed)
        rc = bk_fail_nomem(&err);
    p11_left_out_take(p11_left_out_of(s->server->p11), say_left_out, NULL);
    answer(s, rc, &secret, &err);
    bk_secret_wipe(&secret);
    bk_secret_wipe(&s->in.secret); /* and not only when the next request comes */
}

static void
serving_free(struct serving *s)
{
    (void)close(s->fd);
    bk_buf_free(&s->out.body);
    bk_buf_free(&s->event.body);
    wire_in_free(&s->in);
    wire_in_free(&s->answer);
    free(s);
}

static void *
serve_connection(void *arg)
{
    struct serving *s = arg;
    struct server *server = s->server;
    unsigned lingers = 0;
    enum bk_code rc;

    current = s;
    for (;;) {
        wire_linger(s->fd, lingers);
        rc = wire_receive(s->fd, &s->in, NULL);
        lingers = rc == BK_OK ? LINGER_US : 0;
        if (rc == BK_OK)
            serve_request(s);
        else if (rc != BK_E_CANCELLED)
            break;
    }
    current = NULL;
    serving_free(s);
    pthread_mutex_lock(&server->lock);
    server->connections--;
    pthread_cond_broadcast(&server->idle);
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

/* --- the process -------------------------------------------------------------------------------------------------- */

/* A connection, or the end of the program: *fd is -1 then. */
static enum bk_code
next_connection(int control, int *fd, uint8_t *slot, struct bk_err *err)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control_room;
    struct iovec byte = {slot, 1};
    struct msghdr message = {.msg_iov = &byte,
                             .msg_iovlen = 1,
                             .msg_control = control_room.room,
                             .msg_controllen = sizeof control_room.room};
    struct cmsghdr *c;
    ssize_t n;

    while ((n = recvmsg(control, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    *fd = -1;
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return BK_OK;
    if (n < 0)
        return bk_fail_errno(err, errno, "the program's socket");
    c = CMSG_FIRSTHDR(&message);
    if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
        return bk_fail(err, BK_E_INTERNAL, "a connection came without its descriptor");
    memcpy(fd, CMSG_DATA(c), sizeof *fd);
    return BK_OK;
}

static enum bk_code
start_connection(struct server *server, int fd, uint8_t slot, struct bk_err *err)
{
    struct serving *s = calloc(1, sizeof *s);
    int rc;

    if (s == NULL || slot >= WATCH_SLOTS || server->started[slot]) {
        free(s);
        (void)close(fd);
        return s == NULL ? bk_fail_nomem(err) : bk_fail(err, BK_E_INTERNAL, "no connection has the number %d", slot);
    }
    s->server = server;
    s->fd = fd;
    s->slot = &server->options->watch->slots[slot];
    pthread_mutex_lock(&server->lock);
    server->connections++;
    pthread_mutex_unlock(&server->lock);
    if ((rc = pthread_create(&server->threads[slot], NULL, serve_connection, s)) != 0) {
        serving_free(s);
        pthread_mutex_lock(&server->lock);
        server->connections--;
        pthread_mutex_unlock(&server->lock);
        return bk_fail_errno(err, rc, "a thread for a connection");
    }
    server->started[slot] = 1;
    return BK_OK;
}

/* Connections end with the program, but for one that is in a call of the module. */
static enum bk_code
wait_for_connections(struct server *server, struct bk_err *err)
{
    struct timespec until = {0};
    int rc = 0;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&server->lock);
    while (server->connections > 0 && rc == 0)
        rc = pthread_cond_timedwait(&server->idle, &server->lock, &until);
    rc = server->connections > 0;
    pthread_mutex_unlock(&server->lock);
    if (rc != 0)
        return bk_fail(err, BK_E_TOKEN, "a call of the module does not return");
    /* what runs at the end of a thread may be in a library that the module brought, and that is unloaded with it */
    for (size_t i = 0; i < WATCH_SLOTS; i++)
        if (server->started[i])
            (void)pthread_join(server->threads[i], NULL);
    return BK_OK;
}

static enum bk_code
serve_program(struct server *server, struct bk_err *err)
{
    for (;;) {
        uint8_t slot = 0;
        int fd = -1;
        enum bk_code rc = next_connection(server->options->control_fd, &fd, &slot, err);

        if (rc == BK_OK && fd < 0)
            return wait_for_connections(server, err);
        if (rc == BK_OK)
            rc = start_connection(server, fd, slot, err);
        if (rc != BK_OK)
            return rc;
    }
}

enum bk_code
serve(const struct serve_options *options, struct bk_err *err)
{
    static const struct bk_log log = {.warn = on_warn};
    const struct p11_options p11_options = {.pin = on_pin, .log = &log, .raw_rsa = options->raw_rsa};
    struct server *server = calloc(1, sizeof *server);
    enum bk_code rc;

    if (server == NULL)
        return bk_fail_nomem(err);
    server->options = options;
    (void)pthread_mutex_init(&server->lock, NULL);
    (void)pthread_cond_init(&server->idle, NULL);
    if ((rc = p11_open(&p11_options, &server->p11, err)) != BK_OK) {
        free(server);
        return rc;
    }
    server->p11->hook = (struct p11_hook){.ctx = server, .before = before_call, .after = after_call};
    /* with threads in the module nothing can be taken down in order, nor may what they use go away */
    if ((rc = serve_program(server, err)) != BK_OK)
        return rc;
    server_end(server);
    free(server);
    return BK_OK;
}
