/* Keys in memory, the same in every run; behind the interface of base/keys.h. */
#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>

#include "base/keywrap.h"
#include "base/time.h"
#include "format/pem.h"
#include "tests/fuzz/fuzz.h"

const uint8_t FUZZ_ARCHIVE_ID[16] = {0x01, 0x93, 0x5c, 0x00, 0x11, 0x22, 0x7a, 0xbc,
                                     0x80, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07};
const uint8_t FUZZ_CEK[32] = "fuzzers' data key, of no secrecy";
const uint8_t FUZZ_FILE_KEY[32] = "fuzzers' file key, of no secrecy";
static const uint8_t KEK[32] = "fuzzers' AES KEK, of no secrecy.";
static const uint8_t SCALAR[32] = "fuzzers' P-256 key, of no secret";

static enum bk_code
kek_unwrap(struct bk_key *key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err)
{
    struct bk_secret kek = {0};
    enum bk_code rc;

    (void)key;
    if (in->scheme != BK_SCHEME_AES_KW || in->len != BK_AESKW_LEN)
        return bk_fail(err, BK_E_UNSUPPORTED, "the fuzzers' key opens aes-kw alone");
    if ((rc = bk_secret_from(&kek, KEK, sizeof KEK, err)) == BK_OK)
        rc = bk_aeskw_unwrap(&kek, in->data, cek, err);
    bk_secret_wipe(&kek);
    return rc;
}

static enum bk_code
kek_wrap(struct bk_key *key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err)
{
    struct bk_wrapped w = {.scheme = BK_SCHEME_AES_KW, .id = key->pub.id, .len = BK_AESKW_LEN};
    struct bk_secret kek = {0};
    enum bk_code rc;

    if ((rc = bk_secret_from(&kek, KEK, sizeof KEK, err)) == BK_OK)
        rc = bk_aeskw_wrap(&kek, cek, w.data, err);
    bk_secret_wipe(&kek);
    if (rc == BK_OK)
        *out = w;
    return rc;
}

struct bk_key *
fuzz_kek(void)
{
    static const struct bk_key_ops ops = {.wrap = kek_wrap, .unwrap = kek_unwrap};
    static struct bk_key key = {
        .ops = &ops,
        .pub = {.type = BK_KEY_AES256, .bits = 256, .scheme = BK_SCHEME_AES_KW, .id = {.bytes = "fuzz kek", .len = 8}}};

    return &key;
}

static EVP_PKEY *
make_pair(void)
{
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    BIGNUM *scalar = BN_bin2bn(SCALAR, sizeof SCALAR, NULL);
    EC_POINT *point = EC_POINT_new(group);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM *params;
    uint8_t public[65];

    fuzz_hold(EC_POINT_mul(group, point, scalar, NULL, NULL, NULL) == 1);
    fuzz_hold(EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, public, sizeof public, NULL) ==
              sizeof public);
    fuzz_hold(OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1);
    fuzz_hold(OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, public, sizeof public) == 1);
    fuzz_hold(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, scalar) == 1);
    params = OSSL_PARAM_BLD_to_param(build);
    fuzz_hold(EVP_PKEY_fromdata_init(ctx) == 1 && EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_KEYPAIR, params) == 1);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX_free(ctx);
    EC_POINT_free(point);
    BN_free(scalar);
    EC_GROUP_free(group);
    return pkey;
}

struct pair {
    struct bk_key key; /* first, so that a struct bk_key * is one of these */
    EVP_PKEY *pkey;
};

static enum bk_code
pair_sign(struct bk_key *key, const uint8_t digest[32], enum bk_sig_alg alg, uint8_t *sig, size_t *sig_len,
          struct bk_err *err)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(((struct pair *)key)->pkey, NULL);

    (void)err;
    fuzz_hold(alg == BK_SIG_ECDSA_SHA256);
    fuzz_hold(EVP_PKEY_sign_init(ctx) == 1 && EVP_PKEY_sign(ctx, sig, sig_len, digest, 32) == 1);
    EVP_PKEY_CTX_free(ctx);
    return BK_OK;
}

const struct bk_signing_key *
fuzz_signer(void)
{
    static const struct bk_key_ops ops = {.sign = pair_sign};
    static struct pair pair = {.key.ops = &ops};
    static struct bk_buf cert; /* both live as long as the process */
    static struct bk_signing_key signer;
    struct bk_err err;
    uint8_t *spki = NULL;
    int len;

    if (signer.key != NULL)
        return &signer;
    pair.pkey = make_pair();
    len = i2d_PUBKEY(pair.pkey, &spki);
    fuzz_hold(len > 0);
    fuzz_must(bk_public_from_spki(&pair.key.pub, spki, (size_t)len, &err), &err);
    OPENSSL_free(spki);
    pair.key.pub.scheme = BK_SCHEME_NONE;
    fuzz_must(bk_cert_self_sign(&pair.key, "fuzz", bk_time_now() - 3600, bk_time_now() + 3600, &cert, &err), &err);
    signer = (struct bk_signing_key){&pair.key, cert.data, cert.len};
    return &signer;
}
