#include "tests/nth/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INODES_MAX  64
#define NAMES_MAX   64
#define PENDING_MAX 4096

struct inode {
    unsigned char *data; /* what is surely on the disk */
    size_t len;
};

struct name {
    char path[PATH_MAX];
    int inode;
};

struct space {
    struct name names[NAMES_MAX];
    size_t count;
};

struct disk {
    char folder[PATH_MAX];
    struct inode inodes[INODES_MAX];
    int inode_count;
    struct space space;
};

/* A write, or a change of a name, of which nobody knows whether it has reached the disk. */
struct pending {
    const struct nth_event *event;
    int inode;
};

/* Where a playback stands: what is sure, what the programs saw, and what hangs between. */
struct player {
    struct disk sure;
    struct space live;
    struct pending writes[PENDING_MAX];
    size_t write_count;
    struct pending moves[PENDING_MAX];
    size_t move_count;
    size_t states;
    void (*check)(void *ctx, const char *state);
    void *ctx;
};

/* One state: how many of the pending moves happened, and which sectors of the pending writes. */
struct choice {
    size_t moves;
    int (*takes)(const struct choice *c, size_t write, size_t sector, size_t sectors);
    size_t write;  /* the last pending write, which is torn */
    size_t sector; /* where */
    int ends;      /* 1: its end was written, 0: its beginning */
    uint64_t seed;
};

static void
must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "disk: %s\n", what);
    abort();
}

static int
find(const struct space *s, const char *path)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->names[i].path, path) == 0)
            return (int)i;
    return -1;
}

static void
forget(struct space *s, const char *path)
{
    int at = find(s, path);

    if (at >= 0)
        s->names[at] = s->names[--s->count];
}

static void
name_it(struct space *s, const char *path, int inode)
{
    forget(s, path);
    must(s->count < NAMES_MAX, "too many names");
    (void)snprintf(s->names[s->count].path, PATH_MAX, "%s", path);
    s->names[s->count++].inode = inode;
}

static int
new_inode(struct disk *d)
{
    must(d->inode_count < INODES_MAX, "too many files");
    d->inodes[d->inode_count] = (struct inode){0};
    return d->inode_count++;
}

static void
write_into(struct inode *n, size_t offset, const unsigned char *data, size_t len)
{
    if (offset + len > n->len) {
        n->data = realloc(n->data, offset + len);
        must(n->data != NULL, "no memory");
        memset(n->data + n->len, 0, offset + len - n->len);
        n->len = offset + len;
    }
    memcpy(n->data + offset, data, len);
}

static void
copy_inodes(struct disk *to, const struct disk *from)
{
    for (int i = 0; i < from->inode_count; i++) {
        to->inodes[i] = (struct inode){0};
        if (from->inodes[i].len > 0)
            write_into(&to->inodes[i], 0, from->inodes[i].data, from->inodes[i].len);
    }
}

static struct disk *
copy_disk(const struct disk *d)
{
    struct disk *copy = malloc(sizeof *copy);

    must(copy != NULL, "no memory");
    *copy = *d;
    copy_inodes(copy, d);
    return copy;
}

static void
release(struct disk *d)
{
    for (int i = 0; i < d->inode_count; i++)
        free(d->inodes[i].data);
}

void
disk_free(struct disk *d)
{
    if (d == NULL)
        return;
    release(d);
    free(d);
}

static void
empty_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *e;

    must(dir != NULL, "no folder");
    while ((e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlinkat(dirfd(dir), e->d_name, 0);
    (void)closedir(dir);
}

static void
load(struct disk *d, const char *name)
{
    char path[PATH_MAX];
    unsigned char block[65536];
    int inode = new_inode(d), fd;
    size_t at = 0;
    ssize_t n;

    (void)snprintf(path, sizeof path, "%.3000s/%.900s", d->folder, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0, "cannot read a file");
    while ((n = read(fd, block, sizeof block)) > 0) {
        write_into(&d->inodes[inode], at, block, (size_t)n);
        at += (size_t)n;
    }
    (void)close(fd);
    name_it(&d->space, path, inode);
}

struct disk *
disk_snapshot(const char *folder)
{
    struct disk *d = calloc(1, sizeof *d);
    DIR *dir = opendir(folder);
    struct dirent *e;

    must(d != NULL && dir != NULL, "no folder");
    (void)snprintf(d->folder, sizeof d->folder, "%s", folder);
    while ((e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            load(d, e->d_name);
    (void)closedir(dir);
    return d;
}

static void
store(const struct inode *n, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t at = 0;

    must(fd >= 0, "cannot write a file");
    while (at < n->len) {
        ssize_t k = write(fd, n->data + at, n->len - at);

        must(k > 0, "cannot write a file");
        at += (size_t)k;
    }
    (void)close(fd);
}

void
disk_restore(const struct disk *d)
{
    empty_folder(d->folder);
    for (size_t i = 0; i < d->space.count; i++)
        store(&d->inodes[d->space.names[i].inode], d->space.names[i].path);
}

static void
move(struct space *s, const struct pending *p)
{
    const struct nth_event *e = p->event;

    if (e->op == NTH_RENAME || e->op == NTH_UNLINK)
        forget(s, e->path);
    if (e->op == NTH_RENAME || e->op == NTH_LINK)
        name_it(s, e->to, p->inode);
    if (e->op == NTH_CREATE)
        name_it(s, e->path, p->inode);
}

static size_t
sectors_of(const struct nth_event *e)
{
    return (e->len + DISK_SECTOR - 1) / DISK_SECTOR;
}

/* Builds one state and has it checked. */
static void
crash(struct player *p, const struct choice *c, const char *state)
{
    struct disk *d = copy_disk(&p->sure);

    for (size_t w = 0; w < p->write_count; w++) {
        const struct nth_event *e = p->writes[w].event;

        for (size_t s = 0; s < sectors_of(e); s++) {
            size_t at = s * DISK_SECTOR, len = e->len - at < DISK_SECTOR ? e->len - at : DISK_SECTOR;

            if (c->takes(c, w, s, sectors_of(e)))
                write_into(&d->inodes[p->writes[w].inode], (size_t)e->offset + at, e->data + at, len);
        }
    }
    for (size_t m = 0; m < c->moves; m++)
        move(&d->space, &p->moves[m]);
    disk_restore(d);
    disk_free(d);
    p->states++;
    p->check(p->ctx, state);
}

static int
takes_none(const struct choice *c, size_t write, size_t sector, size_t sectors)
{
    (void)c, (void)write, (void)sector, (void)sectors;
    return 0;
}

static int
takes_all(const struct choice *c, size_t write, size_t sector, size_t sectors)
{
    (void)c, (void)write, (void)sector, (void)sectors;
    return 1;
}

static int
takes_torn(const struct choice *c, size_t write, size_t sector, size_t sectors)
{
    (void)sectors;
    return write != c->write ? 1 : c->ends ? sector >= c->sector : sector < c->sector;
}

static int
takes_some(const struct choice *c, size_t write, size_t sector, size_t sectors)
{
    uint64_t x = c->seed ^ (write * 0x9e3779b97f4a7c15ull) ^ (sector * 0xbf58476d1ce4e5b9ull);

    (void)sectors;
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return (int)((x >> 40) & 1);
}

static void
crash_now(struct player *p, size_t event, size_t stride, size_t random)
{
    struct choice c = {.write = p->write_count - 1};
    char state[128];

    for (int names = 0; names < 2; names++)
        for (int contents = 0; contents < 2; contents++) {
            c.moves = names ? p->move_count : 0;
            c.takes = contents ? takes_all : takes_none;
            (void)snprintf(state, sizeof state, "after call %zu, %s names, %s contents", event, names ? "all" : "no",
                           contents ? "all" : "no");
            crash(p, &c, state);
        }
    if (p->write_count == 0)
        return;
    c.takes = takes_torn;
    c.moves = p->move_count;
    for (c.sector = 1; c.sector < sectors_of(p->writes[c.write].event); c.sector += stride)
        for (c.ends = 0; c.ends < 2; c.ends++) {
            (void)snprintf(state, sizeof state, "after call %zu, last write torn at sector %zu, its %s there", event,
                           c.sector, c.ends ? "end" : "beginning");
            crash(p, &c, state);
        }
    c.takes = takes_some;
    for (size_t i = 0; i < random; i++) {
        c.seed = event * 1000003 + i * 7919 + 1;
        c.moves = p->move_count == 0 ? 0 : i % (p->move_count + 1);
        (void)snprintf(state, sizeof state, "after call %zu, random choice %zu", event, i);
        crash(p, &c, state);
    }
}

static void
sync_contents(struct player *p, int inode)
{
    size_t kept = 0;

    for (size_t i = 0; i < p->write_count; i++) {
        const struct nth_event *e = p->writes[i].event;

        if (p->writes[i].inode == inode)
            write_into(&p->sure.inodes[inode], (size_t)e->offset, e->data, e->len);
        else
            p->writes[kept++] = p->writes[i];
    }
    p->write_count = kept;
}

static void
sync_names(struct player *p)
{
    for (size_t i = 0; i < p->move_count; i++)
        move(&p->sure.space, &p->moves[i]);
    p->move_count = 0;
}

static void
play(struct player *p, const struct nth_event *e)
{
    int at = find(&p->live, e->path);
    struct pending step = {.event = e, .inode = at < 0 ? -1 : p->live.names[at].inode};

    if (e->op == NTH_SYNC_FOLDER) {
        sync_names(p);
        return;
    }
    if (e->op == NTH_CREATE && at < 0)
        step.inode = new_inode(&p->sure);
    if (step.inode < 0 || (e->op == NTH_CREATE && at >= 0))
        return; /* a file without a name any more, or one that was only opened */
    if (e->op == NTH_SYNC) {
        sync_contents(p, step.inode);
        return;
    }
    must(p->write_count < PENDING_MAX && p->move_count < PENDING_MAX, "too many calls");
    if (e->op == NTH_WRITE) {
        p->writes[p->write_count++] = step;
        return;
    }
    p->moves[p->move_count++] = step;
    move(&p->live, &step);
}

size_t
disk_crash_everywhere(const struct disk *d, const struct nth_trace *trace, size_t stride, size_t random,
                      void (*check)(void *ctx, const char *state), void *ctx)
{
    struct player *p = calloc(1, sizeof *p);
    size_t states;

    must(p != NULL, "no memory");
    p->sure = *d;
    copy_inodes(&p->sure, d);
    p->live = d->space;
    p->check = check;
    p->ctx = ctx;
    for (size_t i = 0; i <= trace->count; i++) {
        crash_now(p, i, stride, random);
        if (i < trace->count)
            play(p, &trace->events[i]);
    }
    states = p->states;
    release(&p->sure);
    free(p);
    return states;
}
