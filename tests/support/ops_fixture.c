#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/pem.h"
#include "tests/support/ops_fixture.h"

static void
must(enum bk_code rc, const struct bk_err *err)
{
    if (rc != BK_OK)
        fail_msg("%d: %s", (int)rc, err->message);
}

static void
on_warn(void *ctx, const char *message)
{
    struct world *w = ctx;
    size_t used = strlen(w->warnings);

    (void)snprintf(w->warnings + used, sizeof w->warnings - used, "%s\n", message);
}

static void
around(const struct world *w, int begins)
{
    if (w->around != NULL)
        w->around(begins);
}

static void
make_folder(struct world *w)
{
    const char *base = getenv("TMPDIR");

    (void)snprintf(w->folder, sizeof w->folder, "%s/bk-ops-XXXXXX", base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(w->folder));
}

int
world_make(void **state)
{
    static const enum bk_key_type kek_types[W_KEKS] = {BK_KEY_P256, BK_KEY_P384, BK_KEY_RSA, BK_KEY_AES256,
                                                       BK_KEY_AES256};
    struct world *w = calloc(1, sizeof *w);
    time_t now = bk_time_now();
    int locked;

    assert_non_null(w);
    must(bk_secret_init(&locked, &w->err), &w->err);
    make_folder(w);
    w->log = (struct bk_log){.ctx = w, .warn = on_warn};
    for (size_t i = 0; i < W_KEKS; i++)
        must(fake_key_new(kek_types[i], 0, &w->kek[i], &w->err), &w->err);
    for (size_t i = 0; i < W_SIGNERS; i++) {
        unsigned role = i == W_ROTATOR ? OPS_ROLE_ROTATE : OPS_ROLE_BACKUP;

        must(fake_key_new(BK_KEY_P256, 1, &w->signer[i], &w->err), &w->err);
        must(bk_cert_self_sign(w->signer[i], "signer", now - 3600, now + 3600, &w->cert[i], &w->err), &w->err);
        if (i != W_STRANGER)
            must(ops_trust_add_public(&w->trust, role, &w->signer[i]->pub, &w->err), &w->err);
    }
    *state = w;
    return 0;
}

static void
empty_folder(struct world *w)
{
    DIR *d = opendir(w->folder);
    struct dirent *e;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
    (void)closedir(d);
}

int
world_free(void **state)
{
    struct world *w = *state;

    empty_folder(w);
    (void)rmdir(w->folder);
    for (size_t i = 0; i < W_KEKS; i++)
        bk_key_close(w->kek[i]);
    for (size_t i = 0; i < W_SIGNERS; i++) {
        bk_key_close(w->signer[i]);
        bk_buf_free(&w->cert[i]);
    }
    ops_trust_free(&w->trust);
    free(w);
    return 0;
}

int
world_clean(void **state)
{
    struct world *w = *state;

    empty_folder(w);
    w->warnings[0] = '\0';
    return 0;
}

const char *
world_path(struct world *w, const char *name)
{
    static char paths[8][2 * PATH_MAX];
    static size_t next;
    char *path = paths[next++ % 8];

    (void)snprintf(path, sizeof paths[0], "%s/%s", w->folder, name);
    return path;
}

int
world_exists(struct world *w, const char *name)
{
    return access(world_path(w, name), F_OK) == 0;
}

size_t
world_entries(struct world *w)
{
    DIR *d = opendir(w->folder);
    size_t n = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n - 2;
}

void
world_put(struct world *w, const char *name, const void *data, size_t len)
{
    FILE *f = fopen(world_path(w, name), "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

uint8_t *
world_get(struct world *w, const char *name, size_t *len)
{
    FILE *f = fopen(world_path(w, name), "rb");
    uint8_t *data;
    long size;

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size = ftell(f);
    assert_true(size >= 0);
    rewind(f);
    *len = (size_t)size;
    data = malloc(*len + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *len, f), *len);
    (void)fclose(f);
    return data;
}

uint8_t *
world_bytes(size_t len)
{
    uint8_t *data = malloc(len + 1);
    uint64_t x = 88172645463325252ull;

    assert_non_null(data);
    for (size_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        data[i] = (uint8_t)x;
    }
    return data;
}

void
world_recipients(struct world *w, struct ops_recipients *r, ...)
{
    va_list args;
    int kek;

    va_start(args, r);
    while ((kek = va_arg(args, int)) >= 0) {
        must(ops_recipients_add_public(r, &w->kek[kek]->pub, &w->err), &w->err);
        if (w->kek[kek]->pub.type == BK_KEY_AES256)
            r->items[r->count - 1].key = w->kek[kek];
    }
    va_end(args);
}

void
world_recipients_free(struct ops_recipients *r)
{
    for (size_t i = 0; i < r->count; i++)
        r->items[i].key = NULL; /* the world's */
    ops_recipients_free(r);
}

enum bk_code
world_try_wrap(struct world *w, struct ops_wrap *req, const char *name, const void *data, size_t len,
               struct ops_wrap_result *out)
{
    struct bk_signing_key signing = {w->signer[W_BACKUP], w->cert[W_BACKUP].data, w->cert[W_BACKUP].len};
    struct ops_recipients one = {0};
    enum bk_code rc;

    world_put(w, "plain", data, len);
    if (req->recipients == NULL) {
        world_recipients(w, &one, W_KEK_P256, -1);
        req->recipients = &one;
    }
    if (req->signers == NULL) {
        req->signers = &signing;
        req->signer_count = 1;
    }
    if (req->command == NULL && req->input == NULL)
        req->input = world_path(w, "plain");
    req->output = world_path(w, name);
    req->segment_size = req->segment_size == 0 ? BK_SEGMENT_SIZE_MIN : req->segment_size;
    req->workers = req->workers == 0 ? 2 : req->workers;
    req->log = &w->log;
    around(w, 1);
    rc = ops_wrap_run(req, out, &w->err);
    around(w, 0);
    assert_int_equal(unlink(world_path(w, "plain")), 0);
    world_recipients_free(&one);
    return rc;
}

void
world_wrap(struct world *w, const char *name, const void *data, size_t len, struct ops_recipients *r)
{
    struct ops_wrap req = {.recipients = r, .allow_empty = len == 0};
    struct ops_wrap_result result;

    must(world_try_wrap(w, &req, name, data, len, &result), &w->err);
    assert_int_equal(result.plaintext_length, len);
}

enum bk_code
world_unwrap(struct world *w, const char *name, int kek, const char *out, const struct ops_unwrap *more)
{
    struct ops_unwrap req = more == NULL ? (struct ops_unwrap){0} : *more;
    const struct ops_keyring ring = {.keys = &w->kek[kek], .key_count = 1};
    struct ops_expect nothing = {0};
    struct ops_unwrap_result result;
    enum bk_code rc;

    req.archive = world_path(w, name);
    req.output = world_path(w, out);
    req.workers = 2;
    req.ring = &ring;
    req.trust = req.trust == NULL ? &w->trust : req.trust;
    req.expect = req.expect == NULL ? &nothing : req.expect;
    req.log = &w->log;
    around(w, 1);
    rc = ops_unwrap_run(&req, &result, &w->err);
    around(w, 0);
    return rc;
}

enum bk_code
world_unwrap_stream(struct world *w, const char *name, const struct ops_unwrap *more, const char *out)
{
    const struct ops_keyring ring = {.keys = &w->kek[W_KEK_P256], .key_count = 1};
    const struct ops_expect nothing = {0};
    struct ops_unwrap req = more == NULL ? (struct ops_unwrap){0} : *more;
    struct ops_unwrap_result result;
    char command[3 * PATH_MAX];
    int saved = dup(0);
    FILE *pipe;
    enum bk_code rc;

    (void)snprintf(command, sizeof command, "cat '%s' 2>/dev/null", world_path(w, name));
    pipe = popen(command, "re");
    assert_non_null(pipe);
    assert_int_equal(dup2(fileno(pipe), 0), 0);
    req.archive = "-";
    req.output = out;
    req.workers = 2;
    req.ring = &ring;
    req.trust = &w->trust;
    req.expect = req.expect == NULL ? &nothing : req.expect;
    req.log = &w->log;
    rc = ops_unwrap_run(&req, &result, &w->err);
    assert_int_equal(dup2(saved, 0), 0);
    (void)close(saved);
    (void)pclose(pipe);
    return rc;
}

void
world_assert_opens(struct world *w, const char *name, int kek, const void *data, size_t len)
{
    size_t got;
    uint8_t *plain;

    must(world_unwrap(w, name, kek, "opened", NULL), &w->err);
    plain = world_get(w, "opened", &got);
    assert_int_equal(got, len);
    assert_memory_equal(plain, data, len);
    free(plain);
    assert_int_equal(unlink(world_path(w, "opened")), 0);
}

enum bk_code
world_verify(struct world *w, const char *name, enum ops_level level, int kek)
{
    const struct ops_keyring ring = {.keys = &w->kek[kek], .key_count = 1};
    const struct ops_expect nothing = {0};
    const struct ops_verify req = {.archive = world_path(w, name),
                                   .level = level,
                                   .trust = &w->trust,
                                   .ring = &ring,
                                   .expect = &nothing,
                                   .workers = 2,
                                   .log = &w->log};
    struct ops_archive archive = {0};
    struct store_source *src = NULL;
    enum bk_code rc;

    around(w, 1);
    rc = ops_verify_run(&req, &archive, &src, &w->err);
    ops_archive_free(&archive);
    store_source_close(src);
    around(w, 0);
    return rc;
}

enum bk_code
world_rekey(struct world *w, const char *name, int from, int to, int prove, const struct ops_rekey *more,
            struct ops_rekey_result *out)
{
    const struct bk_signing_key signing = {w->signer[W_ROTATOR], w->cert[W_ROTATOR].data, w->cert[W_ROTATOR].len};
    struct ops_rekey req = more == NULL ? (struct ops_rekey){0} : *more;
    const struct ops_keyring ring = {.keys = &w->kek[from], .key_count = 1};
    struct ops_recipients successor = {0}, nobody = {0};
    enum bk_code rc;

    if (to >= 0)
        world_recipients(w, &successor, to, -1);
    successor.profiles = w->profiles;
    req.from = &ring;
    req.to = &successor;
    req.add = req.add == NULL ? &nobody : req.add;
    if (prove && to >= 0) {
        req.provers = &w->kek[to];
        req.prover_count = 1;
    }
    if (req.signers == NULL) {
        req.signers = &signing;
        req.signer_count = 1;
    }
    req.trust = req.trust == NULL ? &w->trust : req.trust;
    req.log = &w->log;
    around(w, 1);
    rc = ops_rekey_run(&req, world_path(w, name), out, &w->err);
    around(w, 0);
    world_recipients_free(&successor);
    return rc;
}
