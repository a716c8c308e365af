#include "ops/recipients.h"

#include <stdlib.h>
#include <string.h>

#include "base/keywrap.h"
#include "format/envelope.h"
#include "format/pem.h"
#include "store/read_all.h"

#define RECIPIENT_FILE_MAX (1024 * 1024)

static void
recipient_free(struct ops_recipient *r)
{
    bk_key_close(r->key);
    bk_public_free(&r->pub);
    free(r->uri);
    *r = (struct ops_recipient){0};
}

void
ops_recipients_free(struct ops_recipients *r)
{
    for (size_t i = 0; i < r->count; i++)
        recipient_free(&r->items[i]);
    free(r->items);
    *r = (struct ops_recipients){0};
}

/* Moves *item in, also on failure (then it is freed). */
static enum bk_code
append(struct ops_recipients *r, struct ops_recipient *item, struct bk_err *err)
{
    struct ops_recipient *items;
    char id[BK_KEY_ID_TEXT];
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < r->count && rc == BK_OK; i++)
        if (bk_key_id_equal(&r->items[i].pub.id, &item->pub.id))
            rc = bk_fail(err, BK_E_USAGE, "recipient %s is named twice", bk_key_id_text(&item->pub.id, id));
    if (rc == BK_OK)
        rc = ops_token_profiles_check(r->profiles, &item->pub, err);
    if (rc == BK_OK && r->count == BK_RECIPIENTS_MAX)
        rc = bk_fail(err, BK_E_USAGE, "more than %d recipients", BK_RECIPIENTS_MAX);
    items = rc == BK_OK ? reallocarray(r->items, r->count + 1, sizeof *items) : NULL;
    if (rc == BK_OK && items == NULL)
        rc = bk_fail_nomem(err);
    if (rc != BK_OK) {
        recipient_free(item);
        return rc;
    }
    r->items = items;
    r->items[r->count++] = *item;
    *item = (struct ops_recipient){0};
    return BK_OK;
}

enum bk_code
ops_recipients_add_public(struct ops_recipients *r, const struct bk_public *pub, struct bk_err *err)
{
    struct ops_recipient item = {0};
    enum bk_code rc = bk_public_copy(&item.pub, pub, err);

    return rc == BK_OK ? append(r, &item, err) : rc;
}

static enum bk_code
add_uri(struct ops_recipients *r, struct p11 *p11, const char *uri, struct bk_err *err)
{
    struct ops_recipient item = {0};
    enum bk_code rc;

    if ((rc = p11_public(p11, uri, &item.pub, err)) != BK_OK)
        return rc;
    if (item.pub.type == BK_KEY_AES256)
        rc = p11_key_open(p11, uri, P11_USE_WRAP, &item.key, err);
    if (rc == BK_OK && (item.uri = strdup(uri)) == NULL)
        rc = bk_fail_nomem(err);
    if (rc != BK_OK) {
        recipient_free(&item);
        return rc;
    }
    return append(r, &item, err);
}

static enum bk_code
add_file(struct ops_recipients *r, const char *path, struct bk_err *err)
{
    struct bk_buf text = {0};
    struct bk_pem pem = {0};
    enum bk_code rc;

    if ((rc = store_read_all(path, RECIPIENT_FILE_MAX, &text, err)) != BK_OK) {
        rc = rc == BK_E_IO ? (err->code = BK_E_USAGE) : rc;
        goto done;
    }
    if ((rc = bk_pem_parse((const char *)text.data, text.len, &pem, err)) != BK_OK) {
        bk_err_prefix(err, "%s", path);
        goto done;
    }
    for (size_t i = 0; i < pem.count && rc == BK_OK; i++)
        rc = ops_recipients_add_public(r, &pem.keys[i].pub, err);
done:
    bk_pem_free(&pem);
    bk_buf_free(&text);
    return rc;
}

static void
warn_weak(const struct ops_recipients *r, size_t from, const struct bk_log *log)
{
    char id[BK_KEY_ID_TEXT];

    for (size_t i = from; i < r->count; i++) {
        const struct bk_public *pub = &r->items[i].pub;

        if (pub->scheme == BK_SCHEME_RSA_OAEP_SHA1)
            bk_warn(log, "recipient %s: its token opens RSA-OAEP with SHA-1 only; prefer an EC or AES key there",
                    bk_key_id_text(&pub->id, id));
        if (pub->type == BK_KEY_RSA && pub->bits < 3072)
            bk_warn(log, "recipient %s: RSA of %zu bits is below 128-bit strength; use 3072 or more",
                    bk_key_id_text(&pub->id, id), pub->bits);
    }
}

enum bk_code
ops_recipients_add(struct ops_recipients *r, struct p11 *p11, const char *text, const struct bk_log *log,
                   struct bk_err *err)
{
    size_t before = r->count;
    enum bk_code rc;

    if (p11_is_uri(text))
        rc = add_uri(r, p11, text, err);
    else if (strstr(text, "pin-value=") != NULL) /* as the name of a file it would be shown */
        rc = bk_fail(err, BK_E_USAGE, "a recipient with a PIN that does not begin with \"pkcs11:\"");
    else
        rc = add_file(r, text, err);
    if (rc != BK_OK) {
        err->layer = "recipient"; /* as docs/CLI.md names it, over format's own word */
        return rc;
    }
    warn_weak(r, before, log);
    return BK_OK;
}

enum bk_code
ops_recipient_wrap(const struct ops_recipient *r, const struct bk_secret *cek, struct bk_wrapped *out,
                   struct bk_err *err)
{
    return r->key != NULL ? bk_key_wrap(r->key, cek, out, err) : bk_public_wrap(&r->pub, cek, out, err);
}

void
ops_signer_close(struct ops_signer *s)
{
    bk_key_close(s->key);
    bk_buf_free(&s->cert);
    *s = (struct ops_signer){0};
}

static enum bk_code
certificate_from_file(struct ops_signer *s, const char *path, struct bk_err *err)
{
    struct bk_buf text = {0};
    struct bk_pem pem = {0};
    enum bk_code rc;

    if ((rc = store_read_all(path, RECIPIENT_FILE_MAX, &text, err)) != BK_OK) {
        rc = rc == BK_E_IO ? (err->code = BK_E_USAGE) : rc;
        goto done;
    }
    if ((rc = bk_pem_parse((const char *)text.data, text.len, &pem, err)) != BK_OK) {
        bk_err_prefix(err, "%s", path);
        goto done;
    }
    for (size_t i = 0; i < pem.count; i++)
        if (pem.keys[i].cert.len > 0 && bk_key_id_equal(&pem.keys[i].pub.id, &s->key->pub.id)) {
            rc = bk_buf_append(&s->cert, pem.keys[i].cert.data, pem.keys[i].cert.len, err);
            goto done;
        }
    rc = bk_fail(err, BK_E_USAGE, "%s: holds no certificate of the signing key", path);
done:
    bk_pem_free(&pem);
    bk_buf_free(&text);
    return rc;
}

static enum bk_code
certificate_is_of_key(const struct ops_signer *s, struct bk_err *err)
{
    struct bk_cert_info info = {0};
    enum bk_code rc = bk_cert_parse(s->cert.data, s->cert.len, &info, err);

    if (rc == BK_OK && !bk_key_id_equal(&info.pub.id, &s->key->pub.id))
        rc = bk_fail(err, BK_E_USAGE, "the certificate is not of the signing key");
    if (rc == BK_OK && info.ski_len == 0)
        rc = bk_fail(err, BK_E_USAGE, "the signing certificate has no subject key identifier");
    bk_cert_info_free(&info);
    return rc;
}

enum bk_code
ops_signer_open(struct ops_signer *s, struct p11 *p11, const char *uri, const char *cert_path, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = p11_key_open(p11, uri, P11_USE_SIGN, &s->key, err)) != BK_OK)
        goto done;
    rc = cert_path != NULL ? certificate_from_file(s, cert_path, err) : p11_certificate(s->key, &s->cert, err);
    if (rc == BK_E_NO_KEY && cert_path == NULL)
        bk_err_hint(err, "give its certificate with --sign-cert FILE");
    if (rc == BK_OK)
        rc = certificate_is_of_key(s, err);
done:
    if (rc != BK_OK) {
        err->layer = "signer";
        ops_signer_close(s);
    }
    return rc;
}
