#include "worker/wire.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/text.h"

/* type u16, secret u16 (its length; 0: none follows) */
#define HEADER 4
/* How many times the socket's limit of time (SO_RCVTIMEO) a secret may come after its message. */
#define SECRET_WAITS 50
/* The longest of the texts that are shown, a token's description in a message, fits many times. */
#define SHOWN_MAX 2048
/* The length of a text that is NULL. */
#define NO_TEXT UINT32_MAX

void
wire_begin(struct wire_out *o, enum wire_type type)
{
    uint8_t header[HEADER] = {0};

    bk_put_u16(header, (uint16_t)type);
    o->body.len = 0;
    o->failed = bk_buf_append(&o->body, header, sizeof header, NULL) != BK_OK;
}

static void
put(struct wire_out *o, const void *data, size_t len)
{
    if (!o->failed && bk_buf_append(&o->body, data, len, NULL) != BK_OK)
        o->failed = 1;
}

void
wire_put_u32(struct wire_out *o, uint32_t v)
{
    uint8_t at[4];

    bk_put_u32(at, v);
    put(o, at, sizeof at);
}

void
wire_put_bytes(struct wire_out *o, const void *data, size_t len)
{
    wire_put_u32(o, (uint32_t)len);
    put(o, data, len);
}

void
wire_put_text(struct wire_out *o, const char *text)
{
    if (text == NULL)
        wire_put_u32(o, NO_TEXT);
    else
        wire_put_bytes(o, text, strlen(text) + 1);
}

void
wire_put_id(struct wire_out *o, const struct bk_key_id *id)
{
    wire_put_bytes(o, id->bytes, id->len);
}

void
wire_put_ids(struct wire_out *o, const struct bk_key_id *ids, size_t count)
{
    wire_put_u32(o, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        wire_put_id(o, &ids[i]);
}

void
wire_put_public(struct wire_out *o, const struct bk_public *pub)
{
    wire_put_u32(o, (uint32_t)pub->type);
    wire_put_u32(o, (uint32_t)pub->bits);
    wire_put_u32(o, (uint32_t)pub->scheme);
    wire_put_id(o, &pub->id);
    wire_put_u32(o, pub->sealed != 0);
    wire_put_u32(o, pub->spki != NULL);
    if (pub->spki != NULL)
        wire_put_bytes(o, pub->spki, pub->spki_len);
    wire_put_text(o, pub->uri);
}

void
wire_put_wrapped(struct wire_out *o, const struct bk_wrapped *w)
{
    wire_put_u32(o, (uint32_t)w->scheme);
    wire_put_id(o, &w->id);
    wire_put_bytes(o, w->ephemeral, w->ephemeral_len);
    wire_put_bytes(o, w->nonce, sizeof w->nonce);
    wire_put_bytes(o, w->data, w->len);
}

void
wire_put_error(struct wire_out *o, const struct bk_err *err)
{
    wire_put_u32(o, (uint32_t)err->code);
    wire_put_u32(o, (uint32_t)err->os_errno);
    wire_put_u32(o, (uint32_t)err->token_rv);
    wire_put_text(o, err->message);
    wire_put_text(o, err->hint);
}

void
wire_put_uri(struct wire_out *o, const struct p11_uri *uri)
{
    wire_put_text(o, uri == NULL ? NULL : uri->text);
    wire_put_text(o, uri == NULL ? NULL : uri->pin_source);
}

void
wire_put_pin_request(struct wire_out *o, const struct p11_pin_request *req)
{
    wire_put_text(o, req->token_label);
    wire_put_text(o, req->token_serial);
    wire_put_text(o, req->pin_source);
    wire_put_u32(o, req->count_low != 0);
    wire_put_u32(o, req->final_try != 0);
    wire_put_u32(o, req->security_officer != 0);
}

/* The members that are 0, 1 or -1, in their order on the wire. */
static void
item_flags(struct p11_item *item, int *flags[12])
{
    int *all[12] = {&item->sensitive, &item->extractable, &item->always_sensitive, &item->never_extractable,
                    &item->local,     &item->modifiable,  &item->can_decrypt,      &item->can_unwrap,
                    &item->can_wrap,  &item->can_derive,  &item->can_sign,         &item->always_authenticate};

    memcpy(flags, all, sizeof all);
}

void
wire_put_item(struct wire_out *o, const struct p11_item *item)
{
    struct p11_item copy = *item;
    int *flags[12];

    wire_put_text(o, item->token_label);
    wire_put_text(o, item->token_serial);
    wire_put_text(o, item->token_model);
    wire_put_text(o, item->module_name);
    wire_put_text(o, item->class_name);
    wire_put_text(o, item->label);
    wire_put_text(o, item->id_hex);
    wire_put_text(o, item->made);
    wire_put_public(o, &item->pub);
    item_flags(&copy, flags);
    for (size_t i = 0; i < 12; i++)
        wire_put_u32(o, (uint32_t)(*flags[i] + 1));
}

void
wire_put_probe_item(struct wire_out *o, const struct p11_probe_item *item)
{
    wire_put_u32(o, (uint32_t)item->kind);
    wire_put_u32(o, item->signing != 0);
    wire_put_u32(o, item->works != 0);
    wire_put_u32(o, (uint32_t)item->scheme);
    wire_put_u32(o, (uint32_t)(item->refuses_damage + 1));
    wire_put_u32(o, item->blind != 0);
    for (size_t i = 0; i < P11_FACTS; i++)
        wire_put_u32(o, (uint32_t)(item->facts[i] + 1));
    wire_put_text(o, item->why);
}

void
wire_in_free(struct wire_in *in)
{
    free(in->room);
    bk_secret_wipe(&in->secret);
    *in = (struct wire_in){0};
}

uint32_t
wire_get_u32(struct wire_in *in)
{
    return bk_read_u32(&in->body, "number");
}

static void
spoil(struct wire_in *in, const char *what)
{
    if (in->body.failed == NULL)
        in->body.failed = what;
}

uint32_t
wire_get_below(struct wire_in *in, uint32_t limit)
{
    uint32_t v = wire_get_u32(in);

    if (v < limit)
        return v;
    spoil(in, "number out of range");
    return 0;
}

int
wire_get_flag(struct wire_in *in)
{
    return (int)wire_get_below(in, 2);
}

int
wire_get_tristate(struct wire_in *in)
{
    return (int)wire_get_below(in, 3) - 1;
}

const uint8_t *
wire_get_bytes(struct wire_in *in, size_t *len)
{
    uint32_t n = wire_get_u32(in);
    const uint8_t *at = bk_read_bytes(&in->body, n, "bytes");

    *len = at == NULL ? 0 : n;
    return at;
}

const char *
wire_get_text(struct wire_in *in)
{
    uint32_t n = wire_get_u32(in);
    const uint8_t *at;

    if (n == NO_TEXT)
        return NULL;
    at = bk_read_bytes(&in->body, n, "text");
    if (at != NULL && n > 0 && memchr(at, '\0', n) == at + n - 1)
        return (const char *)at;
    spoil(in, "text");
    return NULL;
}

const char *
wire_get_some_text(struct wire_in *in)
{
    const char *text = wire_get_text(in);

    if (text == NULL)
        spoil(in, "text that is missing");
    return text == NULL ? "" : text;
}

static const char *
make_plain(struct wire_in *in, const char *text)
{
    char plain[SHOWN_MAX];
    size_t len = strlen(text);

    if (len >= sizeof plain) {
        spoil(in, "text without end");
        return "";
    }
    /* never longer than it was; and the room is ours */
    (void)bk_text_plain(plain, sizeof plain, text, len);
    if (strcmp(plain, text) != 0)
        memcpy((char *)(uintptr_t)text, plain, strlen(plain) + 1);
    return text;
}

const char *
wire_get_shown(struct wire_in *in)
{
    return make_plain(in, wire_get_some_text(in));
}

/* At most room bytes. */
static size_t
get_into(struct wire_in *in, uint8_t *out, size_t room)
{
    size_t len = 0;
    const uint8_t *at = wire_get_bytes(in, &len);

    if (len > room) {
        spoil(in, "bytes without end");
        return 0;
    }
    if (at != NULL)
        memcpy(out, at, len);
    return len;
}

void
wire_get_id(struct wire_in *in, struct bk_key_id *id)
{
    id->len = get_into(in, id->bytes, sizeof id->bytes);
}

size_t
wire_get_ids(struct wire_in *in, struct bk_key_id *ids, size_t room)
{
    size_t count = wire_get_below(in, (uint32_t)room + 1);

    for (size_t i = 0; i < count; i++)
        wire_get_id(in, &ids[i]);
    return count;
}

void
wire_get_public(struct wire_in *in, struct bk_public *pub)
{
    const uint8_t *spki = NULL;
    const char *uri;
    size_t len = 0;

    pub->type = (enum bk_key_type)wire_get_below(in, BK_KEY_AES256 + 1);
    pub->bits = wire_get_below(in, 65536);
    pub->scheme = (enum bk_scheme)wire_get_below(in, BK_SCHEME_LAST + 1);
    wire_get_id(in, &pub->id);
    pub->sealed = wire_get_flag(in);
    if (wire_get_flag(in))
        spki = wire_get_bytes(in, &len);
    uri = wire_get_text(in);
    if (in->body.failed != NULL)
        return;
    if ((spki != NULL && (pub->spki = malloc(len == 0 ? 1 : len)) == NULL) ||
        (uri != NULL && (pub->uri = strdup(uri)) == NULL)) {
        spoil(in, "memory");
        return;
    }
    if (spki != NULL)
        memcpy(pub->spki, spki, len);
    pub->spki_len = len;
}

void
wire_get_wrapped(struct wire_in *in, struct bk_wrapped *w)
{
    w->scheme = (enum bk_scheme)wire_get_below(in, BK_SCHEME_LAST + 1);
    wire_get_id(in, &w->id);
    w->ephemeral_len = get_into(in, w->ephemeral, sizeof w->ephemeral);
    if (get_into(in, w->nonce, sizeof w->nonce) != sizeof w->nonce)
        spoil(in, "a nonce of another length");
    w->len = get_into(in, w->data, sizeof w->data);
}

void
wire_get_error(struct wire_in *in, struct bk_err *err)
{
    enum bk_code code = (enum bk_code)wire_get_below(in, BK_E_CANCELLED + 1);
    int os_errno = (int)wire_get_below(in, 65536);
    unsigned long rv = wire_get_u32(in);
    const char *message = wire_get_some_text(in);
    const char *hint = wire_get_some_text(in);

    code = bk_fail(err, code == BK_OK ? BK_E_INTERNAL : code, "%s", message);
    if (hint[0] != '\0')
        bk_err_hint(err, "%s", hint);
    err->code = code;
    err->os_errno = os_errno;
    err->token_rv = rv;
}

enum bk_code
wire_get_uri(struct wire_in *in, struct p11_uri *uri, int *there, struct bk_err *err)
{
    const char *text = wire_get_text(in);
    const char *source = wire_get_text(in);

    *there = text != NULL;
    if (text == NULL || in->body.failed != NULL)
        return BK_OK;
    return p11_uri_make(uri, text, source, &in->secret, err);
}

void
wire_get_pin_request(struct wire_in *in, struct p11_pin_request *req)
{
    req->token_label = wire_get_shown(in);
    req->token_serial = wire_get_shown(in);
    req->pin_source = wire_get_text(in);
    req->count_low = wire_get_flag(in);
    req->final_try = wire_get_flag(in);
    req->security_officer = wire_get_flag(in);
}

void
wire_get_item(struct wire_in *in, struct p11_item *item)
{
    int *flags[12];

    *item = (struct p11_item){0};
    item->token_label = wire_get_shown(in);
    item->token_serial = wire_get_shown(in);
    item->token_model = wire_get_shown(in);
    item->module_name = wire_get_shown(in);
    item->class_name = wire_get_shown(in);
    item->label = wire_get_shown(in);
    item->id_hex = wire_get_shown(in);
    item->made = wire_get_text(in);
    if (item->made != NULL)
        item->made = make_plain(in, item->made);
    wire_get_public(in, &item->pub);
    item->uri = item->pub.uri;
    item_flags(item, flags);
    for (size_t i = 0; i < 12; i++)
        *flags[i] = wire_get_tristate(in);
}

void
wire_get_probe_item(struct wire_in *in, struct p11_probe_item *item)
{
    *item = (struct p11_probe_item){0};
    item->kind = (enum p11_key_kind)wire_get_below(in, P11_AES256 + 1);
    item->signing = wire_get_flag(in);
    item->works = wire_get_flag(in);
    item->scheme = (enum bk_scheme)wire_get_below(in, BK_SCHEME_LAST + 1);
    item->refuses_damage = wire_get_tristate(in);
    item->blind = wire_get_flag(in);
    for (size_t i = 0; i < P11_FACTS; i++)
        item->facts[i] = wire_get_tristate(in);
    item->why = wire_get_text(in);
}

enum bk_code
wire_end(struct wire_in *in, struct bk_err *err)
{
    bk_read_end(&in->body);
    if (in->body.failed == NULL)
        return BK_OK;
    if (strcmp(in->body.failed, "memory") == 0)
        return bk_fail_nomem(err);
    return bk_fail(err, BK_E_FORMAT, "a message of type %d is not what was agreed on (%s)", (int)in->type,
                   in->body.failed);
}

static enum bk_code
send_one(int fd, const void *data, size_t len, struct bk_err *err)
{
    ssize_t n;

    while ((n = send(fd, data, len, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    if (n == (ssize_t)len)
        return BK_OK;
    if (n < 0 && errno == EAGAIN)
        return bk_fail(err, BK_E_FORMAT, "it does not read what it is sent");
    return bk_fail_errno(err, n < 0 ? errno : EMSGSIZE, "sending to the other process");
}

enum bk_code
wire_send(int fd, struct wire_out *o, const struct bk_secret *secret, struct bk_err *err)
{
    size_t secret_len = secret == NULL || secret->data == NULL ? 0 : secret->len;
    enum bk_code rc;

    if (o->failed)
        return bk_fail_nomem(err);
    if (o->body.len > WIRE_MAX || secret_len > WIRE_SECRET_MAX)
        return bk_fail(err, BK_E_INTERNAL, "a message of %zu bytes is too long", o->body.len);
    bk_put_u16(o->body.data + 2, (uint16_t)secret_len);
    rc = send_one(fd, o->body.data, o->body.len, err);
    if (rc == BK_OK && secret_len > 0)
        rc = send_one(fd, secret->data, secret_len, err);
    return rc;
}

/* One datagram; the kernel cuts a longer one, and MSG_TRUNC lets us see that. */
static enum bk_code
receive_one(int fd, void *room, size_t len, size_t *got, struct bk_err *err)
{
    ssize_t n = recv(fd, room, len, MSG_TRUNC);

    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return bk_fail(err, BK_E_INCOMPLETE, "the other process is gone");
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return BK_E_CANCELLED;
    if (n < 0)
        return bk_fail_errno(err, errno, "receiving from the other process");
    if ((size_t)n > len)
        return bk_fail(err, BK_E_FORMAT, "a message of %zd bytes is too long", n);
    *got = (size_t)n;
    return BK_OK;
}

/* It was sent right after its message, but the other side may have had to wait for a processor in between. */
static enum bk_code
await_secret(int fd, uint8_t *room, size_t len, size_t *got, struct bk_err *err)
{
    enum bk_code rc;
    int waits = 0;

    while ((rc = receive_one(fd, room, len, got, err)) == BK_E_CANCELLED && waits < SECRET_WAITS)
        waits += errno != EINTR;
    return rc;
}

static enum bk_code
receive_secret(int fd, size_t len, struct bk_secret *secret, struct bk_err *err)
{
    size_t got = 0;
    enum bk_code rc;

    if (len > WIRE_SECRET_MAX)
        return bk_fail(err, BK_E_FORMAT, "a secret of %zu bytes is too long", len);
    if ((rc = bk_secret_alloc(secret, len, err)) != BK_OK) {
        /* nobody shall take it for the next message: it is thrown away unread */
        (void)!await_secret(fd, NULL, 0, &got, NULL);
        return rc;
    }
    rc = await_secret(fd, secret->data, len, &got, err);
    if (rc == BK_OK && got != len)
        rc = bk_fail(err, BK_E_FORMAT, "a secret of %zu bytes has %zu", len, got);
    if (rc == BK_E_CANCELLED)
        rc = bk_fail(err, BK_E_FORMAT, "a secret did not come");
    return rc;
}

static int64_t
now_us(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void
wire_linger(int fd, unsigned us)
{
    int64_t until = now_us() + us;
    uint8_t byte;

    while (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN && now_us() < until)
        (void)sched_yield();
}

enum bk_code
wire_receive(int fd, struct wire_in *in, struct bk_err *err)
{
    size_t got = 0;
    uint16_t secret_len;
    enum bk_code rc;

    bk_secret_wipe(&in->secret);
    if (in->room == NULL && (in->room = malloc(WIRE_MAX)) == NULL)
        return bk_fail_nomem(err);
    if ((rc = receive_one(fd, in->room, WIRE_MAX, &got, err)) != BK_OK)
        return rc;
    in->body = bk_reader_over(in->room, got);
    in->type = (enum wire_type)bk_read_u16(&in->body, "type");
    secret_len = bk_read_u16(&in->body, "length of the secret");
    if (in->body.failed != NULL)
        return bk_fail(err, BK_E_FORMAT, "a message of %zu bytes", got);
    return secret_len == 0 ? BK_OK : receive_secret(fd, secret_len, &in->secret, err);
}
