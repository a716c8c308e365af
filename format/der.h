/*
 * DER, strictly: libtasn1's strict mode is not DER, so a structure is accepted only after a pre-walk, a strict decode
 * and a re-encode that equals the input byte for byte. docs/FORMAT.md, CMS. Inside format/ only; never for secrets,
 * because libtasn1 keeps its nodes in ordinary memory. (bk_der_walk copies nothing, and may walk over a secret.)
 */
#ifndef BK_FORMAT_DER_H
#define BK_FORMAT_DER_H

#include <libtasn1.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buf.h"
#include "base/err.h"

#define BK_DER_DEPTH_MAX    20
#define BK_DER_ELEMENTS_MAX 4096
#define BK_DER_SIZE_MAX     (1024 * 1024) /* nothing in an archive is larger: manifest, slot, sidecar */

/* The pre-walk alone: depth, element count, minimal definite lengths, forms of INTEGER, BOOLEAN, BIT STRING, OBJECT
 * IDENTIFIER, no trailing bytes. what names the structure in messages. */
BK_MUST_USE enum bk_code bk_der_walk(const uint8_t *der, size_t len, const char *what, struct bk_err *err);

/* Length of the single element at the start of der (header and contents); BK_E_FORMAT if it does not fit in len. */
BK_MUST_USE enum bk_code bk_der_element_length(const uint8_t *der, size_t len, size_t *out, struct bk_err *err);

/* Pre-walk, strict decode as "BK.<type>", re-encode and compare. *out is freed with bk_der_free. */
BK_MUST_USE enum bk_code bk_der_decode(const char *type, const uint8_t *der, size_t len, asn1_node *out,
                                       struct bk_err *err);
BK_MUST_USE enum bk_code bk_der_new(const char *type, asn1_node *out, struct bk_err *err);
/* Appends to out. */
BK_MUST_USE enum bk_code bk_der_encode(asn1_node node, struct bk_buf *out, struct bk_err *err);
/* Zeroizes. NULL does nothing. */
void bk_der_free(asn1_node node);

/* Reads at a path such as "recipientInfos.?1.ktri.encryptedKey". Each names the path in its error. */
BK_MUST_USE enum bk_code bk_der_get_bytes(asn1_node node, const char *path, uint8_t *out, size_t max, size_t *len,
                                          struct bk_err *err);
/* Exactly len bytes. */
BK_MUST_USE enum bk_code bk_der_get_fixed(asn1_node node, const char *path, uint8_t *out, size_t len,
                                          struct bk_err *err);
/* Appends to out; for content and ANY of any length. */
BK_MUST_USE enum bk_code bk_der_get_buf(asn1_node node, const char *path, struct bk_buf *out, struct bk_err *err);
/* Non-negative INTEGER or ENUMERATED of at most 63 bits. */
BK_MUST_USE enum bk_code bk_der_get_u64(asn1_node node, const char *path, uint64_t *out, struct bk_err *err);
BK_MUST_USE enum bk_code bk_der_get_time(asn1_node node, const char *path, time_t *out, struct bk_err *err);
/* NUL-terminated text, checked with bk_text_valid; max includes the NUL. */
BK_MUST_USE enum bk_code bk_der_get_text(asn1_node node, const char *path, char *out, size_t max, struct bk_err *err);
/* 1 if the OPTIONAL element is there. */
int bk_der_has(asn1_node node, const char *path);
/* Elements of a SEQUENCE OF or SET OF. */
BK_MUST_USE enum bk_code bk_der_count(asn1_node node, const char *path, size_t *out, struct bk_err *err);
/* The bytes of an element within the DER that node was decoded from (asn1_der_decoding_startEnd); *end is one past
 * the last. */
BK_MUST_USE enum bk_code bk_der_span(asn1_node node, const char *path, const uint8_t *der, size_t len, size_t *start,
                                     size_t *end, struct bk_err *err);

BK_MUST_USE enum bk_code bk_der_put_bytes(asn1_node node, const char *path, const void *data, size_t len,
                                          struct bk_err *err);
BK_MUST_USE enum bk_code bk_der_put_u64(asn1_node node, const char *path, uint64_t v, struct bk_err *err);
BK_MUST_USE enum bk_code bk_der_put_time(asn1_node node, const char *path, time_t t, struct bk_err *err);
/* Text for OBJECT IDENTIFIER ("1.2.840..."), CHOICE (the alternative's name). UTF8String goes through put_bytes. */
BK_MUST_USE enum bk_code bk_der_put_text(asn1_node node, const char *path, const char *text, struct bk_err *err);
/* Leaves an OPTIONAL element out. */
BK_MUST_USE enum bk_code bk_der_put_absent(asn1_node node, const char *path, struct bk_err *err);
/* Appends an element to a SEQUENCE OF or SET OF; its path is then path ".?LAST". */
BK_MUST_USE enum bk_code bk_der_put_new(asn1_node node, const char *path, struct bk_err *err);

#endif
