/* PKCS#11 URIs, and the hints of records: a PIN is never in a message, and never in a hint. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "format/record.h"
#include "pkcs11/uri.h"
#include "pkcs11/p11.h"
#include "tests/fuzz/fuzz.h"

/* The PIN in a query, or NULL: what stands behind pin-value= at the beginning of an attribute. */
static char *
pin_of(char *text)
{
    char *at = strchr(text, '?');

    for (; at != NULL; at = strchr(at + 1, '&'))
        if (strncmp(at + 1, "pin-value=", strlen("pin-value=")) == 0)
            return at + 1 + strlen("pin-value=");
    return NULL;
}

/* With another PIN of the same form, letter for letter and digit for digit, the answer is the same to the byte: so
 * nothing of the PIN is in it. */
static void
answer_without_pin(const char *text, const struct bk_err *err)
{
    char *other = fuzz_text((const uint8_t *)text, strlen(text)), *at = pin_of(other);
    struct bk_err err_other = {0};

    for (; at != NULL && *at != '\0' && *at != '&'; at++) {
        if (*at == '%' && isxdigit((unsigned char)at[1]) && isxdigit((unsigned char)at[2]))
            at += 2; /* an encoded byte stays what it is */
        else if ((*at >= 'a' && *at < 'z') || (*at >= 'A' && *at < 'Z') || (*at >= '0' && *at < '9'))
            (*at)++;
    }
    fuzz_hold(p11_uri_check(other, &err_other) == err->code);
    fuzz_same_answer(err, &err_other);
    free(other);
}

static void
parse(const char *text)
{
    struct p11_uri uri = {0};
    struct bk_err err = {0}, err_twice = {0};
    enum bk_code rc = p11_uri_parse(&uri, text, &err);
    size_t path = strcspn(text, "?");

    fuzz_answer(rc, &err);
    fuzz_hold(rc == BK_OK || rc == BK_E_USAGE);
    answer_without_pin(text, &err);
    fuzz_hold(p11_uri_check(text, &err_twice) == rc);
    fuzz_same_answer(&err, &err_twice);
    if (rc == BK_OK) {
        fuzz_hold(p11_is_uri(text));
        fuzz_hold(strlen(uri.text) == path && strncmp(uri.text, text, path) == 0);
        fuzz_hold(p11_uri_has_pin_value(text) == (uri.pin_value.len > 0));
        fuzz_hold(uri.pin_value.len == 0 || memchr(uri.pin_value.data, 0, uri.pin_value.len) == NULL);
        (void)p11_uri_class(&uri, CKO_PUBLIC_KEY);
        (void)p11_uri_attribute(&uri, CKA_LABEL);
        fuzz_accepted();
    } else {
        fuzz_hold(uri.kit == NULL && uri.text == NULL && uri.pin_value.data == NULL);
    }
    p11_uri_free(&uri);
    (void)p11_uri_names_object(text);
    (void)p11_uri_has_pin_value(text);
}

/* What may stand in a record, where everybody reads it. */
static void
as_hint(const char *text)
{
    struct p11_uri uri = {0};
    struct bk_err err = {0};

    if (!bk_hint_uri_valid(text) || p11_uri_parse(&uri, text, &err) != BK_OK)
        return;
    fuzz_hold(uri.pin_value.len == 0 && uri.pin_source == NULL);
    fuzz_hold(uri.module_path == NULL && uri.module_name == NULL);
    p11_uri_free(&uri);
}

/* A hint made from what a token says of itself is one that records take, and that bk reads again. */
static void
make_hint(const uint8_t *data, size_t size)
{
    CK_TOKEN_INFO token;
    uint8_t *copy = fuzz_copy(data, size);
    CK_ATTRIBUTE label = {CKA_LABEL, copy, size}, id = {CKA_ID, copy, size};
    struct bk_err err = {0};
    char *hint = NULL;

    memset(&token, ' ', sizeof token);
    memcpy(token.label, data, size < sizeof token.label ? size : sizeof token.label);
    memcpy(token.serialNumber, data, size < sizeof token.serialNumber ? size : sizeof token.serialNumber);
    fuzz_must(p11_uri_hint(&token, &label, &id, &hint, &err), &err);
    if (strlen(hint) <= P11_URI_MAX && memchr(data, 0, size) == NULL)
        fuzz_hold(strlen(hint) > BK_TEXT_MAX || bk_hint_uri_valid(hint));
    free(hint);
    free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);

    parse(text);
    as_hint(text);
    if (size <= 64)
        make_hint(data, size);
    free(text);
    return 0;
}
