/* bk-key: makes, lists and exports keys on tokens. */
#include "cmd/bk-key/args.h"
#include "cmd/bk-key/verbs.h"

int
main(int argc, char **argv)
{
    struct key_args args = {0};
    struct cmd cmd = {.cancel.fd = -1};
    struct bk_err err = {0};
    int done = 0;

    enum bk_code rc = key_args(argc, argv, &args, &err);
    if (rc == BK_OK)
        rc = cmd_start(&cmd, "bk-key", &args.common, key_help, &done, &err);
    if (rc == BK_OK && !done)
        rc = key_run(&cmd, &args, &err);
    cmd_end(&cmd);
    key_args_free(&args);
    return cmd_exit("bk-key", rc, &err);
}
