#include "tests/unit/fake_run.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/secret.h"

static char folder[64];
static int descriptors;

int
fake_init(void **state)
{
    int locked = 0;

    (void)state;
    return bk_secret_init(&locked, NULL) == BK_OK ? 0 : -1;
}

static int
count_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        count++;
    (void)closedir(d);
    return count;
}

void
fake_act(const char *rules)
{
    assert_int_equal(setenv("FAKE_WORKER", rules, 1), 0);
}

int
fake_begin(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/bk-worker-test-XXXXXX");
    if (mkdtemp(folder) == NULL || setenv("FAKE_FOLDER", folder, 1) != 0 || unsetenv("FAKE_PIN") != 0)
        return -1;
    fake_act("");
    descriptors = count_descriptors();
    return 0;
}

static const char *
path_of(const char *name)
{
    static char path[96];

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

int
fake_end(void **state)
{
    (void)state;
    (void)unlink(path_of("lives"));
    (void)unlink(path_of("log"));
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(count_descriptors(), descriptors);
    /* no child, alive or dead */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    return 0;
}

int
fake_logged(const char *text)
{
    char line[256];
    int count = 0;
    FILE *f = fopen(path_of("log"), "r");

    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL) {
        size_t len, end = strlen(text);

        line[strcspn(line, "\n")] = '\0';
        len = strlen(line);
        if (text[0] == ' ' && len > end)
            count += strcmp(line + len - end, text) == 0;
        else
            count += strcmp(line, text) == 0;
    }
    (void)fclose(f);
    return count;
}

int
fake_lives(void)
{
    struct stat st;

    return stat(path_of("lives"), &st) == 0 ? (int)st.st_size : 0;
}

long
fake_now(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void
fake_nap(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

    (void)nanosleep(&t, NULL);
}
