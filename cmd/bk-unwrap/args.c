#include "cmd/bk-unwrap/args.h"

#include <stdlib.h>
#include <string.h>

enum {
    OPT_RANGE = CMD_OPT_OWN,
    OPT_META,
    OPT_EXPECT,
    OPT_MIN_GENERATION,
    OPT_MANIFEST,
    OPT_ALLOW_UNVERIFIED,
    OPT_RAW_RSA,
    OPT_RESTORE_COMMAND,
    OPT_FORCE,
    OPT_ENGINE,
    OPT_DIRECT,
};

static const struct option options[] = {
    CMD_COMMON_OPTIONS,
    {"key", required_argument, NULL, 'k'},
    {"trust", required_argument, NULL, 't'},
    {"output", required_argument, NULL, 'o'},
    {"jobs", required_argument, NULL, 'j'},
    {"engine", required_argument, NULL, OPT_ENGINE},
    {"direct", no_argument, NULL, OPT_DIRECT},
    {"range", required_argument, NULL, OPT_RANGE},
    {"meta", no_argument, NULL, OPT_META},
    {"expect", required_argument, NULL, OPT_EXPECT},
    {"min-generation", required_argument, NULL, OPT_MIN_GENERATION},
    {"manifest", required_argument, NULL, OPT_MANIFEST},
    {"allow-unverified", no_argument, NULL, OPT_ALLOW_UNVERIFIED},
    {"raw-rsa", no_argument, NULL, OPT_RAW_RSA},
    {"restore-command", no_argument, NULL, OPT_RESTORE_COMMAND},
    {"force", no_argument, NULL, OPT_FORCE},
    {0},
};

const char unwrap_help[] =
    "usage: bk-unwrap [options] -t TRUST... -o FILE ARCHIVE\n"
    "       bk-unwrap [options] -t TRUST... ARCHIVE -- COMMAND ARG...\n"
    "       bk-unwrap [options] -t TRUST... --meta ARCHIVE\n"
    "\n"
    "Checks an archive and restores it. A file appears under its name only when everything was\n"
    "verified; a COMMAND reads the plaintext from its standard input and is killed before it sees\n"
    "the end of it if anything fails.\n"
    "\n"
    "  -t, --trust TRUST       whose signatures to believe: [ROLE:]FILE.pem or [ROLE:]sha256:HEX;\n"
    "                          ROLE is backup (default; signs archives) or rotate (signs rekeys)\n"
    "  -k, --key KEY           the PKCS#11 URI of the key, or of its token (default: as the\n"
    "                          archive's own hints say)\n"
    "  -o, --output FILE       where the plaintext goes; - is standard output\n"
    "      --range OFFSET:LENGTH   only these bytes of the plaintext; OFFSET: is to the end\n"
    "      --meta              only the private notes, KEY=VALUE a line\n"
    "      --expect NAME=VALUE which archive it must be: archive, manifest, label, signer, sequence\n"
    "                          or created-after; repeatable\n"
    "      --min-generation N  refuse an envelope older than generation N\n"
    "      --manifest FILE     the archive's manifest must be this kept copy\n"
    "      --allow-unverified  let a stream's plaintext out before its signature was seen\n"
    "      --raw-rsa           open RSA-OAEP by bare RSA in the token where its module does not\n"
    "                          know SHA-256, and undo the padding on this host\n"
    "      --restore-command   for PostgreSQL's restore_command: exit 1 only if ARCHIVE does not\n"
    "                          exist, 126 for every other failure\n"
    "      --force             replace FILE if it is there\n"
    "  -j, --jobs N            threads (default: the cores)\n"
    "      --engine NAME       auto (default), openssl or ipsec-mb: who encrypts and hashes\n"
    "      --direct            files do not pass through the system's cache\n"
    "      --profile NAME      options from this profile of bk.conf(5)\n"
    "      --config FILE       the file of profiles (default: $BK_CONFIG, the user's, the system's)\n"
    "  -q, --quiet             errors and warnings only\n"
    "      --progress WHEN     auto (default), always or never\n"
    "      --token-timeout N   seconds that one call of a token may take (default 60)\n"
    "      --json[=FILE]       the result as one line of JSON\n"
    "      --help, --version\n"
    "\n"
    "example: bk-unwrap -t signer.pem -k 'pkcs11:token=restore' orders.bk -- pg_restore -d orders\n"
    "\n"
    "exit status: 0 restored, 1 verification failed, 2 usage, 3 token or key not available,\n"
    "             5 input or output failed, 7 the command failed, 8 a defect of bk-unwrap,\n"
    "             9 PIN refused (do not try again); with --restore-command 0, 1 and 126\n";

static enum bk_code
take_range(struct unwrap_args *a, const char *value, struct bk_err *err)
{
    const char *colon = strchr(value, ':');
    char offset[32];
    enum bk_code rc;

    if (colon == NULL || (size_t)(colon - value) >= sizeof offset)
        return bk_fail(err, BK_E_USAGE, "--range: \"%s\" is not OFFSET:LENGTH", value);
    memcpy(offset, value, (size_t)(colon - value));
    offset[colon - value] = '\0';
    a->has_range = 1;
    a->length = UINT64_MAX;
    rc = cmd_number("--range", offset, 0, INT64_MAX, &a->offset, err);
    if (rc == BK_OK && colon[1] != '\0')
        rc = cmd_number("--range", colon + 1, 1, INT64_MAX, &a->length, err);
    return rc;
}

static enum bk_code
take_check(struct unwrap_args *a, int option, const char *value, struct bk_err *err)
{
    switch (option) {
    case OPT_EXPECT:
        return cmd_list_add(&a->expect, value, err);
    case OPT_MIN_GENERATION:
        return cmd_number("--min-generation", value, 1, INT64_MAX, &a->min_generation, err);
    case OPT_MANIFEST:
        a->manifest = value;
        return BK_OK;
    case OPT_ALLOW_UNVERIFIED:
        a->allow_unverified = 1;
        return BK_OK;
    default:
        return bk_fail(err, BK_E_INTERNAL, "option %d is in no table", option);
    }
}

static enum bk_code
take(void *args, int option, const char *value, struct bk_err *err)
{
    struct unwrap_args *a = args;

    switch (option) {
    case 'k':
        return cmd_list_add(&a->keys, value, err);
    case 't':
        return cmd_list_add(&a->trust, value, err);
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
    case OPT_RANGE:
        return take_range(a, value, err);
    case OPT_META:
        a->meta = 1;
        return BK_OK;
    case OPT_RAW_RSA:
        a->common.raw_rsa = 1;
        return BK_OK;
    case OPT_RESTORE_COMMAND:
        a->restore_command = 1;
        return BK_OK;
    case OPT_FORCE:
        a->force = 1;
        return BK_OK;
    default:
        return take_check(a, option, value, err);
    }
}

static enum bk_code
check(struct unwrap_args *a, const struct cmd_rest *rest, struct bk_err *err)
{
    if (rest->operand_count != 1)
        return bk_fail(err, BK_E_USAGE, "one archive at a time, not %d", rest->operand_count);
    a->archive = rest->operands[0];
    a->command = rest->command;
    if (a->meta && (a->command != NULL || a->has_range))
        return bk_fail(err, BK_E_USAGE, "--meta goes with neither a command nor --range");
    if (a->command != NULL && a->output != NULL)
        return bk_fail(err, BK_E_USAGE, "the plaintext goes to a command or to -o, not to both");
    if (a->meta && a->output == NULL)
        a->output = "-";
    if (a->command == NULL && a->output == NULL)
        return bk_fail(err, BK_E_USAGE, "no output: -o FILE, -o - for standard output, or -- COMMAND");
    for (size_t i = 0; i < a->keys.count; i++) {
        if (!p11_is_uri(a->keys.items[i]))
            return cmd_no_uri("--key", err);
        if (p11_uri_check(a->keys.items[i], err) != BK_OK)
            return err->code;
    }
    return cmd_json_not_mixed(&a->common, a->command == NULL ? a->output : "-", err);
}

enum bk_code
unwrap_args(int argc, char **argv, struct unwrap_args *a, struct bk_err *err)
{
    static const struct cmd_option_set set = {options, "k:t:o:j:", take};
    struct cmd_rest rest = {0};
    enum bk_code rc = cmd_parse(argc, argv, &set, a, &a->common, &rest, err);

    if (rc != BK_OK || a->common.help || a->common.version)
        return rc;
    return cmd_usage(argv[0], check(a, &rest, err), err);
}

void
unwrap_args_free(struct unwrap_args *a)
{
    cmd_list_free(&a->keys);
    cmd_list_free(&a->trust);
    cmd_list_free(&a->expect);
    cmd_common_free(&a->common);
}
