/* The table of whole encodings: AlgorithmIdentifiers and identifiers are compared byte for byte. docs/FORMAT.md, CMS.
 */
#ifndef BK_FORMAT_ALGORITHMS_H
#define BK_FORMAT_ALGORITHMS_H

#include <stddef.h>
#include <stdint.h>

#include "base/keys.h"

struct bk_encoding {
    const uint8_t *der;
    size_t len;
};

/* keyEncryptionAlgorithm of a scheme whose encoding is one; length 0 for AES-GCM, which has a nonce in it. */
struct bk_encoding bk_alg_of_scheme(enum bk_scheme scheme);
/* BK_SCHEME_NONE if the encoding is not in the table. */
enum bk_scheme bk_alg_to_scheme(const uint8_t *der, size_t len);
/* 1 for what is refused outright wherever it stands: PKCS#1 v1.5 key transport, ECDH with the SHA-1 KDF, and other
 * encodings of RSAES-OAEP with SHA-1 or SHA-256, of id-aes256-wrap and of the project's own identifier than those of
 * the table. */
int bk_alg_forbidden(const uint8_t *der, size_t len);

/* AES-256-GCM with a nonce of 12 and a tag of 16 bytes (RFC 5084 section 3.2): the content encryption, and with the
 * same encoding a scheme. */
#define BK_ALG_GCM_LEN   32
#define BK_ALG_GCM_NONCE 12
void bk_alg_gcm(const uint8_t nonce[BK_ALG_GCM_NONCE], uint8_t out[BK_ALG_GCM_LEN]);
/* The nonce in such an encoding, NULL if it is another one. */
const uint8_t *bk_alg_gcm_nonce(const uint8_t *der, size_t len);

struct bk_encoding bk_alg_of_signature(enum bk_sig_alg alg);
enum bk_sig_alg bk_alg_to_signature(const uint8_t *der, size_t len);
struct bk_encoding bk_alg_sha256(void);
struct bk_encoding bk_alg_ec_public(void); /* id-ecPublicKey without parameters, for originatorKey */
struct bk_encoding bk_alg_aes256_wrap(void);

/* The project's own identifiers: 2.25.318658599713024050627018284381234420047.last, as whole OBJECT IDENTIFIER TLV;
 * out holds BK_OWN_OID_LEN bytes. */
#define BK_OWN_OID_LEN 23
void bk_own_oid(uint8_t last, uint8_t out[BK_OWN_OID_LEN]);
enum { BK_OID_MANIFEST = 1, BK_OID_KEY_RECORD = 2, BK_OID_THRESHOLD = 3, BK_OID_SUITE_1 = 5, BK_OID_YUBIHSM_CCM = 8 };

#endif
