/* bk-key probe: what a token can do. */
#include "cmd/bk-key/verbs.h"

struct probing {
    struct cmd *c;
    size_t works;
    enum bk_code rc;
    struct bk_err *err;
};

static const char *
use_name(const struct p11_probe_item *i)
{
    return i->signing ? "sign" : "kek";
}

static void
print_item(const struct p11_probe_item *i)
{
    if (!i->works) {
        (void)printf("%-8s %-5s no: %s\n", key_type_text(i->kind), use_name(i), i->why);
        return;
    }
    (void)printf("%-8s %-5s works%s%s%s%s\n", key_type_text(i->kind), use_name(i), i->signing ? "" : ", ",
                 i->signing ? "" : bk_scheme_name(i->scheme), i->blind ? ", rotates blind" : "",
                 i->refuses_damage != 0 ? "" : ", BUT TAKES WHAT WAS DAMAGED");
}

static json_t *
item_json(const struct p11_probe_item *i)
{
    return json_pack("{s:s, s:s, s:b, s:s?, s:b, s:o, s:s?}", "type", key_type_text(i->kind), "use", use_name(i),
                     "works", i->works, "scheme", i->works && !i->signing ? bk_scheme_name(i->scheme) : NULL, "blind",
                     i->blind, "refusesDamage", i->refuses_damage < 0 ? json_null() : json_boolean(i->refuses_damage),
                     "why", i->why);
}

static int
each(void *ctx, const struct p11_probe_item *item)
{
    struct probing *p = ctx;

    p->works += item->works ? 1 : 0;
    if (p->c->json == NULL)
        print_item(item);
    else
        p->rc = cmd_json(p->c, NULL, BK_OK, p->err, NULL, 0, item_json(item), p->err);
    return p->rc != BK_OK;
}

enum bk_code
key_probe(struct cmd *c, struct p11 *p11, const struct key_args *a, struct bk_err *err)
{
    struct probing p = {.c = c, .rc = BK_OK, .err = err};
    enum bk_code rc = p11_probe(p11, a->uri, a->on_token, each, &p, err);

    if (rc != BK_OK || p.rc != BK_OK)
        return rc != BK_OK ? rc : p.rc;
    if (p.works == 0 && !a->on_token)
        cmd_say(c, "nothing works with keys that vanish; some tokens keep all that they make: try --on-token");
    return fflush(stdout) == 0 ? BK_OK : bk_fail(err, BK_E_IO, "cannot write to standard output");
}
