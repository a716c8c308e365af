#include "ops/keyring.h"

#include <stdio.h>
#include <string.h>

#include "format/payload.h"

struct search {
    const struct ops_keyring *ring;
    const struct ops_archive *archive;
    struct bk_key_id ids[BK_RECIPIENTS_MAX];
    size_t recipient_of[BK_RECIPIENTS_MAX];
    size_t count;
    struct bk_err first; /* the first failure that did not end the search: what the operator most likely meant */
};

static void
collect_ids(struct search *s)
{
    const struct bk_envelope *e = &s->archive->envelope;

    for (size_t i = 0; i < e->recipient_count; i++)
        if (e->recipients[i].kind == BK_RECIPIENT_KNOWN) {
            s->ids[s->count] = e->recipients[i].wrapped.id;
            s->recipient_of[s->count++] = i;
        }
}

static int
among_opened(const struct search *s, struct bk_key **key, size_t *recipient)
{
    for (size_t i = 0; i < s->ring->key_count; i++) {
        int at = bk_envelope_find(&s->archive->envelope, &s->ring->keys[i]->pub.id);

        if (at >= 0) {
            *key = s->ring->keys[i];
            *recipient = (size_t)at;
            return 1;
        }
    }
    return 0;
}

/* One URI. BK_E_NO_KEY means: go on looking. */
static enum bk_code
look_at(struct search *s, const char *uri, struct bk_key **key, size_t *recipient, struct bk_err *err)
{
    size_t which = 0;
    enum bk_code rc = p11_key_find(s->ring->p11, uri, s->ids, s->count, &which, key, err);

    if (rc == BK_OK) {
        *recipient = s->recipient_of[which];
        return BK_OK;
    }
    if (rc != BK_E_NO_KEY && rc != BK_E_TOKEN)
        return rc;
    if (s->first.code == BK_OK)
        s->first = *err;
    return BK_E_NO_KEY;
}

static enum bk_code
look_everywhere(struct search *s, struct bk_key **key, size_t *recipient, struct bk_err *err)
{
    const struct ops_archive *a = s->archive;
    enum bk_code rc = BK_E_NO_KEY;

    if (s->ring->p11 == NULL)
        return BK_E_NO_KEY;
    for (size_t i = 0; i < s->ring->uri_count && rc == BK_E_NO_KEY; i++)
        rc = look_at(s, s->ring->uris[i], key, recipient, err);
    if (s->ring->uri_count > 0)
        return rc;
    for (size_t i = 0; i < a->record.hint_count && rc == BK_E_NO_KEY; i++)
        if (p11_uri_check(a->record.hints[i].uri, NULL) == BK_OK) /* advice of others, which need not make sense */
            rc = look_at(s, a->record.hints[i].uri, key, recipient, err);
    if (rc == BK_E_NO_KEY)
        rc = look_at(s, "pkcs11:", key, recipient, err);
    return rc;
}

/* "4f0c... (pkcs11:token=...), 77aa..." */
static void
list_recipients(const struct ops_archive *a, char *out, size_t room)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < a->envelope.recipient_count && used < room; i++) {
        const struct bk_recipient *r = &a->envelope.recipients[i];
        char id[BK_KEY_ID_TEXT];
        const char *hint = r->kind == BK_RECIPIENT_KNOWN ? bk_record_hint(&a->record, &r->wrapped.id) : NULL;
        int n = snprintf(out + used, room - used, "%s%s%s%s%s", i == 0 ? "" : ", ", bk_recipient_text(r, id),
                         hint == NULL ? "" : " (", hint == NULL ? "" : hint, hint == NULL ? "" : ")");

        used += n < 0 ? 0 : (size_t)n;
    }
}

static enum bk_code
fail_no_key(const struct search *s, struct bk_err *err)
{
    char list[700];
    enum bk_code rc;

    p11_say_left_out(s->ring->p11);
    list_recipients(s->archive, list, sizeof list);
    if (s->first.code == BK_E_TOKEN || (s->first.code != BK_OK && s->ring->uri_count == 1)) {
        *err = s->first;
        rc = s->first.code;
    } else {
        rc = bk_fail(err, BK_E_NO_KEY, "no key within reach opens this archive");
    }
    bk_err_hint(err, "it opens with any of: %s; connect that token, or name it with %s 'pkcs11:token=...'", list,
                s->ring->option == NULL ? "-k" : s->ring->option);
    return rc;
}

enum bk_code
ops_keyring_find(const struct ops_keyring *ring, const struct ops_archive *a, struct bk_key **key, int *owned,
                 size_t *recipient, struct bk_err *err)
{
    struct search s = {.ring = ring, .archive = a};
    enum bk_code rc;

    collect_ids(&s);
    if (s.count == 0)
        return bk_fail(err, BK_E_NO_KEY, "none of the archive's recipients is of a kind that this version knows");
    *owned = 0;
    if (among_opened(&s, key, recipient))
        return BK_OK;
    *owned = 1;
    rc = look_everywhere(&s, key, recipient, err);
    return rc == BK_E_NO_KEY ? fail_no_key(&s, err) : rc;
}

static enum bk_code
open_cek(const struct ops_keyring *ring, const struct ops_archive *a, struct bk_secret *cek,
         struct bk_key_id *opened_by, struct bk_err *err)
{
    struct bk_key *key = NULL;
    int owned = 0;
    size_t at = 0;
    enum bk_code rc = ops_keyring_find(ring, a, &key, &owned, &at, err);

    if (rc == BK_OK) {
        *opened_by = a->envelope.recipients[at].wrapped.id;
        rc = bk_key_unwrap(key, &a->envelope.recipients[at].wrapped, cek, err);
    }
    if (owned)
        bk_key_close(key);
    return rc;
}

enum bk_code
ops_keyring_open(const struct ops_keyring *ring, const struct ops_archive *a, struct bk_secret *cek,
                 struct bk_key_package *package, struct bk_key_id *opened_by, struct bk_err *err)
{
    enum bk_code rc = open_cek(ring, a, cek, opened_by, err);

    if (rc != BK_OK) {
        bk_err_layer(err, "key");
        return rc;
    }
    rc = bk_key_package_open(&a->envelope, cek, a->preamble.archive_id, package, err);
    if (rc != BK_OK) {
        err->layer = "package"; /* as docs/CLI.md names it, over format's own word */
        return rc;
    }
    if (a->manifest_signed.signer_count > 0)
        return ops_archive_check_package(a, package, err);
    if ((rc = bk_key_commit_check(a->head, &package->file_key, err)) != BK_OK)
        err->layer = "commitment";
    return rc;
}
