/*
 * bk-mimic.so: a PKCS#11 module for tests. It stands before a real module, behaves like a device of another kind as
 * far as that device's documentation tells, lets calls fail, hang or crash, and counts them. What works with it is
 * known to work with what a vendor wrote about a device, never with the device.
 *
 * The environment variable BK_MIMIC names a file of `key = value` lines:
 *
 *     module = PATH             the real module
 *     profile = NAME            a row of profile.c; default: plain
 *     quirk = NAME              one more than the profile has; repeatable
 *     sessions, parallel = N    in place of the profile's numbers (0: no limit)
 *     idle = MS                 a session that is not used for so long is dead (0: never)
 *     latency = PERCENT         of the profile's; default: 0
 *     device = FILE             what the processes that use the device share: its sessions, and who is at work
 *     log = FILE                see log.c
 *     fault = CALL NTH WHAT [K] at the NTH call of CALL (`*`: of any), and at the K-1 after it. WHAT is a CK_RV in
 *                               hexadecimal (0x30), with which the call fails without being made; or
 *         hang, crash, abort, exit    what becomes of the process
 *         heap                        a block is written past its end, and the process crashes a few calls later
 *         lengths                     the call is made, and a length in its answer is nonsense
 *         session-lost                the call's session is closed beneath, or the next call's that has one
 *         removed                     CKR_DEVICE_REMOVED for every call, until C_Finalize
 *         throttled                   CKR_FUNCTION_FAILED
 *     counter = FILE            NTH counts the calls of all processes that name this file, so that a fault is met once;
 *                               without it each process counts for itself, and meets the fault again
 */
#ifndef BK_TESTS_MIMIC_H
#define BK_TESTS_MIMIC_H

#include <limits.h>
#include <stdatomic.h>
#include <sys/types.h>

#include <p11-kit/pkcs11.h>

enum mimic_call {
#define CALL(name, session, length, parameters, arguments) MIMIC_##name,
#include "tests/mimic/calls.h"
#undef CALL
    MIMIC_CALLS
};
extern const char *const mimic_call_names[MIMIC_CALLS];

enum mimic_quirk {
    QUIRK_FIND_NEEDS_LOGIN = 1 << 0,    /* a search before a login finds nothing */
    QUIRK_NO_READ_ONLY = 1 << 1,        /* read-only sessions are refused */
    QUIRK_DERIVES_TO_HOST = 1 << 2,     /* CKA_EXTRACTABLE=FALSE is refused for a derived key */
    QUIRK_UNWRAPS_LASTING = 1 << 3,     /* CKA_TOKEN=FALSE is refused for an unwrapped key */
    QUIRK_NEEDS_VALUE_LEN = 1 << 4,     /* C_UnwrapKey wants CKA_VALUE_LEN */
    QUIRK_FORCES_SENSITIVE = 1 << 5,    /* what is unwrapped or derived stays inside, whatever the template says */
    QUIRK_WRONG_PIN_LENGTH = 1 << 6,    /* ulMaxPinLen is nonsense */
    QUIRK_FIXED_ATTRIBUTES = 1 << 7,    /* a private key's uses read as true, whatever it can do */
    QUIRK_ALWAYS_AUTHENTICATE = 1 << 8, /* every use of a private key wants its own login */
    QUIRK_THROTTLES = 1 << 9,           /* beyond its limit it fails, where others let callers wait */
    QUIRK_LOST_AS_A_WHOLE = 1 << 10,    /* with one session all is gone until C_Finalize */
    QUIRK_ONLY_WANTED_USES = 1 << 11,   /* CKR_GENERAL_ERROR for a template that forbids a use */
    QUIRK_OAEP_SHA256 = 1 << 12,        /* RSA-OAEP with SHA-256 works, which SoftHSM has not */
    QUIRK_PIN_OF_USER = 1 << 13,        /* a PIN is user:password */
    QUIRK_PIN_OF_KEY = 1 << 14,         /* a PIN is four hexadecimal digits, and then the password */
};

/* What takes how long, in microseconds. */
enum mimic_work { WORK_CALL, WORK_LOGIN, WORK_EC, WORK_RSA, WORK_SECRET, WORK_GENERATE, WORKS };

/* A device, imitated from its documentation. */
struct mimic_profile {
    const char *name;
    unsigned quirks;
    CK_MECHANISM_TYPE hidden[8]; /* the real module's that the device does not have */
    CK_MECHANISM_TYPE listed[2]; /* the device says that it has them, and they do not work */
    enum mimic_call refused[8];  /* CKR_FUNCTION_NOT_SUPPORTED; ends at C_Initialize */
    CK_RV bad_data;              /* for data that is damaged; CKR_OK: as the real module has it */
    unsigned sessions, parallel, idle_ms;
    unsigned latency_us[WORKS];
    unsigned rare_us; /* one piece of work in a hundred takes so long */
};
const struct mimic_profile *mimic_profile_named(const char *name);
/* 0: there is none of that name */
unsigned mimic_quirk_named(const char *name);

enum mimic_fault_kind {
    FAULT_RV,
    FAULT_HANG,
    FAULT_CRASH,
    FAULT_ABORT,
    FAULT_EXIT,
    FAULT_HEAP,
    FAULT_LENGTHS,
    FAULT_SESSION_LOST,
    FAULT_REMOVED,
};

struct mimic_fault {
    enum mimic_call call; /* MIMIC_CALLS: any */
    unsigned long nth, times;
    enum mimic_fault_kind kind;
    CK_RV rv;
};

#define MIMIC_FAULTS 8

struct mimic_config {
    char module[PATH_MAX], log[PATH_MAX], device[PATH_MAX], counter[PATH_MAX];
    struct mimic_profile profile; /* a copy, with what the file says otherwise */
    unsigned latency_percent;
    struct mimic_fault faults[MIMIC_FAULTS];
    unsigned fault_count;
};
/* 0, or -1 after a message. */
int mimic_config_read(const char *path, struct mimic_config *out);

/* Calls as they are counted; in a file they are those of several processes. */
struct mimic_counts {
    atomic_ulong all;
    atomic_ulong of[MIMIC_CALLS];
};

struct mimic {
    struct mimic_config config;
    CK_FUNCTION_LIST *real;
    CK_FUNCTION_LIST device; /* real, with what the profile changes */
    struct mimic_counts counts;
    struct mimic_counts *counter; /* for faults: in a file, or the one above */
    atomic_int removed, lose_next, doomed;
    atomic_long open; /* sessions */
};
extern struct mimic mimic;

/* device.c: fills mimic.device. */
void mimic_device_build(void);
void mimic_sleep_us(unsigned long us);

/* shared.c: CKR_OK, or why not. work_begin waits for its turn unless the device throttles. */
int mimic_shared_open(void);
/* One process at a time, and one thread of it. */
void mimic_lock(void);
void mimic_unlock(void);
CK_RV mimic_session_admit(void);
void mimic_session_add(CK_SESSION_HANDLE session);
void mimic_session_drop(CK_SESSION_HANDLE session); /* 0: all of this process */
CK_RV mimic_session_touch(CK_SESSION_HANDLE session);
CK_RV mimic_work_begin(void);
void mimic_work_end(void);

/* fault.c: CKR_OK, or what the call fails with without being made; *garble: its answer is to be spoilt. */
CK_RV mimic_fault(enum mimic_call call, CK_SESSION_HANDLE session, int *garble);
void mimic_lose(CK_SESSION_HANDLE session);

/* log.c */
void mimic_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void mimic_log_counts(const char *when);

#endif
