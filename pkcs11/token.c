#include "pkcs11/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pkcs11/left_out.h"
#include "pkcs11/rv.h"
#include "pkcs11/session.h"

/* More slots than this are a number that the module made up. */
#define SLOTS_MAX 65536

static struct p11_token *
token_new(struct p11 *p, struct p11_module *m, CK_SLOT_ID slot, const CK_TOKEN_INFO *info)
{
    struct p11_token *t = calloc(1, sizeof *t);

    if (t == NULL)
        return NULL;
    t->owner = p;
    t->module = m;
    t->slot = slot;
    t->info = *info;
    p11_text_field(t->label, sizeof t->label, info->label, sizeof info->label);
    p11_text_field(t->serial, sizeof t->serial, info->serialNumber, sizeof info->serialNumber);
    p11_text_field(t->model, sizeof t->model, info->model, sizeof info->model);
    if (t->label[0] != '\0')
        (void)snprintf(t->where, sizeof t->where, "token '%s'", t->label);
    else
        (void)snprintf(t->where, sizeof t->where, "token without a label (serial %s)", t->serial);
    t->next = p->tokens;
    p->tokens = t;
    return t;
}

int
p11_token_is_same(const struct p11_token *t, const CK_TOKEN_INFO *now)
{
    return memcmp(t->info.label, now->label, sizeof now->label) == 0 &&
           memcmp(t->info.serialNumber, now->serialNumber, sizeof now->serialNumber) == 0;
}

/* The same slot with the same token in it is the same token; another card in that slot is not. */
static struct p11_token *
token_known(struct p11 *p, const struct p11_module *m, CK_SLOT_ID slot, const CK_TOKEN_INFO *info)
{
    for (struct p11_token *t = p->tokens; t != NULL; t = t->next)
        if (t->module == m && t->slot == slot && p11_token_is_same(t, info))
            return t;
    return NULL;
}

static int
is_initialized(const CK_TOKEN_INFO *info)
{
    char label[33];

    p11_text_field(label, sizeof label, info->label, sizeof info->label);
    /* a module may forget the flag, but not on a token that carries a name */
    return (info->flags & CKF_TOKEN_INITIALIZED) != 0 || label[0] != '\0';
}

static int
slot_matches(struct p11_module *m, CK_SLOT_ID slot, const struct p11_uri *uri)
{
    CK_SLOT_INFO info = {0};

    return P11_CALL(&m->port, C_GetSlotInfo, slot, &info) == CKR_OK &&
           p11_kit_uri_match_slot_info(uri->kit, &info) == 1;
}

/* uri NULL: every token. */
static enum bk_code
add_slot(struct p11 *p, struct p11_module *m, CK_SLOT_ID slot, const struct p11_uri *uri, struct p11_tokens *out,
         struct bk_err *err)
{
    CK_TOKEN_INFO info = {0};
    char text[P11_RV_TEXT];
    struct p11_token *t;
    CK_RV rv = P11_CALL(&m->port, C_GetTokenInfo, slot, &info);

    if (rv == CKR_TOKEN_NOT_PRESENT || rv == CKR_TOKEN_NOT_RECOGNIZED)
        return BK_OK;
    if (rv != CKR_OK) {
        p11_left_out_add(p, "%s: the token in slot %lu was left out: C_GetTokenInfo: %s", m->where, (unsigned long)slot,
                         p11_rv_name(rv, text));
        return BK_OK;
    }
    if (!is_initialized(&info))
        return BK_OK;
    if (uri != NULL && (p11_kit_uri_match_token_info(uri->kit, &info) != 1 || !slot_matches(m, slot, uri)))
        return BK_OK;
    if ((t = token_known(p, m, slot, &info)) == NULL && (t = token_new(p, m, slot, &info)) == NULL)
        return bk_fail_nomem(err);
    if (out->count == P11_TOKENS_MAX)
        return bk_fail(err, BK_E_TOKEN, "more than %d tokens match; name one by token= and serial=", P11_TOKENS_MAX);
    out->at[out->count++] = t;
    return BK_OK;
}

/* The number may change between the two calls (a card is put in), and is not believed without a bound. */
static enum bk_code
slot_list(struct p11_module *m, CK_SLOT_ID **slots, CK_ULONG *count, struct bk_err *err)
{
    *slots = NULL;
    for (int tries = 0; tries < 5; tries++) {
        CK_ULONG room = 0;

        if (P11_CALL(&m->port, C_GetSlotList, CK_TRUE, NULL, &room) != CKR_OK || room > SLOTS_MAX)
            break;
        free(*slots);
        *slots = calloc(room + 8, sizeof **slots);
        if (*slots == NULL)
            return bk_fail_nomem(err);
        *count = room + 8;
        if (P11_CALL(&m->port, C_GetSlotList, CK_TRUE, *slots, count) == CKR_OK && *count <= room + 8)
            return BK_OK;
        if (m->port.rv != CKR_BUFFER_TOO_SMALL)
            break;
    }
    free(*slots);
    *slots = NULL;
    if (m->port.rv == CKR_OK)
        return bk_fail(err, BK_E_TOKEN, "%s: C_GetSlotList gives a number of slots that cannot be", m->where);
    return p11_call_fail_as(&m->port, BK_E_TOKEN, err, "listing slots");
}

static enum bk_code
add_module(struct p11 *p, struct p11_module *m, const struct p11_uri *uri, struct p11_tokens *out, struct bk_err *err)
{
    CK_SLOT_ID *slots = NULL;
    CK_ULONG count = 0;
    struct bk_err own = {0};
    enum bk_code rc = slot_list(m, &slots, &count, &own);

    if (rc == BK_E_TOKEN && m->path == NULL) {
        p11_left_out_add(p, "a configured PKCS#11 module was left out: %s", own.message);
        return BK_OK;
    }
    if (rc != BK_OK && err != NULL)
        *err = own;
    for (CK_ULONG i = 0; rc == BK_OK && slots != NULL && i < count; i++)
        rc = add_slot(p, m, slots[i], uri, out, err);
    free(slots);
    return rc;
}

static enum bk_code
match(struct p11 *p, const struct p11_uri *uri, struct p11_tokens *out, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    out->count = 0;
    for (struct p11_module *m = p->modules; rc == BK_OK && m != NULL; m = m->next)
        if (p11_module_matches(m, uri))
            rc = add_module(p, m, uri, out, err);
    return rc;
}

enum bk_code
p11_tokens_match(struct p11 *p, const struct p11_uri *uri, int again, struct p11_tokens *out, struct bk_err *err)
{
    enum bk_code rc;

    pthread_mutex_lock(&p->lock);
    if ((rc = p11_modules_load(p, uri, err)) == BK_OK) {
        for (struct p11_module *m = p->modules; again && m != NULL; m = m->next)
            if (p11_module_matches(m, uri))
                p11_module_restart(m);
        rc = match(p, uri, out, err);
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

size_t
p11_tokens_all(struct p11 *p, const struct p11_uri *uri, struct p11_tokens *out)
{
    size_t usable = 0;

    pthread_mutex_lock(&p->lock);
    for (struct p11_module *m = p->modules; m != NULL; m = m->next)
        if (m->usable && (m->only || (m->path != NULL) == (uri->module_path != NULL))) {
            usable++;
            /* only for a message: what cannot be listed is left out of it */
            (void)!add_module(p, m, NULL, out, NULL);
        }
    pthread_mutex_unlock(&p->lock);
    return usable;
}

const char *
p11_token_label(const struct p11_token *t)
{
    return t->label;
}

const char *
p11_token_serial(const struct p11_token *t)
{
    return t->serial;
}

const char *
p11_token_where(const struct p11_token *t)
{
    return t->where;
}

enum bk_code
p11_token_uri(const struct p11_token *t, char **out, struct bk_err *err)
{
    return p11_uri_hint(&t->info, NULL, NULL, out, err);
}

int
p11_login_failed(struct p11 *p)
{
    int failed = 0;

    pthread_mutex_lock(&p->lock);
    for (const struct p11_token *t = p->tokens; t != NULL; t = t->next)
        failed |= t->failed != BK_OK;
    pthread_mutex_unlock(&p->lock);
    return failed;
}

void
p11_tokens_free(struct p11 *p)
{
    while (p->tokens != NULL) {
        struct p11_token *t = p->tokens;
        struct p11_port *port = &t->module->port;

        p->tokens = t->next;
        if (t->session_open) {
            if (t->logged_in)
                (void)P11_CALL(port, C_Logout, t->session);
            p11_session_handle_close(t, port, t->session);
        }
        bk_secret_wipe(&t->pin);
        free(t);
    }
}
