/* PKCS#11 URIs (RFC 7512), through p11-kit, and stricter than it: what it would silently drop is refused here. */
#ifndef BK_PKCS11_URI_H
#define BK_PKCS11_URI_H

#include <stdint.h>

#include <p11-kit/uri.h>

#include "base/err.h"
#include "base/secret.h"

#define P11_URI_MAX 2048

struct p11_uri {
    P11KitUri *kit;
    char *text;              /* for messages: the URI without its query, so without module, PIN and their places */
    const char *module_path; /* these three belong to kit, or are NULL */
    const char *module_name;
    const char *pin_source;
    struct bk_secret pin_value; /* moved out of kit's memory, which is not locked; empty if there is none */
};

/* Parses into the zeroed *out, which the caller frees; BK_E_USAGE says what is wrong, never with the PIN in it. */
BK_MUST_USE enum bk_code p11_uri_parse(struct p11_uri *out, const char *text, struct bk_err *err);
/* From the text of a parsed one, its pin-source (or NULL), and its PIN, which is copied (or empty). */
BK_MUST_USE enum bk_code p11_uri_make(struct p11_uri *out, const char *text, const char *pin_source,
                                      const struct bk_secret *pin, struct bk_err *err);
void p11_uri_free(struct p11_uri *uri);

/* 1 if a configured module of that name and file (or NULL) may be meant: without module-name= any is. */
int p11_uri_names_module(const struct p11_uri *uri, const char *name, const char *file);

/* The attribute of the object part, or NULL. */
const CK_ATTRIBUTE *p11_uri_attribute(const struct p11_uri *uri, CK_ATTRIBUTE_TYPE type);
/* The class that type= names, or fallback. */
CK_OBJECT_CLASS p11_uri_class(const struct p11_uri *uri, CK_OBJECT_CLASS fallback);

/* A hint: token label, serial, and object= (id= where the label is empty). The caller frees *out. */
BK_MUST_USE enum bk_code p11_uri_hint(const CK_TOKEN_INFO *token, const CK_ATTRIBUTE *label, const CK_ATTRIBUTE *id,
                                      char **out, struct bk_err *err);

#endif
