/* Does the host's half of the wrapping schemes meet base/keys.h and base/keywrap.h? Constants whose source is not a
 * document were computed with another implementation (pyca/cryptography). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/hash.h"
#include "base/keys.h"
#include "base/keywrap.h"

/* the base point of P-256 is a public key like any other, with the private key 1 */
#define BASE_POINT                                                                                                     \
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"                                               \
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
#define P256_SPKI_PREFIX "3059301306072a8648ce3d020106082a8648ce3d030107034200"
/* RFC 6979 A.2.5: the public key, and the signature of "sample" with SHA-256 */
#define RFC6979_POINT                                                                                                  \
    "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"                                               \
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
#define RFC6979_R   "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
#define RFC6979_S   "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
#define RFC6979_SIG "3046022100" RFC6979_R "022100" RFC6979_S

static size_t
unhex(const char *hex, uint8_t *out, size_t room)
{
    size_t len = strlen(hex) / 2;

    assert_true(len <= room);
    assert_true(bk_unhex(hex, out, len));
    return len;
}

static void
secret_from_hex(struct bk_secret *s, const char *hex)
{
    uint8_t bytes[64];
    size_t len = unhex(hex, bytes, sizeof bytes);

    assert_int_equal(bk_secret_from(s, bytes, len, NULL), BK_OK);
}

/* size bytes that count up from first */
static void
secret_counting(struct bk_secret *s, size_t size, uint8_t first)
{
    assert_int_equal(bk_secret_alloc(s, size, NULL), BK_OK);
    for (size_t i = 0; i < size; i++)
        s->data[i] = (uint8_t)(first + i);
}

static void
public_of(EVP_PKEY *key, struct bk_public *out)
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    struct bk_err err = {0};

    assert_true(len > 0);
    if (bk_public_from_spki(out, der, (size_t)len, &err) != BK_OK)
        fail_msg("%s", err.message);
    OPENSSL_free(der);
}

static enum bk_code
public_code(EVP_PKEY *key)
{
    struct bk_public p = {0};
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    enum bk_code rc = bk_public_from_spki(&p, der, (size_t)len, NULL);

    OPENSSL_free(der);
    assert_null(p.spki);
    return rc;
}

static EVP_PKEY *
rsa(unsigned bits, unsigned long exponent)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *key = NULL;
    size_t size = bits;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_size_t(OSSL_PKEY_PARAM_RSA_BITS, &size),
        OSSL_PARAM_construct_ulong(OSSL_PKEY_PARAM_RSA_E, &exponent),
        OSSL_PARAM_construct_end(),
    };

    assert_int_equal(EVP_PKEY_keygen_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_params(ctx, params), 1);
    assert_int_equal(EVP_PKEY_generate(ctx, &key), 1);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static void
test_aes_key_wrap_of_rfc_3394(void **state)
{
    struct bk_secret kek = {0};
    struct bk_secret cek = {0};
    struct bk_secret back = {0};
    uint8_t out[BK_AESKW_LEN];
    uint8_t want[BK_AESKW_LEN];

    (void)state;
    /* RFC 3394 4.6 */
    secret_counting(&kek, 32, 0);
    secret_from_hex(&cek, "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f");
    (void)unhex("28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21", want, sizeof want);
    assert_int_equal(bk_aeskw_wrap(&kek, &cek, out, NULL), BK_OK);
    assert_memory_equal(out, want, sizeof want);
    assert_int_equal(bk_aeskw_unwrap(&kek, out, &back, NULL), BK_OK);
    assert_true(bk_secret_equal(&cek, &back));
    bk_secret_wipe(&back);
    for (size_t bit = 0; bit < sizeof out * 8; bit++) {
        struct bk_err err = {0};

        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(bk_aeskw_unwrap(&kek, out, &back, &err), BK_E_VERIFY);
        assert_null(back.data);
        assert_true(strlen(err.message) > 0);
        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    bk_secret_wipe(&kek);
    bk_secret_wipe(&cek);
}

static void
test_aes_key_wrap_takes_32_bytes_only(void **state)
{
    struct bk_secret kek = {0};
    struct bk_secret half = {0};
    struct bk_secret back = {0};
    uint8_t out[BK_AESKW_LEN] = {0};

    (void)state;
    secret_counting(&kek, 32, 0);
    secret_counting(&half, 16, 0);
    assert_int_equal(bk_aeskw_wrap(&half, &kek, out, NULL), BK_E_INTERNAL);
    assert_int_equal(bk_aeskw_wrap(&kek, &half, out, NULL), BK_E_INTERNAL);
    assert_int_equal(bk_aeskw_unwrap(&half, out, &back, NULL), BK_E_INTERNAL);
    assert_null(back.data);
    bk_secret_wipe(&kek);
    bk_secret_wipe(&half);
}

/* The whole of the last steps: X9.63 KDF with the shared info of RFC 5753, then RFC 3394. */
static void
check_finish(enum bk_scheme scheme, size_t field, const char *wrapped)
{
    struct bk_wrapped w = {.scheme = scheme};
    struct bk_secret shared = {0};
    struct bk_secret wrong = {0};
    struct bk_secret cek = {0};
    struct bk_secret want = {0};

    w.len = unhex(wrapped, w.data, sizeof w.data);
    secret_counting(&shared, field, 0);
    secret_counting(&wrong, field, 1);
    secret_counting(&want, 32, 0xe0);
    assert_int_equal(bk_ecdh_finish(scheme, &shared, &w, &cek, NULL), BK_OK);
    assert_true(bk_secret_equal(&cek, &want));
    bk_secret_wipe(&cek);
    assert_int_equal(bk_ecdh_finish(scheme, &wrong, &w, &cek, NULL), BK_E_VERIFY);
    w.len--;
    assert_int_equal(bk_ecdh_finish(scheme, &shared, &w, &cek, NULL), BK_E_FORMAT);
    w.len++;
    w.scheme = BK_SCHEME_AES_KW;
    assert_int_equal(bk_ecdh_finish(scheme, &shared, &w, &cek, NULL), BK_E_FORMAT);
    w.scheme = scheme;
    shared.len--;
    assert_int_equal(bk_ecdh_finish(scheme, &shared, &w, &cek, NULL), BK_E_INTERNAL);
    shared.len++;
    assert_int_equal(bk_ecdh_finish(BK_SCHEME_AES_KW, &shared, &w, &cek, NULL), BK_E_INTERNAL);
    assert_null(cek.data);
    bk_secret_wipe(&shared);
    bk_secret_wipe(&wrong);
    bk_secret_wipe(&want);
}

static void
test_ecdh_finish_of_another_implementation(void **state)
{
    (void)state;
    check_finish(BK_SCHEME_ECDH_P256, 32,
                 "0dd91e8ccbaa6a17d3a4db7cd84fe28f1c9129dd2ee61d64cd751d938336125d16684c16efc748a3");
    check_finish(BK_SCHEME_ECDH_P384, 48,
                 "0aea231fb397997f2320eab94e1a2394525a5530343d7539ad2ece590d595af8bf392539e80c3d50");
}

/* Opens an ECDH recipient with the private key, as a token and bk_ecdh_finish do together. */
static void
open_ec(EVP_PKEY *own, const struct bk_wrapped *w, struct bk_secret *cek)
{
    EVP_PKEY *peer = EVP_PKEY_new();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
    struct bk_secret shared = {0};
    size_t len = w->ephemeral_len / 2;

    assert_int_equal(bk_secret_alloc(&shared, len, NULL), BK_OK);
    assert_int_equal(EVP_PKEY_copy_parameters(peer, own), 1);
    assert_int_equal(EVP_PKEY_set1_encoded_public_key(peer, w->ephemeral, w->ephemeral_len), 1);
    assert_int_equal(EVP_PKEY_derive_init(ctx), 1);
    assert_int_equal(EVP_PKEY_derive_set_peer(ctx, peer), 1);
    assert_int_equal(EVP_PKEY_derive(ctx, shared.data, &len), 1);
    assert_int_equal(bk_ecdh_finish(w->scheme, &shared, w, cek, NULL), BK_OK);
    bk_secret_wipe(&shared);
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(peer);
}

static void
check_wrap_ec(const char *group, enum bk_scheme scheme, size_t point_len, int rounds)
{
    EVP_PKEY *key = EVP_EC_gen(group);
    struct bk_public to = {0};
    struct bk_wrapped w = {0};
    struct bk_wrapped before = {0};
    struct bk_secret cek = {0};
    struct bk_secret back = {0};

    assert_non_null(key);
    public_of(key, &to);
    assert_int_equal(to.scheme, scheme);
    assert_int_equal(bk_secret_random(&cek, 32, NULL), BK_OK);
    for (int i = 0; i < rounds; i++) {
        before = w;
        assert_int_equal(bk_public_wrap(&to, &cek, &w, NULL), BK_OK);
        assert_int_equal(w.ephemeral_len, point_len);
        assert_memory_not_equal(w.ephemeral, before.ephemeral, point_len);
        assert_int_equal(bk_ec_point_check(scheme, w.ephemeral, w.ephemeral_len, NULL), BK_OK);
        /* never a point that a token could take for a DER OCTET STRING */
        assert_int_not_equal(w.ephemeral[1], point_len - 2);
        assert_int_equal(w.len, BK_AESKW_LEN);
        assert_int_equal(w.scheme, scheme);
        assert_true(bk_key_id_equal(&w.id, &to.id));
    }
    open_ec(key, &w, &back);
    assert_true(bk_secret_equal(&cek, &back));
    bk_secret_wipe(&back);
    bk_secret_wipe(&cek);
    bk_public_free(&to);
    EVP_PKEY_free(key);
}

static void
test_wrap_to_elliptic_curves(void **state)
{
    (void)state;
    check_wrap_ec("P-256", BK_SCHEME_ECDH_P256, 65, 1500);
    check_wrap_ec("P-384", BK_SCHEME_ECDH_P384, 97, 20);
}

static void
check_wrap_rsa(EVP_PKEY *key, enum bk_scheme scheme, const EVP_MD *md, const EVP_MD *other)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    struct bk_public to = {0};
    struct bk_wrapped w = {0};
    struct bk_secret cek = {0};
    uint8_t back[512];
    size_t len = sizeof back;

    public_of(key, &to);
    assert_int_equal(to.scheme, BK_SCHEME_RSA_OAEP_SHA256);
    to.scheme = scheme;
    assert_int_equal(bk_secret_random(&cek, 32, NULL), BK_OK);
    assert_int_equal(bk_public_wrap(&to, &cek, &w, NULL), BK_OK);
    assert_int_equal(w.len, EVP_PKEY_get_size(key));
    assert_int_equal(w.ephemeral_len, 0);
    assert_int_equal(w.scheme, scheme);
    assert_int_equal(EVP_PKEY_decrypt_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_oaep_md(ctx, md), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md), 1);
    assert_int_equal(EVP_PKEY_decrypt(ctx, back, &len, w.data, w.len), 1);
    assert_int_equal(len, 32);
    assert_memory_equal(back, cek.data, 32);
    /* and under MGF1 with another digest it does not open: both digests are the scheme's */
    len = sizeof back;
    assert_int_equal(EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, other), 1);
    assert_true(EVP_PKEY_decrypt(ctx, back, &len, w.data, w.len) <= 0);
    EVP_PKEY_CTX_free(ctx);
    bk_secret_wipe(&cek);
    bk_public_free(&to);
}

/* The bare operation, as a token would do it: as long as the modulus. */
static void
bare_rsa(EVP_PKEY *key, const uint8_t *in, size_t in_len, struct bk_secret *out)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    size_t len = in_len;

    bk_secret_wipe(out);
    assert_int_equal(bk_secret_alloc(out, in_len, NULL), BK_OK);
    assert_int_equal(EVP_PKEY_decrypt_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_NO_PADDING), 1);
    assert_int_equal(EVP_PKEY_decrypt(ctx, out->data, &len, in, in_len), 1);
    assert_int_equal(len, in_len);
    EVP_PKEY_CTX_free(ctx);
}

/* RSAES-OAEP with SHA-256 of so many bytes, and a label. */
static void
oaep_of(EVP_PKEY *key, size_t bytes, const char *label, uint8_t *out, size_t *len)
{
    static const uint8_t message[64] = {7};
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);

    assert_int_equal(EVP_PKEY_encrypt_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()), 1);
    if (label != NULL)
        assert_int_equal(EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, OPENSSL_strdup(label), (int)strlen(label)), 1);
    assert_int_equal(EVP_PKEY_encrypt(ctx, out, len, message, bytes), 1);
    EVP_PKEY_CTX_free(ctx);
}

static void
does_not_finish(const struct bk_secret *padded, enum bk_scheme scheme)
{
    struct bk_secret back = {0};
    struct bk_err err = {0};

    assert_int_equal(bk_oaep_finish(scheme, padded, &back, &err), BK_E_VERIFY);
    /* one message, whatever is wrong */
    assert_string_equal(err.message, "the wrapped key does not open under this key");
    assert_null(back.data);
}

static void
check_oaep_damage(EVP_PKEY *key, struct bk_secret *padded)
{
    static const struct {
        size_t bytes;
        const char *label;
    } others[] = {{31, NULL}, {33, NULL}, {0, NULL}, {32, "a label"}};

    does_not_finish(padded, BK_SCHEME_RSA_OAEP_SHA1);
    for (size_t i = 0; i < padded->len; i++) {
        padded->data[i] ^= (uint8_t)(1u << i % 8);
        does_not_finish(padded, BK_SCHEME_RSA_OAEP_SHA256);
        padded->data[i] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        uint8_t wrapped[BK_WRAPPED_MAX];
        size_t len = sizeof wrapped;

        oaep_of(key, others[i].bytes, others[i].label, wrapped, &len);
        bare_rsa(key, wrapped, len, padded);
        does_not_finish(padded, BK_SCHEME_RSA_OAEP_SHA256);
    }
    memset(padded->data, 0, padded->len);
    does_not_finish(padded, BK_SCHEME_RSA_OAEP_SHA256);
}

static void
test_oaep_is_undone_on_the_host(void **state)
{
    EVP_PKEY *key = rsa(2048, 65537);
    struct bk_public to = {0};
    struct bk_secret cek = {0}, padded = {0}, back = {0};
    struct bk_wrapped w = {0};

    (void)state;
    public_of(key, &to);
    assert_int_equal(bk_secret_random(&cek, 32, NULL), BK_OK);
    for (enum bk_scheme s = BK_SCHEME_RSA_OAEP_SHA256; s <= BK_SCHEME_RSA_OAEP_SHA1; s++) {
        to.scheme = s;
        assert_int_equal(bk_public_wrap(&to, &cek, &w, NULL), BK_OK);
        bare_rsa(key, w.data, w.len, &padded);
        assert_int_equal(bk_oaep_finish(s, &padded, &back, NULL), BK_OK);
        assert_true(bk_secret_equal(&cek, &back));
        bk_secret_wipe(&back);
    }
    to.scheme = BK_SCHEME_RSA_OAEP_SHA256;
    assert_int_equal(bk_public_wrap(&to, &cek, &w, NULL), BK_OK);
    bare_rsa(key, w.data, w.len, &padded);
    assert_int_equal(bk_oaep_finish(BK_SCHEME_AES_KW, &padded, &back, NULL), BK_E_INTERNAL);
    check_oaep_damage(key, &padded);
    bk_secret_wipe(&padded);
    assert_int_equal(bk_oaep_finish(BK_SCHEME_RSA_OAEP_SHA256, &padded, &back, NULL), BK_E_INTERNAL);
    bk_secret_wipe(&cek);
    bk_public_free(&to);
    EVP_PKEY_free(key);
}

static void
test_wrap_to_rsa(void **state)
{
    EVP_PKEY *key = rsa(3072, 65537);

    (void)state;
    check_wrap_rsa(key, BK_SCHEME_RSA_OAEP_SHA256, EVP_sha256(), EVP_sha1());
    check_wrap_rsa(key, BK_SCHEME_RSA_OAEP_SHA1, EVP_sha1(), EVP_sha256());
    EVP_PKEY_free(key);
    key = rsa(4096, 65537);
    check_wrap_rsa(key, BK_SCHEME_RSA_OAEP_SHA256, EVP_sha256(), EVP_sha1());
    EVP_PKEY_free(key);
}

static void
test_wrap_refuses_what_does_not_fit(void **state)
{
    static const enum bk_scheme wrong[] = {BK_SCHEME_NONE, BK_SCHEME_AES_KW, BK_SCHEME_RSA_OAEP_SHA256,
                                           BK_SCHEME_ECDH_P384};
    EVP_PKEY *key = EVP_EC_gen("P-256");
    struct bk_public to = {0};
    struct bk_public secret = {.type = BK_KEY_AES256, .scheme = BK_SCHEME_AES_KW};
    struct bk_wrapped w = {.len = 7};
    struct bk_secret cek = {0};
    struct bk_secret half = {0};
    struct bk_err err = {0};

    (void)state;
    public_of(key, &to);
    secret_counting(&cek, 32, 0);
    secret_counting(&half, 16, 0);
    assert_int_equal(bk_public_wrap(&to, &half, &w, NULL), BK_E_INTERNAL);
    assert_int_equal(bk_public_wrap(&secret, &cek, &w, NULL), BK_E_UNSUPPORTED);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        to.scheme = wrong[i];
        assert_int_equal(bk_public_wrap(&to, &cek, &w, &err), BK_E_UNSUPPORTED);
        assert_non_null(strstr(err.message, bk_scheme_name(wrong[i])));
    }
    assert_int_equal(w.len, 7); /* untouched by failures */
    bk_secret_wipe(&cek);
    bk_secret_wipe(&half);
    bk_public_free(&to);
    EVP_PKEY_free(key);
}

static void
test_points(void **state)
{
    uint8_t point[65];
    uint8_t p384[97];
    EVP_PKEY *key = EVP_EC_gen("P-384");
    size_t len = 0;

    (void)state;
    (void)unhex(BASE_POINT, point, sizeof point);
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P256, point, 65, NULL), BK_OK);
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P384, point, 65, NULL), BK_E_FORMAT);
    assert_int_equal(bk_ec_point_check(BK_SCHEME_AES_KW, point, 65, NULL), BK_E_FORMAT);
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P256, point, 64, NULL), BK_E_FORMAT);
    for (size_t i = 0; i < sizeof point; i++) {
        point[i] ^= 1;
        assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P256, point, 65, NULL), BK_E_FORMAT);
        point[i] ^= 1;
    }
    /* compressed, hybrid, infinity, coordinates over the prime */
    point[0] = 3;
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P256, point, 33, NULL), BK_E_FORMAT);
    point[0] = 7;
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P256, point, 65, NULL), BK_E_FORMAT);
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P256, (const uint8_t *)"", 1, NULL), BK_E_FORMAT);
    memset(point + 1, 0xff, 64);
    point[0] = 4;
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P256, point, 65, NULL), BK_E_FORMAT);
    memset(point + 1, 0, 64);
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P256, point, 65, NULL), BK_E_FORMAT);

    assert_int_equal(EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, p384, sizeof p384, &len), 1);
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P384, p384, len, NULL), BK_OK);
    p384[50] ^= 0x10;
    assert_int_equal(bk_ec_point_check(BK_SCHEME_ECDH_P384, p384, len, NULL), BK_E_FORMAT);
    EVP_PKEY_free(key);
}

static void
test_spki_of_a_known_point(void **state)
{
    uint8_t der[91];
    uint8_t digest[32];
    char text[BK_KEY_ID_TEXT];
    char hex[65];
    struct bk_public p = {0};
    size_t len = unhex(P256_SPKI_PREFIX BASE_POINT, der, sizeof der);

    (void)state;
    assert_int_equal(bk_public_from_spki(&p, der, len, NULL), BK_OK);
    assert_int_equal(p.type, BK_KEY_P256);
    assert_int_equal(p.bits, 256);
    assert_int_equal(p.scheme, BK_SCHEME_ECDH_P256);
    assert_int_equal(p.spki_len, len);
    assert_memory_equal(p.spki, der, len);
    assert_null(p.uri);
    assert_string_equal(bk_key_id_text(&p.id, text), "698bea63dc44a344663ff1429aea10842df27b6b");
    bk_public_fingerprint(&p, digest);
    assert_string_equal(bk_hex(digest, 32, hex), "5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3");
    bk_public_free(&p);
}

/* exact-size copies, so that the sanitizer sees every byte read too many */
static void
check_spki_refused(const uint8_t *der, size_t len, const char *what)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    struct bk_public p = {0};
    struct bk_err err = {0};

    assert_non_null(copy);
    memcpy(copy, der, len);
    if (bk_public_from_spki(&p, copy, len, &err) == BK_OK)
        fail_msg("%s was accepted", what);
    assert_true(strlen(err.message) > 0);
    assert_null(p.spki);
    free(copy);
}

static void
test_spki_refuses_damage(void **state)
{
    uint8_t der[92];
    uint8_t compressed[64];
    size_t len = unhex(P256_SPKI_PREFIX BASE_POINT, der, sizeof der);
    size_t small;

    (void)state;
    for (size_t cut = 0; cut < len; cut++)
        check_spki_refused(der, cut, "a truncation");
    der[len] = 0;
    check_spki_refused(der, len + 1, "a trailing byte");
    for (size_t i = len - 65; i < len; i++) {
        der[i] ^= 0x20;
        check_spki_refused(der, len, "a point off the curve");
        der[i] ^= 0x20;
    }
    small =
        unhex("3039301306072a8648ce3d020106082a8648ce3d030107032200036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4"
              "a13945d898c296",
              compressed, sizeof compressed);
    check_spki_refused(compressed, small, "a compressed point");
}

static void
test_spki_types(void **state)
{
    static const char *const refused[] = {"P-521", "secp256k1", "P-224"};
    EVP_PKEY *key;

    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        key = EVP_EC_gen(refused[i]);
        assert_int_equal(public_code(key), BK_E_POLICY);
        EVP_PKEY_free(key);
    }
    key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    assert_int_equal(public_code(key), BK_E_POLICY);
    EVP_PKEY_free(key);
    key = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    assert_int_equal(public_code(key), BK_E_POLICY);
    EVP_PKEY_free(key);
    key = rsa(1024, 65537);
    assert_int_equal(public_code(key), BK_E_POLICY);
    EVP_PKEY_free(key);
    key = rsa(2048, 3);
    assert_int_equal(public_code(key), BK_E_POLICY);
    EVP_PKEY_free(key);
}

static void
test_spki_of_rsa(void **state)
{
    EVP_PKEY *key = rsa(2048, 65537);
    struct bk_public p = {0};
    struct bk_public copy = {0};

    (void)state;
    public_of(key, &p);
    assert_int_equal(p.type, BK_KEY_RSA);
    assert_int_equal(p.bits, 2048);
    assert_int_equal(p.id.len, BK_SKI_LEN);
    p.uri = strdup("pkcs11:token=bk");
    assert_int_equal(bk_public_copy(&copy, &p, NULL), BK_OK);
    assert_ptr_not_equal(copy.spki, p.spki);
    assert_memory_equal(copy.spki, p.spki, p.spki_len);
    assert_string_equal(copy.uri, "pkcs11:token=bk");
    assert_true(bk_key_id_equal(&copy.id, &p.id));
    bk_public_free(&copy);
    bk_public_free(&copy);
    bk_public_free(&p);
    EVP_PKEY_free(key);
}

/* The public half of key with the exponent 2^(bits - 1) + 1 in place of its own. */
static EVP_PKEY *
with_exponent_of(const EVP_PKEY *key, int bits)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *n = NULL, *e = BN_new();
    EVP_PKEY *made = NULL;
    OSSL_PARAM *params;

    assert_int_equal(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &n), 1);
    assert_true(BN_set_bit(e, bits - 1) == 1 && BN_set_bit(e, 0) == 1);
    assert_int_equal(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n), 1);
    assert_int_equal(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e), 1);
    params = OSSL_PARAM_BLD_to_param(build);
    assert_non_null(params);
    assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
    assert_int_equal(EVP_PKEY_fromdata(ctx, &made, EVP_PKEY_PUBLIC_KEY, params), 1);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX_free(ctx);
    BN_free(n);
    BN_free(e);
    return made;
}

/* OpenSSL would refuse to wrap to it, once it is a recipient; found by fuzzing. */
static void
test_spki_refuses_a_huge_exponent(void **state)
{
    EVP_PKEY *key = rsa(2048, 65537), *made;
    struct bk_public p = {0};

    (void)state;
    made = with_exponent_of(key, 64);
    public_of(made, &p);
    assert_int_equal(p.type, BK_KEY_RSA);
    bk_public_free(&p);
    EVP_PKEY_free(made);
    made = with_exponent_of(key, 65);
    assert_int_equal(public_code(made), BK_E_POLICY);
    EVP_PKEY_free(made);
    EVP_PKEY_free(key);
}

/* The modulus's last byte stands before the exponent's five: 02 03 01 00 01. */
static void
test_spki_refuses_an_even_modulus(void **state)
{
    EVP_PKEY *key = rsa(2048, 65537);
    struct bk_public p = {0};

    (void)state;
    public_of(key, &p);
    assert_int_equal(p.spki[p.spki_len - 5], 0x02);
    p.spki[p.spki_len - 6] ^= 1;
    check_spki_refused(p.spki, p.spki_len, "an even modulus");
    p.spki[p.spki_len - 6] ^= 1;
    p.spki[p.spki_len - 1] = 0;
    check_spki_refused(p.spki, p.spki_len, "an even exponent");
    bk_public_free(&p);
    EVP_PKEY_free(key);
}

/* Curve parameters written out, of P-256, come back under the curve's name and with the id of its point. */
static void
test_spki_with_explicit_parameters(void **state)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    struct bk_public named = {0};
    struct bk_public explicit_form = {0};
    unsigned char *der = NULL;
    int len;

    (void)state;
    public_of(key, &named);
    assert_int_equal(EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_ENCODING, "explicit"), 1);
    len = i2d_PUBKEY(key, &der);
    assert_true(len > 91);
    assert_int_equal(bk_public_from_spki(&explicit_form, der, (size_t)len, NULL), BK_OK);
    assert_int_equal(explicit_form.spki_len, named.spki_len);
    assert_memory_equal(explicit_form.spki, named.spki, named.spki_len);
    assert_true(bk_key_id_equal(&explicit_form.id, &named.id));
    OPENSSL_free(der);
    bk_public_free(&named);
    bk_public_free(&explicit_form);
    EVP_PKEY_free(key);
}

static void
test_ecdsa_of_rfc_6979(void **state)
{
    /* the same signature, with a length in long form, and with a needless zero before r */
    static const char *const other_encodings[] = {
        "308146022100" RFC6979_R "022100" RFC6979_S,
        "304702220000" RFC6979_R "022100" RFC6979_S,
        RFC6979_SIG "00",
        "3045022100" RFC6979_R "0220" RFC6979_S,
    };
    uint8_t der[91];
    uint8_t sig[80];
    uint8_t digest[32];
    struct bk_public p = {0};
    size_t len = unhex(P256_SPKI_PREFIX RFC6979_POINT, der, sizeof der);

    (void)state;
    assert_int_equal(bk_public_from_spki(&p, der, len, NULL), BK_OK);
    bk_sha256("sample", 6, digest);
    len = unhex(RFC6979_SIG, sig, sizeof sig);
    assert_int_equal(bk_public_verify(&p, BK_SIG_ECDSA_SHA256, digest, sig, len, NULL), BK_OK);
    assert_int_equal(bk_public_verify(&p, BK_SIG_RSA_PSS_SHA256, digest, sig, len, NULL), BK_E_VERIFY);
    assert_int_equal(bk_public_verify(&p, BK_SIG_NONE, digest, sig, len, NULL), BK_E_VERIFY);
    for (size_t bit = 0; bit < len * 8; bit++) {
        sig[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(bk_public_verify(&p, BK_SIG_ECDSA_SHA256, digest, sig, len, NULL), BK_E_VERIFY);
        sig[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(bk_public_verify(&p, BK_SIG_ECDSA_SHA256, digest, sig, cut, NULL), BK_E_VERIFY);
    digest[31] ^= 1;
    assert_int_equal(bk_public_verify(&p, BK_SIG_ECDSA_SHA256, digest, sig, len, NULL), BK_E_VERIFY);
    digest[31] ^= 1;
    for (size_t i = 0; i < sizeof other_encodings / sizeof *other_encodings; i++) {
        len = unhex(other_encodings[i], sig, sizeof sig);
        assert_int_equal(bk_public_verify(&p, BK_SIG_ECDSA_SHA256, digest, sig, len, NULL), BK_E_VERIFY);
    }
    bk_public_free(&p);
}

static size_t
sign_rsa(EVP_PKEY *key, int padding, int salt, const EVP_MD *mgf1, const uint8_t digest[32], uint8_t sig[512])
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    size_t len = 512;

    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, padding), 1);
    assert_int_equal(EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()), 1);
    if (padding == RSA_PKCS1_PSS_PADDING) {
        assert_int_equal(EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, mgf1), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, salt), 1);
    }
    assert_int_equal(EVP_PKEY_sign(ctx, sig, &len, digest, 32), 1);
    EVP_PKEY_CTX_free(ctx);
    return len;
}

static void
test_rsa_pss_has_one_form(void **state)
{
    EVP_PKEY *key = rsa(2048, 65537);
    struct bk_public p = {0};
    uint8_t digest[32] = {1};
    uint8_t sig[512];
    size_t len = sign_rsa(key, RSA_PKCS1_PSS_PADDING, 32, EVP_sha256(), digest, sig);

    (void)state;
    public_of(key, &p);
    assert_int_equal(bk_public_verify(&p, BK_SIG_RSA_PSS_SHA256, digest, sig, len, NULL), BK_OK);
    assert_int_equal(bk_public_verify(&p, BK_SIG_RSA_PSS_SHA256, digest, sig, len - 1, NULL), BK_E_VERIFY);
    assert_int_equal(bk_public_verify(&p, BK_SIG_ECDSA_SHA256, digest, sig, len, NULL), BK_E_VERIFY);
    sig[len - 1] ^= 1;
    assert_int_equal(bk_public_verify(&p, BK_SIG_RSA_PSS_SHA256, digest, sig, len, NULL), BK_E_VERIFY);
    len = sign_rsa(key, RSA_PKCS1_PSS_PADDING, 20, EVP_sha256(), digest, sig);
    assert_int_equal(bk_public_verify(&p, BK_SIG_RSA_PSS_SHA256, digest, sig, len, NULL), BK_E_VERIFY);
    len = sign_rsa(key, RSA_PKCS1_PSS_PADDING, 32, EVP_sha1(), digest, sig);
    assert_int_equal(bk_public_verify(&p, BK_SIG_RSA_PSS_SHA256, digest, sig, len, NULL), BK_E_VERIFY);
    len = sign_rsa(key, RSA_PKCS1_PADDING, 0, NULL, digest, sig);
    assert_int_equal(bk_public_verify(&p, BK_SIG_RSA_PSS_SHA256, digest, sig, len, NULL), BK_E_VERIFY);
    bk_public_free(&p);
    EVP_PKEY_free(key);
}

static void
test_names(void **state)
{
    struct bk_key_id id = {0};
    char text[BK_KEY_ID_TEXT];

    (void)state;
    for (int s = BK_SCHEME_RSA_OAEP_SHA256; s <= BK_SCHEME_AES_KW; s++)
        assert_int_equal(bk_scheme_from_name(bk_scheme_name((enum bk_scheme)s)), s);
    assert_string_equal(bk_scheme_name(BK_SCHEME_ECDH_P384), "ecdh-p384");
    assert_string_equal(bk_scheme_name(BK_SCHEME_NONE), "none");
    assert_int_equal(bk_scheme_from_name("none"), BK_SCHEME_NONE);
    assert_int_equal(bk_scheme_from_name("rsa"), BK_SCHEME_NONE);
    assert_string_equal(bk_key_type_name(BK_KEY_AES256), "aes256");
    assert_string_equal(bk_key_type_name(BK_KEY_UNKNOWN), "unknown");
    assert_int_equal(bk_sig_alg_for(BK_KEY_P384), BK_SIG_ECDSA_SHA256);
    assert_int_equal(bk_sig_alg_for(BK_KEY_RSA), BK_SIG_RSA_PSS_SHA256);
    assert_int_equal(bk_sig_alg_for(BK_KEY_AES256), BK_SIG_NONE);

    assert_true(bk_key_id_from_text("0A0b0C0d", &id));
    assert_int_equal(id.len, 4);
    assert_string_equal(bk_key_id_text(&id, text), "0a0b0c0d");
    assert_false(bk_key_id_from_text("0a0b0c", &id));
    assert_false(bk_key_id_from_text("0a0b0c0d0", &id));
    assert_false(bk_key_id_from_text("0a0b0c0g", &id));
    assert_false(bk_key_id_from_text("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20", &id));
    assert_true(bk_key_id_from_text("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", &id));
}

/* A key that can do nothing, and one whose token returns a key of the wrong length. */
static enum bk_code
short_unwrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    (void)key;
    (void)in;
    return bk_secret_alloc(cek, 16, err);
}

static void
test_dispatch(void **state)
{
    static const struct bk_key_ops none = {0};
    static const struct bk_key_ops shortening = {.unwrap = short_unwrap};
    struct bk_key key = {.ops = &none, .pub = {.type = BK_KEY_P256, .id = {.bytes = {1, 2, 3, 4}, .len = 4}}};
    struct bk_secret cek = {0};
    struct bk_wrapped w = {0};
    struct bk_err err = {0};
    uint8_t sig[BK_SIGNATURE_MAX];
    size_t len = sizeof sig;

    (void)state;
    assert_int_equal(bk_key_wrap(&key, &cek, &w, &err), BK_E_UNSUPPORTED);
    assert_string_equal(err.message, "key 01020304 (p256) cannot wrap");
    assert_int_equal(bk_key_unwrap(&key, &w, &cek, NULL), BK_E_UNSUPPORTED);
    assert_int_equal(bk_key_rewrap(&key, &w, &key, &w, NULL), BK_E_UNSUPPORTED);
    assert_int_equal(bk_key_sign(&key, sig, sig, &len, NULL), BK_E_UNSUPPORTED);
    key.ops = &shortening;
    assert_int_equal(bk_key_unwrap(&key, &w, &cek, NULL), BK_E_VERIFY);
    assert_null(cek.data);
    bk_key_close(NULL);
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aes_key_wrap_of_rfc_3394),
        cmocka_unit_test(test_aes_key_wrap_takes_32_bytes_only),
        cmocka_unit_test(test_ecdh_finish_of_another_implementation),
        cmocka_unit_test(test_wrap_to_elliptic_curves),
        cmocka_unit_test(test_wrap_to_rsa),
        cmocka_unit_test(test_oaep_is_undone_on_the_host),
        cmocka_unit_test(test_wrap_refuses_what_does_not_fit),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_spki_of_a_known_point),
        cmocka_unit_test(test_spki_refuses_damage),
        cmocka_unit_test(test_spki_types),
        cmocka_unit_test(test_spki_of_rsa),
        cmocka_unit_test(test_spki_refuses_an_even_modulus),
        cmocka_unit_test(test_spki_refuses_a_huge_exponent),
        cmocka_unit_test(test_spki_with_explicit_parameters),
        cmocka_unit_test(test_ecdsa_of_rfc_6979),
        cmocka_unit_test(test_rsa_pss_has_one_form),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_dispatch),
    };
    int locked;

    if (bk_secret_init(&locked, NULL) != BK_OK)
        return 1;
    return cmocka_run_group_tests_name("keywrap", tests, NULL, NULL);
}
