#include "pkcs11/facts.h"

#include "base/keywrap.h"

/* Opens it, and looks at its value: 1 if that is kept, 0 if it is told, -1 if it does not open. */
static int
opens_and_keeps(struct p11_key *key, const uint8_t wrapped[BK_AESKW_LEN], int sensitive)
{
    CK_MECHANISM mechanism = {.mechanism = CKM_AES_KEY_WRAP};
    CK_OBJECT_HANDLE object = P11_NO_HANDLE;
    int tells = 0;
    enum bk_code rc;

    if (p11_unwrap_object(key, key->handle, &mechanism, wrapped, BK_AESKW_LEN, sensitive, &object, NULL) != BK_OK)
        return -1;
    rc = p11_object_tells_value(&key->session, object, &tells, NULL);
    p11_key_drop_object(key, object);
    return rc == BK_OK ? !tells : -1;
}

struct unwrapping {
    const struct bk_wrapped *w;
    int *facts;
};

static enum bk_code
unwrapping_step(struct p11_key *key, void *args, struct bk_err *err)
{
    const struct unwrapping *u = args;

    (void)err;
    u->facts[P11_FACT_UNWRAPS_WITHOUT_LENGTH] = p11_unwraps_by_template(key, u->w->data, 0);
    u->facts[P11_FACT_UNWRAPS_WITH_LENGTH] = p11_unwraps_by_template(key, u->w->data, 1);
    u->facts[P11_FACT_KEEPS_VALUES] = opens_and_keeps(key, u->w->data, 1);
    return BK_OK;
}

/* A step that could not run leaves what it would have found untried. */
void
p11_facts_of_unwrapping(struct p11_key *key, const struct bk_wrapped *w, int facts[P11_FACTS])
{
    struct unwrapping args = {w, facts};

    (void)!p11_key_run(key, unwrapping_step, &args, NULL);
}

struct binding {
    struct bk_wrapped w;
    int *facts;
};

/* It binds if what is asked for in accordance opens, before and after, and what is asked for against it does not, or is
 * kept. */
static enum bk_code
binding_step(struct p11_key *key, void *args, struct bk_err *err)
{
    struct binding *b = args;

    (void)err;
    if (opens_and_keeps(key, b->w.data, 1) == 1) {
        int against = opens_and_keeps(key, b->w.data, 0);

        if (against == 0 || opens_and_keeps(key, b->w.data, 1) == 1)
            b->facts[P11_FACT_TEMPLATE_BINDS] = against != 0;
    }
    return BK_OK;
}

void
p11_facts_of_binding(struct p11_key *key, int facts[P11_FACTS])
{
    struct binding b = {.facts = facts};
    struct bk_secret cek = {0};

    if (bk_secret_random(&cek, BK_CEK_LEN, NULL) == BK_OK &&
        p11_wrap_by(key, BK_SCHEME_AES_KW, &cek, &b.w, NULL) == BK_OK)
        (void)!p11_key_run(key, binding_step, &b, NULL);
    bk_secret_wipe(&cek);
}

void
p11_facts_of_leaving(struct p11_token *t, const struct p11_traits *traits, int facts[P11_FACTS])
{
    CK_ATTRIBUTE label = p11_traits_label(traits);
    CK_ATTRIBUTE id = p11_traits_id(traits);
    struct p11_session s = {0};
    struct p11_handles found = {0};

    if (p11_session_open(&s, t, NULL) == BK_OK &&
        p11_object_find(&s, traits->class, &label, &id, &found, NULL) == BK_OK)
        facts[P11_FACT_FORGETS] = found.count == 0;
    p11_handles_free(&found);
    p11_session_close(&s);
}
