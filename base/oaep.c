/* Suppressed: libcrypto 3 deprecates, and keeps, the one function that undoes this padding without the private key. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <limits.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "base/keywrap.h"

/*
 * Whoever can tell a first byte that is not zero from other failures, by the message or by the time, opens what he
 * likes with a thousand questions or so (Manger, CRYPTO 2001). RSA_padding_check_PKCS1_OAEP_mgf1 gives -1 for every
 * failure, after the same work; its length is looked at once.
 */
enum bk_code
bk_oaep_finish(enum bk_scheme scheme, const struct bk_secret *padded, struct bk_secret *cek, struct bk_err *err)
{
    const EVP_MD *md = scheme == BK_SCHEME_RSA_OAEP_SHA1 ? EVP_sha1() : EVP_sha256();
    struct bk_secret room = {0};
    enum bk_code rc;
    int size, len;

    if ((scheme != BK_SCHEME_RSA_OAEP_SHA1 && scheme != BK_SCHEME_RSA_OAEP_SHA256) || padded->data == NULL ||
        padded->len < 256 || padded->len > BK_WRAPPED_MAX)
        return bk_fail(err, BK_E_INTERNAL, "%s: a padded key of %zu bytes", bk_scheme_name(scheme), padded->len);
    if ((rc = bk_secret_alloc(&room, padded->len, err)) != BK_OK)
        return rc;
    size = (int)padded->len;
    len = RSA_padding_check_PKCS1_OAEP_mgf1(room.data, size, padded->data, size, size, NULL, 0, md, md);
    ERR_clear_error();
    if (len == BK_CEK_LEN)
        rc = bk_secret_from(cek, room.data, BK_CEK_LEN, err);
    else
        rc = bk_fail(err, BK_E_VERIFY, "the wrapped key does not open under this key");
    bk_secret_wipe(&room);
    return rc;
}
