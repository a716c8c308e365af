/* --meta-file: private notes from files. docs/CLI.md, bk-wrap. */
#include <stdlib.h>
#include <string.h>

#include "cmd/bk-wrap/args.h"
#include "format/manifest.h"
#include "store/read_all.h"

/* Notes and comments; of the notes themselves the key package takes 64 KiB (docs/FORMAT.md). */
#define NOTES_BYTES ((size_t)256 * 1024)

static int
is_note(const char *line)
{
    return line[0] != '#' && line[strspn(line, " \t\r")] != '\0';
}

static enum bk_code
take_line(struct wrap_args *a, char *line, struct bk_err *err)
{
    size_t len = strlen(line);

    if (len > 0 && line[len - 1] == '\r')
        line[len - 1] = '\0';
    return is_note(line) ? wrap_args_note(a, line, err) : BK_OK;
}

enum bk_code
wrap_take_notes(struct wrap_args *a, const char *path, char *text, size_t len, struct bk_err *err)
{
    enum bk_code rc = BK_OK;
    unsigned number = 0;

    if (strlen(text) != len)
        return bk_fail(err, BK_E_USAGE, "--meta-file: %s: not a text file: a byte in it is 0", path);
    for (char *line = text, *next; line != NULL && rc == BK_OK; line = next) {
        if ((next = strchr(line, '\n')) != NULL)
            *next++ = '\0';
        number++;
        if ((rc = take_line(a, line, err)) != BK_OK)
            bk_err_prefix(err, "--meta-file: %s:%u", path, number);
    }
    return rc;
}

static enum bk_code
read_notes(struct wrap_args *a, const char *path, struct bk_err *err)
{
    struct bk_buf *notes = reallocarray(a->notes, a->note_count + 1, sizeof *notes);
    enum bk_code rc;

    if (notes == NULL)
        return bk_fail_nomem(err);
    a->notes = notes;
    notes[a->note_count] = (struct bk_buf){0};
    if ((rc = store_read_all(path, NOTES_BYTES, &notes[a->note_count], err)) != BK_OK) {
        bk_err_prefix(err, "--meta-file");
        /* a file that the command line names: a matter of usage, as with --trust */
        return rc == BK_E_IO ? (err->code = BK_E_USAGE) : rc;
    }
    a->note_count++;
    return wrap_take_notes(a, path, (char *)notes[a->note_count - 1].data, notes[a->note_count - 1].len, err);
}

/* Standard input can be read once: as notes only if the backup, or the list of what to back up, comes from elsewhere.
 */
static enum bk_code
check_stdin(const struct wrap_args *a, struct bk_err *err)
{
    const char *source = a->batch != NULL ? a->batch : a->input;
    int taken = a->command == NULL && (source == NULL || strcmp(source, "-") == 0);

    for (size_t i = 0; i < a->meta_files.count; i++)
        if (strcmp(a->meta_files.items[i], "-") == 0 && taken++)
            return bk_fail(err, BK_E_USAGE, "--meta-file: standard input cannot be read twice");
    return BK_OK;
}

enum bk_code
wrap_load_notes(struct wrap_args *a, struct bk_err *err)
{
    enum bk_code rc = check_stdin(a, err);

    for (size_t i = 0; i < a->meta_files.count && rc == BK_OK; i++)
        rc = read_notes(a, a->meta_files.items[i], err);
    return rc;
}
