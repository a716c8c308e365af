/* bk-verify: proves that backups are whole, with public keys alone. */
#include "cmd/bk-verify/args.h"
#include "cmd/bk-verify/show.h"

#include <limits.h>
#include <string.h>

#include "base/pipeline.h"
#include "base/text.h"

struct verify {
    struct cmd cmd;
    struct ops_trust trust;
    struct ops_expect expect;
    struct ops_keyring ring;
    int show_only; /* nothing to verify against: only what the archive says of itself */
    const struct bk_engine *engine;
    struct cmd_batch batch;
};

static const char *const level_names[] = {"signature", "integrity", "decrypt"};

static enum bk_code
load(struct verify *v, const struct verify_args *a, struct bk_err *err)
{
    enum bk_code rc;

    for (size_t i = 0; i < a->keys.count; i++)
        cmd_warn_pin_value(&v->cmd, a->keys.items[i]);
    if ((rc = cmd_load_trust(&v->trust, &a->trust, err)) != BK_OK)
        return rc;
    if ((rc = cmd_load_expect(&v->expect, &a->expect, a->min_generation, err)) != BK_OK)
        return rc;
    if ((rc = cmd_engine(&v->cmd, a->engine, &v->engine, err)) != BK_OK)
        return rc;
    v->show_only = a->show && a->trust.count == 0;
    if (a->level != OPS_LEVEL_DECRYPT || v->show_only)
        return BK_OK;
    v->ring.uris = a->keys.items;
    v->ring.uri_count = a->keys.count;
    return cmd_p11(&v->cmd, &v->ring.p11, err);
}

/* FORMAT.md, Order of checks: an archive alone cannot show that it is the newest. */
static int
fresh(const struct verify *v, const struct verify_args *a)
{
    return ops_expect_fresh(&v->expect) || a->manifest != NULL;
}

static void
tell(struct verify *v, const struct verify_args *a, const char *name, const struct ops_archive *archive)
{
    char size[16], plain[PATH_MAX];

    cmd_progress_end(&v->cmd);
    if (v->cmd.json == stdout)
        return;
    if (a->show)
        show_archive(name, archive, !v->show_only);
    if (!v->show_only && !a->common.quiet)
        (void)printf("%s: ok (%s), %s, generation %llu%s\n", bk_text_plain(plain, sizeof plain, name, strlen(name)),
                     level_names[a->level], cmd_size(archive->manifest.plaintext_length, size),
                     (unsigned long long)archive->record.generation, fresh(v, a) ? "" : ", freshness not checked");
}

static json_t *
json_fields(const struct verify *v, const struct verify_args *a, const struct ops_archive *archive)
{
    json_t *fields = a->show ? show_json(archive) : json_object();
    const char *level = v->show_only ? "none" : level_names[a->level];

    (void)json_object_set_new(fields, "level", json_string(level));
    (void)json_object_set_new(fields, "freshnessChecked", json_boolean(fresh(v, a)));
    return fields;
}

static enum bk_code
verify_one(struct verify *v, const struct verify_args *a, const char *name, struct bk_err *err)
{
    struct ops_verify req = {.archive = name,
                             .level = v->show_only ? OPS_LEVEL_SIGNATURE : a->level,
                             .trust = v->show_only ? NULL : &v->trust,
                             .ring = &v->ring,
                             .expect = &v->expect,
                             .manifest_path = a->manifest,
                             .engine = v->engine,
                             .direct = a->direct,
                             .workers = a->jobs == 0 ? bk_cores() : (size_t)a->jobs,
                             .log = &v->cmd.log,
                             .cancel = &v->cmd.cancel};
    struct ops_archive archive = {0};
    struct store_source *src = NULL;
    struct bk_err result = {0};
    enum bk_code rc = ops_verify_run(&req, &archive, &src, &result), json_rc;

    if (rc == BK_OK)
        tell(v, a, name, &archive);
    else
        cmd_report(&v->cmd, name, &result);
    json_rc = cmd_json(&v->cmd, name, rc, &result, archive.preamble.archive_id, archive.record.generation,
                       rc == BK_OK ? json_fields(v, a, &archive) : NULL, err);
    cmd_batch_add(&v->batch, rc);
    ops_archive_free(&archive);
    store_source_close(src);
    return json_rc;
}

static enum bk_code
run(struct verify *v, const struct verify_args *a, struct bk_err *err)
{
    enum bk_code rc = load(v, a, err);

    for (size_t i = 0; i < a->archive_count && rc == BK_OK && !v->batch.stop; i++)
        rc = verify_one(v, a, a->archives[i], err);
    if (rc == BK_OK && fflush(stdout) != 0)
        rc = bk_fail(err, BK_E_IO, "cannot write to standard output");
    return rc == BK_OK ? cmd_batch_code(&v->batch) : rc;
}

int
main(int argc, char **argv)
{
    struct verify_args args = {0};
    struct verify v = {.cmd.cancel.fd = -1};
    struct bk_err err = {0};
    int done = 0;

    enum bk_code rc = verify_args(argc, argv, &args, &err);
    if (rc == BK_OK)
        rc = cmd_start(&v.cmd, "bk-verify", &args.common, verify_help, &done, &err);
    if (rc == BK_OK && !done)
        rc = run(&v, &args, &err);
    ops_trust_free(&v.trust);
    cmd_end(&v.cmd);
    verify_args_free(&args);
    return cmd_exit("bk-verify", rc, &err);
}
