/*
 * What the fuzzers share: properties that end the run when they do not hold, keys that are the same in every run, and
 * the entry points of libFuzzer. A harness is one file NAME_fuzz.c with LLVMFuzzerTestOneInput.
 */
#ifndef BK_TESTS_FUZZ_H
#define BK_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/keys.h"
#include "format/signed.h"

/* libFuzzer's own, and the entry points that it looks for. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* A property: prints itself and ends the run, so that libFuzzer keeps the input. */
#define fuzz_hold(property) ((property) ? (void)0 : fuzz_broken(#property, __FILE__, __LINE__))
_Noreturn void fuzz_broken(const char *property, const char *file, int line);

/* Of valid input made by the harness itself: it must succeed. */
void fuzz_must(enum bk_code rc, const struct bk_err *err);

/* An answer: BK_OK, or a code that err has too, with one sentence without control characters, since it may quote an
 * archive and is shown on a terminal. Never BK_E_INTERNAL: no input is a defect of the program. */
void fuzz_answer(enum bk_code rc, const struct bk_err *err);

/* The answer of a parser of archives: BK_OK or a code whose exit status is 1. */
void fuzz_verdict(enum bk_code rc, const struct bk_err *err);

/* The same answer twice. */
void fuzz_same_answer(const struct bk_err *a, const struct bk_err *b);

/* Counts an input that the parser took; the number is printed at the end, and run.sh wants it to be over 0. */
void fuzz_accepted(void);

/* A copy of exactly that size (at least one byte of room), so that the address sanitizer sees the first byte that is
 * read too far. freed by the caller. */
uint8_t *fuzz_copy(const void *data, size_t len);
/* The same with a NUL at its end, for parsers of text; bytes after an embedded NUL are not seen by them. */
char *fuzz_text(const uint8_t *data, size_t len);

/* Keys that are the same in every run, so that a stored input stays what it was. */
extern const uint8_t FUZZ_ARCHIVE_ID[16];
extern const uint8_t FUZZ_CEK[32];
extern const uint8_t FUZZ_FILE_KEY[32];
/* An AES-256 KEK in memory. */
struct bk_key *fuzz_kek(void);
/* A P-256 signing key in memory with a certificate; the certificate's serial number and times differ from run to run.
 */
const struct bk_signing_key *fuzz_signer(void);

#endif
