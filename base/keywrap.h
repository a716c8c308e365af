/*
 * The host's half of the wrapping schemes: wrapping to a public key needs no token, and for ECDH the token only derives
 * the shared secret. Also the check of a signature, which needs only the public key.
 */
#ifndef BK_BASE_KEYWRAP_H
#define BK_BASE_KEYWRAP_H

#include "base/keys.h"

/*
 * Wraps a 32-byte CEK to an RSA or EC public half, by its scheme: RSAES-OAEP (RFC 8017 7.1, empty label) or ephemeral
 * ECDH with the X9.63 KDF and AES key wrap (RFC 5753 7.2, RFC 3394). An ephemeral point whose second byte equals its
 * length minus 2 is drawn again: some tokens would take the raw point for a DER OCTET STRING.
 */
BK_MUST_USE enum bk_code bk_public_wrap(const struct bk_public *to, const struct bk_secret *cek, struct bk_wrapped *out,
                                        struct bk_err *err);

/* The last steps of opening an ECDH recipient, given the raw shared secret (x coordinate, 32 or 48 bytes). */
BK_MUST_USE enum bk_code bk_ecdh_finish(enum bk_scheme scheme, const struct bk_secret *shared,
                                        const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err);

/*
 * RSAES-OAEP (RFC 8017 7.1.2 step 3) from what the bare RSA operation gave, as long as the modulus, with zeros in
 * front: in constant time, and with one error, BK_E_VERIFY, for whatever is wrong with it (step 3g).
 */
BK_MUST_USE enum bk_code bk_oaep_finish(enum bk_scheme scheme, const struct bk_secret *padded, struct bk_secret *cek,
                                        struct bk_err *err);

/* AES key wrap of RFC 3394 under a 32-byte key: 32 bytes to 40 and back. Unwrap answers BK_E_VERIFY on a bad check. */
BK_MUST_USE enum bk_code bk_aeskw_wrap(const struct bk_secret *kek, const struct bk_secret *cek,
                                       uint8_t out[BK_AESKW_LEN], struct bk_err *err);
BK_MUST_USE enum bk_code bk_aeskw_unwrap(const struct bk_secret *kek, const uint8_t in[BK_AESKW_LEN],
                                         struct bk_secret *cek, struct bk_err *err);

/* BK_E_FORMAT unless point is uncompressed, of the right length for the scheme's curve, and on it. */
BK_MUST_USE enum bk_code bk_ec_point_check(enum bk_scheme scheme, const uint8_t *point, size_t len, struct bk_err *err);

/* Checks a signature over a SHA-256 digest. BK_E_VERIFY if it does not hold. */
BK_MUST_USE enum bk_code bk_public_verify(const struct bk_public *p, enum bk_sig_alg alg, const uint8_t digest[32],
                                          const uint8_t *sig, size_t sig_len, struct bk_err *err);

#endif
