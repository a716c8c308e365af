#include "tests/unit/fake_run.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/secret.h"

/* -- time that runs faster ------------------------------------------------------------------------------------------
 */

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
ssize_t __real_recv(int fd, void *room, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *room, size_t len, int flags);
int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __real_poll(struct pollfd *fds, nfds_t count, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int ms);

int fake_speed = 1;

int
__wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = __real_clock_gettime(id, t);
    long ns = t->tv_nsec * fake_speed;

    t->tv_sec = t->tv_sec * fake_speed + ns / 1000000000;
    t->tv_nsec = ns % 1000000000;
    return rc;
}

static int
poll_fast(struct pollfd *fds, nfds_t count, int ms)
{
    const struct timespec t = {ms / fake_speed / 1000, (long)ms * 1000000 / fake_speed % 1000000000};

    return ppoll(fds, count, &t, NULL);
}

int
__wrap_poll(struct pollfd *fds, nfds_t count, int ms)
{
    return fake_speed == 1 || ms < 0 ? __real_poll(fds, count, ms) : poll_fast(fds, count, ms);
}

/* As long as the socket's own limit of time, which a worker's connection has. */
ssize_t
__wrap_recv(int fd, void *room, size_t len, int flags)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    struct timeval t = {0};
    socklen_t size = sizeof t;

    if (fake_speed == 1 || getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, &size) != 0)
        return __real_recv(fd, room, len, flags);
    if (poll_fast(&wait, 1, (int)(t.tv_sec * 1000 + t.tv_usec / 1000)) > 0)
        return __real_recv(fd, room, len, flags);
    errno = EAGAIN;
    return -1;
}

int
__wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    struct timeval t;
    long us;

    if (level != SOL_SOCKET || name != SO_SNDTIMEO)
        return __real_setsockopt(fd, level, name, value, len);
    memcpy(&t, value, sizeof t);
    us = (t.tv_sec * 1000000 + t.tv_usec) / fake_speed;
    t = (struct timeval){us / 1000000, us % 1000000};
    return __real_setsockopt(fd, level, name, &t, sizeof t);
}

/* -- each test ------------------------------------------------------------------------------------------------------
 */

static char folder[64];
static int descriptors;

int
fake_init(void **state)
{
    int locked = 0;

    (void)state;
    return bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

static int
count_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        count++;
    (void)closedir(d);
    return count;
}

void
fake_act(const char *rules)
{
    assert_int_equal(setenv("FAKE_WORKER", rules, 1), 0);
}

int
fake_begin(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/bk-worker-test-XXXXXX");
    if (mkdtemp(folder) == NULL || setenv("FAKE_FOLDER", folder, 1) != 0 || unsetenv("FAKE_PIN") != 0)
        return -1;
    fake_act("");
    fake_speed = 1;
    descriptors = count_descriptors();
    return 0;
}

static const char *
path_of(const char *name)
{
    static char path[96];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

int
fake_end(void **state)
{
    (void)state;
    (void)unlink(path_of("lives"));
    (void)unlink(path_of("log"));
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(count_descriptors(), descriptors);
    /* no child, alive or dead */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    return 0;
}

int
fake_logged(const char *text)
{
    char line[256];
    int count = 0;
    FILE *f = fopen(path_of("log"), "r");

    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL) {
        size_t len, end = strlen(text);

        line[strcspn(line, "\n")] = '\0';
        len = strlen(line);
        if (text[0] == ' ' && len > end)
            count += strcmp(line + len - end, text) == 0;
        else
            count += strcmp(line, text) == 0;
    }
    (void)fclose(f);
    return count;
}

int
fake_lives(void)
{
    struct stat st;

    return stat(path_of("lives"), &st) == 0 ? (int)st.st_size : 0;
}

long
fake_now(void)
{
    struct timespec t = {0};

    (void)__real_clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void
fake_nap(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

    (void)nanosleep(&t, NULL);
}
