/*
 * The program's side: pkcs11/p11.h and pkcs11/on_token.h by workers, one for each module. A worker that dies is started
 * again, a few times; then its tokens are looked up again, logged in to again, keys found again and compared, and what
 * can be repeated is repeated once. A PIN that was refused, or may have been, is never given to another worker.
 */
#ifndef BK_WORKER_CLIENT_H
#define BK_WORKER_CLIENT_H

#include <pthread.h>

#include "pkcs11/left_out.h"
#include "pkcs11/on_token.h"
#include "worker/process.h"

/* Deaths in a row after which a module is given up for the rest of the run. */
#define WORKER_DEATHS_MAX 3

struct worker {
    struct worker *next;
    struct p11 *owner;
    char *name;  /* as p11-kit has it configured, or the path */
    char *file;  /* or NULL */
    int by_file; /* load it by that, without asking p11-kit for more */
    int is_path; /* a URI names it by module-path */
    char where[160];
    pthread_mutex_t lock;    /* over what follows */
    pthread_cond_t unused;   /* users is 0 */
    struct process *process; /* NULL: not started */
    unsigned users;          /* threads that use it now */
    unsigned life;           /* changes with each process; from 1 */
    unsigned deaths;         /* in a row */
    unsigned noted;          /* the life whose death was counted, however many threads met it */
    int chosen;              /* it knows which module it is for */
    int login_failed;        /* so that no other process may try */
    int renewing;            /* its process is being replaced */
    int given_up;            /* never started again in this run */
    struct bk_err why;       /* it was given up */
};

struct p11_token {
    struct p11_token *next;
    struct worker *worker;
    char *label, *serial, *where;
    char *uri; /* names it to a new worker */
    pthread_mutex_t lock;
    unsigned life; /* the worker's, for which number holds */
    uint32_t number;
    unsigned asked;       /* the life that a PIN was asked for in: once in each is enough */
    struct p11_uri login; /* of the first login: whence the PIN comes, if it must come again */
};

struct p11 {
    struct p11_options options;
    pthread_mutex_t lock; /* over the lists; nothing leaves them before p11_close */
    struct worker *workers;
    struct p11_token *tokens;
    int looked; /* the configured modules are in the list */
    int preparing;
    pthread_t preparer;    /* while preparing is 1 */
    struct p11_uri wanted; /* what it prepares for */
    struct p11_left_out left_out;
};

enum request_fate {
    REQUEST_ANSWERED, /* or not sent for want of memory or of a process */
    REQUEST_STALE,    /* not sent: another process than the one that was meant */
    REQUEST_DIED,     /* the process died of it */
    REQUEST_LOST,     /* answered, by an error that another process may not meet */
};

/* A request, from its first byte to the last of its result. Zero-initialise; request_free. */
struct request {
    struct wire_out out;
    const struct bk_secret *secret; /* goes with it; NULL: none */
    struct p11_token *token;        /* whose PIN may be asked for; NULL: none */
    const char *pin_source;         /* that the URI has; NULL: none */
    int (*item)(void *ctx, const struct p11_item *item);
    int (*probe_item)(void *ctx, const struct p11_probe_item *item);
    enum bk_code (*accepted)(void *ctx, const char *uri, struct bk_secret *pin, struct bk_err *err);
    void *ctx;
    int stopped;
    unsigned texts; /* that came */
    int answered;   /* there is a result, whatever became of the process then */
    int officer;    /* it is the security officer's PIN that may be asked for */
    int once;       /* must not be repeated: something may have been done */
    int upkeep;     /* no work of the program's own, so that its success says little */
    unsigned life;  /* of the process that it is meant for; 0: any, and then the one that got it */
    enum request_fate fate;
    struct wire_in in; /* the result */
};
void request_free(struct request *r);

/* Under the lock of p; name and file are copied. */
BK_MUST_USE enum bk_code worker_add(struct p11 *p, const char *name, const char *file, struct worker **out,
                                    struct bk_err *err);
/* Ends its process, and frees it. */
void worker_free(struct worker *w);
/* Starts its process unless it runs, without waiting. */
BK_MUST_USE enum bk_code worker_start(struct worker *w, struct bk_err *err);
/* Asks one process, whose module may not be chosen yet, for the names of the configured modules; adds a worker for
 * each, of which the first one goes on with that process. Under the lock of p. */
BK_MUST_USE enum bk_code workers_look(struct p11 *p, struct bk_err *err);

/* One request to the worker's process. With life 0 one is started if need be. */
BK_MUST_USE enum bk_code worker_request(struct worker *w, struct request *r, struct bk_err *err);
/* The result was read to its end: BK_OK, or the error for a worker that answers nonsense, which is ended. */
BK_MUST_USE enum bk_code worker_result_end(struct worker *w, struct request *r, struct bk_err *err);
/* 1 if a request that failed may be made once more: its process is another one then, which took over the PINs that were
 * accepted if the one before it was still alive. */
int worker_renew(struct worker *w, const struct request *r);
/* 1 if a request that ended with rc shall be made again, after what it names was looked up again: because it met
 * another process than was meant, or once because of a failure, which *failures counts. */
int worker_may_go_on(struct worker *w, const struct request *r, enum bk_code rc, unsigned *failures);

/* Begins a request whose first word is the number of a token or a key. */
void request_begin(struct request *r, enum wire_type type);
/* Writes the nth number, from 0. */
void request_set_number(struct request *r, size_t nth, uint32_t number);

/* One request about a token, which is looked up again if its worker was started anew. */
BK_MUST_USE enum bk_code token_request(struct p11_token *t, struct request *r, struct bk_err *err);
/* Remembers by which URI the token was logged in to; the token did not look at the PINs of later ones. */
BK_MUST_USE enum bk_code token_note_login(struct p11_token *t, const struct p11_uri *uri, struct bk_err *err);

/* What a worker says of a public half is checked like any other: everything is encrypted to it. BK_E_TOKEN. */
BK_MUST_USE enum bk_code remote_public_check(const struct p11_token *t, const struct bk_public *pub,
                                             struct bk_err *err);
/* A key from the result of a request, to the result's end. */
BK_MUST_USE enum bk_code remote_key_take(struct p11_token *t, enum p11_use use, struct request *r, struct bk_key **out,
                                         struct bk_err *err);

#endif
