/* --json: one object for each archive, one a line. docs/CLI.md, JSON. */
#include "cmd/common/cmd.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/text.h"

void
cmd_json_text(json_t *o, const char *name, const char *text)
{
    char plain[PATH_MAX];
    json_t *value = text == NULL || text[0] == '\0' ? json_null() : json_string(text);

    /* the name of a file need not be UTF-8, JSON must */
    if (value == NULL && text != NULL)
        value = json_string(bk_text_plain(plain, sizeof plain, text, strlen(text)));
    (void)json_object_set_new(o, name, value);
}

static json_t *
result_object(const char *archive, enum bk_code rc, const struct bk_err *result, const uint8_t *archive_id,
              uint64_t generation)
{
    static const uint8_t unknown[BK_UUID_LEN];
    char id[BK_UUID_TEXT];
    json_t *o = json_object();
    int known = archive_id != NULL && memcmp(archive_id, unknown, BK_UUID_LEN) != 0;

    cmd_json_text(o, "archive", archive);
    cmd_json_text(o, "status", rc == BK_OK ? "ok" : "failed");
    (void)json_object_set_new(o, "code", json_integer(cmd_status(rc)));
    cmd_json_text(o, "layer", rc == BK_OK ? NULL : result->layer);
    cmd_json_text(o, "message", rc == BK_OK ? NULL : result->message);
    cmd_json_text(o, "hint", rc == BK_OK ? NULL : result->hint);
    cmd_json_text(o, "archiveId", known ? bk_uuid_text(archive_id, id) : NULL);
    (void)json_object_set_new(o, "generation", generation == 0 ? json_null() : json_integer((json_int_t)generation));
    return o;
}

enum bk_code
cmd_json(struct cmd *c, const char *archive, enum bk_code rc, const struct bk_err *result, const uint8_t *archive_id,
         uint64_t generation, json_t *fields, struct bk_err *err)
{
    json_t *o;
    int failed;

    if (c->json == NULL) {
        json_decref(fields);
        return BK_OK;
    }
    o = result_object(archive, rc, result, archive_id, generation);
    if (fields != NULL)
        (void)json_object_update(o, fields);
    json_decref(fields);
    failed =
        o == NULL || json_dumpf(o, c->json, JSON_COMPACT) != 0 || fputc('\n', c->json) == EOF || fflush(c->json) != 0;
    json_decref(o);
    return failed ? bk_fail_errno(err, errno, "--json: cannot write") : BK_OK;
}

enum bk_code
cmd_json_not_mixed(const struct cmd_common *common, const char *output, struct bk_err *err)
{
    if (common->json && common->json_path == NULL && output != NULL && strcmp(output, "-") == 0)
        return bk_fail(err, BK_E_USAGE, "--json and the output would both go to standard output: --json=FILE");
    return BK_OK;
}
