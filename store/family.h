/* A child process and everything that it has started. */
#ifndef BK_STORE_FAMILY_H
#define BK_STORE_FAMILY_H

#include <sys/types.h>

/*
 * Stops the child and all its descendants, and only then kills them all (SIGKILL), so that none of them sees another
 * one's death as a clean end of its input: in `sh -c 'gunzip | psql'` psql must not commit because gunzip died. child
 * is a child of this process that has not been waited for, and pidfd -1; or anybody's, and pidfd means it. Descendants
 * that gave up their parents (daemons) are not found. Returns 0, or errno if the child itself may not be killed.
 */
int store_family_kill(pid_t child, int pidfd);

#endif
