/* bk-key audit: what the keys of a token say of themselves that an auditor would object to. Attributes are the module's
 * claims, and so is the date. */
#include "cmd/bk-key/verbs.h"

#include <string.h>
#include <time.h>

#include "base/time.h"

#define FINDINGS_MAX 12

struct audit {
    struct cmd *c;
    const struct key_args *args;
    size_t keys, objected; /* of all, and with findings */
    enum bk_code rc;
    struct bk_err *err;
};

struct findings {
    const char *at[FINDINGS_MAX];
    size_t count;
};

static void
find(struct findings *f, int found, const char *text)
{
    if (found && f->count < FINDINGS_MAX)
        f->at[f->count++] = text;
}

/* Whole days since the key's own date; -1 without one. */
static long
age_of(const struct p11_item *i)
{
    struct tm tm = {0};

    if (i->made == NULL || sscanf(i->made, "%4d-%2d-%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday) != 3)
        return -1;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return (long)((bk_time_now() - timegm(&tm)) / 86400);
}

/* What is not said is a finding too: nobody can rely on it. */
static void
judge(const struct p11_item *i, long age, uint64_t max_age, struct findings *f)
{
    int secret = strcmp(i->class_name, "secret key") == 0;

    find(f, i->extractable == 1, "it can be extracted");
    find(f, i->sensitive == 0, "it is not sensitive: its value can be read");
    find(f, i->extractable < 0 || i->sensitive < 0, "the token does not say whether it can be extracted");
    find(f, i->extractable != 1 && i->never_extractable == 0, "it could once be extracted");
    find(f, i->sensitive != 0 && i->always_sensitive == 0, "it was not always sensitive");
    find(f, i->local == 0, "it was not made on the token");
    find(f, i->modifiable == 1, "its attributes can be changed");
    find(f, secret && i->can_wrap == 1 && i->can_decrypt == 1,
         "it can wrap and decrypt, so that a blind rotation hides nothing from its login");
    find(f, i->can_sign == 1 && (i->can_decrypt == 1 || i->can_unwrap == 1 || i->can_derive == 1),
         "it can sign and also open archives");
    find(f, max_age > 0 && age < 0, "it does not say when it was made");
    find(f, max_age > 0 && age >= 0 && (uint64_t)age > max_age, "it is older than --max-age");
}

static enum bk_code
tell_json(struct audit *a, const struct p11_item *i, long age, const struct findings *f)
{
    json_t *o = key_item_json(i);
    json_t *list = json_array();

    for (size_t n = 0; n < f->count; n++)
        (void)json_array_append_new(list, json_string(f->at[n]));
    (void)json_object_set_new(o, "findings", list);
    (void)json_object_set_new(o, "ageDays", age < 0 ? json_null() : json_integer(age));
    return cmd_json(a->c, NULL, BK_OK, a->err, NULL, 0, o, a->err);
}

static void
tell(const struct p11_item *i, long age, const struct findings *f)
{
    (void)printf("%-11s  %-8s %s\n", i->class_name, bk_key_type_name(i->pub.type), i->uri == NULL ? "-" : i->uri);
    if (age >= 0)
        (void)printf("  %ld day%s old, made on %s\n", age, age == 1 ? "" : "s", i->made);
    else
        (void)printf("  does not say when it was made\n");
    for (size_t n = 0; n < f->count; n++)
        (void)printf("  finding: %s\n", f->at[n]);
}

static int
each(void *ctx, const struct p11_item *item)
{
    struct audit *a = ctx;
    struct findings f = {0};
    long age = age_of(item);

    if (strcmp(item->class_name, "private key") != 0 && strcmp(item->class_name, "secret key") != 0)
        return 0;
    judge(item, age, a->args->max_age, &f);
    a->keys++;
    a->objected += f.count > 0;
    if (a->c->json == NULL)
        tell(item, age, &f);
    else
        a->rc = tell_json(a, item, age, &f);
    return a->rc != BK_OK;
}

enum bk_code
key_audit(struct cmd *c, struct p11 *p11, const struct key_args *args, struct bk_err *err)
{
    struct audit a = {.c = c, .args = args, .rc = BK_OK, .err = err};
    size_t tokens = 0;
    enum bk_code rc = p11_list(p11, args->uri, 1, each, &a, &tokens, err);

    if (rc != BK_OK || a.rc != BK_OK)
        return rc != BK_OK ? rc : a.rc;
    if (tokens == 0)
        return bk_fail(err, BK_E_TOKEN, "no token answers to that URI");
    if (a.keys == 0)
        return bk_fail(err, BK_E_NO_KEY, "no private or secret key answers to that URI");
    if (fflush(stdout) != 0)
        return bk_fail(err, BK_E_IO, "cannot write to standard output");
    cmd_say(c, "%zu key%s, %zu with findings; attributes and dates are what the module says", a.keys,
            a.keys == 1 ? "" : "s", a.objected);
    return a.objected == 0 ? BK_OK : bk_fail(err, BK_E_POLICY, "%zu of %zu keys have findings", a.objected, a.keys);
}
