/*
 * The nth call: counts the system calls, allocations and token calls that bk's own code makes, and lets the nth of them
 * fail, fall short, or end the process. It sits between the objects and the C library by the linker's --wrap (see
 * tests/CMakeLists.txt), so that it works under sanitizers and needs no change of what is tested.
 *
 * A test arms it by nth_arm. A program that is linked with it, and its token workers, are driven from outside:
 *     BK_NTH=ACTION:CLASSES:N[:VALUE] BK_NTH_WORKER=... BK_NTH_REPORT=FILE [BK_NTH_SECRET=FILE] bin/bk-wrap ...
 * ACTION is fail, short, before, after, within; CLASSES some of disk,system,memory,token,library joined by "+"; VALUE
 * an errno or CK_RV as a number. BK_NTH is for the program and BK_NTH_WORKER for its workers: each worker counts for
 * itself, and one that starts when another was hit already is let alone, unless there is BK_NTH_EVERY_WORKER. FILE gets
 * the name of the call that was hit, and nothing of that if there were fewer than N; and when the program ends by
 * itself "end CALLS SESSIONS SECRETS LEFT": the calls of these classes, the token sessions that are still open, the
 * bytes of secrets that were not wiped, and how often memory holds what the file BK_NTH_SECRET does. Lines of a worker
 * begin with "worker "; one that cannot end in order says "failed" in place of "end".
 */
#ifndef BK_TESTS_NTH_NTH_H
#define BK_TESTS_NTH_NTH_H

#include <stddef.h>

enum nth_class {
    NTH_DISK = 1,     /* writes, syncs, renames, links, unlinks, creations */
    NTH_SYSTEM = 2,   /* every other system call */
    NTH_MEMORY = 4,   /* allocations by bk's own code */
    NTH_TOKEN = 8,    /* calls of a PKCS#11 module, and operations of bk_key */
    NTH_LIBRARY = 16, /* allocations by OpenSSL, but for those of a PKCS#11 module */
};

enum nth_action {
    NTH_OFF,
    NTH_FAIL,   /* the call is not made; errno (or the CK_RV) is value */
    NTH_SHORT,  /* a read or write moves one byte only; other calls fail with EINTR */
    NTH_BEFORE, /* SIGKILL before the call */
    NTH_AFTER,  /* SIGKILL after it */
    NTH_WITHIN, /* a write is made by half, then SIGKILL; other calls: as NTH_BEFORE */
};

struct nth_plan {
    enum nth_action action;
    unsigned classes;
    unsigned long at;    /* from 1 */
    unsigned long value; /* 0: EIO, or CKR_GENERAL_ERROR */
};

/* Counts from 0 again. NTH_OFF counts only. */
void nth_arm(const struct nth_plan *plan);
void nth_disarm(void);

/* Calls of the plan's classes since nth_arm, and the name of the one that was hit, or NULL. */
unsigned long nth_seen(void);
const char *nth_hit(void);

/* Of the whole process: sessions that modules opened and did not close, and bytes of secrets that were not wiped. */
long nth_sessions(void);
size_t nth_secrets(void);

/* Arms what the environment variable says, if it is set; reports of this process begin with prefix from now on. */
void nth_arm_by(const char *variable, const char *prefix);

/* Adds a line to the file BK_NTH_REPORT, if that is set; WORD CALLS SESSIONS SECRETS LEFT. */
void nth_report(const char *line);
void nth_report_end(const char *word);

/* What the disk was told, for tests/nth/disk.h to play back. */
enum nth_disk_op { NTH_WRITE, NTH_SYNC, NTH_SYNC_FOLDER, NTH_CREATE, NTH_RENAME, NTH_LINK, NTH_UNLINK, NTH_TRUNCATE };

struct nth_event {
    enum nth_disk_op op;
    char *path; /* absolute; of RENAME and LINK the old name */
    char *to;   /* the new name */
    long offset;
    unsigned char *data;
    size_t len;
};

struct nth_trace {
    struct nth_event *events;
    size_t count;
};

/* Records every disk call on names below folder. One at a time; the caller frees what nth_record_end gives. */
void nth_record(const char *folder);
void nth_record_end(struct nth_trace *out);
void nth_trace_free(struct nth_trace *t);

#endif
