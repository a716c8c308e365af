/* The manifest: what the backup host signs, once. docs/FORMAT.md, Manifest. */
#ifndef BK_FORMAT_MANIFEST_H
#define BK_FORMAT_MANIFEST_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/time.h"

enum bk_kind { BK_KIND_FULL, BK_KIND_INCREMENTAL, BK_KIND_WAL, BK_KIND_SNAPSHOT, BK_KIND_OTHER };

/* "full", "incremental", "wal", "snapshot", "other". */
const char *bk_kind_name(enum bk_kind kind);
/* 1 on success. */
int bk_kind_from_name(const char *name, enum bk_kind *out);

/* 1 for what may stand as a sequence: key=value words, or "". What kind wal asks for is not looked for. */
int bk_sequence_valid(const char *words);

#define BK_TEXT_MAX 1024 /* bytes of UTF-8 in a label, a reason, a sequence, a producer's name or a hint's URI */

struct bk_parent {
    uint8_t archive_id[BK_UUID_LEN];
    uint8_t manifest_digest[32];
};

struct bk_manifest {
    uint8_t archive_id[BK_UUID_LEN];
    uint8_t preamble_digest[32];
    uint8_t envelope_digest[32];
    uint8_t record_digest[32]; /* of the first KeyRecord's DER */
    uint64_t segment_count;
    uint64_t plaintext_length;
    uint8_t payload_digest[32];
    time_t created_at;
    enum bk_kind kind;
    /* optional: has_ flags, and "" for absent text */
    int has_parent;
    struct bk_parent parent;
    int has_supersedes;
    struct bk_parent supersedes;
    int has_retain_until;
    time_t retain_until;
    int has_policy_digest;
    uint8_t policy_digest[32];
    char sequence[BK_TEXT_MAX + 1];
    char label[BK_TEXT_MAX + 1];
    char producer[BK_TEXT_MAX + 1];
};

/* Encodes after the same semantic checks as parsing. BK_E_USAGE names the field that a caller got wrong; BK_E_INTERNAL
 * one that the program fills in itself. retainUntil is not before createdAt. */
BK_MUST_USE enum bk_code bk_manifest_encode(const struct bk_manifest *m, struct bk_buf *der, struct bk_err *err);

BK_MUST_USE enum bk_code bk_manifest_parse(const uint8_t *der, size_t len, struct bk_manifest *out, struct bk_err *err);

/* 1 if text is valid UTF-8 without control characters (Cc), 1 to BK_TEXT_MAX bytes. */
int bk_text_valid(const char *text, size_t len);

#endif
