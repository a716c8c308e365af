/* PEM files: what is taken is written and read again as the same keys. */
#include <stdlib.h>
#include <string.h>

#include "format/pem.h"
#include "format/record.h"
#include "tests/fuzz/fuzz.h"

static void
write_again(const struct bk_pem_key *key)
{
    struct bk_buf text = {0};
    struct bk_pem again = {0};
    struct bk_err err = {0};

    fuzz_must(bk_pem_write(&key->pub, key->cert.len > 0 ? &key->cert : NULL, "again", &text, &err), &err);
    fuzz_must(bk_pem_parse((const char *)text.data, text.len, &again, &err), &err);
    fuzz_hold(again.count == 1 && bk_key_id_equal(&again.keys[0].pub.id, &key->pub.id));
    fuzz_hold(again.keys[0].pub.scheme == key->pub.scheme && again.keys[0].pub.type == key->pub.type);
    fuzz_hold((again.keys[0].pub.uri == NULL) == (key->pub.uri == NULL));
    fuzz_hold(key->pub.uri == NULL || strcmp(again.keys[0].pub.uri, key->pub.uri) == 0);
    fuzz_hold(again.keys[0].cert.len == key->cert.len);
    fuzz_hold(key->cert.len == 0 || memcmp(again.keys[0].cert.data, key->cert.data, key->cert.len) == 0);
    bk_pem_free(&again);
    bk_buf_free(&text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_pem pem = {0}, twice = {0};
    struct bk_err err = {0}, err_twice = {0};
    char *copy = (char *)fuzz_copy(data, size);
    enum bk_code rc = bk_pem_parse(copy, size, &pem, &err);

    /* a file that the caller named: a mistake of configuration, or a key that policy refuses */
    fuzz_answer(rc, &err);
    fuzz_hold(rc == BK_OK || rc == BK_E_USAGE || rc == BK_E_POLICY);
    fuzz_hold(bk_pem_parse(copy, size, &twice, &err_twice) == rc);
    fuzz_same_answer(&err, &err_twice);
    fuzz_hold(twice.count == pem.count);
    bk_pem_free(&twice);
    fuzz_hold((rc == BK_OK) == (pem.count > 0));
    for (size_t i = 0; i < pem.count; i++) {
        fuzz_hold(pem.keys[i].pub.uri == NULL || bk_hint_uri_valid(pem.keys[i].pub.uri));
        write_again(&pem.keys[i]);
    }
    if (rc == BK_OK) {
        fuzz_hold(memmem(copy, size, "PRIVATE KEY-----", 16) == NULL);
        fuzz_accepted();
    }
    bk_pem_free(&pem);
    free(copy);
    return 0;
}
