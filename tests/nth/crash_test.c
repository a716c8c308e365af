/*
 * Is an archive ever lost? bk-rekey's and every output's work is killed before, within and after each write, sync,
 * rename and token call, and the power is cut at every sector of what was not synced. Afterwards every archive must
 * open under the old or the new key, a second run must finish the work, and then the old key must open nothing in the
 * file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/nth/disk.h"
#include "tests/nth/nth.h"
#include "tests/support/ops_fixture.h"

#define OLD     "every order since 1994"
#define OLD_LEN (sizeof OLD - 1)
#define NEW     "and those of today"
#define NEW_LEN (sizeof NEW - 1)
#define SLOT    ((size_t)BK_SLOT_SIZE_DEFAULT)

/* A reader that finds a slot in doubt looks again a little later; thousands of states need not wait for that. */
int __wrap_usleep(unsigned us);
int
__wrap_usleep(unsigned us)
{
    (void)us;
    return 0;
}

/* One kind of work: how the folder looks before, what is done, and what must hold whatever happened. */
struct scenario {
    const char *name;
    void (*prepare)(struct world *w);
    enum bk_code (*work)(struct world *w);
    void (*survives)(struct world *w, const char *state);
};

static void
must_hold(struct world *w, int holds, const char *state, const char *what)
{
    if (!holds)
        fail_msg("%s: %s (last message: %s)", state, what, w->err.message);
}

static int
opens(struct world *w, const char *name, int kek, const char *data, size_t len)
{
    uint8_t *plain;
    size_t got;
    int same;

    if (world_unwrap(w, name, kek, "opened", NULL) != BK_OK)
        return 0;
    plain = world_get(w, "opened", &got);
    same = got == len && memcmp(plain, data, len) == 0;
    free(plain);
    assert_int_equal(unlink(world_path(w, "opened")), 0);
    return same;
}

/* --- rotations --- */

static void
make_archive(struct world *w, int kek, int detach)
{
    struct ops_recipients r = {0};
    struct ops_wrap req = {.detach = detach, .recipients = &r};
    struct ops_wrap_result result;

    world_recipients(w, &r, kek, -1);
    assert_int_equal(world_try_wrap(w, &req, "a.bk", OLD, OLD_LEN, &result), BK_OK);
    world_recipients_free(&r);
}

static enum bk_code
rotate(struct world *w, int from, int to, int beside)
{
    const struct ops_rekey req = {.sidecar = beside};
    struct ops_rekey_result result;

    return world_rekey(w, "a.bk", from, to, 1, &req, &result);
}

/* The heart of it: opens by one of the two, a second run finishes, and then the old key opens nothing. */
static void
rotation_survives(struct world *w, const char *state, int from, int to, int beside)
{
    must_hold(w, opens(w, "a.bk", from, OLD, OLD_LEN) || opens(w, "a.bk", to, OLD, OLD_LEN), state,
              "the archive is lost");
    must_hold(w, rotate(w, from, to, beside) == BK_OK, state, "a second run does not finish");
    must_hold(w, opens(w, "a.bk", to, OLD, OLD_LEN), state, "the new key does not open it");
    must_hold(w, world_unwrap(w, "a.bk", from, "opened", NULL) == BK_E_NO_KEY, state, "the old key still opens it");
    must_hold(w, world_verify(w, "a.bk", OPS_LEVEL_INTEGRITY, to) == BK_OK, state, "it does not verify");
}

static void
prepare_plain(struct world *w)
{
    make_archive(w, W_KEK_P256, 0);
}

static enum bk_code
rotate_plain(struct world *w)
{
    return rotate(w, W_KEK_P256, W_KEK_P384, 0);
}

static void
plain_survives(struct world *w, const char *state)
{
    rotation_survives(w, state, W_KEK_P256, W_KEK_P384, 0);
}

static void
spoil_slot(struct world *w, size_t which)
{
    size_t len;
    uint8_t *bytes = world_get(w, "a.bk", &len);

    memset(bytes + BK_PREAMBLE_LEN + which * SLOT + 70, 0xee, 40);
    world_put(w, "a.bk", bytes, len);
    free(bytes);
}

static void
prepare_damaged_a(struct world *w)
{
    make_archive(w, W_KEK_P256, 0);
    spoil_slot(w, 0);
}

static void
prepare_damaged_b(struct world *w)
{
    make_archive(w, W_KEK_P256, 0);
    spoil_slot(w, 1);
}

/* Generation 2 in one slot, 1 in the other: as a rekey leaves it that was killed between its two writes. */
static void
interrupt(struct world *w, size_t old_slot)
{
    size_t len;
    uint8_t *old, *new;

    make_archive(w, W_KEK_P256, 0);
    old = world_get(w, "a.bk", &len);
    assert_int_equal(rotate_plain(w), BK_OK);
    new = world_get(w, "a.bk", &len);
    memcpy(new + BK_PREAMBLE_LEN + old_slot *SLOT, old + BK_PREAMBLE_LEN, SLOT);
    world_put(w, "a.bk", new, len);
    free(old);
    free(new);
}

static void
prepare_interrupted_a(struct world *w)
{
    interrupt(w, 0);
}

static void
prepare_interrupted_b(struct world *w)
{
    interrupt(w, 1);
}

/* From an interrupted first rotation straight to a third key. */
static enum bk_code
rotate_on(struct world *w)
{
    return rotate(w, W_KEK_P384, W_KEK_AES, 0);
}

static void
on_survives(struct world *w, const char *state)
{
    must_hold(w, world_unwrap(w, "a.bk", W_KEK_P256, "opened", NULL) == BK_E_NO_KEY, state, "the oldest key opens it");
    rotation_survives(w, state, W_KEK_P384, W_KEK_AES, 0);
}

static void
prepare_aes(struct world *w)
{
    make_archive(w, W_KEK_AES, 0);
}

static enum bk_code
rotate_blind(struct world *w)
{
    return rotate(w, W_KEK_AES, W_KEK_AES_2, 0);
}

static void
blind_survives(struct world *w, const char *state)
{
    rotation_survives(w, state, W_KEK_AES, W_KEK_AES_2, 0);
}

static enum bk_code
rotate_beside(struct world *w)
{
    return rotate(w, W_KEK_P256, W_KEK_P384, 1);
}

static void
beside_survives(struct world *w, const char *state)
{
    rotation_survives(w, state, W_KEK_P256, W_KEK_P384, 1);
}

static void
prepare_detached(struct world *w)
{
    make_archive(w, W_KEK_P256, 1);
}

/* An envelope of generation 1 inside, of 2 beside: the next rotation writes all three places. */
static void
prepare_both(struct world *w)
{
    make_archive(w, W_KEK_RSA, 0);
    assert_int_equal(rotate(w, W_KEK_RSA, W_KEK_P256, 1), BK_OK);
}

/* --- outputs --- */

static void
prepare_nothing(struct world *w)
{
    (void)w;
}

static enum bk_code
wrap_over(struct world *w, int detach, int force)
{
    struct ops_wrap req = {.detach = detach, .force = force};
    struct ops_wrap_result result;

    return world_try_wrap(w, &req, "a.bk", NEW, NEW_LEN, &result);
}

static enum bk_code
wrap_new(struct world *w)
{
    return wrap_over(w, 0, 0);
}

static enum bk_code
wrap_detached(struct world *w)
{
    return wrap_over(w, 1, 0);
}

static enum bk_code
wrap_replacing(struct world *w)
{
    return wrap_over(w, 0, 1);
}

static void
absent_or_whole(struct world *w, const char *state)
{
    must_hold(w, !world_exists(w, "a.bk") || opens(w, "a.bk", W_KEK_P256, NEW, NEW_LEN), state, "half an archive");
}

static void
old_or_new(struct world *w, const char *state)
{
    must_hold(w, opens(w, "a.bk", W_KEK_P256, OLD, OLD_LEN) || opens(w, "a.bk", W_KEK_P256, NEW, NEW_LEN), state,
              "neither the old nor the new archive");
}

static void
prepare_restore(struct world *w)
{
    make_archive(w, W_KEK_P256, 0);
    world_put(w, "out", NEW, NEW_LEN);
}

static enum bk_code
restore_replacing(struct world *w)
{
    const struct ops_unwrap req = {.force = 1};

    return world_unwrap(w, "a.bk", W_KEK_P256, "out", &req);
}

static void
old_or_restored(struct world *w, const char *state)
{
    size_t len;
    uint8_t *bytes;
    int good;

    must_hold(w, world_exists(w, "out"), state, "the output is gone");
    bytes = world_get(w, "out", &len);
    good = (len == OLD_LEN && memcmp(bytes, OLD, len) == 0) || (len == NEW_LEN && memcmp(bytes, NEW, len) == 0);
    free(bytes);
    must_hold(w, good, state, "neither the old nor the restored file");
    must_hold(w, opens(w, "a.bk", W_KEK_P256, OLD, OLD_LEN), state, "the archive was touched");
}

static const struct scenario scenarios[] = {
    {"rekey", prepare_plain, rotate_plain, plain_survives},
    {"rekey, slot A damaged", prepare_damaged_a, rotate_plain, plain_survives},
    {"rekey, slot B damaged", prepare_damaged_b, rotate_plain, plain_survives},
    {"rekey after an interrupted one, slot A old", prepare_interrupted_a, rotate_plain, plain_survives},
    {"rekey after an interrupted one, slot B old", prepare_interrupted_b, rotate_plain, plain_survives},
    {"rekey on to a third key, slot A old", prepare_interrupted_a, rotate_on, on_survives},
    {"rekey on to a third key, slot B old", prepare_interrupted_b, rotate_on, on_survives},
    {"blind rekey", prepare_aes, rotate_blind, blind_survives},
    {"rekey into a sidecar", prepare_plain, rotate_beside, beside_survives},
    {"rekey of a detached archive", prepare_detached, rotate_plain, plain_survives},
    {"rekey of slots and sidecar", prepare_both, rotate_plain, plain_survives},
    {"wrap", prepare_nothing, wrap_new, absent_or_whole},
    {"wrap, detached", prepare_nothing, wrap_detached, absent_or_whole},
    {"wrap over an older archive", prepare_plain, wrap_replacing, old_or_new},
    {"restore over an older file", prepare_restore, restore_replacing, old_or_restored},
};
#define SCENARIOS (sizeof scenarios / sizeof scenarios[0])

/* --- the two sweeps --- */

static void
child(struct world *w, const struct scenario *s, const struct nth_plan *plan)
{
    nth_arm(plan);
    _exit(s->work(w) == BK_OK ? 0 : 1);
}

/* 1 if the child was killed at that call, 0 if there was no such call any more. */
static int
kill_at(struct world *w, const struct scenario *s, enum nth_action action, unsigned long at)
{
    const struct nth_plan plan = {.action = action, .classes = NTH_DISK | NTH_TOKEN, .at = at};
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0)
        child(w, s, &plan);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return 1;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("%s: not killed at call %lu, and failed", s->name, at);
    return 0;
}

static void
killed_anywhere(void **state)
{
    static const enum nth_action actions[] = {NTH_BEFORE, NTH_WITHIN, NTH_AFTER};
    struct world *w = *state;
    size_t kills = 0;
    char where[160];

    for (size_t i = 0; i < SCENARIOS; i++) {
        const struct scenario *s = &scenarios[i];
        struct disk *before;

        (void)world_clean(state);
        s->prepare(w);
        before = disk_snapshot(w->folder);
        for (size_t a = 0; a < 3; a++)
            for (unsigned long at = 1; kill_at(w, s, actions[a], at); at++) {
                (void)snprintf(where, sizeof where, "%s: killed at call %lu", s->name, at);
                s->survives(w, where);
                disk_restore(before);
                w->warnings[0] = '\0';
                kills++;
            }
        disk_free(before);
    }
    assert_true(kills > 200);
    print_message("kills tried: %zu, archives lost: 0\n", kills);
}

struct cut {
    struct world *w;
    const struct scenario *s;
};

static void
after_the_cut(void *ctx, const char *state)
{
    struct cut *c = ctx;
    char where[256];

    (void)snprintf(where, sizeof where, "%s: power cut %s", c->s->name, state);
    c->w->warnings[0] = '\0';
    c->s->survives(c->w, where);
}

static void
power_cut_anywhere(void **state)
{
    struct world *w = *state;
    int thorough = getenv("BK_LONG") != NULL;
    size_t cuts = 0;

    for (size_t i = 0; i < SCENARIOS; i++) {
        const struct nth_plan nothing = {.action = NTH_OFF};
        struct cut cut = {.w = w, .s = &scenarios[i]};
        struct nth_trace trace;
        struct disk *before;

        (void)world_clean(state);
        scenarios[i].prepare(w);
        before = disk_snapshot(w->folder);
        nth_arm(&nothing);
        nth_record(w->folder);
        assert_int_equal(scenarios[i].work(w), BK_OK);
        nth_record_end(&trace);
        assert_true(trace.count >= 4);
        cuts += disk_crash_everywhere(before, &trace, thorough ? 1 : 7, thorough ? 200 : 8, after_the_cut, &cut);
        nth_trace_free(&trace);
        disk_free(before);
    }
    assert_true(cuts > 1000);
    print_message("power cuts tried: %zu, archives lost: 0\n", cuts);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(killed_anywhere, world_clean),
        cmocka_unit_test_setup(power_cut_anywhere, world_clean),
    };

    return cmocka_run_group_tests(tests, world_make, world_free);
}
