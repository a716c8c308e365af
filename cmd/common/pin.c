/* Where PINs come from: the URI's pin-source, a systemd credential, or a person. docs/CLI.md, PINs. */
#include "cmd/common/cmd.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "store/command.h"
#include "store/source.h"

#define PIN_MAX 1024

/* One newline at the end is the editor's, not the PIN's. */
static enum bk_code
take_pin(struct bk_secret *room, size_t len, struct bk_secret *pin, struct bk_err *err)
{
    if (len > 0 && room->data[len - 1] == '\n')
        len--;
    if (len == 0)
        return bk_fail(err, BK_E_PIN, "the PIN is empty; it was not tried");
    return bk_secret_from(pin, room->data, len, err);
}

static enum bk_code
read_pin(struct store_source *src, struct bk_secret *pin, struct bk_err *err)
{
    struct bk_secret room = {0};
    size_t got = 0;
    enum bk_code rc;

    if ((rc = bk_secret_alloc(&room, PIN_MAX, err)) != BK_OK)
        return rc;
    rc = store_source_read(src, room.data, PIN_MAX, &got, err);
    if (rc == BK_OK && got == PIN_MAX)
        rc = bk_fail(err, BK_E_USAGE, "longer than any PIN");
    if (rc == BK_OK)
        rc = take_pin(&room, got, pin, err);
    bk_secret_wipe(&room);
    return rc;
}

/* own_file 0: the service manager guards the file's folder, and gives the service leave by an ACL, which shows as leave
 * of the group (systemd.exec(5), credentials). */
static enum bk_code
pin_from_file(struct cmd *c, const char *path, int own_file, struct bk_secret *pin, struct bk_err *err)
{
    struct store_source *src = NULL;
    struct stat st;
    enum bk_code rc = store_source_open(path, &c->cancel, &src, err);

    if (rc == BK_OK && own_file && stat(path, &st) == 0 && (st.st_mode & 077) != 0)
        cmd_warn(c, "%s: others can read this PIN (mode %03o); chmod 600", path, (unsigned)(st.st_mode & 0777));
    if (rc == BK_OK && (rc = read_pin(src, pin, err)) != BK_OK)
        bk_err_prefix(err, "%s", path);
    store_source_close(src);
    if (rc != BK_OK)
        bk_err_prefix(err, "the PIN's file");
    /* no PIN is exit status 9 only if it was refused; a source that cannot be read is a matter of configuration */
    return rc == BK_E_IO ? (err->code = BK_E_USAGE) : rc;
}

/* That the command failed says more than the empty PIN that it left. */
static enum bk_code
command_verdict(struct store_command *command, enum bk_code rc, struct bk_err *err)
{
    struct bk_err verdict = {0};

    if (store_command_finish(command, &verdict) == BK_OK)
        return rc;
    *err = verdict;
    return err->code = verdict.code == BK_E_COMMAND ? BK_E_USAGE : verdict.code;
}

static enum bk_code
pin_from_command(struct cmd *c, const char *line, struct bk_secret *pin, struct bk_err *err)
{
    /* our standard input may be the backup: what the command reads of it would be missing there */
    char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)"exec /bin/sh -c \"$1\" </dev/null",
                    (char *)"sh",      (char *)line, NULL};
    struct store_command *command = NULL;
    struct store_source *src = NULL;
    enum bk_code rc = store_command_produce(argv, &c->cancel, &command, &src, err);

    if (rc == BK_OK)
        rc = read_pin(src, pin, err);
    store_source_close(src);
    if (rc == BK_OK || rc == BK_E_PIN)
        rc = command_verdict(command, rc, err);
    else
        store_command_kill(command);
    if (rc != BK_OK) {
        bk_secret_wipe(pin);
        bk_err_prefix(err, "pin-source");
    }
    return rc;
}

static enum bk_code
pin_from_source(struct cmd *c, const char *source, struct bk_secret *pin, struct bk_err *err)
{
    if (source[0] == '|')
        return pin_from_command(c, source + 1, pin, err);
    if (strncmp(source, "file:", 5) == 0) {
        const char *path = source + 5;

        if (strncmp(path, "//", 2) == 0 && path[2] == '/')
            path += 2; /* file:///absolute */
        return pin_from_file(c, path, 1, pin, err);
    }
    if (source[0] == '/')
        return pin_from_file(c, source, 1, pin, err);
    /* not shown: it may be the PIN itself */
    return bk_fail(err, BK_E_USAGE, "pin-source= is neither file:PATH nor |COMMAND");
}

static int
credential_path(const struct p11_pin_request *req, char *out, size_t room)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    int n;

    /* a security officer makes keys, and has no business in a service */
    if (folder == NULL || strchr(req->token_label, '/') != NULL || req->security_officer)
        return 0;
    n = snprintf(out, room, "%s/bk-pin.%s", folder, req->token_label);
    /* one that is there and cannot be read is an error, no reason to ask somebody else */
    return n > 0 && (size_t)n < room && access(out, F_OK) == 0;
}

/* -1 on an error, and when Ctrl-C asks to stop: then the terminal's echo can be put back. */
static ssize_t
read_line(int tty, const struct bk_cancel *cancel, uint8_t *room, size_t len)
{
    struct pollfd wait[2] = {{.fd = tty, .events = POLLIN}, {.fd = cancel->fd, .events = POLLIN}};
    size_t used = 0;

    while (used < len) {
        ssize_t n;

        if (poll(wait, 2, -1) < 0 && errno != EINTR)
            return -1;
        if (bk_cancelled(cancel))
            return -1;
        if ((wait[0].revents & (POLLIN | POLLHUP | POLLERR)) == 0)
            continue;
        n = read(tty, room + used, 1);
        if (n < 0)
            return -1;
        if (n == 0 || room[used] == '\n')
            break;
        used++;
    }
    return (ssize_t)used;
}

static enum bk_code
ask(int tty, const struct bk_cancel *cancel, const struct p11_pin_request *req, struct bk_secret *pin,
    struct bk_err *err)
{
    struct bk_secret room = {0};
    struct termios old, quiet;
    ssize_t n;
    enum bk_code rc;

    if (tcgetattr(tty, &old) != 0)
        return bk_fail_errno(err, errno, "the terminal");
    if ((rc = bk_secret_alloc(&room, PIN_MAX, err)) != BK_OK)
        return rc;
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
    (void)tcsetattr(tty, TCSAFLUSH, &quiet);
    (void)dprintf(tty, "%s%s of token %s (serial %s): ", req->final_try ? "LAST TRY before the token locks. " : "",
                  req->security_officer ? "Security officer's PIN" : "PIN", req->token_label, req->token_serial);
    n = read_line(tty, cancel, room.data, room.len);
    (void)dprintf(tty, "\n");
    (void)tcsetattr(tty, TCSAFLUSH, &old);
    rc = n < 0 ? bk_fail(err, BK_E_CANCELLED, "no PIN was given") : take_pin(&room, (size_t)n, pin, err);
    bk_secret_wipe(&room);
    return rc;
}

/* Percent-encoded for a URI (RFC 7512 section 2.3). A token's label has at most 32 bytes. */
static const char *
uri_value(const char *text, char *out, size_t room)
{
    size_t used = 0;

    out[0] = '\0';
    for (const char *c = text; *c != '\0' && used + 4 <= room; c++) {
        int plain = isalnum((unsigned char)*c) || strchr("-._", *c) != NULL;

        used += (size_t)snprintf(out + used, room - used, plain ? "%c" : "%%%02X", (unsigned char)*c);
    }
    return out;
}

static enum bk_code
pin_from_person(struct cmd *c, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err)
{
    int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    char label[128];
    enum bk_code rc;

    if (tty < 0) {
        rc = bk_fail(err, BK_E_PIN, "token %s: %s, and there is no terminal to ask at; no PIN was tried",
                     req->token_label,
                     req->final_try          ? "one more wrong PIN locks it"
                     : req->security_officer ? "it wants its security officer's PIN"
                                             : "it wants a PIN");
        if (req->final_try)
            bk_err_hint(err, "log in once by hand, at a terminal, with the right PIN");
        else
            bk_err_hint(err,
                        "say where its PIN is, as in 'pkcs11:token=%s?pin-source=file:PATH' (bk-unwrap -k), or run at "
                        "a terminal",
                        uri_value(req->token_label, label, sizeof label));
        return rc;
    }
    cmd_lines_hold(c);
    rc = ask(tty, &c->cancel, req, pin, err);
    cmd_lines_release(c);
    (void)close(tty);
    return rc;
}

enum bk_code
cmd_pin(void *ctx, const struct p11_pin_request *req, struct bk_secret *pin, struct bk_err *err)
{
    struct cmd *c = ctx;
    char path[4096];

    cmd_progress_end(c);
    if (req->count_low)
        cmd_warn(c, "token %s: a wrong PIN was given lately; it is tried once", req->token_label);
    if (req->final_try)
        return pin_from_person(c, req, pin, err);
    if (req->pin_source != NULL)
        return pin_from_source(c, req->pin_source, pin, err);
    if (credential_path(req, path, sizeof path))
        return pin_from_file(c, path, 0, pin, err);
    return pin_from_person(c, req, pin, err);
}
