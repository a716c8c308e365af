/* A program: what it leaves at its end. Its main calls cmd_exit last. */
#include "cmd/common/cmd.h"
#include "tests/nth/nth.h"

__attribute__((constructor)) static void
arm(void)
{
    nth_arm_by("BK_NTH", "");
}

int __real_cmd_exit(const char *name, enum bk_code rc, const struct bk_err *err);
int __wrap_cmd_exit(const char *name, enum bk_code rc, const struct bk_err *err);
int
__wrap_cmd_exit(const char *name, enum bk_code rc, const struct bk_err *err)
{
    nth_report_end("end");
    return __real_cmd_exit(name, rc, err);
}
