#include "ops/trust.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "format/pem.h"
#include "store/read_all.h"

#define TRUST_FILE_MAX (1024 * 1024)

static const struct {
    const char *name;
    unsigned role;
} roles[] = {
    {"backup", OPS_ROLE_BACKUP},       {"rotate", OPS_ROLE_ROTATE}, {"officer", OPS_ROLE_OFFICER},
    {"custodian", OPS_ROLE_CUSTODIAN}, {"verify", OPS_ROLE_VERIFY},
};

void
ops_trust_free(struct ops_trust *t)
{
    free(t->entries);
    *t = (struct ops_trust){0};
}

static enum bk_code
add_fingerprint(struct ops_trust *t, unsigned role, const uint8_t fingerprint[32], struct bk_err *err)
{
    struct ops_trust_entry *entries = reallocarray(t->entries, t->count + 1, sizeof *entries);

    if (entries == NULL)
        return bk_fail_nomem(err);
    t->entries = entries;
    entries[t->count].role = role;
    memcpy(entries[t->count].fingerprint, fingerprint, 32);
    t->count++;
    return BK_OK;
}

enum bk_code
ops_trust_add_public(struct ops_trust *t, unsigned role, const struct bk_public *pub, struct bk_err *err)
{
    uint8_t fingerprint[32];

    bk_public_fingerprint(pub, fingerprint);
    return add_fingerprint(t, role, fingerprint, err);
}

static enum bk_code
add_file(struct ops_trust *t, unsigned role, const char *path, struct bk_err *err)
{
    struct bk_buf text = {0};
    struct bk_pem pem = {0};
    enum bk_code rc;

    if ((rc = store_read_all(path, TRUST_FILE_MAX, &text, err)) != BK_OK)
        goto done;
    if ((rc = bk_pem_parse((const char *)text.data, text.len, &pem, err)) != BK_OK) {
        bk_err_prefix(err, "%s", path);
        goto done;
    }
    for (size_t i = 0; i < pem.count && rc == BK_OK; i++)
        rc = ops_trust_add_public(t, role, &pem.keys[i].pub, err);
done:
    bk_pem_free(&pem);
    bk_buf_free(&text);
    return rc;
}

enum bk_code
ops_trust_add(struct ops_trust *t, const char *text, struct bk_err *err)
{
    unsigned role = OPS_ROLE_BACKUP;
    uint8_t fingerprint[32];
    enum bk_code rc;

    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        size_t len = strlen(roles[i].name);

        if (strncmp(text, roles[i].name, len) == 0 && text[len] == ':') {
            role = roles[i].role;
            text += len + 1;
            break;
        }
    }
    if (strncmp(text, "sha256:", 7) == 0) {
        if (!bk_unhex(text + 7, fingerprint, sizeof fingerprint))
            return bk_fail(err, BK_E_USAGE, "trust: \"%s\" is not sha256: and 64 hex digits", text);
        return add_fingerprint(t, role, fingerprint, err);
    }
    if ((rc = add_file(t, role, text, err)) != BK_OK) {
        /* a file that the command line names wrongly is a usage error, whatever the system called it */
        if (rc == BK_E_IO)
            rc = err->code = BK_E_USAGE;
        bk_err_prefix(err, "trust");
    }
    return rc;
}

int
ops_trust_allows(const struct ops_trust *t, unsigned wanted, const struct bk_public *pub)
{
    uint8_t fingerprint[32];

    bk_public_fingerprint(pub, fingerprint);
    for (size_t i = 0; i < t->count; i++)
        if ((t->entries[i].role & wanted) != 0 && memcmp(t->entries[i].fingerprint, fingerprint, 32) == 0)
            return 1;
    return 0;
}

char *
ops_fingerprint_text(const struct bk_public *pub, char out[OPS_FINGERPRINT_TEXT])
{
    uint8_t fingerprint[32];

    bk_public_fingerprint(pub, fingerprint);
    memcpy(out, "sha256:", 7);
    bk_hex(fingerprint, sizeof fingerprint, out + 7);
    return out;
}

enum bk_code
ops_trust_check(const struct ops_trust *t, unsigned wanted, const struct bk_signed *s, const char *what,
                struct bk_err *err)
{
    const char *prefix = (wanted & OPS_ROLE_ROTATE) != 0 ? "rotate:" : "";
    char text[OPS_FINGERPRINT_TEXT];

    if (s->signer_count == 0)
        return bk_fail(err, BK_E_UNTRUSTED, "%s: signed by nobody", what);
    for (size_t i = 0; i < s->signer_count; i++) {
        const struct bk_public *pub = &s->signers[i].pub;

        if (ops_trust_allows(t, wanted, pub))
            continue;
        ops_fingerprint_text(pub, text);
        enum bk_code rc =
            ops_trust_allows(t, ~0u, pub)
                ? bk_fail(err, BK_E_UNTRUSTED, "%s: signed by %s, which is trusted, but not in this role", what, text)
                : bk_fail(err, BK_E_UNTRUSTED, "%s: signed by %s, which is not trusted", what, text);
        bk_err_hint(err, "compare this fingerprint with your runbook; only if it is the same: -t %s%s", prefix, text);
        return rc;
    }
    return BK_OK;
}
