/*
 * P-256 and P-384: their one encoding as SubjectPublicKeyInfo (RFC 5480, named curve, uncompressed point), and keys
 * made of points. OpenSSL's decoders and encoders, which try every kind of key, take several times as long.
 */
#ifndef BK_BASE_EC_H
#define BK_BASE_EC_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/types.h>

#include "base/keys.h"

#define BK_EC_PREFIX_MAX 26

struct bk_curve {
    enum bk_key_type type;
    enum bk_scheme scheme;
    const char *group; /* as OpenSSL names it */
    size_t bits;
    size_t point;                     /* bytes of an uncompressed point */
    uint8_t prefix[BK_EC_PREFIX_MAX]; /* the SubjectPublicKeyInfo up to the point */
    size_t prefix_len;
};

/* NULL if it is neither. */
const struct bk_curve *bk_curve_of(enum bk_key_type type);
/* The curve if der is that encoding of a point on one of them, of which nothing but its form was looked at; else NULL.
 */
const struct bk_curve *bk_curve_of_spki(const uint8_t *der, size_t len);

/* NULL if the point is not on the curve. EVP_PKEY_free. */
EVP_PKEY *bk_ec_key(const struct bk_curve *c, const uint8_t *point, size_t len);

#endif
