/* Tests with the worker of fake_worker.c: each has a folder of its own, and leaves no descriptor and no process. */
#ifndef BK_TESTS_FAKE_RUN_H
#define BK_TESTS_FAKE_RUN_H

#include <string.h>

#include "base/err.h"

/* For a group, and for each of its tests. */
int fake_init(void **state);
int fake_begin(void **state);
int fake_end(void **state);

/* The rules of the workers that are started from now on. */
void fake_act(const char *rules);
/* How many lines of the workers' log are that text, or end with it if it begins with a space. */
int fake_logged(const char *text);
/* How many workers were started. */
int fake_lives(void);

/* How many times as fast as it is time goes for a program that waits for its worker, 1 at the start of each test. The
 * linker (--wrap) sends its calls here; what the worker does takes its time. */
extern int fake_speed;

/* Milliseconds, as they are. */
long fake_now(void);
void fake_nap(long ms);

/* The call names err, which is declared here, so that its message can be shown. Both need cmocka.h. */
#define ok(call)                                                                                                       \
    do {                                                                                                               \
        struct bk_err err = {0};                                                                                       \
        if ((call) != BK_OK)                                                                                           \
            fail_msg("%s: %s", #call, err.message);                                                                    \
    } while (0)

#define refuses(code_, says, call)                                                                                     \
    do {                                                                                                               \
        struct bk_err err = {0};                                                                                       \
        if ((call) != code_ || err.code != code_ || strstr(err.message, says) == NULL)                                 \
            fail_msg("%s: code %d, %s", #call, (int)err.code, err.message);                                            \
    } while (0)

#endif
