#include "tests/nth/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/keys.h"

static struct nth_plan plan;
static atomic_ulong seen;
static _Atomic(const char *) hit;
static atomic_ulong secrets;           /* bytes of them that were not wiped */
static atomic_long sessions;           /* that the module gave and did not get back */
static _Thread_local unsigned in_call; /* of a module: what OpenSSL allocates then is the module's own */
static const char *prefix = "";        /* of this process's reports */

void
nth_arm(const struct nth_plan *p)
{
    plan = *p;
    atomic_store(&seen, 0);
    atomic_store(&hit, NULL);
}

void
nth_disarm(void)
{
    plan = (struct nth_plan){0};
}

unsigned long
nth_seen(void)
{
    return atomic_load(&seen);
}

long
nth_sessions(void)
{
    return atomic_load(&sessions);
}

void
nth_session(int opened)
{
    atomic_fetch_add(&sessions, opened ? 1 : -1);
}

void
nth_module(int entered)
{
    if (entered)
        in_call++;
    else if (in_call > 0)
        in_call--;
}

unsigned long
nth_value(void)
{
    return plan.value;
}

size_t
nth_secrets(void)
{
    return atomic_load(&secrets);
}

const char *
nth_hit(void)
{
    return atomic_load(&hit);
}

/* By the system call itself: a report must not be counted, nor fail. One call, since several processes write. */
void
nth_report(const char *line)
{
    const char *path = getenv("BK_NTH_REPORT");
    char whole[160];
    long fd;

    if (path == NULL)
        return;
    (void)snprintf(whole, sizeof whole, "%s%s\n", prefix, line);
    fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    (void)syscall(SYS_write, (int)fd, whole, strlen(whole));
    (void)syscall(SYS_close, (int)fd);
}

void
nth_die(void)
{
    (void)syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        (void)pause();
}

/* What is to happen to this call: NTH_OFF for all but the nth. */
enum nth_action
nth_admit(enum nth_class class, const char *name)
{
    if ((plan.classes & class) == 0 || atomic_fetch_add(&seen, 1) + 1 != plan.at || plan.action == NTH_OFF)
        return NTH_OFF;
    atomic_store(&hit, name);
    nth_report(name);
    if (plan.action == NTH_BEFORE)
        nth_die();
    return plan.action;
}

static int
failing_errno(enum nth_action action)
{
    return action == NTH_SHORT ? EINTR : plan.value == 0 ? EIO : (int)plan.value;
}

void
nth_arm_by(const char *variable, const char *reports)
{
    static const struct {
        const char *name;
        enum nth_action action;
    } actions[] = {
        {"fail", NTH_FAIL}, {"short", NTH_SHORT}, {"before", NTH_BEFORE}, {"after", NTH_AFTER}, {"within", NTH_WITHIN}};
    const char *text = getenv(variable);
    char action[16], classes[64];
    struct nth_plan p = {0};

    prefix = reports;
    if (text == NULL || sscanf(text, "%15[^:]:%63[^:]:%lu:%lu", action, classes, &p.at, &p.value) < 3)
        return;
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (strcmp(action, actions[i].name) == 0)
            p.action = actions[i].action;
    p.classes = (strstr(classes, "disk") ? NTH_DISK : 0u) | (strstr(classes, "system") ? NTH_SYSTEM : 0u) |
                (strstr(classes, "memory") ? NTH_MEMORY : 0u) | (strstr(classes, "token") ? NTH_TOKEN : 0u) |
                (strstr(classes, "library") ? NTH_LIBRARY : 0u);
    nth_arm(&p);
}

void *__real_malloc(size_t n);
void *__real_realloc(void *p, size_t n);

/* Modules use OpenSSL too, in the same process, and are not what is tested. */
static int
openssl_fails(const char *name)
{
    return in_call == 0 && nth_admit(NTH_LIBRARY, name) != NTH_OFF;
}

static void *
openssl_malloc(size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    return openssl_fails("OpenSSL malloc") ? NULL : __real_malloc(n);
}

static void *
openssl_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    return openssl_fails("OpenSSL realloc") ? NULL : __real_realloc(p, n);
}

static void
openssl_free(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    free(p);
}

/* Before OpenSSL allocates anything, else it would refuse. */
__attribute__((constructor)) static void
install(void)
{
    (void)CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free);
}

/* --- the record of what the disk was told --- */

static pthread_mutex_t trace_lock = PTHREAD_MUTEX_INITIALIZER;
static struct nth_trace trace;
static char recorded[PATH_MAX];

static int
path_of(int fd, char out[PATH_MAX])
{
    char link[64];
    ssize_t n;

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, out, PATH_MAX - 1);
    out[n < 0 ? 0 : n] = '\0';
    return n > 0 && strncmp(out, recorded, strlen(recorded)) == 0;
}

static void
absolute(int folder, const char *path, char out[PATH_MAX])
{
    size_t used = 0;

    out[0] = '\0';
    if (path[0] != '/' && folder == AT_FDCWD && getcwd(out, PATH_MAX) == NULL)
        out[0] = '\0';
    if (path[0] != '/' && folder != AT_FDCWD)
        (void)path_of(folder, out);
    if (path[0] != '/')
        used = strlen(out);
    (void)snprintf(out + used, PATH_MAX - used, "%s%s", path[0] == '/' ? "" : "/", path);
}

static void
record(enum nth_disk_op op, const char *path, const char *to, long offset, const void *data, size_t len)
{
    struct nth_event *e;

    if (recorded[0] == '\0' || strncmp(path, recorded, strlen(recorded)) != 0)
        return;
    pthread_mutex_lock(&trace_lock);
    trace.events = __real_realloc(trace.events, (trace.count + 1) * sizeof *trace.events);
    e = &trace.events[trace.count++];
    *e = (struct nth_event){.op = op, .offset = offset, .len = len};
    e->path = __real_malloc(strlen(path) + 1);
    strcpy(e->path, path);
    if (to != NULL) {
        e->to = __real_malloc(strlen(to) + 1);
        strcpy(e->to, to);
    }
    if (len > 0) {
        e->data = __real_malloc(len);
        memcpy(e->data, data, len);
    }
    pthread_mutex_unlock(&trace_lock);
}

static void
record_fd(enum nth_disk_op op, int fd, long offset, const void *data, size_t len)
{
    char path[PATH_MAX];

    if (recorded[0] != '\0' && path_of(fd, path))
        record(op, path, NULL, offset, data, len);
}

void
nth_record(const char *folder)
{
    (void)snprintf(recorded, sizeof recorded, "%s", folder);
}

void
nth_record_end(struct nth_trace *out)
{
    recorded[0] = '\0';
    *out = trace;
    trace = (struct nth_trace){0};
}

void
nth_trace_free(struct nth_trace *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->events[i].path);
        free(t->events[i].to);
        free(t->events[i].data);
    }
    free(t->events);
    *t = (struct nth_trace){0};
}

/* --- calls that answer -1 and errno --- */

/* ARGS are the parameters with their types, PASS their names. */
#define WRAP_INT(class, name, ARGS, PASS)                                                                              \
    int __real_##name ARGS;                                                                                            \
    int __wrap_##name ARGS;                                                                                            \
    int __wrap_##name ARGS                                                                                             \
    {                                                                                                                  \
        enum nth_action action = nth_admit(class, #name);                                                              \
        int n;                                                                                                         \
                                                                                                                       \
        if (action == NTH_FAIL || action == NTH_SHORT) {                                                               \
            errno = failing_errno(action);                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        if (action == NTH_WITHIN)                                                                                      \
            nth_die();                                                                                                 \
        n = __real_##name PASS;                                                                                        \
        if (action == NTH_AFTER)                                                                                       \
            nth_die();                                                                                                 \
        return n;                                                                                                      \
    }

WRAP_INT(NTH_SYSTEM, fstat64, (int fd, struct stat64 *st), (fd, st))
WRAP_INT(NTH_SYSTEM, stat64, (const char *path, struct stat64 *st), (path, st))
WRAP_INT(NTH_SYSTEM, lstat64, (const char *path, struct stat64 *st), (path, st))
WRAP_INT(NTH_SYSTEM, flock, (int fd, int how), (fd, how))
WRAP_INT(NTH_SYSTEM, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP_INT(NTH_SYSTEM, posix_fadvise64, (int fd, off64_t at, off64_t len, int advice), (fd, at, len, advice))
WRAP_INT(NTH_DISK, fallocate64, (int fd, int mode, off64_t at, off64_t len), (fd, mode, at, len))
WRAP_INT(NTH_DISK, sync_file_range, (int fd, off64_t at, off64_t len, unsigned flags), (fd, at, len, flags))
WRAP_INT(NTH_SYSTEM, eventfd, (unsigned first, int flags), (first, flags))
WRAP_INT(NTH_SYSTEM, pipe2, (int fds[2], int flags), (fds, flags))
WRAP_INT(NTH_SYSTEM, socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds))
WRAP_INT(NTH_SYSTEM, poll, (struct pollfd * fds, nfds_t count, int ms), (fds, count, ms))
WRAP_INT(NTH_SYSTEM, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP_INT(NTH_SYSTEM, ftruncate64, (int fd, off64_t len), (fd, len))
WRAP_INT(NTH_SYSTEM, pidfd_open, (pid_t pid, unsigned flags), (pid, flags))
WRAP_INT(NTH_SYSTEM, access, (const char *path, int how), (path, how))
WRAP_INT(NTH_SYSTEM, setsockopt, (int fd, int level, int name, const void *value, socklen_t len),
         (fd, level, name, value, len))
WRAP_INT(NTH_SYSTEM, getsockopt, (int fd, int level, int name, void *value, socklen_t *len),
         (fd, level, name, value, len))

/* A descriptor is closed also when close(2) fails: Linux, close(2), "Dealing with error returns". */
int __real_close(int fd);
int __wrap_close(int fd);
int
__wrap_close(int fd)
{
    enum nth_action action = nth_admit(NTH_SYSTEM, "close");
    int n = __real_close(fd);

    if (action == NTH_FAIL || action == NTH_SHORT) {
        errno = failing_errno(action);
        return -1;
    }
    if (action == NTH_AFTER || action == NTH_WITHIN)
        nth_die();
    return n;
}

int __real_fcntl64(int fd, int what, ...);
int __wrap_fcntl64(int fd, int what, ...);
int
__wrap_fcntl64(int fd, int what, ...)
{
    enum nth_action action = nth_admit(NTH_SYSTEM, "fcntl");
    va_list args;
    long value;

    if (action == NTH_FAIL || action == NTH_SHORT) {
        errno = failing_errno(action);
        return -1;
    }
    va_start(args, what);
    value = va_arg(args, long);
    va_end(args);
    return __real_fcntl64(fd, what, value);
}

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int
__wrap_open64(const char *path, int flags, ...)
{
    enum nth_action action = nth_admit((flags & O_CREAT) != 0 ? NTH_DISK : NTH_SYSTEM, "open");
    mode_t mode = 0;
    char whole[PATH_MAX];
    int fd;

    if (action == NTH_FAIL || action == NTH_SHORT) {
        errno = failing_errno(action);
        return -1;
    }
    if ((flags & O_CREAT) != 0) {
        va_list args;

        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    fd = __real_open64(path, flags, mode);
    if (fd >= 0 && (flags & O_CREAT) != 0) {
        absolute(AT_FDCWD, path, whole);
        record(NTH_CREATE, whole, NULL, 0, NULL, 0);
    }
    if (action == NTH_AFTER || action == NTH_WITHIN)
        nth_die();
    return fd;
}

int __real_openat64(int folder, const char *path, int flags, ...);
int __wrap_openat64(int folder, const char *path, int flags, ...);
int
__wrap_openat64(int folder, const char *path, int flags, ...)
{
    enum nth_action action = nth_admit((flags & O_CREAT) != 0 ? NTH_DISK : NTH_SYSTEM, "openat");
    mode_t mode = 0;
    char whole[PATH_MAX];
    int fd;

    if (action == NTH_FAIL || action == NTH_SHORT) {
        errno = failing_errno(action);
        return -1;
    }
    if ((flags & O_CREAT) != 0) {
        va_list args;

        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    fd = __real_openat64(folder, path, flags, mode);
    if (fd >= 0 && (flags & O_CREAT) != 0) {
        absolute(folder, path, whole);
        record(NTH_CREATE, whole, NULL, 0, NULL, 0);
    }
    if (action == NTH_AFTER || action == NTH_WITHIN)
        nth_die();
    return fd;
}

/* --- the disk --- */

#define WRAP_SYNC(name, op)                                                                                            \
    int __real_##name(int fd);                                                                                         \
    int __wrap_##name(int fd);                                                                                         \
    int __wrap_##name(int fd)                                                                                          \
    {                                                                                                                  \
        enum nth_action action = nth_admit(NTH_DISK, #name);                                                           \
        struct stat64 st;                                                                                              \
        int n;                                                                                                         \
                                                                                                                       \
        if (action == NTH_FAIL || action == NTH_SHORT) {                                                               \
            errno = failing_errno(action);                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        if (action == NTH_WITHIN)                                                                                      \
            nth_die();                                                                                                 \
        n = __real_##name(fd);                                                                                         \
        record_fd(__real_fstat64(fd, &st) == 0 && S_ISDIR(st.st_mode) ? NTH_SYNC_FOLDER : (op), fd, 0, NULL, 0);       \
        if (action == NTH_AFTER)                                                                                       \
            nth_die();                                                                                                 \
        return n;                                                                                                      \
    }

WRAP_SYNC(fsync, NTH_SYNC)
WRAP_SYNC(fdatasync, NTH_SYNC)
WRAP_SYNC(syncfs, NTH_SYNC_FOLDER)

#define WRAP_NAMES(name, ARGS, PASS, op, from_folder, from, to_folder, to)                                             \
    int __real_##name ARGS;                                                                                            \
    int __wrap_##name ARGS;                                                                                            \
    int __wrap_##name ARGS                                                                                             \
    {                                                                                                                  \
        enum nth_action action = nth_admit(NTH_DISK, #name);                                                           \
        char old[PATH_MAX], new[PATH_MAX];                                                                             \
        int n;                                                                                                         \
                                                                                                                       \
        if (action == NTH_FAIL || action == NTH_SHORT) {                                                               \
            errno = failing_errno(action);                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        if (action == NTH_WITHIN)                                                                                      \
            nth_die();                                                                                                 \
        absolute(from_folder, from, old);                                                                              \
        absolute(to_folder, to, new);                                                                                  \
        n = __real_##name PASS;                                                                                        \
        if (n == 0)                                                                                                    \
            record(op, old, new, 0, NULL, 0);                                                                          \
        if (action == NTH_AFTER)                                                                                       \
            nth_die();                                                                                                 \
        return n;                                                                                                      \
    }

WRAP_NAMES(renameat2, (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags),
           NTH_RENAME, a, from, b, to)
WRAP_NAMES(linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), NTH_LINK, a,
           from, b, to)
WRAP_NAMES(unlink, (const char *path), (path), NTH_UNLINK, AT_FDCWD, path, AT_FDCWD, path)
WRAP_NAMES(unlinkat, (int a, const char *path, int flags), (a, path, flags), NTH_UNLINK, a, path, a, path)

#define WRAP_MOVE(class, name, PARAMS, PASS_SHORT, PASS_HALF, PASS, ...)                                               \
    ssize_t __real_##name PARAMS;                                                                                      \
    ssize_t __wrap_##name PARAMS;                                                                                      \
    ssize_t __wrap_##name PARAMS                                                                                       \
    {                                                                                                                  \
        enum nth_action action = nth_admit(class, #name);                                                              \
        ssize_t n;                                                                                                     \
                                                                                                                       \
        if (action == NTH_FAIL) {                                                                                      \
            errno = failing_errno(action);                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        n = action == NTH_SHORT    ? __real_##name PASS_SHORT                                                          \
            : action == NTH_WITHIN ? __real_##name PASS_HALF                                                           \
                                   : __real_##name PASS;                                                               \
        __VA_ARGS__                                                                                                    \
        if (action == NTH_AFTER || action == NTH_WITHIN)                                                               \
            nth_die();                                                                                                 \
        return n;                                                                                                      \
    }

WRAP_MOVE(NTH_SYSTEM, read, (int fd, void *buf, size_t len), (fd, buf, len > 0), (fd, buf, len), (fd, buf, len))
WRAP_MOVE(NTH_SYSTEM, pread64, (int fd, void *buf, size_t len, off64_t at), (fd, buf, len > 0, at), (fd, buf, len, at),
          (fd, buf, len, at))
WRAP_MOVE(NTH_SYSTEM, readlink, (const char *path, char *buf, size_t len), (path, buf, len > 0), (path, buf, len / 2),
          (path, buf, len))
WRAP_MOVE(NTH_DISK, write, (int fd, const void *buf, size_t len), (fd, buf, len > 0), (fd, buf, len / 2),
          (fd, buf, len), if (n > 0) record_fd(NTH_WRITE, fd, (long)lseek(fd, 0, SEEK_CUR) - n, buf, (size_t)n);)
WRAP_MOVE(NTH_DISK, pwrite64, (int fd, const void *buf, size_t len, off64_t at), (fd, buf, len > 0, at),
          (fd, buf, len / 2, at), (fd, buf, len, at), if (n > 0) record_fd(NTH_WRITE, fd, (long)at, buf, (size_t)n);)

/* Messages are whole or not there: what would be short is interrupted. */
#define WRAP_MESSAGE(name, ARGS, PASS, COUNTED)                                                                        \
    ssize_t __real_##name ARGS;                                                                                        \
    ssize_t __wrap_##name ARGS;                                                                                        \
    ssize_t __wrap_##name ARGS                                                                                         \
    {                                                                                                                  \
        enum nth_action action = (COUNTED) ? nth_admit(NTH_SYSTEM, #name) : NTH_OFF;                                   \
        ssize_t n;                                                                                                     \
                                                                                                                       \
        if (action == NTH_FAIL || action == NTH_SHORT) {                                                               \
            errno = failing_errno(action);                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        n = __real_##name PASS;                                                                                        \
        if (action == NTH_AFTER || action == NTH_WITHIN)                                                               \
            nth_die();                                                                                                 \
        return n;                                                                                                      \
    }

/* Whoever only looks whether something has come does it as often as there is time. */
WRAP_MESSAGE(recv, (int fd, void *buf, size_t len, int flags), (fd, buf, len, flags), (flags & MSG_PEEK) == 0)
WRAP_MESSAGE(send, (int fd, const void *buf, size_t len, int flags), (fd, buf, len, flags), 1)
WRAP_MESSAGE(recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags), 1)
WRAP_MESSAGE(sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), 1)

/* --- calls that answer something else --- */

void *__real_mmap64(void *at, size_t len, int prot, int flags, int fd, off64_t from);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off64_t from);
void *
__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off64_t from)
{
    enum nth_action action = nth_admit(NTH_SYSTEM, "mmap");

    if (action == NTH_OFF)
        return __real_mmap64(at, len, prot, flags, fd, from);
    errno = failing_errno(action);
    return MAP_FAILED;
}

int __real_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*f)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*f)(void *), void *arg);
int
__wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*f)(void *), void *arg)
{
    return nth_admit(NTH_SYSTEM, "pthread_create") != NTH_OFF ? EAGAIN : __real_pthread_create(t, attr, f, arg);
}

int __real_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attr, char *const argv[], char *const env[]);
int __wrap_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attr, char *const argv[], char *const env[]);
int
__wrap_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                    const posix_spawnattr_t *attr, char *const argv[], char *const env[])
{
    return nth_admit(NTH_SYSTEM, "posix_spawnp") != NTH_OFF ? EAGAIN
                                                            : __real_posix_spawnp(pid, file, actions, attr, argv, env);
}

/* --- memory --- */

#define WRAP_POINTER(name, ARGS, PASS)                                                                                 \
    void *__real_##name ARGS;                                                                                          \
    void *__wrap_##name ARGS;                                                                                          \
    void *__wrap_##name ARGS                                                                                           \
    {                                                                                                                  \
        if (nth_admit(NTH_MEMORY, #name) == NTH_OFF)                                                                   \
            return __real_##name PASS;                                                                                 \
        errno = ENOMEM;                                                                                                \
        return NULL;                                                                                                   \
    }

WRAP_POINTER(malloc, (size_t n), (n))
WRAP_POINTER(calloc, (size_t count, size_t n), (count, n))
WRAP_POINTER(realloc, (void *p, size_t n), (p, n))
WRAP_POINTER(reallocarray, (void *p, size_t count, size_t n), (p, count, n))
WRAP_POINTER(strdup, (const char *s), (s))
WRAP_POINTER(strndup, (const char *s, size_t n), (s, n))

int __real_posix_memalign(void **p, size_t align, size_t n);
int __wrap_posix_memalign(void **p, size_t align, size_t n);
int
__wrap_posix_memalign(void **p, size_t align, size_t n)
{
    return nth_admit(NTH_MEMORY, "posix_memalign") != NTH_OFF ? ENOMEM : __real_posix_memalign(p, align, n);
}

void *__real_CRYPTO_secure_zalloc(size_t n, const char *file, int line);
void *__wrap_CRYPTO_secure_zalloc(size_t n, const char *file, int line);
void *
__wrap_CRYPTO_secure_zalloc(size_t n, const char *file, int line)
{
    void *p =
        nth_admit(NTH_MEMORY, "OPENSSL_secure_zalloc") != NTH_OFF ? NULL : __real_CRYPTO_secure_zalloc(n, file, line);

    atomic_fetch_add(&secrets, p != NULL ? n : 0);
    return p;
}

void __real_CRYPTO_secure_clear_free(void *p, size_t n, const char *file, int line);
void __wrap_CRYPTO_secure_clear_free(void *p, size_t n, const char *file, int line);
void
__wrap_CRYPTO_secure_clear_free(void *p, size_t n, const char *file, int line)
{
    atomic_fetch_sub(&secrets, p != NULL ? n : 0);
    __real_CRYPTO_secure_clear_free(p, n, file, line);
}

/* --- operations on keys --- */

#define WRAP_KEY(name, ARGS, PASS)                                                                                     \
    enum bk_code __real_##name ARGS;                                                                                   \
    enum bk_code __wrap_##name ARGS;                                                                                   \
    enum bk_code __wrap_##name ARGS                                                                                    \
    {                                                                                                                  \
        enum nth_action action = nth_admit(NTH_TOKEN, #name);                                                          \
        enum bk_code rc;                                                                                               \
                                                                                                                       \
        if (action == NTH_FAIL || action == NTH_SHORT)                                                                 \
            return bk_fail(err, BK_E_TOKEN, #name ": made to fail");                                                   \
        if (action == NTH_WITHIN)                                                                                      \
            nth_die();                                                                                                 \
        rc = __real_##name PASS;                                                                                       \
        if (action == NTH_AFTER)                                                                                       \
            nth_die();                                                                                                 \
        return rc;                                                                                                     \
    }

WRAP_KEY(bk_key_wrap, (struct bk_key * key, const struct bk_secret *cek, struct bk_wrapped *out, struct bk_err *err),
         (key, cek, out, err))
WRAP_KEY(bk_key_unwrap, (struct bk_key * key, const struct bk_wrapped *in, struct bk_secret *cek, struct bk_err *err),
         (key, in, cek, err))
WRAP_KEY(bk_key_rewrap,
         (struct bk_key * key, const struct bk_wrapped *in, struct bk_key *to, struct bk_wrapped *out,
          struct bk_err *err),
         (key, in, to, out, err))
WRAP_KEY(bk_key_sign,
         (struct bk_key * key, const uint8_t digest[32], uint8_t *sig, size_t *sig_len, struct bk_err *err),
         (key, digest, sig, sig_len, err))
