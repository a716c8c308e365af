/* Lines for people: messages, warnings, progress. */
#include "cmd/common/cmd.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

#define PROGRESS_EVERY_MS 200
/* A message with the longest path in it. */
#define LINE_MAX_BYTES 8192

static uint64_t
now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void
cmd_lines_hold(struct cmd *c)
{
    pthread_mutex_lock(&c->lines);
}

void
cmd_lines_release(struct cmd *c)
{
    pthread_mutex_unlock(&c->lines);
}

static void
end_progress(struct cmd *c)
{
    if (c->progress_shown)
        (void)fputs("\r\033[K", stderr);
    c->progress_shown = 0;
    c->progress_started_ms = 0;
}

void
cmd_progress_end(struct cmd *c)
{
    cmd_lines_hold(c);
    end_progress(c);
    cmd_lines_release(c);
}

void
cmd_line(FILE *out, const char *name, const char *kind, const char *text)
{
    char plain[LINE_MAX_BYTES];

    (void)fprintf(out, "%s: %s%s\n", name, kind, bk_text_plain(plain, sizeof plain, text, strlen(text)));
}

BK_PRINTF(3, 0)
static void
say(struct cmd *c, const char *kind, const char *fmt, va_list args)
{
    char text[LINE_MAX_BYTES];

    (void)vsnprintf(text, sizeof text, fmt, args);
    cmd_lines_hold(c);
    end_progress(c);
    cmd_line(stderr, c->name, kind, text);
    cmd_lines_release(c);
}

void
cmd_say(struct cmd *c, const char *fmt, ...)
{
    va_list args;

    if (c->common.quiet)
        return;
    va_start(args, fmt);
    say(c, "", fmt, args);
    va_end(args);
}

void
cmd_warn(struct cmd *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say(c, "warning: ", fmt, args);
    va_end(args);
}

char *
cmd_size(uint64_t bytes, char out[16])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(out, 16, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

static int
progress_wanted(const struct cmd *c)
{
    if (c->common.progress == CMD_PROGRESS_AUTO)
        return !c->common.quiet && isatty(STDERR_FILENO);
    return c->common.progress == CMD_PROGRESS_ALWAYS;
}

static void
show_progress(struct cmd *c, uint64_t done, uint64_t total)
{
    uint64_t now = now_ms();
    char size[16], of[16], rate[16];

    if (c->progress_started_ms == 0 || done < c->progress_from) {
        c->progress_started_ms = c->progress_last_ms = now;
        c->progress_from = done;
    }
    if (now - c->progress_last_ms < PROGRESS_EVERY_MS || !progress_wanted(c))
        return;
    c->progress_last_ms = now;
    c->progress_shown = 1;
    (void)cmd_size(done, size);
    (void)cmd_size((done - c->progress_from) * 1000 / (now - c->progress_started_ms), rate);
    if (total > 0)
        (void)fprintf(stderr, "\r%s: %s of %s, %u%%, %s/s\033[K", c->name, size, cmd_size(total, of),
                      (unsigned)(done * 100 / total), rate);
    else
        (void)fprintf(stderr, "\r%s: %s, %s/s\033[K", c->name, size, rate);
    (void)fflush(stderr);
}

void
cmd_on_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct cmd *c = ctx;

    cmd_lines_hold(c);
    show_progress(c, done, total);
    cmd_lines_release(c);
}
