/* Sources, and sinks that are streams: nothing is lost, and nothing blocks deaf to a stop. */
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "store/sink.h"
#include "store/source.h"
#include "tests/support/store_fixture.h"

static void
test_source_file(void **state)
{
    struct store_source *s = NULL;
    struct bk_err err = {0};
    uint8_t buf[16] = {0};
    uint64_t size = 0;
    size_t got = 0;

    (void)state;
    fx_put(fx_at("f"), "0123456789");
    assert_int_equal(store_source_open(fx_at("f"), NULL, &s, &err), BK_OK);
    assert_string_equal(store_source_name(s), fx_at("f"));
    assert_true(store_source_seekable(s));
    store_source_sequential(s);
    assert_int_equal(store_source_size(s, &size, &err), BK_OK);
    assert_int_equal(size, 10);
    assert_int_equal(store_source_read(s, buf, 3, &got, &err), BK_OK);
    assert_int_equal(store_source_read_at(s, 7, buf, 3, &err), BK_OK);
    assert_memory_equal(buf, "789", 3);
    /* a range does not move the position */
    assert_int_equal(store_source_read(s, buf, sizeof buf, &got, &err), BK_OK);
    assert_int_equal(got, 7);
    assert_memory_equal(buf, "3456789", 7);
    assert_int_equal(store_source_bytes_read(s), 13);
    assert_int_equal(store_source_read_at(s, 8, buf, 3, &err), BK_E_INCOMPLETE);
    assert_int_equal(store_source_read_at(s, UINT64_MAX - 1, buf, 3, &err), BK_E_INCOMPLETE);
    assert_int_equal(store_source_read_at(s, INT64_MAX, buf, 3, &err), BK_E_INCOMPLETE);
    store_source_close(s);
    store_source_close(NULL);
}

/* Ranges of every kind of offset and length, past the cache or not, to the very end of the file and beyond it. */
static void
check_ranges_around(struct store_source *s, const uint8_t *all, size_t total)
{
    static const size_t offsets[] = {0, 1, 640, 4095, 4096, 4097, 70000};
    static const size_t lengths[] = {1, 4096, 4097, 50000};
    uint8_t *room = aligned_alloc(4096, 64 * 1024 + STORE_SLACK);
    struct bk_err err = {0};
    size_t at;

    for (size_t o = 0; o < sizeof offsets / sizeof offsets[0]; o++)
        for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
            at = SIZE_MAX;
            assert_int_equal(store_source_read_around(s, offsets[o], room, &at, lengths[l], &err), BK_OK);
            assert_true(at + lengths[l] <= 64 * 1024 + STORE_SLACK);
            assert_memory_equal(room + at, all + offsets[o], lengths[l]);
        }
    assert_int_equal(store_source_read_around(s, total - 5, room, &at, 5, &err), BK_OK);
    assert_memory_equal(room + at, all + total - 5, 5);
    assert_int_equal(store_source_read_around(s, total - 5, room, &at, 6, &err), BK_E_INCOMPLETE);
    assert_int_equal(store_source_read_around(s, total + 5000, room, &at, 1, &err), BK_E_INCOMPLETE);
    assert_int_equal(store_source_read_around(s, UINT64_MAX - 1, room, &at, 1, &err), BK_E_INCOMPLETE);
    free(room);
}

/* From the beginning, in pieces of a size, each asked whether something follows. */
static void
check_in_pieces(struct store_source *s, const uint8_t *all, size_t total, size_t piece)
{
    uint8_t *room = aligned_alloc(4096, (piece + 4095) / 4096 * 4096);
    struct bk_err err = {0};
    size_t at = 0, got;
    int ended = 0;

    while (!ended) {
        assert_int_equal(store_source_read(s, room, piece, &got, &err), BK_OK);
        assert_int_equal(got, piece < total - at ? piece : total - at);
        assert_memory_equal(room, all + at, got);
        at += got;
        assert_int_equal(store_source_ended(s, &ended, &err), BK_OK);
        assert_int_equal(ended, at == total);
        /* asked twice, the same again */
        assert_int_equal(store_source_ended(s, &ended, &err), BK_OK);
        assert_int_equal(ended, at == total);
    }
    assert_int_equal(store_source_bytes_read(s), total);
    free(room);
}

static void
test_source_direct(void **state)
{
    size_t total = 130000;
    uint8_t *all = malloc(total);
    struct store_source *s = NULL;
    struct bk_err err = {0};
    FILE *f = fopen(fx_at("f"), "w");

    (void)state;
    for (size_t i = 0; i < total; i++)
        all[i] = (uint8_t)(i * 7 % 251);
    assert_non_null(f);
    assert_int_equal(fwrite(all, 1, total, f), total);
    assert_int_equal(fclose(f), 0);
    for (int direct = 0; direct < 2; direct++) {
        static const size_t pieces[] = {4096, 1000, 65000, 65536, 130000, 200000};

        assert_int_equal(store_source_open(fx_at("f"), NULL, &s, &err), BK_OK);
        if (direct)
            store_source_direct(s);
        check_ranges_around(s, all, total);
        store_source_close(s);
        for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
            assert_int_equal(store_source_open(fx_at("f"), NULL, &s, &err), BK_OK);
            if (direct)
                store_source_direct(s);
            check_in_pieces(s, all, total, pieces[i]);
            store_source_close(s);
        }
    }
    free(all);
}

/* Of a stream the byte that was read to know that it goes on is not lost; a file without a length is read to its end.
 */
static void
test_source_ended(void **state)
{
    struct store_source *s = NULL;
    struct bk_err err = {0};
    uint8_t buf[8];
    size_t got = 0;
    int ends[2], ended = 1;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "abc", 3), 3);
    assert_int_equal(close(ends[1]), 0);
    assert_int_equal(store_source_from_fd(ends[0], "pipe", NULL, &s, &err), BK_OK);
    store_source_direct(s);
    assert_int_equal(store_source_ended(s, &ended, &err), BK_OK);
    assert_false(ended);
    assert_int_equal(store_source_read(s, buf, 2, &got, &err), BK_OK);
    assert_memory_equal(buf, "ab", 2);
    assert_int_equal(store_source_ended(s, &ended, &err), BK_OK);
    assert_false(ended);
    assert_int_equal(store_source_read(s, buf, 8, &got, &err), BK_OK);
    assert_true(got == 1 && buf[0] == 'c');
    assert_int_equal(store_source_ended(s, &ended, &err), BK_OK);
    assert_true(ended);
    assert_int_equal(store_source_bytes_read(s), 3);
    store_source_close(s);
    assert_int_equal(store_source_open("/proc/self/status", NULL, &s, &err), BK_OK);
    assert_int_equal(store_source_read(s, buf, 8, &got, &err), BK_OK);
    assert_memory_equal(buf, "Name:", 5);
    assert_int_equal(store_source_ended(s, &ended, &err), BK_OK);
    assert_false(ended);
    store_source_close(s);
}

static void
test_source_refusals(void **state)
{
    struct store_source *s = NULL;
    struct bk_err err = {0};

    (void)state;
    assert_int_equal(store_source_open(fx_at("none"), NULL, &s, &err), BK_E_IO);
    assert_int_equal(err.os_errno, ENOENT);
    assert_non_null(strstr(err.message, "none: cannot open for reading: No such file"));
    assert_int_equal(store_source_open(fx_folder, NULL, &s, &err), BK_E_IO);
    assert_int_equal(err.os_errno, EISDIR);
    assert_int_equal(store_source_from_fd(-1, "nothing", NULL, &s, &err), BK_E_IO);
    assert_int_equal(err.os_errno, EBADF);
    assert_null(s);
}

static void *
write_slowly(void *arg)
{
    const struct fx_later *l = arg;

    for (const char *p = l->text; *p != '\0'; p++) {
        fx_sleep_ms(10);
        assert_int_equal(write(l->fd, p, 1), 1);
    }
    (void)close(l->fd);
    return NULL;
}

static void
test_source_slow_pipe(void **state)
{
    struct store_source *s = NULL;
    struct bk_err err = {0};
    struct fx_later l = {.text = "slowly written"};
    uint8_t buf[64];
    uint64_t size;
    size_t got = 0;
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    l.fd = ends[1];
    assert_int_equal(store_source_from_fd(ends[0], "pipe", NULL, &s, &err), BK_OK);
    assert_int_equal(fcntl(ends[0], F_GETFD), FD_CLOEXEC);
    assert_false(store_source_seekable(s));
    assert_int_equal(store_source_size(s, &size, &err), BK_E_INTERNAL);
    assert_int_equal(store_source_read_at(s, 0, buf, 1, &err), BK_E_INTERNAL);
    fx_start(&l, write_slowly);
    assert_int_equal(store_source_read(s, buf, 6, &got, &err), BK_OK);
    assert_int_equal(got, 6);
    assert_memory_equal(buf, "slowly", 6);
    assert_int_equal(store_source_read(s, buf, sizeof buf, &got, &err), BK_OK);
    assert_int_equal(got, 8);
    assert_int_equal(store_source_read(s, buf, sizeof buf, &got, &err), BK_OK);
    assert_int_equal(got, 0);
    assert_int_equal(store_source_bytes_read(s), 14);
    fx_join(&l);
    store_source_close(s);
}

static void *
interrupt_source(void *arg)
{
    fx_sleep_ms(100);
    store_source_interrupt(((struct fx_later *)arg)->source);
    return NULL;
}

static void
test_source_stops(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(0, EFD_CLOEXEC)};
    struct store_source *s = NULL;
    struct bk_err err = {0};
    struct fx_later l = {0};
    uint8_t buf[8];
    size_t got = 0;
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(store_source_from_fd(ends[0], "pipe", &cancel, &s, &err), BK_OK);
    l = (struct fx_later){.source = s};
    fx_start(&l, interrupt_source);
    assert_int_equal(store_source_read(s, buf, sizeof buf, &got, &err), BK_E_CANCELLED);
    fx_join(&l);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(store_source_read(s, buf, 1, &got, &err), BK_E_CANCELLED); /* it stays so */
    store_source_close(s);
    (void)close(ends[1]);

    assert_int_equal(pipe(ends), 0);
    assert_int_equal(store_source_from_fd(ends[0], "pipe", &cancel, &s, &err), BK_OK);
    l = (struct fx_later){.fd = cancel.fd};
    fx_start(&l, fx_set_event);
    assert_int_equal(store_source_read(s, buf, sizeof buf, &got, &err), BK_E_CANCELLED);
    fx_join(&l);
    store_source_close(s);
    (void)close(ends[1]);

    fx_put(fx_at("f"), "0123456789");
    assert_int_equal(store_source_open(fx_at("f"), &cancel, &s, &err), BK_OK);
    assert_int_equal(store_source_read(s, buf, 1, &got, &err), BK_E_CANCELLED);
    assert_int_equal(store_source_read_at(s, 0, buf, 1, &err), BK_E_CANCELLED);
    store_source_close(s);
    (void)close(cancel.fd);
}

static void
on_signal(int number)
{
    (void)number;
}

static void *
signal_then_write(void *arg)
{
    struct fx_later *l = arg;

    for (int i = 0; i < 5; i++) {
        fx_sleep_ms(20);
        (void)pthread_kill(*(const pthread_t *)(const void *)l->text, SIGUSR1);
    }
    assert_int_equal(write(l->fd, "abc", 3), 3);
    (void)close(l->fd);
    return NULL;
}

static void
test_source_goes_on_after_signals(void **state)
{
    struct sigaction act = {.sa_handler = on_signal};
    struct store_source *s = NULL;
    struct bk_err err = {0};
    pthread_t self = pthread_self();
    struct fx_later l = {.text = (const char *)&self};
    uint8_t buf[8];
    size_t got = 0;
    int ends[2];

    (void)state;
    assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
    assert_int_equal(pipe(ends), 0);
    l.fd = ends[1];
    assert_int_equal(store_source_from_fd(ends[0], "pipe", NULL, &s, &err), BK_OK);
    fx_start(&l, signal_then_write);
    assert_int_equal(store_source_read(s, buf, sizeof buf, &got, &err), BK_OK);
    assert_int_equal(got, 3);
    fx_join(&l);
    store_source_close(s);
}

static void *
open_and_write(void *arg)
{
    struct fx_later *l = arg;

    fx_sleep_ms(100);
    l->fd = open(l->text, O_WRONLY);
    assert_int_equal(write(l->fd, "fifo", 4), 4);
    (void)close(l->fd);
    return NULL;
}

static void
test_source_fifo(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(0, EFD_CLOEXEC)};
    struct store_source *s = NULL;
    struct bk_err err = {0};
    struct fx_later l = {.text = fx_at("fifo")};
    uint8_t buf[8];
    size_t got = 0;

    (void)state;
    assert_int_equal(mkfifo(l.text, 0600), 0);
    fx_start(&l, open_and_write);
    assert_int_equal(store_source_open(l.text, &cancel, &s, &err), BK_OK);
    assert_int_equal(store_source_read(s, buf, sizeof buf, &got, &err), BK_OK); /* waits for the writer */
    assert_int_equal(got, 4);
    assert_memory_equal(buf, "fifo", 4);
    fx_join(&l);
    store_source_close(s);

    l = (struct fx_later){.fd = cancel.fd};
    fx_start(&l, fx_set_event);
    assert_int_equal(store_source_open(fx_at("fifo"), &cancel, &s, &err), BK_OK);
    assert_int_equal(store_source_read(s, buf, sizeof buf, &got, &err), BK_E_CANCELLED); /* nobody ever writes */
    fx_join(&l);
    store_source_close(s);
    (void)close(cancel.fd);
}

static void
test_standard_input(void **state)
{
    int saved = dup(STDIN_FILENO);
    struct store_source *s = NULL;
    struct bk_err err = {0};
    uint8_t buf[16];
    uint64_t size;
    size_t got = 0;
    int fd;

    (void)state;
    fx_put(fx_at("in"), "0123456789");
    fd = open(fx_at("in"), O_RDONLY);
    assert_int_equal(dup2(fd, STDIN_FILENO), STDIN_FILENO);
    assert_int_equal(store_source_open("-", NULL, &s, &err), BK_OK);
    assert_true(store_source_seekable(s));
    store_source_close(s);
    assert_int_equal(lseek(STDIN_FILENO, 4, SEEK_SET), 4);
    assert_int_equal(store_source_open("-", NULL, &s, &err), BK_OK);
    assert_false(store_source_seekable(s));
    assert_int_equal(store_source_size(s, &size, &err), BK_E_INTERNAL);
    assert_int_equal(store_source_read(s, buf, sizeof buf, &got, &err), BK_OK);
    assert_int_equal(got, 6);
    assert_memory_equal(buf, "456789", 6);
    store_source_close(s);
    assert_int_equal(fcntl(STDIN_FILENO, F_GETFD), 0);
    (void)close(fd);
    if (saved >= 0) {
        assert_int_equal(dup2(saved, STDIN_FILENO), STDIN_FILENO);
        (void)close(saved);
    }
}

static void *
read_ranges(void *arg)
{
    struct fx_later *l = arg;
    struct bk_err err = {0};

    for (unsigned i = 0; i < 2000; i++) {
        uint8_t b[4];

        assert_int_equal(store_source_read_at(l->source, i * 4, b, 4, &err), BK_OK);
        assert_int_equal(bk_get_u32(b), i);
    }
    return NULL;
}

static void
test_ranges_by_many_threads(void **state)
{
    struct fx_later l[4];
    struct store_source *s = NULL;
    struct bk_err err = {0};
    FILE *f = fopen(fx_at("f"), "w");

    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        uint8_t b[4];

        bk_put_u32(b, i);
        assert_int_equal(fwrite(b, 1, 4, f), 4);
    }
    assert_int_equal(fclose(f), 0);
    assert_int_equal(store_source_open(fx_at("f"), NULL, &s, &err), BK_OK);
    for (int i = 0; i < 4; i++) {
        l[i].source = s;
        fx_start(&l[i], read_ranges);
    }
    for (int i = 0; i < 4; i++)
        fx_join(&l[i]);
    assert_int_equal(store_source_bytes_read(s), 4 * 8000);
    store_source_close(s);
}

/* ---- sinks that are streams ---- */

/* Writes without end until the other end is full, and is stopped there. */
static void
assert_stoppable(int fd, int other)
{
    struct bk_cancel cancel = {.fd = eventfd(0, EFD_CLOEXEC)};
    struct fx_later l = {.fd = cancel.fd};
    struct store_sink *s = NULL;
    struct bk_err err = {0};
    uint8_t *big = calloc(1, 4 * FX_MIB);

    assert_int_equal(store_sink_from_fd(fd, "stream", &cancel, &s, &err), BK_OK);
    fx_start(&l, fx_set_event);
    assert_int_equal(store_sink_write(s, big, 4 * FX_MIB, &err), BK_E_CANCELLED);
    fx_join(&l);
    store_sink_discard(s);
    (void)close(other);
    (void)close(cancel.fd);
    free(big);
}

static void
test_full_pipe_can_be_stopped(void **state)
{
    int ends[2], shared;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    shared = dup(ends[1]);
    assert_stoppable(ends[1], ends[0]);
    /* a description that others share has not been changed */
    assert_int_equal(fcntl(shared, F_GETFL) & O_NONBLOCK, 0);
    (void)close(shared);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_stoppable(ends[1], ends[0]);
}

static int
stop_full_pipe_without_proc(void)
{
    int ends[2];

    /* descriptors are made before; /proc cannot be opened then, and writes are of PIPE_BUF bytes */
    if (pipe(ends) != 0 || !fx_deny(SYS_openat, EACCES))
        return FX_SKIP;
    assert_stoppable(ends[1], ends[0]);
    return 0;
}

static void
test_full_pipe_without_proc(void **state)
{
    (void)state;
    assert_int_equal(fx_in_child(stop_full_pipe_without_proc), 0);
}

static void
test_reader_gone(void **state)
{
    struct store_sink *s = NULL;
    struct bk_err err = {0};
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    (void)close(ends[0]);
    assert_int_equal(store_sink_from_fd(ends[1], "pipe", NULL, &s, &err), BK_OK);
    assert_int_equal(store_sink_write(s, (const uint8_t *)"x", 1, &err), BK_E_IO);
    assert_int_equal(err.os_errno, EPIPE);
    store_sink_discard(s);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    (void)close(ends[0]);
    assert_int_equal(store_sink_from_fd(ends[1], "socket", NULL, &s, &err), BK_OK);
    assert_int_equal(store_sink_write(s, (const uint8_t *)"x", 1, &err), BK_E_IO);
    assert_int_equal(err.os_errno, EPIPE);
    store_sink_discard(s);
    assert_int_equal(store_sink_from_fd(-1, "nothing", NULL, &s, &err), BK_E_IO);
}

static void *
open_and_read(void *arg)
{
    struct fx_later *l = arg;
    char text[5] = "";

    fx_sleep_ms(100);
    l->fd = open(l->text, O_RDONLY);
    assert_int_equal(read(l->fd, text, 4), 4);
    assert_string_equal(text, "fifo");
    (void)close(l->fd);
    return NULL;
}

static void
test_sink_fifo(void **state)
{
    struct bk_cancel cancel = {.fd = eventfd(0, EFD_CLOEXEC)};
    struct store_sink *s = NULL;
    struct bk_err err = {0};
    struct fx_later l = {.text = fx_at("fifo")};

    (void)state;
    assert_int_equal(mkfifo(l.text, 0600), 0);
    fx_start(&l, open_and_read);
    assert_int_equal(store_sink_open(l.text, 0, &cancel, &s, &err), BK_OK);
    assert_false(store_sink_staged(s));
    fx_write_text(s, "fifo");
    fx_join(&l);
    assert_int_equal(store_sink_publish(s, &err), BK_OK);
    l = (struct fx_later){.fd = cancel.fd};
    fx_start(&l, fx_set_event);
    assert_int_equal(store_sink_open(fx_at("fifo"), 0, &cancel, &s, &err), BK_E_CANCELLED);
    fx_join(&l);
    (void)close(cancel.fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_source_file, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_source_refusals, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_source_slow_pipe, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_source_stops, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_source_goes_on_after_signals, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_source_fifo, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_standard_input, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_ranges_by_many_threads, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_full_pipe_can_be_stopped, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_source_direct, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_source_ended, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_full_pipe_without_proc, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_reader_gone, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_sink_fifo, fx_make_folder, fx_remove_folder),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
