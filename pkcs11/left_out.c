/*
 * docs/TOKENS.md, rule 12: nothing that is broken is skipped silently. But a run that found its token and key needs
 * none of it, and a warning that comes every night is read by nobody; so these are told when something was not found.
 */
#include "pkcs11/left_out.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct p11_left_out {
    struct p11_left_out *next;
    int said;
    char text[600];
};

void
p11_left_out_add(struct p11 *p, const char *fmt, ...)
{
    struct p11_left_out **at = &p->left_out;
    struct p11_left_out made = {0};
    size_t count = 0;
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(made.text, sizeof made.text, fmt, args);
    va_end(args);
    for (; *at != NULL; at = &(*at)->next, count++)
        if (strcmp((*at)->text, made.text) == 0)
            return;
    if (count == P11_LEFT_OUT_MAX || (*at = malloc(sizeof made)) == NULL)
        return;
    **at = made;
}

void
p11_say_left_out(struct p11 *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    for (struct p11_left_out *l = p->left_out; l != NULL; l = l->next) {
        if (!l->said)
            bk_warn(p->options.log, "%s", l->text);
        l->said = 1;
    }
    pthread_mutex_unlock(&p->lock);
}

void
p11_left_out_explain(struct p11 *p, enum bk_code rc)
{
    if (rc == BK_E_TOKEN || rc == BK_E_NO_KEY)
        p11_say_left_out(p);
}

void
p11_left_out_free(struct p11 *p)
{
    while (p->left_out != NULL) {
        struct p11_left_out *l = p->left_out;

        p->left_out = l->next;
        free(l);
    }
}
