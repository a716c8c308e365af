/* Whom the caller trusts, and for what. docs/FORMAT.md, Roles; docs/CLI.md, TRUST. */
#ifndef BK_OPS_TRUST_H
#define BK_OPS_TRUST_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/keys.h"
#include "format/signed.h"

enum ops_role {
    OPS_ROLE_BACKUP = 1,  /* signs manifests */
    OPS_ROLE_ROTATE = 2,  /* signs key records from generation 2 on */
    OPS_ROLE_OFFICER = 4, /* may also sign records */
    OPS_ROLE_CUSTODIAN = 8,
    OPS_ROLE_VERIFY = 16,
};

struct ops_trust_entry {
    unsigned role;
    uint8_t fingerprint[32]; /* SHA-256 of the SubjectPublicKeyInfo */
};

/* Zero-initialise. */
struct ops_trust {
    struct ops_trust_entry *entries;
    size_t count;
};

void ops_trust_free(struct ops_trust *t);

/* Adds what "[ROLE:]FILE" or "[ROLE:]sha256:HEX" names; without a role it is backup. A file may hold several keys. */
BK_MUST_USE enum bk_code ops_trust_add(struct ops_trust *t, const char *text, struct bk_err *err);

/* Adds one key. */
BK_MUST_USE enum bk_code ops_trust_add_public(struct ops_trust *t, unsigned role, const struct bk_public *pub,
                                              struct bk_err *err);

/* 1 if the key is trusted in one of the roles. */
int ops_trust_allows(const struct ops_trust *t, unsigned roles, const struct bk_public *pub);

/* Every signer must be trusted in one of the roles; BK_E_UNTRUSTED names the first who is not, with its fingerprint in
 * the hint. what is "manifest" or "record". */
BK_MUST_USE enum bk_code ops_trust_check(const struct ops_trust *t, unsigned roles, const struct bk_signed *s,
                                         const char *what, struct bk_err *err);

#define OPS_FINGERPRINT_TEXT (7 + 64 + 1)
/* "sha256:HEX". Returns out. */
char *ops_fingerprint_text(const struct bk_public *pub, char out[OPS_FINGERPRINT_TEXT]);

#endif
