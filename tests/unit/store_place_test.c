/* Whether two paths mean one file: by the folder and the name in it, or by what they lead to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/place.h"
#include "tests/support/store_fixture.h"

/* 2: one name in one folder; 1: one file; 0: neither. */
static int
compare(const char *a, const char *b)
{
    struct store_place x, y;

    store_place_of(a, &x);
    store_place_of(b, &y);
    assert_int_equal(store_place_same(&x, &y), store_place_same(&y, &x));
    assert_int_equal(store_place_order(&x, &y) < 0, store_place_order(&y, &x) > 0);
    if (store_place_order(&x, &y) == 0)
        assert_true(store_place_same(&x, &y));
    return store_place_order(&x, &y) == 0 ? 2 : store_place_same(&x, &y);
}

static void
make_link(const char *to, const char *name)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s", fx_at(name));
    assert_int_equal(symlink(to, path), 0);
}

static int
compare_in(const char *a, const char *b)
{
    char x[256], y[256];

    (void)snprintf(x, sizeof x, "%s", fx_at(a));
    (void)snprintf(y, sizeof y, "%s", fx_at(b));
    return compare(x, y);
}

/* Nothing stands there yet, as with outputs. */
static void
test_spellings(void **state)
{
    (void)state;
    assert_int_equal(mkdir(fx_at("d"), 0700), 0);
    assert_int_equal(mkdir(fx_at("e"), 0700), 0);
    make_link("d", "l");
    assert_int_equal(compare_in("d/a", "d/a"), 2);
    assert_int_equal(compare_in("d/a", "d//a"), 2);
    assert_int_equal(compare_in("d/a", "e/../d/./a"), 2);
    assert_int_equal(compare_in("d/a", "l/a"), 2);
    assert_int_equal(compare_in("d/a", "d/b"), 0);
    assert_int_equal(compare_in("d/a", "e/a"), 0);
    assert_int_equal(compare_in("d/a", "d/a/"), 0);
    /* a folder that is not there: by the text */
    assert_int_equal(compare_in("x/a", "x/a"), 2);
    assert_int_equal(compare_in("x/a", "y/a"), 0);
    assert_int_equal(compare_in("x/a", "x//a"), 0);
    assert_int_equal(compare("a", "./a"), 2);
    assert_int_equal(compare("a", "b"), 0);
    assert_int_equal(compare("/no-such-file", "//no-such-file"), 2);
    assert_int_equal(compare("", ""), 2);
}

static void
test_links(void **state)
{
    char a[256];

    (void)state;
    fx_put(fx_at("a"), "1");
    fx_put(fx_at("b"), "1");
    make_link("a", "l");
    (void)snprintf(a, sizeof a, "%s", fx_at("a"));
    assert_int_equal(link(a, fx_at("h")), 0);
    make_link("nothing", "broken");
    make_link("nothing", "broken-too");
    assert_int_equal(compare_in("a", "l"), 1);
    assert_int_equal(compare_in("a", "h"), 1);
    assert_int_equal(compare_in("a", "b"), 0);
    assert_int_equal(compare_in("broken", "broken-too"), 0);
    assert_int_equal(compare("/dev/stderr", "/proc/self/fd/2"), 1);
}

static void
test_long_names(void **state)
{
    static char a[8192], b[8192];

    (void)state;
    memset(a, '/', sizeof a - 1);
    memset(b, '/', sizeof b - 1);
    a[sizeof a - 2] = 'a';
    b[sizeof b - 2] = 'b';
    assert_int_equal(compare(a, a), 2);
    assert_int_equal(compare(a, b), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_spellings, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_links, fx_make_folder, fx_remove_folder),
        cmocka_unit_test_setup_teardown(test_long_names, fx_make_folder, fx_remove_folder),
    };

    return cmocka_run_group_tests_name("store_place", tests, NULL, NULL);
}
