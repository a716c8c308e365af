/* Requests, between serve.c, which receives them, and requests.c, which does them. */
#ifndef BK_WORKER_SERVING_H
#define BK_WORKER_SERVING_H

#include <pthread.h>

#include "pkcs11/state.h"
#include "worker/serve.h"
#include "worker/wire.h"

struct server {
    const struct serve_options *options;
    struct p11 *p11;
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t idle;  /* a connection has ended */
    unsigned connections;
    pthread_t threads[WATCH_SLOTS]; /* by the slot of their connection, which is used once */
    int started[WATCH_SLOTS];
    struct p11_token **tokens; /* by their number on the wire */
    size_t token_count;
    struct served_key **keys; /* the same; NULL where one was closed */
    size_t key_count;
};

/* A key, and how many hold it: its number, and requests that are under way. A program whose request was broken off may
 * close a key that another connection is still at work with; whoever lets go of it last closes it. */
struct served_key {
    struct bk_key *key;
    unsigned holders;
};

/* As many keys as one request names. */
#define SERVING_KEYS 2

/* One connection, served by one thread. */
struct serving {
    struct server *server;
    int fd;
    struct watch_slot *slot;
    struct wire_in in;   /* the request */
    struct wire_out out; /* its answer */
    struct wire_out event;
    struct wire_in answer; /* to an event */
    struct bk_err unsaid;  /* an event of this request could not be told, so that its result is not whole */
    struct served_key *held[SERVING_KEYS]; /* by this request */
    size_t held_count;
};

/* Does the request s->in and adds its result to s->out, or to secret. *err is filled on failure. */
BK_MUST_USE enum bk_code serving_request(struct serving *s, struct bk_secret *secret, struct bk_err *err);

/* Sends s->event, with secret unless that is NULL, and waits for s->answer. */
BK_MUST_USE enum bk_code serving_ask(struct serving *s, const struct bk_secret *secret, struct bk_err *err);

/* Closes what the program left open, logs out, and finalizes the module. */
void server_end(struct server *server);

#endif
