/* bk-rekey's command line. docs/CLI.md. */
#ifndef BK_CMD_REKEY_ARGS_H
#define BK_CMD_REKEY_ARGS_H

#include "cmd/common/cmd.h"
#include "cmd/common/token_profile.h"
#include "ops/rekey.h"

struct rekey_args {
    struct cmd_common common;
    const char *from;
    const char *to;
    struct cmd_list add;
    struct bk_key_id *remove;
    size_t remove_count;
    const char *sign;
    const char *sign_cert;
    struct cmd_list trust;
    struct cmd_list token_profiles;
    enum ops_blind blind;
    int unproven;
    int dry_run;
    int sidecar;
    const char *reason;
    char **archives;
    size_t archive_count;
};

extern const char rekey_help[];

/* Parses and checks without opening anything. */
BK_MUST_USE enum bk_code rekey_args(int argc, char **argv, struct rekey_args *a, struct bk_err *err);
void rekey_args_free(struct rekey_args *a);

#endif
