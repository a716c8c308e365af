#include "format/der.h"

#include <limits.h>
#include <string.h>

#include "base/time.h"
#include "format/manifest.h"

/* Made by asn1Parser from bk.asn. */
extern const asn1_static_node bk_asn1_module[];

/* X.690 8.1.2: the parts of an identifier octet. */
#define TAG_CLASS       0xC0u
#define TAG_CONSTRUCTED 0x20u
#define TAG_NUMBER      0x1Fu

/* ---- the pre-walk ---- */

struct element {
    uint8_t tag;
    size_t header;
    size_t content;
};

/* Reads identifier and length at the start of at. NULL, or what is wrong with them (X.690 8.1.3, 10.1). */
static const char *
read_header(const uint8_t *at, size_t room, struct element *out)
{
    size_t octets, content = 0;

    if (room < 2)
        return "element cut short";
    if ((at[0] & TAG_NUMBER) == TAG_NUMBER)
        return "high tag number";
    if (at[1] == 0x80)
        return "indefinite length";
    octets = at[1] < 0x80 ? 0 : at[1] & 0x7Fu;
    if (octets > 4)
        return "length of more than four octets";
    if (room < 2 + octets)
        return "element cut short";
    for (size_t i = 0; i < octets; i++)
        content = content << 8 | at[2 + i];
    if (octets > 0 && (at[2] == 0 || content < 0x80))
        return "length that is not minimal";
    if (octets == 0)
        content = at[1];
    if (content > room - 2 - octets)
        return "element longer than what holds it";
    *out = (struct element){.tag = at[0], .header = 2 + octets, .content = content};
    return NULL;
}

/* The universal types that may occur at all, each in the only form that DER gives it. */
static int
form_allowed(uint8_t tag)
{
    const uint32_t constructed = 1u << ASN1_TAG_SEQUENCE | 1u << ASN1_TAG_SET;
    const uint32_t primitive = 1u << ASN1_TAG_BOOLEAN | 1u << ASN1_TAG_INTEGER | 1u << ASN1_TAG_BIT_STRING |
                               1u << ASN1_TAG_OCTET_STRING | 1u << ASN1_TAG_NULL | 1u << ASN1_TAG_OBJECT_ID |
                               1u << ASN1_TAG_ENUMERATED | 1u << ASN1_TAG_UTF8_STRING | 1u << ASN1_TAG_NUMERIC_STRING |
                               1u << ASN1_TAG_PRINTABLE_STRING | 1u << ASN1_TAG_TELETEX_STRING |
                               1u << ASN1_TAG_IA5_STRING | 1u << ASN1_TAG_UTCTime | 1u << ASN1_TAG_GENERALIZEDTime |
                               1u << ASN1_TAG_VISIBLE_STRING | 1u << ASN1_TAG_GENERALSTRING |
                               1u << ASN1_TAG_UNIVERSAL_STRING | 1u << ASN1_TAG_BMP_STRING;

    if ((tag & TAG_CLASS) != 0)
        return 1;
    return ((tag & TAG_CONSTRUCTED ? constructed : primitive) >> (tag & TAG_NUMBER) & 1u) != 0;
}

/* X.690 8.3.2: the first nine bits are neither all zero nor all one. */
static const char *
check_integer(const uint8_t *c, size_t len)
{
    if (len == 0)
        return "INTEGER without content";
    if (len > 1 && ((c[0] == 0x00 && c[1] < 0x80) || (c[0] == 0xFF && c[1] >= 0x80)))
        return "INTEGER that is not minimal";
    return NULL;
}

/* X.690 8.6.2 and 11.2: unused bits are 0 to 7, zero, and of a byte that is there. */
static const char *
check_bits(const uint8_t *c, size_t len)
{
    if (len == 0 || c[0] > 7 || (len == 1 && c[0] != 0) || (c[len - 1] & ((1u << c[0]) - 1u) & (len > 1 ? 0xFFu : 0)))
        return "BIT STRING with bad unused bits";
    return NULL;
}

/* X.690 8.19.2: every subidentifier begins with another octet than 80 and is complete. */
static const char *
check_oid(const uint8_t *c, size_t len)
{
    int first = 1;

    for (size_t i = 0; i < len; i++) {
        if (first && c[i] == 0x80)
            return "OBJECT IDENTIFIER that is not minimal";
        first = c[i] < 0x80;
    }
    return len == 0 || !first ? "OBJECT IDENTIFIER cut short" : NULL;
}

static const char *
check_content(uint8_t tag, const uint8_t *c, size_t len)
{
    switch (tag) {
    case ASN1_TAG_BOOLEAN:
        return len == 1 && (c[0] == 0x00 || c[0] == 0xFF) ? NULL : "BOOLEAN that is neither 00 nor FF";
    case ASN1_TAG_INTEGER:
    case ASN1_TAG_ENUMERATED:
        return check_integer(c, len);
    case ASN1_TAG_BIT_STRING:
        return check_bits(c, len);
    case ASN1_TAG_NULL:
        return len == 0 ? NULL : "NULL with content";
    case ASN1_TAG_OBJECT_ID:
        return check_oid(c, len);
    default:
        return NULL;
    }
}

struct walk {
    const uint8_t *der;
    size_t pos;
    size_t elements;
    size_t depth;                  /* how many constructed elements are open */
    size_t ends[BK_DER_DEPTH_MAX]; /* where each of them ends */
};

/* Steps over one primitive element or into one constructed element. NULL, or what is wrong at w->pos. */
static const char *
walk_one(struct walk *w, size_t end)
{
    struct element e;
    const char *bad = read_header(w->der + w->pos, end - w->pos, &e);

    if (bad != NULL)
        return bad;
    if (++w->elements > BK_DER_ELEMENTS_MAX)
        return "more elements than may be";
    if (!form_allowed(e.tag))
        return "type or form that DER does not have here";
    if (w->depth >= BK_DER_DEPTH_MAX)
        return "nesting too deep";
    if ((e.tag & TAG_CONSTRUCTED) == 0)
        bad = check_content(e.tag, w->der + w->pos + e.header, e.content);
    if (bad != NULL)
        return bad;
    w->pos += e.header;
    if (e.tag & TAG_CONSTRUCTED)
        w->ends[w->depth++] = w->pos + e.content;
    else
        w->pos += e.content;
    return NULL;
}

enum bk_code
bk_der_walk(const uint8_t *der, size_t len, const char *what, struct bk_err *err)
{
    struct walk w = {.der = der};
    const char *bad;

    if (len > BK_DER_SIZE_MAX)
        return bk_fail(err, BK_E_FORMAT, "%s: %zu bytes, at most %d allowed", what, len, BK_DER_SIZE_MAX);
    if (len == 0)
        return bk_fail(err, BK_E_FORMAT, "%s: not DER: empty", what);
    do {
        bad = walk_one(&w, w.depth > 0 ? w.ends[w.depth - 1] : len);
        while (bad == NULL && w.depth > 0 && w.pos == w.ends[w.depth - 1])
            w.depth--;
    } while (bad == NULL && w.depth > 0);
    if (bad == NULL && w.pos != len)
        bad = "end, bytes are left over";
    if (bad != NULL)
        return bk_fail(err, BK_E_FORMAT, "%s: not DER: %s at byte %zu", what, bad, w.pos);
    return BK_OK;
}

enum bk_code
bk_der_element_length(const uint8_t *der, size_t len, size_t *out, struct bk_err *err)
{
    struct element e;
    const char *bad = read_header(der, len, &e);

    if (bad != NULL)
        return bk_fail(err, BK_E_FORMAT, "not DER: %s", bad);
    *out = e.header + e.content;
    return BK_OK;
}

/* ---- whole structures ---- */

/*
 * The definitions are expanded for each structure and thrown away: some 30 microseconds, next to signatures and token
 * calls of a thousand, and no state that threads share.
 */
enum bk_code
bk_der_new(const char *type, asn1_node *out, struct bk_err *err)
{
    char name[ASN1_MAX_NAME_SIZE + 4] = "BK.";
    char text[ASN1_MAX_ERROR_DESCRIPTION_SIZE] = "";
    asn1_node definitions = NULL, node = NULL;
    int rv;

    if (strlen(type) > ASN1_MAX_NAME_SIZE)
        return bk_fail(err, BK_E_INTERNAL, "%s: no such type", type);
    memcpy(name + 3, type, strlen(type) + 1);
    rv = asn1_array2tree(bk_asn1_module, &definitions, text);
    if (rv == ASN1_SUCCESS)
        rv = asn1_create_element(definitions, name, &node);
    (void)asn1_delete_structure(&definitions);
    if (rv == ASN1_MEM_ALLOC_ERROR)
        return bk_fail_nomem(err);
    if (rv != ASN1_SUCCESS)
        return bk_fail(err, BK_E_INTERNAL, "%s: cannot be made (%s)", type, asn1_strerror(rv));
    *out = node;
    return BK_OK;
}

void
bk_der_free(asn1_node node)
{
    if (node != NULL)
        (void)asn1_delete_structure2(&node, ASN1_DELETE_FLAG_ZEROIZE);
}

enum bk_code
bk_der_encode(asn1_node node, struct bk_buf *out, struct bk_err *err)
{
    char text[ASN1_MAX_ERROR_DESCRIPTION_SIZE] = "";
    size_t before = out->len;
    uint8_t *at = NULL;
    int len = 0;
    int rv = asn1_der_coding(node, "", NULL, &len, text);
    enum bk_code rc;

    if (rv == ASN1_MEM_ERROR && len > 0) {
        if ((rc = bk_buf_extend(out, (size_t)len, &at, err)) != BK_OK)
            return rc;
        rv = asn1_der_coding(node, "", at, &len, text);
        out->len = rv == ASN1_SUCCESS ? before + (size_t)len : before;
    }
    if (rv == ASN1_MEM_ALLOC_ERROR)
        return bk_fail_nomem(err);
    if (rv != ASN1_SUCCESS || at == NULL)
        return bk_fail(err, BK_E_INTERNAL, "cannot be encoded (%s %s)", asn1_strerror(rv), text);
    return BK_OK;
}

/* libtasn1's strict mode takes more than DER; what it does not write the same way is refused. */
static enum bk_code
check_reencoded(asn1_node node, const char *type, const uint8_t *der, size_t len, struct bk_err *err)
{
    struct bk_buf again = {0};
    enum bk_code rc = bk_der_encode(node, &again, err);

    /* what was decoded and cannot be encoded is the fault of the input */
    if (rc == BK_E_INTERNAL || (rc == BK_OK && (again.len != len || memcmp(again.data, der, len) != 0)))
        rc = bk_fail(err, BK_E_FORMAT, "%s: not the DER encoding of what it holds", type);
    bk_buf_free(&again);
    return rc;
}

enum bk_code
bk_der_decode(const char *type, const uint8_t *der, size_t len, asn1_node *out, struct bk_err *err)
{
    char text[ASN1_MAX_ERROR_DESCRIPTION_SIZE] = "";
    asn1_node node = NULL;
    int rv, size = (int)len; /* the walk has bounded len */
    enum bk_code rc;

    if ((rc = bk_der_walk(der, len, type, err)) != BK_OK)
        return rc;
    if ((rc = bk_der_new(type, &node, err)) != BK_OK)
        return rc;
    rv = asn1_der_decoding2(&node, der, &size, ASN1_DECODE_FLAG_STRICT_DER, text);
    if (rv == ASN1_MEM_ALLOC_ERROR)
        rc = bk_fail_nomem(err);
    else if (rv != ASN1_SUCCESS)
        rc = bk_fail(err, BK_E_FORMAT, "%s: other structure than the profile's (%s %s)", type, asn1_strerror(rv), text);
    else
        rc = check_reencoded(node, type, der, len, err);
    if (rc == BK_OK)
        *out = node;
    else
        bk_der_free(node);
    return rc;
}

/* ---- reading ---- */

/* 1 and the element's type and value, if there is an element at path. */
static int
find(asn1_node node, const char *path, asn1_data_node_st *out)
{
    asn1_node at = asn1_find_node(node, path);

    return at != NULL && asn1_read_node_value(at, out) == ASN1_SUCCESS;
}

/* libtasn1 counts the bits of a BIT STRING where it counts the bytes of everything else. */
static size_t
bytes_of(unsigned etype, int len)
{
    return etype == ASN1_ETYPE_BIT_STRING ? ((size_t)len + 7) / 8 : (size_t)len;
}

/* How many bytes the value at path has. */
static enum bk_code
value_size(asn1_node node, const char *path, size_t *size, struct bk_err *err)
{
    unsigned etype = ASN1_ETYPE_INVALID;
    int len = 0;
    int rv = asn1_read_value_type(node, path, NULL, &len, &etype);

    if ((rv != ASN1_SUCCESS && rv != ASN1_MEM_ERROR) || len < 0)
        return bk_fail(err, BK_E_FORMAT, "%s: missing", path);
    if (etype == ASN1_ETYPE_BIT_STRING && len % 8 != 0)
        return bk_fail(err, BK_E_FORMAT, "%s: not a whole number of bytes", path);
    *size = bytes_of(etype, len);
    return BK_OK;
}

/* Reads a value whose size is known into out, which has exactly that room. */
static enum bk_code
value_read(asn1_node node, const char *path, uint8_t *out, size_t size, struct bk_err *err)
{
    unsigned etype = ASN1_ETYPE_INVALID;
    int len = (int)size;
    int rv;

    if (size == 0)
        return BK_OK;
    rv = asn1_read_value_type(node, path, out, &len, &etype);
    if (rv != ASN1_SUCCESS || len < 0 || bytes_of(etype, len) != size)
        return bk_fail(err, BK_E_INTERNAL, "%s: cannot be read (%s)", path, asn1_strerror(rv));
    return BK_OK;
}

enum bk_code
bk_der_get_bytes(asn1_node node, const char *path, uint8_t *out, size_t max, size_t *len, struct bk_err *err)
{
    size_t size = 0;
    enum bk_code rc;

    if ((rc = value_size(node, path, &size, err)) != BK_OK)
        return rc;
    if (size > max)
        return bk_fail(err, BK_E_FORMAT, "%s: %zu bytes, at most %zu allowed", path, size, max);
    if ((rc = value_read(node, path, out, size, err)) != BK_OK)
        return rc;
    *len = size;
    return BK_OK;
}

enum bk_code
bk_der_get_fixed(asn1_node node, const char *path, uint8_t *out, size_t len, struct bk_err *err)
{
    size_t size = 0;
    enum bk_code rc;

    if ((rc = value_size(node, path, &size, err)) != BK_OK)
        return rc;
    if (size != len)
        return bk_fail(err, BK_E_FORMAT, "%s: %zu bytes, not %zu", path, size, len);
    return value_read(node, path, out, size, err);
}

enum bk_code
bk_der_get_buf(asn1_node node, const char *path, struct bk_buf *out, struct bk_err *err)
{
    size_t size = 0, before = out->len;
    uint8_t *at;
    enum bk_code rc;

    if ((rc = value_size(node, path, &size, err)) != BK_OK)
        return rc;
    if ((rc = bk_buf_extend(out, size, &at, err)) != BK_OK)
        return rc;
    if ((rc = value_read(node, path, at, size, err)) != BK_OK)
        out->len = before;
    return rc;
}

enum bk_code
bk_der_get_u64(asn1_node node, const char *path, uint64_t *out, struct bk_err *err)
{
    uint8_t bytes[8];
    size_t len = 0;
    uint64_t v = 0;
    enum bk_code rc;

    if ((rc = value_size(node, path, &len, err)) != BK_OK)
        return rc;
    if (len == 0 || len > sizeof bytes)
        return bk_fail(err, BK_E_FORMAT, "%s: number out of range", path);
    if ((rc = value_read(node, path, bytes, len, err)) != BK_OK)
        return rc;
    if (bytes[0] & 0x80)
        return bk_fail(err, BK_E_FORMAT, "%s: negative number", path);
    for (size_t i = 0; i < len; i++)
        v = v << 8 | bytes[i];
    *out = v;
    return BK_OK;
}

enum bk_code
bk_der_get_time(asn1_node node, const char *path, time_t *out, struct bk_err *err)
{
    uint8_t text[BK_TIME_LEN + 1];
    size_t len = 0;
    enum bk_code rc;

    /* libtasn1 counts the NUL that it puts after a time */
    if ((rc = bk_der_get_bytes(node, path, text, sizeof text, &len, err)) != BK_OK)
        return rc;
    if (len != sizeof text)
        return bk_fail(err, BK_E_FORMAT, "%s: time is not of the form YYYYMMDDHHMMSSZ", path);
    if ((rc = bk_time_parse((const char *)text, len - 1, out, err)) != BK_OK)
        bk_err_prefix(err, "%s", path);
    return rc;
}

/* The types that libtasn1 hands out as C strings, whose NUL it counts. */
static int
is_c_string(asn1_node node, const char *path)
{
    asn1_data_node_st data;

    return find(node, path, &data) && (data.type == ASN1_ETYPE_OBJECT_ID || data.type == ASN1_ETYPE_CHOICE);
}

enum bk_code
bk_der_get_text(asn1_node node, const char *path, char *out, size_t max, struct bk_err *err)
{
    size_t size = 0, room = max > 0 && !is_c_string(node, path) ? max - 1 : max;
    enum bk_code rc;

    if ((rc = bk_der_get_bytes(node, path, (uint8_t *)out, room, &size, err)) != BK_OK)
        return rc;
    if (room == max && size > 0)
        size--;
    if (!bk_text_valid(out, size))
        return bk_fail(err, BK_E_FORMAT, "%s: empty, too long, or not UTF-8 text without control characters", path);
    out[size] = '\0';
    return BK_OK;
}

int
bk_der_has(asn1_node node, const char *path)
{
    asn1_data_node_st data;

    if (!find(node, path, &data))
        return 0;
    /* decoding removes an absent element or leaves it without a value; constructed types have none of their own */
    switch (data.type) {
    case ASN1_ETYPE_SEQUENCE:
    case ASN1_ETYPE_SEQUENCE_OF:
    case ASN1_ETYPE_SET:
    case ASN1_ETYPE_SET_OF:
    case ASN1_ETYPE_CHOICE:
        return 1;
    default:
        return data.value != NULL;
    }
}

enum bk_code
bk_der_count(asn1_node node, const char *path, size_t *out, struct bk_err *err)
{
    int n = 0;

    if (asn1_number_of_elements(node, path, &n) != ASN1_SUCCESS || n < 0)
        return bk_fail(err, BK_E_FORMAT, "%s: missing", path);
    *out = (size_t)n;
    return BK_OK;
}

enum bk_code
bk_der_span(asn1_node node, const char *path, const uint8_t *der, size_t len, size_t *start, size_t *end,
            struct bk_err *err)
{
    int first = 0, last = 0;
    int rv = len > INT_MAX ? ASN1_GENERIC_ERROR : asn1_der_decoding_startEnd(node, der, (int)len, path, &first, &last);

    if (rv != ASN1_SUCCESS || first < 0 || last < first || (size_t)last >= len)
        return bk_fail(err, BK_E_FORMAT, "%s: missing", path);
    *start = (size_t)first;
    *end = (size_t)last + 1;
    return BK_OK;
}

/* ---- writing ---- */

static enum bk_code
write_value(asn1_node node, const char *path, const void *data, int len, struct bk_err *err)
{
    int rv = asn1_write_value(node, path, data, len);

    if (rv == ASN1_MEM_ALLOC_ERROR)
        return bk_fail_nomem(err);
    if (rv != ASN1_SUCCESS)
        return bk_fail(err, BK_E_INTERNAL, "%s: cannot be written (%s)", path, asn1_strerror(rv));
    return BK_OK;
}

enum bk_code
bk_der_put_bytes(asn1_node node, const char *path, const void *data, size_t len, struct bk_err *err)
{
    asn1_data_node_st target;

    if (len > BK_DER_SIZE_MAX)
        return bk_fail(err, BK_E_INTERNAL, "%s: too long to be written", path);
    if (!find(node, path, &target))
        return bk_fail(err, BK_E_INTERNAL, "%s: no such element", path);
    if (target.type == ASN1_ETYPE_BIT_STRING)
        len *= 8;
    /* libtasn1 takes length 0 for "count up to the NUL" */
    return write_value(node, path, len == 0 ? "" : data, (int)len, err);
}

enum bk_code
bk_der_put_u64(asn1_node node, const char *path, uint64_t v, struct bk_err *err)
{
    uint8_t bytes[9] = {0};
    size_t skip = 0;

    bk_put_u64(bytes + 1, v);
    while (skip < 8 && bytes[skip] == 0 && bytes[skip + 1] < 0x80)
        skip++;
    return write_value(node, path, bytes + skip, (int)(sizeof bytes - skip), err);
}

enum bk_code
bk_der_put_time(asn1_node node, const char *path, time_t t, struct bk_err *err)
{
    char text[BK_TIME_LEN + 1];

    bk_time_format(t, text);
    return write_value(node, path, text, BK_TIME_LEN, err);
}

enum bk_code
bk_der_put_text(asn1_node node, const char *path, const char *text, struct bk_err *err)
{
    return write_value(node, path, text, 1, err);
}

enum bk_code
bk_der_put_absent(asn1_node node, const char *path, struct bk_err *err)
{
    return write_value(node, path, NULL, 0, err);
}

enum bk_code
bk_der_put_new(asn1_node node, const char *path, struct bk_err *err)
{
    return write_value(node, path, "NEW", 1, err);
}
