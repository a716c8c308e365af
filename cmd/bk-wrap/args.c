#include "cmd/bk-wrap/args.h"

#include <stdlib.h>
#include <string.h>

enum {
    OPT_SIGN_CERT = CMD_OPT_OWN,
    OPT_KIND,
    OPT_LABEL,
    OPT_RETAIN,
    OPT_PARENT,
    OPT_SEQUENCE,
    OPT_META,
    OPT_META_FILE,
    OPT_MANIFEST,
    OPT_ALLOW_EMPTY,
    OPT_DETACH,
    OPT_FORCE,
    OPT_TOKEN_PROFILE,
    OPT_BATCH,
    OPT_ENGINE,
    OPT_DIRECT,
};

static const struct option options[] = {
    CMD_COMMON_OPTIONS,
    {"recipient", required_argument, NULL, 'r'},
    {"sign", required_argument, NULL, 's'},
    {"sign-cert", required_argument, NULL, OPT_SIGN_CERT},
    {"token-profile", required_argument, NULL, OPT_TOKEN_PROFILE},
    {"output", required_argument, NULL, 'o'},
    {"kind", required_argument, NULL, OPT_KIND},
    {"public-label", required_argument, NULL, OPT_LABEL},
    {"retain-until", required_argument, NULL, OPT_RETAIN},
    {"parent", required_argument, NULL, OPT_PARENT},
    {"sequence", required_argument, NULL, OPT_SEQUENCE},
    {"meta", required_argument, NULL, OPT_META},
    {"meta-file", required_argument, NULL, OPT_META_FILE},
    {"manifest", required_argument, NULL, OPT_MANIFEST},
    {"detach", no_argument, NULL, OPT_DETACH},
    {"allow-empty", no_argument, NULL, OPT_ALLOW_EMPTY},
    {"force", no_argument, NULL, OPT_FORCE},
    {"jobs", required_argument, NULL, 'j'},
    {"batch", required_argument, NULL, OPT_BATCH},
    {"null", no_argument, NULL, '0'},
    {"engine", required_argument, NULL, OPT_ENGINE},
    {"direct", no_argument, NULL, OPT_DIRECT},
    {0},
};

const char wrap_help[] =
    "usage: bk-wrap [options] -r RECIPIENT... -s KEY -o OUT -- COMMAND ARG...\n"
    "       bk-wrap [options] -r RECIPIENT... -s KEY -o OUT [FILE]\n"
    "       bk-wrap [options] -r RECIPIENT... -s KEY --batch LIST\n"
    "\n"
    "Encrypts a backup for its recipients and signs it. With COMMAND, the archive is finished and\n"
    "signed only if the command exits 0; from a pipe bk cannot know that.\n"
    "\n"
    "  -r, --recipient RECIPIENT  who can open it: a PEM file of public keys or certificates, or a\n"
    "                             key's PKCS#11 URI; repeat for more than one\n"
    "  -s, --sign KEY             the signing key's PKCS#11 URI\n"
    "      --sign-cert FILE       its certificate, if that is not on the token\n"
    "      --token-profile FILE   of a recipient's token, by bk-key probe -o: refuse what is weaker than\n"
    "                             that; repeat\n"
    "  -o, --output OUT           a file, or - for standard output\n"
    "      --batch LIST           an archive for each line \"INPUT<TAB>OUTPUT[<TAB>SEQUENCE]\" of a file,\n"
    "                             or - for standard input, with one login\n"
    "  -0, --null                 LIST has its three fields ended by NUL characters instead\n"
    "      --detach               put the wrapped keys into OUT.keys and none into the archive\n"
    "      --manifest FILE        also a copy of the signed manifest, to be kept elsewhere\n"
    "      --kind KIND            full (default), incremental, wal, snapshot or other\n"
    "      --public-label TEXT    a label that everybody can read, signed\n"
    "      --retain-until DATE    2027-01-31 or 2027-01-31T00:00:00Z, signed\n"
    "      --parent ARCHIVE       the backup that this one builds on, signed\n"
    "      --sequence WORDS       \"key=value key=value\", as timeline and LSN, signed\n"
    "      --meta KEY=VALUE       a note that only who can open the archive can read; repeatable\n"
    "      --meta-file FILE       such notes from a file, KEY=VALUE a line; repeatable\n"
    "      --allow-empty          take empty input\n"
    "      --force                replace OUT if it is there\n"
    "  -j, --jobs N               threads (default: the cores)\n"
    "      --engine NAME          auto (default), openssl or ipsec-mb: who encrypts and hashes\n"
    "      --direct               files do not pass through the system's cache\n"
    "      --profile NAME         options from this profile of bk.conf(5)\n"
    "      --config FILE          the file of profiles (default: $BK_CONFIG, the user's, the system's)\n"
    "  -q, --quiet                errors and warnings only\n"
    "      --progress WHEN        auto (default), always or never\n"
    "      --token-timeout N      seconds that one call of a token may take (default 60)\n"
    "      --json[=FILE]          the result as one line of JSON\n"
    "      --help, --version\n"
    "\n"
    "example: bk-wrap -r kek.pem -s 'pkcs11:token=backup;object=signer?pin-source=file:pin' \\\n"
    "                 -o orders.bk -- pg_dump -Fc orders\n"
    "\n"
    "exit status: 0 done, 1 the --parent archive is damaged, 2 usage, 3 token or key not available,\n"
    "             5 input or output failed, 6 some of a batch failed, 7 the command failed,\n"
    "             8 a defect of bk-wrap, 9 PIN refused (do not try again)\n";

enum bk_code
wrap_args_note(struct wrap_args *a, const char *value, struct bk_err *err)
{
    const char *equals = strchr(value, '=');
    struct bk_metadata_item *items = reallocarray(a->metadata, a->metadata_count + 1, sizeof *items);
    char **keys;

    if (items == NULL)
        return bk_fail_nomem(err);
    a->metadata = items;
    if ((keys = reallocarray(a->keys, a->metadata_count + 1, sizeof *keys)) == NULL)
        return bk_fail_nomem(err);
    a->keys = keys;
    if (equals == NULL || equals == value)
        return bk_fail(err, BK_E_USAGE, "\"%s\" is not KEY=VALUE", value);
    if ((keys[a->metadata_count] = strndup(value, (size_t)(equals - value))) == NULL)
        return bk_fail_nomem(err);
    items[a->metadata_count].key = keys[a->metadata_count];
    items[a->metadata_count].value = equals + 1;
    a->metadata_count++;
    return BK_OK;
}

static enum bk_code
take_meta(struct wrap_args *a, const char *value, struct bk_err *err)
{
    enum bk_code rc = wrap_args_note(a, value, err);

    if (rc != BK_OK)
        bk_err_prefix(err, "--meta");
    return rc;
}

static enum bk_code
take_text(const char *option, const char *value, const char **out, struct bk_err *err)
{
    if (!bk_text_valid(value, strlen(value)))
        return bk_fail(err, BK_E_USAGE, "%s: not 1 to %d bytes of UTF-8 without control characters", option,
                       BK_TEXT_MAX);
    *out = value;
    return BK_OK;
}

static enum bk_code
take_retain(struct wrap_args *a, const char *value, struct bk_err *err)
{
    enum bk_code rc = bk_time_from_text(value, &a->retain_until_time, err);

    a->retain_until = value;
    if (rc != BK_OK) {
        rc = err->code = BK_E_USAGE;
        bk_err_prefix(err, "--retain-until");
    }
    return rc;
}

static enum bk_code
take_public(struct wrap_args *a, int option, const char *value, struct bk_err *err)
{
    switch (option) {
    case OPT_KIND:
        if (!bk_kind_from_name(value, &a->kind))
            return bk_fail(err, BK_E_USAGE, "--kind: \"%s\" is none of full, incremental, wal, snapshot, other", value);
        return BK_OK;
    case OPT_LABEL:
        return take_text("--public-label", value, &a->label, err);
    case OPT_SEQUENCE:
        return take_text("--sequence", value, &a->sequence, err);
    case OPT_RETAIN:
        return take_retain(a, value, err);
    default:
        return bk_fail(err, BK_E_INTERNAL, "option %d is in no table", option);
    }
}

static enum bk_code
take_batch(struct wrap_args *a, const char *value, struct bk_err *err)
{
    if (a->batch != NULL)
        return bk_fail(err, BK_E_USAGE, "--batch is given twice");
    a->batch = value;
    return BK_OK;
}

static enum bk_code
take(void *args, int option, const char *value, struct bk_err *err)
{
    struct wrap_args *a = args;

    switch (option) {
    case 'r':
        return cmd_list_add(&a->recipients, value, err);
    case 's':
        a->sign = value;
        return BK_OK;
    case 'o':
        a->output = value;
        return BK_OK;
    case 'j':
        return cmd_number("--jobs", value, 1, 256, &a->jobs, err);
    case OPT_ENGINE:
        return cmd_engine_name(value, &a->engine, err);
    case OPT_DIRECT:
        a->direct = 1;
        return BK_OK;
    case OPT_SIGN_CERT:
        a->sign_cert = value;
        return BK_OK;
    case OPT_PARENT:
        a->parent = value;
        return BK_OK;
    case OPT_MANIFEST:
        a->manifest_copy = value;
        return BK_OK;
    case OPT_META:
        return take_meta(a, value, err);
    case OPT_META_FILE:
        return cmd_list_add(&a->meta_files, value, err);
    case OPT_TOKEN_PROFILE:
        return cmd_list_add(&a->token_profiles, value, err);
    case OPT_ALLOW_EMPTY:
        a->allow_empty = 1;
        return BK_OK;
    case OPT_DETACH:
        a->detach = 1;
        return BK_OK;
    case OPT_FORCE:
        a->force = 1;
        return BK_OK;
    case OPT_BATCH:
        return take_batch(a, value, err);
    case '0':
        a->null = 1;
        return BK_OK;
    default:
        return take_public(a, option, value, err);
    }
}

/* What is one archive's own has no place beside a list of many. */
static enum bk_code
check_batch(const struct wrap_args *a, const struct cmd_rest *rest, struct bk_err *err)
{
    if (rest->operand_count > 0 || rest->command != NULL)
        return bk_fail(err, BK_E_USAGE,
                       "--batch: what is wrapped stands in LIST, neither a file nor a command beside it");
    if (a->output != NULL)
        return bk_fail(err, BK_E_USAGE, "--batch: LIST names the outputs, -o would be one for all");
    if (a->manifest_copy != NULL)
        return bk_fail(err, BK_E_USAGE, "--batch: --manifest would be one file for all");
    if (a->sequence != NULL)
        return bk_fail(err, BK_E_USAGE, "--batch: each archive has its own sequence, the third field of its line");
    return BK_OK;
}

static enum bk_code
check_single(struct wrap_args *a, const struct cmd_rest *rest, struct bk_err *err)
{
    if (rest->operand_count > 1 || (rest->operand_count == 1 && rest->command != NULL))
        return bk_fail(err, BK_E_USAGE, "one thing to wrap at a time: a command after --, a file, or standard input");
    if (a->null)
        return bk_fail(err, BK_E_USAGE, "--null goes with --batch");
    a->input = rest->operand_count == 1 ? rest->operands[0] : NULL;
    a->command = rest->command;
    return BK_OK;
}

static enum bk_code
check(struct wrap_args *a, const struct cmd_rest *rest, struct bk_err *err)
{
    enum bk_code rc = a->batch != NULL ? check_batch(a, rest, err) : check_single(a, rest, err);

    if (rc != BK_OK)
        return rc;
    if (a->recipients.count == 0)
        return bk_fail(err, BK_E_USAGE, "nobody could open it: no recipient (-r)");
    if (a->sign == NULL)
        return bk_fail(err, BK_E_USAGE, "no signing key (-s)");
    if (!p11_is_uri(a->sign))
        return cmd_no_uri("--sign", err);
    if (a->output == NULL && a->batch == NULL)
        return bk_fail(err, BK_E_USAGE, "no output (-o); - is standard output");
    if ((rc = cmd_json_not_mixed(&a->common, a->output, err)) != BK_OK)
        return rc;
    return p11_uri_check(a->sign, err);
}

enum bk_code
wrap_args(int argc, char **argv, struct wrap_args *a, struct bk_err *err)
{
    static const struct cmd_option_set set = {options, "r:s:o:j:0", take};
    struct cmd_rest rest = {0};
    enum bk_code rc = cmd_parse(argc, argv, &set, a, &a->common, &rest, err);

    if (rc != BK_OK || a->common.help || a->common.version)
        return rc;
    return cmd_usage(argv[0], check(a, &rest, err), err);
}

void
wrap_args_free(struct wrap_args *a)
{
    for (size_t i = 0; i < a->metadata_count; i++)
        free(a->keys[i]);
    free(a->keys);
    free(a->metadata);
    for (size_t i = 0; i < a->note_count; i++)
        bk_buf_free(&a->notes[i]);
    free(a->notes);
    cmd_list_free(&a->meta_files);
    cmd_list_free(&a->recipients);
    cmd_list_free(&a->token_profiles);
    cmd_common_free(&a->common);
}
