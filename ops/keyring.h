/* The keys that a restore, a drill or a rotation may use, and the search for the one that opens an archive. */
#ifndef BK_OPS_KEYRING_H
#define BK_OPS_KEYRING_H

#include "base/keys.h"
#include "ops/archive.h"
#include "pkcs11/p11.h"

/* All borrowed. Without uris and keys the record's hints say where to look, then every token that is there. */
struct ops_keyring {
    struct p11 *p11; /* NULL: only keys */
    const char *const *uris;
    size_t uri_count;
    struct bk_key *const *keys; /* opened already */
    size_t key_count;
    const char *option; /* the program's option that names a key, for hints; NULL: -k */
};

/*
 * The key that opens one of the archive's recipients, and which. *owned says whether the caller must close it.
 * BK_E_NO_KEY names the recipients; BK_E_PIN ends the search at once, so that no PIN is tried twice.
 */
BK_MUST_USE enum bk_code ops_keyring_find(const struct ops_keyring *ring, const struct ops_archive *a,
                                          struct bk_key **key, int *owned, size_t *recipient, struct bk_err *err);

/* Opens the data key and with it the key package, and checks the package against all that is signed if the manifest is
 * known (a->manifest_signed). The caller wipes cek and frees package. */
BK_MUST_USE enum bk_code ops_keyring_open(const struct ops_keyring *ring, const struct ops_archive *a,
                                          struct bk_secret *cek, struct bk_key_package *package,
                                          struct bk_key_id *opened_by, struct bk_err *err);

#endif
