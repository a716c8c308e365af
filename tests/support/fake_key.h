/*
 * Keys in memory behind the interface of base/keys.h, so that format/ and ops/ are tested without a token. Tests only.
 */
#ifndef BK_TESTS_FAKE_KEY_H
#define BK_TESTS_FAKE_KEY_H

#include "base/keys.h"

/*
 * A fresh key of that type. KEKs (signing 0): unwrap for all types, wrap and blind rewrap for AES-256 (rewrap between
 * two fake AES keys works, and proves). Signing keys (signing 1): RSA (3072 bits), P-256, P-384. pub.uri is set. The
 * caller closes.
 */
BK_MUST_USE enum bk_code fake_key_new(enum bk_key_type type, int signing, struct bk_key **out, struct bk_err *err);

/* A KEK from the PEM file of its private key (RSA, P-256, P-384), or from 32 bytes and a name. pub.uri is set. The
 * caller closes. */
BK_MUST_USE enum bk_code fake_key_load(const char *path, struct bk_key **out, struct bk_err *err);
BK_MUST_USE enum bk_code fake_key_from_aes(const uint8_t key[32], const struct bk_key_id *id, struct bk_key **out,
                                           struct bk_err *err);

/* The nth operation from now (1 is the next) fails with code; 0 turns it off. */
void fake_key_fail_at(struct bk_key *key, unsigned nth, enum bk_code code);

/* Every operation so far, for "one signature per wrap". */
unsigned fake_key_operations(const struct bk_key *key);

/* From now on rewrap answers BK_E_UNSUPPORTED. */
void fake_key_forbid_blind(struct bk_key *key);

#endif
