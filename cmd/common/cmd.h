/*
 * What every program shares: start-up, options, messages, PINs, progress, JSON, exit status. Only code under cmd/
 * prints, prompts or exits.
 */
#ifndef BK_CMD_CMD_H
#define BK_CMD_CMD_H

#include <getopt.h>
#include <jansson.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/log.h"
#include "cmd/common/profile.h"
#include "format/engine.h"
#include "ops/expect.h"
#include "ops/trust.h"
#include "pkcs11/p11.h"

enum cmd_progress { CMD_PROGRESS_AUTO, CMD_PROGRESS_ALWAYS, CMD_PROGRESS_NEVER };

/* A list of option values, borrowed from argv. Zero-initialise. */
struct cmd_list {
    const char **items;
    size_t count;
};
BK_MUST_USE enum bk_code cmd_list_add(struct cmd_list *l, const char *item, struct bk_err *err);
void cmd_list_free(struct cmd_list *l);

/* The options that every program has. Zero-initialise. */
struct cmd_common {
    int help;
    int version;
    int quiet;
    enum cmd_progress progress;
    int json;
    int raw_rsa;                /* of programs that open archives: as in struct p11_options */
    unsigned token_timeout;     /* seconds for one call of a token; 0: the default */
    const char *json_path;      /* NULL: standard output */
    const char *profile;        /* NULL: none, and nothing is read */
    const char *config;         /* NULL: the first one that there is */
    int in_profile;             /* while a value comes from the profile and not from the command line */
    struct cmd_profile options; /* owned; values of the program's other options point into it */
};
void cmd_common_free(struct cmd_common *common);

/* One program's options: its getopt tables, and what to do with each. */
struct cmd_option_set {
    const struct option *long_options; /* ends with zeros; CMD_COMMON_OPTIONS first */
    const char *short_options;         /* without the common ones */
    /* Called for each option that is not common. */
    enum bk_code (*take)(void *args, int option, const char *value, struct bk_err *err);
};

enum {
    CMD_OPT_HELP = 1000,
    CMD_OPT_VERSION,
    CMD_OPT_PROGRESS,
    CMD_OPT_JSON,
    CMD_OPT_PROFILE,
    CMD_OPT_CONFIG,
    CMD_OPT_TOKEN_TIMEOUT,
    CMD_OPT_OWN
};
#define CMD_COMMON_OPTIONS                                                                                             \
    {"help", no_argument, NULL, CMD_OPT_HELP}, {"version", no_argument, NULL, CMD_OPT_VERSION},                        \
        {"quiet", no_argument, NULL, 'q'}, {"progress", required_argument, NULL, CMD_OPT_PROGRESS},                    \
        {"profile", required_argument, NULL, CMD_OPT_PROFILE}, {"config", required_argument, NULL, CMD_OPT_CONFIG},    \
        {"token-timeout", required_argument, NULL, CMD_OPT_TOKEN_TIMEOUT},                                             \
    {                                                                                                                  \
        "json", optional_argument, NULL, CMD_OPT_JSON                                                                  \
    }

/* What is left of a command line after its options. */
struct cmd_rest {
    char **operands;
    int operand_count;
    char **command; /* what stood behind "--", or NULL */
};

/*
 * Parses without opening anything but, with --profile, the file of profiles. What the profile has and the command line
 * has not is taken first, by the same functions; a list on the command line replaces the profile's. Long options may
 * not be abbreviated. BK_E_USAGE says which argument, or which line of the file, is wrong.
 */
BK_MUST_USE enum bk_code cmd_parse(int argc, char **argv, const struct cmd_option_set *set, void *args,
                                   struct cmd_common *common, struct cmd_rest *rest, struct bk_err *err);

/* Adds to a usage error that has no advice yet that --help has some; returns rc. */
BK_MUST_USE enum bk_code cmd_usage(const char *program, enum bk_code rc, struct bk_err *err);

/* Numbers in options: decimal, no sign, no rest. */
BK_MUST_USE enum bk_code cmd_number(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out,
                                    struct bk_err *err);

/* A running program. */
struct cmd {
    const char *name;
    struct cmd_common common;
    struct bk_log log;
    struct bk_cancel cancel;
    struct p11 *p11;
    FILE *json;
    int json_owned;
    pthread_mutex_t lines; /* over the terminal, and what follows */
    int progress_shown;
    uint64_t progress_started_ms, progress_last_ms;
    uint64_t progress_from; /* the bytes that were done when the showing began */
};

/*
 * Undumpable, secrets' arena, standard descriptors open, SIGPIPE ignored, SIGINT, SIGTERM and SIGHUP turned into a
 * request to stop; opens the JSON file. Prints help or version and sets *done if that was asked for.
 */
BK_MUST_USE enum bk_code cmd_start(struct cmd *c, const char *name, const struct cmd_common *common, const char *help,
                                   int *done, struct bk_err *err);

/* The token layer, opened at the first call. */
BK_MUST_USE enum bk_code cmd_p11(struct cmd *c, struct p11 **out, struct bk_err *err);

/* Closes everything that cmd_start and cmd_p11 opened; once, also if cmd_start was not called. */
void cmd_end(struct cmd *c);

/* Prints the error and its hint, and returns the exit status; dies by the signal that asked to stop. */
int cmd_exit(const char *name, enum bk_code rc, const struct bk_err *err);

/* The signal that asked to stop, or 0. */
int cmd_signal_seen(void);

/* The exit status of a code: docs/CLI.md, Exit status. */
int cmd_status(enum bk_code rc);

/* What is said and shown, here and below, may come from any thread. A line to standard error, unless quiet. */
void cmd_say(struct cmd *c, const char *fmt, ...) BK_PRINTF(2, 3);
/* A warning; quiet does not silence it. */
void cmd_warn(struct cmd *c, const char *fmt, ...) BK_PRINTF(2, 3);
/* "NAME: KIND TEXT" as one line; text may hold what files and tokens are called, so it is made plain
 * (bk_text_plain). */
void cmd_line(FILE *out, const char *name, const char *kind, const char *text);
/* struct bk_log's progress, ctx is the struct cmd; at most five lines a second, on a terminal or when asked for. */
void cmd_on_progress(void *ctx, uint64_t done, uint64_t total);
/* Takes the progress line off the terminal. */
void cmd_progress_end(struct cmd *c);
/* Nobody else says or shows anything while a person is asked. */
void cmd_lines_hold(struct cmd *c);
void cmd_lines_release(struct cmd *c);

/* One result as one line of JSON, with the members that every object has; fields is taken over (may be NULL).
 * archive_id may be NULL. Nothing happens without --json. */
BK_MUST_USE enum bk_code cmd_json(struct cmd *c, const char *archive, enum bk_code rc, const struct bk_err *result,
                                  const uint8_t *archive_id, uint64_t generation, json_t *fields, struct bk_err *err);

/* A member that is text, such as a name, which need not be UTF-8; null for NULL and "". */
void cmd_json_text(json_t *o, const char *name, const char *text);

/* --json without a file takes standard output: refused when data go there too. */
BK_MUST_USE enum bk_code cmd_json_not_mixed(const struct cmd_common *common, const char *output, struct bk_err *err);

/* The answer of many archives to one exit status. Zero-initialise. */
struct cmd_batch {
    size_t total, failed, verification;
    enum bk_code first;
    int stop; /* a refused PIN or a request to stop: the rest is not tried */
};
void cmd_batch_add(struct cmd_batch *b, enum bk_code rc);
/* BK_OK, the only archive's own code, or BK_E_BATCH / the verification code; *err then sums up. Each failure was
 * printed when it happened (cmd_report). */
enum bk_code cmd_batch_code(const struct cmd_batch *b);
/* Prints one archive's failure as an error line with its hint. */
void cmd_report(struct cmd *c, const char *archive, const struct bk_err *err);

/* pin.c: the answer to a token's question for its PIN; ctx is the struct cmd. docs/CLI.md, PINs. */
enum bk_code cmd_pin(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err);

/* BK_E_USAGE for a value that should be a PKCS#11 URI. It is not shown, since a mistyped one may hold a PIN. */
BK_MUST_USE enum bk_code cmd_no_uri(const char *option, struct bk_err *err);

/* Warns of a PIN in a URI on the command line, which everybody on the host can see. */
void cmd_warn_pin_value(struct cmd *c, const char *uri);

/* Options that several programs have, turned into what ops/ takes. */
BK_MUST_USE enum bk_code cmd_load_trust(struct ops_trust *t, const struct cmd_list *list, struct bk_err *err);
BK_MUST_USE enum bk_code cmd_load_expect(struct ops_expect *e, const struct cmd_list *list, uint64_t min_generation,
                                         struct bk_err *err);

/* The value of --engine, and what it means here: chosen and checked; a warning says if the fastest one failed its
 * check. NULL is auto. docs/CLI.md, Speed. */
BK_MUST_USE enum bk_code cmd_engine_name(const char *value, const char **out, struct bk_err *err);
BK_MUST_USE enum bk_code cmd_engine(struct cmd *c, const char *name, const struct bk_engine **out, struct bk_err *err);

/* "1.3 GiB". Returns out. */
char *cmd_size(uint64_t bytes, char out[16]);

#endif
