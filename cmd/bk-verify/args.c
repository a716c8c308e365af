#include "cmd/bk-verify/args.h"

#include <string.h>

enum {
    OPT_LEVEL = CMD_OPT_OWN,
    OPT_EXPECT,
    OPT_MIN_GENERATION,
    OPT_MANIFEST,
    OPT_RAW_RSA,
    OPT_SHOW,
    OPT_ENGINE,
    OPT_DIRECT
};

static const struct option options[] = {
    CMD_COMMON_OPTIONS,
    {"level", required_argument, NULL, OPT_LEVEL},
    {"key", required_argument, NULL, 'k'},
    {"trust", required_argument, NULL, 't'},
    {"jobs", required_argument, NULL, 'j'},
    {"engine", required_argument, NULL, OPT_ENGINE},
    {"direct", no_argument, NULL, OPT_DIRECT},
    {"expect", required_argument, NULL, OPT_EXPECT},
    {"min-generation", required_argument, NULL, OPT_MIN_GENERATION},
    {"manifest", required_argument, NULL, OPT_MANIFEST},
    {"raw-rsa", no_argument, NULL, OPT_RAW_RSA},
    {"show", no_argument, NULL, OPT_SHOW},
    {0},
};

const char verify_help[] =
    "usage: bk-verify [options] -t TRUST... ARCHIVE...\n"
    "       bk-verify --show ARCHIVE...\n"
    "\n"
    "Proves that archives are whole and who made them, with public keys alone: no token and no\n"
    "decryption key, unless --level decrypt asks for one.\n"
    "\n"
    "      --level LEVEL       signature: origin, completeness, lineage of the keys; reads no payload\n"
    "                          integrity (default): and every byte of the payload\n"
    "                          decrypt: and that a key opens it\n"
    "  -t, --trust TRUST       whose signatures to believe: [ROLE:]FILE.pem or [ROLE:]sha256:HEX;\n"
    "                          ROLE is backup (default; signs archives) or rotate (signs rekeys)\n"
    "  -k, --key KEY           for --level decrypt: the PKCS#11 URI of the key, or of its token\n"
    "      --expect NAME=VALUE which archive it must be: archive, manifest, label, signer, sequence\n"
    "                          or created-after; repeatable\n"
    "      --min-generation N  refuse an envelope older than generation N\n"
    "      --manifest FILE     the archive's manifest must be this kept copy\n"
    "      --raw-rsa           open RSA-OAEP by bare RSA in the token where its module does not\n"
    "                          know SHA-256, and undo the padding on this host\n"
    "      --show              print what the archive says of itself; without -t it is shown\n"
    "                          unverified\n"
    "  -j, --jobs N            threads (default: the cores)\n"
    "      --engine NAME       auto (default), openssl or ipsec-mb: who encrypts and hashes\n"
    "      --direct            files do not pass through the system's cache\n"
    "      --profile NAME      options from this profile of bk.conf(5)\n"
    "      --config FILE       the file of profiles (default: $BK_CONFIG, the user's, the system's)\n"
    "  -q, --quiet             errors and warnings only\n"
    "      --progress WHEN     auto (default), always or never\n"
    "      --token-timeout N   seconds that one call of a token may take (default 60)\n"
    "      --json[=FILE]       one line of JSON for each archive\n"
    "      --help, --version\n"
    "\n"
    "exit status: 0 all whole, 1 verification failed for any, 2 usage, 3 token or key not available,\n"
    "             5 cannot read, 6 some could not be verified, 8 a defect of bk-verify,\n"
    "             9 PIN refused (do not try again)\n";

static enum bk_code
take_level(struct verify_args *a, const char *value, struct bk_err *err)
{
    if (strcmp(value, "signature") == 0)
        a->level = OPS_LEVEL_SIGNATURE;
    else if (strcmp(value, "integrity") == 0)
        a->level = OPS_LEVEL_INTEGRITY;
    else if (strcmp(value, "decrypt") == 0)
        a->level = OPS_LEVEL_DECRYPT;
    else
        return bk_fail(err, BK_E_USAGE, "--level: \"%s\" is none of signature, integrity, decrypt", value);
    return BK_OK;
}

static enum bk_code
take(void *args, int option, const char *value, struct bk_err *err)
{
    struct verify_args *a = args;

    switch (option) {
    case OPT_LEVEL:
        return take_level(a, value, err);
    case 'k':
        /* one in a profile is for bk-unwrap as well, and says nothing of the level */
        a->key_asked |= !a->common.in_profile;
        return cmd_list_add(&a->keys, value, err);
    case 't':
        return cmd_list_add(&a->trust, value, err);
    case 'j':
        return cmd_number("--jobs", value, 1, 256, &a->jobs, err);
    case OPT_ENGINE:
        return cmd_engine_name(value, &a->engine, err);
    case OPT_DIRECT:
        a->direct = 1;
        return BK_OK;
    case OPT_EXPECT:
        return cmd_list_add(&a->expect, value, err);
    case OPT_MIN_GENERATION:
        return cmd_number("--min-generation", value, 1, INT64_MAX, &a->min_generation, err);
    case OPT_MANIFEST:
        a->manifest = value;
        return BK_OK;
    case OPT_RAW_RSA:
        a->common.raw_rsa = 1;
        return BK_OK;
    case OPT_SHOW:
        a->show = 1;
        return BK_OK;
    default:
        return bk_fail(err, BK_E_INTERNAL, "option %d is in no table", option);
    }
}

static enum bk_code
check(struct verify_args *a, const struct cmd_rest *rest, struct bk_err *err)
{
    if (rest->command != NULL)
        return bk_fail(err, BK_E_USAGE, "bk-verify runs no command");
    if (rest->operand_count == 0)
        return bk_fail(err, BK_E_USAGE, "no archive to verify");
    a->archives = rest->operands;
    a->archive_count = (size_t)rest->operand_count;
    for (size_t i = 0; i < a->keys.count; i++)
        if (p11_uri_check(a->keys.items[i], err) != BK_OK)
            return err->code;
    if (a->key_asked && a->level != OPS_LEVEL_DECRYPT)
        return bk_fail(err, BK_E_USAGE, "a key is used for --level decrypt only");
    return BK_OK;
}

enum bk_code
verify_args(int argc, char **argv, struct verify_args *a, struct bk_err *err)
{
    static const struct cmd_option_set set = {options, "k:t:j:", take};
    struct cmd_rest rest = {0};
    enum bk_code rc;

    a->level = OPS_LEVEL_INTEGRITY;
    rc = cmd_parse(argc, argv, &set, a, &a->common, &rest, err);
    if (rc != BK_OK || a->common.help || a->common.version)
        return rc;
    return cmd_usage(argv[0], check(a, &rest, err), err);
}

void
verify_args_free(struct verify_args *a)
{
    cmd_list_free(&a->keys);
    cmd_list_free(&a->trust);
    cmd_list_free(&a->expect);
    cmd_common_free(&a->common);
}
