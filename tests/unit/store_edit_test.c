/* Edits in place under a lock, and small files read whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/edit.h"
#include "store/read_all.h"
#include "tests/support/store_fixture.h"

static struct store_edit *
open_edit(const char *path)
{
    struct store_edit *e = NULL;
    struct bk_err err = {0};

    assert_int_equal(store_edit_open(path, STORE_EDIT_IN_PLACE, 0, NULL, &e, &err), BK_OK);
    return e;
}

static void
test_edit(void **state)
{
    struct store_edit *e = NULL;
    struct bk_err err = {0};
    uint8_t buf[10];

    (void)state;
    fx_put(fx_at("f"), "0123456789");
    e = open_edit(fx_at("f"));
    assert_int_equal(store_edit_write_at(e, 3, (const uint8_t *)"abc", 3, &err), BK_OK);
    assert_int_equal(store_edit_write_at(e, 8, (const uint8_t *)"yz", 2, &err), BK_OK);
    assert_int_equal(store_source_read_at(store_edit_source(e), 0, buf, 10, &err), BK_OK);
    assert_memory_equal(buf, "012abc67yz", 10);
    assert_int_equal(store_edit_bytes_written(e), 5);
    /* never longer */
    assert_int_equal(store_edit_write_at(e, 9, (const uint8_t *)"XX", 2, &err), BK_E_INTERNAL);
    assert_int_equal(store_edit_write_at(e, 11, (const uint8_t *)"X", 1, &err), BK_E_INTERNAL);
    assert_int_equal(store_edit_write_at(e, UINT64_MAX, (const uint8_t *)"XX", 2, &err), BK_E_INTERNAL);
    assert_int_equal(store_edit_bytes_written(e), 5);
    store_edit_close(e);
    store_edit_close(NULL);
    fx_assert_holds(fx_at("f"), "012abc67yz");
}

static void
test_edit_refusals(void **state)
{
    struct store_edit *e = NULL;
    struct bk_err err = {0};

    (void)state;
    assert_int_equal(store_edit_open(fx_at("none"), STORE_EDIT_IN_PLACE, 0, NULL, &e, &err), BK_E_IO);
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(store_edit_open(fx_folder, STORE_EDIT_IN_PLACE, 0, NULL, &e, &err), BK_E_IO);
    assert_non_null(strstr(err.message, "not an ordinary file"));
    assert_int_equal(mkfifo(fx_at("fifo"), 0600), 0);
    assert_int_equal(store_edit_open(fx_at("fifo"), STORE_EDIT_IN_PLACE, 0, NULL, &e, &err), BK_E_IO);
    assert_int_equal(store_edit_open("/dev/null", STORE_EDIT_IN_PLACE, 0, NULL, &e, &err), BK_E_IO);
    assert_null(e);
}

static int
edit_without_leave(void)
{
    struct store_edit *e = NULL;
    struct bk_err err = {0};

    if (geteuid() == 0 && (chmod(fx_folder, 0755) != 0 || setresuid(65534, 65534, 65534) != 0))
        return FX_SKIP;
    if (access(fx_at("f"), R_OK) != 0)
        return FX_SKIP;
    return store_edit_open(fx_at("f"), STORE_EDIT_IN_PLACE, 0, NULL, &e, &err) != BK_E_IO || err.os_errno != EACCES ||
           strstr(err.message, "cannot open for writing") == NULL || strstr(err.hint, "--sidecar") == NULL;
}

static void
test_read_only_file(void **state)
{
    (void)state;
    fx_put(fx_at("f"), "x");
    assert_int_equal(chmod(fx_at("f"), 0444), 0);
    assert_int_equal(fx_in_child(edit_without_leave), 0);
}

static void
test_edits_exclude_each_other(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(0, EFD_CLOEXEC)};
    struct fx_later l = {.fd = cancel.fd};
    struct store_edit *first = NULL, *second = NULL;
    struct bk_err err = {0};
    uint64_t began;
    int other;

    (void)state;
    fx_put(fx_at("f"), "x");
    first = open_edit(fx_at("f"));
    assert_int_equal(store_edit_open(fx_at("f"), STORE_EDIT_IN_PLACE, 0, NULL, &second, &err), BK_E_IO);
    assert_non_null(strstr(err.message, "another program is changing it"));
    /* the lock is not the process's: closing another descriptor of the file does not drop it */
    other = open(fx_at("f"), O_RDWR);
    (void)close(other);
    began = fx_now_ms();
    assert_int_equal(store_edit_open(fx_at("f"), STORE_EDIT_IN_PLACE, 1, NULL, &second, &err), BK_E_IO);
    assert_in_range(fx_now_ms() - began, 1000, 5000);
    fx_start(&l, fx_set_event);
    assert_int_equal(store_edit_open(fx_at("f"), STORE_EDIT_IN_PLACE, 60, &cancel, &second, &err), BK_E_CANCELLED);
    fx_join(&l);
    assert_null(second);
    store_edit_close(first);
    store_edit_close(open_edit(fx_at("f")));
    (void)close(cancel.fd);
}

/* Holds the lock in a child until *stop is closed; returns the child. */
static pid_t
hold_in_child(int *stop)
{
    int ready[2], go[2];
    char c;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    pid = fork();
    if (pid == 0) {
        struct store_edit *e = NULL;
        struct bk_err err = {0};

        (void)close(go[1]);
        if (store_edit_open(fx_at("f"), STORE_EDIT_IN_PLACE, 0, NULL, &e, &err) != BK_OK ||
            write(ready[1], "r", 1) != 1)
            _exit(1);
        (void)!read(go[0], &c, 1);
        fx_sleep_ms(200);
        if (store_edit_write_at(e, 0, (const uint8_t *)"c", 1, &err) != BK_OK)
            _exit(2);
        _exit(0); /* the kernel drops the lock */
    }
    (void)close(go[0]);
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    (void)close(ready[0]);
    *stop = go[1];
    return pid;
}

static void
test_two_processes(void **state)
{
    struct store_edit *e = NULL;
    struct bk_err err = {0};
    int stop = -1, status = -1;
    pid_t child;
    uint8_t b = 0;

    (void)state;
    fx_put(fx_at("f"), "p");
    child = hold_in_child(&stop);
    assert_int_equal(store_edit_open(fx_at("f"), STORE_EDIT_IN_PLACE, 0, NULL, &e, &err), BK_E_IO);
    (void)close(stop);
    assert_int_equal(store_edit_open(fx_at("f"), STORE_EDIT_IN_PLACE, 30, NULL, &e, &err), BK_OK);
    assert_int_equal(store_source_read_at(store_edit_source(e), 0, &b, 1, &err), BK_OK);
    assert_int_equal(b, 'c'); /* not before the other had done */
    store_edit_close(e);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* While somebody waits for the lock, its holder renames another file over the name. */
static void *
replace_and_release(void *arg)
{
    fx_sleep_ms(150);
    assert_int_equal(rename(fx_at("new"), fx_at("f")), 0);
    store_edit_close(*(struct store_edit **)arg);
    return NULL;
}

static void
test_name_replaced_while_waiting(void **state)
{
    struct store_edit *holder = NULL, *e = NULL;
    struct bk_err err = {0};
    pthread_t thread;

    (void)state;
    fx_put(fx_at("f"), "old");
    fx_put(fx_at("new"), "new");
    assert_int_equal(link(fx_at("f"), fx_at("kept")), 0);
    holder = open_edit(fx_at("f"));
    assert_int_equal(pthread_create(&thread, NULL, replace_and_release, &holder), 0);
    assert_int_equal(store_edit_open(fx_at("f"), STORE_EDIT_IN_PLACE, 30, NULL, &e, &err), BK_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(store_edit_write_at(e, 0, (const uint8_t *)"N", 1, &err), BK_OK);
    store_edit_close(e);
    fx_assert_holds(fx_at("f"), "New");
    fx_assert_holds(fx_at("kept"), "old");
}

static void *
remove_and_release(void *arg)
{
    fx_sleep_ms(150);
    assert_int_equal(unlink(fx_at("f")), 0);
    store_edit_close(*(struct store_edit **)arg);
    return NULL;
}

/* What was changed is no longer what the name means: that must be said. */
static void
test_name_replaced_while_changing(void **state)
{
    struct store_edit *e;
    struct bk_err err = {0};

    (void)state;
    fx_put(fx_at("f"), "old");
    fx_put(fx_at("new"), "new");
    e = open_edit(fx_at("f"));
    assert_int_equal(store_edit_write_at(e, 0, (const uint8_t *)"O", 1, &err), BK_OK);
    assert_int_equal(store_edit_check_name(e, &err), BK_OK);
    assert_int_equal(rename(fx_at("new"), fx_at("f")), 0);
    assert_int_equal(store_edit_check_name(e, &err), BK_E_IO);
    assert_non_null(strstr(err.message, "replaced by another file"));
    assert_int_equal(unlink(fx_at("f")), 0);
    assert_int_equal(store_edit_check_name(e, &err), BK_E_IO);
    store_edit_close(e);
}

static void
test_name_removed_while_waiting(void **state)
{
    struct store_edit *holder = NULL, *e = NULL;
    struct bk_err err = {0};
    pthread_t thread;

    (void)state;
    fx_put(fx_at("f"), "old");
    holder = open_edit(fx_at("f"));
    assert_int_equal(pthread_create(&thread, NULL, remove_and_release, &holder), 0);
    assert_int_equal(store_edit_open(fx_at("f"), STORE_EDIT_IN_PLACE, 30, NULL, &e, &err), BK_E_IO);
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static int
edit_without_sync(void)
{
    struct store_edit *e = open_edit(fx_at("f"));
    struct bk_err err = {0};

    if (!fx_deny(SYS_fdatasync, EIO))
        return FX_SKIP;
    return store_edit_write_at(e, 0, (const uint8_t *)"X", 1, &err) != BK_E_IO || store_edit_bytes_written(e) != 0 ||
           strstr(err.message, "may not be on the disk") == NULL;
}

static void
test_failing_sync(void **state)
{
    (void)state;
    fx_put(fx_at("f"), "x");
    assert_int_equal(fx_in_child(edit_without_sync), 0);
}

static void
test_read_all(void **state)
{
    struct bk_buf b = {0};
    struct bk_err err = {0};

    (void)state;
    fx_put(fx_at("f"), "0123456789");
    assert_int_equal(store_read_all(fx_at("f"), 10, &b, &err), BK_OK);
    assert_int_equal(b.len, 10);
    assert_memory_equal(b.data, "0123456789", 11);
    bk_buf_free(&b);
    assert_int_equal(store_read_all(fx_at("f"), 9, &b, &err), BK_E_IO);
    assert_non_null(strstr(err.message, "is larger than 9 bytes"));
    assert_null(b.data);
    fx_put(fx_at("f"), "");
    assert_int_equal(store_read_all(fx_at("f"), 0, &b, &err), BK_OK);
    assert_int_equal(b.len, 0);
    assert_int_equal(b.data[0], 0);
    bk_buf_free(&b);
    assert_int_equal(store_read_all(fx_at("none"), 10, &b, &err), BK_E_IO);
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(store_read_all(fx_at("f"), SIZE_MAX, &b, &err), BK_E_INTERNAL);
    assert_null(b.data);
}

static void
test_read_all_in_steps(void **state)
{
    struct bk_buf b = {0};
    struct bk_err err = {0};
    char path[32];
    int ends[2];

    (void)state;
    assert_int_equal(truncate(fx_at("f"), 0), -1);
    fx_put(fx_at("f"), "");
    assert_int_equal(truncate(fx_at("f"), 200000), 0);
    assert_int_equal(store_read_all(fx_at("f"), 200000, &b, &err), BK_OK);
    assert_int_equal(b.len, 200000);
    bk_buf_free(&b);
    assert_int_equal(store_read_all(fx_at("f"), 199999, &b, &err), BK_E_IO);
    /* a pipe, as a shell's <(command) gives */
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "trust", 5), 5);
    (void)close(ends[1]);
    (void)snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
    assert_int_equal(store_read_all(path, 100, &b, &err), BK_OK);
    assert_string_equal((const char *)b.data, "trust");
    bk_buf_free(&b);
    (void)close(ends[0]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_edit, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_edit_refusals, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_read_only_file, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_edits_exclude_each_other, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_two_processes, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_name_replaced_while_waiting, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_name_replaced_while_changing, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_name_removed_while_waiting, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_failing_sync, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_read_all, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_read_all_in_steps, fx_make_folder, fx_remove_folder),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("store_edit", tests, NULL, NULL);
}
