/* For tests of store/: a folder for each test, threads that do something a little later, children, failing calls. */
#ifndef BK_TESTS_STORE_FIXTURE_H
#define BK_TESTS_STORE_FIXTURE_H

#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "store/sink.h"
#include "store/source.h"

#define FX_MIB ((size_t)1024 * 1024)

/* The folder of the test that runs, made and removed by these two, which are a test's setup and teardown. */
extern char fx_folder[PATH_MAX];
int fx_make_folder(void **state);
int fx_remove_folder(void **state);

/* A path in the folder; the last four of a thread stay valid. */
const char *fx_at(const char *name);
/* How many names are in the folder. */
size_t fx_entries(void);
void fx_put(const char *path, const char *text);
void fx_assert_holds(const char *path, const char *text);

uint64_t fx_now_ms(void);
void fx_sleep_ms(long ms);

/* A thread and what it works on. */
struct fx_later {
    pthread_t thread;
    int fd;
    const char *text;
    struct store_source *source;
};

void fx_start(struct fx_later *l, void *(*f)(void *));
void fx_join(struct fx_later *l);
/* Makes the eventfd l->fd readable after 100 ms. */
void *fx_set_event(void *later);

/* Runs f in a child, for what changes the whole process; 0 when f returned 0. Skips the test when f returns FX_SKIP,
 * since this machine does not let it be run. */
#define FX_SKIP 77
int fx_in_child(int (*f)(void));
/* From now on this system call fails with that errno, in this process. 0 where that is not possible. */
int fx_deny(long number, int os_errno);

struct store_sink *fx_open_sink(const char *path, int force);
void fx_write_text(struct store_sink *s, const char *text);

#endif
