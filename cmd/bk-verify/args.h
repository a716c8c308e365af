/* bk-verify's command line. docs/CLI.md. */
#ifndef BK_CMD_VERIFY_ARGS_H
#define BK_CMD_VERIFY_ARGS_H

#include "cmd/common/cmd.h"
#include "ops/verify.h"

struct verify_args {
    struct cmd_common common;
    enum ops_level level;
    struct cmd_list keys;
    int key_asked; /* on the command line */
    struct cmd_list trust;
    struct cmd_list expect;
    const char *manifest;
    uint64_t min_generation;
    uint64_t jobs;
    const char *engine; /* NULL: auto */
    int direct;
    int show;
    char **archives;
    size_t archive_count;
};

extern const char verify_help[];

/* Parses and checks without opening anything. */
BK_MUST_USE enum bk_code verify_args(int argc, char **argv, struct verify_args *a, struct bk_err *err);
void verify_args_free(struct verify_args *a);

#endif
