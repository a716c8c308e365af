/* Objects on a token: finding them, and reading their attributes one call at a time (docs/TOKENS.md, rules 1 and 2). */
#ifndef BK_PKCS11_OBJECT_H
#define BK_PKCS11_OBJECT_H

#include <stdint.h>

#include "base/keys.h"
#include "pkcs11/session.h"

#define P11_ATTRIBUTE_MAX   P11_LABEL_MAX /* longest label and CKA_ID that are told apart */
#define P11_FIND_MAX        4096
#define P11_CERTIFICATE_MAX 65536

/* C_GetAttributeValue of one attribute, tried once more after a vague failure (docs/TOKENS.md, rule 7). *len is what
 * the module says, and may be anything. */
CK_RV p11_object_get(struct p11_session *s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, void *out, size_t room,
                     size_t *len);
/*
 * Reads one attribute of at most room bytes: 1 and *len, or 0 if the token does not tell it, which is a value and no
 * error. Whether the session was lost meanwhile is asked once, at the end, by p11_object_check.
 */
int p11_object_bytes(struct p11_session *s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, void *out, size_t room,
                     size_t *len);
int p11_object_ulong(struct p11_session *s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, CK_ULONG *out);
/* 1, 0, or -1 if the token does not tell. */
int p11_object_bool(struct p11_session *s, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type);
/* *tells is 1 if the token tells the value of a secret key, which is not kept. BK_E_NO_ROOM without memory for it. */
BK_MUST_USE enum bk_code p11_object_tells_value(struct p11_session *s, CK_OBJECT_HANDLE object, int *tells,
                                                struct bk_err *err);
/* The session answers, so what was not told is not there rather than not reached. */
BK_MUST_USE enum bk_code p11_object_check(struct p11_session *s, struct bk_err *err);

/* The kinds of objects that bk looks at, in the order of a list, with their names for people. */
struct p11_class {
    CK_OBJECT_CLASS class;
    const char *name;
};
#define P11_CLASSES 4
extern const struct p11_class p11_classes[P11_CLASSES];

struct p11_handles {
    CK_OBJECT_HANDLE *at;
    size_t count;
};
void p11_handles_free(struct p11_handles *h);

/* All objects of the class, with the label and the id where these are not NULL; what comes back is looked at again,
 * since filters may be ignored. *out is zeroed at entry; the caller frees it. */
BK_MUST_USE enum bk_code p11_object_find(struct p11_session *s, CK_OBJECT_CLASS class, const CK_ATTRIBUTE *label,
                                         const CK_ATTRIBUTE *id, struct p11_handles *out, struct bk_err *err);

/* A wrap key of a YubiHSM 2, and what it does by C_Encrypt and C_Decrypt; vendor numbers, from its documentation. */
#define P11_CKK_YUBIHSM_AES256_CCM_WRAP 0xD955422AUL
#define P11_CKM_YUBIHSM_AES_CCM_WRAP    0xD9554204UL

/* What a key object says of itself. Flags are 1, 0, or -1 where the token does not tell. */
struct p11_traits {
    CK_OBJECT_CLASS class;
    CK_KEY_TYPE key_type; /* CK_UNAVAILABLE_INFORMATION for what is no key */
    enum bk_key_type type;
    size_t bits;
    uint8_t id[P11_ATTRIBUTE_MAX];
    size_t id_len;
    uint8_t label[P11_ATTRIBUTE_MAX];
    size_t label_len;
    int can_encrypt, can_decrypt, can_wrap, can_unwrap, can_derive, can_sign;
    int always_authenticate;
    int is_private; /* seen only after a login */
    int trusted;    /* by the security officer, CKA_TRUSTED */
};

BK_MUST_USE enum bk_code p11_traits_read(struct p11_session *s, CK_OBJECT_HANDLE object, CK_OBJECT_CLASS class,
                                         struct p11_traits *out, struct bk_err *err);
/* The same as attributes to search by or to write; they point into t. */
CK_ATTRIBUTE p11_traits_id(const struct p11_traits *t);
CK_ATTRIBUTE p11_traits_label(const struct p11_traits *t);

/* The curve that CKA_EC_PARAMS names (a DER object identifier), or BK_KEY_UNKNOWN; and the other way. */
enum bk_key_type p11_curve(const uint8_t *params, size_t len);
CK_ATTRIBUTE p11_curve_params(enum bk_key_type type);

#endif
