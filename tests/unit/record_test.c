/* Do format/record.c and format/lineage.c meet their header? docs/FORMAT.md, KeyRecord. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "format/record.h"
#include "tests/support/mutate.h"

static const uint8_t own_id[BK_UUID_LEN] = {0x01, 0x8f, 0x11, 0x22, 0x33, 0x44, 0x7a, 0xbc,
                                            0x8d, 0xef, 1,    2,    3,    4,    5,    6};

static void
must(enum bk_code rc, const struct bk_err *err)
{
    if (rc != BK_OK)
        fail_msg("%d: %s", rc, err->message);
}

static struct bk_key_id
key_id(uint8_t fill)
{
    struct bk_key_id id = {.len = BK_SKI_LEN};

    memset(id.bytes, fill, id.len);
    return id;
}

static void
add_recipient(struct bk_envelope *e, uint8_t fill)
{
    struct bk_recipient *r = &e->recipients[e->recipient_count++];

    r->kind = BK_RECIPIENT_KNOWN;
    r->wrapped.scheme = BK_SCHEME_ECDH_P256;
    r->wrapped.id = key_id(fill);
}

static struct bk_record
first_record(void)
{
    struct bk_record r = {.generation = 1, .created_at = 1764000000};
    struct bk_key_id id = key_id(1);
    struct bk_err err = {0};

    memcpy(r.archive_id, own_id, sizeof own_id);
    memset(r.envelope_hash, 0xe1, 32);
    must(bk_record_add_hint(&r, &id, "pkcs11:token=one;object=kek;serial=1", &err), &err);
    return r;
}

static struct bk_buf
encoded(const struct bk_record *r)
{
    struct bk_buf der = {0};
    struct bk_err err = {0};

    must(bk_record_encode(r, &der, &err), &err);
    return der;
}

static void
digest_of(const struct bk_record *r, uint8_t out[32])
{
    struct bk_buf der = encoded(r);

    bk_sha256(der.data, der.len, out);
    bk_buf_free(&der);
}

/* The successor of r, all fields filled; recipients 1 and 2 of e remain. */
static struct bk_record
next_of(const struct bk_record *r, const struct bk_envelope *e)
{
    struct bk_record next = {0};
    struct bk_key_id id = key_id(2);
    uint8_t digest[32];
    uint8_t manifest[32];
    struct bk_err err = {0};

    memset(manifest, 0x3a, sizeof manifest);
    digest_of(r, digest);
    must(bk_record_next(r, digest, e, manifest, &next, &err), &err);
    memset(next.envelope_hash, 0xe2, 32);
    next.created_at = r->created_at + 1;
    next.blindness = BK_BLIND_TOKEN_ENFORCED;
    next.proven[0] = key_id(2);
    next.proven_count = 1;
    strcpy(next.reason, "departure");
    memset(next.order_id, 0x0d, 32);
    next.order_id_len = 32;
    must(bk_record_add_hint(&next, &id, "pkcs11:token=two", &err), &err);
    return next;
}

/* ---- encoding and parsing ---- */

static void
assert_same(const struct bk_record *a, const struct bk_record *b)
{
    assert_memory_equal(a->archive_id, b->archive_id, sizeof a->archive_id);
    assert_int_equal(a->generation, b->generation);
    assert_memory_equal(a->previous, b->previous, 32);
    assert_memory_equal(a->manifest_digest, b->manifest_digest, 32);
    assert_int_equal(a->history_count, b->history_count);
    for (size_t i = 0; i < a->history_count; i++) {
        assert_memory_equal(a->history[i].record_digest, b->history[i].record_digest, 32);
        assert_int_equal(a->history[i].key_id_count, b->history[i].key_id_count);
        for (size_t j = 0; j < a->history[i].key_id_count; j++)
            assert_true(bk_key_id_equal(&a->history[i].key_ids[j], &b->history[i].key_ids[j]));
    }
    assert_memory_equal(a->envelope_hash, b->envelope_hash, 32);
    assert_int_equal(a->created_at, b->created_at);
    assert_int_equal(a->blindness, b->blindness);
    assert_int_equal(a->proven_count, b->proven_count);
    for (size_t i = 0; i < a->proven_count; i++)
        assert_true(bk_key_id_equal(&a->proven[i], &b->proven[i]));
    assert_string_equal(a->reason, b->reason);
    assert_int_equal(a->order_id_len, b->order_id_len);
    assert_memory_equal(a->order_id, b->order_id, 32);
    assert_int_equal(a->hint_count, b->hint_count);
    for (size_t i = 0; i < a->hint_count; i++) {
        assert_true(bk_key_id_equal(&a->hints[i].id, &b->hints[i].id));
        assert_string_equal(a->hints[i].uri, b->hints[i].uri);
    }
}

static void
assert_round_trip(const struct bk_record *r)
{
    struct bk_buf der = encoded(r);
    struct bk_buf again;
    struct bk_record back = {0};
    struct bk_err err = {0};

    must(bk_record_parse(der.data, der.len, &back, &err), &err);
    assert_same(&back, r);
    again = encoded(&back);
    assert_int_equal(again.len, der.len);
    assert_memory_equal(again.data, der.data, der.len);
    bk_buf_free(&again);
    bk_buf_free(&der);
    bk_record_free(&back);
}

static void
round_trips(void **state)
{
    struct bk_envelope e = {0};
    struct bk_record bare = {.generation = 1, .created_at = 0};
    struct bk_record one = first_record();
    struct bk_record two;

    (void)state;
    memcpy(bare.archive_id, own_id, sizeof own_id);
    assert_round_trip(&bare);
    assert_round_trip(&one);
    add_recipient(&e, 1);
    add_recipient(&e, 2);
    two = next_of(&one, &e);
    assert_round_trip(&two);
    two.order_id_len = 1; /* and what is left over of it is not encoded */
    memset(two.order_id + 1, 0, 31);
    assert_round_trip(&two);
    bk_record_free(&one);
    bk_record_free(&two);
    bk_record_free(&two);
}

static void
refused(const struct bk_record *r, enum bk_code code, const char *part)
{
    struct bk_buf der = {0};
    struct bk_err err = {0};

    assert_int_equal(bk_record_encode(r, &der, &err), code);
    assert_string_equal(err.layer, "record");
    if (strstr(err.message, part) == NULL || strncmp(err.message, "record: ", 8) != 0)
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_int_equal(der.len, 0);
    bk_buf_free(&der);
}

static void
encoding_is_checked(void **state)
{
    struct bk_envelope e = {0};
    struct bk_record one = first_record();
    struct bk_record two;
    struct bk_record r;
    const struct bk_key_id second = key_id(9);
    struct bk_err err = {0};

    (void)state;
    add_recipient(&e, 1);
    two = next_of(&one, &e);
    r = two;
    r.archive_id[6] = 0;
    refused(&r, BK_E_INTERNAL, "archiveId");
    r = two;
    r.generation = 0;
    refused(&r, BK_E_INTERNAL, "generation 0");
    r.generation = 3;
    refused(&r, BK_E_INTERNAL, "generation 3 with a history of 1");
    r.generation = BK_HISTORY_MAX + 2;
    refused(&r, BK_E_INTERNAL, "generation 4097");
    r = two;
    r.created_at = -1;
    refused(&r, BK_E_INTERNAL, "createdAt");
    r = two;
    r.blindness = (enum bk_blindness)3;
    refused(&r, BK_E_INTERNAL, "blindness 3");
    r = two;
    strcpy(r.reason, "a\tb");
    refused(&r, BK_E_USAGE, "reason");
    r = two;
    r.order_id_len = 33;
    refused(&r, BK_E_INTERNAL, "orderId");
    r = two;
    r.proven[1] = r.proven[0];
    r.proven_count = 2;
    refused(&r, BK_E_INTERNAL, "proven: a key id stands there twice");
    r.proven[1].len = 3;
    refused(&r, BK_E_INTERNAL, "proven: key id of 3 bytes");
    r.proven_count = BK_RECIPIENTS_MAX + 1;
    refused(&r, BK_E_INTERNAL, "proven: 33 key ids");
    two.history[0].key_ids[0].len = 33;
    refused(&two, BK_E_INTERNAL, "history: key id of 33 bytes");
    two.history[0].key_id_count = 0;
    refused(&two, BK_E_INTERNAL, "history: generation 1 names no key");
    two.history[0].key_id_count = 1;
    two.history[0].key_ids[0].len = 20;
    two.hints[0].id.len = 0;
    refused(&two, BK_E_INTERNAL, "hint: key id of 0 bytes");
    two.hints[0].id.len = 20;
    must(bk_record_add_hint(&two, &second, "pkcs11:token=second", &err), &err);
    two.hints[1].id = two.hints[0].id;
    refused(&two, BK_E_INTERNAL, "hints: two for one key");
    strcpy(two.hints[0].uri, "pkcs11:pin-value=1");
    refused(&two, BK_E_USAGE, "hint: not a pkcs11: URI");
    bk_record_free(&one);
    bk_record_free(&two);
}

/* ---- parsing refuses ---- */

static uint8_t *
place_of(struct bk_buf *der, const void *needle, size_t len)
{
    uint8_t *at = memmem(der->data, der->len, needle, len);

    assert_non_null(at);
    return at;
}

static void
parse_refused(struct bk_buf *der, enum bk_code code, const char *part)
{
    struct bk_record r = {0};
    struct bk_err err = {0};

    assert_int_equal(bk_record_parse(der->data, der->len, &r, &err), code);
    assert_string_equal(err.layer, "record");
    if (strstr(err.message, part) == NULL || strncmp(err.message, "record: ", 8) != 0)
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_null(r.history);
    assert_null(r.hints);
    assert_int_equal(r.generation, 0);
    bk_buf_free(der);
}

static void
parsing_checks_the_same(void **state)
{
    static const char generation[] = "\x8d\xef\x01\x02\x03\x04\x05\x06\x02\x01";
    struct bk_envelope e = {0};
    struct bk_record one = first_record();
    struct bk_record two;
    struct bk_buf der = encoded(&one);
    const struct bk_key_id second = key_id(9);
    struct bk_err err = {0};

    (void)state;
    place_of(&der, generation, 10)[10] = 2;
    parse_refused(&der, BK_E_FORMAT, "generation 2 needs previous, manifestDigest and history");
    add_recipient(&e, 1);
    two = next_of(&one, &e);
    der = encoded(&two);
    place_of(&der, generation, 10)[10] = 1;
    parse_refused(&der, BK_E_FORMAT, "generation 1 has none of previous, manifestDigest and history");
    der = encoded(&two);
    place_of(&der, generation, 10)[10] = 3;
    parse_refused(&der, BK_E_FORMAT, "generation 3 with a history of 1");
    der = encoded(&two);
    place_of(&der, generation, 10)[10] = 0;
    parse_refused(&der, BK_E_FORMAT, "generation 0");
    der = encoded(&two);
    place_of(&der, "\x0a\x01\x02", 3)[2] = 3;
    parse_refused(&der, BK_E_FORMAT, "blindness 3");
    der = encoded(&two);
    place_of(&der, "\x02\x01\x01\x04\x10", 5)[2] = 2;
    parse_refused(&der, BK_E_NEWER, "version 2 ");
    der = encoded(&two);
    memcpy(place_of(&der, "departure", 9), "depart\nre", 9);
    parse_refused(&der, BK_E_FORMAT, "reason");
    der = encoded(&two);
    memcpy(place_of(&der, "pkcs11:", 7), "pkcs12:", 7);
    parse_refused(&der, BK_E_FORMAT, "hint: not a pkcs11: URI");
    der = encoded(&two);
    memcpy(place_of(&der, own_id, sizeof own_id) + 6, "\x4a", 1);
    parse_refused(&der, BK_E_FORMAT, "archiveId");
    must(bk_record_add_hint(&two, &second, "pkcs11:token=second", &err), &err);
    der = encoded(&two);
    memset(place_of(&der, second.bytes, second.len), 2, second.len); /* the id of the hint before it */
    parse_refused(&der, BK_E_FORMAT, "hints: two for one key");
    bk_record_free(&one);
    bk_record_free(&two);
}

static enum bk_code
try_parse(const uint8_t *data, size_t len, void *ctx)
{
    struct bk_record r = {0};
    struct bk_buf again = {0};
    struct bk_err err = {0};
    enum bk_code rc = bk_record_parse(data, len, &r, &err);

    (void)ctx;
    if (rc != BK_OK)
        return rc;
    /* whatever is accepted is the one encoding of what it says */
    must(bk_record_encode(&r, &again, &err), &err);
    assert_int_equal(again.len, len);
    assert_memory_equal(again.data, data, len);
    bk_buf_free(&again);
    bk_record_free(&r);
    return BK_OK;
}

static void
no_mutation_crashes(void **state)
{
    struct bk_envelope e = {0};
    struct bk_record one = first_record();
    struct bk_record two;
    struct bk_buf der;

    (void)state;
    add_recipient(&e, 1);
    add_recipient(&e, 2);
    two = next_of(&one, &e);
    der = encoded(&two);
    assert_int_equal(mutate_truncations(der.data, der.len, try_parse, NULL), 0);
    /* digests, ids and letters may be others; structure may not */
    assert_in_range(mutate_flips(der.data, der.len, try_parse, NULL), 1, 8 * der.len - 400);
    bk_buf_free(&der);
    bk_record_free(&one);
    bk_record_free(&two);
}

/* ---- hints ---- */

static void
hints(void **state)
{
    static const char *const good[] = {"pkcs11:", "pkcs11:token=a%20b;id=%01%02", "pkcs11:object=x?x-vendor=pin-value",
                                       "pkcs11:x-pin-value=1", "pkcs11:object=module-path"};
    static const char *const bad[] = {"",
                                      "PKCS11:token=a",
                                      "file:a",
                                      "pkcs11",
                                      "pkcs11:token=a b",
                                      "pkcs11:token=\xc3\xa4",
                                      "pkcs11:a=1\n",
                                      "pkcs11:token=a?pin-value=1",
                                      "pkcs11:token=a?pin-source=file:a",
                                      "pkcs11:token=a?module-path=a.so",
                                      "pkcs11:token=a?module-name=a",
                                      "pkcs11:token=a?a=1&PIN-value=1",
                                      "pkcs11:pin-value=1",
                                      "pkcs11:a=1;Module-Path=b",
                                      "pkcs11:a?pin-value"};
    struct bk_record r = {0};
    struct bk_key_id id = key_id(9);
    char longest[BK_TEXT_MAX + 2] = "pkcs11:token=";
    struct bk_err err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!bk_hint_uri_valid(good[i]))
            fail_msg("%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(bk_record_add_hint(&r, &id, bad[i], &err), BK_E_USAGE);
        assert_int_equal(r.hint_count, 0);
    }
    memset(longest + 13, 'x', BK_TEXT_MAX + 1 - 13);
    assert_int_equal(bk_record_add_hint(&r, &id, longest, &err), BK_E_USAGE);
    longest[BK_TEXT_MAX] = '\0';
    must(bk_record_add_hint(&r, &id, NULL, &err), &err);
    assert_null(bk_record_hint(&r, &id));
    must(bk_record_add_hint(&r, &id, longest, &err), &err);
    assert_string_equal(bk_record_hint(&r, &id), longest);
    assert_int_equal(bk_record_add_hint(&r, &id, "pkcs11:", &err), BK_E_USAGE);
    id = key_id(8);
    assert_null(bk_record_hint(&r, &id));
    bk_record_free(&r);
}

/* ---- lineage ---- */

/* An archive of generation 3 whose records follow one another. */
struct chain {
    struct bk_envelope envelope;
    struct bk_manifest manifest;
    uint8_t manifest_digest[32];
    struct bk_record record[3];
    uint8_t digest[3][32];
};

static struct chain *
chain_new(void)
{
    struct chain *c = calloc(1, sizeof *c);

    assert_non_null(c);
    add_recipient(&c->envelope, 1);
    add_recipient(&c->envelope, 2);
    memset(c->manifest_digest, 0x3a, 32);
    memcpy(c->manifest.archive_id, own_id, sizeof own_id);
    c->record[0] = first_record();
    digest_of(&c->record[0], c->digest[0]);
    memcpy(c->manifest.record_digest, c->digest[0], 32);
    for (size_t i = 1; i < 3; i++) {
        c->record[i] = next_of(&c->record[i - 1], &c->envelope);
        digest_of(&c->record[i], c->digest[i]);
    }
    return c;
}

static void
chain_free(struct chain *c)
{
    for (size_t i = 0; i < 3; i++)
        bk_record_free(&c->record[i]);
    free(c);
}

static enum bk_code
check(const struct chain *c, size_t i, struct bk_err *err)
{
    uint8_t envelope_hash[32];

    memset(envelope_hash, i == 0 ? 0xe1 : 0xe2, sizeof envelope_hash);
    return bk_record_check(&c->record[i], c->digest[i], i + 1, envelope_hash, &c->envelope, &c->manifest,
                           c->manifest_digest, err);
}

static void
check_refused(const struct chain *c, size_t i, const char *part)
{
    struct bk_err err = {0};

    assert_int_equal(check(c, i, &err), BK_E_VERIFY);
    assert_string_equal(err.layer, "record");
    if (strstr(err.message, part) == NULL || strncmp(err.message, "record: ", 8) != 0)
        fail_msg("\"%s\" does not say \"%s\"", err.message, part);
}

static void
genuine_lineage_holds(void **state)
{
    struct chain *c = chain_new();
    struct bk_err err = {0};

    (void)state;
    for (size_t i = 0; i < 3; i++)
        must(check(c, i, &err), &err);
    chain_free(c);
}

static void
another_archive(void **state)
{
    struct chain *c = chain_new();

    (void)state;
    c->manifest.archive_id[15] ^= 1;
    check_refused(c, 0, "another archive");
    check_refused(c, 2, "another archive");
    chain_free(c);
}

static void
another_generation(void **state)
{
    struct chain *c = chain_new();
    uint8_t hash[32];
    struct bk_err err = {0};

    (void)state;
    memset(hash, 0xe2, sizeof hash);
    assert_int_equal(
        bk_record_check(&c->record[2], c->digest[2], 4, hash, &c->envelope, &c->manifest, c->manifest_digest, &err),
        BK_E_VERIFY);
    assert_non_null(strstr(err.message, "of generation 3 in a slot of generation 4"));
    c->record[2].history_count = 1;
    check_refused(c, 2, "of generation 3 with a history of 1");
    c->record[2].history_count = 2;
    chain_free(c);
}

static void
another_envelope(void **state)
{
    struct chain *c = chain_new();

    (void)state;
    c->record[0].envelope_hash[31] ^= 1;
    check_refused(c, 0, "envelopeHash");
    c->record[2].envelope_hash[0] ^= 1;
    check_refused(c, 2, "envelopeHash");
    chain_free(c);
}

static void
another_first_record(void **state)
{
    struct chain *c = chain_new();

    (void)state;
    c->digest[0][7] ^= 1;
    check_refused(c, 0, "not the first record");
    c->record[2].history[0].record_digest[7] ^= 1;
    check_refused(c, 2, "does not begin with");
    chain_free(c);
}

static void
another_previous(void **state)
{
    struct chain *c = chain_new();

    (void)state;
    c->record[2].previous[0] ^= 1;
    check_refused(c, 2, "does not end with");
    chain_free(c);
}

static void
another_manifest(void **state)
{
    struct chain *c = chain_new();

    (void)state;
    c->manifest_digest[0] ^= 1;
    check_refused(c, 1, "another manifest");
    chain_free(c);
}

static void
stranger_in_hints(void **state)
{
    struct chain *c = chain_new();

    (void)state;
    c->record[0].hints[0].id.bytes[3] ^= 1;
    check_refused(c, 0, "hint for key 01010100");
    chain_free(c);
}

static void
stranger_in_proven(void **state)
{
    struct chain *c = chain_new();

    (void)state;
    c->record[1].proven[0] = key_id(7);
    check_refused(c, 1, "key 0707070707070707070707070707070707070707 is called proven");
    chain_free(c);
}

/* A recipient of a later version can have a hint, too: its id stands somewhere in its DER. */
static void
unknown_recipient_with_hint(void **state)
{
    struct chain *c = chain_new();
    struct bk_key_id id = key_id(7);
    struct bk_recipient *r = &c->envelope.recipients[c->envelope.recipient_count++];
    struct bk_err err = {0};

    (void)state;
    r->kind = BK_RECIPIENT_UNKNOWN;
    must(bk_buf_append(&r->raw, "\xa2\x18\x30\x16\x04\x14", 6, &err), &err);
    must(bk_record_add_hint(&c->record[1], &id, "pkcs11:token=later", &err), &err);
    check_refused(c, 1, "hint for key 07");
    must(bk_buf_append(&r->raw, id.bytes, id.len, &err), &err);
    must(check(c, 1, &err), &err);
    bk_buf_free(&r->raw);
    chain_free(c);
}

static void
next_names_the_old_recipients(void **state)
{
    struct chain *c = chain_new();
    const struct bk_record *r = &c->record[2];

    (void)state;
    assert_int_equal(r->generation, 3);
    assert_memory_equal(r->archive_id, own_id, sizeof own_id);
    assert_memory_equal(r->previous, c->digest[1], 32);
    assert_int_equal(r->history_count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_memory_equal(r->history[i].record_digest, c->digest[i], 32);
        assert_int_equal(r->history[i].key_id_count, 2);
        for (size_t j = 0; j < 2; j++)
            assert_true(bk_key_id_equal(&r->history[i].key_ids[j], &c->envelope.recipients[j].wrapped.id));
    }
    chain_free(c);
}

static void
next_needs_a_recipient_to_name(void **state)
{
    struct bk_record one = first_record();
    struct bk_record next = {0};
    struct bk_envelope e = {.recipient_count = 1};
    uint8_t digest[32] = {0};
    struct bk_err err = {0};

    (void)state;
    e.recipients[0].kind = BK_RECIPIENT_UNKNOWN;
    assert_int_equal(bk_record_next(&one, digest, &e, digest, &next, &err), BK_E_NEWER);
    assert_null(next.history);
    bk_record_free(&one);
}

/* Years of rotations: every one encodes, parses and checks until the bound, and the bound is an error, not a record
 * that nobody reads. */
static void
long_histories(void **state)
{
    struct bk_envelope e = {0};
    struct bk_record r = first_record();
    struct bk_buf der = {0};
    uint8_t digest[32] = {0};
    struct bk_err err = {0};

    (void)state;
    for (uint8_t i = 1; i <= 3; i++)
        add_recipient(&e, i);
    for (size_t i = 0; i < 1000; i++) {
        struct bk_record next = {0};

        bk_put_u64(digest, i);
        must(bk_record_next(&r, digest, &e, digest, &next, &err), &err);
        bk_record_free(&r);
        r = next;
        if (r.generation == 300 || r.generation == 601)
            assert_round_trip(&r);
    }
    assert_int_equal(r.generation, 1001);
    refused(&r, BK_E_NO_ROOM, "generation 1001: the history no longer fits");
    assert_int_equal(bk_record_encode(&r, &der, &err), BK_E_NO_ROOM);
    assert_non_null(strstr(err.hint, "re-encrypt"));
    bk_buf_free(&der);
    bk_record_free(&r);
}

static void
full_history(void **state)
{
    struct bk_record r = {.generation = BK_HISTORY_MAX + 1};
    struct bk_record next = {0};
    struct bk_envelope e = {0};
    uint8_t digest[32] = {0};
    struct bk_err err = {0};

    (void)state;
    add_recipient(&e, 1);
    r.history = calloc(BK_HISTORY_MAX, sizeof *r.history);
    assert_non_null(r.history);
    r.history_count = BK_HISTORY_MAX;
    assert_int_equal(bk_record_next(&r, digest, &e, digest, &next, &err), BK_E_NO_ROOM);
    bk_record_free(&r);
}

static void
names(void **state)
{
    (void)state;
    assert_string_equal(bk_blindness_name(BK_BLIND_HOST), "host");
    assert_string_equal(bk_blindness_name(BK_BLIND_HOST_BLIND), "hostBlind");
    assert_string_equal(bk_blindness_name(BK_BLIND_TOKEN_ENFORCED), "tokenEnforced");
    assert_string_equal(bk_blindness_name((enum bk_blindness)9), "unknown");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(encoding_is_checked),
        cmocka_unit_test(parsing_checks_the_same),
        cmocka_unit_test(no_mutation_crashes),
        cmocka_unit_test(hints),
        cmocka_unit_test(genuine_lineage_holds),
        cmocka_unit_test(another_archive),
        cmocka_unit_test(another_generation),
        cmocka_unit_test(another_envelope),
        cmocka_unit_test(another_first_record),
        cmocka_unit_test(another_previous),
        cmocka_unit_test(another_manifest),
        cmocka_unit_test(stranger_in_hints),
        cmocka_unit_test(stranger_in_proven),
        cmocka_unit_test(unknown_recipient_with_hint),
        cmocka_unit_test(next_names_the_old_recipients),
        cmocka_unit_test(next_needs_a_recipient_to_name),
        cmocka_unit_test(long_histories),
        cmocka_unit_test(full_history),
        cmocka_unit_test(names),
    };

    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
