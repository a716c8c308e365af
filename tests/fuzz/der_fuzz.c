/* The pre-walk, and the strict decoding of every type of bk.asn; the first byte says which. */
#include <stdlib.h>
#include <string.h>

#include "format/algorithms.h"
#include "format/der.h"
#include "format/tlv.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/repair.h"

static const char *const types[] = {"BkHeader",   "RecipientInfo",    "BkTrailer",    "Attributes",
                                    "BkManifest", "BkKeyRecord",      "BkKeyPackage", "BkThreshold",
                                    "SignerInfo", "EncryptedContent", "Custodian",    "OtherRecipient"};

size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random r = fuzz_random_from(seed);

    if (size < 2 || fuzz_below(&r, 32) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    return 1 + fuzz_mutate_der_or_bytes(data + 1, size - 1, max_size - 1, &r);
}

static void
decode(const char *type, const uint8_t *der, size_t len, int walks)
{
    asn1_node node = NULL;
    struct bk_buf again = {0};
    struct bk_err err = {0};
    enum bk_code rc = bk_der_decode(type, der, len, &node, &err);

    fuzz_verdict(rc, &err);
    fuzz_hold(rc != BK_OK || walks);
    if (rc == BK_OK) {
        fuzz_must(bk_der_encode(node, &again, &err), &err);
        fuzz_hold(again.len == len && memcmp(again.data, der, len) == 0);
        fuzz_accepted();
    }
    bk_buf_free(&again);
    bk_der_free(node);
}

/* What else looks at single elements: after the pre-walk, as format/ calls them. */
static void
small_parsers(const uint8_t *der, size_t len)
{
    struct bk_err err = {0};
    struct bk_buf again = {0};
    size_t element = 0;
    time_t t;

    fuzz_must(bk_der_element_length(der, len, &element, &err), &err);
    fuzz_hold(element == len);
    fuzz_verdict(bk_tlv_version(der, len, 1, "it", &err), &err);
    fuzz_hold(bk_alg_to_scheme(der, len) == BK_SCHEME_NONE || !bk_alg_forbidden(der, len));
    (void)bk_alg_to_signature(der, len);
    if (bk_tlv_time(der, len, &t, &err) == BK_OK) {
        fuzz_must(bk_tlv_put_time(&again, t, &err), &err);
        /* the years before 1970 are written for certificates only, and never by bk */
        fuzz_hold(t < 0 || (again.len == len && memcmp(again.data, der, len) == 0));
    }
    bk_buf_free(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bk_err err = {0};
    uint8_t *copy;
    enum bk_code rc;

    if (size < 1)
        return 0;
    copy = fuzz_copy(data + 1, size - 1);
    rc = bk_der_walk(copy, size - 1, "it", &err);
    fuzz_verdict(rc, &err);
    if (rc == BK_OK)
        small_parsers(copy, size - 1);
    decode(types[data[0] % (sizeof types / sizeof types[0])], copy, size - 1, rc == BK_OK);
    free(copy);
    return 0;
}
