#include "ops/expect.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"

static enum bk_code
expect_archive(struct ops_expect *e, const char *value, struct bk_err *err)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    char hex[2 * BK_UUID_LEN + 1];
    size_t n = 0;
    int formed = strlen(value) == sizeof form - 1;

    for (size_t i = 0; formed && i < sizeof form - 1; i++) {
        if (form[i] == '-')
            formed = value[i] == '-';
        else
            hex[n++] = value[i];
    }
    hex[n] = '\0';
    e->has_archive_id = 1;
    if (!formed || !bk_unhex(hex, e->archive_id, BK_UUID_LEN))
        return bk_fail(err, BK_E_USAGE, "--expect archive: \"%s\" is not a UUID", value);
    return BK_OK;
}

static enum bk_code
expect_manifest(struct ops_expect *e, const char *value, struct bk_err *err)
{
    if (strncmp(value, "sha256:", 7) == 0)
        value += 7;
    e->has_manifest = 1;
    if (!bk_unhex(value, e->manifest_digest, 32))
        return bk_fail(err, BK_E_USAGE, "--expect manifest: \"%s\" is not 64 hex digits", value);
    return BK_OK;
}

static enum bk_code
expect_signer(struct ops_expect *e, const char *value, struct bk_err *err)
{
    e->has_signer = 1;
    if (strncmp(value, "sha256:", 7) != 0 || !bk_unhex(value + 7, e->signer, 32))
        return bk_fail(err, BK_E_USAGE, "--expect signer: \"%s\" is not sha256: and 64 hex digits", value);
    return BK_OK;
}

static enum bk_code
expect_created_after(struct ops_expect *e, const char *value, struct bk_err *err)
{
    enum bk_code rc = bk_time_from_text(value, &e->created_after, err);

    e->has_created_after = 1;
    if (rc != BK_OK)
        bk_err_prefix(err, "--expect created-after");
    return rc;
}

static enum bk_code
expect_label(struct ops_expect *e, const char *value, struct bk_err *err)
{
    (void)err;
    e->label = value;
    return BK_OK;
}

static enum bk_code
expect_sequence(struct ops_expect *e, const char *value, struct bk_err *err)
{
    (void)err;
    e->sequence = value;
    return BK_OK;
}

static const struct {
    const char *name;
    enum bk_code (*take)(struct ops_expect *e, const char *value, struct bk_err *err);
} names[] = {
    {"archive=", expect_archive}, {"manifest=", expect_manifest}, {"label=", expect_label},
    {"signer=", expect_signer},   {"sequence=", expect_sequence}, {"created-after=", expect_created_after},
};

enum bk_code
ops_expect_add(struct ops_expect *e, const char *text, struct bk_err *err)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t len = strlen(names[i].name);

        if (strncmp(text, names[i].name, len) == 0)
            return names[i].take(e, text + len, err);
    }
    return bk_fail(err, BK_E_USAGE,
                   "--expect: \"%s\" is none of archive=, manifest=, label=, signer=, sequence=, created-after=", text);
}

static enum bk_code
differs(struct bk_err *err, const char *what, const char *wanted, const char *found)
{
    return bk_fail(err, BK_E_UNEXPECTED, "genuine, but not the expected archive: %s is %s, expected %s", what,
                   found[0] == '\0' ? "absent" : found, wanted);
}

static enum bk_code
check_identity(const struct ops_expect *e, const struct ops_archive *a, struct bk_err *err)
{
    char wanted[65], found[65];

    if (e->has_archive_id && memcmp(e->archive_id, a->manifest.archive_id, BK_UUID_LEN) != 0)
        return differs(err, "archive", bk_uuid_text(e->archive_id, wanted),
                       bk_uuid_text(a->manifest.archive_id, found));
    if (e->has_manifest && memcmp(e->manifest_digest, a->manifest_digest, 32) != 0)
        return differs(err, "manifest", bk_hex(e->manifest_digest, 32, wanted), bk_hex(a->manifest_digest, 32, found));
    return BK_OK;
}

static enum bk_code
check_signer(const struct ops_expect *e, const struct ops_archive *a, struct bk_err *err)
{
    char wanted[65], found[OPS_FINGERPRINT_TEXT];
    uint8_t fingerprint[32];

    for (size_t i = 0; i < a->manifest_signed.signer_count; i++) {
        bk_public_fingerprint(&a->manifest_signed.signers[i].pub, fingerprint);
        if (memcmp(fingerprint, e->signer, 32) == 0)
            return BK_OK;
    }
    return differs(err, "signer", bk_hex(e->signer, 32, wanted),
                   ops_fingerprint_text(&a->manifest_signed.signers[0].pub, found));
}

static enum bk_code
check_words(const struct ops_expect *e, const struct ops_archive *a, struct bk_err *err)
{
    char wanted[21], found[21];

    if (e->label != NULL && strcmp(e->label, a->manifest.label) != 0)
        return differs(err, "label", e->label, a->manifest.label);
    if (e->sequence != NULL && strcmp(e->sequence, a->manifest.sequence) != 0)
        return differs(err, "sequence", e->sequence, a->manifest.sequence);
    if (e->has_created_after && a->manifest.created_at <= e->created_after)
        return bk_fail(err, BK_E_UNEXPECTED, "genuine, but too old: created %s, expected after %s",
                       bk_time_text(a->manifest.created_at, found), bk_time_text(e->created_after, wanted));
    return BK_OK;
}

static enum bk_code
check_generation(const struct ops_expect *e, const struct ops_archive *a, struct bk_err *err)
{
    enum bk_code rc;

    if (a->record.generation >= e->min_generation)
        return BK_OK;
    rc = bk_fail(err, BK_E_UNEXPECTED, "its key envelope is of generation %llu, expected at least %llu: rolled back?",
                 (unsigned long long)a->record.generation, (unsigned long long)e->min_generation);
    bk_err_hint(err, "somebody may have put an older copy in place, whose old key still opens it");
    return rc;
}

enum bk_code
ops_expect_check(const struct ops_expect *e, const struct ops_archive *a, struct bk_err *err)
{
    enum bk_code rc = check_identity(e, a, err);

    if (rc == BK_OK && e->has_signer)
        rc = check_signer(e, a, err);
    if (rc == BK_OK)
        rc = check_words(e, a, err);
    if (rc == BK_OK)
        rc = check_generation(e, a, err);
    if (rc != BK_OK)
        bk_err_layer(err, "expect");
    return rc;
}

int
ops_expect_fresh(const struct ops_expect *e)
{
    return e->has_archive_id || e->has_manifest || e->has_created_after || e->sequence != NULL || e->min_generation > 0;
}
