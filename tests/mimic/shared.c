/*
 * What is the device's and not one process's: its sessions, and who is at work, in a file that processes map. A lock on
 * the file is let go by the kernel when a process dies; what the dead left behind is found by their ids. Sessions of a
 * device that lets them die of idleness outlive their process, as its documentation has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/mimic/mimic.h"

#define SESSIONS_MAX 2048
#define WORKERS_MAX  256
#define TURN_US      1000

struct shared {
    struct {
        pid_t pid; /* 0: free */
        CK_SESSION_HANDLE session;
        long long used_ms;
    } sessions[SESSIONS_MAX];
    pid_t at_work[WORKERS_MAX];
};

static struct shared *shared;
static int shared_fd = -1;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void
mimic_lock(void)
{
    (void)pthread_mutex_lock(&mutex);
    while (shared_fd >= 0 && flock(shared_fd, LOCK_EX) != 0 && errno == EINTR)
        ;
}

void
mimic_unlock(void)
{
    if (shared_fd >= 0)
        (void)flock(shared_fd, LOCK_UN);
    (void)pthread_mutex_unlock(&mutex);
}

static long long
now_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Zeroed memory of that size, in the file at path, or nobody else's. */
static void *
map(const char *path, size_t size, int *fd)
{
    void *at = MAP_FAILED;

    *fd = -1;
    if (path[0] == '\0')
        at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    else if ((*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) >= 0 && ftruncate(*fd, (off_t)size) == 0)
        at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

int
mimic_shared_open(void)
{
    int fd;

    shared = map(mimic.config.device, sizeof *shared, &shared_fd);
    mimic.counter = &mimic.counts;
    if (mimic.config.counter[0] != '\0')
        mimic.counter = map(mimic.config.counter, sizeof *mimic.counter, &fd);
    if (shared != NULL && mimic.counter != NULL)
        return 0;
    (void)fprintf(stderr, "bk-mimic: memory to share: %s\n", strerror(errno));
    return -1;
}

static int
is_dead(pid_t pid)
{
    return pid != getpid() && kill(pid, 0) != 0 && errno == ESRCH;
}

static int
is_over(size_t i)
{
    unsigned idle = mimic.config.profile.idle_ms;

    if (idle > 0)
        return now_ms() - shared->sessions[i].used_ms > idle;
    return is_dead(shared->sessions[i].pid);
}

/* The place of the session, or SESSIONS_MAX. */
static size_t
find(CK_SESSION_HANDLE session)
{
    size_t i = 0;

    while (i < SESSIONS_MAX && (shared->sessions[i].pid != getpid() || shared->sessions[i].session != session))
        i++;
    return i;
}

/* Between this and the next two functions the session has no handle. */
CK_RV
mimic_session_admit(void)
{
    unsigned limit = mimic.config.profile.sessions;
    size_t place = SESSIONS_MAX;
    unsigned used = 0;

    mimic_lock();
    for (size_t i = 0; i < SESSIONS_MAX; i++) {
        if (shared->sessions[i].pid != 0 && is_over(i) && shared->sessions[i].pid != getpid())
            shared->sessions[i].pid = 0;
        if (shared->sessions[i].pid != 0)
            used++;
        else
            place = i;
    }
    if (place != SESSIONS_MAX && (limit == 0 || used < limit)) {
        shared->sessions[place].session = 0;
        shared->sessions[place].used_ms = now_ms();
        shared->sessions[place].pid = getpid();
        mimic_unlock();
        return CKR_OK;
    }
    mimic_unlock();
    return CKR_SESSION_COUNT;
}

void
mimic_session_add(CK_SESSION_HANDLE session)
{
    size_t i;

    mimic_lock();
    if ((i = find(0)) < SESSIONS_MAX)
        shared->sessions[i].session = session;
    mimic_unlock();
}

void
mimic_session_drop(CK_SESSION_HANDLE session)
{
    mimic_lock();
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        if (shared->sessions[i].pid == getpid() && (session == 0 || shared->sessions[i].session == session))
            shared->sessions[i].pid = 0;
    mimic_unlock();
}

CK_RV
mimic_session_touch(CK_SESSION_HANDLE session)
{
    int over = 0;
    size_t i;

    if (mimic.config.profile.idle_ms == 0)
        return CKR_OK;
    mimic_lock();
    if ((i = find(session)) < SESSIONS_MAX && (over = is_over(i)) == 0)
        shared->sessions[i].used_ms = now_ms();
    mimic_unlock();
    if (over)
        mimic_lose(session);
    return over ? CKR_SESSION_HANDLE_INVALID : CKR_OK;
}

/* Takes a place among those at work; 0: there is none. */
static int
take_turn(void)
{
    unsigned limit = mimic.config.profile.parallel;
    unsigned taken = 0;
    size_t place = WORKERS_MAX;

    mimic_lock();
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        if (shared->at_work[i] != 0 && is_dead(shared->at_work[i]))
            shared->at_work[i] = 0;
        if (shared->at_work[i] != 0)
            taken++;
        else
            place = i;
    }
    if (taken >= limit)
        place = WORKERS_MAX;
    if (place != WORKERS_MAX)
        shared->at_work[place] = getpid();
    mimic_unlock();
    return place != WORKERS_MAX;
}

CK_RV
mimic_work_begin(void)
{
    if (mimic.config.profile.parallel == 0)
        return CKR_OK;
    while (!take_turn()) {
        if ((mimic.config.profile.quirks & QUIRK_THROTTLES) != 0)
            return CKR_FUNCTION_FAILED;
        (void)usleep(TURN_US);
    }
    return CKR_OK;
}

void
mimic_work_end(void)
{
    if (mimic.config.profile.parallel == 0)
        return;
    mimic_lock();
    for (size_t i = 0; i < WORKERS_MAX; i++)
        if (shared->at_work[i] == getpid()) {
            shared->at_work[i] = 0;
            break;
        }
    mimic_unlock();
}
