/* The public half of a key on a token, from wherever the token keeps it. */
#ifndef BK_PKCS11_PUBLIC_H
#define BK_PKCS11_PUBLIC_H

#include "pkcs11/object.h"

/*
 * Fills the zeroed *out, checked on the host (bk_public_from_spki): from a public key object of the same CKA_ID, or the
 * private key's own attributes, or a certificate of the same CKA_ID. A candidate that contradicts the private key is
 * passed over. For a secret key: its CKA_ID. Without uri; scheme is the default of the type. BK_E_NO_KEY if the token
 * holds no public half, BK_E_POLICY if it does and that is of a kind that bk does not use.
 */
BK_MUST_USE enum bk_code p11_public_half(struct p11_session *s, CK_OBJECT_HANDLE object, const struct p11_traits *t,
                                         struct bk_public *out, struct bk_err *err);

/* The same for a public key object, by its own attributes. */
BK_MUST_USE enum bk_code p11_public_from_object(struct p11_session *s, CK_OBJECT_HANDLE object,
                                                const struct p11_traits *t, struct bk_public *out, struct bk_err *err);
/* And for a certificate object. If der is not NULL it receives the certificate. */
BK_MUST_USE enum bk_code p11_public_from_certificate(struct p11_session *s, CK_OBJECT_HANDLE object,
                                                     struct bk_public *out, struct bk_buf *der, struct bk_err *err);
/* The same for DER in hand; refuses bytes after the certificate. */
BK_MUST_USE enum bk_code p11_public_from_x509(const uint8_t *der, size_t len, struct bk_public *out,
                                              struct bk_err *err);

/* The hint of an object on this token. */
BK_MUST_USE enum bk_code p11_public_set_uri(struct bk_public *out, const struct p11_token *token,
                                            const struct p11_traits *t, struct bk_err *err);

#endif
