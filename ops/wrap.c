#include "ops/wrap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/pipeline.h"
#include "format/payload.h"
#include "format/record.h"
#include "format/slot.h"
#include "format/tail.h"
#include "ops/archive.h"
#include "ops/sidecar.h"
#include "store/command.h"
#include "store/name.h"
#include "store/sink.h"

/* RSA and EC recipients that are stored today may be opened by a quantum computer later. */
#define HARVEST_YEAR_START 2082758400 /* 2036-01-01T00:00:00Z */

struct wrapping {
    const struct ops_wrap *req;
    struct store_command *producer;
    struct store_source *in;
    struct store_sink *out;
    struct store_sink *copy;
    struct store_sink *keys_out; /* the sidecar's, if the envelope is detached */
    struct bk_buf sidecar;

    struct bk_preamble preamble;
    uint8_t *head;
    size_t head_len;
    struct bk_payload keys;
    struct bk_manifest manifest;

    struct bk_cipher *ciphers;
    struct bk_buf index;
    uint64_t plaintext_length;
    uint64_t input_length; /* 0: unknown */
    int empty;             /* the input was, and that was not allowed */
    uint8_t manifest_digest[32];
};

static void
take_keys(const struct ops_wrap *req)
{
    if (req->keys != NULL)
        pthread_mutex_lock(req->keys);
}

static void
give_keys(const struct ops_wrap *req)
{
    if (req->keys != NULL)
        pthread_mutex_unlock(req->keys);
}

/* Public halves need no token, and wait for none. */
static enum bk_code
wrap_to(const struct ops_wrap *req, const struct ops_recipient *r, const struct bk_secret *cek, struct bk_wrapped *out,
        struct bk_err *err)
{
    enum bk_code rc;

    if (r->key != NULL)
        take_keys(req);
    rc = ops_recipient_wrap(r, cek, out, err);
    if (r->key != NULL)
        give_keys(req);
    return rc;
}

static enum bk_code
wrap_recipients(const struct ops_wrap *req, const struct bk_secret *cek, struct bk_envelope *envelope,
                struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < req->recipients->count && rc == BK_OK; i++) {
        struct bk_wrapped wrapped = {0};

        rc = wrap_to(req, &req->recipients->items[i], cek, &wrapped, err);
        if (rc == BK_OK)
            rc = bk_envelope_add(envelope, &wrapped, err);
    }
    return rc;
}

static enum bk_code
fill_package(const struct wrapping *w, struct bk_key_package *package, struct bk_err *err)
{
    const struct ops_wrap *req = w->req;
    enum bk_code rc;

    memcpy(package->archive_id, w->preamble.archive_id, BK_UUID_LEN);
    for (size_t i = 0; i < req->signer_count; i++)
        package->signers[i] = req->signers[i].key->pub.id;
    package->signer_count = req->signer_count;
    if (req->metadata_count > 0) {
        package->metadata = calloc(req->metadata_count, sizeof *package->metadata);
        if (package->metadata == NULL)
            return bk_fail_nomem(err);
        memcpy(package->metadata, req->metadata, req->metadata_count * sizeof *package->metadata);
        package->metadata_count = req->metadata_count;
    }
    rc = bk_secret_random(&package->file_key, BK_FILE_KEY_LEN, err);
    return rc;
}

static enum bk_code
make_record(const struct wrapping *w, const struct bk_buf *envelope_der, struct bk_buf *der, struct bk_err *err)
{
    struct bk_record record = {.generation = 1, .created_at = w->manifest.created_at};
    enum bk_code rc = BK_OK;

    memcpy(record.archive_id, w->preamble.archive_id, BK_UUID_LEN);
    bk_sha256(envelope_der->data, envelope_der->len, record.envelope_hash);
    for (size_t i = 0; i < w->req->recipients->count && rc == BK_OK; i++) {
        const struct bk_public *pub = &w->req->recipients->items[i].pub;

        rc = bk_record_add_hint(&record, &pub->id, pub->uri, err);
    }
    if (rc == BK_OK)
        rc = bk_record_encode(&record, der, err);
    bk_record_free(&record);
    return rc;
}

static enum bk_code
size_slots(struct wrapping *w, const struct bk_slot *slot, struct bk_err *err)
{
    if (w->req->detach) {
        w->preamble.flags = BK_FLAG_DETACHED;
        return bk_slot_write_sidecar(slot, &w->sidecar, err);
    }
    w->preamble.slot_size = bk_slot_size_for(slot->envelope_len, slot->record_len);
    if (w->preamble.slot_size == 0)
        return bk_fail(err, BK_E_USAGE, "the recipients and their metadata do not fit into a key slot of 1 MiB");
    return BK_OK;
}

static enum bk_code
write_slots(struct wrapping *w, const struct bk_slot *slot, struct bk_err *err)
{
    uint8_t *first = w->head + BK_PREAMBLE_LEN;
    enum bk_code rc;

    if (w->req->detach)
        return BK_OK;
    if ((rc = bk_slot_write(slot, first, w->preamble.slot_size, err)) == BK_OK)
        memcpy(first + w->preamble.slot_size, first, w->preamble.slot_size);
    return rc;
}

/* The preamble's first 36 bytes are bound into the commitment and the payload keys, so they are written first. */
static enum bk_code
make_head(struct wrapping *w, const struct bk_key_package *package, const struct bk_slot *slot,
          const uint8_t envelope_digest[32], struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = size_slots(w, slot, err)) != BK_OK)
        return rc;
    w->head_len = (size_t)bk_preamble_head_length(&w->preamble);
    if ((w->head = calloc(1, w->head_len)) == NULL)
        return bk_fail_nomem(err);
    bk_preamble_write(&w->preamble, w->head);
    if ((rc = bk_key_commit(w->head, &package->file_key, w->preamble.key_commit, err)) != BK_OK)
        return rc;
    bk_preamble_write(&w->preamble, w->head);
    bk_sha256(w->head, BK_PREAMBLE_LEN, w->manifest.preamble_digest);
    if ((rc = write_slots(w, slot, err)) != BK_OK)
        return rc;
    return bk_payload_init(&w->keys, w->head, &package->file_key, envelope_digest, err);
}

static enum bk_code
make_keys(struct wrapping *w, struct bk_err *err)
{
    struct bk_secret cek = {0};
    struct bk_key_package package = {0};
    struct bk_envelope envelope = {0};
    struct bk_buf envelope_der = {0}, record_der = {0};
    struct bk_slot slot = {.generation = 1};
    enum bk_code rc;

    if ((rc = bk_uuid_v7(w->preamble.archive_id, err)) != BK_OK)
        goto done;
    if ((rc = bk_secret_random(&cek, BK_CEK_LEN, err)) != BK_OK)
        goto done;
    if ((rc = fill_package(w, &package, err)) != BK_OK)
        goto done;
    if ((rc = bk_key_package_seal(&package, &cek, &envelope, err)) != BK_OK)
        goto done;
    if ((rc = wrap_recipients(w->req, &cek, &envelope, err)) != BK_OK)
        goto done;
    if ((rc = bk_envelope_encode(&envelope, &envelope_der, err)) != BK_OK)
        goto done;
    if ((rc = make_record(w, &envelope_der, &record_der, err)) != BK_OK)
        goto done;
    slot.envelope = envelope_der.data;
    slot.envelope_len = envelope_der.len;
    slot.record = record_der.data;
    slot.record_len = record_der.len;
    memcpy(w->manifest.archive_id, w->preamble.archive_id, BK_UUID_LEN);
    memcpy(w->manifest.envelope_digest, envelope.digest, 32);
    bk_sha256(record_der.data, record_der.len, w->manifest.record_digest);
    rc = make_head(w, &package, &slot, envelope.digest, err);
done:
    bk_secret_wipe(&cek);
    bk_key_package_free(&package);
    bk_envelope_free(&envelope);
    bk_buf_free(&envelope_der);
    bk_buf_free(&record_der);
    return rc;
}

static enum bk_code
open_input(struct wrapping *w, struct bk_err *err)
{
    const struct ops_wrap *req = w->req;
    enum bk_code rc;

    if (req->command != NULL)
        return store_command_produce(req->command, req->cancel, &w->producer, &w->in, err);
    rc = store_source_open(req->input == NULL ? "-" : req->input, req->cancel, &w->in, err);
    if (rc == BK_OK && store_source_seekable(w->in))
        rc = store_source_size(w->in, &w->input_length, err);
    if (rc != BK_OK)
        return rc;
    store_source_sequential(w->in);
    if (req->direct)
        store_source_direct(w->in);
    return BK_OK;
}

static enum bk_code
wrap_read(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct wrapping *w = ctx;
    size_t group = (size_t)w->preamble.segment_size * BK_GROUP_SEGMENTS;
    enum bk_code rc = store_source_read(w->in, job->in, group, &job->in_len, err);

    if (rc != BK_OK)
        return rc;
    if (job->in_len == 0 && job->number > 0)
        return bk_fail(err, BK_E_IO, "%s: became shorter while it was read", store_source_name(w->in));
    /* a full group is the last one exactly if nothing follows */
    job->last = job->in_len < group;
    return job->last ? BK_OK : store_source_ended(w->in, &job->last, err);
}

static enum bk_code
wrap_work(void *ctx, size_t worker, struct bk_job *job, struct bk_err *err)
{
    struct wrapping *w = ctx;
    size_t group = (size_t)w->preamble.segment_size * BK_GROUP_SEGMENTS;

    job->out_at =
        store_sink_skew(w->out, w->head_len + job->number * bk_frames_length(w->preamble.segment_size, group));
    return bk_group_seal(&w->keys, &w->ciphers[worker], job->number * BK_GROUP_SEGMENTS, job->last, job->in,
                         job->in_len, job->out + job->out_at, &job->out_len, job->digest, err);
}

static enum bk_code
wrap_write(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct wrapping *w = ctx;
    enum bk_code rc;

    if (job->in_len == 0 && !w->req->allow_empty) {
        w->empty = 1;
        rc = bk_fail(err, BK_E_IO, "the input is empty, and an empty backup restores nothing");
        bk_err_hint(err, "if it is meant to be empty: --allow-empty");
        return rc;
    }
    if ((rc = bk_buf_append(&w->index, job->digest, 32, err)) != BK_OK)
        return rc;
    w->plaintext_length += job->in_len;
    bk_progress(w->req->log, w->plaintext_length, w->input_length);
    return store_sink_write(w->out, job->out + job->out_at, job->out_len, err);
}

static void
wrap_interrupt(void *ctx)
{
    store_source_interrupt(((struct wrapping *)ctx)->in);
}

static enum bk_code
seal_payload(struct wrapping *w, struct bk_err *err)
{
    size_t group = (size_t)w->preamble.segment_size * BK_GROUP_SEGMENTS;
    struct bk_pipeline pipe = {.ctx = w,
                               .workers = w->req->workers,
                               .jobs = w->input_length == 0 ? 0 : w->input_length / group + 1,
                               .in_size = group,
                               .out_size = (size_t)bk_frames_length(w->preamble.segment_size, group) + STORE_SLACK,
                               .read = wrap_read,
                               .work = wrap_work,
                               .write = wrap_write,
                               .interrupt = wrap_interrupt};
    enum bk_code rc;

    if ((w->ciphers = calloc(pipe.workers, sizeof *w->ciphers)) == NULL)
        return bk_fail_nomem(err);
    for (size_t i = 0; i < pipe.workers; i++)
        w->ciphers[i].engine = w->req->engine;
    rc = bk_pipeline_run(&pipe, err);
    for (size_t i = 0; i < pipe.workers; i++)
        bk_cipher_free(&w->ciphers[i]);
    free(w->ciphers);
    return rc;
}

/* A producer's failure says more than the empty data that it left. */
static enum bk_code
finish_input(struct wrapping *w, enum bk_code rc, struct bk_err *err)
{
    struct bk_err producer = {0};
    struct store_command *command = w->producer;

    if (command == NULL || (rc != BK_OK && !w->empty))
        return rc; /* a producer that still runs is killed on release */
    w->producer = NULL;
    store_source_close(w->in);
    w->in = NULL;
    if (store_command_finish(command, &producer) != BK_OK) {
        *err = producer;
        bk_err_layer(err, "producer");
        return producer.code;
    }
    return rc;
}

static enum bk_code
write_index_and_manifest(struct wrapping *w, struct bk_layout *layout, struct bk_buf *signed_der, struct bk_err *err)
{
    struct bk_manifest *m = &w->manifest;
    struct bk_buf der = {0};
    uint8_t prefix[4];
    enum bk_code rc;

    bk_layout_make(&w->preamble, w->plaintext_length, 0, layout);
    m->segment_count = layout->segments;
    m->plaintext_length = w->plaintext_length;
    bk_tree_root(w->index.data, w->index.len / 32, m->payload_digest);
    if ((rc = bk_manifest_encode(m, &der, err)) != BK_OK)
        goto done;
    bk_sha256(der.data, der.len, w->manifest_digest);
    take_keys(w->req);
    rc = bk_signed_make(der.data, der.len, BK_CONTENT_MANIFEST, w->req->signers, w->req->signer_count, bk_time_now(),
                        signed_der, err);
    give_keys(w->req);
    if (rc != BK_OK)
        goto done;
    bk_layout_make(&w->preamble, w->plaintext_length, (uint32_t)signed_der->len, layout);
    bk_put_u32(prefix, (uint32_t)signed_der->len);
    if ((rc = store_sink_write(w->out, w->index.data, w->index.len, err)) != BK_OK)
        goto done;
    if ((rc = store_sink_write(w->out, prefix, sizeof prefix, err)) != BK_OK)
        goto done;
    rc = store_sink_write(w->out, signed_der->data, signed_der->len, err);
done:
    bk_buf_free(&der);
    return rc;
}

static enum bk_code
write_end(struct wrapping *w, struct bk_err *err)
{
    struct bk_layout layout;
    struct bk_tail tail;
    struct bk_buf signed_der = {0};
    uint8_t bytes[BK_TAIL_LEN];
    enum bk_code rc;

    if ((rc = write_index_and_manifest(w, &layout, &signed_der, err)) != BK_OK)
        goto done;
    tail.index_offset = layout.index_offset;
    tail.manifest_length = layout.manifest_length;
    tail.total_length = layout.manifest_offset + layout.manifest_length + BK_TAIL_LEN;
    bk_tail_write(&tail, bytes);
    if ((rc = store_sink_write(w->out, bytes, sizeof bytes, err)) != BK_OK)
        goto done;
    if (w->copy != NULL)
        rc = store_sink_write(w->copy, signed_der.data, signed_der.len, err);
done:
    bk_buf_free(&signed_der);
    return rc;
}

/* What was written is read back as a reader would, trusting only who was to sign it. */
static enum bk_code
check_staged(struct wrapping *w, struct bk_err *err)
{
    struct ops_archive a = {0};
    struct ops_trust trust = {0};
    struct store_source *src = NULL;
    enum bk_code rc = BK_OK;

    if (!store_sink_staged(w->out))
        return BK_OK;
    a.sidecar_given = 1;
    if (w->sidecar.len > 0)
        rc = bk_buf_append(&a.sidecar, w->sidecar.data, w->sidecar.len, err);
    for (size_t i = 0; i < w->req->signer_count && rc == BK_OK; i++)
        rc = ops_trust_add_public(&trust, OPS_ROLE_BACKUP, &w->req->signers[i].key->pub, err);
    if (rc == BK_OK)
        rc = store_sink_as_source(w->out, &src, err);
    if (rc == BK_OK)
        rc = ops_archive_open(&a, src, &trust, w->req->log, err);
    if (rc == BK_OK)
        rc = ops_archive_read_index(&a, err);
    if (rc == BK_OK && memcmp(a.manifest_digest, w->manifest_digest, 32) != 0)
        rc = bk_fail(err, BK_E_VERIFY, "the manifest is not the one that was written");
    if (rc != BK_OK)
        bk_err_prefix(err, "reading back what was written");
    ops_archive_free(&a);
    store_source_close(src);
    ops_trust_free(&trust);
    return rc;
}

/*
 * An envelope without its archive is of no use, and would be in the way of the next try. But publishing can fail with
 * the archive in place already (its folder could not be synced), and then the envelope stays as well; and what somebody
 * else put there meanwhile is not ours to remove.
 */
static void
withdraw_sidecar(const struct wrapping *w)
{
    struct bk_err err = {0};
    struct bk_buf there = {0};
    char *path = NULL;
    int archive_there = 0, sidecar_there = 0;
    enum bk_code rc = store_name_exists(w->req->output, &archive_there, &err);

    if (rc == BK_OK && !archive_there)
        rc = ops_sidecar_read(w->req->output, &there, &sidecar_there, &err);
    if (rc == BK_OK && sidecar_there && there.len == w->sidecar.len &&
        memcmp(there.data, w->sidecar.data, there.len) == 0) {
        rc = ops_sidecar_path(w->req->output, &path, &err);
        if (rc == BK_OK)
            rc = store_name_remove(path, &err);
    }
    if (rc != BK_OK)
        bk_warn(w->req->log, "a sidecar without its archive may be left: %s", err.message);
    bk_buf_free(&there);
    free(path);
}

/* The sidecar first: an archive never stands there without its envelope. */
static enum bk_code
publish_archive(struct wrapping *w, struct bk_err *err)
{
    struct store_sink *out = w->out, *keys_out = w->keys_out;
    enum bk_code rc = BK_OK;

    w->keys_out = NULL;
    if (keys_out != NULL)
        rc = store_sink_publish(keys_out, err);
    if (rc == BK_OK) {
        w->out = NULL;
        rc = store_sink_publish(out, err);
    }
    if (rc != BK_OK && keys_out != NULL)
        withdraw_sidecar(w);
    return rc;
}

static enum bk_code
publish(struct wrapping *w, struct bk_err *err)
{
    struct store_sink *copy = w->copy;
    enum bk_code rc = publish_archive(w, err);

    if (rc != BK_OK)
        return rc;
    w->copy = NULL;
    if (copy != NULL && (rc = store_sink_publish(copy, err)) != BK_OK)
        bk_err_prefix(err, "the archive is complete, but not the copy of its manifest");
    return rc;
}

/* The copy is published last: it would replace the archive, or be taken for its sidecar. */
static enum bk_code
refuse_one_name_for_two(const struct ops_wrap *req, struct bk_err *err)
{
    size_t len = strlen(req->output);
    const char *copy = req->manifest_copy;

    if (copy == NULL || strncmp(copy, req->output, len) != 0)
        return BK_OK;
    if (copy[len] != '\0' && strcmp(copy + len, OPS_SIDECAR_SUFFIX) != 0)
        return BK_OK;
    return bk_fail(err, BK_E_USAGE, "--manifest %s: that is the archive's own name, or its sidecar's", copy);
}

static enum bk_code
open_outputs(struct wrapping *w, struct bk_err *err)
{
    const struct ops_wrap *req = w->req;
    enum bk_code rc = refuse_one_name_for_two(req, err);

    if (rc == BK_OK)
        rc = ops_sidecar_prepare(req->output, req->detach, req->force, req->cancel, &w->keys_out, err);
    if (rc == BK_OK)
        rc = store_sink_open(req->output, req->force && !req->detach, req->cancel, &w->out, err);
    if (rc == BK_OK && req->direct)
        store_sink_direct(w->out);
    if (rc == BK_OK && req->manifest_copy != NULL)
        rc = store_sink_open(req->manifest_copy, req->force, req->cancel, &w->copy, err);
    if (rc == BK_OK && w->keys_out != NULL)
        rc = store_sink_write(w->keys_out, w->sidecar.data, w->sidecar.len, err);
    return rc;
}

/* A KEK for blind rotation alone restores nothing. */
static enum bk_code
check_restorable(const struct ops_wrap *req, struct bk_err *err)
{
    enum bk_code rc;

    for (size_t i = 0; i < req->recipients->count; i++)
        if (!req->recipients->items[i].pub.sealed)
            return BK_OK;
    rc = bk_fail(err, BK_E_POLICY,
                 "no recipient could restore this: what keys for rotation alone open stays in their token");
    bk_err_hint(err, "name a key to restore with as another recipient (-r), on another token");
    return rc;
}

static void
warn_before(const struct ops_wrap *req)
{
    int harvestable = 0;

    if (req->recipients->count == 1)
        bk_warn(req->log,
                "only one recipient: if its token is lost, so are the backups; add a second -r, kept elsewhere");
    for (size_t i = 0; i < req->recipients->count; i++)
        harvestable |= req->recipients->items[i].pub.type != BK_KEY_AES256;
    if (harvestable && req->has_retain_until && req->retain_until >= HARVEST_YEAR_START)
        bk_warn(req->log, "kept beyond 2035: RSA and EC recipients stored today may be opened by a quantum computer "
                          "later, and no rotation heals that; AES recipients are safe");
}

/* Head, frames and index; the manifest and the tail are small. */
static uint64_t
expected_length(const struct wrapping *w)
{
    uint64_t group = (uint64_t)w->preamble.segment_size * BK_GROUP_SEGMENTS;

    return w->head_len + bk_frames_length(w->preamble.segment_size, w->input_length) +
           (w->input_length / group + 1) * BK_SHA256_LEN;
}

static enum bk_code
wrap_payload(struct wrapping *w, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = open_input(w, err)) != BK_OK)
        return rc;
    if (w->input_length > 0)
        rc = store_sink_expect(w->out, expected_length(w), err);
    if (rc == BK_OK)
        rc = store_sink_write(w->out, w->head, w->head_len, err);
    if (rc == BK_OK)
        rc = seal_payload(w, err);
    return finish_input(w, rc, err);
}

static void
wrapping_release(struct wrapping *w)
{
    store_command_kill(w->producer);
    store_source_close(w->in);
    store_sink_discard(w->out);
    store_sink_discard(w->copy);
    store_sink_discard(w->keys_out);
    bk_buf_free(&w->sidecar);
    bk_payload_wipe(&w->keys);
    bk_buf_free(&w->index);
    free(w->head);
}

static void
fill_manifest(struct wrapping *w)
{
    const struct ops_wrap *req = w->req;
    struct bk_manifest *m = &w->manifest;

    m->created_at = bk_time_now();
    m->kind = req->kind;
    m->has_retain_until = req->has_retain_until;
    m->retain_until = req->retain_until;
    m->has_parent = req->has_parent;
    m->parent = req->parent;
    memcpy(m->label, req->label, sizeof m->label);
    memcpy(m->sequence, req->sequence, sizeof m->sequence);
    /* it stands in the manifest, which is only signed once the producer has exited 0 */
    if (req->command != NULL) {
        const char *slash = strrchr(req->command[0], '/');

        (void)snprintf(m->producer, sizeof m->producer, "%s", slash == NULL ? req->command[0] : slash + 1);
    }
}

/* The manifest is encoded once before the payload, so that a field that cannot be is refused before the long work. */
static enum bk_code
check_manifest_fields(const struct wrapping *w, struct bk_err *err)
{
    struct bk_manifest trial = w->manifest;
    struct bk_buf der = {0};
    enum bk_code rc;

    trial.segment_count = 1;
    rc = bk_manifest_encode(&trial, &der, err);
    bk_buf_free(&der);
    return rc;
}

enum bk_code
ops_wrap_run(const struct ops_wrap *req, struct ops_wrap_result *out, struct bk_err *err)
{
    struct wrapping w = {.req = req};
    enum bk_code rc;

    w.preamble.segment_size = req->segment_size == 0 ? BK_SEGMENT_SIZE_DEFAULT : req->segment_size;
    if ((rc = check_restorable(req, err)) != BK_OK)
        return rc;
    if (!req->again)
        warn_before(req);
    fill_manifest(&w);
    if ((rc = make_keys(&w, err)) != BK_OK)
        goto done;
    if ((rc = check_manifest_fields(&w, err)) != BK_OK)
        goto done;
    if ((rc = open_outputs(&w, err)) != BK_OK)
        goto done;
    if ((rc = wrap_payload(&w, err)) != BK_OK)
        goto done;
    if (req->sealed != NULL)
        req->sealed(req->ctx);
    if ((rc = write_end(&w, err)) != BK_OK)
        goto done;
    out->archive_length = store_sink_bytes_written(w.out);
    if ((rc = check_staged(&w, err)) != BK_OK)
        goto done;
    memcpy(out->archive_id, w.preamble.archive_id, BK_UUID_LEN);
    memcpy(out->manifest_digest, w.manifest_digest, 32);
    out->plaintext_length = w.plaintext_length;
    rc = publish(&w, err);
done:
    wrapping_release(&w);
    return rc;
}

enum bk_code
ops_wrap_parent(const char *path, struct bk_parent *out, struct bk_err *err)
{
    struct ops_archive a = {0};
    struct store_source *src = NULL;
    enum bk_code rc;

    if ((rc = store_source_open(path, NULL, &src, err)) != BK_OK)
        goto done;
    if ((rc = ops_archive_open(&a, src, NULL, NULL, err)) != BK_OK)
        goto done;
    memcpy(out->archive_id, a.manifest.archive_id, BK_UUID_LEN);
    memcpy(out->manifest_digest, a.manifest_digest, 32);
done:
    if (rc != BK_OK)
        bk_err_prefix(err, "parent %s", path);
    ops_archive_free(&a);
    store_source_close(src);
    return rc;
}
