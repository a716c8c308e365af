#include "cmd/common/cmd.h"

#include <string.h>

enum bk_code
cmd_engine_name(const char *value, const char **out, struct bk_err *err)
{
    static const char *const names[] = {"auto", "openssl", "ipsec-mb"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(value, names[i]) == 0) {
            *out = names[i];
            return BK_OK;
        }
    return bk_fail(err, BK_E_USAGE, "--engine: \"%s\" is none of auto, openssl, ipsec-mb", value);
}

enum bk_code
cmd_engine(struct cmd *c, const char *name, const struct bk_engine **out, struct bk_err *err)
{
    enum bk_code rc = bk_engine_choose(bk_engines, name, &c->log, out, err);

    if (rc == BK_E_USAGE)
        bk_err_hint(err, "--engine auto takes the fastest that there is");
    return rc;
}
