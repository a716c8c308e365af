/* bk-wrap: encrypts and signs a backup. */
#include "cmd/bk-wrap/wrap.h"

#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/pipeline.h"

/* The next recipients: those of files, or from here to the last. */
static enum bk_code
add_recipients(struct wrap *w, const struct wrap_args *a, struct p11 *p11, size_t *next, int files_only,
               struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (; *next < a->recipients.count && rc == BK_OK; (*next)++) {
        const char *text = a->recipients.items[*next];

        if (files_only && p11_is_uri(text))
            break;
        cmd_warn_pin_value(&w->cmd, text);
        rc = ops_recipients_add(&w->recipients, p11, text, &w->cmd.log, err);
    }
    return rc;
}

/* Files are read while the token's process starts: each takes some milliseconds. */
static enum bk_code
open_keys(struct wrap *w, const struct wrap_args *a, struct bk_err *err)
{
    struct p11 *p11;
    size_t next = 0;
    enum bk_code rc = cmd_p11(&w->cmd, &p11, err);

    w->recipients.profiles = &w->profiles;
    cmd_warn_pin_value(&w->cmd, a->sign);
    if (rc == BK_OK)
        rc = cmd_token_profiles_read(&a->token_profiles, &w->profiles, err);
    if (rc != BK_OK)
        return rc;
    p11_prepare(p11, a->sign);
    if ((rc = add_recipients(w, a, p11, &next, 1, err)) != BK_OK)
        return rc;
    if ((rc = ops_signer_open(&w->signer, p11, a->sign, a->sign_cert, err)) != BK_OK)
        return rc;
    return add_recipients(w, a, p11, &next, 0, err);
}

/* PKCS#11 logins are token-wide: who can sign with a token can use every other key on it. */
static enum bk_code
warn_same_login(struct wrap *w, struct bk_err *err)
{
    struct bk_key_id ids[P11_SAME_LOGIN_MAX];
    int holds[P11_SAME_LOGIN_MAX] = {0};
    char id[BK_KEY_ID_TEXT];
    enum bk_code rc;

    for (size_t i = 0; i < w->recipients.count; i++)
        ids[i] = w->recipients.items[i].pub.id;
    rc = p11_same_login_holds(w->signer.key, ids, w->recipients.count, holds, err);
    for (size_t i = 0; i < w->recipients.count && rc == BK_OK; i++)
        if (holds[i])
            cmd_warn(&w->cmd,
                     "the login that signs can also open what it wraps: recipient %s is on the signer's own "
                     "token; keep them on different tokens",
                     bk_key_id_text(&ids[i], id));
    return rc;
}

static enum bk_code
fill_request(struct wrap *w, const struct wrap_args *a, struct ops_wrap *req, struct bk_err *err)
{
    enum bk_code rc;

    req->recipients = &w->recipients;
    req->command = a->command;
    req->input = a->input;
    req->output = a->output;
    req->manifest_copy = a->manifest_copy;
    req->detach = a->detach;
    req->force = a->force;
    req->allow_empty = a->allow_empty;
    req->workers = a->jobs == 0 ? bk_cores() : (size_t)a->jobs;
    req->direct = a->direct;
    req->kind = a->kind;
    (void)snprintf(req->label, sizeof req->label, "%s", a->label == NULL ? "" : a->label);
    (void)snprintf(req->sequence, sizeof req->sequence, "%s", a->sequence == NULL ? "" : a->sequence);
    req->has_retain_until = a->retain_until != NULL;
    req->retain_until = a->retain_until_time;
    req->metadata = a->metadata;
    req->metadata_count = a->metadata_count;
    req->log = &w->cmd.log;
    req->cancel = &w->cmd.cancel;
    req->has_parent = a->parent != NULL;
    if ((rc = cmd_engine(&w->cmd, a->engine, &req->engine, err)) != BK_OK)
        return rc;
    return a->parent == NULL ? BK_OK : ops_wrap_parent(a->parent, &req->parent, err);
}

static enum bk_code
refuse_terminals(const struct wrap_args *a, struct bk_err *err)
{
    if (a->batch != NULL)
        return BK_OK; /* its inputs and outputs have names, and a list may be typed */
    if (strcmp(a->output, "-") == 0 && isatty(STDOUT_FILENO))
        return bk_fail(err, BK_E_USAGE, "an archive is not for the eye: standard output is a terminal");
    if (a->command == NULL && a->input == NULL && isatty(STDIN_FILENO))
        return bk_fail(err, BK_E_USAGE,
                       "nothing to wrap: no command after --, no file, and standard input is a terminal");
    return BK_OK;
}

static void
tell(struct wrap *w, const char *output)
{
    char id[BK_UUID_TEXT], digest[65], size[16];

    cmd_say(&w->cmd, "%s: %s wrapped for %zu recipient%s; archive %s, manifest %s", output,
            cmd_size(w->result.plaintext_length, size), w->recipients.count, w->recipients.count == 1 ? "" : "s",
            bk_uuid_text(w->result.archive_id, id), bk_hex(w->result.manifest_digest, 32, digest));
}

static json_t *
json_fields(const struct wrap *w)
{
    char digest[65];

    return json_pack("{s:I, s:I, s:s, s:I}", "plaintextLength", (json_int_t)w->result.plaintext_length, "archiveLength",
                     (json_int_t)w->result.archive_length, "manifestDigest",
                     bk_hex(w->result.manifest_digest, 32, digest), "recipients", (json_int_t)w->recipients.count);
}

enum bk_code
wrap_tell(struct wrap *w, const char *output, const char *input, enum bk_code rc, const struct bk_err *result,
          struct bk_err *err)
{
    json_t *fields = rc == BK_OK ? json_fields(w) : json_object();

    if (rc == BK_OK)
        tell(w, output);
    if (input != NULL)
        cmd_json_text(fields, "input", input);
    return cmd_json(&w->cmd, output, rc, result, w->result.archive_id, rc == BK_OK ? 1 : 0, fields, err);
}

static enum bk_code
prepare(struct wrap *w, const struct wrap_args *a, struct ops_wrap *req, struct bk_err *err)
{
    enum bk_code rc;

    if ((rc = refuse_terminals(a, err)) != BK_OK)
        return rc;
    if ((rc = open_keys(w, a, err)) != BK_OK)
        return rc;
    if ((rc = warn_same_login(w, err)) != BK_OK)
        return rc;
    w->signing = (struct bk_signing_key){w->signer.key, w->signer.cert.data, w->signer.cert.len};
    req->signers = &w->signing;
    req->signer_count = 1;
    return fill_request(w, a, req, err);
}

static enum bk_code
wrap_one(struct wrap *w, const struct wrap_args *a, struct bk_err *err)
{
    struct ops_wrap req = {0};
    struct bk_err json_err = {0};
    enum bk_code rc = prepare(w, a, &req, err), json_rc;

    if (rc == BK_OK)
        rc = ops_wrap_run(&req, &w->result, err);
    json_rc = wrap_tell(w, a->output, NULL, rc, err, &json_err);
    if (rc == BK_OK && json_rc != BK_OK)
        *err = json_err;
    return rc == BK_OK ? json_rc : rc;
}

static enum bk_code
wrap_many(struct wrap *w, const struct wrap_args *a, struct bk_err *err)
{
    struct ops_wrap req = {0};
    enum bk_code rc = prepare(w, a, &req, err);

    return rc == BK_OK ? wrap_batch(w, a, &req, err) : rc;
}

int
main(int argc, char **argv)
{
    struct wrap_args args = {0};
    struct wrap w = {.cmd.cancel.fd = -1};
    struct bk_err err = {0};
    int done = 0;

    enum bk_code rc = wrap_args(argc, argv, &args, &err);
    if (rc == BK_OK && !args.common.help && !args.common.version)
        rc = wrap_load_notes(&args, &err);
    if (rc == BK_OK)
        rc = cmd_start(&w.cmd, "bk-wrap", &args.common, wrap_help, &done, &err);
    if (rc == BK_OK && !done)
        rc = args.batch != NULL ? wrap_many(&w, &args, &err) : wrap_one(&w, &args, &err);
    ops_recipients_free(&w.recipients);
    ops_token_profiles_free(&w.profiles);
    ops_signer_close(&w.signer);
    cmd_end(&w.cmd);
    wrap_args_free(&args);
    return cmd_exit("bk-wrap", rc, &err);
}
