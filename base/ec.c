#include "base/ec.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>

static const struct bk_curve curves[] = {
    {BK_KEY_P256,
     BK_SCHEME_ECDH_P256,
     "P-256",
     256,
     65,
     {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
      0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00},
     26},
    {BK_KEY_P384,
     BK_SCHEME_ECDH_P384,
     "P-384",
     384,
     97,
     {0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02,
      0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00},
     23},
};

const struct bk_curve *
bk_curve_of(enum bk_key_type type)
{
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++)
        if (curves[i].type == type)
            return &curves[i];
    return NULL;
}

const struct bk_curve *
bk_curve_of_spki(const uint8_t *der, size_t len)
{
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++) {
        const struct bk_curve *c = &curves[i];

        if (len == c->prefix_len + c->point && memcmp(der, c->prefix, c->prefix_len) == 0 && der[c->prefix_len] == 4)
            return c;
    }
    return NULL;
}

EVP_PKEY *
bk_ec_key(const struct bk_curve *c, const uint8_t *point, size_t len)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)c->group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)point, len),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY *key = NULL;

    if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    return key;
}
