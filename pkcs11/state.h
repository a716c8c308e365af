/* The state of one run: what struct p11 is made of. Internal to pkcs11/ and its tests. */
#ifndef BK_PKCS11_STATE_H
#define BK_PKCS11_STATE_H

#include <pthread.h>

#include "pkcs11/call.h"
#include "pkcs11/left_out.h"
#include "pkcs11/on_token.h"

struct p11_module;

struct p11 {
    struct p11_options options;
    struct p11_hook hook;          /* nothing, but in tests */
    pthread_mutex_t lock;          /* over the two lists, and over logging in; never over the use of a key */
    char *only;                    /* the name of the one module to use; NULL: URIs say which */
    char *only_file;               /* its file; NULL: as p11-kit has it configured */
    int configured_loaded;         /* p11-kit's modules were loaded, successfully or not */
    CK_FUNCTION_LIST **configured; /* as p11-kit returned them */
    struct p11_module *modules;    /* nothing leaves these lists before p11_close, so pointers into them stay good */
    struct p11_token *tokens;
    struct p11_left_out left_out;
};

#endif
