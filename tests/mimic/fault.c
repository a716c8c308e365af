/* Faults, at the nth call. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/mimic/mimic.h"

/* How many calls a process still makes after its heap was damaged. */
#define DOOM 5

static void
crash(void)
{
    (void)signal(SIGSEGV, SIG_DFL);
    (void)raise(SIGSEGV);
}

/* As a module does that believes a length: the size of the next block is overwritten. */
static void
damage_heap(void)
{
    volatile size_t believed = 40;
    unsigned char *block = malloc(24);

    if (block != NULL)
        memset(block, 0x5a, believed);
    atomic_store(&mimic.doomed, DOOM);
}

static void
lose_all(void)
{
    atomic_store(&mimic.removed, 1);
    mimic_session_drop(0);
    atomic_store(&mimic.open, 0);
}

void
mimic_lose(CK_SESSION_HANDLE session)
{
    if ((mimic.config.profile.quirks & QUIRK_LOST_AS_A_WHOLE) != 0) {
        lose_all();
    } else if (mimic.real->C_CloseSession(session) == CKR_OK) {
        mimic_session_drop(session);
        atomic_fetch_sub(&mimic.open, 1);
    }
}

static CK_RV
meet(const struct mimic_fault *f, int *garble)
{
    switch (f->kind) {
    case FAULT_RV:
        return f->rv;
    case FAULT_HANG:
        for (;;)
            (void)pause();
    case FAULT_CRASH:
        crash();
        return CKR_OK;
    case FAULT_ABORT:
        abort();
    case FAULT_EXIT:
        _exit(7);
    case FAULT_HEAP:
        damage_heap();
        return CKR_OK;
    case FAULT_LENGTHS:
        *garble = 1;
        return CKR_OK;
    case FAULT_SESSION_LOST:
        atomic_store(&mimic.lose_next, 1);
        return CKR_OK;
    case FAULT_REMOVED:
        lose_all();
        return CKR_OK;
    }
    return CKR_OK;
}

CK_RV
mimic_fault(enum mimic_call call, CK_SESSION_HANDLE session, int *garble)
{
    unsigned long all = atomic_fetch_add(&mimic.counter->all, 1) + 1;
    unsigned long same = atomic_fetch_add(&mimic.counter->of[call], 1) + 1;
    CK_RV rv = CKR_OK;

    if (mimic.counter != &mimic.counts)
        atomic_fetch_add(&mimic.counts.of[call], 1);
    if (atomic_load(&mimic.doomed) > 0 && atomic_fetch_sub(&mimic.doomed, 1) == 1)
        crash();
    for (unsigned i = 0; rv == CKR_OK && i < mimic.config.fault_count; i++) {
        const struct mimic_fault *f = &mimic.config.faults[i];
        unsigned long now = f->call == MIMIC_CALLS ? all : same;

        if ((f->call != MIMIC_CALLS && f->call != call) || now < f->nth || now - f->nth >= f->times)
            continue;
        mimic_log("fault %s %lu", mimic_call_names[call], all);
        rv = meet(f, garble);
    }
    if (session != 0 && atomic_exchange(&mimic.lose_next, 0) != 0)
        mimic_lose(session);
    if (rv == CKR_OK && atomic_load(&mimic.removed) && call != MIMIC_C_Finalize && call != MIMIC_C_Initialize)
        rv = CKR_DEVICE_REMOVED;
    return rv;
}
