/* Certificates and public keys in DER. */
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "base/keywrap.h"
#include "format/pem.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);

    return fuzz_mutate_der_or_bytes(data, size, max_size, &r);
}

/* What bk keeps of a key is what it reads from what it keeps. */
static void
check_public(const struct bk_public *p)
{
    static const uint8_t digest[32] = {3};
    struct bk_public again = {0};
    struct bk_secret cek = {0};
    struct bk_wrapped w = {0};
    struct bk_err err = {0};

    fuzz_must(bk_public_from_spki(&again, p->spki, p->spki_len, &err), &err);
    fuzz_hold(bk_key_id_equal(&again.id, &p->id) && again.type == p->type && again.bits == p->bits);
    fuzz_hold(again.spki_len == p->spki_len && memcmp(again.spki, p->spki, p->spki_len) == 0);
    fuzz_hold(p->type != BK_KEY_RSA || (p->bits >= 2048 && p->bits <= 4096));
    fuzz_must(bk_secret_from(&cek, FUZZ_CEK, sizeof FUZZ_CEK, &err), &err);
    fuzz_answer(bk_public_wrap(&again, &cek, &w, &err), &err);
    fuzz_verdict(bk_public_verify(&again, bk_sig_alg_for(again.type), digest, digest, sizeof digest, &err), &err);
    fuzz_hold(err.code != BK_OK);
    bk_secret_wipe(&cek);
    bk_public_free(&again);
}

static void
check_text(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++)
        fuzz_hold(*c >= 0x20 && *c != 0x7f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_cert_info info = {0}, twice = {0};
    struct bk_public pub = {0};
    struct bk_err err = {0}, err_twice = {0};
    uint8_t *copy = fuzz_copy(data, size);
    enum bk_code rc = bk_cert_parse(copy, size, &info, &err);

    fuzz_answer(rc, &err);
    fuzz_hold(rc == BK_OK || rc == BK_E_FORMAT || rc == BK_E_POLICY);
    fuzz_hold(bk_cert_parse(copy, size, &twice, &err_twice) == rc);
    fuzz_same_answer(&err, &err_twice);
    bk_cert_info_free(&twice);
    if (rc == BK_OK) {
        fuzz_hold(info.ski_len <= sizeof info.ski);
        check_text(info.subject);
        check_public(&info.pub);
        fuzz_accepted();
    }
    bk_cert_info_free(&info);
    err = (struct bk_err){0};
    rc = bk_public_from_spki(&pub, copy, size, &err);
    fuzz_answer(rc, &err);
    fuzz_hold(rc == BK_OK || rc == BK_E_FORMAT || rc == BK_E_POLICY);
    if (rc == BK_OK) {
        check_public(&pub);
        fuzz_accepted();
    }
    bk_public_free(&pub);
    free(copy);
    ERR_clear_error();
    return 0;
}
