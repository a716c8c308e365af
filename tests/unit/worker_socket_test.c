/* What a program and its token worker say to each other, over a socket: secrets, ends, slowness and signals. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/wire.h"

#define HEADER 4

#define ok(call)                                                                                                       \
    do {                                                                                                               \
        struct bk_err err = {0};                                                                                       \
        if ((call) != BK_OK)                                                                                           \
            fail_msg("%s: %s", #call, err.message);                                                                    \
    } while (0)

static int
init(void **state)
{
    int locked = 0;

    (void)state;
    return bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

static void
nap(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

    (void)nanosleep(&t, NULL);
}

static void
make_pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

static void
set_patience(int fd, long ms)
{
    const struct timeval t = {ms / 1000, ms % 1000 * 1000};

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t), 0);
}

static void
secrets_travel_by_themselves(void **state)
{
    struct bk_secret pin = {0};
    struct wire_out o = {0};
    struct wire_in in = {0};
    uint8_t *at;
    int ends[2];
    char raw[256];
    const char header[HEADER] = {0, WIRE_PIN_IS, 0, 11};

    (void)state;
    make_pair(ends);
    ok(bk_secret_from(&pin, "SECRET-4711", 11, &err));
    wire_begin(&o, WIRE_PIN_IS);
    /* as it goes: two datagrams, of which only the second has it, and nothing of it stays with the message */
    ok(wire_send(ends[0], &o, &pin, &err));
    assert_int_equal(recv(ends[1], raw, sizeof raw, 0), HEADER);
    assert_memory_equal(raw, header, HEADER);
    assert_int_equal(recv(ends[1], raw, sizeof raw, 0), 11);
    assert_memory_equal(raw, "SECRET-4711", 11);
    assert_null(memmem(o.body.data, o.body.cap, "SECRET", 6));

    ok(wire_send(ends[0], &o, &pin, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_int_equal(in.type, WIRE_PIN_IS);
    assert_true(bk_secret_equal(&in.secret, &pin));
    assert_true(in.secret.data != in.room);
    assert_null(memmem(in.room, WIRE_MAX, "SECRET", 6));
    at = in.secret.data;
    ok(wire_end(&in, &err));

    /* the next message has none: what is still there is wiped, and the room of it is used again or zero */
    ok(wire_send(ends[0], &o, NULL, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_null(in.secret.data);
    assert_int_equal(in.secret.len, 0);
    assert_true(memcmp(at, "SECRET-4711", 11) != 0);
    /* of no length: none */
    ok(wire_send(ends[0], &o, &(struct bk_secret){0}, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_null(in.secret.data);

    ok(wire_send(ends[0], &o, &pin, &err));
    ok(wire_receive(ends[1], &in, &err));
    at = in.secret.data;
    wire_in_free(&in);
    assert_true(memcmp(at, "SECRET-4711", 11) != 0);
    assert_null(in.room);
    wire_in_free(&in);
    bk_secret_wipe(&pin);
    bk_buf_free(&o.body);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void
what_is_too_long_is_not_sent(void **state)
{
    uint8_t *much = calloc(1, WIRE_MAX);
    struct bk_secret secret = {0};
    struct wire_out o = {0};
    struct wire_in in = {0};
    int ends[2];

    (void)state;
    assert_non_null(much);
    make_pair(ends);
    wire_begin(&o, WIRE_STORE_CERTIFICATE);
    wire_put_bytes(&o, much, WIRE_MAX - HEADER - 4);
    ok(wire_send(ends[0], &o, NULL, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_int_equal(in.body.len, WIRE_MAX);
    wire_put_bytes(&o, NULL, 0);
    assert_int_equal(wire_send(ends[0], &o, NULL, NULL), BK_E_INTERNAL);

    ok(bk_secret_alloc(&secret, WIRE_SECRET_MAX + 1, &err));
    wire_begin(&o, WIRE_PIN_IS);
    assert_int_equal(wire_send(ends[0], &o, &secret, NULL), BK_E_INTERNAL);
    secret.len--;
    ok(wire_send(ends[0], &o, &secret, &err));
    ok(wire_receive(ends[1], &in, &err));
    assert_int_equal(in.secret.len, WIRE_SECRET_MAX);
    secret.len++;
    /* nothing of what was refused had gone out */
    set_patience(ends[1], 1);
    assert_int_equal(wire_receive(ends[1], &in, NULL), BK_E_CANCELLED);
    o.failed = 1;
    assert_int_equal(wire_send(ends[0], &o, NULL, NULL), BK_E_NO_ROOM);

    bk_secret_wipe(&secret);
    wire_in_free(&in);
    bk_buf_free(&o.body);
    free(much);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Sends datagrams of those lengths, and then closes; what receiving them comes to. */
static enum bk_code
receive_raw(const void *first, size_t first_len, const void *second, size_t second_len, size_t *secret_len)
{
    struct wire_in in = {0};
    struct bk_err err = {0};
    enum bk_code rc;
    int ends[2];

    make_pair(ends);
    assert_int_equal(send(ends[0], first, first_len, 0), first_len);
    if (second != NULL)
        assert_int_equal(send(ends[0], second, second_len, 0), second_len);
    (void)close(ends[0]);
    rc = wire_receive(ends[1], &in, &err);
    assert_int_equal(rc, err.code);
    *secret_len = in.secret.len;
    wire_in_free(&in);
    (void)close(ends[1]);
    return rc;
}

static void
what_is_no_message_is_not_taken(void **state)
{
    uint8_t *much = calloc(1, WIRE_MAX + 1);
    size_t len = 0;

    (void)state;
    assert_non_null(much);
    much[0] = 0;
    much[1] = WIRE_DONE;
    assert_int_equal(receive_raw(much, 1, NULL, 0, &len), BK_E_FORMAT);
    assert_int_equal(receive_raw(much, 3, NULL, 0, &len), BK_E_FORMAT);
    assert_int_equal(receive_raw(much, 4, NULL, 0, &len), BK_OK);
    assert_int_equal(receive_raw(much, WIRE_MAX, NULL, 0, &len), BK_OK);
    assert_int_equal(receive_raw(much, WIRE_MAX + 1, NULL, 0, &len), BK_E_FORMAT);
    much[3] = 5; /* a secret of 5 bytes */
    assert_int_equal(receive_raw(much, 4, "12345", 5, &len), BK_OK);
    assert_int_equal(len, 5);
    assert_int_equal(receive_raw(much, 4, "1234", 4, &len), BK_E_FORMAT);
    assert_int_equal(receive_raw(much, 4, "123456", 6, &len), BK_E_FORMAT);
    assert_int_equal(receive_raw(much, 4, NULL, 0, &len), BK_E_INCOMPLETE);
    much[2] = 0xff; /* and of many */
    assert_int_equal(receive_raw(much, 4, much, WIRE_MAX, &len), BK_E_FORMAT);
    free(much);
}

static void
the_other_side_is_gone(void **state)
{
    struct bk_secret secret = {0};
    struct wire_out o = {0};
    struct wire_in in = {0};
    int ends[2];

    (void)state;
    make_pair(ends);
    ok(bk_secret_from(&secret, "123", 3, &err));
    (void)close(ends[1]);
    wire_begin(&o, WIRE_DONE);
    /* no SIGPIPE */
    assert_int_equal(wire_send(ends[0], &o, &secret, NULL), BK_E_IO);
    assert_int_equal(wire_receive(ends[0], &in, NULL), BK_E_INCOMPLETE);
    (void)close(ends[0]);

    /* with something unread, as a worker that crashes leaves it */
    make_pair(ends);
    ok(wire_send(ends[0], &o, &secret, &err));
    (void)close(ends[1]);
    assert_int_equal(wire_receive(ends[0], &in, NULL), BK_E_INCOMPLETE);
    (void)close(ends[0]);
    assert_int_equal(wire_receive(ends[0], &in, NULL), BK_E_IO); /* no descriptor at all */
    bk_secret_wipe(&secret);
    wire_in_free(&in);
    bk_buf_free(&o.body);
}

static void
on_signal(int number)
{
    (void)number;
}

struct sender {
    int fd;
    long before_ms, between_ms;
    pthread_t receiver;
    int signals;
};

static void *
send_slowly(void *arg)
{
    const struct sender *s = arg;
    const uint8_t message[HEADER] = {0, WIRE_DONE, 0, 3};

    for (int i = 0; i < s->signals; i++) {
        nap(s->before_ms);
        (void)pthread_kill(s->receiver, SIGUSR1);
    }
    nap(s->before_ms);
    (void)!send(s->fd, message, sizeof message, MSG_NOSIGNAL);
    for (int i = 0; i < s->signals; i++) {
        nap(s->between_ms);
        (void)pthread_kill(s->receiver, SIGUSR1);
    }
    nap(s->between_ms);
    (void)!send(s->fd, "abc", 3, MSG_NOSIGNAL);
    return NULL;
}

/* How often the receiver waited anew before a message came. */
static int
receive_from(struct sender *s, long patience_ms)
{
    struct wire_in in = {0};
    pthread_t thread;
    int ends[2];
    int waits = 0;
    struct bk_err err = {0};
    enum bk_code rc;

    make_pair(ends);
    set_patience(ends[1], patience_ms);
    s->fd = ends[0];
    s->receiver = pthread_self();
    assert_int_equal(pthread_create(&thread, NULL, send_slowly, s), 0);
    while ((rc = wire_receive(ends[1], &in, &err)) == BK_E_CANCELLED)
        waits++;
    if (rc != BK_OK)
        fail_msg("%s", err.message);
    assert_int_equal(in.secret.len, 3);
    assert_memory_equal(in.secret.data, "abc", 3);
    assert_int_equal(pthread_join(thread, NULL), 0);
    wire_in_free(&in);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return waits;
}

static void
a_slow_peer_is_waited_for(void **state)
{
    struct sender s = {.before_ms = 60};

    (void)state;
    assert_true(receive_from(&s, 10) >= 2);
}

/* On a machine that is busy, a moment goes by between a message and its secret. */
static void
a_secret_may_come_later_than_its_message(void **state)
{
    struct sender s = {.between_ms = 150};

    (void)state;
    (void)receive_from(&s, 20);
}

static void
a_secret_that_never_comes_is_not_waited_for_forever(void **state)
{
    const uint8_t message[HEADER] = {0, WIRE_DONE, 0, 3};
    struct wire_in in = {0};
    struct bk_err err = {0};
    int ends[2];

    (void)state;
    make_pair(ends);
    set_patience(ends[1], 1);
    assert_int_equal(send(ends[0], message, sizeof message, 0), HEADER);
    assert_int_equal(wire_receive(ends[1], &in, &err), BK_E_FORMAT);
    assert_non_null(strstr(err.message, "secret did not come"));
    wire_in_free(&in);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void
signals_do_no_harm(void **state)
{
    const struct sigaction heard = {.sa_handler = on_signal};
    struct sender s = {.before_ms = 5, .between_ms = 5, .signals = 3};
    struct sigaction old;

    (void)state;
    assert_int_equal(sigaction(SIGUSR1, &heard, &old), 0);
    (void)receive_from(&s, 5000);
    s.signals = 0;
    (void)receive_from(&s, 0); /* no limit at all */
    assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
}

/* A secret for which there was no room is not left to be read as a message, by whoever reads next. */
static void
no_room_for_a_secret(void **state)
{
    const uint8_t message[HEADER] = {0, WIRE_PIN_IS, 0, 3};
    static struct bk_secret all[BK_SECRET_ARENA / WIRE_SECRET_MAX + 1];
    struct bk_secret small[64] = {0};
    struct wire_in in = {0};
    size_t taken = 0, more = 0;
    int ends[2];

    (void)state;
    make_pair(ends);
    while (taken < sizeof all / sizeof all[0] && bk_secret_alloc(&all[taken], WIRE_SECRET_MAX, NULL) == BK_OK)
        taken++;
    while (more < 64 && bk_secret_alloc(&small[more], 32, NULL) == BK_OK)
        more++;
    assert_true(taken > 100 && more < 64);
    assert_int_equal(send(ends[0], message, sizeof message, 0), HEADER);
    assert_int_equal(send(ends[0], "\0\1\0", 3, 0), 3);
    assert_int_equal(wire_receive(ends[1], &in, NULL), BK_E_NO_ROOM);
    set_patience(ends[1], 1);
    assert_int_equal(wire_receive(ends[1], &in, NULL), BK_E_CANCELLED);
    while (more > 0)
        bk_secret_wipe(&small[--more]);
    while (taken > 0)
        bk_secret_wipe(&all[--taken]);
    wire_in_free(&in);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_travel_by_themselves),
        cmocka_unit_test(what_is_too_long_is_not_sent),
        cmocka_unit_test(what_is_no_message_is_not_taken),
        cmocka_unit_test(the_other_side_is_gone),
        cmocka_unit_test(a_slow_peer_is_waited_for),
        cmocka_unit_test(a_secret_may_come_later_than_its_message),
        cmocka_unit_test(a_secret_that_never_comes_is_not_waited_for_forever),
        cmocka_unit_test(signals_do_no_harm),
        cmocka_unit_test(no_room_for_a_secret),
    };

    return cmocka_run_group_tests(tests, init, NULL);
}
