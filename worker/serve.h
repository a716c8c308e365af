/* The worker's side: serves what wire.h lists with the one module that this process loads. */
#ifndef BK_WORKER_SERVE_H
#define BK_WORKER_SERVE_H

#include <stdint.h>

#include "base/err.h"
#include "worker/watch.h"

struct serve_options {
    int control_fd;      /* a connection is a byte, its slot, with a descriptor (SCM_RIGHTS) */
    struct watch *watch; /* shared with the program */
    unsigned timeout_s;  /* how long one call of the module may take; ten times that for making a key */
    int raw_rsa;         /* as in struct p11_options */
    /* NULL, or what hears of each call that has ended. */
    void (*trace)(const char *call, const char *result, uint64_t ns);
};

/*
 * Returns when the program has closed control_fd: every session is closed by then, and the module finalized. A call
 * that does not return keeps that from happening no longer than ten seconds, and then this is BK_E_TOKEN: the process
 * must end at once, with the module's threads in it.
 */
BK_MUST_USE enum bk_code serve(const struct serve_options *options, struct bk_err *err);

#endif
