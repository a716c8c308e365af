/* The file of profiles: the same answer twice, and entries that a command line could have too. */
#include <stdlib.h>
#include <string.h>

#include "cmd/common/profile.h"
#include "tests/fuzz/fuzz.h"

static void
check_entries(const struct cmd_profile *p)
{
    for (size_t i = 0; i < p->count; i++) {
        enum cmd_key key = cmd_profile_key(p->entries[i].key);

        fuzz_hold(key != CMD_KEY_UNKNOWN && key != CMD_KEY_REFUSED);
        fuzz_hold(p->entries[i].value != NULL && p->entries[i].line > 0);
        fuzz_hold(i == 0 || p->entries[i].line > p->entries[i - 1].line);
        for (size_t j = 0; j < i; j++)
            fuzz_hold(key == CMD_KEY_LIST || strcmp(p->entries[i].key, p->entries[j].key) != 0);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cmd_profile p = {0}, twice = {0};
    struct bk_err err = {0}, err_twice = {0};
    char *text = fuzz_text(data, size);
    enum bk_code rc = cmd_profile_parse("bk.conf", text, size, "nightly", &p, &err);

    fuzz_hold(rc == BK_OK || (rc == BK_E_USAGE && err.code == rc && err.message[0] != '\0'));
    fuzz_hold(cmd_profile_parse("bk.conf", text, size, "nightly", &twice, &err_twice) == rc);
    fuzz_same_answer(&err, &err_twice);
    fuzz_hold(p.count == twice.count);
    if (rc == BK_OK) {
        check_entries(&p);
        fuzz_accepted();
    }
    cmd_profile_free(&p);
    cmd_profile_free(&twice);
    free(text);
    return 0;
}
