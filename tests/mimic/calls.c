/* The module that the caller sees: each call is counted, may meet a fault, and goes on to the device. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/mimic/mimic.h"

struct mimic mimic;

const char *const mimic_call_names[MIMIC_CALLS] = {
#define CALL(name, session, length, parameters, arguments) #name,
#include "tests/mimic/calls.h"
#undef CALL
};

static int
is_refused(enum mimic_call call)
{
    const enum mimic_call *refused = mimic.config.profile.refused;

    for (; *refused != MIMIC_C_Initialize; refused++)
        if (*refused == call)
            return 1;
    return 0;
}

/* What happens before the device hears of a call. */
static CK_RV
enter(enum mimic_call call, CK_SESSION_HANDLE session, int *garble)
{
    CK_RV rv;

    if (call == MIMIC_C_Login)
        mimic_log("login begins"); /* a process that dies in it must not have another one try */
    if ((rv = mimic_fault(call, session, garble)) != CKR_OK)
        return rv;
    if (is_refused(call))
        return CKR_FUNCTION_NOT_SUPPORTED;
    if (session != 0 && (rv = mimic_session_touch(session)) != CKR_OK)
        return rv;
    if (session != 0)
        mimic_sleep_us(mimic.config.profile.latency_us[WORK_CALL]);
    if (call == MIMIC_C_Logout)
        mimic_log("logout open=%ld", atomic_load(&mimic.open));
    if (call == MIMIC_C_Finalize)
        mimic_log_counts("finalize");
    return CKR_OK;
}

static CK_RV
leave(enum mimic_call call, CK_RV rv, const int *garble, CK_ULONG *length)
{
    if (call == MIMIC_C_Login)
        mimic_log("login rv=0x%lx", (unsigned long)rv);
    if (call == MIMIC_C_Finalize && rv == CKR_OK) {
        mimic_session_drop(0);
        atomic_store(&mimic.open, 0);
        atomic_store(&mimic.removed, 0);
    }
    if (*garble && length != NULL)
        *length = 0x7ffffff0;
    return rv;
}

#define CALL(name, session, length, parameters, arguments)                                                             \
    static CK_RV enter_##name parameters                                                                               \
    {                                                                                                                  \
        int garble = 0;                                                                                                \
        CK_RV rv = enter(MIMIC_##name, session, &garble);                                                              \
                                                                                                                       \
        if (rv == CKR_OK)                                                                                              \
            rv = mimic.device.name arguments;                                                                          \
        return leave(MIMIC_##name, rv, &garble, length);                                                               \
    }
#include "tests/mimic/calls.h"
#undef CALL

static CK_FUNCTION_LIST list = {
    .version = {2, 40},
    .C_GetFunctionList = C_GetFunctionList,
#define CALL(name, session, length, parameters, arguments) .name = enter_##name,
#include "tests/mimic/calls.h"
#undef CALL
};

static int
start(void)
{
    const char *path = getenv("BK_MIMIC");
    CK_C_GetFunctionList get;
    void *module;

    if (path == NULL || mimic_config_read(path, &mimic.config) != 0 || mimic_shared_open() != 0)
        return -1;
    /* it stays: this module is unloaded only with the process, or the real one's state would go in the middle */
    if ((module = dlopen(mimic.config.module, RTLD_NOW | RTLD_LOCAL)) == NULL ||
        (*(void **)&get = dlsym(module, "C_GetFunctionList")) == NULL || get(&mimic.real) != CKR_OK) {
        (void)fprintf(stderr, "bk-mimic: %s\n", dlerror());
        return -1;
    }
    mimic_device_build();
    mimic_log("start");
    return 0;
}

__attribute__((visibility("default"))) CK_RV
C_GetFunctionList(CK_FUNCTION_LIST **out)
{
    if (mimic.real == NULL && start() != 0)
        return CKR_GENERAL_ERROR;
    *out = &list;
    return CKR_OK;
}

__attribute__((destructor)) static void
end(void)
{
    if (mimic.real != NULL)
        mimic_log_counts("exit");
}
