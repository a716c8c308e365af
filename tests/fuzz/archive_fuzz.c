/*
 * Whole archives: opened from a file in memory by the steps of ops/archive.h, and restored by ops_unwrap_run from that
 * file and from a pipe. What is restored from a pipe is what is restored from the file.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/err.h>

#include "base/hash.h"
#include "cmd/bk-verify/show.h"
#include "format/payload.h"
#include "format/slot.h"
#include "ops/payload.h"
#include "ops/unwrap.h"
#include "tests/fuzz/archive_parts.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

/* What the harness writes fits in whole, so that nothing waits for it. */
#define PIPE_DEFAULT (64 * 1024)
#define PIPE_SIZE    (1024 * 1024)

/* ---- the mutator ---- */

static void
mutate_bytes(struct bk_buf *b, size_t from, size_t len)
{
    if (len > 0 && b->len >= from + len)
        (void)LLVMFuzzerMutate(b->data + from, len, len);
}

static void
mutate_der(struct bk_buf *b, struct fuzz_random *r)
{
    size_t max = b->len + 1024;
    uint8_t *room = calloc(1, max);
    struct bk_err err;
    size_t len;

    fuzz_hold(room != NULL);
    if (b->len > 0)
        memcpy(room, b->data, b->len);
    len = fuzz_mutate_der_or_bytes(room, b->len, max, r);
    b->len = 0;
    fuzz_must(bk_buf_append(b, room, len, &err), &err);
    free(room);
}

/* Frames are cut, made longer, or changed. */
static void
mutate_frames(struct bk_buf *frames, struct fuzz_random *r)
{
    uint8_t extra[64] = {0};
    struct bk_err err;

    switch (fuzz_below(r, 3)) {
    case 0:
        frames->len = fuzz_below(r, frames->len + 1);
        break;
    case 1:
        fuzz_must(bk_buf_append(frames, extra, 1 + fuzz_below(r, sizeof extra), &err), &err);
        break;
    default:
        /* the words are what is read before anything is checked */
        mutate_bytes(frames, fuzz_below(r, 2) * (BK_SEGMENT_SIZE_MIN + BK_FRAME_OVERHEAD), 4);
    }
}

/* The inner DER of a SignedData, signed again. */
static void
mutate_content(struct bk_buf *der, enum bk_content type, struct fuzz_random *r)
{
    struct bk_signed s = {0};
    struct bk_err err;

    if (bk_signed_parse(der->data, der->len, type, &s, &err) == BK_OK && s.content.len > 0) {
        mutate_der(&s.content, r);
        fuzz_sign(der, &s.content, type);
    } else {
        mutate_der(der, r);
    }
    bk_signed_free(&s);
}

/* Envelope or record of one slot or of the sidecar, with what follows from it. */
static void
mutate_slot(struct fuzz_parts *p, struct bk_buf *slot, int padded, struct fuzz_random *r)
{
    struct bk_buf envelope = {0}, record = {0};

    if (!fuzz_slot_get(slot, padded, &envelope, &record)) {
        mutate_bytes(slot, 8, 24);
        if (slot->len > 0)
            fuzz_repair_slot(slot->data, slot->len);
    } else if (fuzz_below(r, 4) == 0) {
        mutate_bytes(slot, 8, 8); /* the generation */
        fuzz_repair_slot(slot->data, slot->len);
    } else {
        if (fuzz_below(r, 2) == 0)
            mutate_der(&envelope, r);
        else
            mutate_content(&record, BK_CONTENT_KEY_RECORD, r);
        if (fuzz_below(r, 4) != 0)
            fuzz_record_follow(&envelope, &record, NULL);
        (void)fuzz_slot_put(slot, padded, &envelope, &record);
    }
    if (slot != &p->sidecar && fuzz_below(r, 2) == 0 && p->slots[0].len == p->slots[1].len && slot->len > 0)
        memcpy(p->slots[slot == &p->slots[0]].data, slot->data, slot->len);
    bk_buf_free(&envelope);
    bk_buf_free(&record);
}

static void
commit_again(struct fuzz_parts *p)
{
    struct bk_secret file_key = {0};
    struct bk_err err;
    uint8_t commit[32];

    fuzz_must(bk_secret_from(&file_key, FUZZ_FILE_KEY, sizeof FUZZ_FILE_KEY, &err), &err);
    fuzz_must(bk_key_commit(p->preamble, &file_key, commit, &err), &err);
    memcpy(p->preamble + 36, commit, sizeof commit);
    bk_secret_wipe(&file_key);
}

/* The envelope inside also stands beside the archive: the same, or soon an older or newer one. */
static void
put_beside(struct fuzz_parts *p)
{
    struct bk_buf envelope = {0}, record = {0};
    struct bk_err err;

    if (fuzz_slot_get(&p->slots[0], 1, &envelope, &record)) {
        fuzz_must(bk_buf_append(&p->sidecar, p->slots[0].data, BK_SLOT_HEADER, &err), &err);
        (void)fuzz_slot_put(&p->sidecar, 0, &envelope, &record);
    }
    bk_buf_free(&envelope);
    bk_buf_free(&record);
}

static void
mutate_part(struct fuzz_parts *p, struct fuzz_random *r)
{
    switch (fuzz_below(r, 10)) {
    case 0:
        (void)LLVMFuzzerMutate(p->preamble + 8, 60, 60);
        if (fuzz_below(r, 2) == 0)
            commit_again(p);
        fuzz_repair_preamble(p->preamble, BK_PREAMBLE_LEN);
        break;
    case 1:
        (void)LLVMFuzzerMutate(p->tail + 8, 24, 24);
        fuzz_repair_tail(p->tail, BK_TAIL_LEN);
        break;
    case 2:
        mutate_frames(&p->frames, r);
        break;
    case 3:
        mutate_bytes(&p->index, 0, p->index.len);
        break;
    case 4:
        mutate_content(&p->manifest, BK_CONTENT_MANIFEST, r);
        break;
    case 5:
        mutate_der(&p->manifest, r);
        fuzz_repair_signed(p->manifest.data, p->manifest.len);
        break;
    case 6:
        if (p->sidecar.len == 0)
            put_beside(p);
        mutate_slot(p, &p->sidecar, 0, r);
        break;
    default:
        if (p->slots[0].len > 0)
            mutate_slot(p, &p->slots[fuzz_below(r, 2)], 1, r);
        else
            mutate_slot(p, &p->sidecar, 0, r);
    }
}

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);
    struct fuzz_parts p = {0};
    size_t len = 0;

    if (fuzz_below(&r, 16) != 0 && fuzz_parts_split(&p, data, size)) {
        for (size_t n = 1 + fuzz_below(&r, 2); n > 0; n--)
            mutate_part(&p, &r);
        if (fuzz_below(&r, 2) == 0)
            fuzz_index_follow(&p);
        if (fuzz_below(&r, 4) != 0)
            fuzz_manifest_follow(&p);
        if (fuzz_below(&r, 8) != 0)
            fuzz_tail_follow(&p);
        len = fuzz_parts_join(&p, data, max_size);
    }
    fuzz_parts_free(&p);
    return len > 0 ? len : LLVMFuzzerMutate(data, size, max_size);
}

/* ---- the harness ---- */

static const struct ops_trust *
trust(void)
{
    static struct ops_trust t; /* lives as long as the process */
    struct bk_err err;

    if (t.count == 0) {
        fuzz_must(ops_trust_add_public(&t, OPS_ROLE_BACKUP, &fuzz_signer()->key->pub, &err), &err);
        fuzz_must(ops_trust_add_public(&t, OPS_ROLE_ROTATE, &fuzz_signer()->key->pub, &err), &err);
    }
    return &t;
}

static const struct ops_keyring *
ring(void)
{
    static struct bk_key *key;
    static const struct ops_keyring keys = {.keys = &key, .key_count = 1};

    key = fuzz_kek();
    return &keys;
}

/* A file in memory with these bytes, standing at its beginning. */
static int
memory_file(const uint8_t *data, size_t size)
{
    int fd = memfd_create("archive", MFD_CLOEXEC);

    fuzz_hold(fd >= 0);
    for (size_t at = 0; at < size;) {
        ssize_t n = pwrite(fd, data + at, size - at, (off_t)at);

        fuzz_hold(n > 0);
        at += (size_t)n;
    }
    return fd;
}

/* What was accepted adds up; docs/FORMAT.md section 7 and 15. */
static void
check_archive(const struct ops_archive *a, size_t size)
{
    const struct bk_layout *l = &a->layout;

    fuzz_hold(l->frames_offset + l->frames_length + 32 * l->groups + 4 + l->manifest_length + BK_TAIL_LEN == size);
    fuzz_hold(l->segments == a->manifest.segment_count && l->plaintext_length == a->manifest.plaintext_length);
    fuzz_hold(memcmp(a->manifest.archive_id, a->preamble.archive_id, BK_UUID_LEN) == 0);
    fuzz_hold(memcmp(a->record.archive_id, a->preamble.archive_id, BK_UUID_LEN) == 0);
    fuzz_hold(a->record.generation == a->slot.generation);
    fuzz_hold(memcmp(a->envelope.digest, a->manifest.envelope_digest, 32) == 0);
    fuzz_hold((a->record_signed.signer_count > 0) == (a->record.generation > 1));
}

static void
show(const struct ops_archive *a)
{
    json_t *shown = show_json(a);
    char *text;

    fuzz_hold(shown != NULL && (text = json_dumps(shown, JSON_COMPACT)) != NULL);
    fuzz_hold(strchr(text, '\n') == NULL);
    free(text);
    json_decref(shown);
}

/* The steps of ops/archive.h, with a sidecar that is given; nobody need be trusted. Returns what came of it. */
static enum bk_code
open_steps(const uint8_t *data, size_t size, const uint8_t *sidecar, size_t sidecar_len)
{
    struct ops_archive a = {.sidecar_given = 1};
    struct ops_payload whole = {.workers = 1};
    struct store_source *src = NULL;
    struct bk_err err = {0};
    enum bk_code rc;

    fuzz_must(store_source_from_fd(memory_file(data, size), "archive", NULL, &src, &err), &err);
    if (sidecar_len > 0)
        fuzz_must(bk_buf_append(&a.sidecar, sidecar, sidecar_len, &err), &err);
    if ((rc = ops_archive_open(&a, src, NULL, NULL, &err)) == BK_OK) {
        check_archive(&a, size);
        show(&a);
        rc = ops_archive_read_index(&a, &err);
    }
    if (rc == BK_OK) {
        whole.length = a.layout.plaintext_length;
        rc = ops_payload_run_file(&whole, &a, &err);
    }
    fuzz_verdict(rc, &err);
    fuzz_hold(rc == BK_OK || err.layer != NULL);
    ops_archive_free(&a);
    store_source_close(src);
    return rc;
}

/* A pipe that holds len bytes without a reader; ends are closed on exec. */
static void
make_pipe(int ends[2], size_t len)
{
    fuzz_hold(pipe2(ends, O_CLOEXEC) == 0);
    fuzz_hold(len <= PIPE_DEFAULT || fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE) >= PIPE_SIZE);
}

static void
as_standard(int fd, int standard)
{
    fuzz_hold(dup2(fd, standard) == standard && close(fd) == 0);
}

/* Restores from standard input to a pipe on standard output; *plain has what came, of an archive of that size. */
static enum bk_code
restore(int from, size_t size, struct bk_buf *plain, struct ops_unwrap_result *result, struct bk_err *err)
{
    static uint8_t came[PIPE_SIZE];
    static const struct ops_expect nothing;
    const struct ops_unwrap req = {.archive = "-",
                                   .output = "-",
                                   .workers = 1,
                                   .ring = ring(),
                                   .trust = trust(),
                                   .expect = &nothing,
                                   .allow_unverified = 1};
    struct bk_err nothing_wrong;
    size_t len = 0;
    int ends[2];
    enum bk_code rc;
    ssize_t n;

    make_pipe(ends, size);
    as_standard(from, STDIN_FILENO);
    as_standard(ends[1], STDOUT_FILENO);
    rc = ops_unwrap_run(&req, result, err);
    as_standard(open("/dev/null", O_WRONLY), STDOUT_FILENO);
    while ((n = read(ends[0], came + len, sizeof came - len)) > 0)
        len += (size_t)n;
    fuzz_hold(n == 0 && close(ends[0]) == 0);
    fuzz_must(bk_buf_append(plain, came, len, &nothing_wrong), &nothing_wrong);
    return rc;
}

static int
pipe_with(const uint8_t *data, size_t size)
{
    int ends[2];

    make_pipe(ends, size);
    fuzz_hold(size < PIPE_SIZE && (size == 0 || write(ends[1], data, size) == (ssize_t)size));
    fuzz_hold(close(ends[1]) == 0);
    return ends[0];
}

/* Codes beside those of verification that an archive can call forth: its recipients may all be others. */
static void
restore_verdict(enum bk_code rc, const struct bk_err *err)
{
    fuzz_answer(rc, err);
    fuzz_hold(rc == BK_OK || bk_code_is_verification(rc) || rc == BK_E_NO_KEY);
    fuzz_hold(rc == BK_OK || err->layer != NULL);
}

static void
restore_both_ways(const uint8_t *data, size_t size)
{
    struct bk_buf file = {0}, stream = {0};
    struct ops_unwrap_result file_result, stream_result;
    struct bk_err err = {0}, stream_err = {0};
    enum bk_code rc = restore(memory_file(data, size), size, &file, &file_result, &err);
    enum bk_code stream_rc = restore(pipe_with(data, size), size, &stream, &stream_result, &stream_err);

    restore_verdict(rc, &err);
    restore_verdict(stream_rc, &stream_err);
    fuzz_hold((rc == BK_OK) == (stream_rc == BK_OK));
    if (rc == BK_OK) {
        fuzz_hold(file.len == stream.len && (file.len == 0 || memcmp(file.data, stream.data, file.len) == 0));
        fuzz_hold(file_result.plaintext_length == file.len && stream_result.plaintext_length == file.len);
        fuzz_hold(file_result.generation == stream_result.generation);
        fuzz_accepted();
    }
    bk_buf_free(&file);
    bk_buf_free(&stream);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t sidecar_len;

    if (size < 4 || size - 4 >= PIPE_SIZE)
        return 0;
    sidecar_len = bk_get_u32(data);
    data += 4;
    size -= 4;
    if (sidecar_len > size)
        return 0;
    if (open_steps(data + sidecar_len, size - sidecar_len, data, sidecar_len) == BK_OK && sidecar_len > 0)
        fuzz_accepted();
    if (sidecar_len == 0)
        restore_both_ways(data, size);
    ERR_clear_error();
    return 0;
}
