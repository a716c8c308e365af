/* Calls of PKCS#11 modules. */
#include <string.h>

#include "pkcs11/call.h"
#include "tests/nth/inside.h"

int __real_p11_call_admit(struct p11_port *port, const char *call);
int __wrap_p11_call_admit(struct p11_port *port, const char *call);
int
__wrap_p11_call_admit(struct p11_port *port, const char *call)
{
    enum nth_action action = nth_admit(NTH_TOKEN, call);

    if (action == NTH_OFF) {
        int let_through = __real_p11_call_admit(port, call);

        if (let_through)
            nth_module(1);
        return let_through;
    }
    if (action != NTH_FAIL && action != NTH_SHORT)
        nth_die();
    port->call = call;
    port->rv = nth_value() == 0 ? CKR_GENERAL_ERROR : nth_value();
    return 0;
}

CK_RV __real_p11_call_done(struct p11_port *port, CK_RV rv);
CK_RV __wrap_p11_call_done(struct p11_port *port, CK_RV rv);
CK_RV
__wrap_p11_call_done(struct p11_port *port, CK_RV rv)
{
    nth_module(0);
    if (rv == CKR_OK && strcmp(port->call, "C_OpenSession") == 0)
        nth_session(1);
    if (rv == CKR_OK && strcmp(port->call, "C_CloseSession") == 0)
        nth_session(0);
    return __real_p11_call_done(port, rv);
}
