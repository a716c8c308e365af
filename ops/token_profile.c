#include "ops/token_profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
ops_token_profile_free(struct ops_token_profile *p)
{
    free(p->file);
    free(p->token);
    free(p->probed);
    *p = (struct ops_token_profile){0};
}

void
ops_token_profiles_free(struct ops_token_profiles *p)
{
    for (size_t i = 0; i < p->count; i++)
        ops_token_profile_free(&p->items[i]);
    free(p->items);
    *p = (struct ops_token_profiles){0};
}

static const struct ops_token_profile *
of_token(const struct ops_token_profiles *p, const char *uri)
{
    for (size_t i = 0; p != NULL && uri != NULL && i < p->count; i++)
        if (p11_uri_same_token(p->items[i].token, uri))
            return &p->items[i];
    return NULL;
}

enum bk_code
ops_token_profiles_add(struct ops_token_profiles *p, struct ops_token_profile *one, struct bk_err *err)
{
    const struct ops_token_profile *other = of_token(p, one->token);
    struct ops_token_profile *grown;

    if (other != NULL) {
        enum bk_code rc = bk_fail(err, BK_E_USAGE, "%s and %s are profiles of one token", other->file, one->file);

        ops_token_profile_free(one);
        return rc;
    }
    if ((grown = reallocarray(p->items, p->count + 1, sizeof *grown)) == NULL) {
        ops_token_profile_free(one);
        return bk_fail_nomem(err);
    }
    p->items = grown;
    p->items[p->count++] = *one;
    *one = (struct ops_token_profile){0};
    return BK_OK;
}

/* Places of the schemes of one type of key, strongest first; docs/TOKENS.md, section 3. */
static int
weakness(enum bk_scheme scheme)
{
    switch (scheme) {
    case BK_SCHEME_AES_GCM:
    case BK_SCHEME_RSA_OAEP_SHA1:
        return 1;
    case BK_SCHEME_YUBIHSM_CCM:
        return 2;
    case BK_SCHEME_AES_KW:
    case BK_SCHEME_RSA_OAEP_SHA256:
    case BK_SCHEME_ECDH_P256:
    case BK_SCHEME_ECDH_P384:
    case BK_SCHEME_NONE:
        break;
    }
    return 0;
}

static enum bk_key_type
type_of(enum p11_key_kind kind)
{
    switch (kind) {
    case P11_P256:
        return BK_KEY_P256;
    case P11_P384:
        return BK_KEY_P384;
    case P11_AES256:
        return BK_KEY_AES256;
    case P11_RSA3072:
    case P11_RSA4096:
        break;
    }
    return BK_KEY_RSA;
}

/* The line of KEKs of that type that worked, or NULL. */
static const struct p11_probe_item *
line_of(const struct ops_token_profile *p, enum bk_key_type type)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->kinds[i].works && !p->kinds[i].signing && type_of(p->kinds[i].kind) == type)
            return &p->kinds[i];
    return NULL;
}

enum bk_code
ops_token_profiles_check(const struct ops_token_profiles *profiles, const struct bk_public *kek, struct bk_err *err)
{
    const struct ops_token_profile *p = of_token(profiles, kek->uri);
    const struct p11_probe_item *then = p == NULL ? NULL : line_of(p, kek->type);
    enum bk_code rc;

    if (then == NULL || kek->scheme == BK_SCHEME_NONE || weakness(kek->scheme) <= weakness(then->scheme))
        return BK_OK;
    rc = bk_fail(err, BK_E_POLICY, "%s: its token proves no more than %s now, and %s when it was probed (%s, %s)",
                 kek->uri, bk_scheme_name(kek->scheme), bk_scheme_name(then->scheme), p->file, p->probed);
    bk_err_hint(err, "find out what has changed, its module's version or the key's attributes; bk-key probe --against "
                     "shows it, and a new profile accepts it");
    return rc;
}

const struct ops_token_profile *
ops_token_profiles_blind(const struct ops_token_profiles *profiles, const struct bk_public *from,
                         const struct bk_public *to)
{
    const struct ops_token_profile *p = of_token(profiles, to->uri);
    const struct p11_probe_item *line = p == NULL ? NULL : line_of(p, BK_KEY_AES256);

    if (line == NULL || !line->blind || from->type != BK_KEY_AES256 || to->type != BK_KEY_AES256)
        return NULL;
    return from->uri != NULL && p11_uri_same_token(from->uri, to->uri) ? p : NULL;
}

static const char *const fact_names[P11_FACTS] = {
    [P11_FACT_UNWRAPS_WITHOUT_LENGTH] = "unwraps without CKA_VALUE_LEN",
    [P11_FACT_UNWRAPS_WITH_LENGTH] = "unwraps with CKA_VALUE_LEN",
    [P11_FACT_KEEPS_VALUES] = "keeps the value of what it opened as sensitive",
    [P11_FACT_FORGETS] = "forgets a session's objects with the session",
    [P11_FACT_TEMPLATE_BINDS] = "holds to a CKA_UNWRAP_TEMPLATE",
    [P11_FACT_DRAWS_NONCE] = "draws the nonce of AES-GCM itself",
};

const char *
ops_token_fact_text(enum p11_fact fact)
{
    return fact_names[fact];
}

int
ops_token_profile_lost(const struct p11_probe_item *then, const struct p11_probe_item *now, char *out, size_t room)
{
    if (!then->works)
        return 0;
    if (!now->works) {
        (void)snprintf(out, room, "worked, and does not now: %s", now->why == NULL ? "" : now->why);
        return 1;
    }
    if (weakness(now->scheme) > weakness(then->scheme)) {
        (void)snprintf(out, room, "proved %s, and only %s now", bk_scheme_name(then->scheme),
                       bk_scheme_name(now->scheme));
        return 1;
    }
    if (then->blind && !now->blind) {
        (void)snprintf(out, room, "rotated blind, and does not now");
        return 1;
    }
    if (then->refuses_damage == 1 && now->refuses_damage == 0) {
        (void)snprintf(out, room, "refused what was damaged, and takes it now");
        return 1;
    }
    for (int f = P11_FACT_KEEPS_VALUES; f < P11_FACTS; f++)
        if (then->facts[f] == 1 && now->facts[f] != 1) {
            (void)snprintf(out, room, "was seen that it %s, and is not now", fact_names[f]);
            return 1;
        }
    return 0;
}
