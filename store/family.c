#include "store/family.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <time.h>
#include <unistd.h>

/* A stopped family forks no more, so two passes are the rule; this bounds a family that we may not stop. */
#define MAX_PASSES 64

/* How many milliseconds all in all are spent on waiting for members to stop: usually none or one, but one that waits
 * for a disk or for its vfork(2)ed child cannot, and one that we may not stop will not. */
#define MAX_PATIENCE 200

/* A process file descriptor goes on meaning that process; its number may soon mean another. */
struct member {
    pid_t pid;
    int fd;
};

struct family {
    struct member *members;
    size_t count;
    size_t cap;
    int patience; /* milliseconds left */
};

static int
is_member(const struct family *f, pid_t pid)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->members[i].pid == pid)
            return 1;
    return 0;
}

/* State and parent of the process with that name in /proc, 0 if there is none; proc(5), /proc/PID/stat. */
static int
look_at(int proc, const char *pid, char *state, pid_t *parent)
{
    char path[64];
    char text[512];
    const char *after;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof path, "%.32s/stat", pid);
    fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    /* the program's name stands in parentheses and may hold some itself */
    after = strrchr(text, ')');
    return after != NULL && sscanf(after, ") %c %d", state, parent) == 2;
}

/* -1 if there is none. */
static pid_t
parent_of(int proc, const char *pid)
{
    pid_t parent;
    char state;

    return look_at(proc, pid, &state, &parent) ? parent : -1;
}

static int
has_stopped(int proc, pid_t pid)
{
    char name[16], state;
    pid_t parent;

    (void)snprintf(name, sizeof name, "%d", (int)pid);
    return !look_at(proc, name, &state, &parent) || strchr("TtZX", state) != NULL;
}

/* A process that was told to stop while it was in the middle of fork(2) ends that first: until it has stopped, it may
 * have a child that is nowhere to be seen yet. */
static void
let_them_stop(struct family *f, int proc)
{
    for (size_t i = 0; i < f->count; i++)
        for (; !has_stopped(proc, f->members[i].pid) && f->patience > 0; f->patience--)
            (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Takes over fd. Without memory the process is killed at once, which beats letting it go. */
static void
add_member(struct family *f, pid_t pid, int fd)
{
    if (f->count == f->cap) {
        size_t cap = f->cap == 0 ? 16 : f->cap * 2;
        struct member *more = realloc(f->members, cap * sizeof *more);

        if (more == NULL) {
            (void)pidfd_send_signal(fd, SIGKILL, NULL, 0);
            (void)close(fd);
            return;
        }
        f->members = more;
        f->cap = cap;
    }
    f->members[f->count++] = (struct member){.pid = pid, .fd = fd};
}

/* 1 if the process was found to be of the family, was new, and has been told to stop. */
static int
adopt(struct family *f, int proc, const char *name)
{
    pid_t pid = (pid_t)strtol(name, NULL, 10);
    int fd;

    if (pid <= 1 || is_member(f, pid) || !is_member(f, parent_of(proc, name)))
        return 0;
    fd = pidfd_open(pid, 0);
    if (fd < 0)
        return 0;
    /* asked again: if the process ended and its number was given away before, the new owner's parent is another one;
     * if after, fd means the old one and the signal goes nowhere */
    if (!is_member(f, parent_of(proc, name)) || pidfd_send_signal(fd, SIGSTOP, NULL, 0) != 0) {
        (void)close(fd);
        return 0;
    }
    add_member(f, pid, fd);
    return 1;
}

static void
stop_descendants(struct family *f)
{
    DIR *proc = opendir("/proc");
    int found = 1;

    for (int pass = 0; proc != NULL && found && pass < MAX_PASSES; pass++) {
        const struct dirent *d;

        found = 0;
        let_them_stop(f, dirfd(proc));
        rewinddir(proc);
        while ((d = readdir(proc)) != NULL)
            if (d->d_name[0] >= '1' && d->d_name[0] <= '9')
                found |= adopt(f, dirfd(proc), d->d_name);
    }
    if (proc != NULL)
        (void)closedir(proc);
}

/* The number of a child of our own is safe to use: it stays taken until the child is waited for. 0 or an errno. */
static int
signal_child(pid_t child, int pidfd, int number)
{
    int rc = pidfd >= 0 ? pidfd_send_signal(pidfd, number, NULL, 0) : kill(child, number);

    return rc == 0 ? 0 : errno;
}

int
store_family_kill(pid_t child, int pidfd)
{
    struct family f = {.patience = MAX_PATIENCE};
    int failed;

    /* ended and waited for by somebody else: its number means nobody now, or a stranger */
    if (signal_child(child, pidfd, SIGSTOP) == ESRCH)
        return 0;
    add_member(&f, child, -1);
    stop_descendants(&f);
    for (size_t i = 0; i < f.count; i++)
        if (f.members[i].fd >= 0) {
            (void)pidfd_send_signal(f.members[i].fd, SIGKILL, NULL, 0);
            (void)close(f.members[i].fd);
        }
    failed = signal_child(child, pidfd, SIGKILL);
    free(f.members);
    return failed == ESRCH ? 0 : failed;
}
