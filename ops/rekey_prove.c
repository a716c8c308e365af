#include "ops/rekey_prove.h"

#include <string.h>

static enum bk_code
prove_with(struct bk_key *key, const struct bk_wrapped *wrapped, const struct bk_secret *cek, struct bk_err *err)
{
    struct bk_secret opened = {0};
    enum bk_code rc = bk_key_unwrap(key, wrapped, &opened, err);

    if (rc == BK_OK && !bk_secret_equal(&opened, cek))
        rc = bk_fail(err, BK_E_VERIFY, "it opens to another data key");
    bk_secret_wipe(&opened);
    return rc;
}

/* What a sealed key opens nobody sees. But RFC 3394 is deterministic: the data key must wrap to these bytes, and these
 * bytes must open in the token to what wraps to them. */
static enum bk_code
prove_sealed(struct bk_key *key, const struct bk_wrapped *wrapped, const struct bk_secret *cek, struct bk_err *err)
{
    struct bk_wrapped again = {0};
    struct bk_wrapped through = {0};
    enum bk_code rc;

    if ((rc = bk_key_wrap(key, cek, &again, err)) != BK_OK)
        return rc;
    if ((rc = bk_key_rewrap(key, wrapped, key, &through, err)) != BK_OK)
        return rc;
    if (again.len != wrapped->len || memcmp(again.data, wrapped->data, again.len) != 0 || through.len != wrapped->len ||
        memcmp(through.data, wrapped->data, through.len) != 0)
        return bk_fail(err, BK_E_VERIFY, "it opens to another data key");
    return BK_OK;
}

static struct bk_key *
among_opened(const struct ops_prover *prover, const struct ops_recipient *recipient)
{
    for (size_t i = 0; i < prover->key_count; i++)
        if (bk_key_id_equal(&prover->keys[i]->pub.id, &recipient->pub.id))
            return prover->keys[i];
    return recipient->key;
}

enum bk_code
ops_prove(const struct ops_prover *prover, const struct ops_recipient *recipient, const struct bk_wrapped *wrapped,
          const struct bk_secret *cek, int *proven, struct bk_err *err)
{
    struct bk_key *key = among_opened(prover, recipient);
    struct bk_key *found = NULL;
    char id[BK_KEY_ID_TEXT];
    size_t which;
    enum bk_code rc;

    *proven = 0;
    if (key == NULL && (recipient->uri == NULL || prover->p11 == NULL))
        return BK_OK;
    if (key == NULL) {
        rc = p11_key_find(prover->p11, recipient->uri, &recipient->pub.id, 1, &which, &found, err);
        if (rc == BK_E_NO_KEY)
            return BK_OK; /* only its public half is there */
        if (rc != BK_OK)
            return rc;
        key = found;
    }
    rc = recipient->pub.sealed ? prove_sealed(key, wrapped, cek, err) : prove_with(key, wrapped, cek, err);
    if (rc != BK_OK)
        bk_err_prefix(err, "the new recipient %s does not open the archive", bk_key_id_text(&wrapped->id, id));
    bk_key_close(found);
    *proven = rc == BK_OK;
    return rc;
}
