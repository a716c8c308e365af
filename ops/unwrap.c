#include "ops/unwrap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "format/payload.h"
#include "ops/payload.h"
#include "store/command.h"
#include "store/read_all.h"
#include "store/sink.h"

struct unwrapping {
    const struct ops_unwrap *req;
    struct store_source *src;
    struct ops_archive archive;
    struct bk_key_package package;
    struct bk_payload keys;
    struct store_command *consumer;
    struct store_sink *sink;
    int have_kept_manifest;
    uint8_t kept_digest[32];
};

/* A kept copy is checked like the archive's own, and before anything else is believed. */
static enum bk_code
take_kept_manifest(struct unwrapping *u, struct bk_err *err)
{
    struct bk_buf der = {0};
    enum bk_code rc;

    if ((rc = store_read_all(u->req->manifest_path, BK_MANIFEST_MAX, &der, err)) != BK_OK)
        goto done;
    if ((rc = ops_archive_take_manifest(&u->archive, der.data, der.len, err)) != BK_OK)
        goto done;
    if ((rc = ops_archive_check_manifest(&u->archive, u->req->trust, err)) != BK_OK)
        goto done;
    u->have_kept_manifest = 1;
    memcpy(u->kept_digest, u->archive.manifest_digest, 32);
done:
    if (rc != BK_OK)
        bk_err_prefix(err, "%s", u->req->manifest_path);
    bk_buf_free(&der);
    return rc;
}

static enum bk_code
same_as_kept(const struct unwrapping *u, struct bk_err *err)
{
    if (!u->have_kept_manifest || memcmp(u->kept_digest, u->archive.manifest_digest, 32) == 0)
        return BK_OK;
    enum bk_code rc = bk_fail(err, BK_E_UNEXPECTED, "the archive's manifest is not the one that was kept");
    bk_err_layer(err, "manifest");
    return rc;
}

static enum bk_code
open_keys(struct unwrapping *u, struct ops_unwrap_result *out, struct bk_err *err)
{
    struct bk_secret cek = {0};
    enum bk_code rc = ops_keyring_open(u->req->ring, &u->archive, &cek, &u->package, &out->opened_by, err);

    bk_secret_wipe(&cek);
    if (rc != BK_OK)
        return rc;
    return bk_payload_init(&u->keys, u->archive.head, &u->package.file_key, u->archive.envelope.digest, err);
}

/* FORMAT.md, Order of checks: an archive alone cannot show that it is the newest. */
static void
warn_of_freshness(const struct unwrapping *u)
{
    if (!ops_expect_fresh(u->req->expect) && u->req->manifest_path == NULL)
        bk_warn(u->req->log,
                "%s: freshness not checked: nothing says that this is the newest copy; see --expect and "
                "--min-generation",
                store_source_name(u->src));
}

/* Everything about a file that can be known before its payload is read. */
static enum bk_code
open_file(struct unwrapping *u, struct ops_unwrap_result *out, struct bk_err *err)
{
    struct ops_archive *a = &u->archive;
    enum bk_code rc;

    if (u->req->manifest_path != NULL) {
        if ((rc = ops_archive_read_head(a, u->src, u->req->log, err)) != BK_OK)
            return rc;
        if ((rc = take_kept_manifest(u, err)) != BK_OK)
            return rc;
        ops_archive_free(a);
    }
    if ((rc = ops_archive_open(a, u->src, u->req->trust, u->req->log, err)) != BK_OK)
        return rc;
    memcpy(out->archive_id, a->preamble.archive_id, BK_UUID_LEN);
    out->generation = a->record.generation;
    if ((rc = same_as_kept(u, err)) != BK_OK)
        return rc;
    if ((rc = ops_expect_check(u->req->expect, a, err)) != BK_OK)
        return rc;
    warn_of_freshness(u);
    if ((rc = ops_archive_read_index(a, err)) != BK_OK)
        return rc;
    return open_keys(u, out, err);
}

/* FORMAT.md, Order of checks: anybody can make a stream that opens, since recipients are public. */
static enum bk_code
refuse_unverified_stream(const struct unwrapping *u, struct bk_err *err)
{
    const struct ops_unwrap *req = u->req;
    int staged = req->command == NULL && store_sink_staged(u->sink);
    enum bk_code rc;

    if (staged || u->have_kept_manifest || req->allow_unverified)
        return BK_OK;
    rc = bk_fail(err, BK_E_USAGE, "a stream's signature comes last, so its plaintext may not leave before it was seen");
    bk_err_hint(err, "restore into a file with -o FILE, or give the manifest that was kept: --manifest FILE; "
                     "--allow-unverified takes the risk");
    return rc;
}

/* The head of a stream. Without a kept manifest its origin is not known yet. */
static enum bk_code
open_stream(struct unwrapping *u, struct ops_unwrap_result *out, struct bk_err *err)
{
    struct ops_archive *a = &u->archive;
    enum bk_code rc;

    if (u->req->has_range)
        return bk_fail(err, BK_E_USAGE, "--range needs a file that can be read from any place, not a stream");
    if ((rc = ops_archive_read_head(a, u->src, u->req->log, err)) != BK_OK)
        return rc;
    memcpy(out->archive_id, a->preamble.archive_id, BK_UUID_LEN);
    if ((rc = ops_archive_read_keys(a, err)) != BK_OK)
        return rc;
    out->generation = a->record.generation;
    if (u->req->manifest_path != NULL) {
        if ((rc = take_kept_manifest(u, err)) != BK_OK)
            return rc;
        if ((rc = ops_archive_check_keys(a, u->req->trust, err)) != BK_OK)
            return rc;
        if ((rc = ops_expect_check(u->req->expect, a, err)) != BK_OK)
            return rc;
    }
    if ((rc = ops_archive_require_trust(a, u->req->trust, err)) != BK_OK)
        return rc;
    if ((rc = refuse_unverified_stream(u, err)) != BK_OK)
        return rc;
    return open_keys(u, out, err);
}

static enum bk_code
open_output(struct unwrapping *u, struct bk_err *err)
{
    const struct ops_unwrap *req = u->req;

    enum bk_code rc = store_sink_open(req->output == NULL ? "-" : req->output, req->force, req->cancel, &u->sink, err);

    if (rc == BK_OK && req->direct)
        store_sink_direct(u->sink);
    return rc;
}

static enum bk_code
start_consumer(struct unwrapping *u, struct bk_err *err)
{
    return store_command_consume(u->req->command, u->req->cancel, &u->consumer, &u->sink, err);
}

static enum bk_code
file_range(const struct unwrapping *u, struct ops_payload *p, struct bk_err *err)
{
    uint64_t total = u->archive.layout.plaintext_length;
    const struct ops_unwrap *req = u->req;

    p->offset = req->has_range ? req->offset : 0;
    if (p->offset > total || (req->has_range && req->length != UINT64_MAX && req->length > total - p->offset))
        return bk_fail(err, BK_E_USAGE, "--range: the plaintext has only %llu bytes", (unsigned long long)total);
    p->length = req->has_range && req->length != UINT64_MAX ? req->length : total - p->offset;
    return BK_OK;
}

static enum bk_code
restore_file(struct unwrapping *u, struct ops_unwrap_result *out, struct bk_err *err)
{
    struct ops_payload p = {
        .keys = &u->keys, .workers = u->req->workers, .engine = u->req->engine, .log = u->req->log, .sink = u->sink};
    enum bk_code rc = file_range(u, &p, err);

    if (rc != BK_OK)
        return rc;
    out->plaintext_length = p.length;
    if (p.length == 0 && u->req->has_range)
        return BK_OK; /* nothing was asked for; group 0 of an empty archive is still checked otherwise */
    if ((rc = store_sink_expect(u->sink, p.length, err)) != BK_OK)
        return rc;
    return ops_payload_run_file(&p, &u->archive, err);
}

/* The layer as docs/CLI.md names it to scripts, in place of the finer word of whoever refused. */
static enum bk_code
at_layer(enum bk_code rc, struct bk_err *err, const char *layer)
{
    if (rc != BK_OK)
        err->layer = layer;
    return rc;
}

/* Tail and layout of a stream, from what followed its frames: they must fit what was read. */
static enum bk_code
check_stream_tail(struct unwrapping *u, const struct bk_buf *index, const struct bk_buf *rest, uint64_t plain,
                  struct bk_err *err)
{
    struct ops_archive *a = &u->archive;
    struct bk_layout expected;
    uint64_t size;
    enum bk_code rc;

    bk_layout_make(&a->preamble, plain, 0, &expected);
    if (rest->len < index->len + 4 + BK_TAIL_LEN)
        return bk_fail(err, BK_E_INCOMPLETE, "the stream ends after the frames, before its manifest and tail");
    size = expected.index_offset + rest->len;
    if ((rc = bk_tail_parse(rest->data + rest->len - BK_TAIL_LEN, BK_TAIL_LEN, &a->tail, err)) != BK_OK)
        return rc;
    if ((rc = bk_layout_find(&a->preamble, &a->tail, size, &a->layout, err)) != BK_OK)
        return rc;
    if (a->layout.index_offset != expected.index_offset || a->layout.plaintext_length != plain)
        return bk_fail(err, BK_E_FORMAT, "tail: the frames are not where it says");
    return BK_OK;
}

static enum bk_code
check_stream_manifest(struct unwrapping *u, const uint8_t *container, struct bk_err *err)
{
    struct ops_archive *a = &u->archive;
    enum bk_code rc;

    if (bk_get_u32(container) != a->layout.manifest_length)
        return at_layer(bk_fail(err, BK_E_FORMAT, "manifest: its length and the tail's differ"), err, "manifest");
    if ((rc = ops_archive_take_manifest(a, container + 4, a->layout.manifest_length, err)) != BK_OK)
        return rc;
    if ((rc = ops_archive_check_manifest(a, u->req->trust, err)) != BK_OK)
        return rc;
    return ops_archive_check_layout(a, err);
}

/* stored is as long as the index that the frames made. */
static enum bk_code
check_stream_index(const struct unwrapping *u, const struct bk_buf *index, const uint8_t *stored, struct bk_err *err)
{
    uint8_t root[32];

    if (memcmp(stored, index->data, index->len) != 0)
        return bk_fail(err, BK_E_VERIFY, "index: it does not fit the frames");
    bk_tree_root(index->data, index->len / 32, root);
    if (memcmp(root, u->archive.manifest.payload_digest, 32) != 0)
        return bk_fail(err, BK_E_VERIFY, "index: it does not add up to the payload digest that was signed");
    return BK_OK;
}

/* What followed the frames of a stream: all that is checked of a file before its payload, in the same order. */
static enum bk_code
check_stream_end(struct unwrapping *u, const struct bk_buf *index, const struct bk_buf *rest, uint64_t plain,
                 struct bk_err *err)
{
    struct ops_archive *a = &u->archive;
    enum bk_code rc;

    if ((rc = check_stream_tail(u, index, rest, plain, err)) != BK_OK)
        return at_layer(rc, err, "tail");
    if ((rc = check_stream_manifest(u, rest->data + index->len, err)) != BK_OK)
        return rc;
    if ((rc = ops_archive_check_keys(a, u->req->trust, err)) != BK_OK)
        return rc;
    if ((rc = same_as_kept(u, err)) != BK_OK)
        return rc;
    if ((rc = ops_expect_check(u->req->expect, a, err)) != BK_OK)
        return rc;
    if ((rc = check_stream_index(u, index, rest->data, err)) != BK_OK)
        return at_layer(rc, err, "index");
    if ((rc = ops_archive_check_package(a, &u->package, err)) != BK_OK)
        return rc;
    ops_archive_warn(a);
    warn_of_freshness(u);
    return BK_OK;
}

static enum bk_code
restore_stream(struct unwrapping *u, struct ops_unwrap_result *out, struct bk_err *err)
{
    struct ops_payload p = {
        .keys = &u->keys, .workers = u->req->workers, .engine = u->req->engine, .log = u->req->log, .sink = u->sink};
    struct bk_buf index = {0}, rest = {0};
    enum bk_code rc;

    rc = ops_payload_run_stream(&p, &u->archive, &index, &rest, &out->plaintext_length, err);
    if (rc == BK_OK)
        rc = check_stream_end(u, &index, &rest, out->plaintext_length, err);
    bk_buf_free(&index);
    bk_buf_free(&rest);
    return rc;
}

static enum bk_code
write_metadata(struct unwrapping *u, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < u->package.metadata_count && rc == BK_OK; i++) {
        const struct bk_metadata_item *item = &u->package.metadata[i];

        rc = store_sink_write(u->sink, (const uint8_t *)item->key, strlen(item->key), err);
        if (rc == BK_OK)
            rc = store_sink_write(u->sink, (const uint8_t *)"=", 1, err);
        if (rc == BK_OK)
            rc = store_sink_write(u->sink, (const uint8_t *)item->value, strlen(item->value), err);
        if (rc == BK_OK)
            rc = store_sink_write(u->sink, (const uint8_t *)"\n", 1, err);
    }
    return rc;
}

static enum bk_code
restore(struct unwrapping *u, struct ops_unwrap_result *out, struct bk_err *err)
{
    int seekable = store_source_seekable(u->src);
    enum bk_code rc;

    if (u->req->meta_only && !seekable)
        return bk_fail(err, BK_E_USAGE, "--meta needs a file, whose manifest can be checked first, not a stream");
    if (u->req->command == NULL && (rc = open_output(u, err)) != BK_OK)
        return rc;
    rc = seekable ? open_file(u, out, err) : open_stream(u, out, err);
    if (rc == BK_OK && u->req->command != NULL)
        rc = start_consumer(u, err);
    if (rc != BK_OK)
        return rc;
    if (u->req->meta_only)
        return write_metadata(u, err);
    return seekable ? restore_file(u, out, err) : restore_stream(u, out, err);
}

/* All went well: only now does a consumer see the end of its input, or a file its name. */
static enum bk_code
conclude(struct unwrapping *u, struct bk_err *err)
{
    struct store_sink *sink = u->sink;
    struct store_command *consumer = u->consumer;
    enum bk_code rc;

    u->sink = NULL;
    if ((rc = store_sink_publish(sink, err)) != BK_OK)
        return rc;
    u->consumer = NULL;
    if (consumer != NULL && (rc = store_command_finish(consumer, err)) != BK_OK)
        bk_err_layer(err, "consumer");
    return rc;
}

/* A consumer that stopped reading has usually said why by its exit status. Nobody holds the reading end any more, so
 * nobody can take for the end of the input that the guard goes here. */
static enum bk_code
blame_consumer(struct unwrapping *u, enum bk_code rc, struct bk_err *err)
{
    struct store_command *consumer = u->consumer;
    struct bk_err own = {0};
    char name[256];

    if (consumer == NULL || err->os_errno != EPIPE)
        return rc;
    (void)snprintf(name, sizeof name, "%s", store_command_name(consumer));
    u->consumer = NULL;
    if ((rc = store_command_finish(consumer, &own)) != BK_OK)
        *err = own;
    else
        rc = bk_fail(err, BK_E_COMMAND, "%s: stopped reading before the end of the plaintext", name);
    bk_err_layer(err, "consumer");
    return rc;
}

enum bk_code
ops_unwrap_run(const struct ops_unwrap *req, struct ops_unwrap_result *out, struct bk_err *err)
{
    struct unwrapping u = {.req = req};
    enum bk_code rc;

    *out = (struct ops_unwrap_result){0};
    if ((rc = store_source_open(req->archive, req->cancel, &u.src, err)) != BK_OK) {
        bk_err_layer(err, "file");
        goto done;
    }
    if (req->direct)
        store_source_direct(u.src);
    if ((rc = restore(&u, out, err)) == BK_OK)
        rc = conclude(&u, err);
    else
        rc = blame_consumer(&u, rc, err);
done:
    store_command_kill(u.consumer); /* before its pipe is closed */
    store_sink_discard(u.sink);
    bk_payload_wipe(&u.keys);
    bk_key_package_free(&u.package);
    ops_archive_free(&u.archive);
    store_source_close(u.src);
    return rc;
}
