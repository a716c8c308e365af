/*
 * A token worker that has no module and misbehaves as it is told: FAKE_WORKER is a list of rules "LIFE/TYPE=ACTION",
 * of which the first that fits is followed. LIFE counts the processes that FAKE_FOLDER has seen, from 1, TYPE is the
 * number of a request, 0 the start; both may be *. Without a rule it has one token with one AES key, and with FAKE_PIN
 * it wants that for a login. FAKE_FOLDER/log says what was asked: "LIFE TYPE" for each request, "LIFE login PIN".
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "worker/watch.h"
#include "worker/wire.h"

#define TOKEN     "fake token"
#define TOKEN_URI "pkcs11:token=fake%20token;serial=1"

struct conn {
    int fd;
    struct watch_slot *slot;
    struct wire_in in, answer;
    struct wire_out out, event;
    struct bk_secret secret; /* of the result */
};

static struct watch *watch;
static unsigned limit_ms;
static unsigned life;
static int log_fd;
static int logged_in;
static pthread_mutex_t login_lock = PTHREAD_MUTEX_INITIALIZER;

static void
nap(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

    (void)nanosleep(&t, NULL);
}

static _Noreturn void
sleep_forever(void)
{
    for (;;)
        (void)pause();
}

static void
note(const char *what, const char *more)
{
    char line[256];
    int len = snprintf(line, sizeof line, "%u %s%s\n", life, what, more);

    if (len > 0 && write(log_fd, line, (size_t)len) != len)
        _exit(99);
}

/* The action of a rule for this request, or "". */
static const char *
action(int type)
{
    static _Thread_local char found[64];
    const char *rules = getenv("FAKE_WORKER");
    char all[1024];
    char *rest = all;
    char *rule;

    (void)snprintf(all, sizeof all, "%s", rules == NULL ? "" : rules);
    while ((rule = strsep(&rest, " ")) != NULL) {
        char life_text[16] = "";
        char type_text[16] = "";

        if (sscanf(rule, "%15[^/]/%15[^=]=%63s", life_text, type_text, found) != 3)
            continue;
        if ((life_text[0] == '*' || strtoul(life_text, NULL, 10) == life) &&
            (type_text[0] == '*' || strtol(type_text, NULL, 10) == type))
            return found;
    }
    return "";
}

static int
says(const char *what, const char *name)
{
    return strcmp(what, name) == 0;
}

static void
enter(struct conn *c, const char *call)
{
    (void)snprintf(c->slot->call, sizeof c->slot->call, "%s", call);
    atomic_store(&c->slot->limit_ms, limit_ms);
    atomic_fetch_add(&c->slot->step, 1);
}

static void
leave(struct conn *c)
{
    atomic_store(&c->slot->limit_ms, 0);
    atomic_fetch_add(&c->slot->step, 1);
}

static _Noreturn void
die(int number)
{
    (void)signal(number, SIG_DFL); /* sanitizers hear some of them */
    (void)kill(getpid(), number);
    sleep_forever();
}

static void
raw(const struct conn *c, const void *data, size_t len)
{
    (void)!send(c->fd, data, len, MSG_NOSIGNAL);
}

static void
header(const struct conn *c, unsigned type, unsigned secret_len)
{
    uint8_t at[8] = {0};

    bk_put_u16(at, (uint16_t)type);
    bk_put_u16(at + 2, (uint16_t)secret_len);
    raw(c, at, sizeof at); /* with BK_OK */
}

static void
done(struct conn *c)
{
    if (wire_send(c->fd, &c->out, &c->secret, NULL) != BK_OK)
        (void)shutdown(c->fd, SHUT_RDWR);
}

static void
fail(struct conn *c, enum bk_code code, const char *message, int login_failed)
{
    struct bk_err err = {.code = code};

    (void)snprintf(err.message, sizeof err.message, "%s", message);
    wire_begin(&c->out, WIRE_DONE);
    wire_put_error(&c->out, &err);
    wire_put_u32(&c->out, login_failed != 0);
    done(c);
}

/* -- PINs -----------------------------------------------------------------------------------------------------------
 */

/* 1 if a PIN came, which is in c->answer.secret. */
static int
ask(struct conn *c, const struct p11_pin_request *req)
{
    wire_begin(&c->event, WIRE_PIN);
    wire_put_pin_request(&c->event, req);
    return wire_send(c->fd, &c->event, NULL, NULL) == BK_OK && wire_receive(c->fd, &c->answer, NULL) == BK_OK &&
           c->answer.type == WIRE_PIN_IS;
}

static void
ask_oddly(struct conn *c, const char *how)
{
    struct p11_pin_request req = {.token_label = TOKEN, .token_serial = "1"};

    if (says(how, "pinother"))
        req.token_label = "other token";
    if (says(how, "pinserial"))
        req.token_serial = "2";
    if (says(how, "pinsource"))
        req.pin_source = "|false";
    if (says(how, "pinso"))
        req.security_officer = 1;
    if (says(how, "pintwice"))
        (void)ask(c, &req);
    if (ask(c, &req))
        note("login ", "of an odd kind");
    fail(c, BK_E_PIN, "a PIN was got by a trick", 0);
}

/* With a URI's PIN, or one that is asked for; 0 if it was answered with an error. */
static int
log_in(struct conn *c, const char *how)
{
    const struct p11_pin_request req = {.token_label = TOKEN, .token_serial = "1"};
    const char *right = getenv("FAKE_PIN");
    const struct bk_secret *pin = &c->in.secret;
    char text[64] = "";

    if (right == NULL || logged_in)
        return 1;
    if (pin->data == NULL && ask(c, &req))
        pin = &c->answer.secret;
    if (pin->data == NULL) {
        fail(c, BK_E_PIN, "token 'fake token': no PIN", 0);
        return 0;
    }
    (void)snprintf(text, sizeof text, "%.*s", (int)pin->len, (const char *)pin->data);
    enter(c, "C_Login");
    note("login ", text);
    if (says(how, "loginsegv"))
        die(SIGSEGV);
    if (says(how, "loginhang"))
        sleep_forever();
    logged_in = strcmp(text, right) == 0;
    if (!logged_in)
        atomic_store(&watch->login_failed, 1);
    leave(c);
    if (says(how, "aftersegv")) {
        enter(c, "C_CloseSession");
        die(SIGSEGV);
    }
    if (!logged_in)
        fail(c, BK_E_PIN, "token 'fake token': the PIN was refused", 1);
    return logged_in;
}

/* -- what an honest one answers -------------------------------------------------------------------------------------
 */

static void
put_key(struct conn *c, const char *how)
{
    static uint8_t spki[] = {0x30, 0x03, 0x02, 0x01, 0x07};
    struct bk_public pub = {
        .type = BK_KEY_AES256, .bits = 256, .scheme = BK_SCHEME_AES_KW, .id = {{1, 2, 3, 4}, 4}, .uri = NULL};
    char uri[] = TOKEN_URI ";object=key";

    pub.uri = uri;
    if (says(how, "otherkey"))
        pub.id.bytes[0] = 9;
    if (says(how, "forged")) {
        pub.type = BK_KEY_P256;
        pub.scheme = BK_SCHEME_ECDH_P256;
        pub.spki = spki;
        pub.spki_len = sizeof spki;
    }
    if (says(how, "bare"))
        pub.type = BK_KEY_P256;
    if (c->in.type != WIRE_PUBLIC) {
        wire_put_u32(&c->out, 0);
        wire_put_u32(&c->out, 0);
        wire_put_u32(&c->out, 1);
    }
    wire_put_public(&c->out, &pub);
}

static void
put_token(struct conn *c, const char *how)
{
    wire_put_u32(&c->out, 1);
    wire_put_u32(&c->out, 1);
    wire_put_u32(&c->out, 0);
    wire_put_text(&c->out, says(how, "steering") ? "fake\033[2Jtoken" : TOKEN);
    wire_put_text(&c->out, "1");
    wire_put_text(&c->out, "token 'fake token'");
    wire_put_text(&c->out, TOKEN_URI);
}

static void
put_wrapped(struct conn *c, const char *how)
{
    struct bk_wrapped w = {.scheme = BK_SCHEME_AES_KW, .id = {{1, 2, 3, 4}, 4}, .len = BK_AESKW_LEN};

    if (says(how, "otherid"))
        w.id.bytes[0] = 9;
    if (says(how, "otherscheme"))
        w.scheme = BK_SCHEME_ECDH_P256;
    if (says(how, "otherlen"))
        w.len = 0;
    if (c->in.secret.len == BK_CEK_LEN)
        memcpy(w.data, c->in.secret.data, BK_CEK_LEN);
    wire_put_wrapped(&c->out, &w);
}

/* 1 if the program wants more. */
static int
send_item(struct conn *c, const char *how)
{
    const struct p11_item item = {.token_label = TOKEN,
                                  .token_serial = "1",
                                  .token_model = "",
                                  .module_name = "fake",
                                  .class_name = "secret key",
                                  .label = says(how, "steering") ? "a\033[2J\nb" : "key",
                                  .id_hex = "01020304",
                                  .made = says(how, "steering") ? "2027\033[2J" : NULL};

    wire_begin(&c->event, WIRE_ITEM);
    wire_put_item(&c->event, &item);
    if (wire_send(c->fd, &c->event, NULL, NULL) != BK_OK)
        _exit(0);
    if (says(how, "deafitems"))
        return 1;
    return wire_receive(c->fd, &c->answer, NULL) == BK_OK && c->answer.type == WIRE_GO_ON;
}

static void
add_result(struct conn *c, const char *how)
{
    switch (c->in.type) {
    case WIRE_MODULES:
        wire_put_u32(&c->out, 1);
        wire_put_text(&c->out, "fake");
        wire_put_text(&c->out, "/fake.so");
        wire_put_u32(&c->out, 1);
        return;
    case WIRE_MATCH:
        put_token(c, how);
        return;
    case WIRE_FIND_KEY:
        wire_put_u32(&c->out, 1);
        wire_put_u32(&c->out, 0);
        put_key(c, how);
        return;
    case WIRE_OPEN_KEY:
    case WIRE_GENERATE:
    case WIRE_PUBLIC:
        put_key(c, how);
        return;
    case WIRE_WRAP:
        put_wrapped(c, how);
        return;
    case WIRE_REWRAP:
        put_wrapped(c, how);
        wire_put_u32(&c->out, 0); /* neither key is one that the token guards */
        wire_put_u32(&c->out, 0);
        return;
    case WIRE_UNWRAP:
        if (bk_secret_alloc(&c->secret, says(how, "shortcek") ? 31 : BK_CEK_LEN, NULL) != BK_OK)
            _exit(99);
        return;
    case WIRE_LIST:
        wire_put_u32(&c->out, !send_item(c, how));
        return;
    case WIRE_IS_OPEN:
    case WIRE_SHOWS_OBJECT:
    case WIRE_SHOWS_KEY:
    case WIRE_SAME_LOGIN:
        wire_put_u32(&c->out, 1);
        return;
    default:
        return;
    }
}

/* -- what others do -------------------------------------------------------------------------------------------------
 */

static void
keep_telling(struct conn *c, const char *how)
{
    for (;;) {
        wire_begin(&c->event, WIRE_WARN);
        wire_put_text(&c->event, "again");
        if (says(how, "items") || says(how, "deafitems"))
            (void)send_item(c, how);
        else if (wire_send(c->fd, &c->event, NULL, NULL) != BK_OK)
            sleep_forever();
        if (says(how, "slowwarns"))
            nap(20);
    }
}

static void
be_slow(struct conn *c, const char *how)
{
    int calls = says(how, "manycalls");

    enter(c, "C_Sign");
    for (int i = 0; i < (calls ? 16 : 8); i++) {
        nap(100);
        if (calls)
            enter(c, "C_FindObjects");
    }
    leave(c);
}

/* Ends, or never ends, in the midst of a request. 0 if it did neither. */
static int
end_badly(struct conn *c, const char *how)
{
    if (says(how, "segv") || says(how, "abrt") || says(how, "exit3") || says(how, "hang"))
        enter(c, says(how, "hang") || says(how, "segv") ? "C_Sign" : "C\033\n");
    if (says(how, "segv"))
        die(SIGSEGV);
    if (says(how, "abrt"))
        die(SIGABRT);
    if (says(how, "exit3"))
        _exit(3);
    if (says(how, "hang") || says(how, "still"))
        sleep_forever();
    if (says(how, "deadsecret") || says(how, "nosecret"))
        header(c, WIRE_DONE, BK_CEK_LEN);
    if (says(how, "deadsecret"))
        _exit(3);
    if (says(how, "nosecret"))
        sleep_forever();
    if (strstr(how, "warns") != NULL || strstr(how, "items") != NULL)
        keep_telling(c, how);
    return 0;
}

/* 1 if that was the answer. */
static int
answer_oddly(struct conn *c, const char *how)
{
    static uint8_t much[WIRE_MAX + 1];

    if (says(how, "garbage")) {
        raw(c, "abc", 3);
    } else if (says(how, "type")) {
        header(c, 999, 0);
    } else if (says(how, "request")) {
        header(c, WIRE_WRAP, 0);
    } else if (says(how, "half")) {
        raw(c, (const uint8_t[]){0, WIRE_DONE, 0, 0, 0}, 5);
    } else if (says(how, "toolong")) {
        much[1] = WIRE_DONE;
        raw(c, much, sizeof much);
    } else if (says(how, "latesecret")) {
        header(c, WIRE_DONE, BK_CEK_LEN);
        nap(400);
        raw(c, much, BK_CEK_LEN);
    } else if (says(how, "hangup")) {
        (void)shutdown(c->fd, SHUT_RDWR);
    } else if (strncmp(how, "pin", 3) == 0) {
        ask_oddly(c, how);
    } else if (says(how, "tokenerror")) {
        fail(c, BK_E_TOKEN, "an ordinary error", 0);
    } else {
        return 0;
    }
    return 1;
}

static void
serve_request(struct conn *c)
{
    const char *how = action((int)c->in.type);
    char type[16];

    (void)snprintf(type, sizeof type, "%u", (unsigned)c->in.type);
    note(type, "");
    if (end_badly(c, how) || answer_oddly(c, how))
        return;
    if (says(how, "slow") || says(how, "manycalls"))
        be_slow(c, how);
    if (c->in.type == WIRE_OPEN_KEY || c->in.type == WIRE_FIND_KEY || c->in.type == WIRE_PUBLIC ||
        c->in.type == WIRE_GENERATE) {
        int in;

        (void)pthread_mutex_lock(&login_lock);
        in = log_in(c, how);
        (void)pthread_mutex_unlock(&login_lock);
        if (!in)
            return;
    }
    wire_begin(&c->out, WIRE_DONE);
    wire_put_u32(&c->out, BK_OK);
    add_result(c, how);
    if (says(how, "more"))
        wire_put_u32(&c->out, 0);
    if (says(how, "less"))
        c->out.body.len--;
    done(c);
}

static void *
serve(void *arg)
{
    struct conn *c = arg;

    while (wire_receive(c->fd, &c->in, NULL) == BK_OK) {
        serve_request(c);
        bk_secret_wipe(&c->secret);
    }
    (void)close(c->fd);
    wire_in_free(&c->in);
    wire_in_free(&c->answer);
    bk_buf_free(&c->out.body);
    bk_buf_free(&c->event.body);
    free(c);
    return NULL;
}

/* 0 at the end of the program. */
static int
next(int *fd, uint8_t *slot)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec byte = {slot, 1};
    struct msghdr m = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control};
    ssize_t n;

    while ((n = recvmsg(WATCH_CONTROL_FD, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (n != 1 || CMSG_FIRSTHDR(&m) == NULL)
        return 0;
    memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof *fd);
    return 1;
}

static void
open_log(void)
{
    const char *folder = getenv("FAKE_FOLDER");
    char path[256];
    struct stat st;
    int fd;

    (void)snprintf(path, sizeof path, "%s/lives", folder == NULL ? "/nowhere" : folder);
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, "x", 1) != 1 || fstat(fd, &st) != 0) {
        perror(path);
        _exit(98);
    }
    life = (unsigned)st.st_size;
    (void)close(fd);
    (void)snprintf(path, sizeof path, "%s/log", folder);
    log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

int
main(int argc, char **argv)
{
    const char *how;
    sigset_t none;
    uint8_t slot = 0;
    int locked = 0;
    int fd = -1;

    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (argc != 3 || bk_secret_init(&locked, NULL) != BK_OK)
        return 2;
    open_log();
    limit_ms = (unsigned)strtoul(argv[1], NULL, 10) * 1000;
    watch = mmap(NULL, sizeof *watch, PROT_READ | PROT_WRITE, MAP_SHARED, WATCH_MEMORY_FD, 0);
    if (watch == MAP_FAILED)
        return 2;
    how = action(0);
    if (says(how, "exit3"))
        _exit(3);
    if (says(how, "truncate") && ftruncate(WATCH_MEMORY_FD, 0) != 0)
        note("truncate ", "was refused");
    if (says(how, "deaf"))
        sleep_forever();
    while (next(&fd, &slot)) {
        struct conn *c = calloc(1, sizeof *c);
        pthread_t thread;

        if (c == NULL || slot >= WATCH_SLOTS)
            _exit(97);
        c->fd = fd;
        c->slot = &watch->slots[slot];
        if (pthread_create(&thread, NULL, serve, c) != 0 || pthread_detach(thread) != 0)
            _exit(96);
    }
    if (says(how, "noend"))
        sleep_forever();
    _exit(says(how, "end8") ? 8 : 0);
}
