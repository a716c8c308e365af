/* bk-wrap's command line. docs/CLI.md. */
#ifndef BK_CMD_WRAP_ARGS_H
#define BK_CMD_WRAP_ARGS_H

#include "cmd/common/cmd.h"
#include "format/key_package.h"
#include "ops/wrap.h"

struct wrap_args {
    struct cmd_common common;
    struct cmd_list recipients;
    const char *sign;
    const char *sign_cert;
    const char *output;
    const char *manifest_copy;
    const char *parent;
    struct bk_metadata_item *metadata; /* key points into keys, value into argv */
    size_t metadata_count;
    char **keys;
    int detach;
    int force;
    int allow_empty;
    uint64_t jobs; /* 0: as many as there are cores */
    enum bk_kind kind;
    const char *label;
    const char *sequence;
    const char *retain_until;
    time_t retain_until_time;
    const char *input; /* NULL: standard input or the command */
    char **command;
};

extern const char wrap_help[];

/* Parses and checks without opening anything. */
BK_MUST_USE enum bk_code wrap_args(int argc, char **argv, struct wrap_args *a, struct bk_err *err);
void wrap_args_free(struct wrap_args *a);

#endif
