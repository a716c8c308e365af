/* Moving the payload of an archive through the pipeline: checked group by group, and opened if keys are given. */
#ifndef BK_OPS_PAYLOAD_H
#define BK_OPS_PAYLOAD_H

#include "base/buf.h"
#include "base/log.h"
#include "format/payload.h"
#include "ops/archive.h"
#include "store/sink.h"

struct ops_payload {
    const struct bk_payload *keys; /* NULL: check the digests only */
    struct store_sink *sink;       /* NULL: nothing is written */
    size_t workers;                /* at least 1 */
    const struct bk_engine *engine;
    const struct bk_log *log;
    uint64_t offset; /* of a file: the plaintext range that is written; groups outside are not read */
    uint64_t length;
};

/*
 * A file, whose index was read and checked (a->index). Each group's subtree root is compared with the index, and its
 * tags hold, before a byte of it is written.
 */
BK_MUST_USE enum bk_code ops_payload_run_file(const struct ops_payload *p, const struct ops_archive *a,
                                              struct bk_err *err);

/*
 * A stream that stands at its first frame. Group roots are collected in *index, since the signed ones come later; the
 * bytes that followed the last frame, to the end of the stream, are left in *rest. *plaintext_length counts.
 */
BK_MUST_USE enum bk_code ops_payload_run_stream(const struct ops_payload *p, struct ops_archive *a,
                                                struct bk_buf *index, struct bk_buf *rest, uint64_t *plaintext_length,
                                                struct bk_err *err);

#endif
