#include "pkcs11/find.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "pkcs11/text.h"

/* What a search among the objects of one token came to. */
struct selection {
    size_t count;
    CK_OBJECT_HANDLE object; /* of the first */
    struct p11_traits traits;
    const char *unfit;          /* why another that was there would not do */
    struct p11_text_list names; /* of all that fit */
};

static void
name_object(const struct p11_traits *t, char *out, size_t room)
{
    char label[80];
    char id[2 * 20 + 1];
    size_t shown = t->id_len < 20 ? t->id_len : 20;

    p11_text_field(label, sizeof label, t->label, t->label_len);
    (void)snprintf(out, room, "'%s' (id %s%s)", label, bk_hex(t->id, shown, id), shown < t->id_len ? "..." : "");
}

static enum bk_code
select_class(struct p11_session *s, CK_OBJECT_CLASS class, const struct p11_uri *uri, enum p11_use use,
             struct selection *sel, struct bk_err *err)
{
    struct p11_handles found = {0};
    enum bk_code rc =
        p11_object_find(s, class, p11_uri_attribute(uri, CKA_LABEL), p11_uri_attribute(uri, CKA_ID), &found, err);

    for (size_t i = 0; rc == BK_OK && i < found.count; i++) {
        struct p11_traits t = {0};
        const char *unfit;
        char name[160];

        if ((rc = p11_traits_read(s, found.at[i], class, &t, err)) != BK_OK)
            break;
        if ((unfit = p11_key_unfit(&t, use)) != NULL) {
            sel->unfit = unfit;
            continue;
        }
        if (sel->count++ == 0) {
            sel->object = found.at[i];
            sel->traits = t;
        }
        name_object(&t, name, sizeof name);
        p11_text_list_add(&sel->names, name);
    }
    p11_handles_free(&found);
    return rc;
}

/* type= narrows only if it names a class that can serve: a URI copied from a public key or certificate means its pair.
 */
static enum bk_code
select_key(struct p11_session *s, const struct p11_uri *uri, enum p11_use use, struct selection *sel,
           struct bk_err *err)
{
    CK_OBJECT_CLASS class = p11_uri_class(uri, CKO_PUBLIC_KEY);
    enum bk_code rc = BK_OK;

    if (class != CKO_SECRET_KEY && use != P11_USE_WRAP)
        rc = select_class(s, CKO_PRIVATE_KEY, uri, use, sel, err);
    if (rc == BK_OK && class != CKO_PRIVATE_KEY && use != P11_USE_SIGN)
        rc = select_class(s, CKO_SECRET_KEY, uri, use, sel, err);
    if (rc != BK_OK)
        return rc;
    if (sel->count == 0 && sel->unfit != NULL)
        return bk_fail(err, BK_E_NO_KEY, "%s: the key that %s names %s", s->token->where, uri->text, sel->unfit);
    if (sel->count == 0)
        return bk_fail(err, BK_E_NO_KEY, "%s: no key matches %s", s->token->where, uri->text);
    if (sel->count > 1)
        return bk_fail(err, BK_E_NO_KEY, "%s: %zu keys match %s: %s; name one by id=", s->token->where, sel->count,
                       uri->text, p11_text_list_end(&sel->names));
    return BK_OK;
}

enum bk_code
p11_find_key(struct p11_token *t, const struct p11_uri *uri, enum p11_use use, struct p11_key **out, struct bk_err *err)
{
    struct p11_session s = {0};
    struct selection sel = {0};
    enum bk_code rc;

    /* log in, then find: before a login some tokens show nothing, others everything */
    if ((rc = p11_token_login(t, uri, err)) != BK_OK)
        return rc;
    if ((rc = p11_session_open(&s, t, err)) != BK_OK)
        return rc;
    if ((rc = select_key(&s, uri, use, &sel, err)) == BK_OK)
        rc = p11_key_make(&s, sel.object, &sel.traits, use, out, err);
    p11_session_close(&s);
    return rc;
}

int
p11_token_shows_object(struct p11_token *t, const struct p11_uri *uri)
{
    static const CK_OBJECT_CLASS classes[] = {CKO_PUBLIC_KEY, CKO_CERTIFICATE};
    struct p11_session s = {0};
    int seen = 0;

    if (p11_session_open(&s, t, NULL) != BK_OK)
        return 0;
    for (size_t i = 0; i < 2 && !seen; i++) {
        struct p11_handles found = {0};

        seen = p11_object_find(&s, classes[i], p11_uri_attribute(uri, CKA_LABEL), p11_uri_attribute(uri, CKA_ID),
                               &found, NULL) == BK_OK &&
               found.count > 0;
        p11_handles_free(&found);
    }
    p11_session_close(&s);
    return seen;
}

/* 1 if the trial can be made, as far as the key's uses go. */
static int
can_be_tried(const struct p11_key *key)
{
    const struct p11_traits *t = &key->traits;

    return key->base.pub.spki != NULL ||
           ((t->can_wrap == 1 || t->can_encrypt == 1) &&
            (t->can_unwrap == 1 || t->can_decrypt == 1 || (t->can_unwrap == 0 && t->can_decrypt == 0)));
}

/* 1 if only a trial tells the scheme: RSA-OAEP's hash; and for wrapping, AES key wrap or GCM where the key may encrypt.
 * What was wrapped under a secret key says its own. */
static int
has_a_choice(const struct p11_key *key, enum p11_use use)
{
    if (use == P11_USE_UNWRAP)
        return key->base.pub.type == BK_KEY_RSA;
    return use == P11_USE_WRAP && key->base.pub.scheme == BK_SCHEME_AES_KW && key->traits.can_encrypt != 0 &&
           can_be_tried(key);
}

enum bk_code
p11_token_open_key(struct p11_token *t, const struct p11_uri *uri, enum p11_use use, struct bk_key **out,
                   struct bk_err *err)
{
    struct p11_key *key = NULL;
    enum bk_code rc = p11_find_key(t, uri, use, &key, err);

    if (rc != BK_OK)
        return rc;
    if (has_a_choice(key, use))
        rc = p11_key_prove(key, 0, err);
    if (rc == BK_OK) {
        p11_key_park(key);
        *out = &key->base;
    } else {
        bk_key_close(&key->base);
    }
    return rc;
}

/* The key that the recipient is opened with; or where this login may only wrap, a secret key for that. */
static enum bk_code
find_recipient(struct p11_token *t, const struct p11_uri *uri, struct p11_key **out, struct bk_err *err)
{
    struct bk_err first = {0};
    enum bk_code rc = p11_find_key(t, uri, P11_USE_UNWRAP, out, &first);

    if (rc == BK_E_NO_KEY && p11_find_key(t, uri, P11_USE_WRAP, out, NULL) == BK_OK)
        return BK_OK;
    if (rc != BK_OK && err != NULL)
        *err = first;
    return rc;
}

/* The proof ties the public half, which the token may have from anywhere, to the private one; of a secret key it shows
 * that what this token wraps can be opened again, before a backup depends on it. */
enum bk_code
p11_token_public(struct p11_token *t, const struct p11_uri *uri, struct bk_public *out, struct bk_err *err)
{
    struct p11_key *key = NULL;
    enum bk_code rc = find_recipient(t, uri, &key, err);

    if (rc != BK_OK)
        return rc;
    if (can_be_tried(key))
        rc = p11_key_prove(key, 0, err);
    if (rc == BK_OK)
        rc = bk_public_copy(out, &key->base.pub, err);
    bk_key_close(&key->base);
    return rc;
}
