#include "ops/payload.h"

#include <stdlib.h>
#include <string.h>

#include "base/pipeline.h"

struct run {
    const struct ops_payload *p;
    struct store_source *src;
    uint32_t segment_size;
    struct bk_cipher *ciphers; /* one a worker */

    /* a file */
    const struct ops_archive *archive;
    uint64_t first_group;
    uint64_t end_group;

    /* a stream */
    struct bk_buf *index;
    struct bk_buf *rest;
    uint64_t plaintext_length;

    uint64_t done;
};

static size_t
frame_size(const struct run *r)
{
    return (size_t)r->segment_size + BK_FRAME_OVERHEAD;
}

static uint64_t
group_plain(const struct run *r)
{
    return (uint64_t)r->segment_size * BK_GROUP_SEGMENTS;
}

static uint64_t
group_stored(const struct run *r)
{
    return (uint64_t)frame_size(r) * BK_GROUP_SEGMENTS;
}

/* Checks and, if there are keys, opens one group; its subtree root ends up in job->digest. */
static enum bk_code
work_group(struct run *r, size_t worker, uint64_t group, struct bk_job *job, struct bk_err *err)
{
    uint64_t first = group * BK_GROUP_SEGMENTS;

    if (r->p->keys == NULL)
        return bk_group_root(&r->ciphers[worker], r->segment_size, first, job->last, job->in + job->in_at, job->in_len,
                             job->digest, err);
    return bk_group_open(r->p->keys, &r->ciphers[worker], first, job->last, job->in + job->in_at, job->in_len, job->out,
                         &job->out_len, job->digest, err);
}

static void
count_progress(struct run *r, const struct bk_job *job)
{
    r->done += job->in_len;
    bk_progress(r->p->log, r->done, r->archive == NULL ? 0 : r->archive->layout.frames_length);
}

static enum bk_code
run_pipeline(struct run *r, struct bk_pipeline *pipe, struct bk_err *err)
{
    enum bk_code rc;

    pipe->ctx = r;
    pipe->workers = r->p->workers;
    pipe->jobs = r->end_group - r->first_group; /* of a stream both are 0: not known */
    pipe->in_size = (size_t)group_stored(r) + STORE_SLACK;
    pipe->out_size = r->p->keys == NULL ? 0 : (size_t)group_plain(r);
    if ((r->ciphers = calloc(pipe->workers, sizeof *r->ciphers)) == NULL)
        return bk_fail_nomem(err);
    for (size_t i = 0; i < pipe->workers; i++)
        r->ciphers[i].engine = r->p->engine;
    rc = bk_pipeline_run(pipe, err);
    for (size_t i = 0; i < pipe->workers; i++)
        bk_cipher_free(&r->ciphers[i]);
    free(r->ciphers);
    return rc;
}

static enum bk_code
file_read(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct run *r = ctx;
    const struct bk_layout *layout = &r->archive->layout;
    uint64_t group = r->first_group + job->number;
    uint64_t at = group * group_stored(r);
    uint64_t left = layout->frames_length - at;
    enum bk_code rc;

    job->in_len = left < group_stored(r) ? (size_t)left : (size_t)group_stored(r);
    job->last = group + 1 == r->end_group;
    rc = store_source_read_around(r->src, layout->frames_offset + at, job->in, &job->in_at, job->in_len, err);
    if (rc != BK_OK)
        bk_err_layer(err, "file");
    return rc;
}

/* job->last ends the run, which may be a range: only the archive's own last group has a last frame. */
static enum bk_code
file_work(void *ctx, size_t worker, struct bk_job *job, struct bk_err *err)
{
    struct run *r = ctx;
    uint64_t group = r->first_group + job->number;
    int ends_run = job->last;
    enum bk_code rc;

    job->last = group + 1 == r->archive->layout.groups;
    rc = work_group(r, worker, group, job, err);
    job->last = ends_run;
    if (rc == BK_OK && memcmp(job->digest, r->archive->index + group * 32, 32) != 0)
        rc = bk_fail(err, BK_E_VERIFY, "the frames are not those that were signed");
    if (rc != BK_OK) {
        bk_err_prefix(err, "group %llu (plaintext from byte %llu)", (unsigned long long)group,
                      (unsigned long long)(group * group_plain(r)));
        bk_err_layer(err, "frames");
    }
    return rc;
}

static enum bk_code
file_write(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct run *r = ctx;
    uint64_t start = (r->first_group + job->number) * group_plain(r);
    uint64_t from = r->p->offset > start ? r->p->offset - start : 0;
    uint64_t to = job->out_len;
    enum bk_code rc = BK_OK;

    if (r->p->offset + r->p->length < start + to)
        to = r->p->offset + r->p->length - start;
    if (r->p->sink != NULL && r->p->keys != NULL && to > from)
        rc = store_sink_write(r->p->sink, job->out + from, (size_t)(to - from), err);
    count_progress(r, job);
    return rc;
}

enum bk_code
ops_payload_run_file(const struct ops_payload *p, const struct ops_archive *a, struct bk_err *err)
{
    struct run r = {.p = p, .src = a->src, .archive = a, .segment_size = a->preamble.segment_size};
    struct bk_pipeline pipe = {.read_apart = 1, .read = file_read, .work = file_work, .write = file_write};

    r.first_group = p->offset / group_plain(&r);
    r.end_group = p->length == 0 ? r.first_group + 1 : (p->offset + p->length - 1) / group_plain(&r) + 1;
    if (r.end_group > a->layout.groups || r.first_group >= r.end_group)
        return bk_fail(err, BK_E_INTERNAL, "payload: a range outside the archive");
    store_source_sequential(a->src);
    return run_pipeline(&r, &pipe, err);
}

/* Where the archive's last frame ends within the bytes at hand, or 0 if it is not among them. */
static enum bk_code
find_last_frame(const struct run *r, const struct bk_job *job, size_t *end, struct bk_err *err)
{
    *end = 0;
    for (size_t at = 0; at + BK_FRAME_WORD <= job->in_len; at += frame_size(r)) {
        uint32_t word = bk_get_u32(job->in + at);
        size_t len = word & ~BK_WORD_LAST;

        if ((word & BK_WORD_LAST) == 0)
            continue;
        if (len > r->segment_size)
            return bk_fail(err, BK_E_FORMAT, "segment %llu: longer than the archive's segments",
                           (unsigned long long)(job->number * BK_GROUP_SEGMENTS + at / frame_size(r)));
        *end = at + len + BK_FRAME_OVERHEAD;
        return *end <= job->in_len ? BK_OK : bk_fail(err, BK_E_INCOMPLETE, "the stream ends within its last segment");
    }
    if (job->in_len < group_stored(r))
        return bk_fail(err, BK_E_INCOMPLETE, "the stream ends before the archive does");
    return BK_OK;
}

static enum bk_code
stream_read(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct run *r = ctx;
    size_t end = 0;
    enum bk_code rc;

    rc = store_source_read(r->src, job->in, (size_t)group_stored(r), &job->in_len, err);
    if (rc == BK_OK)
        rc = find_last_frame(r, job, &end, err);
    if (rc != BK_OK) {
        bk_err_layer(err, "frames");
        return rc;
    }
    if (end == 0)
        return BK_OK;
    rc = bk_buf_append(r->rest, job->in + end, job->in_len - end, err);
    job->in_len = end;
    job->last = 1;
    return rc;
}

static enum bk_code
stream_work(void *ctx, size_t worker, struct bk_job *job, struct bk_err *err)
{
    enum bk_code rc = work_group(ctx, worker, job->number, job, err);

    if (rc != BK_OK)
        bk_err_layer(err, "frames");
    return rc;
}

static enum bk_code
stream_write(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct run *r = ctx;
    enum bk_code rc = bk_buf_append(r->index, job->digest, 32, err);

    if (rc == BK_OK && r->p->sink != NULL)
        rc = store_sink_write(r->p->sink, job->out, job->out_len, err);
    r->plaintext_length += job->out_len;
    count_progress(r, job);
    return rc;
}

static void
stream_interrupt(void *ctx)
{
    store_source_interrupt(((struct run *)ctx)->src);
}

/* What may follow the frames: the index that they make, a manifest of the largest size, and the tail. */
static enum bk_code
read_rest(struct run *r, struct bk_err *err)
{
    size_t most = r->index->len + 4 + BK_MANIFEST_MAX + BK_TAIL_LEN;
    size_t got = 1;
    uint8_t *at;
    enum bk_code rc;

    while (got > 0) {
        size_t had = r->rest->len;

        if ((rc = bk_buf_extend(r->rest, 64 * 1024, &at, err)) != BK_OK)
            return rc;
        if ((rc = store_source_read(r->src, at, 64 * 1024, &got, err)) != BK_OK)
            return rc;
        r->rest->len = had + got;
        if (r->rest->len > most)
            return bk_fail(err, BK_E_FORMAT, "tail: more bytes follow the frames than an archive can have");
    }
    return BK_OK;
}

enum bk_code
ops_payload_run_stream(const struct ops_payload *p, struct ops_archive *a, struct bk_buf *index, struct bk_buf *rest,
                       uint64_t *plaintext_length, struct bk_err *err)
{
    struct run r = {.p = p, .src = a->src, .segment_size = a->preamble.segment_size, .index = index, .rest = rest};
    struct bk_pipeline pipe = {
        .read = stream_read, .work = stream_work, .write = stream_write, .interrupt = stream_interrupt};
    enum bk_code rc = run_pipeline(&r, &pipe, err);

    *plaintext_length = r.plaintext_length;
    if (rc == BK_OK && (rc = read_rest(&r, err)) != BK_OK)
        bk_err_layer(err, "tail");
    return rc;
}
