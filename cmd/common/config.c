/* Where profiles are read from, and who may have written there. docs/CLI.md, Profiles. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/common/profile.h"
#include "store/source.h"

#define SYSTEM_CONFIG "/etc/bk/bk.conf"
#define CONFIG_BYTES  ((size_t)256 * 1024)

static enum bk_code
copy(const char *path, char **out, struct bk_err *err)
{
    return (*out = strdup(path)) == NULL ? bk_fail_nomem(err) : BK_OK;
}

/* The user's file; 0 if the environment names no place for it. */
static int
user_config(char *out, size_t room)
{
    const char *folder = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    int n;

    /* XDG Base Directory Specification: relative paths are ignored */
    if (folder != NULL && folder[0] == '/')
        n = snprintf(out, room, "%s/bk/bk.conf", folder);
    else if (home != NULL && home[0] == '/')
        n = snprintf(out, room, "%s/.config/bk/bk.conf", home);
    else
        return 0;
    return n > 0 && (size_t)n < room;
}

enum bk_code
cmd_config_path(const char *config, char **out, struct bk_err *err)
{
    const char *env = getenv("BK_CONFIG");
    char user[PATH_MAX];
    int has_user = user_config(user, sizeof user);
    enum bk_code rc;

    if (config != NULL || (env != NULL && env[0] != '\0'))
        return copy(config != NULL ? config : env, out, err);
    /* one that is there and cannot be read is an error, no reason to take another */
    if (has_user && (access(user, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)))
        return copy(user, out, err);
    if (access(SYSTEM_CONFIG, F_OK) == 0 || errno != ENOENT)
        return copy(SYSTEM_CONFIG, out, err);
    rc = bk_fail(err, BK_E_USAGE, "no file with profiles: %s%s" SYSTEM_CONFIG " is not there", has_user ? user : "",
                 has_user ? " is not there, and " : "");
    bk_err_hint(err, "--config FILE or BK_CONFIG=FILE names another");
    return rc;
}

static enum bk_code
check_folder(const char *path, uid_t owner, struct bk_err *err)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return bk_fail(err, BK_E_USAGE, "%s: %s", path, strerror(errno));
    if (st.st_uid != 0 && st.st_uid != owner)
        return bk_fail(err, BK_E_USAGE, "%s: belongs to another user (%u), who could change what is in it", path,
                       (unsigned)st.st_uid);
    /* in a sticky folder nobody can replace what is not his: /tmp */
    if ((st.st_mode & 022) != 0 && (st.st_mode & S_ISVTX) == 0)
        return bk_fail(err, BK_E_USAGE, "%s: others can write into it (mode %03o)", path,
                       (unsigned)(st.st_mode & 0777));
    return BK_OK;
}

/* Every folder in an absolute path, "/" first. */
static enum bk_code
check_way(const char *path, uid_t owner, struct bk_err *err)
{
    char folder[PATH_MAX];
    enum bk_code rc = check_folder("/", owner, err);

    for (const char *slash = strchr(path + 1, '/'); slash != NULL && rc == BK_OK; slash = strchr(slash + 1, '/')) {
        (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
        rc = check_folder(folder, owner, err);
    }
    return rc;
}

static int
absolute(const char *path, char *out, size_t room)
{
    char here[PATH_MAX];
    int n;

    if (path[0] == '/')
        n = snprintf(out, room, "%s", path);
    else
        n = getcwd(here, sizeof here) == NULL ? -1 : snprintf(out, room, "%s/%s", here, path);
    return n > 0 && (size_t)n < room;
}

enum bk_code
cmd_config_check_folders(const char *path, uid_t owner, struct bk_err *err)
{
    char named[PATH_MAX], real[PATH_MAX];
    enum bk_code rc;

    if (!absolute(path, named, sizeof named) || realpath(path, real) == NULL)
        return bk_fail(err, BK_E_USAGE, "%s: %s", path, strerror(errno));
    if ((rc = check_way(named, owner, err)) == BK_OK)
        rc = check_way(real, owner, err);
    return rc;
}

static enum bk_code
check_file(int fd, const char *path, struct bk_err *err)
{
    struct stat st;
    enum bk_code rc;

    if (fstat(fd, &st) != 0)
        return bk_fail(err, BK_E_USAGE, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return bk_fail(err, BK_E_USAGE, "%s: not a file", path);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        rc = bk_fail(err, BK_E_USAGE, "%s: belongs to another user (%u)", path, (unsigned)st.st_uid);
    else if ((st.st_mode & 022) != 0)
        rc = bk_fail(err, BK_E_USAGE, "%s: others can write it (mode %03o)", path, (unsigned)(st.st_mode & 0777));
    else
        rc = cmd_config_check_folders(path, geteuid(), err);
    if (rc != BK_OK)
        bk_err_hint(err,
                    "what configures can name commands and whom to trust: only you and root may be able to write it "
                    "(chmod go-w, chown)");
    return rc;
}

enum bk_code
cmd_config_read(const char *path, char *room, size_t size, size_t *len, struct bk_err *err)
{
    struct store_source *src = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    enum bk_code rc;

    if (fd < 0)
        return bk_fail(err, BK_E_USAGE, "%s: %s", path, strerror(errno));
    if ((rc = check_file(fd, path, err)) != BK_OK) {
        (void)close(fd);
        return rc;
    }
    if ((rc = store_source_from_fd(fd, path, NULL, &src, err)) == BK_OK)
        rc = store_source_read(src, (uint8_t *)room, size, len, err);
    store_source_close(src);
    /* what configures is a matter of usage, and never "the archive is not there" (--restore-command) */
    if (rc == BK_E_IO)
        rc = err->code = BK_E_USAGE;
    if (rc == BK_OK && *len == size)
        rc = bk_fail(err, BK_E_USAGE, "%s: larger than %zu bytes", path, size - 1);
    return rc;
}

enum bk_code
cmd_profile_read(const char *config, const char *name, struct cmd_profile *out, struct bk_err *err)
{
    char *path = NULL, *room = NULL;
    size_t len = 0;
    enum bk_code rc;

    if ((rc = cmd_config_path(config, &path, err)) != BK_OK)
        goto done;
    if ((room = malloc(CONFIG_BYTES + 1)) == NULL) {
        rc = bk_fail_nomem(err);
        goto done;
    }
    if ((rc = cmd_config_read(path, room, CONFIG_BYTES + 1, &len, err)) != BK_OK)
        goto done;
    rc = cmd_profile_parse(path, room, len, name, out, err);
done:
    free(room);
    free(path);
    return rc;
}
