/*
 * Writes the inputs that the fuzzers start from: valid structures, made by the code that bk makes them with.
 *
 *     fuzz_seeds FOLDER        then FOLDER/NAME/... for each NAME_fuzz.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "base/hash.h"
#include "base/keywrap.h"
#include "format/algorithms.h"
#include "format/key_package.h"
#include "format/pem.h"
#include "format/slot.h"
#include "format/tlv.h"
#include "tests/fuzz/archive_parts.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_key.h"
#include "worker/wire.h"

static const char *folder;

static void
write_two(const char *name, const char *seed, const void *head, size_t head_len, const void *data, size_t len)
{
    char path[4096];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    (void)mkdir(path, 0777);
    (void)snprintf(path, sizeof path, "%s/%s/%s", folder, name, seed);
    f = fopen(path, "wb");
    if (f == NULL || fwrite(head, 1, head_len, f) != head_len || fwrite(data, 1, len, f) != len || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

static void
write_seed(const char *name, const char *seed, const void *data, size_t len)
{
    write_two(name, seed, "", 0, data, len);
}

/* The same for der_fuzz, whose first byte is the number of the type. */
static void
write_der(const char *name, const char *seed, uint8_t type, const void *data, size_t len)
{
    write_seed(name, seed, data, len);
    write_two("der", seed, &type, 1, data, len);
}

/* ---- archives and what is in them ---- */

static void
write_keys(const char *seed, const struct fuzz_parts *p, const struct bk_buf *slot, int padded)
{
    struct bk_buf envelope = {0}, record = {0};
    struct bk_signed s = {0};
    struct bk_err err;

    (void)p;
    fuzz_hold(fuzz_slot_get(slot, padded, &envelope, &record));
    write_seed("slot", seed, slot->data, slot->len);
    write_der("envelope", seed, 0, envelope.data, envelope.len);
    if (bk_signed_parse(record.data, record.len, BK_CONTENT_KEY_RECORD, &s, &err) == BK_OK) {
        char signed_seed[64];

        (void)snprintf(signed_seed, sizeof signed_seed, "record-%s", seed);
        write_der("signed", signed_seed, 2, record.data, record.len);
        write_der("record", seed, 5, s.content.data, s.content.len);
    } else {
        write_der("record", seed, 5, record.data, record.len);
    }
    bk_signed_free(&s);
    bk_buf_free(&envelope);
    bk_buf_free(&record);
}

static void
write_manifest(const char *seed, const struct fuzz_parts *p)
{
    struct bk_signed s = {0};
    struct bk_err err;
    char signed_seed[64];

    (void)snprintf(signed_seed, sizeof signed_seed, "manifest-%s", seed);
    write_der("signed", signed_seed, 2, p->manifest.data, p->manifest.len);
    fuzz_must(bk_signed_parse(p->manifest.data, p->manifest.len, BK_CONTENT_MANIFEST, &s, &err), &err);
    write_der("manifest", seed, 4, s.content.data, s.content.len);
    bk_signed_free(&s);
}

/* The head of tail_fuzz.c: slotSize / 4096, log2 of segmentSize, size of the file, plaintext length. */
static void
write_tail(const char *seed, const struct fuzz_parts *p, const struct fuzz_plan *plan)
{
    uint8_t head[18] = {(uint8_t)(p->slots[0].len / 4096), 0};

    memcpy(head + 2, p->tail + 24, 8);
    bk_put_u64(head + 10, plan->plain_len);
    write_two("tail", seed, head, sizeof head, p->tail, sizeof p->tail);
}

static void
write_archive(const char *seed, const struct fuzz_plan *plan)
{
    static const uint8_t frames_head[8] = {1};
    struct fuzz_parts p = {0};
    uint8_t *all = malloc(1 << 20);
    size_t len;

    fuzz_hold(all != NULL);
    fuzz_parts_make(&p, plan);
    len = fuzz_parts_join(&p, all, 1 << 20);
    fuzz_hold(len > 0);
    write_seed("archive", seed, all, len);
    write_seed("preamble", seed, p.preamble, sizeof p.preamble);
    write_keys(seed, &p, plan->detached ? &p.sidecar : &p.slots[0], !plan->detached);
    write_manifest(seed, &p);
    write_tail(seed, &p, plan);
    write_two("frames", seed, frames_head, sizeof frames_head, p.frames.data, p.frames.len);
    fuzz_parts_free(&p);
    free(all);
}

static void
write_archives(void)
{
    static const struct {
        const char *seed;
        struct fuzz_plan plan;
    } archives[] = {
        {"empty", {.generation = 1}},
        {"small", {.plain_len = 100, .generation = 1, .words = 1}},
        {"segment", {.plain_len = 4096, .generation = 1, .kind = BK_KIND_INCREMENTAL}},
        {"two", {.plain_len = 5000, .generation = 1, .kind = BK_KIND_WAL}},
        {"rotated", {.plain_len = 4097, .generation = 2, .words = 1}},
        {"detached", {.plain_len = 10, .generation = 1, .detached = 1}},
        {"detached-rotated", {.plain_len = 10, .generation = 2, .detached = 1, .words = 1}},
        {"groups", {.plain_len = 33 * 4096 + 5, .generation = 1, .kind = BK_KIND_SNAPSHOT}},
    };

    for (size_t i = 0; i < sizeof archives / sizeof archives[0]; i++)
        write_archive(archives[i].seed, &archives[i].plan);
}

/* ---- recipients of every kind ---- */

static void
add_recipient(struct bk_envelope *e, const struct bk_secret *cek, enum bk_key_type type, enum bk_scheme scheme)
{
    struct bk_key *key = NULL;
    struct bk_wrapped w = {0};
    struct bk_err err;

    fuzz_must(fake_key_new(type, 0, &key, &err), &err);
    if (type == BK_KEY_AES256) {
        fuzz_must(bk_key_wrap(key, cek, &w, &err), &err);
    } else {
        if (scheme != BK_SCHEME_NONE)
            key->pub.scheme = scheme;
        fuzz_must(bk_public_wrap(&key->pub, cek, &w, &err), &err);
    }
    fuzz_must(bk_envelope_add(e, &w, &err), &err);
    bk_key_close(key);
}

/* Recipients of later versions: an OtherRecipientInfo, and a KEKRecipientInfo of an algorithm that is not known. */
static void
add_unknown(struct bk_envelope *e, const char *hex)
{
    struct bk_recipient *r = &e->recipients[e->recipient_count++];
    uint8_t *at = NULL;
    struct bk_err err;

    r->kind = BK_RECIPIENT_UNKNOWN;
    fuzz_must(bk_buf_extend(&r->raw, strlen(hex) / 2, &at, &err), &err);
    fuzz_hold(bk_unhex(hex, at, strlen(hex) / 2));
}

static void
write_envelopes(void)
{
    struct bk_envelope e = {0};
    struct bk_key_package k = {.signer_count = 1};
    struct bk_secret cek = {0};
    struct bk_buf der = {0};
    struct bk_err err;

    fuzz_must(bk_secret_from(&cek, FUZZ_CEK, sizeof FUZZ_CEK, &err), &err);
    fuzz_must(bk_secret_from(&k.file_key, FUZZ_FILE_KEY, sizeof FUZZ_FILE_KEY, &err), &err);
    memcpy(k.archive_id, FUZZ_ARCHIVE_ID, sizeof k.archive_id);
    k.signers[0].len = BK_SKI_LEN;
    fuzz_must(bk_key_package_seal(&k, &cek, &e, &err), &err);
    add_recipient(&e, &cek, BK_KEY_P256, BK_SCHEME_NONE);
    add_recipient(&e, &cek, BK_KEY_P384, BK_SCHEME_NONE);
    add_recipient(&e, &cek, BK_KEY_AES256, BK_SCHEME_NONE);
    fuzz_must(bk_envelope_encode(&e, &der, &err), &err);
    write_der("envelope", "curves", 0, der.data, der.len);
    add_recipient(&e, &cek, BK_KEY_RSA, BK_SCHEME_NONE);
    add_recipient(&e, &cek, BK_KEY_RSA, BK_SCHEME_RSA_OAEP_SHA1);
    add_unknown(&e, "a4090603550505020200ff");
    add_unknown(&e, "a231020104300604040a0b0c0d301706156983dfbbb4fdda93aaa1ebaad0c199dbacd9b24f7e"
                    "040b0102030405060708090a0b");
    der.len = 0;
    fuzz_must(bk_envelope_encode(&e, &der, &err), &err);
    write_der("envelope", "all", 0, der.data, der.len);
    bk_buf_free(&der);
    bk_key_package_free(&k);
    bk_secret_wipe(&cek);
    bk_envelope_free(&e);
}

/* ---- key packages: DER that is nowhere in the clear but here ---- */

static void
put(struct bk_buf *out, uint8_t tag, const void *data, size_t len)
{
    struct bk_err err;

    fuzz_must(bk_tlv_put(out, tag, data, len, &err), &err);
}

static void
write_package(const char *seed, size_t signers, size_t items)
{
    static const uint8_t version = 1;
    struct bk_buf body = {0}, ids = {0}, metadata = {0}, item = {0}, whole = {0};
    uint8_t id[BK_SKI_LEN] = {0}, suite[BK_OWN_OID_LEN];
    struct bk_err err;

    bk_own_oid(BK_OID_SUITE_1, suite);
    put(&body, BK_TAG_INTEGER, &version, 1);
    put(&body, BK_TAG_OCTET_STRING, FUZZ_ARCHIVE_ID, sizeof FUZZ_ARCHIVE_ID);
    fuzz_must(bk_buf_append(&body, suite, sizeof suite, &err), &err);
    put(&body, BK_TAG_OCTET_STRING, FUZZ_FILE_KEY, sizeof FUZZ_FILE_KEY);
    for (size_t i = 0; i < signers; i++) {
        id[0] = (uint8_t)(i + 1);
        put(&ids, BK_TAG_OCTET_STRING, id, sizeof id);
    }
    put(&body, BK_TAG_SEQUENCE, ids.data, ids.len);
    for (size_t i = 0; i < items; i++) {
        item.len = 0;
        put(&item, BK_TAG_UTF8, "database", 8);
        put(&item, BK_TAG_UTF8, "ord\xc3\xa9rs", i == 0 ? 0 : 7);
        put(&metadata, BK_TAG_SEQUENCE, item.data, item.len);
    }
    if (items > 0)
        put(&body, 0xa0, metadata.data, metadata.len);
    put(&whole, BK_TAG_SEQUENCE, body.data, body.len);
    write_der("package", seed, 6, whole.data, whole.len);
    bk_buf_free(&body);
    bk_buf_free(&ids);
    bk_buf_free(&metadata);
    bk_buf_free(&item);
    bk_buf_free(&whole);
}

/* ---- two signers ---- */

static void
write_two_signers(void)
{
    struct bk_signing_key keys[2] = {*fuzz_signer(), {0}};
    struct bk_buf cert = {0}, der = {0};
    struct bk_key *other = NULL;
    struct bk_err err;

    fuzz_must(fake_key_new(BK_KEY_P384, 1, &other, &err), &err);
    fuzz_must(bk_cert_self_sign(other, "other", 1700000000, 2000000000, &cert, &err), &err);
    keys[1] = (struct bk_signing_key){other, cert.data, cert.len};
    fuzz_must(bk_signed_make((const uint8_t *)"content", 7, BK_CONTENT_MANIFEST, keys, 2, 1800000000, &der, &err),
              &err);
    write_der("signed", "two-signers", 2, der.data, der.len);
    bk_buf_free(&der);
    bk_buf_free(&cert);
    bk_key_close(other);
}

/* ---- certificates, public keys, PEM ---- */

static void
write_key(const char *seed, enum bk_key_type type)
{
    struct bk_key *key = NULL;
    struct bk_buf cert = {0}, text = {0};
    struct bk_err err;
    char cert_seed[64];

    (void)snprintf(cert_seed, sizeof cert_seed, "cert-%s", seed);
    fuzz_must(fake_key_new(type, 1, &key, &err), &err);
    fuzz_must(bk_cert_self_sign(key, "Backup host 7", 1700000000, 4000000000, &cert, &err), &err);
    write_seed("cert", cert_seed, cert.data, cert.len);
    write_seed("cert", seed, key->pub.spki, key->pub.spki_len);
    fuzz_must(bk_pem_write(&key->pub, &cert, "who: backup", &text, &err), &err);
    write_seed("pem", cert_seed, text.data, text.len);
    text.len = 0;
    key->pub.scheme = type == BK_KEY_RSA    ? BK_SCHEME_RSA_OAEP_SHA1
                      : type == BK_KEY_P256 ? BK_SCHEME_ECDH_P256
                                            : BK_SCHEME_ECDH_P384;
    fuzz_must(bk_pem_write(&key->pub, NULL, "who: restore\nwhere: safe", &text, &err), &err);
    write_seed("pem", seed, text.data, text.len);
    bk_buf_free(&text);
    bk_buf_free(&cert);
    bk_key_close(key);
}

/* ---- texts ---- */

struct text {
    const char *seed;
    uint8_t first; /* what the harness takes off the front; 0xff: nothing */
    const char *text;
};

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const struct text texts[] = {
    {"archive", 0, "archive=01935c00-1122-7abc-8001-020304050607"},
    {"manifest", 0, "manifest=sha256:" HEX64},
    {"signer", 0, "signer=sha256:" HEX64},
    {"label", 0, "label=orders"},
    {"sequence", 0, "sequence=system=7 timeline=1"},
    {"created", 0, "created-after=2027-01-31T07:00:00Z"},
    {"trust", 1, HEX64},
    {"day", 2, "2027-01-31"},
    {"second", 2, "2028-02-29T23:59:59Z"},
    {"stored", 2, "20280229235959Z"},
    {"number", 3, "18446744073709551615"},
    {"key-id", 4, "0a0b0c0d0e0f10111213"},
    {"kind", 4, "snapshot"},
    {"scheme", 4, "rsa-oaep-sha256"},
};

static const struct text uris[] = {
    {"full", 0xff,
     "pkcs11:token=restore;serial=12ab;object=kek-2026;type=private?module-path=/usr/lib/a.so&pin-source=file:pin"},
    {"pin", 0xff, "pkcs11:token=a%20b;id=%01%02%ff?pin-value=4711-0815"},
    {"hint", 0xff, "pkcs11:token=restore;serial=12ab;object=kek-2026"},
    {"library", 0xff, "pkcs11:library-manufacturer=x;library-version=2.6;model=m;manufacturer=y?module-name=softhsm2"},
    {"slot", 0xff, "pkcs11:slot-id=3;slot-manufacturer=z"},
};

#define SIGN "-s\npkcs11:token=backup;object=signer?pin-source=file:pin\n"

static const struct text command_lines[] = {
    {"wrap", 0,
     "-r\nkek.pem\n--recipient=pkcs11:token=a;object=b\n" SIGN
     "-oout.bk\n--kind\nwal\n--public-label=x\n--retain-until=2027-01-31\n--parent\np.bk\n--sequence=system=1 "
     "timeline=1 segment=2\n--meta=a=b\n--allow-empty\n--force\n-j4\n--json=f\n-q\n--\npg_dump\n-Fc"},
    {"wrap-file", 0, "-r\na\n-r\nb\n" SIGN "-o\n-\n--sign-cert\nc.pem\n--manifest\nm\n--progress=never\nfile"},
    {"unwrap", 1,
     "-t\nrotate:sha256:" HEX64 "\n-k\npkcs11:token=a\n-o\nfile\n--range=5:10\n--expect=label=x\n"
     "--min-generation\n3\n--manifest\nm\n--force\n-j\n2\na.bk"},
    {"unwrap-command", 1, "-t\nc.pem\n--allow-unverified\n-\n--\npsql\n-1"},
    {"unwrap-wal", 1, "-t\nc.pem\n--restore-command\n-o\nf\na.bk"},
    {"unwrap-meta", 1, "-tc.pem\n--meta\n--json\na.bk"},
    {"verify", 2,
     "-t\nc.pem\n--level\ndecrypt\n-k\npkcs11:token=a\n--expect\nsigner=sha256:" HEX64
     "\n--show\n--json=f\na.bk\nb.bk"},
    {"rekey", 3,
     "--from\npkcs11:token=a;object=b\n--to\nkek.pem\n" SIGN
     "-t\nrotate:c.pem\n--blind=required\n--reason=age\n--dry-run\na.bk\nb.bk"},
    {"rekey-add", 3,
     "--from=pkcs11:token=a;object=b\n--add\nk.pem\n--remove\n0a0b0c0d\n" SIGN "--unproven\n-t\nc.pem\na.bk"},
    {"generate", 4, "generate\n--type\np384\n--use=kek\n--owner=me\n--days\n10\n-o\nf\npkcs11:token=a;object=b"},
    {"list", 4, "list\n--json"},
    {"export", 4, "export\n-o\nf\n--force\npkcs11:token=a;object=b"},
    {"batch", 0, SIGN "-r\nkek.pem\n--batch\nlist\n-0\n--json"},
    {"help", 1, "--help"},
};

static const struct text profiles[] = {
    {"two", 0xff,
     "# comment\n[other]\nforce = yes\n\n[nightly]\nrecipient = kek.pem\nrecipient = other.pem\n"
     "sign = pkcs11:token=backup;object=signer?pin-source=file:pin\n  kind: full\njson = yes\n; end\n"},
    {"bom", 0xff, "\xef\xbb\xbf[nightly]\r\ntrust = rotate:c.pem\r\nexpect = label=x\r\n"},
};

static const struct text lists[] = {
    {"lines", '\n', "a\tb\n\nc/d\te.bk\tsystem=1 timeline=2 segment=3\n"},
    {"wrong", '\n', "-\tb\nno tab\na\tb\r\na\tb\tc\td\n\tb\nlast\tline"},
};

static void
write_texts(const char *name, const struct text *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        write_two(name, list[i].seed, &list[i].first, list[i].first == 0xff ? 0 : 1, list[i].text,
                  strlen(list[i].text));
}

/* ---- messages of token workers; the first byte is wire_fuzz.c's reader ---- */

static void
write_wire(const char *seed, uint8_t reader, struct wire_out *o)
{
    fuzz_hold(!o->failed);
    write_two("wire", seed, &reader, 1, o->body.data + 4, o->body.len - 4);
    wire_begin(o, WIRE_DONE);
}

static void
write_wires(void)
{
    const struct bk_key_id id[2] = {{{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, 20},
                                    {{1, 2, 3, 4}, 4}};
    const struct bk_err err = {.code = BK_E_PIN, .token_rv = 0xa0, .message = "refused", .hint = "look"};
    const struct bk_wrapped w = {.scheme = BK_SCHEME_ECDH_P256, .id = id[0], .ephemeral_len = 65, .len = 40};
    const struct p11_pin_request pin = {.token_label = "a", .token_serial = "1", .pin_source = "file:pin"};
    const struct p11_probe_item probe = {.kind = P11_P384, .works = 1, .why = "so"};
    struct p11_item item = {"a", "1", "m", "n", "private key", "label", "0a", NULL, .pub = {.id = id[1]}};
    struct p11_uri uri = {0};
    struct bk_key *key = NULL;
    struct wire_out o = {0};
    struct bk_err failed;

    fuzz_must(fake_key_new(BK_KEY_P256, 0, &key, &failed), &failed);
    fuzz_must(p11_uri_parse(&uri, "pkcs11:token=a%20b;id=%01?pin-source=file:pin", &failed), &failed);
    wire_begin(&o, WIRE_DONE);
    for (uint32_t i = 0; i < 4; i++)
        wire_put_u32(&o, i % 2);
    write_wire("numbers", 0, &o);
    wire_put_bytes(&o, "\0\1", 2);
    wire_put_text(&o, NULL);
    wire_put_text(&o, "text");
    write_wire("texts", 1, &o);
    wire_put_id(&o, &id[0]);
    wire_put_ids(&o, id, 2);
    write_wire("ids", 2, &o);
    wire_put_public(&o, &key->pub);
    write_wire("public", 3, &o);
    wire_put_wrapped(&o, &w);
    write_wire("wrapped", 4, &o);
    wire_put_error(&o, &err);
    write_wire("error", 5, &o);
    wire_put_uri(&o, &uri);
    write_wire("uri", 6, &o);
    wire_put_pin_request(&o, &pin);
    write_wire("pin", 7, &o);
    wire_put_item(&o, &item);
    write_wire("item", 8, &o);
    wire_put_probe_item(&o, &probe);
    write_wire("probe", 9, &o);
    p11_uri_free(&uri);
    bk_key_close(key);
    bk_buf_free(&o.body);
}

int
main(int argc, char **argv)
{
    if (argc != 2 || (mkdir(argv[1], 0777) != 0 && access(argv[1], W_OK) != 0)) {
        (void)fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
        return 2;
    }
    folder = argv[1];
    write_archives();
    write_envelopes();
    write_package("one", 1, 0);
    write_package("four", 4, 3);
    write_two_signers();
    write_wires();
    write_key("rsa", BK_KEY_RSA);
    write_key("p256", BK_KEY_P256);
    write_key("p384", BK_KEY_P384);
    write_texts("text", texts, sizeof texts / sizeof texts[0]);
    write_texts("uri", uris, sizeof uris / sizeof uris[0]);
    write_texts("profile", profiles, sizeof profiles / sizeof profiles[0]);
    write_texts("list", lists, sizeof lists / sizeof lists[0]);
    write_two("list", "null", (const uint8_t *)"0", 1, "a\0b\0\0c\nd\0e\tf\0x=1\0", 16);
    write_texts("args", command_lines, sizeof command_lines / sizeof command_lines[0]);
    return 0;
}
