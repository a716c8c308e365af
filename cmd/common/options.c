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

static enum bk_code
take_option(int option, char **argv, const struct cmd_option_set *set, void *args, struct cmd_common *common,
            struct bk_err *err)
{
    switch (option) {
    case CMD_OPT_HELP:
        common->help = 1;
        return BK_OK;
    case CMD_OPT_VERSION:
        common->version = 1;
        return BK_OK;
    case CMD_OPT_PROGRESS:
        return take_progress(common, optarg, err);
    case CMD_OPT_JSON:
        common->json = 1;
        common->json_path = optarg;
        return BK_OK;
    case 'q':
        common->quiet = 1;
        return BK_OK;
    case ':':
        return bk_fail(err, BK_E_USAGE, "option %s needs a value", argv[optind - 1]);
    case '?':
        return optopt != 0 && optopt < CMD_OPT_HELP
                   ? bk_fail(err, BK_E_USAGE, "unknown option -%c", optopt)
                   : bk_fail(err, BK_E_USAGE, "option %s takes no value", argv[optind - 1]);
    default:
        return set->take(args, option, optarg, err);
    }
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
cmd_parse(int argc, char **argv, const struct cmd_option_set *set, void *args, struct cmd_common *common,
          struct cmd_rest *rest, struct bk_err *err)
{
    int end = find_separator(argc, argv);
    char shorts[64];
    int option;
    enum bk_code rc;

    if ((rc = refuse_abbreviations(end, argv, set->long_options, err)) != BK_OK)
        goto done;
    (void)snprintf(shorts, sizeof shorts, ":q%s", set->short_options);
    opterr = 0;
    optind = 0; /* glibc: start afresh, so that tests may parse more than once */
    while (rc == BK_OK && (option = getopt_long(end, argv, shorts, set->long_options, NULL)) != -1)
        rc = take_option(option, argv, set, args, common, err);
    rest->operands = argv + optind;
    rest->operand_count = end - optind;
    rest->command = end < argc ? argv + end + 1 : NULL;
    if (rc == BK_OK && rest->command != NULL && rest->command[0] == NULL)
        rc = bk_fail(err, BK_E_USAGE, "no command follows --");
    if (common->help || common->version)
        rc = BK_OK;
done:
    if (rc != BK_OK && rc == BK_E_USAGE && err->hint[0] == '\0')
        bk_err_hint(err, "see %s --help", argv[0]);
    return rc;
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

void
cmd_warn_pin_value(struct cmd *c, const char *uri)
{
    if (p11_is_uri(uri) && p11_uri_has_pin_value(uri))
        cmd_warn(c, "a PIN in a URI is seen by everybody who can list processes; use pin-source=file:...");
}
