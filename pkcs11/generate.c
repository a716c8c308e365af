/* Making keys in the token, and proving them before anybody relies on them. */
#include <string.h>

#include "base/time.h"
#include "pkcs11/find.h"
#include "pkcs11/generate.h"
#include "pkcs11/rv.h"
#include "pkcs11/seal.h"

#define ID_LEN BK_UUID_LEN

/* Values that templates point to, and the template of one half. */
struct values {
    CK_BBOOL yes, no;
    CK_BBOOL lasting; /* CKA_TOKEN */
    CK_OBJECT_CLASS secret_class;
    CK_KEY_TYPE aes;
    CK_ULONG bits, value_len;
    CK_BYTE exponent[3];
    uint8_t id[ID_LEN];
    CK_ATTRIBUTE label;
    struct p11_seal seal; /* of what a sealed key opens */
    CK_ATTRIBUTE bound;   /* of what a binding key opens */
    int encrypts;         /* a secret key for AES-GCM in place of AES key wrap */
};

struct template
{
    CK_ATTRIBUTE at[24];
    CK_ULONG count;
};

/* How much is asked for; a token that refuses the whole gets less, and what came of it is read back. */
enum demand {
    ALL,
    NOT_MODIFIABLE_OMITTED,
    ONLY_WANTED_USES,
    DEMANDS,
};

static void
add(struct template *t, CK_ATTRIBUTE_TYPE type, void *value, size_t len)
{
    t->at[t->count++] = (CK_ATTRIBUTE){type, value, (CK_ULONG)len};
}

/* Every use is named, since tokens differ in what they take for granted. */
static void
add_use(struct template *t, struct values *v, CK_ATTRIBUTE_TYPE type, int wanted, enum demand demand)
{
    if (wanted || demand < ONLY_WANTED_USES)
        add(t, type, wanted ? &v->yes : &v->no, sizeof v->yes);
}

static void
fill_common(struct template *t, struct values *v, enum demand demand)
{
    t->count = 0;
    add(t, CKA_TOKEN, &v->lasting, sizeof v->lasting);
    add(t, CKA_ID, v->id, sizeof v->id);
    t->at[t->count++] = v->label;
    if (demand < NOT_MODIFIABLE_OMITTED)
        add(t, CKA_MODIFIABLE, &v->no, sizeof v->no);
}

static void
fill_guarded(struct template *t, struct values *v, enum demand demand)
{
    fill_common(t, v, demand);
    add(t, CKA_PRIVATE, &v->yes, sizeof v->yes);
    add(t, CKA_SENSITIVE, &v->yes, sizeof v->yes);
    add(t, CKA_EXTRACTABLE, &v->no, sizeof v->no);
}

static void
fill_public(struct template *t, struct values *v, const struct p11_generate *what, enum demand demand)
{
    int rsa = what->kind == P11_RSA3072 || what->kind == P11_RSA4096;

    fill_common(t, v, demand);
    add(t, CKA_PRIVATE, &v->no, sizeof v->no);
    if (rsa) {
        add(t, CKA_MODULUS_BITS, &v->bits, sizeof v->bits);
        add(t, CKA_PUBLIC_EXPONENT, v->exponent, sizeof v->exponent);
    } else {
        t->at[t->count++] = p11_curve_params(what->kind == P11_P384 ? BK_KEY_P384 : BK_KEY_P256);
    }
    add_use(t, v, CKA_ENCRYPT, rsa && !what->signing, demand);
    add_use(t, v, CKA_WRAP, rsa && !what->signing, demand);
    add_use(t, v, CKA_DERIVE, !rsa && !what->signing, demand);
    add_use(t, v, CKA_VERIFY, what->signing, demand);
}

static void
fill_private(struct template *t, struct values *v, const struct p11_generate *what, enum demand demand)
{
    int rsa = what->kind == P11_RSA3072 || what->kind == P11_RSA4096;

    fill_guarded(t, v, demand);
    add_use(t, v, CKA_DECRYPT, rsa && !what->signing, demand);
    add_use(t, v, CKA_UNWRAP, rsa && !what->signing, demand);
    add_use(t, v, CKA_DERIVE, !rsa && !what->signing, demand);
    add_use(t, v, CKA_SIGN, what->signing, demand);
}

/* The security officer, who alone makes trusted keys, sees no private ones. */
static void
fill_sealed(struct template *t, struct values *v)
{
    p11_seal_fill(&v->seal);
    add(t, CKA_PRIVATE, &v->no, sizeof v->no);
    add(t, CKA_SENSITIVE, &v->yes, sizeof v->yes);
    add(t, CKA_EXTRACTABLE, &v->no, sizeof v->no);
    add(t, CKA_TRUSTED, &v->yes, sizeof v->yes);
    add(t, CKA_UNWRAP_TEMPLATE, v->seal.at, v->seal.count * sizeof v->seal.at[0]);
}

static void
fill_secret(struct template *t, struct values *v, const struct p11_generate *what, enum demand demand)
{
    if (what->sealed) {
        fill_common(t, v, demand);
        fill_sealed(t, v);
    } else {
        fill_guarded(t, v, demand);
    }
    if (what->binding) {
        v->bound = (CK_ATTRIBUTE){CKA_SENSITIVE, &v->yes, sizeof v->yes};
        add(t, CKA_UNWRAP_TEMPLATE, &v->bound, sizeof v->bound);
    }
    add(t, CKA_CLASS, &v->secret_class, sizeof v->secret_class);
    add(t, CKA_KEY_TYPE, &v->aes, sizeof v->aes);
    add(t, CKA_VALUE_LEN, &v->value_len, sizeof v->value_len);
    add_use(t, v, CKA_WRAP, !v->encrypts, demand);
    add_use(t, v, CKA_UNWRAP, !v->encrypts, demand);
    add_use(t, v, CKA_ENCRYPT, v->encrypts, demand);
    add_use(t, v, CKA_DECRYPT, v->encrypts, demand);
    add_use(t, v, CKA_SIGN, 0, demand);
    add_use(t, v, CKA_VERIFY, 0, demand);
    add_use(t, v, CKA_DERIVE, 0, demand);
}

static CK_RV
generate_call(struct p11_session *s, struct values *v, const struct p11_generate *what, enum demand demand)
{
    int rsa = what->kind == P11_RSA3072 || what->kind == P11_RSA4096;
    CK_MECHANISM mechanism = {.mechanism = rsa ? CKM_RSA_PKCS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN};
    struct template public;
    struct template private;
    CK_OBJECT_HANDLE public_object = 0;
    CK_OBJECT_HANDLE object = 0;

    if (what->kind == P11_AES256) {
        mechanism.mechanism = CKM_AES_KEY_GEN;
        fill_secret(&private, v, what, demand);
        return P11_CALL(&s->port, C_GenerateKey, s->handle, &mechanism, private.at, private.count, &object);
    }
    fill_public(&public, v, what, demand);
    fill_private(&private, v, what, demand);
    return P11_CALL(&s->port, C_GenerateKeyPair, s->handle, &mechanism, public.at, public.count, private.at,
                    private.count, &public_object, &object);
}

/* All that has the id and the label; the first failure is told, the rest is removed all the same. */
static enum bk_code
destroy_all(struct p11_session *s, const CK_ATTRIBUTE *label, const CK_ATTRIBUTE *id, struct bk_err *err)
{
    enum bk_code rc = BK_OK;

    for (size_t i = 0; i < P11_CLASSES; i++) {
        struct p11_handles found = {0};
        struct bk_err own = {0};
        enum bk_code one = p11_object_find(s, p11_classes[i].class, label, id, &found, &own);

        for (size_t j = 0; j < found.count; j++)
            if (P11_CALL(&s->port, C_DestroyObject, s->handle, found.at[j]) != CKR_OK)
                one = p11_call_fail(&s->port, &own, "removing a %s", p11_classes[i].name);
        p11_handles_free(&found);
        if (one != BK_OK && rc == BK_OK) {
            rc = one;
            if (err != NULL)
                *err = own;
        }
    }
    return rc;
}

static enum bk_code
generate_any(struct p11_session *s, struct values *v, const struct p11_generate *what, struct bk_err *err)
{
    CK_ATTRIBUTE id = {CKA_ID, v->id, sizeof v->id};
    enum bk_code rc = BK_E_INTERNAL;

    v->yes = CK_TRUE;
    v->no = CK_FALSE;
    v->lasting = what->passing ? CK_FALSE : CK_TRUE;
    v->secret_class = CKO_SECRET_KEY;
    v->aes = CKK_AES;
    v->bits = what->kind == P11_RSA4096 ? 4096 : 3072;
    v->value_len = 32;
    memcpy(v->exponent, (const CK_BYTE[]){1, 0, 1}, 3);
    /* 74 random bits, since a token may replace a key whose id another one repeats; and the time, which auditors ask
     * for and of which tokens keep no other record: SoftHSM 2.6.1 takes a CKA_START_DATE and cannot tell it again */
    if (bk_uuid_v7(v->id, err) != BK_OK)
        return BK_E_INTERNAL;
    for (enum demand demand = ALL; rc != BK_OK && demand < (what->sealed ? ALL + 1 : DEMANDS); demand++) {
        CK_RV rv = generate_call(s, v, what, demand);

        rc = rv == CKR_OK ? BK_OK : p11_call_fail_own(&s->port, err, "making the key");
        /* a TPM's module answers CKR_GENERAL_ERROR to a use that it does not expect */
        if (rv != CKR_OK && p11_rv_is_vague(rv))
            (void)destroy_all(s, &v->label, &id, NULL); /* the half that may have been made */
        else if (rv != CKR_OK && !p11_rv_is_parameter(rv))
            break;
    }
    return rc;
}

static enum bk_code
check_label_free(struct p11_session *s, const CK_ATTRIBUTE *label, struct bk_err *err)
{
    char text[80];

    p11_text_field(text, sizeof text, label->pValue, label->ulValueLen);
    for (size_t i = 0; i < P11_CLASSES; i++) {
        struct p11_handles found = {0};
        enum bk_code rc = p11_object_find(s, p11_classes[i].class, label, NULL, &found, err);
        size_t count = found.count;

        p11_handles_free(&found);
        if (rc != BK_OK)
            return rc;
        if (count > 0) {
            rc = bk_fail(err, BK_E_USAGE, "%s: a %s with the label '%s' is there already", s->port.where,
                         p11_classes[i].name, text);
            bk_err_hint(err, "choose another object=, for instance with the year in it; two keys of one label cannot "
                             "be told apart");
            return rc;
        }
    }
    return BK_OK;
}

static void
undo(struct p11_token *t, const struct values *v)
{
    CK_ATTRIBUTE id = {CKA_ID, (void *)(uintptr_t)v->id, sizeof v->id};
    struct p11_session s = {0};
    struct bk_err why = {0};
    enum bk_code rc = p11_token_login(t, NULL, &why);

    if (rc == BK_OK)
        rc = p11_session_open(&s, t, &why);
    if (rc == BK_OK)
        rc = destroy_all(&s, &v->label, &id, &why);
    p11_session_close(&s);
    if (rc != BK_OK)
        bk_warn(t->owner->options.log, "a key that failed its trial is left on the token: %s", why.message);
}

/* What is weaker than asked for, and can still be wanted. */
static void
warn_guarded(struct p11_key *key)
{
    struct p11_session *s = &key->session;
    const struct bk_log *log = key->owner->options.log;

    if (p11_object_bool(s, key->handle, CKA_MODIFIABLE) == 1)
        bk_warn(log, "%s: attributes of the new key can be changed (CKA_MODIFIABLE is true)", s->port.where);
    if (key->traits.is_private == 0 && key->traits.trusted != 1)
        bk_warn(log, "%s: the new key can be used without a login (CKA_PRIVATE is false)", s->port.where);
    if (key->traits.class == CKO_SECRET_KEY && key->traits.can_decrypt == 1 && key->traits.can_unwrap == 1)
        bk_warn(log,
                "%s: the new key may also decrypt (CKA_DECRYPT is true), so whoever can log in reads what a blind "
                "rotation keeps from the host",
                s->port.where);
}

/* What the token says of the new key: a contradiction is an error, silence a warning. */
static enum bk_code
check_guarded(struct p11_key *key, const struct p11_generate *what, struct bk_err *err)
{
    struct p11_session *s = &key->session;
    int sensitive = p11_object_bool(s, key->handle, CKA_SENSITIVE);
    int extractable = p11_object_bool(s, key->handle, CKA_EXTRACTABLE);
    int lasting = p11_object_bool(s, key->handle, CKA_TOKEN);

    if (sensitive == 0 || extractable == 1 || (!what->passing && lasting == 0))
        return bk_fail(err, BK_E_UNSUPPORTED,
                       "%s: the token made a key that is not sensitive, or extractable, or not "
                       "lasting, against what was asked",
                       s->port.where);
    if (what->passing)
        return p11_object_check(s, err);
    if (sensitive < 0 || extractable < 0)
        bk_warn(key->owner->options.log,
                "%s: the token does not say whether the new key is sensitive and unextractable", s->port.where);
    warn_guarded(key);
    return p11_object_check(s, err);
}

/* Finds the new key as any later run will, by class, label and id; takes s over. */
static enum bk_code
adopt(struct p11_session *s, struct values *v, const struct p11_generate *what, struct p11_key **out,
      struct bk_err *err)
{
    CK_OBJECT_CLASS class = what->kind == P11_AES256 ? CKO_SECRET_KEY : CKO_PRIVATE_KEY;
    CK_ATTRIBUTE id = {CKA_ID, v->id, sizeof v->id};
    struct p11_handles found = {0};
    struct p11_traits t = {0};
    enum p11_use use = what->signing ? P11_USE_SIGN : P11_USE_UNWRAP;
    const char *unfit;
    enum bk_code rc = p11_object_find(s, class, &v->label, &id, &found, err);

    if (rc == BK_OK && found.count != 1)
        rc = bk_fail(err, BK_E_TOKEN, "%s: the key was made, but is found %zu times", s->port.where, found.count);
    if (rc == BK_OK)
        rc = p11_traits_read(s, found.at[0], class, &t, err);
    if (rc == BK_OK && (unfit = p11_key_unfit(&t, use)) != NULL)
        rc = bk_fail(err, BK_E_UNSUPPORTED, "%s: the new key %s", s->port.where, unfit);
    if (rc == BK_OK)
        rc = p11_key_make(s, found.at[0], &t, use, out, err);
    p11_handles_free(&found);
    return rc;
}

enum bk_code
p11_generate_on(struct p11_token *t, const CK_ATTRIBUTE *label, const struct p11_generate *what, int encrypts,
                struct p11_key **out, struct bk_err *err)
{
    struct values v = {.label = *label, .encrypts = encrypts};
    struct p11_session s = {0};
    struct p11_key *key = NULL;
    enum bk_code rc;

    rc = what->passing ? p11_session_open_own(&s, t, err) : p11_session_open(&s, t, err);
    if (rc != BK_OK)
        return rc;
    if ((rc = check_label_free(&s, &v.label, err)) != BK_OK)
        goto done;
    if ((rc = generate_any(&s, &v, what, err)) != BK_OK)
        goto done;
    if ((rc = adopt(&s, &v, what, &key, err)) == BK_OK)
        rc = check_guarded(key, what, err);
    /* what the token keeps from its users it may well grant to its security officer */
    if (rc == BK_OK && what->sealed)
        rc = p11_token_logout(t, err);
    if (rc == BK_OK && !what->passing)
        rc = p11_key_prove(key, what->signing, err);
    if (rc == BK_OK && what->sealed && !key->base.pub.sealed)
        rc = bk_fail(err, BK_E_UNSUPPORTED, "%s: the token does not enforce that what the key opens stays in it",
                     t->where);
    else if (rc == BK_OK && encrypts)
        key->base.pub.scheme = BK_SCHEME_AES_GCM;
    if (rc == BK_OK) {
        *out = key;
        key = NULL;
    } else if (!what->passing) {
        undo(t, &v);
    }
done:
    if (key != NULL)
        bk_key_close(&key->base);
    p11_session_close(&s);
    return rc;
}

enum bk_code
p11_generate_best(struct p11_token *t, const CK_ATTRIBUTE *label, const struct p11_generate *what, struct p11_key **out,
                  struct bk_err *err)
{
    struct bk_err first = {0};
    enum bk_code rc = p11_generate_on(t, label, what, 0, out, &first);

    if (what->kind == P11_AES256 && !what->sealed && (rc == BK_E_UNSUPPORTED || rc == BK_E_TOKEN) &&
        p11_generate_on(t, label, what, 1, out, NULL) == BK_OK) {
        if ((*out)->base.pub.scheme == BK_SCHEME_AES_GCM)
            bk_warn(t->owner->options.log,
                    "AES key wrap does not work here, so that the new key wraps by AES-GCM in the token, and cannot "
                    "rotate blind: %s",
                    first.message);
        return BK_OK;
    }
    if (rc != BK_OK && err != NULL)
        *err = first;
    return rc;
}

enum bk_code
p11_token_generate(struct p11_token *t, const struct p11_uri *uri, const struct p11_generate *what, struct bk_key **out,
                   struct bk_err *err)
{
    struct p11_key *key = NULL;
    enum bk_code rc = what->sealed ? p11_token_login_officer(t, uri, err) : p11_token_login(t, uri, err);

    if (rc == BK_OK)
        rc = p11_generate_best(t, p11_uri_attribute(uri, CKA_LABEL), what, &key, err);
    if (rc == BK_OK) {
        p11_key_park(key);
        *out = &key->base;
    }
    return rc;
}

static enum bk_code
destroy_step(struct p11_key *key, void *args, struct bk_err *err)
{
    CK_ATTRIBUTE label = p11_traits_label(&key->traits);
    CK_ATTRIBUTE id = p11_traits_id(&key->traits);

    (void)args;
    return destroy_all(&key->session, &label, &id, err);
}

enum bk_code
p11_key_destroy(struct bk_key *base, struct bk_err *err)
{
    struct p11_key *key = p11_key_of(base);

    /* without an id, or with one that others may share, more than this key would go */
    if (key == NULL || key->traits.id_len < BK_KEY_ID_MIN || key->traits.label_len == 0)
        return bk_fail(err, BK_E_UNSUPPORTED, "only a key with a label and an id of its own can be removed");
    return p11_key_run(key, destroy_step, NULL, err);
}
