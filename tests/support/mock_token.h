/*
 * Schemes that no module on a test machine has: a token of our own, a function list, that does them with OpenSSL. It
 * holds one key, and one object of a session beside it. Tests only.
 */
#ifndef BK_TESTS_MOCK_TOKEN_H
#define BK_TESTS_MOCK_TOKEN_H

#include <openssl/evp.h>

#include "base/keywrap.h"
#include "pkcs11/generate.h"
#include "pkcs11/module.h"
#include "pkcs11/on_token.h"

enum nonces {
    DRAWS,        /* refuses a nonce that is not zero */
    DRAWS_EARLY,  /* the same, in C_EncryptInit, and overwrites whatever came in */
    LEAVES_ZERO,  /* takes the caller's, whatever it is */
    REPEATS,      /* one for ever */
    DRAWS_UNASKED /* only if it is zero; else takes the caller's */
};

extern struct mock {
    int exists, token, generated, destroyed;
    CK_KEY_TYPE type;
    CK_BBOOL encrypts, decrypts, wraps, unwraps;
    uint8_t id[32], label[32];
    size_t id_len, label_len;

    enum nonces nonces;
    int key_wrap; /* AES key wrap works */
    int short_by; /* so much less than is right comes out of C_Encrypt */
    CK_MECHANISM_TYPE doing;
    CK_MECHANISM mechanism; /* of RSA; what it points to must live as long as the operation */
    uint8_t *nonce;         /* where the caller wants it */
    uint8_t drawn[BK_KEK_NONCE];
    int sessions, searching;
    uint8_t value[64]; /* of the object */
    size_t value_len;

    EVP_PKEY *rsa;  /* then the key is this */
    int sha256;     /* the module knows RSA-OAEP with it */
    int needs_len;  /* C_UnwrapKey wants CKA_VALUE_LEN */
    int cuts_zeros; /* bare RSA's result has none in front */
    CK_RV raw_rv;   /* what bare RSA answers */
    int raw_calls;
} mock;

/* As a YubiHSM 2 has it, the nonce of AES-CCM comes first; only the length is true to AES-CCM here. */
#define MOCK_CCM_NONCE 13

struct bench {
    struct p11 *p;
    struct bk_log log;
    struct p11_module module;
    struct p11_token *token;
    struct p11_uri uri;
    char warning[512];
};

void bench_start(struct bench *b, enum nonces nonces);
/* Every session is closed by then, and the object gone. */
void bench_end(struct bench *b);

/* A key that was on the token before. */
void put_key(CK_KEY_TYPE type, int encrypts, int decrypts, int wraps);
/* Opens it; it must be so. */
struct bk_key *open_key(struct bench *b, enum p11_use use);

#endif
