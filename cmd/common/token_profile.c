#include "cmd/common/token_profile.h"

#include <stdlib.h>
#include <string.h>

#include "base/time.h"
#include "format/signed.h"

/* The member that says what this is; a version that is not ours is not read. */
#define MARK         "bkTokenProfile"
#define MARK_VERSION 1
#define FILE_BYTES   ((size_t)64 * 1024)

static const struct {
    const char *name;
    enum p11_key_kind kind;
} kinds[] = {
    {"rsa3072", P11_RSA3072}, {"rsa4096", P11_RSA4096}, {"p256", P11_P256}, {"p384", P11_P384}, {"aes256", P11_AES256}};

static const char *const fact_members[P11_FACTS] = {
    [P11_FACT_UNWRAPS_WITHOUT_LENGTH] = "unwrapsWithoutLength",
    [P11_FACT_UNWRAPS_WITH_LENGTH] = "unwrapsWithLength",
    [P11_FACT_KEEPS_VALUES] = "keepsValues",
    [P11_FACT_FORGETS] = "forgetsSessionObjects",
    [P11_FACT_TEMPLATE_BINDS] = "templateBinds",
    [P11_FACT_DRAWS_NONCE] = "drawsNonce",
};

const char *
cmd_kind_text(enum p11_key_kind kind)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].kind == kind)
            return kinds[i].name;
    return "?";
}

int
cmd_kind_from_text(const char *text, enum p11_key_kind *out)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(text, kinds[i].name) == 0) {
            *out = kinds[i].kind;
            return 1;
        }
    return 0;
}

/* --- out ---------------------------------------------------------------------------------------------------------- */

static json_t *
tristate(int value)
{
    return value < 0 ? json_null() : json_boolean(value);
}

static json_t *
facts_json(const struct p11_probe_item *item)
{
    json_t *o = json_object();

    for (size_t f = 0; f < P11_FACTS; f++)
        (void)json_object_set_new(o, fact_members[f], tristate(item->facts[f]));
    return o;
}

json_t *
cmd_probe_json(const struct p11_probe_item *i)
{
    return json_pack("{s:s, s:s, s:b, s:s?, s:b, s:o, s:o, s:s?}", "type", cmd_kind_text(i->kind), "use",
                     i->signing ? "sign" : "kek", "works", i->works, "scheme",
                     i->works && !i->signing ? bk_scheme_name(i->scheme) : NULL, "blind", i->blind, "refusesDamage",
                     tristate(i->refuses_damage), "facts", i->kind == P11_AES256 ? facts_json(i) : json_null(), "why",
                     i->why);
}

enum bk_code
cmd_token_profile_write(const char *token, int lasting, json_t *lines, struct bk_buf *out, struct bk_err *err)
{
    char now[21];
    json_t *o =
        json_pack("{s:i, s:s, s:s, s:s, s:b, s:o}", MARK, MARK_VERSION, "token", token, "probed",
                  bk_time_text(bk_time_now(), now), "bk", BK_PROJECT_VERSION, "onToken", lasting, "kinds", lines);
    char *text = o == NULL ? NULL : json_dumps(o, JSON_INDENT(2));
    enum bk_code rc = text == NULL ? bk_fail_nomem(err) : bk_buf_append(out, text, strlen(text), err);

    if (rc == BK_OK)
        rc = bk_buf_append(out, "\n", 1, err);
    free(text);
    json_decref(o);
    return rc;
}

/* --- in ----------------------------------------------------------------------------------------------------------- */

/* 1, 0, or -1 for null; *bad for anything else. */
static int
get_tristate(const json_t *o, const char *member, int *bad)
{
    const json_t *v = json_object_get(o, member);

    if (json_is_boolean(v))
        return json_is_true(v);
    *bad |= !json_is_null(v);
    return -1;
}

static void
get_facts(const json_t *o, struct p11_probe_item *item, int *bad)
{
    const json_t *facts = json_object_get(o, "facts");

    for (size_t f = 0; f < P11_FACTS; f++)
        item->facts[f] = json_is_null(facts) ? -1 : get_tristate(facts, fact_members[f], bad);
}

/* Members that a later version may add are passed over; those that are ours must be there. */
static int
get_kind(const json_t *o, struct p11_probe_item *item)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    const char *use = json_string_value(json_object_get(o, "use"));
    const json_t *scheme = json_object_get(o, "scheme");
    int bad = 0;

    *item = (struct p11_probe_item){.scheme = BK_SCHEME_NONE};
    if (type == NULL || use == NULL || !cmd_kind_from_text(type, &item->kind))
        return 0;
    if (strcmp(use, "kek") != 0 && strcmp(use, "sign") != 0)
        return 0;
    item->signing = strcmp(use, "sign") == 0;
    if (json_is_string(scheme))
        item->scheme = bk_scheme_from_name(json_string_value(scheme));
    bad |= json_is_string(scheme) ? item->scheme == BK_SCHEME_NONE : !json_is_null(scheme);
    item->works = get_tristate(o, "works", &bad) == 1;
    item->blind = get_tristate(o, "blind", &bad) == 1;
    item->refuses_damage = get_tristate(o, "refusesDamage", &bad);
    get_facts(o, item, &bad);
    return !bad && (!item->works || item->signing || item->scheme != BK_SCHEME_NONE);
}

static enum bk_code
copy_text(const json_t *o, const char *member, char **out, struct bk_err *err)
{
    const char *text = json_string_value(json_object_get(o, member));

    if (text == NULL || !bk_text_valid(text, strlen(text)))
        return bk_fail(err, BK_E_USAGE, "no \"%s\" in it", member);
    return (*out = strdup(text)) == NULL ? bk_fail_nomem(err) : BK_OK;
}

static enum bk_code
take(const json_t *o, struct ops_token_profile *p, struct bk_err *err)
{
    const json_t *mark = json_object_get(o, MARK);
    const json_t *lines = json_object_get(o, "kinds");
    enum bk_code rc;

    if (!json_is_integer(mark) || json_integer_value(mark) != MARK_VERSION)
        return bk_fail(err, BK_E_USAGE, "not a token's profile that this version reads (\"%s\": %d)", MARK,
                       MARK_VERSION);
    if ((rc = copy_text(o, "token", &p->token, err)) != BK_OK ||
        (rc = copy_text(o, "probed", &p->probed, err)) != BK_OK)
        return rc;
    if ((rc = p11_uri_check(p->token, err)) != BK_OK)
        return rc;
    if (!json_is_array(lines) || json_array_size(lines) == 0 || json_array_size(lines) > OPS_TOKEN_KINDS)
        return bk_fail(err, BK_E_USAGE, "\"kinds\" is no list of 1 to %d", OPS_TOKEN_KINDS);
    for (size_t i = 0; i < json_array_size(lines); i++)
        if (!get_kind(json_array_get(lines, i), &p->kinds[p->count++]))
            return bk_fail(err, BK_E_USAGE, "number %zu of \"kinds\" is not what bk-key probe writes", i + 1);
    return BK_OK;
}

static enum bk_code
take_text(const char *text, size_t len, struct ops_token_profile *p, struct bk_err *err)
{
    json_error_t why;
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    /* jansson's own words quote the file, which may be one with a PIN in it */
    enum bk_code rc =
        o == NULL ? bk_fail(err, BK_E_USAGE, "not JSON, at line %d, column %d", why.line, why.column) : take(o, p, err);

    json_decref(o);
    return rc;
}

static enum bk_code
take_signed(const uint8_t *der, size_t len, const struct ops_trust *trust, struct ops_token_profile *p,
            struct bk_err *err)
{
    const unsigned any = OPS_ROLE_BACKUP | OPS_ROLE_ROTATE | OPS_ROLE_OFFICER | OPS_ROLE_CUSTODIAN | OPS_ROLE_VERIFY;
    struct bk_signed s = {0};
    enum bk_code rc = bk_signed_parse(der, len, BK_CONTENT_TOKEN_PROFILE, &s, err);

    if (rc == BK_OK && trust != NULL)
        rc = ops_trust_check(trust, any, &s, "profile", err);
    if (rc == BK_OK)
        rc = take_text((const char *)s.content.data, s.content.len, p, err);
    bk_signed_free(&s);
    return rc;
}

enum bk_code
cmd_token_profile_read(const char *path, const struct ops_trust *trust, struct ops_token_profile *out,
                       struct bk_err *err)
{
    struct ops_token_profile p = {0};
    char *room = malloc(FILE_BYTES + 1);
    size_t len = 0;
    int is_signed;
    enum bk_code rc = room == NULL ? bk_fail_nomem(err) : cmd_config_read(path, room, FILE_BYTES + 1, &len, err);

    if (rc != BK_OK)
        goto done;
    is_signed = len > 0 && (uint8_t)room[0] == 0x30; /* a SEQUENCE: no text begins so */
    if (is_signed && trust != NULL && trust->count == 0)
        rc = bk_fail(err, BK_E_USAGE, "it is signed; --trust says by whom it must be");
    else if (is_signed)
        rc = take_signed((const uint8_t *)room, len, trust, &p, err);
    else if (trust != NULL && trust->count > 0)
        rc = bk_fail(err, BK_E_UNTRUSTED, "nobody has signed it, and --trust says who must have");
    else
        rc = take_text(room, len, &p, err);
    if (rc == BK_OK && (p.file = strdup(path)) == NULL)
        rc = bk_fail_nomem(err);
    if (rc != BK_OK)
        bk_err_prefix(err, "%s", path);
done:
    free(room);
    if (rc == BK_OK)
        *out = p;
    else
        ops_token_profile_free(&p);
    return rc;
}

enum bk_code
cmd_token_profiles_read(const struct cmd_list *paths, struct ops_token_profiles *out, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < paths->count && rc == BK_OK; i++) {
        struct ops_token_profile one = {0};

        if ((rc = cmd_token_profile_read(paths->items[i], NULL, &one, err)) == BK_OK)
            rc = ops_token_profiles_add(out, &one, err);
    }
    return rc;
}
