/* A token worker: what it leaves at its end. Its main calls serve last. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/nth/nth.h"
#include "worker/serve.h"

#define PREFIX "worker "

/* 1 if the report says that a worker was hit. */
static int
was_hit(void)
{
    const char *path = getenv("BK_NTH_REPORT");
    FILE *f = path == NULL ? NULL : fopen(path, "re");
    char line[160];
    int hit = 0;

    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL)
        hit |= strncmp(line, PREFIX, strlen(PREFIX)) == 0 && strncmp(line, PREFIX "end ", strlen(PREFIX "end ")) != 0;
    (void)fclose(f);
    return hit;
}

__attribute__((constructor)) static void
arm(void)
{
    int again = getenv("BK_NTH_EVERY_WORKER") != NULL;

    nth_arm_by(again || !was_hit() ? "BK_NTH_WORKER" : "", PREFIX);
}

enum bk_code __real_serve(const struct serve_options *options, struct bk_err *err);
enum bk_code __wrap_serve(const struct serve_options *options, struct bk_err *err);
enum bk_code
__wrap_serve(const struct serve_options *options, struct bk_err *err)
{
    enum bk_code rc = __real_serve(options, err);

    nth_report_end(rc == BK_OK ? "end" : "failed");
    return rc;
}
