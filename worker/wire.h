/*
 * What a program and its token worker say to each other: messages over a socketpair(2) of SOCK_SEQPACKET, numbers
 * big-endian. A secret goes as a message of its own, from locked memory to locked memory. Neither side believes the
 * other: the worker holds a vendor's code, and what it sends is read as carefully as a file.
 */
#ifndef BK_WORKER_WIRE_H
#define BK_WORKER_WIRE_H

#include "base/buf.h"
#include "pkcs11/p11.h"
#include "pkcs11/uri.h"

/* Both sides must be of one build; the first word of a worker says which it is. */
#define WIRE_VERSION 3

/* The largest message: a certificate of 64 KiB and what goes with it. */
#define WIRE_MAX 98304
/* The largest secret: a PIN. */
#define WIRE_SECRET_MAX 1024

enum wire_type {
    /* Requests; the answer is WIRE_DONE, with events before it. */
    WIRE_MODULES = 1,       /* -> count, { name, file, plain } */
    WIRE_ONLY,              /* name, file */
    WIRE_MATCH,             /* how, uri -> usable, count, { token, open, label, serial, where, uri } */
    WIRE_IS_OPEN,           /* token -> yes */
    WIRE_SHOWS_OBJECT,      /* token, uri -> yes */
    WIRE_SHOWS_KEY,         /* token, ids -> yes */
    WIRE_OPEN_KEY,          /* token, uri, use -> key */
    WIRE_FIND_KEY,          /* token, uri, use, ids -> found, which, key */
    WIRE_PUBLIC,            /* token, uri -> public */
    WIRE_GENERATE,          /* token, uri, kind, signing, passing, sealed -> key */
    WIRE_LIST,              /* token, uri, log_in -> stopped */
    WIRE_PROBE,             /* token, uri, lasting */
    WIRE_WRAP,              /* key, secret: the CEK -> wrapped */
    WIRE_UNWRAP,            /* key, wrapped -> secret: the CEK */
    WIRE_REWRAP,            /* key, wrapped, to -> wrapped, and for both whether the token enforces it */
    WIRE_SIGN,              /* key, alg, digest -> signature */
    WIRE_CLOSE,             /* key */
    WIRE_CERTIFICATE,       /* key -> DER */
    WIRE_SAME_LOGIN,        /* key, ids -> yes for each */
    WIRE_STORE_CERTIFICATE, /* key, DER */
    WIRE_DESTROY,           /* key */
    WIRE_HAND_OVER,         /* gives away each PIN that was accepted: WIRE_ACCEPTED */
    WIRE_TAKE_OVER,         /* uri, secret: the PIN that a worker before this one had accepted */
    WIRE_REQUESTS,          /* how many there are, and one */

    /* Events of a request that is under way. */
    WIRE_WARN = 64,  /* text */
    WIRE_LEFT_OUT,   /* text */
    WIRE_ITEM,       /* an object of a list -> WIRE_GO_ON or WIRE_STOP */
    WIRE_PROBE_ITEM, /* a line of a probe -> the same */
    WIRE_PIN,        /* a request for a PIN -> WIRE_PIN_IS with the secret, or WIRE_PIN_FAILED with an error */
    WIRE_ACCEPTED,   /* uri of a token, secret: its PIN -> WIRE_GO_ON */
    WIRE_GO_ON,
    WIRE_STOP,
    WIRE_PIN_IS,
    WIRE_PIN_FAILED,
    WIRE_DONE, /* code; then the result, or the error */
};

/* What an error says beside itself. */
#define WIRE_LOGIN_FAILED 1u /* some token did not take its PIN: no other worker may try */
#define WIRE_LOST         2u /* session, token or module may work again after a new start of the module */

enum wire_match { WIRE_MATCH_ONCE, WIRE_MATCH_AGAIN, WIRE_MATCH_ALL };

/* A message that is being made. A failed allocation is kept until it is sent. Zero-initialise. */
struct wire_out {
    struct bk_buf body;
    int failed;
};

void wire_begin(struct wire_out *o, enum wire_type type);
void wire_put_u32(struct wire_out *o, uint32_t v);
void wire_put_bytes(struct wire_out *o, const void *data, size_t len);
void wire_put_text(struct wire_out *o, const char *text); /* may be NULL */
void wire_put_id(struct wire_out *o, const struct bk_key_id *id);
void wire_put_ids(struct wire_out *o, const struct bk_key_id *ids, size_t count);
void wire_put_public(struct wire_out *o, const struct bk_public *pub);
void wire_put_wrapped(struct wire_out *o, const struct bk_wrapped *w);
void wire_put_error(struct wire_out *o, const struct bk_err *err);
/* Without the PIN that it may carry, which is the message's secret. May be NULL. */
void wire_put_uri(struct wire_out *o, const struct p11_uri *uri);
void wire_put_pin_request(struct wire_out *o, const struct p11_pin_request *req);
void wire_put_item(struct wire_out *o, const struct p11_item *item);
void wire_put_probe_item(struct wire_out *o, const struct p11_probe_item *item);

/* A message that came in. Room for the next one is kept. Zero-initialise; wire_in_free. */
struct wire_in {
    uint8_t *room;
    enum wire_type type;
    struct bk_reader body; /* what is not read yet; its failed says what was wrong */
    struct bk_secret secret;
};
void wire_in_free(struct wire_in *in);

/* These read in turn; after a failure they give zeros and NULLs, and wire_end tells. Texts and bytes stay in the room.
 */
uint32_t wire_get_u32(struct wire_in *in);
uint32_t wire_get_below(struct wire_in *in, uint32_t limit); /* a number that must be smaller than limit */
int wire_get_flag(struct wire_in *in);                       /* 0 or 1 */
int wire_get_tristate(struct wire_in *in);                   /* 0, 1 or -1 */
const uint8_t *wire_get_bytes(struct wire_in *in, size_t *len);
const char *wire_get_text(struct wire_in *in);      /* NULL if that was sent */
const char *wire_get_some_text(struct wire_in *in); /* never NULL: "" */
/* The same, made fit for people (bk_text_plain): what a worker says of its tokens must not command a terminal. */
const char *wire_get_shown(struct wire_in *in);
void wire_get_id(struct wire_in *in, struct bk_key_id *id);
/* At most room of them. */
size_t wire_get_ids(struct wire_in *in, struct bk_key_id *ids, size_t room);
/* *pub is zeroed; the caller frees it, also when wire_end then fails. */
void wire_get_public(struct wire_in *in, struct bk_public *pub);
void wire_get_wrapped(struct wire_in *in, struct bk_wrapped *w);
/* A code that is no error is BK_E_INTERNAL. */
void wire_get_error(struct wire_in *in, struct bk_err *err);
/* *uri is zeroed; *there is 0 if none was sent. The PIN is the message's secret. The caller frees it. */
BK_MUST_USE enum bk_code wire_get_uri(struct wire_in *in, struct p11_uri *uri, int *there, struct bk_err *err);
void wire_get_pin_request(struct wire_in *in, struct p11_pin_request *req);
/* The public half is owned by the caller. */
void wire_get_item(struct wire_in *in, struct p11_item *item);
void wire_get_probe_item(struct wire_in *in, struct p11_probe_item *item);
/* BK_E_INTERNAL unless everything was there and nothing is left over. */
BK_MUST_USE enum bk_code wire_end(struct wire_in *in, struct bk_err *err);

/* secret may be NULL. BK_E_IO when the other side is gone, BK_E_FORMAT when it did not read within the socket's own
 * limit of time (SO_SNDTIMEO). */
BK_MUST_USE enum bk_code wire_send(int fd, struct wire_out *o, const struct bk_secret *secret, struct bk_err *err);
/*
 * Waits for a message. BK_E_INCOMPLETE when the other side is gone, BK_E_CANCELLED when the socket's own limit of time
 * (SO_RCVTIMEO) is over or a signal came in and nothing has arrived, BK_E_FORMAT for what is no message.
 */
BK_MUST_USE enum bk_code wire_receive(int fd, struct wire_in *in, struct bk_err *err);
/* Returns when there is something to receive, or when us microseconds have gone by. To sleep and be woken can take
 * longer than what a token does: on a virtual machine 25 us and more each time. Other threads get the processor
 * meanwhile. */
void wire_linger(int fd, unsigned us);

#endif
