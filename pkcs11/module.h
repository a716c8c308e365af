/* PKCS#11 modules, loaded and initialised through p11-kit. */
#ifndef BK_PKCS11_MODULE_H
#define BK_PKCS11_MODULE_H

#include <stdatomic.h>

#include "pkcs11/state.h"
#include "pkcs11/uri.h"

struct p11_module {
    struct p11_module *next;
    struct p11_port port; /* used under the lock of struct p11 */
    char *name;           /* as configured, or the path */
    char *file;           /* NULL if p11-kit does not tell */
    char *path;           /* the module-path that it was loaded by; NULL for a configured one */
    char where[160];
    int only;             /* the one of this process, so that URIs need not name it */
    int usable;           /* initialised, and no store of trusted certificates */
    atomic_uint sessions; /* that are open */
};

/*
 * Loads what the URI needs: the module of its module-path, or else all that p11-kit has configured. A configured module
 * that is broken is left out (p11_say_left_out); one named by module-path is an error. Under the lock.
 */
BK_MUST_USE enum bk_code p11_modules_load(struct p11 *p, const struct p11_uri *uri, struct bk_err *err);

/* From now on only this module counts, and URIs need not name it: loaded from file, or if that is NULL as p11-kit has
 * it configured under its name. */
BK_MUST_USE enum bk_code p11_module_only(struct p11 *p, const char *name, const char *file, struct bk_err *err);

/* One of p11-kit's configured modules, before it is started. */
struct p11_configured {
    const char *name;
    const char *file; /* or NULL */
    int plain;        /* the file is all that there is to know: no arguments, no other process */
};
/* All but stores of trusted certificates. */
BK_MUST_USE enum bk_code p11_modules_configured(struct p11 *p,
                                                void (*each)(void *ctx, const struct p11_configured *module), void *ctx,
                                                struct bk_err *err);

/* 1 if tokens of this module may answer to the URI. */
int p11_module_matches(const struct p11_module *m, const struct p11_uri *uri);

/* Finalises and initialises a module again, unless a session is open: for one that has not seen all of its tokens. */
void p11_module_restart(struct p11_module *m);

/* Finalises and releases all. */
void p11_modules_free(struct p11 *p);

#endif
