/* Messages at the end of a run, and the only switch from code to exit status. */
#include "cmd/common/cmd.h"

#include <limits.h>
#include <signal.h>
#include <string.h>

int
cmd_status(enum bk_code rc)
{
    switch (rc) {
    case BK_OK:
        return 0;
    case BK_E_FORMAT:
    case BK_E_INCOMPLETE:
    case BK_E_NEWER:
    case BK_E_VERIFY:
    case BK_E_UNTRUSTED:
    case BK_E_UNEXPECTED:
        return 1;
    case BK_E_USAGE:
        return 2;
    case BK_E_TOKEN:
    case BK_E_NO_KEY:
    case BK_E_UNSUPPORTED:
        return 3;
    case BK_E_POLICY:
        return 4;
    case BK_E_IO:
    case BK_E_NO_ROOM:
    case BK_E_CANCELLED:
        return 5;
    case BK_E_BATCH:
        return 6;
    case BK_E_COMMAND:
        return 7;
    case BK_E_INTERNAL:
        return 8;
    case BK_E_PIN:
        return 9;
    }
    return 8;
}

int
cmd_exit(const char *name, enum bk_code rc, const struct bk_err *err)
{
    /* a Ctrl-C reaches the command as well, and its end may be noticed before our own request to stop */
    int signal_number = rc == BK_E_CANCELLED || rc == BK_E_COMMAND ? cmd_signal_seen() : 0;

    if (rc != BK_OK && err->message[0] != '\0')
        cmd_line(stderr, name, "error: ", err->message);
    if (rc != BK_OK && err->hint[0] != '\0')
        cmd_line(stderr, name, "hint: ", err->hint);
    if (signal_number != 0) {
        (void)signal(signal_number, SIG_DFL);
        (void)raise(signal_number);
    }
    return cmd_status(rc);
}

void
cmd_report(struct cmd *c, const char *archive, const struct bk_err *err)
{
    size_t len = strlen(archive);
    int named = strncmp(err->message, archive, len) == 0 && err->message[len] == ':';
    char text[PATH_MAX + sizeof err->message];

    cmd_progress_end(c);
    (void)snprintf(text, sizeof text, "%s%s%s", named ? "" : archive, named ? "" : ": ", err->message);
    cmd_line(stderr, c->name, "error: ", text);
    if (err->hint[0] != '\0')
        cmd_line(stderr, c->name, "hint: ", err->hint);
}

void
cmd_batch_add(struct cmd_batch *b, enum bk_code rc)
{
    b->total++;
    if (rc == BK_OK)
        return;
    b->failed++;
    if (b->first == BK_OK || (bk_code_is_verification(rc) && b->verification == 0))
        b->first = rc;
    b->verification += (size_t)bk_code_is_verification(rc);
    /* a PIN is never tried twice, and a second archive would try it */
    if (rc == BK_E_PIN || rc == BK_E_CANCELLED) {
        b->first = rc;
        b->stop = 1;
    }
}

enum bk_code
cmd_batch_code(const struct cmd_batch *b)
{
    if (b->failed == 0)
        return BK_OK;
    if (b->total == 1 || b->stop || b->verification > 0)
        return b->first;
    return BK_E_BATCH;
}
