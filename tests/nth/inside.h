/* Between nth.c and what stands between bk and a token: token.c, which is linked only where modules are loaded. */
#ifndef BK_TESTS_NTH_INSIDE_H
#define BK_TESTS_NTH_INSIDE_H

#include "tests/nth/nth.h"

/* What is to happen to this call: NTH_OFF for all but the nth. NTH_BEFORE has happened. */
enum nth_action nth_admit(enum nth_class class, const char *name);
/* The plan's. */
unsigned long nth_value(void);
/* By SIGKILL. */
void nth_die(void);

/* This thread goes into a module, or has come back. */
void nth_module(int entered);
/* A module has opened a session, or closed one. */
void nth_session(int opened);

#endif
