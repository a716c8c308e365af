#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/read_all.h"
#include "tests/support/store_fixture.h"

char fx_folder[PATH_MAX];

int
fx_make_folder(void **state)
{
    const char *base = getenv("TMPDIR");

    (void)state;
    (void)snprintf(fx_folder, sizeof fx_folder, "%.200s/bk-store-XXXXXX", base != NULL ? base : "/tmp");
    return mkdtemp(fx_folder) == NULL;
}

int
fx_remove_folder(void **state)
{
    const struct dirent *e;
    DIR *d;

    (void)state;
    (void)chmod(fx_folder, 0700);
    d = opendir(fx_folder);
    while (d != NULL && (e = readdir(d)) != NULL)
        if (unlinkat(dirfd(d), e->d_name, 0) != 0)
            (void)unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
    if (d != NULL)
        (void)closedir(d);
    return rmdir(fx_folder);
}

const char *
fx_at(const char *name)
{
    static _Thread_local char paths[4][PATH_MAX + 600];
    static _Thread_local unsigned next;
    char *p = paths[next++ % 4];

    (void)snprintf(p, sizeof paths[0], "%s/%s", fx_folder, name);
    return p;
}

size_t
fx_entries(void)
{
    DIR *d = opendir(fx_folder);
    size_t n = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n - 2;
}

void
fx_put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

void
fx_assert_holds(const char *path, const char *text)
{
    struct bk_buf b = {0};
    struct bk_err err = {0};

    assert_int_equal(store_read_all(path, FX_MIB, &b, &err), BK_OK);
    assert_string_equal((const char *)b.data, text);
    bk_buf_free(&b);
}

uint64_t
fx_now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void
fx_sleep_ms(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

void *
fx_set_event(void *arg)
{
    fx_sleep_ms(100);
    assert_int_equal(eventfd_write(((struct fx_later *)arg)->fd, 1), 0);
    return NULL;
}

void
fx_start(struct fx_later *l, void *(*f)(void *))
{
    assert_int_equal(pthread_create(&l->thread, NULL, f, l), 0);
}

void
fx_join(struct fx_later *l)
{
    assert_int_equal(pthread_join(l->thread, NULL), 0);
}

int
fx_in_child(int (*f)(void))
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(f());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == FX_SKIP)
        skip();
    return status;
}

int
fx_deny(long number, int os_errno)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)os_errno),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

struct store_sink *
fx_open_sink(const char *path, int force)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};

    assert_int_equal(store_sink_open(path, force, NULL, &s, &err), BK_OK);
    return s;
}

void
fx_write_text(struct store_sink *s, const char *text)
{
    struct bk_err err = {0};

    assert_int_equal(store_sink_write(s, (const uint8_t *)text, strlen(text), &err), BK_OK);
}
