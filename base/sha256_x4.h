/*
 * SHA-256 (FIPS 180-4) of four messages at once with the SHA instructions of x86-64 (Intel SDM volume 2, SHA256RNDS2).
 * A round waits four cycles for the one before it; the rounds of three other messages fill the wait. Not for secrets:
 * what it leaves in registers and on the stack is not wiped.
 */
#ifndef BK_BASE_SHA256_X4_H
#define BK_BASE_SHA256_X4_H

#include <stddef.h>
#include <stdint.h>

#define BK_SHA256_X4 4

/* 1 if this processor has the instructions, and gives OpenSSL's answers with them: tried once. */
int bk_sha256_x4_runs(void);

/* Messages of len bytes each, which may overlap. Only where it runs. */
void bk_sha256_x4(const uint8_t *const messages[BK_SHA256_X4], size_t len, uint8_t *const digests[BK_SHA256_X4]);

#endif
