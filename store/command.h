/* Producers and consumers: a command at the other end of a pipe, started without a shell. */
#ifndef BK_STORE_COMMAND_H
#define BK_STORE_COMMAND_H

#include "store/sink.h"
#include "store/source.h"

struct store_command;

/* Starts argv[0] (looked up in PATH) with its standard output as *source; other descriptors but 0 and 2 are closed in
 * it, no signal is blocked, and SIGPIPE and SIGXFSZ, which our programs ignore, have their default effect. It stays in
 * our process group, so that it can ask for a password and hears an interrupt from the terminal. BK_E_COMMAND when it
 * cannot be started. */
BK_MUST_USE enum bk_code store_command_produce(char *const argv[], const struct bk_cancel *cancel,
                                               struct store_command **out, struct store_source **source,
                                               struct bk_err *err);

/*
 * The same with its standard input as *sink. Its input ends by store_command_finish alone: until then a guard holds the
 * pipe open as well (store/guard.h), and kills the command and all that it has started if this process dies, however
 * that comes. If the guard itself is killed all goes on without it. A program that calls this asks store_guard_called
 * at the beginning of its main. BK_E_COMMAND also when the guard cannot be started; then the command was not either, or
 * is dead.
 */
BK_MUST_USE enum bk_code store_command_consume(char *const argv[], const struct bk_cancel *cancel,
                                               struct store_command **out, struct store_sink **sink,
                                               struct bk_err *err);

/* Lets a consumer see the end of its input. Waits for the end; BK_OK only for exit status 0, else BK_E_COMMAND says
 * status or signal. Frees. The caller has closed source or published sink before. A stop kills it: BK_E_CANCELLED. */
BK_MUST_USE enum bk_code store_command_finish(struct store_command *c, struct bk_err *err);

/*
 * Kills it and all that it has started, and waits, BEFORE the caller closes the pipe (discards the sink, closes the
 * source), so that a consumer never sees a clean end of input. Frees. NULL does nothing. A consumer that this user may
 * not kill (started through sudo) is waited for, with the pipe open, until somebody else ends it.
 */
void store_command_kill(struct store_command *c);

/* The program's name without folders. */
const char *store_command_name(const struct store_command *c);

#endif
