/* What a program leaves at its end: its main calls cmd_exit last. */
#include <stdio.h>
#include <stdlib.h>

#include "cmd/common/cmd.h"
#include "tests/nth/leftover.h"
#include "tests/nth/nth.h"

int __real_cmd_exit(const char *name, enum bk_code rc, const struct bk_err *err);
int __wrap_cmd_exit(const char *name, enum bk_code rc, const struct bk_err *err);
int
__wrap_cmd_exit(const char *name, enum bk_code rc, const struct bk_err *err)
{
    const char *path = getenv("BK_NTH_SECRET");
    char line[128];

    (void)snprintf(line, sizeof line, "end %lu %ld %zu %ld", nth_seen(), nth_sessions(), nth_secrets(),
                   path == NULL ? -1 : nth_leftover(path));
    nth_report(line);
    return __real_cmd_exit(name, rc, err);
}
