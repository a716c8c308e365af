#include "cmd/common/profile.h"

#include <ctype.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

/* A list of trust or a URI with two paths in it stays far below. */
#define LINE_BYTES 8192
/* inih cuts longer ones without a word */
#define NAME_BYTES 48

struct parse {
    const char *path;
    const char *name; /* the profile that is wanted */
    const char *at;
    const char *end;
    unsigned line;
    int found;
    char names[512]; /* of the profiles that there are */
    struct cmd_profile profile;
    enum bk_code rc;
    struct bk_err *err;
};

/* Every long option of every program; tests/cli/docs_test.sh compares. */
static const struct {
    const char *name;
    enum cmd_key kind;
} keys[] = {
    {"add", CMD_KEY_LIST},
    {"against", CMD_KEY_REFUSED},
    {"allow-empty", CMD_KEY_FLAG},
    {"allow-unverified", CMD_KEY_FLAG},
    {"batch", CMD_KEY_REFUSED},
    {"blind", CMD_KEY_VALUE},
    {"config", CMD_KEY_REFUSED},
    {"days", CMD_KEY_VALUE},
    {"detach", CMD_KEY_FLAG},
    {"direct", CMD_KEY_FLAG},
    {"dry-run", CMD_KEY_FLAG},
    {"engine", CMD_KEY_VALUE},
    {"expect", CMD_KEY_LIST},
    {"force", CMD_KEY_FLAG},
    {"from", CMD_KEY_VALUE},
    {"help", CMD_KEY_REFUSED},
    {"jobs", CMD_KEY_VALUE},
    {"json", CMD_KEY_MAYBE},
    {"key", CMD_KEY_LIST},
    {"kind", CMD_KEY_VALUE},
    {"level", CMD_KEY_VALUE},
    {"manifest", CMD_KEY_VALUE},
    {"max-age", CMD_KEY_VALUE},
    {"meta", CMD_KEY_LIST}, /* bk-wrap's; bk-unwrap's, which takes no value, is for the command line */
    {"meta-file", CMD_KEY_LIST},
    {"min-generation", CMD_KEY_VALUE},
    {"null", CMD_KEY_REFUSED},
    {"on-token", CMD_KEY_REFUSED},
    {"output", CMD_KEY_VALUE},
    {"owner", CMD_KEY_VALUE},
    {"parent", CMD_KEY_VALUE},
    {"profile", CMD_KEY_REFUSED},
    {"progress", CMD_KEY_VALUE},
    {"public-label", CMD_KEY_VALUE},
    {"quiet", CMD_KEY_FLAG},
    {"range", CMD_KEY_VALUE},
    {"raw-rsa", CMD_KEY_FLAG},
    {"reason", CMD_KEY_VALUE},
    {"recipient", CMD_KEY_LIST},
    {"remove", CMD_KEY_LIST},
    /* PostgreSQL must not take a profile that cannot be read for the end of its archive (cmd/bk-unwrap/main.c) */
    {"restore-command", CMD_KEY_REFUSED},
    {"retain-until", CMD_KEY_VALUE},
    {"sequence", CMD_KEY_VALUE},
    {"show", CMD_KEY_FLAG},
    {"sidecar", CMD_KEY_FLAG},
    {"sign", CMD_KEY_VALUE},
    {"sign-cert", CMD_KEY_VALUE},
    {"to", CMD_KEY_VALUE},
    {"token-profile", CMD_KEY_LIST},
    {"token-timeout", CMD_KEY_VALUE},
    {"trust", CMD_KEY_LIST},
    {"type", CMD_KEY_VALUE},
    {"unproven", CMD_KEY_FLAG},
    {"use", CMD_KEY_VALUE},
    {"version", CMD_KEY_REFUSED},
};

enum cmd_key
cmd_profile_key(const char *name)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(keys[i].name, name) == 0)
            return keys[i].kind;
    return CMD_KEY_UNKNOWN;
}

void
cmd_profile_free(struct cmd_profile *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->entries[i].key);
        free(p->entries[i].value);
    }
    free(p->entries);
    free(p->path);
    *p = (struct cmd_profile){0};
}

static void
note_name(struct parse *p, const char *name, size_t len)
{
    size_t used = strlen(p->names);

    p->found |= strlen(p->name) == len && strncmp(p->name, name, len) == 0;
    (void)snprintf(p->names + used, sizeof p->names - used, "%s%.*s", used == 0 ? "" : ", ", (int)len, name);
}

/* [NAME] and nothing beside it: inih would take "[orders] nightly" as well, and cut a long name. */
static enum bk_code
take_section(struct parse *p, const char *line, size_t len)
{
    size_t end = 1;

    while (len > 0 && isspace((unsigned char)line[len - 1]))
        len--;
    while (end < len && isgraph((unsigned char)line[end]) && line[end] != ']')
        end++;
    if (end + 1 != len || line[end] != ']' || end == 1 || end - 1 > NAME_BYTES)
        return bk_fail(p->err, BK_E_USAGE,
                       "%s:%u: a profile begins with its name in brackets, 1 to %d bytes without blanks", p->path,
                       p->line, NAME_BYTES);
    note_name(p, line + 1, end - 1);
    return BK_OK;
}

static enum bk_code
check_line(struct parse *p, const char *line, size_t len, size_t room)
{
    /* one line feed and the NUL go with it */
    if (len + 2 > room)
        return bk_fail(p->err, BK_E_USAGE, "%s:%u: longer than %zu bytes", p->path, p->line, room - 2);
    return len > 0 && line[0] == '[' ? take_section(p, line, len) : BK_OK;
}

/* inih's fgets: a line at a time, without the blanks before it, so that an indented line is no continuation. */
static char *
next_line(char *room, int size, void *ctx)
{
    struct parse *p = ctx;
    const char *feed;
    size_t len;

    if (p->at == p->end || p->rc != BK_OK)
        return NULL;
    p->line++;
    feed = memchr(p->at, '\n', (size_t)(p->end - p->at));
    len = (size_t)((feed == NULL ? p->end : feed) - p->at);
    while (len > 0 && isspace((unsigned char)*p->at)) {
        p->at++;
        len--;
    }
    if ((p->rc = check_line(p, p->at, len, (size_t)size)) != BK_OK)
        return NULL;
    (void)snprintf(room, (size_t)size, "%.*s\n", (int)len, p->at);
    p->at = feed == NULL ? p->end : feed + 1;
    return room;
}

static enum bk_code
check_entry(const struct parse *p, const char *key, const char *value)
{
    enum cmd_key kind = cmd_profile_key(key);

    if (kind == CMD_KEY_UNKNOWN)
        return bk_fail(p->err, BK_E_USAGE, "%s:%u: no bk program has an option \"%s\"", p->path, p->line, key);
    if (kind == CMD_KEY_REFUSED)
        return bk_fail(p->err, BK_E_USAGE, "%s:%u: --%s is for the command line only", p->path, p->line, key);
    if (value[0] == '\0')
        return bk_fail(p->err, BK_E_USAGE, "%s:%u: %s has no value", p->path, p->line, key);
    if (kind == CMD_KEY_FLAG && strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
        return bk_fail(p->err, BK_E_USAGE, "%s:%u: %s: \"%s\" is neither yes nor no", p->path, p->line, key, value);
    for (size_t i = 0; kind != CMD_KEY_LIST && i < p->profile.count; i++)
        if (strcmp(p->profile.entries[i].key, key) == 0)
            return bk_fail(p->err, BK_E_USAGE, "%s:%u: %s is given again, after line %u", p->path, p->line, key,
                           p->profile.entries[i].line);
    return BK_OK;
}

static enum bk_code
add_entry(struct parse *p, const char *key, const char *value)
{
    struct cmd_profile *to = &p->profile;
    struct cmd_profile_entry *entries = reallocarray(to->entries, to->count + 1, sizeof *entries);
    struct cmd_profile_entry entry = {.line = p->line};

    if (entries == NULL)
        return bk_fail_nomem(p->err);
    to->entries = entries;
    entry.key = strdup(key);
    entry.value = strdup(value);
    entries[to->count++] = entry;
    return entry.key == NULL || entry.value == NULL ? bk_fail_nomem(p->err) : BK_OK;
}

/* inih's handler: 0 stops it. */
static int
take_entry(void *ctx, const char *section, const char *key, const char *value)
{
    struct parse *p = ctx;

    if (section[0] == '\0')
        p->rc = bk_fail(p->err, BK_E_USAGE, "%s:%u: stands before any [PROFILE]", p->path, p->line);
    else if (strcmp(section, p->name) == 0 && (p->rc = check_entry(p, key, value)) == BK_OK)
        p->rc = add_entry(p, key, value);
    return p->rc == BK_OK;
}

/* Debian's libinih has its choices as variables of the library; they are set each time, and nobody else here uses it.
 * Without them a line over 200 bytes would be cut, and " ;" would end a value. */
static void
set_up_inih(void)
{
    ini_use_stack = false;
    ini_max_line = LINE_BYTES + 2;
    ini_initial_alloc = LINE_BYTES + 2;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false;
    ini_allow_no_value = false;
    ini_stop_on_first_error = true;
}

static enum bk_code
run_inih(struct parse *p)
{
    int line;

    set_up_inih();
    line = ini_parse_stream(next_line, p, take_entry, p);
    if (p->rc != BK_OK)
        return p->rc;
    if (line < 0)
        return bk_fail_nomem(p->err);
    if (line > 0)
        return bk_fail(p->err, BK_E_USAGE, "%s:%d: neither [PROFILE] nor OPTION = VALUE", p->path, line);
    if (p->found)
        return BK_OK;
    p->rc = bk_fail(p->err, BK_E_USAGE, "%s: has no profile \"%s\"", p->path, p->name);
    bk_err_hint(p->err, "there %s %s", p->names[0] == '\0' ? "is" : "are:", p->names[0] == '\0' ? "none" : p->names);
    return p->rc;
}

enum bk_code
cmd_profile_parse(const char *path, const char *text, size_t len, const char *name, struct cmd_profile *out,
                  struct bk_err *err)
{
    struct parse p = {.path = path, .name = name, .at = text, .end = text + len, .err = err};
    enum bk_code rc;

    if (memchr(text, '\0', len) != NULL)
        return bk_fail(err, BK_E_USAGE, "%s: not a text file: a byte in it is 0", path);
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        p.at += 3;
    if ((rc = run_inih(&p)) == BK_OK && (p.profile.path = strdup(path)) == NULL)
        rc = bk_fail_nomem(err);
    if (rc != BK_OK) {
        cmd_profile_free(&p.profile);
        return rc;
    }
    *out = p.profile;
    return BK_OK;
}
