/* The key that answers to one of several ids, with no PIN asked of tokens that do not have it. */
#include <string.h>

#include "pkcs11/find.h"
#include "pkcs11/left_out.h"
#include "pkcs11/public.h"

/* The ids that are looked for, and the best that was found. */
struct quest {
    const struct bk_key_id *ids;
    size_t count;
    size_t which; /* count: none yet */
    CK_OBJECT_HANDLE object;
    struct p11_traits traits;
    enum p11_use use;
    int any_use; /* what the key may do does not matter */
};

static size_t
index_of(const struct quest *q, const struct bk_key_id *id)
{
    size_t i = 0;

    while (i < q->count && !bk_key_id_equal(&q->ids[i], id))
        i++;
    return i;
}

/* The first of the ids wins; of several objects of one id the first, since they are one key. */
static void
offer(struct quest *q, size_t which, CK_OBJECT_HANDLE object, const struct p11_traits *t)
{
    if (which >= q->which || (!q->any_use && p11_key_unfit(t, q->use) != NULL))
        return;
    q->which = which;
    q->object = object;
    q->traits = *t;
}

/* Objects that have a public half; those that bk cannot read are none of ours. */
static enum bk_code
look_class(struct p11_session *s, CK_OBJECT_CLASS class, const CK_ATTRIBUTE *label, const CK_ATTRIBUTE *id,
           struct quest *q, struct bk_err *err)
{
    struct p11_handles found = {0};
    enum bk_code rc = p11_object_find(s, class, label, id, &found, err);

    for (size_t i = 0; rc == BK_OK && i < found.count; i++) {
        struct p11_traits t = {0};
        struct bk_public pub = {0};
        enum bk_code known;

        if ((rc = p11_traits_read(s, found.at[i], class, &t, err)) != BK_OK)
            break;
        if (class == CKO_PRIVATE_KEY)
            known = p11_public_half(s, found.at[i], &t, &pub, err);
        else if (class == CKO_PUBLIC_KEY)
            known = p11_public_from_object(s, found.at[i], &t, &pub, err);
        else
            known = p11_public_from_certificate(s, found.at[i], &pub, NULL, err);
        if (known == BK_E_NO_ROOM || known == BK_E_TOKEN)
            rc = known; /* nothing is known of it: it might be the one */
        if (known == BK_OK)
            offer(q, index_of(q, &pub.id), found.at[i], &t);
        bk_public_free(&pub);
    }
    if (rc == BK_OK)
        rc = p11_object_check(s, err);
    p11_handles_free(&found);
    return rc;
}

/* Two secret keys of one id are two keys, and which of them is meant cannot be told. */
static enum bk_code
look_secret(struct p11_session *s, const CK_ATTRIBUTE *label, struct quest *q, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; rc == BK_OK && i < q->which && i < q->count; i++) {
        struct p11_handles found = {0};
        struct p11_traits t = {0};
        CK_ATTRIBUTE id = {CKA_ID, (void *)(uintptr_t)q->ids[i].bytes, (CK_ULONG)q->ids[i].len};
        char text[BK_KEY_ID_TEXT];

        rc = p11_object_find(s, CKO_SECRET_KEY, label, &id, &found, err);
        if (rc == BK_OK && found.count > 1)
            rc = bk_fail(err, BK_E_NO_KEY, "%s: %zu secret keys have the id %s", s->port.where, found.count,
                         bk_key_id_text(&q->ids[i], text));
        if (rc == BK_OK && found.count == 1) {
            rc = p11_traits_read(s, found.at[0], CKO_SECRET_KEY, &t, err);
            if (rc == BK_OK && t.type == BK_KEY_AES256)
                offer(q, i, found.at[0], &t);
        }
        p11_handles_free(&found);
    }
    return rc;
}

/* Private and secret keys, in a session that sees them. */
static enum bk_code
look_private(struct p11_session *s, const struct p11_uri *uri, struct quest *q, struct bk_err *err)
{
    const CK_ATTRIBUTE *label = uri == NULL ? NULL : p11_uri_attribute(uri, CKA_LABEL);
    const CK_ATTRIBUTE *id = uri == NULL ? NULL : p11_uri_attribute(uri, CKA_ID);
    enum bk_code rc = look_class(s, CKO_PRIVATE_KEY, label, id, q, err);

    if (rc == BK_OK)
        rc = look_secret(s, label, q, err);
    return rc;
}

/* Labels of the two halves may differ, so label is no filter here. */
int
p11_token_shows_key(struct p11_token *t, const struct bk_key_id *ids, size_t count)
{
    struct quest q = {.ids = ids, .count = count, .which = count, .any_use = 1};
    struct p11_session s = {0};
    struct bk_err why = {0};
    enum bk_code rc;

    if ((rc = p11_session_open(&s, t, &why)) == BK_OK)
        rc = look_class(&s, CKO_PUBLIC_KEY, NULL, NULL, &q, &why);
    if (rc == BK_OK && q.which == count)
        rc = look_class(&s, CKO_CERTIFICATE, NULL, NULL, &q, &why);
    if (rc == BK_OK && q.which == count)
        rc = look_secret(&s, NULL, &q, &why);
    p11_session_close(&s);
    if (rc != BK_OK)
        p11_left_out_add(t->owner, "a token could not be searched: %s", why.message);
    return rc == BK_OK && q.which < count;
}

enum bk_code
p11_token_find_key(struct p11_token *t, const struct p11_uri *uri, enum p11_use use, const struct bk_key_id *ids,
                   size_t count, size_t *which, struct bk_key **out, struct bk_err *err)
{
    struct quest q = {.ids = ids, .count = count, .which = count, .use = use};
    struct p11_session s = {0};
    struct p11_key *key = NULL;
    enum bk_code rc;

    if ((rc = p11_token_login(t, uri, err)) != BK_OK)
        return rc;
    if ((rc = p11_session_open(&s, t, err)) != BK_OK)
        return rc;
    rc = look_private(&s, uri, &q, err);
    if (rc == BK_OK && q.which < q.count)
        rc = p11_key_make(&s, q.object, &q.traits, use, &key, err);
    p11_session_close(&s);
    if (rc == BK_OK && key != NULL) {
        p11_key_park(key);
        *which = q.which;
        *out = &key->base;
    }
    return rc;
}
