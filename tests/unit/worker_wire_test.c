/* What a program and its token worker say to each other: every message there and back, and whole, cut and damaged. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/mutate.h"
#include "worker/wire.h"

#define HEADER 4

#define ok(call)                                                                                                       \
    do {                                                                                                               \
        struct bk_err err = {0};                                                                                       \
        if ((call) != BK_OK)                                                                                           \
            fail_msg("%s: %s", #call, err.message);                                                                    \
    } while (0)

static int
init(void **state)
{
    int locked = 0;

    (void)state;
    return bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

static void
nap(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

    (void)nanosleep(&t, NULL);
}

/* -- one value of each kind -----------------------------------------------------------------------------------------
 */

static const struct bk_key_id an_id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, 20};
static const char a_uri[] = "pkcs11:token=bk%20a;object=rsa";

static struct bk_public
a_public(void)
{
    static uint8_t spki[] = {0x30, 0x03, 0x02, 0x01, 0x07};

    return (struct bk_public){.type = BK_KEY_P384,
                              .bits = 384,
                              .scheme = BK_SCHEME_ECDH_P384,
                              .id = an_id,
                              .sealed = 1,
                              .spki = spki,
                              .spki_len = sizeof spki,
                              .uri = (char *)(uintptr_t)a_uri};
}

static struct bk_wrapped
a_wrapped(void)
{
    struct bk_wrapped w = {.scheme = BK_SCHEME_ECDH_P256, .id = an_id, .ephemeral_len = 65, .len = 40};

    memset(w.ephemeral, 4, w.ephemeral_len);
    memset(w.data, 9, w.len);
    return w;
}

static struct bk_err
an_error(void)
{
    struct bk_err e = {.code = BK_E_PIN, .os_errno = ENOENT, .token_rv = 0xa0};

    (void)snprintf(e.message, sizeof e.message, "token 'bk a': the PIN was refused");
    (void)snprintf(e.hint, sizeof e.hint, "check the PIN");
    return e;
}

static struct p11_item
an_item(void)
{
    return (struct p11_item){.token_label = "bk a",
                             .token_serial = "12ab",
                             .token_model = "SoftHSM v2",
                             .module_name = "softhsm2",
                             .class_name = "private key",
                             .label = "rsa",
                             .id_hex = "0a0b",
                             .made = "2027-01-31",
                             .uri = a_uri,
                             .pub = a_public(),
                             .sensitive = 1,
                             .extractable = 0,
                             .always_sensitive = -1,
                             .never_extractable = 1,
                             .local = 0,
                             .modifiable = -1,
                             .can_decrypt = 1,
                             .can_unwrap = 0,
                             .can_wrap = -1,
                             .can_derive = 1,
                             .can_sign = 0,
                             .always_authenticate = -1};
}

static const struct p11_pin_request a_pin_request = {
    .token_label = "bk a", .token_serial = "12ab", .pin_source = "file:/etc/pin", .final_try = 1};
static const struct p11_probe_item a_probe_item = {
    .kind = P11_AES256, .works = 1, .scheme = BK_SCHEME_AES_KW, .refuses_damage = -1, .blind = 1, .why = "because"};

/* -- messages: how each is made, and how it is read -----------------------------------------------------------------
 */

struct kind {
    const char *name;
    void (*put)(struct wire_out *o);
    /* What was read is in range; with whole it is also what was put. */
    void (*get)(struct wire_in *in, int whole);
};

static void
put_numbers(struct wire_out *o)
{
    wire_put_u32(o, 0xfedcba98);
    wire_put_u32(o, 6);
    wire_put_u32(o, 1);
    wire_put_u32(o, 0);
    wire_put_u32(o, 2);
}

static void
get_numbers(struct wire_in *in, int whole)
{
    uint32_t any = wire_get_u32(in);
    uint32_t below = wire_get_below(in, 7);
    int flag = wire_get_flag(in);
    int low = wire_get_tristate(in);
    int high = wire_get_tristate(in);

    assert_in_range(below, 0, 6);
    assert_true(flag == 0 || flag == 1);
    assert_true(low >= -1 && low <= 1 && high >= -1 && high <= 1);
    if (whole)
        assert_true(any == 0xfedcba98 && below == 6 && flag == 1 && low == -1 && high == 1);
}

static void
put_texts(struct wire_out *o)
{
    wire_put_bytes(o, "\0\1\2", 3);
    wire_put_bytes(o, NULL, 0);
    wire_put_text(o, "text");
    wire_put_text(o, "");
    wire_put_text(o, NULL);
}

static void
get_texts(struct wire_in *in, int whole)
{
    size_t len = 99, none = 99;
    const uint8_t *bytes = wire_get_bytes(in, &len);
    const uint8_t *no_bytes = wire_get_bytes(in, &none);
    const char *some = wire_get_some_text(in);
    const char *empty = wire_get_some_text(in);
    const char *null = wire_get_text(in);

    assert_true(len <= WIRE_MAX && none <= WIRE_MAX);
    assert_true((bytes != NULL || len == 0) && (no_bytes != NULL || none == 0));
    assert_true(strlen(some) < WIRE_MAX && strlen(empty) < WIRE_MAX); /* each ends inside of its message */
    if (null != NULL)
        assert_true(strlen(null) < WIRE_MAX);
    if (!whole)
        return;
    assert_int_equal(len, 3);
    assert_memory_equal(bytes, "\0\1\2", 3);
    assert_int_equal(none, 0);
    assert_string_equal(some, "text");
    assert_string_equal(empty, "");
    assert_null(null);
}

static void
put_ids(struct wire_out *o)
{
    const struct bk_key_id ids[2] = {an_id, {{7, 7, 7, 7}, 4}};

    wire_put_id(o, &an_id);
    wire_put_ids(o, ids, 2);
}

static void
get_ids(struct wire_in *in, int whole)
{
    struct bk_key_id id = {0};
    struct bk_key_id ids[3] = {0};
    size_t count;

    wire_get_id(in, &id);
    count = wire_get_ids(in, ids, 3);
    assert_true(id.len <= BK_KEY_ID_MAX && count <= 3);
    for (size_t i = 0; i < count; i++)
        assert_true(ids[i].len <= BK_KEY_ID_MAX);
    if (whole) {
        assert_int_equal(count, 2);
        assert_true(bk_key_id_equal(&id, &an_id) && bk_key_id_equal(&ids[0], &an_id) && ids[1].len == 4);
    }
}

static void
check_public(const struct bk_public *p, int whole)
{
    const struct bk_public put = a_public();

    assert_in_range(p->type, BK_KEY_UNKNOWN, BK_KEY_AES256);
    assert_in_range(p->scheme, BK_SCHEME_NONE, BK_SCHEME_AES_KW);
    assert_true(p->bits < 65536 && p->id.len <= BK_KEY_ID_MAX && p->spki_len <= WIRE_MAX);
    assert_true(p->spki != NULL || p->spki_len == 0);
    if (!whole)
        return;
    assert_true(p->type == put.type && p->bits == put.bits && p->scheme == put.scheme);
    assert_true(bk_key_id_equal(&p->id, &put.id) && p->sealed);
    assert_int_equal(p->spki_len, put.spki_len);
    assert_memory_equal(p->spki, put.spki, put.spki_len);
    assert_string_equal(p->uri, put.uri);
}

static void
put_public(struct wire_out *o)
{
    const struct bk_public p = a_public();

    wire_put_public(o, &p);
}

static void
get_public(struct wire_in *in, int whole)
{
    struct bk_public p = {0};

    wire_get_public(in, &p);
    check_public(&p, whole);
    bk_public_free(&p);
}

/* A secret key's: no SubjectPublicKeyInfo, and no URI. */
static void
put_bare_public(struct wire_out *o)
{
    const struct bk_public p = {.type = BK_KEY_AES256, .bits = 256, .scheme = BK_SCHEME_AES_KW, .id = an_id};

    wire_put_public(o, &p);
}

static void
get_bare_public(struct wire_in *in, int whole)
{
    struct bk_public p = {0};

    wire_get_public(in, &p);
    check_public(&p, 0);
    if (whole)
        assert_true(p.spki == NULL && p.uri == NULL && p.type == BK_KEY_AES256);
    bk_public_free(&p);
}

static void
put_wrapped(struct wire_out *o)
{
    const struct bk_wrapped w = a_wrapped();

    wire_put_wrapped(o, &w);
}

static void
get_wrapped(struct wire_in *in, int whole)
{
    const struct bk_wrapped put = a_wrapped();
    struct bk_wrapped w = {0};

    wire_get_wrapped(in, &w);
    assert_in_range(w.scheme, BK_SCHEME_NONE, BK_SCHEME_AES_KW);
    assert_true(w.id.len <= BK_KEY_ID_MAX && w.ephemeral_len <= BK_EC_POINT_MAX && w.len <= BK_WRAPPED_MAX);
    if (whole) {
        assert_true(w.scheme == put.scheme && w.ephemeral_len == put.ephemeral_len && w.len == put.len);
        assert_memory_equal(w.ephemeral, put.ephemeral, put.ephemeral_len);
        assert_memory_equal(w.data, put.data, put.len);
    }
}

static void
put_error(struct wire_out *o)
{
    const struct bk_err e = an_error();

    wire_put_error(o, &e);
}

static void
get_error(struct wire_in *in, int whole)
{
    const struct bk_err put = an_error();
    struct bk_err e = {0};

    wire_get_error(in, &e);
    assert_in_range(e.code, BK_OK + 1, BK_E_CANCELLED);
    assert_in_range(e.os_errno, 0, 65535);
    if (whole) {
        assert_true(e.code == put.code && e.os_errno == put.os_errno && e.token_rv == put.token_rv);
        assert_string_equal(e.message, put.message);
        assert_string_equal(e.hint, put.hint);
    }
}

static void
put_pin_request(struct wire_out *o)
{
    wire_put_pin_request(o, &a_pin_request);
}

static void
get_pin_request(struct wire_in *in, int whole)
{
    struct p11_pin_request r = {0};

    wire_get_pin_request(in, &r);
    assert_true(r.token_label != NULL && r.token_serial != NULL);
    assert_true((r.count_low | r.final_try | r.security_officer | 1) == 1);
    if (whole) {
        assert_string_equal(r.token_label, "bk a");
        assert_string_equal(r.token_serial, "12ab");
        assert_string_equal(r.pin_source, "file:/etc/pin");
        assert_true(!r.count_low && r.final_try && !r.security_officer);
    }
}

static void
put_item(struct wire_out *o)
{
    const struct p11_item item = an_item();

    wire_put_item(o, &item);
}

static void
get_item(struct wire_in *in, int whole)
{
    const struct p11_item put = an_item();
    struct p11_item i;

    wire_get_item(in, &i);
    check_public(&i.pub, whole);
    assert_true(i.token_label != NULL && i.token_serial != NULL && i.token_model != NULL && i.module_name != NULL);
    assert_true(i.class_name != NULL && i.label != NULL && i.id_hex != NULL);
    assert_true(i.sensitive >= -1 && i.sensitive <= 1 && i.always_authenticate >= -1 && i.always_authenticate <= 1);
    if (whole) {
        assert_string_equal(i.token_label, put.token_label);
        assert_string_equal(i.token_serial, put.token_serial);
        assert_string_equal(i.token_model, put.token_model);
        assert_string_equal(i.module_name, put.module_name);
        assert_string_equal(i.class_name, put.class_name);
        assert_string_equal(i.label, put.label);
        assert_string_equal(i.id_hex, put.id_hex);
        assert_string_equal(i.made, put.made);
        assert_string_equal(i.uri, put.uri);
        assert_true(i.sensitive == 1 && i.extractable == 0 && i.always_sensitive == -1 && i.never_extractable == 1);
        assert_true(i.local == 0 && i.modifiable == -1 && i.can_decrypt == 1 && i.can_unwrap == 0);
        assert_true(i.can_wrap == -1 && i.can_derive == 1 && i.can_sign == 0 && i.always_authenticate == -1);
    }
    bk_public_free(&i.pub);
}

static void
put_probe_item(struct wire_out *o)
{
    wire_put_probe_item(o, &a_probe_item);
}

static void
get_probe_item(struct wire_in *in, int whole)
{
    struct p11_probe_item i;

    wire_get_probe_item(in, &i);
    assert_in_range(i.kind, P11_RSA3072, P11_AES256);
    assert_in_range(i.scheme, BK_SCHEME_NONE, BK_SCHEME_AES_KW);
    assert_true((i.signing | i.works | i.blind | 1) == 1 && i.refuses_damage >= -1 && i.refuses_damage <= 1);
    if (whole) {
        assert_true(i.kind == P11_AES256 && !i.signing && i.works && i.scheme == BK_SCHEME_AES_KW);
        assert_true(i.refuses_damage == -1 && i.blind);
        assert_string_equal(i.why, "because");
    }
}

static void
put_uri(struct wire_out *o)
{
    struct p11_uri uri = {0};

    ok(p11_uri_parse(&uri, "pkcs11:token=bk%20a;object=rsa?pin-source=file:/etc/pin", &err));
    wire_put_uri(o, &uri);
    p11_uri_free(&uri);
}

static void
get_uri(struct wire_in *in, int whole)
{
    struct p11_uri uri = {0};
    int there = 9;
    enum bk_code rc = wire_get_uri(in, &uri, &there, NULL);

    /* a URI that is none spoils the message, too, or is refused with the code of one that a person typed */
    assert_true(rc == BK_OK || rc == BK_E_USAGE);
    assert_true(there == 0 || there == 1);
    assert_true(rc != BK_OK || !there || in->body.failed != NULL || uri.kit != NULL);
    if (rc != BK_OK)
        in->body.failed = "URI";
    if (whole) {
        assert_int_equal(rc, BK_OK);
        assert_int_equal(there, 1);
        assert_string_equal(uri.text, a_uri);
        assert_string_equal(uri.pin_source, "file:/etc/pin");
        assert_non_null(p11_uri_attribute(&uri, CKA_LABEL));
    }
    p11_uri_free(&uri);
}

static void
put_no_uri(struct wire_out *o)
{
    wire_put_uri(o, NULL);
}

static void
get_no_uri(struct wire_in *in, int whole)
{
    struct p11_uri uri = {0};
    int there = 9;

    if (wire_get_uri(in, &uri, &there, NULL) != BK_OK)
        in->body.failed = "URI";
    if (whole)
        assert_int_equal(there, 0);
    p11_uri_free(&uri);
}

static const struct kind kinds[] = {
    {"numbers", put_numbers, get_numbers},
    {"texts", put_texts, get_texts},
    {"ids", put_ids, get_ids},
    {"public", put_public, get_public},
    {"bare public", put_bare_public, get_bare_public},
    {"wrapped", put_wrapped, get_wrapped},
    {"error", put_error, get_error},
    {"pin request", put_pin_request, get_pin_request},
    {"item", put_item, get_item},
    {"probe item", put_probe_item, get_probe_item},
    {"uri", put_uri, get_uri},
    {"no uri", put_no_uri, get_no_uri},
};

#define KINDS (sizeof kinds / sizeof kinds[0])

/* -- read whole, cut, and damaged -----------------------------------------------------------------------------------
 */

static enum bk_code
parse(const uint8_t *data, size_t len, void *ctx)
{
    const struct kind *k = ctx;
    struct wire_in in = {.type = WIRE_DONE, .body = bk_reader_over(data, len)};
    struct bk_err err = {0};
    enum bk_code rc;

    k->get(&in, 0);
    rc = wire_end(&in, &err);
    assert_true(rc == BK_OK || (rc == BK_E_FORMAT && err.message[0] != '\0'));
    return rc;
}

static void
every_message_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        struct wire_out o = {0};
        struct wire_in in = {.type = WIRE_DONE};

        wire_begin(&o, WIRE_DONE);
        kinds[i].put(&o);
        assert_false(o.failed);
        assert_int_equal(bk_get_u16(o.body.data), WIRE_DONE);
        in.body = bk_reader_over(o.body.data + HEADER, o.body.len - HEADER);
        kinds[i].get(&in, 1);
        ok(wire_end(&in, &err));
        bk_buf_free(&o.body);
    }
}

static void
every_cut_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        struct wire_out o = {0};

        wire_begin(&o, WIRE_DONE);
        kinds[i].put(&o);
        if (mutate_truncations(o.body.data + HEADER, o.body.len - HEADER, parse, (void *)(uintptr_t)&kinds[i]) != 0)
            fail_msg("a message of %s was cut and taken", kinds[i].name);
        /* and bytes behind it */
        ok(bk_buf_append(&o.body, "", 1, &err));
        assert_int_equal(parse(o.body.data + HEADER, o.body.len - HEADER, (void *)(uintptr_t)&kinds[i]), BK_E_FORMAT);
        bk_buf_free(&o.body);
    }
}

static void
every_damage_is_refused_or_in_range(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        struct wire_out o = {0};
        size_t len;

        wire_begin(&o, WIRE_DONE);
        kinds[i].put(&o);
        len = o.body.len - HEADER;
        /* the readers themselves hold what they read against its range */
        assert_true(mutate_flips(o.body.data + HEADER, len, parse, (void *)(uintptr_t)&kinds[i]) < len * 8);
        bk_buf_free(&o.body);
    }
}

static void
numbers_at_their_limits(void **state)
{
    static const struct {
        uint32_t value, limit;
        int good;
    } cases[] = {{0, 1, 1}, {1, 1, 0}, {0, 0, 0}, {UINT32_MAX, UINT32_MAX, 0}, {UINT32_MAX - 1, UINT32_MAX, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t at[4];
        struct wire_in in = {.body = bk_reader_over(at, sizeof at)};
        uint32_t v;

        bk_put_u32(at, cases[i].value);
        v = wire_get_below(&in, cases[i].limit);
        assert_int_equal(v, cases[i].good ? cases[i].value : 0);
        assert_int_equal(wire_end(&in, NULL), cases[i].good ? BK_OK : BK_E_FORMAT);
    }
}

/* Each of these is one text, and none of them is taken. */
static void
texts_that_are_none(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {{"\0\0\0\0", 4},     /* not even its NUL */
                 {"\0\0\0\2ab", 6},   /* no NUL */
                 {"\0\0\0\3a\0b", 7}, /* in the middle */
                 {"\0\0\0\3a\0", 7},  /* twice */
                 {"\xff\xff\xff\xfe", 4} /* one less than "none" */};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct wire_in in = {.body = bk_reader_over(cases[i].bytes, cases[i].len)};

        assert_null(wire_get_text(&in));
        assert_int_equal(wire_end(&in, NULL), BK_E_FORMAT);
        in.body = bk_reader_over(cases[i].bytes, cases[i].len);
        assert_string_equal(wire_get_some_text(&in), "");
        assert_int_equal(wire_end(&in, NULL), BK_E_FORMAT);
    }
}

static void
an_error_that_is_none_is_internal(void **state)
{
    const struct bk_err none = {0};
    struct wire_out o = {0};
    struct wire_in in = {0};
    struct bk_err got = {0};

    (void)state;
    wire_begin(&o, WIRE_DONE);
    wire_put_error(&o, &none);
    in.body = bk_reader_over(o.body.data + HEADER, o.body.len - HEADER);
    wire_get_error(&in, &got);
    ok(wire_end(&in, &err));
    assert_int_equal(got.code, BK_E_INTERNAL);
    bk_buf_free(&o.body);
}

/* -- over a socket --------------------------------------------------------------------------------------------------
 */

static void
make_pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

static void
set_patience(int fd, long ms)
{
    const struct timeval t = {ms / 1000, ms % 1000 * 1000};

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t), 0);
}

static void
secrets_travel_by_themselves(void **state)
{
    struct bk_secret pin = {0};
    struct wire_out o = {0};
    struct wire_in in = {0};
    uint8_t *at;
    int ends[2];
    char raw[256];
    const char header[HEADER] = {0, WIRE_PIN_IS, 0, 11};

    (void)state;
    make_pair(ends);
    ok(bk_secret_from(&pin, "SECRET-4711", 11, &err));
    wire_begin(&o, WIRE_PIN_IS);
    /* as it goes: two datagrams, of which only the second has it, and nothing of it stays with the message */
    ok(wire_send(ends[0], &o, &pin, &err));
    assert_int_equal(recv(ends[1], raw, sizeof raw, 0), HEADER);
    assert_memory_equal(raw, header, HEADER);
    assert_int_equal(recv(ends[1], raw, sizeof raw, 0), 11);
    assert_memory_equal(raw, "SECRET-4711", 11);
    assert_null(memmem(o.body.data, o.body.cap, "SECRET", 6));

    ok(wire_send(ends[0], &o, &pin, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_int_equal(in.type, WIRE_PIN_IS);
    assert_true(bk_secret_equal(&in.secret, &pin));
    assert_true(in.secret.data != in.room);
    assert_null(memmem(in.room, WIRE_MAX, "SECRET", 6));
    at = in.secret.data;
    ok(wire_end(&in, &err));

    /* the next message has none: what is still there is wiped, and the room of it is used again or zero */
    ok(wire_send(ends[0], &o, NULL, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_null(in.secret.data);
    assert_int_equal(in.secret.len, 0);
    assert_true(memcmp(at, "SECRET-4711", 11) != 0);
    /* of no length: none */
    ok(wire_send(ends[0], &o, &(struct bk_secret){0}, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_null(in.secret.data);

    ok(wire_send(ends[0], &o, &pin, &err));
    ok(wire_receive(ends[1], &in, &err));
    at = in.secret.data;
    wire_in_free(&in);
    assert_true(memcmp(at, "SECRET-4711", 11) != 0);
    assert_null(in.room);
    wire_in_free(&in);
    bk_secret_wipe(&pin);
    bk_buf_free(&o.body);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void
what_is_too_long_is_not_sent(void **state)
{
    uint8_t *much = calloc(1, WIRE_MAX);
    struct bk_secret secret = {0};
    struct wire_out o = {0};
    struct wire_in in = {0};
    int ends[2];

    (void)state;
    assert_non_null(much);
    make_pair(ends);
    wire_begin(&o, WIRE_STORE_CERTIFICATE);
    wire_put_bytes(&o, much, WIRE_MAX - HEADER - 4);
    ok(wire_send(ends[0], &o, NULL, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_int_equal(in.body.len, WIRE_MAX);
    wire_put_bytes(&o, NULL, 0);
    assert_int_equal(wire_send(ends[0], &o, NULL, NULL), BK_E_INTERNAL);

    ok(bk_secret_alloc(&secret, WIRE_SECRET_MAX + 1, &err));
    wire_begin(&o, WIRE_PIN_IS);
    assert_int_equal(wire_send(ends[0], &o, &secret, NULL), BK_E_INTERNAL);
    secret.len--;
    ok(wire_send(ends[0], &o, &secret, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_int_equal(in.secret.len, WIRE_SECRET_MAX);
    secret.len++;
    /* nothing of what was refused had gone out */
    set_patience(ends[1], 1);
    assert_int_equal(wire_receive(ends[1], &in, NULL), BK_E_CANCELLED);
    o.failed = 1;
    assert_int_equal(wire_send(ends[0], &o, NULL, NULL), BK_E_NO_ROOM);

    bk_secret_wipe(&secret);
    wire_in_free(&in);
    bk_buf_free(&o.body);
    free(much);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Sends datagrams of those lengths, and then closes; what receiving them comes to. */
static enum bk_code
receive_raw(const void *first, size_t first_len, const void *second, size_t second_len, size_t *secret_len)
{
    struct wire_in in = {0};
    struct bk_err err = {0};
    enum bk_code rc;
    int ends[2];

    make_pair(ends);
    assert_int_equal(send(ends[0], first, first_len, 0), first_len);
    if (second != NULL)
        assert_int_equal(send(ends[0], second, second_len, 0), second_len);
    (void)close(ends[0]);
    rc = wire_receive(ends[1], &in, &err);
    assert_int_equal(rc, err.code);
    *secret_len = in.secret.len;
    wire_in_free(&in);
    (void)close(ends[1]);
    return rc;
}

static void
what_is_no_message_is_not_taken(void **state)
{
    uint8_t *much = calloc(1, WIRE_MAX + 1);
    size_t len = 0;

    (void)state;
    assert_non_null(much);
    much[0] = 0;
    much[1] = WIRE_DONE;
    assert_int_equal(receive_raw(much, 1, NULL, 0, &len), BK_E_FORMAT);
    assert_int_equal(receive_raw(much, 3, NULL, 0, &len), BK_E_FORMAT);
    assert_int_equal(receive_raw(much, 4, NULL, 0, &len), BK_OK);
    assert_int_equal(receive_raw(much, WIRE_MAX, NULL, 0, &len), BK_OK);
    assert_int_equal(receive_raw(much, WIRE_MAX + 1, NULL, 0, &len), BK_E_FORMAT);
    much[3] = 5; /* a secret of 5 bytes */
    assert_int_equal(receive_raw(much, 4, "12345", 5, &len), BK_OK);
    assert_int_equal(len, 5);
    assert_int_equal(receive_raw(much, 4, "1234", 4, &len), BK_E_FORMAT);
    assert_int_equal(receive_raw(much, 4, "123456", 6, &len), BK_E_FORMAT);
    assert_int_equal(receive_raw(much, 4, NULL, 0, &len), BK_E_INCOMPLETE);
    much[2] = 0xff; /* and of many */
    assert_int_equal(receive_raw(much, 4, much, WIRE_MAX, &len), BK_E_FORMAT);
    free(much);
}

static void
the_other_side_is_gone(void **state)
{
    struct bk_secret secret = {0};
    struct wire_out o = {0};
    struct wire_in in = {0};
    int ends[2];

    (void)state;
    make_pair(ends);
    ok(bk_secret_from(&secret, "123", 3, &err));
    (void)close(ends[1]);
    wire_begin(&o, WIRE_DONE);
    /* no SIGPIPE */
    assert_int_equal(wire_send(ends[0], &o, &secret, NULL), BK_E_IO);
    assert_int_equal(wire_receive(ends[0], &in, NULL), BK_E_INCOMPLETE);
    (void)close(ends[0]);

    /* with something unread, as a worker that crashes leaves it */
    make_pair(ends);
    ok(wire_send(ends[0], &o, &secret, &err));
    (void)close(ends[1]);
    assert_int_equal(wire_receive(ends[0], &in, NULL), BK_E_INCOMPLETE);
    (void)close(ends[0]);
    assert_int_equal(wire_receive(ends[0], &in, NULL), BK_E_IO); /* no descriptor at all */
    bk_secret_wipe(&secret);
    wire_in_free(&in);
    bk_buf_free(&o.body);
}

static void
on_signal(int number)
{
    (void)number;
}

struct sender {
    int fd;
    long before_ms, between_ms;
    pthread_t receiver;
    int signals;
};

static void *
send_slowly(void *arg)
{
    const struct sender *s = arg;
    const uint8_t message[HEADER] = {0, WIRE_DONE, 0, 3};

    for (int i = 0; i < s->signals; i++) {
        nap(s->before_ms);
        (void)pthread_kill(s->receiver, SIGUSR1);
    }
    nap(s->before_ms);
    (void)!send(s->fd, message, sizeof message, MSG_NOSIGNAL);
    for (int i = 0; i < s->signals; i++) {
        nap(s->between_ms);
        (void)pthread_kill(s->receiver, SIGUSR1);
    }
    nap(s->between_ms);
    (void)!send(s->fd, "abc", 3, MSG_NOSIGNAL);
    return NULL;
}

/* How often the receiver waited anew before a message came. */
static int
receive_from(struct sender *s, long patience_ms)
{
    struct wire_in in = {0};
    pthread_t thread;
    int ends[2];
    int waits = 0;
    struct bk_err err = {0};
    enum bk_code rc;

    make_pair(ends);
    set_patience(ends[1], patience_ms);
    s->fd = ends[0];
    s->receiver = pthread_self();
    assert_int_equal(pthread_create(&thread, NULL, send_slowly, s), 0);
    while ((rc = wire_receive(ends[1], &in, &err)) == BK_E_CANCELLED)
        waits++;
    if (rc != BK_OK)
        fail_msg("%s", err.message);
    assert_int_equal(in.secret.len, 3);
    assert_memory_equal(in.secret.data, "abc", 3);
    assert_int_equal(pthread_join(thread, NULL), 0);
    wire_in_free(&in);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return waits;
}

static void
a_slow_peer_is_waited_for(void **state)
{
    struct sender s = {.before_ms = 60};

    (void)state;
    assert_true(receive_from(&s, 10) >= 2);
}

/* On a machine that is busy, a moment goes by between a message and its secret. */
static void
a_secret_may_come_later_than_its_message(void **state)
{
    struct sender s = {.between_ms = 150};

    (void)state;
    (void)receive_from(&s, 20);
}

static void
a_secret_that_never_comes_is_not_waited_for_forever(void **state)
{
    const uint8_t message[HEADER] = {0, WIRE_DONE, 0, 3};
    struct wire_in in = {0};
    struct bk_err err = {0};
    int ends[2];

    (void)state;
    make_pair(ends);
    set_patience(ends[1], 1);
    assert_int_equal(send(ends[0], message, sizeof message, 0), HEADER);
    assert_int_equal(wire_receive(ends[1], &in, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "secret did not come"));
    wire_in_free(&in);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void
signals_do_no_harm(void **state)
{
    const struct sigaction heard = {.sa_handler = on_signal};
    struct sender s = {.before_ms = 5, .between_ms = 5, .signals = 3};
    struct sigaction old;

    (void)state;
    assert_int_equal(sigaction(SIGUSR1, &heard, &old), 0);
    (void)receive_from(&s, 5000);
    s.signals = 0;
    (void)receive_from(&s, 0); /* no limit at all */
    assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
}

/* A secret for which there was no room is not left to be read as a message, by whoever reads next. */
static void
no_room_for_a_secret(void **state)
{
    const uint8_t message[HEADER] = {0, WIRE_PIN_IS, 0, 3};
    static struct bk_secret all[BK_SECRET_ARENA / WIRE_SECRET_MAX + 1];
    struct bk_secret small[64] = {0};
    struct wire_in in = {0};
    size_t taken = 0, more = 0;
    int ends[2];

    (void)state;
    make_pair(ends);
    while (taken < sizeof all / sizeof all[0] && bk_secret_alloc(&all[taken], WIRE_SECRET_MAX, NULL) == BK_OK)
        taken++;
    while (more < 64 && bk_secret_alloc(&small[more], 32, NULL) == BK_OK)
        more++;
    assert_true(taken > 100 && more < 64);
    assert_int_equal(send(ends[0], message, sizeof message, 0), HEADER);
    assert_int_equal(send(ends[0], "\0\1\0", 3, 0), 3);
    assert_int_equal(wire_receive(ends[1], &in, NULL), BK_E_NO_ROOM);
    set_patience(ends[1], 1);
    assert_int_equal(wire_receive(ends[1], &in, NULL), BK_E_CANCELLED);
    while (more > 0)
        bk_secret_wipe(&small[--more]);
    while (taken > 0)
        bk_secret_wipe(&all[--taken]);
    wire_in_free(&in);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(every_damage_is_refused_or_in_range),
        cmocka_unit_test(numbers_at_their_limits),
        cmocka_unit_test(texts_that_are_none),
        cmocka_unit_test(an_error_that_is_none_is_internal),
        cmocka_unit_test(secrets_travel_by_themselves),
        cmocka_unit_test(what_is_too_long_is_not_sent),
        cmocka_unit_test(what_is_no_message_is_not_taken),
        cmocka_unit_test(the_other_side_is_gone),
        cmocka_unit_test(a_slow_peer_is_waited_for),
        cmocka_unit_test(a_secret_may_come_later_than_its_message),
        cmocka_unit_test(a_secret_that_never_comes_is_not_waited_for_forever),
        cmocka_unit_test(signals_do_no_harm),
        cmocka_unit_test(no_room_for_a_secret),
    };

    return cmocka_run_group_tests(tests, init, NULL);
}
