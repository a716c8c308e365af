/* What a token holds, as its module claims. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/time.h"
#include "pkcs11/public.h"
#include "pkcs11/text.h"

/* 2020-01-01: no key of a UUID is older, since they were not made before. */
#define EARLIEST ((time_t)1577836800)

struct listing {
    int (*each)(void *ctx, const struct p11_item *item);
    void *ctx;
    int stopped;
};

/* What cannot be told leaves the type unknown; that is no error of the list. */
static enum bk_code
fill_public(struct p11_session *s, CK_OBJECT_HANDLE object, const struct p11_traits *t, struct bk_public *pub,
            struct bk_err *err)
{
    enum bk_code rc;

    if (t->class == CKO_CERTIFICATE)
        rc = p11_public_from_certificate(s, object, pub, NULL, err);
    else if (t->class == CKO_PUBLIC_KEY)
        rc = p11_public_from_object(s, object, t, pub, err);
    else if (t->class == CKO_PRIVATE_KEY || t->type == BK_KEY_AES256)
        rc = p11_public_half(s, object, t, pub, err);
    else
        rc = BK_E_UNSUPPORTED;
    if (rc != BK_OK)
        bk_public_free(pub);
    return rc == BK_E_NO_ROOM ? rc : BK_OK;
}

static void
fill_claims(struct p11_session *s, CK_OBJECT_HANDLE object, const struct p11_traits *t, struct p11_item *item)
{
    int key = t->class == CKO_PRIVATE_KEY || t->class == CKO_SECRET_KEY;

    item->sensitive = key ? p11_object_bool(s, object, CKA_SENSITIVE) : -1;
    item->extractable = key ? p11_object_bool(s, object, CKA_EXTRACTABLE) : -1;
    item->always_sensitive = key ? p11_object_bool(s, object, CKA_ALWAYS_SENSITIVE) : -1;
    item->never_extractable = key ? p11_object_bool(s, object, CKA_NEVER_EXTRACTABLE) : -1;
    item->local = t->class == CKO_CERTIFICATE ? -1 : p11_object_bool(s, object, CKA_LOCAL);
    item->modifiable = p11_object_bool(s, object, CKA_MODIFIABLE);
    item->can_decrypt = key ? t->can_decrypt : -1;
    item->can_unwrap = key ? t->can_unwrap : -1;
    item->can_wrap = t->class == CKO_CERTIFICATE ? -1 : t->can_wrap;
    item->can_derive = t->class == CKO_CERTIFICATE ? -1 : t->can_derive;
    item->can_sign = key ? t->can_sign : -1;
    item->always_authenticate = t->class == CKO_PRIVATE_KEY ? t->always_authenticate : -1;
}

/* A CKA_ID that bk-key made tells the time (RFC 9562 section 5.7). Before 2020, or later than tomorrow, it is no time.
 */
static int
date_of_id(const struct p11_traits *t, char room[11])
{
    uint64_t ms = 0;
    time_t made;
    struct tm tm = {0};

    if (t->id_len != BK_UUID_LEN || !bk_uuid_is_v7(t->id))
        return 0;
    for (size_t i = 0; i < 6; i++)
        ms = ms << 8 | t->id[i];
    made = (time_t)(ms / 1000);
    if (made < EARLIEST || made > bk_time_now() + 86400 || gmtime_r(&made, &tm) == NULL)
        return 0;
    return strftime(room, 11, "%Y-%m-%d", &tm) == 10;
}

/* CKA_START_DATE is eight digits (PKCS#11 2.40 section 3.4, CK_DATE); many keys have an empty one. */
static int
date_of_key(struct p11_session *s, CK_OBJECT_HANDLE object, char room[11])
{
    char date[8];
    size_t len = 0;

    if (!p11_object_bytes(s, object, CKA_START_DATE, date, sizeof date, &len) || len != sizeof date)
        return 0;
    for (size_t i = 0; i < len; i++)
        if (date[i] < '0' || date[i] > '9')
            return 0;
    return snprintf(room, 11, "%.4s-%.2s-%.2s", date, date + 4, date + 6) == 10;
}

static enum bk_code
list_object(struct p11_session *s, CK_OBJECT_HANDLE object, const char *class_name, CK_OBJECT_CLASS class,
            struct listing *l, struct bk_err *err)
{
    struct p11_token *token = s->token;
    struct p11_traits t = {0};
    char label[P11_ATTRIBUTE_MAX + 1];
    char id[2 * P11_ATTRIBUTE_MAX + 1];
    char date[11];
    struct p11_item item = {.token_label = token->label,
                            .token_serial = token->serial,
                            .token_model = token->model,
                            .module_name = token->module->name,
                            .class_name = class_name,
                            .label = label,
                            .id_hex = id};
    enum bk_code rc = p11_traits_read(s, object, class, &t, err);

    if (rc != BK_OK)
        return rc;
    p11_text_field(label, sizeof label, t.label, t.label_len);
    (void)bk_hex(t.id, t.id_len, id);
    rc = fill_public(s, object, &t, &item.pub, err);
    fill_claims(s, object, &t, &item);
    if (class == CKO_PRIVATE_KEY || class == CKO_SECRET_KEY)
        item.made = date_of_id(&t, date) || date_of_key(s, object, date) ? date : NULL;
    if (rc == BK_OK)
        rc = p11_object_check(s, err);
    if (rc == BK_OK)
        rc = p11_public_set_uri(&item.pub, token, &t, err);
    if (rc == BK_OK) {
        item.uri = item.pub.uri;
        l->stopped = l->each(l->ctx, &item) != 0;
    }
    bk_public_free(&item.pub);
    return rc;
}

enum bk_code
p11_token_list(struct p11_token *t, const struct p11_uri *uri, int log_in,
               int (*each)(void *ctx, const struct p11_item *item), void *ctx, int *stopped, struct bk_err *err)
{
    struct listing l = {.each = each, .ctx = ctx};
    struct p11_session s = {0};
    enum bk_code rc = BK_OK;

    if (log_in && (rc = p11_token_login(t, uri, err)) != BK_OK)
        return rc;
    if ((rc = p11_session_open(&s, t, err)) != BK_OK)
        return rc;
    for (size_t i = 0; rc == BK_OK && !l.stopped && i < P11_CLASSES; i++) {
        struct p11_handles found = {0};

        if (p11_uri_class(uri, p11_classes[i].class) != p11_classes[i].class)
            continue;
        rc = p11_object_find(&s, p11_classes[i].class, p11_uri_attribute(uri, CKA_LABEL),
                             p11_uri_attribute(uri, CKA_ID), &found, err);
        for (size_t j = 0; rc == BK_OK && !l.stopped && j < found.count; j++)
            rc = list_object(&s, found.at[j], p11_classes[i].name, p11_classes[i].class, &l, err);
        p11_handles_free(&found);
    }
    p11_session_close(&s);
    *stopped = l.stopped;
    return rc;
}
