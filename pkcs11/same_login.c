/*
 * Which recipients' private or secret halves are on the token that a key is logged in to. Public halves are known by
 * their ids (docs/FORMAT.md, the key id is a digest of them), so that few attributes of each object are read, and only
 * an object that answers to one of the ids is looked at closely: some tokens take long for an attribute.
 */
#include <string.h>

#include "base/hash.h"
#include "pkcs11/key.h"
#include "pkcs11/public.h"

struct holding {
    const struct bk_key_id *ids;
    size_t count;
    int *holds;
};

/* The first of the ids that is not known to be here yet; count if it is none of them. */
static size_t
index_of(const struct holding *h, const struct bk_key_id *id)
{
    size_t i = 0;

    while (i < h->count && (h->holds[i] || !bk_key_id_equal(&h->ids[i], id)))
        i++;
    return i;
}

/* Of an EC point, without any look at whether it is on its curve: nothing is encrypted to it. */
static int
id_of_point(struct p11_session *s, CK_OBJECT_HANDLE object, struct bk_key_id *id)
{
    uint8_t point[160], digest[BK_SHA256_LEN];
    size_t len = 0, skip;

    if (!p11_object_bytes(s, object, CKA_EC_POINT, point, sizeof point, &len))
        return 0;
    /* inside an OCTET STRING, or raw: rule 2 */
    skip = len > 2 && (len == 65 + 2 || len == 97 + 2) && point[0] == 0x04 && point[1] == len - 2 ? 2 : 0;
    bk_sha256(point + skip, len - skip, digest);
    memcpy(id->bytes, digest, BK_SKI_LEN);
    id->len = BK_SKI_LEN;
    return 1;
}

/* Takes the id of a public half that was read with rc. What bk cannot read is none of ours; without memory it might be.
 */
static enum bk_code
take_id(enum bk_code rc, struct bk_public *pub, struct bk_key_id *id, int *known)
{
    *known = rc == BK_OK;
    if (rc == BK_OK)
        *id = pub->id;
    bk_public_free(pub);
    return rc == BK_E_NO_ROOM ? rc : BK_OK;
}

/* What the object itself tells: a public key, or a private one that tells its public half. */
static enum bk_code
id_of_key(struct p11_session *s, CK_OBJECT_HANDLE object, CK_OBJECT_CLASS class, struct bk_key_id *id, int *known,
          struct bk_err *err)
{
    struct p11_traits t = {.class = class, .type = BK_KEY_RSA};
    struct bk_public pub = {0};
    uint8_t der[1024];
    size_t len = 0;
    CK_ULONG type = CK_UNAVAILABLE_INFORMATION;

    (void)p11_object_ulong(s, object, CKA_KEY_TYPE, &type);
    if (type == CKK_EC && class == CKO_PUBLIC_KEY)
        *known = id_of_point(s, object, id);
    else if (type == CKK_RSA)
        return take_id(p11_public_from_object(s, object, &t, &pub, err), &pub, id, known);
    else if (p11_object_bytes(s, object, CKA_PUBLIC_KEY_INFO, der, sizeof der, &len) && len > 0)
        return take_id(bk_public_from_spki(&pub, der, len, err), &pub, id, known);
    return BK_OK;
}

static enum bk_code
id_of(struct p11_session *s, CK_OBJECT_HANDLE object, CK_OBJECT_CLASS class, struct bk_key_id *id, int *known,
      struct bk_err *err)
{
    struct bk_public pub = {0};

    *known = 0;
    if (class == CKO_CERTIFICATE)
        return take_id(p11_public_from_certificate(s, object, &pub, NULL, err), &pub, id, known);
    if (class != CKO_SECRET_KEY)
        return id_of_key(s, object, class, id, known, err);
    *known = p11_object_bytes(s, object, CKA_ID, id->bytes, sizeof id->bytes, &id->len);
    return BK_OK;
}

/* 1 if a private key beside a public half that was found is really its own. */
static enum bk_code
has_private(struct p11_session *s, CK_OBJECT_HANDLE object, const struct bk_key_id *wanted, int *out,
            struct bk_err *err)
{
    struct p11_handles found = {0};
    uint8_t bytes[P11_ATTRIBUTE_MAX];
    size_t len = 0;
    CK_ATTRIBUTE id = {CKA_ID, bytes, 0};
    enum bk_code rc = BK_OK;

    if (!p11_object_bytes(s, object, CKA_ID, bytes, sizeof bytes, &len) || len == 0)
        return BK_OK;
    id.ulValueLen = (CK_ULONG)len;
    if ((rc = p11_object_find(s, CKO_PRIVATE_KEY, NULL, &id, &found, err)) != BK_OK)
        return rc;
    for (size_t i = 0; rc == BK_OK && i < found.count && !*out; i++) {
        struct p11_traits t = {0};
        struct bk_public pub = {0};

        rc = p11_traits_read(s, found.at[i], CKO_PRIVATE_KEY, &t, err);
        if (rc == BK_OK && p11_public_half(s, found.at[i], &t, &pub, NULL) == BK_OK)
            *out = bk_key_id_equal(&pub.id, wanted);
        bk_public_free(&pub);
    }
    p11_handles_free(&found);
    return rc;
}

static enum bk_code
look(struct p11_session *s, CK_OBJECT_CLASS class, struct holding *h, struct bk_err *err)
{
    struct p11_handles found = {0};
    enum bk_code rc = p11_object_find(s, class, NULL, NULL, &found, err);

    for (size_t i = 0; rc == BK_OK && i < found.count; i++) {
        struct bk_key_id id = {0};
        size_t which;
        int known;

        if ((rc = id_of(s, found.at[i], class, &id, &known, err)) != BK_OK)
            break;
        if (!known || (which = index_of(h, &id)) == h->count)
            continue;
        if (class == CKO_PRIVATE_KEY || class == CKO_SECRET_KEY)
            h->holds[which] = 1;
        else
            rc = has_private(s, found.at[i], &h->ids[which], &h->holds[which], err);
    }
    p11_handles_free(&found);
    return rc != BK_OK ? rc : p11_object_check(s, err);
}

static enum bk_code
look_step(struct p11_key *key, void *args, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; rc == BK_OK && i < P11_CLASSES; i++)
        rc = look(&key->session, p11_classes[i].class, args, err);
    return rc;
}

enum bk_code
p11_same_login_holds(struct bk_key *base, const struct bk_key_id *ids, size_t count, int *holds, struct bk_err *err)
{
    struct p11_key *key = p11_key_of(base);
    struct holding h = {.ids = ids, .count = count, .holds = holds};

    if (key == NULL)
        return bk_fail(err, BK_E_INTERNAL, "the key is on no token");
    if (count > P11_SAME_LOGIN_MAX)
        return bk_fail(err, BK_E_INTERNAL, "%zu ids are too many", count);
    memset(holds, 0, count * sizeof *holds);
    return p11_key_run(key, look_step, &h, err);
}
