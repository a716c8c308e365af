/* Is every field that a reader can compute compared, when a signer who is trusted signs something else? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/keywrap.h"
#include "format/payload.h"
#include "tests/support/ops_fixture.h"

#define SEGMENT  ((size_t)BK_SEGMENT_SIZE_MIN)
#define DATA_LEN (40 * SEGMENT + 7) /* two groups */

/* An archive in memory, to be changed and signed anew. */
struct forgery {
    struct world *w;
    uint8_t *bytes; /* room for a manifest of the largest size behind the index */
    struct bk_layout layout;
    struct bk_preamble preamble;
    struct bk_manifest manifest;
};

static void
forgery_begin(struct forgery *f, struct world *w, const char *name)
{
    struct ops_archive a = {0};
    struct store_source *src = NULL;
    size_t len;
    uint8_t *bytes = world_get(w, name, &len);

    *f = (struct forgery){.w = w};
    assert_int_equal(store_source_open(world_path(w, name), NULL, &src, &w->err), BK_OK);
    assert_int_equal(ops_archive_open(&a, src, &w->trust, NULL, &w->err), BK_OK);
    f->layout = a.layout;
    f->preamble = a.preamble;
    f->manifest = a.manifest;
    ops_archive_free(&a);
    store_source_close(src);
    f->bytes = malloc((size_t)f->layout.manifest_offset + BK_MANIFEST_MAX + BK_TAIL_LEN);
    assert_non_null(f->bytes);
    memcpy(f->bytes, bytes, (size_t)f->layout.manifest_offset);
    free(bytes);
}

/* Signs what the manifest says now, by those of the world's signers, and writes the file. */
static void
forgery_end(struct forgery *f, const char *name, const int *signers, size_t count)
{
    struct world *w = f->w;
    size_t at = (size_t)f->layout.manifest_offset;
    struct bk_signing_key keys[BK_SIGNERS_MAX];
    struct bk_buf der = {0}, signed_der = {0};
    struct bk_tail tail = {.index_offset = f->layout.index_offset};

    for (size_t i = 0; i < count; i++)
        keys[i] = (struct bk_signing_key){w->signer[signers[i]], w->cert[signers[i]].data, w->cert[signers[i]].len};
    assert_int_equal(bk_manifest_encode(&f->manifest, &der, &w->err), BK_OK);
    assert_int_equal(
        bk_signed_make(der.data, der.len, BK_CONTENT_MANIFEST, keys, count, bk_time_now(), &signed_der, &w->err),
        BK_OK);
    bk_put_u32(f->bytes + at - 4, (uint32_t)signed_der.len);
    memcpy(f->bytes + at, signed_der.data, signed_der.len);
    tail.manifest_length = (uint32_t)signed_der.len;
    tail.total_length = at + signed_der.len + BK_TAIL_LEN;
    bk_tail_write(&tail, f->bytes + at + signed_der.len);
    world_put(w, name, f->bytes, (size_t)tail.total_length);
    bk_buf_free(&der);
    bk_buf_free(&signed_der);
    free(f->bytes);
}

static void
sign_as_backup(struct forgery *f, const char *name)
{
    static const int backup[] = {W_BACKUP};

    forgery_end(f, name, backup, 1);
}

static void
wrap_data(struct world *w, const char *name)
{
    uint8_t *data = world_bytes(DATA_LEN);

    world_wrap(w, name, data, DATA_LEN, NULL);
    free(data);
}

static void
refused_by(struct world *w, enum bk_code rc, enum bk_code expected, const char *layer, const char *what)
{
    if (rc != expected || w->err.layer == NULL || strcmp(w->err.layer, layer) != 0)
        fail_msg("%s: code %d at %s (%s), expected %d at %s", what, (int)rc, w->err.layer == NULL ? "-" : w->err.layer,
                 rc == BK_OK ? "" : w->err.message, (int)expected, layer);
    assert_false(world_exists(w, "out"));
}

/* By keys alone if keyless is set, as a file, and as a stream: the same refusal of the same part, and no output. */
static void
refused_everywhere(struct world *w, int keyless, enum bk_code code, const char *layer, const char *what)
{
    if (keyless)
        refused_by(w, world_verify(w, "a.bk", OPS_LEVEL_SIGNATURE, W_KEK_P256), code, layer, what);
    else
        refused_by(w, world_verify(w, "a.bk", OPS_LEVEL_DECRYPT, W_KEK_P256), code, layer, what);
    refused_by(w, world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL), code, layer, what);
    refused_by(w, world_unwrap_stream(w, "a.bk", NULL, world_path(w, "out")), code, layer, what);
}

static void
another_archive_id(struct bk_manifest *m)
{
    m->archive_id[15] ^= 1;
}

static void
another_preamble(struct bk_manifest *m)
{
    m->preamble_digest[31] ^= 1;
}

static void
another_envelope(struct bk_manifest *m)
{
    m->envelope_digest[0] ^= 0x80;
}

static void
another_record(struct bk_manifest *m)
{
    m->record_digest[7] ^= 4;
}

static void
fewer_segments(struct bk_manifest *m)
{
    m->segment_count--;
}

static void
fewer_bytes(struct bk_manifest *m)
{
    m->plaintext_length--;
}

static void
another_payload(struct bk_manifest *m)
{
    m->payload_digest[16] ^= 1;
}

static void
every_field_is_compared(void **state)
{
    static const struct {
        void (*change)(struct bk_manifest *m);
        const char *layer, *what;
    } lies[] = {
        {another_archive_id, "manifest", "archiveId"},    {another_preamble, "manifest", "preambleDigest"},
        {another_envelope, "envelope", "envelopeDigest"}, {another_record, "record", "recordDigest"},
        {fewer_segments, "manifest", "segmentCount"},     {fewer_bytes, "manifest", "plaintextLength"},
        {another_payload, "index", "payloadDigest"},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct forgery f;

        wrap_data(w, "a.bk");
        forgery_begin(&f, w, "a.bk");
        lies[i].change(&f.manifest);
        sign_as_backup(&f, "a.bk");
        refused_everywhere(w, 1, BK_E_VERIFY, lies[i].layer, lies[i].what);
        (void)world_clean(state);
    }
}

/* The same by honest hands: what makes the forgeries above is not what is refused. */
static void
signed_anew_without_a_lie_it_opens(void **state)
{
    struct world *w = *state;
    struct forgery f;
    uint8_t *data = world_bytes(DATA_LEN);

    wrap_data(w, "a.bk");
    forgery_begin(&f, w, "a.bk");
    sign_as_backup(&f, "a.bk");
    world_assert_opens(w, "a.bk", W_KEK_P256, data, DATA_LEN);
    assert_int_equal(world_unwrap_stream(w, "a.bk", NULL, world_path(w, "out")), BK_OK);
    free(data);
}

/* The key package names who signs: one more who is trusted, or one less, is a manifest that its makers did not sign. */
static void
signers_are_exactly_those_of_the_key_package(void **state)
{
    static const int both[] = {W_BACKUP, W_OTHER_BACKUP};
    struct world *w = *state;
    struct bk_signing_key two[2];
    struct ops_wrap req = {.signers = two, .signer_count = 2};
    struct ops_wrap_result result;
    struct forgery f;

    wrap_data(w, "a.bk");
    forgery_begin(&f, w, "a.bk");
    forgery_end(&f, "a.bk", both, 2);
    refused_everywhere(w, 0, BK_E_VERIFY, "signers", "one more");
    (void)world_clean(state);
    for (size_t i = 0; i < 2; i++)
        two[i] = (struct bk_signing_key){w->signer[both[i]], w->cert[both[i]].data, w->cert[both[i]].len};
    assert_int_equal(world_try_wrap(w, &req, "a.bk", "x", 1, &result), BK_OK);
    forgery_begin(&f, w, "a.bk");
    forgery_end(&f, "a.bk", both, 1);
    refused_everywhere(w, 0, BK_E_VERIFY, "signers", "one less");
}

/* A preamble that commits to another file key, signed as it stands. */
static void
the_file_key_is_the_one_committed_to(void **state)
{
    struct world *w = *state;
    struct forgery f;

    wrap_data(w, "a.bk");
    forgery_begin(&f, w, "a.bk");
    f.preamble.key_commit[5] ^= 1;
    bk_preamble_write(&f.preamble, f.bytes);
    bk_sha256(f.bytes, BK_PREAMBLE_LEN, f.manifest.preamble_digest);
    sign_as_backup(&f, "a.bk");
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P256), BK_OK);
    refused_everywhere(w, 0, BK_E_VERIFY, "commitment", "keyCommit");
}

/* The stored index is not what the frames add up to, though the manifest is right. */
static void
a_damaged_index_is_refused_as_such(void **state)
{
    struct world *w = *state;
    size_t len;
    uint8_t *bytes;
    struct forgery f;

    wrap_data(w, "a.bk");
    forgery_begin(&f, w, "a.bk");
    free(f.bytes);
    bytes = world_get(w, "a.bk", &len);
    bytes[f.layout.index_offset + 33] ^= 1;
    world_put(w, "a.bk", bytes, len);
    free(bytes);
    refused_everywhere(w, 1, BK_E_VERIFY, "index", "index");
}

/* Before the manifest stands its length, which the tail has as well. */
static void
two_lengths_of_one_manifest(void **state)
{
    struct world *w = *state;
    size_t len;
    uint8_t *bytes;
    struct forgery f;

    wrap_data(w, "a.bk");
    forgery_begin(&f, w, "a.bk");
    free(f.bytes);
    bytes = world_get(w, "a.bk", &len);
    bytes[f.layout.manifest_offset - 1] ^= 1;
    world_put(w, "a.bk", bytes, len);
    free(bytes);
    refused_everywhere(w, 1, BK_E_FORMAT, "manifest", "manifestLength");
}

/* The head's slots with one recipient more, whose wrapped key is of another archive: signed, and true but for that. */
static void
add_recipient_of_another_cek(struct forgery *f, const struct bk_public *to)
{
    struct world *w = f->w;
    uint8_t *first = f->bytes + BK_PREAMBLE_LEN;
    struct bk_slot slot;
    struct bk_envelope envelope;
    struct bk_record record;
    struct bk_secret cek = {0};
    struct bk_wrapped wrapped;
    struct bk_buf envelope_der = {0}, record_der = {0};

    assert_int_equal(bk_slot_parse(first, f->preamble.slot_size, &slot, &w->err), BK_OK);
    assert_int_equal(bk_envelope_parse(slot.envelope, slot.envelope_len, &envelope, &w->err), BK_OK);
    assert_int_equal(bk_record_parse(slot.record, slot.record_len, &record, &w->err), BK_OK);
    assert_int_equal(bk_secret_random(&cek, BK_CEK_LEN, &w->err), BK_OK);
    assert_int_equal(bk_public_wrap(to, &cek, &wrapped, &w->err), BK_OK);
    assert_int_equal(bk_envelope_add(&envelope, &wrapped, &w->err), BK_OK);
    assert_int_equal(bk_envelope_encode(&envelope, &envelope_der, &w->err), BK_OK);
    bk_sha256(envelope_der.data, envelope_der.len, record.envelope_hash);
    assert_int_equal(bk_record_encode(&record, &record_der, &w->err), BK_OK);
    bk_sha256(record_der.data, record_der.len, f->manifest.record_digest);
    slot = (struct bk_slot){1, envelope_der.data, envelope_der.len, record_der.data, record_der.len};
    assert_int_equal(bk_slot_write(&slot, first, f->preamble.slot_size, &w->err), BK_OK);
    memcpy(first + f->preamble.slot_size, first, f->preamble.slot_size);
    bk_secret_wipe(&cek);
    bk_envelope_free(&envelope);
    bk_record_free(&record);
    bk_buf_free(&envelope_der);
    bk_buf_free(&record_der);
}

/* Were it taken for proven, the one key that opens the archive would leave. */
static void
a_recipient_of_another_cek_is_no_successor(void **state)
{
    struct world *w = *state;
    struct ops_rekey_result result;
    struct forgery f;
    uint8_t *data = world_bytes(DATA_LEN);

    wrap_data(w, "a.bk");
    forgery_begin(&f, w, "a.bk");
    add_recipient_of_another_cek(&f, &w->kek[W_KEK_P384]->pub);
    sign_as_backup(&f, "a.bk");
    assert_int_equal(world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, W_KEK_P256), BK_OK);
    refused_by(w, world_unwrap(w, "a.bk", W_KEK_P384, "out", NULL), BK_E_VERIFY, "package", "its own key");
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result), BK_E_VERIFY);
    assert_non_null(strstr(w->err.message, "opens to another data key"));
    world_assert_opens(w, "a.bk", W_KEK_P256, data, DATA_LEN);
    free(data);
}

/* Genuine twice: the same archive, its manifest signed again with another label. Only the kept one is meant. */
static void
only_the_kept_manifest_is_accepted(void **state)
{
    struct world *w = *state;
    char kept[PATH_MAX];
    const struct ops_keyring ring = {.keys = &w->kek[W_KEK_P256], .key_count = 1};
    const struct ops_expect nothing = {0};
    const struct ops_unwrap with_kept = {.manifest_path = kept};
    struct ops_wrap req = {.manifest_copy = kept, .label = "nightly"};
    struct ops_wrap_result result;
    struct ops_archive archive = {0};
    struct store_source *src = NULL;
    struct forgery f;
    enum bk_code rc;

    (void)snprintf(kept, sizeof kept, "%s", world_path(w, "a.manifest"));
    assert_int_equal(world_try_wrap(w, &req, "a.bk", "x", 1, &result), BK_OK);
    forgery_begin(&f, w, "a.bk");
    strcpy(f.manifest.label, "weekly");
    sign_as_backup(&f, "a.bk");
    refused_by(w, world_unwrap(w, "a.bk", W_KEK_P256, "out", &with_kept), BK_E_UNEXPECTED, "manifest", "file");
    refused_by(w, world_unwrap_stream(w, "a.bk", &with_kept, world_path(w, "out")), BK_E_UNEXPECTED, "manifest",
               "stream");
    const struct ops_verify verify = {.archive = world_path(w, "a.bk"),
                                      .trust = &w->trust,
                                      .ring = &ring,
                                      .expect = &nothing,
                                      .manifest_path = kept,
                                      .workers = 1};
    rc = ops_verify_run(&verify, &archive, &src, &w->err);
    ops_archive_free(&archive);
    store_source_close(src);
    refused_by(w, rc, BK_E_UNEXPECTED, "manifest", "verify");
}

/* A kept manifest by somebody who is not trusted says nothing about a stream. */
static void
a_kept_manifest_is_trusted_first(void **state)
{
    static const int stranger[] = {W_STRANGER};
    struct world *w = *state;
    struct forgery f;
    char kept[PATH_MAX];
    const struct ops_unwrap with_kept = {.manifest_path = kept};
    size_t len, at;
    uint8_t *bytes;

    wrap_data(w, "a.bk");
    forgery_begin(&f, w, "a.bk");
    at = (size_t)f.layout.manifest_offset;
    forgery_end(&f, "b.bk", stranger, 1);
    bytes = world_get(w, "b.bk", &len);
    world_put(w, "a.manifest", bytes + at, len - at - BK_TAIL_LEN);
    free(bytes);
    (void)snprintf(kept, sizeof kept, "%s", world_path(w, "a.manifest"));
    refused_by(w, world_unwrap(w, "a.bk", W_KEK_P256, "out", &with_kept), BK_E_UNTRUSTED, "trust", "file");
    refused_by(w, world_unwrap_stream(w, "a.bk", &with_kept, world_path(w, "out")), BK_E_UNTRUSTED, "trust", "stream");
}

/* Anybody can make a stream that opens: who signed it is asked before its file appears. */
static void
a_stream_is_by_those_who_are_trusted(void **state)
{
    static const int untrusted[] = {W_STRANGER, W_ROTATOR};
    struct world *w = *state;

    for (size_t i = 0; i < 2; i++) {
        int who = untrusted[i];
        const struct bk_signing_key signing = {w->signer[who], w->cert[who].data, w->cert[who].len};
        struct ops_wrap req = {.signers = &signing, .signer_count = 1};
        struct ops_wrap_result result;

        assert_int_equal(world_try_wrap(w, &req, "a.bk", "x", 1, &result), BK_OK);
        refused_everywhere(w, 1, BK_E_UNTRUSTED, "trust", "manifest");
        (void)world_clean(state);
    }
}

/* A stream whose record a backup host signed, who may sign no records. */
static void
a_streams_record_is_by_a_rotator(void **state)
{
    struct world *w = *state;
    const struct bk_signing_key signing = {w->signer[W_BACKUP], w->cert[W_BACKUP].data, w->cert[W_BACKUP].len};
    struct ops_trust own = {0};
    const struct ops_rekey req = {.signers = &signing, .signer_count = 1, .trust = &own};
    struct ops_rekey_result result;

    assert_int_equal(ops_trust_add_public(&own, OPS_ROLE_BACKUP | OPS_ROLE_ROTATE, &w->signer[W_BACKUP]->pub, &w->err),
                     BK_OK);
    wrap_data(w, "a.bk");
    assert_int_equal(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 0, &req, &result), BK_OK);
    assert_true(result.changed && result.old_stays);
    ops_trust_free(&own);
    refused_everywhere(w, 1, BK_E_UNTRUSTED, "trust", "record");
}

static void
a_stream_is_what_was_expected(void **state)
{
    struct world *w = *state;
    struct ops_expect other = {.label = "weekly"}, newer = {.min_generation = 2}, known = {.min_generation = 1};
    struct ops_unwrap req = {.expect = &other};

    wrap_data(w, "a.bk");
    refused_by(w, world_unwrap_stream(w, "a.bk", &req, world_path(w, "out")), BK_E_UNEXPECTED, "expect", "label");
    req.expect = &newer;
    refused_by(w, world_unwrap_stream(w, "a.bk", &req, world_path(w, "out")), BK_E_UNEXPECTED, "expect", "generation");
    /* to whom nothing was said about freshness, that is told; and only then */
    req.expect = &known;
    w->warnings[0] = '\0';
    assert_int_equal(world_unwrap_stream(w, "a.bk", &req, world_path(w, "out")), BK_OK);
    assert_null(strstr(w->warnings, "freshness"));
    req.expect = NULL;
    req.force = 1;
    assert_int_equal(world_unwrap_stream(w, "a.bk", &req, world_path(w, "out")), BK_OK);
    assert_non_null(strstr(w->warnings, "freshness not checked"));
}

/* What needs ranges says so of a pipe, rather than call it a defect of its own. */
static void
a_stream_where_a_file_is_needed(void **state)
{
    struct world *w = *state;
    struct store_source *src = NULL;
    struct ops_archive a = {0};
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    (void)close(ends[1]);
    assert_int_equal(store_source_from_fd(ends[0], "a pipe", NULL, &src, &w->err), BK_OK);
    assert_int_equal(ops_archive_open(&a, src, &w->trust, NULL, &w->err), BK_E_USAGE);
    assert_string_equal(w->err.layer, "file");
    ops_archive_free(&a);
    store_source_close(src);
}

static void
nobodys_signature_is_not_trusted(void **state)
{
    struct world *w = *state;
    const struct bk_signed nobody = {0};

    assert_int_equal(ops_trust_check(&w->trust, ~0u, &nobody, "manifest", &w->err), BK_E_UNTRUSTED);
}

static void
an_archive_id_has_one_form(void **state)
{
    static const char *const bad[] = {
        "",
        "archive",
        "0198f0a00000700080000000000000010000", /* 36 digits */
        "0198f0a0-0000-7000-8000-00000000000",
        "0198f0a0-0000-7000-8000-0000000000011",
        "0198f0a0-0000-7000-8000-00000000000g",
        "0198f0a00000-7000-8000-0000-00000001",
        "----0198f0a0000070008000000000000001",
    };
    struct world *w = *state;
    struct ops_expect e = {0};
    char text[64];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        (void)snprintf(text, sizeof text, "archive=%s", bad[i]);
        if (ops_expect_add(&e, text, &w->err) != BK_E_USAGE)
            fail_msg("accepted: %s", text);
    }
    assert_int_equal(ops_expect_add(&e, "archive=0198F0a0-0000-7000-8000-000000000001", &w->err), BK_OK);
    assert_memory_equal(e.archive_id, "\x01\x98\xf0\xa0\x00\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\x01", 16);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, world_clean)
    const struct CMUnitTest tests[] = {
        TEST(every_field_is_compared),
        TEST(signed_anew_without_a_lie_it_opens),
        TEST(signers_are_exactly_those_of_the_key_package),
        TEST(the_file_key_is_the_one_committed_to),
        TEST(a_damaged_index_is_refused_as_such),
        TEST(two_lengths_of_one_manifest),
        TEST(a_recipient_of_another_cek_is_no_successor),
        TEST(only_the_kept_manifest_is_accepted),
        TEST(a_kept_manifest_is_trusted_first),
        TEST(a_stream_is_by_those_who_are_trusted),
        TEST(a_streams_record_is_by_a_rotator),
        TEST(a_stream_is_what_was_expected),
        TEST(a_stream_where_a_file_is_needed),
        TEST(nobodys_signature_is_not_trusted),
        TEST(an_archive_id_has_one_form),
    };

    return cmocka_run_group_tests(tests, world_make, world_free);
}
