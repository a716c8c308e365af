#include "tests/fuzz/repair.h"

#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "format/preamble.h"
#include "format/slot.h"
#include "format/tail.h"
#include "format/tlv.h"
#include "tests/fuzz/fuzz.h"

#define SIGNATURE_TRIES 64 /* the length of an ECDSA signature varies by a few bytes */

void
fuzz_repair_preamble(uint8_t *data, size_t len)
{
    if (len == BK_PREAMBLE_LEN)
        bk_sha256(data, BK_PREAMBLE_LEN - BK_SHA256_LEN, data + BK_PREAMBLE_LEN - BK_SHA256_LEN);
}

void
fuzz_repair_slot(uint8_t *data, size_t len)
{
    uint64_t contents;

    if (len < BK_SLOT_HEADER)
        return;
    contents = (uint64_t)bk_get_u32(data + 16) + bk_get_u32(data + 20);
    if (contents <= len - BK_SLOT_HEADER)
        bk_sha256_2(data, 32, data + BK_SLOT_HEADER, (size_t)contents, data + 32);
}

void
fuzz_repair_tail(uint8_t *data, size_t len)
{
    if (len == BK_TAIL_LEN)
        bk_sha256(data, 32, data + 32);
}

/* Into the next element with that tag, which is taken off the front of in. */
static int
enter(struct bk_tlv *in, uint8_t tag, struct bk_tlv *inside)
{
    return bk_tlv_take(in, tag, inside);
}

static int
skip(struct bk_tlv *in)
{
    struct bk_tlv ignored;

    return in->len > 0 && bk_tlv_take(in, in->data[0], &ignored);
}

/* The parts of a SignedData that a signature depends on. */
struct parts {
    struct bk_tlv content;
    struct bk_tlv certificates; /* one after the other */
    struct bk_tlv signers;
};

static int
find_parts(struct bk_tlv in, struct parts *p)
{
    struct bk_tlv info, wrap, data, encap, content;

    return enter(&in, 0x30, &info) && skip(&info) && enter(&info, 0xa0, &wrap) && enter(&wrap, 0x30, &data) &&
           skip(&data) && skip(&data) && enter(&data, 0x30, &encap) && skip(&encap) && enter(&encap, 0xa0, &content) &&
           enter(&content, 0x04, &p->content) && enter(&data, 0xa0, &p->certificates) &&
           enter(&data, 0x31, &p->signers);
}

/* Overwrites an OCTET STRING of 32 bytes at the innermost place of value, if that is what is there. */
static void
set_digest(struct bk_tlv value, const uint8_t digest[BK_SHA256_LEN])
{
    struct bk_tlv inside;

    while (value.len > 0 && (value.data[0] == 0x30 || value.data[0] == 0x31)) {
        if (!enter(&value, value.data[0], &inside))
            return;
        value = inside;
    }
    if (enter(&value, 0x04, &inside) && inside.len == BK_SHA256_LEN)
        memcpy((uint8_t *)(uintptr_t)inside.data, digest, BK_SHA256_LEN); /* data is the caller's, and writable */
}

static void
set_attributes(struct bk_tlv attributes, const uint8_t content[BK_SHA256_LEN], const uint8_t cert[BK_SHA256_LEN])
{
    static const uint8_t message_digest[] = {0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04};
    struct bk_tlv attribute, type;

    while (enter(&attributes, 0x30, &attribute)) {
        if (!enter(&attribute, 0x06, &type))
            continue;
        if (type.len == sizeof message_digest && memcmp(type.data, message_digest, type.len) == 0)
            set_digest(attribute, content);
        else if (type.len == 11 && type.data[10] == 0x2f)
            set_digest(attribute, cert);
    }
}

/* RFC 5652 5.4: the SET OF with its own tag is what is signed. */
static void
sign(struct bk_tlv attributes, struct bk_tlv signature)
{
    static const uint8_t set_tag = 0x31;
    const struct bk_signing_key *signer = fuzz_signer();
    uint8_t digest[BK_SHA256_LEN], made[BK_SIGNATURE_MAX];
    size_t len = 0;
    struct bk_err err;

    bk_sha256_2(&set_tag, 1, attributes.data + 1, attributes.len - 1, digest);
    for (int i = 0; i < SIGNATURE_TRIES && len != signature.len; i++) {
        len = sizeof made;
        fuzz_must(bk_key_sign(signer->key, digest, made, &len, &err), &err);
    }
    if (len == signature.len)
        memcpy((uint8_t *)(uintptr_t)signature.data, made, len);
}

static void
repair_signer(struct bk_tlv signer, const uint8_t content[BK_SHA256_LEN], const uint8_t cert[BK_SHA256_LEN])
{
    struct bk_tlv attributes, inside, signature;

    if (!skip(&signer) || !skip(&signer) || !skip(&signer))
        return;
    attributes.data = signer.data;
    if (!enter(&signer, 0xa0, &inside))
        return;
    attributes.len = (size_t)(signer.data - attributes.data);
    set_attributes(inside, content, cert);
    if (skip(&signer) && enter(&signer, 0x04, &signature))
        sign(attributes, signature);
}

void
fuzz_repair_signed(uint8_t *data, size_t len)
{
    struct parts p = {0};
    struct bk_tlv signer;
    uint8_t content[BK_SHA256_LEN], cert[BK_SHA256_LEN];

    if (!find_parts((struct bk_tlv){data, len}, &p))
        return;
    bk_sha256(p.content.data, p.content.len, content);
    while (enter(&p.signers, 0x30, &signer)) {
        const uint8_t *start = p.certificates.data;

        if (!skip(&p.certificates))
            return;
        bk_sha256(start, (size_t)(p.certificates.data - start), cert);
        repair_signer(signer, content, cert);
    }
}

size_t
fuzz_mutate_der_or_bytes(uint8_t *data, size_t size, size_t max_size, struct fuzz_random *r)
{
    size_t len = fuzz_below(r, 2) == 0 ? fuzz_der_mutate(data, size, max_size, r) : 0;

    return len > 0 ? len : LLVMFuzzerMutate(data, size, max_size);
}
