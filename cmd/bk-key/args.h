/* bk-key's command line. docs/CLI.md. */
#ifndef BK_CMD_KEY_ARGS_H
#define BK_CMD_KEY_ARGS_H

#include "cmd/common/cmd.h"
#include "cmd/common/token_profile.h"

enum key_verb { KEY_GENERATE, KEY_LIST, KEY_SHOW, KEY_EXPORT, KEY_PROBE, KEY_AUDIT };

struct key_args {
    struct cmd_common common;
    enum key_verb verb;
    const char *uri; /* NULL for a list of everything */
    int has_type;
    enum p11_key_kind type;
    const char *use; /* "kek" or "sign" */
    const char *owner;
    const char *output;
    int force;
    int on_token;          /* probe: with keys on the token, removed again */
    const char *sign;      /* probe: the key that signs the profile */
    const char *sign_cert; /* its certificate; NULL: on the token */
    const char *against;   /* probe: an earlier profile */
    struct cmd_list trust;
    uint64_t days;
    uint64_t max_age; /* days; 0: any */
};

extern const char key_help[];

/* Parses and checks without opening anything. */
BK_MUST_USE enum bk_code key_args(int argc, char **argv, struct key_args *a, struct bk_err *err);
void key_args_free(struct key_args *a);

#endif
