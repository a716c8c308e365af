/*
 * The key envelope: what is taken is encoded to the same bytes, and OpenSSL's CMS takes it too. The fuzzers' KEK is
 * asked to open what it is a recipient of.
 */
#include <stdlib.h>
#include <string.h>

#include <openssl/cms.h>
#include <openssl/err.h>

#include "base/hash.h"
#include "format/envelope.h"
#include "format/tlv.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);

    return fuzz_mutate_der_or_bytes(data, size, max_size, &r);
}

/* docs/BREAK-GLASS.md promises that stock tools read it. */
static void
openssl_takes(const uint8_t *data, size_t size)
{
    const uint8_t *at = data;
    CMS_ContentInfo *cms = d2i_CMS_ContentInfo(NULL, &at, (long)size);

    fuzz_hold(cms != NULL && at == data + size);
    fuzz_hold(OBJ_obj2nid(CMS_get0_type(cms)) == NID_id_smime_ct_authEnvelopedData);
    CMS_ContentInfo_free(cms);
}

static void
check_recipients(const struct bk_envelope *e)
{
    char text[BK_KEY_ID_TEXT];

    fuzz_hold(e->recipient_count >= 1 && e->recipient_count <= BK_RECIPIENTS_MAX);
    for (size_t i = 0; i < e->recipient_count; i++) {
        const struct bk_recipient *r = &e->recipients[i];

        fuzz_hold(bk_recipient_text(r, text)[0] != '\0');
        if (r->kind == BK_RECIPIENT_UNKNOWN) {
            fuzz_hold(r->raw.len > 0 && r->wrapped.scheme == BK_SCHEME_NONE);
            continue;
        }
        fuzz_hold(r->wrapped.scheme != BK_SCHEME_NONE && r->raw.len == 0);
        fuzz_hold(r->wrapped.id.len >= BK_KEY_ID_MIN && r->wrapped.id.len <= BK_KEY_ID_MAX);
        fuzz_hold(bk_envelope_find(e, &r->wrapped.id) == (int)i);
    }
}

static void
open_with_kek(const struct bk_envelope *e)
{
    struct bk_secret cek = {0};
    struct bk_err err = {0};
    int at = bk_envelope_find(e, &fuzz_kek()->pub.id);

    if (at < 0 || e->recipients[at].wrapped.scheme != BK_SCHEME_AES_KW)
        return;
    fuzz_verdict(bk_key_unwrap(fuzz_kek(), &e->recipients[at].wrapped, &cek, &err), &err);
    bk_secret_wipe(&cek);
}

/* Written again from what was read: the same bytes, and so the same digest. */
static void
encode_again(struct bk_envelope *e, const uint8_t *data, size_t size)
{
    struct bk_buf again = {0};
    struct bk_err err = {0};
    uint8_t digest[BK_SHA256_LEN];

    memcpy(digest, e->digest, sizeof digest);
    fuzz_must(bk_envelope_encode(e, &again, &err), &err);
    fuzz_hold(again.len == size && memcmp(again.data, data, size) == 0);
    fuzz_hold(memcmp(e->digest, digest, sizeof digest) == 0);
    bk_buf_free(&again);
    /* one recipient less: still an envelope, of the same digest, unless nobody is left */
    bk_envelope_remove(e, 0);
    if (e->recipient_count > 0) {
        fuzz_must(bk_envelope_encode(e, &again, &err), &err);
        fuzz_hold(memcmp(e->digest, digest, sizeof digest) == 0);
    }
    bk_buf_free(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_envelope e = {0}, twice = {0};
    struct bk_err err = {0}, err_twice = {0};
    uint8_t *copy = fuzz_copy(data, size);
    enum bk_code rc = bk_envelope_parse(copy, size, &e, &err);

    fuzz_verdict(rc, &err);
    fuzz_hold(bk_envelope_parse(copy, size, &twice, &err_twice) == rc);
    fuzz_same_answer(&err, &err_twice);
    bk_envelope_free(&twice);
    if (rc == BK_OK) {
        openssl_takes(copy, size);
        check_recipients(&e);
        open_with_kek(&e);
        encode_again(&e, copy, size);
        fuzz_accepted();
    } else {
        fuzz_hold(e.recipient_count == 0 && e.content.data == NULL);
    }
    bk_envelope_free(&e);
    free(copy);
    ERR_clear_error();
    return 0;
}
