/* Does every archive of tests/vectors/ meet the fate that its index names: the exit status, the layer that refused, the
 * plaintext that got out before, to standard output, into a file, from a pipe, and under bk-verify's levels? Another
 * folder with an index.tsv can be named as the argument. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/hash.h"
#include "cmd/common/cmd.h"
#include "ops/unwrap.h"
#include "ops/verify.h"
#include "store/read_all.h"
#include "tests/support/fake_key.h"

#define INDEX_MAX     (4 * 1024 * 1024)
#define ARCHIVE_MAX   (16 * 1024 * 1024)
#define PLAINTEXT_MAX (16 * 1024 * 1024)

extern char **environ;

/* The columns of index.tsv, in order. */
enum {
    C_NAME,
    C_TRUST,
    C_KEYS,
    C_EXIT,
    C_KIND,
    C_LAYER,
    C_RELEASED,
    C_SHA256,
    C_DECRYPT,
    C_INTEGRITY,
    C_DEFECT,
    C_COUNT
};

static const char header[] = "name\ttrust\tkeys\texit\tkind\tlayer\treleased\tsha256\tdecrypt\tintegrity\tdefect";

struct vector {
    char *column[C_COUNT];
};

/* One vector and one of its keys. */
struct attempt {
    const struct vector *v;
    struct bk_key *key;
    struct ops_keyring ring;
    struct ops_trust trust;
    struct ops_expect expect;
    struct bk_err err;
};

static char folder[4000];
static char out_folder[sizeof folder + 8];
static char out_file[sizeof out_folder + 8];

static void
die(const char *what)
{
    (void)fprintf(stderr, "vectors: %s\n", what);
    exit(1);
}

/* --- expectations ----------------------------------------------------------------------------------------------- */

static const char *
kind_of(enum bk_code rc)
{
    switch (rc) {
    case BK_OK:
        return "ok";
    case BK_E_NEWER:
        return "newer";
    case BK_E_INCOMPLETE:
        return "incomplete";
    case BK_E_UNTRUSTED:
        return "untrusted";
    case BK_E_NO_KEY:
        return "no-key";
    case BK_E_USAGE:
        return "no-trust";
    default:
        return "refused";
    }
}

static void
expect_text(const struct attempt *a, const char *what, const char *seen, const char *wanted)
{
    if (strcmp(seen, wanted) != 0)
        fail_msg("%s: %s is %s, not %s (%s: %s) %s", a->v->column[C_NAME], what, seen, wanted,
                 a->err.layer == NULL ? "-" : a->err.layer, a->err.message, a->v->column[C_DEFECT]);
}

static void
expect_number(const struct attempt *a, const char *what, unsigned long long seen, const char *wanted)
{
    char text[32];

    (void)snprintf(text, sizeof text, "%llu", seen);
    expect_text(a, what, text, wanted);
}

static void
expect_result(const struct attempt *a, const char *what, enum bk_code rc)
{
    const char *layer = rc == BK_OK || a->err.layer == NULL ? "-" : a->err.layer;

    if (rc != BK_OK && a->err.message[0] == '\0')
        fail_msg("%s: %s: refused without a word", a->v->column[C_NAME], what);
    expect_number(a, what, (unsigned long long)cmd_status(rc), a->v->column[C_EXIT]);
    expect_text(a, what, layer, a->v->column[C_LAYER]);
    expect_text(a, what, kind_of(rc), a->v->column[C_KIND]);
}

/* That the file holds exactly what may be released. Groups are worked on in parallel, so that a failure in a later one
 * may come before an earlier one has left: then it is nothing. */
static void
expect_plaintext(const struct attempt *a, const char *path, enum bk_code rc)
{
    struct bk_buf data = {0};
    struct bk_err err = {0};
    uint8_t digest[32];
    char hex[65];

    if (store_read_all(path, PLAINTEXT_MAX, &data, &err) != BK_OK)
        fail_msg("%s: %s", a->v->column[C_NAME], err.message);
    if (rc != BK_OK && data.len == 0) {
        bk_buf_free(&data);
        return;
    }
    bk_sha256(data.data == NULL ? (const uint8_t *)"" : data.data, data.len, digest);
    expect_number(a, "length of the plaintext", data.len, a->v->column[C_RELEASED]);
    expect_text(a, "the plaintext", bk_hex(digest, sizeof digest, hex), a->v->column[C_SHA256]);
    bk_buf_free(&data);
}

/* --- the ways of reading ---------------------------------------------------------------------------------------- */

/* All vectors are read with each engine that runs here. */
static const struct bk_engine *engine;

static enum bk_code
unwrap(struct attempt *a, const char *archive, const char *output)
{
    struct ops_unwrap req = {.archive = archive, .output = output, .workers = 2, .engine = engine};
    struct ops_unwrap_result result;

    req.ring = &a->ring;
    req.trust = &a->trust;
    req.expect = &a->expect;
    enum bk_code rc;

    a->err = (struct bk_err){0};
    rc = ops_unwrap_run(&req, &result, &a->err);
    if (rc == BK_OK)
        a->err = (struct bk_err){0}; /* what was tried in vain on the way is no message */
    return rc;
}

/* Standard output goes to out_file while f runs. */
static enum bk_code
unwrap_to_standard_output(struct attempt *a)
{
    int kept, to;
    enum bk_code rc;

    (void)fflush(stdout);
    kept = dup(STDOUT_FILENO);
    to = open(out_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(kept >= 0 && to >= 0);
    assert_int_equal(dup2(to, STDOUT_FILENO), STDOUT_FILENO);
    rc = unwrap(a, a->v->column[C_NAME], "-");
    assert_int_equal(dup2(kept, STDOUT_FILENO), STDOUT_FILENO);
    (void)close(kept);
    (void)close(to);
    return rc;
}

static void
through_standard_output(struct attempt *a)
{
    enum bk_code rc = unwrap_to_standard_output(a);

    expect_result(a, "unwrap to standard output", rc);
    expect_plaintext(a, out_file, rc);
    assert_int_equal(unlink(out_file), 0);
}

static void
expect_file_or_nothing(const struct attempt *a, enum bk_code rc)
{
    if (rc == BK_OK) {
        expect_plaintext(a, out_file, rc);
        assert_int_equal(unlink(out_file), 0);
    }
    if (rmdir(out_folder) != 0) /* only an empty folder can be removed */
        fail_msg("%s: something is left behind", a->v->column[C_NAME]);
    assert_int_equal(mkdir(out_folder, 0700), 0);
}

static void
into_a_file(struct attempt *a)
{
    enum bk_code rc = unwrap(a, a->v->column[C_NAME], out_file);

    expect_result(a, "unwrap into a file", rc);
    expect_file_or_nothing(a, rc);
}

/* An archive on its way into a pipe. */
struct feeder {
    const char *name;
    int fd;
};

/* Its reader may leave early. */
static void *
feed(void *arg)
{
    struct feeder *f = arg;
    struct bk_buf data = {0};
    struct bk_err err = {0};

    if (store_read_all(f->name, ARCHIVE_MAX, &data, &err) != BK_OK)
        die(err.message);
    for (size_t done = 0; done < data.len;) {
        ssize_t n = write(f->fd, data.data + done, data.len - done);

        if (n < 0)
            break;
        done += (size_t)n;
    }
    (void)close(f->fd);
    bk_buf_free(&data);
    return NULL;
}

/* Standard input is the pipe while it runs. */
static enum bk_code
unwrap_from_standard_input(struct attempt *a)
{
    struct feeder f = {.name = a->v->column[C_NAME]};
    int kept = dup(STDIN_FILENO), ends[2];
    pthread_t thread;
    enum bk_code rc;

    assert_true(kept >= 0);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    f.fd = ends[1];
    assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    (void)close(ends[0]);
    assert_int_equal(pthread_create(&thread, NULL, feed, &f), 0);
    rc = unwrap(a, "-", out_file);
    assert_int_equal(dup2(kept, STDIN_FILENO), STDIN_FILENO); /* lets the feeder go */
    (void)close(kept);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return rc;
}

/* The order of checks is another one for a stream, so of a refusal only the exit status is compared. */
static void
from_a_pipe(struct attempt *a)
{
    enum bk_code rc = unwrap_from_standard_input(a);

    expect_number(a, "unwrap from a pipe", (unsigned long long)cmd_status(rc), a->v->column[C_EXIT]);
    expect_file_or_nothing(a, rc);
}

static void
verified(struct attempt *a, enum ops_level level, const char *wanted)
{
    struct ops_verify req = {.archive = a->v->column[C_NAME], .level = level, .workers = 2, .engine = engine};
    struct ops_archive archive = {0};
    struct store_source *src = NULL;
    char seen[64];
    enum bk_code rc;

    req.trust = &a->trust;
    req.ring = &a->ring;
    req.expect = &a->expect;
    a->err = (struct bk_err){0};
    rc = ops_verify_run(&req, &archive, &src, &a->err);
    ops_archive_free(&archive);
    store_source_close(src);
    (void)snprintf(seen, sizeof seen, "%d:%s", cmd_status(rc),
                   rc == BK_OK || a->err.layer == NULL ? "-" : a->err.layer);
    expect_text(a, level == OPS_LEVEL_DECRYPT ? "verify --level decrypt" : "verify --level integrity", seen, wanted);
}

static int
is_detached(const struct vector *v)
{
    char path[4096];

    (void)snprintf(path, sizeof path, "%s.keys", v->column[C_NAME]);
    return access(path, F_OK) == 0;
}

static struct bk_key *
open_key(const char *text)
{
    struct bk_key *key = NULL;
    struct bk_key_id id;
    struct bk_err err = {0};
    uint8_t secret[32];
    char hex[65];
    enum bk_code rc;

    if (strncmp(text, "aes:", 4) == 0) {
        assert_true(strlen(text) > 4 + 64 + 1);
        (void)snprintf(hex, sizeof hex, "%.64s", text + 4);
        assert_true(bk_unhex(hex, secret, sizeof secret) && bk_key_id_from_text(text + 4 + 64 + 1, &id));
        rc = fake_key_from_aes(secret, &id, &key, &err);
    } else {
        rc = fake_key_load(text, &key, &err);
    }
    if (rc != BK_OK)
        fail_msg("%s: %s", text, err.message);
    return key;
}

static void
add_trust(struct ops_trust *trust, const char *words)
{
    char *copy = strdup(words), *save = NULL;
    struct bk_err err = {0};

    assert_non_null(copy);
    for (char *word = strtok_r(copy, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save))
        if (ops_trust_add(trust, word, &err) != BK_OK)
            fail_msg("%s: %s", word, err.message);
    free(copy);
}

static void
attempt(const struct vector *v, const char *key)
{
    struct attempt a = {.v = v, .key = open_key(key)};

    (void)unlink(out_file); /* of a test that failed before */
    add_trust(&a.trust, v->column[C_TRUST]);
    a.ring = (struct ops_keyring){.keys = &a.key, .key_count = 1};
    through_standard_output(&a);
    into_a_file(&a);
    if (!is_detached(v))
        from_a_pipe(&a);
    verified(&a, OPS_LEVEL_DECRYPT, v->column[C_DECRYPT]);
    verified(&a, OPS_LEVEL_INTEGRITY, v->column[C_INTEGRITY]);
    ops_trust_free(&a.trust);
    bk_key_close(a.key);
}

/* Each of a vector's keys alone must meet the same fate. */
static void
meets_its_fate(void **state)
{
    const struct vector *v = *state;
    char *copy = strdup(v->column[C_KEYS]), *save = NULL;
    size_t tried = 0;

    assert_non_null(copy);
    for (char *word = strtok_r(copy, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save)) {
        attempt(v, word);
        tried++;
    }
    assert_true(tried > 0);
    free(copy);
}

/* --- the index -------------------------------------------------------------------------------------------------- */

/* Columns are cut in place. */
static struct vector
parse_line(char *line)
{
    struct vector v = {0};

    for (int i = 0; i < C_COUNT; i++) {
        char *tab = strchr(line, '\t');

        if ((tab == NULL) != (i == C_COUNT - 1))
            die("a line of the index has too many or too few columns");
        v.column[i] = line;
        if (tab != NULL) {
            *tab = '\0';
            line = tab + 1;
        }
    }
    return v;
}

static size_t
read_index(char *text, struct vector **out)
{
    struct vector *vectors = NULL;
    char *save = NULL;
    char *line = strtok_r(text, "\n", &save);
    size_t count = 0;

    if (line == NULL || strcmp(line, header) != 0)
        die("the index does not begin with the names of its columns");
    while ((line = strtok_r(NULL, "\n", &save)) != NULL) {
        if ((vectors = reallocarray(vectors, count + 1, sizeof *vectors)) == NULL)
            die("out of memory");
        vectors[count++] = parse_line(line);
    }
    if (count == 0)
        die("the index is empty");
    *out = vectors;
    return count;
}

static void
run(char *const argv[])
{
    pid_t pid;
    int status;

    if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0 || waitpid(pid, &status, 0) != pid || status != 0)
        die(argv[0]);
}

/* At exit, however it comes. */
static void
leave(void)
{
    char *rm[] = {(char *)"rm", (char *)"-rf", (char *)"--", folder, NULL};
    pid_t pid;

    if (chdir("/") == 0 && posix_spawnp(&pid, rm[0], NULL, NULL, rm, environ) == 0)
        (void)waitpid(pid, NULL, 0);
}

/* Changes into a folder with the vectors: the one that was named, or the stored ones, unpacked. */
static void
enter(const char *named)
{
    const char *base = getenv("TMPDIR");
    char *tar[] = {(char *)"tar", (char *)"-xJf", (char *)BK_VECTORS "/vectors.tar.xz", (char *)"-C", folder, NULL};

    (void)snprintf(folder, sizeof folder, "%s/bk-vectors-XXXXXX", base == NULL ? "/tmp" : base);
    if (mkdtemp(folder) == NULL || atexit(leave) != 0)
        die("cannot make a temporary folder");
    (void)snprintf(out_folder, sizeof out_folder, "%s/out", folder);
    (void)snprintf(out_file, sizeof out_file, "%s/plain", out_folder);
    if (mkdir(out_folder, 0700) != 0)
        die("cannot make a folder");
    if (named == NULL)
        run(tar);
    if (chdir(named == NULL ? folder : named) != 0)
        die("no such folder");
}

int
main(int argc, char **argv)
{
    struct bk_buf text = {0};
    struct bk_err err = {0};
    struct vector *vectors;
    struct CMUnitTest *tests;
    size_t count;
    int locked, failed = 0;

    if (bk_secret_init(&locked, &err) != BK_OK)
        die(err.message);
    (void)signal(SIGPIPE, SIG_IGN);
    enter(argc > 1 ? argv[1] : NULL);
    if (store_read_all("index.tsv", INDEX_MAX, &text, &err) != BK_OK)
        die(err.message);
    count = read_index((char *)text.data, &vectors);
    if ((tests = calloc(count, sizeof *tests)) == NULL)
        die("out of memory");
    for (size_t i = 0; i < count; i++)
        tests[i] = (struct CMUnitTest){
            .name = vectors[i].column[C_NAME], .test_func = meets_its_fate, .initial_state = &vectors[i]};
    for (size_t i = 0; bk_engines[i] != NULL; i++) {
        engine = bk_engines[i];
        if (engine->fit() == BK_ENGINE_MISSING)
            continue;
        /* vectors that met another fate: with both engines the same, or something is worse than that */
        int wrong = _cmocka_run_group_tests(engine->name, tests, count, NULL, NULL);
        failed = wrong > failed ? wrong : failed;
    }
    free(tests);
    free(vectors);
    bk_buf_free(&text);
    return failed;
}
