/* The list of a batch, by its first byte of lines or of fields that end with NULs: what comes out are names and words
 * that may be used, every record is counted, and it ends. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cmd/bk-wrap/list.h"
#include "format/manifest.h"
#include "tests/fuzz/fuzz.h"

static int
file_of(const uint8_t *data, size_t size)
{
    int fd = memfd_create("list", MFD_CLOEXEC);

    fuzz_hold(fd >= 0 && (size == 0 || pwrite(fd, data, size, 0) == (ssize_t)size));
    return fd;
}

static void
check_item(const struct wrap_item *item, int null)
{
    fuzz_hold(item->input[0] != '\0' && strcmp(item->input, "-") != 0);
    fuzz_hold(item->output[0] != '\0' && strcmp(item->output, "-") != 0);
    fuzz_hold(strcmp(item->input, item->output) != 0);
    fuzz_hold(null || strpbrk(item->input, "\t\n") == NULL);
    fuzz_hold(null || strpbrk(item->output, "\t\n") == NULL);
    fuzz_hold(item->sequence == NULL || (item->sequence[0] != '\0' && bk_sequence_valid(item->sequence)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct wrap_list l;
    struct bk_err err = {0};
    struct wrap_item item = {0};
    uint64_t last = 0;
    enum bk_code rc;

    if (size == 0)
        return 0;
    l = (struct wrap_list){.null = data[0] == '0'};
    fuzz_must(store_source_from_fd(file_of(data + 1, size - 1), "list", NULL, &l.src, &err), &err);
    for (;;) {
        rc = wrap_list_next(&l, &item, &err);
        fuzz_hold(rc == BK_OK || rc == BK_E_USAGE);
        fuzz_answer(rc, &err);
        if (rc == BK_OK && item.input == NULL)
            break;
        fuzz_hold(l.records > last && l.records <= size);
        last = l.records;
        if (rc == BK_OK) {
            check_item(&item, l.null);
            fuzz_accepted();
        }
    }
    wrap_list_close(&l);
    return 0;
}
