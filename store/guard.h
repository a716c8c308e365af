/*
 * What keeps a consumer from taking our death for the end of its input.
 *
 * The kernel closes the pipes of a process that dies, and a consumer that reads to the end (psql, tar) would take the
 * half that it got for all of it. So a small process, the guard, holds the pipe's writing end as well. Only when we end
 * the guard does the input end; when we die (SIGKILL, no memory left, a crash, a second interrupt) the guard kills the
 * consumer first.
 *
 * The guard is our own program, executed anew: nothing more has to be installed, no secret and no PKCS#11 module is in
 * it, and a program that can start a guard can be one. It also starts the consumer, as a child not of its own but of
 * ours (clone(2), CLONE_PARENT): so there is no instant at which a consumer runs that its guard does not know.
 *
 *     we                      guard                       consumer
 *     store_guard_start ----> store_guard_main
 *                             clone --------------------> "my process id is", to us
 *                             standard descriptors go     exec
 *     writes, publishes <---- "it runs", to us            reads
 *     store_guard_end ------> killed: the pipe closes     end of input
 */
#ifndef BK_STORE_GUARD_H
#define BK_STORE_GUARD_H

#include <sys/types.h>

#include "base/err.h"
#include "store/fd.h"

/* The guard's argv[0]; the consumer's own arguments follow. Also the name that process lists show. */
#define STORE_GUARD_NAME "bk-guard"

/* Descriptors that the guard starts with, next to the consumer's standard ones: the socket to us, and the writing end
 * of the consumer's pipe. */
#define STORE_GUARD_CONTROL 3
#define STORE_GUARD_HELD    4

/* What guard and consumer say to us, one message each. We never say anything: the guard waits for the socket's end. */
enum { STORE_GUARD_CONSUMER = 1, STORE_GUARD_RESULT };
struct store_guard_report {
    int kind;
    int value; /* CONSUMER: its process id; RESULT: 0, or the errno for which it could not be started */
};

struct store_guard {
    pid_t pid;
    int control; /* our end of the socket */
};

#define STORE_GUARD_NONE ((struct store_guard){.pid = -1, .control = -1})

/*
 * Starts the guard and, through it, argv[0] (looked up in PATH) with input as its standard input; held is the writing
 * end of the same pipe. On success *consumer is the consumer's process id, a child of ours, and the guard is on watch.
 * On failure there is no guard; *consumer is 0, or a child that the caller has to kill and wait for before it closes
 * held. BK_E_COMMAND when the command or its guard cannot be started, BK_E_CANCELLED on a stop.
 */
BK_MUST_USE enum bk_code store_guard_start(struct store_guard *g, char *const argv[], int input, int held,
                                           const struct store_stop *stop, const char *name, pid_t *consumer,
                                           struct bk_err *err);

/* Ends the guard and waits for that, which closes its end of the pipe. Also when somebody else has killed it: then we
 * had no guard any more and lost nothing but that. Does nothing where there is none. */
void store_guard_end(struct store_guard *g);

/* True in a process that was started to be a guard. Every program that calls store_command_consume asks this first in
 * its main, and returns what store_guard_main returns. */
int store_guard_called(char *const argv[]);

/* The guard: lives until the process that started it ends it, or has died and the consumer is dead. A consumer that
 * this user may not kill (started through sudo) keeps it waiting, with the pipe open, until nobody reads any more. */
int store_guard_main(char *const argv[]);

#endif
