#include "format/manifest.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "format/algorithms.h"
#include "format/der.h"
#include "format/payload.h"
#include "format/tlv.h"

#define MANIFEST_VERSION 1
#define TIME_MAX         253402300799 /* 9999-12-31T23:59:59Z, the last that GeneralizedTime can say */

static const char *const kind_names[] = {"full", "incremental", "wal", "snapshot", "other"};
#define KINDS (sizeof kind_names / sizeof kind_names[0])

const char *
bk_kind_name(enum bk_kind kind)
{
    return (size_t)kind < KINDS ? kind_names[kind] : "unknown";
}

int
bk_kind_from_name(const char *name, enum bk_kind *out)
{
    for (size_t i = 0; i < KINDS; i++)
        if (strcmp(name, kind_names[i]) == 0) {
            *out = (enum bk_kind)i;
            return 1;
        }
    return 0;
}

/* Where the plain fields of the structure stand in the DER. */
struct field {
    const char *path;
    size_t at;
    size_t len;
};

#define FIELD(path, member)                                                                                            \
    {                                                                                                                  \
        path, offsetof(struct bk_manifest, member), sizeof((struct bk_manifest *)NULL)->member                         \
    }

static const struct field digests[] = {
    FIELD("archiveId", archive_id),           FIELD("preambleDigest", preamble_digest),
    FIELD("envelopeDigest", envelope_digest), FIELD("recordDigest", record_digest),
    FIELD("payloadDigest", payload_digest),
};
static const struct field texts[] = {
    FIELD("sequence", sequence),
    FIELD("label", label),
    FIELD("producer", producer),
};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* What the program measured: wrong values here are damage in a parsed manifest, and a defect in one to be encoded. */
static enum bk_code
check_facts(const struct bk_manifest *m, enum bk_code code, struct bk_err *err)
{
    if (!bk_uuid_is_v7(m->archive_id))
        return bk_fail(err, code, "archiveId is not a UUID of version 7");
    if (m->segment_count < 1 || m->segment_count > BK_SEGMENTS_MAX)
        return bk_fail(err, code, "segmentCount %llu is not 1 to 2^32", (unsigned long long)m->segment_count);
    /* all segments but the last are full, and only an empty archive has an empty one: docs/FORMAT.md, Frames */
    if (m->plaintext_length > m->segment_count * BK_SEGMENT_SIZE_MAX ||
        (m->segment_count > 1 && m->plaintext_length <= (m->segment_count - 1) * BK_SEGMENT_SIZE_MIN))
        return bk_fail(err, code, "plaintextLength %llu cannot be that of %llu segments",
                       (unsigned long long)m->plaintext_length, (unsigned long long)m->segment_count);
    if (m->created_at < 0 || m->created_at > TIME_MAX)
        return bk_fail(err, code, "createdAt is outside the years 1970 to 9999");
    if ((size_t)m->kind >= KINDS)
        return bk_fail(err, code, "kind %u is none of version 1", (unsigned)m->kind);
    return BK_OK;
}

static enum bk_code
check_parent(const struct bk_manifest *m, const struct bk_parent *p, const char *name, enum bk_code code,
             struct bk_err *err)
{
    if (!bk_uuid_is_v7(p->archive_id))
        return bk_fail(err, code, "%s: archiveId is not a UUID of version 7", name);
    if (memcmp(p->archive_id, m->archive_id, BK_UUID_LEN) == 0)
        return bk_fail(err, code, "%s names the archive itself", name);
    return BK_OK;
}

/* 1 if the sequence has a word with that key, among its first len bytes. */
static int
sequence_has(const char *words, size_t len, const char *key, size_t key_len)
{
    for (size_t at = 0; at + key_len < len; at++) {
        if (memcmp(words + at, key, key_len) == 0 && words[at + key_len] == '=')
            return 1;
        while (at < len && words[at] != ' ')
            at++;
    }
    return 0;
}

/* One word from words[at] on; returns where it ends, or 0 if it is not key=value with a key of its own. */
static size_t
check_word(const char *words, size_t at)
{
    size_t key = at;
    size_t key_len;

    while (words[at] >= 'a' && words[at] <= 'z')
        at++;
    key_len = at - key;
    if (key_len == 0 || words[at] != '=' || sequence_has(words, key, words + key, key_len))
        return 0;
    at++;
    if (words[at] <= ' ')
        return 0;
    while (words[at] > ' ' && words[at] <= '~')
        at++;
    return at;
}

/* docs/FORMAT.md, Manifest: key=value words separated by one space; what a tool needs to order WAL must be there. */
static enum bk_code
check_sequence(const struct bk_manifest *m, enum bk_code code, struct bk_err *err)
{
    static const char *const wal[] = {"system", "timeline", "segment"};
    size_t len = strlen(m->sequence);

    for (size_t at = 0; len > 0 && at <= len; at++) {
        size_t end = check_word(m->sequence, at);

        if (end == 0 || (m->sequence[end] != ' ' && m->sequence[end] != '\0'))
            return bk_fail(err, code, "sequence: byte %zu: not key=value words, one space between, each key once", at);
        at = end;
    }
    for (size_t i = 0; m->kind == BK_KIND_WAL && i < COUNT(wal); i++)
        if (!sequence_has(m->sequence, len, wal[i], strlen(wal[i])))
            return bk_fail(err, code,
                           "kind wal needs a sequence with system=, timeline= and segment=, not without %s=", wal[i]);
    return BK_OK;
}

int
bk_sequence_valid(const char *words)
{
    struct bk_manifest m = {0};
    size_t len = strlen(words);

    if (len > BK_TEXT_MAX)
        return 0;
    memcpy(m.sequence, words, len);
    return check_sequence(&m, BK_E_USAGE, NULL) == BK_OK;
}

/* What came from the caller, whose mistake is BK_E_USAGE. */
static enum bk_code
check_words(const struct bk_manifest *m, enum bk_code code, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < COUNT(texts); i++) {
        const char *text = (const char *)m + texts[i].at;
        size_t len = strnlen(text, texts[i].len);

        if (len > 0 && !bk_text_valid(text, len))
            return bk_fail(err, code, "%s: not UTF-8 of 1 to %d bytes without control characters", texts[i].path,
                           BK_TEXT_MAX);
    }
    if (m->has_parent)
        rc = check_parent(m, &m->parent, "parent", code, err);
    if (rc == BK_OK && m->has_supersedes)
        rc = check_parent(m, &m->supersedes, "supersedes", code, err);
    if (rc == BK_OK && m->has_retain_until && (m->retain_until < m->created_at || m->retain_until > TIME_MAX))
        rc = bk_fail(err, code, "retainUntil is before createdAt or after the year 9999");
    return rc == BK_OK ? check_sequence(m, code, err) : rc;
}

static enum bk_code
put_parent(asn1_node node, const char *path, int has, const struct bk_parent *p, struct bk_err *err)
{
    char field[64];
    enum bk_code rc;

    if (!has)
        return bk_der_put_absent(node, path, err);
    (void)snprintf(field, sizeof field, "%s.archiveId", path);
    if ((rc = bk_der_put_bytes(node, field, p->archive_id, sizeof p->archive_id, err)) != BK_OK)
        return rc;
    (void)snprintf(field, sizeof field, "%s.manifestDigest", path);
    return bk_der_put_bytes(node, field, p->manifest_digest, sizeof p->manifest_digest, err);
}

static enum bk_code
get_parent(asn1_node node, const char *path, int *has, struct bk_parent *p, struct bk_err *err)
{
    char field[64];
    enum bk_code rc;

    *has = bk_der_has(node, path);
    if (!*has)
        return BK_OK;
    (void)snprintf(field, sizeof field, "%s.archiveId", path);
    if ((rc = bk_der_get_fixed(node, field, p->archive_id, sizeof p->archive_id, err)) != BK_OK)
        return rc;
    (void)snprintf(field, sizeof field, "%s.manifestDigest", path);
    return bk_der_get_fixed(node, field, p->manifest_digest, sizeof p->manifest_digest, err);
}

static enum bk_code
put_required(asn1_node node, const struct bk_manifest *m, struct bk_err *err)
{
    uint8_t suite[BK_OWN_OID_LEN];
    enum bk_code rc = bk_der_put_u64(node, "version", MANIFEST_VERSION, err);

    for (size_t i = 0; rc == BK_OK && i < COUNT(digests); i++)
        rc = bk_der_put_bytes(node, digests[i].path, (const uint8_t *)m + digests[i].at, digests[i].len, err);
    bk_own_oid(BK_OID_SUITE_1, suite);
    if (rc == BK_OK)
        rc = bk_der_put_bytes(node, "suite", suite, sizeof suite, err);
    if (rc == BK_OK)
        rc = bk_der_put_u64(node, "segmentCount", m->segment_count, err);
    if (rc == BK_OK)
        rc = bk_der_put_u64(node, "plaintextLength", m->plaintext_length, err);
    if (rc == BK_OK)
        rc = bk_der_put_time(node, "createdAt", m->created_at, err);
    if (rc == BK_OK)
        rc = bk_der_put_u64(node, "kind", m->kind, err);
    return rc;
}

static enum bk_code
put_optional(asn1_node node, const struct bk_manifest *m, struct bk_err *err)
{
    enum bk_code rc = put_parent(node, "parent", m->has_parent, &m->parent, err);

    if (rc == BK_OK)
        rc = put_parent(node, "supersedes", m->has_supersedes, &m->supersedes, err);
    for (size_t i = 0; rc == BK_OK && i < COUNT(texts); i++) {
        const char *text = (const char *)m + texts[i].at;

        rc = text[0] == '\0' ? bk_der_put_absent(node, texts[i].path, err)
                             : bk_der_put_bytes(node, texts[i].path, text, strlen(text), err);
    }
    if (rc == BK_OK)
        rc = m->has_retain_until ? bk_der_put_time(node, "retainUntil", m->retain_until, err)
                                 : bk_der_put_absent(node, "retainUntil", err);
    if (rc == BK_OK)
        rc = m->has_policy_digest
                 ? bk_der_put_bytes(node, "policyDigest", m->policy_digest, sizeof m->policy_digest, err)
                 : bk_der_put_absent(node, "policyDigest", err);
    return rc;
}

/* Every failure of this file says what it is about. */
static enum bk_code
finish(enum bk_code rc, struct bk_err *err)
{
    if (rc != BK_OK) {
        bk_err_prefix(err, "manifest");
        bk_err_layer(err, "manifest");
    }
    return rc;
}

enum bk_code
bk_manifest_encode(const struct bk_manifest *m, struct bk_buf *der, struct bk_err *err)
{
    asn1_node node = NULL;
    enum bk_code rc;

    if ((rc = check_facts(m, BK_E_INTERNAL, err)) != BK_OK)
        goto done;
    if ((rc = check_words(m, BK_E_USAGE, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_new("BkManifest", &node, err)) != BK_OK)
        goto done;
    if ((rc = put_required(node, m, err)) != BK_OK)
        goto done;
    if ((rc = put_optional(node, m, err)) != BK_OK)
        goto done;
    rc = bk_der_encode(node, der, err);
done:
    bk_der_free(node);
    return finish(rc, err);
}

static enum bk_code
check_suite(asn1_node node, struct bk_err *err)
{
    uint8_t known[BK_OWN_OID_LEN];
    struct bk_buf suite = {0};
    enum bk_code rc = bk_der_get_buf(node, "suite", &suite, err);

    bk_own_oid(BK_OID_SUITE_1, known);
    if (rc == BK_OK && (suite.len != sizeof known || memcmp(suite.data, known, sizeof known) != 0)) {
        char text[2 * 64 + 1];

        bk_hex(suite.data, suite.len < 64 ? suite.len : 64, text);
        rc = bk_fail(err, BK_E_NEWER, "suite %s is not known to this program", text);
    }
    bk_buf_free(&suite);
    return rc;
}

static enum bk_code
get_required(asn1_node node, struct bk_manifest *m, struct bk_err *err)
{
    uint64_t kind = 0;
    enum bk_code rc = check_suite(node, err);

    for (size_t i = 0; rc == BK_OK && i < COUNT(digests); i++)
        rc = bk_der_get_fixed(node, digests[i].path, (uint8_t *)m + digests[i].at, digests[i].len, err);
    if (rc == BK_OK)
        rc = bk_der_get_u64(node, "segmentCount", &m->segment_count, err);
    if (rc == BK_OK)
        rc = bk_der_get_u64(node, "plaintextLength", &m->plaintext_length, err);
    if (rc == BK_OK)
        rc = bk_der_get_time(node, "createdAt", &m->created_at, err);
    if (rc == BK_OK)
        rc = bk_der_get_u64(node, "kind", &kind, err);
    if (rc == BK_OK && kind >= KINDS)
        rc = bk_fail(err, BK_E_FORMAT, "kind %llu is none of version 1", (unsigned long long)kind);
    m->kind = rc == BK_OK ? (enum bk_kind)kind : BK_KIND_OTHER;
    return rc;
}

static enum bk_code
get_optional(asn1_node node, struct bk_manifest *m, struct bk_err *err)
{
    enum bk_code rc = get_parent(node, "parent", &m->has_parent, &m->parent, err);

    if (rc == BK_OK)
        rc = get_parent(node, "supersedes", &m->has_supersedes, &m->supersedes, err);
    for (size_t i = 0; rc == BK_OK && i < COUNT(texts); i++)
        if (bk_der_has(node, texts[i].path))
            rc = bk_der_get_text(node, texts[i].path, (char *)m + texts[i].at, texts[i].len, err);
    m->has_retain_until = bk_der_has(node, "retainUntil");
    if (rc == BK_OK && m->has_retain_until)
        rc = bk_der_get_time(node, "retainUntil", &m->retain_until, err);
    m->has_policy_digest = bk_der_has(node, "policyDigest");
    if (rc == BK_OK && m->has_policy_digest)
        rc = bk_der_get_fixed(node, "policyDigest", m->policy_digest, sizeof m->policy_digest, err);
    return rc;
}

enum bk_code
bk_manifest_parse(const uint8_t *der, size_t len, struct bk_manifest *out, struct bk_err *err)
{
    struct bk_manifest m = {0};
    asn1_node node = NULL;
    enum bk_code rc;

    if ((rc = bk_tlv_version(der, len, MANIFEST_VERSION, "manifest", err)) != BK_OK)
        goto done;
    if ((rc = bk_der_decode("BkManifest", der, len, &node, err)) != BK_OK)
        goto done;
    if ((rc = get_required(node, &m, err)) != BK_OK)
        goto done;
    if ((rc = get_optional(node, &m, err)) != BK_OK)
        goto done;
    if ((rc = check_facts(&m, BK_E_FORMAT, err)) != BK_OK)
        goto done;
    if ((rc = check_words(&m, BK_E_FORMAT, err)) != BK_OK)
        goto done;
    *out = m;
done:
    bk_der_free(node);
    return finish(rc, err);
}
