/* PEM files of certificates and public keys, with the attributes that bk-key writes above a block; and certificates. */
#ifndef BK_FORMAT_PEM_H
#define BK_FORMAT_PEM_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/keys.h"

struct bk_pem_key {
    struct bk_public pub; /* scheme and uri from the text above the block ("bk-scheme: ...", "bk-uri: ...") if there */
    struct bk_buf cert;   /* DER, when the block was a certificate */
};

struct bk_pem {
    struct bk_pem_key *keys;
    size_t count;
};

void bk_pem_free(struct bk_pem *p);

/*
 * Every CERTIFICATE and PUBLIC KEY block of text, in order, at least one. A block of private key material is
 * BK_E_USAGE: such a file must not be where this one is. Any other kind of block, and one that cannot be decoded, is
 * BK_E_USAGE too; a type or size of key that bk refuses is BK_E_POLICY. Attributes of a block are the lines
 * "bk-name: value" since the block before: bk-scheme, which must fit the key, and bk-uri; no other, none twice.
 */
BK_MUST_USE enum bk_code bk_pem_parse(const char *text, size_t len, struct bk_pem *out, struct bk_err *err);

/* A PEM block with its bk- attributes above. cert may be NULL: then PUBLIC KEY. */
BK_MUST_USE enum bk_code bk_pem_write(const struct bk_public *pub, const struct bk_buf *cert, const char *comment,
                                      struct bk_buf *out, struct bk_err *err);

struct bk_cert_info {
    struct bk_public pub;
    char subject[256]; /* RFC 2253 form, for people */
    time_t not_before;
    time_t not_after;
    uint8_t ski[64]; /* the subjectKeyIdentifier extension */
    size_t ski_len;  /* 0 when it has none */
};

void bk_cert_info_free(struct bk_cert_info *c);
BK_MUST_USE enum bk_code bk_cert_parse(const uint8_t *der, size_t len, struct bk_cert_info *out, struct bk_err *err);

/*
 * A self-signed certificate (RFC 5280) for a key on a token: subject CN = name, random serial, subjectKeyIdentifier by
 * RFC 7093 method 1, authorityKeyIdentifier the same, basicConstraints CA:FALSE, keyUsage digitalSignature. Signed by
 * the key itself (bk_key_sign); the result is parsed and its signature checked before it is returned. name is at most
 * 64 characters (BK_E_USAGE); BK_E_TOKEN when the token's signature does not hold.
 */
BK_MUST_USE enum bk_code bk_cert_self_sign(struct bk_key *key, const char *name, time_t not_before, time_t not_after,
                                           struct bk_buf *der, struct bk_err *err);

#endif
