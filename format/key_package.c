/*
 * The DER of BkKeyPackage (bk.asn) is written and read by hand: all of it stands in locked memory, and libtasn1 would
 * copy the file key into its own.
 */
#include "format/key_package.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "format/algorithms.h"
#include "format/der.h"
#include "format/manifest.h"
#include "format/payload.h"
#include "format/tlv.h"

#define PACKAGE_VERSION 1
#define TAG_METADATA    0xA0 /* [0] IMPLICIT SEQUENCE OF */

void
bk_key_package_free(struct bk_key_package *k)
{
    bk_secret_wipe(&k->file_key);
    bk_secret_wipe(&k->strings);
    free(k->metadata);
    *k = (struct bk_key_package){0};
}

/* ---- AES-256-GCM under the CEK, without additional data (RFC 5083 section 2.2: there are no authAttrs) ---- */

static int
gcm_start(EVP_CIPHER_CTX *ctx, const struct bk_secret *cek, const uint8_t nonce[BK_GCM_NONCE], int sealing)
{
    return EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, cek->data, nonce, sealing) == 1;
}

static enum bk_code
gcm_seal(const struct bk_secret *cek, const uint8_t nonce[BK_GCM_NONCE], const struct bk_secret *plain, uint8_t *out,
         uint8_t mac[BK_GCM_TAG], struct bk_err *err)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0, end = 0;
    enum bk_code rc = BK_OK;

    if (ctx == NULL || !gcm_start(ctx, cek, nonce, 1) ||
        EVP_CipherUpdate(ctx, out, &n, plain->data, (int)plain->len) != 1 || (size_t)n != plain->len ||
        EVP_CipherFinal_ex(ctx, out + n, &end) != 1 || end != 0 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, BK_GCM_TAG, mac) != 1)
        rc = bk_fail(err, BK_E_INTERNAL, "AES-256-GCM failed");
    EVP_CIPHER_CTX_free(ctx);
    return bk_crypto_end(rc, err);
}

/* plain holds nothing that may be used unless this succeeds. */
static enum bk_code
gcm_open(const struct bk_secret *cek, const struct bk_envelope *e, struct bk_secret *plain, struct bk_err *err)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t mac[BK_GCM_TAG];
    int n = 0, end = 0;
    enum bk_code rc = BK_OK;

    memcpy(mac, e->mac, sizeof mac); /* the control takes a pointer that is not const */
    if (ctx == NULL || !gcm_start(ctx, cek, e->nonce, 0) ||
        EVP_CipherUpdate(ctx, plain->data, &n, e->content.data, (int)e->content.len) != 1 || (size_t)n != plain->len ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, BK_GCM_TAG, mac) != 1)
        rc = bk_fail(err, BK_E_INTERNAL, "AES-256-GCM failed");
    else if (EVP_CipherFinal_ex(ctx, plain->data + n, &end) != 1)
        rc = bk_fail(err, BK_E_VERIFY, "does not open: wrong data key, or the envelope is damaged");
    EVP_CIPHER_CTX_free(ctx);
    return bk_crypto_end(rc, err);
}

/* ---- checks that hold for both directions ---- */

/* Text of any length: bk_text_valid takes BK_TEXT_MAX bytes at a time, cut between characters. */
static int
text_valid(const char *text, size_t len)
{
    while (len > 0) {
        size_t n = len < BK_TEXT_MAX ? len : BK_TEXT_MAX;

        while (n < len && n > 0 && ((unsigned char)text[n] & 0xC0u) == 0x80)
            n--;
        if (!bk_text_valid(text, n))
            return 0;
        text += n;
        len -= n;
    }
    return 1;
}

/* A key says something, a value may be empty. */
static int
item_valid(const char *key, size_t key_len, const char *value, size_t value_len)
{
    return bk_text_valid(key, key_len) && text_valid(value, value_len);
}

/* Ids of one length, so bytewise order is memcmp's. */
static int
signer_order(const struct bk_key_id *a, const struct bk_key_id *b)
{
    return memcmp(a->bytes, b->bytes, BK_SKI_LEN);
}

/* ---- sealing ---- */

static size_t
header_length(size_t content)
{
    return content < 0x80 ? 2 : content <= 0xFF ? 3 : content <= 0xFFFF ? 4 : 5;
}

static size_t
element_length(size_t content)
{
    return header_length(content) + content;
}

/* Contents of the elements that hold others. */
struct lengths {
    size_t signers;
    size_t metadata;
    size_t package;
};

static size_t
item_content(const struct bk_metadata_item *item)
{
    return element_length(strlen(item->key)) + element_length(strlen(item->value));
}

static struct lengths
measure(const struct bk_key_package *k)
{
    struct lengths n = {.signers = k->signer_count * element_length(BK_SKI_LEN)};

    for (size_t i = 0; i < k->metadata_count; i++)
        n.metadata += element_length(item_content(&k->metadata[i]));
    n.package = element_length(1) + element_length(BK_UUID_LEN) + BK_OWN_OID_LEN + element_length(BK_FILE_KEY_LEN) +
                element_length(n.signers);
    if (k->metadata_count > 0)
        n.package += element_length(n.metadata);
    return n;
}

/* What follows has been measured: content is below 2^24. */
static uint8_t *
put_header(uint8_t *at, uint8_t tag, size_t content)
{
    size_t octets = header_length(content) - 2;

    *at++ = tag;
    *at++ = (uint8_t)(octets == 0 ? content : 0x80 | octets);
    for (size_t i = octets; i-- > 0;)
        *at++ = (uint8_t)(content >> 8 * i);
    return at;
}

static uint8_t *
put_element(uint8_t *at, uint8_t tag, const void *data, size_t len)
{
    at = put_header(at, tag, len);
    if (len > 0)
        memcpy(at, data, len);
    return at + len;
}

static uint8_t *
put_metadata(uint8_t *at, const struct bk_key_package *k, size_t content)
{
    at = put_header(at, TAG_METADATA, content);
    for (size_t i = 0; i < k->metadata_count; i++) {
        const struct bk_metadata_item *item = &k->metadata[i];

        at = put_header(at, BK_TAG_SEQUENCE, item_content(item));
        at = put_element(at, BK_TAG_UTF8, item->key, strlen(item->key));
        at = put_element(at, BK_TAG_UTF8, item->value, strlen(item->value));
    }
    return at;
}

/* bk.asn, BkKeyPackage, in field order. */
static enum bk_code
write_package(const struct bk_key_package *k, struct bk_secret *plain, struct bk_err *err)
{
    const uint8_t version = PACKAGE_VERSION;
    const struct lengths n = measure(k);
    uint8_t *at;
    enum bk_code rc = bk_secret_alloc(plain, element_length(n.package), err);

    if (rc != BK_OK)
        return rc;
    at = put_header(plain->data, BK_TAG_SEQUENCE, n.package);
    at = put_element(at, BK_TAG_INTEGER, &version, 1);
    at = put_element(at, BK_TAG_OCTET_STRING, k->archive_id, BK_UUID_LEN);
    bk_own_oid(BK_OID_SUITE_1, at);
    at += BK_OWN_OID_LEN;
    at = put_element(at, BK_TAG_OCTET_STRING, k->file_key.data, BK_FILE_KEY_LEN);
    at = put_header(at, BK_TAG_SEQUENCE, n.signers);
    for (size_t i = 0; i < k->signer_count; i++)
        at = put_element(at, BK_TAG_OCTET_STRING, k->signers[i].bytes, BK_SKI_LEN);
    if (k->metadata_count > 0)
        at = put_metadata(at, k, n.metadata);
    if (at != plain->data + plain->len)
        return bk_fail(err, BK_E_INTERNAL, "written and measured lengths differ");
    return BK_OK;
}

/* docs/FORMAT.md, Keys, signers: sorted bytewise, each once. */
static enum bk_code
sort_signers(struct bk_key_package *k, struct bk_err *err)
{
    char text[BK_KEY_ID_TEXT];

    if (k->signer_count < 1 || k->signer_count > BK_SIGNERS_MAX)
        return bk_fail(err, BK_E_USAGE, "%zu signers, 1 to %d allowed", k->signer_count, BK_SIGNERS_MAX);
    for (size_t i = 0; i < k->signer_count; i++) {
        if (k->signers[i].len != BK_SKI_LEN)
            return bk_fail(err, BK_E_USAGE, "a signer's key id has %zu bytes, not %d", k->signers[i].len, BK_SKI_LEN);
        for (size_t j = i; j > 0 && signer_order(&k->signers[j - 1], &k->signers[j]) >= 0; j--) {
            struct bk_key_id later = k->signers[j - 1];

            if (signer_order(&later, &k->signers[j]) == 0)
                return bk_fail(err, BK_E_USAGE, "signer %s is named twice", bk_key_id_text(&later, text));
            k->signers[j - 1] = k->signers[j];
            k->signers[j] = later;
        }
    }
    return BK_OK;
}

static enum bk_code
check_metadata(const struct bk_key_package *k, struct bk_err *err)
{
    /* BkKeyPackage itself has 6 elements beside the signers, each item has 3 */
    const size_t elements_max = BK_DER_ELEMENTS_MAX - 6 - BK_SIGNERS_MAX - 1;

    if (k->metadata_count > elements_max / 3)
        return bk_fail(err, BK_E_USAGE, "%zu items of private metadata, at most %zu allowed", k->metadata_count,
                       elements_max / 3);
    for (size_t i = 0; i < k->metadata_count; i++) {
        const struct bk_metadata_item *item = &k->metadata[i];

        if (strlen(item->key) > BK_METADATA_MAX || strlen(item->value) > BK_METADATA_MAX)
            return bk_fail(err, BK_E_USAGE, "item %zu of the private metadata is longer than %d bytes", i + 1,
                           BK_METADATA_MAX);
        if (!item_valid(item->key, strlen(item->key), item->value, strlen(item->value)))
            return bk_fail(err, BK_E_USAGE,
                           "item %zu of the private metadata has no key, a key of more than %d bytes, or is not UTF-8 "
                           "text without control characters",
                           i + 1, BK_TEXT_MAX);
    }
    if (k->metadata_count > 0 && element_length(measure(k).metadata) > BK_METADATA_MAX)
        return bk_fail(err, BK_E_USAGE, "private metadata takes %zu bytes, at most %d allowed",
                       element_length(measure(k).metadata), BK_METADATA_MAX);
    return BK_OK;
}

static enum bk_code
check_keys(const struct bk_key_package *k, const struct bk_secret *cek, struct bk_err *err)
{
    if (k->file_key.data == NULL || k->file_key.len != BK_FILE_KEY_LEN || cek->data == NULL || cek->len != BK_CEK_LEN)
        return bk_fail(err, BK_E_INTERNAL, "file key or data key is not of 32 bytes");
    if (!bk_uuid_is_v7(k->archive_id))
        return bk_fail(err, BK_E_INTERNAL, "archive id is not a UUID of version 7");
    return BK_OK;
}

/* Fills content, nonce and mac of out, which is zero. */
static enum bk_code
seal_into(const struct bk_secret *plain, const struct bk_secret *cek, struct bk_envelope *out, struct bk_err *err)
{
    uint8_t *at;
    enum bk_code rc;

    if (RAND_bytes(out->nonce, BK_GCM_NONCE) != 1)
        return bk_fail(err, BK_E_INTERNAL, "the random number generator failed");
    if ((rc = bk_buf_extend(&out->content, plain->len, &at, err)) != BK_OK)
        return rc;
    return gcm_seal(cek, out->nonce, plain, at, out->mac, err);
}

enum bk_code
bk_key_package_seal(struct bk_key_package *k, const struct bk_secret *cek, struct bk_envelope *e, struct bk_err *err)
{
    struct bk_secret plain = {0};
    struct bk_envelope sealed = {0};
    enum bk_code rc;

    if ((rc = check_keys(k, cek, err)) != BK_OK)
        goto done;
    if ((rc = sort_signers(k, err)) != BK_OK)
        goto done;
    if ((rc = check_metadata(k, err)) != BK_OK)
        goto done;
    if ((rc = write_package(k, &plain, err)) != BK_OK)
        goto done;
    if ((rc = seal_into(&plain, cek, &sealed, err)) != BK_OK)
        goto done;
    bk_buf_free(&e->content);
    e->content = sealed.content;
    sealed.content = (struct bk_buf){0};
    memcpy(e->nonce, sealed.nonce, sizeof e->nonce);
    memcpy(e->mac, sealed.mac, sizeof e->mac);
done:
    if (rc != BK_OK)
        bk_err_prefix(err, "key package");
    bk_envelope_free(&sealed);
    bk_secret_wipe(&plain);
    return rc;
}

/* ---- opening ---- */

/* Takes an element of exactly that length. */
static int
take_fixed(struct bk_tlv *in, uint8_t tag, size_t len, struct bk_tlv *out)
{
    return bk_tlv_take(in, tag, out) && out->len == len;
}

static enum bk_code
read_signers(struct bk_tlv in, struct bk_key_package *k, struct bk_err *err)
{
    while (in.len > 0) {
        struct bk_key_id *id = &k->signers[k->signer_count];
        struct bk_tlv bytes;

        if (k->signer_count == BK_SIGNERS_MAX)
            return bk_fail(err, BK_E_FORMAT, "more than %d signers", BK_SIGNERS_MAX);
        if (!take_fixed(&in, BK_TAG_OCTET_STRING, BK_SKI_LEN, &bytes))
            return bk_fail(err, BK_E_FORMAT, "a signer's key id is not of %d bytes", BK_SKI_LEN);
        memcpy(id->bytes, bytes.data, BK_SKI_LEN);
        id->len = BK_SKI_LEN;
        if (k->signer_count > 0 && signer_order(id - 1, id) >= 0)
            return bk_fail(err, BK_E_FORMAT, "signers are not sorted, or one stands twice");
        k->signer_count++;
    }
    return k->signer_count > 0 ? BK_OK : bk_fail(err, BK_E_FORMAT, "no signers");
}

/* Takes one item off the front of in; 0 if it is not well formed. */
static int
take_item(struct bk_tlv *in, struct bk_tlv *key, struct bk_tlv *value)
{
    struct bk_tlv item;

    return bk_tlv_take(in, BK_TAG_SEQUENCE, &item) && bk_tlv_take(&item, BK_TAG_UTF8, key) &&
           bk_tlv_take(&item, BK_TAG_UTF8, value) && item.len == 0 &&
           item_valid((const char *)key->data, key->len, (const char *)value->data, value->len);
}

/* Copies text to *at with a NUL, moves *at behind it, and returns where it stands. */
static const char *
keep_text(uint8_t **at, const struct bk_tlv *text)
{
    char *kept = (char *)*at;

    memcpy(kept, text->data, text->len); /* the arena was zeroed: the NUL is there */
    *at += text->len + 1;
    return kept;
}

static enum bk_code
read_metadata(struct bk_tlv in, struct bk_key_package *k, struct bk_err *err)
{
    struct bk_tlv all = in, key, value;
    size_t count = 0, room = 0;
    uint8_t *at;
    enum bk_code rc;

    for (; in.len > 0; count++) {
        if (!take_item(&in, &key, &value))
            return bk_fail(err, BK_E_FORMAT,
                           "item %zu of the private metadata is not two texts without control characters", count + 1);
        room += key.len + 1 + value.len + 1;
    }
    if (count == 0)
        return bk_fail(err, BK_E_FORMAT, "private metadata that is empty");
    if ((rc = bk_secret_alloc(&k->strings, room, err)) != BK_OK)
        return rc;
    if ((k->metadata = calloc(count, sizeof *k->metadata)) == NULL)
        return bk_fail_nomem(err);
    at = k->strings.data;
    while (k->metadata_count < count && take_item(&all, &key, &value)) {
        struct bk_metadata_item *item = &k->metadata[k->metadata_count++];

        item->key = keep_text(&at, &key);
        item->value = keep_text(&at, &value);
    }
    return BK_OK;
}

/* Version, archive id and suite: whether this is a package that this reader knows, of this archive. */
static enum bk_code
read_identity(struct bk_tlv *body, const uint8_t archive_id[BK_UUID_LEN], struct bk_key_package *k, struct bk_err *err)
{
    uint8_t suite_1[BK_OWN_OID_LEN];
    char text[BK_UUID_TEXT];
    struct bk_tlv field;

    bk_own_oid(BK_OID_SUITE_1, suite_1);
    if (!take_fixed(body, BK_TAG_INTEGER, 1, &field) || field.data[0] != PACKAGE_VERSION)
        return bk_fail(err, BK_E_FORMAT, "bad version");
    if (!take_fixed(body, BK_TAG_OCTET_STRING, BK_UUID_LEN, &field))
        return bk_fail(err, BK_E_FORMAT, "bad archive id");
    if (memcmp(field.data, archive_id, BK_UUID_LEN) != 0)
        return bk_fail(err, BK_E_VERIFY, "envelope of another archive, %s", bk_uuid_text(field.data, text));
    memcpy(k->archive_id, field.data, BK_UUID_LEN);
    if (!bk_tlv_take(body, BK_TAG_OID, &field))
        return bk_fail(err, BK_E_FORMAT, "bad suite");
    if (field.len != sizeof suite_1 - 2 || memcmp(field.data, suite_1 + 2, field.len) != 0)
        return bk_fail(err, BK_E_NEWER, "a cipher suite that this version does not know");
    return BK_OK;
}

/* Fills k, which is zero; the caller frees it on failure. */
static enum bk_code
read_package(const struct bk_secret *plain, const uint8_t archive_id[BK_UUID_LEN], struct bk_key_package *k,
             struct bk_err *err)
{
    struct bk_tlv whole = {plain->data, plain->len}, body, field;
    enum bk_code rc;

    if ((rc = bk_tlv_version(plain->data, plain->len, PACKAGE_VERSION, "BkKeyPackage", err)) != BK_OK)
        return rc;
    if (!bk_tlv_take(&whole, BK_TAG_SEQUENCE, &body))
        return bk_fail(err, BK_E_FORMAT, "not a SEQUENCE");
    if ((rc = read_identity(&body, archive_id, k, err)) != BK_OK)
        return rc;
    if (!take_fixed(&body, BK_TAG_OCTET_STRING, BK_FILE_KEY_LEN, &field))
        return bk_fail(err, BK_E_FORMAT, "bad file key");
    if ((rc = bk_secret_from(&k->file_key, field.data, field.len, err)) != BK_OK)
        return rc;
    if (!bk_tlv_take(&body, BK_TAG_SEQUENCE, &field))
        return bk_fail(err, BK_E_FORMAT, "bad signers");
    if ((rc = read_signers(field, k, err)) != BK_OK)
        return rc;
    if (body.len == 0)
        return BK_OK;
    if (body.len > BK_METADATA_MAX || !bk_tlv_take(&body, TAG_METADATA, &field) || body.len > 0)
        return bk_fail(err, BK_E_FORMAT, "bad private metadata, or bytes after it");
    return read_metadata(field, k, err);
}

enum bk_code
bk_key_package_open(const struct bk_envelope *e, const struct bk_secret *cek, const uint8_t archive_id[BK_UUID_LEN],
                    struct bk_key_package *out, struct bk_err *err)
{
    struct bk_secret plain = {0};
    struct bk_key_package k = {0};
    enum bk_code rc;

    if (cek->data == NULL || cek->len != BK_CEK_LEN || e->content.len == 0 || e->content.len > BK_KEY_PACKAGE_MAX) {
        rc = bk_fail(err, BK_E_INTERNAL, "no data key or no content");
        goto done;
    }
    if ((rc = bk_secret_alloc(&plain, e->content.len, err)) != BK_OK)
        goto done;
    if ((rc = gcm_open(cek, e, &plain, err)) != BK_OK)
        goto done;
    if ((rc = read_package(&plain, archive_id, &k, err)) != BK_OK)
        goto done;
    *out = k;
    k = (struct bk_key_package){0};
done:
    if (rc != BK_OK) {
        bk_err_prefix(err, "key package");
        bk_err_layer(err, "key package");
    }
    bk_key_package_free(&k);
    bk_secret_wipe(&plain);
    return rc;
}
