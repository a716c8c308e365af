/* The key package: what the envelope encrypts. docs/FORMAT.md, Keys. It never exists outside locked memory. */
#ifndef BK_FORMAT_KEY_PACKAGE_H
#define BK_FORMAT_KEY_PACKAGE_H

#include "base/keys.h"
#include "base/time.h"
#include "format/envelope.h"

#define BK_SIGNERS_MAX 4

struct bk_metadata_item {
    const char *key;   /* NUL-terminated UTF-8 without control characters, 1 to BK_TEXT_MAX bytes */
    const char *value; /* the same, of any length that fits, also empty */
};

struct bk_key_package {
    uint8_t archive_id[BK_UUID_LEN];
    struct bk_secret file_key;                /* 32 bytes */
    struct bk_key_id signers[BK_SIGNERS_MAX]; /* RFC 7093 method 1 ids, sorted bytewise, each once; 1 to 4 */
    size_t signer_count;
    struct bk_metadata_item *metadata; /* in order; items point into strings */
    size_t metadata_count;
    struct bk_secret strings; /* owned: what items of an opened package point into */
};

/* Wipes and frees all that the package owns (the metadata array is always malloc'ed and owned). */
void bk_key_package_free(struct bk_key_package *k);

/* Seals into e->content, nonce (fresh) and mac under a 32-byte CEK. Sorts signers. The DER is wiped. BK_E_USAGE names
 * what is wrong with signers or metadata; e is then unchanged. */
BK_MUST_USE enum bk_code bk_key_package_seal(struct bk_key_package *k, const struct bk_secret *cek,
                                             struct bk_envelope *e, struct bk_err *err);

/*
 * Opens under the CEK and parses: version, archive id (compared with archive_id), suite, lengths, sorted signers,
 * metadata. BK_E_VERIFY when the tag does not hold (wrong CEK or damage), BK_E_FORMAT when the content is not a key
 * package, BK_E_VERIFY "envelope of another archive" when the archive id differs.
 */
BK_MUST_USE enum bk_code bk_key_package_open(const struct bk_envelope *e, const struct bk_secret *cek,
                                             const uint8_t archive_id[BK_UUID_LEN], struct bk_key_package *out,
                                             struct bk_err *err);

#endif
