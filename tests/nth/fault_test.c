/*
 * Does every failing call leave things as they should be? Each allocation, system call and key operation of wrap,
 * unwrap, verify and rekey fails in turn, reads and writes fall short, calls are interrupted. Afterwards: no crash, an
 * error that says something, no output, nothing left in the folder, no descriptor open, no secret unwiped; and an
 * archive that was to be changed still opens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <errno.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/crypto.h>

#include "tests/nth/nth.h"
#include "tests/support/ops_fixture.h"

#define DATA     "every order since 1994"
#define DATA_LEN (sizeof DATA - 1)

static struct nth_plan plan;
static unsigned long seen;
static const char *hit;

static void
around(int begins)
{
    if (begins) {
        nth_arm(&plan);
        return;
    }
    seen = nth_seen();
    hit = nth_hit();
    nth_disarm();
}

static size_t
descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t n = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n;
}

/* One operation: what is there before, what is done, and what must be there when it failed or succeeded all the same.
 */
struct operation {
    const char *name;
    void (*prepare)(struct world *w);
    enum bk_code (*run)(struct world *w);
    void (*failed)(struct world *w, const char *where);
    void (*succeeded)(struct world *w, const char *where);
};

static void
holds(int condition, const char *where, const char *what)
{
    if (!condition)
        fail_msg("%s: %s", where, what);
}

static void
make_archive(struct world *w)
{
    world_wrap(w, "a.bk", DATA, DATA_LEN, NULL);
}

static void
nothing_there(struct world *w)
{
    (void)w;
}

static enum bk_code
do_wrap(struct world *w)
{
    struct ops_wrap req = {0};
    struct ops_wrap_result result;

    return world_try_wrap(w, &req, "a.bk", DATA, DATA_LEN, &result);
}

static enum bk_code
do_wrap_command(struct world *w)
{
    char *const producer[] = {(char *)"echo", (char *)"-n", (char *)DATA, NULL};
    struct ops_wrap req = {.command = producer};
    struct ops_wrap_result result;

    return world_try_wrap(w, &req, "a.bk", "", 0, &result);
}

static enum bk_code
do_wrap_detached(struct world *w)
{
    struct ops_wrap req = {.detach = 1};
    struct ops_wrap_result result;

    return world_try_wrap(w, &req, "a.bk", DATA, DATA_LEN, &result);
}

/* The first engine of the build that runs here. */
static const struct bk_engine *
first_engine(void)
{
    return bk_engines[0]->fit() == BK_ENGINE_MISSING ? NULL : bk_engines[0];
}

static enum bk_code
do_wrap_direct(struct world *w)
{
    struct ops_wrap req = {.direct = 1, .engine = first_engine()};
    struct ops_wrap_result result;

    return world_try_wrap(w, &req, "a.bk", DATA, DATA_LEN, &result);
}

/* A folder that could not be synced, or a lost unlink, may leave an archive that is whole. */
static void
no_half_archive(struct world *w, const char *where)
{
    if (world_exists(w, "a.bk"))
        world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
    else
        holds(world_entries(w) == 0 || strcmp(hit, "unlinkat") == 0 || strcmp(hit, "unlink") == 0, where,
              "something is left in the folder");
}

static void
archive_is_whole(struct world *w, const char *where)
{
    holds(world_exists(w, "a.bk"), where, "no archive");
    world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
}

static enum bk_code
do_unwrap(struct world *w)
{
    return world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL);
}

static enum bk_code
do_unwrap_direct(struct world *w)
{
    const struct ops_unwrap req = {.direct = 1, .engine = first_engine()};

    return world_unwrap(w, "a.bk", W_KEK_P256, "out", &req);
}

static void
output_is_whole(struct world *w, const char *where)
{
    size_t len;
    uint8_t *bytes;

    holds(world_exists(w, "out"), where, "no output");
    bytes = world_get(w, "out", &len);
    holds(len == DATA_LEN && memcmp(bytes, DATA, len) == 0, where, "another output");
    free(bytes);
}

static void
no_output(struct world *w, const char *where)
{
    if (world_exists(w, "out"))
        output_is_whole(w, where);
    else
        holds(world_entries(w) == 1 || strcmp(hit, "unlinkat") == 0 || strcmp(hit, "unlink") == 0, where,
              "something is left in the folder");
    world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
}

static enum bk_code
do_verify(struct world *w)
{
    return world_verify(w, "a.bk", OPS_LEVEL_DECRYPT, W_KEK_P256);
}

static void
unchanged(struct world *w, const char *where)
{
    holds(world_entries(w) == 1, where, "something is left in the folder");
    world_assert_opens(w, "a.bk", W_KEK_P256, DATA, DATA_LEN);
}

static enum bk_code
do_rekey(struct world *w)
{
    struct ops_rekey_result result;

    return world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result);
}

static enum bk_code
do_rekey_beside(struct world *w)
{
    const struct ops_rekey req = {.sidecar = 1};
    struct ops_rekey_result result;

    return world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, &req, &result);
}

static void
new_key_opens(struct world *w, const char *where)
{
    world_assert_opens(w, "a.bk", W_KEK_P384, DATA, DATA_LEN);
    holds(world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL) == BK_E_NO_KEY, where, "the old key still opens it");
}

static void
old_or_new_opens(struct world *w, const char *where)
{
    struct ops_rekey_result result;

    if (world_unwrap(w, "a.bk", W_KEK_P256, "out", NULL) == BK_OK)
        (void)unlink(world_path(w, "out"));
    else
        world_assert_opens(w, "a.bk", W_KEK_P384, DATA, DATA_LEN);
    holds(world_rekey(w, "a.bk", W_KEK_P256, W_KEK_P384, 1, NULL, &result) == BK_OK, where, "it cannot be finished");
    new_key_opens(w, where);
}

static const struct operation operations[] = {
    {"wrap", nothing_there, do_wrap, no_half_archive, archive_is_whole},
    {"wrap a command", nothing_there, do_wrap_command, no_half_archive, archive_is_whole},
    {"wrap detached", nothing_there, do_wrap_detached, no_half_archive, archive_is_whole},
    {"wrap past the cache", nothing_there, do_wrap_direct, no_half_archive, archive_is_whole},
    {"unwrap", make_archive, do_unwrap, no_output, output_is_whole},
    {"unwrap past the cache", make_archive, do_unwrap_direct, no_output, output_is_whole},
    {"verify", make_archive, do_verify, unchanged, unchanged},
    {"rekey", make_archive, do_rekey, old_or_new_opens, new_key_opens},
    {"rekey into a sidecar", make_archive, do_rekey_beside, old_or_new_opens, new_key_opens},
};

/* 0 when there was no nth call any more. */
static int
try_nth(struct world *w, const struct operation *o, const struct nth_plan *p)
{
    char where[2048];
    size_t open_before, secret_before = CRYPTO_secure_used();
    enum bk_code rc;

    (void)world_clean((void **)&w);
    o->prepare(w);
    w->warnings[0] = '\0';
    open_before = descriptors();
    plan = *p;
    w->around = around;
    rc = o->run(w);
    w->around = NULL;
    if (hit == NULL) {
        holds(rc == BK_OK, o->name, "fails although nothing was made to fail");
        return 0;
    }
    (void)snprintf(where, sizeof where, "%s: %s number %lu, action %d, value %lu: %d %s", o->name, hit, p->at,
                   (int)p->action, p->value, (int)rc, rc == BK_OK ? "" : w->err.message);
    holds(descriptors() == open_before, where, "a descriptor stays open");
    holds(CRYPTO_secure_used() == secret_before, where, "a secret stays");
    holds(rc != BK_E_INTERNAL, where, "is called a defect of bk");
    holds(rc == BK_OK || w->err.message[0] != '\0', where, "fails without a word");
    if (rc == BK_OK)
        o->succeeded(w, where);
    else
        o->failed(w, where);
    return 1;
}

static size_t
sweep(struct world *w, unsigned classes, enum nth_action action, unsigned long value, unsigned long stride)
{
    size_t faults = 0;

    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        struct nth_plan p = {.action = action, .classes = classes, .value = value, .at = 1};

        while (try_nth(w, &operations[i], &p)) {
            faults++;
            p.at += stride;
        }
        print_message("%-22s %zu calls\n", operations[i].name, seen);
    }
    assert_true(faults > 10);
    print_message("faults injected: %zu\n", faults);
    return faults;
}

static unsigned long
stride(unsigned long quick)
{
    return getenv("BK_LONG") != NULL ? 1 : quick;
}

static void
every_disk_call_fails(void **state)
{
    (void)sweep(*state, NTH_DISK, NTH_FAIL, EIO, 1);
}

static void
the_disk_is_full(void **state)
{
    (void)sweep(*state, NTH_DISK, NTH_FAIL, ENOSPC, stride(2));
}

static void
every_system_call_fails(void **state)
{
    (void)sweep(*state, NTH_SYSTEM, NTH_FAIL, EIO, stride(2));
}

static void
reads_and_writes_fall_short(void **state)
{
    (void)sweep(*state, NTH_SYSTEM | NTH_DISK, NTH_SHORT, 0, stride(3));
}

static void
every_allocation_fails(void **state)
{
    (void)sweep(*state, NTH_MEMORY, NTH_FAIL, 0, stride(5));
}

static void
every_key_operation_fails(void **state)
{
    (void)sweep(*state, NTH_TOKEN, NTH_FAIL, 0, 1);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_disk_call_fails, world_clean),
        cmocka_unit_test_setup(the_disk_is_full, world_clean),
        cmocka_unit_test_setup(every_system_call_fails, world_clean),
        cmocka_unit_test_setup(reads_and_writes_fall_short, world_clean),
        cmocka_unit_test_setup(every_allocation_fails, world_clean),
        cmocka_unit_test_setup(every_key_operation_fails, world_clean),
    };

    (void)argc;
    (void)argv;
    return cmocka_run_group_tests(tests, world_make, world_free);
}
