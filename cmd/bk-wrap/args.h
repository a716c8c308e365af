/* bk-wrap's command line. docs/CLI.md. */
#ifndef BK_CMD_WRAP_ARGS_H
#define BK_CMD_WRAP_ARGS_H

#include "base/buf.h"
#include "cmd/common/cmd.h"
#include "cmd/common/token_profile.h"
#include "format/key_package.h"
#include "ops/wrap.h"

struct wrap_args {
    struct cmd_common common;
    struct cmd_list recipients;
    struct cmd_list token_profiles;
    const char *sign;
    const char *sign_cert;
    const char *output;
    const char *batch; /* a list of inputs and outputs, or NULL */
    int null;          /* its fields end with a NUL */
    const char *manifest_copy;
    const char *parent;
    struct bk_metadata_item *metadata; /* key points into keys, value into argv or notes */
    size_t metadata_count;
    char **keys;
    struct cmd_list meta_files;
    struct bk_buf *notes; /* what wrap_load_notes has read */
    size_t note_count;
    int detach;
    int force;
    int allow_empty;
    uint64_t jobs;      /* 0: as many as there are cores */
    const char *engine; /* NULL: auto */
    int direct;
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

/* One more KEY=VALUE, which the caller keeps until wrap_args_free. */
BK_MUST_USE enum bk_code wrap_args_note(struct wrap_args *a, const char *text, struct bk_err *err);

/* notes.c: reads every --meta-file into the metadata, after what --meta gave. */
BK_MUST_USE enum bk_code wrap_load_notes(struct wrap_args *a, struct bk_err *err);

/* The lines of one file's text (NUL-terminated, cut into its lines, kept until wrap_args_free): empty lines and lines
 * that begin with # are no notes. path is for messages. */
BK_MUST_USE enum bk_code wrap_take_notes(struct wrap_args *a, const char *path, char *text, size_t len,
                                         struct bk_err *err);

void wrap_args_free(struct wrap_args *a);

#endif
