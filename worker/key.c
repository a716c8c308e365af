/* A key behind base/keys.h whose work a worker does. */
#include <stdlib.h>
#include <string.h>

#include "worker/client.h"

struct remote_key {
    struct bk_key base;
    struct p11_token *token;
    enum p11_use use;
    unsigned life; /* the worker's, for which number holds */
    uint32_t number;
};

/* NULL if the key is not of this file. */
static struct remote_key *remote_of(struct bk_key *key);

/* Of a key whose operation is being called, so that it is one of ours. */
static struct remote_key *
own(struct bk_key *key)
{
    return (struct remote_key *)(void *)key; /* base is the first member */
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

/* The number of a key, what it can do, and its public half, up to the end of the result. */
struct told_key {
    uint32_t number;
    int signs, wraps;
    struct bk_public pub;
};

static enum bk_code
get_key(struct p11_token *t, struct request *r, struct told_key *told, struct bk_err *err)
{
    enum bk_code rc;

    told->number = wire_get_u32(&r->in);
    told->signs = wire_get_flag(&r->in);
    told->wraps = wire_get_flag(&r->in);
    wire_get_public(&r->in, &told->pub);
    if ((rc = worker_result_end(t->worker, r, err)) != BK_OK)
        bk_public_free(&told->pub);
    return rc;
}

static int
is_same_key(const struct bk_public *a, const struct bk_public *b)
{
    return a->type == b->type && bk_key_id_equal(&a->id, &b->id) && a->spki_len == b->spki_len &&
           (a->spki == NULL) == (b->spki == NULL) && (a->spki == NULL || memcmp(a->spki, b->spki, a->spki_len) == 0);
}

/* Finds the key with a worker that does not know it. */
static enum bk_code
find_again(struct remote_key *key, struct bk_err *err)
{
    struct p11_token *t = key->token;
    struct request r = {.upkeep = 1};
    struct p11_uri login = {0};
    struct told_key told = {0};
    int found = 0;
    enum bk_code rc = BK_OK;

    pthread_mutex_lock(&t->lock);
    if (t->login.kit != NULL)
        rc = p11_uri_make(&login, t->uri, t->login.pin_source, &t->login.pin_value, err);
    pthread_mutex_unlock(&t->lock);
    if (rc != BK_OK)
        return rc;
    request_begin(&r, WIRE_FIND_KEY);
    wire_put_uri(&r.out, login.kit == NULL ? NULL : &login);
    r.secret = &login.pin_value;
    r.pin_source = login.pin_source;
    wire_put_u32(&r.out, (uint32_t)key->use);
    wire_put_ids(&r.out, &key->base.pub.id, 1);
    if ((rc = token_request(t, &r, err)) != BK_OK)
        goto done;
    found = wire_get_flag(&r.in);
    (void)wire_get_u32(&r.in);
    rc = found ? get_key(t, &r, &told, err) : worker_result_end(t->worker, &r, err);
    if (rc == BK_OK && (!found || !is_same_key(&told.pub, &key->base.pub)))
        rc = bk_fail(err, BK_E_NO_KEY, "%s: the key %s is not there any more", t->where, key->base.pub.uri);
    if (rc == BK_OK) {
        key->number = told.number;
        key->life = r.life;
    }
    bk_public_free(&told.pub);
done:
    request_free(&r);
    p11_uri_free(&login);
    return rc;
}

/* One request that begins with the number of key and, unless NULL, that of second, which is of the same worker. */
static enum bk_code
key_request(struct remote_key *key, struct remote_key *second, struct request *r, struct bk_err *err)
{
    enum bk_code rc = BK_E_INTERNAL;
    unsigned failures = 0;

    r->token = key->token; /* some keys want the PIN before each use */
    for (int tries = 0; tries < 4; tries++) {
        r->life = key->life;
        request_set_number(r, 0, key->number);
        if (second != NULL)
            request_set_number(r, 1, second->number);
        rc = worker_request(key->token->worker, r, err);
        if (rc == BK_OK || !worker_may_go_on(key->token->worker, r, rc, &failures))
            return rc;
        if ((rc = find_again(key, err)) != BK_OK)
            return rc;
        if (second != NULL && second->life != key->life && (rc = find_again(second, err)) != BK_OK)
            return rc;
    }
    return rc;
}

/* Requests that have no result but their code. */
static enum bk_code
key_tell(struct remote_key *key, struct request *r, struct bk_err *err)
{
    enum bk_code rc = key_request(key, NULL, r, err);

    if (rc == BK_OK)
        rc = worker_result_end(key->token->worker, r, err);
    request_free(r);
    return rc;
}

/* --- base/keys.h -------------------------------------------------------------------------------------------------- */

/* Of the length that a secret key's scheme gives. */
static int
has_its_length(const struct bk_wrapped *w)
{
    switch (w->scheme) {
    case BK_SCHEME_AES_KW:
        return w->len == BK_AESKW_LEN;
    case BK_SCHEME_AES_GCM:
        return w->len == BK_AESGCM_LEN;
    case BK_SCHEME_YUBIHSM_CCM:
        return w->len >= BK_CCM_MIN && w->len <= BK_CCM_MAX;
    default:
        return 0;
    }
}

/* It was wrapped to that key, and by what a secret key can. */
static enum bk_code
check_wrapped(const struct remote_key *to, const struct bk_wrapped *w, struct bk_err *err)
{
    if (has_its_length(w) && w->ephemeral_len == 0 && bk_key_id_equal(&w->id, &to->base.pub.id))
        return BK_OK;
    return bk_fail(err, BK_E_TOKEN, "%s: what came back is not a data key wrapped to %s", to->token->where,
                   to->base.pub.uri == NULL ? "this key" : to->base.pub.uri);
}

static enum bk_code
get_wrapped(const struct remote_key *to, struct request *r, struct bk_wrapped *out, struct bk_err *err)
{
    struct bk_wrapped w = {0};
    enum bk_code rc;

    wire_get_wrapped(&r->in, &w);
    if ((rc = worker_result_end(to->token->worker, r, err)) == BK_OK)
        rc = check_wrapped(to, &w, err);
    if (rc == BK_OK)
        *out = w;
    return rc;
}

static enum bk_code
remote_wrap(struct bk_key *base, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    struct remote_key *key = own(base);
    struct request r = {.secret = cek};
    enum bk_code rc;

    request_begin(&r, WIRE_WRAP);
    if ((rc = key_request(key, NULL, &r, err)) == BK_OK)
        rc = get_wrapped(key, &r, out, err);
    request_free(&r);
    return rc;
}

static enum bk_code
remote_unwrap(struct bk_key *base, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    struct remote_key *key = own(base);
    struct request r = {0};
    enum bk_code rc;

    request_begin(&r, WIRE_UNWRAP);
    wire_put_wrapped(&r.out, in);
    if ((rc = key_request(key, NULL, &r, err)) == BK_OK)
        rc = worker_result_end(key->token->worker, &r, err);
    if (rc == BK_OK && r.in.secret.len != BK_CEK_LEN)
        rc = bk_fail(err, BK_E_TOKEN, "%s: a data key of %zu bytes came back", key->token->where, r.in.secret.len);
    if (rc == BK_OK)
        bk_secret_move(cek, &r.in.secret);
    request_free(&r);
    return rc;
}

static enum bk_code
take_rewrapped(struct remote_key *key, struct remote_key *to, struct request *r, struct bk_wrapped *out,
               struct bk_err *err)
{
    struct bk_wrapped w = {0};
    int enforces[2];
    enum bk_code rc;

    wire_get_wrapped(&r->in, &w);
    enforces[0] = wire_get_flag(&r->in);
    enforces[1] = wire_get_flag(&r->in);
    if ((rc = worker_result_end(key->token->worker, r, err)) == BK_OK)
        rc = check_wrapped(to, &w, err);
    if (rc != BK_OK)
        return rc;
    key->base.enforces = enforces[0];
    to->base.enforces = enforces[1];
    *out = w;
    return BK_OK;
}

static enum bk_code
remote_rewrap(struct bk_key *base, const struct bk_wrapped *in, struct bk_key *to_base, struct bk_wrapped *out,
              struct bk_err *err)
{
    struct remote_key *key = own(base);
    struct remote_key *to = remote_of(to_base);
    struct request r = {0};
    enum bk_code rc;

    if (to == NULL || to->token != key->token)
        return bk_fail(err, BK_E_UNSUPPORTED, "blind rotation needs both keys on one token");
    request_begin(&r, WIRE_REWRAP);
    wire_put_u32(&r.out, 0);
    wire_put_wrapped(&r.out, in);
    if (to->life != key->life && (rc = find_again(to, err)) != BK_OK)
        goto done;
    if ((rc = key_request(key, to, &r, err)) == BK_OK)
        rc = take_rewrapped(key, to, &r, out, err);
done:
    request_free(&r);
    return rc;
}

static enum bk_code
remote_sign(struct bk_key *base, const uint8_t digest[32], enum bk_sig_alg alg, uint8_t *sig, size_t *sig_len,
            struct bk_err *err)
{
    struct remote_key *key = own(base);
    struct request r = {0};
    const uint8_t *made;
    size_t len = 0;
    enum bk_code rc;

    if (alg != bk_sig_alg_for(base->pub.type))
        return bk_fail(err, BK_E_UNSUPPORTED, "sign: not the algorithm for a key of type %s",
                       bk_key_type_name(base->pub.type));
    request_begin(&r, WIRE_SIGN);
    wire_put_bytes(&r.out, digest, 32);
    if ((rc = key_request(key, NULL, &r, err)) != BK_OK)
        goto done;
    made = wire_get_bytes(&r.in, &len);
    rc = worker_result_end(key->token->worker, &r, err);
    if (rc == BK_OK && len > *sig_len)
        rc = bk_fail(err, BK_E_INTERNAL, "sign: room for %zu bytes, %zu are needed", *sig_len, len);
    if (rc == BK_OK) {
        memcpy(sig, made, len);
        *sig_len = len;
    }
done:
    request_free(&r);
    return rc;
}

/* A worker that died has closed it already. */
static void
remote_close(struct bk_key *base)
{
    struct remote_key *key = own(base);
    struct request r = {.upkeep = 1, .life = key->life};

    request_begin(&r, WIRE_CLOSE);
    request_set_number(&r, 0, key->number);
    (void)!worker_request(key->token->worker, &r, NULL);
    request_free(&r);
    bk_public_free(&key->base.pub);
    free(key);
}

static const struct bk_key_ops ops_asymmetric = {.unwrap = remote_unwrap, .close = remote_close};
static const struct bk_key_ops ops_secret = {
    .wrap = remote_wrap, .unwrap = remote_unwrap, .rewrap = remote_rewrap, .close = remote_close};
static const struct bk_key_ops ops_sign = {.sign = remote_sign, .close = remote_close};

static struct remote_key *
remote_of(struct bk_key *key)
{
    if (key->ops != &ops_asymmetric && key->ops != &ops_secret && key->ops != &ops_sign)
        return NULL;
    return own(key);
}

/* The default is the strongest for the type; an RSA key may have been seen to open with SHA-1 only, and a key that
 * signs has none. */
static int
is_scheme_for(const struct bk_public *own, enum bk_scheme scheme)
{
    return scheme == own->scheme || scheme == BK_SCHEME_NONE ||
           (own->type == BK_KEY_RSA && scheme == BK_SCHEME_RSA_OAEP_SHA1);
}

enum bk_code
remote_public_check(const struct p11_token *t, const struct bk_public *pub, struct bk_err *err)
{
    struct bk_public own = {0};
    struct bk_err why = {0};
    enum bk_code rc;

    if (pub->spki == NULL && pub->type == BK_KEY_AES256)
        return BK_OK;
    if (pub->spki == NULL)
        rc = bk_fail(&why, BK_E_TOKEN, "it is missing");
    else
        rc = bk_public_from_spki(&own, pub->spki, pub->spki_len, &why);
    if (rc == BK_OK && (!is_same_key(&own, pub) || own.bits != pub->bits || !is_scheme_for(&own, pub->scheme)))
        rc = bk_fail(&why, BK_E_TOKEN, "it is not the one that its id says");
    bk_public_free(&own);
    if (rc == BK_E_NO_ROOM)
        return bk_fail_nomem(err);
    return rc == BK_OK ? BK_OK
                       : bk_fail(err, BK_E_TOKEN, "%s: the public half of %s: %s", t->where,
                                 pub->uri == NULL ? "a key" : pub->uri, why.message);
}

enum bk_code
remote_key_take(struct p11_token *t, enum p11_use use, struct request *r, struct bk_key **out, struct bk_err *err)
{
    struct told_key told = {0};
    struct remote_key *key;
    enum bk_code rc;

    if ((rc = get_key(t, r, &told, err)) != BK_OK)
        return rc;
    if ((rc = remote_public_check(t, &told.pub, err)) != BK_OK) {
        bk_public_free(&told.pub);
        return rc;
    }
    if ((key = calloc(1, sizeof *key)) == NULL) {
        bk_public_free(&told.pub);
        return bk_fail_nomem(err);
    }
    key->base.ops = told.signs ? &ops_sign : told.wraps ? &ops_secret : &ops_asymmetric;
    key->base.pub = told.pub;
    key->token = t;
    key->use = use;
    key->life = r->life;
    key->number = told.number;
    *out = &key->base;
    return BK_OK;
}

/* --- pkcs11/p11.h, what is asked of a key ------------------------------------------------------------------------- */

static struct remote_key *
on_a_token(struct bk_key *base, struct bk_err *err)
{
    struct remote_key *key = remote_of(base);

    if (key == NULL)
        (void)!bk_fail(err, BK_E_INTERNAL, "the key is on no token");
    return key;
}

enum bk_code
p11_certificate(struct bk_key *base, struct bk_buf *der, struct bk_err *err)
{
    struct remote_key *key = on_a_token(base, err);
    struct request r = {0};
    const uint8_t *at;
    size_t len = 0;
    enum bk_code rc;

    if (key == NULL)
        return BK_E_INTERNAL;
    request_begin(&r, WIRE_CERTIFICATE);
    if ((rc = key_request(key, NULL, &r, err)) == BK_OK) {
        at = wire_get_bytes(&r.in, &len);
        rc = worker_result_end(key->token->worker, &r, err);
        if (rc == BK_OK)
            rc = bk_buf_append(der, at, len, err);
    }
    request_free(&r);
    return rc;
}

enum bk_code
p11_same_login_holds(struct bk_key *base, const struct bk_key_id *ids, size_t count, int *holds, struct bk_err *err)
{
    struct remote_key *key = on_a_token(base, err);
    struct request r = {0};
    int told[P11_SAME_LOGIN_MAX];
    enum bk_code rc;

    if (key == NULL)
        return BK_E_INTERNAL;
    if (count > P11_SAME_LOGIN_MAX)
        return bk_fail(err, BK_E_INTERNAL, "%zu ids are too many", count);
    request_begin(&r, WIRE_SAME_LOGIN);
    wire_put_ids(&r.out, ids, count);
    if ((rc = key_request(key, NULL, &r, err)) == BK_OK) {
        for (size_t i = 0; i < count; i++)
            told[i] = wire_get_flag(&r.in);
        rc = worker_result_end(key->token->worker, &r, err);
    }
    if (rc == BK_OK)
        memcpy(holds, told, count * sizeof *holds);
    request_free(&r);
    return rc;
}

/* Storing what is stored, and removing what is removed, does nothing: both may be repeated. */
enum bk_code
p11_certificate_store(struct bk_key *base, const uint8_t *der, size_t len, struct bk_err *err)
{
    struct remote_key *key = on_a_token(base, err);
    struct request r = {0};

    if (key == NULL)
        return BK_E_INTERNAL;
    request_begin(&r, WIRE_STORE_CERTIFICATE);
    wire_put_bytes(&r.out, der, len);
    return key_tell(key, &r, err);
}

enum bk_code
p11_key_destroy(struct bk_key *base, struct bk_err *err)
{
    struct remote_key *key = on_a_token(base, err);
    struct request r = {.once = 1};

    if (key == NULL)
        return BK_E_INTERNAL;
    request_begin(&r, WIRE_DESTROY);
    return key_tell(key, &r, err);
}
