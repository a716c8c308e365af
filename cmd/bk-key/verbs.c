#include "cmd/bk-key/verbs.h"

#include <string.h>

#include "base/hash.h"
#include "base/time.h"
#include "format/manifest.h"
#include "format/pem.h"
#include "ops/trust.h"
#include "store/sink.h"

#define DAY_SECONDS 86400
/* Clocks differ; a certificate should not be younger than the first archive that it signs elsewhere. */
#define CLOCK_SLACK_SECONDS 300

static enum bk_code
write_pem(struct store_sink *sink, const struct bk_public *pub, const struct bk_buf *cert, struct bk_err *err)
{
    struct bk_buf text = {0};
    enum bk_code rc = bk_pem_write(pub, cert, NULL, &text, err);

    if (rc == BK_OK)
        rc = store_sink_write(sink, text.data, text.len, err);
    bk_buf_free(&text);
    return rc;
}

/* Percent-decoding (RFC 3986 section 2.1) of what the token layer wrote into its own URI. */
static void
decode(const char *from, size_t len, char *out, size_t room)
{
    size_t used = 0;

    for (size_t i = 0; i < len && used + 1 < room; i++) {
        char hex[3] = {0};
        uint8_t byte;

        if (from[i] == '%' && i + 2 < len) {
            memcpy(hex, from + i + 1, 2);
            if (bk_unhex(hex, &byte, 1)) {
                out[used++] = (char)byte;
                i += 2;
                continue;
            }
        }
        out[used++] = from[i];
    }
    out[used] = '\0';
}

/* The name in the certificate: the owner, or the object's label from the key's own URI. */
static const char *
certificate_name(const struct key_args *a, const struct bk_key *key, char *room, size_t len)
{
    const char *object = key->pub.uri == NULL ? NULL : strstr(key->pub.uri, "object=");

    if (a->owner != NULL)
        return a->owner;
    if (object == NULL)
        (void)snprintf(room, len, "bk");
    else
        decode(object + 7, strcspn(object + 7, ";?"), room, len);
    return bk_text_valid(room, strlen(room)) ? room : "bk";
}

static enum bk_code
certify(const struct key_args *a, struct bk_key *key, struct bk_buf *cert, struct bk_err *err)
{
    time_t now = bk_time_now();
    char room[65];
    const char *name = certificate_name(a, key, room, sizeof room);
    enum bk_code rc =
        bk_cert_self_sign(key, name, now - CLOCK_SLACK_SECONDS, now + (time_t)a->days * DAY_SECONDS, cert, err);

    if (rc == BK_OK)
        rc = p11_certificate_store(key, cert->data, cert->len, err);
    return rc;
}

static enum bk_code
make_key(struct p11 *p11, const struct key_args *a, struct bk_key **key, struct bk_buf *cert, struct bk_err *err)
{
    const struct p11_generate what = {.kind = a->type,
                                      .signing = strcmp(a->use, "sign") == 0,
                                      .sealed = strcmp(a->use, "rotate") == 0,
                                      .owner = a->owner};
    struct bk_err ignored = {0};
    enum bk_code rc;

    if ((rc = p11_key_generate(p11, a->uri, &what, key, err)) != BK_OK)
        return rc;
    if (!what.signing || (rc = certify(a, *key, cert, err)) == BK_OK)
        return BK_OK;
    /* a signing key without its certificate is of no use, and its label would be in the way of the next try */
    if (p11_key_destroy(*key, &ignored) != BK_OK)
        bk_err_hint(err, "the key that was made could not be removed again: %s", ignored.message);
    return rc;
}

static json_t *
key_json(const struct bk_public *pub)
{
    char id[BK_KEY_ID_TEXT], fingerprint[OPS_FINGERPRINT_TEXT];

    return json_pack("{s:s, s:s, s:s, s:s?, s:s?}", "keyId", bk_key_id_text(&pub->id, id), "type",
                     bk_key_type_name(pub->type), "scheme", bk_scheme_name(pub->scheme), "uri", pub->uri, "fingerprint",
                     pub->spki == NULL ? NULL : ops_fingerprint_text(pub, fingerprint));
}

static enum bk_code
tell_key(struct cmd *c, const struct bk_public *pub, struct bk_err *err)
{
    char id[BK_KEY_ID_TEXT], fingerprint[OPS_FINGERPRINT_TEXT];

    if (c->json != NULL)
        return cmd_json(c, NULL, BK_OK, err, NULL, 0, key_json(pub), err);
    (void)printf("uri          %s\nkey id       %s\ntype         %s\n", pub->uri == NULL ? "-" : pub->uri,
                 bk_key_id_text(&pub->id, id), bk_key_type_name(pub->type));
    if (pub->scheme != BK_SCHEME_NONE)
        (void)printf("scheme       %s\n", bk_scheme_name(pub->scheme));
    if (pub->spki != NULL)
        (void)printf("fingerprint  %s\n", ops_fingerprint_text(pub, fingerprint));
    return fflush(stdout) == 0 ? BK_OK : bk_fail(err, BK_E_IO, "cannot write to standard output");
}

static enum bk_code
generate(struct cmd *c, struct p11 *p11, const struct key_args *a, struct bk_err *err)
{
    struct store_sink *sink = NULL;
    struct bk_key *key = NULL;
    struct bk_buf cert = {0};
    enum bk_code rc = BK_OK;

    /* before a key is made, since an output that cannot be written would leave one behind */
    if (a->output != NULL && (rc = store_sink_open(a->output, a->force, &c->cancel, &sink, err)) != BK_OK)
        goto done;
    if ((rc = make_key(p11, a, &key, &cert, err)) != BK_OK)
        goto done;
    if ((rc = tell_key(c, &key->pub, err)) != BK_OK || sink == NULL)
        goto done;
    rc = write_pem(sink, &key->pub, cert.len > 0 ? &cert : NULL, err);
    if (rc == BK_OK) {
        struct store_sink *ready = sink;

        sink = NULL;
        rc = store_sink_publish(ready, err);
    }
    if (rc != BK_OK)
        bk_err_hint(err, "the key is on the token; bk-key export writes its public half again");
done:
    store_sink_discard(sink);
    bk_key_close(key);
    bk_buf_free(&cert);
    return rc;
}

static enum bk_code
load_signer(struct p11 *p11, const char *uri, struct bk_public *pub, struct bk_buf *cert, struct bk_err *err)
{
    struct bk_key *key = NULL;
    enum bk_code rc = p11_key_open(p11, uri, P11_USE_SIGN, &key, err);

    if (rc == BK_OK)
        rc = p11_certificate(key, cert, err);
    if (rc == BK_OK)
        rc = bk_public_copy(pub, &key->pub, err);
    bk_key_close(key);
    return rc;
}

static enum bk_code
export_key(struct cmd *c, struct p11 *p11, const struct key_args *a, struct bk_err *err)
{
    enum key_named named;
    struct store_sink *sink = NULL;
    struct bk_public pub = {0};
    struct bk_buf cert = {0};
    enum bk_code rc;

    if ((rc = key_what_is(p11, a->uri, &named, err)) != BK_OK)
        goto done;
    rc = named == KEY_NAMED_SIGNER ? load_signer(p11, a->uri, &pub, &cert, err) : p11_public(p11, a->uri, &pub, err);
    if (rc == BK_OK && pub.spki == NULL)
        rc = bk_fail(err, BK_E_USAGE, "a secret key has no public half; name it by its URI as a recipient");
    if (rc != BK_OK)
        goto done;
    rc = store_sink_open(a->output == NULL ? "-" : a->output, a->force, &c->cancel, &sink, err);
    if (rc == BK_OK)
        rc = write_pem(sink, &pub, cert.len > 0 ? &cert : NULL, err);
    if (rc == BK_OK) {
        struct store_sink *ready = sink;

        sink = NULL;
        rc = store_sink_publish(ready, err);
    }
    if (rc == BK_OK && c->json != NULL)
        rc = cmd_json(c, NULL, BK_OK, err, NULL, 0, key_json(&pub), err);
done:
    store_sink_discard(sink);
    bk_public_free(&pub);
    bk_buf_free(&cert);
    return rc;
}

enum bk_code
key_run(struct cmd *c, const struct key_args *a, struct bk_err *err)
{
    struct p11 *p11;
    enum bk_code rc;

    if (a->uri != NULL)
        cmd_warn_pin_value(c, a->uri);
    if ((rc = cmd_p11(c, &p11, err)) != BK_OK)
        return rc;
    switch (a->verb) {
    case KEY_GENERATE:
        return generate(c, p11, a, err);
    case KEY_EXPORT:
        return export_key(c, p11, a, err);
    case KEY_AUDIT:
        return key_audit(c, p11, a, err);
    case KEY_PROBE:
        return key_probe(c, p11, a, err);
    case KEY_LIST:
    case KEY_SHOW:
        return key_list(c, p11, a, err);
    }
    return bk_fail(err, BK_E_INTERNAL, "verb %d is in no table", (int)a->verb);
}
