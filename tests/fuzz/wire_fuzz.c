/* What a token worker may send (worker/wire.h): every reader on any bytes; the first says which. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "worker/wire.h"

#define HEADER 4

/* A message read twice is made the same: what was taken is all that there was. */
static void
same_again(struct wire_out *o, const uint8_t *data, size_t size)
{
    fuzz_hold(!o->failed);
    fuzz_hold(o->body.len == HEADER + size && memcmp(o->body.data + HEADER, data, size) == 0);
}

static int
taken(struct wire_in *in)
{
    struct bk_err err = {0};
    enum bk_code rc = wire_end(in, &err);

    fuzz_answer(rc, &err);
    fuzz_hold(rc == BK_OK || rc == BK_E_FORMAT);
    if (rc == BK_OK)
        fuzz_accepted();
    return rc == BK_OK;
}

static int
is_plain(const char *text)
{
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return 0;
    return 1;
}

static void
numbers(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    uint32_t any = wire_get_u32(in), below = wire_get_below(in, 4096);
    int flag = wire_get_flag(in), three = wire_get_tristate(in);

    fuzz_hold(below < 4096 && (flag == 0 || flag == 1) && three >= -1 && three <= 1);
    if (!taken(in))
        return;
    wire_put_u32(o, any);
    wire_put_u32(o, below);
    wire_put_u32(o, (uint32_t)flag);
    wire_put_u32(o, (uint32_t)(three + 1));
    same_again(o, data, size);
}

static void
texts(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    size_t len = 0;
    const uint8_t *bytes = wire_get_bytes(in, &len);
    const char *text = wire_get_text(in), *some = wire_get_some_text(in);

    fuzz_hold(len <= size && strlen(some) < size + 1 && (text == NULL || strlen(text) < size));
    if (!taken(in))
        return;
    wire_put_bytes(o, bytes, len);
    wire_put_text(o, text);
    wire_put_text(o, some);
    same_again(o, data, size);
}

static void
ids(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    struct bk_key_id id = {0}, many[8] = {0};
    size_t count;

    wire_get_id(in, &id);
    count = wire_get_ids(in, many, 8);
    fuzz_hold(id.len <= BK_KEY_ID_MAX && count <= 8);
    if (!taken(in))
        return;
    wire_put_id(o, &id);
    wire_put_ids(o, many, count);
    same_again(o, data, size);
}

static void
in_range(const struct bk_public *p, size_t size)
{
    fuzz_hold(p->type <= BK_KEY_AES256 && p->scheme <= BK_SCHEME_LAST && p->bits < 65536);
    fuzz_hold(p->id.len <= BK_KEY_ID_MAX && p->spki_len <= size && (p->spki != NULL || p->spki_len == 0));
}

static void
public_half(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    struct bk_public p = {0};

    wire_get_public(in, &p);
    in_range(&p, size);
    if (taken(in)) {
        wire_put_public(o, &p);
        same_again(o, data, size);
    }
    bk_public_free(&p);
}

static void
wrapped(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    struct bk_wrapped w = {0};

    wire_get_wrapped(in, &w);
    fuzz_hold(w.scheme <= BK_SCHEME_LAST && w.id.len <= BK_KEY_ID_MAX && w.ephemeral_len <= BK_EC_POINT_MAX);
    fuzz_hold(w.len <= BK_WRAPPED_MAX);
    if (!taken(in))
        return;
    wire_put_wrapped(o, &w);
    same_again(o, data, size);
}

static void
error(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    struct bk_err err = {0};

    (void)o;
    (void)data;
    wire_get_error(in, &err);
    fuzz_hold(err.code > BK_OK && err.code <= BK_E_CANCELLED && err.os_errno >= 0 && err.os_errno < 65536);
    fuzz_hold(strnlen(err.message, sizeof err.message) < sizeof err.message && strlen(err.hint) <= size);
    (void)taken(in);
}

static void
uri(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    struct p11_uri u = {0};
    struct bk_err err = {0};
    int there = 0;
    enum bk_code rc = wire_get_uri(in, &u, &there, &err);

    fuzz_answer(rc, &err);
    fuzz_hold(rc == BK_OK || rc == BK_E_USAGE);
    fuzz_hold(rc == BK_OK || u.kit == NULL);
    /* programs send what is before the query; the rest would be read, and then dropped */
    if (rc == BK_OK && taken(in) && there && memchr(data, '?', size) == NULL) {
        wire_put_uri(o, &u);
        same_again(o, data, size);
    }
    p11_uri_free(&u);
}

static void
pin_request(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    struct p11_pin_request r = {0};

    (void)o;
    (void)data;
    (void)size;
    wire_get_pin_request(in, &r);
    fuzz_hold(is_plain(r.token_label) && is_plain(r.token_serial));
    fuzz_hold((r.count_low | r.final_try | r.security_officer | 1) == 1);
    (void)taken(in);
}

static void
item(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    struct p11_item i;

    (void)o;
    (void)data;
    wire_get_item(in, &i);
    in_range(&i.pub, size);
    fuzz_hold(is_plain(i.token_label) && is_plain(i.token_serial) && is_plain(i.token_model));
    fuzz_hold(is_plain(i.module_name) && is_plain(i.class_name) && is_plain(i.label) && is_plain(i.id_hex));
    fuzz_hold(i.made == NULL || is_plain(i.made));
    fuzz_hold(i.sensitive >= -1 && i.sensitive <= 1 && i.always_authenticate >= -1 && i.always_authenticate <= 1);
    (void)taken(in);
    bk_public_free(&i.pub);
}

static void
probe_item(struct wire_in *in, struct wire_out *o, const uint8_t *data, size_t size)
{
    struct p11_probe_item i;

    wire_get_probe_item(in, &i);
    fuzz_hold(i.kind <= P11_AES256 && i.scheme <= BK_SCHEME_LAST && i.refuses_damage >= -1 && i.refuses_damage <= 1);
    if (!taken(in))
        return;
    wire_put_probe_item(o, &i);
    same_again(o, data, size);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* the numbers that seeds.c has for them */
    static void (*const readers[])(struct wire_in *, struct wire_out *, const uint8_t *, size_t) = {
        numbers, texts, ids, public_half, wrapped, error, uri, pin_request, item, probe_item};
    struct wire_out o = {0};
    struct wire_in in = {.type = WIRE_DONE};
    uint8_t *copy;

    if (size == 0)
        return 0;
    copy = fuzz_copy(data + 1, size - 1);
    in.body = bk_reader_over(copy, size - 1);
    wire_begin(&o, WIRE_DONE);
    readers[data[0] % (sizeof readers / sizeof readers[0])](&in, &o, data + 1, size - 1);
    bk_buf_free(&o.body);
    free(copy);
    return 0;
}
