/* bk-key probe: what a token can do, kept as its profile, and compared with an earlier one. */
#include "cmd/bk-key/verbs.h"

#include <stdlib.h>

#include "base/time.h"
#include "cmd/common/token_profile.h"
#include "ops/recipients.h"
#include "store/sink.h"

struct probing {
    struct cmd *c;
    const struct ops_token_profile *then; /* NULL: nothing to compare with */
    char *token;                          /* of the token that is probed: its URI */
    json_t *lines;
    size_t works, compared, lost;
    enum bk_code rc;
    struct bk_err *err;
};

static const char *
use_name(const struct p11_probe_item *i)
{
    return i->signing ? "sign" : "kek";
}

static void
print_facts(const struct p11_probe_item *i)
{
    static const char *const answers[] = {"?", "no", "yes"};

    for (int f = 0; f < P11_FACTS && i->kind == P11_AES256; f++)
        (void)printf("  %-3s  %s\n", answers[i->facts[f] + 1], ops_token_fact_text((enum p11_fact)f));
}

static void
print_item(const struct p11_probe_item *i)
{
    if (!i->works)
        (void)printf("%-8s %-5s no: %s\n", cmd_kind_text(i->kind), use_name(i), i->why);
    else
        (void)printf("%-8s %-5s works%s%s%s%s\n", cmd_kind_text(i->kind), use_name(i), i->signing ? "" : ", ",
                     i->signing ? "" : bk_scheme_name(i->scheme), i->blind ? ", rotates blind" : "",
                     i->refuses_damage != 0 ? "" : ", BUT TAKES WHAT WAS DAMAGED");
    print_facts(i);
}

/* With the line of the same kind and use, if the earlier profile has it. What was lost goes into text. */
static int
has_lost(struct probing *p, const struct p11_probe_item *now, char *text, size_t room)
{
    for (size_t i = 0; p->then != NULL && i < p->then->count; i++) {
        const struct p11_probe_item *then = &p->then->kinds[i];

        if (then->kind != now->kind || then->signing != now->signing)
            continue;
        p->compared++;
        return ops_token_profile_lost(then, now, text, room);
    }
    return 0;
}

static int
each(void *ctx, const struct p11_probe_item *item)
{
    struct probing *p = ctx;
    char text[300];
    int lost;

    if (p->then != NULL && !p11_uri_same_token(p->then->token, p->token)) {
        p->rc = bk_fail(p->err, BK_E_USAGE, "%s is the profile of another token, %s", p->then->file, p->then->token);
        return 1;
    }
    lost = has_lost(p, item, text, sizeof text);

    p->works += item->works ? 1 : 0;
    p->lost += lost ? 1 : 0;
    if (json_array_append_new(p->lines, cmd_probe_json(item)) != 0)
        p->rc = bk_fail_nomem(p->err);
    else if (p->c->json == NULL)
        print_item(item);
    else
        p->rc = cmd_json(p->c, NULL, BK_OK, p->err, NULL, 0, cmd_probe_json(item), p->err);
    if (lost)
        cmd_warn(p->c, "%s %s: %s", cmd_kind_text(item->kind), use_name(item), text);
    return p->rc != BK_OK;
}

static enum bk_code
sign(struct p11 *p11, const struct key_args *a, const struct bk_buf *text, struct bk_buf *out, struct bk_err *err)
{
    struct ops_signer signer = {0};
    enum bk_code rc = ops_signer_open(&signer, p11, a->sign, a->sign_cert, err);

    if (rc == BK_OK) {
        const struct bk_signing_key key = {signer.key, signer.cert.data, signer.cert.len};

        rc = bk_signed_make(text->data, text->len, BK_CONTENT_TOKEN_PROFILE, &key, 1, bk_time_now(), out, err);
    }
    ops_signer_close(&signer);
    return rc;
}

/* Takes lines over. */
static enum bk_code
keep(struct p11 *p11, const struct key_args *a, const char *token, json_t *lines, struct store_sink **sink,
     struct bk_err *err)
{
    struct bk_buf text = {0};
    struct bk_buf cms = {0};
    struct store_sink *ready = *sink;
    enum bk_code rc = cmd_token_profile_write(token, a->on_token, lines, &text, err);

    if (rc == BK_OK && a->sign != NULL)
        rc = sign(p11, a, &text, &cms, err);
    if (rc == BK_OK)
        rc = a->sign != NULL ? store_sink_write(ready, cms.data, cms.len, err)
                             : store_sink_write(ready, text.data, text.len, err);
    if (rc == BK_OK) {
        *sink = NULL;
        rc = store_sink_publish(ready, err);
    }
    bk_buf_free(&text);
    bk_buf_free(&cms);
    return rc;
}

static enum bk_code
compare(const struct probing *p, const struct key_args *a, struct bk_err *err)
{
    enum bk_code rc;

    if (p->lost == 0 && p->compared == p->then->count) {
        cmd_say(p->c, "nothing is missing of what %s says (%s)", a->against, p->then->probed);
        return BK_OK;
    }
    rc = bk_fail(err, BK_E_POLICY, "the token does less than %s says (%s): %zu of %zu lines", a->against,
                 p->then->probed, p->lost + (p->then->count - p->compared), p->then->count);
    bk_err_hint(err, "look for what has changed: its module's version, its firmware, its policy; what is lost once may "
                     "also be a fault that passes, so try again");
    return rc;
}

static enum bk_code
run(struct probing *p, struct p11 *p11, const struct key_args *a, struct store_sink **sink, struct bk_err *err)
{
    enum bk_code rc = p11_probe(p11, a->uri, a->on_token, &p->token, each, p, err);

    if (rc == BK_OK)
        rc = p->rc;
    if (rc == BK_OK && p->works == 0 && !a->on_token)
        cmd_say(p->c, "nothing works with keys that vanish; some tokens keep all that they make: try --on-token");
    if (rc == BK_OK && fflush(stdout) != 0)
        rc = bk_fail(err, BK_E_IO, "cannot write to standard output");
    if (rc == BK_OK && p->then != NULL)
        rc = compare(p, a, err);
    if (rc == BK_OK && *sink != NULL)
        rc = keep(p11, a, p->token, json_incref(p->lines), sink, err);
    return rc;
}

enum bk_code
key_probe(struct cmd *c, struct p11 *p11, const struct key_args *a, struct bk_err *err)
{
    struct probing p = {.c = c, .lines = json_array(), .rc = BK_OK, .err = err};
    struct ops_token_profile then = {0};
    struct ops_trust trust = {0};
    struct store_sink *sink = NULL;
    enum bk_code rc = p.lines == NULL ? bk_fail_nomem(err) : BK_OK;

    if (rc == BK_OK && a->trust.count > 0)
        rc = cmd_load_trust(&trust, &a->trust, err);
    if (rc == BK_OK && a->against != NULL) {
        rc = cmd_token_profile_read(a->against, &trust, &then, err);
        p.then = &then;
    }
    /* before the trial, which takes a while: an output that cannot be written would lose what it found */
    if (rc == BK_OK && a->output != NULL)
        rc = store_sink_open(a->output, a->force, &c->cancel, &sink, err);
    if (rc == BK_OK)
        rc = run(&p, p11, a, &sink, err);
    store_sink_discard(sink);
    json_decref(p.lines);
    free(p.token);
    ops_token_profile_free(&then);
    ops_trust_free(&trust);
    return rc;
}
