#include "pkcs11/call.h"

#include <stdarg.h>
#include <stdio.h>

#include "pkcs11/rv.h"

/* Questions about an attribute or a mechanism may be answered by no; after any other failure a session is not used
 * again (docs/TOKENS.md, rule 6). */
static int
leaves_nothing(CK_RV rv)
{
    return rv == CKR_OK || rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE ||
           rv == CKR_MECHANISM_INVALID;
}

int
p11_call_admit(struct p11_port *port, const char *call)
{
    port->call = call;
    port->rv = CKR_OK;
    if (port->hook != NULL && port->hook->before != NULL)
        port->rv = port->hook->before(port->hook->ctx, call);
    port->spoiled |= !leaves_nothing(port->rv);
    return port->rv == CKR_OK;
}

CK_RV
p11_call_done(struct p11_port *port, CK_RV rv)
{
    port->rv = rv;
    port->spoiled |= !leaves_nothing(rv);
    if (port->hook != NULL && port->hook->after != NULL)
        port->hook->after(port->hook->ctx, port->call, rv);
    return rv;
}

static enum bk_code
fail(const struct p11_port *port, enum bk_code code, struct bk_err *err, const char *doing)
{
    char name[P11_RV_TEXT];

    code = bk_fail(err, code, "%s: %s: %s: %s", port->where, doing, port->call, p11_rv_name(port->rv, name));
    if (err != NULL)
        err->token_rv = port->rv;
    return code;
}

enum bk_code
p11_call_fail(const struct p11_port *port, struct bk_err *err, const char *fmt, ...)
{
    char doing[512];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(doing, sizeof doing, fmt, args);
    va_end(args);
    return fail(port, p11_rv_code(port->rv), err, doing);
}

enum bk_code
p11_call_fail_as(const struct p11_port *port, enum bk_code code, struct bk_err *err, const char *fmt, ...)
{
    char doing[512];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(doing, sizeof doing, fmt, args);
    va_end(args);
    return fail(port, code, err, doing);
}

enum bk_code
p11_call_fail_own(const struct p11_port *port, struct bk_err *err, const char *doing)
{
    enum bk_code code = p11_rv_code(port->rv);

    return fail(port, code == BK_E_VERIFY ? BK_E_UNSUPPORTED : code, err, doing);
}
