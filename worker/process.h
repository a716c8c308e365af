/*
 * A token worker as a process: started, connected to, watched, and ended. What it says is wire.h's matter; that it may
 * crash, hang, or answer nonsense is dealt with here.
 */
#ifndef BK_WORKER_PROCESS_H
#define BK_WORKER_PROCESS_H

#include <stdint.h>
#include <sys/types.h>

#include "base/log.h"
#include "worker/wire.h"

struct process_options {
    const char *program;            /* the worker's file; NULL: the one beside this program, or in ../libexec/bk */
    unsigned timeout_s;             /* of one call of the module */
    int raw_rsa;                    /* as in struct p11_options */
    const struct bk_cancel *cancel; /* a request to stop ends a call that does not come back soon; NULL: none */
};

struct process;

/* Returns without waiting for the worker. The caller releases. */
BK_MUST_USE enum bk_code process_start(const struct process_options *options, struct process **out, struct bk_err *err);
/* Asks it to end, waits until it has logged out and finalized its module, and kills it if that takes too long. *status
 * is as of waitpid(2). No thread may be connected. NULL does nothing. */
void process_end(struct process *p, int *status);

/* One thread's conversation with the worker. */
struct connection {
    int fd;
    unsigned slot;
    uint64_t stop_ms; /* when a request to stop was first seen during this request; 0: not yet */
    struct connection *next;
};

/* One that is idle, or a new one. BK_E_TOKEN if the worker is gone. */
BK_MUST_USE enum bk_code process_connect(struct process *p, struct connection **out, struct bk_err *err);
/* Gives it back, if it is good for another request. */
void process_release(struct process *p, struct connection *c, int good);

/*
 * Waits for a message. BK_E_TOKEN if the worker crashed, or was killed because a call of the module took longer than
 * its limit, or because it sent no message of ours: then process_is_gone, and *err says in which call. BK_E_CANCELLED
 * after a request to stop.
 */
BK_MUST_USE enum bk_code process_receive(struct process *p, struct connection *c, struct wire_in *in,
                                         struct bk_err *err);
/* Sends. BK_E_TOKEN as above, also for a worker that does not read what it is sent. */
BK_MUST_USE enum bk_code process_send(struct process *p, struct connection *c, struct wire_out *o,
                                      const struct bk_secret *secret, struct bk_err *err);
/* A worker that answered nonsense: ends it; the error for that. */
BK_MUST_USE enum bk_code process_distrust(struct process *p, const struct bk_err *why, struct bk_err *err);

/* While somebody thinks about a PIN, a worker that waits for it does not hang. */
void process_pause(struct process *p, int on);

/* Looks whether it has died while nobody waited for it: 1 if it is dead. */
int process_look(struct process *p);
/* 1 once it was seen to be dead, for every thread. */
int process_is_gone(const struct process *p);
/* 1 if it died while a login was under way, which may have counted as a wrong PIN, or after one that was refused. */
int process_died_in_login(const struct process *p);

#endif
