/* The command lines of all programs: the first byte says whose, and the rest are its arguments, one a line. */
#include <stdlib.h>
#include <string.h>

#include "cmd/bk-key/args.h"
#include "cmd/bk-rekey/args.h"
#include "cmd/bk-unwrap/args.h"
#include "cmd/bk-verify/args.h"
#include "cmd/bk-wrap/args.h"
#include "tests/fuzz/fuzz.h"

#define ARGUMENTS_MAX 64

static enum bk_code
wrap(int argc, char **argv, struct bk_err *err)
{
    struct wrap_args a = {0};
    enum bk_code rc = wrap_args(argc, argv, &a, err);

    if (rc == BK_OK && !a.common.help && !a.common.version) {
        fuzz_hold(a.recipients.count > 0 && a.sign != NULL && (a.output != NULL) != (a.batch != NULL));
        fuzz_hold(a.command == NULL || (a.input == NULL && a.command[0] != NULL));
        fuzz_hold(a.jobs <= 256);
    }
    wrap_args_free(&a);
    return rc;
}

static enum bk_code
unwrap(int argc, char **argv, struct bk_err *err)
{
    struct unwrap_args a = {0};
    enum bk_code rc = unwrap_args(argc, argv, &a, err);

    if (rc == BK_OK && !a.common.help && !a.common.version) {
        fuzz_hold(a.archive != NULL);
        fuzz_hold((a.output != NULL) + (a.command != NULL) + a.meta >= 1);
        fuzz_hold(a.command == NULL || a.command[0] != NULL);
    }
    unwrap_args_free(&a);
    return rc;
}

static enum bk_code
verify(int argc, char **argv, struct bk_err *err)
{
    struct verify_args a = {0};
    enum bk_code rc = verify_args(argc, argv, &a, err);

    if (rc == BK_OK && !a.common.help && !a.common.version)
        fuzz_hold(a.archive_count > 0);
    verify_args_free(&a);
    return rc;
}

static enum bk_code
rekey(int argc, char **argv, struct bk_err *err)
{
    struct rekey_args a = {0};
    enum bk_code rc = rekey_args(argc, argv, &a, err);

    if (rc == BK_OK && !a.common.help && !a.common.version) {
        fuzz_hold(a.archive_count > 0 && a.from != NULL && a.sign != NULL && a.trust.count > 0);
        fuzz_hold(a.to != NULL || a.add.count > 0 || a.remove_count > 0);
    }
    rekey_args_free(&a);
    return rc;
}

static enum bk_code
key(int argc, char **argv, struct bk_err *err)
{
    struct key_args a = {0};
    enum bk_code rc = key_args(argc, argv, &a, err);

    if (rc == BK_OK && !a.common.help && !a.common.version)
        fuzz_hold(a.uri != NULL || a.verb == KEY_LIST);
    key_args_free(&a);
    return rc;
}

static const struct {
    char name[10];
    enum bk_code (*parse)(int argc, char **argv, struct bk_err *err);
} programs[] = {{"bk-wrap", wrap}, {"bk-unwrap", unwrap}, {"bk-verify", verify}, {"bk-rekey", rekey}, {"bk-key", key}};

static enum bk_code
parse(size_t which, const uint8_t *data, size_t size, struct bk_err *err)
{
    char *argv[ARGUMENTS_MAX + 2] = {0};
    char name[sizeof programs[0].name];
    char *text = fuzz_text(data, size), *at = text;
    int argc = 1;
    enum bk_code rc;

    memcpy(name, programs[which].name, sizeof name);
    argv[0] = name;
    while (at != NULL && argc <= ARGUMENTS_MAX)
        argv[argc++] = strsep(&at, "\n");
    rc = programs[which].parse(argc, argv, err);
    free(text);
    return rc;
}

/* --profile would read a file; profile_fuzz.c reads what is in such files. */
static int
names_file(const uint8_t *data, size_t size)
{
    return memmem(data, size, "--profile", 9) != NULL || memmem(data, size, "--config", 8) != NULL;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_err err = {0}, err_twice = {0};
    size_t which;
    enum bk_code rc;

    if (size < 1 || names_file(data, size))
        return 0;
    which = data[0] % (sizeof programs / sizeof programs[0]);
    rc = parse(which, data + 1, size - 1, &err);
    fuzz_hold(rc == BK_OK || (rc == BK_E_USAGE && err.code == rc && err.message[0] != '\0'));
    fuzz_hold(parse(which, data + 1, size - 1, &err_twice) == rc);
    fuzz_same_answer(&err, &err_twice);
    if (rc == BK_OK)
        fuzz_accepted();
    return 0;
}
