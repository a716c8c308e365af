/*
 * Memory that a token worker shares with its program, so that the program sees in which call a module hangs. The worker
 * writes, the program reads and believes none of it: at worst a worker is ended, or not ended, for nothing.
 */
#ifndef BK_WORKER_WATCH_H
#define BK_WORKER_WATCH_H

#include <stdatomic.h>

/* As many connections as a worker serves at once. */
#define WATCH_SLOTS 64

struct watch_slot {
    atomic_uint step;     /* changes whenever a call of the module begins or ends */
    atomic_uint limit_ms; /* how long the call that is under way may take; 0: none is */
    char call[32];        /* its name */
};

struct watch {
    atomic_uint login_failed; /* a login was refused, so that its PIN must not be tried again, whatever comes then */
    struct watch_slot slots[WATCH_SLOTS];
};

/* What a worker finds at its start. */
#define WATCH_CONTROL_FD 3         /* a socket: connections come by it, and its end is the program's */
#define WATCH_MEMORY_FD  4         /* struct watch */
#define WORKER_RAW_RSA   "raw-rsa" /* its last argument, if that is asked for */

#endif
