#include "format/pem.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/pem.h>

#include "format/record.h"

#define BOUNDARY  "-----"
#define BEGIN     "-----BEGIN "
#define KIND_MAX  64
#define VALUE_MAX BK_TEXT_MAX

static const char kind_cert[] = "CERTIFICATE";
static const char kind_public[] = "PUBLIC KEY";
static const char private_end[] = "PRIVATE KEY-----"; /* of PKCS#8, encrypted PKCS#8, and the older forms */

/* Where the reading stands, and the attributes since the last block. */
struct scan {
    const char *text;
    size_t len;
    size_t pos;
    size_t line; /* number of the line that was read last */
    int attributes;
    enum bk_scheme scheme;
    char uri[VALUE_MAX + 1];
};

void
bk_pem_free(struct bk_pem *p)
{
    for (size_t i = 0; i < p->count; i++) {
        bk_public_free(&p->keys[i].pub);
        bk_buf_free(&p->keys[i].cert);
    }
    free(p->keys);
    *p = (struct bk_pem){0};
}

/* Every failure of this file says what it is about. */
static enum bk_code
finish(enum bk_code rc, struct bk_err *err)
{
    rc = bk_crypto_end(rc, err);
    if (rc != BK_OK) {
        bk_err_prefix(err, "PEM");
        bk_err_layer(err, "pem");
    }
    return rc;
}

/* The next line without its end and trailing blanks; 0 when there is none. */
static int
next_line(struct scan *s, const char **line, size_t *len)
{
    size_t rest = s->len - s->pos;
    const char *start;
    const char *end;

    if (rest == 0)
        return 0;
    start = s->text + s->pos;
    end = memchr(start, '\n', rest);
    *len = end == NULL ? rest : (size_t)(end - start);
    s->pos += end == NULL ? rest : *len + 1;
    s->line++;
    while (*len > 0 && (start[*len - 1] == '\r' || start[*len - 1] == ' ' || start[*len - 1] == '\t'))
        (*len)--;
    *line = start;
    return 1;
}

/* ---- attributes ---- */

static enum bk_code
set_scheme(struct scan *s, const char *value, struct bk_err *err)
{
    if (s->scheme != BK_SCHEME_NONE)
        return bk_fail(err, BK_E_USAGE, "line %zu: bk-scheme for the second time", s->line);
    s->scheme = bk_scheme_from_name(value);
    if (s->scheme == BK_SCHEME_NONE)
        return bk_fail(err, BK_E_USAGE, "line %zu: bk-scheme: no scheme of that name is known", s->line);
    return BK_OK;
}

static enum bk_code
set_uri(struct scan *s, const char *value, struct bk_err *err)
{
    if (s->uri[0] != '\0')
        return bk_fail(err, BK_E_USAGE, "line %zu: bk-uri for the second time", s->line);
    if (!bk_hint_uri_valid(value))
        return bk_fail(err, BK_E_USAGE, "line %zu: bk-uri: not a pkcs11: URI without PIN and module", s->line);
    memcpy(s->uri, value, strlen(value) + 1);
    return BK_OK;
}

/* A line of text: an attribute if it begins with "bk-", else none of our business. */
static enum bk_code
read_text(struct scan *s, const char *line, size_t len, struct bk_err *err)
{
    char value[VALUE_MAX + 1];
    const char *colon = memchr(line, ':', len);
    size_t name;
    size_t at;

    if (len < 3 || memcmp(line, "bk-", 3) != 0)
        return BK_OK;
    name = colon == NULL ? len : (size_t)(colon - line);
    for (at = name + 1; at < len && line[at] == ' '; at++)
        ;
    if (colon == NULL || at >= len || len - at > VALUE_MAX || !bk_text_valid(line + at, len - at))
        return bk_fail(err, BK_E_USAGE, "line %zu: not of the form \"bk-name: value\"", s->line);
    memcpy(value, line + at, len - at);
    value[len - at] = '\0';
    s->attributes = 1;
    if (name == 9 && memcmp(line, "bk-scheme", name) == 0)
        return set_scheme(s, value, err);
    if (name == 6 && memcmp(line, "bk-uri", name) == 0)
        return set_uri(s, value, err);
    return bk_fail(err, BK_E_USAGE, "line %zu: an attribute that this program does not know; made by a newer version?",
                   s->line);
}

static enum bk_code
apply_attributes(struct scan *s, size_t begin, struct bk_public *pub, struct bk_err *err)
{
    int rsa_sha1 = pub->type == BK_KEY_RSA && s->scheme == BK_SCHEME_RSA_OAEP_SHA1;

    /* bk_public_from_spki has set the one scheme of the type; only RSA has another */
    if (s->scheme != BK_SCHEME_NONE && s->scheme != pub->scheme && !rsa_sha1)
        return bk_fail(err, BK_E_USAGE, "line %zu: bk-scheme %s does not fit the %s key below it", begin,
                       bk_scheme_name(s->scheme), bk_key_type_name(pub->type));
    if (s->scheme != BK_SCHEME_NONE)
        pub->scheme = s->scheme;
    if (s->uri[0] != '\0' && (pub->uri = strdup(s->uri)) == NULL)
        return bk_fail_nomem(err);
    s->attributes = 0;
    s->scheme = BK_SCHEME_NONE;
    s->uri[0] = '\0';
    return BK_OK;
}

/* ---- blocks ---- */

/* The kind of block that a BEGIN line opens. */
static enum bk_code
read_kind(const struct scan *s, const char *line, size_t len, char kind[KIND_MAX], struct bk_err *err)
{
    size_t head = sizeof BEGIN - 1;
    size_t dashes = sizeof BOUNDARY - 1;
    size_t name = len < head + dashes ? 0 : len - head - dashes;

    if (name == 0 || name >= KIND_MAX || memcmp(line, BEGIN, head) != 0 ||
        memcmp(line + head + name, BOUNDARY, dashes) != 0 || !bk_text_valid(line + head, name))
        return bk_fail(err, BK_E_USAGE, "line %zu: a boundary that does not begin a block", s->line);
    memcpy(kind, line + head, name);
    kind[name] = '\0';
    if (strcmp(kind, kind_cert) != 0 && strcmp(kind, kind_public) != 0)
        return bk_fail(err, BK_E_USAGE, "line %zu: %s is neither a certificate nor a public key", s->line, kind);
    return BK_OK;
}

/* Decodes the block that starts at byte start, and moves the scan behind it. */
static enum bk_code
decode_block(struct scan *s, size_t start, const char *kind, struct bk_buf *der, struct bk_err *err)
{
    BIO *bio = BIO_new_mem_buf(s->text + start, (int)(s->len - start));
    char *name = NULL;
    char *header = NULL;
    unsigned char *data = NULL;
    long len = 0;
    size_t begin = s->line;
    size_t end;
    enum bk_code rc;

    if (bio == NULL)
        return bk_fail_nomem(err);
    if (PEM_read_bio(bio, &name, &header, &data, &len) != 1 || len <= 0 || strcmp(name, kind) != 0 ||
        header[0] != '\0') {
        rc = bk_fail(err, BK_E_USAGE, "line %zu: the block that begins here cannot be decoded", begin);
        goto done;
    }
    end = s->len - (size_t)BIO_pending(bio);
    for (size_t i = s->pos; i < end; i++)
        s->line += s->text[i] == '\n';
    s->pos = end;
    rc = bk_buf_append(der, data, (size_t)len, err);
done:
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(data);
    BIO_free(bio);
    return rc;
}

static enum bk_code
read_key(const char *kind, struct bk_buf *der, struct bk_pem_key *key, struct bk_err *err)
{
    struct bk_cert_info info = {0};
    enum bk_code rc;

    if (strcmp(kind, kind_public) == 0)
        return bk_public_from_spki(&key->pub, der->data, der->len, err);
    if ((rc = bk_cert_parse(der->data, der->len, &info, err)) != BK_OK)
        return rc;
    key->pub = info.pub;
    info.pub = (struct bk_public){0};
    bk_cert_info_free(&info);
    key->cert = *der;
    *der = (struct bk_buf){0};
    return BK_OK;
}

/* Room for one more key, which bk_pem_free then frees however far its reading came. */
static enum bk_code
new_key(struct bk_pem *p, struct bk_pem_key **out, struct bk_err *err)
{
    struct bk_pem_key *keys = realloc(p->keys, (p->count + 1) * sizeof *keys);

    if (keys == NULL)
        return bk_fail_nomem(err);
    p->keys = keys;
    *out = &keys[p->count++];
    **out = (struct bk_pem_key){0};
    return BK_OK;
}

/* A bad key in a file that the caller named is a mistake of configuration, and no archive's verification failed. */
static enum bk_code
blame_caller(enum bk_code rc, struct bk_err *err)
{
    if (rc != BK_E_FORMAT)
        return rc;
    if (err != NULL)
        err->code = BK_E_USAGE;
    return BK_E_USAGE;
}

static enum bk_code
read_block(struct scan *s, const char *line, size_t line_len, struct bk_pem *out, struct bk_err *err)
{
    char kind[KIND_MAX];
    struct bk_pem_key *key = NULL;
    struct bk_buf der = {0};
    size_t begin = s->line;
    enum bk_code rc;

    if ((rc = read_kind(s, line, line_len, kind, err)) != BK_OK)
        goto done;
    if ((rc = decode_block(s, (size_t)(line - s->text), kind, &der, err)) != BK_OK)
        goto done;
    if ((rc = new_key(out, &key, err)) != BK_OK)
        goto done;
    if ((rc = read_key(kind, &der, key, err)) != BK_OK) {
        bk_err_prefix(err, "line %zu", begin);
        rc = blame_caller(rc, err);
        goto done;
    }
    rc = apply_attributes(s, begin, &key->pub, err);
done:
    bk_buf_free(&der);
    return rc;
}

/* Before anything is decoded: with a private key in it, this file is a leak wherever it lies. */
static enum bk_code
refuse_private(const struct scan *s, struct bk_err *err)
{
    size_t line = 1;
    const char *found = s->len == 0 ? NULL : memmem(s->text, s->len, private_end, sizeof private_end - 1);
    enum bk_code rc;

    if (found == NULL)
        return BK_OK;
    for (const char *c = s->text; c < found; c++)
        line += *c == '\n';
    rc = bk_fail(err, BK_E_USAGE, "line %zu: a private key, which must not be where this file is", line);
    bk_err_hint(err, "remove that file from here, treat the key as disclosed, and give bk its certificate or public "
                     "key alone");
    return rc;
}

static enum bk_code
read_all(struct scan *s, struct bk_pem *out, struct bk_err *err)
{
    const char *line = NULL;
    size_t len = 0;
    enum bk_code rc;

    if (s->len > INT_MAX)
        return bk_fail(err, BK_E_USAGE, "%zu bytes are no file of certificates and public keys", s->len);
    if ((rc = refuse_private(s, err)) != BK_OK)
        return rc;
    while (next_line(s, &line, &len)) {
        if (len >= sizeof BOUNDARY - 1 && memcmp(line, BOUNDARY, sizeof BOUNDARY - 1) == 0)
            rc = read_block(s, line, len, out, err);
        else
            rc = read_text(s, line, len, err);
        if (rc != BK_OK)
            return rc;
    }
    if (s->attributes)
        return bk_fail(err, BK_E_USAGE, "line %zu: the bk- attributes at the end have no block below them; cut short?",
                       s->line);
    if (out->count == 0)
        return bk_fail(err, BK_E_USAGE, "no certificate and no public key in it");
    return BK_OK;
}

enum bk_code
bk_pem_parse(const char *text, size_t len, struct bk_pem *out, struct bk_err *err)
{
    struct scan s = {.text = text, .len = len};
    struct bk_pem p = {0};
    enum bk_code rc = read_all(&s, &p, err);

    if (rc == BK_OK)
        *out = p;
    else
        bk_pem_free(&p);
    return finish(rc, err);
}

/* ---- writing ---- */

static enum bk_code
put_line(struct bk_buf *out, const char *head, const char *text, size_t len, struct bk_err *err)
{
    enum bk_code rc;

    if (len > 0 && !bk_text_valid(text, len))
        return bk_fail(err, BK_E_USAGE, "text above a block has control characters, is not UTF-8, or is too long");
    if ((rc = bk_buf_append(out, head, strlen(head), err)) != BK_OK)
        return rc;
    if ((rc = bk_buf_append(out, text, len, err)) != BK_OK)
        return rc;
    return bk_buf_append(out, "\n", 1, err);
}

/* Behind "# ", no line of it can be taken for an attribute or a boundary. */
static enum bk_code
put_comment(struct bk_buf *out, const char *comment, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    while (rc == BK_OK && *comment != '\0') {
        size_t len = strcspn(comment, "\n");

        rc = put_line(out, "# ", comment, len, err);
        comment += len;
        comment += *comment == '\n';
    }
    return rc;
}

static enum bk_code
put_attributes(struct bk_buf *out, const struct bk_public *pub, struct bk_err *err)
{
    const char *scheme = bk_scheme_name(pub->scheme);
    enum bk_code rc = BK_OK;

    if (pub->scheme != BK_SCHEME_NONE)
        rc = put_line(out, "bk-scheme: ", scheme, strlen(scheme), err);
    if (rc != BK_OK || pub->uri == NULL)
        return rc;
    if (!bk_hint_uri_valid(pub->uri))
        return bk_fail(err, BK_E_INTERNAL, "bk-uri: not a pkcs11: URI without PIN and module");
    return put_line(out, "bk-uri: ", pub->uri, strlen(pub->uri), err);
}

static enum bk_code
put_block(struct bk_buf *out, const char *kind, const uint8_t *der, size_t len, struct bk_err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    long text_len;
    enum bk_code rc;

    if (bio == NULL)
        return bk_fail_nomem(err);
    if (PEM_write_bio(bio, kind, "", der, (long)len) > 0 && (text_len = BIO_get_mem_data(bio, &text)) > 0)
        rc = bk_buf_append(out, text, (size_t)text_len, err);
    else
        rc = bk_fail(err, BK_E_INTERNAL, "cannot encode a block");
    BIO_free(bio);
    return rc;
}

/* The certificate must be of this key, or its attributes would stand above another's. */
static enum bk_code
check_cert(const struct bk_public *pub, const struct bk_buf *cert, struct bk_err *err)
{
    struct bk_cert_info info = {0};
    enum bk_code rc = bk_cert_parse(cert->data, cert->len, &info, err);

    if (rc == BK_OK && !bk_key_id_equal(&info.pub.id, &pub->id))
        rc = bk_fail(err, BK_E_USAGE, "the certificate is not of this key");
    bk_cert_info_free(&info);
    return rc;
}

enum bk_code
bk_pem_write(const struct bk_public *pub, const struct bk_buf *cert, const char *comment, struct bk_buf *out,
             struct bk_err *err)
{
    size_t start = out->len;
    enum bk_code rc;

    if (pub->spki == NULL) {
        rc = bk_fail(err, BK_E_UNSUPPORTED, "a secret key has no public half to write");
        goto done;
    }
    if (cert != NULL && (rc = check_cert(pub, cert, err)) != BK_OK)
        goto done;
    if (comment != NULL && (rc = put_comment(out, comment, err)) != BK_OK)
        goto done;
    if ((rc = put_attributes(out, pub, err)) != BK_OK)
        goto done;
    rc = cert == NULL ? put_block(out, kind_public, pub->spki, pub->spki_len, err)
                      : put_block(out, kind_cert, cert->data, cert->len, err);
done:
    if (rc != BK_OK)
        out->len = start;
    return finish(rc, err);
}
