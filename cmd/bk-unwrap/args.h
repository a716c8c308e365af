/* bk-unwrap's command line. docs/CLI.md. */
#ifndef BK_CMD_UNWRAP_ARGS_H
#define BK_CMD_UNWRAP_ARGS_H

#include "cmd/common/cmd.h"

struct unwrap_args {
    struct cmd_common common;
    struct cmd_list keys;
    struct cmd_list trust;
    struct cmd_list expect;
    const char *output;
    const char *manifest;
    uint64_t min_generation;
    uint64_t jobs;
    const char *engine; /* NULL: auto */
    int direct;
    int force;
    int has_range;
    uint64_t offset;
    uint64_t length;
    int meta;
    int restore_command;
    int allow_unverified;
    const char *archive;
    char **command;
};

extern const char unwrap_help[];

/* Parses and checks without opening anything. */
BK_MUST_USE enum bk_code unwrap_args(int argc, char **argv, struct unwrap_args *a, struct bk_err *err);
void unwrap_args_free(struct unwrap_args *a);

#endif
