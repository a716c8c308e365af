/* SignedData around manifests and records: what is taken, OpenSSL's CMS verifies as well. */
#include <stdlib.h>
#include <string.h>

#include <openssl/cms.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "format/signed.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);

    size = fuzz_mutate_der_or_bytes(data, size, max_size, &r);
    if (fuzz_below(&r, 4) != 0)
        fuzz_repair_signed(data, size);
    return size;
}

/* A certificate is a container for a key here, and extensions that nobody asks about may be malformed; OpenSSL then
 * does not use it at all. */
static int
openssl_uses(const struct bk_signed *s)
{
    int used = 1;

    for (size_t i = 0; i < s->signer_count; i++) {
        const uint8_t *at = s->signers[i].cert.data;
        X509 *cert = d2i_X509(NULL, &at, (long)s->signers[i].cert.len);

        used &= cert != NULL && X509_check_purpose(cert, -1, 0) == 1;
        X509_free(cert);
    }
    return used;
}

/* Each signature, under the certificate that came with it; the chain is nobody's promise. */
static void
openssl_verifies(const uint8_t *data, size_t size, const struct bk_buf *content)
{
    const uint8_t *at = data;
    CMS_ContentInfo *cms = d2i_CMS_ContentInfo(NULL, &at, (long)size);
    BIO *out = BIO_new(BIO_s_mem());
    char *text = NULL;

    fuzz_hold(cms != NULL && at == data + size && out != NULL);
    fuzz_hold(CMS_verify(cms, NULL, NULL, NULL, out, CMS_NO_SIGNER_CERT_VERIFY | CMS_BINARY) == 1);
    fuzz_hold((size_t)BIO_get_mem_data(out, &text) == content->len);
    fuzz_hold(content->len == 0 || memcmp(text, content->data, content->len) == 0);
    BIO_free(out);
    CMS_ContentInfo_free(cms);
}

static void
check_signers(const struct bk_signed *s)
{
    fuzz_hold(s->signer_count >= 1 && s->signer_count <= BK_SIGNERS_MAX);
    for (size_t i = 0; i < s->signer_count; i++) {
        const struct bk_signer *one = &s->signers[i];

        fuzz_hold(one->pub.spki != NULL && one->cert.len > 0 && one->pub.id.len == BK_SKI_LEN);
        for (size_t j = 0; j < i; j++)
            fuzz_hold(!bk_key_id_equal(&one->pub.id, &s->signers[j].pub.id));
    }
}

static int
parse(const uint8_t *data, size_t size, enum bk_content type)
{
    struct bk_signed s = {0}, twice = {0};
    struct bk_err err = {0}, err_twice = {0};
    enum bk_code rc = bk_signed_parse(data, size, type, &s, &err);

    fuzz_verdict(rc, &err);
    fuzz_hold(bk_signed_parse(data, size, type, &twice, &err_twice) == rc);
    fuzz_same_answer(&err, &err_twice);
    bk_signed_free(&twice);
    if (rc == BK_OK) {
        check_signers(&s);
        if (openssl_uses(&s))
            openssl_verifies(data, size, &s.content);
        fuzz_accepted();
    } else {
        fuzz_hold(s.signer_count == 0 && s.content.data == NULL);
    }
    bk_signed_free(&s);
    return rc == BK_OK;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = fuzz_copy(data, size);
    int manifest = parse(copy, size, BK_CONTENT_MANIFEST);
    int record = parse(copy, size, BK_CONTENT_KEY_RECORD);

    /* a signature for one place is none for the other */
    fuzz_hold(!manifest || !record);
    free(copy);
    ERR_clear_error();
    return 0;
}
