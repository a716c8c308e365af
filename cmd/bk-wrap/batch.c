/* --batch: many archives with one login, each with its own result. docs/CLI.md, bk-wrap. */
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/bk-wrap/list.h"
#include "cmd/bk-wrap/wrap.h"

struct batch {
    struct wrap *w;
    const struct wrap_args *a;
    struct ops_wrap *req;
    struct wrap_list list;
    struct cmd_batch sum;
    void *made; /* with --force: the outputs, a tree of texts */
};

static int
by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Two lines with one output are a mistake, and with --force the second would replace the archive of the first. Without
 * it the first archive is in the second's way by itself, and an archiver's run may last for ever. */
static enum bk_code
refuse_repeated(const struct batch *b, const char *output, struct bk_err *err)
{
    if (tfind(output, &b->made, by_text) == NULL)
        return BK_OK;
    return bk_fail(err, BK_E_USAGE, "%s: was made in this batch already, and is not replaced", output);
}

static enum bk_code
note_made(struct batch *b, const char *output, struct bk_err *err)
{
    char *copy;

    if (!b->a->force)
        return BK_OK;
    if ((copy = strdup(output)) == NULL)
        return bk_fail_nomem(err);
    if (tsearch(copy, &b->made, by_text) == NULL) {
        free(copy);
        return bk_fail_nomem(err);
    }
    return BK_OK;
}

/* What needs the token will need it for the next archive too: all of it would be read and sealed in vain. */
static void
count(struct cmd_batch *sum, enum bk_code rc)
{
    cmd_batch_add(sum, rc);
    if (rc == BK_E_TOKEN || rc == BK_E_NO_KEY || rc == BK_E_UNSUPPORTED) {
        sum->first = rc;
        sum->stop = 1;
    }
}

static enum bk_code
make_one(struct batch *b, const struct wrap_item *item, struct bk_err *err)
{
    struct bk_err failure = {0};
    enum bk_code rc = refuse_repeated(b, item->output, &failure), told;

    b->w->result = (struct ops_wrap_result){0};
    b->req->input = item->input;
    b->req->output = item->output;
    (void)snprintf(b->req->sequence, sizeof b->req->sequence, "%s", item->sequence == NULL ? "" : item->sequence);
    if (rc == BK_OK) {
        rc = ops_wrap_run(b->req, &b->w->result, &failure);
        b->req->again = 1;
    }
    cmd_progress_end(&b->w->cmd);
    if (rc != BK_OK)
        cmd_report(&b->w->cmd, item->output, &failure);
    count(&b->sum, rc);
    told = wrap_tell(b->w, item->output, item->input, rc, &failure, err);
    return rc == BK_OK && told == BK_OK ? note_made(b, item->output, err) : told;
}

static const char *
list_name(const struct batch *b)
{
    return strcmp(b->a->batch, "-") == 0 ? "standard input" : b->a->batch;
}

/* A record that names no archive. */
static enum bk_code
refuse_record(struct batch *b, struct bk_err *failure, struct bk_err *err)
{
    char where[PATH_MAX + 32];

    (void)snprintf(where, sizeof where, "%s:%" PRIu64, list_name(b), b->list.records);
    bk_err_prefix(failure, "%s", where);
    cmd_report(&b->w->cmd, where, failure);
    cmd_batch_add(&b->sum, BK_E_USAGE);
    return cmd_json(&b->w->cmd, "", BK_E_USAGE, failure, NULL, 0, NULL, err);
}

/* One item, or the end: *more is 0 then. */
static enum bk_code
step(struct batch *b, int *more, struct bk_err *err)
{
    struct bk_err failure = {0};
    struct wrap_item item;
    enum bk_code rc = wrap_list_next(&b->list, &item, &failure);

    if (rc == BK_E_USAGE)
        return refuse_record(b, &failure, err);
    if (rc != BK_OK) {
        *err = failure;
        return rc;
    }
    *more = item.input != NULL;
    return *more ? make_one(b, &item, err) : BK_OK;
}

/* Puts what was done and what was not before the reason why the batch ends here, if *err has one. */
static void
sum_up(const struct batch *b, enum bk_code rc, struct bk_err *err)
{
    uint64_t left = 0;
    char rest[64] = "what followed was not read", sum[448];

    if (!b->list.out_of_step && wrap_list_rest(b->a->batch, b->a->null, b->list.records, &left))
        (void)snprintf(rest, sizeof rest, "%" PRIu64 " not tried", left);
    (void)snprintf(sum, sizeof sum, "stopped after %s %" PRIu64 " of %.200s: %zu made, %zu failed, %s",
                   b->a->null ? "item" : "line", b->list.records, list_name(b), b->sum.total - b->sum.failed,
                   b->sum.failed, rest);
    if (err->message[0] == '\0')
        (void)!bk_fail(err, rc, "%s", sum);
    else
        bk_err_prefix(err, "%s", sum);
}

static enum bk_code
run(struct batch *b, struct bk_err *err)
{
    int more = 1;
    enum bk_code rc = BK_OK;

    while (rc == BK_OK && more && !b->sum.stop)
        rc = step(b, &more, err);
    if (rc == BK_OK && !b->sum.stop && !b->list.out_of_step) {
        cmd_say(&b->w->cmd, "%s: %zu made, %zu failed", list_name(b), b->sum.total - b->sum.failed, b->sum.failed);
        return cmd_batch_code(&b->sum);
    }
    rc = rc != BK_OK ? rc : cmd_batch_code(&b->sum);
    sum_up(b, rc, err);
    return rc;
}

/* The pipeline's buffers, some mebibytes, are had and given back for each archive. By default the C library gives them
 * back to the system each time, and each of their pages is made anew: a sixth of the time of an archive of 16 MiB. */
#define KEEP_BLOCKS_UP_TO (32 * 1024 * 1024)
#define KEEP_FREE_UP_TO   (256 * 1024 * 1024)

static void
keep_memory(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, KEEP_BLOCKS_UP_TO);
    (void)mallopt(M_TRIM_THRESHOLD, KEEP_FREE_UP_TO);
}

enum bk_code
wrap_batch(struct wrap *w, const struct wrap_args *a, struct ops_wrap *req, struct bk_err *err)
{
    struct batch b = {.w = w, .a = a, .req = req};
    enum bk_code rc = wrap_list_open(&b.list, a->batch, a->null, &w->cmd.cancel, err);

    keep_memory();
    if (rc == BK_OK)
        rc = run(&b, err);
    wrap_list_close(&b.list);
    tdestroy(b.made, free);
    return rc;
}
