/* The envelope and stock `openssl cms`, each opening what the other wrote: docs/BREAK-GLASS.md rests on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/hash.h"
#include "base/keywrap.h"
#include "base/secret.h"
#include "format/envelope.h"
#include "format/key_package.h"

#define PLAIN_MAX 4096

static const uint8_t ARCHIVE[BK_UUID_LEN] = {0x01, 0x93, 0x5C, 0x00, 0x11, 0x22, 0x7A, 0xBC, 0x80, 1, 2, 3, 4, 5, 6, 7};
static const uint8_t SECRET_ID[] = {0xC0, 0xFF, 0xEE, 0x01};
static const uint8_t ORI_UNKNOWN[] = {0xA4, 0x09, 0x06, 0x03, 0x55, 0x05, 0x05, 0x02, 0x02, 0x00, 0xFF};

struct fixture {
    EVP_PKEY *rsa, *p256, *p384;
    struct bk_secret aes;
    struct bk_secret cek;
    struct bk_envelope e;
    struct bk_buf der;
    struct bk_err err;
    char folder[256];
};

static void
ok(enum bk_code rc, const struct bk_err *err)
{
    if (rc != BK_OK)
        fail_msg("code %d: %s", (int)rc, err->message);
}

static void
add_public(struct fixture *f, EVP_PKEY *key)
{
    struct bk_public pub = {0};
    struct bk_wrapped w = {0};
    uint8_t *spki = NULL;
    int len = i2d_PUBKEY(key, &spki);

    assert_true(len > 0);
    ok(bk_public_from_spki(&pub, spki, (size_t)len, &f->err), &f->err);
    ok(bk_public_wrap(&pub, &f->cek, &w, &f->err), &f->err);
    ok(bk_envelope_add(&f->e, &w, &f->err), &f->err);
    bk_public_free(&pub);
    OPENSSL_free(spki);
}

static void
add_aes(struct fixture *f)
{
    struct bk_wrapped w = {.scheme = BK_SCHEME_AES_KW, .id.len = sizeof SECRET_ID, .len = BK_AESKW_LEN};

    memcpy(w.id.bytes, SECRET_ID, sizeof SECRET_ID);
    ok(bk_aeskw_wrap(&f->aes, &f->cek, w.data, &f->err), &f->err);
    ok(bk_envelope_add(&f->e, &w, &f->err), &f->err);
}

/* Every kind of recipient, and one that OpenSSL does not know either. */
static void
make_envelope(struct fixture *f)
{
    struct bk_key_package k = {.signers = {{.len = BK_SKI_LEN}}, .signer_count = 1};
    struct bk_recipient ori = {.kind = BK_RECIPIENT_UNKNOWN};

    memcpy(k.archive_id, ARCHIVE, sizeof ARCHIVE);
    ok(bk_secret_random(&f->cek, BK_CEK_LEN, &f->err), &f->err);
    ok(bk_secret_random(&k.file_key, 32, &f->err), &f->err);
    ok(bk_key_package_seal(&k, &f->cek, &f->e, &f->err), &f->err);
    bk_key_package_free(&k);
    ok(bk_buf_append(&ori.raw, ORI_UNKNOWN, sizeof ORI_UNKNOWN, &f->err), &f->err);
    f->e.recipients[f->e.recipient_count++] = ori;
    add_public(f, f->rsa);
    add_public(f, f->p256);
    add_public(f, f->p384);
    add_aes(f);
    ok(bk_envelope_encode(&f->e, &f->der, &f->err), &f->err);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const char *base = getenv("TMPDIR");
    int locked;

    if (f == NULL || bk_secret_init(&locked, &f->err) != BK_OK || bk_secret_random(&f->aes, 32, &f->err) != BK_OK)
        return -1;
    f->rsa = EVP_RSA_gen(2048);
    f->p256 = EVP_EC_gen("P-256");
    f->p384 = EVP_EC_gen("P-384");
    (void)snprintf(f->folder, sizeof f->folder, "%s/bk-envelope-XXXXXX", base != NULL ? base : P_tmpdir);
    *state = f;
    return f->rsa != NULL && f->p256 != NULL && f->p384 != NULL && mkdtemp(f->folder) != NULL ? 0 : -1;
}

static FILE *
open_in(const struct fixture *f, const char *name, const char *mode)
{
    char path[1024];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/%s", f->folder, name);
    file = fopen(path, mode);
    assert_non_null(file);
    return file;
}

static void
write_file(const struct fixture *f, const char *name, const void *data, size_t len)
{
    FILE *file = open_in(f, name, "wb");

    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static size_t
read_file(const struct fixture *f, const char *name, uint8_t out[PLAIN_MAX])
{
    FILE *file = open_in(f, name, "rb");
    size_t n = fread(out, 1, PLAIN_MAX, file);

    assert_int_equal(fclose(file), 0);
    return n;
}

static void
write_key(const struct fixture *f, const char *name, EVP_PKEY *key)
{
    FILE *file = open_in(f, name, "wb");

    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
}

/* Runs `openssl cms` with these arguments in the folder; 0 if it succeeds. */
static int
cms(const struct fixture *f, const char *arguments)
{
    char line[1024];

    (void)snprintf(line, sizeof line, "cd '%s' && openssl cms -binary %s 2>openssl.log", f->folder, arguments);
    return system(line);
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    char line[512];

    (void)snprintf(line, sizeof line, "rm -rf '%s'", f->folder);
    EVP_PKEY_free(f->rsa);
    EVP_PKEY_free(f->p256);
    EVP_PKEY_free(f->p384);
    bk_secret_wipe(&f->aes);
    bk_secret_wipe(&f->cek);
    bk_envelope_free(&f->e);
    bk_buf_free(&f->der);
    free(f);
    return system(line);
}

static size_t
decrypt(const struct bk_secret *cek, const struct bk_envelope *e, uint8_t out[PLAIN_MAX])
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t mac[BK_GCM_TAG];
    int n = 0, end = 0;

    assert_true(e->content.len <= PLAIN_MAX);
    memcpy(mac, e->mac, sizeof mac);
    assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, cek->data, e->nonce), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, out, &n, e->content.data, (int)e->content.len), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, sizeof mac, mac), 1);
    assert_int_equal(EVP_DecryptFinal_ex(ctx, out + n, &end), 1);
    EVP_CIPHER_CTX_free(ctx);
    return (size_t)n;
}

static void
openssl_opens_every_kind(void **state)
{
    static const char *const keys[] = {"rsa.pem", "p256.pem", "p384.pem"};
    struct fixture *f = *state;
    uint8_t expected[PLAIN_MAX], out[PLAIN_MAX];
    char hex[65], arguments[512];
    size_t len;

    make_envelope(f);
    len = decrypt(&f->cek, &f->e, expected);
    write_file(f, "envelope", f->der.data, f->der.len);
    write_key(f, "rsa.pem", f->rsa);
    write_key(f, "p256.pem", f->p256);
    write_key(f, "p384.pem", f->p384);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        (void)snprintf(arguments, sizeof arguments, "-decrypt -inform DER -in envelope -out out%zu -inkey %s", i,
                       keys[i]);
        assert_int_equal(cms(f, arguments), 0);
        (void)snprintf(arguments, sizeof arguments, "out%zu", i);
        assert_int_equal(read_file(f, arguments, out), len);
        assert_memory_equal(out, expected, len);
    }
    (void)snprintf(arguments, sizeof arguments,
                   "-decrypt -inform DER -in envelope -out secret -secretkey %s -secretkeyid c0ffee01",
                   bk_hex(f->aes.data, 32, hex));
    assert_int_equal(cms(f, arguments), 0);
    assert_int_equal(read_file(f, "secret", out), len);
    assert_memory_equal(out, expected, len);
}

static void
openssl_refuses_a_changed_one(void **state)
{
    struct fixture *f = *state;

    make_envelope(f);
    f->der.data[f->der.len - 1] ^= 1;
    write_file(f, "envelope", f->der.data, f->der.len);
    write_key(f, "p256.pem", f->p256);
    assert_int_not_equal(cms(f, "-decrypt -inform DER -in envelope -out out -inkey p256.pem"), 0);
}

static void
bk_reads_what_openssl_writes(void **state)
{
    static const char text[] = "written by another program\n";
    struct fixture *f = *state;
    struct bk_envelope e = {0};
    struct bk_secret cek = {0};
    uint8_t der[PLAIN_MAX], out[PLAIN_MAX];
    char hex[65], arguments[512];
    size_t len;

    write_file(f, "text", text, sizeof text - 1);
    (void)snprintf(arguments, sizeof arguments,
                   "-encrypt -aes-256-gcm -outform DER -in text -out envelope -secretkey %s -secretkeyid c0ffee01",
                   bk_hex(f->aes.data, 32, hex));
    assert_int_equal(cms(f, arguments), 0);
    len = read_file(f, "envelope", der);
    ok(bk_envelope_parse(der, len, &e, &f->err), &f->err);
    assert_int_equal(e.recipient_count, 1);
    assert_int_equal(e.recipients[0].wrapped.scheme, BK_SCHEME_AES_KW);
    ok(bk_aeskw_unwrap(&f->aes, e.recipients[0].wrapped.data, &cek, &f->err), &f->err);
    assert_int_equal(decrypt(&cek, &e, out), sizeof text - 1);
    assert_memory_equal(out, text, sizeof text - 1);
    bk_secret_wipe(&cek);
    bk_envelope_free(&e);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(openssl_opens_every_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(openssl_refuses_a_changed_one, setup, teardown),
        cmocka_unit_test_setup_teardown(bk_reads_what_openssl_writes, setup, teardown),
    };

    return cmocka_run_group_tests_name("envelope and openssl", tests, NULL, NULL);
}
