/* bk-rekey: changes who can open backups, without touching the payload. */
#include "cmd/bk-rekey/args.h"

#include <string.h>

struct rekey {
    struct cmd cmd;
    struct ops_trust trust;
    struct ops_keyring from;
    struct ops_token_profiles profiles;
    struct ops_recipients to;
    struct ops_recipients add;
    struct ops_signer signer;
    struct cmd_batch batch;
};

static enum bk_code
load_recipients(struct rekey *r, const struct rekey_args *a, struct p11 *p11, struct bk_err *err)
{
    enum bk_code rc = cmd_token_profiles_read(&a->token_profiles, &r->profiles, err);

    r->to.profiles = &r->profiles;
    r->add.profiles = &r->profiles;
    if (rc == BK_OK && a->to != NULL)
        rc = ops_recipients_add(&r->to, p11, a->to, &r->cmd.log, err);
    if (rc == BK_OK && r->to.count > 1)
        rc = bk_fail(err, BK_E_USAGE, "--to: %s holds %zu keys; one takes the old one's place, others come with --add",
                     a->to, r->to.count);
    for (size_t i = 0; i < a->add.count && rc == BK_OK; i++)
        rc = ops_recipients_add(&r->add, p11, a->add.items[i], &r->cmd.log, err);
    return rc;
}

static enum bk_code
load(struct rekey *r, const struct rekey_args *a, struct bk_err *err)
{
    struct p11 *p11;
    enum bk_code rc;

    cmd_warn_pin_value(&r->cmd, a->from);
    cmd_warn_pin_value(&r->cmd, a->sign);
    if (a->to != NULL)
        cmd_warn_pin_value(&r->cmd, a->to);
    for (size_t i = 0; i < a->add.count; i++)
        cmd_warn_pin_value(&r->cmd, a->add.items[i]);
    if ((rc = cmd_load_trust(&r->trust, &a->trust, err)) != BK_OK)
        return rc;
    if ((rc = cmd_p11(&r->cmd, &p11, err)) != BK_OK)
        return rc;
    r->from.p11 = p11;
    r->from.uris = &a->from;
    r->from.uri_count = 1;
    r->from.option = "--from";
    if ((rc = ops_signer_open(&r->signer, p11, a->sign, a->sign_cert, err)) != BK_OK)
        return rc;
    return load_recipients(r, a, p11, err);
}

static void
tell(struct rekey *r, const struct rekey_args *a, const char *name, const struct ops_rekey_result *result)
{
    const char *would = a->dry_run ? " (dry run: nothing was written)" : "";

    if (result->changed)
        cmd_say(&r->cmd, "%s: rekeyed, generation %llu, blindness %s%s%s", name, (unsigned long long)result->generation,
                bk_blindness_name(result->blindness),
                result->old_stays ? "; the old key stays until the new one is proven" : "", would);
    else if (result->mended)
        cmd_say(&r->cmd, "%s: its slots agree again, generation %llu%s", name, (unsigned long long)result->generation,
                would);
    else
        cmd_say(&r->cmd, "%s: nothing to change, generation %llu%s", name, (unsigned long long)result->generation,
                result->old_stays ? "; the old key stays until the new one is proven" : "");
}

static json_t *
json_fields(const struct rekey_args *a, const struct ops_rekey_result *result)
{
    return json_pack("{s:b, s:b, s:b, s:b, s:s, s:I, s:I}", "changed", result->changed, "mended", result->mended,
                     "oldStays", result->old_stays, "dryRun", a->dry_run, "blindness",
                     bk_blindness_name(result->blindness), "bytesRead", (json_int_t)result->bytes_read, "bytesWritten",
                     (json_int_t)result->bytes_written);
}

static enum bk_code
rekey_one(struct rekey *r, const struct rekey_args *a, const char *name, struct bk_err *err)
{
    const struct bk_signing_key signing = {r->signer.key, r->signer.cert.data, r->signer.cert.len};
    const struct ops_rekey req = {.from = &r->from,
                                  .to = &r->to,
                                  .add = &r->add,
                                  .remove = a->remove,
                                  .remove_count = a->remove_count,
                                  .p11 = r->from.p11,
                                  .signers = &signing,
                                  .signer_count = 1,
                                  .trust = &r->trust,
                                  .blind = a->blind,
                                  .unproven = a->unproven,
                                  .reason = a->reason,
                                  .dry_run = a->dry_run,
                                  .sidecar = a->sidecar,
                                  .log = &r->cmd.log,
                                  .cancel = &r->cmd.cancel};
    struct ops_rekey_result result = {0};
    struct bk_err failure = {0};
    enum bk_code rc = ops_rekey_run(&req, name, &result, &failure);

    if (rc == BK_OK)
        tell(r, a, name, &result);
    else
        cmd_report(&r->cmd, name, &failure);
    cmd_batch_add(&r->batch, rc);
    return cmd_json(&r->cmd, name, rc, &failure, result.archive_id, result.generation,
                    rc == BK_OK ? json_fields(a, &result) : NULL, err);
}

static enum bk_code
run(struct rekey *r, const struct rekey_args *a, struct bk_err *err)
{
    enum bk_code rc = load(r, a, err);

    for (size_t i = 0; i < a->archive_count && rc == BK_OK && !r->batch.stop; i++)
        rc = rekey_one(r, a, a->archives[i], err);
    return rc == BK_OK ? cmd_batch_code(&r->batch) : rc;
}

int
main(int argc, char **argv)
{
    struct rekey_args args = {0};
    struct rekey r = {.cmd.cancel.fd = -1};
    struct bk_err err = {0};
    int done = 0;

    enum bk_code rc = rekey_args(argc, argv, &args, &err);
    if (rc == BK_OK)
        rc = cmd_start(&r.cmd, "bk-rekey", &args.common, rekey_help, &done, &err);
    if (rc == BK_OK && !done)
        rc = run(&r, &args, &err);
    ops_trust_free(&r.trust);
    ops_recipients_free(&r.to);
    ops_recipients_free(&r.add);
    ops_token_profiles_free(&r.profiles);
    ops_signer_close(&r.signer);
    cmd_end(&r.cmd);
    rekey_args_free(&args);
    return cmd_exit("bk-rekey", rc, &err);
}
