/* bk-key list and show. Attributes are what the module claims. */
#include "cmd/bk-key/verbs.h"

#include <string.h>

struct listing {
    struct cmd *c;
    int long_form;
    size_t count;
    enum bk_code rc;
    struct bk_err *err;
};

static const char *
claim(int value)
{
    return value < 0 ? "not said" : value ? "yes" : "no";
}

static const char *
text_or_dash(const char *text)
{
    return text == NULL || text[0] == '\0' ? "-" : text;
}

static void
print_claims(const struct p11_item *i)
{
    const struct {
        const char *name;
        int value;
    } claims[] = {
        {"sensitive", i->sensitive},
        {"extractable", i->extractable},
        {"always sensitive", i->always_sensitive},
        {"never extractable", i->never_extractable},
        {"made on the token", i->local},
        {"modifiable", i->modifiable},
        {"can decrypt", i->can_decrypt},
        {"can unwrap", i->can_unwrap},
        {"can wrap", i->can_wrap},
        {"can derive", i->can_derive},
        {"can sign", i->can_sign},
        {"PIN for every use", i->always_authenticate},
    };

    for (size_t n = 0; n < sizeof claims / sizeof claims[0]; n++)
        (void)printf("  %-18s %s\n", claims[n].name, claim(claims[n].value));
}

static void
print_item(const struct listing *l, const struct p11_item *i)
{
    char id[BK_KEY_ID_TEXT];
    int known = i->pub.type != BK_KEY_UNKNOWN && i->pub.id.len > 0;

    (void)printf("%-11s  %-8s %-20s %s\n", i->class_name, bk_key_type_name(i->pub.type), text_or_dash(i->label),
                 known ? bk_key_id_text(&i->pub.id, id) : "-");
    (void)printf("  %s\n", text_or_dash(i->uri));
    if (!l->long_form)
        return;
    (void)printf("  token %s, serial %s, model %s, module %s\n", text_or_dash(i->token_label),
                 text_or_dash(i->token_serial), text_or_dash(i->token_model), text_or_dash(i->module_name));
    (void)printf("  CKA_ID %s\n", text_or_dash(i->id_hex));
    if (i->made != NULL)
        (void)printf("  made on %s, by its own date\n", i->made);
    if (strcmp(i->class_name, "private key") == 0 || strcmp(i->class_name, "secret key") == 0)
        print_claims(i);
}

static json_t *
claim_json(int value)
{
    return value < 0 ? json_null() : json_boolean(value);
}

json_t *
key_item_json(const struct p11_item *i)
{
    char id[BK_KEY_ID_TEXT];
    int known = i->pub.type != BK_KEY_UNKNOWN && i->pub.id.len > 0;

    return json_pack(
        "{s:s, s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s?}", "class",
        i->class_name, "type", bk_key_type_name(i->pub.type), "label", i->label, "keyId",
        known ? bk_key_id_text(&i->pub.id, id) : NULL, "ckaId", i->id_hex, "uri", i->uri, "token", i->token_label,
        "serial", i->token_serial, "sensitive", claim_json(i->sensitive), "extractable", claim_json(i->extractable),
        "neverExtractable", claim_json(i->never_extractable), "local", claim_json(i->local), "canDecrypt",
        claim_json(i->can_decrypt), "canUnwrap", claim_json(i->can_unwrap), "canWrap", claim_json(i->can_wrap),
        "canDerive", claim_json(i->can_derive), "canSign", claim_json(i->can_sign), "made", i->made);
}

static int
each(void *ctx, const struct p11_item *item)
{
    struct listing *l = ctx;

    l->count++;
    if (l->c->json == NULL)
        print_item(l, item);
    else
        l->rc = cmd_json(l->c, NULL, BK_OK, l->err, NULL, 0, key_item_json(item), l->err);
    return l->rc != BK_OK;
}

enum bk_code
key_list(struct cmd *c, struct p11 *p11, const struct key_args *a, struct bk_err *err)
{
    struct listing l = {.c = c, .long_form = a->verb == KEY_SHOW, .rc = BK_OK, .err = err};
    size_t tokens = 0;
    /* without a URI no token was chosen, and nobody should be asked for every PIN on the machine */
    enum bk_code rc = p11_list(p11, a->uri == NULL ? "pkcs11:" : a->uri, a->uri != NULL, each, &l, &tokens, err);

    if (rc != BK_OK || l.rc != BK_OK)
        return rc != BK_OK ? rc : l.rc;
    if (tokens == 0)
        return bk_fail(err, BK_E_TOKEN, "no token%s", a->uri == NULL ? " is connected" : " answers to that URI");
    if (l.count == 0 && l.long_form)
        return bk_fail(err, BK_E_NO_KEY, "no key answers to that URI");
    if (l.count == 0)
        cmd_say(c, "%zu token%s, no key that can be seen%s", tokens, tokens == 1 ? "" : "s",
                a->uri == NULL ? " without a PIN; name a token by its URI" : "");
    return fflush(stdout) == 0 ? BK_OK : bk_fail(err, BK_E_IO, "cannot write to standard output");
}

static int
note_use(void *ctx, const struct p11_item *item)
{
    enum key_named *named = ctx;

    if (strcmp(item->class_name, "private key") != 0 && strcmp(item->class_name, "secret key") != 0)
        return 0;
    *named = item->can_sign == 1 && item->can_decrypt != 1 && item->can_derive != 1 && item->can_unwrap != 1
                 ? KEY_NAMED_SIGNER
                 : KEY_NAMED_KEK;
    return 1;
}

enum bk_code
key_what_is(struct p11 *p11, const char *uri, enum key_named *out, struct bk_err *err)
{
    size_t tokens = 0;
    enum bk_code rc;

    *out = KEY_NAMED_NOTHING;
    if ((rc = p11_list(p11, uri, 1, note_use, out, &tokens, err)) != BK_OK)
        return rc;
    if (tokens == 0)
        return bk_fail(err, BK_E_TOKEN, "no token answers to that URI");
    if (*out == KEY_NAMED_NOTHING)
        return bk_fail(err, BK_E_NO_KEY, "no private or secret key answers to that URI");
    return BK_OK;
}
