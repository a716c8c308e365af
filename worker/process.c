#include "worker/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/spawn.h"
#include "worker/watch.h"

#define NAME "bk-token-worker"

/* How often a thread that waits looks at what the worker does. */
#define TICK_MS 100
/* How long an answer is waited for before this thread goes to sleep. */
#define LINGER_US 400
/* How long the worker may do nothing at all outside of the module's calls. */
#define STILL_MS 60000
/* How long a call may still take after a request to stop. */
#define CANCEL_MS 3000
/* How long a worker may leave unread what it is sent; it never does for long. */
#define UNREAD_S 3
/* How long logging out and finalizing may take: all work is done by then. */
#define END_MS 10000
/* How long a process whose socket has closed may take to be dead. */
#define DEATH_MS 2000

struct process {
    struct process_options options;
    pid_t pid;
    int pidfd; /* -1 where the kernel has none */
    int control;
    struct watch *watch;
    pthread_mutex_t lock;    /* over what follows */
    struct connection *idle; /* connections that nobody uses */
    uint64_t slots;          /* a bit for each slot that is in use */
    int reaped, status;      /* of waitpid */
    struct bk_err why;       /* we ended it; BK_OK: we did not */
    atomic_int gone, died_in_login, paused;
};

_Static_assert(WATCH_SLOTS == 64, "a bit of process.slots for each");

/* --- start -------------------------------------------------------------------------------------------------------- */

/* Beside the program, as in a folder of a build, or in ../libexec/bk, as it is installed. Never from PATH: whoever
 * chooses this file sees PINs. */
static enum bk_code
find_program(char *out, size_t room, struct bk_err *err)
{
    static const char *const places[] = {"/" NAME, "/../libexec/bk/" NAME};
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash;

    if (n < 0)
        return bk_fail_errno(err, errno, "/proc/self/exe, beside which %s lies", NAME);
    self[n] = '\0';
    if ((slash = strrchr(self, '/')) != NULL)
        *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        int len = snprintf(out, room, "%s%s", self, places[i]);

        if (len > 0 && (size_t)len < room && access(out, X_OK) == 0)
            return BK_OK;
    }
    return bk_fail(err, BK_E_TOKEN, "%s, which talks to tokens, is neither in %s nor in %s/../libexec/bk", NAME, self,
                   self);
}

static enum bk_code
make_watch(struct process *p, int *fd, struct bk_err *err)
{
    void *at;

    *fd = memfd_create("bk-watch", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    /* sealed, for memory that the worker cuts off would end the program that looks at it */
    if (*fd < 0 || ftruncate(*fd, sizeof(struct watch)) != 0 ||
        fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return bk_fail_errno(err, errno, "memory to watch a token's process by");
    at = mmap(NULL, sizeof(struct watch), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (at == MAP_FAILED)
        return bk_fail_errno(err, errno, "memory to watch a token's process by");
    p->watch = at;
    return BK_OK;
}

static enum bk_code
spawn(struct process *p, const char *program, int memory, int socket, struct bk_err *err)
{
    char timeout[16];
    char *argv[] = {(char *)NAME, timeout, program_invocation_short_name,
                    p->options.raw_rsa ? (char *)WORKER_RAW_RSA : NULL, NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    /* what a module prints must not get into an archive, nor may it read the backup */
    struct bk_spawn_fd fds[] = {
        {null, STDIN_FILENO}, {null, STDOUT_FILENO}, {socket, WATCH_CONTROL_FD}, {memory, WATCH_MEMORY_FD}};
    sigset_t all;
    int rc;

    if (null < 0)
        return bk_fail_errno(err, errno, "/dev/null");
    (void)snprintf(timeout, sizeof timeout, "%u", p->options.timeout_s);
    (void)sigfillset(&all); /* until the worker has said which it ignores */
    rc = bk_spawn(program, argv, fds, 4, &all, &p->pid);
    (void)close(null);
    if (rc != 0)
        return bk_fail_errno(err, rc, "starting %s", program);
    p->pidfd = pidfd_open(p->pid, 0);
    return BK_OK;
}

/* A number that fds[].theirs of spawn cannot meet. */
static int
move_up(int fd)
{
    int up = fcntl(fd, F_DUPFD_CLOEXEC, WATCH_MEMORY_FD + 1);

    (void)close(fd);
    return up;
}

static enum bk_code
start(struct process *p, struct bk_err *err)
{
    char program[4200];
    int ends[2] = {-1, -1};
    int memory = -1;
    enum bk_code rc = BK_OK;

    if (p->options.program == NULL)
        rc = find_program(program, sizeof program, err);
    if (rc == BK_OK)
        rc = make_watch(p, &memory, err);
    if (rc == BK_OK && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        rc = bk_fail_errno(err, errno, "a socket to a token's process");
    if (rc == BK_OK && ((memory = move_up(memory)) < 0 || (ends[1] = move_up(ends[1])) < 0))
        rc = bk_fail_errno(err, errno, "a descriptor for a token's process");
    if (rc == BK_OK)
        rc = spawn(p, p->options.program == NULL ? program : p->options.program, memory, ends[1], err);
    if (memory >= 0)
        (void)close(memory);
    if (ends[1] >= 0)
        (void)close(ends[1]);
    p->control = ends[0];
    return rc;
}

static void
process_free(struct process *p)
{
    while (p->idle != NULL) {
        struct connection *c = p->idle;

        p->idle = c->next;
        (void)close(c->fd);
        free(c);
    }
    if (p->control >= 0)
        (void)close(p->control);
    if (p->pidfd >= 0)
        (void)close(p->pidfd);
    if (p->watch != NULL)
        (void)munmap(p->watch, sizeof *p->watch);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

enum bk_code
process_start(const struct process_options *options, struct process **out, struct bk_err *err)
{
    struct process *p = calloc(1, sizeof *p);
    enum bk_code rc;

    if (p == NULL || pthread_mutex_init(&p->lock, NULL) != 0) {
        free(p);
        return bk_fail_nomem(err);
    }
    p->options = *options;
    p->pid = -1;
    p->pidfd = -1;
    p->control = -1;
    if ((rc = start(p, err)) != BK_OK)
        process_free(p);
    else
        *out = p;
    return rc;
}

/* --- end ---------------------------------------------------------------------------------------------------------- */

/* 1 if it has ended within that time. */
static int
await(struct process *p, int ms)
{
    const struct timespec tick = {.tv_nsec = 10000000L};

    if (p->pidfd >= 0) {
        struct pollfd wait = {.fd = p->pidfd, .events = POLLIN};
        int n;

        while ((n = poll(&wait, 1, ms)) < 0 && errno == EINTR)
            ;
        return n > 0;
    }
    for (int waited = 0;; waited += 10) {
        siginfo_t info = {0};

        if (waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == p->pid)
            return 1;
        if (waited >= ms)
            return 0;
        (void)nanosleep(&tick, NULL);
    }
}

/* Whatever ends it: a login that was refused, or is under way, must not be made anew. */
static void
note_login(struct process *p)
{
    if (atomic_load(&p->watch->login_failed) != 0)
        atomic_store(&p->died_in_login, 1);
    for (size_t i = 0; i < WATCH_SLOTS; i++)
        if (atomic_load(&p->watch->slots[i].limit_ms) != 0 && strncmp(p->watch->slots[i].call, "C_Login", 7) == 0)
            atomic_store(&p->died_in_login, 1);
}

/* Under the lock. Whoever sees first that it is dead, or must be, ends it for all. */
static void
reap(struct process *p, int patience_ms)
{
    if (p->reaped)
        return;
    if (patience_ms == 0 || !await(p, patience_ms))
        (void)kill(p->pid, SIGKILL);
    (void)bk_reap(p->pid, &p->status, 0);
    note_login(p);
    p->reaped = 1;
    atomic_store(&p->gone, 1);
}

/* 1 if it has ended by itself within the time for that. A request to stop makes it short. */
static int
has_ended(struct process *p)
{
    uint64_t call_ms = (uint64_t)p->options.timeout_s * 1000 + CANCEL_MS;
    uint64_t end_ms = call_ms < END_MS ? call_ms : END_MS;
    int stop_ms = 0;

    for (uint64_t ms = 0; ms < end_ms && stop_ms < CANCEL_MS; ms += TICK_MS) {
        if (await(p, TICK_MS))
            return 1;
        stop_ms += bk_cancelled(p->options.cancel) ? TICK_MS : 0;
    }
    return 0;
}

void
process_end(struct process *p, int *status)
{
    if (p == NULL)
        return;
    while (p->idle != NULL) {
        struct connection *c = p->idle;

        p->idle = c->next;
        (void)close(c->fd);
        free(c);
    }
    (void)close(p->control);
    p->control = -1;
    if (!p->reaped)
        (void)has_ended(p);
    reap(p, 0);
    *status = p->status;
    process_free(p);
}

/* --- connections -------------------------------------------------------------------------------------------------- */

static enum bk_code
send_descriptor(int control, uint8_t slot, int fd)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control_room = {{0}};
    struct iovec byte = {&slot, 1};
    struct msghdr message = {.msg_iov = &byte,
                             .msg_iovlen = 1,
                             .msg_control = control_room.room,
                             .msg_controllen = sizeof control_room.room};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    ssize_t n;

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    while ((n = sendmsg(control, &message, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    return n == 1 ? BK_OK : BK_E_IO;
}

/* If the worker is dead the descriptor goes nowhere, and the first message finds that out. */
static enum bk_code
connect_new(struct process *p, unsigned slot, struct connection **out, struct bk_err *err)
{
    const struct timeval tick = {.tv_usec = TICK_MS * 1000L};
    const struct timeval unread = {.tv_sec = UNREAD_S};
    struct connection *c = calloc(1, sizeof *c);
    int ends[2];

    if (c == NULL)
        return bk_fail_nomem(err);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        free(c);
        return bk_fail_errno(err, errno, "a socket to a token's process");
    }
    (void)send_descriptor(p->control, (uint8_t)slot, ends[1]);
    (void)close(ends[1]);
    *c = (struct connection){.fd = ends[0], .slot = slot};
    if (setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick) != 0 ||
        setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &unread, sizeof unread) != 0) {
        (void)close(c->fd);
        free(c);
        return bk_fail_errno(err, errno, "a socket to a token's process");
    }
    *out = c;
    return BK_OK;
}

enum bk_code
process_connect(struct process *p, struct connection **out, struct bk_err *err)
{
    unsigned slot = 0;
    enum bk_code rc = BK_OK;

    pthread_mutex_lock(&p->lock);
    if (p->idle != NULL) {
        *out = p->idle;
        p->idle = p->idle->next;
    } else {
        while (slot < WATCH_SLOTS && (p->slots >> slot & 1) != 0)
            slot++;
        if (slot == WATCH_SLOTS)
            rc = bk_fail(err, BK_E_INTERNAL, "more than %d threads use one token", WATCH_SLOTS);
        else
            rc = connect_new(p, slot, out, err);
        if (rc == BK_OK)
            p->slots |= (uint64_t)1 << slot;
    }
    pthread_mutex_unlock(&p->lock);
    if (rc == BK_OK)
        (*out)->stop_ms = 0;
    return rc;
}

void
process_release(struct process *p, struct connection *c, int good)
{
    pthread_mutex_lock(&p->lock);
    if (good && !atomic_load(&p->gone)) {
        c->next = p->idle;
        p->idle = c;
    } else {
        /* its slot may still be written to by a worker that does not know yet, so it is not used again */
        (void)close(c->fd);
        free(c);
    }
    pthread_mutex_unlock(&p->lock);
}

/* --- death -------------------------------------------------------------------------------------------------------- */

/* " in C_Sign", or nothing. */
static void
in_call(const struct watch_slot *slot, char *out, size_t room)
{
    char call[sizeof slot->call];

    memcpy(call, slot->call, sizeof call);
    call[sizeof call - 1] = '\0';
    for (char *c = call; *c != '\0'; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    (void)snprintf(out, room, "%s%s", atomic_load(&slot->limit_ms) != 0 && call[0] != '\0' ? " in " : "",
                   atomic_load(&slot->limit_ms) != 0 ? call : "");
}

static void
hint_broken(struct bk_err *err)
{
    bk_err_hint(err, "this is the module's failure, or its token's: see its own log, and whether the token answers "
                     "its vendor's tools");
}

static enum bk_code
fail_dead(struct process *p, const struct connection *c, struct bk_err *err)
{
    struct bk_err own = {0};
    char in[64];
    enum bk_code rc;

    pthread_mutex_lock(&p->lock);
    in_call(&p->watch->slots[c->slot], in, sizeof in);
    reap(p, DEATH_MS);
    if (p->why.code != BK_OK) {
        own = p->why;
        rc = own.code;
    } else if (WIFSIGNALED(p->status)) {
        rc = bk_fail(&own, BK_E_TOKEN, "the module crashed%s: signal %d, %s", in, WTERMSIG(p->status),
                     strsignal(WTERMSIG(p->status)));
        hint_broken(&own);
    } else {
        rc = bk_fail(&own, BK_E_TOKEN, "the module ended its process%s, with status %d", in, WEXITSTATUS(p->status));
        hint_broken(&own);
    }
    pthread_mutex_unlock(&p->lock);
    if (err != NULL)
        *err = own;
    return rc;
}

/* Ends it, and all who use it hear why, unless it was dead already. */
static enum bk_code
end_for(struct process *p, const struct bk_err *why, struct bk_err *err)
{
    enum bk_code rc = why->code;

    pthread_mutex_lock(&p->lock);
    if (!p->reaped)
        p->why = *why;
    reap(p, 0);
    pthread_mutex_unlock(&p->lock);
    if (err != NULL)
        *err = *why;
    return rc;
}

static enum bk_code
end_hung(struct process *p, const struct connection *c, struct bk_err *err)
{
    struct bk_err why = {0};
    char in[64];

    in_call(&p->watch->slots[c->slot], in, sizeof in);
    (void)!bk_fail(&why, BK_E_TOKEN, "%s did not return in time, so that the module's process was ended",
                   in[0] != '\0' ? in + 4 : "the module's process");
    hint_broken(&why);
    return end_for(p, &why, err);
}

enum bk_code
process_distrust(struct process *p, const struct bk_err *why, struct bk_err *err)
{
    struct bk_err told = {0};

    (void)!bk_fail(&told, BK_E_TOKEN, "the module's process was ended: %s", why->message);
    hint_broken(&told);
    return end_for(p, &told, err);
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

/* What a waiting thread has seen so far. Time is counted in ticks of ours, so that a program that was stopped (Ctrl-Z)
 * takes nobody for dead when it goes on. */
struct vigil {
    unsigned step, sum;
    unsigned call_ms, still_ms;
};

static int
worker_is_still(const struct process *p, struct vigil *v)
{
    unsigned sum = 0;
    int in_a_call = 0;

    for (size_t i = 0; i < WATCH_SLOTS; i++) {
        sum += atomic_load(&p->watch->slots[i].step);
        in_a_call |= atomic_load(&p->watch->slots[i].limit_ms) != 0;
    }
    v->still_ms = sum == v->sum && !in_a_call && !atomic_load(&p->paused) ? v->still_ms + TICK_MS : 0;
    v->sum = sum;
    return v->still_ms >= STILL_MS;
}

static int
call_is_overdue(const struct watch_slot *slot, struct vigil *v)
{
    unsigned step = atomic_load(&slot->step);
    unsigned limit = atomic_load(&slot->limit_ms);

    v->call_ms = step == v->step ? v->call_ms + TICK_MS : 0;
    v->step = step;
    return limit != 0 && v->call_ms >= limit;
}

static uint64_t
now_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* BK_E_CANCELLED, after a while, ends the worker: it may be in the midst of anything. That while is the whole
 * request's, of however many messages. */
static enum bk_code
check_cancelled(struct process *p, struct connection *c, struct bk_err *err)
{
    struct bk_err why = {0};

    if (!bk_cancelled(p->options.cancel))
        return BK_OK;
    if (c->stop_ms == 0)
        c->stop_ms = now_ms();
    if (now_ms() - c->stop_ms < CANCEL_MS)
        return BK_OK;
    (void)!bk_fail(&why, BK_E_CANCELLED, "stopped while a call of the token was under way");
    return end_for(p, &why, err);
}

enum bk_code
process_receive(struct process *p, struct connection *c, struct wire_in *in, struct bk_err *err)
{
    const struct watch_slot *slot = &p->watch->slots[c->slot];
    struct vigil v = {0};
    struct bk_err own = {0};
    enum bk_code rc;

    wire_linger(c->fd, LINGER_US);
    for (;;) {
        rc = wire_receive(c->fd, in, &own);
        if (rc == BK_OK)
            return in->type == WIRE_DONE ? BK_OK : check_cancelled(p, c, err);
        if (rc == BK_E_INCOMPLETE)
            return fail_dead(p, c, err);
        if (rc == BK_E_NO_ROOM) {
            if (err != NULL)
                *err = own;
            return rc;
        }
        if (rc != BK_E_CANCELLED)
            return process_distrust(p, &own, err);
        if (call_is_overdue(slot, &v) || worker_is_still(p, &v))
            return end_hung(p, c, err);
        if ((rc = check_cancelled(p, c, err)) != BK_OK)
            return rc;
    }
}

enum bk_code
process_send(struct process *p, struct connection *c, struct wire_out *o, const struct bk_secret *secret,
             struct bk_err *err)
{
    struct bk_err own = {0};
    enum bk_code rc = wire_send(c->fd, o, secret, &own);

    if (rc == BK_E_IO)
        return fail_dead(p, c, err);
    if (rc == BK_E_FORMAT)
        return process_distrust(p, &own, err);
    if (rc != BK_OK && err != NULL)
        *err = own;
    return rc;
}

void
process_pause(struct process *p, int on)
{
    atomic_fetch_add(&p->paused, on ? 1 : -1);
}

int
process_look(struct process *p)
{
    pthread_mutex_lock(&p->lock);
    if (!p->reaped && await(p, 0))
        reap(p, 0);
    pthread_mutex_unlock(&p->lock);
    return process_is_gone(p);
}

int
process_is_gone(const struct process *p)
{
    return atomic_load(&p->gone);
}

int
process_died_in_login(const struct process *p)
{
    return atomic_load(&p->died_in_login);
}
