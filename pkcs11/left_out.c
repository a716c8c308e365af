/*
 * docs/TOKENS.md, rule 12: nothing that is broken is skipped silently. But a run that found its token and key needs
 * none of it, and a warning that comes every night is read by nobody; so these are told when something was not found.
 */
#include "pkcs11/left_out.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct p11_left_out_item {
    struct p11_left_out_item *next;
    int said;
    char text[600];
};

enum bk_code
p11_left_out_init(struct p11_left_out *l, const struct bk_log *log, struct bk_err *err)
{
    *l = (struct p11_left_out){.log = log};
    return pthread_mutex_init(&l->lock, NULL) == 0 ? BK_OK : bk_fail_nomem(err);
}

static void
add(struct p11_left_out *l, const struct p11_left_out_item *made)
{
    struct p11_left_out_item **at = &l->first;
    size_t count = 0;

    for (; *at != NULL; at = &(*at)->next, count++)
        if (strcmp((*at)->text, made->text) == 0)
            return;
    if (count == P11_LEFT_OUT_MAX || (*at = malloc(sizeof *made)) == NULL)
        return;
    **at = *made;
}

void
p11_left_out_add(struct p11 *p, const char *fmt, ...)
{
    struct p11_left_out *l = p11_left_out_of(p);
    struct p11_left_out_item made = {0};
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(made.text, sizeof made.text, fmt, args);
    va_end(args);
    pthread_mutex_lock(&l->lock);
    add(l, &made);
    pthread_mutex_unlock(&l->lock);
}

void
p11_left_out_take(struct p11_left_out *l, void (*say)(void *ctx, const char *text), void *ctx)
{
    pthread_mutex_lock(&l->lock);
    for (struct p11_left_out_item *i = l->first; i != NULL; i = i->next) {
        if (!i->said)
            say(ctx, i->text);
        i->said = 1;
    }
    pthread_mutex_unlock(&l->lock);
}

static void
warn(void *ctx, const char *text)
{
    bk_warn(ctx, "%s", text);
}

void
p11_say_left_out(struct p11 *p)
{
    struct p11_left_out *l = p == NULL ? NULL : p11_left_out_of(p);

    if (l != NULL)
        p11_left_out_take(l, warn, (void *)(uintptr_t)l->log);
}

void
p11_left_out_explain(struct p11 *p, enum bk_code rc)
{
    if (rc == BK_E_TOKEN || rc == BK_E_NO_KEY)
        p11_say_left_out(p);
}

void
p11_left_out_free(struct p11_left_out *l)
{
    while (l->first != NULL) {
        struct p11_left_out_item *i = l->first;

        l->first = i->next;
        free(i);
    }
    (void)pthread_mutex_destroy(&l->lock);
}
