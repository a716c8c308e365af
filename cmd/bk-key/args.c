#include "cmd/bk-key/args.h"

#include <string.h>

#include "format/manifest.h"

/* A certificate here only carries a key; trust is pinned elsewhere, so a long life does no harm. */
#define DAYS_DEFAULT 3650

enum {
    OPT_TYPE = CMD_OPT_OWN,
    OPT_USE,
    OPT_OWNER,
    OPT_DAYS,
    OPT_FORCE,
    OPT_ON_TOKEN,
    OPT_MAX_AGE,
    OPT_SIGN_CERT,
    OPT_AGAINST
};

static const struct option options[] = {
    CMD_COMMON_OPTIONS,
    {"type", required_argument, NULL, OPT_TYPE},
    {"use", required_argument, NULL, OPT_USE},
    {"owner", required_argument, NULL, OPT_OWNER},
    {"days", required_argument, NULL, OPT_DAYS},
    {"output", required_argument, NULL, 'o'},
    {"force", no_argument, NULL, OPT_FORCE},
    {"on-token", no_argument, NULL, OPT_ON_TOKEN},
    {"max-age", required_argument, NULL, OPT_MAX_AGE},
    {"sign", required_argument, NULL, 's'},
    {"sign-cert", required_argument, NULL, OPT_SIGN_CERT},
    {"against", required_argument, NULL, OPT_AGAINST},
    {"trust", required_argument, NULL, 't'},
    {0},
};

const char key_help[] =
    "usage: bk-key generate --type TYPE --use USE [options] URI\n"
    "       bk-key list [URI]\n"
    "       bk-key show URI\n"
    "       bk-key export [-o FILE] URI\n"
    "       bk-key probe [--on-token] [-o FILE [-s KEY]] [--against FILE [-t TRUST]] URI\n"
    "       bk-key audit [--max-age DAYS] URI\n"
    "\n"
    "generate  makes a key in the token that URI names by token= and object=, not extractable, proves\n"
    "          that it works, and prints its URI and key id\n"
    "list      the keys and certificates on the tokens that URI allows; without a PIN, public ones only\n"
    "show      one key: attributes as the module claims them, and how it can be wrapped to\n"
    "export    the public half, with its scheme and URI as text above the PEM block\n"
    "probe     tries what the token that URI names can do, with keys that it forgets at once; -o keeps\n"
    "          the result as the token's profile, for --against and the other programs' --token-profile\n"
    "audit     what the keys that URI allows say of themselves that an auditor would object to\n"
    "\n"
    "      --type TYPE      rsa3072, rsa4096, p256, p384 or aes256\n"
    "      --use USE        kek (opens archives), sign (signs them; a certificate is made too), rotate\n"
    "                       (for blind rotation alone; asks for the security officer's PIN)\n"
    "      --owner TEXT     the name in the certificate (default: the key's label)\n"
    "      --days N         how long the certificate is valid (default 3650)\n"
    "  -o, --output FILE    where the public half, certificate or profile goes (export: standard output)\n"
    "      --force          replace FILE if it is there\n"
    "      --on-token       probe with keys that are made on the token and removed again\n"
    "  -s, --sign KEY       sign the profile with the key that this URI names\n"
    "      --sign-cert FILE its certificate, if that is not on the token\n"
    "      --against FILE   compare with an earlier profile: exit 4 if the token does less than then\n"
    "  -t, --trust TRUST    who must have signed that: a PEM file or sha256:FINGERPRINT; repeat\n"
    "      --max-age DAYS   audit: object to keys that are older, or do not say how old they are\n"
    "      --profile NAME   options from this profile of bk.conf(5)\n"
    "      --config FILE    the file of profiles (default: $BK_CONFIG, the user's, the system's)\n"
    "  -q, --quiet          errors and warnings only\n"
    "      --progress WHEN  auto (default), always or never\n"
    "      --token-timeout N\n"
    "                       seconds that one call of a token may take (default 60)\n"
    "      --json[=FILE]    one line of JSON for each key or trial\n"
    "      --help, --version\n"
    "\n"
    "example: bk-key generate --type p384 --use kek -o kek.pem \\\n"
    "                 'pkcs11:token=restore;object=kek-2026?pin-source=file:pin'\n"
    "\n"
    "exit status: 0 done, 1 the profile is forged, 2 usage, 3 token or key not available,\n"
    "             4 audit has findings or the token does less than its profile says, 5 output failed,\n"
    "             8 a defect of bk-key, 9 PIN refused (do not try again)\n";

static enum bk_code
take_type(struct key_args *a, const char *value, struct bk_err *err)
{
    if (cmd_kind_from_text(value, &a->type)) {
        a->has_type = 1;
        return BK_OK;
    }
    return bk_fail(err, BK_E_USAGE, "--type: \"%s\" is none of rsa3072, rsa4096, p256, p384, aes256", value);
}

static enum bk_code
take_probe(struct key_args *a, int option, const char *value, struct bk_err *err)
{
    switch (option) {
    case 's':
        a->sign = value;
        return BK_OK;
    case OPT_SIGN_CERT:
        a->sign_cert = value;
        return BK_OK;
    case OPT_AGAINST:
        a->against = value;
        return BK_OK;
    case 't':
        return cmd_list_add(&a->trust, value, err);
    default:
        return bk_fail(err, BK_E_INTERNAL, "option %d is in no table", option);
    }
}

static enum bk_code
take(void *args, int option, const char *value, struct bk_err *err)
{
    struct key_args *a = args;

    switch (option) {
    case OPT_TYPE:
        return take_type(a, value, err);
    case OPT_USE:
        if (strcmp(value, "kek") != 0 && strcmp(value, "sign") != 0 && strcmp(value, "rotate") != 0)
            return bk_fail(err, BK_E_USAGE, "--use: \"%s\" is none of kek, sign, rotate", value);
        a->use = value;
        return BK_OK;
    case OPT_OWNER:
        if (!bk_text_valid(value, strlen(value)) || strlen(value) > 64)
            return bk_fail(err, BK_E_USAGE, "--owner: not 1 to 64 bytes of UTF-8 without control characters");
        a->owner = value;
        return BK_OK;
    case OPT_DAYS:
        return cmd_number("--days", value, 1, 36500, &a->days, err);
    case 'o':
        a->output = value;
        return BK_OK;
    case OPT_FORCE:
        a->force = 1;
        return BK_OK;
    case OPT_MAX_AGE:
        return cmd_number("--max-age", value, 1, 36500, &a->max_age, err);
    case OPT_ON_TOKEN:
        a->on_token = 1;
        return BK_OK;
    default:
        return take_probe(a, option, value, err);
    }
}

static enum bk_code
check_generate(const struct key_args *a, struct bk_err *err)
{
    if (!a->has_type)
        return bk_fail(err, BK_E_USAGE, "generate: what kind of key (--type)?");
    if (a->use == NULL)
        return bk_fail(err, BK_E_USAGE, "generate: what for (--use kek, --use sign or --use rotate)?");
    if (a->type == P11_AES256 && strcmp(a->use, "sign") == 0)
        return bk_fail(err, BK_E_USAGE, "generate: an AES key cannot sign");
    if (a->type != P11_AES256 && strcmp(a->use, "rotate") == 0)
        return bk_fail(err, BK_E_USAGE, "generate: only an AES key (--type aes256) can be for blind rotation alone");
    if (a->type == P11_AES256 && a->output != NULL)
        return bk_fail(err, BK_E_USAGE, "generate: an AES key has no public half for -o");
    return BK_OK;
}

static enum bk_code
check_probe(const struct key_args *a, struct bk_err *err)
{
    if (p11_uri_names_object(a->uri))
        return bk_fail(err, BK_E_USAGE, "probe: name a token, not a key: the trial makes its own");
    if (a->sign != NULL && !p11_is_uri(a->sign))
        return cmd_no_uri("--sign", err);
    if (a->sign != NULL && a->output == NULL)
        return bk_fail(err, BK_E_USAGE, "--sign signs what goes into --output FILE");
    if (a->sign == NULL && a->sign_cert != NULL)
        return bk_fail(err, BK_E_USAGE, "--sign-cert goes with --sign");
    if (a->trust.count > 0 && a->against == NULL)
        return bk_fail(err, BK_E_USAGE, "--trust says who must have signed what --against names");
    if (a->output != NULL && strcmp(a->output, "-") == 0)
        return bk_fail(err, BK_E_USAGE, "--output: the table goes to standard output, the profile into a file");
    return BK_OK;
}

static enum bk_code
take_verb(struct key_args *a, const char *verb, struct bk_err *err)
{
    static const char *const verbs[] = {[KEY_GENERATE] = "generate", [KEY_LIST] = "list",   [KEY_SHOW] = "show",
                                        [KEY_EXPORT] = "export",     [KEY_PROBE] = "probe", [KEY_AUDIT] = "audit"};

    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verb, verbs[i]) == 0) {
            a->verb = (enum key_verb)i;
            return BK_OK;
        }
    return bk_fail(err, BK_E_USAGE, "\"%s\" is none of generate, list, show, export, probe, audit", verb);
}

static enum bk_code
check(struct key_args *a, const struct cmd_rest *rest, struct bk_err *err)
{
    enum bk_code rc;

    if (rest->command != NULL)
        return bk_fail(err, BK_E_USAGE, "bk-key runs no command");
    if (rest->operand_count == 0)
        return bk_fail(err, BK_E_USAGE, "what to do: generate, list, show, export, probe or audit?");
    if ((rc = take_verb(a, rest->operands[0], err)) != BK_OK)
        return rc;
    if (rest->operand_count > 2 || (rest->operand_count == 1 && a->verb != KEY_LIST))
        return bk_fail(err, BK_E_USAGE, "%s: one URI, please", rest->operands[0]);
    a->uri = rest->operand_count == 2 ? rest->operands[1] : NULL;
    if (a->uri != NULL && !p11_is_uri(a->uri))
        return cmd_no_uri(rest->operands[0], err);
    if (a->uri != NULL && (rc = p11_uri_check(a->uri, err)) != BK_OK)
        return rc;
    if (a->verb == KEY_GENERATE && (rc = check_generate(a, err)) != BK_OK)
        return rc;
    if (a->verb != KEY_GENERATE && (a->has_type || a->use != NULL || a->owner != NULL))
        return bk_fail(err, BK_E_USAGE, "--type, --use and --owner go with generate");
    if (a->verb != KEY_PROBE && a->on_token)
        return bk_fail(err, BK_E_USAGE, "--on-token goes with probe");
    if (a->verb != KEY_AUDIT && a->max_age > 0)
        return bk_fail(err, BK_E_USAGE, "--max-age goes with audit");
    if (a->verb == KEY_PROBE && (rc = check_probe(a, err)) != BK_OK)
        return rc;
    if (a->verb != KEY_PROBE && (a->sign != NULL || a->sign_cert != NULL || a->against != NULL || a->trust.count > 0))
        return bk_fail(err, BK_E_USAGE, "--sign, --sign-cert, --against and --trust go with probe");
    return cmd_json_not_mixed(&a->common, a->verb == KEY_EXPORT && a->output == NULL ? "-" : a->output, err);
}

enum bk_code
key_args(int argc, char **argv, struct key_args *a, struct bk_err *err)
{
    static const struct cmd_option_set set = {options, "o:s:t:", take};
    struct cmd_rest rest = {0};
    enum bk_code rc;

    a->days = DAYS_DEFAULT;
    rc = cmd_parse(argc, argv, &set, a, &a->common, &rest, err);
    if (rc != BK_OK || a->common.help || a->common.version)
        return rc;
    return cmd_usage(argv[0], check(a, &rest, err), err);
}

void
key_args_free(struct key_args *a)
{
    cmd_common_free(&a->common);
    cmd_list_free(&a->trust);
}
