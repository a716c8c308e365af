/* The manifest's inner DER: what is taken is encoded to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "format/manifest.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);

    return fuzz_mutate_der_or_bytes(data, size, max_size, &r);
}

static void
check_manifest(const struct bk_manifest *m)
{
    fuzz_hold(bk_uuid_is_v7(m->archive_id));
    fuzz_hold(m->segment_count >= 1 && m->segment_count <= 1ull << 32);
    fuzz_hold(strcmp(bk_kind_name(m->kind), "unknown") != 0);
    fuzz_hold(!m->has_retain_until || m->retain_until >= m->created_at);
    fuzz_hold(!m->has_parent || memcmp(m->parent.archive_id, m->archive_id, BK_UUID_LEN) != 0);
    fuzz_hold(!m->has_supersedes || memcmp(m->supersedes.archive_id, m->archive_id, BK_UUID_LEN) != 0);
    fuzz_hold(m->label[0] == '\0' || bk_text_valid(m->label, strlen(m->label)));
    fuzz_hold(m->producer[0] == '\0' || bk_text_valid(m->producer, strlen(m->producer)));
    fuzz_hold(m->kind != BK_KIND_WAL || strstr(m->sequence, "system=") != NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_manifest m = {0};
    struct bk_err err = {0};
    struct bk_buf again = {0};
    uint8_t *copy = fuzz_copy(data, size);
    enum bk_code rc = bk_manifest_parse(copy, size, &m, &err);

    fuzz_verdict(rc, &err);
    if (rc == BK_OK) {
        check_manifest(&m);
        fuzz_must(bk_manifest_encode(&m, &again, &err), &err);
        fuzz_hold(again.len == size && memcmp(again.data, copy, size) == 0);
        fuzz_accepted();
    }
    bk_buf_free(&again);
    free(copy);
    return 0;
}
