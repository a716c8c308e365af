/* Small texts of the command line: --expect, --trust, dates, numbers, key ids, names. The first byte says which. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "cmd/common/cmd.h"
#include "format/manifest.h"
#include "tests/fuzz/fuzz.h"

/* "sha256:" and 64 digits, or the digits alone: bytes is what they say. */
static int
says(const char *text, const uint8_t bytes[32])
{
    char hex[65];

    if (strncmp(text, "sha256:", 7) == 0)
        text += 7;
    return strcasecmp(text, bk_hex(bytes, 32, hex)) == 0;
}

static void
expect(const char *text)
{
    struct ops_expect e = {0};
    struct bk_err err = {0};
    char id[BK_UUID_TEXT];
    enum bk_code rc = ops_expect_add(&e, text, &err);

    fuzz_hold(rc == BK_OK || (rc == BK_E_USAGE && err.code == rc && err.message[0] != '\0'));
    if (rc != BK_OK)
        return;
    fuzz_hold(e.has_archive_id + e.has_manifest + e.has_signer + e.has_created_after + (e.label != NULL) +
                  (e.sequence != NULL) ==
              1);
    fuzz_hold(!e.has_archive_id || strcasecmp(text + strlen("archive="), bk_uuid_text(e.archive_id, id)) == 0);
    fuzz_hold(!e.has_manifest || says(text + strlen("manifest="), e.manifest_digest));
    fuzz_hold(!e.has_signer || says(text + strlen("signer="), e.signer));
    fuzz_accepted();
}

/* Fingerprints alone: a file's name would be opened. pem_fuzz.c reads what is in such files. */
static void
trust(const char *text)
{
    static const char *const roles[] = {"", "backup:", "rotate:", "officer:", "custodian:", "verify:"};
    struct ops_trust t = {0};
    struct bk_err err = {0};
    char spec[256];

    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        (void)snprintf(spec, sizeof spec, "%ssha256:%.200s", roles[i], text);
        if (ops_trust_add(&t, spec, &err) == BK_OK) {
            fuzz_hold(t.count > 0 && says(text, t.entries[t.count - 1].fingerprint));
            fuzz_hold(t.entries[t.count - 1].role == (i < 2 ? 1u : 1u << (i - 1)));
            fuzz_accepted();
        } else {
            fuzz_hold(err.code == BK_E_USAGE);
        }
    }
    ops_trust_free(&t);
}

static void
date(const char *text)
{
    struct bk_err err = {0};
    char again[21], stored[BK_TIME_LEN + 1];
    time_t t, t_again;
    enum bk_code rc = bk_time_from_text(text, &t, &err);

    fuzz_hold(rc == BK_OK || rc == BK_E_USAGE);
    if (rc == BK_OK) {
        (void)bk_time_text(t, again);
        fuzz_hold(strncmp(text, again, strlen(text)) == 0);
        fuzz_must(bk_time_from_text(again, &t_again, &err), &err);
        fuzz_hold(t == t_again);
        fuzz_accepted();
    }
    if (bk_time_parse(text, strlen(text), &t, &err) == BK_OK) {
        bk_time_format(t, stored);
        fuzz_hold(strcmp(stored, text) == 0);
        fuzz_accepted();
    }
}

static void
number(const char *text)
{
    struct bk_err err = {0};
    char again[24];
    uint64_t n = 0;
    enum bk_code rc = cmd_number("--jobs", text, 1, UINT64_MAX, &n, &err);

    fuzz_hold(rc == BK_OK || rc == BK_E_USAGE);
    if (rc != BK_OK)
        return;
    (void)snprintf(again, sizeof again, "%llu", (unsigned long long)n);
    fuzz_hold(strcmp(again, text + strspn(text, "0")) == 0);
    fuzz_accepted();
}

static void
names(const char *text)
{
    struct bk_key_id id = {0};
    char again[BK_KEY_ID_TEXT];
    enum bk_kind kind;

    if (bk_key_id_from_text(text, &id)) {
        fuzz_hold(id.len >= BK_KEY_ID_MIN && id.len <= BK_KEY_ID_MAX);
        fuzz_hold(strcasecmp(bk_key_id_text(&id, again), text) == 0);
        fuzz_accepted();
    }
    if (bk_kind_from_name(text, &kind))
        fuzz_hold(strcmp(bk_kind_name(kind), text) == 0);
    if (bk_scheme_from_name(text) != BK_SCHEME_NONE)
        fuzz_hold(strcmp(bk_scheme_name(bk_scheme_from_name(text)), text) == 0);
    (void)bk_text_valid(text, strlen(text));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const parsers[])(const char *) = {expect, trust, date, number, names};
    char *text;

    if (size < 1)
        return 0;
    text = fuzz_text(data + 1, size - 1);
    parsers[data[0] % (sizeof parsers / sizeof parsers[0])](text);
    free(text);
    return 0;
}
