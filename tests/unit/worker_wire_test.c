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
    assert_in_range(p->scheme, BK_SCHEME_NONE, BK_SCHEME_LAST);
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
    assert_in_range(w.scheme, BK_SCHEME_NONE, BK_SCHEME_LAST);
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
    assert_in_range(i.scheme, BK_SCHEME_NONE, BK_SCHEME_LAST);
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
    };

    return cmocka_run_group_tests(tests, init, NULL);
}
