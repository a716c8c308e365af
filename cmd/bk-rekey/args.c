#include "cmd/bk-rekey/args.h"

#include <stdlib.h>
#include <string.h>

#include "format/manifest.h"

enum {
    OPT_FROM = CMD_OPT_OWN,
    OPT_TO,
    OPT_ADD,
    OPT_REMOVE,
    OPT_SIGN_CERT,
    OPT_BLIND,
    OPT_TOKEN_PROFILE,
    OPT_UNPROVEN,
    OPT_RAW_RSA,
    OPT_REASON,
    OPT_DRY_RUN,
    OPT_SIDECAR,
};

static const struct option options[] = {
    CMD_COMMON_OPTIONS,
    {"from", required_argument, NULL, OPT_FROM},
    {"to", required_argument, NULL, OPT_TO},
    {"add", required_argument, NULL, OPT_ADD},
    {"remove", required_argument, NULL, OPT_REMOVE},
    {"sign", required_argument, NULL, 's'},
    {"sign-cert", required_argument, NULL, OPT_SIGN_CERT},
    {"trust", required_argument, NULL, 't'},
    {"blind", required_argument, NULL, OPT_BLIND},
    {"token-profile", required_argument, NULL, OPT_TOKEN_PROFILE},
    {"unproven", no_argument, NULL, OPT_UNPROVEN},
    {"raw-rsa", no_argument, NULL, OPT_RAW_RSA},
    {"reason", required_argument, NULL, OPT_REASON},
    {"sidecar", no_argument, NULL, OPT_SIDECAR},
    {"dry-run", no_argument, NULL, OPT_DRY_RUN},
    {0},
};

const char rekey_help[] =
    "usage: bk-rekey [options] --from KEY --to RECIPIENT -s KEY -t TRUST... ARCHIVE...\n"
    "       bk-rekey [options] --from KEY --add RECIPIENT... -s KEY -t TRUST... ARCHIVE...\n"
    "       bk-rekey [options] --from KEY --remove KEYID... -s KEY -t TRUST... ARCHIVE...\n"
    "\n"
    "Changes who can open archives, in place and without reading the payload. The old key leaves only\n"
    "when the new one was seen to open the archive; killed at any instant, the archive opens under the\n"
    "old or the new key, and running it again finishes the work.\n"
    "\n"
    "      --from KEY             the PKCS#11 URI of the key that opens the archives now\n"
    "      --to RECIPIENT         takes its place: a key's URI (then it is proven), or a PEM file\n"
    "                             (then the old key stays until a run with the URI)\n"
    "      --add RECIPIENT        comes beside; this grants reading\n"
    "      --remove KEYID         leaves; bk-verify --show lists key ids\n"
    "  -s, --sign KEY             the rotator's signing key, PKCS#11 URI\n"
    "      --sign-cert FILE       its certificate, if that is not on the token\n"
    "  -t, --trust TRUST          [ROLE:]FILE.pem or [ROLE:]sha256:HEX: who signed the archives (backup,\n"
    "                             the default) and who may rotate them (rotate:), yourself included\n"
    "      --blind MODE           required, preferred (default) or off: exchange AES keys of one token\n"
    "                             without the data key passing through this host\n"
    "      --token-profile FILE   of a token, by bk-key probe -o: refuse what is weaker than that, and\n"
    "                             an exchange that is not blind where it could be; repeat\n"
    "      --unproven             let the old key go although the new one was not seen to open; recorded\n"
    "      --raw-rsa              open RSA-OAEP by bare RSA in the token where its module does not\n"
    "                             know SHA-256, and undo the padding on this host\n"
    "      --reason TEXT          incident, departure, ownership, provider, audit, age, or your words\n"
    "      --sidecar              write the new keys to ARCHIVE.keys and leave the archive as it is; the\n"
    "                             envelope inside then still opens under the old key\n"
    "      --dry-run              do and check everything but the writing\n"
    "      --profile NAME         options from this profile of bk.conf(5)\n"
    "      --config FILE          the file of profiles (default: $BK_CONFIG, the user's, the system's)\n"
    "  -q, --quiet                errors and warnings only\n"
    "      --progress WHEN        auto (default), always or never\n"
    "      --token-timeout N      seconds that one call of a token may take (default 60)\n"
    "      --json[=FILE]          one line of JSON for each archive\n"
    "      --help, --version\n"
    "\n"
    "Without --blind required the data key passes through this host's memory: who runs bk-rekey can\n"
    "read the archives.\n"
    "\n"
    "exit status: 0 done, 1 verification failed for any (that one is unchanged), 2 usage, 3 token or\n"
    "             key not available, 4 refused by policy, 5 input or output failed, 6 some failed,\n"
    "             8 a defect of bk-rekey, 9 PIN refused (do not try again)\n";

static enum bk_code
take_remove(struct rekey_args *a, const char *value, struct bk_err *err)
{
    struct bk_key_id *ids = reallocarray(a->remove, a->remove_count + 1, sizeof *ids);

    if (ids == NULL)
        return bk_fail_nomem(err);
    a->remove = ids;
    if (!bk_key_id_from_text(value, &ids[a->remove_count]))
        return bk_fail(err, BK_E_USAGE, "--remove: \"%s\" is no key id in hex", value);
    a->remove_count++;
    return BK_OK;
}

static enum bk_code
take_blind(struct rekey_args *a, const char *value, struct bk_err *err)
{
    if (strcmp(value, "required") == 0)
        a->blind = OPS_BLIND_REQUIRED;
    else if (strcmp(value, "preferred") == 0)
        a->blind = OPS_BLIND_PREFERRED;
    else if (strcmp(value, "off") == 0)
        a->blind = OPS_BLIND_OFF;
    else
        return bk_fail(err, BK_E_USAGE, "--blind: \"%s\" is none of required, preferred, off", value);
    return BK_OK;
}

static enum bk_code
take_reason(struct rekey_args *a, const char *value, struct bk_err *err)
{
    a->reason = value;
    if (!bk_text_valid(value, strlen(value)))
        return bk_fail(err, BK_E_USAGE, "--reason: not 1 to %d bytes of UTF-8 without control characters", BK_TEXT_MAX);
    return BK_OK;
}

static enum bk_code
take_flag(struct rekey_args *a, int option, struct bk_err *err)
{
    switch (option) {
    case OPT_UNPROVEN:
        a->unproven = 1;
        return BK_OK;
    case OPT_RAW_RSA:
        a->common.raw_rsa = 1;
        return BK_OK;
    case OPT_SIDECAR:
        a->sidecar = 1;
        return BK_OK;
    case OPT_DRY_RUN:
        a->dry_run = 1;
        return BK_OK;
    default:
        return bk_fail(err, BK_E_INTERNAL, "option %d is in no table", option);
    }
}

static enum bk_code
take(void *args, int option, const char *value, struct bk_err *err)
{
    struct rekey_args *a = args;

    switch (option) {
    case OPT_FROM:
        a->from = value;
        return BK_OK;
    case OPT_TO:
        if (a->to != NULL)
            return bk_fail(err, BK_E_USAGE, "--to is given twice; more recipients come with --add");
        a->to = value;
        return BK_OK;
    case OPT_ADD:
        return cmd_list_add(&a->add, value, err);
    case OPT_REMOVE:
        return take_remove(a, value, err);
    case 's':
        a->sign = value;
        return BK_OK;
    case OPT_SIGN_CERT:
        a->sign_cert = value;
        return BK_OK;
    case 't':
        return cmd_list_add(&a->trust, value, err);
    case OPT_BLIND:
        return take_blind(a, value, err);
    case OPT_TOKEN_PROFILE:
        return cmd_list_add(&a->token_profiles, value, err);
    case OPT_REASON:
        return take_reason(a, value, err);
    default:
        return take_flag(a, option, err);
    }
}

static enum bk_code
check_keys(const struct rekey_args *a, struct bk_err *err)
{
    if (a->from == NULL)
        return bk_fail(err, BK_E_USAGE, "no key that opens the archives now (--from)");
    if (!p11_is_uri(a->from))
        return cmd_no_uri("--from", err);
    if (a->sign == NULL)
        return bk_fail(err, BK_E_USAGE, "no signing key of the rotator (-s)");
    if (!p11_is_uri(a->sign))
        return cmd_no_uri("--sign", err);
    if (p11_uri_check(a->from, err) != BK_OK)
        return err->code;
    return p11_uri_check(a->sign, err);
}

static enum bk_code
check(struct rekey_args *a, const struct cmd_rest *rest, struct bk_err *err)
{
    if (rest->command != NULL)
        return bk_fail(err, BK_E_USAGE, "bk-rekey runs no command");
    if (rest->operand_count == 0)
        return bk_fail(err, BK_E_USAGE, "no archive to rekey");
    a->archives = rest->operands;
    a->archive_count = (size_t)rest->operand_count;
    if (a->to == NULL && a->add.count == 0 && a->remove_count == 0)
        return bk_fail(err, BK_E_USAGE, "nothing to do: --to, --add or --remove");
    if (a->trust.count == 0)
        return bk_fail(err, BK_E_USAGE, "whom to trust was not said (-t): an archive is checked before it is changed");
    return check_keys(a, err);
}

enum bk_code
rekey_args(int argc, char **argv, struct rekey_args *a, struct bk_err *err)
{
    static const struct cmd_option_set set = {options, "s:t:", take};
    struct cmd_rest rest = {0};
    enum bk_code rc = cmd_parse(argc, argv, &set, a, &a->common, &rest, err);

    if (rc != BK_OK || a->common.help || a->common.version)
        return rc;
    return cmd_usage(argv[0], check(a, &rest, err), err);
}

void
rekey_args_free(struct rekey_args *a)
{
    cmd_list_free(&a->add);
    cmd_list_free(&a->trust);
    cmd_list_free(&a->token_profiles);
    free(a->remove);
    cmd_common_free(&a->common);
}
