/*
 * --batch: many archives with one login, each with its own result. docs/CLI.md, bk-wrap.
 *
 * A batch is a pipeline of archives: they are read from the list in turn, made, and told in turn. While one is signed,
 * checked and brought to the disk, which leaves the cores idle, the next one is read and sealed. (Two that are sealed
 * at once share the cores, and then wait for the disk together.)
 */
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "base/pipeline.h"
#include "cmd/bk-wrap/list.h"
#include "cmd/bk-wrap/wrap.h"
#include "store/place.h"

/* One ends while another one is sealed; more gain nothing. */
#define MAKERS 2

struct batch {
    struct wrap *w;
    const struct wrap_args *a;
    const struct ops_wrap *req; /* what all archives have in common */
    struct wrap_list list;
    struct cmd_batch sum;   /* of what was told */
    pthread_mutex_t keys;   /* over those of req */
    pthread_mutex_t lock;   /* over what follows */
    pthread_cond_t went_on; /* an archive was sealed, or one or all has ended */
    size_t makers;
    struct archive *making[MAKERS];
    uint64_t begun; /* archives */
    uint64_t tried; /* the last record that was: none is behind it that was */
    uint64_t told;  /* whose turn it is to be told */
    int stop;       /* no more is begun */
    enum bk_code rc;
    struct bk_err err; /* why, if not for what became of an archive */
    void *made;        /* with --force: a tree of struct made */
};

/* A record of the list on its way from reading to telling: what a job's buffer holds. */
struct archive {
    struct batch *batch;
    uint64_t turn;         /* the job's number */
    uint64_t record;       /* its number; 0: there is none, or none that is tried */
    struct wrap_item item; /* input NULL: the record names no archive */
    struct store_place input, output;
    struct bk_log log;
    struct ops_wrap req;
    int sealed; /* under the batch's lock */
    struct ops_wrap_result result;
    enum bk_code rc;
    struct bk_err failure;
    char text[WRAP_LIST_ROOM]; /* of item */
};

static struct archive *
archive_of(const struct bk_job *job)
{
    return (struct archive *)(void *)job->in; /* page-aligned */
}

/* --- with the lock held ------------------------------------------------------------------------------------------- */

static void
halt(struct batch *b)
{
    b->stop = 1;
    wrap_list_interrupt(&b->list);
    (void)pthread_cond_broadcast(&b->went_on);
}

/* For a reason that is no archive's; the first one counts. */
static void
halt_for(struct batch *b, enum bk_code rc, const struct bk_err *why)
{
    if (!b->stop) {
        b->rc = rc;
        b->err = *why;
    }
    halt(b);
}

struct made {
    struct store_place place;
    char name[];
};

static int
by_place(const void *a, const void *b)
{
    return store_place_order(a, b); /* the first member */
}

/* Two lines with one output are a mistake, and with --force the second would replace the archive of the first. Without
 * it the first archive is in the second's way by itself, and an archiver's run may last for ever. */
static enum bk_code
refuse_repeated(const struct batch *b, const struct archive *m, struct bk_err *err)
{
    if (tfind(&m->output, &b->made, by_place) == NULL)
        return BK_OK;
    return bk_fail(err, BK_E_USAGE, "%s: was made in this batch already, and is not replaced", m->item.output);
}

static enum bk_code
note_made(struct batch *b, const struct archive *m, struct bk_err *err)
{
    size_t size = strlen(m->output.name) + 1;
    struct made *made;

    if (!b->a->force)
        return BK_OK;
    if ((made = malloc(sizeof *made + size)) == NULL)
        return bk_fail_nomem(err);
    memcpy(made->name, m->output.name, size);
    made->place = m->output;
    made->place.name = made->name;
    if (tsearch(made, &b->made, by_place) == NULL) {
        free(made);
        return bk_fail_nomem(err);
    }
    return BK_OK;
}

/* What becomes of m depends on what becomes of the other. */
static int
must_follow(const struct archive *m, const struct archive *other)
{
    return store_place_same(&m->output, &other->output) || store_place_same(&m->input, &other->output);
}

/* Where m goes among those in the making, or NULL as long as it must wait. */
static struct archive **
find_maker(struct batch *b, const struct archive *m)
{
    struct archive **idle = NULL;

    for (size_t i = 0; i < b->makers; i++) {
        if (b->making[i] == NULL)
            idle = &b->making[i];
        else if (!b->making[i]->sealed || must_follow(m, b->making[i]))
            return NULL;
    }
    return idle;
}

/* --- an item's way ------------------------------------------------------------------------------------------------ */

static void
on_warn(void *ctx, const char *message)
{
    const struct archive *m = ctx;

    bk_warn(m->batch->req->log, "%s", message);
}

/* Of the two in the making that is shown which is told next. */
static void
on_progress(void *ctx, uint64_t done, uint64_t total)
{
    const struct archive *m = ctx;
    struct batch *b = m->batch;
    int shown;

    pthread_mutex_lock(&b->lock);
    shown = b->told == m->turn;
    pthread_mutex_unlock(&b->lock);
    if (shown)
        bk_progress(b->req->log, done, total);
}

static void
on_sealed(void *ctx)
{
    struct archive *m = ctx;

    pthread_mutex_lock(&m->batch->lock);
    m->sealed = 1;
    (void)pthread_cond_broadcast(&m->batch->went_on);
    pthread_mutex_unlock(&m->batch->lock);
}

static const char *
keep_text(char **at, const char *text)
{
    char *kept = *at;

    *at = text == NULL ? kept : stpcpy(kept, text) + 1;
    return text == NULL ? NULL : kept;
}

/* The list's texts hold until it is read again; a record fits into the room of one. */
static void
keep_item(struct archive *m, const struct wrap_item *item)
{
    char *at = m->text;

    m->item.input = keep_text(&at, item->input);
    m->item.output = keep_text(&at, item->output);
    m->item.sequence = keep_text(&at, item->sequence);
    store_place_of(m->item.input, &m->input);
    store_place_of(m->item.output, &m->output);
    m->log = (struct bk_log){.ctx = m, .warn = on_warn, .progress = on_progress};
    m->req = *m->batch->req;
    m->req.input = m->item.input;
    m->req.output = m->item.output;
    (void)snprintf(m->req.sequence, sizeof m->req.sequence, "%s", m->item.sequence == NULL ? "" : m->item.sequence);
    m->req.keys = &m->batch->keys;
    m->req.sealed = on_sealed;
    m->req.ctx = m;
    m->req.log = &m->log;
}

/* Waits until the record may be tried; 0 if the batch has ended before. */
static int
begin(struct batch *b, struct archive *m)
{
    struct archive **maker = NULL;
    int begun;

    pthread_mutex_lock(&b->lock);
    while (!b->stop && m->item.input != NULL && (maker = find_maker(b, m)) == NULL)
        pthread_cond_wait(&b->went_on, &b->lock);
    begun = !b->stop;
    if (begun)
        m->record = b->tried = b->list.records;
    if (begun && maker != NULL && (m->rc = refuse_repeated(b, m, &m->failure)) == BK_OK) {
        *maker = m;
        m->req.again = b->begun++ > 0;
    }
    pthread_mutex_unlock(&b->lock);
    return begun;
}

static enum bk_code
read_item(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct batch *b = ctx;
    struct archive *m = archive_of(job);
    struct wrap_item item = {0};

    (void)err;
    memset(m, 0, sizeof *m);
    m->batch = b;
    m->turn = job->number;
    m->rc = wrap_list_next(&b->list, &item, &m->failure);
    if (m->rc == BK_OK && item.input != NULL)
        keep_item(m, &item);
    if (m->rc == BK_E_USAGE || item.input != NULL) {
        job->last = !begin(b, m);
        return BK_OK;
    }
    job->last = 1;
    if (m->rc != BK_OK) {
        pthread_mutex_lock(&b->lock);
        halt_for(b, m->rc, &m->failure);
        pthread_mutex_unlock(&b->lock);
    }
    return BK_OK;
}

/* What needs the token will need it for the next archive too: all of it would be read and sealed in vain. */
static int
ends_batch(enum bk_code rc)
{
    return rc == BK_E_TOKEN || rc == BK_E_NO_KEY || rc == BK_E_UNSUPPORTED || rc == BK_E_PIN || rc == BK_E_CANCELLED;
}

static void
end(struct batch *b, const struct archive *m)
{
    struct bk_err why = {0};
    enum bk_code rc = BK_OK;

    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < b->makers; i++)
        if (b->making[i] == m)
            b->making[i] = NULL;
    if (m->rc == BK_OK)
        rc = note_made(b, m, &why);
    if (rc != BK_OK)
        halt_for(b, rc, &why);
    else if (ends_batch(m->rc))
        halt(b);
    (void)pthread_cond_broadcast(&b->went_on);
    pthread_mutex_unlock(&b->lock);
}

static enum bk_code
make_archive(void *ctx, size_t worker, struct bk_job *job, struct bk_err *err)
{
    struct archive *m = archive_of(job);

    (void)worker;
    (void)err;
    if (m->record == 0 || m->rc != BK_OK)
        return BK_OK;
    m->rc = ops_wrap_run(&m->req, &m->result, &m->failure);
    end(ctx, m);
    return BK_OK;
}

static const char *
list_name(const struct batch *b)
{
    return strcmp(b->a->batch, "-") == 0 ? "standard input" : b->a->batch;
}

/* A record that names no archive. */
static enum bk_code
tell_record(struct batch *b, struct archive *m, struct bk_err *err)
{
    char where[PATH_MAX + 32];

    (void)snprintf(where, sizeof where, "%s:%" PRIu64, list_name(b), m->record);
    bk_err_prefix(&m->failure, "%s", where);
    cmd_report(&b->w->cmd, where, &m->failure);
    return cmd_json(&b->w->cmd, "", m->rc, &m->failure, NULL, 0, NULL, err);
}

static enum bk_code
tell_archive(struct batch *b, const struct archive *m, struct bk_err *err)
{
    cmd_progress_end(&b->w->cmd);
    if (m->rc != BK_OK)
        cmd_report(&b->w->cmd, m->item.output, &m->failure);
    b->w->result = m->result;
    return wrap_tell(b->w, m->item.output, m->item.input, m->rc, &m->failure, err);
}

static enum bk_code
tell_item(void *ctx, struct bk_job *job, struct bk_err *err)
{
    struct batch *b = ctx;
    struct archive *m = archive_of(job);
    struct bk_err own = {0};
    enum bk_code rc = BK_OK;

    (void)err;
    if (m->record != 0) {
        rc = m->item.input == NULL ? tell_record(b, m, &own) : tell_archive(b, m, &own);
        cmd_batch_add(&b->sum, m->rc);
        if (ends_batch(m->rc)) {
            b->sum.first = m->rc;
            b->sum.stop = 1;
        }
    }
    pthread_mutex_lock(&b->lock);
    if (rc != BK_OK)
        halt_for(b, rc, &own);
    b->told++;
    pthread_mutex_unlock(&b->lock);
    return BK_OK;
}

/* Puts what was done and what was not before the reason why the batch ends here, if *err has one. */
static void
sum_up(const struct batch *b, enum bk_code rc, struct bk_err *err)
{
    uint64_t left = 0;
    char rest[64] = "what followed was not read", sum[448];

    if (!b->list.out_of_step && wrap_list_rest(b->a->batch, b->a->null, b->tried, &left))
        (void)snprintf(rest, sizeof rest, "%" PRIu64 " not tried", left);
    (void)snprintf(sum, sizeof sum, "stopped after %s %" PRIu64 " of %.200s: %zu made, %zu failed, %s",
                   b->a->null ? "item" : "line", b->tried, list_name(b), b->sum.total - b->sum.failed, b->sum.failed,
                   rest);
    if (err->message[0] == '\0')
        (void)!bk_fail(err, rc, "%s", sum);
    else
        bk_err_prefix(err, "%s", sum);
}

/* No stage fails, so that all that was begun is told. */
static enum bk_code
run(struct batch *b, struct bk_err *err)
{
    const struct bk_pipeline pipe = {.ctx = b,
                                     .workers = b->makers,
                                     .in_size = sizeof(struct archive),
                                     .read = read_item,
                                     .work = make_archive,
                                     .write = tell_item};
    enum bk_code rc = bk_pipeline_run(&pipe, err);

    if (rc == BK_OK && b->rc != BK_OK) {
        *err = b->err;
        rc = b->rc;
    }
    if (rc == BK_OK && !b->sum.stop && !b->list.out_of_step) {
        cmd_say(&b->w->cmd, "%s: %zu made, %zu failed", list_name(b), b->sum.total - b->sum.failed, b->sum.failed);
        return cmd_batch_code(&b->sum);
    }
    rc = rc != BK_OK ? rc : cmd_batch_code(&b->sum);
    sum_up(b, rc, err);
    return rc;
}

/*
 * The pipelines' buffers, some mebibytes, are had and given back for each archive. By default the C library gives them
 * back to the system each time, and each of their pages is made anew: a sixth of the time of an archive of 16 MiB. With
 * one arena any thread finds what another one gave back.
 */
#define KEEP_BLOCKS_UP_TO (32 * 1024 * 1024)
#define KEEP_FREE_UP_TO   (256 * 1024 * 1024)

static void
keep_memory(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, KEEP_BLOCKS_UP_TO);
    (void)mallopt(M_TRIM_THRESHOLD, KEEP_FREE_UP_TO);
    (void)mallopt(M_ARENA_MAX, 1);
}

enum bk_code
wrap_batch(struct wrap *w, const struct wrap_args *a, const struct ops_wrap *req, struct bk_err *err)
{
    struct batch b = {.w = w,
                      .a = a,
                      .req = req,
                      .makers = req->workers > 1 ? MAKERS : 1,
                      .keys = PTHREAD_MUTEX_INITIALIZER,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .went_on = PTHREAD_COND_INITIALIZER};
    enum bk_code rc = wrap_list_open(&b.list, a->batch, a->null, &w->cmd.cancel, err);

    keep_memory();
    if (rc == BK_OK)
        rc = run(&b, err);
    wrap_list_close(&b.list);
    tdestroy(b.made, free);
    return rc;
}
