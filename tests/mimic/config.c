/* The file that BK_MIMIC names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/mimic/mimic.h"

static const struct {
    const char *word;
    enum mimic_fault_kind kind;
    CK_RV rv;
} kinds[] = {
    {"hang", FAULT_HANG, 0},
    {"crash", FAULT_CRASH, 0},
    {"abort", FAULT_ABORT, 0},
    {"exit", FAULT_EXIT, 0},
    {"heap", FAULT_HEAP, 0},
    {"lengths", FAULT_LENGTHS, 0},
    {"removed", FAULT_REMOVED, 0},
    {"session-lost", FAULT_SESSION_LOST, 0},
    {"throttled", FAULT_RV, CKR_FUNCTION_FAILED},
};

static int
set_kind(struct mimic_fault *f, const char *word)
{
    char *end;

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].word, word) == 0) {
            f->kind = kinds[i].kind;
            f->rv = kinds[i].rv;
            return 0;
        }
    f->kind = FAULT_RV;
    f->rv = strtoul(word, &end, 16);
    return *end == '\0' && f->rv != CKR_OK ? 0 : -1;
}

static int
set_call(struct mimic_fault *f, const char *name)
{
    f->call = 0;
    if (strcmp(name, "*") == 0)
        f->call = MIMIC_CALLS;
    while (f->call < MIMIC_CALLS && strcmp(mimic_call_names[f->call], name) != 0)
        f->call++;
    return f->call < MIMIC_CALLS || strcmp(name, "*") == 0 ? 0 : -1;
}

static int
add_fault(struct mimic_config *c, const char *value)
{
    struct mimic_fault f = {.times = 1};
    char call[40];
    char what[40];
    int n = sscanf(value, "%39s %lu %39s %lu", call, &f.nth, what, &f.times);

    if (n < 3 || c->fault_count == MIMIC_FAULTS || set_call(&f, call) != 0 || set_kind(&f, what) != 0)
        return -1;
    c->faults[c->fault_count++] = f;
    return 0;
}

static int
set_profile(struct mimic_config *c, const char *name)
{
    const struct mimic_profile *p = mimic_profile_named(name);

    if (p == NULL)
        return -1;
    c->profile = *p;
    return 0;
}

static int
add_quirk(struct mimic_config *c, const char *name)
{
    unsigned quirk = mimic_quirk_named(name);

    c->profile.quirks |= quirk;
    return quirk != 0 ? 0 : -1;
}

static int
set_path(char out[PATH_MAX], const char *value)
{
    return snprintf(out, PATH_MAX, "%s", value) < PATH_MAX ? 0 : -1;
}

static int
set_number(unsigned *out, const char *value)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);

    *out = (unsigned)n;
    return *end == '\0' && n < 100000000 ? 0 : -1;
}

static int
set(struct mimic_config *c, const char *key, const char *value)
{
    const struct {
        const char *key;
        char *path;
        unsigned *number;
        int (*call)(struct mimic_config *c, const char *value);
    } keys[] = {
        {"module", c->module, NULL, NULL},
        {"log", c->log, NULL, NULL},
        {"device", c->device, NULL, NULL},
        {"counter", c->counter, NULL, NULL},
        {"sessions", NULL, &c->profile.sessions, NULL},
        {"parallel", NULL, &c->profile.parallel, NULL},
        {"idle", NULL, &c->profile.idle_ms, NULL},
        {"latency", NULL, &c->latency_percent, NULL},
        {"profile", NULL, NULL, set_profile},
        {"quirk", NULL, NULL, add_quirk},
        {"fault", NULL, NULL, add_fault},
    };

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(keys[i].key, key) == 0)
            return keys[i].path != NULL     ? set_path(keys[i].path, value)
                   : keys[i].number != NULL ? set_number(keys[i].number, value)
                                            : keys[i].call(c, value);
    return -1;
}

/* A test that mistypes a line must not pass because nothing happened. */
int
mimic_config_read(const char *path, struct mimic_config *out)
{
    struct mimic_config c = {.profile = *mimic_profile_named("plain")};
    char line[PATH_MAX + 64];
    char key[32];
    char value[PATH_MAX];
    FILE *file = fopen(path, "re");
    int rc = file == NULL ? -1 : 0;

    if (rc != 0)
        (void)fprintf(stderr, "bk-mimic: %s: cannot be read\n", path);
    while (rc == 0 && fgets(line, sizeof line, file) != NULL) {
        if (line[strspn(line, " \n")] == '\0' || line[0] == '#')
            continue;
        if (sscanf(line, " %31[a-z-] = %4095[^\n]", key, value) != 2 || set(&c, key, value) != 0) {
            (void)fprintf(stderr, "bk-mimic: %s: %s", path, line);
            rc = -1;
        }
    }
    if (file != NULL)
        (void)fclose(file);
    if (rc == 0)
        *out = c;
    return rc;
}
