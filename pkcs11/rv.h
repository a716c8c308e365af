/* Return values of PKCS#11 calls: names, and classes, since the same fault has many codes (docs/TOKENS.md). */
#ifndef BK_PKCS11_RV_H
#define BK_PKCS11_RV_H

#include <p11-kit/pkcs11.h>

#include "base/err.h"

#define P11_RV_TEXT 64

/* "CKR_PIN_INCORRECT", or "CK_RV 0x80000001" for one without a name; buf is used for the latter. */
const char *p11_rv_name(CK_RV rv, char buf[P11_RV_TEXT]);

/* The error code of a class of return values; BK_E_TOKEN for what is in no other class. */
enum bk_code p11_rv_code(CK_RV rv);

/* 1 if session, login or token may be gone: worth a new session and one repetition. */
int p11_rv_is_lost(CK_RV rv);
/* 1 if it can mean a fault of the token as well as tampered data. */
int p11_rv_is_vague(CK_RV rv);
/* 1 if another template or mechanism parameter may be accepted. */
int p11_rv_is_parameter(CK_RV rv);

#endif
