#include "cmd/bk-verify/show.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/text.h"
#include "cmd/common/cmd.h"

static void
line(const char *name, const char *value)
{
    if (value[0] != '\0')
        (void)printf("  %-12s %s\n", name, value);
}

static void
show_parent(const char *name, int has, const struct bk_parent *p)
{
    char id[BK_UUID_TEXT], digest[65], text[120];

    if (!has)
        return;
    (void)snprintf(text, sizeof text, "%s (manifest %s)", bk_uuid_text(p->archive_id, id),
                   bk_hex(p->manifest_digest, 32, digest));
    line(name, text);
}

static void
show_manifest(const struct ops_archive *a)
{
    const struct bk_manifest *m = &a->manifest;
    char text[96], size[16], when[21], digest[65];

    line("archive", bk_uuid_text(m->archive_id, text));
    line("kind", bk_kind_name(m->kind));
    line("label", m->label);
    line("created", bk_time_text(m->created_at, when));
    (void)snprintf(text, sizeof text, "%llu bytes (%s)", (unsigned long long)m->plaintext_length,
                   cmd_size(m->plaintext_length, size));
    line("plaintext", text);
    line("producer", m->producer[0] != '\0' ? m->producer : "not observed");
    line("sequence", m->sequence);
    if (m->has_retain_until)
        line("retain until", bk_time_text(m->retain_until, when));
    show_parent("parent", m->has_parent, &m->parent);
    show_parent("supersedes", m->has_supersedes, &m->supersedes);
    line("manifest", bk_hex(a->manifest_digest, 32, digest));
}

static void
show_signers(const char *name, const struct bk_signed *s)
{
    char fingerprint[OPS_FINGERPRINT_TEXT], when[21], text[160];

    for (size_t i = 0; i < s->signer_count; i++) {
        (void)snprintf(text, sizeof text, "%s at %s%s", ops_fingerprint_text(&s->signers[i].pub, fingerprint),
                       bk_time_text(s->signers[i].signing_time, when),
                       s->signers[i].cert_valid_then ? "" : " (certificate not valid then)");
        line(name, text);
    }
}

static void
show_recipients(const struct ops_archive *a)
{
    char id[BK_KEY_ID_TEXT], text[BK_TEXT_MAX + 160];

    for (size_t i = 0; i < a->envelope.recipient_count; i++) {
        const struct bk_recipient *r = &a->envelope.recipients[i];
        const char *hint = r->kind == BK_RECIPIENT_KNOWN ? bk_record_hint(&a->record, &r->wrapped.id) : NULL;

        (void)snprintf(text, sizeof text, "%s %s %s", bk_recipient_text(r, id),
                       r->kind == BK_RECIPIENT_KNOWN ? bk_scheme_name(r->wrapped.scheme) : "(of a later version)",
                       hint == NULL ? "" : hint);
        line("recipient", text);
    }
}

static void
show_record(const struct ops_archive *a)
{
    char text[128], when[21], id[BK_KEY_ID_TEXT];

    (void)snprintf(text, sizeof text, "%llu, of %s, blindness %s", (unsigned long long)a->record.generation,
                   bk_time_text(a->record.created_at, when), bk_blindness_name(a->record.blindness));
    line("generation", text);
    line("reason", a->record.reason);
    if (a->record.generation > 1)
        show_signers("rekeyed by", &a->record_signed);
    for (size_t i = 0; i < a->record.history_count; i++)
        for (size_t j = 0; j < a->record.history[i].key_id_count; j++) {
            (void)snprintf(text, sizeof text, "%s in generation %zu",
                           bk_key_id_text(&a->record.history[i].key_ids[j], id), i + 1);
            line("past key", text);
        }
}

void
show_archive(const char *name, const struct ops_archive *a, int trusted)
{
    char plain[PATH_MAX];

    (void)printf("%s:%s\n", bk_text_plain(plain, sizeof plain, name, strlen(name)),
                 trusted ? "" : " (shown as it says of itself: no trust was given)");
    show_manifest(a);
    show_signers("signed by", &a->manifest_signed);
    show_recipients(a);
    show_record(a);
}

static json_t *
json_signers(const struct bk_signed *s)
{
    char fingerprint[OPS_FINGERPRINT_TEXT], when[21];
    json_t *list = json_array();

    for (size_t i = 0; i < s->signer_count; i++)
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "fingerprint",
                                                    ops_fingerprint_text(&s->signers[i].pub, fingerprint),
                                                    "signingTime", bk_time_text(s->signers[i].signing_time, when),
                                                    "certificateValidThen", s->signers[i].cert_valid_then));
    return list;
}

static json_t *
json_recipients(const struct ops_archive *a)
{
    char id[BK_KEY_ID_TEXT];
    json_t *list = json_array();

    for (size_t i = 0; i < a->envelope.recipient_count; i++) {
        const struct bk_recipient *r = &a->envelope.recipients[i];
        int known = r->kind == BK_RECIPIENT_KNOWN;

        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:s?}", "keyId", bk_recipient_text(r, id), "scheme",
                                                    known ? bk_scheme_name(r->wrapped.scheme) : "unknown", "hint",
                                                    known ? bk_record_hint(&a->record, &r->wrapped.id) : NULL));
    }
    return list;
}

static json_t *
json_history(const struct bk_record *record)
{
    char id[BK_KEY_ID_TEXT];
    json_t *list = json_array();

    for (size_t i = 0; i < record->history_count; i++) {
        json_t *ids = json_array();

        for (size_t j = 0; j < record->history[i].key_id_count; j++)
            (void)json_array_append_new(ids, json_string(bk_key_id_text(&record->history[i].key_ids[j], id)));
        (void)json_array_append_new(list, ids);
    }
    return list;
}

static json_t *
json_parent(int has, const struct bk_parent *p)
{
    char id[BK_UUID_TEXT], digest[65];

    return has ? json_pack("{s:s, s:s}", "archiveId", bk_uuid_text(p->archive_id, id), "manifestDigest",
                           bk_hex(p->manifest_digest, 32, digest))
               : json_null();
}

static const char *
or_null(const char *text)
{
    return text[0] == '\0' ? NULL : text;
}

json_t *
show_json(const struct ops_archive *a)
{
    const struct bk_manifest *m = &a->manifest;
    char created[21], retain[21], digest[65];

    return json_pack(
        "{s:s, s:s?, s:s, s:I, s:s?, s:s?, s:s?, s:o, s:o, s:s, s:s, s:s?, s:o, s:o, s:o, s:o}", "kind",
        bk_kind_name(m->kind), "label", or_null(m->label), "createdAt", bk_time_text(m->created_at, created),
        "plaintextLength", (json_int_t)m->plaintext_length, "producer", or_null(m->producer), "sequence",
        or_null(m->sequence), "retainUntil", m->has_retain_until ? bk_time_text(m->retain_until, retain) : NULL,
        "parent", json_parent(m->has_parent, &m->parent), "supersedes", json_parent(m->has_supersedes, &m->supersedes),
        "manifestDigest", bk_hex(a->manifest_digest, 32, digest), "blindness", bk_blindness_name(a->record.blindness),
        "reason", or_null(a->record.reason), "signers", json_signers(&a->manifest_signed), "rotators",
        json_signers(&a->record_signed), "recipients", json_recipients(a), "history", json_history(&a->record));
}
