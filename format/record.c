#include "format/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "format/der.h"
#include "format/tlv.h"

#define RECORD_VERSION 1
#define HINTS_MAX      (BK_RECIPIENTS_MAX * 16) /* a group of at most 16 custodians is one recipient */
#define PATH_MAX_LEN   64
#define TIME_MAX       253402300799 /* 9999-12-31T23:59:59Z, the last that GeneralizedTime can say */

static const char *const blindness_names[] = {"host", "hostBlind", "tokenEnforced"};
#define BLINDNESSES (sizeof blindness_names / sizeof blindness_names[0])

const char *
bk_blindness_name(enum bk_blindness b)
{
    return (size_t)b < BLINDNESSES ? blindness_names[b] : "unknown";
}

void
bk_record_free(struct bk_record *r)
{
    for (size_t i = 0; i < r->history_count; i++)
        free(r->history[i].key_ids);
    free(r->history);
    free(r->hints);
    *r = (struct bk_record){0};
}

/* Every failure of this file says what it is about. */
static enum bk_code
finish(enum bk_code rc, struct bk_err *err)
{
    if (rc != BK_OK) {
        bk_err_prefix(err, "record");
        bk_err_layer(err, "record");
    }
    return rc;
}

/* ---- hints ---- */

/* RFC 7512 section 2.3: attributes that say how to log in, or which code to load. */
static int
forbidden_attribute(const char *name, size_t len)
{
    static const char *const names[] = {"pin-value", "pin-source", "module-path", "module-name"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i]) == len && strncasecmp(names[i], name, len) == 0)
            return 1;
    return 0;
}

int
bk_hint_uri_valid(const char *uri)
{
    static const char scheme[] = "pkcs11:";
    const char *at = uri + sizeof scheme - 1;

    if (strnlen(uri, BK_TEXT_MAX + 1) > BK_TEXT_MAX || strncmp(uri, scheme, sizeof scheme - 1) != 0)
        return 0;
    for (const char *c = at; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~')
            return 0;
    for (;;) {
        size_t name = strcspn(at, "=;?&");

        if (forbidden_attribute(at, name))
            return 0;
        at += strcspn(at, ";?&");
        if (*at == '\0')
            return 1;
        at++;
    }
}

static enum bk_code
check_uri(const char *uri, enum bk_code code, struct bk_err *err)
{
    if (bk_hint_uri_valid(uri))
        return BK_OK;
    return bk_fail(err, code,
                   "hint: not a pkcs11: URI of up to %d characters without pin-value, pin-source, module-path and "
                   "module-name",
                   BK_TEXT_MAX);
}

enum bk_code
bk_record_add_hint(struct bk_record *r, const struct bk_key_id *id, const char *uri, struct bk_err *err)
{
    struct bk_hint *hints;
    enum bk_code rc;

    if (uri == NULL)
        return BK_OK;
    if ((rc = check_uri(uri, BK_E_USAGE, err)) != BK_OK)
        return finish(rc, err);
    if (bk_record_hint(r, id) != NULL)
        return finish(bk_fail(err, BK_E_USAGE, "hint: this key has one already"), err);
    if (r->hint_count >= HINTS_MAX)
        return finish(bk_fail(err, BK_E_NO_ROOM, "hint: %d are the most there can be", HINTS_MAX), err);
    hints = realloc(r->hints, (r->hint_count + 1) * sizeof *hints);
    if (hints == NULL)
        return bk_fail_nomem(err);
    r->hints = hints;
    hints[r->hint_count].id = *id;
    (void)snprintf(hints[r->hint_count].uri, sizeof hints->uri, "%s", uri);
    r->hint_count++;
    return BK_OK;
}

const char *
bk_record_hint(const struct bk_record *r, const struct bk_key_id *id)
{
    for (size_t i = 0; i < r->hint_count; i++)
        if (bk_key_id_equal(&r->hints[i].id, id))
            return r->hints[i].uri;
    return NULL;
}

/* ---- semantic checks, the same for what is written and what is read ---- */

static enum bk_code
check_id(const struct bk_key_id *id, const char *where, enum bk_code code, struct bk_err *err)
{
    if (id->len < BK_KEY_ID_MIN || id->len > BK_KEY_ID_MAX)
        return bk_fail(err, code, "%s: key id of %zu bytes, %d to %d allowed", where, id->len, BK_KEY_ID_MIN,
                       BK_KEY_ID_MAX);
    return BK_OK;
}

static enum bk_code
check_history(const struct bk_record *r, enum bk_code code, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    if (r->generation < 1 || r->generation > BK_HISTORY_MAX + 1)
        return bk_fail(err, code, "generation %llu is not 1 to %d", (unsigned long long)r->generation,
                       BK_HISTORY_MAX + 1);
    if (r->history_count != r->generation - 1)
        return bk_fail(err, code, "generation %llu with a history of %zu", (unsigned long long)r->generation,
                       r->history_count);
    for (size_t i = 0; i < r->history_count && rc == BK_OK; i++) {
        const struct bk_past *p = &r->history[i];

        /* an archive without any recipient would not have been one */
        if (p->key_id_count == 0)
            return bk_fail(err, code, "history: generation %zu names no key", i + 1);
        for (size_t j = 0; j < p->key_id_count && rc == BK_OK; j++)
            rc = check_id(&p->key_ids[j], "history", code, err);
    }
    return rc;
}

static enum bk_code
check_proven(const struct bk_record *r, enum bk_code code, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    if (r->proven_count > BK_RECIPIENTS_MAX)
        return bk_fail(err, code, "proven: %zu key ids, at most %d allowed", r->proven_count, BK_RECIPIENTS_MAX);
    for (size_t i = 0; i < r->proven_count && rc == BK_OK; i++) {
        rc = check_id(&r->proven[i], "proven", code, err);
        for (size_t j = 0; j < i && rc == BK_OK; j++)
            if (bk_key_id_equal(&r->proven[i], &r->proven[j]))
                rc = bk_fail(err, code, "proven: a key id stands there twice");
    }
    return rc;
}

static enum bk_code
check_hints(const struct bk_record *r, enum bk_code code, enum bk_code caller, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    if (r->hint_count > HINTS_MAX)
        return bk_fail(err, code, "hints: %zu, at most %d allowed", r->hint_count, HINTS_MAX);
    for (size_t i = 0; i < r->hint_count && rc == BK_OK; i++) {
        rc = check_id(&r->hints[i].id, "hint", code, err);
        if (rc == BK_OK)
            rc = check_uri(r->hints[i].uri, caller, err);
        for (size_t j = 0; j < i && rc == BK_OK; j++)
            if (bk_key_id_equal(&r->hints[i].id, &r->hints[j].id))
                rc = bk_fail(err, code, "hints: two for one key");
    }
    return rc;
}

/* code is for what the program filled in, caller for text that came from outside. */
static enum bk_code
check_record(const struct bk_record *r, enum bk_code code, enum bk_code caller, struct bk_err *err)
{
    size_t reason = strnlen(r->reason, sizeof r->reason);
    enum bk_code rc;

    if (!bk_uuid_is_v7(r->archive_id))
        return bk_fail(err, code, "archiveId is not a UUID of version 7");
    if (r->created_at < 0 || r->created_at > TIME_MAX)
        return bk_fail(err, code, "createdAt is outside the years 1970 to 9999");
    if ((size_t)r->blindness >= BLINDNESSES)
        return bk_fail(err, code, "blindness %u is none of version 1", (unsigned)r->blindness);
    if (reason > 0 && !bk_text_valid(r->reason, reason))
        return bk_fail(err, caller, "reason: not UTF-8 of 1 to %d bytes without control characters", BK_TEXT_MAX);
    if (r->order_id_len > sizeof r->order_id)
        return bk_fail(err, code, "orderId of %zu bytes", r->order_id_len);
    if ((rc = check_history(r, code, err)) != BK_OK)
        return rc;
    if ((rc = check_proven(r, code, err)) != BK_OK)
        return rc;
    return check_hints(r, code, caller, err);
}

/* ---- encoding ---- */

static enum bk_code
put_key_ids(asn1_node node, const char *path, const struct bk_key_id *ids, size_t count, struct bk_err *err)
{
    char item[PATH_MAX_LEN];
    enum bk_code rc = BK_OK;

    (void)snprintf(item, sizeof item, "%s.?LAST", path);
    for (size_t i = 0; i < count && rc == BK_OK; i++) {
        if ((rc = bk_der_put_new(node, path, err)) == BK_OK)
            rc = bk_der_put_bytes(node, item, ids[i].bytes, ids[i].len, err);
    }
    return rc;
}

static enum bk_code
put_history(asn1_node node, const struct bk_record *r, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < r->history_count && rc == BK_OK; i++) {
        const struct bk_past *p = &r->history[i];

        if ((rc = bk_der_put_new(node, "history", err)) != BK_OK)
            break;
        rc = bk_der_put_bytes(node, "history.?LAST.recordDigest", p->record_digest, sizeof p->record_digest, err);
        if (rc == BK_OK)
            rc = put_key_ids(node, "history.?LAST.keyIds", p->key_ids, p->key_id_count, err);
    }
    return rc;
}

static enum bk_code
put_lineage(asn1_node node, const struct bk_record *r, struct bk_err *err)
{
    static const char *const later[] = {"previous", "manifestDigest", "history"};
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < 3 && r->generation == 1 && rc == BK_OK; i++)
        rc = bk_der_put_absent(node, later[i], err);
    if (rc != BK_OK || r->generation == 1)
        return rc;
    if ((rc = bk_der_put_bytes(node, "previous", r->previous, sizeof r->previous, err)) != BK_OK)
        return rc;
    rc = bk_der_put_bytes(node, "manifestDigest", r->manifest_digest, sizeof r->manifest_digest, err);
    return rc == BK_OK ? put_history(node, r, err) : rc;
}

static enum bk_code
put_hints(asn1_node node, const struct bk_record *r, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < r->hint_count && rc == BK_OK; i++) {
        const struct bk_hint *h = &r->hints[i];

        if ((rc = bk_der_put_new(node, "hints", err)) != BK_OK)
            break;
        rc = bk_der_put_bytes(node, "hints.?LAST.keyId", h->id.bytes, h->id.len, err);
        if (rc == BK_OK)
            rc = bk_der_put_bytes(node, "hints.?LAST.uri", h->uri, strlen(h->uri), err);
    }
    return rc;
}

static enum bk_code
put_record(asn1_node node, const struct bk_record *r, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = bk_der_put_u64(node, "version", RECORD_VERSION, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_bytes(node, "archiveId", r->archive_id, sizeof r->archive_id, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_u64(node, "generation", r->generation, err)) != BK_OK)
        return rc;
    if ((rc = put_lineage(node, r, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_bytes(node, "envelopeHash", r->envelope_hash, sizeof r->envelope_hash, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_time(node, "createdAt", r->created_at, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_put_u64(node, "blindness", r->blindness, err)) != BK_OK)
        return rc;
    if ((rc = put_key_ids(node, "proven", r->proven, r->proven_count, err)) != BK_OK)
        return rc;
    rc = r->reason[0] == '\0' ? bk_der_put_absent(node, "reason", err)
                              : bk_der_put_bytes(node, "reason", r->reason, strlen(r->reason), err);
    if (rc != BK_OK)
        return rc;
    rc = r->order_id_len == 0 ? bk_der_put_absent(node, "orderId", err)
                              : bk_der_put_bytes(node, "orderId", r->order_id, r->order_id_len, err);
    return rc == BK_OK ? put_hints(node, r, err) : rc;
}

/* A history can outgrow what readers accept of any DER: better to say so than to write what none of them opens. */
static enum bk_code
check_room(const struct bk_record *r, const struct bk_buf *der, size_t start, struct bk_err *err)
{
    enum bk_code rc = bk_der_walk(der->data + start, der->len - start, "record", NULL);

    if (rc == BK_OK)
        return BK_OK;
    rc = bk_fail(err, BK_E_NO_ROOM, "generation %llu: the history no longer fits", (unsigned long long)r->generation);
    bk_err_hint(err, "re-encrypt the archive: a new one begins with an empty history");
    return rc;
}

enum bk_code
bk_record_encode(const struct bk_record *r, struct bk_buf *der, struct bk_err *err)
{
    size_t start = der->len;
    asn1_node node = NULL;
    enum bk_code rc;

    if ((rc = check_record(r, BK_E_INTERNAL, BK_E_USAGE, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_new("BkKeyRecord", &node, err)) != BK_OK)
        goto done;
    if ((rc = put_record(node, r, err)) != BK_OK)
        goto done;
    if ((rc = bk_der_encode(node, der, err)) != BK_OK)
        goto done;
    if ((rc = check_room(r, der, start, err)) != BK_OK)
        der->len = start;
done:
    bk_der_free(node);
    return finish(rc, err);
}

/* ---- parsing ---- */

static enum bk_code
get_key_ids(asn1_node node, const char *path, struct bk_key_id *ids, size_t count, struct bk_err *err)
{
    char item[PATH_MAX_LEN + 24]; /* path, and the number of one that it holds */
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < count && rc == BK_OK; i++) {
        (void)snprintf(item, sizeof item, "%s.?%zu", path, i + 1);
        rc = bk_der_get_bytes(node, item, ids[i].bytes, sizeof ids[i].bytes, &ids[i].len, err);
    }
    return rc;
}

static enum bk_code
get_past(asn1_node node, size_t number, struct bk_past *p, struct bk_err *err)
{
    char path[PATH_MAX_LEN];
    size_t count = 0;
    enum bk_code rc;

    (void)snprintf(path, sizeof path, "history.?%zu.recordDigest", number);
    if ((rc = bk_der_get_fixed(node, path, p->record_digest, sizeof p->record_digest, err)) != BK_OK)
        return rc;
    (void)snprintf(path, sizeof path, "history.?%zu.keyIds", number);
    if ((rc = bk_der_count(node, path, &count, err)) != BK_OK || count == 0)
        return rc;
    p->key_ids = calloc(count, sizeof *p->key_ids);
    if (p->key_ids == NULL)
        return bk_fail_nomem(err);
    p->key_id_count = count;
    return get_key_ids(node, path, p->key_ids, count, err);
}

static enum bk_code
get_history(asn1_node node, struct bk_record *r, struct bk_err *err)
{
    size_t count = 0;
    enum bk_code rc = bk_der_count(node, "history", &count, err);

    if (rc != BK_OK)
        return rc;
    if (count == 0 || count > BK_HISTORY_MAX)
        return bk_fail(err, BK_E_FORMAT, "history of %zu entries, 1 to %d allowed", count, BK_HISTORY_MAX);
    r->history = calloc(count, sizeof *r->history);
    if (r->history == NULL)
        return bk_fail_nomem(err);
    r->history_count = count;
    for (size_t i = 0; i < count && rc == BK_OK; i++)
        rc = get_past(node, i + 1, &r->history[i], err);
    return rc;
}

/* docs/FORMAT.md, KeyRecord: previous, manifestDigest and history are absent in generation 1, and only there. */
static enum bk_code
get_lineage(asn1_node node, struct bk_record *r, struct bk_err *err)
{
    int later = r->generation != 1;
    enum bk_code rc;

    if (bk_der_has(node, "previous") != later || bk_der_has(node, "manifestDigest") != later ||
        bk_der_has(node, "history") != later)
        return bk_fail(err, BK_E_FORMAT, "generation %llu %s previous, manifestDigest and history",
                       (unsigned long long)r->generation, later ? "needs" : "has none of");
    if (!later)
        return BK_OK;
    if ((rc = bk_der_get_fixed(node, "previous", r->previous, sizeof r->previous, err)) != BK_OK)
        return rc;
    rc = bk_der_get_fixed(node, "manifestDigest", r->manifest_digest, sizeof r->manifest_digest, err);
    return rc == BK_OK ? get_history(node, r, err) : rc;
}

static enum bk_code
get_proven(asn1_node node, struct bk_record *r, struct bk_err *err)
{
    size_t count = 0;
    enum bk_code rc = bk_der_count(node, "proven", &count, err);

    if (rc != BK_OK)
        return rc;
    if (count > BK_RECIPIENTS_MAX)
        return bk_fail(err, BK_E_FORMAT, "proven: %zu key ids, at most %d allowed", count, BK_RECIPIENTS_MAX);
    r->proven_count = count;
    return get_key_ids(node, "proven", r->proven, count, err);
}

static enum bk_code
get_hints(asn1_node node, struct bk_record *r, struct bk_err *err)
{
    char path[PATH_MAX_LEN];
    size_t count = 0;
    enum bk_code rc = bk_der_count(node, "hints", &count, err);

    if (rc != BK_OK || count == 0)
        return rc;
    if (count > HINTS_MAX)
        return bk_fail(err, BK_E_FORMAT, "hints: %zu, at most %d allowed", count, HINTS_MAX);
    r->hints = calloc(count, sizeof *r->hints);
    if (r->hints == NULL)
        return bk_fail_nomem(err);
    r->hint_count = count;
    for (size_t i = 0; i < count && rc == BK_OK; i++) {
        struct bk_hint *h = &r->hints[i];

        (void)snprintf(path, sizeof path, "hints.?%zu.keyId", i + 1);
        if ((rc = bk_der_get_bytes(node, path, h->id.bytes, sizeof h->id.bytes, &h->id.len, err)) != BK_OK)
            break;
        (void)snprintf(path, sizeof path, "hints.?%zu.uri", i + 1);
        rc = bk_der_get_text(node, path, h->uri, sizeof h->uri, err);
    }
    return rc;
}

static enum bk_code
get_optional(asn1_node node, struct bk_record *r, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    if (bk_der_has(node, "reason"))
        rc = bk_der_get_text(node, "reason", r->reason, sizeof r->reason, err);
    if (rc != BK_OK || !bk_der_has(node, "orderId"))
        return rc;
    rc = bk_der_get_bytes(node, "orderId", r->order_id, sizeof r->order_id, &r->order_id_len, err);
    if (rc == BK_OK && r->order_id_len == 0)
        rc = bk_fail(err, BK_E_FORMAT, "orderId is there and empty");
    return rc;
}

static enum bk_code
get_record(asn1_node node, struct bk_record *r, struct bk_err *err)
{
    uint64_t blindness = 0;
    enum bk_code rc;

    if ((rc = bk_der_get_fixed(node, "archiveId", r->archive_id, sizeof r->archive_id, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_get_u64(node, "generation", &r->generation, err)) != BK_OK)
        return rc;
    if ((rc = get_lineage(node, r, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_get_fixed(node, "envelopeHash", r->envelope_hash, sizeof r->envelope_hash, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_get_time(node, "createdAt", &r->created_at, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_get_u64(node, "blindness", &blindness, err)) != BK_OK)
        return rc;
    if (blindness >= BLINDNESSES)
        return bk_fail(err, BK_E_FORMAT, "blindness %llu is none of version 1", (unsigned long long)blindness);
    r->blindness = (enum bk_blindness)blindness;
    if ((rc = get_proven(node, r, err)) != BK_OK)
        return rc;
    if ((rc = get_optional(node, r, err)) != BK_OK)
        return rc;
    return get_hints(node, r, err);
}

enum bk_code
bk_record_parse(const uint8_t *der, size_t len, struct bk_record *out, struct bk_err *err)
{
    struct bk_record r = {0};
    asn1_node node = NULL;
    enum bk_code rc;

    if ((rc = bk_tlv_version(der, len, RECORD_VERSION, "record", err)) != BK_OK)
        goto done;
    if ((rc = bk_der_decode("BkKeyRecord", der, len, &node, err)) != BK_OK)
        goto done;
    if ((rc = get_record(node, &r, err)) != BK_OK)
        goto done;
    if ((rc = check_record(&r, BK_E_FORMAT, BK_E_FORMAT, err)) != BK_OK)
        goto done;
    *out = r;
    r = (struct bk_record){0};
done:
    bk_der_free(node);
    bk_record_free(&r);
    return finish(rc, err);
}
