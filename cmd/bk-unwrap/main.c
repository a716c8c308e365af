/* bk-unwrap: checks and restores a backup. */
#include "cmd/bk-unwrap/args.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pipeline.h"
#include "ops/unwrap.h"
#include "store/guard.h"

/* PostgreSQL takes 1 to 125 from a restore_command as "no such segment" and opens the database without it; 126 and more
 * stop it. PostgreSQL manual, Recovering Using a Continuous Archive Backup. */
#define RESTORE_COMMAND_ABSENT 1
#define RESTORE_COMMAND_FAILED 126

struct unwrap {
    struct cmd cmd;
    struct ops_trust trust;
    struct ops_expect expect;
    struct ops_keyring ring;
    struct ops_unwrap_result result;
};

static enum bk_code
load(struct unwrap *u, const struct unwrap_args *a, struct bk_err *err)
{
    enum bk_code rc;

    for (size_t i = 0; i < a->keys.count; i++)
        cmd_warn_pin_value(&u->cmd, a->keys.items[i]);
    if ((rc = cmd_load_trust(&u->trust, &a->trust, err)) != BK_OK)
        return rc;
    if ((rc = cmd_load_expect(&u->expect, &a->expect, a->min_generation, err)) != BK_OK)
        return rc;
    u->ring.uris = a->keys.items;
    u->ring.uri_count = a->keys.count;
    return cmd_p11(&u->cmd, &u->ring.p11, err);
}

static enum bk_code
run(struct unwrap *u, const struct unwrap_args *a, struct bk_err *err)
{
    struct ops_unwrap req = {
        .archive = a->archive,
        .output = a->output,
        .command = a->command,
        .force = a->force,
        .workers = a->jobs == 0 ? bk_cores() : (size_t)a->jobs,
        .direct = a->direct,
        .ring = &u->ring,
        .trust = &u->trust,
        .expect = &u->expect,
        .manifest_path = a->manifest,
        .allow_unverified = a->allow_unverified,
        .has_range = a->has_range,
        .offset = a->offset,
        .length = a->length,
        .meta_only = a->meta,
        .log = &u->cmd.log,
        .cancel = &u->cmd.cancel,
    };
    enum bk_code rc;

    if (!a->meta && a->output != NULL && strcmp(a->output, "-") == 0 && isatty(STDOUT_FILENO))
        return bk_fail(err, BK_E_USAGE, "a backup is not for the eye: standard output is a terminal");
    if ((rc = cmd_engine(&u->cmd, a->engine, &req.engine, err)) != BK_OK)
        return rc;
    if ((rc = load(u, a, err)) != BK_OK)
        return rc;
    rc = ops_unwrap_run(&req, &u->result, err);
    if (rc != BK_OK && strncmp(err->message, a->archive, strlen(a->archive)) != 0)
        bk_err_prefix(err, "%s", a->archive);
    return rc;
}

static void
tell(struct unwrap *u, const struct unwrap_args *a)
{
    char id[BK_UUID_TEXT], size[16], key[BK_KEY_ID_TEXT];

    if (!a->meta)
        cmd_say(&u->cmd, "%s: %s restored and verified; archive %s, opened by %s", a->archive,
                cmd_size(u->result.plaintext_length, size), bk_uuid_text(u->result.archive_id, id),
                bk_key_id_text(&u->result.opened_by, key));
}

static enum bk_code
report(struct unwrap *u, const struct unwrap_args *a, enum bk_code rc, struct bk_err *err)
{
    struct bk_err json_err = {0};
    char key[BK_KEY_ID_TEXT];
    json_t *fields = NULL;
    enum bk_code json_rc;

    if (rc == BK_OK) {
        tell(u, a);
        fields = json_pack("{s:I, s:s}", "plaintextLength", (json_int_t)u->result.plaintext_length, "openedBy",
                           bk_key_id_text(&u->result.opened_by, key));
    }
    json_rc = cmd_json(&u->cmd, a->archive, rc, err, u->result.archive_id, u->result.generation, fields, &json_err);
    if (rc == BK_OK && json_rc != BK_OK)
        *err = json_err;
    return rc == BK_OK ? json_rc : rc;
}

/* Seen before the command line is parsed: one that is refused must not pass for the end of the archive either. */
static int
restore_command_asked(char **argv)
{
    for (size_t i = 1; argv[i] != NULL && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--restore-command") == 0)
            return 1;
    return 0;
}

/* Where the folder is missing too (an archive that is not mounted), nothing is known about the end of the archive. */
static int
folder_exists(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash == NULL || slash == path ? strdup(slash == NULL ? "." : "/") : strndup(path, (size_t)(slash - path));
    struct stat st;
    int exists = folder != NULL && stat(folder, &st) == 0 && S_ISDIR(st.st_mode);

    free(folder);
    return exists;
}

static int
restore_command_status(enum bk_code rc, const struct bk_err *err, const char *archive)
{
    if (rc == BK_OK)
        return 0;
    return rc == BK_E_IO && err->os_errno == ENOENT && err->layer != NULL && strcmp(err->layer, "file") == 0 &&
                   folder_exists(archive)
               ? RESTORE_COMMAND_ABSENT
               : RESTORE_COMMAND_FAILED;
}

int
main(int argc, char **argv)
{
    struct unwrap_args args = {0};
    struct unwrap u = {.cmd.cancel.fd = -1};
    struct bk_err err = {0};
    int done = 0;

    if (store_guard_called(argv))
        return store_guard_main(argv);
    enum bk_code rc = unwrap_args(argc, argv, &args, &err);
    if (rc == BK_OK)
        rc = cmd_start(&u.cmd, "bk-unwrap", &args.common, unwrap_help, &done, &err);
    if (rc == BK_OK && !done)
        rc = report(&u, &args, run(&u, &args, &err), &err);
    int restore_command = restore_command_asked(argv);
    ops_trust_free(&u.trust);
    cmd_end(&u.cmd);
    unwrap_args_free(&args);
    int status = cmd_exit("bk-unwrap", rc, &err);
    return restore_command ? restore_command_status(rc, &err, args.archive) : status;
}
