#include "pkcs11/uri.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>

#include "pkcs11/p11.h"

#define SCHEME     "pkcs11:"
#define SCHEME_LEN 7

/* RFC 7512 section 2.3. slot-id is refused by name: slots are renumbered (docs/TOKENS.md, rule 1). */
static const char *const path_names[] = {"token",
                                         "manufacturer",
                                         "serial",
                                         "model",
                                         "object",
                                         "type",
                                         "id",
                                         "library-manufacturer",
                                         "object-type",
                                         "library-description",
                                         "library-version",
                                         "slot-manufacturer",
                                         "slot-description",
                                         NULL};
static const char *const query_names[] = {"pin-source", "pin-value", "module-name", "module-path", NULL};

int
p11_is_uri(const char *text)
{
    return strncasecmp(text, SCHEME, SCHEME_LEN) == 0;
}

static int
name_index(const char *const *names, const char *at, size_t len)
{
    for (int i = 0; names[i] != NULL; i++)
        if (strlen(names[i]) == len && strncmp(names[i], at, len) == 0)
            return i;
    return -1;
}

/* A PIN cannot hold a zero byte on its way through p11-kit: it would be cut there and counted as a wrong PIN. */
static enum bk_code
check_value(const char *value, size_t len, struct bk_err *err)
{
    for (size_t i = 0; i + 2 < len; i++)
        if (memcmp(value + i, "%00", 3) == 0)
            return bk_fail(err, BK_E_USAGE, "PKCS#11 URI: a zero byte (%%00) after the '?'");
    return BK_OK;
}

/* A PIN before the '?' (for which somebody wrote '&' or ';') would be taken for a part of a name, and shown with it. */
static enum bk_code
check_misplaced_pin(const char *at, size_t len, struct bk_err *err)
{
    static const char *const names[] = {"pin-value=", "pin-source="};

    for (size_t i = 0; i < 2; i++)
        if (memmem(at, len, names[i], strlen(names[i])) != NULL)
            return bk_fail(err, BK_E_USAGE, "PKCS#11 URI: %s stands after a '?', not before it", names[i]);
    return BK_OK;
}

/* One part, attributes between separators. Values are never shown: one of them may be a PIN. */
static enum bk_code
check_part(const char *at, size_t len, char separator, const char *const *names, int query, struct bk_err *err)
{
    unsigned seen = 0;

    for (size_t number = 1; len > 0; number++) {
        const char *end = memchr(at, separator, len);
        size_t item = end == NULL ? len : (size_t)(end - at);
        const char *equals = memchr(at, '=', item);
        size_t name = equals == NULL ? item : (size_t)(equals - at);
        int index = name_index(names, at, name);
        enum bk_code rc;

        /* p11-kit stops reading at the first one, and takes what it has for all that was asked for */
        if (item == 0 || (end != NULL && item + 1 == len))
            return bk_fail(err, BK_E_USAGE, "PKCS#11 URI: an attribute is empty: a '%c' too many", separator);
        if (!query && name == 7 && memcmp(at, "slot-id", 7) == 0)
            return bk_fail(err, BK_E_USAGE,
                           "PKCS#11 URI: slot-id= is refused, since slots are renumbered; name the "
                           "token by token= or serial=");
        if (!query && (rc = check_misplaced_pin(at, item, err)) != BK_OK)
            return rc;
        if (index < 0 || equals == NULL) {
            if (query)
                return bk_fail(err, BK_E_USAGE,
                               "PKCS#11 URI: attribute %zu after the '?' is not pin-source=, "
                               "pin-value=, module-name= or module-path=",
                               number);
            return bk_fail(err, BK_E_USAGE, "PKCS#11 URI: unknown attribute '%.*s'", (int)(name < 40 ? name : 40), at);
        }
        if ((seen & 1U << index) != 0)
            return bk_fail(err, BK_E_USAGE, "PKCS#11 URI: %s= is given twice", names[index]);
        seen |= 1U << index;
        if (query && check_value(equals, item - name, err) != BK_OK)
            return BK_E_USAGE;
        at += item + (end != NULL);
        len -= item + (end != NULL);
    }
    return BK_OK;
}

/* p11-kit drops blanks, unknown names after the '?' and repeated names without a word (docs/TOKENS.md, rule 12). */
static enum bk_code
check_form(const char *text, size_t *path_len, struct bk_err *err)
{
    size_t len = strlen(text);
    size_t path;
    enum bk_code rc;

    if (!p11_is_uri(text))
        return bk_fail(err, BK_E_USAGE, "not a PKCS#11 URI: it does not begin with \"pkcs11:\"");
    if (len > P11_URI_MAX)
        return bk_fail(err, BK_E_USAGE, "PKCS#11 URI: longer than %d bytes", P11_URI_MAX);
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return bk_fail(err, BK_E_USAGE, "PKCS#11 URI: byte %zu must be percent-encoded (a blank is %%20)", i + 1);
    path = strcspn(text, "?");
    if ((rc = check_part(text + SCHEME_LEN, path - SCHEME_LEN, ';', path_names, 0, err)) != BK_OK)
        return rc;
    *path_len = path;
    if (text[path] == '\0')
        return BK_OK;
    return check_part(text + path + 1, len - path - 1, '&', query_names, 1, err);
}

/* Takes the PIN out of p11-kit's ordinary memory. */
static enum bk_code
take_pin(struct p11_uri *uri, struct bk_err *err)
{
    const char *pin = p11_kit_uri_get_pin_value(uri->kit);
    enum bk_code rc = BK_OK;

    if (pin == NULL)
        return BK_OK;
    rc = bk_secret_from(&uri->pin_value, pin, strlen(pin), err);
    /* p11-kit would free the bytes without wiping them; the pointer is to its own writable copy */
    OPENSSL_cleanse((char *)(uintptr_t)pin, strlen(pin));
    p11_kit_uri_set_pin_value(uri->kit, NULL);
    return rc;
}

static enum bk_code
parse_kit(struct p11_uri *uri, const char *text, struct bk_err *err)
{
    int kit_rc;

    uri->kit = p11_kit_uri_new();
    if (uri->kit == NULL)
        return bk_fail_nomem(err);
    kit_rc = p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri->kit);
    if (kit_rc == P11_KIT_URI_NO_MEMORY)
        return bk_fail_nomem(err);
    if (kit_rc != P11_KIT_URI_OK)
        return bk_fail(err, BK_E_USAGE, "PKCS#11 URI %s: %s", uri->text,
                       kit_rc == P11_KIT_URI_BAD_ENCODING ? "a '%' is not followed by two hex digits"
                                                          : "the syntax is wrong (RFC 7512)");
    /* such a URI would match everything, or nothing */
    if (p11_kit_uri_any_unrecognized(uri->kit))
        return bk_fail(err, BK_E_USAGE,
                       "PKCS#11 URI %s: a value that no token can have (too long, or an unknown type=)", uri->text);
    if (p11_kit_uri_get_pin_value(uri->kit) != NULL && p11_kit_uri_get_pin_value(uri->kit)[0] == '\0')
        return bk_fail(err, BK_E_USAGE, "PKCS#11 URI: pin-value= is empty");
    uri->module_path = p11_kit_uri_get_module_path(uri->kit);
    uri->module_name = p11_kit_uri_get_module_name(uri->kit);
    uri->pin_source = p11_kit_uri_get_pin_source(uri->kit);
    return BK_OK;
}

/* All but the PIN, which stays in p11-kit's memory. *uri is the caller's to free on failure too. */
static enum bk_code
parse_names(struct p11_uri *uri, const char *text, struct bk_err *err)
{
    size_t path_len = 0;
    enum bk_code rc;

    if ((rc = check_form(text, &path_len, err)) != BK_OK)
        return rc;
    uri->text = strndup(text, path_len);
    return uri->text == NULL ? bk_fail_nomem(err) : parse_kit(uri, text, err);
}

enum bk_code
p11_uri_parse(struct p11_uri *out, const char *text, struct bk_err *err)
{
    struct p11_uri uri = {0};
    enum bk_code rc = parse_names(&uri, text, err);

    if (rc == BK_OK)
        rc = take_pin(&uri, err);
    if (rc != BK_OK) {
        p11_uri_free(&uri);
        return rc;
    }
    *out = uri;
    return BK_OK;
}

enum bk_code
p11_uri_make(struct p11_uri *out, const char *text, const char *pin_source, const struct bk_secret *pin,
             struct bk_err *err)
{
    struct p11_uri uri = {0};
    enum bk_code rc = parse_names(&uri, text, err);

    if (rc == BK_OK && pin_source != NULL) {
        p11_kit_uri_set_pin_source(uri.kit, pin_source);
        uri.pin_source = p11_kit_uri_get_pin_source(uri.kit);
        if (uri.pin_source == NULL)
            rc = bk_fail_nomem(err);
    }
    if (rc == BK_OK && pin->data != NULL)
        rc = bk_secret_from(&uri.pin_value, pin->data, pin->len, err);
    if (rc != BK_OK) {
        p11_uri_free(&uri);
        return rc;
    }
    *out = uri;
    return BK_OK;
}

void
p11_uri_free(struct p11_uri *uri)
{
    bk_secret_wipe(&uri->pin_value);
    if (uri->kit != NULL) {
        const char *pin = p11_kit_uri_get_pin_value(uri->kit);

        if (pin != NULL)
            OPENSSL_cleanse((char *)(uintptr_t)pin, strlen(pin));
        p11_kit_uri_free(uri->kit);
    }
    free(uri->text);
    *uri = (struct p11_uri){0};
}

/* module-name is the configured name, or the file's name without folder, "lib" and ".so" (RFC 7512 section 2.3). */
int
p11_uri_names_module(const struct p11_uri *uri, const char *name, const char *file)
{
    const char *wanted = uri->module_name;
    const char *base;
    size_t len;

    if (wanted == NULL || strcmp(name, wanted) == 0)
        return 1;
    if (file == NULL)
        return 0;
    base = strrchr(file, '/');
    base = base == NULL ? file : base + 1;
    len = strlen(wanted);
    if (strncmp(base, wanted, len) != 0 && strncmp(base, "lib", 3) == 0)
        base += 3;
    return strncmp(base, wanted, len) == 0 && (base[len] == '\0' || strncmp(base + len, ".so", 3) == 0);
}

const CK_ATTRIBUTE *
p11_uri_attribute(const struct p11_uri *uri, CK_ATTRIBUTE_TYPE type)
{
    return p11_kit_uri_get_attribute(uri->kit, type);
}

CK_OBJECT_CLASS
p11_uri_class(const struct p11_uri *uri, CK_OBJECT_CLASS fallback)
{
    const CK_ATTRIBUTE *a = p11_uri_attribute(uri, CKA_CLASS);
    CK_OBJECT_CLASS found = fallback;

    if (a != NULL && a->ulValueLen == sizeof found)
        memcpy(&found, a->pValue, sizeof found);
    return found;
}

enum bk_code
p11_uri_hint(const CK_TOKEN_INFO *token, const CK_ATTRIBUTE *label, const CK_ATTRIBUTE *id, char **out,
             struct bk_err *err)
{
    P11KitUri *kit = p11_kit_uri_new();
    const CK_ATTRIBUTE *object = label != NULL && label->ulValueLen > 0 ? label : id;
    enum bk_code rc = BK_OK;
    CK_TOKEN_INFO *info;
    char *made = NULL;

    if (kit == NULL)
        return bk_fail_nomem(err);
    info = p11_kit_uri_get_token_info(kit);
    memcpy(info->label, token->label, sizeof info->label);
    memcpy(info->serialNumber, token->serialNumber, sizeof info->serialNumber);
    if (object != NULL) {
        CK_ATTRIBUTE copy = *object; /* p11-kit takes the bytes, not the struct */

        if (p11_kit_uri_set_attribute(kit, &copy) != P11_KIT_URI_OK)
            rc = bk_fail_nomem(err);
    }
    if (rc == BK_OK && p11_kit_uri_format(kit, P11_KIT_URI_FOR_OBJECT_ON_TOKEN, &made) != P11_KIT_URI_OK)
        rc = bk_fail_nomem(err);
    p11_kit_uri_free(kit);
    if (rc == BK_OK)
        *out = made;
    return rc;
}

enum bk_code
p11_uri_check(const char *text, struct bk_err *err)
{
    struct p11_uri uri = {0};
    /* command lines are checked before there is protected memory for a PIN */
    enum bk_code rc = parse_names(&uri, text, err);

    p11_uri_free(&uri);
    return rc;
}

/* Looks for "name=" at the start of an attribute, without parsing: these answer for URIs not checked yet, too. */
static int
has_attribute(const char *text, char separator, const char *name)
{
    size_t len = strlen(name);

    for (; text != NULL; text = strchr(text, separator), text = text == NULL ? NULL : text + 1)
        if (strncmp(text, name, len) == 0 && text[len] == '=')
            return 1;
    return 0;
}

int
p11_uri_names_object(const char *text)
{
    char path[P11_URI_MAX + 1];
    size_t len = strcspn(text, "?");

    if (!p11_is_uri(text) || len > P11_URI_MAX)
        return 0;
    memcpy(path, text, len);
    path[len] = '\0';
    return has_attribute(path + SCHEME_LEN, ';', "object") || has_attribute(path + SCHEME_LEN, ';', "id") ||
           has_attribute(path + SCHEME_LEN, ';', "type") || has_attribute(path + SCHEME_LEN, ';', "object-type");
}

int
p11_uri_has_pin_value(const char *text)
{
    const char *query = strchr(text, '?');

    return p11_is_uri(text) && query != NULL && has_attribute(query + 1, '&', "pin-value");
}

int
p11_uri_same_token(const char *a, const char *b)
{
    struct p11_uri left = {0};
    struct p11_uri right = {0};
    int same = 0;

    if (p11_uri_parse(&left, a, NULL) == BK_OK && p11_uri_parse(&right, b, NULL) == BK_OK) {
        const CK_TOKEN_INFO *one = p11_kit_uri_get_token_info(left.kit);
        const CK_TOKEN_INFO *other = p11_kit_uri_get_token_info(right.kit);

        same = memcmp(one->label, other->label, sizeof one->label) == 0 &&
               memcmp(one->serialNumber, other->serialNumber, sizeof one->serialNumber) == 0;
    }
    p11_uri_free(&left);
    p11_uri_free(&right);
    return same;
}
