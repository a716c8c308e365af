/*
 * Errors. A function that can fail returns enum bk_code and fills the caller's struct bk_err with one sentence: lower
 * case, no full stop. Advice is a separate hint. There is no thread-local and no global error.
 */
#ifndef BK_BASE_ERR_H
#define BK_BASE_ERR_H

#include <stdarg.h>

#define BK_MUST_USE                __attribute__((warn_unused_result))
#define BK_PRINTF(fmt_at, args_at) __attribute__((format(printf, fmt_at, args_at)))

/* What went wrong, by what the caller can do about it. cmd/common/exit.c maps these to exit statuses (docs/CLI.md). */
enum bk_code {
    BK_OK = 0,

    /* verification failed: exit status 1 */
    BK_E_FORMAT,     /* bytes that are not what docs/FORMAT.md says: damage or forgery */
    BK_E_INCOMPLETE, /* no valid tail: the producer died or the copy was cut */
    BK_E_NEWER,      /* a version, suite or flag that this reader does not know */
    BK_E_VERIFY,     /* a digest, tag, commitment or signature does not hold */
    BK_E_UNTRUSTED,  /* signed, but by nobody that the caller trusts in that role */
    BK_E_UNEXPECTED, /* genuine, but not the one that was asked for: --expect, --min-generation, --manifest */

    BK_E_USAGE,    /* exit status 2: command line, configuration, files that it names */
    BK_E_TOKEN,    /* exit status 3: no module, no token, or the token failed */
    BK_E_NO_KEY,   /* exit status 3: no such key, or no recipient that matches */
    BK_E_POLICY,   /* exit status 4 */
    BK_E_IO,       /* exit status 5: cannot read, cannot write */
    BK_E_NO_ROOM,  /* exit status 5: no space on the device, in the slot, or in memory */
    BK_E_BATCH,    /* exit status 6: some of many failed, none by verification */
    BK_E_COMMAND,  /* exit status 7: the producer or the consumer failed */
    BK_E_INTERNAL, /* exit status 8: a defect of this software */
    BK_E_PIN,      /* exit status 9: PIN refused or locked; never tried again */

    BK_E_UNSUPPORTED, /* this token or key cannot do that; callers choose another way or report it as BK_E_TOKEN */
    BK_E_CANCELLED,   /* a signal asked us to stop; everything half-made was removed */
};

struct bk_err {
    enum bk_code code;
    int os_errno;           /* errno of the failed call, or 0 */
    unsigned long token_rv; /* CK_RV of the failed token call, or 0 */
    const char *layer;      /* which part of the archive or system refused; a static word, or NULL */
    char message[1024];
    char hint[1024];
};

/* Fills *err (which may be NULL) and returns code, so that `return bk_fail(...)` reads as one step. Clears the hint. */
BK_MUST_USE enum bk_code bk_fail(struct bk_err *err, enum bk_code code, const char *fmt, ...) BK_PRINTF(3, 4);

/* The same for a failed system call: appends ": " and the text of os_errno. ENOSPC, EDQUOT and ENOMEM become
 * BK_E_NO_ROOM, everything else BK_E_IO. */
BK_MUST_USE enum bk_code bk_fail_errno(struct bk_err *err, int os_errno, const char *fmt, ...) BK_PRINTF(3, 4);

/* Memory could not be had. */
BK_MUST_USE enum bk_code bk_fail_nomem(struct bk_err *err);

/*
 * After calls of the crypto library: forgets what it put in its queue of errors. If one of them says that memory could
 * not be had, a failure is that and not what it was taken for: *err is filled anew. Returns the code that holds.
 */
BK_MUST_USE enum bk_code bk_crypto_end(enum bk_code rc, struct bk_err *err);

/* Puts "prefix: " before the message that is there: the caller knows which slot, file or recipient it was about. */
void bk_err_prefix(struct bk_err *err, const char *fmt, ...) BK_PRINTF(2, 3);

/* Sets the advice that goes with the error. */
void bk_err_hint(struct bk_err *err, const char *fmt, ...) BK_PRINTF(2, 3);

/* Names the layer unless a deeper caller has done so already. layer is a string literal. */
void bk_err_layer(struct bk_err *err, const char *layer);

/* True for the codes whose exit status is 1. */
int bk_code_is_verification(enum bk_code code);

#endif
