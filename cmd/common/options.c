/* Command lines: getopt_long, without its abbreviations. */
#include "cmd/common/cmd.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum bk_code
cmd_list_add(struct cmd_list *l, const char *item, struct bk_err *err)
{
    const char **items = reallocarray(l->items, l->count + 1, sizeof *items);

    if (items == NULL)
        return bk_fail_nomem(err);
    l->items = items;
    items[l->count++] = item;
    return BK_OK;
}

void
cmd_list_free(struct cmd_list *l)
{
    free(l->items);
    *l = (struct cmd_list){0};
}

enum bk_code
cmd_number(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out, struct bk_err *err)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || *out < min || *out > max)
        return bk_fail(err, BK_E_USAGE, "%s: \"%s\" is not a number from %llu to %llu", option, text,
                       (unsigned long long)min, (unsigned long long)max);
    return BK_OK;
}

/* getopt_long takes any unambiguous beginning; a script that relies on one breaks when an option is added. */
static enum bk_code
refuse_abbreviations(int argc, char **argv, const struct option *options, struct bk_err *err)
{
    for (int i = 1; i < argc; i++) {
        size_t len = strcspn(argv[i], "=");
        int known = 0;

        if (strncmp(argv[i], "--", 2) != 0)
            continue;
        for (const struct option *o = options; o->name != NULL; o++)
            known |= strlen(o->name) == len - 2 && strncmp(o->name, argv[i] + 2, len - 2) == 0;
        if (!known)
            return bk_fail(err, BK_E_USAGE, "unknown option %.*s", (int)len, argv[i]);
    }
    return BK_OK;
}

static enum bk_code
take_progress(struct cmd_common *common, const char *value, struct bk_err *err)
{
    if (strcmp(value, "auto") == 0)
        common->progress = CMD_PROGRESS_AUTO;
    else if (strcmp(value, "always") == 0)
        common->progress = CMD_PROGRESS_ALWAYS;
    else if (strcmp(value, "never") == 0)
        common->progress = CMD_PROGRESS_NEVER;
    else
        return bk_fail(err, BK_E_USAGE, "--progress: \"%s\" is none of auto, always, never", value);
    return BK_OK;
}

/* At most an hour: no device needs longer for one call, but for making a key, which is given ten times as long. */
static enum bk_code
take_timeout(struct cmd_common *common, const char *value, struct bk_err *err)
{
    uint64_t seconds = 0;
    enum bk_code rc = cmd_number("--token-timeout", value, 1, 3600, &seconds, err);

    if (rc == BK_OK)
        common->token_timeout = (unsigned)seconds;
    return rc;
}

static enum bk_code
take_option(int option, const char *value, const struct cmd_option_set *set, void *args, struct cmd_common *common,
            struct bk_err *err)
{
    switch (option) {
    case CMD_OPT_HELP:
    case CMD_OPT_VERSION:
    case CMD_OPT_PROFILE:
    case CMD_OPT_CONFIG:
        return BK_OK; /* look_ahead has seen it */
    case CMD_OPT_PROGRESS:
        return take_progress(common, value, err);
    case CMD_OPT_TOKEN_TIMEOUT:
        return take_timeout(common, value, err);
    case CMD_OPT_JSON:
        common->json = 1;
        common->json_path = value;
        return BK_OK;
    case 'q':
        common->quiet = 1;
        return BK_OK;
    default:
        return set->take(args, option, value, err);
    }
}

static enum bk_code
refuse_option(int option, char **argv, struct bk_err *err)
{
    if (option == ':')
        return bk_fail(err, BK_E_USAGE, "option %s needs a value", argv[optind - 1]);
    return optopt != 0 && optopt < CMD_OPT_HELP
               ? bk_fail(err, BK_E_USAGE, "unknown option -%c", optopt)
               : bk_fail(err, BK_E_USAGE, "option %s takes no value", argv[optind - 1]);
}

/* More than any program has. */
#define OPTIONS_MAX 64

static size_t
option_index(const struct option *options, int option)
{
    size_t i = 0;

    while (options[i].name != NULL && options[i].val != option && i < OPTIONS_MAX)
        i++;
    return i;
}

static enum bk_code
take_once(const char **slot, const char *option, const char *value, struct bk_err *err)
{
    if (*slot != NULL)
        return bk_fail(err, BK_E_USAGE, "%s is given twice", option);
    *slot = value;
    return BK_OK;
}

/* The first pass over a command line: which options it has, and what must be known before any of them is taken. */
static enum bk_code
look_ahead(int argc, char **argv, const char *shorts, const struct cmd_option_set *set, struct cmd_common *common,
           uint8_t given[OPTIONS_MAX + 1], struct bk_err *err)
{
    enum bk_code rc = BK_OK;
    int option;

    while (rc == BK_OK && (option = getopt_long(argc, argv, shorts, set->long_options, NULL)) != -1) {
        if (option == ':' || option == '?')
            return refuse_option(option, argv, err);
        given[option_index(set->long_options, option)] = 1;
        common->help |= option == CMD_OPT_HELP;
        common->version |= option == CMD_OPT_VERSION;
        if (option == CMD_OPT_PROFILE)
            rc = take_once(&common->profile, "--profile", optarg, err);
        else if (option == CMD_OPT_CONFIG)
            rc = take_once(&common->config, "--config", optarg, err);
    }
    if (rc == BK_OK && common->config != NULL && common->profile == NULL)
        rc = bk_fail(err, BK_E_USAGE, "--config goes with --profile NAME: without it nothing is read");
    return rc;
}

/* One line of the profile, unless it is for another program or the command line has that option itself. */
static enum bk_code
take_entry(const struct cmd_profile_entry *entry, const struct cmd_option_set *set, const uint8_t *given, void *args,
           struct cmd_common *common, struct bk_err *err)
{
    const struct option *o = set->long_options;
    enum cmd_key kind = cmd_profile_key(entry->key);
    int word = kind == CMD_KEY_FLAG || kind == CMD_KEY_MAYBE;
    int yes = word && strcmp(entry->value, "yes") == 0;

    while (o->name != NULL && strcmp(o->name, entry->key) != 0)
        o++;
    if (o->name == NULL || given[o - set->long_options] || (word && strcmp(entry->value, "no") == 0))
        return BK_OK;
    /* the one name with two meanings: docs/CLI.md, Profiles */
    if (!word && o->has_arg == no_argument)
        return BK_OK;
    return take_option(o->val, yes ? NULL : entry->value, set, args, common, err);
}

static enum bk_code
take_profile(const struct cmd_option_set *set, const uint8_t *given, void *args, struct cmd_common *common,
             struct bk_err *err)
{
    const struct cmd_profile *p = &common->options;
    enum bk_code rc;

    if (common->profile == NULL)
        return BK_OK;
    if ((rc = cmd_profile_read(common->config, common->profile, &common->options, err)) != BK_OK)
        return rc;
    common->in_profile = 1;
    for (size_t i = 0; i < p->count && rc == BK_OK; i++)
        if ((rc = take_entry(&p->entries[i], set, given, args, common, err)) != BK_OK)
            bk_err_prefix(err, "%s:%u", p->path, p->entries[i].line);
    common->in_profile = 0;
    return rc;
}

static enum bk_code
take_arguments(int argc, char **argv, const char *shorts, const struct cmd_option_set *set, void *args,
               struct cmd_common *common, struct bk_err *err)
{
    uint8_t given[OPTIONS_MAX + 1] = {0};
    enum bk_code rc;
    int option;

    opterr = 0;
    optind = 0; /* glibc: start afresh, so that a command line may be parsed more than once */
    rc = look_ahead(argc, argv, shorts, set, common, given, err);
    if (rc != BK_OK || common->help || common->version)
        return rc;
    rc = take_profile(set, given, args, common, err);
    optind = 0;
    while (rc == BK_OK && (option = getopt_long(argc, argv, shorts, set->long_options, NULL)) != -1)
        rc = take_option(option, optarg, set, args, common, err);
    return rc;
}

void
cmd_common_free(struct cmd_common *common)
{
    cmd_profile_free(&common->options);
}

static int
find_separator(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--") == 0)
            return i;
    return argc;
}

enum bk_code
cmd_usage(const char *program, enum bk_code rc, struct bk_err *err)
{
    if (rc == BK_E_USAGE && err->hint[0] == '\0')
        bk_err_hint(err, "see %s --help", program);
    return rc;
}

enum bk_code
cmd_parse(int argc, char **argv, const struct cmd_option_set *set, void *args, struct cmd_common *common,
          struct cmd_rest *rest, struct bk_err *err)
{
    int end = find_separator(argc, argv);
    char shorts[64];
    enum bk_code rc;

    if ((rc = refuse_abbreviations(end, argv, set->long_options, err)) != BK_OK)
        goto done;
    (void)snprintf(shorts, sizeof shorts, ":q%s", set->short_options);
    rc = take_arguments(end, argv, shorts, set, args, common, err);
    rest->operands = argv + optind;
    rest->operand_count = end - optind;
    rest->command = end < argc ? argv + end + 1 : NULL;
    if (rc == BK_OK && rest->command != NULL && rest->command[0] == NULL)
        rc = bk_fail(err, BK_E_USAGE, "no command follows --");
    if (common->help || common->version)
        rc = BK_OK;
done:
    return cmd_usage(argv[0], rc, err);
}

enum bk_code
cmd_load_trust(struct ops_trust *t, const struct cmd_list *list, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < list->count && rc == BK_OK; i++)
        rc = ops_trust_add(t, list->items[i], err);
    return rc;
}

enum bk_code
cmd_load_expect(struct ops_expect *e, const struct cmd_list *list, uint64_t min_generation, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < list->count && rc == BK_OK; i++)
        rc = ops_expect_add(e, list->items[i], err);
    e->min_generation = min_generation;
    return rc;
}

enum bk_code
cmd_no_uri(const char *option, struct bk_err *err)
{
    return bk_fail(err, BK_E_USAGE, "%s: not a PKCS#11 URI: it does not begin with \"pkcs11:\"", option);
}

void
cmd_warn_pin_value(struct cmd *c, const char *uri)
{
    if (p11_is_uri(uri) && p11_uri_has_pin_value(uri))
        cmd_warn(c, "a PIN in a URI is seen by everybody who can list processes; use pin-source=file:...");
}
