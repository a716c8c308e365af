#include "store/name.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum bk_code
store_name_exists(const char *path, int *out, struct bk_err *err)
{
    struct stat st;

    *out = lstat(path, &st) == 0;
    if (!*out && errno != ENOENT && errno != ENOTDIR)
        return bk_fail_errno(err, errno, "%s: cannot tell whether it is there", path);
    return BK_OK;
}

enum bk_code
store_name_remove(const char *path, struct bk_err *err)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return bk_fail_errno(err, errno, "%s: cannot be removed", path);
    return BK_OK;
}
