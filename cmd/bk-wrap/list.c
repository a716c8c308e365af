#include "cmd/bk-wrap/list.h"

#include <string.h>

#include "format/manifest.h"

#define FIELDS 3

enum bk_code
wrap_list_open(struct wrap_list *l, const char *path, int null, const struct bk_cancel *cancel, struct bk_err *err)
{
    enum bk_code rc = store_source_open(path, cancel, &l->src, err);

    l->null = null;
    if (rc == BK_E_IO) {
        bk_err_prefix(err, "--batch");
        /* a file that the command line names: a matter of usage, as with --trust */
        rc = err->code = BK_E_USAGE;
    }
    return rc;
}

void
wrap_list_close(struct wrap_list *l)
{
    store_source_close(l->src);
    l->src = NULL;
}

void
wrap_list_interrupt(struct wrap_list *l)
{
    store_source_interrupt(l->src);
}

/* The byte after the first record in room, or NULL if it is not whole yet. */
static uint8_t *
record_end(struct wrap_list *l)
{
    uint8_t *at = l->room + l->start;
    uint8_t *end = l->room + l->end;

    for (int left = l->null ? FIELDS : 1; at != NULL && left > 0; left--)
        if ((at = memchr(at, l->null ? '\0' : '\n', (size_t)(end - at))) != NULL)
            at++;
    return at;
}

/* More of the list behind what is there; *got is 0 at its end. */
static enum bk_code
fill(struct wrap_list *l, size_t *got, struct bk_err *err)
{
    enum bk_code rc;

    memmove(l->room, l->room + l->start, l->end - l->start);
    l->end -= l->start;
    l->start = 0;
    rc = store_source_read_some(l->src, l->room + l->end, sizeof l->room - l->end, got, err);
    l->end += *got;
    return rc;
}

/* A line that is too long, to its end, which is not kept. */
static enum bk_code
skip_line(struct wrap_list *l, struct bk_err *err)
{
    size_t got = 1;
    enum bk_code rc = BK_OK;
    uint8_t *end;

    while ((end = record_end(l)) == NULL && rc == BK_OK && got > 0) {
        l->start = l->end;
        rc = fill(l, &got, err);
    }
    if (rc == BK_OK)
        l->start = end == NULL ? l->end : (size_t)(end - l->room);
    return rc != BK_OK ? rc : bk_fail(err, BK_E_USAGE, "longer than %d bytes", WRAP_LIST_ROOM);
}

static enum bk_code
fail_long(struct wrap_list *l, struct bk_err *err)
{
    if (!l->null)
        return skip_line(l, err);
    l->out_of_step = 1;
    return bk_fail(err, BK_E_USAGE, "longer than %d bytes", WRAP_LIST_ROOM);
}

/* Whoever wrote it may have died in the midst of a name. */
static enum bk_code
fail_cut(struct wrap_list *l, struct bk_err *err)
{
    l->start = l->end;
    return bk_fail(err, BK_E_USAGE, "%s, so that it may be cut",
                   l->null ? "the last three fields are not all there" : "the last line does not end with a newline");
}

/* The next record, *len bytes with its end. *record is NULL when the list has ended. */
static enum bk_code
next_record(struct wrap_list *l, char **record, size_t *len, struct bk_err *err)
{
    size_t got = 1;
    enum bk_code rc = BK_OK;
    uint8_t *end;

    *record = NULL;
    while ((end = record_end(l)) == NULL && rc == BK_OK && got > 0 && l->end - l->start < sizeof l->room)
        rc = fill(l, &got, err);
    if (rc != BK_OK || (end == NULL && l->start == l->end))
        return rc;
    l->records++;
    if (end == NULL)
        return got == 0 ? fail_cut(l, err) : fail_long(l, err);
    *record = (char *)l->room + l->start;
    *len = (size_t)(end - l->room) - l->start;
    l->start += *len;
    return BK_OK;
}

/* Cuts a line into its fields. */
static enum bk_code
split_line(char *line, size_t len, char *fields[FIELDS], struct bk_err *err)
{
    size_t count = 0;

    line[len - 1] = '\0';
    if (strlen(line) != len - 1)
        return bk_fail(err, BK_E_USAGE, "a byte in it is 0; fields that end with NULs go with --null");
    if (len > 1 && line[len - 2] == '\r')
        return bk_fail(err, BK_E_USAGE, "it ends with a carriage return, which would be part of a name");
    for (char *at = line; at != NULL; count++) {
        char *tab = strchr(at, '\t');

        if (count == FIELDS)
            return bk_fail(err, BK_E_USAGE, "more than INPUT, OUTPUT and SEQUENCE; names with a tab go with --null");
        if (tab != NULL)
            *tab++ = '\0';
        fields[count] = at;
        at = tab;
    }
    return count > 1 ? BK_OK : bk_fail(err, BK_E_USAGE, "no tab between INPUT and OUTPUT");
}

static void
split_null(char *record, char *fields[FIELDS])
{
    for (size_t i = 0; i < FIELDS; i++) {
        fields[i] = record;
        record += strlen(record) + 1;
    }
}

static enum bk_code
check_name(const char *name, const char *which, struct bk_err *err)
{
    if (name[0] == '\0')
        return bk_fail(err, BK_E_USAGE, "%s is empty", which);
    if (strcmp(name, "-") == 0)
        return bk_fail(err, BK_E_USAGE, "%s is -, and a batch has no stream for one of many; ./- is a file", which);
    return BK_OK;
}

static enum bk_code
check_fields(char *const fields[FIELDS], struct bk_err *err)
{
    enum bk_code rc = check_name(fields[0], "INPUT", err);

    if (rc == BK_OK)
        rc = check_name(fields[1], "OUTPUT", err);
    /* with --force the archive would replace what it is of */
    if (rc == BK_OK && strcmp(fields[0], fields[1]) == 0)
        rc = bk_fail(err, BK_E_USAGE, "INPUT and OUTPUT are one");
    if (rc == BK_OK && fields[2] != NULL && !bk_sequence_valid(fields[2]))
        rc = bk_fail(err, BK_E_USAGE, "SEQUENCE: not key=value words, one space between, each key once");
    return rc;
}

static enum bk_code
parse(struct wrap_list *l, char *record, size_t len, struct wrap_item *item, struct bk_err *err)
{
    char *fields[FIELDS] = {NULL};
    enum bk_code rc = BK_OK;

    if (l->null)
        split_null(record, fields);
    else
        rc = split_line(record, len, fields, err);
    if (rc == BK_OK)
        rc = check_fields(fields, err);
    /* one field too many or too few, and inputs would be taken for outputs */
    l->out_of_step |= l->null && rc != BK_OK;
    if (rc == BK_OK)
        *item = (struct wrap_item){.input = fields[0],
                                   .output = fields[1],
                                   .sequence = fields[2] == NULL || *fields[2] == '\0' ? NULL : fields[2]};
    return rc;
}

enum bk_code
wrap_list_next(struct wrap_list *l, struct wrap_item *item, struct bk_err *err)
{
    char *record = NULL;
    size_t len = 0;
    enum bk_code rc;

    *item = (struct wrap_item){0};
    if (l->out_of_step)
        return BK_OK;
    do
        rc = next_record(l, &record, &len, err);
    while (rc == BK_OK && record != NULL && !l->null && len == 1);
    return rc != BK_OK || record == NULL ? rc : parse(l, record, len, item, err);
}

int
wrap_list_rest(const char *path, int null, uint64_t after, uint64_t *count)
{
    struct wrap_list l = {0};
    struct bk_err ignored = {0};
    char *record = NULL;
    size_t len = 0;
    uint64_t rest = 0;
    enum bk_code rc = wrap_list_open(&l, path, null, NULL, &ignored);
    int is_file = rc == BK_OK && store_source_seekable(l.src);

    while (is_file && !l.out_of_step && (rc == BK_OK || rc == BK_E_USAGE)) {
        rc = next_record(&l, &record, &len, &ignored);
        if (rc == BK_OK && record == NULL)
            break;
        rest += l.records > after && (null || len > 1 || rc != BK_OK);
    }
    wrap_list_close(&l);
    *count = rest;
    return is_file && (rc == BK_OK || rc == BK_E_USAGE);
}
