/* Staged files: what stands on the disk after each way of ending. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "store/sink.h"
#include "store/source.h"
#include "tests/support/store_fixture.h"

static void
test_publish(void **state)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};
    struct stat st;
    mode_t old = umask(027);

    (void)state;
    s = fx_open_sink(fx_at("out"), 0);
    assert_true(store_sink_staged(s));
    fx_write_text(s, "hello ");
    fx_write_text(s, "world");
    assert_int_equal(access(fx_at("out"), F_OK), -1);
    assert_int_equal(fx_entries(), 1);
    assert_int_equal(store_sink_bytes_written(s), 11);
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
    fx_assert_holds(fx_at("out"), "hello world");
    assert_int_equal(stat(fx_at("out"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(fx_entries(), 1);
    (void)umask(old);
}

static void
test_staged_file_is_private(void **state)
{
    struct store_sink *s = fx_open_sink(fx_at("out"), 0);
    DIR *d = opendir(fx_folder);
    const struct dirent *e;
    struct stat st;

    (void)state;
    while ((e = readdir(d)) != NULL)
        if (strncmp(e->d_name, ".out.", 5) == 0)
            break;
    assert_non_null(e);
    assert_int_equal(strlen(e->d_name), strlen(".out.XXXXXX.part"));
    assert_string_equal(e->d_name + 11, ".part");
    assert_int_equal(fstatat(dirfd(d), e->d_name, &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    (void)closedir(d);
    store_sink_discard(s);
    store_sink_discard(NULL);
    assert_int_equal(fx_entries(), 0);
}

static void
test_existing_target(void **state)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};

    (void)state;
    fx_put(fx_at("out"), "old");
    assert_int_equal(store_sink_open(fx_at("out"), 0, NULL, &s, &err), BK_E_USAGE);
    assert_non_null(strstr(err.message, "exists already"));
    assert_non_null(strstr(err.hint, "--force"));
    assert_int_equal(fx_entries(), 1);
    s = fx_open_sink(fx_at("out"), 1);
    fx_write_text(s, "new");
    fx_assert_holds(fx_at("out"), "old");
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
    fx_assert_holds(fx_at("out"), "new");

    /* it comes into being while we write */
    s = fx_open_sink(fx_at("late"), 0);
    fx_write_text(s, "ours");
    fx_put(fx_at("late"), "theirs");
    assert_int_equal(store_sink_publish(s, &err), BK_E_USAGE);
    assert_int_equal(err.os_errno, EEXIST);
    fx_assert_holds(fx_at("late"), "theirs");
    assert_int_equal(fx_entries(), 2);
}

static void
test_symbolic_links(void **state)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};
    struct stat st;

    (void)state;
    fx_put(fx_at("real"), "precious");
    assert_int_equal(symlink("real", fx_at("link")), 0);
    assert_int_equal(symlink("nowhere", fx_at("dangling")), 0);
    assert_int_equal(store_sink_open(fx_at("link"), 0, NULL, &s, &err), BK_E_USAGE);
    assert_int_equal(store_sink_open(fx_at("dangling"), 0, NULL, &s, &err), BK_E_USAGE);
    s = fx_open_sink(fx_at("link"), 1);
    fx_write_text(s, "new");
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
    fx_assert_holds(fx_at("real"), "precious");
    fx_assert_holds(fx_at("link"), "new");
    assert_int_equal(lstat(fx_at("link"), &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(symlink("/dev/null", fx_at("null")), 0);
    s = fx_open_sink(fx_at("null"), 0);
    assert_false(store_sink_staged(s));
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
}

static int
link_to_standard_output(void)
{
    int fd = open(fx_at("stdout"), O_WRONLY | O_CREAT, 0600);
    struct store_sink *s = NULL;
    struct bk_err err = {0};

    if (dup2(fd, STDOUT_FILENO) < 0 || symlink("stdout", fx_at("link")) != 0)
        return 1;
    if (store_sink_open(fx_at("link"), 1, NULL, &s, &err) != BK_E_USAGE || strstr(err.hint, "named -") == NULL)
        return 2;
    /* standard output in a file: written from where it stands, and left open */
    if (write(STDOUT_FILENO, "head ", 5) != 5 || store_sink_open("-", 0, NULL, &s, &err) != BK_OK)
        return 3;
    if (store_sink_staged(s) || store_sink_write(s, (const uint8_t *)"tail", 4, &err) != BK_OK)
        return 4;
    return store_sink_publish(s, &err) != BK_OK || write(STDOUT_FILENO, " end", 4) != 4;
}

static void
test_standard_output(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(link_to_standard_output), 0);
    fx_assert_holds(fx_at("stdout"), "head tail end");
}

static void
test_target_names(void **state)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};
    char name[NAME_MAX + 2];

    (void)state;
    assert_int_equal(store_sink_open(fx_folder, 1, NULL, &s, &err), BK_E_USAGE);
    assert_int_equal(store_sink_open(fx_at("."), 1, NULL, &s, &err), BK_E_USAGE);
    assert_int_equal(store_sink_open(fx_at(""), 1, NULL, &s, &err), BK_E_USAGE);
    assert_int_equal(store_sink_open("", 1, NULL, &s, &err), BK_E_USAGE);
    assert_int_equal(store_sink_open(fx_at("no/out"), 0, NULL, &s, &err), BK_E_IO);
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(fx_entries(), 0);

    memset(name, 'a', sizeof name);
    name[NAME_MAX + 1] = '\0';
    assert_int_equal(store_sink_open(fx_at(name), 0, NULL, &s, &err), BK_E_IO);
    assert_int_equal(err.os_errno, ENAMETOOLONG);
    name[NAME_MAX] = '\0';
    s = fx_open_sink(fx_at(name), 0);
    assert_int_equal(fx_entries(), 1);
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
    assert_int_equal(access(fx_at(name), F_OK), 0);
    assert_int_equal(fx_entries(), 1);
}

static void
test_long_names_are_cut_between_characters(void **state)
{
    char name[NAME_MAX + 1] = "x";
    struct store_sink *s = NULL;
    const struct dirent *e;
    size_t letters = 0;
    DIR *d;

    (void)state;
    for (size_t i = 1; i + 2 <= NAME_MAX; i += 2)
        memcpy(name + i, "\xC3\xA9", 3);
    s = fx_open_sink(fx_at(name), 0);
    d = opendir(fx_folder);
    while ((e = readdir(d)) != NULL && e->d_name[1] != 'x')
        ;
    assert_non_null(e);
    while (memcmp(e->d_name + 2 + 2 * letters, "\xC3\xA9", 2) == 0)
        letters++;
    assert_true(letters > 100);
    assert_int_equal(e->d_name[2 + 2 * letters], '.');
    (void)closedir(d);
    store_sink_discard(s);
}

static void
test_relative_target(void **state)
{
    int here = open(".", O_RDONLY | O_DIRECTORY);
    struct store_sink *s = NULL;
    struct bk_err err = {0};

    (void)state;
    assert_int_equal(chdir(fx_folder), 0);
    s = fx_open_sink("out", 0);
    fx_write_text(s, "x");
    /* the folder is held: a changed working directory does not matter */
    assert_int_equal(fchdir(here), 0);
    (void)close(here);
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
    fx_assert_holds(fx_at("out"), "x");
}

static void
test_write_again_and_read_back(void **state)
{
    struct store_sink *s = fx_open_sink(fx_at("out"), 0);
    struct store_source *back = NULL;
    struct bk_err err = {0};
    uint8_t buf[16];
    uint64_t size = 0;
    size_t got = 0;

    (void)state;
    fx_write_text(s, "0123456789");
    assert_int_equal(store_sink_write_at(s, 2, (const uint8_t *)"ab", 2, &err), BK_OK);
    assert_int_equal(store_sink_write_at(s, 9, (const uint8_t *)"ab", 2, &err), BK_E_INTERNAL);
    assert_int_equal(store_sink_write_at(s, UINT64_MAX, (const uint8_t *)"ab", 2, &err), BK_E_INTERNAL);
    assert_int_equal(store_sink_read_at(s, 1, buf, 4, &err), BK_OK);
    assert_memory_equal(buf, "1ab4", 4);
    assert_int_equal(store_sink_as_source(s, &back, &err), BK_OK);
    assert_true(store_source_seekable(back));
    assert_int_equal(store_source_size(back, &size, &err), BK_OK);
    assert_int_equal(size, 10);
    assert_int_equal(store_source_read(back, buf, 3, &got, &err), BK_OK);
    assert_memory_equal(buf, "01a", 3);
    fx_write_text(s, "end"); /* goes on at the end, wherever the source stands */
    assert_int_equal(store_source_read(back, buf, sizeof buf, &got, &err), BK_OK);
    assert_int_equal(got, 10);
    assert_memory_equal(buf, "b456789end", 10);
    store_source_close(back);
    assert_int_equal(store_sink_bytes_written(s), 13);
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
    fx_assert_holds(fx_at("out"), "01ab456789end");
}

/* Finds the staged file's name. */
static void
part_path(char out[PATH_MAX])
{
    DIR *d = opendir(fx_folder);
    const struct dirent *e;

    while ((e = readdir(d)) != NULL)
        if (strstr(e->d_name, ".part") != NULL)
            (void)snprintf(out, PATH_MAX, "%.300s/%s", fx_folder, e->d_name);
    (void)closedir(d);
}

/* Bytes of every kind of address and length, past the cache or not: what stands there is what was written. */
static void
write_pieces(struct store_sink *s, uint8_t *room, const uint8_t *all, size_t total)
{
    static const size_t pieces[] = {1, 4095, 4096, 8192, 100, 1048576 + 640, 5000, 1048576 + 640, 2 * 1048576};
    struct bk_err err = {0};
    size_t at = 0;

    for (size_t i = 0; at < total; i++) {
        size_t len = pieces[i % (sizeof pieces / sizeof pieces[0])];
        /* every other piece where it can be written directly, the others anywhere */
        size_t skew = i % 2 == 0 ? store_sink_skew(s, at) : i * 7 % 4096;

        len = len < total - at ? len : total - at;
        memcpy(room + skew, all + at, len);
        assert_int_equal(store_sink_write(s, room + skew, len, &err), BK_OK);
        at += len;
    }
}

static void
check_direct(int direct, uint64_t expected)
{
    size_t total = 40 * FX_MIB + 1234;
    uint8_t *all = malloc(total), *room = aligned_alloc(4096, 3 * FX_MIB), *back = malloc(total);
    struct store_sink *s = fx_open_sink(fx_at("out"), 1);
    struct store_source *src = NULL;
    struct bk_err err = {0};
    struct stat st;
    size_t got = 0;

    for (size_t i = 0; i < total; i++)
        all[i] = (uint8_t)(i * 7 % 251);
    assert_int_equal(store_sink_expect(s, expected, &err), BK_OK);
    if (direct)
        store_sink_direct(s);
    write_pieces(s, room, all, total);
    assert_int_equal(store_sink_bytes_written(s), total);
    assert_int_equal(store_sink_as_source(s, &src, &err), BK_OK);
    assert_int_equal(store_source_read(src, back, total, &got, &err), BK_OK);
    assert_int_equal(got, total);
    assert_memory_equal(back, all, total);
    store_source_close(src);
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
    /* what it was given room for and did not need is given back */
    assert_int_equal(stat(fx_at("out"), &st), 0);
    assert_true((size_t)st.st_size == total && (size_t)st.st_blocks * 512 < total + FX_MIB);
    free(all);
    free(room);
    free(back);
}

static void
test_direct_and_expected(void **state)
{
    (void)state;
    for (int direct = 0; direct < 2; direct++) {
        check_direct(direct, 0);
        check_direct(direct, FX_MIB);
        check_direct(direct, 64 * FX_MIB);
    }
}

/* Where the file system knows no direct I/O: the same bytes, dropped behind. */
static int
no_direct(void)
{
    size_t total = 40 * FX_MIB + 1234;
    uint8_t *all = malloc(total), *room = aligned_alloc(4096, 3 * FX_MIB), *back = malloc(total);
    struct store_sink *s = fx_open_sink(fx_at("out"), 1);
    struct bk_err err = {0};

    for (size_t i = 0; i < total; i++)
        all[i] = (uint8_t)(i * 7 % 251);
    if (!fx_deny(SYS_openat, EINVAL))
        return FX_SKIP;
    store_sink_direct(s);
    assert_int_equal(store_sink_skew(s, 640), 0);
    write_pieces(s, room, all, total);
    assert_int_equal(store_sink_read_at(s, 0, back, total, &err), BK_OK);
    assert_memory_equal(back, all, total);
    store_sink_discard(s);
    free(all);
    free(room);
    free(back);
    return 0;
}

static void
test_file_systems_without_direct(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(no_direct), 0);
    assert_int_equal(fx_entries(), 0);
}

static void
test_room_that_cannot_be_had(void **state)
{
    struct store_sink *s = fx_open_sink(fx_at("out"), 0);
    struct bk_err err = {0};
    enum bk_code rc = store_sink_expect(s, (uint64_t)INT64_MAX, &err);

    (void)state;
    /* file systems without fallocate find out later */
    assert_true(rc == BK_OK || rc == BK_E_NO_ROOM || rc == BK_E_IO);
    if (rc != BK_OK)
        assert_non_null(strstr(err.message, "cannot have the"));
    store_sink_discard(s);
    assert_int_equal(fx_entries(), 0);
}

static int
make_folder_in_memory(void **state)
{
    const char *base = getenv("TMPDIR");
    char *before = base == NULL ? NULL : strdup(base);
    int rc = setenv("TMPDIR", "/dev/shm", 1);

    if (rc == 0)
        rc = fx_make_folder(state);
    if (before == NULL)
        (void)unsetenv("TMPDIR");
    else
        (void)setenv("TMPDIR", before, 1);
    free(before);
    return rc;
}

/* A file system in memory: it is asked, and nothing is taken from it before it is needed. */
static void
test_room_in_memory(void **state)
{
    struct bk_err err = {0};
    struct statfs fs;
    struct store_sink *s;
    struct stat st;
    char part[PATH_MAX] = "";

    (void)state;
    assert_int_equal(statfs(fx_folder, &fs), 0);
    if (fs.f_type != TMPFS_MAGIC || fs.f_blocks == 0)
        skip();
    s = fx_open_sink(fx_at("out"), 0);
    assert_int_equal(store_sink_expect(s, (fs.f_blocks + 1) * (uint64_t)fs.f_bsize, &err), BK_E_NO_ROOM);
    assert_non_null(strstr(err.message, "cannot have the"));
    assert_int_equal(store_sink_expect(s, 64 * FX_MIB, &err), BK_OK);
    part_path(part);
    assert_int_equal(stat(part, &st), 0);
    assert_int_equal(st.st_blocks, 0);
    store_sink_discard(s);
    assert_int_equal(fx_entries(), 0);
}

static void
test_meddling_with_the_staged_file(void **state)
{
    struct store_sink *s = fx_open_sink(fx_at("out"), 0);
    struct bk_err err = {0};
    char part[PATH_MAX] = "";

    (void)state;
    part_path(part);
    assert_int_equal(unlink(part), 0);
    assert_int_equal(store_sink_publish(s, &err), BK_E_IO);
    assert_int_equal(err.os_errno, ENOENT);
    s = fx_open_sink(fx_at("out"), 0);
    part_path(part);
    assert_int_equal(unlink(part), 0);
    fx_put(part, "forged");
    assert_int_equal(store_sink_publish(s, &err), BK_E_IO);
    assert_non_null(strstr(err.message, "replaced"));
    assert_int_equal(fx_entries(), 0);
}

static void
test_vanished_folder(void **state)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};
    char inner[PATH_MAX], kept[PATH_MAX + 8];

    (void)state;
    (void)snprintf(kept, sizeof kept, "%s", fx_folder);
    (void)snprintf(inner, sizeof inner, "%.300s/inner", fx_folder);
    assert_int_equal(mkdir(inner, 0700), 0);
    (void)snprintf(fx_folder, sizeof fx_folder, "%.300s", inner);
    s = fx_open_sink(fx_at("out"), 0);
    part_path(inner);
    assert_int_equal(unlink(inner), 0);
    assert_int_equal(rmdir(fx_folder), 0);
    (void)snprintf(fx_folder, sizeof fx_folder, "%.300s", kept);
    fx_write_text(s, "x");
    assert_int_equal(store_sink_publish(s, &err), BK_E_IO);
    assert_int_equal(fx_entries(), 0);
}

static void
test_devices(void **state)
{
    struct store_sink *s = fx_open_sink("/dev/null", 0);
    struct store_source *back = NULL;
    struct bk_err err = {0};
    struct stat st;
    uint8_t b = 0;

    (void)state;
    assert_false(store_sink_staged(s));
    fx_write_text(s, "gone");
    assert_int_equal(store_sink_write_at(s, 0, &b, 1, &err), BK_E_INTERNAL);
    assert_int_equal(store_sink_read_at(s, 0, &b, 1, &err), BK_E_INTERNAL);
    assert_int_equal(store_sink_as_source(s, &back, &err), BK_E_INTERNAL);
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    s = fx_open_sink("/dev/full", 0);
    assert_int_equal(store_sink_write(s, &b, 1, &err), BK_E_NO_ROOM);
    assert_int_equal(err.os_errno, ENOSPC);
    assert_int_equal(store_sink_publish(s, &err), BK_E_INTERNAL); /* what was cut is not taken for whole */
}

static void
test_file_size_limit(void **state)
{
    struct rlimit old, small;
    struct store_sink *s = NULL;
    struct bk_err err = {0};
    uint8_t *big = calloc(1, 2 * FX_MIB);

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = FX_MIB + 100, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int publish = 0; publish < 2; publish++) {
        s = fx_open_sink(fx_at("out"), 0);
        assert_int_equal(store_sink_write(s, big, 2 * FX_MIB, &err), BK_E_IO);
        assert_int_equal(err.os_errno, EFBIG);
        assert_int_equal(store_sink_bytes_written(s), FX_MIB + 100);
        if (publish)
            assert_int_equal(store_sink_publish(s, &err), BK_E_INTERNAL);
        else
            store_sink_discard(s);
        assert_int_equal(fx_entries(), 0);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    free(big);
}

static void
test_full_disk(void **state)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};
    uint8_t *big = calloc(1, 2 * FX_MIB);
    enum bk_code rc;

    (void)state;
    if (mount("none", fx_folder, "tmpfs", 0, "size=1m,mode=0700") != 0) {
        free(big);
        skip();
    }
    s = fx_open_sink(fx_at("out"), 0);
    rc = store_sink_write(s, big, 2 * FX_MIB, &err);
    store_sink_discard(s);
    assert_int_equal(fx_entries(), 0);
    assert_int_equal(umount(fx_folder), 0);
    assert_int_equal(rc, BK_E_NO_ROOM);
    assert_non_null(strstr(err.message, "out: cannot write at byte"));
    free(big);
}

static void
test_cancel_before_publishing(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(0, EFD_CLOEXEC)};
    struct store_sink *s = NULL;
    struct bk_err err = {0};

    (void)state;
    assert_int_equal(store_sink_open(fx_at("out"), 0, &cancel, &s, &err), BK_OK);
    fx_write_text(s, "x");
    assert_int_equal(eventfd_write(cancel.fd, 1), 0);
    assert_int_equal(store_sink_publish(s, &err), BK_E_CANCELLED);
    assert_int_equal(store_sink_open(fx_at("out"), 0, &cancel, &s, &err), BK_OK);
    assert_int_equal(store_sink_write(s, (const uint8_t *)"x", 1, &err), BK_E_CANCELLED);
    store_sink_discard(s);
    assert_int_equal(fx_entries(), 0);
    (void)close(cancel.fd);
}

static int
publish_by_link(void)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};

    if (!fx_deny(SYS_renameat2, EINVAL))
        return FX_SKIP;
    s = fx_open_sink(fx_at("out"), 0);
    fx_write_text(s, "linked");
    if (store_sink_publish(s, &err) != BK_OK)
        return 1;
    s = fx_open_sink(fx_at("late"), 0);
    fx_put(fx_at("late"), "theirs");
    if (store_sink_publish(s, &err) != BK_E_USAGE)
        return 2;
    /* neither way: an error, and nothing is left */
    s = fx_open_sink(fx_at("none"), 0);
    if (!fx_deny(SYS_linkat, EPERM) || store_sink_publish(s, &err) != BK_E_IO || strstr(err.hint, "--force") == NULL)
        return 3;
    return 0;
}

static void
test_file_systems_without_noreplace(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(publish_by_link), 0);
    fx_assert_holds(fx_at("out"), "linked");
    fx_assert_holds(fx_at("late"), "theirs");
    assert_int_equal(fx_entries(), 2);
}

static int
publish_without_sync(void)
{
    struct store_sink *s = fx_open_sink(fx_at("out"), 0);
    struct bk_err err = {0};

    fx_write_text(s, "x");
    if (!fx_deny(SYS_fsync, EIO))
        return FX_SKIP;
    return store_sink_publish(s, &err) != BK_E_IO || err.os_errno != EIO;
}

static void
test_failing_sync_publishes_nothing(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(publish_without_sync), 0);
    assert_int_equal(fx_entries(), 0);
}

/* In a folder that may be written and searched, not read. */
static int
publish_in_drop_box(void)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};

    if (geteuid() == 0 && (chown(fx_folder, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0))
        return FX_SKIP;
    if (access(fx_folder, W_OK | X_OK) != 0 || chmod(fx_folder, 0300) != 0)
        return FX_SKIP;
    s = fx_open_sink(fx_at("out"), 0);
    fx_write_text(s, "dropped");
    if (store_sink_publish(s, &err) != BK_OK)
        return 1;
    s = fx_open_sink(fx_at("unsure"), 0);
    if (!fx_deny(SYS_syncfs, EIO))
        return FX_SKIP;
    return store_sink_publish(s, &err) != BK_E_IO || strstr(err.message, "is in place") == NULL ? 2 : 0;
}

static void
test_drop_box(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(publish_in_drop_box), 0);
    assert_int_equal(chmod(fx_folder, 0700), 0);
    fx_assert_holds(fx_at("out"), "dropped");
    assert_int_equal(fx_entries(), 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_publish, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_staged_file_is_private, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_existing_target, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_symbolic_links, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_standard_output, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_target_names, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_long_names_are_cut_between_characters, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_relative_target, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_write_again_and_read_back, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_meddling_with_the_staged_file, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_vanished_folder, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_devices, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_file_size_limit, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_full_disk, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_cancel_before_publishing, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_direct_and_expected, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_file_systems_without_direct, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_direct_and_expected, make_folder_in_memory, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_room_that_cannot_be_had, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_room_in_memory, make_folder_in_memory, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_file_systems_without_noreplace, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_failing_sync_publishes_nothing, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_drop_box, fx_make_folder, fx_remove_folder),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests_name("store_sink", tests, NULL, NULL);
}
