/* The key record: the signed lineage of the envelope. docs/FORMAT.md, KeyRecord. */
#ifndef BK_FORMAT_RECORD_H
#define BK_FORMAT_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/keys.h"
#include "format/envelope.h"
#include "format/manifest.h"

enum bk_blindness { BK_BLIND_HOST, BK_BLIND_HOST_BLIND, BK_BLIND_TOKEN_ENFORCED };
/* "host", "hostBlind", "tokenEnforced". */
const char *bk_blindness_name(enum bk_blindness b);

/* Room for an archive that is rekeyed weekly for decades; the slot is full long before. */
#define BK_HISTORY_MAX 4095

struct bk_past {
    uint8_t record_digest[32];
    struct bk_key_id *key_ids;
    size_t key_id_count;
};

struct bk_hint {
    struct bk_key_id id;
    char uri[BK_TEXT_MAX + 1];
};

struct bk_record {
    uint8_t archive_id[BK_UUID_LEN];
    uint64_t generation;
    uint8_t previous[32];        /* from generation 2, as the two that follow */
    uint8_t manifest_digest[32]; /* SHA-256 of the BkManifest's DER */
    struct bk_past *history;     /* generation - 1 entries, oldest first */
    size_t history_count;
    uint8_t envelope_hash[32]; /* SHA-256 of the whole envelope */
    time_t created_at;
    enum bk_blindness blindness;
    struct bk_key_id proven[BK_RECIPIENTS_MAX];
    size_t proven_count;
    char reason[BK_TEXT_MAX + 1]; /* "" for absent */
    uint8_t order_id[32];
    size_t order_id_len; /* 0 for absent */
    struct bk_hint *hints;
    size_t hint_count;
};

/* Zero-initialise; safe on the empty value. */
void bk_record_free(struct bk_record *r);

/* The same semantic checks both ways. Encoding answers BK_E_USAGE for a reason or a hint's URI that cannot be, and
 * BK_E_NO_ROOM when the history has outgrown the bounds that readers set to any DER (4096 elements). */
BK_MUST_USE enum bk_code bk_record_encode(const struct bk_record *r, struct bk_buf *der, struct bk_err *err);
BK_MUST_USE enum bk_code bk_record_parse(const uint8_t *der, size_t len, struct bk_record *out, struct bk_err *err);

/* 1 for a pkcs11: URI (RFC 7512) of printable ASCII, up to BK_TEXT_MAX bytes, without pin-value, pin-source,
 * module-path and module-name: what may stand where everybody can read it. */
int bk_hint_uri_valid(const char *uri);

/* Adds a hint, and nothing if uri is NULL. Refuses a URI with pin or module attributes (BK_E_USAGE). */
BK_MUST_USE enum bk_code bk_record_add_hint(struct bk_record *r, const struct bk_key_id *id, const char *uri,
                                            struct bk_err *err);

/* The hint for a key, or NULL. */
const char *bk_record_hint(const struct bk_record *r, const struct bk_key_id *id);

/*
 * The lineage: archive ids agree, the slot's generation is the record's and history's length + 1, envelopeHash is that
 * of the envelope, every hint and proven id is a recipient of it, and
 *   generation 1: the record's digest is the manifest's recordDigest;
 *   later: history[0] is the manifest's recordDigest, the last entry is previous, manifestDigest is the manifest's.
 * A recipient of an unknown kind counts as one of that id when its DER holds the id's bytes.
 * BK_E_VERIFY says which does not hold. manifest_digest is SHA-256 of the manifest's DER.
 */
BK_MUST_USE enum bk_code bk_record_check(const struct bk_record *r, const uint8_t record_digest[32],
                                         uint64_t slot_generation, const uint8_t envelope_hash[32],
                                         const struct bk_envelope *envelope, const struct bk_manifest *manifest,
                                         const uint8_t manifest_digest[32], struct bk_err *err);

/*
 * Starts the successor of old: generation + 1, previous, manifestDigest and history with old's recipients appended.
 * old_envelope is the one that goes with old; BK_E_NEWER when it has a recipient of an unknown kind, which could not be
 * named in the history. *out must be zero; the caller fills the rest and frees.
 */
BK_MUST_USE enum bk_code bk_record_next(const struct bk_record *old, const uint8_t old_digest[32],
                                        const struct bk_envelope *old_envelope, const uint8_t manifest_digest[32],
                                        struct bk_record *out, struct bk_err *err);

#endif
