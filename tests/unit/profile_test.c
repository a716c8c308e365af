/* Do profiles meet cmd/common/profile.h, and does cmd_parse put them behind the command line? */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cmd/common/cmd.h"

/* --- the text of a file ---------------------------------------------------------------------------------------- */

static enum bk_code
parse(const char *text, const char *name, struct cmd_profile *p, struct bk_err *err)
{
    *p = (struct cmd_profile){0};
    *err = (struct bk_err){0};
    return cmd_profile_parse("c", text, strlen(text), name, p, err);
}

static void
test_parse_takes(void **state)
{
    static const char text[] = "\xef\xbb\xbf# a comment\n; another\r\n\n"
                               "[other]\nsign = pkcs11:token=x\n"
                               "[orders]\r\n"
                               "sign=pkcs11:token=a;object=b?pin-source=file:/p%20q\r\n"
                               "\t recipient = a.pem\n"
                               "recipient\t=  b ; c # d.pem  \n"
                               "sequence = system=1 timeline=2\n"
                               "force = yes\n"
                               "[last]\nkind = wal";
    static const struct {
        const char *key, *value;
        unsigned line;
    } wanted[] = {{"sign", "pkcs11:token=a;object=b?pin-source=file:/p%20q", 7},
                  {"recipient", "a.pem", 8},
                  {"recipient", "b ; c # d.pem", 9},
                  {"sequence", "system=1 timeline=2", 10},
                  {"force", "yes", 11}};
    struct cmd_profile p;
    struct bk_err err;

    (void)state;
    assert_int_equal(parse(text, "orders", &p, &err), BK_OK);
    assert_string_equal(p.path, "c");
    assert_int_equal(p.count, sizeof wanted / sizeof wanted[0]);
    for (size_t i = 0; i < p.count; i++) {
        assert_string_equal(p.entries[i].key, wanted[i].key);
        assert_string_equal(p.entries[i].value, wanted[i].value);
        assert_int_equal(p.entries[i].line, wanted[i].line);
    }
    cmd_profile_free(&p);
    assert_int_equal(parse(text, "last", &p, &err), BK_OK); /* no line feed at its end */
    assert_int_equal(p.count, 1);
    assert_string_equal(p.entries[0].value, "wal");
    cmd_profile_free(&p);
    assert_int_equal(parse("[empty]\n", "empty", &p, &err), BK_OK);
    assert_int_equal(p.count, 0);
    cmd_profile_free(&p);
}

static void
test_parse_refuses(void **state)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"[p]\nrecipent = a\n", "c:2: no bk program has an option \"recipent\""},
        {"[p]\n--sign = a\n", "c:2: no bk program has an option \"--sign\""},
        {"[p]\nsign\n", "c:2: neither [PROFILE] nor OPTION = VALUE"},
        {"[p]\n\n[q]\nsign\n", "c:4: neither [PROFILE] nor OPTION = VALUE"}, /* where does a profile end? */
        {"sign = a\n[p]\n", "c:1: stands before any [PROFILE]"},
        {"[p]\nsign =\n", "c:2: sign has no value"},
        {"[p]\nforce = true\n", "c:2: force: \"true\" is neither yes nor no"},
        {"[p]\nsign = a\nquiet = no\nsign = b\n", "c:4: sign is given again, after line 2"},
        {"[p]\nsign = a\n[q]\n[p]\nsign = b\n", "c:5: sign is given again, after line 2"},
        {"[p]\nrestore-command = yes\n", "c:2: --restore-command is for the command line only"},
        {"[p]\nprofile = q\n", "c:2: --profile is for the command line only"},
        {"[p]\nhelp = yes\n", "c:2: --help is for the command line only"},
        {"[q]\n[r]\n", "c: has no profile \"p\""},
        {"", "c: has no profile \"p\""},
        {"[p\nsign = a\n", "c:1: a profile begins with its name in brackets"},
        {"[p] x\n", "c:1: a profile begins with its name in brackets"},
        {"[p]x\n[q", "c:1: a profile begins with its name in brackets"},
        {"[]\n", "c:1: a profile begins with its name in brackets"},
        {"[a b]\n", "c:1: a profile begins with its name in brackets"},
        {"[p]\n[a2345678901234567890123456789012345678901234567890]\n",
         "c:2: a profile begins with its name in brackets"},
    };
    struct cmd_profile p;
    struct bk_err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(parse(bad[i].text, "p", &p, &err), BK_E_USAGE);
        assert_memory_equal(err.message, bad[i].message, strlen(bad[i].message));
        assert_null(p.entries);
        assert_null(p.path);
    }
    assert_int_equal(parse("[q]\n[r]\n", "p", &p, &err), BK_E_USAGE);
    assert_string_equal(err.hint, "there are: q, r");
    assert_int_equal(cmd_profile_parse("c", "[p]\nsign = a\0b\n", 15, "p", &p, &err), BK_E_USAGE);
    assert_non_null(strstr(err.message, "a byte in it is 0"));
}

/* A mistake in one profile must not keep tonight's backup of another from running. */
static void
test_other_profiles_are_not_looked_at(void **state)
{
    struct cmd_profile p;
    struct bk_err err;

    (void)state;
    assert_int_equal(parse("[q]\nnonsense = 1\nforce = maybe\nsign=a\nsign=b\n[p]\nsign = c\n", "p", &p, &err), BK_OK);
    assert_int_equal(p.count, 1);
    assert_string_equal(p.entries[0].value, "c");
    cmd_profile_free(&p);
}

/* A line that is too long is refused: never cut, and its rest never taken for the next line. */
static void
test_long_lines(void **state)
{
    static const size_t lengths[] = {190, 199, 200, 201, 400, 4096, 8192 - 7, 8192 - 6, 20000};
    struct cmd_profile p;
    struct bk_err err;

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char *text = calloc(1, lengths[i] + 32);

        assert_non_null(text);
        (void)strcpy(text, "[p]\nsign = ");
        memset(text + strlen(text), 'x', lengths[i]);
        (void)strcat(text, "\n");
        if (lengths[i] + strlen("sign = ") <= 8192) {
            assert_int_equal(parse(text, "p", &p, &err), BK_OK);
            assert_int_equal(strlen(p.entries[0].value), lengths[i]);
            cmd_profile_free(&p);
        } else {
            assert_int_equal(parse(text, "p", &p, &err), BK_E_USAGE);
            assert_non_null(strstr(err.message, "c:2: longer than 8192 bytes"));
        }
        free(text);
    }
}

/* Whatever is cut or turned over, the parser stays in its buffer and names the file. */
static void
test_every_cut_and_flip(void **state)
{
    static const char good[] = "[o]\nsign = a\n[p]\nrecipient = b\nforce = no\njobs = 4\n";
    struct cmd_profile p;
    struct bk_err err;

    (void)state;
    for (size_t len = 0; len < sizeof good; len++) {
        char *exact = malloc(len == 0 ? 1 : len);

        assert_non_null(exact);
        for (size_t bit = 0; bit < (len == 0 ? 1 : len * 8); bit++) {
            enum bk_code rc;

            memcpy(exact, good, len);
            if (len > 0)
                exact[bit / 8] = (char)(exact[bit / 8] ^ (1 << (bit % 8)));
            p = (struct cmd_profile){0};
            err = (struct bk_err){0};
            rc = cmd_profile_parse("c", exact, len, "p", &p, &err);
            assert_true(rc == BK_OK || (rc == BK_E_USAGE && strncmp(err.message, "c:", 2) == 0));
            cmd_profile_free(&p);
        }
        free(exact);
    }
}

/* --- behind a command line ------------------------------------------------------------------------------------- */

struct args {
    struct cmd_common common;
    struct cmd_list recipients;
    const char *sign;
    int force;
    int meta;
    int from_profile; /* values that came while in_profile was set */
    uint64_t jobs;
};

static enum bk_code
take(void *ctx, int option, const char *value, struct bk_err *err)
{
    struct args *a = ctx;

    a->from_profile += a->common.in_profile;
    switch (option) {
    case 'r':
        return cmd_list_add(&a->recipients, value, err);
    case 's':
        a->sign = value;
        return BK_OK;
    case 'j':
        return cmd_number("--jobs", value, 1, 256, &a->jobs, err);
    case CMD_OPT_OWN:
        a->force = 1;
        return BK_OK;
    default:
        a->meta = 1;
        return BK_OK;
    }
}

static const struct option options[] = {
    CMD_COMMON_OPTIONS,
    {"recipient", required_argument, NULL, 'r'},
    {"sign", required_argument, NULL, 's'},
    {"jobs", required_argument, NULL, 'j'},
    {"force", no_argument, NULL, CMD_OPT_OWN},
    {"meta", no_argument, NULL, CMD_OPT_OWN + 1},
    {0},
};

static char folder[] = "/tmp/bk-profile.XXXXXX";
static char config[sizeof folder + 16];

static void
write_config(const char *text)
{
    FILE *f = fopen(config, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(config, 0644), 0);
}

/* The words after the program's name; cmd_parse moves them about. */
static enum bk_code
run(struct args *a, struct bk_err *err, ...)
{
    static const struct cmd_option_set set = {options, "r:s:j:", take};
    char *argv[16] = {(char *)"bk"};
    struct cmd_rest rest;
    va_list words;
    int argc = 1;

    *a = (struct args){0};
    *err = (struct bk_err){0};
    va_start(words, err);
    while ((argv[argc] = va_arg(words, char *)) != NULL)
        argc++;
    va_end(words);
    return cmd_parse(argc, argv, &set, a, &a->common, &rest, err);
}

static void
release(struct args *a)
{
    cmd_list_free(&a->recipients);
    cmd_common_free(&a->common);
}

static const char orders[] = "[orders]\nrecipient = a\nrecipient = b\nsign = s\njobs = 3\nforce = yes\nquiet = no\n"
                             "json = yes\nmeta = x=y\ntrust = t\nprogress = never\n";

static void
test_profile_alone(void **state)
{
    struct bk_err err;
    struct args a;

    (void)state;
    write_config(orders);
    assert_int_equal(run(&a, &err, "--profile", "orders", "--config", config, NULL), BK_OK);
    assert_int_equal(a.recipients.count, 2);
    assert_string_equal(a.recipients.items[0], "a");
    assert_string_equal(a.recipients.items[1], "b");
    assert_string_equal(a.sign, "s");
    assert_int_equal(a.jobs, 3);
    assert_int_equal(a.force, 1);
    assert_int_equal(a.common.quiet, 0);
    assert_int_equal(a.common.json, 1);
    assert_null(a.common.json_path);
    assert_int_equal(a.common.progress, CMD_PROGRESS_NEVER);
    assert_int_equal(a.meta, 0); /* bk-wrap's takes a value; this one does not */
    assert_int_equal(a.from_profile, 5);
    assert_int_equal(a.common.in_profile, 0);
    release(&a);
}

static void
test_the_command_line_wins(void **state)
{
    struct bk_err err;
    struct args a;

    (void)state;
    write_config(orders);
    assert_int_equal(
        run(&a, &err, "-r", "c", "x", "--profile=orders", "--sign=S", "--config", config, "-j5", "--json=f", NULL),
        BK_OK);
    assert_int_equal(a.recipients.count, 1);
    assert_string_equal(a.recipients.items[0], "c");
    assert_string_equal(a.sign, "S");
    assert_int_equal(a.jobs, 5);
    assert_string_equal(a.common.json_path, "f");
    assert_int_equal(a.force, 1);
    assert_int_equal(a.from_profile, 1);
    release(&a);
}

static void
test_values_are_checked_alike(void **state)
{
    char wanted[256];
    struct bk_err err;
    struct args a;

    (void)state;
    write_config("[p]\nsign = s\njobs = 0\n");
    assert_int_equal(run(&a, &err, "--profile", "p", "--config", config, NULL), BK_E_USAGE);
    (void)snprintf(wanted, sizeof wanted, "%s:3: --jobs: \"0\" is not a number", config);
    assert_memory_equal(err.message, wanted, strlen(wanted));
    release(&a);
    assert_int_equal(run(&a, &err, "--profile", "p", "--config", config, "-j", "1", NULL), BK_OK);
    release(&a);
}

static void
test_nothing_is_read_unasked(void **state)
{
    struct bk_err err;
    struct args a;

    (void)state;
    assert_int_equal(setenv("BK_CONFIG", "/nonexistent/bk.conf", 1), 0);
    assert_int_equal(run(&a, &err, "-s", "s", NULL), BK_OK);
    release(&a);
    assert_int_equal(run(&a, &err, "--profile", "p", "--help", NULL), BK_OK);
    assert_int_equal(a.common.help, 1);
    release(&a);
    assert_int_equal(run(&a, &err, "--profile", "p", "--version", NULL), BK_OK);
    release(&a);
    assert_int_equal(run(&a, &err, "--profile", "p", NULL), BK_E_USAGE);
    assert_non_null(strstr(err.message, "/nonexistent/bk.conf: No such file"));
    release(&a);
    assert_int_equal(unsetenv("BK_CONFIG"), 0);
    assert_int_equal(run(&a, &err, "--config", config, NULL), BK_E_USAGE);
    assert_non_null(strstr(err.message, "--config goes with --profile"));
    release(&a);
    assert_int_equal(run(&a, &err, "--profile", "a", "--profile", "b", NULL), BK_E_USAGE);
    assert_string_equal(err.message, "--profile is given twice");
    release(&a);
}

/* --- where it is, and who can write there ---------------------------------------------------------------------- */

static void
path_is(const char *given, const char *wanted)
{
    struct bk_err err = {0};
    char *path = NULL;

    assert_int_equal(cmd_config_path(given, &path, &err), BK_OK);
    assert_string_equal(path, wanted);
    free(path);
}

static void
test_where(void **state)
{
    char users[128], homes[128], made[160];

    (void)state;
    (void)snprintf(users, sizeof users, "%s/bk", folder);
    (void)snprintf(homes, sizeof homes, "%s/.config", folder);
    assert_int_equal(mkdir(users, 0755), 0);
    assert_int_equal(mkdir(homes, 0755), 0);
    (void)snprintf(made, sizeof made, "%s/.config/bk", folder);
    assert_int_equal(mkdir(made, 0755), 0);
    (void)snprintf(made, sizeof made, "%s/.config/bk/bk.conf", folder);
    assert_int_equal(fclose(fopen(made, "w")), 0);
    (void)snprintf(users, sizeof users, "%s/bk/bk.conf", folder);
    assert_int_equal(fclose(fopen(users, "w")), 0);

    assert_int_equal(setenv("BK_CONFIG", "/b", 1), 0);
    assert_int_equal(setenv("XDG_CONFIG_HOME", folder, 1), 0);
    assert_int_equal(setenv("HOME", folder, 1), 0);
    path_is("given", "given");
    path_is(NULL, "/b");
    assert_int_equal(setenv("BK_CONFIG", "", 1), 0);
    path_is(NULL, users);
    assert_int_equal(setenv("XDG_CONFIG_HOME", "relative", 1), 0);
    path_is(NULL, made);
    assert_int_equal(unsetenv("XDG_CONFIG_HOME"), 0);
    path_is(NULL, made);
    assert_int_equal(unlink(made), 0);
    if (access("/etc/bk/bk.conf", F_OK) == 0) {
        path_is(NULL, "/etc/bk/bk.conf");
    } else {
        struct bk_err err = {0};
        char *path = NULL;

        assert_int_equal(cmd_config_path(NULL, &path, &err), BK_E_USAGE);
        assert_null(path);
        assert_non_null(strstr(err.message, made));
        assert_non_null(strstr(err.message, "/etc/bk/bk.conf"));
    }
}

static void
refused(const char *path, const char *message)
{
    struct cmd_profile p = {0};
    struct bk_err err = {0};

    assert_int_equal(cmd_profile_read(path, "p", &p, &err), BK_E_USAGE);
    assert_non_null(strstr(err.message, message));
    assert_int_equal(p.count, 0);
}

static void
accepted(const char *path)
{
    struct cmd_profile p = {0};
    struct bk_err err = {0};

    assert_int_equal(cmd_profile_read(path, "p", &p, &err), BK_OK);
    assert_int_equal(p.count, 1);
    cmd_profile_free(&p);
}

static void
test_who_can_write(void **state)
{
    char inner[64], link[128], behind[160];

    (void)state;
    write_config("[p]\nsign = s\n");
    accepted(config);
    assert_int_equal(chmod(config, 0664), 0);
    refused(config, "others can write it (mode 664)");
    assert_int_equal(chmod(config, 0646), 0);
    refused(config, "others can write it (mode 646)");
    assert_int_equal(chmod(config, 0600), 0);
    accepted(config);
    assert_int_equal(chmod(folder, 0777), 0);
    refused(config, "others can write into it (mode 777)");
    assert_int_equal(chmod(folder, 01777), 0); /* sticky, as /tmp is */
    accepted(config);
    assert_int_equal(chmod(folder, 0700), 0);
    refused(folder, "not a file");
    refused("/dev/null", "not a file");

    /* the folder with a symbolic link counts as much as the one behind it */
    (void)snprintf(inner, sizeof inner, "%s/open", folder);
    (void)snprintf(link, sizeof link, "%s/link", inner);
    assert_int_equal(mkdir(inner, 0755), 0);
    assert_int_equal(symlink(config, link), 0);
    accepted(link);
    assert_int_equal(chmod(inner, 0775), 0);
    refused(link, "open: others can write into it (mode 775)");
    (void)snprintf(behind, sizeof behind, "%s/behind", inner);
    assert_int_equal(rename(config, behind), 0);
    assert_int_equal(symlink(behind, config), 0);
    refused(config, "open: others can write into it (mode 775)");
    assert_int_equal(unlink(config), 0);
    assert_int_equal(rename(behind, config), 0);
}

static void
test_other_owners(void **state)
{
    struct bk_err err = {0};

    (void)state;
    write_config("[p]\nsign = s\n");
    /* seen by somebody else, our own folder is another user's; root's never is */
    assert_int_equal(cmd_config_check_folders("/etc/passwd", getuid() + 1, &err), BK_OK);
    if (getuid() != 0) {
        assert_int_equal(cmd_config_check_folders(config, getuid() + 1, &err), BK_E_USAGE);
        assert_non_null(strstr(err.message, "belongs to another user"));
        return;
    }
    assert_int_equal(chown(config, 1, (gid_t)-1), 0);
    refused(config, "belongs to another user (1)");
    assert_int_equal(chown(config, 0, (gid_t)-1), 0);
    assert_int_equal(chown(folder, 1, (gid_t)-1), 0);
    refused(config, "belongs to another user (1), who could change");
    assert_int_equal(cmd_config_check_folders(config, 1, &err), BK_OK);
    assert_int_equal(chown(folder, 0, (gid_t)-1), 0);
    accepted(config);
}

static void
test_large_file(void **state)
{
    FILE *f = fopen(config, "w");

    (void)state;
    assert_non_null(f);
    for (int i = 0; i < 300 * 1024; i++)
        assert_int_equal(fputc('\n', f), '\n');
    assert_int_equal(fclose(f), 0);
    refused(config, "larger than 262144 bytes");
}

static int
make_folder(void **state)
{
    (void)state;
    (void)umask(022);
    if (mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(config, sizeof config, "%s/bk.conf", folder);
    return 0;
}

static int
remove_folder(void **state)
{
    static const char *const names[] = {"open/link", "open/behind",        "open",       "bk.conf", "bk/bk.conf",
                                        "bk",        ".config/bk/bk.conf", ".config/bk", ".config"};
    char path[128];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)remove(path);
    }
    return rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_takes),
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_other_profiles_are_not_looked_at),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_every_cut_and_flip),
        cmocka_unit_test(test_profile_alone),
        cmocka_unit_test(test_the_command_line_wins),
        cmocka_unit_test(test_values_are_checked_alike),
        cmocka_unit_test(test_nothing_is_read_unasked),
        cmocka_unit_test(test_where),
        cmocka_unit_test(test_who_can_write),
        cmocka_unit_test(test_other_owners),
        cmocka_unit_test(test_large_file),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
