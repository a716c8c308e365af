/* The key record's inner DER: what is taken is encoded to the same bytes, and has a successor. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "format/record.h"
#include "pkcs11/p11.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);

    return fuzz_mutate_der_or_bytes(data, size, max_size, &r);
}

static void
check_record(const struct bk_record *r)
{
    fuzz_hold(bk_uuid_is_v7(r->archive_id));
    fuzz_hold(r->generation == r->history_count + 1);
    fuzz_hold(r->proven_count <= BK_RECIPIENTS_MAX && r->order_id_len <= sizeof r->order_id);
    for (size_t i = 0; i < r->hint_count; i++) {
        fuzz_hold(bk_hint_uri_valid(r->hints[i].uri));
        fuzz_hold(!p11_uri_has_pin_value(r->hints[i].uri));
        fuzz_hold(bk_record_hint(r, &r->hints[i].id) != NULL);
    }
}

/* An envelope of one recipient; the record's own is not known here. */
static void
make_envelope(struct bk_envelope *e)
{
    struct bk_secret cek = {0};
    struct bk_wrapped w = {0};
    struct bk_err err;

    fuzz_must(bk_secret_from(&cek, FUZZ_CEK, sizeof FUZZ_CEK, &err), &err);
    fuzz_must(bk_key_wrap(fuzz_kek(), &cek, &w, &err), &err);
    fuzz_must(bk_envelope_add(e, &w, &err), &err);
    bk_secret_wipe(&cek);
}

/* The successor that a rekey would write, as far as it has room. */
static void
succeed(const struct bk_record *r, const uint8_t digest[BK_SHA256_LEN])
{
    static const uint8_t manifest_digest[BK_SHA256_LEN] = {2};
    struct bk_envelope e = {0};
    struct bk_record next = {0}, again = {0};
    struct bk_buf der = {0};
    struct bk_err err = {0};
    enum bk_code rc;

    make_envelope(&e);
    rc = bk_record_next(r, digest, &e, manifest_digest, &next, &err);
    fuzz_answer(rc, &err);
    if (rc == BK_OK) {
        fuzz_hold(next.generation == r->generation + 1 && next.history_count == r->history_count + 1);
        next.created_at = r->created_at;
        rc = bk_record_encode(&next, &der, &err);
        fuzz_answer(rc, &err);
        fuzz_hold(rc == BK_OK || rc == BK_E_NO_ROOM);
    }
    if (der.len > 0) {
        fuzz_must(bk_record_parse(der.data, der.len, &again, &err), &err);
        fuzz_hold(memcmp(again.previous, digest, BK_SHA256_LEN) == 0);
    }
    bk_buf_free(&der);
    bk_record_free(&again);
    bk_record_free(&next);
    bk_envelope_free(&e);
}

static void
check_lineage(const struct bk_record *r, const uint8_t digest[BK_SHA256_LEN])
{
    struct bk_envelope e = {0};
    struct bk_manifest m = {0};
    struct bk_err err = {0};

    make_envelope(&e);
    memcpy(m.archive_id, r->archive_id, sizeof m.archive_id);
    memcpy(m.record_digest, r->generation == 1 ? digest : r->history[0].record_digest, sizeof m.record_digest);
    fuzz_verdict(bk_record_check(r, digest, r->generation, r->envelope_hash, &e, &m, r->manifest_digest, &err), &err);
    bk_envelope_free(&e);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_record r = {0};
    struct bk_err err = {0};
    struct bk_buf again = {0};
    uint8_t *copy = fuzz_copy(data, size);
    uint8_t digest[BK_SHA256_LEN];
    enum bk_code rc = bk_record_parse(copy, size, &r, &err);

    fuzz_verdict(rc, &err);
    if (rc == BK_OK) {
        check_record(&r);
        fuzz_must(bk_record_encode(&r, &again, &err), &err);
        fuzz_hold(again.len == size && memcmp(again.data, copy, size) == 0);
        bk_sha256(copy, size, digest);
        succeed(&r, digest);
        check_lineage(&r, digest);
        fuzz_accepted();
    } else {
        fuzz_hold(r.history == NULL && r.hints == NULL);
    }
    bk_buf_free(&again);
    bk_record_free(&r);
    free(copy);
    return 0;
}
