/* The key package: the input is its DER, which the harness seals under a data key that it knows. */
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "format/key_package.h"
#include "format/manifest.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

/* One signer and no more elements than a package with four signers could have: bk_key_package_seal counts so. */
#define ITEMS_MAX 1361

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);

    return fuzz_mutate_der_or_bytes(data, size, max_size, &r);
}

static void
gcm(int seal, const uint8_t nonce[BK_GCM_NONCE], const uint8_t *in, size_t len, uint8_t *out, uint8_t mac[BK_GCM_TAG])
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0;

    fuzz_hold(EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, FUZZ_CEK, nonce, seal) == 1);
    fuzz_hold(EVP_CipherUpdate(ctx, out, &n, in, (int)len) == 1 && (size_t)n == len);
    fuzz_hold(seal || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, BK_GCM_TAG, mac) == 1);
    fuzz_hold(EVP_CipherFinal_ex(ctx, out, &n) == 1);
    fuzz_hold(!seal || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, BK_GCM_TAG, mac) == 1);
    EVP_CIPHER_CTX_free(ctx);
}

static void
check_package(const struct bk_key_package *k)
{
    fuzz_hold(k->file_key.len == 32 && k->signer_count >= 1 && k->signer_count <= BK_SIGNERS_MAX);
    fuzz_hold(memcmp(k->archive_id, FUZZ_ARCHIVE_ID, sizeof k->archive_id) == 0);
    for (size_t i = 1; i < k->signer_count; i++)
        fuzz_hold(memcmp(k->signers[i - 1].bytes, k->signers[i].bytes, BK_SKI_LEN) < 0);
    for (size_t i = 0; i < k->metadata_count; i++)
        fuzz_hold(bk_text_valid(k->metadata[i].key, strlen(k->metadata[i].key)));
}

/* Sealed again from what was read, and opened by the harness: the same DER. */
static void
seal_again(struct bk_key_package *k, const struct bk_secret *cek, const uint8_t *data, size_t size)
{
    struct bk_envelope e = {0};
    struct bk_err err = {0};
    uint8_t *plain;

    fuzz_must(bk_key_package_seal(k, cek, &e, &err), &err);
    fuzz_hold(e.content.len == size);
    plain = fuzz_copy(e.content.data, size);
    gcm(0, e.nonce, e.content.data, size, plain, e.mac);
    fuzz_hold(memcmp(plain, data, size) == 0);
    free(plain);
    bk_envelope_free(&e);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_envelope e = {.nonce = {1}};
    struct bk_key_package k = {0};
    struct bk_secret cek = {0};
    struct bk_err err = {0};
    uint8_t *at = NULL;
    enum bk_code rc;

    if (size == 0 || size > BK_KEY_PACKAGE_MAX)
        return 0;
    fuzz_must(bk_secret_from(&cek, FUZZ_CEK, sizeof FUZZ_CEK, &err), &err);
    fuzz_must(bk_buf_extend(&e.content, size, &at, &err), &err);
    gcm(1, e.nonce, data, size, at, e.mac);
    rc = bk_key_package_open(&e, &cek, FUZZ_ARCHIVE_ID, &k, &err);
    fuzz_verdict(rc, &err);
    if (rc == BK_OK) {
        check_package(&k);
        if (k.metadata_count <= ITEMS_MAX)
            seal_again(&k, &cek, data, size);
        fuzz_accepted();
        bk_key_package_free(&k);
        /* a bit of the ciphertext, and nothing comes out */
        e.content.data[size / 2] ^= 1;
        fuzz_hold(bk_key_package_open(&e, &cek, FUZZ_ARCHIVE_ID, &k, &err) == BK_E_VERIFY);
    }
    fuzz_hold(k.file_key.data == NULL && k.metadata == NULL && k.strings.data == NULL);
    bk_envelope_free(&e);
    bk_secret_wipe(&cek);
    return 0;
}
